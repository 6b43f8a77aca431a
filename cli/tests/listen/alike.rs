//! Versions that are hard to tell apart, and files that are written for long.

use std::fs::{self, File};
use std::io::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use ketch_conformance::content::Sha256;
use ketch_conformance::deliveries::content::make;
use ketch_conformance::deliveries::{Journal, Verdict};

use super::scene::{PATIENCE, Rules, SETTLE, Scene, seed};

/// Row R13: a writer that pauses for longer than the rule asks. With a done-file the file arrives once
/// and whole; by stability alone as versions, each of which stood there, none torn within.
#[test]
fn a_file_that_drips_arrives_whole_or_as_what_stood_there() {
    for done_file in [true, false] {
        let rules = match done_file {
            true => Rules {
                settle: "{ done_file = \"{name}.done\" }".to_owned(),
                ..Rules::default()
            },
            false => Rules::default(),
        };
        let mut scene = Scene::with(rules);
        let mut journal = Journal::create(&scene.journal()).unwrap();
        let bytes = make(seed(), 1, 4000);
        journal
            .made(1, 4000, &Sha256::of(&bytes).to_string())
            .unwrap();
        let daemon = scene.daemon();
        let mut file = File::create(scene.path("served/drip")).unwrap();
        for part in 1..=4 {
            let from = (part - 1) * 1000;
            file.write_all(&bytes[from..part * 1000]).unwrap();
            if part < 4 {
                let sha256 = Sha256::of(&bytes[..part * 1000]).to_string();
                if !done_file {
                    journal.paused(b"drip", &sha256).unwrap();
                }
                sleep(SETTLE * 2);
                // The first pause lasts until it was seen, on however slow a machine.
                let began = Instant::now();
                while !done_file && scene.look().arrived == 0 && began.elapsed() < PATIENCE {
                    sleep(SETTLE / 4);
                }
            }
        }
        if done_file {
            assert_eq!(scene.look().arrived, 0, "not before the done-file is there");
            fs::write(scene.path("served/drip.done"), "").unwrap();
        }
        journal.stands(b"drip", 1).unwrap();
        let verdict = scene.settled();
        assert!(daemon.terminate().success());
        scene.assert_clean("a file that drips", &verdict);
        match done_file {
            true => assert_eq!(verdict.deliveries, 1, "{verdict}"),
            false => assert!(verdict.excused > 0, "its versions are seen: {verdict}"),
        }
    }
}

/// Row R14: files that are replaced by others of the same size and the same second.
#[test]
fn same_size_and_second_is_told_apart_by_content_where_that_is_asked_for() {
    let hash = alike("hash");
    assert!(hash.is_clean(), "{hash}");
    let fast = alike("fast");
    println!("same size and second: by content {hash}\nby size and time {fast}");
    assert_eq!(fast.torn.count, 0, "{fast}");
}

const ALIKE: u64 = 20;

fn alike(versions: &str) -> Verdict {
    let mut scene = Scene::with(Rules {
        flow: format!("versions = {versions:?}\n"),
        ..Rules::default()
    });
    let mut journal = Journal::create(&scene.journal()).unwrap();
    let time = SystemTime::now() - Duration::from_secs(1000);
    let put = |journal: &mut Journal, id: u64, name: &str| {
        let bytes = make(seed(), id, 3000);
        journal
            .made(id, 3000, &Sha256::of(&bytes).to_string())
            .unwrap();
        let part = scene.path(&format!("served/{name}.part"));
        let mut file = File::create(&part).unwrap();
        file.write_all(&bytes).unwrap();
        file.set_modified(time).unwrap();
        fs::rename(part, scene.path(&format!("served/{name}"))).unwrap();
        journal.stands(name.as_bytes(), id).unwrap();
    };
    for id in 0..ALIKE {
        put(&mut journal, id + 1, &format!("f{id}"));
    }
    let daemon = scene.daemon();
    let mut waited = 0;
    while daemon.began.elapsed() < Duration::from_secs(30) && waited == 0 {
        sleep(SETTLE * 3);
        waited += 1;
    }
    for id in 0..ALIKE {
        put(&mut journal, id + 1001, &format!("f{id}"));
    }
    sleep(SETTLE * 3);
    let verdict = match versions {
        "hash" => scene.settled(),
        _ => {
            let judge = scene.judge();
            let mut sink =
                ketch_conformance::deliveries::received::Directory::numbered(&scene.path("sink"));
            judge.verdict(sink.look().unwrap())
        }
    };
    if !daemon.terminate().success() || !verdict.is_clean() {
        scene.show_log();
    }
    verdict
}
