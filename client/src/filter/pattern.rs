//! One glob, matched in linear time.
//!
//! A pattern becomes a row of states: state `n` means that its first `n` characters are matched.
//! All states that are possible at a time are bits, and a byte of the path moves all of them at
//! once, so no path makes a pattern go back (compare the matchers that were the hazard of
//! CVE-2026-0967): the time is the length of the path times that of the pattern in words of 64.

use std::{fmt, sync::Arc};

use crate::error::{Failure, Kind};

/// Longest pattern, in bytes.
pub const PATTERN_LEN_MAX: usize = 1024;
/// Words for the states of the longest pattern: one more than it has characters.
const WORDS_MAX: usize = PATTERN_LEN_MAX / 64 + 1;

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
    /// A filter has more than [`RULES_MAX`](super::RULES_MAX) of them.
    #[error("a filter has at most {} patterns", super::RULES_MAX)]
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

/// A set of bytes.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Set([u64; 4]);

impl Set {
    const NONE: Self = Self([0; 4]);

    fn of(admits: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::NONE;
        for byte in (0..=u8::MAX).filter(|&byte| admits(byte)) {
            set.add(byte);
        }
        set
    }

    fn add(&mut self, byte: u8) {
        if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }

    fn has(&self, byte: u8) -> bool {
        self.0
            .get(usize::from(byte >> 6))
            .is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }

    /// With both cases of the letters it has.
    fn of_both_cases(self) -> Self {
        Self::of(|byte| {
            self.has(byte)
                || self.has(byte.to_ascii_lowercase())
                || self.has(byte.to_ascii_uppercase())
        })
    }
}

/// A set of states.
type States = [u64; WORDS_MAX];

fn set(states: &mut States, state: usize) {
    if let Some(word) = states.get_mut(state / 64) {
        *word |= 1 << (state % 64);
    }
}

/// A second or later byte of a character in UTF-8.
const fn continues(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// A pattern, ready to be matched.
#[derive(Clone)]
pub(crate) struct Pattern {
    machine: Arc<Machine>,
    directories_only: bool,
}

/// What a pattern becomes.
struct Machine {
    /// Words of a set of states that are used.
    words: usize,
    /// The state in which all is matched.
    last: usize,
    /// Which of `accepts` is a byte's.
    class_of: [u8; 256],
    /// For each class of bytes, `words` at a time: the states that a byte of it leads on from.
    accepts: Vec<u64>,
    /// States that stay with any byte (`**`), with any but a slash (`*`), and with the further
    /// bytes of a character (behind `?` and the like).
    stays_any: States,
    stays_in_name: States,
    stays_in_character: States,
    /// States that are possible again behind each later slash (`/**/`).
    returns: States,
}

/// What the parsing of a pattern finds.
struct Builder {
    tokens: Vec<Set>,
    stays_any: States,
    stays_in_name: States,
    stays_in_character: States,
    returns: States,
}

impl Pattern {
    /// Compiles a pattern as [`Filter`](super::Filter) describes them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(pattern: &[u8], ignores_case: bool) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_LEN_MAX {
            return Err(PatternError::TooLong);
        }
        if pattern.contains(&0) {
            return Err(PatternError::Zero);
        }
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
        let mut builder = Builder {
            tokens: Vec::new(),
            stays_any: [0; WORDS_MAX],
            stays_in_name: [0; WORDS_MAX],
            stays_in_character: [0; WORDS_MAX],
            returns: [0; WORDS_MAX],
        };
        if !is_anchored {
            // It may begin at any name.
            set(&mut builder.returns, 0);
        }
        builder.parse(pattern)?;
        Ok(Self {
            machine: Arc::new(builder.build(ignores_case)),
            directories_only,
        })
    }

    /// Whether it matches `path`.
    pub(crate) fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        (is_directory || !self.directories_only) && self.machine.matches(path)
    }
}

