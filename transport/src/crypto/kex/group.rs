//! Diffie-Hellman in the groups of numbers modulo a prime (RFC 4253 §8, RFC 8268), and in groups
//! that a server names (RFC 4419).
//!
//! Every group here is of a safe prime p = 2q + 1: the values other than 1 and p - 1 all have an
//! order of q or 2q, so a peer's value in `2..=p-2` leaks nothing of our exponent. Powers of secret
//! exponents take the same time and touch the same memory whatever the exponent.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{LazyLock, Mutex, PoisonError};

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd, Resize as _};
use ring::digest;
use zeroize::{Zeroize as _, Zeroizing};

use super::{BadPublicValue, SharedSecret, prime};
use crate::crypto::{Random, RandomFailed};

mod modp;

/// Bits of a secret exponent: twice the strength of the largest group (RFC 4419 §6.2), and room.
const EXPONENT_BITS: u32 = 512;
/// Most bits of a modulus that is looked at, whatever was asked for.
pub(crate) const MODULUS_BITS_MAX: u32 = 8192;
/// Most bits of a modulus that is tested: more takes too long, and it is the server that says when. Of
/// longer ones only those are taken that are published.
pub(crate) const TESTED_BITS_MAX: u32 = 4096;
/// Moduli of servers that are remembered as safe, so that they are tested once.
const REMEMBERED_MAX: usize = 32;

/// A group and a generator.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    modulus: BoxedMontyParams,
    generator: BoxedMontyForm,
}

/// Why a group that a server named is not used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UnsafeGroup {
    /// The numbers are not written as RFC 4251 §5 wants them, or are negative.
    Malformed,
    /// The modulus has another size than was asked for.
    Size {
        /// Its size in bits.
        bits: u32,
    },
    /// The modulus is no safe prime.
    NotSafePrime,
    /// The generator is not between 1 and p - 1.
    Generator,
    /// There was no randomness to test the modulus with.
    Random(RandomFailed),
}

impl Group {
    /// Group 1, Oakley's second (RFC 2409 §6.2): for the legacy profile.
    pub(super) fn modp_1024() -> &'static Self {
        static GROUP: LazyLock<Group> = LazyLock::new(|| Group::published(modp::MODP_1024));
        &GROUP
    }

    /// Group 14 (RFC 3526 §3).
    pub(super) fn modp_2048() -> &'static Self {
        static GROUP: LazyLock<Group> = LazyLock::new(|| Group::published(modp::MODP_2048));
        &GROUP
    }

    /// Group 16 (RFC 3526 §5).
    pub(super) fn modp_4096() -> &'static Self {
        static GROUP: LazyLock<Group> = LazyLock::new(|| Group::published(modp::MODP_4096));
        &GROUP
    }

    /// Group 18 (RFC 3526 §7).
    pub(super) fn modp_8192() -> &'static Self {
        static GROUP: LazyLock<Group> = LazyLock::new(|| Group::published(modp::MODP_8192));
        &GROUP
    }

    fn published(hex: &str) -> Self {
        let bits = u32::try_from(hex.len() * 4).expect("8192 at most");
        let p = BoxedUint::from_be_hex(hex, bits).expect("our own numbers are hexadecimal");
        let p = Odd::new(p).expect("our own primes are odd");
        Self::of(BoxedMontyParams::new_vartime(p), BoxedUint::from(2_u8))
    }

    fn of(modulus: BoxedMontyParams, generator: BoxedUint) -> Self {
        let generator = generator.resize(modulus.bits_precision());
        Self {
            generator: BoxedMontyForm::new(generator, &modulus),
            modulus,
        }
    }

    /// Takes a group that a server named, `p` and `g` being the contents of its `mpint`s, if its
    /// size is in `bits` and it is safe.
    ///
    /// Cheap questions come first. What is left costs one power with an exponent as long as the
    /// modulus, [`TESTED_BITS_MAX`] at the most, if it is not safe, and three if it is, once: safe
    /// moduli are remembered.
    pub(crate) fn new(
        p: &[u8],
        g: &[u8],
        bits: RangeInclusive<u32>,
        random: &mut dyn Random,
    ) -> Result<Self, UnsafeGroup> {
        let p_magnitude = magnitude(p).ok_or(UnsafeGroup::Malformed)?;
        let g_magnitude = magnitude(g).ok_or(UnsafeGroup::Malformed)?;
        let size = bit_len(p_magnitude);
        if size > MODULUS_BITS_MAX || !bits.contains(&size) {
            return Err(UnsafeGroup::Size { bits: size });
        }
        let p = BoxedUint::from_be_slice(p_magnitude, size).map_err(|_| UnsafeGroup::Malformed)?;
        // Whole words, as a number with more bits than are asked for would be cut short.
        let g = BoxedUint::from_be_slice(g_magnitude, p.bits_precision())
            .map_err(|_| UnsafeGroup::Generator)?;
        if !is_between(&g, &p) {
            return Err(UnsafeGroup::Generator);
        }
        let p = Odd::new(p).into_option().ok_or(UnsafeGroup::NotSafePrime)?;
        let modulus = safe_modulus(p_magnitude, p, random)?;
        Ok(Self::of(modulus, g))
    }

    /// Reads a peer's public value: only what is between 1 and p - 1 is one (RFC 4253 §8).
    pub(super) fn public_value(&self, theirs: &[u8]) -> Result<BoxedMontyForm, BadPublicValue> {
        let theirs = magnitude(theirs).ok_or(BadPublicValue)?;
        let bits = self.modulus.bits_precision();
        let theirs = BoxedUint::from_be_slice(theirs, bits).map_err(|_| BadPublicValue)?;
        if is_between(&theirs, self.modulus.modulus().as_ref()) {
            Ok(BoxedMontyForm::new(theirs, &self.modulus))
        } else {
            Err(BadPublicValue)
        }
    }
}

