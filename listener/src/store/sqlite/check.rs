//! Whether all of a ledger is there.
//!
//! SQLite looks at its own structure (`integrity_check`). Beside it, on another thread and in one
//! pass, each row is held against its checksum, its columns, its neighbour (keys rise) and the counters
//! of its flow (number and sum of checksums). So a flipped bit is found before anything is delivered
//! from the ledger, be it in a row, in a key, or in a page that no longer leads to its rows.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::open::{broken, unavailable};
use super::table::{self, Flow};
use super::{damaged, failed};
use crate::flow::item::FlowName;
use crate::store::StoreError;
use crate::store::encoding::{Glances, sum};

/// Reads all; answers the rows that somebody had claimed.
pub(super) fn all(
    path: &Path,
    connection: &Connection,
    flows: &BTreeMap<FlowName, Flow>,
) -> Result<Vec<(FlowName, Vec<u8>)>, StoreError> {
    std::thread::scope(|scope| {
        let structure = std::thread::Builder::new()
            .name("ketch-ledger-check".to_owned())
            .spawn_scoped(scope, || structure(path))
            .map_err(unavailable("start a thread"))?;
        let rows = rows(connection, flows);
        let structure = structure
            .join()
            .map_err(|_| unavailable("check")(std::io::Error::other("its thread failed")))?;
        // What SQLite says of its pages is nearer to the cause.
        structure?;
        rows
    })
}

/// What SQLite says of its own pages and indexes.
fn structure(path: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed("check"))?;
    let whole: String = connection
        .pragma_update(None, "query_only", "ON")
        .and_then(|()| connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)))
        .map_err(failed("check"))?;
    if whole == "ok" {
        Ok(())
    } else {
        Err(broken(&whole))
    }
}

/// A flow as its rows are counted.
struct Counted<'f> {
    name: &'f FlowName,
    said: &'f Flow,
    found: Flow,
    glances: Glances,
}

/// Reads all rows and values.
fn rows(
    connection: &Connection,
    flows: &BTreeMap<FlowName, Flow>,
) -> Result<Vec<(FlowName, Vec<u8>)>, StoreError> {
    let mut counted: BTreeMap<i64, Counted<'_>> = BTreeMap::new();
    for (name, flow) in flows {
        let found = Flow {
            sum: 0,
            notes: 0,
            states: Default::default(),
            ..flow.clone()
        };
        let glances = Glances::of(name);
        let twice = counted.insert(
            flow.id,
            Counted {
                name,
                said: flow,
                found,
                glances,
            },
        );
        if twice.is_some() {
            return Err(broken("the counters of a flow"));
        }
    }
    let claimed = entries(connection, &mut counted)?;
    notes(connection, &mut counted)?;
    if counted.values().any(|flow| flow.found != *flow.said) {
        return Err(broken("rows are missing"));
    }
    Ok(claimed)
}

fn entries(
    connection: &Connection,
    flows: &mut BTreeMap<i64, Counted<'_>>,
) -> Result<Vec<(FlowName, Vec<u8>)>, StoreError> {
    let mut statement = connection
        .prepare(
            "SELECT state, due, sequence, directory, changed, acted, body, path, flow \
             FROM entries ORDER BY flow, path",
        )
        .map_err(failed("read"))?;
    let mut rows = statement.query([]).map_err(failed("read"))?;
    let mut claimed = Vec::new();
    // Keys rise: the one before.
    let (mut last_flow, mut last_path) = (None, Vec::new());
    while let Some(row) = rows.next().map_err(failed("read"))? {
        let id = row.get_ref(8).ok().and_then(|value| value.as_i64().ok());
        let path = row.get_ref(7).ok().and_then(|value| value.as_blob().ok());
        let (Some(id), Some(path)) = (id, path) else {
            return Err(broken("a path"));
        };
        // Nothing may belong to a flow that is not there.
        let flow = flows
            .get_mut(&id)
            .ok_or_else(|| broken("rows of no flow"))?;
        if last_flow.is_some_and(|last| (last, last_path.as_slice()) >= (id, path)) {
            return Err(damaged(path));
        }
        let body = table::body(path, row, 0)?;
        let glance = flow.glances.at(path, body).ok_or_else(|| damaged(path))?;
        if table::columns(row, 0)? != glance.columns {
            return Err(damaged(path));
        }
        flow.found.sum_up(sum(body), true);
        flow.found.count(glance.state, true);
        if glance.is_owned {
            claimed.push((flow.name.clone(), path.to_vec()));
        }
        last_flow = Some(id);
        last_path.clear();
        last_path.extend_from_slice(path);
    }
    Ok(claimed)
}

fn notes(
    connection: &Connection,
    flows: &mut BTreeMap<i64, Counted<'_>>,
) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare("SELECT flow, name, body FROM notes")
        .map_err(failed("read"))?;
    let mut rows = statement.query([]).map_err(failed("read"))?;
    while let Some(row) = rows.next().map_err(failed("read"))? {
        let read = row
            .get::<_, i64>(0)
            .and_then(|id| Ok((id, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?)));
        let (id, key, body) = read.map_err(|_| broken("a value of a flow"))?;
        let flow = flows
            .get_mut(&id)
            .ok_or_else(|| broken("values of no flow"))?;
        if table::decode_note(flow.name, &key, &body).is_none() {
            return Err(broken("a value of a flow"));
        }
        flow.found.sum_up(sum(&body), true);
        flow.found.notes = flow.found.notes.saturating_add(1);
    }
    Ok(())
}
