//! Where items come from: what the engine asks of the side that is watched.
//!
//! Detection lists and watches a source by its own means (`scan`, `push`); this trait is what happens to a
//! single path afterwards: fetch it, look at it, and do what comes after its delivery. Paths are
//! below the source's root, as items have them.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use ketch_client::{Kind, RemotePath};

use crate::snapshot::Facts;

/// What a source answers, when it has it.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// A tree of files: on a server, or here.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// What is there now; a link is told as a link.
    fn look<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, Facts>;

    /// Copies the file at `path` to the local file `to`, which does not exist yet.
    /// The facts are looked at before and after: [`SourceError::Changed`] if they are not
    /// `expected` both times, and then nothing is left at `to`.
    fn fetch<'a>(&'a self, path: &'a RemotePath, expected: Facts, to: &'a Path) -> Answer<'a, ()>;

    /// SHA-256 of the file at `path`: by the server's own means where it has them, else by reading.
    fn sha256<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, [u8; 32]>;

    /// Removes a file.
    fn remove<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, ()>;

    /// Renames within the source, and makes the directories that the new name needs. Without
    /// `replace` a name that is taken is [`Kind::Exists`].
    fn rename<'a>(
        &'a self,
        from: &'a RemotePath,
        to: &'a RemotePath,
        replace: bool,
    ) -> Answer<'a, ()>;

    /// Whether it can be reached and listed.
    fn check(&self) -> Answer<'_, ()>;
}

/// Why a source did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It is not the version that was expected, any more or yet.
    #[error("{path} changed while it was fetched")]
    Changed {
        /// Which.
        path: RemotePath,
    },
    /// It is not there.
    #[error("{path} is gone")]
    Gone {
        /// Which.
        path: RemotePath,
    },
    /// The source refused or could not be reached, or the local side failed.
    #[error("{what}")]
    Failed {
        /// What was attempted, on what.
        what: String,
        /// What sort of failure it is.
        kind: Kind,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SourceError {
    /// What sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Changed { .. } => Kind::Peer,
            Self::Gone { .. } => Kind::NotFound,
            Self::Failed { kind, .. } => *kind,
        }
    }
}
