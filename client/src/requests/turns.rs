//! Whose turn it is to send, among the transfers of one channel.
//!
//! What may be in flight is one for all of them (`transfer/pace.rs`). Each transfer has a weight,
//! and what it sends counts against it by that weight; who is furthest behind sends first, a lot at
//! most, then the next. So each has its share, whoever asked first, and what one does not use the
//! others have. A transfer that is alone sends what it likes, and pays nothing for this.

use super::slots::Key;
use crate::transfer::control::Priority;

/// Bytes that the highest sends in a row, before another has its turn; others by their weight.
const LOT: usize = 1024 * 1024;
/// And at least.
const LOT_MIN: usize = 64 * 1024;
/// By how much one may be behind: who had nothing to send does not catch up with all of it. In bytes
/// of a transfer of the highest weight.
const BEHIND_MAX: u64 = 4 * 1024 * 1024;
/// The least that a share of files is.
const FILES_MIN: usize = 2;

const WEIGHT_MAX: u64 = weight(Priority::High);

const fn weight(priority: Priority) -> u64 {
    match priority {
        Priority::Low => 1,
        Priority::Normal => 4,
        Priority::High => 16,
    }
}

/// The transfers of a channel, and what they have sent.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    list: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    job: Key,
    weight: u64,
    /// What it has sent, by its weight.
    passed: u64,
}

/// What a transfer may do in its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Bytes that it may send.
    lot: usize,
    sent: usize,
    /// It had more to send.
    is_cut: bool,
    /// It had no turn before, in this turn of the connection.
    pub is_first: bool,
    weight: u64,
    /// Of all who are there.
    weights: u64,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            lot: usize::MAX,
            sent: 0,
            is_cut: false,
            is_first: true,
            weight: 1,
            weights: 1,
        }
    }
}

impl Turns {
    /// These are the transfers that may send.
    pub(crate) fn begin(&mut self, present: impl Iterator<Item = (Key, Priority)>) {
        let furthest = self.list.iter().map(|entry| entry.passed).max();
        let furthest = furthest.unwrap_or(0);
        let known = std::mem::take(&mut self.list);
        self.list.extend(present.map(|(job, priority)| {
            let before = known.iter().find(|entry| entry.job == job);
            let passed = before.map_or(0, |entry| entry.passed);
            Entry {
                job,
                weight: weight(priority),
                passed: passed.max(furthest.saturating_sub(BEHIND_MAX)),
            }
        }));
        self.sort();
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Who is the `nth` to send, and what it may.
    pub(crate) fn turn(&self, nth: usize, is_first: bool) -> Option<(Key, Turn)> {
        let entry = self.list.get(nth)?;
        if self.list.len() == 1 {
            return Some((entry.job, Turn::default()));
        }
        let highest = self.list.iter().map(|entry| entry.weight).max();
        let part = LOT as u64 * entry.weight / highest.unwrap_or(1).max(1);
        let turn = Turn {
            lot: usize::try_from(part).unwrap_or(LOT).max(LOT_MIN),
            is_first,
            weight: entry.weight,
            weights: self.list.iter().map(|entry| entry.weight).sum(),
            ..Turn::default()
        };
        Some((entry.job, turn))
    }

    /// That was done in the turn. Says whether another one is wanted.
    pub(crate) fn on_done(&mut self, nth: usize, turn: &Turn) -> bool {
        if let Some(entry) = self.list.get_mut(nth) {
            let counted = (turn.sent as u64).saturating_mul(WEIGHT_MAX / entry.weight);
            entry.passed = entry.passed.saturating_add(counted);
        }
        turn.is_cut && turn.sent > 0
    }

    /// Those who are behind come first.
    pub(crate) fn sort(&mut self) {
        self.list.sort_by_key(|entry| entry.passed);
    }
}

impl Turn {
    /// So many bytes were sent, or asked for.
    pub(crate) const fn on_sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// Bytes that were sent, or asked for.
    pub(crate) const fn sent(&self) -> usize {
        self.sent
    }

    /// Whether it is another's turn; asked only by who has more to send.
    pub(crate) const fn is_over(&mut self) -> bool {
        let over = self.sent >= self.lot;
        self.is_cut |= over;
        over
    }

