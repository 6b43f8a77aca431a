//! Which files an `Include` names: paths with `*`, `?` and `[…]` in any part (glob(7)).

use std::path::{Component, Path, PathBuf};

/// Most names of a directory that are looked at.
const NAMES_MAX: usize = 16 * 1024;

/// The files that match, sorted, at most `most` of them.
pub(super) fn files(pattern: &Path, most: usize) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let part = match component {
            Component::Normal(part) => part.to_str(),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        };
        found = match part {
            Some(part) if part.contains(['*', '?', '[', '\\']) => {
                let below = found.iter().flat_map(|dir| matching(dir, part));
                below.take(most).collect()
            }
            _ => found.iter().map(|dir| dir.join(component)).collect(),
        };
    }
    found
}

/// What is in `dir` and matches, sorted.
fn matching(dir: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern: Vec<char> = pattern.chars().collect();
    let here = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let Ok(entries) = std::fs::read_dir(here) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .take(NAMES_MAX)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            // Hidden files are meant only by who says so.
            (!name.starts_with('.') || pattern.first() == Some(&'.'))
                && matches(&pattern, &name.chars().collect::<Vec<_>>())
        })
        .collect();
    names.sort_unstable();
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// Matches in at most `pattern.len() * name.len()` steps: only the last `*` is tried again.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&c) = name.get(n) {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
            continue;
        }
        if let Some(after) = one(pattern, p, c) {
            p = after;
            n += 1;
            continue;
        }
        match &mut star {
            Some((star_p, star_n)) => {
                *star_n += 1;
                (p, n) = (*star_p + 1, *star_n);
            }
            None => return false,
        }
    }
    pattern.iter().skip(p).all(|&c| c == '*')
}

/// Matches one character at `p`; gives the place behind what matched it.
fn one(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match *pattern.get(p)? {
        '?' => Some(p + 1),
        '\\' => (pattern.get(p + 1) == Some(&c)).then_some(p + 2),
        '[' => match set(pattern, p + 1, c) {
            Some((end, true)) => Some(end),
            Some((_, false)) => None,
            None => (c == '[').then_some(p + 1), // it is not closed
        },
        literal => (literal == c).then_some(p + 1),
    }
}

/// Reads a set whose content begins at `start`: the place behind it, and whether `c` is in it.
fn set(pattern: &[char], start: usize, c: char) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(start), Some('!' | '^'));
    let first = if negated { start + 1 } else { start };
    let mut at = first;
    let mut found = false;
    loop {
        let low = *pattern.get(at)?;
        if low == ']' && at != first {
            return Some((at + 1, found != negated));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some('-'), Some(&high)) if high != ']' => {
                found |= (low..=high).contains(&c);
                at += 3;
            }
            _ => {
                found |= low == c;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_match_as_shells_have_it() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf~", false),
            ("?", "a", true),
            ("[ab]*", "bc", true),
            ("[!ab]*", "bc", false),
            ("[a-c]", "b", true),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a*b*c", "aXbYc", true),
        ] {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            assert_eq!(
                matches(&chars(pattern), &chars(name)),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn files_come_sorted_and_hidden_ones_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/x")).unwrap();
        for name in ["d/b.conf", "d/a.conf", "d/.c.conf", "d/note", "d/x/z.conf"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = |pattern: &str| {
            let found = files(&dir.path().join(pattern), 100);
            let names = found
                .iter()
                .map(|path| path.strip_prefix(dir.path()).unwrap());
            names
                .map(|name| name.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("d/*.conf"), ["d/a.conf", "d/b.conf"]);
        assert_eq!(found("*/*/*.conf"), ["d/x/z.conf"]);
        assert_eq!(found("d/plain"), ["d/plain"]);
        assert_eq!(found("no/*"), [""; 0]);
        assert_eq!(files(&dir.path().join("d/*.conf"), 1).len(), 1);
    }

    proptest! {
        #[test]
        fn matching_never_panics(pattern in "[]\\[a!^*?\\\\-]{0,20}", name in "[]a\\[-]{0,20}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let _ = matches(&chars(&pattern), &chars(&name));
        }
    }
}
