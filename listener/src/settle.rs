//! Is a file complete? The machine that decides when a candidate may be told.
//!
//! It stands between the comparison of listings and the ledger: whoever finds a new or changed file
//! [`observe`](Settle::observe)s it here, once for every look, and takes it from
//! [`poll_ready`](Settle::poll_ready) when the rules hold. [`poll_look`](Settle::poll_look) says which
//! candidates are to be looked at again, and [`poll_timeout`](Settle::poll_timeout) when. There is no
//! clock and no file in here, and the server's clock counts for nothing: its times are compared for
//! equality alone, so that jumps and skew change no decision.
//!
//! All rules that are configured must hold ([`SettleConfig`]):
//!
//! - **stable**: size and time were the same at every look over a period *and* at so many looks;
//! - **on close**: a push said that the writer closed the file, and it was looked at since; without a
//!   push, stable;
//! - **done file**: a file that belongs to this one (`{name}.done`) is there; **trigger file**: one that
//!   belongs to the directory is; the candidate was looked at after that was seen;
//! - **minimum age**: so long since it was first seen as it is, by our own clock;
//! - **temporary names**, done files and trigger files are never candidates at all.
//!
//! What no rule can see: a writer that pauses for longer than the period. That is what done files,
//! renames into place and closing pushes are for.

mod names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ketch_client::{Pattern, RemotePath};

pub use self::names::{Marker, MarkerError, TEMPORARY_NAMES};
use crate::snapshot::Facts;

/// How names begin that this program gives to what is unfinished, on its way out, or a note of its own.
pub(crate) const OURS: &[u8] = b".ketch-";

/// How long a file must stay as it is, unless configured.
pub const PERIOD: Duration = Duration::from_secs(5);

/// Looks that must have found it so, unless configured.
pub const POLLS: u32 = 2;

/// Candidates at a time, unless configured: about 300 bytes each.
pub const CANDIDATES_MAX: usize = 100_000;

/// Shortest time between two looks that are asked for at the same candidate.
pub const LOOK_GAP_MIN: Duration = Duration::from_millis(100);

/// When a look that was asked for is asked for again, if nothing came of it.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What shows that a file's content is complete.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// The same at every look over [`SettleConfig::period`] and at [`SettleConfig::polls`] looks.
    #[default]
    Stable,
    /// Its writer closed it, as a push said, and it was looked at since. Where no push comes,
    /// [`Rule::Stable`].
    OnClose,
    /// Being there is enough: for writers that rename into place, and with a done file.
    Immediately,
}

/// When a candidate is complete.
#[derive(Clone, Debug)]
pub struct SettleConfig {
    /// What shows it. Default: [`Rule::Stable`].
    pub rule: Rule,
    /// For how long it must stay the same. Default: [`PERIOD`].
    pub period: Duration,
    /// How many looks must find it so, the first one counted; 0 means 1. Default: [`POLLS`].
    pub polls: u32,
    /// Time since it was first seen as it is. Default: none.
    pub min_age: Duration,
    /// The file that must be there beside it. Default: none.
    pub done_file: Option<Marker>,
    /// Name of the file that must be there in its directory. Default: none.
    pub trigger_file: Option<Vec<u8>>,
    /// Names that are not final: [`TEMPORARY_NAMES`] has common ones. Default: none.
    pub temporary: Vec<Pattern>,
    /// Candidates at a time. What is turned away is found again by the next sweep. Default:
    /// [`CANDIDATES_MAX`].
    pub candidates_max: usize,
}

impl Default for SettleConfig {
    fn default() -> Self {
        Self {
            rule: Rule::Stable,
            period: PERIOD,
            polls: POLLS,
            min_age: Duration::ZERO,
            done_file: None,
            trigger_file: None,
            temporary: Vec::new(),
            candidates_max: CANDIDATES_MAX,
        }
    }
}

impl SettleConfig {
    /// Nothing is waited for: every candidate is ready when it is seen.
    #[must_use]
    pub fn immediately() -> Self {
        Self {
            rule: Rule::Immediately,
            ..Self::default()
        }
    }
}

