//! `ketch sync` against `ketch serve` and the real sshd: what it says, and what is left of it when
//! it is killed.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ketch_conformance::content::{Sha256, random_file};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use tempfile::TempDir;

use crate::scene::Scene;
use crate::serve_file::eventually;

/// How often a run is killed, unless `KETCH_SYNC_KILLS` says otherwise.
const KILLS: u32 = 10;
/// The longest time that a run is given before it is killed.
const LIFE_MS: u64 = 250;
/// The tree that is mirrored meanwhile.
const DIRECTORIES: usize = 4;
const FILES: usize = 200;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn sync_goes_both_ways_and_says_what_it_did() {
    let scene = Scene::trusted();
    fs::create_dir_all(scene.path("local/tree/deep")).unwrap();
    fs::write(scene.path("local/tree/a.txt"), "one").unwrap();
    fs::write(scene.path("local/tree/deep/b.txt"), "two").unwrap();
    fs::write(scene.path("local/tree/c.tmp"), "no").unwrap();

    let up = ["sync", "tree", &scene.remote("tree"), "--exclude", "*.tmp"];
    let output = scene.ketch(&[&up[..], &["--dry-run"]].concat());
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stdout);
    assert!(
        said.contains("copy a.txt\n") && said.contains("would be: 2 copied"),
        "{said}"
    );
    assert!(!scene.path("root/tree").exists());

    let output = scene.ketch(&up);
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stdout);
    assert!(
        said.starts_with("2 copied, 0 replaced, 0 removed"),
        "{said}"
    );
    assert_eq!(
        fs::read(scene.path("root/tree/deep/b.txt")).unwrap(),
        b"two"
    );
    assert!(!scene.path("root/tree/c.tmp").exists());

    // The other way: what only this side has stays unless it is to go; what is excluded always.
    fs::write(scene.path("local/tree/extra"), "old").unwrap();
    let remote = scene.remote("tree");
    let down = ["sync", &remote, "tree", "--exclude", "*.tmp", "--json"];
    let output = scene.ketch(&down);
    let said = text(&output.stdout);
    assert!(
        said.starts_with(r#"{"event":"summary","#),
        "nothing to do: {said}"
    );
    assert!(
        said.contains(r#""unchanged":2"#) && said.contains(r#""extra":1"#),
        "{said}"
    );
    let output = scene.ketch(&[&down[..], &["--delete"]].concat());
    let said = text(&output.stdout);
    assert!(
        said.starts_with("{\"event\":\"removed\",\"path\":\"extra\"}\n"),
        "{said}"
    );
    assert!(!scene.path("local/tree/extra").exists());
    assert!(scene.path("local/tree/c.tmp").exists());
}

#[test]
fn a_sync_that_cannot_be_ends_with_the_code_for_it() {
    let scene = Scene::trusted();
    fs::create_dir(scene.path("local/tree")).unwrap();
    fs::write(scene.path("local/tree/keep"), "").unwrap();
    scene.fails(&["sync", "a", "b"], 2);
    scene.fails(&["sync", &scene.remote("gone"), "tree", "--delete"], 3);
    fs::create_dir(scene.path("root/empty")).unwrap();
    let empty = scene.remote("empty");
    let guarded = ["sync", &empty, "tree", "--delete", "--max-delete", "0"];
    let output = scene.ketch(&guarded);
    assert_eq!(output.status.code(), Some(13), "{output:?}");
    assert!(scene.path("local/tree/keep").exists());
    // The served directory is `root`, seen as `/`: this is for paths that are the same.
    fs::create_dir(scene.path("root/keep")).unwrap();
    let output = scene.ketch(&["sync", &scene.remote(""), "tree"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(text(&output.stderr).contains("keep: it is a"), "{output:?}");
}

/// A running sshd, and the tree on one side of it.
struct Mirror {
    server: OpenSshServer,
    dir: TempDir,
    manifest: Vec<(PathBuf, Sha256)>,
}

impl Mirror {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Vec::new();
        for n in 0..FILES {
            let path = PathBuf::from(format!("d{}/f{n}", n % DIRECTORIES));
            let whole = dir.path().join("from").join(&path);
            fs::create_dir_all(whole.parent().unwrap()).unwrap();
            let len = 1000 + 997 * (n as u64 % 40);
            manifest.push((path, random_file(&whole, len).unwrap()));
        }
        let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
        Self {
            server,
            dir,
            manifest,
        }
    }

    fn command(&self, is_down: bool) -> Command {
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let remote = |name| format!("{}@127.0.0.1:{}", self.server.user(), path(name));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ketch"));
        command.args(["sync", "--delete", "--batch", "-P"]);
        command.arg(self.server.port().to_string());
        command.arg("-i").arg(self.server.identity().private());
        if is_down {
            command.args([remote("from"), path("to")]);
        } else {
            command.args([path("from"), remote("to")]);
        }
        command
            .env("HOME", self.server.client_home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What is there has its whole content, whatever happened.
    fn check_what_is_there(&self) -> usize {
        let there = self.manifest.iter().filter(|(path, hash)| {
            let whole = self.dir.path().join("to").join(path);
            let there = whole.exists();
            assert!(
                !there || Sha256::of_file(&whole).unwrap() == *hash,
                "{path:?}"
            );
            there
        });
        there.count()
    }
}

/// Names below a directory, those of directories left out.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flat_map(|entry| {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                names(&entry.path())
            } else {
                vec![entry.file_name().into_string().unwrap()]
            }
        })
        .collect()
}

