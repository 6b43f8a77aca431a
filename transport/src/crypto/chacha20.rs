//! ChaCha20-Poly1305 in OpenSSH's form (PROTOCOL.chacha20poly1305): lengths are encrypted with a key
//! of their own, and the packet sequence number is the nonce.

use ring::aead::chacha20_poly1305_openssh as openssh;

use super::{BadTag, KeyMaterial, LENGTH_LEN, TAG_LEN};

/// Seals packets of one direction.
pub(crate) struct SealingKey(openssh::SealingKey);

/// Opens packets of one direction.
pub(crate) struct OpeningKey(openssh::OpeningKey);

fn key(material: &KeyMaterial) -> &[u8; openssh::KEY_LEN] {
    material.key[..]
        .try_into()
        .expect("derived to the right length")
}

impl SealingKey {
    pub(super) fn new(material: &KeyMaterial) -> Self {
        Self(openssh::SealingKey::new(key(material)))
    }

    pub(super) fn seal(&self, sequence: u32, packet: &mut [u8], tag: &mut [u8]) {
        let tag = tag.try_into().expect("the shape says how long it is");
        self.0.seal_in_place(sequence, packet, tag);
    }
}

impl OpeningKey {
    pub(super) fn new(material: &KeyMaterial) -> Self {
        Self(openssh::OpeningKey::new(key(material)))
    }

    pub(super) fn packet_len(&self, sequence: u32, first: [u8; LENGTH_LEN]) -> [u8; LENGTH_LEN] {
        self.0.decrypt_packet_length(sequence, first)
    }

    pub(super) fn open<'a>(&self, sequence: u32, sealed: &'a mut [u8]) -> Result<&'a [u8], BadTag> {
        let (packet, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(BadTag)?;
        if packet.len() < LENGTH_LEN {
            return Err(BadTag); // `ring` would panic
        }
        self.0
            .open_in_place(sequence, packet, tag)
            .map_err(|_| BadTag)
    }
}

impl Drop for SealingKey {
    /// Writes another key over this one, which `ring` would leave in memory.
    fn drop(&mut self) {
        self.0 = openssh::SealingKey::new(&[0; openssh::KEY_LEN]);
        std::hint::black_box(&mut self.0);
    }
}

impl Drop for OpeningKey {
    /// Writes another key over this one, which `ring` would leave in memory.
    fn drop(&mut self) {
        self.0 = openssh::OpeningKey::new(&[0; openssh::KEY_LEN]);
        std::hint::black_box(&mut self.0);
    }
}
