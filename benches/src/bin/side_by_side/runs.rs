//! The runs: which commands, in which order, and whether they did what they should.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ketch_benches::BenchError;
use ketch_benches::measure::{Cost, line, measure};
use ketch_benches::server_time::ServerTime;
use ketch_conformance::content::{Sha256, random_file};
use ketch_conformance::openssh::{OpenSshClient, OpenSshConfig, OpenSshServer, batch_word};
use serde::Serialize;

/// One program copied one file once.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    /// Number of the round, from 1.
    pub(crate) round: u32,
    /// Which program.
    pub(crate) tool: Tool,
    /// Which way.
    pub(crate) way: Way,
    /// What the client cost.
    #[serde(flatten)]
    pub(crate) client: Cost,
    /// Processor seconds of the server.
    pub(crate) server_cpu_s: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tool {
    Ketch,
    Sftp,
}

impl Tool {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ketch => "ketch",
            Self::Sftp => "sftp",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    Get,
    Put,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Get, Self::Put];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
        }
    }
}

/// The server, the file and the programs.
pub(crate) struct Bench {
    ketch: PathBuf,
    cipher: String,
    hash: Sha256,
    // Before the directory: a server that still writes must not outlive it.
    server: OpenSshServer,
    server_time: ServerTime,
    dir: tempfile::TempDir,
}

impl Bench {
    /// Starts sshd and writes the file.
    pub(crate) fn start(
        ketch: PathBuf,
        dir: &Path,
        size: u64,
        cipher: &str,
    ) -> Result<Self, BenchError> {
        let dir = tempfile::Builder::new()
            .prefix("ketch-bench-")
            .tempdir_in(dir)
            .map_err(BenchError::io(format!(
                "making a directory in {}",
                dir.display()
            )))?;
        let hash = random_file(&dir.path().join("source"), size)?;
        let server_time = ServerTime::new()?;
        let server = OpenSshServer::start(OpenSshConfig::default())?;
        Ok(Self {
            ketch,
            cipher: cipher.to_owned(),
            hash,
            server,
            server_time,
            dir,
        })
    }

    /// Both programs, both ways, one after the other; who comes first changes with every round.
    pub(crate) fn round(&mut self, round: u32) -> Result<Vec<Run>, BenchError> {
        let tools = match round % 2 {
            0 => [Tool::Sftp, Tool::Ketch],
            _ => [Tool::Ketch, Tool::Sftp],
        };
        let mut runs = Vec::new();
        for way in Way::ALL {
            for tool in tools {
                runs.push(self.run(round, tool, way)?);
            }
        }
        Ok(runs)
    }

    fn run(&mut self, round: u32, tool: Tool, way: Way) -> Result<Run, BenchError> {
        let (source, target) = (
            self.dir.path().join("source"),
            self.dir.path().join("target"),
        );
        let command = match tool {
            Tool::Ketch => self.ketch(way, &source, &target),
            Tool::Sftp => self.sftp(way, &source, &target)?,
        };
        let before = self.server_time.settled(&self.server);
        let client = measure(&command, self.dir.path())?;
        let server_cpu_s = self.server_time.settled(&self.server) - before;
        let got = Sha256::of_file(&target)?;
        if got != self.hash {
            let command = line(&command);
            return Err(BenchError::Corrupted {
                command,
                expected: self.hash,
                got,
            });
        }
        fs::remove_file(&target).map_err(BenchError::io("removing the copy"))?;
        Ok(Run {
            round,
            tool,
            way,
            client,
            server_cpu_s,
        })
    }

    fn ketch(&self, way: Way, source: &Path, target: &Path) -> Command {
        let remote = |path: &Path| {
            format!(
                "{}@{}:{}",
                self.server.user(),
                self.server.addr().ip(),
                path.display()
            )
        };
        let mut command = Command::new(&self.ketch);
        command
            .arg(way.name())
            .arg("-P")
            .arg(self.server.port().to_string());
        command
            .arg("-i")
            .arg(self.server.identity().private())
            .arg("-c")
            .arg(&self.cipher);
        match way {
            Way::Get => command.arg(remote(source)).arg(target),
            Way::Put => command.arg(source).arg(remote(target)),
        };
        // The host's key stands in the known_hosts of this home.
        command.env("HOME", self.server.client_home());
        command
    }

    fn sftp(&self, way: Way, source: &Path, target: &Path) -> Result<Command, BenchError> {
        let batch = self.dir.path().join("batch");
        let (source, target) = (batch_word(source)?, batch_word(target)?);
        fs::write(&batch, format!("{} {source} {target}\n", way.name()))
            .map_err(BenchError::io("writing a batch"))?;
        let client = OpenSshClient::to(&self.server).option(&format!("Ciphers={}", self.cipher));
        Ok(client.command(&batch)?)
    }
}
