//! Sorting secret numbers: which are compared does not depend on them.

/// Sorts by merge exchange (Knuth, The Art of Computer Programming, 5.2.2, algorithm M).
pub(super) fn sort(numbers: &mut [u32]) {
    let len = numbers.len();
    if len < 2 {
        return;
    }
    let top = len.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut distance) = (top, 0, p);
        loop {
            for index in 0..len - distance {
                if index & p == r
                    && let Some([first, .., last]) = numbers.get_mut(index..=index + distance)
                {
                    exchange(first, last);
                }
            }
            if q == p {
                break;
            }
            distance = q - p;
            q /= 2;
            r = p;
        }
        p /= 2;
    }
}

/// Puts the smaller of two numbers first, without a branch.
fn exchange(first: &mut u32, last: &mut u32) {
    let borrow = (u64::from(*last).wrapping_sub(u64::from(*first)) >> 63).to_le_bytes()[0];
    let mask = u32::from(borrow).wrapping_neg();
    let swap = mask & (*first ^ *last);
    *first ^= swap;
    *last ^= swap;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_numbers_are_sorted(mut numbers in prop::collection::vec(any::<u32>(), 0..800)) {
            let mut expected = numbers.clone();
            expected.sort_unstable();
            sort(&mut numbers);
            prop_assert_eq!(numbers, expected);
        }
    }
}
