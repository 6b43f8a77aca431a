//! Why there is no connection.

use std::fmt;
use std::io;
use std::sync::Arc;

use ketch_transport::driver::{CloseReason, OpenError};
use ketch_transport::error::ConnectionError;
use ketch_transport::event::Refusal;

use crate::agent::AgentError;
use crate::destination::{DestinationError, Host, User};
use crate::hostkey::HostKeyError;
use crate::identity::{IdentityError, Origin};
use crate::route::tcp::DialError;
use crate::route::{CommandError, Endpoint, ProxyError, Unreachable};
use crate::{Failure, Kind, SftpError};

/// `SSH_OPEN_CONNECT_FAILED` (RFC 4254 §5.1).
const CONNECT_FAILED: u32 = 2;

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host or the user is no name that may be used.
    #[error("the server's name or the user's is not usable")]
    Destination(#[from] DestinationError),
    /// Nobody said who to log in as, and the system does not know the account's name.
    #[error("nobody to log in as at {host}: name the user, as in user@{host}")]
    NoUser {
        /// The server.
        host: Host,
    },
    /// There is neither a key nor a password.
    #[error("nothing to log in with at {host}: name a private key, or give a password")]
    NoCredentials {
        /// The server.
        host: Host,
    },
    /// The name could not be resolved.
    #[error("no address for {host} could be found: check the name, and whether DNS works here")]
    Lookup {
        /// The server.
        host: Host,
        /// What the system said.
        source: io::Error,
    },
    /// No address of the server took a TCP connection.
    #[error(
        "no connection to {host} ({tried}): check whether an SSH server listens there and no \
         firewall is in between"
    )]
    Unreachable {
        /// The server.
        host: Host,
        /// Every address that was tried, and what the system said about it.
        tried: Unreachable,
    },
    /// The proxy on the way did not lead to the server.
    #[error(transparent)]
    Proxy(ProxyError),
    /// The program on the way did not lead to the server.
    #[error("no way to {host} through its proxy command")]
    Command {
        /// The server.
        host: Host,
        /// Why.
        source: CommandError,
    },
    /// There is no connection to a server on the way.
    #[error("no way to {host}: the connection to {hop}, on the way, was not made")]
    Jump {
        /// The server that was meant.
        host: Host,
        /// The one on the way.
        hop: Host,
        /// Why.
        source: Box<Self>,
    },
    /// A server on the way does not connect to the next one.
    #[error("{hop} made no connection to {target}: it may forbid that, or not reach it")]
    JumpRefused {
        /// The server on the way.
        hop: Host,
        /// The next one.
        target: Endpoint,
        /// What it said.
        source: OpenError,
    },
    /// The servers on the way make no way.
    #[error("{0}")]
    Hops(HopsFault),
    /// The server's key was not accepted: nothing of the user's was sent.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// A private key could not be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server accepted nothing of what was offered.
    #[error("{user} could not log in at {host}: {}", refusal(.tried, .methods))]
    Auth {
        /// Who tried to log in.
        user: User,
        /// The server.
        host: Host,
        /// What was offered, in order.
        tried: Vec<Tried>,
        /// The methods that the server would still take, as it names them.
        methods: Vec<String>,
        /// Why something could not be offered.
        #[source]
        skipped: Option<Box<Skipped>>,
    },
    /// The agent could not be used, and there was nothing else.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The server let us in without any proof.
    #[error(
        "{host} let {user} in without proof, which an impostor would do; if that is how this server \
         works, allow it"
    )]
    NotAuthenticated {
        /// Who tried to log in.
        user: User,
        /// The server.
        host: Host,
    },
    /// The password is right, but has to be changed, and nobody gave a new one.
    #[error("the password of {user} at {host} has expired: change it there, or give a new one")]
    PasswordExpired {
        /// Who tried to log in.
        user: User,
        /// The server.
        host: Host,
    },
    /// The connection ended before the user was logged in.
    #[error("{stage} with {host} failed")]
    Ended {
        /// The server.
        host: Host,
        /// What was going on.
        stage: Stage,
        /// Why.
        source: Arc<CloseReason>,
    },
    /// The user is in, and SFTP did not start.
    #[error("SFTP did not start at {host}")]
    Sftp {
        /// The server.
        host: Host,
        /// Why.
        source: SftpError,
    },
    /// A helper thread did not finish: it panicked, or the runtime is shutting down.
    #[error("the connection to {host} was given up, because a helper thread did not finish")]
    Runtime {
        /// The server.
        host: Host,
    },
}

