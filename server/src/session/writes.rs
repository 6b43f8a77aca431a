//! `WRITE`: the body comes in pieces, which are noted where they lie or copied to wait.
//!
//! Noting is the usual way: the engine writes the noted pieces at the end of the turn, straight
//! from the receive arena. A piece is copied if its turn has not come (other work on the handle is
//! before it), if the disk is slow, or if it does not lie in the arena any more. Copied bytes count
//! against the channel's window until they are written, and so are bounded by it.

use std::io;

use ketch_protocol::RequestId;

use super::job::{FileWork, Work};
use super::lane::{Arrival, Mode};
use super::{Opened, Place, Session, Ticket};
use crate::handles::SlotId;
use crate::refusal::Refusal;

/// Copied writes that follow each other in a file are joined up to this length, in bytes.
const JOINED_LEN_MAX: usize = 1024 * 1024;

/// The `WRITE` whose body is being taken in.
#[derive(Debug)]
pub(super) struct Incoming {
    id: RequestId,
    arrival: Arrival,
    offset: u64,
    fate: Fate,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Its bytes are passed over.
    Refused(Refusal),
    /// Its pieces are noted.
    Noted(SlotId),
    /// Its pieces are copied; whether the last work of the lane is already its own.
    Copied(SlotId, bool),
}

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct CopiedWrite {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    /// The requests that end in it.
    ids: Vec<RequestId>,
    /// More bytes of a request that ends in it are to come.
    pub(super) is_open: bool,
}

impl CopiedWrite {
    /// Whether bytes for `offset` may be joined to it.
    fn is_followed_by(&self, offset: u64) -> bool {
        self.offset.checked_add(self.bytes.len() as u64) == Some(offset)
            && self.bytes.len() < JOINED_LEN_MAX
    }
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Piece {
    /// It is to be written at `offset` of the file at the end of the turn, or put off.
    Noted {
        slot: SlotId,
        arrival: Arrival,
        offset: u64,
    },
    /// It was copied; its bytes are given back as credit when it is written.
    Copied,
    /// It is not wanted.
    PassedOver,
}

/// What is to be done at the end of a `WRITE`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WriteEnd {
    /// It is to be told by `noted_done` or `put_off_end` at the end of the turn.
    Noted {
        slot: SlotId,
        arrival: Arrival,
        id: RequestId,
    },
    /// Nothing.
    Answered,
}

impl Session {
    /// A `WRITE` begins. `may_note`: the root is fast and the bytes lie in the arena.
    pub(crate) fn write_start(
        &mut self,
        id: RequestId,
        handle: &[u8],
        offset: u64,
        len: u32,
        may_note: bool,
    ) {
        self.outstanding = self.outstanding.saturating_add(1);
        self.commands = self.commands.wrapping_add(1);
        let arrival = self.arrival();
        let fate = match self.check_write(handle, offset, len) {
            Err(why) => {
                if let Ok(slot) = self.slot(handle) {
                    self.wrote(slot, 0, true);
                }
                Fate::Refused(why)
            }
            Ok(slot) if may_note && self.may_note(slot, arrival) => Fate::Noted(slot),
            Ok(slot) => Fate::Copied(slot, false),
        };
        self.incoming = Some(Incoming {
            id,
            arrival,
            offset,
            fate,
        });
    }

    fn check_write(&self, handle: &[u8], offset: u64, len: u32) -> Result<SlotId, Refusal> {
        self.policy.standing.permit_write()?;
        let slot = self.slot(handle)?;
        match self.handles.get(slot) {
            Some(entry) if entry.may_write && matches!(entry.opened, Opened::File(_)) => {}
            _ => return Err(Refusal::WRONG_HANDLE),
        }
        self.policy.check_range(offset, u64::from(len))?;
        Ok(slot)
    }

    fn may_note(&self, slot: SlotId, arrival: Arrival) -> bool {
        self.handles.get(slot).is_some_and(|entry| {
            entry.lane.may_note() && !self.is_touched(&entry.path, arrival, Mode::Exclusive)
        })
    }

    /// Bytes of the body, `skip` bytes from its start. `may_note`: they lie in the arena.
    pub(crate) fn write_piece(&mut self, skip: u32, bytes: &[u8], may_note: bool) -> Piece {
        let Some(incoming) = &mut self.incoming else {
            return Piece::PassedOver;
        };
        let (id, arrival) = (incoming.id, incoming.arrival);
        // The end was checked to be one that a file can have.
        let offset = incoming.offset.saturating_add(u64::from(skip));
        let (slot, is_begun) = match incoming.fate {
            Fate::Refused(_) => return Piece::PassedOver,
            Fate::Noted(slot) if may_note => {
                if let Some(entry) = self.handles.get_mut(slot) {
                    entry.lane.note(arrival);
                }
                return Piece::Noted {
                    slot,
                    arrival,
                    offset,
                };
            }
            Fate::Noted(slot) => (slot, false),
            Fate::Copied(slot, is_begun) => (slot, is_begun),
        };
        incoming.fate = Fate::Copied(slot, true);
        // It must not come before work on the path that came before it.
        let may_join = !is_begun
            && self
                .handles
                .get(slot)
                .is_some_and(|entry| !self.is_touched(&entry.path, arrival, Mode::Exclusive));
        let Some(entry) = self.handles.get_mut(slot) else {
            return Piece::PassedOver;
        };
        if let Some(last) = entry.lane.last_mut()
            && let Work::Write(write) = &mut last.work.work
            && (is_begun || may_join && write.is_followed_by(offset))
        {
            write.bytes.extend_from_slice(bytes);
            write.is_open = true;
            return Piece::Copied;
        }
        let write = CopiedWrite {
            offset,
            bytes: bytes.to_vec(),
            ids: Vec::new(),
            is_open: true,
        };
        entry.lane.push(
            arrival,
            Mode::Exclusive,
            FileWork {
                id,
                work: Work::Write(write),
                draft: None,
            },
        );
        Piece::Copied
    }

