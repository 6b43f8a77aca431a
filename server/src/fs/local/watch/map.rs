//! What the kernel's words mean for each subscription: a machine without files.
//!
//! inotify names a directory by a number and what happened in it by a name. [`Map`] knows which
//! subscriptions have which directory under which path, keeps the paths right when directories are
//! renamed, pairs the two halves of a rename, and says what has to be looked at or let go.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::fs::feed::{Feed, FeedEvent, WatchRequest};
use crate::path::VPath;

/// What the kernel numbers a watched directory by.
pub(super) type Descriptor = i32;
/// What a subscription is numbered by.
pub(super) type Number = u64;

/// An event as the kernel has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Raw {
    pub(super) descriptor: Descriptor,
    pub(super) what: What,
    /// What both halves of a rename have in common.
    pub(super) cookie: u32,
    pub(super) is_directory: bool,
    /// In the directory; empty if it is about the directory itself.
    pub(super) name: Vec<u8>,
}

/// What happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum What {
    Created,
    Modified,
    Written,
    Attributes,
    Deleted,
    MovedFrom,
    MovedTo,
    /// The directory itself was removed or renamed.
    SelfGone,
    SelfMoved,
    /// The kernel watches it no longer.
    Ignored,
    /// Events were lost.
    Overflow,
}

/// What has to be done before the next event is looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Watch a directory and those in it, and tell what is found in those that were not watched.
    Scan { number: Number, path: VPath },
    /// Watch all directories of a subscription that are not, and tell it that events were lost.
    Rescan { number: Number },
    /// The kernel need not watch it any more.
    Unwatch(Descriptor),
}

/// What a directory is to a subscription.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// It lies above the one that was asked for: if it moves, that one is gone.
    Above,
    /// The one that was asked for.
    Top,
    /// One beneath.
    Below,
}

#[derive(Clone, Debug)]
struct Place {
    number: Number,
    path: VPath,
    role: Role,
}

#[derive(Debug)]
struct Subscribed {
    request: WatchRequest,
    feed: Feed,
    /// Directories that its session counts.
    counted: usize,
}

/// Whether a directory is news to a subscription.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Added {
    New,
    Known,
    /// The subscription is over, or there are too many directories.
    Refused,
}

/// All subscriptions and all directories.
#[derive(Debug, Default)]
pub(super) struct Map {
    subscribed: BTreeMap<Number, Subscribed>,
    places: HashMap<Descriptor, Vec<Place>>,
    next: Number,
}

impl Map {
    pub(super) fn subscribe(&mut self, request: WatchRequest, feed: Feed) -> Number {
        self.next = self.next.saturating_add(1);
        let counted = 0;
        self.subscribed.insert(
            self.next,
            Subscribed {
                request,
                feed,
                counted,
            },
        );
        self.next
    }

    /// Forgets a subscription; the directories that nobody else has are to be let go.
    pub(super) fn unsubscribe(&mut self, number: Number) -> Vec<Step> {
        let steps = self.forget(number, |_| true);
        self.subscribed.remove(&number);
        steps
    }

    /// The feed of a subscription.
    pub(super) fn feed(&self, number: Number) -> Option<&Feed> {
        self.subscribed.get(&number).map(|entry| &entry.feed)
    }

    /// What a subscription asked for.
    pub(super) fn request(&self, number: Number) -> Option<&WatchRequest> {
        self.subscribed.get(&number).map(|entry| &entry.request)
    }

    /// How many directories are watched.
    pub(super) fn directories(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.subscribed.is_empty()
    }

    /// Nothing more can be told to anybody.
    pub(super) fn fail_all(&self) {
        self.subscribed
            .values()
            .for_each(|subscribed| subscribed.feed.fail());
    }

    /// A directory is watched by the kernel under this number.
    pub(super) fn add(
        &mut self,
        number: Number,
        descriptor: Descriptor,
        path: VPath,
        role: Role,
    ) -> Added {
        let Some(subscribed) = self.subscribed.get_mut(&number) else {
            return Added::Refused;
        };
        let places = self.places.entry(descriptor).or_default();
        if let Some(place) = places.iter_mut().find(|place| place.number == number) {
            // It was renamed, or it is a directory above that is one of those asked for as well.
            place.path = path;
            return Added::Known;
        }
        if !subscribed.feed.take_directory() {
            if places.is_empty() {
                self.places.remove(&descriptor);
            }
            return Added::Refused;
        }
        subscribed.counted = subscribed.counted.saturating_add(1);
        places.push(Place { number, path, role });
        Added::New
    }

