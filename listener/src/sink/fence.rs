//! Whether a delivery may still become visible: asked right before the step that makes it so.
//!
//! Who was held up for long may have lost its claim, and what it was about to put in place may be
//! older than what is there by now. Work that was broken off goes on where it may block. Both meet
//! this on their last step: the flow has closed it, or the ledger says that the claim is another's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::runtime::Handle;

use super::{Answer, SinkError};

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const CLOSED: u8 = 2;

/// Asks the ledger whether a claim still holds.
pub trait StillOurs: Send + Sync + 'static {
    /// An error, [`SinkError::Fenced`], if it does not, or if that cannot be told.
    fn still_ours(&self) -> Answer<'_, ()>;
}

/// What stands in front of the visible step of a delivery. Clones are the same fence.
#[derive(Clone)]
pub struct Fence {
    state: Arc<AtomicU8>,
    asked: Option<Arc<dyn StillOurs>>,
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.load(Ordering::Acquire);
        f.debug_struct("Fence").field("state", &state).finish()
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::open()
    }
}

impl Fence {
    /// One that lets everything pass until it is closed: for programs without a ledger.
    #[must_use]
    pub fn open() -> Self {
        Self {
            state: Arc::new(AtomicU8::new(OPEN)),
            asked: None,
        }
    }

    /// One that asks.
    #[must_use]
    pub fn asking(asked: Arc<dyn StillOurs>) -> Self {
        Self {
            asked: Some(asked),
            ..Self::open()
        }
    }

    /// To be passed right before the step that makes a delivery visible.
    ///
    /// # Errors
    /// [`SinkError::Fenced`]: the step must not be made.
    pub async fn pass(&self) -> Result<(), SinkError> {
        self.ask().await?;
        let passed = self
            .state
            .compare_exchange(OPEN, PASSED, Ordering::AcqRel, Ordering::Acquire);
        match passed {
            Ok(_) | Err(PASSED) => Ok(()),
            Err(_) => Err(SinkError::lost()),
        }
    }

    /// Whether it would let pass, for what nobody sees but others rely on. Nothing has passed by that.
    ///
    /// # Errors
    /// [`SinkError::Fenced`]: it would not.
    pub async fn ask(&self) -> Result<(), SinkError> {
        if let Some(asked) = &self.asked {
            asked.still_ours().await?;
        }
        match self.state.load(Ordering::Acquire) {
            CLOSED => Err(SinkError::lost()),
            _ => Ok(()),
        }
    }

    /// The same as [`Fence::ask`] where it may block; `runtime` is the one that the flow runs on.
    ///
    /// # Errors
    /// [`SinkError::Fenced`].
    pub fn ask_blocking(&self, runtime: &Handle) -> Result<(), SinkError> {
        runtime.block_on(self.ask())
    }

    /// The same as [`Fence::pass`] where it may block; `runtime` is the one that the flow runs on.
    ///
    /// # Errors
    /// [`SinkError::Fenced`].
    pub fn pass_blocking(&self, runtime: &Handle) -> Result<(), SinkError> {
        runtime.block_on(self.pass())
    }

    /// Lets nothing pass any more; whether nothing had. If something had, it may become visible at
    /// any time, so whatever it is may not be begun again before its claim runs out.
    pub fn close(&self) -> bool {
        let closed = self
            .state
            .compare_exchange(OPEN, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        !matches!(closed, Err(PASSED))
    }

    /// What passed is done: the next delivery of the same claim has to pass again.
    pub(crate) fn done(&self) {
        let _ = self
            .state
            .compare_exchange(PASSED, OPEN, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(bool);

    impl StillOurs for Says {
        fn still_ours(&self) -> Answer<'_, ()> {
            Box::pin(async { self.0.then_some(()).ok_or_else(SinkError::lost) })
        }
    }

    #[tokio::test]
    async fn what_is_closed_or_lost_does_not_pass() {
        let fence = Fence::asking(Arc::new(Says(true)));
        fence.ask().await.expect("open");
        assert!(fence.clone().close(), "who asks has not passed");
        assert!(matches!(fence.ask().await, Err(SinkError::Fenced(_))));
        let fence = Fence::asking(Arc::new(Says(true)));
        fence.pass().await.expect("open");
        assert!(!fence.close(), "something passed");
        fence.done();
        assert!(fence.close(), "that is over");
        assert!(matches!(fence.pass().await, Err(SinkError::Fenced(_))));
        assert!(matches!(fence.ask().await, Err(SinkError::Fenced(_))));
        assert!(fence.close());
        let fence = Fence::asking(Arc::new(Says(true)));
        fence.ask().await.expect("open");
        assert!(fence.close(), "who asks has not passed");
        let fence = Fence::asking(Arc::new(Says(false)));
        assert!(matches!(fence.ask().await, Err(SinkError::Fenced(_))));
        assert!(matches!(fence.pass().await, Err(SinkError::Fenced(_))));
        assert!(fence.close(), "nothing passed");
    }
}
