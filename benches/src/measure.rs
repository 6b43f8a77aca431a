//! What one command costs, its children included (getrusage(2)).
//!
//! `RUSAGE_CHILDREN` sums over everything that a process has waited for. To have it of one command
//! alone, a program that measures starts itself once more for each command: that child runs the
//! command, waits and writes the figures to a file. Being small matters, too: a process begins
//! with the peak memory of the one that started it.

#![expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ketch_conformance::process::Process;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use crate::BenchError;

/// First argument of a program that starts itself to measure.
const MEASURE: &str = "--measure-one-command";
/// How often is looked whether a command has ended; what it took it measures itself.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Most of what a failed command wrote that is told.
const SAID_LEN_MAX: usize = 4096;

/// What a command cost.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cost {
    /// Seconds from start to end.
    pub wall_s: f64,
    /// Seconds of processor time, user and system, of the command and its children.
    pub cpu_s: f64,
    /// Of these, in user code.
    pub user_s: f64,
    /// Peak resident memory of the largest of these processes, in bytes.
    pub memory_bytes: u64,
}

/// Does the measuring if this process was started for that. To be called first in `main`.
#[must_use]
pub fn measure_if_told_to() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != MEASURE {
        return None;
    }
    let (Some(report), Some(program)) = (arguments.next(), arguments.next()) else {
        return Some(ExitCode::FAILURE);
    };
    Some(
        match measure_here(Path::new(&report), &program, arguments) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
    )
}

/// What a measured command wrote, in the directory that was given for its files.
#[must_use]
pub fn said(dir: &Path) -> PathBuf {
    dir.join("said")
}

/// Runs `command` in a measuring child of its own, for no longer than `limit`; `dir` is for its
/// files, and [`said`] is there afterwards. Standard input is empty.
///
/// # Errors
/// [`BenchError::Failed`] with what it wrote if it does not end well, [`BenchError::Io`].
pub fn measure(command: &Command, dir: &Path, limit: Duration) -> Result<Cost, BenchError> {
    let report = dir.join("measured.json");
    let said = said(dir);
    let doing = || format!("measuring {}", line(command));
    let output = File::create(&said).map_err(BenchError::io(doing()))?;
    let also = output.try_clone().map_err(BenchError::io(doing()))?;
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let mut measuring = Command::new(own);
    measuring
        .arg(MEASURE)
        .arg(&report)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => measuring.env(name, value),
            None => measuring.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        measuring.current_dir(dir);
    }
    let mut child = measuring
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(also)
        .spawn()
        .map_err(BenchError::io(doing()))?;
    let status = end_of(&mut child, limit).map_err(BenchError::io(doing()))?;
    if !status.is_some_and(|status| status.success()) {
        let written = fs::read(&said).unwrap_or_default();
        let end = written.get(written.len().saturating_sub(SAID_LEN_MAX)..);
        return Err(BenchError::Failed {
            command: line(command),
            status: status
                .map_or_else(|| format!("still at it after {limit:?}"), |s| s.to_string()),
            said: String::from_utf8_lossy(end.unwrap_or_default()).into_owned(),
        });
    }
    let text = fs::read(&report).map_err(BenchError::io(doing()))?;
    serde_json::from_slice(&text).map_err(|error| BenchError::io(doing())(error.into()))
}

/// How it ended; `None` if it was still running when `limit` was over, and was ended.
fn end_of(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > limit {
            Process::from_id(child.id()).kill_tree();
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The command line, for messages: not quoted for a shell.
#[must_use]
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

fn measure_here(
    report: &Path,
    program: &OsStr,
    arguments: impl Iterator<Item = OsString>,
) -> Result<ExitCode, BenchError> {
    let mut command = Command::new(program);
    command.args(arguments);
    let began = Instant::now();
    let status = command.status().map_err(BenchError::io(line(&command)))?;
    let wall = began.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|error| BenchError::io("getrusage")(error.into()))?;
    let (user, system) = (seconds(usage.user_time()), seconds(usage.system_time()));
    let cost = Cost {
        wall_s: wall.as_secs_f64(),
        cpu_s: (user + system).as_secs_f64(),
        user_s: user.as_secs_f64(),
        // Linux counts KiB.
        memory_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    };
    let text = serde_json::to_vec(&cost).map_err(|error| BenchError::io("report")(error.into()))?;
    fs::write(report, text).map_err(BenchError::io(format!("writing {}", report.display())))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(crate) fn seconds(time: TimeVal) -> Duration {
    let whole = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0));
    whole + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
}
