//! Events to a URL: CloudEvents over HTTP, signed, one request for each item.
//!
//! The body is the event of [`event`] in CloudEvents' structured mode (HTTP protocol binding 1.0.2 §3.2),
//! or its data alone with the attributes in `ce-` headers ([`Mode::Binary`], §3.1). [`signature`] signs the
//! body as the Standard Webhooks specification
//! has it, and `Idempotency-Key` carries the event's id, which is the same in every attempt: a
//! receiver that keeps ids sees every event once.
//!
//! What an answer means is decided by [`verdict`], which is pure:
//!
//! | answer | what follows |
//! | --- | --- |
//! | 2xx | done |
//! | 429 or 503 with `Retry-After` | [`SinkError::Busy`]: nobody is served for so long |
//! | 408, 425, 429, 502, 503, 504, no connection, no answer in time | transient, whichever event it is |
//! | any other 5xx | may be about this event alone, and is tried again as often as the flow says |
//! | 3xx, any other 4xx | the same; redirects are not followed, as what is signed is for one receiver |

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ketch_client::Kind;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url};

use super::event;
use super::{Answer, Parcel, Sink, SinkError, Takes};
use crate::flow::item::Item;
use crate::store::Placement;

pub mod signature;

pub use signature::WebhookSecret;

/// Bytes of an answer that are read to tell why a receiver refused.
const REASON_MAX: usize = 512;
/// Bytes of a good answer that are read so that the connection can be used again.
const ANSWER_MAX: usize = 16 * 1024;
/// Longest wait that a receiver may ask for; it is asked again at least so often.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Connections that are kept for the next event.
const IDLE_MAX: usize = 4;

/// What of an event is in the body of a request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// All of it: `application/cloudevents+json`.
    #[default]
    Structured,
    /// Its data, with the attributes in headers: `ce-id`, `ce-type` and so on. Signatures do not cover
    /// those, but for the id.
    Binary,
}

/// Where events go, and how.
#[derive(Clone)]
pub struct WebhookSettings {
    /// The sink's name in its flow.
    pub name: String,
    /// Where to. `https`, or `http` to an address of this machine.
    pub url: String,
    /// What the body is. Default: the whole event.
    pub mode: Mode,
    /// Who signs: the first is used first, and receivers take any of them, so that a secret can be
    /// changed without a gap. None: events are not signed.
    pub secrets: Vec<WebhookSecret>,
    /// Further headers of each request, `Authorization` for example. Not shown in logs.
    pub headers: Vec<(String, String)>,
    /// A file of PEM certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// From the first byte of a request to the last of its answer. Default: 30 s.
    pub timeout: Duration,
    /// For a connection to be made. Default: 10 s.
    pub connect_timeout: Duration,
    /// Whether plain `http` to other machines is allowed: everybody on the way may read and change
    /// such events. Default: no.
    pub danger_plain_http: bool,
    /// Which events it takes. Default: all that the flow has.
    pub takes: Takes,
}

/// Without what receivers know us by: the values of headers, and all of the URL but whose it is.
impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        let url = Url::parse(&self.url);
        let host = url.as_ref().ok().and_then(Url::host_str);
        f.debug_struct("WebhookSettings")
            .field("name", &self.name)
            .field("host", &host)
            .field("headers", &headers)
            .field("secrets", &self.secrets.len())
            .field("takes", &self.takes)
            .finish_non_exhaustive()
    }
}

impl WebhookSettings {
    /// Events to `url`, not signed, with defaults for the rest.
    #[must_use]
    pub fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            mode: Mode::default(),
            secrets: Vec::new(),
            headers: Vec::new(),
            ca: None,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            danger_plain_http: false,
            takes: Takes::EVENTS,
        }
    }
}

/// Why a webhook cannot be made from its settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The URL is none, or of another sort.
    #[error("{url:?} is no URL for a webhook: {why}")]
    Url {
        /// As it was given, without what may be a password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A header's name or value cannot be sent.
    #[error("the header {name:?} cannot be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// The file of certificates cannot be read.
    #[error("cannot read the certificates in {path:?}")]
    Certificates {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] reqwest::Error),
}

