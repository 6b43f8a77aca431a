//! Private keys: made, and used for signing.
//!
//! Secrets are kept as bytes that are overwritten when they are let go; what `ring` needs is made
//! of them for each signature, except for RSA, whose preparation is long. Every signature is
//! verified before it leaves: one that a fault spoilt would give the key away.

use std::fmt;
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::algorithm::{KeyType, SignatureAlgorithm};
use crate::curve::Curve;
use crate::public::{Material, PublicKey};
use crate::rsa::RsaPrivate;
use crate::signature::{ecdsa_mpints, signature_blob};

mod ecdsa;
#[cfg(test)]
mod fault;
#[cfg(test)]
mod tests;

pub(crate) use ecdsa::p521_point;

/// A private key and its public half. Clones share the secret.
#[derive(Clone)]
pub struct PrivateKey {
    public: PublicKey,
    secret: Arc<Secret>,
}

/// The secret numbers of a key.
pub(crate) enum Secret {
    /// The seed (RFC 8032 §5.1.5).
    Ed25519(Box<Zeroizing<[u8; 32]>>),
    /// The scalar, big-endian, as long as the curve's order.
    Ecdsa {
        curve: Curve,
        scalar: Zeroizing<Vec<u8>>,
    },
    Rsa(Box<RsaPrivate>),
}

impl PrivateKey {
    /// Makes a new key of a type that is an elliptic curve's.
    ///
    /// RSA keys are made by `ssh-keygen`, and read here; keys in security keys are made there.
    ///
    /// # Errors
    /// [`GenerateError`] if there is no randomness, or the type is one of those.
    pub fn generate(key_type: KeyType) -> Result<Self, GenerateError> {
        match (key_type, Curve::of(key_type)) {
            (_, Some(curve)) => {
                let (scalar, point) = ecdsa::generate(curve)?;
                Self::ecdsa(curve, scalar, &point).ok_or(GenerateError::Random)
            }
            (KeyType::Ed25519, None) => {
                let mut seed = Zeroizing::new([0; 32]);
                let random = SystemRandom::new();
                random
                    .fill(&mut seed[..])
                    .map_err(|_| GenerateError::Random)?;
                Ok(Self::ed25519(&seed))
            }
            _ => Err(GenerateError::Type { key_type }),
        }
    }

    /// The Ed25519 key of a 32-byte seed (RFC 8032 §5.1.5).
    ///
    /// # Panics
    /// Never: every 32 bytes are a seed.
    #[must_use]
    pub fn from_ed25519_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        Self::ed25519(&seed)
    }

    /// As [`PrivateKey::from_ed25519_seed`], of a seed that stays where it is: each move of an array
    /// would leave a copy.
    pub(crate) fn ed25519(seed: &[u8; 32]) -> Self {
        let mut kept = Box::new(Zeroizing::new([0; 32]));
        kept.copy_from_slice(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..])
            .expect("every 32 bytes are an Ed25519 seed");
        let point = pair.public_key().as_ref();
        let point = point.try_into().expect("an Ed25519 point has 32 bytes");
        Self {
            public: PublicKey::ed25519(point),
            secret: Arc::new(Secret::Ed25519(kept)),
        }
    }

    /// The key of a scalar and its point; `None` if they do not belong together.
    pub(crate) fn ecdsa(curve: Curve, scalar: Zeroizing<Vec<u8>>, point: &[u8]) -> Option<Self> {
        if scalar.len() != curve.scalar_len() || !curve.fits(point) {
            return None;
        }
        if !ecdsa::is_pair(curve, &scalar, point) {
            return None;
        }
        let public = PublicKey::plain_of(Material::Ecdsa {
            curve,
            point: point.into(),
        });
        Some(Self {
            public,
            secret: Arc::new(Secret::Ecdsa { curve, scalar }),
        })
    }

    pub(crate) fn rsa(rsa: RsaPrivate) -> Self {
        let public = PublicKey::plain_of(Material::Rsa(rsa.public().clone()));
        Self {
            public,
            secret: Arc::new(Secret::Rsa(Box::new(rsa))),
        }
    }

    /// The public half, without a certificate.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Signs `data`: the whole signature blob as it stands on the wire (RFC 4253 §6.6).
    ///
    /// A certificate's algorithm signs as the plain one does, for this is the key inside it.
    ///
    /// # Errors
    /// [`SignError`]; with [`SignError::Fault`] the signature came out wrong and was thrown away.
    pub fn sign(&self, algorithm: SignatureAlgorithm, data: &[u8]) -> Result<Vec<u8>, SignError> {
        let plain = algorithm.plain();
        if plain.key_type() != self.public.key_type() {
            return Err(SignError::Algorithm {
                algorithm,
                key_type: self.public.key_type(),
            });
        }
        let raw = match &*self.secret {
            Secret::Ed25519(seed) => {
                let pair =
                    Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| SignError::Fault)?;
                pair.sign(data).as_ref().to_vec()
            }
            Secret::Ecdsa { curve, scalar } => {
                let Material::Ecdsa { point, .. } = self.public.material() else {
                    return Err(SignError::Fault);
                };
                ecdsa_mpints(&ecdsa::sign(*curve, scalar, point, data)?)
            }
            Secret::Rsa(rsa) => rsa.sign(plain, data)?,
        };
        #[cfg(test)]
        let raw = fault::inject(raw);
        let blob = signature_blob(plain, &raw);
        match self.public.verify_plain(plain, data, &blob) {
            Ok(_) => Ok(blob),
            Err(_) => Err(SignError::Fault),
        }
    }

    /// The key as a file that OpenSSH and [`KeyFile`](crate::KeyFile) read, without a passphrase.
    ///
    /// The check number that the format wants is made from the key itself, so that the same key
    /// makes the same file.
    #[must_use]
    pub fn to_openssh(&self) -> Zeroizing<String> {
        crate::file::openssh::write(self)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Why a key could not be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The system gives no random bytes.
    #[error("no key was made: the system gives no random bytes")]
    Random,
    /// Keys of that type are not made here.
    #[error("keys of type {key_type} are made by `ssh-keygen`, not here")]
    Type {
        /// The type.
        key_type: KeyType,
    },
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The algorithm is not one of the key's.
    #[error("a key of type {key_type} does not sign with {algorithm}")]
    Algorithm {
        /// The algorithm that was asked for.
        algorithm: SignatureAlgorithm,
        /// What the key is.
        key_type: KeyType,
    },
    /// The system gives no random bytes.
    #[error("nothing was signed: the system gives no random bytes")]
    Random,
    /// The signature came out wrong. It was thrown away, because it could give the key away; a
    /// damaged key or failing hardware brings this about.
    #[error("the signature came out wrong and was thrown away: check the key and the machine")]
    Fault,
}
