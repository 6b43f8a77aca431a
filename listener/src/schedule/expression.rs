//! A cron expression: five fields that say at which minutes of which days something is due.
//!
//! ```text
//!   minute  hour  day of the month  month  day of the week
//!   0-59    0-23  1-31, L           1-12   0-7 (0 and 7 are Sunday)
//! ```
//!
//! A field is `*` (or `?`), a number, a range `8-17`, steps `*/15` or `8-17/2`, or a list of these with
//! commas. Months and days of the week have their names, too: `Jan`, `mon-fri`. A range may go over the
//! end: `22-5`, `Sat-Mon`. `L` is the last day of a month. If both days are said, either is enough, as
//! cron has it. Source: crontab(5); POSIX.1-2017, `crontab`.

use jiff::civil::Date;

/// Why a text is no expression.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpressionError {
    /// It has too few or too many fields.
    #[error(
        "an expression has five fields (minute, hour, day, month, day of the week), and this has {0}"
    )]
    Fields(usize),
    /// It has six: other programs have seconds in front.
    #[error(
        "an expression has five fields, and this has six; leave out that of the seconds, which is the first one"
    )]
    Seconds,
    /// One field cannot be read.
    #[error("the {field} cannot be {text:?}: {why}")]
    Field {
        /// Which one: `minute`, `hour`.
        field: &'static str,
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such nickname.
    #[error("{0:?} is none of @hourly, @daily, @weekly, @monthly, @yearly")]
    Nickname(String),
    /// There is no such day, as the 30th of February.
    #[error("there is no such day in any year")]
    Never,
}

/// A cron expression that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Expression {
    minutes: u64,
    hours: u64,
    days: u64,
    /// The last day of a month, however many it has.
    last_day: bool,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
    /// Whether the days of the month say anything.
    any_day: bool,
    /// Whether the days of the week say anything.
    any_weekday: bool,
}

/// What may stand in a field.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    /// Names of its values, from the least on.
    names: &'static [&'static str],
}

const MINUTE: Field = Field {
    name: "minute",
    least: 0,
    most: 59,
    names: &[],
};
const HOUR: Field = Field {
    name: "hour",
    least: 0,
    most: 23,
    names: &[],
};
const DAY: Field = Field {
    name: "day of the month",
    least: 1,
    most: 31,
    names: &[],
};
const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Field = Field {
    name: "day of the week",
    least: 0,
    most: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};
/// Most days of a month, in any year.
const MONTH_LENGTHS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl Expression {
    /// Reads one.
    pub(super) fn parse(text: &str) -> Result<Self, ExpressionError> {
        let text = text.trim();
        let plain = match text.to_ascii_lowercase().as_str() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other if other.starts_with('@') => {
                return Err(ExpressionError::Nickname(text.to_owned()));
            }
            _ => text,
        };
        let fields: Vec<&str> = plain.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = *fields.as_slice() else {
            return Err(match fields.len() {
                6 => ExpressionError::Seconds,
                count => ExpressionError::Fields(count),
            });
        };
        let (days, last_day) = days(day)?;
        let mut weekdays = WEEKDAY.read(weekday)?;
        if weekdays & (1 << 7) != 0 {
            weekdays = (weekdays | 1) & !(1 << 7);
        }
        let expression = Self {
            minutes: MINUTE.read(minute)?,
            hours: HOUR.read(hour)?,
            days,
            last_day,
            months: MONTH.read(month)?,
            weekdays,
            any_day: is_any(day),
            any_weekday: is_any(weekday),
        };
        if expression.comes() {
            Ok(expression)
        } else {
            Err(ExpressionError::Never)
        }
    }

    /// Whether there is any day that it names.
    fn comes(&self) -> bool {
        let first = self.days.trailing_zeros();
        let mut lengths = (1_u32..).zip(MONTH_LENGTHS);
        self.last_day
            || !self.any_weekday
            || lengths.any(|(month, length)| has(self.months, month) && first <= u32::from(length))
    }

    /// Whether a day is one of those it names.
    pub(super) fn has_day(&self, date: Date) -> bool {
        let number = |value: i8| u32::try_from(value).unwrap_or_default();
        let is_day = has(self.days, number(date.day()))
            || self.last_day && date.day() == date.days_in_month();
        let weekday = number(date.weekday().to_sunday_zero_offset());
        let is_weekday = has(self.weekdays, weekday);
        has(self.months, number(date.month()))
            && if self.any_day || self.any_weekday {
                is_day && is_weekday
            } else {
                is_day || is_weekday
            }
    }

    /// The times of such a day, hour and minute, in their order.
    pub(super) fn times(&self) -> impl Iterator<Item = (i8, i8)> + '_ {
        let hours = (0_i8..24).filter(|hour| has(self.hours, u32::from(hour.unsigned_abs())));
        hours.flat_map(|hour| {
            let minutes = (0_i8..60).filter(|at| has(self.minutes, u32::from(at.unsigned_abs())));
            minutes.map(move |minute| (hour, minute))
        })
    }

    /// Whether it is due in every hour: then an hour that comes twice has its times twice.
    pub(super) const fn is_every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }
}

