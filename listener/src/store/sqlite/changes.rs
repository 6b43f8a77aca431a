//! What the writer does with a ledger in a file when it is asked to: each is one job, in a transaction.
//! The rules are those of every ledger (`store/row.rs`).

use std::time::Duration;

use ketch_client::RemotePath;

use super::damaged;
use super::table::Table;
use crate::flow::item::{Change, FlowName};
use crate::store::row::record::Ground;
use crate::store::row::{Entry, Step, millis};
use crate::store::{BATCH_MAX, Claim, ClaimId, End, Order, Recorded, Row, State, StoreError};

/// Changes a row that is there.
pub(super) fn change<T>(
    table: &mut Table<'_>,
    flow: &FlowName,
    path: &[u8],
    with: impl FnOnce(&mut Entry, u64) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let old = table.get(flow, path)?.ok_or(StoreError::Lost)?;
    let mut entry = old.entry.clone();
    let result = with(&mut entry, table.now)?;
    if entry != old.entry {
        table.apply(flow, path, Some(&old), Step::put(entry))?;
    }
    Ok(result)
}

/// Delivers once more what was delivered, or was never news; whether it is such a path.
fn again(table: &mut Table<'_>, flow: &FlowName, path: &[u8]) -> Result<bool, StoreError> {
    let Some(old) = table.get(flow, path)? else {
        return Ok(false);
    };
    if !old.entry.may_come_again() {
        return Ok(false);
    }
    let now = table.now;
    let counters = table.flow(flow)?;
    counters.sequence = counters.sequence.saturating_add(1);
    let entry = old.entry.clone().again(now, counters.sequence);
    table.apply(flow, path, Some(&old), Step::put(entry))?;
    Ok(true)
}

/// Drops rows of which no scan needs to know any more that their files were taken away.
pub(super) fn forget(table: &mut Table<'_>, name: &FlowName, since: u64) -> Result<(), StoreError> {
    for path in table.acted(name, since)? {
        let old = table.get(name, &path)?;
        if old
            .as_ref()
            .is_none_or(|old| old.entry.state != State::Acted)
        {
            return Err(damaged(&path));
        }
        table.apply(name, &path, old.as_ref(), Step::Delete)?;
    }
    Ok(())
}

/// What a scan says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanned {
    pub(super) scan: u64,
    pub(super) removals: bool,
    pub(super) renames: bool,
}

/// Takes what a scan found.
pub(super) fn record(
    table: &mut Table<'_>,
    flow: &FlowName,
    scanned: Scanned,
    changes: &[Change],
) -> Result<Recorded, StoreError> {
    let Scanned {
        scan,
        removals,
        renames,
    } = scanned;
    let mut recorded = Recorded::default();
    for change in changes {
        let row = table.get(flow, change.path().as_bytes())?;
        let from = match change {
            Change::Renamed { from, .. } => Some((from, table.get(flow, from.as_bytes())?)),
            _ => None,
        };
        let from_row = from.as_ref().and_then(|(_, row)| row.as_ref());
        let mut last = table.flows.get(flow).map_or(0, |flow| flow.sequence);
        let before = last;
        let steps = Ground {
            scan,
            removals,
            renames,
            now: table.now,
            sequence: &mut || {
                last = last.saturating_add(1);
                last
            },
        }
        .record(
            change,
            row.as_ref().map(|row| &row.entry),
            from_row.map(|row| &row.entry),
            &mut recorded,
        );
        if last != before {
            table.flow(flow)?.sequence = last;
        }
        // The old name goes first: the same item is never in two rows.
        if let Some((path, row)) = &from {
            table.apply(flow, path.as_bytes(), row.as_ref(), steps.from)?;
        }
        table.apply(flow, change.path().as_bytes(), row.as_ref(), steps.row)?;
    }
    Ok(recorded)
}

/// Claims what is due.
pub(super) fn claim(
    table: &mut Table<'_>,
    flow: &FlowName,
    owner: &str,
    lease: Duration,
    order: Order,
    max: usize,
) -> Result<Vec<Claim>, StoreError> {
    let mut claims = Vec::new();
    for path in table.due(flow, order, max.min(BATCH_MAX))? {
        let Some(old) = table.get(flow, &path)? else {
            return Err(damaged(&path));
        };
        let mut entry = old.entry.clone();
        if !entry.is_active() || entry.due > table.now {
            return Err(damaged(&path));
        }
        entry.take(owner, table.now.saturating_add(millis(lease)));
        claims.push(entry.claim(flow));
        table.apply(flow, &path, Some(&old), Step::put(entry))?;
    }
    Ok(claims)
}

