//! Elsewhere: directories are paths, and every name below them was checked to be one component.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    path::{Path, PathBuf},
};

use ketch_protocol::{FileType, Owner};

use super::{Held, LocalEntry};

/// A directory.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
}

impl Dir {
    /// Finds the directory that the user named; links in this path are the user's own.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        if !fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where the directory is, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds a directory in this one; a link is an error.
    pub(crate) fn child(&self, name: &OsStr) -> io::Result<Self> {
        let path = self.path.join(name);
        if !fs::symlink_metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { path })
    }

    /// Finds a directory in this one, creating it if it is not there.
    pub(crate) fn make_child(&self, name: &OsStr) -> io::Result<Self> {
        match fs::create_dir(self.path.join(name)) {
            Ok(()) => self.child(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.child(name),
            Err(error) => Err(error),
        }
    }

    /// Finds a directory in this one, or the one that a link in it leads to.
    pub(crate) fn child_followed(&self, name: &OsStr) -> io::Result<Self> {
        Self::open(&self.path.join(name))
    }

    /// Whether it is the directory at `path`.
    pub(crate) fn is(&self, _metadata: &Metadata, path: &Path) -> io::Result<bool> {
        Ok(fs::canonicalize(&self.path)? == fs::canonicalize(path)?)
    }

    /// Makes a link: here a link would have to say what it leads to, and need a right to be made.
    #[expect(clippy::unused_self, reason = "Unix has more to do")]
    pub(crate) fn make_link(&self, _target: &OsStr, _name: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where a link leads.
    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        Ok(fs::read_link(self.path.join(name))?.into_os_string())
    }

    /// Sets the times of a link: none is made here.
    #[expect(clippy::unused_self, reason = "Unix has more to do")]
    pub(crate) fn set_link_times(
        &self,
        _name: &OsStr,
        _accessed: u32,
        _modified: u32,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What has this name, a link being one.
    pub(crate) fn kind(&self, name: &OsStr) -> io::Result<Option<FileType>> {
        match fs::symlink_metadata(self.path.join(name)) {
            Ok(metadata) => Ok(Some(file_type(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a file that was not there, and opens it for reading and writing.
    pub(crate) fn create_new(&self, name: &OsStr, _mode: u32) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path.join(name))
    }

    /// It was made just now: nobody had it before. Here names are looked at all the same.
    pub(crate) const fn new_one(self) -> Self {
        self
    }

    /// Whether it was made for what is written to it now.
    #[expect(clippy::unused_self, reason = "Unix knows")]
    pub(crate) const fn is_new(&self) -> bool {
        false
    }

    /// Creates a file that has no name: Linux alone has such files.
    #[expect(clippy::unused_self, reason = "Linux has more to do")]
    pub(crate) fn create_nameless(&self, _mode: u32) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives such a file its name.
    #[expect(clippy::unused_self, reason = "Linux has more to do")]
    pub(crate) fn name_file(&self, _file: &File, _name: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens a part that an earlier run left, for this process alone; `None` if it is something
    /// else, or in use.
    pub(crate) fn open_part(&self, name: &OsStr) -> io::Result<Option<File>> {
        let path = self.path.join(name);
        if !fs::symlink_metadata(&path)?.is_file() {
            return Ok(None);
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(super::lock(&file).then_some(file))
    }

    /// Opens a file in this directory for reading; a link is an error.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let path = self.path.join(name);
        if fs::symlink_metadata(&path)?.is_symlink() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        File::open(path)
    }

    /// Opens a file in this directory for reading, or the one that a link in it leads to.
    pub(crate) fn open_linked(&self, name: &OsStr) -> io::Result<File> {
        File::open(self.path.join(name))
    }

    /// What the system tells about it.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(&self.path)
    }

    /// It as a file, of which attributes can be set: here directories are none.
    #[expect(clippy::unused_self, reason = "Unix has more to do")]
    pub(crate) fn as_file(&self) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether there is something of this name.
    pub(crate) fn exists(&self, name: &OsStr) -> io::Result<bool> {
        match fs::symlink_metadata(self.path.join(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What has this name, links followed.
    pub(crate) fn held(&self, name: &OsStr) -> io::Result<Held> {
        match fs::metadata(self.path.join(name)) {
            Ok(metadata) if metadata.is_file() => Ok(Held::Plain(None)),
            Ok(_) => Ok(Held::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Held::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Renames within the directory, in place of what has the new name.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    /// Renames to another directory, in place of what has the new name there.
    pub(crate) fn rename_to(&self, from: &OsStr, other: &Self, to: &OsStr) -> io::Result<()> {
        fs::rename(self.path.join(from), other.path.join(to))
    }

    /// Gives a file a second name in another directory, in place of a file that has it.
    pub(crate) fn link_to(&self, name: &OsStr, other: &Self, to: &OsStr) -> io::Result<()> {
        let link = || fs::hard_link(self.path.join(name), other.path.join(to));
        match link() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                other.remove(to)?;
                link()
            }
            linked => linked,
        }
    }

    /// Renames within the directory; fails with `AlreadyExists` if the new name is taken.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        match fs::hard_link(self.path.join(from), self.path.join(to)) {
            Ok(()) => self.remove(from),
            Err(_) if self.exists(to)? => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => self.rename(from, to),
        }
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_dir(self.path.join(name))
    }

    /// Makes renames in the directory last: such systems have no call for it.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "Unix has more to do"
    )]
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// What is in the directory.
    pub(crate) fn list(&self) -> io::Result<Vec<LocalEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = fs::symlink_metadata(entry.path())?;
            entries.push(LocalEntry {
                name: entry.file_name(),
                metadata,
                link: None,
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The first `max` names in the directory, in no order.
    pub(crate) fn names(&self, max: usize) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(&self.path)?.take(max);
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// A number for the file system that the directory is on: its first component will do.
    pub(crate) fn file_system(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        path.components().next().hash(&mut hasher);
        hasher.finish()
    }
}

/// Files that this process may have open: what is always allowed.
pub(crate) const fn open_files_max() -> usize {
    1024
}

/// Whether an error about what a link leads to says that there is nothing.
pub(crate) fn leads_nowhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Opens a file that the user named.
pub(crate) fn open_source(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

/// Writes all of `bufs` from `offset` on.
pub(crate) fn write_run(file: &File, bufs: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    for buf in bufs {
        let mut rest: &[u8] = buf;
        while !rest.is_empty() {
            match write_at(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset = offset.saturating_add(written as u64);
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Reads into `bufs` from `offset` on until they are full or the file ends, and says how much.
pub(crate) fn read_slots(
    file: &File,
    bufs: &mut [IoSliceMut<'_>],
    offset: u64,
    _known_end: Option<u64>,
    _cached_only: bool,
) -> io::Result<usize> {
    super::read_each(bufs, offset, |buf, at| match read_at(file, buf, at) {
        // Windows reports the end of the file as an error of its own where others say zero.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        result => result,
    })
}

/// The local form of a name that passed the check.
pub(crate) fn local_name(name: &[u8]) -> Option<OsString> {
    std::str::from_utf8(name).ok().map(OsString::from)
}

/// The form of a local name that goes over the wire: UTF-8.
pub(crate) fn remote_name(name: &OsStr) -> Option<Vec<u8>> {
    name.to_str().map(|name| name.as_bytes().to_vec())
}

/// Whether a file has a name: nobody can take it from one that is open.
pub(crate) const fn has_name(_metadata: &Metadata) -> bool {
    true
}

/// Permission bits of a local file: such systems have none.
pub(crate) const fn mode_of(_metadata: &Metadata) -> Option<u32> {
    None
}

/// Sets the permission bits of an open file: such systems have none.
#[expect(clippy::unnecessary_wraps, reason = "Unix has something to do")]
pub(crate) const fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Sets user and group of an open file: such systems have no numbers for them.
pub(crate) fn set_owner(_file: &File, _owner: Owner) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// User and group of a local file: such systems have no numbers for them.
pub(crate) const fn owner_of(_metadata: &Metadata) -> Option<Owner> {
    None
}

/// Where the data of a sparse file begins and ends: nobody tells here.
pub(crate) const fn data_runs(_file: &File, _metadata: &Metadata) -> Option<Vec<(u64, u64)>> {
    None
}

/// What kind of file it is.
pub(crate) fn file_type(metadata: &Metadata) -> FileType {
    let file_type = metadata.file_type();
    if file_type.is_symlink() {
        FileType::Symlink
    } else if file_type.is_dir() {
        FileType::Directory
    } else if file_type.is_file() {
        FileType::Regular
    } else {
        FileType::Unknown
    }
}
