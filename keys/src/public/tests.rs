//! Keys as they stand on the wire and in lines.

use proptest::prelude::*;

use super::*;
use crate::private::PrivateKey;

fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    let mut w = Writer::new(&mut blob);
    w.string(b"ssh-rsa");
    w.mpint(exponent);
    w.mpint(modulus);
    blob
}

fn modulus(bits: u32) -> Vec<u8> {
    let mut bytes = vec![0xff; bits.div_ceil(8) as usize];
    bytes[0] = 0xff >> (bits.next_multiple_of(8) - bits);
    bytes
}

/// THREATS A6: the cost of verifying is bounded by what is read at all.
#[test]
fn rsa_keys_outside_of_the_limits_are_no_keys() {
    let good = |bits, exponent: &[u8]| PublicKey::from_blob(&rsa(&modulus(bits), exponent));
    for bits in [1024, 1025, 2048, 3071, 8192] {
        assert_eq!(good(bits, &[3]).unwrap().rsa_bits(), Some(bits));
    }
    for bits in [1, 1016, 1023, 8193, 8200] {
        assert!(good(bits, &[3]).is_err(), "{bits}");
    }
    let bad = |field| Err(DecodeError::BadValue { field });
    for exponent in [
        &[1][..],
        &[2],
        &[],
        &[1, 0, 0],
        &[2, 0, 0, 0, 1],
        &[1, 0, 0, 0, 0, 0, 0, 1],
    ] {
        assert_eq!(good(2048, exponent), bad("e"), "{exponent:?}");
    }
    for exponent in [&[3][..], &[17], &[1, 0, 1], &[1, 0xff, 0xff, 0xff, 0xff]] {
        assert!(good(2048, exponent).is_ok(), "{exponent:?}");
    }
    let mut even = modulus(2048);
    even[255] = 0xfe;
    assert_eq!(PublicKey::from_blob(&rsa(&even, &[3])), bad("n"));
    assert!(
        PublicKey::from_blob(&rsa(&vec![0xff; 125_000], &[3])).is_err(),
        "a million bits"
    );
    let mut negative = rsa(&modulus(2048), &[3]);
    let at = 4 + 7 + 4 + 1 + 4;
    assert_eq!(negative[at], 0);
    negative.remove(at);
    negative[at - 2] = 1;
    negative[at - 1] = 0;
    assert_eq!(PublicKey::from_blob(&negative), Err(DecodeError::BadMpint));
}

/// THREATS A7: the type outside, the curve inside and the point have to agree.
#[test]
fn a_point_of_another_curve_is_no_key() {
    for outside in Curve::ALL {
        for inside in Curve::ALL {
            for of_point in Curve::ALL {
                let mut blob = Vec::new();
                let mut w = Writer::new(&mut blob);
                w.string(outside.key_type().name().as_bytes());
                w.string(inside.name().as_bytes());
                let mut point = vec![1; of_point.point_len()];
                point[0] = 4;
                w.string(&point);
                let agree = outside == inside && inside == of_point;
                assert_eq!(PublicKey::from_blob(&blob).is_ok(), agree);
                for form in [0, 2, 3, 5] {
                    let at = blob.len() - point.len();
                    blob[at] = form;
                    assert!(PublicKey::from_blob(&blob).is_err(), "compressed or worse");
                }
            }
        }
    }
}

/// A point beside the curve verifies nothing.
#[test]
fn a_point_beside_the_curve_verifies_nothing() {
    for curve in Curve::ALL {
        let key = PrivateKey::generate(curve.key_type()).unwrap();
        let algorithm = key.public_key().algorithms()[0];
        let signature = key.sign(algorithm, b"data").unwrap();
        let mut blob = key.public_key().as_blob().to_vec();
        *blob.last_mut().unwrap() ^= 1;
        let beside = PublicKey::from_blob(&blob).unwrap();
        assert!(beside.verify(algorithm, b"data", &signature).is_err());
    }
}

