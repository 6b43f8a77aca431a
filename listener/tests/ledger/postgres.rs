//! The ledger in PostgreSQL: the suite, several processes' worth of stores over one schema, and a
//! server that is killed in the middle; rows that are damaged, and TLS.

use std::sync::Arc;
use std::time::Duration;

use ketch_listener::flow::item::Change;
use ketch_listener::sink::Sink as _;
use ketch_listener::sink::postgres::{Postgres as Sink, PostgresSettings};
use ketch_listener::store::postgres::{PostgresStore, PostgresStoreSettings};
use ketch_listener::store::{End, Order, Row, State, Store, StoreError};
use tokio_postgres::NoTls;

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

#[expect(clippy::disallowed_methods, reason = "a test drives")]
async fn client(server: &Postgres) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(&server.connect(), NoTls).await;
    let (client, connection) = connected.expect("a connection");
    tokio::spawn(connection);
    client
}

/// Flips a bit in the row of `path`.
async fn damage(client: &tokio_postgres::Client, path: &str) {
    let sql = "UPDATE ketch.entries SET body = set_byte(body, 6, get_byte(body, 6) # 4) \
         WHERE path = $1";
    let changed = client.execute(sql, &[&path.as_bytes()]).await;
    assert_eq!(changed.expect("flipped"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_is_set_aside_and_holds_nobody_up() {
    let server = Postgres::start();
    let store = connect(&server).await;
    let client = client(&server).await;
    for order in [Order::Any, Order::Name, Order::TimeDown] {
        let flow = contract::flow(&format!("{order:?}").to_lowercase());
        let changes: Vec<Change> = ["a", "b", "c", "e/d"]
            .into_iter()
            .map(|name| contract::present(name, 1))
            .collect();
        let recorded = contract::record(0, &changes);
        store.record(&flow, recorded).await.expect("recorded");
        damage(&client, "b").await;
        // In order the damaged one is the head of its directory once.
        let mut claimed = Vec::new();
        for _ in 0..4 {
            for claim in contract::claim(&store, &flow, order, contract::LONG).await {
                claimed.push(claim.id.path.to_string());
                store.finish(&claim.id, End::Done).await.expect("the claim");
            }
        }
        claimed.sort();
        assert_eq!(claimed, ["a", "c", "e/d"]);
        // It is told once, and is among the dead.
        let aside = store.set_aside(&flow);
        assert_eq!(aside.len(), 1);
        assert_eq!(aside[0].item.path.to_string(), "b");
        assert!(store.set_aside(&flow).is_empty());
        let counts = store.counts(&flow).await.expect("counts");
        assert_eq!((counts.dead, counts.done, counts.pending), (1, 3, 0));
        let dead = store.rows(&flow, Some(State::Dead), None, 10).await;
        assert_eq!(dead.expect("rows"), aside);
        // Damage where nothing was to be done is found when it is seen again. No version comes again
        // by itself; another version is as good as any.
        damage(&client, "a").await;
        let again = store.record(&flow, recorded).await.expect("recorded");
        assert_eq!(again.items, 0);
        // That is told as well, and what was told before is not.
        assert_eq!(names(&store.set_aside(&flow)), ["a"]);
        let again = store.record(&flow, recorded).await.expect("recorded");
        assert_eq!(again.items, 0);
        let dead = store.rows(&flow, Some(State::Dead), None, 10).await;
        let dead = dead.expect("rows");
        assert_eq!(dead.len(), 2);
        assert!(dead.iter().all(|row| row.reason.is_some()));
        let newer = [contract::present("a", 2)];
        let newer = store.record(&flow, contract::record(0, &newer)).await;
        assert_eq!(newer.expect("recorded").items, 1);
        // Who asks for it gets what is there.
        damage(&client, "b").await;
        let path = "b".into();
        let replayed = store.replay(&flow, Some(&path)).await;
        assert_eq!(replayed.expect("replayed"), 1);
        let start = store.begin_scan(&flow, 0).await.expect("a scan");
        assert_eq!(start.forget, [path]);
        let changes = [contract::present("b", 1)];
        let news = contract::record(start.scan, &changes);
        let news = store.record(&flow, news).await.expect("recorded");
        assert_eq!(news.items, 1);
        client
            .execute("DELETE FROM ketch.entries", &[])
            .await
            .expect("deleted");
    }
}

fn names(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.item.path.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_that_a_scan_meets_is_told_once_where_it_stands() {
    let server = Postgres::start();
    let store = connect(&server).await;
    let client = client(&server).await;
    let flow = contract::flow("f");
    let changes = ["kept", "moved", "gone", "whole"].map(|name| contract::present(name, 1));
    let recorded = contract::record(0, &changes);
    store.record(&flow, recorded).await.expect("recorded");
    for name in ["kept", "moved", "gone"] {
        damage(&client, name).await;
    }
    let scanned = [
        contract::present("kept", 1),
        contract::present("whole", 1),
        Change::Renamed {
            from: "moved".into(),
            to: "there".into(),
            facts: contract::facts(1),
        },
        contract::removed("gone"),
    ];
    for told in [&["gone", "kept", "there"][..], &[]] {
        let again = store.record(&flow, contract::record(0, &scanned)).await;
        assert_eq!(again.expect("recorded").items, 0);
        let mut aside = names(&store.set_aside(&flow));
        aside.sort();
        assert_eq!(aside, told);
    }
    let dead = store.rows(&flow, Some(State::Dead), None, 10).await;
    assert_eq!(names(&dead.expect("rows")), ["kept", "there"]);
    let claims = contract::claim(&store, &flow, Order::Any, contract::LONG).await;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].id.path.to_string(), "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tcp_it_is_encrypted_and_its_certificate_is_checked() {
    let mut server = Postgres::start();
    let (port, ca) = server.encrypt();
    let to = |host: &str, more: &str| PostgresStoreSettings {
        connect: format!("host={host} port={port} user=ketch dbname=postgres {more}"),
        timeout: Duration::from_secs(60),
        ..PostgresStoreSettings::default()
    };
    let roots = format!("sslmode=verify-full sslrootcert='{}'", ca.display());
    let good = to("localhost", &roots);
    let store = PostgresStore::connect(&good).await.expect("a ledger");
    let flow = contract::flow("f");
    let changes = [contract::present("a", 1)];
    let recorded = contract::record(0, &changes);
    store.record(&flow, recorded).await.expect("recorded");
    for (host, more, why) in [
        // The certificate does not name it.
        ("127.0.0.1", roots.as_str(), "name"),
        // It leads to no root of the system's.
        ("localhost", "sslmode=require", "UnknownIssuer"),
        // The server wants TLS.
        ("localhost", "sslmode=disable", "pg_hba"),
    ] {
        let refused = PostgresStore::connect(&to(host, more)).await;
        let error = refused.expect_err(why);
        assert!(error.is_transient(), "{why}: {error}");
        let text = format!("{error:?}");
        let no_roots = text.contains("NoRoots");
        assert!(
            text.to_lowercase().contains(&why.to_lowercase()) || no_roots,
            "{text}"
        );
    }
    // The sink of events goes the same way.
    let mut settings = PostgresSettings::new("table", &good.connect, "events");
    settings.create = true;
    let sink = Sink::new(settings, "/ketch/f".to_owned()).expect("a sink");
    sink.check().await.expect("all is well");
}
