//! A real `sshd`, started by a test and gone with it (sshd(8), sshd_config(5)).

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::KeyPair;
use crate::process::Process;
use crate::{PeerError, program};

/// How often a start is tried again because somebody took the port in between.
const STARTS_MAX: u32 = 5;
/// How long sshd may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What a server is to be like; the default is a plain one.
#[derive(Clone, Debug)]
pub struct OpenSshConfig {
    /// `Ciphers`: what the server offers, comma-separated. Default: what OpenSSH offers.
    pub ciphers: Option<String>,
    /// `RekeyLimit`, as `16M`: the server asks for new keys after that much. Default: OpenSSH's.
    pub rekey_limit: Option<String>,
    /// `MaxSessions`: session channels of one connection. Default: 10, as OpenSSH's.
    pub max_sessions: u32,
    /// Whether `PasswordAuthentication` is offered. Default: false.
    pub password_authentication: bool,
    /// What serves SFTP. Default: [`SftpProgram::Internal`].
    pub sftp: SftpProgram,
    /// Directory in which SFTP sessions start. Default: the user's home.
    pub start_directory: Option<PathBuf>,
    /// `LogLevel`; `INFO` at least, because the start is read from the log. Default: `INFO`.
    pub log_level: String,
    /// More lines for the configuration file, put first: sshd takes the first value it sees.
    pub lines: Vec<String>,
}

impl Default for OpenSshConfig {
    fn default() -> Self {
        Self {
            ciphers: None,
            rekey_limit: None,
            max_sessions: 10,
            password_authentication: false,
            sftp: SftpProgram::Internal,
            start_directory: None,
            log_level: "INFO".to_owned(),
            lines: Vec::new(),
        }
    }
}

/// Which program answers the `sftp` subsystem.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum SftpProgram {
    /// Code inside sshd, in a process of its own.
    #[default]
    Internal,
    /// The `sftp-server` program.
    External,
    /// Another program with the same options.
    At(PathBuf),
}

/// A running `sshd` on a free port of 127.0.0.1; ended with all its connections when dropped.
///
/// Started by root it lets root in, started by somebody else that user, with the key
/// [`OpenSshServer::identity`].
#[derive(Debug)]
pub struct OpenSshServer {
    child: Child,
    addr: SocketAddr,
    user: String,
    host_key: KeyPair,
    identity: KeyPair,
    dir: tempfile::TempDir,
}

impl OpenSshServer {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// [`PeerError::Missing`] if OpenSSH is not installed, [`PeerError::Failed`] with its log if
    /// sshd does not come up.
    pub fn start(config: OpenSshConfig) -> Result<Self, PeerError> {
        let sshd = program::find("sshd")?;
        make_privilege_separation_directory()?;
        let dir = tempfile::Builder::new()
            .prefix("ketch-sshd-")
            .tempdir()
            .map_err(PeerError::io("making a directory for sshd"))?;
        let host_key = KeyPair::generate(&dir.path().join("host_key"), None)?;
        let identity = KeyPair::generate(&dir.path().join("identity"), None)?;
        write(
            &dir.path().join("authorized_keys"),
            &format!("{}\n", identity.public_line()),
        )?;
        let user = login_name()?;

        let mut tries = 0;
        let (child, addr) = loop {
            tries += 1;
            match start_once(&sshd, &config, dir.path()) {
                Err(PeerError::Failed { said, .. })
                    if tries < STARTS_MAX && said.contains("Address already in use") => {}
                Err(error) => return Err(error),
                Ok(started) => break started,
            }
        };
        let server = Self {
            child,
            addr,
            user,
            host_key,
            identity,
            dir,
        };
        server.write_client_home()?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The user that may log in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The key with which that user may log in, without a passphrase.
    #[must_use]
    pub const fn identity(&self) -> &KeyPair {
        &self.identity
    }

    /// The server's host key.
    #[must_use]
    pub const fn host_key(&self) -> &KeyPair {
        &self.host_key
    }

    /// This server's line for a `known_hosts` file, without the end of line.
    #[must_use]
    pub fn known_hosts_line(&self) -> String {
        format!(
            "[{}]:{} {}",
            self.addr.ip(),
            self.port(),
            self.host_key.public_key()
        )
    }

    /// A `known_hosts` file that holds this server's key and no other.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.client_home().join(".ssh/known_hosts")
    }

