//! Writes whose bytes lie in the receive arena: written at the end of the turn, adjacent ones by
//! one call.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use ketch_protocol::RequestId;

use super::jobs::would_block;
use super::{Engine, Host, Outlet};
use crate::handles::SlotId;
use crate::refusal::Refusal;

/// Most pieces that one call writes: an arena of 256 KiB holds no more in packets of usual length.
const SLICES_MAX: usize = 64;

/// The bytes of noted places, until the end of the turn.
pub(crate) trait Places {
    /// The `len` bytes at `start`; empty if there are none.
    fn bytes(&self, start: usize, len: usize) -> &[u8];
}

/// What was noted in a turn, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct NotedWrites {
    list: Vec<Noted>,
    /// Writes that failed in this turn.
    failed: Vec<(u64, Refusal)>,
    /// Writes of which bytes were put off in this turn.
    put_off: Vec<u64>,
    /// Handles whose file said that it would block in this turn: all that follows on them is put
    /// off, too.
    blocked: Vec<SlotId>,
}

#[derive(Clone, Copy, Debug)]
enum Noted {
    /// `len` bytes at `start` of the arena belong at `offset` of the file.
    Piece {
        slot: SlotId,
        arrival: u64,
        offset: u64,
        start: usize,
        len: usize,
    },
    /// A write is over and has to be answered.
    End {
        slot: SlotId,
        arrival: u64,
        id: RequestId,
    },
}

impl NotedWrites {
    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn piece(
        &mut self,
        slot: SlotId,
        arrival: u64,
        offset: u64,
        start: usize,
        len: usize,
    ) {
        self.list.push(Noted::Piece {
            slot,
            arrival,
            offset,
            start,
            len,
        });
    }

    pub(super) fn end(&mut self, slot: SlotId, arrival: u64, id: RequestId) {
        self.list.push(Noted::End { slot, arrival, id });
    }
}

/// Adjacent pieces of one file: entries of the list from the first on, and where they belong.
struct Run {
    slot: SlotId,
    /// How many entries, ends included.
    entries: usize,
    offset: u64,
    len: usize,
    slices: usize,
}

/// What became of a run.
enum Outcome {
    /// So many bytes were written; why not more.
    Written(usize, Option<Refusal>),
    /// So many bytes were written; the rest has to wait for a thread.
    PutOff(usize),
}

impl<H: Host> Engine<H> {
    /// Writes what was noted, or puts it off if the disk is slow, and answers what is over.
    pub(super) fn write_noted<P: Places + ?Sized>(&mut self, places: &P, out: &mut impl Outlet) {
        let mut noted = std::mem::take(&mut self.noted);
        let mut rest = &noted.list[..];
        while let Some((run, slices)) = first_run(rest, places) {
            let outcome = if run.len == 0 {
                Outcome::Written(0, None)
            } else if self.root.pace.is_slow() || noted.blocked.contains(&run.slot) {
                Outcome::PutOff(0)
            } else {
                self.write_run(&run, slices)
            };
            let (written, failure) = match outcome {
                Outcome::Written(written, failure) => (written, failure),
                Outcome::PutOff(written) => {
                    noted.blocked.push(run.slot);
                    (written, None)
                }
            };
            if run.len > 0 {
                self.session.wrote(run.slot, written, failure.is_some());
            }
            let (now, later) = rest.split_at(run.entries.min(rest.len()));
            let mut begin = 0_usize;
            for entry in now {
                match *entry {
                    Noted::Piece {
                        slot,
                        arrival,
                        offset,
                        start,
                        len,
                    } => {
                        let of_it = written.saturating_sub(begin).min(len);
                        begin = begin.saturating_add(len);
                        if of_it == len {
                            out.give_credit(len);
                        } else if let Some(why) = failure {
                            out.give_credit(len);
                            noted.failed.push((arrival, why));
                            self.session.noted_failed(arrival, why);
                        } else {
                            out.give_credit(of_it);
                            let bytes = places.bytes(start, len).get(of_it..).unwrap_or_default();
                            let offset = offset.saturating_add(of_it as u64);
                            noted.put_off.push(arrival);
                            self.session.put_off(slot, arrival, offset, bytes);
                        }
                    }
                    Noted::End { slot, arrival, id } => {
                        let failure = noted.failed.iter().find(|(failed, _)| *failed == arrival);
                        match failure {
                            Some(&(_, why)) => self.session.noted_done(id, Err(why)),
                            None if noted.put_off.contains(&arrival) => {
                                self.session.put_off_end(slot, id);
                            }
                            None => self.session.noted_done(id, Ok(())),
                        }
                    }
                }
            }
            rest = later;
        }
        // Only now, when all that was put off stands in its place, may what came after it start.
        let mut last = None;
        for entry in &noted.list {
            let (Noted::Piece { slot, .. } | Noted::End { slot, .. }) = *entry;
            if last != Some(slot) {
                self.session.settle(slot);
                last = Some(slot);
            }
        }
        noted.list.clear();
        noted.failed.clear();
        noted.put_off.clear();
        noted.blocked.clear();
        self.noted = noted;
    }

    fn write_run(&self, run: &Run, mut slices: [IoSlice<'_>; SLICES_MAX]) -> Outcome {
        let Some(file) = self.session.noted_file(run.slot).map(Arc::clone) else {
            return Outcome::Written(0, Some(Refusal::BAD_HANDLE));
        };
        let mut rest = slices.get_mut(..run.slices).unwrap_or_default();
        let mut written = 0_usize;
        while written < run.len {
            let offset = run.offset.saturating_add(written as u64);
            match self.timed(|_| file.try_write_at(offset, rest)) {
                Ok(0) => return Outcome::Written(written, Some(Refusal::CONFUSED)),
                Ok(more) => {
                    let more = more.min(run.len.saturating_sub(written));
                    written = written.saturating_add(more);
                    IoSlice::advance_slices(&mut rest, more);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if would_block(&error) => return Outcome::PutOff(written),
                Err(error) => return Outcome::Written(written, Some(Refusal::from(&error))),
            }
        }
        Outcome::Written(written, None)
    }
}

/// The pieces at the start of `list` that one call can write, with the ends among them and right
/// behind; `None` if the list is empty.
fn first_run<'a, P: Places + ?Sized>(
    list: &[Noted],
    places: &'a P,
) -> Option<(Run, [IoSlice<'a>; SLICES_MAX])> {
    let (&(Noted::Piece { slot, .. } | Noted::End { slot, .. }), _) = list.split_first()?;
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let mut run = Run {
        slot,
        entries: 0,
        offset: 0,
        len: 0,
        slices: 0,
    };
    for entry in list {
        match *entry {
            Noted::End { .. } => {}
            Noted::Piece {
                slot,
                offset,
                start,
                len,
                ..
            } => {
                let follows = run.slices == 0
                    || (slot == run.slot && run.offset.checked_add(run.len as u64) == Some(offset));
                let Some(place) = slices.get_mut(run.slices).filter(|_| follows) else {
                    break;
                };
                if run.slices == 0 {
                    (run.slot, run.offset) = (slot, offset);
                }
                *place = IoSlice::new(places.bytes(start, len));
                run.slices = run.slices.saturating_add(1);
                run.len = run.len.saturating_add(len);
            }
        }
        run.entries = run.entries.saturating_add(1);
    }
    Some((run, slices))
}
