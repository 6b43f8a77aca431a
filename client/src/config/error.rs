//! Why an ssh_config cannot be used, and what in it is not followed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{FILE_LEN_MAX, FILES_MAX, INCLUDE_DEPTH_MAX, LINE_LEN_MAX};
use crate::destination::DestinationError;
use crate::route::CommandError;
use crate::{Failure, Kind};

/// A line of a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A line of a file, counted from 1.
    Line {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
    },
    /// An option that the program gave, as `-o` of a command.
    Option,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Option => f.write_str("a given option"),
        }
    }
}

/// Something in a configuration that is left aside.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// A keyword that nobody knows.
    UnknownKeyword {
        /// Where it stands.
        at: Place,
        /// As it is written, in lower case.
        keyword: String,
    },
    /// A keyword that OpenSSH would heed, and ketch does not.
    Unsupported {
        /// Where it stands.
        at: Place,
        /// The keyword, or the condition of a `Match`.
        keyword: String,
    },
    /// A `Match exec`, which the program does not allow: it counts as not met.
    ExecNotAllowed {
        /// Where it stands.
        at: Place,
    },
    /// The line is not UTF-8; what is not was replaced by U+FFFD.
    NotText {
        /// Where it stands.
        at: Place,
    },
    /// Algorithms of a list that ketch does not have: the others of the list count.
    Algorithms {
        /// The keyword.
        keyword: &'static str,
        /// The names, as they are written.
        names: Vec<String>,
    },
    /// There are more of these, which are not told of.
    More,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKeyword { at, keyword } => write!(
                f,
                "{at}: there is no option {keyword:?}; name it under IgnoreUnknown if another program \
                 needs it"
            ),
            Self::Unsupported { at, keyword } => {
                write!(f, "{at}: {keyword:?} is not supported and has no effect")
            }
            Self::ExecNotAllowed { at } => write!(
                f,
                "{at}: `Match exec` runs a command, which was not allowed: it counts as not met"
            ),
            Self::NotText { at } => write!(f, "{at}: the line is not UTF-8"),
            Self::Algorithms { keyword, names } => write!(
                f,
                "{keyword} names what ketch does not have, and is left out: {}",
                names.join(", ").escape_debug()
            ),
            Self::More => f.write_str("there is more in the configuration that has no effect"),
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A keyword without a value.
    #[error("a value is missing")]
    NoValue,
    /// A quote is not closed.
    #[error("a quote is not closed")]
    OpenQuote,
    /// Words are left over.
    #[error("there is more on the line than belongs there")]
    TooMuch,
    /// The value is none of those that are possible.
    #[error("{value:?} is not possible here: write {wanted}")]
    Value {
        /// What stands there.
        value: String,
        /// What could.
        wanted: &'static str,
    },
    /// More values than are taken.
    #[error("there are more than {most} values")]
    TooMany {
        /// How many are taken.
        most: usize,
    },
    /// The keyword stands in files alone.
    #[error("it belongs into a file")]
    OnlyInFiles,
    /// A condition of a `Match` that nobody knows, or one that needs a value and has none.
    #[error("{0:?} is no condition, or lacks its value")]
    Condition(String),
    /// A `Match` without conditions, or `all` beside others.
    #[error("a Match needs conditions, and `all` stands alone")]
    Conditions,
    /// A path to be included that begins with `~` in a file that is nobody's.
    #[error("the machine's own configuration cannot include from a home directory")]
    Tilde,
    /// What was to be expanded cannot be.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

/// Why a value with `%h` and the like in it has no meaning.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// A token that is not expanded here.
    #[error("%{0} has no meaning here: write %% for a percent sign")]
    Token(char),
    /// A percent sign at the end.
    #[error("a % stands at the end: write %% for a percent sign")]
    Percent,
    /// An environment variable that is not set.
    #[error("the environment variable {0:?} is not set")]
    Unset(String),
    /// `${` that is not closed, or holds no name.
    #[error("${{ begins the name of an environment variable and needs one, and a }}")]
    Brace,
    /// There is no home directory to stand for `~`.
    #[error("there is no home directory for {0:?}")]
    Home(String),
    /// The value became too long.
    #[error("the value is too long once expanded")]
    TooLong,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be read.
    #[error("the configuration {} could not be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("the configuration {} is no regular file", file.display())]
    NotAFile {
        /// The file.
        file: PathBuf,
    },
    /// Others may write to it, and so have their commands run here.
    #[error(
        "the configuration {file} belongs to somebody else or can be written by others: make it \
         yours, and close it with `chmod go-w {file}`",
        file = file.display()
    )]
    OpenToOthers {
        /// The file.
        file: PathBuf,
    },
    /// The file or a line of it is too long, or files include too many others.
    #[error(
        "the configuration {} is too long: files have at most {FILE_LEN_MAX} bytes, lines \
         {LINE_LEN_MAX}, and one reads at most {FILES_MAX} files, {INCLUDE_DEPTH_MAX} deep",
        file.display()
    )]
    TooLong {
        /// The file.
        file: PathBuf,
    },
    /// A line makes no sense.
    #[error("{at}: {keyword}")]
    Line {
        /// Where it stands.
        at: Place,
        /// The keyword, in lower case.
        keyword: String,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// A value cannot be used for this host.
    #[error("the {keyword} in the configuration of {host} is not usable: {value:?}")]
    Value {
        /// The host, as it was named.
        host: String,
        /// The keyword.
        keyword: &'static str,
        /// The value.
        value: String,
        /// What is wrong.
        #[source]
        source: Box<ValueError>,
    },
}

/// Why a value cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// It is no name of a host or user.
    #[error(transparent)]
    Name(#[from] DestinationError),
    /// It cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// It is no command that could be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It is no IP address.
    #[error("it has to be an address in numbers")]
    Address,
    /// It is no list of `[user@]host[:port]`.
    #[error("jump hosts are written as [user@]host[:port], separated by commas, {0} at most")]
    Jump(usize),
    /// No algorithm is left of a list.
    #[error("ketch has none of these algorithms: `ketch algorithms` lists those it has")]
    NoAlgorithm,
}

impl Failure for ConfigError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. } => Kind::of_local(source),
            Self::Value { source, .. } if matches!(**source, ValueError::NoAlgorithm) => {
                Kind::Algorithm
            }
            _ => Kind::Local,
        }
    }
}
