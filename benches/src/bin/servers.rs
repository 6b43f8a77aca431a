//! `ketch serve` and OpenSSH's server in turn, under OpenSSH's `sftp` and under `ketch`.
//!
//! Every run is a whole client process, with connection and login; both servers have the same keys
//! and serve the same files on a tmpfs, and what came out is looked at afterwards. The server's
//! processor time is that of its process, or of the sshd with all of its sessions.
//!
//! ```text
//! cargo build --release -p ketch
//! cargo run --release -p ketch-benches --bin servers -- --hot-pages
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ketch_benches::BenchError;
use ketch_benches::files::{self, Source};
use ketch_benches::hot_pages::HotPages;
use ketch_benches::ketch_server::{self, KetchServer};
use ketch_benches::measure::{self, line, measure};
use ketch_benches::median::median;
use ketch_benches::server_time::ServerTime;
use ketch_benches::tool::{Account, Job, Programs, Tool, Work, command};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};

/// Measures servers in turn.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows to measure, separated by commas
    #[arg(long, value_delimiter = ',', default_values = ["down", "up", "small-down", "small-up", "list"])]
    rows: Vec<String>,
    /// How often everything is measured; the medians count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Size of the one file, in MiB
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Number of small files
    #[arg(long, default_value_t = 10_000)]
    files: u32,
    /// Number of entries of the directory that is listed
    #[arg(long, default_value_t = 100_000)]
    entries: u32,
    /// The only cipher
    #[arg(long, default_value = "aes128-gcm@openssh.com")]
    cipher: String,
    /// Directory on a tmpfs for the files of both sides
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Longest time for one run, in seconds
    #[arg(long, default_value_t = 600)]
    limit: u32,
    /// The ketch program [default: the one beside this program]
    #[arg(long)]
    ketch: Option<PathBuf>,
    /// First keep a virtual machine's free memory from going back to its host
    #[arg(long)]
    hot_pages: bool,
}

/// A kind of work, and what is aimed at.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    work: Work,
    /// Our server by OpenSSH's, both under `sftp`: wall time and the server's processor time.
    under_sftp: (f64, f64),
    aim: Aim,
}

/// What is aimed at under our own client.
#[derive(Clone, Copy, Debug)]
enum Aim {
    /// OpenSSH at both ends by ours at both ends, at least.
    BothEnds(f64),
    /// Ours at both ends by our client with OpenSSH's server, at most.
    Server(f64),
}

const ROWS: [Row; 5] = [
    Row {
        name: "down",
        work: Work::Get,
        under_sftp: (0.8, 0.40),
        aim: Aim::BothEnds(2.5),
    },
    Row {
        name: "up",
        work: Work::Put,
        under_sftp: (0.67, 0.42),
        aim: Aim::BothEnds(2.5),
    },
    Row {
        name: "small-down",
        work: Work::GetMany,
        under_sftp: (0.75, 0.5),
        aim: Aim::Server(0.5),
    },
    Row {
        name: "small-up",
        work: Work::PutMany,
        under_sftp: (0.75, 0.5),
        aim: Aim::Server(0.5),
    },
    Row {
        name: "list",
        work: Work::List,
        under_sftp: (0.75, 0.5),
        aim: Aim::Server(0.5),
    },
];

/// A client with a server.
type Pair = (Tool, bool);
const PAIRS: [Pair; 4] = [
    (Tool::Sftp, false),
    (Tool::Sftp, true),
    (Tool::Ketch, false),
    (Tool::Ketch, true),
];

#[derive(Clone, Copy, Debug)]
struct Run {
    wall_s: f64,
    client_cpu_s: f64,
    server_cpu_s: f64,
}

