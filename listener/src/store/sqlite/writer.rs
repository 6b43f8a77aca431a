//! The one thread that writes: it takes what waits, does it in one transaction, syncs once, and
//! answers all. Who comes meanwhile is in the next one.
//!
//! After an error of the disk nobody is let in, and the file is opened again with pauses that double;
//! all of it is read and checked before anybody gets it. Claims go on meanwhile: whoever has one keeps
//! it, and what a transaction did that failed and is there all the same runs out by itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::gate::{Gate, away};
use super::open::{self, Opened};
use super::table::{Flow, Meta, Table};
use super::{failed, ledger_clock};
use crate::flow::item::FlowName;
use crate::store::StoreError;

/// Callers that may wait for the writer; more wait for a place.
pub(super) const QUEUE_MAX: usize = 1_024;
/// Calls in one transaction.
const GROUP_MAX: usize = 256;
/// A ledger larger than this many bytes a row and [`ROOM`] is written anew by `compact`.
const ROW_BYTES: u64 = 200;
/// See [`ROW_BYTES`]: 64 MiB.
const ROOM: u64 = 64 * 1024 * 1024;

/// Pauses before the ledger is opened again after its disk failed: the first one, and the longest.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
/// See [`AGAIN_FIRST`].
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Writes the log into the ledger's own file, and makes it short.
const EMPTY_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// How often it is looked meanwhile whether somebody waits for an answer.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Something for the writer to do.
pub(super) enum Job {
    /// Inside a transaction.
    Work(Work),
    /// Between two.
    Compact(oneshot::Sender<Result<(), StoreError>>),
}

/// What is done in a transaction, or refused because there is none; it answers how that went, and whom
/// to tell when the transaction has ended.
type Work = Box<dyn FnOnce(Result<&mut Table<'_>, StoreError>) -> (Went, Tell) + Send>;

/// Tells the caller: `None` if the transaction was committed, or why not.
type Tell = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// How a job went.
pub(super) enum Went {
    Well,
    /// What it did is taken back, and others go on.
    Badly,
    /// The file cannot be trusted as it is open now: why.
    Broken(String),
}

/// Makes a job of `work`, and what its result comes by.
pub(super) fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Table<'_>) -> Result<T, StoreError> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, StoreError>>) {
    let (answer, answered) = oneshot::channel();
    let work: Work = Box::new(move |table| {
        let result = table.and_then(work);
        let went = match &result {
            Ok(_) => Went::Well,
            Err(error) if is_broken(error) => Went::Broken(error_text(error)),
            Err(_) => Went::Badly,
        };
        let tell: Tell = Box::new(move |failure| {
            // Who asked may have gone; what was done stays done.
            let _ = answer.send(match failure {
                Some(failure) if result.is_ok() => Err(failure),
                _ => result,
            });
        });
        (went, tell)
    });
    (Job::Work(work), answered)
}

/// The thread's work until all senders are gone.
pub(super) fn run(mut opened: Opened, mut lock: File, gate: &Gate, mut jobs: mpsc::Receiver<Job>) {
    // It never goes back, whatever the file says when it is opened again.
    let now = ledger_clock(&opened.flows);
    loop {
        let Opened {
            connection,
            meta,
            flows,
            ..
        } = opened;
        let Some(trouble) = serve(&connection, meta, flows, &now, gate, &mut jobs) else {
            // What a reader still holds open is checkpointed when the ledger is opened again.
            let _ = carry_out(&connection, EMPTY_LOG);
            let _ = connection.close();
            return;
        };
        tracing::warn!(ledger = %gate.path().display(), trouble, "the ledger is opened again");
        drop(connection);
        let Some(whole) = open_again(&mut lock, gate, &mut jobs) else {
            return;
        };
        opened = whole;
        tracing::info!(ledger = %gate.path().display(), "the ledger can be used again");
        gate.open();
    }
}

