//! Repair: what is sound in a damaged ledger, taken into a new one.
//!
//! Each row has a checksum of its own, so a row can be trusted even if its neighbours cannot. A flow's
//! rows are read from both ends, up to what cannot be read; its counters say how many there were. The
//! new ledger has an id of its own, so no snapshot of the old one is used with it, and all that is
//! there is looked up once more. The damaged file stays, under another name.
//!
//! From the moment in which the new id stands in the lock file until the new ledger has the old one's
//! name every start is refused; a repair that was interrupted is begun again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};

use super::open::{self, beside, unavailable};
use super::table::{self, Flow, Table};
use super::{failed, ledger_clock, place};
use crate::flow::item::FlowName;
use crate::flow::{FIRST_BASELINE, FIRST_DONE};
use crate::store::encoding::{self, column};
use crate::store::row::{Entry, Step};
use crate::store::{BATCH_MAX, StoreError};

/// Where a counter cannot be read any more, numbers go on so far behind the largest that was seen: no
/// number is given twice.
const GAP: u64 = 1_000_000;
/// Rows that are tried under the names that a flow may have.
const TRIED_MAX: usize = 100;

/// What becomes of files whose rows are lost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Lost {
    /// They are new: whatever is there comes again.
    #[default]
    Again,
    /// What is there at the next start is taken for known, and nothing of it is delivered: also what
    /// came while the listener did not run.
    Baseline,
}

/// What a repair did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repaired {
    /// Where the damaged ledger is now.
    pub aside: PathBuf,
    /// What became of each flow.
    pub flows: Vec<RepairedFlow>,
}

/// What became of a flow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RepairedFlow {
    /// Which.
    pub name: FlowName,
    /// Rows that are sound.
    pub kept: u64,
    /// Rows that are not; `None` if nobody knows how many there were.
    pub lost: Option<u64>,
}

/// Makes a new ledger of what is sound in the damaged one in `path`. `names` are flows that may be in
/// it, should the name of one be damaged.
pub(super) fn repair(path: &Path, names: &[FlowName], lost: Lost) -> Result<Repaired, StoreError> {
    place::check(path)?;
    let mut lock = open::lock(path)?;
    take_up(path)?;
    let old = damaged(path)?;
    let flows = flows(&old, names)?;
    let new_path = beside(path, ".repaired");
    for end in ["", "-wal", "-shm"] {
        remove(&beside(&new_path, end))?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut new = Connection::open_with_flags(&new_path, flags).map_err(failed("open"))?;
    let meta = open::make(&mut new)?;
    open::settings(&new)?;
    let known: BTreeMap<FlowName, Flow> = flows
        .iter()
        .filter_map(|old| Some((old.name.clone(), old.said.clone()?)))
        .collect();
    let mut done = Vec::new();
    {
        let mut table = Table::new(&new, meta, BTreeMap::new());
        table.now = ledger_clock(&known)();
        for flow in &flows {
            done.push(move_flow(&old, flow, &mut table, lost)?);
        }
    }
    new.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(failed("write"))?;
    new.close().map_err(|(_, error)| failed("write")(error))?;
    drop(old);
    open::remember_id(&mut lock, meta.id)?;
    let aside = put_aside(path)?;
    std::fs::rename(&new_path, path).map_err(unavailable("name the new ledger"))?;
    sync_directory(path)?;
    Ok(Repaired { aside, flows: done })
}

/// A connection that changes nothing, whatever it finds.
fn damaged(path: &Path) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(unavailable("repair")(std::io::Error::new(
            std::io::ErrorKind::NotFound,
            "there is no ledger",
        )));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed("open"))?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .and_then(|_| connection.pragma_update(None, "query_only", "ON"))
        .and_then(|()| connection.pragma_update(None, "cell_size_check", "ON"))
        .and_then(|()| connection.pragma_update(None, "trusted_schema", "OFF"))
        .map_err(failed("read"))?;
    open::format(&connection)?;
    Ok(connection)
}

/// A flow of the damaged ledger.
struct OldFlow {
    id: i64,
    name: FlowName,
    /// Its counters, if they can be read.
    said: Option<Flow>,
}

