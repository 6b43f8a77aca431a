//! A program that speaks SFTP on its standard input and output.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::Process;
use crate::{PeerError, program};

/// How long the program may say nothing while something is expected from it.
const READ_LIMIT: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

/// A running program and its pipes; ended when dropped. A read fails after 20 s of silence.
#[derive(Debug)]
pub struct Pipe {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Pipe {
    /// OpenSSH's `sftp-server`, as the user who calls.
    ///
    /// # Errors
    /// [`PeerError::Missing`] if it is not installed.
    pub fn sftp_server() -> Result<Self, PeerError> {
        Self::start(&mut Command::new(program::find("sftp-server")?))
    }

    /// Any program.
    ///
    /// # Errors
    /// [`PeerError::Io`] if it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self, PeerError> {
        let starting = format!("starting {}", command.get_program().display());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(PeerError::io(starting))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Self {
                child,
                stdin,
                stdout,
            }),
            _ => unreachable!("both were asked for"),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut ready = [PollFd::new(&self.stdout, PollFlags::IN)];
        if poll(&mut ready, Some(&READ_LIMIT))? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the program says nothing",
            ));
        }
        self.stdout.read(buf)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stdin.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdin.flush()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            Process::from_id(self.child.id()).kill_tree();
            // It was sent the one signal that cannot be caught.
            let _ = self.child.wait();
        }
    }
}
