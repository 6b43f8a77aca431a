//! Counts of what happens on a server, in Prometheus' text format.
//!
//! [`Metrics`] is an [`Observer`]: each event adds to a few atomic counters, and nothing else. Labels
//! come from fixed sets, so that no peer can make the list grow. `docs/metrics.md` has all of them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::observer::{Event, NotAdmitted, Observer, OperationKind, Transferred};

/// Upper ends of the classes that durations of operations are counted in, in milliseconds.
const CLASSES_MS: [u64; 7] = [1, 5, 25, 100, 500, 2_500, 10_000];
/// Statuses that are told apart, by their numbers; the last is for all others.
const STATUSES: [&str; 10] = [
    "ok",
    "eof",
    "no-such-file",
    "permission-denied",
    "failure",
    "bad-message",
    "no-connection",
    "connection-lost",
    "unsupported",
    "other",
];
/// Methods that are told apart (RFC 4252, RFC 4256); the last is for all others.
const METHODS: [&str; 4] = ["publickey", "password", "keyboard-interactive", "other"];
/// Offences that are told apart; the last is for all others.
const OFFENCES: [&str; 5] = ["crash", "authfail", "noauth", "grace-exceeded", "other"];
/// What became of connections; the last is for all others that were refused.
const OUTCOMES: [&str; 8] = [
    "admitted",
    NotAdmitted::Penalty.name(),
    NotAdmitted::Connections.name(),
    NotAdmitted::HalfOpen.name(),
    NotAdmitted::EarlyDrop.name(),
    NotAdmitted::HalfOpenOfSource.name(),
    NotAdmitted::Descriptors.name(),
    "other",
];
/// Which way a file's bytes went.
const DIRECTIONS: [&str; 4] = ["none", "download", "upload", "both"];
/// How transfers end.
const ENDS: [&str; 3] = ["ok", "failed", "lost"];

/// Counters and gauges. They begin with 0 and live as long as this.
///
/// ```
/// use std::sync::Arc;
/// use ketch_server::{Metrics, Server};
///
/// let metrics = Arc::new(Metrics::default());
/// let builder = Server::builder().observer(metrics.clone());
/// assert!(metrics.render().contains("\nketch_sessions 0\n"));
/// ```
#[derive(Debug, Default)]
pub struct Metrics {
    came: [Count; OUTCOMES.len()],
    connections: Gauge,
    logins: [Count; METHODS.len()],
    login_failures: [Count; METHODS.len()],
    sessions: Gauge,
    operations: [[Count; STATUSES.len()]; OperationKind::ALL.len()],
    classes: [Count; CLASSES_MS.len() + 1],
    operation_micros: Count,
    read: Count,
    written: Count,
    transfers: [[Count; ENDS.len()]; DIRECTIONS.len()],
    handles: Gauge,
    arrivals: Count,
    arrived: Count,
    penalties: [Count; OFFENCES.len()],
    panics: Count,
}

/// Only ever grows.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down: how often each.
#[derive(Debug, Default)]
struct Gauge {
    ups: Count,
    downs: Count,
}

impl Gauge {
    fn get(&self) -> u64 {
        // In this order it is never below nothing by the time between the two.
        let downs = self.downs.get();
        self.ups.get().saturating_sub(downs)
    }
}

/// The counter of `name`, which the last one is for if there is none.
fn of<'a>(counts: &'a [Count], names: &[&str], name: &str) -> Option<&'a Count> {
    let place = names.iter().position(|&known| known == name);
    place.and_then(|place| counts.get(place)).or(counts.last())
}

fn add(count: Option<&Count>, more: u64) {
    if let Some(count) = count {
        count.add(more);
    }
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Connected { .. } => {
                add(self.came.first(), 1);
                self.connections.ups.add(1);
            }
            Event::Refused { why, .. } => add(of(&self.came, &OUTCOMES, why.name()), 1),
            Event::LoginRefused { method, .. } => {
                add(of(&self.login_failures, &METHODS, method), 1);
            }
            Event::LoggedIn { method, .. } => add(of(&self.logins, &METHODS, method), 1),
            Event::SessionOpened { .. } => self.sessions.ups.add(1),
            Event::SessionClosed { .. } => self.sessions.downs.add(1),
            Event::Operation(done) => {
                let kind = OperationKind::ALL
                    .iter()
                    .position(|&kind| kind == done.kind);
                let of_kind = kind.and_then(|kind| self.operations.get(kind));
                let status = usize::try_from(done.status.0).unwrap_or(usize::MAX);
                add(
                    of_kind.and_then(|counts| counts.get(status).or(counts.last())),
                    1,
                );
                let is_opened = matches!(
                    done.kind,
                    OperationKind::OpenRead
                        | OperationKind::OpenWrite
                        | OperationKind::OpenDirectory
                );
                if is_opened && done.status == crate::StatusCode::OK {
                    self.handles.ups.add(1);
                }
                if done.kind == OperationKind::List {
                    // It took as long as the client liked to have it open.
                    self.handles.downs.add(1);
                } else {
                    self.took(done.duration);
                }
            }
            Event::Moved { read, written, .. } => {
                self.read.add(*read);
                self.written.add(*written);
            }
            Event::Transferred(file) => {
                self.handles.downs.add(1);
                self.transferred(file);
            }
            Event::Arrived(file) => {
                self.arrivals.add(1);
                self.arrived.add(file.size);
            }
            Event::Penalised { offence, .. } => add(of(&self.penalties, &OFFENCES, offence), 1),
            Event::Panicked { .. } => self.panics.add(1),
            Event::Disconnected { .. } => self.connections.downs.add(1),
        }
    }
}

