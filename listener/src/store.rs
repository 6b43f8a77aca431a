//! The ledger: what a flow knows of every path, and how far each item has come.
//!
//! Two sides meet here and nowhere else. Detection [`record`](Store::record)s what it found.
//! Workers [`claim`](Store::claim) what is due, say before each step what they are about to do, and
//! after it that it is done. So kill -9 at any moment leaves rows that tell where every file stands,
//! and several processes may share the work if they share the ledger.
//!
//! One row a path:
//!
//! ```text
//!   (none) ──record──> Pending ──claim──> Claimed ──committed──> Committed ──finished──> Done
//!      └──baseline──> Known                 │ failed: Pending, later       (or Acted: gone by our
//!                                           └ failed for good: Dead         own after-action)
//! ```
//!
//! What is recorded while an item of the same path is claimed waits in the row as its next version
//! and becomes Pending when the claim ends. Whoever lost a claim (it ran out and another took it)
//! cannot change the row any more: every step names its [`ClaimId`], and is [`StoreError::Lost`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ketch_client::RemotePath;

use crate::flow::item::{Change, FlowName, Item};
use crate::snapshot::Facts;

mod encoding;
pub mod portable;
#[cfg(feature = "postgres")]
pub mod postgres;
mod row;
pub mod sqlite;

/// Paths in one [`Store::lookup`], changes in one [`Store::record`], rows in one page: at most.
pub const BATCH_MAX: usize = 10_000;

/// What a store answers, when it has it.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A ledger. All methods are transactions: done as a whole and durable, or not at all.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The ledger's own random id: snapshots carry it, so that none is used with another ledger.
    fn id(&self) -> [u8; 16];

    // --- detection -----------------------------------------------------------------------------

    /// To be called before a scan lists anything. Answers the number to give to
    /// [`Store::record`] for what that scan finds, and which paths our own after-actions took away
    /// since the scan `since` (0: none yet): they are to be forgotten, as whatever has those names
    /// now is new. Writes only if there is something older than `since` to be tidied away.
    fn begin_scan<'a>(&'a self, flow: &'a FlowName, since: u64) -> Answer<'a, ScanStart>;

    /// The rows of `paths`, in their order.
    fn lookup<'a>(
        &'a self,
        flow: &'a FlowName,
        paths: &'a [RemotePath],
    ) -> Answer<'a, Vec<Option<Row>>>;

    /// Takes what the scan `scan` found. What a row says already changes nothing, so everything may
    /// be recorded again: the same facts of a known version are no news, whatever became of it.
    fn record<'a>(&'a self, flow: &'a FlowName, record: Record<'a>) -> Answer<'a, Recorded>;

    // --- workers -------------------------------------------------------------------------------

    /// Claims up to `max` items that are due, in the order asked for: pending ones whose time has
    /// come, and those whose claim ran out.
    fn claim<'a>(&'a self, flow: &'a FlowName, ask: ClaimAsk<'a>) -> Answer<'a, Vec<Claim>>;

    /// Lengthens claims by `lease` from now; answers those that are lost.
    fn renew<'a>(&'a self, claims: &'a [ClaimId], lease: Duration) -> Answer<'a, Vec<ClaimId>>;

    /// What was fetched: length and SHA-256 of the content.
    fn fetched<'a>(&'a self, claim: &'a ClaimId, sha256: [u8; 32]) -> Answer<'a, ()>;

    /// Where the sink `sink` is about to put it. To be called before anything is put there.
    fn placed<'a>(
        &'a self,
        claim: &'a ClaimId,
        sink: &'a str,
        placement: &'a Placement,
    ) -> Answer<'a, ()>;

    /// The sink `sink` has it.
    fn delivered<'a>(&'a self, claim: &'a ClaimId, sink: &'a str) -> Answer<'a, ()>;

    /// All sinks have it: only the after-action is left.
    fn committed<'a>(&'a self, claim: &'a ClaimId) -> Answer<'a, ()>;

    /// The end of a claim.
    fn finish<'a>(&'a self, claim: &'a ClaimId, end: End<'a>) -> Answer<'a, ()>;

    // --- leases --------------------------------------------------------------------------------

    /// Takes or lengthens the lease called `name` for `owner`: whether it has it for `lease` from
    /// now.
    fn lease<'a>(&'a self, name: &'a str, owner: &'a str, lease: Duration) -> Answer<'a, bool>;

    /// Gives a lease back, if `owner` has it.
    fn release<'a>(&'a self, name: &'a str, owner: &'a str) -> Answer<'a, ()>;

    /// Rows that [`Store::claim`] or [`Store::record`] found damaged since this was asked last, and set
    /// aside: they are among the dead, unless their file is gone, and are not claimed until somebody
    /// replays them. For telling it.
    fn set_aside(&self, flow: &FlowName) -> Vec<Row> {
        let _ = flow;
        Vec::new()
    }

    // --- people --------------------------------------------------------------------------------

    /// A page of rows in the order of their paths: those behind `after`, at most `max`.
    fn rows<'a>(
        &'a self,
        flow: &'a FlowName,
        state: Option<State>,
        after: Option<&'a RemotePath>,
        max: usize,
    ) -> Answer<'a, Vec<Row>>;

    /// How many rows there are in each state.
    fn counts<'a>(&'a self, flow: &'a FlowName) -> Answer<'a, Counts>;

    /// When the oldest item that is not done was recorded, in milliseconds since 1970; `None` if all
    /// are done, dead ones left out. It looks at the whole queue, so it is for people.
    fn oldest<'a>(&'a self, flow: &'a FlowName) -> Answer<'a, Option<u64>>;

    /// Makes items pending again, with no attempts counted; answers how many. Without `path`: all
    /// dead ones. With it: that one, if it is dead, or known or done; the latter two get a new
    /// sequence number, as they are delivered once more on purpose.
    fn replay<'a>(&'a self, flow: &'a FlowName, path: Option<&'a RemotePath>) -> Answer<'a, u64>;

    /// Takes rows as [`Store::rows`] gave them into an empty flow, for moving a ledger.
    fn import<'a>(&'a self, flow: &'a FlowName, rows: &'a [Row]) -> Answer<'a, ()>;

    /// A value that a flow keeps (whether it is paused), or that it has none.
    fn value<'a>(&'a self, flow: &'a FlowName, key: &'a str) -> Answer<'a, Option<String>>;

    /// Keeps such a value; `None` takes it away.
    fn set_value<'a>(
        &'a self,
        flow: &'a FlowName,
        key: &'a str,
        value: Option<&'a str>,
    ) -> Answer<'a, ()>;

    /// Gives space back that is not needed.
    fn compact(&self) -> Answer<'_, ()>;
}

