//! Numbers in Prometheus' text format.
//!
//! Labels are names from the configuration, so nobody outside can make the list grow.

use std::fmt::{self, Write as _};

use super::{FlowControl, Flows};

/// One metric and its samples: labels in braces, or nothing, and the value.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<(String, String)>,
}

/// All numbers of a daemon.
pub(super) async fn render(flows: &dyn Flows) -> String {
    let counter = |name, help| Family {
        name,
        kind: "counter",
        help,
        samples: Vec::new(),
    };
    let gauge = |name, help| Family {
        name,
        kind: "gauge",
        help,
        samples: Vec::new(),
    };
    let mut files = gauge(
        "ketch_listener_files",
        "Files that the ledger knows, by state.",
    );
    let mut readable = gauge(
        "ketch_listener_ledger_readable",
        "Whether the ledger could be asked.",
    );
    let mut paused = gauge("ketch_listener_paused", "Whether the flow is paused.");
    let mut raised = gauge(
        "ketch_listener_raised",
        "What cannot be reached, read or written: sources, sinks, directories.",
    );
    let mut up = gauge("ketch_listener_up", "Whether the flow runs, all of it.");
    let mut restarts = counter(
        "ketch_listener_restarts_total",
        "Starts of the flow anew, by itself: it could not be started, or half of it ended by a fault.",
    );
    let mut oldest = gauge(
        "ketch_listener_oldest_pending_seconds",
        "For how long the oldest file that is to be delivered has been known; 0 if none is.",
    );
    let mut items = counter(
        "ketch_listener_items_total",
        "Items by what became of them.",
    );
    let mut recorded = counter("ketch_listener_recorded_total", "Items that scans found.");
    let mut failed = counter(
        "ketch_listener_failed_attempts_total",
        "Attempts that failed.",
    );
    let mut bytes = counter("ketch_listener_fetched_bytes_total", "Bytes fetched.");
    let mut scans = counter("ketch_listener_scans_total", "Scans of the source.");
    let mut seconds = counter("ketch_listener_scan_seconds_total", "Time in scans.");
    let mut entries = counter(
        "ketch_listener_scan_entries_total",
        "Names that scans listed.",
    );
    let mut sinks = counter(
        "ketch_listener_sink_attempts_total",
        "Deliveries into a sink.",
    );
    for flow in flows.list() {
        let flow: &dyn FlowControl = &*flow;
        let label = format!("flow=\"{}\"", escaped(flow.name()));
        let with = |more: &str, value: &str| format!("{{{label},{more}=\"{}\"}}", escaped(value));
        let alone = format!("{{{label}}}");
        let counts = flow.counts().await;
        readable.add(&alone, u64::from(counts.is_ok()));
        if let Ok(counts) = counts {
            files.add(&with("state", "known"), counts.known);
            files.add(&with("state", "pending"), counts.pending);
            files.add(&with("state", "claimed"), counts.claimed);
            files.add(&with("state", "done"), counts.done);
            files.add(&with("state", "dead"), counts.dead);
        }
        paused.add(&alone, u64::from(flow.is_paused()));
        raised.add(&alone, flow.raised().len());
        if let Ok(pending) = flow.oldest_pending().await {
            oldest.add(&alone, pending.unwrap_or_default().as_secs_f64());
        }
        up.add(&alone, u64::from(flow.down().is_none()));
        restarts.add(&alone, flow.restarts());
        let totals = flow.totals();
        items.add(&with("outcome", "delivered"), totals.delivered);
        items.add(&with("outcome", "superseded"), totals.superseded);
        items.add(&with("outcome", "dead"), totals.dead);
        recorded.add(&alone, totals.recorded);
        failed.add(&alone, totals.failed);
        bytes.add(&alone, totals.bytes);
        scans.add(&alone, totals.scans);
        seconds.add(&alone, totals.scan_time.as_secs_f64());
        entries.add(&alone, totals.entries);
        for sink in totals.sinks {
            let label = format!("{label},sink=\"{}\"", escaped(&sink.name));
            let good = sink.attempts.saturating_sub(sink.failures);
            sinks.add(&format!("{{{label},outcome=\"ok\"}}"), good);
            sinks.add(&format!("{{{label},outcome=\"failed\"}}"), sink.failures);
        }
    }
    let families = [
        files, readable, oldest, up, restarts, paused, raised, items, recorded, failed, bytes,
        scans, seconds, entries, sinks,
    ];
    families.iter().map(Family::to_string).collect()
}

impl Family {
    fn add(&mut self, labels: &str, value: impl ToString) {
        self.samples.push((labels.to_owned(), value.to_string()));
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            kind,
            help,
            samples,
        } = self;
        writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (labels, value) in samples {
            writeln!(f, "{name}{labels} {value}")?;
        }
        Ok(())
    }
}

/// A label's value (exposition format 0.0.4).
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '\\' | '"' => {
                let _never_fails = write!(escaped, "\\{letter}");
            }
            '\n' => escaped.push_str("\\n"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