/// Does what is asked until all senders are gone, or until the file cannot be trusted any more; then
/// nobody may in, and it answers why.
fn serve(
    connection: &Connection,
    meta: Meta,
    flows: BTreeMap<FlowName, Flow>,
    now: &dyn Fn() -> u64,
    gate: &Gate,
    jobs: &mut mpsc::Receiver<Job>,
) -> Option<String> {
    let mut table = Table::new(connection, meta, flows);
    let mut waiting: Option<Job> = None;
    while let Some(first) = waiting.take().or_else(|| jobs.blocking_recv()) {
        table.now = now();
        let mut group = Vec::new();
        match first {
            Job::Compact(answer) => {
                let done = compact(&table);
                let trouble = match done.as_ref().map_err(Failure::of) {
                    Err(Failure::Broken(why)) => Some(why),
                    Err(Failure::Full(_)) => make_room(&table),
                    _ => None,
                };
                if let Some(trouble) = &trouble {
                    gate.shut(trouble.clone());
                }
                let _ = answer.send(done);
                if trouble.is_some() {
                    return trouble;
                }
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
        let trouble = transaction(&mut table, group, gate);
        if trouble.is_some() {
            if let Some(job) = waiting {
                refuse(job, trouble.as_deref().unwrap_or_default());
            }
            return trouble;
        }
    }
    None
}

/// Opens the ledger again, however long that takes; `None` if nobody is left who wants it.
fn open_again(lock: &mut File, gate: &Gate, jobs: &mut mpsc::Receiver<Job>) -> Option<Opened> {
    let mut pause = AGAIN_FIRST;
    loop {
        let mut waited = Duration::ZERO;
        while waited < pause || !gate.is_empty() {
            let why = gate.refusal("write").err();
            let why = why.as_ref().map_or_else(String::new, error_text);
            loop {
                match jobs.try_recv() {
                    Ok(job) => refuse(job, &why),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return None,
                }
            }
            std::thread::sleep(LOOK_EVERY);
            waited = waited.saturating_add(LOOK_EVERY);
        }
        match open::again(gate.path(), lock) {
            Ok(opened) => return Some(opened),
            Err(error) => gate.shut(error_text(&error)),
        }
        pause = pause.saturating_mul(2).min(AGAIN_MAX);
    }
}

fn refuse(job: Job, why: &str) {
    match job {
        Job::Work(work) => work(Err(away("write", why))).1(None),
        Job::Compact(answer) => {
            let _ = answer.send(Err(away("compact", why)));
        }
    }
}

/// Why a transaction failed.
enum Failure {
    /// The next one may succeed.
    Passing(String),
    /// The disk has no room.
    Full(String),
    /// The file cannot be trusted as it is open now.
    Broken(String),
}

impl Failure {
    fn of(error: &StoreError) -> Self {
        let text = error_text(error);
        if is_broken(error) {
            Self::Broken(text)
        } else if code(error) == Some(ErrorCode::DiskFull) {
            Self::Full(text)
        } else {
            Self::Passing(text)
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Passing(text) | Self::Full(text) | Self::Broken(text) => text,
        }
    }
}

/// Does `group` in one transaction. If the file cannot be trusted any more it answers why; by then
/// nobody may in.
fn transaction(table: &mut Table<'_>, group: Vec<Work>, gate: &Gate) -> Option<String> {
    let before = table.mark();
    let mut told: Vec<Tell> = Vec::with_capacity(group.len());
    let mut failure = execute(table, "BEGIN IMMEDIATE")
        .err()
        .map(|error| Failure::of(&error));
    for work in group {
        match &failure {
            Some(failure) => told.push(work(Err(away("write", failure.text()))).1),
            None => match one(table, work) {
                Ok(tell) => told.push(tell),
                Err((error, tell)) => {
                    told.extend(tell);
                    failure = Some(error);
                }
            },
        }
    }
    let result = match failure {
        Some(failure) => Err(failure),
        None => table
            .settle()
            .and_then(|()| execute(table, "COMMIT"))
            .map_err(|error| Failure::of(&error)),
    };
    let Err(mut failure) = result else {
        for tell in told {
            tell(None);
        }
        return None;
    };
    if !table.connection().is_autocommit() {
        let _ = execute(table, "ROLLBACK");
    }
    table.restore(before);
    if matches!(failure, Failure::Full(_))
        && let Some(why) = make_room(table)
    {
        failure = Failure::Broken(why);
    }
    if let Failure::Broken(why) = &failure {
        gate.shut(why.clone());
    }
    for tell in told {
        tell(Some(away("commit", failure.text())));
    }
    match failure {
        Failure::Broken(why) => Some(why),
        Failure::Passing(_) | Failure::Full(_) => None,
    }
}

/// Empties the log into the ledger's own file, where there is room for all rows that were there before:
/// on a full disk those can be worked on. If the file cannot be trusted any more after that it answers
/// why.
fn make_room(table: &Table<'_>) -> Option<String> {
    let emptied = carry_out(table.connection(), EMPTY_LOG).map_err(failed("write its log into it"));
    emptied.err().filter(is_broken).as_ref().map(error_text)
}

/// Does one job, and takes it back if it failed. The error is that of the whole transaction.
fn one(table: &mut Table<'_>, work: Work) -> Result<Tell, (Failure, Option<Tell>)> {
    let before = table.mark();
    if let Err(error) = execute(table, "SAVEPOINT job") {
        let failure = Failure::of(&error);
        let tell = work(Err(away("write", failure.text()))).1;
        return Err((failure, Some(tell)));
    }
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(Ok(table))));
    let (went, tell) = match done {
        Ok((went, tell)) => (went, Some(tell)),
        // Our own bug; its caller sees the channel end, the others go on.
        Err(_) => (Went::Badly, None),
    };
    if let Went::Broken(why) = went {
        return Err((Failure::Broken(why), tell));
    }
    if table.connection().is_autocommit() {
        // SQLite has ended the transaction itself, as it does when the disk is full.
        return Err((Failure::Full("SQLite rolled back".to_owned()), tell));
    }
    let ended = if matches!(went, Went::Well) {
        execute(table, "RELEASE job")
    } else {
        table.restore(before);
        execute(table, "ROLLBACK TO job").and_then(|()| execute(table, "RELEASE job"))
    };
    match ended {
        Ok(()) => Ok(tell.unwrap_or_else(|| Box::new(|_| ()))),
        Err(error) => Err((Failure::of(&error), tell)),
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
    carry_out(connection, "PRAGMA incremental_vacuum")
        .and_then(|()| carry_out(connection, EMPTY_LOG))
        .map_err(failed("compact"))
}

/// Carries out a statement whose answers, if there are any, are steps of its work.
fn carry_out(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Whether nobody knows any more what is in the file: its disk failed, a sync above all, or what was
/// read is not what was written. A disk that is full is no such thing.
fn is_broken(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged { .. })
        || matches!(
            code(error),
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::ReadOnly
                    | ErrorCode::FileLockingProtocolFailed
            )
        )
}

/// What SQLite says, if it is what failed.
fn code(error: &StoreError) -> Option<ErrorCode> {
    let StoreError::Unavailable { source, .. } = error else {
        return None;
    };
    let source = source.downcast_ref::<rusqlite::Error>();
    source.and_then(rusqlite::Error::sqlite_error_code)
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
