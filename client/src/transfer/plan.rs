//! What a transfer has before it, and what it did: above connections, under one lock.
//!
//! A plan is a set of files and directories, the policy for them, the progress and the report.
//! Its workers, one for each channel that works on it, take a file or a directory at a time, add
//! what a listing brings, and say what became of each; no packet touches it. A large file is
//! published as a joint one, so that others take ranges of it as well, and stays in the plan when
//! a connection was lost. The caller waits for the outcome (`outcome.rs`), and gives the plan up
//! by no longer waiting.

mod members;
mod workers;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use ketch_protocol::RemotePath;

use self::members::{Member, Members};
pub(crate) use self::{
    members::Orders,
    workers::{Facts, Rest},
};
use super::{
    control::{Control, Controlled, Wanted},
    crew::Direction,
    error::TransferError,
    hands::Hands,
    local::Endings,
    options::Streams,
    rate::RateLimit,
    report::{Place, Report},
};
use crate::{
    progress::Progress,
    quirks::Quirks,
    requests::{calls::Shared, job::Job},
    sftp::Sftp,
};

/// Files that were found and not begun, before no more directories are read.
pub(crate) const FOUND_MAX: usize = 4096;
/// Entries of all directories of one plan.
pub(crate) const ENTRIES_MAX: u64 = if cfg!(test) { 20_000 } else { 10_000_000 };
/// Bytes that files and directories hold which were found and not begun. A million directories fit;
/// a server that makes up names without end does not fill the memory with them.
const WAITING_MAX: usize = if cfg!(test) { 4 << 20 } else { 256 << 20 };
/// What each of them is counted as beside its path.
const WAITING_EACH: usize = 256;
/// Directories below each other.
pub(crate) const DEPTH_MAX: u8 = 64;

/// What a plan is made of: differs between the directions.
pub(crate) trait Work: Send + Sync + 'static {
    /// A file that nobody has begun.
    type File: Send;
    /// A directory that nobody reads.
    type Dir: Send;
    /// A file that several may work on.
    type Joint: Joint;
    /// What the caller wants of it.
    type Options: Clone + Send + Unpin;
    /// Where the bytes go.
    const DIRECTION: Direction;

    /// How many channels and connections the caller allows.
    fn streams(options: &Self::Options) -> Streams;

    /// The path of a file that waits.
    fn path_of_file(file: &Self::File) -> &RemotePath;

    /// The path of a directory that waits.
    fn path_of_dir(dir: &Self::Dir) -> &RemotePath;

    /// A worker for the channel that `shared` leads to. It keeps `connection` until it has said its
    /// last word.
    fn worker(
        plan: &Arc<Plan<Self>>,
        options: &Self::Options,
        shared: &Arc<Shared>,
        connection: Option<Sftp>,
    ) -> Box<dyn Job>
    where
        Self: Sized;
}

/// A file that several may work on.
pub(crate) trait Joint: Send + Sync {
    /// Those who work on it.
    fn hands(&self) -> &Hands;

    /// What is on the server if the plan ends while it is an orphan.
    fn leftover(&self) -> Option<&RemotePath>;
}

/// What something that waits is counted as.
fn weight(path: &RemotePath) -> usize {
    path.as_bytes().len() + WAITING_EACH
}

/// What there is to begin.
pub(crate) enum Taken<W: Work> {
    /// A file that is new.
    File(W::File),
    /// A file that was begun.
    Joint(Arc<W::Joint>),
}

/// A plan.
pub(crate) struct Plan<W: Work> {
    state: Mutex<State<W>>,
    over: AtomicBool,
    /// The server's disk was seen to be full.
    pub was_full: AtomicBool,
    control: Control,
    /// Directories on the server that all is in that goes there.
    pub endings: Arc<Endings>,
    limit: Option<RateLimit>,
    /// Counters for whoever wants to look.
    pub progress: Arc<Progress>,
}

struct State<W: Work> {
    files: VecDeque<W::File>,
    /// The last one found is read first: so depth costs little memory.
    dirs: Vec<W::Dir>,
    /// Files that were published, until they are done.
    joints: Vec<Arc<W::Joint>>,
    /// Temporary files on the server that are to be removed, and whose connection is gone.
    leftovers: Vec<RemotePath>,
    /// Temporary files that a server may still create, of a connection that is gone: to be removed
    /// when all is done, for until then others may have their names.
    doubtful: Vec<RemotePath>,
    members: Members,
    entries: u64,
    /// Bytes that files and directories hold which nobody has begun.
    waiting: usize,
    report: Report,
    /// What ended everything.
    fatal: Option<TransferError>,
    outcome: Option<Result<Report, TransferError>>,
    /// The outcome was told.
    finished: bool,
    waker: Option<Waker>,
    /// Whether a lost connection can be made anew.
    has_second_chance: bool,
    /// The round trip time with which who opens channels was told that many files wait.
    many_told: Option<Duration>,
    /// Whether another channel can be opened in place of one that stalled.
    has_other_channels: bool,
    /// Channels that stalled when no other was there, and what was moved when the last one did.
    stalls: u32,
    moved_at_stall: u64,
    /// What the server was seen to do, on the last channel that stalled.
    habits: Quirks,
    /// How the last connection was lost.
    lost: Option<TransferError>,
    facts: Facts,
    /// It counts as paused in the progress.
    is_paused: bool,
}

