//! What holds for every suite: tests over both ends of the packet layer.

use proptest::prelude::*;

use super::*;
use crate::algorithm::{CipherName, Compression, MacName};
use crate::crypto::Suite;
use crate::message::connection::ChannelData;
use crate::pair::Seeded;
use ketch_wire::Reader;

/// Longest packet in the tests that read on after a failure, so that they need not read much.
const SHORT: u32 = 1024;
/// More bytes than a receiver with that limit reads on for.
const BEHIND: usize = 2048;

fn sealed(sender: &mut Sender, payload: &[u8]) -> Vec<u8> {
    sender.send(payload).unwrap();
    let bytes = sender.output().to_vec();
    sender.consume(bytes.len());
    bytes
}

/// All packets in `bytes`, with space for those that are compressed.
fn opened(receiver: &mut Receiver, mut bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, PacketError> {
    let mut payloads = Vec::new();
    loop {
        let filled = bytes.len();
        let mut arena = std::mem::take(&mut bytes);
        arena.resize(filled + 300_000, 0);
        let mut input = Input::with_space(&mut arena, filled);
        while let Some(packet) = receiver.next(&mut input)? {
            payloads.push(packet.payload.bytes.to_vec());
        }
        let (taken, again) = (input.position(), input.wants_space());
        if !again {
            return Ok(payloads);
        }
        bytes = arena[taken..filled].to_vec();
    }
}

fn every_suite() -> Vec<Suite> {
    Suite::every().collect()
}

fn which_suite() -> impl Strategy<Value = Suite> {
    (0..every_suite().len()).prop_map(|index| every_suite()[index])
}

fn with_zlib(suite: Suite) -> (Sender, Receiver) {
    let suite = Suite {
        compression: Compression::ZlibOpenSsh,
        ..suite
    };
    (
        Sender::with_test_keys(suite),
        Receiver::with_test_keys(suite, PACKET_LEN_MAX),
    )
}

proptest! {
    #[test]
    fn what_is_sent_is_received(
        payloads in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 1..300), 1..8),
        suite in which_suite(),
        padded in any::<bool>(),
    ) {
        let mut sender = Sender::with_test_keys(suite);
        let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
        let mut bytes = Vec::new();
        for payload in &payloads {
            if padded {
                sender.send_padded(payload).unwrap();
            } else {
                sender.send(payload).unwrap();
            }
        }
        bytes.extend_from_slice(sender.output());
        prop_assert_eq!(opened(&mut receiver, bytes), Ok(payloads));
    }

    #[test]
    fn what_is_sent_compressed_is_received(
        payloads in proptest::collection::vec(
            (any::<u8>(), 1_usize..40_000, any::<bool>()), 1..6),
        suite in which_suite(),
    ) {
        let (mut sender, mut receiver) = with_zlib(suite);
        let mut random = Seeded::new(7);
        let payloads: Vec<Vec<u8>> = payloads.iter().map(|&(byte, len, noise)| {
            let mut payload = vec![byte; len];
            if noise {
                crate::crypto::Random::fill(&mut random, &mut payload).unwrap();
            }
            payload
        }).collect();
        let mut bytes = Vec::new();
        for payload in &payloads {
            bytes.extend(sealed(&mut sender, payload));
        }
        prop_assert_eq!(opened(&mut receiver, bytes), Ok(payloads));
    }

    #[test]
    fn any_bytes_are_a_packet_an_error_or_not_enough(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        suite in proptest::option::of(which_suite()),
    ) {
        let mut receiver = match suite {
            Some(suite) => Receiver::with_test_keys(suite, SHORT),
            None => Receiver::new(SHORT),
        };
        let mut input = Input::new(&mut bytes);
        while let Ok(Some(packet)) = receiver.next(&mut input) {
            prop_assert!(!packet.payload.bytes.is_empty());
            prop_assert!(suite.is_none(), "a forged packet was opened");
        }
    }
}

#[test]
fn compressed_slots_carry_what_is_written_to_them() {
    for suite in every_suite() {
        let (mut sender, mut receiver) = with_zlib(suite);
        for (len, committed) in [(1, 1), (100_000, 100_000), (100_000, 40_000), (32_768, 0)] {
            let expected: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut slots = sender.slots(7, len, PACKET_DATA_MAX).unwrap();
            slots.fill(0, |pieces| {
                let mut at = 0;
                for piece in pieces {
                    let end = at + piece.len();
                    piece.copy_from_slice(&expected[at..end]);
                    at = end;
                }
                assert_eq!(at, len);
            });
            slots.commit(committed);
            let bytes = sender.output().to_vec();
            sender.consume(bytes.len());
            assert!(bytes.len() < committed / 4 + 200, "nothing was compressed");
            let mut seen = Vec::new();
            for payload in opened(&mut receiver, bytes).unwrap() {
                let message = ChannelData::decode(Reader::new(&payload[1..])).unwrap();
                assert_eq!(message.recipient, 7);
                seen.extend_from_slice(message.data);
            }
            assert_eq!(seen, expected[..committed], "{suite}");
        }
    }
}

