//! Signature blobs (RFC 4253 §6.6) and their verification.
//!
//! Three things have to agree before a signature is looked at: the algorithm that was negotiated,
//! the type of the key, and the name inside the signature. Which of them did not is never said, so
//! that a peer learns nothing.

use std::fmt;

use ketch_wire::{NAME_LEN_MAX, Reader, Writer};
use ring::digest::{SHA256, digest};
use ring::signature::{self as ring_signature, RsaPublicKeyComponents, UnparsedPublicKey};

use crate::algorithm::SignatureAlgorithm;
use crate::curve::Curve;
use crate::public::{Material, PublicKey, RSA_BITS_MAX, RsaPublic};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

/// Longest signature blob that is looked at, in bytes.
pub const SIGNATURE_LEN_MAX: usize = 4 * 1024;
/// Length of an Ed25519 signature.
const ED25519_LEN: usize = 64;
/// Longest signature inside a blob: RSA's, as long as the largest modulus.
const RAW_LEN_MAX: usize = RSA_BITS_MAX as usize / 8;

/// A signature that fits its key and data, and what it says besides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Verified {
    /// What a security key says of the person at it; `None` for all other keys. Whoever logs
    /// users in has to ask for it: a signature without touch verifies too.
    pub presence: Option<Presence>,
}

/// What a security key signed about the moment of signing (PROTOCOL.u2f).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Presence {
    /// The authenticator's flags as they are.
    pub flags: u8,
    /// How often the authenticator has signed; one that goes back betrays a copy.
    pub counter: u32,
}

impl Presence {
    const USER_PRESENT: u8 = 0x01;
    const USER_VERIFIED: u8 = 0x04;

    /// Whether somebody touched the authenticator.
    #[must_use]
    pub const fn user_present(self) -> bool {
        self.flags & Self::USER_PRESENT != 0
    }

    /// Whether somebody proved to the authenticator who they are, by PIN or finger.
    #[must_use]
    pub const fn user_verified(self) -> bool {
        self.flags & Self::USER_VERIFIED != 0
    }
}

/// A signature does not fit key, algorithm and data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadSignature;

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not fit the key and the data")
    }
}

impl std::error::Error for BadSignature {}

/// Puts a raw signature into the form it has on the wire, under the plain algorithm's name.
#[must_use]
pub fn signature_blob(algorithm: SignatureAlgorithm, raw: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(raw.len() + 32);
    let mut w = Writer::new(&mut blob);
    w.string(algorithm.plain().name().as_bytes());
    w.string(raw);
    blob
}

impl PublicKey {
    /// Verifies a signature blob over `data` that has to be made with `algorithm`.
    ///
    /// `algorithm` is the one that was negotiated or named in a request: for a certificate, one of
    /// a certificate. What the certificate says is not looked at: that is
    /// [`Certificate::check`](crate::Certificate::check).
    ///
    /// # Errors
    /// [`BadSignature`] if algorithm, key and signature are not of one kind, or the signature is
    /// malformed or wrong.
    pub fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
        signature_blob: &[u8],
    ) -> Result<Verified, BadSignature> {
        if algorithm.is_certificate() != self.certificate().is_some() {
            return Err(BadSignature);
        }
        let mut plain = algorithm.plain();
        if algorithm == SignatureAlgorithm::RsaSha1Cert {
            // The oldest name for RSA certificates is older than SHA-2 signatures, and OpenSSH takes
            // those under it, too: asyncssh and russh send them. They are never weaker.
            let name = Blob::decode(signature_blob).map(|blob| blob.algorithm);
            let stronger = [SignatureAlgorithm::RsaSha512, SignatureAlgorithm::RsaSha256];
            let named = |each: &SignatureAlgorithm| name == Some(each.name().as_bytes());
            plain = stronger.into_iter().find(named).unwrap_or(plain);
        }
        self.verify_plain(plain, data, signature_blob)
    }

    /// Verifies with the key itself, whether there is a certificate around it or not.
    pub(crate) fn verify_plain(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
        signature_blob: &[u8],
    ) -> Result<Verified, BadSignature> {
        let blob = Blob::decode(signature_blob).ok_or(BadSignature)?;
        let fits = algorithm.key_type() == self.key_type()
            && !algorithm.is_certificate()
            && blob.algorithm == algorithm.name().as_bytes();
        if !fits {
            return Err(BadSignature);
        }
        let presence = match self.material() {
            Material::SkEd25519 { application, .. } | Material::SkEcdsaP256 { application, .. } => {
                let presence = blob.presence.ok_or(BadSignature)?;
                let signed = signed_by_security_key(application, presence, data);
                self.verify_raw(algorithm, &signed, blob.raw)?;
                Some(presence)
            }
            Material::Ed25519(_) | Material::Ecdsa { .. } | Material::Rsa(_) => {
                if blob.presence.is_some() {
                    return Err(BadSignature);
                }
                self.verify_raw(algorithm, data, blob.raw)?;
                None
            }
        };
        Ok(Verified { presence })
    }

    fn verify_raw(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
        raw: &[u8],
    ) -> Result<(), BadSignature> {
        match self.material() {
            Material::Ed25519(point) | Material::SkEd25519 { point, .. } => {
                if raw.len() != ED25519_LEN {
                    return Err(BadSignature);
                }
                UnparsedPublicKey::new(&ring_signature::ED25519, point)
                    .verify(data, raw)
                    .map_err(|_| BadSignature)
            }
            Material::Ecdsa { curve, point } => verify_ecdsa(*curve, point, data, raw),
            Material::SkEcdsaP256 { point, .. } => verify_ecdsa(Curve::P256, point, data, raw),
            Material::Rsa(rsa) => verify_rsa(rsa, algorithm, data, raw),
        }
    }
}

