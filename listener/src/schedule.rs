//! Times of day at which a source is looked at, in a time zone: which is the next one.
//!
//! ```text
//!   "0 6 * * Mon-Fri" ── expression ──┐
//!   "Europe/Berlin" ──────────────────┴── Schedule::next_after ── clockwork ── a detector's wait
//! ```
//!
//! Where clocks are put forward, what was due in the hour that is left out is due when it ends. Where they
//! are put back, what is due at a time that comes twice is due when it comes first; only what is due in
//! every hour is due in both. So each time of a day counts once, whatever clocks do. Nothing here has a
//! clock. Source: crontab(5) and cron(8) of Debian, which do the same.

mod clockwork;
mod expression;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};

pub(crate) use clockwork::{Clockwork, Turn};
use expression::Expression;
pub use expression::ExpressionError;

/// Days that are looked through for the next time: a 29th of February is eight years away at most.
const DAYS_MAX: usize = 9 * 366;

/// When a source is looked at. Cheap to clone.
///
/// ```
/// use ketch_listener::schedule::Schedule;
///
/// let schedule = Schedule::new("0 6 * * Mon-Fri", Some("Europe/Berlin"))?;
/// let friday_noon = "2026-11-20T12:00:00Z".parse()?;
/// let monday = schedule.next_after(friday_noon).map(|at| at.to_string());
/// assert_eq!(monday.as_deref(), Some("2026-11-23T05:00:00Z"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Schedule {
    inner: Arc<Inner>,
}

struct Inner {
    text: String,
    zone_name: String,
    expression: Expression,
    zone: TimeZone,
}

/// Why there is no such schedule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The expression is none.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// There is no such time zone, here and now.
    #[error("there is no time zone {0:?}")]
    Zone(String),
}

impl Schedule {
    /// The times of the cron expression `text`, or of `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`, in the time zone `zone` (`Europe/Berlin`); `None` for UTC, `system` for that of this
    /// machine.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn new(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let expression = Expression::parse(text)?;
        let no_zone = |name: &str| ScheduleError::Zone(name.to_owned());
        let zone_name = zone.unwrap_or("UTC");
        let zone = match zone {
            None => TimeZone::UTC,
            Some("system") => TimeZone::try_system().map_err(|_| no_zone("system"))?,
            Some(name) => TimeZone::get(name).map_err(|_| no_zone(name))?,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                text: text.trim().to_owned(),
                zone_name: zone_name.to_owned(),
                expression,
                zone,
            }),
        })
    }

    /// The first time after `after`; `None` if there is none before time ends.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let mut date = self.inner.zone.to_datetime(after).date().yesterday().ok()?;
        let mut best: Option<Timestamp> = None;
        for _ in 0..DAYS_MAX {
            let found = self.first_of(date, after);
            // Clocks that go back over midnight mix two days: the one behind is looked at, too.
            if let Some(best) = best {
                return Some(found.map_or(best, |found| found.min(best)));
            }
            best = found;
            date = date.tomorrow().ok()?;
        }
        best
    }

    /// The first time after `after` that a day has.
    fn first_of(&self, date: Date, after: Timestamp) -> Option<Timestamp> {
        let Inner {
            expression, zone, ..
        } = &*self.inner;
        if !expression.has_day(date) {
            return None;
        }
        let mut best: Option<Timestamp> = None;
        for (hour, minute) in expression.times() {
            let time = Time::new(hour, minute, 0, 0).ok()?;
            for at in instants(zone, date.to_datetime(time), expression.is_every_hour()) {
                if at > after && best.is_none_or(|best| at < best) {
                    best = Some(at);
                }
            }
        }
        best
    }
}

