//! The `ketch` command and a real sshd, when things go wrong half-way: disks that are full or may
//! not be written, servers that die, stop or say nothing.
//!
//! Each ends in one sentence, in the exit code that `ketch --help` names, and leaves what was under
//! the final name as it was. What needs no real sshd is in `cli/failures.rs` beside this.
#![cfg(target_os = "linux")]

mod evil_names;
mod killed;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ketch_conformance::content::{Sha256, random_file};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_conformance::process::Process;
use ketch_conformance::tiny_disk::TinyDisk;
use tempfile::TempDir;

/// Exit codes, as `ketch --help` lists them.
const PERMISSION: i32 = 4;
const NO_SPACE: i32 = 6;
const LOGIN: i32 = 7;
const NETWORK: i32 = 10;
const TIMEOUT: i32 = 11;
const PEER: i32 = 12;

/// What a command may take at most: far longer than any deadline that is set here.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(5);

const MIB: u64 = 1024 * 1024;
/// Longer than any machine copies before something is done about it; made of holes.
const ENDLESS: u64 = 64 << 30;
/// What has been copied when something happens.
const GROWN: u64 = MIB;
/// The content of the file that is there before.
const OLD: &str = "what was there before";

/// A running sshd, and a directory that both sides use: `here` is the client's, `there` the server's.
struct Scene {
    server: OpenSshServer,
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::with(OpenSshConfig::default())
    }

    fn with(config: OpenSshConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["here", "there"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let server = OpenSshServer::start(config).unwrap();
        Self { server, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn remote(&self, path: &Path) -> String {
        format!("{}@127.0.0.1:{}", self.server.user(), path.display())
    }

    /// A command line that logs in with the right key.
    fn command(&self, command: &str) -> Command {
        let mut ketch = ketch(command, self.server.port());
        ketch
            .arg("-i")
            .arg(self.server.identity().private())
            .env("HOME", self.server.client_home());
        ketch
    }

    fn get(&self, from: &Path, to: &Path) -> Command {
        let mut ketch = self.command("get");
        ketch.arg(self.remote(from)).arg(to);
        ketch
    }

    fn put(&self, from: &Path, to: &Path) -> Command {
        let mut ketch = self.command("put");
        ketch.arg(from).arg(self.remote(to));
        ketch
    }
}

fn ketch(command: &str, port: u16) -> Command {
    let mut ketch = Command::new(env!("CARGO_BIN_EXE_ketch"));
    ketch
        .args([command, "--batch", "-P", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    ketch
}

/// Waits until a command has ended, and checks how: one sentence, this exit code. Gives the sentence.
fn fails(command: &mut Command, code: i32) -> String {
    failed(command.spawn().unwrap(), code)
}

fn failed(mut child: Child, code: i32) -> String {
    let mut waited = Duration::ZERO;
    while child.try_wait().unwrap().is_none() {
        if waited > LIMIT {
            child.kill().unwrap();
            panic!("still running: {:?}", child.wait_with_output());
        }
        std::thread::sleep(LOOK);
        waited += LOOK;
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(stdout.is_empty(), "standard output is for what was asked");
    let sentence = said
        .strip_prefix("ketch: ")
        .and_then(|said| said.strip_suffix('\n'))
        .unwrap_or_else(|| panic!("{said:?}"));
    assert!(!sentence.is_empty(), "{said:?}");
    assert!(!sentence.chars().any(char::is_control), "{said:?}");
    println!("{sentence}");
    sentence.to_owned()
}

/// Processes that are stopped until this is dropped. They may have lost their parents by then, and
/// nobody else would find them.
struct Suspended(Vec<Process>);

impl Suspended {
    fn new(processes: Vec<Process>) -> Self {
        processes.iter().for_each(|process| process.suspend());
        Self(processes)
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        self.0.iter().for_each(|process| process.resume());
    }
}

/// Starts a transfer and waits until its temporary file in `dir` has grown.
fn started(command: &mut Command, dir: &Path) -> Child {
    let begun = begun(command, dir);
    begun.unwrap_or_else(|ended| panic!("{ended:?}"))
}

/// The same with a deadline for a server that says nothing: a longer one where the machine alone
/// was too slow for it.
fn started_with_deadline(command: impl Fn() -> Command, dir: &Path) -> Child {
    let mut ended = None;
    for time in ["2s", "15s", "60s"] {
        match begun(command().args(["--timeout", time]), dir) {
            Ok(child) => return child,
            Err(early) => ended = Some(early),
        }
    }
    panic!("{ended:?}")
}

fn begun(command: &mut Command, dir: &Path) -> Result<Child, Output> {
    let mut child = command.spawn().unwrap();
    let grown = || {
        let temporary = names(dir).into_iter().find(|name| name.contains(".ketch-"));
        let metadata = temporary.and_then(|name| fs::metadata(dir.join(name)).ok());
        metadata.is_some_and(|metadata| metadata.len() >= GROWN)
    };
    while !grown() {
        if child.try_wait().unwrap().is_some() {
            return Err(child.wait_with_output().unwrap());
        }
        std::thread::sleep(LOOK);
    }
    Ok(child)
}

/// What a directory holds, hidden names included.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn endless(path: &Path) {
    File::create_new(path).unwrap().set_len(ENDLESS).unwrap();
}

/// Checks that a directory holds the file `name` of before, and nothing else.
fn is_untouched(dir: &Path, name: &str) {
    assert_eq!(names(dir), [name]);
    assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), OLD);
}

#[test]
fn a_full_local_disk_keeps_the_old_file() {
    let scene = Scene::new();
    let disk = TinyDisk::mount(2048).expect("this test mounts a tmpfs, which takes root");
    random_file(&scene.path("there/file"), 16 * MIB).unwrap();
    let local = disk.path().join("file");
    fs::write(&local, OLD).unwrap();
    let said = fails(&mut scene.get(&scene.path("there/file"), &local), NO_SPACE);
    assert!(said.contains(disk.path().to_str().unwrap()), "{said}");
    is_untouched(disk.path(), "file");
}

#[test]
fn a_disk_that_a_directory_fills_holds_what_fits() {
    let scene = Scene::new();
    let disk = TinyDisk::mount(2048).expect("this test mounts a tmpfs, which takes root");
    let mut hashes = Vec::new();
    for (name, len) in [("a", 1000), ("b", 16 * MIB), ("c", 2000), ("d", 16 * MIB)] {
        let path = scene.path("there").join(name);
        hashes.push((name, random_file(&path, len).unwrap()));
    }
    let copy = disk.path().join("copy");
    for (mut transfer, code) in [
        (scene.get(&scene.path("there"), &copy), NO_SPACE),
        // Version 3 has no status for it: the server is asked how much room it has.
        (scene.put(&scene.path("there"), &copy), NO_SPACE),
    ] {
        let output = transfer.arg("-r").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        for (name, is_there) in [("a", true), ("b", false), ("c", true), ("d", false)] {
            let is_told = said
                .lines()
                .any(|line| line.contains(&format!("there/{name}:")));
            assert_eq!(is_told, !is_there, "{name}: {said}");
        }
        assert_eq!(names(&copy), ["a", "c"]);
        for name in names(&copy) {
            let (_, hash) = hashes.iter().find(|(known, _)| *known == name).unwrap();
            assert_eq!(Sha256::of_file(&copy.join(&name)).unwrap(), *hash, "{name}");
        }
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn a_full_disk_of_the_server_keeps_the_old_file() {
    let scene = Scene::new();
    let disk = TinyDisk::mount(2048).expect("this test mounts a tmpfs, which takes root");
    random_file(&scene.path("here/file"), 16 * MIB).unwrap();
    let remote = disk.path().join("file");
    fs::write(&remote, OLD).unwrap();
    // Version 3 has no status for it: sshd says `Failure`, and then how much room it has.
    let said = fails(&mut scene.put(&scene.path("here/file"), &remote), NO_SPACE);
    assert!(said.contains("no space left on the server"), "{said}");
    assert!(said.contains(remote.to_str().unwrap()), "{said}");
    is_untouched(disk.path(), "file");
}

#[test]
fn a_read_only_local_disk_is_named() {
    let scene = Scene::new();
    let disk = TinyDisk::mount(64).expect("this test mounts a tmpfs, which takes root");
    fs::write(scene.path("there/file"), "new").unwrap();
    fs::write(disk.path().join("file"), OLD).unwrap();
    let remount = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(disk.path())
        .status();
    assert!(remount.unwrap().success());
    let local = disk.path().join("file");
    let said = fails(
        &mut scene.get(&scene.path("there/file"), &local),
        PERMISSION,
    );
    assert!(said.contains(disk.path().to_str().unwrap()), "{said}");
    is_untouched(disk.path(), "file");
}

#[test]
fn a_server_killed_in_mid_download_keeps_the_old_file() {
    let mut scene = Scene::new();
    endless(&scene.path("there/file"));
    let local = scene.path("here/file");
    fs::write(&local, OLD).unwrap();
    let mut get = scene.get(&scene.path("there/file"), &local);
    let get = started(&mut get, &scene.path("here"));
    scene.server.kill();
    failed(get, NETWORK);
    is_untouched(&scene.path("here"), "file");
}

#[test]
fn a_server_killed_in_mid_upload_keeps_the_old_file() {
    let mut scene = Scene::new();
    endless(&scene.path("here/file"));
    let remote = scene.path("there/file");
    fs::write(&remote, OLD).unwrap();
    let mut put = scene.put(&scene.path("here/file"), &remote);
    // Holes would not be sent at all.
    let put = started(put.args(["--sparse", "never"]), &scene.path("there"));
    scene.server.kill();
    failed(put, NETWORK);
    // Nobody is there to remove the temporary file.
    assert_eq!(fs::read_to_string(&remote).unwrap(), OLD);
    assert_eq!(names(&scene.path("here")), ["file"]);
}

#[test]
fn an_sftp_server_that_stops_in_mid_upload_ends_it_at_the_deadline() {
    let scene = Scene::new();
    endless(&scene.path("here/file"));
    let remote = scene.path("there/file");
    fs::write(&remote, OLD).unwrap();
    let put = || {
        let mut put = scene.put(&scene.path("here/file"), &remote);
        put.args(["--sparse", "never"]);
        put
    };
    let put = started_with_deadline(put, &scene.path("there"));
    // sshd goes on: it takes what its window admits, answers keepalives, and starts SFTP on other
    // channels, which stops there as well.
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                scene.server.suspend_sftp();
                std::thread::sleep(LOOK);
            }
        });
        let failing = std::panic::AssertUnwindSafe(|| failed(put, TIMEOUT));
        let failing = std::panic::catch_unwind(failing);
        ended.store(true, Ordering::SeqCst);
        failing.unwrap();
    });
    scene.server.resume_sftp();
    assert_eq!(fs::read_to_string(&remote).unwrap(), OLD);
}