/// What is wrong with the servers that a connection is to pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HopsFault {
    /// There is none.
    None,
    /// There are more than eight.
    TooMany,
    /// One behind the first has a route of its own.
    Route,
}

impl fmt::Display for HopsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "a route through other servers names none",
            Self::TooMany => "a route leads through more than eight servers",
            Self::Route => {
                "only the first server on the way may have a route of its own: the others are \
                 reached through the one before"
            }
        })
    }
}

/// What a connection was busy with when it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stage {
    /// Identification and key exchange.
    Handshake,
    /// Proving who the user is.
    Authentication,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "the SSH handshake",
            Self::Authentication => "logging in",
        })
    }
}

/// Why something could not be offered to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Skipped {
    /// A private key.
    #[error(transparent)]
    Identity(IdentityError),
    /// The agent, or a key of its.
    #[error(transparent)]
    Agent(AgentError),
}

/// Something that a server was offered.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tried {
    /// Nothing: whether it lets us in without proof.
    None,
    /// A key.
    Key {
        /// Its fingerprint, `SHA256:…`.
        fingerprint: String,
        /// Where it comes from.
        origin: Origin,
        /// Whether somebody may have to unlock it, to confirm or to touch something each time it is
        /// used.
        asks: bool,
    },
    /// Answers to its questions (keyboard-interactive).
    Answers,
    /// A password.
    Password,
}

impl Tried {
    /// The fingerprint, if it was a key.
    pub(super) fn fingerprint(&self) -> Option<String> {
        match self {
            Self::Key { fingerprint, .. } => Some(fingerprint.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no credential"),
            Self::Key {
                fingerprint,
                origin,
                ..
            } => write!(f, "the key {fingerprint} ({origin})"),
            Self::Answers => f.write_str("the answers to its questions"),
            Self::Password => f.write_str("the password"),
        }
    }
}

/// Says what was refused, and what the server would take.
fn refusal(tried: &[Tried], methods: &[String]) -> String {
    let tried: Vec<_> = tried.iter().map(Tried::to_string).collect();
    let tried = match &tried[..] {
        [] => "nothing that it takes was there to offer".to_owned(),
        tried => format!("it did not accept {}", tried.join(", ")),
    };
    // The names are the peer's words: they must not reach a terminal as they are (CVE-2019-6109).
    let methods: Vec<_> = methods
        .iter()
        .map(|m| m.escape_default().to_string())
        .collect();
    match &methods[..] {
        [] => tried,
        methods => format!("{tried}; it takes {}", methods.join(", ")),
    }
}

impl Failure for ConnectError {
    fn kind(&self) -> Kind {
        match self {
            Self::Destination(error) => error.kind(),
            Self::NoUser { .. } | Self::Hops(_) => Kind::Local,
            Self::NoCredentials { .. }
            | Self::Auth { .. }
            | Self::NotAuthenticated { .. }
            | Self::PasswordExpired { .. } => Kind::Auth,
            Self::Agent(error) => error.kind(),
            Self::Lookup { source, .. } => Kind::of_stream(source),
            Self::Unreachable { tried, .. } if tried.is_timeout() => Kind::Timeout,
            Self::Unreachable { .. } => Kind::Network,
            Self::Proxy(error) => error.kind(),
            Self::Command { source, .. } => source.kind(),
            Self::Jump { source, .. } => source.kind(),
            Self::JumpRefused { source, .. } => match source {
                // It could not reach the next one: it may later.
                OpenError::Refused(Refusal::Channel {
                    reason: CONNECT_FAILED,
                    ..
                }) => Kind::Network,
                other => other.kind(),
            },
            Self::HostKey(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Ended { stage, source, .. } => match (stage, &**source) {
                // Servers that have had enough of us say it in this way, too.
                (
                    Stage::Authentication,
                    CloseReason::Connection(ConnectionError::Disconnected { .. }),
                ) => Kind::Auth,
                (_, why) => why.kind(),
            },
            Self::Sftp { source, .. } => source.kind(),
            Self::Runtime { .. } => Kind::Cancelled,
        }
    }
}

impl ConnectError {
    pub(crate) fn dialling(host: &Host, error: DialError) -> Self {
        let host = host.clone();
        match error {
            DialError::Lookup(source) => Self::Lookup { host, source },
            DialError::Unreachable(tried) => Self::Unreachable { host, tried },
        }
    }

    pub(super) fn ended(host: &Host, stage: Stage, source: CloseReason) -> Self {
        Self::Ended {
            host: host.clone(),
            stage,
            source: Arc::new(source),
        }
    }
}
