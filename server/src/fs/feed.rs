//! The change feed between a file system and a session: a queue that says when it ran over.
//!
//! A [`FileSystem`](crate::FileSystem) that can be watched pushes [`FeedEvent`]s into a [`Feed`],
//! from any thread and without waiting; the session takes them out when its client asks
//! (`docs/watch-extension.md`). [`Queue`] is the machine.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ketch_protocol::{WatchKind, WatchKinds};

use crate::path::VPath;

/// Most events that one subscription holds.
pub const FEED_EVENTS_MAX: usize = 4096;
/// Most bytes of names that one subscription holds.
const FEED_BYTES_MAX: usize = 1024 * 1024;
/// Most directories that the subscriptions of one session watch together.
pub(crate) const SESSION_DIRECTORIES_MAX: usize = 8192;
/// So many of the last events are looked through for one that says the same.
const LOOKED_THROUGH: usize = 16;

/// Something that happened to a name.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FeedEvent {
    /// It is new: made, or moved here from where nothing is watched.
    Created {
        /// Which.
        path: VPath,
        /// Whether it is a directory, as far as is known.
        is_directory: bool,
    },
    /// The content of a file changed, and may go on changing.
    Modified {
        /// Which.
        path: VPath,
    },
    /// A file that was open for writing was closed.
    Written {
        /// Which.
        path: VPath,
    },
    /// Mode, owner or times changed.
    Attributes {
        /// Which.
        path: VPath,
        /// Whether it is a directory, as far as is known.
        is_directory: bool,
    },
    /// It is gone: removed, or moved to where nothing is watched.
    Removed {
        /// Which.
        path: VPath,
        /// Whether it was a directory, as far as is known.
        is_directory: bool,
    },
    /// It became another.
    Renamed {
        /// What it was called.
        path: VPath,
        /// What it is called.
        to: VPath,
        /// Whether it is a directory, as far as is known.
        is_directory: bool,
    },
    /// Events were lost.
    Overflow,
}

impl FeedEvent {
    pub(crate) const fn kind(&self) -> WatchKind {
        match self {
            Self::Created { .. } => WatchKind::CREATED,
            Self::Modified { .. } => WatchKind::MODIFIED,
            Self::Written { .. } => WatchKind::WRITTEN,
            Self::Attributes { .. } => WatchKind::ATTRIBUTES,
            Self::Removed { .. } => WatchKind::REMOVED,
            Self::Renamed { .. } => WatchKind::RENAMED,
            Self::Overflow => WatchKind::OVERFLOW,
        }
    }

    /// Bytes that it is counted as.
    pub(crate) fn len(&self) -> usize {
        let len = |path: &VPath| path.as_bytes().len();
        match self {
            Self::Created { path, .. }
            | Self::Modified { path }
            | Self::Written { path }
            | Self::Attributes { path, .. }
            | Self::Removed { path, .. } => len(path),
            Self::Renamed { path, to, .. } => len(path).saturating_add(len(to)),
            Self::Overflow => 0,
        }
    }
}

/// What a session wants to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct WatchRequest {
    /// The directory. Links are not followed to it.
    pub path: VPath,
    /// Whether what happens in directories beneath is told, too.
    pub recursive: bool,
}

impl WatchRequest {
    /// Whether something at `path` is to be told.
    #[must_use]
    pub fn covers(&self, path: &VPath) -> bool {
        let (above, path) = (self.path.as_bytes(), path.as_bytes());
        let rest = match above {
            b"/" => path.get(1..),
            above => path
                .strip_prefix(above)
                .and_then(|rest| rest.strip_prefix(b"/")),
        };
        rest.is_some_and(|rest| !rest.is_empty() && (self.recursive || !rest.contains(&b'/')))
    }
}

/// What a file system holds for a subscription, whatever that is. Dropped, nothing is told any more.
pub struct Subscription {
    _held: Box<dyn Send>,
}

