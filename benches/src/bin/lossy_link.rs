//! What transfers make of a link with TCP on it: the rate they reach, and the queue that they keep
//! standing in front of it.
//!
//! Client and server are each in a network of their own, and a relay between them delays, limits
//! the rate, loses packets and has a finite buffer. That takes root, `ip` and `/dev/net/tun`, and
//! says so where they are missing.
//!
//! ```text
//! cargo build --release -p ketch
//! cargo run --release -p ketch-benches --bin lossy_link
//! # one link, with `sftp` and with a bare TCP connection in place of any client
//! … --rtts 50 --rates 100 --losses 0 --buffers 4 --clients ketch,sftp,tcp
//! ```
//!
//! A link counts all bytes of IP packets: headers of TCP and SSH take 5 to 6 % of it from the file.
//! The relay is a program, too: on a machine that is busy it may be the limit, which the line of
//! `tcp` shows.

#![expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use ketch_benches::BenchError;
use ketch_benches::files::{self, Source};
use ketch_benches::ketch_server;
use ketch_benches::link::LinkConfig;
use ketch_benches::measure::{self, measure};
use ketch_benches::namespace::Namespace;
use ketch_benches::relay::{Quality, Relay, SERVER, Way};
use ketch_benches::tool::{Account, Job, Programs, Tool, Work, command};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use serde::Serialize;

/// Largest file, in bytes: both copies are in memory.
const FILE_LEN_MAX: u64 = 768 << 20;

/// Measures transfers over links with delay, loss and a finite buffer.
#[derive(Debug, Parser)]
struct Arguments {
    /// Round trip times in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [20, 50, 100])]
    rtts: Vec<u32>,
    /// Rates in Mbit/s
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    rates: Vec<u32>,
    /// Packets that are lost, of a million
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1000])]
    losses: Vec<u32>,
    /// Buffers, in rate times round trip time
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 4.0])]
    buffers: Vec<f64>,
    /// Who transfers
    #[arg(long, value_delimiter = ',', default_value = "ketch,sftp,tcp")]
    clients: Vec<Client>,
    /// Which ways
    #[arg(long, value_delimiter = ',', default_value = "down,up")]
    ways: Vec<Direction>,
    /// How long a transfer takes at the link's rate, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Which packets are lost
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Longest time for one transfer, in seconds
    #[arg(long, default_value_t = 120)]
    limit: u32,
    /// Most MiB that TCP buffers at each end; 0 leaves what the system allows, which may be less
    /// than a fast and long link holds
    #[arg(long, default_value_t = 64)]
    tcp_buffer: u32,
    /// Congestion control of TCP at both ends, as cubic or bbr [default: the system's]
    #[arg(long)]
    congestion: Option<String>,
    /// Directory on a tmpfs for the files of both sides
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The ketch program [default: the one beside this program]
    #[arg(long)]
    ketch: Option<PathBuf>,
    /// Print one JSON object in place of a table
    #[arg(long)]
    json: bool,
}

/// Who transfers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Client {
    Ketch,
    Sftp,
    /// A bare connection: what the kernels' TCP makes of the link.
    Tcp,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Down,
    Up,
}

/// One transfer.
#[derive(Clone, Debug, Serialize)]
struct Transfer {
    rtt_ms: u32,
    mbit_per_s: u32,
    lost_per_million: u32,
    buffer_bdp: f64,
    client: Client,
    way: Direction,
    file_bytes: u64,
    /// The whole process, connection and login included.
    wall_s: f64,
    /// The file's bytes in that time, by what the link could carry.
    whole_rate: f64,
    /// The link's bytes in the middle of the transfer, by what it could carry.
    steady_rate: Option<f64>,
    /// By rate times round trip time.
    standing_queue_bdp: Option<f64>,
    longest_queue_bdp: Option<f64>,
    dropped_full: u64,
    dropped_lost: u64,
    failed: Option<String>,
}

