//! Patterns as ssh_config has them: `*`, `?`, lists with `!` (ssh_config(5), "PATTERNS").

use crate::hostkey::pattern_matches;

/// Longest single pattern of a list, in bytes; OpenSSH has the same bound.
const PATTERN_LEN_MAX: usize = 1022;

/// Whether a single pattern matches, case included.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    pattern_matches(pattern.as_bytes(), text.as_bytes(), |a, b| a == b)
}

/// Whether a list of patterns, separated by commas, matches: one of them does, and none behind a
/// `!`. A list with an overlong pattern matches nothing.
pub(super) fn list_matches(list: &str, text: &str) -> bool {
    let mut matched = false;
    for pattern in list.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if pattern.len() > PATTERN_LEN_MAX {
            return false;
        }
        if matches(pattern, text) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

/// As [`list_matches`], for names of hosts: case does not matter.
pub(super) fn host_list_matches(list: &str, host: &str) -> bool {
    list_matches(&list.to_ascii_lowercase(), &host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_match_as_openssh_has_them() {
        for (list, text, expected) in [
            ("a", "a", true),
            ("a", "A", false),
            ("a,b", "b", true),
            ("*,!b", "b", false),
            ("!b", "a", false),
            ("", "", true),
            ("web?.*", "web1.example", true),
        ] {
            assert_eq!(list_matches(list, text), expected, "{list:?} {text:?}");
        }
        assert!(host_list_matches("*.Example.COM", "A.example.com"));
    }
}
