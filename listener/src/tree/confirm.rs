//! What is missing: is it gone, or called something else?

use std::collections::{HashMap, HashSet};

use ketch_client::{Attrs, FileType, Kind, RemotePath};

use super::block::Entry;
use super::known::split;
use super::{Scan, Tree, Why};
use crate::detect::{LOOKS_MAX, ListError, Seen};
use crate::flow::item::Change;
use crate::snapshot::Facts;

/// By what a file is told under another name.
type Key = (FileType, u64, u32);

fn key_of(facts: &Facts) -> Option<Key> {
    match (facts.size, facts.mtime) {
        // Empty files look alike.
        (Some(size), Some(mtime)) if size > 0 => Some((facts.kind, size, mtime)),
        _ => None,
    }
}

/// For each key the only path that has it; `None` where there are several.
fn only<'a, K: std::hash::Hash + Eq>(
    paths: impl Iterator<Item = (K, &'a RemotePath)>,
) -> HashMap<K, Option<&'a RemotePath>> {
    let mut found: HashMap<K, Option<&RemotePath>> = HashMap::new();
    for (key, path) in paths {
        found
            .entry(key)
            .and_modify(|one| *one = None)
            .or_insert(Some(path));
    }
    found
}

impl Tree {
    /// Finds for each missing file the one new name that it may have.
    pub(super) fn match_renames(&self, scan: &mut Scan) {
        if scan.missing.is_empty() {
            return;
        }
        let created: Vec<_> = self.renamed_to(scan);
        if created.is_empty() {
            return;
        }
        let keys =
            |(path, facts): &(RemotePath, Facts)| key_of(facts).map(|key| (key, path.clone()));
        let new: Vec<_> = created.iter().filter_map(keys).collect();
        let gone: Vec<_> = scan
            .missing
            .iter()
            .filter_map(|missing| Some((key_of(&missing.facts)?, missing.path.clone())))
            .collect();
        let name = |path: &RemotePath| split(path).1.to_vec();
        let new_only = only(new.iter().map(|(key, path)| (*key, path)));
        let gone_only = only(gone.iter().map(|(key, path)| (*key, path)));
        let new_named = only(new.iter().map(|(key, path)| ((*key, name(path)), path)));
        let gone_named = only(gone.iter().map(|(key, path)| ((*key, name(path)), path)));
        for missing in &mut scan.missing {
            let Some(key) = key_of(&missing.facts) else {
                continue;
            };
            let to = match (new_only.get(&key), gone_only.get(&key)) {
                (Some(Some(to)), Some(Some(_))) => Some(*to),
                _ => {
                    let named = (key, name(&missing.path));
                    match (new_named.get(&named), gone_named.get(&named)) {
                        (Some(Some(to)), Some(Some(_))) => Some(*to),
                        _ => None,
                    }
                }
            };
            missing.to = to.cloned();
        }
    }

    /// Files that are new and not told yet.
    fn renamed_to(&self, scan: &Scan) -> Vec<(RemotePath, Facts)> {
        let mut created: Vec<_> = scan.created.iter().collect();
        let before = self.created.iter();
        created.extend(before.filter(|(path, _)| !scan.created.contains_key(*path)));
        created
            .into_iter()
            .filter(|(path, _)| self.settle.contains(path))
            .map(|(path, facts)| (path.clone(), *facts))
            .collect()
    }

    /// What is asked for next: what was missing often enough or may have another name, then
    /// directories that changed behind their times.
    pub(super) fn missing_to_ask(&self, scan: &mut Scan) -> Vec<RemotePath> {
        let mut paths = Vec::new();
        scan.asked.clear();
        let from = scan.confirmed;
        for (index, missing) in scan.missing.iter().enumerate().skip(from) {
            if paths.len() >= LOOKS_MAX {
                break;
            }
            scan.confirmed = index + 1;
            let may_have_moved = missing.facts.kind == FileType::Directory
                && !(scan.created.is_empty() && self.created.is_empty());
            if missing.is_due || missing.to.is_some() || may_have_moved {
                paths.push(missing.path.clone());
                scan.asked.push(Why::Missing(index));
            }
        }
        while paths.len() < LOOKS_MAX
            && let Some((path, mtime)) = scan.suspects.pop()
        {
            paths.push(path);
            scan.asked.push(Why::Suspect(mtime));
        }
        paths
    }

