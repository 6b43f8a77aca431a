//! `ketch serve --config`: a server with users of its own, under OpenSSH's own client.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
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

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }
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

    /// What the server said on standard error, but that it runs as root, as it may in tests, and a
    /// line that it has not finished.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap();
        let lines = text.split_inclusive('\n');
        lines
            .filter(|line| line.ends_with('\n') && !line.contains("running as root"))
            .collect()
    }

    /// Has the server read its file again, and waits until it says what came of that.
    pub(crate) fn reload(&self, server: &Running) -> String {
        let before = self.log().len();
        server.signal(Signal::HUP);
        eventually(|| {
            let said = self.log().split_off(before);
            said.lines()
                .any(|line| line.contains("reloaded"))
                .then_some(said)
        })
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
            "ConnectTimeout=60",
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

/// Waits until something is there.
pub(crate) fn eventually<T>(mut is_there: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(it) = is_there() {
            return it;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it never came");
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

#[test]
fn openssh_logs_in_by_certificate_and_by_two_factors() {
    let place = Place::new();
    let authority = place.key("authority");
    let of_users = place.key("authority_of_users");
    for (key, signer, principals) in [
        ("anna", "authority_of_users", "anna"),
        ("bob", "authority", "suppliers,others"),
        ("eve", "authority", "strangers"),
    ] {
        place.key(key);
        let signed = Command::new("ssh-keygen")
            .arg("-qs")
            .arg(place.path(signer))
            .args(["-I", key, "-n", principals])
            .arg(place.path(&format!("{key}.pub")))
            .status()
            .unwrap();
        assert!(signed.success());
    }
    let both = place.key("both");
    let by_authority = format!(
        "certificate_authorities = [{{ key = \"{authority}\", principals = [\"suppliers\"] }}]"
    );
    let two = format!(
        "authorized_keys = [\"{both}\"]\npassword_hash = \"{}\"\n\
         require = [\"publickey\", \"password\"]",
        hash("second")
    );
    let users = [
        user("anna", ""),
        user("bob", &by_authority),
        user("carl", &two),
    ];
    place.write(&format!("{}\n", users.concat()));
    let text = fs::read_to_string(place.path("server.toml")).unwrap();
    place.write_whole(&format!("user_authorities = [\"{of_users}\"]\n{text}"));

    let server = place.serve();
    let get = "get hello\n";
    for (name, key, lets_in) in [
        ("anna", "anna", true),
        ("bob", "bob", true),
        ("bob", "eve", false),
        ("anna", "bob", false),
        ("carl", "anna", false),
        ("carl", "both", false),
    ] {
        let (went, said) = place.by_key(&server, name, key, get);
        assert_eq!(went, lets_in, "{name} with {key}: {said}");
    }
    let (went, said) = place.by_password(&server, "carl", "second", Some("both"), get);
    assert!(went, "{said}");
    assert!(!place.by_password(&server, "carl", "second", None, get).0);
    assert!(
        !place
            .by_password(&server, "carl", "first", Some("both"), get)
            .0
    );
}

#[test]
fn users_are_kept_to_what_the_file_says_of_them() {
    let place = Place::new();
    let key = place.key("id");
    let with = |more: &str| format!("authorized_keys = [\"{key}\"]\n{more}");
    let users = [
        user("reader", &with("access = \"read-only\"")),
        user("below", &with("root = \"below\"")),
        user("elsewhere", &with("sources = [\"192.0.2.0/24\"]")),
        user("here", &with("sources = [\"127.0.0.0/8\"]")),
        user("past", &with("expires = 2020-01-31T18:00:00Z")),
        user("disabled", &with("disabled = true")),
    ];
    fs::create_dir(place.path("root/below")).unwrap();
    place.write(&users.concat());
    let server = place.serve();
    for name in ["elsewhere", "past", "disabled"] {
        let (went, said) = place.by_key(&server, name, "id", "ls\n");
        assert!(
            !went && said.contains("Permission denied"),
            "{name}: {said}"
        );
    }
    assert!(
        place
            .by_key(&server, "here", "id", "put ../server.toml up\n")
            .0
    );
    assert!(place.by_key(&server, "reader", "id", "get hello\n").0);
    for change in [
        "put ../server.toml up2",
        "rm up",
        "rename up up2",
        "mkdir new",
        "chmod 600 up",
    ] {
        let (went, said) = place.by_key(&server, "reader", "id", &format!("{change}\n"));
        assert!(!went, "{change}: {said}");
    }
    let (went, said) = place.by_key(
        &server,
        "below",
        "id",
        "put ../server.toml up\nget ../hello\n",
    );
    assert!(!went, "{said}");
    assert!(place.path("root/below/up").exists());
}

#[test]
fn a_file_is_read_again_on_sighup_and_a_broken_one_changes_nothing() {
    let place = Place::new();
    let key = place.key("id");
    let with = |more: &str| format!("authorized_keys = [\"{key}\"]\n{more}");
    let anna = user("anna", &with(""));
    place.write(&anna);
    let server = place.serve();
    assert!(place.by_key(&server, "anna", "id", "ls\n").0);
    assert!(!place.by_key(&server, "bob", "id", "ls\n").0);

    place.write(&format!("{anna}nonsense = 1\n"));
    let said = place.reload(&server);
    assert!(
        said.contains(".anna.nonsense: there is no such key"),
        "{said}"
    );
    assert!(said.ends_with("ketch: nothing was reloaded\n"), "{said}");
    assert!(place.by_key(&server, "anna", "id", "ls\n").0);

    // Somebody is in the middle of a transfer when they are taken out.
    fs::File::create(place.path("root/large"))
        .and_then(|file| file.set_len(1 << 30))
        .unwrap();
    let identity = format!("IdentityFile={}", place.path("id").display());
    let mut transfer = place
        .sftp(
            &server,
            "anna",
            &["-o", &identity, "-o", "BatchMode=yes", "-l", "8000"],
        )
        .spawn()
        .unwrap();
    let mut stdin = transfer.stdin.take().unwrap();
    stdin.write_all(b"get large\n").unwrap();
    let arrives = || {
        fs::metadata(place.path("local/large"))
            .ok()
            .filter(|file| file.len() > 0)
    };
    eventually(arrives);
    place.write(
        &[
            user("anna", &with("disabled = true")),
            user("bob", &with("")),
        ]
        .concat(),
    );
    assert_eq!(
        place.reload(&server),
        "ketch: reloaded: 2 users, 1 endpoint, 1 organisation\n"
    );
    let ended = eventually(|| transfer.try_wait().unwrap());
    assert!(!ended.success());
    assert!(!place.by_key(&server, "anna", "id", "ls\n").0);
    assert!(place.by_key(&server, "bob", "id", "ls\n").0);
}

/// O2: nothing runs in a signal's handler, so signals at any rate and at any moment do no harm.
#[test]
#[expect(clippy::disallowed_methods, reason = "the rate is printed")]
fn a_storm_of_signals_does_no_harm() {
    let place = Place::new();
    let key = place.key("id");
    place.write(&user("anna", &format!("authorized_keys = [\"{key}\"]")));
    fs::write(place.path("root/data"), vec![7; 32 << 20]).unwrap();
    let mut server = place.serve();
    let pid = server.pid();
    let over = std::sync::atomic::AtomicBool::new(false);
    let sent = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = std::time::Instant::now();
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for _ in 0..4 {
                    kill_process(pid, Signal::HUP).unwrap();
                }
                sent.fetch_add(4, std::sync::atomic::Ordering::Relaxed);
                // Ten thousand a second, as far as the machine keeps time.
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
            println!("{sent:?} signals in {:?}", begun.elapsed());
        });
        let enough = || sent.load(std::sync::atomic::Ordering::Relaxed) > 100;
        for n in 0..100 {
            let (went, said) = place.by_key(&server, "anna", "id", "get data\nput data up\n");
            if !went {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            assert!(went, "{n}: {said}");
            if n >= 2 && enough() {
                break;
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(enough(), "{sent:?}");
    });
    assert!(fs::read(place.path("root/up")).unwrap() == vec![7; 32 << 20]);
    let is_reload = |line: &str| line == "ketch: reloaded: 1 user, 1 endpoint, 1 organisation";
    assert!(place.log().lines().all(is_reload), "{}", place.log());

    // Its end is asked for again and again, with somebody in the middle of a transfer.
    let identity = format!("IdentityFile={}", place.path("id").display());
    let options = ["-o", &identity, "-o", "BatchMode=yes", "-l", "8000"];
    let mut transfer = place.sftp(&server, "anna", &options).spawn().unwrap();
    fs::remove_file(place.path("local/data")).unwrap();
    transfer
        .stdin
        .take()
        .unwrap()
        .write_all(b"get data\n")
        .unwrap();
    let arrives = || {
        fs::metadata(place.path("local/data"))
            .ok()
            .filter(|file| file.len() > 0)
    };
    eventually(arrives);
    let ended = eventually(|| {
        for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::TERM] {
            let _ = kill_process(pid, signal);
        }
        server.child.try_wait().unwrap()
    });
    assert!(ended.success(), "{ended:?}");
    assert!(!eventually(|| transfer.try_wait().unwrap()).success());
}

/// Host keys are changed without anybody being asked: OpenSSH's client learns the next one before it
/// is used, and forgets the one that is not told of any more.
#[test]
fn openssh_follows_the_servers_keys() {
    let place = Place::new();
    let key = place.key("id");
    let with_keys = |keys: &str| {
        place.write_whole(&format!(
            "listen = [\"127.0.0.1:0\"]\nalgorithms = \"compat\"\npenalties.enabled = false\n{keys}\n\
             [organisation.acme.endpoint.orders]\nroot = \"root\"\n{}",
            user("anna", &format!("authorized_keys = [\"{key}\"]"))
        ));
    };
    let host_key =
        |name: &str, more: &str| format!("[[host_key]]\nfile = \"keys/{name}\"\n{more}\n");
    let public = |name: &str| {
        let made = Command::new("ssh-keygen")
            .arg("-yf")
            .arg(place.path(&format!("keys/{name}")))
            .output()
            .unwrap();
        let line = String::from_utf8(made.stdout).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let knows = |key: &str| {
        let known = fs::read_to_string(place.path("known_hosts")).unwrap();
        known.contains(key)
    };
    let visit = |server: &Running, strict: &str, is_done: &dyn Fn() -> bool| {
        let identity = format!("IdentityFile={}", place.path("id").display());
        let strict = format!("StrictHostKeyChecking={strict}");
        let options = ["-o", &strict, "-o", &identity, "-o", "UpdateHostKeys=yes"];
        // What is learnt is learnt beside the session, which has to last so long.
        for _ in 0..20 {
            let (went, said) = ran(
                &mut place.sftp(server, "anna", &options),
                "ls\n!sleep 0.3\nls\n",
            );
            assert!(went, "{said}");
            if is_done() {
                return;
            }
        }
        panic!("{}", fs::read_to_string(place.path("known_hosts")).unwrap());
    };

    with_keys(&[host_key("first", ""), host_key("second", "use = \"next\"")].concat());
    let server = place.serve();
    let (first, second) = (public("first"), public("second"));
    visit(&server, "accept-new", &|| knows(&second));
    assert!(knows(&first));

    // The second is used, and the first is gone.
    with_keys(&host_key("second", ""));
    place.reload(&server);
    visit(&server, "yes", &|| !knows(&first));
    assert!(knows(&second));

    // One of another type is told of, and the second is only there for who knows no other.
    let third = host_key("third", "type = \"ecdsa-p256\"");
    with_keys(&[host_key("second", "use = \"retired\""), third].concat());
    place.reload(&server);
    let third = public("third");
    visit(&server, "yes", &|| knows(&third) && !knows(&second));
    visit(&server, "yes", &|| true);
}
