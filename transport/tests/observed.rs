//! What an embedding program sees of a connection: spans, counters, algorithms; and what it never
//! sees, which is a secret.

#![expect(clippy::disallowed_methods, reason = "the tests of a driver own tasks")]

mod ends;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use ends::join;
use ketch_transport::driver::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the names of spans, and everything that is said.
#[derive(Clone, Default)]
struct Heard {
    spans: Arc<Mutex<Vec<&'static str>>>,
    said: Arc<Mutex<String>>,
}

struct Words<'a>(&'a mut String);

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Heard {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut spans = self.spans.lock().unwrap();
        spans.push(span.metadata().name());
        span.record(&mut Words(&mut self.said.lock().unwrap()));
        Id::from_u64(u64::try_from(spans.len()).unwrap())
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        values.record(&mut Words(&mut self.said.lock().unwrap()));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Words(&mut self.said.lock().unwrap()));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[tokio::test]
async fn a_connection_has_spans_and_counters_and_no_secret_is_told() {
    let heard = Heard::default();
    let guard = tracing::subscriber::set_default(heard.clone());
    let ends = join(100_000).await;
    let (mut channel, application) = stream();
    ends.client
        .open_session("echo", ends::WINDOW, application)
        .await
        .unwrap();
    channel.write_all(&[7; 50_000]).await.unwrap();
    let mut back = vec![0; 50_000];
    channel.read_exact(&mut back).await.unwrap();
    ends.client.rekey();
    channel.write_all(&[7; 50_000]).await.unwrap();
    channel.read_exact(&mut back).await.unwrap();

    for (handle, other) in [(&ends.client, &ends.server), (&ends.server, &ends.client)] {
        let (info, peer) = (handle.info(), other.info());
        let algorithms = info.algorithms.unwrap();
        assert_eq!(info.algorithms, peer.algorithms);
        assert_eq!(algorithms.kex.name(), "mlkem768x25519-sha256");
        assert!(algorithms.strict && info.peer_identification.starts_with("SSH-2.0-ketch"));
        assert_eq!(
            info.host_key_fingerprint,
            ends::host_key().public_key().fingerprint()
        );
        assert_eq!(info.traffic.rekeys, 1);
        assert!(info.traffic.bytes_in > 100_000 && info.traffic.bytes_out > 100_000);
        assert!(info.traffic.packets_in > 4 && info.traffic.packets_out > 4);
    }

    drop(guard);
    let spans = heard.spans.lock().unwrap();
    for name in ["connection", "kex", "auth", "channel"] {
        assert!(spans.contains(&name), "{name} in {spans:?}");
    }
    let said = heard.said.lock().unwrap();
    assert!(said.contains("mlkem768x25519-sha256") && !said.contains("secret"));
}
