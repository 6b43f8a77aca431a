//! The machine behind a watch: listings and the clock in, events and due times out.
//!
//! It reads no directory and no clock. Its owner (`driver` in this crate) asks
//! [`Watcher::poll_timeout`] when the next listing is due, calls [`Watcher::start_listing`] then,
//! reads the directory, hands the result to [`Watcher::handle_listing`], and takes everything from
//! [`Watcher::poll_event`] before it waits again.
//!
//! - Only complete listings count. An error changes nothing but the time of the next try: the wait
//!   doubles with every failure in a row, up to [`BACK_OFF_MAX`].
//! - A name is gone when it was missing in [`WatcherConfig::missing_polls`] complete listings in a
//!   row (two unless configured). What is back before that, as it was, was never gone.
//! - The next listing starts one interval after the last one *started*, less a random part of up to
//!   a fifth, so that many watchers do not keep step and a change is still seen within one interval.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ketch_client::{Attrs, RemotePath};

use crate::diff::diff;
use crate::error::WatchError;
use crate::event::{Event, EventKind};
use crate::listing::Listing;
use crate::snapshot::{Facts, Snapshot};

/// Interval between two listings unless configured.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Shortest interval: what is shorter is taken as this.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Longest interval: 30 days.
pub const INTERVAL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest wait after failed listings, unless the interval itself is longer.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// Complete listings in a row that must lack a name before it is gone, unless configured.
///
/// Two: a directory that changes while it is listed may lack a name in that one listing, above all
/// one that is being replaced by a rename. A removal that did not happen does more harm downstream
/// than one that is told an interval later.
pub const MISSING_POLLS: u8 = 2;

/// How a [`Watcher`] works.
#[derive(Clone, Copy, Debug)]
pub struct WatcherConfig {
    /// Time from the start of one listing to the start of the next, kept between [`INTERVAL_MIN`]
    /// and [`INTERVAL_MAX`]. Default: [`INTERVAL`].
    pub interval: Duration,
    /// What the first complete listing means. Default: [`FirstListing::Baseline`].
    pub first_listing: FirstListing,
    /// Complete listings in a row that must lack a name before it is gone; 0 means 1. Default:
    /// [`MISSING_POLLS`].
    ///
    /// With 1, a file that was removed and put back unchanged between two listings that did
    /// notice is told as removed and created; with 2 or more that is not told at all.
    pub missing_polls: u8,
}

impl Default for WatcherConfig {
    fn default() -> Self {
        Self {
            interval: INTERVAL,
            first_listing: FirstListing::Baseline,
            missing_polls: MISSING_POLLS,
        }
    }
}

/// What the names in the first complete listing are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FirstListing {
    /// Known already: only what changes after it is told.
    #[default]
    Baseline,
    /// News: every name is told as created.
    News,
}

/// The machine; see the module's text for the order of calls.
#[derive(Debug)]
pub struct Watcher {
    path: RemotePath,
    config: WatcherConfig,
    /// What is known of the directory; `None` before the first complete listing.
    known: Option<Snapshot>,
    phase: Phase,
    failures: u32,
    /// Whether another listing is due right after the one under way.
    hurried: bool,
    /// At most two for each name of one listing and one error: no listing starts before it is empty.
    told: VecDeque<Result<Event, WatchError>>,
    jitter: Jitter,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Due(Instant),
    Listing { since: Instant },
    Ended,
}

impl Watcher {
    /// Watches the directory `path`; the first listing is due at `now`. `seed` spreads the waits:
    /// any number, another for each watcher.
    #[must_use]
    pub fn new(path: RemotePath, mut config: WatcherConfig, now: Instant, seed: u64) -> Self {
        config.interval = config.interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        Self {
            path,
            config,
            known: None,
            phase: Phase::Due(now),
            failures: 0,
            hurried: false,
            told: VecDeque::new(),
            jitter: Jitter(seed),
        }
    }