/// What became of a candidate that was observed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Observed {
    /// It waits for a rule to hold.
    Waiting,
    /// [`Settle::poll_ready`] has it.
    Ready,
    /// Its name says that it is none: temporary, a done file or a trigger file.
    NoCandidate,
    /// There are [`SettleConfig::candidates_max`] of them already. It has to be observed again when
    /// some have left.
    Full,
}

/// The machine; see the module's text.
#[derive(Debug)]
pub struct Settle {
    config: SettleConfig,
    candidates: BTreeMap<RemotePath, Candidate>,
    /// Who is to be looked at, by time: as many entries as candidates have a `due`.
    due: BTreeSet<(Instant, RemotePath)>,
    /// Who is complete, by the time since when: as many entries as candidates have a `ready`.
    ready: BTreeSet<(Instant, RemotePath)>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// As it was seen last; `None` if a push told of it and nobody has looked yet.
    facts: Option<Facts>,
    /// First look that saw it so.
    since: Instant,
    last_look: Instant,
    /// Looks that saw it so.
    looks: u32,
    /// Whether a push said that it was closed, and none that it was written to since.
    closed: bool,
    /// Whether its done file was seen.
    done: bool,
    /// Whether its directory's trigger file was seen.
    triggered: bool,
    /// Whether it was looked at after the last of these three came true.
    fresh: bool,
    due: Option<Instant>,
    ready: Option<Instant>,
}

impl Candidate {
    const fn new(now: Instant) -> Self {
        Self {
            facts: None,
            since: now,
            last_look: now,
            looks: 0,
            closed: false,
            done: false,
            triggered: false,
            fresh: false,
            due: None,
            ready: None,
        }
    }
}

impl Settle {
    /// A machine without candidates.
    #[must_use]
    pub const fn new(config: SettleConfig) -> Self {
        Self {
            config,
            candidates: BTreeMap::new(),
            due: BTreeSet::new(),
            ready: BTreeSet::new(),
        }
    }

    /// Whether a name may be a candidate: it is not temporary, no done file and no trigger file.
    #[must_use]
    pub fn is_candidate(&self, path: &RemotePath) -> bool {
        let name = names::name(path);
        // Names of ours are of what is on its way out, or not whole yet.
        !name.starts_with(OURS)
            && self
                .config
                .done_file
                .as_ref()
                .is_none_or(|marker| !marker.is_one(name))
            && self.config.trigger_file.as_deref() != Some(name)
            && !self
                .config
                .temporary
                .iter()
                .any(|pattern| pattern.matches(name))
    }

    /// Whether the name is that of a done file or a trigger file, to be given to [`Settle::seen`].
    #[must_use]
    pub fn is_marker(&self, path: &RemotePath) -> bool {
        let name = names::name(path);
        self.config
            .done_file
            .as_ref()
            .is_some_and(|marker| marker.is_one(name))
            || self.config.trigger_file.as_deref() == Some(name)
    }

    /// The done file and the trigger file that `path` waits for: where a single path is looked at
    /// instead of its directory, these are to be looked at as well.
    pub fn companions(&self, path: &RemotePath) -> impl Iterator<Item = RemotePath> + use<> {
        let done = self.config.done_file.as_ref().map(|marker| marker.of(path));
        let trigger = self.config.trigger_file.as_ref();
        let trigger = trigger.map(|name| names::beside(path, name));
        done.into_iter().chain(trigger)
    }

    /// A look at `path` found `facts`, and what is known of it says something else, or nothing.
    ///
    /// Of one listing all files are given here first, and then its done and trigger files to
    /// [`Settle::seen`]: so these are never older than what they vouch for.
    pub fn observe(&mut self, now: Instant, path: &RemotePath, facts: Facts) -> Observed {
        if !self.is_candidate(path) {
            return Observed::NoCandidate;
        }
        let Some(mut candidate) = self.take(path, now) else {
            return Observed::Full;
        };
        if candidate.facts == Some(facts) {
            // Two looks at one moment are one look.
            if candidate.last_look < now || candidate.looks == 0 {
                candidate.looks = candidate.looks.saturating_add(1);
            }
        } else {
            candidate.facts = Some(facts);
            candidate.since = now;
            candidate.looks = 1;
        }
        candidate.last_look = now;
        candidate.fresh = true;
        self.put(path, candidate, now)
    }

