//! Requests over HTTP: what flows do, and what they are asked to do.
//!
//! The API knows a daemon through two small traits, [`Flows`] and [`FlowControl`]; [`handle`] has the
//! second one over running flows. A request goes this way:
//!
//! ```text
//!   serve: sockets, bounds ──> routes: token, body, time ──> one function each ──> FlowControl
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`types`] | what is said in JSON, both ways; [`openapi`] is printed from it |
//! | [`token`] | who may ask what |
//! | [`problem`] | how a refusal looks (RFC 9457) |
//! | `routes` | one function for each route |
//! | `stream` | recent events as Server-Sent Events |
//! | `metrics` | numbers in Prometheus' text format |
//! | `serve` | sockets: connections at a time, how long a head may take |
//!
//! Health and readiness are told to everybody who can connect; all else needs a token.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ketch_client::RemotePath;

use crate::detect::Pace;
use crate::flow::events::Events;
use crate::store::{Counts, Row, State};

pub mod handle;
mod metrics;
pub mod openapi;
pub mod problem;
mod routes;
mod serve;
mod stream;
pub mod token;
pub mod types;

pub use token::{ApiToken, BadToken, Scope};

use types::{Applied, FetchRequest, Fetched};

/// Longest wait that a request may ask for.
pub const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How long a request waits for what it started unless it says.
pub const WAIT: Duration = Duration::from_secs(60);
/// Files in one page of an answer, at most.
pub const PAGE_MAX: usize = 1_000;

/// What a daemon answers, when it has it.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// A daemon, as the API knows it.
pub trait Flows: fmt::Debug + Send + Sync + 'static {
    /// Its flows, in the order of their names.
    fn list(&self) -> Vec<Arc<dyn FlowControl>>;

    /// The flow called `name`.
    fn flow(&self, name: &str) -> Option<Arc<dyn FlowControl>> {
        self.list().into_iter().find(|flow| flow.name() == name)
    }

    /// Connects to the source called `name` and lists its root.
    fn validate<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// What happens in all flows.
    fn events(&self) -> &Events;

    /// Why it cannot do its work now, if it cannot: a ledger that cannot be written, for example.
    /// A source that is away is no reason: the flow waits for it.
    fn ready(&self) -> Answer<'_, ()>;
}

/// One flow, as the API knows it.
pub trait FlowControl: fmt::Debug + Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &str;

    /// The name of its source.
    fn source(&self) -> &str;

    /// The names of its sinks.
    fn sinks(&self) -> Vec<String>;

    /// When the source is looked at.
    fn pace(&self) -> Pace;

    /// Changes that, until the daemon starts anew. [`Pace::Scheduled`] is asked for only where
    /// there is a schedule.
    fn set_pace(&self, pace: Pace);

    /// Its schedule, for people, whether or not it holds now.
    fn schedule(&self) -> Option<String> {
        None
    }

    /// When the schedule is due next, in seconds since 1970, if it holds now.
    fn next_look(&self) -> Option<u64> {
        None
    }

    /// Files that were seen and have yet to settle.
    fn settling(&self) -> u64 {
        0
    }

    /// Whether it is paused.
    fn is_paused(&self) -> bool;

    /// Pauses it or lets it go on, also over a restart.
    fn set_paused(&self, paused: bool) -> Answer<'_, ()>;

    /// What cannot be reached, read or written now.
    fn raised(&self) -> Vec<String>;

    /// Why it does not run, or not wholly: it could not be started, or half of it ended by a fault of
    /// its own. It is started anew by itself.
    fn down(&self) -> Option<String> {
        None
    }

    /// How often it was started anew by itself.
    fn restarts(&self) -> u64 {
        0
    }

    /// Rows of the ledger by state.
    fn counts(&self) -> Answer<'_, Counts>;

    /// For how long the oldest item that is not done has been known, dead ones left out; `None` if all
    /// are done.
    fn oldest_pending(&self) -> Answer<'_, Option<Duration>> {
        Box::pin(async { Ok(None) })
    }

    /// What it did since the daemon started.
    fn totals(&self) -> Totals;

    /// Looks at the source now. Without `wait` it is only begun.
    fn apply(&self, wait: Option<Duration>) -> Answer<'_, Applied>;

    /// What the ledger knows of `path`.
    fn file<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, Option<Row>>;

    /// A page of files in the order of their paths: those behind `after`, at most `max`.
    fn files<'a>(
        &'a self,
        state: Option<State>,
        after: Option<&'a RemotePath>,
        max: usize,
    ) -> Answer<'a, Vec<Row>>;

    /// Tries again what was given up: `path` alone, or all. Answers how many.
    fn replay<'a>(&'a self, path: Option<&'a RemotePath>) -> Answer<'a, u64>;

    /// Has what `request` asks for delivered, and answers when it is, or after `wait`.
    fn fetch<'a>(&'a self, request: &'a FetchRequest, wait: Duration) -> Answer<'a, Fetched>;
}

