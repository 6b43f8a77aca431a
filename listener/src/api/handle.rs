//! Running flows, as the API knows them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ketch_client::{Pattern, RemotePath};
use tokio::time::Instant;

use super::types::{Applied, FailedFile, FetchRequest, Fetched, Time};
use super::{Answer, FlowControl, Refusal, SinkTotals, Totals};
use crate::detect::Pace;
use crate::flow::handle::{FAULT, FlowError, FlowHandle, Query};
use crate::store::{Counts, Row, State};

/// A running flow, with the name of its source.
#[derive(Clone, Debug)]
pub struct Running {
    handle: FlowHandle,
    source: String,
    restarts: u64,
}

impl Running {
    /// The flow behind `handle`, which takes from the source called `source`.
    #[must_use]
    pub const fn new(handle: FlowHandle, source: String) -> Self {
        Self {
            handle,
            source,
            restarts: 0,
        }
    }

    /// The same flow, which was started anew so often.
    #[must_use]
    pub const fn restarted(mut self, restarts: u64) -> Self {
        self.restarts = restarts;
        self
    }
}

impl FlowControl for Running {
    fn name(&self) -> &str {
        self.handle.name().as_str()
    }

    fn source(&self) -> &str {
        &self.source
    }

    fn sinks(&self) -> Vec<String> {
        self.handle
            .sinks()
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    fn pace(&self) -> Pace {
        self.handle.pace()
    }

    fn set_pace(&self, pace: Pace) {
        self.handle.set_pace(pace);
    }

    fn schedule(&self) -> Option<String> {
        self.handle.schedule().map(ToString::to_string)
    }

    fn next_look(&self) -> Option<u64> {
        self.handle.next_look()
    }

    fn settling(&self) -> u64 {
        u64::try_from(self.handle.settling()).unwrap_or(u64::MAX)
    }

    fn is_paused(&self) -> bool {
        self.handle.is_paused()
    }

    fn set_paused(&self, paused: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            let done = if paused {
                self.handle.pause().await
            } else {
                self.handle.resume().await
            };
            done.map_err(refusal)
        })
    }

    fn raised(&self) -> Vec<String> {
        self.handle.raised()
    }

    fn down(&self) -> Option<String> {
        let fault = self.handle.has_fault();
        fault.then(|| FAULT.to_owned())
    }

    fn restarts(&self) -> u64 {
        self.restarts
    }

    fn counts(&self) -> Answer<'_, Counts> {
        Box::pin(async { self.handle.counts().await.map_err(refusal) })
    }

    fn oldest_pending(&self) -> Answer<'_, Option<Duration>> {
        Box::pin(async { self.handle.oldest_pending().await.map_err(refusal) })
    }

    fn totals(&self) -> Totals {
        let counters = self.handle.counters();
        Totals {
            delivered: counters.delivered.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            dead: counters.dead.load(Relaxed),
            superseded: counters.superseded.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            scans: counters.scans.load(Relaxed),
            scan_time: Duration::from_micros(counters.scan_micros.load(Relaxed)),
            entries: counters.entries.load(Relaxed),
            recorded: counters.recorded.load(Relaxed),
            sinks: self
                .handle
                .sinks()
                .map(|(name, counters)| SinkTotals {
                    name: name.to_owned(),
                    // In this order there are never more failures than attempts.
                    failures: counters.failures.load(Relaxed),
                    attempts: counters.attempts.load(Relaxed),
                })
                .collect(),
        }
    }

    fn apply(&self, wait: Option<Duration>) -> Answer<'_, Applied> {
        Box::pin(async move {
            if self.handle.is_paused() {
                return Err(Refusal::Unavailable("the flow is paused".to_owned()));
            }
            let before = self.totals();
            let now = Instant::now();
            // Without a wait it ends right after the detector was told.
            let until = wait.map_or(now, |wait| now + wait);
            let left = match self.handle.apply_now(until).await {
                Ok(left) => Some(left),
                Err(FlowError::NotScanned) if wait.is_none() => None,
                Err(error) => return Err(refusal(error)),
            };
            let counts = self.handle.counts().await.map_err(refusal)?;
            let after = self.totals();
            Ok(Applied {
                complete: left == Some(0),
                left: left.unwrap_or(counts.pending + counts.claimed),
                delivered: after.delivered.saturating_sub(before.delivered),
                dead: after.dead.saturating_sub(before.dead),
                settling: self.settling(),
            })
        })
    }

    fn file<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, Option<Row>> {
        Box::pin(async { self.handle.file(path).await.map_err(refusal) })
    }

    fn files<'a>(
        &'a self,
        state: Option<State>,
        after: Option<&'a RemotePath>,
        max: usize,
    ) -> Answer<'a, Vec<Row>> {
        Box::pin(async move { self.handle.files(state, after, max).await.map_err(refusal) })
    }

    fn replay<'a>(&'a self, path: Option<&'a RemotePath>) -> Answer<'a, u64> {
        Box::pin(async move { self.handle.replay(path).await.map_err(refusal) })
    }

    fn fetch<'a>(&'a self, request: &'a FetchRequest, wait: Duration) -> Answer<'a, Fetched> {
        Box::pin(async move {
            let query = query(request)?;
            if self.handle.is_paused() {
                return Err(Refusal::Unavailable("the flow is paused".to_owned()));
            }
            let fetched = self.handle.fetch(&query, Instant::now() + wait).await;
            let fetched = fetched.map_err(refusal)?;
            Ok(Fetched {
                complete: fetched.failed.is_empty() && fetched.waiting.is_empty(),
                copied: fetched.copied.iter().map(Into::into).collect(),
                failed: fetched
                    .failed
                    .into_iter()
                    .map(|(path, reason)| FailedFile {
                        path: (&path).into(),
                        reason,
                    })
                    .collect(),
                waiting: fetched.waiting.iter().map(Into::into).collect(),
            })
        })
    }
}

/// What a request asks a flow for. Servers tell whole seconds, so a file that changed within the
/// second of `modified_after` counts as changed then.
fn query(request: &FetchRequest) -> Result<Query, Refusal> {
    let FetchRequest {
        include,
        modified_after,
        modified_before,
        again,
        wait_seconds: _,
    } = request;
    let names = include.iter().map(|pattern| {
        Pattern::new(pattern).map_err(|error| Refusal::Bad(format!("{pattern:?}: {error}")))
    });
    // SFTP v3's times end in 2106; what lies outside of them is before or after all files.
    let seconds = |Time(time): &Time| u32::try_from(time.as_second().max(0)).unwrap_or(u32::MAX);
    Ok(Query {
        names: names.collect::<Result<_, _>>()?,
        modified_from: modified_after.as_ref().map(seconds),
        modified_before: modified_before.as_ref().map(seconds),
        again: *again,
    })
}

fn refusal(error: FlowError) -> Refusal {
    match error {
        FlowError::NotScanned => Refusal::TimedOut(error.to_string()),
        FlowError::TooMany => Refusal::Bad(error.to_string()),
        error => Refusal::Unavailable(crate::flow::events::reason(&error)),
    }
}
