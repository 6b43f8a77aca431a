//! What every ledger does, whatever it is made of. Each case has a flow of its own.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ketch_client::{FileType, RemotePath};
use ketch_listener::flow::item::{Change, FlowName, ItemKind};
use ketch_listener::snapshot::Facts;
use ketch_listener::store::{
    Claim, ClaimAsk, Counts, Delivery, End, Order, Placement, Record, Recorded, State, Store,
    StoreError,
};

pub(crate) const LONG: Duration = Duration::from_secs(3_600);

pub(crate) fn flow(name: &str) -> FlowName {
    FlowName::new(name).expect("a name")
}

pub(crate) fn facts(version: u32) -> Facts {
    Facts {
        kind: FileType::Regular,
        size: Some(u64::from(version)),
        mtime: Some(version),
    }
}

pub(crate) fn present(path: &str, version: u32) -> Change {
    Change::Present {
        path: path.into(),
        facts: facts(version),
        sha256: None,
    }
}

pub(crate) fn removed(path: &str) -> Change {
    Change::Removed { path: path.into() }
}

pub(crate) fn record(scan: u64, changes: &[Change]) -> Record<'_> {
    Record {
        scan,
        lease: None,
        changes,
        removals: true,
        renames: true,
    }
}

pub(crate) async fn claim(
    store: &dyn Store,
    flow: &FlowName,
    order: Order,
    lease: Duration,
) -> Vec<Claim> {
    let ask = ClaimAsk {
        owner: "me",
        lease,
        order,
        max: 100,
    };
    store.claim(flow, ask).await.expect("claims")
}

fn paths(claims: &[Claim]) -> Vec<String> {
    claims.iter().map(|c| c.id.path.to_string()).collect()
}

async fn finish_all(store: &dyn Store, claims: &[Claim], end: End<'_>) {
    for claim in claims {
        store.finish(&claim.id, end).await.expect("the claim");
    }
}

/// All cases.
pub(crate) async fn all(store: Arc<dyn Store>) {
    known_versions_are_no_news(&*store).await;
    a_claim_goes_its_way(&*store).await;
    who_lost_a_claim_changes_nothing(&*store).await;
    failures_wait_and_dead_items_are_replayed(&*store).await;
    order_is_kept_in_each_directory(&*store).await;
    after_actions_are_forgotten_once(&*store).await;
    leases_and_values(&*store).await;
    rows_are_moved(&*store).await;
    odd_names_survive(&*store).await;
    nobody_holds_what_another_holds(store).await;
}

async fn known_versions_are_no_news(store: &dyn Store) {
    let flow = flow("news");
    let changes = [
        present("a", 1),
        present("d/b", 1),
        Change::Baseline {
            path: "old".into(),
            facts: facts(1),
        },
    ];
    let first = store
        .record(&flow, record(0, &changes))
        .await
        .expect("recorded");
    assert_eq!(first, Recorded { items: 2, known: 1 });
    let again = store
        .record(&flow, record(0, &changes))
        .await
        .expect("recorded");
    assert_eq!(again, Recorded { items: 0, known: 3 });
    let changes = [present("old", 2), removed("a"), removed("never")];
    let next = store
        .record(&flow, record(0, &changes))
        .await
        .expect("recorded");
    assert_eq!(next, Recorded { items: 1, known: 2 });
    let asked = ["old", "a", "d/b"].map(RemotePath::from);
    let rows = store.lookup(&flow, &asked).await.expect("rows");
    let kinds: Vec<_> = rows
        .iter()
        .map(|row| row.as_ref().map(|row| (row.item.kind.clone(), row.state)))
        .collect();
    assert_eq!(
        kinds,
        [
            Some((ItemKind::Modified, State::Pending)),
            None,
            Some((ItemKind::Created, State::Pending)),
        ]
    );
    // The numbers of rows that went are not given again.
    store
        .record(&flow, record(0, &[present("a", 1)]))
        .await
        .expect("recorded");
    let row = store
        .lookup(&flow, &["a".into()])
        .await
        .expect("rows")
        .remove(0);
    assert!(row.expect("a row").item.sequence > 4);
}

