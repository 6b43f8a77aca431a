//! Names that a server lists, before they become local ones; names of files that are not whole.
//!
//! A listing is what the server says (CVE-2019-6111 and its many relatives): a name becomes part
//! of a local path only if it is one single component on every platform ketch runs on.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
};

use ring::digest;

/// Longest name of a file, in bytes: what nearly every file system allows.
pub(crate) const NAME_LEN_MAX: usize = 255;
/// Temporary names that a source has for its own; what is tried after them is left to chance.
pub(crate) const NAMES_FIXED: u8 = 2;

/// What stands beside something whose place it will take, in place of a try.
pub(crate) const ATTEMPT_BESIDE: u64 = u64::MAX / 2;

/// A try at a name that is left to chance.
pub(crate) const ATTEMPT_BY_CHANCE: u8 = NAMES_FIXED;

/// Why a listed name is not used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NameFault {
    /// No name at all.
    Empty,
    /// `.` or `..`: not a file of this directory.
    Dots,
    /// A `/`, a `\`, or a byte of zero: more than one component, on some platform.
    Separator,
    /// Longer than 255 bytes.
    TooLong,
    /// This platform has no such name: a device, a drive, a stream, or not Unicode.
    NotHere,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it has no name",
            Self::Dots => "its name leads out of the directory",
            Self::Separator => "its name holds a separator",
            Self::TooLong => "its name is too long",
            Self::NotHere => "its name is not possible on this platform",
        })
    }
}

/// Accepts a listed name as one component of a local path.
///
/// # Errors
/// What is wrong with it. `.` and `..`, which every listing holds, are `Dots`.
pub(crate) fn check(name: &[u8]) -> Result<(), NameFault> {
    match name {
        b"" => return Err(NameFault::Empty),
        b"." | b".." => return Err(NameFault::Dots),
        _ => {}
    }
    if name.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0)) {
        return Err(NameFault::Separator);
    }
    if name.len() > NAME_LEN_MAX {
        return Err(NameFault::TooLong);
    }
    if !cfg!(unix) && !is_windows_name(name) {
        return Err(NameFault::NotHere);
    }
    Ok(())
}

/// As much of a listed name as is kept to be shown: nothing says that it is any shorter than a packet.
pub(crate) fn clipped(name: &[u8]) -> &[u8] {
    name.get(..NAME_LEN_MAX).unwrap_or(name)
}

/// Whether Windows takes `name` for a plain file: no device, no stream, nothing it would trim.
fn is_windows_name(name: &[u8]) -> bool {
    const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|n| {
            let mut n = n.chars();
            matches!(
                (n.next(), n.next()),
                (Some('0'..='9' | '¹' | '²' | '³'), None)
            )
        })
    };
    !name
        .chars()
        .any(|c| c.is_control() || r#"<>:"|?*"#.contains(c))
        && !name.ends_with(['.', ' '])
        && !DEVICES.contains(&stem.as_str())
        && !numbered("COM")
        && !numbered("LPT")
}

/// What tells one source from another, or from a later version of itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Identity {
    /// Bytes of the source, where known.
    pub size: Option<u64>,
    /// When it was last changed, in seconds since 1970, where known.
    pub modified: Option<u64>,
}

/// What tells the temporary name of the try `tries` (counted from zero) from those before it.
///
/// The first names are always the same; where these are taken, by what was left when ketch was
/// killed or by others at the same work, chance finds one that is not.
pub(crate) fn attempt(tries: u8) -> u64 {
    if tries < NAMES_FIXED {
        u64::from(tries)
    } else {
        RandomState::new().hash_one(tries)
    }
}

/// As [`attempt`], for a file that is to be continued if its transfer fails: whoever transfers
/// files for good does not come near these names.
pub(crate) fn attempt_at_part(tries: u8) -> u64 {
    if has_part_name(tries) {
        u64::MAX - u64::from(tries)
    } else {
        attempt(tries)
    }
}

/// Whether the name of this try is one under which a part is found again.
pub(crate) const fn has_part_name(tries: u8) -> bool {
    tries < NAMES_FIXED
}

/// What stands before the digits of a temporary name, and how many these are.
const MARK: &[u8] = b".ketch-";
const DIGITS: usize = 16;
/// The longest stem: what stands before the mark, without the dot.
const STEM_LEN_MAX: usize = NAME_LEN_MAX - 1 - MARK.len() - DIGITS;
/// What a stem that was cut ends with: `~` and a hash of the whole name, in so many digits.
const TAG_DIGITS: usize = 8;
const TAG_LEN: usize = 1 + TAG_DIGITS;

/// The stem of a temporary name: the name of its file, or, if that is long, its beginning with a
/// hash of it, so that no two files have one stem. `None` for names that are not ours.
pub(crate) fn of_temporary(name: &[u8]) -> Option<&[u8]> {
    let rest = name.strip_prefix(b".")?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let name = rest.strip_suffix(MARK)?;
    (!name.is_empty() && digits.iter().all(is_digit)).then_some(name)
}

/// What the name of the file begins with that a stem was made of.
pub(crate) fn beginning_of(stem: &[u8]) -> &[u8] {
    // Of a name in Unicode up to three bytes more were cut.
    let is_cut = stem.len() + 3 >= STEM_LEN_MAX;
    let tag = if is_cut { TAG_LEN } else { 0 };
    stem.get(..stem.len().saturating_sub(tag)).unwrap_or(stem)
}

