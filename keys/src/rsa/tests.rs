//! RSA keys of all sizes, made by `openssl`: signed by `ring` and by the file beside it.

use std::cell::Cell;
use std::process::Command;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};

use super::*;
use crate::file::KeyFile;
use crate::private::{PrivateKey, Secret};

thread_local! {
    static FAULT: Cell<bool> = const { Cell::new(false) };
}

/// Spoils the first half of a signature, if a test asked for it.
pub(super) fn inject(half: BoxedMontyForm, ring: &BoxedMontyParams) -> BoxedMontyForm {
    if FAULT.get() {
        half.add(&BoxedMontyForm::one(ring))
    } else {
        half
    }
}

const ALGORITHMS: [SignatureAlgorithm; 3] = [
    SignatureAlgorithm::RsaSha512,
    SignatureAlgorithm::RsaSha256,
    SignatureAlgorithm::RsaSha1,
];

fn openssl_key(bits: &str, exponent: &str) -> PrivateKey {
    let arguments = [
        "genpkey",
        "-algorithm",
        "rsa",
        "-pkeyopt",
        &format!("rsa_keygen_bits:{bits}"),
        "-pkeyopt",
        &format!("rsa_keygen_pubexp:{exponent}"),
    ];
    let output = Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    KeyFile::parse(&output.stdout).unwrap().open().unwrap()
}

fn rsa_of(key: &PrivateKey) -> &RsaPrivate {
    match key.secret() {
        Secret::Rsa(rsa) => rsa,
        _ => panic!("an RSA key was made"),
    }
}

fn assert_signs(key: &PrivateKey) {
    for algorithm in ALGORITHMS {
        let signature = key.sign(algorithm, b"data").unwrap();
        assert!(
            key.public_key()
                .verify(algorithm, b"data", &signature)
                .is_ok()
        );
        // PKCS #1 v1.5 is deterministic: whoever signs, the bytes are the same.
        let own = rsa_of(key).own.sign(algorithm, b"data").unwrap();
        let len = rsa_of(key).public().modulus.len();
        assert_eq!(signature[signature.len() - len..], own, "{algorithm}");
    }
}

#[test]
fn ring_signs_what_it_can_and_the_file_beside_it_the_rest() {
    for (bits, exponent, by_ring) in [
        ("2048", "65537", true),
        ("2048", "3", false),
        ("3072", "17", false),
        ("1024", "65537", false),
        ("1030", "35", false),
        ("2050", "65537", false),
        ("5000", "65537", false),
    ] {
        let key = openssl_key(bits, exponent);
        assert_eq!(key.public_key().rsa_bits().unwrap().to_string(), bits);
        assert_eq!(rsa_of(&key).ring.is_some(), by_ring, "{bits} {exponent}");
        assert_signs(&key);
    }
}

/// THREATS K22: a fault in one half would give the primes away (Boneh, DeMillo, Lipton).
#[test]
fn a_fault_in_one_half_never_leaves() {
    let key = openssl_key("2048", "3");
    FAULT.set(true);
    let signed = key.sign(SignatureAlgorithm::RsaSha256, b"data");
    FAULT.set(false);
    assert_eq!(signed, Err(SignError::Fault));
    assert!(key.sign(SignatureAlgorithm::RsaSha256, b"data").is_ok());
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let key = openssl_key("1024", "65537");
    let rsa = rsa_of(&key);
    let numbers = || {
        let RsaNumbers { d, p, q } = rsa.numbers();
        RsaNumbers {
            d: d.clone(),
            p: p.clone(),
            q: q.clone(),
        }
    };
    assert!(RsaPrivate::new(rsa.public().clone(), numbers()).is_some());
    let mut swapped = numbers();
    std::mem::swap(&mut swapped.p, &mut swapped.q);
    assert!(
        RsaPrivate::new(rsa.public().clone(), swapped).is_some(),
        "either may be the first"
    );
    let spoil: [fn(&mut RsaNumbers); 9] = [
        |n| *n.d.last_mut().unwrap() ^= 2,
        |n| *n.p.last_mut().unwrap() ^= 2,
        |n| *n.q.last_mut().unwrap() ^= 2,
        |n| *n.p.last_mut().unwrap() ^= 1,
        |n| n.p.clear(),
        |n| n.q.clear(),
        |n| n.d.clear(),
        |n| n.p = n.q.clone(),
        |n| n.d = vec![1; 129].into(),
    ];
    for (index, spoil) in spoil.into_iter().enumerate() {
        let mut numbers = numbers();
        spoil(&mut numbers);
        assert!(
            RsaPrivate::new(rsa.public().clone(), numbers).is_none(),
            "{index}"
        );
    }
    // 1 · n is no key, however well it fits.
    let mut one = numbers();
    one.p = rsa.public().modulus.to_vec().into();
    one.q = vec![1].into();
    assert!(RsaPrivate::new(rsa.public().clone(), one).is_none());
    let mut other = numbers();
    other.q = rsa.public().modulus.to_vec().into();
    other.p = vec![1].into();
    assert!(RsaPrivate::new(rsa.public().clone(), other).is_none());
}
