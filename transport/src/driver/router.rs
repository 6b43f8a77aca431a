//! Which application runs on which channel; events of the connection go to it and nowhere else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::handle::{
    ChannelKind, CloseReason, DriverWaker, ForwardError, OpenError, OpenReply, PingError,
};
use super::{Application, Arena, ChannelIo};
use crate::channel::ChannelId;
use crate::connection::Connection;
use crate::error::ConnectionError;
use crate::event::{Event, PeerChannel, Refusal, SessionRequest};
use crate::session::{ENV_MAX, Pty, Tcpip};
use ketch_keys::PublicKey;

/// Ports that the server listens on for one connection.
const FORWARDS_MAX: usize = 64;

/// Says what is run for the peer.
///
/// What a server is not told to offer it refuses: everything but subsystems has a default that does.
/// None of these may block or wait.
pub trait Acceptor: Send {
    /// Server: the application for a subsystem that the peer asks for; `None` refuses it.
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>>;

    /// Server: the application that runs a command; `None` refuses it.
    fn exec(&mut self, command: &[u8], setup: Setup) -> Option<Box<dyn Application>> {
        let _ = (command, setup);
        None
    }

    /// Server: the application that is the user's shell; `None` refuses it.
    fn shell(&mut self, setup: Setup) -> Option<Box<dyn Application>> {
        let _ = setup;
        None
    }

    /// Server: whether a program may find this variable in its environment.
    fn env(&mut self, name: &str, value: &str) -> bool {
        let _ = (name, value);
        false
    }

    /// Server: whether a program may find such a terminal.
    fn pty(&mut self, pty: &Pty) -> bool {
        let _ = pty;
        false
    }

    /// Server: the application that carries a connection to there; `None` refuses it.
    fn direct_tcpip(&mut self, to: &Tcpip) -> Option<Box<dyn Application>> {
        let _ = to;
        None
    }

    /// Server: listens on a port of an address, and returns the port; `None` refuses it. What comes
    /// in goes to [`ConnectionHandle::open_forwarded_tcpip`](super::ConnectionHandle::open_forwarded_tcpip).
    fn forward(&mut self, address: &str, port: u16) -> Option<u16> {
        let _ = (address, port);
        None
    }

    /// Server: listens there no more; whether it did.
    fn cancel_forward(&mut self, address: &str, port: u16) -> bool {
        let _ = (address, port);
        false
    }

    /// Client: the server says that these are its host keys. Returns those that it is to prove;
    /// asking costs it a signature for each.
    fn host_keys_offered(&mut self, keys: &[PublicKey]) -> Vec<PublicKey> {
        let _ = keys;
        Vec::new()
    }

    /// Client: the server has proved that it holds these host keys; none if a proof was wrong.
    fn host_keys_proved(&mut self, keys: Vec<PublicKey>) {
        let _ = keys;
    }
}

/// Runs nothing: what a client passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefuseAll;

impl Acceptor for RefuseAll {
    fn subsystem(&mut self, _name: &str) -> Option<Box<dyn Application>> {
        None
    }
}

/// The surroundings of a program that a peer asked for and was granted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Setup {
    /// Variables of the environment, in the order in which they were asked for.
    pub env: Vec<(String, String)>,
    /// The terminal.
    pub pty: Option<Pty>,
}

/// Gives the application for a connection that came to a forwarded port, or refuses it.
pub type ForwardTarget = Box<dyn FnMut(Tcpip) -> Option<Box<dyn Application>> + Send>;

enum Slot {
    Free,
    /// The peer's, without a program yet.
    Bare(Box<Setup>),
    Opening(Box<dyn Application>, OpenReply),
    Running(Box<dyn Application>),
    /// The channel is gone; what came before it went is still to be written, at the end of the turn.
    Leaving(Box<dyn Application>),
}

/// A port that the server listens on.
struct Forward {
    address: String,
    port: u16,
    target: ForwardTarget,
}

/// A port that it was asked to listen on.
struct ForwardAsked {
    forward: Forward,
    reply: oneshot::Sender<Result<u16, ForwardError>>,
}

/// A port that it was asked to listen on no more.
struct CancelAsked {
    address: String,
    port: u16,
    reply: oneshot::Sender<Result<(), ForwardError>>,
}

