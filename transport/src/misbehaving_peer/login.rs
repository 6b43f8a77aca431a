//! Logins that are not as RFC 4252 has them, and deadlines that pass.

use std::time::Duration;

use super::{CHANNEL, Rig, Role, State, data, key_pair, last_word, misbehaved, payload};
use super::{Outcome, userauth_request};
use ketch_keys::PrivateKey;

use crate::algorithm::SignatureAlgorithm;
use crate::channel::ChannelId;
use crate::config::{ClientConfig, ServerConfig};
use crate::connection::Connection;
use crate::crypto::{Random, RandomFailed};
use crate::error::{ConnectionError, Deadline, PeerMisbehaved};
use crate::message::auth::{
    CONNECTION_SERVICE, MethodRequest, PASSWORD_LEN_MAX, USER_LEN_MAX, UserauthRequest,
    encode_signed_data,
};
use crate::message::number;
use crate::message::transport::{DisconnectReason, Service};
use crate::packet::Input;

fn server() -> Rig {
    Rig::at(Role::Server, true, State::InLogin)
}

/// A request with a key and a signature over that session.
fn signed(user: &PrivateKey, name: &str, session_id: &[u8]) -> Vec<u8> {
    let key = user.public_key().as_blob();
    let algorithm = b"ssh-ed25519";
    let data = payload(|w| encode_signed_data(w, session_id, name, algorithm, key, None));
    let signature = user.sign(SignatureAlgorithm::Ed25519, &data).unwrap();
    userauth_request(MethodRequest::PublicKey {
        algorithm,
        key,
        host_key: None,
        signature: &signature,
    })
}

fn is_failure(outcome: Outcome) -> bool {
    let told = outcome.unwrap();
    told.events.is_empty() && told.heard[0][0] == number::USERAUTH_FAILURE
}

#[test]
fn services_that_do_not_exist_end_it_with_reason_7() {
    let service = |number, name| payload(|w| Service { name }.encode(number, w));
    let mut cases = Vec::new();
    for name in [&b"ssh-connection"[..], b"", b"ssh-userauth\0", b"sftp"] {
        cases.push((
            Role::Server,
            State::BeforeService,
            service(number::SERVICE_REQUEST, name),
        ));
        cases.push((
            Role::Client,
            State::BeforeService,
            service(number::SERVICE_ACCEPT, name),
        ));
        let request = UserauthRequest {
            user: "ann",
            service: name,
            method: MethodRequest::None,
        };
        if name != CONNECTION_SERVICE {
            cases.push((Role::Server, State::InLogin, payload(|w| request.encode(w))));
        }
    }
    for (role, state, message) in cases {
        let mut rig = Rig::at(role, true, state);
        assert_eq!(
            misbehaved(rig.tell(&message)),
            PeerMisbehaved::NoSuchService,
            "{message:?}"
        );
        assert_eq!(
            last_word(&rig.listen()),
            DisconnectReason::SERVICE_NOT_AVAILABLE.0
        );
    }
}

#[test]
fn a_signature_counts_in_its_session_for_its_user_and_key_alone() {
    let user = key_pair(5);
    let mut first = server();
    let recorded = signed(&user, "ann", first.session_id().unwrap().as_bytes());
    assert_eq!(first.tell(&recorded).unwrap().events.len(), 1);

    let mut second = Rig::new(Role::Server, super::Offer::default());
    second.random = crate::pair::Seeded::new(99);
    second.walk(State::InLogin);
    let session_id = second.session_id().unwrap();
    assert_ne!(first.session_id(), Some(session_id));
    assert!(is_failure(second.tell(&recorded)), "replayed");
    assert!(
        is_failure(second.tell(&signed(&user, "bob", session_id.as_bytes()))),
        "signed for somebody else"
    );
    let mut flipped = signed(&user, "ann", session_id.as_bytes());
    *flipped.last_mut().unwrap() ^= 1;
    assert!(is_failure(second.tell(&flipped)));
    // The key of one with the signature of another.
    let ours = user.public_key().as_blob();
    let theirs = key_pair(6).public_key().as_blob().to_vec();
    let mut swapped = signed(&user, "ann", session_id.as_bytes());
    let at = swapped
        .windows(ours.len())
        .position(|part| part == ours)
        .unwrap();
    swapped[at..at + ours.len()].copy_from_slice(&theirs);
    assert!(is_failure(second.tell(&swapped)));
    let told = second
        .tell(&signed(&user, "ann", session_id.as_bytes()))
        .unwrap();
    assert!(
        told.events[0].contains("PublicKey(PublicKey("),
        "{:?}",
        told.events
    );
}

