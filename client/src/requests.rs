//! The client of SFTP on one channel: requests out, answers in, transfers in between.
//!
//! [`Requests`] is driven by whoever has the stream: an SSH channel (`requests/channel.rs`), or
//! anything else that carries bytes in order (draft-ietf-secsh-filexfer-02 §2 asks no more). It
//! never blocks and has no task of its own. In a turn, it takes what was received, piece by piece
//! and where it lies; then the places noted are written to their files; then new requests are
//! made. A byte of a downloaded file goes from [`Requests::on_data`] by a [`Note`] to
//! `Job::on_run` and is copied nowhere in between.

pub(crate) mod calls;
pub(crate) mod channel;
pub(crate) mod core;
pub(crate) mod job;
pub(crate) mod link;
pub(crate) mod misbehaved;
pub(crate) mod slots;
pub(crate) mod stall;
mod submissions;
pub(crate) mod table;
pub(crate) mod turns;

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::Instant,
};

use ketch_protocol::{
    Extension, ExtensionName, ExtensionSet, Init, Limits, PROTOCOL_VERSION, PacketType, Pairs,
    ReplyDecoder, ReplyEvent, Request, RequestId, Response, ServerLimits, StatusCode,
    limits::HANDLE_LEN_MAX,
};

pub use self::misbehaved::PeerMisbehaved;
use self::{
    calls::{Ended, Shared, Submission},
    core::Core,
    job::{Answer, Cx, Job, Progress},
    link::{Link, Place, Places},
    slots::{Key, Slots},
    stall::{Stall, Verdict},
    table::{Entry, Expect, Owner, Step, What},
    turns::Turns,
};
use crate::{quirks::Quirks, transfer::disk::Disk};

/// Pieces of data that are written with one call at most.
const RUN_PIECES_MAX: usize = 64;
/// Packets in a row that are no replies, and are borne.
const SKIPPED_MAX: u32 = 64;

/// How the channel is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Time without a byte of a reply before what waits is given up.
    pub stall: std::time::Duration,
    /// Whether requests may follow `INIT` at once, before the server has answered it. OpenSSH's
    /// server takes that, and it saves a round trip; draft-02 §4 does not promise it.
    pub early: bool,
    /// What the server's identification says of its habits.
    pub quirks: Quirks,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stall: stall::STALL_TIMEOUT,
            early: false,
            quirks: Quirks::default(),
        }
    }
}

/// The requests of one SFTP channel.
pub(crate) struct Requests {
    decoder: ReplyDecoder,
    inner: Inner,
}

struct Inner {
    core: Core,
    settings: Settings,
    state: State,
    jobs: Slots<Box<dyn Job>>,
    turns: Turns,
    /// Nobody holds a handle any more: when the last transfer has cleaned up, the channel goes.
    leaving: bool,
    /// What was taken from the queue and not begun.
    inbox: VecDeque<Submission>,
    /// The DATA packet that is being received.
    data: Option<Data>,
    notes: Vec<Note>,
    /// Packets that were no replies, since the last one that was.
    skipped: u32,
    /// Received bytes that no credit was given for yet.
    consumed: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    New,
    /// `INIT` is sent.
    Greeting,
    Ready,
    Over,
}

/// A DATA packet of which pieces are coming.
#[derive(Clone, Copy, Debug)]
struct Data {
    id: RequestId,
    len: u32,
    /// The file it belongs to, if it does.
    file: Option<(Key, Key, u64)>,
    /// Bytes of it that came.
    came: u32,
}

impl Data {
    /// What is left of a request that will not be answered: the bytes that came of it are written,
    /// or are told of one by one.
    fn rest_of(this: Option<&Self>, of: (Key, Key), what: What) -> What {
        match (this, what) {
            (
                Some(Self {
                    file: Some((job, item, start)),
                    came,
                    ..
                }),
                What::Read(mut ask, sent),
            ) if (*job, *item) == of && *start == ask.span.offset => {
                ask.span.split_to(*came);
                What::Read(ask, sent)
            }
            _ => what,
        }
    }
}

