//! What has to agree before a signature counts, and security keys.

use proptest::prelude::*;

use super::*;
use crate::algorithm::KeyType;
use crate::file::KeyFile;
use crate::private::PrivateKey;

/// RFC 8032 §7.1, test 2, in the form of RFC 8709.
#[test]
fn a_published_signature_is_made_and_verified() {
    let hex = |text: &str| -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    let point = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let expected = hex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
    let seed: [u8; 32] = seed.try_into().unwrap();
    let key = PrivateKey::from_ed25519_seed(seed.into());
    assert_eq!(
        *key.public_key(),
        PublicKey::ed25519(point.try_into().unwrap())
    );
    let blob = key.sign(SignatureAlgorithm::Ed25519, &[0x72]).unwrap();
    assert_eq!(blob, signature_blob(SignatureAlgorithm::Ed25519, &expected));
}

fn rsa() -> PrivateKey {
    let arguments = [
        "genpkey",
        "-algorithm",
        "rsa",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
    ];
    let output = std::process::Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl");
    KeyFile::parse(&output.stdout).unwrap().open().unwrap()
}

/// THREATS A7 and K21: algorithm asked for, type of the key, name in the signature, and who really
/// signed: only where all are of one kind is a signature good.
#[test]
fn only_the_diagonal_of_the_cube_is_accepted() {
    let keys: Vec<_> = [
        KeyType::Ed25519,
        KeyType::EcdsaP256,
        KeyType::EcdsaP384,
        KeyType::EcdsaP521,
    ]
    .into_iter()
    .map(|key_type| PrivateKey::generate(key_type).unwrap())
    .chain([rsa()])
    .collect();
    let algorithms: Vec<_> = SignatureAlgorithm::ALL.to_vec();
    let mut accepted = 0;
    for signer in &keys {
        for &made_with in signer.public_key().algorithms() {
            let blob = signer.sign(made_with, b"data").unwrap();
            let mut r = Reader::new(&blob);
            let _name = r.string(NAME_LEN_MAX).unwrap();
            let raw = r.string(RAW_LEN_MAX).unwrap();
            for key in &keys {
                for &asked in &algorithms {
                    for &named in &algorithms {
                        let mut blob = Vec::new();
                        let mut w = Writer::new(&mut blob);
                        w.string(named.name().as_bytes());
                        w.string(raw);
                        let good = key.public_key().verify(asked, b"data", &blob).is_ok();
                        let one_kind = key.public_key() == signer.public_key()
                            && asked == made_with
                            && named == made_with;
                        assert_eq!(good, one_kind, "{made_with} {asked} {named}");
                        accepted += usize::from(good);
                    }
                }
            }
        }
    }
    assert_eq!(accepted, 4 + 3);
}

/// A security key in software, for tests.
fn security_key(application: &[u8]) -> (PrivateKey, PublicKey, PrivateKey, PublicKey) {
    let edwards = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let nist = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
    let Material::Ed25519(point) = *edwards.public_key().material() else {
        unreachable!()
    };
    let Material::Ecdsa {
        point: nist_point, ..
    } = nist.public_key().material()
    else {
        unreachable!()
    };
    let sk_edwards = PublicKey::plain_of(Material::SkEd25519 {
        point,
        application: application.into(),
    });
    let sk_nist = PublicKey::plain_of(Material::SkEcdsaP256 {
        point: nist_point.clone(),
        application: application.into(),
    });
    (edwards, sk_edwards, nist, sk_nist)
}

fn sign_as_security_key(
    key: &PrivateKey,
    sk: &PublicKey,
    signed_for: &[u8],
    flags: u8,
    counter: u32,
) -> Vec<u8> {
    let presence = Presence { flags, counter };
    let signed = signed_by_security_key(signed_for, presence, b"data");
    let blob = key.sign(key.public_key().algorithms()[0], &signed).unwrap();
    let mut r = Reader::new(&blob);
    let _name = r.string(NAME_LEN_MAX).unwrap();
    let mut blob = signature_blob(sk.algorithms()[0], r.string(RAW_LEN_MAX).unwrap());
    blob.push(flags);
    blob.extend_from_slice(&counter.to_be_bytes());
    blob
}

