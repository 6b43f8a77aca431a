//! Private keys in DER: PKCS #8 (RFC 5958), also encrypted (RFC 8018), PKCS #1 (RFC 8017 §A.1.2)
//! and SEC 1 (RFC 5915).

use pkcs8::der::{Decode as _, Reader as _, SliceReader, asn1::ObjectIdentifier};
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::{EncryptedPrivateKeyInfoOwned, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use super::openssh::{padded, rsa_key};
use super::{KeyFileError, SecretBytes};
use crate::curve::Curve;
use crate::private::{PrivateKey, p521_point};
use crate::public::RsaPublic;
use crate::rsa::strip;

/// Most rounds of PBKDF2 that unlocking may take: `openssl` uses 2,048, others up to a million.
const PBKDF2_ROUNDS_MAX: u32 = 2_000_000;
/// Most memory for scrypt, in bytes.
const SCRYPT_MEMORY_MAX: u64 = 256 * 1024 * 1024;
/// Most lanes of scrypt, which are computed one after the other.
const SCRYPT_LANES_MAX: u16 = 16;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// How a key is encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoded {
    Pkcs8,
    Pkcs1,
    Sec1,
}

impl Encoded {
    pub(super) fn decode(self, der: &[u8]) -> Result<PrivateKey, KeyFileError> {
        match self {
            Self::Pkcs8 => pkcs8_key(der),
            Self::Pkcs1 => pkcs1_key(der),
            Self::Sec1 => sec1_key(der, None),
        }
    }
}

const DAMAGED: KeyFileError = KeyFileError::Damaged {
    what: "its structure",
};

fn pkcs8_key(der: &[u8]) -> Result<PrivateKey, KeyFileError> {
    let info = PrivateKeyInfoRef::from_der(der).map_err(|_| DAMAGED)?;
    let inner = info.private_key.as_bytes();
    match info.algorithm.oid {
        RSA => pkcs1_key(inner),
        EC => {
            let curve = info.algorithm.parameters_oid().ok().and_then(curve_of);
            sec1_key(inner, Some(curve.ok_or(OTHER_CURVE)?))
        }
        ED25519 => {
            // RFC 8410 §7: an octet string in the octet string.
            let seed = <&pkcs8::der::asn1::OctetStringRef>::from_der(inner).map_err(|_| DAMAGED)?;
            let seed = seed.as_bytes().try_into().map_err(|_| DAMAGED)?;
            Ok(PrivateKey::ed25519(seed))
        }
        other => Err(KeyFileError::UnsupportedType {
            name: other.to_string(),
        }),
    }
}

const OTHER_CURVE: KeyFileError = KeyFileError::Unsupported {
    what: "a key on another curve",
};

fn curve_of(oid: ObjectIdentifier) -> Option<Curve> {
    match oid {
        P256 => Some(Curve::P256),
        P384 => Some(Curve::P384),
        P521 => Some(Curve::P521),
        _ => None,
    }
}

fn pkcs1_key(der: &[u8]) -> Result<PrivateKey, KeyFileError> {
    let key = pkcs1::RsaPrivateKeyRef::from_der(der).map_err(|_| DAMAGED)?;
    if key.other_prime_infos.is_some() {
        return Err(KeyFileError::Unsupported {
            what: "an RSA key of more than two primes",
        });
    }
    let modulus = strip(key.modulus.as_bytes());
    let exponent = strip(key.public_exponent.as_bytes());
    let public = RsaPublic::new(modulus, exponent).map_err(|_| KeyFileError::Invalid)?;
    rsa_key(
        public,
        key.private_exponent.as_bytes(),
        key.prime1.as_bytes(),
        key.prime2.as_bytes(),
    )
}

