//! The ledger is lost, or damaged (row R21).

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ketch_conformance::deliveries::{Mix, WriterConfig};

use super::scene::{SETTLE, Scene, seed};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

fn delivered(seed: u64) -> Scene {
    let mut scene = Scene::new();
    let writing = scene.write(WriterConfig {
        seed,
        files: 80,
        mix: Mix::NEW,
        ..WriterConfig::default()
    });
    let daemon = scene.daemon();
    writing.finish();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean("before the damage", &verdict);
    scene
}

/// A ledger whose pages are not what was written is refused, with what to do; nothing is sent again.
#[test]
fn a_damaged_ledger_is_refused_and_nothing_is_delivered_again() {
    let mut scene = delivered(seed() + 11);
    let before = scene.look().arrived;
    let ledger = scene.path("state/ledger.sqlite");
    let len = fs::metadata(&ledger).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&ledger).unwrap();
    for at in (4096..len).step_by(1024) {
        file.write_all_at(b"\xa5\x5a\xa5\x5a", at + 300).unwrap();
    }
    drop(file);
    for side in ["state/ledger.sqlite-wal", "state/ledger.sqlite-shm"] {
        let _ = fs::remove_file(scene.path(side));
    }
    let mut daemon = scene.daemon();
    let began = Instant::now();
    let is_told = |log: &str| log.contains("damaged") || log.contains("malformed");
    while !is_told(&daemon.said()) && daemon.ended().is_none() && began.elapsed() < PATIENCE {
        sleep(LOOK);
    }
    // Time in which it could deliver, if it went on.
    sleep(SETTLE * 2);
    let (ended, log) = (daemon.ended(), daemon.said());
    drop(daemon);
    assert!(is_told(&log), "{ended:?}: {log}");
    assert_eq!(scene.look().arrived, before, "{log}");
}

/// A snapshot is an acceleration: without it, or with a wrong one, nothing comes twice.
#[test]
fn a_lost_or_damaged_snapshot_costs_nothing_but_time() {
    let mut scene = delivered(seed() + 12);
    for damage in ["flip", "cut", "remove"] {
        let mut touched = 0;
        for entry in fs::read_dir(scene.path("state/snapshots")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            match damage {
                "flip" => {
                    let half = bytes.len() / 2;
                    bytes[half] ^= 0x10;
                    fs::write(&path, bytes).unwrap();
                }
                "cut" => fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            touched += 1;
        }
        assert_eq!(touched, 1, "one flow has one snapshot");
        let daemon = scene.daemon();
        let verdict = scene.settled();
        assert!(daemon.terminate().success());
        scene.assert_clean(damage, &verdict);
    }
}

/// Without a ledger nobody knows what was delivered: all comes again, whole, and nothing is missing.
#[test]
fn a_lost_ledger_loses_no_file() {
    let mut scene = delivered(seed() + 13);
    fs::rename(scene.path("state"), scene.path("lost")).unwrap();
    let daemon = scene.daemon();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    println!("after the loss of the ledger: {verdict}");
    assert_eq!(
        (verdict.lost.count, verdict.torn.count),
        (0, 0),
        "{verdict}"
    );
}
