//! A running flow, as whoever started it sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ketch_client::{Pattern, RemotePath};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::events::{Events, FlowEventKind};
use super::item::FlowName;
pub use super::shared::{Counters, SinkCounters};
use super::shared::{Shared, millis};
use crate::detect;
use crate::detect::Pace;
use crate::schedule::Schedule;
use crate::source::SourceError;
use crate::store::{BATCH_MAX, Counts, Row, State, StoreError};

/// Files that one request may name, at most.
pub const FETCHED_MAX: usize = 100_000;
/// How often the ledger is asked about what a request waits for, beside the events.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// What is said of a flow with [`FlowHandle::has_fault`].
pub(crate) const FAULT: &str = "half of it ended by a fault of its own";
/// The key of the value that says that a flow is paused.
pub(crate) const PAUSED: &str = "paused";

/// A running flow. Clones are the same flow; it goes on when all are dropped, until
/// [`FlowHandle::stop`].
#[derive(Clone, Debug)]
pub struct FlowHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    detect: detect::Handle,
    /// The number of the last scan of everything that is over, with all it found in the ledger.
    scanned: watch::Receiver<u64>,
    /// The flow's tasks keep another one, so that it goes on without handles.
    stop: Arc<watch::Sender<bool>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Which files a request is about.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Patterns, of which a file's name or its path below the source has to match one; none: all.
    pub names: Vec<Pattern>,
    /// Only files changed at or after this, by the server's clock, in seconds since 1970.
    pub modified_from: Option<u32>,
    /// Only files changed before this.
    pub modified_before: Option<u32>,
    /// Whether files that were delivered already are delivered once more.
    pub again: bool,
}

/// What came of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fetched {
    /// Files that all sinks have, by path.
    pub copied: Vec<RemotePath>,
    /// Files that were given up, with the reason.
    pub failed: Vec<(RemotePath, String)>,
    /// Files that were not done when the time was over; they go on.
    pub waiting: Vec<RemotePath>,
}

