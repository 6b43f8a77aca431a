//! From a fresh stream to a user who is in: linear code asks for the next event and answers it.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep_until};

use super::handle::{CloseReason, ConnectionHandle, Shared};
use super::link::Link;
use super::now;
use super::router::Acceptor;
use super::task::{Lifetime, Task};
use crate::auth::{AuthAttempt, Credential};
use crate::config::{ClientConfig, ServerConfig, Timers};
use crate::connection::Connection;
use crate::crypto::SystemRandom;
use crate::crypto::hostkey::PublicKey;
use crate::error::ConnectionError;
use crate::event::Event;
use crate::message::transport::DisconnectReason;

/// A connection on which nobody is logged in yet.
///
/// Call [`Login::next`], answer what it asks, and go on until [`LoginEvent::Authenticated`]; then
/// [`Login::run`]. Dropping it closes the stream.
pub struct Login<S> {
    link: Link<S>,
    timers: Timers,
    lifetime: Lifetime,
    /// An event that an answer led to, without a packet in between.
    sign: Option<Vec<u8>>,
    authenticated: bool,
    /// What ended the connection while an attempt was answered; told by the next call.
    failed: Option<ConnectionError>,
}

impl<S> std::fmt::Debug for Login<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("connection", &self.link.connection)
            .finish_non_exhaustive()
    }
}