    /// A push says that the writer of `path` closed it.
    ///
    /// It is a candidate from now on, and [`Settle::poll_look`] asks for a look at it. If that finds
    /// what is known already, [`Settle::vanished`] takes it out again.
    pub fn closed(&mut self, now: Instant, path: &RemotePath) -> Observed {
        if !self.is_candidate(path) {
            return Observed::NoCandidate;
        }
        let Some(mut candidate) = self.take(path, now) else {
            return Observed::Full;
        };
        candidate.closed = true;
        candidate.fresh = false;
        self.put(path, candidate, now)
    }

    /// A push says that `path` is being written to: what was seen of it counts no more.
    pub fn written(&mut self, now: Instant, path: &RemotePath) {
        if !self.candidates.contains_key(path) {
            return;
        }
        if let Some(mut candidate) = self.take(path, now) {
            candidate.closed = false;
            candidate.since = now;
            candidate.looks = 0;
            self.put(path, candidate, now);
        }
    }

    /// A done file or a trigger file was seen. Other names change nothing. To be repeated by every
    /// listing that has it.
    pub fn seen(&mut self, now: Instant, path: &RemotePath) {
        let name = names::name(path);
        let mut released = Vec::new();
        if let Some(marker) = self.config.done_file.as_ref().filter(|m| m.is_one(name)) {
            let first = marker.lowest(path);
            let whose = |(candidate, _): &(&RemotePath, &Candidate)| marker.of(candidate) == *path;
            let range = self.candidates.range(first.clone()..);
            let near = range.take_while(|(at, _)| at.as_bytes().starts_with(first.as_bytes()));
            let waiting = near.filter(whose).filter(|(_, candidate)| !candidate.done);
            released.extend(waiting.map(|(path, _)| path.clone()));
        }
        for path in released.drain(..) {
            self.release(now, &path, |candidate| candidate.done = true);
        }
        if self.config.trigger_file.as_deref() == Some(name) {
            let first = names::beside(path, b"");
            let depth = first.as_bytes().len();
            let range = self.candidates.range(first.clone()..);
            let below = range.take_while(|(at, _)| at.as_bytes().starts_with(first.as_bytes()));
            let here = below.filter(|(at, candidate)| {
                !candidate.triggered && !at.as_bytes().iter().skip(depth).any(|byte| *byte == b'/')
            });
            released.extend(here.map(|(path, _)| path.clone()));
        }
        for path in released {
            self.release(now, &path, |candidate| candidate.triggered = true);
        }
    }

    /// `path` is gone, or is what is known of it already: it is no candidate any more.
    pub fn vanished(&mut self, path: &RemotePath) {
        if let Some(candidate) = self.candidates.remove(path) {
            self.unlink(path, &candidate);
        }
    }

    /// A single path was looked at: it has `facts`, or is gone.
    pub fn looked(&mut self, now: Instant, path: &RemotePath, facts: Option<Facts>) {
        match facts {
            Some(_) if self.is_marker(path) => self.seen(now, path),
            Some(facts) => {
                self.observe(now, path, facts);
            }
            None => self.vanished(path),
        }
    }

