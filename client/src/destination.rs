//! Where the user wants to go: `[user@]host:path` and `sftp://[user@]host[:port]/path`.
//!
//! Two forms, because they say two things:
//!
//! - `host:path` is what `scp` takes. A path without a leading `/` counts from the directory in
//!   which the server puts the user; `host:` alone is that directory. The port is given apart.
//! - `sftp://host/path` is a URL: the path is always absolute, and percent-encoded bytes are
//!   decoded. `?`, `#` and `*` are taken as they stand: SFTP has neither queries nor fragments,
//!   and patterns have to be writable. `sftp://host` without a path is the user's directory. A
//!   password in the URL is refused: command lines are seen by others.
//!
//! IPv6 addresses stand in brackets in both. User and host may be made of
//! `[A-Za-z0-9._:%@+-]` alone and do not start with `-`, so that no shell, file format or other
//! program's option parser that they are handed to can be talked into something (CVE-2023-51385).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::platform::user_files::DRIVE_LETTERS;
use crate::{Failure, Kind, RemotePath};

/// Longest host or user name, in bytes.
pub const NAME_LEN_MAX: usize = 255;
/// Longest path, in bytes after decoding.
pub const PATH_LEN_MAX: usize = 4096;

const SCHEME: &str = "sftp://";

/// A place on a server.
///
/// ```
/// use ketch_client::Destination;
///
/// let url: Destination = "sftp://ann@[::1]:2222/in/a%20b.csv".parse()?;
/// assert_eq!(url.user.as_ref().map(|user| user.as_str()), Some("ann"));
/// assert_eq!((url.host.as_str(), url.port), ("::1", Some(2222)));
/// assert_eq!(url.path.as_bytes(), b"/in/a b.csv");
///
/// let short: Destination = "sftp.example.com:in/a.csv".parse()?;
/// assert_eq!(short.path.as_bytes(), b"in/a.csv");
/// # Ok::<(), ketch_client::destination::DestinationError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destination {
    /// Who to log in as, if it was said.
    pub user: Option<User>,
    /// The server.
    pub host: Host,
    /// The TCP port, if it was said.
    pub port: Option<u16>,
    /// The path: `.` where none was given.
    pub path: RemotePath,
}

impl Destination {
    /// Whether `argument` names a place on a server rather than a local file, as `scp` decides it:
    /// by a colon before the first slash.
    #[must_use]
    pub fn looks_remote(argument: &str) -> bool {
        argument.starts_with(SCHEME) || split_short(argument).is_some()
    }

    fn from_url(rest: &str) -> Result<Self, DestinationError> {
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(DestinationError::Password),
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (host, port) = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or(DestinationError::Bracket)?,
            None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(DestinationError::Bracket),
            Some("") => None, // RFC 3986 §3.2.3 allows the colon alone
            Some(digits) => Some(parse_port(digits)?),
        };
        let path = percent_decode(path)?;
        Ok(Self {
            user: user
                .map(|user| User::from_bytes(percent_decode(user)?))
                .transpose()?,
            host: Host::from_bytes(percent_decode(host)?)?,
            port,
            path: remote_path(if path.is_empty() { b"." } else { &path })?,
        })
    }

    fn from_short(text: &str) -> Result<Self, DestinationError> {
        let (user, host, path) = split_short(text).ok_or(DestinationError::NotRemote)?;
        Ok(Self {
            user: user.map(str::parse).transpose()?,
            host: host.parse()?,
            port: None,
            path: remote_path(if path.is_empty() {
                b"."
            } else {
                path.as_bytes()
            })?,
        })
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        match text.strip_prefix(SCHEME) {
            Some(rest) => Self::from_url(rest),
            None if text.contains("://") => Err(DestinationError::Scheme),
            None => Self::from_short(text),
        }
    }
}

/// A host name or address that is safe to hand on: see the module's documentation.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Host(String);

impl Host {
    /// The name as it was given, an IPv6 address without brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, DestinationError> {
        String::from_utf8(bytes)
            .map_err(|_| DestinationError::Host)?
            .parse()
    }
}

impl FromStr for Host {
    type Err = DestinationError;

