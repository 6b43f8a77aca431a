//! libssh2 as a peer: a client only; `interop/README.md` has the protocol.

mod bench;
mod files;

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};
use ssh2::{MethodType, Session};

type Failure = Box<dyn std::error::Error>;

const CATEGORIES: [(&str, MethodType, Option<MethodType>); 5] = [
    ("kex", MethodType::Kex, None),
    ("host_key", MethodType::HostKey, None),
    ("cipher", MethodType::CryptCs, Some(MethodType::CryptSc)),
    ("mac", MethodType::MacCs, Some(MethodType::MacSc)),
    ("compression", MethodType::CompCs, Some(MethodType::CompSc)),
];

fn clone(kind: &MethodType) -> MethodType {
    match kind {
        MethodType::Kex => MethodType::Kex,
        MethodType::HostKey => MethodType::HostKey,
        MethodType::CryptCs => MethodType::CryptCs,
        MethodType::CryptSc => MethodType::CryptSc,
        MethodType::MacCs => MethodType::MacCs,
        MethodType::MacSc => MethodType::MacSc,
        MethodType::CompCs => MethodType::CompCs,
        _ => MethodType::CompSc,
    }
}

fn everything() -> Result<Value, Failure> {
    let session = Session::new()?;
    session.set_compress(true); // without this it has none
    let mut all = serde_json::Map::new();
    for (category, kind, _) in &CATEGORIES {
        all.insert(
            (*category).to_owned(),
            json!(session.supported_algs(clone(kind))?),
        );
    }
    // It signs with what it verifies; the list of its own for that cannot be asked for here.
    all.insert("user_key".to_owned(), all["host_key"].clone());
    Ok(Value::Object(all))
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().cloned().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
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

struct Answers(Vec<String>);

impl ssh2::KeyboardInteractivePrompt for Answers {
    fn prompt<'a>(
        &mut self,
        _user: &str,
        _instructions: &str,
        prompts: &[ssh2::Prompt<'a>],
    ) -> Vec<String> {
        self.0.iter().take(prompts.len()).cloned().collect()
    }
}

fn connect(job: &Value) -> Result<Value, Failure> {
    let port = u16::try_from(job["port"].as_u64().ok_or("no port")?)?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut session = Session::new()?;
    session.set_timeout(60_000);
    let all = everything()?;
    for (category, kind, other) in &CATEGORIES {
        let list = match &job["offer"][*category] {
            Value::Null => {
                let mut list = strings(&all[*category]);
                // Compression is there for who asks for it.
                list.sort_by_key(|name| *category == "compression" && name != "none");
                list
            }
            list => strings(list),
        };
        if *category == "compression" {
            session.set_compress(list.iter().any(|name| name != "none"));
        }
        for kind in [Some(kind), other.as_ref()].into_iter().flatten() {
            session.method_pref(clone(kind), &list.join(","))?;
        }
    }
    session.set_tcp_stream(stream);
    session.handshake()?;
    let user = job["user"].as_str().unwrap_or_default();
    for key in job["keys"].as_array().into_iter().flatten() {
        let private = key["key"].as_str().ok_or("no key")?;
        let public = match key["certificate"].as_str() {
            Some(certificate) => certificate.to_owned(),
            None => format!("{private}.pub"),
        };
        let outcome =
            session.userauth_pubkey_file(user, Some(Path::new(&public)), Path::new(private), None);
        // Not in yet may be as it has to be: the next one is asked for.
        if let (false, Err(error)) = (job["password"].is_string(), outcome) {
            return Err(error.into());
        }
    }
    if let (false, Some(password)) = (session.authenticated(), job["password"].as_str()) {
        session.userauth_password(user, password)?;
    }
    if let (false, Value::Array(_)) = (session.authenticated(), &job["answers"]) {
        session.userauth_keyboard_interactive(user, &mut Answers(strings(&job["answers"])))?;
    }
    if !session.authenticated() {
        let _ = session.auth_methods(user); // asks with "none"
    }
    if !session.authenticated() {
        return Err("nobody is logged in".into());
    }
    let mut channel = session.channel_session()?;
    channel.subsystem("echo")?;
    let data = pattern(usize::try_from(job["bytes"].as_u64().unwrap_or(0))?);
    let mut came = Vec::new();
    let mut buffer = vec![0; 32768];
    // One thread: what was sent is read back before the windows are full.
    for piece in data.chunks(65536) {
        // No flush: libssh2's throws away what has come and was not read yet.
        channel.write_all(piece)?;
        let end = came.len() + piece.len();
        while came.len() < end {
            let len = channel.read(&mut buffer)?;
            if len == 0 {
                return Err("the end came early".into());
            }
            came.extend_from_slice(&buffer[..len]);
        }
    }
    channel.send_eof()?;
    if came != data {
        return Err("other bytes came back than were sent".into());
    }
    let said = |kind| session.methods(kind).unwrap_or_default().to_owned();
    let agreed = json!({
        "kex": said(MethodType::Kex),
        "host_key": said(MethodType::HostKey),
        "cipher": said(MethodType::CryptCs),
        "mac": said(MethodType::MacCs),
        "compression": said(MethodType::CompCs),
    });
    let _ = session.disconnect(None, "done", None);
    Ok(json!({ "ok": true, "bytes": came.len(), "agreed": agreed }))
}

fn answer(job: &Value) -> Result<Value, Failure> {
    match job["do"].as_str() {
        Some("describe") => Ok(json!({
            "ok": true,
            "name": "libssh2",
            "version": "ssh2 0.9.6",
            "has": everything()?,
        })),
        Some("connect") => connect(job),
        Some("files") => files::run(job),
        other => Err(format!("cannot do {other:?}").into()),
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.is_empty() {
        return bench::run(&arguments);
    }
    for line in std::io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line?)?;
        let told = answer(&job).unwrap_or_else(
            |error| json!({ "ok": false, "error": format!("{error} ({error:?})") }),
        );
        println!("{told}");
    }
    Ok(())
}
