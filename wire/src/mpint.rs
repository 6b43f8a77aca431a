//! Multiple precision integers (RFC 4251 §5), of which SSH only needs those that are not negative.

use crate::DecodeError;

/// An integer that is not negative, as its big-endian magnitude without leading zeros.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mpint<'a> {
    magnitude: &'a [u8],
}

impl<'a> Mpint<'a> {
    /// Takes the content of an `mpint` field.
    pub(crate) fn from_wire(content: &'a [u8], max: usize) -> Result<Self, DecodeError> {
        let magnitude = match content {
            // A zero byte is there only to keep the next one's high bit from meaning "negative".
            [0, rest @ ..] if rest.first().is_some_and(|&byte| byte >= 0x80) => rest,
            [first, ..] if *first == 0 || *first >= 0x80 => return Err(DecodeError::BadMpint),
            _ => content,
        };
        if magnitude.len() > max {
            return Err(DecodeError::TooLong {
                len: magnitude.len(),
                max,
            });
        }
        Ok(Self { magnitude })
    }

    /// Big-endian bytes, the first of which is not zero; empty for the number zero.
    #[must_use]
    pub const fn magnitude(&self) -> &'a [u8] {
        self.magnitude
    }
}

#[cfg(test)]
mod tests {
    use crate::{DecodeError, Reader, Writer};
    use proptest::prelude::*;

    #[test]
    fn negative_and_padded_numbers_are_refused() {
        for content in [
            &[0x80_u8][..],
            &[0xff, 0x01],
            &[0],
            &[0, 0x7f],
            &[0, 0, 0x80],
        ] {
            let mut bytes = Vec::new();
            Writer::new(&mut bytes).string(content);
            assert_eq!(
                Reader::new(&bytes).mpint(8),
                Err(DecodeError::BadMpint),
                "{content:x?}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_magnitude_survives_the_wire(
            magnitude in proptest::collection::vec(any::<u8>(), 0..70),
        ) {
            let mut bytes = Vec::new();
            Writer::new(&mut bytes).mpint(&magnitude);
            let zeros = magnitude.iter().take_while(|&&byte| byte == 0).count();
            let mut r = Reader::new(&bytes);
            let read = r.mpint(70).unwrap();
            prop_assert_eq!(read.magnitude(), &magnitude[zeros..]);
            prop_assert_eq!(r.finish(), Ok(()));
        }
    }
}
