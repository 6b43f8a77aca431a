//! Stores in memory, in a directory, and an emulator of S3 that is killed and started again.

#[path = "../../../tests/peers/mod.rs"]
mod peers;

use self::peers::s3::Moto;
use super::*;
use crate::sink::fence::Fence;
use crate::sink::trial::{self, item, trial_content};

fn settings(exists: Exists) -> ObjectSettings {
    ObjectSettings {
        exists,
        ..ObjectSettings::new("bucket", "memory:")
    }
}

/// A sink that sends more than `whole_len` bytes in parts.
fn over(store: &Arc<dyn ObjectStore>, prefix: &str, exists: Exists, whole_len: u64) -> ObjectSink {
    let sink = ObjectSink::over(Arc::clone(store), prefix, settings(exists));
    ObjectSink {
        whole_len,
        ..sink.unwrap()
    }
}

fn above(whole_len: u64) -> usize {
    usize::try_from(whole_len).unwrap() + 100
}

const POLICIES: [Exists; 4] = [
    Exists::Error,
    Exists::Overwrite,
    Exists::Unique,
    Exists::Skip,
];

/// All keys with the length and first byte of their objects.
async fn seen(store: &dyn ObjectStore) -> Vec<(String, usize, u8)> {
    let mut keys = Vec::new();
    let mut list = store.list(None);
    while let Some(meta) = poll_fn(|cx| list.as_mut().poll_next(cx)).await {
        keys.push(meta.unwrap().location);
    }
    let mut found = Vec::new();
    for key in keys {
        let bytes = store.get(&key).await.unwrap().bytes().await.unwrap();
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "torn");
        found.push((key.to_string(), bytes.len(), bytes[0]));
    }
    found.sort();
    found
}

async fn policies(store: &Arc<dyn ObjectStore>, whole_len: u64, prefix: &str) {
    let spool = tempfile::tempdir().unwrap();
    for len in [10, above(whole_len)] {
        let old = trial_content(spool.path(), &[b'o'; 7]);
        let new = trial_content(spool.path(), &vec![b'n'; len]);
        for exists in POLICIES {
            let prefix = format!("{prefix}{exists:?}{len}");
            let sink = over(store, &prefix, exists, whole_len);
            sink.check().await.unwrap();
            trial::deliver(&sink, &item(1, b"x/a.csv"), Some(&old))
                .await
                .unwrap();
            let delivered = trial::deliver(&sink, &item(2, b"x/a.csv"), Some(&new)).await;
            let (old, new) = (("a.csv", 7, b'o'), (len, b'n'));
            let wanted = match exists {
                Exists::Unique => vec![("a-1.csv", new.0, new.1), old],
                Exists::Overwrite => vec![("a.csv", new.0, new.1)],
                _ => vec![old],
            };
            match exists {
                Exists::Error => assert!(matches!(delivered, Err(SinkError::Exists { .. }))),
                _ => assert!(delivered.is_ok(), "{exists:?}: {delivered:?}"),
            }
            let all = seen(store).await;
            let mine: Vec<_> = all
                .iter()
                .filter_map(|(key, len, byte)| {
                    let key = key.strip_prefix(&format!("{prefix}/x/"))?;
                    Some((key, *len, *byte))
                })
                .collect();
            assert_eq!(mine, wanted, "{exists:?}, {len} bytes");
        }
    }
}

/// Every step of a delivery is the last of a process once; returns how many there were.
async fn kills(
    store: &Arc<dyn ObjectStore>,
    lens: &[usize],
    whole_len: u64,
    prefix: &str,
) -> usize {
    let spool = tempfile::tempdir().unwrap();
    let mut points = 0;
    for &len in lens {
        let content = trial_content(spool.path(), &vec![b'k'; len]);
        for exists in POLICIES {
            for step in 0.. {
                let prefix = format!("{prefix}{exists:?}{len}-{step}");
                let make = || over(store, &prefix, exists, whole_len);
                let (first, second) = (make(), make());
                let item = item(1, b"x/a.csv");
                let placement = first.place(&item, None).await.unwrap();
                first.steps.kill_after(Some(step));
                let killed = trial::put(&first, &item, &placement, &content, false).await;
                // Twice: the ledger may not have heard of the first time.
                for _ in 0..2 {
                    let again = placement.clone();
                    trial::deliver_again(&second, &item, again, &content)
                        .await
                        .unwrap();
                }
                let all = seen(store).await;
                let mine: Vec<_> = all
                    .iter()
                    .filter(|(key, ..)| key.starts_with(&prefix))
                    .collect();
                let wanted = (format!("{prefix}/x/a.csv"), len, b'k');
                assert_eq!(mine, [&wanted], "{exists:?}, {len} bytes, step {step}");
                store.delete(&Key::parse(&wanted.0).unwrap()).await.unwrap();
                if killed.is_ok() {
                    break;
                }
                points += 1;
            }
        }
    }
    points
}