/// A signature blob, taken apart.
struct Blob<'a> {
    algorithm: &'a [u8],
    raw: &'a [u8],
    presence: Option<Presence>,
}

impl<'a> Blob<'a> {
    fn decode(blob: &'a [u8]) -> Option<Self> {
        if blob.len() > SIGNATURE_LEN_MAX {
            return None;
        }
        let mut r = Reader::new(blob);
        let algorithm = r.string(NAME_LEN_MAX).ok()?;
        let raw = r.string(RAW_LEN_MAX).ok()?;
        let presence = if r.is_empty() {
            None
        } else {
            Some(Presence {
                flags: r.u8().ok()?,
                counter: r.u32().ok()?,
            })
        };
        r.finish().ok()?;
        Some(Self {
            algorithm,
            raw,
            presence,
        })
    }
}

/// What a security key signs instead of the data (PROTOCOL.u2f, "SSH U2F Signatures").
fn signed_by_security_key(application: &[u8], presence: Presence, data: &[u8]) -> Vec<u8> {
    let mut signed = Vec::with_capacity(32 + 1 + 4 + 32);
    let mut w = Writer::new(&mut signed);
    w.bytes(digest(&SHA256, application).as_ref());
    w.u8(presence.flags);
    w.u32(presence.counter);
    w.bytes(digest(&SHA256, data).as_ref());
    signed
}

/// RFC 5656 §3.1.2: the signature is two mpints.
fn verify_ecdsa(curve: Curve, point: &[u8], data: &[u8], raw: &[u8]) -> Result<(), BadSignature> {
    let fixed = ecdsa_fixed(curve, raw).ok_or(BadSignature)?;
    let algorithm = match curve {
        Curve::P256 => &ring_signature::ECDSA_P256_SHA256_FIXED,
        Curve::P384 => &ring_signature::ECDSA_P384_SHA384_FIXED,
        Curve::P521 => return verify_p521(point, data, &fixed),
    };
    UnparsedPublicKey::new(algorithm, point)
        .verify(data, &fixed)
        .map_err(|_| BadSignature)
}

fn verify_p521(point: &[u8], data: &[u8], fixed: &[u8]) -> Result<(), BadSignature> {
    use p521::ecdsa::signature::Verifier as _;
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| BadSignature)?;
    let signature = p521::ecdsa::Signature::from_slice(fixed).map_err(|_| BadSignature)?;
    key.verify(data, &signature).map_err(|_| BadSignature)
}

/// The two mpints of a signature as numbers of the curve's length, one after the other.
fn ecdsa_fixed(curve: Curve, raw: &[u8]) -> Option<Vec<u8>> {
    let len = curve.scalar_len();
    let mut r = Reader::new(raw);
    let mut fixed = Vec::with_capacity(2 * len);
    for _ in 0..2 {
        let number = r.mpint(len).ok()?.magnitude();
        fixed.resize(fixed.len() + len - number.len(), 0);
        fixed.extend_from_slice(number);
    }
    r.finish().ok()?;
    Some(fixed)
}

/// Two numbers of one length as two mpints.
pub(crate) fn ecdsa_mpints(fixed: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(fixed.len() + 10);
    let mut w = Writer::new(&mut raw);
    let (r, s) = fixed.split_at(fixed.len() / 2);
    w.mpint(r);
    w.mpint(s);
    raw
}

/// RFC 8017 §8.2.2, RFC 8332 §3. From 1024 bits: what is accepted is policy, not arithmetic.
fn verify_rsa(
    rsa: &RsaPublic,
    algorithm: SignatureAlgorithm,
    data: &[u8],
    raw: &[u8],
) -> Result<(), BadSignature> {
    let parameters = match algorithm {
        SignatureAlgorithm::RsaSha512 => {
            &ring_signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY
        }
        SignatureAlgorithm::RsaSha256 => {
            &ring_signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY
        }
        SignatureAlgorithm::RsaSha1 => {
            &ring_signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY
        }
        _ => return Err(BadSignature),
    };
    // Some signers leave leading zeros out, as if the signature were an mpint; OpenSSH puts them
    // back, and so does this.
    let missing = rsa
        .modulus
        .len()
        .checked_sub(raw.len())
        .ok_or(BadSignature)?;
    let mut padded = vec![0; missing];
    padded.extend_from_slice(raw);
    RsaPublicKeyComponents {
        n: &rsa.modulus[..],
        e: &rsa.exponent_bytes()[..],
    }
    .verify(parameters, data, &padded)
    .map_err(|_| BadSignature)
}
