//! Which directory is listed next, and what becomes of one that was listed, or could not be.

use std::time::Instant;

use ketch_client::{Kind, RemotePath};

use super::known::split;
use super::{Phase, Scan, Tree};
use crate::detect::{ListError, ScanKind, Seen};
use crate::listing::Listing;

impl Tree {
    /// The next directory to list; `None` if there is none now.
    pub fn next_directory(&mut self, now: Instant) -> Option<RemotePath> {
        let is_full = self.is_full();
        let scan = self.scan.as_mut()?;
        if is_full || scan.report.lost.is_some() || scan.phase != Phase::List {
            return None;
        }
        let mut waiting = scan.waiting.pop()?;
        waiting.since.get_or_insert(now);
        let path = waiting.path.clone();
        scan.in_flight.insert(path.clone(), waiting);
        Some(path)
    }

    /// Takes a complete, finished listing, or why there is none.
    pub fn on_listing(
        &mut self,
        now: Instant,
        directory: &RemotePath,
        result: Result<Listing, ListError>,
    ) {
        let Some(mut scan) = self.scan.take() else {
            return;
        };
        if let Some(waiting) = scan.in_flight.remove(directory) {
            match result {
                Ok(listing) => {
                    scan.report.directories += 1;
                    scan.report.entries += listing.len() as u64;
                    scan.report.refused += listing.refused();
                    if self.errors.remove(directory).is_some() {
                        self.tell(Seen::ErrorCeased {
                            directory: directory.clone(),
                        });
                    }
                    if scan.report.lost.is_none() {
                        self.is_back();
                    }
                    self.on_complete(&mut scan, now, &waiting, &listing);
                    if scan.report.entries > self.config.entries_max {
                        let error = crate::listing::ListingTooLarge {
                            entries_max: usize::try_from(self.config.entries_max)
                                .unwrap_or(usize::MAX),
                        };
                        scan.report.refused += scan.waiting.len() as u64;
                        scan.waiting.clear();
                        self.raise(&mut scan, RemotePath::from(""), error.into());
                    }
                }
                Err(error) if error.is_lost() => {
                    scan.waiting.push(waiting);
                    self.lose(&mut scan, error);
                }
                Err(error) => self.on_unreadable(&mut scan, directory, error),
            }
        }
        self.scan = Some(scan);
    }

    /// Nothing below counts as gone, and what is known below is listed where it can be.
    fn on_unreadable(&mut self, scan: &mut Scan, directory: &RemotePath, error: ListError) {
        self.dirty.insert(directory.clone());
        if error.kind() == Kind::NotFound && !directory.as_bytes().is_empty() {
            // Gone since its name was seen: the next listing of its parent says so, or not.
            self.dirty.insert(split(directory).0);
        } else {
            self.raise(scan, directory.clone(), error);
        }
        // Their times were to come with it.
        let is_telling = scan.telling.contains(directory.as_bytes());
        if scan.report.kind == ScanKind::Full || is_telling {
            for inner in self.known.inner(directory) {
                scan.plan(inner, None);
            }
        }
    }

    pub(super) fn raise(&mut self, scan: &mut Scan, directory: RemotePath, error: ListError) {
        scan.report.unreadable += 1;
        if self
            .errors
            .insert(directory.clone(), error.clone())
            .is_none()
        {
            self.tell(Seen::ErrorRaised { directory, error });
        }
    }

    pub(super) fn lose(&mut self, scan: &mut Scan, error: ListError) {
        if scan.report.lost.is_none() {
            self.raise(scan, RemotePath::from(""), error.clone());
        }
        scan.report.lost = Some(error);
    }

    /// A directory was listed, so the source is not lost any more.
    fn is_back(&mut self) {
        let root = RemotePath::from("");
        if self.errors.get(&root).is_some_and(ListError::is_lost) {
            self.errors.remove(&root);
            self.tell(Seen::ErrorCeased { directory: root });
        }
    }
}
