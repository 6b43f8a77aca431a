//! A client, a channel and a machine to run an engine on, all simulated: no socket, no thread, no
//! clock. Every choice comes from a seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ketch_protocol::{
    DATA_HEADER_LEN, Data, Init, Limits, PROTOCOL_VERSION, Pairs, ReplyDecoder, ReplyEvent,
    Request, RequestId, Response, StatusCode,
};

use super::{Engine, Hasher, Host, Mailbox, Outlet, Places};
use crate::fs::feed::{Feed, Subscription, WatchRequest};
use crate::fs::{
    Answer, Batch, Block, Call, Directory, File, FileCall, FileSystem, MemoryFileSystem, Work,
};
use crate::handles::HandleBudget;
use crate::policy::standing::Standing;
use crate::policy::{Access, Policy};
use crate::root::Root;
use crate::shares::Kind;

/// Numbers that look random and are the same for the same seed (xorshift).
#[derive(Debug)]
pub(super) struct Choices(AtomicU64);

impl Choices {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(
            seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15),
        ))
    }

    /// A number below `end`.
    pub(super) fn below(&self, end: usize) -> usize {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        usize::try_from(x >> 33).unwrap() % end
    }

    fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// How the simulated file system behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mood {
    /// Everything is done in place.
    Ready,
    /// Some of it would block, and writes are cut short now and then.
    Moody,
    /// Everything would block.
    Blocking,
}

/// A file system in memory that is in a mood.
#[derive(Debug)]
pub(super) struct MoodyFiles {
    pub(super) files: Arc<MemoryFileSystem>,
    state: Arc<MoodState>,
}

#[derive(Debug)]
struct MoodState {
    mood: Mood,
    choices: Choices,
    /// Writes fail when that many bytes were written.
    space: AtomicU64,
    /// What is asked of open files without changing them fails.
    looks_fail: Arc<AtomicBool>,
}

impl MoodState {
    fn would_block<T>(&self) -> Option<io::Result<T>> {
        let blocks = match self.mood {
            Mood::Ready => false,
            Mood::Moody => self.choices.one_in(3),
            Mood::Blocking => true,
        };
        blocks.then(|| Err(ErrorKind::WouldBlock.into()))
    }

    fn take_space(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        let take = |space: u64| space.checked_sub(bytes);
        let taken = self
            .space
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| ErrorKind::StorageFull.into())
    }
}

impl MoodyFiles {
    pub(super) fn new(mood: Mood, seed: u64, space: u64) -> Arc<Self> {
        let state = MoodState {
            mood,
            choices: Choices::new(seed),
            space: AtomicU64::new(space),
            looks_fail: Arc::default(),
        };
        Arc::new(Self {
            files: Arc::new(MemoryFileSystem::new()),
            state: Arc::new(state),
        })
    }

    fn wrap(&self, answer: io::Result<Answer>) -> io::Result<Answer> {
        Ok(match answer? {
            Answer::File(file) => Answer::File(Arc::new(MoodyFile {
                file,
                state: Arc::clone(&self.state),
            })),
            Answer::Directory(directory) => Answer::Directory(Box::new(MoodyDirectory {
                directory,
                state: Arc::clone(&self.state),
            })),
            answer => answer,
        })
    }
}

impl FileSystem for MoodyFiles {
    fn try_call(&self, call: &Call) -> io::Result<Answer> {
        self.state
            .would_block()
            .unwrap_or_else(|| self.wrap(self.files.try_call(call)))
    }

    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        Box::pin(async move { self.wrap(self.files.try_call(&call)) })
    }

    fn can_watch(&self) -> bool {
        true
    }

    fn watch(self: Arc<Self>, request: WatchRequest, feed: Feed) -> Work<Subscription> {
        Arc::clone(&self.files).watch(request, feed)
    }
}

#[derive(Debug)]
struct MoodyFile {
    file: Arc<dyn File>,
    state: Arc<MoodState>,
}

impl File for MoodyFile {
    fn try_read_at(&self, offset: u64, slots: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.state
            .would_block()
            .unwrap_or_else(|| self.file.try_read_at(offset, slots))
    }

