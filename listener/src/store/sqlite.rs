//! The ledger in a file: SQLite with a write-ahead log, for one process.
//!
//! | file | what |
//! | --- | --- |
//! | `NAME` | the rows |
//! | `NAME-wal`, `NAME-shm` | SQLite's log and its index, while it is open or after a kill |
//! | `NAME.lock` | held by the process that uses the ledger; has the ledger's id |
//!
//! One thread writes: calls that wait are one transaction and one sync. Readers stand
//! beside it. Every commit is synced before it is answered. After an error of the disk, a sync that
//! failed above all, nobody can say what is on it: the writer opens the ledger again by itself, checks
//! all of it, and callers get [`StoreError::Unavailable`] until then. A full disk is waited for alike.
//!
//! All of the ledger is read and checked when it is opened. Claims of the process that had it before
//! are free at once.
//!
//! The ledger must be on a local file system, as neither the lock nor the log works over a network:
//! [`StoreError::Elsewhere`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ketch_client::RemotePath;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc;
use tokio::sync::oneshot::error::TryRecvError;

use super::row::{Entry, millis};
use super::{
    Answer, Claim, ClaimAsk, ClaimId, Counts, End, Placement, Record, Recorded, Row, ScanStart,
    State, Store, StoreError,
};
use crate::flow::item::FlowName;
use gate::Gate;
pub use repair::{Lost, Repaired, RepairedFlow};
use table::{Flow, Table};
use writer::{Job, job};

mod changes;
mod check;
mod gate;
mod open;
pub(crate) mod place;
mod reading;
mod repair;
mod table;
mod wal;
mod writer;

/// What to do about a damaged ledger.
pub(super) const HINT: &str =
    "nothing is delivered from it; `ketch listen repair` takes what is whole of it into a new one";

/// A ledger in a file.
pub struct SqliteStore {
    id: [u8; 16],
    gate: Arc<Gate>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<std::thread::JoinHandle<()>>,
    /// Leases live as long as the process: no other may have the file.
    leases: Arc<Mutex<Leases>>,
}

type Leases = HashMap<String, (String, Instant)>;

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.gate.path())
            .finish_non_exhaustive()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.gate.shut("it is being closed".to_owned());
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // It ends when what waits is done; a panic there has been seen by its caller.
            let _ = writer.join();
        }
    }
}

impl SqliteStore {
    /// Opens the ledger in the file `path`, or makes a new one. Reads all of it: to be called on a
    /// thread that may block.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Damaged`], [`StoreError::Format`], or
    /// [`StoreError::Unavailable`] if the file cannot be read or made.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let (lock, mut opened) = open::open(&path)?;
        let id = opened.meta.id;
        let claimed = std::mem::take(&mut opened.claimed);
        let (jobs, queue) = mpsc::channel(writer::QUEUE_MAX);
        let gate = Arc::new(Gate::new(path));
        let writer = std::thread::Builder::new()
            .name("ketch-ledger".to_owned())
            .spawn({
                let gate = Arc::clone(&gate);
                move || writer::run(opened, lock, &gate, queue)
            })
            .map_err(open::unavailable("start its thread"))?;
        let store = Self {
            id,
            gate,
            jobs: Some(jobs),
            writer: Some(writer),
            leases: Arc::default(),
        };
        store.orphan(claimed)?;
        Ok(store)
    }

    /// Makes a new ledger of all rows that are sound in a damaged one, which is kept under another
    /// name. `names` are the flows that may be in it. Nobody may have it open. Reads all of it: to be
    /// called on a thread that may block.
    ///
    /// Rows that are lost are files that nobody knows any more: see [`Lost`]. If the log was damaged,
    /// rows may also be older than they were: what they say is not done yet may have been, and a sink
    /// that takes a delivery twice gets it twice.
    ///
    /// # Errors
    /// [`StoreError::InUse`]; [`StoreError::Damaged`] if nothing can be read, and as
    /// [`SqliteStore::open`]. What was there is there still.
    ///
    /// ```no_run
    /// use ketch_listener::store::sqlite::{Lost, SqliteStore};
    ///
    /// let done = SqliteStore::repair("/var/lib/ketch-listener/ledger.sqlite", &[], Lost::Again)?;
    /// for flow in done.flows {
    ///     println!("{}: {} rows kept, lost: {:?}", flow.name, flow.kept, flow.lost);
    /// }
    /// # Ok::<(), ketch_listener::store::StoreError>(())
    /// ```
    pub fn repair(
        path: impl AsRef<Path>,
        names: &[FlowName],
        lost: Lost,
    ) -> Result<Repaired, StoreError> {
        repair::repair(path.as_ref(), names, lost)
    }

    /// Frees the claims of a process that is gone.
    fn orphan(&self, claimed: Vec<(FlowName, Vec<u8>)>) -> Result<(), StoreError> {
        if claimed.is_empty() {
            return Ok(());
        }
        let (job, mut answered) = job(move |table| {
            for (flow, path) in &claimed {
                changes::change(table, flow, path, |entry, _| {
                    entry.orphan();
                    Ok(())
                })?;
            }
            Ok(())
        });
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.try_send(job).map_err(|_| gone())?;
        // Opening blocks anyway, and may do so inside a runtime, where a blocking receive panics.
        loop {
            match answered.try_recv() {
                Ok(result) => return result,
                Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
                Err(TryRecvError::Closed) => return Err(gone()),
            }
        }
    }

    /// Has the writer do `work`.
    fn write<'a, T: Send + 'static>(
        &'a self,
        work: impl FnOnce(&mut Table<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        let (job, answered) = job(work);
        Box::pin(async move {
            self.gate.refusal("write")?;
            let jobs = self.jobs.as_ref().ok_or_else(gone)?;
            jobs.send(job).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        })
    }

    /// Has a reader do `work`, on a thread that may block.
    fn read<'a, T: Send + 'static>(
        &'a self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let read = move || {
                let mut reading = gate.enter()?;
                let result = work(reading.connection()?);
                if result.is_ok() {
                    reading.went_well();
                }
                result
            };
            tokio::task::spawn_blocking(read)
                .await
                .map_err(|_| gone())?
        })
    }

    /// A worker's step with a row that it has claimed.
    fn step<'a>(
        &'a self,
        claim: &ClaimId,
        step: impl FnOnce(&mut Entry) + Send + 'static,
    ) -> Answer<'a, ()> {
        let claim = claim.clone();
        self.write(move |table| {
            changes::change(table, &claim.flow, claim.path.as_bytes(), |entry, _| {
                entry.fence(&claim)?;
                step(entry);
                Ok(())
            })
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the driver of the ledger owns its clock"
)]
fn instant() -> Instant {
    Instant::now()
}

