//! Work on local files: where it stands if the file system is quick, on a thread if not.
//!
//! Calls on the page cache take microseconds, and a thread for them costs half as much again as
//! they do. But a file system may be on the network, or full of writes: so none is trusted until
//! its first write was seen to be quick, and one that was slow twice goes to a thread until it is
//! quick again. Never on the driving task: `fsync`, walks, and whatever an embedder brings.

#![expect(
    clippy::disallowed_methods,
    reason = "how long a call took cannot be passed in"
)]

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    local::{Created, Hash, Leftovers, LocalFault, Opened, Tree},
    ranges::Span,
};
use crate::{
    platform::LocalEntry,
    requests::{calls::WakeDriver, slots::Key},
};

/// A call that takes longer is slow.
const SLOW: Duration = Duration::from_millis(4);
/// Slow calls that make a file system slow.
const SLOW_CALLS_MAX: u8 = 2;
/// Quick calls in a row that make it quick again.
const QUICK_CALLS: u8 = 16;
/// Threads that work for one connection at a time.
const THREADS_MAX: usize = 4;
/// Bytes of data that wait for slow disks and for [`Sink`](crate::Sink)s, or that were asked for
/// and are to come, on one SFTP channel: no more is asked of the server while it is so much.
pub const HELD_MAX: usize = 8 * 1024 * 1024;
/// File systems whose speed is remembered.
const SPEEDS_MAX: usize = 64;

/// Runs work on a thread that may block.
pub(crate) type Spawn = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// The disk work of one connection.
pub(crate) struct Disk {
    shared: Arc<Threads>,
    spawn: Spawn,
    /// Bytes of data that wait to be written.
    held: usize,
}

struct Threads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Task>,
    running: usize,
    done: VecDeque<Completion>,
    wake: Option<WakeDriver>,
    /// Nobody asks what was done any more.
    closed: bool,
    /// To be done when nothing else is under way any more, after that.
    last: Vec<LastWord>,
}

type LastWord = Box<dyn FnOnce() + Send>;

struct Task {
    job: Key,
    item: Key,
    held: usize,
    work: Box<dyn FnOnce() -> Done + Send>,
}

/// Work that was done on a thread.
pub(crate) struct Completion {
    pub job: Key,
    pub item: Key,
    pub done: Done,
    held: usize,
}

/// What came of a piece of work.
pub(crate) enum Done {
    /// The directories above a transfer were opened or created.
    Rooted(Result<Arc<Tree>, LocalFault>),
    /// A directory was created.
    DirMade(Result<(), LocalFault>),
    /// A file to write was created.
    Created(Result<Created, LocalFault>),
    /// Bytes were written.
    Written {
        span: Span,
        result: Result<(), LocalFault>,
    },
    /// A file got its name.
    Named(Result<(), LocalFault>),
    /// A file to read was opened.
    Opened(Result<Opened, LocalFault>),
    /// Bytes were read.
    Read {
        offset: u64,
        result: Result<Vec<u8>, LocalFault>,
    },
    /// A file was hashed.
    Hashed(Result<Hash, LocalFault>),
    /// Bytes were compared with those of a source: whether they are the same.
    Compared(bool),
    /// A directory was listed.
    Listed(Result<Vec<LocalEntry>, LocalFault>),
    /// A file was removed; nobody can do anything if it was not.
    Removed,
    /// The work panicked: an embedder's doing.
    Panicked,
}

impl Disk {
    pub(crate) fn new(spawn: Spawn) -> Self {
        let shared = Arc::new(Threads {
            state: Mutex::default(),
        });
        Self {
            shared,
            spawn,
            held: 0,
        }
    }

    /// How to tell the driving task that work was done.
    pub(crate) fn set_wake(&self, wake: WakeDriver) {
        self.shared.lock().wake = Some(wake);
    }

    /// Does work here if the file system is quick, else on a thread: then it comes back later.
    pub(crate) fn run(
        &mut self,
        speed: &Speed,
        (job, item): (Key, Key),
        work: impl FnOnce() -> Done + Send + 'static,
    ) -> Option<Done> {
        if speed.is_quick() {
            return Some(work());
        }
        self.run_on_thread((job, item), 0, work);
        None
    }

    /// Does work on a thread; `held` bytes of data wait for it.
    pub(crate) fn run_on_thread(
        &mut self,
        (job, item): (Key, Key),
        held: usize,
        work: impl FnOnce() -> Done + Send + 'static,
    ) {
        self.held = self.held.saturating_add(held);
        let mut state = self.shared.lock();
        state.waiting.push_back(Task {
            job,
            item,
            held,
            work: Box::new(work),
        });
        if state.running < THREADS_MAX {
            state.running += 1;
            drop(state);
            let mut worker = Worker {
                threads: Arc::clone(&self.shared),
                is_done: false,
            };
            (self.spawn)(Box::new(move || worker.work()));
        }
    }

