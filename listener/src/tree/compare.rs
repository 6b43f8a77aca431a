//! A listing, or a look at one path, against what is known of it.

use std::collections::HashSet;
use std::time::Instant;

use ketch_client::{Attrs, FileType, Kind, RemotePath};

use super::block::{Cursor, Entry};
use super::known::{Edits, depth, parent_of, split};
use super::times::HOT;
use super::{Hot, MISSING_MAX, Missing, Scan, Tree, Waiting, mtime_of};
use crate::detect::{DirectoryTimes, First, ListError, ScanKind, Seen};
use crate::flow::item::Change;
use crate::listing::Listing;
use crate::select::{DEPTH_MAX, Selected};
use crate::settle::Observed;
use crate::snapshot::Facts;

/// A name that is there.
struct There<'a> {
    path: RemotePath,
    attrs: &'a Attrs,
    facts: Facts,
    /// What is known of it.
    known: Option<Entry>,
}

/// What comparing a directory brings together.
#[derive(Default)]
struct Findings {
    edits: Edits,
    /// Something is there, or missing, that is not known so.
    is_dirty: bool,
    /// Names came or went since it was listed last.
    is_changed: bool,
    is_baseline: bool,
}

impl Tree {
    pub(super) fn on_complete(
        &mut self,
        scan: &mut Scan,
        now: Instant,
        waiting: &Waiting,
        listing: &Listing,
    ) {
        let directory = &waiting.path;
        let was_dirty = self.dirty.contains(directory);
        let node = self.known.node_mut(directory);
        let mut block = std::mem::take(&mut node.block);
        let mut found = Findings {
            is_baseline: self.is_first && self.config.first == First::Baseline && !node.listed,
            ..Findings::default()
        };
        let mut markers = Vec::new();
        let mut cursor = block.cursor();
        let mut old = cursor.advance();
        for listed in listing.entries() {
            while let Some(entry) = old
                && cursor.name() < listed.name()
            {
                self.on_lacking(scan, directory, &cursor, entry, &mut found);
                old = cursor.advance();
            }
            let known = match old {
                Some(entry) if cursor.name() == listed.name() => {
                    old = cursor.advance();
                    Some(entry)
                }
                _ => None,
            };
            let facts = Facts::typed(listed.kind(), listed.attrs());
            let is_directory = facts.kind == FileType::Directory;
            let is_same =
                known.is_some_and(|entry| entry.facts == facts && entry.missed == 0 && entry.told);
            if is_same && !is_directory && !was_dirty {
                continue; // the way of almost every name
            }
            let path = directory.join(listed.name());
            if !is_directory && self.settle.is_marker(&path) {
                markers.push(path);
                continue;
            }
            let there = There {
                path,
                attrs: listed.attrs(),
                facts,
                known,
            };
            self.on_name(scan, now, there, &mut found);
        }
        while let Some(entry) = old {
            self.on_lacking(scan, directory, &cursor, entry, &mut found);
            old = cursor.advance();
        }
        // Behind the files: they must not be older than what they vouch for.
        for path in markers {
            self.settle.seen(now, &path);
        }
        block.edit(&found.edits);
        let node = self.known.node_mut(directory);
        node.block = block;
        node.listed = true;
        if found.is_dirty {
            self.dirty.insert(directory.clone());
        } else {
            self.dirty.remove(directory);
        }
        if self.config.directory_times == DirectoryTimes::Learn {
            self.learn(scan, now, waiting, &found);
        }
    }

