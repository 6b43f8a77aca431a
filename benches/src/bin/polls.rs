//! What a poll costs: a tree on sshd that nobody changes is looked at again and again.
//!
//! - A full poll beside a bare walk of the client, which lists the same and keeps nothing.
//! - A quiet poll, which trusts directory times, beside a full one.
//! - Bytes of memory for a file that is known, by the resident memory of this process too.
//! - Processor time of this process and of the server, for machines with other work to do.
//! - One scan from nothing, connection included, beside `rclone lsjson -R` and a sequential poller on
//!   paramiko, on loopback and over a link with a round trip time.
//!
//! ```text
//! cargo run --release -p ketch-benches --bin polls -- --directories 10000
//! ```
//!
//! A tree of a million files takes a while to make: `--tree` names one that this made before, or
//! that is to be kept.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use ketch_benches::delay_proxy::DelayProxy;
use ketch_benches::median::median;
use ketch_benches::spent::{Begun, Took};
use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::memory::ProcessMemory;
use ketch_client::{Connect, RemotePath, Session, WalkOptions};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_listener::detect::{
    DetectConfig, Detector, DirectoryTimes, First, ScanKind, ScanReport, SftpLister,
};
use ketch_listener::remote::{CHANNELS, Remote};
use ketch_listener::settle::SettleConfig;

/// Measures polls of a tree.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directories of the tree
    #[arg(long, default_value_t = 1000)]
    directories: u32,
    /// Files in each, all empty
    #[arg(long, default_value_t = 100)]
    files: u32,
    /// How often each poll is made; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Round trip time of the link, in milliseconds; 0 leaves it out
    #[arg(long, default_value_t = 50)]
    rtt: u64,
    /// Of the tree that is looked at over the link
    #[arg(long, default_value_t = 200)]
    far_directories: u32,
    /// SFTP channels that ketch may list over
    #[arg(long, default_value_t = CHANNELS)]
    channels: usize,
    /// A tree of so many directories and files that is there already, or is made to stay
    #[arg(long)]
    tree: Option<PathBuf>,
    /// Leave out the scans from nothing, and the other programs
    #[arg(long)]
    polls_only: bool,
    /// Python with paramiko; without it that poller is left out
    #[arg(long, default_value = "target/peers/python/bin/python")]
    python: PathBuf,
    /// Where the trees are made
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
}

type Failed = Box<dyn Error + Send + Sync>;

