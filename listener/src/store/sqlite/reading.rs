//! What readers ask a ledger in a file, each over one snapshot of it. They stand beside the writer.

use ketch_client::RemotePath;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::table::{self, Flow, checked};
use super::{damaged, failed};
use crate::flow::item::FlowName;
use crate::store::encoding::{column, state_byte};
use crate::store::{BATCH_MAX, Row, ScanStart, State, StoreError};

/// A flow as a reader sees it.
pub(super) fn flow_of(
    connection: &Connection,
    name: &FlowName,
) -> Result<Option<Flow>, StoreError> {
    let found: Option<(i64, Vec<u8>)> = connection
        .prepare("SELECT id, body FROM flows WHERE name = ?1")
        .and_then(|mut statement| {
            statement
                .query_row(params![name.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(failed("read"))?;
    found
        .map(|(id, body)| {
            Flow::decode(name.as_str(), id, &body).ok_or_else(|| damaged(name.as_str().as_bytes()))
        })
        .transpose()
}

/// What a scan after `since` begins with, and whether rows are left that it does not ask for any more.
pub(super) fn acted(
    connection: &Connection,
    name: &FlowName,
    since: u64,
) -> Result<(ScanStart, bool), StoreError> {
    // One snapshot for all of it.
    let connection = connection.unchecked_transaction().map_err(failed("read"))?;
    let Some(flow) = flow_of(&connection, name)? else {
        return Ok((ScanStart::default(), false));
    };
    let mut statement = connection
        .prepare(
            "SELECT path, acted FROM entries INDEXED BY acted \
             WHERE flow = ?1 AND acted IS NOT NULL",
        )
        .map_err(failed("read"))?;
    let rows: Vec<(Vec<u8>, i64)> = statement
        .query_map(params![flow.id], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(failed("read"))?;
    let (new, old): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|(_, acted)| *acted > column(since));
    let start = ScanStart {
        scan: flow.acts,
        forget: new
            .into_iter()
            .map(|(path, _)| RemotePath::from(path))
            .collect(),
    };
    Ok((start, !old.is_empty()))
}

/// The rows of `paths`, as far as there are any.
pub(super) fn lookup(
    connection: &Connection,
    name: &FlowName,
    paths: &[RemotePath],
) -> Result<Vec<Option<Row>>, StoreError> {
    let connection = connection.unchecked_transaction().map_err(failed("read"))?;
    let Some(flow) = flow_of(&connection, name)? else {
        return Ok(vec![None; paths.len()]);
    };
    let mut statement = connection
        .prepare(
            "SELECT state, due, sequence, directory, changed, acted, body FROM entries \
             WHERE flow = ?1 AND path = ?2",
        )
        .map_err(failed("read"))?;
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let mut rows = statement
            .query(params![flow.id, path.as_bytes()])
            .map_err(failed("read"))?;
        let row = rows.next().map_err(failed("read"))?;
        let stored = row
            .map(|row| checked(name, path.as_bytes(), row, 0))
            .transpose()?;
        found.push(stored.map(|stored| stored.entry.row(name)));
    }
    Ok(found)
}

/// A page of rows behind `after`, in the order of their paths.
pub(super) fn rows(
    connection: &Connection,
    name: &FlowName,
    state: Option<State>,
    after: Option<RemotePath>,
    max: usize,
) -> Result<Vec<Row>, StoreError> {
    let connection = connection.unchecked_transaction().map_err(failed("read"))?;
    let Some(flow) = flow_of(&connection, name)? else {
        return Ok(Vec::new());
    };
    // Dead rows have an index, which a state in the text of the statement makes use of.
    let only = state.map_or_else(String::new, |state| {
        format!("AND state = {}", state_byte(state))
    });
    let sql = format!(
        "SELECT state, due, sequence, directory, changed, acted, body, path FROM entries \
         WHERE flow = ?1 AND path > ?2 {only} ORDER BY path LIMIT ?3"
    );
    let mut statement = connection.prepare(&sql).map_err(failed("read"))?;
    let after = after.map_or_else(Vec::new, RemotePath::into_bytes);
    let max = i64::try_from(max.min(BATCH_MAX)).unwrap_or(0);
    let mut rows = statement
        .query(params![flow.id, after, max])
        .map_err(failed("read"))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed("read"))? {
        let path: Vec<u8> = row.get(7).map_err(failed("read"))?;
        found.push(checked(name, &path, row, 0)?.entry.row(name));
    }
    Ok(found)
}

/// When the oldest item was recorded that is not done.
pub(super) fn oldest(connection: &Connection, name: &FlowName) -> Result<Option<u64>, StoreError> {
    let connection = connection.unchecked_transaction().map_err(failed("read"))?;
    let Some(flow) = flow_of(&connection, name)? else {
        return Ok(None);
    };
    let sql = "SELECT state, due, sequence, directory, changed, acted, body, path \
               FROM entries INDEXED BY queue \
               WHERE flow = ?1 AND due IS NOT NULL ORDER BY sequence LIMIT 1";
    let mut statement = connection.prepare(sql).map_err(failed("read"))?;
    let mut rows = statement.query(params![flow.id]).map_err(failed("read"))?;
    let Some(row) = rows.next().map_err(failed("read"))? else {
        return Ok(None);
    };
    let path: Vec<u8> = row.get(7).map_err(failed("read"))?;
    let row = checked(name, &path, row, 0)?.entry.row(name);
    Ok(Some(row.item.recorded))
}

/// A value that the flow keeps.
pub(super) fn value(
    connection: &Connection,
    name: &FlowName,
    key: &str,
) -> Result<Option<String>, StoreError> {
    let Some(flow) = flow_of(connection, name)? else {
        return Ok(None);
    };
    let body: Option<Vec<u8>> = connection
        .prepare("SELECT body FROM notes WHERE flow = ?1 AND name = ?2")
        .and_then(|mut statement| {
            statement
                .query_row(params![flow.id, key], |row| row.get(0))
                .optional()
        })
        .map_err(failed("read"))?;
    body.map(|body| table::decode_note(name, key, &body).ok_or_else(|| damaged(key.as_bytes())))
        .transpose()
}