/// The name under which `name` is kept until it is whole: `.NAME.ketch-` and 16 hex digits.
///
/// The digits are a hash of destination and source: the same source finds its part again,
/// another does not. `attempt` is an [`attempt`] at a name that is free.
pub(crate) fn temporary(
    destination: &[u8],
    name: &[u8],
    source: Identity,
    attempt: u64,
) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&(destination.len() as u64).to_be_bytes());
    hash.update(destination);
    for part in [source.size, source.modified] {
        hash.update(&[u8::from(part.is_some())]);
        hash.update(&part.unwrap_or(0).to_be_bytes());
    }
    hash.update(&attempt.to_be_bytes());
    let hash = hash.finish();

    let mut temporary = Vec::with_capacity(NAME_LEN_MAX);
    temporary.push(b'.');
    if name.len() <= STEM_LEN_MAX {
        temporary.extend_from_slice(name);
    } else {
        let keep = STEM_LEN_MAX - TAG_LEN;
        // A name that is Unicode stays Unicode when it is cut.
        let keep = std::str::from_utf8(name).map_or(keep, |text| text.floor_char_boundary(keep));
        temporary.extend_from_slice(name.get(..keep).unwrap_or(name));
        temporary.push(b'~');
        let whole = digest::digest(&digest::SHA256, name);
        push_digits(&mut temporary, whole.as_ref(), TAG_DIGITS);
    }
    temporary.extend_from_slice(MARK);
    push_digits(&mut temporary, hash.as_ref(), DIGITS);
    temporary
}

fn push_digits(name: &mut Vec<u8>, hash: &[u8], digits: usize) {
    for byte in hash.iter().take(digits / 2) {
        for digit in [byte >> 4, byte & 15] {
            name.push(if digit < 10 {
                b'0' + digit
            } else {
                b'a' + digit - 10
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let evil: [(&[u8], NameFault); 12] = [
            (b"", NameFault::Empty),
            (b".", NameFault::Dots),
            (b"..", NameFault::Dots),
            (b"/etc/passwd", NameFault::Separator),
            (b"../x", NameFault::Separator),
            (b"a/b", NameFault::Separator),
            (b"a/", NameFault::Separator),
            (b"a\0b", NameFault::Separator),
            (br"..\x", NameFault::Separator),
            (br"C:\x", NameFault::Separator),
            (br"\\host\share", NameFault::Separator),
            (&[b'x'; 256], NameFault::TooLong),
        ];
        for (name, fault) in evil {
            assert_eq!(check(name), Err(fault), "{name:?}");
        }
        for name in [
            &b"a"[..],
            b"...",
            b".hidden",
            b"a b",
            b"\xff\xfe",
            b"-rf",
            b"..a",
        ] {
            if cfg!(unix) {
                assert_eq!(check(name), Ok(()), "{name:?}");
            }
        }
    }

    #[test]
    fn the_last_tries_for_a_name_are_never_all_taken() {
        for tries in 0..NAMES_FIXED {
            assert_eq!(attempt(tries), attempt(tries), "found again");
        }
        assert_ne!(attempt(NAMES_FIXED), attempt(NAMES_FIXED));
    }

    #[test]
    fn devices_and_streams_of_windows_are_told_apart() {
        for name in [
            "CON", "con.txt", "nul", "COM1", "lpt9.log", "a:b", "C:", "x.", "x ", "a\tb", "COM²",
        ] {
            assert!(!is_windows_name(name.as_bytes()), "{name}");
        }
        for name in ["console", "COM10", "common", "a.b.c", "LPTX"] {
            assert!(is_windows_name(name.as_bytes()), "{name}");
        }
        assert!(!is_windows_name(b"\xff"));
    }

    proptest! {
        #[test]
        fn a_temporary_name_is_a_possible_name_and_its_own(
            name in proptest::collection::vec(1..=255_u8, 1..=255), size in any::<u64>(), attempt in any::<u64>(),
        ) {
            prop_assume!(check(&name).is_ok());
            let source = Identity { size: Some(size), modified: Some(7) };
            let first = temporary(b"/in/x", &name, source, attempt);
            prop_assert_eq!(check(&first), Ok(()));
            prop_assert_eq!(&first, &temporary(b"/in/x", &name, source, attempt));
            let other = Identity { size: Some(size ^ 1), ..source };
            prop_assert_ne!(&first, &temporary(b"/in/x", &name, other, attempt));
            prop_assert_ne!(&first, &temporary(b"/in/y", &name, source, attempt));
            prop_assert_ne!(&first, &temporary(b"/in/x", &name, source, attempt ^ 1));
            let stem = of_temporary(&first).unwrap_or_default();
            prop_assert!(name.starts_with(beginning_of(stem)) && !beginning_of(stem).is_empty());
        }

        #[test]
        fn two_long_names_with_one_beginning_have_two_stems(
            a in "[a-z]{1,15}", b in "[a-z]{1,15}", source in any::<u64>(),
        ) {
            let stem = |end: &str, size| {
                let name = format!("{}{end}", "ä".repeat(120));
                let source = Identity { size, modified: None };
                let temporary = temporary(b"x", name.as_bytes(), source, 0);
                of_temporary(&temporary).unwrap_or_default().to_vec()
            };
            prop_assert_eq!(stem(&a, None), stem(&a, Some(source)));
            prop_assert_eq!(stem(&a, None) == stem(&b, Some(source)), a == b);
        }

        #[test]
        fn a_name_in_unicode_stays_unicode(name in "[äöü€a]{1,85}") {
            let cut = temporary(b"x", name.as_bytes(), Identity::default(), 0);
            prop_assert!(String::from_utf8(cut).is_ok());
        }
    }
}
