//! `ketch-listener`: the flows of a listener's file, as `ketch listen --config` runs them, as a program
//! of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Runs the flows of a listener's file until SIGTERM; SIGHUP has it read again.
#[cfg(unix)]
#[derive(Debug, clap::Parser)]
#[command(
    name = "ketch-listener",
    version,
    after_help = "SIGHUP has the file read again, SIGTERM and SIGINT end it in good order. `ketch listen check` \
    says what is wrong with the file, `ketch listen status` and its like ask a listener that runs."
)]
struct Line {
    /// The listener's file (TOML): docs/listen.md tells what may stand in it
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: std::path::PathBuf,
    /// Log more to the standard error: -v what happens, -vv each step, -vvv all
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log as lines of JSON
    #[arg(long)]
    log_json: bool,
}

#[cfg(unix)]
fn main() -> ExitCode {
    use clap::Parser as _;
    use tracing_subscriber::filter::LevelFilter;

    let line = Line::parse();
    let level = match line.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // There is none yet.
    let _ = match line.log_json {
        false => log.try_init(),
        true => log.json().try_init(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let say = |line: &str| eprintln!("ketch-listener: {line}");
    match runtime.block_on(ketch_listener::service::run(&line.config, say)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

#[cfg(unix)]
fn failed(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.lines()
        .for_each(|line| eprintln!("ketch-listener: {line}"));
    ExitCode::FAILURE
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!("ketch-listener: there is a version for Unix only");
    ExitCode::FAILURE
}
