//! What comes after a delivery takes nothing away that was not delivered.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ketch_conformance::deliveries::{Mix, WriterConfig};

use super::chaos::kill_again_and_again;
use super::scene::{Rules, Scene, files, kills, seed};

/// Files below a directory.
fn count(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => count(&entry.path()),
            false => 1,
        })
        .sum()
}

fn run(after: &str, seed: u64) -> (Scene, usize) {
    let rules = Rules::default();
    let mut scene = Scene::with(Rules {
        flow: format!("{}after = {after}\n", rules.flow),
        ..rules
    });
    let (files, kills) = (files(250), kills(6));
    let writing = scene.write(WriterConfig {
        seed,
        files,
        mix: Mix::NEW,
        pace: Duration::from_millis(12),
        ..WriterConfig::default()
    });
    kill_again_and_again(&mut scene, seed, kills, &writing);
    writing.finish();
    let daemon = scene.daemon();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean(after, &verdict);
    assert_eq!(verdict.finals as u64, files);
    let left = count(&scene.path("served"));
    (scene, left)
}

#[test]
fn deleted_is_only_what_was_delivered() {
    let (_, left) = run("{ action = \"delete\" }", seed() + 6);
    assert_eq!(left, 0, "all was delivered, so all goes");
}

#[test]
fn moved_is_only_what_was_delivered() {
    let rule = "{ action = \"move\", to = \"done/{path}\" }";
    let (scene, left) = run(rule, seed() + 7);
    assert_eq!(
        count(&scene.path("served/done")),
        left,
        "nothing is left where it was"
    );
    assert_eq!(left as u64, files(250));
}
