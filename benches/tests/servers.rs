//! `servers` and `fair_share` do what they say with tiny amounts. No figure is judged.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

/// What the program printed, after it ended well; `ketch` is built beside it where the whole
/// workspace is.
fn run(program: &str, arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let ketch = Path::new(program).with_file_name("ketch");
    assert!(
        ketch.is_file(),
        "{} is missing: cargo build -p ketch",
        ketch.display()
    );
    let output = Command::new(program)
        .args(arguments)
        .args([Path::new("--ketch"), &ketch])
        .args([Path::new("--dir"), dir.path()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn both_servers_do_every_row_under_both_clients() {
    let arguments = [
        "--rounds",
        "1",
        "--size",
        "1",
        "--files",
        "20",
        "--entries",
        "150",
        "--limit",
        "60",
    ];
    let printed = run(env!("CARGO_BIN_EXE_servers"), &arguments);
    for row in ["down", "up", "small-down", "small-up", "list"] {
        assert!(printed.lines().any(|line| line == row), "{printed}");
    }
    for pair in [
        "sftp with sshd",
        "sftp with ketch serve",
        "ketch with sshd",
        "ketch with ketch serve",
    ] {
        assert_eq!(printed.matches(pair).count(), 5, "{printed}");
    }
}

#[test]
fn sessions_share_both_servers() {
    let arguments = ["--sessions", "4", "--seconds", "1"];
    let printed = run(env!("CARGO_BIN_EXE_fair_share"), &arguments);
    assert_eq!(
        printed.matches("slowest by fastest").count(),
        4,
        "{printed}"
    );
}
