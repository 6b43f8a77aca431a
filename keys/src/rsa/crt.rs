//! The one file that computes with an RSA private key: for the keys and hashes that `ring` refuses.
//!
//! RFC 8017 §5.2.1 with the Chinese remainder theorem, on `crypto-bigint`: exponentiation,
//! division and inversion take the same time whatever the secret numbers are (lengths are no
//! secret), and the message is blinded by a fresh random number, so that nobody chooses what is
//! computed with (Kocher's and Bleichenbacher's ways, RUSTSEC-2023-0071). Whoever calls this
//! verifies the signature before it leaves, for a fault in one half of the computation gives the
//! primes away (Boneh, DeMillo, Lipton).
//!
//! `crypto-bigint` does not overwrite its temporary numbers; what is kept between signatures, is
//! kept as bytes and overwritten.

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, ConcatenatingMul as _, NonZero, Odd, Resize as _};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

use super::{RsaNumbers, strip};
use crate::algorithm::SignatureAlgorithm;
use crate::private::SignError;
use crate::public::RsaPublic;

/// Bits of an exponent that the limits let through.
const PUBLIC_EXPONENT_BITS: u32 = 33;
/// How often a blinding factor is drawn: one without an inverse is a prime found by chance.
const BLINDING_TRIES: u32 = 8;

/// What is computed with, as bytes: big-endian, the secret ones overwritten when let go.
pub(super) struct Signer {
    public: RsaPublic,
    p: Zeroizing<Vec<u8>>,
    q: Zeroizing<Vec<u8>>,
    d_p: Zeroizing<Vec<u8>>,
    d_q: Zeroizing<Vec<u8>>,
    q_inverse: Zeroizing<Vec<u8>>,
}

/// The numbers of the two halves (RFC 8017 §3.2), which may have leading zeros.
pub(super) struct Halves<'a> {
    pub(super) d_p: &'a [u8],
    pub(super) d_q: &'a [u8],
    pub(super) q_inverse: &'a [u8],
}

impl Signer {
    /// Computes the numbers of the halves; `None` if the key's numbers do not fit each other.
    pub(super) fn new(public: &RsaPublic, numbers: &RsaNumbers) -> Option<Self> {
        let [d, p, q] = [&numbers.d, &numbers.p, &numbers.q].map(|number| strip(number));
        let len = public.modulus.len();
        if d.len() > len || p.len() > len || q.len() > len {
            return None;
        }
        let whole = bits_of(len);
        let half = bits_of(p.len().max(q.len()));
        let (p_number, q_number) = (number(p, half)?, number(q, half)?);
        let product = p_number.concatenating_mul(&q_number);
        if strip(&bytes(&product)) != &*public.modulus {
            return None;
        }
        let d = number(d, whole)?;
        let e = number(&public.exponent_bytes(), half)?;
        let [d_p, d_q] = [&p_number, &q_number].map(|prime| {
            let order = NonZero::new(prime.wrapping_sub(BoxedUint::one_with_precision(half)));
            let order = order.into_option()?;
            let exponent = d.rem(&order);
            // e · d has to be 1 modulo the order of the group, or nothing would verify.
            let product = e.rem(&order).mul_mod(&exponent, &order);
            bool::from(product.is_one()).then(|| bytes(&exponent))
        });
        let p_odd = Odd::new(p_number).into_option()?;
        let q_inverse = q_number
            .rem(p_odd.as_nz_ref())
            .invert_odd_mod(&p_odd)
            .into_option()?;
        Some(Self {
            public: public.clone(),
            p: Zeroizing::new(p.to_vec()),
            q: Zeroizing::new(q.to_vec()),
            d_p: d_p?,
            d_q: d_q?,
            q_inverse: bytes(&q_inverse),
        })
    }

