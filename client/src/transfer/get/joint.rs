//! A remote file that several channels read, or one after another: what is above them all.
//!
//! Each channel that works on it is a hand: it has a handle of its own and takes ranges. Who finds
//! nothing left and is the last names the local file. When a connection is lost its hand gives back
//! what has not come; a file without hands is an orphan, and waits in the plan for the next one.
//! Whoever comes later makes sure that it opened the same version of the file: size and time have to
//! be those that the first one saw, or two versions would be spliced.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use ketch_protocol::{Attrs, RemotePath};

use super::{Local, file::Target};
use crate::transfer::{
    plan,
    ranges::{Ranges, Span},
};

/// A remote file that several may read.
pub(crate) struct Joint {
    pub path: RemotePath,
    /// What the first one was told.
    pub attrs: Attrs,
    pub depth: u8,
    target: Target,
    shares: Mutex<Shares>,
    /// Bytes that were not dealt, for who wants to know about it without the lock.
    left: AtomicU64,
    over: AtomicBool,
}

struct Shares {
    ranges: Ranges,
    hands: u32,
    /// No more hands are welcome while there is one.
    is_alone: bool,
    /// The end of the last byte that came, of those who left.
    highest: u64,
    /// All of it is here: its size.
    whole: Option<u64>,
}

/// What became of the file when a hand left it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    /// Others work on it.
    Others,
    /// Nobody does, and it is not whole.
    Orphan,
    /// All of it is here, up to `end`, and bytes up to `highest` came: it is to be named.
    Whole { end: Option<u64>, highest: u64 },
}

impl Joint {
    /// A file on which one hand works, with what it has taken.
    pub(super) fn new(
        path: RemotePath,
        attrs: Attrs,
        depth: u8,
        target: Target,
        ranges: Ranges,
    ) -> Self {
        let left = AtomicU64::new(ranges.left());
        let shares = Shares {
            ranges,
            hands: 1,
            is_alone: false,
            highest: 0,
            whole: None,
        };
        Self {
            path,
            attrs,
            depth,
            target,
            shares: Mutex::new(shares),
            left,
            over: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the bytes go.
    pub(super) fn target(&self) -> Target {
        self.target.clone()
    }

    /// What to name to begin with the file anew.
    pub(super) fn local(&self) -> Local {
        match &self.target {
            Target::File(created, tree) => Local::In(tree.clone(), created.name().to_owned()),
            Target::Sink(sink) => Local::Sink(sink.clone()),
        }
    }

    /// Bytes that were not dealt.
    pub(super) fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// Another hand comes; it takes no part if the file is done.
    pub(super) fn take_hand(&self) -> bool {
        let mut shares = self.lock();
        if self.is_over() {
            return false;
        }
        shares.hands += 1;
        true
    }

    /// The next range, if there is one.
    pub(super) fn deal(&self) -> Option<Span> {
        let mut shares = self.lock();
        let span = shares.ranges.deal();
        self.left.store(shares.ranges.left(), Relaxed);
        span
    }

    /// What a hand found out about the size.
    pub(super) fn learn(&self, outgrown: bool, end: Option<u64>) {
        let mut shares = self.lock();
        if outgrown {
            shares.ranges.outgrown();
            shares.is_alone = true;
        }
        if let Some(end) = end {
            shares.ranges.end_met(end);
        }
        self.left.store(shares.ranges.left(), Relaxed);
    }

    /// No other hand is welcome any more: the server refused one, or has another file now.
    pub(super) fn stay_alone(&self) {
        self.lock().is_alone = true;
    }

    /// A hand has all that it took, up to `highest`; it stays if there is more.
    pub(super) fn leave_done(&self, highest: u64) -> Option<Left> {
        let mut shares = self.lock();
        if shares.ranges.left() > 0 {
            return None;
        }
        shares.highest = shares.highest.max(highest);
        if shares.hands > 1 {
            shares.hands -= 1;
            return Some(Left::Others);
        }
        let (end, highest) = (shares.ranges.met(), shares.highest);
        shares.is_alone = true;
        Some(Left::Whole { end, highest })
    }

    /// A hand goes and gives back what it has not brought in.
    pub(super) fn leave(&self, spans: impl IntoIterator<Item = Span>, highest: u64) -> Left {
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

    /// All of it is here, and it may have its name or not.
    pub(super) fn set_whole(&self, size: u64) {
        self.lock().whole = Some(size);
    }

    /// The size, if all of it is here.
    pub(super) fn whole(&self) -> Option<u64> {
        self.lock().whole
    }

    /// Bytes that came and are to come again when it is begun anew.
    pub(super) fn came(&self) -> u64 {
        let size = self.attrs.size.unwrap_or(0);
        size.saturating_sub(self.lock().ranges.left())
    }

    /// It is named, or failed: nobody works on it any more. Says whether it was news.
    pub(super) fn end(&self) -> bool {
        !self.over.swap(true, Relaxed)
    }

    /// Whether nobody should work on it any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }
}

impl plan::Joint for Joint {
    fn is_orphan(&self) -> bool {
        !self.is_over() && self.lock().hands == 0
    }

    fn left_for_others(&self) -> u64 {
        if self.is_over() {
            return 0;
        }
        let shares = self.lock();
        if shares.is_alone {
            0
        } else {
            shares.ranges.left()
        }
    }

    fn leftover(&self) -> Option<&RemotePath> {
        None
    }
}
