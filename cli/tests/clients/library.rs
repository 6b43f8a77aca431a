//! The script, step by step, for clients that are libraries: the programs of `interop/peers` do it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::Outcome;
use crate::servers::Server;

/// A name that is no UTF-8.
const NO_TEXT: &[u8] = b"no \xff text \xfe";

/// What each step is called, and what is asked: an operation and its arguments.
fn steps() -> Vec<(&'static str, Value)> {
    let raw =
        json!({ "hex": NO_TEXT.iter().map(|byte| format!("{byte:02x}")).collect::<String>() });
    let long = "l".repeat(255);
    let too_long = "l".repeat(256);
    vec![
        ("mkdir", json!(["mkdir", "d"])),
        ("mkdir of what exists", json!(["mkdir", "d"])),
        ("mkdir in what is missing", json!(["mkdir", "none/d"])),
        ("put", json!(["put", "d/f", 100_000])),
        ("put over it", json!(["put", "d/f", 70_001])),
        ("put of an empty file", json!(["put", "d/empty", 0])),
        ("put of a large file", json!(["put", "large", 1_000_000])),
        ("get of a large file", json!(["get", "large", 1_000_000])),
        ("get", json!(["get", "d/f", 70_001])),
        ("get of an empty file", json!(["get", "d/empty", 0])),
        ("get of what is missing", json!(["get", "d/none", 1])),
        ("put into what is missing", json!(["put", "none/f", 1])),
        ("put into a file", json!(["put", "d/f/g", 1])),
        ("stat of a file", json!(["stat", "d/f"])),
        ("stat of a directory", json!(["stat", "d"])),
        ("stat of what is missing", json!(["stat", "none"])),
        ("stat below a file", json!(["stat", "d/f/g"])),
        ("chmod", json!(["chmod", "d/f", 0o640])),
        ("stat after chmod", json!(["stat", "d/f"])),
        ("chmod of what is missing", json!(["chmod", "none", 0o640])),
        ("put of a file for times", json!(["put", "d/timed", 10])),
        (
            "set times",
            json!(["utime", "d/timed", 1_000_000_000, 1_100_000_000]),
        ),
        ("times", json!(["times", "d/timed"])),
        ("rename", json!(["rename", "d/f", "d/g"])),
        ("put of another", json!(["put", "d/h", 7])),
        ("rename over what exists", json!(["rename", "d/h", "d/g"])),
        ("rename and replace", json!(["replace", "d/h", "d/g"])),
        (
            "rename of what is missing",
            json!(["rename", "none", "d/x"]),
        ),
        ("rename of a directory", json!(["rename", "d", "e"])),
        ("truncate", json!(["truncate", "e/g", 3])),
        ("truncate to more", json!(["truncate", "large", 1_000_100])),
        ("append", json!(["append", "e/g", 20])),
        ("stat after append", json!(["stat", "e/g"])),
        ("symlink", json!(["symlink", "g", "e/l"])),
        ("readlink", json!(["readlink", "e/l"])),
        ("lstat of a link", json!(["lstat", "e/l"])),
        ("stat of a link", json!(["stat", "e/l"])),
        ("readlink of a file", json!(["readlink", "e/g"])),
        ("symlink over what exists", json!(["symlink", "g", "e/l"])),
        (
            "symlink to what is missing",
            json!(["symlink", "none", "e/dangling"]),
        ),
        ("stat of a dangling link", json!(["stat", "e/dangling"])),
        ("hard link", json!(["link", "e/g", "e/second"])),
        (
            "put of a name with spaces",
            json!(["put", "e/a name  with spaces ", 1]),
        ),
        ("put of a name in UTF-8", json!(["put", "e/Grüße 漢字", 2])),
        (
            "put of a name with quotes",
            json!(["put", "e/a'b\"c*?[x]", 3]),
        ),
        (
            "put of a name with a backslash",
            json!(["put", "e/a\\b", 3]),
        ),
        (
            "put of a name with a line's end",
            json!(["put", "e/a\nb", 3]),
        ),
        (
            "put of the longest name",
            json!(["put", format!("e/{long}"), 4]),
        ),
        (
            "put of a name too long",
            json!(["put", format!("e/{too_long}"), 4]),
        ),
        ("put of a name that is no text", json!(["put", raw, 5])),
        ("get of a name that is no text", json!(["get", raw, 5])),
        ("list", json!(["list", "e"])),
        ("list of what is missing", json!(["list", "none"])),
        ("list of a file", json!(["list", "large"])),
        ("put where nobody may", json!(["put", "locked/f", 1])),
        ("remove where nobody may", json!(["remove", "locked/kept"])),
        ("get where nobody may write", json!(["stat", "locked/kept"])),
        ("realpath of here", json!(["realpath", "."])),
        ("realpath with dots", json!(["realpath", "e/../e/./g"])),
        ("realpath of what is missing", json!(["realpath", "e/none"])),
        ("realpath of a link", json!(["realpath", "e/l"])),
        (
            "realpath below what is missing",
            json!(["realpath", "none/none"]),
        ),
        ("df", json!(["df", "."])),
        ("rmdir of what is not empty", json!(["rmdir", "e"])),
        ("rmdir of a file", json!(["rmdir", "large"])),
        ("remove of a directory", json!(["remove", "e"])),
        ("remove", json!(["remove", "e/empty"])),
        ("remove of what is missing", json!(["remove", "e/empty"])),
        ("remove of a link", json!(["remove", "e/dangling"])),
        ("mkdir to be removed", json!(["mkdir", "gone"])),
        ("rmdir", json!(["rmdir", "gone"])),
        ("rmdir of what is missing", json!(["rmdir", "gone"])),
    ]
}

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn python(script: &str) -> Command {
    let root = project();
    let mut command = Command::new(root.join("target/peers/python/bin/python"));
    command.arg(root.join("interop/peers/python").join(script));
    command
}

