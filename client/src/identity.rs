//! Who we are: the user's private keys, in the format that `ssh-keygen` writes.
//!
//! An [`Identity`] knows its public half at once; the private half of a key with a passphrase is
//! unlocked when it is first needed, by asking whoever built the identity. Ed25519 (RFC 8709) is
//! what it holds for now; other types are refused with a word about what they are. Secrets are
//! overwritten when they are let go, and never printed.

mod openssh_key;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ketch_transport::crypto::hostkey::PublicKey;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::platform::user_files;
use crate::{Failure, Kind};
use openssh_key::{EncryptedKey, KeyError, Seed};

/// Longest key file that is read, in bytes.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;
/// How often a passphrase is asked for before the key is given up.
pub const PASSPHRASE_TRIES_MAX: u32 = 3;
/// Length of a signature, in bytes (RFC 8032 §5.1.6).
pub const SIGNATURE_LEN: usize = 64;

/// A private key that logs a user in. Clones share what was unlocked.
///
/// ```no_run
/// use ketch_client::identity::Identity;
///
/// let key = Identity::from_file("/home/ann/.ssh/id_ed25519")?
///     .passphrase(|_| Some("correct horse".to_owned().into()));
/// println!("{}", key.fingerprint());
/// # Ok::<(), ketch_client::identity::IdentityError>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    origin: Origin,
    public: PublicKey,
    private: Arc<Mutex<Private>>,
    ask: Option<Arc<Ask>>,
}

type Ask = dyn Fn(&PassphraseQuestion<'_>) -> Option<Zeroizing<String>> + Send + Sync;

enum Private {
    Locked(EncryptedKey),
    Open(Seed),
}

/// Asks for the passphrase of a key.
#[derive(Debug)]
#[non_exhaustive]
pub struct PassphraseQuestion<'a> {
    /// Where the key comes from.
    pub origin: &'a Origin,
    /// How often it was asked before, each time answered wrongly.
    pub failed: u32,
}

/// Where a key comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Bytes that the program gave.
    Memory,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("given by the program"),
        }
    }
}

