//! Files in memory.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::sync::{Arc, Mutex};

use ketch_protocol::StatVfs;

use super::locked;
use super::watchers::Watchers;
use crate::fs::feed::FeedEvent;
use crate::fs::{Answer, Block, Change, File, FileCall, Metadata, TYPE_FILE, Work};
use crate::path::{COMPONENT_LEN_MAX, VPath};

/// Longest that a file may grow, in bytes: a write far behind the end would take all memory.
pub const MEMORY_FILE_LEN_MAX: u64 = 1 << 30;
#[derive(Debug)]
pub(super) struct MemoryFile {
    pub(super) state: Mutex<FileState>,
}

#[derive(Debug)]
pub(super) struct FileState {
    pub(super) bytes: Vec<u8>,
    mode: u32,
    times: (u32, u32),
    pub(super) links: u64,
    /// Somebody has it open to write, and nobody else may.
    pub(super) is_taken: bool,
}

/// A file as it was opened.
#[derive(Debug)]
pub(super) struct OpenedMemory {
    pub(super) file: Arc<MemoryFile>,
    pub(super) appends: bool,
    /// If it may be written: the name it was opened by, and who is told.
    pub(super) watched: Option<(VPath, Arc<Watchers>)>,
    /// It is this one that has it.
    pub(super) takes: bool,
}

impl MemoryFile {
    pub(super) fn new(mode: u32, bytes: Vec<u8>) -> Self {
        Self {
            state: Mutex::new(FileState {
                bytes,
                mode,
                times: (0, 0),
                links: 1,
                is_taken: false,
            }),
        }
    }
}

impl FileState {
    pub(super) fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::new(TYPE_FILE | self.mode);
        metadata.size = self.bytes.len() as u64;
        (metadata.accessed, metadata.modified) = self.times;
        metadata.links = self.links;
        metadata
    }

    pub(super) fn change(&mut self, change: &Change) -> io::Result<()> {
        if let Some(size) = change.size {
            self.bytes.resize(length(size)?, 0);
        }
        self.mode = change.mode.map_or(self.mode, |mode| mode & 0o777);
        self.times = change.times.unwrap_or(self.times);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = length(offset)?;
        let end = length(offset.saturating_add(bytes.len() as u64))?;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(start..end) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }
}

/// A length or offset that a file in memory can have.
fn length(bytes: u64) -> io::Result<usize> {
    match usize::try_from(bytes) {
        Ok(len) if bytes <= MEMORY_FILE_LEN_MAX => Ok(len),
        _ => Err(ErrorKind::FileTooLarge.into()),
    }
}

impl OpenedMemory {
    fn tell(&self, event: impl FnOnce(VPath) -> FeedEvent) {
        if let Some((path, watchers)) = &self.watched {
            watchers.tell_with(|| vec![event(path.clone())]);
        }
    }

    fn perform(&self, call: &FileCall) -> io::Result<Answer> {
        let mut state = locked(&self.file.state);
        match call {
            FileCall::Metadata => Ok(Answer::Metadata(state.metadata())),
            FileCall::Change(change) => state.change(change).map(|()| Answer::Done),
            FileCall::Sync | FileCall::Claim | FileCall::Publish => Ok(Answer::Done),
            FileCall::Space => Ok(Answer::Space(space())),
        }
    }
}

impl Drop for OpenedMemory {
    fn drop(&mut self) {
        self.tell(|path| FeedEvent::Written { path });
        if self.takes {
            locked(&self.file.state).is_taken = false;
        }
    }
}

impl File for OpenedMemory {
    fn try_read_at(&self, offset: u64, slots: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let state = locked(&self.file.state);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = state.bytes.get(start..).unwrap_or_default();
        let there = rest.len();
        for slot in slots {
            let (now, later) = rest.split_at(slot.len().min(rest.len()));
            if let Some(place) = slot.get_mut(..now.len()) {
                place.copy_from_slice(now);
            }
            rest = later;
        }
        Ok(there - rest.len())
    }

    fn try_write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = locked(&self.file.state);
        let mut at = if self.appends {
            state.bytes.len() as u64
        } else {
            offset
        };
        let mut written = 0;
        for slice in slices {
            state.write(at, slice)?;
            at = at.saturating_add(slice.len() as u64);
            written += slice.len();
        }
        drop(state);
        self.tell(|path| FeedEvent::Modified { path });
        Ok(written)
    }

    fn try_call(&self, call: &FileCall) -> io::Result<Answer> {
        self.perform(call)
    }

    fn read_at(self: Arc<Self>, offset: u64, mut block: Block) -> Work<Block> {
        Box::pin(async move {
            let filled = self.try_read_at(offset, &mut [IoSliceMut::new(block.space())])?;
            block.set_filled(filled);
            Ok(block)
        })
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        Box::pin(async move { self.try_write_at(offset, &[IoSlice::new(&bytes)]).map(drop) })
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        Box::pin(async move { self.perform(&call) })
    }

    fn identity(&self) -> Option<(u64, u64)> {
        Some((0, Arc::as_ptr(&self.file).addr() as u64))
    }
}

pub(super) fn space() -> StatVfs {
    StatVfs {
        block_size: 4096,
        fragment_size: 4096,
        name_max: COMPONENT_LEN_MAX as u64,
        ..StatVfs::default()
    }
}
