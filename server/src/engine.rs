//! Runs a session on a byte stream: bytes in, jobs done, replies out.
//!
//! ```text
//!   on_data -> decoder -> session -> jobs -> in place, or on a thread -> mailbox -> session
//!                            |                                                        |
//!                            +-> noted writes, written at the end of the turn         |
//!                            +-> reads, answered in the room of outgoing packets      |
//!                            +-> replies <--------------------------------------------+
//! ```
//!
//! The engine knows neither SSH nor tokio. What it needs of them are two small traits: an
//! [`Outlet`] for bytes and a [`Host`] for time and tasks.
//!
//! **What bounds it.** Requests taken and not answered: `REQUESTS_MAX`; jobs on threads:
//! `threads` has the numbers, a block of at most 512 KiB each; replies that have not left:
//! `REPLIES_LEN_MAX` and one job's more. Everything else that a client sends waits as bytes for
//! which it gets no credit, and so within the channel's window. Input is taken whatever waits: what
//! the window holds is not the connection's business, and its window adjustments always come
//! through.

mod cold;
mod jobs;
mod long;
mod news;
mod noted;
mod reads;
mod threads;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Instant;

use ketch_protocol::{Limits, ProtocolError, RequestDecoder, RequestEvent, RequestId};

use crate::fs::{Batch, Block, Work};
use crate::handles::HandleBudget;
use crate::observer::Watch;
use crate::policy::Policy;
use crate::root::Root;
use crate::session::{Cancel, Job, Misuse, Piece, ReadJob, Session, WriteEnd, is_told};
use crate::shares::Kind;

pub(crate) use cold::Mailbox;
pub(crate) use long::{HashStep, Hasher};
use noted::NotedWrites;
pub(crate) use noted::Places;
use threads::Threads;
#[cfg(test)]
use threads::{JOBS_LIMIT, LONG_JOBS_MAX};

/// Most requests that are decoded in one turn from what waits: the other channels of the connection
/// have their turn after that.
const BACKLOG_REQUESTS_MAX: usize = 1024;

/// Where bytes leave.
pub(crate) trait Outlet {
    /// Bytes that [`Outlet::send`] takes now.
    fn space(&mut self) -> usize;

    /// Sends bytes; no more than there is space for.
    fn send(&mut self, bytes: &[u8]);

    /// Sends a `DATA` reply of `len` bytes at most, which `read` fills where they will leave from.
    /// It says how many there are; if that is none or an error, nothing is sent. `None` if there is
    /// no room now: the outlet sees to it that there is a turn when there may be.
    fn data(
        &mut self,
        id: RequestId,
        len: u32,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<usize>>;

    /// Whether `DATA` replies are not to leave for now, though there is room; the outlet sees to it
    /// that there is a turn when they may.
    fn holds_data(&mut self) -> bool {
        false
    }

    /// A `DATA` reply with so many bytes was sent by [`Outlet::send`].
    fn sent_data(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// Received bytes were consumed.
    fn give_credit(&mut self, bytes: usize);
}

/// Time and tasks.
pub(crate) trait Host {
    /// Runs work whose end nobody waits for.
    fn spawn(&self, kind: Kind, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>);
    /// The same for work that comes to its end by itself once it is given up: then it is not kept
    /// waiting for its turn.
    fn spawn_until(
        &self,
        cancel: Arc<Cancel>,
        kind: Kind,
        work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    ) {
        let _ = cancel;
        self.spawn(kind, work);
    }
    /// Where checksums are computed.
    fn hasher(&self) -> Hasher;
    /// To measure with.
    fn now(&self) -> Instant;
    /// Seconds since 1970, to show.
    fn unix_time(&self) -> u64;
}

/// Why a session cannot go on: the channel is to be closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("the client speaks version {0}, which is not spoken here")]
    Version(u32),
    #[error("a second greeting came")]
    OutOfTurn,
}

impl From<Misuse> for Broken {
    fn from(misuse: Misuse) -> Self {
        match misuse {
            Misuse::Version(version) => Self::Version(version),
            Misuse::OutOfTurn => Self::OutOfTurn,
        }
    }
}

/// A session with what runs it.
#[derive(Debug)]
pub(crate) struct Engine<H: Host> {
    host: H,
    root: Arc<Root>,
    decoder: RequestDecoder,
    session: Session,
    noted: NotedWrites,
    backlog: Backlog,
    mailbox: Arc<Mailbox>,
    /// Jobs on threads.
    threads: Threads,
    /// Jobs that have to go to a thread when one of theirs is free.
    parked: VecDeque<Job>,
    /// Reads that came back from a thread, and wait to leave.
    cold: VecDeque<(ReadJob, io::Result<Block>)>,
    /// Blocks to be used again.
    blocks: Vec<Block>,
    /// The batch of the last listing, to be used again.
    batch: Batch,
    watch: Option<Arc<Watch>>,
}

/// Bytes that came while the session was full, without credit.
#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    /// How many of them are decoded.
    taken: usize,
}