    fn try_write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(result) = self.state.would_block() {
            return result;
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).unwrap();
        if self.state.mood == Mood::Moody {
            let some = &first[..=self.state.choices.below(first.len())];
            self.state.take_space(some.len())?;
            return self.file.try_write_at(offset, &[IoSlice::new(some)]);
        }
        self.state
            .take_space(slices.iter().map(|slice| slice.len()).sum())?;
        self.file.try_write_at(offset, slices)
    }

    fn try_call(&self, call: &FileCall) -> io::Result<Answer> {
        if *call == FileCall::Metadata && self.state.looks_fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk does not say"));
        }
        self.state
            .would_block()
            .unwrap_or_else(|| self.file.try_call(call))
    }

    fn read_at(self: Arc<Self>, offset: u64, block: Block) -> Work<Block> {
        Arc::clone(&self.file).read_at(offset, block)
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        Box::pin(async move {
            self.state.take_space(bytes.len())?;
            Arc::clone(&self.file).write_at(offset, bytes).await
        })
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        Arc::clone(&self.file).call(call)
    }

    fn identity(&self) -> Option<(u64, u64)> {
        self.file.identity()
    }
}

#[derive(Debug)]
struct MoodyDirectory {
    directory: Box<dyn Directory>,
    state: Arc<MoodState>,
}

impl Directory for MoodyDirectory {
    fn try_read(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.state
            .would_block()
            .unwrap_or_else(|| self.directory.try_read(batch))
    }

    fn read(mut self: Box<Self>, mut batch: Batch) -> Work<(Box<dyn Directory>, Batch)> {
        Box::pin(async move {
            self.directory.try_read(&mut batch)?;
            Ok((self as Box<dyn Directory>, batch))
        })
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A machine whose threads run when they are told to, in any order.
#[derive(Clone, Default)]
pub(super) struct SimulatedHost {
    tasks: Arc<Mutex<Vec<Task>>>,
    /// How long each look at the clock takes it forward.
    pub(super) tick: Rc<Cell<Duration>>,
    passed: Rc<Cell<Duration>>,
    pub(super) most_tasks: Rc<Cell<usize>>,
    start: Rc<Cell<Option<Instant>>>,
    /// Blocks that were hashed.
    pub(super) steps: Arc<AtomicU64>,
    /// What the task is that came last.
    pub(super) last_kind: Rc<Cell<Option<Kind>>>,
}

impl Host for SimulatedHost {
    fn hasher(&self) -> Hasher {
        let steps = Arc::clone(&self.steps);
        Box::new(move |step| {
            steps.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(Ok(step.perform())))
        })
    }

    fn spawn(&self, kind: Kind, work: Task) {
        self.last_kind.set(Some(kind));
        let mut tasks = self.tasks.lock().unwrap();
        tasks.push(work);
        self.most_tasks.set(self.most_tasks.get().max(tasks.len()));
    }

    #[expect(clippy::disallowed_methods, reason = "only a start to count from")]
    fn now(&self) -> Instant {
        let start = self.start.get().unwrap_or_else(Instant::now);
        self.start.set(Some(start));
        self.passed.set(self.passed.get() + self.tick.get());
        start + self.passed.get()
    }

    fn unix_time(&self) -> u64 {
        1_700_000_000
    }
}

impl SimulatedHost {
    /// How many tasks are there.
    pub(super) fn tasks(&self) -> usize {
        self.tasks.lock().unwrap().len()
    }

    /// Runs the task that came last to its end.
    pub(super) fn run_last(&self) {
        let mut task = self.tasks.lock().unwrap().pop().unwrap();
        let mut context = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_ready());
    }

    /// Runs one task to its end, if there is one.
    pub(super) fn run_one(&self, choices: &Choices) -> bool {
        let mut tasks = self.tasks.lock().unwrap();
        if tasks.is_empty() {
            return false;
        }
        let index = choices.below(tasks.len());
        let mut task = tasks.swap_remove(index);
        drop(tasks);
        assert!(
            task.as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        );
        true
    }
}

/// A channel to a client that gives window when it likes.
#[derive(Debug, Default)]
pub(super) struct SimulatedChannel {
    /// What the client has received.
    received: Vec<u8>,
    /// What waits for window.
    queue: Vec<u8>,
    pub(super) window: usize,
    pub(super) credit: usize,
    /// Where the slots of a room are cut.
    slot_len: usize,
    pub(super) most_queued: usize,
}

/// What the simulated queue holds, in bytes.
const QUEUE_MAX: usize = 300 * 1024;

impl SimulatedChannel {
    fn drain(&mut self) {
        let len = self.queue.len().min(self.window);
        self.received.extend(self.queue.drain(..len));
        self.window -= len;
    }
}

impl Outlet for SimulatedChannel {
    fn space(&mut self) -> usize {
        QUEUE_MAX - self.queue.len()
    }

