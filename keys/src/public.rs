//! Public keys and certificates as they stand on the wire, in `known_hosts` and in
//! `authorized_keys` (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4, PROTOCOL.u2f, PROTOCOL.certkeys).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use base64ct::{Base64, Base64Unpadded, Encoding as _};
use ketch_wire::{DecodeError, NAME_LEN_MAX, Reader, Writer};

use crate::algorithm::{KeyType, SignatureAlgorithm};
use crate::certificate::{CERTIFICATE_LEN_MAX, Certificate};
use crate::curve::Curve;

#[cfg(test)]
mod tests;

/// Longest blob of a plain key that is read, in bytes.
pub const KEY_BLOB_LEN_MAX: usize = 8 * 1024;
/// Smallest RSA modulus that is read, in bits; what is accepted is the caller's policy.
pub const RSA_BITS_MIN: u32 = 1024;
/// Largest RSA modulus that is read, in bits: the time to verify grows with its square.
pub const RSA_BITS_MAX: u32 = 8192;
/// Largest RSA exponent that is read, plus one.
const RSA_EXPONENT_END: u64 = 1 << 33;
/// Longest name of the application of a security key, in bytes.
const APPLICATION_LEN_MAX: usize = 1024;
/// Longest line that is read, in bytes: a certificate in base64, its type and a comment.
const LINE_LEN_MAX: usize = 2 * CERTIFICATE_LEN_MAX;

/// A public key, or a certificate with the key inside.
///
/// Two keys are equal if their bytes are.
#[derive(Clone)]
pub struct PublicKey {
    blob: Arc<[u8]>,
    material: Material,
    certificate: Option<Arc<Certificate>>,
}

/// The numbers of a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Material {
    Ed25519([u8; 32]),
    Ecdsa {
        curve: Curve,
        point: Arc<[u8]>,
    },
    Rsa(RsaPublic),
    SkEd25519 {
        point: [u8; 32],
        application: Arc<[u8]>,
    },
    SkEcdsaP256 {
        point: Arc<[u8]>,
        application: Arc<[u8]>,
    },
}

/// An RSA public key within the limits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RsaPublic {
    /// The modulus, big-endian, without leading zeros.
    pub(crate) modulus: Arc<[u8]>,
    /// The exponent: odd, from 3 to below 2^33.
    pub(crate) exponent: u64,
}

impl PublicKey {
    /// The Ed25519 key with that point.
    #[must_use]
    pub fn ed25519(point: [u8; 32]) -> Self {
        Self::plain_of(Material::Ed25519(point))
    }

    /// Reads a key or a certificate as it stands on the wire.
    ///
    /// An RSA modulus has [`RSA_BITS_MIN`] to [`RSA_BITS_MAX`] bits and the exponent is odd and
    /// below 2^33, so that verifying costs little whoever made the key. A certificate's signature
    /// is not verified here: [`Certificate::check`] does that.
    ///
    /// # Errors
    /// [`DecodeError`] if the blob is too long or malformed; `BadValue` names the field that is of
    /// a type that is not implemented, or out of range.
    pub fn from_blob(blob: &[u8]) -> Result<Self, DecodeError> {
        let (key_type, is_certificate, mut r) = open(blob)?;
        if is_certificate {
            let certificate = Certificate::decode(key_type, blob, r)?;
            return Ok(Self {
                blob: blob.into(),
                material: certificate.key().material.clone(),
                certificate: Some(Arc::new(certificate)),
            });
        }
        let material = Material::decode(key_type, &mut r)?;
        r.finish()?;
        Ok(Self {
            blob: blob.into(),
            material,
            certificate: None,
        })
    }

    /// Reads a plain key: a certificate is refused, so that certificates cannot be nested.
    pub(crate) fn from_plain_blob(blob: &[u8]) -> Result<Self, DecodeError> {
        match open(blob)? {
            (_, false, _) => Self::from_blob(blob),
            (_, true, _) => Err(DecodeError::BadValue { field: "key type" }),
        }
    }

    pub(crate) fn plain_of(material: Material) -> Self {
        let mut blob = Vec::new();
        let mut w = Writer::new(&mut blob);
        w.string(material.key_type().name().as_bytes());
        material.encode(&mut w);
        Self {
            blob: blob.into(),
            material,
            certificate: None,
        }
    }

