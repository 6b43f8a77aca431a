//! Key exchanges that are not as RFC 4253 §7 to §9, RFC 8731 §3 and strict key exchange have them.

use std::time::Duration;

use ketch_wire::Reader;

use super::{CHANNEL, key_pair, only, userauth_request};
use super::{Offer, Outcome, PEER_CHANNEL, Rig, Role, State, data, last_word, misbehaved, payload};
use crate::algorithm::SignatureAlgorithm;
use crate::channel::ChannelId;
use crate::config::ServerConfig;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::auth::{MethodRequest, encode_signed_data};
use crate::message::connection::WindowAdjust;
use crate::message::kex::{ClientPublic, ServerReply};
use crate::message::number;
use crate::message::transport::{DisconnectReason, Service, Unimplemented};
use crate::packet::{Input, PACKET_DATA_MAX};

const BOTH: [Role; 2] = [Role::Client, Role::Server];

/// Sequence number of the packet that the machine takes next, as it says itself.
fn next_sequence(rig: &mut Rig) -> u32 {
    let told = rig.tell(&[200]).unwrap();
    let reply = &told.heard[0];
    assert_eq!(reply[0], number::UNIMPLEMENTED);
    Unimplemented::decode(Reader::new(&reply[1..]))
        .unwrap()
        .sequence
}

#[test]
fn strict_counters_start_at_zero_behind_every_newkeys() {
    for role in BOTH {
        for (strict, cipher) in [
            (true, "aes256-gcm@openssh.com"),
            (true, "chacha20-poly1305@openssh.com"), // the counter is its nonce
            (false, "aes128-gcm@openssh.com"),
        ] {
            let mut rig = Rig::new(
                role,
                Offer {
                    strict,
                    cipher,
                    ..Offer::default()
                },
            );
            rig.walk(State::InUse);
            let mut told = rig.sender.sequence();
            for _ in 0..3 {
                assert_eq!(next_sequence(&mut rig), told, "before the exchange");
                let heard = rig.machine.outbox.sender.sequence();
                rig.rekey().unwrap();
                // KEXINIT, public value, NEWKEYS: these came and went under the old counters.
                let expected = if strict { 0 } else { told + 4 };
                assert_eq!(next_sequence(&mut rig), expected, "{role:?} {cipher}");
                let ours = rig.machine.outbox.sender.sequence();
                assert_eq!(ours, if strict { 1 } else { heard + 4 });
                assert_eq!(rig.receiver.sequence(), ours);
                told = expected + 1;
            }
            let told = rig.tell(&data(CHANNEL, b"data")).unwrap();
            assert_eq!(told.events.len(), 1);
        }
    }
}

/// The message with a public value of the peer's choice.
fn public_value(rig: &Rig, public: &[u8]) -> Vec<u8> {
    match rig.role {
        Role::Server => payload(|w| ClientPublic { public }.encode(number::KEX_ECDH_INIT, w)),
        Role::Client => {
            let host_key = rig.host_key.public_key().as_blob();
            let signature = rig
                .host_key
                .sign(SignatureAlgorithm::Ed25519, b"another hash")
                .unwrap();
            payload(|w| {
                ServerReply {
                    host_key,
                    public,
                    signature: &signature,
                }
                .encode(number::KEX_ECDH_REPLY, w)
            })
        }
    }
}