    /// Whether nobody has a directory.
    pub(super) fn is_unused(&self, descriptor: Descriptor) -> bool {
        !self.places.contains_key(&descriptor)
    }

    /// Takes the next event of `batch` and tells it. Nothing is taken if more has to come first:
    /// the second half of a rename follows the first within moments, so that the first waits for it
    /// unless `is_settled` says that nothing came.
    pub(super) fn next(
        &mut self,
        batch: &mut VecDeque<Raw>,
        is_settled: bool,
    ) -> Option<Vec<Step>> {
        let first = batch.front()?;
        if first.what == What::MovedFrom {
            let is_other = |raw: &Raw| raw.what == What::MovedTo && raw.cookie == first.cookie;
            let other = batch.iter().position(is_other);
            if other.is_none() && !is_settled {
                return None;
            }
            let to = other.and_then(|at| batch.remove(at));
            let from = batch.pop_front()?;
            return Some(self.renamed(&from, to.as_ref()));
        }
        let raw = batch.pop_front()?;
        Some(self.happened(&raw))
    }

    fn happened(&mut self, raw: &Raw) -> Vec<Step> {
        match raw.what {
            What::Overflow => {
                let numbers = self.subscribed.keys();
                numbers.map(|&number| Step::Rescan { number }).collect()
            }
            What::Ignored => {
                for place in self.places.remove(&raw.descriptor).unwrap_or_default() {
                    self.uncount(place.number, 1);
                    if place.role != Role::Below {
                        self.end(place.number);
                    }
                }
                Vec::new()
            }
            What::SelfGone | What::SelfMoved => {
                for place in self.places_of(raw.descriptor) {
                    if place.role != Role::Below {
                        self.end(place.number);
                    }
                }
                Vec::new()
            }
            What::Created | What::MovedTo => self.appeared(raw),
            What::Modified | What::Written | What::Attributes | What::Deleted => {
                for (number, path) in self.named(raw) {
                    let is_directory = raw.is_directory;
                    self.tell(
                        number,
                        match raw.what {
                            What::Modified => FeedEvent::Modified { path },
                            What::Written => FeedEvent::Written { path },
                            What::Attributes => FeedEvent::Attributes { path, is_directory },
                            _ => FeedEvent::Removed { path, is_directory },
                        },
                    );
                }
                Vec::new()
            }
            What::MovedFrom => self.renamed(raw, None),
        }
    }

