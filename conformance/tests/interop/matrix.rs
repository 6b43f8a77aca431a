//! The matrix: every row with every peer, in both roles.

use std::sync::Arc;

use ketch_keys::SignatureAlgorithm;
use ketch_transport::profile::Preferences;

use crate::agent::Agent;
use crate::material::Material;
use crate::offer::Offer;
use crate::ours;
use crate::peers::client::{self, Clients, Job};
use crate::peers::server::{self, Servers, Variant};
use crate::subject::{Method, Subject, preferences};

/// What came of a cell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Cell {
    /// Agreed, bytes there and back, keys exchanged anew.
    Works,
    /// The peer has it not, as itself says: the evidence.
    Blank(String),
    /// We have it not in this role, or not for this peer: why.
    Ours(String),
    /// The peer has it, and it does not work.
    Fails(String),
}

/// A peer in one role, with its cells in the order of [`Subject::all`].
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) offer: Offer,
    /// Algorithms for users' keys, and where that is said.
    pub(crate) user_keys: Vec<String>,
    pub(crate) user_keys_from: &'static str,
    pub(crate) cells: Vec<(Subject, Cell)>,
}

/// Whether the peer has what the row is about, as far as its offer tells; `Err` with what it says
/// instead.
fn offered(subject: Subject, offer: &Offer) -> Result<(), String> {
    let (list, named) = match subject {
        Subject::Kex(_) => (&offer.kex, "key exchange methods"),
        Subject::HostKey(_) => (&offer.host_key, "host key algorithms"),
        Subject::Cipher(_) => (&offer.cipher, "ciphers"),
        Subject::Mac(_) => (&offer.mac, "MACs"),
        Subject::Compression(_) => (&offer.compression, "compression"),
        Subject::UserKey(_) | Subject::Login(_) | Subject::Rekey => return Ok(()),
    };
    if list.iter().any(|name| name == subject.name()) {
        Ok(())
    } else {
        Err(format!("not among the {named} of its KEXINIT"))
    }
}

/// Peers as servers, we as client.
pub(crate) async fn with_server(
    kind: server::Kind,
    material: Arc<Material>,
) -> Result<Column, String> {
    let servers = Servers::new(kind, &material)?;
    let control = Clients::new(client::Kind::OpenSsh, &material).await?;
    let plain = servers.start(Variant::Plain).await?;
    let mut offer = plain.offer().await?;
    if kind == server::Kind::Dropbear {
        let more = servers.start(Variant::MoreKeys).await?.offer().await?;
        for key in more.host_key {
            if !offer.host_key.contains(&key) {
                offer.host_key.push(key);
            }
        }
    }
    let (mut user_keys, mut user_keys_from) = (servers.says_of_user_keys().await?, "its own list");
    if user_keys.is_empty() {
        user_keys.clone_from(&offer.host_key);
        user_keys_from = "its KEXINIT's host key algorithms";
    }
    let mut cells = Vec::new();
    for subject in Subject::all() {
        if let Err(evidence) = offered(subject, &offer) {
            cells.push((subject, Cell::Blank(evidence)));
            continue;
        }
        let variant = match subject {
            Subject::Login(Method::None) => Variant::Open,
            Subject::Login(Method::KeyThenPassword) => Variant::TwoSteps,
            Subject::Rekey => Variant::Rekeying,
            Subject::HostKey(key)
                if kind == server::Kind::Dropbear && key.key_type() == server::MORE_KEYS =>
            {
                Variant::MoreKeys
            }
            _ => Variant::Plain,
        };
        let other;
        let server = if variant == Variant::Plain {
            &plain
        } else {
            other = servers.start(variant).await?;
            &other
        };
        let preferences = preferences(subject, &offer);
        let (outcome, result) =
            ours::connect(server.addr, subject, preferences, kind.echo(), &material).await;
        for name in outcome.said.iter().filter(|_| subject.is_default_login()) {
            if !user_keys.contains(name) {
                user_keys.push(name.clone());
                user_keys_from = "its EXT_INFO or its own list";
            }
        }
        let cell = match result {
            Ok(()) if outcome.early => Cell::Blank("it lets in after the first step".to_owned()),
            Ok(()) if outcome.rekeys == 0 => match subject {
                Subject::Rekey => Cell::Blank("it began no exchange".to_owned()),
                _ => Cell::Fails("no keys were exchanged anew".to_owned()),
            },
            Ok(()) => Cell::Works,
            Err(error) => match subject {
                Subject::UserKey(key) if !user_keys.iter().any(|name| name == key.name()) => {
                    Cell::Blank(format!("not in {user_keys_from}"))
                }
                Subject::Login(method) if !names(&outcome.methods, method) => {
                    Cell::Blank(format!("it names {}", listed(&outcome.methods)))
                }
                // A peer that cannot do what it offers fails with everybody.
                _ => match control_option(subject) {
                    Some(option) if kind != server::Kind::OpenSsh => {
                        let port = server.addr.port();
                        match control.control(port, &option, kind.echo()).await {
                            Ok(()) => Cell::Fails(error),
                            Err(_) => Cell::Blank("OpenSSH's client fails with it, too".to_owned()),
                        }
                    }
                    _ => Cell::Fails(error),
                },
            },
        };
        println!(
            "{}: {} {}: {cell:?}",
            kind.name(),
            subject.category(),
            subject.name()
        );
        cells.push((subject, cell));
    }
    Ok(Column {
        name: kind.name(),
        offer,
        user_keys,
        user_keys_from,
        cells,
    })
}

