//! The `ketch` command against the real OpenSSH, both ways: the same bytes arrive, with every cipher,
//! and with keys exchanged every 16 MiB.
//!
//! The file has 1 GiB, or `KETCH_INTEROP_MIB` mebibytes.
#![cfg(target_os = "linux")]

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use ketch_conformance::content::{Sha256, random_file};
use ketch_conformance::openssh::{KeyPair, OpenSshClient, OpenSshConfig, OpenSshServer};

const CIPHERS: [&str; 3] = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
];

/// How often keys are exchanged, in OpenSSH's words.
const REKEY_LIMIT: &str = "16M";

fn size() -> u64 {
    let mib = std::env::var("KETCH_INTEROP_MIB")
        .ok()
        .and_then(|mib| mib.parse().ok());
    mib.unwrap_or(1024) << 20
}

/// The large files lie in memory, so the tests that make them take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A directory in memory: what is measured here is no disk.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn ketch(server: &OpenSshServer, cipher: &str, command: &str) -> Command {
    let mut ketch = Command::new(env!("CARGO_BIN_EXE_ketch"));
    ketch.args([
        command,
        "--batch",
        "-c",
        cipher,
        "-P",
        &server.port().to_string(),
        "-i",
    ]);
    ketch
        .arg(server.identity().private())
        .env("HOME", server.client_home());
    ketch
}