    /// Reads a line such as `ssh-ed25519 AAAA… comment`, as `ssh-keygen` writes it to `.pub` files.
    ///
    /// Lines that begin with options (`command="…"`) or marks (`@revoked`) are refused: a
    /// restriction that is not understood must not be passed over.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn from_line(line: &str) -> Result<Self, LineError> {
        if line.len() > LINE_LEN_MAX {
            return Err(LineError::TooLong);
        }
        let mut words = line.split_ascii_whitespace();
        let name = words.next().ok_or(LineError::NoKey)?;
        let (Some(_), Some(base64)) = (KeyType::from_blob_name(name.as_bytes()), words.next())
        else {
            return Err(LineError::NoKey);
        };
        let blob = Base64::decode_vec(base64)
            .or_else(|_| Base64Unpadded::decode_vec(base64))
            .map_err(|_| LineError::Base64)?;
        let key = Self::from_blob(&blob).map_err(LineError::Key)?;
        if key.type_name() != name {
            return Err(LineError::OtherType);
        }
        Ok(key)
    }

    /// The line that [`PublicKey::from_line`] and OpenSSH read, without comment and line end.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{} {}", self.type_name(), Base64::encode_string(&self.blob))
    }

    /// The key as it stands on the wire and, in base64, in files.
    #[must_use]
    pub fn as_blob(&self) -> &[u8] {
        &self.blob
    }

    /// What the key is; a certificate has the type of the key inside.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.material.key_type()
    }

    /// The name at the beginning of the blob.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self.certificate {
            Some(_) => self.key_type().certificate_name(),
            None => self.key_type().name(),
        }
    }

    /// What the authority says, if this is a certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }

    /// The key without the certificate around it; a plain key as it is.
    #[must_use]
    pub fn plain(&self) -> Self {
        match &self.certificate {
            Some(certificate) => certificate.key().clone(),
            None => self.clone(),
        }
    }

    /// The algorithms that it can be used with, preferred first.
    #[must_use]
    pub const fn algorithms(&self) -> &'static [SignatureAlgorithm] {
        match self.certificate {
            Some(_) => self.key_type().certificate_algorithms(),
            None => self.key_type().algorithms(),
        }
    }

    /// The size of an RSA key's modulus.
    #[must_use]
    pub fn rsa_bits(&self) -> Option<u32> {
        match &self.material {
            Material::Rsa(rsa) => Some(rsa.bits()),
            _ => None,
        }
    }

    /// SHA-256 of the plain key's bytes: what `ssh-keygen -l` shows, also for a certificate.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn fingerprint_sha256(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.plain_blob());
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The fingerprint as OpenSSH shows it, `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let base64 = Base64Unpadded::encode_string(&self.fingerprint_sha256());
        format!("SHA256:{base64}")
    }

    /// The bytes of the key without a certificate.
    pub(crate) fn plain_blob(&self) -> &[u8] {
        match &self.certificate {
            Some(certificate) => &certificate.key().blob,
            None => &self.blob,
        }
    }

    pub(crate) const fn material(&self) -> &Material {
        &self.material
    }
}

/// Reads the name at the beginning of a blob, and checks the blob's length.
fn open(blob: &[u8]) -> Result<(KeyType, bool, Reader<'_>), DecodeError> {
    let mut r = Reader::new(blob);
    let name = r.string(NAME_LEN_MAX)?;
    let (key_type, is_certificate) =
        KeyType::from_blob_name(name).ok_or(DecodeError::BadValue { field: "key type" })?;
    let max = if is_certificate {
        CERTIFICATE_LEN_MAX
    } else {
        KEY_BLOB_LEN_MAX
    };
    if blob.len() > max {
        return Err(DecodeError::TooLong {
            len: blob.len(),
            max,
        });
    }
    Ok((key_type, is_certificate, r))
}

impl Material {
    /// Reads the fields after the name, which a certificate has in the same order.
    pub(crate) fn decode(key_type: KeyType, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let material = match key_type {
            KeyType::Ed25519 => Self::Ed25519(edwards_point(r)?),
            KeyType::EcdsaP256 => Self::decode_ecdsa(Curve::P256, r)?,
            KeyType::EcdsaP384 => Self::decode_ecdsa(Curve::P384, r)?,
            KeyType::EcdsaP521 => Self::decode_ecdsa(Curve::P521, r)?,
            KeyType::Rsa => Self::Rsa(RsaPublic::decode(r)?),
            KeyType::SkEd25519 => Self::SkEd25519 {
                point: edwards_point(r)?,
                application: r.string(APPLICATION_LEN_MAX)?.into(),
            },
            KeyType::SkEcdsaP256 => Self::SkEcdsaP256 {
                point: weierstrass_point(Curve::P256, r)?,
                application: r.string(APPLICATION_LEN_MAX)?.into(),
            },
        };
        Ok(material)
    }

    fn decode_ecdsa(curve: Curve, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::Ecdsa {
            curve,
            point: weierstrass_point(curve, r)?,
        })
    }

    /// Writes the fields after the name.
    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        match self {
            Self::Ed25519(point) => w.string(point),
            Self::Ecdsa { curve, point } => {
                w.string(curve.name().as_bytes());
                w.string(point);
            }
            Self::Rsa(RsaPublic { modulus, exponent }) => {
                w.mpint(&exponent.to_be_bytes());
                w.mpint(modulus);
            }
            Self::SkEd25519 { point, application } => {
                w.string(point);
                w.string(application);
            }
            Self::SkEcdsaP256 { point, application } => {
                w.string(Curve::P256.name().as_bytes());
                w.string(point);
                w.string(application);
            }
        }
    }

    pub(crate) const fn key_type(&self) -> KeyType {
        match self {
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Ecdsa { curve, .. } => curve.key_type(),
            Self::Rsa(_) => KeyType::Rsa,
            Self::SkEd25519 { .. } => KeyType::SkEd25519,
            Self::SkEcdsaP256 { .. } => KeyType::SkEcdsaP256,
        }
    }
}

fn edwards_point(r: &mut Reader<'_>) -> Result<[u8; 32], DecodeError> {
    let point = r.string(32)?;
    point.try_into().map_err(|_| DecodeError::BadValue {
        field: "key length",
    })
}

fn weierstrass_point(curve: Curve, r: &mut Reader<'_>) -> Result<Arc<[u8]>, DecodeError> {
    if r.string(NAME_LEN_MAX)? != curve.name().as_bytes() {
        return Err(DecodeError::BadValue { field: "curve" });
    }
    let point = r.string(curve.point_len())?;
    if curve.fits(point) {
        Ok(point.into())
    } else {
        Err(DecodeError::BadValue { field: "point" })
    }
}

impl RsaPublic {
    /// Takes a modulus without leading zeros, if both numbers are within the limits.
    pub(crate) fn new(modulus: &[u8], exponent: &[u8]) -> Result<Self, DecodeError> {
        let bad = |field| DecodeError::BadValue { field };
        let key = Self {
            modulus: modulus.into(),
            exponent: small(exponent).ok_or(bad("e"))?,
        };
        let is_odd = modulus.last().is_some_and(|byte| byte & 1 == 1);
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&key.bits()) || !is_odd {
            return Err(bad("n"));
        }
        if !(3..RSA_EXPONENT_END).contains(&key.exponent) || key.exponent.is_multiple_of(2) {
            return Err(bad("e"));
        }
        Ok(key)
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let exponent = r.mpint(8)?;
        let modulus = r.mpint(RSA_BITS_MAX as usize / 8)?;
        Self::new(modulus.magnitude(), exponent.magnitude())
    }

    pub(crate) fn bits(&self) -> u32 {
        let Some(first) = self.modulus.first() else {
            return 0;
        };
        // At most 1 KiB: `new` is given no more.
        u32::try_from(self.modulus.len()).map_or(u32::MAX, |len| {
            len.saturating_mul(8).saturating_sub(first.leading_zeros())
        })
    }

    /// The exponent, big-endian, without leading zeros.
    pub(crate) fn exponent_bytes(&self) -> Vec<u8> {
        let bytes = self.exponent.to_be_bytes();
        bytes.into_iter().skip_while(|&byte| byte == 0).collect()
    }
}

/// A big-endian number, if it fits.
fn small(bytes: &[u8]) -> Option<u64> {
    if bytes.len() > 8 {
        return None;
    }
    Some(
        bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)),
    )
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.blob == other.blob
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.blob.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.type_name(), self.fingerprint())
    }
}

/// Why a line is no public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// It is longer than any key's.
    #[error("the line is too long for a public key")]
    TooLong,
    /// It does not begin with the name of a key type that is supported, or ends after it.
    #[error("the line does not begin with a supported key type and a key")]
    NoKey,
    /// The key is not in base64.
    #[error("the key is not in base64")]
    Base64,
    /// The key is of another type than the line says.
    #[error("the key is of another type than the line says")]
    OtherType,
    /// The key is malformed or out of range.
    #[error("the key is malformed")]
    Key(#[source] DecodeError),
}
