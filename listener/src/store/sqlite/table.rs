//! Rows in SQLite: the statements, and the flows' counters that every change of a row changes.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension as _, Statement, params};

use super::{damaged, failed};
use crate::flow::item::FlowName;
use crate::store::encoding::{self, Columns, Reader, Writer, column, state_byte};
use crate::store::row::{Entry, Step};
use crate::store::{Counts, Order, State, StoreError};

/// What the ledger is made of. The indexes of ordered claims come when somebody asks for order.
pub(super) const SCHEMA: [&str; 7] = [
    "CREATE TABLE meta (one INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT",
    "CREATE TABLE flows (id INTEGER PRIMARY KEY, name TEXT NOT NULL, body BLOB NOT NULL) STRICT",
    "CREATE TABLE notes (flow INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, \
     PRIMARY KEY (flow, name)) STRICT, WITHOUT ROWID",
    "CREATE TABLE entries (flow INTEGER NOT NULL, path BLOB NOT NULL, state INTEGER NOT NULL, \
     due INTEGER, sequence INTEGER, directory BLOB, changed INTEGER, acted INTEGER, \
     body BLOB NOT NULL, PRIMARY KEY (flow, path)) STRICT, WITHOUT ROWID",
    "CREATE INDEX queue ON entries (flow, due, sequence) WHERE due IS NOT NULL",
    "CREATE INDEX dead ON entries (flow, path) WHERE state = 6",
    "CREATE INDEX acted ON entries (flow, acted) WHERE acted IS NOT NULL",
];

/// The indexes that may be there beside [`SCHEMA`].
pub(super) const BY_NAME: &str =
    "CREATE INDEX by_name ON entries (flow, directory, path) WHERE due IS NOT NULL";
/// See [`BY_NAME`].
pub(super) const BY_TIME: &str =
    "CREATE INDEX by_time ON entries (flow, directory, changed, path) WHERE due IS NOT NULL";

/// More items than a flow makes: the first number of a ledger is its time times this, so that one that
/// is made anew after a loss gives none again. In JSON they stay exact until the year 2248.
const NUMBERS_A_MILLISECOND: u64 = 1 << 10;

const GET: &str = "SELECT state, due, sequence, directory, changed, acted, body FROM entries \
     WHERE flow = ?1 AND path = ?2";
const PUT: &str = "INSERT INTO entries \
     (flow, path, state, due, sequence, directory, changed, acted, body) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (flow, path) DO UPDATE SET \
     state = ?3, due = ?4, sequence = ?5, directory = ?6, changed = ?7, acted = ?8, body = ?9";
const DELETE: &str = "DELETE FROM entries WHERE flow = ?1 AND path = ?2";
const DUE: &str = "SELECT path FROM entries INDEXED BY queue \
     WHERE flow = ?1 AND due IS NOT NULL AND due <= ?2 ORDER BY due, sequence LIMIT ?3";
const ACTED: &str = "SELECT path FROM entries INDEXED BY acted \
     WHERE flow = ?1 AND acted IS NOT NULL AND acted <= ?2";
const DEAD: &str = "SELECT path FROM entries INDEXED BY dead \
     WHERE flow = ?1 AND state = 6 ORDER BY path";
const FIRST_NAME: &str = "SELECT directory, path, due FROM entries INDEXED BY by_name \
     WHERE flow = ?1 AND due IS NOT NULL AND directory >= ?2 ORDER BY directory, path LIMIT 1";
const NEXT_NAME: &str = "SELECT directory, path, due FROM entries INDEXED BY by_name \
     WHERE flow = ?1 AND due IS NOT NULL AND directory > ?2 ORDER BY directory, path LIMIT 1";
const FIRST_TIME: &str = "SELECT directory, path, due FROM entries INDEXED BY by_time \
     WHERE flow = ?1 AND due IS NOT NULL AND directory >= ?2 \
     ORDER BY directory, changed, path LIMIT 1";