impl Builder {
    fn parse(&mut self, mut rest: &[u8]) -> Result<(), PatternError> {
        let mut at_name = true; // at the start, or behind a slash
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let state = self.tokens.len();
            let was_at_name = std::mem::replace(&mut at_name, byte == b'/');
            match byte {
                b'*' => {
                    let more = rest.iter().take_while(|&&byte| byte == b'*').count();
                    rest = rest.get(more..).unwrap_or_default();
                    match (more, rest.strip_prefix(b"/")) {
                        (1, Some(after)) if was_at_name => {
                            set(&mut self.returns, state);
                            rest = after;
                            at_name = true;
                        }
                        (0, _) => set(&mut self.stays_in_name, state),
                        (1, _) => set(&mut self.stays_any, state),
                        _ => return Err(PatternError::Stars),
                    }
                }
                b'?' => self.character(Set::of(|byte| byte != b'/' && !continues(byte))),
                b'[' => rest = self.class(rest)?,
                b'\\' => {
                    let (&literal, after) = rest.split_first().ok_or(PatternError::OpenEscape)?;
                    rest = after;
                    at_name = literal == b'/';
                    self.literal(literal);
                }
                // Two slashes in a row are one.
                b'/' if was_at_name => {}
                literal => self.literal(literal),
            }
        }
        Ok(())
    }

    fn literal(&mut self, byte: u8) {
        self.tokens.push(Set::of(|other| other == byte));
    }

    /// A whole character, of which `first` is the first byte.
    fn character(&mut self, first: Set) {
        self.tokens.push(first);
        set(&mut self.stays_in_character, self.tokens.len());
    }

    /// What stands behind a `[`; gives what stands behind the `]`.
    fn class<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], PatternError> {
        let negated = matches!(rest.first(), Some(b'!' | b'^'));
        if negated {
            rest = rest.get(1..).unwrap_or_default();
        }
        let mut listed = Set::NONE;
        let mut is_first = true;
        loop {
            let (&byte, after) = rest.split_first().ok_or(PatternError::OpenClass)?;
            rest = after;
            // A `]` that comes first stands for itself.
            if byte == b']' && !is_first {
                break;
            }
            is_first = false;
            let low = member(byte, &mut rest)?;
            let high = match rest {
                // A `-` that comes last stands for itself.
                [b'-', b']', ..] => low,
                [b'-', high, after @ ..] => {
                    rest = after;
                    member(*high, &mut rest)?
                }
                _ => low,
            };
            if high < low {
                return Err(PatternError::BackwardRange);
            }
            (low..=high).for_each(|byte| listed.add(byte));
        }
        if negated {
            self.character(Set::of(|byte| {
                byte != b'/' && !continues(byte) && !listed.has(byte)
            }));
        } else {
            self.tokens
                .push(Set::of(|byte| byte != b'/' && listed.has(byte)));
        }
        Ok(rest)
    }

    fn build(self, ignores_case: bool) -> Machine {
        let Self {
            mut tokens,
            stays_any,
            stays_in_name,
            stays_in_character,
            returns,
        } = self;
        if ignores_case {
            for token in &mut tokens {
                *token = token.of_both_cases();
            }
        }
        let words = tokens.len() / 64 + 1;
        let mut class_of = [0; 256];
        let mut accepts: Vec<u64> = Vec::new();
        // Bytes that no token tells apart share a row.
        for (byte, class) in (0..=u8::MAX).zip(&mut class_of) {
            let mut row: States = [0; WORDS_MAX];
            for (state, _) in tokens
                .iter()
                .enumerate()
                .filter(|(_, token)| token.has(byte))
            {
                set(&mut row, state);
            }
            let row = row.get(..words).unwrap_or(&row);
            let known = accepts.chunks_exact(words).position(|known| known == row);
            let index = known.unwrap_or_else(|| {
                accepts.extend_from_slice(row);
                accepts.len() / words - 1
            });
            *class = u8::try_from(index).unwrap_or(u8::MAX); // there are as many as bytes, at most
        }
        Machine {
            words,
            last: tokens.len(),
            class_of,
            accepts,
            stays_any,
            stays_in_name,
            stays_in_character,
            returns,
        }
    }
}

/// One end of a range in a class, `\` understood.
fn member(byte: u8, rest: &mut &[u8]) -> Result<u8, PatternError> {
    let byte = if byte == b'\\' {
        let (&escaped, after) = rest.split_first().ok_or(PatternError::OpenClass)?;
        *rest = after;
        escaped
    } else {
        byte
    };
    if byte.is_ascii() {
        Ok(byte)
    } else {
        Err(PatternError::ClassNotAscii)
    }
}