pub(crate) fn asyncssh(server: &Server, _: &Path) -> Outcome {
    run(python("peer_asyncssh.py"), server)
}

pub(crate) fn paramiko(server: &Server, _: &Path) -> Outcome {
    run(python("peer_paramiko.py"), server)
}

pub(crate) fn node(server: &Server, _: &Path) -> Outcome {
    let root = project();
    let mut command = Command::new("node");
    command.arg(root.join("interop/peers/node/peer_ssh2.js"));
    command.env("NODE_PATH", root.join("target/peers/node/node_modules"));
    run(command, server)
}

pub(crate) fn libssh2(server: &Server, _: &Path) -> Outcome {
    run(
        Command::new(project().join("target/interop/debug/peer-libssh2")),
        server,
    )
}

fn run(mut command: Command, server: &Server) -> Outcome {
    let steps = steps();
    let mut peer = command
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a peer starts (scripts/setup-peers)");
    let asked: Vec<_> = steps.iter().map(|(_, step)| step).collect();
    let job = json!({
        "do": "files",
        "port": server.port,
        "user": server.user,
        "key": server.key,
        "steps": asked,
    });
    let mut stdin = peer.stdin.take().unwrap();
    writeln!(stdin, "{job}").unwrap();
    let mut line = String::new();
    BufReader::new(peer.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    drop(stdin);
    let _ = peer.kill();
    let _ = peer.wait();
    let told: Value = serde_json::from_str(&line).unwrap_or_default();
    let results = told["results"]
        .as_array()
        .unwrap_or_else(|| panic!("it said {line:?}"));
    assert_eq!(results.len(), steps.len());
    let prefix = server.prefix();
    let said = |result: &Value| match result.as_str() {
        Some(text) if !prefix.is_empty() && text.starts_with(&prefix) => {
            let beneath = &text[prefix.len()..];
            if beneath.is_empty() {
                "/".to_owned()
            } else {
                beneath.to_owned()
            }
        }
        Some(text) => text.to_owned(),
        None => result.to_string(),
    };
    steps
        .iter()
        .zip(results)
        .map(|((name, _), result)| ((*name).to_owned(), said(result)))
        .collect()
}