    /// Nobody will ask what was done: what is dropped with it is dropped at once.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.wake = None;
        let done = std::mem::take(&mut state.done);
        let last = state.take_last();
        drop(state);
        drop(done);
        last.into_iter().for_each(|word| word());
    }

    /// Does `word` when [`close`](Self::close) was called and all work is done, with whatever came
    /// of it dropped: right then, where there is none.
    pub(crate) fn at_close(&self, word: impl FnOnce() + Send + 'static) {
        self.shared.lock().last.push(Box::new(word));
    }

    /// Bytes of data that wait to be written.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// The next piece of work that was done on a thread.
    pub(crate) fn next_done(&mut self) -> Option<Completion> {
        let completion = self.shared.lock().done.pop_front()?;
        self.held = self.held.saturating_sub(completion.held);
        Some(completion)
    }
}

impl State {
    /// What is to be done last, if that time has come.
    fn take_last(&mut self) -> Vec<LastWord> {
        if self.closed && self.running == 0 && self.waiting.is_empty() {
            std::mem::take(&mut self.last)
        } else {
            Vec::new()
        }
    }
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Work is done outside the lock; nothing can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread, from when it is asked for.
struct Worker {
    threads: Arc<Threads>,
    is_done: bool,
}

impl Worker {
    /// Piece after piece until nothing waits.
    fn work(&mut self) {
        loop {
            let mut state = self.threads.lock();
            let Some(Task {
                job,
                item,
                held,
                work,
            }) = state.waiting.pop_front()
            else {
                state.running -= 1;
                let last = state.take_last();
                drop(state);
                self.is_done = true;
                return last.into_iter().for_each(|word| word());
            };
            drop(state);
            // A sink of the embedder's may panic: the transfer ends, the others go on.
            let done = std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or(Done::Panicked);
            let mut state = self.threads.lock();
            if state.closed {
                drop(state);
                drop(done);
                continue;
            }
            let first = state.done.is_empty();
            state.done.push_back(Completion {
                job,
                item,
                done,
                held,
            });
            let wake = if first { state.wake.clone() } else { None };
            drop(state);
            if let Some(wake) = wake {
                wake();
            }
        }
    }
}

impl Drop for Worker {
    /// A runtime that ends runs no more threads: nobody waits for them.
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.threads.lock();
        state.running -= 1;
        let waiting = if state.running == 0 {
            std::mem::take(&mut state.waiting)
        } else {
            VecDeque::new()
        };
        let last = state.take_last();
        drop(state);
        drop(waiting);
        last.into_iter().for_each(|word| word());
    }
}

/// How quick a file system was seen to be.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    kind: AtomicU8,
    slow: AtomicU8,
    quick: AtomicU8,
    /// It cannot tell whether bytes are in memory.
    blind: AtomicBool,
    /// Whether files can be written that have no name yet.
    nameless: AtomicU8,
}

const UNTRIED: u8 = 0;
const HAS: u8 = 1;
const HAS_NOT: u8 = 2;

const UNPROVEN: u8 = 0;
const QUICK: u8 = 1;
const SLOW_KIND: u8 = 2;

impl Speed {
    /// Whether calls may be made on the driving task.
    pub(crate) fn is_quick(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == QUICK
    }

    /// Whether the file system can tell if bytes are in memory. tmpfs cannot, and need not.
    pub(crate) fn knows_cache(&self) -> bool {
        !self.blind.load(Ordering::Relaxed)
    }

    /// It turned out that it cannot.
    pub(crate) fn set_blind(&self) {
        self.blind.store(true, Ordering::Relaxed);
    }

    /// Whether the file system has files without a name that can be given one later; `attempt`
    /// finds out, when it is first asked.
    pub(crate) fn has_nameless(&self, attempt: impl FnOnce() -> bool) -> bool {
        match self.nameless.load(Ordering::Relaxed) {
            UNTRIED => {
                let has = attempt();
                let state = if has { HAS } else { HAS_NOT };
                self.nameless.store(state, Ordering::Relaxed);
                has
            }
            state => state == HAS,
        }
    }

    /// Makes a call, and learns from the time it took.
    pub(crate) fn measure<R>(&self, call: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        let result = call();
        self.learn(began.elapsed());
        result
    }

