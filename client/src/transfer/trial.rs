//! Whether the channels and connections that were opened further pay, as a machine: time and bytes
//! in, orders out.
//!
//! Nothing says beforehand whether a second connection makes a transfer faster: the server may have
//! one processor, or the path be full. So where much is left to do it is tried once: for a while
//! all work, then those that were opened further are held, and the first works alone. If all were
//! not faster than the one, the others go, give back what they had, and no more are opened. What is
//! held meanwhile costs a fraction of what is left ([`WORTH`]); shorter transfers are not tried.

use std::time::{Duration, Instant};

/// How long each side of the comparison is looked at, at least.
const SPAN: Duration = Duration::from_millis(500);
/// And in round trips: rates settle after a few.
const SPAN_TRIPS: u32 = 20;
/// So many times what moves in one span has to be left.
const WORTH: u64 = 40;
/// All have to move so much more than the one, in percent.
const GAIN_PERCENT: u64 = 5;

/// What is seen of a transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Channels at work.
    pub workers: usize,
    /// Bytes moved.
    pub moved: u64,
    /// Bytes left to move, as far as is known.
    pub left: u64,
    pub rtt: Option<Duration>,
    /// It is paused, or has a limit: its rate says nothing.
    pub is_bound: bool,
}

/// What those that were opened further are to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// To send nothing for now.
    Hold,
    /// To go on.
    Work,
    /// To give back what they have, and go.
    Leave,
}

/// The comparison.
#[derive(Debug, Default)]
pub(crate) struct Trial {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Nothing to compare.
    #[default]
    Idle,
    /// Those that came are finding their pace.
    Warming { until: Instant },
    /// All work.
    Together { since: Instant, moved: u64 },
    /// What is under way for those that are held comes in.
    Draining { together: u64, until: Instant },
    /// One works alone.
    Alone {
        together: u64,
        since: Instant,
        moved: u64,
    },
    /// It is known.
    Over,
}

impl Trial {
    /// What has changed by now; to be called at the [deadline](Self::deadline), or when anything
    /// happened.
    pub(crate) fn poll(&mut self, now: Instant, seen: &Seen) -> Option<Order> {
        if matches!(self.state, State::Over) {
            return None;
        }
        if seen.workers < 2 || seen.is_bound {
            let was_holding = self.is_holding();
            self.state = State::Idle;
            return was_holding.then_some(Order::Work);
        }
        let span = span(seen.rtt);
        let passed = |since: Instant| now.saturating_duration_since(since);
        match self.state {
            State::Idle => {
                self.state = State::Warming { until: now + span };
            }
            State::Warming { until } if now >= until => {
                let (since, moved) = (now, seen.moved);
                self.state = State::Together { since, moved };
            }
            State::Together { since, moved } if passed(since) >= span => {
                let moved_now = seen.moved.saturating_sub(moved);
                if moved_now == 0 || seen.left < moved_now.saturating_mul(WORTH) {
                    let (since, moved) = (now, seen.moved);
                    self.state = State::Together { since, moved };
                    return None;
                }
                let together = rate(moved_now, passed(since));
                let until = now + span / 2;
                self.state = State::Draining { together, until };
                return Some(Order::Hold);
            }
            State::Draining { together, until } if now >= until => {
                self.state = State::Alone {
                    together,
                    since: now,
                    moved: seen.moved,
                };
            }
            State::Alone {
                together,
                since,
                moved,
            } if passed(since) >= span => {
                self.state = State::Over;
                let alone = rate(seen.moved.saturating_sub(moved), passed(since));
                let needed = alone.saturating_add(alone / 100 * GAIN_PERCENT);
                tracing::debug!(together, alone, "bytes a second, of all and of one");
                return Some(if together > needed {
                    Order::Work
                } else {
                    Order::Leave
                });
            }
            State::Warming { .. }
            | State::Together { .. }
            | State::Draining { .. }
            | State::Alone { .. }
            | State::Over => {}
        }
        None
    }

    /// Whether those that were opened further are held now.
    pub(crate) const fn is_holding(&self) -> bool {
        matches!(self.state, State::Draining { .. } | State::Alone { .. })
    }

    /// When to ask next.
    pub(crate) fn deadline(&self, rtt: Option<Duration>) -> Option<Instant> {
        match self.state {
            State::Idle | State::Over => None,
            State::Warming { until } | State::Draining { until, .. } => Some(until),
            State::Together { since, .. } | State::Alone { since, .. } => Some(since + span(rtt)),
        }
    }
}