/// The ledger's clock: it starts at the machine's time, or where it stood when the ledger was
/// written last if that is later, and does not go back when the machine's does.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver of the ledger owns its clock"
)]
fn ledger_clock(flows: &BTreeMap<FlowName, Flow>) -> impl Fn() -> u64 + Send + use<> {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, millis);
    let stood = flows.values().map(|flow| flow.clock).max().unwrap_or(0);
    writer::clock_from(wall.max(stood))
}

/// The writer is gone.
fn gone() -> StoreError {
    open::unavailable("write")(std::io::Error::other("the writer did not answer"))
}

/// What a failure of SQLite means.
fn failed(what: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged {
            row: format!("its file ({error})"),
            hint: HINT,
        },
        _ => StoreError::Unavailable {
            what,
            source: Box::new(error),
        },
    }
}

/// The row of `path` is not what was written.
fn damaged(path: &[u8]) -> StoreError {
    StoreError::Damaged {
        row: RemotePath::from(path).to_string(),
        hint: HINT,
    }
}

impl Store for SqliteStore {
    fn id(&self) -> [u8; 16] {
        self.id
    }

    fn begin_scan<'a>(&'a self, flow: &'a FlowName, since: u64) -> Answer<'a, ScanStart> {
        Box::pin(async move {
            let name = flow.clone();
            let (start, old) = self
                .read(move |connection| reading::acted(connection, &name, since))
                .await?;
            if old {
                let name = flow.clone();
                self.write(move |table| changes::forget(table, &name, since))
                    .await?;
            }
            Ok(start)
        })
    }

