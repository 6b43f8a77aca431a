//! The exchange hash and the keys that come from it (RFC 4253 §7.2, §8; RFC 8731 §3.1).
//!
//! Between [`kex`](super::kex), which makes the shared secret, and the packet layer, which is given
//! [`KeyMaterial`]. Each method of key exchange brings its [`Hash`]; it is the one that keys are
//! derived with, too.

use std::fmt;

use ring::digest;
use zeroize::Zeroizing;

use super::kex::SharedSecret;
use super::{KeyLens, KeyMaterial, Suite, key_lens};

/// Longest exchange hash: SHA-512's.
pub(crate) const HASH_LEN_MAX: usize = digest::SHA512_OUTPUT_LEN;

/// The hash function of a method of key exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hash {
    /// Only for methods of the legacy profile.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn context(self) -> digest::Context {
        digest::Context::new(self.algorithm())
    }
}

/// H: what both sides sign and derive from. The first of a connection is its session identifier.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct ExchangeHash {
    bytes: [u8; HASH_LEN_MAX],
    len: u8,
}

impl ExchangeHash {
    /// The hash, as long as its function makes it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.len))
            .unwrap_or(&self.bytes)
    }

    fn new(digest: &digest::Digest) -> Self {
        let mut bytes = [0; HASH_LEN_MAX];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        let len = u8::try_from(digest.as_ref().len()).expect("no hash is longer than 64 bytes");
        Self { bytes, len }
    }
}

impl fmt::Debug for ExchangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not secret, but of no use in a log at full length.
        let head = self
            .bytes
            .first_chunk::<4>()
            .map(|&head| u32::from_be_bytes(head));
        write!(f, "ExchangeHash({:08x}...)", head.unwrap_or_default())
    }
}

/// What goes into the exchange hash (RFC 5656 §4, RFC 4419 §3), whichever side makes it.
pub(crate) struct Transcript<'a> {
    pub(crate) client_identification: &'a [u8],
    pub(crate) server_identification: &'a [u8],
    /// Payload of the client's `KEXINIT`.
    pub(crate) client_kexinit: &'a [u8],
    /// Payload of the server's `KEXINIT`.
    pub(crate) server_kexinit: &'a [u8],
    pub(crate) host_key: &'a [u8],
    /// Only with group exchange.
    pub(crate) group: Option<GroupTranscript<'a>>,
    pub(crate) client_public: &'a [u8],
    pub(crate) server_public: &'a [u8],
}

/// What a group exchange adds (RFC 4419 §3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupTranscript<'a> {
    /// Fewest bits that the client takes.
    pub(crate) min: u32,
    /// Bits that the client would like.
    pub(crate) preferred: u32,
    /// Most bits that the client takes.
    pub(crate) max: u32,
    /// The modulus, as the content of an `mpint`.
    pub(crate) p: &'a [u8],
    /// The generator, as the content of an `mpint`.
    pub(crate) g: &'a [u8],
}

/// A direction of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    ClientToServer,
    ServerToClient,
}

/// What an exchange ends with: the hash, and the secret that keys are drawn from.
pub(crate) struct Agreed {
    pub(crate) hash: ExchangeHash,
    function: Hash,
    secret: SharedSecret,
}

impl Agreed {
    /// Hashes the transcript with the shared secret.
    pub(crate) fn new(function: Hash, transcript: &Transcript<'_>, secret: SharedSecret) -> Self {
        let Transcript {
            client_identification,
            server_identification,
            client_kexinit,
            server_kexinit,
            host_key,
            group,
            client_public,
            server_public,
        } = *transcript;
        let mut context = function.context();
        for part in [
            client_identification,
            server_identification,
            client_kexinit,
            server_kexinit,
            host_key,
        ] {
            string(&mut context, part);
        }
        if let Some(group) = group {
            for bits in [group.min, group.preferred, group.max] {
                context.update(&bits.to_be_bytes());
            }
            string(&mut context, group.p);
            string(&mut context, group.g);
        }
        string(&mut context, client_public);
        string(&mut context, server_public);
        context.update(secret.encoded());
        let hash = ExchangeHash::new(&context.finish());
        Self {
            hash,
            function,
            secret,
        }
    }

    /// The keys of one direction (RFC 4253 §7.2).
    pub(crate) fn key_material(
        &self,
        session_id: &ExchangeHash,
        direction: Direction,
        suite: Suite,
    ) -> KeyMaterial {
        let (iv, key, mac) = match direction {
            Direction::ClientToServer => (b'A', b'C', b'E'),
            Direction::ServerToClient => (b'B', b'D', b'F'),
        };
        let lens: KeyLens = key_lens(suite);
        KeyMaterial {
            key: self.derive(session_id, key, lens.key),
            iv: self.derive(session_id, iv, lens.iv),
            mac: self.derive(session_id, mac, lens.mac),
        }
    }

