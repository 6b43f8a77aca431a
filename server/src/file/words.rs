//! Values that are written as text and mean something: a time, a size, a network, a key.
//!
//! Each has a name that its schema carries as `format`, so that what does not fit is found by the
//! walk along the schema, with its place, and not only by the first type that refuses it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use ketch_keys::PublicKey;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::login::credentials::Source;
use crate::login::password_hash::PasswordHash;
use crate::policy::arrivals::Arrivals;
use crate::policy::{Rights, Rules};

/// A value that is written as text.
pub(super) trait Word: Sized {
    /// Its name in the schema.
    const FORMAT: &'static str;
    /// Whether it may also be written as a whole number.
    const NUMBER: bool = false;

    /// What a text means, or what is wrong with it.
    fn read(text: &str) -> Result<Self, String>;
}

/// What is wrong with a text, by the name of its format; nothing for names that are not ours.
pub(super) fn check(format: &str, text: &str) -> Result<(), String> {
    type Check = fn(&str) -> Result<(), String>;
    let checks: [(&str, Check); 9] = [
        (Address::FORMAT, |text| Address::read(text).map(drop)),
        (Period::FORMAT, |text| Period::read(text).map(drop)),
        (Size::FORMAT, |text| Size::read(text).map(drop)),
        (Network::FORMAT, |text| Network::read(text).map(drop)),
        (KeyLine::FORMAT, |text| KeyLine::read(text).map(drop)),
        (Hash::FORMAT, |text| Hash::read(text).map(drop)),
        (Moment::FORMAT, |text| Moment::read(text).map(drop)),
        (PathGlob::FORMAT, |text| PathGlob::read(text).map(drop)),
        (NameGlob::FORMAT, |text| NameGlob::read(text).map(drop)),
    ];
    match checks.iter().find(|(name, _)| *name == format) {
        Some((_, check)) => check(text),
        None => Ok(()),
    }
}

/// Makes a [`Word`] of the JSON string that it stands in.
macro_rules! word {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(from)?;
                <$type as Word>::read(&text).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                <$type as Word>::FORMAT.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let format = <$type as Word>::FORMAT;
                match <$type as Word>::NUMBER {
                    true => json_schema!({ "type": ["string", "integer"], "format": format }),
                    false => json_schema!({ "type": "string", "format": format }),
                }
            }
        }
    };
}

/// An address and a port, `192.0.2.1:22` or `[2001:db8::1]:22`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address(pub(super) SocketAddr);
word!(Address);

impl Word for Address {
    const FORMAT: &'static str = "address-and-port";

    fn read(text: &str) -> Result<Self, String> {
        let wrong = "this is no address with a port, such as \"0.0.0.0:22\" or \"[::]:22\"";
        text.parse().map(Self).map_err(|_| wrong.to_owned())
    }
}

/// A time, `15min` or `1h 30min`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period(pub(super) Duration);
word!(Period);

impl Word for Period {
    const FORMAT: &'static str = "period";

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || "this is no time, such as \"90s\", \"15min\" or \"1h 30min\"".to_owned();
        let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        signed.try_into().map(Self).map_err(|_| wrong())
    }
}

/// Bytes, `500 MB` or `10 GiB`, or as a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) u64);
word!(Size);

impl Word for Size {
    const FORMAT: &'static str = "size";
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

/// An address or a network, `192.0.2.0/24`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network(pub(super) Source);
word!(Network);

impl Word for Network {
    const FORMAT: &'static str = "network";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error: crate::BadSource| error.to_string())
    }
}

/// A public key as it stands in `authorized_keys` and in files that end in `.pub`, without options.
#[derive(Clone, Debug)]
pub(super) struct KeyLine(pub(super) PublicKey);
word!(KeyLine);

impl Word for KeyLine {
    const FORMAT: &'static str = "public-key";

    fn read(text: &str) -> Result<Self, String> {
        let key = PublicKey::from_line(text).map_err(|error| error.to_string())?;
        match key.certificate() {
            Some(_) => Err("this is a certificate: a key is wanted".to_owned()),
            None => Ok(Self(key)),
        }
    }
}

/// A password's hash, `$argon2id$v=19$…`.
#[derive(Clone, Debug)]
pub(super) struct Hash(pub(super) PasswordHash);
word!(Hash);

impl Word for Hash {
    const FORMAT: &'static str = "argon2id-hash";

    fn read(text: &str) -> Result<Self, String> {
        let hash = text.parse::<PasswordHash>();
        hash.map(Self)
            .map_err(|error| format!("{error}; `ketch serve hash-password` makes one"))
    }
}

/// A moment, `2027-01-31T18:00:00Z`, with the offset from UTC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Seconds since 1970.
    pub(super) unix: u64,
}
word!(Moment);

impl Word for Moment {
    const FORMAT: &'static str = "date-time";

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || "this is no date and time with an offset, such as 2027-01-31T18:00:00Z";
        let moment: jiff::Timestamp = text.parse().map_err(|_| wrong().to_owned())?;
        let unix = u64::try_from(moment.as_second());
        unix.map(|unix| Self { unix })
            .map_err(|_| "this is before 1970".to_owned())
    }
}

/// A pattern for paths, `/in/**/*.csv`.
#[derive(Clone, Debug)]
pub(super) struct PathGlob(pub(super) String);
word!(PathGlob);

impl Word for PathGlob {
    const FORMAT: &'static str = "path-pattern";

    fn read(text: &str) -> Result<Self, String> {
        let rules = Rules::new(Rights::NONE).rule(text, Rights::NONE);
        rules
            .map(|_| Self(text.to_owned()))
            .map_err(|error| error.to_string())
    }
}

/// A pattern for names, `*.part`.
#[derive(Clone, Debug)]
pub(super) struct NameGlob(pub(super) String);
word!(NameGlob);

impl Word for NameGlob {
    const FORMAT: &'static str = "name-pattern";

    fn read(text: &str) -> Result<Self, String> {
        let arrivals = Arrivals::on_close().temporary_name(text);
        arrivals
            .map(|_| Self(text.to_owned()))
            .map_err(|error| error.to_string())
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
