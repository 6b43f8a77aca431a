//! What is plain at both ends of a pattern: `report-` and `.csv` of `report-*.csv`.
//!
//! Whoever lacks it does not match, and that is soon seen: most names of a directory are turned away
//! by their last byte. Where there is nothing between but one star, or nothing at all, whoever has
//! both matches, and the automaton is not asked.

/// What a pattern has at both of its ends.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Ends {
    first: Box<[u8]>,
    last: Box<[u8]>,
    /// Bytes that a match has at least.
    len_min: usize,
    ignores_case: bool,
    is_anchored: bool,
    /// What else there is.
    between: Between,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Between {
    /// Nothing: the pattern is a name.
    Nothing,
    /// A star.
    Star,
    /// More, or a path: what is at the ends can only say no.
    More,
}

/// What else than the next character may follow in a state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Said {
    /// Anything within a name.
    Star,
    /// Something else.
    More,
}

impl Ends {
    /// Of the characters of a pattern those that are plain bytes, and for each state (before the
    /// first, between two, behind the last) what else may follow there.
    pub(super) fn new(
        literals: &[Option<u8>],
        ignores_case: bool,
        is_anchored: bool,
        said: impl Fn(usize) -> Option<Said>,
    ) -> Self {
        let len = literals.len();
        let plain =
            |(state, literal): (usize, &Option<u8>)| literal.filter(|_| said(state).is_none());
        let first: Vec<u8> = literals.iter().enumerate().map_while(plain).collect();
        // From the last one back: what follows stands behind each.
        let behind =
            |(state, literal): (usize, &Option<u8>)| literal.filter(|_| said(state + 1).is_none());
        let mut last: Vec<u8> = literals
            .iter()
            .enumerate()
            .rev()
            .map_while(behind)
            .collect();
        last.reverse();
        let is_path = literals.contains(&Some(b'/'));
        let between = if first.len() == len && said(len).is_none() && !is_path {
            Between::Nothing
        } else if first.len() + last.len() == len
            && said(first.len()) == Some(Said::Star)
            && !is_path
        {
            Between::Star
        } else {
            Between::More
        };
        Self {
            // A pattern that may begin anywhere does not say with what a path begins.
            first: if is_anchored || between != Between::More {
                first.into()
            } else {
                Box::default()
            },
            last: last.into(),
            len_min: len,
            ignores_case,
            is_anchored,
            between,
        }
    }

    /// Whether `path` matches, as far as its ends say.
    pub(super) fn judge(&self, path: &[u8]) -> Option<bool> {
        if path.len() < self.len_min || !self.same(tail(path, self.last.len()), &self.last) {
            return Some(false);
        }
        let whole = match self.between {
            Between::More => {
                let begins = self.same(head(path, self.first.len()), &self.first);
                return if begins { None } else { Some(false) };
            }
            // One name: the whole path, or the last one in it.
            _ if self.is_anchored => path,
            _ => match path.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => path.get(slash + 1..).unwrap_or_default(),
                None => path,
            },
        };
        let fits =
            whole.len() >= self.len_min && self.same(head(whole, self.first.len()), &self.first);
        Some(
            fits && match self.between {
                Between::Nothing => whole.len() == self.len_min,
                _ => !self.is_anchored || !whole.contains(&b'/'),
            },
        )
    }

    fn same(&self, bytes: &[u8], plain: &[u8]) -> bool {
        if self.ignores_case {
            bytes.eq_ignore_ascii_case(plain)
        } else {
            bytes == plain
        }
    }
}

fn head(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(..len).unwrap_or_default()
}

fn tail(bytes: &[u8], len: usize) -> &[u8] {
    let from = bytes.len().checked_sub(len);
    from.and_then(|from| bytes.get(from..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_or_none_needs_no_automaton() {
        let none = |_| None;
        let plain = Ends::new(&[Some(b'a'), Some(b'b')], true, true, none);
        assert_eq!(plain.judge(b"aB"), Some(true));
        assert_eq!(plain.judge(b"abb"), Some(false));
        let star = |state| (state == 1).then_some(Said::Star);
        let star = Ends::new(&[Some(b'a'), Some(b'b')], false, false, star);
        assert_eq!(star.judge(b"x/a.b"), Some(true));
        assert_eq!(star.judge(b"xa.b"), Some(false));
        // What the two ends share is not enough for both.
        let double = |state| (state == 1).then_some(Said::Star);
        let double = Ends::new(&[Some(b'a'), Some(b'a')], false, true, double);
        assert_eq!(double.judge(b"a"), Some(false));
        assert_eq!(double.judge(b"aa"), Some(true));
        let more = Ends::new(&[Some(b'a'), None, Some(b'b')], false, true, none);
        assert_eq!(more.judge(b"axb"), None);
        assert_eq!(more.judge(b"xxb"), Some(false));
    }
}