impl<H: Host> Engine<H> {
    pub(crate) fn new(
        host: H,
        root: Arc<Root>,
        policy: Arc<Policy>,
        budget: Arc<HandleBudget>,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        let mut session = Session::new(policy, RandomState::new(), budget);
        if root.files.can_watch() {
            session.can_watch();
        }
        Self {
            host,
            root,
            decoder: RequestDecoder::new(Limits::default()),
            session,
            noted: NotedWrites::default(),
            backlog: Backlog::default(),
            mailbox,
            threads: Threads::default(),
            parked: VecDeque::new(),
            cold: VecDeque::new(),
            blocks: Vec::new(),
            batch: Batch::default(),
            watch: None,
        }
    }

    /// Reads this client's `SYMLINK` with the link before its target.
    pub(crate) const fn read_link_first(&mut self) {
        self.session.names_link_first = true;
    }

    /// Takes bytes that lie at `at` in the receive arena until the end of the turn.
    ///
    /// # Errors
    /// [`Broken`]: nothing more may be asked of this engine.
    pub(crate) fn on_data(
        &mut self,
        bytes: &[u8],
        at: usize,
        out: &mut impl Outlet,
    ) -> Result<(), Broken> {
        let taken = if self.backlog.is_empty() {
            self.decode(bytes, Some(at), usize::MAX, out)?
        } else {
            0
        };
        self.backlog.push(bytes.get(taken..).unwrap_or_default());
        self.tell();
        Ok(())
    }

    /// Writes what was noted in this turn.
    pub(crate) fn end_of_turn<P: Places + ?Sized>(&mut self, places: &P, out: &mut impl Outlet) {
        if !self.noted.is_empty() {
            self.write_noted(places, out);
            self.run(out);
            self.tell();
        }
    }

    /// Takes in what threads have done, and goes on with everything that waited. Returns whether
    /// it wants another turn at once.
    ///
    /// # Errors
    /// As [`Engine::on_data`].
    pub(crate) fn drive(&mut self, out: &mut impl Outlet) -> Result<bool, Broken> {
        self.collect(out);
        if self.session.awaits_events() {
            self.session.answer_watches(self.host.now());
        }
        self.run(out);
        if self.backlog.is_empty() || self.session.is_full() {
            self.tell();
            return Ok(false);
        }
        // It is taken out while its bytes are lent.
        let mut backlog = std::mem::take(&mut self.backlog);
        let taken = self.decode(backlog.unread(), None, BACKLOG_REQUESTS_MAX, out)?;
        backlog.take(taken);
        self.backlog = backlog;
        // Reads of subscriptions that were among it: there may be no other turn for a long time.
        if self.session.awaits_events() {
            self.session.answer_watches(self.host.now());
            self.run(out);
        }
        self.tell();
        Ok(!self.backlog.is_empty() && !self.session.is_full())
    }

    /// Whether everything that was asked is answered and the answers have left.
    pub(crate) fn is_idle(&self) -> bool {
        self.session.is_idle()
            && self.backlog.is_empty()
            && self.session.replies.unsent().is_empty()
    }

