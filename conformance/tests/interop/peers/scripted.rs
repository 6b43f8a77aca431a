//! A peer that is a library: a small program around it takes one job a line and answers in one line,
//! both in JSON (`interop/README.md`).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long a job may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Which library.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Library {
    Asyncssh,
    Paramiko,
    NodeSsh2,
    Libssh2,
    Russh,
}

impl Library {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Asyncssh => "asyncssh",
            Self::Paramiko => "paramiko",
            Self::NodeSsh2 => "ssh2 (Node)",
            Self::Libssh2 => "libssh2",
            Self::Russh => "russh",
        }
    }
}

/// The root of the project.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Scripted {
    name: String,
    _child: Child,
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Scripted {
    pub(crate) fn start(library: Library) -> Result<Self, String> {
        let root = root();
        let peers = root.join("interop/peers");
        let python = |script: &str| {
            let mut command = Command::new(root.join("target/peers/python/bin/python"));
            command.arg(peers.join("python").join(script));
            command
        };
        let command = match library {
            Library::Asyncssh => python("peer_asyncssh.py"),
            Library::Paramiko => python("peer_paramiko.py"),
            Library::NodeSsh2 => {
                let mut command = Command::new("node");
                command.arg(peers.join("node/peer_ssh2.js"));
                command.env("NODE_PATH", root.join("target/peers/node/node_modules"));
                command
            }
            Library::Libssh2 => Command::new(root.join("target/interop/debug/peer-libssh2")),
            Library::Russh => Command::new(root.join("target/interop/debug/peer-russh")),
        };
        Self::start_program(library.name(), command)
    }

    /// asyncssh of a version that has known faults, for tests that have to fail on it.
    pub(crate) fn start_old_asyncssh(version: &str) -> Result<Self, String> {
        let root = root();
        let name = format!("asyncssh-{version}");
        let mut command = Command::new(root.join("target/peers").join(&name).join("bin/python"));
        command.arg(root.join("interop/peers/python/peer_asyncssh.py"));
        Self::start_program(&name, command)
    }

    fn start_program(name: &str, mut command: Command) -> Result<Self, String> {
        command
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}: run scripts/setup-peers"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| format!("{name} has no pipes"))?;
        Ok(Self {
            name: name.to_owned(),
            _child: child,
            pipes: Mutex::new((stdin, BufReader::new(stdout).lines())),
        })
    }

    /// Gives it a job and waits for the answer.
    pub(crate) async fn ask(&self, job: Value) -> Result<Value, String> {
        let name = &self.name;
        let mut pipes = self.pipes.lock().await;
        let (stdin, lines) = &mut *pipes;
        let ask = async {
            stdin.write_all(format!("{job}\n").as_bytes()).await?;
            stdin.flush().await?;
            lines.next_line().await
        };
        let line = timeout(LIMIT, ask)
            .await
            .map_err(|_| format!("{name} was not done in time"))?
            .map_err(|error| format!("{name}: {error}"))?
            .ok_or_else(|| format!("{name} has ended: run scripts/setup-peers"))?;
        let answer: Value = serde_json::from_str(&line)
            .map_err(|error| format!("{name} said {line:?}: {error}"))?;
        if answer["ok"] == true {
            Ok(answer)
        } else {
            let error = answer["error"].as_str().unwrap_or("no reason").to_owned();
            Err(format!("{name} says: {error}"))
        }
    }

    /// What the library says that it has, by kind.
    pub(crate) async fn has(&self, kind: &str) -> Result<Vec<String>, String> {
        let answer = self.ask(json!({ "do": "describe" })).await?;
        Ok(strings(&answer["has"][kind]))
    }
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}
