//! Events into a table of PostgreSQL: one row each, whose key is the event's id.
//!
//! `INSERT … ON CONFLICT (id) DO NOTHING`, so an event that is sent again changes nothing, however
//! often and however late. The table may be older than the flow and may have more columns and other
//! indexes, as long as it has these:
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `id` | `text primary key` | the event's id |
//! | `source` | `text` | CloudEvents' `source` |
//! | `type` | `text` | `ketch.file.created` and so on |
//! | `time` | `timestamptz` | when the ledger took it |
//! | `flow` | `text` | the flow's name |
//! | `sequence` | `bigint` | rises with every item of the flow |
//! | `path` | `text` | below the source's root, for reading |
//! | `path_bytes` | `bytea` | the same as it is, UTF-8 or not |
//! | `size` | `bigint` | bytes, if known |
//! | `modified` | `timestamptz` | by the server's clock, if known |
//! | `sha256` | `bytea` | of the content, if known |
//! | `event` | `jsonb` | the whole CloudEvent |
//! | `received` | `timestamptz default now()` | not written by us |

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use deadpool_postgres::{Object, Pool, PoolError, Runtime};
use ketch_client::Kind;
use tokio_postgres::error::{Error as PostgresError, SqlState};
use tokio_postgres::types::ToSql;

use super::event;
use super::{Answer, Parcel, Sink, SinkError, Takes};
use crate::database::{DatabaseError, Way};
use crate::flow::item::Item;
use crate::store::Placement;

/// Connections at a time. An insert is short; more would only stand in each other's way.
const CONNECTIONS_MAX: usize = 4;
/// Longest name of a table, schema or channel that PostgreSQL keeps, in bytes.
const IDENTIFIER_LEN_MAX: usize = 63;

/// Which table, and how to get there.
#[derive(Clone)]
pub struct PostgresSettings {
    /// The sink's name in its flow.
    pub name: String,
    /// `host=… user=… dbname=…` or `postgresql://…`, as libpq has it; see [`crate::database`] for
    /// `sslmode` and `sslrootcert`.
    pub connect: String,
    /// The table, with its schema if need be: `events`, `audit.events`.
    pub table: String,
    /// Whether the table is created if it is not there. Default: no.
    pub create: bool,
    /// A channel to be notified of each new event with its id, for `LISTEN`. Default: none.
    pub notify: Option<String>,
    /// For a connection, and for an insert. Default: 10 s.
    pub timeout: Duration,
    /// Whether a server on another machine is spoken to without encryption, unless `sslmode` says
    /// otherwise. Default: no.
    pub danger_plain: bool,
    /// Which events it takes. Default: all that the flow has.
    pub takes: Takes,
}

impl PostgresSettings {
    /// Events into `table` of the database that `connect` names.
    #[must_use]
    pub fn new(name: &str, connect: &str, table: &str) -> Self {
        Self {
            name: name.to_owned(),
            connect: connect.to_owned(),
            table: table.to_owned(),
            create: false,
            notify: None,
            timeout: Duration::from_secs(10),
            danger_plain: false,
            takes: Takes::EVENTS,
        }
    }
}

impl std::fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest may hold a password.
        f.debug_struct("PostgresSettings")
            .field("name", &self.name)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// Why a sink cannot be made from its settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresSinkError {
    /// The database cannot be reached as the settings have it.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// It cannot be the name of a table or channel.
    #[error("{0:?} cannot be a name in PostgreSQL")]
    Name(String),
    /// The pool of connections cannot be made.
    #[error("cannot keep connections to PostgreSQL")]
    Pool(#[source] deadpool_postgres::BuildError),
}

