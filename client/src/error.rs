//! What every error of this crate answers: its [`Kind`], whether trying again may help, and what
//! became of the operation ([`Outcome`]).
//!
//! Errors are small enums, one for each operation, and live beside it: `ConnectError` in
//! `connect`, and so on. All of them implement [`Failure`]; retries, exit codes and statuses are
//! made from its three answers, nowhere from text. `Display` is one clause that tells what was
//! attempted, on what, what went wrong and, where that is known, what to do about it;
//! `source()` keeps the cause.

use std::io;

use ketch_transport::driver::{CloseReason, OpenError};
use ketch_transport::error::ConnectionError;
use ketch_transport::event::Refusal;
use ketch_transport::message::transport::DisconnectReason;

/// The three answers that every public error of ketch gives.
///
/// Implementations name the kind, and say more only where the defaults are wrong:
///
/// ```
/// use ketch_client::{Failure, Kind, Outcome};
///
/// #[derive(Debug, thiserror::Error)]
/// enum RemoveError {
///     #[error("there is no such file")]
///     Missing,
///     #[error("the connection ended before the server answered")]
///     Lost,
/// }
///
/// impl Failure for RemoveError {
///     fn kind(&self) -> Kind {
///         match self {
///             Self::Missing => Kind::NotFound,
///             Self::Lost => Kind::Network,
///         }
///     }
///     fn outcome(&self) -> Outcome {
///         match self {
///             Self::Missing => Outcome::NotDone,
///             Self::Lost => Outcome::Unknown,
///         }
///     }
/// }
///
/// assert!(RemoveError::Lost.is_transient());
/// assert_eq!(RemoveError::Lost.outcome(), Outcome::Unknown);
/// ```
pub trait Failure: std::error::Error {
    /// What sort of failure this is: what exit codes and statuses are made from.
    fn kind(&self) -> Kind;

    /// Whether the same operation may succeed later without anybody changing anything.
    ///
    /// Default: what [`Kind::is_transient`] says. It does not say that repeating is *safe*: for
    /// that, [`Failure::outcome`] has to be [`Outcome::NotDone`], or the operation one that may
    /// be done twice.
    fn is_transient(&self) -> bool {
        self.kind().is_transient()
    }

    /// What became of the operation. Default: [`Outcome::NotDone`].
    fn outcome(&self) -> Outcome {
        Outcome::NotDone
    }
}

/// What sort of failure an error is: one list for all operations.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A file, directory, host name or key file does not exist.
    NotFound,
    /// It exists, and the caller may not do this to it.
    Permission,
    /// It exists already, and was not to be replaced.
    Exists,
    /// No space or quota left, here or on the server.
    NoSpace,
    /// The server did not accept who we are.
    Auth,
    /// We did not accept who the server is.
    HostKey,
    /// No algorithm that both sides would use.
    Algorithm,
    /// The connection could not be made, or ended.
    Network,
    /// A deadline passed.
    Timeout,
    /// The peer broke the protocol, or refused without saying more.
    Peer,
    /// Something on this machine: a local file, a configuration, a wrong argument.
    Local,
    /// The server does not know how to do this.
    Unsupported,
    /// The caller gave up.
    Cancelled,
}

impl Kind {
    /// Whether failures of this kind tend to pass by themselves.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Network | Self::Timeout)
    }

    /// The kind of an error that a *local* file or directory gave.
    #[must_use]
    pub fn of_local(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Permission,
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Local,
        }
    }

    /// The kind of an error that a socket, or another stream to the server, gave.
    #[must_use]
    pub fn of_stream(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Network,
        }
    }
}

impl Failure for CloseReason {
    fn kind(&self) -> Kind {
        match self {
            Self::Requested => Kind::Cancelled,
            Self::Eof | Self::Idle => Kind::Network,
            Self::Io(error) => Kind::of_stream(error),
            Self::Connection(error) => kind_of_connection(error),
            Self::Refused(_) => Kind::Unsupported,
            Self::NotLoggedIn => Kind::Auth,
            Self::TooMany => Kind::Local,
            _ => Kind::Peer,
        }
    }

    /// What was asked for before the end may have been done.
    fn outcome(&self) -> Outcome {
        Outcome::Unknown
    }
}

fn kind_of_connection(error: &ConnectionError) -> Kind {
    match error {
        ConnectionError::NoCommonAlgorithm(_) => Kind::Algorithm,
        ConnectionError::TimedOut(_) => Kind::Timeout,
        ConnectionError::HostKeyRefused => Kind::HostKey,
        ConnectionError::TooManyAttempts => Kind::Auth,
        ConnectionError::RandomFailed(_) => Kind::Local,
        // Connecting again without guessing works.
        ConnectionError::WrongChannelForeseen => Kind::Network,
        // It is full, restarts, or lost sight of us: all of that passes.
        ConnectionError::Disconnected { reason, .. }
            if [
                DisconnectReason::TOO_MANY_CONNECTIONS,
                DisconnectReason::CONNECTION_LOST,
                DisconnectReason::BY_APPLICATION,
            ]
            .contains(reason) =>
        {
            Kind::Network
        }
        _ => Kind::Peer,
    }
}

impl Failure for OpenError {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused(Refusal::Subsystem | Refusal::Exec | Refusal::Shell | Refusal::Pty) => {
                Kind::Unsupported
            }
            Self::TooMany | Self::TooLong | Self::NoMoreSessions => Kind::Local,
            Self::NotLoggedIn => Kind::Auth,
            Self::TimedOut => Kind::Timeout,
            Self::Closed(why) => why.kind(),
            _ => Kind::Peer,
        }
    }
}

/// What became of an operation that failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// Nothing changed on the server: repeating is safe.
    NotDone,
    /// It was done all the same: the failure came afterwards.
    Done,
    /// The answer was lost: look before you repeat a rename, a removal or a new directory.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_network_and_the_clock_are_transient() {
        let all = [
            Kind::NotFound,
            Kind::Permission,
            Kind::Exists,
            Kind::NoSpace,
            Kind::Auth,
            Kind::HostKey,
            Kind::Algorithm,
            Kind::Network,
            Kind::Timeout,
            Kind::Peer,
            Kind::Local,
            Kind::Unsupported,
            Kind::Cancelled,
        ];
        let transient: Vec<_> = all.into_iter().filter(|kind| kind.is_transient()).collect();
        assert_eq!(transient, [Kind::Network, Kind::Timeout]);
    }

    #[test]
    fn a_full_disk_is_told_from_other_local_failures() {
        let kind = |kind: io::ErrorKind| Kind::of_local(&io::Error::from(kind));
        assert_eq!(kind(io::ErrorKind::StorageFull), Kind::NoSpace);
        assert_eq!(kind(io::ErrorKind::PermissionDenied), Kind::Permission);
        assert_eq!(kind(io::ErrorKind::Other), Kind::Local);
    }
}
