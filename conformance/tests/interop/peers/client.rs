//! Peers as clients: each offers all that it has, logs in as it is told to, and sends bytes through
//! the subsystem `echo` of the server at a port.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ketch_keys::{KeyType, SignatureAlgorithm};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use super::scripted::{Library, Scripted};
use super::server::{Echo, REKEY_BYTES, openssh_everything, openssh_query};
use crate::material::{ANSWERS, Material, Owner, PASSWORD, SECURITY_TYPES, USER};
use crate::offer::Offer;
use crate::subject::Method;

/// How long one connection may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Which peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    OpenSsh,
    Dropbear,
    Putty,
    Scripted(Library),
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::OpenSsh,
        Self::Dropbear,
        Self::Putty,
        Self::Scripted(Library::Asyncssh),
        Self::Scripted(Library::Paramiko),
        Self::Scripted(Library::NodeSsh2),
        Self::Scripted(Library::Libssh2),
        Self::Scripted(Library::Russh),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OpenSsh => "OpenSSH",
            Self::Dropbear => "dbclient",
            Self::Putty => "plink",
            Self::Scripted(library) => library.name(),
        }
    }

    /// Whether it makes such signatures through an agent only.
    pub(crate) fn needs_agent(self, algorithm: SignatureAlgorithm) -> bool {
        let key_type = algorithm.key_type();
        let is_russh = self == Self::Scripted(Library::Russh);
        SECURITY_TYPES.contains(&key_type)
            // With a file it asks under the oldest name alone.
            || (is_russh && algorithm.is_certificate() && key_type == KeyType::Rsa)
    }

    /// Whether it knows one answer for all questions: its password.
    pub(crate) const fn has_one_answer(self) -> bool {
        matches!(self, Self::Dropbear | Self::Putty)
    }
}

/// One connection that a client is to make.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) port: u16,
    pub(crate) method: Method,
    pub(crate) user_key: SignatureAlgorithm,
    /// The agent that signs, where no file does.
    pub(crate) agent: Option<PathBuf>,
    /// Bytes to send and to get back.
    pub(crate) bytes: usize,
    /// Whether it is to exchange keys anew by itself.
    pub(crate) rekey: bool,
}

impl Job {
    /// Whether there is a file with a key for it.
    fn uses_file(&self) -> bool {
        self.uses_key() && self.agent.is_none()
    }

    const fn uses_key(&self) -> bool {
        matches!(self.method, Method::PublicKey | Method::KeyThenPassword)
    }

    const fn uses_password(&self) -> bool {
        matches!(self.method, Method::Password | Method::KeyThenPassword)
    }
}

/// What is needed to run clients of one kind.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) kind: Kind,
    material: Arc<Material>,
    scripted: Option<Scripted>,
    /// OpenSSH's options that switch everything on.
    options: Vec<String>,
}

impl Clients {
    pub(crate) async fn new(kind: Kind, material: &Arc<Material>) -> Result<Self, String> {
        let scripted = match kind {
            Kind::Scripted(library) => Some(Scripted::start(library)?),
            _ => None,
        };
        let options = match kind {
            Kind::OpenSsh => openssh_everything(true).await,
            _ => Vec::new(),
        };
        let material = Arc::clone(material);
        Ok(Self {
            kind,
            material,
            scripted,
            options,
        })
    }

    /// Algorithms of users' keys that it says it has; empty if it says that nowhere.
    pub(crate) async fn says_of_user_keys(&self) -> Result<Vec<String>, String> {
        match &self.scripted {
            Some(scripted) => scripted.has("user_key").await,
            None if self.kind == Kind::OpenSsh => {
                Ok(openssh_query("PubkeyAcceptedAlgorithms").await)
            }
            None => Ok(Vec::new()),
        }
    }

