//! When a flow that does not run is started anew: a machine without a clock.
//!
//! The pause doubles with every failure in a row, from [`PAUSE_FIRST`] to [`PAUSE_MAX`]. A flow that ran
//! for [`CALM`] begins with the shortest again, so one that ends by the same fault at once is started
//! twelve times an hour in the end, and one that does so once a day within a second.

use std::time::{Duration, Instant};

use crate::flow::retry::pause;

/// The longest pause after a first failure.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause of all.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A flow that ran so long is well: what comes then is a first failure.
pub(super) const CALM: Duration = Duration::from_secs(600);

/// How often a flow failed in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Revival {
    failures: u32,
    up_since: Option<Instant>,
}

impl Revival {
    /// It runs.
    pub(super) fn on_start(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// It could not be started, or half of it ended: how long until it is started anew. `chance` is
    /// any number.
    pub(super) fn on_failure(&mut self, now: Instant, chance: u64) -> Duration {
        let up_since = self.up_since.take();
        if up_since.is_some_and(|since| now.saturating_duration_since(since) >= CALM) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        pause(self.failures, PAUSE_FIRST, PAUSE_MAX, chance)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a moment to count from")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_is_started_more_often_than_the_pauses_allow(
            runs in proptest::collection::vec((0_u64..1200, any::<u64>(), any::<bool>()), 1..60),
        ) {
            let mut now = Instant::now();
            let mut revival = Revival::default();
            let mut in_a_row = 0_u32;
            for (seconds, chance, starts) in runs {
                if starts {
                    revival.on_start(now);
                    now += Duration::from_secs(seconds);
                }
                let was_well = starts && Duration::from_secs(seconds) >= CALM;
                in_a_row = if was_well { 1 } else { in_a_row + 1 };
                let pause = revival.on_failure(now, chance);
                let whole = PAUSE_FIRST.saturating_mul(1 << (in_a_row - 1).min(20)).min(PAUSE_MAX);
                prop_assert!(pause >= whole / 2 && pause <= whole, "{in_a_row}: {pause:?}");
                now += pause;
            }
        }
    }

    #[test]
    fn a_failure_of_a_flow_that_never_ran_is_counted_on() {
        let now = Instant::now();
        let mut revival = Revival::default();
        for _ in 0..20 {
            revival.on_failure(now, 0);
        }
        assert_eq!(revival.on_failure(now + CALM * 2, 0), PAUSE_MAX / 2);
    }
}
