//! Methods of authentication used as they should not be: steps, questions, keys and extensions.

use ketch_keys::{KeyType, PrivateKey, PublicKey, SignatureAlgorithm};
use ketch_wire::{NameList, Writer};
use zeroize::Zeroizing;

use super::{Offer, Outcome, Rig, Role, State, key_pair, misbehaved, payload, userauth_request};
use crate::auth::{Credential, Prompt, Questions};
use crate::config::AuthMethod;
use crate::error::{ConnectionError, PeerMisbehaved};
use crate::message::auth::{
    CONNECTION_SERVICE, InfoRequest, InfoResponse, MethodRequest, PROMPTS_MAX,
    PasswordChangeRequest, PkOk, Prompt as WirePrompt, UserauthFailure, UserauthRequest,
    encode_signed_data,
};
use crate::message::number;
use crate::message::transport::ExtInfo;

fn server() -> Rig {
    Rig::at(Role::Server, true, State::InLogin)
}

/// A client whose first request was refused: it may try `methods`.
fn client(methods: &str) -> Rig {
    let mut rig = Rig::at(Role::Client, true, State::InLogin);
    rig.tell(&failure(methods, false)).unwrap();
    rig
}

fn failure(methods: &str, partial_success: bool) -> Vec<u8> {
    let methods = NameList::new(methods).unwrap();
    payload(|w| {
        UserauthFailure {
            methods,
            partial_success,
        }
        .encode(w);
    })
}

fn request_of(user: &str, method: MethodRequest<'_>) -> Vec<u8> {
    let request = UserauthRequest {
        user,
        service: CONNECTION_SERVICE,
        method,
    };
    payload(|w| request.encode(w))
}

/// A signed request of ann with any key, over `session_id` and perhaps a host key.
fn signed(
    key: &PrivateKey,
    algorithm: SignatureAlgorithm,
    host_key: Option<&[u8]>,
    rig: &Rig,
) -> Vec<u8> {
    let session_id = rig.session_id().unwrap();
    let blob = key.public_key().as_blob();
    let name = algorithm.name().as_bytes();
    let data = payload(|w| {
        encode_signed_data(w, session_id.as_bytes(), "ann", name, blob, host_key);
    });
    userauth_request(MethodRequest::PublicKey {
        algorithm: name,
        key: blob,
        host_key,
        signature: &key.sign(algorithm, &data).unwrap(),
    })
}

fn is_failure(outcome: Outcome) -> bool {
    let told = outcome.unwrap();
    told.events.is_empty() && told.heard[0][0] == number::USERAUTH_FAILURE
}

fn questions(prompts: usize) -> Questions {
    let prompt = Prompt {
        text: "code".to_owned(),
        echo: false,
    };
    Questions {
        prompts: vec![prompt; prompts],
        ..Questions::default()
    }
}

fn info_request(prompts: usize) -> Vec<u8> {
    let prompt = WirePrompt {
        text: b"code",
        echo: false,
    };
    let prompts = vec![prompt; prompts];
    let (name, instruction) = (&b""[..], &b""[..]);
    payload(|w| {
        InfoRequest {
            name,
            instruction,
            prompts,
        }
        .encode(w);
    })
}

fn response(answers: usize) -> Vec<u8> {
    let answers = vec!["123456"; answers];
    payload(|w| InfoResponse { answers }.encode(w))
}

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// The rig of a server that offers every method.
fn inquisitive_server() -> Rig {
    let mut rig = Rig::unidentified_with(Role::Server, Offer::default(), |config| {
        config.methods = vec![AuthMethod::Password, AuthMethod::KeyboardInteractive];
    });
    rig.identify();
    rig.walk(State::InLogin);
    rig
}

// --- the server's side ---

#[test]
fn a_client_that_says_what_servers_say_is_not_in() {
    for state in [State::FirstUnderKeys, State::BeforeService, State::InLogin] {
        for said in [
            vec![number::USERAUTH_SUCCESS],
            failure("publickey", true),
            payload(|w| PasswordChangeRequest { prompt: b"new?" }.encode(w)),
            info_request(1),
            response(1),
        ] {
            let mut rig = Rig::at(Role::Server, true, state);
            let number = said[0];
            let unexpected = misbehaved(rig.tell(&said));
            assert!(
                matches!(unexpected, PeerMisbehaved::Unexpected { number: n, .. } if n == number),
                "{state:?} {unexpected:?}"
            );
        }
    }
}

