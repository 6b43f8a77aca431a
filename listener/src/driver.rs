//! The part of a watch that has a clock, a task and a connection: it lists and looks when the
//! machine in [`crate::directories`] says so, and passes on what the machine tells.
//!
//! One task for each watch, which has up to [`LISTINGS_AT_ONCE`] directories listed at a time on each
//! channel and hands events over through a queue of [`EVENTS_QUEUE`]; while that is full it waits,
//! and lists nothing.
#![expect(clippy::disallowed_methods, reason = "drivers own time and tasks")]

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use ketch_client::{Attrs, Failure, Filter, Kind, RemotePath, Sftp, WatchOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::directories::{Directories, DirectoriesConfig, LOOKS_MAX};
use crate::error::WatchError;
use crate::event::Event;
use crate::listing::{ENTRIES_MAX, Listing};
use crate::push::{self, PushEvent, Pushes};
use crate::remote::channels::Channels;
use crate::remote::{CHANNELS, CHANNELS_MAX, Remote};
use crate::settle::SettleConfig;
use crate::watcher::FirstListing;

/// Events and errors that wait for whoever takes them.
const EVENTS_QUEUE: usize = 256;

/// Directories that are listed at the same time on a channel.
const LISTINGS_AT_ONCE: usize = 16;

/// Paths that are looked at in one go, their requests one behind the other.
const LOOKS_AT_ONCE: usize = 256;

/// Whether changes that a server tells by itself are used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Push {
    /// Only listings.
    #[default]
    Never,
    /// Where the server has `watch@ketch`, as ketch's own has. Listings go on as they do without:
    /// what a push did not tell, they find.
    Auto,
}

/// What to watch, and how; [`Watch::start`] begins.
#[derive(Debug)]
pub struct Watch {
    sftp: Sftp,
    path: RemotePath,
    config: DirectoriesConfig,
    entries_max: usize,
    push: Push,
    channels: usize,
}

impl Watch {
    /// Watches the names in the directory `path` over `sftp`: those in directories below it only
    /// with [`Watch::recursive`].
    #[must_use]
    pub fn directory(sftp: Sftp, path: RemotePath) -> Self {
        Self {
            sftp,
            path,
            config: DirectoriesConfig::default(),
            entries_max: ENTRIES_MAX,
            push: Push::Never,
            channels: CHANNELS,
        }
    }

    /// Time from the start of one listing to the start of the next; up to a fifth less is waited,
    /// at random. Default: [`crate::watcher::INTERVAL`].
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.config.watcher.interval = interval;
        self
    }

    /// Whether what is there at the start is known already or news. Default: known.
    #[must_use]
    pub const fn first_listing(mut self, first_listing: FirstListing) -> Self {
        self.config.watcher.first_listing = first_listing;
        self
    }

    /// Complete listings in a row that must lack a name before it is told as removed. Default:
    /// [`crate::watcher::MISSING_POLLS`], where the reason stands.
    #[must_use]
    pub const fn missing_polls(mut self, polls: u8) -> Self {
        self.config.watcher.missing_polls = polls;
        self
    }

    /// Whether all directories below are watched, too; links are not followed. Default: no.
    #[must_use]
    pub const fn recursive(mut self, recursive: bool) -> Self {
        self.config.recursive = recursive;
        self
    }

    /// How many levels are told of with [`Watch::recursive`]: 1 is the directory itself, 2 those in it,
    /// too. Default: all, up to [`crate::directories::DEPTH_MAX`].
    #[must_use]
    pub const fn depth(mut self, levels: usize) -> Self {
        self.config.depth = Some(levels);
        self
    }

    /// Which names are told of, counted from the watched directory. A directory that is left out is
    /// not listed. Default: all.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.config.filter = filter;
        self
    }

    /// Whether a rename that the server tells is told as [`EventKind::Renamed`](crate::EventKind).
    /// Default: no, it is a removal and a creation.
    #[must_use]
    pub const fn renames(mut self, renames: bool) -> Self {
        self.config.renames = renames;
        self
    }

    /// Also tells when a new or changed file is complete:
    /// [`EventKind::Settled`](crate::EventKind). Default: no.
    #[must_use]
    pub fn settle(mut self, settle: SettleConfig) -> Self {
        self.config.settle = Some(settle);
        self
    }

    /// Whether changes that the server tells by itself are used. Default: [`Push::Never`].
    #[must_use]
    pub const fn push(mut self, push: Push) -> Self {
        self.push = push;
        self
    }

    /// Names each directory may hold; a listing with more is an error. Default:
    /// [`crate::listing::ENTRIES_MAX`].
    #[must_use]
    pub const fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries;
        self
    }

    /// Lists over so many SFTP channels of the connection, 1 to [`CHANNELS_MAX`], where there are many
    /// directories: see [`Remote::channels`]. Default: [`CHANNELS`].
    #[must_use]
    pub fn channels(mut self, channels: usize) -> Self {
        self.channels = channels.clamp(1, CHANNELS_MAX);
        self
    }

    /// Starts the task that watches. It ends when [`Events`] is dropped or the connection is lost.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(self) -> Events {
        let (told, events) = mpsc::channel(EVENTS_QUEUE);
        let (counted, progress) = watch::channel(Progress::default());
        tokio::spawn(async move {
            let gone = told.clone();
            tokio::select! {
                () = run(self, told, counted) => {}
                () = gone.closed() => {}
            }
        });
        Events { events, progress }
    }
}

