//! A limit of bytes a second, for one transfer or several together.
//!
//! [`Bucket`] is a machine without a clock: workers ask whether they may send, and say what they
//! sent; time comes with each question. It keeps one moment, from which on something may be sent
//! again: what was sent moves it on, and a pause lets it fall behind by no more than [`SAVED_MAX`].
//! So the rate is exact over time, and no burst is longer than one request and what a moment saves.
//! Those who have to wait are served in the order in which they came.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::control::{Audience, Controlled};

/// How long a limit that was not used can be made up for: timers are not more exact.
const SAVED_MAX: Duration = Duration::from_millis(20);
/// How long the others wait for the one whose turn it is.
const GRACE: Duration = Duration::from_millis(2);

/// A limit of bytes a second.
///
/// Cheap to clone; all transfers that were given a clone share it, in turns, in both directions
/// together, over any number of connections. It can be changed while they run. What counts is the
/// data of files: for downloads what is asked for, less what the server then did not have; names,
/// attributes and the overhead of SSH come on top. A transfer sends one request at a time as the
/// limit allows, of at most 64 KiB: there are no longer bursts, for many small files either.
///
/// ```
/// use ketch_client::{GetOptions, PutOptions, RateLimit};
///
/// let limit = RateLimit::new(10 * 1024 * 1024);
/// let down = GetOptions::new().limit(limit.clone());
/// let up = PutOptions::new().limit(limit.clone());
/// limit.set(1024 * 1024); // both together, from now on
/// assert_eq!(limit.bytes_per_second(), Some(1024 * 1024));
/// limit.lift();
/// # drop((down, up));
/// ```
#[derive(Clone, Debug)]
pub struct RateLimit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bucket: Mutex<Bucket>,
    audience: Audience,
}

impl RateLimit {
    /// At most so many bytes a second; zero counts as one.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                bucket: Mutex::new(Bucket::new(Some(bytes_per_second))),
                audience: Audience::default(),
            }),
        }
    }

    /// At most so many bytes a second from now on; zero counts as one.
    pub fn set(&self, bytes_per_second: u64) {
        self.change(Some(bytes_per_second));
    }

    /// No limit from now on, until the next is [set](Self::set).
    pub fn lift(&self) {
        self.change(None);
    }

    /// Bytes a second, if there is a limit.
    #[must_use]
    pub fn bytes_per_second(&self) -> Option<u64> {
        self.lock().rate
    }

    fn change(&self, rate: Option<u64>) {
        self.lock().set(rate);
        self.shared.audience.tell();
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        // Nothing is done under the lock that could leave it half changed.
        let bucket = self.shared.bucket.lock();
        bucket.unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `plan` told of every change from now on.
    pub(crate) fn attach(&self, plan: Weak<dyn Controlled>) {
        self.shared.audience.add(plan);
    }
}

/// One worker's place at a limit.
#[derive(Debug)]
pub(crate) struct Meter {
    limit: RateLimit,
    id: u64,
}

impl Meter {
    pub(crate) fn new(limit: &RateLimit) -> Self {
        Self {
            limit: limit.clone(),
            id: limit.lock().join(),
        }
    }

    /// Whether something may be sent; if not, when to ask again.
    pub(crate) fn admits(&self, now: Instant) -> Result<(), Instant> {
        self.limit.lock().admits(self.id, now)
    }

    /// So much was sent.
    pub(crate) fn on_sent(&self, bytes: u64, now: Instant) {
        self.limit.lock().on_sent(bytes, now);
    }

    /// So much of it was not there.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.limit.lock().give_back(bytes);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.limit.lock().leave(self.id);
    }
}

/// Who may send when.
#[derive(Debug)]
struct Bucket {
    rate: Option<u64>,
    /// From when on something may be sent again.
    free_at: Option<Instant>,
    /// The last time that was told.
    now: Option<Instant>,
    /// Those who were told to wait, in the order in which they came.
    waiting: Vec<u64>,
    next_id: u64,
}

impl Bucket {
    fn new(rate: Option<u64>) -> Self {
        Self {
            rate: rate.map(|rate| rate.max(1)),
            free_at: None,
            now: None,
            waiting: Vec::new(),
            next_id: 0,
        }
    }

