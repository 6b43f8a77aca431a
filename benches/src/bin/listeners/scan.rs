//! How long a listener takes to find that nothing has changed.

#![expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_benches::delay_proxy::DelayProxy;
use ketch_benches::median::median;
use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, RemotePath};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_listener::detect::{DetectConfig, Detector, DirectoryTimes, First, SftpLister};
use ketch_listener::remote::Remote;

use super::{Failed, poller, rclone};

/// Bytes a second of the link that is far.
const RATE: u64 = 125_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Files of the tree
    #[arg(long, default_value_t = 20_000)]
    files: u32,
    /// Directories that they are in
    #[arg(long, default_value_t = 200)]
    directories: u32,
    /// Scans of each; the medians count
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Round trip times in milliseconds, 0 for loopback as it is
    #[arg(long, value_delimiter = ',', default_values_t = [0, 50])]
    rtt: Vec<u64>,
}

pub(crate) fn run(arguments: &Arguments, all: &super::Arguments) -> Result<(), Failed> {
    let dir = tempfile::Builder::new()
        .prefix("ketch-bench-")
        .tempdir_in(&all.dir)?;
    let tree = dir.path().join("tree");
    for n in 0..arguments.directories {
        fs::create_dir_all(tree.join(format!("d{n}")))?;
    }
    for n in 0..arguments.files {
        let name = format!("d{}/file-{n}.dat", n % arguments.directories);
        fs::write(tree.join(name), b"x")?;
    }
    fs::create_dir(dir.path().join("empty"))?;
    let server = OpenSshServer::start(OpenSshConfig::default())?;
    println!(
        "{} files in {} directories, median of {} scans",
        arguments.files, arguments.directories, arguments.rounds
    );
    for &rtt in &arguments.rtt {
        let proxy = match rtt {
            0 => None,
            rtt => Some(DelayProxy::start(
                server.addr(),
                Duration::from_millis(rtt),
                RATE,
            )?),
        };
        let addr = proxy
            .as_ref()
            .map_or_else(|| server.addr(), DelayProxy::addr);
        let place = Place {
            server: &server,
            addr,
            tree: &tree,
            dir: dir.path(),
            rounds: arguments.rounds,
        };
        let full = place.ketch(DirectoryTimes::Never)?;
        let quiet = place.ketch(DirectoryTimes::Learn)?;
        let (copy, empty) = place.rclone()?;
        let poller = place.poller(all)?;
        let least = poller.min(copy - empty);
        println!("RTT {rtt} ms:");
        println!("  ketch, everything listed      {full:.3} s");
        println!("  ketch, by directory times     {quiet:.3} s");
        println!(
            "  rclone copy                   {copy:.3} s, over an empty directory {empty:.3} s"
        );
        println!("  poller over paramiko          {poller:.3} s");
        println!(
            "  ketch by the best of them     {:.3} (by directory times {:.3})",
            full / least,
            quiet / least
        );
    }
    Ok(())
}

struct Place<'a> {
    server: &'a OpenSshServer,
    addr: SocketAddr,
    tree: &'a Path,
    dir: &'a Path,
    rounds: u32,
}

impl Place<'_> {
    fn ketch(&self, directory_times: DirectoryTimes) -> Result<f64, Failed> {
        let connect = Connect::to(&self.addr.ip().to_string())
            .port(self.addr.port())
            .user(self.server.user())
            .host_keys(HostKeys::danger_accept_any_host())
            .identity(Identity::from_file(self.server.identity().private())?)
            .for_sftp();
        let root = RemotePath::from(self.tree.to_str().ok_or("a path that is no text")?);
        let config = DetectConfig {
            interval: None,
            first: First::Baseline,
            directory_times,
            sweep_every: 1000,
            ..DetectConfig::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut detector = Detector::new(
                Arc::new(SftpLister::new(Remote::new(connect, root))),
                config,
                None,
            );
            // The first learn the tree, and whether times of directories tell the truth.
            for _ in 0..4 {
                scan_once(&mut detector).await?;
                take_all(&mut detector);
                // Two looks in the same second say nothing about times.
                tokio::time::sleep(Duration::from_millis(1100)).await;
            }
            let mut times = Vec::new();
            for _ in 0..self.rounds {
                let began = Instant::now();
                scan_once(&mut detector).await?;
                if take_all(&mut detector) > 0 {
                    return Err("the tree changed".into());
                }
                times.push(began.elapsed().as_secs_f64());
            }
            Ok(median(times))
        })
    }

    fn rclone(&self) -> Result<(f64, f64), Failed> {
        let mut medians = Vec::new();
        for source in [self.tree, &self.dir.join("empty")] {
            let target = self
                .dir
                .join("rclone")
                .join(source.file_name().unwrap_or_default());
            let mut times = Vec::new();
            for round in 0..=self.rounds {
                let began = Instant::now();
                let output = rclone(self.server, self.addr.port())
                    .arg(format!(":sftp:{}", source.display()))
                    .arg(&target)
                    .env("HOME", self.dir)
                    .output()?;
                if !output.status.success() {
                    return Err(
                        format!("rclone: {}", String::from_utf8_lossy(&output.stderr)).into(),
                    );
                }
                // The first of them copies.
                if round > 0 {
                    times.push(began.elapsed().as_secs_f64());
                }
            }
            medians.push(median(times));
        }
        Ok((medians[0], medians[1]))
    }

    fn poller(&self, all: &super::Arguments) -> Result<f64, Failed> {
        let output = poller(all, self.dir)?
            .arg("scan")
            .arg(self.addr.ip().to_string())
            .arg(self.addr.port().to_string())
            .arg(self.server.user())
            .arg(self.server.identity().private())
            .arg(self.tree)
            .arg(self.rounds.to_string())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err("the poller failed".into());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let times: Result<Vec<f64>, _> = text
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .map(str::parse)
            .collect();
        Ok(median(times?))
    }
}

async fn scan_once(detector: &mut Detector) -> Result<(), Failed> {
    loop {
        let report = detector.scan(&[]).await;
        if let Some(lost) = report.lost {
            return Err(lost.into());
        }
        if report.complete {
            return Ok(());
        }
    }
}

fn take_all(detector: &mut Detector) -> usize {
    let mut count = 0;
    loop {
        let changes = detector.take_changes(10_000);
        if changes.is_empty() {
            return count;
        }
        count += changes.len();
        detector.recorded(&changes);
    }
}