async fn race(store: &Arc<dyn ObjectStore>, len: usize, whole_len: u64, prefix: &str) {
    let spool = tempfile::tempdir().unwrap();
    let make = || over(store, prefix, Exists::Unique, whole_len);
    let sinks = [make(), make()];
    let contents: Vec<_> = (0..6)
        .map(|number: u8| trial_content(spool.path(), &vec![b'a' + number; len]))
        .collect();
    let deliveries = contents.iter().enumerate().map(|(number, content)| {
        let sink = &sinks[number % 2];
        let item = item(u64::try_from(number).unwrap(), b"a.csv");
        async move { trial::deliver(sink, &item, Some(content)).await.map(|_| ()) }
    });
    trial::all(deliveries).await.unwrap();
    let all = seen(store).await;
    let mut mine: Vec<u8> = all
        .iter()
        .filter(|(key, ..)| key.starts_with(prefix))
        .map(|(_, _, byte)| *byte)
        .collect();
    mine.sort_unstable();
    assert_eq!(mine, b"abcdef");
}

/// All choose the same name, and then come one after the other: the store refuses all but the first.
async fn refusals(store: &Arc<dyn ObjectStore>, len: usize, prefix: &str) {
    let spool = tempfile::tempdir().unwrap();
    let sink = over(store, prefix, Exists::Unique, WHOLE_LEN_MAX);
    let mut placed = Vec::new();
    for number in 0..3 {
        let item = item(u64::from(number), b"a.csv");
        let content = trial_content(spool.path(), &vec![b'a' + number; len]);
        let placement = sink.place(&item, None).await.unwrap();
        assert_eq!(placement.name, b"a.csv");
        placed.push((item, content, placement));
    }
    for (number, (item, content, placement)) in placed.iter().enumerate() {
        let put = trial::put(&sink, item, placement, content, false).await;
        match number {
            0 => put.unwrap(),
            _ => assert!(matches!(put, Err(SinkError::Taken { .. })), "{put:?}"),
        }
    }
    let all = seen(store.as_ref()).await;
    let mine: Vec<_> = all
        .iter()
        .filter(|(key, ..)| key.starts_with(prefix))
        .collect();
    assert_eq!(mine, [&(format!("{prefix}/a.csv"), len, b'a')]);
}

#[tokio::test]
async fn a_store_in_memory_or_a_directory_does_as_the_policy_says() {
    const WHOLE: u64 = 64;
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let dir = tempfile::tempdir().unwrap();
    let (local, _) = open(&format!("file://{}", dir.path().display()), &[]).unwrap();
    for store in [memory, local] {
        policies(&store, WHOLE, "p").await;
        let points = kills(&store, &[10, above(WHOLE)], WHOLE, "k").await;
        assert!(points > 16, "{points} kill points");
        race(&store, 10, WHOLE, "small").await;
        race(&store, above(WHOLE), WHOLE, "large").await;
    }
}

#[tokio::test]
async fn another_object_under_the_chosen_key_is_not_taken_for_ours() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"ours");
    let placement = Placement {
        name: b"a".to_vec(),
        length: None,
        note: Vec::new(),
    };
    let sink = ObjectSink::over(Arc::clone(&store), "", settings(Exists::Unique)).unwrap();
    let again = async |number| {
        let put = trial::put(&sink, &item(number, b"a"), &placement, &content, true).await;
        put.is_ok()
    };
    for (text, is_ours) in [("ours", true), ("else", false)] {
        store.put(&Key::from("a"), text.into()).await.unwrap();
        assert_eq!(again(1).await, is_ours, "{text}");
    }
    // The same bytes, and another item's.
    store.delete(&Key::from("a")).await.unwrap();
    assert!(again(1).await && again(1).await && !again(2).await);
}

#[tokio::test]
async fn evil_names_stay_below_the_prefix() {
    let jail = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(jail.path().join("in")).unwrap();
    let url = format!("file://{}", jail.path().join("in").display());
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"e");
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (local, _) = open(&url, &[]).unwrap();
    for store in [memory, local] {
        let sink = ObjectSink::over(Arc::clone(&store), "in/side", settings(Exists::Unique));
        let sink = sink.unwrap();
        let mut refused = 0;
        for name in trial::evil_names() {
            let delivered = trial::deliver(&sink, &item(1, &name), Some(&content)).await;
            refused += usize::from(delivered.is_err());
            let placement = Placement {
                name,
                length: None,
                note: Vec::new(),
            };
            let _ = trial::put(&sink, &item(2, b"a"), &placement, &content, true).await;
        }
        assert!(refused > 100, "{refused} refused");
        let mut list = store.list(None);
        while let Some(meta) = poll_fn(|cx| list.as_mut().poll_next(cx)).await {
            let key = meta.unwrap().location.to_string();
            assert!(key.starts_with("in/side/"), "{key}");
        }
    }
    let beside: Vec<_> = std::fs::read_dir(jail.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "nothing beside");
}

