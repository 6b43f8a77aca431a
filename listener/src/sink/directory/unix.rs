//! Directories as descriptors: nothing below the first one is reached through a link.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Held;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// Without `NONBLOCK`, opening a named pipe would wait for its other end.
const PLAIN: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);
/// Where the id of the item that a file is a copy of is kept.
const ID: &str = "user.ketch.id";

/// An open directory.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
}

impl Dir {
    /// Opens the directory that the configuration names; links in this path are the user's own.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Opens the directory `path` below this one, if it is there. No link is followed.
    pub(super) fn below(&self, path: &[u8]) -> io::Result<Self> {
        if path.is_empty() {
            return Ok(Self {
                fd: self.fd.try_clone()?,
            });
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::ResolveFlags;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Ok(fd) => return Ok(Self { fd }),
                // An old kernel, or a filter that does not know the call; a rename elsewhere at the
                // wrong moment.
                Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut dir: Option<Self> = None;
        for component in path.split(|&byte| byte == b'/') {
            dir = Some(dir.as_ref().unwrap_or(self).child(component)?);
        }
        dir.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens a directory in this one; a link is an error.
    pub(super) fn child(&self, name: &[u8]) -> io::Result<Self> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Makes a directory in this one; whether it was not there.
    pub(super) fn make(&self, name: &[u8]) -> io::Result<bool> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What has this name; a link is something else.
    pub(super) fn look(&self, name: &[u8]) -> io::Result<Held> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Held::File {
                    len: u64::try_from(stat.st_size).unwrap_or(0),
                })
            }
            Ok(_) => Ok(Held::Other),
            Err(Errno::NOENT) => Ok(Held::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a file that was not there.
    pub(super) fn create_new(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | PLAIN;
        let mode = Mode::from_raw_mode(0o644);
        Ok(rustix::fs::openat(&self.fd, name, flags, mode)?.into())
    }

    /// Opens a file for reading and writing, creating it if it is not there; a link is an error.
    pub(super) fn open_or_create(&self, name: &[u8], mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | PLAIN;
        let mode = Mode::from_bits_truncate(mode);
        Ok(rustix::fs::openat(&self.fd, name, flags, mode)?.into())
    }

    /// Opens a file for reading; a link is an error.
    pub(super) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | PLAIN;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// Gives the file at `from` another name, in this directory.
    pub(super) fn link(&self, from: &Path, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::linkat(
            CWD,
            from,
            &self.fd,
            name,
            AtFlags::empty(),
        )?)
    }

    /// Renames in place of what has the new name.
    pub(super) fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Renames to a name that nobody has.
    pub(super) fn rename_new(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        {
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, flags) {
                Ok(()) => return Ok(()),
                // The kernel or the file system does not know the flag.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A crash in between leaves two names for one file, of which the hidden one is reaped.
        rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?;
        self.remove(from)
    }

    /// Gives each of two files the other's name: neither name is free at any time, and both are there
    /// before. `Unsupported` where the system cannot do that.
    pub(super) fn exchange(&self, a: &[u8], b: &[u8]) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        match rustix::fs::renameat_with(&self.fd, a, &self.fd, b, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            other => return Ok(other?),
        }
        let _ = (a, b);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a file.
    pub(super) fn remove(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Makes names durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.fd) {
            // Some network file systems cannot do that for directories, and need not.
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in it that begin with `prefix`.
    pub(super) fn names_with(&self, prefix: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(prefix) {
                found.push(name.to_vec());
            }
        }
        Ok(found)
    }

    /// What tells this directory from others.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = File::from(self.fd.try_clone()?).metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// When it was made, where the file system keeps that: its number may be another's by then. None of
    /// a directory that was removed.
    pub(super) fn birth(&self) -> io::Result<Option<(i64, u32)>> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::StatxFlags;
            let wanted = StatxFlags::BTIME | StatxFlags::NLINK;
            match rustix::fs::statx(&self.fd, "", AtFlags::EMPTY_PATH, wanted) {
                Ok(stat) => {
                    let is_known = StatxFlags::from_bits_retain(stat.stx_mask).contains(wanted);
                    let birth = (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
                    // Some say that they keep it and have none.
                    let is_birth = is_known && stat.stx_nlink > 0 && birth != (0, 0);
                    Ok(is_birth.then_some(birth))
                }
                // An old kernel, or a filter that does not know the call.
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
        #[cfg(not(target_os = "linux"))]
        Ok(None)
    }

    /// Whether both names are of one file.
    pub(super) fn is_one_file(&self, a: &[u8], b: &[u8]) -> io::Result<bool> {
        let identity = |name| match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io::Error::from(error)),
        };
        let (a, b) = (identity(a)?, identity(b)?);
        Ok(a.is_some() && a == b)
    }

    /// Whether the process may create and remove files in it.
    pub(super) fn is_writable(&self) -> io::Result<()> {
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        Ok(rustix::fs::accessat(
            &self.fd,
            ".",
            access,
            AtFlags::EACCESS,
        )?)
    }
}

/// Takes a lock on a file and waits for it. Released when the file is closed.
pub(super) fn lock(file: &File) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Marks a file as in use, beside others who do. Waits for who looks whether it is.
pub(super) fn lock_shared(file: &File) {
    // Where locks are not possible, nothing is reaped either.
    while rustix::fs::flock(file, FlockOperation::LockShared) == Err(Errno::INTR) {}
}

/// Whether a file is ours and nobody uses it.
pub(super) fn is_abandoned(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let is_ours = file.metadata().is_ok_and(|metadata| {
        metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw()
    });
    is_ours && rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Shares the blocks of `from`, where the file system can.
pub(super) fn clone_content(from: &File, to: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(to, from).is_ok();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, to);
        false
    }
}

/// Lets others read it as far as they may read new files.
pub(super) fn open_up(file: &File) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o644) & !umask();
    Ok(rustix::fs::fchmod(file, mode)?)
}

/// What new files do not get. It can only be asked for by changing it, which other threads would
/// notice, so it is read where Linux shows it; elsewhere files stay ours alone.
fn umask() -> Mode {
    static UMASK: OnceLock<u32> = OnceLock::new();
    let umask = UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok())
            .unwrap_or(0o077)
    });
    Mode::from_bits_truncate(*umask)
}

/// Notes in a file which item it is a copy of; whether the file system keeps such notes.
pub(super) fn set_id(file: &File, id: &str) -> bool {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(file, ID, id.as_bytes(), flags).is_ok()
}

/// Which item a file is a copy of, if that was noted.
pub(super) fn id(file: &File) -> Option<Vec<u8>> {
    let mut id = [0; 256];
    let len = rustix::fs::fgetxattr(file, ID, &mut id[..]).ok()?;
    Some(id.get(..len)?.to_vec())
}

/// What tells this start of the machine from others, where that can be told.
pub(super) fn boot() -> Option<Vec<u8>> {
    static BOOT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let read = || std::fs::read("/proc/sys/kernel/random/boot_id").ok();
    BOOT.get_or_init(read).clone()
}

/// When a file or its name last changed, in seconds since 1970.
pub(super) fn changed(file: &File) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    u64::try_from(file.metadata().ok()?.ctime()).ok()
}

/// Bytes as a path, for messages and for programs.
pub(super) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
