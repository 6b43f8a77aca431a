//! Terrapin's manipulations, and rogue extensions and sessions (THREATS K1, K4): each ends the
//! connection, in both roles and under every cipher; and old asyncssh, which falls for them, shows
//! that the man in the middle knows his work.

use std::net::SocketAddr;
use std::time::Duration;

use ketch_transport::algorithm::{CipherName, Kex, MacName};
use ketch_wire::Writer;
use serde_json::json;
use tokio::task::JoinSet;

use crate::material::{Material, PASSWORD, USER};
use crate::offer::Offer;
use crate::ours;
use crate::peers::client::{self, Clients, Job};
use crate::peers::scripted::Scripted;
use crate::peers::server::{self, Echo, Servers, Variant};
use crate::subject::{Method, Subject, preferences};
use crate::tamper::{Plan, Sender, between};

/// How long each side waits for a peer that he has made silent.
const DISCONNECT_AFTER: Duration = Duration::from_secs(2);
/// The same where nobody is to be silent, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

mod number {
    pub(super) const IGNORE: u8 = 2;
    pub(super) const UNIMPLEMENTED: u8 = 3;
    pub(super) const DEBUG: u8 = 4;
    pub(super) const SERVICE_ACCEPT: u8 = 6;
    pub(super) const EXT_INFO: u8 = 7;
    pub(super) const KEXINIT: u8 = 20;
    pub(super) const NEWKEYS: u8 = 21;
    pub(super) const USERAUTH_REQUEST: u8 = 50;
    pub(super) const USERAUTH_SUCCESS: u8 = 52;
}

fn message(fields: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut payload = Vec::new();
    fields(&mut Writer::new(&mut payload));
    payload
}

fn ignore() -> Vec<u8> {
    message(|w| {
        w.u8(number::IGNORE);
        w.string(b"");
    })
}

fn extensions() -> Vec<u8> {
    message(|w| {
        w.u8(number::EXT_INFO);
        w.u32(1);
        w.string(b"server-sig-algs");
        w.string(b"ssh-ed25519");
    })
}

/// Everything that he tries on one direction.
fn plans(sender: Sender) -> Vec<(&'static str, Plan)> {
    let insert = |before: u8, payload: Vec<u8>| Plan {
        insert: Some((before, payload)),
        ..Plan::default()
    };
    // What this side sends between its KEXINIT and its NEWKEYS.
    let exchange = match sender {
        Sender::Client => 30,
        Sender::Server => 31,
    };
    let unimplemented = message(|w| {
        w.u8(number::UNIMPLEMENTED);
        w.u32(0);
    });
    let debug = message(|w| {
        w.u8(number::DEBUG);
        w.bool(true);
        w.string(b"");
        w.string(b"");
    });
    let request = message(|w| {
        w.u8(number::USERAUTH_REQUEST);
        w.string(b"mallory");
        w.string(b"ssh-connection");
        w.string(b"none");
    });
    let accept = message(|w| {
        w.u8(number::SERVICE_ACCEPT);
        w.string(b"ssh-userauth");
    });
    vec![
        ("IGNORE before KEXINIT", insert(number::KEXINIT, ignore())),
        ("IGNORE in the exchange", insert(exchange, ignore())),
        ("IGNORE before NEWKEYS", insert(number::NEWKEYS, ignore())),
        ("DEBUG before NEWKEYS", insert(number::NEWKEYS, debug)),
        (
            "UNIMPLEMENTED before NEWKEYS",
            insert(number::NEWKEYS, unimplemented),
        ),
        (
            "EXT_INFO before NEWKEYS",
            insert(number::NEWKEYS, extensions()),
        ),
        (
            "USERAUTH_REQUEST before NEWKEYS",
            insert(number::NEWKEYS, request),
        ),
        (
            "SERVICE_ACCEPT before NEWKEYS",
            insert(number::NEWKEYS, accept),
        ),
        (
            "USERAUTH_SUCCESS before NEWKEYS",
            insert(number::NEWKEYS, vec![number::USERAUTH_SUCCESS]),
        ),
        ("Terrapin", terrapin(ignore())),
        ("a rogue EXT_INFO for the real one", terrapin(extensions())),
        (
            "the first sealed packet cut off",
            Plan {
                cut: true,
                ..Plan::default()
            },
        ),
        (
            "NEWKEYS left out",
            Plan {
                leave_out: Some(number::NEWKEYS),
                ..Plan::default()
            },
        ),
        (
            "KEXINIT left out",
            Plan {
                leave_out: Some(number::KEXINIT),
                ..Plan::default()
            },
        ),
        (
            "KEXINIT twice",
            Plan {
                repeat: Some(number::KEXINIT),
                ..Plan::default()
            },
        ),
        (
            "the exchange's message twice",
            Plan {
                repeat: Some(exchange),
                ..Plan::default()
            },
        ),
        (
            "NEWKEYS before what it ends",
            Plan {
                swap: Some(exchange),
                ..Plan::default()
            },
        ),
    ]
}

/// The attack of the paper: one packet more before `NEWKEYS`, one less after it.
fn terrapin(payload: Vec<u8>) -> Plan {
    Plan {
        insert: Some((number::NEWKEYS, payload)),
        cut: true,
        ..Plan::default()
    }
}

/// What a peer with all of our algorithms would offer.
fn everything() -> Offer {
    fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> Vec<String> {
        all.iter().map(|each| name(*each).to_owned()).collect()
    }
    Offer {
        kex: names(Kex::ALL, Kex::name),
        host_key: vec!["ssh-ed25519".to_owned()],
        cipher: names(CipherName::ALL, CipherName::name),
        mac: names(MacName::ALL, MacName::name),
        ..Offer::default()
    }
}

