//! A damaged ledger in a file, and what can be taken out of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ketch_listener::flow::item::Change;
use ketch_listener::store::sqlite::{Lost, SqliteStore};
use ketch_listener::store::{BATCH_MAX, End, Order, Row, State, Store, StoreError};

use super::contract;

const ROWS: u32 = 3_000;
const PAGE: usize = 4_096;

fn all_files() -> Vec<Change> {
    (0..ROWS)
        .map(|n| contract::present(&format!("d{}/file-{n:05}", n % 7), n))
        .collect()
}

/// A ledger with rows done, dead and waiting.
async fn filled(path: &Path) -> BTreeMap<String, Row> {
    let store = SqliteStore::open(path).expect("a ledger");
    let flow = contract::flow("f");
    let changes = all_files();
    let recorded = contract::record(0, &changes);
    store.record(&flow, recorded).await.expect("recorded");
    for n in 0..10 {
        for claim in contract::claim(&store, &flow, Order::Any, contract::LONG).await {
            let end = match n % 3 {
                0 => End::Dead { reason: "no" },
                _ => End::Done,
            };
            store.finish(&claim.id, end).await.expect("the claim");
        }
    }
    store
        .set_value(&flow, "first-scan", Some("done"))
        .await
        .expect("kept");
    let rows = store
        .rows(&flow, None, None, BATCH_MAX)
        .await
        .expect("rows");
    rows.into_iter()
        .map(|row| (row.item.path.to_string(), row))
        .collect()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_is_kept_and_what_is_lost_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger");
    let before = filled(&path).await;
    let whole = fs::read(&path).expect("the ledger");
    let lock = fs::read(beside(&path, ".lock")).expect("its lock");
    let flow = contract::flow("f");
    let pages = whole.len() / PAGE;
    let (mut repaired, mut hopeless) = (0, 0);
    // All of the first, where each table begins, and some of the others.
    for page in (0..8).chain((8..pages).step_by((pages / 12).max(1))) {
        // One sector that the disk has lost.
        let mut bytes = whole.clone();
        bytes[page * PAGE..page * PAGE + 512].fill(0);
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger");
        fs::write(&path, &bytes).expect("written");
        fs::write(beside(&path, ".lock"), &lock).expect("written");
        let refused = match SqliteStore::open(&path) {
            Err(error) => error,
            // A page that holds nothing.
            Ok(store) => {
                let rows = store.rows(&flow, None, None, BATCH_MAX).await;
                assert_eq!(rows.expect("rows").len(), before.len());
                continue;
            }
        };
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        assert!(refused.to_string().contains("ketch listen repair"));
        let Ok(done) = SqliteStore::repair(&path, std::slice::from_ref(&flow), Lost::Again) else {
            assert_eq!(
                fs::read(&path).expect("the ledger"),
                bytes,
                "it is as it was"
            );
            hopeless += 1;
            continue;
        };
        repaired += 1;
        assert_eq!(fs::read(&done.aside).expect("the old one"), bytes);
        let store = SqliteStore::open(&path).expect("a whole ledger");
        let rows = store
            .rows(&flow, None, None, BATCH_MAX)
            .await
            .expect("rows");
        for row in &rows {
            assert_eq!(&before[&row.item.path.to_string()], row);
        }
        let kept = rows.len() as u64;
        if let [told] = done.flows.as_slice() {
            assert_eq!(told.kept, kept);
            assert!(told.lost.is_none_or(|lost| lost + kept == u64::from(ROWS)));
        }
        // What is lost is new, what is kept is known, and no number is given twice.
        let changes = all_files();
        let recorded = contract::record(0, &changes);
        let recorded = store.record(&flow, recorded).await.expect("recorded");
        assert_eq!(recorded.items, u64::from(ROWS) - kept);
        let newest = before.values().map(|row| row.item.sequence).max();
        let rows = store
            .rows(&flow, None, None, BATCH_MAX)
            .await
            .expect("rows");
        for row in rows {
            let known = &before[&row.item.path.to_string()];
            assert!(row.item.sequence == known.item.sequence || Some(row.item.sequence) > newest);
        }
        println!("page {page}: {done:?}");
    }
    println!("{repaired} repaired, {hopeless} hopeless, of {pages} pages");
    assert!(repaired > hopeless);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_may_be_asked_for_a_baseline_and_begun_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger");
    let before = filled(&path).await;
    let flow = contract::flow("f");
    let store = SqliteStore::open(&path).expect("a ledger");
    let refused = SqliteStore::repair(&path, &[], Lost::Again);
    assert!(matches!(refused, Err(StoreError::InUse { .. })));
    // With a log that a kill left, all of which counts.
    let last = [contract::present("last", 1)];
    let recorded = contract::record(0, &last);
    store.record(&flow, recorded).await.expect("recorded");
    let killed = directory.path().join("killed");
    for end in ["", "-wal", ".lock"] {
        fs::copy(beside(&path, end), beside(&killed, end)).expect("copied");
    }
    drop(store);
    // It was interrupted when the old one had its second name, and its log that name alone.
    fs::hard_link(&killed, beside(&killed, ".damaged-1")).expect("linked");
    fs::rename(beside(&killed, "-wal"), beside(&killed, ".damaged-1-wal")).expect("renamed");
    let done = SqliteStore::repair(&killed, &[], Lost::Baseline).expect("repaired");
    assert_eq!(done.aside, beside(&killed, ".damaged-1"));
    assert_eq!(done.flows[0].lost, Some(0));
    let store = SqliteStore::open(&killed).expect("a whole ledger");
    let rows = store
        .rows(&flow, None, None, BATCH_MAX)
        .await
        .expect("rows");
    assert_eq!(rows.len(), before.len() + 1);
    assert!(rows.iter().any(|row| row.state == State::Dead));
    let first = store.value(&flow, "first-scan").await.expect("a value");
    assert_eq!(first.as_deref(), Some("baseline"));
    let gone = SqliteStore::repair(directory.path().join("nothing"), &[], Lost::Again);
    assert!(matches!(gone, Err(StoreError::Unavailable { .. })));
}
