//! The greeting: `INIT` and `VERSION` with their extension pairs (draft-02 §4).

use std::fmt;

use crate::limits::{EXTENSION_NAME_LEN_MAX, EXTENSIONS_MAX, PACKET_LEN_MAX};
use crate::packet::encode_packet;
use crate::{DecodeError, Element, Escaped, List, PacketType, Reader, Writer};

/// The version of SFTP spoken here, and by nearly everybody.
pub const PROTOCOL_VERSION: u32 = 3;

/// `SSH_FXP_INIT`: the client's first packet.
///
/// Source: draft-ietf-secsh-filexfer-02 §4.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Init<'a> {
    /// Highest version that the client speaks.
    pub version: u32,
    /// What else it offers. Clients in use send nothing.
    pub extensions: Pairs<'a>,
}

/// `SSH_FXP_VERSION`: the server's answer to `INIT`.
///
/// Source: draft-ietf-secsh-filexfer-02 §4.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Version<'a> {
    /// Version that will be spoken: the lower of the two sides' highest.
    pub version: u32,
    /// Extensions that the server has: name, and version as text.
    /// [`ExtensionSet`](crate::ExtensionSet) knows those of OpenSSH.
    pub extensions: Pairs<'a>,
}

macro_rules! greeting {
    ($name:ident, $packet_type:ident) => {
        impl<'a> $name<'a> {
            /// Decodes what comes after the packet type: the greeting has no request id.
            ///
            /// # Errors
            /// [`DecodeError::Truncated`]; [`DecodeError::TooLong`] for names or lists above the
            /// [`limits`](crate::limits).
            pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
                Ok(Self {
                    version: r.u32()?,
                    extensions: Pairs::decode_to_end(r, EXTENSIONS_MAX)?,
                })
            }

            /// Appends what comes after the packet type.
            pub fn encode(&self, w: &mut Writer<'_>) {
                let Self {
                    version,
                    extensions,
                } = *self;
                w.u32(version);
                extensions.encode(w);
            }

            /// Appends the whole packet with the length in front.
            pub fn encode_packet(&self, out: &mut Vec<u8>) {
                let Self {
                    version,
                    extensions,
                } = *self;
                encode_packet(PacketType::$packet_type, version, out, |w| {
                    extensions.encode(w)
                });
            }
        }
    };
}

greeting!(Init, INIT);
greeting!(Version, VERSION);

/// Extension pairs of a greeting, or extended attributes.
pub type Pairs<'a> = List<'a, Pair<'a>>;

/// A name and what belongs to it.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Pair<'a> {
    /// Name; those of one vendor are `name@domain` (draft-02 §4).
    pub name: &'a [u8],
    /// What the name's owner says it is; for OpenSSH's extensions a version number as text.
    pub data: &'a [u8],
}

impl<'a> Element<'a> for Pair<'a> {
    fn decode_next(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.string(EXTENSION_NAME_LEN_MAX)?,
            data: r.string(PACKET_LEN_MAX)?,
        })
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let Self { name, data } = *self;
        w.string(name);
        w.string(data);
    }
}

impl fmt::Debug for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", Escaped(self.name), Escaped(self.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn greetings_stand_as_draft_section_4_has_them() {
        let mut out = Vec::new();
        Init {
            version: PROTOCOL_VERSION,
            extensions: Pairs::EMPTY,
        }
        .encode_packet(&mut out);
        assert_eq!(out, [0, 0, 0, 5, 1, 0, 0, 0, 3]);

        out.clear();
        let pairs = [Pair {
            name: b"a@b",
            data: b"1",
        }];
        let version = Version {
            version: 3,
            extensions: Pairs::new(&pairs),
        };
        version.encode_packet(&mut out);
        assert_eq!(
            out,
            [
                &[0, 0, 0, 17, 2, 0, 0, 0, 3, 0, 0, 0, 3][..],
                b"a@b",
                &[0, 0, 0, 1],
                b"1"
            ]
            .concat()
        );
        assert_eq!(Version::decode(Reader::new(&out[5..])), Ok(version));
    }

    #[test]
    fn a_greeting_with_too_many_pairs_is_refused() {
        let pairs = [Pair {
            name: b"",
            data: b"",
        }; EXTENSIONS_MAX + 1];
        for (count, too_many) in [(EXTENSIONS_MAX, false), (EXTENSIONS_MAX + 1, true)] {
            let mut out = Vec::new();
            let version = Version {
                version: 3,
                extensions: Pairs::new(&pairs[..count]),
            };
            version.encode(&mut Writer::new(&mut out));
            let error = DecodeError::TooLong {
                len: EXTENSIONS_MAX + 1,
                max: EXTENSIONS_MAX,
            };
            let expected = if too_many { Err(error) } else { Ok(version) };
            assert_eq!(Version::decode(Reader::new(&out)), expected);
        }
    }

    proptest! {
        #[test]
        fn every_greeting_survives_the_wire(
            version in any::<u32>(),
            pairs in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..20), any::<[u8; 2]>()), 0..5,
            ),
        ) {
            let pairs: Vec<_> = pairs.iter().map(|(name, data)| Pair { name, data }).collect();
            let init = Init { version, extensions: Pairs::new(&pairs) };
            let mut bytes = Vec::new();
            init.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(Init::decode(Reader::new(&bytes)), Ok(init));
            // Where a pair ends, the greeting may end as well: every other cut is an error.
            let mut whole = vec![4];
            whole.extend(pairs.iter().scan(4, |at, pair| {
                *at += 8 + pair.name.len() + pair.data.len();
                Some(*at)
            }));
            for cut in 0..bytes.len() {
                let read = Init::decode(Reader::new(&bytes[..cut]));
                prop_assert_eq!(read.is_ok(), whole.contains(&cut), "cut at {}", cut);
            }
        }
    }
}