    /// Whether something that is missing is there.
    pub(super) fn on_missing(
        &mut self,
        scan: &mut Scan,
        index: usize,
        answer: Result<Attrs, ListError>,
    ) {
        let Some(missing) = scan.missing.get_mut(index) else {
            return;
        };
        let (path, is_due, to) = (missing.path.clone(), missing.is_due, missing.to.take());
        let Some(entry) = self.known.get(&path) else {
            return;
        };
        match answer {
            // The listing left it out.
            Ok(_) => self.known.set(&path, Some(Entry { missed: 0, ..entry })),
            Err(error) if error.kind() == Kind::NotFound => {
                if entry.facts.kind == FileType::Directory {
                    let moved = self.rename_below(scan, &path);
                    if is_due && self.remove_below(&path, &moved) {
                        self.known.set(&path, None);
                    }
                } else if let Some(to) = to.filter(|to| self.settle.contains(to)) {
                    self.rename(path, to, entry.facts);
                } else if is_due {
                    self.settle.vanished(&path);
                    self.remove(path);
                }
            }
            // Nobody knows.
            Err(_) => {}
        }
    }

    fn rename(&mut self, from: RemotePath, to: RemotePath, facts: Facts) {
        if !self.leaving.insert(from.clone()) {
            return;
        }
        self.settle.vanished(&to);
        self.tell(Seen::Renamed {
            from: from.clone(),
            to: to.clone(),
        });
        self.changes.push_back(Change::Renamed { from, to, facts });
    }

    /// Files of a directory that is gone, which have their old names in another: their old paths.
    fn rename_below(&mut self, scan: &Scan, directory: &RemotePath) -> HashSet<RemotePath> {
        let created = self.renamed_to(scan);
        let named = |path: &RemotePath, facts: &Facts| {
            key_of(facts).map(|key| (key, split(path).1.to_vec()))
        };
        let new = only(
            created
                .iter()
                .filter_map(|(path, facts)| Some((named(path, facts)?, path))),
        );
        if new.is_empty() {
            return HashSet::new();
        }
        let below: Vec<_> = self
            .known
            .told_below(directory, self.config.changes_max)
            .into_iter()
            .filter_map(|path| {
                let facts = self.known.get(&path)?.facts;
                Some((named(&path, &facts)?, path, facts))
            })
            .collect();
        let old = only(below.iter().map(|(key, path, _)| (key.clone(), path)));
        let mut moved = HashSet::new();
        for (key, from, facts) in &below {
            if let (Some(Some(_)), Some(Some(to))) = (old.get(key), new.get(key)) {
                self.rename(from.clone(), (*to).clone(), *facts);
                moved.insert(from.clone());
            }
        }
        moved
    }

    pub(super) fn remove(&mut self, path: RemotePath) {
        if !self.leaving.insert(path.clone()) {
            return;
        }
        self.tell(Seen::Removed { path: path.clone() });
        self.changes.push_back(Change::Removed { path });
    }

    /// A directory is gone: so is every file below it, as many as there is room for. Returns whether
    /// none was left; then its own name may be forgotten.
    ///
    /// Those that `moved` are told already.
    pub(super) fn remove_below(
        &mut self,
        directory: &RemotePath,
        moved: &HashSet<RemotePath>,
    ) -> bool {
        let room = self.config.changes_max.saturating_sub(self.changes.len());
        let files = self.known.told_below(directory, room.max(1));
        let is_empty = files.is_empty();
        for path in files.into_iter().filter(|path| !moved.contains(path)) {
            self.remove(path);
        }
        if is_empty {
            for gone in self.known.forget_nodes(directory) {
                self.dirty.remove(&gone);
                self.errors.remove(&gone);
                self.hot.remove(&gone);
            }
            self.tell(Seen::Removed {
                path: directory.clone(),
            });
            if self.config.directories {
                self.changes.push_back(Change::Removed {
                    path: directory.clone(),
                });
            }
        }
        is_empty
    }
}
