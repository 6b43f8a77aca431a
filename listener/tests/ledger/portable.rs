//! Ledgers as text: out of one, into another, and refused where a byte is not what it was.

use std::io::Cursor;

use ketch_client::RemotePath;
use ketch_listener::flow::item::Change;
use ketch_listener::store::portable::{PortableError, export, import};
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
