//! Bytes that were read from the stream and are not yet taken, and the parts of them that are lent.

/// A receive arena's filled part, from which packets are split off and opened where they lie.
///
/// The machine that takes packets borrows the arena through this, not itself, so that it can be
/// written to while an event is looked at.
#[derive(Debug)]
pub struct Input<'a> {
    rest: &'a mut [u8],
    at: usize,
    /// Where payloads go that do not fit where their packets lie.
    space: &'a mut [u8],
    space_at: usize,
    wants_space: bool,
}

impl<'a> Input<'a> {
    /// Everything in `filled` is still to be taken.
    pub fn new(filled: &'a mut [u8]) -> Self {
        let end = filled.len();
        Self::with_space(filled, end)
    }

    /// The first `filled` bytes of an arena are still to be taken; behind them is space for payloads
    /// that are longer than their packets: a compressed connection's.
    pub fn with_space(arena: &'a mut [u8], filled: usize) -> Self {
        let (rest, space) = arena.split_at_mut(filled.min(arena.len()));
        Self {
            at: 0,
            space_at: rest.len(),
            rest,
            space,
            wants_space: false,
        }
    }

    /// Whether a whole packet was left because there was too little space for its payload: end the
    /// turn, so that space is free again, and go on with what is left before reading more.
    #[must_use]
    pub const fn wants_space(&self) -> bool {
        self.wants_space
    }

    /// Whether there is space for `len` bytes; remembers if not.
    pub(super) const fn has_space(&mut self, len: usize) -> bool {
        self.wants_space = self.space.len() < len;
        !self.wants_space
    }

    /// All the space that is left.
    pub(super) const fn space(&mut self) -> &mut [u8] {
        self.space
    }

    /// Lends the first `len` bytes of the space; `None` if there is not so much of it.
    pub(super) fn lend_space(&mut self, len: usize) -> Option<Lent<'a>> {
        if len > self.space.len() {
            return None;
        }
        let (bytes, space) = std::mem::take(&mut self.space).split_at_mut(len);
        let at = self.space_at;
        self.space = space;
        self.space_at = at.saturating_add(len);
        Some(Lent { bytes, at })
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
