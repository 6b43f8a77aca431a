//! russh as a peer, client and server; `interop/README.md` has the protocol.

mod bench;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use russh::client::KeyboardInteractiveAuthResponse;
use russh::keys::agent::AgentIdentity;
use russh::keys::{
    Algorithm, Certificate, EcdsaCurve, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate,
    load_openssh_certificate, load_secret_key,
};
use russh::server::{Auth, Msg, Response, Session, VerifiedPublicKey};
use russh::{
    Channel, ChannelId, MethodKind, MethodSet, Preferred, cipher, client, compression, kex, mac,
    server,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Types of keys, with RSA once for each hash.
fn key_algorithms() -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    let rsa = |hash| Algorithm::Rsa { hash };
    vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        rsa(Some(HashAlg::Sha512)),
        rsa(Some(HashAlg::Sha256)),
        rsa(None),
        Algorithm::SkEd25519,
        Algorithm::SkEcdsaSha2NistP256,
    ]
}

fn everything() -> HashMap<&'static str, Vec<String>> {
    let kex = kex::ALL_KEX_ALGORITHMS
        .iter()
        .map(|name| name.as_ref().to_owned());
    let keys = key_algorithms();
    let plain = keys.iter().map(|key| key.as_str().to_owned());
    let certificates = keys.iter().map(|key| key.to_certificate_type().to_string());
    let keys: Vec<String> = certificates.chain(plain).collect();
    HashMap::from([
        ("kex", kex.filter(|name| name != "none").collect()),
        ("host_key", keys.clone()),
        ("user_key", keys),
        (
            "cipher",
            cipher::ALL_CIPHERS
                .iter()
                .map(|name| name.as_ref().to_owned())
                .filter(|name| name != "none" && name != "clear")
                .collect(),
        ),
        (
            "mac",
            mac::ALL_MAC_ALGORITHMS
                .iter()
                .map(|name| name.as_ref().to_owned())
                .filter(|name| name != "none")
                .collect(),
        ),
        (
            "compression",
            compression::ALL_COMPRESSION_ALGORITHMS
                .iter()
                .map(|name| name.as_ref().to_owned())
                .collect(),
        ),
    ])
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().cloned().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn preferred(job: &Value) -> Preferred {
    let all = everything();
    let list = |category: &str| match &job["offer"][category] {
        Value::Null => all[category].clone(),
        list => strings(list),
    };
    fn named<N: Clone + for<'a> TryFrom<&'a str>>(names: Vec<String>) -> Cow<'static, [N]> {
        Cow::Owned(
            names
                .iter()
                .filter_map(|name| N::try_from(name).ok())
                .collect(),
        )
    }
    let mut kex: Cow<'static, [kex::Name]> = named(list("kex"));
    // Marks are no methods, so they are not found by their names.
    kex.to_mut().extend([
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ]);
    let wanted = list("host_key");
    let keys = key_algorithms();
    let plain = keys
        .iter()
        .filter(|key| wanted.iter().any(|name| name == key.as_str()));
    let certified = keys.iter().filter(|key| {
        wanted
            .iter()
            .any(|name| *name == key.to_certificate_type().to_string())
    });
    Preferred {
        kex,
        key: plain.cloned().collect::<Vec<_>>().into(),
        host_key_certificates: certified.cloned().collect::<Vec<_>>().into(),
        cipher: named(list("cipher")),
        mac: named(list("mac")),
        compression: named(list("compression")),
    }
}

fn limits(job: &Value) -> russh::Limits {
    let bytes = job["rekey_bytes"].as_u64().unwrap_or(1 << 30).min(1 << 30) as usize;
    russh::Limits::new(bytes, bytes, Duration::from_secs(3600))
}