#[test]
fn a_sync_that_is_killed_again_and_again_converges_and_leaves_nothing() {
    let kills = std::env::var("KETCH_SYNC_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let random = RandomState::new();
    for is_down in [true, false] {
        let mirror = Mirror::new();
        let to = mirror.dir.path().join("to");
        let (mut parts, mut served) = (0, Vec::new());
        for n in 0..kills.div_ceil(2) {
            let chance = random.hash_one((is_down, n));
            let mut child = mirror.command(is_down).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(chance % LIFE_MS));
            served.extend(mirror.server.process().descendants());
            child.kill().unwrap();
            child.wait().unwrap();
            let there = mirror.check_what_is_there();
            parts += names(&to)
                .iter()
                .filter(|name| name.contains(".ketch-"))
                .count();
            println!("down: {is_down}, killed: {n}, files there: {there}, parts so far: {parts}");
            // The next run has something to do again, and something to remove.
            for (path, _) in mirror.manifest.iter().skip(n as usize % 3).step_by(3) {
                drop(fs::remove_file(to.join(path)));
            }
            if to.exists() {
                fs::write(to.join(format!("extra{n}")), "").unwrap();
            }
        }
        // sshd's processes for a killed client may still be at their last request, and one that
        // serves SFTP may have lost its parent by then.
        eventually(|| mirror.server.is_idle(&served).then_some(()));
        let output = mirror.command(is_down).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(mirror.check_what_is_there(), FILES);
        assert_eq!(names(&to).len(), FILES, "{:?}", names(&to));
        let output = mirror.command(is_down).output().unwrap();
        assert!(
            text(&output.stdout).starts_with("0 copied, 0 replaced, 0 removed, 200 unchanged;"),
            "{output:?}"
        );
    }
}

/// What is at `path`: a directory, a link with where it leads, or a file with what it says.
fn thing(path: &Path) -> String {
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        "directory".to_owned()
    } else if metadata.is_symlink() {
        format!("link to {}", fs::read_link(path).unwrap().display())
    } else {
        format!("file {}", fs::read_to_string(path).unwrap())
    }
}

#[test]
fn what_has_another_type_makes_room_with_delete_alone_and_goes_to_the_backup() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    for is_down in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let make = |what: char, path: PathBuf| match what {
            'f' => fs::write(&path, "f").unwrap(),
            'l' => std::os::unix::fs::symlink("fl", &path).unwrap(),
            _ => {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("in"), "in").unwrap();
            }
        };
        fs::create_dir(path("from")).unwrap();
        fs::create_dir(path("to")).unwrap();
        // Named by what the source has and what the destination has.
        let names = ["fl", "fd", "lf", "ld", "df", "dl"];
        for name in names {
            let mut sides = name.chars();
            make(sides.next().unwrap(), path("from").join(name));
            make(sides.next().unwrap(), path("to").join(name));
        }
        let text_of = |name: &str| path(name).to_str().unwrap().to_owned();
        let remote = |name| format!("{}@127.0.0.1:{}", server.user(), text_of(name));
        let sync = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ketch"));
            command.args(["sync", "--links", "copy", "--batch", "-P"]);
            command.arg(server.port().to_string());
            command.arg("-i").arg(server.identity().private());
            if is_down {
                command.args([remote("from"), text_of("to")]);
            } else {
                command.args([text_of("from"), remote("to")]);
            }
            let command = command.args(more).env("HOME", server.client_home());
            command.stdin(Stdio::null()).output().unwrap()
        };
        let things = |side: &str| names.map(|name| thing(&path(side).join(name)));
        let before = things("to");
        let output = sync(&[]);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert!(text(&output.stderr).contains("--delete"), "{output:?}");
        assert_eq!(things("to"), before);
        let backup = text_of("kept");
        let delete = ["--delete", "--backup-dir", &backup];
        let would = sync(&[&delete[..], &["--dry-run"]].concat());
        assert!(would.status.success(), "{would:?}");
        assert_eq!(things("to"), before);
        assert!(!path("kept").exists());

        let output = sync(&[&delete[..], &["--verbose"]].concat());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(things("to"), things("from"));
        assert_eq!(things("kept"), before);
        let sorted = |said: &[u8]| {
            let mut lines: Vec<_> = text(said).lines().map(str::to_owned).collect();
            lines.pop(); // the sum
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&would.stdout), sorted(&output.stdout));
        let output = sync(&delete);
        assert!(
            text(&output.stdout).starts_with("0 copied, 0 replaced, 0 removed"),
            "{output:?}"
        );
    }
}
