//! ketch's listener beside `rclone copy` in a loop and a sequential poller over paramiko.
//!
//! `scan`: how long it takes to find that nothing has changed in a tree, near and far. The poller and ketch
//! scan over a connection that they have; of rclone, which makes a new one each time, the whole run counts,
//! and beside it a run over an empty directory, which is what its connection costs.
//!
//! `chaos`: each in turn is killed with -9 again and again while a writer works; its journal against what
//! arrived says what was lost, doubled and torn.
//!
//! ```text
//! cargo build --release -p ketch
//! cargo run --release -p ketch-benches --bin listeners -- scan
//! cargo run --release -p ketch-benches --bin listeners -- chaos --kills 100
//! ```

mod chaos;
mod scan;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use ketch_conformance::openssh::OpenSshServer;

type Failed = Box<dyn Error + Send + Sync>;

/// Measures listeners.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure
    #[command(subcommand)]
    what: What,
    /// Directory for the files of both sides
    #[arg(long, default_value = "/dev/shm", global = true)]
    dir: PathBuf,
    /// Where the peers from PyPI are
    #[arg(long, default_value = "target/peers", global = true)]
    peers: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Scans of a tree that does not change
    Scan(scan::Arguments),
    /// Kills under load
    Chaos(chaos::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.what {
        What::Scan(scan) => scan::run(scan, &arguments),
        What::Chaos(chaos) => chaos::run(chaos, &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("listeners: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The poller, as a program in `dir`.
fn poller(arguments: &Arguments, dir: &Path) -> Result<Command, Failed> {
    let script = dir.join("poller.py");
    std::fs::write(&script, include_str!("poller.py"))?;
    let mut command = Command::new(arguments.peers.join("python/bin/python"));
    command.arg(script);
    Ok(command)
}

/// `rclone copy` with as much at a time as it can, as far as `:sftp:`.
fn rclone(server: &OpenSshServer, port: u16) -> Command {
    let mut command = Command::new("rclone");
    command
        .args(["--config", "", "--transfers", "8", "--checkers", "16"])
        .args(["--sftp-host", "127.0.0.1", "--sftp-port", &port.to_string()])
        .args(["--sftp-user", server.user(), "--sftp-key-file"])
        .arg(server.identity().private())
        .args(["--sftp-shell-type", "none", "copy"])
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("SSH_AUTH_SOCK");
    command
}
