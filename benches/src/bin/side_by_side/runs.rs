//! The runs: which commands, in which order, and whether they did what they should.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ketch_benches::BenchError;
use ketch_benches::delay_proxy::DelayProxy;
use ketch_benches::files::{self, Source};
use ketch_benches::measure::{self, Cost, line, measure};
use ketch_benches::row::{Amount, Disk, PathKind, Row};
use ketch_benches::server_time::ServerTime;
use ketch_benches::tool::{Account, Job, Programs, Tool, Work, command};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use serde::Serialize;

/// One program did one piece of work once.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    /// Name of the row.
    pub(crate) row: &'static str,
    /// Number of the round, from 1.
    pub(crate) round: u32,
    /// Which program.
    pub(crate) tool: Tool,
    /// What the client cost.
    #[serde(flatten)]
    pub(crate) client: Cost,
    /// Processor seconds of the server.
    pub(crate) server_cpu_s: f64,
    /// Computed from the times of so many files, because all of them one after another would take
    /// minutes.
    pub(crate) scaled_from_files: Option<u32>,
}

/// How much of everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Amounts {
    pub(crate) size_bytes: u64,
    pub(crate) far_size_bytes: u64,
    pub(crate) memory_size_bytes: u64,
    pub(crate) files: u32,
    pub(crate) far_files: u32,
    pub(crate) far_sample: u32,
    pub(crate) entries: u32,
    pub(crate) rtt_s: f64,
    pub(crate) bits_per_s: u64,
    pub(crate) cipher: String,
}

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) programs: Programs,
    /// On a tmpfs.
    pub(crate) dir: PathBuf,
    /// On a disk.
    pub(crate) disk_dir: PathBuf,
    /// Longest time for a run.
    pub(crate) limit: Duration,
}

/// The server, the files and the programs.
pub(crate) struct Bench {
    places: Places,
    amounts: Amounts,
    account: Account,
    proxies: BTreeMap<Duration, DelayProxy>,
    sources: BTreeMap<PathBuf, Source>,
    /// What it costs a program to connect over a path: measured once before anything else there,
    /// which also makes the host known and remembered.
    connecting: BTreeMap<(&'static str, SocketAddr), Run>,
    // Before the directories: a server that still writes must not outlive them.
    server: OpenSshServer,
    server_time: ServerTime,
    disk: Option<tempfile::TempDir>,
    dir: tempfile::TempDir,
}

impl Bench {
    /// Starts sshd.
    pub(crate) fn start(places: Places, amounts: Amounts) -> Result<Self, BenchError> {
        let dir = directory_in(&places.dir)?;
        let server_time = ServerTime::new()?;
        // The server decides, so that those that cannot be told use the same cipher.
        let server = OpenSshServer::start(OpenSshConfig {
            ciphers: Some(amounts.cipher.clone()),
            ..OpenSshConfig::default()
        })?;
        let account = Account::new(&server, dir.path())?;
        account.know(server.addr())?;
        Ok(Self {
            places,
            amounts,
            account,
            proxies: BTreeMap::new(),
            sources: BTreeMap::new(),
            connecting: BTreeMap::new(),
            server,
            server_time,
            disk: None,
            dir,
        })
    }

    /// How much of everything.
    pub(crate) const fn amounts(&self) -> &Amounts {
        &self.amounts
    }

    /// Does the work of `row` once with `tool`; `None` if the program has no way to.
    pub(crate) fn run(
        &mut self,
        row: &Row,
        tool: Tool,
        round: u32,
    ) -> Result<Option<Run>, BenchError> {
        let rtt = row.path.rtt(Duration::from_secs_f64(self.amounts.rtt_s));
        let addr = self.address(rtt)?;
        let connecting = self.connecting(tool, addr, row.path)?;
        let sampled = row.amount == Amount::FarFiles
            && tool.is_file_after_file()
            && self.amounts.far_sample < self.amounts.far_files;
        let source = self.source(row, sampled)?;
        let Some(run) = self.measured(row, tool, round, addr, &source)? else {
            return Ok(None);
        };
        Ok(Some(match sampled {
            true => scaled(&run, &connecting, &self.amounts),
            false => run,
        }))
    }

