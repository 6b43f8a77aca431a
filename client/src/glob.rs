//! Patterns for the paths of files, as shells have them.
//!
//! [`Glob`] divides a pattern at its slashes, and says for each directory which parts its entries
//! have to match: `walk.rs` lists what can hold a match and nothing else. A part is a [`Pattern`].

use ketch_protocol::RemotePath;

use crate::{
    error::{Failure, Kind},
    pattern::{PATTERN_LEN_MAX, Pattern, PatternError},
};

/// Parts of a pattern between slashes: each has a bit.
const PARTS_MAX: usize = 64;

/// Why a pattern is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GlobError {
    /// It is longer than 1 KiB.
    #[error("a pattern has at most 1024 bytes")]
    TooLong,
    /// It has more than 64 parts.
    #[error("a pattern has at most 64 parts between slashes")]
    TooManyParts,
    /// One of its parts is no pattern.
    #[error(transparent)]
    Part(#[from] PatternError),
    /// There is nothing in it.
    #[error("the pattern is empty")]
    Empty,
}

impl Failure for GlobError {
    fn kind(&self) -> Kind {
        Kind::Local
    }
}

/// A pattern for paths: a [`Pattern`] for each part between slashes, and `**` for any number of
/// directories.
///
/// As in a shell, a name that begins with a dot has to be named so, dot included, and links to
/// directories are gone through where a part names them, but not by `**`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    prefix: RemotePath,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    /// A name without wildcards.
    Plain(Vec<u8>),
    Pattern {
        pattern: Pattern,
        /// Whether it says itself that the name begins with a dot.
        names_dot: bool,
    },
    /// `**`.
    AnyDepth,
}

/// The parts of a pattern that the entries of a directory may match: a bit for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct States(u64);

impl States {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What an entry of a directory means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Step {
    /// It ends a match.
    pub is_match: bool,
    /// What its own entries may match.
    pub next: States,
    /// The same, as far as a part other than `**` led to it.
    pub named: States,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`GlobError`].
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self, GlobError> {
        let pattern = pattern.as_ref();
        if pattern.len() > PATTERN_LEN_MAX {
            return Err(GlobError::TooLong);
        }
        let mut parts = Vec::new();
        for part in pattern.split(|&byte| byte == b'/') {
            let part = match part {
                b"" => continue,
                b"**" if parts.last() == Some(&Part::AnyDepth) => continue,
                b"**" => Part::AnyDepth,
                part => {
                    let pattern = Pattern::new(part)?;
                    match plain(part) {
                        Some(name) => Part::Plain(name),
                        None => Part::Pattern {
                            names_dot: part.starts_with(b".") || part.starts_with(br"\."),
                            pattern,
                        },
                    }
                }
            };
            if parts.len() == PARTS_MAX {
                return Err(GlobError::TooManyParts);
            }
            parts.push(part);
        }
        if parts.is_empty() {
            return Err(GlobError::Empty);
        }
        let is_absolute = pattern.first() == Some(&b'/');
        Ok(Self {
            prefix: RemotePath::from(if is_absolute { "/" } else { "" }),
            parts,
        })
    }

    /// Whether a text holds anything that a pattern takes for more than itself.
    #[must_use]
    pub fn has_wildcards(text: impl AsRef<[u8]>) -> bool {
        text.as_ref()
            .iter()
            .any(|byte| matches!(byte, b'*' | b'?' | b'['))
    }

    /// Whether a path is one that the pattern stands for, as far as its text can tell.
    #[must_use]
    pub fn matches(&self, path: &RemotePath) -> bool {
        if path.is_absolute() != self.prefix.is_absolute() {
            return false;
        }
        let names = path.as_bytes().split(|&byte| byte == b'/');
        let mut names = names.filter(|name| !name.is_empty()).peekable();
        let mut states = self.start();
        while let Some(name) = names.next() {
            let step = self.step(states, name);
            if names.peek().is_none() {
                return step.is_match;
            }
            states = step.next;
        }
        false
    }

    /// Where the parts begin: the root, or the empty path.
    pub(crate) const fn prefix(&self) -> &RemotePath {
        &self.prefix
    }

    pub(crate) fn start(&self) -> States {
        self.closed(0, 0)
    }

    /// `states` with the part `index`, and with the next one where that may stand for nothing.
    fn closed(&self, states: u64, index: usize) -> States {
        let mut states = states | (1 << index);
        if self.parts.get(index) == Some(&Part::AnyDepth) && index + 1 < self.parts.len() {
            states |= 1 << (index + 1);
        }
        States(states)
    }

