//! `ketch serve --config`: a server with users of its own, under OpenSSH's own client.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::scene::listening;

/// A directory with a server's file, keys and a root.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

/// A server that ends with the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root", "local"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("root/hello"), "hello").unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the file: one endpoint, with these users.
    pub(crate) fn write(&self, users: &str) {
        self.write_whole(&format!(
            "listen = [\"127.0.0.1:0\"]\n\
             penalties.enabled = false\n\
             [[host_key]]\n\
             file = \"keys/host_ed25519\"\n\
             [organisation.acme.endpoint.orders]\n\
             root = \"root\"\n\
             {users}"
        ));
    }

    /// Writes the file as a whole, in one step: a server may be reading it.
    pub(crate) fn write_whole(&self, text: &str) {
        let new = self.path("server.toml.new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path("server.toml")).unwrap();
    }

    /// `ketch serve` with these arguments and the file.
    pub(crate) fn ketch(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ketch"))
            .arg("serve")
            .args(args)
            .arg("--config")
            .arg(self.path("server.toml"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn serve(&self) -> Running {
        let log = fs::File::create(self.path("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ketch"))
            .args(["serve", "--config"])
            .arg(self.path("server.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let port = listening(&mut child).port();
        Running { child, port }
    }

    /// What the server said on standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// A key pair of OpenSSH's; the line of its public half.
    pub(crate) fn key(&self, name: &str) -> String {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(self.path(name))
            .status()
            .unwrap();
        assert!(made.success());
        let line = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        line.trim_end().to_owned()
    }

    /// OpenSSH's sftp, ready to log in with these options.
    pub(crate) fn sftp(&self, server: &Running, user: &str, options: &[&str]) -> Command {
        let mut sftp = Command::new("sftp");
        sftp.args([
            "-F",
            "none",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
        ])
        .args([
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "ConnectTimeout=20",
        ])
        .arg("-o")
        .arg(format!(
            "UserKnownHostsFile={}",
            self.path("known_hosts").display()
        ))
        .args(options)
        .args(["-b", "-"])
        .args(["-P", &server.port.to_string()])
        .arg(format!("{user}@127.0.0.1"))
        .current_dir(self.path("local"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
        sftp
    }

    /// Logs in, with the key of that name, and runs a batch: whether all of it was right, and what was
    /// said.
    pub(crate) fn by_key(
        &self,
        server: &Running,
        user: &str,
        key: &str,
        batch: &str,
    ) -> (bool, String) {
        let identity = format!("IdentityFile={}", self.path(key).display());
        let options = ["-o", &identity, "-o", "BatchMode=yes"];
        ran(&mut self.sftp(server, user, &options), batch)
    }

    /// Logs in with a password, and also with a key if one is named.
    pub(crate) fn by_password(
        &self,
        server: &Running,
        user: &str,
        password: &str,
        key: Option<&str>,
        batch: &str,
    ) -> (bool, String) {
        let ask = self.path("askpass");
        fs::write(&ask, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        fs::set_permissions(&ask, Permissions::from_mode(0o700)).unwrap();
        let identity = match key {
            Some(key) => format!("IdentityFile={}", self.path(key).display()),
            None => "PubkeyAuthentication=no".to_owned(),
        };
        let options = [
            "-o",
            &identity,
            "-o",
            "BatchMode=no",
            "-o",
            "NumberOfPasswordPrompts=1",
        ];
        let mut sftp = self.sftp(server, user, &options);
        sftp.env("SSH_ASKPASS", ask)
            .env("SSH_ASKPASS_REQUIRE", "force");
        ran(&mut sftp, batch)
    }
}

/// Runs a batch to its end.
fn ran(sftp: &mut Command, batch: &str) -> (bool, String) {
    let mut child = sftp.spawn().unwrap();
    // Who is refused does not read it.
    let _ = child.stdin.take().unwrap().write_all(batch.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The hash that `ketch serve hash-password` makes of what is piped to it.
pub(crate) fn hash(password: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["serve", "hash-password"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{password}\n").as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

fn user(name: &str, lines: &str) -> String {
    format!("[organisation.acme.endpoint.orders.user.{name}]\n{lines}\n")
}

#[test]
fn a_file_is_checked_and_all_that_is_wrong_is_said() {
    let place = Place::new();
    let key = place.key("id");
    place.write(&user("anna", &format!("authorized_keys = [\"{key}\"]")));
    let checked = place.ketch(&["check"]);
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(
        checked.stdout,
        b"right: 1 user, 1 endpoint, 1 organisation\n"
    );
    assert!(!place.path("keys").exists(), "a check makes no keys");

    place.write(&user("anna", "passwort_hash = \"x\"\nexpires = \"soon\""));
    for args in [["check"].as_slice(), &[]] {
        let output = place.ketch(args);
        assert_eq!(output.status.code(), Some(13), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        let start = format!("ketch: {}: line ", place.path("server.toml").display());
        assert!(lines.iter().all(|line| line.starts_with(&start)), "{said}");
        assert!(lines[0].ends_with("there is no such key; do you mean password_hash?"));
    }
}

#[test]
fn the_schema_is_printed_and_a_hash_is_never_made_of_nothing() {
    let printed = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["serve", "schema"])
        .output()
        .unwrap();
    let checked_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/serve.schema.json");
    assert_eq!(printed.stdout, fs::read(checked_in).unwrap());
    assert!(hash("open sesame").starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    let nothing = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["serve", "hash-password"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(nothing.status.code(), Some(13));
}

#[test]
fn openssh_logs_in_by_key_and_by_password() {
    let place = Place::new();
    let key = place.key("id");
    fs::write(
        place.path("keys_of_bob"),
        format!("# bob's\n{}\n", place.key("bobs")),
    )
    .unwrap();
    let users = [
        user("anna", &format!("authorized_keys = [\"{key}\"]")),
        user("bob", "authorized_keys_file = \"keys_of_bob\""),
        user(
            "carl",
            &format!("password_hash = \"{}\"", hash("open sesame")),
        ),
    ];
    place.write(&users.concat());
    let server = place.serve();
    let get = "get hello\n";
    let (went, said) = place.by_key(&server, "anna", "id", get);
    assert!(went, "{said}");
    assert_eq!(fs::read(place.path("local/hello")).unwrap(), b"hello");
    assert!(place.by_key(&server, "bob", "bobs", get).0);
    for (name, wrong) in [("bob", "id"), ("carl", "id"), ("Anna", "id")] {
        let (went, said) = place.by_key(&server, name, wrong, get);
        assert!(
            !went && said.contains("Permission denied"),
            "{name}: {said}"
        );
    }
    let (went, said) = place.by_password(&server, "carl", "open sesame", None, get);
    assert!(went, "{said}");
    for (name, wrong) in [
        ("carl", "open"),
        ("anna", "open sesame"),
        ("eve", "open sesame"),
    ] {
        let (went, said) = place.by_password(&server, name, wrong, None, get);
        assert!(
            !went && said.contains("Permission denied"),
            "{name}: {said}"
        );
    }
    assert_eq!(place.log(), "", "nothing went wrong in the server");
}
