//! One transfer over many channels and connections of a real sshd, some of which are lost.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test is its own driver")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, GetOptions, Progress, PutOptions, RateLimit, Reconnect, Streams};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer, SftpProgram};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

const MIB: usize = 1024 * 1024;
/// One way; enough for a path to count as long.
const DELAY: Duration = Duration::from_millis(6);

fn sshd(max_sessions: u32) -> OpenSshServer {
    OpenSshServer::start(OpenSshConfig {
        max_sessions,
        sftp: SftpProgram::External,
        log_level: "VERBOSE".to_owned(),
        ..OpenSshConfig::default()
    })
    .unwrap()
}

fn way_to(server: &OpenSshServer, addr: SocketAddr) -> Connect {
    let line = format!(
        "[{}]:{} {}\n",
        addr.ip(),
        addr.port(),
        server.host_key().public_key()
    );
    let known_hosts = server.client_home().join(format!("known_{}", addr.port()));
    fs::write(&known_hosts, line).unwrap();
    Connect::to(&addr.ip().to_string())
        .port(addr.port())
        .user(server.user())
        .host_keys(HostKeys::files([known_hosts]))
        .identity(Identity::from_file(server.identity().private()).unwrap())
        .for_sftp()
}

/// A way to `server` that takes time.
async fn long_way(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(server).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::spawn(delayed(near_read, far_write));
            tokio::spawn(delayed(far_read, near_write));
        }
    });
    addr
}

async fn delayed(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    tokio::spawn(async move {
        while let Some((at, bytes)) = receive.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let piece = (Instant::now() + DELAY, buffer[..len].to_vec());
        if send.send(piece).await.is_err() {
            return;
        }
    }
}

fn content(len: usize, salt: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from((i / 4096 + i + salt) % 251).unwrap();
    (0..len).map(byte).collect()
}

fn sftp_sessions(server: &OpenSshServer) -> usize {
    server
        .log()
        .matches("Starting session: subsystem 'sftp'")
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_goes_up_over_many_channels_where_the_path_is_long() {
    for max_sessions in [10, 1] {
        let server = sshd(max_sessions);
        let session = way_to(&server, long_way(server.addr()).await)
            .connect()
            .await
            .unwrap();
        let sftp = session.sftp().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let whole = content(40 * MIB + 17, 1);
        fs::write(dir.path().join("a"), &whole).unwrap();
        let remote = dir.path().join("b").to_str().unwrap().to_owned();
        let report = sftp
            .put(dir.path().join("a"), &*remote, PutOptions::new())
            .await
            .unwrap();
        assert_eq!((report.files, report.bytes), (1, whole.len() as u64));
        assert!(fs::read(&remote).unwrap() == whole);
        // sshd does things in their order: what was asked for before is in its log.
        sftp.stat(&*remote).await.unwrap();
        let asked = sftp_sessions(&server);
        assert_eq!(asked > 1, max_sessions > 1, "{asked} channels");
        // What was refused, or opened, is in nobody's way; one channel is enough if that is wanted.
        let options = GetOptions::new().streams(Streams::one());
        sftp.get(&*remote, dir.path().join("c"), options)
            .await
            .unwrap();
        assert!(fs::read(dir.path().join("c")).unwrap() == whole);
        assert_eq!(sftp_sessions(&server), asked);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        session.disconnect().await;
    }
}

/// All files below a directory, with what they hold.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = tree(&entry.path()).into_iter();
            found.extend(below.map(|(path, data)| (format!("{name}/{path}"), data)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// Cuts all connections each time that so many more files are done.
async fn cut(server: &OpenSshServer, progress: &Progress, marks: &[u64]) {
    for &mark in marks {
        while progress.files_done() < mark {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill_connections();
    }
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_where_its_connection_was_cut() {
    let server = sshd(10);
    let dir = tempfile::tempdir().unwrap();
    let (from, there, back) = (
        dir.path().join("a"),
        dir.path().join("b"),
        dir.path().join("c"),
    );
    for n in 0..200 {
        let sub = from.join(format!("d{}", n % 7));
        fs::create_dir_all(&sub).unwrap();
        let len = if n % 50 == 0 { 12 * MIB } else { n * 331 };
        fs::write(sub.join(n.to_string()), content(len, n)).unwrap();
    }
    let expected = tree(&from);
    let mut policy = Reconnect::default();
    policy.first = Duration::from_millis(10);
    policy.spread = Duration::ZERO;
    let session = || {
        way_to(&server, server.addr())
            .reconnect(policy.clone())
            .connect()
    };
    let marks = [3, 40, 41, 90, 150, 197];

    let first = session().await.unwrap();
    let sftp = first.sftp().await.unwrap();
    let progress = Arc::new(Progress::new());
    let options = PutOptions::new()
        .recursive(true)
        .progress(Arc::clone(&progress));
    let put = sftp.put(&from, there.to_str().unwrap(), options);
    let report = tokio::select! {
        report = put => report.unwrap(),
        () = cut(&server, &progress, &marks) => unreachable!(),
    };
    assert_eq!((report.files, report.directories), (200, 8));
    assert!(tree(&there) == expected, "the upload is not whole");

    let second = session().await.unwrap();
    let sftp = second.sftp().await.unwrap();
    let progress = Arc::new(Progress::new());
    let options = GetOptions::new()
        .recursive(true)
        .progress(Arc::clone(&progress));
    let get = sftp.get(there.to_str().unwrap(), &back, options);
    let report = tokio::select! {
        report = get => report.unwrap(),
        () = cut(&server, &progress, &marks) => unreachable!(),
    };
    assert_eq!((report.files, report.directories), (200, 8));
    assert!(tree(&back) == expected, "the download is not whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_a_transfer_ends_with_its_connection() {
    let server = sshd(10);
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("a");
    fs::create_dir(&from).unwrap();
    for n in 0..200 {
        fs::write(from.join(n.to_string()), content(100_000, n)).unwrap();
    }
    let session = way_to(&server, server.addr()).connect().await.unwrap();
    let sftp = session.sftp().await.unwrap();
    let progress = Arc::new(Progress::new());
    // A minute is not enough for all of it, wherever the test is meanwhile.
    let options = GetOptions::new()
        .recursive(true)
        .limit(RateLimit::new(300_000))
        .progress(Arc::clone(&progress));
    let get = sftp.get(from.to_str().unwrap(), dir.path().join("b"), options);
    let error = tokio::select! {
        report = get => report.unwrap_err(),
        () = cut(&server, &progress, &[3]) => unreachable!(),
    };
    assert!(ketch_client::Failure::is_transient(&error), "{error}");
    let arrived = tree(&dir.path().join("b"));
    for (name, data) in &arrived {
        assert!(*data == fs::read(from.join(name)).unwrap(), "{name}");
    }
}
