//! Which names a destination can have, and what happens when one is taken.
//!
//! What templates make is checked here before any sink uses it: a name that a hostile server listed
//! (CVE-2019-6111 and its many relatives) must not become a way out of the destination.

use std::fmt;

use super::SinkError;
use super::event::shown;
pub(crate) use crate::settle::OURS;

/// Longest component, in bytes: what nearly every file system allows.
pub const COMPONENT_LEN_MAX: usize = 255;
/// Longest name, in bytes.
pub const NAME_LEN_MAX: usize = 4096;
/// Components in a name, at most.
pub const DEPTH_MAX: usize = 64;
/// Numbers that are tried for a name that is free.
pub const NUMBERS_MAX: u32 = 10_000;

/// What happens when a name is taken.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Exists {
    /// The item fails. The default.
    #[default]
    Error,
    /// The new file takes the place of the old one, in one instant.
    Overwrite,
    /// The new file gets a number: `name-1.ext`, `name-2.ext` and so on, the first that is free.
    Unique,
    /// The content is added to what is there.
    Append,
    /// The old file stays, and the item counts as delivered.
    Skip,
}

impl Exists {
    /// All of them with their words in configurations.
    pub const ALL: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("overwrite", Self::Overwrite),
        ("unique", Self::Unique),
        ("append", Self::Append),
        ("skip", Self::Skip),
    ];
}

/// What a destination takes for a name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Names {
    /// Unix: all bytes but `/` and zero.
    Unix,
    /// A server of which nobody knows the system: no backslash either.
    Remote,
    /// Windows: Unicode, no device, drive or stream, nothing that it would trim.
    Windows,
}

impl Names {
    /// Those of the system that this runs on.
    pub const HERE: Self = if cfg!(windows) {
        Self::Windows
    } else {
        Self::Unix
    };
}

/// Why a name is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NameFault {
    /// An empty component: nothing at all, `//`, or a slash at an end.
    Empty,
    /// `.` or `..`.
    Dots,
    /// A byte of zero, or a separator of the destination inside a component.
    Separator,
    /// A component over 255 bytes, over 64 components, or over 4096 bytes.
    TooLong,
    /// Names that begin with `.ketch-` are kept for unfinished files.
    Ours,
    /// Not possible on Windows.
    NotThere,
    /// The template wants what is not known of this item: its time of change or its SHA-256.
    Unknown,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a part of it is empty",
            Self::Dots => "a part of it leads out of the directory",
            Self::Separator => "a part of it holds a separator or a byte of zero",
            Self::TooLong => "it is too long or too deep",
            Self::Ours => "names that begin with .ketch- are kept for unfinished files",
            Self::NotThere => "the destination's system has no such name",
            Self::Unknown => "the template wants a time or a checksum that is not known",
        })
    }
}

impl std::error::Error for NameFault {}

impl NameFault {
    /// The sink's error for `name`.
    pub(crate) fn of(self, name: &[u8]) -> SinkError {
        SinkError::BadName {
            name: shown(name.get(..NAME_LEN_MAX).unwrap_or(name)),
            why: self.to_string(),
        }
    }
}

/// Accepts a name below a destination: components with one `/` between them, each of them safe.
///
/// # Errors
/// [`NameFault`]: what is wrong with it.
pub fn check(name: &[u8], names: Names) -> Result<(), NameFault> {
    if name.len() > NAME_LEN_MAX {
        return Err(NameFault::TooLong);
    }
    for (depth, component) in name.split(|&byte| byte == b'/').enumerate() {
        if depth >= DEPTH_MAX {
            return Err(NameFault::TooLong);
        }
        check_component(component, names)?;
    }
    Ok(())
}

/// Accepts one component of a name.
///
/// # Errors
/// [`NameFault`].
pub fn check_component(component: &[u8], names: Names) -> Result<(), NameFault> {
    match component {
        b"" => return Err(NameFault::Empty),
        b"." | b".." => return Err(NameFault::Dots),
        _ => {}
    }
    let separates = |byte: u8| matches!(byte, 0 | b'/') || (byte == b'\\' && names != Names::Unix);
    if component.iter().copied().any(separates) {
        return Err(NameFault::Separator);
    }
    if component.len() > COMPONENT_LEN_MAX {
        return Err(NameFault::TooLong);
    }
    if component.starts_with(OURS) {
        return Err(NameFault::Ours);
    }
    if names == Names::Windows && !is_windows_name(component) {
        return Err(NameFault::NotThere);
    }
    Ok(())
}

/// Whether Windows takes `name` for a plain file: no device, no stream, nothing it would trim.
fn is_windows_name(name: &[u8]) -> bool {
    const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim_end().to_uppercase();
    let is_numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|number| {
            let mut number = number.chars();
            matches!(
                (number.next(), number.next()),
                (Some('0'..='9' | '¹' | '²' | '³'), None)
            )
        })
    };
    !name
        .chars()
        .any(|c| c.is_control() || r#"<>:"|?*"#.contains(c))
        && !name.ends_with(['.', ' '])
        && !DEVICES.contains(&stem.as_str())
        && !is_numbered("COM")
        && !is_numbered("LPT")
}

