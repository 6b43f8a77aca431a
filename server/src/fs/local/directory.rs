//! [`LocalDirectory`]: each [`Call`] to its system calls.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::beneath::Root;
use super::listing::Listing;
use super::opened::{NoWait, OpenedFile};
use super::{attributes, names, watch};
use crate::fs::feed::{Feed, Subscription, WatchRequest};
use crate::fs::{Answer, Call, Create, FileSystem, Links, OpenHow, Work, blocking};
use crate::path::VPath;

/// A directory of this machine that a user sees as `/`.
///
/// The calls of the first tier are made in place: they are short while names and pages are in
/// the kernel's caches. The session measures them and turns to the second tier where they are not.
///
/// Open files and directories leave an eighth of the process's descriptors to connections, 32 at
/// most: to open one more is refused.
#[derive(Debug)]
pub struct LocalDirectory {
    root: Root,
    nowait: Arc<NoWait>,
}

impl LocalDirectory {
    /// Opens `path`, which must be a directory. It stays open: renaming it later does not matter.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            root: Root::open(path)?,
            nowait: Arc::default(),
        })
    }

    /// The same, in which no link is followed: what leads through one is not found. Links can still
    /// be looked at, made and removed.
    #[must_use]
    pub fn without_links(mut self) -> Self {
        self.root.refuse_links();
        self
    }

    /// The same, in which paths are resolved by this program, a component at a time, as if the
    /// kernel could not confine them (`openat2`, Linux 5.6). Where it cannot, that is done without
    /// being asked for. It confines as well, and costs a system call for each component.
    #[must_use]
    pub const fn resolved_by_steps(mut self) -> Self {
        self.root.resolve_by_steps();
        self
    }

    /// A directory to be listed, to which no link leads.
    pub(super) fn listed(&self, path: &VPath) -> io::Result<OwnedFd> {
        self.root.directory(path)
    }

    fn perform(&self, call: &Call) -> io::Result<Answer> {
        match call {
            Call::Open { path, how } => {
                let file = self.open_file(path, how)?;
                Ok(Answer::File(Arc::new(file)))
            }
            Call::OpenDirectory { path } => {
                self.root.check_room()?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = self.root.open_at(path, flags, Mode::empty())?;
                Ok(Answer::Directory(Box::new(Listing::new(fd)?)))
            }
            Call::Metadata {
                path,
                links: Links::Follow,
            } => {
                let fd = self.root.locate(path, OFlags::empty())?;
                Ok(Answer::Metadata(attributes::from_stat(&rustix::fs::fstat(
                    fd,
                )?)))
            }
            Call::Metadata {
                path,
                links: Links::Stay,
            } if path.is_root() => {
                let fd = self.root.locate(path, OFlags::NOFOLLOW)?;
                Ok(Answer::Metadata(attributes::from_stat(&rustix::fs::fstat(
                    fd,
                )?)))
            }
            Call::Metadata {
                path,
                links: Links::Stay,
            } => {
                let (parent, name) = self.root.parent(path)?;
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(Answer::Metadata(attributes::from_stat(&stat)))
            }
            Call::Change {
                path,
                links,
                change,
            } => {
                attributes::change_at(&self.root, path, *links, change)?;
                Ok(Answer::Done)
            }
            Call::Remove { path } => {
                let (parent, name) = self.root.parent(path)?;
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                Ok(Answer::Done)
            }
            Call::RemoveDirectory { path } => {
                let (parent, name) = self.root.parent(path)?;
                rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
                Ok(Answer::Done)
            }
            Call::CreateDirectory { path, mode } => {
                // The root exists: a client that makes a whole way wants to hear that.
                if path.is_root() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let (parent, name) = self.root.parent(path)?;
                rustix::fs::mkdirat(parent, name, attributes::permissions(*mode))?;
                Ok(Answer::Done)
            }
            Call::Rename { from, to, target } => {
                names::rename(&self.root, from, to, *target)?;
                Ok(Answer::Done)
            }
            Call::ReadLink { path } => {
                let (parent, name) = self.root.parent(path)?;
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                Ok(Answer::Target(target.into_bytes()))
            }
            Call::Symlink { target, link } => {
                let (parent, name) = self.root.parent(link)?;
                rustix::fs::symlinkat(target.as_slice(), parent, name)?;
                Ok(Answer::Done)
            }
            Call::HardLink { from, to } => {
                names::hard_link(&self.root, from, to)?;
                Ok(Answer::Done)
            }
            Call::SyncDirectory { path } => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                rustix::fs::fsync(self.root.open_at(path, flags, Mode::empty())?)?;
                Ok(Answer::Done)
            }
            Call::RemoveAbandoned { path } => {
                let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
                let open = |flags| self.root.open_at(path, flags, Mode::empty());
                let fd = match open(flags | OFlags::RDWR) {
                    // One that is to be read only in the end.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        open(flags | OFlags::RDONLY)?
                    }
                    opened => opened?,
                };
                match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => {}
                    Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::ResourceBusy.into()),
                    Err(errno) => return Err(errno.into()),
                }
                let (parent, name) = self.root.parent(path)?;
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                Ok(Answer::Done)
            }
            Call::Canonical { .. }
            | Call::Home { .. }
            | Call::Expand { .. }
            | Call::Names { .. } => Err(io::ErrorKind::Unsupported.into()),
            Call::Space { path } => {
                let fd = self.root.locate(path, OFlags::empty())?;
                Ok(Answer::Space(attributes::space(&rustix::fs::fstatvfs(fd)?)))
            }
        }
    }

    fn open_file(&self, path: &VPath, how: &OpenHow) -> io::Result<OpenedFile> {
        self.root.check_room()?;
        let mut flags = match (how.read, how.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        // A FIFO or a device must neither block this thread nor become its terminal; that it is
        // none is seen after opening, when nobody can swap it any more.
        flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
        flags.set(OFlags::APPEND, how.append);
        flags.set(OFlags::TRUNC, how.truncate && how.write && !how.exclusive);
        let fd = match how.create {
            Create::Never => self.root.open_at(path, flags, Mode::empty()),
            Create::New { mode } => {
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                self.root
                    .open_at(path, flags, attributes::permissions(mode))
            }
            Create::IfMissing { mode } => {
                // Nothing is made through a link. One that leads to a file is followed to it.
                let making = flags | OFlags::CREATE | OFlags::NOFOLLOW;
                match self
                    .root
                    .open_at(path, making, attributes::permissions(mode))
                {
                    Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                        self.root.open_at(path, flags, Mode::empty())
                    }
                    result => result,
                }
            }
        }?;
        if how.exclusive && how.write {
            // The kernel's lock on the open file: it counts for other processes and other names, too,
            // and goes with the descriptor, however that ends.
            let lock = FlockOperation::NonBlockingLockExclusive;
            rustix::fs::flock(&fd, lock).map_err(|errno| match errno {
                Errno::WOULDBLOCK => io::ErrorKind::ResourceBusy.into(),
                errno => io::Error::from(errno),
            })?;
            if how.truncate {
                rustix::fs::ftruncate(&fd, 0)?;
            }
        }
        OpenedFile::new(fd, &self.nowait)
    }
}