/// What [`Store::begin_scan`] answers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ScanStart {
    /// Number of this scan.
    pub scan: u64,
    /// Paths that our after-actions took away: to be forgotten.
    pub forget: Vec<RemotePath>,
}

/// What [`Store::record`] takes.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The number that [`Store::begin_scan`] gave.
    pub scan: u64,
    /// The lease under which it was scanned, and its owner: where several processes share the
    /// ledger, the record of one that lost it is refused.
    pub lease: Option<(&'a str, &'a str)>,
    /// What was found, at most [`BATCH_MAX`].
    pub changes: &'a [Change],
    /// Whether removals become items. If not, the row just goes.
    pub removals: bool,
    /// Whether a file that was renamed is the same version still. If not, its new name is a new
    /// file and its old name a removal.
    pub renames: bool,
}

/// What became of a [`Record`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recorded {
    /// New items that are pending or wait behind a claim.
    pub items: u64,
    /// Changes that the ledger knew already, or that need no item.
    pub known: u64,
}

/// What [`Store::claim`] is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ClaimAsk<'a> {
    /// Who claims: unique among processes that share the ledger.
    pub owner: &'a str,
    /// For how long, unless renewed.
    pub lease: Duration,
    /// Which first.
    pub order: Order,
    /// At most so many.
    pub max: usize,
}

/// Which items are claimed first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    /// As they were recorded; several of a directory at a time.
    #[default]
    Any,
    /// Of each directory one at a time, by name: none is claimed while an item of the same
    /// directory with a smaller name is pending or claimed. Dead ones are passed over.
    Name,
    /// The same by time of last change, then by name.
    Time,
    /// As [`Order::Name`], from the last name to the first.
    NameDown,
    /// As [`Order::Time`], from the newest to the oldest.
    TimeDown,
}

/// The right to work on one item, until it runs out.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ClaimId {
    /// Whose flow.
    pub flow: FlowName,
    /// Which path.
    pub path: RemotePath,
    /// Which item.
    pub sequence: u64,
    /// Counts the claims of this item: an older number has lost it.
    pub number: u64,
}

/// A claimed item, with what earlier attempts did.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The right to it.
    pub id: ClaimId,
    /// What it is.
    pub item: Item,
    /// Attempts before this one that failed.
    pub attempts: u32,
    /// Whether all sinks have it, so that only the after-action is left.
    pub committed: bool,
    /// What sinks it has been or is being put into.
    pub deliveries: Vec<Delivery>,
}

/// No sink: the [`Delivery`] of this name says where a flow has put the file at its source, or was about
/// to, so that what has its name in the meantime is another one.
pub const AT_SOURCE: &str = "";

