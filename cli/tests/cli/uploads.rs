//! Atomic uploads of `ketch serve` under OpenSSH's own client, which opens a file with `create` and
//! `truncate`: the server killed in the middle, and a disk that is full.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ketch_conformance::content::{Sha256, random_file};
use ketch_conformance::tiny_disk::TinyDisk;

use crate::serve_file::{Place, Running, eventually};

/// How often the server is killed, unless `KETCH_UPLOAD_KILLS` says otherwise.
const KILLS: u32 = 50;
/// The longest time that an upload is given before the server is killed, in milliseconds: about what
/// a whole one takes.
const LIFE_MS: u64 = 400;
/// Each so many-th upload is killed in the middle for certain.
const SLOW: u32 = 10;
/// How fast such a one is at most, in kbit/s: a minute is not enough for it.
const SLOW_KBITS: &str = "1000";
const LEN: u64 = 24 << 20;

/// A server with one user, whose uploads are atomic, and the user's key.
fn place(root: &Path, durability: &str) -> Place {
    let place = Place::new();
    let key = place.key("id");
    place.write_whole(&format!(
        "listen = [\"127.0.0.1:0\"]\n\
         penalties.enabled = false\n\
         [[host_key]]\n\
         file = \"keys/host_ed25519\"\n\
         [organisation.acme.endpoint.orders]\n\
         root = \"{}\"\n\
         atomic_uploads = \"{durability}\"\n\
         [organisation.acme.endpoint.orders.user.anna]\n\
         authorized_keys = [\"{key}\"]\n",
        root.display()
    ));
    place
}

fn sftp(place: &Place, server: &Running, more: &[&str]) -> Command {
    let identity = format!("IdentityFile={}", place.path("id").display());
    let options = ["-o", &identity, "-o", "BatchMode=yes"];
    place.sftp(server, "anna", &[&options[..], more].concat())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Whether a file is being uploaded, or a server that was doing it is gone.
fn is_in_the_middle(root: &Path) -> bool {
    names(root).iter().any(|name| name.starts_with(".ketch-"))
}

#[test]
fn a_server_that_is_killed_in_the_middle_leaves_no_half_file_and_nothing_after_its_restart() {
    let kills = std::env::var("KETCH_UPLOAD_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let place = place(root, "none");
    let new = random_file(&place.path("local/file"), LEN).unwrap();
    let random = RandomState::new();
    let (mut whole, mut hidden) = (0, 0);
    for n in 0..kills {
        // Half of them replace a file.
        let old = (n % 2 == 0).then(|| random_file(&root.join("file"), 1000).unwrap());
        let mut server = place.serve();
        let is_slow = n % SLOW >= SLOW - 2;
        let speed = ["-l", SLOW_KBITS];
        let options: &[&str] = if is_slow { &speed } else { &[] };
        let mut upload = sftp(&place, &server, options).spawn().unwrap();
        upload
            .stdin
            .take()
            .unwrap()
            .write_all(b"put file\n")
            .unwrap();
        if is_slow {
            eventually(|| is_in_the_middle(root).then_some(()));
        } else {
            std::thread::sleep(Duration::from_millis(random.hash_one(n) % LIFE_MS));
        }
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        upload.wait().unwrap();

        let there = root.join("file");
        let is_there = there.exists().then(|| Sha256::of_file(&there).unwrap());
        assert!(
            is_there == old || is_there.as_ref() == Some(&new),
            "killed for the {n}th time"
        );
        whole += u32::from(is_there == Some(new));
        assert!(
            !is_slow || is_in_the_middle(root),
            "killed for the {n}th time"
        );
        hidden += u32::from(is_in_the_middle(root));

        let _restarted = place.serve();
        let visible = if is_there.is_some() {
            vec!["file"]
        } else {
            Vec::new()
        };
        eventually(|| (names(root) == visible).then_some(()));
        let _ = fs::remove_file(there);
    }
    println!("of {kills}: whole {whole}, in the middle {hidden}");
    assert!(hidden > 0, "none was killed in the middle");
}

#[test]
fn a_full_disk_is_said_and_leaves_what_was_there() {
    let disk = TinyDisk::mount(4096).expect("this test mounts a tmpfs, which takes root");
    for durability in ["none", "full"] {
        fs::write(disk.path().join("file"), "old").unwrap();
        let place = place(disk.path(), durability);
        random_file(&place.path("local/file"), LEN).unwrap();
        fs::write(place.path("local/small"), "new").unwrap();
        let server = place.serve();
        let (done, said) = place.by_key(&server, "anna", "id", "put file\n");
        // OpenSSH's client shows the status alone, and of both requests.
        assert!(!done && said.contains("close remote: Failure"), "{said}");
        assert_eq!(fs::read(disk.path().join("file")).unwrap(), b"old");
        eventually(|| (names(disk.path()) == ["file"]).then_some(()));
        // There is room again, and the server is as before.
        let (done, said) =
            place.by_key(&server, "anna", "id", "put small file\nput small\nls -a\n");
        assert!(done && !said.contains(".ketch-"), "{said}");
        assert_eq!(fs::read(disk.path().join("file")).unwrap(), b"new");
        assert_eq!(names(disk.path()), ["file", "small"]);
        fs::remove_file(disk.path().join("small")).unwrap();
    }
}