/// A sink of events.
pub struct Postgres {
    settings: PostgresSettings,
    source: String,
    insert: String,
    create: Option<String>,
    pool: Pool,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

impl Postgres {
    /// A sink whose events have `source`; [`event::default_source`] is what flows have unless told.
    ///
    /// # Errors
    /// [`PostgresSinkError`]. Nothing is connected to yet.
    pub fn new(settings: PostgresSettings, source: String) -> Result<Self, PostgresSinkError> {
        let mut way = Way::parse(&settings.connect, settings.danger_plain)?;
        way.config.connect_timeout(settings.timeout);
        way.config.application_name("ketch-listener");
        let manager = way.manager();
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS_MAX)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(PostgresSinkError::Pool)?;
        let table = quoted_table(&settings.table)?;
        let mut insert = format!(
            "INSERT INTO {table} (id, source, type, time, flow, sequence, path, path_bytes, size, \
             modified, sha256, event) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb) \
             ON CONFLICT (id) DO NOTHING"
        );
        if let Some(channel) = &settings.notify {
            identifier(channel)?;
            // In the insert's transaction: whoever is told finds the row.
            insert = format!(
                "WITH new AS ({insert} RETURNING id) SELECT pg_notify('{}', id) FROM new",
                channel.replace('\'', "''")
            );
        }
        let create = settings.create.then(|| {
            format!(
                "CREATE TABLE IF NOT EXISTS {table} (id text PRIMARY KEY, source text NOT NULL, \
                 type text NOT NULL, time timestamptz NOT NULL, flow text NOT NULL, \
                 sequence bigint NOT NULL, path text NOT NULL, path_bytes bytea NOT NULL, \
                 size bigint, modified timestamptz, sha256 bytea, event jsonb NOT NULL, \
                 received timestamptz NOT NULL DEFAULT now())"
            )
        });
        Ok(Self {
            settings,
            source,
            insert,
            create,
            pool,
        })
    }

    async fn insert(&self, parcel: Parcel<'_>) -> Result<(), SinkError> {
        let item = parcel.item;
        let event = json_without_nul(event::encode(&self.source, &parcel));
        let Item {
            flow,
            sequence,
            path,
            facts,
            sha256,
            recorded,
            ..
        } = item;
        let (id, kind) = (item.id(), event::event_type(item));
        let (flow, sequence) = (flow.as_str(), i64::try_from(*sequence).unwrap_or(i64::MAX));
        let size = facts
            .size
            .map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        let time = at(Duration::from_millis(*recorded));
        let modified = facts
            .mtime
            .map(|mtime| at(Duration::from_secs(mtime.into())));
        let text = String::from_utf8_lossy(path.as_bytes()).replace('\0', "\u{fffd}");
        let (bytes, sum) = (path.as_bytes(), sha256.as_ref().map(|sum| &sum[..]));
        let row: [&(dyn ToSql + Sync); 12] = [
            &id,
            &self.source,
            &kind,
            &time,
            &flow,
            &sequence,
            &text,
            &bytes,
            &size,
            &modified,
            &sum,
            &event,
        ];
        let what = || format!("cannot insert event {id} into {}", self.settings.table);
        self.with_connection(what, async |connection: &Object| {
            let put = || async {
                let statement = connection.prepare_cached(&self.insert).await?;
                connection.execute(&statement, &row).await
            };
            match (put().await, &self.create) {
                (Err(error), Some(create)) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                    connection.batch_execute(create).await?;
                    put().await.map(drop)
                }
                (put, _) => put.map(drop),
            }
        })
        .await
    }

    /// Does `work` on a connection, which is thrown away if it takes too long.
    async fn with_connection(
        &self,
        what: impl Fn() -> String,
        work: impl AsyncFnOnce(&Object) -> Result<(), PostgresError>,
    ) -> Result<(), SinkError> {
        let failed = |kind, source: Box<dyn StdError + Send + Sync>| SinkError::Failed {
            what: what(),
            kind,
            source,
        };
        let timeout = self.settings.timeout;
        let connection = match tokio::time::timeout(timeout, self.pool.get()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(PoolError::Backend(error))) => return Err(failed(kind(&error), error.into())),
            Ok(Err(error)) => return Err(failed(Kind::Network, error.into())),
            Err(late) => return Err(failed(Kind::Timeout, late.into())),
        };
        match tokio::time::timeout(timeout, work(&connection)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(kind(&error), error.into())),
            Err(late) => {
                // It is busy with what nobody waits for any more.
                drop(Object::take(connection));
                Err(failed(Kind::Timeout, late.into()))
            }
        }
    }
}

impl Sink for Postgres {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn takes(&self) -> Takes {
        self.settings.takes
    }

