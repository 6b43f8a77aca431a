//! What the runs say: a table for each row, and all of it as JSON.

use ketch_benches::BenchError;
use ketch_benches::median::{median, range};
use ketch_benches::row::{Figure, Row, Target};
use ketch_benches::tool::Tool;
use serde::Serialize;

use crate::plots::Series;
use crate::runs::{Amounts, Run};

const MIB: f64 = (1_u64 << 20) as f64;

/// Medians of one program's runs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    tool: Tool,
    runs: usize,
    wall_s: f64,
    wall_least_s: f64,
    wall_most_s: f64,
    client_cpu_s: f64,
    client_user_s: f64,
    server_cpu_s: f64,
    memory_mib: f64,
    scaled_from_files: Option<u32>,
}

/// A program's medians by those of `sftp`: below 1 is better.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ratio {
    wall: f64,
    client_cpu: f64,
    server_cpu: f64,
    memory: f64,
}

/// Whether ketch keeps a target.
#[derive(Clone, Copy, Debug, Serialize)]
struct Verdict {
    #[serde(flatten)]
    target: Target,
    is: f64,
    holds: bool,
    stretch_holds: Option<bool>,
}

/// One row, measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    row: &'static str,
    figures: Vec<Figures>,
    ratios: Vec<(Tool, Ratio)>,
    verdicts: Vec<Verdict>,
    /// Programs that failed or have no way to do it, and what they said.
    without: Vec<(Tool, String)>,
}

impl Measured {
    /// What `runs` say about `row`.
    pub(crate) fn new(row: &Row, runs: &[Run], without: Vec<(Tool, String)>) -> Self {
        let figures: Vec<Figures> = Tool::ALL
            .into_iter()
            .filter_map(|tool| Figures::of(tool, runs))
            .collect();
        let of = |tool| figures.iter().find(|each| each.tool == tool);
        let ratios: Vec<(Tool, Ratio)> = of(Tool::Sftp).map_or_else(Vec::new, |sftp| {
            figures
                .iter()
                .map(|each| (each.tool, each.by(sftp)))
                .collect()
        });
        let ours = ratios.iter().find(|(tool, _)| *tool == Tool::Ketch);
        let verdict = |target: &Target| {
            let is = match (target.figure, ours, of(Tool::Ketch)) {
                (Figure::Wall, Some((_, ratio)), _) => ratio.wall,
                (Figure::ClientCpu, Some((_, ratio)), _) => ratio.client_cpu,
                (Figure::ServerCpu, Some((_, ratio)), _) => ratio.server_cpu,
                (Figure::WallSeconds, _, Some(ours)) => ours.wall_s,
                (Figure::MemoryMib, _, Some(ours)) => ours.memory_mib,
                _ => return None,
            };
            Some(Verdict {
                target: *target,
                is,
                holds: is <= target.at_most,
                stretch_holds: target.stretch.map(|stretch| is <= stretch),
            })
        };
        Self {
            row: row.name,
            verdicts: row.targets.iter().filter_map(verdict).collect(),
            ratios,
            figures,
            without,
        }
    }

    /// As a table.
    pub(crate) fn print(&self) {
        println!("\n{}", self.row);
        println!(
            "  tool       wall s (least-most)       client CPU s  server CPU s  MiB    \
             | of sftp's: wall  client  server  memory"
        );
        for each in &self.figures {
            let ratio = self.ratios.iter().find(|(tool, _)| *tool == each.tool);
            let ratio = ratio.map_or_else(String::new, |(_, ratio)| {
                format!(
                    "{:>15.4} {:>7.3} {:>7.3} {:>7.2}",
                    ratio.wall, ratio.client_cpu, ratio.server_cpu, ratio.memory
                )
            });
            let scaled = each.scaled_from_files.map_or_else(String::new, |files| {
                format!("  (scaled from {files} files)")
            });
            println!(
                "  {:<9} {:>8.3} ({:.3}-{:.3}) {:>12.3} {:>13.3} {:>8.1}   |{ratio}{scaled}",
                each.tool,
                each.wall_s,
                each.wall_least_s,
                each.wall_most_s,
                each.client_cpu_s,
                each.server_cpu_s,
                each.memory_mib,
            );
        }
        for verdict in &self.verdicts {
            let Target {
                figure,
                at_most,
                stretch,
            } = verdict.target;
            let kept = if verdict.holds { "holds" } else { "MISSED" };
            let stretch = match (stretch, verdict.stretch_holds) {
                (Some(stretch), Some(true)) => format!("; stretch {stretch}: reached"),
                (Some(stretch), _) => format!("; stretch {stretch}: not reached"),
                _ => String::new(),
            };
            println!(
                "  {:<14} {:>8.4}, at most {at_most}: {kept}{stretch}",
                name(figure),
                verdict.is
            );
        }
        for (tool, why) in &self.without {
            println!("  {tool:<9} no figure: {why}");
        }
    }

