//! Why a transfer failed.

use std::{error::Error, fmt, path::PathBuf, sync::Arc};

use ketch_protocol::{FileType, RemotePath, StatusCode};

use super::{
    download::ReadFault,
    local::{LocalAction, LocalFault},
    names::NameFault,
    report::Report,
    upload::SourceShrank,
};
use crate::{
    error::{Failure, Kind, Outcome},
    requests::{PeerMisbehaved, calls::Ended},
    sftp::{Operation, kind_of_status},
};

/// Why a transfer, or one file of it, failed.
///
/// No file is left under its final name that is not whole, and no temporary one if that could be
/// helped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The server answered with a status other than `OK`.
    #[error("the server refused to {operation} {path}: {}", status_text(*.status, .message))]
    Refused {
        /// What was asked.
        operation: Operation,
        /// Of what.
        path: RemotePath,
        /// What it answered.
        status: StatusCode,
        /// In its own words; may be empty.
        message: String,
    },
    /// The server's disk is full: it refused to write or to close a file, and has no room left
    /// (`statvfs@openssh.com`).
    #[error("no space left on the server for {path}")]
    NoSpace {
        /// The file on the server.
        path: RemotePath,
    },
    /// A local file or directory could not be opened, written, and so on.
    #[error("cannot {action} {}", .path.display())]
    Local {
        /// What was tried.
        action: LocalAction,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What the server sent of the file does not make a whole file.
    #[error("cannot read {path}")]
    Read {
        /// The file on the server.
        path: RemotePath,
        /// What is wrong.
        source: ReadFault,
    },
    /// The local file changed while it was sent.
    #[error("cannot send {}", .path.display())]
    Changed {
        /// The local file.
        path: PathBuf,
        /// What happened.
        source: SourceShrank,
    },
    /// The server has another number of bytes than were sent, though it accepted all.
    #[error("{path} has {found} bytes on the server in place of {sent}")]
    WrongSize {
        /// The file on the server.
        path: RemotePath,
        /// Bytes sent.
        sent: u64,
        /// Bytes it has.
        found: u64,
    },
    /// What was transferred is not the same on both sides, and was removed.
    #[error("{path} is not the same on both sides")]
    Differs {
        /// The file on the server.
        path: RemotePath,
    },
    /// It is not a plain file, and is not to be followed or walked.
    #[error("{path} is a {file_type}")]
    NotAFile {
        /// What was asked for.
        path: RemotePath,
        /// What it is.
        file_type: FileType,
    },
    /// A file of this name is there, and was not to be replaced.
    #[error("{path} is there already")]
    Exists {
        /// The file on the server.
        path: RemotePath,
    },
    /// The old file was removed, as the server cannot replace one, and then the new one could not
    /// be given its name. Or a connection was lost that had been asked to remove it: the server may
    /// still do so, and would remove the new file with that name.
    #[error("{path} could not be replaced, and is on the server as {temporary}")]
    LeftAs {
        /// The name it should have.
        path: RemotePath,
        /// The name that it has.
        temporary: RemotePath,
        /// What the server said to the rename.
        status: StatusCode,
    },
    /// The server listed something that must not become a local name.
    #[error("{path} is refused: {fault}")]
    Name {
        /// Directory and name as the server gave them, the name up to 255 bytes.
        path: RemotePath,
        /// What is wrong with the name.
        fault: NameFault,
    },
    /// Directories are nested too deeply, or hold too much.
    #[error("{path} goes beyond the limit of {limit}")]
    TooMuch {
        /// Where the limit was met.
        path: RemotePath,
        /// The limit in words.
        limit: &'static str,
    },
    /// The server lacks an extension that was needed.
    #[error("the server has no {extension}, and so cannot {purpose}")]
    Unsupported {
        /// Its name.
        extension: &'static str,
        /// What it was needed for.
        purpose: &'static str,
    },
    /// The server said nothing for the length of the stall deadline.
    #[error("the server stopped answering")]
    TimedOut {
        /// Whether the last step, a rename, may have been done.
        outcome: Outcome,
    },
    /// The connection ended first.
    #[error("the connection ended before the transfer did")]
    Lost {
        /// Whether the last step, a rename, may have been done.
        outcome: Outcome,
        /// Why it ended.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// It was cancelled ([`Control::cancel`](crate::Control::cancel)).
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The server broke the protocol.
    #[error("the server broke the SFTP protocol")]
    Misbehaved {
        /// How.
        source: Arc<PeerMisbehaved>,
    },
    /// The sink or source panicked.
    #[error("the receiver or giver of the data panicked")]
    Panicked,
    /// Of several files some were transferred and some not.
    #[error("{} of {} could not be transferred", .report.failed_count, .report.failed_count + .report.files)]
    Incomplete {
        /// What was done, what was not, and why.
        report: Box<Report>,
    },
}

fn status_text(status: StatusCode, message: &str) -> String {
    if message.is_empty() {
        status.text().to_owned()
    } else {
        message.to_owned()
    }
}

impl TransferError {
    pub(crate) fn ended(ended: &Ended, outcome: Outcome) -> Self {
        match ended {
            Ended::Closed(source) => Self::Lost {
                outcome,
                source: Arc::clone(source),
            },
            Ended::Stalled => Self::TimedOut { outcome },
            Ended::Misbehaved(source) => Self::Misbehaved {
                source: Arc::clone(source),
            },
        }
    }

    /// Whether the next file would fail for the same reason. A full disk is no such reason: where
    /// one file does not fit, a smaller one may.
    pub(crate) const fn ends_everything(&self) -> bool {
        matches!(
            self,
            Self::TimedOut { .. }
                | Self::Lost { .. }
                | Self::Misbehaved { .. }
                | Self::Cancelled
                | Self::Panicked
        )
    }
}

impl From<LocalFault> for TransferError {
    fn from(
        LocalFault {
            action,
            path,
            source,
        }: LocalFault,
    ) -> Self {
        Self::Local {
            action,
            path,
            source,
        }
    }
}

impl Failure for TransferError {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { status, .. } | Self::LeftAs { status, .. } => kind_of_status(*status),
            Self::Local { source, .. } => Kind::of_local(source),
            Self::Read { .. }
            | Self::WrongSize { .. }
            | Self::Differs { .. }
            | Self::Misbehaved { .. }
            | Self::Name { .. }
            | Self::TooMuch { .. } => Kind::Peer,
            Self::Changed { .. } | Self::Panicked | Self::NotAFile { .. } => Kind::Local,
            Self::Exists { .. } => Kind::Exists,
            Self::NoSpace { .. } => Kind::NoSpace,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::TimedOut { .. } => Kind::Timeout,
            Self::Cancelled => Kind::Cancelled,
            Self::Lost { .. } => Kind::Network,
            Self::Incomplete { report } => report
                .failed
                .first()
                .map_or(Kind::Peer, |failed| failed.error.kind()),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            // A file that changes under the reader may hold still next time.
            Self::Changed { .. } | Self::Differs { .. } => true,
            Self::Read { source, .. } => {
                matches!(
                    source,
                    ReadFault::Shrank { .. } | ReadFault::Truncated { .. }
                )
            }
            Self::Incomplete { report } => {
                !report.failed.is_empty() && report.failed.iter().all(|f| f.error.is_transient())
            }
            _ => self.kind().is_transient(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut { outcome } | Self::Lost { outcome, .. } => *outcome,
            Self::Incomplete { .. } => Outcome::Unknown,
            _ => Outcome::NotDone,
        }
    }
}

/// A path on either side, for a report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// On the server.
    Remote(RemotePath),
    /// On this machine.
    Local(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(path) => path.fmt(f),
            Self::Local(path) => path.display().fmt(f),
        }
    }
}
