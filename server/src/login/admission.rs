//! Who may come in at all, and who may have something computed: bounds on connections before anybody
//! is known.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::login::penalties::{Offence, Offenders, Penalties};
use crate::observer::NotAdmitted;

/// Bounds on connections at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmissionLimits {
    pub(crate) connections: usize,
    /// On which nobody is logged in.
    pub(crate) half_open: usize,
    /// From so many of those on, some are refused by luck, and more the more there are.
    pub(crate) half_open_start: usize,
    /// How many of a hundred are refused at the start of that.
    pub(crate) half_open_percent: u8,
    /// The same, from one source.
    pub(crate) half_open_per_source: usize,
    /// First key exchanges that are computed.
    pub(crate) key_exchanges: usize,
    /// The same, from one source.
    pub(crate) key_exchanges_per_source: usize,
}

impl AdmissionLimits {
    /// How many of a hundred connections are refused while `half_open` are there on which nobody is
    /// logged in: none up to the start, then a line that ends at all of them (sshd_config(5),
    /// `MaxStartups`). Who would fill all places with connections that never log in cannot keep
    /// others out for certain, then.
    fn unlucky(&self, half_open: usize) -> usize {
        let Some(beyond) = half_open.checked_sub(self.half_open_start) else {
            return 0;
        };
        let Some(span @ 1..) = self.half_open.checked_sub(self.half_open_start) else {
            return 0;
        };
        let least = usize::from(self.half_open_percent.min(100));
        least.saturating_add((100 - least).saturating_mul(beyond) / span)
    }
}

/// Counts connections.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    counts: Mutex<Counts>,
    offenders: Option<Mutex<Offenders>>,
    key_exchanges: Semaphore,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    half_open: usize,
    sources: HashMap<IpAddr, OfSource>,
}

#[derive(Clone, Debug)]
struct OfSource {
    half_open: usize,
    key_exchanges: Arc<Semaphore>,
}

/// A connection that was let in. It counts as half-open until somebody is logged in.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    source: Option<IpAddr>,
    /// Of its source, or its own if that is not known.
    key_exchanges: Arc<Semaphore>,
    is_half_open: bool,
}

/// A key exchange may be computed as long as this is held.
#[derive(Debug)]
#[must_use]
pub(crate) struct Turn<'a> {
    _of_source: SemaphorePermit<'a>,
    _of_all: SemaphorePermit<'a>,
}

