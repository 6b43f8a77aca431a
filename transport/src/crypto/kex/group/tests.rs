//! Which groups and values are taken.

use proptest::prelude::*;

use super::*;
use crate::pair::Seeded;

impl Group {
    /// The modulus as a server would name it.
    pub(in crate::crypto::kex) fn modulus_content(&self) -> Vec<u8> {
        content(&self.modulus.modulus().to_be_bytes())
    }

    /// Public values that no honest peer sends.
    pub(in crate::crypto::kex) fn bad_values(&self) -> Vec<Vec<u8>> {
        let p = self.modulus.modulus().as_ref();
        let bits = p.bits_precision() + 64;
        let p = p.clone().resize(bits);
        let one = BoxedUint::one().resize(bits);
        let encode = |number: BoxedUint| content(&number.to_be_bytes());
        let good = encode(p.shr(3));
        vec![
            Vec::new(),                    // 0
            vec![0],                       // 0, not as RFC 4251 §5 writes it
            vec![1],                       // 1
            encode(p.wrapping_sub(&one)),  // p - 1
            encode(p.clone()),             // p
            encode(p.wrapping_add(&one)),  // p + 1
            encode(p.wrapping_add(&p)),    // longer than p
            vec![0x7f; 8 * 1024],          // as long as a message can carry
            vec![0xff],                    // -1
            vec![0x80; 128],               // negative
            [&[0], &good[..]].concat(),    // a zero too many
            [&[0, 0], &good[..]].concat(), // two
        ]
    }
}

#[test]
fn the_published_primes_are_safe() {
    for group in [
        Group::modp_1024(),
        Group::modp_2048(),
        Group::modp_4096(),
        Group::modp_8192(),
    ] {
        assert_eq!(
            prime::is_safe(&group.modulus, &mut Seeded::new(1)),
            Ok(true)
        );
    }
}

/// A safe prime of 1031 bits, made by `openssl dhparam`: what a server's own modulus looks like.
fn own_modulus() -> Vec<u8> {
    content(&BoxedUint::from_be_hex(OWN, 1088).unwrap().to_be_bytes())
}

const OWN: &str = "\
    000000000000004482B27F1950A217FF858C991A9340DEF3492B04F26147C791E7D43969B1C24918EC3F337E\
    7087FB5C05E5E3B1A5021E5E3FC8B24457E48C467B293EBB87A966DF52A9740B15766CC29AAA8C53A5472CE8\
    8FE60B0F5CCC7E721D2CF54BF049E6EC7817CFC28597B3950C63D5F516032C903F1CA1AB62D8A6036FD33F6A\
    32F6B2C7";

fn take(p: &[u8], g: &[u8], bits: RangeInclusive<u32>) -> Result<Group, UnsafeGroup> {
    Group::new(p, g, bits, &mut Seeded::new(4))
}

#[test]
fn a_group_outside_of_what_was_asked_for_is_refused() {
    let named = |group: &Group, bits| take(&group.modulus_content(), &[2], bits).unwrap_err();
    let too_short = named(Group::modp_1024(), 2048..=8192);
    assert_eq!(too_short, UnsafeGroup::Size { bits: 1024 });
    let too_short = named(Group::modp_2048(), 3072..=8192);
    assert_eq!(too_short, UnsafeGroup::Size { bits: 2048 });
    let too_long = named(Group::modp_8192(), 2048..=4096);
    assert_eq!(too_long, UnsafeGroup::Size { bits: 8192 });
    // Whatever a caller allows, no more is looked at than the largest modulus.
    let mut huge = vec![0x7f; 2048];
    huge[2047] = 0xff;
    let too_long = take(&huge, &[2], 2048..=u32::MAX).unwrap_err();
    assert_eq!(too_long, UnsafeGroup::Size { bits: 16_383 });
}

#[test]
fn a_modulus_that_is_no_safe_prime_is_refused() {
    let p = Group::modp_2048().modulus_content();
    let mut even = p.clone();
    *even.last_mut().unwrap() &= 0xfe;
    assert_eq!(
        take(&even, &[2], 2048..=8192).unwrap_err(),
        UnsafeGroup::NotSafePrime
    );
    // Odd neighbours: composite, or with a q that is.
    for add in [2_u8, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24] {
        let mut near = p.clone();
        near[200] ^= add;
        assert_eq!(
            take(&near, &[2], 2048..=8192).unwrap_err(),
            UnsafeGroup::NotSafePrime
        );
    }
    // A prime whose q is not one: 2^521 - 1.
    let mut mersenne = vec![0xff; 66];
    mersenne[0] = 1;
    assert_eq!(
        take(&mersenne, &[2], 521..=8192).unwrap_err(),
        UnsafeGroup::NotSafePrime
    );
}

#[test]
fn a_generator_out_of_range_is_refused() {
    let p = own_modulus();
    let mut less = p.clone();
    *less.last_mut().unwrap() -= 1;
    let longer = [&[0x7f], &p[..]].concat();
    let mut more_bits = p.clone();
    more_bits[0] |= 0x40; // as many bytes
    for g in [&[1][..], &less, &p, &longer, &more_bits] {
        assert_eq!(
            take(&p, g, 1024..=8192).unwrap_err(),
            UnsafeGroup::Generator
        );
    }
    for g in [&[][..], &[0], &[0xff], &[0, 2]] {
        assert_eq!(
            take(&p, g, 1024..=8192).unwrap_err(),
            UnsafeGroup::Malformed
        );
    }
    *less.last_mut().unwrap() -= 1;
    take(&p, &less, 1024..=8192).unwrap(); // p - 2
    take(&p, &[2], 1024..=8192).unwrap();
}

