//! How much of a session is on threads, and what may go there next.
//!
//! Nothing that is slow holds up what is beside it: what takes as long as it takes has places of
//! its own, one handle (or the paths together) has at most half of the places for the rest, and
//! one that has none gets one even when all are taken, up to a bound.

use crate::handles::SlotId;

/// Most short jobs of one session on threads, as a rule.
pub(crate) const JOBS_MAX: usize = 16;
/// Most of them for one handle, or for paths.
const EACH_MAX: usize = JOBS_MAX / 2;
/// Most of them at all: beyond [`JOBS_MAX`] for those that have none.
pub(crate) const JOBS_LIMIT: usize = JOBS_MAX + 8;
/// Most jobs of one session that take as long as they take.
pub(crate) const LONG_JOBS_MAX: usize = 8;

/// The jobs of a session that are on threads.
#[derive(Debug, Default)]
pub(super) struct Threads {
    short: usize,
    long: usize,
    /// How many short ones each has, of those that have any: no more than [`JOBS_LIMIT`].
    owners: Vec<(Option<SlotId>, usize)>,
    /// Something came back since [`Threads::seen`].
    has_changed: bool,
}

impl Threads {
    /// Whether a job may go to a thread. `owner`: the handle, or nothing for work on paths;
    /// `held`: results that came back and could not leave yet, which count like jobs.
    pub(super) fn may_start(&self, owner: Option<SlotId>, is_long: bool, held: usize) -> bool {
        if is_long {
            return self.long < LONG_JOBS_MAX;
        }
        let all = self.short.saturating_add(held);
        match self.of(owner) {
            0 => all < JOBS_LIMIT,
            some => all < JOBS_MAX && some < EACH_MAX,
        }
    }

    /// How many short jobs of a handle, or of paths, are on threads.
    pub(super) fn of(&self, owner: Option<SlotId>) -> usize {
        let found = self.owners.iter().find(|(of, _)| *of == owner);
        found.map_or(0, |(_, jobs)| *jobs)
    }

    pub(super) fn start(&mut self, owner: Option<SlotId>, is_long: bool) {
        if is_long {
            self.long = self.long.saturating_add(1);
            return;
        }
        self.short = self.short.saturating_add(1);
        match self.owners.iter_mut().find(|(of, _)| *of == owner) {
            Some((_, jobs)) => *jobs = jobs.saturating_add(1),
            None => self.owners.push((owner, 1)),
        }
    }

    pub(super) fn end(&mut self, owner: Option<SlotId>, is_long: bool) {
        self.has_changed = true;
        if is_long {
            self.long = self.long.saturating_sub(1);
            return;
        }
        self.short = self.short.saturating_sub(1);
        if let Some(at) = self.owners.iter().position(|(of, _)| *of == owner)
            && let Some((_, jobs)) = self.owners.get_mut(at)
        {
            *jobs = jobs.saturating_sub(1);
            if *jobs == 0 {
                self.owners.swap_remove(at);
            }
        }
    }

    /// Whether what was refused might be allowed now.
    pub(super) const fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Everything that waits was looked at.
    pub(super) const fn seen(&mut self) {
        self.has_changed = false;
    }

    /// What waits has to be looked at once more: some of it was cancelled.
    pub(super) const fn look_again(&mut self) {
        self.has_changed = true;
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.short == 0 && self.long == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handles::{HandleBudget, Handles};
    use std::collections::hash_map::RandomState;
    use std::sync::Arc;

    #[test]
    fn one_that_is_slow_leaves_places_for_others_and_long_work_has_its_own() {
        let budget = Arc::new(HandleBudget::new(100));
        let mut handles = Handles::new(RandomState::new(), budget);
        let mut slot = || Some(handles.insert(()).unwrap());
        let (slow, other) = (slot(), slot());
        let mut threads = Threads::default();
        let fill = |threads: &mut Threads, owner| {
            let mut jobs = 0;
            while threads.may_start(owner, false, 0) {
                threads.start(owner, false);
                jobs += 1;
            }
            jobs
        };
        assert_eq!(fill(&mut threads, slow), EACH_MAX);
        assert_eq!(fill(&mut threads, other), EACH_MAX);
        for _ in JOBS_MAX..JOBS_LIMIT {
            assert_eq!(fill(&mut threads, slot()), 1, "who has none gets one");
        }
        assert_eq!(fill(&mut threads, slot()), 0, "up to a bound");
        for _ in 0..LONG_JOBS_MAX {
            assert!(threads.may_start(slow, true, 0));
            threads.start(slow, true);
        }
        assert!(!threads.may_start(slow, true, 0));
        threads.end(slow, false);
        assert!(threads.may_start(None, false, 0), "work on paths has none");
        threads.end(slow, true);
        assert!(threads.may_start(other, true, 0));
    }
}
