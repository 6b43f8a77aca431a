//! Several consumers of one directory that know nothing of each other: each file goes to one of them.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use ketch_conformance::deliveries::{Mix, WriterConfig};

use super::peers::tied;
use super::scene::{Rules, Scene, seed};

const FILES: u64 = 150;

/// Files below a directory that a consumer delivered: those whose last part begins with `mark`.
fn taken(dir: &Path, mark: char) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let end = name.rsplit('.').next().unwrap_or_default();
        count += match entry.file_type().unwrap().is_dir() {
            true => taken(&entry.path(), mark),
            false => usize::from(end.starts_with(mark)),
        };
    }
    count
}

/// Two daemons, each with a ledger of its own and the same place to move files to, and a program that
/// renames as Camel's `preMove` does.
#[test]
fn of_several_consumers_that_rename_first_one_gets_each_file() {
    let rules = Rules::default();
    let mut scene = Scene::with(Rules {
        flow: format!(
            "{}pre_move = \"work.part/{{path}}\"\nafter = {{ action = \"delete\" }}\n",
            rules.flow
        ),
        settle: "{ rule = \"immediately\" }".to_owned(),
        ..rules
    });
    let daemons = ['a', 'b'].map(|mark| {
        let name = format!("daemon-{mark}");
        let numbered = scene
            .directory_sink()
            .replace("{sequence}", &format!("{mark}{{sequence}}"));
        scene.rules.sinks = Some(numbered);
        scene.configure(&name);
        scene.daemon_with(&name)
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut other = tied(&root.join("target/peers/python/bin/python"), None)
        .arg(root.join("cli/tests/listen/pre_move.py"))
        .args([&scene.addr.port().to_string(), scene.server.user()])
        .arg(scene.server.identity().private())
        .arg(scene.path("served"))
        .arg("taken.part")
        .arg(scene.path("sink"))
        .arg("c0")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let writing = scene.write(WriterConfig {
        seed: seed() + 22,
        files: FILES,
        mix: Mix {
            create: 0,
            append: 0,
            ..Mix::NEW
        },
        ..WriterConfig::default()
    });
    writing.finish();
    let verdict = scene.settled();
    let ended = other.try_wait().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(ended.is_none(), "the other consumer ended: {ended:?}");
    for daemon in daemons {
        assert!(daemon.terminate().success());
    }
    let counts = ['a', 'b', 'c'].map(|mark| taken(&scene.path("sink"), mark));
    println!("{counts:?} of {FILES}");
    scene.assert_clean("several consumers", &verdict);
    assert_eq!(verdict.deliveries as u64, FILES);
}