    fn on_name(&mut self, scan: &mut Scan, now: Instant, there: There<'_>, found: &mut Findings) {
        let There {
            path,
            attrs,
            facts,
            known,
        } = there;
        let is_directory = facts.kind == FileType::Directory;
        let was_directory = known.is_some_and(|old| old.facts.kind == FileType::Directory);
        match known {
            Some(old) if old.facts == facts => {
                if old.missed > 0 {
                    found
                        .edits
                        .push((name_of(&path), Some(Entry { missed: 0, ..old })));
                }
                if is_directory {
                    if !old.told {
                        self.tell_directory(&path, facts, found);
                    }
                    self.descend(scan, path, attrs);
                } else {
                    self.settle.vanished(&path);
                }
            }
            Some(_) if was_directory => {
                // Something else took a directory's name, so that all below it is gone.
                found.is_dirty = true;
                found.is_changed = true;
                if self.remove_below(&path, &HashSet::new()) {
                    found.edits.push((name_of(&path), None));
                }
            }
            Some(_) if is_directory => {
                found.is_dirty = true;
                found.is_changed = true;
                self.settle.vanished(&path);
                self.remove(path);
            }
            None if is_directory => {
                if !self.config.select.enters(&path)
                    || depth(&path) > self.config.select.depth_max()
                {
                    return;
                }
                found.is_changed = true;
                let entry = Entry {
                    facts,
                    missed: 0,
                    told: !self.config.directories,
                };
                found.edits.push((name_of(&path), Some(entry)));
                if self.config.directories {
                    self.tell_directory(&path, facts, found);
                }
                self.tell(Seen::Created {
                    path: path.clone(),
                    facts,
                });
                self.descend(scan, path, attrs);
            }
            Some(_) | None => self.on_file(scan, now, path, facts, known.is_none(), found),
        }
    }

    fn tell_directory(&mut self, path: &RemotePath, facts: Facts, found: &mut Findings) {
        let path = path.clone();
        found.is_dirty = true;
        self.changes.push_back(match found.is_baseline {
            true => Change::Baseline { path, facts },
            false => Change::Present {
                path,
                facts,
                sha256: None,
            },
        });
    }

    /// A file that is not known, or not so.
    fn on_file(
        &mut self,
        scan: &mut Scan,
        now: Instant,
        path: RemotePath,
        facts: Facts,
        is_new: bool,
        found: &mut Findings,
    ) {
        match self.config.select.selects(&path, &facts, scan.wall) {
            Selected::Yes => {}
            Selected::No => {
                // A push may have made it a candidate by its name.
                self.settle.vanished(&path);
                return;
            }
            Selected::Later => {
                found.is_dirty = true;
                return;
            }
        }
        if !self.settle.is_candidate(&path) {
            return;
        }
        found.is_dirty = true;
        if is_new && found.is_baseline {
            self.changes.push_back(Change::Baseline { path, facts });
            return;
        }
        let is_first_sight = !self.settle.contains(&path);
        if self.settle.observe(now, &path, facts) == Observed::Full {
            scan.report.turned_away += 1;
            return;
        }
        if is_first_sight {
            found.is_changed |= is_new;
            let (told, facts_told) = (path.clone(), facts);
            self.tell(match is_new {
                true => Seen::Created {
                    path: told,
                    facts: facts_told,
                },
                false => Seen::Modified {
                    path: told,
                    facts: facts_told,
                },
            });
        }
        if is_new && is_first_sight && scan.created.len() < MISSING_MAX {
            scan.created.insert(path, facts);
        }
    }

    /// A name that a complete listing lacks.
    fn on_lacking(
        &mut self,
        scan: &mut Scan,
        directory: &RemotePath,
        cursor: &Cursor<'_>,
        entry: Entry,
        found: &mut Findings,
    ) {
        found.is_dirty = true;
        found.is_changed |= entry.missed == 0;
        scan.lacked = scan.lacked.saturating_add(1);
        if scan.missing.len() >= MISSING_MAX {
            return;
        }
        let missed = entry.missed.saturating_add(1);
        let is_due = missed >= self.config.missing_polls;
        if missed <= 3 && !is_due {
            let edit = Entry { missed, ..entry };
            found.edits.push((cursor.name().to_vec(), Some(edit)));
        }
        scan.missing.push(Missing {
            path: directory.join(cursor.name()),
            facts: entry.facts,
            is_due,
            to: None,
        });
    }

