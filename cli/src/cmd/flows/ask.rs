//! Questions to a listener that runs, over the HTTP interface that its file names: one request on a
//! connection of its own (RFC 9112).

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ketch_client::Kind;
use ketch_listener::config::Api;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{named, read, wrong};
use crate::args::FlowsArg;
use crate::exit::sentence;
use crate::failed::Failed;
use crate::output::{Lines, escaped};

/// How long a listener may take: `apply` waits for what it found.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest answer that is read, in bytes.
const ANSWER_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Files in one page of an answer.
const PAGE: usize = 1000;

/// How the flows stand, a line each.
pub(super) async fn status(path: &Path, as_json: bool) -> Result<(), Failed> {
    let api = api(path)?;
    let answer = ask(&api, "GET", "/v1/flows", None).await?;
    let mut out = Lines::new();
    if as_json {
        out.line(&answer.to_string())?;
        return out.flush();
    }
    for flow in array(&answer, "flows") {
        let mut line = format!("{} from {}", text(flow, "name"), text(flow, "source"));
        let _ = match &*text(flow, "interval") {
            "schedule" => write!(line, ", at {}", text(flow, "schedule")),
            "manual" => write!(line, ", when asked"),
            every => write!(line, ", every {every}"),
        };
        if flow.get("paused") == Some(&Value::Bool(true)) {
            line.push_str(", paused");
        }
        match flow.get("files") {
            Some(files) => {
                for name in ["known", "pending", "claimed", "done", "dead"] {
                    let count = files.get(name).and_then(Value::as_u64).unwrap_or_default();
                    let _ = write!(line, ", {count} {name}");
                }
            }
            None => line.push_str(", the ledger cannot be asked"),
        }
        if let Some(settling @ 1..) = flow.get("settling").and_then(Value::as_u64) {
            let _ = write!(line, ", {settling} settling");
        }
        out.line(&line)?;
        let down = text(flow, "down");
        if !down.is_empty() {
            out.line(&format!(
                "  does not run: {down}; it is tried again by itself"
            ))?;
        }
        for what in array(flow, "raised").iter().filter_map(Value::as_str) {
            out.line(&format!("  fails: {}", escaped(what.as_bytes())))?;
        }
    }
    out.flush()
}

/// Asks the same of several flows, and tells what they answer.
pub(super) async fn each(flows: &FlowsArg, what: &str) -> Result<(), Failed> {
    let api = api(&flows.file.config)?;
    let mut out = Lines::new();
    let mut faults = Faults::default();
    for flow in named(&read(&flows.file.config)?, &flows.flows)? {
        // One that cannot is no reason not to ask the others.
        let path = format!("/v1/flows/{flow}/{what}");
        let Some(answer) = faults.of(ask(&api, "POST", &path, None).await) else {
            continue;
        };
        match answer.get("delivered").and_then(Value::as_u64) {
            Some(delivered) => {
                let left = answer
                    .get("left")
                    .and_then(Value::as_u64)
                    .unwrap_or_default();
                let mut line = format!("{flow}: {delivered} delivered, {left} left");
                let settling = answer.get("settling").and_then(Value::as_u64);
                if let Some(settling @ 1..) = settling {
                    // They come by themselves; who asked would wonder where they are.
                    let _ = write!(line, ", {settling} wait until they have settled");
                }
                out.line(&line)?;
            }
            None => out.line(&format!("{flow}: {what}"))?,
        }
        out.flush()?;
    }
    faults.result()
}

/// What several flows could not do.
#[derive(Default)]
struct Faults(Vec<Failed>);

