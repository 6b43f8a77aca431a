//! Against the real OpenSSH: our client with `sshd`, `ssh` with our server, each cipher, while both
//! sides exchange keys again and again under 64 MiB that are echoed; and each cipher with each MAC,
//! compressed and not, with less.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "the tests of a driver own tasks")]

mod ends;

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use ends::{host_key, log_in_server, user_public_key, user_signature};
use ketch_conformance::openssh::{KeyPair, OpenSshConfig, OpenSshServer};
use ketch_keys::PublicKey;
use ketch_transport::algorithm::{CipherName, Compression, Kex, MacName};
use ketch_transport::auth::{Credential, Method};
use ketch_transport::config::{ClientConfig, ServerConfig};
use ketch_transport::crypto::Suite;
use ketch_transport::driver::{
    Acceptor, Application, ChannelIo, CloseReason, ConnectionHandle, Lent, Login, LoginEvent,
    RefuseAll, stream,
};
use ketch_transport::profile::Preferences;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LEN: usize = 64 << 20;
/// How long `ssh` may take; it takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// How long a few megabytes may take.
const LIMIT_SHORT: Duration = Duration::from_secs(60);

/// Bytes that repeat nowhere near.
fn content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(LEN);
    while bytes.len() < LEN {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// `ssh-ed25519` and base64, as in `known_hosts` and `authorized_keys`.
fn line(key: &PublicKey) -> String {
    format!(
        "{} {}",
        key.type_name(),
        Base64::encode_string(key.as_blob())
    )
}

fn key_of(line: &str) -> PublicKey {
    let base64 = line.split(' ').nth(1).unwrap();
    PublicKey::from_blob(&Base64::decode_vec(base64).unwrap()).unwrap()
}

/// An `sshd` whose subsystem `echo` is `cat`, and which lets [`user_key`] in.
fn sshd(dir: &Path, cipher: CipherName) -> OpenSshServer {
    let authorized = dir.join("authorized");
    fs::write(&authorized, format!("{}\n", line(&user_public_key()))).unwrap();
    OpenSshServer::start(OpenSshConfig {
        ciphers: Some(cipher.name().to_owned()),
        rekey_limit: Some("1M".to_owned()),
        log_level: "DEBUG1".to_owned(),
        lines: vec![
            "Subsystem echo /bin/cat".to_owned(),
            format!("AuthorizedKeysFile {}", authorized.display()),
            // Without what the user's shell does at its start, which may take long.
            format!("SetEnv HOME={}", authorized.parent().unwrap().display()),
        ],
        ..OpenSshConfig::default()
    })
    .unwrap()
}

/// Nothing but that suite.
fn prefer(preferences: &mut Preferences, suite: Suite) {
    // Hundreds of exchanges: the cheapest will do.
    preferences.kex = vec![Kex::Curve25519Sha256];
    preferences.cipher = vec![suite.cipher];
    if let Some(mac) = suite.mac {
        preferences.mac = vec![mac];
    }
    preferences.compression = vec![suite.compression];
}

async fn connect(server: &OpenSshServer, suite: Suite) -> ConnectionHandle {
    let mut config = ClientConfig::new(server.user());
    prefer(&mut config.common.preferences, suite);
    let socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut login = Login::client(socket, config).unwrap();
    loop {
        match login.next().await.unwrap() {
            LoginEvent::HostKey(key) => {
                assert_eq!(key, key_of(server.host_key().public_key()));
                login.accept_host_key().unwrap();
            }
            LoginEvent::AuthWanted { methods: None, .. } => {
                login
                    .authenticate(&Credential::public_key(user_public_key()))
                    .unwrap();
            }
            LoginEvent::Sign(data) => {
                login.signature(&user_signature(&data)).unwrap();
            }
            LoginEvent::Authenticated { .. } => {
                assert!(login.peer_identification().unwrap().contains("OpenSSH"));
                let (handle, task) = login.run(Box::new(RefuseAll));
                tokio::task::spawn(task);
                return handle;
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn sshd_echoes(cipher: CipherName) {
    let dir = tempfile::tempdir().unwrap();
    let server = sshd(dir.path(), cipher);
    let handle = connect(&server, Suite::aead(cipher)).await;
    let (channel, application) = stream();
    handle
        .open_session("echo", 2 << 20, application)
        .await
        .unwrap();
    let (mut read, mut write) = tokio::io::split(channel);
    let sent = Arc::new(content());
    let writer = tokio::task::spawn({
        let (sent, handle) = (Arc::clone(&sent), handle.clone());
        async move {
            for piece in sent.chunks(5_000_000) {
                write.write_all(piece).await.unwrap();
                handle.rekey();
            }
            write.shutdown().await.unwrap();
        }
    });
    let mut received = Vec::with_capacity(LEN);
    read.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(received == *sent, "{} bytes of {LEN}", received.len());
    assert!(!handle.is_closed());
    handle.disconnect();
    assert!(matches!(*handle.closed().await, CloseReason::Requested));
    let rekeys = server.log().matches("SSH2_MSG_NEWKEYS received").count();
    assert!(rekeys > 30, "{rekeys} exchanges");
}

/// Every cipher with every MAC, and compressed where `compressed` says so.
fn suites(compressed: bool) -> Vec<Suite> {
    let compression = if compressed {
        Compression::ZlibOpenSsh
    } else {
        Compression::None
    };
    let with = |suite| Suite {
        compression,
        ..suite
    };
    Suite::every().map(with).collect()
}

/// A mebibyte, of which half is easily made shorter: some exchanges of keys, yet fewer than make us
/// answer slowly (with blocks of 16 bytes OpenSSH wants one for every 80 KiB under its `1M`).
fn some_content() -> Vec<u8> {
    let mut bytes = content();
    bytes.truncate(1 << 20);
    for piece in bytes.chunks_mut(50_000).step_by(2) {
        piece.fill(b'a');
    }
    bytes
}

#[tokio::test]
async fn sshd_echoes_under_every_cipher_and_mac_compressed_and_not() {
    let dir = tempfile::tempdir().unwrap();
    let authorized = dir.path().join("authorized");
    fs::write(&authorized, format!("{}\n", line(&user_public_key()))).unwrap();
    let names: Vec<_> = CipherName::ALL.iter().map(|cipher| cipher.name()).collect();
    let macs: Vec<_> = MacName::ALL.iter().map(|mac| mac.name()).collect();
    let server = OpenSshServer::start(OpenSshConfig {
        ciphers: Some(names.join(",")),
        rekey_limit: Some("1M".to_owned()),
        log_level: "DEBUG1".to_owned(),
        lines: vec![
            "Subsystem echo /bin/cat".to_owned(),
            format!("AuthorizedKeysFile {}", authorized.display()),
            // Without what the user's shell does at its start, which may take long.
            format!("SetEnv HOME={}", authorized.parent().unwrap().display()),
            format!("MACs {}", macs.join(",")),
            "Compression yes".to_owned(),
            "MaxStartups 1000".to_owned(),
        ],
        ..OpenSshConfig::default()
    })
    .unwrap();
    let sent = Arc::new(some_content());
    for suite in suites(false).into_iter().chain(suites(true)) {
        let handle = connect(&server, suite).await;
        let (channel, application) = stream();
        handle
            .open_session("echo", 2 << 20, application)
            .await
            .unwrap();
        let (mut read, mut write) = tokio::io::split(channel);
        let writer = tokio::task::spawn({
            let sent = Arc::clone(&sent);
            async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            }
        });
        let mut received = Vec::with_capacity(sent.len());
        let echo = tokio::time::timeout(LIMIT_SHORT, read.read_to_end(&mut received)).await;
        assert!(
            received == *sent && echo.is_ok_and(|echo| echo.is_ok()),
            "{suite:?}: {} bytes\n{}",
            received.len(),
            server.log()
        );
        writer.await.unwrap();
        assert!(!handle.is_closed(), "{suite:?}");
        handle.disconnect();
    }
    let log = server.log();
    let rekeys = log.matches("SSH2_MSG_NEWKEYS received").count();
    assert!(rekeys > 90 * 2, "{rekeys} exchanges");
    assert!(log.contains("Enabling compression at level 6"));
}

#[tokio::test]
async fn sshd_echoes_under_aes256_gcm() {
    sshd_echoes(CipherName::Aes256Gcm).await;
}

#[tokio::test]
async fn sshd_echoes_under_aes128_gcm() {
    sshd_echoes(CipherName::Aes128Gcm).await;
}

#[tokio::test]
async fn sshd_echoes_under_chacha20_poly1305() {
    sshd_echoes(CipherName::ChaCha20Poly1305).await;
}

#[tokio::test]
async fn an_upload_outlives_hundreds_of_key_exchanges() {
    // Nothing but a few answers comes back: exchanges without end, if only what comes in counted.
    let dir = tempfile::tempdir().unwrap();
    let cipher = CipherName::Aes128Gcm;
    let authorized = dir.path().join("authorized");
    fs::write(&authorized, format!("{}\n", line(&user_public_key()))).unwrap();
    let server = OpenSshServer::start(OpenSshConfig {
        rekey_limit: Some("64K".to_owned()),
        lines: vec![
            "Subsystem count /usr/bin/wc -c".to_owned(),
            format!("AuthorizedKeysFile {}", authorized.display()),
            // Without what the user's shell does at its start, which may take long.
            format!("SetEnv HOME={}", authorized.parent().unwrap().display()),
        ],
        ..OpenSshConfig::default()
    })
    .unwrap();
    let handle = connect(&server, Suite::aead(cipher)).await;
    let (mut channel, application) = stream();
    handle
        .open_session("count", 2 << 20, application)
        .await
        .unwrap();
    channel.write_all(&content()).await.unwrap();
    channel.shutdown().await.unwrap();
    let mut counted = String::new();
    channel.read_to_string(&mut counted).await.unwrap();
    assert_eq!(counted.trim(), LEN.to_string());
}

/// Echoes on the connection's task, and says in the end that all went well.
#[derive(Default)]
struct Echo {
    waiting: Vec<u8>,
    ended: bool,
}

impl Application for Echo {
    fn on_data(&mut self, data: Lent<'_>, _io: &mut ChannelIo<'_>) {
        self.waiting.extend_from_slice(data.bytes);
    }

    fn on_eof(&mut self, _io: &mut ChannelIo<'_>) {
        self.ended = true;
    }

    fn drive(&mut self, io: &mut ChannelIo<'_>) {
        loop {
            let len = self.waiting.len().min(io.sendable());
            let Some(mut room) = (if len == 0 { None } else { io.room(len) }) else {
                break;
            };
            room.write_at(0, &self.waiting);
            room.commit(len);
            self.waiting.drain(..len);
            io.give_credit(len);
        }
        if self.ended && self.waiting.is_empty() {
            self.ended = false;
            io.send_exit_status(0);
            io.close();
        }
    }
}

impl Acceptor for Echo {
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>> {
        (name == "echo").then(|| Box::new(Self::default()) as Box<dyn Application>)
    }
}

/// Serves one connection, and says how it ended.
async fn serve(listener: TcpListener, suite: Suite, user: PublicKey) -> Arc<CloseReason> {
    let (socket, _) = listener.accept().await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut config = ServerConfig::new([host_key()]);
    prefer(&mut config.common.preferences, suite);
    config.common.rekey.bytes = Some(match suite.compression {
        Compression::ZlibOpenSsh => 64 << 10, // of fewer bytes
        _ => 3 << 20,
    });
    let mut login = Login::server(socket, config).unwrap();
    loop {
        match login.next().await.unwrap() {
            LoginEvent::Attempt(attempt) => match attempt.method {
                Method::PublicKey { key, .. } | Method::PublicKeyQuery { key, .. }
                    if key == user =>
                {
                    login.accept_auth().unwrap();
                }
                _ => login.reject_auth().unwrap(),
            },
            LoginEvent::Authenticated { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(login.peer_identification().unwrap().contains("OpenSSH"));
    let (handle, task) = login.run(Box::new(Echo::default()));
    task.await;
    handle.closed().await
}

/// Runs `ssh -s`, with a file for its input and one for its output; what it says is returned.
fn run_ssh(dir: &Path, port: u16, suite: Suite, subsystem: &str) -> (Option<i32>, String) {
    let compression = match suite.compression {
        Compression::ZlibOpenSsh => "Compression=yes",
        _ => "Compression=no",
    };
    let known_hosts = dir.join("known_hosts");
    let host = line(host_key().public_key());
    fs::write(&known_hosts, format!("[127.0.0.1]:{port} {host}\n")).unwrap();
    let errors = dir.join("errors");
    let mut child = Command::new("ssh")
        .args([
            "-F",
            "none",
            "-v",
            "-p",
            &port.to_string(),
            "-c",
            suite.cipher.name(),
            "-o",
            compression,
            "-m",
            // One has to be named.
            suite.mac.unwrap_or(MacName::HmacSha256).name(),
        ])
        .args([
            "-o",
            "RekeyLimit=1M",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .args([
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "GlobalKnownHostsFile=/dev/null",
        ])
        .args(["-o", "IdentityAgent=none"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .arg("-i")
        .arg(dir.join("identity"))
        .args(["-s", "ann@127.0.0.1", subsystem])
        .stdin(File::open(dir.join("in")).unwrap())
        .stdout(File::create(dir.join("out")).unwrap())
        .stderr(File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let step = Duration::from_millis(20);
    for _ in 0..LIMIT.as_millis() / step.as_millis() {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), fs::read_to_string(errors).unwrap());
        }
        std::thread::sleep(step);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("ssh hangs: {}", fs::read_to_string(errors).unwrap());
}

async fn ssh_is_echoed_to(cipher: CipherName) {
    ssh_is_echoed(Suite::aead(cipher), content(), 30).await;
}

async fn ssh_is_echoed(suite: Suite, content: Vec<u8>, rekeys_min: usize) {
    let dir = tempfile::tempdir().unwrap();
    let identity = KeyPair::generate(&dir.path().join("identity"), None).unwrap();
    fs::write(dir.path().join("in"), &content).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::task::spawn(serve(listener, suite, key_of(identity.public_key())));
    let path = dir.path().to_owned();
    let ssh = tokio::task::spawn_blocking(move || run_ssh(&path, port, suite, "echo"));
    let (status, said) = ssh.await.unwrap();
    assert_eq!(status, Some(0), "{suite:?} {said}");
    assert!(
        fs::read(dir.path().join("out")).unwrap() == content,
        "{said}"
    );
    let rekeys = said.matches("SSH2_MSG_NEWKEYS received").count();
    assert!(rekeys > rekeys_min, "{suite:?} {rekeys} exchanges");
    let why = server.await.unwrap();
    assert!(why.to_string().contains("reason 11"), "{why:?}");
}

#[tokio::test]
async fn ssh_is_echoed_to_under_every_cipher_and_mac_compressed_and_not() {
    let compressed = suites(true).into_iter().step_by(4);
    for suite in suites(false).into_iter().chain(compressed) {
        ssh_is_echoed(suite, some_content(), 1).await;
    }
}

#[tokio::test]
async fn ssh_is_echoed_to_under_aes256_gcm() {
    ssh_is_echoed_to(CipherName::Aes256Gcm).await;
}

#[tokio::test]
async fn ssh_is_echoed_to_under_aes128_gcm() {
    ssh_is_echoed_to(CipherName::Aes128Gcm).await;
}

#[tokio::test]
async fn ssh_is_echoed_to_under_chacha20_poly1305() {
    ssh_is_echoed_to(CipherName::ChaCha20Poly1305).await;
}

#[tokio::test]
async fn ssh_is_told_that_a_subsystem_or_a_user_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let identity = KeyPair::generate(&dir.path().join("identity"), None).unwrap();
    fs::write(dir.path().join("in"), b"").unwrap();
    let cipher = CipherName::Aes256Gcm;
    for (user, expected) in [
        (key_of(identity.public_key()), "subsystem request failed"),
        (user_public_key(), "Permission denied (publickey,password)"),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::task::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let config = ServerConfig::new([host_key()]);
            if user == user_public_key() {
                return drop(log_in_server(Login::server(socket, config).unwrap()).await);
            }
            let mut login = Login::server(socket, config).unwrap();
            while let Ok(event) = login.next().await {
                match event {
                    LoginEvent::Attempt(attempt) => match attempt.method {
                        Method::PublicKey { .. } | Method::PublicKeyQuery { .. } => {
                            login.accept_auth().unwrap()
                        }
                        _ => login.reject_auth().unwrap(),
                    },
                    LoginEvent::Authenticated { .. } => break,
                    other => panic!("{other:?}"),
                }
            }
            login.run(Box::new(RefuseAll)).1.await;
        });
        let path = dir.path().to_owned();
        let ssh =
            tokio::task::spawn_blocking(move || run_ssh(&path, port, Suite::aead(cipher), "none"));
        let (status, said) = ssh.await.unwrap();
        assert_eq!(status, Some(255), "{said}");
        assert!(said.contains(expected), "{said}");
        server.await.unwrap();
    }
}
