//! How fast a user may be.
//!
//! A [`Flow`] is a machine that is told the time: bytes that passed put off when the next may. All
//! sessions of a user share theirs. `channel.rs` holds `DATA` replies back, and the credit for what a
//! client sends. The window that a channel has, 2 MiB first and 16 at the most, comes as fast as it
//! likes; it is charged when it came, so that the next credit has to wait the longer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was not used in so long before may be made up for.
const BURST: Duration = Duration::from_millis(100);
/// Credit is given in parts of so long, at least [`CREDIT_LEN_MIN`].
const CREDIT_PARTS_A_SECOND: u64 = 20;
/// Smallest part in which credit is given, in bytes.
const CREDIT_LEN_MIN: u64 = 32 * 1024;

/// How many bytes a second a user may move, in all sessions together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Bandwidth {
    /// To the server, in bytes a second. Default: as many as one likes.
    pub upload: Option<u64>,
    /// From the server, in bytes a second. Default: as many as one likes.
    pub download: Option<u64>,
}

impl Bandwidth {
    /// The same in both directions, in bytes a second; 0 is taken as 1.
    #[must_use]
    pub const fn both(bytes_per_second: u64) -> Self {
        Self {
            upload: Some(bytes_per_second),
            download: Some(bytes_per_second),
        }
    }

    /// At most so many bytes a second to the server.
    #[must_use]
    pub const fn upload(mut self, bytes_per_second: u64) -> Self {
        self.upload = Some(bytes_per_second);
        self
    }

    /// At most so many bytes a second from the server.
    #[must_use]
    pub const fn download(mut self, bytes_per_second: u64) -> Self {
        self.download = Some(bytes_per_second);
        self
    }
}

/// What a user's sessions share.
#[derive(Debug)]
pub(crate) struct Throttle {
    pub(crate) of: Bandwidth,
    pub(crate) upload: Option<Flow>,
    pub(crate) download: Option<Flow>,
}

impl Throttle {
    pub(crate) fn new(bandwidth: Bandwidth) -> Self {
        Self {
            of: bandwidth,
            upload: bandwidth.upload.map(Flow::new),
            download: bandwidth.download.map(Flow::new),
        }
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Flow {
    bytes_per_second: u64,
    /// When all that passed is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Flow {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_at: Mutex::new(None),
        }
    }

    fn paid_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.paid_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when nothing more may pass; `None` if something may now.
    pub(crate) fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.paid_at().filter(|&paid| paid > now)
    }

    /// So many bytes pass.
    pub(crate) fn pass(&self, now: Instant, bytes: usize) {
        let nanos =
            (bytes as u128).saturating_mul(1_000_000_000) / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid = self.paid_at();
        // What was not used long ago is lost.
        let least = now.checked_sub(BURST).unwrap_or(now);
        let since = paid.map_or(least, |paid| paid.max(least));
        *paid = since.checked_add(cost).or(*paid);
    }

    /// In what parts credit is given, in bytes.
    pub(crate) fn part(&self) -> usize {
        let part = (self.bytes_per_second / CREDIT_PARTS_A_SECOND).max(CREDIT_LEN_MIN);
        usize::try_from(part).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However often and by whom it is tried, and whatever the pieces are.
        #[test]
        fn no_more_passes_than_may(
            rate in 1..1_000_000_u64,
            tries in proptest::collection::vec((0..500_u64, 0..300_000_usize), 1..50),
        ) {
            let flow = Flow::new(rate);
            #[expect(clippy::disallowed_methods, reason = "only a start to count from")]
            let start = Instant::now();
            let (mut now, mut passed, mut last) = (start, 0_u128, 0);
            for (pause, bytes) in tries {
                now += Duration::from_millis(pause);
                if flow.closed_until(now).is_none() {
                    flow.pass(now, bytes);
                    passed += bytes as u128;
                    last = bytes as u128;
                }
                // The last piece may begin as soon as those before it are paid for.
                let time = now.duration_since(start) + BURST;
                let most = u128::from(rate) * time.as_nanos() / 1_000_000_000;
                prop_assert!(passed <= most + last + 1, "{passed} {most} {last}");
            }
        }

        #[test]
        fn what_is_closed_opens_when_it_says_so(rate in 1..1_000_000_u64, bytes in 1..300_000_usize) {
            let flow = Flow::new(rate);
            #[expect(clippy::disallowed_methods, reason = "only a start to count from")]
            let start = Instant::now();
            flow.pass(start, bytes);
            if let Some(until) = flow.closed_until(start) {
                prop_assert!(until > start);
                prop_assert_eq!(flow.closed_until(until), None);
            }
        }
    }
}
