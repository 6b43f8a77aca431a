//! AES-GCM as `aes128-gcm@openssh.com` and `aes256-gcm@openssh.com` use it (RFC 5647 §7).
//!
//! The length of a packet stays in clear and is authenticated; the nonce is four fixed bytes and a
//! counter that starts where key derivation says and goes up by one for each packet.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{BadTag, KeyMaterial, LENGTH_LEN};
use crate::algorithm::CipherName;

/// A key and the nonce of the next packet, for one direction.
pub(crate) struct GcmKey {
    key: LessSafeKey,
    fixed: [u8; 4],
    counter: u64,
}

impl GcmKey {
    pub(super) fn new(cipher: CipherName, material: &KeyMaterial) -> Self {
        let algorithm = if cipher == CipherName::Aes128Gcm {
            &AES_128_GCM
        } else {
            &AES_256_GCM
        };
        let key = UnboundKey::new(algorithm, &material.key).expect("derived to the right length");
        let iv: [u8; 12] = material.iv[..]
            .try_into()
            .expect("derived to the right length");
        let [f0, f1, f2, f3, counter @ ..] = iv;
        Self {
            key: LessSafeKey::new(key),
            fixed: [f0, f1, f2, f3],
            counter: u64::from_be_bytes(counter),
        }
    }

    /// The nonce of this packet; the counter moves on. It starts at a random value and wraps, so
    /// that it repeats only after 2^64 packets, and keys are exchanged at 2^31 (RFC 5647 §7.1).
    pub(super) fn next_nonce(&mut self) -> Nonce {
        let [f0, f1, f2, f3] = self.fixed;
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_be_bytes();
        self.counter = self.counter.wrapping_add(1);
        Nonce::assume_unique_for_key([f0, f1, f2, f3, c0, c1, c2, c3, c4, c5, c6, c7])
    }

    pub(super) fn seal(&mut self, packet: &mut [u8], tag: &mut [u8]) {
        let nonce = self.next_nonce();
        let (length, body) = packet
            .split_first_chunk_mut::<LENGTH_LEN>()
            .expect("a packet starts with its length");
        let sealed = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(*length), body)
            .expect("a packet is shorter than GCM's limit");
        tag.copy_from_slice(sealed.as_ref());
    }

    pub(super) fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<&'a [u8], BadTag> {
        let nonce = self.next_nonce();
        let (length, body) = sealed.split_first_chunk_mut::<LENGTH_LEN>().ok_or(BadTag)?;
        self.key
            .open_in_place(nonce, Aad::from(*length), body)
            .map(|plain| &*plain)
            .map_err(|_| BadTag)
    }
}

impl Drop for GcmKey {
    /// Writes another key over this one, which `ring` would leave in memory.
    fn drop(&mut self) {
        let dummy = UnboundKey::new(&AES_256_GCM, &[0; 32]).expect("it is 32 bytes long");
        self.key = LessSafeKey::new(dummy);
        std::hint::black_box(&mut self.key);
    }
}
