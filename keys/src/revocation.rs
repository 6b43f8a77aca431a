//! What nobody trusts any more: OpenSSH's binary lists (PROTOCOL.krl), and lists of public keys.
//!
//! A key is revoked by its bytes or their hash; a certificate also by its authority's key, and by
//! its serial number or its name under an authority.

use std::collections::HashSet;
use std::fmt;

use base64ct::{Base64, Encoding as _};
use ketch_wire::{NAME_LEN_MAX, Reader};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use crate::public::PublicKey;
use krl::RevokedCertificates;

mod krl;
#[cfg(test)]
mod tests;

/// Longest list that is read, in bytes.
pub const REVOCATION_LIST_LEN_MAX: usize = 16 * 1024 * 1024;
/// Most entries of a list.
const ENTRIES_MAX: usize = 1_000_000;

type Sha1 = [u8; 20];
type Sha256 = [u8; 32];

/// Keys and certificates that are revoked.
#[derive(Clone, Default)]
pub struct RevocationList {
    /// SHA-256 of keys, whether the list has the keys or their hashes.
    sha256: HashSet<Sha256>,
    sha1: HashSet<Sha1>,
    certificates: Vec<RevokedCertificates>,
}

impl RevocationList {
    /// Reads a list: binary as `ssh-keygen -k` makes it, or lines of public keys.
    ///
    /// In lines, empty ones and those that begin with `#` are passed over; keys of types that are
    /// not supported are kept in mind by their bytes. Signatures in a binary list are not looked
    /// at: the file is trusted as the configuration that names it.
    ///
    /// # Errors
    /// [`RevocationError`]; a list that cannot be read must not be taken for an empty one.
    pub fn parse(bytes: &[u8]) -> Result<Self, RevocationError> {
        if bytes.len() > REVOCATION_LIST_LEN_MAX {
            return Err(RevocationError::TooLong);
        }
        match bytes.strip_prefix(krl::MAGIC) {
            Some(body) => krl::decode(body),
            None => Self::parse_lines(bytes),
        }
    }

    fn parse_lines(bytes: &[u8]) -> Result<Self, RevocationError> {
        let text = std::str::from_utf8(bytes).map_err(|_| RevocationError::Malformed)?;
        let mut list = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let hash = hash_of_line(line).ok_or(RevocationError::Line { number: index + 1 })?;
            list.add_sha256(hash)?;
        }
        Ok(list)
    }

    /// Whether a key is revoked; a certificate also if the key inside or its authority is.
    #[must_use]
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        if self.has_key(key) {
            return true;
        }
        key.certificate().is_some_and(|certificate| {
            self.has_key(certificate.authority())
                || self
                    .certificates
                    .iter()
                    .any(|revoked| revoked.covers(certificate))
        })
    }

    fn has_key(&self, key: &PublicKey) -> bool {
        let sha1 = || digest(&SHA1_FOR_LEGACY_USE_ONLY, key.plain_blob());
        self.sha256.contains(&key.fingerprint_sha256())
            || (!self.sha1.is_empty() && self.sha1.contains(sha1().as_ref()))
    }

    fn entries(&self) -> usize {
        let certificates = self.certificates.iter().map(RevokedCertificates::entries);
        self.sha256.len() + self.sha1.len() + certificates.sum::<usize>()
    }

    fn add_sha256(&mut self, hash: Sha256) -> Result<(), RevocationError> {
        self.sha256.insert(hash);
        if self.sha256.len() > ENTRIES_MAX {
            Err(RevocationError::TooLong)
        } else {
            Ok(())
        }
    }
}

fn sha256(bytes: &[u8]) -> Sha256 {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The hash of the key in a line; of a certificate, that of the key inside, as OpenSSH has it.
fn hash_of_line(line: &str) -> Option<Sha256> {
    let mut words = line.split_ascii_whitespace();
    let (name, base64) = (words.next()?, words.next()?);
    if let Ok(key) = PublicKey::from_line(line) {
        return Some(key.fingerprint_sha256());
    }
    let blob = Base64::decode_vec(base64).ok()?;
    let named = Reader::new(&blob).string(NAME_LEN_MAX).ok()? == name.as_bytes();
    named.then(|| sha256(&blob))
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("entries", &self.entries())
            .finish_non_exhaustive()
    }
}

/// Why a list cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// It is longer than [`REVOCATION_LIST_LEN_MAX`], or has more than a million entries.
    #[error("the list of revoked keys is too long")]
    TooLong,
    /// It is neither a binary list nor text.
    #[error("the list of revoked keys is malformed")]
    Malformed,
    /// A line is no public key.
    #[error("line {number} of the list of revoked keys is no public key")]
    Line {
        /// Which, counted from 1.
        number: usize,
    },
    /// A binary list of another version, or with something that must be understood and is not.
    #[error("the list of revoked keys has what is not known here: {what}")]
    Unknown {
        /// What.
        what: &'static str,
    },
}
