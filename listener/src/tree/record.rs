//! Changes go to the ledger, and what it has is known.

use std::collections::{BTreeMap, HashSet};

use ketch_client::RemotePath;

use super::Tree;
use super::block::Entry;
use super::known::{Edits, Snapshot, split};
use crate::detect::First;
use crate::flow::item::Change;
use crate::settle::Settle;

impl Tree {
    /// The next changes, at most `max`.
    pub fn take_changes(&mut self, max: usize) -> Vec<Change> {
        if self.changes.is_empty() {
            self.drain_settled();
        }
        let count = max.min(self.changes.len());
        let changes: Vec<_> = self.changes.drain(..count).collect();
        self.taken.extend(changes.iter().cloned());
        changes
    }

    /// Files that have settled become changes, as many as may wait.
    pub(super) fn drain_settled(&mut self) {
        while !self.is_full()
            && let Some((path, facts)) = self.settle.poll_ready()
        {
            self.changes.push_back(Change::Present {
                path,
                facts,
                sha256: None,
            });
        }
    }

    /// A known file, as it is known, has other content.
    pub fn tell_version(&mut self, change: Change) {
        let Change::Present { path, facts, .. } = &change else {
            return;
        };
        let is_as_known = self.known.get(path).is_some_and(|old| old.facts == *facts);
        if is_as_known && !self.settle.contains(path) {
            self.changes.push_back(change);
        }
    }

    /// The ledger has `changes`.
    pub fn recorded(&mut self, changes: &[Change]) {
        let is_in_order = self.taken.iter().take(changes.len()).eq(changes);
        if is_in_order {
            self.taken.drain(..changes.len());
        } else {
            let recorded: HashSet<_> = changes.iter().map(Change::path).collect();
            self.taken
                .retain(|change| !recorded.contains(change.path()));
        }
        let mut edits: BTreeMap<_, BTreeMap<Vec<u8>, Option<Entry>>> = BTreeMap::new();
        let mut set = |path, entry| {
            let (directory, name) = split(path);
            edits
                .entry(directory)
                .or_default()
                .insert(name.to_vec(), entry);
        };
        for change in changes {
            match change {
                Change::Baseline { path, facts } | Change::Present { path, facts, .. } => {
                    set(path, Some(Entry::told(*facts)));
                }
                Change::Removed { path } => {
                    self.leaving.remove(path);
                    set(path, None);
                }
                Change::Renamed { from, to, facts } => {
                    self.leaving.remove(from);
                    set(from, None);
                    set(to, Some(Entry::told(*facts)));
                }
            }
        }
        for (directory, names) in edits {
            let names: Edits = names.into_iter().collect();
            let is_needed = self.known.node(&directory).is_some()
                || names.iter().any(|(_, entry)| entry.is_some());
            if is_needed {
                self.known.edit(&directory, &names);
            }
        }
    }

    /// Another has made the first scan of all: what is not known is news from now on.
    pub fn first_is_over(&mut self) {
        self.config.first = First::News;
    }

    /// Forgets what is known, and whatever is under way, but not whether directory times are true.
    pub fn forget_all(&mut self) {
        let trust = self.known.trust;
        self.known = Snapshot {
            trust,
            ..Snapshot::default()
        };
        self.settle = Settle::new(self.config.settle.clone());
        self.changes.clear();
        self.taken.clear();
        self.leaving.clear();
        self.dirty.clear();
        self.hot.clear();
        self.created.clear();
        self.pushed.clear();
        self.scan = None;
        self.is_sweep_due = true;
        self.is_overtaken = false;
    }

    /// Whether something has this path, as far as is known. What no rule speaks of is left alone:
    /// then, too, this is true.
    #[must_use]
    pub fn knows(&self, path: &RemotePath) -> bool {
        let is_told = |change: &Change| change.path() == path;
        self.known.get(path).is_some()
            || self.settle.contains(path)
            || self.changes.iter().any(is_told)
            || self.taken.iter().any(is_told)
            || !self.config.select.reaches(path)
            || !self.config.select.names(path)
    }

    /// Whether the first complete scan is over, and all that it found is recorded.
    #[must_use]
    pub fn is_first_done(&self) -> bool {
        !self.is_first && self.changes.is_empty() && self.taken.is_empty()
    }
}