/// A sink of events.
pub struct Webhook {
    name: String,
    url: Url,
    origin: String,
    mode: Mode,
    secrets: Vec<WebhookSecret>,
    client: Client,
    takes: Takes,
    source: String,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// A webhook whose events have `source`; [`event::default_source`] is what flows have unless told.
    ///
    /// # Errors
    /// [`WebhookError`]. Nothing is connected to yet.
    pub fn new(settings: WebhookSettings, source: String) -> Result<Self, WebhookError> {
        let url = allowed_url(&settings.url, settings.danger_plain_http)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let refused = || WebhookError::Header { name: name.clone() };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| refused())?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        // Another provider that the program installed before is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = Client::builder()
            .user_agent(concat!("ketch-listener/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(settings.timeout)
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(IDLE_MAX);
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        if let Some(path) = settings.ca {
            let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| {
                let path = path.clone();
                WebhookError::Certificates { path, source }
            };
            let pem = std::fs::read(&path).map_err(|error| unreadable(error.into()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| unreadable(error.into()))?;
            if certificates.is_empty() {
                return Err(unreadable("there is none in it".into()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        Ok(Self {
            name: settings.name,
            origin: url.origin().ascii_serialization(),
            url,
            mode: settings.mode,
            secrets: settings.secrets,
            client: builder.build().map_err(WebhookError::Tls)?,
            takes: settings.takes,
            source,
        })
    }

    async fn send(&self, parcel: Parcel<'_>) -> Result<(), SinkError> {
        let id = parcel.item.id();
        let mut request = self
            .client
            .post(self.url.clone())
            .header("idempotency-key", &id);
        let body = match self.mode {
            Mode::Structured => {
                request = request.header("content-type", event::CONTENT_TYPE);
                event::encode(&self.source, &parcel)
            }
            Mode::Binary => {
                request = request.header("content-type", "application/json");
                let (attributes, data) = event::encode_apart(&self.source, &parcel);
                for (name, value) in attributes {
                    request = request.header(format!("ce-{name}"), in_header(&value));
                }
                data
            }
        };
        if !self.secrets.is_empty() {
            let now = unix_now().as_secs();
            request = request
                .header("webhook-id", &id)
                .header("webhook-timestamp", now)
                .header(
                    "webhook-signature",
                    signature::sign(&self.secrets, &id, now, &body),
                );
        }
        let answer = request.body(body).send().await;
        let mut answer = answer.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).cloned();
        let after = after.as_ref().and_then(|value| value.to_str().ok());
        let verdict = verdict(status, after, unix_now());
        let room = if verdict == Verdict::Done {
            ANSWER_MAX
        } else {
            REASON_MAX
        };
        let said = start_of(&mut answer, room).await;
        let what = || format!("{} answered {status} to event {id}", self.origin);
        match verdict {
            Verdict::Done => Ok(()),
            Verdict::After(after) => Err(SinkError::Busy {
                what: what(),
                after,
            }),
            Verdict::Refused(kind) => Err(SinkError::Failed {
                what: what(),
                kind,
                source: Box::new(Refusal(printable(&said))),
            }),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> SinkError {
        let kind = if error.is_timeout() {
            Kind::Timeout
        } else {
            Kind::Network
        };
        SinkError::Failed {
            what: format!("cannot send an event to {}", self.origin),
            kind,
            // The URL may hold a token in its path or query.
            source: Box::new(error.without_url()),
        }
    }
}

impl Sink for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn takes(&self) -> Takes {
        self.takes
    }

    fn place<'a>(&'a self, _: &'a Item, _: Option<&'a Placement>) -> Answer<'a, Placement> {
        Box::pin(async { Ok(Placement::default()) })
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(self.send(parcel))
    }

    /// Asks with OPTIONS, which changes nothing: any answer tells that the receiver is there and that
    /// its certificate is good.
    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let request = self
                .client
                .request(reqwest::Method::OPTIONS, self.url.clone());
            let answer = request.send().await;
            answer.map(drop).map_err(|error| self.unreachable(error))
        })
    }
}

/// An attribute as a header's value: what is not printable ASCII, and spaces, quotes and the percent sign,
/// are the bytes of their UTF-8 as `%XX` (HTTP protocol binding 1.0.2 §3.1.3.2).
fn in_header(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            value.push(char::from(byte));
        } else {
            let _ = write!(value, "%{byte:02X}");
        }
    }
    value
}

