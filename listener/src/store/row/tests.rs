//! The machine against a world that it does not know: one path (and another name for it), changed,
//! listed, claimed and finished in random order.

use std::collections::BTreeMap;
use std::time::Duration;

use ketch_client::FileType;
use proptest::prelude::*;

use super::record::Ground;
use super::*;
use crate::flow::item::Change;
use crate::store::Recorded;

fn facts(version: u32) -> Facts {
    Facts {
        kind: FileType::Regular,
        size: Some(u64::from(version)),
        mtime: Some(version),
    }
}

fn path(name: &str) -> RemotePath {
    RemotePath::from(name)
}

fn present(version: u32) -> Change {
    Change::Present {
        path: path("d/a"),
        facts: facts(version),
        sha256: None,
    }
}

fn gone() -> Change {
    Change::Removed { path: path("d/a") }
}

/// One path's row with the counters of a ledger.
#[derive(Debug, Default)]
struct Ledger {
    row: Option<Entry>,
    sequence: u64,
    acts: u64,
    removals: bool,
}

impl Ledger {
    fn record(&mut self, scan: u64, change: &Change) -> Recorded {
        let mut recorded = Recorded::default();
        let steps = Ground {
            scan,
            removals: self.removals,
            renames: true,
            now: 0,
            sequence: &mut || {
                self.sequence += 1;
                self.sequence
            },
        }
        .record(change, self.row.as_ref(), None, &mut recorded);
        assert_eq!(steps.from, Step::Keep);
        apply(&mut self.row, steps.row);
        recorded
    }

    fn see(&mut self, version: u32) -> Recorded {
        self.record(self.acts, &present(version))
    }

    fn claim(&mut self) -> Option<ClaimId> {
        let row = self.row.as_mut().filter(|row| row.is_active())?;
        row.take("me", 0);
        Some(row.claim(&FlowName::new("f").expect("a name")).id)
    }

    fn end(&mut self, end: End<'_>) {
        let row = self.row.take().expect("a row");
        let step = row.clone().end(
            end,
            0,
            &mut || {
                self.sequence += 1;
                self.sequence
            },
            &mut || {
                self.acts += 1;
                self.acts
            },
        );
        self.row = Some(row);
        apply(&mut self.row, step);
    }

    fn row(&self) -> &Entry {
        self.row.as_ref().expect("a row")
    }
}

fn apply(row: &mut Option<Entry>, step: Step) {
    match step {
        Step::Keep => {}
        Step::Put(entry) => *row = Some(*entry),
        Step::Delete => *row = None,
    }
}

#[test]
fn a_listing_older_than_the_after_action_brings_nothing_back() {
    let mut ledger = Ledger::default();
    ledger.see(1);
    ledger.claim();
    let stale = ledger.acts;
    ledger.end(End::Acted);
    assert_eq!(ledger.record(stale, &present(1)).items, 0);
    assert_eq!(ledger.record(stale, &gone()).items, 0);
    assert_eq!(ledger.row().state, State::Acted);
    // A listing that began after it shows a new file, though it looks the same.
    assert_eq!(ledger.see(1).items, 1);
    assert_eq!(ledger.row().kind, ItemKind::Created);
    assert_eq!(ledger.row().sequence, 2);
}

#[test]
fn removals_are_told_of_what_was_told() {
    let mut ledger = Ledger {
        removals: true,
        ..Ledger::default()
    };
    ledger.see(1);
    ledger.record(0, &gone());
    assert_eq!(ledger.row, None);
    ledger.see(1);
    ledger.claim();
    ledger.end(End::Done);
    assert_eq!(ledger.record(0, &gone()).items, 1);
    assert_eq!(ledger.record(0, &gone()).items, 0);
    assert_eq!(ledger.row().kind, ItemKind::Removed);
    ledger.claim();
    ledger.end(End::Done);
    assert_eq!(ledger.row, None);
}

#[test]
fn what_came_during_a_claim_comes_up_at_its_end() {
    for end in [
        End::Done,
        End::Released,
        End::Superseded,
        End::Dead { reason: "x" },
        End::Failed {
            retry: Duration::from_secs(9),
            reason: "x",
        },
    ] {
        let mut ledger = Ledger::default();
        ledger.see(1);
        let old = ledger.claim().expect("a claim");
        assert_eq!(ledger.see(2).items, 1);
        assert_eq!(ledger.see(2).items, 0);
        assert_eq!(ledger.row().sequence, 1);
        ledger.end(end);
        let row = ledger.row();
        assert_eq!((row.sequence, row.state), (2, State::Pending), "{end:?}");
        assert_eq!(row.facts, facts(2));
        assert!(!row.is_of(&old));
    }
}

