//! Laws of the pure parts: for any sequence of directory states, what is told turns one state
//! into the next.
#![expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ketch_client::{Attrs, RemotePath};
use ketch_listener::diff::diff;
use ketch_listener::listing::{Listing, ListingTooLarge};
use ketch_listener::snapshot::{Facts, Snapshot};
use ketch_listener::watcher::{BACK_OFF_MAX, Watcher, WatcherConfig};
use ketch_listener::{Event, EventKind, FirstListing, WatchError};
use proptest::prelude::*;

/// A directory as a model: name → (kind bits, size, mtime).
type State = BTreeMap<Vec<u8>, (u32, u64, u32)>;

const FILE: u32 = 0o100_644;
const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;
const INTERVAL: Duration = Duration::from_secs(10);

fn attrs((permissions, size, mtime): (u32, u64, u32)) -> Attrs {
    Attrs {
        size: Some(size),
        permissions: Some(permissions),
        times: Some(ketch_client::Times { atime: 0, mtime }),
        ..Attrs::default()
    }
}

fn listing(state: &State) -> Listing {
    let mut listing = Listing::new(1_000);
    // Servers send names in any order.
    for (name, facts) in state.iter().rev() {
        listing.push(name, attrs(*facts)).unwrap();
    }
    listing.finish()
}

/// The state with only what a listing is compared by.
fn facts(state: &State) -> BTreeMap<Vec<u8>, Facts> {
    state
        .iter()
        .map(|(name, facts)| (name.clone(), Facts::of(&attrs(*facts))))
        .collect()
}

fn apply(seen: &mut BTreeMap<Vec<u8>, Facts>, event: &Event) {
    let name = event
        .path
        .as_bytes()
        .strip_prefix(b"/in/")
        .expect("paths lie in the directory");
    let before = match (event.kind, event.attrs) {
        (EventKind::Removed, None) => seen.remove(name).is_some(),
        (_, Some(attrs)) => seen.insert(name.to_vec(), Facts::of(&attrs)).is_some(),
        (kind, None) => panic!("{kind:?} without attributes"),
    };
    assert_eq!(before, event.kind != EventKind::Created, "{event:?}");
}

fn watcher(config: WatcherConfig) -> (Watcher, Instant) {
    let start = Instant::now();
    let config = WatcherConfig {
        interval: INTERVAL,
        ..config
    };
    (
        Watcher::new(RemotePath::from("/in"), config, start, 7),
        start,
    )
}

/// Makes the next listing when it is due, and returns what is told and when that was.
fn step(watcher: &mut Watcher, state: Option<&State>) -> (Instant, Vec<Result<Event, WatchError>>) {
    let due = watcher.poll_timeout().expect("a listing is due");
    assert!(
        !watcher.start_listing(due - Duration::from_nanos(1)),
        "before its time"
    );
    assert!(watcher.start_listing(due));
    assert_eq!(watcher.poll_timeout(), None, "one listing at a time");
    watcher.handle_listing(due, state.map(listing).ok_or_else(failure));
    (due, std::iter::from_fn(|| watcher.poll_event()).collect())
}

fn failure() -> WatchError {
    let source = ListingTooLarge { entries_max: 1 };
    WatchError::TooLarge {
        path: RemotePath::from("/in"),
        source,
    }
}

fn events(told: Vec<Result<Event, WatchError>>) -> Vec<Event> {
    told.into_iter()
        .collect::<Result<_, _>>()
        .expect("no error")
}

fn summary(told: Vec<Result<Event, WatchError>>) -> Vec<(EventKind, String)> {
    events(told)
        .into_iter()
        .map(|event| (event.kind, event.path.to_string()))
        .collect()
}

fn state(names: &[(&str, (u32, u64, u32))]) -> State {
    names
        .iter()
        .map(|(name, facts)| (name.as_bytes().to_vec(), *facts))
        .collect()
}

/// Few names and few values, so that most steps change, keep, remove and bring back something.
fn any_state() -> impl Strategy<Value = State> {
    let kind = prop_oneof![4 => Just(FILE), 1 => Just(DIRECTORY), 1 => Just(SYMLINK)];
    let name = prop::sample::select(vec![&b"a"[..], b"b", b"ab", b"\xff\n", b"z z"]);
    let facts = (kind, 0..2_u64, 0..2_u32);
    prop::collection::btree_map(name.prop_map(<[u8]>::to_vec), facts, 0..6)
}

