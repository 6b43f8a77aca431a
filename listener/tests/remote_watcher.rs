//! `notify`'s trait over real servers: ours, with pushes, and sshd, without.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, Session};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_listener::RemoteWatcher;
use ketch_server::{Server, User, generate_host_key};
use notify::event::{CreateKind, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, EventKind, RecursiveMode, Watcher as _};
use tokio::runtime::{Builder, Runtime};

/// Longest wait for what must come: no test is decided by it unless something is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// An interval that no test lives to see: what is told came by a push.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(20);

type Told = Receiver<notify::Result<notify::Event>>;

/// The program's own runtime, in which the session lives.
fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn ours(runtime: &Runtime, root: &Path) -> Session {
    let server = Server::builder()
        .host_key(generate_host_key().unwrap())
        .user(User::new("ann", root).password("correct horse"))
        .build()
        .unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let host_keys = HostKeys::only([server.host_key()]);
    runtime.spawn(async move {
        let _ = server.serve_stream(far, "the test").await;
    });
    let connect = Connect::to("test")
        .user("ann")
        .password("correct horse".to_owned());
    runtime
        .block_on(connect.host_keys(host_keys).connect_over(near))
        .unwrap()
}

fn watcher(session: Session, interval: Duration) -> (RemoteWatcher, Told) {
    let (tell, told) = channel();
    let config = Config::default().with_poll_interval(interval);
    (
        RemoteWatcher::over_with(session, tell, config).unwrap(),
        told,
    )
}

/// Takes events until one is `wanted`.
fn until(told: &Told, kind: EventKind, paths: &[PathBuf]) {
    loop {
        let event = told
            .recv_timeout(PATIENCE)
            .expect("something is told")
            .unwrap();
        if event.kind == kind && event.paths == paths {
            return;
        }
    }
}

/// Until something is told to be gone.
fn until_removed(told: &Told, path: &Path) {
    loop {
        let event = told
            .recv_timeout(PATIENCE)
            .expect("something is told")
            .unwrap();
        if event.kind.is_remove() && event.paths == [path] {
            return;
        }
    }
}

#[test]
fn a_tree_on_our_server_is_told_by_pushes_with_renames() {
    let (runtime, root) = (runtime(), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(root.path().join("in/sub")).unwrap();
    let (mut watcher, told) = watcher(ours(&runtime, root.path()), NEVER);
    watcher
        .watch(Path::new("/in"), RecursiveMode::Recursive)
        .unwrap();
    std::fs::write(root.path().join("in/a"), "content").unwrap();
    until(
        &told,
        EventKind::Create(CreateKind::File),
        &["/in/a".into()],
    );
    std::fs::create_dir(root.path().join("in/new")).unwrap();
    until(
        &told,
        EventKind::Create(CreateKind::Folder),
        &["/in/new".into()],
    );
    std::fs::write(root.path().join("in/new/b"), "content").unwrap();
    until(
        &told,
        EventKind::Create(CreateKind::File),
        &["/in/new/b".into()],
    );
    std::fs::rename(root.path().join("in/a"), root.path().join("in/c")).unwrap();
    let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
    until(&told, renamed, &["/in/a".into(), "/in/c".into()]);
    std::fs::remove_dir_all(root.path().join("in/new")).unwrap();
    until_removed(&told, Path::new("/in/new"));
    watcher.unwatch(Path::new("/in")).unwrap();
    let again = watcher.unwatch(Path::new("/in")).unwrap_err();
    assert!(matches!(again.kind, ErrorKind::WatchNotFound), "{again}");
    // With the watcher its handler goes.
    drop(watcher);
    while told.recv_timeout(PATIENCE).is_ok() {}
}

#[test]
fn a_directory_on_sshd_is_told_by_polls() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let (runtime, dir) = (runtime(), tempfile::tempdir().unwrap());
    let connect = Connect::to("127.0.0.1")
        .port(server.port())
        .user(server.user())
        .identity(Identity::from_file(server.identity().private()).unwrap())
        .host_keys(HostKeys::files([server.known_hosts()]));
    let session = runtime.block_on(connect.connect()).unwrap();
    let (mut watcher, told) = watcher(session, SOON);
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    watcher
        .watch(dir.path(), RecursiveMode::NonRecursive)
        .unwrap();
    // What lies deeper is not asked for.
    std::fs::write(dir.path().join("sub/deep"), "1").unwrap();
    let a = dir.path().join("a");
    std::fs::write(&a, "1").unwrap();
    let event = told.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(
        (event.kind, event.paths),
        (EventKind::Create(CreateKind::File), vec![a.clone()])
    );
    std::fs::write(&a, "more").unwrap();
    until(
        &told,
        EventKind::Modify(ModifyKind::Any),
        std::slice::from_ref(&a),
    );
    std::fs::remove_file(&a).unwrap();
    until_removed(&told, &a);
    let gone = watcher
        .watch(&dir.path().join("gone"), RecursiveMode::Recursive)
        .unwrap_err();
    assert_eq!(gone.paths, [dir.path().join("gone")]);
}

