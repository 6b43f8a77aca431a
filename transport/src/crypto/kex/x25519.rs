//! Key agreement with X25519 (RFC 7748, RFC 8731).

use zeroize::Zeroizing;

use super::{BadPublicValue, Random, RandomFailed};

/// Length of a public value.
pub(super) const PUBLIC_LEN: usize = 32;

/// One side's secret for one exchange.
pub(super) struct Secret {
    secret: x25519_dalek::StaticSecret,
    public: [u8; PUBLIC_LEN],
}

impl Secret {
    pub(super) fn generate(random: &mut dyn Random) -> Result<Self, RandomFailed> {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(&mut *seed)?;
        // Not the crate's ephemeral type: that one draws from a generator of its own, which a test
        // could not fix. It is used once all the same, as agreeing consumes it.
        let secret = x25519_dalek::StaticSecret::from(*seed);
        let public = x25519_dalek::PublicKey::from(&secret).to_bytes();
        Ok(Self { secret, public })
    }

    pub(super) const fn public(&self) -> &[u8; PUBLIC_LEN] {
        &self.public
    }

    pub(super) fn agree(self, theirs: &[u8]) -> Result<Zeroizing<[u8; 32]>, BadPublicValue> {
        let theirs: [u8; PUBLIC_LEN] = theirs.try_into().map_err(|_| BadPublicValue)?;
        let shared = self
            .secret
            .diffie_hellman(&x25519_dalek::PublicKey::from(theirs));
        if shared.was_contributory() {
            Ok(Zeroizing::new(shared.to_bytes()))
        } else {
            Err(BadPublicValue)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed([u8; 32]);

    impl Random for Fixed {
        fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
            out.copy_from_slice(&self.0);
            Ok(())
        }
    }

    fn unhex(text: &str) -> [u8; 32] {
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        out
    }

    #[test]
    fn the_vectors_of_rfc_7748_section_6_1() {
        let bob = unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let bob = Secret::generate(&mut Fixed(bob)).unwrap();
        assert_eq!(
            bob.public(),
            &unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
        );
        let alice_public =
            unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(
            *bob.agree(&alice_public).unwrap(),
            unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
        );
    }

    #[test]
    fn both_sides_agree() {
        let ann = Secret::generate(&mut Fixed([7; 32])).unwrap();
        let bob = Secret::generate(&mut Fixed([9; 32])).unwrap();
        let (ann_public, bob_public) = (*ann.public(), *bob.public());
        assert_eq!(
            ann.agree(&bob_public).unwrap(),
            bob.agree(&ann_public).unwrap()
        );
    }

    #[test]
    fn points_of_small_order_and_odd_lengths_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        for bad in [&[0; 32][..], &one, &[5; 31], &[5; 33], &[]] {
            let ann = Secret::generate(&mut Fixed([7; 32])).unwrap();
            assert_eq!(ann.agree(bad).unwrap_err(), BadPublicValue);
        }
    }
}
