//! Calls from other tasks: one queue under one lock, one wake-up for a batch, answers to a slot.
//!
//! A caller encodes its request, waits for a share of [`CALLS_KIB_MAX`], queues it, and waits at
//! its [`CallSlot`]. Dropping the future gives the slot up: the late answer is discarded, and a
//! handle that nobody took is closed.

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use ketch_protocol::{
    Attrs, Element, ExtensionSet, NameEntry, Names, PacketType, Reader, ServerLimits, StatusCode,
    WireAttrs, Writer,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{job::Job, misbehaved::PeerMisbehaved, table::Expect};
use crate::{
    quirks::{Quirk, Quirks},
    transfer::{disk::Speeds, pace::NEAR},
};

/// What all calls of one SFTP channel may hold at a time, requests and answers, in KiB.
pub(crate) const CALLS_KIB_MAX: u32 = 16 * 1024;
/// The least that one call is counted as, in KiB.
const CALL_KIB_MIN: u32 = 4;
/// Bytes of names that may wait for one reader. The longest answers of OpenSSH's server, to as many
/// requests as are ever under way, come to 12 MiB; what is more is not kept.
const HOLD_LEN_MAX: usize = 16 * 1024 * 1024;
/// Longest path in an answer that is one path, in bytes.
const PATH_LEN_MAX: usize = 32 * 1024;
/// Longest text of a status that is kept, in bytes.
const MESSAGE_LEN_MAX: usize = 512;

/// Wakes the task that drives the requests.
pub(crate) type WakeDriver = Arc<dyn Fn() + Send + Sync>;

/// What the handles of one SFTP channel share with the task that drives it.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    permits: Arc<Semaphore>,
    /// How fast local file systems were seen to be.
    pub speeds: Speeds,
    /// The shortest time to the server and back that was seen, in microseconds.
    round_trip: AtomicU64,
}

#[derive(Default)]
struct Queue {
    submissions: VecDeque<Submission>,
    wake: Option<WakeDriver>,
    ended: Option<Ended>,
    server: Option<ServerTraits>,
    waiting_for_server: Vec<Waker>,
}

/// What a server said of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerTraits {
    /// The extensions it has.
    pub extensions: ExtensionSet,
    /// What it answered to `limits@openssh.com`.
    pub limits: Option<ServerLimits>,
    /// Its habits.
    pub quirks: Quirks,
}

/// Something for the driving task to do.
pub(crate) enum Submission {
    /// A request that somebody waits for.
    Call(QueuedCall),
    /// A handle that nobody holds any more.
    Close(Vec<u8>),
    /// A transfer.
    Job(Box<dyn Job>),
    /// A transfer was given up: look for it.
    Look,
    /// The server has a habit that was seen on another channel.
    Habit(Quirk),
    /// Nobody holds a handle of the session any more.
    Goodbye,
}

/// A request that somebody waits for, before it is sent.
pub(crate) struct QueuedCall {
    /// The whole packet; the id in it is still to be set.
    pub packet: Vec<u8>,
    /// What its answer may be.
    pub expect: Expect,
    /// Where the answer goes.
    pub waiting: Box<WaitingCall>,
}

impl QueuedCall {
    /// Whether it is a `CLOSE`: that is sent even if nobody waits for the answer any more, because
    /// nobody else has the handle.
    pub(crate) fn closes(&self) -> bool {
        self.packet.get(4) == Some(&PacketType::CLOSE.0)
    }
}

/// Who waits for the answer to a call.
pub(crate) struct WaitingCall {
    /// Where the answer goes.
    pub slot: Arc<CallSlot>,
    /// The data of a READ, as it comes.
    pub data: Vec<u8>,
    /// What counts the names that wait for the same reader.
    pub hold: Option<Arc<Hold>>,
    _permit: OwnedSemaphorePermit,
}

/// An answer, owned.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Any status, `OK` included.
    Status(StatusCode, String),
    /// A handle.
    Handle(Vec<u8>),
    /// Bytes of a file.
    Data(Bytes),
    /// Entries of a directory, or one path.
    Names(OwnedNames),
    /// Attributes.
    Attrs(Attrs),
    /// What an extension answers.
    Extended(Vec<u8>),
}

/// The names out of a `NAME`, as they stood in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnedNames {
    /// Entries that are known to decode.
    bytes: Bytes,
}

impl OwnedNames {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that are kept for them.
    pub(crate) fn len_in_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = NameEntry<'_>> {
        let mut reader = Reader::new(&self.bytes);
        std::iter::from_fn(move || NameEntry::decode_next(&mut reader).ok())
    }

    /// The names alone of an answer that should be one, and of two where there are more; none if one
    /// is longer than [`PATH_LEN_MAX`].
    pub(crate) fn of_one(names: Names<'_>) -> Option<Self> {
        let mut bytes = Vec::new();
        for NameEntry { filename, .. } in names.into_iter().take(2) {
            if filename.len() > PATH_LEN_MAX {
                return None;
            }
            let entry = NameEntry {
                filename,
                longname: b"",
                attrs: WireAttrs::default(),
            };
            entry.encode(&mut Writer::new(&mut bytes));
        }
        let bytes = bytes.into();
        Some(Self { bytes })
    }

    /// Takes the first name out.
    pub(crate) fn with_first<T>(&mut self, take: impl FnOnce(NameEntry<'_>) -> T) -> Option<T> {
        let mut reader = Reader::new(&self.bytes);
        let entry = NameEntry::decode_next(&mut reader).ok()?;
        let left = reader.remaining();
        let taken = take(entry);
        self.bytes.advance(self.bytes.len().saturating_sub(left));
        Some(taken)
    }
}

