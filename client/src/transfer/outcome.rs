//! Waiting for what becomes of a plan.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    error::TransferError,
    plan::{Plan, Work},
    report::Report,
};
use crate::requests::calls::{Shared, Submission};

/// Waits for the outcome of a plan; dropping it gives the plan up.
pub(crate) struct Outcome<W: Work> {
    plan: Arc<Plan<W>>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for further workers"))]
    options: W::Options,
    over: bool,
}

impl<W: Work> Outcome<W> {
    /// Has `plan` worked off on the channel that `shared` leads to, and waits for it.
    pub(crate) fn start(plan: Arc<Plan<W>>, options: W::Options, shared: &Arc<Shared>) -> Self {
        let worker = W::worker(&plan, &options, shared, None, true);
        shared.submit(Submission::Job(worker));
        Self {
            plan,
            options,
            over: false,
        }
    }

    /// Has another channel work on it as well.
    #[cfg(test)]
    pub(crate) fn add_worker(&self, shared: &Arc<Shared>) {
        let worker = W::worker(&self.plan, &self.options, shared, None, true);
        shared.submit(Submission::Job(worker));
    }

    /// The plan.
    #[cfg(test)]
    pub(crate) const fn plan(&self) -> &Arc<Plan<W>> {
        &self.plan
    }
}

impl<W: Work> Future for Outcome<W>
where
    W::Options: Unpin,
{
    type Output = Result<Report, TransferError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = self.plan.poll_outcome(cx);
        self.over |= outcome.is_ready();
        outcome
    }
}

impl<W: Work> Drop for Outcome<W> {
    fn drop(&mut self) {
        if !self.over {
            self.plan.give_up();
        }
    }
}
