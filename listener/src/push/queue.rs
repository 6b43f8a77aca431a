//! The bounded queue between who tells of changes and who looks at them. No clock, no task.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{PushError, PushEvent};

/// Events that wait to be taken.
pub const EVENTS_MAX: usize = 8_192;

/// Bytes of names in events that wait to be taken.
pub const BYTES_MAX: usize = 2 * 1024 * 1024;

/// One fills it, one empties it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<PushEvent>,
    bytes: usize,
    is_live: bool,
    trouble: Option<PushError>,
    /// No more will come.
    is_over: bool,
}

impl Queue {
    /// Adds an event. Where there is no room for it, all that waits becomes one overflow.
    pub(super) fn push(&self, event: PushEvent) {
        let mut state = self.state();
        // Writers that write in small pieces say the same over and over.
        if state.events.back() == Some(&event) {
            return;
        }
        let bytes = state.bytes.saturating_add(names_len(&event));
        if state.events.len() >= EVENTS_MAX || bytes > BYTES_MAX {
            state.events.clear();
            state.events.push_back(PushEvent::Overflow);
            state.bytes = 0;
        } else {
            state.bytes = bytes;
            state.events.push_back(event);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Events come from here on.
    pub(super) fn live(&self) {
        let mut state = self.state();
        state.is_live = true;
        state.trouble = None;
        drop(state);
        self.push(PushEvent::Back);
    }

    /// None come any more, for this reason. Told as lost if they came before.
    pub(super) fn lost(&self, why: PushError) {
        let mut state = self.state();
        let was_live = std::mem::take(&mut state.is_live);
        state.trouble = Some(why);
        drop(state);
        if was_live {
            self.push(PushEvent::Lost);
        }
    }

    /// None will come any more.
    pub(super) fn end(&self, why: PushError) {
        self.lost(why);
        self.state().is_over = true;
        self.changed.notify_one();
    }

    pub(super) fn take(&self) -> Option<PushEvent> {
        let mut state = self.state();
        let event = state.events.pop_front()?;
        state.bytes = state.bytes.saturating_sub(names_len(&event));
        Some(event)
    }

    pub(super) async fn next(&self) -> Option<PushEvent> {
        loop {
            // A permit is kept for a wake-up between these two lines.
            if let Some(event) = self.take() {
                return Some(event);
            }
            if self.state().is_over {
                return None;
            }
            self.changed.notified().await;
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.state().is_live
    }

    pub(super) fn trouble(&self) -> Option<PushError> {
        self.state().trouble.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names_len(event: &PushEvent) -> usize {
    match event {
        PushEvent::Changed { path, .. }
        | PushEvent::Closed { path }
        | PushEvent::Removed { path, .. } => path.as_bytes().len(),
        PushEvent::Renamed { from, to, .. } => {
            from.as_bytes().len().saturating_add(to.as_bytes().len())
        }
        PushEvent::Overflow | PushEvent::Lost | PushEvent::Back => 0,
    }
}

#[cfg(test)]
mod tests {
    use ketch_client::RemotePath;

    use super::*;

    fn closed(number: usize) -> PushEvent {
        PushEvent::Closed {
            path: RemotePath::from(format!("in/{number}")),
        }
    }

    #[test]
    fn what_does_not_fit_is_one_overflow() {
        let queue = Queue::default();
        for number in 0..=EVENTS_MAX {
            queue.push(closed(number));
        }
        queue.push(closed(1));
        assert_eq!(queue.take(), Some(PushEvent::Overflow));
        assert_eq!(queue.take(), Some(closed(1)));
        assert_eq!(queue.take(), None);
        let long = "x".repeat(BYTES_MAX / 2);
        for name in ["a", "b"] {
            queue.push(PushEvent::Closed {
                path: RemotePath::from(format!("{long}{name}")),
            });
        }
        assert_eq!(queue.take(), Some(PushEvent::Overflow));
        assert_eq!(queue.state().bytes, 0);
    }

    #[tokio::test]
    async fn the_same_twice_in_a_row_is_once_and_the_end_comes_last() {
        let queue = Queue::default();
        queue.live();
        assert!(queue.is_live());
        queue.push(closed(1));
        queue.push(closed(1));
        queue.end(PushError::Unsupported);
        assert!(!queue.is_live());
        assert!(matches!(queue.trouble(), Some(PushError::Unsupported)));
        assert_eq!(queue.next().await, Some(PushEvent::Back));
        assert_eq!(queue.next().await, Some(closed(1)));
        assert_eq!(queue.next().await, Some(PushEvent::Lost));
        assert_eq!(queue.next().await, None);
    }
}