    /// A directory to be some client's `HOME`: its `.ssh/known_hosts` is [`Self::known_hosts`].
    #[must_use]
    pub fn client_home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Lets one more key log in.
    ///
    /// # Errors
    /// [`PeerError::Io`] if it cannot be written down.
    pub fn authorize(&self, key: &KeyPair) -> Result<(), PeerError> {
        let path = self.dir.path().join("authorized_keys");
        let append = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().append(true).open(&path)?;
            writeln!(file, "{}", key.public_line())
        };
        append().map_err(PeerError::io(format!("appending to {}", path.display())))
    }

    /// What sshd has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(self.dir.path())
    }

    /// sshd itself, the parent of the processes of all its connections.
    ///
    /// Its processor time includes that of connections that have ended in good order.
    #[must_use]
    pub fn process(&self) -> Process {
        Process::from_id(self.child.id())
    }

    /// Whether nothing is left of its connections: no process that it started, and none of `served`,
    /// which were its own and may have lost their parents when their clients were killed.
    #[must_use]
    pub fn is_idle(&self, served: &[Process]) -> bool {
        self.process().descendants().is_empty() && served.iter().all(|each| each.has_ended())
    }

    /// Ends all connections at once, as a crash would; new ones are still accepted.
    pub fn kill_connections(&self) {
        self.process().kill_descendants();
    }

    /// Stops what serves SFTP: the connections live and answer keepalives, but no request.
    pub fn suspend_sftp(&self) {
        self.process()
            .leaves()
            .into_iter()
            .for_each(Process::suspend);
    }

    /// Ends what serves SFTP at once: the connections live, and their channels end.
    pub fn kill_sftp(&self) {
        self.process().leaves().into_iter().for_each(Process::kill);
    }

    /// Lets what serves SFTP go on.
    pub fn resume_sftp(&self) {
        self.process()
            .leaves()
            .into_iter()
            .for_each(Process::resume);
    }

    /// Ends the server and all its connections at once; the port refuses connections afterwards.
    pub fn kill(&mut self) {
        self.process().kill_tree();
        // It was sent the one signal that cannot be caught.
        let _ = self.child.wait();
    }

    fn write_client_home(&self) -> Result<(), PeerError> {
        let ssh = self.client_home().join(".ssh");
        let making = PeerError::io(format!("making {}", ssh.display()));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&ssh)
            .map_err(making)?;
        write(
            &ssh.join("known_hosts"),
            &format!("{}\n", self.known_hosts_line()),
        )
    }
}

