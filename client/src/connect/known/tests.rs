//! Servers that stumble over what is sent early, and servers that do not.

#![expect(
    clippy::disallowed_methods,
    reason = "the server of a test is a task of its own"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ketch_keys::SignatureAlgorithm;
use ketch_transport::algorithm::{CipherName, Kex};
use ketch_transport::driver::{Acceptor, Application, Login, LoginEvent, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use super::*;
use crate::connect::tests_support::{host_key, server_config};
use crate::hostkey::HostKeys;
use crate::identity::Identity;
use crate::memory::ProcessMemory;
use crate::{Attrs, Connect, Failure as _, Kind, Sftp, SftpError, Timeouts};

/// What a server does with a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Does {
    /// What it should.
    Good,
    /// Its SFTP says that it is there when it was asked for something.
    WaitsForRequests,
    /// It hangs up as soon as the user is in: as one would that does not bear what comes early.
    LeavesAfterLogin,
    /// It lets nobody in.
    Refuses,
    /// It shares no cipher with us.
    Ciphers,
    /// It has another key exchange than last time.
    OtherKex,
    /// It hangs up when it has read our first packets.
    HangsUp,
    /// It hangs up with an error.
    Resets,
    /// It says that we broke the protocol.
    Disconnects,
    /// It says something that is no packet.
    Garbage,
    /// It waits for what does not come.
    Waits,
    /// It is not strict, and chooses what is unsafe then.
    ChaCha,
}

/// A server on a port of its own that does one thing after the other, the last one ever after.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    /// What clients sent to connections that were read raw.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Sessions of SFTP that were begun.
    sftp: Arc<AtomicUsize>,
}

