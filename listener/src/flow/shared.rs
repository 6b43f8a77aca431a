//! What the parts of a running flow share: its settings, its ends, and the counters.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::events::{Events, FlowEventKind};
use super::pace::Pace;
use super::settings::FlowSettings;
use super::spool::Spool;
use crate::sink::Sink;
use crate::source::Source;
use crate::store::Store;

/// Bytes that one permit of the room for fetches stands for.
const ROOM_UNIT: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Shared {
    pub settings: FlowSettings,
    pub source: Arc<dyn Source>,
    pub sinks: Vec<Arc<dyn Sink>>,
    pub store: Arc<dyn Store>,
    pub events: Events,
    pub spool: Spool,
    pub counters: Counters,
    /// In the order of `sinks`.
    pub sink_counters: Vec<SinkCounters>,
    /// Unique among the processes that share the ledger.
    pub owner: String,
    pub paused: AtomicBool,
    /// Something may be there to be claimed.
    pub work: Notify,
    /// The half of the flow that ended by a fault of its own, if one did.
    pub fault: watch::Sender<Option<&'static str>>,
    /// What was raised and not ceased.
    raised: Mutex<Vec<String>>,
    room: Arc<Semaphore>,
    room_units: u32,
    pace: Mutex<Pace>,
}

/// What a flow did since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Items that all sinks have.
    pub delivered: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Items given up.
    pub dead: AtomicU64,
    /// Items that changed before they were fetched.
    pub superseded: AtomicU64,
    /// Bytes fetched.
    pub bytes: AtomicU64,
    /// Scans.
    pub scans: AtomicU64,
    /// Microseconds in scans.
    pub scan_micros: AtomicU64,
    /// Names listed by scans.
    pub entries: AtomicU64,
    /// Items recorded.
    pub recorded: AtomicU64,
    /// Items that are worked on now.
    pub working: AtomicU64,
}

/// What a sink was asked since its flow started.
#[derive(Debug, Default)]
pub struct SinkCounters {
    /// Deliveries that were attempted.
    pub attempts: AtomicU64,
    /// Those that failed.
    pub failures: AtomicU64,
}

/// The parts that a flow is made of, beside its detector.
#[derive(Debug)]
pub(super) struct Ends {
    pub source: Arc<dyn Source>,
    pub sinks: Vec<Arc<dyn Sink>>,
    pub store: Arc<dyn Store>,
    pub events: Events,
}

impl Shared {
    pub(super) fn new(settings: FlowSettings, ends: Ends, spool: Spool, owner: String) -> Self {
        let units = settings.in_flight_bytes.div_ceil(ROOM_UNIT).max(1);
        let room_units = u32::try_from(units).unwrap_or(u32::MAX).min(1 << 28);
        let Ends {
            source,
            sinks,
            store,
            events,
        } = ends;
        Self {
            spool,
            pace: Mutex::new(Pace::new(settings.rate)),
            room: Arc::new(Semaphore::new(room_units as usize)),
            room_units,
            settings,
            source,
            sink_counters: sinks.iter().map(|_| SinkCounters::default()).collect(),
            sinks,
            store,
            events,
            counters: Counters::default(),
            owner,
            paused: AtomicBool::new(false),
            work: Notify::new(),
            fault: watch::Sender::new(None),
            raised: Mutex::default(),
        }
    }

    /// The counters of the sink called `name`.
    pub(super) fn counters_of(&self, name: &str) -> Option<&SinkCounters> {
        let place = self.sinks.iter().position(|sink| sink.name() == name)?;
        self.sink_counters.get(place)
    }

    /// Waits until `bytes` may be under way; a file larger than all the room gets all of it.
    pub(super) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(ROOM_UNIT).max(1);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        // It is never closed.
        room.acquire_many_owned(units.min(self.room_units))
            .await
            .ok()
    }

    /// Waits until `bytes` may be asked for.
    pub(super) async fn paced(&self, bytes: u64) {
        let begin = {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.book(now(), bytes)
        };
        tokio::time::sleep_until(begin.into()).await;
    }

    /// Gives back what was paced and not fetched.
    pub(super) fn unpaced(&self, bytes: u64) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.unbook(bytes);
    }

    pub(super) fn tell(&self, kind: FlowEventKind) {
        self.events.tell(millis(), &self.settings.name, kind);
    }

    /// Tells that `what` fails, unless that was told.
    pub(super) fn raise(&self, what: &str, reason: String) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if raised.iter().any(|known| known == what) {
            return;
        }
        raised.push(what.to_owned());
        drop(raised);
        self.tell(FlowEventKind::Raised {
            what: what.to_owned(),
            reason,
        });
    }

    /// Tells that `what` works again, if it was raised.
    pub(super) fn cease(&self, what: &str) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = raised.iter().position(|known| known == what) else {
            return;
        };
        raised.swap_remove(place);
        drop(raised);
        self.tell(FlowEventKind::Ceased {
            what: what.to_owned(),
        });
    }

    /// Everything that is raised and begins with `prefix` works again.
    pub(super) fn cease_all(&self, prefix: &str) {
        for what in self.raised() {
            if what.starts_with(prefix) {
                self.cease(&what);
            }
        }
    }

    pub(super) fn raised(&self) -> Vec<String> {
        let raised = self.raised.lock();
        raised.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[expect(clippy::disallowed_methods, reason = "drivers own time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "drivers own time")]
pub(crate) fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