impl Identity {
    /// Reads a key from a file.
    ///
    /// The file has to be a regular one of at most [`FILE_LEN_MAX`] bytes; on Unix, one that the
    /// user owns must be closed to everybody else, as OpenSSH has it.
    ///
    /// # Errors
    /// [`IdentityError`]: all variants but those about passphrases.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        let path = path.into();
        let text = read_key_file(&path)?;
        Self::parse(&text, Origin::File(path))
    }

    /// Takes a key as it would stand in a file.
    ///
    /// # Errors
    /// [`IdentityError::Format`], [`IdentityError::Type`].
    pub fn from_openssh(text: &[u8]) -> Result<Self, IdentityError> {
        Self::parse(text, Origin::Memory)
    }

    /// The key that is made from a 32-byte seed (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`IdentityError::Format`], which no seed leads to.
    pub fn from_ed25519_seed(seed: Zeroizing<[u8; 32]>) -> Result<Self, IdentityError> {
        let damaged = || IdentityError::from_key(KeyError::Damaged, Origin::Memory);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| damaged())?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| damaged())?;
        let private = Private::Open(seed);
        Ok(Self::new(
            Origin::Memory,
            PublicKey::ed25519(public),
            private,
        ))
    }

    /// Reads the key that OpenSSH would use without being told, `~/.ssh/id_ed25519`; `None` if
    /// there is none.
    ///
    /// # Errors
    /// As [`Identity::from_file`].
    pub fn from_default_file() -> Result<Option<Self>, IdentityError> {
        let Some(home) = user_files::home_dir() else {
            return Ok(None);
        };
        match Self::from_file(home.join(".ssh").join("id_ed25519")) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &[u8], origin: Origin) -> Result<Self, IdentityError> {
        let (public, private) = match openssh_key::parse(text) {
            Ok(parsed) => parsed,
            Err(error) => return Err(IdentityError::from_key(error, origin)),
        };
        let private = match private {
            openssh_key::Private::Open(seed) => Private::Open(seed),
            openssh_key::Private::Encrypted(key) => Private::Locked(key),
        };
        Ok(Self::new(origin, PublicKey::ed25519(public), private))
    }

    fn new(origin: Origin, public: PublicKey, private: Private) -> Self {
        Self {
            origin,
            public,
            private: Arc::new(Mutex::new(private)),
            ask: None,
        }
    }

    /// Whom to ask when a passphrase is needed: up to [`PASSPHRASE_TRIES_MAX`] times, on a thread
    /// where blocking is allowed. `None` as an answer gives the key up. Default: nobody.
    #[must_use]
    pub fn passphrase(
        mut self,
        ask: impl Fn(&PassphraseQuestion<'_>) -> Option<Zeroizing<String>> + Send + Sync + 'static,
    ) -> Self {
        self.ask = Some(Arc::new(ask));
        self
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The fingerprint as OpenSSH shows it, `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        crate::hostkey::fingerprint(self.public.as_blob())
    }

    /// Where the key comes from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether a passphrase is still needed.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(*self.private(), Private::Locked(_))
    }

    /// Asks for the passphrase, if it is still needed. Blocks while somebody answers.
    ///
    /// # Errors
    /// [`IdentityError::Locked`], [`IdentityError::WrongPassphrase`], [`IdentityError::Format`].
    pub fn unlock(&self) -> Result<(), IdentityError> {
        let mut private = self.private();
        let Private::Locked(key) = &*private else {
            return Ok(());
        };
        let seed = self.ask_for_seed(key)?;
        *private = Private::Open(seed);
        Ok(())
    }

    fn ask_for_seed(&self, key: &EncryptedKey) -> Result<Seed, IdentityError> {
        let locked = || IdentityError::Locked {
            origin: self.origin.clone(),
        };
        let ask = self.ask.as_ref().ok_or_else(locked)?;
        for failed in 0..PASSPHRASE_TRIES_MAX {
            let question = PassphraseQuestion {
                origin: &self.origin,
                failed,
            };
            let passphrase = ask(&question).ok_or_else(locked)?;
            match key.decrypt(&passphrase) {
                Err(KeyError::WrongPassphrase) => {}
                other => return other.map_err(|e| IdentityError::from_key(e, self.origin.clone())),
            }
        }
        Err(IdentityError::WrongPassphrase {
            origin: self.origin.clone(),
        })
    }

    /// Signs `data`: the raw signature (RFC 8032 §5.1.6). Blocks while somebody answers, if the
    /// key is locked.
    ///
    /// # Errors
    /// As [`Identity::unlock`].
    pub fn sign(&self, data: &[u8]) -> Result<[u8; SIGNATURE_LEN], IdentityError> {
        self.unlock()?;
        let private = self.private();
        let damaged = || IdentityError::from_key(KeyError::Damaged, self.origin.clone());
        let Private::Open(seed) = &*private else {
            return Err(damaged());
        };
        // The pair is made for each signature, so that only the seed, which is overwritten when
        // it is let go, stays in memory.
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[..]).map_err(|_| damaged())?;
        <[u8; SIGNATURE_LEN]>::try_from(pair.sign(data).as_ref()).map_err(|_| damaged())
    }

    /// A thread that panicked while it held the lock left a key that is still whole.
    fn private(&self) -> std::sync::MutexGuard<'_, Private> {
        self.private.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("origin", &self.origin)
            .field("public", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let unreadable = |source| IdentityError::Unreadable {
        file: path.to_path_buf(),
        source,
    };
    let file = user_files::open_for_reading(path).map_err(unreadable)?;
    // The questions go to the open file: nobody can swap it in between.
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(IdentityError::NotAFile {
            file: path.to_path_buf(),
        });
    }
    if let Some(mode) = user_files::mode_if_open_to_others(&metadata) {
        return Err(IdentityError::OpenToOthers {
            file: path.to_path_buf(),
            mode,
        });
    }
    let too_long = || IdentityError::TooLong {
        file: path.to_path_buf(),
    };
    let len = usize::try_from(metadata.len()).map_err(|_| too_long())?;
    if metadata.len() > FILE_LEN_MAX {
        return Err(too_long());
    }
    // With room for all of it, the vector does not grow and leave copies of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(len + 1));
    file.take(metadata.len())
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    Ok(text)
}

/// Why a private key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file could not be opened or read.
    #[error("the private key {} could not be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("the private key {} is no regular file", file.display())]
    NotAFile {
        /// The file.
        file: PathBuf,
    },
    /// The file is too long to be a key.
    #[error("the private key {} is longer than 1 MiB and cannot be one", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
    },
    /// Others than its owner may use the file.
    #[error(
        "the private key {file} is open to others (mode {mode:04o}) and is not used: close it \
         with `chmod 600 {file}`, and make a new key if somebody may have read it",
        file = file.display()
    )]
    OpenToOthers {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no private key in the format of OpenSSH.
    #[error("the private key {origin} is not usable: {reason}")]
    Format {
        /// Where the key comes from.
        origin: Origin,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// It is of a type that ketch does not sign with.
    #[error(
        "the private key {origin} is of type {}, but only ssh-ed25519 is supported: make one \
         with `ssh-keygen -t ed25519`",
        algorithm.escape_default()
    )]
    Type {
        /// Where the key comes from.
        origin: Origin,
        /// Its type.
        algorithm: String,
    },
    /// It has a passphrase, and nobody gave it.
    #[error("the private key {origin} is locked by a passphrase, and none was given")]
    Locked {
        /// Where the key comes from.
        origin: Origin,
    },
    /// Every passphrase that was given was wrong.
    #[error("the passphrase for the private key {origin} was wrong {PASSPHRASE_TRIES_MAX} times")]
    WrongPassphrase {
        /// Where the key comes from.
        origin: Origin,
    },
}

impl IdentityError {
    fn from_key(error: KeyError, origin: Origin) -> Self {
        let reason = match error {
            KeyError::Type(algorithm) => return Self::Type { origin, algorithm },
            KeyError::WrongPassphrase => return Self::WrongPassphrase { origin },
            KeyError::Public => "it is a public key: name the file without .pub",
            KeyError::OtherPem => {
                "it is in an older format: rewrite it with `ssh-keygen -p -f` and the file's name"
            }
            KeyError::Putty => {
                "it is in PuTTY's format: convert it with `puttygen -O private-openssh-new`"
            }
            KeyError::NoKey => "there is no private key in it",
            KeyError::Damaged => "it is damaged, or encrypted in an unknown way",
            KeyError::Rounds => "unlocking it would take too long: it asks for too many rounds",
        };
        Self::Format { origin, reason }
    }
}

impl Failure for IdentityError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. } => Kind::of_local(source),
            Self::Type { .. } => Kind::Unsupported,
            Self::Locked { .. } | Self::WrongPassphrase { .. } => Kind::Auth,
            Self::NotAFile { .. }
            | Self::TooLong { .. }
            | Self::OpenToOthers { .. }
            | Self::Format { .. } => Kind::Local,
        }
    }
}