/// How far one sink has come with an item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// The sink's name; [`AT_SOURCE`] if it tells where the file itself was renamed to.
    pub sink: String,
    /// Where it was about to put the item, recorded before it did.
    pub placement: Placement,
    /// Whether it did.
    pub done: bool,
}

/// Where a sink puts an item.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Placement {
    /// The name chosen: a path below the sink's root, a key, or empty where there is none.
    pub name: Vec<u8>,
    /// Where it is appended to something: how long that was before, in bytes.
    pub length: Option<u64>,
    /// What the sink keeps for its next attempt, of no meaning to anybody else. It goes when the item
    /// is there.
    pub note: Vec<u8>,
}

/// How a claim ends.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum End<'a> {
    /// All is done, and the source's file is where it was.
    Done,
    /// All is done, and our own after-action took the source's file away.
    Acted,
    /// Not this time: tried again after `retry` at the soonest. Counts as an attempt.
    Failed {
        /// When at the soonest.
        retry: Duration,
        /// Why.
        reason: &'a str,
    },
    /// Never, unless somebody asks for it.
    Dead {
        /// Why.
        reason: &'a str,
    },
    /// It changed or vanished before it could be fetched: this version will never be delivered. The
    /// row becomes [`State::Acted`] (so that the next scan forgets the path and takes whatever is
    /// there for new, even if it looks the same), or its next version comes up.
    Superseded,
    /// Given back untouched: the process stops, or its flow is paused.
    Released,
}

/// Where an item stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// It was there when the flow began.
    Known,
    /// To be delivered.
    Pending,
    /// Somebody works on it.
    Claimed,
    /// All sinks have it; the after-action is left.
    Committed,
    /// All is done.
    Done,
    /// All is done, and our after-action took the file away.
    Acted,
    /// Given up after too many attempts.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Known,
        Self::Pending,
        Self::Claimed,
        Self::Committed,
        Self::Done,
        Self::Acted,
        Self::Dead,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Pending => "pending",
            Self::Claimed => "claimed",
            Self::Committed => "committed",
            Self::Done => "done",
            Self::Acted => "acted",
            Self::Dead => "dead",
        }
    }
}

/// A row of the ledger, for people and for moving it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The newest item of the path that is not waiting behind a claim.
    pub item: Item,
    /// Where it stands.
    pub state: State,
    /// Failed attempts.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Option<String>,
    /// What sinks it is in or on its way to.
    pub deliveries: Vec<Delivery>,
    /// What was recorded while it was claimed.
    pub next: Option<Next>,
}

/// What waits behind a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Next {
    /// As it was seen; `None` if it is gone.
    pub facts: Option<Facts>,
    /// SHA-256 of its content, if it is known.
    pub sha256: Option<[u8; 32]>,
    /// If it is gone: whether that becomes an item.
    pub told: bool,
}

/// Rows by state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// [`State::Known`].
    pub known: u64,
    /// [`State::Pending`].
    pub pending: u64,
    /// [`State::Claimed`] and [`State::Committed`].
    pub claimed: u64,
    /// [`State::Done`] and [`State::Acted`].
    pub done: u64,
    /// [`State::Dead`].
    pub dead: u64,
}

/// Why a ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The claim or lease is another's by now, or the row has gone on.
    #[error("the claim on it was lost to another")]
    Lost,
    /// The ledger cannot be reached or written just now: no space, no connection.
    #[error("the ledger cannot be used now: {what}")]
    Unavailable {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row does not match its checksum, or holds what no row holds. Nothing is delivered from it.
    #[error("the ledger is damaged at {row}: {hint}")]
    Damaged {
        /// Which row, escaped for reading.
        row: String,
        /// What to do.
        hint: &'static str,
    },
    /// It was written by a newer version, or is no ledger.
    #[error("the ledger has format {found}, and this version reads up to {known}")]
    Format {
        /// What it says.
        found: i64,
        /// What is known here.
        known: i64,
    },
    /// It would lie on a file system over which neither its lock nor its log holds.
    #[error(
        "the ledger {path} would be on {kind}, where neither its lock nor its log holds: \
         put the state directory on a disk of this machine, or keep the ledger in PostgreSQL"
    )]
    Elsewhere {
        /// Its file.
        path: String,
        /// The file system's name.
        kind: &'static str,
    },
    /// Another process has it open.
    #[error(
        "the ledger {path} is in use by another process; a listener that runs has to end first"
    )]
    InUse {
        /// Its file.
        path: String,
    },
}

impl StoreError {
    /// Whether the same may succeed later without anybody doing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::InUse { .. })
    }
}
