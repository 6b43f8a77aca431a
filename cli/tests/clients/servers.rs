//! The three servers, each with a directory of its own and the same key.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer, SftpProgram};

/// Which server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// `ketch serve`.
    Serve,
    /// sshd with OpenSSH's sftp-server: what the others are compared with.
    OpenSsh,
    /// sshd with `ketch-sftp-server`.
    DropIn,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Serve, Self::OpenSsh, Self::DropIn];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Serve => "ketch serve",
            Self::OpenSsh => "OpenSSH",
            Self::DropIn => "ketch-sftp-server",
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    pub(crate) user: String,
    /// Private key to log in with.
    pub(crate) key: PathBuf,
    // The sshd is there for its keys alone where `ketch serve` is the server.
    sshd: OpenSshServer,
    serving: Option<Child>,
    dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(kind: Kind) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ketch-files-")
            .tempdir()
            .unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let sftp = match kind {
            Kind::DropIn => SftpProgram::At(PathBuf::from(env!("CARGO_BIN_EXE_ketch-sftp-server"))),
            _ => SftpProgram::External,
        };
        let sshd = OpenSshServer::start(OpenSshConfig {
            sftp,
            start_directory: Some(root),
            ..OpenSshConfig::default()
        })
        .unwrap();
        let mut server = Self {
            kind,
            port: sshd.port(),
            user: sshd.user().to_owned(),
            key: sshd.identity().private().to_owned(),
            sshd,
            serving: None,
            dir,
        };
        if kind == Kind::Serve {
            server.serve();
        }
        server.prepare();
        server
    }

    /// The directory that clients start in.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// What clients see of it: where paths on this server begin.
    pub(crate) fn prefix(&self) -> String {
        match self.kind {
            Kind::Serve => String::new(),
            _ => self.root().display().to_string(),
        }
    }

    /// A file to be some program's, that is gone with the server.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn serve(&mut self) {
        let file = self.scratch("server.toml");
        // Links are off by default; here they are what OpenSSH's server has.
        let text = format!(
            "listen = [\"127.0.0.1:0\"]
[[host_key]]
file = \"host_key\"
[organisation.all.endpoint.files]
root = \"root\"
[organisation.all.endpoint.files.user.{}]
authorized_keys = [\"{}\"]
symbolic_links = true
hard_links = true
",
            self.user,
            self.sshd.identity().public_line().trim_end()
        );
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut serving = Command::new(env!("CARGO_BIN_EXE_ketch"))
            .args(["serve", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(serving.stdout.take().unwrap());
        self.port = loop {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it does not listen");
            let port = line.split("127.0.0.1:").nth(1).unwrap_or_default();
            let port: String = port.chars().take_while(char::is_ascii_digit).collect();
            if let Ok(port) = port.parse() {
                break port;
            }
        };
        self.serving = Some(serving);
    }

    /// What is there before a client comes: a directory in which nobody may make anything.
    fn prepare(&self) {
        let locked = self.root().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("kept"), "kept").unwrap();
        assert!(lock(&locked, "+i"), "chattr +i {}", locked.display());
    }
}

/// Permissions do not keep root out, and tests may well be run by root; an immutable directory does.
fn lock(path: &Path, how: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        let mut chattr = Command::new("chattr");
        return chattr
            .arg(how)
            .arg(path)
            .status()
            .is_ok_and(|it| it.success());
    }
    let mode = if how == "+i" { 0o555 } else { 0o755 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).is_ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.root().join("locked"), "-i");
        if let Some(serving) = &mut self.serving {
            let _ = serving.kill();
            let _ = serving.wait();
        }
    }
}
