//! Bytes that were read from the stream and are not yet taken, and the parts of them that are lent.

/// A receive arena's filled part, from which packets are split off and opened where they lie.
///
/// The machine that takes packets borrows the arena through this, not itself, so that it can be
/// written to while an event is looked at.
#[derive(Debug)]
pub struct Input<'a> {
    rest: &'a mut [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// Everything in `filled` is still to be taken.
    pub fn new(filled: &'a mut [u8]) -> Self {
        Self {
            rest: filled,
            at: 0,
        }
    }

    /// How many bytes are not yet taken.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Where in the arena the next byte lies.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Looks at what is not yet taken.
    #[must_use]
    pub const fn peek(&self) -> &[u8] {
        self.rest
    }

    /// Splits the next `len` bytes off; they stay where they are. `None` if fewer are there.
    pub fn take(&mut self, len: usize) -> Option<Taken<'a>> {
        if len > self.rest.len() {
            return None;
        }
        let (bytes, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        let at = self.at;
        self.rest = rest;
        self.at = at.saturating_add(len);
        Some(Taken { bytes, at })
    }
}

/// A piece of the arena that belongs to whoever took it.
#[derive(Debug)]
pub struct Taken<'a> {
    /// The bytes.
    pub bytes: &'a mut [u8],
    /// Where in the arena they start.
    pub at: usize,
}

/// Opened payload, lent for the length of a call, and where in the arena it lies.
///
/// Who wants the bytes until the end of the turn notes a [`Place`]; who wants them longer copies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lent<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Where in the arena they start.
    pub at: usize,
}

impl<'a> Lent<'a> {
    /// The part from byte `from` on; empty if there is none.
    #[must_use]
    pub fn skip(self, from: usize) -> Self {
        Self {
            bytes: self.bytes.get(from..).unwrap_or_default(),
            at: self.at.saturating_add(from),
        }
    }

    /// The place of all of it.
    #[must_use]
    pub const fn place(self) -> Place {
        Place {
            start: self.at,
            len: self.bytes.len(),
        }
    }
}

/// A noted place in a receive arena, good until the turn ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// First byte.
    pub start: usize,
    /// How many.
    pub len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_keeps_its_place() {
        let mut arena = *b"abcdef";
        let mut input = Input::new(&mut arena);
        assert!(input.take(7).is_none());
        let first = input.take(2).unwrap();
        let second = input.take(3).unwrap();
        assert_eq!((&*first.bytes, first.at), (&b"ab"[..], 0));
        assert_eq!((&*second.bytes, second.at), (&b"cde"[..], 2));
        assert_eq!((input.peek(), input.position()), (&b"f"[..], 5));
        let lent = Lent {
            bytes: second.bytes,
            at: second.at,
        }
        .skip(1);
        assert_eq!(
            lent,
            Lent {
                bytes: b"de",
                at: 3
            }
        );
        assert_eq!(lent.place(), Place { start: 3, len: 2 });
    }
}
