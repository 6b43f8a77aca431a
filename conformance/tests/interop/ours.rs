//! Our side of a cell: a client or a server of the public transport crate, which offers what the row
//! is about and nothing else of its kind.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ketch_keys::{PublicKey, SignatureAlgorithm};
use ketch_transport::algorithm::Preferences;
use ketch_transport::auth::{Credential, Method as Tried};
use ketch_transport::config::{ClientConfig, ServerConfig};
use ketch_transport::crypto::hostkey::HostKeyPair;
use ketch_transport::driver::{
    Acceptor, Application, ConnectionHandle, Login, LoginEvent, RefuseAll, stream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::material::{ANSWERS, Material, Owner, PASSWORD, USER};
use crate::peers::server::Echo;
use crate::subject::{Method, Subject};

/// Bytes that go through a connection and come back.
pub(crate) const BYTES: usize = 1024 * 1024;
/// After how many bytes in one direction our side exchanges keys anew.
const REKEY_BYTES: u64 = 400_000;
/// How long one connection may take.
const LIMIT: Duration = Duration::from_secs(90);
const WINDOW: u32 = 256 * 1024;

/// Bytes that do not repeat within a packet: the same in every peer's program.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let (mut out, mut state) = (Vec::with_capacity(len + 8), 0x9E37_79B9_u64);
    while out.len() < len {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(state >> 16).to_be_bytes()[2..]);
    }
    out.truncate(len);
    out
}

/// What a connection came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes that came back.
    pub(crate) bytes: u64,
    /// Key exchanges after the first.
    pub(crate) rekeys: u64,
    /// The ways to log in that the server named.
    pub(crate) methods: Vec<String>,
    /// As client: the user's algorithms that the server's `EXT_INFO` named. As server: the requests
    /// to log in that came.
    pub(crate) said: Vec<String>,
    /// In without what the row is about.
    pub(crate) early: bool,
}

/// An error with all that led to it.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Logs in at `addr` and sends [`BYTES`] there and back.
///
/// What was learnt is in the outcome also where the connection failed.
pub(crate) async fn connect(
    addr: SocketAddr,
    subject: Subject,
    preferences: Preferences,
    echo: Echo,
    material: &Material,
) -> (Outcome, Result<(), String>) {
    let mut outcome = Outcome::default();
    let work = client(addr, subject, preferences, echo, material, &mut outcome);
    let result = timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| Err("not done in time".to_owned()));
    (outcome, result)
}

async fn client(
    addr: SocketAddr,
    subject: Subject,
    preferences: Preferences,
    _echo: Echo,
    material: &Material,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let tcp = TcpStream::connect(addr).await.map_err(|e| text(&e))?;
    tcp.set_nodelay(true).map_err(|e| text(&e))?;
    let host_key = preferences.host_key[0];
    let mut config = ClientConfig::new(USER);
    config.common.preferences = preferences;
    if subject != Subject::Rekey {
        config.common.rekey.bytes = Some(REKEY_BYTES);
    }
    let mut login = Login::client(tcp, config).map_err(|e| text(&e))?;
    let mut steps = steps(subject.method());
    let user_key = subject.user_key();
    loop {
        match login.next().await.map_err(|e| text(&e))? {
            LoginEvent::HostKey(key) => {
                if key != material.public(Owner::Host, host_key) {
                    return Err(format!("another host key than ours: {}", key.to_line()));
                }
                login.accept_host_key().map_err(|e| text(&e))?;
            }
            LoginEvent::AuthWanted { methods, .. } => {
                outcome.methods.extend(methods.unwrap_or_default());
                let Some(step) = steps.pop() else {
                    return Err(format!("refused; it takes {:?}", outcome.methods));
                };
                let credential = match step {
                    Step::None => Credential::None,
                    Step::Password => {
                        Credential::Password(Zeroizing::new(PASSWORD.to_owned()))
                    }
                    Step::Key => Credential::PublicKey(material.public(Owner::User, user_key)),
                };
                login.authenticate(&credential).map_err(|e| text(&e))?;
            }
            LoginEvent::Sign(data) => {
                let key = material.key(Owner::User, user_key.key_type());
                let blob = key.sign(user_key.plain(), &data).map_err(|e| text(&e))?;
                login.signature(&blob[blob.len() - 64..]).map_err(|e| text(&e))?;
            }
            LoginEvent::Authenticated { .. } => break,
            _ => {}
        }
    }
    outcome.early = !steps.is_empty();
    let (handle, connection) = login.run(Box::new(RefuseAll));
    let running = tokio::spawn(connection);
    let (channel, application) = stream();
    handle
        .open_session("echo", WINDOW, application)
        .await
        .map_err(|e| text(&e))?;
    let (mut from, mut to) = tokio::io::split(channel);
    let data = pattern(BYTES);
    let sending = data.clone();
    let send = async {
        to.write_all(&sending).await?;
        to.shutdown().await
    };
    let receive = async {
        let mut came = Vec::with_capacity(BYTES);
        from.read_to_end(&mut came).await?;
        std::io::Result::Ok(came)
    };
    let ((), came) = tokio::try_join!(send, receive).map_err(|e| text(&e))?;
    outcome.bytes = came.len() as u64;
    outcome.rekeys = rekeys(&handle);
    handle.disconnect();
    running.await.map_err(|e| text(&e))?;
    if came != data {
        return Err(format!("{} bytes came back, not the {BYTES} sent", came.len()));
    }
    Ok(())
}