    fn learn(&self, took: Duration) {
        // Two threads may count at once and lose one: the next call will tell.
        if took > SLOW {
            self.quick.store(0, Ordering::Relaxed);
            let slow = self.slow.load(Ordering::Relaxed).saturating_add(1);
            self.slow.store(slow, Ordering::Relaxed);
            if slow >= SLOW_CALLS_MAX {
                self.kind.store(SLOW_KIND, Ordering::Relaxed);
            }
            return;
        }
        let quick = self.quick.load(Ordering::Relaxed).saturating_add(1);
        self.quick.store(quick, Ordering::Relaxed);
        if quick >= QUICK_CALLS {
            self.quick.store(0, Ordering::Relaxed);
            self.slow.store(0, Ordering::Relaxed);
            self.kind.store(QUICK, Ordering::Relaxed);
        } else if self.kind.load(Ordering::Relaxed) == UNPROVEN {
            self.kind.store(QUICK, Ordering::Relaxed);
        }
    }
}

/// The speeds of the file systems that were met.
#[derive(Debug, Default)]
pub(crate) struct Speeds {
    known: Mutex<VecDeque<(u64, Arc<Speed>)>>,
    /// What killed runs left on them.
    pub(super) leftovers: Arc<Leftovers>,
}

impl Speeds {
    /// The speed of the file system of this number.
    pub(crate) fn of(&self, file_system: u64) -> Arc<Speed> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, speed)) = known.iter().find(|(number, _)| *number == file_system) {
            return Arc::clone(speed);
        }
        if known.len() == SPEEDS_MAX {
            known.pop_front();
        }
        let speed = Arc::new(Speed::default());
        known.push_back((file_system, Arc::clone(&speed)));
        speed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_trusted_after_its_first_quick_write_and_not_after_two_slow_ones() {
        let speed = Speed::default();
        assert!(!speed.is_quick());
        speed.learn(Duration::from_micros(50));
        assert!(speed.is_quick());
        speed.learn(2 * SLOW);
        assert!(speed.is_quick());
        speed.learn(2 * SLOW);
        assert!(!speed.is_quick());
        for _ in 0..QUICK_CALLS {
            speed.learn(Duration::from_micros(50));
        }
        assert!(speed.is_quick());
    }

    #[test]
    fn slow_calls_far_apart_are_forgotten() {
        let speed = Speed::default();
        for _ in 0..10 {
            speed.learn(2 * SLOW);
            for _ in 0..QUICK_CALLS {
                speed.learn(Duration::ZERO);
            }
        }
        assert!(speed.is_quick());
    }

    #[test]
    fn work_on_threads_comes_back_and_panics_are_contained() {
        let mut disk = Disk::new(Arc::new(|work| work()));
        disk.run_on_thread((1, 2), 7, || Done::DirMade(Ok(())));
        disk.run_on_thread((3, 4), 5, || panic!("an embedder's bug"));
        assert_eq!(disk.held(), 12);
        let first = disk.next_done().unwrap();
        assert_eq!((first.job, first.item), (1, 2));
        assert_eq!(disk.held(), 5);
        assert!(matches!(disk.next_done().unwrap().done, Done::Panicked));
        assert!(disk.next_done().is_none());
        assert_eq!(disk.held(), 0);
    }

    #[test]
    fn the_last_word_waits_for_all_work_that_is_under_way() {
        for runs in [true, false] {
            let queue: Arc<Mutex<Vec<LastWord>>> = Arc::default();
            let spawned = Arc::clone(&queue);
            let mut disk = Disk::new(Arc::new(move |work| spawned.lock().unwrap().push(work)));
            let said = Arc::new(AtomicBool::new(false));
            for _ in 0..6 {
                disk.run_on_thread((1, 2), 0, || Done::DirMade(Ok(())));
            }
            let word = Arc::clone(&said);
            disk.at_close(move || word.store(true, Ordering::Relaxed));
            disk.close();
            let threads: Vec<_> = queue.lock().unwrap().drain(..).collect();
            assert_eq!(threads.len(), THREADS_MAX);
            for thread in threads {
                assert!(!said.load(Ordering::Relaxed));
                if runs {
                    thread();
                } else {
                    drop(thread); // the runtime is gone
                }
            }
            assert!(said.load(Ordering::Relaxed));
        }
        // Where nothing is under way it is said at once.
        let disk = Disk::new(Arc::new(|work| work()));
        let said = Arc::new(AtomicBool::new(false));
        let word = Arc::clone(&said);
        disk.at_close(move || word.store(true, Ordering::Relaxed));
        disk.close();
        assert!(said.load(Ordering::Relaxed));
    }
}
