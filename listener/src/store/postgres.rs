//! The ledger in PostgreSQL, for several processes that share the work.
//!
//! Claims are taken with `FOR UPDATE SKIP LOCKED`, so processes do not wait for each other. Claims
//! and leases run out by the database's clock, never by that of a process. The rules of a row are
//! the same machine as in a file (`store/row.rs`), run inside a transaction that has locked the rows.
//!
//! Everything is in one schema of its own:
//!
//! | what | for what |
//! | --- | --- |
//! | `ledger` | its id and format |
//! | `entries` | the rows, each with a checksum of its own |
//! | `notes` | values that flows keep |
//! | `leases` | who scans |
//! | `sequences`, `acts` | numbers of items, and of after-actions; a number that is never used is left out |
//!
//! That rows are whole is checked at every read. One that is damaged is set aside when it would be
//! claimed, or when a scan finds something at its path: it is told once, stands among the dead, and
//! what is at its path is delivered again only if somebody asks for that. That none is missing is the database's business (its data checksums).
//!
//! To another machine connections are encrypted and its certificate is checked ([`crate::database`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Pool, Runtime};
use ketch_client::RemotePath;

use super::encoding::{Reader, Writer, column, state_byte};
use super::row::{Entry, millis};
use super::{
    Answer, Claim, ClaimAsk, ClaimId, Counts, End, Placement, Record, Recorded, Row, ScanStart,
    State, Store, StoreError,
};
use crate::database::Way;
use crate::flow::item::FlowName;
use rows::number;

mod calls;
mod rows;

/// The format of the ledger.
const FORMAT: i64 = 1;
/// Longest name that PostgreSQL keeps, in bytes.
const IDENTIFIER_LEN_MAX: usize = 63;
/// What to do about a damaged row.
const HINT: &str = "restore it from a backup of the database, or delete it from `entries`: \
     then its file is delivered again";
/// The database's clock in milliseconds since 1970.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
/// The columns of a row, as [`Shared::checked`] reads them.
const COLUMNS: &str = "path, state, due, body";

/// The state in the column, not in its bytes, of a row that was set aside because it is damaged.
const ASIDE: i16 = 7;
/// Rows that were set aside and wait to be told: at most. Of others only the log tells.
const ASIDE_MAX: usize = 1_000;

/// What is made at the first start. `@` is the schema.
const SCHEMA: [&str; 14] = [
    "CREATE SCHEMA IF NOT EXISTS @",
    "CREATE TABLE IF NOT EXISTS @.ledger (one int PRIMARY KEY CHECK (one = 1), \
     id bytea NOT NULL, format bigint NOT NULL)",
    "CREATE SEQUENCE IF NOT EXISTS @.sequences",
    // A ledger that is made anew gives no number that the one before it gave.
    "SELECT setval('@.sequences', (extract(epoch FROM now()) * 1000 * 1024)::bigint) \
     FROM @.sequences WHERE NOT is_called",
    "CREATE SEQUENCE IF NOT EXISTS @.acts",
    "CREATE TABLE IF NOT EXISTS @.entries (flow text COLLATE \"C\" NOT NULL, path bytea NOT NULL, \
     state smallint NOT NULL, due bigint, sequence bigint, directory bytea, changed bigint, \
     acted bigint, body bytea NOT NULL, PRIMARY KEY (flow, path))",
    "CREATE INDEX IF NOT EXISTS entries_queue ON @.entries (flow, due, sequence) \
     WHERE due IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS entries_by_name ON @.entries (flow, directory, path) \
     WHERE due IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS entries_by_time ON @.entries (flow, directory, changed, path) \
     WHERE due IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS entries_dead ON @.entries (flow, path) WHERE state = 6",
    "CREATE INDEX IF NOT EXISTS entries_aside ON @.entries (flow, path) WHERE state = 7",
    "CREATE INDEX IF NOT EXISTS entries_acted ON @.entries (flow, acted) WHERE acted IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS @.notes (flow text COLLATE \"C\" NOT NULL, \
     name text COLLATE \"C\" NOT NULL, body bytea NOT NULL, PRIMARY KEY (flow, name))",
    "CREATE TABLE IF NOT EXISTS @.leases (name text COLLATE \"C\" PRIMARY KEY, \
     owner text NOT NULL, until bigint NOT NULL)",
];