#[test]
fn compression_starts_when_told_and_anew_with_each_exchange_of_keys() {
    let suite = Suite {
        compression: Compression::ZlibOpenSsh,
        ..Suite::aead(CipherName::Aes128Gcm)
    };
    let keys = recv::test_keys(suite);
    let mut sender = Sender::new();
    let mut receiver = Receiver::new(PACKET_LEN_MAX);
    let payload = [7; 4000];
    let mut lens = Vec::new();
    let mut turn = |sender: &mut Sender, receiver: &mut Receiver| {
        let bytes = sealed(sender, &payload);
        lens.push(bytes.len());
        assert_eq!(opened(receiver, bytes), Ok(vec![payload.to_vec()]));
    };
    sender.install(suite, &keys, true);
    receiver.install(suite, &keys, true);
    turn(&mut sender, &mut receiver); // before anybody is logged in
    sender.start_compression();
    receiver.start_compression();
    turn(&mut sender, &mut receiver);
    turn(&mut sender, &mut receiver);
    sender.install(suite, &keys, true);
    receiver.install(suite, &keys, true);
    turn(&mut sender, &mut receiver);
    let none = Suite::aead(CipherName::Aes128Gcm);
    sender.install(none, &keys, true);
    receiver.install(none, &keys, true);
    turn(&mut sender, &mut receiver);
    let [plain, first, second, anew, without] = lens[..] else {
        panic!("{lens:?}");
    };
    assert!(plain > 4000 && without > 4000);
    assert!(first < 100 && second <= first);
    assert_eq!(anew, first, "a new stream has its header again");
}

#[test]
fn a_payload_that_inflates_beyond_its_bound_is_refused() {
    for (len, fits) in [
        (200_000, true),
        (256 * 1024, true),
        (300_000, false),
        (800_000, false),
    ] {
        let (mut sender, mut receiver) = with_zlib(Suite::aead(CipherName::Aes256Gcm));
        let bytes = sealed(&mut sender, &vec![1; len]);
        let outcome = opened(&mut receiver, bytes);
        if fits {
            assert_eq!(outcome.unwrap()[0].len(), len);
        } else {
            assert_eq!(outcome, Err(PacketError::BadCompression));
        }
    }
}

#[test]
fn what_is_no_piece_of_the_stream_is_refused() {
    for payload in [
        &b"no zlib"[..],
        &[0x78],                                  // half a header, no payload
        &[0x78, 0x9c, 3, 0, 0, 0, 0, 1],          // an empty stream, ended
        &[0x78, 0x9c, 0x03, 0, 0, 0, 0, 1, 5, 5], // and bytes behind it
        &[0x78, 0xbb, 0, 0],                      // wants a dictionary
    ] {
        let suite = Suite::aead(CipherName::Aes256Gcm);
        let mut sender = Sender::with_test_keys(suite); // does not compress
        let (_, mut receiver) = with_zlib(suite);
        let bytes = sealed(&mut sender, payload);
        let outcome = opened(&mut receiver, bytes);
        assert_eq!(outcome, Err(PacketError::BadCompression), "{payload:?}");
    }
}

#[test]
fn a_packet_without_space_to_inflate_waits_for_it() {
    let (mut sender, mut receiver) = with_zlib(Suite::aead(CipherName::Aes256Gcm));
    let mut bytes = sealed(&mut sender, &[1; 1000]);
    let mut input = Input::new(&mut bytes);
    assert!(receiver.next(&mut input).unwrap().is_none());
    assert!(input.wants_space());
    assert_eq!(input.position(), 0);
    assert_eq!(opened(&mut receiver, bytes).unwrap(), [vec![1; 1000]]);
}

