//! Patterns as an automaton: all that may have matched so far is known, so none goes back.
//!
//! A pattern becomes a row of states: state `n` means that its first `n` characters are matched.
//! All states that are possible at a time are bits, and a byte of the path moves all of them at
//! once, so no path makes a pattern go back (compare the matchers that were the hazard of
//! CVE-2026-0967): the time is the length of the path times that of the pattern in words of 64.
//!
//! Most patterns are a name, or a star with something before or behind it: what is plain at both
//! ends of a pattern is compared first (`pattern/ends.rs`), and often that is all.

use super::{
    PATTERN_LEN_MAX, PatternError,
    ends::{Ends, Said},
};

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

fn has(states: &States, state: usize) -> bool {
    let word = states.get(state / 64);
    word.is_some_and(|word| word >> (state % 64) & 1 == 1)
}

/// A second or later byte of a character in UTF-8.
const fn continues(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// What a pattern becomes.
#[derive(Eq, PartialEq)]
pub(super) struct Machine {
    /// What a path has to begin and to end with.
    ends: Ends,
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
    is_anchored: bool,
    tokens: Vec<Set>,
    /// For each token the byte that it is, if it is one.
    literals: Vec<Option<u8>>,
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
            is_anchored,
            tokens: Vec::new(),
            literals: Vec::new(),
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
        self.literals.push(Some(byte));
    }

    /// A whole character, of which `first` is the first byte.
    fn character(&mut self, first: Set) {
        self.tokens.push(first);
        self.literals.push(None);
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
            self.literals.push(None);
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
            ignores_case,
            is_anchored,
            tokens,
            literals,
            stays_any,
            stays_in_name,
            stays_in_character,
            returns,
        } = self;
        let words = tokens.len() / 64 + 1;
        let ends = Ends::new(&literals, ignores_case, is_anchored, |state| {
            // That a path may be matched from any name on is known.
            let returns = has(&returns, state) && (state > 0 || is_anchored);
            if returns || has(&stays_any, state) || has(&stays_in_character, state) {
                Some(Said::More)
            } else {
                has(&stays_in_name, state).then_some(Said::Star)
            }
        });
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
            ends,
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
        match self.ends.judge(path) {
            Some(known) => known,
            None if self.words == 1 => self.matches_short(path),
            None => self.matches_long(path),
        }
    }

    /// As [`matches_long`](Self::matches_long), for patterns whose states are one word.
    fn matches_short(&self, path: &[u8]) -> bool {
        let [any, in_name, in_character, returns] = [
            &self.stays_any,
            &self.stays_in_name,
            &self.stays_in_character,
            &self.returns,
        ]
        .map(|states| states.first().copied().unwrap_or(0));
        let mut now = 1_u64;
        let mut later = now & returns;
        for &byte in path {
            let accepts = self.accepts.get(self.class(byte)).copied().unwrap_or(0);
            let mut stays = any;
            if byte != b'/' {
                stays |= in_name;
            }
            if continues(byte) {
                stays |= in_character;
            }
            now = (now & accepts) << 1 | now & stays;
            if byte == b'/' {
                now |= later;
            }
            later |= now & returns;
            if now | later == 0 {
                return false;
            }
        }
        now >> self.last & 1 == 1
    }

    fn class(&self, byte: u8) -> usize {
        let class = self.class_of.get(usize::from(byte));
        usize::from(class.copied().unwrap_or(0))
    }

    fn matches_long(&self, path: &[u8]) -> bool {
        let words = self.words;
        let mut states: States = [0; WORDS_MAX];
        set(&mut states, 0);
        // States that are possible again behind a slash.
        let mut again: States = [0; WORDS_MAX];
        for (again, (now, returns)) in again.iter_mut().zip(states.iter().zip(&self.returns)) {
            *again = now & returns;
        }
        for &byte in path {
            let from = self.class(byte) * words;
            let Some(accepts) = self.accepts.get(from..from + words) else {
                return false;
            };
            let is_slash = byte == b'/';
            let is_inner = continues(byte);
            let (mut carry, mut alive) = (0, 0);
            for word in 0..words {
                // All are as long as the longest pattern needs, or checked above.
                let ([Some(now), Some(later)], Some(accepts)) = (
                    [states.get_mut(word), again.get_mut(word)],
                    accepts.get(word),
                ) else {
                    return false;
                };
                if *now | carry | *later == 0 {
                    continue; // nothing is there, and nothing comes from before
                }
                let of = |states: &States| states.get(word).copied().unwrap_or(0);
                let mut stays = of(&self.stays_any);
                if !is_slash {
                    stays |= of(&self.stays_in_name);
                }
                if is_inner {
                    stays |= of(&self.stays_in_character);
                }
                let moved = *now & accepts;
                let mut next = moved << 1 | carry | *now & stays;
                carry = moved >> 63;
                if is_slash {
                    next |= *later;
                }
                *later |= next & of(&self.returns);
                alive |= next | *later;
                *now = next;
            }
            if alive == 0 {
                return false;
            }
        }
        has(&states, self.last)
    }
}
