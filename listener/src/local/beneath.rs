//! Files beneath a root of this machine, reached without following a link below it.
//!
//! Whoever may write into a watched directory could otherwise swap a directory for a link and have
//! this process read, or remove, what lies elsewhere. On Unix each directory on the way is opened
//! from the one above and held; elsewhere each is looked at before, which leaves a gap.

use std::fs::{File, Metadata};
use std::io;
use std::time::UNIX_EPOCH;

use ketch_client::{Attrs, RemotePath, Times};

#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(super) use elsewhere::{list, look, open, remove, rename};
#[cfg(unix)]
pub(super) use unix::{list, look, open, remove, rename};

/// File type bits as SFTP has them.
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// What is compared of an open file before and after it is read: more than a listing shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    pub attrs: Attrs,
    /// Nanoseconds since 1970, or before.
    modified: Option<i128>,
}

impl Stamp {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let modified = metadata.modified().ok().and_then(|time| {
            let since = time.duration_since(UNIX_EPOCH);
            let nanos = |duration: std::time::Duration| i128::try_from(duration.as_nanos()).ok();
            since.map_or_else(|before| nanos(before.duration()).map(|n| -n), nanos)
        });
        Ok(Self {
            attrs: attrs(&metadata),
            modified,
        })
    }
}

/// As a server would tell it.
pub(super) fn attrs(metadata: &Metadata) -> Attrs {
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        DIRECTORY
    } else if kind.is_file() {
        REGULAR
    } else if kind.is_symlink() {
        SYMLINK
    } else {
        0o010_000
    };
    let since = metadata.modified().ok();
    let since = since.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    attrs_of(
        kind,
        metadata.len(),
        since.map_or(0, |since| since.as_secs()),
    )
}

/// Attributes of size and time, which SFTP v3 has in 32 bits.
pub(super) fn attrs_of(mode: u32, size: u64, mtime: u64) -> Attrs {
    let mtime = u32::try_from(mtime).unwrap_or(u32::MAX);
    Attrs {
        size: Some(size),
        permissions: Some(mode),
        times: Some(Times {
            atime: mtime,
            mtime,
        }),
        ..Attrs::default()
    }
}

fn not_below(path: &RemotePath) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{path} is no path below a root"),
    )
}