const NEXT_TIME: &str = "SELECT directory, path, due FROM entries INDEXED BY by_time \
     WHERE flow = ?1 AND due IS NOT NULL AND directory > ?2 \
     ORDER BY directory, changed, path LIMIT 1";
const FIRST_NAME_DOWN: &str = "SELECT directory, path, due FROM entries INDEXED BY by_name \
     WHERE flow = ?1 AND due IS NOT NULL AND directory >= ?2 \
     ORDER BY directory DESC, path DESC LIMIT 1";
const NEXT_NAME_DOWN: &str = "SELECT directory, path, due FROM entries INDEXED BY by_name \
     WHERE flow = ?1 AND due IS NOT NULL AND directory < ?2 \
     ORDER BY directory DESC, path DESC LIMIT 1";
const FIRST_TIME_DOWN: &str = "SELECT directory, path, due FROM entries INDEXED BY by_time \
     WHERE flow = ?1 AND due IS NOT NULL AND directory >= ?2 \
     ORDER BY directory DESC, changed DESC, path DESC LIMIT 1";
const NEXT_TIME_DOWN: &str = "SELECT directory, path, due FROM entries INDEXED BY by_time \
     WHERE flow = ?1 AND due IS NOT NULL AND directory < ?2 \
     ORDER BY directory DESC, changed DESC, path DESC LIMIT 1";
const NOTE: &str = "SELECT body FROM notes WHERE flow = ?1 AND name = ?2";
const PUT_NOTE: &str = "INSERT INTO notes (flow, name, body) VALUES (?1, ?2, ?3) \
     ON CONFLICT (flow, name) DO UPDATE SET body = ?3";
const DELETE_NOTE: &str = "DELETE FROM notes WHERE flow = ?1 AND name = ?2";
const PUT_FLOW: &str = "INSERT INTO flows (id, name, body) VALUES (?1, ?2, ?3) \
     ON CONFLICT (id) DO UPDATE SET body = ?3";
const PUT_META: &str = "INSERT INTO meta (one, body) VALUES (1, ?1) \
     ON CONFLICT (one) DO UPDATE SET body = ?1";

/// What the ledger says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Meta {
    pub(super) id: [u8; 16],
    pub(super) flows: u64,
}

impl Meta {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut w = Writer::default();
        w.bytes(&self.id);
        w.number(self.flows);
        w.seal(&[b"meta"])
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::open(&[b"meta"], bytes)?;
        let id = r.bytes()?.try_into().ok()?;
        let flows = r.number()?;
        r.finish()?;
        Some(Self { id, flows })
    }
}

/// A flow's counters. Number and sum of the rows' checksums are kept, so that rows that vanished
/// are missed when the ledger is opened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Flow {
    pub(super) id: i64,
    /// The last sequence number given.
    pub(super) sequence: u64,
    /// How many files our after-actions took away.
    pub(super) acts: u64,
    /// The ledger's clock when this was written.
    pub(super) clock: u64,
    /// Sum of the checksums of all rows and values.
    pub(super) sum: u64,
    pub(super) notes: u64,
    /// Rows by state, in the order of [`State::ALL`].
    pub(super) states: [u64; State::ALL.len()],
}

impl Flow {
    pub(super) fn encode(&self, name: &FlowName) -> Vec<u8> {
        let Self {
            id,
            sequence,
            acts,
            clock,
            sum,
            notes,
            states,
        } = self;
        let mut w = Writer::default();
        for number in [sequence, acts, clock, sum, notes]
            .into_iter()
            .chain(states)
        {
            w.number(*number);
        }
        w.seal(&[name.as_str().as_bytes(), &id.to_le_bytes()])
    }

    pub(super) fn decode(name: &str, id: i64, bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::open(&[name.as_bytes(), &id.to_le_bytes()], bytes)?;
        let mut flow = Self {
            id,
            sequence: r.number()?,
            acts: r.number()?,
            clock: r.number()?,
            sum: r.number()?,
            notes: r.number()?,
            states: [0; State::ALL.len()],
        };
        for state in &mut flow.states {
            *state = r.number()?;
        }
        r.finish()?;
        Some(flow)
    }

