//! Sinks that fail, and a disk that is full.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ketch_conformance::deliveries::judge::{Identity, Judge};
use ketch_conformance::deliveries::received::from_events;
use ketch_conformance::deliveries::{Mix, WriterConfig};
use ketch_conformance::tiny_disk::TinyDisk;

use super::chaos::{LIFE, kill_again_and_again};
use super::scene::{Load, Rules, Scene, seed};

const PATIENCE: Duration = Duration::from_secs(60);

/// A field of an event, by its dotted name.
fn field(line: &str, name: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let found = name
        .split('.')
        .try_fold(&event, |value, key| value.get(key))?;
    found.as_str().map(str::to_owned)
}

/// Row R18: a command that fails every second time gets every file all the same; one that fails for one
/// file always gives up that one alone.
#[test]
fn a_sink_that_fails_gets_everything_in_the_end_and_poison_is_set_aside() {
    let rules = Rules::default();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("take");
    // Fails for every second file the first two times, and for one file always.
    fs::write(
        &script,
        "event=$(cat)
case $event in *poison*) echo no >&2; exit 1;; esac
name=$(printf %s \"$event\" | cksum | tr -c '0-9\\n' -)
case $name in *[02468]-*)
    n=$(cat \"$1/$name\" 2>/dev/null || echo 0)
    echo $((n+1)) > \"$1/$name\"
    [ \"$n\" -ge 2 ] || exit 1;;
esac
[ -s \"$2\" ] || exit 1
printf '%s\\n' \"$event\" >> \"$1/events\"
",
    )
    .unwrap();
    let command = format!(
        "[[flow.sink]]
name = \"script\"
kind = \"command\"
command = [\"sh\", {:?}, {:?}, \"{{file}}\"]
",
        script,
        dir.path(),
    );
    let mut scene = Scene::with(Rules {
        flow: format!(
            "{}attempts = 4\nretry = {{ first = \"100ms\", max = \"500ms\" }}\n",
            rules.flow
        ),
        ..rules
    });
    scene.rules.sinks = Some(command);
    scene.configure("state");
    fs::write(scene.path("served/poison"), "bad").unwrap();
    let writing = scene.write(WriterConfig {
        seed: seed() + 8,
        files: 60,
        mix: Mix::NEW,
        ..WriterConfig::default()
    });
    let daemon = scene.daemon();
    writing.finish();
    let judge = scene.judge();
    let events = dir.path().join("events");
    let began = Instant::now();
    let verdict = loop {
        let text = fs::read_to_string(&events).unwrap_or_default();
        let verdict = judge.verdict(&from_events(&text, field).unwrap());
        let is_told = daemon.said().contains("poison");
        if verdict.lost.count == 0 && is_told || began.elapsed() > PATIENCE * 3 {
            break verdict;
        }
        sleep(Duration::from_millis(100));
    };
    let log = daemon.log();
    assert!(daemon.terminate().success());
    scene.assert_clean("failing sink", &verdict);
    assert!(log.contains("poison"), "it is told: {log}");
}

/// Events to standard output, under kills: at least once, with an id that stays.
#[test]
fn events_come_again_after_a_kill_with_the_same_id() {
    let mut scene = Scene::new();
    let sinks = format!(
        "{}[[flow.sink]]\nname = \"lines\"\nkind = \"stdout\"\n",
        scene.directory_sink()
    );
    scene.rules.sinks = Some(sinks);
    scene.configure("state");
    let load = Load {
        files: 200,
        kills: 5,
    };
    let writing = scene.write(load.writer(seed() + 9, LIFE));
    kill_again_and_again(&mut scene, seed() + 9, load, &writing);
    writing.finish();
    let daemon = scene.daemon();
    let verdict = scene.settled();
    assert!(daemon.terminate().success());
    // A kill may cut a line short: what follows begins in the middle of it.
    let out = fs::read(scene.path("state.out")).unwrap();
    let out = String::from_utf8_lossy(&out);
    scene.assert_clean("directory beside events", &verdict);
    let whole: String = out
        .lines()
        .filter(|line| field(line, "id").is_some())
        .map(|line| format!("{line}\n"))
        .collect();
    let judge = Judge::new(&scene.journal(), Identity::Path).unwrap();
    let events = judge.verdict(&from_events(&whole, field).unwrap());
    scene.assert_clean("events", &events);
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    for line in whole.lines() {
        *ids.entry(field(line, "id").unwrap()).or_default() += 1;
    }
    let again = ids.values().filter(|&&count| count > 1).count();
    println!("{} ids, {again} of them sent more than once", ids.len());
}

/// Row R7 of the listener: the destination is full, and later is not.
#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let disk = TinyDisk::mount(600).unwrap();
    let rules = Rules::default();
    let mut scene = Scene::with(Rules {
        flow: format!(
            "{}attempts = 1000\nretry = {{ first = \"100ms\", max = \"500ms\" }}\n",
            rules.flow
        ),
        ..rules
    });
    fs::remove_dir(scene.path("sink")).unwrap();
    std::os::unix::fs::symlink(disk.path(), scene.path("sink")).unwrap();
    let writing = scene.write(WriterConfig {
        seed: seed() + 10,
        files: 120,
        mix: Mix::NEW,
        ..WriterConfig::default()
    });
    let daemon = scene.daemon();
    writing.finish();
    let began = Instant::now();
    let mut arrived = 0;
    let is_told = || {
        let log = daemon.log();
        log.contains("No space") || log.contains("full")
    };
    // Full, and nothing more comes.
    while began.elapsed() < PATIENCE {
        sleep(Duration::from_secs(1));
        let now = scene.look().arrived;
        if now > 0 && now == arrived && is_told() {
            break;
        }
        arrived = now;
    }
    let backlog = scene.look().backlog;
    assert!(
        backlog > 0 && arrived > 0,
        "{backlog} wait, {arrived} arrived"
    );
    // Each attempt takes room, and gives it back: what waits for its name is empty.
    let is_given_back = (0..600).any(|_| {
        sleep(PATIENCE / 600);
        scene.look().unfinished_bytes == 0
    });
    assert!(is_given_back, "what is not there takes no room");
    let grown = Command::new("mount")
        .args(["-o", "remount,size=8m"])
        .arg(disk.path())
        .status()
        .unwrap();
    assert!(grown.success());
    let verdict = scene.settled();
    assert!(is_told(), "it is told: {}", daemon.log());
    assert!(daemon.terminate().success());
    scene.assert_clean("full disk", &verdict);
}
