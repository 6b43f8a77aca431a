//! PuTTY's `.ppk` files, versions 2 and 3 (PuTTY's manual, appendix C): lines of names and values,
//! the two halves in base64, and a MAC over all of it.
//!
//! Version 2 derives its keys with SHA-1, version 3 with Argon2; both encrypt with AES-256-CBC.

use argon2::{Algorithm, Argon2, Params, Version as Argon2Version};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ketch_wire::{Reader, Writer};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use sha1::Sha1;
use ssh_cipher::Cipher;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::openssh::{padded, rsa_key};
use super::pem::{decode_base64, hex};
use super::{Content, KeyFile, KeyFileError, SecretBytes};
use crate::algorithm::KeyType;
use crate::curve::Curve;
use crate::private::PrivateKey;
use crate::public::{Material, PublicKey};

/// Most lines of base64 for one half of a key.
const LINES_MAX: usize = 1024;
/// Most memory that Argon2 may take, in KiB; PuTTY's default is 8,192.
const ARGON2_MEMORY_MAX: u32 = 256 * 1024;
/// Most KiB that all passes of Argon2 may go over; PuTTY's default is some 100,000.
const ARGON2_WORK_MAX: u64 = 16 * 1024 * 1024;
/// Most lanes of Argon2.
const ARGON2_LANES_MAX: u32 = 64;
/// Lengths of a salt.
const SALT_LEN: std::ops::RangeInclusive<usize> = 8..=64;
/// Block of AES, in bytes.
const BLOCK_LEN: usize = 16;
/// Longest private number, in bytes.
const NUMBER_LEN_MAX: usize = 1024;

/// A key that needs its passphrase.
pub(super) struct Locked {
    container: Container,
    derivation: Derivation,
}

/// What the MAC is over, as it stands in the file.
struct Container {
    algorithm: Vec<u8>,
    encryption: &'static str,
    comment: Vec<u8>,
    public: Vec<u8>,
    private: SecretBytes,
    mac: Vec<u8>,
}

/// How keys come from a passphrase.
enum Derivation {
    /// Version 2.
    Sha1,
    /// Version 3.
    Argon2 {
        algorithm: Algorithm,
        memory: u32,
        passes: u32,
        lanes: u32,
        salt: Vec<u8>,
    },
}

/// The keys of a file.
struct Keys {
    cipher: SecretBytes,
    iv: SecretBytes,
    mac: MacKey,
}

enum MacKey {
    Sha1(SecretBytes),
    Sha256(SecretBytes),
}

const BROKEN: KeyFileError = KeyFileError::Damaged { what: "its lines" };

pub(super) fn parse(text: &[u8]) -> Result<KeyFile, KeyFileError> {
    let mut lines = Lines(text.split(|&byte| byte == b'\n'));
    let (name, algorithm) = lines.next()?;
    let version = match name {
        b"PuTTY-User-Key-File-2" => 2,
        b"PuTTY-User-Key-File-3" => 3,
        _ => {
            return Err(KeyFileError::Unsupported {
                what: "this version of PuTTY's format",
            });
        }
    };
    let encryption = match lines.value("Encryption")? {
        b"none" => "none",
        b"aes256-cbc" => "aes256-cbc",
        _ => {
            return Err(KeyFileError::Unsupported {
                what: "its encryption",
            });
        }
    };
    let comment = lines.value("Comment")?.to_vec();
    let public = lines.base64("Public-Lines")?.to_vec();
    let is_encrypted = encryption != "none";
    let derivation = match (version, is_encrypted) {
        (3, true) => Some(argon2(&mut lines)?),
        (_, true) => Some(Derivation::Sha1),
        (_, false) => None,
    };
    let private = lines.base64("Private-Lines")?;
    let mac = std::str::from_utf8(lines.value("Private-MAC")?)
        .ok()
        .and_then(hex)
        .ok_or(BROKEN)?;
    let key = public_key(algorithm, &public)?;
    let shown = String::from_utf8_lossy(&comment).into_owned();
    let algorithm = algorithm.to_vec();
    let container = Container {
        algorithm,
        encryption,
        comment,
        public,
        private,
        mac,
    };
    match derivation {
        Some(derivation) => {
            if container.private.is_empty() || !container.private.len().is_multiple_of(BLOCK_LEN) {
                return Err(KeyFileError::Damaged {
                    what: "its private half",
                });
            }
            let content = Content::Ppk(Locked {
                container,
                derivation,
            });
            Ok(KeyFile {
                public: Some(key),
                comment: Some(shown),
                content,
            })
        }
        None => {
            let mac = match version {
                2 => MacKey::Sha1(sha1_mac_key("")),
                _ => MacKey::Sha256(Zeroizing::new(Vec::new())),
            };
            if !container.is_whole(&mac, &container.private) {
                return Err(KeyFileError::Damaged {
                    what: "its checksum does not fit",
                });
            }
            let opened = private_key(&key, &container.private)?;
            Ok(KeyFile::opened(opened, Some(shown)))
        }
    }
}

