//! Several daemons on one ledger.

use std::thread::sleep;
use std::time::Duration;

use ketch_conformance::deliveries::WriterConfig;
use ketch_conformance::random::Random;

use super::daemon::Daemon;
use super::peers::postgres::Postgres;
use super::scene::{Load, Rules, Scene, seed};

const REPLICAS: u64 = 3;
/// Time between two kills, with few files: up to this.
const PEACE: Duration = Duration::from_millis(1500);

/// Rows R19 and R20: three replicas over PostgreSQL, one of which is killed at random and comes back.
#[test]
fn three_replicas_of_which_one_is_killed_lose_and_double_nothing() {
    let postgres = Postgres::start();
    let mut scene = Scene::with(Rules {
        top: format!(
            "[store]\npostgres = {:?}\nlease = \"2s\"\n",
            postgres.connect()
        ),
        ..Rules::default()
    });
    let load = Load::new(400, 8);
    let kills = load.kills;
    let mut random = Random::new(seed());
    let name = |n: u64| format!("replica{n}");
    let mut replicas: Vec<Daemon> = (0..REPLICAS)
        .map(|n| {
            scene.configure(&name(n));
            scene.daemon_with(&name(n))
        })
        .collect();
    let writing = scene.write(load.writer(seed() + 4, PEACE * 2 / 3));
    let mut interrupted = 0;
    let peace = u64::try_from(load.stretched(PEACE).as_millis()).unwrap();
    for n in 0..kills {
        writing.allow(load.share(n));
        sleep(Duration::from_millis(random.below(peace)));
        let n = random.below(REPLICAS);
        let at = usize::try_from(n).unwrap();
        replicas.remove(at).kill();
        interrupted += usize::from(scene.look().backlog > 0);
        sleep(Duration::from_millis(random.below(300)));
        replicas.insert(at, scene.daemon_with(&name(n)));
    }
    println!("{kills} kills, {interrupted} of them with a backlog");
    writing.finish();
    let verdict = scene.settled();
    for replica in replicas {
        assert!(replica.terminate().success());
    }
    scene.assert_clean("replicas", &verdict);
    assert!(
        interrupted > 0 && verdict.deliveries as u64 > load.files / 2,
        "{verdict}"
    );
}

/// Row R20: a second daemon on one embedded ledger does not work beside the first.
#[test]
fn two_daemons_on_one_ledger_deliver_once() {
    let mut scene = Scene::new();
    let writing = scene.write(WriterConfig {
        seed: seed() + 5,
        files: 150,
        pace: Duration::from_millis(10),
        ..WriterConfig::default()
    });
    let first = scene.daemon();
    first.is_there();
    let mut second = scene.daemon();
    assert!(!second.wait().success());
    second.until_said("in use");
    first.kill();
    let second = scene.daemon();
    writing.finish();
    let verdict = scene.settled();
    assert!(second.terminate().success());
    scene.assert_clean("two on one ledger", &verdict);
}