/// `curve` is known from outside in PKCS #8, and stands inside the structure otherwise.
fn sec1_key(der: &[u8], curve: Option<Curve>) -> Result<PrivateKey, KeyFileError> {
    let key = sec1::EcPrivateKey::from_der(der).map_err(|_| DAMAGED)?;
    let inside = key.parameters.map(|parameters| parameters.named_curve());
    let inside = inside
        .flatten()
        .map(|oid| curve_of(oid).ok_or(OTHER_CURVE))
        .transpose()?;
    let curve = match (curve, inside) {
        (Some(outside), Some(inside)) if outside != inside => return Err(KeyFileError::Invalid),
        (outside, inside) => outside.or(inside).ok_or(OTHER_CURVE)?,
    };
    if key.private_key.len() > curve.scalar_len() {
        return Err(KeyFileError::Invalid);
    }
    let scalar = padded(key.private_key, curve);
    let computed;
    let point = match (key.public_key, curve) {
        (Some(point), _) => point,
        (None, Curve::P521) => {
            computed = p521_point(&scalar).ok_or(KeyFileError::Invalid)?;
            &computed
        }
        (None, _) => {
            let what = "an EC key without its public half: write it anew with `openssl ec`";
            return Err(KeyFileError::Unsupported { what });
        }
    };
    PrivateKey::ecdsa(curve, scalar, point).ok_or(KeyFileError::Invalid)
}

/// The scalar of an EC key in PKCS #8 as `ring` makes it.
pub(crate) fn ec_scalar_of_pkcs8(der: &[u8]) -> Option<SecretBytes> {
    let info = PrivateKeyInfoRef::from_der(der).ok()?;
    let key = sec1::EcPrivateKey::from_der(info.private_key.as_bytes()).ok()?;
    Some(Zeroizing::new(key.private_key.to_vec()))
}

/// PKCS #8 that needs its passphrase.
pub(super) struct Encrypted(EncryptedPrivateKeyInfoOwned);

impl Encrypted {
    pub(super) fn parse(der: &[u8]) -> Result<Self, KeyFileError> {
        let info = EncryptedPrivateKeyInfoOwned::from_der(der).map_err(|_| DAMAGED)?;
        let EncryptionScheme::Pbes2(scheme) = &info.encryption_algorithm else {
            return Err(KeyFileError::Unsupported {
                what: "its encryption (PBES1)",
            });
        };
        match &scheme.kdf {
            Kdf::Pbkdf2(pbkdf2) if pbkdf2.iteration_count > PBKDF2_ROUNDS_MAX => {
                return Err(KeyFileError::TooCostly);
            }
            Kdf::Scrypt(scrypt) => {
                // RFC 7914 §6: 128 · N · r bytes.
                let memory = u64::from(scrypt.block_size)
                    .saturating_mul(128)
                    .saturating_mul(scrypt.cost_parameter);
                if memory > SCRYPT_MEMORY_MAX || scrypt.parallelization > SCRYPT_LANES_MAX {
                    return Err(KeyFileError::TooCostly);
                }
            }
            _ => {}
        }
        Ok(Self(info))
    }

    pub(super) fn decrypt(&self, passphrase: &str) -> Result<PrivateKey, KeyFileError> {
        use pkcs8::pkcs5::Error;
        let opened = self
            .0
            .encryption_algorithm
            .decrypt(passphrase, self.0.encrypted_data.as_bytes());
        let der = match opened {
            Ok(der) => Zeroizing::new(der),
            Err(Error::DecryptFailed) => return Err(KeyFileError::WrongPassphrase),
            Err(_) => {
                return Err(KeyFileError::Unsupported {
                    what: "its encryption",
                });
            }
        };
        if !is_whole_sequence(&der) {
            return Err(KeyFileError::WrongPassphrase);
        }
        pkcs8_key(&der)
    }
}

/// Whether the bytes are one sequence from the first to the last.
pub(super) fn is_whole_sequence(der: &[u8]) -> bool {
    let header = SliceReader::new(der).ok().and_then(|mut reader| {
        let header = pkcs8::der::Header::decode(&mut reader).ok()?;
        (reader.remaining_len() == header.length()).then_some(header)
    });
    header.is_some_and(|header| header.tag() == pkcs8::der::Tag::Sequence)
}