    pub(super) fn with_halves<T>(&self, read: impl FnOnce(&Halves<'_>) -> T) -> T {
        let Self {
            d_p,
            d_q,
            q_inverse,
            ..
        } = self;
        read(&Halves {
            d_p,
            d_q,
            q_inverse,
        })
    }

    /// Signs with PKCS #1 v1.5; the caller verifies.
    pub(super) fn sign(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, SignError> {
        let len = self.public.modulus.len();
        let encoded = encode(algorithm, data, len).ok_or(SignError::Fault)?;
        self.exponentiate(&encoded)
    }

    /// The message to the power of the private exponent, blinded.
    fn exponentiate(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let whole = bits_of(self.public.modulus.len());
        let modulus = number(&self.public.modulus, whole).ok_or(SignError::Fault)?;
        let modulus = Odd::new(modulus).into_option().ok_or(SignError::Fault)?;
        let ring = BoxedMontyParams::new(modulus.clone());
        let message = number(message, whole).ok_or(SignError::Fault)?;

        let (blind, unblind) = self.blinding(&modulus, &ring)?;
        let blinded = BoxedMontyForm::new(message, &ring).mul(&blind).retrieve();
        let mut root = self.root(&blinded, whole)?;
        let signature = BoxedMontyForm::new(root.clone(), &ring)
            .mul(&unblind)
            .retrieve();
        root.zeroize();
        let signature = bytes(&signature);
        // The precision is a multiple of the limb's, so there may be zeros in front.
        let start = signature.len().checked_sub(self.public.modulus.len());
        start
            .and_then(|start| signature.get(start..))
            .map(<[u8]>::to_vec)
            .ok_or(SignError::Fault)
    }

    /// A random number to the power of the public exponent, and the number's inverse.
    fn blinding(
        &self,
        modulus: &Odd<BoxedUint>,
        ring: &BoxedMontyParams,
    ) -> Result<(BoxedMontyForm, BoxedMontyForm), SignError> {
        let exponent = BoxedUint::from(self.public.exponent);
        let mut drawn = Zeroizing::new(vec![0; self.public.modulus.len()]);
        for _ in 0..BLINDING_TRIES {
            SystemRandom::new()
                .fill(&mut drawn)
                .map_err(|_| SignError::Random)?;
            let factor = number(&drawn, ring.bits_precision()).ok_or(SignError::Fault)?;
            let factor = factor.rem(modulus.as_nz_ref());
            let Some(inverse) = factor.invert_odd_mod(modulus).into_option() else {
                continue;
            };
            let factor = BoxedMontyForm::new(factor, ring);
            let blind = factor.pow_bounded_exp(&exponent, PUBLIC_EXPONENT_BITS);
            return Ok((blind, BoxedMontyForm::new(inverse, ring)));
        }
        Err(SignError::Random)
    }

    /// Garner's way to join the two halves (RFC 8017 §5.1.2, 2b).
    fn root(&self, message: &BoxedUint, whole: u32) -> Result<BoxedUint, SignError> {
        let half = bits_of(self.p.len().max(self.q.len()));
        let half_number = |number_bytes: &[u8]| number(number_bytes, half).ok_or(SignError::Fault);
        let prime = |number_bytes: &[u8]| {
            Odd::new(half_number(number_bytes)?)
                .into_option()
                .ok_or(SignError::Fault)
        };
        let (p, q) = (prime(&self.p)?, prime(&self.q)?);
        let (p_ring, q_ring) = (
            BoxedMontyParams::new(p.clone()),
            BoxedMontyParams::new(q.clone()),
        );
        let power = |prime: &Odd<BoxedUint>, ring: &BoxedMontyParams, exponent: &[u8]| {
            let exponent = Zeroizing::new(half_number(exponent)?);
            Ok(BoxedMontyForm::new(message.rem(prime.as_nz_ref()), ring).pow(&exponent))
        };
        let at_p = power(&p, &p_ring, &self.d_p)?;
        #[cfg(test)]
        let at_p = super::tests::inject(at_p, &p_ring);
        let at_q = Zeroizing::new(power(&q, &q_ring, &self.d_q)?.retrieve());
        let at_q_in_p = BoxedMontyForm::new(at_q.rem(p.as_nz_ref()), &p_ring);
        let q_inverse = BoxedMontyForm::new(half_number(&self.q_inverse)?, &p_ring);
        let h = Zeroizing::new(at_p.sub(&at_q_in_p).mul(&q_inverse).retrieve());
        let product = Zeroizing::new(q.as_ref().concatenating_mul(&*h).resize_unchecked(whole));
        Ok(product.wrapping_add((&*at_q).resize_unchecked(whole)))
    }
}

/// Bits that a number of so many bytes takes.
fn bits_of(bytes: usize) -> u32 {
    u32::try_from(bytes).map_or(u32::MAX, |bytes| bytes.saturating_mul(8))
}

fn number(bytes: &[u8], bits: u32) -> Option<BoxedUint> {
    BoxedUint::from_be_slice(strip(bytes), bits).ok()
}

fn bytes(number: &BoxedUint) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(number.to_be_bytes().into_vec())
}

/// EMSA-PKCS1-v1_5 (RFC 8017 §9.2): zero, one, ones, zero, and the hash with its name.
fn encode(algorithm: SignatureAlgorithm, data: &[u8], len: usize) -> Option<Vec<u8>> {
    // DER of the DigestInfo up to the hash (RFC 8017 §9.2, note 1).
    const SHA1_INFO: &[u8] = &[
        0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14,
    ];
    const SHA256_INFO: &[u8] = &[
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    const SHA512_INFO: &[u8] = &[
        0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03,
        0x05, 0x00, 0x04, 0x40,
    ];
    let (info, hash) = match algorithm {
        SignatureAlgorithm::RsaSha1 => (SHA1_INFO, &SHA1_FOR_LEGACY_USE_ONLY),
        SignatureAlgorithm::RsaSha256 => (SHA256_INFO, &SHA256),
        SignatureAlgorithm::RsaSha512 => (SHA512_INFO, &SHA512),
        _ => return None,
    };
    let hashed = digest(hash, data);
    // Three bytes around at least eight ones.
    let ones = len
        .checked_sub(3 + info.len() + hashed.as_ref().len())
        .filter(|&ones| ones >= 8)?;
    let mut encoded = vec![0x00, 0x01];
    encoded.resize(2 + ones, 0xff);
    encoded.push(0x00);
    encoded.extend_from_slice(info);
    encoded.extend_from_slice(hashed.as_ref());
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_fills_the_modulus() {
        let encoded = encode(SignatureAlgorithm::RsaSha256, b"data", 128).unwrap();
        assert_eq!(encoded.len(), 128);
        assert_eq!(encoded[..3], [0, 1, 0xff]);
        let start = 128 - 32 - 19;
        assert_eq!(encoded[start - 2..start + 2], [0xff, 0, 0x30, 0x31]);
        assert_eq!(encoded[128 - 32..], *digest(&SHA256, b"data").as_ref());
        // A modulus that is too short for the hash has no signature.
        assert_eq!(
            encode(SignatureAlgorithm::RsaSha512, b"data", 64 + 19 + 10),
            None
        );
        assert!(encode(SignatureAlgorithm::RsaSha512, b"data", 64 + 19 + 11).is_some());
        assert_eq!(encode(SignatureAlgorithm::Ed25519, b"data", 256), None);
    }
}
