//! HMAC (RFC 2104) over a sequence number and a packet (RFC 4253 §6.4, RFC 6668), by `ring`.
//!
//! Tags are compared whole and in constant time.

use ring::hmac;
use subtle::ConstantTimeEq;

use super::{BadTag, KeyMaterial};
use crate::algorithm::MacName;

/// An integrity key.
pub(super) struct MacKey(hmac::Key);

impl MacKey {
    pub(super) fn new(name: MacName, material: &KeyMaterial) -> Self {
        Self(hmac::Key::new(algorithm(name), &material.mac))
    }

    fn compute(&self, sequence: u32, packet: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&sequence.to_be_bytes());
        context.update(packet);
        context.sign()
    }

    /// Writes the tag; `tag` is as long as the algorithm's.
    pub(super) fn sign(&self, sequence: u32, packet: &[u8], tag: &mut [u8]) {
        tag.copy_from_slice(self.compute(sequence, packet).as_ref());
    }

    pub(super) fn verify(&self, sequence: u32, packet: &[u8], tag: &[u8]) -> Result<(), BadTag> {
        let computed = self.compute(sequence, packet);
        if bool::from(computed.as_ref().ct_eq(tag)) {
            Ok(())
        } else {
            Err(BadTag)
        }
    }

    /// Spends the time that a tag of these bytes would take.
    pub(super) fn spend(&self, bytes: &[u8]) {
        std::hint::black_box(self.compute(0, bytes));
    }

    /// Writes another key over this one, which `ring` would leave in memory.
    pub(super) fn wipe(&mut self) {
        self.0 = hmac::Key::new(self.0.algorithm(), &[]);
        std::hint::black_box(&mut self.0);
    }
}

fn algorithm(name: MacName) -> hmac::Algorithm {
    match name {
        MacName::HmacSha256 | MacName::HmacSha256Etm => hmac::HMAC_SHA256,
        MacName::HmacSha512 | MacName::HmacSha512Etm => hmac::HMAC_SHA512,
        MacName::HmacSha1 | MacName::HmacSha1Etm => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    }
}

/// Bytes of tag, never shortened.
pub(super) const fn tag_len(name: MacName) -> usize {
    match name {
        MacName::HmacSha256 | MacName::HmacSha256Etm => 32,
        MacName::HmacSha512 | MacName::HmacSha512Etm => 64,
        MacName::HmacSha1 | MacName::HmacSha1Etm => 20,
    }
}
