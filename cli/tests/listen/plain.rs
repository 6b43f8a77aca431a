//! Everything at once, with nobody in the way; and with kills.

use std::time::Duration;

use ketch_conformance::deliveries::{Mix, WriterConfig};
use ketch_conformance::random::Random;

use super::chaos::kill_again_and_again;
use super::scene::{Scene, files, kills, seed};

/// Pause between two operations of a writer, so that its work lasts as long as the kills do.
const PACE: Duration = Duration::from_millis(12);

#[test]
fn every_final_version_arrives_once() {
    let mut scene = Scene::new();
    let files = files(600);
    let writing = scene.write(WriterConfig {
        seed: seed(),
        files,
        ..WriterConfig::default()
    });
    let daemon = scene.daemon();
    let written = writing.finish();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("plain", &verdict);
    assert!(verdict.finals as u64 > files / 2, "{verdict}");
    assert!(written.appended > 0 && written.replaced > 0 && written.removed > 0);
    assert_eq!(scene.unfinished(), 0, "temporary files are left");
}

/// Row R19.
#[test]
fn killed_at_any_moment_it_loses_and_doubles_nothing() {
    let mut scene = Scene::new();
    let (files, kills) = (files(500), kills(15));
    let writing = scene.write(WriterConfig {
        seed: seed(),
        files,
        pace: PACE,
        ..WriterConfig::default()
    });
    kill_again_and_again(&mut scene, seed(), kills, &writing);
    writing.finish();
    let daemon = scene.daemon();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("kill -9", &verdict);
    assert!(verdict.deliveries as u64 > files / 2, "{verdict}");
}

/// Row R25: what is asked to end finishes what it has begun, and a reload disturbs nothing.
#[test]
fn asked_to_end_or_to_reload_under_load_it_hands_over_cleanly() {
    let mut scene = Scene::new();
    let (files, times) = (files(300), kills(6));
    let mut random = Random::new(seed());
    let writing = scene.write(WriterConfig {
        seed: seed() + 1,
        files,
        pace: PACE,
        ..WriterConfig::default()
    });
    let mut half_done = 0;
    for _ in 0..times {
        let daemon = scene.daemon();
        std::thread::sleep(Duration::from_millis(800 + random.below(1500)));
        daemon.reload();
        std::thread::sleep(Duration::from_millis(random.below(400)));
        let log = daemon.log();
        let ended = daemon.terminate();
        assert!(ended.success(), "{ended}: {log}");
        half_done += usize::from(scene.backlog() > 0);
        assert_eq!(scene.unfinished(), 0, "it drains: nothing is left half-way");
    }
    println!("{times} ends, {half_done} of them with a backlog");
    writing.finish();
    let daemon = scene.daemon();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("SIGHUP and SIGTERM", &verdict);
    assert!(
        half_done > 0 && verdict.deliveries as u64 > files / 2,
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
