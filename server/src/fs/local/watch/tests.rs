//! Real directories, changed while they are watched.

#![expect(clippy::disallowed_methods, reason = "a test waits")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ketch_protocol::WatchKinds;

use super::*;
use crate::fs::feed::{FeedEnd, SESSION_DIRECTORIES_MAX};

/// How long what must come is waited for: it decides nothing but how long a failure takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn path(named: &str) -> VPath {
    VPath::resolve(named.as_bytes()).unwrap()
}

struct Scene {
    directory: tempfile::TempDir,
    feed: Feed,
    counted: Arc<AtomicUsize>,
    told: Vec<FeedEvent>,
    held: Option<Subscription>,
}

fn try_watch(directory: &Path, at: &str, feed: &Feed, recursive: bool) -> io::Result<Subscription> {
    let files = Arc::new(LocalDirectory::open(directory)?);
    let request = WatchRequest {
        path: path(at),
        recursive,
    };
    watch(&files, request, feed.clone())
}

/// Watches `at` of a directory in which `prepare` made what is there before.
fn scene(at: &str, recursive: bool, prepare: impl FnOnce(&Path)) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path());
    let counted = Arc::new(AtomicUsize::new(0));
    let feed = Feed::new(WatchKinds::ALL, Arc::clone(&counted), || {});
    let held = try_watch(directory.path(), at, &feed, recursive).unwrap();
    Scene {
        directory,
        feed,
        counted,
        told: Vec::new(),
        held: Some(held),
    }
}

impl Scene {
    fn at(&self, named: &str) -> std::path::PathBuf {
        self.directory.path().join(named)
    }

    fn collect(&mut self) -> Result<(), FeedEnd> {
        let told = &mut self.told;
        self.feed.take(|event| {
            told.push(event.clone());
            true
        })
    }

