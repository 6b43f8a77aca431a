//! What of passwords, private keys and passphrases is left in memory once a login is over: the memory
//! of this process is read as a thief of it would.
//!
//! Stacks are not looked at: moves of arrays and `ring` leave copies there, which the next calls
//! overwrite. One test, because it is about the memory of the whole process.
#![cfg(target_os = "linux")]

mod memory;

use std::sync::Arc;

use ketch_keys::{KeyFile, PrivateKey};
use ketch_transport::auth::{Credential, Method};
use ketch_transport::config::{ClientConfig, ServerConfig};
use ketch_transport::driver::{CloseReason, Login, LoginEvent, RefuseAll};
use memory::{TOLD, hits};
use tokio::io::DuplexStream;
use zeroize::Zeroizing;

fn secret_text(len: usize) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(len));
    text.extend(std::iter::repeat_n(char::from(TOLD), len));
    text
}

/// With what a client logs in.
enum With {
    Password(Zeroizing<String>),
    Key(PrivateKey),
}

async fn client(stream: DuplexStream, with: With) -> Result<Login<DuplexStream>, CloseReason> {
    let mut login = Login::client(stream, ClientConfig::new("ann"))?;
    loop {
        match login.next().await? {
            LoginEvent::HostKey(_) => login.accept_host_key()?,
            LoginEvent::AuthWanted { .. } => match &with {
                With::Password(password) => {
                    login.authenticate(&Credential::Password(password.clone()))?;
                }
                With::Key(key) => {
                    login.authenticate(&Credential::public_key(key.public_key().clone()))?;
                }
            },
            LoginEvent::Sign(data) => {
                let With::Key(key) = &with else {
                    panic!("nothing to sign with")
                };
                let algorithm = key.public_key().algorithms()[0];
                login.signature(&key.sign(algorithm, &data).unwrap())?;
            }
            LoginEvent::Authenticated { .. } => return Ok(login),
            other => panic!("{other:?}"),
        }
    }
}

async fn server(
    stream: DuplexStream,
    host_key: PrivateKey,
) -> Result<Login<DuplexStream>, CloseReason> {
    let config = ServerConfig::new([Arc::new(host_key.into())]);
    let mut login = Login::server(stream, config)?;
    loop {
        match login.next().await? {
            LoginEvent::Attempt(attempt) => match attempt.method {
                Method::Password(password) if password.bytes().all(|byte| byte == TOLD) => {
                    login.accept_auth()?;
                }
                Method::PublicKey { .. } | Method::PublicKeyQuery { .. } => login.accept_auth()?,
                _ => login.reject_auth()?,
            },
            LoginEvent::Authenticated { .. } => return Ok(login),
            other => panic!("{other:?}"),
        }
    }
}

/// A login from end to end, and its end.
async fn log_in(with: With, host_key: PrivateKey) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (client, server) = tokio::join!(client(ours, with), server(theirs, host_key));
    let (client, client_task) = client.unwrap().run(Box::new(RefuseAll));
    let (server, server_task) = server.unwrap().run(Box::new(RefuseAll));
    client.disconnect();
    drop((client, server));
    tokio::join!(client_task, server_task);
}

fn seed(byte: u8) -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([byte; 32]))
}

/// A key file is read, its passphrase tried, its key used and forgotten.
fn key_from_file() -> PrivateKey {
    let text = seed(TOLD).to_openssh();
    let file = KeyFile::parse(text.as_bytes()).unwrap();
    drop(file.decrypt(&secret_text(40)));
    file.open().unwrap()
}

#[test]
fn nothing_of_a_logins_secrets_is_left_in_memory() {
    let mut page = vec![0; 64 * 1024];
    let before = hits(&mut page).0;
    // The search finds what is there.
    let there = (secret_text(40), seed(TOLD));
    assert!(hits(&mut page).0 >= before + 2);
    drop(there);
    assert_eq!(hits(&mut page).0, before, "what was never used");

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut left = Vec::new();
    let mut step = |name: &'static str, what: &mut dyn FnMut()| {
        let before = hits(&mut page).0;
        what();
        let after = hits(&mut page).0;
        if after != before {
            left.push((name, before, after));
        }
    };
    step("a password", &mut || {
        runtime.block_on(log_in(With::Password(secret_text(40)), seed(1)));
    });
    step("a key file", &mut || drop(key_from_file()));
    step("a user's key", &mut || {
        runtime.block_on(log_in(With::Key(seed(TOLD)), seed(1)));
    });
    step("a host's key", &mut || {
        runtime.block_on(log_in(With::Key(seed(2)), seed(TOLD)));
    });
    assert!(
        left.is_empty(),
        "left behind (what, before, after): {left:?}"
    );
}
