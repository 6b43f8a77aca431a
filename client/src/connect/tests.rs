//! Logging in to the server role of our own transport, over pipes in memory and over TCP.

#![expect(
    clippy::disallowed_methods,
    reason = "the server of a test is a task of its own"
)]

use std::sync::Arc;
use std::time::Duration;

use ketch_keys::PrivateKey;
use ketch_transport::auth::{AuthAttempt, Method};
use ketch_transport::config::ServerConfig;
use ketch_transport::driver::{Acceptor, Application, LoginEvent, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config::SshConfig;
use crate::hostkey::{HostKeyError, HostKeyPolicy};
use crate::identity::IdentityError;
use crate::{CloseReason, Failure as _, Kind, PublicKey};

fn host_key(seed: u8) -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([seed; 32]))
}

fn identity(seed: u8) -> Identity {
    Identity::from_ed25519_seed(Zeroizing::new([seed; 32]))
}

/// What the server was offered, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Offered {
    None,
    Password(String),
    Key(PublicKey),
}

impl Offered {
    fn from(attempt: &AuthAttempt) -> Self {
        match &attempt.method {
            Method::Password(password) => Self::Password(password.to_string()),
            Method::PublicKey { key, .. } | Method::PublicKeyQuery { key, .. } => {
                Self::Key(key.clone())
            }
            _ => Self::None,
        }
    }
}

/// What a server saw until the user was in, or the client left.
type Seen = JoinHandle<Vec<Offered>>;

/// Serves one client on `stream`; `accepts` is what lets the user in.
fn serve<S>(stream: S, config: ServerConfig, accepts: Option<Offered>) -> Seen
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let mut login = Login::server(stream, config).unwrap();
        let mut seen = Vec::new();
        loop {
            match login.next().await {
                Ok(LoginEvent::Attempt(attempt)) => {
                    let offered = Offered::from(&attempt);
                    seen.push(offered.clone());
                    let answer = if accepts.as_ref() == Some(&offered) {
                        login.accept_auth()
                    } else {
                        login.reject_auth()
                    };
                    if answer.is_err() {
                        return seen;
                    }
                }
                Ok(LoginEvent::Authenticated { .. }) => {
                    let (_, run) = login.run(Box::new(Echo));
                    tokio::spawn(run);
                    return seen;
                }
                Ok(_) => {}
                Err(_) => return seen,
            }
        }
    })
}

/// A server with a subsystem that sends back what it gets, and an SFTP that only greets.
struct Echo;