    fn indices(&self, states: States) -> impl Iterator<Item = (usize, &Part)> {
        let parts = self.parts.iter().enumerate();
        parts.filter(move |(index, _)| states.0 & (1 << index) != 0)
    }

    /// What `name` means in a directory whose entries may match `states`.
    pub(crate) fn step(&self, states: States, name: &[u8]) -> Step {
        let mut step = Step {
            is_match: false,
            next: States::NONE,
            named: States::NONE,
        };
        for (index, part) in self.indices(states) {
            let is_hidden = name.first() == Some(&b'.');
            let is_last = index + 1 == self.parts.len();
            let fits = match part {
                Part::Plain(plain) => plain == name,
                Part::Pattern { pattern, names_dot } => {
                    (!is_hidden || *names_dot) && pattern.matches(name)
                }
                Part::AnyDepth => !is_hidden,
            };
            if !fits {
                continue;
            }
            step.is_match |= is_last;
            if *part == Part::AnyDepth {
                step.next = self.closed(step.next.0, index);
            } else if !is_last {
                step.next = self.closed(step.next.0, index + 1);
                step.named = self.closed(step.named.0, index + 1);
            }
        }
        step
    }

    /// The one name that may come next, and what may follow it; nothing if it is the last.
    pub(crate) fn plain_next(&self, states: States) -> Option<(&[u8], Option<States>)> {
        let mut indices = self.indices(states);
        let (Some((index, Part::Plain(name))), None) = (indices.next(), indices.next()) else {
            return None;
        };
        let is_last = index + 1 == self.parts.len();
        let rest = (!is_last).then(|| self.closed(0, index + 1));
        Some((name, rest))
    }
}

/// The one name that a part stands for, if it has no wildcards.
fn plain(part: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(part.len());
    let mut bytes = part.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return None,
            b'\\' => name.push(*bytes.next()?),
            byte => name.push(byte),
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_match_part_by_part() {
        let table: [(&str, &[&str], &[&str]); 8] = [
            (
                "in/*.csv",
                &["in/a.csv"],
                &["in/x/a.csv", "a.csv", "/in/a.csv"],
            ),
            ("/in/*", &["/in/a"], &["/in/.a", "/in", "in/a"]),
            ("**/a", &["a", "x/a", "x/y/a"], &["x/.y/a", "x/b"]),
            ("in/**", &["in/a", "in/a/b"], &["in", "in/.a"]),
            ("*/in/a?", &["x/in/ab"], &["in/ab", "x/y/in/ab"]),
            (
                "a/**/b/**/c",
                &["a/b/c", "a/x/b/y/z/c", "a/b/b/c"],
                &["a/c", "b/c"],
            ),
            ("plain/name", &["plain/name"], &["plain"]),
            (".*", &[".a"], &["a"]),
        ];
        for (text, yes, no) in table {
            let glob = Glob::new(text).unwrap();
            for path in yes {
                assert!(glob.matches(&(*path).into()), "{text} {path}");
            }
            for path in no {
                assert!(!glob.matches(&(*path).into()), "{text} {path}");
            }
        }
        assert_eq!(Glob::new("//"), Err(GlobError::Empty));
        assert_eq!(Glob::new("a/".repeat(65)), Err(GlobError::TooManyParts));
        assert_eq!(Glob::new("a".repeat(1025)), Err(GlobError::TooLong));
    }

    #[test]
    fn what_is_named_plainly_is_not_listed() {
        let glob = Glob::new("/a/b/*/c/d").unwrap();
        let (name, rest) = glob.plain_next(glob.start()).unwrap();
        let (next, rest) = glob.plain_next(rest.unwrap()).unwrap();
        assert_eq!((name, next), (&b"a"[..], &b"b"[..]));
        assert_eq!(glob.plain_next(rest.unwrap()), None);
        let step = glob.step(rest.unwrap(), b"x");
        let (name, rest) = glob.plain_next(step.next).unwrap();
        assert_eq!(name, b"c");
        assert_eq!(glob.plain_next(rest.unwrap()), Some((&b"d"[..], None)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_pattern_or_an_error(
            pattern in prop::collection::vec(any::<u8>(), 0..40),
            name in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            if let Ok(glob) = Glob::new(&pattern) {
                let _ = glob.matches(&name.into());
            }
        }
    }
}
