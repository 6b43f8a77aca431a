//! The other half of a flow: looks at the source when it is due, and tells the ledger what it found.
//!
//! The ledger first, what is remembered after: a [`Detector`] takes a change for known only when the
//! ledger has it, so whatever happens in between is found again. Where several processes share the
//! ledger, one of them has the lease of the flow's scans, and the others wait for it to run out.
#![expect(clippy::disallowed_methods, reason = "drivers own time")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ketch_client::RemotePath;
use tokio::sync::watch;
use tokio::time::sleep;

use super::events::{FlowEventKind, reason};
use super::item::{Change, ItemKind};
use super::shared::{Shared, now};
use super::work::outage_pause;
use crate::detect::{Detector, ScanKind, ScanReport, Seen};
use crate::store::{AT_SOURCE, BATCH_MAX, Delivery, Record, Row, ScanStart, State, StoreError};

/// What is known is written to its file so long after the start, while things change: a process that
/// is killed again and again finds its way all the same.
const SAVE_FIRST: Duration = Duration::from_secs(1);
/// And in the end no more often than this.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Of the time between, writing takes no more than one in so many.
const SAVE_SHARE: u32 = 20;
/// How often it is looked whether a paused flow goes on, or another process gave the lease back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The key of the value that says when all of the source was looked at last, in seconds since 1970, where
/// there is a schedule.
pub(super) const LOOKED: &str = "looked";
/// What is raised when nearly all that is known is missing at once.
const EMPTIED: &str = "source suddenly empty";
/// The key of the value that says that the first scan of a flow is over.
pub(crate) const FIRST_DONE: &str = "first-scan";
/// Its value after a repair of the ledger: the next scan is a first one, and what it finds beyond the
/// ledger is known, whatever the flow's settings say.
pub(crate) const FIRST_BASELINE: &str = "baseline";

/// Detects until `stop` says so.
pub(super) async fn run(
    shared: Arc<Shared>,
    detector: Detector,
    first_done: bool,
    scanned: watch::Sender<u64>,
    mut stop: watch::Receiver<bool>,
) {
    let mut detection = Detection {
        lease: format!("scan:{}", shared.settings.name),
        shared,
        detector,
        first_done,
        scanned,
        since: 0,
        newest: 0,
        forgotten: HashSet::new(),
        is_leader: false,
        unsaved: false,
        saved: Instant::now(),
        save_after: SAVE_FIRST,
        failures: 0,
        reconciled: false,
        doubted: 0,
        looked: None,
        looked_noted: None,
    };
    let stopped = async move { while !*stop.borrow() && stop.changed().await.is_ok() {} };
    tokio::select! {
        () = stopped => {}
        () = detection.until_stopped() => {}
    }
    detection.end().await;
}

struct Detection {
    shared: Arc<Shared>,
    detector: Detector,
    lease: String,
    first_done: bool,
    /// The number of the last scan of everything that came to its end, with all it found recorded.
    scanned: watch::Sender<u64>,
    /// The scan up to which what is remembered is on disk: what was taken away since is forgotten
    /// again after a restart.
    since: u64,
    newest: u64,
    /// Paths that were forgotten already and not recorded since. The ledger names them until what is
    /// remembered is on disk; forgotten at every scan, what is there now would never settle.
    forgotten: HashSet<RemotePath>,
    is_leader: bool,
    unsaved: bool,
    saved: Instant,
    save_after: Duration,
    failures: u32,
    /// Whether the ledger's rows were compared with what is there, since this process watches.
    reconciled: bool,
    /// How often comparing them lacked too much to be believed.
    doubted: u32,
    /// The last look at everything that came to its end, where there is a schedule: in seconds since
    /// 1970.
    looked: Option<u64>,
    /// The last one that the ledger has of this process.
    looked_noted: Option<u64>,
}

