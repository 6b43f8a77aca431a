//! Faults for tests: one bit of a raw signature is turned before it is verified.

use std::cell::Cell;

thread_local! {
    static BIT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `work` with that bit, counted from the front, turned in every raw signature.
pub(super) fn with_bit_turned<T>(bit: usize, work: impl FnOnce() -> T) -> T {
    BIT.set(Some(bit));
    let done = work();
    BIT.set(None);
    done
}

pub(super) fn inject(mut raw: Vec<u8>) -> Vec<u8> {
    if let Some(bit) = BIT.get() {
        let len = raw.len();
        raw[bit / 8 % len] ^= 0x80 >> (bit % 8);
    }
    raw
}
