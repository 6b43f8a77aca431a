//! Descriptors that open files leave for connections.
//!
//! A process may have so many descriptors (getrlimit(2), `RLIMIT_NOFILE`), and clients decide how
//! many files are open. If files could take them all, one user's would keep everybody from coming in
//! and this user's own requests from being answered.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Most descriptors that are left.
const LEFT_MAX: u64 = 32;
/// Where there are few: one of so many is left.
const LEFT_OF: u64 = 8;

/// Whether one more file may be opened. To be asked before it is: opening may make or empty it.
///
/// The kernel gives out the lowest number that is free (open(2)), so that the next one tells how many
/// there are. `any` is a descriptor that is open.
///
/// # Errors
/// `EMFILE` if there are none but those that are left, or what the kernel says.
pub(super) fn check(any: impl AsFd) -> io::Result<()> {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Ok(());
    };
    let next = rustix::io::fcntl_dupfd_cloexec(any, 0)?;
    let next = u64::try_from(next.as_raw_fd()).unwrap_or(u64::MAX);
    if next >= limit.saturating_sub(LEFT_MAX.min(limit / LEFT_OF)) {
        return Err(Errno::MFILE.into());
    }
    Ok(())
}