impl Subscription {
    /// Keeps `held` until the subscription ends.
    pub fn new(held: impl Send + 'static) -> Self {
        Self {
            _held: Box::new(held),
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// Where a file system puts what happens. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Mutex<Queue>,
    /// Somebody waits for something to be there.
    is_awaited: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
    directories: Arc<AtomicUsize>,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FeedEnd {
    /// What was watched is not there any more.
    Gone,
    /// There are more directories than may be watched.
    TooMany,
}

impl Feed {
    /// `wake` is called from any thread when something is there that was waited for;
    /// `directories` counts those that the session watches.
    pub(crate) fn new(
        kinds: WatchKinds,
        directories: Arc<AtomicUsize>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                queue: Mutex::new(Queue::new(kinds)),
                is_awaited: AtomicBool::new(false),
                wake: Box::new(wake),
                directories,
            }),
        }
    }

    /// Something happened. Never waits; beyond what a subscription holds, what is there is dropped
    /// and the client is told so.
    pub fn push(&self, event: FeedEvent) {
        self.change(|queue| queue.push(event));
    }

    /// Nothing more will happen: what was watched is gone.
    pub fn end(&self) {
        self.change(|queue| queue.end(FeedEnd::Gone));
    }

    /// Nothing more can be told: there are more directories than may be watched.
    pub fn fail(&self) {
        self.change(|queue| queue.end(FeedEnd::TooMany));
    }

    /// Counts one more directory that is watched; says whether it may be.
    #[must_use]
    pub fn take_directory(&self) -> bool {
        let more = |count: usize| (count < SESSION_DIRECTORIES_MAX).then_some(count + 1);
        let directories = &self.inner.directories;
        directories
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// So many directories are not watched any more.
    pub fn give_directories(&self, count: usize) {
        let less = |all: usize| Some(all.saturating_sub(count));
        let directories = &self.inner.directories;
        let _ = directories.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.inner
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Queue) -> bool) {
        let is_new = change(&mut self.queue());
        if is_new && self.inner.is_awaited.swap(false, Ordering::AcqRel) {
            (self.inner.wake)();
        }
    }

