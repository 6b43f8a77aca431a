//! The way to the server breaks.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ketch_conformance::cutting_proxy::CuttingProxy;
use ketch_conformance::random::Random;

use super::scene::{Load, Scene, seed};

/// Time between two cuts, with few files: up to this.
const PEACE: Duration = Duration::from_millis(900);
/// Longest wait for a connection, with few files.
const MOMENT_MAX: Duration = Duration::from_secs(4);
/// How long the way swallows everything at most.
const SILENCE_MAX_MS: u64 = 1500;

#[test]
fn cut_or_silent_the_network_costs_nothing_but_time() {
    let mut scene = Scene::new();
    let proxy = CuttingProxy::start(scene.server.addr()).unwrap();
    scene.addr = proxy.addr();
    scene.configure("state");
    let load = Load::new(400, 12);
    let cuts = load.kills;
    let mut random = Random::new(seed());
    let daemon = scene.daemon();
    let writing = scene.write(load.writer(seed() + 3, PEACE * 3 / 5));
    let (mut cut, mut silences, mut interrupted) = (0, 0, 0);
    let peace = u64::try_from(load.stretched(PEACE).as_millis()).unwrap();
    for n in 0..cuts {
        writing.allow(load.share(n));
        sleep(Duration::from_millis(random.below(peace)));
        // There is a connection, and something comes over it: how much, is chance.
        let carried = proxy.carried() + random.below(20_000);
        let since = Instant::now();
        while proxy.carried() <= carried && since.elapsed() < load.stretched(MOMENT_MAX) {
            sleep(Duration::from_millis(1));
        }
        if random.chance(30) {
            proxy.silence(true);
            sleep(Duration::from_millis(random.below(SILENCE_MAX_MS)));
            if random.chance(70) {
                cut += proxy.cut();
            }
            proxy.silence(false);
            silences += 1;
        } else {
            cut += proxy.cut();
        }
        interrupted += usize::from(scene.look().backlog > 0);
    }
    println!("{cut} connections cut, {silences} silences, {interrupted} of {cuts} with a backlog");
    writing.finish();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("network", &verdict);
    assert!(cut > 0 && interrupted > 0);
    assert!(verdict.deliveries as u64 > load.files / 2, "{verdict}");
}
