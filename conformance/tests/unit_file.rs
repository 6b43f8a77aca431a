//! The systemd units of the server (row O4 of `docs/threats.md`) and the listener, as systemd itself
//! judges them.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

/// Ten times the exposure that is borne, as `systemd-analyze` counts it.
const EXPOSURE_MAX: &str = "20";

#[test]
fn the_unit_leaves_the_server_little_that_it_does_not_need() {
    judge("ketch-server.service");
}

#[test]
fn the_unit_leaves_the_listener_little_that_it_does_not_need() {
    judge("ketch-listener.service");
}

#[test]
fn the_units_are_right() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["ketch-server.service", "ketch-listener.service"] {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../dist")
            .join(name);
        let text = std::fs::read_to_string(unit).expect("the unit");
        // The program need not be installed for its unit to be right.
        let lines = text
            .lines()
            .map(|line| match line.starts_with("ExecStart=") {
                true => "ExecStart=/bin/true",
                false => line,
            });
        let copy = dir.path().join(name);
        std::fs::write(&copy, lines.collect::<Vec<_>>().join("\n")).expect("a copy");
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(copy)
            .output()
            .expect("systemd-analyze is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains(name), "{said}");
    }
}

fn judge(name: &str) {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../dist")
        .join(name);
    let output = Command::new("systemd-analyze")
        .args([
            "security",
            "--no-pager",
            "--offline=true",
            "--threshold",
            EXPOSURE_MAX,
        ])
        .arg(unit)
        .output()
        .expect("systemd-analyze is there");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(!complaints.contains("Unknown"), "{complaints}");
}