#[test]
fn no_message_of_a_channel_is_taken_before_the_login_is_over() {
    for state in [State::FirstUnderKeys, State::BeforeService, State::InLogin] {
        for number in 80..=127 {
            let mut rig = Rig::at(Role::Server, true, state);
            let unexpected = misbehaved(rig.tell(&[number, 0, 0, 0, 0]));
            assert!(
                matches!(unexpected, PeerMisbehaved::Unexpected { .. }),
                "{state:?} {number}"
            );
        }
    }
}

#[test]
fn keys_that_a_client_may_ask_about_are_counted() {
    let mut rig = server();
    let query = |seed| {
        userauth_request(MethodRequest::PublicKeyQuery {
            algorithm: b"ssh-ed25519",
            key: key_pair(seed).public_key().as_blob(),
            host_key: None,
        })
    };
    for seed in 0..20 {
        assert_eq!(rig.tell(&query(seed)).unwrap().events.len(), 1);
        rig.machine.accept_auth(rig.now).unwrap();
        assert_eq!(rig.listen()[0][0], number::USERAUTH_PK_OK);
    }
    let outcome = rig.tell(&query(20));
    assert!(matches!(outcome, Err(ConnectionError::TooManyAttempts)));
}

#[test]
fn steps_that_never_end_are_counted() {
    let mut rig = server();
    for _ in 0..64 {
        rig.tell(&userauth_request(MethodRequest::Password("right")))
            .unwrap();
        rig.machine
            .accept_auth_partially(&[AuthMethod::Password])
            .unwrap();
        assert_eq!(rig.listen()[0], failure("password", true));
    }
    let outcome = rig.tell(&userauth_request(MethodRequest::Password("right")));
    assert!(matches!(outcome, Err(ConnectionError::TooManyAttempts)));
}

#[test]
fn the_steps_of_one_user_are_not_anothers() {
    let mut rig = server();
    // Before any step somebody else may be meant.
    rig.tell(&request_of("bob", MethodRequest::Password("x")))
        .unwrap();
    rig.machine.reject_auth().unwrap();
    rig.tell(&request_of("ann", MethodRequest::Password("x")))
        .unwrap();
    rig.machine
        .accept_auth_partially(&[AuthMethod::Password])
        .unwrap();
    let outcome = rig.tell(&request_of("bob", MethodRequest::Password("x")));
    assert_eq!(misbehaved(outcome), PeerMisbehaved::UserChanged);
}

#[test]
fn after_a_step_only_what_is_left_counts() {
    let mut rig = server();
    rig.tell(&userauth_request(MethodRequest::Password("right")))
        .unwrap();
    rig.machine
        .accept_auth_partially(&[AuthMethod::PublicKey])
        .unwrap();
    assert_eq!(rig.listen()[0], failure("publickey", true));
    assert!(is_failure(
        rig.tell(&userauth_request(MethodRequest::Password("right")))
    ));
    let message = signed(&key_pair(5), SignatureAlgorithm::Ed25519, None, &rig);
    assert_eq!(rig.tell(&message).unwrap().events.len(), 1);
}

#[test]
fn a_question_about_a_key_or_no_proof_at_all_is_no_step() {
    for method in [
        MethodRequest::None,
        MethodRequest::PublicKeyQuery {
            algorithm: b"ssh-ed25519",
            key: key_pair(5).public_key().as_blob(),
            host_key: None,
        },
    ] {
        let mut rig = server();
        rig.tell(&userauth_request(method)).unwrap();
        rig.machine
            .accept_auth_partially(&[AuthMethod::Password])
            .unwrap();
        assert_eq!(rig.listen()[0], failure("publickey,password", false));
    }
    // Nor is one after which nothing could follow, and verdicts that do not fit are rejections.
    let mut rig = server();
    for _ in 0..2 {
        rig.tell(&userauth_request(MethodRequest::Password("right")))
            .unwrap();
        rig.machine.accept_auth_partially(&[]).unwrap();
        assert_eq!(rig.listen()[0], failure("publickey,password", false));
    }
    rig.tell(&userauth_request(MethodRequest::Password("right")))
        .unwrap();
    rig.machine.ask(&questions(1)).unwrap();
    assert_eq!(rig.listen()[0], failure("publickey,password", false));
    let message = signed(&key_pair(5), SignatureAlgorithm::Ed25519, None, &rig);
    rig.tell(&message).unwrap();
    rig.machine.password_expired("new?").unwrap();
    assert_eq!(rig.listen()[0], failure("publickey,password", false));
}

#[test]
fn a_method_that_is_not_offered_is_refused_without_a_question() {
    let mut rig = server();
    assert!(is_failure(
        rig.tell(&userauth_request(MethodRequest::KeyboardInteractive))
    ));
    let mut rig = inquisitive_server();
    let message = signed(&key_pair(5), SignatureAlgorithm::Ed25519, None, &rig);
    assert!(is_failure(rig.tell(&message)));
}

