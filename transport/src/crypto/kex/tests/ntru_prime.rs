//! sntrup761 against the known answers of NTRU Prime's submission to NIST (round 3,
//! `kat_kem.rsp`): keys, ciphertexts and secrets follow from a seed and the submission's generator.

use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use proptest::prelude::*;

use super::super::sntrup761;

/// AES-256 CTR_DRBG without derivation function (SP 800-90A), as the submission's tests use it.
struct Generator {
    key: [u8; 32],
    counter: u128,
}

impl Generator {
    fn new(seed: &[u8; 48]) -> Self {
        let mut new = Self {
            key: [0; 32],
            counter: 0,
        };
        new.update(seed);
        new
    }

    fn block(&mut self) -> [u8; 16] {
        self.counter = self.counter.wrapping_add(1);
        let mut block = self.counter.to_be_bytes().into();
        aes::Aes256::new(&self.key.into()).encrypt_block(&mut block);
        block.into()
    }

    fn update(&mut self, seed: &[u8; 48]) {
        let mut state = [self.block(), self.block(), self.block()].concat();
        state
            .iter_mut()
            .zip(seed)
            .for_each(|(byte, seed)| *byte ^= seed);
        self.key = state[..32].try_into().unwrap();
        self.counter = u128::from_be_bytes(state[32..].try_into().unwrap());
    }

    fn draw(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(16) {
            let len = part.len();
            part.copy_from_slice(&self.block()[..len]);
        }
        self.update(&[0; 48]);
    }
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

#[test]
fn sntrup761_answers_as_its_submission_says() {
    // Count 0: its seed, the first bytes of the key and of the ciphertext, and the secret.
    let seed = unhex(
        "061550234D158C5EC95595FE04EF7A25767F2E24CC2BC479D09D86DC9ABCFDE7\
         056A8C266F9EF97ED08541DBD2E1FFA1",
    );
    let key_start: [u8; 16] = unhex("36C969CF1008A6AA9551A784941C65A9");
    let ciphertext_start: [u8; 16] = unhex("84F327D38929039EF84366AB796A96E6");
    let shared: [u8; 32] =
        unhex("344CA5E25F6DA5EA95E4A695B1C5446ECA9859334532E4A9537669F012C743A2");

    let mut random = Generator::new(&seed);
    let (secret, key) = sntrup761::generate(&mut |out| random.draw(out));
    assert!(key.starts_with(&key_start));
    let (ciphertext, ours) = sntrup761::encapsulate(&key, &mut |out| random.draw(out));
    // The secret is a hash of the key and of the ciphertext, among others: it stands for all of them.
    assert!(ciphertext.starts_with(&ciphertext_start));
    assert_eq!(*ours, shared);
    assert_eq!(*sntrup761::decapsulate(&secret, &ciphertext), shared);
}

#[test]
fn a_ciphertext_that_was_changed_has_a_secret_of_its_own() {
    let mut random = Generator::new(&[7; 48]);
    let (secret, key) = sntrup761::generate(&mut |out| random.draw(out));
    let (ciphertext, shared) = sntrup761::encapsulate(&key, &mut |out| random.draw(out));
    let mut seen = vec![shared];
    for at in (0..ciphertext.len()).step_by(61) {
        let mut changed = ciphertext;
        changed[at] ^= 1;
        let answer = sntrup761::decapsulate(&secret, &changed);
        assert!(!seen.contains(&answer), "byte {at}");
        // The same wrong ciphertext has the same answer.
        assert_eq!(answer, sntrup761::decapsulate(&secret, &changed));
        seen.push(answer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn what_is_encapsulated_comes_out(seed in any::<[u8; 32]>()) {
        let mut random = Generator::new(&[seed.as_slice(), &[0; 16]].concat().try_into().unwrap());
        let (secret, key) = sntrup761::generate(&mut |out| random.draw(out));
        let (ciphertext, ours) = sntrup761::encapsulate(&key, &mut |out| random.draw(out));
        prop_assert_eq!(ours, sntrup761::decapsulate(&secret, &ciphertext));
    }

    #[test]
    fn any_bytes_are_a_key_and_a_ciphertext(bytes in prop::collection::vec(any::<u8>(), 1158)) {
        let mut random = Generator::new(&[1; 48]);
        let _ = sntrup761::encapsulate(bytes.first_chunk().unwrap(), &mut |out| random.draw(out));
        let (secret, _) = sntrup761::generate(&mut |out| random.draw(out));
        let _ = sntrup761::decapsulate(&secret, bytes.first_chunk().unwrap());
    }
}
