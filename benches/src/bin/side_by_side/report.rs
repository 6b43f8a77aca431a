//! What the runs say, as tables or as JSON.

use ketch_benches::BenchError;
use ketch_benches::median::{median, range};
use serde::Serialize;

use crate::runs::{Run, Tool, Way};

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

/// The runs of one round, a line each.
pub(crate) fn round(number: u32, runs: &[Run], size: u64) {
    if number == 1 {
        println!("round  way  tool   wall s  client CPU s/GiB (user)  server CPU s/GiB  peak MiB");
    }
    for run in runs {
        let figures = Figures::of(&[*run], size);
        println!(
            "{number:>5}  {:<3}  {:<5} {:>7.3}  {:>16.3} ({:.3})  {:>16.3}  {:>8.1}",
            run.way.name(),
            run.tool.name(),
            figures.wall_s,
            figures.client_cpu_s_per_gib,
            figures.client_user_s_per_gib,
            figures.server_cpu_s_per_gib,
            figures.peak_memory_mib,
        );
    }
}

/// Medians and ratios of all rounds.
pub(crate) fn summary(runs: &[Run], size: u64, cipher: &str) {
    println!("\nmedians of {size} bytes with {cipher}, whole processes with connection and login:");
    println!(
        "way  tool   wall s (least-most)     MiB/s  client CPU s/GiB  server CPU s/GiB  peak MiB"
    );
    for Comparison {
        way,
        ketch,
        sftp,
        ratio,
    } in comparisons(runs, size)
    {
        for (tool, figures) in [(Tool::Ketch, ketch), (Tool::Sftp, sftp)] {
            println!(
                "{:<3}  {:<5} {:>7.3} ({:.3}-{:.3}) {:>9.0}  {:>16.3}  {:>16.3}  {:>8.1}",
                way.name(),
                tool.name(),
                figures.wall_s,
                figures.wall_least_s,
                figures.wall_most_s,
                figures.mib_per_s,
                figures.client_cpu_s_per_gib,
                figures.server_cpu_s_per_gib,
                figures.peak_memory_mib,
            );
        }
        println!(
            "{:<3}  ketch/sftp: wall {:.2}, client CPU {:.2}, server CPU {:.2}, peak memory {:.2}",
            way.name(),
            ratio.wall,
            ratio.client_cpu,
            ratio.server_cpu,
            ratio.peak_memory,
        );
    }
}

/// Everything as one JSON object on standard output.
pub(crate) fn json(runs: &[Run], size: u64, cipher: &str) -> Result<(), BenchError> {
    #[derive(Serialize)]
    struct Report<'a> {
        size_bytes: u64,
        cipher: &'a str,
        comparisons: Vec<Comparison>,
        runs: &'a [Run],
    }
    let report = Report {
        size_bytes: size,
        cipher,
        comparisons: comparisons(runs, size),
        runs,
    };
    let text = serde_json::to_string_pretty(&report)
        .map_err(|error| BenchError::io("writing the report")(error.into()))?;
    println!("{text}");
    Ok(())
}

/// The medians of one way.
#[derive(Clone, Copy, Debug, Serialize)]
struct Comparison {
    way: Way,
    ketch: Figures,
    sftp: Figures,
    ratio: Ratio,
}

/// Medians of one program's runs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    wall_s: f64,
    wall_least_s: f64,
    wall_most_s: f64,
    mib_per_s: f64,
    client_cpu_s_per_gib: f64,
    client_user_s_per_gib: f64,
    server_cpu_s_per_gib: f64,
    peak_memory_mib: f64,
}

/// ketch's median by that of `sftp`: below 1 is better.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ratio {
    wall: f64,
    client_cpu: f64,
    server_cpu: f64,
    peak_memory: f64,
}

impl Figures {
    fn of(runs: &[Run], size: u64) -> Self {
        let median_of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure));
        let size = as_f64(size);
        let wall_s = median_of(|run| run.client.wall_s);
        let (wall_least_s, wall_most_s) = range(runs.iter().map(|run| run.client.wall_s));
        Self {
            wall_s,
            wall_least_s,
            wall_most_s,
            mib_per_s: size / MIB / wall_s,
            client_cpu_s_per_gib: median_of(|run| run.client.cpu_s) * GIB / size,
            client_user_s_per_gib: median_of(|run| run.client.user_s) * GIB / size,
            server_cpu_s_per_gib: median_of(|run| run.server_cpu_s) * GIB / size,
            peak_memory_mib: median_of(|run| as_f64(run.client.memory_bytes)) / MIB,
        }
    }
}

fn comparisons(runs: &[Run], size: u64) -> Vec<Comparison> {
    let of = |way, tool| {
        let chosen: Vec<Run> = runs
            .iter()
            .filter(|run| run.way == way && run.tool == tool)
            .copied()
            .collect();
        Figures::of(&chosen, size)
    };
    let compare = |way| {
        let (ketch, sftp) = (of(way, Tool::Ketch), of(way, Tool::Sftp));
        let ratio = Ratio {
            wall: ketch.wall_s / sftp.wall_s,
            client_cpu: ketch.client_cpu_s_per_gib / sftp.client_cpu_s_per_gib,
            server_cpu: ketch.server_cpu_s_per_gib / sftp.server_cpu_s_per_gib,
            peak_memory: ketch.peak_memory_mib / sftp.peak_memory_mib,
        };
        Comparison {
            way,
            ketch,
            sftp,
            ratio,
        }
    };
    Way::ALL.map(compare).to_vec()
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_benches::measure::Cost;

    #[test]
    fn ratios_are_those_of_the_medians() {
        let run = |round, tool, wall_s| Run {
            round,
            tool,
            way: Way::Get,
            client: Cost {
                wall_s,
                cpu_s: 2.0 * wall_s,
                user_s: wall_s,
                memory_bytes: 1 << 20,
            },
            server_cpu_s: 1.0,
        };
        let runs = [
            run(1, Tool::Ketch, 1.0),
            run(2, Tool::Ketch, 2.0),
            run(3, Tool::Ketch, 30.0),
            run(1, Tool::Sftp, 4.0),
            run(2, Tool::Sftp, 1.0),
            run(3, Tool::Sftp, 90.0),
        ];
        let get = comparisons(&runs, 1 << 29)[0];
        assert!((get.ratio.wall - 0.5).abs() < 1e-9, "{get:?}");
        assert!(
            (get.ketch.client_cpu_s_per_gib - 8.0).abs() < 1e-9,
            "{get:?}"
        );
        assert!((get.ketch.mib_per_s - 256.0).abs() < 1e-9, "{get:?}");
        assert!(
            (get.sftp.server_cpu_s_per_gib - 2.0).abs() < 1e-9,
            "{get:?}"
        );
    }
}