    /// Its `KEXINIT`, which it shows to a server that says nothing after its own first line.
    pub(crate) async fn offer(&self) -> Result<Offer, String> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        let job = Job {
            port,
            method: Method::Password,
            user_key: SignatureAlgorithm::Ed25519,
            agent: None,
            bytes: 0,
            rekey: false,
        };
        let read = async {
            let (stream, _) = listener.accept().await.map_err(|e| e.to_string())?;
            Offer::read(stream).await
        };
        // That it then fails is what it has to do; but its answer has to be taken from the pipe.
        let (offer, _) = tokio::join!(read, self.connect(&job));
        offer
    }

    /// Whether OpenSSH's client gets on with a server in a way that ours did not; what it says if not.
    pub(crate) async fn control(&self, port: u16, option: &str, echo: Echo) -> Result<(), String> {
        let job = Job {
            port,
            method: Method::PublicKey,
            user_key: SignatureAlgorithm::Ed25519,
            agent: None,
            bytes: 1000,
            rekey: false,
        };
        let mut command = Command::new("ssh");
        // The first value of an option is the one that counts.
        command.args(["-o", option]);
        let rest = self.openssh(&job);
        let arguments: Vec<_> = rest
            .as_std()
            .get_args()
            .map(|word| word.to_owned())
            .collect();
        let end = arguments.len() - usize::from(echo == Echo::Cat) * 3;
        command.args(&arguments[..end]);
        if echo == Echo::Cat {
            command.args([&format!("{USER}@127.0.0.1"), "cat"]);
        }
        self.run(command, &job).await.map(drop)
    }

    /// Makes a connection; the number of bytes that came back as they were sent.
    pub(crate) async fn connect(&self, job: &Job) -> Result<u64, String> {
        match (self.kind, &self.scripted) {
            (_, Some(scripted)) => {
                let answer = scripted.ask(self.scripted_job(job)).await?;
                answer["bytes"].as_u64().ok_or_else(|| "no bytes".into())
            }
            (Kind::OpenSsh, _) => self.run(self.openssh(job), job).await,
            (Kind::Dropbear, _) => self.run(self.dbclient(job), job).await,
            _ => self.run(self.plink(job), job).await,
        }
    }

    fn scripted_job(&self, job: &Job) -> Value {
        let material = &self.material;
        let mut value = json!({
            "do": "connect",
            "port": job.port,
            "user": USER,
            "bytes": job.bytes,
        });
        if job.rekey {
            value["rekey_bytes"] = json!(REKEY_BYTES);
        }
        if job.uses_file() {
            let key_type = job.user_key.key_type();
            let mut key = json!({ "key": material.private(Owner::User, key_type) });
            if job.user_key.is_certificate() {
                key["certificate"] = json!(material.certificate(Owner::User, key_type));
            }
            value["keys"] = json!([key]);
        }
        if let Some(agent) = &job.agent {
            value["agent"] = json!(agent);
        }
        value["user_key"] = json!(job.user_key.name());
        if job.uses_password() {
            value["password"] = json!(PASSWORD);
        }
        if job.method == Method::KeyboardInteractive {
            value["answers"] = json!(ANSWERS);
        }
        value
    }

    fn openssh(&self, job: &Job) -> Command {
        let material = &self.material;
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &job.port.to_string()]);
        let known_hosts = material.known_hosts();
        let known_hosts = format!("UserKnownHostsFile={}", known_hosts.display());
        if job.uses_key() {
            // The first value of an option is the one that counts.
            let mut accepted = format!("PubkeyAcceptedAlgorithms={}", job.user_key.name());
            if job.user_key.is_certificate() {
                // Without this it does not look at the key that goes with a certificate.
                accepted.push(',');
                accepted.push_str(job.user_key.plain().name());
            }
            command.arg("-o").arg(accepted);
        }
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        let compression = ["Compression=yes"];
        let agent = match &job.agent {
            Some(path) => format!("IdentityAgent={}", path.display()),
            None => "IdentityAgent=none".to_owned(),
        };
        for option in [
            known_hosts.as_str(),
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            agent.as_str(),
            "RequiredRSASize=1024",
            "NumberOfPasswordPrompts=1",
            "ConnectTimeout=60",
            "UpdateHostKeys=no",
            "LogLevel=VERBOSE",
        ]
        .iter()
        .chain(&compression)
        {
            command.arg("-o").arg(option);
        }
        let methods = match job.method {
            Method::None => "none",
            Method::PublicKey => "publickey",
            Method::Password => "password",
            Method::KeyboardInteractive => "keyboard-interactive",
            Method::KeyThenPassword => "publickey,password",
        };
        command
            .arg("-o")
            .arg(format!("PreferredAuthentications={methods}"));
        if job.uses_file() {
            let key_type = job.user_key.key_type();
            command
                .arg("-i")
                .arg(material.private(Owner::User, key_type));
            let certificate = if job.user_key.is_certificate() {
                material
                    .certificate(Owner::User, key_type)
                    .display()
                    .to_string()
            } else {
                "none".to_owned()
            };
            command
                .arg("-o")
                .arg(format!("CertificateFile={certificate}"));
        } else {
            command.args(["-o", "IdentityFile=none"]);
        }
        if job.rekey {
            command.arg("-o").arg(format!("RekeyLimit={REKEY_BYTES}"));
        }
        self.answer_questions(&mut command, job);
        command.args(["-s", &format!("{USER}@127.0.0.1"), "echo"]);
        command
    }

    /// A program that answers what ssh asks: a password, or the questions one after the other.
    fn answer_questions(&self, command: &mut Command, job: &Job) {
        use std::os::unix::fs::PermissionsExt;
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in\n*0:*) echo '{}';;\n*1:*) echo '{}';;\n*) echo '{PASSWORD}';;\nesac\n",
            ANSWERS[0], ANSWERS[1]
        );
        let file = self.material.path("askpass");
        if !file.exists() {
            // Written beside and renamed: another cell may be about to run it.
            let new = self.material.path(&format!("askpass-{}", job.port));
            std::fs::write(&new, script).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o700)).unwrap();
            std::fs::rename(&new, &file).unwrap();
        }
        command
            .env("SSH_ASKPASS", file)
            .env("SSH_ASKPASS_REQUIRE", "force");
    }

    fn dbclient(&self, job: &Job) -> Command {
        let material = &self.material;
        let mut command = Command::new("dbclient");
        command.args(["-y", "-y", "-p", &job.port.to_string()]);
        if job.uses_file() {
            let file = material.private(Owner::User, job.user_key.key_type());
            command.arg("-i").arg(file.with_added_extension("dropbear"));
        }
        if !matches!(job.method, Method::PublicKey | Method::None) {
            command.env("DROPBEAR_PASSWORD", PASSWORD);
        }
        command.env("HOME", material.home());
        command.args(["-s", &format!("{USER}@127.0.0.1"), "echo"]);
        command
    }

    fn plink(&self, job: &Job) -> Command {
        let material = &self.material;
        let dir = material.path("putty");
        putty_settings(&dir, material);
        let mut command = Command::new("plink");
        command.env("PUTTYDIR", &dir);
        let session = if job.rekey { "rekeying" } else { "plain" };
        command.args(["-batch", "-load", session, "-ssh"]);
        command.arg(if job.agent.is_some() {
            "-agent"
        } else {
            "-noagent"
        });
        command.args(["-P", &job.port.to_string(), "-l", USER]);
        for key_type in crate::material::FILE_TYPES {
            let algorithm = SignatureAlgorithm::ALL
                .iter()
                .find(|algorithm| !algorithm.is_certificate() && algorithm.key_type() == key_type);
            let key = material.public(Owner::Host, *algorithm.unwrap());
            command.arg("-hostkey").arg(key.fingerprint());
        }
        if job.uses_file() {
            let key_type = job.user_key.key_type();
            let file = material.private(Owner::User, key_type);
            command.arg("-i").arg(file.with_added_extension("ppk"));
            if job.user_key.is_certificate() {
                command
                    .arg("-cert")
                    .arg(material.certificate(Owner::User, key_type));
            }
        }
        if job.uses_password() || job.method == Method::KeyboardInteractive {
            command.args(["-pw", PASSWORD]);
        }
        command.args(["-s", "127.0.0.1", "echo"]);
        command
    }

    async fn run(&self, mut command: Command, job: &Job) -> Result<u64, String> {
        let name = self.kind.name();
        command
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(agent) = &job.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}: run scripts/setup-peers"))?;
        let mut stdin = child.stdin.take().ok_or("no pipe")?;
        let data = crate::ours::pattern(job.bytes);
        let sent = data.clone();
        let feed = tokio::spawn(async move {
            // A client that ends early has closed the pipe and says why elsewhere.
            let _ = stdin.write_all(&sent).await;
        });
        let output = timeout(LIMIT, child.wait_with_output())
            .await
            .map_err(|_| format!("{name} was not done in time"))?
            .map_err(|error| format!("{name}: {error}"))?;
        feed.abort();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.stdout != data {
            let (came, len) = (output.stdout.len(), data.len());
            return Err(format!("{name}: {came} of {len} bytes came back: {said}"));
        }
        Ok(output.stdout.len() as u64)
    }
}

