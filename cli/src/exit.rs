//! How the program ends: one sentence for people, one code for scripts.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use ketch_client::Kind;

use crate::failed::Failed;
use crate::output::escaped;

/// What `--help` says of exit codes; [`code`] gives them.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done
    1  anything not listed here
    2  the command line is wrong
    3  not found            4  not permitted       5  exists already
    6  no space left        7  login refused       8  host key not accepted
    9  no common algorithm 10  network             11  timeout
   12  the server misbehaved or refused            13  local file or set-up
   14  not supported by the server                130  interrupted
`ketch exec` ends with the code of the command, or with 128 and the number of its signal.";

/// Says on stderr why the command failed, if it did, and gives the code to exit with.
pub(crate) fn report(result: Result<(), Failed>) -> ExitCode {
    match result {
        // If the output is closed, who reads it has seen enough (`ketch ls … | head`).
        Ok(()) | Err(Failed::OutputClosed) => ExitCode::SUCCESS,
        Err(Failed::Remote(code)) => ExitCode::from(code),
        Err(Failed::Faults(faults)) => {
            faults.iter().for_each(|fault| eprintln!("ketch: {fault}"));
            ExitCode::from(code(&Failed::Faults(faults)))
        }
        Err(failed) => {
            let advice = failed.advice();
            let advice = advice
                .map(|advice| format!("; {advice}"))
                .unwrap_or_default();
            eprintln!("ketch: {}{advice}", sentence(&failed));
            ExitCode::from(code(&failed))
        }
    }
}

/// The error and its causes in one line, joined by ": ", safe to show on a terminal.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some foreign errors repeat their cause in their own text.
        if !text.ends_with(&next) {
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    escaped(text.as_bytes())
}

fn code(failed: &Failed) -> u8 {
    let kind = match failed {
        Failed::Usage(_) => return 2,
        Failed::Interrupted => return 130,
        Failed::Remote(code) => return *code,
        other => other.kind(),
    };
    match kind {
        Kind::NotFound => 3,
        Kind::Permission => 4,
        Kind::Exists => 5,
        Kind::NoSpace => 6,
        Kind::Auth => 7,
        Kind::HostKey => 8,
        Kind::Algorithm => 9,
        Kind::Network => 10,
        Kind::Timeout => 11,
        Kind::Peer => 12,
        Kind::Local => 13,
        Kind::Unsupported => 14,
        Kind::Cancelled => 130,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn local(kind: io::ErrorKind) -> Failed {
        Failed::local("cannot read a.csv", io::Error::new(kind, "the cause"))
    }

    #[test]
    fn causes_follow_in_one_line() {
        let text = sentence(&local(io::ErrorKind::Other));
        assert_eq!(text, "cannot read a.csv: the cause");
    }

    #[test]
    fn a_cause_that_is_said_already_is_not_said_twice() {
        let failed = Failed::local("it broke: the cause", io::Error::other("the cause"));
        assert_eq!(sentence(&failed), "it broke: the cause");
    }

    #[test]
    fn nothing_in_an_error_reaches_the_terminal_as_a_command() {
        let failed = Failed::Usage("a\x1b[2Jb\nc\u{202e}d".into());
        let text = sentence(&failed);
        assert!(
            text.chars().all(|c| !c.is_control() && c != '\u{202e}'),
            "{text:?}"
        );
    }

    #[test]
    fn codes_come_from_kinds() {
        assert_eq!(code(&local(io::ErrorKind::NotFound)), 3);
        assert_eq!(code(&local(io::ErrorKind::PermissionDenied)), 4);
        assert_eq!(code(&local(io::ErrorKind::StorageFull)), 6);
        assert_eq!(code(&local(io::ErrorKind::Other)), 13);
        assert_eq!(code(&Failed::Usage(String::new())), 2);
        assert_eq!(code(&Failed::Interrupted), 130);
    }
}
