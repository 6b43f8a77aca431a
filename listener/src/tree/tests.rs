//! The machine against a model of a source: whatever happens there, what was told adds up to it.
#![expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use ketch_client::{FileType, Kind, Times};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::listing::Listing;
use crate::settle::SettleConfig;

const WALL: u64 = 1_790_000_000;

/// A source in memory: path → whether a directory, size, mtime. Directories have a time that moves
/// when names in them come or go.
#[derive(Clone, Debug, Default)]
struct World {
    things: BTreeMap<String, Thing>,
    now: u32,
    /// What its listings leave out, by the count of names asked for.
    drops: Vec<bool>,
    asked: usize,
    unreadable: Vec<String>,
    /// How much it answers until its connection is cut.
    lives: Option<usize>,
    /// The times of its directories never move.
    is_lying: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Thing {
    is_directory: bool,
    size: u64,
    mtime: u32,
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: 1_000,
            ..Self::default()
        };
        let root = Thing {
            is_directory: true,
            size: 0,
            mtime: 1_000,
        };
        world.things.insert(String::new(), root);
        world
    }

    fn touch(&mut self, directory: &str) {
        let now = self.now;
        if !self.is_lying
            && let Some(thing) = self.things.get_mut(directory)
        {
            thing.mtime = now;
        }
    }

    fn is_directory(&self, path: &str) -> bool {
        self.things
            .get(path)
            .is_some_and(|thing| thing.is_directory)
    }

    fn put(&mut self, path: &str, is_directory: bool, size: u64) {
        let taken = self.things.get(path).map(|thing| thing.is_directory);
        if !self.is_directory(parent_of(path)) || taken.is_some_and(|was| was || is_directory) {
            return;
        }
        let mtime = self.now;
        let thing = Thing {
            is_directory,
            size,
            mtime,
        };
        self.things.insert(path.to_owned(), thing);
        if taken.is_none() {
            self.touch(parent_of(path));
        }
    }

    fn remove(&mut self, path: &str) {
        if !path.is_empty() && self.things.remove(path).is_some() {
            let below = format!("{path}/");
            self.things.retain(|path, _| !path.starts_with(&below));
            self.touch(parent_of(path));
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let below = format!("{from}/");
        let is_free = !self.things.contains_key(to) && self.is_directory(parent_of(to));
        if from.is_empty() || to.starts_with(&below) || !is_free {
            return;
        }
        let Some(thing) = self.things.remove(from) else {
            return;
        };
        let inner: Vec<_> = self
            .things
            .iter()
            .filter(|(path, _)| path.starts_with(&below))
            .map(|(path, thing)| (path.clone(), *thing))
            .collect();
        for (path, thing) in inner {
            self.things.remove(&path);
            let rest = path.strip_prefix(&below).unwrap();
            self.things.insert(format!("{to}/{rest}"), thing);
        }
        self.things.insert(to.to_owned(), thing);
        self.touch(parent_of(from));
        self.touch(parent_of(to));
    }

    fn files(&self) -> BTreeMap<String, Facts> {
        let files = self.things.iter().filter(|(_, thing)| !thing.is_directory);
        files
            .map(|(path, thing)| (path.clone(), Facts::of(&attrs(thing))))
            .collect()
    }

    /// Whether it still answers.
    fn is_alive(&mut self) -> Result<(), ListError> {
        match &mut self.lives {
            Some(0) => Err(ListError::new(Kind::Network, io::Error::other("cut"))),
            Some(lives) => {
                *lives -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn list(&mut self, directory: &str) -> Result<Listing, ListError> {
        self.is_alive()?;
        if self.unreadable.iter().any(|path| path == directory) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
        }
        if !self.is_directory(directory) {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        let mut listing = Listing::new(1_000);
        for (path, thing) in &self.things {
            if path.is_empty() || parent_of(path) != directory {
                continue;
            }
            self.asked += 1;
            let is_dropped = !self.drops.is_empty() && self.drops[self.asked % self.drops.len()];
            if !is_dropped {
                let name = path.rsplit('/').next().unwrap();
                listing.push(name.as_bytes(), attrs(thing)).unwrap();
            }
        }
        Ok(listing.finish())
    }

    fn look(&mut self, path: &RemotePath) -> Result<Attrs, ListError> {
        self.is_alive()?;
        let thing = self.things.get(path.to_str().unwrap());
        thing
            .map(attrs)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
    }
}

fn attrs(thing: &Thing) -> Attrs {
    Attrs {
        size: Some(thing.size),
        permissions: Some(if thing.is_directory {
            0o040_755
        } else {
            0o100_644
        }),
        times: Some(Times {
            atime: 0,
            mtime: thing.mtime,
        }),
        ..Attrs::default()
    }
}

/// A machine, its driver and its ledger.
struct Watched {
    tree: Tree,
    now: Instant,
    ledger: BTreeMap<String, Facts>,
    told: Vec<Change>,
}

impl Watched {
    fn new(config: DetectConfig) -> Self {
        Self {
            tree: Tree::new(config, None),
            now: Instant::now(),
            ledger: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    fn scan(&mut self, world: &mut World, want: Want) -> ScanReport {
        let mut report = ScanReport::default();
        loop {
            if !self.tree.begin(want, WALL, &[]) {
                self.record(world);
                continue;
            }
            loop {
                match self.tree.poll_step(self.now) {
                    Step::Look(paths) => {
                        let answers = paths.iter().map(|path| world.look(path)).collect();
                        self.tree.on_looks(self.now, paths, answers);
                    }
                    Step::List => {
                        while let Some(directory) = self.tree.next_directory(self.now) {
                            let listing = world.list(directory.to_str().unwrap());
                            self.tree.on_listing(self.now, &directory, listing);
                        }
                    }
                    Step::Done => break,
                }
            }
            let part = self.tree.end();
            if part.complete || part.lost.is_some() {
                report = part.clone();
            }
            self.record(world);
            if part.lost.is_some() || !self.tree.is_under_way() {
                return report;
            }
        }
    }

    fn record(&mut self, world: &World) {
        loop {
            let changes = self.tree.take_changes(3);
            if changes.is_empty() {
                return;
            }
            for change in &changes {
                let path = change.path().to_str().unwrap().to_owned();
                match change {
                    Change::Baseline { facts, .. } | Change::Present { facts, .. } => {
                        self.ledger.insert(path, *facts);
                    }
                    Change::Removed { .. } => {
                        let stays = world.things.get(&path);
                        assert!(
                            stays.is_none_or(|thing| thing.is_directory),
                            "{path} is there"
                        );
                        assert!(self.ledger.remove(&path).is_some(), "{path} was never told");
                    }
                    Change::Renamed { from, facts, .. } => {
                        let from = from.to_str().unwrap();
                        assert_eq!(self.ledger.remove(from), Some(*facts));
                        self.ledger.insert(path, *facts);
                    }
                }
            }
            self.tree.recorded(&changes);
            self.told.extend(changes);
        }
    }

    /// Time goes by, in the world too.
    fn pass(&mut self, world: &mut World, seconds: u32) {
        self.now += Duration::from_secs(u64::from(seconds));
        world.now = world.now.wrapping_add(seconds);
    }

    /// Scans until all has settled.
    fn settle(&mut self, world: &mut World) {
        for _ in 0..6 {
            self.pass(world, 6);
            self.scan(world, Want::Due);
        }
    }
}

fn news() -> DetectConfig {
    DetectConfig {
        first: First::News,
        settle: SettleConfig {
            period: Duration::from_secs(5),
            ..SettleConfig::default()
        },
        guard: Guard {
            polls: 2,
            ..Guard::default()
        },
        ..DetectConfig::default()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(String, bool, u64),
    Remove(String),
    Rename(String, String),
    Scan(Want),
    Pass(u32),
    Drop(Vec<bool>),
    Unreadable(Option<String>),
    /// Scans over connections that are cut after so many answers each.
    Cut(Vec<usize>),
    Push(String, u8),
}

fn path() -> impl Strategy<Value = String> {
    "[a-c](/[a-c]){0,2}"
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (path(), any::<bool>(), 0_u64..4).prop_map(|(p, d, s)| Op::Put(p, d, s)),
        2 => path().prop_map(Op::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        4 => Just(Op::Scan(Want::Due)),
        1 => Just(Op::Scan(Want::All)),
        1 => Just(Op::Scan(Want::Part)),
        4 => (0_u32..8).prop_map(Op::Pass),
        1 => vec(prop::bool::weighted(0.3), 0..7).prop_map(Op::Drop),
        1 => prop::option::of(path()).prop_map(Op::Unreadable),
        2 => vec(0_usize..6, 1..4).prop_map(Op::Cut),
        2 => (path(), 0_u8..3).prop_map(|(path, kind)| Op::Push(path, kind)),
    ]
}

fn run(watched: &mut Watched, world: &mut World, ops: &[Op]) {
    for op in ops {
        match op.clone() {
            Op::Put(path, is_directory, size) => world.put(&path, is_directory, size),
            Op::Remove(path) => world.remove(&path),
            Op::Rename(from, to) => world.rename(&from, &to),
            Op::Scan(want) => {
                watched.scan(world, want);
            }
            Op::Pass(seconds) => watched.pass(world, seconds),
            Op::Drop(drops) => world.drops = drops,
            Op::Unreadable(path) => world.unreadable = path.into_iter().collect(),
            Op::Cut(lives) => {
                for lives in lives {
                    world.lives = Some(lives);
                    watched.scan(world, Want::Due);
                    world.lives = None;
                }
            }
            Op::Push(path, kind) => {
                let path = RemotePath::from(path.as_str());
                let event = match kind {
                    0 => PushEvent::Closed { path },
                    1 => PushEvent::Removed {
                        path,
                        is_directory: false,
                    },
                    _ => PushEvent::Changed {
                        path,
                        kind: Touch::Written,
                        is_directory: false,
                    },
                };
                watched.tree.on_push(watched.now, event);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is done, dropped from listings, unreadable for a while or pushed: in the end the
    /// ledger has what is there, and nothing that was there was ever told to be gone.
    #[test]
    fn what_is_told_adds_up(
        ops in vec(op(), 1..60), changes_max in 1_usize..20, polls in 1_u8..4, learn in any::<bool>(),
        lying in any::<bool>(),
    ) {
        let mut world = World::new();
        world.is_lying = lying;
        let mut watched = Watched::new(DetectConfig {
            changes_max,
            missing_polls: polls,
            sweep_every: 2,
            directory_times: if learn { DirectoryTimes::Learn } else { DirectoryTimes::Never },
            ..news()
        });
        run(&mut watched, &mut world, &ops);
        world.drops.clear();
        world.unreadable.clear();
        watched.settle(&mut world);
        watched.scan(&mut world, Want::All);
        watched.settle(&mut world);
        prop_assert_eq!(&watched.ledger, &world.files());
        for path in watched.ledger.keys() {
            prop_assert!(watched.tree.knows(&RemotePath::from(path.as_str())));
        }
        prop_assert!(watched.tree.is_first_done());
        let before = watched.told.len();
        watched.scan(&mut world, Want::All);
        prop_assert_eq!(watched.told.len(), before);
    }

    /// Clocks jump and differ: other times for the same course of things change nothing.
    #[test]
    fn the_servers_clock_does_not_matter(
        ops in vec(op(), 1..40), start in prop_oneof![Just(0_u32), Just(u32::MAX - 20), any::<u32>()],
    ) {
        let tell = |start| {
            let mut world = World::new();
            world.now = start;
            world.touch("");
            let mut watched = Watched::new(news());
            run(&mut watched, &mut world, &ops);
            watched.settle(&mut world);
            let plain = |facts: &Facts| (facts.kind, facts.size, facts.mtime.map(|t| t.wrapping_sub(start)));
            watched
                .told
                .iter()
                .map(|change| match change {
                    Change::Baseline { path, facts } => format!("b {path} {:?}", plain(facts)),
                    Change::Present { path, facts, .. } => format!("p {path} {:?}", plain(facts)),
                    Change::Removed { path } => format!("r {path}"),
                    Change::Renamed { from, to, facts } => format!("m {from} {to} {:?}", plain(facts)),
                })
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(tell(start), tell(1_000_000));
    }
}

fn names(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            Change::Baseline { path, .. } => format!("baseline {path}"),
            Change::Present { path, .. } => format!("present {path}"),
            Change::Removed { path } => format!("removed {path}"),
            Change::Renamed { from, to, .. } => format!("renamed {from} {to}"),
        })
        .collect()
}

#[test]
fn the_first_scan_is_baseline_or_news() {
    for (first, expected) in [
        (First::Baseline, "baseline d/a"),
        (First::News, "present d/a"),
    ] {
        let mut world = World::new();
        world.put("d", true, 0);
        world.put("d/a", false, 1);
        let mut watched = Watched::new(DetectConfig { first, ..news() });
        watched.scan(&mut world, Want::Due);
        world.put("d/b", false, 1);
        watched.settle(&mut world);
        assert_eq!(names(&watched.told), [expected, "present d/b"]);
    }
}

#[test]
fn a_rename_is_told_where_it_is_sure() {
    let mut world = World::new();
    for (name, size) in [("a", 3), ("twin-1", 5), ("twin-2", 5), ("empty", 0)] {
        world.put(name, false, size);
    }
    world.put("d", true, 0);
    world.put("d/x", false, 7);
    world.put("d/y", false, 7);
    let mut watched = Watched::new(news());
    watched.settle(&mut world);
    watched.told.clear();
    world.rename("a", "b");
    world.rename("twin-1", "twin-3");
    world.rename("twin-2", "twin-4");
    world.rename("empty", "void");
    world.rename("d", "e");
    watched.settle(&mut world);
    let mut told = names(&watched.told);
    told.sort();
    assert_eq!(
        told,
        [
            "present twin-3",
            "present twin-4",
            "present void",
            "removed empty",
            "removed twin-1",
            "removed twin-2",
            "renamed a b",
            "renamed d/x e/x",
            "renamed d/y e/y",
        ]
    );
}

#[test]
fn what_cannot_be_listed_is_not_gone() {
    let mut world = World::new();
    world.put("d", true, 0);
    world.put("d/e", true, 0);
    world.put("d/a", false, 1);
    world.put("d/e/b", false, 1);
    let mut watched = Watched::new(DetectConfig {
        events: true,
        ..news()
    });
    watched.settle(&mut world);
    world.unreadable = vec!["d".to_owned()];
    world.put("d/e/c", false, 2);
    watched.settle(&mut world);
    assert_eq!(watched.tree.errors().count(), 1);
    world.unreadable.clear();
    watched.settle(&mut world);
    assert_eq!(
        names(&watched.told),
        ["present d/a", "present d/e/b", "present d/e/c"]
    );
    let mut seen = Vec::new();
    while let Some(event) = watched.tree.poll_seen() {
        match event {
            Seen::ErrorRaised { directory, .. } => seen.push(format!("raised {directory}")),
            Seen::ErrorCeased { directory } => seen.push(format!("ceased {directory}")),
            _ => {}
        }
    }
    assert_eq!(seen, ["raised d", "ceased d"]);
}

#[test]
fn a_source_that_is_lost_says_nothing() {
    let mut world = World::new();
    world.put("a", false, 1);
    let mut watched = Watched::new(news());
    watched.settle(&mut world);
    for _ in 0..3 {
        assert!(watched.tree.begin(Want::Due, WALL, &[]));
        while !matches!(watched.tree.poll_step(watched.now), Step::List) {}
        let root = watched.tree.next_directory(watched.now).unwrap();
        let lost = ListError::new(Kind::Network, io::Error::other("cut"));
        watched.tree.on_listing(watched.now, &root, Err(lost));
        assert!(matches!(watched.tree.poll_step(watched.now), Step::Done));
        assert!(watched.tree.end().lost.is_some());
    }
    watched.settle(&mut world);
    assert_eq!(names(&watched.told), ["present a"]);
}

#[test]
fn a_scan_that_is_cut_off_again_and_again_gets_to_its_end() {
    let mut world = World::new();
    for directory in 0..9 {
        world.put(&format!("d{directory}"), true, 0);
        world.put(&format!("d{directory}/a"), false, 1);
    }
    let mut watched = Watched::new(news());
    // The root and nine directories: three answers a connection.
    world.lives = Some(3);
    let mut cuts = 0;
    while watched.scan(&mut world, Want::Due).lost.is_some() {
        world.lives = Some(3);
        cuts += 1;
        assert!(cuts < 10, "it does not get on");
    }
    assert_eq!(cuts, 3);
    assert_eq!(watched.tree.errors().count(), 0, "the source is back");
    world.lives = None;
    watched.settle(&mut world);
    assert_eq!(watched.told.len(), 9);
}

#[test]
fn quiet_polls_list_what_changed_and_lies_end_them() {
    let mut world = World::new();
    for directory in 0..20 {
        world.put(&format!("d{directory}"), true, 0);
        world.put(&format!("d{directory}/a"), false, 1);
    }
    let mut watched = Watched::new(DetectConfig {
        directory_times: DirectoryTimes::Learn,
        sweep_every: 3,
        ..news()
    });
    watched.settle(&mut world);
    // Witnesses.
    for directory in 0..3 {
        world.put(&format!("d{directory}/b"), false, 1);
    }
    watched.settle(&mut world);
    watched.settle(&mut world);
    let kinds: Vec<_> = (0..8)
        .map(|_| {
            watched.pass(&mut world, 6);
            let report = watched.scan(&mut world, Want::Due);
            if report.kind == ScanKind::Quiet {
                // The root tells the times of all that is in it.
                assert_eq!((report.directories, report.looked), (1, 1));
            }
            report.kind
        })
        .collect();
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| **kind == ScanKind::Quiet)
            .count(),
        6
    );
    while watched.scan(&mut world, Want::Due).kind == ScanKind::Full {}
    world.put("d7/new", false, 1);
    world.put("new", true, 0);
    world.put("new/inner", true, 0);
    world.put("new/inner/x", false, 1);
    let report = watched.scan(&mut world, Want::Due);
    assert_eq!((report.kind, report.directories), (ScanKind::Quiet, 4));
    watched.settle(&mut world);
    let told = names(&watched.told);
    assert!(told.contains(&"present d7/new".to_owned()));
    assert!(told.contains(&"present new/inner/x".to_owned()));
    // From now on its times lie.
    world.is_lying = true;
    watched.settle(&mut world);
    watched.settle(&mut world);
    world.put("d9/late", false, 1);
    for _ in 0..4 {
        watched.pass(&mut world, 6);
        watched.scan(&mut world, Want::Due);
    }
    for _ in 0..6 {
        watched.pass(&mut world, 6);
        assert_eq!(watched.scan(&mut world, Want::Due).kind, ScanKind::Full);
    }
    assert!(names(&watched.told).contains(&"present d9/late".to_owned()));
}

#[test]
fn what_a_push_and_a_listing_miss_is_gone_once() {
    let mut world = World::new();
    world.put("d", true, 0);
    world.put("a", false, 1);
    world.put("d/b", false, 1);
    let mut watched = Watched::new(news());
    watched.settle(&mut world);
    watched.told.clear();
    world.remove("a");
    world.remove("d");
    watched.scan(&mut world, Want::Due);
    for path in ["a", "d/b"] {
        let (path, is_directory) = (path.into(), false);
        let gone = PushEvent::Removed { path, is_directory };
        watched.tree.on_push(watched.now, gone);
    }
    watched.settle(&mut world);
    let mut told = names(&watched.told);
    told.sort();
    assert_eq!(told, ["removed a", "removed d/b"]);
}

#[test]
fn a_directory_that_cannot_tell_times_has_those_in_it_listed() {
    let mut world = World::new();
    world.put("top", true, 0);
    for directory in 0..20 {
        world.put(&format!("top/d{directory}"), true, 0);
    }
    let mut watched = Watched::new(DetectConfig {
        directory_times: DirectoryTimes::Learn,
        sweep_every: 1_000,
        ..news()
    });
    watched.settle(&mut world);
    for directory in 0..3 {
        world.put(&format!("top/d{directory}/a"), false, 1);
    }
    watched.settle(&mut world);
    while watched.scan(&mut world, Want::Due).kind == ScanKind::Full {
        watched.pass(&mut world, 6);
    }
    watched.told.clear();
    watched.pass(&mut world, 6);
    world.unreadable = vec!["top".to_owned()];
    world.put("top/d7/new", false, 1);
    let report = watched.scan(&mut world, Want::Due);
    assert_eq!((report.kind, report.unreadable), (ScanKind::Quiet, 1));
    watched.settle(&mut world);
    assert_eq!(names(&watched.told), ["present top/d7/new"]);
    // From now on each is asked, until it can be listed again.
    let asked = |watched: &mut Watched, world: &mut World| {
        watched.pass(world, 6);
        let report = watched.scan(world, Want::Due);
        assert_eq!(report.kind, ScanKind::Quiet);
        report.looked
    };
    assert_eq!(asked(&mut watched, &mut world), 22);
    world.unreadable.clear();
    while asked(&mut watched, &mut world) > 2 {}
    watched.told.clear();
    world.put("top/d8/new", false, 1);
    watched.settle(&mut world);
    assert_eq!(names(&watched.told), ["present top/d8/new"]);
}

#[test]
fn what_was_not_recorded_comes_again() {
    let mut world = World::new();
    world.put("a", false, 1);
    let mut watched = Watched::new(DetectConfig {
        settle: SettleConfig::immediately(),
        ..news()
    });
    let begin = |watched: &mut Watched| watched.tree.begin(Want::Due, WALL, &[]);
    assert!(begin(&mut watched));
    while !matches!(watched.tree.poll_step(watched.now), Step::List) {}
    let root = watched.tree.next_directory(watched.now).unwrap();
    let listing = world.list("");
    watched.tree.on_listing(watched.now, &root, listing);
    while !matches!(watched.tree.poll_step(watched.now), Step::Done) {}
    watched.tree.end();
    let taken = watched.tree.take_changes(10);
    assert_eq!(names(&taken), ["present a"]);
    assert!(!watched.tree.is_first_done());
    assert!(!begin(&mut watched));
    let again = watched.tree.take_changes(10);
    assert_eq!(again, taken);
    watched.tree.recorded(&again);
    assert!(watched.tree.is_first_done());
    assert!(begin(&mut watched));
}

#[test]
fn ten_thousand_files_take_few_bytes_each() {
    let mut tree = Tree::new(news(), None);
    let mut count = 0_u32;
    for directory in 0..100 {
        let changes: Vec<_> = (0..100)
            .map(|file| {
                count += 1;
                Change::Present {
                    path: RemotePath::new(format!("shop-{directory:05}/order-{file:08}.csv")),
                    facts: Facts {
                        kind: FileType::Regular,
                        size: Some(u64::from(count) * 7_919),
                        mtime: Some(1_790_000_000 + count % 86_400),
                    },
                    sha256: None,
                }
            })
            .collect();
        tree.recorded(&changes);
    }
    assert_eq!(tree.known().len(), 10_000);
    let each = tree.known().memory() / 10_000;
    assert!(each <= 30, "{each} bytes");
}

/// A source that is suddenly empty, or another one, is doubted; what is renamed is told; what comes back
/// is as it was; and what stays away is believed in the end.
#[test]
fn a_source_that_is_suddenly_empty_is_doubted() {
    let guard = Guard {
        polls: 4,
        ..Guard::default()
    };
    for other in [false, true] {
        let mut world = World::new();
        world.put("d", true, 0);
        for name in 0..20 {
            world.put(&format!("d/{name}"), false, name + 1);
        }
        let mut watched = Watched::new(DetectConfig {
            guard,
            events: true,
            ..news()
        });
        watched.settle(&mut world);
        assert_eq!(watched.ledger.len(), 20);
        let full = world.clone();
        let empty = |world: &mut World| {
            world.remove("d");
            if other {
                for name in 0..30 {
                    world.put(&format!("{name}.other"), false, 500);
                }
            }
        };
        // It is not mounted for a while.
        empty(&mut world);
        for _ in 0..4 {
            watched.pass(&mut world, 1);
            watched.scan(&mut world, Want::All);
        }
        let now = world.now;
        world = full;
        world.now = now;
        watched.told.clear();
        for _ in 0..3 {
            watched.scan(&mut world, Want::All);
        }
        assert!(watched.told.is_empty(), "{:?}", watched.told);
        let mut seen = Vec::new();
        while let Some(event) = watched.tree.poll_seen() {
            seen.push(event);
        }
        let raised = |event: &Seen| matches!(event, Seen::EmptiedRaised { missing: 21, .. });
        assert_eq!(seen.iter().filter(|event| raised(event)).count(), 1);
        assert!(matches!(
            seen.iter()
                .rfind(|e| matches!(e, Seen::EmptiedRaised { .. } | Seen::EmptiedCeased)),
            Some(Seen::EmptiedCeased)
        ));
        // It is empty for good.
        empty(&mut world);
        for _ in 0..5 {
            assert_eq!(
                watched
                    .ledger
                    .iter()
                    .filter(|(path, _)| path.starts_with("d/"))
                    .count(),
                20
            );
            watched.scan(&mut world, Want::All);
        }
        watched.settle(&mut world);
        assert!(watched.ledger.keys().all(|path| !path.starts_with("d/")));
    }
}

/// A directory with everything in it gets another name: that is told at once.
#[test]
fn what_is_renamed_as_a_whole_is_not_doubted() {
    let mut world = World::new();
    world.put("a", true, 0);
    for name in 0..20 {
        world.put(&format!("a/{name}"), false, name + 1);
    }
    let mut watched = Watched::new(news());
    watched.settle(&mut world);
    world.rename("a", "b");
    watched.scan(&mut world, Want::All);
    watched.scan(&mut world, Want::All);
    assert_eq!(watched.ledger, world.files());
}

/// What a push says is gone, and a listing lacks in the same scan, is told once.
#[test]
fn what_is_missing_twice_is_gone_once() {
    let mut world = World::new();
    world.put("c", false, 1);
    world.put("d", false, 2);
    let mut watched = Watched::new(DetectConfig {
        missing_polls: 1,
        ..news()
    });
    watched.settle(&mut world);
    watched.told.clear();
    world.remove("c");
    let path = RemotePath::from("c");
    watched.tree.on_push(
        watched.now,
        PushEvent::Removed {
            path,
            is_directory: false,
        },
    );
    watched.scan(&mut world, Want::All);
    assert_eq!(names(&watched.told), ["removed c"]);
}

#[test]
fn what_lay_deep_below_a_directory_goes_with_it() {
    let mut world = World::new();
    let mut watched = Watched::new(DetectConfig {
        missing_polls: 1,
        ..news()
    });
    for directory in ["a", "a/b", "a/b/c", "ab"] {
        world.put(directory, true, 0);
        world.put(&format!("{directory}/file"), false, 7);
    }
    watched.settle(&mut world);
    assert_eq!(watched.ledger.len(), 4);
    world.remove("a");
    watched.settle(&mut world);
    assert_eq!(watched.ledger, world.files());
    assert_eq!(watched.tree.known().len(), 2, "ab and the file in it");
}

/// What changed behind a scan that goes on, while nobody could tell of it, is found by another.
#[test]
fn pushes_that_were_away_during_a_cut_scan_lead_to_another() {
    let mut world = World::new();
    for directory in ["a", "b", "c"] {
        world.put(directory, true, 0);
    }
    let mut watched = Watched::new(news());
    watched.scan(&mut world, Want::All);
    // The root and one directory are listed, then the connection is cut.
    world.lives = Some(2);
    assert!(watched.scan(&mut world, Want::Due).lost.is_some());
    world.lives = None;
    for directory in ["a", "b", "c"] {
        world.put(&format!("{directory}/new"), false, 1);
    }
    watched.tree.on_push(watched.now, PushEvent::Back);
    assert!(watched.scan(&mut world, Want::Part).complete);
    assert!(watched.tree.is_pushed(), "all is looked at once more");
    watched.scan(&mut world, Want::Part);
    assert!(!watched.tree.is_pushed());
    watched.pass(&mut world, 6);
    watched.scan(&mut world, Want::Part);
    assert_eq!(watched.ledger, world.files());
}