#[test]
fn answers_are_as_many_as_the_questions() {
    let ask = |rig: &mut Rig, prompts| {
        rig.tell(&userauth_request(MethodRequest::KeyboardInteractive))
            .unwrap();
        rig.machine.ask(&questions(prompts)).unwrap();
        assert_eq!(
            rig.listen().last().unwrap()[0],
            number::USERAUTH_INFO_REQUEST
        );
    };
    for prompts in [0, 1, PROMPTS_MAX] {
        let mut rig = inquisitive_server();
        ask(&mut rig, prompts);
        let told = rig.tell(&response(prompts)).unwrap();
        assert!(told.events[0].contains(&format!("Answers({prompts})")));
        // More may be asked, and answered no more often than asked.
        rig.machine.ask(&questions(1)).unwrap();
        rig.tell(&response(1)).unwrap();
        rig.machine.reject_auth().unwrap();
        let unexpected = misbehaved(rig.tell(&response(1)));
        assert!(matches!(unexpected, PeerMisbehaved::Unexpected { .. }));
    }
    let mut rig = inquisitive_server();
    ask(&mut rig, 2);
    assert!(is_failure(rig.tell(&response(1))));
    // What is beyond the bound is not asked, nor read.
    ask(&mut rig, PROMPTS_MAX + 1);
    let outcome = rig.tell(&response(PROMPTS_MAX + 1));
    assert!(matches!(
        misbehaved(outcome),
        PeerMisbehaved::Malformed { .. }
    ));
    // Who is asked may try something else.
    let mut rig = inquisitive_server();
    ask(&mut rig, 1);
    let told = rig
        .tell(&userauth_request(MethodRequest::Password("x")))
        .unwrap();
    assert_eq!(told.events.len(), 1);
}

#[test]
fn questions_that_never_end_are_counted() {
    let mut rig = inquisitive_server();
    rig.tell(&userauth_request(MethodRequest::KeyboardInteractive))
        .unwrap();
    let mut rounds = 0;
    while rig.machine.ask(&questions(1)).is_ok() && rig.tell(&response(1)).is_ok() {
        rounds += 1;
    }
    assert_eq!(rounds, 63);
}

#[test]
fn a_signature_that_is_bound_to_a_host_counts_at_that_host_alone() {
    let user = key_pair(5);
    let ours = key_pair(1).public_key().as_blob().to_vec();
    let theirs = key_pair(2).public_key().as_blob().to_vec();
    let ed25519 = SignatureAlgorithm::Ed25519;
    let mut rig = server();
    let told = rig
        .tell(&signed(&user, ed25519, Some(&ours), &rig))
        .unwrap();
    assert_eq!(told.events.len(), 1);
    rig.machine.reject_auth().unwrap();
    assert!(is_failure(rig.tell(&signed(
        &user,
        ed25519,
        Some(&theirs),
        &rig
    ))));
    // One of the plain form is none of the bound form.
    let session_id = rig.session_id().unwrap();
    let key = user.public_key().as_blob();
    let data = payload(|w| {
        encode_signed_data(w, session_id.as_bytes(), "ann", b"ssh-ed25519", key, None);
    });
    let swapped = userauth_request(MethodRequest::PublicKey {
        algorithm: b"ssh-ed25519",
        key,
        host_key: Some(&ours),
        signature: &user.sign(ed25519, &data).unwrap(),
    });
    assert!(is_failure(rig.tell(&swapped)));
}

#[test]
fn only_the_diagonal_of_algorithm_key_and_signature_is_taken() {
    let types = [
        KeyType::Ed25519,
        KeyType::EcdsaP256,
        KeyType::EcdsaP384,
        KeyType::EcdsaP521,
    ];
    let keys: Vec<_> = types
        .iter()
        .map(|&key_type| PrivateKey::generate(key_type).unwrap())
        .collect();
    for (n, key) in keys.iter().enumerate() {
        for (m, name) in types.iter().enumerate() {
            let mut rig = server();
            let (session_id, blob) = (rig.session_id().unwrap(), key.public_key().as_blob());
            let algorithm = name.name().as_bytes();
            let data = payload(|w| {
                encode_signed_data(w, session_id.as_bytes(), "ann", algorithm, blob, None);
            });
            let by_itself = key.sign(types[n].algorithms()[0], &data).unwrap();
            let told = rig.tell(&userauth_request(MethodRequest::PublicKey {
                algorithm,
                key: blob,
                host_key: None,
                signature: &by_itself,
            }));
            assert_eq!(!is_failure(told), n == m, "{} as {name}", types[n]);
        }
    }
    // What is not allowed is refused by its name.
    let rsa = userauth_request(MethodRequest::PublicKeyQuery {
        algorithm: b"ssh-rsa",
        key: b"any",
        host_key: None,
    });
    assert!(is_failure(server().tell(&rsa)));
}

