//! Logins of every method, against the server role of our own transport with a script.

#![cfg(unix)]
#![expect(
    clippy::disallowed_methods,
    reason = "the server of a test is a task of its own"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use ketch_keys::{KeyType, PrivateKey};
use ketch_transport::auth::{Method, Prompt};
use ketch_transport::config::{AuthMethod, HostKey, ServerConfig};
use ketch_transport::driver::RefuseAll;
use ketch_wire::Writer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::Connect;
use crate::agent::AgentPath;
use crate::identity::Identity;

/// What the server says to an attempt.
enum Answer {
    Accept,
    Reject,
    Partial(AuthMethod),
    Ask(usize),
    Expired,
}

fn host_key() -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([1; 32]))
}

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

fn identity(seed: u8) -> Identity {
    Identity::from_ed25519_seed(Zeroizing::new([seed; 32]))
}

fn key(seed: u8) -> PublicKey {
    identity(seed).public_key().unwrap()
}

/// A server that takes every method and answers as `script` has it; says what it was told.
fn serve(
    methods: &[AuthMethod],
    mut script: impl FnMut(&Method) -> Answer + Send + 'static,
) -> (DuplexStream, JoinHandle<Vec<String>>) {
    let (ours, theirs) = duplex(256 * 1024);
    let mut config = ServerConfig::new([Arc::new(HostKey::new(host_key()))]);
    config.methods = methods.to_vec();
    let told = tokio::spawn(async move {
        let mut login = Login::server(theirs, config).unwrap();
        let mut told = Vec::new();
        while let Ok(event) = login.next().await {
            match event {
                LoginEvent::Attempt(attempt) => {
                    told.push(told_of(&attempt.method));
                    let answered = match script(&attempt.method) {
                        Answer::Accept => login.accept_auth(),
                        Answer::Reject => login.reject_auth(),
                        Answer::Partial(method) => login.accept_partially(&[method]),
                        Answer::Ask(prompts) => login.ask(&questions(prompts)),
                        Answer::Expired => login.password_expired("too \x1b[2J old"),
                    };
                    answered.unwrap();
                }
                LoginEvent::Authenticated { .. } => {
                    tokio::spawn(login.run(Box::new(RefuseAll)).1);
                    break;
                }
                _ => {}
            }
        }
        told
    });
    (ours, told)
}

fn questions(prompts: usize) -> Questions {
    let prompt = Prompt {
        text: "Code\x1b:".to_owned(),
        echo: false,
    };
    Questions {
        name: "Second\x07".to_owned(),
        prompts: vec![prompt; prompts],
        ..Questions::default()
    }
}

fn told_of(method: &Method) -> String {
    match method {
        Method::Password(password) => format!("password {}", password.as_str()),
        Method::PasswordChange { old, new } => {
            format!("change {} {}", old.as_str(), new.as_str())
        }
        Method::PublicKeyQuery { algorithm, .. } => format!("query {algorithm}"),
        Method::PublicKey { algorithm, .. } => format!("key {algorithm}"),
        Method::Answers(answers) => {
            let answers: Vec<_> = answers.iter().map(|answer| answer.as_str()).collect();
            format!("answers {}", answers.join(" "))
        }
        other => other.name().to_owned(),
    }
}

const ALL: &[AuthMethod] = &[
    AuthMethod::PublicKey,
    AuthMethod::KeyboardInteractive,
    AuthMethod::Password,
];

fn client() -> Connect {
    let keys = HostKeys::only([host_key().public_key().clone()]);
    Connect::to("server.example.com")
        .user("ann")
        .host_keys(keys)
}

#[tokio::test]
async fn several_steps_are_taken_one_after_the_other() {
    let (stream, told) = serve(ALL, |method| match method {
        Method::PublicKey { .. } => Answer::Partial(AuthMethod::KeyboardInteractive),
        Method::KeyboardInteractive => Answer::Ask(2),
        Method::Answers(_) => Answer::Partial(AuthMethod::Password),
        Method::Password(_) => Answer::Accept,
        _ => Answer::Reject,
    });
    let session = client()
        .identity(identity(7))
        .password(secret("word"))
        .ask_questions(|asked| {
            assert_eq!((asked.name, asked.instruction), ("Second\\u{7}", ""));
            assert_eq!(asked.host.as_str(), "server.example.com");
            assert_eq!(asked.prompts[0].text, "Code\\u{1b}:");
            Some(vec![secret("one"), secret("two")])
        })
        .connect_over(stream)
        .await
        .unwrap();
    let expected = [
        "key ssh-ed25519",
        "keyboard-interactive",
        "answers one two",
        "password word",
    ];
    assert_eq!(told.await.unwrap(), expected);
    assert_eq!(session.logged_in_with(), Some(&Tried::Password));
}

