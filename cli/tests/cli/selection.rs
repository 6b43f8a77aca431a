//! What of a directory is copied: `--include`, `--exclude` and `--links` of get, put and sync.

use std::fs;
use std::os::unix::fs::symlink;

use crate::scene::Scene;

#[test]
fn trees_are_copied_by_the_rules() {
    let scene = Scene::trusted();
    fs::create_dir_all(scene.path("root/tree/deep")).unwrap();
    for name in ["a.csv", "b.tmp", "deep/c.csv", "deep/d.txt"] {
        fs::write(scene.path(&format!("root/tree/{name}")), name).unwrap();
    }
    symlink("a.csv", scene.path("root/tree/link")).unwrap();
    let remote = scene.remote("tree");

    let rules = ["--include", "*/", "--include", "*.csv", "--exclude", "*"];
    let output = scene.ketch(&[&["get", "-r", &remote, "only"], &rules[..]].concat());
    assert!(output.status.success(), "{output:?}");
    let only = scene.path("local/only");
    assert!(only.join("a.csv").exists() && only.join("deep/c.csv").exists());
    assert!(!only.join("b.tmp").exists() && !only.join("deep/d.txt").exists());
    assert!(!only.join("link").exists());

    let output = scene.ketch(&["get", "-r", &remote, "followed", "--links=follow"]);
    assert!(output.status.success(), "{output:?}");
    let link = scene.path("local/followed/link");
    assert!(!link.is_symlink() && fs::read(link).unwrap() == b"a.csv");

    let output = scene.ketch(&["get", "-r", &remote, "copied", "--links", "copy"]);
    assert!(output.status.success(), "{output:?}");
    let target = fs::read_link(scene.path("local/copied/link")).unwrap();
    assert_eq!(target.to_str(), Some("a.csv"));

    let output = scene.ketch(&["sync", &remote, "synced", "--links", "copy"]);
    assert!(output.status.success(), "{output:?}");
    assert!(scene.path("local/synced/link").is_symlink());

    let output = scene.ketch(&[
        "put",
        "-r",
        "copied",
        &scene.remote("sent"),
        "--exclude=/deep/",
    ]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("link: it is a symbolic link"), "{said}");
    assert!(scene.path("root/sent/a.csv").exists());
    assert!(!scene.path("root/sent/deep").exists());

    // Rules are for what is in a directory.
    let said = scene.fails(&["get", &remote, "--links=copy"], 2);
    assert!(said.contains("use -r"), "{said}");
}