#[test]
fn impossible_public_values_are_refused() {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83,
            0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd,
            0xd0, 0x9f, 0x11, 0x57,
        ],
    ];
    let mut values = vec![vec![], vec![9; 31], vec![9; 33], vec![9; 64], vec![0; 32]];
    values.extend(ORDER_8.map(Vec::from));
    let mut one = vec![0; 32];
    one[0] = 1;
    values.push(one);
    // p - 1, p, p + 1 with p = 2^255 - 19
    for low in [0xec, 0xed, 0xee] {
        let mut value = vec![0xff; 32];
        value[0] = low;
        value[31] = 0x7f;
        values.push(value);
    }
    for role in BOTH {
        for state in [State::BeforePublic, State::RekeyBeforePublic] {
            for value in &values {
                let mut rig = Rig::at(role, true, state);
                let message = public_value(&rig, value);
                assert_eq!(
                    misbehaved(rig.tell(&message)),
                    PeerMisbehaved::BadPublicValue,
                    "{value:?}"
                );
                assert_eq!(
                    last_word(&rig.listen()),
                    DisconnectReason::KEY_EXCHANGE_FAILED.0
                );
            }
        }
    }
}

/// A rig whose peer sent `KEXINIT`, announcing a guess or not, with that list of methods.
fn guessing(role: Role, strict: bool, follows: bool, kex: &'static str) -> Rig {
    let mut rig = Rig::new(
        role,
        Offer {
            kex,
            strict,
            follows,
            ..Offer::default()
        },
    );
    rig.tell_kexinit().unwrap();
    rig
}

#[test]
fn a_wrong_guess_is_passed_over_and_nothing_else_is() {
    const RIGHT: &str = "curve25519-sha256";
    const WRONG: &str = "ecdh-sha2-nistp256,curve25519-sha256";
    let guess: &[u8] = &[30, 0, 0, 0, 3, 1, 2, 3];
    let goes_on = |rig: &mut Rig| -> Outcome {
        rig.tell_public()?;
        rig.tell_newkeys()
    };
    for role in BOTH {
        for strict in [false, true] {
            // A right guess, and no guess at all, whichever method is first: the packet counts.
            for (follows, kex) in [(true, RIGHT), (false, RIGHT), (false, WRONG)] {
                goes_on(&mut guessing(role, strict, follows, kex)).unwrap();
                let mut rig = guessing(role, strict, follows, kex);
                misbehaved(rig.tell(guess));
            }
            let mut rig = guessing(role, strict, true, WRONG);
            let told = rig.tell(guess).unwrap();
            assert!(told.events.is_empty() && told.heard.is_empty());
            goes_on(&mut rig).unwrap();
            // One, not two.
            let mut rig = guessing(role, strict, true, WRONG);
            rig.tell(guess).unwrap();
            misbehaved(rig.tell(guess));
            // The wrong guess itself has to come, and be of the method: NEWKEYS is none.
            let mut rig = guessing(role, strict, true, WRONG);
            misbehaved(rig.tell(&[number::NEWKEYS]));
            let mut rig = guessing(role, strict, true, WRONG);
            let second = rig.kexinit();
            misbehaved(rig.tell(&second));
        }
    }
}

#[test]
fn a_host_that_changes_its_key_is_another_host() {
    let mut rig = Rig::at(Role::Client, true, State::InUse);
    rig.rekey().unwrap();
    rig.tell_kexinit().unwrap();
    rig.host_key = key_pair(2);
    assert_eq!(misbehaved(rig.tell_public()), PeerMisbehaved::BadHostKey);
    let heard = rig.listen();
    assert!(
        heard.iter().all(|message| message[0] != number::NEWKEYS),
        "no keys of that exchange"
    );
}

