//! Ledgers as text: out of one, into another, and refused where a byte is not what it was.

use std::io::Cursor;

use ketch_client::RemotePath;
use ketch_listener::flow::item::Change;
use ketch_listener::store::portable::{PortableError, export, import, import_all};
use ketch_listener::store::sqlite::SqliteStore;
use ketch_listener::store::{End, Order, Placement, Store};

use super::contract;

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_moves_as_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = SqliteStore::open(directory.path().join("old")).expect("a ledger");
    let new = SqliteStore::open(directory.path().join("new")).expect("a ledger");
    let flow = contract::flow("f");
    let mut changes: Vec<Change> = (0..30)
        .map(|n| contract::present(&format!("d/{n}"), n))
        .collect();
    changes.push(Change::Present {
        path: RemotePath::from(&b"\xff\"\n"[..]),
        facts: contract::facts(1),
        sha256: Some([3; 32]),
    });
    let recorded = contract::record(0, &changes);
    old.record(&flow, recorded).await.expect("recorded");
    let claims = contract::claim(&old, &flow, Order::Any, contract::LONG).await;
    for (n, claim) in claims.iter().enumerate() {
        let placement = Placement {
            name: b"\xfe".to_vec(),
            length: Some(5),
            note: b"kept".to_vec(),
        };
        old.placed(&claim.id, "disk", &placement)
            .await
            .expect("the claim");
        let end = match n % 3 {
            0 => End::Dead {
                reason: "a \"reason\"",
            },
            1 => End::Released,
            _ => End::Done,
        };
        old.finish(&claim.id, end).await.expect("the claim");
    }
    let moved = [
        contract::present("d/7", 99),
        Change::Renamed {
            from: "d/2".into(),
            to: "d/two".into(),
            facts: contract::facts(2),
        },
        contract::removed("d/5"),
    ];
    let recorded = contract::record(0, &moved);
    old.record(&flow, recorded).await.expect("recorded");

    let mut text = Vec::new();
    let rows = export(&old, &flow, &mut text).await.expect("exported");
    assert_eq!(rows, 31);
    for at in (0..text.len()).step_by(text.len() / 100) {
        let mut other = text.clone();
        other[at] ^= 1;
        let refused = import(&new, None, &mut Cursor::new(other)).await;
        assert!(
            matches!(refused, Err(PortableError::Damaged { .. })),
            "{at}"
        );
        let cut = text[..at].to_vec();
        let refused = import(&new, None, &mut Cursor::new(cut)).await;
        assert!(
            matches!(refused, Err(PortableError::Damaged { .. })),
            "{at}"
        );
    }
    let taken = import(&new, None, &mut Cursor::new(text.clone())).await;
    assert_eq!(taken.expect("imported"), rows);
    assert_eq!(
        old.rows(&flow, None, None, 100).await.expect("rows"),
        new.rows(&flow, None, None, 100).await.expect("rows")
    );
    let again = import(&new, None, &mut Cursor::new(text)).await;
    assert!(matches!(again, Err(PortableError::NotEmpty { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_flows_stand_in_one_text_with_what_they_keep() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = SqliteStore::open(directory.path().join("old")).expect("a ledger");
    let new = SqliteStore::open(directory.path().join("new")).expect("a ledger");
    let mut text = Vec::new();
    for name in ["one", "two", "three"] {
        let flow = contract::flow(name);
        let changes = [contract::present(name, 1)];
        let recorded = contract::record(0, &changes);
        old.record(&flow, recorded).await.expect("recorded");
        let done = old.set_value(&flow, "first-scan", Some("done")).await;
        done.expect("kept");
        export(&old, &flow, &mut text).await.expect("exported");
    }
    let several = import(&new, None, &mut Cursor::new(text.clone())).await;
    assert!(matches!(several, Err(PortableError::Damaged { .. })));
    // Damage in the last one keeps the first from being taken.
    let mut other = text.clone();
    let at = other.len() - 80;
    other[at] ^= 1;
    let refused = import_all(&new, &mut Cursor::new(other)).await;
    assert!(matches!(refused, Err(PortableError::Damaged { .. })));
    let taken = import_all(&new, &mut Cursor::new(text.clone())).await;
    assert_eq!(taken.expect("imported").len(), 3);
    for name in ["one", "two", "three"] {
        let flow = contract::flow(name);
        let rows = new.rows(&flow, None, None, 10).await.expect("rows");
        assert_eq!(rows.len(), 1);
        let kept = new.value(&flow, "first-scan").await.expect("a value");
        assert_eq!(kept.as_deref(), Some("done"));
    }
    let twice = import_all(&new, &mut Cursor::new(text)).await;
    assert!(matches!(twice, Err(PortableError::NotEmpty { .. })));
}