/// One side's exponent for one exchange.
pub(super) struct Secret {
    group: Group,
    exponent: Zeroizing<BoxedUint>,
    public: Vec<u8>,
}

impl Secret {
    pub(super) fn generate(group: &Group, random: &mut dyn Random) -> Result<Self, RandomFailed> {
        let mut bytes = Zeroizing::new([0; EXPONENT_BITS as usize / 8]);
        random.fill(&mut *bytes)?;
        Ok(Self::from_exponent(group, &bytes))
    }

    fn from_exponent(group: &Group, bytes: &[u8; EXPONENT_BITS as usize / 8]) -> Self {
        let exponent = BoxedUint::from_be_slice(bytes, EXPONENT_BITS).expect("as many bits");
        let exponent = Zeroizing::new(exponent);
        let public = group.generator.pow(&exponent).retrieve();
        Self {
            group: group.clone(),
            exponent,
            public: content(&public.to_be_bytes()),
        }
    }

    /// Our public value, as the content of an `mpint`.
    pub(super) fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    pub(super) fn agree(self, theirs: &[u8]) -> Result<SharedSecret, BadPublicValue> {
        let theirs = self.group.public_value(theirs)?;
        Ok(self.agree_with(&theirs))
    }

    pub(super) fn agree_with(self, theirs: &BoxedMontyForm) -> SharedSecret {
        let mut power = theirs.pow(&self.exponent);
        let shared = Zeroizing::new(power.retrieve());
        power.zeroize();
        SharedSecret::mpint(&Zeroizing::new(shared.to_be_bytes()))
    }
}

/// Moduli of servers that were tested and found safe, the last used at the end.
static REMEMBERED: Mutex<VecDeque<(Fingerprint, BoxedMontyParams)>> = Mutex::new(VecDeque::new());

type Fingerprint = [u8; digest::SHA256_OUTPUT_LEN];

fn safe_modulus(
    magnitude: &[u8],
    p: Odd<BoxedUint>,
    random: &mut dyn Random,
) -> Result<BoxedMontyParams, UnsafeGroup> {
    // A server without moduli of its own names one of these.
    for published in [Group::modp_2048(), Group::modp_4096(), Group::modp_8192()] {
        if *published.modulus.modulus() == p {
            return Ok(published.modulus.clone());
        }
    }
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, magnitude).as_ref());
    if let Some(modulus) = recall(&fingerprint) {
        return Ok(modulus);
    }
    if bit_len(magnitude) > TESTED_BITS_MAX {
        return Err(UnsafeGroup::NotSafePrime);
    }
    let modulus = BoxedMontyParams::new_vartime(p);
    match prime::is_safe(&modulus, random) {
        Ok(true) => {
            remember(fingerprint, modulus.clone());
            Ok(modulus)
        }
        Ok(false) => Err(UnsafeGroup::NotSafePrime),
        Err(failed) => Err(UnsafeGroup::Random(failed)),
    }
}

fn recall(fingerprint: &Fingerprint) -> Option<BoxedMontyParams> {
    let mut remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
    let index = remembered.iter().position(|(of, _)| of == fingerprint)?;
    let found = remembered.remove(index)?;
    let modulus = found.1.clone();
    remembered.push_back(found);
    Some(modulus)
}

fn remember(fingerprint: Fingerprint, modulus: BoxedMontyParams) {
    let mut remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
    if remembered.len() == REMEMBERED_MAX {
        remembered.pop_front();
    }
    remembered.push_back((fingerprint, modulus));
}

/// Whether `1 < value < p - 1`. In variable time: all of these numbers cross the wire.
fn is_between(value: &BoxedUint, p: &BoxedUint) -> bool {
    let one = BoxedUint::one();
    value.cmp_vartime(&one).is_gt() && value.wrapping_add(&one).cmp_vartime(p).is_lt()
}

/// The magnitude in the content of an `mpint`, if it is written as RFC 4251 §5 wants it and is
/// positive.
fn magnitude(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, rest @ ..] if rest.first().is_some_and(|&byte| byte >= 0x80) => Some(rest),
        [1..0x80, ..] => Some(content),
        _ => None,
    }
}

/// The content of an `mpint` from the big-endian bytes of a number.
fn content(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let magnitude = bytes.get(zeros..).unwrap_or_default();
    let sign = magnitude.first().is_some_and(|&byte| byte >= 0x80);
    let mut content = vec![0; usize::from(sign)];
    content.extend_from_slice(magnitude);
    content
}

/// Bits of a magnitude that starts with no zero byte; saturates.
fn bit_len(magnitude: &[u8]) -> u32 {
    let zeros = magnitude.first().map_or(0, |byte| byte.leading_zeros());
    u32::try_from(magnitude.len())
        .unwrap_or(u32::MAX)
        .saturating_mul(8)
        .saturating_sub(zeros)
}

#[cfg(test)]
mod tests;