/// Where the ledger is.
#[derive(Clone)]
pub struct PostgresStoreSettings {
    /// `host=… user=… dbname=…` or `postgresql://…`, as libpq has it; see [`crate::database`] for
    /// `sslmode` and `sslrootcert`. May hold a password.
    pub connect: String,
    /// The schema, which is created if it is not there: letters in lower case, digits and `_`.
    /// Default: `ketch`.
    pub schema: String,
    /// Connections at a time. Default: 8.
    pub connections_max: usize,
    /// For one call, with the wait for a connection. Default: 60 s.
    pub timeout: Duration,
}

impl Default for PostgresStoreSettings {
    fn default() -> Self {
        Self {
            connect: String::new(),
            schema: "ketch".to_owned(),
            connections_max: 8,
            timeout: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for PostgresStoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStoreSettings")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// A ledger in PostgreSQL.
pub struct PostgresStore {
    id: [u8; 16],
    shared: Shared,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("schema", &self.shared.schema)
            .finish_non_exhaustive()
    }
}

/// What all calls need.
struct Shared {
    pool: Pool,
    schema: String,
    timeout: Duration,
    /// What was set aside and not told yet.
    aside: Mutex<Vec<(FlowName, RemotePath)>>,
}

impl PostgresStore {
    /// Connects, and makes what is not there yet. Several processes may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be reached or refuses, or if the settings
    /// make no sense; [`StoreError::Format`].
    pub async fn connect(settings: &PostgresStoreSettings) -> Result<Self, StoreError> {
        let PostgresStoreSettings {
            connect,
            schema,
            connections_max,
            timeout,
        } = settings;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if schema.is_empty() || schema.len() > IDENTIFIER_LEN_MAX || !schema.bytes().all(plain) {
            return Err(unavailable("use its schema")("it is no plain name"));
        }
        let text = connect.clone();
        // It may read certificates.
        let way = tokio::task::spawn_blocking(move || Way::parse(&text, false)).await;
        let mut way = way
            .map_err(unavailable("read how to connect"))?
            .map_err(unavailable("read how to connect"))?;
        way.config.connect_timeout(*timeout);
        way.config.application_name("ketch-listener");
        let manager = way.manager();
        let pool = Pool::builder(manager)
            .max_size((*connections_max).max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(*timeout))
            .create_timeout(Some(*timeout))
            .build()
            .map_err(unavailable("set up"))?;
        let shared = Shared {
            pool,
            schema: format!("\"{schema}\""),
            timeout: *timeout,
            aside: Mutex::default(),
        };
        let id = shared.within(shared.begin()).await?;
        Ok(Self { id, shared })
    }
}
fn unavailable<E>(what: &'static str) -> impl FnOnce(E) -> StoreError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| StoreError::Unavailable {
        what,
        source: source.into(),
    }
}

fn damaged(path: &[u8]) -> StoreError {
    StoreError::Damaged {
        row: RemotePath::from(path).to_string(),
        hint: HINT,
    }
}

fn note_keys<'a>(flow: &'a FlowName, key: &'a str) -> [&'a [u8]; 3] {
    [b"note", flow.as_str().as_bytes(), key.as_bytes()]
}

impl Store for PostgresStore {
    fn id(&self) -> [u8; 16] {
        self.id
    }

    fn begin_scan<'a>(&'a self, flow: &'a FlowName, since: u64) -> Answer<'a, ScanStart> {
        Box::pin(self.shared.within(self.shared.begin_scan(flow, since)))
    }

