//! Syncs in both directions against a simulated server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ketch_protocol::{ExtensionName, PacketType, StatusCode, Times};
use proptest::prelude::*;

use super::{
    server::{Habits, Node},
    sim::{Sim, poll},
};
use crate::{
    Comparison, Control, Failure, Filter, Kind, Sftp, SyncAction, SyncError, SyncFault, SyncNews,
    SyncOptions, SyncReport, SyncStep, TransferError,
};

/// What the simulated server says of its files.
const TIME: u32 = 1_000_000_001;

/// Which way a test goes; the trees are `/t` on the server and `t` here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Down,
    Up,
}

const WAYS: [Way; 2] = [Way::Down, Way::Up];

/// Paths below a root with their content, `None` for directories.
type Model = BTreeMap<String, Option<Vec<u8>>>;

struct Scene {
    sim: Sim,
    dir: tempfile::TempDir,
    way: Way,
}

impl Scene {
    fn new(way: Way, habits: Habits, seed: u64) -> Self {
        let mut sim = Sim::new(habits, seed);
        sim.settle();
        sim.server.dir("/t");
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("t")).unwrap();
        // As the system names it, links in the way to it resolved.
        Self { sim, dir, way }
    }

    fn local(&self) -> std::path::PathBuf {
        self.dir.path().join("t")
    }

    fn server_file(&mut self, path: &str, data: &[u8], mtime: u32) {
        let times = Some(Times { atime: 7, mtime });
        let (data, mode) = (data.to_vec(), 0o644);
        let node = Node::File { data, times, mode };
        self.sim
            .server
            .nodes
            .insert(format!("/t/{path}").into_bytes(), node);
    }

    fn local_file(&self, path: &str, data: &[u8], mtime: u32) {
        let path = self.local().join(path);
        fs::write(&path, data).unwrap();
        set_time(&path, mtime);
    }

    fn source_file(&mut self, path: &str, data: &[u8], mtime: u32) {
        match self.way {
            Way::Down => self.server_file(path, data, mtime),
            Way::Up => self.local_file(path, data, mtime),
        }
    }

    fn destination_file(&mut self, path: &str, data: &[u8], mtime: u32) {
        match self.way {
            Way::Down => self.local_file(path, data, mtime),
            Way::Up => self.server_file(path, data, mtime),
        }
    }

    fn source_dir(&mut self, path: &str) {
        match self.way {
            Way::Down => self.sim.server.dir(&format!("/t/{path}")),
            Way::Up => fs::create_dir(self.local().join(path)).unwrap(),
        }
    }

    fn destination_dir(&mut self, path: &str) {
        match self.way {
            Way::Down => fs::create_dir(self.local().join(path)).unwrap(),
            Way::Up => self.sim.server.dir(&format!("/t/{path}")),
        }
    }

    fn on_server(&self) -> Model {
        let nodes = self.sim.server.nodes.iter();
        nodes
            .filter_map(|(path, node)| {
                let path = std::str::from_utf8(path).unwrap().strip_prefix("/t/")?;
                let data = match node {
                    Node::File { data, .. } => Some(data.clone()),
                    Node::Dir | Node::Link => None,
                };
                Some((path.to_owned(), data))
            })
            .collect()
    }

    fn here(&self) -> Model {
        fn walk(dir: &Path, prefix: &str, model: &mut Model) {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    walk(&path, &format!("{name}/"), model);
                    model.insert(name, None);
                } else {
                    model.insert(name, Some(fs::read(path).unwrap()));
                }
            }
        }
        let mut model = Model::new();
        walk(&self.local(), "", &mut model);
        model
    }

    fn source(&self) -> Model {
        match self.way {
            Way::Down => self.on_server(),
            Way::Up => self.here(),
        }
    }

    fn destination(&self) -> Model {
        match self.way {
            Way::Down => self.here(),
            Way::Up => self.on_server(),
        }
    }

    fn names(&self) -> Vec<String> {
        self.destination().into_keys().collect()
    }

    fn sync(&mut self, options: SyncOptions) -> Result<SyncReport, SyncError> {
        let (sftp, local) = (self.sim.sftp.clone(), self.local());
        self.sim.run(start(self.way, &sftp, &local, options))
    }
}

async fn start(
    way: Way,
    sftp: &Sftp,
    local: &Path,
    options: SyncOptions,
) -> Result<SyncReport, SyncError> {
    match way {
        Way::Down => sftp.sync_down("/t", local, options).await,
        Way::Up => sftp.sync_up(local, "/t", options).await,
    }
}

/// Steps by name: what is done at a time may end in any order.
fn sorted(steps: Vec<SyncStep>) -> Vec<String> {
    let said = |step: SyncStep| format!("{} {} {}", step.action, step.path, step.bytes);
    let mut said: Vec<_> = steps.into_iter().map(said).collect();
    said.sort();
    said
}

