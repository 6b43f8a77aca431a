//! Jobs that were handed to threads, and their way back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::fs::feed::{Feed, Subscription};
use crate::fs::{Answer, Batch, Block, Directory, has_panicked};
use crate::handles::SlotId;
use crate::refusal::Refusal;
use crate::session::{CopiedWrite, HashPlan, ReadJob, Ticket};

/// Results of jobs, put in by any thread and taken out by the connection's task.
pub(crate) struct Mailbox {
    completions: Mutex<Vec<Returned>>,
    is_abandoned: AtomicBool,
    /// Where jobs of all sessions are counted, if anybody wants to know.
    jobs: OnceLock<Arc<AtomicUsize>>,
    /// What is done when work panics.
    alarm: OnceLock<Box<dyn Fn() + Send + Sync>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A job's result, and when the job was handed away, if that tells how fast the root is.
pub(super) type Returned = (Option<Instant>, Completion);

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Completion {
    Answered {
        ticket: Ticket,
        result: io::Result<Answer>,
    },
    /// As `Answered`, of a job that takes as long as it takes.
    Long {
        ticket: Ticket,
        result: io::Result<Answer>,
    },
    Hashed {
        ticket: Ticket,
        plan: Arc<HashPlan>,
        result: Result<Vec<u8>, Refusal>,
    },
    Watched {
        ticket: Ticket,
        feed: Feed,
        result: io::Result<Subscription>,
    },
    Written {
        ticket: Ticket,
        write: CopiedWrite,
        len: usize,
        result: io::Result<()>,
    },
    Listed {
        ticket: Ticket,
        result: io::Result<(Box<dyn Directory>, Batch)>,
    },
    Read {
        read: ReadJob,
        result: io::Result<Block>,
    },
}

impl Completion {
    /// Whose work it was, and whether it was long.
    pub(super) const fn of(&self) -> (Option<SlotId>, bool) {
        match self {
            Self::Answered { ticket, .. }
            | Self::Written { ticket, .. }
            | Self::Listed { ticket, .. } => (ticket.owner(), false),
            Self::Long { ticket, .. }
            | Self::Watched { ticket, .. }
            | Self::Hashed { ticket, .. } => (ticket.owner(), true),
            Self::Read { read, .. } => (Some(read.slot), false),
        }
    }
}

impl Mailbox {
    /// `wake` brings about a turn of the connection's task; it is called from any thread.
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            completions: Mutex::default(),
            is_abandoned: AtomicBool::new(false),
            jobs: OnceLock::new(),
            alarm: OnceLock::new(),
            wake: Box::new(wake),
        })
    }

    /// Calls `alarm` when work panics, from any thread: asked for before there is any.
    pub(crate) fn on_panic(&self, alarm: impl Fn() + Send + Sync + 'static) {
        let _ = self.alarm.set(Box::new(alarm));
    }

    fn panicked(&self) {
        if let Some(alarm) = self.alarm.get() {
            alarm();
        }
    }

    /// Counts jobs in `jobs` from now on: asked for before there is any.
    pub(super) fn count_in(&self, jobs: &Arc<AtomicUsize>) {
        let _ = self.jobs.set(Arc::clone(jobs));
    }

    fn put(&self, completion: Returned) {
        let mut completions = self
            .completions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        completions.push(completion);
        // One wake-up a batch: whoever finds it empty gives it.
        let is_first = completions.len() == 1;
        drop(completions);
        if is_first {
            (self.wake)();
        }
    }

    /// Brings about a turn of the connection's task.
    pub(super) fn wake(&self) {
        (self.wake)();
    }

    /// Takes everything out; `empty` is put in its place.
    pub(super) fn take(&self, empty: Vec<Returned>) -> Vec<Returned> {
        let mut completions = self
            .completions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if completions.is_empty() {
            empty
        } else {
            std::mem::replace(&mut *completions, empty)
        }
    }

    /// Nobody takes anything out any more.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("is_abandoned", &self.is_abandoned())
            .finish_non_exhaustive()
    }
}

/// Puts a result into the mailbox; or an error if it is dropped without one, as when the work
/// panicked: every request is answered.
pub(super) struct Delivery<T, F: FnOnce(io::Result<T>) -> Completion> {
    mailbox: Arc<Mailbox>,
    since: Option<Instant>,
    done: Option<F>,
    result: std::marker::PhantomData<fn(T)>,
}

impl<T, F: FnOnce(io::Result<T>) -> Completion> Delivery<T, F> {
    pub(super) fn new(mailbox: Arc<Mailbox>, since: Option<Instant>, done: F) -> Self {
        if let Some(jobs) = mailbox.jobs.get() {
            jobs.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            mailbox,
            since,
            done: Some(done),
            result: std::marker::PhantomData,
        }
    }

    pub(super) fn deliver(mut self, result: io::Result<T>) {
        if result.as_ref().is_err_and(has_panicked) {
            self.mailbox.panicked();
        }
        if let Some(done) = self.done.take() {
            self.mailbox.put((self.since, done(result)));
        }
    }
}

impl<T, F: FnOnce(io::Result<T>) -> Completion> Drop for Delivery<T, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.mailbox.panicked();
        }
        if let Some(jobs) = self.mailbox.jobs.get() {
            jobs.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(done) = self.done.take() {
            self.mailbox
                .put((None, done(Err(io::ErrorKind::Interrupted.into()))));
        }
    }
}
