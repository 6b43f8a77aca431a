//! Detection over SFTP, on a real server: over a stream in memory, and OpenSSH's where it matters.
#![cfg(all(unix, feature = "flows"))]
#![expect(clippy::disallowed_methods, reason = "tests have a clock")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::{Attrs, Connect, RemotePath, Session};
use ketch_listener::detect::{
    Answer, DetectConfig, Detector, First, ListError, Lister, Plan, SftpLister,
};
use ketch_listener::flow::item::Change;
use ketch_listener::listing::Listing;
use ketch_listener::remote::Remote;
use ketch_listener::select::{Rule, Select, SelectSettings};
use ketch_listener::settle::SettleConfig;
use ketch_listener::tree::Snapshot;
use ketch_server::{Server, User, generate_host_key};

async fn connect(root: &Path) -> Session {
    let server = Server::builder()
        .host_key(generate_host_key().unwrap())
        .user(User::new("ann", root).password("correct horse"))
        .build()
        .unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let host_keys = HostKeys::only([server.host_key()]);
    tokio::spawn(async move {
        let _ = server.serve_stream(far, "the test").await;
    });
    Connect::to("test")
        .user("ann")
        .password("correct horse".to_owned())
        .host_keys(host_keys)
        .connect_over(near)
        .await
        .unwrap()
}

fn config() -> DetectConfig {
    DetectConfig {
        interval: Some(Duration::from_millis(20)),
        first: First::News,
        settle: SettleConfig::immediately(),
        select: Select::new(SelectSettings {
            exclude: vec![Rule::Glob("*.tmp".into())],
            ..SelectSettings::default()
        })
        .unwrap(),
        ..DetectConfig::default()
    }
}

/// One scan, and what it told.
async fn scan(detector: &mut Detector) -> Vec<Change> {
    let report = detector.scan(&[]).await;
    assert!(report.complete, "{report:?}");
    let mut told = Vec::new();
    loop {
        let changes = detector.take_changes(7);
        if changes.is_empty() {
            return told;
        }
        detector.recorded(&changes);
        told.extend(changes);
    }
}

fn put(root: &Path, path: &str, text: &str) {
    let at = root.join(path);
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    std::fs::write(at, text).unwrap();
}

fn names(changes: &[Change]) -> BTreeSet<String> {
    changes
        .iter()
        .map(|change| match change {
            Change::Present { path, .. } => format!("present {path}"),
            Change::Removed { path } => format!("removed {path}"),
            Change::Renamed { from, to, .. } => format!("renamed {from} {to}"),
            Change::Baseline { path, .. } => format!("baseline {path}"),
        })
        .collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn a_tree_on_a_server_is_followed_and_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    put(&root, "in/a/1.csv", "one");
    put(&root, "in/a/2.csv", "two");
    put(&root, "in/b/c/3.csv", "three");
    put(&root, "in/b/c/4.tmp", "not yet");
    let session = connect(&root).await;
    let remote = Remote::over(session.sftp().await.unwrap(), RemotePath::from("/in"));
    let lister = Arc::new(SftpLister::new(remote));
    let mut detector = Detector::new(lister.clone(), config(), None);
    detector.wait().await;
    let told = scan(&mut detector).await;
    let expected = set(["present a/1.csv", "present a/2.csv", "present b/c/3.csv"]);
    assert_eq!(names(&told), expected);
    assert!(detector.is_first_done());

    put(&root, "in/a/1.csv", "another");
    std::fs::rename(root.join("in/a/2.csv"), root.join("in/b/5.csv")).unwrap();
    std::fs::remove_dir_all(root.join("in/b/c")).unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        detector.wait().await;
        told.extend(scan(&mut detector).await);
    }
    let mut expected = set(["present a/1.csv", "removed b/c/3.csv"]);
    // Settled at once, its new name may be told before the old one is missed.
    let renamed = set(["renamed a/2.csv b/5.csv"]);
    let both = set(["present b/5.csv", "removed a/2.csv"]);
    expected.extend(if names(&told).is_superset(&renamed) {
        renamed
    } else {
        both
    });
    assert_eq!(names(&told), expected);

    let file = dir.path().join("snapshot");
    detector.save(&file, [1; 16]).unwrap();
    let snapshot = Snapshot::load(&file, [1; 16]).unwrap();
    put(&root, "in/new.csv", "new");
    let mut again = Detector::new(lister, config(), snapshot);
    again.wait().await;
    assert_eq!(names(&scan(&mut again).await), set(["present new.csv"]));
    let gone = again
        .gone(vec!["a/1.csv".into(), "a/2.csv".into(), "b/5.csv".into()])
        .await;
    assert_eq!(gone, [RemotePath::from("a/2.csv")]);
}

