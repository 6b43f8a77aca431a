//! Signing.

use super::fault::with_bit_turned;
use super::*;

fn one_of_each() -> Vec<PrivateKey> {
    [
        KeyType::Ed25519,
        KeyType::EcdsaP256,
        KeyType::EcdsaP384,
        KeyType::EcdsaP521,
    ]
    .map(|key_type| PrivateKey::generate(key_type).unwrap())
    .into()
}

#[test]
fn a_signature_fits_its_key_and_data_alone() {
    let others = one_of_each();
    for (key, other) in one_of_each().into_iter().zip(others) {
        let algorithm = key.public_key().algorithms()[0];
        let blob = key.sign(algorithm, b"data").unwrap();
        let public = key.public_key();
        assert!(
            public.verify(algorithm, b"data", &blob).is_ok(),
            "{algorithm}"
        );
        assert!(public.verify(algorithm, b"date", &blob).is_err());
        assert!(
            other
                .public_key()
                .verify(algorithm, b"data", &blob)
                .is_err()
        );
        for cut in 0..blob.len() {
            assert!(public.verify(algorithm, b"data", &blob[..cut]).is_err());
        }
    }
}

#[test]
fn a_signature_that_a_fault_spoilt_never_leaves() {
    for key in one_of_each() {
        let algorithm = key.public_key().algorithms()[0];
        for bit in 0..600 {
            let signed = with_bit_turned(bit, || key.sign(algorithm, b"data"));
            assert_eq!(signed, Err(SignError::Fault), "{algorithm}, bit {bit}");
        }
        assert!(key.sign(algorithm, b"data").is_ok());
    }
}

#[test]
fn keys_that_are_made_elsewhere_are_said_so() {
    for key_type in [KeyType::Rsa, KeyType::SkEd25519, KeyType::SkEcdsaP256] {
        let refused = PrivateKey::generate(key_type).unwrap_err();
        assert_eq!(refused, GenerateError::Type { key_type });
    }
}

#[test]
fn a_point_of_another_scalar_is_refused() {
    for curve in Curve::ALL {
        let (scalar, point) = ecdsa::generate(curve).unwrap();
        let (_, other) = ecdsa::generate(curve).unwrap();
        assert!(PrivateKey::ecdsa(curve, scalar.clone(), &point).is_some());
        assert!(PrivateKey::ecdsa(curve, scalar.clone(), &other).is_none());
        assert!(PrivateKey::ecdsa(curve, scalar.clone(), &point[1..]).is_none());
        assert!(PrivateKey::ecdsa(curve, scalar[1..].to_vec().into(), &point).is_none());
        let zero = Zeroizing::new(vec![0; curve.scalar_len()]);
        assert!(PrivateKey::ecdsa(curve, zero, &point).is_none());
    }
}

/// THREATS K22: PuTTY's P-521 nonces began with nine zero bits, and 60 signatures gave the key away.
/// With the private scalar the nonce of a signature can be computed: s⁻¹(z + r·d).
#[test]
fn the_first_bits_of_nonces_are_even() {
    use crypto_bigint::{BoxedUint, NonZero, Odd};
    use ring::digest::{SHA256, SHA512, digest};

    const SIGNATURES: u32 = 20_000;
    const BINS: usize = 256;
    // 255 degrees of freedom: above this once in a million runs.
    const CHI_SQUARE_MAX: f64 = 377.0;
    for (curve, order) in [
        (
            Curve::P256,
            "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551",
        ),
        (
            Curve::P521,
            "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF\
             FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
        ),
    ] {
        let (scalar, point) = ecdsa::generate(curve).unwrap();
        let bits = u32::try_from(curve.scalar_len() * 8).unwrap();
        let order: String = order.split_whitespace().collect();
        let order = crate::file::pem::hex(&order).unwrap();
        let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, bits).unwrap();
        let order = number(&order);
        let order_bits = order.bits();
        let (modulus, odd) = (
            NonZero::new(order.clone()).unwrap(),
            Odd::new(order).unwrap(),
        );
        let d = number(&scalar);
        let mut bins = [0_u32; BINS];
        for count in 0..SIGNATURES {
            let data = count.to_be_bytes();
            let raw = ecdsa::sign(curve, &scalar, &point, &data).unwrap();
            let (r, s) = raw.split_at(raw.len() / 2);
            let hashed = digest(
                if curve == Curve::P256 {
                    &SHA256
                } else {
                    &SHA512
                },
                &data,
            );
            let z = number(hashed.as_ref()).rem(&modulus);
            let rd = number(r).mul_mod(&d, &modulus);
            let inverse = number(s).invert_odd_mod_vartime(&odd).unwrap();
            let nonce = z.add_mod(&rd, &modulus).mul_mod(&inverse, &modulus);
            let first: usize = (0..8)
                .map(|bit| usize::from(bool::from(nonce.bit(order_bits - 1 - bit))) << (7 - bit))
                .sum();
            bins[first] += 1;
        }
        let expected = f64::from(SIGNATURES) / 256.0;
        let chi_square: f64 = bins
            .iter()
            .map(|&n| (f64::from(n) - expected).powi(2) / expected)
            .sum();
        assert!(chi_square < CHI_SQUARE_MAX, "{curve:?}: {chi_square}");
    }
}
