//! The ledger in PostgreSQL: the suite, several processes' worth of stores over one schema, and a
//! server that is killed in the middle.

use std::sync::Arc;
use std::time::Duration;

use ketch_listener::store::postgres::{PostgresStore, PostgresStoreSettings};
use ketch_listener::store::{Order, Store, StoreError};

use super::peers::postgres::Postgres;
use super::{contract, world};

async fn connect(server: &Postgres) -> PostgresStore {
    let settings = PostgresStoreSettings {
        connect: server.connect(),
        ..PostgresStoreSettings::default()
    };
    PostgresStore::connect(&settings).await.expect("a ledger")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_does_what_a_ledger_does() {
    let server = Postgres::start();
    // Both make the tables at the same time.
    let (store, other) = tokio::join!(connect(&server), connect(&server));
    assert_eq!(store.id(), other.id());
    contract::all(Arc::new(store)).await;
    world::random(&other, 0..8, 120).await;
    other.compact().await.expect("compacted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_is_found_again() {
    let mut server = Postgres::start();
    let store = connect(&server).await;
    let flow = contract::flow("f");
    let changes = [contract::present("a", 1)];
    let recorded = contract::record(0, &changes);
    store.record(&flow, recorded).await.expect("recorded");
    server.kill();
    let refused = store.record(&flow, recorded).await.expect_err("no server");
    assert!(matches!(refused, StoreError::Unavailable { .. }));
    assert!(refused.is_transient());
    server.restart();
    let again = store.record(&flow, recorded).await.expect("recorded");
    assert_eq!(again.items, 0);
    let claims = contract::claim(&store, &flow, Order::Any, Duration::ZERO).await;
    assert_eq!(claims.len(), 1);
}
