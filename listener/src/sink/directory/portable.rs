//! Directories as paths, for systems without descriptors for them. Each component is looked at before
//! it is used, so a link that is there is not followed; one that is put there meanwhile may be.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::Held;

/// A directory.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
}

fn text(name: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(name).map_err(|_| io::ErrorKind::InvalidFilename.into())
}

impl Dir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    pub(super) fn below(&self, path: &[u8]) -> io::Result<Self> {
        let mut dir = Self {
            path: self.path.clone(),
        };
        for component in path.split(|&byte| byte == b'/').filter(|c| !c.is_empty()) {
            dir = dir.child(component)?;
        }
        Ok(dir)
    }

    pub(super) fn child(&self, name: &[u8]) -> io::Result<Self> {
        let path = self.path.join(text(name)?);
        if !std::fs::symlink_metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { path })
    }

    pub(super) fn make(&self, name: &[u8]) -> io::Result<bool> {
        match std::fs::create_dir(self.path.join(text(name)?)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn look(&self, name: &[u8]) -> io::Result<Held> {
        match std::fs::symlink_metadata(self.path.join(text(name)?)) {
            Ok(metadata) if metadata.is_file() => Ok(Held::File {
                len: metadata.len(),
            }),
            Ok(_) => Ok(Held::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Held::Nothing),
            Err(error) => Err(error),
        }
    }

    fn plain(&self, name: &[u8]) -> io::Result<PathBuf> {
        match self.look(name)? {
            Held::Other => Err(io::Error::other("it is not a plain file")),
            _ => Ok(self.path.join(text(name)?)),
        }
    }

    pub(super) fn create_new(&self, name: &[u8]) -> io::Result<File> {
        File::create_new(self.path.join(text(name)?))
    }

    pub(super) fn open_or_create(&self, name: &[u8], _mode: u32) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(self.plain(name)?)
    }

    pub(super) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        File::open(self.plain(name)?)
    }

    pub(super) fn link(&self, from: &Path, name: &[u8]) -> io::Result<()> {
        std::fs::hard_link(from, self.path.join(text(name)?))
    }

    pub(super) fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        std::fs::rename(self.path.join(text(from)?), self.path.join(text(to)?))
    }

    pub(super) fn rename_new(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        std::fs::hard_link(self.path.join(text(from)?), self.path.join(text(to)?))?;
        self.remove(from)
    }

    pub(super) fn exchange(&self, _: &[u8], _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn remove(&self, name: &[u8]) -> io::Result<()> {
        std::fs::remove_file(self.path.join(text(name)?))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn names_with(&self, prefix: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name().into_encoded_bytes();
            if name.starts_with(prefix) {
                found.push(name);
            }
        }
        Ok(found)
    }

    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&self.path);
        Ok((0, hash))
    }

    pub(super) fn birth(&self) -> io::Result<Option<(i64, u32)>> {
        Ok(None)
    }

    pub(super) fn is_one_file(&self, _: &[u8], _: &[u8]) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn is_writable(&self) -> io::Result<()> {
        match std::fs::metadata(&self.path)?.permissions().readonly() {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        }
    }
}

pub(super) fn lock(file: &File) -> io::Result<()> {
    file.lock()
}

pub(super) fn lock_shared(_file: &File) {}

/// A file that somebody has open cannot be removed here, so it needs no mark.
pub(super) fn is_abandoned(_file: &File) -> bool {
    true
}

pub(super) fn clone_content(_from: &File, _to: &File) -> bool {
    false
}

pub(super) fn open_up(_file: &File) -> io::Result<()> {
    Ok(())
}

pub(super) fn set_id(_file: &File, _id: &str) -> bool {
    false
}

pub(super) fn id(_file: &File) -> Option<Vec<u8>> {
    None
}

/// Starts of the machine are not told apart here.
pub(super) fn boot() -> Option<Vec<u8>> {
    None
}

pub(super) fn changed(_file: &File) -> Option<u64> {
    None
}

pub(super) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(std::str::from_utf8(bytes).unwrap_or_default())
}
