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
pub(crate) mod table;

use std::{collections::VecDeque, io::IoSlice, sync::Arc, time::Instant};

use bytes::Bytes;
use ketch_protocol::{
    Extension, ExtensionName, ExtensionSet, Init, Limits, PROTOCOL_VERSION, PacketType, Pairs,
    ReplyDecoder, ReplyEvent, Request, RequestId, Response, ServerLimits, StatusCode,
    limits::HANDLE_LEN_MAX,
};

pub use self::misbehaved::PeerMisbehaved;
use self::{
    calls::{Ended, OwnedName, QueuedCall, Reply, Shared, Submission, Unanswered, WaitingCall, message_of},
    core::Core,
    job::{Answer, Cx, Job, Progress},
    link::{Link, Place, Places},
    slots::{Key, Slots},
    stall::{Stall, Verdict},
    table::{Entry, Expect, Owner, What},
};
use crate::transfer::disk::Disk;

/// Pieces of data that are written with one call at most.
const RUN_PIECES_MAX: usize = 64;

/// How the channel is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Time without a byte of a reply before what waits is given up.
    pub stall: std::time::Duration,
    /// Whether requests may follow `INIT` at once, before the server has answered it. OpenSSH's
    /// server takes that, and it saves a round trip; draft-02 §4 does not promise it.
    pub early: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { stall: stall::STALL_TIMEOUT, early: false }
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
    /// What was taken from the queue and not begun.
    inbox: VecDeque<Submission>,
    /// The DATA packet that is being received.
    data: Option<Data>,
    notes: Vec<Note>,
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
        let core = Core::new(shared, disk, Stall::new(settings.stall));
        Self {
            decoder: ReplyDecoder::new(Limits::default()),
            inner: Inner {
                core,
                settings,
                state: State::New,
                jobs: Slots::new(),
                inbox: VecDeque::new(),
                data: None,
                notes: Vec::new(),
                consumed: 0,
            },
        }
    }

    /// The stream is open: introduces the client, and goes on if that is allowed.
    pub(crate) fn on_open(&mut self, link: &mut dyn Link, wake: calls::WakeDriver) {
        self.inner.core.shared.set_wake(Arc::clone(&wake));
        self.inner.core.disk.set_wake(wake);
        let mut init = Vec::new();
        Init { version: PROTOCOL_VERSION, extensions: Pairs::EMPTY }.encode_packet(&mut init);
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
        let waiting = !self.inner.core.table.is_empty() || self.inner.data.is_some();
        self.inner.core.stall.on_bytes(link.now(), waiting);
    }

    /// The server sends no more.
    pub(crate) fn on_eof(&mut self, link: &mut dyn Link) {
        if self.inner.state != State::Over {
            self.inner.misbehaved(PeerMisbehaved::EndOfStream, link);
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

    /// When [`Requests::drive`] has to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.inner.core.stall.deadline()
    }

    /// The stream is gone.
    pub(crate) fn on_closed(&mut self, why: Arc<dyn std::error::Error + Send + Sync>) {
        self.inner.end(&Ended::Closed(why));
    }
}

impl Inner {
    /// Takes one event of the decoder; the bytes of a piece of data end at `end`.
    fn on_event(&mut self, event: ReplyEvent<'_>, end: usize, link: &mut dyn Link) -> Result<(), PeerMisbehaved> {
        match event {
            ReplyEvent::Version(version) => {
                if version.version < PROTOCOL_VERSION {
                    return Err(PeerMisbehaved::VersionTooLow { version: version.version });
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
                tracing::debug!(%packet_type, "the server sent what is no reply");
            }
        }
        Ok(())
    }

    fn on_version(&mut self, extensions: ExtensionSet, link: &mut dyn Link) {
        self.state = State::Ready;
        self.core.server.extensions = extensions;
        self.core.shared.set_server(self.core.server);
        if extensions.contains(ExtensionName::Limits) {
            let request = Request::Extended(Extension::Limits);
            // Without the answer, what every server takes is asked for.
            let _ = self.core.ask(link, &request, Owner::Limits, Expect::Extended);
        }
    }

    /// Finds the request that a reply names, and sees that they fit.
    fn find(&mut self, id: RequestId, packet_type: PacketType) -> Result<&mut Entry, PeerMisbehaved> {
        let entry = self.core.table.get_mut(id).ok_or(PeerMisbehaved::Unrequested { id })?;
        if entry.expect.allows(packet_type) {
            Ok(entry)
        } else {
            Err(PeerMisbehaved::WrongType { id, packet_type })
        }
    }

    fn on_reply(&mut self, id: RequestId, response: Response<'_>, link: &mut dyn Link) -> Result<(), PeerMisbehaved> {
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
            Response::Data(data) => Answer::Data(u32::try_from(data.data.len()).unwrap_or(u32::MAX)),
        };
        self.answered(id, answer, link);
        Ok(())
    }

