//! AES and triple DES in CBC mode (RFC 4253 §6.3), for old partners: each packet is chained to the
//! last block of the one before.

use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use aes::{Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc};
use des::TdesEde3;

use super::KeyMaterial;
use crate::algorithm::CipherName;

/// Block of triple DES.
pub(super) const DES_BLOCK_LEN: usize = 8;

/// Encrypts one direction. Key schedule and chain are wiped when it is dropped.
pub(super) enum CbcSealing {
    Aes128(cbc::Encryptor<Aes128Enc>),
    Aes192(cbc::Encryptor<Aes192Enc>),
    Aes256(cbc::Encryptor<Aes256Enc>),
    TripleDes(cbc::Encryptor<TdesEde3>),
}

/// Decrypts one direction. Key schedule and chain are wiped when it is dropped.
pub(super) enum CbcOpening {
    Aes128(cbc::Decryptor<Aes128Dec>),
    Aes192(cbc::Decryptor<Aes192Dec>),
    Aes256(cbc::Decryptor<Aes256Dec>),
    TripleDes(cbc::Decryptor<TdesEde3>),
}

fn keyed<C: KeyIvInit>(material: &KeyMaterial) -> C {
    C::new_from_slices(&material.key, &material.iv).expect("derived to the right length")
}

impl CbcSealing {
    pub(super) fn new(cipher: CipherName, material: &KeyMaterial) -> Self {
        match (cipher, material.key.len()) {
            (CipherName::TripleDesCbc, _) => Self::TripleDes(keyed(material)),
            (_, 16) => Self::Aes128(keyed(material)),
            (_, 24) => Self::Aes192(keyed(material)),
            _ => Self::Aes256(keyed(material)),
        }
    }

    /// Encrypts the next bytes, whole blocks of them.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        match self {
            Self::Aes128(cbc) => cbc.encrypt_blocks(blocks(bytes)),
            Self::Aes192(cbc) => cbc.encrypt_blocks(blocks(bytes)),
            Self::Aes256(cbc) => cbc.encrypt_blocks(blocks(bytes)),
            Self::TripleDes(cbc) => cbc.encrypt_blocks(blocks(bytes)),
        }
    }
}

impl CbcOpening {
    pub(super) fn new(cipher: CipherName, material: &KeyMaterial) -> Self {
        match (cipher, material.key.len()) {
            (CipherName::TripleDesCbc, _) => Self::TripleDes(keyed(material)),
            (_, 16) => Self::Aes128(keyed(material)),
            (_, 24) => Self::Aes192(keyed(material)),
            _ => Self::Aes256(keyed(material)),
        }
    }

    /// Decrypts the next bytes, whole blocks of them.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        match self {
            Self::Aes128(cbc) => cbc.decrypt_blocks(blocks(bytes)),
            Self::Aes192(cbc) => cbc.decrypt_blocks(blocks(bytes)),
            Self::Aes256(cbc) => cbc.decrypt_blocks(blocks(bytes)),
            Self::TripleDes(cbc) => cbc.decrypt_blocks(blocks(bytes)),
        }
    }
}

/// The blocks that a packet is padded to.
fn blocks<N: aes::cipher::array::ArraySize>(bytes: &mut [u8]) -> &mut [Array<u8, N>] {
    let (blocks, rest) = Array::slice_as_chunks_mut(bytes);
    debug_assert!(rest.is_empty(), "packets are padded to whole blocks");
    blocks
}
