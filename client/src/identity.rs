//! Who we are: the user's keys, from files of every format that users have, or from memory.
//!
//! An [`Identity`] usually knows its public half at once; the private half of a key with a
//! passphrase is unlocked when it is first needed, by asking whoever built the identity. The private
//! half may also be elsewhere, in an [agent](crate::agent) or a security key that the agent asks:
//! then a file with the public half says which key is meant. Secrets are overwritten when they are
//! let go, and never printed.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ketch_keys::{KeyFile, KeyFileError, PrivateKey, PublicKey, SignError, SignatureAlgorithm};
use zeroize::Zeroizing;

use crate::platform::user_files;
use crate::{Failure, Kind};

/// Longest key file that is read, in bytes.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;
/// How often a passphrase is asked for before the key is given up.
pub const PASSPHRASE_TRIES_MAX: u32 = 3;
/// What OpenSSH uses without being told, beneath `~/.ssh`; the preferred first.
const DEFAULT_FILES: [&str; 5] = [
    "id_ed25519",
    "id_ecdsa",
    "id_rsa",
    "id_ed25519_sk",
    "id_ecdsa_sk",
];

/// A key that logs a user in, and perhaps a certificate for it. Clones share what was unlocked.
///
/// ```no_run
/// use ketch_client::identity::Identity;
///
/// let key = Identity::from_file("/home/ann/.ssh/id_ed25519")?
///     .passphrase(|_| Some("correct horse".to_owned().into()));
/// println!("{key:?}");
/// # Ok::<(), ketch_client::identity::IdentityError>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    origin: Origin,
    /// The public half as the file shows it; an encrypted PEM hides it.
    public: Option<PublicKey>,
    certificate: Option<PublicKey>,
    private: Arc<Mutex<Private>>,
    ask: Option<Arc<Ask>>,
}

type Ask = dyn Fn(&PassphraseQuestion<'_>) -> Option<Zeroizing<String>> + Send + Sync;

enum Private {
    Locked(KeyFile),
    Open(PrivateKey),
    /// In an agent, or in a security key.
    Elsewhere,
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
#[non_exhaustive]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Bytes that the program gave.
    Memory,
    /// An agent, where it has this comment, escaped.
    Agent(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("given by the program"),
            Self::Agent(comment) => write!(f, "{comment}, in the agent"),
        }
    }
}

