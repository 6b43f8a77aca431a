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
use tokio::time::{sleep, sleep_until, timeout};

use super::events::{FlowEventKind, reason};
use super::hold::{Hold, Since};
use super::item::Item;
use super::shared::{Shared, now};
use super::work::{Ended, let_go, outage_pause, put_aside, work};
use crate::sink::fence::{Fence, StillOurs};
use crate::store::{AT_SOURCE, Claim, ClaimAsk, ClaimId, Delivery, End, Placement, StoreError};

/// How long until the ledger is asked again if there was nothing to claim: retries become due, and
/// other processes record what is found.
const IDLE: Duration = Duration::from_secs(1);
/// How long a flow that stops gives claims back; what it does not, runs out by itself.
const RELEASE_MAX: Duration = Duration::from_secs(5);
/// The longest time for which a destination may ask to be left alone.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(3600);

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
                engine.joined(ended).await;
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
    jobs: JoinSet<Option<Outage>>,
    under_way: HashMap<Id, UnderWay>,
    /// Nothing is claimed before: something fails that every item needs.
    held_until: Option<Instant>,
    outages: u32,
    renewed: Instant,
    chance: RandomState,
}

/// An item that is worked on.
struct UnderWay {
    claim: Claim,
    job: AbortHandle,
    hold: Arc<Hold>,
    fence: Fence,
}

impl UnderWay {
    /// Ends the work; whether nothing of it can become visible any more.
    fn stop(&self) -> bool {
        let is_shut = self.fence.close();
        self.job.abort();
        is_shut
    }
}

impl Drop for UnderWay {
    /// What may block goes on after its task was dropped.
    fn drop(&mut self) {
        self.fence.close();
    }
}

/// What fails for every item.
#[derive(Debug)]
struct Outage {
    what: String,
    reason: String,
    /// For how long it asked to be left alone.
    after: Option<Duration>,
}

