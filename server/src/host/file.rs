//! An open file of this machine, of whatever kind.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

use crate::fs::local::attributes;
use crate::fs::{Answer, Block, Change, File, FileCall, Work};

/// Reads and writes it in place; a device or a FIFO says at once that it cannot be read so.
#[derive(Debug)]
pub(super) struct HostFile {
    fd: OwnedFd,
    identity: (u64, u64),
}

impl HostFile {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        #[allow(clippy::useless_conversion, reason = "32 bits on some architectures")]
        let identity = (u64::from(stat.st_dev), u64::from(stat.st_ino));
        Ok(Self { fd, identity })
    }

    fn perform(&self, call: &FileCall) -> io::Result<Answer> {
        match call {
            FileCall::Metadata => {
                let stat = rustix::fs::fstat(&self.fd)?;
                Ok(Answer::Metadata(attributes::from_stat(&stat)))
            }
            FileCall::Change(change) => {
                self.change(change)?;
                Ok(Answer::Done)
            }
            FileCall::Sync => {
                rustix::fs::fsync(&self.fd)?;
                Ok(Answer::Done)
            }
            FileCall::Claim | FileCall::Publish => Ok(Answer::Done),
            FileCall::Space => {
                let space = rustix::fs::fstatvfs(&self.fd)?;
                Ok(Answer::Space(attributes::space(&space)))
            }
        }
    }

    fn change(&self, change: &Change) -> io::Result<()> {
        if let Some(size) = change.size {
            rustix::fs::ftruncate(&self.fd, size)?;
        }
        // The owner first: giving a file away takes its setuid bit.
        if let Some((uid, gid)) = change.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&self.fd, Some(uid), Some(gid))?;
        }
        if let Some(mode) = change.mode {
            rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))?;
        }
        if let Some(times) = change.times {
            rustix::fs::futimens(&self.fd, &attributes::timestamps(times))?;
        }
        Ok(())
    }
}

impl File for HostFile {
    fn try_read_at(&self, offset: u64, slots: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match slots {
            [slot] => read(&self.fd, offset, slot).map_err(certain),
            slots => Ok(rustix::io::preadv(&self.fd, slots, offset)?),
        }
    }

    fn try_write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match slices {
            [slice] => rustix::io::pwrite(&self.fd, slice, offset),
            slices => rustix::io::pwritev(&self.fd, slices, offset),
        };
        match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => Ok(written),
            Err(errno) => Err(certain(errno)),
        }
    }

    fn try_call(&self, call: &FileCall) -> io::Result<Answer> {
        self.perform(call)
    }

    fn read_at(self: Arc<Self>, offset: u64, mut block: Block) -> Work<Block> {
        let result = read(&self.fd, offset, block.space());
        Box::pin(std::future::ready(result.map_err(certain).map(|filled| {
            block.set_filled(filled);
            block
        })))
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        let mut written = 0;
        let result = loop {
            let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) else {
                break Ok(());
            };
            match rustix::io::pwrite(&self.fd, rest, offset.saturating_add(written as u64)) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                Err(errno) => break Err(certain(errno)),
            }
        };
        Box::pin(std::future::ready(result))
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        Box::pin(std::future::ready(self.perform(&call)))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        Some(self.identity)
    }
}

/// Reads once: a file gives all that it has, whatever else gives what is there now.
fn read(fd: &OwnedFd, offset: u64, space: &mut [u8]) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut *space, offset))
}

/// `EAGAIN` is an answer here: nobody is to try it again on a thread.
fn certain(errno: Errno) -> io::Error {
    match errno {
        Errno::AGAIN => io::ErrorKind::ResourceBusy.into(),
        errno => errno.into(),
    }
}
