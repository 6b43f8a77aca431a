//! The stall deadline: requests wait, and the server says nothing.
//!
//! A server may answer keepalives and serve nothing. What counts is bytes of replies: as long as
//! some come, a transfer may take its time. A first stall ends what waits; if what is asked
//! afterwards stalls too, the channel is given up.

use std::time::{Duration, Instant};

/// Default time without a byte of a reply.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Watches for stalls.
#[derive(Debug)]
pub(crate) struct Stall {
    after: Duration,
    /// The last sign of life, or when something was first asked after a pause.
    since: Option<Instant>,
    stalled_before: bool,
}

/// What a stall calls for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// End what waits.
    EndOperations,
    /// End the channel.
    EndChannel,
}

impl Stall {
    /// Allows `after` without a byte.
    pub(crate) const fn new(after: Duration) -> Self {
        Self {
            after,
            since: None,
            stalled_before: false,
        }
    }

    /// A request was sent.
    pub(crate) const fn on_sent(&mut self, now: Instant) {
        if self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// Requests are unanswered that nobody waits for: after a stall, that starts no other one.
    pub(crate) const fn on_unwanted(&mut self, now: Instant) {
        if !self.stalled_before {
            self.on_sent(now);
        }
    }

    /// Bytes of replies came; `waiting` says whether more are to come.
    pub(crate) const fn on_bytes(&mut self, now: Instant, waiting: bool) {
        self.since = if waiting { Some(now) } else { None };
        self.stalled_before = false;
    }

    /// Nothing waits any more.
    pub(crate) const fn on_idle(&mut self) {
        self.since = None;
    }

    /// When [`Stall::check`] will have something to say.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.since.and_then(|since| since.checked_add(self.after))
    }

    /// Says what to do if the deadline has passed.
    pub(crate) fn check(&mut self, now: Instant) -> Option<Verdict> {
        if self.deadline()? > now {
            return None;
        }
        // What is asked next has its whole time again.
        self.since = None;
        if std::mem::replace(&mut self.stalled_before, true) {
            return Some(Verdict::EndChannel);
        }
        Some(Verdict::EndOperations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn the_first_stall_ends_operations_and_the_second_the_channel() {
        let now = Instant::now();
        let mut stall = Stall::new(60 * SECOND);
        assert_eq!(stall.deadline(), None);
        stall.on_sent(now);
        stall.on_sent(now + 30 * SECOND);
        assert_eq!(stall.check(now + 59 * SECOND), None);
        assert_eq!(stall.check(now + 60 * SECOND), Some(Verdict::EndOperations));
        stall.on_idle();
        assert_eq!(stall.check(now + 500 * SECOND), None);
        stall.on_sent(now + 500 * SECOND);
        assert_eq!(stall.check(now + 560 * SECOND), Some(Verdict::EndChannel));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn what_is_asked_after_a_stall_has_its_whole_time() {
        let now = Instant::now();
        let mut stall = Stall::new(60 * SECOND);
        stall.on_sent(now);
        assert_eq!(stall.check(now + 60 * SECOND), Some(Verdict::EndOperations));
        stall.on_unwanted(now + 60 * SECOND);
        assert_eq!(stall.deadline(), None, "nobody waits");
        stall.on_sent(now + 110 * SECOND);
        stall.on_unwanted(now + 115 * SECOND);
        assert_eq!(stall.check(now + 169 * SECOND), None);
        assert_eq!(stall.check(now + 170 * SECOND), Some(Verdict::EndChannel));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn every_byte_is_a_sign_of_life() {
        let now = Instant::now();
        let mut stall = Stall::new(60 * SECOND);
        stall.on_sent(now);
        assert_eq!(stall.check(now + 60 * SECOND), Some(Verdict::EndOperations));
        stall.on_bytes(now + 61 * SECOND, true);
        assert_eq!(stall.check(now + 120 * SECOND), None);
        assert_eq!(
            stall.check(now + 121 * SECOND),
            Some(Verdict::EndOperations)
        );
        stall.on_bytes(now + 130 * SECOND, false);
        assert_eq!(stall.deadline(), None);
    }
}
