//! Making connections: the way there, handshake, host key, authentication.
//!
//! [`Connect`] gathers what is needed and ends in a [`Session`]; how the bytes get there is a
//! [`Route`]'s business. The order of things is fixed: the
//! server's key is checked before anything of the user's is sent, whether name or proof; each
//! credential is offered once; and a server that would let us in without proof is only asked to
//! where the caller said so.

mod again;
mod ahead;
mod early;
mod error;
mod known;
mod login;
mod offers;
mod questions;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;
mod timeouts;

pub(crate) use again::Origin;
pub use error::{ConnectError, HopsFault, Skipped, Stage, Tried};
pub use questions::{PasswordQuestion, ServerPrompt, ServerQuestions, WhichPassword};
pub use timeouts::Timeouts;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ketch_transport::algorithm::CipherName;
use ketch_transport::config::{ClientConfig, Remembered};
use ketch_transport::driver::{CloseReason, Login};
use ketch_transport::profile::{Preferences, Profile};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::agent::AgentPath;
use crate::destination::{Destination, DestinationError, Host, User};
use crate::hostkey::HostKeys;
use crate::identity::Identity;
use crate::memory::HostMemory;
use crate::platform::account;
use crate::reconnect::Reconnect;
use crate::route::{AddressFamily, Dialling, Endpoint, HOPS_MAX, Route, RouteStream};
use crate::session::Session;
use ahead::Ahead;
use early::Early;
use offers::Credentials;

/// The port of SSH (RFC 4253 §4).
pub const DEFAULT_PORT: u16 = 22;

/// A connection to be made.
///
/// ```no_run
/// use ketch_client::{Connect, identity::Identity};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let session = Connect::to("sftp.example.com")
///     .user("ann")
///     .identity(Identity::from_file("/home/ann/.ssh/id_ed25519")?)
///     .connect()
///     .await?;
/// println!("{}", session.peer_identification());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connect {
    host: Result<Host, DestinationError>,
    port: u16,
    user: Option<Result<User, DestinationError>>,
    host_keys: HostKeys,
    credentials: Credentials,
    preferences: Preferences,
    keep_host_key_order: bool,
    rekey_bytes: Option<u64>,
    rekey_interval: Option<Duration>,
    receive_pause: Option<Duration>,
    timeouts: Timeouts,
    dialling: Dialling,
    route: Route,
    memory: Option<Arc<dyn HostMemory>>,
    for_sftp: bool,
    reconnect: Option<Reconnect>,
}

impl Connect {
    /// Connects to `host`, a name or an address; everything else has a default, but something to
    /// log in with has to be given. A host that is not usable is reported by `connect`.
    #[must_use]
    pub fn to(host: &str) -> Self {
        Self {
            host: host.parse(),
            port: DEFAULT_PORT,
            user: None,
            host_keys: HostKeys::known_hosts(),
            credentials: Credentials::default(),
            preferences: Profile::default().for_client(),
            keep_host_key_order: false,
            rekey_bytes: None,
            rekey_interval: None,
            receive_pause: None,
            timeouts: Timeouts::default(),
            dialling: Dialling::default(),
            route: Route::Direct,
            memory: None,
            for_sftp: false,
            reconnect: None,
        }
    }

    /// Connects to the server of a destination, on its port and as its user where it names them.
    #[must_use]
    pub fn to_destination(destination: &Destination) -> Self {
        let mut connect = Self::to(destination.host.as_str());
        connect.port = destination.port.unwrap_or(DEFAULT_PORT);
        connect.user = destination.user.clone().map(Ok);
        connect
    }

