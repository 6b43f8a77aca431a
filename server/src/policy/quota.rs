//! How much a user may keep: bytes and files.
//!
//! ```text
//!   session -> Metered (quota/metered.rs) -> the user's file system
//!                  |  charges before, credits after
//!               Ledger  <- a walk of the tree, now and then (quota/walk.rs)
//! ```
//!
//! Users without a quota have none of this in their way. The ledger is a machine: it knows numbers,
//! not files and no clock.

mod metered;
mod walk;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use metered::Metered;
use walk::Found;

/// A session that begins has the tree counted if that was not done for so long.
const COUNT_AGAIN_AFTER: Duration = Duration::from_secs(300);
/// What was refused may be refused for files that others took away since: the tree is counted
/// again, if that was not done for so long.
const COUNT_AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// How much a user may have in their tree.
///
/// Bytes are the lengths of all files, holes included, so that a file of one byte far behind its
/// start costs what it seems to. Files are names: of files, directories and links, a file with two
/// names twice. What was in the tree before, or came there by other ways, counts too: see
/// [`User::quota`](crate::User::quota).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Quota {
    /// Most bytes. Default: as many as one likes.
    pub bytes: Option<u64>,
    /// Most names of files, directories and links. Default: as many as one likes.
    pub files: Option<u64>,
}

impl Quota {
    /// At most so many bytes.
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        Self {
            bytes: Some(bytes),
            files: None,
        }
    }

    /// At most so many names, too.
    #[must_use]
    pub const fn files(mut self, files: u64) -> Self {
        self.files = Some(files);
        self
    }
}

/// So many bytes and names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Amount {
    bytes: u64,
    files: u64,
}

impl Amount {
    const fn bytes(bytes: u64) -> Self {
        Self { bytes, files: 0 }
    }

    const NAME: Self = Self { bytes: 0, files: 1 };
}

/// What a user has, as far as it is known.
#[derive(Debug)]
struct Ledger {
    quota: Quota,
    counts: Mutex<Counts>,
}

/// Below zero is what was there before anybody counted, and was taken away.
#[derive(Debug, Default)]
struct Counts {
    bytes: i128,
    files: i128,
    /// While the tree is being counted: what changed since that began.
    changed: Option<(i128, i128)>,
    /// When it was counted last.
    counted: Option<Instant>,
    /// Something was refused since then.
    has_refused: bool,
}

