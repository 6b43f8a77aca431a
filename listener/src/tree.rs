//! A whole tree as it is known, and what to look at next: the machine of detection.
//!
//! There is no clock, no task and no file in here. Its driver ([`crate::detect::Detector`]) calls
//! [`Tree::begin`], does what [`Tree::poll_step`] says (lists directories, looks at paths) and hands
//! back what came of it, until that is [`Step::Done`]; then it takes changes and says which of them
//! the ledger has.
//!
//! ```text
//!   Times ──> Looks ──> List ──> Confirm ──> done
//!   (quiet)   (pushes,  (directories that   (is what is missing
//!             settle)    are due)            really gone?)
//! ```
//!
//! - **Nothing is gone because it was not seen.** A name is gone when complete listings lacked it
//!   [`DetectConfig::missing_polls`] times *and* the source, asked for it, says that it is not there.
//!   If everything is missing at once, that is doubted for longer ([`Guard`]).
//!   A directory that cannot be listed, and all below it, stay as they are.
//! - **What is known is what the ledger has.** A file goes into the [`Snapshot`] when its change is
//!   [`Tree::recorded`]; until then every look finds it anew.
//! - **A rename** is a name that is gone and one that is new, of the same type, size (not 0) and
//!   time, if there is only one of each; among several, one that kept its last name. The new one
//!   must have appeared in this scan or the one before, and not have been told yet.
//! - **Times are compared for equality alone**: those of files tell versions apart, those of
//!   directories may save listings (`times.rs`).

mod block;
mod compare;
mod confirm;
mod file;
mod guard;
mod known;
mod listed;
mod looks;
mod record;
#[cfg(test)]
mod tests;
mod times;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Instant;

use ketch_client::{Attrs, RemotePath};

pub use self::file::SnapshotError;
pub use self::guard::Guard;
pub use self::known::Snapshot;
use self::known::split;
pub use self::times::HOT;
use crate::detect::{DetectConfig, DirectoryTimes, First, ListError, ScanKind, ScanReport, Seen};
use crate::flow::item::Change;
use crate::push::{PushEvent, Touch};
use crate::settle::Settle;
use crate::snapshot::Facts;

/// Raw events that wait to be taken; what comes beyond is not told.
pub const SEEN_MAX: usize = 10_000;

/// Paths that pushes told of and nobody looked at yet. Beyond, everything is looked at.
pub const PUSHED_MAX: usize = 20_000;

/// Names that are missing, or new, in one scan and may be a rename or are asked for. What is beyond
/// waits for the next scan.
pub const MISSING_MAX: usize = 100_000;

/// What the driver is to do next.
#[derive(Debug)]
pub enum Step {
    /// Look at these paths, and hand the answers to [`Tree::on_looks`] in their order.
    Look(Vec<RemotePath>),
    /// List what [`Tree::next_directory`] gives until it gives nothing and all is answered.
    List,
    /// The scan is over, or can go no further now: [`Tree::end`].
    Done,
}

/// What a scan is to look at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Want {
    /// Everything.
    All,
    /// What is due: everything, or what directory times say.
    Due,
    /// What pushes told of and what may have settled.
    Part,
}

/// The machine; see the module's text.
#[derive(Debug)]
pub struct Tree {
    config: DetectConfig,
    settle: Settle,
    known: Snapshot,
    /// Whether the first complete scan is still to come.
    is_first: bool,
    changes: VecDeque<Change>,
    /// Taken, and not recorded yet.
    taken: VecDeque<Change>,
    /// Names that are told to be gone, or to be others now, until the ledger has it: known until then,
    /// and missed in more than one way.
    leaving: BTreeSet<RemotePath>,
    seen: VecDeque<Seen>,
    errors: BTreeMap<RemotePath, ListError>,
    /// Directories with something that is not known as it is: listed by every scan.
    dirty: BTreeSet<RemotePath>,
    /// Directories whose time was first seen lately.
    hot: BTreeMap<RemotePath, Hot>,
    /// Files that were new in the last scan.
    created: BTreeMap<RemotePath, Facts>,
    pushed: BTreeSet<RemotePath>,
    /// Scans since everything was listed.
    quiet: u32,
    is_sweep_due: bool,
    /// The scan under way may have passed by what changed since it began.
    is_overtaken: bool,
    /// Scans in a row that lacked too much to be believed.
    guarded: u32,
    scan: Option<Scan>,
    /// How many scans began, whatever became of them.
    begun: u64,
}

