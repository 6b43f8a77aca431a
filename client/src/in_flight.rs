//! A bounded handful of futures that run side by side, for what is pipelined over many files.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

/// Futures that run side by side; whoever adds them keeps to a bound.
pub(crate) struct InFlight<T> {
    futures: Vec<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self {
            futures: Vec::new(),
        }
    }
}

impl<T> InFlight<T> {
    /// How many are not done.
    pub(crate) const fn len(&self) -> usize {
        self.futures.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.futures.is_empty()
    }

    pub(crate) fn push(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.futures.push(Box::pin(future));
    }

    /// What one of them gives; `None` if there are none.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.futures.is_empty() {
            return Poll::Ready(None);
        }
        for index in 0..self.futures.len() {
            if let Some(future) = self.futures.get_mut(index)
                && let Poll::Ready(output) = future.as_mut().poll(cx)
            {
                drop(self.futures.swap_remove(index));
                return Poll::Ready(Some(output));
            }
        }
        Poll::Pending
    }

    /// Waits for one of them.
    pub(crate) async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

impl<T> fmt::Debug for InFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
