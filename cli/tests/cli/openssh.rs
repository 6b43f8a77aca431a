//! The same against the real sshd, which words its refusals in its own way.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use ketch_conformance::openssh::{KeyPair, OpenSshConfig, OpenSshServer};
use ketch_conformance::process::Process;
use tempfile::TempDir;

use crate::scene::failure;

/// A running sshd, and a directory on it.
pub(crate) struct Sshd {
    server: OpenSshServer,
    dir: TempDir,
}

impl Sshd {
    pub(crate) fn start() -> Self {
        let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
        Self {
            server,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn remote(&self, name: &str) -> String {
        format!("{}@127.0.0.1:{}", self.server.user(), self.path(name))
    }

    pub(crate) fn command(&self, args: &[&str], key: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ketch"));
        command
            .args(args)
            .args(["--batch", "-P", &self.server.port().to_string(), "-i"])
            .arg(key)
            .env("HOME", self.server.client_home())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn ketch(&self, args: &[&str]) -> Output {
        self.with_key(args).output().unwrap()
    }

    /// A command that may log in.
    pub(crate) fn with_key(&self, args: &[&str]) -> Command {
        self.command(args, self.server.identity().private())
    }

    pub(crate) fn fails(&self, args: &[&str], code: i32) -> String {
        failure(&self.ketch(args), code)
    }
}

#[test]
fn links_are_made_and_told() {
    let sshd = Sshd::start();
    fs::write(sshd.path("a"), "1").unwrap();
    let (link, second) = (sshd.remote("link"), sshd.remote("second"));
    let target = sshd.path("a");
    for args in [
        ["ln", "-s", "a", &link].as_slice(),
        &["ln", &target, &second],
    ] {
        let output = sshd.ketch(args);
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(fs::read(sshd.path("link")).unwrap(), b"1");
    assert_eq!(fs::read(sshd.path("second")).unwrap(), b"1");
    let told = |args: &[&str]| String::from_utf8(sshd.ketch(args).stdout).unwrap();
    assert!(told(&["stat", &link]).contains("\ntarget: a\n"));
    assert!(told(&["stat", "-L", &link]).contains("\nsize: 1\n"));
}

#[test]
fn refusals_of_sshd_get_the_same_codes() {
    let sshd = Sshd::start();
    fs::create_dir(sshd.path("in")).unwrap();
    fs::write(sshd.path("file"), "content").unwrap();
    let (missing, directory) = (sshd.remote("no-such"), sshd.remote("in"));
    let target = sshd.path("target");
    assert!(
        sshd.fails(&["get", &missing, &target], 3)
            .contains("no-such")
    );
    assert!(sshd.fails(&["ls", &missing], 3).contains("no-such"));
    assert!(sshd.fails(&["listen", &missing], 3).contains("no-such"));
    assert!(
        sshd.fails(&["get", &directory, &target], 2)
            .contains("use -r")
    );
    let into_missing = sshd.remote("no-such/file");
    assert!(
        sshd.fails(&["put", &sshd.path("file"), &into_missing], 3)
            .contains("no-such")
    );
    assert!(!Path::new(&target).exists());
}

#[test]
fn files_go_into_directories_of_sshd() {
    let sshd = Sshd::start();
    fs::create_dir(sshd.path("in")).unwrap();
    fs::write(sshd.path("file"), "content").unwrap();
    let output = sshd.ketch(&["put", &sshd.path("file"), &sshd.remote("in")]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(sshd.path("in/file")).unwrap(), b"content");
    let listed = sshd.ketch(&["ls", "-l", &sshd.remote("in")]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(
        listed.starts_with("-rw") && listed.ends_with(" file\n"),
        "{listed}"
    );
}

#[test]
fn a_key_that_sshd_does_not_know_is_refused_login() {
    let sshd = Sshd::start();
    let stranger = KeyPair::generate(&sshd.dir.path().join("stranger"), None).unwrap();
    let output = sshd
        .command(&["ls", &sshd.remote("")], stranger.private())
        .output()
        .unwrap();
    failure(&output, 7);
    let locked = KeyPair::generate(&sshd.dir.path().join("locked"), Some("pass")).unwrap();
    let output = sshd
        .command(&["ls", &sshd.remote("")], locked.private())
        .output()
        .unwrap();
    assert!(failure(&output, 7).contains("passphrase"));
}

#[test]
fn an_sshd_with_another_key_is_refused() {
    let sshd = Sshd::start();
    let other = KeyPair::generate(&sshd.dir.path().join("other"), None).unwrap();
    let known = sshd.path("known_hosts");
    let port = sshd.server.port();
    fs::write(
        &known,
        format!("[127.0.0.1]:{port} {}\n", other.public_key()),
    )
    .unwrap();
    let said = sshd.fails(
        &[
            "ls",
            "--accept-new",
            "--known-hosts",
            &known,
            &sshd.remote(""),
        ],
        8,
    );
    assert!(said.contains(&known), "{said}");
    let nothing = sshd.path("nothing");
    sshd.fails(&["ls", "--known-hosts", &nothing, &sshd.remote("")], 8);
    assert!(!Path::new(&nothing).exists());
}

#[test]
fn an_sftp_program_that_dies_costs_no_file() {
    // Who looks too late on a busy machine looks again at a longer file; they are made of holes.
    for len in [1 << 30, 4 << 30, 32 << 30] {
        let sshd = Sshd::start();
        let large = File::create(sshd.path("large")).unwrap();
        large.set_len(len).unwrap();
        fs::create_dir(sshd.path("here")).unwrap();
        let args = ["get", &sshd.remote("large"), &sshd.path("here")];
        let mut get = sshd.with_key(&args);
        let mut get = get.stderr(Stdio::piped()).spawn().unwrap();
        begun(&mut get, &sshd);
        let process = Process::from_id(get.id());
        process.suspend();
        let is_at_work = !Path::new(&sshd.path("here/large")).exists();
        if is_at_work {
            sshd.server.kill_sftp();
        }
        process.resume();
        let output = get.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let names: Vec<_> = fs::read_dir(sshd.path("here")).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(fs::metadata(sshd.path("here/large")).unwrap().len(), len);
        if is_at_work {
            return;
        }
    }
    panic!("it was never seen at work");
}

/// Waits until a download into `here` has made its file, or has ended; whether it has not ended.
fn begun(get: &mut Child, sshd: &Sshd) -> bool {
    while fs::read_dir(sshd.path("here")).unwrap().next().is_none() {
        if get.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    true
}

/// An sshd with an endless file, and a download of it that has begun, unless that ended before.
fn endless_download(more: &[&str]) -> Option<(Sshd, Child)> {
    let sshd = Sshd::start();
    let large = File::create(sshd.path("large")).unwrap();
    large.set_len(64 << 30).unwrap();
    fs::create_dir(sshd.path("here")).unwrap();
    let args = ["get", &sshd.remote("large"), &sshd.path("here")];
    let mut get = sshd.with_key(&[&args[..], more].concat());
    let get = get.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut get = get.spawn().unwrap();
    begun(&mut get, &sshd).then_some((sshd, get))
}

#[test]
fn an_sshd_that_dies_ends_the_transfer() {
    let (mut sshd, get) = endless_download(&[]).expect("it begins");
    sshd.server.kill();
    failure(&get.wait_with_output().unwrap(), 10);
    assert!(!Path::new(&sshd.path("here/large")).exists());
}

#[test]
fn an_sshd_that_stalls_ends_the_transfer() {
    // A busy machine may stall for long before sshd is made to.
    let timeouts = ["2s", "15s", "60s"];
    let begin = |time: &&str| endless_download(&["--timeout", time]);
    let (sshd, get) = timeouts.iter().find_map(begin).expect("it begins");
    // Wherever else it goes on, nothing is answered.
    let ended = std::sync::atomic::AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(std::sync::atomic::Ordering::SeqCst) {
                sshd.server.suspend_sftp();
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let output = get.wait_with_output().unwrap();
        ended.store(true, std::sync::atomic::Ordering::SeqCst);
        output
    });
    sshd.server.resume_sftp();
    failure(&output, 11);
    assert!(!Path::new(&sshd.path("here/large")).exists());
}