    /// Whether ketch or the one it is compared with could not do it.
    pub(crate) fn is_missing_what_counts(&self) -> bool {
        let counts = |tool: &Tool| matches!(tool, Tool::Ketch | Tool::Sftp);
        self.without.iter().any(|(tool, _)| counts(tool))
    }
}

const fn name(figure: Figure) -> &'static str {
    match figure {
        Figure::Wall => "wall",
        Figure::ClientCpu => "client CPU",
        Figure::ServerCpu => "server CPU",
        Figure::WallSeconds => "wall, seconds",
        Figure::MemoryMib => "peak MiB",
    }
}

impl Figures {
    fn of(tool: Tool, runs: &[Run]) -> Option<Self> {
        let runs: Vec<&Run> = runs.iter().filter(|run| run.tool == tool).collect();
        let first = runs.first()?;
        let median_of = |figure: fn(&Run) -> f64| median(runs.iter().map(|run| figure(run)));
        let (wall_least_s, wall_most_s) = range(runs.iter().map(|run| run.client.wall_s));
        Some(Self {
            tool,
            runs: runs.len(),
            wall_s: median_of(|run| run.client.wall_s),
            wall_least_s,
            wall_most_s,
            client_cpu_s: median_of(|run| run.client.cpu_s),
            client_user_s: median_of(|run| run.client.user_s),
            server_cpu_s: median_of(|run| run.server_cpu_s),
            memory_mib: median_of(|run| as_f64(run.client.memory_bytes)) / MIB,
            scaled_from_files: first.scaled_from_files,
        })
    }

    fn by(&self, other: &Self) -> Ratio {
        Ratio {
            wall: self.wall_s / other.wall_s,
            client_cpu: self.client_cpu_s / other.client_cpu_s,
            server_cpu: self.server_cpu_s / other.server_cpu_s,
            memory: self.memory_mib / other.memory_mib,
        }
    }
}

/// Everything as one JSON object on standard output.
pub(crate) fn json(
    amounts: &Amounts,
    proxy_bytes_per_s: Option<f64>,
    rows: &[Measured],
    runs: &[Run],
    plots: &[Series],
) -> Result<(), BenchError> {
    #[derive(Serialize)]
    struct Report<'a> {
        amounts: &'a Amounts,
        proxy_bytes_per_s: Option<f64>,
        rows: &'a [Measured],
        runs: &'a [Run],
        plots: &'a [Series],
    }
    let report = Report {
        amounts,
        proxy_bytes_per_s,
        rows,
        runs,
        plots,
    };
    let text = serde_json::to_string_pretty(&report)
        .map_err(|error| BenchError::io("writing the report")(error.into()))?;
    println!("{text}");
    Ok(())
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
            row: "down",
            round,
            tool,
            client: Cost {
                wall_s,
                cpu_s: 2.0 * wall_s,
                user_s: wall_s,
                memory_bytes: 1 << 20,
            },
            server_cpu_s: 1.0,
            scaled_from_files: None,
        };
        let runs = [
            run(1, Tool::Ketch, 1.0),
            run(2, Tool::Ketch, 2.0),
            run(3, Tool::Ketch, 30.0),
            run(1, Tool::Sftp, 4.0),
            run(2, Tool::Sftp, 1.0),
            run(3, Tool::Sftp, 90.0),
        ];
        let row = Row::named("down").unwrap();
        let measured = Measured::new(&row, &runs, Vec::new());
        let (tool, ratio) = measured.ratios[0];
        assert_eq!(tool, Tool::Ketch);
        assert!((ratio.wall - 0.5).abs() < 1e-9, "{ratio:?}");
        let holds: Vec<_> = measured.verdicts.iter().map(|each| each.holds).collect();
        assert_eq!(holds, [true, true, false], "{:?}", measured.verdicts);
        assert_eq!(measured.verdicts[0].stretch_holds, Some(false));
        assert!(!measured.is_missing_what_counts());
    }
}
