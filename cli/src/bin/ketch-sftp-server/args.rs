//! The options of sftp-server(8).

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use ketch_server::RequestName;

use crate::log::{Facility, Level};

/// An SFTP server on standard input and output, to be started by sshd as `Subsystem sftp`.
#[derive(Debug, Parser)]
#[command(name = "ketch-sftp-server", version, disable_version_flag = true)]
pub(crate) struct Line {
    /// Start in this directory: %h or %d is the user's home directory, %u the user's name, %% a %
    #[arg(short = 'd', value_name = "DIRECTORY")]
    pub(crate) directory: Option<String>,
    /// Log to standard error instead of syslog
    #[arg(short = 'e')]
    pub(crate) stderr: bool,
    /// Log with this facility: DAEMON, USER, AUTH, LOCAL0 to LOCAL7
    #[arg(short = 'f', value_name = "FACILITY", default_value = "AUTH")]
    pub(crate) facility: Facility,
    /// Log this much: QUIET, FATAL, ERROR, INFO, VERBOSE, DEBUG, DEBUG1, DEBUG2, DEBUG3
    #[arg(short = 'l', value_name = "LEVEL", default_value = "ERROR")]
    pub(crate) level: Level,
    /// Refuse these kinds of request, comma-separated; -Q requests lists them
    #[arg(short = 'P', value_name = "REQUESTS", value_delimiter = ',', value_parser = request)]
    pub(crate) denied: Vec<RequestName>,
    /// Refuse all kinds of request but these, comma-separated
    #[arg(short = 'p', value_name = "REQUESTS", value_delimiter = ',', value_parser = request)]
    pub(crate) allowed: Vec<RequestName>,
    /// Say what is known of a feature and end: requests
    #[arg(short = 'Q', value_name = "FEATURE")]
    pub(crate) query: Option<Feature>,
    /// Refuse whatever would change something
    #[arg(short = 'R')]
    pub(crate) read_only: bool,
    /// Make files with this umask, in octal, instead of the user's own
    #[arg(short = 'u', value_name = "UMASK", value_parser = mask)]
    pub(crate) umask: Option<u32>,
}

/// What can be asked about.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Feature {
    /// Kinds of request, as `-P` and `-p` take them.
    Requests,
}

/// Says which kinds of request there are, one a line.
pub(crate) fn print_requests() -> ExitCode {
    let mut out = std::io::stdout().lock();
    for name in RequestName::ALL {
        if writeln!(out, "{name}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Why an argument is none.
#[derive(Debug)]
pub(crate) struct BadArgument(&'static str);

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadArgument {}

fn request(text: &str) -> Result<RequestName, BadArgument> {
    RequestName::parse(text).ok_or(BadArgument(
        "no such kind of request (-Q requests lists them)",
    ))
}

fn mask(text: &str) -> Result<u32, BadArgument> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or(BadArgument("not an octal number up to 0777"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_of_sftp_server_are_read() {
        Line::command().debug_assert();
        let line = "x -d %h/in -e -f LOCAL3 -l VERBOSE -P remove,rmdir -p open,read -R -u 027";
        let line = Line::parse_from(line.split(' '));
        assert_eq!(line.directory.as_deref(), Some("%h/in"));
        assert!(line.stderr && line.read_only);
        assert_eq!(line.denied, [RequestName::Remove, RequestName::Rmdir]);
        assert_eq!(line.allowed, [RequestName::Open, RequestName::Read]);
        assert_eq!(line.umask, Some(0o27));
        for wrong in [
            "-P nothing",
            "-u 8",
            "-u 1000",
            "-f NEWS",
            "-l LOUD",
            "-Q all",
        ] {
            let line = format!("x {wrong}");
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{wrong}");
        }
    }
}