fn pattern(len: usize) -> Vec<u8> {
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

// ---- client

struct Client {
    exchanges: Arc<AtomicU64>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        _names: &russh::Names,
        _session: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn connect(job: &Value) -> Result<Value, Failure> {
    let config = client::Config {
        preferred: preferred(job),
        limits: limits(job),
        nodelay: true,
        ..client::Config::default()
    };
    let exchanges = Arc::new(AtomicU64::new(0));
    let handler = Client {
        exchanges: Arc::clone(&exchanges),
    };
    let port = u16::try_from(job["port"].as_u64().ok_or("no port")?)?;
    let mut session = client::connect(Arc::new(config), ("127.0.0.1", port), handler).await?;
    let user = job["user"].as_str().unwrap_or_default();
    let mut is_in = false;
    for key in job["keys"].as_array().into_iter().flatten() {
        let private = Arc::new(load_secret_key(key["key"].as_str().ok_or("no key")?, None)?);
        let answer = match key["certificate"].as_str() {
            Some(file) => {
                session
                    .authenticate_openssh_cert(user, private, load_openssh_certificate(file)?)
                    .await?
            }
            None => {
                let hash = session.best_supported_rsa_hash().await?.flatten();
                let key = PrivateKeyWithHashAlg::new(private, hash);
                session.authenticate_publickey(user, key).await?
            }
        };
        is_in |= answer.success();
    }
    if let Some(path) = job["agent"].as_str() {
        let mut agent = russh::keys::agent::client::AgentClient::connect_uds(path).await?;
        let hash = match job["user_key"].as_str() {
            Some(name) if name.starts_with("rsa-sha2-512") => Some(HashAlg::Sha512),
            Some(name) if name.starts_with("rsa-sha2-256") => Some(HashAlg::Sha256),
            _ => None,
        };
        for identity in agent.request_identities().await? {
            let answer = match identity {
                AgentIdentity::PublicKey { key, .. } => {
                    session
                        .authenticate_publickey_with(user, key, hash, &mut agent)
                        .await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    session
                        .authenticate_certificate_with(user, certificate, hash, &mut agent)
                        .await
                }
            };
            is_in |= answer.map_err(|error| format!("{error:?}"))?.success();
        }
    }
    if let (false, Some(password)) = (is_in, job["password"].as_str()) {
        is_in = session
            .authenticate_password(user, password)
            .await?
            .success();
    }
    if let (false, Value::Array(_)) = (is_in, &job["answers"]) {
        let mut answer = session
            .authenticate_keyboard_interactive_start(user, None)
            .await?;
        while let KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } = &answer {
            let answers = strings(&job["answers"])
                .into_iter()
                .take(prompts.len())
                .collect();
            answer = session
                .authenticate_keyboard_interactive_respond(answers)
                .await?;
        }
        is_in = matches!(answer, KeyboardInteractiveAuthResponse::Success);
    }
    if !is_in {
        is_in = session.authenticate_none(user).await?.success();
    }
    if !is_in {
        return Err("nobody is logged in".into());
    }
    let channel = session.channel_open_session().await?;
    channel.request_subsystem(true, "echo").await?;
    let data = pattern(job["bytes"].as_u64().unwrap_or(0) as usize);
    let (mut from, mut to) = tokio::io::split(channel.into_stream());
    let rekey = job["rekey_bytes"].is_u64();
    let half = data.len() / 2;
    let send = async {
        to.write_all(&data[..half]).await?;
        if rekey {
            session.rekey_soon().await.map_err(std::io::Error::other)?;
        }
        to.write_all(&data[half..]).await?;
        to.shutdown().await
    };
    let receive = async {
        let mut came = Vec::new();
        from.read_to_end(&mut came).await?;
        std::io::Result::Ok(came)
    };
    let ((), came) = tokio::try_join!(send, receive)?;
    if came != data {
        return Err(format!(
            "{} bytes came back, not the {} sent",
            came.len(),
            data.len()
        )
        .into());
    }
    let rekeys = exchanges.load(Ordering::SeqCst).saturating_sub(1);
    let _ = session
        .disconnect(russh::Disconnect::ByApplication, "", "")
        .await;
    Ok(json!({ "ok": true, "bytes": came.len(), "rekeys": rekeys }))
}

// ---- server

struct Server {
    job: Arc<Value>,
    channels: HashMap<ChannelId, Channel<Msg>>,
    /// Steps of a login that are done.
    done: usize,
}

impl Server {
    fn allows(&self, line: &str) -> bool {
        let file = self.job["authorized_keys"].as_str().unwrap_or_default();
        let lines = std::fs::read_to_string(file).unwrap_or_default();
        let key = line.split(' ').nth(1).unwrap_or_default();
        !key.is_empty()
            && lines
                .lines()
                .filter(|line| !line.starts_with("cert-authority"))
                .any(|line| line.split(' ').nth(1) == Some(key))
    }

    /// A step that is right is not enough, unless it is the last.
    fn passed(&mut self, method: MethodKind) -> Auth {
        let steps = strings(&self.job["steps"]);
        let name = <&str>::from(&method);
        if steps.get(self.done).is_some_and(|step| step != name) {
            return Auth::reject();
        }
        self.done += 1;
        match steps.get(self.done) {
            None => Auth::Accept,
            Some(_) => {
                let mut proceed = MethodSet::empty();
                proceed.push(MethodKind::Password);
                Auth::Reject {
                    proceed_with_methods: Some(proceed),
                    partial_success: true,
                }
            }
        }
    }

    fn trusts(&self, certificate: &Certificate) -> bool {
        let file = self.job["authorized_keys"].as_str().unwrap_or_default();
        let lines = std::fs::read_to_string(file).unwrap_or_default();
        lines
            .lines()
            .filter_map(|line| line.strip_prefix("cert-authority "))
            .any(|line| {
                line.parse::<russh::keys::PublicKey>()
                    .is_ok_and(|authority| {
                        let fingerprint = authority.fingerprint(HashAlg::Sha256);
                        certificate.validate([&fingerprint]).is_ok()
                    })
            })
    }

    fn start(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        let Some(channel) = self.channels.remove(&id) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let handle = session.handle();
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(channel.into_stream());
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = handle.exit_status_request(id, 0).await;
            let _ = to.shutdown().await;
            let _ = handle.close(id).await;
        });
        Ok(())
    }
}