#[test]
fn a_stream_cut_anywhere_is_the_same_stream() {
    for suite in every_suite() {
        let mut sender = Sender::with_test_keys(suite);
        let mut whole = Vec::new();
        for payload in [&b"one"[..], b"the second payload", b"3"] {
            whole.extend(sealed(&mut sender, payload));
        }
        for cut in 0..=whole.len() {
            let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
            let mut seen = Vec::new();
            let mut arena = whole[..cut].to_vec();
            for behind in [&whole[cut..], &[]] {
                let mut input = Input::new(&mut arena);
                while let Some(packet) = receiver.next(&mut input).unwrap() {
                    seen.push(packet.payload.bytes.to_vec());
                }
                let taken = input.position();
                arena.drain(..taken);
                arena.extend_from_slice(behind);
            }
            assert!(arena.is_empty());
            assert_eq!(seen, [&b"one"[..], b"the second payload", b"3"], "{suite}");
        }
        let mut receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
        let (mut seen, mut arena) = (0, Vec::new());
        for byte in whole {
            arena.push(byte);
            let mut input = Input::new(&mut arena);
            seen += usize::from(receiver.next(&mut input).unwrap().is_some());
            let taken = input.position();
            arena.drain(..taken);
        }
        assert_eq!((seen, arena.len()), (3, 0), "{suite}");
    }
}

/// Feeds `bytes` and zeros behind them; the error, after how many bytes it came when they come one
/// by one in steps of `step`, and what is left of the packet.
fn refusal(suite: Suite, mut bytes: Vec<u8>, step: usize) -> (PacketError, usize, Vec<u8>) {
    bytes.resize(bytes.len() + BEHIND, 0);
    let mut receiver = Receiver::with_test_keys(suite, SHORT);
    let (mut from, mut to) = (0, 0);
    while to < bytes.len() {
        to = (to + step).min(bytes.len());
        let mut input = Input::new(&mut bytes[from..to]);
        match receiver.next(&mut input) {
            Ok(None) => from += input.position(),
            Ok(Some(packet)) => panic!("{suite}: opened {:?}", packet.payload.bytes),
            Err(error) => return (error, to, bytes),
        }
    }
    panic!("{suite}: nothing was wrong with it")
}

#[test]
fn every_flipped_bit_is_refused_and_no_plaintext_is_left() {
    let payload: Vec<u8> = (0..60).map(|i| i * 3 + 1).collect();
    for suite in every_suite() {
        let packet = sealed(&mut Sender::with_test_keys(suite), &payload);
        for bit in 0..packet.len() * 8 {
            let mut packet = packet.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            let len = packet.len();
            let (_, _, left) = refusal(suite, packet, usize::MAX / 2);
            let shows = left[..len]
                .windows(8)
                .any(|seen| payload.windows(8).any(|part| part == seen));
            assert!(!shows, "{suite}, bit {bit}");
        }
    }
}

