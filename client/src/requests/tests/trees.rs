//! What is below directories: walked through, matched, removed, copied; against OpenSSH's server,
//! and against one that lies.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::Path};

use ketch_protocol::{PacketType, RemotePath, StatusCode};
use proptest::{collection::btree_set, prelude::*};

use super::{
    pipe::Pipe,
    server::{Habits, Node},
    sim::Sim,
};
use crate::{Failure, FileType, Glob, Kind, OpenOptions, Sftp, Walk, WalkError, WalkOptions};

async fn paths(mut walk: Walk) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    while let Some(entry) = walk.next().await {
        let path = entry.unwrap().path().to_string();
        assert!(paths.insert(path.clone()), "{path} twice");
    }
    paths
}

async fn glob(sftp: &Sftp, pattern: &str) -> BTreeSet<String> {
    paths(sftp.glob(pattern).unwrap()).await
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}

/// Two directories with files, a link into one of them, one back up, and one to nothing.
fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("in/a/deep")).unwrap();
    fs::create_dir_all(dir.join("in/b")).unwrap();
    fs::create_dir_all(dir.join("in/.hidden")).unwrap();
    for file in [
        "in/1.csv",
        "in/a/2.csv",
        "in/a/deep/3.csv",
        "in/b/4.txt",
        "in/.hidden/5.csv",
    ] {
        fs::write(dir.join(file), file).unwrap();
    }
    symlink("../a", dir.join("in/b/link")).unwrap();
    symlink("..", dir.join("in/a/up")).unwrap();
    symlink("nowhere", dir.join("in/broken")).unwrap();
}

#[test]
fn a_walk_tells_everything_once_and_goes_round_no_circle() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let plain = set(&[
        "in/.hidden",
        "in/.hidden/5.csv",
        "in/1.csv",
        "in/a",
        "in/a/2.csv",
        "in/a/deep",
        "in/a/deep/3.csv",
        "in/a/up",
        "in/b",
        "in/b/4.txt",
        "in/b/link",
        "in/broken",
    ]);
    let walked = pipe.run(paths(sftp.walk("in", WalkOptions::new())));
    assert_eq!(walked, plain);
    let followed = pipe.run(paths(
        sftp.walk("in", WalkOptions::new().follow_links(true)),
    ));
    let below_the_link = set(&[
        "in/b/link/2.csv",
        "in/b/link/deep",
        "in/b/link/deep/3.csv",
        "in/b/link/up",
    ]);
    assert_eq!(followed, &plain | &below_the_link);
    let shallow = pipe.run(paths(sftp.walk("in", WalkOptions::new().depth_max(1))));
    assert_eq!(shallow.len(), 5);
    pipe.run(async {
        let mut nowhere = sftp.walk("none", WalkOptions::new());
        let error = nowhere.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(nowhere.next().await.is_none());
        let mut small = sftp.walk("in", WalkOptions::new().entries_max(3));
        let mut last = None;
        while let Some(entry) = small.next().await {
            last = Some(entry);
        }
        assert!(
            matches!(last, Some(Err(WalkError::TooMany { .. }))),
            "{last:?}"
        );
    });
}

#[test]
fn globs_find_what_a_shell_finds() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let absolute = format!("{}/in/*.csv", dir.path().display());
    pipe.run(async {
        let table: [(&str, &[&str]); 11] = [
            ("in/*.csv", &["in/1.csv"]),
            ("in/*/*.csv", &["in/a/2.csv"]),
            (
                "in/*/*/*.csv",
                &["in/a/deep/3.csv", "in/a/up/1.csv", "in/b/link/2.csv"],
            ),
            ("**/*.csv", &["in/1.csv", "in/a/2.csv", "in/a/deep/3.csv"]),
            ("in/*/link/deep/3.csv", &["in/b/link/deep/3.csv"]),
            ("in/a/2.csv", &["in/a/2.csv"]),
            ("in/a/none", &[]),
            ("none/*", &[]),
            ("in/1.csv/*", &[]),
            ("in/.h*/*", &["in/.hidden/5.csv"]),
            ("in/[ab]", &["in/a", "in/b"]),
        ];
        for (pattern, wanted) in table {
            assert_eq!(glob(&sftp, pattern).await, set(wanted), "{pattern}");
        }
        assert_eq!(glob(&sftp, &absolute).await.len(), 1);
        assert_eq!(sftp.glob("[").unwrap_err().kind(), Kind::Local);
    });
}

