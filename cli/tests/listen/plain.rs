//! Everything at once, with nobody in the way; and with kills.

use std::time::{Duration, Instant};

use ketch_conformance::deliveries::{Mix, WriterConfig};
use ketch_conformance::random::Random;

use super::chaos::{LIFE, kill_again_and_again};
use super::scene::{Load, Scene, seed};

/// How long a daemon works before it is asked to end, with few files: up to this.
const WORK: Duration = Duration::from_millis(2300);

#[test]
fn every_final_version_arrives_once() {
    let mut scene = Scene::new();
    let load = Load::new(600, 1);
    let files = load.files;
    let writing = scene.write(WriterConfig {
        pace: Duration::ZERO,
        ..load.writer(seed(), Duration::ZERO)
    });
    let daemon = scene.daemon();
    let written = writing.finish();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("plain", &verdict);
    assert!(verdict.finals as u64 > files / 2, "{verdict}");
    assert!(written.appended > 0 && written.replaced > 0 && written.removed > 0);
    assert_eq!(scene.look().unfinished, 0, "temporary files are left");
}

/// Row R19.
#[test]
fn killed_at_any_moment_it_loses_and_doubles_nothing() {
    let mut scene = Scene::new();
    let load = Load::new(500, 15);
    let writing = scene.write(load.writer(seed(), LIFE));
    kill_again_and_again(&mut scene, seed(), load, &writing);
    let daemon = scene.daemon();
    writing.finish();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("kill -9", &verdict);
    assert!(verdict.deliveries as u64 > load.files / 2, "{verdict}");
}

/// Row R25: what is asked to end finishes what it has begun, and a reload disturbs nothing.
#[test]
fn asked_to_end_or_to_reload_under_load_it_hands_over_cleanly() {
    let mut scene = Scene::new();
    let load = Load::new(300, 6);
    let mut random = Random::new(seed());
    let writing = scene.write(load.writer(seed() + 1, WORK * 3 / 4));
    let (mut half_done, mut at_work, mut arrived, mut longest) = (0, 0, 0, Duration::ZERO);
    for n in 0..load.kills {
        writing.allow(load.share(n));
        let daemon = scene.daemon();
        daemon.is_there();
        let work = load.stretched(WORK).mul_f64(0.4);
        let more = u64::try_from((work * 3 / 2).as_millis()).unwrap();
        std::thread::sleep(work + Duration::from_millis(random.below(more)));
        daemon.reload();
        std::thread::sleep(Duration::from_millis(random.below(400)));
        let log = daemon.log();
        let asked = Instant::now();
        let ended = daemon.terminate();
        longest = longest.max(asked.elapsed());
        assert!(ended.success(), "{ended}: {log}");
        let remains = scene.look();
        half_done += usize::from(remains.backlog > 0);
        at_work += usize::from(remains.arrived > arrived);
        arrived = remains.arrived;
        assert_eq!(remains.unfinished, 0, "it drains: nothing is left half-way");
        assert_eq!(
            scene.spooled().len(),
            0,
            "nothing is left of what was fetched"
        );
    }
    let times = load.kills;
    println!(
        "{times} ends, {half_done} with a backlog, {at_work} after arrivals, {longest:?} at most"
    );
    let daemon = scene.daemon();
    writing.finish();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("SIGHUP and SIGTERM", &verdict);
    assert!(
        half_done > 0 && verdict.deliveries as u64 > load.files / 2,
        "{verdict}"
    );
}

/// Rows L1 and R16: names of any bytes, and times from 1970 to 2106 in any order.
#[test]
fn odd_names_and_times_that_jump_are_delivered_as_they_are() {
    let mut scene = Scene::new();
    let writing = scene.write(WriterConfig {
        seed: seed() + 2,
        files: 150,
        mix: Mix::STAGED,
        odd_names: true,
        odd_times: true,
        pace: Duration::from_millis(5),
        ..WriterConfig::default()
    });
    let daemon = scene.daemon();
    writing.finish();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("odd names and times", &verdict);
    // Started anew, it knows them all.
    let daemon = scene.daemon();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("odd names and times, started anew", &verdict);
}