fn main() -> ExitCode {
    if let Some(code) = measure::measure_if_told_to() {
        return code;
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("servers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let ketch = ketch_server::program(arguments.ketch.as_deref())?;
    let rows: Vec<Row> = arguments
        .rows
        .iter()
        .map(|name| {
            let row = ROWS.into_iter().find(|row| row.name == name);
            row.ok_or_else(|| BenchError::Argument(format!("{name} is no row")))
        })
        .collect::<Result<_, _>>()?;
    let _hot = match arguments.hot_pages {
        true => Some(HotPages::make(&arguments.dir, 5 << 30)?),
        false => None,
    };
    let mut bench = Bench::start(arguments, ketch)?;
    for row in &rows {
        let source = bench.source(row.work, arguments)?;
        let mut runs: Vec<(Pair, Run)> = Vec::new();
        let mut order = PAIRS;
        for round in 0..=arguments.rounds {
            for pair in order {
                let run = bench.measured(pair, row.work, &source)?;
                eprintln!(
                    "{} {round}: {} {:.3} s, client CPU {:.3} s, server CPU {:.3} s",
                    row.name,
                    name(pair),
                    run.wall_s,
                    run.client_cpu_s,
                    run.server_cpu_s
                );
                // The first makes programs and files hot.
                if round > 0 {
                    runs.push((pair, run));
                }
            }
            order.rotate_left(1);
        }
        print(row, &runs);
    }
    Ok(())
}

fn name((tool, ours): Pair) -> String {
    format!("{tool} with {}", if ours { "ketch serve" } else { "sshd" })
}

struct Bench {
    programs: Programs,
    account: Account,
    limit: Duration,
    server_time: ServerTime,
    // Before the directory: a server that still writes must not outlive it.
    ours: KetchServer,
    openssh: OpenSshServer,
    dir: tempfile::TempDir,
}

impl Bench {
    fn start(arguments: &Arguments, ketch: PathBuf) -> Result<Self, BenchError> {
        let dir = tempfile::Builder::new()
            .prefix("ketch-bench-")
            .tempdir_in(&arguments.dir)
            .map_err(BenchError::io("making a directory"))?;
        let programs = Programs::find(ketch.clone(), Path::new("."))?;
        let mut server_time = ServerTime::new()?;
        let openssh = OpenSshServer::start(OpenSshConfig {
            ciphers: Some(arguments.cipher.clone()),
            ..OpenSshConfig::default()
        })?;
        let ours = KetchServer::start(&ketch, &openssh, dir.path())?;
        server_time.pass_over(ours.process());
        let account = Account::new(&openssh, dir.path())?.offering(&arguments.cipher);
        account.know(openssh.addr())?;
        account.know(ours.addr())?;
        Ok(Self {
            programs,
            account,
            limit: Duration::from_secs(arguments.limit.into()),
            server_time,
            ours,
            openssh,
            dir,
        })
    }

    fn source(&self, work: Work, arguments: &Arguments) -> Result<Source, BenchError> {
        let path = |name: &str| self.dir.path().join(name);
        let _ = files::remove(&path("source"));
        match work {
            Work::GetMany | Work::PutMany => Source::small_files(path("source"), arguments.files),
            Work::List => Source::entries(path("source"), arguments.entries),
            _ => Source::file(path("source"), arguments.size << 20),
        }
    }

    fn server_time(&mut self, ours: bool) -> f64 {
        match ours {
            true => self
                .ours
                .process()
                .cpu_time()
                .unwrap_or_default()
                .as_secs_f64(),
            false => self.server_time.settled(&self.openssh),
        }
    }

    fn address(&self, ours: bool) -> SocketAddr {
        match ours {
            true => self.ours.addr(),
            false => self.openssh.addr(),
        }
    }

    fn measured(
        &mut self,
        (tool, ours): Pair,
        work: Work,
        source: &Source,
    ) -> Result<Run, BenchError> {
        let target = self.dir.path().join("target");
        let job = Job {
            work,
            source: source.path(),
            target: &target,
            durable: false,
            is_hole: false,
            far: false,
        };
        let addr = self.address(ours);
        let dir = self.dir.path().to_owned();
        let command = command(tool, &self.programs, &self.account, addr, &job, &dir)?
            .ok_or_else(|| BenchError::Argument(format!("{tool} has no way to")))?;
        let before = self.server_time(ours);
        let cost = measure(&command, &dir, self.limit)?;
        let server_cpu_s = self.server_time(ours) - before;
        let wrong = source.wrong(&target, &measure::said(&dir))?;
        files::remove(&target)?;
        if let Some(what) = wrong {
            return Err(BenchError::Wrong {
                command: line(&command),
                what,
            });
        }
        Ok(Run {
            wall_s: cost.wall_s,
            client_cpu_s: cost.cpu_s,
            server_cpu_s,
        })
    }
}

fn print(row: &Row, runs: &[(Pair, Run)]) {
    let of = |pair: Pair, figure: fn(&Run) -> f64| {
        let runs = runs.iter().filter(|(who, _)| *who == pair);
        median(runs.map(|(_, run)| figure(run)))
    };
    println!("\n{}", row.name);
    println!(
        "  {:<24} {:>9} {:>13} {:>13}",
        "", "wall s", "client CPU s", "server CPU s"
    );
    for pair in PAIRS {
        println!(
            "  {:<24} {:>9.3} {:>13.3} {:>13.3}",
            name(pair),
            of(pair, |run| run.wall_s),
            of(pair, |run| run.client_cpu_s),
            of(pair, |run| run.server_cpu_s)
        );
    }
    let [theirs, under_sftp, our_client, both] = PAIRS;
    let wall = |pair| of(pair, |run| run.wall_s);
    let cpu = |pair| of(pair, |run| run.server_cpu_s);
    let at_most = |what: &str, is: f64, most: f64| {
        let kept = if is <= most { "holds" } else { "MISSED" };
        println!("  {what:<38} {is:>7.3}, at most {most}: {kept}");
    };
    at_most(
        "wall under sftp, ours by OpenSSH's",
        wall(under_sftp) / wall(theirs),
        row.under_sftp.0,
    );
    at_most(
        "server CPU under sftp, ours by theirs",
        cpu(under_sftp) / cpu(theirs),
        row.under_sftp.1,
    );
    match row.aim {
        Aim::Server(most) => {
            at_most(
                "wall under ketch, ours by OpenSSH's",
                wall(both) / wall(our_client),
                most,
            );
        }
        Aim::BothEnds(least) => {
            let is = wall(theirs) / wall(both);
            let kept = if is >= least { "holds" } else { "MISSED" };
            println!(
                "  {:<38} {is:>7.3}, at least {least}: {kept}",
                "both ends ours, times as fast"
            );
        }
    }
}
