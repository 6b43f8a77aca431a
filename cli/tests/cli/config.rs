//! The configuration that the user already has, against the real sshd: aliases, jump hosts, host
//! certificates, revoked keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};

use crate::scene::failure;

/// A running sshd, and a home with a configuration for its client.
struct Scene {
    server: OpenSshServer,
}

impl Scene {
    fn start(lines: &[String]) -> Self {
        let config = OpenSshConfig {
            lines: lines.to_vec(),
            ..OpenSshConfig::default()
        };
        Self {
            server: OpenSshServer::start(config).unwrap(),
        }
    }

    /// A file in the client's `.ssh`.
    fn path(&self, name: &str) -> PathBuf {
        self.server.client_home().join(".ssh").join(name)
    }

    /// Writes the client's configuration; `{…}` stand for what the server is.
    fn configure(&self, text: &str) {
        let text = text
            .replace("{port}", &self.server.port().to_string())
            .replace("{user}", self.server.user())
            .replace("{key}", self.server.identity().private().to_str().unwrap());
        fs::write(self.path("config"), text).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(self.path("config"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn known(&self, line: &str) {
        fs::write(self.path("known_hosts"), format!("{line}\n")).unwrap();
    }

    fn ketch(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ketch"))
            .args(args)
            .arg("--batch")
            .env("HOME", self.server.client_home())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn succeeds(&self, args: &[&str]) {
        let output = self.ketch(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    fn fails(&self, args: &[&str], code: i32) -> String {
        failure(&self.ketch(args), code)
    }
}

const FILES: &str = "\
Host files
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {key}
    StrictHostKeyChecking yes
";

#[test]
fn an_alias_leads_through_its_jump_host_to_the_server() {
    let scene = Scene::start(&[]);
    scene.configure(&format!(
        "{FILES}    HostKeyAlias gate\n    ProxyJump %r@jump\n\
         Host jump\n    HostName localhost\n    Port {{port}}\n    IdentityFile {{key}}\n\
         \x20   HostKeyAlias door\n    AddressFamily inet\n"
    ));
    let key = scene.server.host_key().public_key().to_owned();
    scene.known(&format!("gate {key}\ndoor {key}"));
    scene.succeeds(&["ls", "files:/"]);
    let log = scene.server.log();
    assert_eq!(log.matches("Accepted publickey").count(), 2, "{log}");
    // Each of the two has to be known.
    scene.known(&format!("gate {key}"));
    let said = scene.fails(&["ls", "files:/"], 8);
    assert!(said.contains("door"), "{said}");
    scene.known(&format!("door {key}"));
    let said = scene.fails(&["ls", "files:/"], 8);
    assert!(said.contains("gate"), "{said}");
    // What is typed comes before what is written.
    scene.known(&format!("gate {key}"));
    scene.succeeds(&["ls", "--proxy", "none", "files:/"]);
    scene.succeeds(&["ls", "-o", "ProxyJump=none", "files:/"]);
    let said = scene.fails(&["ls", "--proxy", "none", "-P", "1", "files:/"], 10);
    assert!(said.contains("127.0.0.1:1"), "{said}");
    // Without the configuration there is no such host.
    let key = scene.server.identity().private();
    let args = ["-F", "none", "-i", key.to_str().unwrap()];
    scene.fails(&[&["ls"][..], &args, &["files.invalid:/"]].concat(), 10);
}

#[test]
fn a_jump_host_can_be_typed() {
    let scene = Scene::start(&[]);
    scene.configure(FILES);
    let jump = format!("{}@127.0.0.1:{}", scene.server.user(), scene.server.port());
    // The jump host has no key to log in with: it is not in the configuration.
    scene.fails(&["ls", "-J", &jump, "files:/"], 7);
    scene.configure(&format!("IdentityFile {{key}}\n{FILES}"));
    scene.succeeds(&["ls", "-J", &jump, "files:/"]);
    assert_eq!(scene.server.log().matches("Accepted publickey").count(), 2);
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let scene = Scene::start(&[]);
    scene.configure(&format!("{FILES}    Compression perhaps\n"));
    let said = scene.fails(&["ls", "files:/"], 13);
    assert!(
        said.contains("config:7: compression: \"perhaps\""),
        "{said}"
    );
    scene.configure(&format!("{FILES}    Ciphers 3des-ctr\n"));
    let output = scene.ketch(&["ls", "files:/"]);
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("Ciphers") && said.contains("ketch algorithms"),
        "{said}"
    );
    scene.configure(&format!("{FILES}    Ciphers 3des-ctr,aes128-ctr\n"));
    scene.succeeds(&["ls", "files:/"]);
    let said = scene.fails(&["ls", "-F", "/not/there", "files:/"], 3);
    assert!(said.contains("/not/there"), "{said}");
}

/// An authority, and a host key that it certified, with the lines for sshd.
struct Certified {
    dir: tempfile::TempDir,
    lines: Vec<String>,
}

impl Certified {
    fn new(principals: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ca", "host"] {
            keygen(dir.path(), &["-t", "ed25519", "-N", "", "-f", name]);
        }
        let args = [
            "-s", "ca", "-h", "-I", "host", "-n", principals, "-z", "7", "host.pub",
        ];
        keygen(dir.path(), &args);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let lines = vec![
            format!("HostKey {}", path("host")),
            format!("HostCertificate {}", path("host-cert.pub")),
        ];
        Self { dir, lines }
    }

    fn authority(&self) -> String {
        let line = fs::read_to_string(self.dir.path().join("ca.pub")).unwrap();
        line.trim_end().to_owned()
    }
}

fn keygen(dir: &Path, args: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    let output = command
        .arg("-q")
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

#[test]
fn a_host_is_known_by_its_authority() {
    let certified = Certified::new("gate,127.0.0.1");
    let scene = Scene::start(&certified.lines);
    scene.configure(FILES);
    let authority = certified.authority();
    scene.known(&format!("@cert-authority 127.0.0.* {authority}"));
    scene.succeeds(&["ls", "files:/"]);
    let said = scene.fails(&["ls", "-o", "HostKeyAlias=127.0.0.9", "files:/"], 8);
    assert!(said.contains("other principals"), "{said}");
    scene.known(&format!(
        "@cert-authority * {authority}\n@revoked * {authority}"
    ));
    let said = scene.fails(&["ls", "files:/"], 8);
    assert!(said.contains("revoked"), "{said}");
    scene.known("");
    let said = scene.fails(&["ls", "files:/"], 8);
    assert!(said.contains("not known"), "{said}");
}

#[test]
fn a_list_of_revoked_keys_is_heeded() {
    let certified = Certified::new("127.0.0.1");
    let scene = Scene::start(&certified.lines);
    scene.configure(&format!("{FILES}    RevokedHostKeys ~/.ssh/revoked\n"));
    scene.known(&format!("@cert-authority * {}", certified.authority()));
    let said = scene.fails(&["ls", "files:/"], 3);
    assert!(said.contains("revoked"), "{said}");
    let list = scene.path("revoked").display().to_string();
    fs::write(certified.dir.path().join("other"), "serial: 8\n").unwrap();
    fs::write(certified.dir.path().join("this"), "serial: 7\n").unwrap();
    keygen(
        certified.dir.path(),
        &["-k", "-f", &list, "-s", "ca.pub", "other"],
    );
    scene.succeeds(&["ls", "files:/"]);
    for revoked in [&["-s", "ca.pub", "this"][..], &["host.pub"], &["ca.pub"]] {
        keygen(
            certified.dir.path(),
            &[&["-k", "-f", &list][..], revoked].concat(),
        );
        let said = scene.fails(&["ls", "files:/"], 8);
        assert!(
            said.contains("is revoked") && said.contains(&list),
            "{said}"
        );
    }
}

#[test]
fn a_key_that_can_be_checked_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    keygen(dir.path(), &["-t", "ecdsa", "-N", "", "-f", "ecdsa"]);
    let key = dir.path().join("ecdsa").display().to_string();
    let scene = Scene::start(&[format!("HostKey {key}")]);
    scene.configure(FILES);
    let line = fs::read_to_string(format!("{key}.pub")).unwrap();
    scene.known(&format!("[127.0.0.1]:{} {line}", scene.server.port()));
    let first = ["ls", "--host-key-algorithms", "^ssh-ed25519", "files:/"];
    let said = scene.fails(&first, 8);
    assert!(said.contains("another type of key"), "{said}");
    scene.succeeds(&["ls", "files:/"]);
}

#[test]
fn what_only_old_servers_speak_has_to_be_asked_for() {
    let scene = Scene::start(&["KexAlgorithms diffie-hellman-group14-sha1".to_owned()]);
    scene.configure(FILES);
    let said = scene.fails(&["ls", "files:/"], 9);
    assert!(said.contains("--profile legacy"), "{said}");
    let output = scene.ketch(&["ls", "--profile", "legacy", "files:/"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with("diffie-hellman-group14-sha1\n"), "{said}");
    scene.succeeds(&["ls", "--kex", "+diffie-hellman-group14-sha1", "files:/"]);
    scene.succeeds(&[
        "ls",
        "-o",
        "KexAlgorithms=+diffie-hellman-group14-sha1",
        "files:/",
    ]);
    let said = scene.fails(&["ls", "--profile", "pq-only", "files:/"], 9);
    assert!(said.contains("--profile"), "{said}");
}

/// Visits after which a host's further keys are known, however quick each of them is.
const VISITS_MAX: u32 = 20;

#[test]
fn further_keys_that_a_host_proves_are_learnt_and_old_ones_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut lines = Vec::new();
    for name in ["ecdsa", "ed25519"] {
        keygen(dir.path(), &["-t", name, "-N", "", "-f", name]);
        lines.push(format!("HostKey {}", path(name)));
    }
    keygen(
        dir.path(),
        &["-t", "rsa", "-b", "2048", "-N", "", "-f", "old"],
    );
    let scene = Scene::start(&lines);
    scene.configure(FILES);
    let name = format!("[127.0.0.1]:{}", scene.server.port());
    let line = |key: &str| {
        let public = fs::read_to_string(path(&format!("{key}.pub"))).unwrap();
        let words: Vec<_> = public.split(' ').take(2).collect();
        format!("{name} {}", words.join(" "))
    };
    scene.known(&format!("{}\n{}", line("ed25519"), line("old")));
    let before = fs::read_to_string(scene.path("known_hosts")).unwrap();
    scene.succeeds(&[
        "ls",
        "-F",
        "none",
        "-o",
        "UpdateHostKeys=no",
        "-i",
        key(&scene),
        &remote(&scene),
    ]);
    assert_eq!(
        fs::read_to_string(scene.path("known_hosts")).unwrap(),
        before
    );
    // A command that is done before the host has proved its keys leaves that to the next one.
    let mut after = before.clone();
    for _ in 0..VISITS_MAX {
        scene.succeeds(&["ls", "-F", "none", "-i", key(&scene), &remote(&scene)]);
        after = fs::read_to_string(scene.path("known_hosts")).unwrap();
        if after != before {
            break;
        }
    }
    assert!(
        after.starts_with(&format!("{}\n", line("ed25519"))),
        "{after}"
    );
    assert!(after.contains(&line("ecdsa")), "{after}");
    assert!(!after.contains(&line("old")), "{after}");
}

fn key(scene: &Scene) -> &str {
    scene.server.identity().private().to_str().unwrap()
}

fn remote(scene: &Scene) -> String {
    format!(
        "sftp://{}@127.0.0.1:{}/",
        scene.server.user(),
        scene.server.port()
    )
}

#[test]
fn a_command_runs_with_our_streams_and_ends_with_its_code() {
    use std::io::Write as _;
    // What the account's own start-up files say and do is no part of this.
    let lines = ["AcceptEnv KETCH_*", "SetEnv HOME=/nonexistent"];
    let scene = Scene::start(&lines.map(str::to_owned));
    scene.configure(&format!(
        "{FILES}    SetEnv KETCH_A=one\n    SendEnv KETCH_B\n"
    ));
    let run = |command: &[&str], input: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ketch"))
            .args(["exec", "--batch", "files", "--"])
            .args(command)
            .env("HOME", scene.server.client_home())
            .env("KETCH_B", "two")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read may be gone by now.
        let _ = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let said = |code, out: &str, err: &str| (Some(code), out.to_owned(), err.to_owned());
    assert_eq!(
        run(&["sort | tr a-z A-Z"], b"b\na\n"),
        said(0, "A\nB\n", "")
    );
    assert_eq!(
        run(&["echo out; echo err >&2; exit 7"], b""),
        said(7, "out\n", "err\n")
    );
    assert_eq!(
        run(&["printf", "%s.", "it's $HOME", "*"], b""),
        said(0, "it's $HOME.*.", "")
    );
    assert_eq!(
        run(&["echo $KETCH_A $KETCH_B"], b""),
        said(0, "one two\n", "")
    );
    assert_eq!(run(&["kill -TERM $$"], b"").0, Some(143));
    let large = "x".repeat(3 << 20);
    assert_eq!(run(&["cat"], large.as_bytes()), said(0, &large, ""));
}

#[test]
fn a_connection_comes_from_the_address_and_the_family_that_were_named() {
    let scene = Scene::start(&[]);
    scene.known(&format!("gate {}", scene.server.host_key().public_key()));
    scene.configure(&format!(
        "{FILES}    HostKeyAlias gate\n    BindAddress 127.0.0.9\n    AddressFamily inet\n"
    ));
    scene.succeeds(&["ls", "files:/"]);
    scene.succeeds(&["ls", "--bind-address", "127.0.0.10", "files:/"]);
    let log = scene.server.log();
    for from in ["from 127.0.0.9 port", "from 127.0.0.10 port"] {
        let lines = log.lines().filter(|line| line.contains("Accepted"));
        assert_eq!(lines.filter(|line| line.contains(from)).count(), 1, "{log}");
    }
    let told = scene.fails(&["ls", "-6", "files:/"], 10);
    assert!(told.contains("family"), "{told}");
}
