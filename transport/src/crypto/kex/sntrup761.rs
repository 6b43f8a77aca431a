//! Streamlined NTRU Prime, sntrup761: the key encapsulation beside X25519 in
//! `sntrup761x25519-sha512` (draft-ietf-sshm-ntruprime-ssh; NTRU Prime, submission to round 3 of
//! NIST's project, "Streamlined NTRU Prime").
//!
//! The ring is Z[x]/(x^761 − x − 1), with coefficients modulo 4591 (`rq.rs`) or modulo 3 (`r3.rs`).
//! A key is `h = g/(3f)`, for secret `f` of weight 286 and small `g`; a ciphertext is `h·r`, each
//! coefficient rounded to a multiple of three, and a hash that confirms `r`; `encoding.rs` packs both.
//!
//! Nothing here branches on, indexes by or divides a secret. The loops over coefficients are plain
//! Rust that compilers turn into vector instructions.

mod encoding;
mod r3;
mod rq;
mod sort;

use ring::digest::{self, SHA512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Coefficients of a polynomial.
const P: usize = 761;
/// The modulus.
const Q: i16 = 4591;
/// Coefficients of a short polynomial that are not zero.
const WEIGHT: usize = 286;

/// Bytes of an encapsulation key.
pub(super) const KEY_LEN: usize = 1158;
/// Bytes of a ciphertext: the rounded polynomial and the hash that confirms it.
pub(super) const CIPHERTEXT_LEN: usize = ROUNDED_LEN + HASH_LEN;
const ROUNDED_LEN: usize = 1007;
const HASH_LEN: usize = 32;
/// Bytes of a small polynomial.
const SMALL_LEN: usize = P.div_ceil(4);

/// Coefficients −1, 0 and 1.
type Small = [i8; P];
/// Coefficients modulo [`Q`], each from −2295 to 2295.
type Large = [i16; P];

/// Fills a slice with random bytes; polynomials draw word by word.
type Draw<'a> = dyn FnMut(&mut [u8]) + 'a;

/// What opens ciphertexts; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Secret {
    f: Small,
    /// 1/g modulo 3.
    g_inverse: Small,
    h: Large,
    /// What takes the place of `r` where a ciphertext is not genuine.
    rho: [u8; SMALL_LEN],
    key_hash: [u8; HASH_LEN],
}

/// A new secret and its encapsulation key.
pub(super) fn generate(draw: &mut Draw<'_>) -> (Secret, [u8; KEY_LEN]) {
    let mut secret = Secret {
        f: [0; P],
        g_inverse: [0; P],
        h: [0; P],
        rho: [0; SMALL_LEN],
        key_hash: [0; HASH_LEN],
    };
    let mut g = Zeroizing::new([0; P]);
    // About one in a hundred has no inverse: which one that was tells nothing of the one that is used.
    loop {
        random_small(&mut g, draw);
        if r3::invert(&g, &mut secret.g_inverse) {
            break;
        }
    }
    random_short(&mut secret.f, draw);
    draw(&mut secret.rho);
    let mut inverse = Zeroizing::new([0; P]);
    rq::invert_three_times(&secret.f, &mut inverse);
    rq::multiply(&inverse, &g, &mut secret.h);
    let key = encoding::encode_key(&secret.h);
    secret.key_hash = hash(4, &[&key]);
    (secret, key)
}

/// A ciphertext for a key, and the secret in it.
///
/// Any bytes are a key: a coefficient that is too large stands for its remainder.
pub(super) fn encapsulate(
    key: &[u8; KEY_LEN],
    draw: &mut Draw<'_>,
) -> ([u8; CIPHERTEXT_LEN], Zeroizing<[u8; HASH_LEN]>) {
    let mut r = Zeroizing::new([0; P]);
    random_short(&mut r, draw);
    let h = encoding::decode_key(key);
    let packed = Zeroizing::new(encoding::pack_small(&r));
    let ciphertext = hide(&r, &packed, &h, &hash(4, &[key]));
    let secret = session(1, &packed, &ciphertext);
    (ciphertext, secret)
}

/// The secret in a ciphertext; one that nobody knows if the ciphertext was not made for this key.
pub(super) fn decapsulate(
    secret: &Secret,
    ciphertext: &[u8; CIPHERTEXT_LEN],
) -> Zeroizing<[u8; HASH_LEN]> {
    let r = open(secret, ciphertext);
    let mut packed = Zeroizing::new(encoding::pack_small(&r));
    let again = hide(&r, &packed, &secret.h, &secret.key_hash);
    let differing = again
        .iter()
        .zip(ciphertext)
        .fold(0, |bits, (ours, theirs)| bits | (ours ^ theirs));
    // All ones if anything differs, else zero.
    let mask = ((u16::from(differing) + 0xff) >> 8)
        .wrapping_neg()
        .to_le_bytes()[0];
    for (byte, other) in packed.iter_mut().zip(&secret.rho) {
        *byte ^= mask & (*byte ^ other);
    }
    session(1 ^ (mask & 1), &packed, ciphertext)
}

