//! A daemon at work for long: what it holds does not grow (row R29).
//!
//! `KETCH_LISTEN_SOAK` says for how many minutes; without it a few seconds show that it works.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ketch_conformance::deliveries::WriterConfig;

use super::scene::{Scene, number, seed};

/// As many go as come from then on, so the tree stays as large as it is.
const STANDING: usize = 1000;
const PACE: Duration = Duration::from_millis(20);
/// How often is looked at what the daemon holds, at the most.
const LOOK: Duration = Duration::from_secs(10);
/// Descriptors that may come and go with the work.
const DESCRIPTORS: u64 = 40;

#[test]
fn what_a_daemon_holds_does_not_grow_with_its_work() {
    let minutes = number("KETCH_LISTEN_SOAK", 0);
    let length = match minutes {
        0 => Duration::from_secs(3),
        minutes => Duration::from_secs(60 * minutes),
    };
    let mut scene = Scene::new();
    let writing = scene.write(WriterConfig {
        seed: seed() + 16,
        files: u64::MAX,
        len_max: 4000,
        standing_max: STANDING,
        pace: PACE,
        ..WriterConfig::default()
    });
    let daemon = scene.daemon();
    let began = Instant::now();
    let mut held = Vec::new();
    while began.elapsed() < length {
        sleep(LOOK.min(length / 4));
        let (at, now) = (began.elapsed(), daemon.holds());
        let remains = scene.look();
        println!("{:.0} s: {now:?}, {remains:?}", at.as_secs_f64());
        held.push((at, now));
    }
    writing.end();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("soak", &verdict);
    // The first third is for what is built once: connections, threads, pages of the ledger.
    let settled: Vec<_> = held.split_off(held.len() / 3);
    let memory: Vec<_> = settled
        .iter()
        .map(|(at, held)| (at.as_secs_f64(), f64::from(held.memory_kib)))
        .collect();
    let most = settled.iter().map(|(_, held)| held.descriptors).max();
    let least = settled.iter().map(|(_, held)| held.descriptors).min();
    println!(
        "{:.1} KiB an hour, {least:?} to {most:?} descriptors",
        slope(&memory) * 3600.0
    );
    assert!(most.unwrap() < least.unwrap() + DESCRIPTORS);
}

/// By how much the second grows with the first, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = f64::from(u32::try_from(points.len()).unwrap());
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(&|point| point.0), mean(&|point| point.1));
    let both = mean(&|point| (point.0 - x) * (point.1 - y));
    let square = mean(&|point| (point.0 - x) * (point.0 - x));
    both / square
}
