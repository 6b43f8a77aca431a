//! Why a measurement could not be made.

use std::path::PathBuf;

use ketch_conformance::PeerError;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, as "writing /x/y".
        doing: String,
        /// What it said.
        source: std::io::Error,
    },
    /// A peer is missing or failed.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The program to be measured is not built.
    #[error("{path} is not there: run `cargo build --release -p ketch` first")]
    NotBuilt {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The measured command failed.
    #[error("`{command}` failed ({status}): {said}")]
    Failed {
        /// The command line.
        command: String,
        /// Exit status or signal, in words.
        status: String,
        /// What it wrote.
        said: String,
    },
    /// The measured command succeeded and did not do what it should.
    #[error("`{command}` left {what}")]
    Wrong {
        /// The command line.
        command: String,
        /// What is there in place of what should be.
        what: String,
    },
    /// An argument cannot be understood.
    #[error("{0}")]
    Argument(String),
}

impl BenchError {
    /// For `map_err`: adds what was being done to an error of the operating system.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
