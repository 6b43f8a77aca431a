//! A link as a model: a rate, a delay, a buffer in front of it, and loss. No socket and no clock.
//!
//! What is offered at a time either comes out at a later one or is lost. The delay proxy
//! ([`crate::delay_proxy`]) and the relay between two namespaces ([`crate::relay`]) both run one of
//! these for each direction.

use std::time::{Duration, Instant};

/// What a link is like, in one direction.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// What it carries, in bytes a second.
    pub bytes_per_s: u64,
    /// How long what it carries is under way.
    pub delay: Duration,
    /// Most bytes that wait for it; more are dropped. `None` drops nothing.
    pub buffer_bytes: Option<u64>,
    /// How many of a million packets are lost for no reason.
    pub loss_per_million: u32,
    /// Which ones they are.
    pub seed: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    /// When everything that was taken has left the buffer.
    free_at: Option<Instant>,
    random: u64,
    carried_bytes: u64,
    full: u64,
    lost: u64,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It comes out then.
    Arrives(Instant),
    /// The buffer was full.
    Full,
    /// It was lost on the way.
    Lost,
}

impl Link {
    /// An idle link.
    #[must_use]
    pub const fn new(config: LinkConfig) -> Self {
        Self {
            config,
            free_at: None,
            random: config.seed,
            carried_bytes: 0,
            full: 0,
            lost: 0,
        }
    }

    /// Takes `len` bytes at `now`, or drops them.
    pub fn offer(&mut self, now: Instant, len: usize) -> Fate {
        let len = len as u64;
        let backlog = self.backlog(now);
        let buffer = self.config.buffer_bytes;
        if buffer.is_some_and(|buffer| backlog.saturating_add(len) > buffer) {
            self.full += 1;
            return Fate::Full;
        }
        let starts = self.free_at.map_or(now, |free_at| free_at.max(now));
        let free_at = starts + self.time_of(len);
        self.free_at = Some(free_at);
        // Lost behind the buffer, where it has taken its time.
        if self.config.loss_per_million > 0 && self.draw() < self.config.loss_per_million {
            self.lost += 1;
            return Fate::Lost;
        }
        self.carried_bytes += len;
        Fate::Arrives(free_at + self.config.delay)
    }

    /// Bytes that wait for the link at `now`.
    #[must_use]
    pub fn backlog(&self, now: Instant) -> u64 {
        let wait = self.wait(now).as_nanos();
        let bytes = wait * u128::from(self.config.bytes_per_s) / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// How long something offered at `now` waits before it is on its way.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        self.free_at.map_or(Duration::ZERO, |free_at| {
            free_at.saturating_duration_since(now)
        })
    }

    /// Bytes that came out, or will.
    #[must_use]
    pub const fn carried_bytes(&self) -> u64 {
        self.carried_bytes
    }

    /// Packets that met a full buffer, and packets that were lost.
    #[must_use]
    pub const fn dropped(&self) -> (u64, u64) {
        (self.full, self.lost)
    }

    fn time_of(&self, len: u64) -> Duration {
        let nanos = u128::from(len) * 1_000_000_000 / u128::from(self.config.bytes_per_s.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// A number below a million (SplitMix64).
    fn draw(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u32::try_from((z ^ (z >> 31)) % 1_000_000).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a time to begin with")]

    use super::*;

    const CONFIG: LinkConfig = LinkConfig {
        bytes_per_s: 1_000_000,
        delay: Duration::from_millis(10),
        buffer_bytes: Some(3000),
        loss_per_million: 0,
        seed: 7,
    };

    #[test]
    fn packets_queue_behind_each_other_and_then_take_the_delay() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let mut link = Link::new(CONFIG);
        assert_eq!(link.offer(now, 1000), Fate::Arrives(now + ms(11)));
        assert_eq!(link.offer(now, 1000), Fate::Arrives(now + ms(12)));
        assert_eq!(link.backlog(now), 2000);
        assert_eq!(link.backlog(now + ms(1)), 1000);
        let later = now + ms(500);
        assert_eq!(link.offer(later, 1000), Fate::Arrives(later + ms(11)));
        assert_eq!(link.carried_bytes(), 3000);
    }

    #[test]
    fn what_meets_a_full_buffer_is_dropped() {
        let now = Instant::now();
        let mut link = Link::new(CONFIG);
        for _ in 0..3 {
            assert!(matches!(link.offer(now, 1000), Fate::Arrives(_)));
        }
        assert_eq!(link.offer(now, 1), Fate::Full);
        assert_eq!(link.dropped(), (1, 0));
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let now = Instant::now();
        let lossy = LinkConfig {
            loss_per_million: 100_000,
            buffer_bytes: None,
            ..CONFIG
        };
        let fates = |config| {
            let mut link = Link::new(config);
            (0..1000)
                .map(|_| link.offer(now, 10) == Fate::Lost)
                .collect::<Vec<_>>()
        };
        let lost = fates(lossy);
        assert_eq!(lost, fates(lossy));
        let count = lost.iter().filter(|lost| **lost).count();
        assert!((70..130).contains(&count), "{count} of 1000 at a tenth");
    }
}
