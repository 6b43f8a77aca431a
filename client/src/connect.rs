//! Making connections: name, TCP, handshake, host key, authentication.
//!
//! [`Connect`] gathers what is needed and ends in a [`Session`]. The order of things is fixed: the
//! server's key is checked before anything of the user's is sent, whether name or proof; each
//! credential is offered once; and a server that would let us in without proof is only asked to
//! where the caller said so.

mod dial;
mod error;
mod login;
#[cfg(test)]
mod tests;
mod timeouts;

pub use error::{ConnectError, Stage, Tried};
pub use timeouts::Timeouts;

use std::time::Duration;

use ketch_transport::algorithm::CipherName;
use ketch_transport::config::ClientConfig;
use ketch_transport::driver::Login;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use crate::destination::{Destination, DestinationError, Host, User};
use crate::hostkey::HostKeys;
use crate::identity::Identity;
use crate::platform::account;
use crate::session::Session;
use login::Credentials;

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
    ciphers: Option<Vec<CipherName>>,
    rekey_bytes: Option<u64>,
    receive_pause: Option<Duration>,
    timeouts: Timeouts,
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
            ciphers: None,
            rekey_bytes: None,
            receive_pause: None,
            timeouts: Timeouts::default(),
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

    /// A password to log in with, sent once at most, and only to a server whose key was accepted.
    /// Default: none.
    #[must_use]
    pub fn password(mut self, password: impl Into<Zeroizing<String>>) -> Self {
        self.credentials.password = Some(login::Password(password.into()));
        self
    }

    /// Where there is neither key nor password, asks the server to let us in without proof.
    ///
    /// Who says yes to that may be anybody who holds the host's key, and what it shows need not be
    /// the user's. Default: not allowed.
    #[must_use]
    pub fn allow_none(mut self) -> Self {
        self.credentials.allow_none = true;
        self
    }

    /// The ciphers to offer, in order of preference. Default: AES-256-GCM, AES-128-GCM and
    /// ChaCha20-Poly1305, the last one first where the processor has no instructions for AES.
    #[must_use]
    pub fn ciphers(mut self, ciphers: Vec<CipherName>) -> Self {
        self.ciphers = Some(ciphers);
        self
    }

    /// Bytes in one direction after which keys are exchanged anew. Default: what the cipher bears,
    /// 64 GiB under AES-GCM and 1 GiB under ChaCha20-Poly1305.
    #[must_use]
    pub fn rekey_bytes(mut self, bytes: u64) -> Self {
        self.rekey_bytes = Some(bytes);
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

    /// Connects over TCP and logs in.
    ///
    /// Each address of the host is tried in turn. The connection runs on a task of its own until
    /// it ends or is told to.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(self) -> Result<Session, ConnectError> {
        let plan = self.plan()?;
        let stream = dial::dial(&plan.host, plan.port, &plan.timeouts).await?;
        plan.log_in(stream).await
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
        self.plan()?.log_in(stream).await
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
            ciphers: self.ciphers,
            rekey_bytes: self.rekey_bytes,
            receive_pause: self.receive_pause,
            timeouts: self.timeouts,
        })
    }
}

/// A connection of which everything is known that has to be.
#[derive(Debug)]
struct Plan {
    host: Host,
    port: u16,
    user: User,
    host_keys: HostKeys,
    credentials: Credentials,
    ciphers: Option<Vec<CipherName>>,
    rekey_bytes: Option<u64>,
    receive_pause: Option<Duration>,
    timeouts: Timeouts,
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
        if let Some(ciphers) = &self.ciphers {
            config.common.preferences.cipher.clone_from(ciphers);
        }
        config.common.rekey.bytes = self.rekey_bytes;
        config.common.timers.receive_pause = self.receive_pause;
        config
    }

    async fn log_in<S>(self, stream: S) -> Result<Session, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let login = Login::client(stream, self.config())
            .map_err(|source| ConnectError::ended(&self.host, Stage::Handshake, source))?;
        let verified = login::verify_host(login, &self.host, self.port, self.host_keys).await?;
        let login = verified
            .authenticate(&self.host, &self.user, self.credentials)
            .await?;
        Ok(Session::start(login, self.host, self.timeouts))
    }
}
