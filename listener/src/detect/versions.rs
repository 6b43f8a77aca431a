//! Versions that look alike: the same size in the same second, and other content.
//!
//! Times are whole seconds (draft-ietf-secsh-filexfer-02 §5), so that a file which is written again
//! within the second of its last change, with the same size, cannot be told from itself by looking.
//! With [`Versions::Hash`](super::Versions::Hash) the files that changed lately are hashed after each
//! full sweep, and what has another sum than before is told as another version. After
//! [`WINDOW`] a file is left alone: whoever keeps size and time for longer means to deceive.
//!
//! No clock and no source in here; the driver hashes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ketch_client::{FileType, RemotePath};

use crate::flow::item::Change;
use crate::snapshot::Facts;

/// How long after it changed a file is hashed.
pub const WINDOW: Duration = Duration::from_secs(600);

/// Files that are remembered for it; of more, those that changed first are left out.
pub const FILES_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Recent {
    files: BTreeMap<RemotePath, Version>,
}

#[derive(Clone, Copy, Debug)]
struct Version {
    facts: Facts,
    since: Instant,
    sha256: Option<[u8; 32]>,
}

impl Recent {
    /// The ledger has these.
    pub(super) fn recorded(&mut self, now: Instant, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Present {
                    path,
                    facts,
                    sha256,
                } if facts.kind == FileType::Regular => {
                    let known = self.files.get(path).filter(|known| known.facts == *facts);
                    let version = Version {
                        facts: *facts,
                        since: known.map_or(now, |known| known.since),
                        sha256: sha256.or(known.and_then(|known| known.sha256)),
                    };
                    self.files.insert(path.clone(), version);
                }
                Change::Renamed { from: path, .. } | Change::Removed { path } => {
                    self.files.remove(path);
                }
                Change::Present { .. } | Change::Baseline { .. } => {}
            }
        }
        if self.files.len() > FILES_MAX {
            let mut ages: Vec<_> = self.files.values().map(|version| version.since).collect();
            ages.sort_unstable();
            let oldest = ages.get(self.files.len() - FILES_MAX).copied();
            self.files
                .retain(|_, version| Some(version.since) >= oldest);
        }
    }

    /// Those that are to be hashed now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<RemotePath> {
        self.files
            .retain(|_, version| now.saturating_duration_since(version.since) < WINDOW);
        self.files.keys().cloned().collect()
    }

    /// The sum of a file, hashed after a sweep: another version, if it is another than before. The
    /// first sum is always told: the ledger knows what was fetched.
    pub(super) fn hashed(&mut self, path: &RemotePath, sum: [u8; 32]) -> Option<Change> {
        let version = self.files.get_mut(path)?;
        if version.sha256.replace(sum) == Some(sum) {
            return None;
        }
        Some(Change::Present {
            path: path.clone(),
            facts: version.facts,
            sha256: Some(sum),
        })
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
mod tests {
    use super::*;

    fn present(path: &str) -> Change {
        Change::Present {
            path: path.into(),
            facts: Facts {
                kind: FileType::Regular,
                size: Some(1),
                mtime: Some(2),
            },
            sha256: None,
        }
    }

    #[test]
    fn other_content_is_told_once() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.recorded(now, &[present("a")]);
        let path = RemotePath::from("a");
        assert_eq!(recent.due(now), std::slice::from_ref(&path));
        let told = recent.hashed(&path, [1; 32]).unwrap();
        recent.recorded(now + WINDOW / 2, &[told]);
        assert_eq!(recent.hashed(&path, [1; 32]), None);
        assert!(recent.hashed(&path, [2; 32]).is_some());
        assert_eq!(recent.hashed(&path, [2; 32]), None);
        assert!(recent.due(now + WINDOW).is_empty());
        assert_eq!(recent.hashed(&path, [3; 32]), None);
    }

    #[test]
    fn so_many_are_remembered() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for index in 0..3_u32 {
            let changes: Vec<_> = (0..FILES_MAX / 2)
                .map(|file| present(&format!("{index}-{file}")))
                .collect();
            recent.recorded(now + Duration::from_secs(u64::from(index)), &changes);
        }
        let due = recent.due(now);
        assert_eq!(due.len(), FILES_MAX);
        assert!(due.iter().all(|path| !path.as_bytes().starts_with(b"0-")));
    }
}
