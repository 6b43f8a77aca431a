//! Hidden files that servers left which were killed: they are removed before anybody minds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{info, warn};

use super::{Staging, is_hidden};
use crate::fs::{Answer, Batch, Call};
use crate::path::VPath;

/// Directories that wait to be looked at, at most: those beyond are left out, with a log line.
const WAITING_MAX: usize = 65_536;

impl Staging {
    /// Work that removes what nobody has claimed, if that was not begun yet.
    pub(crate) fn reap_once(self: &Arc<Self>) -> Option<impl Future<Output = ()> + Send + 'static> {
        let is_first = !self.has_reaped.swap(true, Ordering::AcqRel);
        let staging = Arc::clone(self);
        is_first.then_some(async move {
            let removed = staging.reap().await;
            if removed > 0 {
                info!(removed, "uploads that a killed server left were removed");
            }
        })
    }

    /// Looks through the whole tree; says how many it removed.
    async fn reap(&self) -> u64 {
        let mut waiting = vec![VPath::root()];
        let (mut removed, mut left_out) = (0_u64, 0_u64);
        while let Some(path) = waiting.pop() {
            let call = Call::OpenDirectory { path: path.clone() };
            let Ok(Answer::Directory(mut directory)) = Arc::clone(&self.files).call(call).await
            else {
                continue;
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
                    let Ok(below) = path.walk(&entry.name) else {
                        continue;
                    };
                    if entry.metadata.is_directory() {
                        match waiting.len() < WAITING_MAX {
                            true => waiting.push(below),
                            false => left_out = left_out.saturating_add(1),
                        }
                    } else if is_hidden(&entry.name) {
                        let call = Call::RemoveAbandoned { path: below };
                        let gone = Arc::clone(&self.files).call(call).await.is_ok();
                        removed = removed.saturating_add(u64::from(gone));
                    }
                }
            }
        }
        if left_out > 0 {
            warn!(
                left_out,
                "directories were not looked through for leftovers"
            );
        }
        removed
    }
}