    fn send(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.space());
        self.queue.extend_from_slice(bytes);
        self.most_queued = self.most_queued.max(self.queue.len());
        self.drain();
    }

    fn data(
        &mut self,
        id: RequestId,
        len: u32,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let len = len as usize;
        if !self.queue.is_empty() || self.window < DATA_HEADER_LEN + len {
            return None;
        }
        let mut bytes = vec![0; len];
        let mut slots: Vec<_> = bytes
            .chunks_mut(self.slot_len.max(1))
            .map(IoSliceMut::new)
            .collect();
        let result = read(&mut slots);
        if let Ok(got @ 1..) = result {
            self.received
                .extend(Data::header(id, u32::try_from(got).unwrap()));
            self.received.extend(&bytes[..got]);
            self.window -= DATA_HEADER_LEN + got;
        }
        Some(result)
    }

    fn give_credit(&mut self, bytes: usize) {
        self.credit += bytes;
    }
}

impl Places for Vec<u8> {
    fn bytes(&self, start: usize, len: usize) -> &[u8] {
        &self[start..start + len]
    }
}

/// What a client got for a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Got {
    Status(StatusCode),
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<Vec<u8>>),
    Size(u64),
    Extended(Vec<u8>),
}

/// An engine with everything around it.
pub(super) struct Simulation {
    pub(super) engine: Engine<SimulatedHost>,
    pub(super) host: SimulatedHost,
    pub(super) channel: SimulatedChannel,
    pub(super) files: Arc<MemoryFileSystem>,
    pub(super) looks_fail: Arc<AtomicBool>,
    pub(super) budget: Arc<HandleBudget>,
    pub(super) choices: Choices,
    /// What the client wrote and the window has not let through.
    outgoing: Vec<u8>,
    /// How much it may have on the way: the server's window.
    pub(super) window: usize,
    pub(super) fed: usize,
    next_id: RequestId,
    replies: RefCell<BTreeMap<RequestId, Got>>,
    decoder: ReplyDecoder,
    decoded: usize,
    body: Vec<u8>,
}

pub(super) fn policy() -> Policy {
    Policy {
        user: "anna".to_owned(),
        access: Access::ReadWrite,
        rules: None,
        exclusive_uploads: false,
        arrivals: None,
        symbolic_links: true,
        hard_links: true,
        standing: Standing::Guest,
    }
}

impl Simulation {
    pub(super) fn new(mood: Mood, seed: u64) -> Self {
        Self::with(mood, seed, policy(), u64::MAX)
    }

    pub(super) fn with(mood: Mood, seed: u64, policy: Policy, space: u64) -> Self {
        let moody = MoodyFiles::new(mood, seed, space);
        let files = Arc::clone(&moody.files);
        let looks_fail = Arc::clone(&moody.state.looks_fail);
        let host = SimulatedHost::default();
        let budget = Arc::new(HandleBudget::new(1000));
        let engine = Engine::new(
            host.clone(),
            Arc::new(Root::new(moody)),
            Arc::new(policy),
            Arc::clone(&budget),
            Mailbox::new(|| {}),
        );
        let channel = SimulatedChannel {
            window: 1 << 30,
            slot_len: 1 + Choices::new(seed).below(5000),
            ..SimulatedChannel::default()
        };
        let mut this = Self {
            engine,
            host,
            channel,
            files,
            looks_fail,
            budget,
            choices: Choices::new(seed ^ 0x5555),
            outgoing: Vec::new(),
            window: 1 << 20,
            fed: 0,
            next_id: 0,
            replies: RefCell::default(),
            decoder: ReplyDecoder::new(Limits::default()),
            decoded: 0,
            body: Vec::new(),
        };
        let init = Init {
            version: PROTOCOL_VERSION,
            extensions: Pairs::EMPTY,
        };
        init.encode_packet(&mut this.outgoing);
        this.settle();
        this
    }

