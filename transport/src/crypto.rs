//! The only place that names a cryptography crate: ciphers, key agreement, signatures, derivation.
//!
//! Everything here is a small enum or struct around [`ring`] or [`x25519_dalek`]; state machines see
//! `Opening`, `Sealing`, `ClientShare`, [`PublicKey`](ketch_keys::PublicKey) and
//! [`Random`], never a crate's types.

use std::fmt;

use crate::algorithm::{CipherName, Compression, MacName};

mod cbc;
mod chacha20;
mod composed;
mod ctr;
pub(crate) mod derive;
mod gcm;
pub(crate) mod kex;
mod mac;
#[cfg(test)]
mod vectors;

/// Length of the tag behind a packet under the ciphers that make one themselves.
const TAG_LEN: usize = 16;
/// Length of `packet_length` in front of a packet (RFC 4253 §6).
pub(crate) const LENGTH_LEN: usize = 4;

/// A packet's tag is wrong: its bytes were changed on the way, or the keys differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadTag;

/// Where unpredictable bytes come from: passed into every machine, so that tests can fix them.
pub trait Random: Send {
    /// Fills `out` with unpredictable bytes.
    ///
    /// # Errors
    /// [`RandomFailed`] if the system has none; then no key may be made.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed>;
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RandomFailed;

impl fmt::Display for RandomFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system's random number generator failed")
    }
}

impl std::error::Error for RandomFailed {}

/// The operating system's generator, through `ring`.
#[derive(Debug)]
pub struct SystemRandom(ring::rand::SystemRandom);

impl SystemRandom {
    /// A handle on the system's generator.
    #[must_use]
    pub fn new() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Default for SystemRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
        ring::rand::SecureRandom::fill(&self.0, out).map_err(|_| RandomFailed)
    }
}

/// What the packets of one direction go through.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Suite {
    /// Keeps them secret.
    pub cipher: CipherName,
    /// Keeps them whole; `None` with a cipher that does it itself.
    pub mac: Option<MacName>,
    /// Makes them short, once somebody is logged in.
    pub compression: Compression,
}

impl Suite {
    /// A cipher that needs no MAC, without compression.
    #[must_use]
    pub const fn aead(cipher: CipherName) -> Self {
        Self {
            cipher,
            mac: None,
            compression: Compression::None,
        }
    }

    /// Every pair of a cipher and a MAC that there is, without compression.
    pub fn every() -> impl Iterator<Item = Self> {
        CipherName::ALL.iter().flat_map(|&cipher| {
            let macs = if cipher.is_aead() { &[] } else { MacName::ALL };
            let alone = cipher.is_aead().then_some(None);
            alone
                .into_iter()
                .chain(macs.iter().copied().map(Some))
                .map(move |mac| Self {
                    cipher,
                    mac,
                    compression: Compression::None,
                })
        })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mac {
            None => self.cipher.fmt(f),
            Some(mac) => write!(f, "{} {mac}", self.cipher),
        }
    }
}

/// Key material of one direction, in the order of RFC 4253 §7.2; [`key_lens`] says how much.
pub(crate) struct KeyMaterial {
    /// Encryption key.
    pub(crate) key: zeroize::Zeroizing<Vec<u8>>,
    /// Initial IV.
    pub(crate) iv: zeroize::Zeroizing<Vec<u8>>,
    /// Integrity key, empty without a MAC.
    pub(crate) mac: zeroize::Zeroizing<Vec<u8>>,
}

/// Bytes of key material that a suite needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct KeyLens {
    pub(crate) key: usize,
    pub(crate) iv: usize,
    pub(crate) mac: usize,
}

