//! The data of an upload: from the page cache straight into the outgoing packet, or by way of a
//! block that a thread has read.

use std::{
    io::{self, IoSliceMut},
    sync::Arc,
};

use super::{From, PutFile, State};
use crate::{
    platform,
    requests::{job::Cx, slots::Key},
    transfer::{
        disk::{Done, HELD_MAX},
        error::TransferError,
        local::{LocalAction, LocalFault, Opened},
        put::{Item, Put},
        ranges::Span,
        upload::Step,
    },
};

/// Bytes that a thread reads at a time.
const BLOCK_LEN: usize = 1024 * 1024;

/// Data that a thread has read.
pub(super) struct Block {
    pub offset: u64,
    pub bytes: Vec<u8>,
    /// The source ends behind it.
    pub at_end: bool,
}

/// What came of sending a piece of a file.
pub(crate) enum Sending {
    Sent,
    /// This file has nothing to send now.
    Nothing,
    /// There is no room for it.
    NoRoom,
}

impl Put {
    /// Sends one WRITE of a file, if it has data.
    pub(in crate::transfer::put) fn write_once(&mut self, key: Key, cx: &mut Cx<'_>) -> Sending {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return Sending::Nothing;
        };
        let sent = file.send(key, cx);
        let skipped = std::mem::take(&mut file.skipped);
        self.plan.progress.add_bytes(skipped);
        match sent {
            Ok(Next::Did(sending)) => sending,
            Ok(Next::NeedsBlock { offset, len }) => {
                self.read_block(key, offset, len, cx);
                Sending::Nothing
            }
            Err(error) => {
                self.fail_file(key, error, cx);
                Sending::Nothing
            }
        }
    }

    /// Has a thread read a block, unless blocks hold enough already.
    fn read_block(&mut self, key: Key, offset: u64, len: usize, cx: &mut Cx<'_>) {
        let held: usize = self.files().map(PutFile::held).sum();
        if held > 0 && held.saturating_add(len) > HELD_MAX {
            return;
        }
        if let Some(Item::File(file)) = self.items.get_mut(key) {
            file.read_block(key, offset, len, cx);
            self.at_disk += 1;
        }
    }
}

enum Next {
    Did(Sending),
    /// A thread has to read.
    NeedsBlock {
        offset: u64,
        len: usize,
    },
}

