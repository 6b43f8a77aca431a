use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use ketch_client::Kind;
use ketch_listener::sink::webhook::{Mode, Webhook, WebhookSecret, WebhookSettings};
use ketch_listener::sink::{Sink as _, SinkError};
use tempfile::TempDir;

use super::peers::{find, tied};
use super::{deliver, item};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Answers every request with what it is told on standard input, and writes down what it got. Its
/// signatures are its own, by Python's hmac.
const RECEIVER: &str = r#"
import base64, hashlib, hmac, http.server, json, ssl, sys, time
class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        plan = json.loads(sys.stdin.readline())
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(sys.argv[1].removeprefix("whsec_"))
        ours = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        good = any(hmac.compare_digest(ours, s) for s in (self.headers["webhook-signature"] or "").split())
        fresh = abs(time.time() - int(self.headers["webhook-timestamp"] or 0)) < 300
        print(json.dumps({"headers": {k.lower(): v for k, v in self.headers.items()}, "path": self.path,
                          "body": body.decode(), "signed": good and fresh}), flush=True)
        time.sleep(plan.get("sleep", 0))
        answer = plan.get("body", "").encode() * plan.get("times", 1)
        self.send_response(plan["status"])
        for name, value in plan.get("headers", {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        try:
            self.wfile.write(answer)
        except OSError:
            pass
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.handle_error = lambda *args: None
server.serve_forever()
"#;

struct Receiver {
    process: Child,
    plans: ChildStdin,
    got: BufReader<ChildStdout>,
    port: u16,
}

impl Receiver {
    fn start(certificate: &[&std::path::Path]) -> Self {
        let mut process = tied(&find("python3", &[]), None)
            .args(["-c", RECEIVER, SECRET])
            .args(certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let plans = process.stdin.take().expect("piped");
        let mut got = BufReader::new(process.stdout.take().expect("piped"));
        let mut port = String::new();
        got.read_line(&mut port).expect("a port");
        let port = port.trim().parse().expect("a port");
        Self {
            process,
            plans,
            got,
            port,
        }
    }

    /// What the next request is answered with.
    fn plan(&mut self, plan: &serde_json::Value) {
        writeln!(self.plans, "{plan}").expect("it reads");
    }

    /// The next request that came.
    fn request(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.got.read_line(&mut line).expect("it writes");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it is ours");
    }
}

fn hook(settings: WebhookSettings) -> Webhook {
    Webhook::new(settings, "/ketch/orders".to_owned()).expect("a webhook")
}

fn settings(url: &str) -> WebhookSettings {
    let mut settings = WebhookSettings::new("hook", url);
    settings.secrets = vec![WebhookSecret::new(SECRET).expect("a secret")];
    settings
}

#[tokio::test]
async fn an_event_comes_signed_whole_and_with_its_id() {
    let mut receiver = Receiver::start(&[]);
    let mut settings = settings(&format!("http://127.0.0.1:{}/hooks?a=b", receiver.port));
    settings.headers = vec![("authorization".to_owned(), "Bearer t".to_owned())];
    let hook = hook(settings);
    for sequence in 1..=3 {
        receiver.plan(&serde_json::json!({"status": 202, "body": "thanks"}));
        deliver(&hook, &item(sequence, b"in/\xff.csv"))
            .await
            .expect("taken");
        let request = receiver.request();
        assert_eq!(request["signed"], true);
        assert_eq!(request["path"], "/hooks?a=b");
        let headers = &request["headers"];
        let id = item(sequence, b"").id();
        assert_eq!(headers["webhook-id"], id);
        assert_eq!(headers["idempotency-key"], id);
        assert_eq!(headers["content-type"], "application/cloudevents+json");
        assert_eq!(headers["authorization"], "Bearer t");
        let event: serde_json::Value =
            serde_json::from_str(request["body"].as_str().expect("text")).expect("JSON");
        assert_eq!(event["id"], id);
        assert_eq!(event["source"], "/ketch/orders");
        assert_eq!(event["type"], "ketch.file.created");
        assert_eq!(event["data"]["path_hex"], "696e2fff2e637376");
    }
}

#[tokio::test]
async fn answers_decide_about_the_next_attempt() {
    let mut receiver = Receiver::start(&[]);
    let mut settings = settings(&format!("http://127.0.0.1:{}/", receiver.port));
    settings.timeout = Duration::from_secs(60);
    let hook = hook(settings);
    let mut answer = async |plan: serde_json::Value| {
        receiver.plan(&plan);
        let answer = deliver(&hook, &item(1, b"a")).await;
        receiver.request();
        answer.expect_err("it was refused")
    };

    let busy = answer(serde_json::json!({"status": 503, "headers": {"retry-after": "17"}})).await;
    assert_eq!(busy.retry_after(), Some(Duration::from_secs(17)));
    assert!(busy.kind().is_transient());

    let broken = answer(serde_json::json!({"status": 502})).await;
    assert!(broken.kind().is_transient() && broken.retry_after().is_none());

    // It may be this event that the receiver stumbles over: not a reason to wait for ever.
    let stumbled = answer(serde_json::json!({"status": 500})).await;
    assert!(!stumbled.kind().is_transient());

    // Followed, it would be a second request, for which there is no plan.
    let elsewhere = serde_json::json!({"status": 307, "headers": {"location": "/other"}});
    assert!(!answer(elsewhere).await.kind().is_transient());

    let wordy = serde_json::json!({"status": 422, "body": "no\n", "times": 100_000});
    let wordy = answer(wordy).await;
    assert_eq!(wordy.kind(), Kind::Peer);
    let SinkError::Failed { what, source, .. } = wordy else {
        panic!("{wordy}");
    };
    assert!(
        what.contains("422") && what.contains("orders-0000000000000001"),
        "{what}"
    );
    let reason = source.to_string();
    assert!(
        reason.starts_with("it said \"no\\nno") && reason.len() < 2000,
        "{reason}"
    );
}

#[tokio::test]
async fn who_is_silent_or_away_is_tried_again() {
    let mut receiver = Receiver::start(&[]);
    let url = format!("http://127.0.0.1:{}/", receiver.port);
    let mut impatient = settings(&url);
    impatient.timeout = Duration::from_millis(200);
    let hook = hook(impatient);
    receiver.plan(&serde_json::json!({"status": 200, "sleep": 2}));
    let late = deliver(&hook, &item(1, b"a")).await.expect_err("it sleeps");
    assert_eq!(late.kind(), Kind::Timeout);
    drop(receiver);
    let away = deliver(&hook, &item(1, b"a"))
        .await
        .expect_err("it is gone");
    assert_eq!(away.kind(), Kind::Network);
    assert!(hook.check().await.is_err());
}

#[tokio::test]
async fn tls_needs_a_certificate_that_is_trusted() {
    let dir = TempDir::new().expect("a directory");
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = std::process::Command::new(find("openssl", &[]))
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args([
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl starts");
    assert!(made.status.success(), "{made:?}");
    let mut receiver = Receiver::start(&[&certificate, &key]);
    let mut settings = settings(&format!("https://127.0.0.1:{}/", receiver.port));
    let stranger = deliver(&hook(settings.clone()), &item(1, b"a")).await;
    assert_eq!(stranger.expect_err("nobody knows it").kind(), Kind::Network);

    settings.ca = Some(certificate.clone());
    receiver.plan(&serde_json::json!({"status": 200}));
    deliver(&hook(settings.clone()), &item(1, b"a"))
        .await
        .expect("taken");
    assert_eq!(receiver.request()["signed"], true);

    settings.ca = Some(dir.path().join("nothing.pem"));
    assert!(Webhook::new(settings, "/x".to_owned()).is_err());
}

#[tokio::test]
async fn in_binary_mode_the_attributes_are_headers_and_the_data_is_signed() {
    let mut receiver = Receiver::start(&[]);
    let mut settings = settings(&format!("http://127.0.0.1:{}/in", receiver.port));
    settings.mode = Mode::Binary;
    let hook = hook(settings);
    receiver.plan(&serde_json::json!({"status": 204}));
    deliver(&hook, &item(7, "in/ä b.csv".as_bytes()))
        .await
        .expect("taken");
    let request = receiver.request();
    assert_eq!(request["signed"], true);
    let headers = &request["headers"];
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "orders-0000000000000007"),
        ("webhook-id", "orders-0000000000000007"),
        ("ce-source", "/ketch/orders"),
        ("ce-type", "ketch.file.created"),
        ("ce-subject", "in/%C3%A4%20b.csv"),
    ] {
        assert_eq!(headers[name], value, "{headers}");
    }
    assert!(
        headers["ce-time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
    let body = request["body"].as_str().expect("a text");
    let data: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(
        (&data["path"], data.get("specversion")),
        (&serde_json::json!("in/ä b.csv"), None)
    );
}
