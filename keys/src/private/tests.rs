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
