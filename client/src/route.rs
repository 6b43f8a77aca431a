//! How the bytes reach a server: straight over TCP, through a proxy, through other servers, or
//! through a program.
//!
//! A [`Route`] says which way; the builder ([`Connect::route`](crate::Connect::route)) and the
//! configuration share it. Whatever the way, what comes out is one `RouteStream`, and nothing
//! above it knows the difference: the server's host key is checked at its end, so a proxy may read
//! neither credentials nor data and cannot pass for the server.
//!
//! | module | the way |
//! | --- | --- |
//! | `tcp` | addresses of both families raced (RFC 8305) |
//! | `http_connect` | a proxy that knows `CONNECT` (RFC 9110 §9.3.6), Basic credentials (RFC 7617) |
//! | `socks4` | SOCKS4 and SOCKS4a proxies, with a user id |
//! | `socks5` | SOCKS5 proxies (RFC 1928), user and password (RFC 1929) |
//! | `jump` | other SSH servers, each with its own host key check and credentials |
//! | `url` | a proxy as people write it |
//! | `command` | a program whose standard input and output lead there |

mod command;
mod error;
mod http_connect;
mod jump;
mod socks4;
mod socks5;
mod stream;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;
mod url;

pub use command::{CommandError, ProxyCommand};
pub use error::{ProxyError, ProxyFault};
pub(crate) use jump::HOPS_MAX;
pub(crate) use stream::RouteStream;
pub(crate) use tcp::Dialling;
pub use tcp::{AddressFamily, Unreachable};
pub use url::{ProxyUrl, ProxyUrlError};

use std::fmt;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::connect::{Connect, ConnectError, Timeouts};
use crate::destination::{Host, User};
use tcp::DialError;

/// The way to a server.
///
/// ```
/// use ketch_client::{Connect, route::{Endpoint, ProxyCredentials, Route}};
///
/// let proxy = Endpoint::new("proxy.example.com".parse()?, 3128);
/// let credentials = Some(ProxyCredentials::new("ann", "secret".to_owned()));
/// let connect = Connect::to("sftp.example.com")
///     .route(Route::HttpConnect { proxy, credentials });
/// # Ok::<(), ketch_client::destination::DestinationError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Route {
    /// TCP to the server's addresses.
    #[default]
    Direct,
    /// An HTTP proxy that connects on our behalf. The proxy looks the name up.
    HttpConnect {
        /// Where the proxy listens.
        proxy: Endpoint,
        /// Sent at once, as Basic credentials in the clear, where there are any.
        credentials: Option<ProxyCredentials>,
    },
    /// A SOCKS4 proxy. It takes IPv4 addresses alone: the name is looked up here.
    Socks4 {
        /// Where the proxy listens.
        proxy: Endpoint,
        /// The user id that the request names, if any.
        user: Option<String>,
    },
    /// A SOCKS4a proxy, which looks the name up.
    Socks4a {
        /// Where the proxy listens.
        proxy: Endpoint,
        /// The user id that the request names, if any.
        user: Option<String>,
    },
    /// A SOCKS5 proxy, which looks the name up.
    Socks5 {
        /// Where the proxy listens.
        proxy: Endpoint,
        /// Sent in the clear, if the proxy asks for them.
        credentials: Option<ProxyCredentials>,
    },
    /// Other servers, in the order in which they are passed, over connections of our own.
    ///
    /// Each is a [`Connect`] with its own user, credentials and host keys, and each one's host key
    /// is checked. The first may have a route itself; those behind it may not, since the hop before
    /// is their route. Eight servers are the most.
    Jump(Vec<Connect>),
    /// A program that speaks with the server on its standard input and output.
    Command(ProxyCommand),
}

/// A name or an address, and a port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

impl Endpoint {
    /// The port `port` of `host`.
    #[must_use]
    pub const fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// The host as an address, if it is none that only a look-up tells. An address with a zone is
    /// refused, for its zone means nothing elsewhere.
    fn ip(&self) -> Result<Option<IpAddr>, ProxyFault> {
        let host = self.host.as_str();
        if host.contains('%') {
            return Err(ProxyFault::LocalAddress);
        }
        Ok(host.parse().ok())
    }
}