/// What a flow did since the daemon started. All only grow.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Items that all sinks have.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Items given up.
    pub dead: u64,
    /// Items that changed before they were fetched.
    pub superseded: u64,
    /// Bytes fetched.
    pub bytes: u64,
    /// Scans.
    pub scans: u64,
    /// Time in scans.
    pub scan_time: Duration,
    /// Names that scans listed.
    pub entries: u64,
    /// Items that the ledger took.
    pub recorded: u64,
    /// What its sinks were asked.
    pub sinks: Vec<SinkTotals>,
}

/// What one sink was asked since the daemon started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SinkTotals {
    /// Its name.
    pub name: String,
    /// Deliveries that were attempted.
    pub attempts: u64,
    /// Those that failed.
    pub failures: u64,
}

/// Why a daemon did not do what it was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is nothing of that name.
    #[error("there is no {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// What was asked for makes no sense, or is more than may be asked for.
    #[error("{0}")]
    Bad(String),
    /// It cannot be done now.
    #[error("{0}")]
    Unavailable(String),
    /// It was not done in time.
    #[error("{0}")]
    TimedOut(String),
}

/// How the API is reached.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The address to listen on. Port 0: any that is free.
    pub listen: SocketAddr,
    /// Whether `listen` may be an address that other machines reach. There is no TLS: tokens and
    /// answers can be read on the way, unless a proxy in front of it adds that. Default: no.
    pub danger_anywhere: bool,
    /// Who may ask what. Without any, only health and readiness are told.
    pub tokens: Vec<ApiToken>,
}

impl ApiSettings {
    /// On `listen`, with no tokens yet.
    #[must_use]
    pub const fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            danger_anywhere: false,
            tokens: Vec::new(),
        }
    }
}

/// Why the API cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// Other machines would reach it.
    #[error("{0} can be reached by other machines: that has to be allowed by name")]
    Anywhere(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}")]
    Listen {
        /// Which.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// The API of a daemon, listening.
///
/// ```no_run
/// # async fn example(daemon: std::sync::Arc<dyn ketch_listener::api::Flows>)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use ketch_listener::api::{Api, ApiSettings, ApiToken, Scope};
///
/// let mut settings = ApiSettings::new("127.0.0.1:8022".parse()?);
/// settings.tokens.push(ApiToken::new("kQ2v0xmB7n4Zs9TgYw1c", Scope::Write)?);
/// let api = Api::bind(settings, daemon).await?;
/// println!("http://{}", api.address());
/// api.serve().await; // until it is dropped
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Api {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    router: axum::Router,
}

impl Api {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn bind(settings: ApiSettings, flows: Arc<dyn Flows>) -> Result<Self, ApiError> {
        let ApiSettings {
            listen,
            danger_anywhere,
            tokens,
        } = settings;
        if !listen.ip().is_loopback() && !danger_anywhere {
            return Err(ApiError::Anywhere(listen));
        }
        let failed = |source| ApiError::Listen { listen, source };
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = routes::router(flows, tokens);
        Ok(Self {
            listener,
            address,
            router,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the future is dropped.
    pub async fn serve(self) {
        serve::serve(self.listener, self.router).await;
    }
}

#[cfg(test)]
mod tests;
