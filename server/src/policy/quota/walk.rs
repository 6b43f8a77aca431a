//! Counting what is in a tree.

use std::io;
use std::sync::Arc;

use tracing::warn;

use super::Amount;
use crate::fs::{Answer, Batch, Call, FileSystem, TYPE_BITS, TYPE_FILE};
use crate::path::VPath;

/// Directories that wait to be counted, at most: those beyond are left out, with a log line.
const WAITING_MAX: usize = 65_536;

/// What a count of a tree has found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) amount: Amount,
    /// Nothing was left out: there is no more than that.
    pub(super) is_all: bool,
}

/// Counts everything beneath the root. What goes away meanwhile is passed over; a directory that
/// cannot be read is left out.
pub(super) async fn count(files: Arc<dyn FileSystem>) -> io::Result<Found> {
    let mut found = Amount::default();
    let mut waiting = vec![VPath::root()];
    let mut left_out = 0_u64;
    while let Some(path) = waiting.pop() {
        let call = Call::OpenDirectory { path: path.clone() };
        let mut directory = match Arc::clone(&files).call(call).await {
            Ok(Answer::Directory(directory)) => directory,
            Err(error) if path.is_root() => return Err(error),
            Err(error) if is_gone(&error) => continue,
            _ => {
                left_out = left_out.saturating_add(1);
                continue;
            }
        };
        let mut batch = Batch::default();
        loop {
            batch.clear();
            match directory.read(batch).await {
                Ok(read) => (directory, batch) = read,
                Err(error) => {
                    left_out = left_out.saturating_add(u64::from(!is_gone(&error)));
                    break;
                }
            }
            if batch.entries().is_empty() {
                break;
            }
            for entry in batch.entries() {
                found.files = found.files.saturating_add(1);
                if entry.metadata.mode & TYPE_BITS == TYPE_FILE {
                    found.bytes = found.bytes.saturating_add(entry.metadata.size);
                }
                if entry.metadata.is_directory() {
                    match path.walk(&entry.name) {
                        Ok(below) if waiting.len() < WAITING_MAX => waiting.push(below),
                        _ => left_out = left_out.saturating_add(1),
                    }
                }
            }
        }
    }
    if left_out > 0 {
        warn!(left_out, "directories were not counted against a quota");
    }
    Ok(Found {
        amount: found,
        is_all: left_out == 0,
    })
}

/// Whether something was removed, or became something else, since its directory was read.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
