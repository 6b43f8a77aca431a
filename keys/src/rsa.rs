//! RSA private keys: checked when they are read, and who signs with them.
//!
//! `ring` signs where it can: SHA-2, moduli of 2048 to 4096 bits, exponents from 65537 up. All
//! else (larger and older keys, SHA-1 for old partners) goes through [`crt`], the one file here
//! that computes with an RSA key itself.

use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair};
use zeroize::Zeroizing;

use crate::algorithm::SignatureAlgorithm;
use crate::private::SignError;
use crate::public::RsaPublic;

mod crt;
#[cfg(test)]
mod tests;

/// An RSA private key whose numbers fit each other.
pub(crate) struct RsaPrivate {
    public: RsaPublic,
    numbers: RsaNumbers,
    /// For those keys that `ring` takes. It does not overwrite its numbers when it is let go.
    ring: Option<RsaKeyPair>,
    own: crt::Signer,
}

/// The secret numbers of an RSA key, big-endian, as key files have them.
pub(crate) struct RsaNumbers {
    /// The private exponent.
    pub(crate) d: Zeroizing<Vec<u8>>,
    /// The first prime.
    pub(crate) p: Zeroizing<Vec<u8>>,
    /// The second prime.
    pub(crate) q: Zeroizing<Vec<u8>>,
}

impl RsaPrivate {
    /// Takes a key if its numbers fit each other; `None` otherwise.
    ///
    /// The exponents of the two halves and the coefficient are computed anew: what a file says of
    /// them is not needed, and wrong ones would spoil signatures.
    pub(crate) fn new(public: RsaPublic, numbers: RsaNumbers) -> Option<Self> {
        let own = crt::Signer::new(&public, &numbers)?;
        let ring = own.with_halves(|halves| {
            let components = KeyPairComponents {
                public_key: PublicKeyComponents {
                    n: &public.modulus[..],
                    e: &public.exponent_bytes()[..],
                },
                d: strip(&numbers.d),
                p: strip(&numbers.p),
                q: strip(&numbers.q),
                dP: strip(halves.d_p),
                dQ: strip(halves.d_q),
                qInv: strip(halves.q_inverse),
            };
            RsaKeyPair::from_components(&components).ok()
        });
        Some(Self {
            public,
            numbers,
            ring,
            own,
        })
    }

    pub(crate) const fn public(&self) -> &RsaPublic {
        &self.public
    }

    pub(crate) const fn numbers(&self) -> &RsaNumbers {
        &self.numbers
    }

    /// The inverse of the second prime modulo the first, which OpenSSH's files have.
    pub(crate) fn q_inverse(&self) -> Zeroizing<Vec<u8>> {
        self.own
            .with_halves(|halves| Zeroizing::new(strip(halves.q_inverse).to_vec()))
    }

    /// Signs with PKCS #1 v1.5 (RFC 8017 §8.2.1): a raw signature as long as the modulus.
    pub(crate) fn sign(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, SignError> {
        let encoding: Option<&dyn ring::signature::RsaEncoding> = match algorithm {
            SignatureAlgorithm::RsaSha512 => Some(&RSA_PKCS1_SHA512),
            SignatureAlgorithm::RsaSha256 => Some(&RSA_PKCS1_SHA256),
            _ => None,
        };
        let (Some(ring), Some(encoding)) = (&self.ring, encoding) else {
            return self.own.sign(algorithm, data);
        };
        let mut raw = vec![0; self.public.modulus.len()];
        ring.sign(encoding, &SystemRandom::new(), data, &mut raw)
            .map_err(|_| SignError::Fault)?;
        Ok(raw)
    }
}

/// A big-endian number without leading zeros.
pub(crate) fn strip(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}
