//! A small world of files, a detector and workers over a ledger, in random order. The judge is what
//! the sink got against what the world has, never the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ketch_client::RemotePath;
use ketch_listener::flow::item::{Change, FlowName, ItemKind};
use ketch_listener::store::{Claim, ClaimAsk, End, Order, Placement, Record, State, Store};

use super::contract::{LONG, facts, present, removed};

/// Numbers that a seed gives (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

const NAMES: [&str; 6] = ["a", "b", "d/a", "d/b", "d/e/a", "x/a"];

/// The files, what the detector has told of them, and who works.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) flow: FlowName,
    dice: Dice,
    versions: u32,
    files: BTreeMap<String, u32>,
    told: BTreeMap<String, u32>,
    since: u64,
    removals: bool,
    order: Order,
    workers: Vec<(Claim, bool)>,
    /// What the sink got: by the item's number, which it knows again.
    effects: BTreeMap<u64, (RemotePath, u32)>,
}

impl World {
    pub(crate) fn new(flow: FlowName, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let removals = dice.roll(2) == 0;
        let orders = [
            Order::Any,
            Order::Name,
            Order::Time,
            Order::NameDown,
            Order::TimeDown,
        ];
        let order = orders[usize::try_from(dice.roll(5)).unwrap_or(0)];
        Self {
            flow,
            dice,
            versions: 0,
            files: BTreeMap::new(),
            told: BTreeMap::new(),
            since: 0,
            removals,
            order,
            workers: Vec::new(),
            effects: BTreeMap::new(),
        }
    }

    fn name(&mut self) -> String {
        NAMES[usize::try_from(self.dice.roll(6)).unwrap_or(0)].to_owned()
    }

    /// One thing happens.
    pub(crate) async fn step(&mut self, store: &dyn Store) {
        match self.dice.roll(20) {
            0..=3 => {
                self.versions += 1;
                let name = self.name();
                self.files.insert(name, self.versions);
            }
            4 => {
                let name = self.name();
                self.files.remove(&name);
            }
            5 => {
                let (from, to) = (self.name(), self.name());
                if let Some(version) = self.files.remove(&from) {
                    self.files.insert(to, version);
                }
            }
            6..=8 => self.scan(store).await,
            // A snapshot from before, as after a crash: it costs look-ups only.
            9 => self.told.clear(),
            10..=12 => self.claim(store, LONG).await,
            // Claims that run out at once: others may take them.
            13 => self.claim(store, Duration::ZERO).await,
            _ if self.workers.is_empty() => {}
            choice => {
                let count = self.workers.len() as u64;
                let at = usize::try_from(self.dice.roll(count)).unwrap_or(0);
                let (claim, fetched) = self.workers.swap_remove(at);
                self.work(store, claim, fetched, choice).await;
            }
        }
    }

    async fn scan(&mut self, store: &dyn Store) {
        let start = store
            .begin_scan(&self.flow, self.since)
            .await
            .expect("a scan");
        for path in start.forget {
            self.told.remove(&path.to_string());
        }
        let changes = self.diff();
        let record = Record {
            scan: start.scan,
            lease: None,
            changes: &changes,
            removals: self.removals,
            renames: true,
        };
        store.record(&self.flow, record).await.expect("recorded");
        let again = store
            .record(&self.flow, Record { ..record })
            .await
            .expect("recorded");
        assert_eq!(again.items, 0, "{changes:?}");
        self.told = self.files.clone();
        self.since = start.scan;
    }

    fn diff(&self) -> Vec<Change> {
        let mut gone: BTreeMap<u32, &str> = self
            .told
            .iter()
            .filter(|(name, _)| !self.files.contains_key(*name))
            .map(|(name, version)| (*version, name.as_str()))
            .collect();
        let mut changes: Vec<Change> = self
            .files
            .iter()
            .filter(|(name, version)| self.told.get(*name) != Some(version))
            .map(|(name, version)| match gone.remove(version) {
                Some(from) => Change::Renamed {
                    from: from.into(),
                    to: name.into(),
                    facts: facts(*version),
                },
                None => present(name, *version),
            })
            .collect();
        changes.extend(gone.values().map(|name| removed(name)));
        changes
    }

    async fn claim(&mut self, store: &dyn Store, lease: Duration) {
        let ask = ClaimAsk {
            owner: "me",
            lease,
            order: self.order,
            max: 2,
        };
        let claims = store.claim(&self.flow, ask).await.expect("claims");
        for claim in claims {
            self.workers.push((claim, false));
        }
    }

