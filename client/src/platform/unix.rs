//! Unix: directories are descriptors, and no link below them is followed.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::{MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use ketch_protocol::{FileType, Owner};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{Held, LocalEntry};

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    is_new: bool,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Dir {
    /// Opens the directory that the user named; links in this path are the user's own.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let fd = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            is_new: false,
        })
    }

    /// It was empty when it was opened: nobody had it before.
    pub(crate) fn new_one(mut self) -> Self {
        self.is_new = true;
        self
    }

    /// Whether it was made for what is written to it now, so that it holds nothing of others.
    pub(crate) const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the directory was when it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory in this one; a link is an error.
    pub(crate) fn child(&self, name: &OsStr) -> io::Result<Self> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Self {
            fd,
            path: self.path.join(name),
            is_new: false,
        })
    }

    /// Opens a directory in this one, creating it if it is not there.
    pub(crate) fn make_child(&self, name: &OsStr) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => self.child(name).map(Self::new_one),
            Err(rustix::io::Errno::EXIST) => self.child(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory in this one, or the one that a link in it leads to.
    pub(crate) fn child_followed(&self, name: &OsStr) -> io::Result<Self> {
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY, Mode::empty())?;
        Ok(Self {
            fd,
            path: self.path.join(name),
            is_new: false,
        })
    }

    /// Whether it is the directory of which `metadata` tells; where it is does not matter here.
    pub(crate) fn is(&self, metadata: &Metadata, _path: &Path) -> io::Result<bool> {
        let stat = rustix::fs::fstat(&self.fd)?;
        #[allow(clippy::useless_conversion, reason = "other widths on some systems")]
        let is_same = u64::try_from(stat.st_dev).is_ok_and(|dev| dev == metadata.dev())
            && u64::from(stat.st_ino) == metadata.ino();
        Ok(is_same)
    }

    /// Makes a link to `target`, under a name that is free.
    pub(crate) fn make_link(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.fd, name)?)
    }

    /// Where a link leads.
    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Sets the times of what has this name, a link itself, in seconds since 1970.
    pub(crate) fn set_link_times(
        &self,
        name: &OsStr,
        accessed: u32,
        modified: u32,
    ) -> io::Result<()> {
        let time = |seconds: u32| rustix::fs::Timespec {
            tv_sec: seconds.into(),
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: time(accessed),
            last_modification: time(modified),
        };
        rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// What has this name, a link being one.
    pub(crate) fn kind(&self, name: &OsStr) -> io::Result<Option<FileType>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            #[allow(clippy::useless_conversion, reason = "16 bits on some systems")]
            Ok(stat) => Ok(Some(FileType::from_mode(u32::from(stat.st_mode)))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a file that was not there, and opens it for reading and writing.
    pub(crate) fn create_new(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, permissions(mode))?.into())
    }

    /// Creates a file that has no name, and goes with the last who has it open, unless it is given
    /// one: see open(2), `O_TMPFILE`.
    #[cfg(target_os = "linux")]
    pub(crate) fn create_nameless(&self, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, ".", flags, permissions(mode))?.into())
    }

    /// Gives such a file its name; fails with `AlreadyExists` if that is taken.
    ///
    /// Linux asked for a capability before 6.10: see open(2) on `AT_EMPTY_PATH`.
    #[cfg(target_os = "linux")]
    pub(crate) fn name_file(&self, file: &File, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::linkat(
            file,
            "",
            &self.fd,
            name,
            AtFlags::EMPTY_PATH,
        )?)
    }

    /// Creates a file that has no name: Linux alone has such files.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "Linux has more to do")]
    pub(crate) fn create_nameless(&self, _mode: u32) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives such a file its name.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "Linux has more to do")]
    pub(crate) fn name_file(&self, _file: &File, _name: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens a part that an earlier run of the same user left, for this process alone; `None` if
    /// it is something else, or in use.
    pub(crate) fn open_part(&self, name: &OsStr) -> io::Result<Option<File>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        if !metadata.is_file() || metadata.nlink() != 1 || !is_ours || !super::lock(&file) {
            return Ok(None);
        }
        // Whoever had it may have given it its name before the lock was free.
        let now = std::fs::symlink_metadata(self.path.join(name))?;
        let is_same = (now.dev(), now.ino()) == (metadata.dev(), metadata.ino());
        Ok(is_same.then_some(file))
    }

    /// Opens a file in this directory for reading; a link is an error.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<File> {
        // Without NONBLOCK, opening a named pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// Opens a file in this directory for reading, or the one that a link in it leads to.
    pub(crate) fn open_linked(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// What the system tells about it.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.as_file()?.metadata()
    }

    /// It as a file, of which attributes can be set.
    pub(crate) fn as_file(&self) -> io::Result<File> {
        Ok(self.fd.try_clone()?.into())
    }

    /// Whether there is something of this name.
    pub(crate) fn exists(&self, name: &OsStr) -> io::Result<bool> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What has this name, links followed.
    pub(crate) fn held(&self, name: &OsStr) -> io::Result<Held> {
        use rustix::io::Errno;
        match rustix::fs::statat(&self.fd, name, AtFlags::empty()) {
            #[allow(clippy::useless_conversion, reason = "16 bits on some systems")]
            Ok(stat) => {
                let mode = u32::from(stat.st_mode);
                Ok(match FileType::from_mode(mode) {
                    FileType::Regular => Held::Plain(Some(mode & 0o777)),
                    _ => Held::Other,
                })
            }
            // A link that leads nowhere is in nobody's way.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(Held::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames within the directory, in place of what has the new name.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Renames to another directory, in place of what has the new name there.
    pub(crate) fn rename_to(&self, from: &OsStr, other: &Self, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &other.fd, to)?)
    }

    /// Gives a file a second name in another directory, in place of a file that has it.
    pub(crate) fn link_to(&self, name: &OsStr, other: &Self, to: &OsStr) -> io::Result<()> {
        let link = || rustix::fs::linkat(&self.fd, name, &other.fd, to, AtFlags::empty());
        match link() {
            Err(rustix::io::Errno::EXIST) => {
                other.remove(to)?;
                Ok(link()?)
            }
            linked => Ok(linked?),
        }
    }

    /// Renames within the directory; fails with `AlreadyExists` if the new name is taken.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        // A second name for the file, then the first removed: atomic wherever links are.
        match rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty()) {
            Ok(()) => self.remove(from),
            Err(rustix::io::Errno::EXIST) => Err(rustix::io::Errno::EXIST.into()),
            Err(_) if self.exists(to)? => Err(rustix::io::Errno::EXIST.into()),
            Err(_) => self.rename(from, to),
        }
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Makes renames in the directory last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// What is in the directory, `.` and `..` left out.
    pub(crate) fn list(&self) -> io::Result<Vec<LocalEntry>> {
        let mut entries = match self.list_here()? {
            Some(entries) => entries,
            None => self.list_by_path()?,
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Lists by the descriptor that is open, so that each look is at one name and not at a whole
    /// path. The standard library takes no descriptor, but Linux has paths for them: `None` where
    /// these are not there.
    #[cfg(target_os = "linux")]
    fn list_here(&self) -> io::Result<Option<Vec<LocalEntry>>> {
        use std::os::fd::AsRawFd as _;
        let own = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let Ok(found) = std::fs::read_dir(own) else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        for entry in found {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => entries.push(LocalEntry {
                    name: entry.file_name(),
                    metadata,
                    link: None,
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // gone meanwhile
                Err(error) => return Err(error),
            }
        }
        Ok(Some(entries))
    }

    /// Other systems have no such paths that could be relied on.
    #[cfg(not(target_os = "linux"))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "Linux has more to do"
    )]
    fn list_here(&self) -> io::Result<Option<Vec<LocalEntry>>> {
        Ok(None)
    }

    fn list_by_path(&self) -> io::Result<Vec<LocalEntry>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name == "." || name == ".." {
                continue;
            }
            // By path: the standard library's metadata has no other way. The type is looked at
            // again when the file is opened.
            match std::fs::symlink_metadata(self.path.join(&name)) {
                Ok(metadata) => entries.push(LocalEntry {
                    name,
                    metadata,
                    link: None,
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // gone meanwhile
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// The first `max` names in the directory, in no order.
    pub(crate) fn names(&self, max: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)?.take(max) {
            names.push(OsString::from_vec(entry?.file_name().to_bytes().to_vec()));
        }
        Ok(names)
    }

    /// A number for the file system that the directory is on.
    pub(crate) fn file_system(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.dev())
    }
}

/// Permissions of a file that is created, before the umask.
fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(rustix::fs::RawMode::try_from(mode & 0o777).unwrap_or(0o600))
}