fn span(rtt: Option<Duration>) -> Duration {
    SPAN.max(
        rtt.unwrap_or_default()
            .saturating_mul(SPAN_TRIPS)
            .min(20 * SPAN),
    )
}

/// Bytes a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let nanos = time.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;
    const STEP: Duration = Duration::from_millis(20);

    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn origin() -> Instant {
        Instant::now()
    }

    /// A transfer of `total` bytes at so many a second by one and by all; says which orders were
    /// given, and how much longer it took than all together would have.
    fn run(total: u64, alone: u64, together: u64) -> (Vec<Order>, f64) {
        let (start, mut trial, mut orders) = (origin(), Trial::default(), Vec::new());
        let (mut moved, mut time, mut workers) = (0, Duration::ZERO, 2);
        while moved < total {
            let seen = Seen {
                workers,
                moved,
                left: total - moved,
                rtt: Some(Duration::from_millis(1)),
                is_bound: false,
            };
            if let Some(order) = trial.poll(start + time, &seen) {
                orders.push(order);
                if order == Order::Leave {
                    workers = 1;
                }
            }
            let rate = if workers == 1 || trial.is_holding() {
                alone
            } else {
                together
            };
            moved += rate / 50;
            time += STEP;
        }
        let number = |n: u64| f64::from(u32::try_from(n / 1024).unwrap());
        let ideal = number(total) / number(together.max(alone));
        (orders, time.as_secs_f64() / ideal)
    }

    #[test]
    fn what_does_not_pay_is_given_up_once() {
        let (orders, longer) = run(40_000 * MIB, 400 * MIB, 400 * MIB);
        assert_eq!(orders, [Order::Hold, Order::Leave]);
        assert!(longer < 1.02, "{longer}");
        // Worse than one alone, as three connections on a short path were.
        let (orders, longer) = run(40_000 * MIB, 400 * MIB, 300 * MIB);
        assert_eq!(orders, [Order::Hold, Order::Leave]);
        assert!(longer < 1.02, "{longer}");
    }

    #[test]
    fn what_pays_stays_and_the_question_costs_little() {
        let (orders, longer) = run(40_000 * MIB, 400 * MIB, 700 * MIB);
        assert_eq!(orders, [Order::Hold, Order::Work]);
        assert!(longer < 1.02, "{longer}");
    }

    #[test]
    fn where_little_is_left_nothing_is_tried() {
        for together in [300, 400, 700] {
            let (orders, _) = run(4_000 * MIB, 400 * MIB, together * MIB);
            assert_eq!(orders, []);
        }
    }

    #[test]
    fn who_is_paused_or_alone_is_not_compared_and_nobody_stays_held() {
        let start = origin();
        let mut trial = Trial::default();
        let mut seen = Seen {
            workers: 2,
            moved: 0,
            left: 1 << 50,
            rtt: None,
            is_bound: false,
        };
        let mut now = start;
        while !trial.is_holding() {
            trial.poll(now, &seen);
            seen.moved += MIB;
            now += STEP;
        }
        seen.is_bound = true;
        assert_eq!(trial.poll(now, &seen), Some(Order::Work));
        assert_eq!(trial.deadline(None), None);
        seen.is_bound = false;
        seen.workers = 1;
        assert_eq!(trial.poll(now, &seen), None);
        assert_eq!(trial.deadline(None), None);
    }

    proptest! {
        #[test]
        fn who_is_held_is_told_to_go_on_or_to_leave(
            steps in proptest::collection::vec((0..3_usize, 0..50_000_000_u64, 0..800_u64, any::<bool>()), 1..200),
        ) {
            let mut now = origin();
            let mut trial = Trial::default();
            let (mut held, mut over, mut moved) = (false, false, 0);
            for (workers, bytes, millis, is_bound) in steps {
                now += Duration::from_millis(millis);
                moved += bytes;
                let seen = Seen { workers, moved, left: 1 << 50, rtt: None, is_bound: is_bound && bytes % 7 == 0 };
                match trial.poll(now, &seen) {
                    Some(Order::Hold) => {
                        prop_assert!(!held && !over);
                        held = true;
                    }
                    Some(order) => {
                        prop_assert!(held);
                        held = false;
                        over |= order == Order::Leave;
                    }
                    None => {}
                }
                prop_assert_eq!(held, trial.is_holding());
                // Whoever is held has an end of it to wait for.
                prop_assert!(!held || trial.deadline(None).is_some());
            }
        }
    }
}