proptest! {
    #[test]
    fn a_diff_turns_one_snapshot_into_the_other(before in any_state(), after in any_state()) {
        let (old, new) = (Snapshot::of(&listing(&before)), Snapshot::of(&listing(&after)));
        let mut names = facts(&before);
        for change in diff(&old, &new) {
            match change.facts {
                None => prop_assert!(names.remove(change.name).is_some()),
                Some(facts) => {
                    let known = names.insert(change.name.to_vec(), facts);
                    prop_assert_eq!(known.is_some(), change.kind == EventKind::Modified);
                    prop_assert_ne!(known, Some(facts), "told without a change");
                }
            }
        }
        prop_assert_eq!(names, facts(&after));
    }

    #[test]
    fn events_turn_each_state_into_the_next_whatever_fails_between(
        steps in prop::collection::vec(prop_oneof![4 => any_state().prop_map(Some), 1 => Just(None)], 1..12),
    ) {
        let first_listing = FirstListing::News;
        let (mut watcher, _) =
            watcher(WatcherConfig { missing_polls: 1, first_listing, ..WatcherConfig::default() });
        let mut seen = BTreeMap::new();
        for now in &steps {
            let (_, told) = step(&mut watcher, now.as_ref());
            match now {
                Some(now) => {
                    for event in events(told) {
                        apply(&mut seen, &event);
                    }
                    prop_assert_eq!(&seen, &facts(now));
                }
                None => {
                    prop_assert_eq!(told.len(), 1);
                    prop_assert!(told[0].is_err(), "a failure tells of no change");
                }
            }
        }
    }

    #[test]
    fn a_name_is_gone_exactly_when_enough_listings_in_a_row_lack_it(
        states in prop::collection::vec(any_state(), 1..16), polls in 1..4_u8,
    ) {
        let first_listing = FirstListing::News;
        let (mut watcher, _) =
            watcher(WatcherConfig { missing_polls: polls, first_listing, ..WatcherConfig::default() });
        let mut seen = BTreeMap::new();
        for (at, now) in states.iter().enumerate() {
            for event in events(step(&mut watcher, Some(now)).1) {
                apply(&mut seen, &event);
            }
            let recent = &states[(at + 1).saturating_sub(usize::from(polls))..=at];
            for (name, facts) in facts(now) {
                prop_assert_eq!(seen.get(&name), Some(&facts), "what is listed is known as listed");
            }
            for name in seen.keys() {
                prop_assert!(recent.iter().any(|state| state.contains_key(name)));
            }
            for name in recent.iter().flat_map(BTreeMap::keys) {
                prop_assert!(seen.contains_key(name), "told as gone too early");
            }
        }
    }

    #[test]
    fn the_servers_clock_may_stand_anywhere(
        states in prop::collection::vec(any_state(), 1..8), shift in 0..=u32::MAX - 1,
    ) {
        let run = |shift: u32| {
            let (mut watcher, _) = watcher(WatcherConfig::default());
            states.iter().flat_map(|state| {
                let shifted = state.iter().map(|(name, (kind, size, mtime))| {
                    (name.clone(), (*kind, *size, mtime + shift))
                });
                summary(step(&mut watcher, Some(&shifted.collect())).1)
            }).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(0), run(shift));
    }
}

#[test]
fn the_first_listing_is_the_baseline() {
    let (mut watcher, start) = watcher(WatcherConfig::default());
    let before = state(&[("old", (FILE, 1, 1))]);
    let (due, told) = step(&mut watcher, Some(&before));
    assert_eq!(due, start, "the first listing is made at once");
    assert!(told.is_empty());

    let after = state(&[("old", (FILE, 2, 1)), ("new", (FILE, 0, 5))]);
    let told = summary(step(&mut watcher, Some(&after)).1);
    assert_eq!(
        told,
        [
            (EventKind::Created, "/in/new".into()),
            (EventKind::Modified, "/in/old".into())
        ]
    );
}

#[test]
fn the_baseline_waits_for_the_first_listing_that_succeeds() {
    let (mut watcher, _) = watcher(WatcherConfig::default());
    assert!(step(&mut watcher, None).1[0].is_err());
    assert!(
        step(&mut watcher, Some(&state(&[("old", (FILE, 1, 1))])))
            .1
            .is_empty()
    );
}

#[test]
fn another_kind_under_the_same_name_is_removed_and_created() {
    let (mut watcher, _) = watcher(WatcherConfig::default());
    step(&mut watcher, Some(&state(&[("x", (FILE, 1, 1))])));
    let told = summary(step(&mut watcher, Some(&state(&[("x", (DIRECTORY, 1, 1))]))).1);
    assert_eq!(
        told,
        [
            (EventKind::Removed, "/in/x".into()),
            (EventKind::Created, "/in/x".into())
        ]
    );
}

#[test]
fn what_happens_inside_a_subdirectory_is_not_news_of_this_one() {
    let (mut watcher, _) = watcher(WatcherConfig::default());
    step(&mut watcher, Some(&state(&[("sub", (DIRECTORY, 4096, 1))])));
    assert!(
        step(&mut watcher, Some(&state(&[("sub", (DIRECTORY, 8192, 2))])))
            .1
            .is_empty()
    );
}

