//! The records of all hosts, bounded, and the text in which a file keeps them.
//!
//! A line a host, fields with tabs between them; what is no such line is passed over, so damage
//! costs the lines that it hit. The latest stand last, and the oldest are dropped.

use std::fmt::Write as _;

use ketch_keys::SignatureAlgorithm;
use ketch_transport::algorithm::Kex;

use super::HostRecord;
use crate::destination::{Host, User};

/// Most hosts that are remembered.
pub const HOSTS_MAX: usize = 500;
/// Most users of one host whose keys are remembered.
pub const KEYS_MAX: usize = 8;

/// The first line; a file with another is not ours, or of another time.
const HEADING: &str = "ketch-hosts 1\n";
/// An identification line of RFC 4253 §4.2.
const IDENTIFICATION_LEN_MAX: usize = 255;
/// `SHA256:` and 43 digits.
const FINGERPRINT_LEN_MAX: usize = 64;

/// What is known, the latest last.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Host, u16, HostRecord)>);

impl Records {
    pub(super) fn get(&self, host: &Host, port: u16) -> Option<&HostRecord> {
        self.0
            .iter()
            .rev()
            .find(|(name, at, _)| name == host && *at == port)
            .map(|(.., record)| record)
    }

    /// Puts it last, in the place of what was known before. What could not be written down and read
    /// back is not kept.
    pub(super) fn put(&mut self, host: &Host, port: u16, record: HostRecord) {
        self.remove(host, port);
        if is_identification(&record.identification) {
            self.0.push((host.clone(), port, record));
        }
        let excess = self.0.len().saturating_sub(HOSTS_MAX);
        self.0.drain(..excess);
    }

    pub(super) fn remove(&mut self, host: &Host, port: u16) -> bool {
        let before = self.0.len();
        self.0.retain(|(name, at, _)| name != host || *at != port);
        self.0.len() != before
    }

    /// Takes what can be read.
    pub(super) fn parse(text: &str) -> Self {
        let mut records = Self::default();
        let lines = text.strip_prefix(HEADING).unwrap_or_default();
        for (host, port, record) in lines.lines().filter_map(parse_line) {
            records.put(&host, port, record);
        }
        records
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = HEADING.to_owned();
        for (host, port, record) in &self.0 {
            let HostRecord {
                identification,
                kex,
                host_key,
                strict,
                bears_early,
                keys,
            } = record;
            let (kex, host_key) = (kex.name(), host_key.name());
            let strict = if *strict { "strict" } else { "plain" };
            let early = match bears_early {
                Some(true) => "early",
                Some(false) => "late",
                None => "untried",
            };
            let keys: Vec<_> = keys
                .iter()
                .map(|(user, key)| format!("{user}={key}"))
                .collect();
            let keys = keys.join(",");
            let _ = writeln!(
                text,
                "{host}\t{port}\t{identification}\t{kex}\t{host_key}\t{strict}\t{early}\t{keys}"
            );
        }
        text
    }
}

fn parse_line(line: &str) -> Option<(Host, u16, HostRecord)> {
    let mut fields = line.split('\t');
    let host = fields.next()?.parse().ok()?;
    let port = fields.next()?.parse().ok()?;
    let identification = fields.next().filter(|text| is_identification(text))?;
    let kex = Kex::from_name(fields.next()?)?;
    let host_key = SignatureAlgorithm::from_name(fields.next()?)?;
    let strict = match fields.next()? {
        "strict" => true,
        "plain" => false,
        _ => return None,
    };
    let bears_early = match fields.next()? {
        "early" => Some(true),
        "late" => Some(false),
        "untried" => None,
        _ => return None,
    };
    let keys = fields.next()?;
    let keys = keys.split(',').filter(|key| !key.is_empty()).map(parse_key);
    let keys: Option<Vec<_>> = keys.take(KEYS_MAX).collect();
    if fields.next().is_some() {
        return None;
    }
    let record = HostRecord {
        identification: identification.to_owned(),
        kex,
        host_key,
        strict,
        bears_early,
        keys: keys?,
    };
    Some((host, port, record))
}

fn parse_key(text: &str) -> Option<(User, String)> {
    let (user, key) = text.split_once('=')?;
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b"+/:=".contains(&b);
    let is_fingerprint = key.len() <= FINGERPRINT_LEN_MAX && key.bytes().all(is_digit);
    (is_fingerprint && !key.is_empty()).then_some((user.parse().ok()?, key.to_owned()))
}

