//! A peer that keeps a machine busy: pings, requests for proofs, errors without end, key exchanges
//! that are never finished or never begun.

use std::sync::Arc;
use std::time::Duration;

use ketch_wire::Writer;

use super::channels::{extended, in_use, numbers};
use super::{CHANNEL, Offer, Outcome, Rig, Role, State, data};
use super::{key_pair, misbehaved, payload};
use crate::channel::ChannelId;
use crate::config::HostKey;
use crate::error::{ConnectionError, Deadline, PeerMisbehaved};
use crate::message::connection::{GlobalRequest, Ping};
use crate::message::number;
use crate::packet::Input;

const BOTH: [Role; 2] = [Role::Client, Role::Server];

/// Seals a payload and gives it to the machine, which says nothing that anybody takes.
fn shout(rig: &mut Rig, payload: &[u8]) -> Result<(), ConnectionError> {
    rig.sender.send(payload).unwrap();
    let mut bytes = rig.sender.output().to_vec();
    rig.sender.consume(bytes.len());
    let mut input = Input::new(&mut bytes);
    while rig.machine.next(&mut input, rig.now)?.is_some() {}
    Ok(())
}

fn ping(len: usize) -> Vec<u8> {
    let content = vec![7; len];
    payload(|w| Ping { data: &content }.encode(number::PING, w))
}

/// CVE-2025-26466: answers that wait for the end of a key exchange.
#[test]
fn pings_are_not_answered_before_the_login_and_pile_up_nowhere() {
    for role in BOTH {
        for state in [State::BeforeService, State::InLogin] {
            let mut rig = Rig::at(role, true, state);
            for _ in 0..1_000 {
                if shout(&mut rig, &ping(30_000)).is_err() {
                    break;
                }
            }
            let heard = numbers(&rig.listen());
            assert!(!heard.contains(&number::PONG), "{role:?} {state:?}");
        }
        // In an exchange that we started pings may still be on their way: one answer waits.
        let mut rig = Rig::at(role, true, State::RekeyAsked);
        for _ in 0..1_000 {
            shout(&mut rig, &ping(30_000)).unwrap();
        }
        assert!(rig.machine.output().len() < 64 * 1024);
        rig.rekey().unwrap();
        // Without anybody who reads them, answers end at a bound.
        let mut rig = in_use(role);
        for _ in 0..3_000 {
            shout(&mut rig, &ping(30_000)).unwrap();
        }
        assert!(rig.machine.output().len() < 128 * 1024);
        let heard = numbers(&rig.listen());
        assert!(heard.contains(&number::PONG) && heard.len() < 10);
    }
}

#[test]
fn a_host_key_signs_one_proof_whatever_is_asked() {
    let keys: Vec<Arc<HostKey>> = [1, 3].map(|seed| Arc::new(key_pair(seed).into())).into();
    let mut rig = Rig::unidentified_with(Role::Server, Offer::default(), |config| {
        config.announce_host_keys = true;
        config.host_keys = keys.into();
    });
    rig.identify();
    rig.walk(State::InUse);
    let ask = |seeds: &[u8]| {
        let mut asked = Vec::new();
        let mut w = Writer::new(&mut asked);
        for &seed in seeds {
            w.string(key_pair(seed).public_key().as_blob());
        }
        let request = GlobalRequest {
            name: GlobalRequest::PROVE_HOST_KEYS,
            want_reply: true,
            data: &asked,
        };
        payload(|w| request.encode(w))
    };
    let answers = |rig: &mut Rig, seeds: &[u8]| numbers(&rig.tell(&ask(seeds)).unwrap().heard);
    // A key of somebody else, the same twice, one too many: nothing is signed.
    for wrong in [&[9][..], &[1, 1], &[1, 9], &[]] {
        assert_eq!(answers(&mut rig, wrong), [number::REQUEST_FAILURE]);
    }
    assert_eq!(answers(&mut rig, &[3]), [number::REQUEST_SUCCESS]);
    assert_eq!(answers(&mut rig, &[1]), [number::REQUEST_SUCCESS]);
    for _ in 0..1_000 {
        rig.wait(Duration::from_millis(100)).unwrap();
        assert_eq!(answers(&mut rig, &[1]), [number::REQUEST_FAILURE]);
        assert_eq!(answers(&mut rig, &[3]), [number::REQUEST_FAILURE]);
    }
}

