//! Polynomials with coefficients modulo 4591, held between −2295 and 2295.

use zeroize::Zeroizing;

use super::r3::{is_positive, step};
use super::{Large, P, Q, Small};

/// 1/Q modulo 2^16, for Montgomery's reduction.
const Q_INVERSE: i16 = 15_631;
/// Rows that are added up in 16 bits: 14 times 2295 is less than 2^15.
const ROWS: usize = 14;

/// `x` modulo [`Q`]; |x| < 2^23 or so.
#[expect(clippy::cast_possible_truncation, reason = "what is reduced is small")]
pub(super) const fn reduce(x: i32) -> i16 {
    // 457 is 2^21/Q and 29235 is 2^27/Q, rounded: the first leaves |x| < 2^14, the second is exact.
    let x = x - Q as i32 * ((457 * (x >> 3)) >> 18);
    (x - Q as i32 * ((29_235 * x + (1 << 26)) >> 27)) as i16
}

/// Replaces what stands at x^761 and above: x^761 is x + 1.
pub(super) fn fold<T: Copy + std::ops::Add<Output = T>>(product: &mut [T; 2 * P]) {
    for index in (P..2 * P).rev() {
        product[index - P] = product[index - P] + product[index];
        product[index - P + 1] = product[index - P + 1] + product[index];
    }
}

/// `a · b`.
pub(super) fn multiply(a: &Large, b: &Small, out: &mut Large) {
    let mut product = Zeroizing::new([0_i32; 2 * P]);
    let mut rows = Zeroizing::new([0_i16; P + ROWS]);
    for (block, factors) in b.chunks(ROWS).enumerate() {
        rows.fill(0);
        for (shift, &factor) in factors.iter().enumerate() {
            let factor = i16::from(factor);
            for (sum, &coefficient) in rows.iter_mut().skip(shift).zip(a) {
                *sum = sum.wrapping_add(factor.wrapping_mul(coefficient));
            }
        }
        for (sum, &row) in product.iter_mut().skip(block * ROWS).zip(rows.iter()) {
            *sum = sum.wrapping_add(i32::from(row));
        }
    }
    fold(&mut product);
    for (out, &sum) in out.iter_mut().zip(product.iter()) {
        *out = reduce(sum);
    }
}

/// Puts 1/(3 · `input`) into `out`. The ring is a field, so there is one for all but zero.
///
/// As in [`r3::invert`](super::r3::invert), with products by Montgomery's reduction: each step
/// multiplies a row by some power of two, which is gone when the row is divided by its own first
/// coefficient in the end.
pub(super) fn invert_three_times(input: &Small, out: &mut Large) {
    const LEN: usize = P + 1;
    const STEPS: usize = 2 * P - 1;
    // A polynomial that is multiplied or divided by x in every step stays where it is, and its first
    // coefficient moves: down in `v`, up in `g`.
    let mut f = Zeroizing::new([0_i16; LEN]);
    let mut g = Zeroizing::new([0_i16; LEN + STEPS]);
    let mut v = Zeroizing::new([0_i16; LEN + STEPS]);
    let mut r = Zeroizing::new([0_i16; LEN]);
    f[0] = 1;
    f[P - 1] = -1;
    f[P] = -1;
    for (slot, &coefficient) in g.iter_mut().take(P).rev().zip(input) {
        *slot = i16::from(coefficient);
    }
    r[0] = power(3, Q as u32 - 2);
    let mut delta = 1_i32;
    for done in 0..STEPS {
        let g = &mut g[done..done + LEN];
        let v = &mut v[STEPS - 1 - done..STEPS - 1 - done + LEN];
        let f0 = reduce(i32::from(f[0]));
        let g0 = reduce(i32::from(g[0]));
        let g0_is_not_zero = u64::from((i32::from(g0) | -i32::from(g0)).cast_unsigned() >> 31);
        let swap = is_positive(delta) & g0_is_not_zero.wrapping_neg();
        delta = step(delta, swap);
        let mask = i16::from((swap & 1).to_le_bytes()[0]).wrapping_neg();
        let exchange = mask & (f0 ^ g0);
        let (f0, g0) = (Factor::new(f0 ^ exchange), Factor::new(g0 ^ exchange));
        // Of v and r nothing beyond is set yet, of f and g nothing beyond is looked at any more.
        let set = (done + 2).min(LEN);
        let wanted = (STEPS - done + 1).min(LEN);
        row(&mut f[..wanted], &mut g[..wanted], mask, f0, g0);
        row(&mut v[..set], &mut r[..set], mask, f0, g0);
    }
    let scale = power(i32::from(f[0]), Q as u32 - 2);
    for (out, &coefficient) in out.iter_mut().zip(v[..P].iter().rev()) {
        let coefficient = reduce(i32::from(coefficient));
        *out = reduce(i32::from(scale) * i32::from(coefficient));
    }
}

/// What a row is multiplied by, and that times 1/Q modulo 2^16.
#[derive(Clone, Copy)]
struct Factor {
    value: i16,
    quotient: i16,
}

impl Factor {
    const fn new(value: i16) -> Self {
        Self {
            value,
            quotient: value.wrapping_mul(Q_INVERSE),
        }
    }

    /// The product by x, divided by 2^16 modulo Q; less than |x| · 2296 / 2^16 + Q/2.
    const fn times(self, x: i16) -> i16 {
        let high = (self.value as i32 * x as i32) >> 16;
        let quotient = self.quotient.wrapping_mul(x);
        let excess = (quotient as i32 * Q as i32) >> 16;
        (high as i16).wrapping_sub(excess as i16)
    }
}

/// Swaps two rows where `mask` is all ones, then makes the second `first·second − second·first`.
///
/// What comes in is less than 5000, and so is what goes out.
fn row(first: &mut [i16], second: &mut [i16], mask: i16, f0: Factor, g0: Factor) {
    for (a, b) in first.iter_mut().zip(second) {
        let swap = mask & (*a ^ *b);
        let (x, y) = (*a ^ swap, *b ^ swap);
        *a = x;
        *b = f0.times(y).wrapping_sub(g0.times(x));
    }
}

/// `base` to a power that is known to everybody, modulo [`Q`].
fn power(base: i32, exponent: u32) -> i16 {
    let base = i32::from(reduce(base));
    let mut result = 1;
    for bit in (0..u32::BITS - exponent.leading_zeros()).rev() {
        result = i32::from(reduce(result * result));
        if (exponent >> bit) & 1 == 1 {
            result = i32::from(reduce(result * base));
        }
    }
    reduce(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduction_is_exact() {
        for x in (-8_000_000..8_000_000).step_by(7).chain(-30_000..30_000) {
            let reduced = i32::from(reduce(x));
            assert!(reduced.abs() <= 2295, "{x}");
            assert_eq!((x - reduced) % i32::from(Q), 0, "{x}");
        }
        assert_eq!(Q.wrapping_mul(Q_INVERSE), 1);
    }

    #[test]
    fn an_inverse_times_three_times_its_polynomial_is_one() {
        let mut seed = 1_u32;
        for _ in 0..3 {
            let input: Small = std::array::from_fn(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((seed >> 16) % 3) as i8 - 1
            });
            let (mut inverse, mut product) = ([0; P], [0; P]);
            invert_three_times(&input, &mut inverse);
            multiply(&inverse, &input, &mut product);
            let three = product.map(|coefficient| reduce(3 * i32::from(coefficient)));
            assert_eq!(three[0], 1);
            assert!(three[1..].iter().all(|&coefficient| coefficient == 0));
        }
    }
}