#[test]
fn a_renamed_file_is_the_same_version() {
    let flow = FlowName::new("f").expect("a name");
    let rename = Change::Renamed {
        from: path("d/a"),
        to: path("d/b"),
        facts: facts(1),
    };
    for (state, removals, told, left) in [
        (State::Pending, true, false, false),
        (State::Done, false, false, false),
        (State::Done, true, true, false),
        (State::Known, true, true, false),
        (State::Dead, true, false, false),
        (State::Committed, true, false, true),
        (State::Acted, true, false, true),
    ] {
        let mut old = Entry::pending(path("d/a"), ItemKind::Created, facts(1), None, 7, 0);
        old.state = state;
        old.acted = 1;
        let mut recorded = Recorded::default();
        let mut last = 7;
        let steps = Ground {
            scan: 0,
            removals,
            renames: true,
            now: 0,
            sequence: &mut || {
                last += 1;
                last
            },
        }
        .record(&rename, None, Some(&old), &mut recorded);
        let Step::Put(new) = steps.row else {
            panic!("{state:?}: {:?}", steps.row);
        };
        assert_eq!(new.path, path("d/b"));
        assert_eq!(recorded.items, u64::from(told), "{state:?}");
        assert_eq!(matches!(new.kind, ItemKind::Renamed { .. }), told);
        assert_eq!(new.row(&flow).item.facts, facts(1));
        assert_eq!(steps.from != Step::Delete, left, "{state:?}");
    }
}

#[test]
fn reasons_are_cut_between_characters() {
    let long = "ä".repeat(REASON_LEN_MAX);
    assert_eq!(shortened(&long).len(), REASON_LEN_MAX);
    assert_eq!(shortened(&format!("x{long}")).len(), REASON_LEN_MAX - 1);
}

/// What happens in the world or in a worker.
#[derive(Clone, Debug)]
enum Event {
    /// Somebody writes another version.
    Write,
    Remove,
    /// A listing that begins and ends now.
    Scan,
    /// A listing begins; what it shows is recorded later.
    List,
    RecordList,
    Claim,
    /// The worker's next step; `true`: it keeps the file, else it takes it away.
    Work(bool),
    Fail,
    Die,
    /// Another worker takes the claim, as if it had run out.
    Steal,
    /// The process starts again.
    Restart,
    Release,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Write),
        1 => Just(Event::Remove),
        3 => Just(Event::Scan),
        2 => Just(Event::List),
        2 => Just(Event::RecordList),
        4 => Just(Event::Claim),
        6 => any::<bool>().prop_map(Event::Work),
        1 => Just(Event::Fail),
        1 => Just(Event::Die),
        1 => Just(Event::Steal),
        1 => Just(Event::Restart),
        1 => Just(Event::Release),
    ]
}

/// How far a worker is with a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Claimed,
    Taken,
    Fetched,
}

/// The world: what is there, who works on it, what sinks have got.
#[derive(Debug, Default)]
struct World {
    ledger: Ledger,
    versions: u32,
    there: Option<u32>,
    listing: Option<(u64, Option<u32>)>,
    /// The claim, what its item is, and how far it is.
    worker: Option<(ClaimId, Entry, Stage)>,
    /// Whether workers take the file away before they fetch it.
    moves: bool,
    /// What they took, by the item they did it for.
    aside: BTreeMap<u64, u32>,
    /// Versions whose content the sink took, by effect: the sink knows a sequence again.
    effects: Vec<(u64, u32)>,
    last_claimed: u64,
    given_up: Vec<u64>,
}

fn version(entry: &Entry) -> u32 {
    entry.facts.mtime.unwrap_or(0)
}

impl World {
    fn step(&mut self, event: &Event) {
        match event {
            Event::Write => {
                self.versions += 1;
                self.there = Some(self.versions);
            }
            Event::Remove => self.there = None,
            Event::Scan => self.record(self.ledger.acts, self.there),
            Event::List => self.listing = Some((self.ledger.acts, self.there)),
            Event::RecordList => {
                if let Some((scan, seen)) = self.listing.take() {
                    self.record(scan, seen);
                }
            }
            Event::Claim if self.worker.is_none() => self.claim(),
            Event::Steal => {
                let old = self.worker.take();
                self.claim();
                // P5: of two that claimed it, only the later one may go on.
                if let (Some((old, ..)), Some(row)) = (old, &self.ledger.row) {
                    assert!(!row.is_of(&old));
                }
            }
            Event::Restart => {
                if let Some(row) = &mut self.ledger.row {
                    row.orphan();
                }
                if let (Some((old, ..)), Some(row)) = (self.worker.take(), &self.ledger.row) {
                    assert!(!row.is_of(&old));
                }
            }
            Event::Work(keep) => self.work(*keep),
            Event::Fail => self.finish(End::Failed {
                retry: Duration::ZERO,
                reason: "no",
            }),
            Event::Die => {
                self.given_up
                    .extend(self.worker.as_ref().map(|(id, ..)| id.sequence));
                self.finish(End::Dead { reason: "no" });
            }
            Event::Release => self.finish(End::Released),
            Event::Claim => {}
        }
    }

    fn record(&mut self, scan: u64, seen: Option<u32>) {
        let change = seen.map_or_else(gone, present);
        self.ledger.record(scan, &change);
        let after = self.ledger.row.clone();
        // P2: to say it again changes nothing.
        assert_eq!(self.ledger.record(scan, &change).items, 0);
        assert_eq!(self.ledger.row, after);
    }

