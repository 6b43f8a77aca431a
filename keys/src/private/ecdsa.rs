//! ECDSA private keys: P-256 and P-384 with `ring`, P-521 with `p521`.
//!
//! The nonce is never random alone: `ring` mixes key, digest and randomness; for P-521 it is
//! RFC 6979's with randomness as additional data (§3.6), so neither a weak random number
//! generator nor a repeated fault gives two signatures with related nonces.

use p521::ecdsa::signature::RandomizedSigner as _;
use p521::elliptic_curve::Generate as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _,
};
use zeroize::Zeroizing;

use super::{GenerateError, SignError};
use crate::curve::Curve;

fn ring_algorithm(curve: Curve) -> Option<&'static EcdsaSigningAlgorithm> {
    match curve {
        Curve::P256 => Some(&ECDSA_P256_SHA256_FIXED_SIGNING),
        Curve::P384 => Some(&ECDSA_P384_SHA384_FIXED_SIGNING),
        Curve::P521 => None,
    }
}

/// Makes a scalar and its point.
pub(super) fn generate(curve: Curve) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), GenerateError> {
    let random = SystemRandom::new();
    let Some(algorithm) = ring_algorithm(curve) else {
        let key = p521::ecdsa::SigningKey::try_generate_from_rng(&mut System(random))
            .map_err(|_| GenerateError::Random)?;
        let scalar = Zeroizing::new(key.to_bytes().to_vec());
        return Ok((
            scalar,
            key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        ));
    };
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random);
    let pkcs8 = pkcs8.map_err(|_| GenerateError::Random)?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
    let point = pair
        .map_err(|_| GenerateError::Random)?
        .public_key()
        .as_ref()
        .to_vec();
    let scalar = crate::file::der::ec_scalar_of_pkcs8(pkcs8.as_ref());
    Ok((scalar.ok_or(GenerateError::Random)?, point))
}

/// Whether the point is the scalar's.
pub(super) fn is_pair(curve: Curve, scalar: &[u8], point: &[u8]) -> bool {
    match ring_algorithm(curve) {
        Some(algorithm) => pair(algorithm, scalar, point).is_some(),
        None => p521_point(scalar).is_some_and(|own| own == point),
    }
}

/// The point of a scalar, where it can be computed here.
pub(crate) fn p521_point(scalar: &[u8]) -> Option<Vec<u8>> {
    let key = p521::ecdsa::SigningKey::from_slice(scalar).ok()?;
    Some(key.verifying_key().to_sec1_point(false).as_bytes().to_vec())
}

fn pair(
    algorithm: &'static EcdsaSigningAlgorithm,
    scalar: &[u8],
    point: &[u8],
) -> Option<EcdsaKeyPair> {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, point, &random).ok()
}

/// Signs: both numbers at the curve's length, one after the other.
pub(super) fn sign(
    curve: Curve,
    scalar: &[u8],
    point: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, SignError> {
    let Some(algorithm) = ring_algorithm(curve) else {
        let key = p521::ecdsa::SigningKey::from_slice(scalar).map_err(|_| SignError::Fault)?;
        let signed: Result<p521::ecdsa::Signature, _> =
            key.try_sign_with_rng(&mut System(SystemRandom::new()), data);
        return Ok(signed.map_err(|_| SignError::Random)?.to_bytes().to_vec());
    };
    let pair = pair(algorithm, scalar, point).ok_or(SignError::Fault)?;
    let signed = pair
        .sign(&SystemRandom::new(), data)
        .map_err(|_| SignError::Random)?;
    Ok(signed.as_ref().to_vec())
}

/// The system's randomness in the form that `p521` takes it.
struct System(SystemRandom);

impl p521::elliptic_curve::rand_core::TryRng for System {
    type Error = NoRandom;

    fn try_next_u32(&mut self) -> Result<u32, NoRandom> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, NoRandom> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), NoRandom> {
        self.0.fill(bytes).map_err(|_| NoRandom)
    }
}

impl p521::elliptic_curve::rand_core::TryCryptoRng for System {}

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
struct NoRandom;