fn main() -> ExitCode {
    if let Some(code) = measure::measure_if_told_to() {
        return code;
    }
    let arguments = Arguments::parse();
    if let Some(why) = Namespace::absent() {
        eprintln!("lossy_link: absent here: {why}");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lossy_link: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let ketch = ketch_server::program(arguments.ketch.as_deref())?;
    let target = own
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("."));
    let relay = Relay::start()?;
    if arguments.tcp_buffer > 0 {
        relay.buffer(u64::from(arguments.tcp_buffer) << 20)?;
    }
    if let Some(name) = &arguments.congestion {
        relay.congestion_control(name)?;
    }
    let congestion = relay.congestion_controlled_by()?;
    let dir = tempfile::Builder::new()
        .prefix("ketch-link-")
        .tempdir_in(&arguments.dir)
        .map_err(BenchError::io("making a directory"))?;
    let server = relay.server().run(|| {
        OpenSshServer::start(OpenSshConfig {
            ciphers: Some("aes128-gcm@openssh.com".to_owned()),
            lines: vec![format!("ListenAddress {SERVER}")],
            ..OpenSshConfig::default()
        })
    })??;
    let addr = SocketAddr::from((SERVER, server.port()));
    let account = Account::new(&server, dir.path())?;
    account.know(addr)?;
    let bench = Bench {
        arguments,
        programs: Programs::find(ketch, target)?,
        relay,
        account,
        addr,
        dir: dir.path().to_owned(),
    };
    let mut all = Vec::new();
    if !arguments.json {
        println!("congestion control of TCP: {congestion}");
        println!(
            "rtt ms  Mbit/s  loss %  buffer BDP  way   client  wall s  whole %  steady %  \
             standing BDP  longest BDP  full  lost"
        );
    }
    for rate in &arguments.rates {
        let len = (u64::from(*rate) * 125_000 * u64::from(arguments.seconds)).min(FILE_LEN_MAX);
        let source = Source::file(dir.path().join("source"), len)?;
        for rtt in &arguments.rtts {
            for loss in &arguments.losses {
                for buffer in &arguments.buffers {
                    let link = (*rtt, *rate, *loss, *buffer);
                    for way in &arguments.ways {
                        for client in &arguments.clients {
                            let transfer = bench.transfer(link, *client, *way, &source, len)?;
                            if !arguments.json {
                                transfer.print();
                            }
                            all.push(transfer);
                        }
                    }
                }
            }
        }
        files::remove(source.path())?;
    }
    if arguments.json {
        let report = serde_json::json!({ "congestion_control": congestion, "transfers": all });
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| BenchError::io("writing the report")(error.into()))?;
        println!("{text}");
    }
    Ok(())
}

struct Bench<'a> {
    arguments: &'a Arguments,
    programs: Programs,
    relay: Relay,
    account: Account,
    addr: SocketAddr,
    dir: PathBuf,
}