    /// The TCP port. Default: 22.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Who to log in as. Default: the name of the account that runs the program. A name that is
    /// not usable is reported by `connect`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.parse());
        self
    }

    /// What decides whether the server is the one that was meant. Default:
    /// [`HostKeys::known_hosts`], where hosts that are not known are refused.
    #[must_use]
    pub fn host_keys(mut self, host_keys: HostKeys) -> Self {
        self.host_keys = host_keys;
        self
    }

    /// A private key to log in with; several are offered in the order in which they were given,
    /// before a password. Default: none.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.credentials.identities.push(identity);
        self
    }

    /// An ssh-agent whose keys are offered after those that were named; of these, it signs for
    /// those that it has and that are locked by a passphrase here. One that is not there is passed
    /// over. Default: none.
    #[must_use]
    pub fn agent(mut self, agent: AgentPath) -> Self {
        self.credentials.agent = Some(agent);
        self
    }

    /// Says that the agent asks its user before it signs (`ssh-add -c`): the server is asked about
    /// a key first, which costs a round trip and spares questions about keys that would not do.
    /// Keys in security keys are always asked about. Default: it does not.
    #[must_use]
    pub fn agent_asks(mut self) -> Self {
        self.credentials.agent_asks = true;
        self
    }

    /// Of the agent's keys, offers only those that were also named by [`Connect::identity`], for
    /// which a public key is enough. Default: false.
    #[must_use]
    pub fn identities_only(mut self, only: bool) -> Self {
        self.credentials.identities_only = only;
        self
    }

    /// The fingerprint (`SHA256:…`) of the key to begin with, if it is among those that would be
    /// offered: the one that did it last time ([`Session::logged_in_with`]). Default: none.
    #[must_use]
    pub fn first_key(mut self, fingerprint: impl Into<String>) -> Self {
        self.credentials.first = Some(fingerprint.into());
        self
    }

    /// A password to log in with, sent once at most, and only to a server whose key was accepted.
    /// A server that asks for it by keyboard-interactive alone gets it in this way. Default: none.
    #[must_use]
    pub fn password(mut self, password: impl Into<Zeroizing<String>>) -> Self {
        self.credentials.password = Some(offers::Password(password.into()));
        self
    }

    /// Whom to ask for a password when nothing else did it and the server takes one, up to three
    /// times, and for a new one when it has expired; on a thread where blocking is allowed, and not
    /// on the server's time. `None` as an answer gives up. Default: nobody.
    #[must_use]
    pub fn ask_password(
        mut self,
        ask: impl Fn(&PasswordQuestion<'_>) -> Option<Zeroizing<String>> + Send + Sync + 'static,
    ) -> Self {
        self.credentials.asker.password = Some(Arc::new(ask));
        self
    }

    /// Who answers the questions of a server (keyboard-interactive, RFC 4256): one answer for each,
    /// or `None` to give up. Asked as [`Connect::ask_password`] is, and before it. Default: nobody.
    #[must_use]
    pub fn ask_questions(
        mut self,
        ask: impl Fn(&ServerQuestions<'_>) -> Option<Vec<Zeroizing<String>>> + Send + Sync + 'static,
    ) -> Self {
        self.credentials.asker.questions = Some(Arc::new(ask));
        self
    }

    /// Who is told what the server says before a login, its banner (RFC 4252 §5.4). The text is
    /// escaped, so that it moves no cursor. Default: nobody; it is in the log.
    #[must_use]
    pub fn on_banner(mut self, tell: impl Fn(&Host, &str) + Send + Sync + 'static) -> Self {
        self.credentials.asker.banner = Some(Arc::new(tell));
        self
    }

    /// Accepts a login in which nothing was proved, and asks for it where there is neither key nor
    /// password nor anybody to ask.
    ///
    /// Who says yes to that may be anybody who holds the host's key, and what it shows need not be
    /// the user's: a password that it asks for next would be in the wrong hands. Default: not
    /// allowed.
    #[must_use]
    pub fn allow_none(mut self) -> Self {
        self.credentials.allow_none = true;
        self
    }

    /// The algorithms of a profile, in place of those that there were. Default:
    /// [`Profile::Compat`].
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.preferences = profile.for_client();
        self
    }

    /// The algorithms to offer, in order of preference. Default: those of [`Profile::Compat`].
    #[must_use]
    pub fn preferences(mut self, preferences: Preferences) -> Self {
        self.preferences = preferences;
        self
    }

    /// The ciphers to offer, in order of preference. Default: AES-256-GCM, AES-128-GCM and
    /// ChaCha20-Poly1305, the last one first where the processor has no instructions for AES, and
    /// then AES in counter mode.
    #[must_use]
    pub fn ciphers(mut self, ciphers: Vec<CipherName>) -> Self {
        self.preferences.cipher = ciphers;
        self
    }

    /// Whether host key algorithms are asked for in the order in which they are given, whatever is
    /// known of the host. Default: no, those of its known keys come first, so that it shows one
    /// that can be checked.
    #[must_use]
    pub fn keep_host_key_order(mut self, keep: bool) -> Self {
        self.keep_host_key_order = keep;
        self
    }

    /// Bytes in one direction after which keys are exchanged anew. Default: what the cipher bears,
    /// 64 GiB under AES-GCM and 1 GiB under ChaCha20-Poly1305.
    #[must_use]
    pub fn rekey_bytes(mut self, bytes: u64) -> Self {
        self.rekey_bytes = Some(bytes);
        self
    }

    /// Time after which keys are exchanged anew, whatever was sent. Default: one hour.
    #[must_use]
    pub fn rekey_interval(mut self, interval: Duration) -> Self {
        self.rekey_interval = Some(interval);
        self
    }

    /// Lets the stream fill for so long when bulk data comes in small pieces, which spares both sides
    /// wake-ups. Default: never.
    ///
    /// It **blocks the thread** of the connection's task: set it, to 100 or 200 µs, only on a runtime
    /// that does nothing else meanwhile, such as that of a command.
    #[must_use]
    pub fn receive_pause(mut self, pause: Duration) -> Self {
        self.receive_pause = Some(pause);
        self
    }

    /// Deadlines. Default: [`Timeouts::default`].
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Which addresses may be connected to, of the server or of the proxy before it. Default: both
    /// families, whichever answers first.
    #[must_use]
    pub fn address_family(mut self, family: AddressFamily) -> Self {
        self.dialling.family = family;
        self
    }

    /// The address of this machine to connect from; what has no address of its family cannot be
    /// reached. Default: the system chooses.
    #[must_use]
    pub fn bind_address(mut self, address: IpAddr) -> Self {
        self.dialling.from = Some(address);
        self
    }

    /// How often all addresses are tried, a second apart, until TCP connects to one. Default: once.
    ///
    /// It is for a server that starts at the same time; when a connection is made anew after it was
    /// lost, [`Connect::reconnect`] and [`Reconnecting`](crate::Reconnecting) say.
    #[must_use]
    pub fn connection_attempts(mut self, attempts: u32) -> Self {
        self.dialling.attempts = attempts;
        self
    }

    /// The way to the server. Default: [`Route::Direct`], TCP to whichever of its addresses
    /// answers first.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.route = route;
        self
    }

    /// Where to look up, and to note, what the host chooses and bears, so that the next connection
    /// takes fewer round trips. What was noted and does not fit any more costs one connection: it
    /// is forgotten, and the connection made once more without. Default: nowhere.
    #[must_use]
    pub fn host_memory(mut self, memory: Arc<dyn HostMemory>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Says that the connection is for SFTP: with servers that are known to bear it, its channel is
    /// opened along with the login, and the first [`Session::sftp`] finds it there, which spares
    /// round trips. Default: nothing is opened before it is asked for.
    #[must_use]
    pub fn for_sftp(mut self) -> Self {
        self.for_sftp = true;
        self
    }

    /// Has transfers go on over a new connection when theirs is lost, made as this policy says: what
    /// has arrived stays, and the rest is transferred. Default: they end with their connection.
    ///
    /// The session itself ends all the same; [`Reconnecting`](crate::Reconnecting) has new ones.
    #[must_use]
    pub fn reconnect(mut self, policy: Reconnect) -> Self {
        self.reconnect = Some(policy);
        self
    }

    /// Goes the way to the server and logs in.
    ///
    /// A server without strict key exchange that chooses a cipher which is not safe without
    /// (CVE-2023-48795) is connected to once more, and not offered that cipher.
    ///
    /// The connection runs on a task of its own until it ends or is told to.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(self) -> Result<Session, ConnectError> {
        self.make(None).await
    }

    /// Connects; `ahead` says what is asked of SFTP first.
    async fn make(self, ahead: Option<Ahead>) -> Result<Session, ConnectError> {
        let origin = self.clone();
        let (route, memory) = (self.route.clone(), self.memory.clone());
        let for_sftp = self.for_sftp || ahead.is_some();
        check_hops(&route)?;
        let mut plan = self.plan()?;
        plan.order_host_keys().await?;
        if for_sftp {
            plan.early = Early::after_login(ahead);
        }
        let session = known::connect(plan, &route, memory).await?;
        let origin = Origin::new(origin, session.logged_in_with());
        Ok(session.with_origin(Arc::new(origin)))
    }

    /// Logs in over a stream that leads to the server, such as a channel through another one, or
    /// the pipes of a program. Host and port say which host key is expected.
    ///
    /// # Errors
    /// [`ConnectError`], those about TCP excepted.
    pub async fn connect_over<S>(self, stream: S) -> Result<Session, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut plan = self.plan()?;
        plan.order_host_keys().await?;
        let (session, _) = plan.log_in(stream).await?;
        Ok(session)
    }

    /// The server that is meant.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        Ok(Endpoint::new(self.host.clone()?, self.port))
    }

    /// Servers that are passed on the way.
    pub(crate) fn hops(&self) -> usize {
        self.route.hops()
    }

    /// Everything that can be found wrong before the server hears of us.
    fn plan(self) -> Result<Plan, ConnectError> {
        let host = self.host?;
        let user = match self.user {
            Some(user) => user?,
            None => account::user_name()
                .and_then(|name| name.parse().ok())
                .ok_or_else(|| ConnectError::NoUser { host: host.clone() })?,
        };
        if self.credentials.is_empty() {
            return Err(ConnectError::NoCredentials { host });
        }
        Ok(Plan {
            host,
            port: self.port,
            user,
            host_keys: self.host_keys,
            credentials: self.credentials,
            preferences: self.preferences,
            keep_host_key_order: self.keep_host_key_order,
            rekey_bytes: self.rekey_bytes,
            rekey_interval: self.rekey_interval,
            receive_pause: self.receive_pause,
            timeouts: self.timeouts,
            dialling: self.dialling,
            guess: None,
            only_safe: false,
            early: Early::default(),
        })
    }
}

