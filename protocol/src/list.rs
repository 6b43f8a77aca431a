//! Lists that are checked once, then decoded as they are walked.
//!
//! SFTP has four: the entries of a `NAME`, extension pairs, and the two kinds of
//! `users-groups-by-id`. A vector for them would be allocated by a count that the peer names; here
//! the checked bytes stay where they are.

use std::fmt;

use crate::{DecodeError, Reader, Writer};

/// What a [`List`] is made of.
pub trait Element<'a>: Copy {
    /// Decodes one element and moves `r` past it.
    ///
    /// # Errors
    /// Whatever its fields may have wrong.
    fn decode_next(r: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Appends the element.
    fn encode(&self, w: &mut Writer<'_>);
}

/// A list of elements: either bytes that are known to decode, or a slice of values to encode.
///
/// Two lists are equal if their elements are.
pub struct List<'a, T> {
    form: Form<'a, T>,
}

enum Form<'a, T> {
    /// `count` elements, and nothing else, were decoded from `bytes` once.
    Wire {
        count: usize,
        bytes: &'a [u8],
    },
    Values(&'a [T]),
}

impl<'a, T> List<'a, T> {
    /// The list without elements.
    pub const EMPTY: Self = Self::new(&[]);

    /// A list of `values`, to be encoded.
    #[must_use]
    pub const fn new(values: &'a [T]) -> Self {
        Self {
            form: Form::Values(values),
        }
    }

    /// The elements as they stand in the message, without a count in front; `None` for a list that
    /// was made to be encoded. They are known to decode: who keeps a copy of these bytes can walk
    /// it with [`Element::decode_next`].
    #[must_use]
    pub const fn as_wire(&self) -> Option<&'a [u8]> {
        match self.form {
            Form::Wire { bytes, .. } => Some(bytes),
            Form::Values(_) => None,
        }
    }

    /// How many elements there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.form {
            Form::Wire { count, .. } => count,
            Form::Values(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Element<'a>> List<'a, T> {
    /// Decodes `count` elements and moves `r` past them.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if there are fewer, and what [`Element::decode_next`] returns.
    pub fn decode_counted(r: &mut Reader<'a>, count: u32) -> Result<Self, DecodeError> {
        let mut all = *r;
        for _ in 0..count {
            T::decode_next(r)?;
        }
        let bytes = all.bytes(all.remaining().saturating_sub(r.remaining()))?;
        Ok(Self {
            form: Form::Wire {
                count: usize::try_from(count).unwrap_or(usize::MAX),
                bytes,
            },
        })
    }

    /// Decodes elements up to the end of `r`.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] above `max` elements, and what [`Element::decode_next`] returns.
    pub fn decode_to_end(mut r: Reader<'a>, max: usize) -> Result<Self, DecodeError> {
        let bytes = { r }.take_rest();
        let mut count = 0_usize;
        while !r.is_empty() {
            if count == max {
                return Err(DecodeError::TooLong {
                    len: count.saturating_add(1),
                    max,
                });
            }
            T::decode_next(&mut r)?;
            count = count.saturating_add(1);
        }
        Ok(Self {
            form: Form::Wire { count, bytes },
        })
    }

    /// The elements in their order.
    #[must_use]
    pub fn iter(&self) -> ListIter<'a, T> {
        let form = match self.form {
            Form::Wire { bytes, .. } => IterForm::Wire(Reader::new(bytes)),
            Form::Values(values) => IterForm::Values(values.iter()),
        };
        ListIter { form }
    }

    /// Appends the elements, without a count in front.
    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        match self.form {
            Form::Wire { bytes, .. } => w.bytes(bytes),
            Form::Values(values) => values.iter().for_each(|value| value.encode(w)),
        }
    }

    /// The number of elements as the count field has it.
    ///
    /// # Panics
    /// If there are 2^32 elements or more, which no caller's list comes near.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.len()).expect("a list has fewer than 2^32 elements")
    }
}

/// Walks over a [`List`].
#[derive(Clone)]
pub struct ListIter<'a, T> {
    form: IterForm<'a, T>,
}

#[derive(Clone)]
enum IterForm<'a, T> {
    Wire(Reader<'a>),
    Values(std::slice::Iter<'a, T>),
}

impl<'a, T: Element<'a>> Iterator for ListIter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.form {
            // The bytes were decoded before: an error can only mean that they are at their end.
            IterForm::Wire(r) => T::decode_next(r).ok(),
            IterForm::Values(values) => values.next().copied(),
        }
    }
}

impl<'a, T: Element<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;

    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Element<'a>> IntoIterator for &List<'a, T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;

    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Form<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Form<'_, T> {}

impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<'a, T: Element<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Element<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Element<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T> fmt::Debug for ListIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListIter").finish_non_exhaustive()
    }
}

/// A user or group number, as `users-groups-by-id` lists them.
impl<'a> Element<'a> for u32 {
    fn decode_next(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        r.u32()
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.u32(*self);
    }
}

/// A user or group name, as the reply to `users-groups-by-id` lists them; empty if unknown.
impl<'a> Element<'a> for &'a [u8] {
    fn decode_next(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        r.string(usize::MAX)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.string(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_the_same_whether_it_was_read_or_made() {
        let bytes = [0, 0, 0, 1, 0, 0, 0, 9, 7];
        let mut r = Reader::new(&bytes);
        let read = List::<u32>::decode_counted(&mut r, 2).unwrap();
        assert_eq!(r.remaining(), 1, "what comes after the list is left");
        assert_eq!(read, List::new(&[1, 9]));
        assert_ne!(read, List::new(&[1, 8]));
        assert_ne!(read, List::new(&[1]));
        assert_eq!((read.len(), read.is_empty()), (2, false));
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [1, 9]);
        assert_eq!(format!("{read:?}"), "[1, 9]");
        assert!(List::<u32>::default().is_empty());
    }

    #[test]
    fn a_count_beyond_the_bytes_is_an_error() {
        for count in [3, u32::MAX] {
            let mut r = Reader::new(&[0, 0, 0, 1, 0, 0, 0, 9]);
            let read = List::<u32>::decode_counted(&mut r, count);
            assert_eq!(read, Err(DecodeError::Truncated), "{count}");
        }
    }
}
