//! A `ketch serve` of its own for each test, and a home directory for the client.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "correct horse";

/// A running server with its root, and everything a client needs to log in to it.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) server: Child,
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
}

impl Scene {
    /// Starts the server; its host key is not known to the client yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root", "home", "local"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        // The server reads none that others may read.
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let (server, address) = serve(&dir);
        Self {
            server,
            address,
            dir,
        }
    }

    /// As `new`, and the client knows the host key.
    pub(crate) fn trusted() -> Self {
        let scene = Self::new();
        let output = scene.ketch(&["ls", "--accept-new", &scene.remote("")]);
        assert!(output.status.success(), "{output:?}");
        scene
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn remote(&self, path: &str) -> String {
        format!("sftp://{USER}@{}/{path}", self.address)
    }

    /// A `ketch` command line, with the right password unless `args` say otherwise.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ketch"));
        command.args(args).arg("--batch");
        if !args.contains(&"-F") {
            command.args(["-F", "none"]); // the machine's configuration is no part of the scene
        }
        if !args.contains(&"--password-file") {
            command.arg("--password-file").arg(self.path("password"));
        }
        command
            .env("HOME", self.path("home"))
            .current_dir(self.path("local"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn ketch(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must fail: checks the exit code, that standard error is one sentence,
    /// and gives that sentence.
    pub(crate) fn fails(&self, args: &[&str], code: i32) -> String {
        failure(&self.ketch(args), code)
    }

    /// The names in the client's working directory, hidden ones included.
    pub(crate) fn local_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("local")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Checks how a command failed; returns what it said.
pub(crate) fn failure(output: &Output, code: i32) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    let sentence = said
        .strip_prefix("ketch: ")
        .expect(&said)
        .strip_suffix('\n')
        .expect(&said);
    assert!(!sentence.contains('\n'), "more than one line: {said}");
    assert!(
        !sentence.is_empty() && sentence.chars().all(|c| !c.is_control()),
        "{said:?}"
    );
    sentence.to_owned()
}

/// Starts `ketch serve` on a free port and waits until it says which.
pub(crate) fn serve(dir: &TempDir) -> (Child, SocketAddr) {
    let path = |name: &str| dir.path().join(name);
    let mut server = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["serve", "--listen", "127.0.0.1:0", "--user", USER])
        .arg("--root")
        .arg(path("root"))
        .arg("--password-file")
        .arg(path("password"))
        .arg("--host-key")
        .arg(path("host_key"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let address = listening(&mut server);
    (server, address)
}

/// Where a server listens: the first thing it says.
pub(crate) fn listening(server: &mut Child) -> SocketAddr {
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let first = lines
        .next()
        .expect("the server says where it listens")
        .unwrap();
    // It says more, and must not find the pipe closed.
    std::thread::spawn(move || lines.for_each(drop));
    first
        .strip_prefix("listening on ")
        .expect(&first)
        .parse()
        .unwrap()
}