async fn a_claim_goes_its_way(store: &dyn Store) {
    let flow = flow("way");
    store
        .record(&flow, record(0, &[present("a", 1)]))
        .await
        .expect("recorded");
    let claims = claim(store, &flow, Order::Any, LONG).await;
    let id = claims[0].id.clone();
    assert!(claim(store, &flow, Order::Any, LONG).await.is_empty());
    let placement = Placement {
        name: b"in/a".to_vec(),
        length: Some(7),
        note: b"kept".to_vec(),
    };
    store.fetched(&id, [9; 32]).await.expect("the claim");
    store
        .placed(&id, "disk", &placement)
        .await
        .expect("the claim");
    store.finish(&id, End::Released).await.expect("the claim");
    let again = claim(store, &flow, Order::Any, LONG).await.remove(0);
    assert_eq!(again.item.sha256, Some([9; 32]));
    assert_eq!(
        again.deliveries,
        [Delivery {
            sink: "disk".to_owned(),
            placement: placement.clone(),
            done: false,
        }]
    );
    store.delivered(&again.id, "disk").await.expect("the claim");
    store.committed(&again.id).await.expect("the claim");
    // Another version comes while the after-action is not done.
    store
        .record(&flow, record(0, &[present("a", 2)]))
        .await
        .expect("recorded");
    store
        .finish(&again.id, End::Released)
        .await
        .expect("the claim");
    // It waits until that is: the after-action may have put it aside by mistake, and gives it back.
    let again = claim(store, &flow, Order::Any, LONG).await.remove(0);
    assert!(again.committed);
    store.finish(&again.id, End::Done).await.expect("the claim");
    let next = claim(store, &flow, Order::Any, LONG).await.remove(0);
    let oldest = store.oldest(&flow).await.expect("an answer");
    assert_eq!(oldest, Some(next.item.recorded));
    assert_eq!(next.item.facts, facts(2));
    assert!(next.item.sequence > again.item.sequence);
    assert_eq!(next.item.kind, ItemKind::Modified);
    store.finish(&next.id, End::Done).await.expect("the claim");
    assert_eq!(store.oldest(&flow).await.expect("an answer"), None);
    let counts = store.counts(&flow).await.expect("counts");
    assert_eq!(
        counts,
        Counts {
            done: 1,
            ..Counts::default()
        }
    );
}

async fn who_lost_a_claim_changes_nothing(store: &dyn Store) {
    let flow = flow("lost");
    store
        .record(&flow, record(0, &[present("a", 1)]))
        .await
        .expect("recorded");
    let old = claim(store, &flow, Order::Any, Duration::ZERO)
        .await
        .remove(0)
        .id;
    // It ran out, but nobody has taken it: it is theirs.
    store.fetched(&old, [1; 32]).await.expect("the claim");
    let new = claim(store, &flow, Order::Any, LONG).await.remove(0).id;
    assert_eq!(new.number, old.number + 1);
    let lost = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Lost)));
    lost(store.fetched(&old, [2; 32]).await);
    lost(store.placed(&old, "disk", &Placement::default()).await);
    lost(store.delivered(&old, "disk").await);
    lost(store.committed(&old).await);
    lost(store.finish(&old, End::Done).await);
    let both = [old.clone(), new.clone()];
    assert_eq!(store.renew(&both, LONG).await.expect("renewed"), [old]);
    store.finish(&new, End::Done).await.expect("the claim");
    lost(store.finish(&new, End::Done).await);
}

async fn failures_wait_and_dead_items_are_replayed(store: &dyn Store) {
    let flow = flow("fails");
    store
        .record(&flow, record(0, &[present("a", 1), present("b", 1)]))
        .await
        .expect("recorded");
    let claims = claim(store, &flow, Order::Any, LONG).await;
    let failed = End::Failed {
        retry: LONG,
        reason: "no",
    };
    store
        .finish(&claims[0].id, failed)
        .await
        .expect("the claim");
    store
        .finish(&claims[1].id, End::Dead { reason: "never" })
        .await
        .expect("the claim");
    assert!(claim(store, &flow, Order::Any, LONG).await.is_empty());
    let counts = store.counts(&flow).await.expect("counts");
    assert_eq!((counts.pending, counts.dead), (1, 1));
    // Whoever waits for another attempt is the oldest, whatever came since; the dead are left out.
    let oldest = store.oldest(&flow).await.expect("an answer");
    assert_eq!(oldest, Some(claims[0].item.recorded));
    let dead = store
        .rows(&flow, Some(State::Dead), None, 10)
        .await
        .expect("rows");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason.as_deref(), Some("never"));
    assert_eq!(
        store
            .replay(&flow, Some(&"a".into()))
            .await
            .expect("replayed"),
        0
    );
    assert_eq!(store.replay(&flow, None).await.expect("replayed"), 1);
    let claims = claim(store, &flow, Order::Any, LONG).await;
    assert_eq!(paths(&claims), ["b"]);
    assert_eq!(claims[0].attempts, 0);
}

