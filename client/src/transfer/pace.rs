//! How many bytes to have in flight: as few as keep the path full.
//!
//! A server's cost grows with what waits inside it, and a long path needs much in flight. So one
//! budget for each direction of a connection follows what is measured: it doubles every round as
//! long as the delivery rate grows with it; when it no longer does, it falls back to rate × round
//! trip time and a margin. Now and then a round with more shows whether the path has changed.
//! A round ends when something is answered that was asked after the round began.
//!
//! The machine has no clock: time comes with each fact.

use std::time::{Duration, Instant};

/// The numbers that differ between the directions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knobs {
    /// Bytes in flight on a path without delay: the start, and never less.
    pub floor: usize,
    /// The start on a path with a round trip of [`FAR`] or more.
    pub start_far: usize,
    /// Never more than this many bytes.
    pub ceiling: usize,
    /// Never more than this many bytes while the round trip is shorter than [`NEAR`].
    pub ceiling_near: usize,
    /// What is allowed beside rate × round trip time, for unsteady answers.
    pub margin: usize,
    /// Percent of rate × round trip time that may be in flight.
    pub gain_percent: usize,
}

/// Downloads: 1 MiB is enough on loopback, and asking in lots of half the budget lets both sides work
/// in longer runs: with 2 MiB the client's processor time fell by an eighth.
pub(crate) const DOWN: Knobs = Knobs {
    floor: 2 * 1024 * 1024,
    start_far: 4 * 1024 * 1024,
    ceiling: 64 * 1024 * 1024,
    ceiling_near: 4 * 1024 * 1024,
    margin: 512 * 1024,
    gain_percent: 200,
};

/// Uploads: sshd ran 1.6 times as fast with 256 to 384 KiB unanswered as with its window full.
pub(crate) const UP: Knobs = Knobs {
    floor: 320 * 1024,
    start_far: 1024 * 1024,
    ceiling: 64 * 1024 * 1024,
    ceiling_near: 384 * 1024,
    margin: 256 * 1024,
    gain_percent: 100,
};

/// A round trip below which a path counts as none: what waits there waits in the server's buffers,
/// however the rate of a round may look.
pub(crate) const NEAR: Duration = Duration::from_millis(1);

/// A round trip from which on a path counts as long.
pub(crate) const FAR: Duration = Duration::from_millis(5);

/// The rate has to grow by this much, in percent, for the budget to grow on.
const GROWTH_PERCENT: u64 = 25;
/// Rounds without such growth after which it is over.
const FLAT_ROUNDS_MAX: u32 = 2;
/// Rounds between two tries with a larger budget.
const PROBE_ROUNDS: u32 = 16;
/// Turns of the driver have no finer time than this.
const INTERVAL_MIN: Duration = Duration::from_micros(20);

/// The budget of bytes in flight in one direction.
#[derive(Debug)]
pub(crate) struct Pace {
    knobs: Knobs,
    budget: usize,
    in_flight: usize,
    phase: Phase,
    min_rtt: Option<Duration>,
    /// Bytes answered since the beginning.
    delivered: u64,
    /// Bytes a second: the best of the recent rounds.
    best: u64,
    round: Round,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Growing { flat_rounds: u32 },
    Steady { rounds: u32 },
    Probing,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// `delivered` when the round began.
    from: u64,
    began: Option<Instant>,
    /// Whether the budget held anything back in this round: otherwise its rate says nothing.
    limited: bool,
}

/// What a request carries with it until it is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    at: Instant,
    delivered: u64,
    bytes: usize,
}

impl Pace {
    /// A path about which nothing is known.
    pub(crate) const fn new(knobs: Knobs) -> Self {
        let round = Round {
            from: 0,
            began: None,
            limited: false,
        };
        Self {
            knobs,
            budget: knobs.floor,
            in_flight: 0,
            phase: Phase::Growing { flat_rounds: 0 },
            min_rtt: None,
            delivered: 0,
            best: 0,
            round,
        }
    }

