//! The programs that are measured: which are at hand, and how each is told to do a piece of work.
//!
//! ketch runs as it comes, with its defaults. The others are told to do as much at a time as they
//! can where their defaults do less; `sftp` is there twice, as it comes and tuned. What is built
//! or installed by `scripts/setup-peers` is found in `target/`.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ketch_conformance::openssh::{OpenSshClient, OpenSshServer, batch_word};
use serde::Serialize;

use crate::BenchError;

/// A program, in one way of calling it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// Ours.
    Ketch,
    /// OpenSSH's `sftp`: what all others are compared with.
    Sftp,
    /// `sftp -B 261120 -R 128`.
    Tuned,
    /// lftp over `ssh`.
    Lftp,
    /// rclone.
    Rclone,
    /// PuTTY's.
    Psftp,
    /// asyncssh (Python), by hand.
    Asyncssh,
    /// russh with russh-sftp, by hand.
    Russh,
    /// libssh2, by hand.
    Libssh2,
    /// The crate openssh-sftp-client over `ssh`, by hand.
    #[value(name = "openssh-crate")]
    #[serde(rename = "openssh-crate")]
    OpensshCrate,
}

/// A kind of work.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// One file comes here.
    Get,
    /// One file goes there.
    Put,
    /// A directory of files comes here.
    GetMany,
    /// A directory of files goes there.
    PutMany,
    /// A directory is listed with sizes and times.
    List,
    /// One file is looked at.
    Stat,
}

/// One piece of work.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// What kind it is.
    pub work: Work,
    /// The file or directory that is read, listed or looked at.
    pub source: &'a Path,
    /// What is to be made.
    pub target: &'a Path,
    /// Whether the content has to be on the disk in the end.
    pub durable: bool,
    /// Whether the source is a hole, all of which is to go over the wire.
    pub is_hole: bool,
    /// Whether a round trip takes its time: those that need many connections for that take them.
    pub far: bool,
}

