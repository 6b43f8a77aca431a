//! A flow that does not run, as the API shows it: the ledger answers for it, and what is asked of the
//! flow itself waits until it runs, or is refused with the reason.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ketch_client::RemotePath;

use super::keeper::{Down, FLOW};
use crate::api::types::{Applied, FetchRequest, Fetched};
use crate::api::{Answer, FlowControl, Refusal, SinkTotals, Totals};
use crate::config::FlowSetup;
use crate::detect::Pace;
use crate::flow::events::reason;
use crate::flow::handle::{PAUSED, since};
use crate::flow::item::FlowName;
use crate::store::{BATCH_MAX, Counts, Row, State, Store, StoreError};

/// A flow of the file that could not be started.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) setup: Arc<FlowSetup>,
    pub(super) down: Down,
    pub(super) restarts: u64,
    pub(super) store: Arc<dyn Store>,
}

impl Waiting {
    fn flow(&self) -> &FlowName {
        &self.setup.settings.name
    }

    fn refused<T>(&self) -> Answer<'_, T> {
        let why = format!("the flow does not run: {}", self.down.reason);
        Box::pin(async move { Err(Refusal::Unavailable(why)) })
    }
}

impl FlowControl for Waiting {
    fn name(&self) -> &str {
        self.flow().as_str()
    }

    fn source(&self) -> &str {
        &self.setup.source
    }

    fn sinks(&self) -> Vec<String> {
        let sinks = self.setup.sinks.iter();
        sinks.map(|sink| sink.name().to_owned()).collect()
    }

    fn pace(&self) -> Pace {
        self.down.wishes.pace()
    }

    fn set_pace(&self, pace: Pace) {
        self.down.wishes.set_pace(pace);
    }

    fn schedule(&self) -> Option<String> {
        let schedule = self.setup.detect.schedule.as_ref();
        schedule.map(ToString::to_string)
    }

    fn is_paused(&self) -> bool {
        self.down.wishes.paused.load(Relaxed)
    }

    fn set_paused(&self, paused: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            // The flow reads it when it starts.
            let value = paused.then_some("yes");
            let kept = self.store.set_value(self.flow(), PAUSED, value).await;
            kept.map_err(refusal)?;
            self.down.wishes.paused.store(paused, Relaxed);
            Ok(())
        })
    }

    fn raised(&self) -> Vec<String> {
        vec![FLOW.to_owned()]
    }

    fn down(&self) -> Option<String> {
        Some(self.down.reason.clone())
    }

    fn restarts(&self) -> u64 {
        self.restarts
    }

    fn counts(&self) -> Answer<'_, Counts> {
        Box::pin(async { self.store.counts(self.flow()).await.map_err(refusal) })
    }

    fn oldest_pending(&self) -> Answer<'_, Option<Duration>> {
        Box::pin(async {
            let oldest = self.store.oldest(self.flow()).await;
            Ok(oldest.map_err(refusal)?.map(since))
        })
    }

    fn totals(&self) -> Totals {
        let sinks = self.sinks().into_iter().map(|name| SinkTotals {
            name,
            ..SinkTotals::default()
        });
        Totals {
            sinks: sinks.collect(),
            ..Totals::default()
        }
    }

    fn apply(&self, _: Option<Duration>) -> Answer<'_, Applied> {
        self.refused()
    }

    fn file<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, Option<Row>> {
        Box::pin(async move {
            let paths = std::slice::from_ref(path);
            let rows = self.store.lookup(self.flow(), paths).await;
            Ok(rows.map_err(refusal)?.into_iter().next().flatten())
        })
    }

    fn files<'a>(
        &'a self,
        state: Option<State>,
        after: Option<&'a RemotePath>,
        max: usize,
    ) -> Answer<'a, Vec<Row>> {
        Box::pin(async move {
            let max = max.min(BATCH_MAX);
            let rows = self.store.rows(self.flow(), state, after, max).await;
            rows.map_err(refusal)
        })
    }

    fn replay<'a>(&'a self, path: Option<&'a RemotePath>) -> Answer<'a, u64> {
        Box::pin(async move {
            let replayed = self.store.replay(self.flow(), path).await;
            replayed.map_err(refusal)
        })
    }

    fn fetch<'a>(&'a self, _: &'a FetchRequest, _: Duration) -> Answer<'a, Fetched> {
        self.refused()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as an argument of map_err")]
fn refusal(error: StoreError) -> Refusal {
    Refusal::Unavailable(reason(&error))
}
