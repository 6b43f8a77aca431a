//! What a row of the ledger says, and what becomes of it: the rules of every [`Store`](super::Store),
//! without a database, a clock or a task.
//!
//! A store reads an [`Entry`], asks it what a worker's step makes of it (here) or what something
//! that was found makes of it ([`record`]), and writes what it is told, all in one transaction. So
//! all stores follow the same rules, and these are tested once.

use ketch_client::RemotePath;

use super::{AT_SOURCE, Claim, ClaimId, Delivery, End, Next, Placement, Row, State, StoreError};
use crate::flow::item::{FlowName, Item, ItemKind};
use crate::snapshot::Facts;

pub(crate) mod record;

/// Longest reason that is kept, in bytes: it is for people.
pub(crate) const REASON_LEN_MAX: usize = 1_000;

/// Why an item is set aside whose row cannot be read any more.
#[cfg(feature = "postgres")]
pub(crate) const UNREADABLE: &str = "its row in the ledger was damaged, so nobody knows whether it \
     was delivered; if it is replayed, what is there now is delivered";

/// A row with all that only the ledger needs to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) path: RemotePath,
    pub(crate) sequence: u64,
    pub(crate) kind: ItemKind,
    pub(crate) facts: Facts,
    pub(crate) sha256: Option<[u8; 32]>,
    /// Milliseconds since 1970 by the ledger's clock.
    pub(crate) recorded: u64,
    pub(crate) state: State,
    pub(crate) attempts: u32,
    pub(crate) reason: Option<String>,
    /// When it may be claimed, in milliseconds since 1970 by the ledger's clock: of what is claimed,
    /// when the claim runs out. Of no meaning in other states.
    pub(crate) due: u64,
    /// Who has claimed it. A claim that ran out keeps its owner until somebody else takes it.
    pub(crate) owner: Option<String>,
    /// Claims of this item so far.
    pub(crate) number: u64,
    /// Of [`State::Acted`]: the ledger's count of such ends at that moment.
    pub(crate) acted: u64,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) next: Option<Next>,
}

/// What is to be done with a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Nothing.
    Keep,
    /// It is to be this.
    Put(Box<Entry>),
    /// It goes.
    Delete,
}

impl Step {
    pub(crate) fn put(entry: Entry) -> Self {
        Self::Put(Box::new(entry))
    }
}

impl Entry {
    /// A new item that is to be delivered.
    pub(crate) fn pending(
        path: RemotePath,
        kind: ItemKind,
        facts: Facts,
        sha256: Option<[u8; 32]>,
        sequence: u64,
        now: u64,
    ) -> Self {
        Self {
            path,
            sequence,
            kind,
            facts,
            sha256,
            recorded: now,
            state: State::Pending,
            attempts: 0,
            reason: None,
            due: now,
            owner: None,
            number: 0,
            acted: 0,
            deliveries: Vec::new(),
            next: None,
        }
    }

    /// What stands for a row whose bytes are damaged: a dead item of which no more is known than its
    /// path. It has no number of an item, as no row has that anybody can have heard of.
    #[cfg(feature = "postgres")]
    pub(crate) fn unreadable(path: RemotePath) -> Self {
        let facts = Facts {
            kind: ketch_client::FileType::Unknown,
            size: None,
            mtime: None,
        };
        Self {
            state: State::Dead,
            reason: Some(UNREADABLE.to_owned()),
            ..Self::pending(path, ItemKind::Created, facts, None, 0, 0)
        }
    }

