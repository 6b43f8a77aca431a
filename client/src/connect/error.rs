//! Why there is no connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ketch_transport::driver::CloseReason;
use ketch_transport::error::ConnectionError;

use crate::destination::{DestinationError, Host, User};
use crate::hostkey::HostKeyError;
use crate::identity::{IdentityError, Origin};
use crate::{Failure, Kind};

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
        "no connection to {host}: {address} took none{}; check whether an SSH server listens there \
         and no firewall is in between",
        others(*.tried)
    )]
    Unreachable {
        /// The server.
        host: Host,
        /// The address tried last.
        address: SocketAddr,
        /// How many were tried.
        tried: usize,
        /// What the system said about the last.
        source: io::Error,
    },
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
        /// Why a private key could not be offered.
        #[source]
        skipped: Option<Box<IdentityError>>,
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
    /// A helper thread did not finish: it panicked, or the runtime is shutting down.
    #[error("the connection to {host} was given up, because a helper thread did not finish")]
    Runtime {
        /// The server.
        host: Host,
    },
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
    },
    /// A password.
    Password,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no credential"),
            Self::Key {
                fingerprint,
                origin,
            } => write!(f, "the key {fingerprint} ({origin})"),
            Self::Password => f.write_str("the password"),
        }
    }
}

/// Counts the addresses that are not named.
fn others(tried: usize) -> String {
    match tried.saturating_sub(1) {
        0 => String::new(),
        1 => ", nor did another address".to_owned(),
        others => format!(", nor did {others} other addresses"),
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
            Self::NoUser { .. } => Kind::Local,
            Self::NoCredentials { .. } | Self::Auth { .. } => Kind::Auth,
            Self::Lookup { source, .. } | Self::Unreachable { source, .. } => {
                Kind::of_stream(source)
            }
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
            Self::Runtime { .. } => Kind::Cancelled,
        }
    }
}

impl ConnectError {
    pub(super) fn ended(host: &Host, stage: Stage, source: CloseReason) -> Self {
        Self::Ended {
            host: host.clone(),
            stage,
            source: Arc::new(source),
        }
    }
}