async fn order_is_kept_in_each_directory(store: &dyn Store) {
    // What comes first and second, and their times: another order would turn them round.
    for (order, name, first, second, times) in [
        (Order::Name, "by-name", "a", "b", (9, 1)),
        (Order::Time, "by-time", "b", "a", (1, 9)),
        (Order::NameDown, "by-name-down", "b", "a", (1, 9)),
        (Order::TimeDown, "by-time-down", "a", "b", (9, 1)),
    ] {
        let flow = flow(name);
        let changes = [
            present(second, times.1),
            present(first, times.0),
            present(&format!("d/{second}"), times.1),
            present(&format!("d/{first}"), times.0),
            present("d/sub/x", 5),
        ];
        store
            .record(&flow, record(0, &changes))
            .await
            .expect("recorded");
        let mut heads = claim(store, &flow, order, LONG).await;
        heads.sort_by(|one, other| one.item.path.cmp(&other.item.path));
        let wanted = [first.to_owned(), format!("d/{first}"), "d/sub/x".to_owned()];
        assert_eq!(paths(&heads), wanted);
        assert!(claim(store, &flow, order, LONG).await.is_empty());
        // One that waits for its next attempt holds the others up; a dead one does not.
        let failed = End::Failed {
            retry: LONG,
            reason: "no",
        };
        store.finish(&heads[0].id, failed).await.expect("the claim");
        store
            .finish(&heads[1].id, End::Dead { reason: "no" })
            .await
            .expect("the claim");
        store
            .finish(&heads[2].id, End::Done)
            .await
            .expect("the claim");
        let next = claim(store, &flow, order, LONG).await;
        assert_eq!(paths(&next), [format!("d/{second}")]);
    }
}

async fn after_actions_are_forgotten_once(store: &dyn Store) {
    let flow = flow("acted");
    let old = store.begin_scan(&flow, 0).await.expect("a scan");
    store
        .record(&flow, record(old.scan, &[present("a", 1), present("b", 1)]))
        .await
        .expect("recorded");
    let claims = claim(store, &flow, Order::Any, LONG).await;
    for claim in &claims {
        store.committed(&claim.id).await.expect("the claim");
    }
    finish_all(store, &claims, End::Acted).await;
    // The scan had begun before.
    let stale = [present("a", 1), removed("b")];
    let recorded = store
        .record(&flow, record(old.scan, &stale))
        .await
        .expect("recorded");
    assert_eq!(recorded.items, 0);
    let mut start = store.begin_scan(&flow, old.scan).await.expect("a scan");
    start.forget.sort();
    assert_eq!(start.forget, ["a", "b"].map(RemotePath::from));
    assert!(start.scan > old.scan);
    // Once more, as if the process had been killed before it saved its snapshot.
    let again = store.begin_scan(&flow, old.scan).await.expect("a scan");
    assert_eq!(again.forget.len(), 2);
    let recorded = store
        .record(&flow, record(start.scan, &[present("a", 1)]))
        .await
        .expect("recorded");
    assert_eq!(recorded.items, 1);
    let quiet = store.begin_scan(&flow, start.scan).await.expect("a scan");
    assert_eq!((quiet.scan, quiet.forget.len()), (start.scan, 0));
    assert_eq!(
        store.lookup(&flow, &["b".into()]).await.expect("rows"),
        [None]
    );
}

async fn leases_and_values(store: &dyn Store) {
    let flow = flow("kept");
    assert!(store.lease("scan:kept", "x", LONG).await.expect("a lease"));
    assert!(store.lease("scan:kept", "x", LONG).await.expect("a lease"));
    assert!(
        !store
            .lease("scan:kept", "y", LONG)
            .await
            .expect("an answer")
    );
    let changes = [present("a", 1)];
    let under = |owner: &'static str| Record {
        lease: Some(("scan:kept", owner)),
        ..record(0, &changes)
    };
    store.record(&flow, under("x")).await.expect("recorded");
    let refused = store.record(&flow, under("y")).await;
    assert!(matches!(refused, Err(StoreError::Lost)));
    store.release("scan:kept", "y").await.expect("nothing");
    assert!(
        !store
            .lease("scan:kept", "y", LONG)
            .await
            .expect("an answer")
    );
    store.release("scan:kept", "x").await.expect("released");
    assert!(
        store
            .lease("scan:kept", "y", Duration::ZERO)
            .await
            .expect("a lease")
    );
    assert!(store.lease("scan:kept", "x", LONG).await.expect("a lease"));

    assert_eq!(store.value(&flow, "paused").await.expect("no value"), None);
    for value in [Some("yes"), Some("no"), None] {
        store.set_value(&flow, "paused", value).await.expect("kept");
        let kept = store.value(&flow, "paused").await.expect("a value");
        assert_eq!(kept.as_deref(), value);
    }
}

