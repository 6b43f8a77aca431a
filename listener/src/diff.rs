//! Two snapshots of one directory → what happened between them. Pure.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::event::EventKind;
use crate::snapshot::{Entry, Facts, Snapshot};

/// What has to happen to `before` to make it `after`, in the order of the names.
///
/// Applying the changes in turn to `before` gives `after`. A name that stands for another kind of
/// thing than before (a file where a directory was) is removed and created. Renames are a removal
/// and a creation: nothing in a listing identifies a file but its name.
pub fn diff<'a>(
    before: &'a Snapshot,
    after: &'a Snapshot,
) -> impl Iterator<Item = Change<'a>> + use<'a> {
    Diff {
        before: before.entries().peekable(),
        after: after.entries().peekable(),
        created_anew: None,
    }
}

/// One change of one name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change<'a> {
    /// What happened.
    pub kind: EventKind,
    /// To which name.
    pub name: &'a [u8],
    /// What is there now: `None` exactly if it was removed.
    pub facts: Option<Facts>,
}

struct Diff<'a, B: Iterator, A: Iterator> {
    before: Peekable<B>,
    after: Peekable<A>,
    /// The second half of a change of kind.
    created_anew: Option<Change<'a>>,
}

impl<'a, B, A> Iterator for Diff<'a, B, A>
where
    B: Iterator<Item = Entry<'a>>,
    A: Iterator<Item = Entry<'a>>,
{
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        if let Some(change) = self.created_anew.take() {
            return Some(change);
        }
        loop {
            // Which name comes next; of equal ones, both.
            let order = match (self.before.peek(), self.after.peek()) {
                (Some(old), Some(new)) => old.name.cmp(new.name),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            let old = if order.is_le() {
                self.before.next()
            } else {
                None
            };
            let new = if order.is_ge() {
                self.after.next()
            } else {
                None
            };
            match (old, new) {
                (None, None) => return None,
                (Some(old), None) => return Some(removed(old)),
                (None, Some(new)) => return Some(created(new)),
                (Some(old), Some(new)) if old.facts == new.facts => {}
                (Some(old), Some(new)) if old.facts.kind == new.facts.kind => {
                    return Some(Change {
                        kind: EventKind::Modified,
                        ..created(new)
                    });
                }
                (Some(old), Some(new)) => {
                    self.created_anew = Some(created(new));
                    return Some(removed(old));
                }
            }
        }
    }
}

fn created(entry: Entry<'_>) -> Change<'_> {
    Change {
        kind: EventKind::Created,
        name: entry.name,
        facts: Some(entry.facts),
    }
}

fn removed(entry: Entry<'_>) -> Change<'_> {
    Change {
        kind: EventKind::Removed,
        name: entry.name,
        facts: None,
    }
}
