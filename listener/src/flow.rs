//! Flows: from a source through rules to sinks, each version of a file once.
//!
//! ```text
//!   detection ──Change──> ledger ──Claim──> fetch ──Content──> sinks ──> commit ──> after-action
//! ```
//!
//! | part | file |
//! | --- | --- |
//! | what is carried | [`item`] |
//! | all numbers and rules | [`settings`] |
//! | looks at the source, tells the ledger | `detection` |
//! | claims, renews, tells the ledger how it ended | `engine` |
//! | whether a claim still holds | `hold` |
//! | the steps of one item | `work` |
//! | where content lies on its way | `spool` |
//! | what people get to know | [`events`] |
//! | what they can ask for | [`handle`] |
//!
//! The two halves, detection and engine, meet in the [`Store`] alone. Feature `flows`.

mod detection;
mod engine;
pub mod events;
pub mod handle;
mod hold;
pub mod item;
mod pace;
pub(crate) mod retry;
pub mod settings;
pub(crate) mod shared;
mod spool;
mod work;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::sync::watch;

use crate::detect::{DetectConfig, Detector, First, Lister, Versions};
use crate::push::Pushes;
use crate::sink::Sink;
use crate::source::Source;
use crate::store::Store;
pub(crate) use detection::{FIRST_BASELINE, FIRST_DONE};
use events::Events;
pub(crate) use handle::PAUSED;
use handle::{FlowError, FlowHandle};
use settings::FlowSettings;
use shared::{Ends, Shared};
use spool::Spool;

/// Everything that a flow is made of; [`Flow::start`] begins.
pub struct Flow {
    /// How it works.
    pub settings: FlowSettings,
    /// How its source is watched. [`DetectConfig::first`] counts for the first scan of all alone.
    pub detect: DetectConfig,
    /// Lists the source.
    pub lister: Arc<dyn Lister>,
    /// What the source tells by itself, if it does.
    pub pushes: Option<Pushes>,
    /// Where files are fetched from.
    pub source: Arc<dyn Source>,
    /// Where they go, in this order.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// The ledger, shared by all flows of a process.
    pub store: Arc<dyn Store>,
    /// Where it tells what happens, shared by all flows of a process.
    pub events: Events,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Flow {
    /// Starts the two tasks of the flow.
    ///
    /// # Errors
    /// [`FlowError`] if the ledger or the spool directory cannot be used, or if a sink cannot be where
    /// several processes share the ledger.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[expect(clippy::disallowed_methods, reason = "drivers own tasks")]
    pub async fn start(self) -> Result<FlowHandle, FlowError> {
        let name = self.settings.name.clone();
        if self.settings.shared
            && let Some((sink, why)) = alone(&self.sinks)
        {
            return Err(FlowError::Alone { sink, why });
        }
        let first = self.store.value(&name, FIRST_DONE).await?;
        let first_done = first.as_deref().is_some_and(|said| said != FIRST_BASELINE);
        let paused = self.store.value(&name, PAUSED).await?.is_some();
        let mut config = self.detect;
        config.events = true;
        if first_done {
            config.first = First::News;
        } else if first.is_some() {
            config.first = First::Baseline;
        }
        let snapshot = known(&self.settings, &*self.store);
        let versions = config.versions;
        let is_scheduled = config.schedule.is_some();
        let mut detector = Detector::new(self.lister, config, snapshot);
        if versions == Versions::Hash {
            detector.hash_with(Arc::clone(&self.source));
        }
        if is_scheduled {
            let looked = self.store.value(&name, detection::LOOKED).await?;
            if let Some(looked) = looked.and_then(|looked| looked.parse().ok()) {
                detector.looked_before(looked);
            }
        }
        if let Some(pushes) = self.pushes {
            detector.listen(pushes);
        }
        let chance = RandomState::new().hash_one(std::process::id());
        let owner = format!("{}-{chance:016x}", std::process::id());
        let spool = opened(&self.settings).await?;
        let mut settings = self.settings;
        settings.by_content |= versions == Versions::Hash;
        let ends = Ends {
            source: self.source,
            sinks: self.sinks,
            store: self.store,
            events: self.events,
        };
        let shared = Shared::new(settings, ends, spool, owner);
        shared
            .paused
            .store(paused, std::sync::atomic::Ordering::Relaxed);
        let shared = Arc::new(shared);
        let (stop, stopped) = watch::channel(false);
        let stop = Arc::new(stop);
        // Without handles the flow goes on: only who asks for it stops it.
        let kept = Arc::clone(&stop);
        let engine = engine::run(Arc::clone(&shared), stopped.clone());
        let engine = async move {
            engine.await;
            drop(kept);
        };
        let (scanned, ends) = watch::channel(0);
        let handle = detector.handle();
        let detection = detection::run(Arc::clone(&shared), detector, first_done, scanned, stopped);
        let tasks = vec![
            tokio::spawn(watched(Arc::clone(&shared), "engine", engine)),
            tokio::spawn(watched(Arc::clone(&shared), "detection", detection)),
        ];
        Ok(FlowHandle::new(shared, handle, ends, stop, tasks))
    }
}

/// Opens the spool where that may block.
async fn opened(settings: &FlowSettings) -> Result<Spool, FlowError> {
    let (spool, beside) = (settings.spool.clone(), settings.beside.clone());
    let opened = tokio::task::spawn_blocking(move || Spool::open(spool, beside)).await;
    let opened = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    opened.map_err(|source| FlowError::Spool {
        path: settings.spool.clone(),
        source,
    })
}

/// The first sink that bears no other process beside it, and why.
fn alone(sinks: &[Arc<dyn Sink>]) -> Option<(String, &'static str)> {
    let alone = |sink: &Arc<dyn Sink>| Some((sink.name().to_owned(), sink.alone()?));
    sinks.iter().find_map(alone)
}

/// Runs one half of a flow, and tells if it ends by a fault of its own: nobody awaits it before the
/// flow is stopped, and half a flow looks like a quiet one.
#[expect(clippy::disallowed_methods, reason = "drivers own tasks")]
async fn watched(
    shared: Arc<Shared>,
    half: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    if let Err(error) = tokio::spawn(work).await {
        shared.raise(half, format!("it ended by a fault of its own: {error}"));
        shared.fault.send_replace(Some(half));
    }
}

/// What an earlier run wrote down, if it is whole and of this ledger.
fn known(settings: &FlowSettings, store: &dyn Store) -> Option<crate::tree::Snapshot> {
    match crate::tree::Snapshot::load(&settings.snapshot, store.id()) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let path = settings.snapshot.display();
            tracing::warn!(flow = %settings.name, %path, %error, "what was known is learnt anew");
            None
        }
    }
}