    /// When to call [`Watcher::start_listing`]: `None` while a listing is made, and for good once
    /// the connection is lost.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Due(at) => Some(at),
            Phase::Listing { .. } | Phase::Ended => None,
        }
    }

    /// Whether the directory is to be read now. After `true`, [`Watcher::handle_listing`] must be
    /// given the result.
    ///
    /// It is `false` before the time, and as long as [`Watcher::poll_event`] has something: who
    /// does not take events gets no new ones, and nothing piles up.
    pub fn start_listing(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Due(at) if at <= now && self.told.is_empty() => {
                self.phase = Phase::Listing { since: now };
                true
            }
            _ => false,
        }
    }

    /// Takes what reading the directory brought: a whole, finished listing, or why there is none.
    pub fn handle_listing(&mut self, now: Instant, result: Result<Listing, WatchError>) {
        let since = match self.phase {
            Phase::Listing { since } => since,
            Phase::Due(_) => now,
            Phase::Ended => return,
        };
        match result {
            Ok(listing) => self.listed(since, now, &listing),
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.phase = if error.is_final() {
                    Phase::Ended
                } else {
                    Phase::Due(now + self.back_off())
                };
                self.told.push_back(Err(error));
            }
        }
    }

    /// As [`Watcher::handle_listing`] with a complete one, which stays the caller's.
    pub(crate) fn compare_listing(&mut self, now: Instant, listing: &Listing) {
        match self.phase {
            Phase::Listing { since } => self.listed(since, now, listing),
            Phase::Due(_) => self.listed(now, now, listing),
            Phase::Ended => {}
        }
    }

    fn listed(&mut self, since: Instant, now: Instant, listing: &Listing) {
        self.failures = 0;
        self.compare(listing);
        let next = if std::mem::take(&mut self.hurried) {
            now
        } else {
            self.next_listing(since, now)
        };
        self.phase = Phase::Due(next);
    }

    /// The next listing is due at once; if one is under way, another right after it.
    pub(crate) fn hurry(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Due(at) => *at = now.min(*at),
            Phase::Listing { .. } => self.hurried = true,
            Phase::Ended => {}
        }
    }

    /// A single name was looked at: it has `attrs`, or is not there. Before the first listing this
    /// says nothing, as that will.
    pub(crate) fn handle_look(&mut self, name: &[u8], attrs: Option<&Attrs>) {
        let Some(before) = &self.known else { return };
        let after = before.with(name, attrs.map(Facts::of));
        let changes: Vec<_> = diff(before, &after).map(|change| change.kind).collect();
        self.told.extend(changes.into_iter().map(|kind| {
            Ok(Event {
                kind,
                path: self.path.join(name),
                from: None,
                attrs: attrs.copied().filter(|_| kind != EventKind::Removed),
            })
        }));
        self.known = Some(after);
    }

    /// Takes something as known, without telling it.
    pub(crate) fn set_known(&mut self, name: &[u8], facts: Option<Facts>) {
        if let Some(known) = &mut self.known {
            *known = known.with(name, facts);
        }
    }

    /// What is known of a name.
    pub(crate) fn known(&self, name: &[u8]) -> Option<Facts> {
        let entries = self.known.as_ref()?.entries();
        let mut same = entries.filter(|entry| entry.name == name);
        same.next().map(|entry| entry.facts)
    }

    /// Whether there was a complete listing.
    pub(crate) const fn has_listed(&self) -> bool {
        self.known.is_some()
    }

    /// The names that are known.
    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        let entries = self.known.iter().flat_map(Snapshot::entries);
        entries.map(|entry| entry.name)
    }

    /// The next thing to tell the owner; call until it is `None`.
    pub fn poll_event(&mut self) -> Option<Result<Event, WatchError>> {
        self.told.pop_front()
    }

    /// Whether the watch is over: the connection is lost, and no listing will be made any more.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    fn compare(&mut self, listing: &Listing) {
        let seen = Snapshot::of(listing);
        let before = match (self.known.take(), self.config.first_listing) {
            (Some(known), _) => known,
            (None, FirstListing::News) => Snapshot::default(),
            (None, FirstListing::Baseline) => {
                self.known = Some(seen);
                return;
            }
        };
        let after = before.updated(&seen, self.config.missing_polls);
        self.told.extend(diff(&before, &after).map(|change| {
            let attrs = match change.kind {
                EventKind::Removed => None,
                _ => listing.attrs_of(change.name),
            };
            Ok(Event {
                kind: change.kind,
                path: self.path.join(change.name),
                from: None,
                attrs,
            })
        }));
        self.known = Some(after);
    }

    /// One interval after the last start; where listing takes about as long as that, the server
    /// still gets a fifth of an interval of rest.
    fn next_listing(&mut self, since: Instant, now: Instant) -> Instant {
        let interval = self.config.interval;
        (since + self.jitter.shorten(interval)).max(now + interval / 5)
    }

    fn back_off(&mut self) -> Duration {
        let longest = BACK_OFF_MAX.max(self.config.interval);
        let doublings = self.failures.min(16);
        let wait = self
            .config
            .interval
            .saturating_mul(1 << doublings)
            .min(longest);
        self.jitter.shorten(wait)
    }
}

/// Numbers that spread the waits of many watchers. They need not be hard to guess.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    /// `wait`, less up to a fifth of it.
    fn shorten(&mut self, wait: Duration) -> Duration {
        // One step of an xorshift generator; its one fixed point, zero, is left at the start.
        let mut x = self.0.max(1);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        wait - (wait / 5).mul_f64(f64::from((x & 0xffff) as u16) / 65_536.0)
    }
}
