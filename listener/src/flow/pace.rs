//! Bytes a second of a flow: when the next fetch may begin. Pure.

use std::time::{Duration, Instant};

/// What is booked for one file at most: some hundred years.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// A limit on bytes a second, paid after each fetch.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u64>,
    free: Option<Instant>,
}

impl Pace {
    pub(super) const fn new(rate: Option<u64>) -> Self {
        Self { rate, free: None }
    }

    /// Counts `bytes` that are fetched from `now` on, and says when they may begin.
    pub(super) fn book(&mut self, now: Instant, bytes: u64) -> Instant {
        let Some(rate) = self.rate else { return now };
        let begin = self.free.map_or(now, |free| free.max(now));
        let took = taking(bytes, rate);
        self.free = begin.checked_add(took).or(self.free);
        begin
    }

    /// Gives back `bytes` that were booked and not fetched.
    pub(super) fn unbook(&mut self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        if let Some(free) = &mut self.free {
            *free = free.checked_sub(taking(bytes, rate)).unwrap_or(*free);
        }
    }
}

/// How long `bytes` take; no longer than can be waited for, whatever size a server tells.
#[expect(
    clippy::cast_precision_loss,
    reason = "a microsecond does not matter here"
)]
fn taking(bytes: u64, rate: u64) -> Duration {
    let seconds = bytes as f64 / rate.max(1) as f64;
    Duration::try_from_secs_f64(seconds).map_or(LONGEST, |took| took.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test has a clock")]
    fn bytes_take_their_time() {
        let now = Instant::now();
        let mut pace = Pace::new(Some(1_000));
        assert_eq!(pace.book(now, 500), now);
        assert_eq!(pace.book(now, 1), now + Duration::from_millis(500));
        let later = now + Duration::from_secs(9);
        assert_eq!(pace.book(later, 1 << 62), later);
        // It was not fetched.
        pace.unbook(1 << 62);
        assert_eq!(pace.book(later, 1), later);
        assert_eq!(Pace::new(None).book(now, u64::MAX), now);
    }
}