    /// When there has to be a turn, whatever comes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.session.watch_deadline()
    }

    /// The client will ask for nothing more: nothing is waited for.
    pub(crate) const fn end_watches(&mut self) {
        self.session.end_watches();
    }

    /// How many requests came.
    pub(crate) const fn commands(&self) -> u64 {
        self.session.commands()
    }

    /// Whether threads work for this session.
    pub(crate) const fn is_working(&self) -> bool {
        !self.threads.is_idle()
    }

    /// Decodes until the input or the session's capacity is used up, or `most` requests were seen;
    /// returns how many bytes were taken.
    fn decode(
        &mut self,
        input: &[u8],
        at: Option<usize>,
        most: usize,
        out: &mut impl Outlet,
    ) -> Result<usize, Broken> {
        let mut taken = 0_usize;
        let mut seen = 0_usize;
        while seen < most && !self.session.is_full() {
            let step = self.decoder.next(input.get(taken..).unwrap_or_default())?;
            taken = taken.saturating_add(step.consumed);
            let mut credit = step.consumed;
            let Some(event) = step.event else {
                out.give_credit(credit);
                break;
            };
            match event {
                RequestEvent::Init(init) => self.session.on_init(&init)?,
                RequestEvent::Request { id, request } => {
                    if self.watch.is_some() && is_told(&request) {
                        self.session.at(self.host.now());
                    }
                    self.session.on_request(id, &request);
                }
                RequestEvent::Refused { id, why, .. } => self.session.on_undecodable(id, why),
                RequestEvent::WriteStart {
                    id,
                    handle,
                    offset,
                    len,
                } => {
                    let may_note = at.is_some() && !self.root.pace.is_slow();
                    self.session.write_start(id, handle, offset, len, may_note);
                }
                RequestEvent::WritePiece { offset, bytes, .. } => {
                    // A piece is the end of what was consumed, wherever its packet began.
                    let place = at.map(|at| at.saturating_add(taken).saturating_sub(bytes.len()));
                    match self.session.write_piece(offset, bytes, place.is_some()) {
                        Piece::Noted {
                            slot,
                            arrival,
                            offset,
                        } => {
                            let start = place.unwrap_or_default();
                            self.noted.piece(slot, arrival, offset, start, bytes.len());
                            credit = credit.saturating_sub(bytes.len());
                        }
                        Piece::Copied => credit = credit.saturating_sub(bytes.len()),
                        Piece::PassedOver => {}
                    }
                    out.give_credit(credit);
                    continue; // nothing can be done before the write ends
                }
                RequestEvent::WriteEnd { .. } => {
                    if let WriteEnd::Noted { slot, arrival, id } =
                        self.session.write_end(at.is_some())
                    {
                        self.noted.end(slot, arrival, id);
                    }
                }
            }
            seen = seen.saturating_add(1);
            out.give_credit(credit);
            self.run(out);
        }
        Ok(taken)
    }

    /// Does and sends everything that can be done and sent now.
    fn run(&mut self, out: &mut impl Outlet) {
        loop {
            let mut progress = self.do_jobs(out);
            self.flush(out);
            progress |= self.answer_reads(out);
            if !progress {
                return;
            }
        }
    }

    /// Hands replies to the outlet as far as it takes them.
    fn flush(&mut self, out: &mut impl Outlet) {
        let unsent = self.session.replies.unsent();
        if unsent.is_empty() {
            return;
        }
        let len = unsent.len().min(out.space());
        if let Some(now) = unsent.get(..len).filter(|now| !now.is_empty()) {
            out.send(now);
            self.session.replies.sent(len);
        }
    }
}

impl<H: Host> Drop for Engine<H> {
    /// Long work in other tasks learns that nobody waits for it, and observers what was open.
    fn drop(&mut self) {
        self.mailbox.abandon();
        self.tell_last();
    }
}

impl Backlog {
    const fn is_empty(&self) -> bool {
        self.taken >= self.bytes.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn unread(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn take(&mut self, len: usize) {
        self.taken = self.taken.saturating_add(len);
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(BACKLOG_KEPT);
            self.taken = 0;
        } else if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

/// Capacity that an idle session keeps for its backlog, in bytes.
const BACKLOG_KEPT: usize = 16 * 1024;

/// Work for a thread, with what becomes of its result. `since`: when it was handed away, if its
/// time tells how fast the root is.
fn deliver<T: Send + 'static>(
    work: Work<T>,
    mailbox: Arc<Mailbox>,
    since: Option<Instant>,
    done: impl FnOnce(io::Result<T>) -> cold::Completion + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    let delivery = cold::Delivery::new(mailbox, since, done);
    Box::pin(async move {
        let result = work.await;
        delivery.deliver(result);
    })
}
