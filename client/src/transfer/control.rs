//! The handle with which a transfer is paused, resumed, cancelled and ranked while it runs.
//!
//! Whoever steers and whoever works share a few numbers; a change wakes the plans that were begun
//! with the handle (`plan.rs`), whose workers look at them in their next turn. What may be sent
//! while a transfer is paused is decided in one place, `requests/job.rs`.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Steers transfers while they run: pauses, resumes, cancels and ranks them.
///
/// Cheap to clone; all clones steer the same transfers, which are those whose options it was given
/// to, begun before or after. Without effect on those that have ended.
///
/// - *Paused*, a transfer sends no new requests; what was asked for before is received and written.
///   The connection stays, with its keepalives and with what else is done over it. A connection
///   that is lost meanwhile is made anew when the transfer is resumed. What has come stays, and
///   handles stay open.
/// - *Resumed*, it goes on where it stood.
/// - *Cancelled*, it ends with [`TransferError::Cancelled`](crate::TransferError::Cancelled) as soon
///   as the files it had begun are closed and removed on both sides, those that
///   [`Resume`](crate::Resume) would continue excepted. The session can be used on. Where the
///   connection is lost at that moment, what is on the server stays there. That is for good: later
///   calls change nothing, and what is begun with the handle ends at once.
///
/// ```no_run
/// # async fn example(sftp: ketch_client::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// use ketch_client::{Control, GetOptions, Priority};
///
/// let control = Control::new();
/// let get = sftp.get("large", "large", GetOptions::new().control(control.clone()));
/// // Elsewhere, in another task or thread:
/// control.set_priority(Priority::Low);
/// control.pause();
/// control.resume();
/// get.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Control {
    hub: Arc<Hub>,
}

/// Which of the transfers over one [`Sftp`](crate::Sftp) session sends first.
///
/// Of the data that is asked for or sent, each has a share: 16 parts for [`High`](Self::High), 4 for
/// [`Normal`](Self::Normal), 1 for [`Low`](Self::Low). Who is behind with its share sends first, and
/// what one does not use the others have: so none starves, and none waits for another that has
/// nothing to send. Files under way at a time are shared alike. Transfers over different channels or
/// connections are not weighed against each other; one of low priority opens no further ones.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// A sixteenth of what a high one has.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Four times what a normal one has.
    High,
}

/// Somebody who is told when something changed.
pub(crate) trait Controlled: Send + Sync {
    /// Something changed: look.
    fn on_control(&self);
}

/// Those who are told.
#[derive(Default)]
pub(crate) struct Audience {
    inner: Mutex<Vec<Weak<dyn Controlled>>>,
}

#[derive(Debug, Default)]
struct Hub {
    state: AtomicU8,
    priority: AtomicU8,
    audience: Audience,
    waiting: Mutex<Waiting>,
}

/// Those who wait for a change, each with its number.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    wakers: Vec<(u64, Waker)>,
}

/// What is wanted of the transfers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    Run,
    Pause,
    Cancel,
}

const RUN: u8 = 0;
const PAUSE: u8 = 1;
const CANCEL: u8 = 2;

impl Control {
    /// Transfers run, with normal priority.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends no new requests until [`Control::resume`].
    pub fn pause(&self) {
        self.change(RUN, PAUSE);
    }

    /// Goes on after [`Control::pause`].
    pub fn resume(&self) {
        self.change(PAUSE, RUN);
    }

    /// Ends the transfers, for good, and takes back what they had begun.
    pub fn cancel(&self) {
        if self.hub.state.swap(CANCEL, Ordering::AcqRel) != CANCEL {
            self.tell();
        }
    }

    /// Which transfers go first. Default: [`Priority::Normal`].
    pub fn set_priority(&self, priority: Priority) {
        let number = match priority {
            Priority::Normal => 0,
            Priority::Low => 1,
            Priority::High => 2,
        };
        if self.hub.priority.swap(number, Ordering::AcqRel) != number {
            self.tell();
        }
    }

