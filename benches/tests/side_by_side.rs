//! `side_by_side` does what it says with tiny amounts: every row, ketch and `sftp`, the copies
//! looked at, the JSON read back. No figure is judged.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;

use ketch_benches::row::TABLE;

/// `ketch` is built beside the test where the whole workspace is.
fn ketch() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_side_by_side"));
    let ketch = program.with_file_name("ketch");
    assert!(
        ketch.is_file(),
        "{} is missing: cargo build -p ketch",
        ketch.display()
    );
    ketch
}

#[test]
fn every_row_is_measured_its_copies_are_right_and_plots_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let plots = dir.path().join("plots");
    // Those of the memory differ from these by their sizes alone.
    let mut rows: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    rows.extend(["memory-down", "disk-down", "durable-down", "durable-up"]);
    let output = Command::new(env!("CARGO_BIN_EXE_side_by_side"))
        .arg("--ketch")
        .arg(ketch())
        .args(["--json", "--rounds", "1", "--rtt", "2", "--limit", "60"])
        .args(["--rows", &rows.join(",")])
        .args(["--size", "300000", "--far-size", "300000"])
        .args(["--memory-size", "300000", "--entries", "150"])
        .args(["--files", "20", "--far-files", "20", "--far-sample", "10"])
        .args(["--plot-rtts", "0,2"])
        .args([Path::new("--plots"), &plots])
        .args([Path::new("--dir"), dir.path()])
        .args([Path::new("--disk-dir"), dir.path()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} after:\n{said}"));

    let measured = report["rows"].as_array().unwrap();
    assert_eq!(measured.len(), rows.len());
    for row in measured {
        let without = row["without"].as_array().unwrap();
        let is_durable = row["row"].as_str().unwrap().starts_with("durable");
        // Only what ketch has no flag for may be missing.
        assert!(without.is_empty() || is_durable, "{row}");
        let figures = row["figures"].as_array().unwrap();
        assert_eq!(figures.len() + without.len(), 2, "{row}");
    }
    assert!(report["runs"].as_array().unwrap().len() >= 2 * TABLE.len());

    for name in [
        "down-over-time",
        "up-over-time",
        "down-over-rtt",
        "up-over-rtt",
    ] {
        let svg = std::fs::read_to_string(plots.join(name).with_extension("svg")).unwrap();
        assert!(svg.contains(name) && svg.contains("ketch"), "{svg}");
    }
    assert_eq!(report["plots"].as_array().unwrap().len(), 8);
}