#[derive(Clone, Copy, Debug)]
struct Hot {
    mtime: u32,
    since: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Times,
    Looks,
    List,
    Confirm,
    Over,
}

/// Why a path is looked at.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// A directory: has its time changed?
    Times,
    /// A push or a rule asks for it.
    Asked,
    /// Is it gone? The number of what is missing.
    Missing(usize),
    /// Is this still the time of a directory that changed? Then the times are no good.
    Suspect(u32),
}

/// A directory that is to be listed.
#[derive(Debug)]
struct Waiting {
    path: RemotePath,
    /// Its time of last change, looked at before it is listed.
    mtime: Option<u32>,
    since: Option<Instant>,
}

/// A name that a complete listing lacked.
#[derive(Debug)]
struct Missing {
    path: RemotePath,
    facts: Facts,
    /// It was missing often enough.
    is_due: bool,
    /// What it may be called now.
    to: Option<RemotePath>,
}

/// A scan under way.
#[derive(Debug)]
struct Scan {
    wall: u64,
    phase: Phase,
    /// The last directory whose time was asked for.
    cursor: Option<RemotePath>,
    /// What was asked last, in its order.
    asked: Vec<Why>,
    /// The last is next, so that few wait.
    waiting: Vec<Waiting>,
    in_flight: BTreeMap<RemotePath, Waiting>,
    /// Listed or to be listed, where several reasons may name one.
    planned: BTreeSet<RemotePath>,
    /// Of a quiet scan: directories whose listing is cheaper than asking for the times of those in it.
    telling: HashSet<Vec<u8>>,
    missing: Vec<Missing>,
    /// Names that listings lacked, also those that `missing` has no room for.
    lacked: u64,
    /// How many of them were asked for, or need not be.
    confirmed: usize,
    created: BTreeMap<RemotePath, Facts>,
    suspects: Vec<(RemotePath, u32)>,
    /// The source was lost in the middle of it.
    is_cut: bool,
    report: ScanReport,
}

impl Tree {
    /// A machine that knows what `snapshot` says.
    #[must_use]
    pub fn new(mut config: DetectConfig, snapshot: Option<Snapshot>) -> Self {
        config.missing_polls = config.missing_polls.clamp(1, 4);
        config.changes_max = config.changes_max.max(1);
        let mut known = snapshot.unwrap_or_default();
        if config.first == First::Baseline {
            // The first scan was not finished: what it did not record is no news now either.
            for node in known.directories.values_mut() {
                node.listed = false;
            }
        }
        Self {
            settle: Settle::new(config.settle.clone()),
            config,
            known,
            is_first: true,
            changes: VecDeque::new(),
            taken: VecDeque::new(),
            leaving: BTreeSet::new(),
            seen: VecDeque::new(),
            errors: BTreeMap::new(),
            dirty: BTreeSet::new(),
            hot: BTreeMap::new(),
            created: BTreeMap::new(),
            pushed: BTreeSet::new(),
            quiet: 0,
            is_sweep_due: true,
            is_overtaken: false,
            guarded: 0,
            scan: None,
            begun: 0,
        }
    }

