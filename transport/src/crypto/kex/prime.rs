//! Whether the modulus that a server names is a safe prime: p and q = (p - 1) / 2 are both prime.
//!
//! The cost is bounded: small divisors first, which nine of ten numbers that are no safe primes have,
//! then three powers with exponents as long as the modulus, of which a number that is none costs one.
//! On one core that is 13 ms for 2048 bits, 50 ms for 3072 and 110 ms for 4096, and a third of it for a
//! composite number without small divisors; longer ones are not tested. It is not made for secrets:
//! the modulus crosses the wire.

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Limb, NonZero, Odd, Resize as _};

use crate::crypto::{Random, RandomFailed};

/// Divisors that are tried are below this.
const SMALL_MAX: u32 = 2_000;
/// Rounds of Miller and Rabin on q, each with a base that nobody can foresee.
///
/// A number that is not prime by accident passes one with a probability that is beyond small; one
/// that was built to deceive passes each with at most 1/4. The builder would be the server, which
/// knows all secrets of the connection anyway: more rounds would buy nothing.
const ROUNDS: usize = 2;

/// Tests the modulus, which is odd and longer than 64 bits.
pub(super) fn is_safe(
    modulus: &BoxedMontyParams,
    random: &mut dyn Random,
) -> Result<bool, RandomFailed> {
    let p = modulus.modulus().as_ref();
    if has_small_divisor(p) {
        return Ok(false);
    }
    let Some(q) = Odd::new(p.shr(1)).into_option() else {
        return Ok(false); // q is even
    };
    let q = BoxedMontyParams::new_vartime(q);
    for round in 0..ROUNDS {
        if !passes_miller_rabin(&q, random)? {
            return Ok(false);
        }
        // After the first round, which few composites survive.
        if round == 0 && !passes_fermat(modulus) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether p or q has a divisor below [`SMALL_MAX`]: r divides q = (p - 1) / 2 if p mod r is 1.
pub(super) fn has_small_divisor(p: &BoxedUint) -> bool {
    let mut composite = vec![false; SMALL_MAX as usize];
    let mut divisor = 3;
    while divisor < SMALL_MAX {
        if composite.get(divisor as usize).is_some_and(|&is| !is) {
            for multiple in (divisor * divisor..SMALL_MAX).step_by(divisor as usize) {
                if let Some(is) = composite.get_mut(multiple as usize) {
                    *is = true;
                }
            }
            if let Some(limb) = NonZero::new(Limb::from_u32(divisor)).into_option()
                && p.rem_limb(limb).0 <= 1
            {
                return true;
            }
        }
        divisor += 2;
    }
    false
}

/// 2^(p-1) = 1 mod p. With q prime this proves p prime (Pocklington: q is a divisor of p - 1 above
/// the root of p, and gcd(2^2 - 1, p) = 1 as 3 is no divisor).
fn passes_fermat(modulus: &BoxedMontyParams) -> bool {
    let p = modulus.modulus().as_ref();
    let two = BoxedUint::from(2_u8).resize(modulus.bits_precision());
    note_power(modulus);
    let power = BoxedMontyForm::new(two, modulus).pow(&p.wrapping_sub(BoxedUint::one()));
    power == BoxedMontyForm::one(modulus)
}

/// One round of Miller and Rabin with a random base.
fn passes_miller_rabin(
    modulus: &BoxedMontyParams,
    random: &mut dyn Random,
) -> Result<bool, RandomFailed> {
    let n = modulus.modulus().as_ref();
    let less = n.wrapping_sub(BoxedUint::one());
    let twos = less.trailing_zeros_vartime();
    let odd = less.shr(twos);
    let one = BoxedMontyForm::one(modulus);
    let minus_one = one.neg();
    note_power(modulus);
    let mut power = BoxedMontyForm::new(base(n, random)?, modulus)
        .pow_bounded_exp(&odd, n.bits_vartime() - twos);
    if power == one || power == minus_one {
        return Ok(true);
    }
    for _ in 1..twos {
        power = power.square();
        if power == minus_one {
            return Ok(true);
        }
    }
    Ok(false)
}

/// For tests, which count what a number costs: the bits of each power's modulus.
#[cfg(test)]
fn note_power(modulus: &BoxedMontyParams) {
    let bits = modulus.modulus().as_ref().bits_vartime();
    POWERS.with_borrow_mut(|powers| powers.push(bits));
}

#[cfg(not(test))]
const fn note_power(_: &BoxedMontyParams) {}

#[cfg(test)]
thread_local! {
    pub(super) static POWERS: std::cell::RefCell<Vec<u32>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A random number from 2 to n - 2.
fn base(n: &BoxedUint, random: &mut dyn Random) -> Result<BoxedUint, RandomFailed> {
    let bits = n.bits_vartime();
    let precision = n.bits_precision();
    let mut bytes = vec![0; precision as usize / 8];
    random.fill(&mut bytes)?;
    let drawn = BoxedUint::from_be_slice(&bytes, precision).map_err(|_| RandomFailed)?;
    // One bit shorter than n, so below it; with the second lowest bit set, so above 1.
    Ok(drawn.shr(precision - bits + 1) | BoxedUint::from(2_u8).resize(precision))
}

/// Rounds on any odd number, for vectors.
#[cfg(test)]
pub(super) fn passes_rounds(
    magnitude: &[u8],
    rounds: usize,
    random: &mut dyn Random,
) -> Option<bool> {
    let n = Odd::new(BoxedUint::from_be_slice_vartime(magnitude)).into_option()?;
    let n = BoxedMontyParams::new_vartime(n);
    Some((0..rounds).all(|_| passes_miller_rabin(&n, random).unwrap()))
}
