//! `ketch listen REMOTE`, against sshd and against our own server, which tells changes by itself.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::openssh::Sshd;
use crate::scene::Scene;

/// What has not been told by then is not told.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `ketch listen`; killed when dropped.
struct Listening {
    child: Child,
    lines: Receiver<String>,
    told: VecDeque<String>,
}

impl Listening {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out: ChildStdout = child.stdout.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.for_each(|line| drop(send.send(line)));
        });
        Self {
            child,
            lines,
            told: VecDeque::new(),
        }
    }

    fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).expect("it tells more");
        self.told.push_back(line.clone());
        line
    }

    /// The next event: its word, the name behind `base`, and all of it.
    fn event(&mut self, base: &str) -> (String, String, Value) {
        let line = self.line();
        let event: Value = serde_json::from_str(&line).unwrap();
        let path = event["path"].as_str().unwrap();
        let name = path.strip_prefix(base).expect(path).trim_start_matches('/');
        let word = event["event"].as_str().unwrap().to_owned();
        (word, name.to_owned(), event)
    }

    /// Takes events until the one that is wanted.
    fn until(&mut self, base: &str, word: &str, name: &str) -> Value {
        loop {
            let (told, of, event) = self.event(base);
            if told == word && of == name {
                return event;
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts a file there whole.
fn put(dir: &Path, name: &str, content: &str) {
    let staged = dir.with_extension("staged");
    fs::write(&staged, content).unwrap();
    fs::rename(staged, dir.join(name)).unwrap();
}

#[test]
fn a_tree_of_sshd_is_watched_as_the_options_say() {
    let sshd = Sshd::start();
    let base = sshd.path("in");
    let at = Path::new(&base);
    for name in ["sub/deep", "hidden"] {
        fs::create_dir_all(at.join(name)).unwrap();
    }
    fs::write(at.join("old.csv"), "old").unwrap();
    fs::write(at.join("old.pdf"), "old").unwrap();
    let remote = sshd.remote("in");
    let mut args = vec!["listen", "-r", "--depth", "2", "--interval", "50ms"];
    args.extend([
        "--include",
        "*.csv",
        "--exclude",
        "hidden/",
        "--first",
        "news",
    ]);
    args.extend(["--settle", "100ms", "--json", &remote]);
    let mut listening = Listening::start(sshd.with_key(&args));
    let old = listening.until(&base, "settled", "old.csv");
    assert_eq!(old["size"], 3);

    put(&at.join("hidden"), "no.csv", "1");
    put(&at.join("sub/deep"), "no.csv", "1"); // on the third level
    put(&at.join("sub"), "no.pdf", "1");
    put(&at.join("sub"), "new.csv", "12345");
    let new = listening.until(&base, "created", "sub/new.csv");
    assert_eq!((&new["size"], &new["kind"]), (&5.into(), &"file".into()));
    listening.until(&base, "settled", "sub/new.csv");
    fs::remove_file(at.join("sub/new.csv")).unwrap();
    listening.until(&base, "removed", "sub/new.csv");
    let told: Vec<String> = listening.told.iter().cloned().collect();
    let all = told.join("\n");
    assert!(
        all.contains("/in/sub/deep\""),
        "directories are told: {all}"
    );
    for never in ["no.csv", "no.pdf", "old.pdf", "hidden"] {
        assert!(!all.contains(never), "{never}: {all}");
    }
}

#[test]
fn by_default_one_directory_of_sshd_is_told_and_what_is_there_is_known() {
    let sshd = Sshd::start();
    let base = sshd.path("in");
    let at = Path::new(&base);
    fs::create_dir_all(at.join("sub")).unwrap();
    fs::write(at.join("old"), "old").unwrap();
    let remote = sshd.remote("in");
    let args = [
        "listen",
        "--interval",
        "50ms",
        "--plain",
        "--exclude",
        "n-*",
        &remote,
    ];
    let listening = Listening::start(sshd.with_key(&args));
    // Whatever is put there until it has listed once is known; so one after the other.
    let mut line = None;
    for n in 0.. {
        put(at, &format!("n-{n}"), "");
        put(at, &format!("new-{n}"), "");
        line = listening
            .lines
            .recv_timeout(Duration::from_millis(200))
            .ok();
        if line.is_some() || n > 300 {
            break;
        }
    }
    let line = line.expect("it tells");
    let (word, path) = line.split_once(' ').unwrap();
    assert_eq!(word, "created");
    let name = path.trim_start().strip_prefix(&base).expect(path);
    assert!(name.starts_with("/new-"), "{line}");
}

#[test]
fn our_server_tells_by_itself_and_a_rename_is_one() {
    let scene = Scene::trusted();
    let at = scene.path("root/in");
    fs::create_dir(&at).unwrap();
    let remote = scene.remote("in");
    let args = ["listen", "--interval", "1h", "--push", &remote];
    let mut listening = Listening::start(scene.command(&args));
    // Until it is subscribed, nothing is told for an hour; so one after the other.
    let mut first = None;
    for n in 0.. {
        put(&at, &format!("new-{n}"), "");
        first = listening
            .lines
            .recv_timeout(Duration::from_millis(200))
            .ok();
        if first.is_some() || n > 300 {
            break;
        }
    }
    assert!(first.expect("it tells").contains("created"));
    put(&at, "a.csv", "12345");
    listening.until("/in", "created", "a.csv");
    fs::rename(at.join("a.csv"), at.join("b.csv")).unwrap();
    let renamed = listening.until("/in", "renamed", "b.csv");
    assert_eq!(renamed["from"], "/in/a.csv");
}