    fn claim(&mut self) {
        if let Some(id) = self.ledger.claim() {
            // P4: the versions of a path follow each other.
            assert!(id.sequence >= self.last_claimed);
            self.last_claimed = id.sequence;
            self.worker = Some((id, self.ledger.row().clone(), Stage::Claimed));
        }
    }

    fn finish(&mut self, end: End<'_>) {
        if let Some((id, ..)) = self.worker.take() {
            self.ledger.row().fence(&id).expect("the claim");
            self.ledger.end(end);
        }
    }

    fn work(&mut self, keep: bool) {
        let Some((id, item, stage)) = self.worker.take() else {
            return;
        };
        if self.moves && self.ledger.row().state != State::Committed {
            return self.work_aside(id, item, stage);
        }
        let row = self.ledger.row.as_mut().expect("claimed rows stay");
        row.fence(&id).expect("the claim");
        if row.state == State::Committed {
            // P6: only now may the file be taken away, and only if it is the one that was delivered.
            if self.moves && self.aside.remove(&id.sequence).is_some() {
                self.ledger.end(End::Acted);
            } else if keep || self.there != Some(version(&item)) || item.kind == ItemKind::Removed {
                self.ledger.end(End::Done);
            } else {
                self.there = None;
                self.ledger.end(End::Acted);
            }
            return;
        }
        if item.kind == ItemKind::Removed {
            row.commit();
        } else if stage != Stage::Fetched {
            if self.there != Some(version(&item)) {
                self.ledger.end(End::Superseded);
                return;
            }
            row.place("sink", &Placement::default());
        } else {
            self.deliver(&item);
        }
        self.worker = Some((id, item, Stage::Fetched));
    }

    /// The sink takes each item once, whoever brings it.
    fn deliver(&mut self, item: &Entry) {
        let effect = (item.sequence, version(item));
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
        let row = self.ledger.row.as_mut().expect("claimed rows stay");
        row.deliver("sink");
        row.commit();
    }

    /// The same with a file that is taken away first: a rename takes whatever has the name.
    fn work_aside(&mut self, id: ClaimId, item: Entry, stage: Stage) {
        let row = self.ledger.row.as_mut().expect("claimed rows stay");
        row.fence(&id).expect("the claim");
        let mine = self.aside.get(&id.sequence).copied();
        let stage = match stage {
            _ if item.kind == ItemKind::Removed => {
                row.commit();
                Stage::Fetched
            }
            Stage::Claimed => {
                row.place(
                    AT_SOURCE,
                    &Placement {
                        name: b"work".to_vec(),
                        ..Placement::default()
                    },
                );
                if mine != Some(version(&item)) {
                    // Another one that an earlier attempt took gets its name again.
                    if let Some(other) = self.aside.remove(&id.sequence)
                        && self.there.is_none()
                    {
                        self.there = Some(other);
                    }
                    if let Some(there) = self.there.take() {
                        self.aside.insert(id.sequence, there);
                    }
                }
                Stage::Taken
            }
            Stage::Taken if mine != Some(version(&item)) => {
                self.there = self.there.or(self.aside.remove(&id.sequence));
                self.ledger.end(End::Superseded);
                return;
            }
            Stage::Taken => {
                row.place("sink", &Placement::default());
                Stage::Fetched
            }
            Stage::Fetched => {
                self.deliver(&item);
                Stage::Fetched
            }
        };
        self.worker = Some((id, item, stage));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_there_is_delivered_once(
        events in proptest::collection::vec(event(), 1..60),
        removals in any::<bool>(),
        moves in any::<bool>(),
    ) {
        let ledger = Ledger { removals, ..Ledger::default() };
        let mut world = World { ledger, moves, ..World::default() };
        for event in &events {
            world.step(event);
        }
        // Everything comes to rest: the world is looked at, and workers keep what they deliver.
        world.listing = None;
        for _ in 0..4 {
            if world.ledger.row.as_ref().is_some_and(|row| row.state == State::Dead) {
                world.ledger.row.as_mut().expect("a row").replay(0, &mut || 0);
            }
            world.step(&Event::Scan);
            for _ in 0..12 {
                world.step(&Event::Claim);
                world.step(&Event::Work(true));
            }
        }
        prop_assert!(world.worker.is_none());
        // P7: nothing that was taken is left, besides what was given up before another one came.
        for (sequence, version) in &world.aside {
            prop_assert!(world.given_up.contains(sequence), "{version} is left: {world:?}");
        }
        prop_assert!(!moves || world.there.is_none(), "{world:?}");
        // P1: what is there was delivered.
        if let Some(there) = world.there {
            prop_assert!(world.effects.iter().any(|(_, version)| *version == there), "{world:?}");
            prop_assert_eq!(world.ledger.row().state, State::Done);
        } else {
            let quiet = world.ledger.row.as_ref().is_none_or(|row| row.state == State::Acted);
            prop_assert!(quiet, "{world:?}");
        }
        // P2, P4: each sequence is one version, and versions that were delivered rise. A version is
        // delivered again only if it came again, which does not happen here: every write is new.
        let versions: Vec<u32> = world.effects.iter().map(|(_, version)| *version).collect();
        prop_assert!(versions.is_sorted(), "{versions:?}");
    }
}
