//! What others hold of a connection's task: a handle, a waker, and the reason why it ended.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use tokio::sync::{Notify, oneshot};

use super::Application;
use super::observed::Observed;
use crate::channel::ChannelId;
use crate::error::ConnectionError;
use crate::event::Refusal;
use crate::info::ConnectionInfo;

/// Most calls that wait for the task.
const COMMANDS_MAX: usize = 256;

/// Why a connection ended; the same for everyone who waits for something on it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side ended it.
    #[error("the connection was closed")]
    Requested,
    /// The peer closed the stream without a word.
    #[error("the peer closed the connection")]
    Eof,
    /// The stream failed.
    #[error("the connection was lost")]
    Io(#[source] Arc<io::Error>),
    /// The machine gave up.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The channel alone was closed; the connection goes on.
    #[error("the channel was closed by the server")]
    Channel,
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Why a channel could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// As many channels are open as this side allows on a connection.
    #[error("too many channels are open on this connection")]
    TooMany,
    /// The peer neither opened nor refused it within the time that the caller allowed.
    #[error("the server did not answer the request for a channel in time")]
    TimedOut,
    /// The connection is gone.
    #[error("the connection is gone")]
    Closed(#[source] Arc<CloseReason>),
}

/// What a handle asks the task to do.
pub(super) enum Command {
    Open {
        subsystem: String,
        window: u32,
        application: Box<dyn Application>,
        reply: oneshot::Sender<Result<ChannelId, OpenError>>,
    },
    Rekey,
    Disconnect,
}

/// What the task and everybody else share.
pub(super) struct Shared {
    commands: Mutex<VecDeque<Command>>,
    waker: Mutex<Option<Waker>>,
    /// A turn was asked for and has not begun.
    woken: AtomicBool,
    handles: AtomicUsize,
    closed: OnceLock<Arc<CloseReason>>,
    on_close: Notify,
    peer_identification: String,
    pub(super) observed: Observed,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(peer_identification: String, observed: Observed) -> Arc<Self> {
        Arc::new(Self {
            commands: Mutex::new(VecDeque::new()),
            waker: Mutex::new(None),
            woken: AtomicBool::new(false),
            handles: AtomicUsize::new(0),
            closed: OnceLock::new(),
            on_close: Notify::new(),
            peer_identification,
            observed,
        })
    }

    /// Called by the task at the start of a poll: who asks for a turn from now on wakes it.
    pub(super) fn register(&self, waker: &Waker) {
        let mut slot = lock(&self.waker);
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// Called by the task at the start of a turn. Returns whether a turn was asked for.
    pub(super) fn take_wake(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    pub(super) fn next_command(&self) -> Option<Command> {
        lock(&self.commands).pop_front()
    }

    /// Whether nobody holds a handle any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0
    }

    /// The task ends: everybody who waits learns why.
    pub(super) fn close(&self, why: Arc<CloseReason>) {
        let why = self.closed.get_or_init(|| why).clone();
        for command in lock(&self.commands).drain(..) {
            refuse(command, &why);
        }
        self.on_close.notify_waiters();
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Some(waker) = lock(&self.waker).as_ref()
        {
            waker.wake_by_ref();
        }
    }

    fn submit(&self, command: Command) {
        {
            let mut commands = lock(&self.commands);
            if let Some(why) = self.closed.get() {
                return refuse(command, why);
            }
            if commands.len() == COMMANDS_MAX && matches!(command, Command::Open { .. }) {
                if let Command::Open { reply, .. } = command {
                    let _ = reply.send(Err(OpenError::TooMany));
                }
                return;
            }
            commands.push_back(command);
        }
        self.wake();
    }
}

fn refuse(command: Command, why: &Arc<CloseReason>) {
    if let Command::Open { reply, .. } = command {
        let _ = reply.send(Err(OpenError::Closed(Arc::clone(why))));
    }
}

/// Asks a connection's task for a turn, from any task or thread. Cheap to clone and to call; many
/// calls before the turn begins are one.
#[derive(Clone)]
pub struct DriverWaker(pub(super) Arc<Shared>);

impl DriverWaker {
    /// Asks for a turn.
    pub fn wake(&self) {
        self.0.wake();
    }

    /// A waker that wakes nothing, for tests of applications.
    #[doc(hidden)]
    #[must_use]
    pub fn detached() -> Self {
        Self(Shared::new(String::new(), Observed::default()))
    }
}

impl fmt::Debug for DriverWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DriverWaker")
    }
}

/// A connection in use: cheap to clone, usable from any task.
///
/// A client's connection ends when the last handle is dropped; a server's when its peer leaves or
/// [`ConnectionHandle::disconnect`] is called.
pub struct ConnectionHandle {
    shared: Arc<Shared>,
}

impl ConnectionHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.handles.fetch_add(1, Ordering::AcqRel);
        Self { shared }
    }

    /// Opens a channel, starts a subsystem on it and runs `application` there.
    ///
    /// `window` is how many bytes the server may send ahead of our credit (RFC 4254 §5.2). Dropping
    /// the future before it is ready closes the channel again.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_session(
        &self,
        subsystem: &str,
        window: u32,
        application: Box<dyn Application>,
    ) -> Result<ChannelId, OpenError> {
        let (reply, answer) = oneshot::channel();
        let subsystem = subsystem.to_owned();
        self.shared.submit(Command::Open {
            subsystem,
            window,
            application,
            reply,
        });
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(OpenError::Closed(self.closed().await)),
        }
    }

    /// Exchanges keys now (RFC 4253 §9). Transfers go on.
    pub fn rekey(&self) {
        self.shared.submit(Command::Rekey);
    }

    /// Ends the connection: what was produced is sent, then the peer is told.
    pub fn disconnect(&self) {
        self.shared.submit(Command::Disconnect);
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> Arc<CloseReason> {
        loop {
            let notified = self.shared.on_close.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            if let Some(why) = self.shared.closed.get() {
                return Arc::clone(why);
            }
            notified.await;
        }
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<Arc<CloseReason>> {
        self.shared.closed.get().cloned()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.get().is_some()
    }

    /// The peer's identification line.
    #[must_use]
    pub fn peer_identification(&self) -> &str {
        &self.shared.peer_identification
    }

    /// How the connection is protected, and what went over it up to the last turn of its task.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.shared.observed.info()
    }
}

impl Clone for ConnectionHandle {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        if self.shared.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.wake();
        }
    }
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionHandle")
            .field("peer", &self.shared.peer_identification)
            .field("closed", &self.is_closed())
            .finish()
    }
}
