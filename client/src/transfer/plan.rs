//! What a transfer has before it, and what it did: above connections, under one lock.
//!
//! A plan is a set of files and directories, the policy for them, the progress and the report.
//! Whoever works on it takes a file or a directory at a time, adds what a listing brings, and
//! says what became of each; no packet touches it. The caller waits for the outcome, and gives the
//! plan up by no longer waiting.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::{
    error::TransferError,
    report::{Place, Report},
};
use crate::{
    progress::Progress,
    requests::calls::{Shared, Submission},
};

/// Files that were found and not begun, before no more directories are read.
pub(crate) const FOUND_MAX: usize = 4096;
/// Entries of all directories of one plan.
pub(crate) const ENTRIES_MAX: u64 = if cfg!(test) { 20_000 } else { 10_000_000 };
/// Directories below each other.
pub(crate) const DEPTH_MAX: u8 = 64;

/// A plan of files `F` and directories `D`.
pub(crate) struct Plan<F, D> {
    state: Mutex<State<F, D>>,
    given_up: AtomicBool,
    /// Counters for whoever wants to look.
    pub progress: Arc<Progress>,
}

struct State<F, D> {
    files: VecDeque<F>,
    /// The last one found is read first: so depth costs little memory.
    dirs: Vec<D>,
    entries: u64,
    report: Report,
    /// What ended everything.
    fatal: Option<TransferError>,
    outcome: Option<Result<Report, TransferError>>,
    /// The outcome was told.
    finished: bool,
    waker: Option<Waker>,
}

impl<F, D> Plan<F, D> {
    /// An empty plan.
    pub(crate) fn new(progress: Option<Arc<Progress>>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                files: VecDeque::new(),
                dirs: Vec::new(),
                entries: 0,
                report: Report::default(),
                fatal: None,
                outcome: None,
                finished: false,
                waker: None,
            }),
            given_up: AtomicBool::new(false),
            progress: progress.unwrap_or_default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<F, D>> {
        // Nothing is done under the lock that could leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file of about `bytes`.
    pub(crate) fn add_file(&self, file: F, bytes: u64) {
        self.progress.add_file(bytes);
        self.lock().files.push_back(file);
    }

    /// Adds a directory.
    pub(crate) fn add_dir(&self, dir: D) {
        self.lock().dirs.push(dir);
    }

    /// Counts an entry of a directory; false if there are too many.
    pub(crate) fn count_entry(&self) -> bool {
        let mut state = self.lock();
        state.entries += 1;
        state.entries <= ENTRIES_MAX
    }

    /// The next file to transfer.
    pub(crate) fn take_file(&self) -> Option<F> {
        self.lock().files.pop_front()
    }

    /// The next directory to read, unless enough files wait already.
    pub(crate) fn take_dir(&self) -> Option<D> {
        let mut state = self.lock();
        if state.files.len() >= FOUND_MAX {
            None
        } else {
            state.dirs.pop()
        }
    }

    /// Whether enough files wait already.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().files.len() >= FOUND_MAX
    }

    /// Whether nothing is left to begin.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.files.is_empty() && state.dirs.is_empty()
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
        let mut state = self.lock();
        state.files.clear();
        state.dirs.clear();
        if state.fatal.is_none() {
            state.fatal = error;
        }
    }

    /// The last word: the caller learns what became of the plan. What is said after it is lost.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.finished, true) {
            return;
        }
        let mut report = std::mem::take(&mut state.report);
        // One file alone fails with its own error.
        let alone = report.failed_count == 1 && report.files == 0 && report.directories == 0;
        let outcome = if let Some(error) = state.fatal.take() {
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
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether nobody waits for the outcome any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

/// Waits for the outcome of a plan; dropping it gives the plan up.
pub(crate) struct Outcome<F, D> {
    plan: Arc<Plan<F, D>>,
    shared: Arc<Shared>,
    over: bool,
}

impl<F, D> Outcome<F, D> {
    /// Waits for `plan`, which is worked on where `shared` leads.
    pub(crate) const fn new(plan: Arc<Plan<F, D>>, shared: Arc<Shared>) -> Self {
        Self {
            plan,
            shared,
            over: false,
        }
    }
}

impl<F, D> Future for Outcome<F, D> {
    type Output = Result<Report, TransferError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = {
            let mut state = self.plan.lock();
            let outcome = state.outcome.take();
            if outcome.is_none() {
                state.waker = Some(cx.waker().clone());
            }
            outcome
        };
        match outcome {
            Some(outcome) => {
                self.over = true;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl<F, D> Drop for Outcome<F, D> {
    fn drop(&mut self) {
        if !self.over {
            self.plan.given_up.store(true, Ordering::Release);
            self.shared.submit(Submission::Look);
        }
    }
}
