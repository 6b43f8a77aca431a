//! What holds for every method: both ends agree, and nothing but an honest value is agreed with.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::pair::Seeded;

mod ntru_prime;
mod vectors;

/// A group as a server would name it, for the methods that need one.
fn named_group() -> Group {
    let p = Group::modp_2048().modulus_content();
    Group::new(&p, &[2], 2048..=8192, &mut Seeded::new(1)).unwrap()
}

fn share(kex: Kex, random: &mut dyn Random) -> ClientShare {
    let group = kex.is_group_exchange().then(named_group);
    ClientShare::generate(kex, group.as_ref(), random).unwrap()
}

/// The server's half; a group exchange has none in the product, so it is done with the parts.
fn answer(
    kex: Kex,
    client_public: &[u8],
    random: &mut dyn Random,
) -> Result<Response, RespondError> {
    if !kex.is_group_exchange() {
        return respond(kex, client_public, random);
    }
    let secret = group::Secret::generate(&named_group(), random)?;
    Ok(Response {
        public: secret.public(),
        secret: secret.agree(client_public)?,
    })
}

/// Methods whose public values have one length.
fn of_fixed_length() -> impl Iterator<Item = Kex> {
    let is_group = |kex: Kex| matches!(kex.method().0, Method::Group(_) | Method::GroupExchange);
    Kex::ALL.iter().copied().filter(move |&kex| !is_group(kex))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn both_sides_agree_with_every_method(seed in any::<u64>()) {
        let mut random = Seeded::new(seed);
        for &kex in Kex::ALL {
            let share = share(kex, &mut random);
            let response = answer(kex, share.public(), &mut random).unwrap();
            let theirs = response.secret;
            let ours = share.agree(&response.public).unwrap();
            prop_assert_eq!(ours.encoded(), theirs.encoded(), "{}", kex);
            let len = usize::try_from(u32::from_be_bytes(*ours.encoded().first_chunk().unwrap()));
            prop_assert_eq!(len.unwrap() + 4, ours.encoded().len(), "{}", kex);
        }
    }
}

#[test]
fn two_exchanges_share_no_secret() {
    let mut random = Seeded::new(5);
    for &kex in Kex::ALL {
        let mut once = || {
            let share = share(kex, &mut random);
            let response = answer(kex, share.public(), &mut random).unwrap();
            (share.public().to_vec(), response.public, response.secret)
        };
        let (first, second) = (once(), once());
        assert_ne!(first.0, second.0, "{kex}");
        assert_ne!(first.1, second.1, "{kex}");
        assert_ne!(first.2.encoded(), second.2.encoded(), "{kex}");
    }
}

#[test]
fn every_wrong_length_is_refused() {
    let mut random = Seeded::new(6);
    for kex in of_fixed_length() {
        let public = share(kex, &mut random).public().to_vec();
        let mut longer = public.clone();
        longer.push(0);
        for wrong in (0..public.len())
            .map(|len| &public[..len])
            .chain([&longer[..]])
        {
            let refused = respond(kex, wrong, &mut random).unwrap_err();
            assert_eq!(
                refused,
                RespondError::BadPublicValue,
                "{kex} {}",
                wrong.len()
            );
        }
        let public = respond(kex, &public, &mut random).unwrap().public;
        let mut longer = public.clone();
        longer.push(0);
        // Each takes a share of its own: a few for the long ones, all of their edges.
        let cuts = [
            0,
            1,
            31,
            32,
            33,
            public.len() / 2,
            public.len() - 32,
            public.len() - 1,
        ];
        let shorter = cuts
            .iter()
            .filter(|&&cut| cut < public.len())
            .map(|&cut| &public[..cut]);
        for wrong in shorter.chain([&longer[..]]) {
            let refused = share(kex, &mut random).agree(wrong).unwrap_err();
            assert_eq!(refused, BadPublicValue, "{kex} {}", wrong.len());
        }
    }
}

#[test]
fn a_flipped_bit_in_a_reply_fails_or_leads_to_another_secret() {
    for &kex in Kex::ALL {
        let mut random = Seeded::new(7);
        let bits = {
            let share = share(kex, &mut random);
            answer(kex, share.public(), &mut random)
                .unwrap()
                .public
                .len()
                * 8
        };
        // Every bit of the cheap ones; of the others so many that the test takes a second or two.
        let step = match kex {
            Kex::Curve25519Sha256 | Kex::Curve25519Sha256Libssh | Kex::EcdhNistP256 => 1,
            Kex::DhGroup1Sha1 | Kex::EcdhNistP384 | Kex::EcdhNistP521 => 5,
            Kex::DhGroup16Sha512 => 401,
            Kex::DhGroup18Sha512 => 4001,
            _ => 37,
        };
        for bit in (0..bits).step_by(step).chain([bits - 1]) {
            let share = share(kex, &mut random);
            let response = answer(kex, share.public(), &mut random).unwrap();
            let mut public = response.public;
            if bit >= public.len() * 8 {
                continue; // a number that happens to be shorter
            }
            public[bit / 8] ^= 1 << (bit % 8);
            let Ok(secret) = share.agree(&public) else {
                continue;
            };
            // X25519 does not look at the last bit of a value (RFC 7748 §5); H differs all the same.
            let is_masked = bit == bits - 1 && !kex.name().contains("nist");
            if !(is_masked && kex.name().contains("25519")) {
                assert_ne!(
                    secret.encoded(),
                    response.secret.encoded(),
                    "{kex}, bit {bit}"
                );
            }
        }
    }
}

