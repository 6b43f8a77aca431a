//! Why a request failed.

use std::{error::Error, fmt, io, sync::Arc};

use ketch_protocol::{RemotePath, StatusCode};
use ketch_transport::driver::{CloseReason, OpenError};

use crate::{
    error::{Failure, Kind, Outcome},
    requests::{
        PeerMisbehaved,
        calls::{Ended, Reply, Unanswered},
    },
};

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SftpError {
    /// The server answered with a status other than `OK`.
    #[error("the server refused to {operation} {path}: {}", text(*.status, .message))]
    Refused {
        /// What was asked.
        operation: Operation,
        /// Of what; empty for what is about no path.
        path: RemotePath,
        /// What it answered.
        status: StatusCode,
        /// In its own words; may be empty.
        message: String,
    },
    /// The server said nothing for the length of the stall deadline.
    #[error("the server did not answer a request to {operation} {path} in time")]
    TimedOut {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: RemotePath,
        /// Whether it may have been done.
        outcome: Outcome,
    },
    /// The session or the connection ended before the answer came.
    #[error("the connection ended before the server answered a request to {operation} {path}")]
    Lost {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: RemotePath,
        /// Whether it may have been done.
        outcome: Outcome,
        /// Why it ended.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The server broke the protocol, and the session was ended.
    #[error("the server broke the SFTP protocol while it was to {operation} {path}")]
    Misbehaved {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: RemotePath,
        /// Whether it may have been done.
        outcome: Outcome,
        /// How.
        source: Arc<PeerMisbehaved>,
    },
    /// The answer does not hold what belongs there.
    #[error("the server answered a request to {operation} {path} with something malformed")]
    Malformed {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: RemotePath,
    },
    /// No channel with SFTP could be opened.
    #[error("SFTP could not be started")]
    NotOpened(#[source] OpenError),
    /// The server lacks an extension.
    #[error("the server does not have {extension}")]
    Unsupported {
        /// Its name.
        extension: &'static str,
    },
}

/// What can be asked of a server, for messages: a verb in the infinitive.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// To begin the session.
    Begin,
    /// To look at attributes.
    Stat,
    /// To set attributes.
    SetAttrs,
    /// To open a file for reading, or one that is there.
    Open,
    /// To create a file, or to open and cut it.
    Create,
    /// To read from a file.
    Read,
    /// To write to a file.
    Write,
    /// To bring a file to the server's disk.
    Sync,
    /// To close a file.
    Close,
    /// To list a directory.
    ReadDir,
    /// To create a directory.
    CreateDir,
    /// To remove a file.
    Remove,
    /// To remove a directory.
    RemoveDir,
    /// To rename.
    Rename,
    /// To create a link of either kind.
    Link,
    /// To read a link.
    ReadLink,
    /// To find the absolute path.
    Canonicalize,
    /// To look at the file system.
    StatVfs,
    /// To compute a checksum.
    Checksum,
    /// To name its limits.
    Limits,
    /// To name users and groups.
    Users,
    /// To watch a directory.
    Watch,
}

impl Operation {
    /// Whether something on the server is different afterwards.
    pub(crate) const fn changes(self) -> bool {
        matches!(
            self,
            Self::SetAttrs
                | Self::Create
                | Self::Write
                | Self::CreateDir
                | Self::Remove
                | Self::RemoveDir
                | Self::Rename
                | Self::Link
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begin => "begin the session",
            Self::Stat => "look at",
            Self::SetAttrs => "set the attributes of",
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Close => "close",
            Self::ReadDir => "list",
            Self::CreateDir => "create the directory",
            Self::Remove => "remove",
            Self::RemoveDir => "remove the directory",
            Self::Rename => "rename",
            Self::Link => "create the link",
            Self::ReadLink => "read the link",
            Self::Canonicalize => "find the path of",
            Self::StatVfs => "look at the file system of",
            Self::Checksum => "compute the checksum of",
            Self::Limits => "name its limits",
            Self::Users => "name users and groups",
            Self::Watch => "watch",
        })
    }
}

fn text(status: StatusCode, message: &str) -> String {
    if message.is_empty() {
        status.text().to_owned()
    } else {
        message.to_owned()
    }
}

