//! All flows of a listener's file, running: one ledger, one connection a source, one place for
//! events.
//!
//! ```text
//!   ListenerFile ── setup ──> Setup ── start ──> Daemon: ledger, sources, flows, API
//!                               └───── reload ──────^   flows that changed are started anew
//! ```
//!
//! What a file says is checked before (`config`); what goes wrong here is the world: a ledger that
//! another process has, an address that is taken. A source or sink that is away is no reason not to
//! start: its flow waits for it. Nor is a flow that cannot be started: it is tried again (`keeper`).

#[cfg(feature = "api")]
mod api;
#[cfg(feature = "api")]
mod down;
mod keeper;
mod revival;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use crate::config::{Ledger, Origin, Setup, SourceSetup};
use crate::flow::events::Events;
use crate::flow::handle::FlowHandle;
use crate::local::Local;
use crate::source::{Source, SourceError};
#[cfg(feature = "postgres")]
use crate::store::postgres::{PostgresStore, PostgresStoreSettings};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use keeper::{Kept, Standing};

/// A running listener. [`Daemon::stop`] ends it.
pub struct Daemon {
    inner: Arc<Inner>,
}

struct Inner {
    state: PathBuf,
    store: Arc<dyn Store>,
    shared_ledger: bool,
    events: Events,
    running: Mutex<Running>,
    /// One start, reload or stop at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Running {
    sources: BTreeMap<String, Living>,
    flows: BTreeMap<String, Kept>,
    api: Option<(SocketAddr, AbortHandle)>,
}

/// A source that flows share.
#[derive(Clone)]
struct Living {
    revision: u64,
    origin: Origin,
}

/// What a reload did, by names of flows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reloaded {
    /// Go on as they were.
    pub kept: Vec<String>,
    /// Were started: new, or changed.
    pub started: Vec<String>,
    /// Were stopped: they stand in the file no more.
    pub stopped: Vec<String>,
    /// Could not be started, with the reason; they are started anew by themselves until they run.
    pub down: Vec<(String, String)>,
}

