//! The commands that work on one path of a server: what people do with files every day.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::scene::Scene;

fn said(scene: &Scene, args: &[&str]) -> String {
    let output = scene.ketch(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn directories_and_files_come_and_go() {
    let scene = Scene::trusted();
    let root = |name: &str| scene.path("root").join(name);
    let at = |name: &str| scene.remote(name);

    said(&scene, &["mkdir", &at("a")]);
    assert!(root("a").is_dir());
    scene.fails(&["mkdir", &at("a")], 5);
    scene.fails(&["mkdir", &at("x/y/z")], 3);
    said(&scene, &["mkdir", "--parents", &at("x/y/z")]);
    said(&scene, &["mkdir", "--parents", &at("x/y/z")]);
    assert!(root("x/y/z").is_dir());
    said(&scene, &["rmdir", &at("a")]);
    assert!(!root("a").exists());
    assert!(scene.fails(&["rm", &at("x")], 2).contains("use -r"));
    fs::write(root("x/y/file"), "content").unwrap();
    fs::write(root("kept"), "kept").unwrap();
    symlink("../../kept", root("x/y/link")).unwrap();
    said(&scene, &["rm", "-r", &at("x")]);
    assert!(!root("x").exists() && root("kept").exists());
    scene.fails(&["rm", "-r", &at("x")], 3);
    said(&scene, &["rm", "-f", &at("x")]);
    scene.fails(&["rm", "-r", &at("")], 2);
    said(&scene, &["rm", &at("kept")]);
    assert_eq!(fs::read_dir(root("")).unwrap().count(), 0);
}

#[test]
fn files_get_other_names_and_permissions() {
    let scene = Scene::trusted();
    let root = |name: &str| scene.path("root").join(name);
    let at = |name: &str| scene.remote(name);
    fs::create_dir(root("into")).unwrap();
    for name in ["a", "b"] {
        fs::write(root(name), name).unwrap();
    }
    scene.fails(&["mv", "-n", &at("a"), "/b"], 5);
    assert_eq!(fs::read(root("b")).unwrap(), b"b");
    said(&scene, &["mv", &at("a"), "/b"]);
    assert_eq!(fs::read(root("b")).unwrap(), b"a");
    said(&scene, &["mv", &at("b"), "/into"]);
    assert_eq!(fs::read(root("into/b")).unwrap(), b"a");
    scene.fails(&["mv", &at("none"), "/c"], 3);
    said(&scene, &["chmod", "600", &at("into/b")]);
    let mode = fs::metadata(root("into/b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Our own server makes no links.
    scene.fails(&["ln", "-s", "b", &at("into/link")], 4);

    let told = said(&scene, &["stat", &at("into/b")]);
    for line in ["path: /into/b", "size: 1", "permissions: 0600"] {
        assert!(told.lines().any(|told| told == line), "{told}");
    }
    scene.fails(&["stat", &at("none")], 3);
    let told = said(&scene, &["df", &at("")]);
    assert!(told.contains('%') && told.lines().count() == 2, "{told}");
}

#[test]
fn what_is_there_is_shown_and_found() {
    let scene = Scene::trusted();
    let root = |name: &str| scene.path("root").join(name);
    let at = |name: &str| scene.remote(name);
    fs::create_dir_all(root("in/below")).unwrap();
    let content = "line\n".repeat(200_000);
    fs::write(root("in/a.csv"), &content).unwrap();
    fs::write(root("in/below/b.csv"), "b").unwrap();
    fs::write(root("in/c.txt"), "c").unwrap();
    assert!(said(&scene, &["cat", &at("in/a.csv")]) == content);
    scene.fails(&["cat", &at("none")], 3);

    let mut lines: Vec<_> = said(&scene, &["find", &at("in")])
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        ["/in/a.csv", "/in/below", "/in/below/b.csv", "/in/c.txt"]
    );
    let found = |more: &[&str]| said(&scene, &[&["find", &at("in")], more].concat());
    assert_eq!(found(&["--name", "b*", "-t", "f"]), "/in/below/b.csv\n");
    assert_eq!(found(&["-t", "d"]), "/in/below\n");
    assert_eq!(
        found(&["--max-depth", "1", "--name", "*.csv"]),
        "/in/a.csv\n"
    );
    scene.fails(&["find", &at("none")], 3);
}

#[test]
fn a_pattern_gets_what_matches() {
    let scene = Scene::trusted();
    let root = |name: &str| scene.path("root").join(name);
    let at = |name: &str| scene.remote(name);
    fs::create_dir_all(root("in/sub.csv")).unwrap();
    for name in [
        "in/a.csv",
        "in/b.csv",
        "in/c.txt",
        "in/sub.csv/d",
        "in/x[1].csv",
    ] {
        fs::write(root(name), name).unwrap();
    }
    assert!(
        scene
            .fails(&["get", &at("in/*.csv"), "."], 2)
            .contains("use -r")
    );
    said(&scene, &["get", &at("in/?.csv"), "."]);
    assert_eq!(scene.local_names(), ["a.csv", "b.csv"]);
    said(&scene, &["get", "-r", &at("in/*.csv"), "new/"]);
    assert_eq!(
        fs::read(scene.path("local/new/sub.csv/d")).unwrap(),
        b"in/sub.csv/d"
    );
    // A name that looks like a pattern is taken for what it is.
    said(&scene, &["get", &at("in/x[1].csv"), "it"]);
    assert_eq!(fs::read(scene.path("local/it")).unwrap(), b"in/x[1].csv");
    let nothing = scene.fails(&["get", &at("in/*.none"), "."], 3);
    assert!(nothing.starts_with("nothing matches "), "{nothing}");
    scene.fails(&["get", &at("in/?.csv"), "one"], 2);
}
