//! Parts: what an earlier run left of a file, how much of it is believed, and what is compared
//! before it is continued.
//!
//! A part holds no list of what came. While a file is transferred that may have to be continued,
//! nothing is asked for or sent more than [`TAIL_LEN`] bytes behind the first byte that is missing
//! ([`Front`]): so whenever it ends, and however late or mixed up answers were, all that may be
//! missing lies in the last [`TAIL_LEN`] bytes of the part. These are never believed, and come
//! again.
//!
//! The rest is compared with the source as far as the caller wants (`Resume`), and size and time of
//! the source are in the part's name, so a part of another version is not even found. Here a part
//! is locked while it is in use. A server has no lock: the run that takes a part renames it, and a
//! connection that was lost may still have WRITEs of the run before under way, into the same file.
//! These are bytes of the same version for the same places, so they do no harm whenever they come,
//! unless the source was changed without changing its size and time; who has to reckon with that
//! asks for a checksum in the end (`Verify`).

use std::{collections::BTreeMap, io};

use super::{
    options::Resume,
    ranges::{RANGE_LEN, Span},
};

/// Bytes at the end of a part that are not believed.
pub(crate) const TAIL_LEN: u64 = 8 * 1024 * 1024;

/// What stands in place of [`TAIL_LEN`] while a fuzzer is at work, unless it is zero: whole runs
/// with it are short.
#[cfg(feature = "fuzzing")]
pub(crate) static TAIL_LEN_FUZZED: std::sync::atomic::AtomicU64 =
    std::sync::atomic::AtomicU64::new(0);

/// Bytes at the end of a part that are not believed.
#[cfg_attr(
    not(feature = "fuzzing"),
    expect(clippy::missing_const_for_fn, reason = "a fuzzer may change it")
)]
pub(crate) fn tail_len() -> u64 {
    #[cfg(feature = "fuzzing")]
    match TAIL_LEN_FUZZED.load(std::sync::atomic::Ordering::Relaxed) {
        0 => {}
        len => return len,
    }
    TAIL_LEN
}

/// Bytes at the start of a part that are compared with the source.
pub(crate) const HEAD_CHECK_LEN: u64 = 64 * 1024;
/// Bytes at the end of what is believed that are compared with the source.
pub(crate) const TAIL_CHECK_LEN: u64 = 1024 * 1024;

/// Bytes of a part of `len` bytes that are believed, if they turn out to be those of the source.
pub(crate) fn believed(len: u64) -> u64 {
    len.saturating_sub(tail_len())
}

/// What is compared of a part of which `believed` bytes are believed, from the start on.
pub(crate) fn checks(resume: Resume, believed: u64) -> Vec<Span> {
    match resume {
        Resume::No => Vec::new(),
        Resume::Full => spans(0, believed),
        Resume::Verified => {
            let head = HEAD_CHECK_LEN.min(believed);
            let tail = believed.saturating_sub(TAIL_CHECK_LEN).max(head);
            let mut checks = spans(0, head);
            checks.extend(spans(tail, believed));
            checks
        }
    }
}

/// The bytes from `from` to `to`, in ranges.
fn spans(from: u64, to: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut offset = from;
    while offset < to {
        let len = u32::try_from(to - offset)
            .unwrap_or(u32::MAX)
            .min(RANGE_LEN);
        spans.push(Span { offset, len });
        offset += u64::from(len);
    }
    spans
}

/// Whether `read` gives these bytes at `offset`.
pub(crate) fn is_same(
    bytes: &[u8],
    offset: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<bool> {
    let mut there = vec![0; bytes.len()];
    let mut filled = 0;
    while let Some(rest) = there.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(rest, offset.saturating_add(filled as u64))? {
            0 => return Ok(false),
            got => filled += got.min(rest.len()),
        }
    }
    Ok(there == bytes)
}

/// Up to where a file has come without a gap.
#[derive(Debug, Default)]
pub(crate) struct Front {
    at: u64,
    /// What came beyond the first gap: start and end of runs.
    ahead: BTreeMap<u64, u64>,
}