/// What a [`Watch`] tells: a stream of [`Event`]s, with errors in between.
///
/// After an error the watch goes on, unless [`WatchError::is_final`]; the stream ends then.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Result<Event, WatchError>>,
    progress: watch::Receiver<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    listings: u64,
    /// Whether pushes come; `None` while that is not known.
    live: Option<bool>,
}

impl Events {
    /// The next event or error; `None` once the watch is over. Nothing is lost if the future is
    /// dropped.
    pub async fn next(&mut self) -> Option<Result<Event, WatchError>> {
        self.events.recv().await
    }

    /// Waits until it is known whether the server tells changes by itself, and returns that: from then
    /// on a change is told without waiting for a listing. `false` with [`Push::Never`].
    pub async fn pushed(&mut self) -> bool {
        let known = self.progress.wait_for(|progress| progress.live.is_some());
        known
            .await
            .is_ok_and(|progress| progress.live == Some(true))
    }

    /// Waits until `count` complete listings were made; returns whether they were, as the watch
    /// may end before.
    ///
    /// After `listings(1)` every change in the directory is told, whatever was there before. Of a
    /// recursive watch, listings of all its directories count.
    pub async fn listings(&mut self, count: u64) -> bool {
        let enough = |made: &Progress| made.listings >= count;
        self.progress.wait_for(enough).await.is_ok()
    }
}

impl Stream for Events {
    type Item = Result<Event, WatchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(cx)
    }
}

async fn run(
    watch: Watch,
    told: mpsc::Sender<Result<Event, WatchError>>,
    counted: watch::Sender<Progress>,
) {
    // A fresh hasher differs from watch to watch, which is all the waits need.
    let seed = RandomState::new().hash_one(watch.path.as_bytes());
    let mut pushes = match watch.push {
        Push::Never => {
            counted.send_modify(|made| made.live = Some(false));
            None
        }
        Push::Auto => {
            let remote = Remote::over(watch.sftp.clone(), watch.path.clone());
            let options = WatchOptions::new();
            let recursive = watch.config.recursive;
            let options = if recursive {
                options.recursive()
            } else {
                options
            };
            Some(push::watching(remote, options))
        }
    };
    let (path, config) = (watch.path.clone(), watch.config.clone());
    let mut directories = Directories::new(path, config, Instant::now(), seed);
    let mut listings = JoinSet::new();
    let mut lines = Lines::new(&watch);
    loop {
        while look(&watch.sftp, &mut directories).await {}
        while let Some(event) = directories.poll_event() {
            if told.send(event).await.is_err() {
                return;
            }
        }
        if directories.is_ended() {
            return;
        }
        let at_once = LISTINGS_AT_ONCE * lines.open.len();
        while listings.len() < at_once
            && let Some(directory) = directories.start_listing(Instant::now())
        {
            let (first, entries_max) = (watch.sftp.clone(), watch.entries_max);
            let sftp = lines.next(listings.len());
            let path = directories.path(&directory);
            listings.spawn(async move {
                let mut result = list(&sftp, path.clone(), entries_max).await;
                // Half of a directory says nothing: another channel lists it from the start.
                if result.is_err() && sftp.has_ended() && !first.has_ended() {
                    result = list(&first, path, entries_max).await;
                }
                (directory, result)
            });
        }
        let full = listings.len() >= at_once;
        let due = directories.poll_timeout().filter(|_| !full);
        tokio::select! {
            Some(Ok((directory, result))) = listings.join_next() => {
                let complete = result.is_ok();
                let result = result.map(|listing| admitted(&directories, &directory, listing));
                directories.handle_listing(Instant::now(), &directory, result);
                if complete {
                    counted.send_modify(|made| made.listings += 1);
                }
            }
            event = next_push(&mut pushes) => {
                let Some(event) = event else {
                    pushes = None;
                    counted.send_modify(|made| made.live = Some(false));
                    continue;
                };
                let now = Instant::now();
                let live = event != PushEvent::Lost;
                counted.send_if_modified(|made| made.live.replace(live) != Some(live));
                directories.handle_push(now, event);
                // What came with it is looked at together.
                let more = std::iter::from_fn(|| pushes.as_mut().and_then(Pushes::try_next));
                for event in more.take(LOOKS_MAX) {
                    directories.handle_push(now, event);
                }
            }
            () = lines.more() => {}
            () = sleep_until(due) => {}
        }
    }
}

