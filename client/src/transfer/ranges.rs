//! Which bytes of one file are still to be moved: a file is dealt out in ranges of some megabytes.
//!
//! A [`Ranges`] belongs to a file of the plan, above connections: whoever works on the file takes
//! a range, cuts it into requests of its own size, and takes the next. No packet ever touches it.
//! The size that a listing or `STAT` named is a hint: one byte more than that is asked for, so
//! that the answer which comes up short there is the end of the file without another round trip,
//! and a file that grew is followed to where it ends now.

/// Bytes of one range of a download. Large enough that taking one costs nothing, small enough to
/// share a file.
pub(crate) const RANGE_LEN: u32 = if cfg!(test) { 256 } else { 8 * 1024 } * 1024;
/// Bytes of one range of an upload: a window of 2 MiB holds several, so that many channels end at
/// about the same time.
pub(crate) const RANGE_LEN_UP: u32 = if cfg!(test) { 128 } else { 1024 } * 1024;

/// A run of bytes of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span {
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
}

impl Span {
    /// The first byte after the run.
    pub(crate) const fn end(self) -> u64 {
        self.offset.saturating_add(self.len as u64)
    }

    /// Cuts the first `len` bytes off, leaving the rest in `self`.
    pub(crate) fn split_to(&mut self, len: u32) -> Self {
        let len = len.min(self.len);
        let first = Self {
            offset: self.offset,
            len,
        };
        self.offset = self.offset.saturating_add(u64::from(len));
        self.len -= len;
        first
    }
}

/// The ranges of one file.
#[derive(Debug)]
pub(crate) struct Ranges {
    /// Bytes of one range.
    len: u32,
    /// Where the next new range starts.
    next: u64,
    end: End,
    /// Ranges that came back unfinished, from a connection that was lost.
    returned: Vec<Span>,
}

/// What is known of the end of the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// Nothing, or the file has outgrown what was said.
    Open,
    /// Somebody named a size; nobody has been there yet.
    Expected(u64),
    /// The end was met here.
    Met(u64),
}

impl Ranges {
    /// The ranges of a file that should have `expected` bytes.
    ///
    /// An expected size of zero is not believed: files made on the fly (`/proc`) say zero.
    pub(crate) const fn new(expected: Option<u64>) -> Self {
        Self::of(expected, RANGE_LEN)
    }

    /// As [`Ranges::new`], in ranges of `len` bytes.
    pub(crate) const fn of(expected: Option<u64>, len: u32) -> Self {
        let end = match expected {
            None | Some(0) => End::Open,
            Some(size) => End::Expected(size),
        };
        Self {
            len,
            next: 0,
            end,
            returned: Vec::new(),
        }
    }

    /// The ranges of a file that should have `expected` bytes, of which those before `from` are
    /// there: first `checks`, then what is missing.
    pub(crate) fn resuming(expected: Option<u64>, from: u64, checks: Vec<Span>) -> Self {
        let mut ranges = Self::new(expected);
        ranges.next = from;
        ranges.returned = checks;
        ranges.returned.reverse();
        ranges
    }

    /// The next range to move, or `None` when all have been dealt.
    pub(crate) fn deal(&mut self) -> Option<Span> {
        if let Some(span) = self.returned.pop() {
            return Some(span);
        }
        let left = self.ahead();
        // The probing byte joins the last range rather than making a request of its own.
        let len = if left <= u64::from(self.len) + 1 {
            left
        } else {
            u64::from(self.len)
        };
        let len = u32::try_from(len).unwrap_or(self.len);
        if len == 0 || self.next.checked_add(u64::from(len)).is_none() {
            return None;
        }
        let span = Span {
            offset: self.next,
            len,
        };
        self.next = span.end();
        Some(span)
    }

    /// Bytes that were never dealt, as far as the end is known.
    const fn ahead(&self) -> u64 {
        match self.end {
            End::Open => self.len as u64,
            // One byte more than expected shows whether the file ends there.
            End::Expected(size) => size.saturating_add(1).saturating_sub(self.next),
            End::Met(size) => size.saturating_sub(self.next),
        }
    }