impl<W: Work> Plan<W> {
    /// An empty plan.
    pub(crate) fn new(
        progress: Option<Arc<Progress>>,
        control: &Control,
        limit: Option<&RateLimit>,
    ) -> Arc<Self> {
        let plan = Arc::new(Self {
            state: Mutex::new(State {
                files: VecDeque::new(),
                dirs: Vec::new(),
                joints: Vec::new(),
                leftovers: Vec::new(),
                doubtful: Vec::new(),
                members: Members::new(),
                entries: 0,
                waiting: 0,
                report: Report::default(),
                fatal: None,
                outcome: None,
                finished: false,
                waker: None,
                has_second_chance: false,
                many_told: None,
                has_other_channels: false,
                stalls: 0,
                moved_at_stall: 0,
                habits: Quirks::default(),
                lost: None,
                facts: Facts::default(),
                is_paused: false,
            }),
            was_full: AtomicBool::new(false),
            over: AtomicBool::new(false),
            control: control.clone(),
            endings: Arc::default(),
            limit: limit.cloned(),
            progress: progress.unwrap_or_default(),
        });
        let told: Weak<dyn Controlled> = Arc::downgrade(&plan) as _;
        if let Some(limit) = limit {
            limit.attach(Weak::clone(&told));
        }
        control.attach(told);
        if control.wanted() != Wanted::Run {
            plan.on_control();
        }
        plan
    }

    /// What pauses and ranks it.
    pub(crate) const fn control(&self) -> &Control {
        &self.control
    }

    /// Whether nothing is to be sent for it.
    pub(crate) fn is_held(&self) -> bool {
        self.control.is_paused() && !self.is_over()
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        // Nothing is done under the lock that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file of about `bytes`.
    pub(crate) fn add_file(&self, file: impl Into<W::File>, bytes: u64) {
        self.progress.add_file(bytes);
        self.give_back_file(file);
    }

    /// Takes a file back that was begun, and is to be begun again.
    pub(crate) fn give_back_file(&self, file: impl Into<W::File>) {
        let file = file.into();
        let mut state = self.lock();
        if self.is_over() {
            return;
        }
        state.waiting += weight(W::path_of_file(&file));
        state.files.push_back(file);
        state.wake_resting();
    }

    /// Adds a directory.
    pub(crate) fn add_dir(&self, dir: W::Dir) {
        let mut state = self.lock();
        if self.is_over() {
            return;
        }
        state.waiting += weight(W::path_of_dir(&dir));
        state.dirs.push(dir);
        state.wake_resting();
    }

    /// Publishes a file that others may work on.
    pub(crate) fn add_joint(&self, joint: &Arc<W::Joint>) {
        let mut state = self.lock();
        if self.is_over() {
            return;
        }
        state.joints.push(Arc::clone(joint));
        state.wake_resting();
        state.wake_crew();
    }

    /// A joint file is done, or cannot be.
    pub(crate) fn remove_joint(&self, joint: &Arc<W::Joint>) {
        self.lock()
            .joints
            .retain(|other| !Arc::ptr_eq(other, joint));
    }

    /// Adds a temporary file on the server that is to be removed.
    pub(crate) fn add_leftover(&self, path: RemotePath) {
        let mut state = self.lock();
        state.leftovers.push(path);
        state.wake_resting();
    }

    /// Adds a temporary file whose creation was not answered, and which may come yet.
    pub(crate) fn add_doubtful(&self, path: RemotePath) {
        self.lock().doubtful.push(path);
    }

    /// The next temporary file to remove.
    pub(crate) fn take_leftover(&self) -> Option<RemotePath> {
        self.lock().leftovers.pop()
    }

    /// Counts an entry of a directory.
    ///
    /// # Errors
    /// The limit, in words, if there are too many, or too many that wait.
    pub(crate) fn count_entry(&self) -> Result<(), &'static str> {
        let mut state = self.lock();
        state.entries += 1;
        if state.entries > ENTRIES_MAX {
            return Err("ten million entries");
        }
        if state.waiting > WAITING_MAX {
            return Err("256 MiB of names that wait");
        }
        Ok(())
    }

