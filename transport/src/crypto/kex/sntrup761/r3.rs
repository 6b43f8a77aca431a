//! Polynomials with coefficients modulo 3.
//!
//! For the inverse they are two sets of bits: which coefficients are 1, and which are −1. Then 64 of
//! them are added at a time.

use zeroize::Zeroizing;

use super::{P, Small};

/// Words that hold a bit for each of the 762 coefficients of an intermediate.
const WORDS: usize = 12;

/// `x` modulo 3, as −1, 0 or 1.
#[expect(clippy::cast_possible_truncation, reason = "what is reduced is small")]
pub(super) const fn reduce(x: i16) -> i8 {
    // 10923 is 2^15 / 3, rounded up: the quotient is exact for |x| < 2^13.
    let x = x as i32;
    let quotient = (10_923 * x + 16_384) >> 15;
    (x - 3 * quotient) as i8
}

/// `a · b`.
pub(super) fn multiply(a: &Small, b: &Small, out: &mut Small) {
    let mut product = Zeroizing::new([0_i16; 2 * P]);
    for (shift, &factor) in b.iter().enumerate() {
        let factor = i16::from(factor);
        // Sums of 761 numbers that are −1, 0 or 1.
        for (sum, &coefficient) in product.iter_mut().skip(shift).zip(a) {
            *sum = sum.wrapping_add(factor.wrapping_mul(i16::from(coefficient)));
        }
    }
    super::rq::fold(&mut product);
    for (out, &sum) in out.iter_mut().zip(product.iter()) {
        *out = reduce(sum);
    }
}

/// Coefficients as bits.
#[derive(Clone, Copy, Default)]
struct Bits {
    plus: [u64; WORDS],
    minus: [u64; WORDS],
}

impl zeroize::Zeroize for Bits {
    fn zeroize(&mut self) {
        self.plus.zeroize();
        self.minus.zeroize();
    }
}

impl Bits {
    fn set(&mut self, index: usize, value: i8) {
        let (word, bit) = (index / 64, index % 64);
        let value = value.to_le_bytes()[0];
        if let (Some(plus), Some(minus)) = (self.plus.get_mut(word), self.minus.get_mut(word)) {
            *plus |= u64::from(value & !(value >> 7) & 1) << bit;
            *minus |= u64::from(value >> 7) << bit;
        }
    }

    fn get(&self, index: usize) -> i8 {
        let bit = |words: &[u64; WORDS]| {
            let word = words.get(index / 64).copied().unwrap_or_default();
            ((word >> (index % 64)) & 1).to_le_bytes()[0].cast_signed()
        };
        bit(&self.plus) - bit(&self.minus)
    }

    /// Multiplies by x.
    fn shift_up(&mut self) {
        for words in [&mut self.plus, &mut self.minus] {
            let mut carry = 0;
            for word in words {
                let next = *word >> 63;
                *word = *word << 1 | carry;
                carry = next;
            }
        }
    }

    /// Divides by x; there is no constant term.
    fn shift_down(&mut self) {
        for words in [&mut self.plus, &mut self.minus] {
            let mut carry = 0;
            for word in words.iter_mut().rev() {
                let next = *word << 63;
                *word = *word >> 1 | carry;
                carry = next;
            }
        }
    }

    /// Swaps where `mask` is all ones.
    fn swap(&mut self, other: &mut Self, mask: u64) {
        let ours = self.plus.iter_mut().chain(&mut self.minus);
        for (ours, theirs) in ours.zip(other.plus.iter_mut().chain(&mut other.minus)) {
            let swap = mask & (*ours ^ *theirs);
            *ours ^= swap;
            *theirs ^= swap;
        }
    }

    /// Adds `other` where `plus` is all ones, takes it away where `minus` is.
    fn add(&mut self, other: &Self, plus: u64, minus: u64) {
        let ours = self.plus.iter_mut().zip(&mut self.minus);
        let theirs = other.plus.iter().zip(&other.minus);
        for ((a_plus, a_minus), (b_plus, b_minus)) in ours.zip(theirs) {
            let (up, down) = (
                (plus & b_plus) | (minus & b_minus),
                (plus & b_minus) | (minus & b_plus),
            );
            let (a_zero, b_zero) = (!(*a_plus | *a_minus), !(up | down));
            let sum_plus = (*a_plus & b_zero) | (up & a_zero) | (*a_minus & down);
            let sum_minus = (*a_minus & b_zero) | (down & a_zero) | (*a_plus & up);
            (*a_plus, *a_minus) = (sum_plus, sum_minus);
        }
    }
}

/// Puts 1/`input` into `out`; false if there is no such thing.
///
/// Euclid's algorithm in steps that are the same whatever the input is (Bernstein and Yang, "Fast
/// constant-time gcd computation and modular inversion", 2019): of the reversed polynomials, one
/// step removes a constant term and divides by x.
pub(super) fn invert(input: &Small, out: &mut Small) -> bool {
    let mut f = Zeroizing::new(Bits::default());
    let mut g = Zeroizing::new(Bits::default());
    let mut v = Zeroizing::new(Bits::default());
    let mut r = Zeroizing::new(Bits::default());
    f.set(0, 1);
    f.set(P - 1, -1);
    f.set(P, -1);
    for (index, &coefficient) in input.iter().enumerate() {
        g.set(P - 1 - index, coefficient);
    }
    r.set(0, 1);
    let mut delta = 1_i32;
    for _ in 0..2 * P - 1 {
        v.shift_up();
        let (f_plus, f_minus) = (f.plus[0] & 1, f.minus[0] & 1);
        let (g_plus, g_minus) = (g.plus[0] & 1, g.minus[0] & 1);
        // g − (g0/f0)·f has no constant term, nor has f − (f0/g0)·g; and f0 is 1 or −1.
        let same = (f_plus & g_plus) | (f_minus & g_minus);
        let opposite = (f_plus & g_minus) | (f_minus & g_plus);
        let swap = is_positive(delta) & (g_plus | g_minus).wrapping_neg();
        delta = step(delta, swap);
        f.swap(&mut g, swap);
        v.swap(&mut r, swap);
        let (plus, minus) = (opposite.wrapping_neg(), same.wrapping_neg());
        g.add(&f, plus, minus);
        r.add(&v, plus, minus);
        g.shift_down();
    }
    let sign = f.get(0);
    for (index, coefficient) in out.iter_mut().enumerate() {
        *coefficient = sign * v.get(P - 1 - index);
    }
    delta == 0
}

/// All ones if `delta` is positive, else zero.
pub(super) fn is_positive(delta: i32) -> u64 {
    u64::from(delta.wrapping_neg().cast_unsigned() >> 31).wrapping_neg()
}

/// The next `delta`: negated first where `swap` is all ones.
pub(super) fn step(delta: i32, swap: u64) -> i32 {
    let negate = i32::from((swap & 1).to_le_bytes()[0]).wrapping_neg();
    (delta ^ (negate & (delta ^ delta.wrapping_neg()))).wrapping_add(1)
}