    /// Begins a scan, or goes on with one that stopped half way. Returns whether there is anything
    /// to do: there is not while changes wait to be taken, and what was taken and not recorded waits
    /// again. `wall` is this machine's time, in seconds since 1970; only rules on the age of files
    /// use it.
    pub fn begin(&mut self, want: Want, wall: u64, forget: &[RemotePath]) -> bool {
        while let Some(change) = self.taken.pop_back() {
            self.changes.push_front(change);
        }
        for path in forget {
            if self.known.get(path).is_some() {
                self.known.set(path, None);
                self.dirty.insert(split(path).0);
            }
            self.settle.vanished(path);
        }
        if !self.changes.is_empty() {
            return false;
        }
        // Who asks for all is to get what came to directories that were listed before, too.
        if want == Want::All && self.scan.as_ref().is_some_and(|scan| scan.is_cut) {
            self.scan = None;
            self.is_sweep_due = true;
        }
        if let Some(scan) = &mut self.scan {
            if scan.in_flight.is_empty() && scan.asked.is_empty() {
                scan.wall = wall;
                if std::mem::take(&mut scan.is_cut) {
                    let kind = scan.report.kind;
                    self.tell(Seen::PollStarted(kind));
                }
                return true;
            }
            // Its driver gave up in the middle: what was asked and not answered is asked anew.
            self.scan = None;
            self.is_sweep_due = true;
        }
        let is_trusted = self.config.directory_times == DirectoryTimes::Learn
            && self.known.trust.is_given()
            && self.quiet < self.config.sweep_every;
        let kind = match want {
            _ if self.is_first || self.is_sweep_due => ScanKind::Full,
            Want::Due if is_trusted => ScanKind::Quiet,
            Want::All | Want::Due => ScanKind::Full,
            Want::Part => ScanKind::Part,
        };
        let mut scan = Scan {
            wall,
            phase: Phase::Times,
            cursor: None,
            asked: Vec::new(),
            waiting: Vec::new(),
            in_flight: BTreeMap::new(),
            planned: BTreeSet::new(),
            telling: HashSet::new(),
            missing: Vec::new(),
            lacked: 0,
            confirmed: 0,
            created: BTreeMap::new(),
            suspects: Vec::new(),
            is_cut: false,
            report: ScanReport {
                kind,
                ..ScanReport::default()
            },
        };
        match kind {
            ScanKind::Full if self.config.directory_times == DirectoryTimes::Never => {
                scan.plan(RemotePath::from(""), None);
                scan.phase = Phase::Looks;
            }
            ScanKind::Full => {}
            ScanKind::Quiet => self.quiet = self.quiet.saturating_add(1),
            ScanKind::Part => scan.phase = Phase::Looks,
        }
        self.scan = Some(scan);
        self.begun += 1;
        self.is_overtaken = false;
        self.tell(Seen::PollStarted(kind));
        true
    }

    /// What to do next.
    pub fn poll_step(&mut self, now: Instant) -> Step {
        let Some(mut scan) = self.scan.take() else {
            return Step::Done;
        };
        let step = self.step(&mut scan, now);
        self.scan = Some(scan);
        step
    }

    fn step(&mut self, scan: &mut Scan, now: Instant) -> Step {
        loop {
            if scan.report.lost.is_some() {
                return Step::Done;
            }
            let (paths, next) = match scan.phase {
                Phase::Times => (self.times_to_ask(scan), Phase::Looks),
                Phase::Looks => (self.paths_to_ask(scan, now), Phase::List),
                Phase::List => {
                    if !scan.in_flight.is_empty() || scan.waiting.is_empty() {
                        scan.phase = Phase::Confirm;
                        self.match_renames(scan);
                        self.guard(scan);
                        continue;
                    }
                    if self.is_full() {
                        return Step::Done;
                    }
                    return Step::List;
                }
                Phase::Confirm => (self.missing_to_ask(scan), Phase::Over),
                Phase::Over => return Step::Done,
            };
            if paths.is_empty() {
                scan.phase = next;
            } else {
                scan.report.looked += paths.len() as u64;
                return Step::Look(paths);
            }
        }
    }

    /// The end of a scan, or of this part of it.
    ///
    /// One of everything that was cut off while it listed goes on there with the next
    /// [`begin`](Self::begin): a connection that never lives for as long as a scan takes would let
    /// nobody see the last directories otherwise.
    pub fn end(&mut self) -> ScanReport {
        let Some(mut scan) = self.scan.take() else {
            return ScanReport::default();
        };
        if scan.report.lost.is_none() && scan.phase != Phase::Over {
            let report = scan.report.clone();
            self.scan = Some(scan);
            return report;
        }
        let kind = scan.report.kind;
        if scan.report.lost.is_some() && scan.phase == Phase::List && kind == ScanKind::Full {
            let report = scan.report.clone();
            scan.waiting
                .extend(std::mem::take(&mut scan.in_flight).into_values());
            scan.report.lost = None;
            scan.is_cut = true;
            self.scan = Some(scan);
            self.tell(Seen::PollEnded(report.clone()));
            self.drain_settled();
            return report;
        }
        scan.report.complete = scan.report.lost.is_none();
        if scan.report.complete {
            self.created = std::mem::take(&mut scan.created);
            if kind == ScanKind::Full {
                self.tidy();
                // Without its root nothing was seen, and all of it has yet to be for the first time.
                self.is_first &= self.errors.contains_key(&RemotePath::from(""));
                self.is_sweep_due = std::mem::take(&mut self.is_overtaken);
                self.quiet = 0;
            }
        } else {
            // What was found is found again; what pushes told of is looked at by listing all.
            self.is_sweep_due = true;
        }
        self.tell(Seen::PollEnded(scan.report.clone()));
        self.drain_settled();
        scan.report
    }

