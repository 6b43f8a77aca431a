//! Answering `READ`: a byte goes from the page cache into its outgoing packet, and nowhere else.

use std::io;
use std::sync::Arc;

use ketch_protocol::{DATA_HEADER_LEN, Data};

use super::cold::Completion;
use super::jobs::would_block;
use super::{Engine, Host, Outlet, deliver};
use crate::fs::Block;
use crate::refusal::Refusal;
use crate::session::ReadJob;
use crate::shares::Kind;

/// Blocks that are kept to be used again.
const BLOCKS_KEPT: usize = 2;

impl<H: Host> Engine<H> {
    /// Answers reads as far as there is room; says whether any was.
    ///
    /// A `DATA` reply leaves between other replies, never inside one: it waits until all of those
    /// that arose before it are handed over.
    pub(super) fn answer_reads(&mut self, out: &mut impl Outlet) -> bool {
        let mut progress = false;
        loop {
            self.flush(out);
            if !self.session.replies.unsent().is_empty() {
                return progress;
            }
            if !self.cold.is_empty() {
                if out.holds_data() || !self.send_cold(out) {
                    return progress;
                }
                progress = true;
                continue;
            }
            let Some((read, file)) = self.session.next_read() else {
                return progress;
            };
            let result = if self.root.pace.is_slow() {
                Some(Err(io::ErrorKind::WouldBlock.into()))
            } else {
                out.data(read.id, read.len, &mut |slots| {
                    self.timed(|_| file.try_read_at(read.offset, slots))
                })
            };
            match result {
                None => return progress,
                Some(Err(error)) if would_block(&error) => {
                    // A block for each that is under way or waits to leave: that is the bound.
                    let waiting = self.cold.len();
                    if self.threads.may_start(Some(read.slot), false, waiting) {
                        self.read_cold(read);
                    } else if self.threads.of(Some(read.slot)) > 0 {
                        // Reads of other files do not wait for those of this one.
                        self.session.hold_read();
                    } else {
                        return progress;
                    }
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Some(result) => {
                    self.session.take_read();
                    self.session.read_done(read, outcome(result));
                }
            }
            progress = true;
        }
    }

    /// Hands the read that is next to a thread, with a block of its own.
    fn read_cold(&mut self, read: ReadJob) {
        let Some((_, file)) = self.session.next_read() else {
            return;
        };
        let file = Arc::clone(file);
        self.session.take_read();
        self.threads.start(Some(read.slot), false);
        let old = self.blocks.pop().unwrap_or_default();
        let len = usize::try_from(read.len).unwrap_or_default();
        let work = file.read_at(read.offset, Block::renew(old, DATA_HEADER_LEN, len));
        let since = Some(self.host.now());
        let done = move |result| Completion::Read { read, result };
        self.host.spawn(
            Kind::Short,
            deliver(work, Arc::clone(&self.mailbox), since, done),
        );
    }

    /// Sends a block that came back from a thread, if there is space for it.
    fn send_cold(&mut self, out: &mut impl Outlet) -> bool {
        let Some((read, result)) = self.cold.pop_front() else {
            return false;
        };
        let mut block = match result {
            Ok(block) => block,
            Err(error) => {
                self.session.read_done(read, Err(Refusal::from(&error)));
                return true;
            }
        };
        let len = u32::try_from(block.filled().len()).unwrap_or(0);
        if len > 0 {
            let packet = block.with_head(&Data::header(read.id, len));
            if out.space() < packet.len() {
                self.cold.push_front((read, Ok(block)));
                return false;
            }
            out.send(packet);
            out.sent_data(len as usize);
        }
        if self.blocks.len() < BLOCKS_KEPT {
            self.blocks.push(block);
        }
        self.session.read_done(read, outcome(Ok(len as usize)));
        true
    }
}

/// Nothing read is the end of the file, which is a status.
fn outcome(result: io::Result<usize>) -> Result<usize, Refusal> {
    match result {
        Ok(0) => Err(Refusal::END_OF_FILE),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Refusal::from(&error)),
    }
}
