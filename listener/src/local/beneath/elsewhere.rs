//! By paths: each directory on the way is looked at first, and must not be a link.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use ketch_client::{Attrs, RemotePath};

use super::{attrs, not_below};
use crate::listing::Listing;
use crate::local::local_path;

/// Puts what is in the directory into `listing`. Names that are no text are passed over.
pub(in crate::local) fn list(
    root: &Path,
    directory: &RemotePath,
    listing: &mut Listing,
) -> io::Result<()> {
    for entry in std::fs::read_dir(plain(root, directory)?)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        match entry.metadata() {
            Ok(metadata) => listing
                .push(name.as_bytes(), attrs(&metadata))
                .map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // gone meanwhile
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is there; a link is told as a link.
pub(in crate::local) fn look(root: &Path, path: &RemotePath) -> io::Result<Attrs> {
    if path.as_bytes().is_empty() {
        return Ok(attrs(&std::fs::metadata(root)?));
    }
    Ok(attrs(&std::fs::symlink_metadata(beside(root, path)?)?))
}

/// Opens a regular file for reading.
pub(in crate::local) fn open(root: &Path, path: &RemotePath) -> io::Result<File> {
    let path = plain(root, path)?;
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ))
    }
}

pub(in crate::local) fn remove(root: &Path, path: &RemotePath) -> io::Result<()> {
    std::fs::remove_file(beside(root, path)?)
}

/// Renames, making the directories that `to` needs.
pub(in crate::local) fn rename(
    root: &Path,
    from: &RemotePath,
    to: &RemotePath,
    replace: bool,
) -> io::Result<()> {
    let old = beside(root, from)?;
    std::fs::symlink_metadata(&old)?;
    let to = local_path(to).ok_or_else(|| not_below(to))?;
    let new = root.join(to);
    if let Some(parent) = new.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if replace {
        return std::fs::rename(old, new);
    }
    // A second name fails where one is taken, which a rename would replace.
    std::fs::hard_link(&old, &new)?;
    std::fs::remove_file(old)
}

/// The path of something that may be a link itself.
fn beside(root: &Path, path: &RemotePath) -> io::Result<PathBuf> {
    let local = local_path(path).ok_or_else(|| not_below(path))?;
    let (Some(parent), Some(name)) = (local.parent(), local.file_name()) else {
        return Err(not_below(path));
    };
    Ok(checked(root, parent)?.join(name))
}

fn plain(root: &Path, path: &RemotePath) -> io::Result<PathBuf> {
    checked(root, &local_path(path).ok_or_else(|| not_below(path))?)
}

fn checked(root: &Path, below: &Path) -> io::Result<PathBuf> {
    let mut path = root.to_owned();
    for name in below.components() {
        path.push(name);
        if std::fs::symlink_metadata(&path)?.is_symlink() {
            return Err(io::Error::other("a link is on the way"));
        }
    }
    Ok(path)
}
