//! OpenSSH's own format of private keys (PROTOCOL.key).

use base64ct::{Base64, Encoding as _};
use ketch_wire::{DecodeError, NAME_LEN_MAX, Reader, Writer};
use ssh_cipher::Cipher;
use zeroize::Zeroizing;

use super::pem::Block;
use super::{Content, KeyFile, KeyFileError, SecretBytes};
use crate::algorithm::KeyType;
use crate::curve::Curve;
use crate::private::{PrivateKey, Secret};
use crate::public::{KEY_BLOB_LEN_MAX, Material, PublicKey, RsaPublic};
use crate::rsa::{RsaNumbers, RsaPrivate};

const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Most rounds of bcrypt that unlocking may take: `ssh-keygen` uses 16, or 24 since 9.4. More
/// would keep a processor busy for minutes because a file says so.
const ROUNDS_MAX: u32 = 2048;
/// Longest salt.
const SALT_LEN_MAX: usize = 1024;
/// Longest private part: the largest RSA key's numbers and a comment, with room.
const PRIVATE_LEN_MAX: usize = 64 * 1024;
/// Longest private number, in bytes.
const NUMBER_LEN_MAX: usize = 1024;
/// The longest multiple to which the private part is filled up.
const PADDING_LEN_MAX: usize = 255;
/// Characters of base64 in a line, as OpenSSH has it.
const LINE_LEN: usize = 70;

/// What `ssh-keygen -Z` encrypts with.
pub(super) const CIPHERS: [Cipher; 10] = [
    Cipher::Aes256Ctr,
    Cipher::Aes192Ctr,
    Cipher::Aes128Ctr,
    Cipher::Aes256Gcm,
    Cipher::Aes128Gcm,
    Cipher::ChaCha20Poly1305,
    Cipher::Aes256Cbc,
    Cipher::Aes192Cbc,
    Cipher::Aes128Cbc,
    Cipher::TdesCbc,
];

/// A key that needs its passphrase.
pub(super) struct Locked {
    cipher: Cipher,
    salt: Vec<u8>,
    rounds: u32,
    encrypted: Vec<u8>,
    tag: Option<[u8; 16]>,
}

pub(super) fn parse(block: &Block<'_>) -> Result<KeyFile, KeyFileError> {
    let bytes = block.decode()?;
    decode(&bytes)
}

fn decode(bytes: &[u8]) -> Result<KeyFile, KeyFileError> {
    let bytes = bytes.strip_prefix(MAGIC).ok_or(KeyFileError::Damaged {
        what: "its beginning",
    })?;
    let mut r = Reader::new(bytes);
    let cipher_name = r.text(NAME_LEN_MAX)?;
    let kdf_name = r.text(NAME_LEN_MAX)?;
    let kdf_options = r.string(SALT_LEN_MAX + 8)?;
    if r.u32()? != 1 {
        return Err(KeyFileError::Unsupported {
            what: "more than one key in a file",
        });
    }
    let public = r.string(KEY_BLOB_LEN_MAX)?;
    let private = r.string(PRIVATE_LEN_MAX)?;
    let Ok(public) = PublicKey::from_plain_blob(public) else {
        return Err(unusable(public));
    };
    if cipher_name == "none" {
        if kdf_name != "none" {
            return Err(KeyFileError::Damaged { what: "its cipher" });
        }
        r.finish()?;
        let (content, comment) = match private_part(private)? {
            Private::Key { key, .. } if *key.public_key() != public => {
                return Err(KeyFileError::Invalid);
            }
            Private::Key { key, comment } => (Content::Open(key), comment),
            Private::SecurityKey { comment } => (Content::SecurityKey, comment),
            Private::OtherCheck => {
                return Err(KeyFileError::Damaged {
                    what: "its check numbers",
                });
            }
        };
        return Ok(KeyFile {
            public: Some(public),
            comment: Some(comment),
            content,
        });
    }
    let cipher = CIPHERS
        .iter()
        .find(|each| each.as_str() == cipher_name)
        .copied();
    let cipher = cipher.ok_or(KeyFileError::Unsupported { what: "its cipher" })?;
    if kdf_name != "bcrypt" {
        return Err(KeyFileError::Unsupported {
            what: "its key derivation",
        });
    }
    let mut options = Reader::new(kdf_options);
    let salt = options.string(SALT_LEN_MAX)?.to_vec();
    let rounds = options.u32()?;
    options.finish()?;
    if rounds > ROUNDS_MAX {
        return Err(KeyFileError::TooCostly);
    }
    let tag = if cipher.has_tag() {
        Some(r.array()?)
    } else {
        None
    };
    r.finish()?;
    if private.is_empty()
        || !private.len().is_multiple_of(cipher.block_size())
        || rounds == 0
        || salt.is_empty()
    {
        return Err(KeyFileError::Damaged {
            what: "its private part",
        });
    }
    let locked = Locked {
        cipher,
        salt,
        rounds,
        encrypted: private.to_vec(),
        tag,
    };
    Ok(KeyFile {
        public: Some(public),
        comment: None,
        content: Content::OpenSsh(locked),
    })
}

