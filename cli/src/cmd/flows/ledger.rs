//! What a listener's ledger says, read where it is; moved as text, and repaired.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_client::Kind;
use ketch_listener::config::Ledger;
use ketch_listener::daemon::DaemonError;
use ketch_listener::flow::item::FlowName;
use ketch_listener::store::portable;
use ketch_listener::store::sqlite::{Lost, SqliteStore};
use ketch_listener::store::{AT_SOURCE, BATCH_MAX, Row, Store, StoreError};
use tokio::task::spawn_blocking;

use super::{failed, named, read, wrong};
use crate::args::{FlowsArg, LostRows};
use crate::cmd::listen::path_hex;
use crate::failed::Failed;
use crate::output::{Lines, escaped};

/// One line of JSON for each file that the ledger knows.
pub(super) async fn inspect(flows: &FlowsArg) -> Result<(), Failed> {
    let file = read(&flows.file.config)?;
    is_there(&flows.file.config)?;
    let store = open(&flows.file.config).await?;
    let mut out = Lines::new();
    for flow in named(&file, &flows.flows)? {
        let name = FlowName::new(&flow).map_err(|error| failed("no name", error))?;
        let mut after = None;
        loop {
            let rows = store.rows(&name, None, after.as_ref(), BATCH_MAX).await;
            let rows = rows.map_err(|error| failed("cannot read the ledger", error))?;
            for row in &rows {
                out.line(&json(row))?;
            }
            match rows.last() {
                Some(row) => after = Some(row.item.path.clone()),
                None => break,
            }
        }
    }
    out.flush()
}

/// Gives space back.
pub(super) async fn compact(path: &Path) -> Result<(), Failed> {
    is_there(path)?;
    let store = open(path).await?;
    let done = store.compact().await;
    done.map_err(|error| failed("cannot compact the ledger", error))
}

/// Writes flows to a new file, which is whole or not there.
pub(super) async fn export(flows: &FlowsArg, to: PathBuf) -> Result<(), Failed> {
    let file = read(&flows.file.config)?;
    let names = names(named(&file, &flows.flows)?)?;
    is_there(&flows.file.config)?;
    let store = open(&flows.file.config).await?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let part = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))
        .map_err(|error| failed("cannot write the export", error))?;
    let mut out = BufWriter::new(part);
    let mut lines = Lines::new();
    for name in names {
        let rows = portable::export(&*store, &name, &mut out).await;
        let rows = rows.map_err(|error| failed("cannot export the ledger", error))?;
        lines.line(&format!("{name}: exported {rows}"))?;
    }
    let part = out.into_inner().map_err(|error| error.into_error());
    part.and_then(|part| {
        part.as_file().sync_all()?;
        part.persist_noclobber(&to).map_err(|error| error.error)
    })
    .map_err(|error| failed("cannot write the export", error))?;
    lines.flush()
}

/// Takes what was exported.
pub(super) async fn import(path: &Path, from: PathBuf) -> Result<(), Failed> {
    let file = File::open(from).map_err(|error| failed("cannot read the export", error))?;
    let store = open(path).await?;
    let taken = portable::import_all(&*store, &mut BufReader::new(file)).await;
    let taken = taken.map_err(|error| failed("cannot import into the ledger", error))?;
    let mut lines = Lines::new();
    for (flow, rows) in taken {
        lines.line(&format!("{flow}: imported {rows}"))?;
    }
    lines.flush()
}

/// Takes what is whole of a damaged ledger into a new one.
pub(super) async fn repair(path: &Path, lost: LostRows) -> Result<(), Failed> {
    let file = read(path)?;
    let names = names(named(&file, &[])?)?;
    let Ledger::Sqlite(ledger) = ledger(path)? else {
        return Err(Failed::Usage(
            "the ledger is in PostgreSQL, where damaged rows are set aside by themselves"
                .to_owned(),
        ));
    };
    let lost = match lost {
        LostRows::Again => Lost::Again,
        LostRows::Baseline => Lost::Baseline,
    };
    let done = spawn_blocking(move || SqliteStore::repair(ledger, &names, lost));
    let done = done.await.map_err(|error| failed("cannot repair", error))?;
    let done = done.map_err(|error| failed("cannot repair the ledger", error))?;
    let mut lines = Lines::new();
    for flow in &done.flows {
        let missing = match flow.lost {
            Some(0) => "none is lost".to_owned(),
            Some(rows) => format!("{rows} are lost"),
            None => "nobody knows how many are lost".to_owned(),
        };
        lines.line(&format!(
            "{}: kept {} rows, {missing}",
            flow.name, flow.kept
        ))?;
    }
    lines.line(match lost {
        Lost::Baseline => "what is there at the next start is taken for delivered",
        _ => "files whose rows are lost are delivered when they are seen, also those that were before",
    })?;
    lines.line(&format!("the old ledger is {}", done.aside.display()))?;
    lines.flush()
}

fn names(names: Vec<String>) -> Result<Vec<FlowName>, Failed> {
    names
        .iter()
        .map(|name| FlowName::new(name).map_err(|error| failed("no name", error)))
        .collect()
}

fn ledger(path: &Path) -> Result<Ledger, Failed> {
    let ledger = read(path)?.ledger().map_err(|faults| wrong(&faults))?;
    ledger.ok_or_else(|| Failed::Usage("the file names no ledger".to_owned()))
}

async fn open(path: &Path) -> Result<Arc<dyn Store>, Failed> {
    let ledger = ledger(path)?;
    let opened = ketch_listener::daemon::open_ledger(&ledger).await;
    opened.map_err(|error| match error {
        DaemonError::Store(error @ StoreError::InUse { .. }) => failed(
            "cannot open the ledger; stop the listener, or ask it with `ketch listen status` and `dead`",
            error,
        ),
        error => failed("cannot open the ledger", error),
    })
}

/// Whoever only looks must not make a ledger.
fn is_there(path: &Path) -> Result<(), Failed> {
    let ledger = read(path)?.ledger().map_err(|faults| wrong(&faults))?;
    match ledger {
        Some(Ledger::Sqlite(ledger)) if !ledger.exists() => Err(Failed::Local {
            what: format!(
                "cannot read the ledger {}",
                escaped(ledger.as_os_str().as_encoded_bytes())
            ),
            kind: Kind::NotFound,
            source: "it is not there: the listener has not run yet".into(),
        }),
        _ => Ok(()),
    }
}

fn json(row: &Row) -> String {
    let item = &row.item;
    let hex = |sum: [u8; 32]| {
        sum.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let of_sinks = row.deliveries.iter().filter(|d| d.sink != AT_SOURCE);
    let deliveries = of_sinks.map(|delivery| {
        serde_json::json!({
            "sink": delivery.sink,
            "name": String::from_utf8_lossy(&delivery.placement.name),
            "length": delivery.placement.length,
            "done": delivery.done,
        })
    });
    let line = serde_json::json!({
        "flow": item.flow.as_str(),
        "path": String::from_utf8_lossy(item.path.as_bytes()),
        "path_hex": path_hex(&item.path),
        "state": row.state.word(),
        "kind": item.kind.word(),
        "id": item.id(),
        "size": item.facts.size,
        "modified": item.facts.mtime,
        "sha256": item.sha256.map(hex),
        "recorded": item.recorded,
        "attempts": row.attempts,
        "reason": row.reason,
        "deliveries": deliveries.collect::<Vec<_>>(),
        "next": row.next.is_some(),
    });
    line.to_string()
}
