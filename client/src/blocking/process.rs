//! Programs on the server, for threads.

use std::sync::Arc;

use super::{Background, Done, Session, stream::Stream};
use crate::exec::{
    self, Exit, OpenError, Output, Program, Stderr, Stdin, Stdout, WaitError, WindowSize,
};

impl Session {
    /// Runs a command: the server's shell takes it apart. See [`crate::Session::exec`].
    ///
    /// # Errors
    /// [`OpenError`]; see [`BlockingError`](super::BlockingError).
    pub fn exec(&self, command: impl Into<Vec<u8>>) -> Done<Process, OpenError> {
        self.run(Program::exec(command))
    }

    /// Runs the user's shell. See [`crate::Session::shell`].
    ///
    /// # Errors
    /// [`OpenError`]; see [`BlockingError`](super::BlockingError).
    pub fn shell(&self) -> Done<Process, OpenError> {
        self.run(Program::shell())
    }

    /// Runs a program in an environment of its own, and on a terminal if it is to have one. See
    /// [`crate::Session::run`].
    ///
    /// # Errors
    /// [`OpenError`]; see [`BlockingError`](super::BlockingError).
    pub fn run(&self, program: Program) -> Done<Process, OpenError> {
        let mut process = self.background.wait(self.session.run(program))?;
        let background = &self.background;
        Ok(Process {
            stdin: piped(process.stdin.take(), background),
            stdout: piped(process.stdout.take(), background),
            stderr: piped(process.stderr.take(), background),
            process,
            background: Arc::clone(background),
        })
    }
}

fn piped<T>(stream: Option<T>, background: &Arc<Background>) -> Option<Stream<T>> {
    stream.map(|stream| Stream::new(stream, Arc::clone(background)))
}

/// A program on the server: [`crate::exec::Process`] for threads.
#[derive(Debug)]
pub struct Process {
    /// Its input; dropped, it ends.
    pub stdin: Option<Stream<Stdin>>,
    /// What it writes. It waits while nobody reads that.
    pub stdout: Option<Stream<Stdout>>,
    /// What it says beside that.
    pub stderr: Option<Stream<Stderr>>,
    process: exec::Process,
    background: Arc<Background>,
}

impl Process {
    /// Waits until it has ended, and says how.
    ///
    /// # Errors
    /// [`WaitError`]; see [`BlockingError`](super::BlockingError).
    pub fn wait(&mut self) -> Done<Exit, WaitError> {
        self.background.wait(self.process.wait())
    }

    /// Ends the program's input, and reads what it writes until it ends: the first `max` bytes of
    /// its output and as many of its stderr.
    ///
    /// # Errors
    /// [`WaitError`]; see [`BlockingError`](super::BlockingError).
    pub fn output(self, max: usize) -> Done<Output, WaitError> {
        let mut process = self.process;
        process.stdin = self.stdin.map(Stream::into_inner);
        process.stdout = self.stdout.map(Stream::into_inner);
        process.stderr = self.stderr.map(Stream::into_inner);
        self.background.wait(process.output(max))
    }

    /// Sends it a signal, by its name without `SIG`, such as `TERM`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Its terminal has another size.
    pub fn resize(&self, size: WindowSize) {
        self.process.resize(size);
    }
}
