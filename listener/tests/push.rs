//! Pushes against real servers over TCP: ours, which may go away and come back, and sshd, which has
//! none.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "servers of the tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, Reconnect};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_listener::push::{self, EVENTS_MAX, PushError, PushEvent, Pushes, Touch};
use ketch_listener::remote::Remote;
use ketch_server::{PrivateKey, Server, User, generate_host_key};
use tokio::task::JoinHandle;

/// Longest wait for what must come: no test is decided by it unless something is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// Our server on a port that stays the same.
struct Ours {
    listener: std::net::TcpListener,
    key: PrivateKey,
    root: tempfile::TempDir,
}

impl Ours {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("in")).unwrap();
        Self {
            listener,
            key: generate_host_key().unwrap(),
            root,
        }
    }

    /// Runs until the task is aborted.
    fn start(&self) -> JoinHandle<()> {
        let server = Server::builder()
            .host_key(self.key.clone())
            .user(User::new("ann", self.root.path()).password("correct horse"))
            .build()
            .unwrap();
        let listener = self.listener.try_clone().unwrap();
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let _ = server.serve(listener).await;
        })
    }

    fn remote(&self) -> Remote {
        let connect = Connect::to("127.0.0.1")
            .port(self.listener.local_addr().unwrap().port())
            .user("ann")
            .password("correct horse".to_owned())
            .host_keys(HostKeys::only([self.key.public_key().clone()]));
        let mut policy = Reconnect::default();
        policy.attempts = Some(1);
        policy.spread = Duration::from_millis(10);
        Remote::with(connect, "in".into(), policy)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("in").join(name)
    }
}

async fn next(pushes: &mut Pushes) -> Option<PushEvent> {
    tokio::time::timeout(PATIENCE, pushes.next())
        .await
        .expect("something is told")
}

/// Takes events until one is `wanted`.
async fn until(pushes: &mut Pushes, wanted: &PushEvent) {
    while next(pushes).await.expect("the pushes go on") != *wanted {}
}

fn write(path: &Path) {
    std::fs::write(path, "content").unwrap();
}

fn closed(path: &str) -> PushEvent {
    PushEvent::Closed { path: path.into() }
}

#[tokio::test]
async fn what_happens_is_told_with_paths_below_the_root() {
    let ours = Ours::new();
    let _server = ours.start();
    let mut pushes = push::over_sftp(ours.remote());
    assert_eq!(next(&mut pushes).await, Some(PushEvent::Back));
    assert!(pushes.is_live());
    write(&ours.path("a"));
    let created = PushEvent::Changed {
        path: "a".into(),
        kind: Touch::Created,
        is_directory: false,
    };
    assert_eq!(next(&mut pushes).await, Some(created));
    until(&mut pushes, &closed("a")).await;
    std::fs::create_dir(ours.path("sub")).unwrap();
    let created = PushEvent::Changed {
        path: "sub".into(),
        kind: Touch::Created,
        is_directory: true,
    };
    until(&mut pushes, &created).await;
    std::fs::rename(ours.path("a"), ours.path("sub/b")).unwrap();
    let renamed = PushEvent::Renamed {
        from: "a".into(),
        to: "sub/b".into(),
        is_directory: false,
    };
    let seen = next(&mut pushes).await.expect("more");
    // The directory may have got its watch after the rename: then it is told in two halves.
    if seen != renamed {
        let mut halves = vec![seen, next(&mut pushes).await.expect("more")];
        halves.sort_by_key(|event| matches!(event, PushEvent::Changed { .. }));
        let whole = [
            PushEvent::Removed {
                path: "a".into(),
                is_directory: false,
            },
            PushEvent::Changed {
                path: "sub/b".into(),
                kind: Touch::Created,
                is_directory: false,
            },
        ];
        assert_eq!(halves, whole);
    }
    std::fs::remove_file(ours.path("sub/b")).unwrap();
    let removed = PushEvent::Removed {
        path: "sub/b".into(),
        is_directory: false,
    };
    until(&mut pushes, &removed).await;
}

