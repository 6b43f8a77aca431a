//! What a listener's ledger says, read where it is.

use std::path::Path;
use std::sync::Arc;

use ketch_listener::flow::item::FlowName;
use ketch_listener::store::{BATCH_MAX, Row, Store};

use super::{failed, named, read, wrong};
use crate::args::FlowsArg;
use crate::cmd::listen::path_hex;
use crate::failed::Failed;
use crate::output::Lines;

/// One line of JSON for each file that the ledger knows.
pub(super) async fn inspect(flows: &FlowsArg) -> Result<(), Failed> {
    let file = read(&flows.file.config)?;
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
    let store = open(path).await?;
    let done = store.compact().await;
    done.map_err(|error| failed("cannot compact the ledger", error))
}

async fn open(path: &Path) -> Result<Arc<dyn Store>, Failed> {
    let ledger = read(path)?.ledger().map_err(|faults| wrong(&faults))?;
    let ledger = ledger.ok_or_else(|| Failed::Usage("the file names no ledger".to_owned()))?;
    let opened = ketch_listener::daemon::open_ledger(&ledger).await;
    opened.map_err(|error| failed("cannot open the ledger", error))
}

fn json(row: &Row) -> String {
    let item = &row.item;
    let hex = |sum: [u8; 32]| {
        sum.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let deliveries = row.deliveries.iter().map(|delivery| {
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