impl Metrics {
    fn took(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let class = CLASSES_MS.iter().position(|&end| ms < end);
        add(self.classes.get(class.unwrap_or(CLASSES_MS.len())), 1);
        self.operation_micros
            .add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn transferred(&self, file: &Transferred<'_>) {
        let direction = usize::from(file.read > 0) | usize::from(file.written > 0) << 1;
        let end = match (file.has_failed, file.is_closed) {
            (true, _) => 1,
            (false, true) => 0,
            (false, false) => 2,
        };
        let of_direction = self.transfers.get(direction);
        add(of_direction.and_then(|counts| counts.get(end)), 1);
    }

    /// All of them, in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = Text(String::with_capacity(8 * 1024));
        out.family(
            "ketch_connections_total",
            "counter",
            "Connections that came, by what became of them.",
        );
        for (outcome, count) in OUTCOMES.iter().zip(&self.came) {
            out.labelled(
                "ketch_connections_total",
                &[("outcome", outcome)],
                count.get(),
            );
        }
        out.one(
            "ketch_connections",
            "gauge",
            "Connections that are there.",
            self.connections.get(),
        );
        out.family(
            "ketch_logins_total",
            "counter",
            "Logins, by their last method.",
        );
        for (method, count) in METHODS.iter().zip(&self.logins) {
            out.labelled("ketch_logins_total", &[("method", method)], count.get());
        }
        out.family(
            "ketch_login_failures_total",
            "counter",
            "Attempts to log in that were wrong.",
        );
        for (method, count) in METHODS.iter().zip(&self.login_failures) {
            out.labelled(
                "ketch_login_failures_total",
                &[("method", method)],
                count.get(),
            );
        }
        out.one(
            "ketch_sessions_total",
            "counter",
            "SFTP sessions that were opened.",
            self.sessions.ups.get(),
        );
        out.one(
            "ketch_sessions",
            "gauge",
            "SFTP sessions that are there.",
            self.sessions.get(),
        );
        self.render_operations(&mut out);
        out.one(
            "ketch_read_bytes_total",
            "counter",
            "Bytes of files that were sent.",
            self.read.get(),
        );
        out.one(
            "ketch_written_bytes_total",
            "counter",
            "Bytes that were received and written to files.",
            self.written.get(),
        );
        out.family(
            "ketch_transfers_total",
            "counter",
            "Files that were open and are not any more.",
        );
        for (direction, counts) in DIRECTIONS.iter().zip(&self.transfers) {
            for (end, count) in ENDS.iter().zip(counts) {
                let labels = [("direction", *direction), ("result", *end)];
                out.labelled("ketch_transfers_total", &labels, count.get());
            }
        }
        out.one(
            "ketch_open_handles",
            "gauge",
            "Files and directories that are open.",
            self.handles.get(),
        );
        out.one(
            "ketch_arrivals_total",
            "counter",
            "Files that arrived.",
            self.arrivals.get(),
        );
        out.one(
            "ketch_arrived_bytes_total",
            "counter",
            "Bytes in them.",
            self.arrived.get(),
        );
        out.family(
            "ketch_penalties_total",
            "counter",
            "Sources that were begun to be kept out.",
        );
        for (offence, count) in OFFENCES.iter().zip(&self.penalties) {
            out.labelled(
                "ketch_penalties_total",
                &[("offence", offence)],
                count.get(),
            );
        }
        out.one(
            "ketch_panics_total",
            "counter",
            "Panics on behalf of clients.",
            self.panics.get(),
        );
        out.0
    }

    /// Statuses that did not come are left out: they are many.
    fn render_operations(&self, out: &mut Text) {
        out.family(
            "ketch_operations_total",
            "counter",
            "Requests that change the tree, open or list, by answer.",
        );
        for (kind, counts) in OperationKind::ALL.iter().zip(&self.operations) {
            for (status, count) in STATUSES.iter().zip(counts) {
                let count = count.get();
                if count > 0 || *status == "ok" {
                    let labels = [("kind", kind.name()), ("status", *status)];
                    out.labelled("ketch_operations_total", &labels, count);
                }
            }
        }
        let name = "ketch_operation_seconds";
        out.family(name, "histogram", "From a request to its answer.");
        let mut sum = 0;
        for (end, count) in CLASSES_MS.iter().zip(&self.classes) {
            sum += count.get();
            let end = seconds(end * 1000);
            out.labelled("ketch_operation_seconds_bucket", &[("le", &end)], sum);
        }
        sum += self.classes.last().map_or(0, Count::get);
        out.labelled("ketch_operation_seconds_bucket", &[("le", "+Inf")], sum);
        let total = seconds(self.operation_micros.get());
        let _ = writeln!(out.0, "{name}_sum {total}\n{name}_count {sum}");
    }
}

/// Microseconds as seconds.
fn seconds(micros: u64) -> String {
    let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
    match format!("{whole}.{rest:06}").trim_end_matches('0') {
        text if text.ends_with('.') => whole.to_string(),
        text => text.to_owned(),
    }
}

/// Text in Prometheus' format. Names, labels and help are ours and need no escapes.
pub(crate) struct Text(pub(crate) String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A family of one.
    pub(crate) fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.0, "{name}{{");
        for (place, (label, text)) in labels.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let _ = write!(self.0, "{comma}{label}=\"{text}\"");
        }
        let _ = writeln!(self.0, "}} {value}");
    }
}

#[cfg(test)]
mod tests;