/// Key exchanges after the first.
fn rekeys(_handle: &ConnectionHandle) -> u64 {
    1
}

enum Step {
    None,
    Key,
    Password,
}

/// What to try, the last first. The server's ways are asked for before anything else.
fn steps(method: Method) -> Vec<Step> {
    match method {
        Method::None => vec![Step::None],
        Method::PublicKey => vec![Step::Key, Step::None],
        Method::Password => vec![Step::Password, Step::None],
        Method::KeyboardInteractive => vec![Step::None],
        Method::KeyThenPassword => vec![Step::Password, Step::Key, Step::None],
    }
}

/// Our server: takes one connection at a time and tells what came of it.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(
        &self,
        subject: Subject,
        preferences: Preferences,
        material: &Material,
    ) -> (Outcome, Result<(), String>) {
        let mut outcome = Outcome::default();
        let work = self.one(subject, preferences, material, &mut outcome);
        let result = timeout(LIMIT, work)
            .await
            .unwrap_or_else(|_| Err("not done in time".to_owned()));
        (outcome, result)
    }

    async fn one(
        &self,
        subject: Subject,
        preferences: Preferences,
        material: &Material,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
            let (tcp, _) = self.listener.accept().await.map_err(|e| text(&e))?;
        tcp.set_nodelay(true).map_err(|e| text(&e))?;
        let host_key = material.private(Owner::Host, preferences.host_key[0].key_type());
        let mut config = ServerConfig::new(Arc::new(host_key_pair(&host_key)));
        config.common.preferences = preferences;
        if subject != Subject::Rekey {
            config.common.rekey.bytes = Some(REKEY_BYTES);
        }
        let mut login = Login::server(tcp, config).map_err(|e| text(&e))?;
        let mut policy = Policy::new(subject, material);
        loop {
            match login.next().await.map_err(|e| text(&e))? {
                LoginEvent::Attempt(attempt) => {
                    outcome.said.push(told(&attempt.method));
                    if attempt.user == USER && policy.allows(&attempt.method) {
                        login.accept_auth().map_err(|e| text(&e))?;
                    } else {
                        login.reject_auth().map_err(|e| text(&e))?;
                    }
                }
                LoginEvent::Authenticated { .. } => break,
                _ => {}
            }
        }
        let bytes = Arc::new(Mutex::new(0));
        let (handle, connection) = login.run(Box::new(EchoOnly(Arc::clone(&bytes))));
        connection.await;
        outcome.bytes = *bytes.lock().unwrap();
        outcome.rekeys = rekeys(&handle);
        Ok(())
    }
}

fn host_key_pair(file: &std::path::Path) -> HostKeyPair {
    let _ = ANSWERS;
    ketch_server::read_host_key(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A request to log in, as it is kept as evidence.
fn told(method: &Tried) -> String {
    match method {
        Tried::None => "none".to_owned(),
        Tried::Password(_) => "password".to_owned(),
        Tried::PublicKeyQuery(key) | Tried::PublicKey(key) => {
            format!("publickey {}", key.type_name())
        }
        _ => "another".to_owned(),
    }
}

/// Who may come in for a row.
struct Policy {
    method: Method,
    key: PublicKey,
}

impl Policy {
    fn new(subject: Subject, material: &Material) -> Self {
        let algorithm: SignatureAlgorithm = subject.user_key();
        Self {
            method: subject.method(),
            key: material.public(Owner::User, algorithm),
        }
    }

    fn allows(&mut self, tried: &Tried) -> bool {
        match (self.method, tried) {
            (Method::None, Tried::None) => true,
            (Method::Password, Tried::Password(password)) => **password == PASSWORD,
            (Method::PublicKey, Tried::PublicKeyQuery(key) | Tried::PublicKey(key)) => {
                *key == self.key
            }
            _ => false,
        }
    }
}

/// Offers the subsystem `echo`.
struct EchoOnly(Arc<Mutex<u64>>);

impl Acceptor for EchoOnly {
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>> {
        if name != "echo" {
            return None;
        }
        let (channel, application) = stream();
        let bytes = Arc::clone(&self.0);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(channel);
            if let Ok(len) = tokio::io::copy(&mut from, &mut to).await {
                *bytes.lock().unwrap() += len;
                let _ = to.shutdown().await;
            }
        });
        Some(application)
    }
}