/// Reads lines of `Name: value`.
struct Lines<'a, I: Iterator<Item = &'a [u8]>>(I);

impl<'a, I: Iterator<Item = &'a [u8]>> Lines<'a, I> {
    fn next(&mut self) -> Result<(&'a [u8], &'a [u8]), KeyFileError> {
        let line = self.line()?;
        let at = line
            .windows(2)
            .position(|pair| pair == b": ")
            .ok_or(BROKEN)?;
        Ok((
            line.get(..at).unwrap_or_default(),
            line.get(at + 2..).unwrap_or_default(),
        ))
    }

    fn line(&mut self) -> Result<&'a [u8], KeyFileError> {
        let line = self.0.next().ok_or(BROKEN)?;
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn value(&mut self, name: &str) -> Result<&'a [u8], KeyFileError> {
        // A value may be empty, and editors take the blank at a line's end away.
        let line = self.line()?.strip_prefix(name.as_bytes()).ok_or(BROKEN)?;
        let value = line.strip_prefix(b":").ok_or(BROKEN)?;
        Ok(value.strip_prefix(b" ").unwrap_or(value))
    }

    fn number(&mut self, name: &str) -> Result<u32, KeyFileError> {
        let digits = std::str::from_utf8(self.value(name)?).map_err(|_| BROKEN)?;
        digits.parse().map_err(|_| BROKEN)
    }

    fn base64(&mut self, name: &str) -> Result<SecretBytes, KeyFileError> {
        let count = usize::try_from(self.number(name)?)
            .ok()
            .filter(|&count| count <= LINES_MAX);
        let mut body = Zeroizing::new(String::new());
        for _ in 0..count.ok_or(BROKEN)? {
            body.push_str(std::str::from_utf8(self.line()?).map_err(|_| BROKEN)?);
        }
        decode_base64(&body)
    }
}

fn argon2<'a>(
    lines: &mut Lines<'a, impl Iterator<Item = &'a [u8]>>,
) -> Result<Derivation, KeyFileError> {
    let algorithm = match lines.value("Key-Derivation")? {
        b"Argon2id" => Algorithm::Argon2id,
        b"Argon2i" => Algorithm::Argon2i,
        b"Argon2d" => Algorithm::Argon2d,
        _ => {
            return Err(KeyFileError::Unsupported {
                what: "its key derivation",
            });
        }
    };
    let memory = lines.number("Argon2-Memory")?;
    let passes = lines.number("Argon2-Passes")?;
    let lanes = lines.number("Argon2-Parallelism")?;
    let salt = std::str::from_utf8(lines.value("Argon2-Salt")?)
        .ok()
        .and_then(hex)
        .ok_or(BROKEN)?;
    if memory > ARGON2_MEMORY_MAX
        || lanes > ARGON2_LANES_MAX
        || u64::from(memory) * u64::from(passes) > ARGON2_WORK_MAX
    {
        return Err(KeyFileError::TooCostly);
    }
    if !SALT_LEN.contains(&salt.len()) {
        return Err(BROKEN);
    }
    Ok(Derivation::Argon2 {
        algorithm,
        memory,
        passes,
        lanes,
        salt,
    })
}

impl Locked {
    pub(super) fn decrypt(&self, passphrase: &str) -> Result<PrivateKey, KeyFileError> {
        let keys = self.derivation.keys(passphrase)?;
        let mut private = self.container.private.clone();
        Cipher::Aes256Cbc
            .decrypt(&keys.cipher, &keys.iv, &mut private, None)
            .map_err(|_| KeyFileError::Damaged {
                what: "its private half",
            })?;
        if !self.container.is_whole(&keys.mac, &private) {
            return Err(KeyFileError::WrongPassphrase);
        }
        let key = public_key(&self.container.algorithm, &self.container.public)?;
        private_key(&key, &private)
    }
}