fn flows(old: &Connection, names: &[FlowName]) -> Result<Vec<OldFlow>, StoreError> {
    let mut statement = old
        .prepare("SELECT id, name, body FROM flows")
        .map_err(failed("read"))?;
    let mut rows = statement.query([]).map_err(failed("read"))?;
    let mut found: Vec<(i64, Vec<u8>, Option<Flow>)> = Vec::new();
    // What comes before damage counts.
    while let Ok(Some(row)) = rows.next() {
        let Ok(id) = row.get::<_, i64>(0) else {
            continue;
        };
        let bytes = |at| {
            let value = row.get_ref(at).ok();
            value
                .and_then(|value| value.as_bytes().ok())
                .unwrap_or_default()
        };
        let name = bytes(1).to_vec();
        let said = std::str::from_utf8(&name)
            .ok()
            .and_then(|name| Flow::decode(name, id, bytes(2)));
        found.push((id, name, said));
    }
    let mut flows: Vec<OldFlow> = Vec::new();
    for (id, name, said) in found {
        let stored = std::str::from_utf8(&name)
            .ok()
            .and_then(|name| FlowName::new(name).ok());
        let name = match &said {
            Some(_) => stored,
            None => {
                let candidates: Vec<&FlowName> = stored.iter().chain(names).collect();
                named(old, id, &candidates)?.or(stored)
            }
        };
        if let Some(name) = name
            && flows.iter().all(|known| known.name != name)
        {
            flows.push(OldFlow { id, name, said });
        }
    }
    // Flows are numbered from 1. Those whose own rows are lost may have a name that is known.
    let many = open::read_meta(old).map_or(0, |meta| meta.flows);
    let last = column(many.max(names.len() as u64));
    for id in 1..=last {
        if flows.iter().any(|known| known.id == id) {
            continue;
        }
        let free = |name: &&FlowName| flows.iter().all(|known| known.name != **name);
        let candidates: Vec<&FlowName> = names.iter().filter(free).collect();
        if let Some(name) = named(old, id, &candidates)? {
            flows.push(OldFlow {
                id,
                name,
                said: None,
            });
        }
    }
    if flows.is_empty() && many > 0 {
        return Err(StoreError::Damaged {
            row: "the names of its flows".to_owned(),
            hint: "nothing can be taken out of it; import an export, or move it away to begin anew",
        });
    }
    Ok(flows)
}

/// Under which of `candidates` the rows of the flow `id` are sound, if under any.
fn named(
    old: &Connection,
    id: i64,
    candidates: &[&FlowName],
) -> Result<Option<FlowName>, StoreError> {
    let mut statement = old.prepare(FORWARD).map_err(failed("read"))?;
    let mut rows = statement.query(params![id]).map_err(failed("read"))?;
    let mut tried = 0;
    while let Ok(Some(row)) = rows.next() {
        if let Some((path, body)) = raw(row) {
            for name in candidates {
                if encoding::decode(name, &path, &body).is_some() {
                    return Ok(Some((*name).clone()));
                }
            }
        }
        tried += 1;
        if tried == TRIED_MAX {
            break;
        }
    }
    Ok(None)
}

const FORWARD: &str = "SELECT path, body FROM entries WHERE flow = ?1 ORDER BY path";
const BACKWARD: &str = "SELECT path, body FROM entries WHERE flow = ?1 ORDER BY path DESC";

fn raw(row: &rusqlite::Row<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let blob = |at| Some(row.get_ref(at).ok()?.as_blob().ok()?.to_vec());
    Some((blob(0)?, blob(1)?))
}

/// Takes what is sound of a flow into the new ledger.
fn move_flow(
    old: &Connection,
    flow: &OldFlow,
    table: &mut Table<'_>,
    lost: Lost,
) -> Result<RepairedFlow, StoreError> {
    let OldFlow { id, name, said } = flow;
    let mut moved = Moved::default();
    begin(table)?;
    table.flow(name)?;
    let whole = moved.rows(old, (*id, name), FORWARD, table)?;
    if !whole {
        moved.rows(old, (*id, name), BACKWARD, table)?;
    }
    let notes = notes(old, *id, name, table)?;
    let all_notes = said.as_ref().is_some_and(|said| said.notes == notes);
    match lost {
        Lost::Baseline => table.note(name, FIRST_DONE, Some(FIRST_BASELINE))?,
        // Whether it had been done is lost: what is there now must not be taken for known.
        Lost::Again if !all_notes => table.note(name, FIRST_DONE, Some("done"))?,
        Lost::Again => {}
    }
    let counters = table.flow(name)?;
    (counters.sequence, counters.acts) = match said {
        Some(said) => (said.sequence, said.acts),
        None => (
            moved.sequence.saturating_add(GAP),
            moved.acts.saturating_add(GAP),
        ),
    };
    counters.sequence = counters.sequence.max(moved.sequence);
    counters.acts = counters.acts.max(moved.acts);
    commit(table)?;
    let before = said
        .as_ref()
        .map(|said| said.states.iter().copied().fold(0, u64::saturating_add));
    Ok(RepairedFlow {
        name: name.clone(),
        kept: moved.kept,
        lost: before.map(|before| before.saturating_sub(moved.kept)),
    })
}

/// What was taken so far.
#[derive(Default)]
struct Moved {
    kept: u64,
    sequence: u64,
    acts: u64,
    uncommitted: usize,
    /// The last path that was read from the front.
    last: Option<Vec<u8>>,
}

