//! The handles of one session: opaque bytes outside, slots of a table inside.
//!
//! A handle (draft-ietf-secsh-filexfer-02 §6.3: at most 256 bytes, of the server's making) is the
//! number of a slot, how often that slot was used before, and a keyed hash of both. One that was
//! made up, is of another session, or was closed, fits nothing.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most open handles of one session (`limits@openssh.com` tells it).
pub const SESSION_HANDLES_MAX: usize = 128;
/// Most open handles of one server, unless it is built with another number.
pub const SERVER_HANDLES_MAX: usize = 4096;
/// Length of a handle in bytes.
pub(crate) const HANDLE_LEN: usize = 16;

/// How many handles a server's sessions have open together.
#[derive(Debug)]
pub(crate) struct HandleBudget {
    open: AtomicUsize,
    max: usize,
    /// Most of one session.
    session_max: usize,
}

impl HandleBudget {
    pub(crate) const fn new(max: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            max,
            session_max: SESSION_HANDLES_MAX,
        }
    }

    /// For a session that shares with none.
    #[cfg_attr(not(feature = "host"), expect(dead_code, reason = "used by `host`"))]
    pub(crate) const fn of_one_session(max: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            max,
            session_max: max,
        }
    }

    fn take(&self) -> bool {
        let add = |open: usize| (open < self.max).then_some(open.saturating_add(1));
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    fn give(&self, handles: usize) {
        self.open.fetch_sub(handles, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// A file that is open for a session without a handle: it counts as one.
#[derive(Debug)]
pub(crate) struct Held(Arc<HandleBudget>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.give(1);
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    slots: Vec<Slot<T>>,
    vacant: Vec<SlotId>,
    open: usize,
    key: RandomState,
    budget: Arc<HandleBudget>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

/// Number of a slot in its table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SlotId(u32);

impl SlotId {
    const fn index(self) -> usize {
        self.0 as usize // a slot's number is below the session's maximum
    }
}

impl<T> Handles<T> {
    /// `key` is the session's own.
    pub(crate) const fn new(key: RandomState, budget: Arc<HandleBudget>) -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            open: 0,
            key,
            budget,
        }
    }

    /// How many may be open.
    pub(crate) fn most(&self) -> usize {
        self.budget.session_max
    }

    /// Takes a slot; `None` if this session or the server has no more.
    pub(crate) fn insert(&mut self, entry: T) -> Option<SlotId> {
        if self.open >= self.most() || !self.budget.take() {
            return None;
        }
        self.open = self.open.saturating_add(1);
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => {
                let slot = SlotId(u32::try_from(self.slots.len()).ok()?);
                self.slots.push(Slot {
                    generation: 0,
                    entry: None,
                });
                slot
            }
        };
        self.slots.get_mut(slot.index())?.entry = Some(entry);
        Some(slot)
    }

    /// Counts one more open file, which has no handle, until what comes back is dropped.
    pub(crate) fn hold(&self) -> Option<Held> {
        let may = self.open < self.most() && self.budget.take();
        may.then(|| Held(Arc::clone(&self.budget)))
    }

    /// Empties a slot; its handle fits nothing any more.
    pub(crate) fn remove(&mut self, slot: SlotId) -> Option<T> {
        let place = self.slots.get_mut(slot.index())?;
        let entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.vacant.push(slot);
        self.open = self.open.saturating_sub(1);
        self.budget.give(1);
        Some(entry)
    }

    /// The handle of a slot, as the client sees it.
    pub(crate) fn handle(&self, slot: SlotId) -> [u8; HANDLE_LEN] {
        let generation = self
            .slots
            .get(slot.index())
            .map_or(0, |place| place.generation);
        let tag = self.key.hash_one((slot.0, generation));
        let whole = u128::from(slot.0) << 96 | u128::from(generation) << 64 | u128::from(tag);
        whole.to_be_bytes()
    }

    /// The slot of a handle that is open.
    pub(crate) fn find(&self, handle: &[u8]) -> Option<SlotId> {
        let slot = SlotId(u32::from_be_bytes(*handle.first_chunk()?));
        self.get(slot)?;
        (self.handle(slot) == handle).then_some(slot)
    }

    pub(crate) fn get(&self, slot: SlotId) -> Option<&T> {
        self.slots.get(slot.index())?.entry.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: SlotId) -> Option<&mut T> {
        self.slots.get_mut(slot.index())?.entry.as_mut()
    }

    /// Everything that is open.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref())
    }

    /// The slots that could be open: some may be vacant.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotId> + use<T> {
        (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).map(SlotId)
    }
}