/// Bytes of key material that a suite needs.
pub(crate) const fn key_lens(suite: Suite) -> KeyLens {
    use CipherName as C;
    let (key, iv) = match suite.cipher {
        C::Aes128Gcm => (16, 12),
        C::Aes256Gcm => (32, 12),
        C::ChaCha20Poly1305 => (64, 0),
        C::Aes128Ctr | C::Aes128Cbc => (16, 16),
        C::Aes192Ctr | C::Aes192Cbc => (24, 16),
        C::Aes256Ctr | C::Aes256Cbc => (32, 16),
        C::TripleDesCbc => (24, 8),
    };
    let mac = match suite.mac {
        None => 0,
        Some(MacName::HmacSha256 | MacName::HmacSha256Etm) => 32,
        Some(MacName::HmacSha512 | MacName::HmacSha512Etm) => 64,
        Some(MacName::HmacSha1 | MacName::HmacSha1Etm) => 20,
    };
    KeyLens { key, iv, mac }
}

/// Bytes that may go under one set of keys before it is exchanged (RFC 4344 §3.2, RFC 5647).
const fn rekey_bytes(cipher: CipherName) -> u64 {
    match cipher {
        CipherName::Aes128Gcm
        | CipherName::Aes256Gcm
        | CipherName::Aes128Ctr
        | CipherName::Aes192Ctr
        | CipherName::Aes256Ctr => 64 << 30,
        // Also for CBC, whose blocks of 8 or 16 bytes collide the sooner.
        _ => 1 << 30,
    }
}

/// How the bytes of a packet are laid out under a cipher (RFC 4253 §6).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// What the padded part is a multiple of.
    pub(crate) block: usize,
    /// Whether `packet_length` counts towards that multiple.
    pub(crate) length_is_padded: bool,
    /// Bytes of tag behind the packet.
    pub(crate) tag: usize,
}

/// Seals outgoing packets.
///
/// Each key has one place in the heap, where it is overwritten before it is released: moving a
/// connection moves no key, and leaves none behind.
pub(crate) enum Sealing {
    /// Before the first keys: as they are.
    Clear,
    /// AES-GCM.
    Gcm(Box<gcm::GcmKey>),
    /// ChaCha20-Poly1305.
    ChaCha20(Box<chacha20::SealingKey>),
    /// A cipher and a MAC.
    Composed(Box<composed::SealingPair>),
}

/// Opens incoming packets. Keys have one place, as in [`Sealing`].
pub(crate) enum Opening {
    /// Before the first keys: as they are.
    Clear,
    /// AES-GCM.
    Gcm(Box<gcm::GcmKey>),
    /// ChaCha20-Poly1305.
    ChaCha20(Box<chacha20::OpeningKey>),
    /// A cipher and a MAC.
    Composed(Box<composed::OpeningPair>),
}

/// Bytes of stack that making a key leaves traces in, with room to spare: schedules have up to 1 KiB
/// and are moved a few times on their way to the heap.
const TRACES_LEN: usize = 16 * 1024;

/// Writes over the part of the stack that the last call used.
#[inline(never)]
fn wipe_stack() {
    let mut traces = [0_u8; TRACES_LEN];
    std::hint::black_box(&mut traces);
}

const CLEAR_SHAPE: Shape = Shape {
    block: 8,
    length_is_padded: true,
    tag: 0,
};
const GCM_SHAPE: Shape = Shape {
    block: 16,
    length_is_padded: false,
    tag: TAG_LEN,
};
const CHACHA20_SHAPE: Shape = Shape {
    block: 8,
    length_is_padded: false,
    tag: TAG_LEN,
};

impl Sealing {
    pub(crate) fn new(suite: Suite, material: &KeyMaterial) -> Self {
        wipe_stack(); // a key's place has gaps, into which what lies here is moved
        let new = Self::with_traces(suite, material);
        wipe_stack();
        new
    }

    /// Leaves traces of the key on the stack.
    #[inline(never)]
    fn with_traces(suite: Suite, material: &KeyMaterial) -> Self {
        match suite.cipher {
            CipherName::Aes128Gcm | CipherName::Aes256Gcm => {
                Self::Gcm(Box::new(gcm::GcmKey::new(suite.cipher, material)))
            }
            CipherName::ChaCha20Poly1305 => {
                Self::ChaCha20(Box::new(chacha20::SealingKey::new(material)))
            }
            cipher => {
                let mac = suite.mac.expect("no other cipher goes without a MAC");
                Self::Composed(Box::new(composed::SealingPair::new(cipher, mac, material)))
            }
        }
    }

