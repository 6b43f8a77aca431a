//! An open file: positioned reads and writes, of which the reads never wait for the disk.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags};

use super::attributes;
use crate::fs::{Answer, Block, File, FileCall, Work, blocking};

/// Whether the file system under a root can say that a read would wait (`RWF_NOWAIT`); one that
/// cannot is read all the same, and the session measures how long that takes.
#[derive(Debug, Default)]
pub(super) struct NoWait {
    is_missing: AtomicBool,
}

/// A regular file.
#[derive(Debug)]
pub(super) struct OpenedFile {
    fd: OwnedFd,
    identity: (u64, u64),
    nowait: Arc<NoWait>,
}

impl OpenedFile {
    /// Takes an open descriptor if it is one of a regular file.
    pub(super) fn new(fd: OwnedFd, nowait: &Arc<NoWait>) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        #[allow(clippy::useless_conversion, reason = "32 bits on some architectures")]
        let identity = (u64::from(stat.st_dev), u64::from(stat.st_ino));
        Ok(Self {
            fd,
            identity,
            nowait: Arc::clone(nowait),
        })
    }

    fn perform(&self, call: &FileCall) -> io::Result<Answer> {
        match call {
            FileCall::Metadata => Ok(Answer::Metadata(attributes::from_stat(&rustix::fs::fstat(
                &self.fd,
            )?))),
            FileCall::Change(change) => {
                attributes::change_open(self.fd.as_fd(), change)?;
                Ok(Answer::Done)
            }
            FileCall::Sync => {
                rustix::fs::fsync(&self.fd)?;
                Ok(Answer::Done)
            }
            FileCall::Claim => {
                // Where there are no locks, nobody takes it for abandoned either.
                let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
                let _ = rustix::fs::flock(&self.fd, lock);
                Ok(Answer::Done)
            }
            FileCall::Publish => Ok(Answer::Done),
            FileCall::Space => Ok(Answer::Space(attributes::space(&rustix::fs::fstatvfs(
                &self.fd,
            )?))),
        }
    }
}

impl File for OpenedFile {
    fn try_read_at(&self, offset: u64, slots: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.nowait.is_missing.load(Ordering::Relaxed) {
            return Ok(rustix::io::preadv(&self.fd, slots, offset)?);
        }
        let got = match rustix::io::preadv2(&self.fd, slots, offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.nowait.is_missing.store(true, Ordering::Relaxed);
                return Ok(rustix::io::preadv(&self.fd, slots, offset)?);
            }
            result => result?,
        };
        let wanted: usize = slots.iter().map(|slot| slot.len()).sum();
        if got > 0 && got < wanted {
            // The end of the file, or of what is in the page cache: only the former may be a
            // short answer, for clients take it to mean that this server reads no more at once.
            let end = attributes::from_stat(&rustix::fs::fstat(&self.fd)?).size;
            if offset.saturating_add(got as u64) < end {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(got)
    }

    fn try_write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match rustix::io::pwritev(&self.fd, slices, offset)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    fn try_call(&self, call: &FileCall) -> io::Result<Answer> {
        match call {
            FileCall::Sync => Err(io::ErrorKind::WouldBlock.into()),
            _ => self.perform(call),
        }
    }

    fn read_at(self: Arc<Self>, offset: u64, mut block: Block) -> Work<Block> {
        blocking(move || {
            let space = block.space();
            let mut filled = 0;
            while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match rustix::io::pread(&self.fd, rest, offset.saturating_add(filled as u64)) {
                    Ok(0) => break,
                    Ok(got) => filled += got,
                    Err(Errno::INTR) => {}
                    // What was read before is an answer; the error comes with the next read.
                    Err(_) if filled > 0 => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
            block.set_filled(filled);
            Ok(block)
        })
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        blocking(move || {
            let mut written = 0;
            while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
                match rustix::io::pwrite(&self.fd, rest, offset.saturating_add(written as u64)) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(more) => written += more,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Ok(())
        })
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        blocking(move || self.perform(&call))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        Some(self.identity)
    }
}
