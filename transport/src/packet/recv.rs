//! Incoming packets (RFC 4253 §6): length, tag, padding; opened where they lie.

use std::fmt;

use super::zlib::{INFLATED_LEN_MAX, Inflater};
use super::{Input, Lent, PACKETS_MAX, PADDING_MIN};
use crate::algorithm::Compression;
use crate::crypto::{KeyMaterial, LENGTH_LEN, Opening, Shape, Suite, key_lens};

/// An opened packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The payload, message number first; never empty.
    pub payload: Lent<'a>,
    /// Which packet it was in its direction, modulo 2^32.
    pub sequence: u32,
}

/// Why bytes are not a packet. All of these end the connection, and the peer is not told which it
/// was, so that it cannot ask for bits of plaintext.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PacketError {
    /// `packet_length` is above the limit, below the least, or not a multiple of the block.
    BadLength,
    /// `padding_length` leaves no payload, or is below the least.
    BadPadding,
    /// The tag does not fit: bytes were changed, lost or repeated on the way.
    BadTag,
    /// As many packets or bytes went under one set of keys as may: more would repeat a sequence
    /// number, or wear the keys out.
    Exhausted,
    /// A payload is not what its compression makes, or inflates to more than may be in a packet.
    BadCompression,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadLength => "a packet has an impossible length",
            Self::BadPadding => "a packet has impossible padding",
            Self::BadTag => "a packet was changed on its way (its authentication tag is wrong)",
            Self::Exhausted => "too many packets were sent without a new key exchange",
            Self::BadCompression => "a packet's compression is broken or hides too much",
        })
    }
}

impl std::error::Error for PacketError {}

/// Opens the packets of one direction.
#[derive(Debug)]
pub struct Receiver {
    opening: Opening,
    sequence: u32,
    packets: u64,
    bytes: u64,
    /// Packets and bytes under earlier keys.
    before: (u64, u64),
    len_max: u32,
    /// Somebody is logged in: what was agreed on compression holds from then on.
    compresses: bool,
    compression: Compression,
    inflater: Option<Box<Inflater>>,
    failed: Option<Failed>,
}

impl Receiver {
    /// Before the first keys: packets in clear, at most `len_max` bytes long.
    #[must_use]
    pub const fn new(len_max: u32) -> Self {
        Self {
            opening: Opening::Clear,
            sequence: 0,
            packets: 0,
            bytes: 0,
            before: (0, 0),
            len_max,
            compresses: false,
            compression: Compression::None,
            inflater: None,
            failed: None,
        }
    }

    /// A receiver with keys made from fixed bytes, of somebody who is logged in: for tests, fuzzing
    /// and measurements only.
    #[doc(hidden)]
    #[must_use]
    pub fn with_test_keys(suite: Suite, len_max: u32) -> Self {
        let mut receiver = Self::new(len_max);
        receiver.start_compression();
        receiver.install(suite, &test_keys(suite), false);
        receiver
    }

    /// Packets from now on are sealed with these keys (RFC 4253 §7.3).
    pub(crate) fn install(&mut self, suite: Suite, keys: &KeyMaterial, reset: bool) {
        self.opening = Opening::new(suite, keys);
        self.before.0 += self.packets;
        self.before.1 += self.bytes;
        self.packets = 0;
        self.bytes = 0;
        if reset {
            self.sequence = 0;
        }
        self.compression = suite.compression;
        self.restart_compression();
    }

    /// Somebody is logged in: if so agreed, payloads are compressed from the next packet on.
    pub(crate) fn start_compression(&mut self) {
        self.compresses = true;
        self.restart_compression();
    }

    /// The compression's state is made anew with the keys (RFC 4253 §6.2), as OpenSSH does it.
    fn restart_compression(&mut self) {
        self.inflater = (self.compresses && self.compression == Compression::ZlibOpenSsh)
            .then(|| Box::new(Inflater::new()));
    }

    /// Whether payloads are inflated, for which [`Input`] needs space.
    #[must_use]
    pub const fn inflates(&self) -> bool {
        self.inflater.is_some()
    }

