//! What idle sessions cost: the memory of a server with many that are logged in to SFTP and do nothing.
//!
//! `ketch serve` with `--sessions` of them, and sshd beside it with `--openssh` of its own, which takes
//! processes for each. Memory is read before anybody came, when all are logged in and have looked at
//! one file, and once more after each of them has read and written a mebibyte: what that took has to
//! be given back. Of sshd it is the sum over the processes of its sessions, of which each page that
//! several share is counted in parts (`Pss`, proc(5)); of one process that is its resident memory.
//!
//! ```text
//! cargo build --release -p ketch
//! cargo run --release -p ketch-benches --bin idle
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ketch_benches::ketch_server::{self, KetchServer};
use ketch_client::hostkey::HostKeys;
use ketch_client::{Connect, OpenOptions, Session, Sftp, identity::Identity};
use ketch_conformance::content::random_file;
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_conformance::process::Process;

/// Measures the memory of idle sessions.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sessions of ketch's server
    #[arg(long, default_value_t = 1000)]
    sessions: u32,
    /// Sessions of sshd; 0 leaves it out
    #[arg(long, default_value_t = 50)]
    openssh: u32,
    /// Directory for a file that is read and one that is written
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The ketch program [default: the one beside this program]
    #[arg(long)]
    ketch: Option<PathBuf>,
}

type Failed = Box<dyn Error + Send + Sync>;

/// Bytes that each session reads, and writes.
const MOVED: usize = 1 << 20;
/// Bytes of a request.
const REQUEST: usize = 128 << 10;
/// How long everything is left alone before memory is read.
const REST: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failed> {
    let ketch = ketch_server::program(arguments.ketch.as_deref())?;
    let dir = tempfile::Builder::new()
        .prefix("ketch-bench-")
        .tempdir_in(&arguments.dir)?;
    random_file(&dir.path().join("read"), MOVED as u64)?;
    let openssh = OpenSshServer::start(OpenSshConfig::default())?;
    let ours = KetchServer::start(&ketch, &openssh, dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let of_ours = Server {
        name: "ketch serve",
        addr: ours.addr(),
        process: ours.process(),
    };
    runtime.block_on(idle(&of_ours, &openssh, arguments.sessions, dir.path()))?;
    if arguments.openssh > 0 {
        let of_sshd = Server {
            name: "sshd",
            addr: openssh.addr(),
            process: openssh.process(),
        };
        runtime.block_on(idle(&of_sshd, &openssh, arguments.openssh, dir.path()))?;
    }
    Ok(())
}

struct Server {
    name: &'static str,
    addr: SocketAddr,
    process: Process,
}

impl Server {
    /// Bytes that it and all that it started hold, pages that are shared counted once.
    fn memory(&self) -> Result<u64, Failed> {
        let mut all = self.process.descendants();
        all.push(self.process);
        let mut sum = 0;
        for process in all {
            let path = format!("/proc/{}/smaps_rollup", process.id());
            // One may end meanwhile.
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = line.map(|line| line.trim().trim_end_matches(" kB").parse::<u64>());
            sum += kib.transpose()?.unwrap_or_default() * 1024;
        }
        Ok(sum)
    }

    fn print(&self, what: &str, sessions: u32, before: u64) -> Result<(), Failed> {
        let (now, processes) = (self.memory()?, self.process.descendants().len() + 1);
        let mib = |bytes: u64| -> Result<f64, Failed> {
            Ok(f64::from(u32::try_from(bytes / 1024)?) / 1024.0)
        };
        let each = mib(now.saturating_sub(before))? * 1024.0 / f64::from(sessions);
        println!(
            "  {what:<26} {:>8.1} MiB in all, {processes} processes; {each:.1} KiB more a session",
            mib(now)?
        );
        Ok(())
    }
}

/// Logs `sessions` in and reads the server's memory.
async fn idle(
    server: &Server,
    account: &OpenSshServer,
    sessions: u32,
    dir: &Path,
) -> Result<(), Failed> {
    println!("{}, {sessions} sessions:", server.name);
    let before = server.memory()?;
    server.print("before anybody came", sessions, before)?;
    let mut all = Vec::new();
    for _ in 0..sessions {
        let connect = Connect::to(&server.addr.ip().to_string())
            .port(server.addr.port())
            .user(account.user())
            .host_keys(HostKeys::danger_accept_any_host())
            .identity(Identity::from_file(account.identity().private())?)
            .for_sftp();
        let session = connect.connect().await?;
        let sftp = session.sftp().await?;
        sftp.stat(path(&dir.join("read"))?).await?;
        all.push((session, sftp));
    }
    tokio::time::sleep(REST).await;
    server.print("logged in, idle", sessions, before)?;
    for (number, (_, sftp)) in all.iter().enumerate() {
        move_some(sftp, dir, number).await?;
    }
    tokio::time::sleep(REST).await;
    server.print("after 1 MiB each way, idle", sessions, before)?;
    drop::<Vec<(Session, Sftp)>>(all);
    tokio::time::sleep(REST).await;
    server.print("when all have left", sessions, before)
}

async fn move_some(sftp: &Sftp, dir: &Path, number: usize) -> Result<(), Failed> {
    let file = sftp
        .open(path(&dir.join("read"))?, OpenOptions::reading())
        .await?;
    let copy = dir.join(format!("copy-{}", number % 8));
    let written = sftp.open(path(&copy)?, OpenOptions::writing()).await?;
    let mut offset = 0;
    while offset < MOVED as u64 {
        let bytes = file.read_at(offset, REQUEST).await?;
        if bytes.is_empty() {
            return Err("the file is too short".into());
        }
        written.write_at(offset, &bytes).await?;
        offset += bytes.len() as u64;
    }
    file.close().await?;
    written.close().await?;
    Ok(())
}

fn path(path: &Path) -> Result<&str, Failed> {
    path.to_str().ok_or_else(|| "a path that is no text".into())
}
