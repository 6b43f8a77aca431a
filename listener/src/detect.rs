//! Detection: what a flow's driver pulls from. Looks at the source when it is due, compares with what
//! is known, and gives the changes that are settled.
//!
//! ```text
//!   wait ──Wake──> scan ──> take_changes ──> (the ledger records them) ──> recorded ──┐
//!    ^                                                                               │
//!    └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The decisions are those of [`crate::tree`], which has neither clock nor task; this is its driver.
//! A [`Lister`] reads directories: one on a server, or one here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ketch_client::{Attrs, Failure, Kind, RemotePath};

mod driver;
mod over_sftp;
mod versions;

pub use driver::{BACK_OFF_MAX, Detector};
pub use over_sftp::SftpLister;
pub use versions::{FILES_MAX, WINDOW};

use crate::listing::{Listing, ListingTooLarge};
use crate::schedule::Schedule;
use crate::select::Select;
use crate::settle::SettleConfig;
use crate::snapshot::Facts;
pub use crate::tree::Guard;

/// What a lister answers, when it has it.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Reads directories and attributes below a root. Paths are relative to that root; the empty path is
/// the root itself.
pub trait Lister: fmt::Debug + Send + Sync + 'static {
    /// Lists the directories that `plan` names, several at a time, until it names no more and all
    /// are answered. More may be named after each answer, so a lister asks again.
    ///
    /// Whatever happens, each directory that was named is answered once.
    fn list<'a>(&'a self, plan: &'a mut dyn Plan) -> Answer<'a, ()>;

    /// The attributes of `paths`, in their order; a link is told as a link. At most
    /// [`LOOKS_MAX`] at a time.
    fn look<'a>(&'a self, paths: &'a [RemotePath]) -> Answer<'a, Vec<Result<Attrs, ListError>>>;
}

/// Paths in one [`Lister::look`].
pub const LOOKS_MAX: usize = 4_096;

/// Which directories a [`Lister`] is to list, and who takes the answers.
pub trait Plan: Send {
    /// The next directory; `None` if there is none now.
    fn next(&mut self) -> Option<RemotePath>;

    /// The complete, finished listing of a directory, or why there is none.
    fn listed(&mut self, directory: RemotePath, result: Result<Listing, ListError>);
}

/// Why a directory was not listed, or a path not looked at. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
#[error("it cannot be looked at")]
pub struct ListError {
    kind: Kind,
    is_lost: bool,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl ListError {
    /// A failure of the kind `kind`.
    #[must_use]
    pub fn new(kind: Kind, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self {
            kind,
            is_lost: matches!(kind, Kind::Network | Kind::Timeout),
            source: Arc::new(source),
        }
    }

    /// The same, which means that the source as a whole cannot be reached.
    #[must_use]
    pub const fn lost(mut self) -> Self {
        self.is_lost = true;
        self
    }

    /// What sort of failure it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the source as a whole cannot be reached: a scan ends there, and nothing it has not
    /// looked at counts as gone.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.is_lost
    }
}

impl From<ketch_client::SftpError> for ListError {
    fn from(error: ketch_client::SftpError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<ListingTooLarge> for ListError {
    fn from(error: ListingTooLarge) -> Self {
        Self::new(Kind::Local, error)
    }
}

impl From<std::io::Error> for ListError {
    fn from(error: std::io::Error) -> Self {
        Self::new(Kind::of_local(&error), error)
    }
}

/// Why [`Detector::wait`] came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Wake {
    /// The interval is over, or the schedule is due.
    Due,
    /// The source said that something changed.
    Push,
    /// A file may have settled.
    Settle,
    /// Somebody asked for it: [`Handle::apply_now`].
    Asked,
    /// The last scan stopped half way because enough was found; it goes on.
    More,
}

/// What a scan looked at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ScanKind {
    /// Every directory was listed.
    #[default]
    Full,
    /// Directories were listed whose times changed, and those that were changing lately.
    Quiet,
    /// Only what the source told of, and files that have yet to settle.
    Part,
}

