//! SOCKS5 proxies (RFC 1928), with user and password (RFC 1929).
//!
//! Ours, because it is a page: the crate at hand writes a request with a call that may write a part
//! of it, cuts credentials of more than 255 bytes short instead of refusing them, keeps no copy of
//! the password from staying in memory, and brings five more crates with it.

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use zeroize::Zeroizing;

use super::error::{CredentialsFault, ProxyFault, Said};
use super::{Endpoint, ProxyCredentials, read_array, send};

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
/// Ways to authenticate (RFC 1928 §3).
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
/// Kinds of addresses (RFC 1928 §4).
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks the proxy at the other end of `stream` to connect to `target`.
pub(super) async fn connect<S>(
    stream: &mut S,
    target: &Endpoint,
    credentials: Option<&ProxyCredentials>,
) -> Result<(), ProxyFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(target)?;
    let login = credentials.map(login).transpose()?;
    let greeting: &[u8] = match login {
        None => &[VERSION, 1, NO_AUTHENTICATION],
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
    };
    send(stream, greeting).await?;
    let [version, way] = read_array(stream).await?;
    if version != VERSION {
        return Err(garbled("it is of another version"));
    }
    match (way, login) {
        (NO_AUTHENTICATION, _) => {}
        (USER_AND_PASSWORD, Some(login)) => {
            send(stream, &login).await?;
            // RFC 1929 §2 gives the version 1; some proxies repeat their 5.
            let [_, outcome] = read_array(stream).await?;
            if outcome != 0 {
                return Err(ProxyFault::Credentials(CredentialsFault::Refused));
            }
        }
        (NONE_ACCEPTABLE, None) => return Err(ProxyFault::Credentials(CredentialsFault::Wanted)),
        (NONE_ACCEPTABLE, Some(_)) => {
            return Err(ProxyFault::Credentials(CredentialsFault::UnknownWay));
        }
        _ => return Err(garbled("it chose a way to log in that it was not offered")),
    }

    send(stream, &request).await?;
    let [version, reply, _, kind] = read_array(stream).await?;
    if version != VERSION {
        return Err(garbled("it is of another version"));
    }
    if reply != 0 {
        return Err(refusal(reply)); // nothing is wanted of the rest
    }
    // The address from which it connects: of no use, but the server's bytes come behind it.
    let address_len = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => read_array::<1>(stream).await?[0],
        _ => return Err(garbled("an address is of a kind that does not exist")),
    };
    let mut rest = [0; 255 + 2];
    let rest = &mut rest[..usize::from(address_len) + 2];
    stream.read_exact(rest).await?;
    Ok(())
}

/// The request (RFC 1928 §4).
fn request(target: &Endpoint) -> Result<Vec<u8>, ProxyFault> {
    let mut request = vec![VERSION, CONNECT, 0];
    match target.ip()? {
        Some(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Some(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        None => {
            request.push(NAME);
            push_short(&mut request, target.host.as_str())
                .ok_or(garbled("the name is too long for it"))?;
        }
    }
    request.extend(target.port.to_be_bytes());
    Ok(request)
}

/// User and password (RFC 1929 §2): 1 to 255 bytes each.
fn login(credentials: &ProxyCredentials) -> Result<Zeroizing<Vec<u8>>, ProxyFault> {
    // Room for all of it, so that no copy is left behind where it grew.
    let mut login = Zeroizing::new(Vec::with_capacity(3 + 2 * 255));
    login.push(1);
    push_short(&mut login, &credentials.user)
        .and_then(|()| push_short(&mut login, &credentials.password))
        .ok_or(ProxyFault::Credentials(CredentialsFault::Unusable))?;
    Ok(login)
}

fn push_short(to: &mut Vec<u8>, text: &str) -> Option<()> {
    let len = u8::try_from(text.len()).ok().filter(|len| *len > 0)?;
    to.push(len);
    to.extend(text.as_bytes());
    Some(())
}

/// What a reply other than success says (RFC 1928 §6).
fn refusal(reply: u8) -> ProxyFault {
    let said = |words: &str| Said {
        code: reply.into(),
        words: words.to_owned(),
    };
    match reply {
        1 => ProxyFault::NoWay(said("general failure")),
        2 => ProxyFault::Refused(said("its rules do not allow it")),
        3 => ProxyFault::NoWay(said("network unreachable")),
        4 => ProxyFault::NoWay(said("host unreachable")),
        5 => ProxyFault::NoWay(said("connection refused")),
        6 => ProxyFault::NoWay(said("time to live expired")),
        7 => ProxyFault::Refused(said("it does not know the command")),
        8 => ProxyFault::Refused(said("it does not know this kind of address")),
        _ => garbled("a reply has a number that does not exist"),
    }
}

const fn garbled(what: &'static str) -> ProxyFault {
    ProxyFault::Garbled {
        protocol: "SOCKS5",
        what,
    }
}