/// How OpenSSH's client is told to do what a row is about.
fn control_option(subject: Subject) -> Option<String> {
    let option = match subject {
        Subject::Kex(_) => "KexAlgorithms",
        Subject::HostKey(_) => "HostKeyAlgorithms",
        Subject::Cipher(_) => "Ciphers",
        Subject::Mac(_) => "MACs",
        _ => return None,
    };
    Some(format!("{option}={}", subject.name()))
}

/// Each once, in order.
fn listed(names: &[String]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for name in names {
        if !once.contains(&name.as_str()) {
            once.push(name);
        }
    }
    once.join(", ")
}

/// Whether a server's list has what a way to log in needs.
fn names(listed: &[String], method: Method) -> bool {
    let has = |name: &str| listed.iter().any(|each| each == name);
    match method {
        Method::None => false,
        Method::KeyThenPassword => has("publickey") && has("password"),
        method => has(method.name()),
    }
}

/// Peers as clients, we as server.
pub(crate) async fn with_client(
    kind: client::Kind,
    material: Arc<Material>,
) -> Result<Column, String> {
    let clients = Clients::new(kind, &material).await?;
    let offer = clients.offer().await?;
    let (mut user_keys, mut user_keys_from) = (clients.says_of_user_keys().await?, "its own list");
    if user_keys.is_empty() {
        user_keys.clone_from(&offer.host_key);
        user_keys_from = "its KEXINIT's host key algorithms";
    }
    let mut cells = Vec::new();
    for subject in Subject::all() {
        if let Err(evidence) = offered(subject, &offer) {
            cells.push((subject, Cell::Blank(evidence)));
            continue;
        }
        if let Some(why) = not_ours(subject) {
            cells.push((subject, Cell::Ours(why.to_owned())));
            continue;
        }
        let ours = ours::Server::listen().await;
        let agent = match subject {
            Subject::UserKey(key) if kind.needs_agent(key) => {
                Some(Agent::start(&material, key, ours.port))
            }
            _ => None,
        };
        let job = Job {
            agent: agent.as_ref().map(|agent| agent.path().to_owned()),
            port: ours.port,
            method: subject.method(),
            user_key: subject.user_key(),
            bytes: ours::BYTES,
            rekey: subject == Subject::Rekey,
        };
        let preferences = preferences(subject, &offer);
        let one_answer = kind.has_one_answer();
        let serve = ours.serve(subject, preferences.clone(), &material, one_answer);
        let mut serve = std::pin::pin!(serve);
        // A client that gives up before it connects leaves nobody to serve.
        let (mut served, mut connected) = (None, None);
        let mut connect = std::pin::pin!(clients.connect(&job));
        while served.is_none() || connected.is_none() {
            tokio::select! {
                outcome = &mut serve, if served.is_none() => served = Some(outcome),
                outcome = &mut connect, if connected.is_none() => {
                    let failed = outcome.is_err();
                    connected = Some(outcome);
                    if failed && served.is_none() {
                        // If it never came, this comes in its place and says nothing.
                        drop(tokio::net::TcpStream::connect(("127.0.0.1", ours.port)).await);
                        let moment = std::time::Duration::from_secs(60);
                        let after = tokio::time::timeout(moment, &mut serve).await;
                        served = Some(after.unwrap_or_else(|_| {
                            (ours::Outcome::default(), Err(ours::NOT_ENDED.to_owned()))
                        }));
                    }
                }
            }
        }
        let (Some((outcome, served)), Some(connected)) = (served, connected) else {
            unreachable!("both were waited for")
        };
        let cell = match (served, connected) {
            (Ok(()), Ok(bytes)) if bytes != ours::BYTES as u64 => {
                Cell::Fails(format!("{bytes} bytes"))
            }
            (Ok(()), Ok(_)) if outcome.rekeys == 0 => match subject {
                Subject::Rekey => Cell::Blank("it began no exchange".to_owned()),
                _ => Cell::Fails("no keys were exchanged anew".to_owned()),
            },
            (Ok(()), Ok(_)) => Cell::Works,
            (served, connected) => {
                let text = |result: Result<(), String>| result.err().unwrap_or_default();
                let error = format!(
                    "{}; {} (its requests: {})",
                    text(connected.map(drop)),
                    text(served),
                    outcome.said.join(", ")
                );
                match subject {
                    Subject::UserKey(key) if !user_keys.iter().any(|name| name == key.name()) => {
                        Cell::Blank(format!("not in {user_keys_from}"))
                    }
                    Subject::UserKey(key)
                        if !outcome.said.contains(&format!("publickey {}", key.name())) =>
                    {
                        Cell::Blank(format!("its requests were {}", listed(&outcome.said)))
                    }
                    Subject::Login(method) if !asked(&outcome.said, method) => {
                        Cell::Blank(format!("its requests were {}", listed(&outcome.said)))
                    }
                    _ => match offered_to(&offer.identification, subject, preferences, &material)
                        .await
                    {
                        Ok(true) => Cell::Fails(error),
                        Ok(false) => Cell::Ours(
                            "left out for an identification that is not known to be strict"
                                .to_owned(),
                        ),
                        Err(why) => Cell::Fails(format!("{error}; {why}")),
                    },
                }
            }
        };
        println!(
            "{}: {} {}: {cell:?}",
            kind.name(),
            subject.category(),
            subject.name()
        );
        cells.push((subject, cell));
    }
    Ok(Column {
        name: kind.name(),
        offer,
        user_keys,
        user_keys_from,
        cells,
    })
}

/// What our server does not do, whoever asks.
fn not_ours(subject: Subject) -> Option<&'static str> {
    match subject {
        Subject::Kex(kex) if kex.name().contains("group-exchange") => {
            Some("group exchange is the client's only")
        }
        Subject::HostKey(key) if !has_key(key) => Some("security keys are no host keys"),
        _ => None,
    }
}

/// Whether our server offers what the row is about to a client that introduces itself so.
async fn offered_to(
    identification: &str,
    subject: Subject,
    preferences: Preferences,
    material: &Material,
) -> Result<bool, String> {
    let offer = ours::Server::offer_to(identification, subject, preferences, material).await?;
    Ok(offered(subject, &offer).is_ok())
}

/// Whether a client asked in the way that the row is about.
fn asked(said: &[String], method: Method) -> bool {
    let has = |name: &str| said.iter().any(|each| each.starts_with(name));
    match method {
        Method::KeyThenPassword => has("publickey") && has("password"),
        method => has(method.name()),
    }
}

/// Whether an algorithm can be tried with the keys that there are.
pub(crate) fn has_key(algorithm: SignatureAlgorithm) -> bool {
    crate::material::FILE_TYPES.contains(&algorithm.key_type())
}
