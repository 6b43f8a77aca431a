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
use super::router::ForwardTarget;
use crate::channel::ChannelId;
use crate::error::ConnectionError;
use crate::event::Refusal;
use crate::info::ConnectionInfo;
use crate::session::{SessionStart, Tcpip};

/// Most calls that wait for the task.
const COMMANDS_MAX: usize = 256;

/// Why a connection ended; the same for everyone who waits for something on it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side ended it.
    #[error("the connection was closed")]
    Requested,
    /// This side ended it, because nothing was asked for in a long time
    /// ([`Timers::idle`](crate::config::Timers::idle)).
    #[error("the connection was closed, because nothing was asked for in a long time")]
    Idle,
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
    /// The channel was opened before the server had answered, and was refused; the connection goes
    /// on.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The channel was opened before the server had let the user in, and it did not; the connection
    /// goes on.
    #[error("the channel was opened before the server let the user in")]
    NotLoggedIn,
    /// The channel was not opened: there are too many of them on the connection, which goes on.
    #[error("too many channels are open on this connection")]
    TooMany,
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
    /// Command, environment and names together are longer than a packet.
    #[error("the request for the program is too long to be sent")]
    TooLong,
    /// The server was told that no more sessions would be opened.
    #[error("this side said that it would open no more sessions")]
    NoMoreSessions,
    /// It was opened before the server had let the user in, and it did not.
    #[error("the channel was opened before the server let the user in")]
    NotLoggedIn,
    /// The peer neither opened nor refused it within the time that the caller allowed.
    #[error("the server did not answer the request for a channel in time")]
    TimedOut,
    /// The connection is gone.
    #[error("the connection is gone")]
    Closed(#[source] Arc<CloseReason>),
}

/// Why the server does not listen on a port.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The server refused: it may not, or somebody else listens there.
    #[error("the server refused to listen on the port")]
    Refused,
    /// The server does not listen there for this connection.
    #[error("the server does not listen on the port")]
    NotForwarded,
    /// As many ports or requests are there as this side allows on a connection.
    #[error("too many ports are forwarded on this connection")]
    TooMany,
    /// The server did not answer within the time that the caller allowed.
    #[error("the server did not answer the request to listen in time")]
    TimedOut,
    /// The connection is gone.
    #[error("the connection is gone")]
    Closed(#[source] Arc<CloseReason>),
}

/// Why a ping was not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The peer did not say that it answers pings, or enough of them wait for their answers.
    #[error("the peer does not answer pings, or has enough to answer")]
    NotSent,
    /// The connection is gone.
    #[error("the connection is gone")]
    Closed(#[source] Arc<CloseReason>),
}

/// A channel to be opened.
pub(super) enum ChannelKind {
    Session(SessionStart),
    /// Before anything is answered, if the number can be foreseen.
    Early(SessionStart),
    DirectTcpip(Tcpip),
    ForwardedTcpip(Tcpip),
}

/// Where it is told what became of a channel.
pub(super) struct OpenReply {
    pub(super) sender: oneshot::Sender<Result<ChannelId, OpenError>>,
    /// The channel is of use even if nobody waits to be told: its application is told too.
    pub(super) is_detached: bool,
}

/// What a handle asks the task to do.
pub(super) enum Command {
    Open {
        kind: ChannelKind,
        window: u32,
        application: Box<dyn Application>,
        reply: OpenReply,
    },
    Forward {
        address: String,
        port: u16,
        target: ForwardTarget,
        reply: oneshot::Sender<Result<u16, ForwardError>>,
    },
    CancelForward {
        address: String,
        port: u16,
        reply: oneshot::Sender<Result<(), ForwardError>>,
    },
    Ping(oneshot::Sender<Result<(), PingError>>),
    NoMoreSessions,
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
    /// Whether a channel was opened, so that the next one's number cannot be foreseen.
    opened: AtomicBool,
    no_more_sessions: AtomicBool,
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
            opened: AtomicBool::new(false),
            no_more_sessions: AtomicBool::new(false),
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

    /// A channel was opened before there was a handle.
    pub(super) fn set_opened(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// What was opened is void.
    pub(super) fn reset_opened(&self) {
        self.opened.store(false, Ordering::Release);
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
            if commands.len() >= COMMANDS_MAX && command.is_refusable() {
                drop(commands);
                return command.refuse_as_too_many();
            }
            commands.push_back(command);
        }
        self.wake();
    }
}

