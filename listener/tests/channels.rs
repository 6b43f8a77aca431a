//! Scans over several SFTP channels of one connection to OpenSSH's server, whose processes end.
#![cfg(all(target_os = "linux", feature = "flows"))]

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Attrs, Connect, RemotePath};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_conformance::process::Process;
use ketch_listener::detect::{
    Answer, DetectConfig, Detector, First, ListError, Lister, Plan, ScanKind, ScanReport,
    SftpLister,
};
use ketch_listener::flow::item::Change;
use ketch_listener::listing::Listing;
use ketch_listener::remote::Remote;
use ketch_listener::settle::SettleConfig;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
const DIRECTORIES: usize = 300;

fn tree(root: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for directory in 0..DIRECTORIES {
        let directory = format!("{}/{directory}", directory % 7);
        std::fs::create_dir_all(root.join(&directory)).unwrap();
        for file in 0..3 {
            let path = format!("{directory}/{file}");
            std::fs::write(root.join(&path), "x").unwrap();
            files.insert(path);
        }
    }
    files
}

fn remote(server: &OpenSshServer, root: &Path, channels: usize) -> Remote {
    let connect = Connect::to("127.0.0.1")
        .port(server.port())
        .user(server.user())
        .identity(Identity::from_file(server.identity().private()).unwrap())
        .host_keys(HostKeys::files([server.known_hosts()]));
    Remote::new(connect, root.to_str().unwrap().into()).channels(channels)
}

fn config() -> DetectConfig {
    DetectConfig {
        interval: None,
        first: First::News,
        missing_polls: 1,
        settle: SettleConfig::immediately(),
        ..DetectConfig::default()
    }
}

/// One scan of everything, and what it told.
async fn scan(detector: &mut Detector) -> (ScanReport, Vec<Change>) {
    detector.handle().apply_now();
    detector.wait().await;
    let report = detector.scan(&[]).await;
    assert_eq!(report.kind, ScanKind::Full);
    let mut told = Vec::new();
    loop {
        let changes = detector.take_changes(1_000);
        if changes.is_empty() {
            return (report, told);
        }
        detector.recorded(&changes);
        told.extend(changes);
    }
}

fn present(changes: &[Change]) -> BTreeSet<String> {
    let path = |change: &Change| match change {
        Change::Present { path, .. } => path.to_string(),
        other => panic!("{other:?}"),
    };
    changes.iter().map(path).collect()
}

/// Scans until the server has `count` processes for SFTP.
async fn until(count: usize, server: &OpenSshServer, detector: &mut Detector) {
    let scans = async {
        while server.process().leaves().len() < count {
            let (report, told) = scan(detector).await;
            assert!(report.complete && told.is_empty(), "{report:?} {told:?}");
        }
    };
    tokio::time::timeout(LIMIT, scans).await.unwrap();
}

type Meddle = Box<dyn FnOnce() + Send>;

/// Does something in the middle of a listing.
struct Meddling {
    inner: SftpLister,
    then: Arc<Mutex<Option<Meddle>>>,
}

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

struct MeddlingPlan<'a> {
    plan: &'a mut dyn Plan,
    then: &'a Mutex<Option<Meddle>>,
    listed: usize,
}

impl Plan for MeddlingPlan<'_> {
    fn next(&mut self) -> Option<RemotePath> {
        self.plan.next()
    }

    fn listed(&mut self, directory: RemotePath, result: Result<Listing, ListError>) {
        self.plan.listed(directory, result);
        self.listed += 1;
        if self.listed == DIRECTORIES / 3
            && let Some(then) = self.then.lock().unwrap().take()
        {
            then();
        }
    }
}

impl Lister for Meddling {
    fn list<'a>(&'a self, plan: &'a mut dyn Plan) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut plan = MeddlingPlan {
                plan,
                then: &self.then,
                listed: 0,
            };
            self.inner.list(&mut plan).await;
        })
    }

    fn look<'a>(&'a self, paths: &'a [RemotePath]) -> Answer<'a, Vec<Result<Attrs, ListError>>> {
        self.inner.look(paths)
    }
}

#[tokio::test]
async fn a_server_that_gives_one_channel_is_content() {
    let server = OpenSshServer::start(OpenSshConfig {
        max_sessions: 1,
        ..OpenSshConfig::default()
    })
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = tree(dir.path());
    let lister = SftpLister::new(remote(&server, dir.path(), 4));
    let mut detector = Detector::new(Arc::new(lister), config(), None);
    let (report, told) = scan(&mut detector).await;
    assert!(report.complete, "{report:?}");
    assert_eq!((told.len(), present(&told)), (files.len(), files));
    let (report, told) = scan(&mut detector).await;
    assert!(report.complete && told.is_empty(), "{report:?} {told:?}");
    assert_eq!(server.process().leaves().len(), 1);
}

#[tokio::test]
async fn processes_that_end_take_nothing_with_them() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = tree(dir.path());
    let then = Arc::default();
    let lister = Meddling {
        inner: SftpLister::new(remote(&server, dir.path(), 3)),
        then: Arc::clone(&then),
    };
    let mut detector = Detector::new(Arc::new(lister), config(), None);
    let (report, told) = scan(&mut detector).await;
    assert!(report.complete, "{report:?}");
    assert_eq!((told.len(), present(&told)), (files.len(), files));
    until(3, &server, &mut detector).await;
    let first = *server
        .process()
        .leaves()
        .iter()
        .min_by_key(|p| p.id())
        .unwrap();

    // One of the others, in the middle of a listing: those that are left list everything.
    let kill = |processes: Vec<Process>| {
        let meddle: Meddle = Box::new(move || processes.into_iter().for_each(Process::kill));
        *then.lock().unwrap() = Some(meddle);
    };
    let mut others = server.process().leaves();
    others.retain(|process| *process != first);
    kill(others.split_off(1));
    let (report, told) = scan(&mut detector).await;
    assert!(report.complete && report.unreadable == 0, "{report:?}");
    assert!(told.is_empty(), "{told:?}");

    // All of them: the source is lost, and there again with the next scan.
    kill(server.process().leaves());
    let (report, told) = scan(&mut detector).await;
    assert!(report.lost.is_some() || report.complete, "{report:?}");
    assert!(told.is_empty(), "{told:?}");
    let scans = async {
        loop {
            let (report, told) = scan(&mut detector).await;
            assert!(told.is_empty(), "{told:?}");
            if report.complete {
                return report;
            }
        }
    };
    let report = tokio::time::timeout(LIMIT, scans).await.unwrap();
    assert_eq!(report.unreadable, 0);
    assert_eq!(detector.errors().count(), 0);
    let (_, told) = scan(&mut detector).await;
    assert!(told.is_empty(), "{told:?}");
}