    pub(super) fn counts(&self) -> Counts {
        let [known, pending, claimed, committed, done, acted, dead] = self.states;
        Counts {
            known,
            pending,
            claimed: claimed.saturating_add(committed),
            done: done.saturating_add(acted),
            dead,
        }
    }

    /// A row or value came (`true`) or went.
    pub(super) const fn sum_up(&mut self, sum: u32, came: bool) {
        self.sum = if came {
            self.sum.wrapping_add(sum as u64)
        } else {
            self.sum.wrapping_sub(sum as u64)
        };
    }

    pub(super) fn count(&mut self, state: State, came: bool) {
        if let Some(count) = self.states.get_mut(usize::from(state_byte(state))) {
            *count = if came {
                count.saturating_add(1)
            } else {
                count.saturating_sub(1)
            };
        }
    }
}

/// A row that was read, with its checksum.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) entry: Entry,
    sum: u32,
}

/// Reads columns and body as [`GET`] gives them, from column `first` on, and checks them.
pub(super) fn checked(
    flow: &FlowName,
    path: &[u8],
    row: &rusqlite::Row<'_>,
    first: usize,
) -> Result<Stored, StoreError> {
    let body = body(path, row, first)?;
    let entry = encoding::decode(flow, path, body).ok_or_else(|| damaged(path))?;
    if columns(row, first)? != Columns::of(&entry) {
        return Err(damaged(path));
    }
    Ok(Stored {
        sum: encoding::sum(body),
        entry,
    })
}

/// The row's bytes.
pub(super) fn body<'r>(
    path: &[u8],
    row: &'r rusqlite::Row<'_>,
    first: usize,
) -> Result<&'r [u8], StoreError> {
    let body = row
        .get_ref(first.saturating_add(6))
        .map_err(failed("read"))?;
    body.as_blob().map_err(|_| damaged(path))
}

/// The columns that repeat what the row's bytes say.
pub(super) fn columns<'r>(
    row: &'r rusqlite::Row<'_>,
    first: usize,
) -> Result<Columns<'r>, StoreError> {
    let get = |at: usize| {
        row.get_ref(first.saturating_add(at))
            .map_err(failed("read"))
    };
    let number = |at| get(at).map(|value| value.as_i64_or_null().ok().flatten());
    Ok(Columns {
        state: number(0)?.unwrap_or(-1),
        due: number(1)?,
        sequence: number(2)?,
        directory: get(3)?.as_blob_or_null().ok().flatten(),
        changed: number(4)?,
        acted: number(5)?,
    })
}

/// The counters at some moment.
#[derive(Debug)]
pub(super) struct Mark {
    flows: BTreeMap<FlowName, Flow>,
    meta: Meta,
    changed: Vec<FlowName>,
}

/// The writer's connection with its statements, and what it knows of the flows.
#[derive(Debug)]
pub(super) struct Table<'c> {
    connection: &'c Connection,
    statements: HashMap<&'static str, Statement<'c>>,
    pub(super) flows: BTreeMap<FlowName, Flow>,
    pub(super) meta: Meta,
    /// Flows whose counters are to be written with the transaction.
    changed: Vec<FlowName>,
    /// Milliseconds since 1970, never going back.
    pub(super) now: u64,
}