impl Detection {
    async fn until_stopped(&mut self) {
        loop {
            self.detector.wait().await;
            while self.shared.paused.load(Relaxed) {
                sleep(LOOK_AGAIN).await;
            }
            if self.shared.settings.shared && !self.leads().await {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            match self.scan().await {
                Ok(()) => {
                    self.failures = 0;
                    self.shared.cease("ledger of scans");
                }
                Err(StoreError::Lost) => self.is_leader = false,
                Err(error) => {
                    self.shared.raise("ledger of scans", reason(&error));
                    self.failures = self.failures.saturating_add(1);
                    sleep(outage_pause(self.failures, self.newest)).await;
                }
            }
        }
    }

    /// Takes or keeps the lease.
    async fn leads(&mut self) -> bool {
        let Shared {
            store,
            owner,
            settings,
            ..
        } = &*self.shared;
        let leads = store.lease(&self.lease, owner, settings.lease).await;
        let leads = leads.unwrap_or_else(|error| {
            self.shared.raise("ledger of scans", reason(&error));
            false
        });
        if leads && !self.is_leader {
            // Another may have led meanwhile: what is remembered here may be old.
            self.detector.forget_all();
            let flow = &self.shared.settings.name;
            match store.value(flow, FIRST_DONE).await {
                Ok(Some(said)) if said != FIRST_BASELINE => {
                    self.first_done = true;
                    self.detector.first_is_over();
                }
                Ok(_) => {}
                Err(error) => {
                    self.shared.raise("ledger of scans", reason(&error));
                    return false;
                }
            }
            self.since = 0;
            self.forgotten.clear();
            self.reconciled = false;
            self.doubted = 0;
        }
        self.is_leader = leads;
        leads
    }

    async fn scan(&mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let flow = &shared.settings.name;
        let ScanStart { scan, forget } = shared.store.begin_scan(flow, self.since).await?;
        self.newest = scan;
        self.unsaved |= !forget.is_empty();
        let named: HashSet<RemotePath> = forget.into_iter().collect();
        let forget: Vec<RemotePath> = named.difference(&self.forgotten).cloned().collect();
        self.forgotten = named;
        let report = self.look(&forget).await?;
        let items = self.record(scan).await?;
        self.told(&report, items);
        if !self.first_done && self.detector.is_first_done() {
            shared
                .store
                .set_value(flow, FIRST_DONE, Some("done"))
                .await?;
            self.first_done = true;
        }
        if report.complete && report.kind == ScanKind::Full {
            if !self.reconciled && !self.is_emptied().await? {
                self.reconcile(scan).await?;
                self.reconciled = true;
            }
            self.scanned.send_replace(self.detector.handle().begun());
        }
        if report.complete && report.kind != ScanKind::Part {
            self.looked = self.detector.looked();
        }
        self.note_look().await?;
        if !self.unsaved {
            self.since = self.newest;
        } else if self.saved.elapsed() >= self.save_after {
            self.save();
        }
        Ok(())
    }

    /// Where there is a schedule, the ledger keeps when all was looked at last: what comes while nobody
    /// watches can be made up for. A look is over when all that it found has settled.
    async fn note_look(&mut self) -> Result<(), StoreError> {
        if self.looked == self.looked_noted || self.detector.settling() > 0 {
            return Ok(());
        }
        let flow = &self.shared.settings.name;
        let text = self.looked.map(|looked| looked.to_string());
        let store = &self.shared.store;
        store.set_value(flow, LOOKED, text.as_deref()).await?;
        self.looked_noted = self.looked;
        Ok(())
    }

    /// Scans, and keeps the lease meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if the lease was another's meanwhile, or may have been: what was listed is
    /// older than what that one has recorded.
    async fn look(&mut self, forget: &[RemotePath]) -> Result<ScanReport, StoreError> {
        let shared = Arc::clone(&self.shared);
        let lease = shared.settings.lease;
        let renewing = async {
            let mut renewed = now();
            loop {
                sleep(lease / 3).await;
                let leads = shared.store.lease(&self.lease, &shared.owner, lease).await;
                match leads {
                    Ok(true) => renewed = now(),
                    Ok(false) => return,
                    Err(_) if renewed.elapsed() >= lease => return,
                    Err(_) => {}
                }
            }
        };
        let scanning = self.detector.scan(forget);
        if !shared.settings.shared {
            return Ok(scanning.await);
        }
        tokio::select! {
            report = scanning => Ok(report),
            () = renewing => Err(StoreError::Lost),
        }
    }

    /// Everything that settled goes into the ledger; answers how many items that made.
    async fn record(&mut self, scan: u64) -> Result<u64, StoreError> {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let lease = settings
            .shared
            .then_some((self.lease.as_str(), shared.owner.as_str()));
        let mut items = 0;
        loop {
            let changes = self.detector.take_changes(BATCH_MAX);
            if changes.is_empty() {
                return Ok(items);
            }
            let record = Record {
                scan,
                lease,
                changes: &changes,
                removals: settings.removals,
                renames: settings.renames,
            };
            let recorded = shared.store.record(&settings.name, record).await?;
            self.detector.recorded(&changes);
            for change in &changes {
                self.forgotten.remove(change.path());
            }
            self.unsaved = true;
            items += recorded.items;
            shared.counters.recorded.fetch_add(recorded.items, Relaxed);
            if recorded.items > 0 {
                shared.work.notify_one();
            }
        }
    }

    /// Whether so much of what the ledger has is gone that it is doubted for now. What is known is
    /// guarded by detection itself; this is for what went while nobody watched.
    async fn is_emptied(&mut self) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let guard = self.detector.guard();
        let (mut all, mut missing) = (0_u64, 0_u64);
        let mut after = None;
        loop {
            let rows = shared
                .store
                .rows(&shared.settings.name, None, after.as_ref(), BATCH_MAX)
                .await?;
            let Some(last) = rows.last() else {
                break;
            };
            after = Some(last.item.path.clone());
            let paths = rows.into_iter().filter(is_there).map(|row| row.item.path);
            let paths: Vec<_> = paths.collect();
            all += paths.len() as u64;
            missing += self.detector.gone(paths).await.len() as u64;
            if missing == 0 && after.is_some() && all >= guard.names && guard.percent >= 100 {
                break; // something is there
            }
        }
        if self.doubted < guard.polls && guard.doubts(missing, all) {
            self.doubted += 1;
            let lack = format!("{missing} of {all} files that the ledger has are missing at once");
            shared.raise(EMPTIED, format!("{lack}: they count as gone if that lasts"));
            return Ok(true);
        }
        if std::mem::take(&mut self.doubted) > 0 {
            shared.cease(EMPTIED);
        }
        Ok(false)
    }