impl Bench<'_> {
    /// One transfer over a link of a round trip time, a rate, a loss and a buffer.
    fn transfer(
        &self,
        (rtt_ms, mbit_per_s, lost_per_million, buffer_bdp): (u32, u32, u32, f64),
        client: Client,
        way: Direction,
        source: &Source,
        file_bytes: u64,
    ) -> Result<Transfer, BenchError> {
        let rtt = Duration::from_millis(rtt_ms.into());
        let bytes_per_s = u64::from(mbit_per_s) * 125_000;
        let bdp = f64::from(mbit_per_s) * 125.0 * f64::from(rtt_ms);
        let config = LinkConfig {
            bytes_per_s,
            delay: rtt / 2,
            buffer_bytes: Some(whole(bdp * buffer_bdp)),
            loss_per_million: lost_per_million,
            seed: self.arguments.seed,
        };
        // What the program knows of the host is there before the clock runs.
        if client != Client::Tcp {
            self.relay.set(LinkConfig {
                loss_per_million: 0,
                ..config
            });
            self.program(client, Work::Stat, source)?;
        }
        self.relay.set(config);
        let outcome = match client {
            Client::Tcp => self.bare(way, file_bytes),
            _ => self.program(client, work(way), source),
        };
        let seen = match way {
            Direction::Down => self.relay.seen(Way::Down),
            Direction::Up => self.relay.seen(Way::Up),
        };
        let (samples, (dropped_full, dropped_lost)) = seen;
        let (wall_s, failed) = match outcome {
            Ok(wall_s) => (wall_s, None),
            Err(error) => (f64::NAN, Some(error.to_string())),
        };
        let quality = Quality::of(&samples, rtt);
        let by_rate = |bytes: f64| bytes / (f64::from(mbit_per_s) * 125_000.0);
        Ok(Transfer {
            rtt_ms,
            mbit_per_s,
            lost_per_million,
            buffer_bdp,
            client,
            way,
            file_bytes,
            wall_s,
            whole_rate: by_rate(as_f64(file_bytes) / wall_s),
            steady_rate: quality.map(|quality| by_rate(quality.bytes_per_s)),
            standing_queue_bdp: quality.map(|quality| quality.standing_queue_bytes / bdp),
            longest_queue_bdp: quality.map(|quality| as_f64(quality.longest_queue_bytes) / bdp),
            dropped_full,
            dropped_lost,
            failed,
        })
    }

    /// The wall time of a client that does `work`, in seconds.
    fn program(&self, client: Client, work: Work, source: &Source) -> Result<f64, BenchError> {
        let tool = match client {
            Client::Ketch => Tool::Ketch,
            Client::Sftp | Client::Tcp => Tool::Sftp,
        };
        let target = self.dir.join("target");
        let job = Job {
            work,
            source: source.path(),
            target: &target,
            durable: false,
            is_hole: false,
            far: true,
        };
        let command = command(
            tool,
            &self.programs,
            &self.account,
            self.addr,
            &job,
            &self.dir,
        )?;
        let command = command.ok_or_else(|| BenchError::Argument(format!("{tool} cannot")))?;
        let dir = self.dir.clone();
        let limit = Duration::from_secs(self.arguments.limit.into());
        let cost = self
            .relay
            .client()
            .run(move || measure(&command, &dir, limit))?;
        let wrong = match (&cost, work) {
            (Ok(_), Work::Get | Work::Put) => source.wrong(&target, &measure::said(&self.dir))?,
            _ => None,
        };
        files::remove(&target)?;
        match wrong {
            Some(what) => Err(BenchError::Wrong {
                command: tool.to_string(),
                what,
            }),
            None => Ok(cost?.wall_s),
        }
    }

    /// The wall time of a bare connection that carries so many bytes, in seconds.
    fn bare(&self, way: Direction, len: u64) -> Result<f64, BenchError> {
        let doing = || BenchError::io("a bare connection");
        let listener = self
            .relay
            .server()
            .run(|| TcpListener::bind((SERVER, 0)))?
            .map_err(doing())?;
        let addr = listener.local_addr().map_err(doing())?;
        let began = Instant::now();
        let at_server = thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            match way {
                Direction::Down => send(stream, len),
                Direction::Up => receive(stream),
            }
        });
        let stream = self.relay.client().run(move || TcpStream::connect(addr))?;
        let stream = stream.map_err(doing())?;
        let limit = Duration::from_secs(self.arguments.limit.into());
        stream.set_read_timeout(Some(limit)).map_err(doing())?;
        stream.set_write_timeout(Some(limit)).map_err(doing())?;
        match way {
            Direction::Down => receive(stream),
            Direction::Up => send(stream, len),
        }
        .map_err(doing())?;
        at_server
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))
            .map_err(doing())?;
        Ok(began.elapsed().as_secs_f64())
    }
}

fn send(mut stream: TcpStream, len: u64) -> std::io::Result<()> {
    std::io::copy(&mut std::io::repeat(1).take(len), &mut stream)?;
    stream.flush()
}

fn receive(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

const fn work(way: Direction) -> Work {
    match way {
        Direction::Down => Work::Get,
        Direction::Up => Work::Put,
    }
}

impl Transfer {
    fn print(&self) {
        if let Some(failed) = &self.failed {
            eprintln!("{:?} {:?}: {failed}", self.client, self.way);
        }
        let figure = |figure: Option<f64>, factor: f64| {
            figure.map_or_else(|| "-".to_owned(), |value| format!("{:.2}", value * factor))
        };
        println!(
            "{:>6}  {:>6}  {:>6.2}  {:>10.1}  {:<4}  {:<6}  {:>6.2}  {:>7.1}  {:>8}  {:>12}  \
             {:>11}  {:>4}  {:>4}",
            self.rtt_ms,
            self.mbit_per_s,
            f64::from(self.lost_per_million) * 1e-4,
            self.buffer_bdp,
            match self.way {
                Direction::Down => "down",
                Direction::Up => "up",
            },
            match self.client {
                Client::Ketch => "ketch",
                Client::Sftp => "sftp",
                Client::Tcp => "tcp",
            },
            self.wall_s,
            self.whole_rate * 100.0,
            figure(self.steady_rate, 100.0),
            figure(self.standing_queue_bdp, 1.0),
            figure(self.longest_queue_bdp, 1.0),
            self.dropped_full,
            self.dropped_lost,
        );
    }
}

/// Bytes of a buffer: positive, and far below 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a product of positive numbers, far below 2^53"
)]
const fn whole(bytes: f64) -> u64 {
    bytes as u64
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}
