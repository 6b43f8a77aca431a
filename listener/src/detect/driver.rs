//! The driver of [`crate::tree`]: the clock, the waiting and the calls to a [`Lister`].
#![expect(clippy::disallowed_methods, reason = "drivers own time")]

use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use ketch_client::{Kind, RemotePath};
use tokio::task::JoinSet;

use super::versions::Recent;
use super::{
    DetectConfig, Guard, Handle, LOOKS_MAX, ListError, Lister, Pace, Plan, ScanKind, ScanReport,
    Seen, Wake,
};
use crate::flow::item::Change;
use crate::listing::Listing;
use crate::push::{PushEvent, Pushes};
use crate::schedule::{Clockwork, Turn};
use crate::source::Source;
use crate::tree::{Snapshot, SnapshotError, Step, Tree, Want};

/// Longest wait after a scan that did not reach the source, unless the interval itself is longer.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// What the wait after such a scan starts from where there is no interval.
const BACK_OFF: Duration = Duration::from_secs(5);

/// Files that are hashed at a time.
const HASHES_AT_A_TIME: usize = 8;

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
    pushes: Option<Pushes>,
    tree: Tree,
    handle: Handle,
    due: Option<Instant>,
    /// Where there is a schedule.
    clockwork: Option<Clockwork>,
    want: Want,
    /// Whether somebody asked for a scan, and none began since.
    asked: bool,
    /// Scans in a row that did not reach the source.
    failures: u32,
    /// Directories that the last of them had listed.
    lost_after: u64,
    /// Who hashes, and what changed lately.
    versions: Option<(Arc<dyn Source>, Recent)>,
    spread: RandomState,
    scans: u64,
}