    /// Takes a name, an IPv4 address, or an IPv6 address with or without brackets and zone.
    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        let is_name = |name: &str| is_safe(name) && !name.contains(['@', ':', '%']);
        let is_ipv6 = |text: &str| {
            let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
            address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
        };
        // Brackets are for IPv6 addresses alone: what else stands in them is a mistake.
        let good = is_ipv6(bare) || (bare.len() == text.len() && is_name(text));
        if good {
            Ok(Self(bare.to_owned()))
        } else {
            Err(DestinationError::Host)
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user name that is safe to hand on: see the module's documentation.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct User(String);

impl User {
    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, DestinationError> {
        String::from_utf8(bytes)
            .map_err(|_| DestinationError::User)?
            .parse()
    }
}

impl FromStr for User {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if is_safe(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DestinationError::User)
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text names no place on a server.
///
/// The text itself is not repeated: whoever prints this knows it, and it may hold anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DestinationError {
    /// No host stands in front of a colon.
    #[error("this is no remote path: write [user@]host:path or sftp://[user@]host[:port]/path")]
    NotRemote,
    /// A URL of another scheme.
    #[error("only sftp:// URLs are understood")]
    Scheme,
    /// A URL with a password.
    #[error("a password does not belong into a URL, where others can read it: leave it out")]
    Password,
    /// Brackets that do not enclose the host.
    #[error("the brackets around the host are not closed, or not followed by a colon or a slash")]
    Bracket,
    /// The host is empty, too long, or made of other characters than are allowed.
    #[error(
        "the host has to be an address or a name of letters, digits, '.', '_' and '-', and not \
         start with '-'"
    )]
    Host,
    /// The user is empty, too long, or made of other characters than are allowed.
    #[error("the user has to be made of letters, digits and '._:%@+-', and not start with '-'")]
    User,
    /// The port is no number from 1 to 65535.
    #[error("the port has to be a number from 1 to 65535")]
    Port,
    /// A `%` that two hexadecimal digits do not follow.
    #[error("a '%' in a URL has to be followed by two hexadecimal digits: write %25 for '%'")]
    Percent,
    /// The path is too long, or has a zero byte.
    #[error("the path is longer than {PATH_LEN_MAX} bytes or has a zero byte in it")]
    Path,
}

impl Failure for DestinationError {
    fn kind(&self) -> Kind {
        Kind::Local
    }
}

/// User, host and path of the form without a scheme; `None` if it has no host and colon before the
/// first slash.
fn split_short(text: &str) -> Option<(Option<&str>, &str, &str)> {
    let front = text.split('/').next()?;
    let colon = front.find(':')?;
    // A bracket counts only where a host may start: at the front, or right behind the user.
    let open = front.find('[').filter(|open| *open < colon);
    if let Some(open) = open.filter(|open| *open == 0 || front[..*open].ends_with('@')) {
        let (user, bracketed) = text.split_at(open);
        let (host, path) = bracketed.strip_prefix('[')?.split_once("]:")?;
        return Some((user.strip_suffix('@'), host, path));
    }
    if colon == 0 || (colon == 1 && DRIVE_LETTERS) {
        return None;
    }
    let (front, path) = text.split_once(':')?;
    Some(match front.rsplit_once('@') {
        Some((user, host)) => (Some(user), host, path),
        None => (None, front, path),
    })
}

fn is_safe(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:%@+-".contains(&b))
}

fn parse_port(digits: &str) -> Result<u16, DestinationError> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DestinationError::Port); // `parse` would take a plus sign
    }
    digits
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or(DestinationError::Port)
}

fn remote_path(path: &[u8]) -> Result<RemotePath, DestinationError> {
    if path.len() > PATH_LEN_MAX || path.contains(&0) {
        return Err(DestinationError::Path);
    }
    Ok(RemotePath::from(path))
}

