//! How a flow works: all its numbers and rules in one plain struct, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use super::item::FlowName;
use crate::sink::template::Template;
use crate::store::Order;

/// Items of a flow that are worked on at a time, unless configured.
pub const CONCURRENCY: usize = 8;
/// Bytes of items that are fetched at a time, unless configured; one item alone may be larger.
pub const IN_FLIGHT_BYTES: u64 = 64 << 20;
/// Attempts before an item is given up, unless configured.
pub const ATTEMPTS: u32 = 8;
/// The longest pause after a first failure, unless configured; it doubles with every further one.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause of all, unless configured.
pub const RETRY_MAX: Duration = Duration::from_secs(300);
/// How long a claim holds without being renewed, unless configured.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long items under way may take to end when the flow stops, unless configured.
pub const DRAIN: Duration = Duration::from_secs(30);

/// How a flow works.
#[derive(Clone, Debug)]
pub struct FlowSettings {
    /// Its name.
    pub name: FlowName,
    /// Items that are worked on at a time. Default: [`CONCURRENCY`].
    pub concurrency: usize,
    /// Bytes of items that are fetched at a time. Default: [`IN_FLIGHT_BYTES`].
    pub in_flight_bytes: u64,
    /// Bytes a second that are fetched; `None` for as fast as it goes. Default: `None`.
    pub rate: Option<u64>,
    /// Attempts before an item is dead; at least 1. Default: [`ATTEMPTS`]. While a source or sink
    /// cannot be reached, or has no space, the flow waits, and nothing is counted.
    pub attempts: u32,
    /// The longest pause after a first failure. Default: [`RETRY_FIRST`].
    pub retry_first: Duration,
    /// The longest pause of all. Default: [`RETRY_MAX`].
    pub retry_max: Duration,
    /// How long a claim holds without being renewed: with several processes on one ledger, what one
    /// of them was at when it died is taken up after this. Default: [`LEASE`].
    pub lease: Duration,
    /// Which items first. Default: as they come.
    pub order: Order,
    /// Whether removals become items, for sinks that take them. Default: no.
    pub removals: bool,
    /// Whether directories become items, for sinks that take them. Default: no.
    pub directories: bool,
    /// Whether a renamed file is the same version still, and not delivered again. Default: no.
    pub renames: bool,
    /// Where a file is renamed to, below the source's root, before it is fetched. The rename is a
    /// lock: of several consumers one succeeds. Default: nowhere.
    pub pre_move: Option<Template>,
    /// What becomes of a file that all sinks have. Default: [`After::Keep`].
    pub after: After,
    /// Where a file is renamed to that was given up. Default: it stays.
    pub failed: Option<Template>,
    /// Directory for content on its way. On the file system of a directory sink that shares what was
    /// fetched nothing is copied.
    pub spool: PathBuf,
    /// The directory of such a sink: content lies in a hidden place in it on its way, and in `spool`
    /// only where that cannot be had. On Linux, and not on file systems that machines share.
    /// Default: none.
    pub beside: Option<PathBuf>,
    /// The file that keeps what is known between runs, beside the ledger.
    pub snapshot: PathBuf,
    /// How long items under way may take to end when the flow stops. Default: [`DRAIN`].
    pub drain: Duration,
    /// Several processes share the ledger: only who has the lease scans. Default: no.
    pub shared: bool,
    /// Whether an after-action compares the content of a file with what was delivered, and not its size
    /// and time alone. Default: no; a flow that tells versions apart by content does so always.
    pub by_content: bool,
}

/// What becomes of a file that all sinks have.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum After {
    /// It stays.
    #[default]
    Keep,
    /// It is removed.
    Delete,
    /// It is renamed, below the source's root; a name that is taken gets a number.
    Move(Template),
    /// It is renamed, and replaces what has that name.
    MoveOver(Template),
}

impl FlowSettings {
    /// The defaults, with content on its way in `spool` and what is known in `snapshot`.
    #[must_use]
    pub fn new(name: FlowName, spool: PathBuf, snapshot: PathBuf) -> Self {
        Self {
            name,
            concurrency: CONCURRENCY,
            in_flight_bytes: IN_FLIGHT_BYTES,
            rate: None,
            attempts: ATTEMPTS,
            retry_first: RETRY_FIRST,
            retry_max: RETRY_MAX,
            lease: LEASE,
            order: Order::Any,
            removals: false,
            directories: false,
            renames: false,
            pre_move: None,
            after: After::Keep,
            failed: None,
            spool,
            beside: None,
            snapshot,
            drain: DRAIN,
            shared: false,
            by_content: false,
        }
    }
}