impl Acceptor for Echo {
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>> {
        let (mut stream, application) = stream();
        if name == "sftp" {
            tokio::spawn(async move {
                stream.read_exact(&mut [0; 9]).await.unwrap();
                let version = [0, 0, 0, 5, 2, 0, 0, 0, 3];
                stream.write_all(&version).await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
            return Some(application);
        }
        if name != "echo" {
            return None;
        }
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
        Some(application)
    }
}

fn config() -> ServerConfig {
    ServerConfig::new([Arc::new(host_key(1).into())])
}

fn start(accepts: Option<Offered>) -> (DuplexStream, Seen) {
    start_with(config(), accepts)
}

fn start_with(config: ServerConfig, accepts: Option<Offered>) -> (DuplexStream, Seen) {
    let (ours, theirs) = duplex(256 * 1024);
    (ours, serve(theirs, config, accepts))
}

/// A client that trusts the server of [`config`].
fn client() -> Connect {
    let keys = HostKeys::only([host_key(1).public_key().clone()]);
    Connect::to("server.example.com")
        .user("ann")
        .host_keys(keys)
}

fn password(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

fn key(seed: u8) -> Offered {
    Offered::Key(identity(seed).public_key().unwrap())
}

#[tokio::test]
async fn a_key_logs_in_and_channels_can_be_opened() {
    let (stream, seen) = start(Some(key(7)));
    let session = client()
        .identity(identity(7))
        .connect_over(stream)
        .await
        .unwrap();
    assert_eq!(seen.await.unwrap(), [key(7)]);
    assert!(session.peer_identification().starts_with("SSH-2.0-"));
    assert_eq!(session.host().as_str(), "server.example.com");

    let mut echo = session.open_subsystem("echo").await.unwrap();
    let sent = vec![42; 3 << 20]; // more than a window
    let (mut from, mut to) = tokio::io::split(&mut echo);
    let mut received = Vec::new();
    let write = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let read = async { from.read_to_end(&mut received).await.unwrap() };
    tokio::join!(write, read);
    assert!(received == sent, "{} bytes came back", received.len());

    let refused = session.open_subsystem("nothing").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported, "{refused:?}");
    assert!(!session.is_closed());

    let other = session.clone();
    session.disconnect().await;
    assert!(other.is_closed());
    assert!(matches!(*other.closed().await, CloseReason::Requested));
    let gone = other.open_subsystem("echo").await.unwrap_err();
    assert_eq!(gone.kind(), Kind::Cancelled, "{gone:?}");
}

#[tokio::test]
async fn credentials_are_offered_in_order_and_once() {
    let (stream, seen) = start(None);
    let error = client()
        .password(password("secret"))
        .identity(identity(7))
        .identity(identity(8))
        .connect_over(stream)
        .await
        .unwrap_err();
    assert_eq!(
        seen.await.unwrap(),
        [key(7), key(8), Offered::Password("secret".to_owned())]
    );
    let ConnectError::Auth { tried, methods, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(tried.len(), 3);
    assert_eq!(*methods, ["publickey", "password"]);
    assert_eq!((error.kind(), error.is_transient()), (Kind::Auth, false));
    let text = error.to_string();
    for part in [
        "ann",
        "server.example.com",
        "the password",
        "SHA256:",
        "publickey, password",
    ] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn what_is_right_ends_the_offers() {
    let (stream, seen) = start(Some(Offered::Password("secret".to_owned())));
    let connect = client().identity(identity(7)).password(password("secret"));
    connect.connect_over(stream).await.unwrap();
    assert_eq!(
        seen.await.unwrap(),
        [key(7), Offered::Password("secret".to_owned())]
    );
}

#[tokio::test]
async fn a_method_that_the_server_does_not_name_is_not_tried_again() {
    let mut config = config();
    config.methods = vec![ketch_transport::config::AuthMethod::Password];
    let (stream, seen) = start_with(config, Some(Offered::Password("secret".to_owned())));
    let connect = client()
        .identity(identity(7))
        .identity(identity(8))
        .identity(identity(9));
    connect
        .password(password("secret"))
        .connect_over(stream)
        .await
        .unwrap();
    let seen = seen.await.unwrap();
    assert!(
        !seen.contains(&key(8)) && !seen.contains(&key(9)),
        "{seen:?}"
    );
}

#[tokio::test]
async fn many_keys_do_not_hammer_the_server() {
    let (stream, seen) = start(None);
    let connect = (1..20).fold(client(), |connect, seed| connect.identity(identity(seed)));
    let error = connect.connect_over(stream).await.unwrap_err();
    assert!(matches!(error, ConnectError::Auth { .. }), "{error:?}");
    assert_eq!(seen.await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_host_that_is_not_trusted_sees_nothing_of_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let known = HostKeys::files([&file]).policy(HostKeyPolicy::AcceptNew);
    // The host is met, and has another key the next time.
    let (stream, _) = start(Some(key(7)));
    let connect = client().identity(identity(7)).host_keys(known.clone());
    connect.connect_over(stream).await.unwrap();
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(
        written.starts_with("server.example.com ssh-ed25519 "),
        "{written}"
    );

    let (stream, seen) = start_with(
        ServerConfig::new([Arc::new(host_key(2).into())]),
        Some(key(7)),
    );
    let connect = client()
        .identity(identity(7))
        .password(password("secret"))
        .host_keys(known);
    let error = connect.connect_over(stream).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::HostKey(HostKeyError::Changed { .. })),
        "{error:?}"
    );
    assert_eq!((error.kind(), error.is_transient()), (Kind::HostKey, false));
    assert_eq!(
        seen.await.unwrap(),
        [],
        "nothing may be offered to such a host"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
}

#[tokio::test]
async fn unknown_hosts_are_refused_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let keys = HostKeys::files([dir.path().join("known_hosts")]);
    let (stream, seen) = start(Some(key(7)));
    let connect = client().identity(identity(7)).host_keys(keys);
    let error = connect.connect_over(stream).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::HostKey(HostKeyError::Unknown { .. })),
        "{error:?}"
    );
    assert_eq!(seen.await.unwrap(), []);
    assert!(!dir.path().join("known_hosts").exists());
}

#[tokio::test]
async fn letting_us_in_without_proof_is_only_asked_for_where_allowed() {
    let (stream, seen) = start(Some(Offered::None));
    let error = client().connect_over(stream).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NoCredentials { .. }),
        "{error:?}"
    );
    assert_eq!(seen.await.unwrap(), []);

    let (stream, seen) = start(Some(Offered::None));
    let error = client()
        .identity(identity(7))
        .allow_none()
        .connect_over(stream)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Auth { .. }), "{error:?}");
    assert_eq!(seen.await.unwrap(), [key(7)], "who has a key proves it");

    let (stream, seen) = start(Some(Offered::None));
    client().allow_none().connect_over(stream).await.unwrap();
    assert_eq!(seen.await.unwrap(), [Offered::None]);
}

