//! Many sessions at once: what each of them gets of one server, ketch's and OpenSSH's in turn.
//!
//! All sessions are logged in before any reads. Then each reads one file over and over, with a few
//! requests under way, or writes a file of its own, for the same stretch of time; what came in it
//! is counted for each. The client is one program that treats them alike.
//!
//! ```text
//! cargo build --release -p ketch
//! cargo run --release -p ketch-benches --bin fair_share
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "a program owns its clock and tasks"
)]

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use ketch_benches::ketch_server::{self, KetchServer};
use ketch_benches::median::{median, range};
use ketch_client::hostkey::HostKeys;
use ketch_client::{Connect, OpenOptions, Session, identity::Identity};
use ketch_conformance::content::random_file;
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};

/// Measures what each of many sessions gets.
#[derive(Debug, Parser)]
struct Arguments {
    /// Sessions at a time, a connection each
    #[arg(long, default_value_t = 200)]
    sessions: u32,
    /// For how long is counted, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of a request
    #[arg(long, default_value_t = 32 * 1024)]
    request: usize,
    /// Requests that a session has under way
    #[arg(long, default_value_t = 4)]
    depth: usize,
    /// Directory on a tmpfs
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The ketch program [default: the one beside this program]
    #[arg(long)]
    ketch: Option<PathBuf>,
    /// Leave OpenSSH out
    #[arg(long)]
    ours_alone: bool,
}

type Failed = Box<dyn Error + Send + Sync>;

/// Bytes of the file that is read.
const FILE_LEN: u64 = 16 << 20;
/// Time for all to come up to speed, before anything is counted.
const RUN_UP: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fair_share: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failed> {
    let ketch = ketch_server::program(arguments.ketch.as_deref())?;
    let dir = tempfile::Builder::new()
        .prefix("ketch-bench-")
        .tempdir_in(&arguments.dir)?;
    random_file(&dir.path().join("file"), FILE_LEN)?;
    let openssh = OpenSshServer::start(OpenSshConfig {
        lines: vec!["MaxStartups 500".to_owned()],
        ..OpenSshConfig::default()
    })?;
    let ours = KetchServer::start(&ketch, &openssh, dir.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    for work in [Work::Read, Work::Write] {
        println!(
            "{} sessions that {work:?}, {} s:",
            arguments.sessions, arguments.seconds
        );
        let addr = ours.addr();
        let each = runtime.block_on(together(arguments, &openssh, addr, work, dir.path()))?;
        print("ketch serve", &each, arguments.seconds);
        if !arguments.ours_alone {
            let addr = openssh.addr();
            let each = runtime.block_on(together(arguments, &openssh, addr, work, dir.path()))?;
            print("sshd", &each, arguments.seconds);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Read,
    Write,
}

/// What each session moved, in bytes.
async fn together(
    arguments: &Arguments,
    account: &OpenSshServer,
    addr: SocketAddr,
    work: Work,
    dir: &Path,
) -> Result<Vec<f64>, Failed> {
    let mut sessions: Vec<Session> = Vec::new();
    for _ in 0..arguments.sessions {
        let connect = Connect::to(&addr.ip().to_string())
            .port(addr.port())
            .user(account.user())
            .host_keys(HostKeys::danger_accept_any_host())
            .identity(Identity::from_file(account.identity().private())?)
            .for_sftp();
        sessions.push(connect.connect().await?);
    }
    let is_counting = Arc::new(AtomicBool::new(false));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut counts = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (number, session) in sessions.into_iter().enumerate() {
        let sftp = session.sftp().await?;
        let (path, options) = match work {
            Work::Read => (dir.join("file"), OpenOptions::reading()),
            Work::Write => (dir.join(format!("copy-{number}")), OpenOptions::writing()),
        };
        let path = path.to_str().ok_or("a path that is no text")?;
        let file = Arc::new(sftp.open(path, options).await?);
        let count = Arc::new(AtomicU64::new(0));
        counts.push(Arc::clone(&count));
        let session = Arc::new(session);
        for lane in 0..arguments.depth {
            let (file, session, count) =
                (Arc::clone(&file), Arc::clone(&session), Arc::clone(&count));
            let (is_counting, is_over) = (Arc::clone(&is_counting), Arc::clone(&is_over));
            let (len, depth) = (arguments.request, arguments.depth);
            tasks.spawn(async move {
                let _stays_open = session;
                let bytes = vec![7_u8; len];
                let mut block = lane as u64;
                while !is_over.load(Ordering::Relaxed) {
                    let offset = block * len as u64 % FILE_LEN;
                    let moved = match work {
                        Work::Read => file.read_at(offset, len).await?.len(),
                        Work::Write => {
                            file.write_at(offset, &bytes).await?;
                            len
                        }
                    };
                    if is_counting.load(Ordering::Relaxed) {
                        count.fetch_add(moved as u64, Ordering::Relaxed);
                    }
                    block += depth as u64;
                }
                Ok::<(), Failed>(())
            });
        }
    }
    tokio::time::sleep(RUN_UP).await;
    is_counting.store(true, Ordering::Relaxed);
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    is_counting.store(false, Ordering::Relaxed);
    let took = began.elapsed().as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let of = |count: &Arc<AtomicU64>| count.load(Ordering::Relaxed) as f64 / took;
    Ok(counts.iter().map(of).collect())
}

fn print(server: &str, each: &[f64], seconds: u64) {
    const MIB: f64 = 1024.0 * 1024.0;
    let (least, most) = range(each.iter().copied());
    let sum: f64 = each.iter().sum();
    println!(
        "  {server:<12} {:>8.1} MiB/s in all over {seconds} s; each {:.2} to {:.2}, median {:.2}; \
         slowest by fastest {:.3}",
        sum / MIB,
        least / MIB,
        most / MIB,
        median(each.iter().copied()) / MIB,
        least / most
    );
}
