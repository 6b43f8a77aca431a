//! Opening a ledger: who may, whether it is one, and whether all of it is there.
//!
//! Everything is read once. SQLite looks at its own structure (`integrity_check`), and here each row
//! is held against its checksum, its neighbour (keys rise) and the counters of its flow (number and
//! sum of checksums). So a flipped bit is found before anything is delivered from the ledger, be it
//! in a row, in a key, or in a page that no longer leads to its rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::table::{self, Flow, Meta, SCHEMA, checked};
use super::{HINT, damaged, failed, wal};
use crate::flow::item::FlowName;
use crate::store::StoreError;
use crate::store::encoding::{column, sum};

/// What SQLite's header says of whose file it is: "kled".
const APPLICATION: i64 = 0x6b6c_6564;
/// The format of the ledger.
const FORMAT: i64 = 1;
/// What the writer may keep in memory of the file, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// An open ledger.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// Locked as long as it lives.
    pub(super) lock: File,
    pub(super) meta: Meta,
    pub(super) flows: BTreeMap<FlowName, Flow>,
    /// Rows that a process had claimed that is dead by now.
    pub(super) claimed: Vec<(FlowName, Vec<u8>)>,
}

/// Opens the ledger in `path`, or makes a new one.
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    let mut lock = lock(path)?;
    wal::check(path)?;
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed("open"))?;
    let known = locked_id(&mut lock)?;
    let meta = if is_empty(&connection)? {
        if known.is_some() {
            // Begun anew it would deliver everything again.
            return Err(StoreError::Damaged {
                row: path.display().to_string(),
                hint: "it is empty or gone; to begin anew, remove the file of this name with .lock",
            });
        }
        create(&mut connection)?
    } else {
        format(&connection)?
    };
    settings(&connection)?;
    schema(&connection)?;
    let meta = meta.map_or_else(|| read_meta(&connection), Ok)?;
    match known {
        None => remember_id(&mut lock, meta.id)?,
        Some(known) if known == meta.id => {}
        Some(_) => {
            return Err(StoreError::Damaged {
                row: path.display().to_string(),
                hint: "it is another ledger than the one that was here; \
                       if that is meant, remove the file of this name with .lock",
            });
        }
    }
    let flows = read_flows(&connection, meta)?;
    let claimed = rows(&connection, &flows)?;
    Ok(Opened {
        connection,
        lock,
        meta,
        flows,
        claimed,
    })
}

/// The file beside the ledger that the one process holds that uses it. It also has the ledger's id,
/// so that a ledger that was cut to nothing is not taken for a new one.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(PathBuf::from(name))
        .map_err(unavailable("open its lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.display().to_string(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(unavailable("lock")(source)),
    }
}

fn locked_id(lock: &mut File) -> Result<Option<[u8; 16]>, StoreError> {
    let mut id = Vec::new();
    lock.seek(SeekFrom::Start(0))
        .and_then(|_| lock.take(17).read_to_end(&mut id))
        .map_err(unavailable("read its lock file"))?;
    if id.is_empty() {
        return Ok(None);
    }
    id.try_into().map(Some).map_err(|_| StoreError::Damaged {
        row: "its lock file".to_owned(),
        hint: "if the ledger itself is whole, remove the file of its name with .lock",
    })
}

fn remember_id(lock: &mut File, id: [u8; 16]) -> Result<(), StoreError> {
    lock.seek(SeekFrom::Start(0))
        .and_then(|_| lock.write_all(&id))
        .and_then(|()| lock.sync_all())
        .map_err(unavailable("write its lock file"))
}

pub(super) fn unavailable(what: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Unavailable {
        what,
        source: Box::new(source),
    }
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, StoreError> {
    connection
        .pragma_query_value(None, name, |row| row.get(0))
        .map_err(failed("read"))
}

fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed("read"))?;
    let marks = pragma(connection, "application_id")? | pragma(connection, "user_version")?;
    Ok(tables == 0 && marks == 0)
}

/// Refuses what is no ledger and what a newer version wrote.
fn format(connection: &Connection) -> Result<Option<Meta>, StoreError> {
    let found = pragma(connection, "user_version")?;
    if pragma(connection, "application_id")? != APPLICATION || found != FORMAT {
        return Err(StoreError::Format {
            found,
            known: FORMAT,
        });
    }
    Ok(None)
}

fn create(connection: &mut Connection) -> Result<Option<Meta>, StoreError> {
    let mut id = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id)
        .map_err(|_| unavailable("draw an id")(std::io::Error::other("there is no randomness")))?;
    let meta = Meta { id, flows: 0 };
    // Before the first table, or it is not taken.
    connection
        .pragma_update(None, "auto_vacuum", "INCREMENTAL")
        .map_err(failed("create"))?;
    let transaction = connection.transaction().map_err(failed("create"))?;
    for statement in SCHEMA {
        transaction
            .execute_batch(statement)
            .map_err(failed("create"))?;
    }
    transaction
        .execute(
            "INSERT INTO meta (one, body) VALUES (1, ?1)",
            params![meta.encode()],
        )
        .and_then(|_| transaction.pragma_update(None, "application_id", APPLICATION))
        .and_then(|()| transaction.pragma_update(None, "user_version", FORMAT))
        .map_err(failed("create"))?;
    transaction.commit().map_err(failed("create"))?;
    Ok(Some(meta))
}

