//! The ledger in a file: the suite, and what becomes of it when its process is killed or its bytes
//! are not what they were.

use std::sync::Arc;

use ketch_listener::store::sqlite::SqliteStore;

use super::{contract, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_does_what_a_ledger_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.sqlite");
    let store = Arc::new(SqliteStore::open(&path).expect("a ledger"));
    contract::all(store.clone()).await;
    world::random(&*store, 0..60, 150).await;
    drop(store);
    // All of it is checked when it is opened.
    SqliteStore::open(&path).expect("a whole ledger");
}