impl<T> Drop for Handles<T> {
    fn drop(&mut self) {
        self.budget.give(self.open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handles(max: usize) -> (Handles<usize>, Arc<HandleBudget>) {
        let budget = Arc::new(HandleBudget::new(max));
        (
            Handles::new(RandomState::new(), Arc::clone(&budget)),
            budget,
        )
    }

    #[test]
    fn the_129th_handle_is_refused() {
        let (mut table, _) = handles(SERVER_HANDLES_MAX);
        let slots: Vec<_> = (0..SESSION_HANDLES_MAX)
            .map(|n| table.insert(n).unwrap())
            .collect();
        assert_eq!(table.insert(0), None);
        assert_eq!(table.remove(slots[7]), Some(7));
        assert!(table.insert(0).is_some());
    }

    #[test]
    fn sessions_share_the_servers_budget_and_give_it_back() {
        let (mut one, budget) = handles(3);
        let mut two = Handles::new(RandomState::new(), Arc::clone(&budget));
        one.insert(1).unwrap();
        one.insert(2).unwrap();
        let slot = two.insert(3).unwrap();
        assert_eq!((one.insert(4), two.insert(4)), (None, None));
        two.remove(slot).unwrap();
        drop(one);
        assert_eq!(budget.open(), 0);
    }

    #[test]
    fn an_open_file_without_a_handle_counts_as_one() {
        let (mut table, budget) = handles(2);
        let held = table.hold().unwrap();
        table.insert(1).unwrap();
        assert!(table.hold().is_none() && table.insert(2).is_none());
        drop(held);
        assert_eq!(budget.open(), 1);
        table.insert(2).unwrap();
    }

    #[test]
    fn a_closed_handle_fits_nothing_even_when_its_slot_is_used_again() {
        let (mut table, _) = handles(8);
        let slot = table.insert(1).unwrap();
        let old = table.handle(slot);
        table.remove(slot).unwrap();
        assert_eq!(table.find(&old), None);
        let again = table.insert(2).unwrap();
        assert_eq!(again, slot);
        assert_eq!(table.find(&old), None);
        assert_eq!(table.find(&table.handle(again)), Some(again));
    }

    #[test]
    fn of_a_hundred_thousand_guesses_none_fits() {
        let (mut table, _) = handles(8);
        let slots: Vec<_> = (0..8).map(|n| table.insert(n).unwrap()).collect();
        let guesses = RandomState::new();
        for guess in 0..100_000_u64 {
            // The right slot and generation, which are no secret, and a tag that is.
            let slot = slots[usize::try_from(guess % 8).unwrap()];
            let mut handle = table.handle(slot);
            handle[8..].copy_from_slice(&guesses.hash_one(guess).to_be_bytes());
            assert_eq!(table.find(&handle), None);
            assert_eq!(table.find(&handle[..15]), None);
        }
    }

    #[test]
    fn a_handle_of_another_session_fits_nothing() {
        let (mut one, _) = handles(8);
        let (mut two, _) = handles(8);
        let (a, b) = (one.insert(1).unwrap(), two.insert(1).unwrap());
        assert_eq!(a, b);
        assert_eq!(two.find(&one.handle(a)), None);
    }

    proptest! {
        #[test]
        fn what_was_made_up_fits_nothing(made_up in proptest::collection::vec(any::<u8>(), 0..40)) {
            let (mut table, _) = handles(8);
            let slot = table.insert(1).unwrap();
            let handle = table.handle(slot);
            prop_assert_eq!(table.find(&made_up), None);
            // One with the right slot and generation, and a guessed tag.
            let mut near = handle[..8].to_vec();
            near.extend(made_up);
            prop_assume!(near != handle);
            prop_assert_eq!(table.find(&near), None);
        }
    }
}