    /// Whether it is such a row.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.sequence == 0 && self.state == State::Dead
    }

    /// The row that an exported one becomes. Claims are not moved: who had it starts again.
    pub(crate) fn imported(row: &Row) -> Self {
        let Row {
            item,
            state,
            attempts,
            reason,
            deliveries,
            next,
        } = row;
        Self {
            path: item.path.clone(),
            sequence: item.sequence,
            kind: item.kind.clone(),
            facts: item.facts,
            sha256: item.sha256,
            recorded: item.recorded,
            state: match state {
                State::Claimed => State::Pending,
                other => *other,
            },
            attempts: *attempts,
            reason: reason.clone(),
            due: 0,
            owner: None,
            number: 0,
            acted: 0,
            deliveries: deliveries.clone(),
            next: next.clone(),
        }
    }

    /// The row as others see it. The last sink's delivery and the commit are one step of the ledger, so
    /// what is committed is in all of them.
    pub(crate) fn row(mut self, flow: &FlowName) -> Row {
        if matches!(self.state, State::Committed | State::Done) {
            for delivery in &mut self.deliveries {
                delivery.done = true;
            }
        }
        Row {
            item: self.item(flow),
            state: self.state,
            attempts: self.attempts,
            reason: self.reason,
            deliveries: self.deliveries,
            next: self.next,
        }
    }

    fn item(&self, flow: &FlowName) -> Item {
        Item {
            flow: flow.clone(),
            sequence: self.sequence,
            kind: self.kind.clone(),
            path: self.path.clone(),
            facts: self.facts,
            sha256: self.sha256,
            recorded: self.recorded,
        }
    }

    /// Whether it waits for a worker or has one: such rows are in the queue of the ledger.
    pub(crate) const fn is_active(&self) -> bool {
        is_active(self.state)
    }

    /// Whether a worker is between two steps with it, so that it must not change under it. What is
    /// committed stays so until its after-action is done, whoever does that.
    const fn is_held(&self) -> bool {
        matches!(self.state, State::Claimed | State::Committed)
    }

    /// Whether it must not be replaced by a newer version before a worker has looked at it: one is
    /// between two steps with it, or an attempt that failed left something at a sink that only this
    /// row knows of, or its file stands aside at its source.
    fn is_under_way(&self) -> bool {
        self.is_held() || self.state == State::Pending && self.has_left_something()
    }

    /// Whether an attempt left something that only this row knows of: at a sink, or the file itself
    /// aside at its source.
    fn has_left_something(&self) -> bool {
        let waits = |delivery: &Delivery| !delivery.done && !delivery.placement.note.is_empty();
        self.is_taken() || self.deliveries.iter().any(waits)
    }

    /// Whether we have renamed its file, or are about to: what has the name is another version, and that
    /// nothing has it is no news.
    fn is_taken(&self) -> bool {
        let is_left = self.is_active() || self.state == State::Dead;
        let is_away =
            |d: &Delivery| d.sink == AT_SOURCE && d.placement.name != self.path.as_bytes();
        is_left && self.deliveries.iter().any(is_away)
    }

    /// Something newer waits behind it now: a worker is to look at it at once.
    fn hasten(&mut self, now: u64) {
        if self.state == State::Pending {
            self.due = self.due.min(now);
        }
    }

    /// The directory that the path is in, for claims in order: what stands before the last slash.
    pub(crate) fn directory(&self) -> &[u8] {
        directory(self.path.as_bytes())
    }

    /// Makes it the claim of `owner` until `until`.
    pub(crate) fn take(&mut self, owner: &str, until: u64) {
        if self.state == State::Pending {
            self.state = State::Claimed;
        }
        self.number = self.number.saturating_add(1);
        self.owner = Some(owner.to_owned());
        self.due = until;
    }

    /// What the worker gets that has just [`take`](Self::take)n it.
    pub(crate) fn claim(&self, flow: &FlowName) -> Claim {
        Claim {
            id: ClaimId {
                flow: flow.clone(),
                path: self.path.clone(),
                sequence: self.sequence,
                number: self.number,
            },
            item: self.item(flow),
            attempts: self.attempts,
            committed: self.state == State::Committed,
            deliveries: self.deliveries.clone(),
        }
    }

    /// Whether `claim` still has it. A claim that ran out has it until another took it.
    pub(crate) fn is_of(&self, claim: &ClaimId) -> bool {
        self.is_held()
            && self.owner.is_some()
            && self.sequence == claim.sequence
            && self.number == claim.number
    }

    /// The same as an error.
    pub(crate) fn fence(&self, claim: &ClaimId) -> Result<(), StoreError> {
        self.is_of(claim).then_some(()).ok_or(StoreError::Lost)
    }

    /// What was said before something was put into a sink.
    pub(crate) fn place(&mut self, sink: &str, placement: &Placement) {
        match self.deliveries.iter_mut().find(|d| d.sink == sink) {
            // Said again after a crash between the delivery and what followed.
            Some(known) if known.placement == *placement => {}
            Some(known) => {
                known.placement = placement.clone();
                known.done = false;
            }
            None => self.deliveries.push(Delivery {
                sink: sink.to_owned(),
                placement: placement.clone(),
                done: false,
            }),
        }
    }

    /// A sink has it.
    pub(crate) fn deliver(&mut self, sink: &str) {
        match self.deliveries.iter_mut().find(|d| d.sink == sink) {
            Some(known) => {
                known.done = true;
                known.placement.note.clear();
            }
            None => self.deliveries.push(Delivery {
                sink: sink.to_owned(),
                placement: Placement::default(),
                done: true,
            }),
        }
    }

    /// All sinks have it.
    pub(crate) fn commit(&mut self) {
        self.state = State::Committed;
    }

    /// Gives up the claim of a process that is known to be dead; whether there was one.
    pub(crate) fn orphan(&mut self) -> bool {
        if self.owner.take().is_none() {
            return false;
        }
        if self.state == State::Claimed {
            self.state = State::Pending;
        }
        self.due = 0;
        true
    }

    /// Whether somebody who asks for this path by name gets it delivered once more, as an item of its
    /// own.
    pub(crate) fn may_come_again(&self) -> bool {
        matches!(self.state, State::Known | State::Done) && self.kind != ItemKind::Removed
    }

    /// The same version as another item, on purpose.
    pub(crate) fn again(self, now: u64, sequence: u64) -> Self {
        let kind = match self.kind {
            ItemKind::Renamed { .. } => ItemKind::Created,
            kind => kind,
        };
        Self::pending(self.path, kind, self.facts, self.sha256, sequence, now)
    }

    /// A dead item is to be tried again; whether it was dead. `acted` counts the ends by which files
    /// went away.
    pub(crate) fn replay(&mut self, now: u64, acted: &mut dyn FnMut() -> u64) -> bool {
        if self.state != State::Dead {
            return false;
        }
        if self.is_unreadable() {
            // As if it had been taken away: the next scan takes whatever is there for new.
            self.state = State::Acted;
            self.acted = acted();
            self.reason = None;
            return true;
        }
        self.state = State::Pending;
        self.attempts = 0;
        self.reason = None;
        self.due = now;
        true
    }

    /// The end of a claim. `sequence` gives a number never given before; `acted` counts the ends by
    /// which files went away.
    pub(crate) fn end(
        mut self,
        end: End<'_>,
        now: u64,
        sequence: &mut dyn FnMut() -> u64,
        acted: &mut dyn FnMut() -> u64,
    ) -> Step {
        let committed = self.state == State::Committed;
        // The next version knows nothing of what this one left.
        let has_to_end = committed || self.has_left_something();
        self.owner = None;
        match end {
            End::Done | End::Acted => {
                self.state = State::Done;
                for delivery in &mut self.deliveries {
                    delivery.done = true;
                    delivery.placement.note.clear();
                }
            }
            _ => {}
        }
        let goes_on = matches!(end, End::Failed { .. } | End::Released) && has_to_end;
        if let Some(next) = self.next.take_if(|_| !goes_on) {
            // That it is gone is no news if we took it away.
            if !(matches!(end, End::Acted) && next.facts.is_none()) {
                return self.follow(next, matches!(end, End::Acted), now, sequence);
            }
        }
        match end {
            // Nothing is left to be known of a path that is gone, once that was told.
            End::Done | End::Acted if self.kind == ItemKind::Removed => return Step::Delete,
            End::Done | End::Acted => {
                self.attempts = 0;
                self.reason = None;
                if matches!(end, End::Acted) {
                    self.state = State::Acted;
                    self.acted = acted();
                }
            }
            End::Failed { retry, reason } => {
                self.state = waiting(committed);
                self.attempts = self.attempts.saturating_add(1);
                self.reason = Some(shortened(reason));
                self.due = now.saturating_add(millis(retry));
            }
            End::Dead { reason } => {
                self.state = State::Dead;
                self.attempts = self.attempts.saturating_add(1);
                self.reason = Some(shortened(reason));
            }
            // As if it had been taken away: the next scan forgets the path, and takes whatever is
            // there for new, even if it looks the same.
            End::Superseded => {
                self.state = State::Acted;
                self.acted = acted();
            }
            End::Released => {
                self.state = waiting(committed);
                self.due = now;
            }
        }
        Step::put(self)
    }

    /// What waited behind the claim comes up.
    fn follow(self, next: Next, acted: bool, now: u64, sequence: &mut dyn FnMut() -> u64) -> Step {
        let Some(facts) = next.facts else {
            if !next.told || self.is_untold() {
                return Step::Delete;
            }
            return Step::put(self.removed(sequence(), now));
        };
        let kind = if acted || (self.kind == ItemKind::Removed && self.state == State::Done) {
            ItemKind::Created
        } else {
            self.kind_of_next()
        };
        Step::put(Self::pending(
            self.path,
            kind,
            facts,
            next.sha256,
            sequence(),
            now,
        ))
    }

    /// Whether nobody can have heard of this path: its first item was never on its way to a sink.
    fn is_untold(&self) -> bool {
        self.kind == ItemKind::Created
            && !matches!(self.state, State::Done | State::Known)
            && self.deliveries.iter().all(|d| d.sink == AT_SOURCE)
    }

    /// What happened to a path whose row this is, if another version of it is there now.
    fn kind_of_next(&self) -> ItemKind {
        let untold = self.kind == ItemKind::Created
            && !matches!(self.state, State::Done | State::Known)
            && !self.deliveries.iter().any(|delivery| delivery.done);
        if untold || self.state == State::Acted {
            ItemKind::Created
        } else {
            ItemKind::Modified
        }
    }

    /// The item that says that this path is gone.
    fn removed(self, sequence: u64, now: u64) -> Self {
        let Self {
            path,
            facts,
            sha256,
            ..
        } = self;
        Self::pending(path, ItemKind::Removed, facts, sha256, sequence, now)
    }
}

/// What stands before the last slash of `path`.
pub(crate) fn directory(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

/// Whether rows in this state are in the queue.
pub(crate) const fn is_active(state: State) -> bool {
    matches!(state, State::Pending | State::Claimed | State::Committed)
}

const fn waiting(committed: bool) -> State {
    if committed {
        State::Committed
    } else {
        State::Pending
    }
}

fn shortened(reason: &str) -> String {
    let end = (0..=REASON_LEN_MAX.min(reason.len()))
        .rev()
        .find(|&end| reason.is_char_boundary(end))
        .unwrap_or(0);
    reason.get(..end).unwrap_or_default().to_owned()
}

/// A duration in the ledger's unit.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