type Joined = Result<(Id, Option<Outage>), tokio::task::JoinError>;

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
        let since = Since::now();
        let claimed = self
            .shared
            .store
            .claim(&self.shared.settings.name, ask)
            .await;
        let claims = match claimed {
            Ok(claims) => claims,
            Err(error) => {
                self.outage(Outage {
                    what: "ledger".to_owned(),
                    reason: reason(&error),
                    after: None,
                });
                return false;
            }
        };
        self.shared.cease("ledger");
        self.tell_aside();
        let found = claims.len();
        for claim in claims {
            self.begin(claim, since);
        }
        found == max
    }

    /// Tells of items whose rows were damaged.
    fn tell_aside(&self) {
        for row in self.shared.store.set_aside(&self.shared.settings.name) {
            self.shared.counters.dead.fetch_add(1, Relaxed);
            self.shared.tell(FlowEventKind::Dead {
                item: Box::new(row.item),
                reason: row.reason.unwrap_or_default(),
            });
        }
    }

    fn begin(&mut self, claim: Claim, since: Since) {
        let shared = Arc::clone(&self.shared);
        shared.counters.working.fetch_add(1, Relaxed);
        let chance = self.chance.hash_one(&claim.id);
        let hold = Arc::new(Hold::new(
            Arc::clone(&shared.store),
            claim.id.clone(),
            shared.settings.lease,
            shared.settings.shared,
            since,
        ));
        let fence = Fence::asking(Arc::clone(&hold) as Arc<dyn StillOurs>);
        let (worked, passed) = (claim.clone(), fence.clone());
        let job = self.jobs.spawn(async move {
            let _working = Working(&shared);
            one(&shared, worked, &passed, chance).await
        });
        if self.under_way.is_empty() {
            self.renewed = now();
        }
        let id = job.id();
        let begun = UnderWay {
            claim,
            job,
            hold,
            fence,
        };
        self.under_way.insert(id, begun);
    }

    async fn joined(&mut self, joined: Joined) {
        let id = match &joined {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let begun = self.under_way.remove(&id);
        match joined {
            Ok((_, Some(outage))) => self.outage(outage),
            Ok((_, None)) => {
                self.outages = 0;
                // One got through all of them.
                for what in ["source", "spool"] {
                    self.shared.cease(what);
                }
                self.shared.cease_all("sink ");
            }
            Err(error) if error.is_panic() => {
                if let Some(begun) = begun {
                    self.panicked(&begun.claim, &error.to_string()).await;
                }
            }
            // Cancelled when its claim was lost.
            Err(error) => tracing::warn!(%error, "work on an item ended early"),
        }
    }

    /// Work ended by a fault of ours: that counts as an attempt, or the item would come again as
    /// often as its claim runs out.
    async fn panicked(&mut self, claim: &Claim, what: &str) {
        let shared = Arc::clone(&self.shared);
        let reason = format!("the work on it ended by a fault of its own: {what}");
        let chance = self.chance.hash_one(&claim.id);
        let failed = Failing {
            reason: &reason,
            is_last: claim.attempts.saturating_add(1) >= shared.settings.attempts.max(1),
        };
        let (end, told) = failed.end(&shared, claim, chance);
        match shared.store.finish(&claim.id, end).await {
            Ok(()) => {
                failed.count(&shared);
                shared.tell(told);
            }
            Err(error) => tracing::warn!(%error, "what ended by a fault could not be counted"),
        }
    }

    fn outage(&mut self, outage: Outage) {
        let Outage {
            what,
            reason,
            after,
        } = outage;
        self.outages = self.outages.saturating_add(1);
        let pause = outage_pause(self.outages, self.chance.hash_one(self.outages));
        let asked = after.unwrap_or(Duration::ZERO).min(LEFT_ALONE_MAX);
        self.held_until = Some(now() + pause.max(asked));
        self.shared.raise(&what, reason);
    }

    fn renew_at(&self) -> Instant {
        self.renewed + self.shared.settings.lease / 3
    }

    async fn renew(&mut self) {
        self.renewed = now();
        let since = Since::now();
        let claims: Vec<ClaimId> = self
            .under_way
            .values()
            .map(|begun| begun.claim.id.clone())
            .collect();
        match self
            .shared
            .store
            .renew(&claims, self.shared.settings.lease)
            .await
        {
            Ok(lost) => {
                for begun in self.under_way.values() {
                    if lost.contains(&begun.claim.id) {
                        begun.stop();
                    } else {
                        begun.hold.renewed(since);
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
                Some(ended) = self.jobs.join_next_with_id() => self.joined(ended).await,
                () = sleep_until(until.into()) => break,
                () = sleep_until(renew_at.into()) => self.renew().await,
            }
        }
        // What is becoming visible at this moment may be done at any time: its claim runs out by
        // itself, and who takes it then finds out.
        let left: Vec<ClaimId> = self
            .under_way
            .drain()
            .filter(|(_, begun)| begun.stop())
            .map(|(_, begun)| begun.claim.id.clone())
            .collect();
        self.jobs.shutdown().await;
        // A ledger that is away lets them run out by themselves.
        let released = async {
            for claim in left {
                let _ = self.shared.store.finish(&claim, End::Released).await;
            }
        };
        let _ = timeout(RELEASE_MAX, released).await;
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
async fn one(shared: &Shared, mut claim: Claim, fence: &Fence, chance: u64) -> Option<Outage> {
    let mut ended = work(shared, &mut claim, fence).await;
    let attempt = claim.attempts.saturating_add(1);
    let settings = &shared.settings;
    let is_over = match &ended {
        Ended::Superseded | Ended::Gone => true,
        Ended::Failed { permanent, .. } => *permanent || attempt >= settings.attempts.max(1),
        _ => false,
    };
    if is_over && let Err(not_now) = let_go(shared, &mut claim).await {
        ended = not_now;
    }
    let mut outage = None;
    let mut told = None;
    let pause = super::retry::pause(attempt, settings.retry_first, settings.retry_max, chance);
    let end = match &ended {
        Ended::Done { acted } => {
            told = Some(FlowEventKind::Delivered(boxed(&claim)));
            if *acted { End::Acted } else { End::Done }
        }
        // Where removals are told, detection has to find that it is gone, and tell it. And where a sink
        // has it, a source that was away for a moment must not make it new to all of them.
        Ended::Gone if (settings.removals || is_begun(&claim)) && attempt < settings.attempts => {
            End::Failed {
                retry: pause,
                reason: "it is gone",
            }
        }
        Ended::Superseded | Ended::Gone => {
            told = Some(FlowEventKind::Superseded(boxed(&claim)));
            End::Superseded
        }
        Ended::Failed { reason, permanent } => {
            let failed = Failing {
                reason,
                is_last: *permanent || attempt >= settings.attempts.max(1),
            };
            if failed.is_last
                && let Err(failed) = put_aside(shared, &mut claim).await
            {
                tracing::warn!(flow = %settings.name, ?failed, "a file that was given up stays");
            }
            let (end, event) = failed.end(shared, &claim, chance);
            told = Some(event);
            end
        }
        Ended::Outage {
            what,
            reason,
            after,
        } => {
            outage = Some(Outage {
                what: what.clone(),
                reason: reason.clone(),
                after: *after,
            });
            End::Released
        }
        Ended::Lost => return None,
    };
    if let Err(error) = shared.store.finish(&claim.id, end).await {
        // The row still says "claimed": whoever takes it up repeats what is not done, and no more.
        return match error {
            StoreError::Lost => None,
            error => Some(Outage {
                what: "ledger".to_owned(),
                reason: reason(&error),
                after: None,
            }),
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

/// A failure, and whether it is the last one that the item may have.
struct Failing<'a> {
    reason: &'a str,
    is_last: bool,
}

impl<'a> Failing<'a> {
    /// How the claim ends, and what is told of it.
    fn end(&self, shared: &Shared, claim: &Claim, chance: u64) -> (End<'a>, FlowEventKind) {
        let (item, text) = (boxed(claim), self.reason.to_owned());
        if self.is_last {
            let end = End::Dead {
                reason: self.reason,
            };
            return (end, FlowEventKind::Dead { item, reason: text });
        }
        let attempt = claim.attempts.saturating_add(1);
        let settings = &shared.settings;
        let end = End::Failed {
            retry: super::retry::pause(attempt, settings.retry_first, settings.retry_max, chance),
            reason: self.reason,
        };
        (end, FlowEventKind::Failed { item, reason: text })
    }

    fn count(&self, shared: &Shared) {
        let counters = &shared.counters;
        let counter = match self.is_last {
            true => &counters.dead,
            false => &counters.failed,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// Whether a sink has the item, or may have it.
fn is_begun(claim: &Claim) -> bool {
    let is_of_sink =
        |d: &Delivery| d.sink != AT_SOURCE && (d.done || d.placement != Placement::default());
    claim.deliveries.iter().any(is_of_sink)
}

fn boxed(claim: &Claim) -> Box<Item> {
    Box::new(claim.item.clone())
}
