//! A server with a root directory, a client logged in to it, and the one connection between them.

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::{Connect, PublicKey, Session, Timeouts};
use ketch_server::{CommonConfig, Server, User, generate_host_key};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::echo;
use crate::wire::{Counts, Over, Stream, Wire};

pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "correct horse";

/// What has not happened after this time will not: a test that waits for it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether something has happened that nobody tells of.
const LOOK: Duration = Duration::from_millis(5);

/// One test after the other: they count descriptors and bytes of the one process they share.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Waits until `happened` says so.
///
/// # Panics
/// With `what`, when it is clear that it will not happen.
pub(crate) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let wait = async {
        while !happened() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "in vain: {what}");
}

/// Waits until `look` finds what is `wanted`.
///
/// # Panics
/// With what it finds instead, when it is clear that it will not happen.
pub(crate) async fn until_equal<T: Debug + Eq>(what: &str, wanted: &T, look: impl Fn() -> T) {
    let wait = async {
        while look() != *wanted {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        assert_eq!(look(), *wanted, "in vain: {what}");
    }
}

/// A client and a server that know each other.
pub(crate) struct Scene {
    pub(crate) session: Session,
    /// What passed on the wire.
    pub(crate) counts: Arc<Counts>,
    dir: TempDir,
}

impl Scene {
    /// Connects to a new server that offers `sftp` and `echo`.
    pub(crate) async fn new(over: Over, timeouts: Timeouts, transport: CommonConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("remote")).unwrap();
        fs::create_dir(dir.path().join("local")).unwrap();
        let server = Server::builder()
            .host_key(generate_host_key().unwrap())
            .user(User::new(USER, dir.path().join("remote")).password(PASSWORD))
            .subsystem("echo", |_| echo::start())
            .transport(transport)
            .build()
            .unwrap();
        let (ours, theirs) = over.pair().await;
        let host_key = server.host_key();
        tokio::spawn(async move { server.serve_stream(theirs, "the test").await });
        let (session, counts) = connect(ours, host_key, timeouts).await;
        Self {
            session,
            counts,
            dir,
        }
    }

    /// A file below the server's root, as the test sees it.
    pub(crate) fn remote(&self, name: &str) -> PathBuf {
        self.dir.path().join("remote").join(name)
    }

    /// A file of the client's.
    pub(crate) fn local(&self, name: &str) -> PathBuf {
        self.dir.path().join("local").join(name)
    }

    /// What this process has open of the client's and the server's files, sorted.
    pub(crate) fn open_files(&self) -> Vec<PathBuf> {
        // The kernel shows paths without links.
        let dir = self.dir.path().canonicalize().unwrap();
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut open: Vec<_> = descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .filter(|path| path.starts_with(&dir))
            .collect();
        open.sort();
        open
    }

    /// Temporary files of transfers, on both sides.
    pub(crate) fn temporary_files(&self) -> Vec<PathBuf> {
        let both = [self.remote(""), self.local("")];
        let names = both.iter().flat_map(|dir| names(dir));
        names
            .filter(|path| path.to_string_lossy().contains(".ketch-"))
            .collect()
    }
}

/// The files in a directory.
pub(crate) fn names(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Logs in over a stream whose server shows `host_key`.
pub(crate) async fn connect(
    stream: impl Stream + 'static,
    host_key: PublicKey,
    timeouts: Timeouts,
) -> (Session, Arc<Counts>) {
    let (wire, counts) = Wire::new(stream);
    let session = Connect::to("server.test")
        .user(USER)
        .password(PASSWORD.to_owned())
        .host_keys(HostKeys::only([host_key]))
        .timeouts(timeouts)
        .connect_over(wire)
        .await
        .unwrap();
    (session, counts)
}
