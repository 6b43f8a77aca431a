//! The server: connections in, logins, sessions, and a graceful end.
#![expect(clippy::disallowed_methods, reason = "drivers own time and tasks")]

pub(crate) mod door;
mod visit;

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ketch_keys::PublicKey;
use ketch_protocol::Escaped;
use ketch_transport::auth::Method;
use ketch_transport::config::ServerConfig;
use ketch_transport::driver::{Acceptor, Application, CloseReason, Login, LoginEvent};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(target_os = "linux")]
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::field::Empty;
use tracing::{Instrument as _, debug, info, info_span};

use self::door::{Came, Door};
pub(crate) use self::visit::Alarm;
use self::visit::{Visit, offence, refused};
use crate::channel::{Account, SftpChannel};
use crate::config::{BuildError, ServerBuilder};
use crate::login::admission::{Admission, Admitted};
use crate::login::credentials::Moment;
use crate::login::interview::Interview;
use crate::login::password_hash::Hashing;
use crate::login::users::{Outcome, Staying, Steps, Users, Verdict};
use crate::observer::{NotAdmitted, Observer, Watch, Who};
use crate::session::habits;
use crate::subsystems::Subsystems;

/// Milliseconds after which a client that acknowledges nothing counts as gone (tcp(7)).
#[cfg(target_os = "linux")]
const GONE_AFTER_MS: u32 = 90_000;
/// Silence after which the system asks whether the client's machine is there, and asks again.
#[cfg(target_os = "linux")]
const ASKED_AFTER: Duration = Duration::from_secs(30);
/// How long a connection has to say good-bye whose user may not stay.
const FAREWELL: Duration = Duration::from_millis(300);
/// How often the clock is looked at while somebody is there who expires.
const CLOCK_LOOKED_AT: Duration = Duration::from_secs(30);

/// An SFTP server. Clones are handles of the same one.
///
/// ```
/// use std::sync::Arc;
/// use ketch_server::{MemoryFileSystem, Server, User, generate_host_key};
///
/// let files = Arc::new(MemoryFileSystem::new());
/// let server = Server::builder()
///     .host_key(generate_host_key()?)
///     .user(User::with_file_system("anna", files).password("open sesame"))
///     .build()?;
/// // server.serve(TcpListener::bind("127.0.0.1:2222").await?).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// What new connections and logins see; a reload puts another in its place.
    setup: watch::Sender<Arc<Setup>>,
    admission: Arc<Admission>,
    hashing: Hashing,
    phase: watch::Sender<Phase>,
    observers: Arc<[Arc<dyn Observer>]>,
    /// How many connections came.
    connections: AtomicU64,
    /// Listeners that are accepted from.
    listeners: AtomicUsize,
    /// What threads do for sessions, if anybody wants to know.
    jobs: Arc<AtomicUsize>,
}

/// What a reload may change. Whoever uses it holds the one that there was at the beginning.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) config: ServerConfig,
    pub(crate) users: Users,
    pub(crate) subsystems: Subsystems,
    pub(crate) shutdown_time: Duration,
}

/// How far the server's end has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Phase {
    Running,
    /// Nobody new comes in; who is there may finish.
    Stopping,
    /// Who is still there is disconnected.
    Ending,
}

