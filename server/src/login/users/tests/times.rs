//! How long it takes to decide about users who exist and about users who do not (A8, K23): printed,
//! never judged. `KETCH_TIMES=1000000` takes as many samples of each kind as the table of threats
//! asks for; what a peer sees has the floor and its jitter on top.

use std::hint::black_box;
use std::time::Instant;

use super::*;

const SAMPLES: usize = 500;
/// Samples above this share are interruptions, not decisions.
const KEPT: f64 = 0.99;

/// Nanoseconds, sorted, without the slowest.
struct Times(Vec<f64>);

impl Times {
    fn of(mut nanos: Vec<f64>) -> Self {
        nanos.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a length"
        )]
        nanos.truncate((nanos.len() as f64 * KEPT) as usize);
        Self(nanos)
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn mean_and_variance_of_mean(&self) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
        let count = self.0.len() as f64;
        let mean = self.0.iter().sum::<f64>() / count;
        let square = self.0.iter().map(|each| (each - mean).powi(2)).sum::<f64>();
        (mean, square / (count - 1.0) / count)
    }
}

/// Welch's t of two samples.
fn welch(a: &Times, b: &Times) -> f64 {
    let ((a, of_a), (b, of_b)) = (a.mean_and_variance_of_mean(), b.mean_and_variance_of_mean());
    (a - b) / (of_a + of_b).sqrt()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn times_of_decisions_are_printed() {
    let samples = std::env::var("KETCH_TIMES").map_or(SAMPLES, |n| n.parse().unwrap());
    let names = |first: char| (0..16).map(move |n| format!("{first}nna{n:02}"));
    let known = names('a').map(|name| user(&name).password("right").authorized_key(key(1)));
    let users = users(known.collect()).unwrap();
    let names: Vec<[String; 2]> = names('a').zip(names('z')).map(<[_; 2]>::from).collect();
    for (kind, method) in [
        ("password", password("wrong")),
        ("query", query(key(2))),
        ("key", signed(key(2))),
    ] {
        let mut nanos = [Vec::new(), Vec::new()];
        for n in 0..samples {
            let pair = &names[n % names.len()];
            // Whoever comes second finds the caches warm: they take turns.
            for who in [n % 2, (n + 1) % 2] {
                let begun = Instant::now();
                black_box(check(black_box(&users), black_box(&pair[who]), &method));
                nanos[who].push(begun.elapsed().as_secs_f64() * 1e9);
            }
        }
        let [there, not_there] = nanos.map(Times::of);
        println!(
            "{kind}: {samples} each, median {:.0} ns and {:.0} ns, gap {:.0} ns, Welch's t {:.1}",
            there.median(),
            not_there.median(),
            (there.median() - not_there.median()).abs(),
            welch(&there, &not_there),
        );
    }
}
