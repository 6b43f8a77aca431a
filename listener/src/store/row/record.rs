//! What something that detection found makes of a row.
//!
//! The first rule stands above the others: what the row says already changes nothing, whatever
//! became of it. Detection may therefore say everything again, after any crash.

use ketch_client::RemotePath;

use super::{Entry, Step};
use crate::flow::item::{Change, ItemKind};
use crate::snapshot::Facts;
use crate::store::{Next, Recorded, State};

/// What a record is taken with.
pub(crate) struct Ground<'a> {
    /// The scan that found it.
    pub(crate) scan: u64,
    /// Whether removals become items.
    pub(crate) removals: bool,
    /// Whether a renamed file is the same version still.
    pub(crate) renames: bool,
    /// Milliseconds since 1970 by the ledger's clock.
    pub(crate) now: u64,
    /// Gives a number never given before.
    pub(crate) sequence: &'a mut dyn FnMut() -> u64,
}

/// What becomes of the rows that a change is about.
#[derive(Debug)]
pub(crate) struct Steps {
    /// The row of [`Change::path`].
    pub(crate) row: Step,
    /// The row of a renamed file's old name.
    pub(crate) from: Step,
}

/// What becomes of the row of one path, and whether that is a new item.
#[derive(Debug)]
struct Verdict {
    step: Step,
    news: bool,
}

impl Verdict {
    const fn quiet(step: Step) -> Self {
        Self { step, news: false }
    }

    fn news(entry: Entry) -> Self {
        Self {
            step: Step::put(entry),
            news: true,
        }
    }

    const fn count(&self, recorded: &mut Recorded) {
        if self.news {
            recorded.items = recorded.items.saturating_add(1);
        } else {
            recorded.known = recorded.known.saturating_add(1);
        }
    }
}

