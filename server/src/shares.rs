//! Whose turn it is on the threads that may wait: work of one user never takes what another needs.
//!
//! Work that has to leave the connection's task (a cold read, an `fsync`, a checksum) runs on threads
//! of which a process has only so many. Each server has a bounded number of places for such work, of
//! each [`Kind`]; one user holds a part of them at most, and of those who wait the one with the
//! fewest comes first. So a user with thousands of slow jobs waits for itself alone.
//!
//! [`Turns`] is the machine; [`Share`] is what a session holds of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Places for work that is usually short: reads, writes, look-ups.
pub(crate) const SHORT_MAX: usize = 256;
/// Places for work that takes as long as it takes: `fsync`, checksums, copies.
pub(crate) const LONG_MAX: usize = 64;
/// Places for hashing what has arrived: nobody waits for it, and whoever closes a file that has to
/// reach the disk first does not wait behind it.
pub(crate) const ARRIVALS_MAX: usize = 16;
/// One user holds this part of the places of a kind at most: a quarter.
const PART: usize = 4;

/// What a piece of work is expected to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// It waits for a disk once.
    Short,
    /// It may take minutes.
    Long,
    /// So may this, and no client waits for it: the hash of a file that has arrived.
    Arrival,
    /// It computes: as much of that at once as half of the processors can do.
    Compute,
}

/// The places of one server.
#[derive(Debug)]
pub(crate) struct Shares {
    short: Mutex<Turns<oneshot::Sender<()>>>,
    long: Mutex<Turns<oneshot::Sender<()>>>,
    arrivals: Mutex<Turns<oneshot::Sender<()>>>,
    compute: Mutex<Turns<oneshot::Sender<()>>>,
    users: AtomicU64,
}

impl Shares {
    pub(crate) fn new() -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = |places: usize, each: usize| Mutex::new(Turns::new(places, each));
        Arc::new(Self {
            short: turns(SHORT_MAX, SHORT_MAX / PART),
            long: turns(LONG_MAX, LONG_MAX / PART),
            arrivals: turns(ARRIVALS_MAX, ARRIVALS_MAX / PART),
            compute: turns(processors.div_ceil(2), processors.div_ceil(4)),
            users: AtomicU64::new(0),
        })
    }

    /// The share of one more user.
    pub(crate) fn user(self: &Arc<Self>) -> Share {
        Share {
            shares: Arc::clone(self),
            user: self.users.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn turns(&self, kind: Kind) -> MutexGuard<'_, Turns<oneshot::Sender<()>>> {
        let turns = match kind {
            Kind::Short => &self.short,
            Kind::Long => &self.long,
            Kind::Arrival => &self.arrivals,
            Kind::Compute => &self.compute,
        };
        turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One user's part in the places of a server.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    user: u64,
}

impl Share {
    /// Waits for a place. It is held until what comes back is dropped.
    pub(crate) async fn turn(&self, kind: Kind) -> Turn {
        let (give, given) = oneshot::channel();
        let mut waiting = Waiting {
            given,
            share: self,
            kind,
        };
        if !self.shares.turns(kind).ask(self.user, give) {
            // The sender lies in the queue until it is used: it cannot be lost.
            let _ = (&mut waiting.given).await;
        }
        Turn {
            share: self.clone(),
            kind,
        }
    }
}

/// Somebody who waits, and who may stop waiting in the moment in which a place is given.
struct Waiting<'a> {
    given: oneshot::Receiver<()>,
    share: &'a Share,
    kind: Kind,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.given.close();
        if self.given.try_recv().is_ok() {
            drop(Turn {
                share: self.share.clone(),
                kind: self.kind,
            });
        }
    }
}

/// A place that is held.
#[derive(Debug)]
pub(crate) struct Turn {
    share: Share,
    kind: Kind,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Share { shares, user } = &self.share;
        let mut turns = shares.turns(self.kind);
        let mut next = turns.give(*user);
        while let Some((user, waiting)) = next {
            // Who does not wait any more passes the place on.
            match waiting.send(()) {
                Ok(()) => next = turns.next(),
                Err(()) => next = turns.give(user),
            }
        }
    }
}

/// Who holds places and who waits for one.
#[derive(Debug)]
pub(crate) struct Turns<W> {
    places: usize,
    each_max: usize,
    held: usize,
    /// Those who hold or wait.
    users: BTreeMap<u64, Queue<W>>,
    served: u64,
}

#[derive(Debug)]
struct Queue<W> {
    held: usize,
    waiting: VecDeque<W>,
    /// When it last got a place, in places given.
    last: u64,
}

impl<W> Turns<W> {
    pub(crate) const fn new(places: usize, each_max: usize) -> Self {
        Self {
            places,
            each_max: if each_max == 0 { 1 } else { each_max },
            held: 0,
            users: BTreeMap::new(),
            served: 0,
        }
    }

    /// Takes a place, or puts `waiter` in line; says whether there was one.
    pub(crate) fn ask(&mut self, user: u64, waiter: W) -> bool {
        let is_full = self.held >= self.places;
        let queue = self.users.entry(user).or_insert_with(|| Queue {
            held: 0,
            waiting: VecDeque::new(),
            last: 0,
        });
        if is_full || queue.held >= self.each_max {
            queue.waiting.push_back(waiter);
            return false;
        }
        self.served = self.served.saturating_add(1);
        queue.last = self.served;
        queue.held = queue.held.saturating_add(1);
        self.held = self.held.saturating_add(1);
        true
    }

    /// Gives a place back, and takes one for who is next.
    pub(crate) fn give(&mut self, user: u64) -> Option<(u64, W)> {
        self.held = self.held.saturating_sub(1);
        if let Some(queue) = self.users.get_mut(&user) {
            queue.held = queue.held.saturating_sub(1);
            if queue.held == 0 && queue.waiting.is_empty() {
                self.users.remove(&user);
            }
        }
        self.next()
    }