    pub(crate) const fn shape(&self) -> Shape {
        match self {
            Self::Clear => CLEAR_SHAPE,
            Self::Gcm(_) => GCM_SHAPE,
            Self::ChaCha20(_) => CHACHA20_SHAPE,
            Self::Composed(pair) => pair.shape(),
        }
    }

    /// Seals a packet in place: `packet` starts with its length and ends before its tag, for which
    /// `tag` is the place.
    #[inline]
    pub(crate) fn seal(&mut self, sequence: u32, packet: &mut [u8], tag: &mut [u8]) {
        match self {
            Self::Clear => {}
            Self::Gcm(key) => key.seal(packet, tag),
            Self::ChaCha20(key) => key.seal(sequence, packet, tag),
            Self::Composed(pair) => pair.seal(sequence, packet, tag),
        }
    }

    /// Bytes after which these keys should be exchanged.
    pub(crate) const fn rekey_bytes(&self) -> u64 {
        match self {
            Self::Clear => u64::MAX,
            Self::Gcm(_) => rekey_bytes(CipherName::Aes256Gcm),
            Self::ChaCha20(_) => rekey_bytes(CipherName::ChaCha20Poly1305),
            Self::Composed(pair) => rekey_bytes(pair.cipher()),
        }
    }

    /// Bytes after which nothing goes under these keys any more: a peer that lets the exchange wait
    /// gets as much again as it takes to want one.
    pub(crate) const fn bytes_max(&self) -> u64 {
        self.rekey_bytes().saturating_mul(2)
    }
}

impl Opening {
    pub(crate) fn new(suite: Suite, material: &KeyMaterial) -> Self {
        wipe_stack(); // a key's place has gaps, into which what lies here is moved
        let new = Self::with_traces(suite, material);
        wipe_stack();
        new
    }

    /// Leaves traces of the key on the stack.
    #[inline(never)]
    fn with_traces(suite: Suite, material: &KeyMaterial) -> Self {
        match suite.cipher {
            CipherName::Aes128Gcm | CipherName::Aes256Gcm => {
                Self::Gcm(Box::new(gcm::GcmKey::new(suite.cipher, material)))
            }
            CipherName::ChaCha20Poly1305 => {
                Self::ChaCha20(Box::new(chacha20::OpeningKey::new(material)))
            }
            cipher => {
                let mac = suite.mac.expect("no other cipher goes without a MAC");
                Self::Composed(Box::new(composed::OpeningPair::new(cipher, mac, material)))
            }
        }
    }

    pub(crate) const fn shape(&self) -> Shape {
        match self {
            Self::Clear => CLEAR_SHAPE,
            Self::Gcm(_) => GCM_SHAPE,
            Self::ChaCha20(_) => CHACHA20_SHAPE,
            Self::Composed(pair) => pair.shape(),
        }
    }

    /// The length that the packet at the front of `bytes` names, before it is known to be
    /// authentic; `None` if too few bytes are there to know.
    #[inline]
    pub(crate) fn packet_len(&mut self, sequence: u32, bytes: &[u8]) -> Option<u32> {
        Some(u32::from_be_bytes(match self {
            Self::Clear | Self::Gcm(_) => *bytes.first_chunk()?,
            Self::ChaCha20(key) => key.packet_len(sequence, *bytes.first_chunk()?),
            Self::Composed(pair) => pair.packet_len(bytes)?,
        }))
    }

    /// Whether the length is encrypted and believed before the tag is seen: then nobody may learn
    /// from when or how the connection ends what the length was (CVE-2008-5161).
    pub(crate) const fn hides_failures(&self) -> bool {
        match self {
            Self::Composed(pair) => pair.hides_failures(),
            _ => false,
        }
    }

    /// Spends the time that checking these bytes would take, for a packet that has failed.
    pub(crate) fn spend(&self, bytes: &[u8]) {
        if let Self::Composed(pair) = self {
            pair.spend(bytes);
        }
    }