/// Whether a field restricts nothing, as cron sees it: steps over all of it do not count.
fn is_any(field: &str) -> bool {
    field.starts_with(['*', '?'])
}

fn has(bits: u64, number: u32) -> bool {
    bits.checked_shr(number).is_some_and(|bits| bits & 1 == 1)
}

/// Days of the month, and whether the last one is among them.
fn days(field: &str) -> Result<(u64, bool), ExpressionError> {
    let is_last = |part: &&str| part.eq_ignore_ascii_case("l");
    let others: Vec<&str> = field.split(',').filter(|part| !is_last(part)).collect();
    let last = field.split(',').any(|part| is_last(&part));
    match others.is_empty() {
        true => Ok((0, last)),
        false => Ok((DAY.read(&others.join(","))?, last)),
    }
}

impl Field {
    fn read(&self, text: &str) -> Result<u64, ExpressionError> {
        let mut bits = 0;
        for part in text.split(',') {
            bits |= self.part(part).map_err(|why| ExpressionError::Field {
                field: self.name,
                text: text.to_owned(),
                why,
            })?;
        }
        Ok(bits)
    }

    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let by = match step.map(str::parse) {
            None => 1,
            Some(Ok(by)) if (1..=self.most).contains(&by) => by,
            Some(_) => return Err(format!("steps go from 1 to {}", self.most)),
        };
        // Sunday has two numbers, and in a walk over all there is one.
        let top = self.most - u8::from(self.name == WEEKDAY.name);
        let (from, to) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (self.least, top),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            None => {
                let from = self.value(range)?;
                let to = if step.is_some() { top.max(from) } else { from };
                (from, to)
            }
        };
        // Over the end, if it ends before it begins.
        let period = top - self.least + 1;
        let span = if from <= to {
            to - from
        } else {
            to + period - from
        };
        let mut bits = 0_u64;
        for offset in (0..=span).step_by(usize::from(by)) {
            let at = from + offset;
            let at = if from <= to || at <= top {
                at
            } else {
                at - period
            };
            bits |= 1 << at;
        }
        Ok(bits)
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        let name = text.to_ascii_lowercase();
        let named = (self.least..).zip(self.names);
        if let Some((value, _)) = named.into_iter().find(|(_, known)| **known == name) {
            return Ok(value);
        }
        let number = match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().ok(),
            false => None,
        };
        match number {
            Some(number) if (self.least..=self.most).contains(&number) => Ok(number),
            Some(_) => Err(format!("it goes from {} to {}", self.least, self.most)),
            None if self.names.is_empty() => Err(format!("{text:?} is no number")),
            None => Err(format!(
                "{text:?} is neither a number nor a name such as {}",
                self.names.get(1).copied().unwrap_or_default()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn days_of(text: &str, year: i16, month: i8) -> Vec<i8> {
        let expression = Expression::parse(text).expect("an expression");
        let first = date(year, month, 1);
        let days = (1..=first.days_in_month()).filter(|day| {
            let date = date(year, month, *day);
            expression.has_day(date)
        });
        days.collect()
    }

    fn times_of(text: &str) -> Vec<String> {
        let expression = Expression::parse(text).expect("an expression");
        let times = expression
            .times()
            .map(|(hour, minute)| format!("{hour:02}:{minute:02}"));
        times.collect()
    }

    #[test]
    fn fields_have_numbers_ranges_steps_lists_and_names() {
        assert_eq!(times_of("0 6 * * *"), ["06:00"]);
        assert_eq!(
            times_of("*/20 8-9 * * *").join(" "),
            "08:00 08:20 08:40 09:00 09:20 09:40"
        );
        assert_eq!(times_of("50/5 1 * * *").join(" "), "01:50 01:55");
        assert_eq!(
            times_of("0 22-1 * * *").join(" "),
            "00:00 01:00 22:00 23:00"
        );
        assert_eq!(times_of("5,30 12 * * *").join(" "), "12:05 12:30");
        assert_eq!(times_of("@daily"), ["00:00"]);
        // November 2026 begins on a Sunday.
        assert_eq!(days_of("0 0 * * Mon-Wed", 2026, 11)[..4], [2, 3, 4, 9]);
        assert_eq!(days_of("0 0 * * sat-mon", 2026, 11)[..4], [1, 2, 7, 8]);
        assert_eq!(days_of("0 0 * * 7", 2026, 11), [1, 8, 15, 22, 29]);
        assert_eq!(
            days_of("0 0 * * 0", 2026, 11),
            days_of("0 0 ? * Sun", 2026, 11)
        );
        assert_eq!(days_of("0 0 * * 5-7", 2026, 11)[..3], [1, 6, 7]);
        assert_eq!(days_of("0 0 L * *", 2028, 2), [29]);
        assert_eq!(days_of("0 0 1,L * *", 2026, 11), [1, 30]);
        assert_eq!(days_of("0 0 1 jan *", 2026, 11), [0_i8; 0]);
        // Either day is enough if both are said.
        assert_eq!(days_of("0 0 3 * Sun", 2026, 11), [1, 3, 8, 15, 22, 29]);
        assert_eq!(days_of("0 0 */2 * Sun", 2026, 11), [1, 15, 29]);
    }

    #[test]
    fn what_is_no_expression_is_told_with_the_field() {
        for (text, told) in [
            (
                "0 6 * *",
                "five fields (minute, hour, day, month, day of the week), and this has 4",
            ),
            ("0 0 6 * * *", "leave out that of the seconds"),
            (
                "60 6 * * *",
                "the minute cannot be \"60\": it goes from 0 to 59",
            ),
            ("0 x * * *", "the hour cannot be \"x\": \"x\" is no number"),
            (
                "0 6 0 * *",
                "the day of the month cannot be \"0\": it goes from 1 to 31",
            ),
            (
                "0 6 * * Monday",
                "the day of the week cannot be \"Monday\": \"Monday\" is neither a number nor a name such as mon",
            ),
            (
                "*/0 6 * * *",
                "the minute cannot be \"*/0\": steps go from 1 to 59",
            ),
            ("0 6 , * *", "\"\" is no number"),
            ("0 6 30 2 *", "there is no such day in any year"),
            ("0 6 31 Apr,Jun *", "there is no such day in any year"),
            ("@often", "\"@often\" is none of @hourly"),
        ] {
            let error = Expression::parse(text).expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in r"[-0-9*/,?L@a-z \t+é]{0,30}") {
            let _ = Expression::parse(&text);
        }

        #[test]
        fn a_range_with_steps_is_the_numbers_it_counts(
            from in 0_u8..60, to in 0_u8..60, by in 1_u8..60
        ) {
            let mut counted = Vec::new();
            let mut at = usize::from(from);
            let end = if to < from { usize::from(to) + 60 } else { usize::from(to) };
            while at <= end {
                counted.push(at % 60);
                at += usize::from(by);
            }
            counted.sort_unstable();
            let expression = Expression::parse(&format!("{from}-{to}/{by} 0 * * *"))?;
            let minutes: Vec<usize> =
                expression.times().map(|(_, minute)| usize::from(minute.unsigned_abs())).collect();
            prop_assert_eq!(minutes, counted);
        }
    }
}