/// What a scan did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScanReport {
    /// What it looked at.
    pub kind: ScanKind,
    /// Whether it came to its end. If not, it goes on with the next one, or the source was lost.
    pub complete: bool,
    /// Directories listed.
    pub directories: u64,
    /// Names in them, before any rule.
    pub entries: u64,
    /// Attributes asked for apart from listings.
    pub looked: u64,
    /// Directories that could not be listed.
    pub unreadable: u64,
    /// Names that are none (a slash or zero byte in them), that lie too deep, or are too many.
    pub refused: u64,
    /// Files that have to wait for the next scan, as too many have yet to settle.
    pub turned_away: u64,
    /// How long it took.
    pub took: Duration,
    /// Why the source could not be reached, if it could not.
    pub lost: Option<ListError>,
}

/// When a source is looked at, beside when it is asked for or told of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pace {
    /// Never.
    #[default]
    Asked,
    /// So long after the last time.
    Every(Duration),
    /// At the times of [`DetectConfig::schedule`]; never, if there is none.
    Scheduled,
}

impl From<Option<Duration>> for Pace {
    fn from(interval: Option<Duration>) -> Self {
        interval.map_or(Self::Asked, Self::Every)
    }
}

/// Steers a [`crate::detect`] loop from elsewhere.
#[derive(Clone, Debug)]
pub struct Handle {
    now: Arc<tokio::sync::Notify>,
    begun: Arc<AtomicU64>,
    pace: Arc<Mutex<Pace>>,
    /// When the schedule is due next, in seconds since 1970.
    next: Arc<Mutex<Option<u64>>>,
    settling: Arc<AtomicUsize>,
    schedule: Option<Schedule>,
}

impl Handle {
    fn new(config: &DetectConfig) -> Self {
        Self {
            now: Arc::default(),
            begun: Arc::default(),
            pace: Arc::new(Mutex::new(config.pace())),
            next: Arc::default(),
            settling: Arc::default(),
            schedule: config.schedule.clone(),
        }
    }

    /// The number of the scan that began last; 0 if none did. One that stopped half way and goes on
    /// keeps its number, so what is asked for now is answered by the end of a scan with a greater one.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// To be said before anything is looked at.
    fn begins(&self, scan: u64) {
        self.begun.store(scan, Ordering::SeqCst);
    }

    /// A scan of everything starts as soon as the one under way, if any, is over.
    pub fn apply_now(&self) {
        self.now.notify_one();
    }

    /// Another pace, from the next scan on, which begins now.
    pub fn set_pace(&self, pace: Pace) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
        self.now.notify_one();
    }

    /// The pace that holds now.
    #[must_use]
    pub fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The interval that holds now, if it is one.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        match self.pace() {
            Pace::Every(interval) => Some(interval),
            Pace::Asked | Pace::Scheduled => None,
        }
    }

    /// The schedule that there is, whether or not it holds now.
    #[must_use]
    pub const fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }

    /// When the schedule is due next, in seconds since 1970, if it holds now.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.filter(|_| self.pace() == Pace::Scheduled)
    }

    /// Files that were seen and have yet to settle, as of the last scan.
    #[must_use]
    pub fn settling(&self) -> usize {
        self.settling.load(Ordering::Relaxed)
    }

    fn set_next(&self, next: Option<u64>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

/// How a source is watched.
#[derive(Clone, Debug)]
pub struct DetectConfig {
    /// From the start of one scan to the start of the next, less up to a fifth at random. `None`:
    /// only when asked ([`Handle::apply_now`]) or pushed. Default: 5 s.
    pub interval: Option<Duration>,
    /// Times of day, instead of the interval. Default: none.
    pub schedule: Option<Schedule>,
    /// Whether a time of the schedule that came while nobody watched is made up for at the start, and
    /// a source that nobody has ever looked at is looked at then. Default: yes.
    pub catch_up: bool,
    /// What the first scan of all finds. For a flow whose ledger has had a complete first scan, this
    /// must be [`First::News`], snapshot or not. Default: [`First::Baseline`].
    pub first: First,
    /// Complete listings in a row that must lack a name before it is gone, 1 to 4; and the source
    /// must say that it is not there. Default: 2.
    pub missing_polls: u8,
    /// When so many names are missing at once that it is doubted for longer. Default: see there.
    pub guard: Guard,
    /// Whether directories are told of as files are. Default: no.
    pub directories: bool,
    /// Whether the times of directories may save listing them. Default: never.
    pub directory_times: DirectoryTimes,
    /// Where directory times are trusted: every how many scans all is listed nevertheless.
    /// Default: 20.
    pub sweep_every: u32,
    /// How versions of a file are told apart. Default: by size and time.
    pub versions: Versions,
    /// Which names it is about. Default: all files.
    pub select: Select,
    /// When a file is complete. Default: stable over 5 s and two looks.
    pub settle: SettleConfig,
    /// Changes that wait for [`Detector::take_changes`]; a scan stops there and goes on later.
    /// Default: 50,000.
    pub changes_max: usize,
    /// Names in all directories together; what is more is refused. Default: 20 million.
    pub entries_max: u64,
    /// Whether raw events are kept for [`Detector::poll_event`]. Default: no.
    pub events: bool,
}

impl Default for DetectConfig {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(5)),
            schedule: None,
            catch_up: true,
            first: First::Baseline,
            missing_polls: 2,
            guard: Guard::default(),
            directories: false,
            directory_times: DirectoryTimes::Never,
            sweep_every: 20,
            versions: Versions::Fast,
            select: Select::default(),
            settle: SettleConfig::default(),
            changes_max: 50_000,
            entries_max: 20_000_000,
            events: false,
        }
    }
}