/// Files that this process may have open.
pub(crate) fn open_files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    usize::try_from(limit.current.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

/// Whether an error about what a link leads to says that there is nothing.
pub(crate) fn leads_nowhere(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Opens a file that the user named; links in this path are the user's own.
pub(crate) fn open_source(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?.into())
}

/// Writes all of `bufs` from `offset` on; adjacent pieces leave in one call.
pub(crate) fn write_run(
    file: &File,
    mut bufs: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    while bufs.iter().any(|buf| !buf.is_empty()) {
        match rustix::io::pwritev(file, bufs, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset = offset.saturating_add(written as u64);
                IoSlice::advance_slices(&mut bufs, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads into `bufs` from `offset` on until they are full or the file ends, and says how much.
/// Where it ended when it was opened, if that is known, it is not asked once more whether it ends.
///
/// With `cached_only`, `WouldBlock` means that the bytes are not in memory, `Unsupported` that the
/// file system cannot tell.
#[cfg(target_os = "linux")]
pub(crate) fn read_slots(
    file: &File,
    mut bufs: &mut [IoSliceMut<'_>],
    offset: u64,
    known_end: Option<u64>,
    cached_only: bool,
) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags};
    let mut total = 0_usize;
    let mut flags = if cached_only {
        ReadWriteFlags::NOWAIT
    } else {
        ReadWriteFlags::empty()
    };
    while bufs.iter().any(|buf| !buf.is_empty()) {
        let at = offset.saturating_add(total as u64);
        let read = if flags.is_empty() {
            rustix::io::preadv(file, bufs, at)
        } else {
            rustix::io::preadv2(file, bufs, at, flags)
        };
        match read {
            Ok(0) => break,
            Ok(n) => {
                total += n;
                IoSliceMut::advance_slices(&mut bufs, n);
                // More was asked for than came.
                if Some(offset.saturating_add(total as u64)) == known_end {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if !flags.is_empty() => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Err(Errno::AGAIN) if total > 0 => flags = ReadWriteFlags::empty(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(total)
}

/// Reads into `bufs` from `offset` on until they are full or the file ends, and says how much.
#[cfg(not(target_os = "linux"))]
pub(crate) fn read_slots(
    file: &File,
    bufs: &mut [IoSliceMut<'_>],
    offset: u64,
    _known_end: Option<u64>,
    _cached_only: bool,
) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;
    super::read_each(bufs, offset, |buf, at| file.read_at(buf, at))
}

/// The local form of a name that passed the check.
pub(crate) fn local_name(name: &[u8]) -> Option<OsString> {
    Some(OsString::from_vec(name.to_vec()))
}

/// The form of a local name that goes over the wire.
pub(crate) fn remote_name(name: &OsStr) -> Option<Vec<u8>> {
    Some(name.as_bytes().to_vec())
}

/// Whether a file has a name, which may have been taken from it while it was open.
pub(crate) fn has_name(metadata: &Metadata) -> bool {
    metadata.nlink() > 0
}

/// Permission bits of a local file, as SFTP has them.
pub(crate) fn mode_of(metadata: &Metadata) -> Option<u32> {
    Some(metadata.permissions().mode() & 0o7777)
}

/// Sets the permission bits of an open file.
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(std::fs::Permissions::from_mode(mode & 0o777))
}

/// Sets user and group of an open file, by number.
pub(crate) fn set_owner(file: &File, owner: Owner) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(owner.uid), Some(owner.gid))
}

/// User and group of a local file.
pub(crate) fn owner_of(metadata: &Metadata) -> Option<Owner> {
    Some(Owner {
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Where the data of a sparse file begins and ends, if it has holes: starts and ends of runs.
///
/// Files whose blocks make up their size are not looked at.
#[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
pub(crate) fn data_runs(file: &File, metadata: &Metadata) -> Option<Vec<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let size = metadata.len();
    if metadata.blocks().saturating_mul(512) >= size {
        return None;
    }
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size && runs.len() < super::DATA_RUNS_MAX {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => {
                let end = rustix::fs::seek(file, SeekFrom::Hole(start)).ok()?;
                runs.push((start, end));
                at = end.max(start + 1);
            }
            // No data behind it.
            Err(rustix::io::Errno::NXIO) => return Some(runs),
            Err(_) => return None,
        }
    }
    if at < size {
        runs.push((at, size)); // too many to know
    }
    Some(runs)
}

/// Where the data of a sparse file begins and ends: nobody tells here.
#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "freebsd")))]
pub(crate) const fn data_runs(_file: &File, _metadata: &Metadata) -> Option<Vec<(u64, u64)>> {
    None
}

/// What kind of file it is.
pub(crate) fn file_type(metadata: &Metadata) -> FileType {
    FileType::from_mode(metadata.mode())
}