    /// Bytes of a packet that are not padded.
    #[cfg(test)]
    pub(crate) const fn overhead(&self) -> usize {
        let shape = self.opening.shape();
        shape.tag
            + if shape.length_is_padded {
                0
            } else {
                LENGTH_LEN
            }
    }

    /// As if so much had come, so that a test need not wait for it.
    #[cfg(test)]
    pub(crate) const fn pretend_used(&mut self, packets: u64, bytes: u64) {
        self.packets = packets;
        self.bytes = bytes;
    }

    /// Accepts packets of up to `len_max` bytes from now on.
    pub const fn set_len_max(&mut self, len_max: u32) {
        self.len_max = len_max;
    }

    /// How many packets have come, modulo 2^32, or since the last reset.
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Packets and bytes that came under these keys.
    #[must_use]
    pub const fn used(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    /// Packets and bytes since the connection began.
    pub(crate) const fn total(&self) -> (u64, u64) {
        (
            self.before.0.saturating_add(self.packets),
            self.before.1.saturating_add(self.bytes),
        )
    }

    pub(crate) const fn rekey_bytes(&self) -> u64 {
        self.opening.rekey_bytes()
    }

    /// Takes the next whole packet from `input` and opens it there; `None` if it is not all there,
    /// or if `input` has too little space for what it may inflate to
    /// ([`Input::wants_space`]).
    ///
    /// Nothing is allocated, whatever length the peer names: the bytes wait in the arena.
    ///
    /// # Errors
    /// [`PacketError`]; the connection is of no use then.
    pub fn next<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Packet<'a>>, PacketError> {
        if let Some(failed) = &mut self.failed {
            return failed.read_on(&self.opening, input).map(|()| None);
        }
        let Some(len) = self.opening.packet_len(self.sequence, input.peek()) else {
            return Ok(None);
        };
        let shape = self.opening.shape();
        let Some(len) = self.checked_len(len, shape) else {
            return self.fail(PacketError::BadLength, 0, input);
        };
        let whole = len.saturating_add(LENGTH_LEN).saturating_add(shape.tag);
        if input.remaining() < whole {
            return Ok(None);
        }
        if self.inflater.is_some() && !input.has_space(INFLATED_LEN_MAX) {
            return Ok(None);
        }
        let Some(taken) = input.take(whole) else {
            return Ok(None);
        };
        if self.packets >= PACKETS_MAX || self.bytes >= self.opening.bytes_max() {
            return Err(PacketError::Exhausted);
        }
        let sequence = self.sequence;
        let Ok(body) = self.opening.open(sequence, taken.bytes) else {
            return self.fail(PacketError::BadTag, whole, input);
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.saturating_add(1);
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));

        let (&padding, rest) = body.split_first().ok_or(PacketError::BadLength)?;
        let padding = usize::from(padding);
        let payload_len = len.checked_sub(1 + padding).filter(|&len| len > 0);
        let payload = payload_len.and_then(|len| rest.get(..len));
        let payload = match payload {
            Some(bytes) if padding >= PADDING_MIN => Lent {
                bytes,
                at: taken.at.saturating_add(LENGTH_LEN + 1),
            },
            _ => return Err(PacketError::BadPadding),
        };
        let payload = match &mut self.inflater {
            None => payload,
            Some(inflater) => inflater.inflate(payload.bytes, input)?,
        };
        Ok(Some(Packet { payload, sequence }))
    }

    /// The length that a packet names, if one of that length may come.
    fn checked_len(&self, len: u32, shape: Shape) -> Option<usize> {
        if len > self.len_max {
            return None;
        }
        let len = usize::try_from(len).ok()?;
        let padded = if shape.length_is_padded {
            len.saturating_add(LENGTH_LEN)
        } else {
            len
        };
        (len > PADDING_MIN + 1 && padded.is_multiple_of(shape.block)).then_some(len)
    }

    /// A packet is none, and `taken` bytes of it are done with. Where that must not show, bytes are
    /// taken as if all was well until there are as many as the longest packet has.
    #[cold]
    fn fail<'a>(
        &mut self,
        error: PacketError,
        taken: usize,
        input: &mut Input<'a>,
    ) -> Result<Option<Packet<'a>>, PacketError> {
        if !self.opening.hides_failures() {
            return Err(error);
        }
        let longest = usize::try_from(self.len_max).unwrap_or(usize::MAX);
        let longest = longest.saturating_add(LENGTH_LEN + self.opening.shape().tag);
        let failed = self.failed.insert(Failed {
            left: longest.saturating_sub(taken),
        });
        failed.read_on(&self.opening, input).map(|()| None)
    }
}

