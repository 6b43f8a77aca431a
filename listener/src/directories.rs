//! The machine behind a watch of a whole tree: one [`Watcher`] for each directory, what pushes say,
//! and which files are complete.
//!
//! It reads no directory and no clock. Its owner (`driver` in this crate) lists what
//! [`Directories::start_listing`] names, looks at what [`Directories::poll_look`] names, tells the
//! results, and takes everything from [`Directories::poll_event`]. Paths are below the watched
//! directory here; events have them behind its own path.
//!
//! - A directory that is found in a listing gets a watcher of its own. What is in it is news, unless
//!   its parent's first listing found it and was no news either.
//! - A push names a path, which is looked at; what is found is compared with what is known. A look at
//!   a name never overlaps with a listing of its directory, as the older of two answers must not win.
//! - A file that is gone as a look shows is gone at once. Listings need two of them, as ever.
//! - A directory that is gone takes all that was known below it along, the deepest first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use ketch_client::{Attrs, FileType, Filter, RemotePath};

use crate::error::WatchError;
use crate::event::{Event, EventKind};
use crate::listing::Listing;
use crate::push::PushEvent;
use crate::settle::{Settle, SettleConfig};
use crate::snapshot::Facts;
use crate::watcher::{FirstListing, Watcher, WatcherConfig};

/// Directories that one watch holds at most, the topmost one counted.
pub const DIRECTORIES_MAX: usize = 100_000;

/// How deep below the watched directory others are watched.
pub const DEPTH_MAX: usize = 64;

/// Paths that wait to be looked at. Beyond, their directories are listed instead.
pub const LOOKS_MAX: usize = 1_024;

/// What of a tree is watched, and how.
#[derive(Clone, Debug, Default)]
pub struct DirectoriesConfig {
    /// How each directory is watched.
    pub watcher: WatcherConfig,
    /// Whether directories below are watched, too. Default: no.
    pub recursive: bool,
    /// How many levels are told of, if recursive: 1 is the directory itself. More than [`DEPTH_MAX`]
    /// directories below it are never watched. Default: `None`, all that are.
    pub depth: Option<usize>,
    /// Which names are told of. Default: all.
    pub filter: Filter,
    /// Whether a rename that a push tells is told as one. Default: no.
    pub renames: bool,
    /// When a file is complete; `None`: that is not told. Its bound of candidates does not count, as
    /// candidates are names that are known.
    pub settle: Option<SettleConfig>,
}

/// The machine; see the module's text.
#[derive(Debug)]
pub struct Directories {
    root: RemotePath,
    config: DirectoriesConfig,
    watched: BTreeMap<RemotePath, Watched>,
    due: BTreeSet<(Instant, RemotePath)>,
    /// Paths to be looked at.
    looks: BTreeSet<RemotePath>,
    /// New names of files that were renamed, with the old ones: both are among `looks`.
    renamed: BTreeMap<RemotePath, RemotePath>,
    settle: Option<Settle>,
    told: VecDeque<Result<Event, WatchError>>,
    seed: u64,
    is_full: bool,
    is_ended: bool,
}

#[derive(Debug)]
struct Watched {
    watcher: Watcher,
    first: FirstListing,
    due: Option<Instant>,
    is_listing: bool,
}

impl Directories {
    /// Watches the directory `root`, whose first listing is due at `now`. `seed` spreads the waits.
    #[must_use]
    pub fn new(root: RemotePath, config: DirectoriesConfig, now: Instant, seed: u64) -> Self {
        let settle = config.settle.clone().map(|settle| {
            Settle::new(SettleConfig {
                candidates_max: usize::MAX,
                ..settle
            })
        });
        let first = config.watcher.first_listing;
        let mut directories = Self {
            root,
            config,
            watched: BTreeMap::new(),
            due: BTreeSet::new(),
            looks: BTreeSet::new(),
            renamed: BTreeMap::new(),
            settle,
            told: VecDeque::new(),
            seed,
            is_full: false,
            is_ended: false,
        };
        directories.add(now, RemotePath::from(""), first);
        directories
    }