/// A key that `ssh-keygen` made, with the passphrase `word`.
fn locked_identity() -> Identity {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-a", "1", "-N", "word", "-f"])
        .arg(&path)
        .status()
        .expect("ssh-keygen makes the key: install openssh-client (scripts/test does it)");
    assert!(made.success());
    Identity::from_file(path).unwrap()
}

#[tokio::test]
async fn a_locked_key_is_unlocked_when_its_turn_comes() {
    let locked = locked_identity();
    let offered = Offered::Key(locked.public_key().unwrap());

    let (stream, seen) = start(Some(offered.clone()));
    let error = client()
        .identity(locked.clone())
        .connect_over(stream)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Identity(IdentityError::Locked { .. })),
        "{error:?}"
    );
    assert_eq!(seen.await.unwrap(), []);

    let (stream, seen) = start(Some(Offered::Password("secret".to_owned())));
    let connect = client()
        .identity(locked.clone())
        .password(password("secret"));
    connect.connect_over(stream).await.unwrap();
    assert_eq!(
        seen.await.unwrap(),
        [Offered::Password("secret".to_owned())]
    );

    let (stream, seen) = start(Some(offered.clone()));
    let opened = locked.passphrase(|_| Some(Zeroizing::new("word".to_owned())));
    client()
        .identity(opened)
        .connect_over(stream)
        .await
        .unwrap();
    // The server was asked before the user was.
    assert_eq!(seen.await.unwrap(), [offered.clone(), offered]);
}

#[tokio::test]
async fn no_common_cipher_is_said_so() {
    let mut config = config();
    config.common.preferences.cipher = vec![CipherName::Aes128Gcm];
    let (stream, _) = start_with(config, None);
    let connect = client()
        .identity(identity(7))
        .ciphers(vec![CipherName::ChaCha20Poly1305]);
    let error = connect.connect_over(stream).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Algorithm, "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let (stream, _theirs) = duplex(64 * 1024);
    let timeouts = Timeouts {
        handshake: Duration::from_millis(20),
        ..Timeouts::default()
    };
    let connect = client().identity(identity(7)).timeouts(timeouts);
    let error = connect.connect_over(stream).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Ended {
                stage: Stage::Handshake,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!((error.kind(), error.is_transient()), (Kind::Timeout, true));
}

#[tokio::test]
async fn a_server_that_hangs_up_is_a_network_failure() {
    let (stream, theirs) = duplex(64 * 1024);
    drop(theirs);
    let error = client()
        .identity(identity(7))
        .connect_over(stream)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.is_transient()),
        (Kind::Network, true),
        "{error:?}"
    );
}

