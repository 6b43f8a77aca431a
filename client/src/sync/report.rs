//! What a sync did, and why something of it, or all of it, failed.

use std::fmt;

use ketch_protocol::{FileType, RemotePath};

use crate::{
    error::{Failure, Kind, Outcome},
    sftp::SftpError,
    transfer::{Place, REPORTED_MAX, Remark, TransferError, local::LocalFault},
};

/// What a sync did, or in a dry run would have done.
///
/// The lists are bounded by [`REPORTED_MAX`], the numbers are not; an
/// [observer](super::SyncOptions::observer) sees every step.
#[derive(Debug, Default)]
pub struct SyncReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Files and links that were copied to a free name.
    pub copied: u64,
    /// Files and links that were copied over an older one.
    pub replaced: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Directories that were made.
    pub directories_made: u64,
    /// Files, links and directories that were removed.
    pub removed: u64,
    /// Temporary files of earlier runs that were removed.
    pub leftovers_removed: u64,
    /// Files that were as they should be.
    pub unchanged: u64,
    /// Entries that were left as they are: excluded, links, newer, and so on.
    pub skipped: u64,
    /// Of what was replaced and removed, what went to the
    /// [backup directory](super::SyncOptions::backup_dir): files and links.
    pub backed_up: u64,
    /// Entries that only the destination has, and that were to stay.
    pub extra: u64,
    /// Entries that were to be removed and were not, as something failed before, or as there were
    /// too many to remember.
    pub removals_left: u64,
    /// What was done: the first [`REPORTED_MAX`] steps that change something.
    pub steps: Vec<SyncStep>,
    /// What could not be done: the first [`REPORTED_MAX`].
    pub failed: Vec<SyncFailed>,
    /// How much could not be done.
    pub failed_count: u64,
    /// Files that were copied, but not quite as asked: the first [`REPORTED_MAX`].
    pub remarks: Vec<Remark>,
}

/// What became of one name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyncStep {
    /// Which one, counted from the topmost directory.
    pub path: RemotePath,
    /// What was done with it, or would be in a dry run.
    pub action: SyncAction,
    /// Bytes that were copied for it.
    pub bytes: u64,
}

/// What is done with one name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SyncAction {
    /// A directory was made.
    MakeDirectory,
    /// A file or link was copied to a free name.
    Copy,
    /// A file or link was copied over the old one.
    Replace(Difference),
    /// A file or link was removed.
    Remove,
    /// A directory was removed.
    RemoveDirectory,
    /// A temporary file of an earlier run was removed.
    RemoveLeftover,
    /// Nothing: it was as it should be.
    Unchanged(Sameness),
    /// Nothing: it was left as it is.
    Skip(SkipReason),
    /// Nothing: only the destination has it.
    Extra,
}

impl SyncAction {
    /// Whether the destination is different afterwards.
    #[must_use]
    pub const fn changes(self) -> bool {
        !matches!(self, Self::Unchanged(_) | Self::Skip(_) | Self::Extra)
    }
}

/// What told a file from the one that it replaces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Difference {
    /// They had different sizes.
    Size,
    /// They were changed at different times.
    Time,
    /// They had different contents.
    Content,
    /// They were links that led to different places.
    Target,
    /// One was a file and the other a link.
    Type,
    /// The server does not tell what is needed to compare them.
    Unknown,
}

/// What told that a file is the same already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Sameness {
    /// Its size, and the time of its last change.
    SizeAndTime,
    /// Its size.
    Size,
    /// Its content.
    Content,
    /// What the link says.
    Target,
}

/// Why something was left as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The filter leaves it out.
    Excluded,
    /// It is a link, and links are left out, or it leads to what is not copied: nothing, a special
    /// file, or a directory that it is in.
    Link,
    /// It is a link on the server that leads out of the directory, and is not made here.
    LeadsOut,
    /// It is no file, directory or link.
    Special(FileType),
    /// What the destination has is newer.
    NewerThere,
    /// It is a temporary file of a transfer.
    Temporary,
    /// It is where things go that are replaced or removed.
    Backup,
    /// Its name is none that the other side could have.
    Name,
}

/// Something that could not be done.
#[derive(Debug)]
pub struct SyncFailed {
    /// With what, counted from the topmost directory; empty for that directory itself.
    pub path: RemotePath,
    /// Why not.
    pub error: SyncFault,
}