/// Leaves 30 % of all names out of each listing.
#[derive(Debug)]
struct Dropping {
    inner: SftpLister,
    dice: AtomicU64,
}

struct DroppingPlan<'a> {
    plan: &'a mut dyn Plan,
    dice: &'a AtomicU64,
}

impl Plan for DroppingPlan<'_> {
    fn next(&mut self) -> Option<RemotePath> {
        self.plan.next()
    }

    fn listed(&mut self, directory: RemotePath, result: Result<Listing, ListError>) {
        let result = result.map(|whole| {
            let mut listing = Listing::new(10_000);
            for listed in whole.entries() {
                // An xorshift generator, from a seed that is always the same.
                let mut x = self.dice.load(Ordering::Relaxed);
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                self.dice.store(x, Ordering::Relaxed);
                if x % 10 >= 3 {
                    listing.push(listed.name(), *listed.attrs()).unwrap();
                }
            }
            listing.finish()
        });
        self.plan.listed(directory, result);
    }
}

impl Lister for Dropping {
    fn list<'a>(&'a self, plan: &'a mut dyn Plan) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut plan = DroppingPlan {
                plan,
                dice: &self.dice,
            };
            self.inner.list(&mut plan).await;
        })
    }

    fn look<'a>(&'a self, paths: &'a [RemotePath]) -> Answer<'a, Vec<Result<Attrs, ListError>>> {
        self.inner.look(paths)
    }
}

#[tokio::test]
async fn listings_that_leave_names_out_lose_and_double_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut expected = BTreeSet::new();
    for number in 0..200 {
        let path = format!("in/{}/{number}.csv", number % 9);
        put(root.path(), &path, "x");
        expected.insert(path.strip_prefix("in/").unwrap().to_owned());
    }
    let session = connect(root.path()).await;
    let remote = Remote::over(session.sftp().await.unwrap(), RemotePath::from("/in"));
    let dropping = Dropping {
        inner: SftpLister::new(remote),
        dice: AtomicU64::new(88_172_645_463_325_252),
    };
    let mut detector = Detector::new(Arc::new(dropping), config(), None);
    let mut told = Vec::new();
    for _ in 0..30 {
        told.extend(scan(&mut detector).await);
    }
    let all: Vec<_> = told
        .iter()
        .map(|change| match change {
            Change::Present { path, .. } => path.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(all.len(), 200, "each once");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected);
    std::fs::remove_file(root.path().join("in/3/3.csv")).unwrap();
    let mut told = Vec::new();
    for _ in 0..10 {
        told.extend(scan(&mut detector).await);
    }
    assert_eq!(names(&told), set(["removed 3/3.csv"]));
}

#[tokio::test]
async fn a_connection_that_is_lost_is_told_and_nothing_is_gone() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "in/a", "x");
    let session = connect(root.path()).await;
    let remote = Remote::over(session.sftp().await.unwrap(), RemotePath::from("/in"));
    let mut detector = Detector::new(Arc::new(SftpLister::new(remote)), config(), None);
    assert_eq!(names(&scan(&mut detector).await), set(["present a"]));
    session.disconnect().await;
    let report = detector.scan(&[]).await;
    assert!(!report.complete && report.lost.is_some());
    assert!(detector.take_changes(10).is_empty());
    assert_eq!(detector.errors().count(), 1);
}