#[test]
fn a_server_that_stops_altogether_ends_the_download_at_the_deadline() {
    let scene = Scene::new();
    endless(&scene.path("there/file"));
    let local = scene.path("here/file");
    fs::write(&local, OLD).unwrap();
    let get = || scene.get(&scene.path("there/file"), &local);
    let get = started_with_deadline(get, &scene.path("here"));
    // Not even keepalives are answered; the stream stays open, as if a cable were cut.
    // Who is stopped first starts nothing for another connection.
    let sshd = scene.server.process();
    sshd.suspend();
    let _suspended = Suspended::new([vec![sshd], sshd.descendants()].concat());
    failed(get, TIMEOUT);
    is_untouched(&scene.path("here"), "file");
}

#[test]
fn a_listener_that_says_nothing_ends_in_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let home = tempfile::tempdir().unwrap();
    let mut ls = ketch("ls", port);
    ls.args(["--connect-timeout", "1s", "--password-file"])
        .arg(password(&home, "never sent"))
        .arg("ann@127.0.0.1:")
        .env("HOME", home.path());
    let said = fails(&mut ls, TIMEOUT);
    assert!(said.contains("127.0.0.1"), "{said}");
}

#[test]
fn a_wrong_password_is_refused_by_sshd() {
    let scene = Scene::with(OpenSshConfig {
        password_authentication: true,
        ..OpenSshConfig::default()
    });
    let mut get = ketch("get", scene.server.port());
    get.arg("--password-file")
        .arg(password(&scene.dir, "surely not this"))
        .arg(scene.remote(&scene.path("there/file")))
        .arg(scene.path("here/file"))
        .env("HOME", scene.server.client_home());
    let said = fails(&mut get, LOGIN);
    assert!(said.contains(scene.server.user()), "{said}");
    assert!(!said.contains("surely"), "{said}");
    assert!(names(&scene.path("here")).is_empty());
}

fn password(dir: &TempDir, password: &str) -> PathBuf {
    let file = dir.path().join("password");
    fs::write(&file, password).unwrap();
    file
}