impl Tool {
    /// All of them, ours first.
    pub const ALL: [Self; 10] = [
        Self::Ketch,
        Self::Sftp,
        Self::Tuned,
        Self::Lftp,
        Self::Rclone,
        Self::Psftp,
        Self::Asyncssh,
        Self::Russh,
        Self::Libssh2,
        Self::OpensshCrate,
    ];

    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ketch => "ketch",
            Self::Sftp => "sftp",
            Self::Tuned => "tuned",
            Self::Lftp => "lftp",
            Self::Rclone => "rclone",
            Self::Psftp => "psftp",
            Self::Asyncssh => "asyncssh",
            Self::Russh => "russh",
            Self::Libssh2 => "libssh2",
            Self::OpensshCrate => "openssh-crate",
        }
    }

    /// Whether it copies small files one after another, so that the time of a thousand follows
    /// from that of a hundred.
    #[must_use]
    pub const fn is_file_after_file(self) -> bool {
        matches!(self, Self::Sftp | Self::Tuned | Self::Psftp | Self::Libssh2)
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    ketch: PathBuf,
    /// Flags of the built `ketch` that make a transfer durable.
    durable_flags: Option<[&'static str; 2]>,
    peers: PathBuf,
}

impl Programs {
    /// With that `ketch`, and the peers under that `target` directory.
    ///
    /// # Errors
    /// [`BenchError::NotBuilt`] without `ketch`.
    pub fn find(ketch: PathBuf, peers: &Path) -> Result<Self, BenchError> {
        if !ketch.is_file() {
            return Err(BenchError::NotBuilt { path: ketch });
        }
        let help = Command::new(&ketch)
            .args(["get", "--help"])
            .output()
            .map_err(BenchError::io("asking ketch for its flags"))?;
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        Ok(Self {
            ketch,
            durable_flags: help
                .contains("--durability")
                .then_some(["--durability", "file"]),
            peers: peers.to_owned(),
        })
    }

    /// The file that runs as `tool`, or why there is none.
    ///
    /// # Errors
    /// One clause.
    pub fn path(&self, tool: Tool) -> Result<PathBuf, String> {
        let built = |name: &str| {
            let path = self.peers.join(name);
            match path.is_file() {
                true => Ok(path),
                false => Err(format!("{} is not there", path.display())),
            }
        };
        match tool {
            Tool::Ketch => Ok(self.ketch.clone()),
            Tool::Sftp | Tool::Tuned => in_path("sftp"),
            Tool::Lftp => in_path("lftp"),
            Tool::Rclone => in_path("rclone"),
            Tool::Psftp => in_path("puttygen").and_then(|_| in_path("psftp")),
            Tool::Asyncssh => built("peers/python/bin/python"),
            Tool::Russh => built("interop/debug/peer-russh"),
            Tool::Libssh2 => built("interop/debug/peer-libssh2"),
            Tool::OpensshCrate => built("interop/debug/peer-openssh-sftp-client"),
        }
    }
}

/// The whole path of a program in `PATH`.
pub(crate) fn in_path(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed"))
}

/// A server as clients see it: address, user, keys, and a home for what they keep.
#[derive(Debug)]
pub struct Account {
    user: String,
    identity: PathBuf,
    /// The same key as PuTTY reads it, where there is a `puttygen`.
    ppk: Option<PathBuf>,
    fingerprint: String,
    host_key: String,
    home: PathBuf,
    cipher: Option<String>,
}

impl Account {
    /// The account on `server`; `dir` gets the files of the clients.
    ///
    /// # Errors
    /// [`BenchError::Io`], [`BenchError::Failed`] if a key cannot be turned into PuTTY's form.
    pub fn new(server: &OpenSshServer, dir: &Path) -> Result<Self, BenchError> {
        let home = dir.join("home");
        fs::create_dir_all(home.join(".ssh")).map_err(BenchError::io("making a home"))?;
        let identity = server.identity().private().to_owned();
        let ppk = match in_path("puttygen") {
            Ok(puttygen) => {
                let ppk = dir.join("identity.ppk");
                let mut convert = Command::new(puttygen);
                convert.arg(&identity).arg("-O").arg("private").arg("-o");
                run(convert.arg(&ppk))?;
                Some(ppk)
            }
            Err(_) => None,
        };
        let mut ask = Command::new("ssh-keygen");
        ask.args(["-l", "-E", "sha256", "-f"]);
        let told = run(ask.arg(server.host_key().private()))?;
        let fingerprint = told.split(' ').nth(1).unwrap_or_default().to_owned();
        Ok(Self {
            user: server.user().to_owned(),
            identity,
            ppk,
            fingerprint,
            host_key: server.host_key().public_key().to_owned(),
            home,
            cipher: None,
        })
    }

    /// Has `ketch` and `sftp` offer that cipher alone, for servers that cannot be told.
    #[must_use]
    pub fn offering(mut self, cipher: impl Into<String>) -> Self {
        self.cipher = Some(cipher.into());
        self
    }

    /// Makes the server known under one more address.
    ///
    /// # Errors
    /// [`BenchError::Io`].
    pub fn know(&self, addr: SocketAddr) -> Result<(), BenchError> {
        use std::io::Write as _;
        let line = match addr.port() {
            22 => format!("{} {}\n", addr.ip(), self.host_key),
            port => format!("[{}]:{port} {}\n", addr.ip(), self.host_key),
        };
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.known_hosts())
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(BenchError::io("writing known_hosts"))
    }

    fn known_hosts(&self) -> PathBuf {
        self.home.join(".ssh/known_hosts")
    }
}

