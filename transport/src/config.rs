//! What an embedding program may set, with secure and fast defaults; every limit has a name here.

use std::sync::Arc;
use std::time::Duration;

use crate::algorithm::Preferences;
use crate::crypto::hostkey::HostKeyPair;

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
    /// Unanswered questions after which the peer counts as gone. Default: 3.
    pub keepalives_max: u32,
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
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CommonConfig {
    /// Algorithms, in order of preference.
    pub preferences: Preferences,
    /// Bounds.
    pub limits: Limits,
    /// Deadlines.
    pub timers: Timers,
    /// When keys are exchanged anew.
    pub rekey: RekeyPolicy,
}

/// A client's configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Who to log in as.
    pub user: String,
    /// What both roles have.
    pub common: CommonConfig,
}

impl ClientConfig {
    /// Logs in as `user`; everything else has a default.
    #[must_use]
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            common: CommonConfig::default(),
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

/// A server's configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// With what it proves who it is.
    pub host_key: Arc<HostKeyPair>,
    /// Ways to log in that it names and takes. Default: keys and passwords.
    pub methods: Vec<AuthMethod>,
    /// A text that is shown to users before they log in (RFC 4252 §5.4). Default: none.
    pub banner: Option<String>,
    /// What both roles have.
    pub common: CommonConfig,
}

impl ServerConfig {
    /// Proves itself with `host_key`; everything else has a default.
    #[must_use]
    pub fn new(host_key: Arc<HostKeyPair>) -> Self {
        Self {
            host_key,
            methods: vec![AuthMethod::PublicKey, AuthMethod::Password],
            banner: None,
            common: CommonConfig::default(),
        }
    }
}
