//! A running daemon, as its API knows it.
#![expect(clippy::disallowed_methods, reason = "drivers own tasks")]

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::down::Waiting;
use super::keeper::{Kept, Standing};
use super::{DaemonError, Inner};
use crate::api::handle::Running;
use crate::api::{Answer, Api, ApiSettings, ApiToken, FlowControl, Flows, Refusal, Scope};
use crate::config;
use crate::flow::events::{Events, reason};

/// Begins to answer requests; ends when the handle says so.
pub(super) async fn offer(
    listen: &config::Api,
    daemon: Arc<Inner>,
) -> Result<(SocketAddr, AbortHandle), DaemonError> {
    let mut settings = ApiSettings::new(listen.listen);
    if let Some(token) = &listen.token {
        settings.tokens.push(ApiToken::new(token, Scope::Write)?);
        settings.danger_anywhere = true; // the file was checked: without a token it may not be
    }
    let api = Api::bind(settings, daemon).await?;
    let address = api.address();
    let task = tokio::spawn(api.serve()).abort_handle();
    tracing::info!(%address, "requests are answered");
    Ok((address, task))
}

impl Flows for Inner {
    fn list(&self) -> Vec<Arc<dyn FlowControl>> {
        let running = self.running();
        let control = |flow: &Kept| -> Arc<dyn FlowControl> {
            match &flow.standing {
                Standing::Up(handle) => {
                    let running = Running::new(handle.clone(), flow.setup.source.clone());
                    Arc::new(running.restarted(flow.restarts))
                }
                Standing::Down(down) => Arc::new(Waiting {
                    setup: Arc::clone(&flow.setup),
                    down: down.clone(),
                    restarts: flow.restarts,
                    store: Arc::clone(&self.store),
                }),
            }
        };
        running.flows.values().map(control).collect()
    }

    fn validate<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let source = self.running().sources.get(name).cloned();
            let source = source.ok_or_else(|| Refusal::NotFound {
                what: format!("source {name}"),
            })?;
            let checked = source.check().await;
            checked.map_err(|error| Refusal::Unavailable(reason(&error)))
        })
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let broken = self.running().flows.iter().find_map(|(name, flow)| {
                if let Some(why) = flow.down() {
                    return Some(format!("the flow {name} does not run: {why}"));
                }
                let (_, raised) = flow.raised();
                let ledger = raised.into_iter().find(|what| what.starts_with("ledger"));
                ledger.map(|what| format!("{what} cannot be used"))
            });
            broken.map_or(Ok(()), |what| Err(Refusal::Unavailable(what)))
        })
    }
}