#[tokio::test]
async fn something_that_is_no_ssh_server_is_a_misbehaving_peer() {
    let (stream, mut theirs) = duplex(64 * 1024);
    let lines = "HTTP/1.1 400 Bad Request\r\n".repeat(4000);
    let talk = theirs.write_all(lines.as_bytes());
    let (outcome, _) = tokio::join!(client().identity(identity(7)).connect_over(stream), talk);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), Kind::Peer, "{error:?}");
}

#[tokio::test]
async fn tcp_leads_to_a_session_and_small_packets_leave_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accept = tokio::spawn(async move {
        // The first connection is looked at, the second one used.
        let looked_at = listener.accept().await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        drop(looked_at);
        serve(stream, config(), Some(key(7))).await.unwrap()
    });
    let timeouts = Timeouts::default();
    let server = Endpoint::new("127.0.0.1".parse().unwrap(), port);
    let stream = crate::route::tcp::dial(&server, &Dialling::default(), &timeouts)
        .await
        .unwrap();
    assert!(stream.nodelay().unwrap());
    assert!(socket2::SockRef::from(&stream).keepalive().unwrap());

    let keys = HostKeys::only([host_key(1).public_key().clone()]);
    let connect = Connect::to("127.0.0.1")
        .port(port)
        .user("ann")
        .host_keys(keys);
    let session = connect.identity(identity(7)).connect().await.unwrap();
    assert_eq!(accept.await.unwrap(), [key(7)]);
    session.disconnect().await;
}

#[tokio::test]
async fn a_port_without_a_server_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let connect = Connect::to("127.0.0.1")
        .port(port)
        .user("ann")
        .identity(identity(7));
    let error = connect.connect().await.unwrap_err();
    let ConnectError::Unreachable { tried, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(tried.addresses().len(), 1);
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn a_name_without_address_is_said_so() {
    // RFC 6761 §6.4: never a name that exists.
    let connect = Connect::to("no-such-host.invalid")
        .user("ann")
        .identity(identity(7));
    let error = connect.connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Lookup { .. }), "{error:?}");
    assert!(
        error.to_string().contains("no-such-host.invalid"),
        "{error}"
    );
}

#[tokio::test]
async fn names_that_are_not_usable_never_reach_the_network() {
    for connect in [
        Connect::to("-oProxyCommand=x").user("ann"),
        Connect::to("host name").user("ann"),
        Connect::to("host").user("-l"),
        Connect::to("host").user("a;b"),
    ] {
        let error = connect.identity(identity(7)).connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Destination(_)), "{error:?}");
        assert_eq!(error.kind(), Kind::Local);
    }
}

#[tokio::test]
async fn a_connect_that_is_dropped_leaves_nothing_behind() {
    let (stream, theirs) = duplex(64 * 1024);
    let connect = client().identity(identity(7)).connect_over(stream);
    tokio::select! {
        biased;
        _ = connect => panic!("nobody answered"),
        () = tokio::task::yield_now() => {}
    }
    // The stream was dropped with it: the other side sees our greeting, then the end.
    let mut sent = Vec::new();
    let mut theirs = theirs;
    theirs.read_to_end(&mut sent).await.unwrap();
    assert!(
        sent.starts_with(b"SSH-2.0-ketch"),
        "{:?}",
        String::from_utf8_lossy(&sent)
    );
}

#[test]
fn secrets_are_not_printed() {
    let connect = client().password(password("secret"));
    assert!(!format!("{connect:?} {connect:#?}").contains("secret"));
}