#[test]
fn who_is_in_is_who_signed_not_who_was_asked_about() {
    let (ann, bob) = (key_pair(5), key_pair(6));
    let mut rig = server();
    for key in [&ann, &bob] {
        let key = key.public_key().as_blob();
        let query = MethodRequest::PublicKeyQuery {
            algorithm: b"ssh-ed25519",
            key,
            host_key: None,
        };
        rig.tell(&userauth_request(query)).unwrap();
        assert!(
            !rig.machine.accept_auth(rig.now).unwrap(),
            "a query lets nobody in"
        );
        assert_eq!(rig.listen()[0][0], number::USERAUTH_PK_OK);
    }
    let message = signed(&ann, "ann", rig.session_id().unwrap().as_bytes());
    let told = rig.tell(&message).unwrap();
    let expected = format!("PublicKey({:?}, ", ann.public_key());
    assert!(
        told.events[0].contains(&expected),
        "{:?} {expected}",
        told.events
    );
    assert!(rig.machine.accept_auth(rig.now).unwrap());
}

#[test]
fn six_failures_end_it_with_reason_14() {
    for wrong in [
        MethodRequest::Password("guess"),
        MethodRequest::PublicKeyQuery {
            algorithm: b"ssh-ed25519",
            key: key_pair(5).public_key().as_blob(),
            host_key: None,
        },
    ] {
        let mut rig = server();
        for round in 1..=6 {
            let told = rig.tell(&userauth_request(wrong)).unwrap();
            assert_eq!(told.events.len(), 1);
            let outcome = rig.machine.reject_auth();
            if round < 6 {
                outcome.unwrap();
                assert_eq!(rig.listen()[0][0], number::USERAUTH_FAILURE);
            } else {
                assert_eq!(outcome, Err(ConnectionError::TooManyAttempts));
            }
        }
        let reason = DisconnectReason::NO_MORE_AUTH_METHODS_AVAILABLE.0;
        assert_eq!(last_word(&rig.listen()), reason);
    }
    // Failures that nobody is asked about count as well.
    let mut rig = server();
    let rsa = MethodRequest::PublicKeyQuery {
        algorithm: b"ssh-rsa",
        key: b"key",
        host_key: None,
    };
    let outcome = (0..6).find_map(|_| rig.tell(&userauth_request(rsa)).err());
    assert_eq!(outcome, Some(ConnectionError::TooManyAttempts));
}

#[test]
fn requests_that_are_no_failures_are_bounded_too() {
    let mut rig = server();
    for _ in 0..64 {
        rig.tell(&userauth_request(MethodRequest::None)).unwrap();
        rig.machine.reject_auth().unwrap();
        rig.listen();
    }
    let outcome = rig.tell(&userauth_request(MethodRequest::None));
    assert!(matches!(outcome, Err(ConnectionError::TooManyAttempts)));
}

/// paramiko asks for the service anew before each thing it tries.
#[test]
fn the_service_may_be_asked_for_again_but_not_for_ever() {
    let again = payload(|w| {
        let name = Service::USERAUTH;
        Service { name }.encode(number::SERVICE_REQUEST, w);
    });
    let mut rig = server();
    for _ in 0..64 {
        let told = rig.tell(&again).unwrap();
        assert_eq!(told.heard[0][0], number::SERVICE_ACCEPT);
    }
    let outcome = rig.tell(&again);
    assert!(matches!(outcome, Err(ConnectionError::TooManyAttempts)));
}

#[test]
fn names_and_passwords_have_a_longest_length() {
    let request = |user: &str, password: &str| {
        let method = MethodRequest::Password(password);
        payload(|w| {
            UserauthRequest {
                user,
                service: CONNECTION_SERVICE,
                method,
            }
            .encode(w)
        })
    };
    let (user, password) = ("u".repeat(USER_LEN_MAX), "p".repeat(PASSWORD_LEN_MAX));
    assert_eq!(
        server()
            .tell(&request(&user, &password))
            .unwrap()
            .events
            .len(),
        1
    );
    for message in [
        request(&format!("{user}u"), "p"),
        request("u", &format!("{password}p")),
    ] {
        let malformed = misbehaved(server().tell(&message));
        assert!(matches!(
            malformed,
            PeerMisbehaved::Malformed { number: 50, .. }
        ));
    }
}

#[test]
fn of_endless_banners_some_are_shown() {
    let mut rig = Rig::at(Role::Client, true, State::InLogin);
    let banner = payload(|w| {
        w.u8(number::USERAUTH_BANNER);
        w.string(b"hello");
        w.string(b"");
    });
    let shown: usize = (0..100)
        .map(|_| rig.tell(&banner).unwrap().events.len())
        .sum();
    assert_eq!(shown, 16);
}