    /// Takes a place for who waits with the fewest; of those for who was served least lately.
    pub(crate) fn next(&mut self) -> Option<(u64, W)> {
        if self.held >= self.places {
            return None;
        }
        let (&user, queue) = self
            .users
            .iter_mut()
            .filter(|(_, queue)| !queue.waiting.is_empty() && queue.held < self.each_max)
            .min_by_key(|(_, queue)| (queue.held, queue.last))?;
        let waiter = queue.waiting.pop_front()?;
        self.served = self.served.saturating_add(1);
        queue.last = self.served;
        queue.held = queue.held.saturating_add(1);
        self.held = self.held.saturating_add(1);
        Some((user, waiter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thousands_of_jobs_of_one_user_leave_room_for_another() {
        let mut turns = Turns::new(16, 4);
        let got = (0..5000).filter(|&job| turns.ask(1, job)).count();
        assert_eq!(got, 4, "a user holds its part and no more");
        assert!(turns.ask(2, 0), "another gets a place at once");
        assert_eq!(turns.give(2), None, "who has its part does not get more");
        assert_eq!(turns.give(1), Some((1, 4)));
    }

    #[test]
    fn who_has_the_fewest_comes_first_when_all_is_taken() {
        let mut turns = Turns::new(4, 3);
        assert!(turns.ask(1, 'a') && turns.ask(1, 'b') && turns.ask(1, 'c'));
        assert!(turns.ask(2, 'd'));
        assert!(!turns.ask(1, 'e') && !turns.ask(2, 'f') && !turns.ask(3, 'g'));
        assert_eq!(turns.give(1), Some((3, 'g')), "it has none");
        assert_eq!(
            turns.give(1),
            Some((1, 'e')),
            "one each: it was served longer ago"
        );
        assert_eq!(turns.give(1), Some((2, 'f')));
        assert_eq!(turns.give(1), None);
    }

    /// Jain's index of fairness of what each of the users got.
    fn jain(got: &[f64]) -> f64 {
        let sum: f64 = got.iter().sum();
        let squares: f64 = got.iter().map(|x| x * x).sum();
        #[expect(clippy::cast_precision_loss, reason = "a handful of users")]
        let users = got.len() as f64;
        sum * sum / (users * squares)
    }

    #[test]
    fn users_who_ask_for_very_different_amounts_are_served_alike() {
        let mut turns = Turns::new(8, 8);
        let mut running = VecDeque::new();
        for user in 0..4_u64 {
            for _ in 0..[10_000, 1000, 1000, 1000][usize::try_from(user).unwrap()] {
                if turns.ask(user, ()) {
                    running.push_back(user);
                }
            }
        }
        let mut got = [0.0; 4];
        for _ in 0..2000 {
            let user = running.pop_front().unwrap();
            got[usize::try_from(user).unwrap()] += 1.0;
            running.extend(turns.give(user).map(|(user, ())| user));
        }
        assert!(jain(&got) > 0.95, "{got:?}");
    }

    proptest! {
        /// No more places than there are, no user with more than its part, nobody forgotten.
        #[test]
        fn every_waiter_gets_a_place_once(
            places in 1..9_usize, each in 1..5_usize,
            steps in proptest::collection::vec((0..4_u64, any::<bool>()), 1..200),
        ) {
            let mut turns = Turns::new(places, each);
            let mut running: Vec<(u64, usize)> = Vec::new();
            let mut done = std::collections::BTreeSet::new();
            let mut asked = 0;
            for (user, asks) in steps {
                if asks {
                    if turns.ask(user, asked) {
                        running.push((user, asked));
                    }
                    asked += 1;
                } else if let Some((user, job)) = running.pop() {
                    prop_assert!(done.insert(job));
                    running.extend(turns.give(user));
                }
                prop_assert!(running.len() <= places);
                for user in 0..4 {
                    prop_assert!(running.iter().filter(|(of, _)| *of == user).count() <= each);
                }
            }
            while let Some((user, job)) = running.pop() {
                prop_assert!(done.insert(job));
                running.extend(turns.give(user));
            }
            prop_assert_eq!(done.len(), asked);
            prop_assert!(turns.users.is_empty() && turns.held == 0);
        }
    }

    #[tokio::test]
    async fn what_arrived_is_hashed_without_taking_places_of_what_clients_wait_for() {
        let shares = Shares::new();
        let user = shares.user();
        let mut hashes = Vec::new();
        for _ in 0..ARRIVALS_MAX / PART {
            hashes.push(user.turn(Kind::Arrival).await);
        }
        let mut waiting = std::pin::pin!(user.turn(Kind::Arrival));
        let mut closes = Vec::new();
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("a user hashes no more than that at a time"),
            () = async {
                for _ in 0..LONG_MAX / PART {
                    closes.push(user.turn(Kind::Long).await);
                }
            } => {}
        }
        assert_eq!(closes.len(), LONG_MAX / PART);
    }

    #[tokio::test]
    async fn who_stops_waiting_loses_no_place() {
        let shares = Shares::new();
        let user = shares.user();
        let mut held = Vec::new();
        for _ in 0..LONG_MAX / PART {
            held.push(user.turn(Kind::Long).await);
        }
        {
            let mut waiting = std::pin::pin!(user.turn(Kind::Long));
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("there was no place"),
                () = tokio::task::yield_now() => {}
            }
        }
        held.clear();
        for _ in 0..LONG_MAX / PART {
            held.push(user.turn(Kind::Long).await);
        }
    }
}
