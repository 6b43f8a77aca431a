//! AES in counter mode (RFC 4344 §4): a key stream that runs on from packet to packet.
//!
//! The `aes` crate computes several blocks at a time where the processor has instructions for AES.

use aes::cipher::{KeyIvInit, StreamCipher};
use aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use ctr::Ctr128BE;

use super::KeyMaterial;

/// Block of AES, to which packets are padded.
pub(super) const BLOCK_LEN: usize = 16;

/// The key stream of one direction: it seals and opens, which is the same in this mode.
///
/// The key schedule and the counter are wiped when it is dropped.
pub(super) enum CtrStream {
    Aes128(Ctr128BE<Aes128Enc>),
    Aes192(Ctr128BE<Aes192Enc>),
    Aes256(Ctr128BE<Aes256Enc>),
}

impl CtrStream {
    /// The length of the key says which AES it is.
    pub(super) fn new(material: &KeyMaterial) -> Self {
        fn stream<C: KeyIvInit>(material: &KeyMaterial) -> C {
            C::new_from_slices(&material.key, &material.iv).expect("derived to the right length")
        }
        match material.key.len() {
            16 => Self::Aes128(stream(material)),
            24 => Self::Aes192(stream(material)),
            _ => Self::Aes256(stream(material)),
        }
    }

    /// Encrypts or decrypts the next bytes of the stream, whole blocks of them.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        match self {
            Self::Aes128(stream) => stream.apply_keystream(bytes),
            Self::Aes192(stream) => stream.apply_keystream(bytes),
            Self::Aes256(stream) => stream.apply_keystream(bytes),
        }
    }
}
