//! Who may use the file just now: its readers, and whether it is being opened again.
//!
//! After a failed write nobody may read either, until the writer has opened the file again and looked
//! at all of it. Callers get [`StoreError::Unavailable`] at once meanwhile, and nothing waits in a
//! queue for a disk that does not answer.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags};

use super::failed;
use super::open::unavailable;
use crate::store::StoreError;

/// Connections for reading that are kept.
const READERS_MAX: usize = 4;

/// What callers and the writer share.
#[derive(Debug)]
pub(super) struct Gate {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Why nobody may in.
    away: Option<String>,
    kept: Vec<Connection>,
    /// Those who read.
    inside: usize,
}

impl Gate {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody may in any more, for `why`; connections that nobody uses are closed.
    pub(super) fn shut(&self, why: String) {
        let mut state = self.state();
        state.away = Some(why);
        let kept = std::mem::take(&mut state.kept);
        drop(state);
        drop(kept);
    }

    /// The file may be used again.
    pub(super) fn open(&self) {
        self.state().away = None;
    }

    /// Whether the last reader has left.
    pub(super) fn is_empty(&self) -> bool {
        self.state().inside == 0
    }

    /// Why the file cannot be used, if it cannot.
    pub(super) fn refusal(&self, what: &'static str) -> Result<(), StoreError> {
        match &self.state().away {
            Some(why) => Err(away(what, why)),
            None => Ok(()),
        }
    }

    /// A connection for reading.
    pub(super) fn enter(&self) -> Result<Reading<'_>, StoreError> {
        let mut state = self.state();
        if let Some(why) = &state.away {
            return Err(away("read", why));
        }
        let kept = state.kept.pop();
        state.inside = state.inside.saturating_add(1);
        drop(state);
        // From here on it is left again whatever happens.
        let mut reading = Reading {
            gate: self,
            connection: kept,
            is_sound: false,
        };
        if reading.connection.is_none() {
            reading.connection = Some(reader(&self.path)?);
        }
        Ok(reading)
    }
}

/// It cannot be used now, for a reason that was told before.
pub(super) fn away(what: &'static str, why: &str) -> StoreError {
    unavailable(what)(std::io::Error::other(why.to_owned()))
}

/// Somebody who reads.
#[derive(Debug)]
pub(super) struct Reading<'g> {
    gate: &'g Gate,
    connection: Option<Connection>,
    is_sound: bool,
}

impl Reading<'_> {
    /// The connection did what it was asked, so others may have it.
    pub(super) const fn went_well(&mut self) {
        self.is_sound = true;
    }

    /// The connection, which is there from the beginning.
    pub(super) fn connection(&self) -> Result<&Connection, StoreError> {
        self.connection
            .as_ref()
            .ok_or_else(|| away("read", "there is no connection"))
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let connection = self.connection.take();
        let mut state = self.gate.state();
        let keep = self.is_sound && state.away.is_none() && state.kept.len() < READERS_MAX;
        let mut over = None;
        match connection {
            Some(connection) if keep => state.kept.push(connection),
            other => over = other,
        }
        drop(state);
        // It is closed before it counts as gone, or the file could be opened again beside it.
        drop(over);
        let mut state = self.gate.state();
        state.inside = state.inside.saturating_sub(1);
    }
}

fn reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed("open"))?;
    for (name, value) in [
        ("query_only", "ON"),
        ("cell_size_check", "ON"),
        ("trusted_schema", "OFF"),
    ] {
        connection
            .pragma_update(None, name, value)
            .map_err(failed("set up"))?;
    }
    Ok(connection)
}
