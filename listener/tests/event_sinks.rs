//! Sinks of events against real receivers: an HTTP server in Python, nats-server, PostgreSQL.
#![cfg(all(
    target_os = "linux",
    feature = "webhook",
    feature = "nats",
    feature = "postgres"
))]

mod peers;

#[path = "event_sinks/nats.rs"]
mod nats;
#[path = "event_sinks/postgres.rs"]
mod postgres;
#[path = "event_sinks/webhook.rs"]
mod webhook;

use ketch_client::{FileType, RemotePath};
use ketch_listener::flow::item::{FlowName, Item, ItemKind};
use ketch_listener::sink::{Parcel, Sink, SinkError};
use ketch_listener::snapshot::Facts;
use ketch_listener::store::Placement;

/// The `sequence`-th item of a flow, about the file at `path`.
fn item(sequence: u64, path: &[u8]) -> Item {
    Item {
        flow: FlowName::new("orders").expect("a name"),
        sequence,
        kind: ItemKind::Created,
        path: RemotePath::from(path),
        facts: Facts {
            kind: FileType::Regular,
            size: Some(12),
            mtime: Some(1_795_282_542),
        },
        sha256: Some([0xab; 32]),
        recorded: 1_795_282_550_123,
    }
}

/// Hands `item` over as the engine does.
async fn deliver(sink: &impl Sink, item: &Item) -> Result<(), SinkError> {
    let placement = sink.place(item, None).await?;
    assert_eq!(placement, Placement::default());
    let parcel = Parcel {
        item,
        placement: &placement,
        content: None,
        again: false,
        earlier: &[],
        fence: &ketch_listener::sink::fence::Fence::open(),
    };
    sink.deliver(parcel).await
}
