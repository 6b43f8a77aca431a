//! The one thread that writes: it takes what waits, does it in one transaction, syncs once, and
//! answers all. Who comes meanwhile is in the next one.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use rusqlite::ffi;
use tokio::sync::{mpsc, oneshot};

use super::open::{Opened, unavailable};
use super::table::Table;
use super::{failed, ledger_clock};
use crate::store::StoreError;

/// Callers that may wait for the writer; more wait for a place.
pub(super) const QUEUE_MAX: usize = 1_024;
/// Calls in one transaction.
const GROUP_MAX: usize = 256;
/// A ledger larger than this many bytes a row and [`ROOM`] is written anew by `compact`.
const ROW_BYTES: u64 = 200;
/// See [`ROW_BYTES`]: 64 MiB.
const ROOM: u64 = 64 * 1024 * 1024;

/// Something for the writer to do.
pub(super) enum Job {
    /// Inside a transaction.
    Work(Work),
    /// Between two.
    Compact(oneshot::Sender<Result<(), StoreError>>),
}

/// What is done in a transaction; it answers whether it went well, and whom to tell when the
/// transaction has ended.
type Work = Box<dyn FnOnce(&mut Table<'_>) -> (bool, Tell) + Send>;

/// Tells the caller: `None` if the transaction was committed, or why not.
type Tell = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// Makes a job of `work`, and what its result comes by.
pub(super) fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Table<'_>) -> Result<T, StoreError> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, StoreError>>) {
    let (answer, answered) = oneshot::channel();
    let work: Work = Box::new(move |table| {
        let result = work(table);
        let good = result.is_ok();
        let tell: Tell = Box::new(move |failure| {
            // Who asked may have gone; what was done stays done.
            let _ = answer.send(match failure {
                Some(failure) if result.is_ok() => Err(failure),
                _ => result,
            });
        });
        (good, tell)
    });
    (Job::Work(work), answered)
}

/// The thread's work until all senders are gone.
pub(super) fn run(opened: Opened, mut jobs: mpsc::Receiver<Job>) {
    let Opened {
        connection,
        lock,
        meta,
        flows,
        ..
    } = opened;
    let now = ledger_clock(&flows);
    let mut table = Table::new(&connection, meta, flows);
    let mut poisoned = false;
    let mut waiting: Option<Job> = None;
    while let Some(first) = waiting.take().or_else(|| jobs.blocking_recv()) {
        table.now = now();
        let mut group = Vec::new();
        match first {
            Job::Compact(answer) => {
                let _ = answer.send(compact(&table));
                continue;
            }
            Job::Work(work) => group.push(work),
        }
        while group.len() < GROUP_MAX {
            match jobs.try_recv() {
                Ok(Job::Work(work)) => group.push(work),
                Ok(other) => {
                    waiting = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        poisoned = transaction(&mut table, group, poisoned);
    }
    drop(table);
    // What a reader still holds open is checkpointed when the ledger is opened again.
    let _ = connection.pragma_query(None, "wal_checkpoint(TRUNCATE)", |_| Ok(()));
    let _ = connection.close();
    drop(lock);
}

/// Does `group` in one transaction. Answers whether a sync failed: after that nobody knows what is
/// on the disk, and a second sync that succeeds proves nothing.
fn transaction(table: &mut Table<'_>, group: Vec<Work>, poisoned: bool) -> bool {
    let before = table.mark();
    let mut told: Vec<Tell> = Vec::with_capacity(group.len());
    let begun = if poisoned {
        Err(unavailable("write")(std::io::Error::other(
            "a sync failed; it must be opened again",
        )))
    } else {
        execute(table, "BEGIN IMMEDIATE")
    };
    let mut failure = begun.err();
    for work in group {
        if failure.is_some() {
            // It must not run, but who waits for it must be told: the end of the channel says so.
            continue;
        }
        match one(table, work) {
            Ok(tell) => told.push(tell),
            Err((error, tell)) => {
                told.extend(tell);
                failure = Some(error);
            }
        }
    }
    let result = match failure {
        Some(error) => Err(error),
        None => table.settle().and_then(|()| execute(table, "COMMIT")),
    };
    let Err(error) = result else {
        for tell in told {
            tell(None);
        }
        return poisoned;
    };
    if !table.connection().is_autocommit() {
        let _ = execute(table, "ROLLBACK");
    }
    table.restore(before);
    let sync_failed = is_failed_sync(&error);
    let text = error_text(&error);
    for tell in told {
        tell(Some(unavailable("commit")(std::io::Error::other(
            text.clone(),
        ))));
    }
    poisoned || sync_failed
}

/// Does one job, and takes it back if it failed. The error is that of the whole transaction.
fn one(table: &mut Table<'_>, work: Work) -> Result<Tell, (StoreError, Option<Tell>)> {
    let before = table.mark();
    execute(table, "SAVEPOINT job").map_err(|error| (error, None))?;
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(table)));
    let (good, tell) = match done {
        Ok((good, tell)) => (good, Some(tell)),
        // Our own bug; its caller sees the channel end, the others go on.
        Err(_) => (false, None),
    };
    if table.connection().is_autocommit() {
        // SQLite has ended the transaction itself, as it does when the disk is full.
        let error = unavailable("write")(std::io::Error::other("SQLite rolled back"));
        return Err((error, tell));
    }
    let ended = if good {
        execute(table, "RELEASE job")
    } else {
        table.restore(before);
        execute(table, "ROLLBACK TO job").and_then(|()| execute(table, "RELEASE job"))
    };
    match ended {
        Ok(()) => Ok(tell.unwrap_or_else(|| Box::new(|_| ()))),
        Err(error) => Err((error, tell)),
    }
}

fn execute(table: &mut Table<'_>, sql: &'static str) -> Result<(), StoreError> {
    table
        .statement(sql)?
        .execute([])
        .map(|_| ())
        .map_err(failed(sql))
}

/// Gives pages back that hold nothing, and makes the log short. If rows lie too far apart, the file
/// is written anew: SQLite does that as one transaction.
fn compact(table: &Table<'_>) -> Result<(), StoreError> {
    let connection = table.connection();
    let number = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map(|number| u64::try_from(number).unwrap_or(0))
            .map_err(failed("compact"))
    };
    let rows: u64 = table
        .flows
        .values()
        .flat_map(|flow| flow.states)
        .fold(0, u64::saturating_add);
    let size = number("page_count")?.saturating_mul(number("page_size")?);
    if size > rows.saturating_mul(ROW_BYTES).saturating_add(ROOM) {
        connection
            .execute_batch("VACUUM")
            .map_err(failed("compact"))?;
    }
    let run = |sql: &str| {
        // Rows that come as answers are steps of the work.
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    };
    run("PRAGMA incremental_vacuum")
        .and_then(|()| run("PRAGMA wal_checkpoint(TRUNCATE)"))
        .map_err(failed("compact"))
}

fn is_failed_sync(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else {
        return false;
    };
    matches!(
        source.downcast_ref::<rusqlite::Error>(),
        Some(rusqlite::Error::SqliteFailure(error, _))
            if matches!(
                error.extended_code,
                ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC
            )
    )
}

fn error_text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A clock that starts at `base` milliseconds and only goes on.
pub(super) fn clock_from(base: u64) -> impl Fn() -> u64 + Send {
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver of the ledger owns its clock"
    )]
    let start = Instant::now();
    move || {
        let passed: Duration = start.elapsed();
        base.saturating_add(crate::store::row::millis(passed))
    }
}
