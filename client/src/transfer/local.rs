//! Local files and directories of transfers, and what can go wrong with them.
//!
//! All functions here block, and leave nothing behind when they fail.

mod created;
mod hash;
mod leftovers;
mod source;
mod tree;

use std::{fmt, io, path::PathBuf};

pub(crate) use self::{
    created::{Begin, Created, Finish},
    hash::{Hash, hash_file},
    leftovers::Leftovers,
    source::{Opened, SourceFile},
    tree::{Endings, Tree},
};

/// Names that are tried for a temporary file before giving up.
pub(crate) const ATTEMPTS_MAX: u8 = 4;

/// Something that could not be done to a local file or directory.
#[derive(Debug)]
pub struct LocalFault {
    /// What was tried.
    pub action: LocalAction,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What can be tried on a local file or directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LocalAction {
    /// To open it.
    Open,
    /// To create it.
    Create,
    /// To read it.
    Read,
    /// To write it.
    Write,
    /// To bring it to the disk.
    Sync,
    /// To set its times or permissions.
    SetAttrs,
    /// To give it its final name.
    Rename,
    /// To list it.
    List,
    /// To remove it.
    Remove,
}

impl fmt::Display for LocalAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SetAttrs => "set the attributes of",
            Self::Rename => "give the final name to",
            Self::List => "list",
            Self::Remove => "remove",
        })
    }
}

impl LocalFault {
    fn of(action: LocalAction, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}