/// The channels of a watch.
struct Lines {
    open: Vec<Sftp>,
    turn: usize,
    max: usize,
    channels: Channels,
    opening: Option<Pin<Box<dyn Future<Output = Option<Sftp>> + Send>>>,
}

impl Lines {
    fn new(watch: &Watch) -> Self {
        Self {
            open: vec![watch.sftp.clone()],
            turn: 0,
            max: watch.channels,
            channels: Channels::default(),
            opening: None,
        }
    }

    /// The channel for another listing, beside `under_way`. One that was lost is used no more.
    fn next(&mut self, under_way: usize) -> Sftp {
        let first = self.open.remove(0);
        let count = self.open.len();
        self.open.retain(|sftp| !sftp.has_ended());
        if self.open.len() < count {
            self.max = 1 + self.open.len();
        }
        self.open.insert(0, first.clone());
        let number = self.open.len();
        // As many as there may be on those that are open.
        let is_busy = under_way + 1 >= LISTINGS_AT_ONCE * number;
        if is_busy && number < self.max && self.opening.is_none() {
            let (channels, of) = (self.channels.clone(), first.clone());
            let opening = async move { channels.beside(&of, number - 1).await };
            self.opening = Some(Box::pin(opening));
        }
        self.turn = (self.turn + 1) % number;
        self.open.get(self.turn).cloned().unwrap_or(first)
    }

    /// Waits for one more, if one is being opened.
    async fn more(&mut self) {
        let Some(opening) = &mut self.opening else {
            return pending().await;
        };
        let opened = opening.await;
        self.opening = None;
        match opened {
            Some(sftp) => self.open.push(sftp),
            None => self.max = self.open.len(),
        }
    }
}

/// The next push; `None` once there will be none, and never if that is known.
async fn next_push(pushes: &mut Option<Pushes>) -> Option<PushEvent> {
    match pushes {
        Some(pushes) => pushes.next().await,
        None => pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// Looks at what is to be looked at, or at a part of it; whether there was any.
async fn look(sftp: &Sftp, directories: &mut Directories) -> bool {
    let mut looks = JoinSet::new();
    while looks.len() < LOOKS_AT_ONCE
        && let Some(path) = directories.poll_look(Instant::now())
    {
        let (sftp, server) = (sftp.clone(), directories.path(&path));
        looks.spawn(async move { (path, sftp.lstat(server).await) });
    }
    if looks.is_empty() {
        return false;
    }
    let mut found: BTreeMap<RemotePath, Option<Attrs>> = BTreeMap::new();
    while let Some(look) = looks.join_next().await {
        match look {
            Ok((path, Ok(attrs))) => {
                found.insert(path, Some(attrs));
            }
            Ok((path, Err(error))) if error.kind() == Kind::NotFound => {
                found.insert(path, None);
            }
            // The next listing tells what this would have.
            _ => {}
        }
    }
    directories.handle_looks(Instant::now(), found);
    true
}

/// The names of a listing that are told of.
fn admitted(directories: &Directories, directory: &RemotePath, listing: Listing) -> Listing {
    if !directories.is_filtered() {
        return listing;
    }
    let mut kept = Listing::new(listing.len());
    for listed in listing.entries() {
        if directories.admits(directory, listed.name(), listed.attrs()) {
            // It fitted before, with all the others.
            let _ = kept.push(listed.name(), *listed.attrs());
        }
    }
    kept.finish()
}

/// Reads a whole directory, or nothing.
async fn list(sftp: &Sftp, path: RemotePath, entries_max: usize) -> Result<Listing, WatchError> {
    let unreadable = |source| WatchError::Unreadable {
        path: path.clone(),
        source,
    };
    let mut directory = sftp.read_dir(&path);
    let mut listing = Listing::new(entries_max);
    while let Some(entries) = directory.next_entries().await {
        for entry in entries.map_err(unreadable)?.iter() {
            listing
                .push(entry.name(), entry.attrs())
                .map_err(|source| WatchError::TooLarge {
                    path: path.clone(),
                    source,
                })?;
        }
    }
    Ok(listing.finish())
}