impl Ground<'_> {
    /// What `change` makes of the row of its path, and (renames only) of the row of the old name.
    pub(crate) fn record(
        &mut self,
        change: &Change,
        row: Option<&Entry>,
        from_row: Option<&Entry>,
        recorded: &mut Recorded,
    ) -> Steps {
        let (verdict, from) = match change {
            Change::Baseline { path, facts } => (self.baseline(path, *facts, row), Step::Keep),
            Change::Present {
                path,
                facts,
                sha256,
            } => (self.present(path, *facts, *sha256, row), Step::Keep),
            Change::Removed { .. } => (self.removed(row), Step::Keep),
            Change::Renamed { from, to, facts } if from != to => {
                self.renamed((from, to), *facts, from_row, row, recorded)
            }
            Change::Renamed { to, facts, .. } => (self.present(to, *facts, None, row), Step::Keep),
        };
        verdict.count(recorded);
        Steps {
            row: verdict.step,
            from,
        }
    }

    fn pending(
        &mut self,
        path: &RemotePath,
        kind: ItemKind,
        facts: Facts,
        sha256: Option<[u8; 32]>,
    ) -> Entry {
        let sequence = (self.sequence)();
        Entry::pending(path.clone(), kind, facts, sha256, sequence, self.now)
    }

    /// A row that was never news.
    fn known(&mut self, path: &RemotePath, facts: Facts, sha256: Option<[u8; 32]>) -> Entry {
        let mut entry = self.pending(path, ItemKind::Created, facts, sha256);
        entry.state = State::Known;
        entry
    }

    fn baseline(&mut self, path: &RemotePath, facts: Facts, row: Option<&Entry>) -> Verdict {
        match row {
            // The flow had begun before, and this is seen as it would be in any later scan.
            Some(_) => self.present(path, facts, None, row),
            None => Verdict::quiet(Step::put(self.known(path, facts, None))),
        }
    }

    fn present(
        &mut self,
        path: &RemotePath,
        facts: Facts,
        sha256: Option<[u8; 32]>,
        row: Option<&Entry>,
    ) -> Verdict {
        let Some(row) = row else {
            return Verdict::news(self.pending(path, ItemKind::Created, facts, sha256));
        };
        if row.is_unreadable() {
            return Verdict::quiet(Step::put(self.seen_again(row, path, facts, sha256)));
        }
        let same = row.newest() == Some(facts)
            && match (row.newest_sha256(), sha256) {
                (Some(known), Some(seen)) => known == seen,
                _ => true,
            };
        // A listing that began before our after-action still shows the file that it took away.
        let same = same && (row.state != State::Acted || self.scan < row.acted);
        // What was given up was put aside: somebody has brought it back.
        let same = same && !(row.state == State::Dead && row.is_taken());
        if same {
            // Content that was not looked at before is known from now on.
            let learnt = sha256.filter(|_| row.sha256.is_none() && !row.is_held());
            return Verdict::quiet(learnt.map_or(Step::Keep, |sha256| {
                let mut row = row.clone();
                row.sha256 = Some(sha256);
                Step::put(row)
            }));
        }
        if row.is_under_way() {
            let mut row = row.clone();
            row.next = Some(Next {
                facts: Some(facts),
                sha256,
                told: false,
            });
            row.hasten(self.now);
            return Verdict::news(row);
        }
        Verdict::news(self.pending(path, row.kind_of_next(), facts, sha256))
    }

    /// What is there where a row was damaged: perhaps it was delivered, so it stays aside until
    /// somebody asks for it. The next version of it is as good as any.
    fn seen_again(
        &mut self,
        row: &Entry,
        path: &RemotePath,
        facts: Facts,
        sha256: Option<[u8; 32]>,
    ) -> Entry {
        Entry {
            path: path.clone(),
            facts,
            sha256,
            sequence: (self.sequence)(),
            recorded: self.now,
            ..row.clone()
        }
    }

    fn removed(&mut self, row: Option<&Entry>) -> Verdict {
        // Our own after-action is no news, and neither is what was told before.
        let Some(row) = row.filter(|row| row.state != State::Acted && row.newest().is_some())
        else {
            return Verdict::quiet(Step::Keep);
        };
        if row.is_taken() {
            // What is gone is the version that came after it, if there was one.
            let mut row = row.clone();
            return Verdict::quiet(row.next.take().map_or(Step::Keep, |_| Step::put(row)));
        }
        if row.is_under_way() {
            let mut row = row.clone().gone_meanwhile(self.removals);
            row.hasten(self.now);
            return Verdict {
                step: Step::put(row),
                news: self.removals,
            };
        }
        if row.is_untold() || !self.removals {
            return Verdict::quiet(Step::Delete);
        }
        let sequence = (self.sequence)();
        Verdict::news(row.clone().removed(sequence, self.now))
    }

    /// The new name's verdict and the old name's step.
    fn renamed(
        &mut self,
        (from, to): (&RemotePath, &RemotePath),
        facts: Facts,
        from_row: Option<&Entry>,
        to_row: Option<&Entry>,
        recorded: &mut Recorded,
    ) -> (Verdict, Step) {
        if let Some(row) = from_row.filter(|row| row.is_unreadable())
            && !to_row.is_some_and(Entry::is_under_way)
        {
            let aside = self.seen_again(row, to, facts, None);
            return (Verdict::quiet(Step::put(aside)), Step::Delete);
        }
        let same = from_row.filter(|row| {
            self.renames
                && row.newest() == Some(facts)
                && row.next.is_none()
                && row.state != State::Claimed
                && !row.is_taken()
                && !to_row.is_some_and(Entry::is_under_way)
        });
        let Some(row) = same else {
            // Somebody works on it under its old name, or it is another file.
            let gone = self.removed(from_row);
            if gone.news {
                gone.count(recorded);
            }
            return (self.present(to, facts, None, to_row), gone.step);
        };
        if matches!(row.state, State::Committed | State::Acted) {
            // All sinks have it, but the old row is still needed: for the after-action, or against
            // listings that are older than that.
            let from = match row.state {
                State::Committed => Step::put(row.clone().gone_meanwhile(false)),
                _ => Step::Keep,
            };
            let known = self.known(to, facts, row.sha256);
            return (Verdict::quiet(Step::put(known)), from);
        }
        if self.removals && matches!(row.state, State::Known | State::Done) {
            let kind = ItemKind::Renamed { from: from.clone() };
            let told = self.pending(to, kind, facts, row.sha256);
            return (Verdict::news(told), Step::Delete);
        }
        let mut moved = row.clone();
        moved.path = to.clone();
        (Verdict::quiet(Step::put(moved)), Step::Delete)
    }
}

impl Entry {
    /// The newest version that the ledger knows of this path: `None` if it is gone.
    pub(super) fn newest(&self) -> Option<Facts> {
        match &self.next {
            Some(next) => next.facts,
            None => (self.kind != ItemKind::Removed).then_some(self.facts),
        }
    }

    fn newest_sha256(&self) -> Option<[u8; 32]> {
        match &self.next {
            Some(next) => next.sha256,
            None => self.sha256,
        }
    }

    /// It is held, and its file is gone.
    fn gone_meanwhile(mut self, told: bool) -> Self {
        self.next = Some(Next {
            facts: None,
            sha256: None,
            told,
        });
        self
    }
}
