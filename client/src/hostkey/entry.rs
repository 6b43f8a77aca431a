//! One line of a `known_hosts` file (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! `[@marker] hosts type base64-key [comment]`, separated by blanks and tabs. A line that says
//! anything else is skipped, as OpenSSH skips it: such files are old and edited by hand, and one
//! bad line must not lock a user out of every other host.

use base64ct::{Base64, Encoding};
use ketch_wire::Reader;

use super::pattern;

/// Longest key that is read, in bytes of its wire form.
pub(super) const KEY_LEN_MAX: usize = 8 * 1024;

/// Types of plain host keys that OpenSSH knows; lines with others are skipped.
const KEY_TYPES: [&str; 8] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-dss",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// What a line binds to its hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) marker: Marker,
    /// The field of patterns, or the hashed name.
    pub(super) hosts: &'a [u8],
    pub(super) algorithm: &'static str,
    /// The key in its wire form (RFC 4253 §6.6).
    pub(super) key: Vec<u8>,
}

/// What stands in front of the hosts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Marker {
    /// Nothing: the key is the host's.
    Host,
    /// `@cert-authority`: the key signs host certificates and is no host's own.
    CertAuthority,
    /// `@revoked`: the key must not be accepted, whatever other lines say.
    Revoked,
}

impl<'a> Entry<'a> {
    /// Reads a line without its line feed; `None` for comments, blank lines and what is malformed.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        // OpenSSH's strings end at a zero byte; what stands before it may be a revocation.
        let line = line.split(|&b| b == 0).next().unwrap_or_default();
        let line = skip_blanks(line);
        if line.is_empty() || line.starts_with(b"#") {
            return None;
        }
        let (marker, line) = match line.strip_prefix(b"@") {
            None => (Marker::Host, line),
            Some(line) => {
                let (word, rest) = field(line);
                let marker = match word {
                    b"cert-authority" => Marker::CertAuthority,
                    b"revoked" => Marker::Revoked,
                    _ => return None,
                };
                (marker, rest)
            }
        };
        if line.starts_with(b"@") {
            return None; // one marker is all there may be
        }
        let (hosts, rest) = field(line);
        let (algorithm, rest) = field(rest);
        let (encoded, _comment) = field(rest);
        let algorithm = *KEY_TYPES
            .iter()
            .find(|known| known.as_bytes() == algorithm)?;
        let key = decode_key(encoded)?;
        (key_algorithm(&key)? == algorithm.as_bytes()).then_some(Self {
            marker,
            hosts,
            algorithm,
            key,
        })
    }

    /// Whether the line speaks of `name`, which has to be in lower case.
    pub(super) fn is_about(&self, name: &str) -> bool {
        pattern::hosts_match(self.hosts, name)
    }

    /// Whether the line can speak of more than one name.
    pub(super) fn has_many_names(&self) -> bool {
        !pattern::is_hashed(self.hosts)
            && self
                .hosts
                .iter()
                .any(|b| matches!(b, b',' | b'*' | b'?' | b'!'))
    }
}

/// The algorithm that a key in wire form names; `None` if its fields do not add up.
fn key_algorithm(key: &[u8]) -> Option<&[u8]> {
    let mut r = Reader::new(key);
    let algorithm = r.string(KEY_LEN_MAX).ok()?;
    let fields = match algorithm {
        b"ssh-ed25519" => {
            return (r.string(32).ok()?.len() == 32 && r.is_empty()).then_some(algorithm);
        }
        b"ssh-dss" => 4,
        b"sk-ecdsa-sha2-nistp256@openssh.com" => 3,
        _ => 2, // RSA, ECDSA, sk-ssh-ed25519
    };
    for _ in 0..fields {
        r.string(KEY_LEN_MAX).ok()?;
    }
    r.is_empty().then_some(algorithm)
}

fn decode_key(encoded: &[u8]) -> Option<Vec<u8>> {
    // Lines may end in CR LF, and the CR then clings to the last field.
    let encoded = encoded.trim_ascii_end();
    if encoded.is_empty() || encoded.len() > KEY_LEN_MAX.div_ceil(3) * 4 {
        return None;
    }
    Base64::decode_vec(std::str::from_utf8(encoded).ok()?).ok()
}

/// The first field of `line`, and what follows the blanks behind it.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|b| is_blank(*b)).unwrap_or(line.len());
    let (field, rest) = line.split_at(end);
    (field, skip_blanks(rest))
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let start = line
        .iter()
        .position(|b| !is_blank(*b))
        .unwrap_or(line.len());
    line.split_at(start).1
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_wire::Writer;
    use proptest::prelude::*;

    fn ed25519(byte: u8) -> Vec<u8> {
        let mut key = Vec::new();
        let mut w = Writer::new(&mut key);
        w.string(b"ssh-ed25519");
        w.string(&[byte; 32]);
        key
    }

    fn line(front: &str, byte: u8, back: &str) -> String {
        format!(
            "{front} ssh-ed25519 {}{back}",
            Base64::encode_string(&ed25519(byte))
        )
    }

    #[test]
    fn a_line_is_hosts_type_and_key() {
        let text = line("a,b", 1, " a comment");
        let entry = Entry::parse(text.as_bytes()).unwrap();
        assert_eq!(entry.marker, Marker::Host);
        assert_eq!(entry.hosts, b"a,b");
        assert_eq!(entry.algorithm, "ssh-ed25519");
        assert_eq!(entry.key, ed25519(1));
    }

    #[test]
    fn markers_are_told_apart() {
        let marker = |front: &str| Entry::parse(line(front, 1, "").as_bytes()).map(|e| e.marker);
        assert_eq!(marker("@revoked *"), Some(Marker::Revoked));
        assert_eq!(marker("@revoked\t*"), Some(Marker::Revoked));
        assert_eq!(marker("@cert-authority *"), Some(Marker::CertAuthority));
        assert_eq!(marker("@unheard-of *"), None);
        assert_eq!(marker("@revoked @revoked *"), None);
        assert_eq!(marker("@"), None);
    }

    #[test]
    fn a_carriage_return_belongs_to_the_line_end() {
        assert!(Entry::parse(line("a", 1, "\r").as_bytes()).is_some());
        assert!(Entry::parse(line("a", 1, " note\r").as_bytes()).is_some());
        assert!(Entry::parse(b"\r").is_none());
    }

    #[test]
    fn what_is_malformed_is_skipped() {
        let good = line("a", 1, "");
        let encoded = Base64::encode_string(&ed25519(1));
        let mut long = ed25519(1);
        long.push(0);
        for bad in [
            String::new(),
            "# a ssh-ed25519 comment".to_owned(),
            "a".to_owned(),
            "a ssh-ed25519".to_owned(),
            "a ssh-ed25519 ".to_owned(),
            format!("a ssh-rsa {encoded}"),
            format!("a ssh-ed448 {encoded}"),
            format!("a {encoded}"),
            good[..good.len() - 1].to_owned(),
            format!("a ssh-ed25519 {}", Base64::encode_string(&long)),
            format!("a ssh-ed25519 {}", "A".repeat(64 * 1024)),
            "a 1024 35 123456789".to_owned(),
        ] {
            assert_eq!(Entry::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Entry::parse(&line);
        }

        #[test]
        fn every_damaged_line_is_read_or_skipped(at in 0usize..90, byte in any::<u8>()) {
            let mut text = line("@revoked host", 1, " c").into_bytes();
            if let Some(place) = text.get_mut(at) {
                *place = byte;
            }
            let _ = Entry::parse(&text).map(|entry| entry.is_about("host"));
        }
    }
}