/// What an answer means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The receiver has it.
    Done,
    /// It asks for another attempt, not before this long from now.
    After(Duration),
    /// It does not have it; [`Kind::is_transient`] tells whether it may later.
    Refused(Kind),
}

/// What an answer with `status` means, and `Retry-After` where it is there: seconds, or a date that
/// is compared with `now`, the time since 1970 (RFC 9110 §10.2.3).
#[must_use]
pub fn verdict(status: StatusCode, retry_after: Option<&str>, now: Duration) -> Verdict {
    let wait = || {
        let after = retry_after?.trim();
        let wait = match after.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let date = jiff::fmt::rfc2822::DateTimeParser::new();
                let date = date.parse_timestamp(after).ok()?.as_second();
                Duration::from_secs(u64::try_from(date).ok()?).saturating_sub(now)
            }
        };
        Some(wait.min(RETRY_AFTER_MAX))
    };
    match status.as_u16() {
        200..=299 => Verdict::Done,
        429 | 503 => wait().map_or(Verdict::Refused(Kind::Network), Verdict::After),
        408 | 504 => Verdict::Refused(Kind::Timeout),
        425 | 502 => Verdict::Refused(Kind::Network),
        401 | 407 => Verdict::Refused(Kind::Auth),
        403 => Verdict::Refused(Kind::Permission),
        405 => Verdict::Refused(Kind::Unsupported),
        _ => Verdict::Refused(Kind::Peer),
    }
}

/// What a receiver said to its refusal.
#[derive(Debug)]
struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("it did not say why")
        } else {
            write!(f, "it said {}", self.0)
        }
    }
}

impl std::error::Error for Refusal {}

/// Up to `room` bytes of an answer's body; what is wrong with the rest is nobody's concern.
async fn start_of(answer: &mut reqwest::Response, room: usize) -> Vec<u8> {
    let mut start = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        let left = room.saturating_sub(start.len());
        start.extend_from_slice(chunk.get(..left).unwrap_or(&chunk));
        if start.len() >= room {
            break;
        }
    }
    start
}

/// A stranger's words as they may stand in a log: one line, quoted.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.trim() {
        "" => String::new(),
        text => format!("{text:?}"),
    }
}

fn allowed_url(text: &str, plain_anywhere: bool) -> Result<Url, WebhookError> {
    let refused = |why: String| {
        // What stands behind the host may be secret, and what does not parse may be anything.
        let shown = text.split(['?', '#']).next().unwrap_or_default();
        let shown = match shown.split_once('@') {
            Some((_, behind)) => format!("…@{behind}"),
            None => shown.to_owned(),
        };
        WebhookError::Url { url: shown, why }
    };
    let url = Url::parse(text).map_err(|error| refused(error.to_string()))?;
    match url.scheme() {
        _ if url.host_str().is_none() => Err(refused("there is no host in it".to_owned())),
        "https" => Ok(url),
        "http" if plain_anywhere || is_loopback(&url) => Ok(url),
        "http" => Err(refused(
            "plain http goes to this machine only; use https".to_owned(),
        )),
        other => Err(refused(format!("{other} is neither https nor http"))),
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    // An IPv6 address stands in brackets. Names other than this one are whatever a resolver says.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a signature carries the time at which it was made"
)]
fn unix_now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

#[cfg(test)]
mod tests;
