//! What a flow tells whoever watches it: the newest events, kept in a ring, and live ones.
//!
//! These are for people and dashboards; they are not the deliveries. Who is slow misses some, and is
//! told how many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use super::item::{FlowName, Item};

/// Events that are kept for who comes later, and that may wait for who is slow.
pub const RECENT_MAX: usize = 1_024;
/// Longest reason that is told, in bytes.
const REASON_LEN_MAX: usize = 2_048;

/// Something that happened in a flow.
#[derive(Clone, Debug)]
pub struct FlowEvent {
    /// Counts the events of this process, over all flows.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    /// In which flow.
    pub flow: FlowName,
    /// What.
    pub kind: FlowEventKind,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FlowEventKind {
    /// All sinks have an item, and what comes after is done.
    Delivered(Box<Item>),
    /// An item changed or vanished before it could be fetched.
    Superseded(Box<Item>),
    /// An attempt failed, and there will be another.
    Failed {
        /// Which item.
        item: Box<Item>,
        /// Why.
        reason: String,
    },
    /// An item is given up until somebody asks for it.
    Dead {
        /// Which item.
        item: Box<Item>,
        /// Why.
        reason: String,
    },
    /// The source was looked at.
    Scanned {
        /// Changes that became items.
        items: u64,
        /// How long it took, in milliseconds.
        took: u64,
    },
    /// Something cannot be reached, read or written, and the flow waits or passes it over. Told
    /// once, until [`FlowEventKind::Ceased`].
    Raised {
        /// What: `source`, `ledger`, `sink <name>`, `directory <path>`; `engine` or `detection` if half
        /// of the flow ended by a fault of its own.
        what: String,
        /// Why.
        reason: String,
    },
    /// What was raised is over.
    Ceased {
        /// What.
        what: String,
    },
    /// Nothing is claimed or scanned any more.
    Paused,
    /// It goes on.
    Resumed,
}

impl FlowEventKind {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Superseded(_) => "superseded",
            Self::Failed { .. } => "failed",
            Self::Dead { .. } => "dead",
            Self::Scanned { .. } => "scanned",
            Self::Raised { .. } => "raised",
            Self::Ceased { .. } => "ceased",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
        }
    }

    /// The item that it is about, if it is about one.
    #[must_use]
    pub fn item(&self) -> Option<&Item> {
        match self {
            Self::Delivered(item)
            | Self::Superseded(item)
            | Self::Failed { item, .. }
            | Self::Dead { item, .. } => Some(item),
            _ => None,
        }
    }
}

/// Where events of all flows of a process meet.
#[derive(Clone, Debug)]
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    recent: Mutex<Recent>,
    live: broadcast::Sender<Arc<FlowEvent>>,
}

#[derive(Debug, Default)]
struct Recent {
    last: u64,
    events: VecDeque<Arc<FlowEvent>>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                recent: Mutex::default(),
                live: broadcast::channel(RECENT_MAX).0,
            }),
        }
    }

    /// Live events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<FlowEvent>> {
        self.shared.live.subscribe()
    }

    /// Those that are kept, with numbers above `after`, oldest first.
    #[must_use]
    pub fn recent(&self, after: u64) -> Vec<Arc<FlowEvent>> {
        let recent = self.recent_state();
        let newer = |event: &&Arc<FlowEvent>| event.number > after;
        recent.events.iter().filter(newer).cloned().collect()
    }

    pub(crate) fn tell(&self, at: u64, flow: &FlowName, kind: FlowEventKind) {
        match &kind {
            FlowEventKind::Delivered(item) => {
                tracing::info!(%flow, id = %item.id(), path = %item.path, "delivered");
            }
            FlowEventKind::Failed { item, reason } => {
                tracing::warn!(%flow, id = %item.id(), path = %item.path, reason, "failed, to be tried again");
            }
            FlowEventKind::Dead { item, reason } => {
                tracing::error!(%flow, id = %item.id(), path = %item.path, reason, "given up");
            }
            FlowEventKind::Raised { what, reason } => tracing::warn!(%flow, what, reason, "raised"),
            FlowEventKind::Ceased { what } => tracing::info!(%flow, what, "ceased"),
            kind => tracing::debug!(%flow, kind = kind.word()),
        }
        let mut recent = self.recent_state();
        recent.last += 1;
        let event = Arc::new(FlowEvent {
            number: recent.last,
            at,
            flow: flow.clone(),
            kind,
        });
        if recent.events.len() == RECENT_MAX {
            recent.events.pop_front();
        }
        recent.events.push_back(Arc::clone(&event));
        // Under the lock, so that live events come in the order of their numbers. Nobody may listen.
        let _ = self.shared.live.send(event);
    }

    fn recent_state(&self) -> std::sync::MutexGuard<'_, Recent> {
        let recent = self.shared.recent.lock();
        recent.unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes as one line, bounded.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    if line.len() > REASON_LEN_MAX {
        let end = line.floor_char_boundary(REASON_LEN_MAX);
        line.truncate(end);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_numbered() {
        let events = Events::new();
        let flow = FlowName::new("in").expect("a name");
        let mut live = events.subscribe();
        for _ in 0..RECENT_MAX + 3 {
            events.tell(1, &flow, FlowEventKind::Paused);
        }
        let kept = events.recent(0);
        assert_eq!(kept.len(), RECENT_MAX);
        assert_eq!(kept.first().map(|event| event.number), Some(4));
        assert_eq!(events.recent(RECENT_MAX as u64 + 2).len(), 1);
        assert!(matches!(
            live.try_recv(),
            Err(broadcast::error::TryRecvError::Lagged(3))
        ));
        assert_eq!(live.try_recv().map(|event| event.number).ok(), Some(4));
    }
}
