//! Kills with -9 where files go to another machine: a server, a bucket (row R19).

use super::bucket::Bucket;
use super::chaos::{LIFE, kill_again_and_again};
use super::scene::{Load, Scene, seed};

fn run(what: &str, mut scene: Scene, seed: u64) {
    let load = Load::new(100, 3);
    let writing = scene.write(load.writer(seed, LIFE));
    kill_again_and_again(&mut scene, seed, load, &writing);
    let daemon = scene.daemon();
    writing.finish();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    scene.assert_clean(what, &verdict);
    assert!(verdict.deliveries as u64 > load.files / 2, "{verdict}");
}

#[test]
fn killed_at_any_moment_it_loses_and_doubles_nothing_on_a_server() {
    let mut scene = Scene::new();
    scene.rules.sinks = Some(scene.sftp_sink());
    scene.configure("state");
    run("kill -9, to a server", scene, seed() + 20);
}

#[test]
fn killed_at_any_moment_it_loses_and_doubles_nothing_in_a_bucket() {
    let mut scene = Scene::new();
    let bucket = Bucket::start(&scene.path("sink"));
    scene.rules.sinks = Some(bucket.sink());
    scene.bucket = Some(bucket);
    scene.configure("state");
    run("kill -9, to a bucket", scene, seed() + 21);
}
