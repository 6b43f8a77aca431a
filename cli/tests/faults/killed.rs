//! `ketch` is killed at random moments of a transfer of two hundred files (row R2 of
//! `docs/threats.md`): what has its final name is whole, and the same command run again makes the
//! copy whole.
//!
//! `KETCH_KILLS=100` kills a hundred times each way.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;

use super::{LOOK, Scene};

const FILES: usize = 200;
/// Kills each way, unless `KETCH_KILLS` says how many.
const KILLS: u64 = 4;
/// How fast the first run is at most, which is stopped half-way for certain: a minute is not enough.
const SLOWLY: [&str; 2] = ["--limit", "50K"];

fn kills() -> u64 {
    let wanted = std::env::var("KETCH_KILLS").ok();
    wanted.map_or(KILLS, |kills| kills.parse().expect("a number"))
}

/// What is in a tree: parts of files are told apart.
fn tree(dir: &Path) -> (BTreeMap<PathBuf, Vec<u8>>, usize) {
    let (mut files, mut parts) = (BTreeMap::new(), 0);
    let mut dirs = vec![dir.to_owned()];
    while let Some(below) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&below) else {
            continue; // not begun
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(path);
            } else if path.to_string_lossy().contains(".ketch-") {
                parts += 1;
            } else {
                let content = fs::read(&path).unwrap();
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), content);
            }
        }
    }
    (files, parts)
}

fn make(dir: &Path) {
    for n in 0..FILES {
        let path = dir.join(format!("d{}/f{n}", n % 7));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let byte = u8::try_from(n).unwrap();
        fs::write(path, vec![byte; n * 997 % 40_000]).unwrap();
    }
}

/// Runs a command to its end.
fn finished(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn converges(scene: &Scene, transfer: impl Fn() -> Command, to: &Path) {
    let from = scene.path("from");
    make(&from);
    let (wanted, _) = tree(&from);
    let (mut seen_half, mut served) = (false, Vec::new());
    for seed in 0..kills() {
        let enough = usize::try_from(seed * 67 % 150).unwrap();
        let mut first = transfer();
        if seed == 0 {
            first.args(SLOWLY);
        }
        let mut child = first.spawn().unwrap();
        // When so many files are there, or parts of them, and not a moment later.
        while child.try_wait().unwrap().is_none() {
            let (there, parts) = tree(to);
            if there.len() + parts > enough {
                break;
            }
            sleep(LOOK);
        }
        served.extend(scene.server.process().descendants());
        child.kill().unwrap(); // SIGKILL
        drop(child.wait_with_output());
        let (there, parts) = tree(to);
        println!(
            "killed behind {enough}: {} files, {parts} parts",
            there.len()
        );
        seen_half |= there.len() + parts > 0 && there.len() < FILES;
        for (path, content) in &there {
            // What the server still writes after its client has gone has no final name.
            assert!(wanted.get(path) == Some(content), "{}", path.display());
        }
        finished(&mut transfer());
        let (there, _) = tree(to);
        assert!(there == wanted, "{} files after a second run", there.len());
        while !scene.server.is_idle(&served) {
            sleep(LOOK);
        }
        fs::remove_dir_all(to).unwrap();
    }
    assert!(seen_half, "never stopped half-way");
}

#[test]
fn a_download_that_was_killed_is_whole_when_it_has_run_again() {
    let scene = Scene::new();
    let (from, to) = (scene.path("from"), scene.path("here"));
    let transfer = || {
        let mut get = scene.get(&from, &to);
        get.arg("-r");
        get
    };
    converges(&scene, transfer, &to.join("from"));
}

#[test]
fn an_upload_that_was_killed_is_whole_when_it_has_run_again() {
    let scene = Scene::new();
    let (from, to) = (scene.path("from"), scene.path("there"));
    let transfer = || {
        let mut put = scene.put(&from, &to);
        put.arg("-r");
        put
    };
    converges(&scene, transfer, &to.join("from"));
}