/// A piece of a file, noted where it lies until the end of the turn.
#[derive(Clone, Copy, Debug)]
struct Note {
    job: Key,
    item: Key,
    offset: u64,
    place: Place,
}

impl Requests {
    /// For a stream that carries nothing else.
    pub(crate) fn new(shared: Arc<Shared>, disk: Disk, settings: Settings) -> Self {
        let mut core = Core::new(shared, disk, Stall::new(settings.stall));
        core.server.quirks = settings.quirks;
        Self {
            decoder: ReplyDecoder::new(Limits::default()),
            inner: Inner {
                core,
                settings,
                state: State::New,
                jobs: Slots::new(),
                turns: Turns::default(),
                leaving: false,
                inbox: VecDeque::new(),
                data: None,
                notes: Vec::new(),
                skipped: 0,
                consumed: 0,
            },
        }
    }

    /// The stream is open: introduces the client, and goes on if that is allowed.
    pub(crate) fn on_open(&mut self, link: &mut dyn Link, wake: calls::WakeDriver) {
        self.inner.core.shared.set_wake(Arc::clone(&wake));
        self.inner.core.disk.set_wake(wake);
        let mut init = Vec::new();
        Init {
            version: PROTOCOL_VERSION,
            extensions: Pairs::EMPTY,
        }
        .encode_packet(&mut init);
        // The first bytes of a fresh channel find room.
        let _ = link.send(&init);
        self.inner.core.on_sent(link.now());
        self.inner.state = State::Greeting;
        self.drive(link);
    }

    /// Takes received bytes, which lie at `at` in the buffer of this turn.
    pub(crate) fn on_data(&mut self, bytes: &[u8], at: usize, link: &mut dyn Link) {
        self.inner.consumed += bytes.len();
        let mut rest = bytes;
        let skipped = self.inner.skipped;
        while self.inner.state != State::Over {
            let step = match self.decoder.next(rest) {
                Ok(step) => step,
                Err(error) => return self.inner.misbehaved(error.into(), link),
            };
            let consumed = step.consumed.min(rest.len());
            // A piece of data is always the tail of what was consumed.
            let end = at + (bytes.len() - rest.len()) + consumed;
            let Some(event) = step.event else { break };
            if let Err(fault) = self.inner.on_event(event, end, link) {
                return self.inner.misbehaved(fault, link);
            }
            rest = rest.get(consumed..).unwrap_or_default();
        }
        if self.inner.skipped > skipped {
            return; // what answers nothing is no sign of life
        }
        let waiting = !self.inner.core.table.is_empty() || self.inner.data.is_some();
        self.inner.core.stall.on_bytes(link.now(), waiting);
    }

    /// The server sends no more.
    pub(crate) fn on_eof(&mut self, link: &mut dyn Link) {
        if self.inner.state != State::Over {
            // Its program is gone, and the connection may be well: as if the channel were lost.
            let why = Arc::new(PeerMisbehaved::EndOfStream);
            self.inner.end(&Ended::Closed(why));
            link.close();
        }
    }

    /// All that was received in this turn was handed over: writes what was noted, gives credit.
    pub(crate) fn end_of_turn(&mut self, places: &dyn Places, link: &mut dyn Link) {
        self.inner.write_notes(places, link);
        let consumed = std::mem::take(&mut self.inner.consumed);
        if consumed > 0 {
            link.give_credit(consumed);
        }
    }

    /// Sends what is wanted and fits.
    pub(crate) fn drive(&mut self, link: &mut dyn Link) {
        self.inner.drive(link);
    }

    /// Whether nobody waits for anything: an answer that a stalled server owes does not count.
    pub(crate) fn is_idle(&self) -> bool {
        let Inner {
            core, jobs, inbox, ..
        } = &self.inner;
        core.stall.deadline().is_none() && jobs.is_empty() && inbox.is_empty()
    }