    fn on_data_start(&mut self, id: RequestId, len: u32) -> Result<(), PeerMisbehaved> {
        let entry = self.find(id, PacketType::DATA)?;
        if let Expect::Data(asked) = entry.expect
            && len > asked
        {
            return Err(PeerMisbehaved::Overlong { asked, got: len });
        }
        let file = match &mut entry.owner {
            Owner::Job { job, item, what: What::Read(ask, _) } => Some((*job, *item, ask.span.offset)),
            Owner::Call(waiting) => {
                // At most what this client asked for.
                waiting.data.reserve_exact(len as usize);
                None
            }
            Owner::Job { .. } | Owner::Limits | Owner::Nobody { .. } => None,
        };
        self.data = Some(Data { id, len, file });
        Ok(())
    }

    fn on_piece(&mut self, offset: u32, bytes: &[u8], end: usize) {
        let Some(data) = self.data else { return };
        if let Some((job, item, start)) = data.file {
            let place = Place { start: end.saturating_sub(bytes.len()), len: bytes.len() };
            let offset = start.saturating_add(u64::from(offset));
            self.notes.push(Note { job, item, offset, place });
        } else if let Some(entry) = self.core.table.get_mut(data.id)
            && let Owner::Call(waiting) = &mut entry.owner
        {
            waiting.data.extend_from_slice(bytes);
        }
    }

