//! A watch of a whole tree: directories below, filters, pushes, renames, and complete files.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, Filter, RemotePath, Session};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_listener::settle::{Marker, Rule, SettleConfig};
use ketch_listener::{EventKind, Events, FirstListing, Push, Watch};
use ketch_server::{Server, User, generate_host_key};
use tokio::task::JoinHandle;

/// Longest wait for what must come: no test is decided by it unless something is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// An interval that no test lives to see: what is told came by a push.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(20);

async fn ours(root: &Path) -> (Session, JoinHandle<()>) {
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

async fn next(events: &mut Events) -> (EventKind, String) {
    let event = tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("something is told")
        .expect("the watch goes on")
        .expect("no error");
    (event.kind, event.path.to_string())
}

/// Takes events until all of `wanted` have come, in any order and with others between them.
async fn until(events: &mut Events, wanted: &[(EventKind, &str)]) {
    let mut missing: BTreeSet<(String, String)> = wanted
        .iter()
        .map(|(kind, path)| (kind.word().to_owned(), (*path).to_owned()))
        .collect();
    while !missing.is_empty() {
        let (kind, path) = next(events).await;
        missing.remove(&(kind.word().to_owned(), path));
    }
}

async fn all_of_a_tree(session: &Session, base: &str, dir: &Path, push: Push, interval: Duration) {
    let at = |name: &str| format!("{base}/{name}");
    std::fs::create_dir_all(dir.join("old/deep")).unwrap();
    std::fs::write(dir.join("old/deep/known"), "1").unwrap();
    let sftp = session.sftp().await.unwrap();
    let filter = Filter::new()
        .exclude("*.tmp")
        .unwrap()
        .exclude("hidden/")
        .unwrap();
    let mut events = Watch::directory(sftp, RemotePath::from(base))
        .interval(interval)
        .recursive(true)
        .filter(filter)
        .first_listing(FirstListing::News)
        .push(push)
        .start();
    until(&mut events, &[(EventKind::Created, &at("old/deep/known"))]).await;
    let has_pushes = events.pushed().await;
    assert_eq!(has_pushes, interval == NEVER);
    std::fs::create_dir_all(dir.join("hidden")).unwrap();
    std::fs::write(dir.join("hidden/x"), "1").unwrap();
    std::fs::write(dir.join("old/x.tmp"), "1").unwrap();
    std::fs::create_dir_all(dir.join("new/deep/er")).unwrap();
    std::fs::write(dir.join("new/deep/er/a"), "1").unwrap();
    std::fs::write(dir.join("old/deep/known"), "22").unwrap();
    until(
        &mut events,
        &[
            (EventKind::Created, &at("new")),
            (EventKind::Created, &at("new/deep/er")),
            (EventKind::Created, &at("new/deep/er/a")),
            (EventKind::Modified, &at("old/deep/known")),
        ],
    )
    .await;
    std::fs::remove_dir_all(dir.join("new")).unwrap();
    std::fs::write(dir.join("last"), "1").unwrap();
    let mut seen = Vec::new();
    let wanted = [
        at("new/deep/er/a"),
        at("new/deep/er"),
        at("new/deep"),
        at("new"),
    ];
    while !wanted
        .iter()
        .all(|path| seen.contains(&(EventKind::Removed, path.clone())))
    {
        let event = next(&mut events).await;
        assert!(
            !event.1.ends_with(".tmp") && !event.1.contains("hidden"),
            "{event:?}"
        );
        seen.push(event);
    }
    // No name is told as gone twice.
    let removed: Vec<_> = seen
        .iter()
        .filter(|(kind, _)| *kind == EventKind::Removed)
        .collect();
    assert_eq!(removed.len(), wanted.len(), "{removed:?}");
}

#[tokio::test]
async fn a_tree_is_watched_by_listings() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("in")).unwrap();
    let (session, _server) = ours(root.path()).await;
    all_of_a_tree(&session, "/in", &root.path().join("in"), Push::Never, SOON).await;
}

#[tokio::test]
async fn a_tree_is_watched_by_pushes_alone() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("in")).unwrap();
    let (session, _server) = ours(root.path()).await;
    all_of_a_tree(&session, "/in", &root.path().join("in"), Push::Auto, NEVER).await;
}

