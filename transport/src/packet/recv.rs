//! Incoming packets (RFC 4253 §6): length, tag, padding; opened where they lie.

use std::fmt;

use super::{Input, Lent};
use crate::crypto::{KeyMaterial, LENGTH_LEN, Opening, Suite, key_lens};

/// Shortest padding (RFC 4253 §6).
const PADDING_MIN: usize = 4;

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
    /// 2^32 packets went under one set of keys: the next would repeat a sequence number.
    Exhausted,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadLength => "a packet has an impossible length",
            Self::BadPadding => "a packet has impossible padding",
            Self::BadTag => "a packet was changed on its way (its authentication tag is wrong)",
            Self::Exhausted => "too many packets were sent without a new key exchange",
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
    len_max: u32,
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
            len_max,
        }
    }

    /// A receiver with keys made from fixed bytes: for tests, fuzzing and measurements only.
    #[doc(hidden)]
    #[must_use]
    pub fn with_test_keys(suite: Suite, len_max: u32) -> Self {
        let mut receiver = Self::new(len_max);
        receiver.install(suite, &test_keys(suite), false);
        receiver
    }

    /// Packets from now on are sealed with these keys (RFC 4253 §7.3).
    pub(crate) fn install(&mut self, suite: Suite, keys: &KeyMaterial, reset: bool) {
        self.opening = Opening::new(suite, keys);
        self.packets = 0;
        self.bytes = 0;
        if reset {
            self.sequence = 0;
        }
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

    pub(crate) const fn rekey_bytes(&self) -> u64 {
        self.opening.rekey_bytes()
    }

    /// Takes the next whole packet from `input` and opens it there; `None` if it is not all there.
    ///
    /// Nothing is allocated, whatever length the peer names: the bytes wait in the arena.
    ///
    /// # Errors
    /// [`PacketError`]; the connection is of no use then.
    pub fn next<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Packet<'a>>, PacketError> {
        let Some(first) = input.peek().first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let shape = self.opening.shape();
        let len = self.opening.packet_len(self.sequence, *first);
        if len > self.len_max {
            return Err(PacketError::BadLength);
        }
        let len = usize::try_from(len).map_err(|_| PacketError::BadLength)?;
        let padded = if shape.length_is_padded {
            len.saturating_add(LENGTH_LEN)
        } else {
            len
        };
        if len < 1 + PADDING_MIN + 1 || !padded.is_multiple_of(shape.block) {
            return Err(PacketError::BadLength);
        }
        let whole = len.saturating_add(LENGTH_LEN).saturating_add(shape.tag);
        let Some(taken) = input.take(whole) else {
            return Ok(None);
        };
        if self.packets > u64::from(u32::MAX) {
            return Err(PacketError::Exhausted);
        }
        let sequence = self.sequence;
        let body = self
            .opening
            .open(sequence, taken.bytes)
            .map_err(|_| PacketError::BadTag)?;
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.saturating_add(1);
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));

        let (&padding, rest) = body.split_first().ok_or(PacketError::BadLength)?;
        let padding = usize::from(padding);
        let payload_len = len.checked_sub(1 + padding).filter(|&len| len > 0);
        let payload = payload_len.and_then(|len| rest.get(..len));
        match payload {
            Some(bytes) if padding >= PADDING_MIN => {
                let at = taken.at.saturating_add(LENGTH_LEN + 1);
                Ok(Some(Packet {
                    payload: Lent { bytes, at },
                    sequence,
                }))
            }
            _ => Err(PacketError::BadPadding),
        }
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
    use proptest::prelude::*;

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

    #[test]
    fn a_packet_lost_repeated_or_swapped_is_refused() {
        for cipher in CipherName::AEAD {
            let mut sender = Sender::with_test_keys(Suite::aead(*cipher));
            let mut packets = Vec::new();
            for payload in [b"one", b"two"] {
                sender.send(payload).unwrap();
                packets.push(sender.output().to_vec());
                sender.consume(packets.last().unwrap().len());
            }
            for order in [[1, 0], [0, 0], [1, 1]] {
                let mut receiver = Receiver::with_test_keys(Suite::aead(*cipher), PACKET_LEN_MAX);
                let outcome: Result<Vec<_>, _> = order
                    .iter()
                    .map(|&index: &usize| {
                        let mut arena = packets[index].clone();
                        receiver
                            .next(&mut Input::new(&mut arena))
                            .map(|packet| packet.is_some())
                    })
                    .collect();
                assert!(
                    !outcome.is_ok_and(|opened| opened == [true, true]),
                    "{cipher} {order:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_an_error_or_not_enough(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            which in 0_usize..4,
        ) {
            let mut receiver = match CipherName::AEAD.get(which) {
                Some(cipher) => Receiver::with_test_keys(Suite::aead(*cipher), PACKET_LEN_MAX),
                None => Receiver::new(PACKET_LEN_MAX),
            };
            let mut input = Input::new(&mut bytes);
            while let Ok(Some(packet)) = receiver.next(&mut input) {
                prop_assert!(!packet.payload.bytes.is_empty());
            }
        }

        #[test]
        fn what_is_sent_is_received(
            payloads in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..300), 1..8),
            which in 0_usize..3,
        ) {
            let cipher = CipherName::AEAD[which];
            let mut sender = Sender::with_test_keys(Suite::aead(cipher));
            let mut receiver = Receiver::with_test_keys(Suite::aead(cipher), PACKET_LEN_MAX);
            for payload in &payloads {
                sender.send(payload).unwrap();
            }
            let mut arena = sender.output().to_vec();
            let mut input = Input::new(&mut arena);
            for (index, payload) in payloads.iter().enumerate() {
                let packet = receiver.next(&mut input).unwrap().unwrap();
                prop_assert_eq!(packet.payload.bytes, &payload[..]);
                prop_assert_eq!(usize::try_from(packet.sequence).unwrap(), index);
            }
            prop_assert_eq!(input.remaining(), 0);
        }
    }
}