    /// Waits until `is_there` holds of everything that was told.
    fn wait(&mut self, what: &str, is_there: impl Fn(&[FeedEvent]) -> bool) {
        let start = Instant::now();
        loop {
            self.collect().unwrap();
            if is_there(&self.told) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {:#?}", self.told);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_for(&mut self, expected: &FeedEvent) {
        self.wait(&format!("{expected:?}"), |told| told.contains(expected));
    }

    fn wait_for_end(&mut self) {
        let start = Instant::now();
        while self.collect() != Err(FeedEnd::Gone) {
            assert!(start.elapsed() < PATIENCE, "{:#?}", self.told);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn created(named: &str, is_directory: bool) -> FeedEvent {
    FeedEvent::Created {
        path: path(named),
        is_directory,
    }
}

fn written(named: &str) -> FeedEvent {
    FeedEvent::Written { path: path(named) }
}

fn removed(named: &str, is_directory: bool) -> FeedEvent {
    FeedEvent::Removed {
        path: path(named),
        is_directory,
    }
}

fn renamed(from: &str, to: &str, is_directory: bool) -> FeedEvent {
    FeedEvent::Renamed {
        path: path(from),
        to: path(to),
        is_directory,
    }
}

#[test]
fn files_that_others_make_write_rename_and_remove_are_told_in_order() {
    let mut scene = scene("/in", false, |top| {
        fs::create_dir_all(top.join("in/below")).unwrap();
    });
    let from_another = {
        let at = scene.at("in");
        std::thread::spawn(move || {
            fs::write(at.join("below/unseen"), "x").unwrap();
            fs::write(at.join("f.part"), "content").unwrap();
            fs::rename(at.join("f.part"), at.join("f")).unwrap();
            fs::remove_file(at.join("f")).unwrap();
        })
    };
    from_another.join().unwrap();
    scene.wait_for(&removed("/in/f", false));
    let expected = [
        created("/in/f.part", false),
        FeedEvent::Modified {
            path: path("/in/f.part"),
        },
        written("/in/f.part"),
        renamed("/in/f.part", "/in/f", false),
        removed("/in/f", false),
    ];
    assert_eq!(scene.told, expected);
}

#[test]
fn whatever_is_made_in_new_directories_is_told_however_fast_it_is_made() {
    let mut scene = scene("/", true, |_| {});
    let mut expected = BTreeSet::new();
    for n in 0..120 {
        let deep = format!("d{n}/e/f/g");
        // Whoever makes the lower ones is faster than who has to watch the upper ones.
        fs::create_dir_all(scene.at(&deep)).unwrap();
        for file in ["one", "two"] {
            fs::write(scene.at(&format!("{deep}/{file}")), "x").unwrap();
            expected.insert(path(&format!("{deep}/{file}")));
        }
        if n % 3 == 0 {
            // And some are renamed before anybody looked.
            fs::rename(scene.at(&format!("d{n}")), scene.at(&format!("r{n}"))).unwrap();
            let moved = path(&format!("r{n}/e/f/g/three"));
            fs::write(scene.at(&format!("r{n}/e/f/g/three")), "x").unwrap();
            expected.retain(|path| !path.as_bytes().starts_with(format!("/d{n}/").as_bytes()));
            expected.insert(moved);
        }
    }
    scene.wait("all files", |told| {
        let is_told = |path: &VPath| {
            told.iter().any(|event| match event {
                FeedEvent::Created { path: new, .. } | FeedEvent::Written { path: new } => {
                    new == path
                }
                _ => false,
            })
        };
        expected.iter().all(is_told)
    });
    assert!(!scene.told.contains(&FeedEvent::Overflow));
    // All of them are watched now: what comes next is told by the kernel itself.
    for n in 0..120 {
        let name = if n % 3 == 0 { 'r' } else { 'd' };
        let late = format!("{name}{n}/e/f/g/late");
        fs::write(scene.at(&late), "x").unwrap();
        scene.wait_for(&written(&format!("/{late}")));
    }
}

#[test]
fn a_renamed_directory_is_followed_and_one_that_leaves_is_not() {
    let mut scene = scene("/", true, |top| {
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir_all(top.join("leaving/b")).unwrap();
    });
    fs::rename(scene.at("a"), scene.at("z")).unwrap();
    fs::write(scene.at("z/b/f"), "x").unwrap();
    scene.wait_for(&renamed("/a", "/z", true));
    scene.wait_for(&written("/z/b/f"));
    let beside = tempfile::tempdir_in(scene.directory.path().parent().unwrap()).unwrap();
    fs::rename(scene.at("leaving"), beside.path().join("left")).unwrap();
    fs::write(beside.path().join("left/b/secret"), "x").unwrap();
    scene.wait_for(&removed("/leaving", true));
    fs::write(scene.at("mark"), "x").unwrap();
    scene.wait_for(&written("/mark"));
    assert!(!format!("{:?}", scene.told).contains("secret"));
    // And back, with what was made in it outside.
    fs::rename(beside.path().join("left"), scene.at("back")).unwrap();
    scene.wait_for(&created("/back", true));
    scene.wait_for(&created("/back/b/secret", false));
}

#[test]
fn links_are_names_and_lead_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    let mut scene = scene("/", true, |top| {
        fs::create_dir(top.join("real")).unwrap();
        std::os::unix::fs::symlink(outside.path(), top.join("out")).unwrap();
        std::os::unix::fs::symlink("real", top.join("in")).unwrap();
    });
    std::os::unix::fs::symlink(outside.path(), scene.at("later")).unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    fs::write(scene.at("real/f"), "x").unwrap();
    scene.wait_for(&written("/real/f"));
    scene.wait_for(&created("/later", false));
    let all = format!("{:?}", scene.told);
    assert!(!all.contains("secret") && !all.contains("/in/f"), "{all}");
    let feed = Feed::new(WatchKinds::ALL, Arc::default(), || {});
    for link in ["/out", "/in", "/later"] {
        assert!(try_watch(scene.directory.path(), link, &feed, true).is_err());
    }
}

#[test]
fn a_subscription_ends_when_its_directory_or_one_above_goes() {
    let make = |top: &Path| fs::create_dir_all(top.join("up/in/below")).unwrap();
    let mut first = scene("/up/in", true, make);
    fs::rename(first.at("up"), first.at("elsewhere")).unwrap();
    first.wait_for_end();
    let mut second = scene("/up/in", true, make);
    fs::remove_dir_all(second.at("up/in")).unwrap();
    second.wait_for_end();
    assert!(second.told.contains(&removed("/up/in/below", true)));
}

/// How many of the kernel's watches of this process are on directories of `numbers`.
fn watches(numbers: &[u64]) -> usize {
    let wanted: Vec<_> = numbers.iter().map(|ino| format!(" ino:{ino:x} ")).collect();
    let entries = fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let count = |text: String| {
        let lines = text.lines().filter(|line| line.starts_with("inotify "));
        lines
            .filter(|line| wanted.iter().any(|ino| line.contains(ino)))
            .count()
    };
    texts.map(count).sum()
}

#[test]
fn the_end_of_a_subscription_frees_what_the_kernel_watched() {
    let mut scene = scene("/", true, |top| {
        for n in 0..50 {
            fs::create_dir_all(top.join(format!("{n}/{n}"))).unwrap();
        }
    });
    let mut numbers = vec![fs::metadata(scene.directory.path()).unwrap().ino()];
    for n in 0..50 {
        for name in [format!("{n}"), format!("{n}/{n}")] {
            numbers.push(fs::metadata(scene.at(&name)).unwrap().ino());
        }
    }
    assert_eq!(watches(&numbers), 101);
    assert_eq!(scene.counted.load(Ordering::Relaxed), 101);
    let other = Feed::new(WatchKinds::ALL, Arc::default(), || {});
    let second = try_watch(scene.directory.path(), "/7", &other, false).unwrap();
    drop(scene.held.take());
    let start = Instant::now();
    while watches(&numbers) > 1 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(scene.counted.load(Ordering::Relaxed), 0);
    drop(second);
    while watches(&numbers) > 0 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn more_directories_than_a_session_may_watch_are_refused_and_later_ones_end_the_feed() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("a/b/c")).unwrap();
    let counted = Arc::new(AtomicUsize::new(SESSION_DIRECTORIES_MAX - 2));
    let feed = Feed::new(WatchKinds::ALL, Arc::clone(&counted), || {});
    let refused = try_watch(directory.path(), "/", &feed, true).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
    let start = Instant::now();
    while counted.load(Ordering::Relaxed) > SESSION_DIRECTORIES_MAX - 2 {
        assert!(start.elapsed() < PATIENCE, "what was taken is given back");
        std::thread::sleep(Duration::from_millis(2));
    }
    let held = try_watch(directory.path(), "/a/b/c", &feed, true).unwrap_err();
    assert_eq!(
        held.kind(),
        io::ErrorKind::QuotaExceeded,
        "those above count"
    );
    while counted.load(Ordering::Relaxed) > SESSION_DIRECTORIES_MAX - 2 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::remove_dir_all(directory.path().join("a")).unwrap();
    let _held = try_watch(directory.path(), "/", &feed, true).unwrap();
    fs::create_dir_all(directory.path().join("x/y")).unwrap();
    while feed.take(|_| true) != Err(FeedEnd::TooMany) {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
}
