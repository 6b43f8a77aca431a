//! The log of whoever serves or listens: to standard error, as much as was asked for.

use std::io;

use tracing_subscriber::filter::LevelFilter;

use crate::args::LogFormat;

/// Logs to the standard error. What peers say is shown escaped there (tracing-subscriber from 0.3.20 on).
pub(crate) fn start(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(false);
    // There is none yet: a command is run once.
    let _ = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}
