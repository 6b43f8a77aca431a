//! The ledger in a file: the suite, and what becomes of it when its process is killed or its bytes
//! are not what they were.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ketch_listener::flow::item::{Change, ItemKind};
use ketch_listener::store::sqlite::SqliteStore;
use ketch_listener::store::{Claim, End, Order, Placement, Row, Store, StoreError};

use super::{contract, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_does_what_a_ledger_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.sqlite");
    let store = Arc::new(SqliteStore::open(&path).expect("a ledger"));
    contract::all(store.clone()).await;
    world::random(&*store, 0..20, 150).await;
    drop(store);
    // All of it is checked when it is opened.
    SqliteStore::open(&path).expect("a whole ledger");
}

/// Files of a ledger that a process would leave: the ledger, and its lock with its id.
#[derive(Clone)]
struct Image {
    ledger: Vec<u8>,
    log: Option<Vec<u8>>,
    lock: Vec<u8>,
}

impl Image {
    fn of(path: &Path) -> Self {
        let beside = |end: &str| fs::read(format!("{}{end}", path.display()));
        Self {
            ledger: fs::read(path).expect("the ledger"),
            log: beside("-wal").ok(),
            lock: beside(".lock").expect("its lock"),
        }
    }

    fn open(&self) -> (tempfile::TempDir, Result<SqliteStore, StoreError>) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger");
        fs::write(&path, &self.ledger).expect("written");
        fs::write(directory.path().join("ledger.lock"), &self.lock).expect("written");
        if let Some(log) = &self.log {
            fs::write(directory.path().join("ledger-wal"), log).expect("written");
        }
        let store = SqliteStore::open(&path);
        (directory, store)
    }
}

/// Every `n`th place of a file, or all of them if the environment asks for all.
fn places(len: usize, samples: usize) -> impl Iterator<Item = usize> {
    let all = std::env::var_os("KETCH_LEDGER_EVERY_BYTE").is_some();
    let step = if all { 1 } else { (len / samples).max(1) };
    // Samples differ from run to run by what the step leaves.
    (0..len).step_by(step)
}

const FILES: u32 = 40;

fn all_files() -> Vec<Change> {
    (0..FILES)
        .map(|n| contract::present(&format!("d{}/file-{n}", n % 3), n))
        .collect()
}

/// A ledger in which something stands in every table and in every state.
async fn filled(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).expect("a ledger");
    let flow = contract::flow("f");
    let changes = all_files();
    store
        .record(&flow, contract::record(0, &changes))
        .await
        .expect("recorded");
    let claims = contract::claim(&store, &flow, Order::Any, contract::LONG).await;
    for (n, claim) in claims.iter().enumerate() {
        let end = match n % 8 {
            0 => End::Dead { reason: "no" },
            1 => End::Acted,
            2 => End::Failed {
                retry: contract::LONG,
                reason: "later",
            },
            3 => End::Released,
            4 => continue,
            _ => End::Done,
        };
        store.finish(&claim.id, end).await.expect("the claim");
    }
    store
        .set_value(&flow, "key", Some("value"))
        .await
        .expect("kept");
    store
}

