//! The change feed (`docs/watch-extension.md`): subscriptions as handles, and reads that wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use ketch_protocol::{RequestId, Watch, WatchEvent, WatchRead};

use super::job::{PathWork, Then, WatchPlan};
use super::requests::Taken;
use super::{Opened, Session, Ticket};
use crate::fs::feed::{Feed, FeedEnd, FeedEvent, Subscription, WatchRequest};
use crate::fs::{Call, Links, Metadata};
use crate::handles::SlotId;
use crate::policy::{Effect, Policy};
use crate::refusal::Refusal;

/// Most subscriptions of one session.
pub(crate) const WATCHES_MAX: usize = 16;
/// Longest that a read of a subscription stays unanswered.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Events of one reply stop here, in bytes.
const EVENTS_LEN_MAX: usize = 64 * 1024;
/// Most events of one reply.
const EVENTS_MAX: usize = 1024;
const _: () = assert!(EVENTS_MAX <= ketch_protocol::WATCH_EVENTS_MAX);

/// What a session knows of its subscriptions.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// Whether the file system can be watched.
    pub(super) is_possible: bool,
    /// Directories that are watched, of all of them together.
    directories: Arc<AtomicUsize>,
    /// Handles with a read that waits: no more than [`WATCHES_MAX`].
    waiting: Vec<SlotId>,
    /// The client will ask for nothing more: nothing is waited for.
    is_ending: bool,
}

/// A subscription as its handle has it.
#[derive(Debug)]
pub(super) struct Watched {
    feed: Feed,
    /// It is told until this is dropped.
    _held: Subscription,
    read: Option<Waiting>,
}

/// A `watch-read@ketch` that is not answered.
#[derive(Debug)]
struct Waiting {
    id: RequestId,
    wait: Duration,
    /// Known once somebody looked at the clock.
    until: Option<Instant>,
}

impl Session {
    /// Says that the file system can be watched.
    pub(crate) const fn can_watch(&mut self) {
        self.watching.is_possible = true;
    }

    /// `watch@ketch`: the directory is looked at in its turn, and then watched.
    pub(super) fn watch(&mut self, id: RequestId, watch: &Watch<'_>) -> Result<Taken, Refusal> {
        let Watch { path, flags, kinds } = *watch;
        if !self.watching.is_possible || flags & !Watch::RECURSIVE != 0 {
            return Err(Refusal::UNSUPPORTED);
        }
        let path = self.resolve(path)?;
        self.policy.allow(Effect::List, &path)?;
        let watches = self.handles.iter().filter(|entry| entry.is_watch).count();
        if watches >= WATCHES_MAX {
            return Err(Refusal::WATCHES);
        }
        let slot = self.reserve(path.clone(), true, false)?;
        if let Some(entry) = self.handles.get_mut(slot) {
            entry.is_watch = true;
        }
        let plan = WatchPlan {
            request: WatchRequest {
                path: path.clone(),
                recursive: flags & Watch::RECURSIVE != 0,
            },
            kinds,
            directories: Arc::clone(&self.watching.directories),
        };
        let links = Links::Stay;
        let draft = self.take_draft();
        self.push_path_work(PathWork {
            id,
            call: Call::Metadata { path, links },
            opens: Some(slot),
            then: Some(Then::Watch(Box::new(plan))),
            draft,
            no_directory: false,
        });
        Ok(Taken::Pending)
    }

    /// Whether what was looked at can be watched.
    pub(super) const fn check_watched(metadata: &Metadata) -> Result<(), Refusal> {
        match metadata.is_directory() {
            true => Ok(()),
            false => Err(Refusal::NO_DIRECTORY),
        }
    }

    /// A directory is being watched, or could not be.
    pub(crate) fn watched(&mut self, ticket: Ticket, feed: Feed, result: io::Result<Subscription>) {
        let Ticket { id, opens, .. } = ticket;
        match (result, opens) {
            (Ok(held), Some(slot)) => {
                let watched = Watched {
                    feed,
                    _held: held,
                    read: None,
                };
                self.opened(id, slot, Opened::Watched(Box::new(watched)));
            }
            (result, opens) => {
                if let Some(slot) = opens {
                    self.handles.remove(slot);
                }
                let why = match result {
                    Err(error) => match error.kind() {
                        // The kernel's word for "no more watches" is "no space".
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                            Refusal::WATCHES
                        }
                        _ => Refusal::from(&error),
                    },
                    Ok(_) => Refusal::CONFUSED,
                };
                self.replies.refuse(id, why);
            }
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        self.finish(ticket.place, ticket.mode);
    }

    /// `watch-read@ketch`: it waits until [`Session::answer_watches`] has something for it.
    pub(super) fn watch_read(
        &mut self,
        id: RequestId,
        read: &WatchRead<'_>,
    ) -> Result<Taken, Refusal> {
        let slot = self.slot(read.handle)?;
        let entry = self.handles.get_mut(slot);
        let Some(Opened::Watched(watched)) = entry.map(|entry| &mut entry.opened) else {
            return Err(Refusal::WRONG_HANDLE);
        };
        if watched.read.is_some() {
            return Err(Refusal::READ_ALREADY);
        }
        watched.read = Some(Waiting {
            id,
            wait: Duration::from_millis(u64::from(read.wait)).min(WAIT_MAX),
            until: None,
        });
        self.watching.waiting.push(slot);
        Ok(Taken::Pending)
    }