    fn join(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn leave(&mut self, id: u64) {
        self.waiting.retain(|other| *other != id);
    }

    /// Another rate; what was sent at the old one and is to be waited for is as many bytes at the
    /// new one.
    fn set(&mut self, rate: Option<u64>) {
        let rate = rate.map(|rate| rate.max(1));
        if let (Some(old), Some(free_at), Some(now)) = (self.rate, self.free_at, self.now) {
            let owed = free_at.saturating_duration_since(now).as_nanos() * u128::from(old);
            let owed = u64::try_from(owed / NANOS).unwrap_or(u64::MAX);
            self.free_at = rate.map(|rate| later(now, time_for(owed, rate)));
        }
        self.rate = rate;
    }

    fn admits(&mut self, id: u64, now: Instant) -> Result<(), Instant> {
        self.now = Some(now);
        let (Some(_), Some(free_at)) = (self.rate, self.free_at) else {
            self.leave(id);
            return Ok(());
        };
        let first = self.waiting.first().copied();
        let is_first = first.is_none_or(|first| first == id);
        let from = if is_first {
            free_at
        } else {
            later(free_at, GRACE)
        };
        if now < from {
            if !self.waiting.contains(&id) {
                self.waiting.push(id);
            }
            return Err(from);
        }
        if !is_first {
            self.waiting.remove(0); // it did not come
        }
        self.leave(id);
        Ok(())
    }

    fn on_sent(&mut self, bytes: u64, now: Instant) {
        self.now = Some(now);
        let Some(rate) = self.rate else { return };
        let saved = now.checked_sub(SAVED_MAX).unwrap_or(now);
        let from = self.free_at.map_or(saved, |free_at| free_at.max(saved));
        self.free_at = Some(later(from, time_for(bytes, rate)));
    }

    fn give_back(&mut self, bytes: u64) {
        let (Some(rate), Some(free_at)) = (self.rate, self.free_at) else {
            return;
        };
        self.free_at = free_at.checked_sub(time_for(bytes, rate)).or(self.free_at);
    }
}

const NANOS: u128 = 1_000_000_000;

fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * NANOS / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A time that is too far away to be told is now: nobody waits for ever.
fn later(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;
    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn origin() -> Instant {
        Instant::now()
    }

    /// Sends as often as it may for `time`, and says how much by whom.
    fn run(bucket: &mut Bucket, ids: &[u64], len: u64, from: Instant, time: Duration) -> Vec<u64> {
        let mut sent = vec![0; ids.len()];
        let mut wake: Vec<Instant> = vec![from; ids.len()];
        while let Some(now) = wake.iter().min().copied()
            && now < from + time
        {
            for (nth, &id) in ids.iter().enumerate() {
                if wake[nth] > now {
                    continue;
                }
                match bucket.admits(id, now) {
                    Ok(()) => {
                        bucket.on_sent(len, now);
                        sent[nth] += len;
                    }
                    Err(at) => wake[nth] = at,
                }
            }
        }
        sent
    }

    #[test]
    fn the_rate_is_kept_and_no_burst_is_longer_than_a_request() {
        let start = origin();
        let mut bucket = Bucket::new(Some(1024 * KIB));
        let id = bucket.join();
        let first = run(&mut bucket, &[id], 64 * KIB, start, SECOND / 1000)[0];
        assert!(first <= 2 * 64 * KIB, "{first}");
        let all = run(&mut bucket, &[id], 64 * KIB, start, 10 * SECOND)[0];
        let wanted = 10 * 1024 * KIB;
        assert!((wanted - 128 * KIB..=wanted + 128 * KIB).contains(&(first + all)));
        // What was not used for long is not made up for.
        let later = start + 1000 * SECOND;
        let burst = run(&mut bucket, &[id], KIB, later, SECOND / 1000)[0];
        assert!(burst <= 24 * KIB, "{burst}");
    }

    #[test]
    fn several_share_one_limit_in_turns() {
        let mut bucket = Bucket::new(Some(1000 * KIB));
        let ids: Vec<u64> = (0..4).map(|_| bucket.join()).collect();
        let sent = run(&mut bucket, &ids, 64 * KIB, origin(), 10 * SECOND);
        for one in &sent {
            assert!(one.abs_diff(2500 * KIB) <= 200 * KIB, "{sent:?}");
        }
    }

    #[test]
    fn who_does_not_come_is_not_waited_for() {
        let start = origin();
        let mut bucket = Bucket::new(Some(100 * KIB));
        let (gone, here) = (bucket.join(), bucket.join());
        bucket.on_sent(100 * KIB, start);
        assert!(bucket.admits(gone, start).is_err());
        let at = bucket.admits(here, start).unwrap_err();
        assert_eq!(bucket.admits(here, at), Ok(()));
        assert_eq!(bucket.waiting, [] as [u64; 0]);
        // And who has left is not even first.
        bucket.on_sent(100 * KIB, at);
        assert!(bucket.admits(gone, at).is_err());
        bucket.leave(gone);
        let again = bucket.admits(here, at).unwrap_err();
        assert!(again < at + SECOND + GRACE);
    }

    #[test]
    fn a_change_counts_at_once_and_what_is_lifted_holds_nobody() {
        let start = origin();
        let mut bucket = Bucket::new(Some(KIB));
        let id = bucket.join();
        bucket.on_sent(64 * KIB, start);
        assert!(bucket.admits(id, start + 10 * SECOND).is_err());
        bucket.set(Some(1024 * KIB));
        assert_eq!(bucket.admits(id, start + 11 * SECOND), Ok(()));
        bucket.on_sent(1024 * KIB, start + 11 * SECOND);
        assert!(bucket.admits(id, start + 11 * SECOND).is_err());
        bucket.set(None);
        assert_eq!(bucket.admits(id, start + 11 * SECOND), Ok(()));
    }

    #[test]
    fn what_was_not_there_is_given_back() {
        let start = origin();
        let mut bucket = Bucket::new(Some(64 * KIB));
        let id = bucket.join();
        for _ in 0..100 {
            bucket.on_sent(64 * KIB, start);
            bucket.give_back(64 * KIB);
        }
        assert_eq!(bucket.admits(id, start), Ok(()));
    }

    proptest! {
        #[test]
        fn no_more_than_the_rate_passes_whatever_is_asked_when(
            rate in 1..100_000_000_u64,
            steps in proptest::collection::vec((0..50_000_000_u64, 1..300_000_u64, 0..3_u64), 1..300),
        ) {
            let start = origin();
            let mut now = start;
            let mut bucket = Bucket::new(Some(rate));
            let ids: Vec<u64> = (0..3).map(|_| bucket.join()).collect();
            let (mut sent, mut longest) = (0_u64, 0);
            for (nanos, len, who) in steps {
                now += Duration::from_nanos(nanos);
                let id = ids[usize::try_from(who).unwrap()];
                if bucket.admits(id, now).is_ok() {
                    bucket.on_sent(len, now);
                    sent += len;
                    longest = longest.max(len);
                }
                let passed = (now - start + SAVED_MAX).as_nanos();
                let allowed = passed * u128::from(rate) / NANOS;
                prop_assert!(u128::from(sent) <= allowed + u128::from(longest) + 1);
                prop_assert!(bucket.waiting.len() <= 3);
            }
        }
    }
}
