//! The real `sftp` client, run with a batch of commands (sftp(1)).

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::OpenSshServer;
use crate::{PeerError, program};

/// Default for how long one batch may take.
const LIMIT: Duration = Duration::from_mins(5);

/// How `sftp` is to be called; each [`OpenSshClient::batch`] is one run of it.
#[derive(Clone, Debug)]
pub struct OpenSshClient {
    addr: SocketAddr,
    user: String,
    identity: Option<PathBuf>,
    password: Option<String>,
    known_hosts: Option<PathBuf>,
    options: Vec<String>,
    arguments: Vec<String>,
    limit: Duration,
}

impl OpenSshClient {
    /// For any SSH server: no key, no password, any host key accepted.
    #[must_use]
    pub fn new(addr: SocketAddr, user: &str) -> Self {
        Self {
            addr,
            user: user.to_owned(),
            identity: None,
            password: None,
            known_hosts: None,
            options: Vec::new(),
            arguments: Vec::new(),
            limit: LIMIT,
        }
    }

    /// For a real sshd: with its identity, and its host key known.
    #[must_use]
    pub fn to(server: &OpenSshServer) -> Self {
        Self::new(server.addr(), server.user())
            .identity(server.identity().private())
            .known_hosts(&server.known_hosts())
    }

    /// Logs in with the private key in this file (`-i`) and no other.
    #[must_use]
    pub fn identity(mut self, private: &Path) -> Self {
        self.identity = Some(private.to_owned());
        self
    }

    /// Answers the question for a password (or for the identity's passphrase) with this one.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Accepts only host keys in this file; without it, any.
    #[must_use]
    pub fn known_hosts(mut self, file: &Path) -> Self {
        self.known_hosts = Some(file.to_owned());
        self
    }

    /// One more `-o` option, as `RekeyLimit=16M` (ssh_config(5)).
    #[must_use]
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// One more argument for `sftp` itself, as `-R128` or `-p`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// How long a batch may take before it is ended. Default: 5 minutes.
    #[must_use]
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs `sftp` with these commands, one a line; it stops at the first that fails, unless that
    /// line starts with `-`.
    ///
    /// # Errors
    /// [`PeerError::Missing`] without `sftp`, [`PeerError::TimedOut`]. A failed command is no
    /// error here: see [`SftpRun::check`].
    pub fn batch(&self, commands: &str) -> Result<SftpRun, PeerError> {
        let dir = tempfile::tempdir().map_err(PeerError::io("making a directory for a batch"))?;
        let file = dir.path().join("batch");
        fs::write(&file, commands).map_err(PeerError::io("writing a batch"))?;
        let mut command = self.command(&file)?;
        if let Some(password) = &self.password {
            let ask = dir.path().join("askpass");
            let script = "#!/bin/sh\nprintf '%s\\n' \"$KETCH_TEST_PASSWORD\"\n";
            fs::write(&ask, script)
                .and_then(|()| fs::set_permissions(&ask, fs::Permissions::from_mode(0o700)))
                .map_err(PeerError::io("writing an askpass program"))?;
            command
                .env("SSH_ASKPASS", ask)
                .env("SSH_ASKPASS_REQUIRE", "force");
            command.env("KETCH_TEST_PASSWORD", password);
        }
        let output = program::run(command, self.limit)?;
        Ok(SftpRun {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The whole command line that [`Self::batch`] runs, for those who measure it themselves;
    /// `batch` is the file of commands. A password is not in it.
    ///
    /// # Errors
    /// [`PeerError::Missing`] without `sftp`.
    pub fn command(&self, batch: &Path) -> Result<Command, PeerError> {
        let mut command = Command::new(program::find("sftp")?);
        // ssh takes the first value of an option: what the caller says stands first, and the
        // batch mode that `-b` implies, which forbids questions, comes last.
        command.args(["-F", "none"]);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        let mut option = |value: &str| {
            command.arg("-o").arg(value);
        };
        match &self.known_hosts {
            Some(file) => {
                option(&format!("UserKnownHostsFile={}", file.display()));
                option("StrictHostKeyChecking=yes");
            }
            None => {
                option("UserKnownHostsFile=/dev/null");
                option("StrictHostKeyChecking=no");
            }
        }
        option("GlobalKnownHostsFile=/dev/null");
        option("IdentityAgent=none");
        option("IdentitiesOnly=yes");
        option("ConnectTimeout=20");
        option("NumberOfPasswordPrompts=1");
        if self.password.is_some() {
            option("BatchMode=no");
        }
        match &self.identity {
            Some(file) => {
                command.arg("-i").arg(file);
            }
            // Without this ssh tries the keys in the user's home.
            None => {
                command.arg("-o").arg("IdentityFile=none");
            }
        }
        command.args(&self.arguments);
        command.arg("-P").arg(self.addr.port().to_string());
        command.arg("-b").arg(batch);
        command.arg(format!("{}@{}", self.user, self.addr.ip()));
        command.env_remove("SSH_AUTH_SOCK").env_remove("DISPLAY");
        Ok(command)
    }
}

/// What one run of `sftp` did.
#[derive(Clone, Debug)]
pub struct SftpRun {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output: the commands echoed, and their answers.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl SftpRun {
    /// Takes any end but success for an error.
    ///
    /// # Errors
    /// [`PeerError::Failed`] with all that was said.
    pub fn check(self) -> Result<Self, PeerError> {
        if self.status.success() {
            return Ok(self);
        }
        Err(PeerError::Failed {
            program: "sftp".to_owned(),
            status: self.status.to_string(),
            said: format!("{}{}", self.stdout, self.stderr),
        })
    }
}

/// `path` as one word of a batch, whatever is in it.
///
/// # Errors
/// [`PeerError::Unquotable`] if it is not UTF-8 or has an end of line in it.
pub fn batch_word(path: &Path) -> Result<String, PeerError> {
    match path.to_str() {
        Some(text) if !text.contains(['\n', '\r', '\0']) => {
            // sftp expands globs after it took the quotes off: a backslash keeps them literal.
            let mut word = String::from("\"");
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    word.push('\\');
                }
                word.push(c);
            }
            word.push('"');
            Ok(word)
        }
        _ => Err(PeerError::Unquotable {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_batch_is_quoted() {
        assert_eq!(
            batch_word(Path::new("/a b/\"c\"")).unwrap(),
            r#""/a b/\"c\"""#
        );
        assert!(batch_word(Path::new("/a\nb")).is_err());
    }
}
