//! What the kernel knows of a file, and changing it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use ketch_protocol::StatVfs;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};

use super::beneath::Root;
use crate::fs::{Change, Links, Metadata};
use crate::path::VPath;

/// The bits that a client may set: no setuid, setgid or sticky.
const SETTABLE: u32 = 0o777;

/// A mode for the system call, without the bits that nobody may set.
pub(super) const fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & SETTABLE)
}

pub(crate) fn from_stat(stat: &Stat) -> Metadata {
    Metadata {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode,
        accessed: seconds(stat.st_atime),
        modified: seconds(stat.st_mtime),
        #[allow(clippy::useless_conversion, reason = "32 bits on some architectures")]
        links: u64::from(stat.st_nlink),
    }
}

/// A time as SFTP version 3 has it: before 1970 becomes 1970, after 2106 becomes 2106.
fn seconds(time: impl TryInto<i64>) -> u32 {
    let time = time.try_into().unwrap_or(i64::MAX);
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

pub(crate) fn space(of: &rustix::fs::StatVfs) -> StatVfs {
    StatVfs {
        block_size: of.f_bsize,
        fragment_size: of.f_frsize,
        blocks: of.f_blocks,
        blocks_free: of.f_bfree,
        blocks_available: of.f_bavail,
        files: of.f_files,
        files_free: of.f_ffree,
        files_available: of.f_favail,
        fsid: of.f_fsid,
        // Linux has the two flags that are told as the same bits; the others stay here.
        flags: of.f_flag.bits() & (StatVfs::READ_ONLY | StatVfs::NO_SETUID),
        name_max: of.f_namemax,
    }
}

/// Changes what `path` names.
pub(super) fn change_at(
    root: &Root,
    path: &VPath,
    links: Links,
    change: &Change,
) -> io::Result<()> {
    let follow = match links {
        Links::Follow => OFlags::empty(),
        Links::Stay => OFlags::NOFOLLOW,
    };
    if change.size.is_some() {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | follow;
        let fd = root.open_at(path, flags, Mode::empty())?;
        return change_open(fd.as_fd(), change);
    }
    // A descriptor that needs no right to read: the owner of a file may change its mode back.
    let fd = root.locate(path, follow)?;
    if let Some(mode) = change.mode {
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => {}
            FileType::Symlink => return Err(io::ErrorKind::Unsupported.into()),
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        }
        // `fchmod` refuses such a descriptor; its own entry in /proc leads to the same file.
        let entry = format!("/proc/self/fd/{}", fd.as_raw_fd());
        match rustix::fs::chmod(entry, keep_special(&stat, mode)) {
            Err(rustix::io::Errno::NOENT) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | follow;
                let fd = root.open_at(path, flags, Mode::empty())?;
                rustix::fs::fchmod(fd, keep_special(&stat, mode))?;
            }
            result => result?,
        }
    }
    if let Some(times) = change.times {
        let times = timestamps(times);
        match rustix::fs::utimensat(&fd, "", &times, AtFlags::EMPTY_PATH) {
            // Before Linux 5.8 that flag is unknown here; the entry in /proc leads to the same file.
            Err(rustix::io::Errno::INVAL) => {
                let entry = format!("/proc/self/fd/{}", fd.as_raw_fd());
                rustix::fs::utimensat(rustix::fs::CWD, entry, &times, AtFlags::empty())?;
            }
            result => result?,
        }
    }
    Ok(())
}

/// Changes an open file.
pub(super) fn change_open(fd: BorrowedFd<'_>, change: &Change) -> io::Result<()> {
    // The length first: changing it changes the time of modification.
    if let Some(size) = change.size {
        if FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        rustix::fs::ftruncate(fd, size)?;
    }
    if let Some(mode) = change.mode {
        rustix::fs::fchmod(fd, keep_special(&rustix::fs::fstat(fd)?, mode))?;
    }
    if let Some(times) = change.times {
        rustix::fs::futimens(fd, &timestamps(times))?;
    }
    Ok(())
}

/// The mode to set: what a client asks for within [`SETTABLE`]. A directory keeps its setgid and
/// sticky bits, which the machine's owner gave it.
fn keep_special(stat: &Stat, mode: u32) -> Mode {
    let special = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => stat.st_mode & 0o3000,
        _ => 0,
    };
    Mode::from_raw_mode(mode & SETTABLE | special)
}

pub(crate) fn timestamps((accessed, modified): (u32, u32)) -> Timestamps {
    let at = |seconds: u32| Timespec {
        tv_sec: i64::from(seconds),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at(accessed),
        last_modification: at(modified),
    }
}
