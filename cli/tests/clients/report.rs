//! `docs/clients.md`, written from what was found, and compared with what is there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::differences::{Difference, REASONS};
use crate::servers::Kind;
use crate::{Client, Outcome};

/// Set to anything, writes the document instead of comparing it.
const SWITCH: &str = "KETCH_WRITE_DOCS";

/// Why one that many use is not compared.
const FILEZILLA: &str = "
## FileZilla

Its engine is not among them. `fzsftp` takes commands on standard input, but passes the bytes of files
through memory that it shares with FileZilla itself, which has a window. By hand, without transfers,
that of 3.63 logs in to `ketch serve`, lists, makes, renames and removes files and directories, and sets
permissions and times.
";

pub(crate) fn document(
    clients: &[&Client],
    outcomes: &[[Outcome; 3]],
    found: &[Difference],
) -> String {
    let mut text = String::from(
        "# What clients do on our servers

Written by `cli/tests/clients/main.rs`, which runs all of it; do not edit. `KETCH_WRITE_DOCS=1 cargo test
-p ketch --test clients` writes it anew.

Each client does one script of operations on `ketch serve`, on OpenSSH's sshd with its own sftp-server,
and on that sshd with `ketch-sftp-server`: put, get, list, stat, rename (over a name that exists, too),
make and remove directories and files, links, permissions, times, append and continue, cut off, large
and empty files, odd names, what is missing and what is not permitted. What every step says and every
file on the server and here in the end are compared with those of OpenSSH's server. A number in a cell
leads to a reason below; any other difference fails the test.

| client | steps | ketch serve | ketch-sftp-server |
| --- | --: | :-: | :-: |
",
    );
    for (client, outcome) in clients.iter().zip(outcomes) {
        let steps = outcome[1]
            .iter()
            .filter(|(step, _)| !step.starts_with("file `"))
            .count();
        let cell = |kind: Kind| {
            let of = found
                .iter()
                .filter(|it| it.client == client.name && it.kind == kind);
            let reasons: BTreeSet<usize> = of
                .flat_map(|it| {
                    let all = REASONS.iter().enumerate();
                    all.filter(|(_, reason)| reason.explains(it))
                        .map(|(at, _)| at + 1)
                })
                .collect();
            let numbers: Vec<String> = reasons.iter().map(|at| format!("[{at}]")).collect();
            if numbers.is_empty() {
                "the same".to_owned()
            } else {
                numbers.join(" ")
            }
        };
        let (serve, drop_in) = (cell(Kind::Serve), cell(Kind::DropIn));
        let _ = writeln!(text, "| {} | {steps} | {serve} | {drop_in} |", client.name);
    }
    text.push_str("\n## Differences\n\n");
    for (at, reason) in REASONS.iter().enumerate() {
        let names: Vec<_> = reason.kinds.iter().map(|kind| kind.name()).collect();
        let _ = writeln!(text, "{}. {}: {}", at + 1, names.join(" and "), reason.why);
    }
    text.push_str(FILEZILLA);
    text
}

/// Compares the document with what is in the tree, or writes it.
pub(crate) fn settle(path: &str, document: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path);
    if std::env::var_os(SWITCH).is_some() {
        fs::write(file, document).unwrap();
        return;
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == document,
        "{path} is not what was found; {SWITCH}=1 writes it anew. Found:\n{document}"
    );
}
