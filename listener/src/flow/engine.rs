//! The workers of a flow: claims what is due, as much as may be worked on at a time, renews what
//! takes long, and tells the ledger how each ended.
//!
//! One task, and one more for each item under way. Nothing is kept here that the ledger does not
//! know: when this stops, whoever claims next goes on.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{sleep, sleep_until};

use super::events::{FlowEventKind, reason};
use super::item::Item;
use super::shared::{Shared, now};
use super::work::{Ended, outage_pause, put_aside, work};
use crate::store::{Claim, ClaimAsk, ClaimId, End};

/// How long until the ledger is asked again if there was nothing to claim: retries become due, and
/// other processes record what is found.
const IDLE: Duration = Duration::from_secs(1);

/// Works until `stop` says so, then lets what is under way end for as long as the settings say.
pub(super) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut engine = Engine {
        held_until: None,
        outages: 0,
        jobs: JoinSet::new(),
        under_way: HashMap::new(),
        chance: RandomState::new(),
        renewed: now(),
        shared,
    };
    while !*stop.borrow() {
        let found = engine.fill().await;
        let idle = if found { Duration::ZERO } else { IDLE };
        let (has_room, is_busy) = (engine.has_room(), !engine.jobs.is_empty());
        let renew_at = engine.renew_at();
        let shared = Arc::clone(&engine.shared);
        tokio::select! {
            _ = stop.changed() => {}
            Some(ended) = engine.jobs.join_next_with_id(), if is_busy => {
                engine.joined(ended);
            }
            () = shared.work.notified(), if has_room => {}
            () = sleep(idle), if has_room => {}
            () = sleep_until(renew_at.into()), if is_busy => {
                engine.renew().await;
            }
        }
    }
    engine.drain().await;
}

struct Engine {
    shared: Arc<Shared>,
    jobs: JoinSet<Option<(String, String)>>,
    under_way: HashMap<Id, (ClaimId, AbortHandle)>,
    /// Nothing is claimed before: something fails that every item needs.
    held_until: Option<Instant>,
    outages: u32,
    renewed: Instant,
    chance: RandomState,
}

type Joined = Result<(Id, Option<(String, String)>), tokio::task::JoinError>;

impl Engine {
    fn has_room(&self) -> bool {
        self.jobs.len() < self.shared.settings.concurrency.max(1)
    }

    /// Claims as much as there is room for; whether all of the room was used.
    async fn fill(&mut self) -> bool {
        if self.shared.paused.load(Relaxed) || !self.has_room() {
            return false;
        }
        if let Some(until) = self.held_until {
            if now() < until {
                return false;
            }
            self.held_until = None;
        }
        let concurrency = self.shared.settings.concurrency.max(1);
        // While something fails, one item tries it for all.
        let room = if self.outages > 0 { 1 } else { concurrency };
        let max = room.saturating_sub(self.jobs.len());
        if max == 0 {
            return false;
        }
        let ask = ClaimAsk {
            owner: &self.shared.owner,
            lease: self.shared.settings.lease,
            order: self.shared.settings.order,
            max,
        };
        let claimed = self
            .shared
            .store
            .claim(&self.shared.settings.name, ask)
            .await;
        let claims = match claimed {
            Ok(claims) => claims,
            Err(error) => {
                self.outage("ledger".to_owned(), reason(&error));
                return false;
            }
        };
        self.shared.cease("ledger");
        let found = claims.len();
        for claim in claims {
            self.begin(claim);
        }
        found == max
    }

    fn begin(&mut self, claim: Claim) {
        let id = claim.id.clone();
        let shared = Arc::clone(&self.shared);
        shared.counters.working.fetch_add(1, Relaxed);
        let chance = self.chance.hash_one(&id);
        let handle = self.jobs.spawn(async move {
            let _working = Working(&shared);
            one(&shared, claim, chance).await
        });
        if self.under_way.is_empty() {
            self.renewed = now();
        }
        self.under_way.insert(handle.id(), (id, handle));
    }

