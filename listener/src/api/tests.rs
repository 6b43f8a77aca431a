//! The API over real sockets, in front of a daemon that is made up.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use ketch_client::FileType;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;
use crate::api::types::{FailedFile, PathText};
use crate::detect::Pace;
use crate::flow::events::{FlowEventKind, RECENT_MAX};
use crate::flow::item::{FlowName, Item, ItemKind};
use crate::snapshot::Facts;
use crate::store::{Delivery, Placement};

const READ: &str = "a-token-to-look-with";
const WRITE: &str = "a-token-to-change-with";

#[derive(Debug, Default)]
struct Daemon {
    flow: Arc<Fake>,
    events: Events,
    broken: AtomicBool,
}

#[derive(Debug)]
struct Fake {
    pace: Mutex<Pace>,
    paused: AtomicBool,
    asked: Mutex<Vec<FetchRequest>>,
    replayed: AtomicU64,
    slow: AtomicBool,
    down: AtomicBool,
    /// Whether requests for files wait until there is a permit.
    holds: AtomicBool,
    held: tokio::sync::Semaphore,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            pace: Mutex::default(),
            paused: AtomicBool::default(),
            asked: Mutex::default(),
            replayed: AtomicU64::default(),
            slow: AtomicBool::default(),
            down: AtomicBool::default(),
            holds: AtomicBool::default(),
            held: tokio::sync::Semaphore::new(0),
        }
    }
}

impl Flows for Daemon {
    fn list(&self) -> Vec<Arc<dyn FlowControl>> {
        vec![Arc::clone(&self.flow) as Arc<dyn FlowControl>]
    }

    fn validate<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            match name {
                "bank" => Ok(()),
                "away" => Err(Refusal::Unavailable("no route to host".to_owned())),
                _ => Err(Refusal::NotFound {
                    what: format!("source {name:?}"),
                }),
            }
        })
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn ready(&self) -> Answer<'_, ()> {
        let broken = self.broken.load(Relaxed);
        Box::pin(async move {
            if broken {
                return Err(Refusal::Unavailable(
                    "the ledger cannot be written".to_owned(),
                ));
            }
            Ok(())
        })
    }
}

fn row(path: &[u8], state: State) -> Row {
    Row {
        item: Item {
            flow: FlowName::new("orders").expect("a name"),
            sequence: 7,
            kind: ItemKind::Created,
            path: RemotePath::from(path),
            facts: Facts {
                kind: FileType::Regular,
                size: Some(12),
                mtime: Some(1_795_282_542),
            },
            sha256: Some([0xab; 32]),
            recorded: 1_795_282_550_123,
        },
        state,
        attempts: 2,
        reason: (state == State::Dead).then(|| "no space".to_owned()),
        deliveries: vec![Delivery {
            sink: "disk".to_owned(),
            placement: Placement {
                name: path.to_vec(),
                length: None,
                note: Vec::new(),
            },
            done: state == State::Done,
        }],
        next: None,
    }
}

fn rows() -> Vec<Row> {
    vec![
        row(b"a.csv", State::Done),
        row(b"b.csv", State::Dead),
        row(b"b\xff", State::Dead),
        row(b"c.csv", State::Pending),
    ]
}

impl FlowControl for Fake {
    fn name(&self) -> &str {
        "orders"
    }

    fn source(&self) -> &str {
        "bank"
    }

    fn sinks(&self) -> Vec<String> {
        vec!["disk".to_owned()]
    }

    fn pace(&self) -> Pace {
        *self.pace.lock().expect("whole")
    }

    fn set_pace(&self, pace: Pace) {
        *self.pace.lock().expect("whole") = pace;
    }

    fn schedule(&self) -> Option<String> {
        (!self.slow.load(Relaxed)).then(|| "0 6 * * * Europe/Berlin".to_owned())
    }

    fn next_look(&self) -> Option<u64> {
        (self.pace() == Pace::Scheduled).then_some(1_795_000_000)
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    fn set_paused(&self, paused: bool) -> Answer<'_, ()> {
        self.paused.store(paused, Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn raised(&self) -> Vec<String> {
        vec!["sink disk".to_owned()]
    }

    fn down(&self) -> Option<String> {
        let down = self.down.load(Relaxed);
        down.then(|| "no room for its spool".to_owned())
    }

    fn restarts(&self) -> u64 {
        3
    }

    fn counts(&self) -> Answer<'_, Counts> {
        let down = self.down.load(Relaxed);
        Box::pin(async move {
            if down {
                return Err(Refusal::Unavailable("no ledger".to_owned()));
            }
            Ok(Counts {
                done: 1,
                dead: 2,
                pending: 1,
                ..Counts::default()
            })
        })
    }

    fn oldest_pending(&self) -> Answer<'_, Option<Duration>> {
        Box::pin(async { Ok(Some(Duration::from_millis(90_500))) })
    }

