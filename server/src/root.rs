//! A user's tree as sessions share it, with what was learnt of its speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crate::fs::FileSystem;

/// A file call in place that takes longer makes every other channel of its connection wait too
/// long. Much less would take a busy processor for a slow disk: a thread that lost its turn in the
/// middle of a call waits for several time slices of some 3 ms.
const SLOW: Duration = Duration::from_millis(16);
/// So many slow calls within [`FORGET_AFTER`] calls send all further ones to threads.
const STRIKES_MAX: u32 = 2;
/// After so many quick calls in a row on threads, a root is tried in place again, on probation.
const RETRY_AFTER: u32 = 64;
/// After so many quick calls in a row in place, a slow one is forgotten.
const FORGET_AFTER: u32 = 1024;

/// A file system with the pace that its calls were seen to have.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) pace: Pace,
    /// Files that arrived here and wait to be hashed.
    pub(crate) hashing: Arc<AtomicUsize>,
}

impl Root {
    pub(crate) fn new(files: Arc<dyn FileSystem>) -> Self {
        Self {
            files,
            pace: Pace::default(),
            hashing: Arc::default(),
        }
    }
}

/// Whether calls may be made on the connection's task. It is learnt for the root as a whole: a
/// disk that is slow is slow for all who use it.
///
/// Counts are advisory: sessions that race for them lose a count, not more.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    strikes: AtomicU32,
    quick: AtomicU32,
}

impl Pace {
    /// Whether calls have to go to a thread.
    pub(crate) fn is_slow(&self) -> bool {
        self.strikes.load(Ordering::Relaxed) >= STRIKES_MAX
    }

    /// A call in place took so long.
    pub(crate) fn on_call(&self, took: Duration) {
        if took >= SLOW {
            self.quick.store(0, Ordering::Relaxed);
            let more = |strikes: u32| Some(strikes.saturating_add(1).min(STRIKES_MAX));
            let _ = self
                .strikes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        } else if self.strikes.load(Ordering::Relaxed) > 0 {
            self.quick_call(FORGET_AFTER);
        }
    }

    /// A quick call; after `enough` in a row a strike is taken back.
    fn quick_call(&self, enough: u32) {
        if self.quick.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= enough {
            self.quick.store(0, Ordering::Relaxed);
            let less = |strikes: u32| Some(strikes.saturating_sub(1));
            let _ = self
                .strikes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// A call on a thread took so long. It delayed nobody, but tells when the root is quick again.
    pub(crate) fn on_thread(&self, took: Duration) {
        match (self.is_slow(), took < SLOW) {
            (false, _) => {}
            (true, true) => self.quick_call(RETRY_AFTER),
            (true, false) => self.quick.store(0, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(50);

    #[test]
    fn two_slow_calls_send_a_root_to_threads_and_quick_ones_bring_it_back() {
        let pace = Pace::default();
        pace.on_call(SLOW);
        assert!(!pace.is_slow(), "once is chance");
        pace.on_call(SLOW);
        assert!(pace.is_slow());
        for _ in 0..RETRY_AFTER {
            assert!(pace.is_slow());
            pace.on_thread(QUICK);
        }
        assert!(!pace.is_slow());
        pace.on_call(SLOW);
        assert!(pace.is_slow(), "it is on probation");
    }

    #[test]
    fn a_disk_that_is_slow_on_threads_does_not_slow_down_what_is_in_memory() {
        let pace = Pace::default();
        for _ in 0..10 {
            pace.on_thread(SLOW);
        }
        assert!(!pace.is_slow());
    }

    #[test]
    fn slow_calls_far_apart_are_forgotten() {
        let pace = Pace::default();
        for _ in 0..4 {
            pace.on_call(SLOW);
            for _ in 0..FORGET_AFTER {
                pace.on_call(QUICK);
            }
            assert!(!pace.is_slow());
        }
    }
}
