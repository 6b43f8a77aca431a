//! Rows in PostgreSQL: statements, locks, numbers and the clock, all inside a transaction of somebody
//! who knows what they are for (`calls`).

use std::collections::BTreeMap;
use std::sync::PoisonError;

use deadpool_postgres::{Object, Transaction};
use ketch_client::RemotePath;
use tokio_postgres::types::ToSql;

use super::{ASIDE, ASIDE_MAX, COLUMNS, FORMAT, NOW, SCHEMA, Shared, damaged, unavailable};
use crate::flow::item::FlowName;
use crate::store::encoding::{self, Columns, column, state_byte};
use crate::store::row::Entry;
use crate::store::{BATCH_MAX, Row, StoreError};

pub(super) fn number(found: i64) -> u64 {
    u64::try_from(found).unwrap_or(0)
}

/// Rows that a transaction has locked: as they were, and as they are to be.
pub(super) type Locked = BTreeMap<Vec<u8>, Option<Entry>>;

impl Shared {
    pub(super) fn sql(&self, text: &str) -> String {
        text.replace('@', &self.schema)
            .replace("$now", NOW)
            .replace("$columns", COLUMNS)
    }

    /// Gives up after the time for one call.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = tokio::time::timeout(self.timeout, call)
            .await
            .unwrap_or_else(|late| Err(unavailable("wait for the database")(late)));
        if matches!(done, Err(StoreError::Unavailable { .. })) {
            // After a failover connections lead to a server that writes no more, and one on which
            // nobody waited for an answer is busy. What comes next asks anew where to go.
            self.pool.retain(|_, _| false);
        }
        done
    }

    pub(super) async fn connection(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(unavailable("connect"))
    }

    /// Makes the tables, and answers the ledger's id.
    pub(super) async fn begin(&self) -> Result<[u8; 16], StoreError> {
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
    fn checked(flow: &FlowName, row: &tokio_postgres::Row) -> Option<Entry> {
        let path: &[u8] = row.get(0);
        let entry = encoding::decode(flow, path, row.get::<_, &[u8]>(3))?;
        let columns = Columns::of(&entry);
        let said: (i16, Option<i64>) = (row.get(1), row.get(2));
        ((i64::from(said.0), said.1) == (columns.state, columns.due)).then_some(entry)
    }

    /// Reads [`COLUMNS`]; of a row that is damaged no more is known than its path.
    pub(super) fn readable(flow: &FlowName, row: &tokio_postgres::Row) -> Entry {
        Self::checked(flow, row)
            .unwrap_or_else(|| Entry::unreadable(RemotePath::from(row.get::<_, &[u8]>(0))))
    }

    /// A page of rows behind `after`: `only` is a condition more.
    pub(super) async fn page(
        &self,
        flow: &FlowName,
        only: &str,
        after: Option<&RemotePath>,
        max: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let sql = format!(
            "SELECT $columns FROM @.entries WHERE flow = $1 AND path > $2 {only} \
             ORDER BY path LIMIT $3"
        );
        let after = after.map_or(&b""[..], RemotePath::as_bytes);
        let max = i64::try_from(max.min(BATCH_MAX)).unwrap_or(0);
        let rows = self
            .alone(&sql, &[&flow.as_str(), &after, &max], "list rows")
            .await?;
        Ok(rows
            .iter()
            .map(|row| Self::readable(flow, row).row(flow))
            .collect())
    }

    /// Takes rows out of the queue whose bytes are damaged. The bytes stay, for whoever looks into it.
    pub(super) async fn put_aside(
        &self,
        t: &Transaction<'_>,
        flow: &FlowName,
        paths: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        if paths.is_empty() {
            return Ok(());
        }
        let sql = "UPDATE @.entries SET state = $3, due = NULL, sequence = NULL, \
             directory = NULL, changed = NULL, acted = NULL WHERE flow = $1 AND path = ANY($2)";
        self.query(t, sql, &[&flow.as_str(), &paths, &ASIDE], "set rows aside")
            .await
            .map(|_| ())
    }

    /// Has it told that these rows were put aside.
    pub(super) fn tell_aside(&self, flow: &FlowName, paths: Vec<Vec<u8>>) {
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths {
            let path = RemotePath::from(path);
            tracing::error!(%flow, %path, "a row of the ledger is damaged, and set aside");
            if aside.len() < ASIDE_MAX {
                aside.push((flow.clone(), path));
            }
        }
    }

    /// Locks those rows of `paths` that are there; all of them in one order, so that two
    /// transactions never wait for each other.
    pub(super) async fn lock(
        &self,
        t: &Transaction<'_>,
        flow: &FlowName,
        paths: &[Vec<u8>],
    ) -> Result<Locked, StoreError> {
        let (locked, _) = self.lock_and_look(t, flow, paths).await?;
        Ok(locked)
    }

    /// The same, and the paths of rows that are damaged and were not set aside before.
    pub(super) async fn lock_and_look(
        &self,
        t: &Transaction<'_>,
        flow: &FlowName,
        paths: &[Vec<u8>],
    ) -> Result<(Locked, Vec<Vec<u8>>), StoreError> {
        let sql = "SELECT $columns FROM @.entries WHERE flow = $1 AND path = ANY($2) \
             ORDER BY path FOR UPDATE";
        let rows = self
            .query(t, sql, &[&flow.as_str(), &paths], "lock rows")
            .await?;
        let mut locked: Locked = paths.iter().map(|path| (path.clone(), None)).collect();
        let mut damaged = Vec::new();
        for row in &rows {
            let entry = Self::readable(flow, row);
            let path = entry.path.as_bytes().to_vec();
            if entry.is_unreadable() && row.get::<_, i16>(1) != ASIDE {
                damaged.push(path.clone());
            }
            locked.insert(path, Some(entry));
        }
        Ok((locked, damaged))
    }

    pub(super) async fn query(
        &self,
        t: &Transaction<'_>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        what: &'static str,
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let statement = t
            .prepare_cached(&self.sql(sql))
            .await
            .map_err(unavailable(what))?;
        t.query(&statement, params).await.map_err(unavailable(what))
    }

    /// The database's clock, and `count` numbers of items.
    pub(super) async fn numbers(
        &self,
        t: &Transaction<'_>,
        count: u64,
    ) -> Result<Vec<u64>, StoreError> {
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

    pub(super) async fn now(&self, t: &Transaction<'_>) -> Result<u64, StoreError> {
        let rows = self.query(t, "SELECT $now", &[], "read its clock").await?;
        Ok(rows.first().map_or(0, |row| number(row.get(0))))
    }

    /// Writes rows that are locked or new; `None` takes them away.
    pub(super) async fn write(
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

    /// One statement alone.
    pub(super) async fn alone(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
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

pub(super) async fn start(connection: &mut Object) -> Result<Transaction<'_>, StoreError> {
    connection
        .transaction()
        .await
        .map_err(unavailable("begin a transaction"))
}

pub(super) async fn commit(transaction: Transaction<'_>) -> Result<(), StoreError> {
    transaction.commit().await.map_err(unavailable("commit"))
}