impl Drop for OpenSshServer {
    fn drop(&mut self) {
        // After `kill` the number may be another process's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// Starts sshd on a port that was free a moment ago and waits until it listens.
fn start_once(
    sshd: &Path,
    config: &OpenSshConfig,
    dir: &Path,
) -> Result<(Child, SocketAddr), PeerError> {
    let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(PeerError::io("looking for a free port"))?;
    let file = dir.join("sshd_config");
    write(&file, &configuration(config, addr, dir)?)?;
    let log = File::create(dir.join("log")).map_err(PeerError::io("making sshd's log"))?;
    let mut child = Command::new(sshd) // by its whole path: it starts itself again
        .args(["-D", "-e", "-f"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(PeerError::io("starting sshd"))?;
    let mut waited = Duration::ZERO;
    while !read_log(dir).contains("Server listening on") {
        let ended = child
            .try_wait()
            .map_err(PeerError::io("waiting for sshd"))?;
        if ended.is_some() || waited > START_LIMIT {
            Process::from_id(child.id()).kill_tree();
            let _ = child.wait();
            return Err(PeerError::Failed {
                program: sshd.display().to_string(),
                status: ended.map_or_else(|| "it does not listen".to_owned(), |s| s.to_string()),
                said: read_log(dir),
            });
        }
        std::thread::sleep(POLL_INTERVAL);
        waited += POLL_INTERVAL;
    }
    Ok((child, addr))
}

/// The text of `sshd_config`. sshd takes the first value that it reads for a keyword.
fn configuration(
    config: &OpenSshConfig,
    addr: SocketAddr,
    dir: &Path,
) -> Result<String, PeerError> {
    let OpenSshConfig {
        ciphers,
        rekey_limit,
        max_sessions,
        password_authentication,
        sftp,
        start_directory,
        log_level,
        lines,
    } = config;
    let yes_no = if *password_authentication {
        "yes"
    } else {
        "no"
    };
    let mut subsystem = match sftp {
        SftpProgram::Internal => "internal-sftp".to_owned(),
        SftpProgram::External => program::find("sftp-server")?.display().to_string(),
        SftpProgram::At(program) => plain_word(program)?,
    };
    if let Some(start) = start_directory {
        subsystem.push_str(" -d ");
        subsystem.push_str(&plain_word(start)?);
    }
    let dir = plain_word(dir)?;
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    if let Some(ciphers) = ciphers {
        let _ = writeln!(text, "Ciphers {ciphers}");
    }
    if let Some(limit) = rekey_limit {
        let _ = writeln!(text, "RekeyLimit {limit}");
    }
    // SHLVL keeps bash from reading its user's ~/.bashrc, which may take long, wait for locks, and print.
    let _ = write!(
        text,
        "Port {port}
ListenAddress {ip}
HostKey {dir}/host_key
AuthorizedKeysFile {dir}/authorized_keys
PidFile {dir}/pid
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
SetEnv SHLVL=3
PermitRootLogin yes
PubkeyAuthentication yes
PasswordAuthentication {yes_no}
KbdInteractiveAuthentication no
MaxStartups 200
MaxSessions {max_sessions}
LogLevel {log_level}
Subsystem sftp {subsystem}
",
        port = addr.port(),
        ip = addr.ip(),
    );
    Ok(text)
}

/// `path` for a configuration file, where a space would end the word.
fn plain_word(path: &Path) -> Result<String, PeerError> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '%' | '#');
    match path.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => Ok(text.to_owned()),
        _ => Err(PeerError::Unquotable {
            path: path.to_owned(),
        }),
    }
}

/// sshd run by root does not start without this directory, which only an init script makes.
fn make_privilege_separation_directory() -> Result<(), PeerError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let making = PeerError::io("making /run/sshd");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create("/run/sshd")
        .map_err(making)
}

fn login_name() -> Result<String, PeerError> {
    let mut id = Command::new(program::find("id")?);
    id.arg("-un");
    let output = program::run_well(id, START_LIMIT)?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

fn read_log(dir: &Path) -> String {
    String::from_utf8_lossy(&fs::read(dir.join("log")).unwrap_or_default()).into_owned()
}

fn write(path: &Path, text: &str) -> Result<(), PeerError> {
    fs::write(path, text).map_err(PeerError::io(format!("writing {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_lines_come_first() {
        let config = OpenSshConfig {
            ciphers: Some("aes256-ctr".into()),
            lines: vec!["LoginGraceTime 3".into()],
            ..OpenSshConfig::default()
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 2200));
        let text = configuration(&config, addr, Path::new("/t")).unwrap();
        assert!(
            text.starts_with("LoginGraceTime 3\nCiphers aes256-ctr\nPort 2200\n"),
            "{text}"
        );
        assert!(text.contains("\nSubsystem sftp internal-sftp\n"), "{text}");
    }

    #[test]
    fn a_path_that_would_become_two_words_is_refused() {
        for path in ["/a b", "", "/a\nb", "/100%"] {
            let error = plain_word(Path::new(path)).unwrap_err();
            assert!(matches!(error, PeerError::Unquotable { .. }), "{path:?}");
        }
    }
}