impl Derivation {
    fn keys(&self, passphrase: &str) -> Result<Keys, KeyFileError> {
        match self {
            Self::Sha1 => {
                let mut cipher = Zeroizing::new(Vec::with_capacity(40));
                for count in 0..2_u32 {
                    let mut hashed = Zeroizing::new(count.to_be_bytes().to_vec());
                    hashed.extend_from_slice(passphrase.as_bytes());
                    cipher.extend_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref());
                }
                cipher.truncate(32);
                let iv = Zeroizing::new(vec![0; BLOCK_LEN]);
                Ok(Keys {
                    cipher,
                    iv,
                    mac: MacKey::Sha1(sha1_mac_key(passphrase)),
                })
            }
            Self::Argon2 {
                algorithm,
                memory,
                passes,
                lanes,
                salt,
            } => {
                let broken = KeyFileError::Damaged {
                    what: "its key derivation",
                };
                let mut derived = Zeroizing::new([0; 32 + BLOCK_LEN + 32]);
                let parameters = Params::new(*memory, *passes, *lanes, Some(derived.len()))
                    .map_err(|_| broken.clone())?;
                Argon2::new(*algorithm, Argon2Version::V0x13, parameters)
                    .hash_password_into(passphrase.as_bytes(), salt, &mut derived[..])
                    .map_err(|_| broken)?;
                let part = |range| {
                    Zeroizing::new(
                        derived
                            .get::<std::ops::Range<usize>>(range)
                            .unwrap_or_default()
                            .to_vec(),
                    )
                };
                Ok(Keys {
                    cipher: part(0..32),
                    iv: part(32..48),
                    mac: MacKey::Sha256(part(48..80)),
                })
            }
        }
    }
}

fn sha1_mac_key(passphrase: &str) -> SecretBytes {
    let mut hashed = Zeroizing::new(b"putty-private-key-file-mac-key".to_vec());
    hashed.extend_from_slice(passphrase.as_bytes());
    Zeroizing::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed).as_ref().to_vec())
}

impl Container {
    /// Whether the MAC fits, with the private half as it is before encryption.
    fn is_whole(&self, key: &MacKey, private: &[u8]) -> bool {
        let mut covered =
            Zeroizing::new(Vec::with_capacity(private.len() + self.public.len() + 4096));
        let mut w = Writer::new(&mut covered);
        w.string(&self.algorithm);
        w.string(self.encryption.as_bytes());
        w.string(&self.comment);
        w.string(&self.public);
        w.string(private);
        match key {
            MacKey::Sha1(key) => Hmac::<Sha1>::new_from_slice(key).is_ok_and(|mut mac| {
                mac.update(&covered);
                bool::from(mac.finalize().into_bytes().as_slice().ct_eq(&self.mac))
            }),
            MacKey::Sha256(key) => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
                ring::hmac::verify(&key, &covered, &self.mac).is_ok()
            }
        }
    }
}

fn public_key(algorithm: &[u8], blob: &[u8]) -> Result<PublicKey, KeyFileError> {
    let Some((key_type, false)) = KeyType::from_blob_name(algorithm) else {
        let name = String::from_utf8_lossy(algorithm).into_owned();
        return Err(KeyFileError::UnsupportedType { name });
    };
    let key = PublicKey::from_plain_blob(blob).map_err(|_| KeyFileError::Invalid)?;
    if key.key_type() == key_type {
        Ok(key)
    } else {
        Err(KeyFileError::Invalid)
    }
}

/// The private half has what the public one lacks; what follows fills up the last block.
fn private_key(public: &PublicKey, private: &[u8]) -> Result<PrivateKey, KeyFileError> {
    let mut r = Reader::new(private);
    let key = match public.material() {
        Material::Ed25519(_) => {
            let seed = r
                .string(32)?
                .try_into()
                .map_err(|_| KeyFileError::Invalid)?;
            PrivateKey::ed25519(seed)
        }
        Material::Ecdsa { curve, point } => ecdsa(*curve, point, &mut r)?,
        Material::Rsa(rsa) => {
            let mut next = || Ok::<_, KeyFileError>(r.mpint(NUMBER_LEN_MAX)?.magnitude());
            let [d, p, q] = [next()?, next()?, next()?];
            rsa_key(rsa.clone(), d, p, q)?
        }
        Material::SkEd25519 { .. } | Material::SkEcdsaP256 { .. } => {
            return Err(KeyFileError::SecurityKey);
        }
    };
    if key.public_key() == public {
        Ok(key)
    } else {
        Err(KeyFileError::Invalid)
    }
}

fn ecdsa(curve: Curve, point: &[u8], r: &mut Reader<'_>) -> Result<PrivateKey, KeyFileError> {
    let scalar = padded(r.mpint(curve.scalar_len())?.magnitude(), curve);
    PrivateKey::ecdsa(curve, scalar, point).ok_or(KeyFileError::Invalid)
}
