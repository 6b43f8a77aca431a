use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use ketch_client::Kind;
use ketch_listener::sink::Sink as _;
use ketch_listener::sink::nats::{Nats, NatsLogin, NatsSettings, SubjectTemplate};

use super::{deliver, item, peers};

const STREAM: &str = "FILES";
/// For what must come, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

async fn stream_of(peer: &peers::nats::Nats) -> stream::Stream {
    stream_by(peer, async_nats::ConnectOptions::new()).await
}

async fn stream_by(
    peer: &peers::nats::Nats,
    options: async_nats::ConnectOptions,
) -> stream::Stream {
    let client = options.connect(peer.url()).await.expect("a connection");
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["ketch.>".to_owned()],
        duplicate_window: Duration::from_secs(120),
        ..Default::default()
    };
    let context = jetstream::new(client);
    context
        .get_or_create_stream(config)
        .await
        .expect("a stream")
}

fn sink(peer: &peers::nats::Nats, timeout: Duration) -> Nats {
    let mut settings = NatsSettings::new("nats", &peer.url(), STREAM);
    settings.timeout = timeout;
    Nats::new(settings, "/ketch/orders".to_owned()).expect("a sink")
}

#[tokio::test]
async fn an_event_is_stored_once_under_its_id() {
    let peer = peers::nats::Nats::start();
    let stream = stream_of(&peer).await;
    let sink = sink(&peer, PATIENCE);
    sink.check().await.expect("the stream is there");
    for _ in 0..3 {
        deliver(&sink, &item(7, b"in/a.csv")).await.expect("stored");
    }
    assert_eq!(
        stream.get_info().await.expect("an answer").state.messages,
        1
    );
    let message = stream.get_raw_message(1).await.expect("the message");
    assert_eq!(message.subject.as_str(), "ketch.orders.created");
    let header = |name| {
        message
            .headers
            .get(name)
            .map(|value| value.as_str().to_owned())
    };
    assert_eq!(
        header("Nats-Msg-Id").as_deref(),
        Some("orders-0000000000000007")
    );
    assert_eq!(
        header("Content-Type").as_deref(),
        Some("application/cloudevents+json")
    );
    let event: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
    assert_eq!(event["data"]["path"], "in/a.csv");
}

#[tokio::test]
async fn whoever_is_not_let_in_is_told_so() {
    let peer = peers::nats::Nats::with("authorization { user: ann, password: good }");
    let options = async_nats::ConnectOptions::with_user_and_password("ann".into(), "good".into());
    let stream = stream_by(&peer, options).await;
    let mut settings = NatsSettings::new("nats", &peer.url(), STREAM);
    settings.timeout = Duration::from_secs(10);
    for (password, is_right) in [("bad", false), ("good", true)] {
        settings.login = NatsLogin::Password {
            user: "ann".to_owned(),
            password: password.to_owned(),
        };
        assert!(!format!("{settings:?}").contains(password));
        let sink = Nats::new(settings.clone(), "/ketch/orders".to_owned()).expect("a sink");
        let checked = sink.check().await.map_err(|error| error.kind());
        assert_eq!(checked, is_right.then_some(()).ok_or(Kind::Auth));
        if is_right {
            deliver(&sink, &item(7, b"in/a.csv")).await.expect("stored");
        }
    }
    let stored = stream.get_info().await.expect("an answer").state.messages;
    assert_eq!(stored, 1);
}

#[tokio::test]
async fn a_stream_that_is_not_there_or_not_the_one_is_an_error() {
    let peer = peers::nats::Nats::start();
    let absent = sink(&peer, PATIENCE);
    assert_eq!(
        absent.check().await.expect_err("there is none").kind(),
        Kind::NotFound
    );
    let error = deliver(&absent, &item(1, b"a"))
        .await
        .expect_err("there is none");
    assert!(
        error.kind().is_transient(),
        "somebody may make it: {error:?}"
    );

    stream_of(&peer).await;
    let mut settings = NatsSettings::new("nats", &peer.url(), "OTHER");
    settings.subject = SubjectTemplate::new("ketch.{flow}").expect("a subject");
    let other = Nats::new(settings, "/x".to_owned()).expect("a sink");
    let error = deliver(&other, &item(1, b"a"))
        .await
        .expect_err("another stream has it");
    assert!(!error.kind().is_transient(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a test drives")]
async fn nothing_is_lost_while_the_server_is_killed_again_and_again() {
    const KILLS: u32 = 4;
    let mut peer = peers::nats::Nats::start();
    drop(stream_of(&peer).await);
    let sink = sink(&peer, Duration::from_secs(2));
    let (enough, stored) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let work = tokio::spawn({
        let (enough, stored) = (Arc::clone(&enough), Arc::clone(&stored));
        async move {
            let (mut events, mut failures) = (0_u64, 0_u64);
            while !enough.load(Relaxed) {
                // As the engine does: again until it is stored, with the same id.
                while let Err(error) = deliver(&sink, &item(events, b"a")).await {
                    assert!(error.kind().is_transient(), "{error:?}");
                    failures += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                events += 1;
                stored.store(events, Relaxed);
            }
            (events, failures)
        }
    });
    // Something was stored before each kill, and after the last.
    let some_more = async || {
        let before = stored.load(Relaxed);
        while stored.load(Relaxed) < before + 3 && !work.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    for _ in 0..KILLS {
        some_more().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::task::block_in_place(|| {
            peer.kill();
            peer.restart();
        });
    }
    some_more().await;
    enough.store(true, Relaxed);
    let (events, failures) = work.await.expect("it goes on");
    let mut stream = stream_of(&peer).await;
    let stored = stream.info().await.expect("an answer").state.messages;
    println!("{events} events, {KILLS} kills, {failures} attempts failed, {stored} stored");
    let mut seen = std::collections::BTreeSet::new();
    for sequence in 1..=stored {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        let event: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
        let number = event["data"]["sequence"].as_u64().expect("a number");
        assert!(seen.insert(number), "event {number} is there twice");
    }
    assert!(seen.into_iter().eq(0..events));
}
