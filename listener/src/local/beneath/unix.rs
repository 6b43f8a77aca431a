//! By descriptors: `openat` with `O_NOFOLLOW` for each name.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use ketch_client::{Attrs, RemotePath};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{attrs_of, not_below};
use crate::listing::Listing;
use crate::local::local_path;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Puts what is in the directory into `listing`.
pub(in crate::local) fn list(
    root: &Path,
    directory: &RemotePath,
    listing: &mut Listing,
) -> io::Result<()> {
    let fd = directory_at(root, directory, false)?;
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => listing
                .push(name.to_bytes(), attrs(&stat))
                .map_err(io::Error::other)?,
            Err(Errno::NOENT) => {} // gone meanwhile
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is there; a link is told as a link.
pub(in crate::local) fn look(root: &Path, path: &RemotePath) -> io::Result<Attrs> {
    if path.as_bytes().is_empty() {
        return Ok(attrs(&rustix::fs::stat(root)?));
    }
    let (directory, name) = parent(root, path, false)?;
    let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(attrs(&stat))
}

/// Opens a regular file for reading.
pub(in crate::local) fn open(root: &Path, path: &RemotePath) -> io::Result<File> {
    let (directory, name) = parent(root, path, false)?;
    // A pipe must not keep us waiting for a writer.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&directory, name, flags, Mode::empty())?);
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
    let (directory, name) = parent(root, path, false)?;
    Ok(rustix::fs::unlinkat(&directory, name, AtFlags::empty())?)
}

/// Renames, making the directories that `to` needs.
pub(in crate::local) fn rename(
    root: &Path,
    from: &RemotePath,
    to: &RemotePath,
    replace: bool,
) -> io::Result<()> {
    let (old, old_name) = parent(root, from, false)?;
    // Nothing is made for a file that is not there.
    rustix::fs::statat(&old, old_name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (new, new_name) = parent(root, to, true)?;
    if replace {
        return Ok(rustix::fs::renameat(&old, old_name, &new, new_name)?);
    }
    #[cfg(target_os = "linux")]
    {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&old, old_name, &new, new_name, flags) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            result => return Ok(result?),
        }
    }
    // A second name fails where one is taken, which a rename would replace.
    rustix::fs::linkat(&old, old_name, &new, new_name, AtFlags::empty())?;
    Ok(rustix::fs::unlinkat(&old, old_name, AtFlags::empty())?)
}

/// The directory that `path` is in, and its name there.
fn parent<'a>(root: &Path, path: &'a RemotePath, make: bool) -> io::Result<(OwnedFd, &'a [u8])> {
    local_path(path).ok_or_else(|| not_below(path))?;
    let bytes = path.as_bytes();
    let (directory, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (bytes.get(..slash), bytes.get(slash + 1..)),
        None => (Some(&b""[..]), Some(bytes)),
    };
    let (Some(directory), Some(name)) = (directory, name) else {
        return Err(not_below(path));
    };
    if name.is_empty() {
        return Err(not_below(path));
    }
    Ok((
        directory_at(root, &RemotePath::from(directory), make)?,
        name,
    ))
}

fn directory_at(root: &Path, path: &RemotePath, make: bool) -> io::Result<OwnedFd> {
    local_path(path).ok_or_else(|| not_below(path))?;
    let mut fd = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    for name in path
        .as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
    {
        let next = rustix::fs::openat(&fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        fd = match next {
            Err(Errno::NOENT) if make => {
                match rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                rustix::fs::openat(&fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?
            }
            next => next?,
        };
    }
    Ok(fd)
}

fn attrs(stat: &Stat) -> Attrs {
    #[allow(
        clippy::unnecessary_fallible_conversions,
        clippy::useless_conversion,
        reason = "as wide as the system has them"
    )]
    attrs_of(
        u32::try_from(stat.st_mode).unwrap_or_default(),
        u64::try_from(stat.st_size).unwrap_or_default(),
        u64::try_from(stat.st_mtime).unwrap_or_default(),
    )
}
