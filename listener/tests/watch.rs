//! A watch on a real server, over a stream in memory.
#![cfg(unix)]

use std::path::Path;
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::{Connect, Failure, Kind, RemotePath, Session};
use ketch_listener::{EventKind, Events, FirstListing, Watch, WatchError};
use ketch_server::{Server, User, generate_host_key};
use tokio::task::JoinHandle;

/// Longest wait for what must come: no test is decided by it unless something is broken.
const PATIENCE: Duration = Duration::from_secs(120);

async fn connect(root: &Path) -> (Session, JoinHandle<()>) {
    let server = Server::builder()
        .host_key(generate_host_key().unwrap())
        .user(User::new("ann", root).password("correct horse"))
        .build()
        .unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let host_keys = HostKeys::only([server.host_key()]);
    #[expect(clippy::disallowed_methods, reason = "the server's end")]
    let task = tokio::spawn(async move {
        let _ = server.serve_stream(far, "the test").await;
    });
    let session = Connect::to("test")
        .user("ann")
        .password("correct horse".to_owned())
        .host_keys(host_keys)
        .connect_over(near)
        .await
        .unwrap();
    (session, task)
}

async fn watch(session: &Session, path: &str) -> Watch {
    let sftp = session.sftp().await.unwrap();
    Watch::directory(sftp, RemotePath::from(path)).interval(Duration::from_millis(20))
}

async fn next(events: &mut Events) -> Option<Result<(EventKind, String), WatchError>> {
    let event = tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("something is told");
    event.map(|event| event.map(|event| (event.kind, event.path.to_string())))
}

async fn change(events: &mut Events) -> (EventKind, String) {
    next(events)
        .await
        .expect("the watch goes on")
        .expect("no error")
}

#[tokio::test]
async fn what_changes_is_told_and_what_was_there_is_not() {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        // Renamed into place: no listing sees it half written.
        let draft = root.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, root.path().join("in").join(name)).unwrap();
    };
    std::fs::create_dir(root.path().join("in")).unwrap();
    put("old.csv", "old");
    let (session, _server) = connect(root.path()).await;
    let mut events = watch(&session, "/in").await.start();
    assert!(events.listings(1).await);

    put("new.csv", "1");
    assert_eq!(
        change(&mut events).await,
        (EventKind::Created, "/in/new.csv".into())
    );
    put("old.csv", "longer");
    assert_eq!(
        change(&mut events).await,
        (EventKind::Modified, "/in/old.csv".into())
    );
    std::fs::remove_file(root.path().join("in/new.csv")).unwrap();
    assert_eq!(
        change(&mut events).await,
        (EventKind::Removed, "/in/new.csv".into())
    );
}

#[tokio::test]
async fn a_directory_larger_than_the_queue_is_told_whole() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..1_000 {
        std::fs::write(root.path().join(number.to_string()), "").unwrap();
    }
    let (session, _server) = connect(root.path()).await;
    let mut events = watch(&session, "/")
        .await
        .first_listing(FirstListing::News)
        .start();
    let mut names = std::collections::BTreeSet::new();
    while names.len() < 1_000 {
        let (kind, path) = change(&mut events).await;
        assert_eq!(kind, EventKind::Created);
        assert!(names.insert(path));
    }
}

#[tokio::test]
async fn a_directory_that_goes_away_and_comes_back_removes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (directory, aside) = (root.path().join("in"), root.path().join("aside"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("a"), "a").unwrap();
    let (session, _server) = connect(root.path()).await;
    let mut events = watch(&session, "/in").await.start();
    assert!(events.listings(1).await);

    std::fs::rename(&directory, &aside).unwrap();
    for _ in 0..2 {
        let error = next(&mut events).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(!error.is_final());
    }
    std::fs::write(aside.join("b"), "b").unwrap();
    std::fs::rename(&aside, &directory).unwrap();
    loop {
        match next(&mut events).await.unwrap() {
            Ok(event) => break assert_eq!(event, (EventKind::Created, "/in/b".into())),
            Err(error) => assert_eq!(error.kind(), Kind::NotFound),
        }
    }
}

#[tokio::test]
async fn too_many_names_are_an_error_and_not_a_guess() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..4 {
        std::fs::write(root.path().join(number.to_string()), "").unwrap();
    }
    let (session, _server) = connect(root.path()).await;
    let mut events = watch(&session, "/").await.entries_max(3).start();
    let error = next(&mut events).await.unwrap().unwrap_err();
    assert!(matches!(error, WatchError::TooLarge { .. }));
}

#[tokio::test]
async fn a_lost_connection_ends_the_watch() {
    let root = tempfile::tempdir().unwrap();
    let (session, server) = connect(root.path()).await;
    let mut events = watch(&session, "/").await.start();
    assert!(events.listings(1).await);
    server.abort();
    let error = next(&mut events).await.unwrap().unwrap_err();
    assert!(error.is_final(), "{error:?}");
    assert!(next(&mut events).await.is_none());
    assert!(!events.listings(u64::MAX).await);
}