    /// Takes what is there, in order, as far as `take` takes it; else wakes when something is.
    pub(crate) fn take(&self, take: impl FnMut(&FeedEvent) -> bool) -> Result<(), FeedEnd> {
        let mut queue = self.queue();
        let result = queue.take(take);
        // Said with the lock held: what comes from now on sees it.
        self.inner
            .is_awaited
            .store(queue.events.is_empty(), Ordering::Release);
        result
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

/// Events that wait.
#[derive(Debug)]
struct Queue {
    kinds: WatchKinds,
    events: VecDeque<FeedEvent>,
    bytes: usize,
    end: Option<FeedEnd>,
}

impl Queue {
    const fn new(kinds: WatchKinds) -> Self {
        Self {
            kinds,
            events: VecDeque::new(),
            bytes: 0,
            end: None,
        }
    }

    /// Says whether there is something that was not there before.
    fn push(&mut self, event: FeedEvent) -> bool {
        if self.end.is_some() || !self.kinds.contains(event.kind()) {
            return false;
        }
        let says_the_same = matches!(
            event,
            FeedEvent::Modified { .. } | FeedEvent::Attributes { .. } | FeedEvent::Overflow
        );
        let mut last = self.events.iter().rev().take(LOOKED_THROUGH);
        if says_the_same && last.any(|earlier| *earlier == event) {
            return false;
        }
        self.bytes = self.bytes.saturating_add(event.len());
        self.events.push_back(event);
        if self.events.len() > FEED_EVENTS_MAX || self.bytes > FEED_BYTES_MAX {
            self.events.clear();
            self.events.push_back(FeedEvent::Overflow);
            self.bytes = 0;
        }
        true
    }

    fn end(&mut self, why: FeedEnd) -> bool {
        let is_first = self.end.is_none();
        self.end.get_or_insert(why);
        is_first
    }

    fn take(&mut self, mut take: impl FnMut(&FeedEvent) -> bool) -> Result<(), FeedEnd> {
        let was_empty = self.events.is_empty();
        while let Some(event) = self.events.front() {
            if !take(event) {
                break;
            }
            self.bytes = self.bytes.saturating_sub(event.len());
            self.events.pop_front();
        }
        match self.end {
            Some(why) if was_empty => Err(why),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(named: &str) -> VPath {
        VPath::resolve(named.as_bytes()).unwrap()
    }

    fn created(n: usize) -> FeedEvent {
        FeedEvent::Created {
            path: path(&format!("/{n}")),
            is_directory: false,
        }
    }

    fn all(queue: &mut Queue) -> Vec<FeedEvent> {
        let mut events = Vec::new();
        let take = |event: &FeedEvent| {
            events.push(event.clone());
            true
        };
        queue.take(take).unwrap();
        events
    }

    #[test]
    fn what_does_not_fit_is_said_to_be_lost_and_what_comes_after_it_is_there() {
        let mut queue = Queue::new(WatchKinds::ALL);
        for n in 0..=FEED_EVENTS_MAX {
            queue.push(created(n));
        }
        queue.push(created(7));
        assert_eq!(all(&mut queue), [FeedEvent::Overflow, created(7)]);
        let name = "n".repeat(200);
        let mut queue = Queue::new(WatchKinds::ALL);
        for n in 0..6000 {
            queue.push(FeedEvent::Removed {
                path: path(&format!("/{name}/{name}/{n}")),
                is_directory: false,
            });
            assert!(queue.bytes <= FEED_BYTES_MAX && queue.events.len() <= FEED_EVENTS_MAX);
        }
        assert_eq!(all(&mut queue).first(), Some(&FeedEvent::Overflow));
    }

    #[test]
    fn only_what_was_asked_for_is_kept_and_an_overflow_always() {
        let mut queue = Queue::new([WatchKind::REMOVED].into_iter().collect());
        assert!(!queue.push(created(1)));
        assert!(queue.push(FeedEvent::Overflow));
        assert_eq!(all(&mut queue), [FeedEvent::Overflow]);
    }

    #[test]
    fn a_file_that_is_being_written_is_told_once_until_it_is_read() {
        let mut queue = Queue::new(WatchKinds::ALL);
        let modified = || FeedEvent::Modified { path: path("/f") };
        assert!(queue.push(modified()));
        assert!(!queue.push(modified()));
        assert_eq!(all(&mut queue), [modified()]);
        assert!(queue.push(modified()), "it was read: this is news");
    }

    #[test]
    fn the_end_comes_behind_the_last_event() {
        let mut queue = Queue::new(WatchKinds::ALL);
        queue.push(created(1));
        assert!(queue.end(FeedEnd::Gone));
        assert!(!queue.push(created(2)));
        assert_eq!(all(&mut queue), [created(1)]);
        assert_eq!(queue.take(|_| true), Err(FeedEnd::Gone));
    }

    #[test]
    fn a_subscription_covers_what_lies_in_its_directory() {
        for (at, recursive, named, covered) in [
            ("/", false, "/a", true),
            ("/", false, "/a/b", false),
            ("/", true, "/a/b", true),
            ("/", true, "/", false),
            ("/a", true, "/a", false),
            ("/a", true, "/ab", false),
            ("/a", true, "/a/b/c", true),
            ("/a", false, "/a/b/c", false),
        ] {
            let request = WatchRequest {
                path: path(at),
                recursive,
            };
            assert_eq!(request.covers(&path(named)), covered, "{at} {named}");
        }
    }

    proptest! {
        /// Each event comes once and in order, unless it is said that some were lost.
        #[test]
        fn nothing_is_lost_in_silence(steps in proptest::collection::vec(0..3000_usize, 0..12)) {
            let mut queue = Queue::new(WatchKinds::ALL);
            let (mut pushed, mut next) = (0, 0);
            for step in steps {
                if step % 3 == 0 {
                    let events = all(&mut queue);
                    let mut events = &events[..];
                    if let Some((FeedEvent::Overflow, rest)) = events.split_first() {
                        next = pushed - rest.len();
                        events = rest;
                    }
                    for event in events {
                        prop_assert_eq!(event, &created(next));
                        next += 1;
                    }
                    prop_assert_eq!(next, pushed);
                } else {
                    for _ in 0..step {
                        queue.push(created(pushed));
                        pushed += 1;
                    }
                }
            }
        }
    }
}
