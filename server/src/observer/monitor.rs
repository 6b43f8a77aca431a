//! A tiny HTTP endpoint (RFC 9110, HTTP/1.1) for what watches over a server: `/metrics` in Prometheus'
//! text format, `/healthz` and `/readyz`.
//!
//! It belongs on the loopback device or a network of its own: there is no login and no TLS. All of it
//! is bounded all the same: connections at a time, the length of a request, the time of a connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::accept::Server;
use crate::observer::audit::AuditLog;
use crate::observer::metrics::{Metrics, Text};

/// Connections at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's head.
const HEAD_LEN_MAX: usize = 8 * 1024;
/// Fields of a request's head.
const HEAD_FIELDS_MAX: usize = 32;
/// From a connection's beginning to its end. Each has one request.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How long nobody is accepted when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers those who watch over a [`Server`]. Clones are the same.
///
/// ```no_run
/// use std::sync::Arc;
/// use ketch_server::{Metrics, Monitor, Server, User, generate_host_key};
/// use tokio::net::TcpListener;
///
/// # async fn run(anna: User) -> Result<(), Box<dyn std::error::Error>> {
/// let metrics = Arc::new(Metrics::default());
/// let server = Server::builder()
///     .host_key(generate_host_key()?)
///     .user(anna)
///     .observer(metrics.clone())
///     .build()?;
/// let monitor = Monitor::new(server.clone(), metrics);
/// let listener = TcpListener::bind("127.0.0.1:9100").await?;
/// tokio::select! {
///     result = server.serve(TcpListener::bind("0.0.0.0:22").await?) => result?,
///     result = monitor.serve(listener) => result?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Monitor {
    server: Server,
    metrics: Arc<Metrics>,
    audit: Option<Arc<AuditLog>>,
}

impl Monitor {
    /// `metrics` are those that the server has as an observer.
    #[must_use]
    pub const fn new(server: Server, metrics: Arc<Metrics>) -> Self {
        Self {
            server,
            metrics,
            audit: None,
        }
    }

    /// Tells among the metrics how many lines this log has lost.
    #[must_use]
    pub fn audit_log(mut self, log: Arc<AuditLog>) -> Self {
        self.audit = Some(log);
        self
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    /// What `accept` says if the listener itself is broken.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let monitor = self.clone();
                        connections.spawn(async move {
                            monitor.connection(stream).await;
                            drop(place);
                        });
                    }
                    Err(_) => debug!(%peer, "too many ask for metrics"),
                },
                Err(error) if crate::accept::door::is_about_connection(&error) => {}
                Err(error) if crate::accept::door::is_exhaustion(&error) => {
                    warn!(%error, "no metrics for a moment");
                    sleep(ACCEPT_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let answer = service_fn(|request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path());
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TIME_MAX)
            .max_buf_size(HEAD_LEN_MAX)
            .max_headers(HEAD_FIELDS_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer);
        match timeout(TIME_MAX, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "a request for metrics failed"),
            Err(_) => debug!("a request for metrics took too long"),
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, text) = match path {
            _ if !matches!(*method, Method::GET | Method::HEAD) => {
                (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned())
            }
            "/metrics" => (StatusCode::OK, self.render()),
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/readyz" if self.server.is_accepting() => (StatusCode::OK, "ready\n".to_owned()),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
            _ => (StatusCode::NOT_FOUND, "not found\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }

    fn render(&self) -> String {
        let mut out = Text(self.metrics.render());
        out.one(
            "ketch_jobs",
            "gauge",
            "Calls of sessions that threads work on or that wait for one.",
            self.server.jobs() as u64,
        );
        if let Some(log) = &self.audit {
            out.one(
                "ketch_audit_lines_lost_total",
                "counter",
                "Lines that the audit log lost.",
                log.lost(),
            );
        }
        out.0
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{MemoryFileSystem, User, generate_host_key};

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // Who is thrown out in the middle of a request may see a reset.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn monitor() -> (Server, std::net::SocketAddr, JoinSet<io::Result<()>>) {
        let metrics = Arc::new(Metrics::default());
        let server = Server::builder()
            .host_key(generate_host_key().unwrap())
            .user(
                User::with_file_system("anna", Arc::new(MemoryFileSystem::new())).password("right"),
            )
            .observer(Arc::clone(&metrics) as Arc<dyn crate::Observer>)
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(AuditLog::to(io::sink()).unwrap());
        let monitor = Monitor::new(server.clone(), metrics).audit_log(log);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { monitor.serve(listener).await });
        (server, address, tasks)
    }

    #[tokio::test]
    async fn it_tells_metrics_health_and_whether_the_server_is_ready() {
        let (server, address, mut tasks) = monitor().await;
        let text = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            text.contains("content-type: text/plain; version=0.0.4"),
            "{text}"
        );
        for line in [
            "\nketch_sessions 0\n",
            "\nketch_jobs 0\n",
            "\nketch_audit_lines_lost_total 0\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let text = ask(address, b"GET /healthz HTTP/1.0\r\n\r\n").await;
        assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
        let ready = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(ask(address, ready).await.starts_with("HTTP/1.1 503"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serving = server.clone();
        tasks.spawn(async move { serving.serve(listener).await });
        while !server.is_accepting() {
            tokio::task::yield_now().await;
        }
        assert!(ask(address, ready).await.starts_with("HTTP/1.1 200"));
        server.shutdown();
        assert!(ask(address, ready).await.starts_with("HTTP/1.1 503"));
    }

    #[tokio::test]
    async fn what_is_no_question_is_refused_and_changes_nothing() {
        let (_server, address, _tasks) = monitor().await;
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000));
        let fields = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
        for (request, begin) in [
            (
                &b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"[..],
                "HTTP/1.1 405",
            ),
            (
                b"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 404",
            ),
            (
                b"GET /../metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                "HTTP/1.1 404",
            ),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 400"),
            (
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
                "HTTP/1.1 400",
            ),
            (long.as_bytes(), "HTTP/1.1 4"),
            (fields.as_bytes(), "HTTP/1.1 431"),
        ] {
            let text = ask(address, request).await;
            assert!(text.is_empty() || text.starts_with(begin), "{text}");
        }
        assert!(
            ask(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .contains("200")
        );
    }

    #[tokio::test]
    async fn silent_connections_take_no_more_than_their_places() {
        let (_server, address, _tasks) = monitor().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // All of them are there before this one, which is closed at once.
        assert_eq!(ask(address, b"").await, "");
        drop(silent);
        let health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        while !ask(address, health).await.contains("200 OK") {
            tokio::task::yield_now().await;
        }
    }
}