    fn place<'a>(&'a self, _: &'a Item, _: Option<&'a Placement>) -> Answer<'a, Placement> {
        Box::pin(async { Ok(Placement::default()) })
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(self.insert(parcel))
    }

    /// Connects, creates the table if that is wanted, and lets the server look whether the insert
    /// fits it.
    fn check(&self) -> Answer<'_, ()> {
        Box::pin(self.with_connection(
            || format!("cannot insert into {}", self.settings.table),
            async |connection: &Object| {
                if let Some(create) = &self.create {
                    connection.batch_execute(create).await?;
                }
                connection.prepare(&self.insert).await.map(drop)
            },
        ))
    }
}

/// What sort of failure an error is: what an operator or another server's start mends is transient.
fn kind(error: &PostgresError) -> Kind {
    let Some(code) = error.code().map(SqlState::code) else {
        // Before the server said anything: sockets, or our own side of the protocol.
        return Kind::Network;
    };
    match code {
        // 25006: a standby that has not been promoted yet. 42P07, 23505: another process was creating
        // the same table. 40, 53, 55, 57, 58: conflicts, resources, locks, operators, the system.
        "25006" | "42P07" | "23505" => Kind::Network,
        "42501" => Kind::Permission,
        "3D000" | "3F000" | "42P01" => Kind::NotFound,
        _ if code.starts_with("28") => Kind::Auth,
        _ if ["08", "40", "53", "55", "57", "58"]
            .iter()
            .any(|class| code.starts_with(class)) =>
        {
            Kind::Network
        }
        _ => Kind::Peer,
    }
}

fn at(since_1970: Duration) -> SystemTime {
    let time = SystemTime::UNIX_EPOCH.checked_add(since_1970);
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// JSON as `jsonb` takes it: U+FFFD for U+0000, which it refuses.
fn json_without_nul(json: Vec<u8>) -> String {
    fn clean(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = text.replace('\0', "\u{fffd}"),
            serde_json::Value::Array(values) => values.iter_mut().for_each(clean),
            serde_json::Value::Object(fields) => fields.values_mut().for_each(clean),
            _ => {}
        }
    }
    let json = String::from_utf8(json).unwrap_or_default();
    if !json.contains("\\u0000") {
        return json;
    }
    match serde_json::from_str(&json) {
        Ok(mut value) => {
            clean(&mut value);
            value.to_string()
        }
        Err(_) => json,
    }
}

fn identifier(name: &str) -> Result<&str, PostgresSinkError> {
    if name.is_empty() || name.len() > IDENTIFIER_LEN_MAX || name.contains('\0') {
        return Err(PostgresSinkError::Name(name.to_owned()));
    }
    Ok(name)
}

/// `table` or `schema.table`, quoted, so that it is exactly that table.
fn quoted_table(table: &str) -> Result<String, PostgresSinkError> {
    let parts: Result<Vec<_>, _> = table.split('.').map(identifier).collect();
    let parts = parts?;
    if parts.len() > 2 {
        return Err(PostgresSinkError::Name(table.to_owned()));
    }
    let quoted = parts
        .iter()
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    Ok(quoted.collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_hosts_are_looked_at() {
        assert_eq!(
            quoted_table("audit.Events").ok().as_deref(),
            Some("\"audit\".\"Events\"")
        );
        assert_eq!(quoted_table("a\"b").ok().as_deref(), Some("\"a\"\"b\""));
        for bad in ["", ".", "a.", "a.b.c", &"x".repeat(64), "a\0"] {
            assert!(quoted_table(bad).is_err(), "{bad:?}");
        }
        let sink = |connect| {
            Postgres::new(PostgresSettings::new("p", connect, "t"), "/x".to_owned()).map(drop)
        };
        assert!(sink("host=/run/postgresql user=a").is_ok());
        assert!(sink("postgresql://a:secret@127.0.0.1/db").is_ok());
        for text in ["host=db.example user=a sslmode=disable", "what=ever"] {
            let refused = sink(text);
            assert!(matches!(refused, Err(PostgresSinkError::Database(_))));
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let settings = PostgresSettings::new("p", "host=/x user=a password=secret", "t");
        let sink = Postgres::new(settings.clone(), "/x".to_owned()).expect("a sink");
        assert!(!format!("{settings:?} {sink:?}").contains("secret"));
    }

    #[test]
    fn jsonb_takes_what_is_left() {
        let clean = json_without_nul(br#"{"a":["x\u0000","\\u0000"]}"#.to_vec());
        assert_eq!(clean, "{\"a\":[\"x\u{fffd}\",\"\\\\u0000\"]}");
    }
}
