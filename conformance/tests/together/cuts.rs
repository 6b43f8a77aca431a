//! The connection is cut at random points of a transfer of 200 files, in both directions: what has
//! its final name is whole, whatever else became of it.
//!
//! `KETCH_CUTS=100` cuts a hundred times; the seed of every cut is printed.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::{
    Connect, Failure, GetOptions, PublicKey, PutOptions, Reconnect, Sftp, SyncError, SyncOptions,
    TransferError,
};
use ketch_server::{Server, User, generate_host_key};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::random::Random;
use crate::scene::{PASSWORD, PATIENCE, USER, turn, until};

/// Files of the tree, and directories they are in.
const FILES: u64 = 200;
const DIRECTORIES: u64 = 7;
/// Most bytes of most files, and of every fiftieth.
const SMALL_MAX: u64 = 20_000;
const LARGE_MAX: u64 = 600_000;
/// Bytes in which a connection greets, exchanges keys, logs in and opens a channel.
const BEGINNING: u64 = 4096;
/// Cuts, unless `KETCH_CUTS` says how many.
const CUTS: u64 = 12;
/// Bytes that the proxy carries at a time.
const LOT: usize = 16 * 1024;

fn cuts() -> u64 {
    let wanted = std::env::var("KETCH_CUTS").ok();
    wanted.map_or(CUTS, |cuts| cuts.parse().expect("a number"))
}

/// A server behind a proxy that cuts.
struct Scene {
    dir: TempDir,
    addr: SocketAddr,
    host_key: PublicKey,
    proxy: Arc<Proxy>,
    tree: BTreeMap<PathBuf, Vec<u8>>,
}

/// What the proxy does.
#[derive(Debug, Default)]
struct Proxy {
    /// After how many bytes the next connections are cut; later ones live.
    cuts: Mutex<VecDeque<u64>>,
    carried: AtomicU64,
    open: AtomicU64,
}

impl Proxy {
    fn plan(&self, cuts: impl IntoIterator<Item = u64>) {
        let mut planned = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        planned.clear();
        planned.extend(cuts);
        self.carried.store(0, Ordering::SeqCst);
    }