    /// Which transfers go first.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match self.hub.priority.load(Ordering::Acquire) {
            1 => Priority::Low,
            2 => Priority::High,
            _ => Priority::Normal,
        }
    }

    /// Whether nothing new is asked for.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.wanted() == Wanted::Pause
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.wanted() == Wanted::Cancel
    }

    /// What is wanted of the transfers.
    pub(crate) fn wanted(&self) -> Wanted {
        match self.hub.state.load(Ordering::Acquire) {
            RUN => Wanted::Run,
            PAUSE => Wanted::Pause,
            _ => Wanted::Cancel,
        }
    }

    /// Has `plan` told of every change from now on.
    pub(crate) fn attach(&self, plan: Weak<dyn Controlled>) {
        self.hub.audience.add(plan);
    }

    /// Waits until something else is wanted than `seen`.
    pub(crate) const fn changed(&self, seen: Wanted) -> Changed<'_> {
        Changed {
            control: self,
            seen,
            number: None,
        }
    }

    fn change(&self, from: u8, to: u8) {
        let state = &self.hub.state;
        let changed = state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        if changed.is_ok() {
            self.tell();
        }
    }

    fn tell(&self) {
        self.hub.audience.tell();
        let waiting = std::mem::take(&mut lock(&self.hub.waiting).wakers);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// Waits for a change; forgotten when dropped.
pub(crate) struct Changed<'a> {
    control: &'a Control,
    seen: Wanted,
    number: Option<u64>,
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Under the lock, so that no change comes between the look and the registration.
        let mut waiting = lock(&self.control.hub.waiting);
        if self.control.wanted() != self.seen {
            return Poll::Ready(());
        }
        let known = self.number;
        let mine = waiting
            .wakers
            .iter_mut()
            .find(|(number, _)| Some(*number) == known);
        if let Some((_, waker)) = mine {
            waker.clone_from(cx.waker());
        } else {
            let number = waiting.next;
            waiting.next += 1;
            waiting.wakers.push((number, cx.waker().clone()));
            self.number = Some(number);
        }
        Poll::Pending
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        if let Some(mine) = self.number {
            let mut waiting = lock(&self.control.hub.waiting);
            waiting.wakers.retain(|(number, _)| *number != mine);
        }
    }
}

impl Audience {
    /// Tells `who` from now on, as long as it is there.
    pub(crate) fn add(&self, who: Weak<dyn Controlled>) {
        let mut inner = lock(&self.inner);
        // A handle may outlive any number of transfers.
        inner.retain(|other| other.strong_count() > 0);
        inner.push(who);
    }

    /// Tells everybody.
    pub(crate) fn tell(&self) {
        // Not under the lock: who is told may have to take others.
        let all: Vec<_> = lock(&self.inner).iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|one| one.on_control());
    }
}

impl std::fmt::Debug for Audience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audience").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under these locks that could leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Controlled for Counts {
        fn on_control(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_was_cancelled_stays_so_and_nobody_is_told_of_what_is_no_change() {
        let control = Control::new();
        let counts = Arc::new(Counts::default());
        let plan: Weak<dyn Controlled> = Arc::downgrade(&counts) as _;
        control.attach(plan);
        control.resume();
        assert_eq!(counts.0.load(Ordering::Relaxed), 0);
        control.pause();
        control.pause();
        assert!(control.is_paused());
        control.cancel();
        control.resume();
        control.pause();
        control.cancel();
        assert!(control.is_cancelled() && !control.is_paused());
        assert_eq!(counts.0.load(Ordering::Relaxed), 2);
        control.set_priority(Priority::High);
        control.set_priority(Priority::High);
        assert_eq!(control.priority(), Priority::High);
        assert_eq!(counts.0.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let control = Control::new();
        for _ in 0..1000 {
            let counts = Arc::new(Counts::default());
            let plan: Weak<dyn Controlled> = Arc::downgrade(&counts) as _;
            control.attach(plan);
        }
        assert_eq!(lock(&control.hub.audience.inner).len(), 1);
    }

    #[test]
    fn who_waits_no_more_is_forgotten_and_who_waits_is_woken() {
        let control = Control::new();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1000 {
            let mut changed = std::pin::pin!(control.changed(Wanted::Run));
            assert!(changed.as_mut().poll(&mut cx).is_pending());
            assert!(changed.as_mut().poll(&mut cx).is_pending());
            assert_eq!(lock(&control.hub.waiting).wakers.len(), 1);
        }
        assert!(lock(&control.hub.waiting).wakers.is_empty());
        let mut changed = std::pin::pin!(control.changed(Wanted::Run));
        assert!(changed.as_mut().poll(&mut cx).is_pending());
        control.pause();
        assert!(changed.as_mut().poll(&mut cx).is_ready());
    }
}
