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
//! start: its flow waits for it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ketch_client::RemotePath;
use tokio::task::AbortHandle;

use crate::api;
use crate::config::{FlowSetup, Ledger, Place, Setup, SourceSetup};
use crate::detect::Lister;
use crate::flow::Flow;
use crate::flow::events::Events;
use crate::flow::handle::{FlowError, FlowHandle};
use crate::local::Local;
use crate::push;
use crate::remote::Remote;
use crate::source::Source;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

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
    flows: BTreeMap<String, RunningFlow>,
    api: Option<(SocketAddr, AbortHandle)>,
}

/// A source that flows share.
#[derive(Clone)]
struct Living {
    revision: u64,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Server(Remote),
    Here(PathBuf),
}

#[derive(Clone)]
struct RunningFlow {
    revision: u64,
    source: String,
    handle: FlowHandle,
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
    /// A flow cannot be started.
    #[error("cannot start the flow {flow}")]
    Flow {
        /// Which.
        flow: String,
        /// Why.
        source: FlowError,
    },
    /// The API cannot be offered.
    #[error(transparent)]
    Api(#[from] api::ApiError),
    /// The API's token cannot be one.
    #[error(transparent)]
    Token(#[from] api::BadToken),
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("state", &self.inner.state).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Daemon {
    /// Starts everything that `setup` says.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing goes on running then.
    pub async fn start(setup: Setup) -> Result<Self, DaemonError> {
        make_directory(&setup.state)?;
        let (store, shared_ledger): (Arc<dyn Store>, bool) = match &setup.ledger {
            Ledger::Sqlite(path) => (Arc::new(SqliteStore::open(path)?), false),
            Ledger::Postgres { connect } => {
                (Arc::new(PostgresStore::connect(connect).await?), true)
            }
        };
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
            daemon.apply(setup).await?;
            if let Some(listen) = listen {
                daemon.offer(&listen).await?;
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
    /// stopped and started anew, and so on. State directory, ledger and API stay as they are.
    ///
    /// # Errors
    /// [`DaemonError::Flow`]: a flow that changed could not be started; the others are.
    pub async fn reload(&self, setup: Setup) -> Result<Reloaded, DaemonError> {
        self.apply(setup).await
    }

    /// The flows, in the order of their names.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowHandle> {
        let running = self.inner.running();
        running.flows.values().map(|flow| flow.handle.clone()).collect()
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
        self.inner.running().api.as_ref().map(|(address, _)| *address)
    }

    /// Stops everything: nothing new is begun, what is under way may end within the time that the
    /// file gives it, and what is known is written down.
    pub async fn stop(&self) {
        let _turn = self.inner.turn.lock().await;
        let Running { sources, flows, api } = std::mem::take(&mut *self.inner.running());
        stop_all(flows.into_values()).await;
        if let Some((_, api)) = api {
            api.abort();
        }
        for source in sources.into_values() {
            source.leave().await;
        }
    }

    async fn apply(&self, setup: Setup) -> Result<Reloaded, DaemonError> {
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
            named.map(|source| (source.name.clone(), living(source))).collect()
        };
        let (kept, mut changed): (Vec<_>, Vec<_>) = {
            let running = self.inner.running();
            setup.flows.into_iter().partition(|flow| {
                let known = running.flows.get(flow.settings.name.as_str());
                known.is_some_and(|known| known.revision == flow.revision)
            })
        };
        done.kept = kept.iter().map(|flow| flow.settings.name.to_string()).collect();
        let leaving: Vec<_> = {
            let mut running = self.inner.running();
            let all = std::mem::take(&mut running.flows);
            let (stay, leave) = all.into_iter().partition(|(name, _)| done.kept.contains(name));
            running.flows = stay;
            let leave: BTreeMap<String, RunningFlow> = leave;
            leave.into_iter().collect()
        };
        let is_changed = |name: &str| changed.iter().any(|flow| flow.settings.name.as_str() == name);
        let gone = leaving.iter().map(|(name, _)| name.clone());
        done.stopped = gone.filter(|name| !is_changed(name)).collect();
        stop_all(leaving.into_iter().map(|(_, flow)| flow)).await;
        let old = std::mem::replace(&mut self.inner.running().sources, sources.clone());
        for (name, source) in old {
            if sources.get(&name).is_none_or(|new| new.revision != source.revision) {
                source.leave().await;
            }
        }
        let mut failed = None;
        for flow in changed.drain(..) {
            let name = flow.settings.name.to_string();
            let Some(source) = sources.get(&flow.source) else { continue };
            let entry = (flow.revision, flow.source.clone());
            match self.begin(flow, source).await {
                Ok(handle) => {
                    let (revision, source) = entry;
                    let flow = RunningFlow { revision, source, handle };
                    self.inner.running().flows.insert(name.clone(), flow);
                    done.started.push(name);
                }
                Err(source) => failed = failed.or(Some(DaemonError::Flow { flow: name, source })),
            }
        }
        failed.map_or(Ok(done), Err)
    }

    async fn begin(&self, setup: FlowSetup, source: &Living) -> Result<FlowHandle, FlowError> {
        let mut settings = setup.settings;
        settings.shared = self.inner.shared_ledger;
        let ends: (Arc<dyn Lister>, Arc<dyn Source>, _) = match &source.kind {
            Kind::Server(remote) => {
                let remote = remote.below(&setup.path);
                let pushes = setup.push.then(|| push::over_sftp(remote.clone()));
                (Arc::new(remote.clone()), Arc::new(remote), pushes)
            }
            Kind::Here(root) => {
                let root = below(root, &setup.path);
                let local = Local::new(&root);
                let pushes = setup.push.then(|| push::local(&root));
                let pushes = pushes.and_then(|pushes| match pushes {
                    Ok(pushes) => Some(pushes),
                    Err(error) => {
                        tracing::warn!(flow = %settings.name, %error, "polling alone");
                        None
                    }
                });
                (Arc::new(local.clone()), Arc::new(local), pushes)
            }
        };
        let (lister, source, pushes) = ends;
        let flow = Flow {
            settings,
            detect: setup.detect,
            lister,
            pushes,
            source,
            sinks: setup.sinks,
            store: Arc::clone(&self.inner.store),
            events: self.inner.events.clone(),
        };
        flow.start().await
    }

    #[expect(clippy::disallowed_methods, reason = "drivers own tasks")]
    async fn offer(&self, listen: &crate::config::Api) -> Result<(), DaemonError> {
        let mut settings = api::ApiSettings::new(listen.listen);
        if let Some(token) = &listen.token {
            settings.tokens.push(api::ApiToken::new(token, api::Scope::Write)?);
            settings.danger_anywhere = true; // the file was checked: without a token it may not
        }
        let api = api::Api::bind(settings, Arc::clone(&self.inner) as Arc<dyn api::Flows>).await?;
        let address = api.address();
        let task = tokio::spawn(api.serve()).abort_handle();
        self.inner.running().api = Some((address, task));
        tracing::info!(%address, "the API listens");
        Ok(())
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Living {
    fn of(source: &SourceSetup) -> Self {
        let kind = match &source.place {
            Place::Server { connect, reconnect, root, .. } => {
                Kind::Server(Remote::with((**connect).clone(), root.clone(), reconnect.clone()))
            }
            Place::Here(path) => Kind::Here(path.clone()),
        };
        Self { revision: source.revision, kind }
    }

    async fn leave(self) {
        if let Kind::Server(remote) = self.kind {
            remote.disconnect().await;
        }
    }

    async fn check(&self) -> Result<(), crate::source::SourceError> {
        match &self.kind {
            Kind::Server(remote) => remote.check().await,
            Kind::Here(path) => Local::new(path).check().await,
        }
    }
}

impl api::Flows for Inner {
    fn list(&self) -> Vec<Arc<dyn api::FlowControl>> {
        let running = self.running();
        let control = |flow: &RunningFlow| {
            let control = api::handle::Control::new(flow.handle.clone(), flow.source.clone());
            Arc::new(control) as Arc<dyn api::FlowControl>
        };
        running.flows.values().map(control).collect()
    }

    fn validate<'a>(&'a self, name: &'a str) -> api::Answer<'a, ()> {
        Box::pin(async move {
            let source = self.running().sources.get(name).cloned();
            let source = source.ok_or_else(|| api::Refusal::NotFound {
                what: format!("source {name}"),
            })?;
            let checked = source.check().await;
            checked.map_err(|error| api::Refusal::Unavailable(crate::flow::events::reason(&error)))
        })
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn ready(&self) -> api::Answer<'_, ()> {
        Box::pin(async move {
            let broken = self.running().flows.values().find_map(|flow| {
                flow.handle.raised().into_iter().find(|what| what.starts_with("ledger"))
            });
            match broken {
                None => Ok(()),
                Some(what) => Err(api::Refusal::Unavailable(format!("{what} cannot be used"))),
            }
        })
    }
}

/// Stops flows side by side: each may take its time to end.
async fn stop_all(flows: impl Iterator<Item = RunningFlow>) {
    let mut stopping = tokio::task::JoinSet::new();
    for flow in flows {
        stopping.spawn(async move { flow.handle.stop().await });
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

fn below(root: &Path, path: &RemotePath) -> PathBuf {
    match crate::local::local_path(path) {
        Some(path) => root.join(path),
        None => root.to_owned(),
    }
}

/// How long a listener that stops is waited for beyond the time of its file.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
