//! Giving files other names.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::beneath::Root;
use crate::fs::Target;
use crate::path::VPath;

/// Renames in one step.
pub(super) fn rename(root: &Root, from: &VPath, to: &VPath, target: Target) -> io::Result<()> {
    let (from_parent, from_name) = root.parent(from)?;
    let (other, to_name);
    // Mostly a temporary name becomes the right one: both stand in one directory.
    let to_parent = if from.split_beneath().map(|it| it.0) == to.split_beneath().map(|it| it.0) {
        to_name = to.split_beneath().map(|it| it.1).unwrap_or_default();
        &from_parent
    } else {
        (other, to_name) = root.parent(to)?;
        &other
    };
    rename_at((&from_parent, from_name), (to_parent, to_name), target)
}

/// Renames in one step; each name is looked up from the directory beside it.
pub(crate) fn rename_at<F: AsFd, T: AsFd>(
    (from_parent, from_name): (&F, &[u8]),
    (to_parent, to_name): (&T, &[u8]),
    target: Target,
) -> io::Result<()> {
    match target {
        Target::MayExist => Ok(rustix::fs::renameat(
            from_parent,
            from_name,
            to_parent,
            to_name,
        )?),
        Target::MustNotExist => {
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(from_parent, from_name, to_parent, to_name, flags) {
                // The file system does not know the flag: make the name first, which fails if
                // it exists, then take the old one away.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                result => return Ok(result?),
            }
            let stat = rustix::fs::statat(from_parent, from_name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                // Directories cannot be linked; an empty one that is ours may be replaced.
                rustix::fs::mkdirat(to_parent, to_name, Mode::from_raw_mode(0o700))?;
                return rustix::fs::renameat(from_parent, from_name, to_parent, to_name).map_err(
                    |errno| {
                        let _ = rustix::fs::unlinkat(to_parent, to_name, AtFlags::REMOVEDIR);
                        errno.into()
                    },
                );
            }
            rustix::fs::linkat(from_parent, from_name, to_parent, to_name, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(
                from_parent,
                from_name,
                AtFlags::empty(),
            )?)
        }
    }
}

/// Makes one more name for a regular file; a link is not followed and not linked.
pub(super) fn hard_link(root: &Root, from: &VPath, to: &VPath) -> io::Result<()> {
    let (from_parent, from_name) = root.parent(from)?;
    let (to_parent, to_name) = root.parent(to)?;
    let stat = rustix::fs::statat(&from_parent, from_name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(rustix::fs::linkat(
        from_parent,
        from_name,
        to_parent,
        to_name,
        AtFlags::empty(),
    )?)
}
