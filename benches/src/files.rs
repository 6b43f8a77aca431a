//! The files that are copied, and whether their copies are right.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ketch_conformance::content::{Sha256, random_file};

use crate::BenchError;

/// Bytes of a small file.
const SMALL_LEN: u64 = 4096;

/// Something that can be copied, listed or looked at.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    is: Is,
}

#[derive(Debug)]
enum Is {
    File(Sha256),
    /// As large as it says, and all zeros.
    Zeros(u64),
    Directory(BTreeMap<OsString, Sha256>),
    /// Empty files, which are only listed.
    Entries(usize),
}

impl Source {
    /// One file of random bytes.
    ///
    /// # Errors
    /// [`BenchError`] if there is no room.
    pub fn file(path: PathBuf, len: u64) -> Result<Self, BenchError> {
        let is = Is::File(random_file(&path, len)?);
        Ok(Self { path, is })
    }

    /// One file of zeros that takes no room.
    ///
    /// # Errors
    /// [`BenchError::Io`].
    pub fn zeros(path: PathBuf, len: u64) -> Result<Self, BenchError> {
        File::create(&path)
            .and_then(|file| file.set_len(len))
            .map_err(BenchError::io("making a file of zeros"))?;
        Ok(Self {
            path,
            is: Is::Zeros(len),
        })
    }

    /// A directory of `count` files of 4 KiB.
    ///
    /// # Errors
    /// [`BenchError`] if they cannot be made.
    pub fn small_files(path: PathBuf, count: u32) -> Result<Self, BenchError> {
        fs::create_dir(&path).map_err(BenchError::io("making a directory"))?;
        let mut files = BTreeMap::new();
        for number in 0..count {
            let name = format!("file-{number:06}");
            let hash = random_file(&path.join(&name), SMALL_LEN)?;
            files.insert(name.into(), hash);
        }
        Ok(Self {
            path,
            is: Is::Directory(files),
        })
    }

    /// A directory of `count` empty files.
    ///
    /// # Errors
    /// [`BenchError::Io`] if they cannot be made.
    pub fn entries(path: PathBuf, count: u32) -> Result<Self, BenchError> {
        let make = || -> io::Result<usize> {
            fs::create_dir(&path)?;
            for number in 0..count {
                File::create(path.join(format!("entry-{number:06}")))?;
            }
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        };
        let is = Is::Entries(make().map_err(BenchError::io("making a long directory"))?);
        Ok(Self { path, is })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with the copy at `target`, or with the listing that was printed to `said`.
    ///
    /// # Errors
    /// [`BenchError`] if it cannot be read.
    pub fn wrong(&self, target: &Path, said: &Path) -> Result<Option<String>, BenchError> {
        let wrong = match &self.is {
            Is::File(hash) => (Sha256::of_file(target)? != *hash).then(|| "other bytes".to_owned()),
            Is::Zeros(len) => {
                let got = fs::metadata(target).map_err(BenchError::io("looking at the copy"))?;
                (got.len() != *len).then(|| format!("{} bytes", got.len()))
            }
            Is::Directory(files) => wrong_files(files, target)?,
            Is::Entries(count) => {
                let text = fs::read(said).map_err(BenchError::io("reading what was listed"))?;
                let text = String::from_utf8_lossy(&text);
                let listed = text.lines().filter(|line| line.contains("entry-")).count();
                (listed != *count).then(|| format!("{listed} of {count} entries"))
            }
        };
        Ok(wrong)
    }
}

fn wrong_files(
    files: &BTreeMap<OsString, Sha256>,
    target: &Path,
) -> Result<Option<String>, BenchError> {
    let mut count = 0;
    for entry in fs::read_dir(target).map_err(BenchError::io("reading the copies"))? {
        let entry = entry.map_err(BenchError::io("reading the copies"))?;
        let Some(hash) = files.get(&entry.file_name()) else {
            return Ok(Some(format!("{} too many", entry.path().display())));
        };
        if Sha256::of_file(&entry.path())? != *hash {
            return Ok(Some(format!("other bytes in {}", entry.path().display())));
        }
        count += 1;
    }
    Ok((count != files.len()).then(|| format!("{count} of {} files", files.len())))
}

/// Takes away what a run has made.
///
/// # Errors
/// [`BenchError::Io`].
pub fn remove(target: &Path) -> Result<(), BenchError> {
    let removed = match fs::symlink_metadata(target) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(target),
        Ok(_) => fs::remove_file(target),
        Err(_) => Ok(()),
    };
    removed.map_err(BenchError::io("removing the copy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_not_the_same_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (said, copy) = (dir.path().join("said"), dir.path().join("copy"));
        let source = Source::small_files(dir.path().join("many"), 3).unwrap();
        fs::create_dir(&copy).unwrap();
        for name in ["file-000000", "file-000001"] {
            fs::copy(source.path().join(name), copy.join(name)).unwrap();
        }
        let wrong = source.wrong(&copy, &said).unwrap();
        assert_eq!(wrong.as_deref(), Some("2 of 3 files"));
        fs::write(copy.join("file-000002"), "x").unwrap();
        let wrong = source.wrong(&copy, &said).unwrap().unwrap();
        assert!(wrong.starts_with("other bytes in"), "{wrong}");

        let source = Source::entries(dir.path().join("entries"), 2).unwrap();
        fs::write(&said, "-rw 0 entry-000000\n-rw 0 entry-000001\n").unwrap();
        assert_eq!(source.wrong(&copy, &said).unwrap(), None);
        remove(&copy).unwrap();
        assert!(!copy.exists());
    }
}