/// CVE-2008-5161: with an encrypted length, what is wrong with a packet shows neither in the error
/// nor in how much is read before it.
#[test]
fn no_oracle_tells_what_was_wrong_with_a_packet() {
    let mut random = Seeded::new(11);
    for suite in every_suite() {
        if suite.mac.is_none_or(MacName::is_etm) {
            continue;
        }
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..400 {
            let payload = vec![7; 1 + index];
            let mut packet = sealed(&mut Sender::with_test_keys(suite), &payload);
            // The length itself in every fourth, anything else in the others.
            let bytes = if index % 4 == 0 { 4 } else { packet.len() };
            let bit = random.below(bytes * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
            let (error, read, _) = refusal(suite, packet, 1);
            seen.insert((format!("{error:?}"), read));
        }
        assert_eq!(seen.len(), 1, "{suite}: {seen:?}");
    }
}

#[test]
fn a_packet_lost_repeated_or_swapped_is_refused() {
    for suite in every_suite() {
        let mut sender = Sender::with_test_keys(suite);
        let packets = [b"one", b"two"].map(|payload| sealed(&mut sender, payload));
        for order in [&[1][..], &[0, 0], &[1, 0]] {
            let mut bytes: Vec<u8> = order
                .iter()
                .flat_map(|&index: &usize| packets[index].clone())
                .collect();
            bytes.resize(bytes.len() + BEHIND, 0);
            let mut receiver = Receiver::with_test_keys(suite, SHORT);
            let outcome = opened(&mut receiver, bytes);
            assert!(outcome.is_err(), "{suite} {order:?}");
        }
    }
}

/// Lengths around every limit that there is, and around what overflows.
const LENGTHS: [u32; 64] = [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    19,
    20,
    21,
    23,
    24,
    25,
    27,
    28,
    29,
    31,
    32,
    33,
    35,
    36,
    44,
    60,
    64,
    1020,
    1023,
    1024,
    1025,
    1028,
    1036,
    2040,
    2048,
    34_996,
    35_000,
    35_001,
    35_004,
    0xfff0,
    0x1_0000,
    262_144,
    263_164,
    263_168,
    263_169,
    263_180,
    0xff_ffff,
    0x100_0000,
    0x7fff_fff0,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_fffb,
    0xffff_fffc,
    0xffff_fffe,
    0xffff_ffff,
];

/// A packet whose length field is `len`, sealed as it stands; `padding` is its padding length.
fn named(suite: Option<Suite>, len: u32, padding: u8, body: usize) -> Vec<u8> {
    let mut sealing = match suite {
        Some(suite) => crate::crypto::Sealing::new(suite, &recv::test_keys(suite)),
        None => crate::crypto::Sealing::Clear,
    };
    let shape = sealing.shape();
    let mut packet = len.to_be_bytes().to_vec();
    packet.push(padding);
    packet.resize(4 + body, 9);
    let mut tag = vec![0; shape.tag];
    sealing.seal(0, &mut packet, &mut tag);
    packet.extend(tag);
    packet
}

#[test]
fn every_boundary_of_the_length_is_kept_under_every_suite_before_and_after_keys_and_login() {
    let suites = std::iter::once(None).chain(every_suite().into_iter().map(Some));
    for suite in suites {
        let shape = match suite {
            Some(suite) => crate::crypto::Opening::new(suite, &recv::test_keys(suite)).shape(),
            None => crate::crypto::Opening::Clear.shape(),
        };
        for len_max in [PACKET_LEN_MAX_BEFORE_AUTH, PACKET_LEN_MAX] {
            for len in LENGTHS {
                let lens = usize::try_from(len).unwrap();
                let padded = lens + if shape.length_is_padded { 4 } else { 0 };
                let good = len <= len_max && len >= 6 && padded.is_multiple_of(shape.block);
                // What is not sealed under that length is some block that names it.
                let body = if good {
                    lens
                } else {
                    shape.block * 4 - if shape.length_is_padded { 4 } else { 0 }
                };
                let mut packet = named(suite, len, 4, body);
                let exact = packet.len();
                packet.resize(exact.max(300_000), 0);
                let mut receiver = match suite {
                    Some(suite) => Receiver::with_test_keys(suite, len_max),
                    None => Receiver::new(len_max),
                };
                let mut input = Input::new(&mut packet);
                let outcome = receiver.next(&mut input);
                if good {
                    let opened = outcome.unwrap().unwrap();
                    assert_eq!(opened.payload.bytes.len(), lens - 5, "{suite:?} {len}");
                    assert_eq!(input.position(), exact);
                } else {
                    assert!(outcome.is_err(), "{suite:?} {len} {outcome:?}");
                }
            }
        }
    }
}

#[test]
fn padding_has_a_least_and_leaves_a_payload_under_every_suite() {
    let suites = std::iter::once(None).chain(every_suite().into_iter().map(Some));
    for suite in suites {
        // As many bytes behind the length as fill blocks, whether it counts towards them or not.
        let counts = suite.is_none_or(|suite| suite.mac.is_some_and(|mac| !mac.is_etm()));
        for len in [16_usize, 32, 288].map(|len| if counts { len - 4 } else { len }) {
            for padding in 0..=255 {
                let mut packet = named(suite, u32::try_from(len).unwrap(), padding, len);
                let mut receiver = match suite {
                    Some(suite) => Receiver::with_test_keys(suite, SHORT),
                    None => Receiver::new(SHORT),
                };
                let outcome = receiver.next(&mut Input::new(&mut packet));
                let fits = padding >= 4 && usize::from(padding) + 2 <= len;
                match outcome {
                    Ok(Some(opened)) => {
                        assert!(fits, "{suite:?} {padding}");
                        let payload = len - 1 - usize::from(padding);
                        assert_eq!(opened.payload.bytes.len(), payload);
                    }
                    other => {
                        assert_eq!(other.err(), Some(PacketError::BadPadding));
                        assert!(!fits, "{suite:?} {padding}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_last_packet_under_a_set_of_keys_is_the_last() {
    let suites = std::iter::once(None).chain(every_suite().into_iter().map(Some));
    for suite in suites {
        let fresh = || match suite {
            Some(suite) => (
                Sender::with_test_keys(suite),
                Receiver::with_test_keys(suite, SHORT),
            ),
            None => (Sender::new(), Receiver::new(SHORT)),
        };
        let (mut sender, mut receiver) = fresh();
        sender.pretend_used(PACKETS_MAX - 3, 0);
        receiver.pretend_used(PACKETS_MAX - 3, 0);
        assert!(sender.is_exhausted(), "no bulk data so late");
        assert!(sender.slots(1, 10, 10).is_none());
        for _ in 0..3 {
            let bytes = sealed(&mut sender, b"payload");
            assert_eq!(opened(&mut receiver, bytes).unwrap().len(), 1);
        }
        assert_eq!(sender.send(b"payload"), Err(SendError::Exhausted));
        assert!(sender.output().is_empty());
        // A sender that goes on all the same.
        sender.pretend_used(0, 0);
        let bytes = sealed(&mut sender, b"payload");
        assert_eq!(opened(&mut receiver, bytes), Err(PacketError::Exhausted));
        // New keys, and all is well again.
        if let Some(suite) = suite {
            let keys = recv::test_keys(suite);
            sender.install(suite, &keys, true);
            receiver.install(suite, &keys, true);
            assert_eq!(sender.used(), (0, 0));
            let bytes = sealed(&mut sender, b"payload");
            assert_eq!(opened(&mut receiver, bytes).unwrap().len(), 1);
        }
    }
}

#[test]
fn so_many_bytes_under_a_set_of_keys_are_enough() {
    for suite in every_suite() {
        let mut sender = Sender::with_test_keys(suite);
        let mut receiver = Receiver::with_test_keys(suite, SHORT);
        let want = sender.rekey_bytes();
        assert_eq!(receiver.rekey_bytes(), want);
        let expected = match suite.cipher {
            CipherName::ChaCha20Poly1305 => 1 << 30,
            cipher if cipher.is_cbc() => 1 << 30,
            _ => 64_u64 << 30,
        };
        assert_eq!(want, expected, "{suite}");
        sender.pretend_used(5, 2 * want - 1);
        receiver.pretend_used(5, 2 * want - 1);
        assert!(!sender.is_exhausted());
        let bytes = sealed(&mut sender, b"payload");
        assert_eq!(opened(&mut receiver, bytes).unwrap().len(), 1);
        assert!(sender.is_exhausted());
        assert!(sender.slots(1, 10, 10).is_none());
        let last_word = sealed(&mut sender, b"payload");
        assert_eq!(
            opened(&mut receiver, last_word),
            Err(PacketError::Exhausted)
        );
    }
}

#[test]
fn a_password_of_any_length_makes_a_packet_of_one_length() {
    for suite in every_suite() {
        let mut lens = std::collections::BTreeSet::new();
        for password in 1..=100 {
            let mut sender = Sender::with_test_keys(suite);
            let payload = vec![50; 44 + password]; // a request for a user with a short name
            sender.send_padded(&payload).unwrap();
            lens.insert(sender.output().len());
        }
        assert_eq!(lens.len(), 1, "{suite}: {lens:?}");
        for payload in 1..1500 {
            let mut sender = Sender::with_test_keys(suite);
            sender.send_padded(&vec![50; payload]).unwrap();
            let whole = sender.output().len();
            let receiver = Receiver::with_test_keys(suite, PACKET_LEN_MAX);
            let padded = whole - receiver.overhead();
            assert!(padded.is_multiple_of(PADDED_MULTIPLE), "{suite} {payload}");
        }
    }
}

#[test]
fn tags_are_never_shortened() {
    for suite in every_suite() {
        let tag = match suite.mac {
            None => 16,
            Some(MacName::HmacSha1 | MacName::HmacSha1Etm) => 20,
            Some(MacName::HmacSha256 | MacName::HmacSha256Etm) => 32,
            Some(MacName::HmacSha512 | MacName::HmacSha512Etm) => 64,
        };
        // A byte of padding length, 27 or 23 of payload, four of padding: two blocks of any cipher.
        let counts = suite.mac.is_some_and(|mac| !mac.is_etm());
        let payload = if counts { 23 } else { 27 };
        let bytes = sealed(&mut Sender::with_test_keys(suite), &[1; 27][..payload]);
        let padded = if counts { 32 } else { 4 + 32 };
        assert_eq!(bytes.len(), padded + tag, "{suite}");
    }
    let names: Vec<_> = MacName::ALL.iter().map(|mac| mac.name()).collect();
    assert_eq!(
        names,
        [
            "hmac-sha2-256-etm@openssh.com",
            "hmac-sha2-512-etm@openssh.com",
            "hmac-sha2-256",
            "hmac-sha2-512",
            "hmac-sha1-etm@openssh.com",
            "hmac-sha1",
        ]
    );
    assert!(
        names
            .iter()
            .all(|name| !name.contains("96") && !name.contains("umac-64"))
    );
}