/// A packet that failed without showing it: what is left to read on (CVE-2008-5161).
#[derive(Debug)]
struct Failed {
    left: usize,
}

impl Failed {
    fn read_on(&mut self, opening: &Opening, input: &mut Input<'_>) -> Result<(), PacketError> {
        if let Some(taken) = input.take(self.left.min(input.remaining())) {
            opening.spend(taken.bytes);
            self.left -= taken.bytes.len();
        }
        if self.left == 0 {
            return Err(PacketError::BadTag); // whatever it was
        }
        Ok(())
    }
}

/// Keys made from fixed bytes.
pub(super) fn test_keys(suite: Suite) -> KeyMaterial {
    let lens = key_lens(suite);
    KeyMaterial {
        key: vec![0x42; lens.key].into(),
        iv: vec![0x17; lens.iv].into(),
        mac: vec![0x29; lens.mac].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::CipherName;
    use crate::packet::{PACKET_LEN_MAX, PACKET_LEN_MAX_BEFORE_AUTH, Sender};

    fn clear(len: u32, padding: u8, body: usize) -> Vec<u8> {
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.push(padding);
        bytes.extend(std::iter::repeat_n(9, body));
        bytes
    }

    #[test]
    fn impossible_lengths_are_refused_before_anything_is_kept() {
        for len in [
            0,
            1,
            4,
            5,
            11,
            13,
            PACKET_LEN_MAX_BEFORE_AUTH + 1,
            0x7fff_fffc,
            u32::MAX - 3,
            u32::MAX,
        ] {
            let mut bytes = clear(len, 4, 40);
            let mut receiver = Receiver::new(PACKET_LEN_MAX_BEFORE_AUTH);
            let outcome = receiver
                .next(&mut Input::new(&mut bytes))
                .map(|packet| packet.is_some());
            assert_eq!(outcome, Err(PacketError::BadLength), "{len}");
        }
    }

    #[test]
    fn padding_has_a_least_and_leaves_a_payload() {
        for (padding, fits) in [
            (0, false),
            (3, false),
            (4, true),
            (10, true),
            (11, false),
            (255, false),
        ] {
            let mut bytes = clear(12, padding, 11);
            let mut receiver = Receiver::new(PACKET_LEN_MAX);
            let outcome = receiver.next(&mut Input::new(&mut bytes));
            match outcome {
                Ok(Some(packet)) => {
                    assert!(fits);
                    assert_eq!(packet.payload.bytes.len(), 11 - usize::from(padding));
                    assert_eq!(packet.payload.at, 5);
                }
                other => assert!(
                    !fits && matches!(other, Err(PacketError::BadPadding)),
                    "{padding}"
                ),
            }
        }
    }

    #[test]
    fn an_unfinished_packet_waits_where_it_is() {
        for cipher in CipherName::AEAD {
            let mut sender = Sender::with_test_keys(Suite::aead(*cipher));
            sender.send(b"payload").unwrap();
            let sealed = sender.output().to_vec();
            for cut in 0..sealed.len() {
                let mut receiver = Receiver::with_test_keys(Suite::aead(*cipher), PACKET_LEN_MAX);
                let mut arena = sealed[..cut].to_vec();
                let mut input = Input::new(&mut arena);
                assert!(receiver.next(&mut input).unwrap().is_none());
                assert_eq!(input.remaining(), cut);
                let mut arena = sealed.clone();
                let mut input = Input::new(&mut arena);
                let packet = receiver.next(&mut input).unwrap().unwrap();
                assert_eq!(
                    (packet.payload.bytes, packet.sequence),
                    (&b"payload"[..], 0)
                );
            }
        }
    }
}