fn remote(server: &OpenSshServer, path: &Path) -> String {
    format!("{}@127.0.0.1:{}", server.user(), path.display())
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Downloads and uploads a file through a real sshd, with every cipher.
fn through_sshd(rekey_limit: Option<&str>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = memory_dir();
    let source = dir.path().join("source");
    let sum = random_file(&source, size()).unwrap();
    for cipher in CIPHERS {
        let server = OpenSshServer::start(OpenSshConfig {
            rekey_limit: rekey_limit.map(str::to_owned),
            ..OpenSshConfig::default()
        })
        .unwrap();
        let copy = dir.path().join("copy");
        succeeds(
            ketch(&server, cipher, "get")
                .arg(remote(&server, &source))
                .arg(&copy),
        );
        assert_eq!(Sha256::of_file(&copy).unwrap(), sum, "get, {cipher}");
        std::fs::remove_file(&copy).unwrap();
        succeeds(
            ketch(&server, cipher, "put")
                .arg(&source)
                .arg(remote(&server, &copy)),
        );
        assert_eq!(Sha256::of_file(&copy).unwrap(), sum, "put, {cipher}");
        std::fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn a_file_survives_get_and_put_through_sshd() {
    through_sshd(None);
}

#[test]
fn a_file_survives_sshd_exchanging_keys_all_the_time() {
    through_sshd(Some(REKEY_LIMIT));
}

/// A running `ketch serve`.
struct Served {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
    key: KeyPair,
}

impl Served {
    fn start() -> Self {
        let dir = memory_dir();
        let key = KeyPair::generate(&dir.path().join("id"), None).unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let keys = dir.path().join("authorized_keys");
        std::fs::write(&keys, key.public_line()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ketch"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--user",
                "ann",
                "--root",
            ])
            .arg(&root)
            .arg("--authorized-keys")
            .arg(&keys)
            .arg("--host-key")
            .arg(dir.path().join("host_key"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, behind) = line.split_once("127.0.0.1:")?;
                let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().ok()
            })
            .expect("it says on which port it listens");
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            port,
            dir,
            key,
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn sftp(&self, cipher: &str) -> OpenSshClient {
        let addr = ([127, 0, 0, 1], self.port).into();
        OpenSshClient::new(addr, "ann")
            .identity(self.key.private())
            .option(&format!("Ciphers={cipher}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Downloads and uploads a file with the real `sftp` against `ketch serve`, with every cipher.
fn through_sftp(option: Option<String>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let served = Served::start();
    let source = served.root().join("source");
    let sum = random_file(&source, size()).unwrap();
    let copy = served.dir.path().join("copy");
    for cipher in CIPHERS {
        let mut sftp = served.sftp(cipher);
        if let Some(option) = &option {
            sftp = sftp.option(option);
        }
        sftp.batch(&format!("get source {}\n", copy.display()))
            .unwrap()
            .check()
            .unwrap();
        assert_eq!(Sha256::of_file(&copy).unwrap(), sum, "get, {cipher}");
        sftp.batch(&format!("put {} back\n", copy.display()))
            .unwrap()
            .check()
            .unwrap();
        assert_eq!(
            Sha256::of_file(&served.root().join("back")).unwrap(),
            sum,
            "put, {cipher}"
        );
        std::fs::remove_file(&copy).unwrap();
        std::fs::remove_file(served.root().join("back")).unwrap();
    }
}

#[test]
fn a_file_survives_the_real_sftp_against_ketch_serve() {
    through_sftp(None);
}

#[test]
fn a_file_survives_sftp_exchanging_keys_all_the_time() {
    through_sftp(Some(format!("RekeyLimit={REKEY_LIMIT}")));
}

/// As small as OpenSSH takes it: keys are exchanged for every packet. It is slow, and it works.
#[test]
fn a_file_survives_sftp_with_new_keys_for_every_packet() {
    const LEN: u64 = 1 << 20;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let served = Served::start();
    let sum = random_file(&served.root().join("source"), LEN).unwrap();
    let copy = served.dir.path().join("copy");
    let sftp = served.sftp(CIPHERS[0]).option("RekeyLimit=16");
    let batch = format!("get source {0}\nput {0} back\n", copy.display());
    sftp.batch(&batch).unwrap().check().unwrap();
    assert_eq!(Sha256::of_file(&copy).unwrap(), sum, "get");
    let back = served.root().join("back");
    assert_eq!(Sha256::of_file(&back).unwrap(), sum, "put");
}

/// What takes a file's place, here or there, is nobody's to read who could not read the old one.
#[test]
fn what_takes_a_files_place_keeps_its_permissions() {
    let dir = memory_dir();
    let (open, secret) = (dir.path().join("open"), dir.path().join("secret"));
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for command in ["put", "get"] {
        std::fs::write(&open, b"new").unwrap();
        std::fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&secret, b"old").unwrap();
        std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let mut ketch = ketch(&server, CIPHERS[0], command);
        if command == "put" {
            ketch.arg(&open).arg(remote(&server, &secret));
        } else {
            ketch.arg(remote(&server, &open)).arg(&secret);
        }
        succeeds(&mut ketch);
        assert_eq!(std::fs::read(&secret).unwrap(), b"new", "{command}");
        assert_eq!(mode(&secret), 0o600, "{command}");
    }
}

/// `ketch listen` on a directory of sshd reports what the real `sftp` puts there.
#[test]
fn listen_reports_what_sftp_puts() {
    let dir = memory_dir();
    let inbox = dir.path().join("inbox");
    std::fs::create_dir(&inbox).unwrap();
    let source = dir.path().join("source");
    random_file(&source, 5000).unwrap();
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let mut listener = ketch(&server, CIPHERS[0], "listen")
        .args(["--existing", "--interval", "500ms"])
        .arg(remote(&server, &inbox))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::fs::write(inbox.join("first"), b"there at the start").unwrap();
    let mut lines = BufReader::new(listener.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    // Once it has told of the first file it has listed the directory: the next is a change.
    let first = lines.by_ref().find(|line| line.contains("first")).unwrap();
    assert!(first.contains("created"), "{first}");
    OpenSshClient::to(&server)
        .batch(&format!(
            "put {} {}/second\n",
            source.display(),
            inbox.display()
        ))
        .unwrap()
        .check()
        .unwrap();
    let second = lines.by_ref().find(|line| line.contains("second")).unwrap();
    assert!(second.contains("created"), "{second}");
    listener.kill().unwrap();
    listener.wait().unwrap();
}
