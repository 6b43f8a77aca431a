//! What `ketch serve` tells of itself: the audit log, metrics and health.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::serve_file::{Place, Running};

/// What the server answers at this path.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_happened_is_in_the_audit_log_and_in_the_metrics() {
    let place = Place::new();
    let key = place.key("ann_key");
    place.write_whole(&format!(
        "listen = [\"127.0.0.1:0\"]\n\
         audit.file = \"audit.jsonl\"\n\
         metrics.listen = \"127.0.0.1:0\"\n\
         [[host_key]]\n\
         file = \"keys/host_ed25519\"\n\
         [organisation.acme.endpoint.orders]\n\
         root = \"root\"\n\
         [organisation.acme.endpoint.orders.user.ann]\n\
         authorized_keys = [\"{key}\"]\n"
    ));
    let log = fs::File::create(place.path("log")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["serve", "-v", "--log-format", "json", "--config"])
        .arg(place.path("server.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = |what: &str| {
        let mut lines = lines.by_ref().map(Result::unwrap);
        let line = lines.find_map(|line| line.strip_prefix(what).map(str::to_owned));
        line.unwrap().parse::<SocketAddr>().unwrap()
    };
    let port = told("listening on ").port();
    let metrics = told("metrics on ");
    let server = Running { child, port };
    assert!(get(metrics, "/readyz").starts_with("HTTP/1.1 200"));

    let (all_right, said) = place.by_key(
        &server,
        "ann",
        "ann_key",
        "get hello\nput hello copy\nrm hello\n",
    );
    assert!(all_right, "{said}");
    let audit = place.path("audit.jsonl");
    // The connection's end may be told later than the client has ended.
    let text = loop {
        let text = fs::read_to_string(&audit).unwrap();
        if text.contains("\"disconnected\"") {
            break text;
        }
        std::thread::yield_now();
    };
    let who = "\"user\":\"ann\",\"organisation\":\"acme\",\"endpoint\":\"orders\"";
    for part in [
        "\"event\":\"connected\",\"connection\":1,\"peer\":\"127.0.0.1:",
        &format!("{who},\"method\":\"publickey\"}}"),
        &format!("{who},\"path\":\"/hello\",\"read\":5,\"written\":0,\"result\":\"ok\""),
        ",\"read\":0,\"written\":5,\"result\":\"ok\"",
        &format!("{who},\"operation\":\"remove\",\"path\":\"/hello\",\"result\":\"ok\""),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(
        text.bytes()
            .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)),
        "{text}"
    );
    let text = get(metrics, "/metrics");
    for part in [
        "\nketch_logins_total{method=\"publickey\"} 1\n",
        "\nketch_transfers_total{direction=\"upload\",result=\"ok\"} 1\n",
        "\nketch_read_bytes_total 5\n",
        "\nketch_written_bytes_total 5\n",
        "\nketch_audit_lines_lost_total 0\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let log = place.log();
    let login = log.lines().find(|line| line.contains("logged in")).unwrap();
    assert!(
        login.starts_with('{') && login.contains("\"user\":\"ann\""),
        "{login}"
    );
}
