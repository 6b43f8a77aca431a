use std::time::Duration;

use ketch_client::Kind;
use ketch_listener::sink::Sink as _;
use ketch_listener::sink::postgres::{Postgres, PostgresSettings};
use tokio_postgres::NoTls;

use super::{deliver, item, peers};

#[expect(clippy::disallowed_methods, reason = "a test drives")]
async fn client(peer: &peers::postgres::Postgres) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(&peer.connect(), NoTls).await;
    let (client, connection) = connected.expect("a connection");
    tokio::spawn(connection);
    client
}

fn settings(peer: &peers::postgres::Postgres) -> PostgresSettings {
    let mut settings = PostgresSettings::new("table", &peer.connect(), "public.events");
    settings.timeout = Duration::from_secs(60);
    settings
}

fn sink(settings: PostgresSettings) -> Postgres {
    Postgres::new(settings, "/ketch/orders".to_owned()).expect("a sink")
}

#[tokio::test]
async fn an_event_is_one_row_however_often_it_comes_and_whatever_happens_to_the_server() {
    let mut peer = peers::postgres::Postgres::start();
    // Without the table.
    let plain = sink(settings(&peer));
    assert_eq!(
        plain.check().await.expect_err("there is no table").kind(),
        Kind::NotFound
    );
    let error = deliver(&plain, &item(1, b"a"))
        .await
        .expect_err("there is no table");
    assert_eq!(error.kind(), Kind::NotFound);

    // Created by the first event.
    let mut wanted = settings(&peer);
    wanted.create = true;
    wanted.notify = Some("it's new".to_owned());
    let sink = sink(wanted);
    for _ in 0..3 {
        deliver(&sink, &item(7, b"in/\xff\0.csv"))
            .await
            .expect("inserted");
    }
    sink.check().await.expect("all is well");
    plain.check().await.expect("the table is there now");
    let database = client(&peer).await;
    let rows = database
        .query(
            "SELECT *, extract(epoch from modified)::bigint AS mtime FROM events",
            &[],
        )
        .await
        .expect("rows");
    let [row] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!(row.get::<_, &str>("id"), "orders-0000000000000007");
    assert_eq!(row.get::<_, &str>("type"), "ketch.file.created");
    assert_eq!(row.get::<_, &str>("path"), "in/\u{fffd}\u{fffd}.csv");
    assert_eq!(row.get::<_, &[u8]>("path_bytes"), b"in/\xff\0.csv");
    assert_eq!(row.get::<_, i64>("size"), 12);
    assert_eq!(row.get::<_, i64>("sequence"), 7);
    assert_eq!(row.get::<_, i64>("mtime"), 1_795_282_542);
    assert_eq!(row.get::<_, &[u8]>("sha256"), [0xab; 32]);
    let hex = "SELECT event->'data'->>'path_hex' FROM events";
    let hex = database.query_one(hex, &[]).await.expect("a row");
    assert_eq!(hex.get::<_, &str>(0), "696e2fff002e637376");

    // Killed in the middle of events, and started again.
    peer.kill();
    let away = deliver(&sink, &item(8, b"b"))
        .await
        .expect_err("it is away");
    assert!(away.kind().is_transient(), "{away:?}");
    peer.restart();
    for sequence in 7..=40 {
        while let Err(error) = deliver(&sink, &item(sequence, b"b")).await {
            assert!(error.kind().is_transient(), "{error:?}");
        }
    }
    let count = "SELECT count(*), count(DISTINCT sequence) FROM events";
    let row = client(&peer)
        .await
        .query_one(count, &[])
        .await
        .expect("a row");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (34, 34));
}

#[tokio::test]
async fn a_row_that_is_locked_costs_no_more_than_the_time_out() {
    let peer = peers::postgres::Postgres::start();
    let mut settings = settings(&peer);
    settings.create = true;
    let patient = sink(settings.clone());
    patient.check().await.expect("all is well");
    settings.timeout = Duration::from_millis(500);
    let sink = sink(settings);
    let database = client(&peer).await;
    database
        .batch_execute("BEGIN; LOCK TABLE events")
        .await
        .expect("locked");
    let late = deliver(&sink, &item(1, b"a"))
        .await
        .expect_err("it is locked");
    assert_eq!(late.kind(), Kind::Timeout);
    database.batch_execute("COMMIT").await.expect("free");
    // On a busy machine even that may take longer.
    for _ in 0..100 {
        match deliver(&sink, &item(1, b"a")).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), Kind::Timeout, "{error:?}"),
        }
    }
    panic!("it is not inserted");
}