    /// Bytes that may be asked for now.
    pub(crate) const fn available(&self) -> usize {
        self.budget.saturating_sub(self.in_flight)
    }

    /// Bytes in flight.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes that may be in flight in all.
    pub(crate) const fn budget(&self) -> usize {
        self.budget
    }

    /// The shortest round trip seen.
    pub(crate) const fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// Records the time that a small request took.
    pub(crate) fn on_round_trip(&mut self, took: Duration) {
        if self.min_rtt.is_none() && took >= FAR {
            self.budget = self.knobs.start_far;
        }
        self.min_rtt = Some(self.min_rtt.map_or(took, |rtt| rtt.min(took)));
    }

    /// Records that something had to wait for the budget.
    pub(crate) const fn on_limited(&mut self) {
        self.round.limited = true;
    }

    /// Records that `bytes` were asked for, or sent; the result goes with the request.
    pub(crate) fn on_sent(&mut self, bytes: usize, now: Instant) -> Sent {
        self.in_flight = self.in_flight.saturating_add(bytes);
        if self.round.began.is_none() {
            self.round = Round {
                from: self.delivered,
                began: Some(now),
                limited: false,
            };
        }
        Sent {
            at: now,
            delivered: self.delivered,
            bytes,
        }
    }

    /// What a request carries that asks for nothing, or not yet.
    pub(crate) const fn nothing(&self, now: Instant) -> Sent {
        Sent {
            at: now,
            delivered: self.delivered,
            bytes: 0,
        }
    }

    /// Records that a request was answered, or failed, or was given up.
    pub(crate) fn on_answered(&mut self, sent: Sent, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(sent.bytes);
        self.delivered = self.delivered.saturating_add(sent.bytes as u64);
        self.on_round_trip(now.saturating_duration_since(sent.at).max(INTERVAL_MIN));
        let Some(began) = self.round.began else {
            return;
        };
        if sent.delivered < self.round.from {
            return; // asked before the round began
        }
        let took = now.saturating_duration_since(began).max(INTERVAL_MIN);
        let moved = self.delivered.saturating_sub(self.round.from);
        let rate = u128::from(moved) * 1_000_000_000 / took.as_nanos();
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        // A first round also holds the wait for its first answer; its rate is a lower bound.
        self.end_round(rate);
        let idle = self.in_flight == 0;
        self.round = Round {
            from: self.delivered,
            began: (!idle).then_some(now),
            limited: false,
        };
    }

    /// Records that the answer to a request is not waited for any more.
    pub(crate) const fn on_forgotten(&mut self, sent: Sent) {
        self.in_flight = self.in_flight.saturating_sub(sent.bytes);
    }

    fn end_round(&mut self, rate: u64) {
        if !self.round.limited {
            self.best = self.best.max(rate);
            return;
        }
        let grew = rate > self.best.saturating_add(self.best / 100 * GROWTH_PERCENT);
        match self.phase {
            Phase::Growing { .. } if grew => {
                self.best = rate;
                self.phase = Phase::Growing { flat_rounds: 0 };
                self.set_budget(self.budget.saturating_mul(2));
            }
            Phase::Growing { flat_rounds } if flat_rounds < FLAT_ROUNDS_MAX => {
                self.best = self.best.max(rate);
                self.phase = Phase::Growing {
                    flat_rounds: flat_rounds + 1,
                };
            }
            Phase::Probing if grew => {
                self.best = rate;
                self.phase = Phase::Growing { flat_rounds: 0 };
            }
            Phase::Growing { .. } | Phase::Probing => {
                self.phase = Phase::Steady { rounds: 0 };
                self.best = self.best.max(rate);
                self.settle();
            }
            Phase::Steady { rounds } if rounds < PROBE_ROUNDS => {
                // The best fades, so that a path that became slow is noticed.
                self.best = (self.best - self.best / 32).max(rate);
                self.phase = Phase::Steady { rounds: rounds + 1 };
                self.settle();
            }
            Phase::Steady { .. } => {
                self.phase = Phase::Probing;
                self.set_budget(self.budget + self.budget / 2);
            }
        }
    }