impl Server {
    /// Starts to put a server together.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    pub(crate) fn new(
        setup: Setup,
        admission: Arc<Admission>,
        hashing: Hashing,
        observers: Arc<[Arc<dyn Observer>]>,
    ) -> Self {
        let phase = watch::Sender::new(Phase::Running);
        Self {
            inner: Arc::new(Inner {
                setup: watch::Sender::new(Arc::new(setup)),
                admission,
                hashing,
                phase,
                observers,
                connections: AtomicU64::new(0),
                listeners: AtomicUsize::new(0),
                jobs: Arc::default(),
            }),
        }
    }

    /// The key by which clients know this server, of several the first.
    ///
    /// # Panics
    /// Never: a server without a key cannot be built.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the builder refuses a server without a key"
    )]
    pub fn host_key(&self) -> PublicKey {
        self.host_keys().into_iter().next().expect("there is one")
    }

    /// The keys by which clients know this server, at least one.
    #[must_use]
    pub fn host_keys(&self) -> Vec<PublicKey> {
        let setup = self.setup();
        let keys = setup.config.host_keys.iter();
        keys.map(|key| key.public_key().clone()).collect()
    }

    /// What new connections see.
    fn setup(&self) -> Arc<Setup> {
        Arc::clone(&self.inner.setup.borrow())
    }

    /// Puts the users, authorities, host keys, banner, subsystems, transport and time-outs of `builder`
    /// in the place of those that there are; without host keys in it, those stay. Its limits,
    /// penalties and observers are passed over: those of the server stay.
    ///
    /// New connections see what is new at once. Connections that are there keep what they had: a root,
    /// rights, a host key. But who logs in just then begins anew, and users who are gone, disabled or
    /// expired are disconnected within a second, also in the middle of a transfer.
    ///
    /// # Errors
    /// As [`ServerBuilder::build`]; then nothing is changed.
    pub fn reload(&self, builder: ServerBuilder) -> Result<(), BuildError> {
        // Opening roots takes time, and of two reloads at once the later one is what stays.
        let setup = builder.renew(&self.setup())?;
        self.inner.setup.send_replace(Arc::new(setup));
        info!("reloaded");
        Ok(())
    }

    /// Accepts connections until [`Server::shutdown`] is called and all of them have ended.
    ///
    /// # Errors
    /// What `accept` says if the listener itself is broken. A connection that fails is logged and
    /// does not end the loop.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let mut phase = self.inner.phase.subscribe();
        let mut connections = JoinSet::new();
        let listening = Listening::begin(&self.inner.listeners);
        let mut door = Door::new(listener);
        for work in self.setup().users.leftovers() {
            drop(tokio::spawn(work));
        }
        let result = loop {
            tokio::select! {
                came = door.next() => match came {
                    Ok(Came::Guest(stream, peer)) => {
                        if let Some((watch, admitted)) = self.admit(&peer) {
                            // Small packets must not wait for the peer's delayed acknowledgement.
                            if let Err(error) = stream.set_nodelay(true) {
                                debug!(%peer, %error, "no TCP_NODELAY");
                            }
                            #[cfg(target_os = "linux")]
                            watch_for_silence(&stream);
                            let server = self.clone();
                            let span = info_span!("client", %peer, user = Empty);
                            let run = async move {
                                server.run(stream, &peer, watch, admitted).await;
                            };
                            connections.spawn(run.instrument(span));
                        }
                    }
                    Ok(Came::TurnedAway(peer)) => {
                        let watch = self.watch(&peer, Some(peer.ip()));
                        refused(watch.as_deref(), NotAdmitted::Descriptors);
                    }
                    Err(error) => break Err(error),
                },
                Some(_) = connections.join_next() => {}
                () = reached(&mut phase, Phase::Stopping) => break Ok(()),
            }
        };
        drop((door, listening));
        let all_gone = async { while connections.join_next().await.is_some() {} };
        if timeout(self.setup().shutdown_time, all_gone).await.is_err() {
            self.inner.phase.send_replace(Phase::Ending);
            // Each has its own time to say good-bye; what is left after that is dropped.
            let all_gone = async { while connections.join_next().await.is_some() {} };
            let _ = timeout(self.setup().config.common.timers.close, all_gone).await;
        }
        result
    }

    /// Serves one connection on any stream until it ends. `peer` is shown in logs; who may log in
    /// only from certain addresses may not log in here.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve_stream<S>(&self, stream: S, peer: impl Display) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let watch = self.watch(&peer, None);
        let admitted = self.inner.admission.admit(None::<IpAddr>, roll(), now());
        let admitted = admitted.map_err(|why| {
            refused(watch.as_deref(), why);
            ServeError::TooMany
        })?;
        if *self.inner.phase.borrow() > Phase::Running {
            return Err(ServeError::Stopped);
        }
        let mut visit = Visit::begin(self, None, watch);
        Ok(self
            .connection(stream, &peer.to_string(), &mut visit, admitted)
            .await?)
    }

    /// Lets a connection from the network in, or not.
    fn admit(&self, peer: &SocketAddr) -> Option<(Option<Arc<Watch>>, Admitted)> {
        let source = Some(peer.ip());
        let watch = self.watch(peer, source);
        match self.inner.admission.admit(source, roll(), now()) {
            Ok(admitted) => Some((watch, admitted)),
            Err(why) => {
                debug!(%peer, why = why.name(), "connection refused");
                refused(watch.as_deref(), why);
                None
            }
        }
    }

    /// Whom observers are told about when something comes; `None` if there are none.
    fn watch(&self, peer: &impl Display, address: Option<IpAddr>) -> Option<Arc<Watch>> {
        let jobs = &self.inner.jobs;
        Watch::new(&self.inner.observers, jobs, || Who {
            connection: self.inner.connections.fetch_add(1, Ordering::Relaxed) + 1,
            peer: peer.to_string(),
            address,
            user: None,
            organisation: None,
            endpoint: None,
        })
    }

    /// Stops to accept connections; those that are there have
    /// [`Timeouts::shutdown`](crate::Timeouts::shutdown) to end before they are disconnected.
    /// [`Server::serve`] returns after that.
    pub fn shutdown(&self) {
        let go_on = |phase: &mut Phase| {
            let is_running = *phase == Phase::Running;
            *phase = Phase::Stopping.max(*phase);
            is_running
        };
        self.inner.phase.send_if_modified(go_on);
    }

    /// Whether somebody who connects now may be let in: it listens, and was not shut down.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        *self.inner.phase.borrow() == Phase::Running
            && self.inner.listeners.load(Ordering::Relaxed) > 0
    }

    /// Calls of sessions that threads work on, or that wait for one; none without an
    /// [`Observer`](crate::Observer).
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.inner.jobs.load(Ordering::Relaxed)
    }

    async fn run<S>(
        &self,
        stream: S,
        peer: &SocketAddr,
        watch: Option<Arc<Watch>>,
        admitted: Admitted,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let name = peer.to_string();
        let mut visit = Visit::begin(self, Some(peer.ip()), watch);
        if let Err(why) = self.connection(stream, &name, &mut visit, admitted).await {
            debug!(%peer, %why, "connection ended before login");
        }
    }

    /// Login and use of one connection.
    async fn connection<S>(
        &self,
        stream: S,
        peer: &str,
        visit: &mut Visit,
        mut admitted: Admitted,
    ) -> Result<(), CloseReason>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let setup = self.setup();
        let login = Login::server(stream, setup.config.clone())?;
        let subsystems = setup.subsystems.clone();
        drop(setup);
        let mut phase = self.inner.phase.subscribe();
        let mut failures = 0;
        let result = tokio::select! {
            result = self.login(login, peer, visit, &admitted, &mut failures) => result,
            () = reached(&mut phase, Phase::Stopping) => Err(CloseReason::Requested),
        };
        let (login, outcome) = result.inspect_err(|why| {
            if !matches!(why, CloseReason::Requested) {
                visit.alarm.note(offence(why, failures));
            }
            visit.over(why);
        })?;
        admitted.established();
        let Outcome {
            account,
            sftp_only,
            seat: _seat,
        } = outcome;
        let user = account.policy.user.clone();
        info!(peer, user, "logged in");
        let names_link_first =
            habits::names_link_first(login.peer_identification().unwrap_or_default());
        let (handle, connection) = login.run(Box::new(Offer {
            names_link_first,
            account,
            sftp_only,
            subsystems,
            alarm: visit.alarm.clone(),
        }));
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            () = &mut connection => {}
            () = self.end(&mut phase) => {
                handle.disconnect();
                connection.await;
            }
            () = self.may_not_stay(&user) => {
                info!(peer, user, "the user may not stay");
                handle.disconnect();
                // Who takes nothing of it does not hold up the end.
                let _ = timeout(FAREWELL, &mut connection).await;
            }
        }
        let why = handle.close_reason();
        debug!(peer, ?why, "connection is over");
        if let Some(why) = why {
            visit.over(&why);
        }
        Ok(())
    }

    /// Waits until who is still there is disconnected: when [`Server::serve`] says so, or, where that
    /// does not run, when the time is over that connections have.
    async fn end(&self, phase: &mut watch::Receiver<Phase>) {
        reached(phase, Phase::Stopping).await;
        let shutdown_time = self.setup().shutdown_time;
        let _ = timeout(shutdown_time, reached(phase, Phase::Ending)).await;
    }

    /// Waits until a user is gone, disabled or expired.
    async fn may_not_stay(&self, user: &str) {
        let mut setup = self.inner.setup.subscribe();
        loop {
            let now = unix_now();
            let staying = setup.borrow_and_update().users.staying(user, now);
            let Staying::Until(expires) = staying else {
                return;
            };
            let left = expires.map(|at| Duration::from_secs(at.saturating_sub(now)));
            let expired = async {
                match left {
                    // The clock may be set: it is looked at from time to time.
                    Some(left) => sleep(left.min(CLOCK_LOOKED_AT)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as the server, of which this is a handle.
                _ = setup.changed() => {}
                () = expired => {}
            }
        }
    }

    /// Answers attempts until one is right.
    async fn login<S>(
        &self,
        mut login: Login<S>,
        peer: &str,
        visit: &mut Visit,
        admitted: &Admitted,
        failures: &mut u32,
    ) -> Result<(Login<S>, Outcome), CloseReason>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut accepted = None;
        let mut setup = self.setup();
        // Nobody looks at the login's own time while the program is asked.
        let limit = setup.config.common.timers.authentication;
        let mut steps = Steps::default();
        // Of the questions that are being asked, by rounds.
        let mut answers = Vec::new();
        loop {
            match login.next().await? {
                LoginEvent::KeysWanted => {
                    let _turn = admitted.turn().await;
                    login.exchange_keys()?;
                }
                LoginEvent::Attempt(attempt) => {
                    let came = now();
                    let (user, method) = (&attempt.user, &attempt.method);
                    let moment = Moment {
                        source: visit.alarm.address,
                        now: unix_now(),
                    };
                    // Steps are taken under one set of rules: who began under others begins anew.
                    let has_changed = |setup: &mut Arc<Setup>, steps: &mut Steps| {
                        let current = self.setup();
                        let has_changed = !Arc::ptr_eq(&current, setup);
                        if has_changed {
                            (*setup, *steps) = (current, Steps::default());
                        }
                        has_changed
                    };
                    let is_new = has_changed(&mut setup, &mut steps);
                    if is_new {
                        answers.clear();
                    }
                    let users = &setup.users;
                    let found_right = match (method, users.hash_to_try(user, method)) {
                        (_, Some((hash, password))) => {
                            self.inner.hashing.fits(hash, password.clone()).await
                        }
                        // They are answers to questions of before.
                        (Method::Answers(_), None) if is_new => false,
                        (Method::KeyboardInteractive | Method::Answers(_), None) => {
                            match method {
                                Method::Answers(given) => answers.push(given.clone()),
                                _ => answers.clear(),
                            }
                            let asking = users.interviewer().go_on(user, &answers);
                            match timeout(limit, asking).await {
                                Ok(Interview::Ask(questions)) => {
                                    login.ask(&questions)?;
                                    continue;
                                }
                                outcome => outcome == Ok(Interview::Accept),
                            }
                        }
                        _ => false,
                    };
                    // What was found under rules that have changed meanwhile is found no more.
                    let found_right = !has_changed(&mut setup, &mut steps) && found_right;
                    let users = &setup.users;
                    let mut verdict = users.check(user, method, &mut steps, moment, found_right);
                    if let (Verdict::Change, Method::PasswordChange { new, .. }) =
                        (&verdict, method)
                    {
                        verdict = match users.change_password(user, new, &self.inner.hashing).await
                        {
                            // It is what the user logs in with now.
                            Ok(()) => {
                                info!(peer, user, "password changed");
                                let method = Method::Password(new.clone());
                                users.check(user, &method, &mut steps, moment, true)
                            }
                            Err(why) => Verdict::Expired(why),
                        };
                    }
                    match verdict {
                        Verdict::Expired(prompt) => login.password_expired(&prompt)?,
                        // It was carried out, or there was none.
                        Verdict::Change => login.reject_auth()?,
                        Verdict::Accepted(outcome) => {
                            visit.logged_in(&outcome.account, method.name());
                            accepted = Some(outcome);
                            login.accept_auth()?;
                        }
                        Verdict::Partial(next) => {
                            debug!(peer, user, next = next.name(), "one step of a login");
                            login.accept_partially(&[next])?;
                        }
                        Verdict::Acceptable => login.accept_auth()?,
                        Verdict::Rejected(floor) => {
                            sleep_until(answer_time(came, floor, now()).into()).await;
                            info!(
                                peer,
                                user = %Escaped(attempt.user.as_bytes()),
                                method = attempt.method.name(),
                                "login refused"
                            );
                            // Asking which methods there are is no failure.
                            if !matches!(method, Method::None) {
                                *failures += 1;
                                visit.login_refused(user, method.name());
                            }
                            login.reject_auth()?;
                        }
                    }
                }
                // Who is in was decided with the proof, not by the name that is told again.
                LoginEvent::Authenticated { .. } => {
                    return accepted
                        .map(|outcome| (login, outcome))
                        .ok_or(CloseReason::Requested);
                }
                _ => {}
            }
        }
    }
}

