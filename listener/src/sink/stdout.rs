//! Events as lines on standard output, for pipelines: one JSON object a line, each whole.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use ketch_client::Kind;

use super::event::{default_source, encode};
use super::{Answer, Parcel, Sink, SinkError, Takes};
use crate::flow::item::Item;
use crate::store::Placement;

/// How events are written to standard output.
#[derive(Clone, Debug)]
pub struct StdoutSettings {
    /// The sink's name.
    pub name: String,
    /// The `source` of events. Default: `/ketch/FLOW`.
    pub source: Option<String>,
}

impl StdoutSettings {
    /// The defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            source: None,
        }
    }
}

/// A sink that writes events to standard output, or to another stream.
///
/// An event counts as delivered when its line was flushed. After a crash it may be there twice, with
/// the same id.
pub struct StdoutSink {
    settings: StdoutSettings,
    /// Lines of several workers do not mix: who holds it writes a whole one.
    to: Arc<Mutex<dyn Write + Send>>,
}

impl fmt::Debug for StdoutSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdoutSink")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl StdoutSink {
    /// Writes to standard output.
    #[must_use]
    pub fn new(settings: StdoutSettings) -> Self {
        Self::to(settings, io::stdout())
    }

    /// Writes to `stream`.
    #[must_use]
    pub fn to(settings: StdoutSettings, stream: impl Write + Send + 'static) -> Self {
        Self {
            settings,
            to: Arc::new(Mutex::new(stream)),
        }
    }
}

impl Sink for StdoutSink {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn takes(&self) -> Takes {
        Takes::EVENTS
    }

    fn place<'a>(&'a self, _: &'a Item, _: Option<&'a Placement>) -> Answer<'a, Placement> {
        Box::pin(async { Ok(Placement::default()) })
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let by_flow = || default_source(parcel.item.flow.as_str());
            let source = self.settings.source.clone().unwrap_or_else(by_flow);
            let mut line = encode(&source, &parcel);
            line.push(b'\n');
            let to = Arc::clone(&self.to);
            // Whoever reads it may be slow.
            let written = tokio::task::spawn_blocking(move || {
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                to.write_all(&line).and_then(|()| to.flush())
            });
            let written = written
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)));
            written.map_err(|error| SinkError::Failed {
                what: "cannot write to standard output".to_owned(),
                kind: Kind::of_local(&error),
                source: Box::new(error),
            })
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::trial::{self, item};

    /// What was flushed, and what was not yet.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<(Vec<u8>, Vec<u8>)>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut pipe = self.0.lock().expect("alive");
            let some = bytes.len().div_ceil(2);
            pipe.1.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            let mut pipe = self.0.lock().expect("alive");
            let waiting = std::mem::take(&mut pipe.1);
            pipe.0.extend(waiting);
            Ok(())
        }
    }

    #[tokio::test]
    async fn each_event_is_one_flushed_line() {
        let pipe = Pipe::default();
        let sink = StdoutSink::to(StdoutSettings::new("out"), pipe.clone());
        let items: Vec<_> = (0..20).map(|n| item(n, b"a\nb\xff")).collect();
        let written = items.iter().map(|item| {
            let sink = &sink;
            async move { trial::deliver(sink, item, None).await.map(|_| ()) }
        });
        trial::all(written).await.unwrap();
        let pipe = pipe.0.lock().unwrap();
        assert!(pipe.1.is_empty());
        let lines: Vec<&[u8]> = pipe.0.split(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 21);
        for line in &lines[..20] {
            let event: serde_json::Value = serde_json::from_slice(line).unwrap();
            assert_eq!(event["data"]["path_hex"], "610a62ff");
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_closed_pipe_is_told() {
        let sink = StdoutSink::to(StdoutSettings::new("out"), Closed);
        let error = trial::deliver(&sink, &item(1, b"a"), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Local);
    }
}