    /// The share of `files` that may be under way at a time.
    pub(crate) fn share_of(&self, files: usize) -> usize {
        if self.weights <= self.weight {
            return files;
        }
        let share = files as u64 * self.weight / self.weights;
        usize::try_from(share)
            .unwrap_or(files)
            .max(FILES_MIN.min(files))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: usize = 1024;

    /// Transfers that always have more to send share what comes free, `free` bytes at a time; says
    /// what each has sent.
    fn share(priorities: &[Priority], free: usize, rounds: usize) -> Vec<usize> {
        let mut turns = Turns::default();
        let mut sent = vec![0; priorities.len()];
        for _ in 0..rounds {
            let present = priorities.iter().enumerate();
            turns.begin(present.map(|(job, &priority)| (Key::try_from(job).unwrap(), priority)));
            let (mut left, mut again, mut is_first) = (free, true, true);
            while std::mem::take(&mut again) {
                for nth in 0..turns.len() {
                    let (job, mut turn) = turns.turn(nth, is_first).unwrap();
                    while left > 0 && !turn.is_over() {
                        let len = left.min(64 * KIB);
                        turn.on_sent(len);
                        left -= len;
                    }
                    sent[job as usize] += turn.sent;
                    again |= turns.on_done(nth, &turn) && left > 0;
                }
                turns.sort();
                is_first = false;
            }
            assert_eq!(left, 0, "what is free is used");
        }
        sent
    }

    #[test]
    fn equals_have_equal_shares_whatever_comes_free_at_a_time() {
        for free in [64 * KIB, 300 * KIB, 1024 * KIB, 20_000 * KIB] {
            let sent = share(&[Priority::Normal; 3], free, 300);
            let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
            assert!(most - least <= 1024 * KIB, "{free}: {sent:?}");
        }
    }

    #[test]
    fn the_higher_has_more_and_the_lower_does_not_starve() {
        for free in [64 * KIB, 1024 * KIB, 20_000 * KIB] {
            let rounds = 400_000 * KIB / free;
            let sent = share(
                &[Priority::Low, Priority::High, Priority::Normal],
                free,
                rounds,
            );
            let low = sent[0] as u64;
            assert!(low > 0, "{free}: {sent:?}");
            for (which, parts) in [(1, 16), (2, 4)] {
                let apart = (sent[which] as u64).abs_diff(low * parts);
                assert!(apart <= 4096 * KIB as u64, "{free}: {sent:?}");
            }
        }
    }

    #[test]
    fn who_is_alone_has_no_bound() {
        let mut turns = Turns::default();
        turns.begin([(7, Priority::Low)].into_iter());
        let (job, mut turn) = turns.turn(0, true).unwrap();
        turn.on_sent(usize::MAX / 2);
        assert!(job == 7 && !turn.is_over());
        assert_eq!(turn.share_of(128), 128);
    }

    #[test]
    fn who_comes_later_does_not_catch_up_with_everything() {
        let mut turns = Turns::default();
        let both = [(1, Priority::Normal), (2, Priority::Normal)];
        turns.begin(both[..1].iter().copied());
        let (_, mut turn) = turns.turn(0, true).unwrap();
        turn.on_sent(1 << 40);
        turns.on_done(0, &turn);
        turns.begin(both.into_iter());
        let (job, _) = turns.turn(0, true).unwrap();
        assert_eq!(job, 2, "it goes first");
        let ahead = turns.list[1].passed - turns.list[0].passed;
        assert_eq!(ahead, BEHIND_MAX);
    }

    proptest! {
        #[test]
        fn files_are_shared_and_everybody_has_some(
            priorities in proptest::collection::vec(0..3_u8, 1..20), files in 1..600_usize,
        ) {
            let mut turns = Turns::default();
            turns.begin(priorities.iter().zip(0..).map(|(number, job)| (job, match number {
                0 => Priority::Low,
                1 => Priority::Normal,
                _ => Priority::High,
            })));
            let mut all = 0;
            for nth in 0..turns.len() {
                let share = turns.turn(nth, true).unwrap().1.share_of(files);
                prop_assert!(share >= 1 && share <= files);
                all += share;
            }
            prop_assert!(all <= files + FILES_MIN * priorities.len());
        }
    }
}