impl Identity {
    /// Reads a key from a file of any format: OpenSSH's, PEM (PKCS#8, PKCS#1, SEC1), or PuTTY's.
    ///
    /// The file has to be a regular one of at most [`FILE_LEN_MAX`] bytes; on Unix, one that the
    /// user owns must be closed to everybody else, as OpenSSH has it. A file with a public key
    /// stands for the private one that an agent has. What lies beside the file is read, too, if it
    /// belongs to the key: the public half in `FILE.pub`, where the file hides its own, and a
    /// certificate in `FILE-cert.pub`.
    ///
    /// # Errors
    /// [`IdentityError`]: all variants but those about passphrases.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        let path = path.into();
        let text = read_key_file(&path)?;
        let mut identity = Self::parse(&text, Origin::File(path.clone()))?;
        if identity.public.is_none() {
            identity.public = read_public(&beside(&path, ".pub"));
        }
        if let Some(certificate) = read_public(&beside(&path, "-cert.pub")) {
            identity = identity.certificate(certificate).unwrap_or_else(|same| {
                tracing::debug!(origin = %same.origin, "the certificate is another key's");
                *same
            });
        }
        Ok(identity)
    }

    /// Takes a key as it would stand in a file of any format.
    ///
    /// # Errors
    /// [`IdentityError::Format`].
    pub fn from_memory(text: &[u8]) -> Result<Self, IdentityError> {
        Self::parse(text, Origin::Memory)
    }

    /// A key that is open already.
    #[must_use]
    pub fn from_private_key(key: PrivateKey) -> Self {
        Self::new(
            Origin::Memory,
            Some(key.public_key().clone()),
            Private::Open(key),
        )
    }

    /// The key that is made from a 32-byte seed (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_ed25519_seed(seed: Zeroizing<[u8; 32]>) -> Self {
        Self::from_private_key(PrivateKey::from_ed25519_seed(seed))
    }

    /// A key whose private half is in an agent: of the agent's keys, this one is meant.
    #[must_use]
    pub fn from_public_key(key: &PublicKey) -> Self {
        let mut identity = Self::new(Origin::Memory, Some(key.plain()), Private::Elsewhere);
        identity.certificate = key.certificate().is_some().then(|| key.clone());
        identity
    }

    /// Reads the keys that OpenSSH would use without being told, `~/.ssh/id_ed25519` first. Those
    /// that cannot be used are left out with a warning.
    #[must_use]
    pub fn from_default_files() -> Vec<Self> {
        let Some(home) = user_files::home_dir() else {
            return Vec::new();
        };
        let read = |name: &&str| match Self::from_file(home.join(".ssh").join(name)) {
            Ok(identity) => Some(identity),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, "a private key is left out");
                None
            }
        };
        DEFAULT_FILES.iter().filter_map(read).collect()
    }

    fn parse(text: &[u8], origin: Origin) -> Result<Self, IdentityError> {
        let file = match KeyFile::parse(text) {
            Ok(file) => file,
            Err(KeyFileError::PublicKey) if let Some(key) = public_line(text) => {
                return Ok(Self {
                    origin,
                    ..Self::from_public_key(&key)
                });
            }
            Err(source) => return Err(IdentityError::Format { origin, source }),
        };
        let public = file.public_key().cloned();
        let private = match file.open() {
            Ok(key) => Private::Open(key),
            Err(KeyFileError::Encrypted) => Private::Locked(file),
            Err(KeyFileError::SecurityKey) => Private::Elsewhere,
            Err(source) => return Err(IdentityError::Format { origin, source }),
        };
        Ok(Self::new(origin, public, private))
    }

    fn new(origin: Origin, public: Option<PublicKey>, private: Private) -> Self {
        Self {
            origin,
            public,
            certificate: None,
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

    /// A certificate for the key, which is offered before the key itself. Default: the one in the
    /// file beside the key's, if there is one.
    ///
    /// # Errors
    /// The identity as it was, if that is no certificate, or one for another key. Of a key whose
    /// public half is hidden that shows only when it is unlocked.
    pub fn certificate(mut self, certificate: PublicKey) -> Result<Self, Box<Self>> {
        let is_another = |key: &PublicKey| *key != certificate.plain();
        if certificate.certificate().is_none() || self.public_key().as_ref().is_some_and(is_another)
        {
            return Err(Box::new(self));
        }
        self.certificate = Some(certificate);
        Ok(self)
    }

    /// The public half; `None` as long as it is locked away together with the private one.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        match (&self.public, &*self.private()) {
            (Some(public), _) => Some(public.clone()),
            (None, Private::Open(key)) => Some(key.public_key().clone()),
            (None, _) => None,
        }
    }

    /// What is offered to servers: the certificate, if there is one, and the key.
    pub(crate) fn offers(&self) -> impl Iterator<Item = PublicKey> {
        let public = self.public_key();
        let certificate = self.certificate.clone();
        let fits = |certificate: &PublicKey| {
            public
                .as_ref()
                .is_none_or(|key| *key == certificate.plain())
        };
        let certificate = certificate.filter(fits);
        certificate.into_iter().chain(public)
    }

    /// The fingerprint as OpenSSH shows it, `SHA256:…`; `None` as long as the key is not known.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        self.public_key().map(|key| key.fingerprint())
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

    /// Whether a passphrase is still needed, and nobody can be asked for it.
    pub(crate) fn stays_locked(&self) -> bool {
        self.is_locked() && self.ask.is_none()
    }

    /// Whether the private half is not here, so that only an agent can sign.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        matches!(*self.private(), Private::Elsewhere)
    }

    /// Asks for the passphrase, if it is still needed. Blocks while somebody answers.
    ///
    /// # Errors
    /// [`IdentityError::Locked`], [`IdentityError::WrongPassphrase`], [`IdentityError::Format`].
    pub fn unlock(&self) -> Result<(), IdentityError> {
        let mut private = self.private();
        let Private::Locked(file) = &*private else {
            return Ok(());
        };
        let key = self.ask_and_decrypt(file)?;
        *private = Private::Open(key);
        Ok(())
    }

    fn ask_and_decrypt(&self, file: &KeyFile) -> Result<PrivateKey, IdentityError> {
        let origin = || self.origin.clone();
        let locked = || IdentityError::Locked { origin: origin() };
        let ask = self.ask.as_ref().ok_or_else(locked)?;
        for failed in 0..PASSPHRASE_TRIES_MAX {
            let question = PassphraseQuestion {
                origin: &self.origin,
                failed,
            };
            let passphrase = ask(&question).ok_or_else(locked)?;
            match file.decrypt(&passphrase) {
                Err(KeyFileError::WrongPassphrase) => {}
                Ok(key) => return Ok(key),
                Err(source) => {
                    return Err(IdentityError::Format {
                        origin: origin(),
                        source,
                    });
                }
            }
        }
        Err(IdentityError::WrongPassphrase { origin: origin() })
    }

    /// Signs `data`: the whole signature blob, verified before it leaves. Blocks while somebody
    /// answers, if the key is locked, and for some milliseconds with a long RSA key.
    ///
    /// # Errors
    /// As [`Identity::unlock`], [`IdentityError::Elsewhere`], and [`IdentityError::Sign`].
    pub fn sign(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, IdentityError> {
        self.unlock()?;
        let origin = || self.origin.clone();
        match &*self.private() {
            Private::Open(key) => key.sign(algorithm, data).map_err(|source| {
                let origin = origin();
                IdentityError::Sign { origin, source }
            }),
            Private::Elsewhere => Err(IdentityError::Elsewhere { origin: origin() }),
            Private::Locked(_) => Err(IdentityError::Locked { origin: origin() }),
        }
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

/// The path with something behind its last name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The public key or certificate in a file, if there is one that can be used: nothing depends on it.
fn read_public(path: &Path) -> Option<PublicKey> {
    let file = user_files::open_for_reading(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut text).ok()?;
    public_line(&text)
}

fn public_line(text: &[u8]) -> Option<PublicKey> {
    PublicKey::from_line(str::from_utf8(text).ok()?.trim()).ok()
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
    // A public key is nobody's secret.
    if public_line(&text).is_none()
        && let Some(mode) = user_files::mode_if_open_to_others(&metadata)
    {
        return Err(IdentityError::OpenToOthers {
            file: path.to_path_buf(),
            mode,
        });
    }
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
    /// It is no private key in a format, or of a type, that can be used.
    #[error("the private key {origin} is not usable")]
    Format {
        /// Where the key comes from.
        origin: Origin,
        /// What is wrong with it, and what to do.
        source: KeyFileError,
    },
    /// Only an agent can use it, and there is none that does.
    #[error(
        "the private half of {origin} is not here: start an agent that has it, and say that it is \
         to be used"
    )]
    Elsewhere {
        /// Where the public half comes from.
        origin: Origin,
    },
    /// It does not sign.
    #[error("the private key {origin} does not sign")]
    Sign {
        /// Where the key comes from.
        origin: Origin,
        /// Why.
        source: SignError,
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

impl Failure for IdentityError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. } => Kind::of_local(source),
            Self::Format {
                source: KeyFileError::Unsupported { .. } | KeyFileError::UnsupportedType { .. },
                ..
            } => Kind::Unsupported,
            Self::Locked { .. } | Self::WrongPassphrase { .. } | Self::Elsewhere { .. } => {
                Kind::Auth
            }
            Self::NotAFile { .. }
            | Self::TooLong { .. }
            | Self::OpenToOthers { .. }
            | Self::Format { .. }
            | Self::Sign { .. } => Kind::Local,
        }
    }
}
