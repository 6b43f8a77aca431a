//! The configuration that the user already has: `~/.ssh/config` and its like (ssh_config(5)).
//!
//! [`SshConfig`] names files and options, and [`SshConfig::resolve`] says what they come to for
//! one host: a [`HostConfig`] of typed values. Nothing here connects, and the rest of this crate
//! reads no configuration: a program that wants the user's asks for it.
//!
//! Files mean what they mean to OpenSSH: the first value counts, `Host` and `Match` decide what
//! applies, `Include` reads further files. Three things differ on purpose. Keywords that nobody
//! knows are [warned](Warning) of and not fatal. Commands (`ProxyCommand`, and `Match exec`, which
//! has to be allowed) are words and run without a shell: what a name holds can never become a
//! command (CVE-2023-51385). And names of hosts and users are held to the alphabet of
//! [`destination`](crate::destination).
//!
//! | module | what it holds |
//! | --- | --- |
//! | `line`, `keyword` | a line, taken apart |
//! | `options` | the first value of each keyword |
//! | `load`, `include`, `conditions` | files, in order; `Host` and `Match` |
//! | `expand`, `resolve` | tokens; from options to a [`HostConfig`] |
//! | `algorithms` | lists with `+`, `-` and `^` |
//! | `apply` | from a [`HostConfig`] to a [`Connect`](crate::Connect) |

mod algorithms;
mod apply;
mod conditions;
mod error;
mod exec;
mod expand;
mod include;
mod keyword;
mod line;
mod load;
mod local;
mod options;
mod pattern;
mod resolve;
#[cfg(test)]
mod tests;

pub use algorithms::{AlgorithmSpec, Chosen};
pub use error::{ConfigError, ExpandError, Fault, Place, ValueError, Warning};
pub use options::{HostKeyChecking, UpdateHostKeys};

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::destination::{Host, User};
pub use crate::route::AddressFamily;
use crate::route::{HOPS_MAX, ProxyCommand};
use load::{Load, Owner, Query};
use local::Local;

/// Longest configuration file that is read, in bytes.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;
/// Longest line, in bytes.
pub const LINE_LEN_MAX: usize = 64 * 1024;
/// Most files read for one answer, those included counted.
pub const FILES_MAX: usize = 256;
/// How deep files may include others; OpenSSH has the same bound.
pub const INCLUDE_DEPTH_MAX: usize = 16;
/// Most hosts on the way to one.
pub const JUMPS_MAX: usize = HOPS_MAX;
/// Most warnings that are kept.
pub const WARNINGS_MAX: usize = 32;

/// Files and options to be read.
///
/// ```no_run
/// use ketch_client::config::SshConfig;
///
/// let config = SshConfig::of_user().option("Compression=no");
/// let files = config.resolve(&"files".parse()?, None, None)?;
/// println!("files is {}:{}", files.host, files.port.unwrap_or(22));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SshConfig {
    files: Files,
    options: Vec<String>,
    allow_exec: bool,
}

#[derive(Clone, Debug, Default)]
enum Files {
    #[default]
    None,
    OfUser,
    One(PathBuf),
}

impl SshConfig {
    /// No file at all: what is not given as an option is at its default.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The files that OpenSSH reads: `~/.ssh/config`, then `/etc/ssh/ssh_config`. One that does
    /// not exist says nothing.
    #[must_use]
    pub fn of_user() -> Self {
        Self {
            files: Files::OfUser,
            ..Self::default()
        }
    }