/// What an observer is told.
#[derive(Clone, Copy, Debug)]
pub enum SyncNews<'a> {
    /// This was done with a name, or in a dry run would be.
    Step(&'a SyncStep),
    /// This could not be done.
    Failed(&'a SyncFailed),
}

/// Why one name of a sync was not brought to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncFault {
    /// A file could not be copied; or something on this machine could not be done.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The server refused a request.
    #[error(transparent)]
    Request(#[from] SftpError),
    /// The two sides have different things of one name, and neither is touched: what the
    /// destination has would have to be removed, and that was not asked for, or something in it is
    /// to stay.
    #[error("it is a {here} at the source and a {there} at the destination")]
    Conflict {
        /// What the source has.
        here: FileType,
        /// What the destination has.
        there: FileType,
    },
    /// A listing holds the name twice: only the first was believed.
    #[error("the server listed its name twice")]
    ListedTwice,
    /// The server has no rename that replaces; what had the name was put aside, and neither could be
    /// given the name then. Both are whole, under other names.
    #[error("what had its name is {old} now, and what was to get it is {new}")]
    Stranded {
        /// What was to get the name.
        new: RemotePath,
        /// What had it; where the connection was lost it may still have it.
        old: RemotePath,
        /// Why it did not get the name.
        source: Box<SftpError>,
    },
}

impl From<LocalFault> for SyncFault {
    fn from(fault: LocalFault) -> Self {
        Self::Transfer(fault.into())
    }
}

impl SyncFault {
    /// Whether all that follows would fail for the same reason.
    pub(super) fn ends_everything(&self) -> bool {
        let ends = |error: &SftpError| {
            matches!(
                error,
                SftpError::TimedOut { .. }
                    | SftpError::Lost { .. }
                    | SftpError::Misbehaved { .. }
                    | SftpError::NotOpened(_)
            )
        };
        match self {
            Self::Transfer(error) => error.ends_everything(),
            Self::Request(error) => ends(error),
            Self::Stranded { source, .. } => ends(source),
            Self::Conflict { .. } | Self::ListedTwice => false,
        }
    }
}

impl Failure for SyncFault {
    fn kind(&self) -> Kind {
        match self {
            Self::Transfer(error) => error.kind(),
            Self::Request(error) => error.kind(),
            Self::Stranded { source, .. } => source.kind(),
            Self::Conflict { .. } => Kind::Exists,
            Self::ListedTwice => Kind::Peer,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Transfer(error) => error.is_transient(),
            Self::Request(error) => error.is_transient(),
            Self::Conflict { .. } | Self::ListedTwice | Self::Stranded { .. } => false,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Transfer(error) => error.outcome(),
            Self::Request(error) => error.outcome(),
            Self::Conflict { .. } | Self::ListedTwice => Outcome::NotDone,
            Self::Stranded { .. } => Outcome::Unknown,
        }
    }
}

/// Why a sync did not bring both sides together.
///
/// Whatever it is, running the same sync again goes on where this one stood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// Something could not be done; the rest was. Nothing was removed.
    #[error(
        "{} could not be brought together{}",
        entries(.report.failed_count + .report.removals_left),
        if .report.removals_left > 0 { ": nothing or not all was removed" } else { "" }
    )]
    Incomplete {
        /// What was done, what was not, and why.
        report: Box<SyncReport>,
    },
    /// One of the two directories is not there, or cannot be made.
    #[error("cannot begin at {place}")]
    Root {
        /// Which.
        place: Place,
        /// Why not.
        source: SyncFault,
    },
    /// One of the two is there, and is no directory.
    #[error("{place} is not a directory")]
    NotADirectory {
        /// Which.
        place: Place,
    },
    /// What is replaced or removed cannot be put into the directory that it is in already, nor into
    /// one above that.
    #[error(
        "{place} is what is synced: the directory of the backups can be neither that nor above it"
    )]
    BackupInPlace {
        /// The directory.
        place: Place,
    },
    /// The server is this very machine, and one directory is the other, or is within it.
    #[error("{local} and {remote} are the same directory, or one is within the other", local = .local.display())]
    SameTree {
        /// The local one.
        local: std::path::PathBuf,
        /// The server's.
        remote: RemotePath,
    },
    /// More would have been removed than is allowed; all was copied, nothing removed.
    #[error("{found} would be removed, and {} is the most that is allowed", entries(*.allowed))]
    TooManyRemovals {
        /// Entries that would have been removed.
        found: u64,
        /// Entries that may be.
        allowed: u64,
        /// What was done.
        report: Box<SyncReport>,
    },
    /// The connection was lost, or a disk is full: the rest was not begun.
    #[error("the sync ended early")]
    Ended {
        /// Why.
        source: SyncFault,
        /// What was done before.
        report: Box<SyncReport>,
    },
}

fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    }
}

impl SyncError {
    /// What was done all the same, where it came to that.
    #[must_use]
    pub fn report(&self) -> Option<&SyncReport> {
        match self {
            Self::Incomplete { report }
            | Self::TooManyRemovals { report, .. }
            | Self::Ended { report, .. } => Some(report),
            Self::Root { .. }
            | Self::NotADirectory { .. }
            | Self::BackupInPlace { .. }
            | Self::SameTree { .. } => None,
        }
    }
}

impl Failure for SyncError {
    fn kind(&self) -> Kind {
        match self {
            Self::Incomplete { report } => report
                .failed
                .first()
                .map_or(Kind::Peer, |failed| failed.error.kind()),
            Self::Root { source, .. } | Self::Ended { source, .. } => source.kind(),
            Self::NotADirectory { .. }
            | Self::BackupInPlace { .. }
            | Self::SameTree { .. }
            | Self::TooManyRemovals { .. } => Kind::Local,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Incomplete { report } => {
                !report.failed.is_empty() && report.failed.iter().all(|f| f.error.is_transient())
            }
            Self::Root { source, .. } | Self::Ended { source, .. } => source.is_transient(),
            _ => false,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Incomplete { .. } | Self::Ended { .. } | Self::TooManyRemovals { .. } => {
                Outcome::Unknown
            }
            _ => Outcome::NotDone,
        }
    }
}

impl fmt::Display for SyncAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeDirectory => f.write_str("make directory"),
            Self::Copy => f.write_str("copy"),
            Self::Replace(why) => write!(f, "replace ({why})"),
            Self::Remove => f.write_str("remove"),
            Self::RemoveDirectory => f.write_str("remove directory"),
            Self::RemoveLeftover => f.write_str("remove leftover"),
            Self::Unchanged(why) => write!(f, "unchanged ({why})"),
            Self::Skip(why) => write!(f, "skip ({why})"),
            Self::Extra => f.write_str("extra"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "other size",
            Self::Time => "other time",
            Self::Content => "other content",
            Self::Target => "another target",
            Self::Type => "other type",
            Self::Unknown => "size or time not known",
        })
    }
}

impl fmt::Display for Sameness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SizeAndTime => "same size and time",
            Self::Size => "same size",
            Self::Content => "same content",
            Self::Target => "same target",
        })
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("excluded"),
            Self::Link => f.write_str("a link"),
            Self::LeadsOut => f.write_str("a link that leads out of the directory"),
            Self::Special(file_type) => write!(f, "a {file_type}"),
            Self::NewerThere => f.write_str("newer at the destination"),
            Self::Temporary => f.write_str("a temporary file"),
            Self::Backup => f.write_str("the backup directory"),
            Self::Name => f.write_str("no name for both sides"),
        }
    }
}

impl SyncReport {
    pub(super) fn step(&mut self, step: SyncStep) {
        match step.action {
            SyncAction::MakeDirectory => self.directories_made += 1,
            SyncAction::Copy => self.copied += 1,
            SyncAction::Replace(_) => self.replaced += 1,
            SyncAction::Remove | SyncAction::RemoveDirectory => self.removed += 1,
            SyncAction::RemoveLeftover => self.leftovers_removed += 1,
            SyncAction::Unchanged(_) => self.unchanged += 1,
            SyncAction::Skip(_) => self.skipped += 1,
            SyncAction::Extra => self.extra += 1,
        }
        self.bytes += step.bytes;
        if step.action.changes() && self.steps.len() < REPORTED_MAX {
            self.steps.push(step);
        }
    }

    pub(super) fn fail(&mut self, failed: SyncFailed) {
        self.failed_count += 1;
        if self.failed.len() < REPORTED_MAX {
            self.failed.push(failed);
        }
    }
}
