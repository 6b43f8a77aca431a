//! The examples, run as a reader would run them, against one sshd.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};

/// Where cargo puts examples: beside the directory of this program.
fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let path = this.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.exists(),
        "{} is built by `cargo test -p ketch-client` without a choice of targets",
        path.display()
    );
    path
}

#[test]
fn each_of_them_works() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("in/below")).unwrap();
    fs::create_dir(at("local")).unwrap();
    for name in ["in/a.csv", "in/below/b.csv"] {
        fs::write(at(name), name).unwrap();
    }
    let run = |name: &str, remote: &str, more: &[&str]| -> String {
        let remote = at(remote).display().to_string();
        let (user, port) = (server.user(), server.port());
        let output = Command::new(example(name))
            .arg(format!("sftp://{user}@127.0.0.1:{port}{remote}"))
            .arg(server.identity().private())
            .args(more)
            .env("HOME", server.client_home())
            .current_dir(at("local"))
            .output()
            .unwrap();
        let (said, wrong) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {wrong}");
        String::from_utf8(said).unwrap()
    };
    assert!(run("connect", "in", &[]).contains("SSH-2.0-OpenSSH_"));
    assert!(run("list", "in", &[]).contains(" a.csv\n"));
    assert_eq!(run("get", "in", &["got"]), "2 files, 22 bytes\n");
    assert_eq!(
        fs::read(at("local/got/below/b.csv")).unwrap(),
        b"in/below/b.csv"
    );
    assert_eq!(run("put", "copy", &["got"]), "2 files, 22 bytes\n");
    assert_eq!(fs::read(at("copy/a.csv")).unwrap(), b"in/a.csv");
    let many = run("many_files", "in/below", &[".", "b.csv"]);
    assert_eq!(many, "1 files, 14 bytes\n");
    let walked = run("walk_glob", "in", &["**/*.csv"]);
    assert_eq!(walked.lines().count(), 3, "{walked}");
    let read = run("file_io", "in/new", &[]);
    assert_eq!(read, "world\nb\"Hello, there\"\n");
    assert!(run("on_demand", "in", &[]).starts_with("Directory\n"));
    assert_eq!(
        run("exec", "in", &["echo hello; exit 3"]),
        "hello\nStatus(3)\n"
    );
    let port = server.port().to_string();
    assert!(run("forward", "in", &["127.0.0.1", &port]).starts_with("SSH-2.0-OpenSSH_"));
    fs::create_dir(at("folder")).unwrap();
    let queried = run("query", "folder", &[]);
    let lines: Vec<_> = queried.lines().collect();
    assert_eq!(lines.len(), 5, "{queried}");
    assert!(lines[3].ends_with("order.txt: one") && lines[4].ends_with("order2.txt: three"));
    assert_eq!(fs::read(at("folder/order1.txt")).unwrap(), b"two");
    assert!(run("blocking", "folder", &[]).contains("seen\n"));
}
