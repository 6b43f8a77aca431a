//! Bytes that are no packets, and the last words that end a connection.

use std::collections::BTreeSet;

use super::{CHANNEL, Offer, Rig, Role, State, data, last_word};
use crate::error::ConnectionError;
use crate::message::number;
use crate::message::transport::DisconnectReason;
use crate::packet::{IdentificationError, PACKET_LEN_MAX, PACKET_LEN_MAX_BEFORE_AUTH, PacketError};
use crate::pair::Seeded;

const BOTH: [Role; 2] = [Role::Client, Role::Server];
const CIPHERS: [&str; 3] = [
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
];

fn in_use(role: Role, cipher: &'static str) -> Rig {
    let mut rig = Rig::new(
        role,
        Offer {
            cipher,
            ..Offer::default()
        },
    );
    rig.walk(State::InUse);
    rig
}

#[test]
fn who_does_not_speak_ssh_2_is_told_so() {
    let lines: [(&[u8], IdentificationError); 3] = [
        (b"SSH-1.5-old\r\n", IdentificationError::Version),
        (b"SSH-2.0-a\x07\r\n", IdentificationError::NotPrintable),
        (&[b'S'; 300], IdentificationError::TooLong),
    ];
    for role in BOTH {
        for (line, error) in lines {
            let mut rig = Rig::unidentified(role, Offer::default());
            let outcome = rig.feed(&mut line.to_vec()).unwrap_err();
            assert_eq!(outcome, ConnectionError::Identification(error));
            // A line, then a client's KEXINIT, and DISCONNECT in clear.
            let output = rig.machine.output();
            let behind = output.iter().position(|&byte| byte == b'\n').unwrap() + 1;
            rig.machine.output_taken(behind);
            let heard = rig.listen();
            let reason = DisconnectReason::PROTOCOL_VERSION_NOT_SUPPORTED.0;
            let packets = rig.by_role(2, 1);
            assert_eq!((heard.len(), last_word(&heard)), (packets, reason));
        }
    }
}

#[test]
fn lengths_are_bounded_before_and_after_login() {
    for role in BOTH {
        for cipher in CIPHERS {
            for (state, max) in [
                (State::BeforeService, PACKET_LEN_MAX_BEFORE_AUTH),
                (State::InUse, PACKET_LEN_MAX),
            ] {
                let max = usize::try_from(max).unwrap();
                // Length and padding are at most 33 bytes around the payload.
                for (len, fits) in [(max - 40, true), (max + 1, false), (700_000, false)] {
                    let mut rig = Rig::new(
                        role,
                        Offer {
                            cipher,
                            ..Offer::default()
                        },
                    );
                    rig.walk(state);
                    let mut message = vec![0; len];
                    message[0] = number::IGNORE;
                    let outcome = rig.tell(&message);
                    if fits {
                        outcome.unwrap();
                    } else {
                        let expected = ConnectionError::Packet(PacketError::BadLength);
                        assert_eq!(outcome.unwrap_err(), expected);
                    }
                }
            }
        }
    }
}

#[test]
fn a_length_that_is_too_large_is_not_waited_for() {
    for role in BOTH {
        for state in [State::BeforeKexInit, State::BeforeService, State::InUse] {
            let mut rig = Rig::at(role, true, state);
            let outcome = rig.feed(&mut [0xff, 0xff, 0xff, 0xf0]).unwrap_err();
            assert_eq!(outcome, ConnectionError::Packet(PacketError::BadLength));
        }
    }
}

#[test]
fn whatever_bit_was_changed_the_answer_is_the_same() {
    let mut random = Seeded::new(3);
    for role in BOTH {
        for cipher in CIPHERS {
            let mut words = BTreeSet::new();
            for _ in 0..60 {
                let mut rig = in_use(role, cipher);
                rig.sender.send(&data(CHANNEL, &[7; 200])).unwrap();
                let mut bytes = rig.sender.output().to_vec();
                let bit = random.below(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                // Enough behind it that a longer length does not only make the machine wait.
                bytes.resize(bytes.len() + 300_000, 0);
                let outcome = rig.feed(&mut bytes);
                assert!(
                    matches!(outcome, Err(ConnectionError::Packet(_))),
                    "{outcome:?}"
                );
                let heard = rig.listen();
                assert_eq!(last_word(&heard), DisconnectReason::MAC_ERROR.0);
                words.insert(heard);
            }
            assert_eq!(words.len(), 1, "a word for every cause would be an oracle");
        }
    }
}

#[test]
fn packets_lost_repeated_or_swapped_end_the_connection() {
    for role in BOTH {
        for cipher in CIPHERS {
            for order in [&[1][..], &[0, 0], &[1, 0]] {
                let mut rig = in_use(role, cipher);
                let packets = [b"one", b"two"].map(|text| {
                    rig.sender.send(&data(CHANNEL, text)).unwrap();
                    let bytes = rig.sender.output().to_vec();
                    rig.sender.consume(bytes.len());
                    bytes
                });
                let mut bytes: Vec<u8> = order
                    .iter()
                    .flat_map(|&at: &usize| packets[at].clone())
                    .collect();
                // Under the wrong counter ChaCha20's length is noise: have enough for any.
                bytes.resize(bytes.len() + 300_000, 0);
                let outcome = rig.feed(&mut bytes);
                assert!(
                    matches!(outcome, Err(ConnectionError::Packet(_))),
                    "{outcome:?}"
                );
            }
        }
    }
}

#[test]
fn a_disconnect_is_heard_and_kept_short() {
    for role in BOTH {
        for state in [
            State::BeforeKexInit,
            State::BeforePublic,
            State::InLogin,
            State::RekeyBeforePublic,
        ] {
            let mut rig = Rig::at(role, true, state);
            let message = super::payload(|w| {
                w.u8(number::DISCONNECT);
                w.u32(2);
                w.string(&[b'x'; 10_000]);
            });
            match rig.tell(&message) {
                Err(ConnectionError::Disconnected {
                    reason,
                    description,
                }) => {
                    assert_eq!((reason.0, description.len()), (2, 512));
                }
                other => panic!("{other:?}"),
            }
            assert!(rig.listen().is_empty(), "nobody is left to talk to");
        }
    }
}
