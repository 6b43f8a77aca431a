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