    fn appeared(&mut self, raw: &Raw) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, path) in self.named(raw) {
            self.tell(
                number,
                FeedEvent::Created {
                    path: path.clone(),
                    is_directory: raw.is_directory,
                },
            );
            if raw.is_directory && self.is_recursive(number) {
                steps.push(Step::Scan { number, path });
            }
        }
        steps
    }

    /// `to`: the other half, if it is told to anybody here.
    fn renamed(&mut self, from: &Raw, to: Option<&Raw>) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_directory = from.is_directory;
        let mut news = to.map(|to| self.named(to)).unwrap_or_default();
        for (number, path) in self.named(from) {
            let other = news.iter().position(|(of, _)| *of == number);
            if let Some((_, to)) = other.map(|at| news.swap_remove(at)) {
                self.tell(
                    number,
                    FeedEvent::Renamed {
                        path: path.clone(),
                        to: to.clone(),
                        is_directory,
                    },
                );
                if is_directory && self.is_recursive(number) {
                    self.move_places(number, &path, &to);
                    // What of it was not watched yet was looked for under its old name.
                    steps.push(Step::Scan { number, path: to });
                }
            } else {
                if is_directory {
                    let gone = WatchRequest {
                        path: path.clone(),
                        recursive: true,
                    };
                    steps.extend(self.forget(number, |place| {
                        place.role == Role::Below
                            && (place.path == gone.path || gone.covers(&place.path))
                    }));
                }
                self.tell(number, FeedEvent::Removed { path, is_directory });
            }
        }
        for (number, path) in news {
            self.tell(
                number,
                FeedEvent::Created {
                    path: path.clone(),
                    is_directory,
                },
            );
            if is_directory && self.is_recursive(number) {
                steps.push(Step::Scan { number, path });
            }
        }
        steps
    }

    /// Which subscriptions a name is told to, and under which path.
    fn named(&self, raw: &Raw) -> Vec<(Number, VPath)> {
        if raw.name.is_empty() {
            return Vec::new();
        }
        let places = self.places.get(&raw.descriptor).into_iter().flatten();
        let inside = places.filter(|place| place.role != Role::Above);
        // A name that no path can have can be asked for by nobody.
        let path = |place: &Place| Some((place.number, place.path.walk(&raw.name).ok()?));
        inside.filter_map(path).collect()
    }

    fn places_of(&self, descriptor: Descriptor) -> Vec<Place> {
        self.places.get(&descriptor).cloned().unwrap_or_default()
    }

    fn is_recursive(&self, number: Number) -> bool {
        self.request(number)
            .is_some_and(|request| request.recursive)
    }

    fn tell(&self, number: Number, event: FeedEvent) {
        if let Some(feed) = self.feed(number) {
            feed.push(event);
        }
    }

    fn end(&self, number: Number) {
        if let Some(feed) = self.feed(number) {
            feed.end();
        }
    }

    fn uncount(&mut self, number: Number, count: usize) {
        if let Some(subscribed) = self.subscribed.get_mut(&number) {
            subscribed.counted = subscribed.counted.saturating_sub(count);
            subscribed.feed.give_directories(count);
        }
    }

    /// A directory has another name, and so have all beneath it.
    fn move_places(&mut self, number: Number, from: &VPath, to: &VPath) {
        let beneath = WatchRequest {
            path: from.clone(),
            recursive: true,
        };
        let all = self.places.values_mut().flatten();
        for place in all.filter(|place| place.number == number && place.role == Role::Below) {
            if place.path == *from {
                place.path = to.clone();
            } else if beneath.covers(&place.path)
                && let Some(tail) = place.path.as_bytes().get(from.as_bytes().len()..)
                && let Some(tail) = tail.strip_prefix(b"/")
                && let Ok(moved) = to.walk(tail)
            {
                place.path = moved;
            }
        }
    }

    /// Forgets directories of a subscription.
    fn forget(&mut self, number: Number, is_gone: impl Fn(&Place) -> bool) -> Vec<Step> {
        let (mut steps, mut count) = (Vec::new(), 0);
        self.places.retain(|&descriptor, places| {
            let before = places.len();
            places.retain(|place| place.number != number || !is_gone(place));
            count += before - places.len();
            if places.is_empty() {
                steps.push(Step::Unwatch(descriptor));
            }
            !places.is_empty()
        });
        self.uncount(number, count);
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_protocol::WatchKinds;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn path(named: &str) -> VPath {
        VPath::resolve(named.as_bytes()).unwrap()
    }

    struct Scene {
        map: Map,
        feed: Feed,
        number: Number,
        directories: Arc<AtomicUsize>,
    }

    fn scene(at: &str, recursive: bool) -> Scene {
        let directories = Arc::new(AtomicUsize::new(0));
        let feed = Feed::new(WatchKinds::ALL, Arc::clone(&directories), || {});
        let mut map = Map::default();
        let request = WatchRequest {
            path: path(at),
            recursive,
        };
        let number = map.subscribe(request, feed.clone());
        assert_eq!(map.add(number, 1, path(at), Role::Top), Added::New);
        Scene {
            map,
            feed,
            number,
            directories,
        }
    }

    impl Scene {
        fn below(&mut self, descriptor: Descriptor, at: &str) {
            let added = self.map.add(self.number, descriptor, path(at), Role::Below);
            assert_eq!(added, Added::New);
        }

        fn run(&mut self, raws: impl IntoIterator<Item = Raw>) -> Vec<Step> {
            let mut batch = raws.into_iter().collect();
            let mut steps = Vec::new();
            while let Some(more) = self.map.next(&mut batch, true) {
                steps.extend(more);
            }
            assert!(batch.is_empty());
            steps
        }

        fn told(&self) -> Vec<FeedEvent> {
            let mut events = Vec::new();
            let _ = self.feed.take(|event| {
                events.push(event.clone());
                true
            });
            events
        }
    }

    fn raw(descriptor: Descriptor, what: What, name: &str) -> Raw {
        Raw {
            descriptor,
            what,
            cookie: 0,
            is_directory: false,
            name: name.into(),
        }
    }

    fn half(descriptor: Descriptor, what: What, name: &str, is_directory: bool) -> Raw {
        Raw {
            cookie: 7,
            is_directory,
            ..raw(descriptor, what, name)
        }
    }

    #[test]
    fn a_rename_is_one_event_and_its_second_half_is_waited_for() {
        let mut scene = scene("/in", true);
        scene.below(2, "/in/a");
        let mut batch = VecDeque::from([half(1, What::MovedFrom, "x", false)]);
        assert_eq!(scene.map.next(&mut batch, false), None, "more may come");
        batch.push_back(raw(1, What::Created, "other"));
        batch.push_back(half(2, What::MovedTo, "y", false));
        assert_eq!(scene.map.next(&mut batch, false), Some(Vec::new()));
        let renamed = FeedEvent::Renamed {
            path: path("/in/x"),
            to: path("/in/a/y"),
            is_directory: false,
        };
        assert_eq!(scene.told(), [renamed]);
        assert_eq!(batch.len(), 1, "what came between is still there");
    }

    #[test]
    fn a_directory_that_moves_out_is_let_go_and_one_that_moves_in_is_looked_at() {
        let mut scene = scene("/", true);
        scene.below(2, "/a");
        scene.below(3, "/a/b");
        scene.below(4, "/ab");
        let mut steps = scene.run([half(1, What::MovedFrom, "a", true)]);
        steps.sort_by_key(|step| format!("{step:?}"));
        assert_eq!(steps, [Step::Unwatch(2), Step::Unwatch(3)]);
        assert_eq!(scene.directories.load(Ordering::Relaxed), 2);
        assert_eq!(scene.run([raw(3, What::Created, "secret")]), []);
        let removed = FeedEvent::Removed {
            path: path("/a"),
            is_directory: true,
        };
        assert_eq!(scene.told(), [removed], "what happens outside is not told");
        let number = scene.number;
        let steps = scene.run([half(4, What::MovedTo, "back", true)]);
        assert_eq!(
            steps,
            [Step::Scan {
                number,
                path: path("/ab/back")
            }]
        );
    }

    #[test]
    fn a_renamed_directory_takes_what_is_beneath_it_along() {
        let mut scene = scene("/", true);
        scene.below(2, "/a");
        scene.below(3, "/a/b");
        let both = [
            half(1, What::MovedFrom, "a", true),
            half(1, What::MovedTo, "z", true),
        ];
        let number = scene.number;
        assert_eq!(
            scene.run(both),
            [Step::Scan {
                number,
                path: path("/z")
            }]
        );
        scene.told();
        scene.run([raw(3, What::Written, "f")]);
        let path = path("/z/b/f");
        assert_eq!(scene.told(), [FeedEvent::Written { path }]);
    }

    #[test]
    fn a_subscription_ends_with_its_directory_or_one_above_it() {
        for (descriptor, what) in [
            (1, What::SelfGone),
            (1, What::SelfMoved),
            (9, What::SelfMoved),
            (9, What::Ignored),
        ] {
            let mut scene = scene("/up/in", false);
            let added = scene.map.add(scene.number, 9, path("/up"), Role::Above);
            assert_eq!(added, Added::New);
            scene.run([raw(9, What::Created, "neighbour")]);
            assert_eq!(scene.told(), [], "what lies beside is not told");
            assert_eq!(scene.feed.take(|_| true), Ok(()));
            scene.run([raw(descriptor, what, "")]);
            assert!(scene.feed.take(|_| true).is_err(), "{descriptor} {what:?}");
        }
        let mut scene = scene("/", true);
        scene.below(2, "/a");
        scene.run([raw(2, What::SelfMoved, ""), raw(2, What::Ignored, "")]);
        assert_eq!(
            scene.feed.take(|_| true),
            Ok(()),
            "one beneath ends nothing"
        );
        assert_eq!(scene.directories.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn two_subscriptions_share_a_directory_and_each_has_its_own_path() {
        let mut scene = scene("/", true);
        let other = Feed::new(WatchKinds::ALL, Arc::default(), || {});
        let request = WatchRequest {
            path: VPath::root(),
            recursive: false,
        };
        let second = scene.map.subscribe(request, other.clone());
        scene.below(2, "/homes/anna");
        assert_eq!(
            scene.map.add(second, 2, VPath::root(), Role::Top),
            Added::New
        );
        scene.run([raw(2, What::Deleted, "f")]);
        let removed = |named| FeedEvent::Removed {
            path: path(named),
            is_directory: false,
        };
        assert_eq!(scene.told(), [removed("/homes/anna/f")]);
        let mut seen = Vec::new();
        other
            .take(|event| {
                seen.push(event.clone());
                true
            })
            .unwrap();
        assert_eq!(seen, [removed("/f")]);
        assert_eq!(scene.map.unsubscribe(scene.number), [Step::Unwatch(1)]);
        assert_eq!(scene.map.unsubscribe(second), [Step::Unwatch(2)]);
        assert!(scene.map.is_idle() && scene.map.directories() == 0);
        assert_eq!(scene.directories.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_overflow_of_the_kernel_has_everything_looked_at_again() {
        let mut scene = scene("/", true);
        let number = scene.number;
        let steps = scene.run([raw(-1, What::Overflow, "")]);
        assert_eq!(steps, [Step::Rescan { number }]);
        assert_eq!(scene.told(), [], "it is told when all is watched again");
    }
}
