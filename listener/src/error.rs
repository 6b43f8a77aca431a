//! Why a directory could not be listed.

use ketch_client::{Failure, Kind, RemotePath, SftpError};

use crate::listing::ListingTooLarge;

/// Why a watched directory could not be listed.
///
/// Nothing is known to be gone because of one: the watch goes on and tries again later, unless
/// [`WatchError::is_final`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The server would not list it, or broke off.
    #[error("cannot list {path}")]
    Unreadable {
        /// The watched directory.
        path: RemotePath,
        /// What the server, or the connection, did.
        source: SftpError,
    },
    /// It holds more than the listener may keep.
    #[error("cannot watch {path}")]
    TooLarge {
        /// The watched directory.
        path: RemotePath,
        /// What the bound was.
        source: ListingTooLarge,
    },
    /// There are more directories than one watch may hold: this one, and others, are left out.
    #[error(
        "cannot watch {path}: more than {} directories",
        crate::directories::DIRECTORIES_MAX
    )]
    TooManyDirectories {
        /// The first one that is left out.
        path: RemotePath,
    },
}

impl WatchError {
    /// Whether no listing can follow: the connection is gone.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => source.kind() == Kind::Network,
            Self::TooLarge { .. } | Self::TooManyDirectories { .. } => false,
        }
    }

    /// Whether the directory is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == Kind::NotFound)
    }
}

impl Failure for WatchError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. } => source.kind(),
            Self::TooLarge { .. } | Self::TooManyDirectories { .. } => Kind::Local,
        }
    }
}
