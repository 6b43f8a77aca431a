//! [`HostDirectory`]: the whole file system, with the rights of this process.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::file::HostFile;
use super::listing::HostListing;
use super::{accounts, canonical};
use crate::fs::local::{attributes, names};
use crate::fs::{Answer, Call, Change, Create, FileSystem, Links, OpenHow, Work};
use crate::path::VPath;

/// The file system of this machine, as this process may use it: absolute paths are the machine's,
/// relative ones start in one directory, links are followed wherever they lead.
///
/// For [`HostSession`](super::HostSession) alone: it confines nothing, and it blocks. Nothing waits
/// for another side, though: a FIFO or a device is opened at once or not at all.
#[derive(Debug)]
pub struct HostDirectory {
    start: OwnedFd,
    /// Its absolute path.
    start_path: Vec<u8>,
}

impl HostDirectory {
    /// `start` is where relative paths start.
    ///
    /// # Errors
    /// What opening it says.
    pub fn open(start: &Path) -> io::Result<Self> {
        let start_path = start.canonicalize()?.as_os_str().as_bytes().to_vec();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            start: rustix::fs::open(start, flags, Mode::empty())?,
            start_path,
        })
    }

    fn perform(&self, call: &Call) -> io::Result<Answer> {
        let start = &self.start;
        match call {
            Call::Open { path, how } => {
                let fd = self.open_file(path, how)?;
                Ok(Answer::File(Arc::new(HostFile::new(fd)?)))
            }
            Call::OpenDirectory { path } => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = self.open_at(path, flags, Mode::empty())?;
                Ok(Answer::Directory(Box::new(HostListing::new(fd)?)))
            }
            Call::Metadata { path, links } => {
                let flags = match links {
                    Links::Follow => AtFlags::empty(),
                    Links::Stay => AtFlags::SYMLINK_NOFOLLOW,
                };
                let stat = rustix::fs::statat(start, path.as_bytes(), flags)?;
                Ok(Answer::Metadata(attributes::from_stat(&stat)))
            }
            Call::Change {
                path,
                links,
                change,
            } => {
                self.change(path, *links, change)?;
                Ok(Answer::Done)
            }
            Call::Remove { path } => {
                rustix::fs::unlinkat(start, path.as_bytes(), AtFlags::empty())?;
                Ok(Answer::Done)
            }
            Call::RemoveDirectory { path } => {
                rustix::fs::unlinkat(start, path.as_bytes(), AtFlags::REMOVEDIR)?;
                Ok(Answer::Done)
            }
            Call::CreateDirectory { path, mode } => {
                rustix::fs::mkdirat(start, path.as_bytes(), Mode::from_raw_mode(*mode))?;
                Ok(Answer::Done)
            }
            Call::Rename { from, to, target } => {
                let (from, to) = (from.as_bytes(), to.as_bytes());
                names::rename_at((start, from), (start, to), *target)?;
                Ok(Answer::Done)
            }
            Call::ReadLink { path } => {
                let target = rustix::fs::readlinkat(start, path.as_bytes(), Vec::new())?;
                Ok(Answer::Target(target.into_bytes()))
            }
            Call::Symlink { target, link } => {
                rustix::fs::symlinkat(target.as_slice(), start, link.as_bytes())?;
                Ok(Answer::Done)
            }
            Call::HardLink { from, to } => {
                let (from, to) = (from.as_bytes(), to.as_bytes());
                rustix::fs::linkat(start, from, start, to, AtFlags::empty())?;
                Ok(Answer::Done)
            }
            Call::Space { path } => {
                let fd = self.open_at(path, OFlags::PATH, Mode::empty())?;
                Ok(Answer::Space(attributes::space(&rustix::fs::fstatvfs(fd)?)))
            }
            Call::Canonical { path } => {
                let path = canonical::canonical(&self.start_path, path.as_bytes())?;
                Ok(Answer::Target(path))
            }
            Call::Home { user } => Ok(Answer::Target(accounts::home(user)?)),
            Call::Expand { user, rest } => {
                let mut path = accounts::home(user)?;
                path.extend_from_slice(rest);
                Ok(Answer::Target(canonical::canonical(
                    &self.start_path,
                    &path,
                )?))
            }
            Call::SyncDirectory { .. } | Call::RemoveAbandoned { .. } => {
                Err(io::ErrorKind::Unsupported.into())
            }
            Call::Names { uids, gids } => {
                let bytes = |name: Option<String>| name.unwrap_or_default().into_bytes();
                Ok(Answer::Names {
                    users: uids
                        .iter()
                        .map(|&uid| bytes(accounts::user_name(uid)))
                        .collect(),
                    groups: gids
                        .iter()
                        .map(|&gid| bytes(accounts::group_name(gid)))
                        .collect(),
                })
            }
        }
    }

    fn open_at(&self, path: &VPath, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(
            &self.start,
            path.as_bytes(),
            flags,
            mode,
        )?)
    }

    fn open_file(&self, path: &VPath, how: &OpenHow) -> io::Result<OwnedFd> {
        let mut flags = match (how.read, how.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        // A FIFO whose other side is not there must not hold up the session.
        flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
        flags.set(OFlags::APPEND, how.append);
        flags.set(OFlags::TRUNC, how.truncate);
        let (flags, mode) = match how.create {
            Create::Never => (flags, 0),
            Create::IfMissing { mode } => (flags | OFlags::CREATE, mode),
            Create::New { mode } => (flags | OFlags::CREATE | OFlags::EXCL, mode),
        };
        self.open_at(path, flags, Mode::from_raw_mode(mode))
    }

    fn change(&self, path: &VPath, links: Links, change: &Change) -> io::Result<()> {
        let (start, path_bytes) = (&self.start, path.as_bytes());
        let at = match links {
            Links::Follow => AtFlags::empty(),
            Links::Stay => AtFlags::SYMLINK_NOFOLLOW,
        };
        if let Some(size) = change.size {
            if links == Links::Stay {
                return Err(io::ErrorKind::InvalidInput.into()); // a link has no length to set
            }
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            rustix::fs::ftruncate(self.open_at(path, flags, Mode::empty())?, size)?;
        }
        // The owner first: giving a file away takes its setuid bit.
        if let Some((uid, gid)) = change.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(start, path_bytes, Some(uid), Some(gid), at)?;
        }
        if let Some(mode) = change.mode {
            let mode = Mode::from_raw_mode(mode);
            match links {
                Links::Follow => rustix::fs::chmodat(start, path_bytes, mode, at)?,
                Links::Stay => self.change_mode_of_link(path, mode)?,
            }
        }
        if let Some(times) = change.times {
            rustix::fs::utimensat(start, path_bytes, &attributes::timestamps(times), at)?;
        }
        Ok(())
    }
}

impl HostDirectory {
    /// The kernel has no call for it: what is no link is changed through its entry in /proc, as
    /// glibc's fchmodat(3) does it. Links have no mode of their own on Linux.
    fn change_mode_of_link(&self, path: &VPath, mode: Mode) -> io::Result<()> {
        let fd = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let entry = format!("/proc/self/fd/{}", fd.as_raw_fd());
        Ok(rustix::fs::chmod(entry, mode)?)
    }
}

impl FileSystem for HostDirectory {
    fn try_call(&self, call: &Call) -> io::Result<Answer> {
        self.perform(call)
    }

    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        Box::pin(std::future::ready(self.perform(&call)))
    }
}
