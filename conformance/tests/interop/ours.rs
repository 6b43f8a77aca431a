//! Our side of a cell: a client or a server of the public transport crate, which offers what the row
//! is about and nothing else of its kind.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ketch_keys::{CertificateKind, PublicKey, SignatureAlgorithm};
use ketch_transport::auth::{Credential, Method as Tried, Prompt, Questions};
use ketch_transport::config::{AuthMethod, ClientConfig, HostKey, ServerConfig};
use ketch_transport::driver::{Acceptor, Application, Login, LoginEvent, RefuseAll, stream};
use ketch_transport::info::ConnectionInfo;
use ketch_transport::profile::Preferences;
use ketch_transport::session::{Program, SessionStart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::material::{ANSWERS, Material, Owner, PASSWORD, USER};
use crate::offer::Offer;
use crate::peers::server::Echo;
use crate::subject::{Method, Subject};

/// Bytes that go through a connection and come back.
pub(crate) const BYTES: usize = 1024 * 1024;
/// After how many bytes in one direction our side exchanges keys anew.
const REKEY_BYTES: u64 = 400_000;
/// How long one connection may take.
const LIMIT: Duration = Duration::from_secs(300);
/// How long a key exchange may take, and a login.
const HANDSHAKE: Duration = Duration::from_secs(240);
/// What is told of a connection that did not end by itself.
pub(crate) const NOT_ENDED: &str = "not done in time";
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
    connect_within(addr, subject, preferences, echo, material, HANDSHAKE).await
}

/// The same, with another limit for the key exchange and for the login.
pub(crate) async fn connect_within(
    addr: SocketAddr,
    subject: Subject,
    preferences: Preferences,
    echo: Echo,
    material: &Material,
    handshake: Duration,
) -> (Outcome, Result<(), String>) {
    let mut outcome = Outcome::default();
    let mut config = ClientConfig::new(USER);
    config.common.preferences = preferences;
    config.common.timers.handshake = handshake;
    config.common.timers.authentication = handshake;
    if subject != Subject::Rekey {
        config.common.rekey.bytes = Some(REKEY_BYTES);
    }
    let work = client(addr, subject, config, echo, material, &mut outcome);
    let result = timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| Err(NOT_ENDED.to_owned()));
    (outcome, result)
}

async fn client(
    addr: SocketAddr,
    subject: Subject,
    config: ClientConfig,
    echo: Echo,
    material: &Material,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let tcp = TcpStream::connect(addr).await.map_err(|e| text(&e))?;
    tcp.set_nodelay(true).map_err(|e| text(&e))?;
    let host_key = config.common.preferences.host_key[0];
    let mut login = Login::client(tcp, config).map_err(|e| text(&e))?;
    let mut steps = steps(subject.method());
    let user_key = subject.user_key();
    let asked_twice = matches!(subject, Subject::UserKey(_));
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
                if let Some(listed) = login.server_sig_algs() {
                    outcome.said = listed.iter().map(|each| each.name().to_owned()).collect();
                }
                let Some(step) = steps.pop() else {
                    return Err(format!("refused; it takes {:?}", outcome.methods));
                };
                let credential = match step {
                    Step::None => Credential::None,
                    Step::Password => Credential::Password(Zeroizing::new(PASSWORD.to_owned())),
                    Step::Questions => Credential::KeyboardInteractive,
                    Step::Key => Credential::PublicKey {
                        key: material.public(Owner::User, user_key),
                        algorithm: user_key,
                        probe: asked_twice,
                    },
                };
                login.authenticate(&credential).map_err(|e| text(&e))?;
            }
            LoginEvent::Sign(data) => {
                let blob = material.sign(user_key, &data)?;
                login.signature(&blob).map_err(|e| text(&e))?;
            }
            LoginEvent::Questions(questions) => {
                let answers = ANSWERS.iter().take(questions.prompts.len());
                let answers: Vec<_> = answers.map(|a| Zeroizing::new((*a).to_owned())).collect();
                login.answers(&answers).map_err(|e| text(&e))?;
            }
            LoginEvent::Authenticated { .. } => break,
            _ => {}
        }
    }
    outcome.early = !steps.is_empty();
    let (handle, connection) = login.run(Box::new(RefuseAll));
    let running = tokio::spawn(connection);
    let (channel, application) = stream();
    let start = match echo {
        Echo::Subsystem => SessionStart::new(Program::Subsystem("echo".to_owned())),
        Echo::Cat => SessionStart::exec("cat"),
    };
    handle
        .open_session(start, WINDOW, application)
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
    let info = handle.info();
    handle.disconnect();
    running.await.map_err(|e| text(&e))?;
    if came != data {
        return Err(format!(
            "{} bytes came back, not the {BYTES} sent",
            came.len()
        ));
    }
    check(subject, &info, outcome)
}

