//! A session that comes back: connecting anew when a connection was lost, with back-off and jitter.
//!
//! [`Reconnecting`] hands out the session that lives, and makes one when there is none: on demand,
//! and once for all who ask at the same time. What a connection was busy with when it was lost is
//! not repeated here: whether that is safe, only the operation's own error knows
//! ([`Failure::outcome`]).
//!
//! Two things are told apart. A connection that **could not be made** is tried again after a random
//! part of a time that doubles with every failure (full jitter). A connection that **was lost** may
//! have been lost by a thousand clients at the same moment, because their server was restarted: they
//! come back spread over [`Reconnect::spread`], counted from the loss. Who asks later than that does
//! not wait at all.
//!
//! A refused login or an unexpected host key is never tried again by itself: servers ban who does,
//! and a changed key is for people to look at.

mod backoff;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::connect::{Connect, ConnectError};
use crate::session::Session;
use crate::{CloseReason, Failure, Kind};
use backoff::Backoff;

/// When a connection is made anew, and when not.
///
/// ```
/// use std::time::Duration;
/// use ketch_client::{Connect, reconnect::{Reconnect, Reconnecting}};
///
/// let mut policy = Reconnect::default();
/// policy.attempts = None; // never gives up
/// let server = Reconnecting::new(Connect::to("sftp.example.com"), policy);
/// // Wherever a session is needed: `server.session().await?`
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reconnect {
    /// The longest pause after a first failure. Default: 1 s.
    pub first: Duration,
    /// The longest pause of all. Default: 60 s.
    pub max: Duration,
    /// Over how long those who lost their connection at the same time come back. Zero suits a
    /// client that is alone with its server and has somebody waiting. Default: 30 s.
    pub spread: Duration,
    /// Attempts for which one call waits; `None` for as many as it takes. Default: 10.
    pub attempts: Option<u32>,
    /// How long a connection has to have lived for earlier failures to be forgotten. Default: 60 s.
    pub healthy: Duration,
    /// How long nothing is tried after a refused login or an unexpected host key; who asks
    /// meanwhile gets that error again. Default: 5 min.
    pub refused: Duration,
    /// What chance starts from, for tests; `None` for real chance. Default: `None`.
    pub seed: Option<u64>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
            spread: Duration::from_secs(30),
            attempts: Some(10),
            healthy: Duration::from_secs(60),
            refused: Duration::from_secs(300),
            seed: None,
        }
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<Session, ConnectError>> + Send>>;

/// A session that is made anew when it was lost.
///
/// Clones share one connection. It stays open as long as a clone is there, or a session that was
/// handed out.
#[derive(Clone)]
pub struct Reconnecting {
    shared: Arc<Shared>,
}

struct Shared {
    connect: Box<dyn Fn() -> Connecting + Send + Sync>,
    policy: Reconnect,
    /// Calls that gave up so far: who waited for one of them learns what it learnt.
    given_up: AtomicU64,
    state: Mutex<State>,
}

struct State {
    live: Option<Live>,
    backoff: Backoff,
    /// Nothing is tried before.
    not_before: Option<Instant>,
    last: Option<Arc<ConnectError>>,
    /// The last failure was a refusal; not asked again before.
    refused_until: Option<Instant>,
}

struct Live {
    session: Session,
    since: Instant,
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting")
            .field("policy", &self.shared.policy)
            .finish_non_exhaustive()
    }
}

impl Reconnecting {
    /// Connects as `connect` says, whenever it has to. Nothing happens before the first
    /// [`Reconnecting::session`].
    #[must_use]
    pub fn new(connect: Connect, policy: Reconnect) -> Self {
        Self::by(move || connect.clone().connect(), policy)
    }

