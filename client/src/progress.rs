//! How far a transfer is: counters that anybody may read while it runs.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Counters of one transfer, or of several that share them.
///
/// Reading them costs nothing; how often to do so is up to the reader. The totals grow while
/// directories are still being listed.
///
/// ```
/// use std::sync::Arc;
/// use ketch_client::{GetOptions, Progress};
///
/// let progress = Arc::new(Progress::new());
/// let options = GetOptions::new().progress(Arc::clone(&progress));
/// assert_eq!((progress.bytes_done(), progress.files_total()), (0, 0));
/// # drop(options);
/// ```
#[derive(Debug, Default)]
pub struct Progress {
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    files_done: AtomicU64,
    files_total: AtomicU64,
    paused: AtomicU32,
}

impl Progress {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of file data that reached the other side.
    #[must_use]
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done.load(Relaxed)
    }

    /// Bytes of the files met so far; those of unknown size count when they have come.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total.load(Relaxed)
    }

    /// Files that are whole and have their name.
    #[must_use]
    pub fn files_done(&self) -> u64 {
        self.files_done.load(Relaxed)
    }

    /// Files met so far.
    #[must_use]
    pub fn files_total(&self) -> u64 {
        self.files_total.load(Relaxed)
    }

    /// Whether a transfer is paused ([`Control::pause`](crate::Control::pause)).
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed) > 0
    }

    /// A transfer is paused, or no longer.
    pub(crate) fn set_paused(&self, yes: bool) {
        if yes {
            self.paused.fetch_add(1, Relaxed);
        } else {
            self.paused.fetch_sub(1, Relaxed);
        }
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Relaxed);
    }

    /// Bytes that were counted have to come again.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Relaxed);
    }

    /// More came than was announced, or less.
    pub(crate) fn correct_total(&self, announced: u64, found: u64) {
        self.bytes_total
            .fetch_add(found.wrapping_sub(announced), Relaxed);
    }

    pub(crate) fn add_file(&self, bytes: u64) {
        self.files_total.fetch_add(1, Relaxed);
        self.bytes_total.fetch_add(bytes, Relaxed);
    }

    /// What was counted as a file was none.
    pub(crate) fn forget_file(&self) {
        self.files_total.fetch_sub(1, Relaxed);
    }

    pub(crate) fn finish_file(&self) {
        self.files_done.fetch_add(1, Relaxed);
    }
}
