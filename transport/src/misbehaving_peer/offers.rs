//! What a peer offers and chooses in a key exchange that is weak: groups of a server's own (RFC
//! 4419, CVE-2019-13115), no strict key exchange where it is required, algorithms of yesterday.

use ketch_wire::Reader;

use super::{Offer, Outcome, Rig, Role, last_word, misbehaved, payload};
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::kex::{GroupChoice, GroupRequest};
use crate::message::number;
use crate::message::transport::DisconnectReason;
use crate::profile::Preferences;

const BOTH: [Role; 2] = [Role::Client, Role::Server];

/// A client that was offered a group, and what came of it.
fn offered(p: &[u8], g: &[u8]) -> (Rig, Outcome) {
    let kex = "diffie-hellman-group-exchange-sha256";
    let mut rig = Rig::new(
        Role::Client,
        Offer {
            kex,
            ..Offer::default()
        },
    );
    let told = rig.tell_kexinit().unwrap();
    let request = told.heard.last().unwrap();
    assert_eq!(request[0], number::KEX_DH_GEX_REQUEST);
    let request = GroupRequest::decode(Reader::new(&request[1..])).unwrap();
    assert_eq!((request.min, request.max), (3072, 4096));
    let outcome = rig.tell(&payload(|w| GroupChoice { p, g }.encode(w)));
    (rig, outcome)
}

/// An odd number of so many bits; nothing else is promised of it.
fn odd(bits: usize) -> Vec<u8> {
    let mut number = vec![0x5b; bits / 8 + 1];
    number[0] = 0; // an mpint is not negative
    number[1] |= 0x80;
    number
}

#[test]
fn a_group_that_is_not_safe_is_refused() {
    let p = odd(3072);
    let mut even = p.clone();
    *even.last_mut().unwrap() &= 0xfe;
    let mut negative = p.clone();
    negative.remove(0);
    let (zero, one): (&[u8], &[u8]) = (&[], &[1]);
    let unsafe_groups: [(&[u8], &[u8]); 14] = [
        (&odd(1024), &[2]),
        (&odd(2048), &[2]),
        (&odd(3064), &[2]),
        (&odd(8200), &[2]),
        (&odd(16_384), &[2]),
        (&even, &[2]),
        (&p, &[2]), // no prime
        (&p, &p),
        (&p, zero),
        (&p, one),
        (&negative, &[2]),
        (zero, zero),
        (one, one),
        (&[2], one),
    ];
    for (p, g) in unsafe_groups {
        let (mut rig, outcome) = offered(p, g);
        assert!(
            matches!(
                misbehaved(outcome),
                PeerMisbehaved::UnsafeGroup | PeerMisbehaved::Malformed { .. }
            ),
            "{p:?} {g:?}"
        );
        let heard = rig.listen();
        assert_eq!(heard.len(), 1, "no public value left");
        let reason = last_word(&heard);
        assert!(
            [
                DisconnectReason::KEY_EXCHANGE_FAILED.0,
                DisconnectReason::PROTOCOL_ERROR.0
            ]
            .contains(&reason)
        );
    }
}

#[test]
fn who_requires_strict_key_exchange_gets_it() {
    for role in BOTH {
        for strict in [false, true] {
            let offer = Offer {
                strict,
                ..Offer::default()
            };
            let mut rig = Rig::unidentified_as(role, offer, |preferences: &mut Preferences| {
                preferences.require_strict = true;
            });
            rig.identify();
            let outcome = rig.tell_kexinit();
            if strict {
                outcome.unwrap();
                continue;
            }
            assert_eq!(misbehaved(outcome), PeerMisbehaved::NotStrict);
            assert_eq!(
                last_word(&rig.listen()),
                DisconnectReason::KEY_EXCHANGE_FAILED.0
            );
        }
    }
}

#[test]
fn without_strict_key_exchange_no_encrypt_then_mac_goes_with_cbc() {
    // The cipher is in no list by default; who asks for it gets it with strict key exchange alone.
    for role in BOTH {
        for (strict, mac, is_taken) in [
            (true, "hmac-sha2-256-etm@openssh.com", true),
            (false, "hmac-sha2-256-etm@openssh.com", false),
            (false, "hmac-sha2-256", true),
        ] {
            let offer = Offer {
                strict,
                mac,
                cipher: "aes256-cbc",
                ..Offer::default()
            };
            let mut rig = Rig::unidentified_as(role, offer, |preferences: &mut Preferences| {
                *preferences = crate::profile::Profile::Legacy.for_client();
                preferences.kex = vec![crate::algorithm::Kex::Curve25519Sha256];
            });
            rig.identify();
            match rig.tell_kexinit() {
                Ok(_) => assert!(is_taken, "{role:?} {strict} {mac}"),
                Err(ConnectionError::Misbehaved(PeerMisbehaved::NotStrict)) => assert!(!is_taken),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
