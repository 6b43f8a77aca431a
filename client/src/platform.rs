//! Local files: all that differs between operating systems, and nothing else.
//!
//! The engine creates, writes, reads, renames and removes files beneath a directory that the user
//! named. On Unix this is done relative to open directories and without following links, so that
//! nobody who can write there turns a transfer aside; elsewhere by path. Calls block: the engine
//! decides which thread they run on.

pub(crate) mod account;
pub(crate) mod tcp;
pub(crate) mod user_files;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{
    Dir, data_runs, file_type, has_name, leads_nowhere, local_name, mode_of, open_files_max,
    open_source, owner_of, read_slots, remote_name, set_mode, set_owner, write_run,
};

#[cfg(not(unix))]
mod portable;
#[cfg(not(unix))]
pub(crate) use portable::{
    Dir, data_runs, file_type, has_name, leads_nowhere, local_name, mode_of, open_files_max,
    open_source, owner_of, read_slots, remote_name, set_mode, set_owner, write_run,
};

use std::{
    ffi::OsString,
    fs::{self, File, FileTimes, Metadata},
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ketch_protocol::{Attrs, Times};

/// Runs of data of one sparse file that are kept; what is behind them counts as data.
#[cfg(unix)]
const DATA_RUNS_MAX: usize = 4096;

/// Takes a file for this process alone; false if another one has it. Where files cannot be locked,
/// nobody has them.
pub(crate) fn lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

/// Whether a file that this process has locked is locked indeed: false where files cannot be.
pub(crate) fn can_lock(file: &File) -> bool {
    file.try_lock().is_ok()
}

/// Takes a file that was just made for this process alone; false if it is not its own any more, as
/// somebody took it for a leftover meanwhile.
pub(crate) fn lock_new(file: &File) -> bool {
    lock(file) && file.metadata().is_ok_and(|metadata| has_name(&metadata))
}

/// What has a name in a local directory, links followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Held {
    /// Nothing.
    Nothing,
    /// A plain file, with its permissions where the system has them.
    Plain(Option<u32>),
    /// A directory, a device, a pipe.
    Other,
}

/// One entry of a local directory.
#[derive(Debug)]
pub(crate) struct LocalEntry {
    pub name: OsString,
    /// Of the entry itself, a link not followed.
    pub metadata: Metadata,
    /// What was found out about it, if it is a link and that was asked.
    pub link: Option<LocalLink>,
}

/// What a local link is, as far as it matters.
#[derive(Debug)]
pub(crate) enum LocalLink {
    /// It says that it leads there.
    To(io::Result<OsString>),
    /// It leads to this.
    Leads(io::Result<Metadata>),
    /// It leads to a directory that it is in.
    LeadsBack,
}

/// What the system tells about a local file, as SFTP has it.
pub(crate) fn attrs_of(metadata: &Metadata) -> Attrs {
    let seconds = |time: io::Result<_>| time.map(seconds);
    let times = seconds(metadata.accessed())
        .and_then(|atime| Ok((atime, seconds(metadata.modified())?)))
        .map(|(atime, mtime)| Times { atime, mtime });
    Attrs {
        size: Some(metadata.len()),
        times: times.ok(),
        permissions: mode_of(metadata),
        owner: owner_of(metadata),
    }
}

/// Sets the times of an open file, in seconds since 1970.
pub(crate) fn set_times(file: &File, accessed: u32, modified: u32) -> io::Result<()> {
    let time = |seconds: u32| UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
    file.set_times(
        FileTimes::new()
            .set_accessed(time(accessed))
            .set_modified(time(modified)),
    )
}

/// Seconds since 1970 as SFTP has them, which counts neither before nor after 32 bits: what is
/// outside becomes the nearest, and who preserves times says so
/// ([`has_plain_times`]).
pub(crate) fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// Whether SFTP can say when a file was last changed and read.
pub(crate) fn has_plain_times(metadata: &Metadata) -> bool {
    let is_plain = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH);
        since.is_ok_and(|since| u32::try_from(since.as_secs()).is_ok())
    };
    let times = [metadata.accessed(), metadata.modified()];
    times.into_iter().flatten().all(is_plain)
}

/// Reads what `bufs` take, from `offset` on, with one positioned call after the other.
#[cfg(not(target_os = "linux"))]
fn read_each(
    bufs: &mut [io::IoSliceMut<'_>],
    offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut total = 0;
    for buf in bufs {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match read(rest, offset.saturating_add(total as u64)) {
                Ok(0) => return Ok(total),
                Ok(n) => {
                    filled += n;
                    total += n;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(total)
}
