//! PEM (RFC 7468, RFC 1421): text around base64, perhaps encrypted in OpenSSL's old way.
//!
//! The old way (`Proc-Type: 4,ENCRYPTED`, `DEK-Info`) derives its key with one round of MD5 and
//! has no check of the passphrase but the padding and the shape of what comes out. Files of this
//! kind are read because they exist; nothing is written so.

use base64ct::{Base64, Encoding as _};
use md5::{Digest as _, Md5};
use ssh_cipher::Cipher;
use zeroize::Zeroizing;

use super::der::{self, Encoded};
use super::{Content, KeyFile, KeyFileError, SecretBytes};
use crate::private::PrivateKey;

/// Most lines of headers in front of the base64.
const HEADERS_MAX: usize = 16;
/// Bytes of the initialisation vector that salt the key.
const SALT_LEN: usize = 8;

/// A block between `BEGIN` and `END`.
pub(super) struct Block<'a> {
    /// What the block says it is.
    pub(super) label: &'a str,
    /// Name and value.
    headers: Vec<(&'a str, &'a str)>,
    body: &'a str,
}

/// Finds the first block that is a key; `None` if there is no block at all. What stands in front,
/// as `openssl` writes it with `-text`, and other blocks (`EC PARAMETERS`) are passed over.
pub(super) fn find(text: &[u8]) -> Result<Option<Block<'_>>, KeyFileError> {
    let Ok(text) = std::str::from_utf8(text) else {
        return Ok(None);
    };
    let mut rest = text;
    let mut other = None;
    while let Some((block, after)) = next(rest)? {
        if block.label.ends_with("PRIVATE KEY") {
            return Ok(Some(block));
        }
        other.get_or_insert(block);
        rest = after;
    }
    Ok(other)
}

/// The next block, and what follows it.
fn next(text: &str) -> Result<Option<(Block<'_>, &str)>, KeyFileError> {
    const BEGIN: &str = "-----BEGIN ";
    const DASHES: &str = "-----";
    let broken = KeyFileError::Damaged {
        what: "its first or last line",
    };
    let start = if text.starts_with(BEGIN) {
        0
    } else {
        match text.find("\n-----BEGIN ") {
            Some(at) => at + 1,
            None => return Ok(None),
        }
    };
    let (label, after) = text[start + BEGIN.len()..]
        .split_once(DASHES)
        .ok_or(broken.clone())?;
    let end = format!("-----END {label}{DASHES}");
    let is_label = label.len() <= 64
        && label
            .bytes()
            .all(|b| b == b' ' || b.is_ascii_alphanumeric());
    let Some((inner, after)) = after.split_once(&end).filter(|_| is_label) else {
        return Err(broken);
    };
    // Headers, if there are any, end at an empty line (RFC 1421 §4.4).
    let mut headers = Vec::new();
    let mut body = inner;
    while let Some((line, below)) = body.trim_start_matches(['\r', '\n']).split_once('\n') {
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if headers.len() == HEADERS_MAX {
            return Err(KeyFileError::Damaged {
                what: "its headers",
            });
        }
        headers.push((name.trim(), value.trim()));
        body = below;
    }
    Ok(Some((
        Block {
            label,
            headers,
            body,
        },
        after,
    )))
}

impl Block<'_> {
    /// The bytes inside.
    pub(super) fn decode(&self) -> Result<SecretBytes, KeyFileError> {
        decode_base64(self.body)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(each, _)| *each == name)
            .map(|&(_, value)| value)
    }
}

/// Base64 in lines of any length.
pub(super) fn decode_base64(body: &str) -> Result<SecretBytes, KeyFileError> {
    let broken = KeyFileError::Damaged { what: "its base64" };
    let mut joined = Zeroizing::new(Vec::with_capacity(body.len()));
    joined.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut bytes = Zeroizing::new(vec![0; joined.len() / 4 * 3 + 3]);
    let len = Base64::decode(joined.as_slice(), &mut bytes)
        .map_err(|_| broken)?
        .len();
    bytes.truncate(len);
    Ok(bytes)
}

/// A block that needs its passphrase.
pub(super) enum Locked {
    /// PKCS #8.
    Pkcs8(der::Encrypted),
    /// The old way.
    DekInfo {
        encoded: Encoded,
        cipher: Cipher,
        iv: Vec<u8>,
        encrypted: Vec<u8>,
    },
}