    /// Opens a packet in place: `sealed` starts with its length and ends with its tag. Returns the
    /// part between: padding length, payload and padding.
    pub(crate) fn open<'a>(
        &mut self,
        sequence: u32,
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], BadTag> {
        match self {
            Self::Clear => sealed.get(LENGTH_LEN..).ok_or(BadTag),
            Self::Gcm(key) => key.open(sealed),
            Self::ChaCha20(key) => key.open(sequence, sealed),
            Self::Composed(pair) => pair.open(sequence, sealed),
        }
    }

    /// Bytes after which these keys should be exchanged.
    pub(crate) const fn rekey_bytes(&self) -> u64 {
        match self {
            Self::Clear => u64::MAX,
            Self::Gcm(_) => rekey_bytes(CipherName::Aes256Gcm),
            Self::ChaCha20(_) => rekey_bytes(CipherName::ChaCha20Poly1305),
            Self::Composed(pair) => rekey_bytes(pair.cipher()),
        }
    }

    /// Bytes after which nothing goes under these keys any more: a peer that lets the exchange wait
    /// gets as much again as it takes to want one.
    pub(crate) const fn bytes_max(&self) -> u64 {
        self.rekey_bytes().saturating_mul(2)
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealing")
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material(cipher: CipherName) -> KeyMaterial {
        KeyMaterial {
            key: (0..key_lens(Suite::aead(cipher)).key)
                .map(|i| u8::try_from(i).unwrap())
                .collect::<Vec<_>>()
                .into(),
            iv: vec![7; key_lens(Suite::aead(cipher)).iv].into(),
            mac: Vec::new().into(),
        }
    }

    fn sealed(cipher: CipherName, sequence: u32) -> (Vec<u8>, Vec<u8>) {
        let mut sealing = Sealing::new(Suite::aead(cipher), &material(cipher));
        let mut packet = vec![0, 0, 0, 32];
        packet.extend((0..32).map(|i| i * 3));
        let plain = packet[4..].to_vec();
        let mut tag = [0; TAG_LEN];
        sealing.seal(sequence, &mut packet, &mut tag);
        packet.extend_from_slice(&tag);
        (packet, plain)
    }

    #[test]
    fn what_is_sealed_opens() {
        for &cipher in CipherName::AEAD {
            let (mut packet, plain) = sealed(cipher, 5);
            let mut opening = Opening::new(Suite::aead(cipher), &material(cipher));
            let first: [u8; 4] = *packet.first_chunk().unwrap();
            assert_eq!(opening.packet_len(5, &first), Some(32));
            assert_eq!(opening.open(5, &mut packet), Ok(&plain[..]), "{cipher}");
        }
    }

    #[test]
    fn every_flipped_bit_is_refused_and_no_plaintext_is_left() {
        for &cipher in CipherName::AEAD {
            let (packet, plain) = sealed(cipher, 5);
            for bit in 0..packet.len() * 8 {
                let mut packet = packet.clone();
                packet[bit / 8] ^= 1 << (bit % 8);
                let mut opening = Opening::new(Suite::aead(cipher), &material(cipher));
                assert_eq!(
                    opening.open(5, &mut packet),
                    Err(BadTag),
                    "{cipher}, bit {bit}"
                );
                assert!(
                    !packet
                        .windows(8)
                        .any(|seen| plain.windows(8).any(|part| part == seen))
                );
            }
        }
    }

    #[test]
    fn ring_and_aes_gcm_agree() {
        use aes_gcm::aead::{AeadInOut, KeyInit};
        let cipher = CipherName::Aes256Gcm;
        let (packet, plain) = sealed(cipher, 0);
        let key = material(cipher);
        let other = aes_gcm::Aes256Gcm::new_from_slice(&key.key).unwrap();
        let mut body = plain;
        let nonce: [u8; 12] = key.iv[..].try_into().unwrap();
        let tag = other
            .encrypt_inout_detached(&nonce.into(), &packet[..4], (&mut body[..]).into())
            .unwrap();
        assert_eq!(&packet[4..36], &body[..]);
        assert_eq!(&packet[36..], &tag[..]);
    }
}
