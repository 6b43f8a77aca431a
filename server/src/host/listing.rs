//! A directory being read, with `.` and `..` and the names of owners, as sftp-server(8) lists it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::accounts;
use crate::fs::local::attributes;
use crate::fs::{Batch, Directory, DirectoryEntry, Work};

/// A stream of names, never the whole directory.
#[derive(Debug)]
pub(super) struct HostListing {
    dir: Dir,
}

impl HostListing {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { dir: Dir::new(fd)? })
    }
}

impl Directory for HostListing {
    fn try_read(&mut self, batch: &mut Batch) -> io::Result<()> {
        while !batch.is_full() {
            let Some(entry) = self.dir.read() else { break };
            let entry = entry?;
            let name = entry.file_name();
            match rustix::fs::statat(self.dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let metadata = attributes::from_stat(&stat);
                    let owners = batch.owners();
                    owners.know_user(metadata.uid, accounts::user_name);
                    owners.know_group(metadata.gid, accounts::group_name);
                    batch.push(DirectoryEntry::new(name.to_bytes().to_vec(), metadata));
                }
                Err(Errno::NOENT) => {} // gone since the directory was read
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn read(mut self: Box<Self>, mut batch: Batch) -> Work<(Box<dyn Directory>, Batch)> {
        let result = self.try_read(&mut batch);
        let result = result.map(|()| (self as Box<dyn Directory>, batch));
        Box::pin(std::future::ready(result))
    }
}