/// What was agreed on has to be what the row is about.
fn check(subject: Subject, info: &ConnectionInfo, outcome: &mut Outcome) -> Result<(), String> {
    outcome.rekeys = info.traffic.rekeys;
    match &info.algorithms {
        Some(algorithms) if subject.is_agreed(algorithms) => Ok(()),
        other => Err(format!("agreed on something else: {other:?}")),
    }
}

enum Step {
    None,
    Key,
    Password,
    Questions,
}

/// What to try, the last first. The server's ways are asked for before anything else.
fn steps(method: Method) -> Vec<Step> {
    match method {
        Method::None => vec![Step::None],
        Method::PublicKey => vec![Step::Key, Step::None],
        Method::Password => vec![Step::Password, Step::None],
        Method::KeyboardInteractive => vec![Step::Questions, Step::None],
        Method::KeyThenPassword => vec![Step::Password, Step::Key, Step::None],
    }
}

/// Our server: takes one connection at a time and tells what came of it.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) port: u16,
    /// Limit of a key exchange, and of a login.
    pub(crate) handshake: Duration,
}

impl Server {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            listener,
            port,
            handshake: HANDSHAKE,
        }
    }

    /// What our server offers a client that introduces itself so.
    pub(crate) async fn offer_to(
        identification: &str,
        subject: Subject,
        preferences: Preferences,
        material: &Material,
    ) -> Result<Offer, String> {
        let server = Self::listen().await;
        let read = async {
            let stream = TcpStream::connect(("127.0.0.1", server.port)).await;
            Offer::read_as(identification, stream.map_err(|e| text(&e))?).await
        };
        let (offer, _) = tokio::join!(read, server.serve(subject, preferences, material, false));
        offer
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(
        &self,
        subject: Subject,
        preferences: Preferences,
        material: &Material,
        one_answer: bool,
    ) -> (Outcome, Result<(), String>) {
        let mut outcome = Outcome::default();
        let work = self.one(subject, preferences, material, one_answer, &mut outcome);
        let result = timeout(LIMIT, work)
            .await
            .unwrap_or_else(|_| Err(NOT_ENDED.to_owned()));
        (outcome, result)
    }

    async fn one(
        &self,
        subject: Subject,
        preferences: Preferences,
        material: &Material,
        one_answer: bool,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let (tcp, _) = self.listener.accept().await.map_err(|e| text(&e))?;
        tcp.set_nodelay(true).map_err(|e| text(&e))?;
        let algorithm = preferences.host_key[0];
        let mut host_key = HostKey::new(material.key(Owner::Host, algorithm.key_type()));
        if algorithm.is_certificate() {
            let certificate = material.public(Owner::Host, algorithm);
            host_key = host_key
                .with_certificate(certificate)
                .map_err(|_| "no certificate for it")?;
        }
        let mut config = ServerConfig::new([Arc::new(host_key)]);
        config.methods = match subject.method() {
            Method::None | Method::PublicKey => vec![AuthMethod::PublicKey],
            Method::Password => vec![AuthMethod::Password],
            Method::KeyboardInteractive => vec![AuthMethod::KeyboardInteractive],
            Method::KeyThenPassword => vec![AuthMethod::PublicKey, AuthMethod::Password],
        };
        config.common.preferences = preferences;
        config.common.timers.handshake = self.handshake;
        config.common.timers.authentication = self.handshake;
        if subject != Subject::Rekey {
            config.common.rekey.bytes = Some(REKEY_BYTES);
        }
        let mut login = Login::server(tcp, config).map_err(|e| text(&e))?;
        let mut policy = Policy::new(subject, material, one_answer);
        loop {
            match login.next().await.map_err(|e| text(&e))? {
                LoginEvent::Attempt(attempt) => {
                    // What is no attempt of any kind that is offered is no evidence of one.
                    if !matches!(attempt.method, Tried::Unusable) {
                        outcome.said.push(told(&attempt.method));
                    }
                    let verdict = if attempt.user == USER {
                        policy.judge(&attempt.method)
                    } else {
                        Verdict::No
                    };
                    match verdict {
                        Verdict::Yes => login.accept_auth(),
                        Verdict::No => login.reject_auth(),
                        Verdict::More => login.accept_partially(&[AuthMethod::Password]),
                        Verdict::Ask => login.ask(&questions(one_answer)),
                    }
                    .map_err(|e| text(&e))?;
                }
                LoginEvent::Authenticated { .. } => break,
                _ => {}
            }
        }
        let bytes = Arc::new(Mutex::new(0));
        let (handle, connection) = login.run(Box::new(EchoOnly(Arc::clone(&bytes))));
        connection.await;
        outcome.bytes = *bytes.lock().unwrap();
        check(subject, &handle.info(), outcome)
    }
}

