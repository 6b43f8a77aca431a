//! Names of files made from templates: with date, time, a number, or what nobody else has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::{Failure, Kind};

/// Longest template, in bytes.
const TEMPLATE_LEN_MAX: usize = 1024;

/// A name with gaps, which are filled when a file is created.
///
/// | written | stands for |
/// | --- | --- |
/// | `$BASE` | the name that was given, without its extension |
/// | `$EXTENSION` | the extension, without its dot; nothing if there is none |
/// | `$DATE` | the date in UTC as `MMDDYYYY` |
/// | `$TIME` | the time in UTC as `HHMMSS.SSS` |
/// | `$UUID` | a random UUID (RFC 9562 §5.4), another one for each name |
/// | `$NUMBER` | how often a name was tried, from 1 on |
/// | `$$` | a `$` |
///
/// ```
/// use ketch_client::operations::NameTemplate;
///
/// let template = NameTemplate::new("$BASE-$DATE-$UUID.$EXTENSION")?;
/// # Ok::<(), ketch_client::operations::TemplateError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NameTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(Vec<u8>),
    Base,
    Extension,
    Date,
    Time,
    Uuid,
    Number,
}

/// The gaps by their names.
const GAPS: [(&str, Part); 6] = [
    ("BASE", Part::Base),
    ("EXTENSION", Part::Extension),
    ("DATE", Part::Date),
    ("TIME", Part::Time),
    ("UUID", Part::Uuid),
    ("NUMBER", Part::Number),
];

/// Why a template is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A `$` with something behind it that is no gap.
    #[error("a $ stands before none of BASE, EXTENSION, DATE, TIME, UUID, NUMBER and $")]
    Unknown,
    /// It holds a slash or a zero, which no name does.
    #[error("a name holds neither / nor a byte of zero")]
    NoName,
    /// It is empty.
    #[error("a template is not to be empty")]
    Empty,
    /// It is longer than 1 KiB.
    #[error("a template has at most {TEMPLATE_LEN_MAX} bytes")]
    TooLong,
}

impl Failure for TemplateError {
    fn kind(&self) -> Kind {
        Kind::Local
    }
}

/// What the gaps are filled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling<'a> {
    /// The name that was given.
    pub name: &'a [u8],
    /// Time since 1970.
    pub now: Duration,
    /// From 1 on.
    pub number: u32,
}

impl NameTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn new(template: impl AsRef<[u8]>) -> Result<Self, TemplateError> {
        let mut rest = template.as_ref();
        if rest.is_empty() {
            return Err(TemplateError::Empty);
        }
        if rest.len() > TEMPLATE_LEN_MAX {
            return Err(TemplateError::TooLong);
        }
        if rest.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(TemplateError::NoName);
        }
        let mut parts = Vec::new();
        while let Some(dollar) = rest.iter().position(|&byte| byte == b'$') {
            let (text, gap) = rest.split_at(dollar);
            parts.push(Part::Text(text.to_vec()));
            let gap = gap.get(1..).unwrap_or_default();
            if let Some(after) = gap.strip_prefix(b"$") {
                parts.push(Part::Text(b"$".to_vec()));
                rest = after;
                continue;
            }
            let found = GAPS
                .iter()
                .find_map(|(name, part)| Some((part, gap.strip_prefix(name.as_bytes())?)));
            let (part, after) = found.ok_or(TemplateError::Unknown)?;
            parts.push(part.clone());
            rest = after;
        }
        parts.push(Part::Text(rest.to_vec()));
        Ok(Self { parts })
    }

    /// Whether another try gives another name.
    pub(super) fn varies(&self) -> bool {
        let varies = |part: &Part| matches!(part, Part::Time | Part::Uuid | Part::Number);
        self.parts.iter().any(varies)
    }

    /// The name.
    pub(super) fn fill(&self, with: Filling<'_>) -> Vec<u8> {
        let (base, extension) = split(with.name);
        let mut name = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.extend_from_slice(text),
                Part::Base => name.extend_from_slice(base),
                Part::Extension => {
                    name.extend_from_slice(extension.strip_prefix(b".").unwrap_or(extension));
                }
                Part::Date => name.extend_from_slice(date(with.now).as_bytes()),
                Part::Time => name.extend_from_slice(time(with.now).as_bytes()),
                Part::Uuid => name.extend_from_slice(uuid().as_bytes()),
                Part::Number => name.extend_from_slice(with.number.to_string().as_bytes()),
            }
        }
        name
    }
}