async fn rows_are_moved(store: &dyn Store) {
    let (from, to) = (flow("from"), flow("to"));
    let names: Vec<String> = (0..25).map(|n| format!("d/{n:02}")).collect();
    let changes: Vec<Change> = names.iter().map(|name| present(name, 1)).collect();
    store
        .record(&from, record(0, &changes))
        .await
        .expect("recorded");
    let claims = claim(store, &from, Order::Any, LONG).await;
    finish_all(store, &claims[..10], End::Done).await;
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = store
            .rows(&from, None, after.as_ref(), 7)
            .await
            .expect("rows");
        let Some(last) = page.last() else { break };
        after = Some(last.item.path.clone());
        seen.extend(page.iter().map(|row| row.item.path.to_string()));
        for _ in 0..2 {
            store.import(&to, &page).await.expect("imported");
        }
    }
    assert_eq!(seen, names);
    let counts = store.counts(&to).await.expect("counts");
    assert_eq!((counts.done, counts.pending), (10, 15));
    let news = store
        .record(&to, record(0, &changes))
        .await
        .expect("recorded");
    assert_eq!(news.items, 0);
    store
        .record(&to, record(0, &[present("new", 1)]))
        .await
        .expect("recorded");
    let row = store
        .lookup(&to, &["new".into()])
        .await
        .expect("rows")
        .remove(0);
    assert!(row.expect("a row").item.sequence > 25);
}

async fn odd_names_survive(store: &dyn Store) {
    let flow = flow("odd");
    let names: [&[u8]; 4] = [b"\xff\xfe/\x01", b"a'b\"c", b"nul\0nul", b"x/\n"];
    let changes: Vec<Change> = names
        .iter()
        .map(|name| Change::Present {
            path: RemotePath::from(*name),
            facts: Facts {
                kind: FileType::Regular,
                size: Some(u64::MAX),
                mtime: Some(u32::MAX),
            },
            sha256: None,
        })
        .collect();
    store
        .record(&flow, record(0, &changes))
        .await
        .expect("recorded");
    let claims = claim(store, &flow, Order::Name, LONG).await;
    assert_eq!(claims.len(), 3);
    finish_all(store, &claims, End::Done).await;
    let claims = claim(store, &flow, Order::Time, LONG).await;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].item.facts.size, Some(u64::MAX));
}

async fn nobody_holds_what_another_holds(store: Arc<dyn Store>) {
    const ITEMS: u32 = 300;
    let flow = flow("many");
    let changes: Vec<Change> = (0..ITEMS)
        .map(|n| present(&format!("d{}/{n}", n % 7), 1))
        .collect();
    store
        .record(&flow, record(0, &changes))
        .await
        .expect("recorded");
    let held = Arc::new(Mutex::new(HashSet::new()));
    let done = Arc::new(Mutex::new(HashSet::new()));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let (store, flow) = (Arc::clone(&store), flow.clone());
        let (held, done) = (Arc::clone(&held), Arc::clone(&done));
        workers.spawn(async move {
            let owner = format!("worker-{worker}");
            // Half of them ask for order.
            let order = if worker % 2 == 0 {
                Order::Any
            } else {
                Order::Name
            };
            loop {
                let ask = ClaimAsk {
                    owner: &owner,
                    lease: LONG,
                    order,
                    max: 5,
                };
                let claims = store.claim(&flow, ask).await.expect("claims");
                let all = done.lock().expect("no panic").len() == ITEMS as usize;
                if claims.is_empty() && all {
                    return;
                }
                tokio::task::yield_now().await;
                for claim in claims {
                    let path = claim.id.path.to_string();
                    assert!(held.lock().expect("no panic").insert(path.clone()));
                    store.committed(&claim.id).await.expect("the claim");
                    assert!(held.lock().expect("no panic").remove(&path));
                    assert!(done.lock().expect("no panic").insert(path));
                    store.finish(&claim.id, End::Done).await.expect("the claim");
                }
            }
        });
    }
    workers.join_all().await;
    assert_eq!(
        store.counts(&flow).await.expect("counts").done,
        u64::from(ITEMS)
    );
}
