//! A cipher and a MAC beside it (RFC 4253 §6.3, §6.4), in the two orders that there are.
//!
//! **Encrypt then MAC** (OpenSSH PROTOCOL §1.6): the length stays in clear, the tag is that of the
//! encrypted packet and is checked before anything is decrypted. **Encrypt and MAC** (RFC 4253): the
//! length is encrypted too and the tag is that of the plain packet, so a first block has to be
//! decrypted, and believed for a while, to know where the tag is. The receiver hides what it made of
//! it (CVE-2008-5161): see [`Opening::hides_failures`](super::Opening::hides_failures).

use zeroize::Zeroize;

use super::cbc::{CbcOpening, CbcSealing, DES_BLOCK_LEN};
use super::ctr::{BLOCK_LEN, CtrStream};
use super::mac::{MacKey, tag_len};
use super::{BadTag, KeyMaterial, LENGTH_LEN, Shape, Suite, key_lens};
use crate::algorithm::{CipherName, MacName};

/// Seals packets of one direction.
pub(crate) struct SealingPair {
    name: CipherName,
    cipher: SealingCipher,
    mac: MacKey,
    order: Order,
    shape: Shape,
}

/// Opens packets of one direction.
pub(crate) struct OpeningPair {
    name: CipherName,
    cipher: OpeningCipher,
    mac: MacKey,
    order: Order,
    shape: Shape,
    /// The first block of the packet that is being waited for, decrypted: the stream moves on with
    /// each block, so none may be decrypted twice.
    first: Option<[u8; BLOCK_LEN]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    EncryptThenMac,
    EncryptAndMac,
}

enum SealingCipher {
    Ctr(CtrStream),
    Cbc(CbcSealing),
}

enum OpeningCipher {
    Ctr(CtrStream),
    Cbc(CbcOpening),
}

impl SealingCipher {
    fn new(cipher: CipherName, material: &KeyMaterial) -> Self {
        if cipher.is_cbc() {
            Self::Cbc(CbcSealing::new(cipher, material))
        } else {
            Self::Ctr(CtrStream::new(material))
        }
    }
}

impl OpeningCipher {
    fn new(cipher: CipherName, material: &KeyMaterial) -> Self {
        if cipher.is_cbc() {
            Self::Cbc(CbcOpening::new(cipher, material))
        } else {
            Self::Ctr(CtrStream::new(material))
        }
    }
}

/// Key material of zeros. The ciphers wipe themselves, yet only the part of their schedules that is
/// in use; writing another key over the whole leaves nothing that was moved here beside it.
fn dummy(cipher: CipherName) -> KeyMaterial {
    let lens = key_lens(Suite::aead(cipher));
    KeyMaterial {
        key: vec![0; lens.key].into(),
        iv: vec![0; lens.iv].into(),
        mac: Vec::new().into(),
    }
}

const fn order(mac: MacName) -> Order {
    if mac.is_etm() {
        Order::EncryptThenMac
    } else {
        Order::EncryptAndMac
    }
}

const fn shape(cipher: CipherName, mac: MacName) -> Shape {
    Shape {
        block: match cipher {
            CipherName::TripleDesCbc => DES_BLOCK_LEN,
            _ => BLOCK_LEN,
        },
        length_is_padded: !mac.is_etm(),
        tag: tag_len(mac),
    }
}

impl SealingPair {
    pub(super) fn new(cipher: CipherName, mac: MacName, material: &KeyMaterial) -> Self {
        Self {
            name: cipher,
            cipher: SealingCipher::new(cipher, material),
            mac: MacKey::new(mac, material),
            order: order(mac),
            shape: shape(cipher, mac),
        }
    }

