//! From where, until when and how often at a time a user may be there.
//!
//! Whoever may not come is answered as somebody with wrong credentials is: by the same bytes and in
//! the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::login::credentials::{Moment, Source};

/// What holds for a user's logins, whatever they log in with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stay {
    /// Of each of these lists one has to have the address.
    pub(crate) sources: Vec<Vec<Source>>,
    /// The second from which it is over, since 1970.
    pub(crate) expires: Option<u64>,
    pub(crate) connections_max: Option<usize>,
    pub(crate) disabled: bool,
}

impl Stay {
    /// Whether a login of that moment may count. Where it is not known from where somebody comes, they
    /// come from nowhere that was named.
    pub(crate) fn may_begin(&self, moment: Moment) -> bool {
        let is_from = |sources: &Vec<Source>| {
            let is_in = |address| sources.iter().any(|source| source.has(address));
            moment.source.is_some_and(is_in)
        };
        self.may_last(moment.now) && self.sources.iter().all(is_from)
    }

    /// Whether who is there may stay, at that second since 1970.
    pub(crate) fn may_last(&self, now: u64) -> bool {
        !self.disabled && self.expires.is_none_or(|at| now < at)
    }
}

/// How many connections a user has. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats(Arc<AtomicUsize>);

/// One connection of a user's, as long as it is there.
#[derive(Debug)]
pub(crate) struct Seat(Seats);

impl Seats {
    /// Whether there is room for one more of at most `most`.
    pub(crate) fn have_room(&self, most: Option<usize>) -> bool {
        most.is_none_or(|most| self.0.load(Ordering::Relaxed) < most)
    }

    /// One more of at most `most`.
    pub(crate) fn take(&self, most: Option<usize>) -> Option<Seat> {
        let more = |taken: usize| {
            let has_room = most.is_none_or(|most| taken < most);
            has_room
                .then_some(taken)
                .and_then(|taken| taken.checked_add(1))
        };
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: Option<&str>, now: u64) -> Moment {
        let source = address.map(|address| address.parse().unwrap());
        Moment { source, now }
    }

    #[test]
    fn all_that_was_said_of_a_stay_has_to_hold() {
        let lists = |lists: &[&[&str]]| Stay {
            sources: lists
                .iter()
                .map(|list| list.iter().map(|one| one.parse().unwrap()).collect())
                .collect(),
            ..Stay::default()
        };
        assert!(lists(&[]).may_begin(at(None, 0)));
        let both = lists(&[&["192.0.2.0/24", "2001:db8::/32"], &["192.0.2.7"]]);
        assert!(both.may_begin(at(Some("192.0.2.7"), 0)));
        for address in [Some("192.0.2.8"), Some("2001:db8::1"), None] {
            assert!(!both.may_begin(at(address, 0)), "{address:?}");
        }
        assert!(!lists(&[&[]]).may_begin(at(Some("192.0.2.7"), 0)));
        let until = Stay {
            expires: Some(100),
            ..Stay::default()
        };
        assert!(until.may_begin(at(None, 99)) && until.may_last(99));
        assert!(!until.may_begin(at(None, 100)) && !until.may_last(100));
        let disabled = Stay {
            disabled: true,
            ..Stay::default()
        };
        assert!(!disabled.may_begin(at(None, 0)) && !disabled.may_last(0));
    }

    #[test]
    fn seats_are_given_back() {
        let seats = Seats::default();
        let first = seats.take(Some(2)).unwrap();
        let second = seats.take(Some(2)).unwrap();
        assert!(seats.take(Some(2)).is_none() && !seats.have_room(Some(2)));
        assert!(seats.take(None).is_some(), "given back at once");
        drop(first);
        assert!(seats.have_room(Some(2)));
        drop(second);
        assert!(seats.take(Some(0)).is_none());
    }
}