#[test]
fn a_directory_goes_with_all_that_is_in_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    fs::write(dir.path().join("kept"), "kept").unwrap();
    symlink("../../kept", dir.path().join("in/a/to_kept")).unwrap();
    for n in 0..300 {
        fs::create_dir(dir.path().join(format!("in/d{n}"))).unwrap();
        fs::write(dir.path().join(format!("in/d{n}/f")), "").unwrap();
    }
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let report = pipe.run(sftp.remove_all("in")).unwrap();
    assert_eq!((report.files, report.directories), (309, 305));
    assert!(!dir.path().join("in").exists() && dir.path().join("kept").exists());
    assert_eq!(pipe.run(sftp.remove_all("in")).unwrap().files, 0);
    // A link goes, what it leads to stays.
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/f"), "").unwrap();
    symlink("full", dir.path().join("link")).unwrap();
    assert_eq!(pipe.run(sftp.remove_all("link")).unwrap().files, 1);
    assert!(dir.path().join("full/f").exists());
}

#[test]
fn what_is_not_removed_is_named_and_the_rest_goes() {
    let habits = Habits {
        fails: Some((PacketType::REMOVE, 3, StatusCode::PERMISSION_DENIED)),
        ..Habits::default()
    };
    let mut sim = Sim::new(habits, 1);
    sim.server.dir("/d");
    sim.server.dir("/d/e");
    for n in 0..20 {
        sim.server.file(&format!("/d/e/{n:02}"), Vec::new());
    }
    let sftp = sim.sftp.clone();
    // The second round takes what the first did not.
    let report = sim.run(sftp.remove_all("/d")).unwrap();
    assert_eq!((report.files, report.directories), (20, 2));

    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.dir("/d");
    sim.server.file("/d/a", Vec::new());
    // A directory that cannot be listed may be empty all the same.
    sim.server.nodes.insert(b"/d/b".to_vec(), Node::Link);
    sim.server.dir("/d/x");
    sim.server.habits.fails = Some((PacketType::OPENDIR, 2, StatusCode::PERMISSION_DENIED));
    let sftp = sim.sftp.clone();
    let done = sim.run(sftp.remove_all("/d"));
    assert!(done.is_ok(), "{done:?}");
}

#[test]
fn names_that_are_none_lead_nowhere() {
    for evil in ["../victim", "a/b", "", "x\0y"] {
        let habits = Habits {
            evil: vec![evil.as_bytes().to_vec()],
            ..Habits::default()
        };
        let mut sim = Sim::new(habits, 1);
        sim.server.dir("/d");
        sim.server.file("/d/good", Vec::new());
        sim.server.file("/victim", Vec::new());
        let sftp = sim.sftp.clone();
        let error = sim.run(sftp.remove_all("/d")).unwrap_err();
        assert_eq!(error.kind(), Kind::Peer, "{evil:?}");
        assert!(error.report.files == 1 && sim.server.data("/victim").is_some());
        assert_eq!(error.report.failed[0].path, RemotePath::from("/d"));
    }
}

#[test]
fn walks_and_globs_stay_below_where_they_began() {
    let long = "l".repeat(300);
    for evil in [
        "..",
        ".",
        "../victim",
        "/etc/passwd",
        "a/b",
        "a/",
        "",
        "x\0y",
        "c\n\u{1b}[2Jd",
        &long,
    ] {
        let habits = Habits {
            evil: vec![evil.as_bytes().to_vec()],
            ..Habits::default()
        };
        let mut sim = Sim::new(habits, 1);
        sim.server.dir("/d");
        sim.server.file("/d/good", Vec::new());
        sim.server.file("/victim", Vec::new());
        let sftp = sim.sftp.clone();
        let is_name = !evil.is_empty() && !evil.contains(['/', '\0']);
        for follow in [false, true] {
            let options = WalkOptions::new().follow_links(follow);
            for mut walk in [sftp.walk("/d", options), sftp.glob("/d/*").unwrap()] {
                let (mut found, mut refused) = (Vec::new(), 0);
                while let Some(entry) = sim.run(walk.next()) {
                    match entry {
                        Ok(entry) => found.push(entry.into_path()),
                        Err(WalkError::BadName { path }) => {
                            assert_eq!(path, RemotePath::from("/d"));
                            refused += 1;
                        }
                        Err(WalkError::Unreadable { .. }) if is_name => refused += 1,
                        Err(error) => panic!("{evil:?}: {error:?}"),
                    }
                }
                let name = RemotePath::from("/d").join(evil);
                assert!(found.contains(&"/d/good".into()), "{evil:?}");
                let others = found.iter().filter(|path| **path != "/d/good".into());
                for path in others {
                    // What is shown is one line that moves no cursor.
                    assert!(is_name && *path == name, "{evil:?} {path}");
                    assert!(!path.to_string().chars().any(char::is_control));
                    assert!(!path.as_bytes().ends_with(b"/.."), "{path}");
                }
                assert!(is_name || refused == 1, "{evil:?}");
            }
        }
    }
}

