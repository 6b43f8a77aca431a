//! What holds for two machines whatever the seed.

use proptest::prelude::*;

use super::{Pair, Seeded, Weather};

fn run(seed: u64, change: impl FnOnce(&mut Weather)) {
    let mut random = Seeded::new(seed);
    let mut weather = Weather::new(&mut random);
    change(&mut weather);
    Pair::new(weather, random).run();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        max_shrink_iters: 0, // a seed next to a failing one says nothing
        ..ProptestConfig::default()
    })]

    /// Login, channels, data both ways, back-pressure, new keys, early ends: what was sent arrives,
    /// nobody waits for ever, and no buffer passes its bound (asserted on the way).
    #[test]
    fn whatever_is_cut_or_late_every_byte_arrives_once(seed in any::<u64>()) {
        run(seed, |_| {});
    }

    #[test]
    fn new_keys_at_any_moment_lose_nothing(seed in any::<u64>()) {
        run(seed, |weather| {
            weather.rekeys = 60;
            weather.rekey_bytes = Some(30_000);
            weather.data_max = weather.data_max.min(200_000);
        });
    }

    #[test]
    fn channels_closed_at_any_moment_hurt_nobody(seed in any::<u64>()) {
        run(seed, |weather| {
            weather.cuts = true;
            weather.channels = 20;
            weather.data_max = weather.data_max.min(20_000);
        });
    }
}

#[test]
fn one_byte_at_a_time_is_enough() {
    for seed in 0..20 {
        run(seed, |weather| {
            weather.cut_max = 1;
            weather.wire_max = 1;
            weather.data_max = weather.data_max.min(1_000);
        });
    }
}