    /// When to call [`Directories::start_listing`] and [`Directories::poll_look`]; `None` while only
    /// listings under way, or pushes, can bring anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_ended {
            return None;
        }
        let due = self.due.first().map(|(at, _)| *at);
        let settle = self.settle.as_ref().and_then(Settle::poll_timeout);
        due.into_iter().chain(settle).min()
    }

    /// The next directory to list, below the root. Each one that is named must be answered with
    /// [`Directories::handle_listing`]. None is while [`Directories::poll_event`] has something.
    pub fn start_listing(&mut self, now: Instant) -> Option<RemotePath> {
        if !self.told.is_empty() || self.is_ended {
            return None;
        }
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, path) = self.due.pop_first()?;
        let watched = self.watched.get_mut(&path)?;
        watched.due = None;
        watched.is_listing = watched.watcher.start_listing(now);
        if watched.is_listing {
            return Some(path);
        }
        self.schedule(&path);
        None
    }

    /// The server's path of something below the root.
    #[must_use]
    pub fn path(&self, below: &RemotePath) -> RemotePath {
        if below.as_bytes().is_empty() {
            self.root.clone()
        } else {
            self.root.join(below)
        }
    }

    /// Whether any name may be left out.
    pub(crate) fn is_filtered(&self) -> bool {
        !self.config.filter.is_empty()
    }

    /// Whether an entry of `directory` is told of at all.
    #[must_use]
    pub fn admits(&self, directory: &RemotePath, name: &[u8], attrs: &Attrs) -> bool {
        let is_directory = attrs.file_type() == FileType::Directory;
        self.config.filter.is_empty()
            || self
                .config
                .filter
                .admits(join(directory, name).as_bytes(), is_directory)
    }

    /// Takes what listing `directory` brought: what is admitted of it, or why there is none.
    pub fn handle_listing(
        &mut self,
        now: Instant,
        directory: &RemotePath,
        result: Result<Listing, WatchError>,
    ) {
        // It may have gone with a directory above it.
        let Some(mut watched) = self.watched.remove(directory) else {
            return;
        };
        watched.is_listing = false;
        let result = match result {
            // Its parent's listing will say that it is gone; until then nobody is told.
            Err(error) if error.is_not_found() && !directory.as_bytes().is_empty() => {
                self.watched.insert(directory.clone(), watched);
                self.retry(now, directory, error);
                return;
            }
            result => result,
        };
        let is_final = result.as_ref().is_err_and(WatchError::is_final);
        let first = if watched.watcher.has_listed() {
            FirstListing::News
        } else {
            watched.first
        };
        let listing = match result {
            Ok(listing) => {
                watched.watcher.compare_listing(now, &listing);
                Some(listing)
            }
            Err(error) => {
                watched.watcher.handle_listing(now, Err(error));
                None
            }
        };
        let told: Vec<_> = std::iter::from_fn(|| watched.watcher.poll_event()).collect();
        self.watched.insert(directory.clone(), watched);
        self.schedule(directory);
        if is_final {
            self.is_ended = true;
        }
        for event in told {
            self.note(now, event);
        }
        if let Some(listing) = listing {
            self.found(now, directory, &listing, first);
        }
        self.tell_settled();
    }

    /// Takes a push.
    pub fn handle_push(&mut self, now: Instant, event: PushEvent) {
        match event {
            PushEvent::Changed { path, .. } | PushEvent::Removed { path, .. } => {
                self.look(now, path);
            }
            PushEvent::Closed { path } => {
                let is_listed = self.is_listed(&path);
                if let Some(settle) = self.settle.as_mut().filter(|_| is_listed) {
                    settle.closed(now, &path);
                }
                self.look(now, path);
            }
            PushEvent::Renamed { from, to, .. } => {
                if self.config.renames && self.looks.len() < LOOKS_MAX {
                    self.renamed.insert(to.clone(), from.clone());
                }
                self.look(now, from);
                self.look(now, to);
            }
            PushEvent::Overflow | PushEvent::Back => {
                let all: Vec<_> = self.watched.keys().cloned().collect();
                for path in all {
                    self.hurry(now, &path);
                }
            }
            PushEvent::Lost => {}
        }
    }

    /// The next path to look at, below the root. Its answer goes to
    /// [`Directories::handle_looks`]; while looks are under way, no listing is to be started.
    pub fn poll_look(&mut self, now: Instant) -> Option<RemotePath> {
        if let Some(settle) = &mut self.settle {
            while let Some(path) = settle.poll_look(now) {
                self.looks.insert(path);
            }
        }
        let free = |path: &&RemotePath| {
            let watched = self
                .split(path)
                .and_then(|(parent, _)| self.watched.get(&parent));
            watched.is_none_or(|watched| !watched.is_listing)
        };
        let path = self.looks.iter().find(free)?.clone();
        self.looks.remove(&path);
        Some(path)
    }

    /// Takes what was found at paths: attributes, or that nothing is there. Those that could not be
    /// looked at are left out.
    pub fn handle_looks(&mut self, now: Instant, mut found: BTreeMap<RemotePath, Option<Attrs>>) {
        let renamed = std::mem::take(&mut self.renamed);
        for (to, from) in renamed {
            if found.get(&from) == Some(&None)
                && let Some(Some(attrs)) = found.get(&to)
                && self.rename(now, &from, &to, *attrs)
            {
                found.remove(&from);
                found.remove(&to);
            }
        }
        for (path, attrs) in found {
            self.handle_look(now, &path, attrs);
        }
        self.tell_settled();
    }

    /// The next thing to tell; call until it is `None`.
    pub fn poll_event(&mut self) -> Option<Result<Event, WatchError>> {
        self.told.pop_front()
    }

    /// Whether the watch is over: the connection is lost.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    fn handle_look(&mut self, now: Instant, path: &RemotePath, attrs: Option<Attrs>) {
        let Some((parent, name)) = self.split(path) else {
            return;
        };
        let admitted = |attrs: &Attrs| self.admits(&parent, &name, attrs);
        let attrs = attrs.filter(admitted);
        let Some(watched) = self.watched.get_mut(&parent) else {
            return;
        };
        watched.watcher.handle_look(&name, attrs.as_ref());
        let told: Vec<_> = std::iter::from_fn(|| watched.watcher.poll_event()).collect();
        for event in told {
            self.note(now, event);
        }
        if let Some(settle) = &mut self.settle
            && (settle.contains(path) || settle.is_marker(path))
        {
            let facts = attrs.as_ref().map(Facts::of);
            settle.looked(
                now,
                path,
                facts.filter(|facts| facts.kind == FileType::Regular),
            );
        }
        if attrs.is_some_and(|attrs| attrs.file_type() == FileType::Directory) {
            self.enter(now, path, FirstListing::News);
        }
    }

    /// Tells a rename, if what is known says that it was one.
    fn rename(&mut self, now: Instant, from: &RemotePath, to: &RemotePath, attrs: Attrs) -> bool {
        let facts = Facts::of(&attrs);
        let known = |path: &RemotePath| {
            let (parent, name) = self.split(path)?;
            self.watched.get(&parent)?.watcher.known(&name)
        };
        let (Some((old, old_name)), Some((new, new_name))) = (self.split(from), self.split(to))
        else {
            return false;
        };
        let is_one = facts.kind == FileType::Regular
            && known(from) == Some(facts)
            && known(to).is_none()
            && self.admits(&new, &new_name, &attrs);
        // A directory that has not been listed yet will tell of all that is in it.
        let listed = self
            .watched
            .get(&new)
            .is_some_and(|new| new.watcher.has_listed());
        if !is_one || !listed {
            return false;
        }
        if let Some(watched) = self.watched.get_mut(&old) {
            watched.watcher.set_known(&old_name, None);
        }
        if let Some(watched) = self.watched.get_mut(&new) {
            watched.watcher.set_known(&new_name, Some(facts));
        }
        self.told.push_back(Ok(Event {
            kind: EventKind::Renamed,
            path: self.path(to),
            from: Some(self.path(from)),
            attrs: Some(attrs),
        }));
        if let Some(settle) = &mut self.settle {
            settle.vanished(from);
            settle.observe(now, to, facts);
        }
        true
    }

    /// Passes an event of a watcher on, and does what follows from it.
    fn note(&mut self, now: Instant, event: Result<Event, WatchError>) {
        let Ok(event) = event else {
            self.told.push_back(event);
            return;
        };
        let below = self.below(&event.path);
        let facts = event.attrs.as_ref().map(Facts::of);
        match event.kind {
            EventKind::Removed => {
                self.leave(&below);
                if let Some(settle) = &mut self.settle {
                    settle.vanished(&below);
                }
            }
            _ => {
                if let Some(settle) = &mut self.settle
                    && let Some(facts) = facts.filter(|facts| facts.kind == FileType::Regular)
                {
                    settle.observe(now, &below, facts);
                    if settle.contains(&below) && self.looks.len() < LOOKS_MAX {
                        self.looks.extend(settle.companions(&below));
                    }
                }
            }
        }
        self.told.push_back(Ok(event));
    }

    /// What follows from a listing besides its changes: directories to enter, candidates seen again.
    fn found(
        &mut self,
        now: Instant,
        directory: &RemotePath,
        listing: &Listing,
        first: FirstListing,
    ) {
        for listed in listing.entries() {
            let path = join(directory, listed.name());
            match listed.attrs().file_type() {
                FileType::Directory => self.enter(now, &path, first),
                FileType::Regular => {
                    if let Some(settle) = &mut self.settle
                        && settle.contains(&path)
                    {
                        settle.observe(now, &path, Facts::of(listed.attrs()));
                    }
                }
                _ => {}
            }
        }
        if let Some(settle) = &mut self.settle {
            for listed in listing.entries() {
                let path = join(directory, listed.name());
                if settle.is_marker(&path) {
                    settle.seen(now, &path);
                }
            }
        }
    }

    fn tell_settled(&mut self) {
        let Some(settle) = &mut self.settle else {
            return;
        };
        while let Some((path, facts)) = settle.poll_ready() {
            let path = self.root.join(&path);
            let times = facts.mtime.map(|mtime| ketch_client::Times {
                atime: mtime,
                mtime,
            });
            self.told.push_back(Ok(Event {
                kind: EventKind::Settled,
                path,
                from: None,
                attrs: Some(Attrs {
                    size: facts.size,
                    times,
                    ..Attrs::default()
                }),
            }));
        }
    }

    /// Watches a directory that was found, if that is wanted and it is not watched yet.
    fn enter(&mut self, now: Instant, path: &RemotePath, first: FirstListing) {
        let depth = path.as_bytes().split(|byte| *byte == b'/').count();
        let depth_max = self
            .config
            .depth
            .map_or(DEPTH_MAX, |levels| levels.saturating_sub(1).min(DEPTH_MAX));
        if !self.config.recursive || depth > depth_max || self.watched.contains_key(path) {
            return;
        }
        if self.watched.len() >= DIRECTORIES_MAX {
            if !std::mem::replace(&mut self.is_full, true) {
                self.told.push_back(Err(WatchError::TooManyDirectories {
                    path: self.path(path),
                }));
            }
            return;
        }
        self.add(now, path.clone(), first);
    }

    fn add(&mut self, now: Instant, path: RemotePath, first: FirstListing) {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let config = WatcherConfig {
            first_listing: first,
            ..self.config.watcher
        };
        let watcher = Watcher::new(self.path(&path), config, now, self.seed);
        let watched = Watched {
            watcher,
            first,
            due: None,
            is_listing: false,
        };
        self.watched.insert(path.clone(), watched);
        self.schedule(&path);
    }

    /// What is not there any more may have been a directory: all below it is gone, too.
    fn leave(&mut self, path: &RemotePath) {
        let below = [path.as_bytes(), b"/"].concat();
        let is_below = |other: &RemotePath| other.as_bytes().starts_with(&below);
        let range = self.watched.range(path.clone()..);
        let inside: Vec<_> = range
            .map(|(other, _)| other)
            .take_while(|other| other.as_bytes().starts_with(path.as_bytes()))
            .filter(|other| *other == path || is_below(other))
            .cloned()
            .collect();
        for directory in inside.into_iter().rev() {
            let Some(watched) = self.watched.remove(&directory) else {
                continue;
            };
            if let Some(at) = watched.due {
                self.due.remove(&(at, directory.clone()));
            }
            for name in watched.watcher.names() {
                let path = join(&directory, name);
                if let Some(settle) = &mut self.settle {
                    settle.vanished(&path);
                }
                self.told.push_back(Ok(Event {
                    kind: EventKind::Removed,
                    path: self.root.join(&path),
                    from: None,
                    attrs: None,
                }));
            }
        }
        self.is_full = self.is_full && self.watched.len() >= DIRECTORIES_MAX;
    }

    fn look(&mut self, now: Instant, path: RemotePath) {
        let Some((parent, _)) = self.split(&path) else {
            self.hurry(now, &RemotePath::from(""));
            return;
        };
        if !self.is_listed(&path) {
            return; // it is found when its directory is, or comes with the first listing of it
        }
        if self.looks.len() >= LOOKS_MAX {
            self.hurry(now, &parent);
        } else {
            self.looks.insert(path);
        }
    }

    /// Whether the directory of this path was listed.
    fn is_listed(&self, path: &RemotePath) -> bool {
        self.split(path)
            .and_then(|(parent, _)| self.watched.get(&parent))
            .is_some_and(|watched| watched.watcher.has_listed())
    }

    fn hurry(&mut self, now: Instant, path: &RemotePath) {
        if let Some(watched) = self.watched.get_mut(path) {
            watched.watcher.hurry(now);
            self.schedule(path);
        }
    }

    fn retry(&mut self, now: Instant, path: &RemotePath, error: WatchError) {
        if let Some(watched) = self.watched.get_mut(path) {
            watched.watcher.handle_listing(now, Err(error));
            while watched.watcher.poll_event().is_some() {}
            self.schedule(path);
        }
    }

    fn schedule(&mut self, path: &RemotePath) {
        if let Some(watched) = self.watched.get_mut(path) {
            if let Some(at) = watched.due.take() {
                self.due.remove(&(at, path.clone()));
            }
            watched.due = watched.watcher.poll_timeout();
            if let Some(at) = watched.due {
                self.due.insert((at, path.clone()));
            }
        }
    }

    /// Directory and name of a path below the root; `None` for the root itself.
    #[expect(clippy::unused_self, reason = "reads as the other questions do")]
    fn split(&self, path: &RemotePath) -> Option<(RemotePath, Vec<u8>)> {
        let bytes = path.as_bytes();
        if bytes.is_empty() {
            return None;
        }
        Some(match bytes.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (directory, name) = bytes.split_at(slash);
                (RemotePath::from(directory), name.get(1..)?.to_vec())
            }
            None => (RemotePath::from(""), bytes.to_vec()),
        })
    }

    /// A path as events have it, below the root.
    fn below(&self, path: &RemotePath) -> RemotePath {
        let root = self.root.join("");
        let rest = path.as_bytes().strip_prefix(root.as_bytes());
        RemotePath::from(rest.unwrap_or(path.as_bytes()))
    }
}

fn join(directory: &RemotePath, name: &[u8]) -> RemotePath {
    if directory.as_bytes().is_empty() {
        RemotePath::from(name)
    } else {
        directory.join(name)
    }
}

#[cfg(test)]
mod tests;