    /// Hands an answer to who waits for it.
    fn answered(&mut self, id: RequestId, answer: Answer<'_>, link: &mut dyn Link) {
        let Some(entry) = self.core.table.remove(id) else { return };
        let now = link.now();
        match entry.owner {
            Owner::Call(waiting) => self.answer_call(*waiting, answer, link),
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
                    let mut cx = Cx { link, core: &mut self.core, job };
                    transfer.on_answer(item, what, answer, &mut cx);
                } else if let Answer::Handle(handle) = answer {
                    self.core.close_orphan(link, handle, None);
                }
            }
            Owner::Limits => {
                if let Answer::Extended(data) = answer
                    && let Ok(limits) = ServerLimits::decode(ketch_protocol::Reader::new(data))
                {
                    self.core.server.limits = Some(limits);
                    self.core.shared.set_server(self.core.server);
                }
            }
            Owner::Nobody { remove } => {
                if let Answer::Handle(handle) = answer {
                    self.core.close_orphan(link, handle, remove.as_ref().map(AsRef::as_ref));
                }
            }
        }
    }

    fn answer_call(&mut self, waiting: WaitingCall, answer: Answer<'_>, link: &mut dyn Link) {
        let reply = match answer {
            Answer::Status(status, message) => Reply::Status(status, message_of(message)),
            Answer::Handle(handle) => Reply::Handle(handle.to_vec()),
            Answer::Data(_) => Reply::Data(Bytes::from(waiting.data)),
            Answer::Names(names) => Reply::Names(names.iter().map(|entry| OwnedName::from(&entry)).collect()),
            Answer::Attrs(attrs) => Reply::Attrs(attrs),
            Answer::Extended(data) => Reply::Extended(data.to_vec()),
        };
        if let Some(Reply::Handle(handle)) = waiting.slot.answer(Ok(reply)) {
            self.core.close_orphan(link, &handle, None);
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
                let mut cx = Cx { link, core: &mut self.core, job: first.job };
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
                let mut cx = Cx { link, core: &mut self.core, job: done.job };
                job.on_disk(done.item, done.done, &mut cx);
            }
        }
        for index in 0..self.jobs.span() {
            let Some(key) = self.jobs.key_at(index) else { continue };
            let Some(job) = self.jobs.get_mut(key) else { continue };
            let mut cx = Cx { link, core: &mut self.core, job: key };
            if job.drive(&mut cx) == Progress::Finished {
                self.jobs.remove(key);
            }
        }
        if self.core.table.is_empty() && self.inbox.is_empty() && self.state == State::Ready {
            self.core.stall.on_idle();
        } else {
            // What waits to be sent waits for the server too.
            self.core.stall.on_sent(link.now());
        }
    }

    /// Sends the calls of other tasks, and takes their transfers on.
    fn begin_submissions(&mut self, link: &mut dyn Link) {
        while let Some(submission) = self.inbox.pop_front() {
            match submission {
                Submission::Call(call) => {
                    if let Err(call) = self.send_call(call, link) {
                        self.inbox.push_front(Submission::Call(call));
                        return;
                    }
                }
                Submission::Close(handle) => {
                    if !self.core.can_ask(link) {
                        self.inbox.push_front(Submission::Close(handle));
                        return;
                    }
                    self.core.close_orphan(link, &handle, None);
                }
                Submission::Job(job) => {
                    if self.jobs.room() == 0 {
                        self.inbox.push_front(Submission::Job(job));
                        return;
                    }
                    self.jobs.insert(job);
                }
                Submission::Look => {}
                Submission::Goodbye => link.close(),
            }
        }
    }

    /// Sends a call, or gives it back if it does not fit now.
    fn send_call(&mut self, mut call: QueuedCall, link: &mut dyn Link) -> Result<(), QueuedCall> {
        if call.waiting.slot.is_gone() {
            return Ok(());
        }
        if self.core.table.room() == 0 {
            return Err(call);
        }
        let now = link.now();
        let owner = Owner::Call(call.waiting);
        let Some(id) = self.core.enter(now, owner, call.expect) else { return Ok(()) };
        if let Some(field) = call.packet.get_mut(5..9) {
            field.copy_from_slice(&id.to_be_bytes());
        }
        if link.send(&call.packet).is_ok() {
            self.core.on_sent(now);
            return Ok(());
        }
        match self.core.table.remove(id) {
            Some(Entry { owner: Owner::Call(waiting), .. }) => Err(QueuedCall { waiting, ..call }),
            _ => Ok(()),
        }
    }

    /// The server is silent: what waits is given up, and the channel kept for a second try.
    fn on_stalled(&mut self, link: &mut dyn Link) {
        for entry in self.core.table.iter_mut() {
            if let Owner::Call(waiting) = &entry.owner {
                waiting.slot.answer(Err(Unanswered { ended: Ended::Stalled, sent: true }));
                entry.owner = Owner::Nobody { remove: None };
            }
        }
        for submission in std::mem::take(&mut self.inbox) {
            match submission {
                Submission::Call(call) => {
                    let unanswered = Unanswered { ended: Ended::Stalled, sent: false };
                    call.waiting.slot.answer(Err(unanswered));
                }
                Submission::Job(mut job) => job.on_ended(&Ended::Stalled, None),
                other => self.inbox.push_back(other),
            }
        }
        for index in 0..self.jobs.span() {
            let Some(key) = self.jobs.key_at(index) else { continue };
            let Some(job) = self.jobs.get_mut(key) else { continue };
            let mut cx = Cx { link, core: &mut self.core, job: key };
            job.on_stalled(&mut cx);
        }
    }

    fn misbehaved(&mut self, fault: PeerMisbehaved, link: &mut dyn Link) {
        self.end(&Ended::Misbehaved(Arc::new(fault)));
        link.close();
    }

    /// Nothing will be answered any more: everybody who waits is told.
    fn end(&mut self, ended: &Ended) {
        self.state = State::Over;
        self.core.stall.on_idle();
        self.notes.clear();
        self.data = None;
        self.core.shared.end(ended);
        for entry in self.core.table.drain() {
            if let Owner::Call(waiting) = entry.owner {
                waiting.slot.answer(Err(Unanswered { ended: ended.clone(), sent: true }));
            }
        }
        for submission in std::mem::take(&mut self.inbox) {
            submission.refuse(ended);
        }
        for mut job in self.jobs.drain() {
            job.on_ended(ended, Some(&mut self.core.disk));
        }
        // A file that is still being created on a thread goes as soon as it is there.
        self.core.disk.close();
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