/// The applications of one connection, by channel.
pub(super) struct Router {
    slots: Vec<Slot>,
    /// Who waits to hear of a channel whose application runs already.
    early: Option<(ChannelId, OpenReply)>,
    forwards: Vec<Forward>,
    forwards_asked: VecDeque<ForwardAsked>,
    cancels_asked: VecDeque<CancelAsked>,
    pings: VecDeque<oneshot::Sender<Result<(), PingError>>>,
    acceptor: Box<dyn Acceptor>,
    waker: DriverWaker,
    failure: Option<ConnectionError>,
}

impl Router {
    pub(super) fn new(acceptor: Box<dyn Acceptor>, waker: DriverWaker) -> Self {
        Self {
            slots: Vec::new(),
            early: None,
            forwards: Vec::new(),
            forwards_asked: VecDeque::new(),
            cancels_asked: VecDeque::new(),
            pings: VecDeque::new(),
            acceptor,
            waker,
            failure: None,
        }
    }

    /// Who decides from now on.
    pub(super) fn set_acceptor(&mut self, acceptor: Box<dyn Acceptor>) {
        self.acceptor = acceptor;
    }

    fn slot(&mut self, id: ChannelId) -> &mut Slot {
        let index = usize::try_from(id.0).unwrap_or_default();
        if self.slots.len() <= index {
            // The machine bounds channel numbers by the number of channels.
            self.slots.resize_with(index + 1, || Slot::Free);
        }
        &mut self.slots[index]
    }

    /// Puts something on a channel whose number may still be that of one that is leaving.
    fn occupy(&mut self, id: ChannelId, slot: Slot) {
        if let Slot::Leaving(mut application) = std::mem::replace(self.slot(id), slot) {
            application.on_closed(&Arc::new(CloseReason::Channel));
        }
    }

    /// Opens a channel for an application of ours.
    pub(super) fn open(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        kind: ChannelKind,
        window: u32,
        application: Box<dyn Application>,
        reply: OpenReply,
    ) -> Result<(), ConnectionError> {
        let opened = match kind {
            ChannelKind::Session(start) => connection.open_session(start, window)?,
            ChannelKind::DirectTcpip(to) => connection.open_direct_tcpip(&to, window)?,
            ChannelKind::ForwardedTcpip(at) => connection.open_forwarded_tcpip(&at, window)?,
            ChannelKind::Early(start) => match connection.open_session_early(&start, window)? {
                Some(id) => {
                    self.run_early(id, connection, now, application, reply);
                    return self.failure.take().map_or(Ok(()), Err);
                }
                None => connection.open_session(start, window)?,
            },
        };
        match opened {
            Some(id) => self.occupy(id, Slot::Opening(application, reply)),
            None => reply.refuse(OpenError::TooMany, application, &CloseReason::TooMany),
        }
        Ok(())
    }

    /// Runs an application on a channel that nobody has confirmed.
    pub(super) fn run_early(
        &mut self,
        id: ChannelId,
        connection: &mut Connection,
        now: Instant,
        application: Box<dyn Application>,
        reply: OpenReply,
    ) {
        self.occupy(id, Slot::Running(application));
        self.early = Some((id, reply));
        self.with(id, connection, now, |application, io| {
            application.on_open(io);
        });
        self.with(id, connection, now, |application, io| application.drive(io));
    }

    /// What was opened early is void.
    pub(super) fn forget_early(&mut self) {
        let why = Arc::new(CloseReason::NotLoggedIn);
        if let Some((id, reply)) = self.early.take() {
            if let Slot::Running(mut application) = std::mem::replace(self.slot(id), Slot::Free) {
                application.on_closed(&why);
            }
            let _ = reply.sender.send(Err(OpenError::NotLoggedIn));
        }
    }

    /// Asks the server to listen.
    pub(super) fn forward(
        &mut self,
        connection: &mut Connection,
        address: String,
        port: u16,
        target: ForwardTarget,
        reply: oneshot::Sender<Result<u16, ForwardError>>,
    ) -> Result<(), ConnectionError> {
        let there = self.forwards.len() + self.forwards_asked.len();
        if there >= FORWARDS_MAX || !connection.ask_forward(&address, port)? {
            let _ = reply.send(Err(ForwardError::TooMany));
            return Ok(());
        }
        let forward = Forward {
            address,
            port,
            target,
        };
        self.forwards_asked
            .push_back(ForwardAsked { forward, reply });
        Ok(())
    }

    fn on_forward_answered(&mut self, bound: Option<u16>) {
        let Some(ForwardAsked { mut forward, reply }) = self.forwards_asked.pop_front() else {
            return;
        };
        let Some(port) = bound else {
            return drop(reply.send(Err(ForwardError::Refused)));
        };
        forward.port = port;
        self.forwards.push(forward);
        let _ = reply.send(Ok(port));
    }

