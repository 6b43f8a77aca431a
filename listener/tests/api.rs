//! The API in front of a flow that runs: what another program asks for over HTTP is copied, and it
//! is answered when that is done.
#![cfg(feature = "api")]
#![expect(clippy::disallowed_methods, reason = "tests have a clock and tasks")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ketch_listener::api::handle::Running;
use ketch_listener::api::{Answer, Api, ApiSettings, ApiToken, FlowControl, Flows, Refusal, Scope};
use ketch_listener::detect::{DetectConfig, First};
use ketch_listener::flow::Flow;
use ketch_listener::flow::events::Events;
use ketch_listener::flow::handle::FlowHandle;
use ketch_listener::flow::item::FlowName;
use ketch_listener::flow::settings::FlowSettings;
use ketch_listener::local::Local;
use ketch_listener::settle::SettleConfig;
use ketch_listener::sink::directory::{DirectorySettings, DirectorySink};
use ketch_listener::store::sqlite::SqliteStore;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TOKEN: &str = "a-token-to-change-with";

#[derive(Debug)]
struct Daemon {
    flow: Arc<dyn FlowControl>,
    handle: FlowHandle,
}

impl Flows for Daemon {
    fn list(&self) -> Vec<Arc<dyn FlowControl>> {
        vec![Arc::clone(&self.flow)]
    }

    fn validate<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        Box::pin(async {
            let checked = self.handle.validate().await;
            checked.map_err(|error| Refusal::Unavailable(error.to_string()))
        })
    }

    fn events(&self) -> &Events {
        self.handle.events()
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(async { self.flow.counts().await.map(drop) })
    }
}

/// A flow from `in` to `out` that looks only when it is asked.
async fn started(dir: &Path) -> (FlowHandle, SocketAddr) {
    let at = |name: &str| dir.join(name);
    for name in ["in", "out"] {
        std::fs::create_dir(at(name)).expect("made");
    }
    let local = Local::new(&at("in"));
    let name = FlowName::new("orders").expect("a name");
    let sink = DirectorySink::new(DirectorySettings::new("disk", at("out")));
    let flow = Flow {
        settings: FlowSettings::new(name, at("spool"), at("snapshot")),
        detect: DetectConfig {
            interval: None,
            first: First::News,
            settle: SettleConfig::immediately(),
            ..DetectConfig::default()
        },
        lister: Arc::new(local.clone()),
        pushes: None,
        source: Arc::new(local),
        sinks: vec![Arc::new(sink)],
        store: Arc::new(SqliteStore::open(at("ledger")).expect("a ledger")),
        events: Events::new(),
    };
    let handle = flow.start().await.expect("a flow");
    let daemon = Daemon {
        flow: Arc::new(Running::new(handle.clone(), "inbox".to_owned())),
        handle: handle.clone(),
    };
    let mut settings = ApiSettings::new("127.0.0.1:0".parse().expect("an address"));
    let token = ApiToken::new(TOKEN, Scope::Write).expect("a token");
    settings.tokens.push(token);
    let api = Api::bind(settings, Arc::new(daemon))
        .await
        .expect("listens");
    let address = api.address();
    tokio::spawn(api.serve());
    (handle, address)
}

async fn ask(address: SocketAddr, line: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    (status.expect("a status"), body)
}

fn put(dir: &Path, name: &str, modified: u64) {
    let path = dir.join("in").join(name);
    std::fs::write(&path, name).expect("written");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(modified);
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("there");
    file.set_modified(time).expect("a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_asked_for_are_there_when_the_answer_comes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (handle, address) = started(dir.path()).await;
    let noon = 1_795_262_400; // 2026-11-21T12:00:00Z
    put(dir.path(), "a.csv", noon);
    put(dir.path(), "b.csv", noon + 60);
    put(dir.path(), "late.csv", noon + 86_400);
    put(dir.path(), "a.txt", noon);

    let asked = json!({
        "include": ["*.csv"],
        "modified_after": "2026-11-21T00:00:00Z",
        "modified_before": "2026-11-22T00:00:00Z",
    });
    let (status, fetched) = ask(address, "POST /v1/flows/orders/fetch", asked.clone()).await;
    let names = json!([{"path": "a.csv"}, {"path": "b.csv"}]);
    assert_eq!((status, &fetched["copied"]), (200, &names), "{fetched}");
    assert_eq!(fetched["complete"], true);
    for name in ["a.csv", "b.csv"] {
        let copied = std::fs::read_to_string(dir.path().join("out").join(name));
        assert_eq!(copied.expect("copied"), name);
    }

    // The rest of what the flow is about, and nothing twice.
    let (status, applied) = ask(address, "POST /v1/flows/orders/apply", Value::Null).await;
    assert_eq!(
        (status, &applied["complete"]),
        (200, &json!(true)),
        "{applied}"
    );
    let (_, flow) = ask(address, "GET /v1/flows/orders", Value::Null).await;
    assert_eq!(flow["files"]["done"], 4);
    let (_, fetched) = ask(address, "POST /v1/flows/orders/fetch", asked).await;
    assert_eq!(fetched["copied"], names);
    let copies = std::fs::read_dir(dir.path().join("out"))
        .expect("read")
        .count();
    assert_eq!(copies, 4, "one copy of each");

    let (_, page) = ask(
        address,
        "GET /v1/flows/orders/files?path=a.txt",
        Value::Null,
    )
    .await;
    assert_eq!(page["files"][0]["state"], "done");
    assert_eq!(page["files"][0]["deliveries"][0]["sink"], "disk");
    let (_, valid) = ask(address, "POST /v1/sources/inbox/validate", Value::Null).await;
    assert_eq!(valid["status"], "Connection Valid");

    // While it is paused, nothing can be asked for, and that is said.
    ask(address, "POST /v1/flows/orders/pause", Value::Null).await;
    let (status, problem) = ask(address, "POST /v1/flows/orders/apply", Value::Null).await;
    assert_eq!(
        (status, &problem["detail"]),
        (503, &json!("the flow is paused"))
    );
    let (_, flow) = ask(address, "POST /v1/flows/orders/resume", Value::Null).await;
    assert_eq!(flow["paused"], false);
    let interval = json!({"interval": "1h"});
    let (_, flow) = ask(address, "PUT /v1/flows/orders/interval", interval).await;
    assert_eq!(flow["interval"], "1h");
    let bad = json!({"include": ["["]});
    assert_eq!(
        ask(address, "POST /v1/flows/orders/fetch", bad).await.0,
        422
    );
    handle.stop().await;
}