impl Command {
    /// Whether somebody waits for its outcome.
    const fn is_refusable(&self) -> bool {
        !matches!(self, Self::NoMoreSessions | Self::Rekey | Self::Disconnect)
    }

    fn refuse_as_too_many(self) {
        match self {
            Self::Open {
                application, reply, ..
            } => reply.refuse(OpenError::TooMany, application, &CloseReason::TooMany),
            Self::Forward { reply, .. } => drop(reply.send(Err(ForwardError::TooMany))),
            Self::CancelForward { reply, .. } => drop(reply.send(Err(ForwardError::TooMany))),
            Self::Ping(reply) => drop(reply.send(Err(PingError::NotSent))),
            Self::NoMoreSessions | Self::Rekey | Self::Disconnect => {}
        }
    }
}

impl OpenReply {
    /// Tells that the channel will not be; an application that others already use learns it too.
    pub(super) fn refuse(
        self,
        error: OpenError,
        mut application: Box<dyn Application>,
        why: &CloseReason,
    ) {
        if self.is_detached {
            application.on_closed(&Arc::new(why.clone()));
        }
        let _ = self.sender.send(Err(error));
    }
}

fn refuse(command: Command, why: &Arc<CloseReason>) {
    let why = || Arc::clone(why);
    match command {
        Command::Open {
            application, reply, ..
        } => reply.refuse(OpenError::Closed(why()), application, &why()),
        Command::Forward { reply, .. } => drop(reply.send(Err(ForwardError::Closed(why())))),
        Command::CancelForward { reply, .. } => drop(reply.send(Err(ForwardError::Closed(why())))),
        Command::Ping(reply) => drop(reply.send(Err(PingError::Closed(why())))),
        Command::NoMoreSessions | Command::Rekey | Command::Disconnect => {}
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

    /// Opens a channel, starts a program on it and runs `application` there. A `&str` is the name of
    /// a subsystem.
    ///
    /// `window` is how many bytes the server may send ahead of our credit (RFC 4254 §5.2). Dropping
    /// the future before it is ready closes the channel again.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_session(
        &self,
        start: impl Into<SessionStart>,
        window: u32,
        application: Box<dyn Application>,
    ) -> Result<ChannelId, OpenError> {
        let start = start.into();
        self.check(&start)?;
        self.open(ChannelKind::Session(start), window, application)
            .await
    }

    /// Opens a channel that carries a connection which the server makes (RFC 4254 §7.2). As
    /// [`ConnectionHandle::open_session`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_direct_tcpip(
        &self,
        to: Tcpip,
        window: u32,
        application: Box<dyn Application>,
    ) -> Result<ChannelId, OpenError> {
        self.open(ChannelKind::DirectTcpip(to), window, application)
            .await
    }

    /// Server: opens a channel that carries a connection which came to a port that the client had it
    /// listen on (RFC 4254 §7.2). As [`ConnectionHandle::open_session`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_forwarded_tcpip(
        &self,
        at: Tcpip,
        window: u32,
        application: Box<dyn Application>,
    ) -> Result<ChannelId, OpenError> {
        self.open(ChannelKind::ForwardedTcpip(at), window, application)
            .await
    }

    /// The right to open the first channel early; `None` once a channel was opened.
    #[must_use]
    pub fn early(&self) -> Option<EarlyOpen<'_>> {
        let first = !self.shared.opened.load(Ordering::Acquire);
        first.then_some(EarlyOpen { handle: self })
    }

    fn check(&self, start: &SessionStart) -> Result<(), OpenError> {
        if start.is_too_long() {
            return Err(OpenError::TooLong);
        }
        if self.shared.no_more_sessions.load(Ordering::Acquire) {
            return Err(OpenError::NoMoreSessions);
        }
        Ok(())
    }

    async fn open(
        &self,
        kind: ChannelKind,
        window: u32,
        application: Box<dyn Application>,
    ) -> Result<ChannelId, OpenError> {
        self.shared.opened.store(true, Ordering::Release);
        let (sender, answer) = oneshot::channel();
        self.shared.submit(Command::Open {
            kind,
            window,
            application,
            reply: OpenReply {
                sender,
                is_detached: false,
            },
        });
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(OpenError::Closed(self.closed().await)),
        }
    }

    /// Client: asks the server to listen on a port of an address (RFC 4254 §7.1), and returns the
    /// port, which the server chooses where 0 is asked for. An empty address means all,
    /// `localhost` the loopback ones.
    ///
    /// `target` is called for each connection that comes in, and gives the application to run on its
    /// channel, or `None` to refuse it. It must not block.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn request_forward(
        &self,
        address: impl Into<String>,
        port: u16,
        target: ForwardTarget,
    ) -> Result<u16, ForwardError> {
        let (reply, answer) = oneshot::channel();
        // Servers number what listens as they number channels.
        self.shared.opened.store(true, Ordering::Release);
        self.shared.submit(Command::Forward {
            address: address.into(),
            port,
            target,
            reply,
        });
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(ForwardError::Closed(self.closed().await)),
        }
    }

    /// Client: asks the server to listen no more. Connections that are there go on.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn cancel_forward(
        &self,
        address: impl Into<String>,
        port: u16,
    ) -> Result<(), ForwardError> {
        match self.start_cancel_forward(address.into(), port).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ForwardError::Closed(self.closed().await)),
        }
    }

    /// As [`ConnectionHandle::cancel_forward`], without waiting for the answer.
    pub fn forget_forward(&self, address: impl Into<String>, port: u16) {
        drop(self.start_cancel_forward(address.into(), port));
    }

    fn start_cancel_forward(
        &self,
        address: String,
        port: u16,
    ) -> oneshot::Receiver<Result<(), ForwardError>> {
        let (reply, answer) = oneshot::channel();
        self.shared.submit(Command::CancelForward {
            address,
            port,
            reply,
        });
        answer
    }

    /// Asks the peer for a sign of life (`ping@openssh.com`) and waits for it: what it takes is the
    /// time to the peer and back.
    ///
    /// # Errors
    /// [`PingError`]: only peers that say so answer pings.
    pub async fn ping(&self) -> Result<(), PingError> {
        let (reply, answer) = oneshot::channel();
        self.shared.submit(Command::Ping(reply));
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(PingError::Closed(self.closed().await)),
        }
    }

    /// Client: tells the server that no more sessions will be opened (`no-more-sessions@openssh.com`),
    /// so that nobody who takes this side over can open any. Sessions that are open go on.
    pub fn no_more_sessions(&self) {
        self.shared.no_more_sessions.store(true, Ordering::Release);
        self.shared.submit(Command::NoMoreSessions);
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

/// The right to open the first channel of a connection early; see [`ConnectionHandle::early`].
#[derive(Debug)]
pub struct EarlyOpen<'a> {
    handle: &'a ConnectionHandle,
}

