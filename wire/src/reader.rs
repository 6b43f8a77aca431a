//! A cursor over bytes that lends what it reads (RFC 4251 §5).

use crate::{DecodeError, Mpint, NameList};

/// Reads fields in wire order from a slice; every method moves past what it returns.
///
/// Nothing is copied and nothing allocated: strings are lent for as long as the slice lives. After
/// an error the position is unspecified and the message should be given up.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are not yet read.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// A `byte`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A `boolean`: zero is false, all other values are true (RFC 4251 §5).
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        self.u8().map(|byte| byte != 0)
    }

    /// A `uint32`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A `uint64`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next `len` bytes, without a length in front.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Everything that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A `string` of at most `max` bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] above `max`, [`DecodeError::Truncated`] if it is cut off.
    pub fn string(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if len > max {
            return Err(DecodeError::TooLong { len, max });
        }
        self.bytes(len)
    }

    /// A `string` of at most `max` bytes that has to be UTF-8.
    ///
    /// # Errors
    /// As [`Reader::string`], and [`DecodeError::NotUtf8`].
    pub fn text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.string(max)?).map_err(|_| DecodeError::NotUtf8)
    }

    /// An `mpint` that is not negative, of at most `max` bytes of magnitude.
    ///
    /// # Errors
    /// [`DecodeError::BadMpint`] if it is negative or has needless leading zeros,
    /// [`DecodeError::TooLong`], [`DecodeError::Truncated`].
    pub fn mpint(&mut self, max: usize) -> Result<Mpint<'a>, DecodeError> {
        // One more for the zero byte that keeps a high bit from meaning "negative".
        Mpint::from_wire(self.string(max.saturating_add(1))?, max)
    }

    /// A `name-list` within the crate's bounds.
    ///
    /// # Errors
    /// [`DecodeError::BadName`], [`DecodeError::TooLong`], [`DecodeError::Truncated`].
    pub fn name_list(&mut self) -> Result<NameList<'a>, DecodeError> {
        NameList::from_wire(self.string(crate::NAME_LIST_LEN_MAX)?)
    }

    /// Asserts that the message ends here.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] if bytes are left: they are an error, not a guess.
    pub const fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            len => Err(DecodeError::Trailing { len }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Writer;
    use proptest::prelude::*;

    #[test]
    fn a_string_that_names_more_than_there_is_is_refused() {
        let mut r = Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(
            r.string(usize::MAX - 1),
            Err(DecodeError::Truncated),
            "no allocation and no slice by a length that the peer names"
        );
        let mut r = Reader::new(&[0, 0, 0, 5, 1]);
        assert_eq!(r.string(4), Err(DecodeError::TooLong { len: 5, max: 4 }));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut r = Reader::new(&[0, 1]);
        assert_eq!(r.bool(), Ok(false));
        assert_eq!(r.finish(), Err(DecodeError::Trailing { len: 1 }));
    }

    proptest! {
        #[test]
        fn every_value_survives_the_wire(
            byte in any::<u8>(), flag in any::<bool>(), small in any::<u32>(), large in any::<u64>(),
            string in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,40}",
        ) {
            let mut bytes = Vec::new();
            let mut w = Writer::new(&mut bytes);
            w.u8(byte);
            w.bool(flag);
            w.u32(small);
            w.u64(large);
            w.string(&string);
            w.string(text.as_bytes());

            let mut r = Reader::new(&bytes);
            prop_assert_eq!(r.u8(), Ok(byte));
            prop_assert_eq!(r.bool(), Ok(flag));
            prop_assert_eq!(r.u32(), Ok(small));
            prop_assert_eq!(r.u64(), Ok(large));
            prop_assert_eq!(r.string(300), Ok(&string[..]));
            prop_assert_eq!(r.text(200), Ok(&text[..]));
            prop_assert_eq!(r.finish(), Ok(()));
        }

        #[test]
        fn a_cut_string_is_truncated(string in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = Vec::new();
            Writer::new(&mut bytes).string(&string);
            for cut in 0..bytes.len() {
                prop_assert_eq!(Reader::new(&bytes[..cut]).string(60), Err(DecodeError::Truncated));
            }
        }
    }
}
