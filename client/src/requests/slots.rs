//! Things in slots, found by key without hashing or allocating.
//!
//! A key is an index and a generation, so that a key of something that has gone finds nothing,
//! even when the slot is taken again.

/// Things in slots.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u16>,
}

/// Where a thing is.
pub(crate) type Key = u32;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    thing: Option<T>,
}

/// Slots at most.
pub(crate) const SLOTS_MAX: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 13;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

impl<T> Slots<T> {
    /// No things.
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many things there are.
    pub(crate) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many things may be added.
    pub(crate) const fn room(&self) -> usize {
        SLOTS_MAX - self.len()
    }

    /// Adds a thing; `None` if [`SLOTS_MAX`] are there.
    pub(crate) fn insert(&mut self, thing: T) -> Option<Key> {
        if let Some(index) = self.free.pop() {
            let slot = self.slots.get_mut(usize::from(index))?;
            slot.thing = Some(thing);
            return Some(slot.generation << INDEX_BITS | u32::from(index));
        }
        if self.slots.len() == SLOTS_MAX {
            return None;
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot {
            generation: 0,
            thing: Some(thing),
        });
        Some(index)
    }

    /// The thing of this key, if it is still there.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut((key & INDEX_MASK) as usize)?;
        if slot.generation != key >> INDEX_BITS {
            return None;
        }
        slot.thing.as_mut()
    }

    /// Takes the thing of this key out, if it is still there.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut((key & INDEX_MASK) as usize)?;
        if slot.generation != key >> INDEX_BITS {
            return None;
        }
        let thing = slot.thing.take()?;
        slot.generation = (slot.generation + 1) & (u32::MAX >> INDEX_BITS);
        self.free
            .push(u16::try_from(key & INDEX_MASK).unwrap_or_default());
        Some(thing)
    }

    /// All things.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.thing.as_ref())
    }

    /// All things, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.thing.as_mut())
    }

    /// The slots in use or not, for [`Slots::key_at`].
    pub(crate) const fn span(&self) -> usize {
        self.slots.len()
    }

    /// The key of what is in the slot `index`, if something is.
    pub(crate) fn key_at(&self, index: usize) -> Option<Key> {
        let slot = self.slots.get(index)?;
        slot.thing.as_ref()?;
        Some(slot.generation << INDEX_BITS | u32::try_from(index).ok()?)
    }

    /// Takes all things out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        let all: Vec<Key> = (0..self.span())
            .filter_map(|index| self.key_at(index))
            .collect();
        all.into_iter().filter_map(|key| self.remove(key))
    }
}

/// Some of the slots, by index: which of many things are to be looked at, without a walk over all.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    words: Vec<u64>,
}

impl Marks {
    /// None.
    pub(crate) const fn new() -> Self {
        Self { words: Vec::new() }
    }

    /// Marks the slot of this key.
    pub(crate) fn set(&mut self, key: Key) {
        let index = (key & INDEX_MASK) as usize;
        let word = index / WORD_BITS;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word |= 1 << (index % WORD_BITS);
        }
    }

    /// The slot `index` is marked no more.
    pub(crate) fn clear(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / WORD_BITS) {
            *word &= !(1 << (index % WORD_BITS));
        }
    }

    /// The first slot that is marked, from `index` on.
    pub(crate) fn next(&self, index: usize) -> Option<usize> {
        let first = index / WORD_BITS;
        let mut above = u64::MAX << (index % WORD_BITS);
        for (at, word) in self.words.iter().enumerate().skip(first) {
            let word = word & std::mem::replace(&mut above, u64::MAX);
            if word != 0 {
                return Some(at * WORD_BITS + word.trailing_zeros() as usize);
            }
        }
        None
    }

    /// How many are marked.
    pub(crate) fn count(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }
}

const WORD_BITS: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_order() {
        let mut marks = Marks::new();
        assert_eq!(
            (marks.next(0), marks.next(500), marks.count()),
            (None, None, 0)
        );
        let at = [0_usize, 5, 63, 64, 130, 8191];
        for index in at {
            marks.set(u32::try_from(index).unwrap() | 7 << INDEX_BITS);
        }
        assert_eq!(marks.count(), at.len());
        let all = std::iter::successors(marks.next(0), |index| marks.next(index + 1));
        assert_eq!(all.collect::<Vec<_>>(), at);
        for index in at {
            marks.clear(index);
            assert_ne!(marks.next(index), Some(index));
        }
        marks.clear(100_000);
        assert_eq!(marks.next(0), None);
    }

    #[test]
    fn a_key_of_an_earlier_generation_finds_nothing() {
        let mut slots = Slots::new();
        let first = slots.insert(1).unwrap();
        assert_eq!(slots.remove(first), Some(1));
        let second = slots.insert(2).unwrap();
        assert_ne!(first, second);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut 2));
        assert_eq!(slots.remove(u32::MAX), None);
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.key_at(0), Some(second));
        assert_eq!(slots.drain().collect::<Vec<_>>(), [2]);
        assert_eq!(slots.key_at(0), None);
        assert_eq!(slots.get_mut(second), None);
    }

    #[test]
    fn there_is_a_bound_and_keys_stay_apart() {
        let mut slots = Slots::new();
        let mut seen = std::collections::HashSet::new();
        let keys: Vec<_> = (0..SLOTS_MAX).map(|n| slots.insert(n).unwrap()).collect();
        assert!(keys.iter().all(|&key| seen.insert(key)));
        assert_eq!(slots.room(), 0);
        assert_eq!(slots.insert(0), None);
        for key in keys {
            slots.remove(key).unwrap();
        }
        // The generation wraps around without touching the index.
        for _ in 0..(1_u32 << 20) {
            let key = slots.insert(0).unwrap();
            assert!(slots.remove(key).is_some());
        }
        assert!(slots.is_empty());
    }
}