    fn lookup<'a>(
        &'a self,
        flow: &'a FlowName,
        paths: &'a [RemotePath],
    ) -> Answer<'a, Vec<Option<Row>>> {
        Box::pin(async move {
            let asked: Vec<&[u8]> = paths.iter().map(RemotePath::as_bytes).collect();
            let sql = "SELECT $columns FROM @.entries WHERE flow = $1 AND path = ANY($2)";
            let rows = self
                .shared
                .alone(sql, &[&flow.as_str(), &asked], "look up")
                .await?;
            let mut found = BTreeMap::new();
            for row in &rows {
                let entry = Shared::readable(flow, row);
                found.insert(entry.path.clone(), entry.row(flow));
            }
            Ok(paths.iter().map(|path| found.get(path).cloned()).collect())
        })
    }

    fn record<'a>(&'a self, flow: &'a FlowName, record: Record<'a>) -> Answer<'a, Recorded> {
        Box::pin(self.shared.within(self.shared.record(flow, record)))
    }

    fn claim<'a>(&'a self, flow: &'a FlowName, ask: ClaimAsk<'a>) -> Answer<'a, Vec<Claim>> {
        Box::pin(self.shared.within(self.shared.claim(flow, ask)))
    }

    fn renew<'a>(&'a self, claims: &'a [ClaimId], lease: Duration) -> Answer<'a, Vec<ClaimId>> {
        Box::pin(self.shared.within(self.shared.renew(claims, lease)))
    }

    fn fetched<'a>(&'a self, claim: &'a ClaimId, sha256: [u8; 32]) -> Answer<'a, ()> {
        let step = move |entry: &mut Entry| entry.sha256 = Some(sha256);
        Box::pin(self.shared.within(self.shared.step(claim, step)))
    }

    fn placed<'a>(
        &'a self,
        claim: &'a ClaimId,
        sink: &'a str,
        placement: &'a Placement,
    ) -> Answer<'a, ()> {
        let step = move |entry: &mut Entry| entry.place(sink, placement);
        Box::pin(self.shared.within(self.shared.step(claim, step)))
    }

    fn delivered<'a>(&'a self, claim: &'a ClaimId, sink: &'a str) -> Answer<'a, ()> {
        let step = move |entry: &mut Entry| entry.deliver(sink);
        Box::pin(self.shared.within(self.shared.step(claim, step)))
    }

    fn committed<'a>(&'a self, claim: &'a ClaimId) -> Answer<'a, ()> {
        Box::pin(self.shared.within(self.shared.step(claim, Entry::commit)))
    }

    fn finish<'a>(&'a self, claim: &'a ClaimId, end: End<'a>) -> Answer<'a, ()> {
        Box::pin(self.shared.within(self.shared.finish(claim, end)))
    }

    fn lease<'a>(&'a self, name: &'a str, owner: &'a str, lease: Duration) -> Answer<'a, bool> {
        Box::pin(async move {
            let sql = "INSERT INTO @.leases AS l VALUES ($1, $2, $now + $3) \
                 ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner, until = EXCLUDED.until \
                 WHERE l.owner = $2 OR l.until <= $now RETURNING 1";
            let until = column(millis(lease));
            let rows = self
                .shared
                .alone(sql, &[&name, &owner, &until], "take a lease")
                .await?;
            Ok(!rows.is_empty())
        })
    }

    fn release<'a>(&'a self, name: &'a str, owner: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let sql = "DELETE FROM @.leases WHERE name = $1 AND owner = $2";
            let rows = self.shared.alone(sql, &[&name, &owner], "release").await;
            rows.map(|_| ())
        })
    }

    fn rows<'a>(
        &'a self,
        flow: &'a FlowName,
        state: Option<State>,
        after: Option<&'a RemotePath>,
        max: usize,
    ) -> Answer<'a, Vec<Row>> {
        Box::pin(async move {
            let mut rows = match state {
                None => self.shared.page(flow, "", after, max).await?,
                // These have indexes, which a state in the text of the statement makes use of.
                Some(state) => {
                    let only = format!("AND state = {}", state_byte(state));
                    self.shared.page(flow, &only, after, max).await?
                }
            };
            if state == Some(State::Dead) {
                let only = format!("AND state = {ASIDE}");
                rows.extend(self.shared.page(flow, &only, after, max).await?);
                rows.sort_by(|a, b| a.item.path.cmp(&b.item.path));
                rows.truncate(max);
            }
            Ok(rows)
        })
    }

    fn counts<'a>(&'a self, flow: &'a FlowName) -> Answer<'a, Counts> {
        Box::pin(async move {
            let sql = "SELECT state, count(*) FROM @.entries WHERE flow = $1 GROUP BY state";
            let rows = self.shared.alone(sql, &[&flow.as_str()], "count").await?;
            let of = |state| {
                rows.iter()
                    .find(|row| row.get::<_, i16>(0) == i16::from(state_byte(state)))
                    .map_or(0, |row| number(row.get(1)))
            };
            Ok(Counts {
                known: of(State::Known),
                pending: of(State::Pending),
                claimed: of(State::Claimed).saturating_add(of(State::Committed)),
                done: of(State::Done).saturating_add(of(State::Acted)),
                dead: of(State::Dead).saturating_add(
                    rows.iter()
                        .find(|row| row.get::<_, i16>(0) == ASIDE)
                        .map_or(0, |row| number(row.get(1))),
                ),
            })
        })
    }

    fn oldest<'a>(&'a self, flow: &'a FlowName) -> Answer<'a, Option<u64>> {
        Box::pin(async move {
            let sql = "SELECT $columns FROM @.entries WHERE flow = $1 AND due IS NOT NULL \
                       ORDER BY sequence LIMIT 1";
            let rows = self.shared.alone(sql, &[&flow.as_str()], "count").await?;
            let row = rows
                .first()
                .map(|row| Shared::readable(flow, row).row(flow));
            // Of a damaged row nothing is known; whoever claims it sets it aside.
            Ok(row.map(|row| row.item.recorded).filter(|at| *at > 0))
        })
    }

    fn replay<'a>(&'a self, flow: &'a FlowName, path: Option<&'a RemotePath>) -> Answer<'a, u64> {
        Box::pin(self.shared.within(self.shared.replay(flow, path)))
    }

    fn import<'a>(&'a self, flow: &'a FlowName, rows: &'a [Row]) -> Answer<'a, ()> {
        Box::pin(self.shared.within(self.shared.import(flow, rows)))
    }

    fn value<'a>(&'a self, flow: &'a FlowName, key: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            let sql = "SELECT body FROM @.notes WHERE flow = $1 AND name = $2";
            let rows = self
                .shared
                .alone(sql, &[&flow.as_str(), &key], "read a value")
                .await?;
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            let mut r = Reader::open(&note_keys(flow, key), row.get(0))
                .ok_or_else(|| damaged(key.as_bytes()))?;
            let value = r.bytes().and_then(|value| std::str::from_utf8(value).ok());
            value
                .map(|value| Some(value.to_owned()))
                .ok_or_else(|| damaged(key.as_bytes()))
        })
    }

    fn set_value<'a>(
        &'a self,
        flow: &'a FlowName,
        key: &'a str,
        value: Option<&'a str>,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let Some(value) = value else {
                let sql = "DELETE FROM @.notes WHERE flow = $1 AND name = $2";
                self.shared
                    .alone(sql, &[&flow.as_str(), &key], "keep a value")
                    .await?;
                return Ok(());
            };
            let mut w = Writer::default();
            w.bytes(value.as_bytes());
            let body = w.seal(&note_keys(flow, key));
            let sql = "INSERT INTO @.notes VALUES ($1, $2, $3) \
                 ON CONFLICT (flow, name) DO UPDATE SET body = EXCLUDED.body";
            self.shared
                .alone(sql, &[&flow.as_str(), &key, &body], "keep a value")
                .await?;
            Ok(())
        })
    }

    fn set_aside(&self, flow: &FlowName) -> Vec<Row> {
        let mut aside = self
            .shared
            .aside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *aside);
        let (ours, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(of, _)| of == flow);
        *aside = others;
        drop(aside);
        ours.into_iter()
            .map(|(flow, path)| Entry::unreadable(path).row(&flow))
            .collect()
    }

    fn compact(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let connection = self.shared.connection().await?;
            // It takes as long as it takes, and the database goes on meanwhile.
            connection
                .batch_execute(&self.shared.sql("VACUUM @.entries"))
                .await
                .map_err(unavailable("compact"))
        })
    }
}