pub(super) fn parse(block: &Block<'_>) -> Result<KeyFile, KeyFileError> {
    let encoded = match block.label {
        "PRIVATE KEY" => Encoded::Pkcs8,
        "RSA PRIVATE KEY" => Encoded::Pkcs1,
        "EC PRIVATE KEY" => Encoded::Sec1,
        "ENCRYPTED PRIVATE KEY" => {
            let encrypted = der::Encrypted::parse(&block.decode()?)?;
            return Ok(locked(Locked::Pkcs8(encrypted)));
        }
        "DSA PRIVATE KEY" => {
            return Err(KeyFileError::UnsupportedType {
                name: "DSA".to_owned(),
            });
        }
        _ => {
            return Err(KeyFileError::Unsupported {
                what: "PEM of another kind",
            });
        }
    };
    let bytes = block.decode()?;
    let Some(proc_type) = block.header("Proc-Type") else {
        return Ok(KeyFile::opened(encoded.decode(&bytes)?, None));
    };
    let (Some("ENCRYPTED"), Some(dek_info)) = (
        proc_type.strip_prefix("4,").map(str::trim),
        block.header("DEK-Info"),
    ) else {
        return Err(KeyFileError::Damaged {
            what: "its headers",
        });
    };
    let (cipher, iv) = dek_info.split_once(',').ok_or(KeyFileError::Damaged {
        what: "its headers",
    })?;
    let cipher = match cipher.trim() {
        "AES-128-CBC" => Cipher::Aes128Cbc,
        "AES-192-CBC" => Cipher::Aes192Cbc,
        "AES-256-CBC" => Cipher::Aes256Cbc,
        "DES-EDE3-CBC" => Cipher::TdesCbc,
        _ => return Err(KeyFileError::Unsupported { what: "its cipher" }),
    };
    let iv = hex(iv.trim()).filter(|iv| iv.len() == cipher.block_size());
    let iv = iv.ok_or(KeyFileError::Damaged {
        what: "its headers",
    })?;
    if bytes.is_empty() || !bytes.len().is_multiple_of(cipher.block_size()) {
        return Err(KeyFileError::Damaged { what: "its length" });
    }
    Ok(locked(Locked::DekInfo {
        encoded,
        cipher,
        iv,
        encrypted: bytes.to_vec(),
    }))
}

fn locked(content: Locked) -> KeyFile {
    KeyFile {
        public: None,
        comment: None,
        content: Content::Pem(content),
    }
}

impl Locked {
    pub(super) fn decrypt(&self, passphrase: &str) -> Result<PrivateKey, KeyFileError> {
        match self {
            Self::Pkcs8(encrypted) => encrypted.decrypt(passphrase),
            Self::DekInfo {
                encoded,
                cipher,
                iv,
                encrypted,
            } => {
                let (key_len, _) = cipher.key_and_iv_size().unwrap_or_default();
                let salt = iv.get(..SALT_LEN).unwrap_or_default();
                let key = bytes_to_key(passphrase, salt, key_len);
                let mut bytes = Zeroizing::new(encrypted.clone());
                cipher
                    .decrypt(&key, iv, &mut bytes, None)
                    .map_err(|_| KeyFileError::WrongPassphrase)?;
                let len = without_padding(&bytes, cipher.block_size());
                let der = len.and_then(|len| bytes.get(..len));
                // A wrong passphrase hits upon good padding once in 256 times, but hardly upon
                // the beginning of a structure of the right length too.
                match der.filter(|der| der::is_whole_sequence(der)) {
                    Some(der) => encoded.decode(der),
                    None => Err(KeyFileError::WrongPassphrase),
                }
            }
        }
    }
}

/// The length without padding (RFC 5652 §6.3).
fn without_padding(bytes: &[u8], block: usize) -> Option<usize> {
    let count = usize::from(*bytes.last()?);
    let len = bytes.len().checked_sub(count)?;
    let is_padding = (1..=block).contains(&count);
    let same = bytes
        .get(len..)?
        .iter()
        .all(|&byte| usize::from(byte) == count);
    (is_padding && same).then_some(len)
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round.
fn bytes_to_key(passphrase: &str, salt: &[u8], len: usize) -> SecretBytes {
    let mut key = Zeroizing::new(Vec::with_capacity(len + 16));
    let mut last: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::new());
    while key.len() < len {
        let mut hash = Md5::new();
        hash.update(&*last);
        hash.update(passphrase.as_bytes());
        hash.update(salt);
        last = Zeroizing::new(hash.finalize().to_vec());
        key.extend_from_slice(&last);
    }
    key.truncate(len);
    key
}

pub(crate) fn hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?;
        u8::try_from(value).ok()
    });
    pairs.collect()
}
