//! Choices that a seed decides, so that a failure can be looked at twice.

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): small,
/// and good enough to choose with.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// All that it gives follows from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// True in so many of a hundred cases.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A place in something with `len` places, which is not empty.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Appends so many bytes.
    pub fn fill(&mut self, to: &mut Vec<u8>, len: usize) {
        let end = to.len() + len;
        while to.len() < end {
            to.extend_from_slice(&self.number().to_le_bytes());
        }
        to.truncate(end);
    }
}
