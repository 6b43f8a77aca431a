//! Running another program to its end, which comes in bounded time.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::PeerError;
use crate::process::Process;

/// Runs `command` without standard input and collects what it writes; ends it and all that it
/// started when `limit` is over.
pub(crate) fn run(mut command: Command, limit: Duration) -> Result<Output, PeerError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command
        .spawn()
        .map_err(PeerError::io(format!("starting {program}")))?;
    let process = Process::from_id(child.id());
    let (done, waiting) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more only after a panic.
        let _ = done.send(child.wait_with_output());
    });
    let (ended, output) = match waiting.recv_timeout(limit) {
        Ok(output) => (true, output),
        Err(_) => {
            process.kill_tree();
            let killed = std::io::Error::other("its waiting thread is gone");
            (false, waiting.recv().unwrap_or(Err(killed)))
        }
    };
    let output = output.map_err(PeerError::io(format!("waiting for {program}")))?;
    if ended {
        Ok(output)
    } else {
        Err(PeerError::TimedOut {
            program,
            limit,
            said: said(&output),
        })
    }
}

/// Runs `command` as [`run`] does and takes any end but success for an error.
pub(crate) fn run_well(command: Command, limit: Duration) -> Result<Output, PeerError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = run(command, limit)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(PeerError::Failed {
        program,
        status: output.status.to_string(),
        said: said(&output),
    })
}

/// The whole path of a program: from `PATH`, or from where system programs live, which is not
/// always in it.
pub(crate) fn find(program: &'static str) -> Result<PathBuf, PeerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = [
        "/usr/sbin",
        "/usr/local/sbin",
        "/sbin",
        "/usr/lib/openssh",
        "/usr/libexec",
    ];
    std::env::split_paths(&path)
        .chain(system.iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| is_program(file))
        .ok_or(PeerError::Missing { program })
}

fn is_program(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
}

fn said(output: &Output) -> String {
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_what_it_started() {
        // On a busy machine it may not have begun before it is ended.
        for millis in [300, 6_000, 60_000] {
            let command = sh("echo here; sleep 600 & wait");
            let error = run(command, Duration::from_millis(millis)).unwrap_err();
            // Returning at all shows that the sleep is gone: it held the pipe.
            let PeerError::TimedOut { said, .. } = error else {
                panic!("{error}")
            };
            if said == "here\n" {
                return;
            }
            assert_eq!(said, "");
        }
        panic!("it said nothing within a minute");
    }

    #[test]
    fn a_failure_is_told_with_what_was_said() {
        let error = run_well(sh("echo sorry >&2; exit 3"), Duration::from_mins(1)).unwrap_err();
        assert!(error.to_string().contains("sorry"), "{error}");
    }

    #[test]
    fn a_missing_program_is_called_by_its_name() {
        let error = find("no-such-program-anywhere").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`no-such-program-anywhere` is not installed")
        );
    }
}
