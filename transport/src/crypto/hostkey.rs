//! Keys that identify hosts and users, and their signatures: Ed25519 (RFC 8709).

use std::fmt;

use ketch_wire::{DecodeError, Reader, Writer};
use ring::signature::{self, KeyPair};
use zeroize::Zeroizing;

use crate::algorithm::SignatureAlgorithm;

/// Length of an Ed25519 public key.
const PUBLIC_LEN: usize = 32;
/// Length of an Ed25519 signature.
const SIGNATURE_LEN: usize = 64;

/// A public key in the form it has on the wire (RFC 4253 §6.6, RFC 8709 §4).
///
/// Two keys are equal if their bytes are.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct PublicKey {
    blob: Box<[u8]>,
    public: [u8; PUBLIC_LEN],
}

impl PublicKey {
    /// The Ed25519 key with that point.
    #[must_use]
    pub fn ed25519(public: [u8; PUBLIC_LEN]) -> Self {
        let mut blob = Vec::with_capacity(51);
        let mut w = Writer::new(&mut blob);
        w.string(SignatureAlgorithm::Ed25519.name().as_bytes());
        w.string(&public);
        Self {
            blob: blob.into(),
            public,
        }
    }

    /// Reads a key as it stands on the wire.
    ///
    /// # Errors
    /// [`DecodeError::BadValue`] if it is of a type that is not implemented or of a wrong length.
    pub fn from_blob(blob: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(blob);
        if r.string(ketch_wire::NAME_LEN_MAX)? != SignatureAlgorithm::Ed25519.name().as_bytes() {
            return Err(DecodeError::BadValue { field: "key type" });
        }
        let public = r
            .string(PUBLIC_LEN)?
            .try_into()
            .map_err(|_| DecodeError::BadValue {
                field: "key length",
            })?;
        r.finish()?;
        Ok(Self {
            blob: blob.into(),
            public,
        })
    }

    /// The key as it stands on the wire and, in base64, in `known_hosts` and `authorized_keys`.
    #[must_use]
    pub fn as_blob(&self) -> &[u8] {
        &self.blob
    }

    /// The algorithm it signs with.
    #[must_use]
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::Ed25519
    }

    /// SHA-256 of the key's bytes: what `ssh-keygen -l` shows, in base64.
    #[must_use]
    pub fn fingerprint_sha256(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.blob);
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Verifies a signature blob (RFC 4253 §6.6) over `data`.
    ///
    /// # Errors
    /// [`BadSignature`] if the blob is of another algorithm, malformed or wrong; which of these is
    /// not said, so that a peer learns nothing.
    pub fn verify(&self, data: &[u8], signature_blob: &[u8]) -> Result<(), BadSignature> {
        let mut r = Reader::new(signature_blob);
        let algorithm = r
            .string(ketch_wire::NAME_LEN_MAX)
            .map_err(|_| BadSignature)?;
        let raw = r.string(SIGNATURE_LEN).map_err(|_| BadSignature)?;
        r.finish().map_err(|_| BadSignature)?;
        if algorithm != self.algorithm().name().as_bytes() || raw.len() != SIGNATURE_LEN {
            return Err(BadSignature);
        }
        signature::UnparsedPublicKey::new(&signature::ED25519, &self.public)
            .verify(data, raw)
            .map_err(|_| BadSignature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}", self.algorithm())?;
        for byte in &self.fingerprint_sha256()[..8] {
            write!(f, " {byte:02x}")?;
        }
        f.write_str(" ..)")
    }
}

/// A signature does not fit key and data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadSignature;

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not fit the key and the data")
    }
}

impl std::error::Error for BadSignature {}

/// Puts a raw 64-byte Ed25519 signature into the form it has on the wire (RFC 8709 §6).
#[must_use]
pub fn signature_blob(algorithm: SignatureAlgorithm, raw: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(raw.len() + 32);
    let mut w = Writer::new(&mut blob);
    w.string(algorithm.name().as_bytes());
    w.string(raw);
    blob
}

/// A private key with which a server proves who it is.
pub struct HostKeyPair {
    pair: signature::Ed25519KeyPair,
    public: PublicKey,
}

impl HostKeyPair {
    /// The Ed25519 key pair of a 32-byte seed (RFC 8032 §5.1.5).
    ///
    /// # Panics
    /// Never: every 32 bytes are a seed.
    #[must_use]
    pub fn from_ed25519_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        let pair = signature::Ed25519KeyPair::from_seed_unchecked(&seed[..])
            .expect("every 32 bytes are an Ed25519 seed");
        let public: [u8; PUBLIC_LEN] = pair
            .public_key()
            .as_ref()
            .try_into()
            .expect("an Ed25519 point has 32 bytes");
        Self {
            pair,
            public: PublicKey::ed25519(public),
        }
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs, and verifies before the signature leaves: a fault in the computation would give the
    /// private key away.
    pub(crate) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, BadSignature> {
        let blob = signature_blob(self.public.algorithm(), self.pair.sign(data).as_ref());
        self.public.verify(data, &blob)?;
        Ok(blob)
    }
}

impl fmt::Debug for HostKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKeyPair({:?})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_fits_its_key_and_data_alone() {
        let pair = HostKeyPair::from_ed25519_seed(&Zeroizing::new([3; 32]));
        let other = HostKeyPair::from_ed25519_seed(&Zeroizing::new([4; 32]));
        let blob = pair.sign(b"data").unwrap();
        assert_eq!(pair.public_key().verify(b"data", &blob), Ok(()));
        assert_eq!(pair.public_key().verify(b"date", &blob), Err(BadSignature));
        assert_eq!(other.public_key().verify(b"data", &blob), Err(BadSignature));
        for cut in 0..blob.len() {
            assert_eq!(
                pair.public_key().verify(b"data", &blob[..cut]),
                Err(BadSignature)
            );
        }
    }

    #[test]
    fn keys_survive_the_wire_and_odd_ones_are_refused() {
        let key = PublicKey::ed25519([5; 32]);
        assert_eq!(PublicKey::from_blob(key.as_blob()), Ok(key.clone()));
        let mut long = key.as_blob().to_vec();
        long.push(0);
        assert_eq!(
            PublicKey::from_blob(&long),
            Err(DecodeError::Trailing { len: 1 })
        );
        let mut rsa = Vec::new();
        let mut w = Writer::new(&mut rsa);
        w.string(b"ssh-rsa");
        w.string(&[1; 32]);
        assert_eq!(
            PublicKey::from_blob(&rsa),
            Err(DecodeError::BadValue { field: "key type" })
        );
    }
}
