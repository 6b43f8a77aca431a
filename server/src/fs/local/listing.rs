//! A directory being read: as many entries as a batch takes, each with one `fstatat`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::attributes;
use crate::fs::{Batch, Directory, DirectoryEntry, Work, blocking};

/// A stream of names, never the whole directory.
#[derive(Debug)]
pub(super) struct Listing {
    dir: Dir,
}

impl Listing {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { dir: Dir::new(fd)? })
    }
}

impl Directory for Listing {
    fn try_read(&mut self, batch: &mut Batch) -> io::Result<()> {
        while !batch.is_full() {
            let Some(entry) = self.dir.read() else { break };
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::statat(self.dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let metadata = attributes::from_stat(&stat);
                    batch.push(DirectoryEntry::new(name.to_bytes().to_vec(), metadata));
                }
                Err(Errno::NOENT) => {} // gone since the directory was read
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn read(mut self: Box<Self>, mut batch: Batch) -> Work<(Box<dyn Directory>, Batch)> {
        blocking(move || {
            self.try_read(&mut batch)?;
            Ok((self as Box<dyn Directory>, batch))
        })
    }
}