    /// What to begin next: a file that was begun and that nobody works on any more, a new one, or
    /// else a part of one that others work on; `is_mine` says which ones one works on already.
    pub(crate) fn take(&self, is_mine: impl Fn(&Arc<W::Joint>) -> bool) -> Option<Taken<W>> {
        let mut state = self.lock();
        if let Some(joint) = state.joints.iter().find(|joint| joint.hands().are_gone()) {
            return Some(Taken::Joint(Arc::clone(joint)));
        }
        if let Some(file) = state.files.pop_front() {
            state.waiting -= weight(W::path_of_file(&file));
            return Some(Taken::File(file));
        }
        let is_welcome =
            |joint: &&Arc<W::Joint>| joint.hands().left_for_others() > 0 && !is_mine(joint);
        let joint = state.joints.iter().find(is_welcome)?;
        Some(Taken::Joint(Arc::clone(joint)))
    }

    /// The next directory to read, unless enough files wait already.
    pub(crate) fn take_dir(&self) -> Option<W::Dir> {
        let mut state = self.lock();
        if state.files.len() >= FOUND_MAX {
            return None;
        }
        let dir = state.dirs.pop()?;
        state.waiting -= weight(W::path_of_dir(&dir));
        Some(dir)
    }

    /// Whether enough files wait already.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().files.len() >= FOUND_MAX
    }

    /// Whether files or directories are left that nobody has begun.
    pub(crate) fn has_new(&self) -> bool {
        let state = self.lock();
        !state.files.is_empty() || !state.dirs.is_empty()
    }

    /// Writes into the report.
    pub(crate) fn report(&self, write: impl FnOnce(&mut Report)) {
        write(&mut self.lock().report);
    }

    /// Something could not be transferred; the rest goes on.
    pub(crate) fn fail(&self, place: Place, error: TransferError) {
        self.lock().report.fail(place, error);
    }

    /// Everything ends, because of `error` if there is one; nothing more is begun.
    pub(crate) fn stop(&self, error: Option<TransferError>) {
        // What is let go of from here on is not whole.
        self.endings.close();
        let mut state = self.lock();
        state.files.clear();
        state.dirs.clear();
        state.waiting = 0;
        let joints = std::mem::take(&mut state.joints);
        let orphans = joints.iter().filter(|joint| joint.hands().are_gone());
        let leftovers = orphans.filter_map(|joint| joint.leftover());
        state.leftovers.extend(leftovers.cloned());
        if state.fatal.is_none() {
            state.fatal = error;
        }
        if !self.over.swap(true, Ordering::AcqRel) {
            state.wake_all();
        }
        drop(state);
        // What they hold goes with them: not under the lock.
        drop(joints);
    }

    /// Nobody waits for the outcome any more.
    pub(crate) fn give_up(&self) {
        self.stop(None);
    }

    /// Whether nothing more is to be done: it was given up, or stopped.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The last word: the caller learns what became of the plan. What is said after it is lost.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        self.finish_with(&mut state);
    }

    fn finish_with(&self, state: &mut State<W>) {
        state.finish();
        if std::mem::take(&mut state.is_paused) {
            self.progress.set_paused(false);
        }
        state.wake_crew();
    }

    /// Asks for the outcome; who asks is told when it is there, or when the crew has to look.
    pub(crate) fn poll_outcome(&self, cx: &Context<'_>) -> Poll<Result<Report, TransferError>> {
        let mut state = self.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<W: Work> Controlled for Plan<W> {
    fn on_control(&self) {
        if self.control.is_cancelled() {
            self.stop(Some(TransferError::Cancelled));
            // Before the first worker came, it is that one's to say the last word.
            if self.lock().members.had_any() {
                self.finish_alone();
            }
            return;
        }
        let mut state = self.lock();
        let is_paused = self.control.is_paused() && !state.finished;
        if std::mem::replace(&mut state.is_paused, is_paused) != is_paused {
            self.progress.set_paused(is_paused);
        }
        state.wake_all();
        state.wake_crew();
    }
}

impl<W: Work> State<W> {
    fn is_empty(&self) -> bool {
        self.files.is_empty()
            && self.dirs.is_empty()
            && self.joints.is_empty()
            && self.leftovers.is_empty()
    }

    fn wake_resting(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.resting) {
            member.wake();
        }
    }

    fn wake_all(&mut self) {
        self.members.iter_mut().for_each(Member::wake);
    }

    fn wake_crew(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let mut report = std::mem::take(&mut self.report);
        // One file alone fails with its own error.
        let transferred = report.files + report.links + report.directories;
        let alone = report.failed_count == 1 && transferred == 0;
        let outcome = if let Some(error) = self.fatal.take() {
            Err(error)
        } else if alone && let Some(failed) = report.failed.pop() {
            Err(failed.error)
        } else if report.failed_count > 0 {
            Err(TransferError::Incomplete {
                report: Box::new(report),
            })
        } else {
            Ok(report)
        };
        self.outcome = Some(outcome);
    }
}
