//! Bytes a second of a flow: when the next fetch may begin. Pure.

use std::time::{Duration, Instant};

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
        // Rates and sizes are far below what a double counts exactly.
        #[expect(
            clippy::cast_precision_loss,
            reason = "a microsecond does not matter here"
        )]
        let seconds = bytes as f64 / rate.max(1) as f64;
        let took = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        self.free = begin.checked_add(took).or(self.free);
        begin
    }
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
        assert_eq!(pace.book(later, u64::MAX), later);
        assert_eq!(Pace::new(None).book(now, u64::MAX), now);
    }
}
