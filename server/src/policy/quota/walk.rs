//! Counting what is in a tree.

use std::io;
use std::sync::Arc;

use tracing::warn;

use super::Amount;
use crate::fs::{Answer, Batch, Call, FileSystem, TYPE_BITS, TYPE_FILE};
use crate::path::VPath;

/// Directories that wait to be counted, at most: those beyond are left out, with a log line.
const WAITING_MAX: usize = 65_536;

/// Counts everything beneath the root. What goes away meanwhile is passed over; a directory that
/// cannot be read counts as empty.
pub(super) async fn count(files: Arc<dyn FileSystem>) -> io::Result<Amount> {
    let mut found = Amount::default();
    let mut waiting = vec![VPath::root()];
    let mut left_out = 0_u64;
    while let Some(path) = waiting.pop() {
        let call = Call::OpenDirectory { path: path.clone() };
        let mut directory = match Arc::clone(&files).call(call).await {
            Ok(Answer::Directory(directory)) => directory,
            Err(error) if path.is_root() => return Err(error),
            _ => continue,
        };
        let mut batch = Batch::default();
        loop {
            batch.clear();
            let Ok(read) = directory.read(batch).await else {
                break;
            };
            (directory, batch) = read;
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
    Ok(found)
}