impl Moved {
    /// Reads rows in the order of `sql` up to what cannot be read; whether all could.
    fn rows(
        &mut self,
        old: &Connection,
        (id, name): (i64, &FlowName),
        sql: &str,
        table: &mut Table<'_>,
    ) -> Result<bool, StoreError> {
        let forward = sql == FORWARD;
        let stop = self.last.take();
        let Ok(mut statement) = old.prepare(sql) else {
            return Ok(false);
        };
        let Ok(mut rows) = statement.query(params![id]) else {
            return Ok(false);
        };
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(true),
                Err(_) => return Ok(false),
            };
            let Some((path, body)) = raw(row) else {
                continue;
            };
            if !forward && stop.as_ref().is_some_and(|stop| path <= *stop) {
                return Ok(false);
            }
            if let Some(entry) = encoding::decode(name, &path, &body) {
                self.take(name, entry, table)?;
            }
            if forward {
                self.last = Some(path);
            }
        }
    }

    fn take(
        &mut self,
        name: &FlowName,
        mut entry: Entry,
        table: &mut Table<'_>,
    ) -> Result<(), StoreError> {
        let path = entry.path.as_bytes().to_vec();
        let there = table.get(name, &path)?;
        if there
            .as_ref()
            .is_some_and(|there| there.entry.sequence >= entry.sequence)
        {
            return Ok(());
        }
        self.sequence = self.sequence.max(entry.sequence);
        self.acts = self.acts.max(entry.acted);
        // Nobody works on it.
        entry.orphan();
        if there.is_none() {
            self.kept = self.kept.saturating_add(1);
        }
        table.apply(name, &path, there.as_ref(), Step::put(entry))?;
        self.uncommitted = self.uncommitted.saturating_add(1);
        if self.uncommitted == BATCH_MAX {
            self.uncommitted = 0;
            commit(table)?;
            begin(table)?;
        }
        Ok(())
    }
}

/// Takes the values that are sound; answers how many.
fn notes(
    old: &Connection,
    id: i64,
    name: &FlowName,
    table: &mut Table<'_>,
) -> Result<u64, StoreError> {
    let mut taken = 0_u64;
    let Ok(mut statement) = old.prepare("SELECT name, body FROM notes WHERE flow = ?1") else {
        return Ok(0);
    };
    let Ok(mut rows) = statement.query(params![id]) else {
        return Ok(0);
    };
    while let Ok(Some(row)) = rows.next() {
        let read = row
            .get::<_, String>(0)
            .and_then(|key| Ok((key, row.get::<_, Vec<u8>>(1)?)));
        let Ok((key, body)) = read else {
            continue;
        };
        if let Some(value) = table::decode_note(name, &key, &body) {
            table.note(name, &key, Some(&value))?;
            taken = taken.saturating_add(1);
        }
    }
    Ok(taken)
}

fn begin(table: &Table<'_>) -> Result<(), StoreError> {
    table
        .connection()
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(failed("write"))
}

fn commit(table: &mut Table<'_>) -> Result<(), StoreError> {
    table.settle()?;
    table
        .connection()
        .execute_batch("COMMIT")
        .map_err(failed("write"))
}

/// The name that a damaged ledger gets, `n` times.
fn aside(path: &Path, n: u32) -> PathBuf {
    beside(path, &format!(".damaged-{n}"))
}

/// Gives the damaged ledger another name beside its own, and its log that name alone: a log must not
/// be found beside the new ledger.
fn put_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| unavailable("put the damaged ledger aside")(source);
    let free = (1..u32::MAX).find(|n| !aside(path, *n).exists());
    let aside = aside(path, free.unwrap_or(u32::MAX));
    std::fs::hard_link(path, &aside)
        .or_else(|_| std::fs::rename(path, &aside))
        .map_err(failed)?;
    match std::fs::rename(beside(path, "-wal"), beside(&aside, "-wal")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    remove(&beside(path, "-shm"))?;
    Ok(aside)
}

/// Goes back to where a repair began that was interrupted before the new ledger had its name.
fn take_up(path: &Path) -> Result<(), StoreError> {
    let failed = |source| unavailable("take up a repair")(source);
    let Some(last) = (1..u32::MAX)
        .map(|n| aside(path, n))
        .take_while(|aside| aside.exists())
        .last()
    else {
        return Ok(());
    };
    if !path.exists() {
        // Here files have one name alone.
        std::fs::rename(&last, path).map_err(failed)?;
    } else if !is_same(path, &last) {
        return Ok(());
    }
    match std::fs::rename(beside(&last, "-wal"), beside(path, "-wal")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    remove(&last)
}

#[cfg(unix)]
fn is_same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let file = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    file(one).is_some() && file(one) == file(other)
}

#[cfg(not(unix))]
const fn is_same(_: &Path, _: &Path) -> bool {
    false
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(unavailable("tidy up")(error))
        }
        _ => Ok(()),
    }
}

/// Names are durable when their directory is synced.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    #[cfg(unix)]
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(unavailable("sync its directory"))?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}