impl fmt::Display for Endpoint {
    /// `host:port`, an IPv6 address in brackets: what RFC 3986 §3.2.2 wants, too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.as_str().contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Who we are to a proxy.
#[derive(Clone)]
pub struct ProxyCredentials {
    user: String,
    password: Zeroizing<String>,
}

impl ProxyCredentials {
    /// A user and a password. Whether they can be said in the proxy's protocol is found when the
    /// connection is made.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<Zeroizing<String>>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }
}

impl fmt::Debug for ProxyCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyCredentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Route {
    /// Goes the way to `target`, as far as a stream on which its SSH server speaks.
    pub(crate) async fn open(
        &self,
        target: &Endpoint,
        user: &User,
        dialling: &Dialling,
        timeouts: &Timeouts,
    ) -> Result<RouteStream, ConnectError> {
        let stream = match self {
            Self::Direct => tcp::dial(target, dialling, timeouts)
                .await
                .map_err(|error| ConnectError::dialling(&target.host, error))?,
            Self::HttpConnect { proxy, credentials } => {
                let talk = async |stream: &mut TcpStream| {
                    http_connect::connect(stream, target, credentials.as_ref()).await
                };
                through(proxy, target, dialling, timeouts, talk).await?
            }
            Self::Socks4 { proxy, user } => {
                let user = user.as_deref().unwrap_or_default();
                let talk = async |stream: &mut TcpStream| {
                    let address = socks4::address(target, timeouts.tcp).await?;
                    socks4::connect(stream, address, user, target.port).await
                };
                through(proxy, target, dialling, timeouts, talk).await?
            }
            Self::Socks4a { proxy, user } => {
                let user = user.as_deref().unwrap_or_default();
                let talk = async |stream: &mut TcpStream| {
                    let address = socks4::address_or_name(target)?;
                    socks4::connect(stream, address, user, target.port).await
                };
                through(proxy, target, dialling, timeouts, talk).await?
            }
            Self::Socks5 { proxy, credentials } => {
                let talk = async |stream: &mut TcpStream| {
                    socks5::connect(stream, target, credentials.as_ref()).await
                };
                through(proxy, target, dialling, timeouts, talk).await?
            }
            Self::Jump(hops) => return Box::pin(jump::open(hops, target)).await,
            Self::Command(command) => {
                return command
                    .start(target, user)
                    .map_err(|source| ConnectError::Command {
                        host: target.host.clone(),
                        source,
                    });
            }
        };
        Ok(RouteStream::Tcp(stream))
    }

    /// Servers that are passed on the way, those of their own routes counted.
    pub(crate) fn hops(&self) -> usize {
        match self {
            Self::Jump(hops) => hops
                .iter()
                .fold(0_usize, |sum, hop| sum.saturating_add(1 + hop.hops())),
            _ => 0,
        }
    }

    /// Whether TCP leads straight to the server.
    pub(crate) const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct)
    }
}

/// Connects to `proxy` and has it connect to `target`; `talk` is the conversation about that.
async fn through(
    proxy: &Endpoint,
    target: &Endpoint,
    dialling: &Dialling,
    timeouts: &Timeouts,
    talk: impl AsyncFnOnce(&mut TcpStream) -> Result<(), ProxyFault>,
) -> Result<TcpStream, ConnectError> {
    let failed = |fault| {
        ConnectError::Proxy(ProxyError {
            proxy: proxy.clone(),
            target: target.clone(),
            fault,
        })
    };
    let dialled = tcp::dial(proxy, dialling, timeouts).await;
    let mut stream = dialled.map_err(|error| failed(error.into()))?;
    match timeout(timeouts.proxy, talk(&mut stream)).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(fault)) => Err(failed(fault)),
        Err(_) => Err(failed(ProxyFault::TimedOut)),
    }
}

impl From<DialError> for ProxyFault {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Lookup(source) => Self::Lookup(source),
            DialError::Unreachable(source) => Self::Unreachable(source),
        }
    }
}

/// Reads exactly as many bytes; what follows stays in the stream, for the server may speak first.
async fn read_array<const N: usize>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<[u8; N], ProxyFault> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), ProxyFault> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}