/// Whether nothing that was delivered would be delivered again.
async fn is_harmless(store: &SqliteStore, wanted: &[Row]) -> bool {
    let flow = contract::flow("f");
    let Ok(rows) = store.rows(&flow, None, None, 1_000).await else {
        return true;
    };
    let changes = all_files();
    let again = store.record(&flow, contract::record(0, &changes)).await;
    rows == wanted && again.map_or(true, |recorded| recorded.items == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_is_found_or_harmless() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger");
    drop(filled(&path).await);
    let image = Image::of(&path);
    assert!(image.log.as_ref().is_none_or(Vec::is_empty));
    // Opening frees the claims of the process before: what is compared is the state after that.
    let wanted = SqliteStore::open(&path)
        .expect("a ledger")
        .rows(&contract::flow("f"), None, None, 1_000)
        .await
        .expect("rows");
    let (mut found, mut harmless) = (0, 0);
    for at in places(image.ledger.len(), 300) {
        let mut image = image.clone();
        image.ledger[at] ^= 1 << (at % 8);
        let (_directory, store) = image.open();
        match store {
            Err(error) => {
                assert!(!matches!(error, StoreError::Lost), "{at}: {error}");
                found += 1;
            }
            Ok(store) => {
                assert!(is_harmless(&store, &wanted).await, "byte {at}");
                harmless += 1;
            }
        }
    }
    println!(
        "{found} found, {harmless} harmless of {} bytes",
        image.ledger.len()
    );
    assert!(found > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_cut_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger");
    drop(filled(&path).await);
    let image = Image::of(&path);
    for len in places(image.ledger.len(), 60) {
        let mut image = image.clone();
        image.ledger.truncate(len);
        let (_directory, store) = image.open();
        assert!(store.is_err(), "cut to {len} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_costs_no_more_than_its_end() {
    const TRANSACTIONS: usize = 12;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger");
    drop(filled(&path).await);
    let store = SqliteStore::open(&path).expect("a ledger");
    let flow = contract::flow("log");
    for n in 0..TRANSACTIONS {
        let changes = [contract::present(&format!("{n:03}"), 1)];
        let recorded = contract::record(0, &changes);
        store.record(&flow, recorded).await.expect("recorded");
    }
    // As a kill would leave it.
    let image = Image::of(&path);
    let log = image.log.clone().expect("a log");
    let (mut found, mut dropped) = (0, 0);
    for at in places(log.len(), 150) {
        for cut in [false, true] {
            let mut log = log.clone();
            if cut {
                log.truncate(at);
            } else {
                log[at] ^= 1 << (at % 8);
            }
            let image = Image {
                log: Some(log),
                ..image.clone()
            };
            let (_directory, store) = image.open();
            let Ok(store) = store else {
                assert!(!cut, "a log that ends early is torn, not damaged: {at}");
                found += 1;
                continue;
            };
            let rows = store
                .rows(&flow, None, None, 100)
                .await
                .expect("rows")
                .len();
            assert!(cut || rows + 2 >= TRANSACTIONS, "byte {at}: {rows} rows");
            dropped += usize::from(rows < TRANSACTIONS);
        }
    }
    println!(
        "{found} found, {dropped} times the end was dropped, of {} bytes",
        log.len()
    );
    assert!(found > 0);
    drop(store);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_has_it_and_no_newer_format_is_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger");
    let store = SqliteStore::open(&path).expect("a ledger");
    let second = SqliteStore::open(&path);
    assert!(matches!(second, Err(StoreError::InUse { .. })));
    drop(store);
    let mut image = Image::of(&path);
    // `user_version` in SQLite's header.
    image.ledger[63] = 2;
    let (_directory, newer) = image.open();
    assert!(matches!(
        newer,
        Err(StoreError::Format { found: 2, known: 1 })
    ));
    image.ledger = b"something else altogether".repeat(100);
    let (_directory, other) = image.open();
    assert!(other.is_err());
    fs::remove_file(&path).expect("removed");
    let anew = SqliteStore::open(&path);
    assert!(matches!(anew, Err(StoreError::Damaged { .. })));
}

/// Where the child finds its ledger; a name with `-end` works until nothing is left to do.
const CHILD: &str = "KETCH_LEDGER_CHILD";

/// What the next test kills: a process that scans the directory `source`, delivers each version as
/// an empty file `sink/<sequence> <name> <version>`, and takes every third file away.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(directory) = std::env::var_os(CHILD).map(std::path::PathBuf::from) else {
        return;
    };
    let store = SqliteStore::open(directory.join("ledger")).expect("a ledger");
    let flow = contract::flow("f");
    let until_idle = directory.join("end").exists();
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        let start = store.begin_scan(&flow, 0).await.expect("a scan");
        for path in start.forget {
            told.remove(&path.to_string());
        }
        let mut changes = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in fs::read_dir(directory.join("source")).expect("a directory") {
            let name = entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name");
            let text = fs::read_to_string(directory.join("source").join(&name));
            let Ok(Ok(version)) = text.map(|text| text.parse()) else {
                continue;
            };
            changes.push(contract::present(&name, version));
            seen.insert(name);
        }
        changes.extend(told.difference(&seen).map(|name| contract::removed(name)));
        let record = contract::record(start.scan, &changes);
        store.record(&flow, record).await.expect("recorded");
        told = seen;
        let claims = contract::claim(&store, &flow, Order::Name, contract::LONG).await;
        if claims.is_empty() && until_idle {
            return;
        }
        for claim in &claims {
            work(&store, &directory, claim).await;
        }
        store.compact().await.expect("compacted");
    }
}

async fn work(store: &SqliteStore, directory: &Path, claim: &Claim) {
    let (id, name) = (&claim.id, claim.id.path.to_string());
    let version = claim.item.facts.mtime.expect("a version");
    let source = directory.join("source").join(&name);
    let there = fs::read_to_string(&source).is_ok_and(|text| text == version.to_string());
    if claim.item.kind == ItemKind::Removed {
        return store.finish(id, End::Done).await.expect("the claim");
    }
    if !claim.committed {
        if !there {
            return store.finish(id, End::Superseded).await.expect("the claim");
        }
        let placement = Placement {
            name: format!("{} {name} {version}", id.sequence).into_bytes(),
            length: None,
            note: Vec::new(),
        };
        store
            .placed(id, "sink", &placement)
            .await
            .expect("the claim");
        let effect = format!("{} {name} {version}", id.sequence);
        fs::write(directory.join("sink").join(effect), "").expect("delivered");
        store.delivered(id, "sink").await.expect("the claim");
        store.committed(id).await.expect("the claim");
    }
    let end = if version.is_multiple_of(3) {
        if there {
            fs::remove_file(&source).expect("removed");
        }
        End::Acted
    } else {
        End::Done
    };
    store.finish(id, end).await.expect("the claim");
}

#[test]
fn a_process_that_is_killed_loses_and_doubles_nothing() {
    let rounds = std::env::var("KETCH_LEDGER_KILLS").map_or(25, |n| n.parse().expect("a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("source")).expect("a directory");
    fs::create_dir(at("sink")).expect("a directory");
    let start = || {
        std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "sqlite::child", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("a child")
    };
    let mut dice = world::Dice(u64::from(std::process::id()));
    println!("seed {}", dice.0);
    let mut files = std::collections::BTreeMap::new();
    let mut version = 0_u32;
    for _ in 0..rounds {
        for _ in 0..6 {
            version += 1;
            let name = format!("file-{}", dice.roll(12));
            fs::write(at("source").join(&name), version.to_string()).expect("written");
            files.insert(name, version);
        }
        let mut child = start();
        std::thread::sleep(std::time::Duration::from_millis(20 + dice.roll(200)));
        child.kill().expect("killed");
        child.wait().expect("it is ours");
    }
    fs::write(at("end"), "").expect("written");
    let done = start().wait().expect("it is ours");
    assert!(done.success(), "{done}");
    let mut effects = BTreeSet::new();
    for entry in fs::read_dir(at("sink")).expect("a directory") {
        let name = entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("a name");
        let (_, effect) = name.split_once(' ').expect("a number and a version");
        assert!(effects.insert(effect.to_owned()), "doubled: {effect}");
    }
    for (name, version) in &files {
        let effect = format!("{name} {version}");
        assert!(effects.contains(&effect), "lost: {effect}");
        assert_eq!(at("source").join(name).exists(), version % 3 != 0);
    }
    println!(
        "{rounds} kills, {} versions delivered of {version}",
        effects.len()
    );
}

/// Figures; by hand: `KETCH_LEDGER_ROWS=1000000 cargo test --release -- figures --nocapture`. The
/// first 10,000 rows are work, the others are known, a thousand in a directory.
#[tokio::test(flavor = "multi_thread")]
async fn figures() {
    let Ok(rows) = std::env::var("KETCH_LEDGER_ROWS") else {
        return;
    };
    let rows: u32 = rows.parse().expect("a number");
    let directory = tempfile::tempdir_in(".").expect("a directory");
    let path = directory.path().join("ledger");
    let store = Arc::new(SqliteStore::open(&path).expect("a ledger"));
    let flow = contract::flow("f");
    let clock = clock();
    for part in 0..rows / 10_000 {
        let changes: Vec<Change> = (0..10_000)
            .map(|n| {
                let n = part * 10_000 + n;
                let path = format!("directory-{:05}/file-{n:08}.csv", n / 1_000);
                match part {
                    0 => contract::present(&path, 7),
                    _ => Change::Baseline {
                        path: path.into(),
                        facts: contract::facts(7),
                    },
                }
            })
            .collect();
        let recorded = contract::record(0, &changes);
        store.record(&flow, recorded).await.expect("recorded");
    }
    let took = clock.elapsed();
    println!("{rows} rows recorded in {took:?}");
    let clock = self::clock();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, flow) = (Arc::clone(&store), flow.clone());
        workers.spawn(async move {
            for _ in 0..5 {
                for claim in contract::claim(&*store, &flow, Order::Any, contract::LONG).await {
                    let placement = Placement {
                        name: claim.id.path.as_bytes().to_vec(),
                        length: None,
                        note: Vec::new(),
                    };
                    let id = &claim.id;
                    store.fetched(id, [7; 32]).await.expect("the claim");
                    store
                        .placed(id, "disk", &placement)
                        .await
                        .expect("the claim");
                    store.delivered(id, "disk").await.expect("the claim");
                    store.committed(id).await.expect("the claim");
                    store.finish(id, End::Done).await.expect("the claim");
                }
            }
        });
    }
    workers.join_all().await;
    println!(
        "4000 items in 6 steps each by 8 workers in {:?}",
        clock.elapsed()
    );
    let clock = self::clock();
    store.compact().await.expect("compacted");
    println!("compacted in {:?}", clock.elapsed());
    let len = fs::metadata(&path).expect("the ledger").len();
    println!("{len} bytes, {} a row", len / u64::from(rows));
    drop(store);
    let clock = self::clock();
    drop(SqliteStore::open(&path).expect("a ledger"));
    println!("opened and checked in {:?}", clock.elapsed());
    let memory = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = memory.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", peak.unwrap_or("no peak of memory"));
}

#[expect(clippy::disallowed_methods, reason = "a test that measures")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}