#[tokio::test]
async fn a_tree_on_sshd_is_watched_whatever_is_asked_of_pushes() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let session = Connect::to("127.0.0.1")
        .port(server.port())
        .user(server.user())
        .identity(Identity::from_file(server.identity().private()).unwrap())
        .host_keys(HostKeys::files([server.known_hosts()]))
        .connect()
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().to_str().unwrap();
    all_of_a_tree(&session, base, dir.path(), Push::Auto, SOON).await;
}

#[tokio::test]
async fn renames_are_told_as_such_where_it_is_asked_for() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("in/sub")).unwrap();
    std::fs::write(root.path().join("in/a"), "content").unwrap();
    let (session, _server) = ours(root.path()).await;
    let sftp = session.sftp().await.unwrap();
    let mut events = Watch::directory(sftp, RemotePath::from("/in"))
        .interval(NEVER)
        .recursive(true)
        .renames(true)
        .push(Push::Auto)
        .start();
    assert!(events.pushed().await && events.listings(2).await);
    std::fs::rename(root.path().join("in/a"), root.path().join("in/sub/b")).unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(
        (event.kind, event.path),
        (EventKind::Renamed, "/in/sub/b".into())
    );
    assert_eq!(event.from, Some("/in/a".into()));
    assert_eq!(event.attrs.and_then(|attrs| attrs.size), Some(7));
    // What it is called now is known.
    std::fs::remove_file(root.path().join("in/sub/b")).unwrap();
    assert_eq!(
        next(&mut events).await,
        (EventKind::Removed, "/in/sub/b".into())
    );
}

#[tokio::test]
async fn a_complete_file_is_told_once_by_polls_and_by_pushes() {
    for (push, interval, rule) in [
        (Push::Never, SOON, Rule::Stable),
        (Push::Auto, NEVER, Rule::Stable),
        (Push::Auto, NEVER, Rule::OnClose),
    ] {
        let root = tempfile::tempdir().unwrap();
        let (session, _server) = ours(root.path()).await;
        let sftp = session.sftp().await.unwrap();
        let settle = SettleConfig {
            rule,
            // By pushes alone the file is closed long before it could be stable.
            period: if rule == Rule::OnClose {
                NEVER
            } else {
                5 * SOON
            },
            ..SettleConfig::default()
        };
        let mut events = Watch::directory(sftp, RemotePath::from("/"))
            .interval(interval)
            .push(push)
            .settle(settle)
            .start();
        assert!(events.listings(1).await);
        assert_eq!(events.pushed().await, push == Push::Auto);
        std::fs::write(root.path().join("a"), "content").unwrap();
        assert_eq!(next(&mut events).await, (EventKind::Created, "/a".into()));
        let settled = loop {
            let event = tokio::time::timeout(PATIENCE, events.next()).await;
            let event = event.expect("it settles").unwrap().unwrap();
            if event.kind == EventKind::Settled {
                break event;
            }
            assert_eq!(event.kind, EventKind::Modified);
        };
        assert_eq!(settled.path, "/a".into());
        assert_eq!(settled.attrs.and_then(|attrs| attrs.size), Some(7));
    }
}

#[tokio::test]
async fn a_done_file_tells_that_its_file_is_complete() {
    let root = tempfile::tempdir().unwrap();
    let (session, _server) = ours(root.path()).await;
    let sftp = session.sftp().await.unwrap();
    let settle = SettleConfig {
        rule: Rule::Immediately,
        done_file: Some(Marker::new("{name}.done").unwrap()),
        ..SettleConfig::default()
    };
    let mut events = Watch::directory(sftp, RemotePath::from("/"))
        .interval(SOON)
        .first_listing(FirstListing::News)
        .settle(settle)
        .start();
    std::fs::write(root.path().join("a"), "content").unwrap();
    until(&mut events, &[(EventKind::Created, "/a")]).await;
    assert!(events.listings(5).await);
    std::fs::write(root.path().join("a.done"), "").unwrap();
    // Nothing was settled before the done file was there.
    assert_eq!(
        next(&mut events).await,
        (EventKind::Created, "/a.done".into())
    );
    assert_eq!(next(&mut events).await, (EventKind::Settled, "/a".into()));
}