#[test]
fn a_banner_comes_once_before_the_first_reply() {
    let mut rig = Rig::unidentified_with(Role::Server, Offer::default(), |config| {
        config.banner = Some("only for members".to_owned());
    });
    rig.identify();
    rig.walk(State::InLogin);
    for expected in [2, 1] {
        rig.tell(&userauth_request(MethodRequest::None)).unwrap();
        rig.machine.reject_auth().unwrap();
        // The banner left when the request came.
        let heard = rig.listen();
        assert_eq!(heard.len(), 1, "{expected}");
    }
}

// --- the client's side ---

fn ed25519(seed: u8, probe: bool) -> Credential {
    Credential::PublicKey {
        key: key_pair(seed).public_key().clone(),
        algorithm: SignatureAlgorithm::Ed25519,
        probe,
    }
}

fn pk_ok(key: &PublicKey) -> Vec<u8> {
    payload(|w| {
        PkOk {
            algorithm: b"ssh-ed25519",
            key: key.as_blob(),
        }
        .encode(w);
    })
}

#[test]
fn a_key_is_signed_with_when_the_server_says_that_it_would_do() {
    let mut rig = client("publickey");
    assert_eq!(rig.machine.authenticate(&ed25519(5, true)).unwrap(), None);
    let asked = rig.listen();
    assert!(asked[0].len() < 120, "no signature: {}", asked[0].len());
    let told = rig.tell(&pk_ok(key_pair(5).public_key())).unwrap();
    assert!(told.events[0].starts_with("Sign("), "{:?}", told.events);
    assert!(!rig.machine.has_proved());
    rig.machine.signature(b"signature").unwrap();
    assert_eq!(rig.listen()[0][0], number::USERAUTH_REQUEST);
    rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
    assert!(rig.machine.has_proved());
}

#[test]
fn nobody_is_let_in_for_asking_about_a_key() {
    let mut rig = client("publickey");
    rig.machine.authenticate(&ed25519(5, true)).unwrap();
    let unexpected = misbehaved(rig.tell(&[number::USERAUTH_SUCCESS]));
    assert!(matches!(unexpected, PeerMisbehaved::Unexpected { .. }));

    let mut rig = client("publickey");
    rig.machine.authenticate(&ed25519(5, true)).unwrap();
    let outcome = rig.tell(&pk_ok(key_pair(6).public_key()));
    assert_eq!(misbehaved(outcome), PeerMisbehaved::Unsolicited);
}

#[test]
fn what_message_60_means_is_said_by_the_request() {
    let key_ok = pk_ok(key_pair(5).public_key());
    let expired = payload(|w| PasswordChangeRequest { prompt: b"new?" }.encode(w));
    let replies = [key_ok, expired, info_request(1)];
    let credentials = [
        ed25519(5, true),
        Credential::Password(secret("x")),
        Credential::KeyboardInteractive,
    ];
    for (n, credential) in credentials.iter().enumerate() {
        for (m, reply) in replies.iter().enumerate() {
            let mut rig = client("any");
            rig.machine.authenticate(credential).unwrap();
            // The answer to a question about a key has the fields of an expired password.
            let fits = n == m || (n, m) == (1, 0);
            assert_eq!(rig.tell(reply).is_ok(), fits, "{credential:?} {m}");
        }
    }
    for reply in &replies {
        let mut rig = client("any");
        rig.machine.authenticate(&Credential::None).unwrap();
        let unexpected = misbehaved(rig.tell(reply));
        assert!(matches!(unexpected, PeerMisbehaved::Unexpected { .. }));
    }
}

#[test]
fn questions_without_end_end_it() {
    let mut rig = client("keyboard-interactive");
    rig.machine
        .authenticate(&Credential::KeyboardInteractive)
        .unwrap();
    for _ in 0..32 {
        rig.tell(&info_request(1)).unwrap();
        rig.machine.answers(&[secret("1")]).unwrap();
        assert_eq!(rig.listen().last().unwrap()[0], 61);
    }
    let outcome = rig.tell(&info_request(1));
    assert_eq!(misbehaved(outcome), PeerMisbehaved::EndlessQuestions);

    let mut rig = client("keyboard-interactive");
    rig.machine
        .authenticate(&Credential::KeyboardInteractive)
        .unwrap();
    let outcome = rig.tell(&info_request(PROMPTS_MAX + 1));
    assert!(matches!(
        misbehaved(outcome),
        PeerMisbehaved::Malformed { .. }
    ));
}

