//! How long to wait after a failure, and whether a failure is the item's or everybody's.

use std::time::Duration;

use ketch_client::Kind;

/// The pause after the `failures`th failure in a row: between half and all of `first` doubled with
/// each, at most `max`. `chance` is any number.
#[must_use]
pub(crate) fn pause(failures: u32, first: Duration, max: Duration, chance: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let whole = first.saturating_mul(1 << doublings).min(max.max(first));
    let part = f64::from((chance & 0xffff) as u16) / 131_072.0;
    whole.mul_f64(0.5 + part)
}

/// Whether a failure says that nothing can be done at the moment, whichever item it is: the flow
/// waits, and the item's attempts are not counted.
pub(super) const fn is_outage(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Network
            | Kind::Timeout
            | Kind::NoSpace
            | Kind::Auth
            | Kind::HostKey
            | Kind::Algorithm
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_at_the_longest() {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(60));
        for chance in [0, 1, 0xffff, u64::MAX] {
            let mut last = Duration::ZERO;
            for failures in 1..40 {
                let pause = pause(failures, first, max, chance);
                assert!(pause >= last && pause <= max, "{failures}: {pause:?}");
                last = pause;
            }
            assert!(last >= max / 2);
        }
        assert_eq!(pause(1, first, max, 0), first / 2);
        assert_eq!(pause(0, first, max, 0), first / 2);
    }
}
