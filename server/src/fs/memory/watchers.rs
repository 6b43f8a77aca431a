//! Who is told what changes in a file system in memory.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Node, Nodes, locked};
use crate::fs::feed::{Feed, FeedEvent, Subscription, WatchRequest};
use crate::fs::{Call, Create};
use crate::path::VPath;

/// The subscriptions of a file system.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    list: Mutex<Vec<Watcher>>,
    /// How many are in the list: mostly none, and then nothing is locked.
    count: AtomicUsize,
    next: AtomicU64,
}

#[derive(Debug)]
struct Watcher {
    number: u64,
    request: WatchRequest,
    feed: Feed,
}

/// Takes its watcher off the list.
struct Held {
    watchers: Arc<Watchers>,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut list = locked(&self.watchers.list);
        list.retain(|watcher| watcher.number != self.number);
        self.watchers.count.store(list.len(), Ordering::Relaxed);
    }
}

impl Watchers {
    pub(super) fn add(this: &Arc<Self>, request: WatchRequest, feed: Feed) -> Subscription {
        let number = this.next.fetch_add(1, Ordering::Relaxed);
        let mut list = locked(&this.list);
        list.push(Watcher {
            number,
            request,
            feed,
        });
        this.count.store(list.len(), Ordering::Relaxed);
        Subscription::new(Held {
            watchers: Arc::clone(this),
            number,
        })
    }

    /// What a call will have done if it succeeds.
    pub(super) fn news(&self, nodes: &Nodes, call: &Call) -> Vec<FeedEvent> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let is_directory = |path: &VPath| matches!(nodes.get(path), Some(Node::Directory { .. }));
        let created = |path: &VPath, is_directory| FeedEvent::Created {
            path: path.clone(),
            is_directory,
        };
        match call {
            Call::Open { path, how } if !nodes.contains_key(path) => match how.create {
                Create::Never => Vec::new(),
                _ => vec![created(path, false)],
            },
            Call::Open { path, how } if how.truncate => {
                vec![FeedEvent::Modified { path: path.clone() }]
            }
            Call::Change { path, .. } => vec![FeedEvent::Attributes {
                path: path.clone(),
                is_directory: is_directory(path),
            }],
            Call::Remove { path } | Call::RemoveDirectory { path } => vec![FeedEvent::Removed {
                path: path.clone(),
                is_directory: is_directory(path),
            }],
            Call::CreateDirectory { path, .. } => vec![created(path, true)],
            Call::Rename { from, to, .. } => vec![FeedEvent::Renamed {
                path: from.clone(),
                to: to.clone(),
                is_directory: is_directory(from),
            }],
            Call::Symlink { link, .. } => vec![created(link, false)],
            Call::HardLink { to, .. } => vec![created(to, false)],
            _ => Vec::new(),
        }
    }

    pub(super) fn tell_with(&self, events: impl FnOnce() -> Vec<FeedEvent>) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.tell(events());
        }
    }

    pub(super) fn tell(&self, events: Vec<FeedEvent>) {
        if events.is_empty() || self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let list = locked(&self.list);
        for event in &events {
            for watcher in &*list {
                if let Some(event) = as_seen(&watcher.request, event) {
                    watcher.feed.push(event);
                }
                if let FeedEvent::Removed { path, .. } | FeedEvent::Renamed { path, .. } = event
                    && (*path == watcher.request.path || is_above(path, &watcher.request.path))
                {
                    watcher.feed.end();
                }
            }
        }
    }
}

/// What an embedding program does by `put`.
pub(super) fn put(path: &VPath, is_new: bool) -> Vec<FeedEvent> {
    let path = path.clone();
    if is_new {
        let created = FeedEvent::Created {
            path: path.clone(),
            is_directory: false,
        };
        vec![created, FeedEvent::Written { path }]
    } else {
        vec![
            FeedEvent::Modified { path: path.clone() },
            FeedEvent::Written { path },
        ]
    }
}

fn is_above(above: &VPath, path: &VPath) -> bool {
    let everything = WatchRequest {
        path: above.clone(),
        recursive: true,
    };
    everything.covers(path)
}

/// An event as a subscription sees it that may cover one name of a rename alone.
fn as_seen(request: &WatchRequest, event: &FeedEvent) -> Option<FeedEvent> {
    match event {
        FeedEvent::Renamed {
            path,
            to,
            is_directory,
        } => {
            let is_directory = *is_directory;
            match (request.covers(path), request.covers(to)) {
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
        FeedEvent::Created { path, .. }
        | FeedEvent::Modified { path }
        | FeedEvent::Written { path }
        | FeedEvent::Attributes { path, .. }
        | FeedEvent::Removed { path, .. } => request.covers(path).then(|| event.clone()),
        FeedEvent::Overflow => Some(event.clone()),
    }
}
