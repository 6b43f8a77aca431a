//! A file that several channels upload, or one after another: what is above them all.
//!
//! Each channel that works on it is a hand: it has the temporary file open in its own right, takes
//! ranges, and waits for the answers to all it has written. Who finds nothing left, and is the last
//! with an open handle, sets attributes and gives the file its name, once those who left have been
//! told that their handles are closed. When a connection is lost its hand gives back what was not
//! acknowledged; a file without hands is an orphan, and waits in the plan for the next one, which
//! opens the same temporary file: it is ours.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use ketch_protocol::RemotePath;

use super::file::From;
use crate::transfer::{
    local::Opened,
    plan,
    ranges::{Ranges, Span},
};

/// A file that several may upload.
pub(crate) struct Joint {
    pub from: From,
    pub opened: Option<Opened>,
    pub path: RemotePath,
    pub temporary: RemotePath,
    shares: Mutex<Shares>,
    /// Whether the server takes writes in any order, from several.
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
    /// All of it is on the server, of this size, and may have its name or not.
    whole: Option<u64>,
}

/// What became of the file when a hand left it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    /// Others work on it: this one closes its handle.
    Others,
    /// Nobody does.
    Orphan,
    /// All of it was sent, up to here: it is to be finished.
    Last { end: u64 },
}

impl Joint {
    /// A file on which one hand works.
    pub(super) fn new(
        (from, opened): (From, Option<Opened>),
        path: RemotePath,
        temporary: RemotePath,
        ranges: Ranges,
        takes_several: bool,
    ) -> Self {
        let left = AtomicU64::new(ranges.left());
        let shares = Shares {
            ranges,
            hands: 1,
            closing: 0,
            is_alone: false,
            whole: None,
        };
        Self {
            from,
            opened,
            path,
            temporary,
            shares: Mutex::new(shares),
            takes_several,
            left,
            over: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
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
        }
        if let Some(end) = end {
            shares.ranges.end_met(end);
        }
        self.left.store(shares.ranges.left(), Relaxed);
    }

    /// No other hand is welcome any more: the server refused one.
    pub(super) fn stay_alone(&self) {
        self.lock().is_alone = true;
    }

    /// A hand has sent all that it took, and all of that was acknowledged if it is `quiet`; it
    /// stays if there is more, or if the answers are to be awaited.
    pub(super) fn leave_done(&self, quiet: bool) -> Option<Left> {
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
            return Some(Left::Others);
        }
        let end = shares.ranges.met()?;
        shares.is_alone = true;
        Some(Left::Last { end })
    }

    /// A hand that had left has closed its handle, or cannot any more.
    pub(super) fn on_closed(&self) {
        let mut shares = self.lock();
        shares.closing = shares.closing.saturating_sub(1);
    }

    /// Whether some that left have not closed their handles yet.
    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing > 0
    }

    /// A hand goes and gives back what was not acknowledged.
    pub(super) fn leave(&self, spans: impl IntoIterator<Item = Span>) -> Left {
        let mut shares = self.lock();
        for span in spans {
            shares.ranges.give_back(span);
        }
        shares.hands = shares.hands.saturating_sub(1);
        self.left.store(shares.ranges.left(), Relaxed);
        if shares.hands == 0 {
            shares.is_alone = false;
            Left::Orphan
        } else {
            Left::Others
        }
    }

    /// Takes back a range of which the write will not be answered.
    pub(super) fn give_back(&self, span: Span) {
        let mut shares = self.lock();
        shares.ranges.give_back(span);
        self.left.store(shares.ranges.left(), Relaxed);
    }

    /// All of it is on the server, and it may have its name or not.
    pub(super) fn set_whole(&self, size: u64) {
        self.lock().whole = Some(size);
    }

    /// The size, if all of it is on the server.
    pub(super) fn whole(&self) -> Option<u64> {
        self.lock().whole
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

    fn leftover(&self) -> Option<&RemotePath> {
        Some(&self.temporary)
    }
}