impl PutFile {
    /// Bytes of blocks that this file has or will have.
    fn held(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.bytes.len()) + self.reading
    }

    fn send(&mut self, key: Key, cx: &mut Cx<'_>) -> Result<Next, TransferError> {
        if self.state != State::Writing || self.reading > 0 {
            return Ok(Next::Did(Sending::Nothing));
        }
        let handle_len = self.handle.as_ref().map_or(0, |handle| handle.len());
        if let Some(upload) = &mut self.upload {
            upload.allow(cx.core.write_len(handle_len, cx.link));
        }
        let span = loop {
            let Some(upload) = &mut self.upload else {
                return Ok(Next::Did(Sending::Nothing));
            };
            match upload.poll() {
                Step::Write(span) => {
                    let hole = self
                        .opened
                        .as_ref()
                        .and_then(|opened| opened.hole_at(span.offset));
                    match hole {
                        Some(end) if self.leaves_holes => {
                            if let Some(front) = &mut self.front {
                                let len = u32::try_from(end - span.offset).unwrap_or(u32::MAX);
                                let offset = span.offset;
                                front.add(Span { offset, len });
                            }
                            self.skipped = self.skipped.saturating_add(upload.skip(end));
                            self.gap_at.get_or_insert(end);
                        }
                        _ => break span,
                    }
                }
                Step::Starved | Step::Sent | Step::Done { .. } => {
                    let Some(range) = self.hold.deal() else {
                        return Ok(Next::Did(Sending::Nothing));
                    };
                    upload.deal(range);
                }
                Step::Failed(_) => return Ok(Next::Did(Sending::Nothing)),
            }
        };
        let front = self.front.as_ref();
        if front.is_some_and(|front| !front.admits(span.end())) {
            return Ok(Next::Did(Sending::Nothing));
        }
        let ready = self
            .block
            .as_ref()
            .is_some_and(|block| block.has(span.offset));
        if ready {
            return self.send_block(key, span, cx);
        }
        self.block = None;
        if let (From::File(_), Some(opened)) = (&self.from, &self.opened)
            && opened.speed.is_quick()
        {
            let speed = &opened.speed;
            let mut result = Ok(0);
            let mut read = |slots: &mut [IoSliceMut<'_>]| {
                result = speed.measure(|| read_cached(opened, slots, span.offset));
                *result.as_ref().unwrap_or(&0)
            };
            let Some(handle) = &self.handle else {
                return Ok(Next::Did(Sending::Nothing));
            };
            let Some(sent) = cx.write(key, handle, span.offset, &mut read, span.len as usize)
            else {
                return Ok(Next::Did(Sending::NoRoom));
            };
            match result {
                Ok(_) => return self.on_sent(span, sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => {
                    let (action, path) = (LocalAction::Read, opened.path.clone());
                    return Err(LocalFault {
                        action,
                        path,
                        source,
                    }
                    .into());
                }
            }
        }
        // Not in memory, or not to be trusted: a thread reads it.
        let left = self
            .announced()
            .map_or(u64::MAX, |size| size.saturating_sub(span.offset) + 1);
        let len = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .clamp(span.len as usize, BLOCK_LEN);
        let offset = span.offset;
        Ok(Next::NeedsBlock { offset, len })
    }

    fn read_block(&mut self, key: Key, offset: u64, len: usize, cx: &mut Cx<'_>) {
        self.reading = len;
        match (&self.from, &self.opened) {
            (From::Source(source, _), _) => {
                let (source, path) = (Arc::clone(source), self.path.to_string());
                cx.core.disk.run_on_thread((cx.job, key), len, move || {
                    let read = |bytes: &mut [u8], at| source.read_at(at, bytes);
                    let fault = |source| LocalFault {
                        action: LocalAction::Read,
                        path: path.into(),
                        source,
                    };
                    Done::Read {
                        offset,
                        result: read_whole(len, offset, read).map_err(fault),
                    }
                });
            }
            (From::File(_), Some(opened)) => {
                let (file, path) = (Arc::clone(&opened.file), opened.path.clone());
                let speed = Arc::clone(&opened.speed);
                cx.core.disk.run_on_thread((cx.job, key), len, move || {
                    let read = |bytes: &mut [u8], at| {
                        platform::read_slots(&file, &mut [IoSliceMut::new(bytes)], at, None, false)
                    };
                    let result = speed.measure(|| read_whole(len, offset, read));
                    let fault = |source| LocalFault {
                        action: LocalAction::Read,
                        path,
                        source,
                    };
                    Done::Read {
                        offset,
                        result: result.map_err(fault),
                    }
                });
            }
            (From::File(_), None) => {}
        }
    }

    /// Sends from a block that a thread has read.
    fn send_block(&mut self, key: Key, span: Span, cx: &mut Cx<'_>) -> Result<Next, TransferError> {
        let (Some(block), Some(handle)) = (&self.block, &self.handle) else {
            return Ok(Next::Did(Sending::Nothing));
        };
        let bytes = block.from(span.offset);
        let len = bytes.len().min(span.len as usize);
        // The source goes on behind the block: what is there is a shorter piece, not the end.
        let span = if block.at_end {
            span
        } else {
            Span {
                offset: span.offset,
                len: u32::try_from(len).unwrap_or(span.len),
            }
        };
        if len == 0 {
            return self.on_sent(span, 0);
        }
        let mut rest = bytes.get(..len).unwrap_or_default();
        let mut copy = |slots: &mut [IoSliceMut<'_>]| {
            let mut copied = 0;
            for slot in slots {
                let piece = rest.len().min(slot.len());
                let (now, later) = rest.split_at(piece);
                if let Some(slot) = slot.get_mut(..piece) {
                    slot.copy_from_slice(now);
                }
                rest = later;
                copied += piece;
            }
            copied
        };
        match cx.write(key, handle, span.offset, &mut copy, len) {
            Some(sent) => self.on_sent(span, sent),
            None => Ok(Next::Did(Sending::NoRoom)),
        }
    }

    fn on_sent(&mut self, span: Span, sent: usize) -> Result<Next, TransferError> {
        let Some(upload) = &mut self.upload else {
            return Ok(Next::Did(Sending::Nothing));
        };
        let got = u32::try_from(sent).unwrap_or(span.len);
        if let Err(source) = upload.on_sent(span, got) {
            self.is_spoilt = true;
            let path = match &self.from {
                From::File(source) => source.path(),
                From::Source(..) => self.path.to_string().into(),
            };
            return Err(TransferError::Changed { path, source });
        }
        if upload.has_outgrown() || upload.end().is_some() {
            self.hold.learn(upload.has_outgrown(), upload.end());
        }
        Ok(Next::Did(if sent > 0 {
            Sending::Sent
        } else {
            Sending::Nothing
        }))
    }
}

impl Block {
    /// Whether the block says what is at `offset`: data, or that the source ends there.
    fn has(&self, offset: u64) -> bool {
        let end = self.offset.saturating_add(self.bytes.len() as u64);
        self.offset <= offset && (offset < end || self.at_end && offset == end)
    }

    /// The data from `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        let skip = usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        self.bytes.get(skip..).unwrap_or_default()
    }
}

/// Reads what is in memory; where nobody can tell, what is there.
fn read_cached(opened: &Opened, slots: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
    let (file, speed, end) = (&opened.file, &opened.speed, Some(opened.size));
    if speed.knows_cache() {
        match platform::read_slots(file, slots, offset, end, true) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => speed.set_blind(),
            result => return result,
        }
    }
    platform::read_slots(file, slots, offset, end, false)
}

/// Reads `len` bytes, or up to the end.
fn read_whole(
    len: usize,
    offset: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            // A source that says more than fits is not believed.
            Ok(n) => filled += n.min(rest.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
