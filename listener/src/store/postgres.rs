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
//! That rows are whole is checked at every read. That none is missing is the database's business
//! (its data checksums). Connections are not encrypted: the database is reached by a Unix socket, on
//! the same machine or through a tunnel.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Transaction,
};
use ketch_client::RemotePath;
use tokio_postgres::{Config, NoTls};

use super::encoding::{self, Columns, Reader, Writer, column, state_byte};
use super::row::record::Ground;
use super::row::{Entry, Step, millis};
use super::{
    Answer, BATCH_MAX, Claim, ClaimAsk, ClaimId, Counts, End, Order, Placement, Record, Recorded,
    Row, ScanStart, State, Store, StoreError,
};
use crate::flow::item::{Change, FlowName};

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

/// What is made at the first start. `@` is the schema.
const SCHEMA: [&str; 12] = [
    "CREATE SCHEMA IF NOT EXISTS @",
    "CREATE TABLE IF NOT EXISTS @.ledger (one int PRIMARY KEY CHECK (one = 1), \
     id bytea NOT NULL, format bigint NOT NULL)",
    "CREATE SEQUENCE IF NOT EXISTS @.sequences",
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
    "CREATE INDEX IF NOT EXISTS entries_acted ON @.entries (flow, acted) WHERE acted IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS @.notes (flow text COLLATE \"C\" NOT NULL, \
     name text COLLATE \"C\" NOT NULL, body bytea NOT NULL, PRIMARY KEY (flow, name))",
    "CREATE TABLE IF NOT EXISTS @.leases (name text COLLATE \"C\" PRIMARY KEY, \
     owner text NOT NULL, until bigint NOT NULL)",
];

/// Where the ledger is.
#[derive(Clone)]
pub struct PostgresStoreSettings {
    /// `host=… user=… dbname=…` or `postgresql://…`, as libpq has it. May hold a password.
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
        let mut config = Config::from_str(connect).map_err(unavailable("read how to connect"))?;
        config.connect_timeout(*timeout);
        let manager = Manager::from_config(
            config,
            NoTls,
            ManagerConfig {
                // A connection that has ended is seen without a question to the server.
                recycling_method: RecyclingMethod::Fast,
            },
        );
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

fn number(found: i64) -> u64 {
    u64::try_from(found).unwrap_or(0)
}

/// Rows that a transaction has locked: as they were, and as they are to be.
type Locked = BTreeMap<Vec<u8>, Option<Entry>>;

impl Shared {
    fn sql(&self, text: &str) -> String {
        text.replace('@', &self.schema)
            .replace("$now", NOW)
            .replace("$columns", COLUMNS)
    }

    /// Gives up after the time for one call.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(self.timeout, call)
            .await
            .map_err(unavailable("wait for the database"))?
    }

    async fn connection(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(unavailable("connect"))
    }

