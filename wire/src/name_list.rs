//! Comma-separated lists of names (RFC 4251 §5 and §6), the form in which algorithms are offered.

use crate::DecodeError;

/// Longest name-list that is read, in bytes.
pub const NAME_LIST_LEN_MAX: usize = 16 * 1024;
/// Most names in a list that is read.
pub const NAMES_MAX: usize = 256;
/// Longest name in a list that is read, in bytes (RFC 4251 §6).
pub const NAME_LEN_MAX: usize = 64;

/// A list of names, checked to be within the bounds and made of printable US-ASCII.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NameList<'a> {
    joined: &'a str,
}

impl<'a> NameList<'a> {
    /// The list without names.
    pub const EMPTY: Self = Self { joined: "" };

    /// Takes names that are already joined by commas.
    ///
    /// # Errors
    /// [`DecodeError::BadName`] if one of them is no name, or there are too many.
    pub fn new(joined: &'a str) -> Result<Self, DecodeError> {
        Self::from_wire(joined.as_bytes())
    }

    /// Takes the content of a `name-list` field.
    pub(crate) fn from_wire(content: &'a [u8]) -> Result<Self, DecodeError> {
        let joined = std::str::from_utf8(content).map_err(|_| DecodeError::BadName)?;
        if content.len() > NAME_LIST_LEN_MAX {
            return Err(DecodeError::TooLong {
                len: content.len(),
                max: NAME_LIST_LEN_MAX,
            });
        }
        let list = Self { joined };
        let is_name = |name: &str| {
            (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
        };
        if list.iter().take(NAMES_MAX.saturating_add(1)).count() > NAMES_MAX
            || !list.iter().all(is_name)
        {
            return Err(DecodeError::BadName);
        }
        Ok(list)
    }

    /// The names, in the order of preference in which they stand.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        // `"".split(',')` yields one empty name; an empty list has none.
        self.joined.split(',').take(if self.joined.is_empty() {
            0
        } else {
            usize::MAX
        })
    }

    /// Whether `name` is in the list, letter for letter.
    #[must_use]
    pub fn contains(self, name: &str) -> bool {
        self.iter().any(|each| each == name)
    }

    /// The first name.
    #[must_use]
    pub fn first(self) -> Option<&'a str> {
        self.iter().next()
    }

    /// The names with commas between.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.joined
    }

    /// The names with commas between, as they stand on the wire.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.joined.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_has_no_names() {
        let list = NameList::new("").unwrap();
        assert_eq!(list.iter().count(), 0);
        assert_eq!(list.first(), None);
    }

    #[test]
    fn names_match_letter_for_letter() {
        let list = NameList::new("zlib,none").unwrap();
        assert!(list.contains("none"));
        assert!(!list.contains("non"));
        assert!(!list.contains("zlib,none"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(NAME_LEN_MAX + 1);
        let many = vec!["a"; NAMES_MAX + 1].join(",");
        for bad in [
            ",",
            "a,",
            ",a",
            "a,,b",
            "a b",
            "a\n",
            "caf\u{e9}",
            &long,
            &many,
        ] {
            assert_eq!(NameList::new(bad), Err(DecodeError::BadName), "{bad:?}");
        }
        assert!(NameList::new(&vec!["a"; NAMES_MAX].join(",")).is_ok());
    }
}