    /// This file alone, which has to exist.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            files: Files::One(path.into()),
            ..Self::default()
        }
    }

    /// One more option, written as in a file, or with `=` between keyword and value. Options come
    /// before all files, in the order in which they were given, and are for the host itself: hosts
    /// on the way to it are not touched by them.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Lets `Match exec` run its commands, without a shell. Default: such a condition counts as
    /// not met, with a [`Warning::ExecNotAllowed`].
    #[must_use]
    pub fn allow_match_exec(mut self) -> Self {
        self.allow_exec = true;
        self
    }

    /// What the configuration comes to for `host`, as the user named it, and for the user and port
    /// that were given with it, which count before everything else.
    ///
    /// Reads files, and may run commands if that was allowed: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn resolve(
        &self,
        host: &Host,
        user: Option<&User>,
        port: Option<u16>,
    ) -> Result<HostConfig, ConfigError> {
        self.resolve_on(&Local::of_this_machine(), host, user, port)
    }

    fn resolve_on(
        &self,
        local: &Local,
        host: &Host,
        user: Option<&User>,
        port: Option<u16>,
    ) -> Result<HostConfig, ConfigError> {
        let query = Query {
            host: host.as_str(),
            user: user.map(User::as_str),
            port,
        };
        let mut load = Load::new(local, query, self.allow_exec);
        self.read(&mut load)?;
        if load.wants_final_pass {
            let name = resolve::host_name(&load.options, host.as_str())?;
            load.start_final_pass(name.to_string());
            self.read(&mut load)?;
        }
        let mut config = resolve::resolve(load.options, host, local, load.warnings)?;
        let skipped = config.skipped_algorithms();
        config.warnings.extend(skipped);
        Ok(config)
    }

    fn read(&self, load: &mut Load<'_>) -> Result<(), ConfigError> {
        for option in &self.options {
            load.option(option)?;
        }
        match &self.files {
            Files::None => Ok(()),
            // A file that was named is the user's affair, whoever may write to it.
            Files::One(path) => load.top(path, Owner::User, false, true),
            Files::OfUser => {
                if let Some(dir) = load.local.ssh_dir() {
                    load.top(&dir.join("config"), Owner::User, true, false)?;
                }
                match &load.local.machine_dir {
                    Some(dir) => load.top(&dir.join("ssh_config"), Owner::Machine, false, false),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What a configuration comes to for one host. `None` is what no line speaks of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HostConfig {
    /// The host as the user named it.
    pub named: Host,
    /// `HostName`: the name or address to connect to.
    pub host: Host,
    /// `Port`.
    pub port: Option<u16>,
    /// `User`.
    pub user: Option<User>,
    /// `AddressFamily`.
    pub address_family: Option<AddressFamily>,
    /// `BatchMode`: ask the user nothing.
    pub batch_mode: Option<bool>,
    /// `BindAddress`.
    pub bind_address: Option<IpAddr>,
    /// `CASignatureAlgorithms`: what authorities may sign certificates with.
    pub ca_signature_algorithms: Option<AlgorithmSpec>,
    /// `CertificateFile`, in order.
    pub certificate_files: Vec<PathBuf>,
    /// `Ciphers`.
    pub ciphers: Option<AlgorithmSpec>,
    /// `Compression`.
    pub compression: Option<bool>,
    /// `ConnectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// `ConnectionAttempts`, one at least.
    pub connection_attempts: Option<u32>,
    /// `GlobalKnownHostsFile`; empty for `none`.
    pub global_known_hosts: Option<Vec<PathBuf>>,
    /// `HashKnownHosts`: hide the names of hosts that are added.
    pub hash_known_hosts: Option<bool>,
    /// `HostKeyAlgorithms`.
    pub host_key_algorithms: Option<AlgorithmSpec>,
    /// `HostKeyAlias`: the name under which the host's keys are kept.
    pub host_key_alias: Option<String>,
    /// `IdentitiesOnly`: of what an agent holds, only the keys that are named here.
    pub identities_only: Option<bool>,
    /// `IdentityAgent`.
    pub identity_agent: Option<AgentChoice>,
    /// `IdentityFile`, in order; empty for `none`.
    pub identity_files: Option<Vec<PathBuf>>,
    /// `KbdInteractiveAuthentication`.
    pub kbd_interactive_authentication: Option<bool>,
    /// `KexAlgorithms`.
    pub kex_algorithms: Option<AlgorithmSpec>,
    /// `MACs`.
    pub macs: Option<AlgorithmSpec>,
    /// `PasswordAuthentication`.
    pub password_authentication: Option<bool>,
    /// `NumberOfPasswordPrompts`.
    pub password_prompts: Option<u32>,
    /// `PreferredAuthentications`, by their names.
    pub preferred_authentications: Option<Vec<String>>,
    /// `ProxyJump` or `ProxyCommand`, whichever came first.
    pub proxy: Option<ProxyChoice>,
    /// `PubkeyAcceptedAlgorithms`: what the user's keys may sign with.
    pub pubkey_accepted_algorithms: Option<AlgorithmSpec>,
    /// `PubkeyAuthentication`.
    pub pubkey_authentication: Option<bool>,
    /// `RekeyLimit`, in bytes.
    pub rekey_bytes: Option<u64>,
    /// `RekeyLimit`, in time.
    pub rekey_interval: Option<Duration>,
    /// `RequiredRSASize`, in bits.
    pub required_rsa_size: Option<u32>,
    /// `RevokedHostKeys`.
    pub revoked_host_keys: Option<PathBuf>,
    /// `SendEnv`: names of variables to send, with `*` and `?`.
    pub send_env: Vec<String>,
    /// `ServerAliveCountMax`.
    pub server_alive_count_max: Option<u32>,
    /// `ServerAliveInterval`; zero never asks.
    pub server_alive_interval: Option<Duration>,
    /// `SetEnv`: variables to send, with their values.
    pub set_env: Vec<(String, String)>,
    /// `StrictHostKeyChecking`.
    pub strict_host_key_checking: Option<HostKeyChecking>,
    /// `UpdateHostKeys`.
    pub update_host_keys: Option<UpdateHostKeys>,
    /// `UserKnownHostsFile`; empty for `none`.
    pub user_known_hosts: Option<Vec<PathBuf>>,
    /// What in the configuration has no effect.
    pub warnings: Vec<Warning>,
}

/// Which agent is asked for keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AgentChoice {
    /// None.
    None,
    /// The one at this socket.
    At(PathBuf),
}

/// The way to a host, other than straight.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProxyChoice {
    /// `none`: straight, whatever other configuration says.
    None,
    /// Through these hosts, the first to be reached first.
    Jump(Vec<JumpHost>),
    /// Over the standard streams of a program.
    Command(ProxyCommand),
}

/// A host on the way to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JumpHost {
    /// Who to log in as, if it was said.
    pub user: Option<User>,
    /// The host, as it was named.
    pub host: Host,
    /// The port, if it was said.
    pub port: Option<u16>,
}