    /// Makes the tables, and answers the ledger's id.
    async fn begin(&self) -> Result<[u8; 16], StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let create = async {
            // `IF NOT EXISTS` is no help against another that creates the same at this moment.
            t.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('ketch ledger', 0))",
                &[],
            )
            .await?;
            for statement in SCHEMA {
                t.batch_execute(&self.sql(statement)).await?;
            }
            let sql = "INSERT INTO @.ledger VALUES (1, \
                 decode(replace(gen_random_uuid()::text, '-', ''), 'hex'), $1) \
                 ON CONFLICT DO NOTHING";
            t.execute(&self.sql(sql), &[&FORMAT]).await?;
            t.query_one(&self.sql("SELECT id, format FROM @.ledger"), &[])
                .await
        };
        let row = create.await.map_err(unavailable("set up its tables"))?;
        let found: i64 = row.get(1);
        if found != FORMAT {
            return Err(StoreError::Format {
                found,
                known: FORMAT,
            });
        }
        let id: Vec<u8> = row.get(0);
        let id = id.try_into().map_err(|_| damaged(b"ledger"))?;
        commit(t).await?;
        Ok(id)
    }

    /// Reads [`COLUMNS`].
    fn checked(flow: &FlowName, row: &tokio_postgres::Row) -> Result<Entry, StoreError> {
        let path: &[u8] = row.get(0);
        let entry =
            encoding::decode(flow, path, row.get::<_, &[u8]>(3)).ok_or_else(|| damaged(path))?;
        let columns = Columns::of(&entry);
        let said: (i16, Option<i64>) = (row.get(1), row.get(2));
        if (i64::from(said.0), said.1) != (columns.state, columns.due) {
            return Err(damaged(path));
        }
        Ok(entry)
    }

    /// Locks those rows of `paths` that are there; all of them in one order, so that two
    /// transactions never wait for each other.
    async fn lock(
        &self,
        t: &Transaction<'_>,
        flow: &FlowName,
        paths: &[Vec<u8>],
    ) -> Result<Locked, StoreError> {
        let sql = "SELECT $columns FROM @.entries WHERE flow = $1 AND path = ANY($2) \
             ORDER BY path FOR UPDATE";
        let rows = self
            .query(t, sql, &[&flow.as_str(), &paths], "lock rows")
            .await?;
        let mut locked: Locked = paths.iter().map(|path| (path.clone(), None)).collect();
        for row in &rows {
            let entry = Self::checked(flow, row)?;
            locked.insert(entry.path.as_bytes().to_vec(), Some(entry));
        }
        Ok(locked)
    }

    async fn query(
        &self,
        t: &Transaction<'_>,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
        what: &'static str,
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let statement = t
            .prepare_cached(&self.sql(sql))
            .await
            .map_err(unavailable(what))?;
        t.query(&statement, params).await.map_err(unavailable(what))
    }

    /// The database's clock, and `count` numbers of items.
    async fn numbers(&self, t: &Transaction<'_>, count: u64) -> Result<Vec<u64>, StoreError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let sql = "SELECT nextval('@.sequences') FROM generate_series(1, $1::bigint)";
        let rows = self
            .query(t, sql, &[&column(count)], "draw numbers")
            .await?;
        let mut numbers: Vec<u64> = rows.iter().map(|row| number(row.get(0))).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn now(&self, t: &Transaction<'_>) -> Result<u64, StoreError> {
        let rows = self.query(t, "SELECT $now", &[], "read its clock").await?;
        Ok(rows.first().map_or(0, |row| number(row.get(0))))
    }

    /// Writes rows that are locked or new; `None` takes them away.
    async fn write(
        &self,
        t: &Transaction<'_>,
        flow: &FlowName,
        rows: Vec<(Vec<u8>, Option<Entry>)>,
    ) -> Result<(), StoreError> {
        let (mut gone, mut put) = (Vec::new(), Vec::new());
        for (path, entry) in rows {
            match entry {
                Some(entry) => put.push(entry),
                None => gone.push(path),
            }
        }
        if !gone.is_empty() {
            let sql = "DELETE FROM @.entries WHERE flow = $1 AND path = ANY($2)";
            self.query(t, sql, &[&flow.as_str(), &gone], "delete rows")
                .await?;
        }
        if put.is_empty() {
            return Ok(());
        }
        let columns: Vec<Columns<'_>> = put.iter().map(Columns::of).collect();
        let paths: Vec<&[u8]> = put.iter().map(|entry| entry.path.as_bytes()).collect();
        let states: Vec<i16> = put
            .iter()
            .map(|entry| i16::from(state_byte(entry.state)))
            .collect();
        let due: Vec<Option<i64>> = columns.iter().map(|c| c.due).collect();
        let sequences: Vec<Option<i64>> = columns.iter().map(|c| c.sequence).collect();
        let directories: Vec<Option<&[u8]>> = columns.iter().map(|c| c.directory).collect();
        let changed: Vec<Option<i64>> = columns.iter().map(|c| c.changed).collect();
        let acted: Vec<Option<i64>> = columns.iter().map(|c| c.acted).collect();
        let bodies: Vec<Vec<u8>> = put
            .iter()
            .map(|entry| encoding::encode(flow, entry))
            .collect();
        let sql = "INSERT INTO @.entries \
             (flow, path, state, due, sequence, directory, changed, acted, body) \
             SELECT $1::text, r.* FROM unnest($2::bytea[], $3::smallint[], $4::bigint[], \
             $5::bigint[], $6::bytea[], $7::bigint[], $8::bigint[], $9::bytea[]) r \
             ON CONFLICT (flow, path) DO UPDATE SET state = EXCLUDED.state, due = EXCLUDED.due, \
             sequence = EXCLUDED.sequence, directory = EXCLUDED.directory, \
             changed = EXCLUDED.changed, acted = EXCLUDED.acted, body = EXCLUDED.body";
        self.query(
            t,
            sql,
            &[
                &flow.as_str(),
                &paths,
                &states,
                &due,
                &sequences,
                &directories,
                &changed,
                &acted,
                &bodies,
            ],
            "write rows",
        )
        .await
        .map(|_| ())
    }

    /// Changes the row that `claim` has.
    async fn step(&self, claim: &ClaimId, step: impl FnOnce(&mut Entry)) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let mut entry = self.held(&t, claim).await?;
        let before = entry.clone();
        step(&mut entry);
        if entry != before {
            let row = (entry.path.as_bytes().to_vec(), Some(entry));
            self.write(&t, &claim.flow, vec![row]).await?;
        }
        commit(t).await
    }

    /// Locks the row that `claim` has.
    async fn held(&self, t: &Transaction<'_>, claim: &ClaimId) -> Result<Entry, StoreError> {
        let path = claim.path.as_bytes().to_vec();
        let locked = self.lock(t, &claim.flow, &[path]).await?;
        let entry = locked.into_values().flatten().next();
        let entry = entry.ok_or(StoreError::Lost)?;
        entry.fence(claim)?;
        Ok(entry)
    }

    async fn record(&self, flow: &FlowName, record: Record<'_>) -> Result<Recorded, StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        if let Some((name, owner)) = record.lease {
            // Shared: nobody takes the lease over before this has ended.
            let sql = "SELECT 1 FROM @.leases WHERE name = $1 AND owner = $2 AND until > $now \
                 FOR SHARE";
            let held = self
                .query(&t, sql, &[&name, &owner], "check its lease")
                .await?;
            if held.is_empty() {
                return Err(StoreError::Lost);
            }
        }
        let mut paths: Vec<Vec<u8>> = Vec::new();
        for change in record.changes {
            paths.push(change.path().as_bytes().to_vec());
            if let Change::Renamed { from, .. } = change {
                paths.push(from.as_bytes().to_vec());
            }
        }
        paths.sort_unstable();
        paths.dedup();
        let before = self.lock(&t, flow, &paths).await?;
        let now = self.now(&t).await?;
        // Once to count how many numbers it takes, once with them.
        let mut count = 0_u64;
        let mut after = before.clone();
        let mut recorded = run(&record, &mut after, now, &mut || {
            count = count.saturating_add(1);
            count
        });
        if count > 0 {
            let mut numbers = self.numbers(&t, count).await?.into_iter();
            after.clone_from(&before);
            recorded = run(&record, &mut after, now, &mut || {
                numbers.next().unwrap_or_default()
            });
        }
        let changed = after
            .into_iter()
            .filter(|(path, row)| before.get(path) != Some(row))
            .collect();
        self.write(&t, flow, changed).await?;
        commit(t).await?;
        Ok(recorded)
    }

    async fn claim(&self, flow: &FlowName, ask: ClaimAsk<'_>) -> Result<Vec<Claim>, StoreError> {
        let max = i64::try_from(ask.max.min(BATCH_MAX)).unwrap_or(0);
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let index = match ask.order {
            Order::Any => "",
            Order::Name => "path",
            Order::Time => "changed, path",
        };
        let now = self.now(&t).await?;
        let rows = if ask.order == Order::Any {
            let sql = "SELECT $columns FROM @.entries \
                 WHERE flow = $1 AND due IS NOT NULL AND due <= $2 \
                 ORDER BY due, sequence LIMIT $3 FOR UPDATE SKIP LOCKED";
            self.query(&t, sql, &[&flow.as_str(), &column(now), &max], "claim")
                .await?
        } else {
            // One at a time, or two would take neighbours.
            let sql = "SELECT pg_advisory_xact_lock(hashtextextended('ketch order ' || $1, 0))";
            self.query(&t, sql, &[&flow.as_str()], "claim").await?;
            // The first of each directory, by one step in the index each.
            let head = "SELECT r.directory, r.path, r.due FROM @.entries r \
                 WHERE r.flow = $1 AND r.due IS NOT NULL";
            let order = format!("ORDER BY directory, {index} LIMIT 1");
            let sql = format!(
                "WITH RECURSIVE heads AS (({head} {order}) UNION ALL SELECT n.* FROM heads h, \
                 LATERAL ({head} AND r.directory > h.directory {order}) n) \
                 SELECT path FROM heads WHERE due <= $2 LIMIT $3"
            );
            let heads = self
                .query(&t, &sql, &[&flow.as_str(), &column(now), &max], "claim")
                .await?;
            let paths: Vec<Vec<u8>> = heads.iter().map(|row| row.get(0)).collect();
            let sql = "SELECT $columns FROM @.entries \
                 WHERE flow = $1 AND path = ANY($2) ORDER BY directory, path FOR UPDATE";
            self.query(&t, sql, &[&flow.as_str(), &paths], "claim")
                .await?
        };
        let mut claims = Vec::with_capacity(rows.len());
        let mut taken = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut entry = Self::checked(flow, row)?;
            // It may have been finished between the two questions.
            if !entry.is_active() || entry.due > now {
                continue;
            }
            entry.take(ask.owner, now.saturating_add(millis(ask.lease)));
            claims.push(entry.claim(flow));
            taken.push((entry.path.as_bytes().to_vec(), Some(entry)));
        }
        self.write(&t, flow, taken).await?;
        commit(t).await?;
        Ok(claims)
    }

    async fn finish(&self, claim: &ClaimId, end: End<'_>) -> Result<(), StoreError> {
        let flow = &claim.flow;
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let entry = self.held(&t, claim).await?;
        let now = self.now(&t).await?;
        let (mut items, mut acts) = (0_u64, 0_u64);
        let mut step = entry.clone().end(
            end,
            now,
            &mut || {
                items = items.saturating_add(1);
                items
            },
            &mut || {
                acts = acts.saturating_add(1);
                acts
            },
        );
        if items > 0 || acts > 0 {
            let mut numbers = self.numbers(&t, items).await?.into_iter();
            let mut act = 0;
            if acts > 0 {
                // A scan that begins waits for this to end, so it knows of every act before it.
                let sql = "SELECT pg_advisory_xact_lock_shared(\
                     hashtextextended('ketch acts ' || $1, 0))";
                self.query(&t, sql, &[&flow.as_str()], "count it").await?;
                let rows = self
                    .query(&t, "SELECT nextval('@.acts')", &[], "count it")
                    .await?;
                act = rows.first().map_or(0, |row| number(row.get(0)));
            }
            step = entry.clone().end(
                end,
                now,
                &mut || numbers.next().unwrap_or_default(),
                &mut || act,
            );
        }
        let path = entry.path.into_bytes();
        match step {
            Step::Keep => {}
            Step::Put(entry) => self.write(&t, flow, vec![(path, Some(*entry))]).await?,
            Step::Delete => self.write(&t, flow, vec![(path, None)]).await?,
        }
        commit(t).await
    }

    async fn begin_scan(&self, flow: &FlowName, since: u64) -> Result<ScanStart, StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let sql = "SELECT pg_advisory_xact_lock(hashtextextended('ketch acts ' || $1, 0))";
        self.query(&t, sql, &[&flow.as_str()], "begin a scan")
            .await?;
        let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM @.acts";
        let rows = self.query(&t, sql, &[], "begin a scan").await?;
        let scan = rows.first().map_or(0, |row| number(row.get(0)));
        let sql = "SELECT path, acted FROM @.entries WHERE flow = $1 AND acted IS NOT NULL";
        let rows = self
            .query(&t, sql, &[&flow.as_str()], "begin a scan")
            .await?;
        commit(t).await?;
        let (mut forget, mut old) = (Vec::new(), false);
        for row in &rows {
            if row.get::<_, i64>(1) > column(since) {
                forget.push(RemotePath::from(row.get::<_, &[u8]>(0)));
            } else {
                old = true;
            }
        }
        if old {
            let t = start(&mut connection).await?;
            let sql = "DELETE FROM @.entries \
                 WHERE flow = $1 AND acted IS NOT NULL AND acted <= $2";
            self.query(&t, sql, &[&flow.as_str(), &column(since)], "tidy up")
                .await?;
            commit(t).await?;
        }
        Ok(ScanStart { scan, forget })
    }

    async fn renew(&self, claims: &[ClaimId], lease: Duration) -> Result<Vec<ClaimId>, StoreError> {
        let mut flows: BTreeMap<&FlowName, Vec<&ClaimId>> = BTreeMap::new();
        for claim in claims {
            flows.entry(&claim.flow).or_default().push(claim);
        }
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let mut lost = Vec::new();
        for (flow, claims) in flows {
            let paths: Vec<Vec<u8>> = claims
                .iter()
                .map(|claim| claim.path.as_bytes().to_vec())
                .collect();
            let rows = self.lock(&t, flow, &paths).await?;
            let until = self.now(&t).await?.saturating_add(millis(lease));
            let mut renewed = BTreeMap::new();
            for claim in claims {
                let row = rows.get(claim.path.as_bytes()).and_then(Option::as_ref);
                match row.filter(|row| row.is_of(claim)) {
                    Some(row) => {
                        let mut row = row.clone();
                        row.due = until;
                        renewed.insert(claim.path.as_bytes().to_vec(), Some(row));
                    }
                    None => lost.push(claim.clone()),
                }
            }
            self.write(&t, flow, renewed.into_iter().collect()).await?;
        }
        commit(t).await?;
        Ok(lost)
    }

    async fn replay(&self, flow: &FlowName, path: Option<&RemotePath>) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let path = path.map(RemotePath::as_bytes);
        if let Some(path) = path {
            let path = path.to_vec();
            let rows = self.lock(&t, flow, std::slice::from_ref(&path)).await?;
            let known = rows.into_values().flatten().next();
            if let Some(entry) = known.filter(Entry::may_come_again) {
                let now = self.now(&t).await?;
                let sequence = self.numbers(&t, 1).await?.into_iter().next();
                let entry = entry.again(now, sequence.unwrap_or_default());
                self.write(&t, flow, vec![(path, Some(entry))]).await?;
                commit(t).await?;
                return Ok(1);
            }
        }
        let sql = "SELECT path FROM @.entries WHERE flow = $1 AND state = 6 \
             AND ($2::bytea IS NULL OR path = $2) ORDER BY path";
        let rows = self
            .query(&t, sql, &[&flow.as_str(), &path], "find dead items")
            .await?;
        let paths: Vec<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
        let mut replayed = 0_u64;
        for part in paths.chunks(BATCH_MAX) {
            let now = self.now(&t).await?;
            let mut rows = Vec::new();
            for (path, row) in self.lock(&t, flow, part).await? {
                if let Some(mut row) = row
                    && row.replay(now)
                {
                    replayed = replayed.saturating_add(1);
                    rows.push((path, Some(row)));
                }
            }
            self.write(&t, flow, rows).await?;
        }
        commit(t).await?;
        Ok(replayed)
    }

    async fn import(&self, flow: &FlowName, rows: &[Row]) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let t = start(&mut connection).await?;
        let paths: Vec<Vec<u8>> = rows
            .iter()
            .map(|row| row.item.path.as_bytes().to_vec())
            .collect();
        let there = self.lock(&t, flow, &paths).await?;
        let mut put = BTreeMap::new();
        let mut last = 0;
        for row in rows {
            let entry = Entry::imported(row);
            let path = entry.path.as_bytes().to_vec();
            // The same part may come twice; what has gone on since stays.
            let known = there.get(&path).and_then(Option::as_ref);
            if known.is_none_or(|known| known.sequence < entry.sequence) {
                last = entry.sequence.max(last);
                put.insert(path, Some(entry));
            }
        }
        self.write(&t, flow, put.into_iter().collect()).await?;
        let sql = "SELECT setval('@.sequences', $1) FROM @.sequences \
             WHERE $1 > last_value OR NOT is_called";
        if last > 0 {
            self.query(&t, sql, &[&column(last)], "count on").await?;
        }
        commit(t).await
    }

    /// One statement alone.
    async fn alone(
        &self,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
        what: &'static str,
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let call = async {
            let connection = self.connection().await?;
            let statement = connection
                .prepare_cached(&self.sql(sql))
                .await
                .map_err(unavailable(what))?;
            connection
                .query(&statement, params)
                .await
                .map_err(unavailable(what))
        };
        self.within(call).await
    }
}

