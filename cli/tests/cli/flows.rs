//! What belongs to `ketch listen --config`: each subcommand, with a listener that runs and without one.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::scene::failure;

const TOKEN: &str = "a-token-of-this-test";

/// A listener's file with one flow from `in` to `out`, and the listener if it was started.
pub(crate) struct Listener {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Listener {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "out"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let listener = Self {
            dir,
            port,
            child: None,
        };
        listener.write(&listener.api(TOKEN), "");
        listener
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("listener.toml")
    }

    fn api(&self, token: &str) -> String {
        format!(
            "[api]\nlisten = \"127.0.0.1:{}\"\ntoken = \"{token}\"\n",
            self.port
        )
    }

    fn write(&self, api: &str, more: &str) {
        let text = format!(
            "state = \"state\"\n{api}\n\
             [[source]]\nname = \"here\"\nlocal = \"in\"\n\n\
             [[flow]]\nname = \"orders\"\nsource = \"here\"\ninterval = \"manual\"\npush = \"never\"\n\
             settle = {{ rule = \"immediately\" }}\nattempts = 1\n\
             [[flow.sink]]\nname = \"disk\"\nkind = \"directory\"\npath = \"out\"\nexists = \"error\"\n\
             {more}\n"
        );
        fs::write(self.config(), text).unwrap();
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Starts it; what it says is to be read.
    pub(crate) fn spawn(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_ketch"))
            .args(["listen", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Starts it on a port that is free, and waits until it says that it is there.
    pub(crate) fn start(&mut self) {
        for _ in 0..10 {
            let mut child = self.spawn();
            let mut said = BufReader::new(child.stderr.take().unwrap());
            let mut all = String::new();
            while said.read_line(&mut all).unwrap() > 0 {
                if all.contains("API on ") {
                    // It may say more, and must not find the pipe closed.
                    std::thread::spawn(move || {
                        let _ = said.read_to_end(&mut Vec::new());
                    });
                    self.child = Some(child);
                    return;
                }
            }
            child.wait().unwrap();
            assert!(all.contains("cannot listen on"), "{all}");
            // Somebody else took the port in between.
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            self.port = free.local_addr().unwrap().port();
            drop(free);
            self.write(&self.api(TOKEN), "");
        }
        panic!("no port is free");
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let asked = Command::new("kill").arg(child.id().to_string()).status();
        assert!(asked.unwrap().success());
        assert!(child.wait().unwrap().success());
    }

    pub(crate) fn ketch(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ketch"));
        command.arg("listen").arg(args[0]);
        command.arg("--config").arg(self.config()).args(&args[1..]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// What a command says that must go well.
    pub(crate) fn says(&self, args: &[&str]) -> String {
        let output = self.ketch(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn fails(&self, args: &[&str], code: i32) -> String {
        failure(&self.ketch(args), code)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn check_tells_what_is_wrong_and_what_can_be_reached() {
    let listener = Listener::new();
    assert_eq!(
        listener.says(&["check", "--offline"]),
        "right: sources 1, flows 1\n"
    );
    assert_eq!(
        listener.says(&["check"]),
        "right: sources 1, flows 1\nsource here: Connection Valid\nsink orders.disk: Connection Valid\n"
    );
    assert!(!listener.path("state").exists(), "a check leaves nothing");
    fs::remove_dir(listener.path("out")).unwrap();
    fs::remove_dir(listener.path("in")).unwrap();
    fs::write(listener.path("out"), "a file").unwrap();
    let output = listener.ketch(&["check"]);
    assert_eq!(output.status.code(), Some(13));
    let told = lines(&output);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("ketch: source here: "), "{told:?}");
    assert!(told[1].starts_with("ketch: sink orders.disk: "), "{told:?}");

    listener.write(
        "shutdwn = \"5s\"",
        "attempts = 3\n[[flow]]\nname = \"x\"\nsource = \"hre\"\nsink = []",
    );
    let output = listener.ketch(&["check"]);
    assert_eq!(output.status.code(), Some(13));
    let told = lines(&output);
    for (line, needle) in [
        (2, "shutdwn: there is no such key; do you mean shutdown?"),
        (19, "attempts"),
        (23, "sink"),
    ] {
        let found = told
            .iter()
            .any(|told| told.contains(&format!("line {line}: ")) && told.contains(needle));
        assert!(found, "line {line}, {needle}: {told:#?}");
    }
    fs::remove_file(listener.config()).unwrap();
    let told = listener.fails(&["check"], 13);
    assert!(told.contains("listener.toml"), "{told}");
}

#[test]
fn the_schema_is_the_one_that_is_checked_in() {
    let output = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["listen", "schema"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/listen.schema.json");
    assert_eq!(output.stdout, fs::read(path).unwrap());
}

#[test]
fn the_listener_of_its_own_says_what_it_is_and_what_is_wrong() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ketch-listener"));
        command.args(args).stdin(Stdio::null()).output().unwrap()
    };
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success(), "{text}");
    for word in [
        "--config",
        "SIGHUP",
        "SIGTERM",
        "--log-json",
        "ketch listen check",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let version = run(&["--version"]);
    let wanted = format!("ketch-listener {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), wanted);
    assert_eq!(run(&[]).status.code(), Some(2));
    let listener = Listener::new();
    listener.write("shutdwn = \"5s\"", "");
    let config = listener.config();
    let wrong = run(&["--config", config.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(1));
    let told = lines(&wrong);
    assert!(
        told[0].starts_with("ketch-listener: ") && told[0].contains("line 2: shutdwn: "),
        "{told:?}"
    );
}

#[test]
fn without_a_listener_that_runs_it_is_said_what_to_do() {
    let listener = Listener::new();
    let address = format!("127.0.0.1:{}", listener.port);
    for command in ["status", "pause", "resume", "apply", "dead", "replay"] {
        let told = listener.fails(&[command], 10);
        assert!(
            told.contains(&address) && told.contains("does it run?"),
            "{command}: {told}"
        );
    }
    let text = listener.path("text");
    for command in [
        &["inspect"][..],
        &["compact"],
        &["export", "--to", text.to_str().unwrap()],
    ] {
        let told = listener.fails(command, 3);
        assert!(
            told.contains("ledger") && told.contains("has not run yet"),
            "{command:?}: {told}"
        );
    }
    assert!(!listener.path("state").exists(), "a look makes no ledger");
    let told = listener.fails(&["pause", "order"], 2);
    assert!(
        told.contains("no flow \"order\"") && told.contains("orders"),
        "{told}"
    );
    for (api, needle) in [
        ("", "no [api]"),
        ("[api]\n", "no token"),
        (
            "[api]\nlisten = \"127.0.0.1:0\"\ntoken = \"a-token-of-this-test\"",
            "name one",
        ),
    ] {
        listener.write(api, "");
        let told = listener.fails(&["status"], 2);
        assert!(
            told.contains(needle) && told.contains("listener.toml"),
            "{told}"
        );
    }
}

#[test]
fn a_listener_that_runs_answers_each_command() {
    let mut listener = Listener::new();
    listener.start();
    let status = listener.says(&["status"]);
    assert!(
        status.starts_with("orders from here, when asked, 0 known, "),
        "{status}"
    );
    let json: Value = serde_json::from_str(&listener.says(&["status", "--json"])).unwrap();
    assert_eq!(json["flows"][0]["name"], "orders");
    assert_eq!(json["flows"][0]["restarts"], 0);

    fs::write(listener.path("in/a"), "one").unwrap();
    let applied = listener.says(&["apply", "orders"]);
    assert!(
        applied.starts_with("orders: ") && applied.ends_with(" delivered, 0 left\n"),
        "{applied}"
    );
    assert_eq!(fs::read(listener.path("out/a")).unwrap(), b"one");

    assert_eq!(listener.says(&["pause"]), "orders: pause\n");
    assert!(listener.says(&["status"]).contains(", paused, "));
    let told = listener.fails(&["apply"], 12);
    assert!(
        told.contains("orders") && told.contains("the flow is paused"),
        "{told}"
    );
    assert_eq!(listener.says(&["resume"]), "orders: resume\n");

    // A name that is taken is not overwritten: given up at once.
    fs::write(listener.path("out/b"), "somebody else's").unwrap();
    fs::write(listener.path("in/b"), "ours").unwrap();
    listener.says(&["apply"]);
    let dead = listener.says(&["dead"]);
    let fields: Vec<_> = dead.trim_end().split('\t').collect();
    assert_eq!(fields[..3], ["orders", "b", "1"], "{dead}");
    assert!(!fields[3].is_empty(), "{dead}");
    fs::remove_file(listener.path("out/b")).unwrap();
    assert_eq!(
        listener.says(&["replay", "--path", "none"]),
        "orders: 0 tried again\n"
    );
    assert_eq!(
        listener.says(&["replay", "--path", "b"]),
        "orders: 1 tried again\n"
    );
    listener.says(&["apply"]);
    assert_eq!(fs::read(listener.path("out/b")).unwrap(), b"ours");
    assert_eq!(listener.says(&["dead"]), "");

    for command in ["inspect", "compact"] {
        let told = listener.fails(&[command], 13);
        assert!(
            told.contains("in use by another process") && told.contains("stop the listener"),
            "{told}"
        );
    }
    // What is in the file and not in the listener.
    let more = "[[flow]]\nname = \"new\"\nsource = \"here\"\n[[flow.sink]]\nname = \"out\"\nkind = \"stdout\"";
    listener.write(&listener.api(TOKEN), more);
    let told = listener.fails(&["apply", "new"], 3);
    assert!(told.contains("SIGHUP"), "{told}");
    // One that cannot be asked keeps no other from it.
    let output = listener.ketch(&["apply"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.starts_with(b"orders: "), "{output:?}");
    listener.write(&listener.api("another-token-altogether"), "");
    let told = listener.fails(&["status"], 4);
    assert!(told.contains("token"), "{told}");

    listener.stop();
    let inspected = listener.says(&["inspect"]);
    let rows: Vec<Value> = inspected
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2, "{inspected}");
    for (row, path) in rows.iter().zip(["a", "b"]) {
        assert_eq!(
            (&row["path"], &row["state"]),
            (&path.into(), &"done".into())
        );
        let delivery = &row["deliveries"][0];
        assert_eq!(
            (&delivery["sink"], &delivery["done"]),
            (&"disk".into(), &true.into())
        );
    }
    assert_eq!(listener.says(&["compact",]), "");
}
