//! Patterns for the paths of files, as shells have them, and for single names.
//!
//! [`Pattern`] is matched in time that grows with the product of its length and the name's at worst,
//! and with their sum as a rule; both are bounded. [`Glob`] divides a pattern at its slashes, and
//! says for each directory which parts its entries have to match: `walk.rs` lists what can hold a
//! match and nothing else. Both work on bytes: names need not be UTF-8, and where they are, `?` is a
//! character.

use ketch_protocol::RemotePath;

use crate::error::{Failure, Kind};

/// Longest pattern, in bytes.
const PATTERN_LEN_MAX: usize = 1024;
/// Longest name that is looked at, in bytes: what is longer, no file system has.
const NAME_LEN_MAX: usize = 4096;
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
    /// A `[` without a `]`, or a `\` at the end.
    #[error("the pattern is not complete")]
    Incomplete,
    /// There is nothing in it.
    #[error("the pattern is empty")]
    Empty,
}

impl Failure for GlobError {
    fn kind(&self) -> Kind {
        Kind::Local
    }
}

/// A pattern for one name.
///
/// `*` stands for any characters, `?` for one, `[a-z]` for one of these and `[!a-z]` for any other;
/// `\` takes the meaning from what follows.
///
/// ```
/// use ketch_client::Pattern;
///
/// let pattern = Pattern::new("report-[0-9]*.csv")?;
/// assert!(pattern.matches(b"report-2024.csv"));
/// assert!(!pattern.matches(b"report-x.csv"));
/// # Ok::<(), ketch_client::GlobError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Byte(u8),
    /// One character.
    One,
    /// One character out of these ranges, or out of the others.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// Any characters.
    Any,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`GlobError`].
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self, GlobError> {
        let mut rest = pattern.as_ref();
        if rest.len() > PATTERN_LEN_MAX {
            return Err(GlobError::TooLong);
        }
        let mut tokens = Vec::with_capacity(rest.len());
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            let token = match first {
                b'*' => Token::Any,
                b'?' => Token::One,
                b'[' => {
                    let (class, after) = class(rest).ok_or(GlobError::Incomplete)?;
                    rest = after;
                    class
                }
                b'\\' => {
                    let (&escaped, after) = rest.split_first().ok_or(GlobError::Incomplete)?;
                    rest = after;
                    Token::Byte(escaped)
                }
                byte => Token::Byte(byte),
            };
            // Two stars mean what one does.
            if !(token == Token::Any && tokens.last() == Some(&Token::Any)) {
                tokens.push(token);
            }
        }
        Ok(Self { tokens })
    }

    /// Whether the whole of `name` is what the pattern says. Names of more than 4 KiB match nothing.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        if name.len() > NAME_LEN_MAX {
            return false;
        }
        let (mut token, mut at) = (0, 0);
        // Behind the last star, and what it has taken so far: only that one is ever tried again.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let step = match self.tokens.get(token) {
                Some(Token::Any) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                Some(one) => one.len_at(name.get(at..).unwrap_or_default()),
                None if at == name.len() => return true,
                None => None,
            };
            if let Some(len) = step {
                token += 1;
                at += len;
                continue;
            }
            match &mut retry {
                Some((behind, taken)) if *taken < name.len() => {
                    *taken += 1;
                    (token, at) = (*behind, *taken);
                }
                _ => return false,
            }
        }
    }

    /// The one name that it matches, if it has no wildcards.
    fn plain(&self) -> Option<Vec<u8>> {
        let byte = |token: &Token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        };
        self.tokens.iter().map(byte).collect()
    }
}

impl Token {
    /// How many bytes at the start of `text` it matches.
    fn len_at(&self, text: &[u8]) -> Option<usize> {
        let first = *text.first()?;
        match self {
            Self::Byte(byte) => (*byte == first).then_some(1),
            Self::One => Some(char_at(text).map_or(1, char::len_utf8)),
            Self::Class { negated, ranges } => {
                let found = char_at(text);
                let within = |c: char| ranges.iter().any(|&(from, to)| (from..=to).contains(&c));
                (found.is_some_and(within) != *negated).then(|| found.map_or(1, char::len_utf8))
            }
            Self::Any => None,
        }
    }
}

