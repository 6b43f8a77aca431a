//! From a fresh stream to a user who is in: linear code asks for the next event and answers it.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep_until};
use zeroize::Zeroizing;

use super::handle::{CloseReason, ConnectionHandle, DriverWaker, EarlyChannel, Shared};
use super::link::Link;
use super::observed::Observed;
use super::router::{Acceptor, RefuseAll, Router};
use super::task::{Lifetime, Task};
use super::{Application, now};
use crate::algorithm::SignatureAlgorithm;
use crate::auth::{AuthAttempt, Credential, Questions};
use crate::config::{AuthMethod, ClientConfig, Remembered, ServerConfig, Timers};
use crate::connection::Connection;
use crate::crypto::SystemRandom;
use crate::error::ConnectionError;
use crate::event::Event;
use crate::info::{ConnectionInfo, HostProof};
use crate::message::transport::DisconnectReason;
use crate::session::SessionStart;
use ketch_keys::PublicKey;

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
    /// What runs on the channel that was opened early, and what the task will share with others.
    early: Option<(Arc<Shared>, Router)>,
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
    ///
    /// What the server sent with its keys was looked at before: see [`Login::server_sig_algs`].
    AuthWanted {
        /// Methods that may go on, as the server names them; `None` before it said anything.
        methods: Option<Vec<String>>,
        /// What was tried last was right, but more is wanted.
        partial: bool,
    },
    /// Client: these bytes are to be signed with the key just tried. Answer with
    /// [`Login::signature`], or with another credential.
    Sign(Vec<u8>),
    /// Client: the server has questions for the user. Answer with [`Login::answers`], or with
    /// another credential.
    Questions(Questions),
    /// Client: the password is right but has expired. Answer with
    /// [`Credential::PasswordChange`], or with another credential.
    PasswordExpired {
        /// The server's words: escape before showing.
        prompt: String,
    },
    /// Client: a text for the user. The peer's bytes: escape before showing.
    Banner(Vec<u8>),
    /// Server, if the [configuration](ServerConfig::ask_before_keys) has it so: the first key exchange
    /// is to be computed. Answer with [`Login::exchange_keys`] when there is time for it.
    KeysWanted,
    /// Server: somebody wants in. Answer with [`Login::accept_auth`], [`Login::reject_auth`],
    /// [`Login::accept_partially`], [`Login::ask`] or [`Login::password_expired`].
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

    fn new(stream: S, connection: Connection, timers: Timers, lifetime: Lifetime) -> Self {
        let link = Link::new(stream, connection);
        Self {
            link,
            timers,
            lifetime,
            sign: None,
            authenticated: false,
            failed: None,
            early: None,
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
            if self.link.connection.reads_ahead() {
                self.read_ahead().await;
            }
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

    /// Reads what is there, without waiting. An end or an error is met again by whoever waits.
    async fn read_ahead(&mut self) {
        poll_fn(|cx| {
            let _ = self.link.poll_read(cx);
            Poll::Ready(())
        })
        .await;
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
        let _entered = self.link.span.clone().entered();
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
                    Event::Sign(data) => LoginEvent::Sign(data),
                    Event::Questions(questions) => LoginEvent::Questions(questions),
                    Event::PasswordExpired(prompt) => LoginEvent::PasswordExpired { prompt },
                    Event::Banner(text) => LoginEvent::Banner(text.to_vec()),
                    Event::KeysWanted => LoginEvent::KeysWanted,
                    Event::Attempt(attempt) => LoginEvent::Attempt(attempt),
                    Event::Authenticated => LoginEvent::Authenticated {
                        user: connection.user().to_owned(),
                    },
                    _ => return None, // channels come after authentication
                })
            })
        });
        self.link.taken_and_wiped(taken);
        let still_out = matches!(
            event,
            Ok(Some(
                LoginEvent::AuthWanted { .. }
                    | LoginEvent::Sign(_)
                    | LoginEvent::Questions(_)
                    | LoginEvent::PasswordExpired { .. }
            ))
        );
        if still_out
            && self.link.connection.forget_early()
            && let Some((shared, router)) = &mut self.early
        {
            router.forget_early();
            shared.reset_opened();
        }
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

    /// Client: tries a credential. For a key, [`LoginEvent::Sign`] comes next, at once or, if the
    /// server is asked about the key first, when it would do.
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn authenticate(&mut self, credential: &Credential) -> Result<(), CloseReason> {
        self.link.connection.resume_clock(now());
        self.sign = self.link.connection.authenticate(credential)?;
        Ok(())
    }

    /// Client: the signature of what was to be signed, as the blob that has the algorithm's name in
    /// front (RFC 4253 §6.6).
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn signature(&mut self, blob: &[u8]) -> Result<(), CloseReason> {
        self.link.connection.resume_clock(now());
        Ok(self.link.connection.signature(blob)?)
    }

    /// Client: the answers to the server's questions, as many as there were.
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn answers(&mut self, answers: &[Zeroizing<String>]) -> Result<(), CloseReason> {
        self.link.connection.resume_clock(now());
        Ok(self.link.connection.answers(answers)?)
    }

    /// Client: the signature algorithms that the server verifies, as far as they are known here;
    /// `None` if it did not say (RFC 8308 §3.1).
    #[must_use]
    pub fn server_sig_algs(&self) -> Option<&[SignatureAlgorithm]> {
        self.link.connection.server_sig_algs()
    }

    /// Client: whether anything was sent that proves who the user is: a signature, a password, or
    /// an answer. To be asked after [`LoginEvent::Authenticated`]: a server that lets in without
    /// any may be one that only wants to be trusted.
    #[must_use]
    pub const fn has_proved(&self) -> bool {
        self.link.connection.has_proved()
    }

    /// Server: computes the first key exchange.
    ///
    /// # Errors
    /// [`CloseReason::Connection`], told by the next call, when the peer was told.
    pub fn exchange_keys(&mut self) -> Result<(), CloseReason> {
        let at = now();
        self.link.connection.resume_clock(at);
        self.failed = self.link.connection.exchange_keys(at).err();
        Ok(())
    }

    /// Server: the attempt is right.
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn accept_auth(&mut self) -> Result<(), CloseReason> {
        let at = now();
        self.link.connection.resume_clock(at);
        let outcome = self.link.connection.accept_auth(at);
        self.authenticated = matches!(outcome, Ok(true));
        self.answered(outcome.map(drop))
    }

    /// Server: the attempt is wrong. When there were enough of them, [`Login::next`] tells the peer
    /// and fails with [`ConnectionError::TooManyAttempts`].
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn reject_auth(&mut self) -> Result<(), CloseReason> {
        let outcome = self.link.connection.reject_auth();
        self.answered(outcome)
    }

    /// Server: the attempt is right, but is only a step: one of `remaining` has to follow, by the
    /// same user. A query about a key, or a request without proof, is rejected instead.
    ///
    /// # Errors
    /// As [`Login::reject_auth`].
    pub fn accept_partially(&mut self, remaining: &[AuthMethod]) -> Result<(), CloseReason> {
        let outcome = self.link.connection.accept_auth_partially(remaining);
        self.answered(outcome)
    }

    /// Server: has whoever tries keyboard-interactive asked; at most
    /// [`PROMPTS_MAX`](crate::auth::PROMPTS_MAX) questions at a time. The answers come as
    /// [`Method::Answers`](crate::auth::Method::Answers). Other attempts are rejected instead.
    ///
    /// # Errors
    /// As [`Login::reject_auth`].
    pub fn ask(&mut self, questions: &Questions) -> Result<(), CloseReason> {
        let outcome = self.link.connection.ask(questions);
        self.answered(outcome)
    }

    /// Server: the password is right, but has to be changed first:
    /// [`Method::PasswordChange`](crate::auth::Method::PasswordChange) may come next. Other attempts
    /// are rejected instead.
    ///
    /// # Errors
    /// As [`Login::reject_auth`].
    pub fn password_expired(&mut self, prompt: &str) -> Result<(), CloseReason> {
        let outcome = self.link.connection.password_expired(prompt);
        self.answered(outcome)
    }

    /// That there were too many attempts is told by the next event, after the
    /// peer was told.
    fn answered(&mut self, outcome: Result<(), ConnectionError>) -> Result<(), CloseReason> {
        match outcome {
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

    /// How the connection is protected, and what went over it so far.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.link.connection.info()
    }

    /// Client: with what the host proved itself, once [`Login::accept_host_key`] was called.
    #[must_use]
    pub fn host_proof(&self) -> Option<HostProof> {
        self.link.connection.host_proof()
    }

    /// Client: what to remember of the host, so that the next login takes fewer round trips; `None`
    /// before keys are in use.
    #[must_use]
    pub fn to_remember(&self) -> Option<Remembered> {
        self.link.connection.to_remember()
    }

    /// Client: opens the first channel behind the request that the server has not answered yet, and
    /// runs `application` there: its open, the request for the program and up to
    /// [`EAGER_BYTES_MAX`](crate::channel::EAGER_BYTES_MAX) of what the application says leave with
    /// the next [`Login::next`], and when the user is in, so is the channel.
    ///
    /// Call it after [`Login::authenticate`] (and [`Login::signature`]), before the next
    /// [`Login::next`]; otherwise `None` is returned, and nothing happens. If the server does not let
    /// the user in, the application's [`Application::on_closed`] is called with
    /// [`CloseReason::NotLoggedIn`], and [`EarlyChannel::opened`] says so; the login goes on, if the
    /// server bears it. [`Login::run`] takes the channel on.
    ///
    /// Only for servers that are known to bear it, with a credential that worked before: RFC 4252 §6
    /// lets a server end the connection for it when the credential is wrong. OpenSSH's goes
    /// on, ours ends it. If the server gives the channel another number than is foreseen, the connection ends with
    /// [`ConnectionError::WrongChannelForeseen`], and connecting again without this works.
    ///
    /// # Errors
    /// [`CloseReason::Connection`].
    pub fn open_early(
        &mut self,
        start: impl Into<SessionStart>,
        window: u32,
        application: Box<dyn Application>,
    ) -> Result<Option<EarlyChannel>, CloseReason> {
        let (start, now) = (start.into(), now());
        if self.authenticated || start.is_too_long() {
            return Ok(None);
        }
        let connection = &mut self.link.connection;
        let Some(id) = connection.open_session_early(&start, window)? else {
            return Ok(None);
        };
        let identification = connection.peer_identification().unwrap_or_default();
        let (shared, router) = self.early.get_or_insert_with(|| {
            let shared = Shared::new(identification.to_owned(), Observed::of(connection));
            let router = Router::new(Box::new(RefuseAll), DriverWaker(Arc::clone(&shared)));
            (shared, router)
        });
        shared.set_opened();
        let (reply, channel) = EarlyChannel::new();
        router.run_early(id, connection, now, application, reply);
        connection.flush(now)?;
        Ok(Some(channel))
    }

    /// After [`LoginEvent::Authenticated`]: the connection in use. Spawn the future; it ends with
    /// the connection. A server's subsystems come from `acceptor`; a client passes
    /// [`RefuseAll`](super::RefuseAll).
    pub fn run(
        mut self,
        acceptor: Box<dyn Acceptor>,
    ) -> (ConnectionHandle, impl Future<Output = ()> + Send + use<S>) {
        let (shared, router) = match self.early.take() {
            Some((shared, mut router)) => {
                router.set_acceptor(acceptor);
                (shared, router)
            }
            None => {
                let identification = self.peer_identification().unwrap_or_default();
                let shared = Shared::new(
                    identification.to_owned(),
                    Observed::of(&self.link.connection),
                );
                let router = Router::new(acceptor, DriverWaker(Arc::clone(&shared)));
                (shared, router)
            }
        };
        let handle = ConnectionHandle::new(Arc::clone(&shared));
        let task = Task::new(self.link, shared, router, self.lifetime, self.timers);
        (handle, task)
    }
}