#[test]
fn a_login_in_which_nothing_was_proved_says_so() {
    for prompts in [0, 1] {
        let mut rig = client("keyboard-interactive");
        rig.machine
            .authenticate(&Credential::KeyboardInteractive)
            .unwrap();
        rig.tell(&info_request(prompts)).unwrap();
        let answers = vec![secret("1"); prompts];
        rig.machine.answers(&answers).unwrap();
        rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
        assert_eq!(rig.machine.has_proved(), prompts > 0);
    }
    let mut rig = Rig::at(Role::Client, true, State::InLogin);
    rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
    assert!(!rig.machine.has_proved());
}

#[test]
fn what_is_asked_may_be_left_for_another_credential() {
    let mut rig = client("any");
    rig.machine.authenticate(&ed25519(5, false)).unwrap();
    rig.machine
        .authenticate(&Credential::KeyboardInteractive)
        .unwrap();
    rig.tell(&info_request(1)).unwrap();
    rig.machine
        .authenticate(&Credential::Password(secret("x")))
        .unwrap();
    let expired = payload(|w| PasswordChangeRequest { prompt: b"new?" }.encode(w));
    rig.tell(&expired).unwrap();
    let (old, new) = (secret("x"), secret("y"));
    rig.machine
        .authenticate(&Credential::PasswordChange { old, new })
        .unwrap();
    // A request is out: nothing else is, before it is answered.
    rig.listen();
    rig.machine.authenticate(&Credential::None).unwrap();
    rig.machine.answers(&[secret("late")]).unwrap();
    assert!(rig.listen().is_empty());
    rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
}

fn ext_info(algorithms: &str) -> Vec<u8> {
    let message = ExtInfo {
        server_sig_algs: NameList::new(algorithms).ok(),
        host_bound: true,
        ..ExtInfo::default()
    };
    payload(|w| message.encode(w))
}

#[test]
fn what_came_with_the_keys_is_known_before_a_credential_is_asked_for() {
    let mut rig = Rig::at(Role::Client, true, State::BeforeNewKeys);
    let told = rig
        .tell_newkeys_and(&ext_info("ssh-ed25519,rsa-sha2-256,unheard-of"))
        .unwrap();
    assert!(
        told.events[0].starts_with("AuthWanted"),
        "{:?}",
        told.events
    );
    let known = [SignatureAlgorithm::Ed25519, SignatureAlgorithm::RsaSha256];
    assert_eq!(rig.machine.server_sig_algs(), Some(&known[..]));
    // From now on signatures cover the host key.
    rig.walk_from_keys(State::InLogin);
    rig.tell(&failure("publickey", false)).unwrap();
    let data = rig.machine.authenticate(&ed25519(5, false)).unwrap();
    let host_key = rig.host_key.public_key().as_blob();
    assert!(data.unwrap().ends_with(host_key));
}

#[test]
fn extensions_in_the_login_announce_its_end() {
    let mut rig = Rig::at(Role::Client, true, State::InLogin);
    rig.tell(&ext_info("ssh-ed25519")).unwrap();
    rig.tell(&[number::IGNORE, 0, 0, 0, 0]).unwrap();
    rig.tell(&[number::USERAUTH_SUCCESS]).unwrap();
    for other in [
        ext_info("ssh-ed25519"),
        failure("publickey", false),
        payload(|w: &mut Writer<'_>| {
            w.u8(number::USERAUTH_BANNER);
            w.string(b"hello");
            w.string(b"");
        }),
    ] {
        let mut rig = Rig::at(Role::Client, true, State::InLogin);
        rig.tell(&ext_info("ssh-ed25519")).unwrap();
        let unexpected = misbehaved(rig.tell(&other));
        assert!(matches!(unexpected, PeerMisbehaved::Unexpected { .. }));
    }
}

#[test]
fn the_length_of_a_password_does_not_show() {
    let lengths: Vec<_> = [1, 10, 100]
        .map(|len| {
            let mut rig = client("password");
            let password = secret(&"p".repeat(len));
            rig.machine
                .authenticate(&Credential::Password(password))
                .unwrap();
            rig.machine.output().len()
        })
        .into();
    assert!(lengths.iter().all(|&len| len == lengths[0]), "{lengths:?}");
}
