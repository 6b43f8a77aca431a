//! Peers as servers: every algorithm that they have is switched on, every host key of ours loaded.

use std::net::SocketAddr;
use std::sync::Arc;

use ketch_keys::KeyType;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::inetd::Inetd;
use super::scripted::{Library, Scripted};
use crate::material::{ANSWERS, FILE_TYPES, Material, Owner, PASSWORD, USER, run};
use crate::offer::Offer;

/// Which peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    OpenSsh,
    Dropbear,
    Scripted(Library),
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::OpenSsh,
        Self::Dropbear,
        Self::Scripted(Library::Asyncssh),
        Self::Scripted(Library::Paramiko),
        Self::Scripted(Library::NodeSsh2),
        Self::Scripted(Library::Russh),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OpenSsh => "OpenSSH",
            Self::Dropbear => "dropbear",
            Self::Scripted(library) => library.name(),
        }
    }

    /// What can be run there to send bytes and get them back.
    pub(crate) const fn echo(self) -> Echo {
        match self {
            // It has no subsystem but sftp.
            Self::Dropbear => Echo::Cat,
            _ => Echo::Subsystem,
        }
    }
}

/// What sends bytes back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Echo {
    /// The subsystem `echo`.
    Subsystem,
    /// The command `cat`.
    Cat,
}

/// How a server is set up for a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Variant {
    /// Keys, a password, and questions where the peer has them.
    Plain,
    /// In without proof.
    Open,
    /// A key, and a password after it.
    TwoSteps,
    /// With the host key of [`MORE_KEYS`] alone: dropbear takes four.
    MoreKeys,
    /// It exchanges keys anew by itself, after [`REKEY_BYTES`].
    Rekeying,
}

/// The type of host key that one dropbear does not bear beside the others.
pub(crate) const MORE_KEYS: KeyType = KeyType::EcdsaP521;

/// After how much a peer is told to exchange keys anew.
pub(crate) const REKEY_BYTES: u64 = 300_000;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    _inetd: Option<Inetd>,
}

/// What is needed to start servers of one kind.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) kind: Kind,
    material: Arc<Material>,
    scripted: Option<Scripted>,
}

impl Servers {
    pub(crate) fn new(kind: Kind, material: &Arc<Material>) -> Result<Self, String> {
        let scripted = match kind {
            Kind::Scripted(library) => Some(Scripted::start(library)?),
            _ => None,
        };
        let material = Arc::clone(material);
        Ok(Self {
            kind,
            material,
            scripted,
        })
    }

    pub(crate) async fn start(&self, variant: Variant) -> Result<Server, String> {
        let material = &self.material;
        let log = material.path(&format!("{}-{variant:?}.log", self.kind.name()));
        let failed = |error| format!("starting {}: {error}", self.kind.name());
        match (self.kind, &self.scripted) {
            (Kind::OpenSsh, _) => {
                let config = material.path(&format!("sshd_config-{variant:?}"));
                std::fs::write(&config, sshd_config(material, variant).await).map_err(failed)?;
                let material = Arc::clone(material);
                privilege_separation_directory();
                let inetd = Inetd::start(log, move || {
                    let mut command = Command::new("/usr/sbin/sshd");
                    command.args(["-i", "-e", "-f"]).arg(&config);
                    material.with_account(&mut command, variant == Variant::Open);
                    command
                });
                Ok(Server::of(inetd.await.map_err(failed)?))
            }
            (Kind::Dropbear, _) => {
                let material = Arc::clone(material);
                let inetd = Inetd::start(log, move || {
                    let mut command = Command::new("dropbear");
                    command.arg("-i");
                    for key_type in FILE_TYPES {
                        let is_more = key_type == MORE_KEYS;
                        if is_more != (variant == Variant::MoreKeys) {
                            continue;
                        }
                        let file = material.private(Owner::Host, key_type);
                        command.arg("-r").arg(file.with_added_extension("dropbear"));
                    }
                    match variant {
                        Variant::TwoSteps => drop(command.arg("-t")),
                        Variant::Open => drop(command.arg("-B")),
                        Variant::Plain | Variant::MoreKeys | Variant::Rekeying => {}
                    }
                    material.with_account(&mut command, variant == Variant::Open);
                    command
                });
                Ok(Server::of(inetd.await.map_err(failed)?))
            }
            (Kind::Scripted(_), Some(scripted)) => {
                let paths = |file: &dyn Fn(_) -> std::path::PathBuf| -> Vec<String> {
                    let paths = FILE_TYPES.iter().map(|key_type| file(*key_type));
                    paths.map(|path| path.display().to_string()).collect()
                };
                let mut job = json!({
                    "do": "serve",
                    "user": USER,
                    "password": PASSWORD,
                    "answers": ANSWERS,
                    "authorized_keys": material.authorized_keys(),
                    "host_keys": paths(&|key_type| material.private(Owner::Host, key_type)),
                    "host_certificates":
                        paths(&|key_type| material.certificate(Owner::Host, key_type)),
                });
                match variant {
                    Variant::Plain | Variant::MoreKeys => {}
                    Variant::Open => job["methods"] = json!(["none"]),
                    Variant::TwoSteps => job["steps"] = json!(["publickey", "password"]),
                    Variant::Rekeying => job["rekey_bytes"] = json!(REKEY_BYTES),
                }
                let answer = scripted.ask(job).await?;
                let port = answer["port"]
                    .as_u64()
                    .and_then(|port| port.try_into().ok());
                let port: u16 = port.ok_or("the peer named no port")?;
                Ok(Server {
                    addr: ([127, 0, 0, 1], port).into(),
                    _inetd: None,
                })
            }
            (Kind::Scripted(_), None) => unreachable!("made together"),
        }
    }