/// Bytes a second of the link: more than all of this needs.
const LINK_BYTES_PER_S: u64 = 125_000_000;
/// Longer than a directory counts as just changed.
const COLD: Duration = Duration::from_millis(3_100);

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("polls: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failed> {
    let dir = tempfile::Builder::new()
        .prefix("ketch-polls-")
        .tempdir_in(&arguments.dir)?;
    let near = arguments.tree.clone();
    let near = near.unwrap_or_else(|| dir.path().join("near"));
    let far = dir.path().join("far");
    if !near.exists() {
        make_tree(&near, arguments.directories, arguments.files)?;
    }
    make_tree(&far, arguments.far_directories, arguments.files)?;
    let openssh = OpenSshServer::start(OpenSshConfig::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let files = u64::from(arguments.directories) * u64::from(arguments.files);
    println!("{files} files in {} directories", arguments.directories);
    let snapshot = dir.path().join("snapshot");
    runtime.block_on(polls(arguments, &openssh, &near, files, &snapshot))?;
    if arguments.polls_only {
        return Ok(());
    }

    println!("a scan from nothing, connection included:");
    runtime.block_on(side_by_side(
        arguments,
        &openssh,
        openssh.addr(),
        &near,
        files,
    ))?;
    if arguments.rtt > 0 {
        let rtt = Duration::from_millis(arguments.rtt);
        let proxy = DelayProxy::start(openssh.addr(), rtt, LINK_BYTES_PER_S)?;
        let files = u64::from(arguments.far_directories) * u64::from(arguments.files);
        println!(
            "the same over {} ms, {files} files in {} directories:",
            arguments.rtt, arguments.far_directories
        );
        runtime.block_on(side_by_side(arguments, &openssh, proxy.addr(), &far, files))?;
    }
    Ok(())
}

fn make_tree(root: &Path, directories: u32, files: u32) -> Result<(), Failed> {
    for directory in 0..directories {
        let inner = root
            .join(format!("region-{:03}", directory / 100))
            .join(format!("shop-{directory:05}"));
        std::fs::create_dir_all(&inner)?;
        for file in 0..files {
            std::fs::File::create(inner.join(format!("order-{file:06}.csv")))?;
        }
    }
    Ok(())
}

async fn session(
    server: &OpenSshServer,
    addr: SocketAddr,
    memory: &Arc<ProcessMemory>,
) -> Result<Session, Failed> {
    let connect = Connect::to(&addr.ip().to_string())
        .port(addr.port())
        .user(server.user())
        .host_keys(HostKeys::danger_accept_any_host())
        .identity(Identity::from_file(server.identity().private())?)
        .host_memory(Arc::clone(memory) as _)
        .for_sftp();
    Ok(connect.connect().await?)
}

fn root_of(path: &Path) -> Result<RemotePath, Failed> {
    let text = path.to_str().ok_or("a path that is no text")?;
    Ok(RemotePath::from(text))
}

fn config() -> DetectConfig {
    DetectConfig {
        interval: None,
        first: First::Baseline,
        settle: SettleConfig::immediately(),
        ..DetectConfig::default()
    }
}

/// Scans to the end, and takes everything for recorded.
async fn scan(detector: &mut Detector) -> Result<ScanReport, Failed> {
    loop {
        let report = detector.scan(&[]).await;
        if let Some(error) = report.lost {
            return Err(error.into());
        }
        loop {
            let changes = detector.take_changes(10_000);
            if changes.is_empty() {
                break;
            }
            detector.recorded(&changes);
        }
        if report.complete {
            return Ok(report);
        }
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<u64, Failed> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: u64 = line
        .ok_or("no Rss")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib * 1024)
}

fn part(of: f64, whole: f64) -> f64 {
    if whole > 0.0 { of / whole } else { f64::NAN }
}

async fn polls(
    arguments: &Arguments,
    server: &OpenSshServer,
    root: &Path,
    files: u64,
    snapshot: &Path,
) -> Result<(), Failed> {
    let session = session(server, server.addr(), &Arc::default()).await?;
    let sftp = session.sftp().await?;
    let path = root_of(root)?;
    let walk = async || -> Result<Took, Failed> {
        let begun = Begun::now(server);
        let mut walk = sftp.walk(path.clone(), WalkOptions::new());
        let mut seen = 0;
        while let Some(entry) = walk.next().await {
            entry?;
            seen += 1;
        }
        let took = begun.took(server);
        if seen < files {
            return Err(format!("the walk saw {seen} names").into());
        }
        Ok(took)
    };
    walk().await?;
    let before = resident()?;
    let remote = Remote::over(sftp.clone(), path.clone()).channels(arguments.channels);
    let lister = Arc::new(SftpLister::new(remote));
    let mut detector = Detector::new(lister.clone(), config(), None);
    let begun = Begun::now(server);
    scan(&mut detector).await?;
    println!("  first scan {}", begun.took(server));
    let (mut full, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        bare.push(walk().await?);
        let handle = detector.handle();
        handle.apply_now();
        detector.wait().await;
        let begun = Begun::now(server);
        let report = scan(&mut detector).await?;
        full.push(begun.took(server));
        if report.kind != ScanKind::Full || report.entries < files {
            return Err("that was no full poll".into());
        }
    }
    let (full, bare) = (Took::median(&full), Took::median(&bare));
    println!("  bare walk {bare}");
    println!("  full poll {full}: {:.2}", part(full.wall_s, bare.wall_s));
    let known = u64::try_from(detector.known().memory())?;
    let grown = resident()?.saturating_sub(before);
    println!(
        "  {} bytes a file by count; {} by resident memory, what a scan needs included",
        known / files,
        grown / files
    );
    let begun = Instant::now();
    detector.save(snapshot, [0; 16])?;
    println!(
        "  snapshot: {} bytes, written in {:.3} s",
        std::fs::metadata(snapshot)?.len(),
        begun.elapsed().as_secs_f64()
    );
    drop(detector);
    quiet(arguments, server, lister, root, full.wall_s).await
}

/// Teaches a detector that directory times tell the truth, and polls.
async fn quiet(
    arguments: &Arguments,
    server: &OpenSshServer,
    lister: Arc<SftpLister>,
    root: &Path,
    full: f64,
) -> Result<(), Failed> {
    let config = DetectConfig {
        directory_times: DirectoryTimes::Learn,
        sweep_every: u32::MAX,
        ..config()
    };
    let mut detector = Detector::new(lister, config, None);
    scan(&mut detector).await?;
    tokio::time::sleep(COLD).await;
    scan(&mut detector).await?;
    let witnesses: Vec<_> = (0..3.min(arguments.directories))
        .map(|shop| root.join(format!("region-000/shop-{shop:05}/new")))
        .collect();
    for new in &witnesses {
        std::fs::File::create(new)?;
    }
    scan(&mut detector).await?;
    scan(&mut detector).await?;
    tokio::time::sleep(COLD).await;
    for new in &witnesses {
        std::fs::remove_file(new)?;
    }
    scan(&mut detector).await?;
    scan(&mut detector).await?;
    tokio::time::sleep(COLD).await;
    scan(&mut detector).await?;
    let mut times = Vec::new();
    for _ in 0..arguments.rounds {
        let begun = Begun::now(server);
        let report = scan(&mut detector).await?;
        times.push(begun.took(server));
        if report.kind != ScanKind::Quiet
            || report.directories > u64::from(arguments.directories) / 10
        {
            return Err(format!("that was no quiet poll: {report:?}").into());
        }
    }
    let quiet = Took::median(&times);
    println!(
        "  quiet poll {quiet}, of a full one: {:.3}",
        part(quiet.wall_s, full)
    );
    Ok(())
}

async fn side_by_side(
    arguments: &Arguments,
    server: &OpenSshServer,
    addr: SocketAddr,
    root: &Path,
    files: u64,
) -> Result<(), Failed> {
    let mut ours = Vec::new();
    // As the daemon has it: the first connection learns.
    let memory = Arc::default();
    for _ in 0..arguments.rounds {
        let begun = Instant::now();
        let session = session(server, addr, &memory).await?;
        let remote = Remote::over(session.sftp().await?, root_of(root)?);
        let remote = remote.channels(arguments.channels);
        let lister = Arc::new(SftpLister::new(remote));
        let mut detector = Detector::new(lister, config(), None);
        let mut entries = scan(&mut detector).await?.entries;
        entries = entries.min(detector.known().len());
        ours.push(begun.elapsed().as_secs_f64());
        if entries < files {
            return Err(format!("{entries} names were found").into());
        }
    }
    let ours = median(ours);
    println!("  ketch {ours:.3} s");
    let key = server.identity().private();
    let mut rclone = Command::new("rclone");
    rclone
        .args(["lsjson", "-R", "--config", "/dev/null"])
        .arg(format!(
            ":sftp,host={},port={},user={},key_file={},shell_type=none:{}",
            addr.ip(),
            addr.port(),
            server.user(),
            key.display(),
            root.display()
        ));
    let mut paramiko = Command::new(&arguments.python);
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    paramiko
        .arg(project.join("interop/peers/python/poll_paramiko.py"))
        .args([addr.ip().to_string(), addr.port().to_string()])
        .args([server.user().as_ref(), key.as_os_str(), root.as_os_str()]);
    for (name, mut command) in [("rclone", rclone), ("paramiko", paramiko)] {
        let mut times = Vec::new();
        for _ in 0..arguments.rounds {
            let begun = Instant::now();
            let output = command
                .env("HOME", server.client_home())
                .env_remove("SSH_AUTH_SOCK")
                .stdin(Stdio::null())
                .output();
            let output = match output {
                Ok(output) => output,
                Err(error) => {
                    println!("  {name}: {error}");
                    break;
                }
            };
            times.push(begun.elapsed().as_secs_f64());
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
            }
        }
        if !times.is_empty() {
            let theirs = median(times);
            println!(
                "  {name} {theirs:.3} s: ketch takes {:.3} of it",
                part(ours, theirs)
            );
        }
    }
    Ok(())
}