#[tokio::test]
async fn nobody_is_asked_before_the_server_wants_it() {
    let (stream, told) = serve(&[AuthMethod::PublicKey], |_| Answer::Reject);
    let error = client()
        .ask_password(|_| panic!("the server takes no password"))
        .connect_over(stream)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Auth { .. }), "{error:?}");
    // Asking for answers first costs nobody anything.
    let told = told.await.unwrap();
    assert!(told.len() <= 1, "{told:?}");
}

#[tokio::test]
async fn a_password_that_is_typed_wrongly_is_typed_again_three_times_at_most() {
    for right in [2, 9] {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let (stream, _) = serve(&[AuthMethod::Password], move |method| match method {
            Method::Password(password) if **password == right.to_string() => Answer::Accept,
            _ => Answer::Reject,
        });
        let outcome = client()
            .ask_password(move |question| {
                let n = count.fetch_add(1, Ordering::SeqCst);
                assert_eq!(question.failed, n);
                assert_eq!(question.which, WhichPassword::Current);
                Some(secret(&n.to_string()))
            })
            .connect_over(stream)
            .await;
        assert_eq!(outcome.is_ok(), right == 2);
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn an_expired_password_is_changed() {
    let script = |method: &Method| match method {
        Method::Password(_) => Answer::Expired,
        Method::PasswordChange { .. } => Answer::Accept,
        _ => Answer::Reject,
    };
    let (stream, told) = serve(&[AuthMethod::Password], script);
    client()
        .password(secret("old"))
        .ask_password(|question| {
            let server_says = "too \\u{1b}[2J old";
            assert_eq!(question.which, WhichPassword::New { server_says });
            Some(secret("new"))
        })
        .connect_over(stream)
        .await
        .unwrap();
    assert_eq!(told.await.unwrap(), ["password old", "change old new"]);

    let (stream, _) = serve(&[AuthMethod::Password], script);
    let connect = client().password(secret("old"));
    let error = connect.connect_over(stream).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::PasswordExpired { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_password_answers_the_question_of_a_server_that_asks_in_no_other_way() {
    let script = |method: &Method| match method {
        Method::KeyboardInteractive => Answer::Ask(1),
        Method::Answers(_) => Answer::Accept,
        _ => Answer::Reject,
    };
    let (stream, told) = serve(&[AuthMethod::KeyboardInteractive], script);
    let connect = client().identity(identity(7)).password(secret("word"));
    connect.connect_over(stream).await.unwrap();
    assert_eq!(
        told.await.unwrap().last().map(String::as_str),
        Some("answers word")
    );
    // Two questions are not about the password.
    let (stream, _) = serve(&[AuthMethod::KeyboardInteractive], |method| match method {
        Method::KeyboardInteractive => Answer::Ask(2),
        Method::Answers(_) => Answer::Accept,
        _ => Answer::Reject,
    });
    let connect = client().identity(identity(7)).password(secret("word"));
    assert!(connect.connect_over(stream).await.is_err());
}

#[tokio::test]
async fn who_is_let_in_without_proof_hears_of_it() {
    let lenient = |method: &Method| match method {
        Method::KeyboardInteractive => Answer::Ask(0),
        Method::Answers(_) => Answer::Accept,
        _ => Answer::Reject,
    };
    for allowed in [false, true] {
        let (stream, _) = serve(&[AuthMethod::KeyboardInteractive], lenient);
        let mut connect = client().ask_questions(|_| Some(Vec::new()));
        if allowed {
            connect = connect.allow_none();
        }
        match connect.connect_over(stream).await {
            Ok(_) => assert!(allowed),
            Err(error) => assert!(
                !allowed && matches!(error, ConnectError::NotAuthenticated { .. }),
                "{error:?}"
            ),
        }
    }
    // To have asked what the server takes is no wish to be let in.
    let (stream, _) = serve(&[AuthMethod::Password], |_| Answer::Accept);
    let connect = client().ask_password(|_| panic!("nobody is asked"));
    let error = connect.connect_over(stream).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotAuthenticated { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_key_that_did_it_last_time_comes_first() {
    let (stream, told) = serve(ALL, |method| match method {
        Method::PublicKey { key: offered, .. } if *offered == key(9) => Answer::Accept,
        _ => Answer::Reject,
    });
    let connect = (5..10).fold(client(), |connect, seed| connect.identity(identity(seed)));
    let session = connect
        .first_key(key(9).fingerprint())
        .connect_over(stream)
        .await
        .unwrap();
    assert_eq!(told.await.unwrap().len(), 1);
    let Some(Tried::Key { fingerprint, .. }) = session.logged_in_with() else {
        panic!("{:?}", session.logged_in_with());
    };
    assert_eq!(*fingerprint, key(9).fingerprint());
}

/// An agent with one key, at a socket in `dir`; counts what it signed.
fn agent(dir: &tempfile::TempDir, held: PrivateKey) -> (AgentPath, Arc<AtomicU32>) {
    let path = dir.path().join("agent");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let signed = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&signed);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Ok(len) = stream.read_u32().await {
                let mut payload = vec![0; usize::try_from(len).unwrap()];
                stream.read_exact(&mut payload).await.unwrap();
                let mut r = ketch_wire::Reader::new(&payload);
                let mut reply = Vec::new();
                Writer::new(&mut reply).scope(|w| match r.u8().unwrap() {
                    11 => {
                        w.u8(12);
                        w.u32(1);
                        w.string(held.public_key().as_blob());
                        w.string(b"ann's key");
                    }
                    27 => w.u8(5), // it has no extensions
                    _ => {
                        r.string(10_000).unwrap();
                        let data = r.string(10_000).unwrap();
                        count.fetch_add(1, Ordering::SeqCst);
                        w.u8(14);
                        w.string(&held.sign(SignatureAlgorithm::Ed25519, data).unwrap());
                    }
                });
                stream.write_all(&reply).await.unwrap();
            }
        }
    });
    (AgentPath::Socket(path), signed)
}

#[tokio::test]
async fn the_agents_keys_come_after_those_that_were_named() {
    let dir = tempfile::tempdir().unwrap();
    let held = PrivateKey::from_ed25519_seed(Zeroizing::new([8; 32]));
    let (path, signed) = agent(&dir, held);
    let accepts = |seed| {
        move |method: &Method| match method {
            Method::PublicKey { key: offered, .. } if *offered == key(seed) => Answer::Accept,
            Method::PublicKeyQuery { .. } => Answer::Accept,
            _ => Answer::Reject,
        }
    };
    let (stream, told) = serve(ALL, accepts(8));
    let connect = client().identity(identity(7)).agent(path.clone());
    let session = connect.connect_over(stream).await.unwrap();
    assert_eq!(told.await.unwrap(), ["key ssh-ed25519", "key ssh-ed25519"]);
    assert_eq!(signed.load(Ordering::SeqCst), 1);
    let by = session.logged_in_with().unwrap().to_string();
    assert!(by.contains("in the agent"), "{by}");
    // An agent that asks its user hears only of keys that would do.
    let (stream, told) = serve(ALL, accepts(8));
    let connect = client().agent(path.clone()).agent_asks();
    connect.connect_over(stream).await.unwrap();
    assert_eq!(
        told.await.unwrap(),
        ["query ssh-ed25519", "key ssh-ed25519"]
    );
    // Only what was named, which a public key does.
    for (named, does) in [(7, false), (8, true)] {
        let (stream, _) = serve(ALL, accepts(8));
        let connect = client()
            .identity(Identity::from_public_key(&key(named)))
            .agent(path.clone())
            .identities_only(true);
        let outcome = connect.connect_over(stream).await;
        assert_eq!(outcome.is_ok(), does, "{outcome:?}");
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_passed_over_unless_it_is_all_there_is() {
    let nowhere = AgentPath::Socket("/nonexistent/agent".into());
    let (stream, _) = serve(ALL, |method| match method {
        Method::Password(_) => Answer::Accept,
        _ => Answer::Reject,
    });
    let connect = client().agent(nowhere.clone()).password(secret("word"));
    connect.connect_over(stream).await.unwrap();
    let (stream, _) = serve(ALL, |_| Answer::Reject);
    let error = client().agent(nowhere).connect_over(stream).await;
    assert!(matches!(error, Err(ConnectError::Agent(_))), "{error:?}");
}

#[tokio::test]
async fn a_key_that_cannot_sign_after_all_makes_room_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
    std::fs::write(&path, key.to_openssh().as_bytes()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let locked = std::process::Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "word", "-f"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(locked.success());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let locked = Identity::from_file(&path)
        .unwrap()
        .passphrase(move |question| {
            log.lock().unwrap().push(question.failed);
            Some(secret("sword"))
        });
    let (stream, told) = serve(ALL, |_| Answer::Accept);
    let connect = client().identity(locked).identity(identity(7));
    let session = connect.connect_over(stream).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [0, 1, 2]);
    let expected = ["query ecdsa-sha2-nistp256", "key ssh-ed25519"];
    assert_eq!(told.await.unwrap(), expected);
    assert!(matches!(session.logged_in_with(), Some(Tried::Key { .. })));
}