    /// After everything was listed: directories that nobody names any more are no trouble.
    fn tidy(&mut self) {
        let Self { known, dirty, .. } = self;
        dirty.retain(|directory| known.node(directory).is_some());
        let is_named =
            |path: &RemotePath| path.as_bytes().is_empty() || self.known.get(path).is_some();
        let ceased: Vec<_> = self
            .errors
            .keys()
            .filter(|path| !is_named(path))
            .cloned()
            .collect();
        for directory in ceased {
            self.errors.remove(&directory);
            self.tell(Seen::ErrorCeased { directory });
        }
    }

    /// Takes a push: [`Want::Part`] looks at it.
    pub fn on_push(&mut self, now: Instant, event: PushEvent) {
        let mut look = |path: RemotePath| {
            if self.pushed.len() < PUSHED_MAX {
                self.pushed.insert(path);
            } else {
                self.is_sweep_due = true;
                self.is_overtaken = self.scan.is_some();
            }
        };
        match event {
            PushEvent::Changed { path, kind, .. } => {
                look(path.clone());
                // A client may well set the times of a file that it has closed.
                if kind != Touch::Attributes {
                    self.settle.written(now, &path);
                }
            }
            PushEvent::Closed { path } => {
                look(path.clone());
                if self.config.select.reaches(&path) && self.config.select.names(&path) {
                    self.settle.closed(now, &path);
                }
            }
            PushEvent::Removed { path, .. } => look(path),
            PushEvent::Renamed { from, to, .. } => {
                look(from);
                look(to);
            }
            PushEvent::Overflow | PushEvent::Back => {
                self.is_sweep_due = true;
                self.is_overtaken = self.scan.is_some();
            }
            PushEvent::Lost => {}
        }
    }

    /// Whether pushes told of something that nobody looked at.
    #[must_use]
    pub fn is_pushed(&self) -> bool {
        !self.pushed.is_empty() || self.is_sweep_due && !self.is_first
    }

    /// Whether a scan stopped half way, because enough was found.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        self.scan.is_some()
    }

    /// How many scans began. One that stopped half way and goes on is the same scan.
    #[must_use]
    pub const fn begun(&self) -> u64 {
        self.begun
    }

    /// When a file may have settled.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.settle.poll_timeout()
    }

    /// The next raw event.
    pub fn poll_seen(&mut self) -> Option<Seen> {
        self.seen.pop_front()
    }

    /// What is known.
    #[must_use]
    pub const fn known(&self) -> &Snapshot {
        &self.known
    }

    /// How the source is watched.
    #[must_use]
    pub const fn config(&self) -> &DetectConfig {
        &self.config
    }

    /// How many files have yet to settle.
    #[must_use]
    pub fn settling(&self) -> usize {
        self.settle.len()
    }

    /// When removals are held back.
    #[must_use]
    pub const fn guarded_by(&self) -> Guard {
        self.config.guard
    }

    /// Directories that cannot be listed, and why.
    pub fn errors(&self) -> impl Iterator<Item = (&RemotePath, &ListError)> {
        self.errors.iter()
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= self.config.changes_max
    }

    fn tell(&mut self, seen: Seen) {
        if self.config.events && self.seen.len() < SEEN_MAX {
            self.seen.push_back(seen);
        }
    }
}

impl Scan {
    fn plan(&mut self, path: RemotePath, mtime: Option<u32>) {
        self.plan_at(path, mtime, None);
    }

    /// `since`: when the time of last change was looked at.
    fn plan_at(&mut self, path: RemotePath, mtime: Option<u32>, since: Option<Instant>) {
        // A full sweep meets each directory once, in its parent's listing.
        if self.report.kind == ScanKind::Full || self.planned.insert(path.clone()) {
            self.waiting.push(Waiting { path, mtime, since });
        }
    }
}

fn mtime_of(attrs: &Attrs) -> Option<u32> {
    attrs.times.map(|times| times.mtime)
}
