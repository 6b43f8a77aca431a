//! The one place that knows the crate which reads OpenSSH's private keys (PROTOCOL.key).

use base64ct::{Base64, Encoding};
use ketch_wire::Reader;
use ssh_key::Kdf;
use ssh_key::private::PrivateKey;
use zeroize::Zeroizing;

/// The 32 bytes that an Ed25519 key is made from (RFC 8032 §5.1.5).
pub(super) type Seed = Zeroizing<[u8; 32]>;

/// Most rounds of bcrypt that unlocking may take: `ssh-keygen` uses 16, or 24 since 9.4. More
/// would keep a processor busy for minutes because a file says so.
const ROUNDS_MAX: u32 = 2048;

const BEGIN: &[u8] = b"-----BEGIN OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Longest field that is looked at in front of the private half, in bytes.
const FIELD_LEN_MAX: usize = 8 * 1024;

/// The private half, as it stood in the file.
pub(super) enum Private {
    Open(Seed),
    Encrypted(EncryptedKey),
}

/// A key that needs a passphrase.
pub(super) struct EncryptedKey(Box<PrivateKey>);

/// What is wrong with a key.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum KeyError {
    /// A type other than Ed25519.
    Type(String),
    /// A public key.
    Public,
    /// PEM of another kind: PKCS#1, PKCS#8, SEC1.
    OtherPem,
    /// PuTTY's own format.
    Putty,
    /// Nothing that looks like a key.
    NoKey,
    /// Broken, or of a cipher that is not known.
    Damaged,
    /// More than [`ROUNDS_MAX`].
    Rounds,
    /// The passphrase does not open it.
    WrongPassphrase,
}

/// Reads a key: its public half, and the private one as far as it can be read.
pub(super) fn parse(text: &[u8]) -> Result<([u8; 32], Private), KeyError> {
    let text = text.trim_ascii();
    if !text.starts_with(BEGIN) {
        return Err(describe(text));
    }
    // The crate does not say what a key is that it cannot read, so that is looked up first.
    match algorithm_of(text) {
        Some(algorithm) if algorithm == "ssh-ed25519" => {}
        Some(algorithm) => return Err(KeyError::Type(algorithm)),
        None => return Err(KeyError::Damaged),
    }
    let key = PrivateKey::from_openssh(text).map_err(|_| KeyError::Damaged)?;
    let public = key
        .public_key()
        .key_data()
        .ed25519()
        .ok_or(KeyError::Damaged)?
        .0;
    if matches!(key.kdf(), Kdf::Bcrypt { rounds, .. } if *rounds > ROUNDS_MAX) {
        return Err(KeyError::Rounds);
    }
    let private = if key.is_encrypted() {
        Private::Encrypted(EncryptedKey(Box::new(key)))
    } else {
        Private::Open(seed_of(&key)?)
    };
    Ok((public, private))
}

impl EncryptedKey {
    /// Opens the key: a fraction of a second of work, on purpose.
    pub(super) fn decrypt(&self, passphrase: &str) -> Result<Seed, KeyError> {
        match self.0.decrypt(passphrase) {
            Ok(key) => seed_of(&key),
            Err(ssh_key::Error::Crypto) => Err(KeyError::WrongPassphrase),
            Err(_) => Err(KeyError::Damaged),
        }
    }
}

fn seed_of(key: &PrivateKey) -> Result<Seed, KeyError> {
    let pair = key.key_data().ed25519().ok_or(KeyError::Damaged)?;
    let seed = Zeroizing::new(pair.private.to_bytes());
    // A file whose halves do not fit would have us sign for a key that is not ours.
    ring::signature::Ed25519KeyPair::from_seed_and_public_key(&seed[..], &pair.public.0)
        .map_err(|_| KeyError::Damaged)?;
    Ok(seed)
}

/// The type of the public key that stands in front of the private one.
fn algorithm_of(text: &[u8]) -> Option<String> {
    let lines = text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    let body = lines.skip(1).take_while(|line| !line.starts_with(b"-"));
    let body = Zeroizing::new(body.collect::<Vec<_>>().concat());
    let bytes = Base64::decode_vec(std::str::from_utf8(&body).ok()?)
        .ok()
        .map(Zeroizing::new)?;
    let mut r = Reader::new(&bytes);
    r.bytes(MAGIC.len()).ok().filter(|magic| *magic == MAGIC)?;
    for _cipher_kdf_options in 0..3 {
        r.string(FIELD_LEN_MAX).ok()?;
    }
    let _keys = r.u32().ok()?;
    let mut public = Reader::new(r.string(FIELD_LEN_MAX).ok()?);
    public
        .text(ketch_wire::NAME_LEN_MAX)
        .ok()
        .map(str::to_owned)
}

/// Says what a text is that is no OpenSSH private key.
fn describe(text: &[u8]) -> KeyError {
    let starts = |front: &str| text.starts_with(front.as_bytes());
    if starts("-----BEGIN ") {
        let first = text.split(|&b| b == b'\n').next().unwrap_or_default();
        let private = first.trim_ascii_end().ends_with(b"PRIVATE KEY-----");
        if private {
            KeyError::OtherPem
        } else {
            KeyError::NoKey
        }
    } else if starts("PuTTY-User-Key-File") {
        KeyError::Putty
    } else if starts("ssh-") || starts("ecdsa-") || starts("sk-") {
        KeyError::Public
    } else {
        KeyError::NoKey
    }
}