/// The command that lets `tool` do `job` at `addr`; `None` if it has no way to. Batches are
/// written to `dir`.
///
/// # Errors
/// [`BenchError::Argument`] if the program is not at hand, [`BenchError::Io`].
pub fn command(
    tool: Tool,
    programs: &Programs,
    account: &Account,
    addr: SocketAddr,
    job: &Job<'_>,
    dir: &Path,
) -> Result<Option<Command>, BenchError> {
    let path = programs.path(tool).map_err(BenchError::Argument)?;
    let calling = Calling {
        path,
        account,
        addr,
        job,
        dir,
    };
    let mut command = match tool {
        Tool::Ketch => match (job.durable, programs.durable_flags) {
            (true, None) => return Ok(None),
            (true, Some(flags)) => calling.ketch(&flags),
            (false, _) if job.is_hole && job.work == Work::Put => {
                calling.ketch(&["--sparse", "never"])
            }
            (false, _) => calling.ketch(&[]),
        },
        Tool::Sftp => calling.sftp(&[])?,
        _ if job.durable => return Ok(None),
        Tool::Tuned => calling.sftp(&["-B261120", "-R128"])?,
        Tool::Lftp => calling.lftp(),
        Tool::Rclone => calling.rclone(),
        Tool::Psftp => calling.psftp()?,
        Tool::Asyncssh => {
            let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let mut command = Command::new(&calling.path);
            command.arg(project.join("interop/peers/python/bench_asyncssh.py"));
            calling.by_hand(command)
        }
        Tool::Russh | Tool::Libssh2 | Tool::OpensshCrate => {
            calling.by_hand(Command::new(&calling.path))
        }
    };
    // What clients know and remember is here, whoever runs them.
    command
        .env("HOME", &account.home)
        .env("LC_ALL", "C")
        .env_remove("SSH_AUTH_SOCK")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_STATE_HOME");
    Ok(Some(command))
}

struct Calling<'a> {
    path: PathBuf,
    account: &'a Account,
    addr: SocketAddr,
    job: &'a Job<'a>,
    dir: &'a Path,
}

