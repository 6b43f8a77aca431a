//! What ARCHITECTURE.md says of the project is so: paths exist, dependencies point one way.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which crates of ours each published crate may use, tests aside.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("wire", &[]),
    ("keys", &["ketch-wire"]),
    ("protocol", &["ketch-wire"]),
    ("settings", &["ketch-protocol"]),
    ("transport", &["ketch-wire", "ketch-keys"]),
    (
        "client",
        &[
            "ketch-wire",
            "ketch-keys",
            "ketch-protocol",
            "ketch-transport",
        ],
    ),
    (
        "server",
        &[
            "ketch-wire",
            "ketch-keys",
            "ketch-protocol",
            "ketch-settings",
            "ketch-transport",
        ],
    ),
    ("listener", &["ketch-client", "ketch-settings"]),
    (
        "cli",
        &[
            "ketch-client",
            "ketch-server",
            "ketch-listener",
            "ketch-settings",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files and directories, as paths from the root, without what is built or fetched.
fn all_paths() -> BTreeSet<String> {
    fn walk(dir: &Path, base: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name == "target" || name == ".git" {
                continue;
            }
            let path = entry.path();
            found.insert(
                path.strip_prefix(base)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
            if entry.file_type().unwrap().is_dir() {
                walk(&path, base, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&root(), &root(), &mut found);
    found
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let paths = all_paths();
    let mut checked = 0;
    for document in ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"] {
        for quoted in read(document).split('`').skip(1).step_by(2) {
            let named = quoted.trim_end_matches('/');
            let is_path = !named.contains([' ', ':', '<', '*'])
                && !named.starts_with(['/', '~', '.', '-'])
                && (quoted.ends_with('/') || named.ends_with(".rs") || named.ends_with(".toml"));
            if !is_path {
                continue;
            }
            checked += 1;
            let exists = paths.contains(named)
                || paths
                    .iter()
                    .any(|path| path.ends_with(&format!("/{named}")));
            assert!(exists, "{document} names `{quoted}`, which does not exist");
        }
    }
    assert!(
        checked > 30,
        "only {checked} paths were found: is the test reading right?"
    );
}

#[test]
fn dependencies_point_one_way() {
    for (member, allowed) in MAY_USE {
        let manifest = read(&format!("{member}/Cargo.toml"));
        let mut in_tests = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                in_tests = line.contains("dev-dependencies");
            }
            if in_tests || !line.starts_with("ketch-") {
                continue;
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&name), "{member} must not know {name}");
        }
    }
}

/// Row S21 of `docs/threats.md`: no text of a client can become a command where none is run.
#[test]
fn the_server_starts_no_program() {
    let is_source = |path: &&String| path.starts_with("server/src/") && path.ends_with(".rs");
    for path in all_paths().iter().filter(is_source) {
        let text = read(path);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        assert!(is_test || !code.contains("Command::new"), "{path}");
    }
}

#[test]
fn no_crate_has_unsafe_code() {
    let unpublished = ["conformance", "fuzz", "benches"];
    for member in MAY_USE
        .map(|(member, _)| member)
        .into_iter()
        .chain(unpublished)
    {
        let lib = root().join(member).join("src/lib.rs");
        let start = if lib.exists() {
            lib
        } else {
            root().join(member).join("src/main.rs")
        };
        let text = fs::read_to_string(start).unwrap();
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{member} does not forbid unsafe code"
        );
    }
}
