//! A `ketch serve` that runs as long as it is held, with the keys of an sshd: the same account
//! reaches both.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ketch_conformance::openssh::OpenSshServer;
use ketch_conformance::process::Process;

use crate::BenchError;

/// The `ketch` that is measured: the one that was `named`, or the one beside the running program.
///
/// # Errors
/// [`BenchError::Io`] if the system does not say where this program is.
pub fn program(named: Option<&Path>) -> Result<PathBuf, BenchError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    Ok(own.with_file_name("ketch"))
}

/// A running server; it is killed when it is let go.
#[derive(Debug)]
pub struct KetchServer {
    child: Child,
    addr: SocketAddr,
}

impl KetchServer {
    /// Starts `program` on a free port of this machine. It serves the whole file system, so that
    /// paths are those that `beside` has.
    ///
    /// # Errors
    /// [`BenchError::Io`], [`BenchError::Failed`] if it does not say where it listens.
    pub fn start(program: &Path, beside: &OpenSshServer, dir: &Path) -> Result<Self, BenchError> {
        let keys = dir.join("keys-of-ketch-serve");
        std::fs::write(&keys, beside.identity().public_line())
            .map_err(BenchError::io("writing the users' keys"))?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--root", "/", "--user"])
            .arg(beside.user())
            .arg("--authorized-keys")
            .arg(keys)
            .arg("--host-key")
            .arg(beside.host_key().private())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let line = crate::measure::line(&command);
        let mut child = command.spawn().map_err(BenchError::io(line.clone()))?;
        let mut said = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out)
                .read_line(&mut said)
                .map_err(BenchError::io(line.clone()))?;
        }
        let addr = said
            .trim()
            .strip_prefix("listening on ")
            .and_then(|addr| addr.parse().ok());
        // From here on it is killed by being dropped.
        let mut server = Self {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        server.addr = addr.ok_or(BenchError::Failed {
            command: line,
            status: "it does not listen".to_owned(),
            said,
        })?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> Process {
        Process::from_id(self.child.id())
    }
}

impl Drop for KetchServer {
    fn drop(&mut self) {
        // It has ended before, or is killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_was_named_is_taken_or_the_one_beside_this() {
        let named = Path::new("/else/where/ketch-of-old");
        assert_eq!(program(Some(named)).unwrap(), named);
        let own = std::env::current_exe().unwrap();
        let beside = program(None).unwrap();
        assert_eq!(
            (beside.parent(), beside.ends_with("ketch")),
            (own.parent(), true)
        );
    }
}