/// THREATS A18: what the authenticator says is told, so that a signature without touch is seen.
#[test]
fn a_security_keys_flags_and_counter_are_told() {
    let (edwards, sk_edwards, nist, sk_nist) = security_key(b"ssh:");
    for (key, sk) in [(&edwards, &sk_edwards), (&nist, &sk_nist)] {
        let algorithm = sk.algorithms()[0];
        assert_eq!(PublicKey::from_blob(sk.as_blob()).as_ref(), Ok(sk));
        for (flags, present, verified) in [
            (0x00, false, false),
            (0x01, true, false),
            (0x04, false, true),
            (0x05, true, true),
        ] {
            let blob = sign_as_security_key(key, sk, b"ssh:", flags, 7);
            let presence = sk
                .verify(algorithm, b"data", &blob)
                .unwrap()
                .presence
                .unwrap();
            assert_eq!(
                (presence.user_present(), presence.user_verified()),
                (present, verified)
            );
            assert_eq!((presence.flags, presence.counter), (flags, 7));
            // Flags and counter are signed.
            for at in blob.len() - 5..blob.len() {
                let mut other = blob.clone();
                other[at] ^= 1;
                assert!(sk.verify(algorithm, b"data", &other).is_err());
            }
            let short = &blob[..blob.len() - 5];
            assert!(
                sk.verify(algorithm, b"data", short).is_err(),
                "without them it is no such signature"
            );
        }
        let other_application = sign_as_security_key(key, sk, b"ssh:other", 1, 7);
        assert!(sk.verify(algorithm, b"data", &other_application).is_err());
        // Without the security key's wrapping the same key is another.
        let plain = key.sign(key.public_key().algorithms()[0], b"data").unwrap();
        assert!(sk.verify(algorithm, b"data", &plain).is_err());
        assert!(
            sk.verify(key.public_key().algorithms()[0], b"data", &plain)
                .is_err()
        );
    }
}

#[test]
fn what_follows_a_plain_signature_spoils_it() {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let mut blob = key.sign(SignatureAlgorithm::Ed25519, b"data").unwrap();
    blob.extend_from_slice(&[1, 0, 0, 0, 7]);
    assert_eq!(
        key.public_key()
            .verify(SignatureAlgorithm::Ed25519, b"data", &blob),
        Err(BadSignature)
    );
    let long = vec![0; SIGNATURE_LEN_MAX + 1];
    assert_eq!(
        key.public_key()
            .verify(SignatureAlgorithm::Ed25519, b"data", &long),
        Err(BadSignature)
    );
}

#[test]
fn an_rsa_signature_without_its_leading_zeros_is_taken() {
    let key = rsa();
    let algorithm = SignatureAlgorithm::RsaSha256;
    // One in 256 begins with a zero.
    for count in 0_u32..10_000 {
        let data = count.to_be_bytes();
        let blob = key.sign(algorithm, &data).unwrap();
        let raw = &blob[blob.len() - 256..];
        if raw[0] == 0 {
            let short = signature_blob(algorithm, &raw[1..]);
            assert!(key.public_key().verify(algorithm, &data, &short).is_ok());
            let long = signature_blob(algorithm, &[&[0], raw].concat());
            assert!(key.public_key().verify(algorithm, &data, &long).is_err());
            return;
        }
    }
    panic!("no signature begins with a zero");
}

proptest! {
    #[test]
    fn any_bytes_are_no_signature(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), which in 0..4_usize, named in any::<bool>(),
    ) {
        let (_, sk_edwards, nist, sk_nist) = security_key(b"ssh:");
        let keys = [PublicKey::ed25519([7; 32]), sk_edwards, nist.public_key().clone(), sk_nist];
        let algorithm = keys[which].algorithms()[0];
        let blob = if named { signature_blob(algorithm, &bytes) } else { bytes };
        prop_assert_eq!(keys[which].verify(algorithm, b"data", &blob), Err(BadSignature));
    }

    #[test]
    fn two_numbers_survive_being_mpints(
        curve in 0..3_usize, bytes in proptest::collection::vec(any::<u8>(), 132), zeros in 0..70_usize,
    ) {
        let curve = Curve::ALL[curve];
        let mut fixed = bytes[..2 * curve.scalar_len()].to_vec();
        let end = zeros.min(fixed.len());
        fixed[..end].fill(0);
        prop_assert_eq!(ecdsa_fixed(curve, &ecdsa_mpints(&fixed)), Some(fixed));
    }
}
