//! What is known of a tree, as one file.

use std::path::Path;

/// What is known of a tree: every name the ledger has been told of.
#[derive(Debug, Default)]
pub struct Snapshot;

impl Snapshot {
    /// Reads what [`crate::detect::Detector::save`] wrote for the ledger `ledger`. `None` if there
    /// is no such file.
    ///
    /// # Errors
    /// [`SnapshotError`]; to go on without it costs look-ups in the ledger, nothing else.
    pub fn load(path: &Path, ledger: [u8; 16]) -> Result<Option<Self>, SnapshotError> {
        let _ = (path, ledger);
        Ok(None)
    }
}

/// Why a snapshot was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file could not be read or written.
    #[error("cannot read or write the snapshot")]
    Io(#[from] std::io::Error),
    /// It is no snapshot, or one of another version of this program.
    #[error("not a snapshot of this version")]
    Foreign,
    /// It belongs to another ledger.
    #[error("the snapshot of another ledger")]
    OtherLedger,
    /// It is cut off or was changed.
    #[error("the snapshot is damaged")]
    Damaged,
}
