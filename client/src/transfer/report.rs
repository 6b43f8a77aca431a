//! What a transfer did.

use std::fmt;

use ketch_protocol::FileType;

pub(crate) use super::error::Place;
use super::error::TransferError;

/// Entries of each list in a [`Report`] at most; what is beyond is only counted.
pub const REPORTED_MAX: usize = 1000;

/// What a transfer did.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that were transferred.
    pub files: u64,
    /// Links that were made.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Directories that were created or found, the topmost included.
    pub directories: u64,
    /// Files and directories that the filter left out; nothing below such a directory is counted.
    pub excluded: u64,
    /// What was left out on purpose: the first [`REPORTED_MAX`].
    pub skipped: Vec<Skipped>,
    /// How many were left out on purpose.
    pub skipped_count: u64,
    /// What could not be transferred: the first [`REPORTED_MAX`].
    pub failed: Vec<Failed>,
    /// How many could not be transferred.
    pub failed_count: u64,
    /// Files that were transferred, but not quite as asked: the first [`REPORTED_MAX`].
    pub remarks: Vec<Remark>,
}

/// Something that was left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Skipped {
    /// What it is called.
    pub place: Place,
    /// What it is.
    pub file_type: FileType,
    /// Why it was left out.
    pub why: WhySkipped,
}

/// Why something was left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WhySkipped {
    /// For what it is: devices and pipes are not read, links not followed unless they are to be.
    Kind,
    /// It is a link that leads to nothing.
    LeadsNowhere,
    /// It is a link to a directory that it is in.
    LeadsBack,
    /// It is a link on the server, and would lead out of the directory that is filled.
    LeadsOut,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            WhySkipped::Kind => write!(f, "it is a {}", self.file_type),
            WhySkipped::LeadsNowhere => f.write_str("it is a link that leads nowhere"),
            WhySkipped::LeadsBack => f.write_str("it is a link to a directory that it is in"),
            WhySkipped::LeadsOut => f.write_str("it is a link that leads out of the directory"),
        }
    }
}

/// A file or directory that could not be transferred.
#[derive(Debug)]
pub struct Failed {
    /// What it is called.
    pub place: Place,
    /// Why not.
    pub error: TransferError,
}

/// Something to know about a file that was transferred.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remark {
    /// Which file.
    pub place: Place,
    /// What.
    pub what: Remarkable,
}

/// What there may be to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Remarkable {
    /// The server can only rename to a free name: the old file was removed first, so for a moment
    /// there was none.
    NotReplacedAtomically,
    /// Times, permissions or owner could not be set.
    AttributesNotSet,
    /// It was changed or read before 1970 or after 2106, which version 3 cannot say: its copy has the
    /// nearest time that it can.
    TimesOutOfRange,
    /// The server takes a file on as soon as it is closed, so it was written under its own name: for
    /// a while part of it was there.
    WrittenInPlace,
    /// A part that an earlier run left was not of the same file: it was transferred anew.
    PartDiffered,
}

impl fmt::Display for Remarkable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReplacedAtomically => {
                "the old file was removed before the new one got its name"
            }
            Self::AttributesNotSet => "its times, permissions or owner could not be set",
            Self::TimesOutOfRange => "its times are before 1970 or after 2106, and were not kept",
            Self::WrittenInPlace => "it was written under its own name",
            Self::PartDiffered => "what an earlier run had left was not of the same file",
        })
    }
}

/// What there is to know about one file, each thing once.
#[derive(Debug, Default)]
pub(crate) struct Remarks(Vec<Remarkable>);

impl Remarks {
    /// There is this to know.
    pub(crate) fn add(&mut self, what: Remarkable) {
        if !self.0.contains(&what) {
            self.0.push(what);
        }
    }
}

impl Report {
    pub(crate) fn skip(&mut self, place: Place, file_type: FileType) {
        self.leave_out(place, file_type, WhySkipped::Kind);
    }

    pub(crate) fn skip_link(&mut self, place: Place, why: WhySkipped) {
        self.leave_out(place, FileType::Symlink, why);
    }

    fn leave_out(&mut self, place: Place, file_type: FileType, why: WhySkipped) {
        self.skipped_count += 1;
        if self.skipped.len() < REPORTED_MAX {
            self.skipped.push(Skipped {
                place,
                file_type,
                why,
            });
        }
    }

    pub(crate) fn fail(&mut self, place: Place, error: TransferError) {
        self.failed_count += 1;
        if self.failed.len() < REPORTED_MAX {
            self.failed.push(Failed { place, error });
        }
    }

    pub(crate) fn remark(&mut self, place: Place, what: Remarkable) {
        if self.remarks.len() < REPORTED_MAX {
            self.remarks.push(Remark { place, what });
        }
    }

    pub(crate) fn remark_all(&mut self, place: &Place, remarks: &Remarks) {
        for &what in &remarks.0 {
            self.remark(place.clone(), what);
        }
    }
}