    /// When [`Requests::drive`] has to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let jobs = self.inner.jobs.iter().filter_map(|job| job.deadline());
        jobs.chain(self.inner.core.stall.deadline()).min()
    }

    /// The stream is gone.
    pub(crate) fn on_closed(&mut self, why: Arc<dyn std::error::Error + Send + Sync>) {
        self.inner.end(&Ended::Closed(why));
    }
}

impl Inner {
    /// Takes one event of the decoder; the bytes of a piece of data end at `end`.
    fn on_event(
        &mut self,
        event: ReplyEvent<'_>,
        end: usize,
        link: &mut dyn Link,
    ) -> Result<(), PeerMisbehaved> {
        match event {
            ReplyEvent::Version(version) => {
                if version.version < PROTOCOL_VERSION {
                    return Err(PeerMisbehaved::VersionTooLow {
                        version: version.version,
                    });
                }
                self.on_version(ExtensionSet::from_pairs(version.extensions), link);
            }
            ReplyEvent::Reply { id, response } => self.on_reply(id, response, link)?,
            ReplyEvent::DataStart { id, len } => self.on_data_start(id, len)?,
            ReplyEvent::DataPiece { offset, bytes, .. } => self.on_piece(offset, bytes, end),
            ReplyEvent::DataEnd { id } => {
                if let Some(data) = self.data.take() {
                    self.answered(id, Answer::Data(data.len), link);
                }
            }
            ReplyEvent::Skipped { packet_type } => {
                self.skipped += 1;
                if self.skipped > SKIPPED_MAX {
                    return Err(PeerMisbehaved::NoReplies { packet_type });
                }
                tracing::debug!(%packet_type, "the server sent what is no reply");
            }
        }
        Ok(())
    }

    fn on_version(&mut self, extensions: ExtensionSet, link: &mut dyn Link) {
        self.state = State::Ready;
        self.core.server.extensions = extensions;
        self.core.shared.set_server(self.core.server);
        self.core.limits_due = extensions.contains(ExtensionName::Limits) && {
            let request = Request::Extended(Extension::Limits);
            // Without the answer, what every server takes is asked for.
            let asked = self
                .core
                .ask(link, &request, Owner::Limits, Expect::Extended);
            asked.is_ok()
        };
    }

    /// Finds the request that a reply names, and sees that they fit.
    fn find(
        &mut self,
        id: RequestId,
        packet_type: PacketType,
    ) -> Result<&mut Entry, PeerMisbehaved> {
        let entry = self
            .core
            .table
            .get_mut(id)
            .ok_or(PeerMisbehaved::Unrequested { id })?;
        if entry.expect.allows(packet_type) {
            Ok(entry)
        } else {
            Err(PeerMisbehaved::WrongType { id, packet_type })
        }
    }

    fn on_reply(
        &mut self,
        id: RequestId,
        response: Response<'_>,
        link: &mut dyn Link,
    ) -> Result<(), PeerMisbehaved> {
        self.skipped = 0;
        let entry = self.find(id, response.packet_type())?;
        let answer = match response {
            Response::Status(status) => {
                if status.code == StatusCode::OK && entry.expect != Expect::Status {
                    return Err(PeerMisbehaved::EmptySuccess { id });
                }
                Answer::Status(status.code, status.message)
            }
            Response::Handle(handle) => {
                if handle.len() > HANDLE_LEN_MAX {
                    return Err(PeerMisbehaved::HandleTooLong { len: handle.len() });
                }
                Answer::Handle(handle)
            }
            Response::Name(names) => Answer::Names(names),
            Response::Attrs(attrs) => Answer::Attrs(attrs.attrs),
            Response::ExtendedReply(data) => Answer::Extended(data),
            Response::Data(data) => {
                Answer::Data(u32::try_from(data.data.len()).unwrap_or(u32::MAX))
            }
        };
        self.answered(id, answer, link);
        Ok(())
    }