    /// A directory that a listing has.
    fn descend(&self, scan: &mut Scan, path: RemotePath, attrs: &Attrs) {
        let depth_max = self.config.select.depth_max();
        if depth(&path) >= depth_max {
            // Deeper than asked for is as it should be; deeper than anybody may ask for is told.
            scan.report.refused += u64::from(depth_max >= DEPTH_MAX);
            return;
        }
        if !self.config.select.enters(&path) {
            return;
        }
        let mtime = mtime_of(attrs);
        let is_new = || self.known.node(&path).is_none_or(|node| !node.listed);
        // A quiet scan that has the time from here has not asked for it.
        let is_told = || parent_of(&path).is_some_and(|parent| scan.telling.contains(parent));
        let is_due = || is_told() && !self.is_quiet(&path, mtime);
        if scan.report.kind == ScanKind::Full || is_new() || is_due() {
            scan.plan(path, mtime);
        }
    }

    /// What a listing says about the times of directories.
    fn learn(&mut self, scan: &mut Scan, now: Instant, waiting: &Waiting, found: &Findings) {
        let directory = &waiting.path;
        let node = self.known.node_mut(directory);
        let settled = node.mtime;
        if settled.is_some() && found.is_changed && scan.report.kind == ScanKind::Full {
            match waiting.mtime {
                // Unless it changed after its time was asked for: that is asked again.
                Some(mtime) if settled == Some(mtime) => {
                    scan.suspects.push((directory.clone(), mtime));
                }
                Some(_) => self.known.trust.witness(),
                None => {}
            }
        }
        let node = self.known.node_mut(directory);
        let Some(mtime) = waiting.mtime else {
            node.mtime = None;
            return;
        };
        let hot = self.hot.get(directory).filter(|hot| hot.mtime == mtime);
        let started = waiting.since.unwrap_or(now);
        match hot {
            Some(hot) if !found.is_dirty && started.saturating_duration_since(hot.since) >= HOT => {
                node.mtime = Some(mtime);
                self.hot.remove(directory);
            }
            None if !found.is_dirty && settled == Some(mtime) => {}
            Some(_) => node.mtime = None,
            None => {
                node.mtime = None;
                let hot = Hot { mtime, since: now };
                self.hot.insert(directory.clone(), hot);
            }
        }
    }

    /// A path that a push told of, or that may have settled.
    pub(super) fn on_asked(
        &mut self,
        scan: &mut Scan,
        now: Instant,
        path: RemotePath,
        answer: Result<Attrs, ListError>,
    ) {
        let known = self.known.get(&path);
        let attrs = match answer {
            Ok(attrs) => attrs,
            Err(error) if error.kind() == Kind::NotFound => {
                self.settle.vanished(&path);
                if let Some(entry) = known
                    && scan.missing.len() < MISSING_MAX
                {
                    // A push is as good as the listings that would lack it; it is asked once more.
                    scan.missing.push(Missing {
                        path,
                        facts: entry.facts,
                        is_due: true,
                        to: None,
                    });
                }
                return;
            }
            Err(_) => {
                self.dirty.insert(split(&path).0);
                return;
            }
        };
        if path.as_bytes().is_empty() {
            scan.plan(path, mtime_of(&attrs));
            return;
        }
        if !self.config.select.reaches(&path) {
            return;
        }
        let facts = Facts::of(&attrs);
        if facts.kind != FileType::Directory && self.settle.is_marker(&path) {
            self.settle.seen(now, &path);
            return;
        }
        let parent = split(&path).0;
        // What is in a directory nobody has listed yet comes with its listing.
        if self.known.node(&parent).is_none_or(|node| !node.listed) {
            self.settle.vanished(&path);
            return;
        }
        let mut found = Findings::default();
        let there = There {
            path,
            attrs: &attrs,
            facts,
            known,
        };
        self.on_name(scan, now, there, &mut found);
        self.known.edit(&parent, &found.edits);
        if found.is_dirty {
            self.dirty.insert(parent);
        }
    }
}

fn name_of(path: &RemotePath) -> Vec<u8> {
    split(path).1.to_vec()
}
