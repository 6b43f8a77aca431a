//! A file that several channels move, or one after another: who has which of its ranges.
//!
//! Each channel that works on it is a hand: it has a handle of its own and takes ranges. Who finds
//! nothing left, and is the last, gives the file its name. When a connection is lost its hand gives
//! back what was not moved; a file without hands is an orphan, and waits in the plan for the next
//! one. What such a file is besides, `get/joint.rs` and `put/joint.rs` know.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use super::{
    plan,
    ranges::{Ranges, Span},
};

/// Those who work on one file.
pub(crate) struct Hands {
    shares: Mutex<Shares>,
    /// Whether more than one at a time are welcome at all.
    takes_several: bool,
    /// Bytes that were not dealt, for who wants to know about it without the lock.
    left: AtomicU64,
    over: AtomicBool,
}

struct Shares {
    ranges: Ranges,
    /// Those that have it open.
    hands: u32,
    /// Those that wait for the answer to their close.
    closing: u32,
    /// No more hands are welcome while there is one.
    is_alone: bool,
    /// The end of the last byte that came, of those who left.
    highest: u64,
    /// All of it is there, of this size, and may have its name or not.
    whole: Option<u64>,
}

/// What became of the file when a hand left it early.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Left {
    /// Others work on it.
    Others,
    /// Nobody does, and it is not whole.
    Orphan,
}

/// What became of the file when a hand of a download found nothing left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Read {
    /// Others work on it.
    Others,
    /// All of it is here, up to `end`, and bytes up to `highest` came: it is to be named.
    Whole { end: Option<u64>, highest: u64 },
}

/// What became of the file when a hand of an upload found nothing left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Written {
    /// Others work on it: this one closes its handle.
    Others,
    /// All of it was sent, up to here: it is to be finished.
    Last { end: u64 },
}

impl Hands {
    /// One hand works on a file, of which it has taken what `ranges` do not have.
    pub(crate) fn new(ranges: Ranges, takes_several: bool) -> Self {
        let left = AtomicU64::new(ranges.left());
        let shares = Shares {
            ranges,
            hands: 1,
            closing: 0,
            is_alone: false,
            highest: 0,
            whole: None,
        };
        Self {
            shares: Mutex::new(shares),
            takes_several,
            left,
            over: AtomicBool::new(false),
        }
    }

    /// Nobody works on a file of which all `size` bytes are there, and which may have its name or
    /// not: its connection was lost while it was named.
    pub(crate) fn unnamed(size: u64) -> Self {
        let mut ranges = Ranges::new(Some(size));
        ranges.end_met(0);
        let hands = Self::new(ranges, false);
        hands.set_whole(size);
        hands.leave([], 0);
        hands
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that were not dealt.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// Another hand comes; it takes no part if the file is done, or if whoever has it is alone: it
    /// may be about to get its name.
    pub(crate) fn take(&self) -> bool {
        let mut shares = self.lock();
        let is_for_one = shares.is_alone || shares.whole.is_some();
        if self.is_over() || is_for_one && shares.hands > 0 {
            return false;
        }
        shares.hands += 1;
        true
    }

    /// The next range, if there is one.
    pub(crate) fn deal(&self) -> Option<Span> {
        let mut shares = self.lock();
        let span = shares.ranges.deal();
        self.left.store(shares.ranges.left(), Relaxed);
        span
    }

    /// What a hand found out about the size. While nobody knows where the file ends, more hands
    /// would find nothing.
    pub(crate) fn learn(&self, outgrown: bool, end: Option<u64>) {
        let mut shares = self.lock();
        if outgrown {
            shares.is_alone = true;
        }
        shares.ranges.learn(outgrown, end);
        self.left.store(shares.ranges.left(), Relaxed);
    }

    /// No other hand is welcome any more: the server refused one, or has another file now.
    pub(crate) fn stay_alone(&self) {
        self.lock().is_alone = true;
    }

    /// A hand of a download has all that it took, up to `highest`; it stays if there is more.
    pub(crate) fn leave_read(&self, highest: u64) -> Option<Read> {
        let mut shares = self.lock();
        if shares.ranges.left() > 0 {
            return None;
        }
        shares.highest = shares.highest.max(highest);
        if shares.hands > 1 {
            shares.hands -= 1;
            return Some(Read::Others);
        }
        let (end, highest) = (shares.ranges.met(), shares.highest);
        shares.is_alone = true;
        Some(Read::Whole { end, highest })
    }

    /// A hand of an upload has sent all that it took, and all of that was acknowledged if it is
    /// `quiet`; it stays if there is more, or if the answers are to be awaited.
    pub(crate) fn leave_written(&self, quiet: bool) -> Option<Written> {
        let mut shares = self.lock();
        if shares.ranges.left() > 0 {
            return None;
        }
        if shares.hands > 1 {
            if !quiet {
                return None;
            }
            shares.hands -= 1;
            shares.closing += 1;
            return Some(Written::Others);
        }
        let end = shares.ranges.met()?;
        shares.is_alone = true;
        Some(Written::Last { end })
    }

    /// A hand that had left has closed its handle, or cannot any more.
    pub(crate) fn on_closed(&self) {
        let mut shares = self.lock();
        shares.closing = shares.closing.saturating_sub(1);
    }

    /// Whether some that left have not closed their handles yet.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing > 0
    }

    /// A hand goes and gives back what it has not moved; what came ends at `highest`.
    pub(crate) fn leave(&self, spans: impl IntoIterator<Item = Span>, highest: u64) -> Left {
        let mut shares = self.lock();
        for span in spans {
            shares.ranges.give_back(span);
        }
        shares.highest = shares.highest.max(highest);
        shares.hands = shares.hands.saturating_sub(1);
        self.left.store(shares.ranges.left(), Relaxed);
        if shares.hands == 0 {
            shares.is_alone = false;
            Left::Orphan
        } else {
            Left::Others
        }
    }