    /// Asks the server to listen no more.
    pub(super) fn cancel_forward(
        &mut self,
        connection: &mut Connection,
        address: String,
        port: u16,
        reply: oneshot::Sender<Result<(), ForwardError>>,
    ) -> Result<(), ConnectionError> {
        let is_it = |forward: &Forward| forward.address == address && forward.port == port;
        if !self.forwards.iter().any(is_it) {
            let _ = reply.send(Err(ForwardError::NotForwarded));
            return Ok(());
        }
        if !connection.ask_cancel_forward(&address, port)? {
            let _ = reply.send(Err(ForwardError::TooMany));
            return Ok(());
        }
        self.cancels_asked.push_back(CancelAsked {
            address,
            port,
            reply,
        });
        Ok(())
    }

    fn on_forward_cancelled(&mut self, done: bool) {
        let Some(asked) = self.cancels_asked.pop_front() else {
            return;
        };
        // Even if the server knows nothing of it: nobody wants its connections any more.
        self.forwards
            .retain(|forward| forward.address != asked.address || forward.port != asked.port);
        let outcome = done.then_some(()).ok_or(ForwardError::NotForwarded);
        let _ = asked.reply.send(outcome);
    }

    /// The application for a connection that came to a port of ours. Servers name the address in
    /// their own ways, so the port decides; the address does where two have the same port.
    fn on_forwarded(&mut self, at: Tcpip) -> Option<Box<dyn Application>> {
        let on_port = |forward: &&mut Forward| forward.port == at.port;
        let alone = self.forwards.iter_mut().filter(on_port).count() == 1;
        let forward = self
            .forwards
            .iter_mut()
            .filter(on_port)
            .find(|forward| alone || forward.address == at.host)?;
        (forward.target)(at)
    }

    /// Sends a ping.
    pub(super) fn ping(
        &mut self,
        connection: &mut Connection,
        reply: oneshot::Sender<Result<(), PingError>>,
    ) -> Result<(), ConnectionError> {
        if connection.send_ping()? {
            self.pings.push_back(reply);
        } else {
            let _ = reply.send(Err(PingError::NotSent));
        }
        Ok(())
    }

