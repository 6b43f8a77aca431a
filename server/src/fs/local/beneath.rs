//! The one way from a path to a descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{by_steps, room};
use crate::path::VPath;

/// How often a look-up is done again that the kernel gave up because a directory on the way was
/// renamed meanwhile (openat2(2), `EAGAIN`: it cannot tell whether a `..` stayed beneath).
const LOOKUPS_MAX: usize = 32;

/// The root of a tree, and the only descriptor that paths start from.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    resolve: ResolveFlags,
    /// The kernel does not resolve beneath a directory, so that it is done here.
    by_steps: bool,
}

impl Root {
    /// Opens `path`, which belongs to this program's user and may lead through links.
    pub(super) fn open(path: &std::path::Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut root = Self {
            fd: rustix::fs::open(path, flags, Mode::empty())?,
            resolve: ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            by_steps: false,
        };
        match root.lookup(b".", flags, Mode::empty()) {
            Ok(_) => {}
            // Before Linux 5.6, or a filter of system calls that does not know it: those of before
            // say "not permitted", which this call says of no directory.
            Err(Errno::NOSYS | Errno::PERM) => root.by_steps = true,
            Err(error) => return Err(error.into()),
        }
        Ok(root)
    }

    /// Resolves as where the kernel has no means for it.
    pub(super) const fn resolve_by_steps(&mut self) {
        self.by_steps = true;
    }

    /// Follows no link from now on.
    pub(super) fn refuse_links(&mut self) {
        self.resolve |= ResolveFlags::NO_SYMLINKS;
    }

    /// Whether one more file may be opened and be kept open.
    pub(super) fn check_room(&self) -> io::Result<()> {
        room::check(&self.fd)
    }

    /// Opens `path` with `flags`; a link in it is followed as long as it stays beneath the root,
    /// the last one too unless `flags` have `NOFOLLOW`.
    pub(super) fn open_at(&self, path: &VPath, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.lookup(path.beneath(), flags | OFlags::CLOEXEC, mode)
            .map_err(|errno| match errno {
                // Out of the root: the same answer whether or not something is there.
                Errno::XDEV => io::ErrorKind::PermissionDenied.into(),
                Errno::AGAIN => io::ErrorKind::ResourceBusy.into(),
                errno => errno.into(),
            })
    }

    /// A descriptor of what `path` names, good for asking about it but not for reading it.
    pub(super) fn locate(&self, path: &VPath, flags: OFlags) -> io::Result<OwnedFd> {
        self.open_at(path, flags | OFlags::PATH, Mode::empty())
    }

    /// The directory that holds the last component of `path`, and that component.
    ///
    /// A call that takes both and does not follow links in the last component cannot leave the
    /// root. The root itself is nobody's component: `PermissionDenied`.
    pub(super) fn parent<'a>(&'a self, path: &'a VPath) -> io::Result<(Parent<'a>, &'a [u8])> {
        let (directory, name) = path
            .split_beneath()
            .ok_or(io::ErrorKind::PermissionDenied)?;
        if directory == b"." {
            return Ok((Parent::Root(self.fd.as_fd()), name));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.lookup(directory, flags, Mode::empty()) {
            Ok(fd) => Ok((Parent::Opened(fd), name)),
            Err(Errno::XDEV) => Err(io::ErrorKind::PermissionDenied.into()),
            Err(Errno::AGAIN) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A directory to be listed, to which no link leads: not even one that stays beneath.
    pub(super) fn directory(&self, path: &VPath) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        self.lookup_with(path.beneath(), flags, Mode::empty(), resolve)
            .map_err(|errno| match errno {
                Errno::XDEV => io::ErrorKind::PermissionDenied.into(),
                Errno::AGAIN => io::ErrorKind::ResourceBusy.into(),
                errno => errno.into(),
            })
    }

    fn lookup(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        self.lookup_with(path, flags, mode, self.resolve)
    }

    fn lookup_with(
        &self,
        path: &[u8],
        flags: OFlags,
        mode: Mode,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let mut last = Errno::AGAIN;
        for _ in 0..LOOKUPS_MAX {
            let result = if self.by_steps {
                let follows_links = !resolve.contains(ResolveFlags::NO_SYMLINKS);
                by_steps::lookup(self.fd.as_fd(), path, flags, mode, follows_links)
            } else {
                rustix::fs::openat2(&self.fd, path, flags, mode, resolve)
            };
            match result {
                Err(again @ (Errno::AGAIN | Errno::INTR)) => last = again,
                result => return result,
            }
        }
        Err(last)
    }
}

/// A directory that a component is looked up in.
#[derive(Debug)]
pub(super) enum Parent<'a> {
    /// The root: nothing had to be opened.
    Root(BorrowedFd<'a>),
    /// One beneath it.
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}
