//! Whether what a file names can be reached: sources, sinks and the ledger, all of them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ketch_client::hostkey::HostKeyError;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connect::chain;
use super::{Origin, Setup};
use crate::local::Local;
use crate::source::Source;

/// How long one of them may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// What came of one check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checked {
    /// What was checked: `source bank`, `sink orders.disk`.
    pub what: String,
    /// Why it cannot be used, in one line; `None` if it can.
    pub fault: Option<String>,
}

impl Setup {
    /// Connects to all sources and sinks, side by side, and tells of each whether it can be used, in
    /// the order of the file. Nothing is left behind.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn check(&self) -> Vec<Checked> {
        let mut checks = JoinSet::new();
        let mut whats = Vec::new();
        // Of a flow what it watches is looked at, which may lie below its source's directory.
        let sources = self
            .sources
            .iter()
            .map(|source| (format!("source {}", source.name), &source.origin));
        let below = self
            .flows
            .iter()
            .filter(|flow| !flow.path.as_bytes().is_empty());
        let below = below.map(|flow| {
            (
                format!("source of flow {}", flow.settings.name),
                &flow.origin,
            )
        });
        for (what, origin) in sources.chain(below) {
            let source: Arc<dyn Source> = match origin {
                Origin::Server { remote, .. } => Arc::new(remote.clone()),
                Origin::Here(path) => Arc::new(Local::new(path)),
            };
            let n = whats.len();
            whats.push(what);
            checks.spawn(async move {
                let checked = timeout(CHECK_TIMEOUT, source.check()).await;
                (
                    n,
                    checked.map(|result| result.map_err(|error| told(&error))),
                )
            });
        }
        for flow in &self.flows {
            for sink in &flow.sinks {
                let n = whats.len();
                whats.push(format!("sink {}.{}", flow.settings.name, sink.name()));
                let sink = Arc::clone(sink);
                checks.spawn(async move {
                    let checked = timeout(CHECK_TIMEOUT, sink.check()).await;
                    (
                        n,
                        checked.map(|result| result.map_err(|error| told(&error))),
                    )
                });
            }
        }
        let mut done: Vec<Checked> = whats
            .into_iter()
            .map(|what| Checked {
                what,
                fault: Some("the check failed half-way".to_owned()),
            })
            .collect();
        while let Some(checked) = checks.join_next().await {
            let Ok((n, result)) = checked else { continue };
            if let Some(of) = done.get_mut(n) {
                of.fault = match result {
                    Ok(Ok(())) => None,
                    Ok(Err(why)) => Some(why),
                    Err(_) => Some(format!("no answer in {} s", CHECK_TIMEOUT.as_secs())),
                };
            }
        }
        done
    }
}

/// Why it cannot be used, and how the file says what is missing.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = chain(error);
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(HostKeyError::Unknown { .. }) = error.downcast_ref() {
            text.push_str(" (in this file: `host_key`, or `accept_new_host` with `known_hosts`)");
        }
        cause = error.source();
    }
    text
}