/// A listener is accepted from as long as this is there.
struct Listening<'a>(&'a AtomicUsize);

impl<'a> Listening<'a> {
    fn begin(listeners: &'a AtomicUsize) -> Self {
        listeners.fetch_add(1, Ordering::Relaxed);
        Self(listeners)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until the server's end has come so far.
async fn reached(phase: &mut watch::Receiver<Phase>, least: Phase) {
    // The sender lives as long as the server, of which whoever waits has a clone.
    let _ = phase.wait_for(|phase| *phase >= least).await;
}

/// The runtime's time, which tests can hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A number below 100 that nobody can foresee; without randomness the one that lets nobody in by luck.
fn roll() -> u8 {
    let mut bytes = [0; 4];
    let is_filled = SystemRandom::new().fill(&mut bytes).is_ok();
    let number = u8::try_from(u32::from_be_bytes(bytes) % 100).unwrap_or_default();
    if is_filled { number } else { 0 }
}

/// Seconds since 1970; a clock before that is none, and lets nothing be valid that has a beginning.
fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// When to answer an attempt: after `floor`, or if deciding took longer, after the next power of two
/// times it, so that the time tells little of how long it was.
fn answer_time(came: Instant, floor: Duration, now: Instant) -> Instant {
    let mut wait = floor;
    while !wait.is_zero() && came + wait < now {
        wait = wait.saturating_mul(2);
    }
    came + wait
}

/// What a user may start on a channel: the subsystem `sftp`, and what the embedding program adds.
struct Offer {
    account: Arc<Account>,
    sftp_only: bool,
    subsystems: Subsystems,
    alarm: Alarm,
    names_link_first: bool,
}

impl Acceptor for Offer {
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>> {
        if name == "sftp" {
            return Some(Box::new(SftpChannel::new(
                Arc::clone(&self.account),
                self.alarm.watch.clone(),
                self.alarm.clone(),
                self.names_link_first,
            )));
        }
        if self.sftp_only {
            return None;
        }
        self.subsystems.start(name, &self.account.policy.user)
    }
}

/// Has the system notice a client that is gone, also while nobody is logged in: only it can tell that
/// what was sent is never acknowledged. What it refuses is done without; SSH asks, too.
#[cfg(target_os = "linux")]
fn watch_for_silence(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _ = sockopt::set_tcp_user_timeout(stream, GONE_AFTER_MS);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, ASKED_AFTER);
    let _ = sockopt::set_tcp_keepintvl(stream, ASKED_AFTER);
}

/// Why a stream was not served, or its login did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There are as many connections as are allowed at a time.
    #[error("too many connections")]
    TooMany,
    /// The server was shut down.
    #[error("the server was shut down")]
    Stopped,
    /// The connection ended before anybody was logged in.
    #[error("the connection ended before login")]
    Login(#[from] CloseReason),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_watches_for_clients_that_are_gone() {
        use rustix::net::sockopt;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, _) = tokio::join!(TcpStream::connect(address), listener.accept());
        let stream = stream.unwrap();
        watch_for_silence(&stream);
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 90_000);
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap().as_secs(), 30);
    }

    #[test]
    fn an_answer_comes_at_the_floor_or_at_its_doubles() {
        let came = Instant::now();
        let (floor, ms) = (Duration::from_millis(100), Duration::from_millis);
        assert_eq!(answer_time(came, floor, came + ms(1)), came + ms(100));
        assert_eq!(answer_time(came, floor, came + ms(150)), came + ms(200));
        assert_eq!(answer_time(came, floor, came + ms(401)), came + ms(800));
        assert_eq!(answer_time(came, Duration::ZERO, came + ms(5)), came);
    }
}