/// The directory of a name, empty if it has none, and its last component.
#[must_use]
pub fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (
            name.get(..slash).unwrap_or_default(),
            name.get(slash + 1..).unwrap_or_default(),
        ),
        None => (b"", name),
    }
}

/// A last component without its extension, and that without its dot. A dot at the start begins no
/// extension.
#[must_use]
pub fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    let dot = name.iter().rposition(|&byte| byte == b'.');
    match dot.filter(|&at| at > 0) {
        Some(dot) => (
            name.get(..dot).unwrap_or_default(),
            name.get(dot + 1..).unwrap_or_default(),
        ),
        None => (name, b""),
    }
}

/// `dir/name.ext` for 0, `dir/name-1.ext` for 1, and so on.
#[must_use]
pub fn numbered(name: &[u8], number: u32) -> Vec<u8> {
    if number == 0 {
        return name.to_vec();
    }
    let (_, last) = split(name);
    let (base, _) = split_extension(last);
    let at = name.len() - last.len() + base.len();
    let (front, end) = name.split_at(at);
    [front, format!("-{number}").as_bytes(), end].concat()
}

/// Which number [`numbered`] was given to make `chosen` of `name`, if it did.
#[must_use]
pub fn number_of(name: &[u8], chosen: &[u8]) -> Option<u32> {
    if name == chosen {
        return Some(0);
    }
    let (_, last) = split(name);
    let (base, _) = split_extension(last);
    let front = name.len() - last.len() + base.len();
    let digits = chosen
        .get(front..chosen.len().checked_sub(name.len() - front)?)?
        .strip_prefix(b"-")?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (numbered(name, number) == chosen).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_leads_out_is_no_name() {
        for (name, fault) in [
            (&b""[..], NameFault::Empty),
            (b"/etc/passwd", NameFault::Empty),
            (b"a//b", NameFault::Empty),
            (b"a/", NameFault::Empty),
            (b"..", NameFault::Dots),
            (b"../x", NameFault::Dots),
            (b"a/../../x", NameFault::Dots),
            (b"a/.", NameFault::Dots),
            (b"a\0b", NameFault::Separator),
            (&[b'x'; 256], NameFault::TooLong),
            (&b"a/".repeat(70), NameFault::TooLong),
            (&b"aaaaaaaaa/".repeat(500), NameFault::TooLong),
            (b"a/.ketch-x", NameFault::Ours),
        ] {
            assert_eq!(check(name, Names::Unix), Err(fault), "{}", shown(name));
        }
        for name in [
            &b"a"[..],
            b"a/b c",
            b"...",
            b"\xff\xfe",
            b"C:\\x",
            b"CON",
            b"-rf",
        ] {
            assert_eq!(check(name, Names::Unix), Ok(()), "{}", shown(name));
        }
    }

    #[test]
    fn other_systems_have_fewer_names() {
        assert_eq!(check(b"a\\b", Names::Remote), Err(NameFault::Separator));
        for name in [
            &b"CON"[..],
            b"con.txt",
            b"COM1",
            b"lpt9.log",
            b"a:b",
            b"C:x",
            b"a ",
            b"a.",
            b"a?",
            b"\xff",
            b"a\x01",
            b"x/NUL",
            b"CONIN$",
        ] {
            let fault = check(name, Names::Windows);
            assert_eq!(fault, Err(NameFault::NotThere), "{}", shown(name));
        }
        for name in ["CONSOLE", "com", "a.b", "ä/ö"] {
            assert_eq!(check(name.as_bytes(), Names::Windows), Ok(()), "{name}");
        }
    }

    #[test]
    fn numbers_stand_before_the_extension() {
        for (name, number, wanted) in [
            ("in/a.csv", 0, "in/a.csv"),
            ("in/a.csv", 1, "in/a-1.csv"),
            ("a.tar.gz", 12, "a.tar-12.gz"),
            ("x.y/a", 3, "x.y/a-3"),
            (".hidden", 1, ".hidden-1"),
        ] {
            assert_eq!(numbered(name.as_bytes(), number), wanted.as_bytes());
        }
        assert_eq!(number_of(b"a.csv", b"a-01.csv"), None);
        assert_eq!(number_of(b"a.csv", b"b-1.csv"), None);
        assert_eq!(number_of(b"a.csv", b"a"), None);
    }

    proptest! {
        #[test]
        fn a_number_is_found_again(name in "[a./-]{1,12}", number in 0u32..20_000) {
            let chosen = numbered(name.as_bytes(), number);
            prop_assert_eq!(number_of(name.as_bytes(), &chosen), Some(number));
        }

        #[test]
        fn an_accepted_name_stays_below(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            for names in [Names::Unix, Names::Remote, Names::Windows] {
                if check(&name, names).is_ok() {
                    prop_assert!(!name.starts_with(b"/") && !name.contains(&0));
                    let mut parts = name.split(|&byte| byte == b'/');
                    prop_assert!(parts.all(|part| !matches!(part, b"" | b"." | b"..")));
                }
            }
        }
    }
}