impl FileSystem for LocalDirectory {
    fn try_call(&self, call: &Call) -> io::Result<Answer> {
        self.perform(call)
    }

    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        blocking(move || self.perform(&call))
    }

    fn can_watch(&self) -> bool {
        true
    }

    fn watch(self: Arc<Self>, request: WatchRequest, feed: Feed) -> Work<Subscription> {
        blocking(move || watch::watch(&self, request, feed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_link_is_followed_nothing_is_found_through_one() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("d/f"), "x").unwrap();
        std::os::unix::fs::symlink("d", directory.path().join("to_d")).unwrap();
        std::os::unix::fs::symlink("d/f", directory.path().join("to_f")).unwrap();
        let path = |named: &str| VPath::resolve(named.as_bytes()).unwrap();
        let files = LocalDirectory::open(directory.path()).unwrap();
        let open = |files: &LocalDirectory, named| {
            let how = OpenHow::read();
            let path = path(named);
            files.perform(&Call::Open { path, how })
        };
        assert!(open(&files, "/to_f").is_ok() && open(&files, "/to_d/f").is_ok());
        let files = files.without_links();
        assert!(open(&files, "/d/f").is_ok());
        for named in ["/to_f", "/to_d/f"] {
            let path = path(named);
            assert!(open(&files, named).is_err(), "{named}");
            let how = OpenHow::replace(0o600);
            let call = Call::Open { path, how };
            assert!(files.perform(&call).is_err(), "{named}");
        }
        let path = path("/to_f");
        assert!(
            files
                .perform(&Call::ReadLink { path: path.clone() })
                .is_ok()
        );
        assert!(files.perform(&Call::Remove { path }).is_ok());
        assert_eq!(std::fs::read(directory.path().join("d/f")).unwrap(), b"x");
    }

    #[test]
    fn a_file_that_is_open_exclusively_is_not_opened_or_emptied_by_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = |named: &str| VPath::resolve(named.as_bytes()).unwrap();
        let how = OpenHow {
            exclusive: true,
            ..OpenHow::replace(0o600)
        };
        // Of two users whose roots overlap, by two names of one file.
        let files = LocalDirectory::open(directory.path()).unwrap();
        let first = files.open_file(&path("/a"), &how).unwrap();
        std::fs::write(directory.path().join("a"), "abc").unwrap();
        std::fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
        let other = LocalDirectory::open(directory.path()).unwrap();
        let busy = other.open_file(&path("/b"), &how).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        assert!(other.open_file(&path("/a"), &OpenHow::read()).is_ok());
        assert_eq!(std::fs::read(directory.path().join("a")).unwrap(), b"abc");
        // Removed and made anew it is another file; the first one goes on in its own.
        other.perform(&Call::Remove { path: path("/a") }).unwrap();
        assert!(other.open_file(&path("/a"), &how).is_ok());
        drop(first);
        assert!(other.open_file(&path("/b"), &how).is_ok());
        assert_eq!(std::fs::read(directory.path().join("b")).unwrap(), b"");
    }
}