impl Front {
    /// All before `at` is there.
    pub(crate) const fn new(at: u64) -> Self {
        Self {
            at,
            ahead: BTreeMap::new(),
        }
    }

    /// Bytes came.
    pub(crate) fn add(&mut self, span: Span) {
        let (mut start, mut end) = (span.offset, span.end());
        if start > self.at {
            // Joined with its neighbours, so that there are no more runs than gaps.
            if let Some((&before, &until)) = self.ahead.range(..=start).next_back()
                && until >= start
            {
                self.ahead.remove(&before);
                start = before;
                end = end.max(until);
            }
            while let Some((&next, &until)) = self.ahead.range(start..=end).next() {
                self.ahead.remove(&next);
                end = end.max(until);
            }
            self.ahead.insert(start, end);
            return;
        }
        self.at = self.at.max(end);
        while let Some((&next, &until)) = self.ahead.first_key_value()
            && next <= self.at
        {
            self.ahead.remove(&next);
            self.at = self.at.max(until);
        }
    }

    /// Whether bytes up to `end` may be under way.
    pub(crate) fn admits(&self, end: u64) -> bool {
        end <= self.at.saturating_add(tail_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_front_is_where_the_first_gap_begins(
            spans in proptest::collection::vec((0..2000_u64, 0..200_u32), 0..60), from in 0..300_u64,
        ) {
            let mut there = vec![false; 2300];
            there[..usize::try_from(from).unwrap()].fill(true);
            let mut front = Front::new(from);
            for (offset, len) in spans {
                front.add(Span { offset, len });
                let start = usize::try_from(offset).unwrap();
                there[start..start + len as usize].fill(true);
                let gap = there.iter().position(|there| !there).unwrap();
                prop_assert_eq!(front.at, gap as u64);
                // Runs are apart, and beyond the front.
                let mut last = front.at;
                for (&start, &end) in &front.ahead {
                    prop_assert!(start > last && end >= start);
                    last = end;
                }
            }
        }

        #[test]
        fn what_is_compared_lies_in_what_is_believed(len in any::<u64>()) {
            let len = len >> 20;
            let believed = believed(len);
            let checks = checks(Resume::Verified, believed);
            let bytes: u64 = checks.iter().map(|span| u64::from(span.len)).sum();
            prop_assert!(bytes <= HEAD_CHECK_LEN + TAIL_CHECK_LEN);
            prop_assert!(bytes >= believed.min(TAIL_CHECK_LEN));
            for span in &checks {
                prop_assert!(span.end() <= believed);
            }
            if believed > 0 {
                prop_assert_eq!(checks[0].offset, 0);
                prop_assert_eq!(checks[checks.len() - 1].end(), believed);
            }
        }
    }

    #[test]
    fn a_full_check_leaves_nothing_out() {
        let believed = 3 * u64::from(RANGE_LEN) + 5;
        let mut at = 0;
        for span in checks(Resume::Full, believed) {
            assert_eq!(span.offset, at);
            at = span.end();
        }
        assert_eq!(at, believed);
    }

    #[test]
    fn the_end_of_a_part_is_not_believed() {
        assert_eq!(believed(0), 0);
        assert_eq!(believed(TAIL_LEN), 0);
        assert_eq!(believed(TAIL_LEN + 1), 1);
        let front = Front::new(10);
        assert!(front.admits(TAIL_LEN + 10));
        assert!(!front.admits(TAIL_LEN + 11));
    }

    #[test]
    fn what_the_source_does_not_have_is_not_the_same() {
        let source = |slot: &mut [u8], at: u64| {
            // Three bytes at a time.
            let at = usize::try_from(at).unwrap();
            let rest = b"0123456789".get(at..).unwrap_or_default();
            let len = rest.len().min(slot.len()).min(3);
            slot[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        };
        assert!(is_same(b"23456", 2, source).unwrap());
        assert!(!is_same(b"23457", 2, source).unwrap());
        assert!(!is_same(b"89?", 8, source).unwrap());
        assert!(is_same(b"", 50, source).unwrap());
    }
}
