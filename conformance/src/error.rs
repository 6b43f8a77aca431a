//! Why a peer could not be used.

use std::path::PathBuf;
use std::time::Duration;

/// Why a real peer, or something it needs, is not there or did not do its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// A program is not installed.
    #[error("`{program}` is not installed: run scripts/setup-peers")]
    Missing {
        /// Name under which it was looked for.
        program: &'static str,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, as "writing /x/y".
        doing: String,
        /// What it said.
        source: std::io::Error,
    },
    /// A program ended with a status that says it failed.
    #[error("`{program}` failed ({status}): {said}")]
    Failed {
        /// Name of the program.
        program: String,
        /// Exit status or signal, in words.
        status: String,
        /// What it wrote.
        said: String,
    },
    /// A program was not done in time and was ended.
    #[error("`{program}` was not done within {limit:?}: {said}")]
    TimedOut {
        /// Name of the program.
        program: String,
        /// The time it had.
        limit: Duration,
        /// What it wrote until then.
        said: String,
    },
    /// Something can only be done by root.
    #[error("{doing} needs root")]
    NeedsRoot {
        /// What was to be done.
        doing: &'static str,
    },
    /// A path cannot be written into a configuration file or a batch.
    #[error("{path:?} has characters that cannot be quoted")]
    Unquotable {
        /// The path.
        path: PathBuf,
    },
}

impl PeerError {
    /// For `map_err`: adds what was being done to an error of the operating system.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