impl Machine {
    fn matches(&self, path: &[u8]) -> bool {
        let mut now: States = [0; WORDS_MAX];
        set(&mut now, 0);
        // States that are possible again behind a slash.
        let mut later: States = [0; WORDS_MAX];
        for (later, (now, returns)) in later.iter_mut().zip(now.iter().zip(&self.returns)) {
            *later = now & returns;
        }
        for &byte in path {
            let class = usize::from(self.class_of.get(usize::from(byte)).copied().unwrap_or(0));
            let accepts = self.accepts.chunks_exact(self.words).nth(class);
            let in_name = if byte == b'/' { 0 } else { u64::MAX };
            let in_character = if continues(byte) { u64::MAX } else { 0 };
            let mut carry = 0;
            let mut alive = 0;
            let stays = self
                .stays_any
                .iter()
                .zip(&self.stays_in_name)
                .zip(&self.stays_in_character)
                .map(|((any, name), character)| any | name & in_name | character & in_character);
            let rows = now.iter_mut().zip(later.iter_mut());
            let tables = accepts.unwrap_or_default().iter().zip(stays);
            for (((now, later), (accepts, stays)), returns) in rows.zip(tables).zip(&self.returns) {
                let moved = *now & accepts;
                let mut next = moved << 1 | carry | *now & stays;
                carry = moved >> 63;
                if byte == b'/' {
                    next |= *later;
                }
                *later |= next & returns;
                alive |= next | *later;
                *now = next;
            }
            if alive == 0 {
                return false;
            }
        }
        now.get(self.last / 64)
            .is_some_and(|word| word >> (self.last % 64) & 1 == 1)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pattern")
            .field("characters", &self.machine.last)
            .field("directories_only", &self.directories_only)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern.as_bytes(), false)
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
    fn a_slash_at_the_end_is_for_directories() {
        let pattern = Pattern::new(b"a/", false).unwrap();
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
                Pattern::new(pattern.as_bytes(), false).err(),
                Some(error),
                "{pattern}"
            );
        }
        let long = [b'a'; PATTERN_LEN_MAX + 1];
        assert_eq!(
            Pattern::new(&long, false).err(),
            Some(PatternError::TooLong)
        );
        let longest = Pattern::new(&long[1..], false).unwrap();
        assert!(longest.matches(&long[1..], false) && !longest.matches(&long, false));
    }

    /// The same by trying everything, as the definition reads.
    fn by_trial(pattern: &[u8], path: &[u8]) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=path.len()).any(|n| by_trial(rest, &path[n..])),
            [b'*', rest @ ..] => (0..=path.len())
                .take_while(|&n| !path[..n].contains(&b'/'))
                .any(|n| by_trial(rest, &path[n..])),
            [b'?', rest @ ..] => {
                path.first().is_some_and(|&byte| byte != b'/') && by_trial(rest, &path[1..])
            }
            [byte, rest @ ..] => path.first() == Some(byte) && by_trial(rest, &path[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_trying_everything_gives(
            pattern in "([abx]|\\*|\\?|\\*\\*[ab]|/[ab]){1,8}", path in "[ab/]{0,10}",
        ) {
            prop_assume!(!pattern.contains("***") && !pattern.starts_with('/'));
            let compiled = Pattern::new(pattern.as_bytes(), false).unwrap();
            let starts = std::iter::once(0)
                .chain(path.match_indices('/').map(|(n, _)| n + 1));
            let expected = starts
                .into_iter()
                .any(|n| by_trial(pattern.as_bytes(), &path.as_bytes()[n..]));
            prop_assert_eq!(compiled.matches(path.as_bytes(), true), expected);
        }

        #[test]
        fn any_bytes_are_a_pattern_or_an_error(
            pattern in proptest::collection::vec(any::<u8>(), 0..80),
            path in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(pattern) = Pattern::new(&pattern, true) {
                pattern.matches(&path, true);
            }
        }
    }

    #[test]
    fn the_worst_pattern_takes_linear_time() {
        // Matchers that go back need longer than anybody waits for this.
        let mut pattern = b"*a".repeat(PATTERN_LEN_MAX / 2 - 1);
        pattern.push(b'b');
        let pattern = Pattern::new(&pattern, false).unwrap();
        assert!(!pattern.matches(&vec![b'a'; 64 * 1024], false));
    }
}
