//! PuTTY's `.ppk` files, versions 2 and 3 (PuTTY's manual, appendix C).

use super::{KeyFile, KeyFileError};
use crate::private::PrivateKey;

/// A key that needs its passphrase.
pub(super) struct Locked {}

pub(super) fn parse(_text: &[u8]) -> Result<KeyFile, KeyFileError> {
    Err(KeyFileError::Unsupported {
        what: "PuTTY's format",
    })
}

impl Locked {
    pub(super) fn decrypt(&self, _passphrase: &str) -> Result<PrivateKey, KeyFileError> {
        Err(KeyFileError::Unsupported {
            what: "PuTTY's format",
        })
    }
}
