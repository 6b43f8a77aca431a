//! `docs/interop.md`, written from the matrix, and compared with what is there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::matrix::{Cell, Column};
use crate::peers::scripted::root;
use crate::subject::Subject;

/// Set to anything, writes the documents instead of comparing them.
pub(crate) const SWITCH: &str = "KETCH_WRITE_DOCS";

/// The whole document.
pub(crate) fn document(servers: &[Column], clients: &[Column]) -> String {
    let mut text = String::from(
        "# Interoperation

Written by `conformance/tests/interop/main.rs`, which runs all of it; do not edit. `KETCH_WRITE_DOCS=1
cargo test -p ketch-conformance --test interop matrix` writes it anew. What clients do with
files on our servers, and where that is not what they do on OpenSSH's, stands in `clients.md`.

In each cell ketch offers the row's algorithm and no other of its kind, and the peer all that it has. ✓
means: agreed, logged in, a mebibyte sent there and back, keys exchanged anew in between. A cell is
blank where the peer does not have the algorithm, by its own word: its `KEXINIT`, its `EXT_INFO` or
the list that it prints of itself, all of which stand below. – means that ketch leaves it out in this
role or for this peer, and why stands below, too. Any other outcome fails the test.

",
    );
    text.push_str("## ketch as client\n\n");
    table(&mut text, servers);
    text.push_str("\n## ketch as server\n\n");
    table(&mut text, clients);
    for (role, columns) in [("server", servers), ("client", clients)] {
        for column in columns {
            peer(&mut text, role, column);
        }
    }
    text
}

fn table(text: &mut String, columns: &[Column]) {
    text.push_str("| |");
    for column in columns {
        let _ = write!(text, " {} |", column.name);
    }
    text.push_str("\n| --- |");
    text.push_str(&" :-: |".repeat(columns.len()));
    text.push('\n');
    let mut category = "";
    for subject in Subject::all() {
        if subject.category() != category {
            category = subject.category();
            let _ = writeln!(text, "| **{category}** |{}", " |".repeat(columns.len()));
        }
        let _ = write!(text, "| {} |", subject.name());
        for column in columns {
            let cell = column.cells.iter().find(|(each, _)| *each == subject);
            text.push_str(match cell {
                Some((_, Cell::Works)) => " ✓ |",
                Some((_, Cell::Fails(_))) => " ✗ |",
                Some((_, Cell::Ours(_))) => " – |",
                Some((_, Cell::Blank(_))) | None => " |",
            });
        }
        text.push('\n');
    }
}

fn peer(text: &mut String, role: &str, column: &Column) {
    let Column {
        name,
        offer,
        user_keys,
        user_keys_from,
        cells,
    } = column;
    let _ = write!(text, "\n## {name} as {role}\n\n");
    let _ = writeln!(text, "Identification: `{}`\n", offer.identification);
    for (what, list) in [
        ("Key exchange", &offer.kex),
        ("Host keys", &offer.host_key),
        ("Ciphers", &offer.cipher),
        ("MACs", &offer.mac),
        ("Compression", &offer.compression),
    ] {
        let _ = writeln!(text, "- {what}: {}", list.join(" "));
    }
    let _ = writeln!(
        text,
        "- User keys ({user_keys_from}): {}",
        user_keys.join(" ")
    );
    let mut blanks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (subject, cell) in cells {
        let key = match cell {
            Cell::Blank(evidence) => format!("{}: {evidence}", subject.category()),
            Cell::Ours(why) => format!("{} (–): {why}", subject.category()),
            Cell::Works | Cell::Fails(_) => continue,
        };
        let row = subject.name().to_owned();
        blanks.entry(key).or_default().push(row);
    }
    if !blanks.is_empty() {
        text.push_str("\nBlank:\n\n");
        for (evidence, rows) in blanks {
            let _ = writeln!(text, "- {evidence}: {}", rows.join(" "));
        }
    }
}

/// Writes the document if the switch is set; otherwise says whether it is as it was, versions aside.
pub(crate) fn settle(path: &str, document: &str) -> Result<(), String> {
    let path = root().join(path);
    if std::env::var_os(SWITCH).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, document).unwrap();
        return Ok(());
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let substance = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("Identification:"));
        lines.map(str::to_owned).collect()
    };
    let (there, now) = (substance(&there), substance(document));
    if there == now {
        return Ok(());
    }
    let differ = now.iter().find(|line| !there.contains(line));
    Err(format!(
        "{} is not what the test finds now; the first line that differs: {differ:?}. If that is right, \
         write it anew with {SWITCH}=1",
        path.display()
    ))
}
