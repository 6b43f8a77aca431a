//! What an embedding program may set, with secure and fast defaults; every limit has a name here.

use std::sync::Arc;
use std::time::Duration;

use ketch_keys::{KeyType, PrivateKey, PublicKey, SignError, SignatureAlgorithm};

use crate::algorithm::Kex;
use crate::profile::{Preferences, Profile};

/// Bounds on what a peer may make us keep or do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Channels on one connection at a time. Default: 10, as OpenSSH's `MaxSessions`.
    pub channels_max: usize,
    /// Bytes that the peer may send ahead on a channel that it opened. Default: 2 MiB.
    pub window_bytes: u32,
    /// What that window may grow to while the peer keeps it full. Default: 16 MiB.
    pub window_bytes_max: u32,
    /// Bytes that wait in one channel for the peer's window. Default: 512 KiB.
    pub channel_queue_bytes: usize,
    /// Failed attempts to authenticate before the server disconnects. Default: 6.
    pub auth_failures_max: u32,
    /// Requests to authenticate, of any outcome, before the server disconnects. Default: 64.
    pub auth_requests_max: u32,
    /// Keys that a client may ask about or sign with before the server disconnects. Default: 20.
    pub auth_keys_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels_max: 10,
            window_bytes: 2 * 1024 * 1024,
            window_bytes_max: 16 * 1024 * 1024,
            channel_queue_bytes: 512 * 1024,
            auth_failures_max: 6,
            auth_requests_max: 64,
            auth_keys_max: 20,
        }
    }
}

/// How long things may take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Timers {
    /// Identification and first key exchange; also each later exchange. Default: 30 s.
    pub handshake: Duration,
    /// Authentication, not counting the time that a question is with the user. Default: 60 s.
    pub authentication: Duration,
    /// Silence after which the peer is asked whether it is there; `None` never asks. Default: 30 s.
    pub keepalive: Option<Duration>,
    /// Intervals of silence after which the peer counts as gone, two at the least: it is asked at the
    /// end of each but the last. Default: 3, which with 30 s makes 90 s.
    pub keepalives_max: u32,
    /// How long output may wait of which the peer takes nothing, once somebody is logged in.
    /// Default: 60 s.
    pub output: Duration,
    /// How long a client keeps a connection on which nothing is asked for: no channel is open, or
    /// none whose application has something under way ([`Application::is_idle`]). A server keeps one
    /// so long on which no application runs. Default: `None`, for ever.
    ///
    /// [`Application::is_idle`]: crate::driver::Application::is_idle
    pub idle: Option<Duration>,
    /// How long a graceful end may take. Default: 5 s.
    pub close: Duration,
    /// How long the task lets the stream fill when bulk data comes in small pieces; `None` never
    /// waits. Default: `None`.
    ///
    /// A peer that is slower than this side wakes it for every packet, which costs both of them more
    /// than the packet does. The pause **blocks the thread**, as a timer of the runtime could not be
    /// so short: set it only, to 100 or 200 µs, where the runtime's thread has nothing else to do.
    pub receive_pause: Option<Duration>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            authentication: Duration::from_secs(60),
            keepalive: Some(Duration::from_secs(30)),
            keepalives_max: 3,
            output: Duration::from_secs(60),
            idle: None,
            close: Duration::from_secs(5),
            receive_pause: None,
        }
    }
}

/// When keys are exchanged anew, whichever of these comes first (RFC 4253 §9, RFC 4344 §3).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RekeyPolicy {
    /// Bytes in one direction; `None` for what the cipher bears: 64 GiB under AES-GCM, 1 GiB under
    /// ChaCha20-Poly1305.
    pub bytes: Option<u64>,
    /// Packets in one direction. Default: 2^31.
    pub packets: u64,
    /// Time. Default: one hour.
    pub interval: Duration,
}

impl Default for RekeyPolicy {
    fn default() -> Self {
        Self {
            bytes: None,
            packets: 1 << 31,
            interval: Duration::from_secs(3600),
        }
    }
}

/// What both roles have.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CommonConfig {
    /// Algorithms, in order of preference. Default: [`Profile::Compat`] of a client,
    /// [`Profile::Modern`] of a server.
    pub preferences: Preferences,
    /// Bounds.
    pub limits: Limits,
    /// Deadlines.
    pub timers: Timers,
    /// When keys are exchanged anew.
    pub rekey: RekeyPolicy,
}

impl Default for CommonConfig {
    /// With [`Profile::Modern`].
    fn default() -> Self {
        Self::new(Profile::Modern.for_client())
    }
}

impl CommonConfig {
    fn new(preferences: Preferences) -> Self {
        Self {
            preferences,
            limits: Limits::default(),
            timers: Timers::default(),
            rekey: RekeyPolicy::default(),
        }
    }
}

/// What a client knows of a host from last time, which spares round trips.
///
/// Nothing in it is secret, and nothing is trusted: a host that has changed since costs one failed
/// connection ([`ConnectionError::WrongGuess`](crate::error::ConnectionError::WrongGuess)), after
/// which it should be forgotten and connected to without.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remembered {
    /// How the host introduced itself.
    pub identification: String,
    /// The method that this client and the host choose: its first packet is sent unasked.
    pub kex: Kex,
    /// The algorithm of the host's key.
    pub host_key: SignatureAlgorithm,
    /// Whether it keeps strict key exchange; if not, what is unsafe without is offered last.
    pub strict: bool,
}