/// The character at the start, if there is one.
fn char_at(text: &[u8]) -> Option<char> {
    const UTF8_LEN_MAX: usize = 4;
    let start = text.get(..UTF8_LEN_MAX).unwrap_or(text);
    let chunk = start.utf8_chunks().next()?;
    chunk.valid().chars().next()
}

/// What stands behind a `[`: the class, and the rest.
fn class(text: &[u8]) -> Option<(Token, &[u8])> {
    let mut rest = text;
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    if negated {
        rest = rest.get(1..)?;
    }
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut is_first = true;
    loop {
        let (from, after) = class_char(rest)?;
        // A bracket that comes first stands for itself.
        if from == ']' && rest.first() == Some(&b']') && !is_first {
            return Some((Token::Class { negated, ranges }, after));
        }
        is_first = false;
        rest = after;
        let mut to = from;
        if rest.first() == Some(&b'-') && rest.get(1) != Some(&b']') {
            (to, rest) = class_char(rest.get(1..)?)?;
        }
        ranges.push((from, to));
    }
}

fn class_char(text: &[u8]) -> Option<(char, &[u8])> {
    let text = match text.strip_prefix(b"\\") {
        Some(escaped) => escaped,
        None => text,
    };
    let c = char_at(text)?;
    Some((c, text.get(c.len_utf8()..)?))
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
                    match pattern.plain() {
                        Some(name) => Part::Plain(name),
                        None => Part::Pattern {
                            names_dot: pattern.tokens.first() == Some(&Token::Byte(b'.')),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        let table: [(&str, &[&str], &[&str]); 9] = [
            ("*.csv", &["a.csv", ".csv"], &["a.csv.tmp", "csv"]),
            ("a?c", &["abc", "aüc"], &["ac", "abbc"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[!a-c]x", &["dx"], &["ax"]),
            ("[]-]", &["]", "-"], &["a"]),
            (r"\*", &["*"], &["a"]),
            ("a*b*c", &["abc", "aXbYc", "abcbc"], &["ab", "acb"]),
            ("", &[""], &["a"]),
            ("**", &["", "abc"], &[]),
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
        for wrong in ["[", "[a", "[]", r"a\"] {
            assert_eq!(Pattern::new(wrong), Err(GlobError::Incomplete), "{wrong}");
        }
    }

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

    /// What `matches` means, without a thought for time.
    fn slowly(tokens: &[Token], text: &[u8]) -> bool {
        match tokens.split_first() {
            None => text.is_empty(),
            Some((Token::Any, rest)) => (0..=text.len()).any(|at| slowly(rest, &text[at..])),
            Some((one, rest)) => one
                .len_at(text)
                .is_some_and(|len| slowly(rest, &text[len..])),
        }
    }

    #[test]
    fn the_worst_patterns_take_few_steps() {
        // Time decides nothing here: with a matcher that tries every star again this never ends.
        let text = vec![b'a'; NAME_LEN_MAX];
        let stars = Pattern::new("*a".repeat(511) + "b").unwrap();
        assert!(!stars.matches(&text));
        let long = Pattern::new(format!("*{}b", "a".repeat(1000))).unwrap();
        assert!(!long.matches(&text));
        assert!(
            !Pattern::new("*")
                .unwrap()
                .matches(&vec![b'a'; NAME_LEN_MAX + 1])
        );
    }

    proptest! {
        #[test]
        fn matching_means_what_it_says(pattern in "[ab*?]{0,8}|[ab*?]{0,3}\\[!?[ab]\\][ab*]{0,3}", text in "[abc]{0,10}") {
            let pattern = Pattern::new(&pattern).unwrap();
            prop_assert_eq!(pattern.matches(text.as_bytes()), slowly(&pattern.tokens, text.as_bytes()));
        }

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