/// Whether a side ended the connection, or found it ended, within its own limits.
fn ended(outcome: &Result<(), String>) -> bool {
    matches!(outcome, Err(why) if why != ours::NOT_ENDED)
}

/// Our client with our server, through him.
async fn ours_with_ours(
    cipher: CipherName,
    sender: Sender,
    plan: Plan,
    limit: Duration,
    material: &Material,
) -> [Result<(), String>; 2] {
    let subject = Subject::Cipher(cipher);
    let preferences = preferences(subject, &everything());
    let mut server = ours::Server::listen().await;
    server.handshake = limit;
    let addr = between(([127, 0, 0, 1], server.port).into(), sender, plan).await;
    let client = ours::connect_within(
        addr,
        subject,
        preferences.clone(),
        Echo::Subsystem,
        material,
        limit,
    );
    let serve = server.serve(subject, preferences, material, false);
    let ((_, client), (_, server)) = tokio::join!(client, serve);
    [client, server]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_manipulation_ends_the_connection() {
    let material = std::sync::Arc::new(Material::make().await);
    for cipher in CipherName::ALL.iter().copied() {
        for outcome in
            ours_with_ours(cipher, Sender::Server, Plan::default(), PATIENCE, &material).await
        {
            outcome.unwrap_or_else(|error| panic!("{cipher}, untouched: {error}"));
        }
        let mut cases = JoinSet::new();
        for sender in Sender::BOTH {
            for (name, plan) in plans(sender) {
                let material = std::sync::Arc::clone(&material);
                cases.spawn(async move {
                    let limit = DISCONNECT_AFTER;
                    let outcomes = ours_with_ours(cipher, sender, plan, limit, &material);
                    let [client, server] = outcomes.await;
                    assert!(
                        ended(&client) && ended(&server),
                        "{cipher}, {sender:?}: {name}: {client:?} {server:?}"
                    );
                });
            }
        }
        cases.join_all().await;
    }
}

/// OpenSSH on the other side, which is strict too: our part ends it even where his would not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terrapin_fails_between_ours_and_openssh() {
    let material = std::sync::Arc::new(Material::make().await);
    let cipher = CipherName::ChaCha20Poly1305;
    let subject = Subject::Cipher(cipher);
    let servers = Servers::new(server::Kind::OpenSsh, &material).unwrap();
    let sshd = servers.start(Variant::Plain).await.unwrap();
    let clients = Clients::new(client::Kind::OpenSsh, &material)
        .await
        .unwrap();
    for sender in Sender::BOTH {
        for (name, plan) in [
            ("Terrapin", terrapin(ignore())),
            ("rogue EXT_INFO", terrapin(extensions())),
        ] {
            let preferences = preferences(subject, &everything());
            let addr = between(sshd.addr, sender, plan.clone()).await;
            let echo = server::Kind::OpenSsh.echo();
            let (_, outcome) = ours::connect_within(
                addr,
                subject,
                preferences.clone(),
                echo,
                &material,
                DISCONNECT_AFTER,
            )
            .await;
            assert!(ended(&outcome), "client, {sender:?}: {name}");

            let mut ours = ours::Server::listen().await;
            ours.handshake = DISCONNECT_AFTER;
            let addr = between(([127, 0, 0, 1], ours.port).into(), sender, plan).await;
            let job = Job {
                port: addr.port(),
                method: Method::PublicKey,
                user_key: subject.user_key(),
                agent: None,
                bytes: 1000,
                rekey: false,
            };
            let serve = ours.serve(subject, preferences, &material, false);
            let ((_, served), connected) = tokio::join!(serve, clients.connect(&job));
            assert!(
                ended(&served) && connected.is_err(),
                "server, {sender:?}: {name}"
            );
        }
    }
}

/// A server and a client of one old version, with him in between; what the client came to.
async fn old_asyncssh(version: &str, plan: Plan, material: &Material) -> Result<(), String> {
    let job = json!({
        "do": "serve",
        "user": USER,
        "password": PASSWORD,
        "host_keys": [material.private(crate::material::Owner::Host, ketch_keys::KeyType::Ed25519)],
    });
    let server = Scripted::start_old_asyncssh(version)?;
    let answer = server.ask(job).await?;
    let port = answer["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    let addr: SocketAddr = ([127, 0, 0, 1], port.ok_or("no port")?).into();
    let addr = between(addr, Sender::Server, plan).await;
    let client = Scripted::start_old_asyncssh(version)?;
    let probe = json!({
        "do": "probe",
        "port": addr.port(),
        "user": USER,
        "password": PASSWORD,
        "cipher": CipherName::ChaCha20Poly1305.name(),
        "seconds": 15,
    });
    let answer = client.ask(probe).await?;
    if answer["echo"] == true {
        Ok(())
    } else {
        Err(format!("{answer}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controls_that_are_not_strict_fall_for_it() {
    let material = Material::make().await;
    for version in ["2.13.2", "2.14.0"] {
        old_asyncssh(version, Plan::default(), &material)
            .await
            .unwrap();
    }
    // Nobody notices that the extensions are gone.
    old_asyncssh("2.13.2", terrapin(ignore()), &material)
        .await
        .unwrap();
    old_asyncssh("2.14.0", terrapin(ignore()), &material)
        .await
        .unwrap();
    // CVE-2023-46445: extensions that the server never sent are taken for its own.
    old_asyncssh("2.14.0", terrapin(extensions()), &material)
        .await
        .unwrap();
}