    /// Takes back a range of which the request will not be answered.
    pub(crate) fn give_back(&self, span: Span) {
        let mut shares = self.lock();
        shares.ranges.give_back(span);
        self.left.store(shares.ranges.left(), Relaxed);
    }

    /// All of it is there, and it may have its name or not.
    pub(crate) fn set_whole(&self, size: u64) {
        self.lock().whole = Some(size);
    }

    /// The size, if all of it is there.
    pub(crate) fn whole(&self) -> Option<u64> {
        self.lock().whole
    }

    /// It is named, or failed: nobody works on it any more. Says whether it was news.
    pub(crate) fn end(&self) -> bool {
        !self.over.swap(true, Relaxed)
    }

    /// Whether nobody should work on it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Whether nobody works on it, though it is not done.
    pub(crate) fn are_gone(&self) -> bool {
        !self.is_over() && self.lock().hands == 0
    }

    /// Bytes that nobody has taken on, if one more hand is welcome.
    pub(crate) fn left_for_others(&self) -> u64 {
        if self.is_over() || !self.takes_several {
            return 0;
        }
        let shares = self.lock();
        if shares.is_alone {
            0
        } else {
            shares.ranges.left()
        }
    }
}

/// Whose the ranges of a file are.
pub(crate) enum Hold<J> {
    /// This channel's alone.
    Alone(Ranges),
    /// The plan's.
    Joint(Arc<J>),
}

impl<J: plan::Joint> Hold<J> {
    /// The next range to move, if there is one.
    pub(crate) fn deal(&mut self) -> Option<Span> {
        match self {
            Self::Alone(ranges) => ranges.deal(),
            Self::Joint(joint) => joint.hands().deal(),
        }
    }

    /// What was found out about the size.
    pub(crate) fn learn(&mut self, outgrown: bool, end: Option<u64>) {
        match self {
            Self::Alone(ranges) => ranges.learn(outgrown, end),
            Self::Joint(joint) => joint.hands().learn(outgrown, end),
        }
    }

    /// The file as others know it, if they do.
    pub(crate) const fn joint(&self) -> Option<&Arc<J>> {
        match self {
            Self::Joint(joint) => Some(joint),
            Self::Alone(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::ranges::RANGE_LEN;

    fn two_ranges() -> Hands {
        let hands = Hands::new(Ranges::new(Some(2 * u64::from(RANGE_LEN))), true);
        hands.learn(false, Some(2 * u64::from(RANGE_LEN)));
        hands
    }

    #[test]
    fn the_last_of_a_download_is_told_how_far_others_came() {
        let hands = two_ranges();
        assert!(hands.take());
        assert!(hands.deal().is_some());
        assert_eq!(hands.leave_read(0), None, "there is more");
        let second = hands.deal().expect("two ranges");
        assert_eq!(hands.leave_read(second.end()), Some(Read::Others));
        let (end, highest) = (Some(second.end()), second.end());
        assert_eq!(hands.leave_read(7), Some(Read::Whole { end, highest }));
    }

    #[test]
    fn the_last_of_an_upload_waits_for_the_handles_of_others() {
        let hands = two_ranges();
        assert!(hands.take());
        while hands.deal().is_some() {}
        assert_eq!(hands.leave_written(false), None, "answers are awaited");
        assert_eq!(hands.leave_written(true), Some(Written::Others));
        let end = 2 * u64::from(RANGE_LEN);
        assert_eq!(hands.leave_written(false), Some(Written::Last { end }));
        assert!(hands.is_closing());
        hands.on_closed();
        assert!(!hands.is_closing());
    }

    #[test]
    fn nobody_comes_to_a_file_that_the_last_one_finishes() {
        let hands = two_ranges();
        while hands.deal().is_some() {}
        let end = 2 * u64::from(RANGE_LEN);
        assert_eq!(hands.leave_written(true), Some(Written::Last { end }));
        assert!(
            !hands.take(),
            "whoever saw it in the plan before comes too late"
        );
        // When its connection is lost somebody has to.
        assert_eq!(hands.leave([], 0), Left::Orphan);
        assert!(hands.take());
    }

    #[test]
    fn who_is_lost_leaves_an_orphan_that_takes_others_again() {
        let hands = two_ranges();
        let span = hands.deal().expect("two ranges");
        hands.stay_alone();
        assert_eq!(hands.left_for_others(), 0);
        assert_eq!(hands.leave([span], 5), Left::Orphan);
        assert!(hands.are_gone());
        assert!(hands.take());
        assert!(!hands.are_gone());
        assert_eq!(hands.left_for_others(), 2 * u64::from(RANGE_LEN));
        assert_eq!(hands.leave([], 0), Left::Orphan);
        assert!(hands.end());
        assert!(!hands.take() && !hands.are_gone() && !hands.end());
    }

    #[test]
    fn a_file_that_outgrew_its_size_is_for_one() {
        let hands = Hands::new(Ranges::new(Some(2 * u64::from(RANGE_LEN))), true);
        assert!(hands.left_for_others() > 0);
        hands.learn(true, None);
        assert_eq!(hands.left_for_others(), 0);
    }

    #[test]
    fn a_file_that_was_being_named_has_nothing_left_to_move() {
        let hands = Hands::unnamed(7);
        assert!(hands.are_gone());
        assert_eq!((hands.left(), hands.whole()), (0, Some(7)));
    }
}
