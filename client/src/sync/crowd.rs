//! Several futures that are worked on at a time, on the task of whoever waits for them.
//!
//! No task is spawned: a sync that is dropped ends with all it has begun. Each wake looks at every
//! member, of which there are few.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use crate::transfer::control::{Control, Wanted};

/// Futures under way.
pub(super) struct Crowd<T> {
    members: Vec<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T> Crowd<T> {
    pub(super) const fn new() -> Self {
        Self {
            members: Vec::new(),
        }
    }

    /// How many are under way.
    pub(super) const fn len(&self) -> usize {
        self.members.len()
    }

    /// Begins another; it is polled with the next call of [`next`](Self::next).
    pub(super) fn add(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.members.push(Box::pin(future));
    }

    /// What the first of them that is done gave; `None` if there are none.
    pub(super) async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| {
            if self.members.is_empty() {
                return Poll::Ready(None);
            }
            self.poll(cx).map(Some)
        })
        .await
    }

    /// The same; `None` also if something else is wanted by now than was `seen`. While there are
    /// none and nothing may be begun, it waits.
    pub(super) async fn next_while(&mut self, control: &Control, seen: Wanted) -> Option<T> {
        let mut changed = pin!(control.changed(seen));
        poll_fn(|cx| {
            let is_over = self.members.is_empty() && seen != Wanted::Pause;
            if is_over || changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            self.poll(cx).map(Some)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        for index in 0..self.members.len() {
            if let Some(member) = self.members.get_mut(index)
                && let Poll::Ready(output) = member.as_mut().poll(cx)
            {
                drop(self.members.swap_remove(index));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }
}

/// Does what blocks on a thread of the runtime; right here where there is none.
pub(super) async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => match runtime.spawn_blocking(work).await {
            Ok(output) => output,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down, and with it whoever waits here.
                Err(_) => std::future::pending().await,
            },
        },
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_worked_on_at_a_time() {
        let mut crowd = Crowd::new();
        let (first, wait) = tokio::sync::oneshot::channel();
        crowd.add(async move { wait.await.unwrap_or(0) });
        crowd.add(async move {
            first.send(7).unwrap();
            on_thread(|| 8).await
        });
        assert_eq!(crowd.len(), 2);
        let mut done = Vec::new();
        while let Some(output) = crowd.next().await {
            done.push(output);
        }
        done.sort_unstable();
        assert_eq!(done, [7, 8]);
    }
}