impl DetectConfig {
    /// When the source is looked at.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match self.schedule {
            Some(_) => Pace::Scheduled,
            None => self.interval.into(),
        }
    }
}

/// How versions of a file are told apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Versions {
    /// By type, size and time. A file that is written again with the same size within the second of
    /// its last change is not noticed.
    #[default]
    Fast,
    /// By their SHA-256 too: after each full sweep, files that changed within the last [`WINDOW`] are
    /// hashed, by the server where it can, at most [`FILES_MAX`] of them.
    Hash,
}

/// What the first complete scan finds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum First {
    /// Known already: recorded, never delivered.
    #[default]
    Baseline,
    /// News: every file is delivered.
    News,
}

/// Whether a directory whose time of last change is the same is taken as unchanged.
///
/// Names that come, go or are renamed change a directory's time on most servers; on some (object
/// stores, some gateways) never. A file that is modified in place does not change it anywhere: such
/// a change is seen by the next full sweep only.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DirectoryTimes {
    /// Every scan lists everything.
    #[default]
    Never,
    /// Full sweeps watch whether the times tell the truth. Once they were seen to, scans between two
    /// sweeps list only what changed; at the first contradiction it is given up for good.
    Learn,
}

/// What was seen, before it settles and whether or not a ledger takes it: for embedders, logs and
/// counters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Seen {
    /// A scan began.
    PollStarted(ScanKind),
    /// A scan ended.
    PollEnded(ScanReport),
    /// A name is there that was not.
    Created {
        /// Which.
        path: RemotePath,
        /// As it was seen.
        facts: Facts,
    },
    /// Its size or time is another than before.
    Modified {
        /// Which.
        path: RemotePath,
        /// As it was seen.
        facts: Facts,
    },
    /// It is gone.
    Removed {
        /// Which.
        path: RemotePath,
    },
    /// It has another name.
    Renamed {
        /// What it was called.
        from: RemotePath,
        /// What it is called.
        to: RemotePath,
    },
    /// A directory cannot be listed any more. Nothing below it counts as gone.
    ErrorRaised {
        /// Which.
        directory: RemotePath,
        /// Why.
        error: ListError,
    },
    /// It can be listed again.
    ErrorCeased {
        /// Which.
        directory: RemotePath,
    },
    /// Nearly all that is known is missing at once: it counts as gone only when that lasts
    /// ([`DetectConfig::guard`]).
    EmptiedRaised {
        /// How many names are missing.
        missing: u64,
        /// How many are known.
        known: u64,
    },
    /// They are there again, or have counted as gone.
    EmptiedCeased,
}