impl EarlyOpen<'_> {
    /// Opens a channel, asks for a program, and runs `application` there at once, before the server
    /// has answered anything: up to [`EAGER_BYTES_MAX`](crate::channel::EAGER_BYTES_MAX) of what it
    /// says leave together with the rest, to the number that the server is expected to give.
    ///
    /// OpenSSH's server and ours take that, and it saves three round trips. Another server may end the
    /// connection, also with [`ConnectionError::WrongChannelForeseen`]: ask for it only where it is known to
    /// work. If another channel was faster, this one is opened plainly. What is refused is told to
    /// [`Application::on_closed`], too.
    ///
    /// # Errors
    /// [`OpenError::TooLong`], [`OpenError::NoMoreSessions`].
    pub fn open_session(
        self,
        start: impl Into<SessionStart>,
        window: u32,
        application: Box<dyn Application>,
    ) -> Result<EarlyChannel, OpenError> {
        let start = start.into();
        self.handle.check(&start)?;
        let (reply, channel) = EarlyChannel::new();
        self.handle.shared.opened.store(true, Ordering::Release);
        self.handle.shared.submit(Command::Open {
            kind: ChannelKind::Early(start),
            window,
            application,
            reply,
        });
        Ok(channel)
    }
}

/// A channel that is used before it is known to be open. Dropping it changes nothing.
#[derive(Debug)]
pub struct EarlyChannel {
    answer: oneshot::Receiver<Result<ChannelId, OpenError>>,
}

impl EarlyChannel {
    pub(super) fn new() -> (OpenReply, Self) {
        let (sender, answer) = oneshot::channel();
        let is_detached = true;
        let reply = OpenReply {
            sender,
            is_detached,
        };
        (reply, Self { answer })
    }

    /// Waits until it is known to be open.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn opened(self) -> Result<ChannelId, OpenError> {
        match self.answer.await {
            Ok(outcome) => outcome,
            Err(_) => Err(OpenError::Closed(Arc::new(CloseReason::Requested))),
        }
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
