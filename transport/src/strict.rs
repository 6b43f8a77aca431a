//! Who is known to keep strict key exchange (OpenSSH PROTOCOL §1.10), from the identification line.
//!
//! A man in the middle can cut packets off the start of a connection that is not strict, if the
//! cipher is ChaCha20-Poly1305 or CBC with encrypt-then-MAC (CVE-2023-48795). A server leaves these
//! out for clients that are not known to be strict; a client that remembers such a server puts them
//! last. Who is strict without being known here gets another cipher, and nothing worse.

use crate::algorithm::{CipherName, MacName};
use crate::profile::Preferences;

/// Programs as they name themselves, and the version from which on they are strict.
const KNOWN: [(&str, [u32; 3]); 11] = [
    ("ketch_", [0, 0, 0]),
    ("OpenSSH_", [9, 6, 0]),
    ("OpenSSH_for_Windows_", [9, 8, 0]),
    ("PuTTY_Release_", [0, 80, 0]),
    ("AsyncSSH_", [2, 14, 2]),
    ("paramiko_", [3, 4, 0]),
    ("dropbear_", [2024, 84, 0]),
    ("libssh_", [0, 10, 6]),
    ("libssh2_", [1, 11, 1]),
    ("russh_", [0, 40, 2]),
    ("ssh2js", [1, 15, 0]),
];

/// Distributions that gave an older OpenSSH strict key exchange: version, and what follows it, up to
/// the number from which on the package has it.
const BACKPORTED: [(&str, u32); 3] = [
    ("OpenSSH_9.2p1 Debian-2+deb12u", 2),
    ("OpenSSH_8.9p1 Ubuntu-3ubuntu0.", 6),
    ("OpenSSH_8.4p1 Debian-5+deb11u", 3),
];

/// Whether the program behind an identification line is known to keep strict key exchange.
pub(crate) fn is_known(identification: &str) -> bool {
    let Some(software) = identification.strip_prefix("SSH-2.0-") else {
        return false;
    };
    KNOWN.iter().any(|&(name, least)| {
        software
            .strip_prefix(name)
            .and_then(version)
            .is_some_and(|version| version >= least)
    }) || BACKPORTED.iter().any(|&(start, least)| {
        software
            .strip_prefix(start)
            .and_then(|rest| number(rest).0)
            .is_some_and(|revision| revision >= least)
    })
}

impl Preferences {
    /// Leaves out what must not be used without strict key exchange (CVE-2023-48795): for a server
    /// that has none and chose it all the same. Nothing may be left.
    pub fn leave_out_unsafe(&mut self) {
        leave_out_unsafe(self);
    }
}

/// Leaves out what must not be used without strict key exchange.
pub(crate) fn leave_out_unsafe(preferences: &mut Preferences) {
    preferences
        .cipher
        .retain(|&cipher| cipher != CipherName::ChaCha20Poly1305);
    if preferences.cipher.iter().any(|cipher| cipher.is_cbc()) {
        preferences.mac.retain(|mac| !mac.is_etm());
    }
}

/// Puts what must not be used without strict key exchange behind the rest.
pub(crate) fn put_unsafe_last(preferences: &mut Preferences) {
    preferences
        .cipher
        .sort_by_key(|&cipher| cipher == CipherName::ChaCha20Poly1305);
    if preferences.cipher.iter().any(|cipher| cipher.is_cbc()) {
        preferences.mac.sort_by_key(|mac: &MacName| mac.is_etm());
    }
}

/// Up to three numbers with dots between them, at least one.
fn version(text: &str) -> Option<[u32; 3]> {
    let mut parts = [0; 3];
    let (first, mut rest) = number(text);
    parts[0] = first?;
    for part in &mut parts[1..] {
        let Some(after) = rest.strip_prefix('.') else {
            break;
        };
        let (next, behind) = number(after);
        let Some(next) = next else { break };
        *part = next;
        rest = behind;
    }
    Some(parts)
}

/// The number in front, and what follows it.
fn number(text: &str) -> (Option<u32>, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.parse().ok(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn programs_are_known_from_the_version_that_brought_it() {
        for (identification, known) in [
            (crate::packet::Identification::ketch().as_str(), true),
            ("SSH-2.0-OpenSSH_9.6", true),
            ("SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13", true),
            ("SSH-2.0-OpenSSH_10.0p2", true),
            ("SSH-2.0-OpenSSH_9.5", false),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7", true),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u1", false),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2", false),
            ("SSH-2.0-OpenSSH_8.9p1 Ubuntu-3ubuntu0.10", true),
            ("SSH-2.0-PuTTY_Release_0.78", false),
            ("SSH-2.0-PuTTY_Release_0.81", true),
            ("SSH-2.0-AsyncSSH_2.14.1", false),
            ("SSH-2.0-AsyncSSH_2.24.1", true),
            ("SSH-2.0-dropbear_2022.83", false),
            ("SSH-2.0-dropbear_2025.87", true),
            ("SSH-2.0-libssh2_1.11.0", false),
            ("SSH-2.0-libssh2_1.11.2_DEV", true),
            ("SSH-2.0-OpenSSH_", false),
            ("SSH-2.0-OpenSSH_99999999999", false),
            ("SSH-1.99-OpenSSH_9.6", false),
            ("", false),
        ] {
            assert_eq!(is_known(identification), known, "{identification}");
        }
    }

    #[test]
    fn what_is_unsafe_goes_and_something_stays() {
        for profile in Profile::ALL {
            let mut preferences = profile.for_client();
            let all = preferences.cipher.len();
            put_unsafe_last(&mut preferences);
            assert_eq!(preferences.cipher.len(), all);
            assert_eq!(
                preferences.cipher.last(),
                Some(&CipherName::ChaCha20Poly1305)
            );
            leave_out_unsafe(&mut preferences);
            assert!(!preferences.cipher.contains(&CipherName::ChaCha20Poly1305));
            let cbc = preferences.cipher.iter().any(|cipher| cipher.is_cbc());
            assert!(!cbc || preferences.mac.iter().all(|mac| !mac.is_etm()));
            assert!(!preferences.cipher.is_empty() && !preferences.mac.is_empty());
        }
    }
}
