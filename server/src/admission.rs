//! Who may come in at all: bounds on connections before anybody is known.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds on connections at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmissionLimits {
    pub(crate) connections: usize,
    /// On which nobody is logged in.
    pub(crate) half_open: usize,
    /// The same, from one source.
    pub(crate) half_open_per_source: usize,
}

/// Counts connections.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    half_open: usize,
    sources: HashMap<IpAddr, usize>,
}

/// A connection that was let in. It counts as half-open until somebody is logged in.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    source: Option<IpAddr>,
    is_half_open: bool,
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            counts: Mutex::default(),
        })
    }

    /// Lets a connection in, or not. A source that is not known (a stream of the embedding program)
    /// counts for itself.
    pub(crate) fn admit(self: &Arc<Self>, source: Option<IpAddr>) -> Option<Admitted> {
        let source = source.map(network);
        let mut counts = self.lock();
        let of_source = source
            .and_then(|source| counts.sources.get(&source))
            .copied()
            .unwrap_or(0);
        if counts.connections >= self.limits.connections
            || counts.half_open >= self.limits.half_open
            || of_source >= self.limits.half_open_per_source
        {
            return None;
        }
        counts.connections += 1;
        counts.half_open += 1;
        if let Some(source) = source {
            counts.sources.insert(source, of_source + 1);
        }
        Some(Admitted {
            admission: Arc::clone(self),
            source,
            is_half_open: true,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
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
            *of_source = of_source.saturating_sub(1);
            if *of_source == 0 {
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
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        Admission::new(AdmissionLimits {
            connections: 4,
            half_open: 3,
            half_open_per_source: 2,
        })
    }

    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let admission = admission();
        let mut first = admission.admit(from("10.0.0.1")).unwrap();
        let _second = admission.admit(from("::ffff:10.0.0.1")).unwrap();
        assert!(admission.admit(from("10.0.0.1")).is_none());
        let _other = admission.admit(from("10.0.0.2")).unwrap();
        assert!(
            admission.admit(from("10.0.0.3")).is_none(),
            "three are half-open"
        );
        first.established();
        let last = admission.admit(from("10.0.0.3")).unwrap();
        drop((first, last));
        assert!(admission.admit(from("10.0.0.1")).is_some());
    }

    #[test]
    fn established_connections_count_too_and_everything_is_given_back() {
        let admission = admission();
        let mut all = Vec::new();
        for _ in 0..4 {
            let mut admitted = admission.admit(None).unwrap();
            admitted.established();
            all.push(admitted);
        }
        assert!(admission.admit(None).is_none());
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
        let _one = admission.admit(from("2001:db8::1")).unwrap();
        let _two = admission.admit(from("2001:db8::2")).unwrap();
        assert!(admission.admit(from("2001:db8:0:0:ffff::1")).is_none());
        assert!(admission.admit(from("2001:db8:0:1::1")).is_some());
    }
}