impl Calling<'_> {
    fn ketch(&self, flags: &[&str]) -> Command {
        let Job { work, .. } = *self.job;
        let remote = |path: &Path| {
            let (user, ip) = (&self.account.user, self.addr.ip());
            format!("{user}@{ip}:{}", path.display())
        };
        let (source, target) = (self.job.source, self.job.target);
        let mut command = Command::new(&self.path);
        command.arg(match work {
            Work::Get | Work::GetMany => "get",
            Work::Put | Work::PutMany => "put",
            Work::List | Work::Stat => "ls",
        });
        command.arg("-P").arg(self.addr.port().to_string());
        command.arg("-i").arg(&self.account.identity).args(flags);
        if let Some(cipher) = &self.account.cipher {
            command.arg("--cipher").arg(cipher);
        }
        match work {
            Work::Get => command.arg(remote(source)).arg(target),
            Work::Put => command.arg(source).arg(remote(target)),
            Work::GetMany => command.arg("-r").arg(remote(source)).arg(target),
            Work::PutMany => command.arg("-r").arg(source).arg(remote(target)),
            Work::List | Work::Stat => command.arg("-l").arg(remote(source)),
        };
        command
    }

    fn sftp(&self, arguments: &[&str]) -> Result<Command, BenchError> {
        let (source, target) = (batch_word(self.job.source)?, batch_word(self.job.target)?);
        let durable = if self.job.durable { " -f" } else { "" };
        let line = match self.job.work {
            Work::Get => format!("get{durable} {source} {target}"),
            Work::Put => format!("put{durable} {source} {target}"),
            Work::GetMany => format!("get -r {source} {target}"),
            Work::PutMany => format!("put -r {source} {target}"),
            Work::List => format!("ls -lnf {source}"),
            Work::Stat => format!("ls -ln {source}"),
        };
        let batch = self.batch(&line)?;
        let mut client = OpenSshClient::new(self.addr, &self.account.user)
            .identity(&self.account.identity)
            .known_hosts(&self.account.known_hosts());
        for argument in arguments {
            client = client.argument(argument);
        }
        if let Some(cipher) = &self.account.cipher {
            client = client.argument(&format!("-oCiphers={cipher}"));
        }
        Ok(client.command(&batch)?)
    }

    fn psftp(&self) -> Result<Command, BenchError> {
        let (source, target) = (self.job.source.display(), self.job.target.display());
        let batch = self.batch(&match self.job.work {
            Work::Get => format!("get {source} {target}"),
            Work::Put => format!("put {source} {target}"),
            Work::GetMany => format!("get -r {source} {target}"),
            Work::PutMany => format!("put -r {source} {target}"),
            Work::List => format!("ls {source}"),
            // It lists directories alone, but chooses names.
            Work::Stat => format!("ls {source}*"),
        })?;
        let mut command = Command::new(&self.path);
        command.args(["-batch", "-hostkey", &self.account.fingerprint, "-P"]);
        command.arg(self.addr.port().to_string()).arg("-i");
        command.arg(self.account.ppk.as_deref().unwrap_or(Path::new("")));
        command.arg("-b").arg(batch);
        command.arg(format!("{}@{}", self.account.user, self.addr.ip()));
        Ok(command)
    }

    fn lftp(&self) -> Command {
        let (source, target) = (self.job.source.display(), self.job.target.display());
        let parallel = if self.job.far { 28 } else { 4 };
        let work = match self.job.work {
            Work::Get => format!("get {source} -o {target}"),
            Work::Put => format!("put {source} -o {target}"),
            Work::GetMany => format!("mirror --no-perms --parallel={parallel} {source} {target}"),
            Work::PutMany => {
                format!("mirror -R --no-perms --parallel={parallel} {source} {target}")
            }
            Work::List | Work::Stat => format!("cls -l {source}"),
        };
        let Account { user, identity, .. } = self.account;
        let (ip, port) = (self.addr.ip(), self.addr.port());
        let connect = format!(
            "ssh -a -x -F none -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={}",
            identity.display(),
            self.account.known_hosts().display()
        );
        let mut command = Command::new(&self.path);
        command.arg("--norc").arg("-c").arg(format!(
            "set cmd:fail-exit yes; set net:max-retries 1; set sftp:connect-program '{connect}'; \
             open -u {user}, -p {port} sftp://{ip}; {work}"
        ));
        command
    }

    fn rclone(&self) -> Command {
        let remote = |path: &Path| format!(":sftp:{}", path.display());
        let (source, target) = (self.job.source, self.job.target);
        let mut command = Command::new(&self.path);
        command.args(["--config", "", "--transfers", "32", "--checkers", "16"]);
        command
            .arg("--sftp-host")
            .arg(self.addr.ip().to_string())
            .arg("--sftp-port")
            .arg(self.addr.port().to_string())
            .args(["--sftp-user", &self.account.user, "--sftp-key-file"])
            .arg(&self.account.identity)
            .arg("--sftp-known-hosts-file")
            .arg(self.account.known_hosts())
            .args(["--sftp-shell-type", "none", "--sftp-chunk-size", "255k"]);
        match self.job.work {
            Work::Get => command.arg("copyto").arg(remote(source)).arg(target),
            Work::Put => command.arg("copyto").arg(source).arg(remote(target)),
            Work::GetMany => command.arg("copy").arg(remote(source)).arg(target),
            Work::PutMany => command.arg("copy").arg(source).arg(remote(target)),
            Work::List => command.arg("lsl").arg(remote(source)),
            Work::Stat => command.args(["lsjson", "--stat"]).arg(remote(source)),
        };
        command
    }

    fn by_hand(&self, mut command: Command) -> Command {
        command.arg(match self.job.work {
            Work::Get => "get",
            Work::Put => "put",
            Work::GetMany => "get-many",
            Work::PutMany => "put-many",
            Work::List => "ls",
            Work::Stat => "stat",
        });
        command.arg(self.addr.ip().to_string());
        command.arg(self.addr.port().to_string());
        command
            .arg(&self.account.user)
            .arg(&self.account.identity)
            .arg(self.job.source)
            .arg(self.job.target);
        command
    }

    fn batch(&self, lines: &str) -> Result<PathBuf, BenchError> {
        let batch = self.dir.join("batch");
        fs::write(&batch, format!("{lines}\n")).map_err(BenchError::io("writing a batch"))?;
        Ok(batch)
    }
}

/// Runs a command of the set-up and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, BenchError> {
    let line = crate::measure::line(command);
    let output = command.output().map_err(BenchError::io(line.clone()))?;
    if !output.status.success() {
        return Err(BenchError::Failed {
            command: line,
            status: output.status.to_string(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
