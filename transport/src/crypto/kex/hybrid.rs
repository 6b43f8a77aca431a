//! A key encapsulation that a quantum computer should not break, beside X25519
//! (draft-ietf-sshm-mlkem-hybrid-kex, draft-ietf-sshm-ntruprime-ssh).
//!
//! The client sends an encapsulation key and an X25519 value as one string, the server answers with
//! a ciphertext and an X25519 value as one string. K is the hash of both secrets, the quantum-safe
//! one first, and stands in the exchange hash as a string: an attacker has to break both.

use ml_kem::{Decapsulate as _, KeyExport as _, ml_kem_768};
use ring::digest;
use zeroize::Zeroizing;

use super::{BadPublicValue, RespondError, Response, SharedSecret, sntrup761, x25519};
use crate::crypto::{Random, RandomFailed};

/// Length of the secret of either encapsulation.
const SECRET_LEN: usize = 32;

/// A key encapsulation mechanism that goes beside X25519.
pub(super) trait Kem {
    /// What makes K of both secrets.
    fn hash() -> &'static digest::Algorithm;
    /// Length of an encapsulation key.
    const KEY_LEN: usize;
    /// Length of a ciphertext.
    const CIPHERTEXT_LEN: usize;
    /// What opens a ciphertext; wiped when dropped.
    type Secret;
    /// A new secret and its encapsulation key.
    fn generate(random: &mut dyn Random) -> Result<(Self::Secret, Vec<u8>), RandomFailed>;
    /// A ciphertext for a key, and the secret in it.
    fn encapsulate(
        key: &[u8],
        random: &mut dyn Random,
    ) -> Result<(Vec<u8>, Zeroizing<[u8; SECRET_LEN]>), RespondError>;
    /// The secret in a ciphertext. A ciphertext that was not made for this key has a secret that
    /// nobody knows.
    fn decapsulate(
        secret: &Self::Secret,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<[u8; SECRET_LEN]>, BadPublicValue>;
}

/// The client's secrets for one exchange.
pub(super) struct Hybrid<K: Kem> {
    kem: Box<K::Secret>,
    classic: x25519::Secret,
    public: Vec<u8>,
}

impl<K: Kem> Hybrid<K> {
    pub(super) fn generate(random: &mut dyn Random) -> Result<Self, RandomFailed> {
        let (kem, mut public) = K::generate(random)?;
        let classic = x25519::Secret::generate(random)?;
        public.extend_from_slice(classic.public());
        Ok(Self {
            kem: Box::new(kem),
            classic,
            public,
        })
    }

    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    pub(super) fn agree(self, server_public: &[u8]) -> Result<SharedSecret, BadPublicValue> {
        let (ciphertext, theirs) = split(server_public, K::CIPHERTEXT_LEN)?;
        let classic = self.classic.agree(theirs)?;
        let secret = K::decapsulate(&self.kem, ciphertext)?;
        Ok(combine::<K>(&secret, &classic))
    }
}

/// The server's half.
pub(super) fn respond<K: Kem>(
    client_public: &[u8],
    random: &mut dyn Random,
) -> Result<Response, RespondError> {
    let (key, theirs) = split(client_public, K::KEY_LEN)?;
    let (mut public, secret) = K::encapsulate(key, random)?;
    let classic = x25519::Secret::generate(random)?;
    public.extend_from_slice(classic.public());
    let classic = classic.agree(theirs)?;
    Ok(Response {
        public,
        secret: combine::<K>(&secret, &classic),
    })
}

/// Parts the two values that stand in one string; both have a fixed length.
fn split(both: &[u8], len: usize) -> Result<(&[u8], &[u8]), BadPublicValue> {
    let (first, rest) = both.split_at_checked(len).ok_or(BadPublicValue)?;
    if rest.len() == x25519::PUBLIC_LEN {
        Ok((first, rest))
    } else {
        Err(BadPublicValue)
    }
}

fn combine<K: Kem>(secret: &[u8; SECRET_LEN], classic: &[u8; 32]) -> SharedSecret {
    let mut context = digest::Context::new(K::hash());
    context.update(secret);
    context.update(classic);
    SharedSecret::string(context.finish().as_ref())
}

/// ML-KEM-768 (FIPS 203).
pub(super) enum MlKem768 {}

impl Kem for MlKem768 {
    fn hash() -> &'static digest::Algorithm {
        &digest::SHA256
    }