#[test]
fn errors_take_of_the_window_and_other_extended_data_ends_it() {
    for role in BOTH {
        for data_type in [0, 2, u32::MAX] {
            let outcome = in_use(role).tell(&extended(data_type, b"oops"));
            assert_eq!(
                misbehaved(outcome),
                PeerMisbehaved::UnknownExtendedData { data_type }
            );
        }
        // Nobody gives credit back: what was promised is all that comes.
        let mut rig = in_use(role);
        let piece = [b'e'; 10_000];
        let came = std::iter::from_fn(|| rig.tell(&extended(1, &piece)).ok()).take(1_000);
        let came = came.count();
        assert!((1..1_000).contains(&came), "{came}");
        // With credit it goes on for ever.
        let mut rig = in_use(role);
        for _ in 0..1_000 {
            let told = rig.tell(&extended(1, &piece)).unwrap();
            assert_eq!(told.events.len(), 1);
            rig.machine.give_credit(ChannelId(CHANNEL), piece.len());
        }
    }
}

#[test]
fn new_keys_that_do_not_come_in_time_end_it() {
    for role in BOTH {
        for state in [
            State::RekeyAsked,
            State::RekeyBeforePublic,
            State::RekeyBeforeNewKeys,
        ] {
            let mut rig = Rig::at(role, true, state);
            rig.wait(Duration::from_secs(29)).unwrap();
            // Whoever writes waits: what is not sent is bounded by its channel's queue.
            let mut queued = 0;
            while rig.machine.send(ChannelId(CHANNEL), &[0; 10_000]).is_ok() {
                queued += 10_000;
                assert!(queued < 2 << 20);
            }
            assert!(rig.machine.output().len() < 64 * 1024);
            let outcome = rig.wait(Duration::from_secs(1));
            assert!(
                matches!(outcome, Err(ConnectionError::TimedOut(Deadline::Rekey))),
                "{outcome:?}"
            );
        }
    }
}

/// Sends and takes data until the machine asks for new keys.
fn until_new_keys(rig: &mut Rig, most: usize) -> usize {
    for sent in 0..most {
        let heard = tell_data(rig).unwrap().heard;
        if numbers(&heard).contains(&number::KEXINIT) {
            return sent;
        }
    }
    panic!("no new keys");
}

fn tell_data(rig: &mut Rig) -> Outcome {
    let told = rig.tell(&data(CHANNEL, b"x"));
    rig.machine.give_credit(ChannelId(CHANNEL), 1);
    told
}

#[test]
fn keys_wear_out_by_packets_and_by_time() {
    let mut rig = Rig::unidentified_with(Role::Server, Offer::default(), |config| {
        config.common.rekey.packets = 100;
        config.common.rekey.interval = Duration::from_secs(600);
    });
    rig.identify();
    rig.walk(State::InUse);
    let first = until_new_keys(&mut rig, 100);
    assert!((80..100).contains(&first), "{first}");
    rig.rekey().unwrap();
    let second = until_new_keys(&mut rig, 101);
    assert!((90..=100).contains(&second), "{second}");
    rig.rekey().unwrap();
    // The peer is there and says something now and then.
    let asked = (0..700).find(|_| {
        let heard = rig.wait(Duration::from_secs(10)).unwrap().heard;
        if numbers(&heard).contains(&number::GLOBAL_REQUEST) {
            tell_data(&mut rig).unwrap();
        }
        numbers(&heard).contains(&number::KEXINIT)
    });
    assert_eq!(asked, Some(59));
}

/// A peer that goes on under the old keys instead of taking part in the exchange of new ones.
#[test]
fn who_refuses_new_keys_is_left_before_the_old_ones_wear_out() {
    for role in BOTH {
        let mut rig = Rig::at(role, true, State::RekeyAsked);
        let mut told = 0;
        let ended = loop {
            match tell_data(&mut rig) {
                Ok(_) => told += 1,
                Err(error) => break error,
            }
            rig.now += Duration::from_millis(100);
            if let Err(error) = rig.machine.handle_timeout(rig.now) {
                break error;
            }
        };
        assert!(
            matches!(ended, ConnectionError::TimedOut(Deadline::Rekey)),
            "{ended:?}"
        );
        assert!((250..400).contains(&told), "{told}");
    }
}
