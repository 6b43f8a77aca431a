//! The end of work that nobody waits for any more: set by the session, seen by the work between two
//! steps, and by whoever still waits for a place to do it in.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Whether work was given up.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    is_set: AtomicBool,
    /// Those who wait for something else meanwhile: no more than jobs that may be under way.
    waiting: Mutex<Vec<Waker>>,
}

impl Cancel {
    /// Gives the work up, for good.
    pub(crate) fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// What `future` gives; nothing if the work is given up before that.
    pub(crate) async fn or<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|context| {
            {
                // Under the lock, so that it is not set between the look and the registration.
                let mut waiting = self.waiting();
                if self.is_set() {
                    return Poll::Ready(None);
                }
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
