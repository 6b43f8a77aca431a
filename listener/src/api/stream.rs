//! Recent events as Server-Sent Events (WHATWG HTML §9.2).
//!
//! The ring of [`Events`] is what is told; its live channel only says that there is more. So who is
//! slow misses what has left the ring, is told how many that were, and costs no memory of its own.
//!
//! An event's id is `<run>-<number>`: numbers begin anew with every start of the daemon, and who
//! comes back with an id of an earlier run gets all that is there.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, KeepAliveStream, Sse};
use futures_core::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;

use super::types::EventInfo;
use crate::flow::events::Events;

/// How often something is sent to who listens, so that both ends see that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where a stream begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Position {
    pub(super) run: u64,
    pub(super) number: u64,
}

impl Position {
    /// Behind the event with this id, or at the beginning of `run` if that is not of it.
    pub(super) fn after(run: u64, id: Option<&str>) -> Self {
        let number = id.and_then(|id| {
            let (of, number) = id.split_once('-')?;
            (u64::from_str_radix(of, 16).ok()? == run).then(|| number.parse().ok())?
        });
        Self {
            run,
            number: number.unwrap_or(0),
        }
    }

    fn id(self) -> String {
        format!("{:x}-{}", self.run, self.number)
    }
}

/// The events of all flows, or of one, from `position` on. `place` is held as long as somebody
/// listens.
pub(super) fn stream(
    events: &Events,
    flow: Option<String>,
    position: Position,
    place: OwnedSemaphorePermit,
) -> Sse<KeepAliveStream<Told>> {
    let told = Told {
        events: events.clone(),
        flow,
        position,
        ready: VecDeque::new(),
        more: None,
        _place: place,
    };
    Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// A stream of events.
pub(super) struct Told {
    events: Events,
    flow: Option<String>,
    position: Position,
    ready: VecDeque<Event>,
    more: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    _place: OwnedSemaphorePermit,
}

impl Told {
    /// Takes what the ring has beyond the position.
    fn look(&mut self) {
        for event in self.events.recent(self.position.number) {
            let missed = event.number.saturating_sub(self.position.number + 1);
            if missed > 0 && self.position.number > 0 {
                let missed = Event::default().event("missed").data(missed.to_string());
                self.ready.push_back(missed);
            }
            self.position.number = event.number;
            let wanted = self
                .flow
                .as_deref()
                .is_none_or(|flow| flow == event.flow.as_str());
            if wanted {
                let info = EventInfo::from(&*event);
                let data = serde_json::to_string(&info).unwrap_or_default();
                let told = Event::default().event(info.kind).id(self.position.id());
                self.ready.push_back(told.data(data));
            }
        }
    }
}

impl Stream for Told {
    type Item = Result<Event, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let told = self.get_mut();
        loop {
            if let Some(event) = told.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match &mut told.more {
                // Listening begins before the ring is looked at, so nothing falls between the two.
                None => {
                    let mut live = told.events.subscribe();
                    told.more = Some(Box::pin(async move {
                        !matches!(live.recv().await, Err(RecvError::Closed))
                    }));
                    told.look();
                }
                Some(more) => match more.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(true) => told.more = None,
                    Poll::Ready(false) => return Poll::Ready(None),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_another_run_begins_anew() {
        let at = |number| Position { run: 0xab, number };
        assert_eq!(Position::after(0xab, Some("ab-17")), at(17));
        assert_eq!(at(17).id(), "ab-17");
        for other in [
            None,
            Some(""),
            Some("ac-17"),
            Some("17"),
            Some("ab-x"),
            Some("-"),
        ] {
            assert_eq!(Position::after(0xab, other), at(0));
        }
    }
}