    /// Bytes that are to be dealt, as far as the end is known.
    pub(crate) fn left(&self) -> u64 {
        let returned: u64 = self.returned.iter().map(|span| u64::from(span.len)).sum();
        returned.saturating_add(self.ahead())
    }

    /// Where the end was met, once it was.
    pub(crate) const fn met(&self) -> Option<u64> {
        match self.end {
            End::Met(end) => Some(end),
            End::Open | End::Expected(_) => None,
        }
    }

    /// Takes back what was dealt and not moved.
    pub(crate) fn give_back(&mut self, mut span: Span) {
        if let End::Met(end) = self.end {
            span.len = within(span, end);
        }
        if span.len > 0 {
            self.returned.push(span);
        }
    }

    /// What was found out about the size: that it is more than was expected, or where the end is.
    pub(crate) fn learn(&mut self, outgrown: bool, end: Option<u64>) {
        if outgrown {
            self.outgrown();
        }
        if let Some(end) = end {
            self.end_met(end);
        }
    }

    /// The file is longer than was expected: ranges are dealt until somebody meets the end.
    pub(crate) const fn outgrown(&mut self) {
        if let End::Expected(_) = self.end {
            self.end = End::Open;
        }
    }

    /// The end of the file was met at `end`.
    pub(crate) fn end_met(&mut self, end: u64) {
        let end = match self.end {
            End::Met(earlier) => earlier.min(end),
            End::Open | End::Expected(_) => end,
        };
        self.end = End::Met(end);
        self.returned.retain_mut(|span| {
            span.len = within(*span, end);
            span.len > 0
        });
    }
}

/// How much of a span lies before `end`.
fn within(span: Span, end: u64) -> u32 {
    let keep = end.saturating_sub(span.offset);
    u32::try_from(keep).unwrap_or(u32::MAX).min(span.len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_ranges_cover_the_file_and_one_byte_more(size in 1..100_000_000_u64) {
            let mut ranges = Ranges::new(Some(size));
            let mut at = 0;
            while let Some(span) = ranges.deal() {
                prop_assert_eq!(span.offset, at);
                prop_assert!(span.len > 0 && span.len <= RANGE_LEN + 1);
                at = span.end();
            }
            prop_assert_eq!(at, size + 1);
        }
    }

    #[test]
    fn a_file_of_unknown_size_is_dealt_until_its_end_is_met() {
        for expected in [None, Some(0)] {
            let mut ranges = Ranges::new(expected);
            for n in 0..10 {
                let span = ranges.deal().expect("open ended");
                assert_eq!(
                    span,
                    Span {
                        offset: n * u64::from(RANGE_LEN),
                        len: RANGE_LEN
                    }
                );
            }
            ranges.end_met(5);
            assert_eq!(ranges.deal(), None);
        }
    }

    #[test]
    fn a_file_that_outgrew_its_size_goes_on() {
        let mut ranges = Ranges::new(Some(3));
        assert_eq!(ranges.deal(), Some(Span { offset: 0, len: 4 }));
        assert_eq!(ranges.deal(), None);
        ranges.outgrown();
        assert_eq!(
            ranges.deal(),
            Some(Span {
                offset: 4,
                len: RANGE_LEN
            })
        );
    }

    #[test]
    fn what_came_back_is_dealt_again_up_to_the_end() {
        let mut ranges = Ranges::new(Some(100));
        let span = ranges.deal().expect("first");
        ranges.give_back(span);
        assert_eq!(ranges.left(), 101);
        ranges.end_met(40);
        assert_eq!((ranges.left(), ranges.met()), (40, Some(40)));
        ranges.give_back(Span {
            offset: 40,
            len: 60,
        });
        assert_eq!(ranges.deal(), Some(Span { offset: 0, len: 40 }));
        assert_eq!(ranges.deal(), None);
    }

    #[test]
    fn the_largest_sizes_do_not_overflow() {
        let mut ranges = Ranges::new(Some(u64::MAX));
        ranges.next = u64::MAX - 5;
        while ranges.deal().is_some() {}
        let mut ranges = Ranges::new(None);
        ranges.next = u64::MAX - 5;
        assert_eq!(ranges.deal(), None);
    }
}