    /// Puts a request into the client's stream.
    pub(super) fn request<'a>(&mut self, request: impl Into<Request<'a>>) -> RequestId {
        self.next_id += 1;
        request
            .into()
            .encode_packet(self.next_id, &mut self.outgoing);
        self.next_id
    }

    /// Puts any bytes into the client's stream.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// One request, and what comes of it.
    pub(super) fn ask<'a>(&mut self, request: impl Into<Request<'a>>) -> Got {
        let id = self.request(request);
        self.settle();
        self.take(id)
    }

    pub(super) fn take(&mut self, id: RequestId) -> Got {
        self.replies
            .borrow_mut()
            .remove(&id)
            .unwrap_or_else(|| panic!("no reply to {id}"))
    }

    pub(super) fn has(&self, id: RequestId) -> bool {
        self.replies.borrow().contains_key(&id)
    }

    /// A turn: some of the client's bytes, in some pieces.
    pub(super) fn turn(&mut self, most: usize) -> bool {
        let unacknowledged = self.fed - self.channel.credit;
        let len = self
            .outgoing
            .len()
            .min(self.window - unacknowledged)
            .min(most);
        let bytes: Vec<u8> = self.outgoing.drain(..len).collect();
        self.fed += len;
        // Packets lie in the arena with other things between.
        let mut arena = Vec::new();
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            arena.resize(arena.len() + self.choices.below(20), 0xee);
            let cut = 1 + self.choices.below(rest.len().min(40_000));
            pieces.push((arena.len(), cut));
            arena.extend_from_slice(&rest[..cut]);
            rest = &rest[cut..];
        }
        for &(at, len) in &pieces {
            self.engine
                .on_data(&arena[at..at + len], at, &mut self.channel)
                .unwrap();
        }
        self.engine.end_of_turn(&arena, &mut self.channel);
        // Nothing is noted beyond the turn.
        arena.fill(0xdd);
        let again = self.engine.drive(&mut self.channel).unwrap();
        self.channel.drain();
        assert!(self.channel.credit <= self.fed, "more credit than bytes");
        again || len > 0
    }

    /// Runs turns and threads until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            let received = self.channel.received.len();
            let mut progress = self.turn(usize::MAX);
            progress |= self.host.run_one(&self.choices);
            progress |= self.channel.received.len() > received;
            if !progress {
                break;
            }
        }
        self.read_replies();
    }

    /// Runs turns until nothing moves, while all threads hang.
    pub(super) fn hang(&mut self) {
        loop {
            let received = self.channel.received.len();
            if !self.turn(usize::MAX) && self.channel.received.len() == received {
                break;
            }
        }
        self.read_replies();
    }

    /// Runs turns of any size and threads in any order, with a client that reads now and then,
    /// until everything is answered.
    pub(super) fn jumble(&mut self, turn_max: usize) {
        let mut still = 0;
        self.channel.window = 0;
        while still < 50 {
            let received = self.channel.received.len();
            let most = 1 + self.choices.below(turn_max);
            let mut progress = self.turn(most);
            for _ in 0..self.choices.below(4) {
                progress |= self.host.run_one(&self.choices);
            }
            if self.choices.one_in(2) {
                self.channel.window =
                    (self.channel.window + self.choices.below(600_000)).min(2 << 20);
            }
            progress |= self.channel.received.len() > received;
            still = if progress { 0 } else { still + 1 };
        }
        self.channel.window = 1 << 30;
        self.settle();
    }

    fn read_replies(&mut self) {
        let input = std::mem::take(&mut self.channel.received);
        let mut rest = &input[..];
        loop {
            let step = self.decoder.next(rest).unwrap();
            rest = &rest[step.consumed..];
            let (id, got) = match step.event {
                None => break,
                Some(ReplyEvent::Version(_)) => continue,
                Some(ReplyEvent::DataStart { .. }) => {
                    self.body.clear();
                    continue;
                }
                Some(ReplyEvent::DataPiece { bytes, .. }) => {
                    self.body.extend_from_slice(bytes);
                    continue;
                }
                Some(ReplyEvent::DataEnd { id }) => (id, Got::Data(std::mem::take(&mut self.body))),
                Some(ReplyEvent::Reply { id, response }) => {
                    let got = match response {
                        Response::Status(status) => Got::Status(status.code),
                        Response::Handle(handle) => Got::Handle(handle.to_vec()),
                        Response::Name(names) => {
                            Got::Names(names.iter().map(|name| name.filename.to_vec()).collect())
                        }
                        Response::Attrs(attrs) => Got::Size(attrs.attrs.size.unwrap()),
                        Response::ExtendedReply(bytes) => Got::Extended(bytes.to_vec()),
                        Response::Data(_) => unreachable!(),
                    };
                    (id, got)
                }
                Some(other) => panic!("{other:?}"),
            };
            self.decoded += 1;
            let earlier = self.replies.borrow_mut().insert(id, got);
            assert_eq!(earlier, None, "{id} was answered twice");
        }
    }

    /// Everything was answered and given back.
    pub(super) fn assert_idle(&self) {
        assert!(self.engine.is_idle());
        assert_eq!(self.channel.credit, self.fed, "all credit is given back");
        assert!(self.outgoing.is_empty());
    }
}