    /// The body is over.
    pub(crate) fn write_end(&mut self, may_note: bool) -> WriteEnd {
        self.commands = self.commands.wrapping_add(1);
        let Some(Incoming {
            id,
            arrival,
            offset,
            fate,
        }) = self.incoming.take()
        else {
            return WriteEnd::Answered;
        };
        match fate {
            Fate::Refused(why) => {
                self.outstanding = self.outstanding.saturating_sub(1);
                self.replies.refuse(id, why);
                WriteEnd::Answered
            }
            Fate::Noted(slot) if may_note => {
                if let Some(entry) = self.handles.get_mut(slot) {
                    entry.lane.note(arrival);
                }
                WriteEnd::Noted { slot, arrival, id }
            }
            Fate::Noted(slot) | Fate::Copied(slot, _) => {
                let is_begun = matches!(fate, Fate::Copied(_, true));
                let Some(entry) = self.handles.get_mut(slot) else {
                    return WriteEnd::Answered;
                };
                match entry.lane.last_mut() {
                    Some(last) if is_begun => {
                        if let Work::Write(write) = &mut last.work.work {
                            write.is_open = false;
                            write.ids.push(id);
                        }
                    }
                    // No bytes of it wait: it only has to be answered in its turn.
                    _ => {
                        let write = CopiedWrite {
                            offset,
                            ids: vec![id],
                            ..CopiedWrite::default()
                        };
                        let work = FileWork {
                            id,
                            work: Work::Write(write),
                            draft: None,
                        };
                        entry.lane.push(arrival, Mode::Exclusive, work);
                    }
                }
                self.pump(Place::Handle(slot));
                WriteEnd::Answered
            }
        }
    }

    /// A noted write that ended in this turn was written, or could not be.
    pub(crate) fn noted_done(&mut self, id: RequestId, result: Result<(), Refusal>) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.replies.done(id, result);
    }

    /// Noted bytes of a write that has not ended could not be written.
    pub(crate) fn noted_failed(&mut self, arrival: Arrival, why: Refusal) {
        if let Some(incoming) = &mut self.incoming
            && incoming.arrival == arrival
        {
            incoming.fate = Fate::Refused(why);
        }
    }

    /// Noted bytes are not to be written in this turn: they are copied, to wait in their place.
    pub(crate) fn put_off(&mut self, slot: SlotId, arrival: Arrival, offset: u64, bytes: &[u8]) {
        let Some(entry) = self.handles.get_mut(slot) else {
            return;
        };
        // A write of which more is to come keeps to itself, so that those before it can start.
        let mut is_open = false;
        if let Some(incoming) = &mut self.incoming
            && incoming.arrival == arrival
        {
            is_open = true;
            incoming.fate = Fate::Copied(slot, true);
        }
        if let Some(last) = entry.lane.last_put_off()
            && let Work::Write(write) = &mut last.work
            && write.is_open == is_open
            && write.is_followed_by(offset)
        {
            write.bytes.extend_from_slice(bytes);
            return;
        }
        let write = CopiedWrite {
            offset,
            bytes: bytes.to_vec(),
            ids: Vec::new(),
            is_open,
        };
        entry.lane.put_off(
            Mode::Exclusive,
            FileWork {
                id: 0,
                work: Work::Write(write),
                draft: None,
            },
        );
    }

    /// A noted write ended in this turn, and bytes before its end were put off.
    pub(crate) fn put_off_end(&mut self, slot: SlotId, id: RequestId) {
        if let Some(entry) = self.handles.get_mut(slot)
            && let Some(last) = entry.lane.last_put_off()
            && let Work::Write(write) = &mut last.work
        {
            write.ids.push(id);
        } else {
            self.noted_done(id, Ok(()));
        }
    }

    /// Everything noted for this handle is done or put off.
    pub(crate) fn settle(&mut self, slot: SlotId) {
        if let Some(entry) = self.handles.get_mut(slot) {
            entry.lane.settle();
        }
        self.pump(Place::Handle(slot));
    }

    /// Copied bytes were written, or could not be. Returns how many: credit to be given back.
    pub(crate) fn write_done(
        &mut self,
        ticket: Ticket,
        write: &CopiedWrite,
        len: usize,
        result: io::Result<()>,
    ) -> usize {
        let result = result.map_err(|error| Refusal::from(&error));
        for &id in &write.ids {
            self.outstanding = self.outstanding.saturating_sub(1);
            self.replies.done(id, result);
        }
        match result {
            Ok(()) => self.wrote_part(&ticket, len),
            Err(_) => {
                if let Place::Handle(slot) = ticket.place {
                    self.wrote(slot, 0, true);
                }
            }
        }
        self.finish(ticket.place, ticket.mode);
        len
    }

    /// Of copied bytes `len` were written; the rest is tried again.
    pub(crate) fn wrote_part(&mut self, ticket: &Ticket, len: usize) {
        if let Place::Handle(slot) = ticket.place {
            self.wrote(slot, len, false);
        }
    }

    /// The file of a handle that bytes were noted for.
    pub(crate) fn noted_file(&self, slot: SlotId) -> Option<&std::sync::Arc<dyn crate::fs::File>> {
        match &self.handles.get(slot)?.opened {
            Opened::File(file) => Some(file),
            _ => None,
        }
    }
}