    fn joined(&mut self, joined: Joined) {
        let id = match &joined {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        self.under_way.remove(&id);
        match joined {
            Ok((_, Some((what, reason)))) => self.outage(what, reason),
            Ok((_, None)) => {
                self.outages = 0;
                self.shared.cease_all("s"); // source, spool, sinks: one got through all of them
            }
            // Cancelled when its claim was lost; or it panicked, and its claim runs out.
            Err(error) => tracing::warn!(%error, "work on an item ended early"),
        }
    }

    fn outage(&mut self, what: String, reason: String) {
        self.outages = self.outages.saturating_add(1);
        let pause = outage_pause(self.outages, self.chance.hash_one(self.outages));
        self.held_until = Some(now() + pause);
        self.shared.raise(&what, reason);
    }

    fn renew_at(&self) -> Instant {
        self.renewed + self.shared.settings.lease / 3
    }

    async fn renew(&mut self) {
        self.renewed = now();
        let claims: Vec<_> = self.under_way.values().map(|(id, _)| id.clone()).collect();
        match self
            .shared
            .store
            .renew(&claims, self.shared.settings.lease)
            .await
        {
            Ok(lost) => {
                for (claim, handle) in self.under_way.values() {
                    if lost.contains(claim) {
                        handle.abort();
                    }
                }
            }
            Err(error) => self.shared.raise("ledger", reason(&error)),
        }
    }

    /// Lets what is under way end; what does not in time is given back when its claim runs out.
    async fn drain(&mut self) {
        let until = now() + self.shared.settings.drain;
        while !self.jobs.is_empty() {
            let renew_at = self.renew_at();
            tokio::select! {
                Some(ended) = self.jobs.join_next_with_id() => self.joined(ended),
                () = sleep_until(until.into()) => break,
                () = sleep_until(renew_at.into()) => self.renew().await,
            }
        }
        let left: Vec<_> = self
            .under_way
            .drain()
            .map(|(_, (claim, _))| claim)
            .collect();
        self.jobs.shutdown().await;
        for claim in left {
            let _ = self.shared.store.finish(&claim, End::Released).await;
        }
    }
}

/// Counts an item that is worked on.
struct Working<'a>(&'a Shared);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.counters.working.fetch_sub(1, Relaxed);
    }
}

/// Works on one claim and tells the ledger how it ended; answers what fails for everybody, and why.
async fn one(shared: &Shared, mut claim: Claim, chance: u64) -> Option<(String, String)> {
    let ended = work(shared, &mut claim).await;
    let attempt = claim.attempts.saturating_add(1);
    let settings = &shared.settings;
    let mut outage = None;
    let mut told = None;
    let pause = super::retry::pause(attempt, settings.retry_first, settings.retry_max, chance);
    let end = match &ended {
        Ended::Done { acted } => {
            told = Some(FlowEventKind::Delivered(boxed(&claim)));
            if *acted { End::Acted } else { End::Done }
        }
        // Where removals are told, detection has to find that it is gone, and tell it.
        Ended::Gone if settings.removals && attempt < settings.attempts => End::Failed {
            retry: pause,
            reason: "it is gone",
        },
        Ended::Superseded | Ended::Gone => {
            told = Some(FlowEventKind::Superseded(boxed(&claim)));
            End::Superseded
        }
        Ended::Failed { reason, permanent } => {
            let (item, text) = (boxed(&claim), reason.clone());
            if *permanent || attempt >= settings.attempts.max(1) {
                if let Some(failed) = put_aside(shared, &claim.item).await {
                    tracing::warn!(flow = %settings.name, ?failed, "a file that was given up stays");
                }
                told = Some(FlowEventKind::Dead { item, reason: text });
                End::Dead { reason }
            } else {
                told = Some(FlowEventKind::Failed { item, reason: text });
                End::Failed {
                    retry: pause,
                    reason,
                }
            }
        }
        Ended::Outage { what, reason } => {
            outage = Some((what.clone(), reason.clone()));
            End::Released
        }
        Ended::Lost => return None,
    };
    if let Err(error) = shared.store.finish(&claim.id, end).await {
        // The row still says "claimed": whoever takes it up repeats what is not done, and no more.
        return match error {
            crate::store::StoreError::Lost => None,
            error => Some(("ledger".to_owned(), reason(&error))),
        };
    }
    let counter = match &ended {
        Ended::Done { .. } => Some(&shared.counters.delivered),
        Ended::Superseded | Ended::Gone => Some(&shared.counters.superseded),
        Ended::Failed { .. } if matches!(told, Some(FlowEventKind::Dead { .. })) => {
            Some(&shared.counters.dead)
        }
        Ended::Failed { .. } => Some(&shared.counters.failed),
        Ended::Outage { .. } | Ended::Lost => None,
    };
    if let Some(counter) = counter {
        counter.fetch_add(1, Relaxed);
    }
    if let Some(kind) = told {
        shared.tell(kind);
    }
    outage
}

fn boxed(claim: &Claim) -> Box<Item> {
    Box::new(claim.item.clone())
}