impl<'c> Table<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        meta: Meta,
        flows: BTreeMap<FlowName, Flow>,
    ) -> Self {
        Self {
            connection,
            statements: HashMap::new(),
            flows,
            meta,
            changed: Vec::new(),
            now: 0,
        }
    }

    pub(super) const fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// The statement of `sql`, prepared once.
    pub(super) fn statement(
        &mut self,
        sql: &'static str,
    ) -> Result<&mut Statement<'c>, StoreError> {
        if !self.statements.contains_key(sql) {
            let statement = self.connection.prepare(sql).map_err(failed("prepare"))?;
            self.statements.insert(sql, statement);
        }
        self.statements.get_mut(sql).ok_or(StoreError::Lost)
    }

    fn paths(
        &mut self,
        sql: &'static str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        self.statement(sql)?
            .query_map(params, |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(failed("read"))
    }

    /// The counters of a flow, which begins now if it has none.
    pub(super) fn flow(&mut self, name: &FlowName) -> Result<&mut Flow, StoreError> {
        if !self.flows.contains_key(name) {
            self.meta.flows = self.meta.flows.saturating_add(1);
            let flow = Flow {
                id: column(self.meta.flows),
                // A ledger that is made anew gives no number that the one before it gave.
                sequence: self.now.saturating_mul(NUMBERS_A_MILLISECOND),
                ..Flow::default()
            };
            let meta = self.meta.encode();
            self.statement(PUT_META)?
                .execute(params![meta])
                .map_err(failed("write"))?;
            self.flows.insert(name.clone(), flow);
        }
        if !self.changed.contains(name) {
            self.changed.push(name.clone());
        }
        self.flows.get_mut(name).ok_or(StoreError::Lost)
    }

    fn id(&self, flow: &FlowName) -> Option<i64> {
        self.flows.get(flow).map(|flow| flow.id)
    }

    /// Writes the counters that changed. To be called before the transaction ends.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        for name in std::mem::take(&mut self.changed) {
            let now = self.now;
            let Some(flow) = self.flows.get_mut(&name) else {
                continue;
            };
            flow.clock = now;
            let (id, body) = (flow.id, flow.encode(&name));
            self.statement(PUT_FLOW)?
                .execute(params![id, name.as_str(), body])
                .map_err(failed("write"))?;
        }
        Ok(())
    }

    /// The counters as they are, for [`restore`](Self::restore).
    pub(super) fn mark(&self) -> Mark {
        Mark {
            flows: self.flows.clone(),
            meta: self.meta,
            changed: self.changed.clone(),
        }
    }

    /// What was done since then was rolled back.
    pub(super) fn restore(&mut self, mark: Mark) {
        let Mark {
            flows,
            meta,
            changed,
        } = mark;
        self.flows = flows;
        self.meta = meta;
        self.changed = changed;
    }

    pub(super) fn get(
        &mut self,
        flow: &FlowName,
        path: &[u8],
    ) -> Result<Option<Stored>, StoreError> {
        let Some(id) = self.id(flow) else {
            return Ok(None);
        };
        let mut rows = self
            .statement(GET)?
            .query(params![id, path])
            .map_err(failed("read"))?;
        rows.next()
            .map_err(failed("read"))?
            .map(|row| checked(flow, path, row, 0))
            .transpose()
    }

    /// Makes of a row what `step` says; `old` is what [`get`](Self::get) gave for the path.
    pub(super) fn apply(
        &mut self,
        flow: &FlowName,
        path: &[u8],
        old: Option<&Stored>,
        step: Step,
    ) -> Result<(), StoreError> {
        let new = match step {
            Step::Keep => return Ok(()),
            Step::Put(entry) => Some(*entry),
            Step::Delete => None,
        };
        let counters = self.flow(flow)?;
        let id = counters.id;
        if let Some(old) = old {
            counters.sum_up(old.sum, false);
            counters.count(old.entry.state, false);
        }
        let Some(entry) = new else {
            self.statement(DELETE)?
                .execute(params![id, path])
                .map_err(failed("write"))?;
            return Ok(());
        };
        let body = encoding::encode(flow, &entry);
        counters.sum_up(encoding::sum(&body), true);
        counters.count(entry.state, true);
        let columns = Columns::of(&entry);
        self.statement(PUT)?
            .execute(params![
                id,
                path,
                columns.state,
                columns.due,
                columns.sequence,
                columns.directory,
                columns.changed,
                columns.acted,
                body
            ])
            .map_err(failed("write"))?;
        Ok(())
    }

    /// What may be claimed now.
    pub(super) fn due(
        &mut self,
        flow: &FlowName,
        order: Order,
        max: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let Some(id) = self.id(flow) else {
            return Ok(Vec::new());
        };
        let now = column(self.now);
        let (first, next) = match order {
            Order::Any => {
                let max = i64::try_from(max).unwrap_or(i64::MAX);
                return self.paths(DUE, params![id, now, max]);
            }
            Order::Name => (FIRST_NAME, NEXT_NAME),
            Order::Time => (FIRST_TIME, NEXT_TIME),
            // The same indexes from their end.
            Order::NameDown => (FIRST_NAME_DOWN, NEXT_NAME_DOWN),
            Order::TimeDown => (FIRST_TIME_DOWN, NEXT_TIME_DOWN),
        };
        self.ordered(order)?;
        // The first of each directory stands for it: what is behind waits for it.
        let mut found = Vec::new();
        let (mut sql, mut directory) = (first, Vec::new());
        while found.len() < max {
            let head: Option<(Vec<u8>, Vec<u8>, i64)> = self
                .statement(sql)?
                .query_row(params![id, directory], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
                .map_err(failed("read"))?;
            let Some((at, path, due)) = head else {
                break;
            };
            if due <= now {
                found.push(path);
            }
            (sql, directory) = (next, at);
        }
        Ok(found)
    }

    /// Makes the index for claims in order, if nobody has asked for it yet.
    fn ordered(&self, order: Order) -> Result<(), StoreError> {
        let (name, sql) = match order {
            Order::Any => return Ok(()),
            Order::Name | Order::NameDown => ("by_name", BY_NAME),
            Order::Time | Order::TimeDown => ("by_time", BY_TIME),
        };
        let there = self
            .connection
            .prepare("SELECT 1 FROM sqlite_schema WHERE name = ?1")
            .and_then(|mut statement| statement.exists(params![name]))
            .map_err(failed("read"))?;
        if !there {
            self.connection
                .execute_batch(sql)
                .map_err(failed("write"))?;
        }
        Ok(())
    }

    /// Rows of files that after-actions took away, up to the count `acts`.
    pub(super) fn acted(&mut self, flow: &FlowName, acts: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        match self.id(flow) {
            Some(id) => self.paths(ACTED, params![id, column(acts)]),
            None => Ok(Vec::new()),
        }
    }

    /// Rows that were given up.
    pub(super) fn dead(&mut self, flow: &FlowName) -> Result<Vec<Vec<u8>>, StoreError> {
        match self.id(flow) {
            Some(id) => self.paths(DEAD, params![id]),
            None => Ok(Vec::new()),
        }
    }

    /// Keeps a value, or takes it away.
    pub(super) fn note(
        &mut self,
        flow: &FlowName,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), StoreError> {
        let id = self.flow(flow)?.id;
        let old: Option<Vec<u8>> = self
            .statement(NOTE)?
            .query_row(params![id, name], |row| row.get(0))
            .optional()
            .map_err(failed("read"))?;
        let new = value.map(|value| encode_note(flow, name, value));
        if let Some(body) = &new {
            self.statement(PUT_NOTE)?
                .execute(params![id, name, body])
                .map_err(failed("write"))?;
        } else {
            self.statement(DELETE_NOTE)?
                .execute(params![id, name])
                .map_err(failed("write"))?;
        }
        let flow = self.flow(flow)?;
        for (body, came) in [(old, false), (new, true)] {
            if let Some(body) = body {
                flow.sum_up(encoding::sum(&body), came);
                flow.notes = if came {
                    flow.notes.saturating_add(1)
                } else {
                    flow.notes.saturating_sub(1)
                };
            }
        }
        Ok(())
    }
}

fn encode_note(flow: &FlowName, name: &str, value: &str) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes(value.as_bytes());
    w.seal(&[b"note", flow.as_str().as_bytes(), name.as_bytes()])
}

/// The value that a note's bytes hold; `None` if they are damaged.
pub(super) fn decode_note(flow: &FlowName, name: &str, bytes: &[u8]) -> Option<String> {
    let keys: [&[u8]; 3] = [b"note", flow.as_str().as_bytes(), name.as_bytes()];
    let mut r = Reader::open(&keys, bytes)?;
    let value = std::str::from_utf8(r.bytes()?).ok()?.to_owned();
    r.finish()?;
    Some(value)
}
