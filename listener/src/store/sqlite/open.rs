//! Opening a ledger: who may, whether it is one, and whether all of it is there (`check`).
//!
//! It is opened when a process starts, and again by the process itself after its disk has failed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::table::{self, Flow, Meta, SCHEMA};
use super::{HINT, check, failed, place, wal};
use crate::flow::item::FlowName;
use crate::store::StoreError;

/// What SQLite's header says of whose file it is: "kled".
const APPLICATION: i64 = 0x6b6c_6564;
/// The format of the ledger.
const FORMAT: i64 = 1;
/// What the writer may keep in memory of the file, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// An open ledger.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) meta: Meta,
    pub(super) flows: BTreeMap<FlowName, Flow>,
    /// Rows that a process had claimed that is dead by now.
    pub(super) claimed: Vec<(FlowName, Vec<u8>)>,
}

/// Opens the ledger in `path`, or makes a new one. The file is locked as long as it lives.
pub(super) fn open(path: &Path) -> Result<(File, Opened), StoreError> {
    place::check(path)?;
    let mut lock = lock(path)?;
    let opened = read(path, &mut lock, OpenFlags::SQLITE_OPEN_CREATE)?;
    Ok((lock, opened))
}

/// Opens the ledger again whose lock is `lock`, after its file could not be read or written.
///
/// After a sync that failed nobody knows what is on the disk of what the kernel still shows, and a
/// second sync that succeeds proves nothing. So all of the log is written into the ledger's own file,
/// from what was just read and found to be whole, and synced there; only then it is used.
pub(super) fn again(path: &Path, lock: &mut File) -> Result<Opened, StoreError> {
    let opened = read(path, lock, OpenFlags::empty())?;
    let (busy, left): (i64, i64) = opened
        .connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(failed("write its log into it"))?;
    if (busy, left) != (0, 0) {
        return Err(unavailable("write its log into it")(std::io::Error::other(
            "somebody else reads it",
        )));
    }
    Ok(opened)
}

fn read(path: &Path, lock: &mut File, create: OpenFlags) -> Result<Opened, StoreError> {
    wal::check(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags | create).map_err(failed("open"))?;
    let known = locked_id(lock)?;
    let meta = if is_empty(&connection)? {
        if known.is_some() || create.is_empty() {
            // Begun anew it would deliver everything again.
            return Err(StoreError::Damaged {
                row: path.display().to_string(),
                hint: "it is empty or gone; to begin anew, remove the file of this name with .lock",
            });
        }
        Some(make(&mut connection)?)
    } else {
        format(&connection)?;
        None
    };
    settings(&connection)?;
    schema(&connection)?;
    let meta = meta.map_or_else(|| read_meta(&connection), Ok)?;
    match known {
        None => remember_id(lock, meta.id)?,
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
    let claimed = check::all(path, &connection, &flows)?;
    Ok(Opened {
        connection,
        meta,
        flows,
        claimed,
    })
}

/// The file that belongs to the ledger `path` and has `end` behind its name.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The file beside the ledger that the one process holds that uses it. It also has the ledger's id,
/// so that a ledger that was cut to nothing is not taken for a new one.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(beside(path, ".lock"))
        .map_err(unavailable("open its lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.display().to_string(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(unavailable("lock")(source)),
    }
}

pub(super) fn locked_id(lock: &mut File) -> Result<Option<[u8; 16]>, StoreError> {
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

pub(super) fn remember_id(lock: &mut File, id: [u8; 16]) -> Result<(), StoreError> {
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
pub(super) fn format(connection: &Connection) -> Result<(), StoreError> {
    let found = pragma(connection, "user_version")?;
    if pragma(connection, "application_id")? != APPLICATION || found != FORMAT {
        return Err(StoreError::Format {
            found,
            known: FORMAT,
        });
    }
    Ok(())
}

/// Makes an empty ledger in an empty file.
pub(super) fn make(connection: &mut Connection) -> Result<Meta, StoreError> {
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
    Ok(meta)
}

pub(super) fn settings(connection: &Connection) -> Result<(), StoreError> {
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

pub(super) fn broken(what: &str) -> StoreError {
    StoreError::Damaged {
        row: what.to_owned(),
        hint: HINT,
    }
}

pub(super) fn read_meta(connection: &Connection) -> Result<Meta, StoreError> {
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