/// A client's configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Who to log in as.
    pub user: String,
    /// What is known of the host from last time. Default: nothing.
    pub remembered: Option<Remembered>,
    /// What both roles have.
    pub common: CommonConfig,
}

/// Channels that a client may have at a time: it opens them itself, and servers have bounds of their
/// own.
const CLIENT_CHANNELS_MAX: usize = 128;

impl ClientConfig {
    /// Logs in as `user`; everything else has a default, and there may be 128 channels.
    #[must_use]
    pub fn new(user: impl Into<String>) -> Self {
        let mut common = CommonConfig::new(Profile::Compat.for_client());
        common.limits.channels_max = CLIENT_CHANNELS_MAX;
        Self {
            user: user.into(),
            remembered: None,
            common,
        }
    }
}

/// A way to log in that a server offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AuthMethod {
    /// `publickey` (RFC 4252 §7).
    PublicKey,
    /// `password` (RFC 4252 §8).
    Password,
    /// `keyboard-interactive` (RFC 4256).
    KeyboardInteractive,
}

impl AuthMethod {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PublicKey => "publickey",
            Self::Password => "password",
            Self::KeyboardInteractive => "keyboard-interactive",
        }
    }
}

/// A private key with which a server proves who it is, and perhaps a certificate for it.
#[derive(Debug)]
pub struct HostKey {
    private: PrivateKey,
    certificate: Option<PublicKey>,
}

impl HostKey {
    /// The key alone.
    #[must_use]
    pub const fn new(private: PrivateKey) -> Self {
        Self {
            private,
            certificate: None,
        }
    }

    /// With a certificate over it, as an authority signed it (OpenSSH PROTOCOL.certkeys).
    ///
    /// # Errors
    /// The key itself, if the certificate is over another key, or is none.
    pub fn with_certificate(self, certificate: PublicKey) -> Result<Self, Box<Self>> {
        let fits = certificate.certificate().is_some()
            && certificate.plain() == *self.private.public_key();
        if !fits {
            return Err(Box::new(self));
        }
        Ok(Self {
            private: self.private,
            certificate: Some(certificate),
        })
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.private.public_key()
    }

    /// The certificate, if there is one.
    #[must_use]
    pub const fn certificate(&self) -> Option<&PublicKey> {
        self.certificate.as_ref()
    }

    /// What of it is shown under that algorithm: the certificate or the key.
    pub(crate) fn shown_with(&self, algorithm: SignatureAlgorithm) -> &PublicKey {
        match &self.certificate {
            Some(certificate) if algorithm.is_certificate() => certificate,
            _ => self.public_key(),
        }
    }

    /// Whether it can prove itself with that algorithm.
    pub(crate) fn signs_with(&self, algorithm: SignatureAlgorithm) -> bool {
        algorithm.key_type() == self.public_key().key_type()
            && (!algorithm.is_certificate() || self.certificate.is_some())
            // Made and verified by a device that is not here.
            && !matches!(
                algorithm.key_type(),
                KeyType::SkEd25519 | KeyType::SkEcdsaP256
            )
    }

    /// Signs; the signature was verified before it is returned.
    pub(crate) fn sign(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, SignError> {
        self.private.sign(algorithm.plain(), data)
    }
}

impl From<PrivateKey> for HostKey {
    fn from(private: PrivateKey) -> Self {
        Self::new(private)
    }
}

/// A server's configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// With what it proves who it is: at most one key of each type counts, the first.
    pub host_keys: Arc<[Arc<HostKey>]>,
    /// Ways to log in that it names and takes. Default: keys and passwords.
    pub methods: Vec<AuthMethod>,
    /// A text that is shown to users before they log in (RFC 4252 §5.4). Default: none.
    pub banner: Option<String>,
    /// Whether clients are told all host keys when they are logged in, and get them proved
    /// (`hostkeys-00@openssh.com`), so that they know a new key before the old one goes. Default:
    /// false.
    pub announce_host_keys: bool,
    /// The keys of which they are told instead, whatever `announce_host_keys` says: with some that are
    /// not used yet, or without some that are used for the last time. Default: none.
    pub announced_host_keys: Option<Arc<[Arc<HostKey>]>>,
    /// Whether it is asked before the first key exchange of a connection is computed, so that only
    /// some are at a time: anybody may ask for one, and it costs the server more than the client
    /// (CVE-2002-20001). Default: false.
    pub ask_before_keys: bool,
    /// What both roles have.
    pub common: CommonConfig,
}

impl ServerConfig {
    /// Proves itself with `host_keys`; everything else has a default.
    ///
    /// # Panics
    /// Never: the modern profile has a list for servers.
    #[must_use]
    pub fn new(host_keys: impl IntoIterator<Item = Arc<HostKey>>) -> Self {
        let preferences = Profile::Modern.for_server();
        Self {
            host_keys: host_keys.into_iter().collect(),
            methods: vec![AuthMethod::PublicKey, AuthMethod::Password],
            banner: None,
            announce_host_keys: false,
            announced_host_keys: None,
            ask_before_keys: false,
            common: CommonConfig::new(preferences.expect("it is for both roles")),
        }
    }
}
