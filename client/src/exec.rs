//! Programs on the server: commands, shells, and what they read, write and say (RFC 4254 §6.5).
//!
//! ```no_run
//! # async fn example(session: ketch_client::Session) -> Result<(), Box<dyn std::error::Error>> {
//! use ketch_client::exec::{Exit, Program};
//! use tokio::io::AsyncWriteExt;
//!
//! // The server's shell takes the command apart: quote what is not yours.
//! let output = session.exec("wc -l < /etc/passwd").await?.output(1 << 20).await?;
//! assert_eq!(output.exit, Exit::Status(0));
//!
//! let mut sort = session.run(Program::exec("sort").env("LC_ALL", "C")).await?;
//! let mut stdin = sort.stdin.take().ok_or("it was taken")?;
//! stdin.write_all(b"b\na\n").await?;
//! drop(stdin); // the end of its input
//! assert_eq!(sort.output(1 << 20).await?.stdout, b"a\nb\n");
//! # Ok(())
//! # }
//! ```
//!
//! Programs, SFTP sessions and carried connections live side by side on one connection; servers bound
//! how many (OpenSSH's `MaxSessions`, 10 by default).

use tokio::time::timeout;

use crate::Session;
use crate::error::{Failure, Kind, Outcome};
use crate::session::STREAM_WINDOW;

pub use ketch_transport::driver::{
    OpenError, Output, Process, STDERR_UNREAD_MAX, Stderr, Stdin, Stdout, WaitError, process,
};
pub use ketch_transport::event::Exit;
pub use ketch_transport::session::{Pty, SessionStart as Program, TerminalMode, WindowSize};

impl Session {
    /// Runs a command: the server's shell takes it apart. Its bytes are sent as they are, so that
    /// what comes from others has to be quoted for that shell.
    ///
    /// # Errors
    /// [`OpenError`]: the server refused, gave no answer within
    /// [`Timeouts::stall`](crate::Timeouts::stall), or the connection is gone.
    pub async fn exec(&self, command: impl Into<Vec<u8>>) -> Result<Process, OpenError> {
        self.run(Program::exec(command)).await
    }

    /// Runs the user's shell. Without a terminal it reads commands from its input, one a line; with
    /// one, it talks to people: see [`Session::run`].
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub async fn shell(&self) -> Result<Process, OpenError> {
        self.run(Program::shell()).await
    }

    /// Runs a program in an environment of its own, and on a terminal if it is to have one.
    ///
    /// On a terminal the program's output and stderr come as one, and lines end as the terminal has
    /// them.
    ///
    /// ```no_run
    /// # async fn example(session: ketch_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use ketch_client::exec::{Program, Pty};
    ///
    /// let top = Program::exec("top").pty(Pty::new("xterm-256color", 80, 24));
    /// let process = session.run(top).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Session::exec`].
    pub async fn run(&self, program: Program) -> Result<Process, OpenError> {
        let (process, application) = process();
        let opening = self
            .connection()
            .open_session(program, STREAM_WINDOW, application);
        match timeout(self.timeouts().stall, opening).await {
            Ok(opened) => opened.map(|_| process),
            Err(_) => Err(OpenError::TimedOut),
        }
    }
}

impl Failure for WaitError {
    fn kind(&self) -> Kind {
        match self {
            Self::Lost(why) => why.kind(),
            _ => Kind::Peer,
        }
    }

    /// What the program did is not known.
    fn outcome(&self) -> Outcome {
        Outcome::Unknown
    }
}
