//! `docs/dependencies.md` says how many crates come with each package, and it is so.
//!
//! It is a ratchet (row O5 of `docs/threats.md`): a crate that comes in changes a number that
//! somebody has to write.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/dependencies.md";

/// What `cargo tree` names beneath `package`, itself included.
fn crates_of(package: &str, all_features: bool) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["tree", "--locked", "--prefix", "none", "-e", "normal,build"])
        // The same on every machine.
        .args(["--target", "x86_64-unknown-linux-gnu", "-p", package]);
    if all_features {
        command.arg("--all-features");
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree of {package}: {said}");
    let tree = String::from_utf8(output.stdout).unwrap();
    // `name v1.2.3 (where from) (*)`: versions count as crates of their own.
    let named = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    tree.lines().map(named).collect()
}

#[test]
fn no_crate_comes_in_unnoticed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join(PAGE)).unwrap();
    let mut seen = 0;
    for row in page.lines().filter(|line| line.starts_with("| `ketch")) {
        let package = row.split('`').nth(1).unwrap();
        let counts: Vec<usize> = row
            .split('|')
            .filter_map(|cell| cell.trim().parse().ok())
            .collect();
        let [default, all] = counts[..] else {
            panic!("{PAGE}: {row}");
        };
        seen += 1;
        for (expected, all_features) in [(default, false), (all, true)] {
            let crates = crates_of(package, all_features);
            let features = if all_features { "all" } else { "default" };
            assert_eq!(
                crates.len(),
                expected,
                "{package} with {features} features has so many crates, and {PAGE} says otherwise"
            );
        }
    }
    assert_eq!(seen, 9, "packages in {PAGE}");
}
