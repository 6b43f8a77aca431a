//! Why a command failed: the one error type of the program.

use std::error::Error;
use std::{fmt, io};

use ketch_client::{Failure, Kind, SftpError};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The arguments make no sense together, or name something that cannot be.
    Usage(String),
    /// An operation of one of the libraries; it says enough itself.
    Operation(Box<dyn Failure + Send + Sync>),
    /// The same, where there is something that the user of this program can do about it.
    Advised {
        error: Box<dyn Failure + Send + Sync>,
        advice: &'static str,
    },
    /// A pattern for files on the server that none matches.
    Missing(String),
    /// A name on the server that is taken.
    Exists(String),
    /// Something on this machine.
    Local {
        what: String,
        source: Box<dyn Error + Send + Sync>,
        kind: Kind,
    },
    /// All that is wrong with a server's file, a line for each.
    #[cfg_attr(not(unix), expect(dead_code, reason = "serving is for Unix"))]
    Faults(Vec<String>),
    /// What the demo saw is not what it expected.
    #[cfg_attr(not(unix), expect(dead_code, reason = "the demo is for Unix"))]
    Wrong(String),
    /// This part of the program is for Unix.
    #[cfg_attr(unix, expect(dead_code, reason = "for the other platforms"))]
    UnixOnly(&'static str),
    /// The command on the server ended with another code than 0; it has said why, if it wanted to.
    Remote(u8),
    /// Whoever reads our output has gone.
    OutputClosed,
    /// The user pressed Ctrl-C.
    Interrupted,
}

impl Failed {
    pub(crate) fn local(what: impl Into<String>, source: io::Error) -> Self {
        let kind = Kind::of_local(&source);
        Self::Local {
            what: what.into(),
            source: Box::new(source),
            kind,
        }
    }

    /// Something in the set-up of this machine that makes no sense.
    #[cfg(unix)]
    pub(crate) fn set_up(
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Local {
            what: what.into(),
            source: source.into(),
            kind: Kind::Local,
        }
    }

    /// An error in writing to standard output.
    pub(crate) fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::local("cannot write the output", source),
        }
    }

    /// An error of a file on the server that is read as a stream.
    pub(crate) fn remote_stream(source: io::Error) -> Self {
        let inner = source.downcast::<SftpError>();
        inner.map_or_else(
            |error| Self::local("cannot read the file", error),
            Self::from,
        )
    }

    /// What to do, to stand behind what went wrong.
    pub(crate) const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Advised { advice, .. } => Some(advice),
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Usage(_) | Self::OutputClosed | Self::Faults(_) => Kind::Local,
            Self::Operation(error) | Self::Advised { error, .. } => error.kind(),
            Self::Local { kind, .. } => *kind,
            Self::Wrong(_) | Self::Remote(_) => Kind::Peer,
            Self::Exists(_) => Kind::Exists,
            Self::Missing(_) => Kind::NotFound,
            Self::UnixOnly(_) => Kind::Unsupported,
            Self::Interrupted => Kind::Cancelled,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Wrong(what) | Self::Local { what, .. } => f.write_str(what),
            Self::Operation(error) | Self::Advised { error, .. } => error.fmt(f),
            Self::Faults(faults) => f.write_str(&faults.join("; ")),
            Self::Exists(path) => write!(f, "{path} exists already"),
            Self::Missing(pattern) => write!(f, "nothing matches {pattern}"),
            Self::UnixOnly(command) => write!(f, "`ketch {command}` works on Unix only"),
            Self::Remote(code) => write!(f, "the command ended with {code}"),
            Self::OutputClosed => f.write_str("the output is closed"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Operation(error) | Self::Advised { error, .. } => error.source(),
            Self::Local { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl<E: Failure + Send + Sync + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Operation(Box::new(error))
    }
}