fn set_time(path: &Path, mtime: u32) {
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(u64::from(mtime));
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

fn incomplete(result: Result<SyncReport, SyncError>) -> SyncReport {
    match result {
        Err(SyncError::Incomplete { report }) => *report,
        other => panic!("{other:?}"),
    }
}

/// A tree on the source's side: three levels, an empty directory, an empty file.
fn fill(scene: &mut Scene) {
    for dir in ["a", "a/b", "empty"] {
        scene.source_dir(dir);
    }
    for (path, data) in [
        ("x", &b"one"[..]),
        ("a/y", b"two"),
        ("a/b/z", b""),
        ("a/b/long", &[7; 100_000]),
    ] {
        scene.source_file(path, data, TIME);
    }
}

#[test]
fn a_tree_is_mirrored_and_the_second_run_does_nothing() {
    for way in WAYS {
        let mut scene = Scene::new(way, Habits::default(), 1);
        fill(&mut scene);
        scene.destination_file("x", b"old", TIME - 1);
        let report = scene.sync(SyncOptions::new()).unwrap();
        assert_eq!(
            (report.copied, report.replaced, report.directories_made),
            (3, 1, 3)
        );
        assert_eq!(report.bytes, 100_006);
        assert_eq!(scene.source(), scene.destination());

        let opened = scene.sim.server.asked(PacketType::OPEN);
        let report = scene.sync(SyncOptions::new().delete(true)).unwrap();
        assert_eq!((report.unchanged, report.steps.len()), (4, 0), "{report:?}");
        assert_eq!(scene.sim.server.asked(PacketType::OPEN), opened);
        scene.sim.settle();
        assert_eq!(scene.sim.server.handles(), 0);
    }
}

#[test]
fn a_destination_that_is_not_there_is_made_and_a_source_must_be_there() {
    let mut scene = Scene::new(Way::Up, Habits::default(), 1);
    fill(&mut scene);
    let (sftp, local) = (scene.sim.sftp.clone(), scene.local());
    let up = sftp.sync_up(&local, "/new", SyncOptions::new());
    assert_eq!(scene.sim.run(up).unwrap().copied, 4);
    let down = sftp.sync_down("/new", local.join("new"), SyncOptions::new());
    assert_eq!(scene.sim.run(down).unwrap().copied, 4);

    let delete = SyncOptions::new().delete(true);
    let down = sftp.sync_down("/gone", &local, delete.clone());
    let error = scene.sim.run(down).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    let up = sftp.sync_up(local.join("gone"), "/new", delete.clone());
    let error = scene.sim.run(up).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    let up = sftp.sync_up(local.join("x"), "/new", delete);
    let error = scene.sim.run(up).unwrap_err();
    assert!(
        matches!(error, SyncError::NotADirectory { .. }),
        "{error:?}"
    );
    assert_eq!(scene.here().len(), 2 * 7 + 1);
    assert!(scene.sim.server.data("/new/x").is_some());
}

#[test]
fn what_only_the_destination_has_goes_last_and_only_if_all_went_well() {
    for way in WAYS {
        let mut scene = Scene::new(way, Habits::default(), 1);
        fill(&mut scene);
        for dir in ["gone", "gone/deep"] {
            scene.destination_dir(dir);
        }
        scene.destination_file("gone/deep/1", b"1", 5);
        scene.destination_file("2", b"2", 5);
        scene.destination_dir("kept");
        scene.destination_file("kept/x.keep", b"3", 5);
        scene.destination_file("kept/4", b"4", 5);
        let filter = Filter::new().exclude("*.keep").unwrap();
        let options = SyncOptions::new().delete(true).select(filter);

        let error = scene.sync(options.clone().delete_max(5)).unwrap_err();
        let SyncError::TooManyRemovals {
            found: 6,
            allowed: 5,
            report,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!((report.copied, report.removed), (4, 0));
        assert!(scene.names().contains(&"2".to_owned()));

        let before = scene.destination();
        let report = scene.sync(options.clone().dry_run(true)).unwrap();
        assert_eq!(report.removed, 5, "{report:?}");
        assert_eq!(scene.destination(), before);

        let report = scene.sync(options.clone().delete_max(6)).unwrap();
        assert_eq!(
            (report.removed, report.unchanged, report.skipped),
            (5, 4, 1)
        );
        let mut wanted = scene.source();
        wanted.insert("kept".to_owned(), None);
        wanted.insert("kept/x.keep".to_owned(), Some(b"3".to_vec()));
        assert_eq!(scene.destination(), wanted);
        assert_eq!(scene.sync(options).unwrap().steps, []);
    }
}

#[test]
fn half_a_listing_never_looks_like_removal() {
    for way in WAYS {
        for (packet_type, nth) in [(PacketType::OPENDIR, 2), (PacketType::READDIR, 1)] {
            let fails = Some((packet_type, nth, StatusCode::PERMISSION_DENIED));
            let mut scene = Scene::new(
                way,
                Habits {
                    fails,
                    ..Habits::default()
                },
                1,
            );
            fill(&mut scene);
            scene.destination_dir("a");
            scene.destination_file("a/y", b"old", 5);
            scene.destination_file("old", b"old", 5);
            let report = incomplete(scene.sync(SyncOptions::new().delete(true)));
            assert_eq!((report.failed_count, report.removed), (1, 0), "{report:?}");
            let names = scene.names();
            assert!(names.contains(&"old".to_owned()) && names.contains(&"a/y".to_owned()));
            let report = scene.sync(SyncOptions::new().delete(true)).unwrap();
            assert_eq!((report.failed_count, report.removed), (0, 1), "{report:?}");
            assert_eq!(scene.source(), scene.destination());
        }
    }
}

#[test]
fn one_file_that_fails_does_not_end_the_rest() {
    for way in WAYS {
        let packet_type = match way {
            Way::Down => PacketType::READ,
            Way::Up => PacketType::WRITE,
        };
        let fails = Some((packet_type, 1, StatusCode::FAILURE));
        let mut scene = Scene::new(
            way,
            Habits {
                fails,
                ..Habits::default()
            },
            1,
        );
        fill(&mut scene);
        scene.destination_file("old", b"old", 5);
        let failures = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&failures);
        let options = SyncOptions::new().delete(true).observer(move |news| {
            if let SyncNews::Failed(failed) = news {
                told.lock().unwrap().push(failed.path.to_string());
            }
        });
        let report = incomplete(scene.sync(options.clone()));
        assert_eq!(
            (report.failed_count, report.copied, report.removals_left),
            (1, 3, 1)
        );
        assert_eq!(
            *failures.lock().unwrap(),
            [report.failed[0].path.to_string()]
        );
        let report = scene.sync(options).unwrap();
        assert_eq!((report.copied, report.removed), (1, 1));
        assert_eq!(scene.source(), scene.destination());
    }
}

#[test]
fn two_kinds_of_things_of_one_name_are_both_left_unless_things_may_be_removed() {
    for way in WAYS {
        let mut scene = Scene::new(way, Habits::default(), 1);
        scene.source_dir("a");
        scene.source_file("a/in", b"1", TIME);
        scene.source_file("b", b"2", TIME);
        scene.destination_file("a", b"3", TIME);
        scene.destination_dir("b");
        scene.destination_file("b/in", b"4", TIME);
        let before = scene.destination();
        let report = incomplete(scene.sync(SyncOptions::new()));
        assert_eq!(report.failed_count, 2);
        assert!(
            report
                .failed
                .iter()
                .all(|failed| matches!(failed.error, SyncFault::Conflict { .. })),
            "{report:?}"
        );
        assert_eq!(scene.destination(), before);

        // The file `a`, the directory `b` and what is in it: no more than allowed.
        let delete = SyncOptions::new().delete(true);
        let error = scene.sync(delete.clone().delete_max(2)).unwrap_err();
        assert!(
            matches!(error, SyncError::TooManyRemovals { found: 3, .. }),
            "{error:?}"
        );
        assert_eq!(scene.destination(), before);
        let would = scene.sync(delete.clone().dry_run(true)).unwrap();
        assert_eq!(scene.destination(), before);
        let report = scene.sync(delete.clone().delete_max(3)).unwrap();
        assert_eq!(
            (report.copied, report.removed, report.directories_made),
            (2, 3, 1)
        );
        assert_eq!(sorted(would.steps), sorted(report.steps));
        assert_eq!(scene.source(), scene.destination());
        assert_eq!(scene.sync(delete).unwrap().steps, []);
    }
}

#[test]
fn a_directory_in_which_something_stays_is_not_changed_and_nothing_is_removed() {
    for way in WAYS {
        let mut scene = Scene::new(way, Habits::default(), 1);
        scene.source_file("b", b"2", TIME);
        scene.destination_dir("b");
        scene.destination_file("b/x.keep", b"4", TIME);
        scene.destination_file("b/other", b"4", TIME);
        scene.destination_file("old", b"4", TIME);
        let before = scene.destination();
        let filter = Filter::new().exclude("*.keep").unwrap();
        let options = SyncOptions::new().delete(true).select(filter);
        for dry_run in [true, false] {
            let report = incomplete(scene.sync(options.clone().dry_run(dry_run)));
            assert_eq!((report.failed_count, report.removed), (1, 0), "{report:?}");
            assert_eq!(scene.destination(), before);
        }
    }
}

#[test]
fn what_was_there_stays_if_what_is_to_take_its_place_cannot_be_brought() {
    // The new file cannot be read or written; the directory cannot be made.
    for (way, refused) in [
        (Way::Down, PacketType::READ),
        (Way::Up, PacketType::WRITE),
        (Way::Up, PacketType::MKDIR),
    ] {
        let fails = Some((refused, 1, StatusCode::PERMISSION_DENIED));
        let habits = Habits {
            fails,
            ..Habits::default()
        };
        let mut scene = Scene::new(way, habits, 1);
        if refused == PacketType::MKDIR {
            scene.source_dir("a");
            scene.destination_file("a", b"3", TIME);
        } else {
            scene.source_file("b", b"2", TIME);
            scene.destination_dir("b");
            scene.destination_file("b/in", b"4", TIME);
        }
        let before = scene.destination();
        let options = SyncOptions::new().delete(true);
        let report = incomplete(scene.sync(options.clone()));
        assert_eq!((report.failed_count, report.removed), (1, 0), "{report:?}");
        assert_eq!(scene.destination(), before, "{way:?} {refused:?}");
        scene.sync(options).unwrap();
        assert_eq!(scene.source(), scene.destination());
    }
}

#[test]
fn what_is_replaced_or_removed_goes_to_the_backup_with_its_path() {
    for (way, links) in [(Way::Down, true), (Way::Up, true), (Way::Up, false)] {
        let mut habits = Habits::default();
        if links {
            habits.extensions.push(ExtensionName::Hardlink);
        }
        let mut scene = Scene::new(way, habits, 1);
        fill(&mut scene);
        scene.source_file("d", b"file", TIME);
        scene.source_dir("f");
        scene.source_file("f/new", b"new", TIME);
        for dir in ["a", "d", "gone", "gone/empty"] {
            scene.destination_dir(dir);
        }
        for path in ["a/y", "d/in", "f", "gone/1"] {
            scene.destination_file(path, path.as_bytes(), 5);
        }
        let before = scene.destination();
        // Within the tree: it is not compared, and not removed.
        let directory = match way {
            Way::Down => scene.local().join("kept"),
            Way::Up => "/t/kept".into(),
        };
        let options = SyncOptions::new().delete(true).backup_dir(&directory);
        let would = scene.sync(options.clone().dry_run(true)).unwrap();
        assert_eq!(scene.destination(), before);
        let report = scene.sync(options.clone()).unwrap();
        assert_eq!(sorted(would.steps), sorted(report.steps));
        assert_eq!((report.backed_up, would.backed_up), (4, 4));
        let file = |data: &str| Some(data.as_bytes().to_vec());
        let mut wanted = scene.source();
        for path in ["kept", "kept/a", "kept/d", "kept/gone", "kept/gone/empty"] {
            wanted.insert(path.to_owned(), None);
        }
        for path in ["a/y", "d/in", "f", "gone/1"] {
            wanted.insert(format!("kept/{path}"), file(path));
        }
        assert_eq!(scene.destination(), wanted, "{way:?}");
        assert_eq!(scene.sync(options.clone()).unwrap().steps, []);

        // Once more over what is there: the newest is kept.
        scene.destination_file("a/y", b"newer", 6);
        assert_eq!(scene.sync(options).unwrap().backed_up, 1);
        wanted.insert("kept/a/y".to_owned(), file("newer"));
        assert_eq!(scene.destination(), wanted);
    }
}

#[test]
fn what_cannot_be_kept_is_not_replaced() {
    for way in WAYS {
        let mut scene = Scene::new(way, Habits::default(), 1);
        scene.source_file("a", b"new", TIME);
        scene.destination_file("a", b"old", 5);
        let (blocked, itself) = match way {
            Way::Down => (scene.dir.path().join("kept"), scene.local()),
            Way::Up => ("/kept".into(), "/t".into()),
        };
        // A directory has the name there.
        match way {
            Way::Down => fs::create_dir_all(blocked.join("a/b")).unwrap(),
            Way::Up => {
                for dir in ["/kept", "/kept/a", "/kept/a/b"] {
                    scene.sim.server.dir(dir);
                }
                scene.sim.server.habits.never_replaces = true;
            }
        }
        let before = scene.destination();
        let report = incomplete(scene.sync(SyncOptions::new().backup_dir(blocked)));
        assert_eq!(report.failed_count, 1, "{report:?}");
        assert_eq!(scene.destination(), before);
        let above = match way {
            Way::Down => scene.dir.path().to_owned(),
            Way::Up => "/".into(),
        };
        for place in [itself, above] {
            let error = scene.sync(SyncOptions::new().backup_dir(place));
            assert!(
                matches!(error, Err(SyncError::BackupInPlace { .. })),
                "{error:?}"
            );
        }
    }
}

/// As a run leaves it that was killed between the second name and what was to replace the first.
#[test]
#[cfg(unix)]
fn what_has_a_second_name_in_the_backup_already_is_removed_all_the_same() {
    let mut scene = Scene::new(Way::Down, Habits::default(), 1);
    scene.source_file("b", b"here", TIME);
    scene.destination_file("a", b"old", 5);
    let kept = scene.dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::hard_link(scene.local().join("a"), kept.join("a")).unwrap();
    let report = scene
        .sync(SyncOptions::new().delete(true).backup_dir(&kept))
        .unwrap();
    assert_eq!(report.backed_up, 1, "{report:?}");
    assert!(!scene.local().join("a").exists());
    assert_eq!(fs::read(kept.join("a")).unwrap(), b"old");
}

#[test]
fn content_is_compared_on_request() {
    for (way, hashes) in [
        (Way::Down, false),
        (Way::Up, false),
        (Way::Down, true),
        (Way::Up, true),
    ] {
        let mut habits = Habits::default();
        if hashes {
            habits.extensions.push(ExtensionName::CheckFileName);
        }
        let mut scene = Scene::new(way, habits, 1);
        let long = vec![7; 300_000];
        let mut other = long.clone();
        other[299_999] = 8;
        for (name, there) in [("same", &long), ("other", &other)] {
            scene.source_file(name, &long, TIME);
            scene.destination_file(name, there, TIME);
        }
        assert_eq!(scene.sync(SyncOptions::new()).unwrap().unchanged, 2);
        let options = SyncOptions::new().compare(Comparison::Content);
        let report = scene.sync(options.clone()).unwrap();
        assert_eq!((report.unchanged, report.replaced), (1, 1), "{report:?}");
        assert_eq!(scene.source(), scene.destination());
        let read = scene.sim.server.bytes_read;
        assert_eq!(scene.sync(options).unwrap().unchanged, 2);
        // A server that has checksums is not read.
        let has_read = scene.sim.server.bytes_read - read;
        assert_eq!(has_read, if hashes { 0 } else { 600_000 });
    }
}

#[test]
fn evil_names_are_refused_and_nothing_is_removed_then() {
    let evil = [
        &b".."[..],
        b"../x",
        b"/etc/x",
        b"a/b",
        b"a\\b",
        b"",
        b"nul\0",
    ];
    let habits = Habits {
        evil: evil.map(<[u8]>::to_vec).into(),
        ..Habits::default()
    };
    let mut scene = Scene::new(Way::Down, habits.clone(), 1);
    scene.source_file("fine", b"1", TIME);
    scene.destination_file("old", b"2", TIME);
    let report = incomplete(scene.sync(SyncOptions::new().delete(true)));
    // `..` is in every listing.
    assert_eq!(
        (report.failed_count, report.copied),
        (evil.len() as u64 - 1, 1)
    );
    assert_eq!(scene.names(), ["fine", "old"]);
    assert_eq!(fs::read_dir(scene.dir.path()).unwrap().count(), 1);

    // At the destination they are left alone.
    let mut scene = Scene::new(Way::Up, habits, 1);
    scene.source_file("fine", b"1", TIME);
    let report = scene.sync(SyncOptions::new().delete(true)).unwrap();
    assert_eq!(
        (report.copied, report.skipped, report.removed),
        (1, evil.len() as u64 - 1, 0)
    );
}

#[test]
fn a_name_that_is_listed_twice_is_believed_once() {
    let habits = Habits {
        evil: vec![b"a".to_vec()],
        ..Habits::default()
    };
    let mut scene = Scene::new(Way::Down, habits, 1);
    scene.source_dir("a");
    let report = incomplete(scene.sync(SyncOptions::new()));
    assert!(
        report
            .failed
            .iter()
            .any(|failed| matches!(failed.error, SyncFault::ListedTwice)),
        "{report:?}"
    );
    assert!(scene.local().join("a").is_dir());
}

#[test]
fn names_that_are_not_believed_are_shown_cut_and_soon_only_counted() {
    let evil = (0..1500).map(|n| format!("{n}{}", "x".repeat(2000)).into_bytes());
    let habits = Habits {
        evil: evil.collect(),
        names_max: 50,
        ..Habits::default()
    };
    let mut scene = Scene::new(Way::Down, habits.clone(), 1);
    scene.source_file("fine", b"1", TIME);
    let report = incomplete(scene.sync(SyncOptions::new()));
    assert_eq!((report.failed_count, report.copied), (1500, 1));
    assert_eq!(report.failed.len(), crate::REPORTED_MAX);
    for failed in &report.failed {
        assert_eq!(failed.path.as_bytes().len(), 255);
    }

    let mut scene = Scene::new(Way::Up, habits, 1);
    scene.source_file("fine", b"1", TIME);
    let report = scene.sync(SyncOptions::new().delete(true)).unwrap();
    assert_eq!((report.skipped, report.copied), (1500, 1));
}

#[test]
fn long_names_without_an_end_are_given_up_before_their_number_is() {
    let evil = (0..15_000).map(|n| format!("{n:0>250}").into_bytes());
    let habits = Habits {
        evil: evil.collect(),
        names_max: 500,
        ..Habits::default()
    };
    let mut scene = Scene::new(Way::Down, habits, 1);
    scene.sim.packets_max = 1000;
    let report = incomplete(scene.sync(SyncOptions::new()));
    let SyncFault::Transfer(TransferError::TooMuch { limit, .. }) = report.failed[0].error else {
        panic!("{:?}", report.failed[0])
    };
    assert_eq!(limit, "256 MiB of names in one directory");
}

#[test]
fn a_listing_without_an_end_is_given_up() {
    let habits = Habits {
        endless: true,
        ..Habits::default()
    };
    let mut scene = Scene::new(Way::Down, habits, 1);
    scene.destination_file("old", b"2", TIME);
    let report = incomplete(scene.sync(SyncOptions::new().delete(true)));
    assert!(
        matches!(
            report.failed[0].error,
            SyncFault::Transfer(TransferError::TooMuch { .. })
        ),
        "{report:?}"
    );
    assert_eq!(scene.names(), ["old"]);
}

#[test]
fn what_is_not_remembered_for_removal_is_left_for_another_run() {
    for way in WAYS {
        let mut scene = Scene::new(way, Habits::default(), 1);
        scene.destination_dir("gone");
        for n in 0..700 {
            scene.destination_file(&format!("gone/{n}"), b"", TIME);
        }
        let options = SyncOptions::new().delete(true);
        let report = incomplete(scene.sync(options.clone()));
        assert_eq!(
            (report.removed, report.removals_left),
            (499, 201),
            "{report:?}"
        );
        assert_eq!(scene.sync(options).unwrap().removed, 202);
        assert_eq!(scene.names(), [""; 0]);
    }
}

#[test]
fn changes_of_type_that_are_not_remembered_are_left_for_another_run() {
    let mut scene = Scene::new(Way::Up, Habits::default(), 1);
    for n in 0..700 {
        scene.source_file(&format!("{n}"), b"1", TIME);
        scene.destination_dir(&format!("{n}"));
    }
    let options = SyncOptions::new().delete(true);
    let report = incomplete(scene.sync(options.clone()));
    assert_eq!((report.failed_count, report.removals_left), (0, 200));
    assert_eq!((report.copied, report.removed), (500, 500));
    assert_eq!(scene.sync(options).unwrap().removed, 200);
    assert_eq!(scene.source(), scene.destination());
}

/// A file at the source and a link at the destination, whose server has no rename that replaces.
fn without_posix_rename() -> Scene {
    let habits = Habits {
        extensions: vec![ExtensionName::Limits],
        ..Habits::default()
    };
    let mut scene = Scene::new(Way::Up, habits, 1);
    scene.source_file("a", b"new", TIME);
    scene.sim.server.nodes.insert(b"/t/a".to_vec(), Node::Link);
    scene
}

#[test]
fn without_a_rename_that_replaces_neither_version_is_lost() {
    let options = SyncOptions::new().delete(true);
    let mut scene = without_posix_rename();
    scene.sync(options.clone()).unwrap();
    assert_eq!(scene.source(), scene.destination());
    let renames = scene.sim.server.asked(PacketType::RENAME);
    // What is asked last gives the new file its name: refused, the old one has it again.
    let mut scene = without_posix_rename();
    let refusal = (PacketType::RENAME, renames, StatusCode::PERMISSION_DENIED);
    scene.sim.server.habits.fails = Some(refusal);
    let before = scene.sim.server.nodes.clone();
    let report = incomplete(scene.sync(options.clone()));
    assert_eq!(report.failed_count, 1);
    assert_eq!(scene.sim.server.nodes, before);
    // From then on none is done: both are there, and the error says where.
    let mut scene = without_posix_rename();
    let mut asked = 0;
    scene.sim.server.lies = Some(Box::new(move |id, request| {
        asked += usize::from(request.packet_type() == PacketType::RENAME);
        let refused = asked >= renames && request.packet_type() == PacketType::RENAME;
        refused.then(|| {
            let mut out = Vec::new();
            let status = ketch_protocol::Status::new(StatusCode::PERMISSION_DENIED);
            ketch_protocol::Response::Status(status).encode_packet(id, &mut out);
            out
        })
    }));
    let report = incomplete(scene.sync(options));
    let SyncFault::Stranded { new, old, .. } = &report.failed[0].error else {
        panic!("{report:?}");
    };
    let nodes = &scene.sim.server.nodes;
    assert_eq!(nodes.get(old.as_bytes()), Some(&Node::Link));
    assert!(matches!(nodes.get(new.as_bytes()), Some(Node::File { data, .. }) if data == b"new"));
}

#[test]
fn an_earlier_backup_stays_if_nothing_can_take_its_place() {
    for extension in [None, Some(ExtensionName::Hardlink)] {
        let mut extensions = vec![ExtensionName::Limits];
        extensions.extend(extension);
        let habits = Habits {
            extensions,
            ..Habits::default()
        };
        let mut scene = Scene::new(Way::Up, habits, 1);
        scene.source_file("a", b"new", TIME);
        scene.destination_file("a", b"old", 5);
        scene.sim.server.dir("/kept");
        scene.sim.server.file("/kept/a", b"older".to_vec());
        // Neither a rename nor a link to that very name.
        scene.sim.server.lies = Some(Box::new(|id, request| {
            let refused = match request {
                ketch_protocol::Request::Rename(rename) => {
                    rename.to == b"/kept/a" && rename.from == b"/t/a"
                }
                ketch_protocol::Request::Extended(ketch_protocol::Extension::Hardlink(_)) => true,
                _ => false,
            };
            refused.then(|| {
                let mut out = Vec::new();
                let status = ketch_protocol::Status::new(StatusCode::FAILURE);
                ketch_protocol::Response::Status(status).encode_packet(id, &mut out);
                out
            })
        }));
        let before = scene.sim.server.nodes.clone();
        let report = incomplete(scene.sync(SyncOptions::new().backup_dir("/kept")));
        assert_eq!(report.failed_count, 1, "{report:?}");
        assert_eq!(scene.sim.server.nodes, before);
    }
}

#[test]
fn a_sync_that_changes_types_can_be_paused_and_takes_back_what_it_staged() {
    let mut scene = Scene::new(Way::Up, Habits::default(), 1);
    for n in 0..20 {
        scene.source_file(&format!("{n}"), b"new", TIME);
        let path = format!("/t/{n}").into_bytes();
        let node = if n % 2 == 0 { Node::Link } else { Node::Dir };
        scene.sim.server.nodes.insert(path, node);
    }
    let control = Control::new();
    let options = SyncOptions::new().delete(true).control(control.clone());
    let (sftp, local) = (scene.sim.sftp.clone(), scene.local());
    let mut sync = Box::pin(start(Way::Up, &sftp, &local, options));
    let settled = |sim: &Sim| {
        let nodes = sim.server.nodes.iter();
        let files = nodes.filter(|(_, node)| matches!(node, Node::File { .. }));
        files.filter(|(path, _)| !path.starts_with(b"/t/.")).count()
    };
    while settled(&scene.sim) == 0 {
        assert!(poll(sync.as_mut()).is_none(), "it ended too early");
        scene.sim.turn();
    }
    control.pause();
    for _ in 0..50 {
        assert!(poll(sync.as_mut()).is_none());
        scene.sim.settle();
    }
    assert!(settled(&scene.sim) <= 2, "nothing more is begun");
    control.cancel();
    let error = scene.sim.run(sync).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    let names: Vec<_> = scene.names();
    assert_eq!(names.len(), 20, "{names:?}");
    assert_eq!(names.iter().find(|name| name.starts_with('.')), None);
}

#[test]
fn what_killed_runs_left_is_removed_and_nothing_else() {
    for way in WAYS {
        let mut scene = Scene::new(way, Habits::default(), 1);
        fill(&mut scene);
        // Small ones have no name before they are whole.
        scene.source_file("large", &vec![7; 400_000], TIME);
        scene.sim.packets_max = 1;
        // A run that is dropped in the middle cannot clean up if nobody drives the connection any
        // more: the scene's server keeps what it has.
        let (sftp, local) = (scene.sim.sftp.clone(), scene.local());
        {
            let mut run = Box::pin(start(way, &sftp, &local, SyncOptions::new()));
            let leftover = |scene: &Scene| {
                let names = scene.names();
                names.into_iter().find(|name| name.contains(".ketch-"))
            };
            while leftover(&scene).is_none() {
                assert!(poll(run.as_mut()).is_none());
                scene.sim.turn();
            }
            if way == Way::Down {
                // As if it had been killed: what is dropped is removed.
                let name = leftover(&scene).unwrap();
                fs::hard_link(local.join(&name), local.join("kept")).unwrap();
                drop(run);
                scene.sim.settle();
                fs::rename(local.join("kept"), local.join(&name)).unwrap();
            } else {
                std::mem::forget(run);
                let server = std::mem::replace(&mut scene.sim, Sim::new(Habits::default(), 2));
                scene.sim.settle();
                scene.sim.server.nodes = server.server.nodes;
            }
        }
        scene.destination_file(".x.ketch-0123456789abcdef", b"of somebody else", u32::MAX);
        scene.destination_file(".x.ketch-fedcba9876543210", b"old", TIME);
        let report = scene.sync(SyncOptions::new().delete(true)).unwrap();
        assert!(report.leftovers_removed >= 2, "{report:?}");
        let mut wanted = scene.source();
        let name = ".x.ketch-0123456789abcdef".to_owned();
        wanted.insert(name, Some(b"of somebody else".to_vec()));
        assert_eq!(scene.destination(), wanted);
    }
}

#[test]
fn no_more_is_open_at_a_time_than_the_server_has_handles() {
    for way in WAYS {
        let mut habits = Habits::default();
        habits.limits.open_handles = 24;
        let mut scene = Scene::new(way, habits, 1);
        scene.sim.server.open_peak = 0;
        for dir in 0..40 {
            scene.source_dir(&dir.to_string());
            scene.destination_dir(&dir.to_string());
            for file in 0..20 {
                scene.source_file(&format!("{dir}/{file}"), b"new", TIME);
                scene.destination_file(&format!("{dir}/{file}"), b"old", TIME);
            }
        }
        let options = SyncOptions::new().compare(Comparison::Content);
        assert_eq!(scene.sync(options).unwrap().replaced, 800);
        let peak = scene.sim.server.open_peak;
        assert!(peak <= 24, "{way:?}: {peak}");
    }
}

#[test]
fn a_connection_that_ends_ends_the_sync() {
    for way in WAYS {
        let habits = Habits {
            silent_from: Some((PacketType::READDIR, 3)),
            silent_for_good: true,
            ..Habits::default()
        };
        let mut scene = Scene::new(way, habits, 1);
        fill(&mut scene);
        scene.destination_file("old", b"old", TIME);
        scene.destination_dir("a");
        let (sftp, local) = (scene.sim.sftp.clone(), scene.local());
        let options = SyncOptions::new().delete(true);
        let mut run = Box::pin(start(way, &sftp, &local, options));
        let mut error = None;
        for _ in 0..10_000 {
            if let Some(result) = poll(run.as_mut()) {
                error = Some(result.unwrap_err());
                break;
            }
            if !scene.sim.turn() {
                scene.sim.pass_time(crate::requests::stall::STALL_TIMEOUT);
            }
        }
        let error = error.expect("it ends");
        assert!(matches!(error, SyncError::Ended { .. }), "{error:?}");
        assert_eq!(error.kind(), Kind::Timeout);
        assert!(scene.names().contains(&"old".to_owned()));
    }
}

fn tree() -> impl Strategy<Value = Vec<(String, u8, usize)>> {
    proptest::collection::vec(("[a-e](/[a-e]){0,3}", any::<u8>(), 0..3000_usize), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_two_trees_become_one(
        source in tree(), destination in tree(), up in any::<bool>(), shuffle in any::<bool>(),
        short in any::<bool>(), seed in any::<u64>(),
    ) {
        let way = if up { Way::Up } else { Way::Down };
        let habits = Habits { shuffle, short, names_max: 3, ..Habits::default() };
        let mut scene = Scene::new(way, habits, seed);
        // Names with `.f` are files and all others directories, so that nothing is in conflict.
        for (is_source, tree) in [(true, source), (false, destination)] {
            let mut known = BTreeSet::new();
            for (path, byte, len) in tree {
                for (end, _) in path.match_indices('/') {
                    let above = &path[..end];
                    match known.insert(above.to_owned()) {
                        true if is_source => scene.source_dir(above),
                        true => scene.destination_dir(above),
                        false => {}
                    }
                }
                let (path, data) = (format!("{path}.f"), vec![byte; len]);
                if is_source {
                    scene.source_file(&path, &data, TIME);
                } else {
                    scene.destination_file(&path, &data, TIME + u32::from(byte));
                }
            }
        }
        let report = scene.sync(SyncOptions::new().delete(true).compare(Comparison::Content)).unwrap();
        prop_assert_eq!(scene.source(), scene.destination());
        let changes = report.steps.iter().all(|step| step.action.changes());
        prop_assert!(changes, "{:?}", report.steps);
        let again = scene.sync(SyncOptions::new().delete(true).compare(Comparison::Content)).unwrap();
        prop_assert_eq!(again.steps, []);
        prop_assert!(!report.steps.iter().any(|step| step.action == SyncAction::Extra));
        scene.sim.settle();
        prop_assert_eq!(scene.sim.server.handles(), 0);
    }
}