/// Why a listener did not start, or a reload failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The directory for its state cannot be used.
    #[error("cannot use the state directory {}", .path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The ledger cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file asks for what this program was built without.
    #[error("this program was built without {what}")]
    Absent {
        /// What.
        what: &'static str,
    },
    /// The API cannot be offered.
    #[cfg(feature = "api")]
    #[error(transparent)]
    Api(#[from] crate::api::ApiError),
    /// What the file has for the API's token cannot be one.
    #[cfg(feature = "api")]
    #[error(transparent)]
    Token(#[from] crate::api::BadToken),
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon")
            .field("state", &self.inner.state)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Daemon {
    /// Starts everything that `setup` says. A flow that cannot be started is no reason not to start:
    /// [`Daemon::down`] has it, and it is started anew by itself.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing goes on running then.
    pub async fn start(setup: Setup) -> Result<Self, DaemonError> {
        make_directory(&setup.state)?;
        let store = open_ledger(&setup.ledger).await?;
        let shared_ledger = matches!(setup.ledger, Ledger::Postgres { .. });
        let inner = Arc::new(Inner {
            state: setup.state.clone(),
            store,
            shared_ledger,
            events: Events::new(),
            running: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        });
        let daemon = Self { inner };
        let listen = setup.api.clone();
        let started = async {
            daemon.apply(setup).await;
            #[cfg(feature = "api")]
            if let Some(listen) = listen {
                let (address, task) = api::offer(&listen, Arc::clone(&daemon.inner)).await?;
                daemon.inner.running().api = Some((address, task));
            }
            #[cfg(not(feature = "api"))]
            if listen.is_some() {
                return Err(DaemonError::Absent {
                    what: "an HTTP interface",
                });
            }
            Ok(())
        };
        match started.await {
            Ok(()) => Ok(daemon),
            Err(error) => {
                daemon.stop().await;
                Err(error)
            }
        }
    }

    /// Brings the flows in line with `setup`: those that did not change go on, those that did are
    /// stopped and started anew, and so on; one that does not run is tried at once. State directory,
    /// ledger and API stay as they are.
    pub async fn reload(&self, setup: Setup) -> Reloaded {
        self.apply(setup).await
    }

    /// The flows that run, in the order of their names.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowHandle> {
        let running = self.inner.running();
        let handles = running
            .flows
            .values()
            .filter_map(|flow| match &flow.standing {
                Standing::Up(handle) => Some(handle.clone()),
                Standing::Down(_) => None,
            });
        handles.collect()
    }

    /// The flows that do not run, or not wholly, with the reason. They are started anew by themselves,
    /// after pauses that grow from a second to five minutes.
    #[must_use]
    pub fn down(&self) -> Vec<(String, String)> {
        let running = self.inner.running();
        let down = running.flows.iter();
        down.filter_map(|(name, flow)| Some((name.clone(), flow.down()?)))
            .collect()
    }

    /// The name of the source of the flow called `flow`, if there is such a flow.
    #[must_use]
    pub fn source_of(&self, flow: &str) -> Option<String> {
        let running = self.inner.running();
        running
            .flows
            .get(flow)
            .map(|flow| flow.setup.source.clone())
    }

    /// Whether the source called `name` can be reached and listed; `None` if there is none.
    pub async fn validate(&self, name: &str) -> Option<Result<(), SourceError>> {
        let source = self.inner.running().sources.get(name).cloned()?;
        Some(source.check().await)
    }

    /// What happens in all flows.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.inner.events
    }

    /// The ledger.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// Where the API listens, if there is one.
    #[must_use]
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.inner
            .running()
            .api
            .as_ref()
            .map(|(address, _)| *address)
    }

    /// Stops everything: nothing new is begun, what is under way may end within the time that the
    /// file gives it, and what is known is written down.
    pub async fn stop(&self) {
        let _turn = self.inner.turn.lock().await;
        let Running {
            sources,
            flows,
            api,
        } = std::mem::take(&mut *self.inner.running());
        stop_all(flows.into_values()).await;
        if let Some((_, api)) = api {
            api.abort();
        }
        for source in sources.into_values() {
            source.leave().await;
        }
    }

    async fn apply(&self, setup: Setup) -> Reloaded {
        let _turn = self.inner.turn.lock().await;
        let mut done = Reloaded::default();
        let sources: BTreeMap<_, _> = {
            let running = self.inner.running();
            let living = |source: &SourceSetup| {
                let known = running.sources.get(&source.name);
                let same = known.filter(|known| known.revision == source.revision);
                same.cloned().unwrap_or_else(|| Living::of(source))
            };
            let named = setup.sources.iter();
            named
                .map(|source| (source.name.clone(), living(source)))
                .collect()
        };
        let (kept, changed): (Vec<_>, Vec<_>) = {
            let running = self.inner.running();
            setup.flows.into_iter().partition(|flow| {
                let known = running.flows.get(flow.settings.name.as_str());
                known.is_some_and(|known| known.setup.revision == flow.revision && known.is_whole())
            })
        };
        done.kept = kept
            .iter()
            .map(|flow| flow.settings.name.to_string())
            .collect();
        let leaving: Vec<_> = {
            let mut running = self.inner.running();
            let all = std::mem::take(&mut running.flows);
            let (stay, leave) = all
                .into_iter()
                .partition(|(name, _)| done.kept.contains(name));
            running.flows = stay;
            let leave: BTreeMap<String, Kept> = leave;
            leave.into_iter().collect()
        };
        let raised: Vec<_> = leaving.iter().map(|(_, flow)| flow.raised()).collect();
        let is_changed = |name: &str| {
            changed
                .iter()
                .any(|flow| flow.settings.name.as_str() == name)
        };
        let gone = leaving.iter().map(|(name, _)| name.clone());
        done.stopped = gone.filter(|name| !is_changed(name)).collect();
        stop_all(leaving.into_iter().map(|(_, flow)| flow)).await;
        for (name, raised) in raised {
            self.inner.cease(&name, raised);
        }
        let old = std::mem::replace(&mut self.inner.running().sources, sources.clone());
        for (name, source) in old {
            if sources
                .get(&name)
                .is_none_or(|new| new.revision != source.revision)
            {
                source.leave().await;
            }
        }
        for flow in changed {
            let name = flow.settings.name.to_string();
            let Some(source) = sources.get(&flow.source) else {
                continue;
            };
            let kept = Kept::start(&self.inner, flow, source).await;
            match &kept.standing {
                Standing::Up(_) => done.started.push(name.clone()),
                Standing::Down(down) => done.down.push((name.clone(), down.reason.clone())),
            }
            self.inner.running().flows.insert(name, kept);
        }
        done
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Living {
    fn of(source: &SourceSetup) -> Self {
        Self {
            revision: source.revision,
            origin: source.origin.clone(),
        }
    }

    async fn leave(self) {
        if let Origin::Server { remote, .. } = self.origin {
            remote.disconnect().await;
        }
    }

    async fn check(&self) -> Result<(), SourceError> {
        match &self.origin {
            Origin::Server { remote, .. } => remote.check().await,
            Origin::Here(path) => Local::new(path).check().await,
        }
    }
}

/// Opens a ledger, for a daemon or for whoever looks into it; one in a file is made if it is not there,
/// with its directory.
///
/// # Errors
/// [`DaemonError::State`]; [`DaemonError::Store`]; [`DaemonError::Absent`] for one that is not built in.
#[cfg_attr(
    not(feature = "postgres"),
    expect(clippy::unused_async, reason = "a database is connected to")
)]
pub async fn open_ledger(ledger: &Ledger) -> Result<Arc<dyn Store>, DaemonError> {
    match ledger {
        Ledger::Sqlite(path) => {
            if let Some(directory) = path.parent() {
                make_directory(directory)?;
            }
            Ok(Arc::new(SqliteStore::open(path)?))
        }
        #[cfg(feature = "postgres")]
        Ledger::Postgres { connect } => {
            let settings = PostgresStoreSettings {
                connect: connect.to_string(),
                ..PostgresStoreSettings::default()
            };
            Ok(Arc::new(PostgresStore::connect(&settings).await?))
        }
        #[cfg(not(feature = "postgres"))]
        Ledger::Postgres { .. } => Err(DaemonError::Absent { what: "PostgreSQL" }),
    }
}

/// Stops flows side by side: each may take its time to end.
async fn stop_all(flows: impl Iterator<Item = Kept>) {
    let mut stopping = tokio::task::JoinSet::new();
    for mut flow in flows {
        flow.let_go();
        if let Standing::Up(handle) = flow.standing {
            stopping.spawn(async move { handle.stop().await });
        }
    }
    stopping.join_all().await;
}

fn make_directory(path: &Path) -> Result<(), DaemonError> {
    let mut make = std::fs::DirBuilder::new();
    make.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
    make.create(path).map_err(|source| DaemonError::State {
        path: path.to_owned(),
        source,
    })
}