    async fn run(self: Arc<Self>, listener: TcpListener, server: Arc<Server>) {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let planned = self.cuts.lock().map(|mut cuts| cuts.pop_front());
            let cut = planned.ok().flatten().unwrap_or(u64::MAX);
            let (proxy, server) = (Arc::clone(&self), Arc::clone(&server));
            self.open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let (near, far) = tokio::io::duplex(64 * 1024);
                let serving = tokio::spawn(async move { server.serve_stream(far, "cut").await });
                proxy.carry(client, near, cut).await;
                // What the server was still doing comes to its end before anybody looks.
                drop(serving.await);
                proxy.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    /// Carries bytes in both directions until `cut` of them have passed, or an end ends.
    async fn carry(&self, mut client: TcpStream, mut server: tokio::io::DuplexStream, cut: u64) {
        let (mut up, mut down) = (vec![0; LOT], vec![0; LOT]);
        let mut left = cut;
        while left > 0 {
            let (count, is_up) = tokio::select! {
                count = client.read(&mut up) => (count, true),
                count = server.read(&mut down) => (count, false),
            };
            let Ok(count @ 1..) = count else { return };
            let count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= count as u64;
            self.carried.fetch_add(count as u64, Ordering::SeqCst);
            let carried = if is_up {
                server.write_all(&up[..count]).await
            } else {
                client.write_all(&down[..count]).await
            };
            if carried.is_err() {
                return;
            }
        }
    }
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("remote")).unwrap();
        let server = Server::builder()
            .host_key(generate_host_key().unwrap())
            .user(User::new(USER, dir.path().join("remote")).password(PASSWORD))
            // Connections are cut before anybody is logged in, again and again.
            .without_penalties()
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let host_key = server.host_key();
        let proxy = Arc::new(Proxy::default());
        tokio::spawn(Arc::clone(&proxy).run(listener, Arc::new(server)));
        let mut random = Random::new(0x63_7574);
        let mut tree = BTreeMap::new();
        for n in 0..FILES {
            let max = if n % 50 == 0 { LARGE_MAX } else { SMALL_MAX };
            let len = usize::try_from(random.below(max)).unwrap();
            let path = PathBuf::from(format!("d{}/f{n}", n % DIRECTORIES));
            tree.insert(path, random.bytes(len));
        }
        let scene = Self {
            dir,
            addr,
            host_key,
            proxy,
            tree,
        };
        scene.write(&scene.dir.path().join("remote/tree"));
        scene.write(&scene.dir.path().join("source"));
        scene
    }

    fn write(&self, to: &Path) {
        for (path, content) in &self.tree {
            let path = to.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn connect(&self) -> Connect {
        Connect::to("127.0.0.1")
            .port(self.addr.port())
            .user(USER)
            .password(PASSWORD.to_owned())
            .host_keys(HostKeys::only([self.host_key.clone()]))
    }

    /// Where a transfer goes to: below the server's root, or here.
    fn target(&self, way: Way) -> PathBuf {
        match way {
            Way::Down => self.dir.path().join("copy"),
            Way::Up => self.dir.path().join("remote/copy"),
        }
    }

    async fn transfer(&self, way: Way, sftp: &Sftp) -> Result<u64, TransferError> {
        let report = match way {
            Way::Down => {
                let options = GetOptions::new().recursive(true);
                sftp.get("tree", self.target(way), options).await
            }
            Way::Up => {
                let options = PutOptions::new().recursive(true);
                sftp.put(self.dir.path().join("source"), "copy", options)
                    .await
            }
        };
        report.map(|report| report.files)
    }

    /// Makes the target what the source is.
    async fn sync(&self, way: Way, sftp: &Sftp) -> Result<u64, SyncError> {
        let options = SyncOptions::new();
        let report = match way {
            Way::Down => sftp.sync_down("tree", self.target(way), options).await,
            Way::Up => {
                let source = self.dir.path().join("source");
                sftp.sync_up(source, "copy", options).await
            }
        };
        report.map(|report| report.copied)
    }

    /// One transfer over a connection of its own.
    async fn over(&self, way: Way, connect: Connect) -> Result<u64, Box<dyn std::error::Error>> {
        self.over_as(way, connect, false).await
    }

    async fn over_as(
        &self,
        way: Way,
        connect: Connect,
        syncs: bool,
    ) -> Result<u64, Box<dyn std::error::Error>> {
        let all = async {
            let session = connect.connect().await?;
            let sftp = session.sftp().await?;
            let files = match syncs {
                true => self.sync(way, &sftp).await?,
                false => self.transfer(way, &sftp).await?,
            };
            session.disconnect().await;
            Ok(files)
        };
        let result = tokio::time::timeout(PATIENCE, all).await;
        until("the server has let go", || {
            self.proxy.open.load(Ordering::SeqCst) == 0
        })
        .await;
        result.expect("an end")
    }

    /// Checks that what is there is whole, and says how many files that are and how many parts.
    fn whole(&self, dir: &Path) -> (u64, u64) {
        let (mut files, mut parts) = (0, 0);
        for path in walk(dir) {
            if path.to_string_lossy().contains(".ketch-") {
                parts += 1;
                continue;
            }
            let name = path.strip_prefix(dir).unwrap();
            let is = fs::read(&path).unwrap();
            assert!(self.tree.get(name) == Some(&is), "{}", path.display());
            files += 1;
        }
        (files, parts)
    }

    /// Bytes that a transfer takes when nothing is cut.
    async fn measure(&self, way: Way) -> u64 {
        self.proxy.plan([]);
        let files = self.over(way, self.connect()).await.unwrap();
        assert_eq!(files, FILES);
        assert_eq!(self.whole(&self.target(way)), (FILES, 0));
        fs::remove_dir_all(self.target(way)).unwrap();
        self.proxy.carried.load(Ordering::SeqCst)
    }
}

/// All plain files below a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found; // nothing was begun
    };
    for entry in entries.flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Down,
    Up,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cut_connection_leaves_is_whole_or_not_there() {
    let _turn = turn().await;
    let scene = Scene::new().await;
    for way in [Way::Down, Way::Up] {
        let total = scene.measure(way).await;
        println!("{way:?}: {total} bytes pass");
        let mut failed = 0;
        for seed in 0..cuts() {
            let mut random = Random::new(seed);
            // Every third in the greeting, the key exchange or the login.
            let among = if seed % 3 == 0 { BEGINNING } else { total };
            let cut = random.below(among);
            scene.proxy.plan([cut]);
            let result = scene.over(way, scene.connect()).await;
            let (files, parts) = scene.whole(&scene.target(way));
            println!("{way:?}, seed {seed}: cut after {cut}, {files} files, {parts} parts");
            match result {
                Ok(_) => assert_eq!((files, parts), (FILES, 0), "seed {seed}"),
                Err(error) => {
                    failed += 1;
                    println!("{error}");
                    if let Some(error) = error.downcast_ref::<TransferError>() {
                        assert!(error.is_transient(), "seed {seed}: {error:?}");
                    }
                }
            }
            if way == Way::Down {
                assert_eq!(parts, 0, "seed {seed}: nothing is left here");
            }
            drop(fs::remove_dir_all(scene.target(way)));
        }
        assert!(failed > 0, "nothing was cut");
    }
}