/// The reply of a rig in `BeforePublic`, taken apart and put together anew.
fn altered_reply(rig: &mut Rig, alter: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> Outcome {
    let message = rig.public();
    let reply = ServerReply::decode(Reader::new(&message[1..])).unwrap();
    let (mut host_key, mut signature) = (reply.host_key.to_vec(), reply.signature.to_vec());
    alter(&mut host_key, &mut signature);
    let altered = ServerReply {
        host_key: &host_key,
        public: reply.public,
        signature: &signature,
    };
    rig.tell(&payload(|w| altered.encode(number::KEX_ECDH_REPLY, w)))
}

#[test]
fn a_host_proves_itself_with_its_key_over_this_exchange() {
    for state in [State::BeforePublic, State::RekeyBeforePublic] {
        let at = || Rig::at(Role::Client, true, state);
        altered_reply(&mut at(), |_, _| {}).unwrap();
        let bit_flips = [20, 50, 82];
        for flip in bit_flips {
            let outcome = altered_reply(&mut at(), |_, signature| signature[flip] ^= 1);
            assert_eq!(misbehaved(outcome), PeerMisbehaved::BadHostSignature);
        }
        let other = key_pair(2)
            .sign(SignatureAlgorithm::Ed25519, b"hash")
            .unwrap();
        let outcome = altered_reply(&mut at(), |_, signature| *signature = other);
        assert_eq!(misbehaved(outcome), PeerMisbehaved::BadHostSignature);
        // Somebody else's key changes the hash, and does not fit the signature either.
        let other = key_pair(2).public_key().as_blob().to_vec();
        let outcome = altered_reply(&mut at(), |host_key, _| *host_key = other);
        assert_eq!(misbehaved(outcome), PeerMisbehaved::BadHostSignature);
        let outcome = altered_reply(&mut at(), |host_key, _| host_key[6] = b'x');
        assert_eq!(misbehaved(outcome), PeerMisbehaved::BadHostKey);
    }
}

#[test]
fn nothing_leaves_before_the_host_key_is_accepted() {
    let mut rig = Rig::at(Role::Client, true, State::BeforePublic);
    let reply = rig.public();
    rig.sender.send(&reply).unwrap();
    rig.sender.send(&[number::NEWKEYS]).unwrap();
    let mut bytes = rig.sender.output().to_vec();
    let mut input = Input::new(&mut bytes);
    let event = rig.machine.next(&mut input, rig.now).unwrap();
    assert!(event.is_some() && rig.machine.is_waiting());
    assert!(
        rig.machine.next(&mut input, rig.now).unwrap().is_none(),
        "waits for the verdict"
    );
    assert!(input.remaining() > 0 && rig.machine.output().is_empty());
}

#[test]
fn the_session_identifier_is_the_first_exchanges() {
    let mut rig = Rig::at(Role::Server, true, State::BeforeService);
    let first = rig.session_id().unwrap();
    rig.rekey().unwrap();
    let second = rig.agreed.as_ref().unwrap().hash;
    assert_ne!(first, second);
    let service = Service {
        name: Service::USERAUTH,
    };
    rig.tell(&payload(|w| service.encode(number::SERVICE_REQUEST, w)))
        .unwrap();
    let user = key_pair(5);
    let key = user.public_key().as_blob();
    let algorithm = b"ssh-ed25519";
    for (session_id, is_right) in [(second, false), (first, true)] {
        let data = payload(|w| {
            encode_signed_data(w, session_id.as_bytes(), "ann", algorithm, key, None);
        });
        let signature = user.sign(SignatureAlgorithm::Ed25519, &data).unwrap();
        let method = MethodRequest::PublicKey {
            algorithm,
            key,
            host_key: None,
            signature: &signature,
        };
        let told = rig.tell(&userauth_request(method)).unwrap();
        assert_eq!(told.events.len(), usize::from(is_right));
    }
}

#[test]
fn chacha20_is_not_used_without_strict_key_exchange() {
    let cipher = "chacha20-poly1305@openssh.com";
    for role in BOTH {
        let mut rig = Rig::new(
            role,
            Offer {
                strict: false,
                cipher,
                ..Offer::default()
            },
        );
        assert_eq!(misbehaved(rig.tell_kexinit()), PeerMisbehaved::NotStrict);
        Rig::new(
            role,
            Offer {
                strict: true,
                cipher,
                ..Offer::default()
            },
        )
        .tell_kexinit()
        .unwrap();
    }
}

#[test]
fn nothing_in_common_ends_it_with_reason_3() {
    for role in BOTH {
        for offer in [
            Offer {
                cipher: "aes256-cbc",
                ..Offer::default()
            },
            Offer {
                cipher: "none",
                ..Offer::default()
            },
            Offer {
                kex: "diffie-hellman-group1-sha1",
                ..Offer::default()
            },
            Offer {
                kex: "CURVE25519-SHA256",
                ..Offer::default()
            },
        ] {
            let mut rig = Rig::new(role, offer);
            let outcome = rig.tell_kexinit();
            assert!(
                matches!(outcome, Err(ConnectionError::NoCommonAlgorithm(_))),
                "{outcome:?}"
            );
            assert_eq!(
                last_word(&rig.listen()),
                DisconnectReason::KEY_EXCHANGE_FAILED.0
            );
        }
    }
}

#[test]
fn exchanges_for_nothing_end_the_connection() {
    for role in BOTH {
        let mut rig = Rig::at(role, true, State::InUse);
        let done = std::iter::from_fn(|| rig.rekey().ok()).take(1_000).count();
        assert!((150..=200).contains(&done), "{done}");
        // The first come as fast as the peer likes, the others twice a second.
        let mut rig = Rig::at(role, true, State::InUse);
        let began = rig.now;
        for _ in 0..20 {
            rig.rekey().unwrap();
        }
        assert_eq!(rig.now, began);
        for _ in 0..10 {
            rig.rekey().unwrap();
        }
        assert!(rig.now >= began + Duration::from_secs(4));
        let mut rig = Rig::at(role, true, State::InUse);
        let outcome = (0..1_000).find_map(|_| rig.rekey().err());
        assert_eq!(
            misbehaved(Err(outcome.unwrap())),
            PeerMisbehaved::RekeyStorm
        );
    }
}

#[test]
fn exchanges_between_which_something_is_carried_go_on_for_ever() {
    // As sshd asks for them under a small `RekeyLimit`, in the middle of an upload or a download.
    let piece = vec![0; PACKET_DATA_MAX];
    for role in BOTH {
        let mut rig = Rig::at(role, true, State::InUse);
        let adjust = WindowAdjust {
            recipient: CHANNEL,
            bytes: 1 << 30,
        };
        rig.tell(&payload(|w| adjust.encode(w))).unwrap();
        for _ in 0..300 {
            rig.machine.send(ChannelId(CHANNEL), &piece).unwrap();
            rig.machine.flush(rig.now).unwrap();
            let sent = rig.listen();
            assert_eq!(sent[0][..5], only(number::CHANNEL_DATA, PEER_CHANNEL));
            rig.rekey().unwrap();
        }
        let mut rig = Rig::at(role, true, State::InUse);
        for _ in 0..300 {
            rig.tell(&data(CHANNEL, &piece)).unwrap();
            rig.machine.give_credit(ChannelId(CHANNEL), piece.len());
            rig.rekey().unwrap();
        }
    }
}

#[test]
fn a_server_computes_nothing_before_it_may() {
    // A sound value, and one that is none: both wait, and only then is anything said.
    for is_sound in [true, false] {
        let asking = |config: &mut ServerConfig| config.ask_before_keys = true;
        let mut rig = Rig::unidentified_with(Role::Server, Offer::default(), asking);
        rig.identify();
        rig.walk(State::BeforePublic);
        let value = match is_sound {
            true => [9; 32],
            false => [0; 32],
        };
        let told = rig.tell(&public_value(&rig, &value)).unwrap();
        assert_eq!(told.events, ["KeysWanted"]);
        assert!(told.heard.is_empty() && rig.machine.is_waiting());
        // The time until then is not the client's.
        rig.wait(Duration::from_secs(3600)).unwrap();
        rig.machine.resume_clock(rig.now);
        let outcome = rig.machine.exchange_keys(rig.now);
        assert_eq!(outcome.is_ok(), is_sound, "{outcome:?}");
        assert!(!rig.machine.is_waiting());
        assert!(!rig.machine.output().is_empty());
    }
}