impl server::Handler for Server {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, russh::Error> {
        let methods = strings(&self.job["methods"]);
        Ok(if methods.iter().any(|method| method == "none") {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let right = self.job["user"] == user && self.job["password"] == password;
        Ok(if right {
            self.passed(MethodKind::Password)
        } else {
            Auth::reject()
        })
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let line = key.public_key.to_openssh().unwrap_or_default();
        Ok(if self.allows(&line) {
            self.passed(MethodKind::PublicKey)
        } else {
            Auth::reject()
        })
    }

    async fn auth_openssh_certificate(
        &mut self,
        _user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        Ok(if self.trusts(certificate) {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let wanted = strings(&self.job["answers"]);
        Ok(match response {
            _ if wanted.is_empty() => Auth::reject(),
            None => Auth::Partial {
                name: "Question".into(),
                instructions: "".into(),
                prompts: (0..wanted.len())
                    .map(|n| (format!("{n}: ").into(), false))
                    .collect(),
            },
            Some(given) => {
                let given: Vec<Vec<u8>> = given.map(|answer| answer.to_vec()).collect();
                let right = given.len() == wanted.len()
                    && given
                        .iter()
                        .zip(&wanted)
                        .all(|(given, wanted)| given == wanted.as_bytes());
                if right { Auth::Accept } else { Auth::reject() }
            }
        })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if name == "echo" {
            self.start(id, session)
        } else {
            session.channel_failure(id)
        }
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if command == b"cat" {
            self.start(id, session)
        } else {
            session.channel_failure(id)
        }
    }
}

async fn serve(job: &Value) -> Result<Value, Failure> {
    let mut config = server::Config {
        preferred: preferred(job),
        limits: limits(job),
        auth_rejection_time: Duration::from_millis(10),
        auth_rejection_time_initial: Some(Duration::ZERO),
        nodelay: true,
        ..server::Config::default()
    };
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    if job["password"].is_string() {
        methods.push(MethodKind::Password);
    }
    if job["answers"].is_array() {
        methods.push(MethodKind::KeyboardInteractive);
    }
    config.methods = methods;
    for file in strings(&job["host_keys"]) {
        config.keys.push(load_secret_key(file, None)?);
    }
    for file in strings(&job["host_certificates"]) {
        config.certificates.push(load_openssh_certificate(file)?);
    }
    let config = Arc::new(config);
    let job = Arc::new(job.clone());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let handler = Server {
                job: Arc::clone(&job),
                channels: HashMap::new(),
                done: 0,
            };
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                if let Ok(session) = server::run_stream(config, stream, handler).await {
                    let _ = session.await;
                }
            });
        }
    });
    Ok(json!({ "ok": true, "port": port }))
}

async fn answer(job: &Value) -> Result<Value, Failure> {
    match job["do"].as_str() {
        Some("describe") => Ok(json!({
            "ok": true, "name": "russh", "version": "0.65.1", "has": everything(),
        })),
        Some("serve") => serve(job).await,
        Some("connect") => tokio::time::timeout(Duration::from_secs(240), connect(job)).await?,
        other => Err(format!("cannot do {other:?}").into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.is_empty() {
        return bench::run(&arguments).await;
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let job: Value = serde_json::from_str(&line)?;
        let told = answer(&job).await.unwrap_or_else(
            |error| json!({ "ok": false, "error": format!("{error} ({error:?})") }),
        );
        println!("{told}");
    }
    Ok(())
}