#[test]
fn lines_are_read_and_restrictions_are_not_passed_over() {
    const LINE: &str = "ssh-ed25519 \
        AAAAC3NzaC1lZDI1NTE5AAAAIGJyMhxTlxAajfbYzIYmw4t+hA6BZPW/0Nr/eYU8eJ9Y a comment";
    let key = PublicKey::from_line(LINE).unwrap();
    assert_eq!(key.as_blob().len(), 51);
    assert_eq!(
        PublicKey::from_line(&format!("  {LINE}\r\n")),
        Ok(key.clone())
    );
    assert!(LINE.starts_with(&key.to_line()));
    assert_eq!(key.key_type(), KeyType::Ed25519);
    assert!(key.fingerprint().starts_with("SHA256:") && key.fingerprint().len() == 7 + 43);
    assert_eq!(
        format!("{key:?}"),
        format!("PublicKey(ssh-ed25519 {})", key.fingerprint())
    );
    let base64 = LINE.split(' ').nth(1).unwrap();
    for (line, refused) in [
        (format!("command=\"true\" {LINE}"), LineError::NoKey),
        (format!("restrict {LINE}"), LineError::NoKey),
        (format!("@revoked * {LINE}"), LineError::NoKey),
        ("ssh-ed25519".to_owned(), LineError::NoKey),
        (String::new(), LineError::NoKey),
        (format!("ssh-dss {base64}"), LineError::NoKey),
        (format!("ssh-rsa {base64}"), LineError::OtherType),
        (
            format!("ssh-ed25519-cert-v01@openssh.com {base64}"),
            LineError::OtherType,
        ),
        (format!("ssh-ed25519 {base64}!"), LineError::Base64),
        (
            "ssh-rsa AAAAB3NzaC1yc2E=".to_owned(),
            LineError::Key(DecodeError::Truncated),
        ),
        ("a".repeat(100_000), LineError::TooLong),
    ] {
        assert_eq!(PublicKey::from_line(&line), Err(refused), "{line:.80}");
    }
}

#[test]
fn an_ed25519_key_survives_the_wire() {
    let key = PublicKey::ed25519([5; 32]);
    assert_eq!(PublicKey::from_blob(key.as_blob()), Ok(key.clone()));
    let mut long = key.as_blob().to_vec();
    long.push(0);
    assert_eq!(
        PublicKey::from_blob(&long),
        Err(DecodeError::Trailing { len: 1 })
    );
    let mut unknown = Vec::new();
    Writer::new(&mut unknown).string(b"ssh-dss");
    assert_eq!(
        PublicKey::from_blob(&unknown),
        Err(DecodeError::BadValue { field: "key type" })
    );
    let mut huge = Vec::new();
    let mut w = Writer::new(&mut huge);
    w.string(b"sk-ssh-ed25519@openssh.com");
    w.string(&[5; 32]);
    w.string(&[b'a'; KEY_BLOB_LEN_MAX]);
    assert!(matches!(
        PublicKey::from_blob(&huge),
        Err(DecodeError::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_a_key_or_refused(
        key_type in 0..KeyType::ALL.len(), named in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut blob = Vec::new();
        if named {
            Writer::new(&mut blob).string(KeyType::ALL[key_type].name().as_bytes());
        }
        blob.extend_from_slice(&bytes);
        if let Ok(key) = PublicKey::from_blob(&blob) {
            prop_assert_eq!(key.as_blob(), &blob[..]);
            prop_assert_eq!(PublicKey::from_line(&key.to_line()), Ok(key));
        }
    }

    /// What is read is written again, byte for byte: a key has one form.
    #[test]
    fn every_key_has_one_form(
        modulus in proptest::collection::vec(any::<u8>(), 128..300), exponent in 1..0xffff_u32,
        point in any::<[u8; 32]>(), application in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let (mut modulus, exponent) = (modulus, u64::from(exponent) * 2 + 1);
        modulus[0] |= 0x80;
        *modulus.last_mut().unwrap() |= 1;
        let nist: Arc<[u8]> = [&[4][..], &point, &point].concat().into();
        for material in [
            Material::Rsa(RsaPublic { modulus: modulus.into(), exponent }),
            Material::Ed25519(point),
            Material::Ecdsa { curve: Curve::P256, point: nist.clone() },
            Material::SkEd25519 { point, application: application.clone().into() },
            Material::SkEcdsaP256 { point: nist, application: application.into() },
        ] {
            let key = PublicKey::plain_of(material.clone());
            let read = PublicKey::from_blob(key.as_blob()).unwrap();
            prop_assert_eq!(&read.material, &material);
            prop_assert_eq!(&PublicKey::plain_of(read.material.clone()), &read);
            for cut in 0..key.as_blob().len() {
                prop_assert!(PublicKey::from_blob(&key.as_blob()[..cut]).is_err());
            }
        }
    }
}