#[test]
fn secrets_are_not_shown() {
    let mut settings = settings(Exists::Error);
    settings
        .options
        .push(("secret_access_key".to_owned(), "hunter2".to_owned()));
    let shown = format!(
        "{settings:?} {:?}",
        ObjectSink::new(settings.clone()).unwrap()
    );
    assert!(
        shown.contains("secret_access_key") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn what_is_no_store_is_said() {
    let new = |url: &str, exists, options: &[(&str, &str)]| {
        let options = options
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        ObjectSink::new(ObjectSettings {
            url: url.to_owned(),
            options: options.collect(),
            ..settings(exists)
        })
        .err()
    };
    assert!(matches!(
        new("memory:", Exists::Append, &[]),
        Some(ObjectError::Append)
    ));
    for url in [
        "",
        "x",
        "ftp://a/b",
        "s3:///a",
        "file://host/x",
        "https://x/y",
    ] {
        assert!(
            matches!(new(url, Exists::Error, &[]), Some(ObjectError::Url(_))),
            "{url}"
        );
    }
    let unknown = new("s3://a/b", Exists::Error, &[("colour", "red")]);
    assert!(matches!(unknown, Some(ObjectError::Store(_))));
    assert!(new("s3://a/b", Exists::Error, &[("region", "eu-north-1")]).is_none());
    assert!(
        new(
            "az://a/b",
            Exists::Error,
            &[("azure_storage_account_name", "ann")]
        )
        .is_none()
    );
}

fn in_bucket(moto: &Moto, url: &str) -> (Arc<dyn ObjectStore>, String) {
    open(url, &moto.options()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emulator_of_s3_does_as_the_policy_says_and_may_be_killed() {
    let moto = Moto::start();
    let port = moto.port();
    let (store, prefix) = in_bucket(&moto, "s3://bucket/some/prefix");
    assert_eq!(prefix, "some/prefix");
    policies(&store, WHOLE_LEN_MAX, "p").await;
    let points = kills(&store, &[10], WHOLE_LEN_MAX, "k").await;
    assert!(points >= 4, "{points} kill points");
    // It looks and writes in two steps, so what comes at the same time proves nothing here.
    refusals(&store, 10, "small").await;
    refusals(&store, above(WHOLE_LEN_MAX), "large").await;

    // What an object says of itself.
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"bytes");
    let sink = ObjectSink::over(Arc::clone(&store), &prefix, settings(Exists::Error)).unwrap();
    let name = "ä %2F#?&+ .csv";
    trial::deliver(&sink, &item(77, name.as_bytes()), Some(&content))
        .await
        .unwrap();
    let key = Key::parse(format!("some/prefix/{name}")).unwrap();
    let found = store.get(&key).await.unwrap();
    let attribute = |key: &'static str| found.attributes.get(&Attribute::Metadata(key.into()));
    assert_eq!(attribute(SEQUENCE).unwrap().as_ref(), "77");
    assert_eq!(attribute(SHA256).unwrap().as_ref(), hex(&content.sha256));

    // Killed, and there again with nothing in it.
    let item = item(78, b"b.csv");
    let placement = sink.place(&item, None).await.unwrap();
    drop(moto);
    let error = trial::put(&sink, &item, &placement, &content, false)
        .await
        .unwrap_err();
    assert!(error.kind().is_transient(), "{error:?}");
    assert!(sink.check().await.is_err());
    let moto = Moto::start_at(port);
    trial::deliver_again(&sink, &item, placement, &content)
        .await
        .unwrap();
    let key = Key::parse("some/prefix/b.csv").unwrap();
    assert_eq!(store.head(&key).await.unwrap().size, 5);
    let (nowhere, _) = in_bucket(&moto, "s3://other");
    let sink = ObjectSink::over(nowhere, "", settings(Exists::Error)).unwrap();
    let error = sink.check().await.unwrap_err();
    assert!(format!("{error:?}").contains("NoSuchBucket"), "{error:?}");
}

/// Nothing becomes visible behind a closed fence, whole or in parts, and the next attempt delivers.
#[tokio::test]
async fn nothing_becomes_visible_behind_a_closed_fence() {
    const WHOLE: u64 = 64;
    let spool = tempfile::tempdir().unwrap();
    for exists in [
        Exists::Error,
        Exists::Overwrite,
        Exists::Unique,
        Exists::Skip,
    ] {
        for len in [10, above(WHOLE)] {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let sink = over(&store, "p", exists, WHOLE);
            let (item, content) = (item(1, b"a"), trial_content(spool.path(), &vec![b'a'; len]));
            let placement = sink.place(&item, None).await.unwrap();
            let fence = Fence::open();
            assert!(fence.close());
            let put = trial::put_fenced(&sink, &item, &placement, &content, false, &fence).await;
            assert!(
                matches!(put, Err(SinkError::Fenced(_))),
                "{exists:?}: {put:?}"
            );
            assert!(
                store.head(&Key::from("p/a")).await.is_err(),
                "{exists:?}, {len}"
            );
            trial::deliver_again(&sink, &item, placement, &content)
                .await
                .unwrap();
            assert_eq!(seen(store.as_ref()).await, [("p/a".to_owned(), len, b'a')]);
        }
    }
}