    pub(super) const fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) const fn cipher(&self) -> CipherName {
        self.name
    }

    fn encrypt(&mut self, bytes: &mut [u8]) {
        match &mut self.cipher {
            SealingCipher::Ctr(stream) => stream.apply(bytes),
            SealingCipher::Cbc(cbc) => cbc.apply(bytes),
        }
    }

    pub(super) fn seal(&mut self, sequence: u32, packet: &mut [u8], tag: &mut [u8]) {
        match self.order {
            Order::EncryptThenMac => {
                self.encrypt(&mut packet[LENGTH_LEN..]);
                self.mac.sign(sequence, packet, tag);
            }
            Order::EncryptAndMac => {
                self.mac.sign(sequence, packet, tag);
                self.encrypt(packet);
            }
        }
    }
}

impl Drop for SealingPair {
    fn drop(&mut self) {
        self.cipher = SealingCipher::new(self.name, &dummy(self.name));
        std::hint::black_box(&mut self.cipher);
        self.mac.wipe();
        super::wipe_stack(); // where the ciphers work
    }
}

impl OpeningPair {
    pub(super) fn new(cipher: CipherName, mac: MacName, material: &KeyMaterial) -> Self {
        Self {
            name: cipher,
            cipher: OpeningCipher::new(cipher, material),
            mac: MacKey::new(mac, material),
            order: order(mac),
            shape: shape(cipher, mac),
            first: None,
        }
    }

    pub(super) const fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) const fn cipher(&self) -> CipherName {
        self.name
    }

    pub(super) const fn hides_failures(&self) -> bool {
        matches!(self.order, Order::EncryptAndMac)
    }

    fn decrypt(&mut self, bytes: &mut [u8]) {
        match &mut self.cipher {
            OpeningCipher::Ctr(stream) => stream.apply(bytes),
            OpeningCipher::Cbc(cbc) => cbc.apply(bytes),
        }
    }

    /// The length that the packet at the front of `bytes` names; `None` if too little is there.
    pub(super) fn packet_len(&mut self, bytes: &[u8]) -> Option<[u8; LENGTH_LEN]> {
        if self.order == Order::EncryptThenMac {
            return bytes.first_chunk().copied();
        }
        if self.first.is_none() {
            let mut first = [0; BLOCK_LEN];
            let block = &mut first[..self.shape.block];
            block.copy_from_slice(bytes.get(..block.len())?);
            self.decrypt(block);
            self.first = Some(first);
        }
        self.first.as_ref()?.first_chunk().copied()
    }

    pub(super) fn open<'a>(
        &mut self,
        sequence: u32,
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], BadTag> {
        let whole = sealed.len().checked_sub(self.shape.tag).ok_or(BadTag)?;
        let (packet, tag) = sealed.split_at_mut(whole);
        match self.order {
            Order::EncryptThenMac => {
                self.mac.verify(sequence, packet, tag)?;
                let body = packet.get_mut(LENGTH_LEN..).ok_or(BadTag)?;
                self.decrypt(body);
                Ok(body)
            }
            Order::EncryptAndMac => {
                let mut first = self.first.take().ok_or(BadTag)?;
                let (block, rest) = packet
                    .split_at_mut_checked(self.shape.block)
                    .ok_or(BadTag)?;
                block.copy_from_slice(&first[..block.len()]);
                first.zeroize();
                self.decrypt(rest);
                match self.mac.verify(sequence, packet, tag) {
                    Ok(()) => packet.get(LENGTH_LEN..).ok_or(BadTag),
                    Err(BadTag) => {
                        packet.zeroize(); // nobody may look at what is not authentic
                        Err(BadTag)
                    }
                }
            }
        }
    }

    /// Spends the time that a tag of these bytes would take.
    pub(super) fn spend(&self, bytes: &[u8]) {
        self.mac.spend(bytes);
    }
}

impl Drop for OpeningPair {
    fn drop(&mut self) {
        self.first.zeroize();
        self.cipher = OpeningCipher::new(self.name, &dummy(self.name));
        std::hint::black_box(&mut self.cipher);
        self.mac.wipe();
        super::wipe_stack(); // where the ciphers work
    }
}
