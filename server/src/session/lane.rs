//! The order of work on one handle (and of the work on paths): first come, first served, where
//! work that only looks may run side by side.
//!
//! Later drafts of the protocol say what the one that everybody speaks takes for granted: requests
//! on one file give the results that they would give one after the other, and may be done in
//! parallel where that makes no difference.

use std::collections::VecDeque;

/// Whether work may run beside other work of the same lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Beside other shared work.
    Shared,
    /// Alone.
    Exclusive,
}

/// Work that waits, and what is known of the work that runs.
#[derive(Debug)]
pub(crate) struct Lane<W> {
    waiting: VecDeque<Waiting<W>>,
    /// How many shared ones run.
    shared: usize,
    /// Arrival of the exclusive one that runs.
    exclusive: Option<Arrival>,
    /// Arrival of the first write of this turn whose bytes are noted and not yet written. It counts
    /// as running alone, though more writes may join it.
    noted: Option<Arrival>,
    /// How many of the waiting ones, from the front, are noted writes that were put off.
    put_off: usize,
}

/// When a request came: a number that grows with each.
pub(crate) type Arrival = u64;

#[derive(Debug)]
pub(crate) struct Waiting<W> {
    pub(crate) arrival: Arrival,
    pub(crate) mode: Mode,
    pub(crate) work: W,
}

impl<W> Lane<W> {
    pub(crate) const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            shared: 0,
            exclusive: None,
            noted: None,
            put_off: 0,
        }
    }

    pub(crate) fn push(&mut self, arrival: Arrival, mode: Mode, work: W) {
        self.waiting.push_back(Waiting {
            arrival,
            mode,
            work,
        });
    }

    /// What waits in front, if its turn has come.
    pub(crate) fn ready(&self) -> Option<&Waiting<W>> {
        let front = self.waiting.front()?;
        let alone = self.exclusive.is_none() && self.noted.is_none();
        let may_run = match front.mode {
            Mode::Shared => alone,
            Mode::Exclusive => alone && self.shared == 0,
        };
        may_run.then_some(front)
    }

    /// Takes what is [`ready`](Self::ready): it runs until [`finish`](Self::finish).
    pub(crate) fn start(&mut self) -> Option<Waiting<W>> {
        self.ready()?;
        let waiting = self.waiting.pop_front()?;
        match waiting.mode {
            Mode::Shared => self.shared = self.shared.saturating_add(1),
            Mode::Exclusive => self.exclusive = Some(waiting.arrival),
        }
        Some(waiting)
    }

    pub(crate) const fn finish(&mut self, mode: Mode) {
        match mode {
            Mode::Shared => self.shared = self.shared.saturating_sub(1),
            Mode::Exclusive => self.exclusive = None,
        }
    }

    /// Work of another lane looks at this one's file until [`finish`](Self::finish) of the mode
    /// `Shared`.
    pub(crate) const fn share(&mut self) {
        self.shared = self.shared.saturating_add(1);
    }

    /// Whether a write may be noted: nothing is before it but other noted writes.
    pub(crate) fn may_note(&self) -> bool {
        self.waiting.is_empty() && self.shared == 0 && self.exclusive.is_none()
    }

    pub(crate) const fn note(&mut self, arrival: Arrival) {
        if self.noted.is_none() {
            self.noted = Some(arrival);
        }
    }

    /// Puts a noted write off: it waits, before everything that came after it.
    pub(crate) fn put_off(&mut self, mode: Mode, work: W) {
        let arrival = self.noted.unwrap_or(0);
        self.waiting.insert(
            self.put_off.min(self.waiting.len()),
            Waiting {
                arrival,
                mode,
                work,
            },
        );
        self.put_off = self.put_off.saturating_add(1);
    }

    /// The last noted write that was put off.
    pub(crate) fn last_put_off(&mut self) -> Option<&mut W> {
        let last = self.put_off.checked_sub(1)?;
        self.waiting.get_mut(last).map(|waiting| &mut waiting.work)
    }

    /// The noted writes are done or put off.
    pub(crate) const fn settle(&mut self) {
        self.noted = None;
        self.put_off = 0;
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut Waiting<W>> {
        self.waiting.back_mut()
    }

    /// Arrival of the oldest work that may change something and is not done.
    pub(crate) fn oldest_exclusive(&self) -> Option<Arrival> {
        let waiting = || {
            let first = self
                .waiting
                .iter()
                .find(|waiting| waiting.mode == Mode::Exclusive);
            first.map(|waiting| waiting.arrival)
        };
        self.exclusive.or(self.noted).or_else(waiting)
    }

    /// Whether work that came before `later` is not done. Of shared work that runs it is assumed:
    /// what came later is kept from starting.
    pub(crate) fn is_busy_before(&self, later: Arrival) -> bool {
        let front = self.waiting.front().map(|waiting| waiting.arrival);
        let oldest = [self.exclusive, self.noted, front];
        self.shared > 0 || oldest.into_iter().flatten().any(|arrival| arrival < later)
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Waiting<W>> {
        self.waiting.iter()
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.shared == 0
            && self.exclusive.is_none()
            && self.noted.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::{Exclusive, Shared};

    #[test]
    fn shared_work_runs_side_by_side_and_exclusive_work_alone() {
        let mut lane = Lane::new();
        for (arrival, mode) in [Shared, Shared, Exclusive, Shared].into_iter().enumerate() {
            lane.push(arrival as u64, mode, arrival);
        }
        assert_eq!(lane.start().unwrap().work, 0);
        assert_eq!(lane.start().unwrap().work, 1);
        assert!(lane.start().is_none(), "the exclusive one waits for both");
        lane.finish(Shared);
        assert!(lane.start().is_none());
        lane.finish(Shared);
        assert_eq!(lane.start().unwrap().work, 2);
        assert!(lane.start().is_none(), "nothing overtakes it");
        lane.finish(Exclusive);
        assert_eq!(lane.start().unwrap().work, 3);
        lane.finish(Shared);
        assert!(lane.is_idle());
    }

    #[test]
    fn a_put_off_write_stays_before_what_came_after_it() {
        let mut lane = Lane::new();
        assert!(lane.may_note());
        lane.note(1);
        assert!(lane.may_note(), "writes join");
        lane.push(3, Exclusive, "close");
        assert!(lane.start().is_none(), "the noted ones are not written");
        lane.put_off(Exclusive, "write 1");
        lane.put_off(Exclusive, "write 2");
        assert_eq!(lane.oldest_exclusive(), Some(1));
        lane.settle();
        for expected in ["write 1", "write 2", "close"] {
            assert_eq!(lane.start().unwrap().work, expected);
            lane.finish(Exclusive);
        }
    }
}