    fn derive(&self, session_id: &ExchangeHash, letter: u8, len: usize) -> Zeroizing<Vec<u8>> {
        // Room for all of it at once: a vector that grows would leave copies of the key behind.
        let mut key = Zeroizing::new(Vec::with_capacity(len + HASH_LEN_MAX));
        while key.len() < len {
            let mut context = self.function.context();
            context.update(self.secret.encoded());
            context.update(self.hash.as_bytes());
            if key.is_empty() {
                context.update(&[letter]);
                context.update(session_id.as_bytes());
            } else {
                context.update(&key);
            }
            key.extend_from_slice(context.finish().as_ref());
        }
        key.truncate(len);
        key
    }
}

/// Hashes a string of RFC 4251 §5: its length, then its bytes.
fn string(context: &mut digest::Context, part: &[u8]) {
    let len = u32::try_from(part.len()).expect("messages are shorter than 4 GiB");
    context.update(&len.to_be_bytes());
    context.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::{CipherName, Compression, MacName};

    const TRANSCRIPT: Transcript<'_> = Transcript {
        client_identification: b"SSH-2.0-a",
        server_identification: b"SSH-2.0-b",
        client_kexinit: &[20],
        server_kexinit: &[20],
        host_key: b"key",
        group: None,
        client_public: &[1; 32],
        server_public: &[2; 32],
    };

    fn agreed(function: Hash) -> Agreed {
        Agreed::new(function, &TRANSCRIPT, SharedSecret::mpint(&[0, 0x80, 1]))
    }

    #[test]
    fn long_keys_extend_short_ones() {
        let agreed = agreed(Hash::Sha256);
        let session_id = agreed.hash;
        let suite = Suite::aead;
        let direction = Direction::ClientToServer;
        let short = agreed.key_material(&session_id, direction, suite(CipherName::Aes128Gcm));
        let long = agreed.key_material(&session_id, direction, suite(CipherName::ChaCha20Poly1305));
        assert_eq!((short.key.len(), short.iv.len()), (16, 12));
        assert_eq!((long.key.len(), long.iv.len()), (64, 0));
        assert_eq!(&long.key[..16], &short.key[..]);
        // K2 = HASH(K || H || K1): the second half is not the first again.
        assert_ne!(&long.key[..32], &long.key[32..]);
        let other = agreed.key_material(
            &session_id,
            Direction::ServerToClient,
            suite(CipherName::Aes128Gcm),
        );
        assert_ne!(other.key[..], short.key[..]);
    }

    #[test]
    fn every_hash_gives_six_different_keys() {
        let suite = Suite {
            cipher: CipherName::Aes256Ctr,
            mac: Some(MacName::HmacSha512),
            compression: Compression::None,
        };
        for (function, len) in [
            (Hash::Sha1, 20),
            (Hash::Sha256, 32),
            (Hash::Sha384, 48),
            (Hash::Sha512, 64),
        ] {
            let agreed = agreed(function);
            assert_eq!(agreed.hash.as_bytes().len(), len);
            let mut keys: Vec<Vec<u8>> = Vec::new();
            for direction in [Direction::ClientToServer, Direction::ServerToClient] {
                let material = agreed.key_material(&agreed.hash, direction, suite);
                assert_eq!(
                    (material.key.len(), material.iv.len(), material.mac.len()),
                    (32, 16, 64)
                );
                for key in [material.key, material.iv, material.mac] {
                    keys.push(key[..16].to_vec());
                }
            }
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), 6, "{function:?}");
        }
    }

    #[test]
    fn a_key_is_the_hash_that_rfc_4253_section_7_2_names() {
        let agreed = agreed(Hash::Sha384);
        let hash = |parts: &[&[u8]]| digest::digest(&digest::SHA384, &parts.concat());
        let k: &[u8] = &[0, 0, 0, 3, 0, 0x80, 1];
        let h = agreed.hash.as_bytes();
        let session_id = Agreed::new(Hash::Sha1, &TRANSCRIPT, SharedSecret::mpint(&[1])).hash;
        let k1 = hash(&[k, h, b"E", session_id.as_bytes()]);
        let k2 = hash(&[k, h, k1.as_ref()]);
        let mac = agreed.derive(&session_id, b'E', 64);
        assert_eq!(mac[..], [k1.as_ref(), k2.as_ref()].concat()[..64]);
    }

    #[test]
    fn a_group_exchange_hashes_what_was_asked_and_the_group() {
        let (p, g): (&[u8], &[u8]) = (&[0, 0x87], &[2]);
        let group = GroupTranscript {
            min: 2048,
            preferred: 3072,
            max: 8192,
            p,
            g,
        };
        let transcript = Transcript {
            group: Some(group),
            ..TRANSCRIPT
        };
        let agreed = Agreed::new(Hash::Sha256, &transcript, SharedSecret::mpint(&[9]));
        let mut bytes = Vec::new();
        let mut w = ketch_wire::Writer::new(&mut bytes);
        for part in [&b"SSH-2.0-a"[..], b"SSH-2.0-b", &[20], &[20], b"key"] {
            w.string(part);
        }
        for bits in [2048, 3072, 8192] {
            w.u32(bits);
        }
        for part in [p, g, &[1; 32], &[2; 32], &[9]] {
            w.string(part);
        }
        assert_eq!(
            agreed.hash.as_bytes(),
            digest::digest(&digest::SHA256, &bytes).as_ref()
        );
    }
}