/// A connection of which everything is known that has to be.
#[derive(Clone, Debug)]
struct Plan {
    host: Host,
    port: u16,
    user: User,
    host_keys: HostKeys,
    credentials: Credentials,
    preferences: Preferences,
    keep_host_key_order: bool,
    rekey_bytes: Option<u64>,
    rekey_interval: Option<Duration>,
    receive_pause: Option<Duration>,
    timeouts: Timeouts,
    dialling: Dialling,
    /// What the host chose last time.
    guess: Option<Remembered>,
    /// Offers nothing that needs strict key exchange.
    only_safe: bool,
    early: Early,
}

impl Plan {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(self.user.as_str());
        let timers = &mut config.common.timers;
        timers.handshake = self.timeouts.handshake;
        timers.authentication = self.timeouts.authentication;
        timers.keepalive = self.timeouts.keepalive;
        timers.keepalives_max = self.timeouts.keepalives_max;
        timers.close = self.timeouts.close;
        timers.idle = self.timeouts.idle;
        config.common.preferences = self.preferences.clone();
        if self.only_safe {
            config.common.preferences.leave_out_unsafe();
        }
        config.remembered.clone_from(&self.guess);
        config.common.rekey.bytes = self.rekey_bytes;
        if let Some(interval) = self.rekey_interval {
            config.common.rekey.interval = interval;
        }
        config.common.timers.receive_pause = self.receive_pause;
        config
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.host.clone(), self.port)
    }

    /// As [`Plan::log_in`], and if the way ended, with what it knows about that.
    async fn log_in_by(self, stream: RouteStream) -> Result<LoggedIn, ConnectError> {
        let host = self.host.clone();
        let remains = stream.remains();
        let error = match self.log_in(stream).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let ConnectError::Ended { source, .. } = &error else {
            return Err(error);
        };
        if !matches!(**source, CloseReason::Eof | CloseReason::Io(_)) {
            return Err(error);
        }
        Err(match remains.settle().await {
            Some(source) => ConnectError::Command { host, source },
            None => error,
        })
    }

    /// Has the server show a key that can be checked, if it has one.
    async fn order_host_keys(&mut self) -> Result<(), ConnectError> {
        if self.keep_host_key_order {
            return Ok(());
        }
        if !self.host_keys.reads_files() {
            let offered = &self.preferences.host_key;
            self.preferences.host_key = self.host_keys.order(&self.host, self.port, offered)?;
            return Ok(());
        }
        let (host_keys, host, port) = (self.host_keys.clone(), self.host.clone(), self.port);
        let algorithms = std::mem::take(&mut self.preferences.host_key);
        // Files are read: not on a thread that others wait for.
        let ordered = spawn_blocking(move || host_keys.order(&host, port, &algorithms))
            .await
            .map_err(|_| ConnectError::Runtime {
                host: self.host.clone(),
            })?;
        self.preferences.host_key = ordered?;
        Ok(())
    }

    async fn log_in<S>(self, stream: S) -> Result<LoggedIn, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = self.config();
        let allowed = config.common.preferences.user_key.clone();
        let login = Login::client(stream, config)
            .map_err(|source| ConnectError::ended(&self.host, Stage::Handshake, source))?;
        let (verified, keep_up) =
            login::verify_host(login, &self.host, self.port, self.host_keys).await?;
        let by_then = (&self.early, self.timeouts.stall);
        let (login, by, opening) = verified
            .authenticate(&self.host, &self.user, self.credentials, allowed, by_then)
            .await?;
        let seen = login.to_remember();
        let host = self.host.clone();
        let session = Session::start(login, self.host, by, self.timeouts, keep_up);
        if let Some(opening) = opening.or_else(|| self.early.after(&session)) {
            let ended = |source| ConnectError::Ended {
                host,
                stage: Stage::Authentication,
                source,
            };
            opening.settle(&session).await.map_err(ended)?;
        }
        Ok((session, seen))
    }
}

/// A session, and what is worth remembering of its host.
type LoggedIn = (Session, Option<Remembered>);

/// Finds routes that cannot be gone, before anything is.
fn check_hops(route: &Route) -> Result<(), ConnectError> {
    let Route::Jump(hops) = route else {
        return Ok(());
    };
    if hops.is_empty() {
        return Err(ConnectError::Hops(HopsFault::None));
    }
    if route.hops() > HOPS_MAX {
        return Err(ConnectError::Hops(HopsFault::TooMany));
    }
    if hops.iter().skip(1).any(|hop| !hop.route.is_direct()) {
        return Err(ConnectError::Hops(HopsFault::Route));
    }
    Ok(())
}
