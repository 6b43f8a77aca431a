//! Patterns with `*`, `?` and the like, matched in linear time: one matcher for names and for paths.
//!
//! [`Pattern`] is for single names, in [`Glob`](crate::Glob) and in conditions; [`PathPattern`] for
//! paths, in a [`Filter`](crate::Filter). Both become the automaton in `pattern/machine.rs`. They
//! work on bytes: names need not be UTF-8, and where they are, `?` is a character.

mod ends;
mod machine;

use std::{fmt, sync::Arc};

use self::machine::{Machine, Stars};
use crate::error::{Failure, Kind};

/// Longest pattern, in bytes.
pub const PATTERN_LEN_MAX: usize = 1024;

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It matches no name: it is empty, or nothing but slashes.
    #[error("a pattern is not to be empty")]
    Empty,
    /// It is longer than [`PATTERN_LEN_MAX`].
    #[error("a pattern has at most {PATTERN_LEN_MAX} bytes")]
    TooLong,
    /// A filter has more than [`RULES_MAX`](crate::RULES_MAX) of them.
    #[error("a filter has at most {} patterns", crate::RULES_MAX)]
    TooMany,
    /// A `[` without its `]`.
    #[error("a [ in a pattern lacks its ]")]
    OpenClass,
    /// Something between `[` and `]` that is not ASCII.
    #[error("what stands between [ and ] in a pattern must be ASCII")]
    ClassNotAscii,
    /// A range such as `[z-a]`.
    #[error("a range in a pattern runs backwards")]
    BackwardRange,
    /// A `\` at the end.
    #[error("a pattern ends with a \\ that stands before nothing")]
    OpenEscape,
    /// Three or more `*` in a row.
    #[error("a pattern has no more than two * in a row")]
    Stars,
    /// A byte of zero, which no name holds.
    #[error("a pattern holds a byte of zero")]
    Zero,
}

impl Failure for PatternError {
    fn kind(&self) -> Kind {
        Kind::Local
    }
}

/// A pattern for one name.
///
/// `*` stands for any characters, `?` for one, `[a-z]` for one of these and `[!a-z]` for any other,
/// those named being ASCII; `\` takes the meaning from what follows.
///
/// ```
/// use ketch_client::Pattern;
///
/// let pattern = Pattern::new("report-[0-9]*.csv")?;
/// assert!(pattern.matches(b"report-2024.csv"));
/// assert!(!pattern.matches(b"report-x.csv"));
/// # Ok::<(), ketch_client::PatternError>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Pattern {
    machine: Arc<Machine>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self, PatternError> {
        let pattern = pattern.as_ref();
        check(pattern)?;
        if pattern.is_empty() {
            return Err(PatternError::Empty);
        }
        let machine = Machine::new(pattern, Stars::AsOne, true, false)?;
        Ok(Self {
            machine: Arc::new(machine),
        })
    }

    /// Whether the whole of `name` is what the pattern says.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        self.machine.matches(name)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pattern")
            .field("characters", &self.machine.last)
            .finish_non_exhaustive()
    }
}

/// A pattern for paths, as [`Filter`](crate::Filter) describes them.
#[derive(Clone)]
pub(crate) struct PathPattern {
    machine: Arc<Machine>,
    directories_only: bool,
}

impl PathPattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(pattern: &[u8], ignores_case: bool) -> Result<Self, PatternError> {
        check(pattern)?;
        let (pattern, is_anchored) = match pattern.strip_prefix(b"/") {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        let (pattern, directories_only) = match pattern.strip_suffix(b"/") {
            // An escaped slash at the end is a slash all the same.
            Some(rest) => (rest.strip_suffix(b"\\").unwrap_or(rest), true),
            None => (pattern, false),
        };
        if pattern.iter().all(|&byte| byte == b'/') {
            return Err(PatternError::Empty);
        }
        let machine = Machine::new(pattern, Stars::Anything, is_anchored, ignores_case)?;
        Ok(Self {
            machine: Arc::new(machine),
            directories_only,
        })
    }