fn settings(connection: &Connection) -> Result<(), StoreError> {
    let set = |name: &str, value: &str| {
        connection
            .pragma_update(None, name, value)
            .map_err(failed("set up"))
    };
    // The answer is the mode that it has now; it may refuse silently.
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed("set up"))?;
    if mode != "wal" {
        return Err(unavailable("set up")(std::io::Error::other(format!(
            "its file system allows no write-ahead log (mode {mode})"
        ))));
    }
    // Every commit is on the disk before it is answered.
    set("synchronous", "FULL")?;
    set("cell_size_check", "ON")?;
    set("trusted_schema", "OFF")?;
    set("cache_size", &format!("-{CACHE_KIB}"))
}

/// The schema must be word for word what this version makes: a flipped bit in it might turn an index
/// into another one.
fn schema(connection: &Connection) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
        .map_err(failed("read"))?;
    let mut found: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .map_err(failed("read"))?;
    found.retain(|sql| sql != table::BY_NAME && sql != table::BY_TIME);
    found.sort();
    let mut wanted = SCHEMA.to_vec();
    wanted.sort_unstable();
    if found != wanted {
        return Err(broken("the schema"));
    }
    Ok(())
}

fn broken(what: &str) -> StoreError {
    StoreError::Damaged {
        row: what.to_owned(),
        hint: HINT,
    }
}

fn read_meta(connection: &Connection) -> Result<Meta, StoreError> {
    let bodies: Vec<Vec<u8>> = connection
        .prepare("SELECT body FROM meta LIMIT 2")
        .and_then(|mut statement| {
            statement
                .query_map([], |row| row.get(0))
                .and_then(Iterator::collect)
        })
        .map_err(failed("read"))?;
    match bodies.as_slice() {
        [body] => Meta::decode(body).ok_or_else(|| broken("its description")),
        _ => Err(broken("its description")),
    }
}

fn read_flows(connection: &Connection, meta: Meta) -> Result<BTreeMap<FlowName, Flow>, StoreError> {
    let mut statement = connection
        .prepare("SELECT id, name, body FROM flows")
        .map_err(failed("read"))?;
    let mut rows = statement.query([]).map_err(failed("read"))?;
    let mut flows = BTreeMap::new();
    while let Some(row) = rows.next().map_err(failed("read"))? {
        let flow = row
            .get::<_, i64>(0)
            .and_then(|id| Ok((id, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?)))
            .ok()
            .and_then(|(id, name, body)| {
                let flow = Flow::decode(&name, id, &body)?;
                Some((FlowName::new(&name).ok()?, flow))
            });
        let (name, flow) = flow.ok_or_else(|| broken("the counters of a flow"))?;
        flows.insert(name, flow);
    }
    if flows.len() as u64 != meta.flows {
        return Err(broken("the counters of a flow"));
    }
    Ok(flows)
}

/// Reads all rows; answers those that somebody had claimed.
fn rows(
    connection: &Connection,
    flows: &BTreeMap<FlowName, Flow>,
) -> Result<Vec<(FlowName, Vec<u8>)>, StoreError> {
    let whole: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(failed("check"))?;
    if whole != "ok" {
        return Err(broken(&whole));
    }
    let mut claimed = Vec::new();
    // Nothing may belong to a flow that is not there.
    let mut seen = (0_u64, 0_u64);
    for (name, flow) in flows {
        let mut found = Flow {
            sum: 0,
            notes: 0,
            states: Default::default(),
            ..flow.clone()
        };
        let mut statement = connection
            .prepare(
                "SELECT state, due, sequence, directory, changed, acted, body, path FROM entries \
                 WHERE flow = ?1 ORDER BY path",
            )
            .map_err(failed("read"))?;
        let mut rows = statement.query(params![flow.id]).map_err(failed("read"))?;
        let mut last: Option<Vec<u8>> = None;
        while let Some(row) = rows.next().map_err(failed("read"))? {
            let path = row
                .get_ref(7)
                .ok()
                .and_then(|value| value.as_blob().ok())
                .ok_or_else(|| broken("a path"))?;
            if last.as_deref().is_some_and(|last| last >= path) {
                return Err(damaged(path));
            }
            let stored = checked(name, path, row, 0)?;
            found.sum_up(stored.sum(), true);
            found.count(stored.entry.state, true);
            if stored.entry.owner.is_some() {
                claimed.push((name.clone(), path.to_vec()));
            }
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(path);
            seen.0 = seen.0.saturating_add(1);
        }
        let mut statement = connection
            .prepare("SELECT name, body FROM notes WHERE flow = ?1")
            .map_err(failed("read"))?;
        let mut rows = statement.query(params![flow.id]).map_err(failed("read"))?;
        while let Some(row) = rows.next().map_err(failed("read"))? {
            let note = row
                .get::<_, String>(0)
                .and_then(|key| Ok((key, row.get::<_, Vec<u8>>(1)?)))
                .ok()
                .filter(|(key, body)| table::decode_note(name, key, body).is_some());
            let (_, body) = note.ok_or_else(|| broken("a value of a flow"))?;
            found.sum_up(sum(&body), true);
            found.notes = found.notes.saturating_add(1);
            seen.1 = seen.1.saturating_add(1);
        }
        if found != *flow {
            return Err(broken("rows are missing"));
        }
    }
    let all: (i64, i64) = connection
        .query_row(
            "SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM notes)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(failed("read"))?;
    if all != (column(seen.0), column(seen.1)) {
        return Err(broken("rows of no flow"));
    }
    Ok(claimed)
}