fn percent_decode(text: &str) -> Result<Vec<u8>, DestinationError> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (digits, after) = rest
            .split_first_chunk::<2>()
            .ok_or(DestinationError::Percent)?;
        let digit = |b: u8| {
            char::from(b)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        };
        match (digit(digits[0]), digit(digits[1])) {
            (Some(high), Some(low)) => decoded.push(high << 4 | low),
            _ => return Err(DestinationError::Percent),
        }
        rest = after;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parts = (Option<String>, String, Option<u16>, Vec<u8>);

    fn parse(text: &str) -> Result<Parts, DestinationError> {
        let d: Destination = text.parse()?;
        let user = d.user.map(|user| user.as_str().to_owned());
        Ok((
            user,
            d.host.as_str().to_owned(),
            d.port,
            d.path.as_bytes().to_vec(),
        ))
    }

    #[test]
    fn both_forms_name_user_host_port_and_path() {
        for (text, user, host, port, path) in [
            ("host:", None, "host", None, "."),
            ("host:a.csv", None, "host", None, "a.csv"),
            ("host:a@b", None, "host", None, "a@b"),
            ("host:[a]:b", None, "host", None, "[a]:b"),
            ("host:/a/b:c@d", None, "host", None, "/a/b:c@d"),
            ("ann@host:in/", Some("ann"), "host", None, "in/"),
            ("ann@corp@host:x", Some("ann@corp"), "host", None, "x"),
            ("[::1]:x", None, "::1", None, "x"),
            ("[host]:x", None, "host", None, "x"), // as scp takes it
            (
                "ann@[fe80::1%eth0]:/x",
                Some("ann"),
                "fe80::1%eth0",
                None,
                "/x",
            ),
            ("host:a b%20", None, "host", None, "a b%20"),
            ("sftp://host", None, "host", None, "."),
            ("sftp://host/", None, "host", None, "/"),
            ("sftp://host:/x", None, "host", None, "/x"),
            ("sftp://host:22/x", None, "host", Some(22), "/x"),
            (
                "sftp://ann@host:65535/in/*.csv",
                Some("ann"),
                "host",
                Some(65535),
                "/in/*.csv",
            ),
            (
                "sftp://ann%40corp@host/",
                Some("ann@corp"),
                "host",
                None,
                "/",
            ),
            ("sftp://[::1]:2222/~/x", None, "::1", Some(2222), "/~/x"),
            (
                "sftp://[fe80::1%25eth0]/x",
                None,
                "fe80::1%eth0",
                None,
                "/x",
            ),
            ("sftp://host//x?y#z", None, "host", None, "//x?y#z"),
            ("sftp://host/a@b:c", None, "host", None, "/a@b:c"),
        ] {
            let expected = (user.map(str::to_owned), host.to_owned(), port, path.into());
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_path_of_any_bytes_can_be_written_as_a_url() {
        assert_eq!(parse("sftp://host/%ff%2F%3f").unwrap().3, b"/\xff/?");
    }

    #[test]
    fn what_is_wrong_is_said() {
        use DestinationError as E;
        for (text, expected) in [
            ("", E::NotRemote),
            ("host", E::NotRemote),
            ("./host:path", E::NotRemote),
            (":path", E::NotRemote),
            ("ssh://host/", E::Scheme),
            ("sftp://ann:secret@host/", E::Password),
            ("sftp://", E::Host),
            ("sftp:///path", E::Host),
            ("sftp://@host/", E::User),
            ("@host:x", E::User),
            ("sftp://[::1/", E::Bracket),
            ("sftp://[::1]22/", E::Bracket),
            ("[::1]x:y", E::NotRemote),
            ("sftp://::1/", E::Port),
            ("sftp://host:0/", E::Port),
            ("sftp://host:65536/", E::Port),
            ("sftp://host:+22/", E::Port),
            ("sftp://host/%", E::Percent),
            ("sftp://host/%4", E::Percent),
            ("sftp://host/%g0", E::Percent),
            ("sftp://host/%00", E::Path),
            ("host:a\0b", E::Path),
        ] {
            assert_eq!(parse(text), Err(expected), "{text:?}");
        }
        assert_eq!(
            parse(&format!("host:{}", "a".repeat(PATH_LEN_MAX + 1))),
            Err(E::Path)
        );
        assert_eq!(
            parse(&format!("{}:x", "a".repeat(NAME_LEN_MAX + 1))),
            Err(E::Host)
        );
    }

    #[test]
    fn nothing_that_a_shell_or_an_option_parser_would_act_on_is_a_name() {
        let payloads = [
            "-oProxyCommand=x",
            "-l",
            "--",
            "$(id)",
            "`id`",
            "${HOME}",
            "a;b",
            "a|b",
            "a&b",
            "a>b",
            "a<b",
            "a b",
            "a\tb",
            "a\nb",
            "a\rb",
            "a\0b",
            "a'b",
            "a\"b",
            "a\\b",
            "a*b",
            "a?b",
            "a!b",
            "a#b",
            "a~b",
            "(a)",
            "{a}",
            "a,b",
            "a=b",
            "a^b",
            "caf\u{e9}",
            "a\u{202e}b",
            "a\u{a0}b",
            "\u{1b}[2J",
        ];
        for payload in payloads {
            assert_eq!(
                payload.parse::<User>(),
                Err(DestinationError::User),
                "{payload:?}"
            );
            assert_eq!(
                payload.parse::<Host>(),
                Err(DestinationError::Host),
                "{payload:?}"
            );
            let encoded: String = payload.bytes().map(|b| format!("%{b:02x}")).collect();
            for url in [
                format!("sftp://{encoded}@host/"),
                format!("sftp://{encoded}/"),
            ] {
                assert!(url.parse::<Destination>().is_err(), "{url}");
            }
        }
        for payload in ["a@b", "a:b", "a%b", "::1%eth0%x", "[a]", "[::1"] {
            assert_eq!(
                payload.parse::<Host>(),
                Err(DestinationError::Host),
                "{payload:?}"
            );
        }
    }

    #[test]
    fn a_local_file_is_told_from_a_place_on_a_server() {
        for remote in [
            "host:",
            "host:x",
            "u@host:x",
            "host:a@b",
            "[::1]:x",
            "u@[::1]:x",
            "sftp://host",
        ] {
            assert!(Destination::looks_remote(remote), "{remote}");
        }
        for local in ["", "x", "./a:b", "/a:b", ":x", "dir/a:b", "[x"] {
            assert!(!Destination::looks_remote(local), "{local}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}") {
            let _ = text.parse::<Destination>();
            let _ = format!("sftp://{text}").parse::<Destination>();
        }

        #[test]
        fn every_name_that_is_accepted_is_of_the_safe_characters(text in "[ -~]{1,12}") {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert!(is_safe(host.as_str()));
            }
        }

        #[test]
        fn percent_encoding_is_undone(bytes in proptest::collection::vec(1u8.., 1..60)) {
            let encoded: String = bytes.iter().map(|b| format!("%{b:02X}")).collect();
            let parsed: Destination = format!("sftp://host/{encoded}").parse().unwrap();
            prop_assert_eq!(&parsed.path.as_bytes()[1..], &bytes[..]);
        }
    }
}