    /// Connects by calling `connect`, for streams of the caller's own.
    #[must_use]
    pub fn by<F>(connect: impl Fn() -> F + Send + Sync + 'static, policy: Reconnect) -> Self
    where
        F: Future<Output = Result<Session, ConnectError>> + Send + 'static,
    {
        let state = State {
            live: None,
            backoff: Backoff::new(&policy),
            not_before: None,
            last: None,
            refused_until: None,
        };
        Self {
            shared: Arc::new(Shared {
                connect: Box::new(move || Box::pin(connect())),
                policy,
                given_up: AtomicU64::new(0),
                state: Mutex::new(state),
            }),
        }
    }

    /// The session that lives, or a new one, for which this waits.
    ///
    /// Many may ask at the same time: one of them connects, the others wait for it. Dropping the
    /// future drops the attempt, and keeps what was learnt from those before: the next who asks
    /// waits what is left of the pause.
    ///
    /// # Errors
    /// [`ReconnectError`].
    pub async fn session(&self) -> Result<Session, ReconnectError> {
        let Shared {
            policy, given_up, ..
        } = &*self.shared;
        let seen = given_up.load(Ordering::Acquire);
        let mut state = self.shared.state.lock().await;
        if seen != given_up.load(Ordering::Acquire)
            && let Some(source) = state.last.clone()
        {
            return Err(ReconnectError::from(source, 0));
        }
        if let Some(session) = state.living(Instant::now()) {
            return Ok(session);
        }
        if let (Some(until), Some(source)) = (state.refused_until, state.last.clone())
            && Instant::now() < until
        {
            return Err(ReconnectError::from(source, 0));
        }
        let mut attempts = 0_u32;
        loop {
            if let Some(at) = state.not_before {
                sleep_until(at).await;
            }
            attempts = attempts.saturating_add(1);
            // Counted before it is made: who drops this and asks again waits, too.
            let pause = state.backoff.failed();
            state.not_before = Some(Instant::now() + pause);
            let error = match (self.shared.connect)().await {
                Ok(session) => return Ok(state.made(session, Instant::now())),
                Err(error) => Arc::new(error),
            };
            tracing::info!(%error, attempts, "no connection");
            state.last = Some(Arc::clone(&error));
            let now = Instant::now();
            state.not_before = Some(now + pause);
            state.refused_until =
                matches!(error.kind(), Kind::Auth | Kind::HostKey).then(|| now + policy.refused);
            let is_enough = policy.attempts.is_some_and(|max| attempts >= max);
            if !error.is_transient() || is_enough {
                given_up.fetch_add(1, Ordering::AcqRel);
                return Err(ReconnectError::from(error, attempts));
            }
        }
    }

    /// The session that lives, if there is one: nothing is tried, and nobody waited for.
    #[must_use]
    pub fn current(&self) -> Option<Session> {
        let state = self.shared.state.try_lock().ok()?;
        let live = state.live.as_ref()?;
        (!live.session.is_closed()).then(|| live.session.clone())
    }

    /// Ends the connection, if there is one. It is made anew when somebody asks for it.
    pub async fn disconnect(&self) {
        let live = self.shared.state.lock().await.live.take();
        if let Some(live) = live {
            live.session.disconnect().await;
        }
    }
}

impl State {
    /// The session, if it lives; if it was lost, what follows from that.
    fn living(&mut self, now: Instant) -> Option<Session> {
        let live = self.live.as_ref()?;
        if !live.session.is_closed() {
            return Some(live.session.clone());
        }
        let ended = live.session.ended_at().unwrap_or(now);
        let lived = ended.saturating_duration_since(live.since);
        // What this side ended was not lost, and nobody else ended it at the same time.
        self.not_before = match live.session.connection().close_reason().as_deref() {
            Some(CloseReason::Requested | CloseReason::Idle) => None,
            _ => Some(ended + self.backoff.lost(lived)),
        };
        self.live = None;
        None
    }

    fn made(&mut self, session: Session, now: Instant) -> Session {
        self.backoff.made();
        self.not_before = None;
        self.last = None;
        self.refused_until = None;
        self.live = Some(Live {
            session: session.clone(),
            since: now,
        });
        session
    }
}

/// Why there is no session.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconnectError {
    /// It did not work as often as the policy allows to try.
    #[error("no connection after {attempts} attempts")]
    GaveUp {
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed.
        source: Arc<ConnectError>,
    },
    /// It failed in a way that trying again does not change.
    #[error(transparent)]
    Permanent(Arc<ConnectError>),
}

impl ReconnectError {
    fn from(source: Arc<ConnectError>, attempts: u32) -> Self {
        if source.is_transient() && attempts > 1 {
            Self::GaveUp { attempts, source }
        } else {
            Self::Permanent(source)
        }
    }

    /// The failure of the last attempt.
    #[must_use]
    pub const fn last(&self) -> &Arc<ConnectError> {
        match self {
            Self::GaveUp { source, .. } | Self::Permanent(source) => source,
        }
    }
}

impl Failure for ReconnectError {
    fn kind(&self) -> Kind {
        self.last().kind()
    }

    fn is_transient(&self) -> bool {
        self.last().is_transient()
    }
}
