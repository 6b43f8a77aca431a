//! When a schedule is due: asked again and again by its driver, who has the clock and sleeps.
//!
//! A machine without a clock. It is asked at least every [`LOOK_MAX`], so a machine that slept, or whose
//! clock was set, is noticed: what came meanwhile is due once.

use std::time::Duration;

use jiff::Timestamp;

use super::Schedule;

/// Longest sleep before the clock is looked at again.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// A clock that was put back by more than this was wrong: then it is counted from there.
const BACK_MAX: u64 = 3_600;

/// What a driver is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    /// Look at the source.
    Due,
    /// Ask again after so long at most.
    Wait(Duration),
}

/// A schedule and where in it we are. Times are since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Clockwork {
    schedule: Schedule,
    /// In seconds; `None` if there is no time any more.
    due: Option<u64>,
    /// When it was asked last, in seconds.
    asked: u64,
    /// When all was looked at last, in seconds, as far as that is known.
    looked: Option<u64>,
}

impl Clockwork {
    /// Begins at `now`. `looked` is when the source was looked at last, before this process; a time that
    /// came since then is due at once if `catch_up` says so, and so is a source that nobody has ever
    /// looked at.
    pub(crate) fn new(schedule: Schedule, now: u64, looked: Option<u64>, catch_up: bool) -> Self {
        let due = match (catch_up, looked) {
            (true, None) => Some(now),
            (true, Some(looked)) => next(&schedule, looked.min(now)),
            (false, _) => next(&schedule, now),
        };
        Self {
            schedule,
            due,
            asked: now,
            looked,
        }
    }

    /// What is to be done at `now`.
    pub(crate) fn poll(&mut self, now: Duration) -> Turn {
        let seconds = now.as_secs();
        if seconds.saturating_add(BACK_MAX) < self.asked {
            self.due = next(&self.schedule, seconds);
        }
        self.asked = seconds;
        match self.due.map(Duration::from_secs) {
            Some(due) if due <= now => Turn::Due,
            Some(due) => Turn::Wait((due - now).min(LOOK_MAX)),
            None => Turn::Wait(LOOK_MAX),
        }
    }

    /// A look at all of the source begins at `now`: it is for all times up to then.
    pub(crate) fn looked_at(&mut self, now: u64) {
        self.looked = Some(now);
        // A clock that was put back a little does not make a time come twice.
        let from = now.max(self.asked);
        self.due = next(&self.schedule, from);
    }

    /// When all was looked at last, in seconds.
    pub(crate) const fn looked(&self) -> Option<u64> {
        self.looked
    }

    /// When it is due next, in seconds.
    pub(crate) const fn due(&self) -> Option<u64> {
        self.due
    }
}

fn next(schedule: &Schedule, after: u64) -> Option<u64> {
    let after = Timestamp::from_second(i64::try_from(after).ok()?).ok()?;
    u64::try_from(schedule.next_after(after)?.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600;

    fn hourly(now: u64, looked: Option<u64>, catch_up: bool) -> Clockwork {
        let schedule = Schedule::new("@hourly", None).expect("a schedule");
        Clockwork::new(schedule, now, looked, catch_up)
    }

    fn poll(clockwork: &mut Clockwork, now: u64) -> Turn {
        clockwork.poll(Duration::from_secs(now))
    }

    #[test]
    fn what_came_while_nobody_looked_is_made_up_for_once() {
        let now = 100 * HOUR + 10;
        assert_eq!(hourly(now, Some(97 * HOUR), true).due(), Some(98 * HOUR));
        let mut late = hourly(now, Some(97 * HOUR), true);
        assert_eq!(poll(&mut late, now), Turn::Due);
        late.looked_at(now);
        assert_eq!((late.due(), late.looked()), (Some(101 * HOUR), Some(now)));
        // Nothing came since, or it is not to be made up for.
        assert_eq!(hourly(now, Some(now - 5), true).due(), Some(101 * HOUR));
        assert_eq!(hourly(now, Some(97 * HOUR), false).due(), Some(101 * HOUR));
        assert_eq!(hourly(now, None, false).due(), Some(101 * HOUR));
        // Nobody has ever looked; and a time in the future is one of another clock.
        assert_eq!(poll(&mut hourly(now, None, true), now), Turn::Due);
        assert_eq!(hourly(now, Some(now * 2), true).due(), Some(101 * HOUR));
    }

    #[test]
    fn it_sleeps_until_it_is_due_and_looks_at_the_clock_meanwhile() {
        let mut clockwork = hourly(HOUR, Some(HOUR), true);
        assert_eq!(poll(&mut clockwork, HOUR), Turn::Wait(LOOK_MAX));
        let short = Duration::from_millis(2 * HOUR * 1_000 - 1);
        assert_eq!(clockwork.poll(short), Turn::Wait(Duration::from_millis(1)));
        assert_eq!(poll(&mut clockwork, 2 * HOUR), Turn::Due);
        assert_eq!(
            poll(&mut clockwork, 2 * HOUR),
            Turn::Due,
            "until it is done"
        );
        clockwork.looked_at(2 * HOUR);
        assert_eq!(poll(&mut clockwork, 2 * HOUR), Turn::Wait(LOOK_MAX));
    }

    #[test]
    fn a_clock_that_is_put_back_repeats_nothing_unless_it_was_wrong() {
        let mut clockwork = hourly(HOUR * 100, Some(HOUR * 100), true);
        assert_eq!(poll(&mut clockwork, 101 * HOUR), Turn::Due);
        clockwork.looked_at(101 * HOUR);
        let back = 101 * HOUR - 600;
        assert_eq!(poll(&mut clockwork, back), Turn::Wait(LOOK_MAX));
        assert_eq!(clockwork.due(), Some(102 * HOUR));
        // It was years ahead.
        assert_eq!(poll(&mut clockwork, 50 * HOUR), Turn::Wait(LOOK_MAX));
        assert_eq!(clockwork.due(), Some(51 * HOUR));
    }

    proptest! {
        #[test]
        fn each_hour_is_due_once_however_seldom_it_is_asked(
            steps in proptest::collection::vec(1_u64..4 * HOUR, 1..60)
        ) {
            let mut now = 1_000 * HOUR;
            let mut clockwork = hourly(now, Some(now), true);
            let mut last = now / HOUR;
            for step in steps {
                now += step;
                let is_due = poll(&mut clockwork, now) == Turn::Due;
                prop_assert_eq!(is_due, now / HOUR > last);
                if is_due {
                    clockwork.looked_at(now);
                    last = now / HOUR;
                }
            }
        }
    }
}
