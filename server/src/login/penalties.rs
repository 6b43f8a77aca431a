//! How long a source that behaved badly is kept out, as OpenSSH's `PerSourcePenalties` has it.
//!
//! Each offence adds to the time that its source owes. Little is forgiven: only who owes more than
//! [`Penalties::min`] is refused, until the time is over; nobody owes more than [`Penalties::max`].
//! What a source is, `admission` decides. Nothing here waits: time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::login::admission::network;
use crate::login::credentials::Source;

/// The most that can be owed, whatever is configured: clocks end somewhere.
const OWED_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What sources are made to pay for, and how much.
///
/// ```
/// use std::time::Duration;
/// use ketch_server::{Penalties, Server};
///
/// let mut penalties = Penalties::default();
/// penalties.auth_fail = Duration::from_secs(10);
/// penalties.exempt = vec!["192.0.2.0/24".parse()?];
/// let builder = Server::builder().penalties(penalties);
/// # Ok::<(), ketch_server::BadSource>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Penalties {
    /// A connection that made its task panic. Default: 90 s.
    pub crash: Duration,
    /// A connection on which only wrong attempts to log in were made. Default: 5 s.
    pub auth_fail: Duration,
    /// A connection that ended without an attempt to log in. Default: 1 s.
    pub no_auth: Duration,
    /// A connection that was not logged in within its time. Default: 10 s.
    pub grace_exceeded: Duration,
    /// What may be owed without being refused. Default: 15 s.
    pub min: Duration,
    /// The most that can be owed, a year at most. Default: 600 s.
    pub max: Duration,
    /// Sources that are remembered; beyond that, who owes least is forgotten. Default: 65 536.
    pub sources_max: usize,
    /// Sources that owe nothing, whatever they do. Default: none.
    pub exempt: Vec<Source>,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            crash: Duration::from_secs(90),
            auth_fail: Duration::from_secs(5),
            no_auth: Duration::from_secs(1),
            grace_exceeded: Duration::from_secs(10),
            min: Duration::from_secs(15),
            max: Duration::from_secs(600),
            sources_max: 65_536,
            exempt: Vec::new(),
        }
    }
}

impl Penalties {
    const fn of(&self, offence: Offence) -> Duration {
        match offence {
            Offence::Crash => self.crash,
            Offence::AuthFail => self.auth_fail,
            Offence::NoAuth => self.no_auth,
            Offence::GraceExceeded => self.grace_exceeded,
        }
    }
}

/// What somebody did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Offence {
    /// Made a task panic.
    Crash,
    /// Tried, and was never right.
    AuthFail,
    /// Did not try.
    NoAuth,
    /// Took too long.
    GraceExceeded,
}

impl Offence {
    /// Its name in logs, as OpenSSH's `PerSourcePenalties` has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::AuthFail => "authfail",
            Self::NoAuth => "noauth",
            Self::GraceExceeded => "grace-exceeded",
        }
    }
}

/// Who owes how much.
#[derive(Debug)]
pub(crate) struct Offenders {
    penalties: Penalties,
    entries: HashMap<IpAddr, Entry>,
    /// The same, by the time when nothing is owed any more.
    by_end: BTreeSet<(Instant, IpAddr)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When nothing is owed any more.
    end: Instant,
    /// It once was more than is forgiven: refused until the end.
    is_refused: bool,
}

impl Offenders {
    pub(crate) fn new(penalties: Penalties) -> Self {
        Self {
            penalties,
            entries: HashMap::new(),
            by_end: BTreeSet::new(),
        }
    }

    /// Whether connections from `address` are taken. Who is refused owes no more for trying.
    pub(crate) fn admits(&mut self, address: IpAddr, now: Instant) -> bool {
        self.forget_paid(now);
        self.entries
            .get(&network(address))
            .is_none_or(|entry| !entry.is_refused)
    }

    /// Adds an offence. Returns whether the source is refused now and was not before.
    pub(crate) fn add(&mut self, address: IpAddr, offence: Offence, now: Instant) -> bool {
        let penalty = self.penalties.of(offence);
        let plain = address.to_canonical();
        let is_exempt = self.penalties.exempt.iter().any(|each| each.has(plain));
        let source = network(address);
        if is_exempt || penalty.is_zero() {
            return false;
        }
        self.forget_paid(now);
        let before = self.entries.remove(&source);
        if let Some(before) = before {
            self.by_end.remove(&(before.end, source));
        }
        let owed = before.map_or(Duration::ZERO, |entry| entry.end - now);
        let most = self.penalties.max.min(OWED_MAX);
        let owed = owed.saturating_add(penalty).min(most);
        let was_refused = before.is_some_and(|entry| entry.is_refused);
        let is_refused = was_refused || owed > self.penalties.min;
        while self.entries.len() >= self.penalties.sources_max.max(1) {
            let Some((_, least)) = self.by_end.pop_first() else {
                break;
            };
            self.entries.remove(&least);
        }
        let end = now + owed;
        self.entries.insert(source, Entry { end, is_refused });
        self.by_end.insert((end, source));
        is_refused && !was_refused
    }

