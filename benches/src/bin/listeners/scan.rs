//! How long a listener takes to find that nothing has changed.

#![expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_benches::delay_proxy::DelayProxy;
use ketch_benches::median::{median, range};
use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, RemotePath};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_listener::detect::{
    DetectConfig, Detector, DirectoryTimes, First, ScanKind, ScanReport, SftpLister,
};
use ketch_listener::remote::{CHANNELS, Remote};
use ketch_listener::settle::SettleConfig;

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
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// SFTP channels that ketch may list over
    #[arg(long, default_value_t = CHANNELS)]
    channels: usize,
    /// Round trip times in milliseconds, 0 for loopback as it is
    #[arg(long, value_delimiter = ',', default_values_t = [0, 50])]
    rtt: Vec<u64>,
}

pub(crate) fn run(arguments: &Arguments, all: &super::Arguments) -> Result<(), Failed> {
    let dir = tempfile::Builder::new()
        .prefix("ketch-bench-")
        .tempdir_in(&all.dir)?;
    let tree = dir.path().join("tree");
    fs::create_dir(&tree)?;
    for n in 0..arguments.directories {
        fs::create_dir(tree.join(format!("d{n}")))?;
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
            of: arguments,
        };
        println!("RTT {rtt} ms:");
        let full = place.ketch(DirectoryTimes::Never)?;
        show("ketch, everything listed", &full);
        let quiet = place.ketch(DirectoryTimes::Learn)?;
        show("ketch, by directory times", &quiet);
        let copy = place.rclone(&tree)?;
        show("rclone copy", &copy);
        let empty = place.rclone(&dir.path().join("empty"))?;
        show("rclone copy, nothing there", &empty);
        let poller = place.poller(all)?;
        show("poller over paramiko", &poller);
        let [full, quiet, copy, empty, poller] = [full, quiet, copy, empty, poller].map(median);
        // What rclone's connection costs each time is not counted against it.
        let least = poller.min(copy - empty);
        println!("  ketch by the best of them     {:.3}", full / least);
        println!("  the same by directory times   {:.3}", quiet / least);
    }
    Ok(())
}

fn show(what: &str, times: &[f64]) {
    let ((least, most), times) = (range(times.iter().copied()), times.iter().copied());
    println!(
        "  {what:<28}  {:.3} s ({least:.3} to {most:.3})",
        median(times)
    );
}

/// Files below `at`.
fn count(at: &Path) -> Result<u32, Failed> {
    let mut files = 0;
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let is_directory = entry.file_type()?.is_dir();
        files += if is_directory {
            count(&entry.path())?
        } else {
            1
        };
    }
    Ok(files)
}

struct Place<'a> {
    server: &'a OpenSshServer,
    addr: SocketAddr,
    tree: &'a Path,
    dir: &'a Path,
    of: &'a Arguments,
}

impl Place<'_> {
    /// Whoever measures has seen all files.
    fn all(&self, files: u64) -> Result<(), Failed> {
        match files == u64::from(self.of.files) {
            true => Ok(()),
            false => Err(format!("{files} files were seen").into()),
        }
    }

    fn ketch(&self, directory_times: DirectoryTimes) -> Result<Vec<f64>, Failed> {
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
            settle: SettleConfig::immediately(),
            ..DetectConfig::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let remote = Remote::new(connect, root).channels(self.of.channels);
            let mut detector = Detector::new(Arc::new(SftpLister::new(remote)), config, None);
            // The first learn the tree, and whether times of directories tell the truth.
            for round in 0..8 {
                scan_once(&mut detector).await?;
                // As many as give the times their witnesses.
                if directory_times == DirectoryTimes::Learn && round == 1 {
                    self.witnesses(|path| fs::write(path, b""))?;
                }
                if directory_times == DirectoryTimes::Learn && round == 3 {
                    self.witnesses(fs::remove_file)?;
                }
                // Directories that changed just now are listed again.
                tokio::time::sleep(Duration::from_millis(2_100)).await;
            }
            self.all(detector.known().len() - u64::from(self.of.directories))?;
            let mut times = Vec::new();
            for _ in 0..self.of.rounds {
                let began = Instant::now();
                let (report, changes) = scan_once(&mut detector).await?;
                times.push(began.elapsed().as_secs_f64());
                let expected = match directory_times {
                    DirectoryTimes::Never => ScanKind::Full,
                    DirectoryTimes::Learn => ScanKind::Quiet,
                };
                if changes > 0 || report.kind != expected {
                    return Err(format!("the tree changed, or no such scan: {report:?}").into());
                }
                if expected == ScanKind::Full {
                    self.all(report.entries - u64::from(self.of.directories))?;
                }
            }
            Ok(times)
        })
    }

    fn witnesses(&self, make: impl Fn(PathBuf) -> io::Result<()>) -> Result<(), Failed> {
        for n in 0..self.of.directories.min(4) {
            make(self.tree.join(format!("d{n}/witness")))?;
        }
        Ok(())
    }

    fn rclone(&self, source: &Path) -> Result<Vec<f64>, Failed> {
        let name = source.file_name().unwrap_or_default();
        let target = self.dir.join("rclone").join(name);
        let mut times = Vec::new();
        // The first of them copies, which is not what is measured: that one is near.
        let near = self.server.addr().port();
        for round in 0..=self.of.rounds {
            let port = if round == 0 { near } else { self.addr.port() };
            let began = Instant::now();
            let output = rclone(self.server, port)
                .arg(format!(":sftp:{}", source.display()))
                .arg(&target)
                .env("HOME", self.dir)
                .output()?;
            times.push(began.elapsed().as_secs_f64());
            if !output.status.success() {
                return Err(format!("rclone: {}", String::from_utf8_lossy(&output.stderr)).into());
            }
        }
        if source == self.tree {
            self.all(count(&target)?.into())?;
        }
        Ok(times.split_off(1))
    }

    fn poller(&self, all: &super::Arguments) -> Result<Vec<f64>, Failed> {
        let output = poller(all, self.dir)?
            .arg("scan")
            .arg(self.addr.ip().to_string())
            .arg(self.addr.port().to_string())
            .arg(self.server.user())
            .arg(self.server.identity().private())
            .arg(self.tree)
            .arg(self.of.rounds.to_string())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err("the poller failed".into());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut times = Vec::new();
        for line in text.lines() {
            let (files, seconds) = line
                .split_once(' ')
                .ok_or("the poller said something else")?;
            self.all(files.parse()?)?;
            times.push(seconds.parse()?);
        }
        Ok(times)
    }
}

/// Scans to the end, and takes everything for recorded. How many changes there were.
async fn scan_once(detector: &mut Detector) -> Result<(ScanReport, usize), Failed> {
    let mut count = 0;
    loop {
        let report = detector.scan(&[]).await;
        if let Some(lost) = report.lost {
            return Err(lost.into());
        }
        loop {
            let changes = detector.take_changes(10_000);
            if changes.is_empty() {
                break;
            }
            count += changes.len();
            detector.recorded(&changes);
        }
        if report.complete {
            return Ok((report, count));
        }
    }
}