#[test]
fn a_name_that_one_listing_passes_over_was_never_gone() {
    let (mut watcher, _) = watcher(WatcherConfig::default());
    let full = state(&[("a", (FILE, 1, 1)), ("b", (FILE, 1, 1))]);
    let gap = state(&[("b", (FILE, 1, 1))]);
    step(&mut watcher, Some(&full));
    assert!(step(&mut watcher, Some(&gap)).1.is_empty());
    assert!(step(&mut watcher, Some(&full)).1.is_empty());
    assert!(step(&mut watcher, Some(&gap)).1.is_empty());
    let told = summary(step(&mut watcher, Some(&gap)).1);
    assert_eq!(told, [(EventKind::Removed, "/in/a".into())]);
}

#[test]
fn a_failed_listing_between_two_gaps_does_not_count_as_one() {
    let (mut watcher, _) = watcher(WatcherConfig {
        missing_polls: 3,
        ..WatcherConfig::default()
    });
    step(&mut watcher, Some(&state(&[("a", (FILE, 1, 1))])));
    assert!(step(&mut watcher, Some(&State::new())).1.is_empty());
    assert!(step(&mut watcher, None).1[0].is_err());
    assert!(step(&mut watcher, Some(&State::new())).1.is_empty());
    assert_eq!(step(&mut watcher, Some(&State::new())).1.len(), 1);
}

#[test]
fn a_change_is_seen_within_one_interval() {
    let (mut watcher, _) = watcher(WatcherConfig::default());
    let mut last = step(&mut watcher, Some(&State::new())).0;
    for _ in 0..100 {
        let now = step(&mut watcher, Some(&State::new())).0;
        assert!(
            now - last <= INTERVAL && now - last >= INTERVAL * 4 / 5,
            "{:?}",
            now - last
        );
        last = now;
    }
}

#[test]
fn failures_double_the_wait_up_to_a_bound_and_success_ends_that() {
    let (mut watcher, _) = watcher(WatcherConfig::default());
    let mut last = step(&mut watcher, None).0;
    for doublings in 1..30 {
        let now = step(&mut watcher, None).0;
        let longest = (INTERVAL * 2_u32.pow(doublings.min(10))).min(BACK_OFF_MAX);
        assert!(
            now - last <= longest && now - last >= longest * 4 / 5,
            "{:?}",
            now - last
        );
        last = now;
    }
    let recovered = step(&mut watcher, Some(&State::new())).0;
    let next = watcher.poll_timeout().unwrap();
    assert!(next - recovered <= INTERVAL);
}

#[test]
fn a_slow_server_gets_a_rest_between_listings() {
    let (mut watcher, start) = watcher(WatcherConfig::default());
    assert!(watcher.start_listing(start));
    let end = start + INTERVAL * 3;
    watcher.handle_listing(end, Ok(Listing::new(1).finish()));
    assert_eq!(watcher.poll_timeout(), Some(end + INTERVAL / 5));
}

#[test]
fn nothing_is_listed_while_events_wait() {
    let config = WatcherConfig {
        first_listing: FirstListing::News,
        ..WatcherConfig::default()
    };
    let (mut watcher, start) = watcher(config);
    assert!(watcher.start_listing(start));
    watcher.handle_listing(start, Ok(listing(&state(&[("a", (FILE, 1, 1))]))));
    let due = watcher.poll_timeout().unwrap();
    assert!(!watcher.start_listing(due));
    assert!(watcher.poll_event().is_some());
    assert!(watcher.start_listing(due));
}

#[test]
fn a_listing_keeps_real_names_only_and_the_last_word_on_each() {
    let mut listing = Listing::new(10);
    for name in [&b"."[..], b"..", b"", b"a/b", b"nul\0", b"../up"] {
        listing.push(name, attrs((FILE, 1, 1))).unwrap();
    }
    listing.push(b"b", attrs((FILE, 1, 1))).unwrap();
    listing.push(b"a", attrs((FILE, 1, 1))).unwrap();
    listing.push(b"b", attrs((FILE, 2, 2))).unwrap();
    let listing = listing.finish();
    let kept: Vec<_> = listing
        .entries()
        .map(|listed| (listed.name(), listed.attrs().size))
        .collect();
    assert_eq!(kept, [(&b"a"[..], Some(1)), (b"b", Some(2))]);
    assert_eq!(listing.attrs_of(b"b").and_then(|attrs| attrs.size), Some(2));
    assert!(listing.attrs_of(b"c").is_none());
}

#[test]
fn a_directory_without_end_is_refused() {
    let mut listing = Listing::new(3);
    for name in [b"a", b"b", b"c"] {
        listing.push(name, attrs((FILE, 1, 1))).unwrap();
    }
    let refused = listing.push(b"d", attrs((FILE, 1, 1)));
    assert_eq!(refused, Err(ListingTooLarge { entries_max: 3 }));
}