    const KEY_LEN: usize = 1184;
    const CIPHERTEXT_LEN: usize = 1088;

    type Secret = ml_kem_768::DecapsulationKey;

    fn generate(random: &mut dyn Random) -> Result<(Self::Secret, Vec<u8>), RandomFailed> {
        let mut seed = Zeroizing::new([0; 64]);
        random.fill(&mut *seed)?;
        let secret = ml_kem_768::DecapsulationKey::from_seed((*seed).into());
        let key = secret.encapsulation_key().to_bytes().to_vec();
        Ok((secret, key))
    }

    fn encapsulate(
        key: &[u8],
        random: &mut dyn Random,
    ) -> Result<(Vec<u8>, Zeroizing<[u8; SECRET_LEN]>), RespondError> {
        let key = key.try_into().map_err(|_| BadPublicValue)?;
        // Coefficients that are not below the modulus are refused here (FIPS 203 §7.2).
        let key = ml_kem_768::EncapsulationKey::new(&key).map_err(|_| BadPublicValue)?;
        let mut message = Zeroizing::new([0; 32]);
        random.fill(&mut *message)?;
        let (ciphertext, secret) = key.encapsulate_deterministic(&(*message).into());
        Ok((ciphertext.to_vec(), Zeroizing::new(secret.into())))
    }

    fn decapsulate(
        secret: &Self::Secret,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<[u8; SECRET_LEN]>, BadPublicValue> {
        let secret = secret
            .decapsulate_slice(ciphertext)
            .map_err(|_| BadPublicValue)?;
        Ok(Zeroizing::new(secret.into()))
    }
}

/// Streamlined NTRU Prime with p = 761.
pub(super) enum Sntrup761 {}

impl Kem for Sntrup761 {
    fn hash() -> &'static digest::Algorithm {
        &digest::SHA512
    }

    const KEY_LEN: usize = sntrup761::KEY_LEN;
    const CIPHERTEXT_LEN: usize = sntrup761::CIPHERTEXT_LEN;

    type Secret = sntrup761::Secret;

    fn generate(random: &mut dyn Random) -> Result<(Self::Secret, Vec<u8>), RandomFailed> {
        let mut random = Expanded::new(random)?;
        let (secret, key) = sntrup761::generate(&mut |out| random.fill(out));
        Ok((secret, key.to_vec()))
    }

    fn encapsulate(
        key: &[u8],
        random: &mut dyn Random,
    ) -> Result<(Vec<u8>, Zeroizing<[u8; SECRET_LEN]>), RespondError> {
        let key = key.try_into().map_err(|_| BadPublicValue)?;
        let mut random = Expanded::new(random)?;
        let (ciphertext, secret) = sntrup761::encapsulate(key, &mut |out| random.fill(out));
        Ok((ciphertext.to_vec(), secret))
    }

    fn decapsulate(
        secret: &Self::Secret,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<[u8; SECRET_LEN]>, BadPublicValue> {
        let ciphertext = ciphertext.try_into().map_err(|_| BadPublicValue)?;
        Ok(sntrup761::decapsulate(secret, ciphertext))
    }
}

/// As much randomness as is asked for, of one draw: `SHA-512(seed, counter)`, block after block.
///
/// sntrup761 takes thousands of small numbers. The system's generator is
/// asked once, where a failure can still be told, and costs one call instead of thousands.
struct Expanded {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
    block: Zeroizing<[u8; digest::SHA512_OUTPUT_LEN]>,
    used: usize,
}

impl Expanded {
    fn new(random: &mut dyn Random) -> Result<Self, RandomFailed> {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(&mut *seed)?;
        Ok(Self {
            seed,
            counter: 0,
            block: Zeroizing::new([0; digest::SHA512_OUTPUT_LEN]),
            used: digest::SHA512_OUTPUT_LEN,
        })
    }

    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == self.block.len() {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(&*self.seed);
                context.update(&self.counter.to_be_bytes());
                self.block.copy_from_slice(context.finish().as_ref());
                self.counter += 1;
                self.used = 0;
            }
            *byte = std::mem::take(&mut self.block[self.used]);
            self.used += 1;
        }
    }
}
