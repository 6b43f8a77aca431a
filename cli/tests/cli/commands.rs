//! The commands against a real server, as a user runs them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ketch_conformance::openssh::KeyPair;

use crate::scene::{Scene, listening};

fn stdout(scene: &Scene, args: &[&str]) -> String {
    let output = scene.ketch(args);
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stderr.is_empty(),
        "nothing is drawn where no terminal is: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_file_goes_up_and_comes_down_the_same() {
    let scene = Scene::trusted();
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect();
    fs::write(scene.path("local/a.bin"), &content).unwrap();
    assert_eq!(stdout(&scene, &["put", "a.bin", &scene.remote("")]), "");
    assert_eq!(fs::read(scene.path("root/a.bin")).unwrap(), content);
    stdout(&scene, &["get", &scene.remote("a.bin"), "b.bin"]);
    assert_eq!(fs::read(scene.path("local/b.bin")).unwrap(), content);
    assert_eq!(
        scene.local_names(),
        ["a.bin", "b.bin"],
        "no temporary file is left"
    );
}

#[test]
fn every_cipher_can_be_chosen() {
    let scene = Scene::trusted();
    fs::write(scene.path("root/a"), "content").unwrap();
    for cipher in [
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ] {
        stdout(&scene, &["get", "-c", cipher, &scene.remote("a"), cipher]);
        assert_eq!(
            fs::read(scene.path("local").join(cipher)).unwrap(),
            b"content"
        );
    }
}

#[test]
fn a_directory_goes_up_and_comes_down_whole() {
    let scene = Scene::trusted();
    fs::create_dir_all(scene.path("local/tree/below/empty")).unwrap();
    for name in ["tree/one", "tree/below/two", "tree/below/three"] {
        fs::write(scene.path("local").join(name), name).unwrap();
    }
    stdout(&scene, &["put", "-r", "tree", &scene.remote("")]);
    assert_eq!(
        fs::read(scene.path("root/tree/below/two")).unwrap(),
        b"tree/below/two"
    );
    assert!(scene.path("root/tree/below/empty").is_dir());
    // To a new name, and into a directory that is there.
    stdout(&scene, &["get", "-r", &scene.remote("tree"), "copy"]);
    assert_eq!(fs::read(scene.path("local/copy/one")).unwrap(), b"tree/one");
    fs::create_dir(scene.path("local/into")).unwrap();
    stdout(&scene, &["get", "-r", &scene.remote("tree"), "into"]);
    assert_eq!(
        fs::read(scene.path("local/into/tree/below/three")).unwrap(),
        b"tree/below/three"
    );
}

#[test]
fn ls_is_sorted_and_safe_to_show() {
    let scene = Scene::trusted();
    for name in ["b", "a", "c\x1b[2J"] {
        fs::write(scene.path("root").join(name), "12345").unwrap();
    }
    assert_eq!(
        stdout(&scene, &["ls", &scene.remote("")]),
        "a\nb\nc\\u{1b}[2J\n"
    );
    let long = stdout(&scene, &["ls", "-l", &scene.remote("")]);
    let first: Vec<_> = long.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        (first[0], first[3], *first.last().unwrap()),
        ("-rw-r--r--", "5", "a")
    );
    assert_eq!(stdout(&scene, &["ls", &scene.remote("a")]), "/a\n");
}

#[test]
fn listen_tells_each_change_as_a_line_of_json() {
    let scene = Scene::trusted();
    fs::create_dir(scene.path("root/in")).unwrap();
    fs::write(scene.path("root/in/old.csv"), "old").unwrap();
    let args = [
        "listen",
        "--existing",
        "--interval",
        "50ms",
        &scene.remote("in"),
    ];
    let mut listen = scene.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(listen.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };

    let existing = next();
    assert_eq!(
        (&existing["event"], &existing["path"]),
        (&"created".into(), &"/in/old.csv".into())
    );
    assert_eq!(
        (&existing["size"], &existing["kind"]),
        (&3.into(), &"file".into())
    );

    // Whole under its name at once, so that there is one event.
    fs::write(scene.path("root/new"), "news").unwrap();
    fs::rename(scene.path("root/new"), scene.path("root/in/new.csv")).unwrap();
    let created = next();
    assert_eq!(
        (&created["event"], &created["path"]),
        (&"created".into(), &"/in/new.csv".into())
    );
    assert!(created["modified"].as_str().unwrap().ends_with('Z'));

    fs::remove_file(scene.path("root/in/old.csv")).unwrap();
    let removed = next();
    assert_eq!(
        (&removed["event"], &removed["path"]),
        (&"removed".into(), &"/in/old.csv".into())
    );
    listen.kill().unwrap();
    listen.wait().unwrap();
}

#[test]
fn a_key_logs_in_where_the_server_has_its_public_half() {
    let scene = Scene::trusted();
    KeyPair::generate(&scene.path("id"), None).unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--user",
            "key-user",
            "--root",
        ])
        .arg(scene.path("root"))
        .arg("--authorized-keys")
        .arg(scene.path("id.pub"))
        .arg("--host-key")
        .arg(scene.path("other_host_key"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let address = listening(&mut server);
    let output = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["ls", "--batch", "--accept-new", "-i"])
        .arg(scene.path("id"))
        .arg(format!("sftp://key-user@{address}/"))
        .env("HOME", scene.path("home"))
        .output();
    server.kill().unwrap();
    server.wait().unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_demo_works() {
    let output = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["demo", "--size", "4", "--files", "30"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in [
        "MiB/s",
        "files/s",
        "SHA-256",
        "Created",
        "Modified",
        "Removed",
        "All of it worked",
    ] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
}
