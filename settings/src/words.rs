//! Values that are written as text and mean something: a time, a size, an address.
//!
//! Each has a name that its schema carries as `format`, so that what does not fit is found by the
//! walk along the schema, with its place, and not only by the first type that refuses it.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::{Schema, json_schema};

/// A value that is written as text.
pub trait Word: Sized {
    /// Its name in the schema.
    const FORMAT: &'static str;
    /// How a page shows what is to be written: Markdown.
    const SHOWN: &'static str;
    /// Whether it may also be written as a whole number.
    const NUMBER: bool = false;

    /// What a text means.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    fn read(text: &str) -> Result<Self, String>;
}

/// A type of [`Word`], for the walk along a schema that has it.
#[derive(Clone, Copy, Debug)]
pub struct WordKind {
    format: &'static str,
    shown: &'static str,
    check: fn(&str) -> Result<(), String>,
}

impl WordKind {
    /// The kind of `W`.
    #[must_use]
    pub const fn of<W: Word>() -> Self {
        Self {
            format: W::FORMAT,
            shown: W::SHOWN,
            check: |text| W::read(text).map(drop),
        }
    }

    pub(crate) const fn format(&self) -> &'static str {
        self.format
    }

    pub(crate) const fn shown(&self) -> &'static str {
        self.shown
    }

    pub(crate) fn check(&self, text: &str) -> Result<(), String> {
        (self.check)(text)
    }
}

/// Makes a [`Word`] of the string that it stands in, and gives it its schema.
#[macro_export]
macro_rules! word {
    ($type:ty) => {
        impl<'de> $crate::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                use $crate::serde::de::Error as _;
                let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
                <Self as $crate::Word>::read(&text).map_err(D::Error::custom)
            }
        }

        impl $crate::schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                <Self as $crate::Word>::FORMAT.into()
            }

            fn json_schema(_: &mut $crate::schemars::SchemaGenerator) -> $crate::schemars::Schema {
                $crate::words::schema_of::<Self>()
            }
        }
    };
}

/// The schema of a word.
#[must_use]
pub fn schema_of<W: Word>() -> Schema {
    match W::NUMBER {
        true => json_schema!({ "type": ["string", "integer"], "format": W::FORMAT }),
        false => json_schema!({ "type": "string", "format": W::FORMAT }),
    }
}

/// An address and a port, `192.0.2.1:22` or `[2001:db8::1]:22`.
#[derive(Clone, Copy, Debug)]
pub struct Address(
    /// It.
    pub SocketAddr,
);
word!(Address);

impl Word for Address {
    const FORMAT: &'static str = "address-and-port";
    const SHOWN: &'static str = "`\"0.0.0.0:22\"`";

    fn read(text: &str) -> Result<Self, String> {
        let wrong = "this is no address with a port, such as \"0.0.0.0:22\" or \"[::]:22\"";
        text.parse().map(Self).map_err(|_| wrong.to_owned())
    }
}

/// A time, `15min` or `1h 30min`.
#[derive(Clone, Copy, Debug)]
pub struct Period(
    /// It.
    pub Duration,
);
word!(Period);

impl Word for Period {
    const FORMAT: &'static str = "period";
    const SHOWN: &'static str = "a time, `\"15min\"`";

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || "this is no time, such as \"90s\", \"15min\" or \"1h 30min\"".to_owned();
        let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        signed.try_into().map(Self).map_err(|_| wrong())
    }
}

/// Bytes, `500 MB` or `10 GiB`, or as a number.
#[derive(Clone, Copy, Debug)]
pub struct Size(
    /// How many.
    pub u64,
);
word!(Size);

impl Word for Size {
    const FORMAT: &'static str = "size";
    const SHOWN: &'static str = "bytes, `\"10 GiB\"`";
    const NUMBER: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 10] = [
            ("", 1),
            ("B", 1),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
        ];
        let wrong = || "this is no number of bytes, such as \"500 MB\" or \"10 GiB\"".to_owned();
        let end = text.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let is_it = |(name, _): &&(&str, u64)| *name == unit.trim();
        let (_, factor) = UNITS.iter().find(is_it).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(*factor).map(Self).ok_or_else(wrong)
    }
}

/// A moment, `2027-01-31T18:00:00Z`, with the offset from UTC.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Seconds since 1970.
    pub unix: u64,
}
word!(Moment);

impl Word for Moment {
    const FORMAT: &'static str = "date-time";
    const SHOWN: &'static str = "`2027-01-31T18:00:00Z`";

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || "this is no date and time with an offset, such as 2027-01-31T18:00:00Z";
        let moment: jiff::Timestamp = text.parse().map_err(|_| wrong().to_owned())?;
        let unix = u64::try_from(moment.as_second());
        unix.map(|unix| Self { unix })
            .map_err(|_| "this is before 1970".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_moments_are_read_as_people_write_them() {
        let period = |text| Period::read(text).map(|period| period.0.as_millis()).ok();
        for (text, ms) in [
            ("90s", 90_000),
            ("15min", 900_000),
            ("1h 30min", 5_400_000),
            ("250ms", 250),
        ] {
            assert_eq!(period(text), Some(ms), "{text}");
        }
        for wrong in ["", "15", "-5s", "soon", "5 parsecs"] {
            assert_eq!(period(wrong), None, "{wrong}");
        }
        let size = |text| Size::read(text).map(|size| size.0).ok();
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("500 MB", 500_000_000),
            ("10GiB", 10 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for wrong in ["", "GiB", "-1", "1.5 GiB", "10 gib", "99999999 TiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        let moment = |text| Moment::read(text).map(|moment| moment.unix).ok();
        assert_eq!(moment("2027-01-31T18:00:00Z"), Some(1_801_418_400));
        assert_eq!(moment("2027-01-31T19:00:00+01:00"), Some(1_801_418_400));
        for wrong in ["2027-01-31", "2027-01-31T18:00:00", "1969-01-01T00:00:00Z"] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }
}