    /// Whether it matches `path`.
    pub(crate) fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        (is_directory || !self.directories_only) && self.machine.matches(path)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathPattern")
            .field("characters", &self.machine.last)
            .field("directories_only", &self.directories_only)
            .finish_non_exhaustive()
    }
}

/// What no pattern may be.
fn check(pattern: &[u8]) -> Result<(), PatternError> {
    if pattern.len() > PATTERN_LEN_MAX {
        return Err(PatternError::TooLong);
    }
    if pattern.contains(&0) {
        return Err(PatternError::Zero);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::new(pattern.as_bytes(), false)
            .unwrap()
            .matches(path.as_bytes(), true)
    }

    #[test]
    fn patterns_mean_what_the_table_says() {
        for (pattern, yes, no) in [
            ("a", &["a", "x/a"][..], &["ab", "a/x", "xa"][..]),
            ("/a", &["a"], &["x/a", "a/a"]),
            ("a/b", &["a/b", "x/a/b"], &["xa/b", "a/b/c"]),
            ("*", &["a", "x/y", ".hidden"], &[]),
            ("/*", &["a"], &["x/y"]),
            ("*.c", &["a.c", ".c", "x/a.c"], &["a.cc", "a.c/x"]),
            ("a*z", &["az", "abcz"], &["a/z", "a"]),
            ("/a**z", &["az", "a/b/z"], &["x/az"]),
            ("**/a", &["a", "x/y/a"], &["xa"]),
            ("/**/a", &["a", "x/y/a"], &["xa"]),
            (
                "/a/**/b",
                &["a/b", "a/x/b", "a/x/y/b"],
                &["a/xb", "ab", "x/a/b"],
            ),
            ("/a/**", &["a/b", "a/b/c"], &["a", "b"]),
            ("a//b", &["a/b"], &["ab"]),
            ("?", &["a", "ä", "€"], &["ab", "/"]),
            ("a?c", &["abc", "aüc"], &["ac", "a/c", "abbc"]),
            ("[a-cx]", &["a", "c", "x"], &["d", "-", "ab"]),
            ("[!a-c]", &["d", "ü", "-"], &["a", "dd"]),
            ("[^a]b", &["cb"], &["ab"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[a-]", &["-", "a"], &["b"]),
            (r"[\]-a]", &["]", "^", "a"], &["b"]),
            ("/[!x]b", &["ab"], &["/b", "a/b"]),
            (r"\*", &["*"], &["a"]),
            (r"a\[b", &["a[b"], &["ab"]),
            ("a/", &["a", "x/a"], &["a/b"]),
            ("ä*", &["ä", "äb"], &["a"]),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern} {path}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn names_match_as_in_a_shell() {
        let table: [(&str, &[&str], &[&str]); 8] = [
            ("*.csv", &["a.csv", ".csv"], &["a.csv.tmp", "csv"]),
            ("a?c", &["abc", "aüc"], &["ac", "abbc"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[!a-c]x", &["dx", "äx"], &["ax"]),
            ("[]-]", &["]", "-"], &["a"]),
            (r"\*", &["*"], &["a"]),
            ("a*b*c", &["abc", "aXbYc", "abcbc"], &["ab", "acb"]),
            ("***", &["", "abc"], &[]),
        ];
        for (text, yes, no) in table {
            let pattern = Pattern::new(text).unwrap();
            for name in yes {
                assert!(pattern.matches(name.as_bytes()), "{text} {name}");
            }
            for name in no {
                assert!(!pattern.matches(name.as_bytes()), "{text} {name}");
            }
        }
        assert!(Pattern::new("?").unwrap().matches(b"\xff"));
        assert!(Pattern::new("[!a]").unwrap().matches(b"\xff"));
        assert_eq!(Pattern::new(""), Err(PatternError::Empty));
        assert_eq!(Pattern::new("[a"), Err(PatternError::OpenClass));
        assert_eq!(Pattern::new(r"a\"), Err(PatternError::OpenEscape));
    }

    #[test]
    fn a_slash_at_the_end_is_for_directories() {
        let pattern = PathPattern::new(b"a/", false).unwrap();
        assert!(pattern.matches(b"a", true) && !pattern.matches(b"a", false));
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for (pattern, error) in [
            ("", PatternError::Empty),
            ("/", PatternError::Empty),
            ("//", PatternError::Empty),
            ("a\0", PatternError::Zero),
            ("[a", PatternError::OpenClass),
            ("[]", PatternError::OpenClass),
            ("[ä]", PatternError::ClassNotAscii),
            ("[z-a]", PatternError::BackwardRange),
            ("a\\", PatternError::OpenEscape),
            ("a/***", PatternError::Stars),
        ] {
            assert_eq!(
                PathPattern::new(pattern.as_bytes(), false).err(),
                Some(error),
                "{pattern}"
            );
        }
        let long = [b'a'; PATTERN_LEN_MAX + 1];
        assert_eq!(
            PathPattern::new(&long, false).err(),
            Some(PatternError::TooLong)
        );
        let longest = PathPattern::new(&long[1..], false).unwrap();
        assert!(longest.matches(&long[1..], false) && !longest.matches(&long, false));
    }

    /// What stands in a pattern, read once more and plainly.
    #[derive(Clone, Debug)]
    enum Part {
        Byte(u8),
        One,
        Class {
            negated: bool,
            ranges: Vec<(u8, u8)>,
        },
        /// Anything within a name.
        Star,
        /// Anything.
        Stars,
        /// Any number of directories.
        Directories,
    }

    fn parts(pattern: &str, is_name: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut rest = pattern;
        let mut at_name = true;
        while let Some(c) = rest.chars().next() {
            let was_at_name = std::mem::replace(&mut at_name, c == '/');
            let stars = rest.len() - rest.trim_start_matches('*').len();
            if stars > 0 {
                rest = &rest[stars..];
                parts.push(match rest.strip_prefix('/') {
                    _ if is_name || stars == 1 => Part::Star,
                    Some(after) if was_at_name => {
                        rest = after;
                        at_name = true;
                        Part::Directories
                    }
                    _ => Part::Stars,
                });
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '?' => parts.push(Part::One),
                '[' => {
                    let (inside, after) = rest.split_once(']').unwrap();
                    rest = after;
                    let negated = inside.starts_with('!');
                    let inside = inside.trim_start_matches('!').as_bytes();
                    let ranges = match inside {
                        [low, b'-', high] => vec![(*low, *high)],
                        bytes => bytes.iter().map(|&byte| (byte, byte)).collect(),
                    };
                    parts.push(Part::Class { negated, ranges });
                }
                '\\' => {
                    parts.push(Part::Byte(rest.as_bytes()[0]));
                    rest = &rest[1..];
                }
                '/' if was_at_name => {}
                c => {
                    let mut bytes = [0; 4];
                    let bytes = c.encode_utf8(&mut bytes).bytes();
                    parts.extend(bytes.map(Part::Byte));
                }
            }
        }
        parts
    }

    /// Whether they match, by trying everything.
    fn by_trial(parts: &[Part], path: &[u8]) -> bool {
        let Some((part, rest)) = parts.split_first() else {
            return path.is_empty();
        };
        let slash = path.iter().position(|&byte| byte == b'/');
        let first = path.first().copied();
        // The first byte of a character, and what belongs to it.
        let character = || {
            let more = path.iter().skip(1).take_while(|&&byte| byte & 0xC0 == 0x80);
            let starts = first.is_some_and(|byte| byte != b'/' && byte & 0xC0 != 0x80);
            starts.then(|| 1 + more.count())
        };
        match part {
            Part::Byte(byte) => first == Some(*byte) && by_trial(rest, &path[1..]),
            Part::One => character().is_some_and(|len| by_trial(rest, &path[len..])),
            Part::Class { negated, ranges } => {
                let is_in = first.is_some_and(|byte| {
                    ranges
                        .iter()
                        .any(|&(low, high)| (low..=high).contains(&byte))
                });
                is_in != *negated
                    && first != Some(b'/')
                    && character().is_some_and(|len| by_trial(rest, &path[len..]))
            }
            Part::Star => (0..=slash.unwrap_or(path.len())).any(|n| by_trial(rest, &path[n..])),
            Part::Stars => (0..=path.len()).any(|n| by_trial(rest, &path[n..])),
            Part::Directories => std::iter::once(0)
                .chain((1..=path.len()).filter(|&n| path[n - 1] == b'/'))
                .any(|n| by_trial(rest, &path[n..])),
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        let piece =
            "[abx]|ä|\\*|\\?|\\*\\*[ab]|/[ab]|/\\*\\*/|/\\*|\\[!?[ab]\\]|\\[!?a-b\\]|\\\\[*?a]";
        proptest::collection::vec(piece, 1..7)
            .prop_map(|pieces| pieces.concat())
            .prop_filter("too many stars", |pattern| !pattern.contains("***"))
    }

    proptest! {
        #[test]
        fn matching_is_what_trying_everything_gives(
            pattern in pattern(), path in "[abäxA/*]{0,10}", ignores_case in any::<bool>(),
        ) {
            prop_assume!(pattern.bytes().any(|byte| byte != b'/'));
            let compiled = PathPattern::new(pattern.as_bytes(), ignores_case).unwrap();
            let folded = |text: &str| match ignores_case {
                true => text.to_ascii_lowercase(),
                false => text.to_owned(),
            };
            let (text, is_anchored) = match pattern.strip_prefix('/') {
                Some(rest) => (rest, true),
                None => (&pattern[..], false),
            };
            // At the end it says that a directory is meant.
            let parts = parts(text.strip_suffix('/').unwrap_or(text), false);
            let path_folded = folded(&path);
            let starts = std::iter::once(0)
                .chain(path.match_indices('/').map(|(n, _)| n + 1))
                .take(if is_anchored { 1 } else { usize::MAX });
            let expected = starts
                .into_iter()
                .any(|n| by_trial(&parts, &path_folded.as_bytes()[n..]));
            prop_assert_eq!(compiled.matches(path.as_bytes(), true), expected, "{} {}", pattern, path);
        }

        #[test]
        fn names_match_what_trying_everything_gives(
            pattern in pattern(), name in "[abäx*]{0,10}",
        ) {
            let pattern = pattern.replace('/', "");
            prop_assume!(!pattern.is_empty());
            let compiled = Pattern::new(&pattern).unwrap();
            let expected = by_trial(&parts(&pattern, true), name.as_bytes());
            prop_assert_eq!(compiled.matches(name.as_bytes()), expected);
        }

        #[test]
        fn any_bytes_are_a_pattern_or_an_error(
            pattern in proptest::collection::vec(any::<u8>(), 0..80),
            path in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(pattern) = PathPattern::new(&pattern, true) {
                pattern.matches(&path, true);
            }
            if let Ok(pattern) = Pattern::new(&pattern) {
                let _ = pattern.matches(&path);
            }
        }
    }

    #[test]
    fn the_worst_pattern_takes_linear_time() {
        // Matchers that go back need longer than anybody waits for this.
        let mut pattern = b"*a".repeat(PATTERN_LEN_MAX / 2 - 1);
        pattern.push(b'b');
        let pattern = PathPattern::new(&pattern, false).unwrap();
        assert!(!pattern.matches(&vec![b'a'; 64 * 1024], false));
    }
}
