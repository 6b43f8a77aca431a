//! The door for fuzzing: a session with its engine as a machine, without SSH, task or clock.
//!
//! Only with the feature `fuzzing`, and no part of the API. The bytes of a client go in, those of the
//! server come out, time is a number, and work for threads is done when it is said to be.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ketch_protocol::{DATA_HEADER_LEN, Data, RequestId};

use crate::engine::{Engine, Hasher, Host, Mailbox, Outlet, Places};
use crate::fs::FileSystem;
use crate::handles::HandleBudget;
use crate::policy::standing::Standing;
use crate::policy::{Access, Policy};
use crate::root::Root;
use crate::shares::Kind;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the queue of the channel holds, in bytes.
const QUEUE_MAX: usize = 256 * 1024;
/// The server's window: as much as the client may have sent without getting credit for it.
pub const WINDOW: usize = 2 << 20;
/// Handles of the server.
const HANDLES_MAX: usize = 1000;

/// The server's side of one SFTP channel.
pub struct Machine {
    engine: Engine<Idle>,
    host: Idle,
    channel: Channel,
}

/// Threads that do nothing until they are told to, and a clock that stands.
#[derive(Clone)]
struct Idle {
    tasks: Arc<Mutex<Vec<Task>>>,
    now: Arc<Mutex<Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host for Idle {
    fn spawn(&self, _: Kind, work: Task) {
        locked(&self.tasks).push(work);
    }

    fn hasher(&self) -> Hasher {
        Box::new(|step| Box::pin(std::future::ready(Ok(step.perform()))))
    }

    fn now(&self) -> Instant {
        *locked(&self.now)
    }

    fn unix_time(&self) -> u64 {
        1_700_000_000
    }
}

/// A channel to a client that gives window when it likes.
#[derive(Default)]
struct Channel {
    received: Vec<u8>,
    queue: Vec<u8>,
    window: usize,
    credit: usize,
    sent: usize,
}

impl Channel {
    fn drain(&mut self) {
        let len = self.queue.len().min(self.window);
        self.received.extend(self.queue.drain(..len));
        self.window -= len;
    }
}

impl Outlet for Channel {
    fn space(&mut self) -> usize {
        QUEUE_MAX.saturating_sub(self.queue.len())
    }

    fn send(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.space(), "more than there is space for");
        self.queue.extend_from_slice(bytes);
        self.drain();
    }

    fn data(
        &mut self,
        id: RequestId,
        len: u32,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !self.queue.is_empty() || self.window < DATA_HEADER_LEN.saturating_add(len) {
            return None;
        }
        let mut bytes = vec![0; len];
        let result = read(&mut [IoSliceMut::new(&mut bytes)]);
        if let Ok(got @ 1..) = result {
            let head = Data::header(id, u32::try_from(got).unwrap_or(u32::MAX));
            self.received.extend(head);
            self.received.extend(bytes.iter().take(got));
            self.window = self
                .window
                .saturating_sub(DATA_HEADER_LEN.saturating_add(got));
        }
        Some(result)
    }

    fn give_credit(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(bytes);
        assert!(self.credit <= self.sent, "more credit than bytes");
    }
}

/// What lies in the receive arena of a turn.
struct Arena<'a>(&'a [u8]);

impl Places for Arena<'_> {
    fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.0
            .get(start..start.saturating_add(len))
            .unwrap_or_default()
    }
}

impl Machine {
    /// A session at the time `now`. With `read_only` its user may only look.
    #[must_use]
    pub fn new(files: Arc<dyn FileSystem>, read_only: bool, now: Instant) -> Self {
        let host = Idle {
            tasks: Arc::default(),
            now: Arc::new(Mutex::new(now)),
        };
        let policy = Policy {
            user: "anna".to_owned(),
            access: if read_only {
                Access::ReadOnly
            } else {
                Access::ReadWrite
            },
            rules: None,
            arrivals: None,
            exclusive_uploads: false,
            symbolic_links: true,
            hard_links: true,
            standing: Standing::Guest,
        };
        let engine = Engine::new(
            host.clone(),
            Arc::new(Root::new(files)),
            Arc::new(policy),
            Arc::new(HandleBudget::new(HANDLES_MAX)),
            Mailbox::new(|| {}),
        );
        let channel = Channel::default();
        Self {
            engine,
            host,
            channel,
        }
    }

    /// Bytes that the client may send now.
    #[must_use]
    pub const fn window(&self) -> usize {
        WINDOW.saturating_sub(self.channel.sent.saturating_sub(self.channel.credit))
    }

    /// A turn with these bytes of the client, in pieces of at most `piece` bytes.
    ///
    /// # Errors
    /// Why the session ended: nothing more may be asked of it.
    pub fn turn(&mut self, bytes: &[u8], piece: usize) -> Result<(), String> {
        self.channel.sent = self.channel.sent.saturating_add(bytes.len());
        let mut at = 0_usize;
        for now in bytes.chunks(piece.max(1)) {
            self.engine
                .on_data(now, at, &mut self.channel)
                .map_err(|why| why.to_string())?;
            at = at.saturating_add(now.len());
        }
        self.engine.end_of_turn(&Arena(bytes), &mut self.channel);
        while self
            .engine
            .drive(&mut self.channel)
            .map_err(|why| why.to_string())?
        {}
        self.channel.drain();
        Ok(())
    }

    /// Does the work of one thread, whichever `choice` falls on; says whether there was any.
    ///
    /// # Panics
    /// If a file system in memory waits for something.
    pub fn work(&mut self, choice: usize) -> bool {
        let mut tasks = locked(&self.host.tasks);
        if tasks.is_empty() {
            return false;
        }
        let index = choice % tasks.len();
        let mut task = tasks.swap_remove(index);
        drop(tasks);
        let mut context = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_ready(), "work hangs");
        true
    }

    /// Work that waits for a thread.
    #[must_use]
    pub fn waiting_work(&self) -> usize {
        locked(&self.host.tasks).len()
    }

    /// The client takes so many more bytes.
    pub fn open_window(&mut self, bytes: usize) {
        self.channel.window = self.channel.window.saturating_add(bytes);
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        let mut now = locked(&self.host.now);
        *now = now.checked_add(time).unwrap_or(*now);
    }

    /// The client will ask for nothing more.
    pub const fn end(&mut self) {
        self.engine.end_watches();
    }

    /// What the client received since it was last asked for.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.channel.received)
    }

    /// Whether everything that was asked is answered, and the answers have left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.engine.is_idle() && self.channel.queue.is_empty()
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}