    /// Takes out who owes nothing any more.
    fn forget_paid(&mut self, now: Instant) {
        while let Some(&(end, source)) = self.by_end.first()
            && end <= now
        {
            self.by_end.pop_first();
            self.entries.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "a place for the made-up time to start"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn the_numbers_are_those_of_openssh() {
        let Penalties {
            crash,
            auth_fail,
            no_auth,
            grace_exceeded,
            min,
            max,
            sources_max,
            exempt,
        } = Penalties::default();
        let times = [crash, auth_fail, no_auth, grace_exceeded, min, max];
        assert_eq!(times.map(|time| time.as_secs()), [90, 5, 1, 10, 15, 600]);
        assert!(sources_max == 65_536 && exempt.is_empty());
    }

    #[test]
    fn little_is_forgiven_and_much_is_paid_for_to_the_end() {
        let mut offenders = Offenders::new(Penalties::default());
        let now = start();
        for _ in 0..3 {
            assert!(!offenders.add(address(1), Offence::AuthFail, now));
            assert!(
                offenders.admits(address(1), now),
                "15 s are not more than 15 s"
            );
        }
        assert!(offenders.add(address(1), Offence::NoAuth, now));
        assert!(!offenders.admits(address(1), now));
        assert!(offenders.admits(address(2), now), "others are not meant");
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(!offenders.admits(mapped, now), "another way to write it");
        // Below what is forgiven again: it is paid to the end all the same.
        assert!(!offenders.admits(address(1), now + secs(15)));
        assert!(offenders.admits(address(1), now + secs(16)));
        assert!(offenders.entries.is_empty() && offenders.by_end.is_empty());
        // One crash is enough.
        assert!(offenders.add(address(1), Offence::Crash, now));
        assert!(!offenders.admits(address(1), now + secs(89)));
        assert!(offenders.admits(address(1), now + secs(90)));
    }

    #[test]
    fn what_is_to_be_owed_for_ever_is_owed_for_a_year() {
        let mut penalties = Penalties::default();
        (penalties.crash, penalties.max) = (Duration::MAX, Duration::MAX);
        let (mut offenders, now) = (Offenders::new(penalties), start());
        for _ in 0..2 {
            offenders.add(address(1), Offence::Crash, now);
        }
        assert!(!offenders.admits(address(1), now + OWED_MAX - secs(1)));
        assert!(offenders.admits(address(1), now + OWED_MAX));
    }

    #[test]
    fn a_slow_trickle_is_borne_and_nobody_owes_more_than_the_most() {
        let mut offenders = Offenders::new(Penalties::default());
        let mut now = start();
        for _ in 0..1000 {
            assert!(!offenders.add(address(1), Offence::NoAuth, now));
            now += secs(1);
            assert!(offenders.admits(address(1), now));
        }
        for _ in 0..1000 {
            offenders.add(address(1), Offence::Crash, now);
        }
        assert!(!offenders.admits(address(1), now + secs(599)));
        assert!(offenders.admits(address(1), now + secs(600)));
    }

    #[test]
    fn who_is_exempt_owes_nothing() {
        let penalties = Penalties {
            exempt: vec!["192.0.2.0/28".parse().unwrap()],
            ..Penalties::default()
        };
        let mut offenders = Offenders::new(penalties);
        let now = start();
        for (n, admitted) in [(15, true), (16, false)] {
            offenders.add(address(n), Offence::Crash, now);
            assert_eq!(offenders.admits(address(n), now), admitted);
        }
    }

    #[test]
    fn who_owes_least_is_forgotten_when_there_are_too_many() {
        let penalties = Penalties {
            sources_max: 3,
            ..Penalties::default()
        };
        let mut offenders = Offenders::new(penalties);
        let now = start();
        for n in 1..=3 {
            offenders.add(address(n), Offence::Crash, now + secs(u64::from(n)));
        }
        // One that is there already takes no other's place.
        offenders.add(address(1), Offence::Crash, now + secs(4));
        assert_eq!(offenders.entries.len(), 3);
        offenders.add(address(4), Offence::Crash, now + secs(5));
        let admitted: Vec<_> = (1..=4)
            .filter(|n| offenders.admits(address(*n), now + secs(6)))
            .collect();
        assert_eq!(admitted, [2], "it would have been the first to be let in");
    }

    const OFFENCES: [Offence; 4] = [
        Offence::Crash,
        Offence::AuthFail,
        Offence::NoAuth,
        Offence::GraceExceeded,
    ];

    proptest! {
        /// Against a list that is gone through from the front each time.
        #[test]
        fn what_is_owed_is_the_sum_of_what_was_done(
            steps in prop::collection::vec((0_u8..4, 0_usize..4, 0_u64..40), 0..60),
        ) {
            let penalties = Penalties::default();
            let mut offenders = Offenders::new(penalties.clone());
            let begun = start();
            let mut now = begun;
            let mut model: HashMap<u8, (Instant, bool)> = HashMap::new();
            for (who, what, pause) in steps {
                now += secs(pause);
                model.retain(|_, (end, _)| *end > now);
                for n in 0..4 {
                    let expected = model.get(&n).is_none_or(|(_, refused)| !refused);
                    prop_assert_eq!(offenders.admits(address(n), now), expected);
                }
                let penalty = penalties.of(OFFENCES[what]);
                let (end, refused) = model.entry(who).or_insert((now, false));
                *end = (*end + penalty).min(now + penalties.max);
                *refused |= *end - now > penalties.min;
                offenders.add(address(who), OFFENCES[what], now);
                prop_assert_eq!(offenders.by_end.len(), offenders.entries.len());
            }
        }
    }
}