impl Server {
    async fn start(does: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sftp = Arc::new(AtomicUsize::new(0));
        let (count, hears) = (Arc::clone(&connections), Arc::clone(&heard));
        let sessions = Arc::clone(&sftp);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let n = count.fetch_add(1, Ordering::SeqCst);
                let does = does.get(n).or(does.last()).copied().unwrap();
                let (hears, sessions) = (Arc::clone(&hears), Arc::clone(&sessions));
                tokio::spawn(serve(stream, does, hears, sessions));
            }
        });
        Self {
            port,
            connections,
            heard,
            sftp,
        }
    }

    fn connect(&self, memory: Option<&Arc<ProcessMemory>>) -> Connect {
        let connect = Connect::to("127.0.0.1")
            .port(self.port)
            .user("ann")
            .allow_none()
            .host_keys(HostKeys::only([host_key(1)]));
        match memory {
            Some(memory) => connect.host_memory(Arc::clone(memory) as _),
            None => connect,
        }
    }

    fn recall(&self, memory: &ProcessMemory) -> Option<HostRecord> {
        memory.recall(&"127.0.0.1".parse().unwrap(), self.port)
    }

    /// A memory of this server as it was, or was not.
    fn memory(&self) -> Arc<ProcessMemory> {
        let memory = Arc::new(ProcessMemory::new());
        let record = HostRecord {
            identification: "SSH-2.0-last_time".to_owned(),
            kex: Kex::Curve25519Sha256,
            host_key: SignatureAlgorithm::Ed25519,
            strict: true,
            bears_early: None,
            keys: Vec::new(),
        };
        memory.remember(&"127.0.0.1".parse().unwrap(), self.port, &record);
        memory
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    does: Does,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    sftp: Arc<AtomicUsize>,
) {
    let mut config = server_config(1);
    match does {
        Does::Good | Does::Refuses | Does::LeavesAfterLogin | Does::WaitsForRequests => {}
        Does::Ciphers => config.common.preferences.cipher = vec![CipherName::TripleDesCbc],
        Does::OtherKex => config.common.preferences.kex = vec![Kex::EcdhNistP256],
        _ => return serve_raw(&mut stream, does, &heard).await,
    }
    let accepts = does != Does::Refuses;
    let mut login = Login::server(stream, config).unwrap();
    loop {
        match login.next().await {
            Ok(LoginEvent::Attempt(_)) if accepts => login.accept_auth().unwrap(),
            Ok(LoginEvent::Attempt(_)) => login.reject_auth().unwrap(),
            Ok(LoginEvent::Authenticated { .. }) => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    if does != Does::LeavesAfterLogin {
        let waits = does == Does::WaitsForRequests;
        let (_handle, run) = login.run(Box::new(Greeter(sftp, waits)));
        run.await;
    }
}

/// A server whose SFTP says that it is there, and that there is no file; perhaps not before it was
/// asked for one.
struct Greeter(Arc<AtomicUsize>, bool);

impl Acceptor for Greeter {
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>> {
        assert_eq!(name, "sftp");
        self.0.fetch_add(1, Ordering::SeqCst);
        let (mut stream, application) = stream();
        let waits = self.1;
        tokio::spawn(async move {
            // It ends with the test.
            let mut init = [0; 9];
            stream.read_exact(&mut init).await?;
            let version = [0, 0, 0, 5, 2, 0, 0, 0, 3];
            if !waits {
                stream.write_all(&version).await?;
            }
            for n in 0.. {
                let mut len = [0; 4];
                stream.read_exact(&mut len).await?;
                let mut packet = vec![0; u32::from_be_bytes(len) as usize];
                stream.read_exact(&mut packet).await?;
                if waits && n == 0 {
                    stream.write_all(&version).await?;
                }
                let mut status = vec![0, 0, 0, 17, 101];
                status.extend(&packet[1..5]);
                status.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
                stream.write_all(&status).await?;
            }
            std::io::Result::Ok(())
        });
        Some(application)
    }
}

/// Reads until the client's `KEXINIT` must be in, then does what it does.
async fn serve_raw(stream: &mut TcpStream, does: Does, heard: &Mutex<Vec<Vec<u8>>>) {
    stream.write_all(b"SSH-2.0-strange\r\n").await.unwrap();
    let mut got = Vec::new();
    while got.len() < 600 {
        stream.read_buf(&mut got).await.unwrap();
    }
    heard.lock().unwrap().push(got);
    match does {
        Does::HangsUp => stream.shutdown().await.unwrap(),
        Does::Resets => socket2::SockRef::from(&*stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap(),
        Does::Disconnects => {
            let mut message = vec![1, 0, 0, 0, 2];
            message.extend(string("what was that"));
            message.extend(string(""));
            stream.write_all(&packet(&message)).await.unwrap();
        }
        Does::Garbage => stream.write_all(&[0xff; 64]).await.unwrap(),
        Does::ChaCha => stream.write_all(&packet(&chacha_kexinit())).await.unwrap(),
        _ => {}
    }
    if !matches!(does, Does::Resets) {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

fn string(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap();
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// A packet without encryption (RFC 4253 §6).
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let len = u32::try_from(payload.len() + padding + 1).unwrap();
    let mut packet = len.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// A `KEXINIT` without the mark of strict key exchange, with ChaCha20-Poly1305 alone.
fn chacha_kexinit() -> Vec<u8> {
    let mut message = vec![20];
    message.extend([0; 16]);
    for names in [
        "curve25519-sha256",
        "ssh-ed25519",
        "chacha20-poly1305@openssh.com",
        "chacha20-poly1305@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ] {
        message.extend(string(names));
    }
    message.extend([0; 5]);
    message
}

#[tokio::test]
async fn a_host_is_remembered_and_known_the_next_time() {
    let server = Server::start(&[Does::Good]).await;
    let memory = Arc::new(ProcessMemory::new());
    server.connect(Some(&memory)).connect().await.unwrap();
    let record = server.recall(&memory).unwrap();
    assert!(record.identification.starts_with("SSH-2.0-ketch"));
    assert!(record.strict);
    assert_eq!(record.host_key, SignatureAlgorithm::Ed25519);
    server.connect(Some(&memory)).connect().await.unwrap();
    assert_eq!(server.recall(&memory), Some(record));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_server_that_stumbles_over_a_guess_is_connected_to_plainly_once() {
    for does in [
        &[Does::HangsUp, Does::Good],
        &[Does::Resets, Does::Good],
        &[Does::Disconnects, Does::Good],
        &[Does::Garbage, Does::Good],
        &[Does::Waits, Does::Good],
        &[Does::OtherKex, Does::OtherKex],
    ] {
        let server = Server::start(does).await;
        let memory = server.memory();
        let mut connect = server.connect(Some(&memory));
        if does[0] == Does::Waits {
            // Long enough for the good one.
            connect = connect.timeouts(Timeouts {
                handshake: Duration::from_secs(3),
                ..Timeouts::default()
            });
        }
        connect
            .connect()
            .await
            .unwrap_or_else(|error| panic!("{does:?}: {error:?}"));
        // A guess that only did not fit need not cost a connection.
        let most = if does[0] == Does::OtherKex {
            1..=2
        } else {
            2..=2
        };
        assert!(most.contains(&server.connections()), "{does:?}");
        let record = server.recall(&memory).unwrap();
        assert!(
            record.identification.starts_with("SSH-2.0-ketch"),
            "{record:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_broken_is_not_tried_for_ever() {
    for does in [&[Does::HangsUp], &[Does::Garbage]] {
        let server = Server::start(does).await;
        let memory = server.memory();
        server.connect(Some(&memory)).connect().await.unwrap_err();
        assert_eq!(server.connections(), 2);
        assert_eq!(server.recall(&memory), None);
        server.connect(Some(&memory)).connect().await.unwrap_err();
        server.connect(None).connect().await.unwrap_err();
        assert_eq!(
            server.connections(),
            4,
            "nothing is guessed, nothing is tried again"
        );
    }
}

#[tokio::test]
async fn what_a_guess_cannot_explain_is_not_tried_again() {
    for (does, kind) in [
        (&[Does::Refuses], Kind::Auth),
        (&[Does::Ciphers], Kind::Algorithm),
    ] {
        let server = Server::start(does).await;
        let memory = server.memory();
        let error = server.connect(Some(&memory)).connect().await.unwrap_err();
        assert_eq!((error.kind(), server.connections()), (kind, 1), "{error:?}");
        assert!(server.recall(&memory).is_some());
    }
    let server = Server::start(&[Does::Good]).await;
    let strangers = HostKeys::only([host_key(2)]);
    let connect = server.connect(Some(&server.memory())).host_keys(strangers);
    let error = connect.connect().await.unwrap_err();
    assert_eq!(
        (error.kind(), server.connections()),
        (Kind::HostKey, 1),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_strict_is_asked_once_more_for_something_safe() {
    let has_chacha = |sent: &[u8]| sent.windows(8).any(|bytes| bytes == b"chacha20");
    for with_memory in [false, true] {
        let server = Server::start(&[Does::ChaCha, Does::ChaCha]).await;
        let memory = server.memory();
        let connect = server.connect(with_memory.then_some(&memory));
        let error = connect.connect().await.unwrap_err();
        assert_eq!(
            (error.kind(), server.connections()),
            (Kind::Algorithm, 2),
            "{error:?}"
        );
        let heard = server.heard.lock().unwrap();
        assert!(has_chacha(&heard[0]) && !has_chacha(&heard[1]));
    }
    // And if it can do something safe, there is a connection.
    let server = Server::start(&[Does::ChaCha, Does::Good]).await;
    server.connect(None).connect().await.unwrap();
    assert_eq!(server.connections(), 2);
    // Who insists on strict key exchange, or on the cipher, is not served worse than that.
    let server = Server::start(&[Does::ChaCha]).await;
    let connect = server
        .connect(None)
        .ciphers(vec![CipherName::ChaCha20Poly1305]);
    let error = connect.connect().await.unwrap_err();
    assert_eq!(
        (error.kind(), server.connections()),
        (Kind::Peer, 1),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_stream_that_is_given_is_never_guessed_on() {
    let server = Server::start(&[Does::Good]).await;
    let memory = server.memory();
    let before = server.recall(&memory);
    let stream = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    let connect = server.connect(Some(&memory));
    connect.connect_over(stream).await.unwrap();
    assert_eq!(server.recall(&memory), before);
}

#[tokio::test]
async fn the_key_that_worked_last_is_offered_first() {
    let server = Server::start(&[Does::Good]).await;
    let memory = Arc::new(ProcessMemory::new());
    let key = |seed: u8| Identity::from_ed25519_seed(Zeroizing::new([seed; 32]));
    let connect = || server.connect(Some(&memory));
    let session = connect().identity(key(7)).connect().await.unwrap();
    let worked = session.logged_in_with().and_then(Tried::fingerprint);
    let ann = "ann".parse().unwrap();
    assert_eq!(
        server.recall(&memory).unwrap().key_of(&ann),
        worked.as_deref()
    );
    // This server takes any key: the first that is offered is the one that it takes.
    let both = connect().identity(key(8)).identity(key(7));
    let session = both.clone().connect().await.unwrap();
    assert_eq!(
        session.logged_in_with().and_then(Tried::fingerprint),
        worked
    );
    // What the caller says counts for more.
    let other = key(8).fingerprint().unwrap();
    let session = both.first_key(other.clone()).connect().await.unwrap();
    assert_eq!(
        session.logged_in_with().and_then(Tried::fingerprint),
        Some(other)
    );
    // Another way to log in has no key to remember.
    connect().connect().await.unwrap();
    assert_eq!(server.recall(&memory).unwrap().key_of(&ann), None);
}

fn identity() -> Identity {
    Identity::from_ed25519_seed(Zeroizing::new([7; 32]))
}

#[tokio::test]
async fn sftp_is_opened_along_with_the_login_where_that_is_wanted() {
    let server = Server::start(&[Does::Good]).await;
    let memory = Arc::new(ProcessMemory::new());
    let connect = || server.connect(Some(&memory)).identity(identity());
    let sessions = || server.sftp.load(Ordering::SeqCst);
    connect().connect().await.unwrap();
    assert_eq!(sessions(), 0);
    assert_eq!(server.recall(&memory).unwrap().bears_early, None);
    // Behind the login, and without knowing the host, after it.
    for connect in [connect(), server.connect(None).identity(identity())] {
        let before = sessions();
        let session = connect.for_sftp().connect().await.unwrap();
        let first = session.sftp().await.unwrap();
        // What was opened early is given once; the second of them is answered behind the first.
        session.sftp().await.unwrap();
        assert_eq!(sessions(), before + 2);
        drop(first);
    }
    assert_eq!(server.recall(&memory).unwrap().bears_early, Some(true));
    assert_eq!(server.connections(), 3);
}

/// A question to ask first, which counts how often it was asked.
fn stat_it(asked: &Arc<AtomicUsize>) -> impl Fn(Sftp) -> Asking + Send + Sync + 'static {
    let asked = Arc::clone(asked);
    move |sftp| {
        asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { sftp.stat("/in/a.csv").await })
    }
}

type Asking = std::pin::Pin<Box<dyn Future<Output = Result<Attrs, SftpError>> + Send>>;

#[tokio::test]
async fn what_is_asked_first_leaves_before_the_server_has_said_a_word_of_sftp() {
    let server = Server::start(&[Does::WaitsForRequests]).await;
    let memory = Arc::new(ProcessMemory::new());
    let connect = || server.connect(Some(&memory)).identity(identity());
    // Not known, known, and without a memory.
    let asked = Arc::new(AtomicUsize::new(0));
    let unknown = server.connect(None).identity(identity());
    for (n, connect) in [connect(), connect(), unknown].into_iter().enumerate() {
        let (sftp, answer) = connect.sftp_with(stat_it(&asked)).await.unwrap();
        assert_eq!(answer.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(asked.load(Ordering::SeqCst), n + 1);
        // It is a session like any other, and its handle keeps the connection.
        let error = sftp.stat("/in/b.csv").await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(!sftp.session().unwrap().is_closed());
    }
    assert_eq!(server.sftp.load(Ordering::SeqCst), 3);
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn what_was_asked_of_a_connection_that_failed_is_asked_again() {
    let does = &[Does::Good, Does::LeavesAfterLogin, Does::Good];
    let server = Server::start(does).await;
    let memory = Arc::new(ProcessMemory::new());
    let connect = || server.connect(Some(&memory)).identity(identity());
    connect().connect().await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let (_sftp, answer) = connect().sftp_with(stat_it(&asked)).await.unwrap();
    assert_eq!(answer.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(server.connections(), 3);
    // Who is not let in asks nothing.
    let server = Server::start(&[Does::Refuses]).await;
    let connect = server.connect(None).identity(identity());
    connect.sftp_with(stat_it(&asked)).await.unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_does_not_bear_early_channels_is_connected_to_plainly_ever_after() {
    let does = &[Does::Good, Does::LeavesAfterLogin, Does::Good];
    let server = Server::start(does).await;
    let memory = Arc::new(ProcessMemory::new());
    let connect = || {
        server
            .connect(Some(&memory))
            .identity(identity())
            .for_sftp()
    };
    connect().connect().await.unwrap();
    let session = connect().connect().await.unwrap();
    assert_eq!(server.connections(), 3);
    session.sftp().await.unwrap();
    assert_eq!(server.recall(&memory).unwrap().bears_early, Some(false));
    let session = connect().connect().await.unwrap();
    assert!(session.take_early().is_none(), "nothing was opened early");
    session.sftp().await.unwrap();
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn another_key_or_another_server_than_last_time_is_asked_nothing_early() {
    let server = Server::start(&[Does::Good]).await;
    let memory = Arc::new(ProcessMemory::new());
    let connect = || server.connect(Some(&memory)).for_sftp();
    // The key that worked is not there any more.
    connect().identity(identity()).connect().await.unwrap();
    let other = Identity::from_ed25519_seed(Zeroizing::new([8; 32]));
    let session = connect().identity(other).connect().await.unwrap();
    session.sftp().await.unwrap();
    // It says that it is another program.
    let ann = "ann".parse().unwrap();
    let mut record = server.recall(&memory).unwrap();
    record.identification = "SSH-2.0-another".to_owned();
    record.set_key(&ann, identity().fingerprint());
    memory.remember(&"127.0.0.1".parse().unwrap(), server.port, &record);
    let session = connect().identity(identity()).connect().await.unwrap();
    session.sftp().await.unwrap();
    let record = server.recall(&memory).unwrap();
    assert!(record.identification.starts_with("SSH-2.0-ketch"));
    assert_eq!(server.connections(), 3);
}
