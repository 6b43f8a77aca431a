//! Patterns as an automaton: all that may have matched so far is known, so none goes back.
//!
//! A pattern becomes a row of states: state `n` means that its first `n` characters are matched.
//! All states that are possible at a time are bits, and a byte of the path moves all of them at
//! once, so no path makes a pattern go back (compare the matchers that were the hazard of
//! CVE-2026-0967): the time is the length of the path times that of the pattern in words of 64.

use super::{PATTERN_LEN_MAX, PatternError};

/// Words for the states of the longest pattern: one more than it has characters.
const WORDS_MAX: usize = PATTERN_LEN_MAX / 64 + 1;

/// What two stars in a row mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stars {
    /// What one does: the pattern is for one name.
    AsOne,
    /// Anything, slashes included.
    Anything,
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

/// What a pattern becomes.
#[derive(Eq, PartialEq)]
pub(super) struct Machine {
    /// Words of a set of states that are used.
    words: usize,
    /// The state in which all is matched.
    pub(super) last: usize,
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
    ignores_case: bool,
    tokens: Vec<Set>,
    stays_any: States,
    stays_in_name: States,
    stays_in_character: States,
    returns: States,
}

impl Machine {
    /// Compiles a pattern. One that is not anchored may begin at any name of a path.
    pub(super) fn new(
        pattern: &[u8],
        stars: Stars,
        is_anchored: bool,
        ignores_case: bool,
    ) -> Result<Self, PatternError> {
        let mut builder = Builder {
            ignores_case,
            tokens: Vec::new(),
            stays_any: [0; WORDS_MAX],
            stays_in_name: [0; WORDS_MAX],
            stays_in_character: [0; WORDS_MAX],
            returns: [0; WORDS_MAX],
        };
        if !is_anchored {
            set(&mut builder.returns, 0);
        }
        builder.parse(pattern, stars)?;
        Ok(builder.build())
    }
}

impl Builder {
    fn parse(&mut self, mut rest: &[u8], stars: Stars) -> Result<(), PatternError> {
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
                        _ if stars == Stars::AsOne => set(&mut self.stays_in_name, state),
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
        let set = Set::of(|other| other == byte);
        self.tokens.push(self.cases(set));
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
        // Both cases of what is named are left out, before all else is taken.
        let listed = self.cases(listed);
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

    /// As they are meant: with both cases of letters, if case is ignored.
    fn cases(&self, set: Set) -> Set {
        if self.ignores_case {
            set.of_both_cases()
        } else {
            set
        }
    }

    fn build(self) -> Machine {
        let Self {
            ignores_case: _,
            tokens,
            stays_any,
            stays_in_name,
            stays_in_character,
            returns,
        } = self;
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
    /// Whether all of `path` is matched.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
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