/// Says what a public half is that cannot be read.
fn unusable(blob: &[u8]) -> KeyFileError {
    match Reader::new(blob).text(NAME_LEN_MAX) {
        Ok(name) if KeyType::from_blob_name(name.as_bytes()).is_none() => {
            KeyFileError::UnsupportedType {
                name: name.to_owned(),
            }
        }
        Ok(_) => KeyFileError::Invalid,
        Err(_) => KeyFileError::Damaged {
            what: "its public half",
        },
    }
}

impl Locked {
    pub(super) fn decrypt(&self, passphrase: &str) -> Result<PrivateKey, KeyFileError> {
        // bcrypt takes no empty passphrase, and no file is locked with one.
        if passphrase.is_empty() {
            return Err(KeyFileError::WrongPassphrase);
        }
        let (key_len, iv_len) = match self.cipher {
            // Two keys, of which a key file uses one, and no initialisation vector.
            Cipher::ChaCha20Poly1305 => (64, 0),
            cipher => cipher.key_and_iv_size().unwrap_or_default(),
        };
        let mut derived = Zeroizing::new(vec![0; key_len + iv_len]);
        bcrypt_pbkdf::bcrypt_pbkdf(passphrase, &self.salt, self.rounds, &mut derived).map_err(
            |_| KeyFileError::Damaged {
                what: "its key derivation",
            },
        )?;
        let (key, iv) = match self.cipher {
            Cipher::ChaCha20Poly1305 => (&derived[..32], &[0; 8][..]),
            _ => derived.split_at(key_len),
        };
        let mut private = Zeroizing::new(self.encrypted.clone());
        let tag = self.tag.map(Into::into);
        self.cipher
            .decrypt(key, iv, &mut private, tag)
            .map_err(|_| KeyFileError::WrongPassphrase)?;
        match private_part(&private)? {
            Private::Key { key, .. } => Ok(key),
            Private::SecurityKey { .. } => Err(KeyFileError::SecurityKey),
            Private::OtherCheck => Err(KeyFileError::WrongPassphrase),
        }
    }
}

enum Private {
    Key {
        key: PrivateKey,
        comment: String,
    },
    SecurityKey {
        comment: String,
    },
    /// The two check numbers differ: the passphrase is wrong.
    OtherCheck,
}

fn private_part(bytes: &[u8]) -> Result<Private, KeyFileError> {
    let mut r = Reader::new(bytes);
    if r.u32()? != r.u32()? {
        return Ok(Private::OtherCheck);
    }
    let name = r.text(NAME_LEN_MAX)?;
    let (key_type, is_certificate) =
        KeyType::from_blob_name(name.as_bytes()).ok_or_else(|| KeyFileError::UnsupportedType {
            name: name.to_owned(),
        })?;
    if is_certificate {
        return Err(KeyFileError::Unsupported {
            what: "a certificate in a private key file",
        });
    }
    let key = match key_type {
        KeyType::Ed25519 => Some(ed25519(&mut r)?),
        KeyType::EcdsaP256 => Some(ecdsa(Curve::P256, &mut r)?),
        KeyType::EcdsaP384 => Some(ecdsa(Curve::P384, &mut r)?),
        KeyType::EcdsaP521 => Some(ecdsa(Curve::P521, &mut r)?),
        KeyType::Rsa => Some(rsa(&mut r)?),
        KeyType::SkEd25519 | KeyType::SkEcdsaP256 => {
            Material::decode(key_type, &mut r)?;
            let _flags = r.u8()?;
            let _handle = r.string(PRIVATE_LEN_MAX)?;
            let _reserved = r.string(PRIVATE_LEN_MAX)?;
            None
        }
    };
    let comment = String::from_utf8_lossy(r.string(PRIVATE_LEN_MAX)?).into_owned();
    let padding = r.take_rest();
    let counts = padding
        .iter()
        .zip(1..=PADDING_LEN_MAX)
        .all(|(&byte, count)| usize::from(byte) == count);
    if padding.len() > PADDING_LEN_MAX || !counts {
        return Err(KeyFileError::Damaged {
            what: "its padding",
        });
    }
    Ok(match key {
        Some(key) => Private::Key { key, comment },
        None => Private::SecurityKey { comment },
    })
}