impl Admission {
    /// Without `penalties` nobody is kept out for what they did before.
    pub(crate) fn new(limits: AdmissionLimits, penalties: Option<Penalties>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            counts: Mutex::default(),
            offenders: penalties.map(|penalties| Mutex::new(Offenders::new(penalties))),
            key_exchanges: Semaphore::new(limits.key_exchanges.max(1)),
        })
    }

    /// Lets a connection in, or not. A source that is not known (a stream of the embedding program)
    /// counts for itself. `roll` is a number below 100 that nobody can foresee.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        roll: u8,
        now: Instant,
    ) -> Result<Admitted, NotAdmitted> {
        if let (Some(address), Some(mut offenders)) = (address, self.offenders())
            && !offenders.admits(address, now)
        {
            return Err(NotAdmitted::Penalty);
        }
        let source = address.map(network);
        let mut counts = self.lock();
        let known = source.and_then(|source| counts.sources.get(&source));
        let of_source = known.cloned().unwrap_or_else(|| OfSource {
            half_open: 0,
            key_exchanges: Arc::new(Semaphore::new(self.limits.key_exchanges_per_source.max(1))),
        });
        if counts.connections >= self.limits.connections {
            return Err(NotAdmitted::Connections);
        }
        if counts.half_open >= self.limits.half_open {
            return Err(NotAdmitted::HalfOpen);
        }
        if of_source.half_open >= self.limits.half_open_per_source {
            return Err(NotAdmitted::HalfOpenOfSource);
        }
        if usize::from(roll) < self.limits.unlucky(counts.half_open) {
            return Err(NotAdmitted::EarlyDrop);
        }
        counts.connections += 1;
        counts.half_open += 1;
        let key_exchanges = Arc::clone(&of_source.key_exchanges);
        if let Some(source) = source {
            let of_source = OfSource {
                half_open: of_source.half_open + 1,
                ..of_source
            };
            counts.sources.insert(source, of_source);
        }
        Ok(Admitted {
            admission: Arc::clone(self),
            source,
            key_exchanges,
            is_half_open: true,
        })
    }

    /// Notes what a source did; says whether that keeps it out from now on. A source that is not
    /// known cannot be kept out.
    pub(crate) fn note(&self, address: Option<IpAddr>, offence: Offence, now: Instant) -> bool {
        if let (Some(address), Some(mut offenders)) = (address, self.offenders())
            && offenders.add(address, offence, now)
        {
            tracing::info!(%address, offence = offence.name(), "kept out for a while");
            return true;
        }
        false
    }

    fn offenders(&self) -> Option<MutexGuard<'_, Offenders>> {
        let offenders = self.offenders.as_ref()?;
        Some(offenders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// Waits until it is this connection's turn to have its first key exchange computed. Turns are
    /// taken in the order in which they were asked for, and those of one source wait for each other
    /// before they wait for others'.
    pub(crate) async fn turn(&self) -> Option<Turn<'_>> {
        // They are never closed.
        let of_source = self.key_exchanges.acquire().await.ok()?;
        let of_all = self.admission.key_exchanges.acquire().await.ok()?;
        Some(Turn {
            _of_source: of_source,
            _of_all: of_all,
        })
    }

    /// Somebody is logged in.
    pub(crate) fn established(&mut self) {
        if !std::mem::replace(&mut self.is_half_open, false) {
            return;
        }
        let mut counts = self.admission.lock();
        counts.half_open = counts.half_open.saturating_sub(1);
        if let Some(source) = self.source
            && let Some(of_source) = counts.sources.get_mut(&source)
        {
            of_source.half_open = of_source.half_open.saturating_sub(1);
            if of_source.half_open == 0 {
                counts.sources.remove(&source);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.established();
        let mut counts = self.admission.lock();
        counts.connections = counts.connections.saturating_sub(1);
    }
}

/// What one party can be assumed to own: an IPv4 address, or an IPv6 network of 64 bits.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        admission_with(None)
    }

    fn admission_with(penalties: Option<Penalties>) -> Arc<Admission> {
        let limits = AdmissionLimits {
            connections: 4,
            half_open: 3,
            half_open_start: 3,
            half_open_percent: 0,
            half_open_per_source: 2,
            key_exchanges: 2,
            key_exchanges_per_source: 1,
        };
        Admission::new(limits, penalties)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a place for the made-up time to start"
    )]
    fn now() -> Instant {
        Instant::now()
    }

    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let admission = admission();
        let mut first = admission.admit(from("10.0.0.1"), 0, now()).unwrap();
        let _second = admission.admit(from("::ffff:10.0.0.1"), 0, now()).unwrap();
        assert!(admission.admit(from("10.0.0.1"), 0, now()).is_err());
        let _other = admission.admit(from("10.0.0.2"), 0, now()).unwrap();
        assert!(
            admission.admit(from("10.0.0.3"), 0, now()).is_err(),
            "three are half-open"
        );
        first.established();
        let last = admission.admit(from("10.0.0.3"), 0, now()).unwrap();
        drop((first, last));
        assert!(admission.admit(from("10.0.0.1"), 0, now()).is_ok());
    }

    #[test]
    fn established_connections_count_too_and_everything_is_given_back() {
        let admission = admission();
        let mut all = Vec::new();
        for _ in 0..4 {
            let mut admitted = admission.admit(None, 0, now()).unwrap();
            admitted.established();
            all.push(admitted);
        }
        assert!(admission.admit(None, 0, now()).is_err());
        all.clear();
        let counts = admission.lock();
        assert_eq!(
            (counts.connections, counts.half_open, counts.sources.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let admission = admission();
        let _one = admission.admit(from("2001:db8::1"), 0, now()).unwrap();
        let _two = admission.admit(from("2001:db8::2"), 0, now()).unwrap();
        assert!(
            admission
                .admit(from("2001:db8:0:0:ffff::1"), 0, now())
                .is_err()
        );
        assert!(admission.admit(from("2001:db8:0:1::1"), 0, now()).is_ok());
    }

    #[test]
    fn who_owes_too_much_is_not_let_in_again() {
        let admission = admission_with(Some(Penalties::default()));
        let begun = now();
        let at = |seconds| begun + std::time::Duration::from_secs(seconds);
        assert!(admission.admit(from("10.0.0.1"), 0, begun).is_ok());
        admission.note(from("10.0.0.1"), Offence::Crash, begun);
        admission.note(None, Offence::Crash, begun);
        assert!(admission.admit(from("10.0.0.1"), 0, at(89)).is_err());
        assert!(admission.admit(from("10.0.0.2"), 0, at(89)).is_ok());
        assert!(admission.admit(None, 0, at(89)).is_ok());
        assert!(admission.admit(from("10.0.0.1"), 0, at(90)).is_ok());
    }

    /// As `MaxStartups 100:30:500` of OpenSSH (`should_drop_connection`).
    #[test]
    fn the_more_wait_to_log_in_the_fewer_are_let_in() {
        let limits = AdmissionLimits {
            connections: 1000,
            half_open: 500,
            half_open_start: 100,
            half_open_percent: 30,
            half_open_per_source: 1000,
            key_exchanges: 2,
            key_exchanges_per_source: 1,
        };
        for (half_open, unlucky) in [(0, 0), (99, 0), (100, 30), (300, 65), (499, 99), (500, 100)] {
            assert_eq!(limits.unlucky(half_open), unlucky, "{half_open}");
        }
        let admission = Admission::new(limits, None);
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(admission.admit(from("10.0.0.1"), 0, now()).unwrap());
        }
        let refused = admission.admit(from("10.0.0.1"), 29, now()).unwrap_err();
        assert_eq!(refused, NotAdmitted::EarlyDrop);
        all.push(admission.admit(from("10.0.0.1"), 30, now()).unwrap());
        // Who is logged in does not count.
        for admitted in &mut all[..2] {
            admitted.established();
        }
        assert!(admission.admit(from("10.0.0.1"), 0, now()).is_ok());
        // Without a start below the most, only the most counts.
        for half_open_start in [500, 1000] {
            let limits = AdmissionLimits {
                half_open_start,
                ..limits
            };
            assert_eq!(limits.unlucky(499), 0);
        }
    }

    /// However many want their keys exchanged, as many are computed at a time as were said, and who
    /// comes from elsewhere does not wait for all of one source.
    #[tokio::test(start_paused = true)]
    async fn turns_are_bounded_for_all_and_for_one_source() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        const FLOOD: usize = 200;
        let limits = AdmissionLimits {
            connections: 1000,
            half_open: 1000,
            half_open_start: 1000,
            half_open_percent: 0,
            half_open_per_source: 1000,
            key_exchanges: 2,
            key_exchanges_per_source: 1,
        };
        let admission = Admission::new(limits, None);
        let work = std::time::Duration::from_millis(10);
        let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        let begun = tokio::time::Instant::now();
        for n in 0..=FLOOD {
            // All but the last come from one source.
            let address = if n == FLOOD { "10.0.0.2" } else { "10.0.0.1" };
            let admitted = admission.admit(from(address), 0, now()).unwrap();
            let (at_once, most) = (Arc::clone(&at_once), Arc::clone(&most));
            tasks.spawn(async move {
                let _turn = admitted.turn().await.unwrap();
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(work).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                (n, begun.elapsed())
            });
        }
        let mut last = None;
        while let Some(done) = tasks.join_next().await {
            let (n, time) = done.unwrap();
            if n == FLOOD {
                assert_eq!(time, work, "it waits for nobody");
            }
            last = Some(time);
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(
            last.unwrap(),
            work * 200,
            "one source computes one at a time"
        );
    }
}
