//! Why a proxy did not lead to the server.

use std::fmt;
use std::io;

use super::{Endpoint, Unreachable};
use crate::{Failure, Kind};

/// A proxy did not lead to the server.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy} did not lead to {target}: {fault}")]
#[non_exhaustive]
pub struct ProxyError {
    /// The proxy.
    pub proxy: Endpoint,
    /// What it was to connect to.
    pub target: Endpoint,
    /// What went wrong.
    #[source]
    pub fault: ProxyFault,
}

/// What went wrong with a proxy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyFault {
    /// The proxy's own name, or the server's where it has to be known here, could not be resolved.
    #[error("a name on the way has no address that could be found")]
    Lookup(#[source] io::Error),
    /// No address of the proxy took a connection.
    #[error("the proxy cannot be reached ({0})")]
    Unreachable(Unreachable),
    /// The connection to the proxy ended or failed before the proxy had answered.
    #[error("the connection to the proxy ended before it answered")]
    Lost(#[from] io::Error),
    /// The proxy did not answer within [`Timeouts::proxy`](crate::Timeouts::proxy).
    #[error("the proxy did not answer in time")]
    TimedOut,
    /// The proxy wants credentials, or others than it was given, or in a way that is not known
    /// here.
    #[error("{0}")]
    Credentials(CredentialsFault),
    /// The proxy does not connect to that host or port.
    #[error("the proxy refused ({})", .0)]
    Refused(Said),
    /// The proxy could not connect to the server.
    #[error("the proxy could not reach it ({})", .0)]
    NoWay(Said),
    /// What the proxy answered is no answer of its protocol.
    #[error("what it answered is not {protocol}: {what}; check the kind of proxy, and its port")]
    Garbled {
        /// What it should have spoken.
        protocol: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// SOCKS4 knows IPv4 addresses alone.
    #[error("SOCKS4 cannot name an IPv6 address: use SOCKS5 or HTTP CONNECT")]
    Ipv6,
    /// The address has a zone, which means something on this machine alone.
    #[error("an address with a zone means nothing to a proxy")]
    LocalAddress,
}

/// What is wrong with the credentials for a proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CredentialsFault {
    /// None were given, and the proxy wants some.
    Wanted,
    /// The proxy does not take those that were given.
    Refused,
    /// The proxy wants to know who we are in a way that is not known here.
    UnknownWay,
    /// They cannot be said in the proxy's protocol.
    Unusable,
}

impl fmt::Display for CredentialsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wanted => "it wants a user and a password: give them with the proxy",
            Self::Refused => "it does not take the user or the password given for it",
            Self::UnknownWay => "it wants credentials in a way that is not known here",
            Self::Unusable => {
                "the user or the password given for it is empty, too long, or has characters that \
                 cannot be said to such a proxy"
            }
        })
    }
}

/// How a proxy put it: its number and its words, made safe to print.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    pub(super) code: u16,
    pub(super) words: String,
}

impl Said {
    /// The number: a status of HTTP, a reply of SOCKS.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.code
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words.as_str() {
            "" => write!(f, "{}", self.code),
            words => write!(f, "{}, {words}", self.code),
        }
    }
}

impl Failure for ProxyError {
    fn kind(&self) -> Kind {
        match &self.fault {
            ProxyFault::Lookup(error) | ProxyFault::Lost(error) => Kind::of_stream(error),
            ProxyFault::Unreachable(tried) if !tried.is_timeout() => Kind::Network,
            ProxyFault::Unreachable(_) | ProxyFault::TimedOut => Kind::Timeout,
            ProxyFault::Credentials(_) => Kind::Auth,
            ProxyFault::Refused(_) => Kind::Permission,
            ProxyFault::NoWay(_) => Kind::Network,
            ProxyFault::Garbled { .. } => Kind::Peer,
            ProxyFault::Ipv6 | ProxyFault::LocalAddress => Kind::Unsupported,
        }
    }
}