/// When it is `at` in a time zone: once, if it comes twice and not `each` counts; and when the gap is
/// over, if it is left out.
fn instants(zone: &TimeZone, at: DateTime, each: bool) -> impl Iterator<Item = Timestamp> {
    let (first, second) = match zone.to_ambiguous_timestamp(at).offset() {
        AmbiguousOffset::Unambiguous { offset } => (offset.to_timestamp(at).ok(), None),
        AmbiguousOffset::Fold { before, after } => (
            before.to_timestamp(at).ok(),
            after.to_timestamp(at).ok().filter(|_| each),
        ),
        AmbiguousOffset::Gap { after, .. } => {
            // By the later offset it is a moment before clocks were put forward.
            let before = after.to_timestamp(at).ok();
            let end = before.and_then(|before| zone.following(before).next());
            (end.map(|end| end.timestamp()), None)
        }
    };
    first.into_iter().chain(second)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.inner.text, self.inner.zone_name)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::ToSpan as _;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// The next `count` times, as UTC has them.
    fn next(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::new(text, Some(zone)).expect("a schedule");
        let times = std::iter::successors(Some(at(after)), |at| schedule.next_after(*at));
        times.skip(1).take(count).map(|at| at.to_string()).collect()
    }

    #[test]
    fn a_time_of_day_is_that_of_its_zone_in_summer_and_winter() {
        assert_eq!(
            next("0 6 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 3),
            [
                "2026-10-24T04:00:00Z",
                "2026-10-25T05:00:00Z",
                "2026-10-26T05:00:00Z"
            ]
        );
        assert_eq!(
            next("30 12 * * *", "Asia/Kolkata", "2026-01-01T07:00:00Z", 2),
            ["2026-01-02T07:00:00Z", "2026-01-03T07:00:00Z"],
            "a time that is now is over"
        );
        assert_eq!(
            next("0 0 29 2 *", "UTC", "2097-01-01T00:00:00Z", 1),
            ["2104-02-29T00:00:00Z"]
        );
    }

    #[test]
    fn what_is_due_in_an_hour_that_is_left_out_is_due_at_its_end_once() {
        // 02:00 to 03:00 is left out on 2026-03-29.
        assert_eq!(
            next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            next("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 4),
            [
                "2026-03-29T00:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-29T02:00:00Z"
            ]
        );
        // A whole day is left out: 2011-12-30.
        assert_eq!(
            next("0 6 * * *", "Pacific/Apia", "2011-12-29T18:00:00Z", 2),
            ["2011-12-30T10:00:00Z", "2011-12-30T16:00:00Z"]
        );
    }

    #[test]
    fn what_is_due_in_an_hour_that_comes_twice_is_due_once() {
        // 02:00 to 03:00 comes twice on 2026-10-25.
        assert_eq!(
            next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            next("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3),
            [
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:30:00Z"
            ],
            "every hour is every hour"
        );
        // Clocks go back over midnight.
        assert_eq!(
            next(
                "10,50 23,0 * * *",
                "America/Havana",
                "2026-11-01T03:00:00Z",
                5
            ),
            [
                "2026-11-01T03:10:00Z",
                "2026-11-01T03:50:00Z",
                "2026-11-01T04:10:00Z",
                "2026-11-01T04:50:00Z",
                "2026-11-02T04:10:00Z"
            ]
        );
    }

    #[test]
    fn a_zone_that_is_not_there_is_told() {
        let told = Schedule::new("@daily", Some("Europe/Brelin")).expect_err("no such place");
        assert_eq!(told, ScheduleError::Zone("Europe/Brelin".to_owned()));
        assert_eq!(
            Schedule::new(" @daily", None).expect("one").to_string(),
            "@daily UTC"
        );
    }

    /// The same, by looking at every minute there is.
    fn by_every_minute(schedule: &Schedule, from: Timestamp, to: Timestamp) -> BTreeSet<Timestamp> {
        let Inner {
            expression, zone, ..
        } = &*schedule.inner;
        let times: BTreeSet<(i8, i8)> = expression.times().collect();
        let is_due = |at: DateTime| {
            times.contains(&(at.hour(), at.minute())) && expression.has_day(at.date())
        };
        let mut due = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut before: Option<DateTime> = None;
        // From a day before, to have seen what comes twice.
        let mut now = from - 24.hours();
        while now <= to {
            let civil = zone.to_datetime(now);
            // What was left out since the minute before is due now.
            let mut skipped = before.map_or(civil, |before| before + 1.minute());
            let mut is_now = false;
            while skipped < civil {
                is_now |= is_due(skipped);
                skipped += 1.minute();
            }
            let is_new = seen.insert(civil);
            is_now |= is_due(civil) && (is_new || expression.is_every_hour());
            if is_now && now > from {
                due.insert(now);
            }
            before = Some(civil);
            now += 1.minute();
        }
        due
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn it_is_what_looking_at_every_minute_finds(
            minute in prop_oneof!["[0-5]?[0-9]", Just("*/17".to_owned())],
            hour in prop_oneof!["[01]?[0-9]", Just("*".to_owned()), Just("22-3".to_owned())],
            day in prop_oneof![Just("*"), Just("L"), Just("29-1"), Just("25")],
            weekday in prop_oneof![Just("*"), Just("Sun"), Just("5-7")],
            (zone, from) in prop_oneof![
                Just(("Europe/Berlin", "2026-03-28T18:00:00Z")),
                Just(("Europe/Berlin", "2026-10-24T18:00:00Z")),
                Just(("America/Havana", "2026-10-31T18:00:00Z")),
                Just(("America/Havana", "2026-03-07T18:00:00Z")),
                Just(("Australia/Lord_Howe", "2026-04-04T06:00:00Z")),
                Just(("Australia/Lord_Howe", "2026-10-03T06:00:00Z")),
                Just(("UTC", "2026-02-27T23:00:00Z")),
            ],
        ) {
            let schedule = Schedule::new(&format!("{minute} {hour} {day} * {weekday}"), Some(zone))?;
            let (from, to) = (at(from), at(from) + 60.hours());
            let times = std::iter::successors(schedule.next_after(from), |at| schedule.next_after(*at));
            let found: BTreeSet<_> = times.take_while(|at| *at <= to).collect();
            prop_assert_eq!(found, by_every_minute(&schedule, from, to));
        }
    }
}