impl Detector {
    /// Watches what `lister` lists. `snapshot` is what [`Detector::save`] wrote, or `None`: then what
    /// is known is learnt from the first scan, and the ledger says what of it is news.
    #[must_use]
    pub fn new(lister: Arc<dyn Lister>, config: DetectConfig, snapshot: Option<Snapshot>) -> Self {
        let handle = Handle::new(&config);
        let schedule = config.schedule.clone();
        let clockwork =
            schedule.map(|schedule| Clockwork::new(schedule, seconds(), None, config.catch_up));
        Self {
            lister,
            pushes: None,
            tree: Tree::new(config, snapshot),
            due: handle.interval().map(|_| Instant::now()),
            clockwork,
            handle,
            want: Want::Due,
            asked: false,
            failures: 0,
            lost_after: 0,
            versions: None,
            spread: RandomState::new(),
            scans: 0,
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

    /// All of the source was looked at `looked` seconds after 1970, before this process: what its
    /// schedule named since is made up for, if it is to be.
    pub fn looked_before(&mut self, looked: u64) {
        let config = self.tree.config();
        if let Some(schedule) = config.schedule.clone() {
            let catch_up = config.catch_up;
            self.clockwork = Some(Clockwork::new(schedule, seconds(), Some(looked), catch_up));
        }
    }

    /// When all of the source was looked at last, in seconds since 1970, where there is a schedule.
    #[must_use]
    pub fn looked(&self) -> Option<u64> {
        self.clockwork.as_ref().and_then(Clockwork::looked)
    }

    /// How many files have yet to settle.
    #[must_use]
    pub fn settling(&self) -> usize {
        self.tree.settling()
    }

    /// Tells versions apart by content as well, which `source` hashes
    /// ([`Versions::Hash`](super::Versions::Hash)).
    pub fn hash_with(&mut self, source: Arc<dyn Source>) {
        self.versions = Some((source, Recent::default()));
    }

    /// Forgets everything that is known, as if there had been no snapshot: the next scan tells all
    /// there is, and the ledger says what of it is news. For whoever did not watch for a while, while
    /// another wrote to the same ledger.
    pub fn forget_all(&mut self) {
        self.tree.forget_all();
    }

    /// Another has made the first scan of all: what is not known is news.
    pub fn first_is_over(&mut self) {
        self.tree.first_is_over();
    }

    /// When removals are held back.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        self.tree.guarded_by()
    }

    /// Those of `paths` that are gone: nothing is known of them, and the source, asked for each, says
    /// that it is not there. To be called when no changes wait, after a complete scan; for what a
    /// ledger has and nobody watched meanwhile.
    pub async fn gone(&self, paths: Vec<RemotePath>) -> Vec<RemotePath> {
        // What lies below a directory that cannot be listed (a file system that is not mounted) was
        // not looked for.
        let is_hidden = |path: &RemotePath| {
            let below = |directory: &RemotePath| {
                let rest = path.as_bytes().strip_prefix(directory.as_bytes());
                directory.as_bytes().is_empty() || rest.is_some_and(|rest| rest.starts_with(b"/"))
            };
            self.errors().any(|(directory, _)| below(directory))
        };
        let unknown: Vec<_> = paths
            .into_iter()
            .filter(|path| !self.tree.knows(path) && !is_hidden(path))
            .collect();
        let mut gone = Vec::new();
        for paths in unknown.chunks(LOOKS_MAX) {
            let answers = self.lister.look(paths).await;
            let answered = paths.iter().zip(answers);
            let is_gone = |answer: Result<_, ListError>| {
                answer.is_err_and(|error| error.kind() == Kind::NotFound && !error.is_lost())
            };
            gone.extend(
                answered
                    .filter(|(_, answer)| is_gone(answer.clone()))
                    .map(|(path, _)| path.clone()),
            );
        }
        gone
    }

    /// Waits until there is a reason to scan. Nothing is lost if the future is dropped.
    pub async fn wait(&mut self) -> Wake {
        if self.asked {
            self.want = Want::All;
            return Wake::Asked;
        }
        let (wake, want) = self.reason().await;
        self.want = want;
        self.asked = wake == Wake::Asked;
        wake
    }

    async fn reason(&mut self) -> (Wake, Want) {
        loop {
            // While the source cannot be reached, only time and people are reasons.
            let reached = self.failures == 0;
            while let Some(event) = self.pushes.as_mut().and_then(Pushes::try_next) {
                self.tree.on_push(Instant::now(), event);
            }
            if reached && self.tree.is_under_way() {
                return (Wake::More, Want::Part);
            }
            let is_pushed = reached && self.tree.is_pushed();
            let settle = self.tree.poll_timeout().filter(|_| reached);
            let (due, pushes, handle) = (self.due, &mut self.pushes, &self.handle);
            let is_scheduled = handle.pace() == Pace::Scheduled;
            let clockwork = self.clockwork.as_mut().filter(|_| is_scheduled);
            handle.set_next(clockwork.as_ref().and_then(|clockwork| clockwork.due()));
            let event = tokio::select! {
                biased;
                () = handle.now.notified() => return (Wake::Asked, Want::All),
                // Before what is pushed, which may never end.
                () = at(due) => return (Wake::Due, Want::Due),
                () = scheduled(clockwork) => return (Wake::Due, Want::Due),
                () = std::future::ready(()), if is_pushed => return (Wake::Push, Want::Part),
                event = next_push(pushes) => event,
                () = at(settle) => return (Wake::Settle, Want::Part),
            };
            match event {
                Some(event) => self.tree.on_push(Instant::now(), event),
                None => self.pushes = None,
            }
        }
    }

    /// Looks at what is due. `forget` are paths that were taken away by ourselves: what has such a
    /// name now is new.
    ///
    /// It does nothing while changes wait for [`Detector::take_changes`]. Changes that were taken
    /// and not [`recorded`](Self::recorded) come again.
    ///
    /// If the future is dropped, the scan goes on with the next call.
    pub async fn scan(&mut self, forget: &[RemotePath]) -> ScanReport {
        let begun = Instant::now();
        let wall = seconds();
        let want = std::mem::replace(&mut self.want, Want::Due);
        if !self.tree.begin(want, wall, forget) {
            return ScanReport::default();
        }
        self.asked = false;
        self.handle.begins(self.tree.begun());
        if want != Want::Part
            && let Some(clockwork) = &mut self.clockwork
        {
            clockwork.looked_at(wall);
        }
        loop {
            match self.tree.poll_step(Instant::now()) {
                Step::Look(paths) => {
                    let answers = self.lister.look(&paths).await;
                    self.tree.on_looks(Instant::now(), paths, answers);
                }
                Step::List => {
                    let mut plan = Timed(&mut self.tree);
                    self.lister.list(&mut plan).await;
                }
                Step::Done => break,
            }
        }
        let mut report = self.tree.end();
        if report.complete && report.kind == ScanKind::Full {
            self.hash().await;
        }
        report.took = begun.elapsed();
        self.handle.settling.store(self.tree.settling(), Relaxed);
        self.schedule(begun, want, &report);
        report
    }

    /// Hashes what changed lately. What cannot be hashed now is hashed after the next sweep.
    async fn hash(&mut self) {
        let Some((source, recent)) = &mut self.versions else {
            return;
        };
        let mut paths = recent.due(Instant::now()).into_iter();
        let mut hashing = JoinSet::new();
        loop {
            while hashing.len() < HASHES_AT_A_TIME
                && let Some(path) = paths.next()
            {
                let source = Arc::clone(source);
                hashing.spawn(async move {
                    let sum = source.sha256(&path).await;
                    (path, sum)
                });
            }
            match hashing.join_next().await {
                None => return,
                Some(Ok((path, Ok(sum)))) => {
                    if let Some(change) = recent.hashed(&path, sum) {
                        self.tree.tell_version(change);
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// When the next scan is due.
    fn schedule(&mut self, begun: Instant, want: Want, report: &ScanReport) {
        let now = Instant::now();
        if report.lost.is_some() {
            // One that got further did reach it.
            let got_further = report.directories > 0 && report.directories != self.lost_after;
            self.lost_after = report.directories;
            self.failures = match got_further {
                true => 1,
                false => self.failures.saturating_add(1),
            };
            let base = self.handle.interval().unwrap_or(BACK_OFF);
            let longest = BACK_OFF_MAX.max(base);
            let wait = base.saturating_mul(1 << self.failures.min(16)).min(longest);
            self.due = Some(now + self.shorten(wait));
            return;
        }
        self.failures = 0;
        if want == Want::Part && report.kind == ScanKind::Part {
            return;
        }
        // One interval after the last start; a server that is slow still gets some rest.
        self.due = self
            .handle
            .interval()
            .map(|interval| (begun + self.shorten(interval)).max(now + interval / 5));
    }

    /// A wait, less up to a fifth, so that many watchers do not keep step.
    fn shorten(&mut self, wait: Duration) -> Duration {
        self.scans = self.scans.wrapping_add(1);
        let part = self.spread.hash_one(self.scans) % 1_024;
        let part = u32::try_from(part).unwrap_or(0);
        wait.saturating_sub(wait / 5 / 1_024 * part)
    }

    /// The next changes that are settled, at most `max`; none if there is none.
    pub fn take_changes(&mut self, max: usize) -> Vec<Change> {
        self.tree.take_changes(max)
    }

    /// The ledger has `changes` now.
    pub fn recorded(&mut self, changes: &[Change]) {
        self.tree.recorded(changes);
        if let Some((_, recent)) = &mut self.versions {
            recent.recorded(Instant::now(), changes);
        }
    }

    /// Whether the first complete scan is over and all it found is recorded. From then on, and after
    /// every restart, [`First::News`](super::First::News) is right: the ledger keeps that it is so.
    #[must_use]
    pub fn is_first_done(&self) -> bool {
        self.tree.is_first_done()
    }

    /// The next raw event, if [`DetectConfig::events`] asks for them.
    pub fn poll_event(&mut self) -> Option<Seen> {
        self.tree.poll_seen()
    }

    /// Directories that cannot be listed now, and why.
    pub fn errors(&self) -> impl Iterator<Item = (&RemotePath, &ListError)> {
        self.tree.errors()
    }

    /// What is known.
    #[must_use]
    pub const fn known(&self) -> &Snapshot {
        self.tree.known()
    }

    /// Writes what is known to `path`, for the ledger with the id `ledger`: to a temporary file
    /// beside it, synced and renamed.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn save(&self, path: &Path, ledger: [u8; 16]) -> Result<(), SnapshotError> {
        self.tree.known().save(path, ledger)
    }
}

async fn next_push(pushes: &mut Option<Pushes>) -> Option<PushEvent> {
    match pushes {
        Some(pushes) => pushes.next().await,
        None => pending().await,
    }
}

/// Waits until the schedule is due; the clock is looked at again and again meanwhile.
async fn scheduled(clockwork: Option<&mut Clockwork>) {
    let Some(clockwork) = clockwork else {
        return pending().await;
    };
    while let Turn::Wait(wait) = clockwork.poll(since_1970()) {
        tokio::time::sleep(wait).await;
    }
}

fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

fn seconds() -> u64 {
    since_1970().as_secs()
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}

/// The machine, with the time that it is asked at.
struct Timed<'a>(&'a mut Tree);

impl Plan for Timed<'_> {
    fn next(&mut self) -> Option<RemotePath> {
        self.0.next_directory(Instant::now())
    }

    fn listed(&mut self, directory: RemotePath, result: Result<Listing, ListError>) {
        self.0.on_listing(Instant::now(), &directory, result);
    }
}
