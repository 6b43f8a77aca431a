//! The machine against a tree that changes under it: whatever is listed, looked at or pushed in which
//! order, what was told adds up to what is there once all has been quiet for a while.
#![expect(clippy::disallowed_methods, reason = "a moment to count from")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ketch_client::{Attrs, Operation, RemotePath, SftpError, StatusCode, Times};
use proptest::prelude::*;

use super::*;
use crate::listing::ENTRIES_MAX;
use crate::push::Touch;

const FILE: u32 = 0o100_644;
const DIRECTORY: u32 = 0o040_755;
const INTERVAL: Duration = Duration::from_secs(5);
/// Longer than any pause after failures.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Node {
    File(u64),
    Directory,
}

/// What happens to the tree, and what of it the machine gets to know. Numbers choose among paths.
#[derive(Clone, Debug)]
enum Op {
    Write(u8),
    MakeDirectory(u8),
    Remove(u8),
    /// A file gets another path.
    Rename(u8, u8),
    /// A listing begins; its answer is taken from the tree now or when it is given.
    List {
        fails: bool,
        late: bool,
    },
    /// The oldest listing under way is answered.
    Answer,
    /// Everything that is to be looked at is.
    Look {
        fails: bool,
    },
    Push(u8, u8),
    Overflow,
    Pass(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let path = 0_u8..PATHS;
    prop_oneof![
        4 => path.clone().prop_map(Op::Write),
        2 => path.clone().prop_map(Op::MakeDirectory),
        3 => path.clone().prop_map(Op::Remove),
        2 => (path.clone(), path.clone()).prop_map(|(from, to)| Op::Rename(from, to)),
        6 => (any::<bool>(), any::<bool>()).prop_map(|(a, late)| Op::List { fails: a && late, late }),
        6 => Just(Op::Answer),
        3 => (0_u8..8).prop_map(|n| Op::Look { fails: n == 0 }),
        4 => (path.clone(), path).prop_map(|(kind, of)| Op::Push(kind, of)),
        1 => Just(Op::Overflow),
        4 => (0_u8..20).prop_map(Op::Pass),
    ]
}

/// Three names on three levels: 3 + 9 + 27 paths.
const PATHS: u8 = 39;

fn path(n: u8) -> String {
    let name = |n: u8| char::from(b'a' + n % 3);
    match n {
        0..3 => name(n).to_string(),
        3..12 => format!("{}/{}", name(n / 3), name(n)),
        _ => format!("{}/{}/{}", name(n / 9), name(n / 3), name(n)),
    }
}

#[derive(Debug)]
struct World {
    tree: BTreeMap<String, Node>,
    written: u64,
    now: Instant,
    machine: Directories,
    /// Directories that are being listed, with what was read of them, unless that comes later.
    under_way: Vec<(RemotePath, Option<Answer>)>,
    fails: Vec<RemotePath>,
    /// What the events add up to.
    told: BTreeMap<String, Option<Facts>>,
}

type Answer = Result<Listing, WatchError>;

impl World {
    fn new(config: DirectoriesConfig) -> Self {
        let now = Instant::now();
        Self {
            tree: BTreeMap::new(),
            written: 0,
            now,
            machine: Directories::new(RemotePath::from("/in"), config, now, 7),
            under_way: Vec::new(),
            fails: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    fn attrs(node: Node) -> Attrs {
        let (mode, size) = match node {
            Node::File(version) => (FILE, version),
            Node::Directory => (DIRECTORY, 0),
        };
        Attrs {
            size: Some(size),
            permissions: Some(mode),
            times: Some(Times { atime: 1, mtime: 1 }),
            ..Attrs::default()
        }
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.tree.get(path) == Some(&Node::Directory)
    }

    fn parent(path: &str) -> &str {
        path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    fn write(&mut self, path: &str) {
        if self.is_directory(Self::parent(path)) && !self.is_directory(path) {
            self.written += 1;
            self.tree.insert(path.to_owned(), Node::File(self.written));
        }
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.tree
            .retain(|other, _| other != path && !other.starts_with(&below));
    }

    fn listing(&self, directory: &RemotePath) -> Answer {
        let of = directory.to_str().expect("text");
        if !self.is_directory(of) {
            let source = SftpError::Refused {
                operation: Operation::ReadDir,
                path: directory.clone(),
                status: StatusCode::NO_SUCH_FILE,
                message: String::new(),
            };
            let path = directory.clone();
            return Err(WatchError::Unreadable { path, source });
        }
        let mut listing = Listing::new(ENTRIES_MAX);
        for (path, node) in &self.tree {
            let name = path.rsplit('/').next().expect("a name");
            if Self::parent(path) == of
                && self
                    .machine
                    .admits(directory, name.as_bytes(), &Self::attrs(*node))
            {
                listing
                    .push(name.as_bytes(), Self::attrs(*node))
                    .expect("room");
            }
        }
        Ok(listing.finish())
    }

    /// Takes what is told: nothing is created twice, and only what is there changes or goes.
    fn take(&mut self) -> Result<(), TestCaseError> {
        while let Some(event) = self.machine.poll_event() {
            let Ok(event) = event else { continue };
            let path = event.path.to_str().expect("text").to_owned();
            let path = path.strip_prefix("/in/").expect("below").to_owned();
            let facts = event.attrs.as_ref().map(Facts::of);
            match event.kind {
                EventKind::Created => {
                    let before = self.told.insert(path.clone(), facts);
                    prop_assert!(before.is_none(), "{path} was there");
                }
                EventKind::Modified => {
                    let before = self.told.insert(path.clone(), facts);
                    prop_assert!(before.is_some(), "{path} was not there");
                }
                EventKind::Removed => {
                    prop_assert!(self.told.remove(&path).is_some(), "{path} was not there");
                }
                EventKind::Renamed => {
                    let from = event.from.as_ref().and_then(RemotePath::to_str);
                    let from = from.and_then(|from| from.strip_prefix("/in/"));
                    let before = self.told.remove(from.expect("an old name"));
                    prop_assert!(before.is_some(), "{from:?} was not there");
                    prop_assert!(
                        self.told.insert(path.clone(), facts).is_none(),
                        "{path} was"
                    );
                }
                EventKind::Settled => {
                    prop_assert!(self.told.contains_key(&path), "{path} is not there");
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, fails: bool, late: bool) {
        let Some(directory) = self.machine.start_listing(self.now) else {
            return;
        };
        if fails {
            self.fails.push(directory.clone());
        }
        let read = (!late).then(|| self.listing(&directory));
        self.under_way.push((directory, read));
    }

    fn answer(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let (directory, read) = self.under_way.remove(0);
        let fails = self.fails.iter().position(|fails| *fails == directory);
        let answer = match fails {
            Some(place) => {
                self.fails.swap_remove(place);
                let path = directory.clone();
                Err(WatchError::TooManyDirectories { path })
            }
            None => read.unwrap_or_else(|| self.listing(&directory)),
        };
        self.machine.handle_listing(self.now, &directory, answer);
    }

    fn look(&mut self, fails: bool) {
        let mut found = BTreeMap::new();
        while let Some(path) = self.machine.poll_look(self.now) {
            let node = self.tree.get(path.to_str().expect("text")).copied();
            if !fails {
                found.insert(path, node.map(Self::attrs));
            }
        }
        self.machine.handle_looks(self.now, found);
    }

    fn push(&mut self, kind: u8, of: u8) {
        let to = RemotePath::from(path(of).as_str());
        let event = match kind % 4 {
            0 => PushEvent::Changed {
                path: to,
                kind: Touch::Created,
                is_directory: false,
            },
            1 => PushEvent::Removed {
                path: to,
                is_directory: false,
            },
            2 => PushEvent::Closed { path: to },
            _ => PushEvent::Renamed {
                from: RemotePath::from(path(kind).as_str()),
                to,
                is_directory: false,
            },
        };
        self.machine.handle_push(self.now, event);
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Write(n) => self.write(&path(n)),
            Op::MakeDirectory(n) => {
                let path = path(n);
                if self.is_directory(Self::parent(&path)) && !self.tree.contains_key(&path) {
                    self.tree.insert(path, Node::Directory);
                }
            }
            Op::Remove(n) => self.remove(&path(n)),
            Op::Rename(from, to) => {
                let (from, to) = (path(from), path(to));
                let file = self.tree.get(&from).copied();
                if let Some(file @ Node::File(_)) = file
                    && self.is_directory(Self::parent(&to))
                    && !self.is_directory(&to)
                {
                    self.tree.remove(&from);
                    self.tree.insert(to, file);
                }
            }
            Op::List { fails, late } => self.begin(fails, late),
            Op::Answer => self.answer(),
            Op::Look { fails } => self.look(fails),
            Op::Push(kind, of) => self.push(kind, of),
            Op::Overflow => self.machine.handle_push(self.now, PushEvent::Overflow),
            Op::Pass(seconds) => self.now += Duration::from_secs(u64::from(seconds)),
        }
        self.take()
    }

    /// Nothing changes any more, and everything is listed as often as a removal needs.
    fn rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..8 {
            while !self.under_way.is_empty() {
                self.answer();
                self.take()?;
            }
            self.look(false);
            self.take()?;
            self.now += LONG;
            loop {
                let before = self.under_way.len();
                self.begin(false, true);
                if self.under_way.len() == before {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What is there and is to be told of.
    fn wanted(&self) -> BTreeMap<String, Option<Facts>> {
        let admitted = |path: &&String| {
            let mut at = path.as_str();
            loop {
                let (parent, name) = at.rsplit_once('/').unwrap_or(("", at));
                let attrs = self.tree.get(at).map(|node| Self::attrs(*node));
                let Some(attrs) = attrs else { return false };
                let parent_path = RemotePath::from(parent);
                if !self.machine.admits(&parent_path, name.as_bytes(), &attrs) {
                    return false;
                }
                if parent.is_empty() {
                    return true;
                }
                at = parent;
            }
        };
        let depth = self.machine.config.depth.unwrap_or(usize::MAX);
        let levels = if self.machine.config.recursive {
            depth
        } else {
            1
        };
        let there = self.tree.iter().filter(|(path, _)| admitted(path));
        let there = there.filter(|(path, _)| path.split('/').count() <= levels);
        there
            .map(|(path, node)| (path.clone(), Some(Facts::of(&Self::attrs(*node)))))
            .collect()
    }
}

fn config() -> impl Strategy<Value = DirectoriesConfig> {
    let settle = prop_oneof![Just(None), Just(Some(SettleConfig::default()))];
    (0_usize..4, any::<bool>(), any::<bool>(), settle, 1_u8..4).prop_map(
        |(depth, renames, filtered, settle, missing_polls)| {
            let filter = Filter::new();
            DirectoriesConfig {
                watcher: WatcherConfig {
                    interval: INTERVAL,
                    first_listing: FirstListing::News,
                    missing_polls,
                },
                recursive: depth != 1,
                depth: (depth > 1).then_some(depth),
                filter: match filtered {
                    true => filter.exclude("/c").expect("a pattern"),
                    false => filter,
                },
                renames,
                settle,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_told_adds_up_to_what_is_there(
        config in config(), ops in proptest::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(config);
        for op in &ops {
            world.step(op)?;
        }
        world.rest()?;
        prop_assert_eq!(&world.told, &world.wanted());
    }
}