    fn on_data_start(&mut self, id: RequestId, len: u32) -> Result<(), PeerMisbehaved> {
        self.skipped = 0;
        let entry = self.find(id, PacketType::DATA)?;
        if let Expect::Data(asked) = entry.expect
            && len > asked
        {
            return Err(PeerMisbehaved::Overlong { asked, got: len });
        }
        let file = match &mut entry.owner {
            Owner::Job {
                job,
                item,
                what: What::Read(ask, _),
            } => Some((*job, *item, ask.span.offset)),
            Owner::Call(waiting) => {
                // At most what this client asked for.
                waiting.data.reserve_exact(len as usize);
                None
            }
            Owner::Job { .. } | Owner::Limits | Owner::Nobody { .. } => None,
        };
        self.data = Some(Data {
            id,
            len,
            file,
            came: 0,
        });
        Ok(())
    }

    fn on_piece(&mut self, offset: u32, bytes: &[u8], end: usize) {
        let Some(data) = &mut self.data else { return };
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        data.came = offset.saturating_add(len);
        if let Some((job, item, start)) = data.file {
            let place = Place {
                start: end.saturating_sub(bytes.len()),
                len: bytes.len(),
            };
            let offset = start.saturating_add(u64::from(offset));
            self.notes.push(Note {
                job,
                item,
                offset,
                place,
            });
        } else if let Some(entry) = self.core.table.get_mut(data.id)
            && let Owner::Call(waiting) = &mut entry.owner
        {
            waiting.data.extend_from_slice(bytes);
        }
    }

