//! Filters and globs of names as users write them, and names and links as servers list them: never a
//! panic, no pattern that goes back, no name that is more than one, no link that leads out.

use std::path::{Component, Path};

use ketch_client::fuzzing::{is_safe_link, is_safe_name, temporary_name};
use ketch_client::{Filter, Glob, Pattern, RemotePath};

/// A pattern, and behind the first zero a path; both are tried as everything that they may be.
pub fn names(data: &[u8]) {
    let (pattern, path) = match data.iter().position(|&byte| byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, data),
    };
    patterns(pattern, path);
    name(path);
    link(path);
}

fn patterns(pattern: &[u8], path: &[u8]) {
    for filter in [Filter::new(), Filter::ignoring_case()] {
        let Ok(excludes) = filter.clone().exclude(pattern) else {
            continue;
        };
        // Who is no directory is matched by no more than who is.
        if excludes.admits(path, true) {
            assert!(excludes.admits(path, false));
        }
        let both = excludes.include(pattern).and_then(|f| f.exclude("*"));
        let _ = both.map(|filter| filter.admits(path, false));
    }
    if let Ok(pattern) = Pattern::new(pattern) {
        let _ = pattern.matches(path);
    }
    if let Ok(glob) = Glob::new(pattern) {
        let _ = glob.matches(&RemotePath::from(path));
    }
    // A path of names, each character of which stands for itself, matches itself and nothing longer.
    let is_path = path.split(|&byte| byte == b'/').all(is_safe_name);
    let escaped: Vec<u8> = path.iter().flat_map(|&byte| [b'\\', byte]).collect();
    let Ok(itself) = Filter::new().exclude([b"/", &escaped[..]].concat()) else {
        return;
    };
    if is_path {
        assert!(!itself.admits(path, false));
        assert!(itself.admits(&[path, b"x"].concat(), false));
        assert!(itself.admits(&[b"x/", path].concat(), false));
        if !path.contains(&b'/') {
            assert!(Pattern::new(&escaped).is_ok_and(|pattern| pattern.matches(path)));
        }
    }
}

fn name(name: &[u8]) {
    if !is_safe_name(name) {
        return;
    }
    let temporary = temporary_name(name, name.len() as u64);
    assert!(is_safe_name(&temporary) && temporary != name);
    for name in [name, &temporary] {
        assert!(!name.contains(&b'/') && !name.contains(&0) && name.len() <= 255);
        if let Ok(name) = std::str::from_utf8(name) {
            let path = Path::new("/d").join(name);
            let parts: Vec<_> = path.components().collect();
            assert_eq!(parts.len(), 3, "{path:?}");
            assert!(matches!(parts[2], Component::Normal(_)), "{path:?}");
        }
    }
}

fn link(target: &[u8]) {
    for depth in [0, 1, 64] {
        if !is_safe_link(target, depth) {
            continue;
        }
        let mut at = depth;
        for part in target.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => at = at.checked_sub(1).expect("it stays within"),
                _ => at += 1,
            }
        }
        assert!(!target.starts_with(b"/"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_what_means_something_pass() {
        const ALPHABET: &[u8] = b"*?[]!-\\\\/.ab\xc3\xa4\0";
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap_or(0) % below
        };
        for _ in 0..1000 {
            let len = random(14);
            let data: Vec<u8> = (0..len).map(|_| ALPHABET[random(ALPHABET.len())]).collect();
            names(&data);
        }
    }

    #[test]
    fn good_and_bad_names_pass() {
        for data in [
            &b"*.csv\0in/a.csv"[..],
            b"/a/**/b\0a/x/y/b",
            b"[!a-z]?\0AB",
            b"[z-a]\0..",
            b"\\\0../../etc/passwd",
            b"a\0/etc/passwd",
            b"CON\0a\\b",
            b"",
        ] {
            names(data);
        }
        let long = [b"*a".repeat(500), vec![0], vec![b'a'; 4000]].concat();
        names(&long);
    }
}