#[test]
fn every_wait_has_an_end() {
    use State::{BeforeKexInit, BeforeNewKeys, BeforePublic, BeforeService, InLogin};
    let cases = [
        (
            &[BeforeKexInit, BeforePublic, BeforeNewKeys][..],
            30,
            Deadline::Handshake,
        ),
        (&[BeforeService, InLogin], 60, Deadline::Authentication),
        (
            &[State::RekeyAsked, State::RekeyBeforePublic],
            30,
            Deadline::Rekey,
        ),
    ];
    for role in [Role::Client, Role::Server] {
        for (states, seconds, deadline) in &cases {
            for &state in *states {
                let mut rig = Rig::at(role, true, state);
                let almost = Duration::from_secs(*seconds) - Duration::from_millis(1);
                rig.wait(almost).unwrap();
                let outcome = rig.wait(Duration::from_millis(1)).unwrap_err();
                assert_eq!(
                    outcome,
                    ConnectionError::TimedOut(*deadline),
                    "{role:?} {state:?}"
                );
            }
        }
    }
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_however_much_it_says() {
    for role in [Role::Client, Role::Server] {
        let mut rig = Rig::at(role, true, State::InUse);
        rig.machine.send(ChannelId(CHANNEL), b"data").unwrap();
        rig.machine.flush(rig.now).unwrap();
        let mut seconds = 0;
        let outcome = loop {
            seconds += 1;
            rig.now += Duration::from_secs(1);
            // It says something every second, and the stream takes nothing.
            rig.sender.send(&[number::IGNORE, 0, 0, 0, 0]).unwrap();
            let mut bytes = rig.sender.output().to_vec();
            rig.sender.consume(bytes.len());
            let mut input = Input::new(&mut bytes);
            assert!(rig.machine.next(&mut input, rig.now).unwrap().is_none());
            rig.machine.flush(rig.now).unwrap();
            if let Err(error) = rig.machine.handle_timeout(rig.now) {
                break error;
            }
        };
        assert_eq!(outcome, ConnectionError::TimedOut(Deadline::Output));
        assert_eq!(seconds, 60);
    }
}

#[test]
fn single_packets_do_not_put_off_the_end_of_a_login() {
    let mut rig = Rig::at(Role::Server, true, State::InLogin);
    let mut ended = None;
    for second in 1..100 {
        rig.tell(&[number::IGNORE, 0, 0, 0, 0]).unwrap();
        if rig.wait(Duration::from_secs(1)).is_err() {
            ended = Some(second);
            break;
        }
    }
    assert_eq!(ended, Some(60));
}

#[test]
fn a_silent_peer_is_asked_and_then_given_up() {
    for role in [Role::Client, Role::Server] {
        let mut rig = Rig::at(role, true, State::InUse);
        let begun = rig.now;
        for _ in 0..2 {
            assert_eq!(
                rig.machine.poll_timeout(),
                Some(rig.now + Duration::from_secs(30))
            );
            let asked = rig.wait(Duration::from_secs(30)).unwrap();
            assert_eq!(asked.heard[0][0], number::GLOBAL_REQUEST);
        }
        let outcome = rig.wait(Duration::from_secs(30)).unwrap_err();
        assert_eq!(outcome, ConnectionError::TimedOut(Deadline::Keepalive));
        assert_eq!(rig.now - begun, Duration::from_secs(90));
        // Whatever it says, it is there.
        let mut rig = Rig::at(role, true, State::InUse);
        for _ in 0..20 {
            rig.wait(Duration::from_secs(30)).unwrap();
            rig.tell(&data(CHANNEL, b"d")).unwrap();
        }
        // A process that stood still for long asks first, and waits for the answer.
        let mut rig = Rig::at(role, true, State::InUse);
        rig.wait(Duration::from_secs(600)).unwrap();
        rig.wait(Duration::from_secs(29)).unwrap();
        rig.tell(&data(CHANNEL, b"d")).unwrap();
        rig.wait(Duration::from_secs(30)).unwrap();
    }
}

#[test]
fn the_time_of_a_question_is_not_the_peers() {
    let mut rig = server();
    rig.wait(Duration::from_secs(59)).unwrap();
    rig.tell(&userauth_request(MethodRequest::Password("secret")))
        .unwrap();
    rig.wait(Duration::from_secs(3600)).unwrap();
    assert_eq!(rig.machine.poll_timeout(), None);
    rig.machine.resume_clock(rig.now);
    rig.machine.reject_auth().unwrap();
    rig.wait(Duration::from_secs(59)).unwrap();
    let outcome = rig.wait(Duration::from_secs(1)).unwrap_err();
    assert_eq!(outcome, ConnectionError::TimedOut(Deadline::Authentication));
}

struct Dry;

impl Random for Dry {
    fn fill(&mut self, _out: &mut [u8]) -> Result<(), RandomFailed> {
        Err(RandomFailed)
    }
}

#[test]
fn without_randomness_there_is_no_connection() {
    let now = server().now;
    let failed = ConnectionError::RandomFailed(RandomFailed);
    let client = Connection::client(ClientConfig::new("ann"), Box::new(Dry), now);
    assert_eq!(client.err(), Some(failed.clone()));
    let config = ServerConfig::new([std::sync::Arc::new(key_pair(1).into())]);
    assert_eq!(
        Connection::server(config, Box::new(Dry), now).err(),
        Some(failed)
    );
}