    /// Copies `len` bytes over a path with that round trip time. Every `interval` `see` is told how
    /// many bytes have come out of it.
    pub(crate) fn over(
        &mut self,
        tool: Tool,
        work: Work,
        rtt: Duration,
        see: impl FnMut(u64) + Send,
        interval: Duration,
    ) -> Result<Option<Run>, BenchError> {
        let row = Row {
            name: "plot",
            work,
            amount: Amount::FarSize,
            path: PathKind::Far,
            disk: Disk::No,
            targets: &[],
        };
        // Also where there is no delay: the proxy counts.
        let addr = self.proxy(rtt)?;
        self.connecting(tool, addr, row.path)?;
        let source = self.source(&row, false)?;
        let proxy = self.proxies.remove(&rtt);
        let way = if work == Work::Put { 0 } else { 1 };
        let mut see = see;
        let done = std::sync::atomic::AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            let (watched, done) = (proxy.as_ref(), &done);
            scope.spawn(move || {
                let Some(proxy) = watched else { return };
                let before = proxy.carried()[way];
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    see(proxy.carried()[way] - before);
                    std::thread::sleep(interval);
                }
            });
            let outcome = self.measured(&row, tool, 1, addr, &source);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            outcome
        });
        self.proxies.extend(proxy.map(|proxy| (rtt, proxy)));
        outcome
    }

    /// Runs the command, and looks at what it made.
    fn measured(
        &mut self,
        row: &Row,
        tool: Tool,
        round: u32,
        addr: SocketAddr,
        source: &Path,
    ) -> Result<Option<Run>, BenchError> {
        let target = match &self.disk {
            Some(disk) if row.disk != Disk::No => disk.path().join("target"),
            _ => self.dir.path().join("target"),
        };
        let job = Job {
            work: row.work,
            source,
            target: &target,
            durable: row.disk == Disk::Durable,
            is_hole: row.amount == Amount::MemorySize,
            far: row.path != PathKind::Loopback,
        };
        let Some(command) = command(
            tool,
            &self.places.programs,
            &self.account,
            addr,
            &job,
            self.dir.path(),
        )?
        else {
            return Ok(None);
        };
        let before = self.server_time.settled(&self.server);
        let measured = measure(&command, self.dir.path(), self.places.limit);
        let server_cpu_s = self.server_time.settled(&self.server) - before;
        let wrong = match (&measured, self.sources.get(source)) {
            (Ok(_), Some(files)) => files.wrong(&target, &measure::said(self.dir.path()))?,
            _ => None,
        };
        files::remove(&target)?;
        if let Some(what) = wrong {
            let command = line(&command);
            return Err(BenchError::Wrong { command, what });
        }
        Ok(Some(Run {
            row: row.name,
            round,
            tool,
            client: measured?,
            server_cpu_s,
            scaled_from_files: None,
        }))
    }

    fn address(&mut self, rtt: Duration) -> Result<SocketAddr, BenchError> {
        if rtt.is_zero() {
            return Ok(self.server.addr());
        }
        self.proxy(rtt)
    }

    fn proxy(&mut self, rtt: Duration) -> Result<SocketAddr, BenchError> {
        if let Some(proxy) = self.proxies.get(&rtt) {
            return Ok(proxy.addr());
        }
        let proxy = DelayProxy::start(self.server.addr(), rtt, self.amounts.bits_per_s / 8)?;
        let addr = proxy.addr();
        self.account.know(addr)?;
        self.proxies.insert(rtt, proxy);
        Ok(addr)
    }

    fn connecting(
        &mut self,
        tool: Tool,
        addr: SocketAddr,
        path: PathKind,
    ) -> Result<Run, BenchError> {
        if let Some(run) = self.connecting.get(&(tool.name(), addr)) {
            return Ok(*run);
        }
        let row = Row {
            name: "connecting",
            work: Work::Stat,
            amount: Amount::One,
            path,
            disk: Disk::No,
            targets: &[],
        };
        let source = self.source(&row, false)?;
        // The first makes the host known and the program's pages hot.
        self.measured(&row, tool, 0, addr, &source)?;
        let run = self.measured(&row, tool, 0, addr, &source)?;
        let run = run.ok_or_else(|| BenchError::Argument(format!("{tool} cannot connect")))?;
        self.connecting.insert((tool.name(), addr), run);
        Ok(run)
    }

    /// Makes what `row` reads, if it is not there yet.
    fn source(&mut self, row: &Row, sampled: bool) -> Result<PathBuf, BenchError> {
        let dir = match row.disk {
            Disk::No => self.dir.path(),
            Disk::Yes | Disk::Durable => {
                if self.disk.is_none() {
                    self.disk = Some(directory_in(&self.places.disk_dir)?);
                }
                self.disk.as_ref().unwrap_or(&self.dir).path()
            }
        };
        let name = match (row.amount, sampled) {
            (Amount::Size, _) => "file",
            (Amount::FarSize, _) => "far-file",
            (Amount::MemorySize, _) => "zeros",
            (Amount::Files, _) => "files",
            (Amount::FarFiles, true) => "far-sample",
            (Amount::FarFiles, false) => "far-files",
            (Amount::Entries, _) => "entries",
            (Amount::One, _) => "one",
        };
        let path = dir.join(name);
        if self.sources.contains_key(&path) {
            return Ok(path);
        }
        let amounts = &self.amounts;
        let made = path.clone();
        let source = match (row.amount, sampled) {
            (Amount::Size, _) => Source::file(made, amounts.size_bytes),
            (Amount::FarSize, _) => Source::file(made, amounts.far_size_bytes),
            (Amount::MemorySize, _) => Source::zeros(made, amounts.memory_size_bytes),
            (Amount::Files, _) => Source::small_files(made, amounts.files),
            (Amount::FarFiles, true) => Source::small_files(made, amounts.far_sample),
            (Amount::FarFiles, false) => Source::small_files(made, amounts.far_files),
            (Amount::Entries, _) => Source::entries(made, amounts.entries),
            (Amount::One, _) => {
                fs::write(&made, "one").map_err(BenchError::io("writing a file"))?;
                return Ok(path);
            }
        }?;
        self.sources.insert(path.clone(), source);
        Ok(path)
    }
}

