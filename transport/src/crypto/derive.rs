//! The exchange hash and the keys that come from it (RFC 4253 §7.2, §8; RFC 8731 §3.1).

use ketch_wire::Writer;
use ring::digest;
use zeroize::Zeroizing;

use super::{KeyLens, KeyMaterial, Suite, key_lens};

/// Length of an exchange hash and of a session identifier made with SHA-256.
pub(crate) const HASH_LEN: usize = 32;

/// H: what both sides sign and derive from.
pub(crate) type ExchangeHash = [u8; HASH_LEN];

/// What goes into the exchange hash (RFC 5656 §4), whichever side makes it.
pub(crate) struct Transcript<'a> {
    pub(crate) client_identification: &'a [u8],
    pub(crate) server_identification: &'a [u8],
    /// Payload of the client's `KEXINIT`.
    pub(crate) client_kexinit: &'a [u8],
    /// Payload of the server's `KEXINIT`.
    pub(crate) server_kexinit: &'a [u8],
    pub(crate) host_key: &'a [u8],
    pub(crate) client_public: &'a [u8],
    pub(crate) server_public: &'a [u8],
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
    /// K as an `mpint`, its length in front.
    secret: Zeroizing<Vec<u8>>,
}

impl Agreed {
    /// Hashes the transcript with the shared secret, given as the big-endian bytes of a number.
    pub(crate) fn new(transcript: &Transcript<'_>, shared_secret: &[u8]) -> Self {
        // Room for all of it at once: a vector that grows would leave copies of the secret behind.
        let mut secret = Zeroizing::new(Vec::with_capacity(shared_secret.len() + 8));
        secret_mpint(&mut secret, shared_secret);
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [
            transcript.client_identification,
            transcript.server_identification,
            transcript.client_kexinit,
            transcript.server_kexinit,
            transcript.host_key,
            transcript.client_public,
            transcript.server_public,
        ] {
            let len = u32::try_from(part.len()).expect("messages are shorter than 4 GiB");
            context.update(&len.to_be_bytes());
            context.update(part);
        }
        context.update(&secret);
        let hash = context
            .finish()
            .as_ref()
            .try_into()
            .expect("SHA-256 has 32 bytes");
        Self { hash, secret }
    }

    /// The keys of a cipher in one direction (RFC 4253 §7.2).
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
        let mut key = Zeroizing::new(Vec::with_capacity(len + HASH_LEN));
        while key.len() < len {
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(&self.secret);
            context.update(&self.hash);
            if key.is_empty() {
                context.update(&[letter]);
                context.update(session_id);
            } else {
                context.update(&key);
            }
            key.extend_from_slice(context.finish().as_ref());
        }
        key.truncate(len);
        key
    }
}

fn secret_mpint(out: &mut Vec<u8>, shared_secret: &[u8]) {
    let zeros = shared_secret.iter().take_while(|&&byte| byte == 0).count();
    let magnitude = &shared_secret[zeros..];
    let pad = usize::from(magnitude.first().is_some_and(|&byte| byte >= 0x80));
    let mut w = Writer::new(out);
    w.u32(u32::try_from(magnitude.len() + pad).expect("a secret is short"));
    if pad == 1 {
        w.u8(0);
    }
    w.bytes(magnitude);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::CipherName;

    #[test]
    fn long_keys_extend_short_ones() {
        let transcript = Transcript {
            client_identification: b"SSH-2.0-a",
            server_identification: b"SSH-2.0-b",
            client_kexinit: &[20],
            server_kexinit: &[20],
            host_key: b"key",
            client_public: &[1; 32],
            server_public: &[2; 32],
        };
        let agreed = Agreed::new(&transcript, &[0, 0x80, 1]);
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
    fn a_secret_with_a_high_bit_keeps_its_sign() {
        let mut out = Vec::new();
        secret_mpint(&mut out, &[0, 0x80]);
        assert_eq!(out, [0, 0, 0, 2, 0, 0x80]);
    }
}