/// A request to log in, as it is kept as evidence.
fn told(method: &Tried) -> String {
    match method {
        Tried::PublicKeyQuery { algorithm, .. } | Tried::PublicKey { algorithm, .. } => {
            format!("publickey {algorithm}")
        }
        other => other.name().to_owned(),
    }
}

/// Two questions, or one for programs that know one answer, the password.
fn questions(one_answer: bool) -> Questions {
    let count = if one_answer { 1 } else { ANSWERS.len() };
    let prompts = (0..count).map(|number| Prompt {
        text: format!("{number}: "),
        echo: false,
    });
    Questions {
        name: "Question".to_owned(),
        instruction: String::new(),
        prompts: prompts.collect(),
    }
}

enum Verdict {
    Yes,
    No,
    /// A password, too.
    More,
    Ask,
}

/// Who may come in for a row.
struct Policy {
    method: Method,
    algorithm: SignatureAlgorithm,
    key: PublicKey,
    authority: PublicKey,
    is_half_in: bool,
    answers: Vec<&'static str>,
}

impl Policy {
    fn new(subject: Subject, material: &Material, one_answer: bool) -> Self {
        let algorithm = subject.user_key();
        Self {
            method: subject.method(),
            algorithm,
            key: material.public(Owner::User, algorithm),
            authority: material.authority(),
            is_half_in: false,
            answers: if one_answer {
                vec![PASSWORD]
            } else {
                ANSWERS.to_vec()
            },
        }
    }

    fn judge(&mut self, tried: &Tried) -> Verdict {
        let yes_if = |yes: bool| if yes { Verdict::Yes } else { Verdict::No };
        match (self.method, tried) {
            (Method::None, Tried::None) => Verdict::Yes,
            (Method::Password, Tried::Password(password)) => yes_if(**password == PASSWORD),
            (Method::PublicKey | Method::KeyThenPassword, Tried::PublicKeyQuery { key, .. }) => {
                yes_if(*key == self.key)
            }
            (Method::PublicKey, Tried::PublicKey { key, algorithm, .. }) => {
                yes_if(self.is_right(key, *algorithm))
            }
            (Method::KeyThenPassword, Tried::PublicKey { key, algorithm, .. }) => {
                self.is_half_in = self.is_right(key, *algorithm);
                if self.is_half_in {
                    Verdict::More
                } else {
                    Verdict::No
                }
            }
            (Method::KeyThenPassword, Tried::Password(password)) => {
                yes_if(self.is_half_in && **password == PASSWORD)
            }
            (Method::KeyboardInteractive, Tried::KeyboardInteractive) => Verdict::Ask,
            (Method::KeyboardInteractive, Tried::Answers(answers)) => {
                let answers: Vec<&str> = answers.iter().map(|answer| answer.as_str()).collect();
                yes_if(answers == self.answers)
            }
            _ => Verdict::No,
        }
    }

    fn is_right(&self, key: &PublicKey, algorithm: SignatureAlgorithm) -> bool {
        let is_certified = key.certificate().is_none_or(|certificate| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = now.unwrap_or_default().as_secs();
            *certificate.authority() == self.authority
                && certificate
                    .check(CertificateKind::User, USER, now, &[])
                    .is_ok()
        });
        *key == self.key && algorithm == self.algorithm && is_certified
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