/// The figures of all files from those of some, that of connecting taken once.
fn scaled(run: &Run, connecting: &Run, amounts: &Amounts) -> Run {
    let factor = f64::from(amounts.far_files) / f64::from(amounts.far_sample);
    let scale = |some: f64, once: f64| once + (some - once).max(0.0) * factor;
    Run {
        client: Cost {
            wall_s: scale(run.client.wall_s, connecting.client.wall_s),
            cpu_s: scale(run.client.cpu_s, connecting.client.cpu_s),
            user_s: scale(run.client.user_s, connecting.client.user_s),
            ..run.client
        },
        server_cpu_s: scale(run.server_cpu_s, connecting.server_cpu_s),
        scaled_from_files: Some(amounts.far_sample),
        ..*run
    }
}

fn directory_in(dir: &Path) -> Result<tempfile::TempDir, BenchError> {
    tempfile::Builder::new()
        .prefix("ketch-bench-")
        .tempdir_in(dir)
        .map_err(BenchError::io(format!(
            "making a directory in {}",
            dir.display()
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scaled_is_the_files_not_the_connection() {
        let run = |wall_s| Run {
            row: "x",
            round: 1,
            tool: Tool::Sftp,
            client: Cost {
                wall_s,
                cpu_s: 1.0,
                user_s: 1.0,
                memory_bytes: 7,
            },
            server_cpu_s: 1.0,
            scaled_from_files: None,
        };
        let amounts = Amounts {
            size_bytes: 1,
            far_size_bytes: 1,
            memory_size_bytes: 1,
            files: 1,
            far_files: 1000,
            far_sample: 100,
            entries: 1,
            rtt_s: 0.05,
            bits_per_s: 1,
            cipher: String::new(),
        };
        let scaled = scaled(&run(21.0), &run(1.0), &amounts);
        assert!((scaled.client.wall_s - 201.0).abs() < 1e-9, "{scaled:?}");
        assert!((scaled.client.cpu_s - 1.0).abs() < 1e-9, "{scaled:?}");
    }
}
