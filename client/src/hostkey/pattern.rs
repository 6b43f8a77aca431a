//! Which host names a `known_hosts` line speaks of (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! The first field of a line is either a comma-separated list of patterns (`*`, `?`, and `!` in
//! front of what is not meant) or one hashed name, `|1|salt|hash`. Names are compared without
//! regard to ASCII case.

use base64ct::{Base64, Encoding};
use ring::{digest, hmac};

/// Longest single pattern that is matched, in bytes; a list with a longer one matches nothing.
///
/// OpenSSH has the same bound.
pub(super) const PATTERN_LEN_MAX: usize = 1022;
/// Bytes of salt in a hashed name: as many as the hash has.
pub(super) const SALT_LEN: usize = digest::SHA1_OUTPUT_LEN;
const HASH_MAGIC: &[u8] = b"|1|";

/// Whether the field `hosts` means `name`, which has to be in lower case.
pub(super) fn hosts_match(hosts: &[u8], name: &str) -> bool {
    if is_hashed(hosts) {
        hashed_matches(hosts, name)
    } else {
        list_matches(hosts, name)
    }
}

/// Whether a hosts field is of the hashed sort.
pub(super) fn is_hashed(hosts: &[u8]) -> bool {
    hosts.starts_with(b"|")
}

/// The hashed form of `name`: `|1|`, the salt and HMAC-SHA1 of the name under it, in base64.
pub(super) fn hash_name(name: &str, salt: &[u8; SALT_LEN]) -> String {
    // SHA-1 hides names here and proves nothing: the format knows no other hash.
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
    let tag = hmac::sign(&key, name.as_bytes());
    format!(
        "|1|{}|{}",
        Base64::encode_string(salt),
        Base64::encode_string(tag.as_ref())
    )
}

fn hashed_matches(hosts: &[u8], name: &str) -> bool {
    let salt = hosts
        .strip_prefix(HASH_MAGIC)
        .and_then(|rest| rest.split(|&b| b == b'|').next());
    let mut bytes = [0; SALT_LEN];
    let Some(salt) = salt.and_then(|salt| Base64::decode(salt, &mut bytes).ok()) else {
        return false;
    };
    match <&[u8; SALT_LEN]>::try_from(salt) {
        Ok(salt) => hash_name(name, salt).as_bytes() == hosts,
        Err(_) => false,
    }
}

/// A match of a negated pattern decides against the line whatever else matches.
fn list_matches(list: &[u8], name: &str) -> bool {
    let mut matched = false;
    for pattern in list.split(|&b| b == b',') {
        let (negated, pattern) = match pattern.strip_prefix(b"!") {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if pattern.len() > PATTERN_LEN_MAX {
            return false;
        }
        if pattern_matches(pattern, name.as_bytes(), u8::eq_ignore_ascii_case) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

/// Matches one pattern in at most `pattern.len() * name.len()` steps: on a mismatch only the last
/// `*` is tried again, one byte further on, because an earlier one could not help.
pub(crate) fn pattern_matches(
    pattern: &[u8],
    name: &[u8],
    is_same: impl Fn(&u8, &u8) -> bool,
) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(expected) if *expected == b'?' || is_same(expected, &byte) => {
                p += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((star_p, star_n)) => {
                    *star_n += 1;
                    (p, n) = (*star_p + 1, *star_n);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_shells_do() {
        for (list, name, expected) in [
            ("host", "host", true),
            ("HOST", "host", true),
            ("host", "hosts", false),
            ("*", "anything", true),
            ("*", "", true),
            ("", "", true),
            ("", "host", false),
            ("?", "", false),
            ("h?st", "host", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("**", "x", true),
            ("a,b", "b", true),
            ("*,!b", "b", false),
            ("!b,*", "b", false),
            ("!b", "a", false),
            ("*,!b", "c", true),
            ("[::1]:2222", "[::1]:2222", true),
            ("[*]:22", "[host]:22", true),
        ] {
            assert_eq!(
                hosts_match(list.as_bytes(), name),
                expected,
                "{list:?} for {name:?}"
            );
        }
    }

    #[test]
    fn many_stars_cost_little() {
        // With backtracking to every star this would outlive the machine.
        let pattern = format!("{}b", "*a".repeat(510));
        let name = "a".repeat(64 * 1024);
        assert!(!pattern_matches(
            pattern.as_bytes(),
            name.as_bytes(),
            u8::eq_ignore_ascii_case
        ));
    }

    #[test]
    fn an_overlong_pattern_spoils_its_line() {
        let long = "a".repeat(PATTERN_LEN_MAX + 1);
        assert!(!hosts_match(format!("host,{long}").as_bytes(), "host"));
        let longest = "a".repeat(PATTERN_LEN_MAX);
        assert!(hosts_match(format!("host,{longest}").as_bytes(), "host"));
    }

    #[test]
    fn a_hashed_name_matches_only_whole_and_unbroken() {
        let hashed = hash_name("host", &[7; SALT_LEN]);
        assert!(hosts_match(hashed.as_bytes(), "host"));
        assert!(!hosts_match(hashed.as_bytes(), "hos"));
        for broken in [
            "|1|".to_owned(),
            "|2|".to_owned() + &hashed[3..],
            hashed.clone() + ",host",
            hashed.replacen("|1|", "|1||", 1),
            hashed[..hashed.len() - 1].to_owned(),
        ] {
            assert!(!hosts_match(broken.as_bytes(), "host"), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn matching_never_panics(list in proptest::collection::vec(any::<u8>(), 0..200), name in ".{0,60}") {
            let _ = hosts_match(&list, &name);
        }

        #[test]
        fn a_pattern_made_from_a_name_matches_it(name in "[a-z.]{1,20}", stars in proptest::collection::vec(0usize..20, 0..6)) {
            let mut pattern = name.clone();
            for at in stars {
                pattern.insert(at.min(pattern.len()), '*');
            }
            prop_assert!(pattern_matches(pattern.as_bytes(), name.as_bytes(), u8::eq_ignore_ascii_case));
        }

        #[test]
        fn a_hash_hides_exactly_one_name(name in "[a-z.]{1,20}", other in "[a-z.]{1,20}", salt in any::<[u8; SALT_LEN]>()) {
            let hashed = hash_name(&name, &salt);
            prop_assert_eq!(hosts_match(hashed.as_bytes(), &other), name == other);
        }
    }
}
