//! ketch and OpenSSH `sftp` in turn over the same sshd, on this machine.
//!
//! Every run is a whole process, with connection and login, that copies one file of random bytes
//! from tmpfs to tmpfs; its copy is hashed afterwards, outside of the time. Machines drift: look
//! at the ratios, which are between runs a few seconds apart.
//!
//! ```text
//! cargo build --release -p ketch
//! cargo run --release -p ketch-benches --bin side_by_side -- --rounds 5 --size 1GiB
//! ```

mod report;
mod runs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ketch_benches::hot_pages::HotPages;
use ketch_benches::{BenchError, measure};

use crate::runs::Bench;

/// Measures ketch and OpenSSH's sftp in turn.
#[derive(Debug, Parser)]
struct Line {
    /// How often everything is measured; the medians count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Size of the file, as 1GiB, 256MiB, 4KiB or a number of bytes
    #[arg(long, default_value = "1GiB", value_parser = size)]
    size: u64,
    /// Cipher that both programs use
    #[arg(long, default_value = "aes128-gcm@openssh.com")]
    cipher: String,
    /// Directory on a tmpfs for the files of both sides
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The ketch program [default: the one beside this program]
    #[arg(long)]
    ketch: Option<PathBuf>,
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
    match run(&Line::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("side_by_side: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(line: &Line) -> Result<(), BenchError> {
    let ketch = match &line.ketch {
        Some(path) => path.clone(),
        None => {
            let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
            own.with_file_name("ketch")
        }
    };
    if !ketch.is_file() {
        return Err(BenchError::NotBuilt { path: ketch });
    }
    let _hot = match line.hot_pages {
        true => Some(HotPages::make(&line.dir, 5 << 30)?),
        false => None,
    };
    let mut bench = Bench::start(ketch, &line.dir, line.size, &line.cipher)?;
    let mut all = Vec::new();
    for round in 1..=line.rounds {
        let runs = bench.round(round)?;
        if !line.json {
            report::round(round, &runs, line.size);
        }
        all.extend(runs);
    }
    if line.json {
        report::json(&all, line.size, &line.cipher)
    } else {
        report::summary(&all, line.size, &line.cipher);
        Ok(())
    }
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
}