/// What a login asks or tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoginEvent {
    /// Client: is this host key trusted? Answer with [`Login::accept_host_key`], or with
    /// [`Login::give_up`].
    HostKey(PublicKey),
    /// Client: a credential is wanted. Answer with [`Login::authenticate`], or with
    /// [`Login::give_up`].
    AuthWanted {
        /// Methods that may go on, as the server names them; `None` before it said anything.
        methods: Option<Vec<String>>,
        /// What was tried last was right, but more is wanted.
        partial: bool,
    },
    /// Client: these bytes are to be signed with the key just tried. Answer with
    /// [`Login::signature`].
    Sign(Vec<u8>),
    /// Client: a text for the user. The peer's bytes: escape before showing.
    Banner(Vec<u8>),
    /// Server: somebody wants in. Answer with [`Login::accept_auth`] or [`Login::reject_auth`].
    Attempt(AuthAttempt),
    /// The user is in.
    Authenticated {
        /// Who.
        user: String,
    },
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Login<S> {
    /// A client on a fresh stream.
    ///
    /// # Errors
    /// [`CloseReason::Connection`] if the system has no randomness.
    pub fn client(stream: S, config: ClientConfig) -> Result<Self, CloseReason> {
        let timers = config.common.timers.clone();
        let random = Box::new(SystemRandom::new());
        let connection = Connection::client(config, random, now())?;
        Ok(Self::new(
            stream,
            connection,
            timers,
            Lifetime::WhileHandled,
        ))
    }

    /// A server on a fresh stream.
    ///
    /// # Errors
    /// [`CloseReason::Connection`] if the system has no randomness.
    pub fn server(stream: S, config: ServerConfig) -> Result<Self, CloseReason> {
        let timers = config.common.timers.clone();
        let random = Box::new(SystemRandom::new());
        let connection = Connection::server(config, random, now())?;
        Ok(Self::new(
            stream,
            connection,
            timers,
            Lifetime::WhilePeerStays,
        ))
    }

    const fn new(stream: S, connection: Connection, timers: Timers, lifetime: Lifetime) -> Self {
        let link = Link::new(stream, connection);
        Self {
            link,
            timers,
            lifetime,
            sign: None,
            authenticated: false,
            failed: None,
        }
    }

    /// Waits for the next event. Safe to drop and call again.
    ///
    /// # Errors
    /// [`CloseReason`]: the peer left, broke the protocol, or a deadline passed.
    pub async fn next(&mut self) -> Result<LoginEvent, CloseReason> {
        if let Some(data) = self.sign.take() {
            return Ok(LoginEvent::Sign(data));
        }
        let outcome = self.next_event().await;
        // Whoever asked may think for long now, and the peer's clock runs: what there is to say
        // leaves before, be it a last word, as far as the stream takes it at once.
        let _: () = poll_fn(|cx| {
            while matches!(self.link.poll_write(cx), Poll::Ready(Ok(1..))) {}
            Poll::Ready(())
        })
        .await;
        outcome
    }

    async fn next_event(&mut self) -> Result<LoginEvent, CloseReason> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        loop {
            if let Some(event) = self.take_event()? {
                return Ok(event);
            }
            // Looked at whenever something came, too: a peer that always has more to say would
            // otherwise never be out of time.
            let deadline = self.link.connection.poll_timeout();
            let now = now();
            if deadline.is_some_and(|at| at <= now) {
                self.link.connection.handle_timeout(now)?;
            }
            let mut sleep = deadline.map(|at| Box::pin(sleep_until(at.into())));
            poll_fn(|cx| self.poll_io(cx, sleep.as_mut().map(|s| s.as_mut()))).await?;
        }
    }

    /// Writes all there is and reads once, or until the deadline.
    fn poll_io(
        &mut self,
        cx: &mut std::task::Context<'_>,
        sleep: Option<std::pin::Pin<&mut Sleep>>,
    ) -> Poll<Result<(), CloseReason>> {
        let failed = loop {
            match self.link.poll_write(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) | Poll::Pending => break None,
                Poll::Ready(Err(error)) => break Some(error),
            }
        };
        match (self.link.poll_read(cx), failed) {
            // Even if nothing can be written: a peer that has left may have said why.
            (Poll::Ready(Ok(1..)), _) => return Poll::Ready(Ok(())),
            (_, Some(error)) | (Poll::Ready(Err(error)), None) => {
                return Poll::Ready(Err(error.into()));
            }
            (Poll::Ready(Ok(0)), None) => return Poll::Ready(Err(CloseReason::Eof)),
            (Poll::Pending, None) => {}
        }
        self.link.return_buffers();
        match sleep {
            Some(sleep) => sleep.poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }

    fn take_event(&mut self) -> Result<Option<LoginEvent>, ConnectionError> {
        if self.authenticated {
            let user = self.link.connection.user().to_owned();
            return Ok(Some(LoginEvent::Authenticated { user }));
        }
        let (connection, mut input) = self.link.input();
        let event = connection.next(&mut input, now());
        let taken = input.position();
        let event = event.map(|event| {
            event.and_then(|event| {
                Some(match event {
                    Event::HostKey(key) => LoginEvent::HostKey(key),
                    Event::AuthWanted { methods, partial } => {
                        LoginEvent::AuthWanted { methods, partial }
                    }
                    Event::Banner(text) => LoginEvent::Banner(text.to_vec()),
                    Event::Attempt(attempt) => LoginEvent::Attempt(attempt),
                    Event::Authenticated => LoginEvent::Authenticated {
                        user: connection.user().to_owned(),
                    },
                    _ => return None, // channels come after authentication
                })
            })
        });
        self.link.taken(taken);
        event
    }

    /// Client: the host key is trusted.
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn accept_host_key(&mut self) -> Result<(), CloseReason> {
        self.link.connection.resume_clock(now());
        Ok(self.link.connection.accept_host_key()?)
    }

    /// Client: tries a credential. For a key, [`LoginEvent::Sign`] comes next.
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn authenticate(&mut self, credential: &Credential) -> Result<(), CloseReason> {
        self.link.connection.resume_clock(now());
        self.sign = self.link.connection.authenticate(credential)?;
        Ok(())
    }

    /// Client: the raw signature (64 bytes for Ed25519) of what was to be signed.
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn signature(&mut self, raw: &[u8]) -> Result<(), CloseReason> {
        self.link.connection.resume_clock(now());
        Ok(self.link.connection.signature(raw)?)
    }

    /// Server: the attempt is right.
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn accept_auth(&mut self) -> Result<(), CloseReason> {
        let at = now();
        self.link.connection.resume_clock(at);
        self.authenticated = self.link.connection.accept_auth(at)?;
        Ok(())
    }

    /// Server: the attempt is wrong. When there were enough of them, [`Login::next`] tells the peer
    /// and fails with [`ConnectionError::TooManyAttempts`].
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn reject_auth(&mut self) -> Result<(), CloseReason> {
        match self.link.connection.reject_auth() {
            Err(error @ ConnectionError::TooManyAttempts) => self.failed = Some(error),
            outcome => outcome?,
        }
        Ok(())
    }

    /// Ends the login with a word to the peer, waiting as long as a graceful end may take.
    pub async fn give_up(mut self, reason: DisconnectReason, description: &str) {
        self.link.connection.disconnect(reason, description);
        let flush = poll_fn(|cx| {
            loop {
                match self.link.poll_write(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let _ = tokio::time::timeout(self.timers.close, flush).await;
    }

    /// The peer's identification line, once it is known.
    #[must_use]
    pub fn peer_identification(&self) -> Option<&str> {
        self.link.connection.peer_identification()
    }

    /// After [`LoginEvent::Authenticated`]: the connection in use. Spawn the future; it ends with
    /// the connection. A server's subsystems come from `acceptor`; a client passes
    /// [`RefuseAll`](super::RefuseAll).
    pub fn run(
        self,
        acceptor: Box<dyn Acceptor>,
    ) -> (ConnectionHandle, impl Future<Output = ()> + Send + use<S>) {
        let shared = Shared::new(self.peer_identification().unwrap_or_default().to_owned());
        let handle = ConnectionHandle::new(Arc::clone(&shared));
        let task = Task::new(self.link, shared, acceptor, self.lifetime, self.timers);
        (handle, task)
    }
}