/// The kind of failure that a status means.
///
/// Version 3 says `FAILURE` for nearly everything; the higher codes are those of later versions,
/// which some servers send all the same.
pub(crate) fn kind_of_status(status: StatusCode) -> Kind {
    match status {
        StatusCode::NO_SUCH_FILE | StatusCode::NO_SUCH_PATH => Kind::NotFound,
        StatusCode::PERMISSION_DENIED | StatusCode::WRITE_PROTECT => Kind::Permission,
        StatusCode::FILE_ALREADY_EXISTS => Kind::Exists,
        StatusCode::NO_SPACE_ON_FILESYSTEM | StatusCode::QUOTA_EXCEEDED => Kind::NoSpace,
        StatusCode::OP_UNSUPPORTED => Kind::Unsupported,
        StatusCode::NO_CONNECTION | StatusCode::CONNECTION_LOST => Kind::Network,
        _ => Kind::Peer,
    }
}

impl SftpError {
    pub(crate) fn refused(
        operation: Operation,
        path: &RemotePath,
        status: StatusCode,
        message: String,
    ) -> Self {
        Self::Refused {
            operation,
            path: path.clone(),
            status,
            message,
        }
    }

    pub(crate) fn malformed(operation: Operation, path: &RemotePath) -> Self {
        Self::Malformed {
            operation,
            path: path.clone(),
        }
    }

    /// An answer that is not the success.
    pub(crate) fn other(operation: Operation, path: &RemotePath, reply: Reply) -> Self {
        match reply {
            Reply::Status(status, message) => Self::refused(operation, path, status, message),
            _ => Self::malformed(operation, path),
        }
    }

    pub(crate) fn unanswered(
        operation: Operation,
        path: &RemotePath,
        unanswered: &Unanswered,
    ) -> Self {
        let outcome = if unanswered.sent && operation.changes() {
            Outcome::Unknown
        } else {
            Outcome::NotDone
        };
        Self::from_end(operation, path, &unanswered.ended, outcome)
    }

    pub(crate) fn ended(operation: Operation, path: &RemotePath, ended: &Ended) -> Self {
        Self::from_end(operation, path, ended, Outcome::NotDone)
    }

    fn from_end(operation: Operation, path: &RemotePath, ended: &Ended, outcome: Outcome) -> Self {
        let path = path.clone();
        match ended {
            Ended::Stalled => Self::TimedOut {
                operation,
                path,
                outcome,
            },
            // Opened before the server was asked: its no comes with the first request.
            Ended::Closed(source)
                if let Some(CloseReason::Refused(refusal)) =
                    source.downcast_ref::<CloseReason>() =>
            {
                Self::NotOpened(OpenError::Refused(refusal.clone()))
            }
            Ended::Closed(source) => Self::Lost {
                operation,
                path,
                outcome,
                source: Arc::clone(source),
            },
            Ended::Misbehaved(source) => Self::Misbehaved {
                operation,
                path,
                outcome,
                source: Arc::clone(source),
            },
        }
    }
}

/// For what takes streams: the kind that fits best, with the error as its cause.
impl From<SftpError> for io::Error {
    fn from(error: SftpError) -> Self {
        let kind = match error.kind() {
            Kind::NotFound => io::ErrorKind::NotFound,
            Kind::Permission => io::ErrorKind::PermissionDenied,
            Kind::Exists => io::ErrorKind::AlreadyExists,
            Kind::NoSpace => io::ErrorKind::StorageFull,
            Kind::Network => io::ErrorKind::ConnectionAborted,
            Kind::Timeout => io::ErrorKind::TimedOut,
            Kind::Unsupported => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl Failure for SftpError {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { status, .. } => kind_of_status(*status),
            Self::TimedOut { .. } | Self::NotOpened(OpenError::TimedOut) => Kind::Timeout,
            Self::Misbehaved { .. } | Self::Malformed { .. } => Kind::Peer,
            Self::Unsupported { .. } | Self::NotOpened(OpenError::Refused(_)) => Kind::Unsupported,
            Self::NotOpened(OpenError::TooMany) => Kind::Local,
            // A channel that was used before it was open, and was refused.
            Self::Lost { source, .. }
                if matches!(
                    source.downcast_ref::<CloseReason>(),
                    Some(CloseReason::Refused(_))
                ) =>
            {
                Kind::Unsupported
            }
            Self::Lost { .. } | Self::NotOpened(_) => Kind::Network,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut { outcome, .. }
            | Self::Lost { outcome, .. }
            | Self::Misbehaved { outcome, .. } => *outcome,
            Self::Refused { .. }
            | Self::Malformed { .. }
            | Self::NotOpened(_)
            | Self::Unsupported { .. } => Outcome::NotDone,
        }
    }
}