    /// The next candidate that is to be looked at again; call until it is `None`.
    ///
    /// If no look comes of it, it is asked for again after [`LOOK_AGAIN`].
    pub fn poll_look(&mut self, now: Instant) -> Option<RemotePath> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, path) = self.due.pop_first()?;
        if let Some(candidate) = self.candidates.get_mut(&path) {
            let again = now + LOOK_AGAIN;
            candidate.due = Some(again);
            self.due.insert((again, path.clone()));
        }
        Some(path)
    }

    /// The next complete file, as it was seen last; it is no candidate any more. Call until it is
    /// `None`.
    pub fn poll_ready(&mut self) -> Option<(RemotePath, Facts)> {
        loop {
            let (_, path) = self.ready.pop_first()?;
            if let Some(candidate) = self.candidates.remove(&path) {
                self.unlink(&path, &candidate);
                if let Some(facts) = candidate.facts {
                    return Some((path, facts));
                }
            }
        }
    }

    /// When [`Settle::poll_look`] or [`Settle::poll_ready`] has something: a time that has passed if
    /// they have already, `None` if that is for others to bring about.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ready = self.ready.first().map(|(at, _)| *at);
        let due = self.due.first().map(|(at, _)| *at);
        ready.into_iter().chain(due).min()
    }

    /// Candidates that are waiting or ready.
    #[must_use]
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Whether `path` is one.
    #[must_use]
    pub fn contains(&self, path: &RemotePath) -> bool {
        self.candidates.contains_key(path)
    }

    fn release(&mut self, now: Instant, path: &RemotePath, what: impl FnOnce(&mut Candidate)) {
        if let Some(mut candidate) = self.take(path, now) {
            what(&mut candidate);
            candidate.fresh = false;
            self.put(path, candidate, now);
        }
    }

    /// The candidate, out of both queues; a new one if there is room.
    fn take(&mut self, path: &RemotePath, now: Instant) -> Option<Candidate> {
        match self.candidates.get(path).copied() {
            Some(mut candidate) => {
                self.unlink(path, &candidate);
                candidate.due = None;
                candidate.ready = None;
                Some(candidate)
            }
            None if self.candidates.len() >= self.config.candidates_max => None,
            None => Some(Candidate::new(now)),
        }
    }

    /// Puts it back, into the queue where it belongs now.
    fn put(&mut self, path: &RemotePath, mut candidate: Candidate, now: Instant) -> Observed {
        let step = self.judge(&candidate, now);
        match step {
            Verdict::Ready => {
                candidate.ready = Some(now);
                self.ready.insert((now, path.clone()));
            }
            Verdict::LookAt(at) => {
                candidate.due = Some(at);
                self.due.insert((at, path.clone()));
            }
            Verdict::Wait => {}
        }
        self.candidates.insert(path.clone(), candidate);
        match step {
            Verdict::Ready => Observed::Ready,
            Verdict::LookAt(_) | Verdict::Wait => Observed::Waiting,
        }
    }

    fn judge(&self, candidate: &Candidate, now: Instant) -> Verdict {
        let config = &self.config;
        let (hold, polls) = match config.rule {
            Rule::Immediately => (config.min_age, 1),
            Rule::OnClose if candidate.closed => (config.min_age, 1),
            Rule::OnClose | Rule::Stable => {
                (config.period.max(config.min_age), config.polls.max(1))
            }
        };
        if !candidate.fresh || candidate.facts.is_none() {
            return Verdict::LookAt(now);
        }
        let held = now.saturating_duration_since(candidate.since) >= hold;
        if !held || candidate.looks < polls {
            let soonest = now + LOOK_GAP_MIN;
            let missing = polls.saturating_sub(candidate.looks);
            let at = if missing <= 1 {
                candidate.since + hold
            } else {
                now + hold / polls.saturating_sub(1).max(1)
            };
            return Verdict::LookAt(at.max(soonest));
        }
        let done = config.done_file.is_none() || candidate.done;
        let triggered = config.trigger_file.is_none() || candidate.triggered;
        if done && triggered {
            Verdict::Ready
        } else {
            Verdict::Wait
        }
    }

    fn unlink(&mut self, path: &RemotePath, candidate: &Candidate) {
        if let Some(at) = candidate.due {
            self.due.remove(&(at, path.clone()));
        }
        if let Some(at) = candidate.ready {
            self.ready.remove(&(at, path.clone()));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    Ready,
    LookAt(Instant),
    /// Until a done file or a trigger file is seen.
    Wait,
}