#[test]
fn what_is_missing_above_a_directory_is_created_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    pipe.run(async {
        sftp.create_dir_all("a/b/c").await.unwrap();
        sftp.create_dir_all("a/b/c").await.unwrap();
        sftp.create_dir_all("a/b/d").await.unwrap();
        assert!(sftp.try_exists("a/b/d").await.unwrap());
        assert!(!sftp.try_exists("a/b/e").await.unwrap());
        sftp.open("a/file", OpenOptions::writing()).await.unwrap();
        assert!(sftp.create_dir_all("a/file/x").await.is_err());
        assert!(sftp.create_dir_all("a/file").await.is_err());
    });
}

#[test]
fn a_copy_is_made_by_the_server_or_through_this_side() {
    let content = vec![7; 3_000_000];
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("from"), &content).unwrap();
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    fs::write(dir.path().join("to"), "old").unwrap();
    assert_eq!(pipe.run(sftp.copy("from", "to")).unwrap(), 3_000_000);
    assert!(fs::read(dir.path().join("to")).unwrap() == content);
    let missing = pipe.run(sftp.copy("none", "to")).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary");

    for fails in [
        None,
        Some((PacketType::WRITE, 3, StatusCode::NO_SPACE_ON_FILESYSTEM)),
    ] {
        let habits = Habits {
            fails,
            ..Habits::default()
        };
        let mut sim = Sim::new(habits, 1);
        sim.server.file("/from", content.clone());
        sim.server.file("/to", b"old".to_vec());
        let sftp = sim.sftp.clone();
        let copied = sim.run(sftp.copy("/from", "/to"));
        sim.settle();
        if fails.is_none() {
            assert_eq!(copied.unwrap(), 3_000_000);
            assert!(sim.server.data("/to").unwrap() == content);
        } else {
            assert_eq!(copied.unwrap_err().kind(), Kind::NoSpace);
            assert_eq!(sim.server.data("/to"), Some(&b"old"[..]));
        }
        assert_eq!(sim.server.paths(), ["/", "/from", "/to"]);
        assert_eq!(sim.server.handles(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_glob_finds_exactly_what_matches_it(
        files in btree_set("[ab.]{1,2}(/[ab.]{1,2}){0,3}", 0..15),
        pattern in "(\\*\\*|[ab*?]{1,2}|\\.[ab*]|[ab])(/(\\*\\*|[ab*?]{1,2}|[ab])){0,3}",
        seed in any::<u64>(),
    ) {
        let mut sim = Sim::new(Habits::default(), seed);
        let mut all = BTreeSet::new();
        for file in &files {
            let mut path = String::from("/t");
            sim.server.dir("/t");
            let parts: Vec<_> = file.split('/').collect();
            if parts.iter().any(|part| matches!(*part, "." | "..")) {
                continue;
            }
            for (index, part) in parts.iter().enumerate() {
                path = format!("{path}/{part}");
                if index + 1 < parts.len() {
                    // What was a file becomes a directory.
                    sim.server.dir(&path);
                } else if !sim.server.nodes.contains_key(path.as_bytes()) {
                    sim.server.file(&path, Vec::new());
                }
                all.insert(path.clone());
            }
        }
        let pattern = format!("/t/{pattern}");
        let glob_of = Glob::new(&pattern).unwrap();
        let wanted: BTreeSet<_> =
            all.into_iter().filter(|path| glob_of.matches(&path[..].into())).collect();
        let sftp = sim.sftp.clone();
        let found = sim.run(glob(&sftp, &pattern));
        prop_assert_eq!(found, wanted);
        sim.settle();
        prop_assert_eq!(sim.server.handles(), 0);
    }
}

#[test]
fn kinds_that_a_server_hides_are_asked_for() {
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.dir("/d");
    sim.server.dir("/d/e");
    sim.server.file("/d/e/f", Vec::new());
    let sftp = sim.sftp.clone();
    let kinds = sim.run(async {
        let mut walk = sftp.walk("/d", WalkOptions::new());
        let mut kinds = Vec::new();
        while let Some(entry) = walk.next().await {
            kinds.push(entry.unwrap().file_type());
        }
        kinds
    });
    assert_eq!(kinds, [FileType::Directory, FileType::Regular]);
}
