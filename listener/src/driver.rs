//! The part of a watch that has a clock, a task and a connection: it reads the directory when the
//! machine in [`crate::watcher`] says so, and passes on what the machine tells.
//!
//! One task for each watch. It holds one listing at a time and hands events over through a queue
//! of [`EVENTS_QUEUE`]; while that is full it waits, and makes no listing.
#![expect(clippy::disallowed_methods, reason = "drivers own time and tasks")]

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use ketch_client::{RemotePath, Sftp};
use tokio::sync::{mpsc, watch};

use crate::error::WatchError;
use crate::event::Event;
use crate::listing::{ENTRIES_MAX, Listing};
use crate::watcher::{FirstListing, Watcher, WatcherConfig};

/// Events and errors that wait for whoever takes them.
const EVENTS_QUEUE: usize = 256;

/// What to watch, and how; [`Watch::start`] begins.
#[derive(Debug)]
pub struct Watch {
    sftp: Sftp,
    path: RemotePath,
    config: WatcherConfig,
    entries_max: usize,
}

impl Watch {
    /// Watches the names in the directory `path` (not those in directories below it) over `sftp`.
    #[must_use]
    pub fn directory(sftp: Sftp, path: RemotePath) -> Self {
        Self {
            sftp,
            path,
            config: WatcherConfig::default(),
            entries_max: ENTRIES_MAX,
        }
    }

    /// Time from the start of one listing to the start of the next; up to a fifth less is waited,
    /// at random. Default: [`crate::watcher::INTERVAL`].
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.config.interval = interval;
        self
    }

    /// Whether what is there at the start is known already or news. Default: known.
    #[must_use]
    pub const fn first_listing(mut self, first_listing: FirstListing) -> Self {
        self.config.first_listing = first_listing;
        self
    }

    /// Complete listings in a row that must lack a name before it is told as removed. Default:
    /// [`crate::watcher::MISSING_POLLS`], where the reason stands.
    #[must_use]
    pub const fn missing_polls(mut self, polls: u8) -> Self {
        self.config.missing_polls = polls;
        self
    }

    /// Names the directory may hold; a listing with more is an error. Default:
    /// [`crate::listing::ENTRIES_MAX`].
    #[must_use]
    pub const fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries;
        self
    }

    /// Starts the task that watches. It ends when [`Events`] is dropped or the connection is lost.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(self) -> Events {
        let (told, events) = mpsc::channel(EVENTS_QUEUE);
        let (counted, listings) = watch::channel(0);
        tokio::spawn(async move {
            let gone = told.clone();
            tokio::select! {
                () = run(self, told, counted) => {}
                () = gone.closed() => {}
            }
        });
        Events { events, listings }
    }
}

/// What a [`Watch`] tells: a stream of [`Event`]s, with errors in between.
///
/// After an error the watch goes on, unless [`WatchError::is_final`]; the stream ends then.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Result<Event, WatchError>>,
    listings: watch::Receiver<u64>,
}

impl Events {
    /// The next event or error; `None` once the watch is over. Nothing is lost if the future is
    /// dropped.
    pub async fn next(&mut self) -> Option<Result<Event, WatchError>> {
        self.events.recv().await
    }

    /// Waits until `count` complete listings were made; returns whether they were, as the watch
    /// may end before.
    ///
    /// After `listings(1)` every change in the directory is told, whatever was there before.
    pub async fn listings(&mut self, count: u64) -> bool {
        self.listings.wait_for(|made| *made >= count).await.is_ok()
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
    counted: watch::Sender<u64>,
) {
    // A fresh hasher differs from watch to watch, which is all the waits need.
    let seed = RandomState::new().hash_one(watch.path.as_bytes());
    let mut watcher = Watcher::new(watch.path.clone(), watch.config, Instant::now(), seed);
    while let Some(due) = watcher.poll_timeout() {
        tokio::time::sleep_until(due.into()).await;
        if watcher.start_listing(Instant::now()) {
            let listing = list(&watch).await;
            let complete = listing.is_ok();
            watcher.handle_listing(Instant::now(), listing);
            if complete {
                counted.send_modify(|made| *made += 1);
            }
        }
        while let Some(event) = watcher.poll_event() {
            if told.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Reads the whole directory, or nothing.
async fn list(watch: &Watch) -> Result<Listing, WatchError> {
    let unreadable = |source| WatchError::Unreadable {
        path: watch.path.clone(),
        source,
    };
    let mut entries = watch.sftp.read_dir(&watch.path);
    let mut listing = Listing::new(watch.entries_max);
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(unreadable)?;
        listing
            .push(entry.name(), entry.attrs())
            .map_err(|source| WatchError::TooLarge {
                path: watch.path.clone(),
                source,
            })?;
    }
    Ok(listing.finish())
}
