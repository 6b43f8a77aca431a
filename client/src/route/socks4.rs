//! SOCKS4 and SOCKS4a proxies, in the form that Ying-Da Lee's two papers give: there is no RFC.
//!
//! One request, one reply of eight bytes. SOCKS4 names an IPv4 address; SOCKS4a may name a host
//! behind the user id, for which the address is `0.0.0.x` with x not 0.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::error::{CredentialsFault, ProxyFault, Said};
use super::{Endpoint, read_array, send, tcp};
use crate::destination::{Host, NAME_LEN_MAX};

const VERSION: u8 = 4;
const CONNECT: u8 = 1;
/// The address that says that a name follows.
const NAME_FOLLOWS: Ipv4Addr = Ipv4Addr::new(0, 0, 0, 1);

/// What a request names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Named {
    Address(Ipv4Addr),
    /// SOCKS4a alone.
    Host(Host),
}

/// The server's IPv4 address, looked up here if need be.
pub(super) async fn address(target: &Endpoint, limit: Duration) -> Result<Named, ProxyFault> {
    if let Named::Address(address) = address_or_name(target)? {
        return Ok(Named::Address(address));
    }
    let found = tcp::look_up(target, limit)
        .await
        .map_err(ProxyFault::Lookup)?;
    let is_v4 = |found: &SocketAddr| match found.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    let address = found.iter().find_map(is_v4).ok_or(ProxyFault::Ipv6)?;
    Ok(Named::Address(address))
}

/// The server as it is named: for SOCKS4a.
pub(super) fn address_or_name(target: &Endpoint) -> Result<Named, ProxyFault> {
    match target.ip()? {
        Some(IpAddr::V4(address)) => Ok(Named::Address(address)),
        Some(IpAddr::V6(_)) => Err(ProxyFault::Ipv6),
        None => Ok(Named::Host(target.host.clone())),
    }
}

/// Asks the proxy at the other end of `stream` to connect.
pub(super) async fn connect<S>(
    stream: &mut S,
    named: Named,
    user: &str,
    port: u16,
) -> Result<(), ProxyFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if user.len() > NAME_LEN_MAX || user.contains('\0') {
        return Err(ProxyFault::Credentials(CredentialsFault::Unusable));
    }
    let address = match &named {
        Named::Address(address) => *address,
        Named::Host(_) => NAME_FOLLOWS,
    };
    let mut request = vec![VERSION, CONNECT];
    request.extend(port.to_be_bytes());
    request.extend(address.octets());
    request.extend(user.as_bytes());
    request.push(0);
    if let Named::Host(host) = named {
        request.extend(host.as_str().as_bytes()); // a `Host` has no zero byte
        request.push(0);
    }
    send(stream, &request).await?;

    let [version, code, ..] = read_array::<8>(stream).await?;
    if version != 0 {
        return Err(ProxyFault::Garbled {
            protocol: "SOCKS4",
            what: "the reply does not begin with a zero byte",
        });
    }
    let said = |words: &str| Said {
        code: code.into(),
        words: words.to_owned(),
    };
    match code {
        90 => Ok(()),
        // It says so of whatever went wrong, a rule of its own as well as a server that is down.
        91 => Err(ProxyFault::NoWay(said("request rejected or failed"))),
        92 | 93 => Err(ProxyFault::Credentials(if user.is_empty() {
            CredentialsFault::Wanted
        } else {
            CredentialsFault::Refused
        })),
        _ => Err(ProxyFault::Garbled {
            protocol: "SOCKS4",
            what: "the reply has a number that does not exist",
        }),
    }
}