    /// A handle is being closed: its read waits no longer.
    pub(super) fn end_watch(&mut self, slot: SlotId) {
        let entry = self.handles.get_mut(slot);
        if let Some(Opened::Watched(watched)) = entry.map(|entry| &mut entry.opened)
            && let Some(read) = watched.read.take()
        {
            self.watching.waiting.retain(|waiting| *waiting != slot);
            self.replies.refuse(read.id, Refusal::END_OF_FILE);
            self.outstanding = self.outstanding.saturating_sub(1);
        }
    }

    /// The client will ask for nothing more: what waits is answered with what there is.
    pub(crate) const fn end_watches(&mut self) {
        self.watching.is_ending = true;
    }

    /// Whether reads of subscriptions wait.
    pub(crate) const fn awaits_events(&self) -> bool {
        !self.watching.waiting.is_empty()
    }

    /// When the first of them has waited long enough.
    pub(crate) fn watch_deadline(&self) -> Option<Instant> {
        let until = |slot: &SlotId| match &self.handles.get(*slot)?.opened {
            Opened::Watched(watched) => watched.read.as_ref()?.until,
            _ => None,
        };
        self.watching.waiting.iter().filter_map(until).min()
    }

    /// Answers reads of subscriptions that have something, or have waited long enough.
    pub(crate) fn answer_watches(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.watching.waiting);
        let still = waiting
            .into_iter()
            .filter(|&slot| !self.answer_watch(slot, now));
        self.watching.waiting = still.collect();
    }

    /// Says whether the read of a subscription was answered.
    fn answer_watch(&mut self, slot: SlotId, now: Instant) -> bool {
        let entry = self.handles.get_mut(slot);
        let Some(Opened::Watched(watched)) = entry.map(|entry| &mut entry.opened) else {
            return true;
        };
        let Some(read) = &mut watched.read else {
            return true;
        };
        let until = *read.until.get_or_insert(now + read.wait);
        let (mut events, mut len) = (Vec::new(), 0_usize);
        let policy = &self.policy;
        let state = watched.feed.take(|event| {
            if events.len() >= EVENTS_MAX || len >= EVENTS_LEN_MAX {
                return false;
            }
            if let Some(event) = visible(policy, event) {
                len = len.saturating_add(event.len());
                events.push(event);
            }
            true
        });
        let id = read.id;
        match state {
            Err(FeedEnd::Gone) => self.replies.refuse(id, Refusal::END_OF_FILE),
            Err(FeedEnd::TooMany) => self.replies.refuse(id, Refusal::WATCHES),
            Ok(()) if events.is_empty() && now < until && !self.watching.is_ending => return false,
            Ok(()) => {
                let events: Vec<_> = events.iter().map(on_the_wire).collect();
                self.replies.events(id, &events);
            }
        }
        if let Some(entry) = self.handles.get_mut(slot)
            && let Opened::Watched(watched) = &mut entry.opened
        {
            watched.read = None;
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        true
    }
}

/// An event as somebody may know it who may not list everything.
fn visible(policy: &Policy, event: &FeedEvent) -> Option<FeedEvent> {
    let sees = |path| policy.allow(Effect::List, path).is_ok();
    match event {
        FeedEvent::Created { path, .. }
        | FeedEvent::Modified { path }
        | FeedEvent::Written { path }
        | FeedEvent::Attributes { path, .. }
        | FeedEvent::Removed { path, .. } => sees(path).then(|| event.clone()),
        FeedEvent::Renamed {
            path,
            to,
            is_directory,
        } => {
            let is_directory = *is_directory;
            match (sees(path), sees(to)) {
                (true, true) => Some(event.clone()),
                (true, false) => Some(FeedEvent::Removed {
                    path: path.clone(),
                    is_directory,
                }),
                (false, true) => Some(FeedEvent::Created {
                    path: to.clone(),
                    is_directory,
                }),
                (false, false) => None,
            }
        }
        FeedEvent::Overflow => Some(FeedEvent::Overflow),
    }
}

fn on_the_wire(event: &FeedEvent) -> WatchEvent<'_> {
    let (path, to, is_directory): (&[u8], &[u8], bool) = match event {
        FeedEvent::Created { path, is_directory }
        | FeedEvent::Attributes { path, is_directory }
        | FeedEvent::Removed { path, is_directory } => (path.as_bytes(), b"", *is_directory),
        FeedEvent::Modified { path } | FeedEvent::Written { path } => (path.as_bytes(), b"", false),
        FeedEvent::Renamed {
            path,
            to,
            is_directory,
        } => (path.as_bytes(), to.as_bytes(), *is_directory),
        FeedEvent::Overflow => (b"", b"", false),
    };
    WatchEvent {
        kind: event.kind(),
        is_directory,
        path,
        to,
    }
}