    /// Finds what the ledger has and the source has not any more: it went while nobody watched, or
    /// after what is known was written to its file. Once in a process, as it reads all rows.
    async fn reconcile(&mut self, scan: u64) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let settings = &shared.settings;
        let lease = settings
            .shared
            .then_some((self.lease.as_str(), shared.owner.as_str()));
        let mut after = None;
        loop {
            let rows = shared
                .store
                .rows(&settings.name, None, after.as_ref(), BATCH_MAX)
                .await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = Some(last.item.path.clone());
            let rows = rows.into_iter().filter(is_there);
            // The source itself is asked: a listing may leave names out, and what has yet to settle
            // is known to nobody.
            let gone = self.detector.gone(rows.map(|row| row.item.path).collect());
            let changes: Vec<_> = gone
                .await
                .into_iter()
                .map(|path| Change::Removed { path })
                .collect();
            if changes.is_empty() {
                continue;
            }
            let record = Record {
                scan,
                lease,
                changes: &changes,
                removals: settings.removals,
                renames: settings.renames,
            };
            let recorded = shared.store.record(&settings.name, record).await?;
            if recorded.items > 0 {
                shared.work.notify_one();
            }
        }
    }

    fn told(&mut self, report: &ScanReport, items: u64) {
        let shared = &self.shared;
        while let Some(seen) = self.detector.poll_event() {
            match seen {
                Seen::ErrorRaised { directory, error } => {
                    shared.raise(&format!("directory {directory}"), reason(&error));
                }
                Seen::ErrorCeased { directory } => shared.cease(&format!("directory {directory}")),
                Seen::EmptiedRaised { missing, known } => shared.raise(
                    EMPTIED,
                    format!("{missing} of {known} known names are missing at once: they count as gone if that lasts"),
                ),
                Seen::EmptiedCeased => shared.cease(EMPTIED),
                _ => {}
            }
        }
        match &report.lost {
            Some(error) => shared.raise("source", reason(error)),
            None if report.complete => shared.cease("source"),
            None => {}
        }
        let counters = &shared.counters;
        counters.scans.fetch_add(1, Relaxed);
        counters.entries.fetch_add(report.entries, Relaxed);
        let micros = u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX);
        counters.scan_micros.fetch_add(micros, Relaxed);
        if items > 0 || report.kind == ScanKind::Full {
            shared.tell(FlowEventKind::Scanned {
                items,
                took: micros / 1_000,
            });
        }
    }

    /// Writes what is known to its file. It is an acceleration: without it everything is looked up.
    fn save(&mut self) {
        let path = &self.shared.settings.snapshot;
        let began = Instant::now();
        if let Some(directory) = path.parent() {
            // What is wrong with it is told when the file cannot be written.
            let _ = std::fs::create_dir_all(directory);
        }
        match self.detector.save(path, self.shared.store.id()) {
            Ok(()) => {
                self.unsaved = false;
                self.since = self.newest;
                self.shared.cease("snapshot");
            }
            Err(error) => self.shared.raise("snapshot", reason(&error)),
        }
        self.saved = Instant::now();
        self.save_after = next_save(self.save_after, self.saved - began);
    }

    async fn end(&mut self) {
        if self.unsaved && (self.is_leader || !self.shared.settings.shared) {
            self.save();
        }
        if self.is_leader {
            let _ = self
                .shared
                .store
                .release(&self.lease, &self.shared.owner)
                .await;
        }
    }
}

/// Whether a row says that its file is there.
fn is_there(row: &Row) -> bool {
    let is_aside = |d: &Delivery| {
        d.sink == AT_SOURCE && !d.done && d.placement.name != row.item.path.as_bytes()
    };
    row.state != State::Acted
        && row.item.kind != ItemKind::Removed
        && !row.deliveries.iter().any(is_aside)
}

/// How long until the next time, after a pause of `before` and a write that took `took`.
fn next_save(before: Duration, took: Duration) -> Duration {
    let pause = (before * 2).min(SAVE_EVERY);
    pause.max(took.saturating_mul(SAVE_SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_saved_soon_and_then_less_often() {
        let quick = Duration::from_millis(10);
        let mut pauses = vec![SAVE_FIRST];
        for _ in 0..6 {
            pauses.push(next_save(*pauses.last().expect("one"), quick));
        }
        let seconds: Vec<_> = pauses.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        let slow = next_save(SAVE_FIRST, Duration::from_secs(3));
        assert_eq!(slow, Duration::from_secs(60), "ten million files");
    }
}