/// Printable US-ASCII, as RFC 4253 §4.2 wants it.
fn is_identification(text: &str) -> bool {
    let is_text = |b: u8| b == b' ' || b.is_ascii_graphic();
    (1..=IDENTIFICATION_LEN_MAX).contains(&text.len()) && text.bytes().all(is_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn record(identification: &str) -> HostRecord {
        HostRecord {
            identification: identification.to_owned(),
            kex: Kex::Curve25519Sha256,
            host_key: SignatureAlgorithm::Ed25519,
            strict: true,
            bears_early: None,
            keys: vec![("ann".parse().unwrap(), "SHA256:abc+/=".to_owned())],
        }
    }

    fn host(name: &str) -> Host {
        name.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut records = Records::default();
        records.put(&host("a"), 22, record("SSH-2.0-OpenSSH_9.2p1 Debian-2"));
        let mut other = record("SSH-2.0-x");
        other.strict = false;
        other.bears_early = Some(true);
        other.set_key(&"bob@corp".parse().unwrap(), Some("SHA256:x".to_owned()));
        records.put(&host("2001:db8::1"), 2222, other.clone());
        let read = Records::parse(&records.to_text());
        assert_eq!(read.0, records.0);
        assert_eq!(read.get(&host("2001:db8::1"), 2222), Some(&other));
        assert_eq!(read.get(&host("2001:db8::1"), 22), None);
    }

    #[test]
    fn a_host_is_known_once_and_the_oldest_are_dropped() {
        let mut records = Records::default();
        for n in 0..HOSTS_MAX + 10 {
            records.put(&host(&format!("h{n}")), 22, record("SSH-2.0-x"));
        }
        records.put(&host("h20"), 22, record("SSH-2.0-y"));
        assert_eq!(records.0.len(), HOSTS_MAX);
        assert_eq!(records.get(&host("h9"), 22), None);
        let latest = records.get(&host("h20"), 22).unwrap();
        assert_eq!(latest.identification, "SSH-2.0-y");
        assert!(records.remove(&host("h20"), 22) && !records.remove(&host("h20"), 22));
    }

    #[test]
    fn users_are_bounded_and_the_latest_first() {
        let mut known = record("SSH-2.0-x");
        for n in 0..20 {
            let user = format!("u{n}").parse().unwrap();
            known.set_key(&user, Some(format!("SHA256:{n}")));
        }
        assert_eq!(known.keys.len(), KEYS_MAX);
        assert_eq!(known.key_of(&"u19".parse().unwrap()), Some("SHA256:19"));
        assert_eq!(known.key_of(&"ann".parse().unwrap()), None);
        known.set_key(&"u19".parse().unwrap(), None);
        assert_eq!(known.key_of(&"u19".parse().unwrap()), None);
    }

    #[test]
    fn what_could_break_a_line_is_not_kept() {
        for identification in ["", "a\tb", "a\nb", "a\u{e4}", &"x".repeat(256)] {
            let mut records = Records::default();
            records.put(&host("a"), 22, record(identification));
            assert!(records.0.is_empty(), "{identification:?}");
        }
    }

    #[test]
    fn damage_costs_the_lines_that_it_hit() {
        let mut records = Records::default();
        for name in ["a", "b", "c"] {
            records.put(&host(name), 22, record("SSH-2.0-x"));
        }
        let text = records.to_text();
        for (from, to) in [
            ("b\t22", "b\t99999"),
            ("b\t22", "-b\t22"),
            ("b\t22", "b"),
            ("b\t22", "b\t22\t22"),
        ] {
            let read = Records::parse(&text.replace(from, to));
            assert_eq!(read.0.len(), 2, "{to:?}");
            assert!(read.get(&host("b"), 22).is_none());
        }
        for not_ours in ["", "ketch-hosts 2\na\t22\n", "\0\0\0", &text[1..]] {
            assert!(Records::parse(not_ours).0.is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(\\PC|\t|\n){0,200}") {
            let read = Records::parse(&format!("{HEADING}{text}"));
            prop_assert_eq!(&Records::parse(&read.to_text()).0, &read.0);
        }

        #[test]
        fn damaged_bytes_are_read(at in 0_usize..400, byte in any::<char>(), cut in 0_usize..400) {
            let mut records = Records::default();
            for name in ["a", "b", "c"] {
                records.put(&host(name), 22, record("SSH-2.0-x"));
            }
            let mut text: Vec<char> = records.to_text().chars().collect();
            let at = at % text.len();
            text[at] = byte;
            text.truncate(text.len() - cut % text.len());
            let read = Records::parse(&text.into_iter().collect::<String>());
            prop_assert_eq!(&Records::parse(&read.to_text()).0, &read.0);
        }
    }
}