    /// Falls back to what rate and round trip time ask for.
    fn settle(&mut self) {
        let rtt = self.min_rtt.unwrap_or(INTERVAL_MIN);
        let product = u128::from(self.best) * rtt.as_nanos() / 1_000_000_000;
        let product = usize::try_from(product).unwrap_or(usize::MAX);
        let wanted = (product / 100).saturating_mul(self.knobs.gain_percent);
        self.set_budget(wanted.saturating_add(self.knobs.margin));
    }

    fn set_budget(&mut self, bytes: usize) {
        let is_near = self.min_rtt.is_some_and(|rtt| rtt < NEAR);
        let ceiling = if is_near {
            self.knobs.ceiling_near
        } else {
            self.knobs.ceiling
        };
        self.budget = bytes.clamp(self.knobs.floor, ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A path with a delay and a bottleneck, fed for `seconds` by a sender that always has more.
    fn settle_on(knobs: Knobs, rtt: Duration, bytes_per_second: u64, seconds: u64) -> Pace {
        const PIECE: usize = 65_523;
        #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
        let origin = Instant::now();
        let mut now = origin;
        let mut free_at = origin; // when the bottleneck has served all that was sent
        let mut pace = Pace::new(knobs);
        pace.on_round_trip(rtt);
        let service = Duration::from_nanos(PIECE as u64 * 1_000_000_000 / bytes_per_second);
        let mut flying: VecDeque<(Instant, Sent)> = VecDeque::new();
        while now < origin + Duration::from_secs(seconds) {
            while pace.available() >= PIECE {
                let sent = pace.on_sent(PIECE, now);
                free_at = free_at.max(now) + service;
                flying.push_back((free_at + rtt, sent));
            }
            pace.on_limited();
            let (at, sent) = flying.pop_front().expect("the floor is above a piece");
            now = at;
            pace.on_answered(sent, now);
        }
        pace
    }

    #[test]
    fn a_path_without_delay_keeps_little_in_flight() {
        let pace = settle_on(UP, Duration::from_micros(50), 1 << 30, 2);
        assert!(pace.budget() <= 2 * UP.floor, "{}", pace.budget());
        let pace = settle_on(DOWN, Duration::from_micros(50), 1 << 30, 2);
        assert!(pace.budget() <= 2 * DOWN.floor, "{}", pace.budget());
    }

    #[test]
    fn a_long_path_is_filled() {
        // 50 ms at 400 MB/s: 20 MB are on their way when the path is full.
        let pace = settle_on(DOWN, Duration::from_millis(50), 400_000_000, 4);
        assert!(pace.budget() >= 20_000_000, "{}", pace.budget());
        assert!(pace.budget() <= DOWN.ceiling);
        let rate = pace.best;
        assert!(rate > 300_000_000, "{rate}");
    }

    #[test]
    fn a_slow_link_is_not_stuffed() {
        // 10 Mbit/s at 20 ms: 25 kB are on their way; more only waits.
        let pace = settle_on(DOWN, Duration::from_millis(20), 1_250_000, 60);
        assert!(pace.budget() <= 2 * DOWN.floor, "{}", pace.budget());
    }

    #[test]
    fn a_transfer_that_asks_for_little_leaves_the_budget_alone() {
        #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
        let mut now = Instant::now();
        let mut pace = Pace::new(DOWN);
        for _ in 0..1000 {
            let sent = pace.on_sent(4096, now);
            now += Duration::from_millis(1);
            pace.on_answered(sent, now);
        }
        assert_eq!(pace.budget(), DOWN.floor);
        assert_eq!(pace.available(), DOWN.floor);
    }
}
