//! Whether the times of directories tell the truth on this source.
//!
//! A time that stays although names came or went is a lie, and one is enough: it is given up for
//! good, and the snapshot remembers that. A time that moved when names did is a witness; a few are
//! wanted before any listing is saved. Both are looked for in every full sweep.
//!
//! Source: `tests/directory_times.rs`; servers give whole seconds (draft-ietf-secsh-filexfer-02 §5).

use std::time::Duration;

/// Directories that changed with their times before the times are trusted.
pub(super) const WITNESSES: u32 = 3;

/// How long after a time of last change was first seen its directory is listed once more: times are
/// whole seconds, so that another change may hide behind the same one.
pub const HOT: Duration = Duration::from_secs(2);

/// What was learnt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trust {
    /// So many witnesses, no contradiction.
    Learning(u32),
    /// A directory changed and its time did not.
    GivenUp,
}

impl Default for Trust {
    fn default() -> Self {
        Self::Learning(0)
    }
}

impl Trust {
    /// Whether listings may be saved.
    pub(super) const fn is_given(self) -> bool {
        matches!(self, Self::Learning(WITNESSES..))
    }

    pub(super) const fn witness(&mut self) {
        if let Self::Learning(seen) = self {
            *seen = seen.saturating_add(1);
        }
    }
}