    /// Calls the application on a channel, if one runs there.
    fn with(
        &mut self,
        id: ChannelId,
        connection: &mut Connection,
        now: Instant,
        call: impl FnOnce(&mut dyn Application, &mut ChannelIo<'_>),
    ) {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        let Self {
            slots,
            waker,
            failure,
            ..
        } = self;
        if let Some(Slot::Running(application)) = slots.get_mut(index) {
            let _entered = tracing::debug_span!("channel", id = id.0).entered();
            let mut io = ChannelIo {
                connection,
                channel: id,
                now,
                waker,
                failure,
            };
            call(&mut **application, &mut io);
        }
    }

    /// Hands an event to the application it is for.
    pub(super) fn on_event(
        &mut self,
        event: Event<'_>,
        connection: &mut Connection,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        match event {
            Event::Data(id, data) => {
                self.on_ready(id, connection, now);
                self.with(id, connection, now, |application, io| {
                    application.on_data(data, io);
                });
            }
            Event::ExtendedData(id, data_type, data) => {
                self.on_ready(id, connection, now);
                self.with(id, connection, now, |application, io| {
                    application.on_extended_data(data_type, data, io);
                });
            }
            Event::Eof(id) => {
                self.on_ready(id, connection, now);
                self.with(id, connection, now, |application, io| {
                    application.on_eof(io);
                });
            }
            Event::Exit(id, exit) => {
                self.on_ready(id, connection, now);
                self.with(id, connection, now, |application, _| {
                    application.on_exit(exit);
                });
            }
            Event::WindowChange(id, size) => {
                self.with(id, connection, now, |application, io| {
                    application.on_window_change(size, io);
                });
            }
            Event::Signal(id, name) => {
                self.with(id, connection, now, |application, io| {
                    application.on_signal(name, io);
                });
            }
            Event::ChannelReady(id) => self.on_ready(id, connection, now),
            Event::ChannelRefused(id, refusal) => self.on_refused(id, refusal),
            Event::Closed(id) => {
                if let Slot::Running(application) = std::mem::replace(self.slot(id), Slot::Free) {
                    *self.slot(id) = Slot::Leaving(application);
                }
            }
            Event::Request(id, request) => self.on_request(id, &request, connection, now)?,
            Event::ChannelAsked(asked) => self.on_channel_asked(asked, connection, now)?,
            Event::ForwardAsked { address, port } => {
                let bound = self.acceptor.forward(address, port);
                connection.answer_forward(bound)?;
            }
            Event::CancelForwardAsked { address, port } => {
                let done = self.acceptor.cancel_forward(address, port);
                connection.answer_cancel_forward(done)?;
            }
            Event::ForwardAnswered(bound) => self.on_forward_answered(bound),
            Event::ForwardCancelled(done) => self.on_forward_cancelled(done),
            Event::HostKeysOffered(keys) => {
                let wanted = self.acceptor.host_keys_offered(&keys);
                connection.ask_proofs(wanted)?;
            }
            Event::HostKeysProved(keys) => self.acceptor.host_keys_proved(keys),
            Event::Pong => {
                if let Some(reply) = self.pings.pop_front() {
                    let _ = reply.send(Ok(()));
                }
            }
            // Questions of the login, which is over.
            Event::HostKey(_)
            | Event::AuthWanted { .. }
            | Event::Sign(_)
            | Event::Questions(_)
            | Event::PasswordExpired(_)
            | Event::Banner(_)
            | Event::KeysWanted
            | Event::Attempt(_)
            | Event::Authenticated => {}
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// A channel of ours is open, or shows it; whoever waits for that is told once.
    fn on_ready(&mut self, id: ChannelId, connection: &mut Connection, now: Instant) {
        if self.early.as_ref().is_some_and(|(early, _)| *early == id)
            && let Some((_, reply)) = self.early.take()
        {
            let _ = reply.sender.send(Ok(id));
        }
        let slot = self.slot(id);
        if !matches!(slot, Slot::Opening(..)) {
            return;
        }
        let Slot::Opening(application, reply) = std::mem::replace(slot, Slot::Free) else {
            return;
        };
        if reply.sender.send(Ok(id)).is_err() && !reply.is_detached {
            // Nobody waits any more: the channel was opened for nothing.
            connection.close(id);
            return;
        }
        *self.slot(id) = Slot::Running(application);
        self.with(id, connection, now, |application, io| {
            application.on_open(io);
        });
    }

    fn on_refused(&mut self, id: ChannelId, refusal: Refusal) {
        let early = self.early.take_if(|(early, _)| *early == id);
        let why = CloseReason::Refused(refusal.clone());
        match std::mem::replace(self.slot(id), Slot::Free) {
            Slot::Opening(application, reply) => {
                reply.refuse(OpenError::Refused(refusal.clone()), application, &why);
            }
            Slot::Running(mut application) => application.on_closed(&Arc::new(why)),
            Slot::Free | Slot::Bare(_) | Slot::Leaving(_) => {}
        }
        if let Some((_, reply)) = early {
            let _ = reply.sender.send(Err(OpenError::Refused(refusal)));
        }
    }

    /// A client asks for a program on its session, or for what is to surround it.
    fn on_request(
        &mut self,
        id: ChannelId,
        request: &SessionRequest<'_>,
        connection: &mut Connection,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let mut setup = match std::mem::replace(self.slot(id), Slot::Free) {
            Slot::Bare(setup) => setup,
            Slot::Leaving(mut application) => {
                application.on_closed(&Arc::new(CloseReason::Channel));
                Box::default()
            }
            _ => Box::default(),
        };
        let application = match request {
            SessionRequest::Subsystem(name) => self.acceptor.subsystem(name),
            SessionRequest::Exec(command) => self.acceptor.exec(command, (*setup).clone()),
            SessionRequest::Shell => self.acceptor.shell((*setup).clone()),
            SessionRequest::Env { name, value } => {
                let granted = setup.env.len() < ENV_MAX && self.acceptor.env(name, value);
                if granted {
                    setup.env.push(((*name).to_owned(), (*value).to_owned()));
                }
                *self.slot(id) = Slot::Bare(setup);
                return connection.answer_request(granted, false);
            }
            SessionRequest::Pty(pty) => {
                let granted = setup.pty.is_none() && self.acceptor.pty(pty);
                if granted {
                    setup.pty = Some(pty.clone());
                }
                *self.slot(id) = Slot::Bare(setup);
                return connection.answer_request(granted, false);
            }
        };
        connection.answer_request(application.is_some(), true)?;
        match application {
            Some(application) => {
                *self.slot(id) = Slot::Running(application);
                self.with(id, connection, now, |application, io| {
                    application.on_open(io);
                });
            }
            None => *self.slot(id) = Slot::Bare(setup),
        }
        Ok(())
    }

    fn on_channel_asked(
        &mut self,
        asked: PeerChannel,
        connection: &mut Connection,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let application = match asked {
            PeerChannel::DirectTcpip(to) => self.acceptor.direct_tcpip(&to),
            PeerChannel::ForwardedTcpip(at) => self.on_forwarded(at),
        };
        let id = connection.answer_open(application.is_some())?;
        let Some(mut application) = application else {
            return Ok(());
        };
        let Some(id) = id else {
            application.on_closed(&Arc::new(CloseReason::TooMany));
            return Ok(());
        };
        self.occupy(id, Slot::Running(application));
        self.with(id, connection, now, |application, io| {
            application.on_open(io);
        });
        Ok(())
    }

    /// The turn ends: places are still good; then everybody may produce output.
    pub(super) fn end_turn(
        &mut self,
        arena: Option<&Arena>,
        connection: &mut Connection,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let Self {
            slots,
            waker,
            failure,
            ..
        } = self;
        for (index, slot) in slots.iter_mut().enumerate() {
            let Ok(channel) = u32::try_from(index).map(ChannelId) else {
                continue;
            };
            if let (Slot::Running(application) | Slot::Leaving(application), Some(arena)) =
                (&mut *slot, arena)
            {
                let mut io = ChannelIo {
                    connection,
                    channel,
                    now,
                    waker,
                    failure,
                };
                application.end_of_turn(arena, &mut io);
            }
            match slot {
                Slot::Running(application) => {
                    let mut io = ChannelIo {
                        connection,
                        channel,
                        now,
                        waker,
                        failure,
                    };
                    application.drive(&mut io);
                }
                Slot::Leaving(application) => {
                    application.on_closed(&Arc::new(CloseReason::Channel));
                    *slot = Slot::Free;
                }
                Slot::Free | Slot::Bare(_) | Slot::Opening(..) => {}
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// The earliest time at which an application wants a turn.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadline = |slot: &Slot| match slot {
            Slot::Running(application) => application.deadline(),
            Slot::Free | Slot::Bare(_) | Slot::Opening(..) | Slot::Leaving(_) => None,
        };
        self.slots.iter().filter_map(deadline).min()
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        let is_idle = |slot: &Slot| match slot {
            Slot::Free => true,
            Slot::Running(application) => application.is_idle(),
            Slot::Bare(_) | Slot::Opening(..) | Slot::Leaving(_) => false,
        };
        let nothing_asked = self.forwards.is_empty()
            && self.forwards_asked.is_empty()
            && self.cancels_asked.is_empty()
            && self.pings.is_empty();
        nothing_asked && self.slots.iter().all(is_idle)
    }

    /// Whether no application runs on any channel, whatever the peer has opened or not closed.
    pub(super) fn is_unused(&self) -> bool {
        let runs = |slot: &Slot| matches!(slot, Slot::Running(_));
        self.forwards.is_empty() && !self.slots.iter().any(runs)
    }

    /// The connection is gone: everybody learns why.
    pub(super) fn close(&mut self, why: &Arc<CloseReason>) {
        if let Some((_, reply)) = self.early.take() {
            let _ = reply.sender.send(Err(OpenError::Closed(Arc::clone(why))));
        }
        for slot in self.slots.drain(..) {
            match slot {
                Slot::Free | Slot::Bare(_) => {}
                Slot::Opening(application, reply) => {
                    reply.refuse(OpenError::Closed(Arc::clone(why)), application, why);
                }
                Slot::Running(mut application) | Slot::Leaving(mut application) => {
                    application.on_closed(why);
                }
            }
        }
        self.forwards.clear();
        for asked in self.forwards_asked.drain(..) {
            let _ = asked.reply.send(Err(ForwardError::Closed(Arc::clone(why))));
        }
        for asked in self.cancels_asked.drain(..) {
            let _ = asked.reply.send(Err(ForwardError::Closed(Arc::clone(why))));
        }
        for reply in self.pings.drain(..) {
            let _ = reply.send(Err(PingError::Closed(Arc::clone(why))));
        }
    }
}

impl Drop for Router {
    /// Nobody who runs on a connection is left waiting, also where it never came into use.
    fn drop(&mut self) {
        self.close(&Arc::new(CloseReason::Requested));
    }
}
