//! Polynomials as bytes: numbers below moduli that are no powers of two, packed in pairs.
//!
//! Two neighbours become one number below the product of their moduli, whose low bytes are put out
//! while it is 2^14 or larger; what is left of all pairs is packed in the same way, until one number is
//! left. The moduli are the same for all polynomials of a kind, so nothing depends on what is packed;
//! what is unpacked is public.

use zeroize::Zeroize as _;

use super::{CIPHERTEXT_LEN, HASH_LEN, KEY_LEN, Large, P, Q, ROUNDED_LEN, SMALL_LEN, Small};

/// Numbers above which a byte is put out.
const LIMIT: u32 = 1 << 14;
/// The largest coefficient.
const HALF: i16 = Q / 2;
/// How many multiples of three there are among the coefficients.
const ROUNDED: u32 = (Q as u32).div_ceil(3);

/// Coefficients four to a byte.
pub(super) fn pack_small(small: &Small) -> [u8; SMALL_LEN] {
    let mut packed = [0; SMALL_LEN];
    for (byte, four) in packed.iter_mut().zip(small.chunks(4)) {
        for (place, coefficient) in four.iter().enumerate() {
            *byte |= (coefficient + 1).cast_unsigned() << (2 * place);
        }
    }
    packed
}

/// An encapsulation key.
pub(super) fn encode_key(h: &Large) -> [u8; KEY_LEN] {
    let numbers = h.iter().map(|&coefficient| number(coefficient + HALF));
    pack(numbers.collect(), u32::from(Q.unsigned_abs()))
}

/// The polynomial of an encapsulation key.
pub(super) fn decode_key(key: &[u8; KEY_LEN]) -> Large {
    let numbers = unpack(key, u32::from(Q.unsigned_abs()));
    coefficients(&numbers, |number| number)
}

/// Multiples of three.
pub(super) fn encode_rounded(rounded: &Large) -> [u8; CIPHERTEXT_LEN - HASH_LEN] {
    // 10923 is 2^15 / 3, rounded up.
    let third = |&coefficient: &i16| (number(coefficient + HALF) * 10_923) >> 15;
    pack(rounded.iter().map(third).collect(), ROUNDED)
}

/// Multiples of three, of a ciphertext.
pub(super) fn decode_rounded(rounded: &[u8; ROUNDED_LEN]) -> Large {
    let numbers = unpack(rounded, ROUNDED);
    coefficients(&numbers, |number| 3 * number)
}

fn number(coefficient: i16) -> u32 {
    u32::from(coefficient.cast_unsigned())
}

fn coefficients(numbers: &[u32], of: impl Fn(i16) -> i16) -> Large {
    let mut out = [0; P];
    for (out, &number) in out.iter_mut().zip(numbers) {
        *out = of(i16::try_from(number).unwrap_or_default()) - HALF;
    }
    out
}

/// Packs numbers below `modulus`.
fn pack<const LEN: usize>(mut numbers: Vec<u32>, modulus: u32) -> [u8; LEN] {
    let mut out = [0; LEN];
    let mut bytes = out.iter_mut();
    let mut put = |number: &mut u32, modulus: &mut u32| {
        if let Some(byte) = bytes.next() {
            *byte = number.to_le_bytes()[0];
        }
        *number >>= 8;
        *modulus = modulus.div_ceil(256);
    };
    let mut moduli = Moduli::new(modulus);
    while numbers.len() > 1 {
        let (len, left) = (numbers.len(), numbers.len().div_ceil(2));
        for pair in 0..len / 2 {
            let (first, second) = (2 * pair, 2 * pair + 1);
            let mut number = numbers[first] + numbers[second] * moduli.of(first, len);
            let mut modulus = moduli.of(first, len) * moduli.of(second, len);
            while modulus >= LIMIT {
                put(&mut number, &mut modulus);
            }
            numbers[pair] = number;
        }
        if len % 2 == 1 {
            numbers[left - 1] = numbers[len - 1];
        }
        numbers[left..].zeroize();
        numbers.truncate(left);
        moduli = moduli.halved(len);
    }
    let (mut number, mut modulus) = (numbers[0], moduli.of(0, 1));
    while modulus > 1 {
        put(&mut number, &mut modulus);
    }
    numbers.zeroize();
    out
}

/// Unpacks 761 numbers below `modulus`. Any bytes are some numbers.
fn unpack(bytes: &[u8], modulus: u32) -> Vec<u32> {
    unpack_level(&mut bytes.iter(), P, Moduli::new(modulus))
}

fn unpack_level(bytes: &mut std::slice::Iter<'_, u8>, len: usize, moduli: Moduli) -> Vec<u32> {
    let mut byte = || u32::from(bytes.next().copied().unwrap_or_default());
    if len <= 1 {
        let modulus = moduli.of(0, len);
        let (mut number, mut bits, mut left) = (0, 0, modulus);
        while left > 1 {
            number |= byte() << bits;
            bits += 8;
            left = left.div_ceil(256);
        }
        return vec![number % modulus];
    }
    let low: Vec<(u32, u32)> = (0..len / 2)
        .map(|pair| {
            let mut modulus = moduli.of(2 * pair, len) * moduli.of(2 * pair + 1, len);
            let (mut number, mut bits) = (0, 0);
            while modulus >= LIMIT {
                number |= byte() << bits;
                bits += 8;
                modulus = modulus.div_ceil(256);
            }
            (number, bits)
        })
        .collect();
    let high = unpack_level(bytes, len.div_ceil(2), moduli.halved(len));
    let mut out = Vec::with_capacity(len);
    for (pair, &(number, bits)) in low.iter().enumerate() {
        let number = number.wrapping_add(high[pair] << bits);
        out.push(number % moduli.of(2 * pair, len));
        out.push(number / moduli.of(2 * pair, len) % moduli.of(2 * pair + 1, len));
    }
    if len % 2 == 1 {
        out.push(high[len / 2]);
    }
    out
}

/// The moduli of one level: all the same but for the last.
#[derive(Clone, Copy)]
struct Moduli {
    all: u32,
    last: u32,
}

impl Moduli {
    const fn new(modulus: u32) -> Self {
        Self {
            all: modulus,
            last: modulus,
        }
    }

    const fn of(self, index: usize, len: usize) -> u32 {
        if index + 1 == len {
            self.last
        } else {
            self.all
        }
    }

    /// Those of the next level, above `len` numbers.
    fn halved(self, len: usize) -> Self {
        let pair = |mut modulus: u32| {
            while modulus >= LIMIT {
                modulus = modulus.div_ceil(256);
            }
            modulus
        };
        Self {
            all: pair(self.all * self.all),
            last: if len % 2 == 1 {
                self.last
            } else {
                pair(self.all * self.last)
            },
        }
    }
}