/// The polynomial in a ciphertext; some short one if it is not genuine.
fn open(secret: &Secret, ciphertext: &[u8; CIPHERTEXT_LEN]) -> Zeroizing<Small> {
    let rounded = encoding::decode_rounded(ciphertext.first_chunk().unwrap_or(&[0; ROUNDED_LEN]));
    let mut product = Zeroizing::new([0; P]);
    rq::multiply(&rounded, &secret.f, &mut product);
    let mut small = Zeroizing::new([0; P]);
    for (small, &coefficient) in small.iter_mut().zip(product.iter()) {
        *small = r3::reduce(rq::reduce(3 * i32::from(coefficient)));
    }
    let mut r = Zeroizing::new([0; P]);
    r3::multiply(&small, &secret.g_inverse, &mut r);
    let weight: usize = r
        .iter()
        .map(|&coefficient| usize::from(coefficient.unsigned_abs()))
        .sum();
    // All ones if the weight is another, else zero.
    let differs = (weight ^ WEIGHT).wrapping_neg() >> (usize::BITS - 1);
    let mask = differs.wrapping_neg().to_le_bytes()[0].cast_signed();
    for (index, coefficient) in r.iter_mut().enumerate() {
        let otherwise = i8::from(index < WEIGHT);
        *coefficient ^= mask & (*coefficient ^ otherwise);
    }
    r
}

/// The ciphertext of `r`.
fn hide(
    r: &Small,
    packed: &[u8; SMALL_LEN],
    h: &Large,
    key_hash: &[u8; HASH_LEN],
) -> [u8; CIPHERTEXT_LEN] {
    let mut product = Zeroizing::new([0; P]);
    rq::multiply(h, r, &mut product);
    for coefficient in product.iter_mut() {
        *coefficient -= i16::from(r3::reduce(*coefficient));
    }
    let mut ciphertext = [0; CIPHERTEXT_LEN];
    let (rounded, confirmation) = ciphertext.split_at_mut(ROUNDED_LEN);
    rounded.copy_from_slice(&encoding::encode_rounded(&product));
    let r_hash = Zeroizing::new(hash(3, &[packed]));
    confirmation.copy_from_slice(&hash(2, &[&*r_hash, key_hash]));
    ciphertext
}

fn session(
    genuine: u8,
    packed: &[u8; SMALL_LEN],
    ciphertext: &[u8; CIPHERTEXT_LEN],
) -> Zeroizing<[u8; HASH_LEN]> {
    let r_hash = Zeroizing::new(hash(3, &[packed]));
    Zeroizing::new(hash(genuine, &[&*r_hash, ciphertext]))
}

/// The first half of the SHA-512 of a number and of `parts`.
fn hash(number: u8, parts: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut context = digest::Context::new(&SHA512);
    context.update(&[number]);
    parts.iter().for_each(|part| context.update(part));
    let digest = context.finish();
    *digest.as_ref().first_chunk().unwrap_or(&[0; HASH_LEN])
}

fn word(draw: &mut Draw<'_>) -> u32 {
    let mut bytes = Zeroizing::new([0; 4]);
    draw(&mut *bytes);
    u32::from_le_bytes(*bytes)
}

/// Coefficients that are −1, 0 and 1 as often.
fn random_small(out: &mut Small, draw: &mut Draw<'_>) {
    for coefficient in out {
        let third = ((word(draw) & 0x3fff_ffff) * 3) >> 30;
        *coefficient = third.to_le_bytes()[0].cast_signed() - 1;
    }
}

/// [`WEIGHT`] coefficients that are −1 or 1, at random places: they are sorted by random numbers.
fn random_short(out: &mut Small, draw: &mut Draw<'_>) {
    let mut words = Zeroizing::new([0; P]);
    for (index, slot) in words.iter_mut().enumerate() {
        let random = word(draw);
        // The two lowest bits become the coefficient: 0 or 2 here, 1 there, less one.
        *slot = if index < WEIGHT {
            random & !1
        } else {
            (random & !3) | 1
        };
    }
    sort::sort(&mut *words);
    for (coefficient, word) in out.iter_mut().zip(words.iter()) {
        *coefficient = (word & 3).to_le_bytes()[0].cast_signed() - 1;
    }
}