#[test]
fn what_is_out_of_a_groups_range_is_refused_by_both_roles() {
    for kex in Kex::ALL.iter().copied() {
        let (Method::Group(group), _) = kex.method() else {
            continue;
        };
        for bad in group().bad_values() {
            let mut random = Seeded::new(8);
            let refused = respond(kex, &bad, &mut random).unwrap_err();
            assert_eq!(refused, RespondError::BadPublicValue, "{kex} {bad:?}");
            if kex != Kex::DhGroup18Sha512 {
                let refused = share(kex, &mut random).agree(&bad).unwrap_err();
                assert_eq!(refused, BadPublicValue, "{kex} {bad:?}");
            }
        }
    }
}

#[test]
fn a_hybrid_refuses_an_x25519_value_that_makes_zero() {
    let mut random = Seeded::new(9);
    for kex in [Kex::MlKem768X25519, Kex::Sntrup761X25519] {
        let mut public = share(kex, &mut random).public().to_vec();
        let reply = respond(kex, &public, &mut random).unwrap().public;
        let at = public.len() - 32;
        public[at..].fill(0);
        let refused = respond(kex, &public, &mut random).unwrap_err();
        assert_eq!(refused, RespondError::BadPublicValue);
        let mut reply = reply;
        let at = reply.len() - 32;
        reply[at..].fill(0);
        let refused = share(kex, &mut random).agree(&reply).unwrap_err();
        assert_eq!(refused, BadPublicValue);
    }
}

#[test]
fn an_ml_kem_key_with_a_coefficient_above_the_modulus_is_refused() {
    let mut random = Seeded::new(10);
    let mut public = share(Kex::MlKem768X25519, &mut random).public().to_vec();
    // The first coefficient becomes 4095; the modulus is 3329.
    public[0] = 0xff;
    public[1] |= 0x0f;
    let refused = respond(Kex::MlKem768X25519, &public, &mut random).unwrap_err();
    assert_eq!(refused, RespondError::BadPublicValue);
}

#[test]
fn a_server_has_no_half_of_a_group_exchange() {
    let mut random = Seeded::new(11);
    let public = share(Kex::DhGroupExchangeSha256, &mut random)
        .public()
        .to_vec();
    let refused = respond(Kex::DhGroupExchangeSha256, &public, &mut random).unwrap_err();
    assert_eq!(refused, RespondError::BadPublicValue);
}

#[test]
fn without_randomness_there_is_no_share_and_no_response() {
    struct Failing;
    impl Random for Failing {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), RandomFailed> {
            Err(RandomFailed)
        }
    }
    for &kex in Kex::ALL {
        if matches!(kex, Kex::EcdhNistP256 | Kex::EcdhNistP384) {
            continue; // these draw from the system themselves
        }
        let group = kex.is_group_exchange().then(named_group);
        let failed = ClientShare::generate(kex, group.as_ref(), &mut Failing).unwrap_err();
        assert_eq!(failed, RandomFailed);
        let public = share(kex, &mut Seeded::new(12)).public().to_vec();
        let failed = respond(kex, &public, &mut Failing).unwrap_err();
        if kex.is_group_exchange() {
            assert_eq!(failed, RespondError::BadPublicValue);
        } else {
            assert_eq!(failed, RespondError::Random(RandomFailed), "{kex}");
        }
    }
}

#[test]
fn nothing_secret_is_printed() {
    let mut random = Seeded::new(13);
    let share = share(Kex::Curve25519Sha256, &mut random);
    let response = respond(Kex::Curve25519Sha256, share.public(), &mut random).unwrap();
    assert_eq!(format!("{share:?}"), "ClientShare { .. }");
    assert_eq!(format!("{response:?}"), "Response { .. }");
    assert_eq!(format!("{:?}", response.secret), "SharedSecret");
}

#[test]
fn a_secret_is_written_as_its_method_wants_it() {
    assert_eq!(
        SharedSecret::mpint(&[0, 0x80]).encoded(),
        [0, 0, 0, 2, 0, 0x80]
    );
    assert_eq!(SharedSecret::mpint(&[0, 0]).encoded(), [0, 0, 0, 0]);
    assert_eq!(
        SharedSecret::string(&[0, 0x80]).encoded(),
        [0, 0, 0, 2, 0, 0x80]
    );
    assert_eq!(SharedSecret::string(&[0x80]).encoded(), [0, 0, 0, 1, 0x80]);
}

#[test]
fn ring_agrees_with_another_implementation_on_its_curves() {
    use p256::elliptic_curve::sec1::ToSec1Point as _;
    for number in 1..40 {
        let mut random = Seeded::new(number);
        let mut seed = Zeroizing::new([0; 48]);
        random.fill(&mut *seed).unwrap();
        seed[0] &= 0x7f; // below either order

        let other = p256::SecretKey::from_slice(&seed[..32]).unwrap();
        let ours = share(Kex::EcdhNistP256, &mut random);
        let point = p256::PublicKey::from_sec1_bytes(ours.public()).unwrap();
        let theirs = p256::ecdh::diffie_hellman(other.to_nonzero_scalar(), point.as_affine());
        let secret = ours
            .agree(other.public_key().to_sec1_point(false).as_bytes())
            .unwrap();
        assert_eq!(
            secret.encoded(),
            SharedSecret::mpint(theirs.raw_secret_bytes()).encoded()
        );

        let other = p384::SecretKey::from_slice(&seed[..]).unwrap();
        let ours = share(Kex::EcdhNistP384, &mut random);
        let point = p384::PublicKey::from_sec1_bytes(ours.public()).unwrap();
        let theirs = p384::ecdh::diffie_hellman(other.to_nonzero_scalar(), point.as_affine());
        let secret = ours
            .agree(other.public_key().to_sec1_point(false).as_bytes())
            .unwrap();
        assert_eq!(
            secret.encoded(),
            SharedSecret::mpint(theirs.raw_secret_bytes()).encoded()
        );
    }
}
