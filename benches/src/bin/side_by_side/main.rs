//! ketch and other SFTP clients in turn over the same sshd, on this machine.
//!
//! Every run is a whole process, with connection and login, and what it made is looked at
//! afterwards, outside of the time. ketch runs with its own defaults, as a host that was seen
//! before finds it. Machines drift, and others may be at work on them: look at the ratios, which
//! are between runs a few seconds apart.
//!
//! ```text
//! cargo build --release -p ketch
//! cargo run --release -p ketch-benches --bin side_by_side -- --hot-pages
//! # as root where others are at work, too: nobody gets between, for as long as it takes
//! chrt -r 1 target/release/side_by_side
//! # some rows, one more peer
//! … --rows down,small-up,far-connect --tools ketch,sftp,rclone
//! # every peer that is at hand (scripts/setup-peers installs them)
//! … --peers
//! # peak memory of 10 GiB, on loopback and at 100 ms; the copies take that room in --dir
//! … --rows memory-down,memory-up,far-memory-down,far-memory-up --dir /var/tmp
//! # a real disk, with and without the content synced
//! … --rows disk-down,disk-up,durable-down,durable-up --disk-dir /var/tmp
//! # throughput over time and over the round trip time, as SVG
//! … --rows none --plots plots
//! ```
//!
//! The far rows go through a delay proxy, which ends TCP; `lossy_link` is for what TCP does.

mod plots;
mod report;
mod runs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ketch_benches::delay_proxy::own_speed;
use ketch_benches::hot_pages::HotPages;
use ketch_benches::ketch_server;
use ketch_benches::row::{MORE, PathKind, Row, TABLE};
use ketch_benches::tool::{Programs, Tool};
use ketch_benches::{BenchError, measure};

use crate::report::Measured;
use crate::runs::{Amounts, Bench, Places, Run};

/// Measures ketch and other SFTP clients in turn.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows to measure, separated by commas; `none` for none, `all` for those on a disk and of the
    /// memory, too [default: those of the table]
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Programs to measure, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "ketch,sftp")]
    tools: Vec<Tool>,
    /// Measure all programs that are at hand
    #[arg(long, conflicts_with = "tools")]
    peers: bool,
    /// How often everything is measured; the medians count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Size of the one file, as 1GiB, 256MiB, 4KiB or a number of bytes
    #[arg(long, default_value = "1GiB", value_parser = size)]
    size: u64,
    /// Size of the one file of the far rows and the plots
    #[arg(long, default_value = "256MiB", value_parser = size)]
    far_size: u64,
    /// Size of the file of the memory rows
    #[arg(long, default_value = "10GiB", value_parser = size)]
    memory_size: u64,
    /// Number of small files
    #[arg(long, default_value_t = 10_000)]
    files: u32,
    /// Number of small files of the far rows
    #[arg(long, default_value_t = 1000)]
    far_files: u32,
    /// Of these, how many are copied by programs that copy one after another; the time of all
    /// follows from it
    #[arg(long, default_value_t = 100)]
    far_sample: u32,
    /// Number of entries of the directory that is listed
    #[arg(long, default_value_t = 100_000)]
    entries: u32,
    /// Round trip time of the far rows, in milliseconds
    #[arg(long, default_value_t = 50)]
    rtt: u32,
    /// What the link of the far rows carries, in Mbit/s
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// The only cipher of the server
    #[arg(long, default_value = "aes128-gcm@openssh.com")]
    cipher: String,
    /// Directory on a tmpfs for the files of both sides
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Directory on a disk, for the rows of the disk
    #[arg(long, default_value = "/var/tmp")]
    disk_dir: PathBuf,
    /// Longest time for one run, in seconds
    #[arg(long, default_value_t = 600)]
    limit: u32,
    /// The ketch program [default: the one beside this program]
    #[arg(long)]
    ketch: Option<PathBuf>,
    /// Measure throughput over time and over the round trip time, and draw it into this directory
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Round trip times of the plots over them, in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10, 20, 50, 100, 200])]
    plot_rtts: Vec<u32>,
    /// First keep a virtual machine's free memory from going back to its host (takes 5 GiB for a
    /// few seconds, a third of one afterwards)
    #[arg(long)]
    hot_pages: bool,
    /// Print one JSON object in place of tables
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    if let Some(code) = measure::measure_if_told_to() {
        return code;
    }
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `false` if ketch or `sftp` could not do a row.
fn run(arguments: &Arguments) -> Result<bool, BenchError> {
    let rows = rows(&arguments.rows)?;
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let ketch = ketch_server::program(arguments.ketch.as_deref())?;
    // This program is in target/release; the peers are in target/peers and target/interop.
    let target = own
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("."));
    let programs = Programs::find(ketch, target)?;
    let tools = tools(arguments, &programs)?;
    let _hot = match arguments.hot_pages {
        true => Some(HotPages::make(&arguments.dir, 5 << 30)?),
        false => None,
    };
    let rtt = Duration::from_millis(arguments.rtt.into());
    let amounts = Amounts {
        size_bytes: arguments.size,
        far_size_bytes: arguments.far_size,
        memory_size_bytes: arguments.memory_size,
        files: arguments.files,
        far_files: arguments.far_files,
        far_sample: arguments.far_sample.max(1),
        entries: arguments.entries,
        rtt_s: rtt.as_secs_f64(),
        bits_per_s: u64::from(arguments.rate) * 1_000_000,
        cipher: arguments.cipher.clone(),
    };
    let proxy = proxy_speed(arguments, &rows, rtt, &amounts)?;
    let places = Places {
        programs,
        dir: arguments.dir.clone(),
        disk_dir: arguments.disk_dir.clone(),
        limit: Duration::from_secs(arguments.limit.into()),
    };
    let mut bench = Bench::start(places, amounts.clone())?;
    let (mut all, mut measured) = (Vec::new(), Vec::new());
    for row in &rows {
        let (runs, without) = in_turn(&mut bench, row, &tools, arguments.rounds);
        let row = Measured::new(row, &runs, without);
        if !arguments.json {
            row.print();
        }
        all.extend(runs);
        measured.push(row);
    }
    let series = match &arguments.plots {
        Some(dir) => plots::draw(&mut bench, &tools, &arguments.plot_rtts, dir)?,
        None => Vec::new(),
    };
    if arguments.json {
        report::json(&amounts, proxy, &measured, &all, &series)?;
    }
    Ok(!measured.iter().any(Measured::is_missing_what_counts))
}