#[test]
fn a_safe_modulus_is_tested_once() {
    struct Spent;
    impl Random for Spent {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), RandomFailed> {
            Err(RandomFailed)
        }
    }
    // 768 bits of RFC 2409 §6.1: known to nobody here until it is named.
    let p: Vec<u8> = {
        let p = BoxedUint::from_be_hex(OAKLEY_1, 768).unwrap();
        content(&p.to_be_bytes())
    };
    let untested = Group::new(&p, &[2], 768..=8192, &mut Spent).unwrap_err();
    assert_eq!(untested, UnsafeGroup::Random(RandomFailed));
    Group::new(&p, &[2], 768..=8192, &mut Seeded::new(1)).unwrap();
    Group::new(&p, &[3], 768..=8192, &mut Spent).unwrap();
}

/// What a server can make its client compute before it is refused: the bits of each power.
fn cost_of(p: &[u8], g: &[u8], bits: RangeInclusive<u32>) -> Vec<u32> {
    prime::POWERS.take();
    take(p, g, bits).unwrap_err();
    prime::POWERS.take()
}

#[test]
fn an_unsafe_group_costs_one_power_of_a_bounded_length_at_the_most() {
    let free: [u32; 0] = [];
    let published = Group::modp_4096().modulus_content();
    let mut even = published.clone();
    *even.last_mut().unwrap() &= 0xfe;
    assert_eq!(cost_of(&even, &[2], 3072..=4096), free);
    assert_eq!(cost_of(&published, &published, 3072..=4096), free);
    let short = Group::modp_1024().modulus_content();
    assert_eq!(cost_of(&short, &[2], 3072..=4096), free);
    assert_eq!(cost_of(&[0x7f; 2048], &[2], 3072..=4096), free);
    // Odd, of the right length, without small divisors, and composite: all that can be made of it is
    // one round of Miller and Rabin on q.
    let composite = |group: &Group| {
        let p = group.modulus.modulus().as_ref();
        let ahead = |n: u32| {
            let less = BoxedUint::from(2 * n).resize(p.bits_precision());
            p.wrapping_sub(&less)
        };
        let hard = (1..).map(ahead).find(|p| {
            let modulus = BoxedMontyParams::new_vartime(Odd::new(p.clone()).unwrap());
            !prime::has_small_divisor(modulus.modulus().as_ref()) && p.bit_vartime(1)
        });
        content(&hard.unwrap().to_be_bytes())
    };
    let hard = composite(Group::modp_4096());
    let cost = cost_of(&hard, &[2], 3072..=4096);
    assert!(cost == [4095], "{cost:?}");
    // Longer ones are not tested, whatever range is allowed.
    let long = composite(Group::modp_8192());
    assert_eq!(cost_of(&long, &[2], 3072..=8192), free);
    // A safe one costs three, once.
    prime::POWERS.take();
    take(&Group::modp_8192().modulus_content(), &[2], 3072..=8192).unwrap();
    assert_eq!(prime::POWERS.take(), free);
    let own = own_modulus();
    take(&own, &[3], 1024..=4096).unwrap();
    assert!(prime::POWERS.take().len() <= 3); // none if another test named it before
    take(&own, &[3], 1024..=4096).unwrap();
    assert_eq!(prime::POWERS.take(), free);
}

const OAKLEY_1: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A0879\
    8E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A3620\
    FFFFFFFFFFFFFFFF";

#[test]
fn a_modulus_of_any_number_of_bits_works() {
    // 1031 is no multiple of a word, nor of a byte.
    let group = take(&own_modulus(), &[5], 1031..=1031).unwrap();
    let (ann, bob) = (
        Secret::generate(&group, &mut Seeded::new(1)).unwrap(),
        Secret::generate(&group, &mut Seeded::new(2)).unwrap(),
    );
    let (to_bob, to_ann) = (ann.public(), bob.public());
    assert_eq!(
        ann.agree(&to_ann).unwrap().encoded(),
        bob.agree(&to_bob).unwrap().encoded()
    );
}

proptest! {
    #[test]
    fn a_small_safe_prime_is_told_from_every_other_number(word in any::<u64>()) {
        // Against division, on numbers of 64 bits with the highest set.
        let n = word | 1 << 63 | 1;
        let is_prime = |n: u64| {
            [2_u64, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37].iter().all(|&base| {
                let pow = |mut exponent: u64| {
                    let (mut power, mut square) = (1_u128, u128::from(base));
                    while exponent > 0 {
                        if exponent & 1 == 1 {
                            power = power * square % u128::from(n);
                        }
                        square = square * square % u128::from(n);
                        exponent >>= 1;
                    }
                    power
                };
                let twos = (n - 1).trailing_zeros();
                let mut power = pow((n - 1) >> twos);
                power == 1 || (0..twos).any(|_| {
                    let is = power == u128::from(n - 1);
                    power = power * power % u128::from(n);
                    is
                })
            })
        };
        let p = Odd::new(BoxedUint::from(n)).unwrap();
        let modulus = BoxedMontyParams::new_vartime(p);
        let safe = prime::is_safe(&modulus, &mut Seeded::new(word)).unwrap();
        prop_assert_eq!(safe, is_prime(n) && is_prime((n - 1) / 2));
    }

    #[test]
    fn any_bytes_are_a_value_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(value) = Group::modp_2048().public_value(&bytes) {
            prop_assert_eq!(content(&value.retrieve().to_be_bytes()), bytes);
        }
    }

    #[test]
    fn any_bytes_are_a_group_or_none(
        p in proptest::collection::vec(any::<u8>(), 0..160), g in proptest::collection::vec(any::<u8>(), 0..160),
    ) {
        drop(take(&p, &g, 512..=8192));
    }
}