impl Faults {
    fn of<T>(&mut self, result: Result<T, Failed>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// One as it is, several as a line each.
    fn result(mut self) -> Result<(), Failed> {
        match self.0.len() {
            0 => Ok(()),
            1 => self.0.pop().map_or(Ok(()), Err),
            _ => Err(Failed::Faults(
                self.0.iter().map(|error| sentence(error)).collect(),
            )),
        }
    }
}

/// Files that were given up, a line each: path, attempts, reason.
pub(super) async fn dead(flows: &FlowsArg) -> Result<(), Failed> {
    let api = api(&flows.file.config)?;
    let mut out = Lines::new();
    for flow in named(&read(&flows.file.config)?, &flows.flows)? {
        let mut cursor: Option<String> = None;
        loop {
            let behind = cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
            let path = format!("/v1/flows/{flow}/dead?max={PAGE}{behind}");
            let page = ask(&api, "GET", &path, None).await?;
            for file in array(&page, "files") {
                let attempts = file
                    .get("attempts")
                    .and_then(Value::as_u64)
                    .unwrap_or_default();
                let (path, reason) = (text(file, "path"), text(file, "reason"));
                out.line(&format!("{flow}\t{path}\t{attempts}\t{reason}"))?;
            }
            cursor = page
                .get("cursor")
                .and_then(Value::as_str)
                .map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
    }
    out.flush()
}

/// Has files tried again.
pub(super) async fn replay(flows: &FlowsArg, path: Option<&str>) -> Result<(), Failed> {
    let api = api(&flows.file.config)?;
    let body = match path {
        Some(path) => json!({ "path": path }),
        None => json!({}),
    };
    let mut out = Lines::new();
    for flow in named(&read(&flows.file.config)?, &flows.flows)? {
        let route = format!("/v1/flows/{flow}/replay");
        let answer = ask(&api, "POST", &route, Some(body.to_string())).await?;
        let replayed = answer
            .get("replayed")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        out.line(&format!("{flow}: {replayed} tried again"))?;
    }
    out.flush()
}

/// The interface of the file's listener.
fn api(path: &Path) -> Result<Api, Failed> {
    let api = read(path)?.api().map_err(|faults| wrong(&faults))?;
    let why = match &api {
        None => "the file has no [api] with a token, through which a running one is asked",
        Some(api) if api.token.is_none() => {
            "its [api] has no token, and without one its health alone is told; add one"
        }
        Some(api) if api.listen.port() == 0 => {
            "its [api] listens on any port that is free; name one"
        }
        Some(_) => "",
    };
    match (api, why) {
        (Some(api), "") => Ok(api),
        (_, why) => {
            let path = escaped(path.as_os_str().as_encoded_bytes());
            Err(Failed::Usage(format!(
                "cannot ask the listener of {path}: {why}"
            )))
        }
    }
}

async fn ask(api: &Api, method: &str, route: &str, body: Option<String>) -> Result<Value, Failed> {
    let address = here(api.listen);
    let cannot = |error: io::Error| Failed::Local {
        what: format!("cannot ask the listener at {address} (does it run?)"),
        kind: Kind::of_stream(&error),
        source: Box::new(error),
    };
    let asked = timeout(ANSWER_TIMEOUT, exchange(api, address, method, route, body)).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer came in time");
    let (status, answer) = asked
        .map_err(late)
        .and_then(|asked| asked)
        .map_err(cannot)?;
    if (200..300).contains(&status) {
        return Ok(answer);
    }
    let detail = match (status, text(&answer, "detail")) {
        (401, _) => "the token is not the one it was started with".to_owned(),
        (_, detail) if detail.is_empty() => format!("status {status}"),
        (404, detail) => format!("{detail}; has it read its file since (SIGHUP)?"),
        (_, detail) => detail,
    };
    Err(Failed::Local {
        what: format!("the listener at {address} refused"),
        kind: match status {
            401 | 403 => Kind::Permission,
            404 => Kind::NotFound,
            504 => Kind::Timeout,
            _ => Kind::Peer,
        },
        source: format!("{method} {route}: {detail}").into(),
    })
}

/// Whom to connect to if a listener listens on all addresses.
const fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn exchange(
    api: &Api,
    address: SocketAddr,
    method: &str,
    route: &str,
    body: Option<String>,
) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(address).await?;
    let mut head = format!(
        "{method} {route} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nConnection: close\r\n"
    );
    if let Some(token) = &api.token {
        let _ = write!(head, "Authorization: Bearer {}\r\n", token.as_str());
    }
    let body = body.unwrap_or_default();
    if method != "GET" {
        let len = body.len();
        let _ = write!(
            head,
            "Content-Type: application/json\r\nContent-Length: {len}\r\n"
        );
    }
    stream
        .write_all(format!("{head}\r\n{body}").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LEN_MAX).read_to_end(&mut answer).await?;
    parse(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no answer of ours"))
}

/// The status and the JSON behind the head; nothing where there is none.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let body = answer.get(end + 4..)?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()?
        .strip_prefix("HTTP/1.1 ")?
        .get(..3)?
        .parse()
        .ok()?;
    let is_in_pieces =
        lines.any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding:"));
    if is_in_pieces {
        return None; // ours have a length
    }
    Some((status, serde_json::from_slice(body).unwrap_or(Value::Null)))
}

/// A text that is safe to show.
fn text(of: &Value, key: &str) -> String {
    let text = of.get(key).and_then(Value::as_str).unwrap_or_default();
    escaped(text.as_bytes())
}

fn array<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of.get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_json() {
        let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 16\r\n\r\n{\"detail\": \"no\"}";
        let (status, body) = parse(answer).unwrap();
        assert_eq!((status, text(&body, "detail").as_str()), (404, "no"));
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().0, 204);
        for wrong in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"",
        ] {
            assert_eq!(parse(wrong), None);
        }
    }
}