    fn totals(&self) -> Totals {
        Totals {
            delivered: 1,
            bytes: 12,
            scan_time: Duration::from_millis(1_500),
            sinks: vec![SinkTotals {
                name: "disk".to_owned(),
                attempts: 5,
                failures: 2,
            }],
            ..Totals::default()
        }
    }

    fn apply(&self, wait: Option<Duration>) -> Answer<'_, Applied> {
        Box::pin(async move {
            Ok(Applied {
                complete: wait.is_some(),
                left: u64::from(wait.is_none()),
                delivered: wait.map_or(0, |wait| wait.as_secs()),
                dead: 0,
                settling: 0,
            })
        })
    }

    fn file<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, Option<Row>> {
        Box::pin(async { Ok(rows().into_iter().find(|row| row.item.path == *path)) })
    }

    fn files<'a>(
        &'a self,
        state: Option<State>,
        after: Option<&'a RemotePath>,
        max: usize,
    ) -> Answer<'a, Vec<Row>> {
        Box::pin(async move {
            let rows = rows().into_iter();
            let rows = rows.filter(|row| state.is_none_or(|state| row.state == state));
            let rows = rows.filter(|row| after.is_none_or(|after| row.item.path > *after));
            Ok(rows.take(max).collect())
        })
    }

    fn replay<'a>(&'a self, path: Option<&'a RemotePath>) -> Answer<'a, u64> {
        let replayed = if path.is_some() { 1 } else { 2 };
        self.replayed.fetch_add(replayed, Relaxed);
        Box::pin(async move { Ok(replayed) })
    }

    fn fetch<'a>(&'a self, request: &'a FetchRequest, _: Duration) -> Answer<'a, Fetched> {
        self.asked.lock().expect("whole").push(request.clone());
        let slow = self.slow.load(Relaxed);
        Box::pin(async move {
            if self.holds.load(Relaxed) {
                let _permit = self.held.acquire().await;
            }
            Ok(Fetched {
                complete: !slow,
                copied: vec![PathText::of(b"a.csv")],
                failed: vec![FailedFile {
                    path: PathText::of(b"b\xff"),
                    reason: "no space".to_owned(),
                }],
                waiting: if slow {
                    vec![PathText::of(b"c.csv")]
                } else {
                    Vec::new()
                },
            })
        })
    }
}

struct Served {
    daemon: Arc<Daemon>,
    address: SocketAddr,
    /// Serves until this goes.
    _tasks: JoinSet<()>,
}

async fn served() -> Served {
    let daemon = Arc::new(Daemon::default());
    let mut settings = ApiSettings::new("127.0.0.1:0".parse().expect("an address"));
    settings.tokens = [(READ, Scope::Read), (WRITE, Scope::Write)]
        .map(|(token, scope)| ApiToken::new(token, scope).expect("a token"))
        .to_vec();
    let api = Api::bind(settings, Arc::clone(&daemon) as Arc<dyn Flows>)
        .await
        .expect("listens");
    let address = api.address();
    let mut tasks = JoinSet::new();
    tasks.spawn(api.serve());
    Served {
        daemon,
        address,
        _tasks: tasks,
    }
}