    async fn work(&mut self, store: &dyn Store, claim: Claim, fetched: bool, choice: u64) {
        let id = claim.id.clone();
        let there = self.files.get(&id.path.to_string()).copied();
        let version = claim.item.facts.mtime.unwrap_or(0);
        let gone = claim.item.kind == ItemKind::Removed;
        let failed = End::Failed {
            retry: Duration::ZERO,
            reason: "no",
        };
        let result = match choice {
            14 => store.finish(&id, failed).await,
            15 => store.finish(&id, End::Released).await,
            _ if claim.committed || (fetched && claim.deliveries.is_empty() && gone) => {
                // What is taken away must be what was delivered, and ours still.
                let ours = store
                    .renew(std::slice::from_ref(&id), LONG)
                    .await
                    .expect("renewed");
                if ours.is_empty() && there == Some(version) && !gone && choice == 16 {
                    self.files.remove(&id.path.to_string());
                    store.finish(&id, End::Acted).await
                } else {
                    store.finish(&id, End::Done).await
                }
            }
            _ if gone => match store.committed(&id).await {
                Ok(()) => {
                    let claim = Claim {
                        committed: true,
                        ..claim
                    };
                    self.workers.push((claim, true));
                    Ok(())
                }
                lost => lost,
            },
            _ if !fetched => {
                if there == Some(version) {
                    let placed = store.placed(&id, "sink", &Placement::default()).await;
                    if placed.is_ok() {
                        self.workers.push((claim, true));
                    }
                    placed
                } else {
                    store.finish(&id, End::Superseded).await
                }
            }
            _ => {
                // The sink takes an item once, even of one who lost the claim meanwhile.
                self.effects
                    .entry(id.sequence)
                    .or_insert_with(|| (id.path.clone(), version));
                let mut done = store.delivered(&id, "sink").await;
                if done.is_ok() {
                    done = store.committed(&id).await;
                }
                if done.is_ok() {
                    let claim = Claim {
                        committed: true,
                        ..claim
                    };
                    self.workers.push((claim, true));
                }
                done
            }
        };
        if let Err(error) = result {
            assert!(
                matches!(error, ketch_listener::store::StoreError::Lost),
                "{error}"
            );
        }
    }

    /// Nothing changes any more; all is worked off, and judged.
    pub(crate) async fn judge(&mut self, store: &dyn Store) {
        for (claim, _) in std::mem::take(&mut self.workers) {
            // It may have lost it.
            let _ = store.finish(&claim.id, End::Released).await;
        }
        for _ in 0..200 {
            self.scan(store).await;
            let ask = ClaimAsk {
                owner: "last",
                lease: Duration::ZERO,
                order: Order::Any,
                max: 100,
            };
            let claims = store.claim(&self.flow, ask).await.expect("claims");
            if claims.is_empty() {
                break;
            }
            for claim in claims {
                self.work(store, claim.clone(), false, 19).await;
                while let Some((claim, fetched)) = self.workers.pop() {
                    self.work(store, claim, fetched, 19).await;
                }
            }
        }
        let counts = store.counts(&self.flow).await.expect("counts");
        assert_eq!((counts.pending, counts.claimed, counts.dead), (0, 0, 0));
        let got: BTreeSet<u32> = self.effects.values().map(|(_, version)| *version).collect();
        for (name, version) in &self.files {
            assert!(got.contains(version), "lost: {name} {version} {self:?}");
            let row = store
                .lookup(&self.flow, &[name.into()])
                .await
                .expect("rows")
                .remove(0);
            let row = row.expect("a row");
            assert_eq!(row.item.facts, facts(*version));
            assert!(matches!(row.state, State::Done | State::Known), "{row:?}");
        }
        let mut once = BTreeSet::new();
        for effect in self.effects.values() {
            assert!(once.insert(effect.clone()), "doubled: {effect:?} {self:?}");
        }
    }
}

/// Random work, and the judgement.
pub(crate) async fn random(store: &dyn Store, seeds: std::ops::Range<u64>, steps: u32) {
    for seed in seeds {
        let mut world = World::new(super::contract::flow(&format!("world-{seed}")), seed);
        for _ in 0..steps {
            world.step(store).await;
        }
        world.judge(store).await;
    }
}