/// Lengthens claims; answers those that are lost.
pub(super) fn renew(
    table: &mut Table<'_>,
    claims: Vec<ClaimId>,
    lease: Duration,
) -> Result<Vec<ClaimId>, StoreError> {
    let mut lost = Vec::new();
    for claim in claims {
        let renewed = change(table, &claim.flow, claim.path.as_bytes(), |entry, now| {
            entry.fence(&claim)?;
            entry.due = now.saturating_add(millis(lease));
            Ok(())
        });
        match renewed {
            Ok(()) => {}
            Err(StoreError::Lost) => lost.push(claim),
            Err(error) => return Err(error),
        }
    }
    Ok(lost)
}

/// Ends a claim.
pub(super) fn finish(
    table: &mut Table<'_>,
    claim: &ClaimId,
    end: &OwnedEnd,
) -> Result<(), StoreError> {
    let path = claim.path.as_bytes();
    let old = table.get(&claim.flow, path)?.ok_or(StoreError::Lost)?;
    old.entry.fence(claim)?;
    let now = table.now;
    let flow = table.flow(&claim.flow)?;
    let (mut sequence, mut acts) = (flow.sequence, flow.acts);
    let step = old.entry.clone().end(
        end.borrow(),
        now,
        &mut || {
            sequence = sequence.saturating_add(1);
            sequence
        },
        &mut || {
            acts = acts.saturating_add(1);
            acts
        },
    );
    (flow.sequence, flow.acts) = (sequence, acts);
    table.apply(&claim.flow, path, Some(&old), step)
}

/// Tries dead items again; answers how many.
pub(super) fn replay(
    table: &mut Table<'_>,
    flow: &FlowName,
    path: Option<RemotePath>,
) -> Result<u64, StoreError> {
    let paths = match path {
        Some(path) => {
            let path = path.into_bytes();
            if again(table, flow, &path)? {
                return Ok(1);
            }
            vec![path]
        }
        None => table.dead(flow)?,
    };
    let mut replayed = 0_u64;
    for path in paths {
        let mut acts = table.flows.get(flow).map_or(0, |flow| flow.acts);
        let before = acts;
        let mut act = || {
            acts = acts.saturating_add(1);
            acts
        };
        let replayed_one = change(table, flow, &path, |entry, now| {
            Ok(entry.replay(now, &mut act))
        });
        let dead = match replayed_one {
            Err(StoreError::Lost) => false,
            other => other?,
        };
        if acts != before {
            table.flow(flow)?.acts = acts;
        }
        replayed = replayed.saturating_add(u64::from(dead));
    }
    Ok(replayed)
}

/// Takes rows of another ledger.
pub(super) fn import(
    table: &mut Table<'_>,
    flow: &FlowName,
    rows: &[Row],
) -> Result<(), StoreError> {
    for row in rows {
        let entry = Entry::imported(row);
        let path = row.item.path.as_bytes();
        let old = table.get(flow, path)?;
        // The same part may come twice; what has gone on since stays.
        if old
            .as_ref()
            .is_some_and(|old| old.entry.sequence >= entry.sequence)
        {
            continue;
        }
        let counters = table.flow(flow)?;
        counters.sequence = counters.sequence.max(entry.sequence);
        table.apply(flow, path, old.as_ref(), Step::put(entry))?;
    }
    Ok(())
}

/// An [`End`] that may wait for the writer.
#[derive(Debug)]
pub(super) enum OwnedEnd {
    Done,
    Acted,
    Failed { retry: Duration, reason: String },
    Dead { reason: String },
    Superseded,
    Released,
}

impl OwnedEnd {
    pub(super) fn of(end: End<'_>) -> Self {
        match end {
            End::Done => Self::Done,
            End::Acted => Self::Acted,
            End::Failed { retry, reason } => Self::Failed {
                retry,
                reason: reason.to_owned(),
            },
            End::Dead { reason } => Self::Dead {
                reason: reason.to_owned(),
            },
            End::Superseded => Self::Superseded,
            End::Released => Self::Released,
        }
    }

    fn borrow(&self) -> End<'_> {
        match self {
            Self::Done => End::Done,
            Self::Acted => End::Acted,
            Self::Failed { retry, reason } => End::Failed {
                retry: *retry,
                reason,
            },
            Self::Dead { reason } => End::Dead { reason },
            Self::Superseded => End::Superseded,
            Self::Released => End::Released,
        }
    }
}