    /// Hands an answer to who waits for it.
    fn answered(&mut self, id: RequestId, answer: Answer<'_>, link: &mut dyn Link) {
        let Some(entry) = self.core.table.remove(id) else {
            return;
        };
        let now = link.now();
        if entry.is_owed {
            self.core.on_late_answer();
        }
        match entry.owner {
            Owner::Call(waiting) => {
                let took = now.saturating_duration_since(entry.sent_at);
                self.core.shared.on_round_trip(took);
                self.answer_call(*waiting, answer, link);
            }
            Owner::Job { job, item, what } => {
                match what {
                    What::Read(_, sent) => self.core.down.on_answered(sent, now),
                    What::Write { sent, .. } => self.core.up.on_answered(sent, now),
                    What::Step(_) | What::ReadDir { .. } => {
                        let took = now.saturating_duration_since(entry.sent_at);
                        self.core.down.on_round_trip(took);
                        self.core.up.on_round_trip(took);
                    }
                }
                if let Some(transfer) = self.jobs.get_mut(job) {
                    if let (What::Step(Step::Open), Answer::Handle(_)) = (what, answer) {
                        self.core.on_file_opened();
                    }
                    let mut cx = Cx::of(&**transfer, job, &mut self.core, link);
                    transfer.on_answer(item, what, answer, &mut cx);
                } else if let Answer::Handle(handle) = answer {
                    self.core.close_orphan(link, handle, None);
                }
            }
            Owner::Limits => {
                self.core.limits_due = false;
                if let Answer::Extended(data) = answer
                    && let Ok(limits) = ServerLimits::decode(ketch_protocol::Reader::new(data))
                {
                    self.core.server.limits = Some(limits);
                    self.core.shared.set_server(self.core.server);
                }
            }
            Owner::Nobody { remove } => {
                let path = remove.as_ref().map(AsRef::as_ref);
                match (answer, path) {
                    (Answer::Handle(handle), path) => {
                        self.core.close_orphan(link, handle, path);
                    }
                    // A link that was made too late for anybody.
                    (Answer::Status(StatusCode::OK, _), Some(path)) => {
                        self.core.remove_orphan(link, path);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Writes the noted places to their files, adjacent ones with one call.
    fn write_notes(&mut self, places: &dyn Places, link: &mut dyn Link) {
        let notes = std::mem::take(&mut self.notes);
        let mut rest = notes.as_slice();
        while let Some(first) = rest.first() {
            let mut pieces = [IoSlice::new(&[]); RUN_PIECES_MAX];
            let (mut count, mut len) = (0, 0_usize);
            for (note, piece) in rest.iter().zip(&mut pieces) {
                let adjacent = note.offset == first.offset.saturating_add(len as u64);
                if !adjacent || (note.job, note.item) != (first.job, first.item) {
                    break;
                }
                *piece = IoSlice::new(places.bytes(note.place));
                len += note.place.len;
                count += 1;
            }
            if let Some(job) = self.jobs.get_mut(first.job)
                && let Some(run) = pieces.get_mut(..count)
            {
                let mut cx = Cx::of(&**job, first.job, &mut self.core, link);
                job.on_run(first.item, first.offset, run, len, &mut cx);
            }
            rest = rest.get(count.max(1)..).unwrap_or_default();
        }
        // The vector is used again: nothing is allocated for a turn.
        self.notes = notes;
        self.notes.clear();
    }

    fn drive(&mut self, link: &mut dyn Link) {
        if matches!(self.state, State::New | State::Over) {
            return;
        }
        match self.core.stall.check(link.now()) {
            Some(Verdict::EndOperations) => self.on_stalled(link),
            Some(Verdict::EndChannel) => {
                self.end(&Ended::Stalled);
                return link.close();
            }
            None => {}
        }
        self.core.shared.take(&mut self.inbox);
        if self.state == State::Ready || self.settings.early {
            self.begin_submissions(link);
        }
        while let Some(done) = self.core.disk.next_done() {
            if let Some(job) = self.jobs.get_mut(done.job) {
                let mut cx = Cx::of(&**job, done.job, &mut self.core, link);
                job.on_disk(done.item, done.done, &mut cx);
            }
        }
        self.drive_jobs(link);
        if self.leaving && self.jobs.is_empty() && self.inbox.is_empty() {
            link.close();
        }
        if self.core.table.is_empty() && self.inbox.is_empty() && self.state == State::Ready {
            self.core.stall.on_idle();
        } else if self.inbox.is_empty() && self.jobs.is_empty() && self.state == State::Ready {
            // Calls that are waited for started the clock when they were sent.
            self.core.stall.on_unwanted(link.now());
        } else {
            // What waits to be sent waits for the server too.
            self.core.stall.on_sent(link.now());
        }
    }

    /// Lets the transfers send, in turns.
    fn drive_jobs(&mut self, link: &mut dyn Link) {
        let keys = (0..self.jobs.span()).filter_map(|index| self.jobs.key_at(index));
        let jobs = keys.zip(self.jobs.iter());
        self.turns
            .begin(jobs.map(|(key, job)| (key, job.priority())));
        let mut is_first = true;
        loop {
            let mut again = false;
            for nth in 0..self.turns.len() {
                let Some((key, turn)) = self.turns.turn(nth, is_first) else {
                    continue;
                };
                let Some(job) = self.jobs.get_mut(key) else {
                    continue;
                };
                self.core.turn = turn;
                let mut cx = Cx::of(&**job, key, &mut self.core, link);
                if job.drive(&mut cx) == Progress::Finished {
                    self.jobs.remove(key);
                }
                let turn = std::mem::take(&mut self.core.turn);
                again |= self.turns.on_done(nth, &turn);
            }
            if !again {
                return;
            }
            self.turns.sort();
            is_first = false;
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // A runtime that ends takes its tasks with it: nobody waits for ever all the same.
        if self.inner.state != State::Over {
            self.on_closed(Arc::new(io::Error::from(io::ErrorKind::NotConnected)));
        }
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests")
            .field("state", &self.inner.state)
            .field("in_flight", &self.inner.core.table.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