/// What counts names that came and were not looked at yet, for one reader.
#[derive(Debug, Default)]
pub(crate) struct Hold(AtomicUsize);

impl Hold {
    /// Takes `bytes` more, if that is not beyond [`HOLD_LEN_MAX`].
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let more =
            |held: usize| Some(held.saturating_add(bytes)).filter(|&held| held <= HOLD_LEN_MAX);
        self.0.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// The reader has taken so much of it.
    pub(crate) fn release(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

impl From<Names<'_>> for OwnedNames {
    fn from(names: Names<'_>) -> Self {
        Self {
            bytes: names
                .as_wire()
                .map(Bytes::copy_from_slice)
                .unwrap_or_default(),
        }
    }
}

/// Why an answer will not come.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// The channel or the connection is gone.
    Closed(Arc<dyn Error + Send + Sync>),
    /// The server said nothing for too long.
    Stalled,
    /// The server broke the protocol.
    Misbehaved(Arc<PeerMisbehaved>),
}

/// A call that got no answer.
#[derive(Clone, Debug)]
pub(crate) struct Unanswered {
    /// Why.
    pub ended: Ended,
    /// Whether the request had left: if not, nothing can have happened.
    pub sent: bool,
}

/// Where the answer to one call is left.
#[derive(Default)]
pub(crate) struct CallSlot {
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    waker: Option<Waker>,
    answer: Option<Result<Reply, Unanswered>>,
    gone: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under these locks that could leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// For a channel that is being opened.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            permits: Arc::new(Semaphore::new(CALLS_KIB_MAX as usize)),
            speeds: Speeds::default(),
            round_trip: AtomicU64::new(u64::MAX),
        })
    }

    /// Queues a request whose packet and answer hold about `bytes`; the future is its answer.
    ///
    /// Waits while too much is under way already.
    pub(crate) async fn call(
        self: &Arc<Self>,
        packet: Vec<u8>,
        expect: Expect,
        bytes: usize,
    ) -> Call {
        self.call_within(packet, expect, bytes, None).await
    }

    /// As [`Shared::call`], for a reader whose answers are counted in `hold`.
    async fn call_within(
        self: &Arc<Self>,
        packet: Vec<u8>,
        expect: Expect,
        bytes: usize,
        hold: Option<Arc<Hold>>,
    ) -> Call {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
        let kib = kib.clamp(CALL_KIB_MIN, CALLS_KIB_MAX);
        let permit = Arc::clone(&self.permits).acquire_many_owned(kib).await;
        let slot = Arc::new(CallSlot::default());
        if let Ok(permit) = permit {
            let waiting = WaitingCall {
                slot: Arc::clone(&slot),
                data: Vec::new(),
                hold,
                _permit: permit,
            };
            self.submit(Submission::Call(QueuedCall {
                packet,
                expect,
                waiting: Box::new(waiting),
            }));
        }
        Call {
            slot,
            shared: Arc::clone(self),
        }
    }

    /// As [`Shared::call`], for those who poll: nothing is done before the first poll.
    pub(crate) fn ask(
        self: &Arc<Self>,
        packet: Vec<u8>,
        expect: Expect,
        bytes: usize,
        hold: Option<&Arc<Hold>>,
    ) -> Asked {
        let (shared, hold) = (Arc::clone(self), hold.cloned());
        let turn = async move { Queued(shared.call_within(packet, expect, bytes, hold).await) };
        Asked(Stage::Waiting(Box::pin(turn)))
    }

    /// Queues something to do, and wakes the driving task if it does not know yet.
    pub(crate) fn submit(&self, submission: Submission) {
        let mut queue = lock(&self.queue);
        if let Some(ended) = queue.ended.clone() {
            drop(queue);
            submission.refuse(&ended);
            return;
        }
        let first = queue.submissions.is_empty();
        queue.submissions.push_back(submission);
        let wake = if first { queue.wake.clone() } else { None };
        drop(queue);
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Waits until the server has introduced itself.
    ///
    /// # Errors
    /// If the channel ends before.
    pub(crate) async fn server(&self) -> Result<ServerTraits, Ended> {
        std::future::poll_fn(|cx| {
            let mut queue = lock(&self.queue);
            if let Some(server) = queue.server {
                return Poll::Ready(Ok(server));
            }
            if let Some(ended) = &queue.ended {
                return Poll::Ready(Err(ended.clone()));
            }
            if !queue
                .waiting_for_server
                .iter()
                .any(|waker| waker.will_wake(cx.waker()))
            {
                queue.waiting_for_server.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// What the server said of itself so far.
    pub(crate) fn server_now(&self) -> ServerTraits {
        lock(&self.queue).server.unwrap_or_default()
    }

    /// The shortest time to the server and back that was seen; `None` before the first answer.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        match self.round_trip.load(Relaxed) {
            u64::MAX => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// Whether the path is known to have next to no delay: then what is sent ahead only waits
    /// inside the server.
    pub(crate) fn is_near(&self) -> bool {
        self.round_trip().is_some_and(|time| time < NEAR)
    }

    /// The driving side: a request was answered after `took`.
    pub(crate) fn on_round_trip(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX - 1);
        self.round_trip.fetch_min(micros, Relaxed);
    }

    /// Whether nothing will be answered any more.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.queue).ended.is_some()
    }

    /// The driving side: how to wake it.
    pub(crate) fn set_wake(&self, wake: WakeDriver) {
        lock(&self.queue).wake = Some(wake);
    }

    /// The driving side: the server introduced itself, or told more.
    pub(crate) fn set_server(&self, server: ServerTraits) {
        let mut queue = lock(&self.queue);
        queue.server = Some(server);
        let wakers = std::mem::take(&mut queue.waiting_for_server);
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The driving side: the server was seen to have other habits.
    pub(crate) fn set_quirks(&self, quirks: Quirks) {
        if let Some(server) = &mut lock(&self.queue).server {
            server.quirks = quirks;
        }
    }

    /// The driving side: takes all that was submitted.
    pub(crate) fn take(&self, into: &mut VecDeque<Submission>) {
        into.append(&mut lock(&self.queue).submissions);
    }

    /// The driving side: nothing will be answered any more.
    pub(crate) fn end(&self, ended: &Ended) {
        let mut queue = lock(&self.queue);
        queue.ended.get_or_insert_with(|| ended.clone());
        let submissions = std::mem::take(&mut queue.submissions);
        let wakers = std::mem::take(&mut queue.waiting_for_server);
        queue.wake = None;
        drop(queue);
        submissions
            .into_iter()
            .for_each(|submission| submission.refuse(ended));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Submission {
    /// Answers what will not be sent.
    pub(crate) fn refuse(self, ended: &Ended) {
        match self {
            Self::Call(call) => {
                call.waiting.slot.answer(Err(Unanswered {
                    ended: ended.clone(),
                    sent: false,
                }));
            }
            Self::Job(mut job) => job.on_ended(ended, None),
            Self::Close(_) | Self::Look | Self::Habit(_) | Self::Goodbye => {}
        }
    }
}

impl CallSlot {
    /// Leaves the answer and wakes who waits; gives it back if nobody does.
    pub(crate) fn answer(&self, answer: Result<Reply, Unanswered>) -> Option<Reply> {
        let mut state = lock(&self.state);
        if state.gone {
            return answer.ok();
        }
        state.answer = Some(answer);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.state).gone
    }
}

/// One request, from when it was made: it waits for its turn among the calls, then for its answer,
/// which is what the future gives.
///
/// Whoever wants another request makes another one of these. Dropped before its turn, it is never
/// sent. As long as it is kept, it is to be polled until it had its turn: its place among the calls
/// may be held for it already.
pub(crate) struct Asked(Stage);

enum Stage {
    Waiting(Pin<Box<dyn Future<Output = Queued> + Send + Sync>>),
    Queued(Call),
}

/// A call that has had its turn; its answer is still to come.
struct Queued(Call);

impl Asked {
    /// Waits for its turn.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_queued(cx).map(|_| ())
    }

    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<&mut Call> {
        if let Stage::Waiting(turn) = &mut self.0 {
            let Queued(call) = ready!(turn.as_mut().poll(cx));
            self.0 = Stage::Queued(call);
        }
        match &mut self.0 {
            Stage::Queued(call) => Poll::Ready(call),
            Stage::Waiting(_) => Poll::Pending,
        }
    }
}

impl Future for Asked {
    type Output = Result<Reply, Unanswered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = ready!(self.get_mut().poll_queued(cx));
        Pin::new(call).poll(cx)
    }
}

/// The future of an answer.
pub(crate) struct Call {
    slot: Arc<CallSlot>,
    shared: Arc<Shared>,
}

impl Future for Call {
    type Output = Result<Reply, Unanswered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.slot.state);
        if let Some(answer) = state.answer.take() {
            return Poll::Ready(answer);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = lock(&self.slot.state);
        state.gone = true;
        let answer = state.answer.take();
        drop(state);
        if let Some(Ok(Reply::Handle(handle))) = answer {
            self.shared.submit(Submission::Close(handle));
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// The text of a status, as much as is kept.
pub(crate) fn message_of(message: &[u8]) -> String {
    let kept = message.get(..MESSAGE_LEN_MAX).unwrap_or(message);
    ketch_protocol::Escaped(kept).to_string()
}