impl Ledger {
    fn new(quota: Quota) -> Self {
        Self {
            quota,
            counts: Mutex::default(),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much more, if there is room for it.
    ///
    /// # Errors
    /// `QuotaExceeded`, and nothing is charged.
    fn charge(&self, more: Amount) -> io::Result<()> {
        let mut counts = self.counts();
        let exceeds = |count: i128, more: u64, most: Option<u64>| {
            more > 0 && most.is_some_and(|most| count + i128::from(more) > i128::from(most))
        };
        if exceeds(counts.bytes, more.bytes, self.quota.bytes)
            || exceeds(counts.files, more.files, self.quota.files)
        {
            counts.has_refused = true;
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        counts.add(i128::from(more.bytes), i128::from(more.files));
        Ok(())
    }

    /// So much less.
    fn credit(&self, less: Amount) {
        self.counts()
            .add(-i128::from(less.bytes), -i128::from(less.files));
    }

    /// Whether the tree is to be counted now; then it is taken as begun. `at_start`: a session
    /// begins.
    fn begin_count(&self, now: Instant, at_start: bool) -> bool {
        let mut counts = self.counts();
        let age = |counted: Instant| now.saturating_duration_since(counted);
        let is_due = match counts.counted.map(age) {
            None => true,
            Some(age) if counts.has_refused => age >= COUNT_AFTER_REFUSAL,
            Some(age) => at_start && age >= COUNT_AGAIN_AFTER,
        };
        if !is_due || counts.changed.is_some() {
            return false;
        }
        counts.changed = Some((0, 0));
        true
    }

    /// The tree was counted: it had that much when the count began, give or take what changed
    /// meanwhile, of which the count may have seen a part. Where some of it was left out, it has that
    /// at least.
    fn end_count(&self, found: Option<Found>, now: Instant) {
        let mut counts = self.counts();
        let changed = counts.changed.take().unwrap_or_default();
        if let Some(Found { amount, is_all }) = found {
            let bytes = i128::from(amount.bytes) + changed.0;
            let files = i128::from(amount.files) + changed.1;
            counts.bytes = if is_all {
                bytes
            } else {
                bytes.max(counts.bytes)
            };
            counts.files = if is_all {
                files
            } else {
                files.max(counts.files)
            };
        }
        counts.counted = Some(now);
        counts.has_refused = false;
    }

    /// The count came to no end: another one may begin.
    fn give_up_count(&self) {
        self.counts().changed = None;
    }
}

impl Counts {
    fn add(&mut self, bytes: i128, files: i128) {
        self.bytes += bytes;
        self.files += files;
        if let Some(changed) = &mut self.changed {
            changed.0 += bytes;
            changed.1 += files;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn all(amount: Amount) -> Found {
        Found {
            amount,
            is_all: true,
        }
    }

    #[test]
    fn a_count_that_left_something_out_lowers_nothing_and_one_that_broke_off_is_begun_again() {
        let ledger = Ledger::new(Quota::of_bytes(100).files(9));
        #[expect(clippy::disallowed_methods, reason = "only a start to count from")]
        let start = Instant::now();
        assert!(ledger.begin_count(start, true));
        ledger.end_count(
            Some(all(Amount {
                bytes: 50,
                files: 2,
            })),
            start,
        );
        let later = start + COUNT_AGAIN_AFTER;
        assert!(ledger.begin_count(later, true));
        let amount = Amount {
            bytes: 10,
            files: 3,
        };
        let is_all = false;
        ledger.end_count(Some(Found { amount, is_all }), later);
        assert_eq!(ledger.counts().bytes, 50);
        assert_eq!(ledger.counts().files, 3);
        let later = later + COUNT_AGAIN_AFTER;
        assert!(ledger.begin_count(later, true));
        ledger.give_up_count();
        assert!(ledger.begin_count(later, true));
    }

    #[test]
    fn what_is_there_counts_when_it_is_known_and_what_comes_counts_at_once() {
        let ledger = Ledger::new(Quota::of_bytes(100).files(3));
        #[expect(clippy::disallowed_methods, reason = "only a start to count from")]
        let start = Instant::now();
        assert!(ledger.begin_count(start, true));
        assert!(!ledger.begin_count(start, true), "one count at a time");
        ledger.charge(Amount::bytes(60)).unwrap();
        assert!(ledger.charge(Amount::bytes(41)).is_err());
        let amount = Amount {
            bytes: 50,
            files: 2,
        };
        ledger.end_count(Some(all(amount)), start);
        assert_eq!(ledger.counts().bytes, 110);
        assert!(ledger.charge(Amount::bytes(1)).is_err());
        ledger.charge(Amount::NAME).unwrap();
        assert!(ledger.charge(Amount::NAME).is_err());
        ledger.credit(Amount::bytes(20));
        assert!(ledger.charge(Amount::bytes(10)).is_ok());
    }

    #[test]
    fn a_tree_is_counted_again_after_a_while_and_sooner_after_a_refusal() {
        let ledger = Ledger::new(Quota::of_bytes(1));
        #[expect(clippy::disallowed_methods, reason = "only a start to count from")]
        let start = Instant::now();
        assert!(ledger.begin_count(start, false), "the first time");
        ledger.end_count(None, start);
        assert!(!ledger.begin_count(start + COUNT_AGAIN_AFTER, false));
        assert!(!ledger.begin_count(start + COUNT_AFTER_REFUSAL, true));
        assert!(ledger.begin_count(start + COUNT_AGAIN_AFTER, true));
        ledger.end_count(Some(all(Amount::bytes(1))), start);
        assert!(ledger.charge(Amount::bytes(1)).is_err());
        assert!(!ledger.begin_count(start, false));
        assert!(ledger.begin_count(start + COUNT_AFTER_REFUSAL, false));
    }
}