    /// Algorithms of users' keys that it says it has, where it says that anywhere but in `EXT_INFO`.
    pub(crate) async fn says_of_user_keys(&self) -> Result<Vec<String>, String> {
        match &self.scripted {
            Some(scripted) => scripted.has("user_key").await,
            None if self.kind == Kind::OpenSsh => {
                Ok(openssh_query("PubkeyAcceptedAlgorithms").await)
            }
            None => Ok(Vec::new()),
        }
    }
}

impl Server {
    const fn of(inetd: Inetd) -> Self {
        Self {
            addr: inetd.addr,
            _inetd: Some(inetd),
        }
    }

    /// Its `KEXINIT`.
    pub(crate) async fn offer(&self) -> Result<Offer, String> {
        let stream = TcpStream::connect(self.addr)
            .await
            .map_err(|error| format!("connecting: {error}"))?;
        Offer::read(stream).await
    }
}

/// What `ssh -Q` says, a name a line.
pub(crate) async fn openssh_query(what: &str) -> Vec<String> {
    let mut command = Command::new("ssh");
    command.args(["-Q", what]);
    let lines = run(command).await;
    lines.lines().map(str::to_owned).collect()
}

/// The options with which OpenSSH, either side of it, offers all it has.
pub(crate) async fn openssh_everything(client: bool) -> Vec<String> {
    let mut options = vec![
        ("KexAlgorithms", "kex"),
        ("HostKeyAlgorithms", "HostKeyAlgorithms"),
        ("Ciphers", "cipher"),
        ("MACs", "mac"),
        ("PubkeyAcceptedAlgorithms", "PubkeyAcceptedAlgorithms"),
    ];
    if client {
        options.push(("CASignatureAlgorithms", "sig"));
    }
    let mut lines = Vec::new();
    for (option, query) in options {
        lines.push(format!("{option}={}", openssh_query(query).await.join(",")));
    }
    lines
}

async fn sshd_config(material: &Material, variant: Variant) -> String {
    let mut text = String::new();
    for line in openssh_everything(false).await {
        text.push_str(&line.replacen('=', " ", 1));
        text.push('\n');
    }
    for key_type in FILE_TYPES {
        let key = material.private(Owner::Host, key_type);
        let certificate = material.certificate(Owner::Host, key_type);
        text.push_str(&format!(
            "HostKey {}\nHostCertificate {}\n",
            key.display(),
            certificate.display()
        ));
    }
    text.push_str(&format!(
        "AuthorizedKeysFile {}
StrictModes no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
PermitRootLogin yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
RequiredRSASize 1024
Compression yes
LogLevel DEBUG1
Subsystem echo cat
",
        material.authorized_keys().display()
    ));
    match variant {
        Variant::Plain | Variant::MoreKeys => {}
        Variant::Open => text.push_str("PermitEmptyPasswords yes\n"),
        Variant::TwoSteps => text.push_str("AuthenticationMethods publickey,password\n"),
        Variant::Rekeying => text.push_str(&format!("RekeyLimit {REKEY_BYTES}\n")),
    }
    text
}

/// sshd run by root does not start without this directory, which only an init script makes.
fn privilege_separation_directory() {
    if rustix::process::geteuid().is_root() {
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
}