/// A name without its extension, and that, its dot included.
pub(super) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    // A dot at the start begins no extension.
    let dot = name.iter().rposition(|&byte| byte == b'.');
    name.split_at(dot.filter(|&at| at > 0).unwrap_or(name.len()))
}

/// Time since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the time is asked for by the name of a file"
)]
pub(super) fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// The date in UTC, as `MMDDYYYY`.
fn date(now: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // Counted from the first of March of a year that 400 divides, leap days come last.
    const DAYS_FROM_YEAR_0: u64 = 719_468;
    let days = now.as_secs() / DAY + DAYS_FROM_YEAR_0;
    let (eras, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = eras * 400 + year + carry;
    format!("{month:02}{day:02}{year:04}")
}

/// The time in UTC, as `HHMMSS.SSS`.
fn time(now: Duration) -> String {
    let (seconds, millis) = (now.as_secs(), now.subsec_millis());
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    format!("{hours:02}{minutes:02}{seconds:02}.{millis:03}")
}

/// A random UUID (RFC 9562 §5.4).
fn uuid() -> String {
    let mut bytes = [0; 16];
    // A system without random numbers has no connection either.
    let _ = SystemRandom::new().fill(&mut bytes);
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xF << 76) | 4 << 76; // the version
    let number = number & !(0b11 << 62) | 0b10 << 62; // the variant
    let digits = format!("{number:032x}");
    let (a, rest) = digits.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, name: &str, seconds: u64, number: u32) -> String {
        let filling = Filling {
            name: name.as_bytes(),
            now: Duration::from_millis(seconds * 1000 + 7),
            number,
        };
        let name = NameTemplate::new(template).unwrap().fill(filling);
        String::from_utf8(name).unwrap()
    }

    #[test]
    fn gaps_are_filled() {
        for (template, name, wanted) in [
            ("$BASE.$EXTENSION", "order.xml", "order.xml"),
            ("$BASE-$NUMBER.$EXTENSION", "a.tar.gz", "a.tar-3.gz"),
            ("$BASE$$$EXTENSION", ".hidden", ".hidden$"),
            ("in-$DATE-$TIME", "x", "in-11212026-173542.007"),
            ("plain", "x", "plain"),
        ] {
            assert_eq!(
                filled(template, name, 1_795_282_542, 3),
                wanted,
                "{template}"
            );
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, wanted) in [
            (0, "01011970"),
            (951_782_400, "02292000"),
            (951_868_800, "03012000"),
            (1_709_164_800, "02292024"),
            (1_735_603_200, "12312024"),
            (1_735_689_600, "01012025"),
            (4_107_542_400, "03012100"),
            (253_402_300_799, "12319999"),
        ] {
            assert_eq!(filled("$DATE", "x", seconds, 1), wanted);
        }
        assert_eq!(filled("$TIME", "x", 86_399, 1), "235959.007");
    }

    #[test]
    fn uuids_have_their_form_and_are_not_the_same() {
        let (first, second) = (uuid(), uuid());
        assert_ne!(first, second);
        let dashes = first.bytes().filter(|&byte| byte == b'-').count();
        assert_eq!((first.len(), dashes), (36, 4));
        assert_eq!(first.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&first.as_bytes()[19]));
    }

    #[test]
    fn what_is_no_template_is_said() {
        for (template, error) in [
            ("", TemplateError::Empty),
            ("$", TemplateError::Unknown),
            ("$NAME", TemplateError::Unknown),
            ("a/b", TemplateError::NoName),
            ("a\0", TemplateError::NoName),
        ] {
            assert_eq!(NameTemplate::new(template), Err(error));
        }
        let long = [b'a'; TEMPLATE_LEN_MAX + 1];
        assert_eq!(NameTemplate::new(long), Err(TemplateError::TooLong));
        assert!(!NameTemplate::new("$BASE.$DATE").unwrap().varies());
        assert!(NameTemplate::new("$NUMBER").unwrap().varies());
    }
}
