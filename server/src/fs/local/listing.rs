//! A directory being read: as many entries as a batch takes, each with one `fstatat`.
//!
//! A directory that one batch does not hold is read ahead, on a thread: while some batches are
//! told to the client the next are made. What is ahead is bounded by [`AHEAD`], and nothing is
//! under way for a handle whose client asks for nothing.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::attributes;
use crate::fs::{Batch, Directory, DirectoryEntry, Work};

/// Batches that are made in one go on a thread, and wait.
const AHEAD: usize = 4;

/// A stream of names, never the whole directory.
#[derive(Debug)]
pub(super) struct Listing {
    reader: Reader,
    /// Read, and not asked for yet; in the end an empty one or an error.
    ready: VecDeque<io::Result<Batch>>,
}

/// Where the directory itself is.
#[derive(Debug)]
enum Reader {
    /// Nothing was read yet, or the last was all that a batch took.
    Here(Dir),
    /// On a thread.
    Away(oneshot::Receiver<Read>),
    /// There is nothing more, or an error came.
    Over,
}

/// What a thread brings back.
#[derive(Debug)]
struct Read {
    dir: Option<Dir>,
    batches: VecDeque<io::Result<Batch>>,
}

impl Listing {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            reader: Reader::Here(Dir::new(fd)?),
            ready: VecDeque::new(),
        })
    }

    /// Sends the directory to a thread for what comes next.
    fn read_ahead(&mut self) {
        self.reader = match std::mem::replace(&mut self.reader, Reader::Over) {
            Reader::Here(dir) => {
                let (done, waiting) = oneshot::channel();
                // Nobody waits any more once the handle is closed.
                drop(tokio::task::spawn_blocking(move || {
                    let _ = done.send(Read::go_on(dir));
                }));
                Reader::Away(waiting)
            }
            other => other,
        };
    }

    /// Puts the next batch into `batch`, if it is here; and sees to those behind it.
    fn take(&mut self, batch: &mut Batch) -> Option<io::Result<()>> {
        let next = self.ready.pop_front()?;
        if self.ready.len() < AHEAD / 2 {
            self.read_ahead();
        }
        Some(next.map(|next| *batch = next))
    }

    fn arrived(&mut self, read: Read) {
        self.reader = read.dir.map_or(Reader::Over, Reader::Here);
        self.ready.extend(read.batches);
    }
}

impl Read {
    /// Makes up to [`AHEAD`] batches, fewer at the end.
    fn go_on(mut dir: Dir) -> Self {
        let mut batches = VecDeque::new();
        while batches.len() < AHEAD {
            let mut batch = Batch::default();
            let result = fill(&mut dir, &mut batch);
            let is_over = result.is_err() || !batch.is_full();
            // Entries before an error are an answer; the error comes after them.
            if !batch.entries().is_empty() {
                batches.push_back(Ok(batch));
            }
            batches.extend(result.err().map(Err));
            if is_over {
                return Self { dir: None, batches };
            }
        }
        let dir = Some(dir);
        Self { dir, batches }
    }
}

/// Reads until the batch is full or the directory at its end.
fn fill(dir: &mut Dir, batch: &mut Batch) -> io::Result<()> {
    while !batch.is_full() {
        let Some(entry) = dir.read() else { break };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
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

impl Directory for Listing {
    fn try_read(&mut self, batch: &mut Batch) -> io::Result<()> {
        if let Some(result) = self.take(batch) {
            return result;
        }
        match &mut self.reader {
            // The first batch is mostly all there is.
            Reader::Here(dir) => {
                let result = fill(dir, batch);
                if result.is_err() || !batch.is_full() {
                    self.reader = Reader::Over;
                } else {
                    self.read_ahead();
                }
                result
            }
            Reader::Away(waiting) => match waiting.try_recv() {
                Ok(read) => {
                    self.arrived(read);
                    self.take(batch).unwrap_or(Ok(()))
                }
                Err(oneshot::error::TryRecvError::Empty) => Err(io::ErrorKind::WouldBlock.into()),
                Err(oneshot::error::TryRecvError::Closed) => Err(thread_is_gone()),
            },
            Reader::Over => Ok(()),
        }
    }

    fn read(mut self: Box<Self>, mut batch: Batch) -> Work<(Box<dyn Directory>, Batch)> {
        Box::pin(async move {
            if self.ready.is_empty() {
                self.read_ahead();
                if let Reader::Away(waiting) = &mut self.reader {
                    let read = waiting.await.map_err(|_| thread_is_gone())?;
                    self.arrived(read);
                }
            }
            self.take(&mut batch).unwrap_or(Ok(()))?;
            Ok((self as Box<dyn Directory>, batch))
        })
    }
}

fn thread_is_gone() -> io::Error {
    io::Error::other("the thread that read the directory is gone")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fs::BATCH_ENTRIES_MAX;

    fn open(entries: usize) -> (tempfile::TempDir, Listing) {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..entries {
            std::fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        let fd = std::fs::File::open(dir.path()).unwrap();
        (dir, Listing::new(fd.into()).unwrap())
    }

    /// By both tiers, as a session asks.
    async fn all(mut listing: Listing) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let mut directory: Box<dyn Directory> = Box::new(listing_of(&mut listing));
        loop {
            let mut batch = Batch::default();
            match directory.try_read(&mut batch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (directory, batch) = directory.read(batch).await.unwrap();
                }
                result => result.unwrap(),
            }
            if batch.entries().is_empty() {
                return names;
            }
            names.extend(batch.entries().iter().map(|entry| entry.name.clone()));
        }
    }

    fn listing_of(listing: &mut Listing) -> Listing {
        std::mem::replace(
            listing,
            Listing {
                reader: Reader::Over,
                ready: VecDeque::new(),
            },
        )
    }

    #[tokio::test]
    async fn every_entry_comes_once_whatever_is_ahead() {
        let full = BATCH_ENTRIES_MAX;
        for count in [0, 1, full - 1, full, full + 1, 5 * full, 9 * full + 3] {
            let (_dir, listing) = open(count);
            let names = all(listing).await;
            assert_eq!(names.len(), count);
            assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), count);
        }
    }

    #[tokio::test]
    async fn what_is_ahead_is_bounded_and_nothing_goes_on_unasked() {
        let (_dir, mut listing) = open(40 * BATCH_ENTRIES_MAX);
        let mut batch = Batch::default();
        listing.try_read(&mut batch).unwrap();
        for _ in 0..10 {
            let Reader::Away(waiting) = &mut listing.reader else {
                break;
            };
            let read = waiting.await.unwrap();
            assert!(read.batches.len() <= AHEAD);
            listing.arrived(read);
            assert!(listing.ready.len() <= AHEAD);
            assert!(matches!(listing.reader, Reader::Here(_)));
            listing.take(&mut batch).unwrap().unwrap();
        }
        assert!(listing.ready.len() <= AHEAD);
    }
}
