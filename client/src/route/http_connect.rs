//! HTTP proxies: `CONNECT` (RFC 9110 §9.3.6) in the form of HTTP/1.1 (RFC 9112), with Basic
//! credentials (RFC 7617).
//!
//! The reply's head is read byte by byte and not a byte further, because the server's first line may
//! come right behind it; it has to fit [`HEAD_LEN_MAX`], interim replies (1xx) included.

use base64ct::{Base64, Encoding};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::error::{CredentialsFault, ProxyFault, Said};
use super::{Endpoint, ProxyCredentials, read_array, send};

/// Most bytes of a reply's head, or of all heads if there are several.
const HEAD_LEN_MAX: usize = 8 * 1024;
/// Most bytes of a reason that are shown.
const REASON_LEN_MAX: usize = 120;

/// Asks the proxy at the other end of `stream` to connect to `target`.
pub(super) async fn connect<S>(
    stream: &mut S,
    target: &Endpoint,
    credentials: Option<&ProxyCredentials>,
) -> Result<(), ProxyFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    target.ip()?; // for a zone
    let target = target.to_string();
    let basic = credentials.map(basic).transpose()?;
    // In one allocation, so that no copy of a password is left where it grew.
    let request = Zeroizing::new(match &basic {
        None => format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"),
        Some(basic) => [
            "CONNECT ",
            &target,
            " HTTP/1.1\r\nHost: ",
            &target,
            "\r\nProxy-Authorization: Basic ",
            basic,
            "\r\n\r\n",
        ]
        .concat(),
    });
    send(stream, request.as_bytes()).await?;

    let mut left = HEAD_LEN_MAX;
    loop {
        let head = read_head(stream, &mut left).await?;
        let (status, reason) = status_line(&head)?;
        let said = || Said {
            code: status,
            words: reason.clone(),
        };
        return match status {
            100..=199 if status != 101 => continue,
            200..=299 => Ok(()),
            401 | 407 => Err(ProxyFault::Credentials(match credentials {
                _ if !takes_basic(&head) => CredentialsFault::UnknownWay,
                None => CredentialsFault::Wanted,
                Some(_) => CredentialsFault::Refused,
            })),
            // What a gateway says when the far side does not answer (RFC 9110 §15.6).
            502..=504 => Err(ProxyFault::NoWay(said())),
            _ => Err(ProxyFault::Refused(said())),
        };
    }
}

/// `user:password` in Base64. The user has no colon (RFC 7617 §2), neither has control characters.
fn basic(credentials: &ProxyCredentials) -> Result<Zeroizing<String>, ProxyFault> {
    let ProxyCredentials { user, password } = credentials;
    let is_text = |text: &str| !text.contains(char::is_control);
    // What has to fit a proxy's own bound on a line, which is 8 KiB at most of them.
    let fits = user.len() <= 1024 && password.len() <= 1024;
    if user.contains(':') || !is_text(user) || !is_text(password) || !fits {
        return Err(ProxyFault::Credentials(CredentialsFault::Unusable));
    }
    let pair = Zeroizing::new([user, ":", password.as_str()].concat());
    Ok(Zeroizing::new(Base64::encode_string(pair.as_bytes())))
}

/// Reads up to the empty line. A lone LF ends a line, too (RFC 9112 §2.2).
async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    left: &mut usize,
) -> Result<Vec<u8>, ProxyFault> {
    let mut head = Vec::new();
    while !(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")) {
        *left = left.checked_sub(1).ok_or(garbled("its head is too long"))?;
        let [byte] = read_array(stream).await?;
        head.push(byte);
        // An SSH server, say, is not waited for until it says 8 KiB.
        if !is_http_so_far(&head) {
            return Err(garbled("it does not begin with HTTP/1."));
        }
    }
    Ok(head)
}

fn is_http_so_far(head: &[u8]) -> bool {
    const BEGIN: &[u8] = b"HTTP/1.";
    let len = head.len().min(BEGIN.len());
    head[..len] == BEGIN[..len]
}

/// `HTTP/1.x SP status [SP reason]` (RFC 9112 §4).
fn status_line(head: &[u8]) -> Result<(u16, String), ProxyFault> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or(head);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (version, status, reason) = (parts.next(), parts.next(), parts.next());
    let is_version = version.is_some_and(|v| v.len() == 8 && v[7].is_ascii_digit());
    let status = status
        .filter(|digits| is_version && digits.len() == 3 && digits.iter().all(u8::is_ascii_digit))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .filter(|status| *status >= 100)
        .ok_or(garbled("its first line has no status"))?;
    let reason = reason.unwrap_or_default();
    // The peer's words: they must not reach a terminal as they are.
    let reason = reason[..reason.len().min(REASON_LEN_MAX)].escape_ascii();
    Ok((status, reason.to_string()))
}

/// Whether Basic is among the ways that the proxy names (RFC 9110 §11.7.1), or it names none.
fn takes_basic(head: &[u8]) -> bool {
    let head = head.to_ascii_lowercase();
    let mut named = head
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let rest = line.strip_prefix(b"proxy-authenticate:");
            rest.or_else(|| line.strip_prefix(b"www-authenticate:"))
        })
        .peekable();
    let is_basic = |ways: &[u8]| {
        ways.split(|byte| *byte == b',')
            .any(|way| way.trim_ascii_start().starts_with(b"basic"))
    };
    named.peek().is_none() || named.any(is_basic)
}

const fn garbled(what: &'static str) -> ProxyFault {
    ProxyFault::Garbled {
        protocol: "HTTP",
        what,
    }
}