#[test]
fn a_lost_connection_is_told_and_only_urls_are_paths_without_one() {
    let (runtime, root) = (runtime(), tempfile::tempdir().unwrap());
    let session = ours(&runtime, root.path());
    let (mut watcher, told) = watcher(session.clone(), SOON);
    watcher
        .watch(Path::new("/"), RecursiveMode::Recursive)
        .unwrap();
    runtime.block_on(session.disconnect());
    assert!(told.recv_timeout(PATIENCE).unwrap().is_err());
    let handler = |_: notify::Result<notify::Event>| {};
    let mut watcher = RemoteWatcher::new(handler, Config::default()).unwrap();
    for path in ["/in", "http://x/in", "sftp://ann:secret@x/in"] {
        assert!(
            watcher
                .watch(Path::new(path), RecursiveMode::Recursive)
                .is_err(),
            "{path}"
        );
    }
}

/// What the program below gets its URL by.
const URL: &str = "KETCH_TEST_WATCHED_URL";

/// `watch("sftp://alias/…")` goes by the user's own `ssh_config`, key and `known_hosts`. Whose they are
/// says `HOME`, so the watcher runs in a process of its own: this test again, with another home.
#[test]
fn a_url_is_resolved_by_the_users_own_configuration() {
    if let Ok(url) = std::env::var(URL) {
        return watch_a_url(&url);
    }
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ssh = server.client_home().join(".ssh");
    let config = format!(
        "Host partner\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n",
        server.port(),
        server.user(),
        server.identity().private().display(),
    );
    std::fs::write(ssh.join("config"), config).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_url_is_resolved_by_the_users_own_configuration",
        ])
        .env("HOME", server.client_home())
        .env(URL, format!("sftp://partner{}", dir.path().display()))
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(dir.path().join("told").exists(), "it ran: {output:?}");
}

fn watch_a_url(url: &str) {
    let dir = Path::new(url.strip_prefix("sftp://partner").unwrap());
    let (tell, told) = channel();
    let config = Config::default().with_poll_interval(SOON);
    let mut watcher = RemoteWatcher::new(tell, config).unwrap();
    watcher
        .watch(Path::new(url), RecursiveMode::Recursive)
        .unwrap();
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::write(dir.join("sub/a"), "1").unwrap();
    loop {
        let event = told.recv_timeout(PATIENCE).unwrap().unwrap();
        assert!(
            event.paths.iter().all(|path| path.starts_with("sftp:/")),
            "{event:?}"
        );
        if event.paths.iter().any(|path| path.ends_with("sub/a")) {
            break;
        }
    }
    watcher.unwatch(Path::new(url)).unwrap();
    let nobody = watcher.watch(
        Path::new("sftp://nobody.invalid/in"),
        RecursiveMode::Recursive,
    );
    assert!(nobody.is_err());
    std::fs::write(dir.join("told"), "").unwrap();
}
