//! How long to wait: exponential, with full jitter, and spread where many were hit at once.
//!
//! Ours, because it is a page: the crate at hand adds its jitter to the pause, so that a thousand
//! clients which fail together come back within the same second after it.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::Reconnect;

/// The pauses of one server's client. No clock: times are handed in and out.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    spread: Duration,
    healthy: Duration,
    failures: u32,
    /// A connection was lost and none was made since.
    after_loss: bool,
    chance: u64,
}

impl Backoff {
    pub(super) fn new(policy: &Reconnect) -> Self {
        Self {
            first: policy.first,
            max: policy.max,
            spread: policy.spread,
            healthy: policy.healthy,
            failures: 0,
            after_loss: false,
            chance: policy
                .seed
                .unwrap_or_else(|| RandomState::new().hash_one(0)),
        }
    }

    /// An attempt failed, or is about to be made and will have if nothing else is heard of it.
    pub(super) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.pause()
    }

    /// There is a connection. Failures before it are forgotten only when it has lived.
    pub(super) const fn made(&mut self) {
        self.failures = self.failures.saturating_sub(1); // its own attempt was none
        self.after_loss = false;
    }

    /// The connection was lost after so long.
    pub(super) fn lost(&mut self, lived: Duration) -> Duration {
        self.after_loss = true;
        if lived >= self.healthy {
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        self.pause()
    }

    /// A random part of what it may be at most.
    ///
    /// After a loss everybody who lost the same server has the same clock, so the doubling begins
    /// with the spread: quick second attempts would add up while the first are still coming.
    fn pause(&mut self) -> Duration {
        let (begin, doublings) = if self.after_loss {
            (self.first.max(self.spread), self.failures)
        } else {
            (self.first, self.failures.saturating_sub(1))
        };
        let most = begin
            .saturating_mul(1 << doublings.min(31))
            .min(self.max.max(begin));
        let part = (most.as_nanos() * u128::from(self.next())) >> 64;
        Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): even, and enough for pauses.
    const fn next(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(&Reconnect {
            seed: Some(seed),
            ..Reconnect::default()
        })
    }

    /// The longest of many draws is near the bound, and the mean near its half.
    fn assert_full_jitter(draws: &[Duration], most: Duration) {
        let longest = draws.iter().max().unwrap();
        assert!(
            *longest <= most && *longest > most * 9 / 10,
            "{longest:?} of {most:?}"
        );
        let count = u32::try_from(draws.len()).unwrap();
        let mean = draws.iter().sum::<Duration>() / count;
        assert!(
            mean > most * 2 / 5 && mean < most * 3 / 5,
            "{mean:?} of {most:?}"
        );
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_a_random_part_of_it() {
        let mut all: Vec<_> = (0..400).map(backoff).collect();
        for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
            let draws: Vec<_> = all.iter_mut().map(Backoff::failed).collect();
            assert_full_jitter(&draws, Duration::from_secs(secs));
        }
    }

    #[test]
    fn a_loss_is_spread_and_a_healthy_life_forgets_failures() {
        let mut all: Vec<_> = (0..400).map(backoff).collect();
        let lived = |all: &mut Vec<Backoff>, secs| -> Vec<_> {
            let lived = Duration::from_secs(secs);
            all.iter_mut().map(|one| one.lost(lived)).collect()
        };
        assert_full_jitter(&lived(&mut all, 60), Duration::from_secs(30));
        for one in &mut all {
            (0..6).for_each(|_| {
                one.failed();
            });
            one.made();
        }
        // It did not live long enough: the pauses go on growing.
        assert_full_jitter(&lived(&mut all, 59), Duration::from_secs(60));
        all.iter_mut().for_each(Backoff::made);
        assert_full_jitter(&lived(&mut all, 60), Duration::from_secs(30));
    }

    #[test]
    fn two_clients_do_not_draw_the_same() {
        let mut clients = [Reconnect::default(), Reconnect::default()].map(|p| Backoff::new(&p));
        let [a, b] = clients.each_mut().map(Backoff::failed);
        assert_ne!(a, b);
    }

    /// When the attempts of a thousand clients come that lose their server for so long, in
    /// milliseconds, those that succeed apart.
    fn storm(down: Duration, seed: u64) -> (Vec<u128>, Vec<u128>) {
        let (mut attempts, mut successes) = (Vec::new(), Vec::new());
        for client in 0..1000 {
            let mut backoff = backoff(seed * 1_000_003 + client);
            let mut at = backoff.lost(Duration::from_secs(3600));
            loop {
                attempts.push(at.as_millis());
                if at >= down {
                    successes.push(at.as_millis());
                    break;
                }
                at += backoff.failed();
            }
        }
        attempts.sort_unstable();
        (attempts, successes)
    }

    /// The most that come within any one second.
    fn peak(times: &[u128]) -> usize {
        let within = |from: u128| times.partition_point(|at| *at < from + 1000);
        let windows = times.iter().enumerate();
        windows.map(|(n, at)| within(*at) - n).max().unwrap_or(0)
    }

    /// At most a tenth of a thousand clients tries in the same second, however long the server is
    /// away.
    #[test]
    fn a_thousand_clients_do_not_come_back_at_once() {
        for down in [0, 1, 5, 20, 45, 120, 600].map(Duration::from_secs) {
            for seed in 1..=5 {
                let (attempts, mut successes) = storm(down, seed);
                successes.sort_unstable();
                let (tried, through) = (peak(&attempts), peak(&successes));
                println!("down {down:?}, seed {seed}: {tried} tried, {through} through");
                assert!(tried <= 100, "{tried} tried within a second, seed {seed}");
                assert!(
                    through <= 100,
                    "{through} through within a second, seed {seed}"
                );
            }
        }
    }
}