/// Sessions of PuTTY's that have all algorithms, none of them below the line at which it asks.
fn putty_settings(dir: &Path, material: &Material) {
    let sessions = dir.join("sessions");
    if sessions.join("rekeying").exists() {
        return;
    }
    std::fs::create_dir_all(&sessions).unwrap();
    let cas = dir.join("sshhostcas");
    std::fs::create_dir_all(&cas).unwrap();
    let authority = material.authority().to_line();
    let authority = authority.split(' ').nth(1).unwrap_or_default();
    std::fs::write(
        cas.join("test"),
        format!("PublicKey={authority}\nValidity=*\nPermitRSASHA1=1\nPermitRSASHA256=1\nPermitRSASHA512=1\n"),
    )
    .unwrap();
    let plain = "Protocol=ssh
Cipher=aes,chacha20,aesgcm,3des,des,blowfish,arcfour,WARN
KEX=ntru-curve25519,ecdh,dh-gex-sha1,dh-group18-sha512,dh-group17-sha512,dh-group16-sha512,dh-group15-sha512,dh-group14-sha1,dh-group1-sha1,rsa,WARN
HostKey=ed25519,ecdsa,ed448,rsa,dsa,WARN
Compression=1
TryAgent=0
AuthKI=1
";
    std::fs::write(sessions.join("plain"), plain).unwrap();
    let rekeying = format!("{plain}RekeyBytes={REKEY_BYTES}\n");
    std::fs::write(sessions.join("rekeying"), rekeying).unwrap();
}
