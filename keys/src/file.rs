//! Private key files of every format that users have: which one it is, and what all have in common.
//!
//! | begins with | format | file |
//! | --- | --- | --- |
//! | `BEGIN OPENSSH PRIVATE KEY` | OpenSSH's (PROTOCOL.key) | `openssh` |
//! | `BEGIN PRIVATE KEY`, `BEGIN ENCRYPTED PRIVATE KEY` | PKCS #8 (RFC 5958) | `pkcs8` |
//! | `BEGIN RSA PRIVATE KEY`, `BEGIN EC PRIVATE KEY` | PKCS #1, SEC 1, perhaps with `DEK-Info` | `pem` |
//! | `PuTTY-User-Key-File-2`, `-3` | PuTTY's `.ppk` | `ppk` |
//!
//! A file names what unlocking it costs; all of that is bounded, and checked before any work.

use std::fmt;

use zeroize::Zeroizing;

use crate::private::PrivateKey;
use crate::public::PublicKey;

pub(crate) mod der;
pub(crate) mod openssh;
pub(crate) mod pem;
mod ppk;
#[cfg(test)]
mod tests;

/// Longest key file that is read, in bytes.
pub const KEY_FILE_LEN_MAX: usize = 1024 * 1024;

/// A private key file that is read, and perhaps still locked by a passphrase.
pub struct KeyFile {
    public: Option<PublicKey>,
    comment: Option<String>,
    content: Content,
}

enum Content {
    Open(PrivateKey),
    OpenSsh(openssh::Locked),
    Pem(pem::Locked),
    Ppk(ppk::Locked),
    /// The private half is in a security key; the file has only what leads there.
    SecurityKey,
}

impl KeyFile {
    /// Reads a key file of any format, from memory; which one it is, its beginning says.
    ///
    /// # Errors
    /// [`KeyFileError`]: all variants but those about passphrases.
    pub fn parse(file: &[u8]) -> Result<Self, KeyFileError> {
        if file.len() > KEY_FILE_LEN_MAX {
            return Err(KeyFileError::TooLong);
        }
        // Programs put byte order marks in front of texts.
        let text = file
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(file)
            .trim_ascii();
        if text.starts_with(b"PuTTY-User-Key-File-") {
            return ppk::parse(text);
        }
        let Some(block) = pem::find(text)? else {
            return Err(describe(text));
        };
        match block.label {
            "OPENSSH PRIVATE KEY" => openssh::parse(&block),
            label if label.ends_with("PRIVATE KEY") => pem::parse(&block),
            label if label.ends_with("PUBLIC KEY") => Err(KeyFileError::PublicKey),
            _ => Err(KeyFileError::NotAKey),
        }
    }

    fn opened(key: PrivateKey, comment: Option<String>) -> Self {
        Self {
            public: Some(key.public_key().clone()),
            comment,
            content: Content::Open(key),
        }
    }

    /// The public half, if it can be known without the passphrase: encrypted PEM hides it.
    #[must_use]
    pub const fn public_key(&self) -> Option<&PublicKey> {
        self.public.as_ref()
    }

    /// The comment, if it can be known without the passphrase.
    #[must_use]
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Whether a passphrase is needed.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        matches!(
            self.content,
            Content::OpenSsh(_) | Content::Pem(_) | Content::Ppk(_)
        )
    }

    /// The key of a file that is not encrypted.
    ///
    /// # Errors
    /// [`KeyFileError::Encrypted`], [`KeyFileError::SecurityKey`].
    pub fn open(&self) -> Result<PrivateKey, KeyFileError> {
        match &self.content {
            Content::Open(key) => Ok(key.clone()),
            Content::SecurityKey => Err(KeyFileError::SecurityKey),
            Content::OpenSsh(_) | Content::Pem(_) | Content::Ppk(_) => Err(KeyFileError::Encrypted),
        }
    }

    /// The key of a file that is encrypted: a fraction of a second of work, on purpose. Without
    /// encryption the passphrase is not looked at.
    ///
    /// # Errors
    /// [`KeyFileError::WrongPassphrase`] if it does not open the file, [`KeyFileError::Damaged`]
    /// and the others if it does and what is inside is no key.
    pub fn decrypt(&self, passphrase: &str) -> Result<PrivateKey, KeyFileError> {
        let key = match &self.content {
            Content::OpenSsh(locked) => locked.decrypt(passphrase)?,
            Content::Pem(locked) => locked.decrypt(passphrase)?,
            Content::Ppk(locked) => locked.decrypt(passphrase)?,
            Content::Open(_) | Content::SecurityKey => return self.open(),
        };
        // A file whose halves do not fit would have us sign for a key that is not ours.
        match &self.public {
            Some(public) if public != key.public_key() => Err(KeyFileError::Invalid),
            _ => Ok(key),
        }
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile")
            .field("public", &self.public)
            .field("is_encrypted", &self.is_encrypted())
            .finish_non_exhaustive()
    }
}

/// Says what a text is that is no private key.
fn describe(text: &[u8]) -> KeyFileError {
    let begins = |front: &str| text.starts_with(front.as_bytes());
    if begins("ssh-") || begins("ecdsa-sha2-") || begins("sk-") || begins("---- BEGIN SSH2 PUBLIC")
    {
        KeyFileError::PublicKey
    } else {
        KeyFileError::NotAKey
    }
}

/// Bytes that are secret, and overwritten when they are let go.
type SecretBytes = Zeroizing<Vec<u8>>;

/// Why a file gives no private key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It is longer than [`KEY_FILE_LEN_MAX`].
    #[error("the file is longer than 1 MiB and cannot be a key")]
    TooLong,
    /// There is no private key in it.
    #[error("there is no private key in it")]
    NotAKey,
    /// It is a public key.
    #[error("it is a public key: name the file without .pub")]
    PublicKey,
    /// A key of a type, or a file of a format, that is not supported.
    #[error("it is not supported: {what}")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// A key of a type that is not supported.
    #[error("keys of type {} are not supported", name.escape_default())]
    UnsupportedType {
        /// The type's name in the file.
        name: String,
    },
    /// It begins as a key does, and breaks off or is garbled.
    #[error("it is damaged: {what}")]
    Damaged {
        /// What of it.
        what: &'static str,
    },
    /// The numbers of the key do not belong together, or are outside of what is supported.
    #[error("its numbers are no key: the file is damaged, or the key too small or too large")]
    Invalid,
    /// Unlocking it would take too much time or memory, because the file says so.
    #[error("unlocking it would take too long: write it anew with fewer rounds")]
    TooCostly,
    /// It is encrypted, and no passphrase was given.
    #[error("it is locked by a passphrase, and none was given")]
    Encrypted,
    /// The passphrase does not open it.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The private half is in a security key, which only an agent asks.
    #[error("the key is in a security key: use it through ssh-agent")]
    SecurityKey,
}