/// A way to a server of which nothing more comes after so many bytes, and which stays open: as
/// behind a cable that was cut.
async fn swallowing(server: SocketAddr, mut left: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        let (mut up, mut down) = (vec![0; LOT], vec![0; LOT]);
        loop {
            tokio::select! {
                count = client.read(&mut up) => {
                    let Ok(count @ 1..) = count else { return };
                    if left > 0 && server.write_all(&up[..count]).await.is_err() {
                        return;
                    }
                }
                count = server.read(&mut down), if left > 0 => {
                    let Ok(count @ 1..) = count else { return };
                    left = left.saturating_sub(count);
                    if client.write_all(&down[..count]).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_swallows_everything_is_given_up_at_the_deadline() {
    let _turn = turn().await;
    // How long a connection that says nothing is borne. A busy machine may be silent for longer before
    // there is a session.
    for stall in [2, 15, 60].map(Duration::from_secs) {
        let scene = Scene::new().await;
        let port = swallowing(scene.addr, 200_000).await;
        let mut timeouts = ketch_client::Timeouts::default();
        timeouts.stall = stall;
        timeouts.keepalive = Some(stall / 4);
        timeouts.keepalives_max = 3;
        let connect = scene.connect().port(port).timeouts(timeouts);
        let Ok(session) = connect.connect().await else {
            continue;
        };
        let Ok(sftp) = session.sftp().await else {
            continue;
        };
        let ended = tokio::time::timeout(2 * PATIENCE, scene.transfer(Way::Down, &sftp)).await;
        let error = ended.expect("an end").unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        tokio::time::timeout(2 * PATIENCE, session.closed())
            .await
            .expect("the keepalives end the connection");
        assert_eq!(scene.whole(&scene.target(Way::Down)).1, 0);
        return;
    }
    panic!("there was no session within a minute");
}

/// A policy that does not wait long.
fn soon(seed: u64) -> Reconnect {
    let mut policy = Reconnect::default();
    policy.first = Duration::from_millis(5);
    policy.max = Duration::from_millis(50);
    policy.spread = Duration::ZERO;
    policy.attempts = Some(20);
    policy.seed = Some(seed);
    policy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_goes_on_over_other_connections() {
    let _turn = turn().await;
    let scene = Scene::new().await;
    for way in [Way::Down, Way::Up] {
        let total = scene.measure(way).await;
        for seed in 0..cuts() {
            let mut random = Random::new(seed);
            // What it is asked for first is not asked twice.
            let first = 2 * BEGINNING + random.below(total);
            let next = 2 * BEGINNING + random.below(total);
            scene.proxy.plan([first, next]);
            println!("{way:?}, seed {seed}: cut after {first} and {next}");
            let connect = scene.connect().reconnect(soon(seed));
            let files = scene.over_as(way, connect, true).await;
            files.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
            let target = scene.target(way);
            assert_eq!(scene.whole(&target), (FILES, 0), "seed {seed}");
            fs::remove_dir_all(target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_second_chance_every_file_arrives_whole_and_once() {
    let _turn = turn().await;
    let scene = Scene::new().await;
    for way in [Way::Down, Way::Up] {
        let total = scene.measure(way).await;
        for seed in 0..cuts() {
            let mut random = Random::new(seed);
            // The first connection gets through the login; the next ones may not even get so far.
            let first = 2 * BEGINNING + random.below(total);
            let next = random.below(total);
            let last = random.below(BEGINNING);
            scene.proxy.plan([first, next, last]);
            println!("{way:?}, seed {seed}: cut after {first}, {next} and {last}");
            let connect = scene.connect().reconnect(soon(seed));
            let files = scene.over(way, connect).await;
            let files = files.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
            assert_eq!(files, FILES, "seed {seed}: each is counted once");
            let target = scene.target(way);
            assert_eq!(scene.whole(&target), (FILES, 0), "seed {seed}");
            fs::remove_dir_all(target).unwrap();
        }
    }
}