/// Why a flow did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The ledger did not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source did not.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source was not looked at in time.
    #[error("the source was not looked at in time; its last failure is an event")]
    NotScanned,
    /// More than [`FETCHED_MAX`] files match.
    #[error("more than {FETCHED_MAX} files match: ask for less at a time")]
    TooMany,
    /// The flow has been stopped.
    #[error("the flow has been stopped")]
    Stopped,
    /// Several processes share the ledger, and a sink bears one alone.
    #[error("the sink {sink} cannot be used where several processes share a ledger: {why}")]
    Alone {
        /// The sink's name.
        sink: String,
        /// Why.
        why: &'static str,
    },
    /// The directory for content on its way cannot be used.
    #[error("cannot use the spool directory {}", .path.display())]
    Spool {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl FlowHandle {
    pub(super) fn new(
        shared: Arc<Shared>,
        detect: detect::Handle,
        scanned: watch::Receiver<u64>,
        stop: Arc<watch::Sender<bool>>,
        tasks: Vec<JoinHandle<()>>,
    ) -> Self {
        let tasks = Mutex::new(tasks);
        Self {
            inner: Arc::new(Inner {
                shared,
                detect,
                scanned,
                stop,
                tasks,
            }),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &FlowName {
        &self.inner.shared.settings.name
    }

    /// What it did since it started.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.inner.shared.counters
    }

    /// Its sinks by name, with what each was asked since it started.
    pub fn sinks(&self) -> impl Iterator<Item = (&str, &SinkCounters)> {
        let shared = &self.inner.shared;
        let names = shared.sinks.iter().map(|sink| sink.name());
        names.zip(&shared.sink_counters)
    }

    /// When the source is looked at.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.inner.detect.pace()
    }

    /// Its schedule, whether or not it holds now.
    #[must_use]
    pub fn schedule(&self) -> Option<&Schedule> {
        self.inner.detect.schedule()
    }

    /// When the schedule is due next, in seconds since 1970, if it holds now.
    #[must_use]
    pub fn next_look(&self) -> Option<u64> {
        self.inner.detect.next()
    }

    /// Where it tells what happens.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.inner.shared.events
    }

    /// What fails at the moment: `source`, `ledger`, `sink …`, `directory …`.
    #[must_use]
    pub fn raised(&self) -> Vec<String> {
        self.inner.shared.raised()
    }

    /// How many files are in which state.
    ///
    /// # Errors
    /// [`FlowError::Store`].
    pub async fn counts(&self) -> Result<Counts, FlowError> {
        let shared = &self.inner.shared;
        Ok(shared.store.counts(self.name()).await?)
    }

    /// For how long the oldest item that is not done has been known, dead ones left out; `None` if all
    /// are done.
    ///
    /// # Errors
    /// [`FlowError::Store`].
    pub async fn oldest_pending(&self) -> Result<Option<Duration>, FlowError> {
        let oldest = self.inner.shared.store.oldest(self.name()).await?;
        Ok(oldest.map(since))
    }

    /// What the ledger knows of one file.
    ///
    /// # Errors
    /// [`FlowError::Store`].
    pub async fn file(&self, path: &RemotePath) -> Result<Option<Row>, FlowError> {
        let paths = std::slice::from_ref(path);
        let rows = self.inner.shared.store.lookup(self.name(), paths).await?;
        Ok(rows.into_iter().next().flatten())
    }

    /// A page of files in the order of their paths: those behind `after`, at most `max`.
    ///
    /// # Errors
    /// [`FlowError::Store`].
    pub async fn files(
        &self,
        state: Option<State>,
        after: Option<&RemotePath>,
        max: usize,
    ) -> Result<Vec<Row>, FlowError> {
        let store = &self.inner.shared.store;
        Ok(store
            .rows(self.name(), state, after, max.min(BATCH_MAX))
            .await?)
    }

    /// Tries items again that were given up: one, or all. Answers how many.
    ///
    /// # Errors
    /// [`FlowError::Store`].
    pub async fn replay(&self, path: Option<&RemotePath>) -> Result<u64, FlowError> {
        let shared = &self.inner.shared;
        let replayed = shared.store.replay(self.name(), path).await?;
        shared.work.notify_one();
        Ok(replayed)
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.inner.shared.paused.load(Relaxed)
    }

    /// Stops scanning and claiming, until [`FlowHandle::resume`], also after a restart. What is under
    /// way ends.
    ///
    /// # Errors
    /// [`FlowError::Store`]: it is paused, and will not be after a restart.
    pub async fn pause(&self) -> Result<(), FlowError> {
        let shared = &self.inner.shared;
        if !shared.paused.swap(true, Relaxed) {
            shared.tell(FlowEventKind::Paused);
        }
        Ok(shared
            .store
            .set_value(self.name(), PAUSED, Some("yes"))
            .await?)
    }

    /// Goes on.
    ///
    /// # Errors
    /// [`FlowError::Store`]: it goes on, and will be paused after a restart.
    pub async fn resume(&self) -> Result<(), FlowError> {
        let shared = &self.inner.shared;
        if shared.paused.swap(false, Relaxed) {
            shared.tell(FlowEventKind::Resumed);
        }
        shared.work.notify_one();
        Ok(shared.store.set_value(self.name(), PAUSED, None).await?)
    }

    /// Files that were seen and have yet to settle, as of the last look.
    #[must_use]
    pub fn settling(&self) -> usize {
        self.inner.detect.settling()
    }

    /// When the source is looked at from now on, which begins with a look.
    pub fn set_pace(&self, pace: Pace) {
        self.inner.detect.set_pace(pace);
    }

    /// Whether the source can be reached and listed.
    ///
    /// # Errors
    /// [`FlowError::Source`]: why not.
    pub async fn validate(&self) -> Result<(), FlowError> {
        Ok(self.inner.shared.source.check().await?)
    }

    /// Looks at the whole source now, and waits until what that found is in the ledger.
    ///
    /// # Errors
    /// [`FlowError::NotScanned`] if that did not come about before `until`.
    pub async fn scan_now(&self, until: Instant) -> Result<(), FlowError> {
        let mut scanned = self.inner.scanned.clone();
        // The one under way, if any, may have passed by what is new.
        let passed_by = self.inner.detect.begun();
        self.inner.detect.apply_now();
        let is_over = scanned.wait_for(|scan| *scan > passed_by);
        match timeout_at(until, is_over).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(FlowError::Stopped),
            Err(_) => Err(FlowError::NotScanned),
        }
    }

    /// Looks at the whole source now, and waits until everything that is due has been delivered or
    /// has failed once; answers how many items are left.
    ///
    /// # Errors
    /// [`FlowError`]; [`FlowError::NotScanned`] if the scan was not over before `until`.
    pub async fn apply_now(&self, until: Instant) -> Result<u64, FlowError> {
        self.scan_now(until).await?;
        loop {
            let counts = self.counts().await?;
            let left = counts.pending + counts.claimed;
            if left == 0 || Instant::now() >= until || *self.inner.stop.borrow() {
                return Ok(left);
            }
            let mut events = self.events().subscribe();
            let soon = until.min(Instant::now() + ASK_AGAIN);
            let _ = timeout_at(soon, events.recv()).await;
        }
    }

    /// Has all files of the source that match `query` delivered, and answers when that is done, or
    /// with what is done by `until`.
    ///
    /// Files that the first scan took for known, and those that were given up, are delivered as well.
    ///
    /// # Errors
    /// [`FlowError`].
    pub async fn fetch(&self, query: &Query, until: Instant) -> Result<Fetched, FlowError> {
        self.scan_now(until).await?;
        let mut waiting = BTreeMap::new();
        let mut fetched = Fetched::default();
        let mut after = None;
        loop {
            let rows = self.files(None, after.as_ref(), BATCH_MAX).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.item.path.clone());
            for row in rows.into_iter().filter(|row| query.matches(row)) {
                if waiting.len() + fetched.copied.len() >= FETCHED_MAX {
                    return Err(FlowError::TooMany);
                }
                let path = row.item.path;
                match row.state {
                    State::Acted => {}
                    State::Done if !query.again => fetched.copied.push(path),
                    State::Done | State::Known | State::Dead => {
                        self.replay(Some(&path)).await?;
                        waiting.insert(path, ());
                    }
                    _ => {
                        waiting.insert(path, ());
                    }
                }
            }
        }
        self.wait_for(&mut waiting, &mut fetched, until).await?;
        fetched.waiting = waiting.into_keys().collect();
        fetched.copied.sort();
        Ok(fetched)
    }

    async fn wait_for(
        &self,
        waiting: &mut BTreeMap<RemotePath, ()>,
        fetched: &mut Fetched,
        until: Instant,
    ) -> Result<(), FlowError> {
        let mut events = self.events().subscribe();
        let mut ask = true;
        while !waiting.is_empty() && Instant::now() < until {
            if ask {
                self.settle(waiting, fetched).await?;
                ask = false;
                continue;
            }
            let soon = until.min(Instant::now() + ASK_AGAIN);
            match timeout_at(soon, events.recv()).await {
                Ok(Ok(event)) if event.flow == *self.name() => match &event.kind {
                    FlowEventKind::Delivered(item) if waiting.remove(&item.path).is_some() => {
                        fetched.copied.push(item.path.clone());
                    }
                    FlowEventKind::Dead { item, reason }
                        if waiting.remove(&item.path).is_some() =>
                    {
                        fetched.failed.push((item.path.clone(), reason.clone()));
                    }
                    _ => {}
                },
                Ok(Ok(_)) => {}
                // Missed some, or another process does the work: the ledger knows.
                Ok(Err(_)) | Err(_) => ask = true,
            }
        }
        Ok(())
    }

    /// Asks the ledger how far what is waited for has come.
    async fn settle(
        &self,
        waiting: &mut BTreeMap<RemotePath, ()>,
        fetched: &mut Fetched,
    ) -> Result<(), FlowError> {
        let paths: Vec<_> = waiting.keys().cloned().collect();
        for batch in paths.chunks(BATCH_MAX) {
            let rows = self.inner.shared.store.lookup(self.name(), batch).await?;
            for (path, row) in batch.iter().zip(rows) {
                match row.map(|row| (row.state, row.reason)) {
                    Some((State::Done | State::Acted, _)) => fetched.copied.push(path.clone()),
                    Some((State::Dead, reason)) => {
                        let reason = reason.unwrap_or_default();
                        fetched.failed.push((path.clone(), reason));
                    }
                    Some(_) => continue,
                    None => {
                        let reason = "it is gone".to_owned();
                        fetched.failed.push((path.clone(), reason));
                    }
                }
                waiting.remove(path);
            }
        }
        Ok(())
    }

    /// Waits until half of the flow ends by a fault of its own, and tells which: `engine` or
    /// `detection`. The other half goes on, so the flow is to be stopped and started anew. `None` once
    /// the flow is stopped.
    pub async fn fault(&self) -> Option<&'static str> {
        let mut fault = self.inner.shared.fault.subscribe();
        let mut stopped = self.inner.stop.subscribe();
        tokio::select! {
            biased;
            Ok(fault) = fault.wait_for(Option::is_some) => *fault,
            _ = stopped.wait_for(|stopped| *stopped) => None,
        }
    }

    /// Whether half of it ended by a fault of its own.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.inner.shared.fault.borrow().is_some()
    }

    /// Stops the flow: nothing new is begun, and what is under way may end within the time of the
    /// settings. Returns when all is over. If the future is dropped, the flow ends all the same, and
    /// the next call waits for it.
    pub async fn stop(&self) {
        self.inner.stop.send_replace(true);
        let mut tasks = self.inner.tasks.lock().await;
        while let Some(task) = tasks.last_mut() {
            if let Err(error) = task.await {
                tracing::error!(flow = %self.name(), %error, "a task of the flow failed");
            }
            tasks.pop();
        }
    }
}

/// How long ago a moment was, in milliseconds since 1970.
pub(crate) fn since(recorded: u64) -> Duration {
    Duration::from_millis(millis().saturating_sub(recorded))
}

impl Query {
    fn matches(&self, row: &Row) -> bool {
        let item = &row.item;
        let named = self.names.is_empty()
            || self.names.iter().any(|pattern| {
                pattern.matches(item.path.as_bytes())
                    || item
                        .path
                        .file_name()
                        .is_some_and(|name| pattern.matches(name))
            });
        let mtime = item.facts.mtime;
        let from = self
            .modified_from
            .is_none_or(|from| mtime.is_some_and(|at| at >= from));
        let before = self
            .modified_before
            .is_none_or(|end| mtime.is_some_and(|at| at < end));
        item.has_content() && named && from && before
    }
}