/// A server that lets everybody in and does nothing from then on.
#[tokio::test(start_paused = true)]
async fn a_channel_that_is_neither_opened_nor_refused_is_given_up() {
    let (ours, theirs) = duplex(256 * 1024);
    let silent = tokio::spawn(async move {
        let mut login = Login::server(theirs, config()).unwrap();
        loop {
            match login.next().await.unwrap() {
                LoginEvent::Attempt(_) => login.accept_auth().unwrap(),
                LoginEvent::Authenticated { .. } => break,
                _ => {}
            }
        }
        std::future::pending::<()>().await;
        drop(login);
    });
    let timeouts = Timeouts {
        stall: Duration::from_secs(7),
        keepalive: None,
        ..Timeouts::default()
    };
    let session = client()
        .identity(identity(7))
        .timeouts(timeouts)
        .connect_over(ours)
        .await
        .unwrap();
    let asked = tokio::time::Instant::now();
    // The first channel is used before it is open: what is asked on it is given up.
    let sftp = session.sftp().await.unwrap();
    let error = sftp.stat("/").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(asked.elapsed(), Duration::from_secs(7));
    let error = session.open_subsystem("echo").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(asked.elapsed(), Duration::from_secs(14));
    silent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_is_asked_for_ends_where_that_is_wanted() {
    const IDLE: Duration = Duration::from_secs(600);
    let connected = async |idle| {
        let (stream, _) = start(Some(key(7)));
        let timeouts = Timeouts {
            idle,
            ..Timeouts::default()
        };
        let connect = client().identity(identity(7)).timeouts(timeouts);
        connect.connect_over(stream).await.unwrap()
    };
    // By default it stays, and keepalives go on.
    let session = connected(None).await;
    tokio::time::sleep(IDLE * 100).await;
    assert!(!session.is_closed());

    let session = connected(Some(IDLE)).await;
    let begun = tokio::time::Instant::now();
    assert!(matches!(*session.closed().await, CloseReason::Idle));
    assert_eq!(begun.elapsed(), IDLE);

    // A channel counts as use, whether anything passes on it or not; SFTP while it is asked.
    let session = connected(Some(IDLE)).await;
    let echo = session.open_subsystem("echo").await.unwrap();
    tokio::time::sleep(IDLE * 10).await;
    assert!(!session.is_closed());
    drop(echo);
    let sftp = session.sftp().await.unwrap();
    tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
    // Nobody answers this: it ends as stalled, and the time begins anew.
    let asked = tokio::time::Instant::now();
    let error = sftp.stat("/").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(asked.elapsed(), session.timeouts().stall);
    let why = session.closed().await;
    assert!(matches!(*why, CloseReason::Idle), "{why:?}");
    assert!(asked.elapsed() >= IDLE, "{:?}", asked.elapsed());
    assert_eq!(why.kind(), Kind::Network);
}

#[test]
fn what_a_configuration_says_of_tcp_and_of_keys_takes_effect() {
    let plan = |options: &[&str]| {
        let mut config = SshConfig::none();
        for option in options {
            config = config.option(*option);
        }
        let config = config
            .resolve(&"files".parse().unwrap(), None, None)
            .unwrap();
        let connect = Connect::from_config(&config, Vec::new()).unwrap();
        connect.user("ann").allow_none().plan().unwrap()
    };
    let plain = plan(&[]);
    assert_eq!(plain.dialling, Dialling::default());
    let rekey = plain.config().common.rekey;
    assert_eq!((rekey.bytes, rekey.interval.as_secs()), (None, 3600));

    let said = plan(&[
        "AddressFamily=inet6",
        "BindAddress=2001:db8::7",
        "ConnectionAttempts=4",
        "RekeyLimit=1G 10m",
    ]);
    let expected = Dialling {
        family: AddressFamily::Inet6,
        from: Some("2001:db8::7".parse().unwrap()),
        attempts: 4,
    };
    assert_eq!(said.dialling, expected);
    let rekey = said.config().common.rekey;
    assert_eq!(
        (rekey.bytes, rekey.interval.as_secs()),
        (Some(1 << 30), 600)
    );
}
