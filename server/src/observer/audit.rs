//! The audit log: who did what, from where, when and with what result, one line of JSON an event.
//!
//! [`AuditLog`] is an [`Observer`]. It makes a line of each event (`line`) on the connection's task
//! and hands it to a thread that writes (`writer`) through a queue of [`AUDIT_QUEUE_MAX`] lines. A
//! disk that is too slow for what happens loses lines, which the log then says, and holds up
//! nobody. `docs/audit.md` has every event with its fields.

mod line;
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use line::AUDIT_FIELD_LEN_MAX;
use line::Line;
pub use writer::AUDIT_QUEUE_MAX;
use writer::Writer;

use crate::observer::{Event, Observer, Operation, Transferred};

/// Permission bits of a log that is made: names of files and people are nobody else's business.
const MODE: u32 = 0o600;

/// Writes a line of JSON for each event; [`Event::Moved`] has none.
///
/// Lines are printable ASCII, whatever peers call themselves and their files: what is not is escaped
/// so that the bytes can be told from the text. When it is dropped, what is in the queue is written
/// first.
///
/// ```no_run
/// use std::sync::Arc;
/// use ketch_server::{AuditLog, Server};
///
/// let log = Arc::new(AuditLog::open("/var/log/ketch/audit.jsonl")?);
/// let builder = Server::builder().observer(log.clone());
/// // When logrotate has renamed the file:
/// log.reopen();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct AuditLog {
    writer: Writer,
}

impl AuditLog {
    /// Appends to the file at `path`. If it is missing it is made, for its owner alone.
    ///
    /// # Errors
    /// What opening it says, or that there can be no further thread.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let file = append(&path)?;
        Ok(Self {
            writer: Writer::new(file, move || append(&path))?,
        })
    }

    /// Writes to anything else, such as a pipe. It is flushed whenever the queue is empty.
    ///
    /// # Errors
    /// That there can be no further thread.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let nothing_new = || Err(io::ErrorKind::Unsupported.into());
        Ok(Self {
            writer: Writer::new(out, nothing_new)?,
        })
    }

    /// Opens the file anew by its name, before the next line: what logrotate wants to have done after
    /// it has renamed the file. If that fails, the old one is written on. Does not block.
    pub fn reopen(&self) {
        self.writer.reopen();
    }

    /// Lines that were lost so far, because the disk was too slow or refused them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.writer.lost()
    }
}

impl Observer for AuditLog {
    fn on_event(&self, event: &Event<'_>) {
        #[expect(clippy::disallowed_methods, reason = "a record says when it was made")]
        let now = SystemTime::now();
        if let Some(line) = line_of(event, now) {
            self.writer.write(line);
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)
}

/// The line of an event; `None` if it has none.
fn line_of(event: &Event<'_>, now: SystemTime) -> Option<Vec<u8>> {
    if matches!(event, Event::Moved { .. }) {
        return None; // the transfer that it belongs to is told when it is over
    }
    let who = event.who();
    let mut line = Line::new(now, event.name());
    line.number("connection", who.connection);
    line.text("peer", who.peer.as_bytes());
    if let Some(user) = &who.user {
        line.text("user", user.as_bytes());
    }
    for (name, value) in [
        ("organisation", &who.organisation),
        ("endpoint", &who.endpoint),
    ] {
        if let Some(value) = value {
            line.text(name, value.as_bytes());
        }
    }
    match event {
        Event::Refused { why, .. } => line.text("reason", why.name().as_bytes()),
        Event::LoginRefused { user, method, .. } => {
            line.text("claimed", user.as_bytes());
            line.text("method", method.as_bytes());
        }
        Event::LoggedIn { method, .. } => line.text("method", method.as_bytes()),
        Event::SessionClosed { duration, .. } => line.duration(*duration),
        Event::Operation(operation) => operated(&mut line, operation),
        Event::Transferred(file) => transferred(&mut line, file),
        Event::Arrived(file) => {
            line.text("path", file.path);
            line.number("size", file.size);
            if let Some(hash) = &file.sha256 {
                line.hex("sha256", hash);
            }
            if let Some(duration) = file.duration {
                line.duration(duration);
            }
        }
        Event::Penalised { offence, .. } => line.text("reason", offence.as_bytes()),
        Event::Disconnected { why, duration, .. } => {
            line.text("reason", why.as_bytes());
            line.duration(*duration);
        }
        _ => {}
    }
    Some(line.end())
}

fn operated(line: &mut Line, operation: &Operation<'_>) {
    line.text("operation", operation.kind.name().as_bytes());
    line.text("path", operation.path);
    if let Some(other) = operation.other {
        line.text("other", other);
    }
    if let Some(size) = operation.size {
        line.number("size", size);
    }
    line.result(operation.status);
    if !operation.text.is_empty() {
        line.text("reason", operation.text.as_bytes());
    }
    line.duration(operation.duration);
}

fn transferred(line: &mut Line, file: &Transferred<'_>) {
    line.text("path", file.path);
    line.number("read", file.read);
    line.number("written", file.written);
    let result = match (file.has_failed, file.is_closed) {
        (true, _) => "failed",
        (false, false) => "lost",
        (false, true) => "ok",
    };
    line.text("result", result.as_bytes());
    line.duration(file.duration);
}

#[cfg(test)]
mod tests;