impl Served {
    async fn send(&self, token: &str, line: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        let token = match token {
            "" => String::new(),
            token => format!("authorization: bearer {token}\r\n"),
        };
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}");
        let request = format!("{head}content-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }

    /// Status, head and body of an answer.
    async fn text(&self, token: &str, line: &str, body: &str) -> (u16, String, String) {
        let mut stream = self.send(token, line, body).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        (status.expect("a status"), head.to_owned(), body.to_owned())
    }

    async fn ask(&self, token: &str, line: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, head, body) = self.text(token, line, &body).await;
        if status >= 400 {
            assert!(
                head.contains("content-type: application/problem+json"),
                "{head}"
            );
        }
        let body: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        if status >= 400 {
            assert_eq!(body["status"], status);
        }
        (status, body)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(READ, &format!("GET {path}"), &Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(WRITE, &format!("POST {path}"), &body).await
    }
}

#[tokio::test]
async fn every_route_is_there_and_asks_for_its_token() {
    let served = served().await;
    for route in openapi::ROUTES {
        let path = route
            .path
            .replace("{flow}", "orders")
            .replace("{source}", "bank");
        let line = format!("{} {path}", route.method.to_uppercase());
        let (status, _, _) = served.text("", &line, "").await;
        assert_eq!(status, if route.token { 401 } else { 200 }, "{line}");
        if path == "/v1/events" {
            continue; // It has no end; it is looked at elsewhere.
        }
        if route.token {
            let (status, _, _) = served.text("not-the-right-token", &line, "").await;
            assert_eq!(status, 401, "{line}");
            let (status, _, _) = served.text(READ, &line, "").await;
            assert_eq!(status == 403, route.method != "get", "{line}");
        }
        let body = if path.ends_with("interval") {
            r#"{"interval":"1s"}"#
        } else {
            ""
        };
        let (status, _, answer) = served.text(WRITE, &line, body).await;
        assert!((200..300).contains(&status), "{line}: {status} {answer}");
    }
    assert_eq!(served.get("/v1/nothing").await.0, 404);
    assert_eq!(served.get("/v1/flows/orders/apply").await.0, 405);
    assert_eq!(served.get("/v1/flows/none").await.0, 404);
    let (status, head, _) = served.text("", "GET /v1/flows", "").await;
    assert!(
        status == 401 && head.contains("www-authenticate: Bearer"),
        "{head}"
    );
    assert!(head.contains("cache-control: no-store"), "{head}");
}

#[tokio::test]
async fn without_tokens_nothing_is_told() {
    let daemon: Arc<dyn Flows> = Arc::new(Daemon::default());
    let settings = ApiSettings::new("127.0.0.1:0".parse().expect("an address"));
    let api = Api::bind(settings, daemon).await.expect("listens");
    let address = api.address();
    let mut tasks = JoinSet::new();
    tasks.spawn(api.serve());
    let served = Served {
        daemon: Arc::default(),
        address,
        _tasks: tasks,
    };
    for token in ["", READ] {
        assert_eq!(served.text(token, "GET /v1/flows", "").await.0, 401);
    }
    assert_eq!(served.text("", "GET /healthz", "").await.0, 200);
}

#[tokio::test]
async fn other_machines_are_let_in_by_name_only() {
    let mut settings = ApiSettings::new("0.0.0.0:0".parse().expect("an address"));
    let daemon: Arc<dyn Flows> = Arc::new(Daemon::default());
    let refused = Api::bind(settings.clone(), Arc::clone(&daemon)).await;
    assert!(matches!(refused, Err(ApiError::Anywhere(_))));
    settings.danger_anywhere = true;
    assert!(Api::bind(settings, daemon).await.is_ok());
}

#[tokio::test]
async fn health_and_readiness_differ() {
    let served = served().await;
    assert_eq!(served.text("", "GET /readyz", "").await.0, 200);
    served.daemon.broken.store(true, Relaxed);
    let (status, why) = served.ask("", "GET /readyz", &Value::Null).await;
    assert_eq!(
        (status, &why["detail"]),
        (503, &json!("the ledger cannot be written"))
    );
    assert_eq!(served.text("", "GET /healthz", "").await.0, 200);
}

#[tokio::test]
async fn a_flow_is_shown_and_steered() {
    let served = served().await;
    let (status, flows) = served.get("/v1/flows").await;
    assert_eq!(status, 200);
    let expected = json!({
        "name": "orders", "source": "bank", "sinks": ["disk"], "interval": "manual", "paused": false,
        "schedule": "0 6 * * * Europe/Berlin",
        "oldest_pending_s": 90, "restarts": 3, "settling": 0,
                "raised": ["sink disk"],
        "files": {"known": 0, "pending": 1, "claimed": 0, "done": 1, "dead": 2},
    });
    assert_eq!(flows, json!({"flows": [expected]}));

    let interval = async |text: &str| {
        let line = "PUT /v1/flows/orders/interval";
        served.ask(WRITE, line, &json!({"interval": text})).await
    };
    let (status, flow) = interval("90s").await;
    assert_eq!((status, &flow["interval"]), (200, &json!("1m 30s")));
    assert_eq!(
        *served.daemon.flow.pace.lock().expect("whole"),
        Pace::Every(Duration::from_secs(90))
    );
    let (status, flow) = interval(flow["interval"].as_str().expect("text")).await;
    assert_eq!((status, &flow["interval"]), (200, &json!("1m 30s")));
    assert_eq!(interval("N/A").await.1["interval"], "manual");
    let (status, flow) = interval("schedule").await;
    assert_eq!((status, &flow["interval"]), (200, &json!("schedule")));
    assert_eq!(flow["next_look"], "2026-11-18T11:06:40Z");
    served.daemon.flow.slow.store(true, Relaxed);
    let (status, problem) = interval("schedule").await;
    assert_eq!(status, 422, "there is none: {problem}");
    served.daemon.flow.slow.store(false, Relaxed);
    for bad in ["", "5", "-5s", "1ms", "99999h", "5 sausages"] {
        let (status, problem) = interval(bad).await;
        assert_eq!(status, 400, "{bad}: {problem}");
    }

    assert_eq!(
        served.post("/v1/flows/orders/pause", Value::Null).await.1["paused"],
        true
    );
    assert_eq!(
        served.post("/v1/flows/orders/resume", Value::Null).await.1["paused"],
        false
    );

    let (status, applied) = served.post("/v1/flows/orders/apply", Value::Null).await;
    assert_eq!((status, &applied["delivered"]), (200, &json!(60)));
    let (status, applied) = served
        .post("/v1/flows/orders/apply?wait_seconds=5", Value::Null)
        .await;
    assert_eq!((status, &applied["delivered"]), (200, &json!(5)));
    let (status, applied) = served
        .post("/v1/flows/orders/apply?wait=false", Value::Null)
        .await;
    assert_eq!((status, &applied["complete"]), (202, &json!(false)));
    assert_eq!(
        served
            .post("/v1/flows/orders/apply?wait_seconds=3601", Value::Null)
            .await
            .0,
        400
    );
    assert_eq!(
        served
            .post("/v1/flows/orders/apply?what=1", Value::Null)
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn a_flow_that_does_not_run_is_shown_with_the_reason_though_the_ledger_is_silent() {
    let served = served().await;
    served.daemon.flow.down.store(true, Relaxed);
    let (status, list) = served.get("/v1/flows").await;
    assert_eq!(status, 200);
    let flow = &list["flows"][0];
    assert_eq!(flow["down"], "no room for its spool");
    assert_eq!(
        (&flow["restarts"], &flow["files"]),
        (&json!(3), &Value::Null)
    );
    let (_, _, text) = served.text(READ, "GET /metrics", "").await;
    for line in [
        "ketch_listener_up{flow=\"orders\"} 0",
        "ketch_listener_restarts_total{flow=\"orders\"} 3",
        "ketch_listener_ledger_readable{flow=\"orders\"} 0",
    ] {
        assert!(text.lines().any(|each| each == line), "{line}: {text}");
    }
}

#[tokio::test]
async fn files_are_found_by_name_and_by_page() {
    let served = served().await;
    let (status, page) = served.get("/v1/flows/orders/files?path=a.csv").await;
    assert_eq!(status, 200);
    let file = &page["files"][0];
    assert_eq!(file["state"], "done");
    assert_eq!(file["id"], "orders-0000000000000007");
    assert_eq!(file["sha256"], "ab".repeat(32));
    assert_eq!(
        file["deliveries"][0],
        json!({"sink": "disk", "path": "a.csv", "done": true})
    );
    assert!(file.get("path_hex").is_none());
    let (status, page) = served.get("/v1/flows/orders/files?path_hex=62ff").await;
    assert_eq!(
        (status, &page["files"][0]["path_hex"]),
        (200, &json!("62ff"))
    );
    assert_eq!(served.get("/v1/flows/orders/files?path=none").await.0, 404);
    assert_eq!(served.get("/v1/flows/orders/files?path_hex=6").await.0, 400);
    assert_eq!(
        served.get("/v1/flows/orders/files?path_hex=zz").await.0,
        400
    );
    assert_eq!(
        served
            .get("/v1/flows/orders/files?path=a&path_hex=61")
            .await
            .0,
        400
    );
    assert_eq!(served.get("/v1/flows/orders/files?state=lost").await.0, 400);
    assert_eq!(served.get("/v1/flows/orders/files?max=0").await.0, 400);
    assert_eq!(served.get("/v1/flows/orders/files?max=1001").await.0, 400);

    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let (_, page) = served
            .get(&format!("/v1/flows/orders/files?max=2{cursor}"))
            .await;
        for file in page["files"].as_array().expect("files") {
            found.push(file["path"].as_str().expect("a path").to_owned());
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, ["a.csv", "b.csv", "b\u{fffd}", "c.csv"]);

    let (_, dead) = served.get("/v1/flows/orders/dead").await;
    assert_eq!(dead["files"].as_array().map(Vec::len), Some(2));
    assert_eq!(dead["files"][0]["reason"], "no space");
    let replay = "/v1/flows/orders/replay";
    assert_eq!(
        served.post(replay, json!({"path": "b.csv"})).await.1["replayed"],
        1
    );
    assert_eq!(
        served.post(replay, json!({"path_hex": "62ff"})).await.1["replayed"],
        1
    );
    assert_eq!(served.post(replay, Value::Null).await.1["replayed"], 2);
    assert_eq!(served.post(replay, json!({"paht": "b.csv"})).await.0, 400);
}

#[tokio::test]
async fn files_are_asked_for_by_name_and_time_and_the_answer_has_their_names() {
    let served = served().await;
    let fetch = "/v1/flows/orders/fetch";
    let request = json!({
        "include": ["*.csv"], "modified_after": "2026-11-21T00:00:00Z",
        "modified_before": "2026-11-22T00:00:00+01:00", "again": true, "wait_seconds": 9,
    });
    let (status, fetched) = served.post(fetch, request).await;
    assert_eq!(status, 200);
    assert_eq!(fetched["copied"], json!([{"path": "a.csv"}]));
    assert_eq!(fetched["failed"][0]["path_hex"], "62ff");
    assert_eq!(fetched["failed"][0]["reason"], "no space");
    let asked = served.daemon.flow.asked.lock().expect("whole").remove(0);
    assert_eq!(asked.include, ["*.csv"]);
    assert_eq!(
        asked.modified_after.map(|time| time.0.as_second()),
        Some(1_795_219_200)
    );
    assert_eq!(
        asked.modified_before.map(|time| time.0.as_second()),
        Some(1_795_302_000)
    );
    assert!(asked.again);

    served.daemon.flow.slow.store(true, Relaxed);
    let (status, fetched) = served.post(fetch, Value::Null).await;
    assert_eq!(
        (status, &fetched["waiting"][0]["path"]),
        (202, &json!("c.csv"))
    );
    for bad in [
        json!({"include": "*.csv"}),
        json!({"includes": []}),
        json!({"modified_after": "yesterday"}),
        json!({"wait_seconds": 3601}),
        json!([]),
    ] {
        assert_eq!(served.post(fetch, bad.clone()).await.0, 400, "{bad}");
    }
    let long = json!({"include": ["x".repeat(routes::BODY_MAX)]});
    assert_eq!(served.post(fetch, long).await.0, 413);
}

#[tokio::test]
async fn a_connection_is_valid_or_it_is_said_why_not() {
    let served = served().await;
    let validate = async |name: &str| {
        served
            .post(&format!("/v1/sources/{name}/validate"), Value::Null)
            .await
    };
    let valid = json!({"status": "Connection Valid", "valid": true});
    assert_eq!(validate("bank").await, (200, valid));
    let why = json!({"status": "no route to host", "valid": false});
    assert_eq!(validate("away").await, (200, why));
    assert_eq!(validate("none").await.0, 404);
}

#[tokio::test]
async fn numbers_are_prometheus_text() {
    let served = served().await;
    let (status, head, text) = served.text(READ, "GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    for line in [
        "ketch_listener_files{flow=\"orders\",state=\"dead\"} 2",
        "ketch_listener_items_total{flow=\"orders\",outcome=\"delivered\"} 1",
        "ketch_listener_fetched_bytes_total{flow=\"orders\"} 12",
        "ketch_listener_scan_seconds_total{flow=\"orders\"} 1.5",
        "ketch_listener_sink_attempts_total{flow=\"orders\",sink=\"disk\",outcome=\"ok\"} 3",
        "ketch_listener_sink_attempts_total{flow=\"orders\",sink=\"disk\",outcome=\"failed\"} 2",
        "ketch_listener_raised{flow=\"orders\"} 1",
        "ketch_listener_oldest_pending_seconds{flow=\"orders\"} 90.5",
        "# TYPE ketch_listener_items_total counter",
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line} is not in\n{text}"
        );
    }
}

/// The next event of a stream: its id, name and data.
async fn event(stream: &mut TcpStream, rest: &mut String) -> (String, String, String) {
    loop {
        if let Some((event, behind)) = rest.clone().split_once("\n\n") {
            *rest = behind.to_owned();
            let field = |name: &str| {
                let line = event.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().trim_start().to_owned()
            };
            let (id, name, data) = (field("id:"), field("event:"), field("data:"));
            if name.is_empty() {
                continue; // a comment that keeps the connection alive, or the head
            }
            return (id, name, data);
        }
        let mut buffer = [0; 4096];
        let got = stream.read(&mut buffer).await.expect("more");
        assert_ne!(got, 0, "the stream ended");
        // Each event is a chunk of HTTP's of its own; their lengths are lines that have no colon.
        rest.push_str(&String::from_utf8_lossy(&buffer[..got]).replace("\r\n", "\n"));
    }
}

#[tokio::test]
async fn events_come_as_they_happen_and_go_on_where_somebody_was() {
    let served = served().await;
    let orders = FlowName::new("orders").expect("a name");
    let other = FlowName::new("other").expect("a name");
    let delivered = |path: &[u8]| FlowEventKind::Delivered(Box::new(row(path, State::Done).item));
    let events = &served.daemon.events;
    events.tell(1, &orders, delivered(b"a"));
    events.tell(2, &other, FlowEventKind::Paused);
    let mut stream = served.send(READ, "GET /v1/events", "").await;
    let mut rest = String::new();
    let (first, name, data) = event(&mut stream, &mut rest).await;
    assert_eq!(name, "delivered");
    let data: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(data["file"]["path"], "a");
    assert_eq!(data["id"], "orders-0000000000000007");
    assert_eq!(event(&mut stream, &mut rest).await.1, "paused");
    events.tell(3, &orders, delivered(b"b"));
    let (_, _, data) = event(&mut stream, &mut rest).await;
    assert!(data.contains("\"path\":\"b\""), "{data}");
    drop(stream);

    // From the first one on, and of one flow.
    let path = format!("GET /v1/events?flow=orders&last_event_id={first}");
    let mut stream = served.send(READ, &path, "").await;
    let mut rest = String::new();
    let (_, _, data) = event(&mut stream, &mut rest).await;
    assert!(data.contains("\"path\":\"b\""), "{data}");

    // More than the ring has, behind the back of who has seen the first one.
    for _ in 0..RECENT_MAX + 10 {
        events.tell(4, &orders, FlowEventKind::Resumed);
    }
    let path = format!("GET /v1/events?last_event_id={first}");
    let mut late = served.send(READ, &path, "").await;
    let (_, name, data) = event(&mut late, &mut String::new()).await;
    assert_eq!((name.as_str(), data.as_str()), ("missed", "12"));
    assert_eq!(served.get("/v1/events?flow=none").await.0, 404);
}

#[tokio::test]
async fn so_many_may_connect_and_listen() {
    let served = served().await;
    let mut streams = Vec::new();
    for _ in 0..routes::STREAMS_MAX {
        let mut stream = served.send(READ, "GET /v1/events", "").await;
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 200");
        streams.push(stream);
    }
    assert_eq!(served.get("/v1/events").await.0, 503);
    // Who goes leaves a place, once that is seen.
    drop(streams);
    while served.get("/v1/flows").await.0 != 200 {}
}

mod bounds;

#[test]
fn the_document_has_every_route_and_no_other() {
    // What the router says, read where it is said: axum does not tell its routes.
    let source = include_str!("routes.rs");
    let said = source.split(".route(\"").skip(1).map(|rest| {
        let (path, rest) = rest.split_once("\", ").expect("a path");
        let method = rest.split('(').next().expect("a method");
        (path.to_owned(), method.to_owned())
    });
    let mut said: Vec<_> = said.collect();
    let mut written: Vec<_> = openapi::ROUTES
        .iter()
        .map(|route| (route.path.to_owned(), route.method.to_owned()))
        .collect();
    said.sort();
    written.sort();
    assert_eq!(said, written);
    assert!(said.len() > 10, "{said:?}");
}

#[test]
fn the_document_is_what_the_types_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/listen-api.json");
    let mut text = serde_json::to_string_pretty(&openapi::document()).expect("JSON");
    text.push('\n');
    if std::env::var_os("KETCH_WRITE_DOCS").is_some() {
        std::fs::write(path, &text).expect("docs can be written");
    }
    assert!(
        std::fs::read_to_string(path).is_ok_and(|there| there == text),
        "docs/listen-api.json is not what the types say: run this test with KETCH_WRITE_DOCS=1"
    );
    // Every reference leads somewhere.
    let document = openapi::document();
    for reference in text.split("\"$ref\": \"#").skip(1) {
        let pointer = reference.split('"').next().expect("an end");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
