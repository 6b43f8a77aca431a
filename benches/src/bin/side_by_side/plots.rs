//! Throughput over time, and over the round trip time: measured, and drawn as SVG.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ketch_benches::BenchError;
use ketch_benches::chart::{Chart, Line};
use ketch_benches::tool::{Tool, Work};
use serde::Serialize;

use crate::runs::{Amounts, Bench};

/// How often the bytes that came out of the link are counted.
const INTERVAL: Duration = Duration::from_millis(20);
const MIB: f64 = (1_u64 << 20) as f64;

/// One line of a plot.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    plot: &'static str,
    tool: Tool,
    /// Seconds and MiB/s, or milliseconds and MiB/s.
    points: Vec<(f64, f64)>,
}

/// Measures and draws all four plots into `dir`.
pub(crate) fn draw(
    bench: &mut Bench,
    tools: &[Tool],
    rtts_ms: &[u32],
    dir: &Path,
) -> Result<Vec<Series>, BenchError> {
    let Amounts {
        rtt_s,
        far_size_bytes: size,
        ..
    } = *bench.amounts();
    let rtt = Duration::from_secs_f64(rtt_s);
    std::fs::create_dir_all(dir).map_err(BenchError::io("making the directory of the plots"))?;
    let mut all = Vec::new();
    for (work, over_time, over_rtt) in [
        (Work::Get, "down-over-time", "down-over-rtt"),
        (Work::Put, "up-over-time", "up-over-rtt"),
    ] {
        let mut lines = Vec::new();
        for tool in tools {
            let points = over_time_of(bench, *tool, work, rtt)?;
            lines.push((*tool, points));
        }
        let ms = rtt.as_millis();
        let title = format!(
            "{over_time}: {} MiB at a round trip time of {ms} ms",
            size >> 20
        );
        save(dir, over_time, &title, "seconds", &lines)?;
        all.extend(series(over_time, lines));

        let mut lines = Vec::new();
        for tool in tools {
            let mut points = Vec::new();
            for rtt in rtts_ms {
                let path = Duration::from_millis((*rtt).into());
                let run = bench.over(*tool, work, path, |_| {}, INTERVAL)?;
                points.extend(run.map(|run| {
                    eprintln!("{over_rtt} {tool} {rtt} ms: {:.3} s", run.client.wall_s);
                    (f64::from(*rtt), as_f64(size) / MIB / run.client.wall_s)
                }));
            }
            lines.push((*tool, points));
        }
        let title = format!(
            "{over_rtt}: {} MiB, connection and login included",
            size >> 20
        );
        save(dir, over_rtt, &title, "round trip time, ms", &lines)?;
        all.extend(series(over_rtt, lines));
    }
    Ok(all)
}

fn over_time_of(
    bench: &mut Bench,
    tool: Tool,
    work: Work,
    rtt: Duration,
) -> Result<Vec<(f64, f64)>, BenchError> {
    let seen = Mutex::new(Vec::new());
    let see = |bytes: u64| {
        if let Ok(mut seen) = seen.lock() {
            seen.push(bytes);
        }
    };
    bench.over(tool, work, rtt, see, INTERVAL)?;
    let seen = seen.into_inner().unwrap_or_default();
    let interval = INTERVAL.as_secs_f64();
    let mut at = 0.0;
    let mut points = Vec::new();
    for pair in seen.windows(2) {
        if let [before, after] = pair {
            at += interval;
            points.push((at, as_f64(after.saturating_sub(*before)) / MIB / interval));
        }
    }
    Ok(points)
}

fn series(plot: &'static str, lines: Vec<(Tool, Vec<(f64, f64)>)>) -> impl Iterator<Item = Series> {
    lines
        .into_iter()
        .map(move |(tool, points)| Series { plot, tool, points })
}

fn save(
    dir: &Path,
    name: &str,
    title: &str,
    x: &str,
    lines: &[(Tool, Vec<(f64, f64)>)],
) -> Result<(), BenchError> {
    let chart = Chart {
        title,
        x,
        y: "MiB/s",
        lines: lines
            .iter()
            .map(|(tool, points)| Line {
                name: tool.name(),
                points,
            })
            .collect(),
    };
    let file = dir.join(name).with_extension("svg");
    let svg = chart.svg()?;
    std::fs::write(&file, svg).map_err(BenchError::io(format!("writing {}", file.display())))
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}