    fn lookup<'a>(
        &'a self,
        flow: &'a FlowName,
        paths: &'a [RemotePath],
    ) -> Answer<'a, Vec<Option<Row>>> {
        let (name, paths) = (flow.clone(), paths.to_vec());
        self.read(move |connection| reading::lookup(connection, &name, &paths))
    }

    fn record<'a>(&'a self, flow: &'a FlowName, record: Record<'a>) -> Answer<'a, Recorded> {
        let Record {
            scan,
            lease,
            changes,
            removals,
            renames,
        } = record;
        let scanned = changes::Scanned {
            scan,
            removals,
            renames,
        };
        let lease = lease.map(|(name, owner)| (name.to_owned(), owner.to_owned()));
        let leases = Arc::clone(&self.leases);
        let (flow, changes) = (flow.clone(), changes.to_vec());
        self.write(move |table| {
            let now = instant();
            let lost = lease.is_some_and(|(name, owner)| {
                !lock(&leases)
                    .get(&name)
                    .is_some_and(|(held, until)| *held == owner && *until > now)
            });
            if lost {
                return Err(StoreError::Lost);
            }
            changes::record(table, &flow, scanned, &changes)
        })
    }

    fn claim<'a>(&'a self, flow: &'a FlowName, ask: ClaimAsk<'a>) -> Answer<'a, Vec<Claim>> {
        let ClaimAsk {
            owner,
            lease,
            order,
            max,
        } = ask;
        let (flow, owner) = (flow.clone(), owner.to_owned());
        self.write(move |table| changes::claim(table, &flow, &owner, lease, order, max))
    }

    fn renew<'a>(&'a self, claims: &'a [ClaimId], lease: Duration) -> Answer<'a, Vec<ClaimId>> {
        let claims = claims.to_vec();
        self.write(move |table| changes::renew(table, claims, lease))
    }

    fn fetched<'a>(&'a self, claim: &'a ClaimId, sha256: [u8; 32]) -> Answer<'a, ()> {
        self.step(claim, move |entry| entry.sha256 = Some(sha256))
    }

    fn placed<'a>(
        &'a self,
        claim: &'a ClaimId,
        sink: &'a str,
        placement: &'a Placement,
    ) -> Answer<'a, ()> {
        let (sink, placement) = (sink.to_owned(), placement.clone());
        self.step(claim, move |entry| entry.place(&sink, &placement))
    }

    fn delivered<'a>(&'a self, claim: &'a ClaimId, sink: &'a str) -> Answer<'a, ()> {
        let sink = sink.to_owned();
        self.step(claim, move |entry| entry.deliver(&sink))
    }

    fn committed<'a>(&'a self, claim: &'a ClaimId) -> Answer<'a, ()> {
        self.step(claim, Entry::commit)
    }

    fn finish<'a>(&'a self, claim: &'a ClaimId, end: End<'a>) -> Answer<'a, ()> {
        let claim = claim.clone();
        let end = changes::OwnedEnd::of(end);
        self.write(move |table| changes::finish(table, &claim, &end))
    }

    fn lease<'a>(&'a self, name: &'a str, owner: &'a str, lease: Duration) -> Answer<'a, bool> {
        Box::pin(async move {
            let now = instant();
            let mut leases = lock(&self.leases);
            let free = leases
                .get(name)
                .is_none_or(|(held, until)| held == owner || *until <= now);
            if free {
                let until = now.checked_add(lease).unwrap_or(now);
                leases.insert(name.to_owned(), (owner.to_owned(), until));
            }
            Ok(free)
        })
    }

    fn release<'a>(&'a self, name: &'a str, owner: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut leases = lock(&self.leases);
            if leases.get(name).is_some_and(|(held, _)| held == owner) {
                leases.remove(name);
            }
            Ok(())
        })
    }

    fn rows<'a>(
        &'a self,
        flow: &'a FlowName,
        state: Option<State>,
        after: Option<&'a RemotePath>,
        max: usize,
    ) -> Answer<'a, Vec<Row>> {
        let (name, after) = (flow.clone(), after.cloned());
        self.read(move |connection| reading::rows(connection, &name, state, after, max))
    }

    fn counts<'a>(&'a self, flow: &'a FlowName) -> Answer<'a, Counts> {
        let name = flow.clone();
        self.read(move |connection| {
            let flow = reading::flow_of(connection, &name)?;
            Ok(flow.map_or_else(Counts::default, |flow| flow.counts()))
        })
    }

    fn oldest<'a>(&'a self, flow: &'a FlowName) -> Answer<'a, Option<u64>> {
        let name = flow.clone();
        self.read(move |connection| reading::oldest(connection, &name))
    }

    fn replay<'a>(&'a self, flow: &'a FlowName, path: Option<&'a RemotePath>) -> Answer<'a, u64> {
        let (flow, path) = (flow.clone(), path.cloned());
        self.write(move |table| changes::replay(table, &flow, path))
    }

    fn import<'a>(&'a self, flow: &'a FlowName, rows: &'a [Row]) -> Answer<'a, ()> {
        let (flow, rows) = (flow.clone(), rows.to_vec());
        self.write(move |table| changes::import(table, &flow, &rows))
    }

    fn value<'a>(&'a self, flow: &'a FlowName, key: &'a str) -> Answer<'a, Option<String>> {
        let (name, key) = (flow.clone(), key.to_owned());
        self.read(move |connection| reading::value(connection, &name, &key))
    }

    fn set_value<'a>(
        &'a self,
        flow: &'a FlowName,
        key: &'a str,
        value: Option<&'a str>,
    ) -> Answer<'a, ()> {
        let (flow, key, value) = (flow.clone(), key.to_owned(), value.map(ToOwned::to_owned));
        self.write(move |table| table.note(&flow, &key, value.as_deref()))
    }

    fn compact(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let (answer, answered) = tokio::sync::oneshot::channel();
            let jobs = self.jobs.as_ref().ok_or_else(gone)?;
            jobs.send(Job::Compact(answer)).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        })
    }
}