/// All programs one after the other, as often as there are rounds; who comes first changes with
/// every round. One that fails is left out from there on.
fn in_turn(
    bench: &mut Bench,
    row: &Row,
    tools: &[Tool],
    rounds: u32,
) -> (Vec<Run>, Vec<(Tool, String)>) {
    let mut runs = Vec::new();
    let mut without: Vec<(Tool, String)> = Vec::new();
    let mut order = tools.to_vec();
    for round in 1..=rounds {
        for tool in &order {
            if without.iter().any(|(failed, _)| failed == tool) {
                continue;
            }
            match bench.run(row, *tool, round) {
                Ok(Some(run)) => {
                    eprintln!(
                        "{} {round}: {tool} {:.3} s, client CPU {:.3} s, server CPU {:.3} s",
                        row.name, run.client.wall_s, run.client.cpu_s, run.server_cpu_s
                    );
                    runs.push(run);
                }
                Ok(None) => without.push((*tool, "it has no way to".to_owned())),
                Err(error) => {
                    eprintln!("{} {round}: {tool}: {error}", row.name);
                    without.push((*tool, error.to_string()));
                }
            }
        }
        order.rotate_left(1);
    }
    (runs, without)
}

/// The delay proxy with nobody else at work, where it is used: it must not be the limit.
fn proxy_speed(
    arguments: &Arguments,
    rows: &[Row],
    rtt: Duration,
    amounts: &Amounts,
) -> Result<Option<f64>, BenchError> {
    let is_far = rows.iter().any(|row| row.path != PathKind::Loopback);
    if !is_far && arguments.plots.is_none() {
        return Ok(None);
    }
    let total = amounts.far_size_bytes;
    let speed = own_speed(rtt, amounts.bits_per_s / 8, total)?;
    if !arguments.json {
        println!(
            "the delay proxy alone: {:.2} Gbit/s of the {:.2} of its link, {total} bytes",
            speed * 8e-9,
            f64::from(arguments.rate) * 1e-3,
        );
    }
    Ok(Some(speed))
}

fn rows(names: &[String]) -> Result<Vec<Row>, BenchError> {
    match names {
        [] => Ok(TABLE.to_vec()),
        [one] if one == "none" => Ok(Vec::new()),
        [one] if one == "all" => Ok(TABLE.iter().chain(MORE).copied().collect()),
        names => names
            .iter()
            .map(|name| {
                Row::named(name).ok_or_else(|| {
                    let all: Vec<_> = TABLE.iter().chain(MORE).map(|row| row.name).collect();
                    BenchError::Argument(format!("{name} is no row: {}", all.join(", ")))
                })
            })
            .collect(),
    }
}

/// Those that are asked for and at hand. Absent ones are named.
fn tools(arguments: &Arguments, programs: &Programs) -> Result<Vec<Tool>, BenchError> {
    if !arguments.peers {
        for tool in &arguments.tools {
            programs.path(*tool).map_err(BenchError::Argument)?;
        }
        return Ok(arguments.tools.clone());
    }
    let is_there = |tool: &Tool| match programs.path(*tool) {
        Ok(_) => true,
        Err(why) => {
            eprintln!("without {tool}: {why}");
            false
        }
    };
    Ok(Tool::ALL.into_iter().filter(is_there).collect())
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => return Err(format!("{other} is none of KiB, MiB, GiB")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{digits:?} is no whole number"))?;
    number
        .checked_mul(unit)
        .filter(|&size| size > 0)
        .ok_or_else(|| "no such size".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("300M"), Ok(300 << 20));
        assert_eq!(size("17"), Ok(17));
        for bad in ["", "GiB", "1GB", "0", "-1", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rows_are_known_by_their_names() {
        assert_eq!(rows(&[]).unwrap().len(), TABLE.len());
        let named = rows(&["up".to_owned(), "durable-up".to_owned()]).unwrap();
        assert_eq!(named.len(), 2);
        assert!(rows(&["sideways".to_owned()]).is_err());
    }
}