#[tokio::test]
async fn a_server_that_was_away_is_subscribed_to_again() {
    let ours = Ours::new();
    let server = ours.start();
    let mut pushes = push::over_sftp(ours.remote());
    assert_eq!(next(&mut pushes).await, Some(PushEvent::Back));
    server.abort();
    let _ = server.await;
    until(&mut pushes, &PushEvent::Lost).await;
    assert!(!pushes.is_live());
    assert!(
        matches!(pushes.trouble(), Some(PushError::Remote(_))),
        "{:?}",
        pushes.trouble()
    );
    // Nobody tells of this one; `Back` is what has to lead to it.
    write(&ours.path("missed"));
    let _server = ours.start();
    assert_eq!(next(&mut pushes).await, Some(PushEvent::Back));
    assert!(pushes.trouble().is_none());
    write(&ours.path("told"));
    until(&mut pushes, &closed("told")).await;
}

#[tokio::test]
async fn what_nobody_takes_in_time_is_one_overflow_and_then_all_is_told_again() {
    let ours = Ours::new();
    let _server = ours.start();
    let mut pushes = push::over_sftp(ours.remote());
    assert_eq!(next(&mut pushes).await, Some(PushEvent::Back));
    // This thread is the server's too: nothing is read while the files are made.
    for number in 0..EVENTS_MAX {
        write(&ours.path(&number.to_string()));
    }
    until(&mut pushes, &PushEvent::Overflow).await;
    write(&ours.path("last"));
    until(&mut pushes, &closed("last")).await;
}

#[tokio::test]
async fn a_directory_that_was_replaced_is_watched_again() {
    let ours = Ours::new();
    let _server = ours.start();
    let mut pushes = push::over_sftp(ours.remote());
    assert_eq!(next(&mut pushes).await, Some(PushEvent::Back));
    std::fs::rename(ours.root.path().join("in"), ours.root.path().join("old")).unwrap();
    until(&mut pushes, &PushEvent::Lost).await;
    std::fs::create_dir(ours.root.path().join("in")).unwrap();
    until(&mut pushes, &PushEvent::Back).await;
    write(&ours.path("a"));
    until(&mut pushes, &closed("a")).await;
}

#[tokio::test]
async fn sshd_has_no_pushes_and_that_is_said_once() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let connect = Connect::to("127.0.0.1")
        .port(server.port())
        .user(server.user())
        .identity(Identity::from_file(server.identity().private()).unwrap())
        .host_keys(HostKeys::files([server.known_hosts()]));
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap().into();
    let mut pushes = push::over_sftp(Remote::new(connect, root));
    assert_eq!(next(&mut pushes).await, None);
    assert!(
        matches!(pushes.trouble(), Some(PushError::Unsupported)),
        "{:?}",
        pushes.trouble()
    );
}

#[tokio::test]
async fn a_directory_of_this_machine_tells_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    let mut pushes = push::local(dir.path()).unwrap();
    assert_eq!(next(&mut pushes).await, Some(PushEvent::Back));
    write(&dir.path().join("sub/a"));
    until(&mut pushes, &closed("sub/a")).await;
    std::fs::rename(dir.path().join("sub/a"), dir.path().join("b")).unwrap();
    let renamed = PushEvent::Renamed {
        from: "sub/a".into(),
        to: "b".into(),
        is_directory: false,
    };
    until(&mut pushes, &renamed).await;
    std::fs::remove_file(dir.path().join("b")).unwrap();
    until(
        &mut pushes,
        &PushEvent::Removed {
            path: "b".into(),
            is_directory: false,
        },
    )
    .await;
    // New directories are watched, too; their files may be older than their watch.
    std::fs::create_dir(dir.path().join("new")).unwrap();
    let created = PushEvent::Changed {
        path: "new".into(),
        kind: Touch::Created,
        is_directory: true,
    };
    until(&mut pushes, &created).await;
    let mut seen = BTreeSet::new();
    let mut number = 0;
    while seen.is_empty() {
        number += 1;
        write(&dir.path().join("new").join(number.to_string()));
        tokio::time::sleep(Duration::from_millis(20)).await;
        while let Some(event) = pushes.try_next() {
            if let PushEvent::Closed { path } = event {
                seen.insert(path);
            }
        }
        assert!(number < 6_000, "nothing below the new directory is told");
    }
    assert!(push::local(&dir.path().join("gone")).is_err());
}
