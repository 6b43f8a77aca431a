//! Key agreement on the NIST curves (RFC 5656 §4): points are uncompressed, K is the x coordinate.
//!
//! P-256 and P-384 are `ring`'s, P-521 is `p521`'s as `ring` has none. `ring` draws from the system's
//! generator itself and takes no other, so these two alone cannot be fixed by a test's
//! [`Random`], and it does not wipe the scalar: it stays on the stack or in the share's memory until
//! that is used again.

use p521::elliptic_curve::sec1::ToSec1Point as _;
use ring::agreement;
use zeroize::Zeroizing;

use super::{BadPublicValue, SharedSecret};
use crate::crypto::{Random, RandomFailed};

/// Bytes of a coordinate of P-521.
const P521_LEN: usize = 66;
/// In front of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;
/// Draws for a scalar of P-521. One in 2^259 is refused, so a second is already unheard of.
const DRAWS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

/// One side's secret for one exchange.
pub(super) struct Secret {
    scalar: Scalar,
    public: Vec<u8>,
}

enum Scalar {
    Ring(agreement::EphemeralPrivateKey),
    P521(p521::SecretKey),
}

impl Secret {
    pub(super) fn generate(curve: Curve, random: &mut dyn Random) -> Result<Self, RandomFailed> {
        let algorithm = match curve {
            Curve::P256 => &agreement::ECDH_P256,
            Curve::P384 => &agreement::ECDH_P384,
            Curve::P521 => return Self::generate_p521(random),
        };
        let system = ring::rand::SystemRandom::new();
        let scalar = agreement::EphemeralPrivateKey::generate(algorithm, &system)
            .map_err(|_| RandomFailed)?;
        let public = scalar.compute_public_key().map_err(|_| RandomFailed)?;
        Ok(Self {
            public: public.as_ref().to_vec(),
            scalar: Scalar::Ring(scalar),
        })
    }

    fn generate_p521(random: &mut dyn Random) -> Result<Self, RandomFailed> {
        let mut seed = Zeroizing::new([0; P521_LEN]);
        for _ in 0..DRAWS_MAX {
            random.fill(&mut *seed)?;
            seed[0] &= 1; // 521 bits; what is not below the order is drawn again
            if let Ok(scalar) = p521::SecretKey::from_slice(&seed[..]) {
                return Ok(Self::from_p521(scalar));
            }
        }
        Err(RandomFailed)
    }

    fn from_p521(scalar: p521::SecretKey) -> Self {
        let public = scalar.public_key().to_sec1_point(false);
        Self {
            public: public.as_bytes().to_vec(),
            scalar: Scalar::P521(scalar),
        }
    }

    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The peer's point has to be on the curve and not at infinity (RFC 5656 §4).
    pub(super) fn agree(self, theirs: &[u8]) -> Result<SharedSecret, BadPublicValue> {
        // Ours and theirs are of the same length and form, whatever else a crate would read.
        if theirs.len() != self.public.len() || theirs.first() != Some(&UNCOMPRESSED) {
            return Err(BadPublicValue);
        }
        match self.scalar {
            Scalar::Ring(scalar) => {
                let theirs = agreement::UnparsedPublicKey::new(scalar.algorithm(), theirs);
                agreement::agree_ephemeral(scalar, &theirs, SharedSecret::mpint)
                    .map_err(|_| BadPublicValue)
            }
            Scalar::P521(scalar) => {
                let theirs =
                    p521::PublicKey::from_sec1_bytes(theirs).map_err(|_| BadPublicValue)?;
                let shared =
                    p521::ecdh::diffie_hellman(scalar.to_nonzero_scalar(), theirs.as_affine());
                Ok(SharedSecret::mpint(shared.raw_secret_bytes()))
            }
        }
    }
}
