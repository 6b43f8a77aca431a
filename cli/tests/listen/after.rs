//! What comes after a delivery takes nothing away that was not delivered.

use std::fs;
use std::path::Path;

use ketch_conformance::deliveries::{Mix, WriterConfig};

use super::chaos::{LIFE, kill_again_and_again};
use super::scene::{Load, Rules, Scene, seed};

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

fn run(after: &str, seed: u64) -> (Scene, Load, usize) {
    let rules = Rules::default();
    let mut scene = Scene::with(Rules {
        flow: format!("{}after = {after}\n", rules.flow),
        ..rules
    });
    let load = Load::new(250, 6);
    let writing = scene.write(WriterConfig {
        mix: Mix::NEW,
        ..load.writer(seed, LIFE)
    });
    kill_again_and_again(&mut scene, seed, load, &writing);
    writing.finish();
    let daemon = scene.daemon();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean(after, &verdict);
    assert_eq!(verdict.finals as u64, load.files);
    let left = count(&scene.path("served"));
    (scene, load, left)
}

#[test]
fn deleted_is_only_what_was_delivered() {
    let (.., left) = run("{ action = \"delete\" }", seed() + 6);
    assert_eq!(left, 0, "all was delivered, so all goes");
}

#[test]
fn moved_is_only_what_was_delivered() {
    let rule = "{ action = \"move\", to = \"done/{path}\" }";
    let (scene, load, left) = run(rule, seed() + 7);
    assert_eq!(
        count(&scene.path("served/done")),
        left,
        "nothing is left where it was"
    );
    assert_eq!(left as u64, load.files);
}
