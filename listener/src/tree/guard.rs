//! Is the source empty, or just not there? A file system that is not mounted leaves a directory that can
//! be listed and holds nothing, and a wrong one holds something else.
//!
//! What a scan finds missing is held back if it is nearly everything that is known, until as many
//! scans in a row have found the same. Renames are told meanwhile.

use ketch_client::FileType;

use super::{Scan, Tree};
use crate::detect::{ScanKind, Seen};

/// When removals are held back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Guard {
    /// So many names are known at least. Default: 10.
    pub names: u64,
    /// So many of a hundred of them are missing at once, at least. Default: 100, which is all.
    pub percent: u8,
    /// Scans in a row that have to find it before it is believed; 0 for no guard. Default: 20.
    pub polls: u32,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            names: 10,
            percent: 100,
            polls: 20,
        }
    }
}

impl Guard {
    /// Whether so many are too many to be believed at once.
    #[must_use]
    pub fn doubts(&self, missing: u64, known: u64) -> bool {
        let part = u128::from(known) * u128::from(self.percent.clamp(1, 100));
        self.polls > 0 && known >= self.names.max(1) && u128::from(missing) * 100 >= part
    }
}

impl Tree {
    /// After everything was listed: holds removals back that are too many to be believed.
    pub(super) fn guard(&mut self, scan: &mut Scan) {
        if scan.report.kind == ScanKind::Part {
            return;
        }
        let (missing, known) = match scan.missing.iter().any(|missing| missing.is_due) {
            true => self.lacked(scan),
            false => (0, 0),
        };
        if known > 0 && self.config.guard.doubts(missing, known) {
            if self.guarded < self.config.guard.polls {
                if self.guarded == 0 {
                    self.tell(Seen::EmptiedRaised { missing, known });
                }
                self.guarded += 1;
                for missing in &mut scan.missing {
                    missing.is_due = false;
                }
            }
        } else if scan.report.kind == ScanKind::Full || known > 0 {
            self.believe();
        }
    }

    /// There is no doubt any more.
    fn believe(&mut self) {
        if std::mem::take(&mut self.guarded) > 0 {
            self.tell(Seen::EmptiedCeased);
        }
    }

    /// How many names this scan lacked, and how many are known. Names that may be called otherwise
    /// now are not missing.
    fn lacked(&self, scan: &Scan) -> (u64, u64) {
        let renamed = scan.missing.iter().filter(|missing| missing.to.is_some());
        let mut lacked = scan.lacked.saturating_sub(renamed.count() as u64);
        for missing in &scan.missing {
            if missing.facts.kind == FileType::Directory {
                let below = self.known.below(&missing.path);
                lacked = lacked.saturating_add(below.map(|(_, node)| node.block.len()).sum());
            }
        }
        (lacked, self.known.len())
    }
}