async fn start(connection: &mut Object) -> Result<Transaction<'_>, StoreError> {
    connection
        .transaction()
        .await
        .map_err(unavailable("begin a transaction"))
}

async fn commit(transaction: Transaction<'_>) -> Result<(), StoreError> {
    transaction.commit().await.map_err(unavailable("commit"))
}

/// Runs the machine over all changes.
fn run(
    record: &Record<'_>,
    rows: &mut Locked,
    now: u64,
    sequence: &mut dyn FnMut() -> u64,
) -> Recorded {
    let mut recorded = Recorded::default();
    for change in record.changes {
        let path = change.path().as_bytes();
        let from = match change {
            Change::Renamed { from, .. } => Some(from.as_bytes()),
            _ => None,
        };
        let row = rows.get(path).and_then(Option::as_ref);
        let from_row = from
            .and_then(|from| rows.get(from))
            .and_then(Option::as_ref);
        let steps = Ground {
            scan: record.scan,
            removals: record.removals,
            renames: record.renames,
            now,
            sequence,
        }
        .record(change, row, from_row, &mut recorded);
        let steps = [(from, steps.from), (Some(path), steps.row)];
        for (path, step) in steps {
            let row = match step {
                Step::Keep => continue,
                Step::Put(row) => Some(*row),
                Step::Delete => None,
            };
            if let Some(path) = path {
                rows.insert(path.to_vec(), row);
            }
        }
    }
    recorded
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
                let entry = Shared::checked(flow, row)?;
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
            // Dead rows have an index, which a state in the text of the statement makes use of.
            let only = state.map_or_else(String::new, |state| {
                format!("AND state = {}", state_byte(state))
            });
            let sql = format!(
                "SELECT $columns FROM @.entries WHERE flow = $1 AND path > $2 {only} \
                 ORDER BY path LIMIT $3"
            );
            let after = after.map_or(&b""[..], RemotePath::as_bytes);
            let max = i64::try_from(max.min(BATCH_MAX)).unwrap_or(0);
            let rows = self
                .shared
                .alone(&sql, &[&flow.as_str(), &after, &max], "list rows")
                .await?;
            rows.iter()
                .map(|row| Ok(Shared::checked(flow, row)?.row(flow)))
                .collect()
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
                dead: of(State::Dead),
            })
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