fn ed25519(r: &mut Reader<'_>) -> Result<PrivateKey, KeyFileError> {
    let point = r.string(32)?;
    let pair = r.string(64)?;
    let seed = pair.first_chunk().ok_or(KeyFileError::Invalid)?;
    let key = PrivateKey::ed25519(seed);
    let same = matches!(key.public_key().material(), Material::Ed25519(own) if own == point);
    if same && pair.get(32..) == Some(point) {
        Ok(key)
    } else {
        Err(KeyFileError::Invalid)
    }
}

fn ecdsa(curve: Curve, r: &mut Reader<'_>) -> Result<PrivateKey, KeyFileError> {
    if r.string(NAME_LEN_MAX)? != curve.name().as_bytes() {
        return Err(KeyFileError::Damaged { what: "its curve" });
    }
    let point = r.string(curve.point_len())?;
    let scalar = padded(r.mpint(curve.scalar_len())?.magnitude(), curve);
    PrivateKey::ecdsa(curve, scalar, point).ok_or(KeyFileError::Invalid)
}

/// A scalar at the length of its curve.
pub(super) fn padded(scalar: &[u8], curve: Curve) -> SecretBytes {
    let mut padded = Zeroizing::new(vec![0; curve.scalar_len()]);
    let start = curve.scalar_len().saturating_sub(scalar.len());
    if let Some(end) = padded
        .get_mut(start..)
        .filter(|end| end.len() == scalar.len())
    {
        end.copy_from_slice(scalar);
    }
    padded
}

fn rsa(r: &mut Reader<'_>) -> Result<PrivateKey, KeyFileError> {
    let mut next = || Ok::<_, DecodeError>(r.mpint(NUMBER_LEN_MAX)?.magnitude());
    let [modulus, exponent, d, _q_inverse, p, q] =
        [next()?, next()?, next()?, next()?, next()?, next()?];
    let public = RsaPublic::new(modulus, exponent).map_err(|_| KeyFileError::Invalid)?;
    rsa_key(public, d, p, q)
}

pub(super) fn rsa_key(
    public: RsaPublic,
    d: &[u8],
    p: &[u8],
    q: &[u8],
) -> Result<PrivateKey, KeyFileError> {
    let [d, p, q] = [d, p, q].map(|number| Zeroizing::new(number.to_vec()));
    let rsa = RsaPrivate::new(public, RsaNumbers { d, p, q }).ok_or(KeyFileError::Invalid)?;
    Ok(PrivateKey::rsa(rsa))
}

/// Writes a key without a passphrase.
pub(crate) fn write(key: &PrivateKey) -> Zeroizing<String> {
    // Enough for the largest key: a vector that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    bytes.extend_from_slice(MAGIC);
    let public = key.public_key();
    let mut private = Zeroizing::new(Vec::with_capacity(8 * 1024));
    let check = public.fingerprint_sha256();
    let mut w = Writer::new(&mut private);
    // Two equal numbers, any: nothing is encrypted here.
    w.bytes(&check[..4]);
    w.bytes(&check[..4]);
    w.string(public.key_type().name().as_bytes());
    write_private(key, &mut w);
    w.string(b"");
    let mut count = 0;
    while !private.len().is_multiple_of(8) {
        count += 1;
        private.push(count);
    }
    let mut w = Writer::new(&mut bytes);
    w.string(b"none");
    w.string(b"none");
    w.string(b"");
    w.u32(1);
    w.string(public.as_blob());
    w.string(&private);
    let base64 = Zeroizing::new(Base64::encode_string(&bytes));
    let mut text = Zeroizing::new(String::with_capacity(
        base64.len() + base64.len() / LINE_LEN + 100,
    ));
    text.push_str("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_LEN));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    text
}

fn write_private(key: &PrivateKey, w: &mut Writer<'_>) {
    match (key.secret(), key.public_key().material()) {
        (Secret::Ed25519(seed), Material::Ed25519(point)) => {
            w.string(point);
            w.scope(|w| {
                w.bytes(&seed[..]);
                w.bytes(point);
            });
        }
        (Secret::Ecdsa { scalar, .. }, material @ Material::Ecdsa { .. }) => {
            material.encode(w);
            w.mpint(scalar);
        }
        (Secret::Rsa(rsa), Material::Rsa(public)) => {
            w.mpint(&public.modulus);
            w.mpint(&public.exponent_bytes());
            let numbers = rsa.numbers();
            w.mpint(&numbers.d);
            w.mpint(&rsa.q_inverse());
            w.mpint(&numbers.p);
            w.mpint(&numbers.q);
        }
        // A private key is made with the public half of its own type.
        _ => {}
    }
}

impl From<DecodeError> for KeyFileError {
    fn from(_: DecodeError) -> Self {
        Self::Damaged {
            what: "it breaks off, or a field is malformed",
        }
    }
}
