//! Who the hosts are: `known_hosts` files, and what is done about hosts that are not in them.
//!
//! [`HostKeys`] decides, after the key exchange and before anything of the user's is sent, whether
//! the key that the server showed and proved is the host's. There is no way to connect without
//! one, every error is a refusal, and a key that differs from a known one is refused under every
//! policy.
//!
//! Files are read anew for each connection, so that a program that runs for months sees what was
//! added or revoked meanwhile. They are understood as OpenSSH understands them (sshd(8),
//! "SSH_KNOWN_HOSTS FILE FORMAT"): plain and hashed names, `*`, `?`, `!`, `[host]:port`,
//! `@revoked`; `@cert-authority` lines are recognised and bind no host's own key.

mod append;
mod entry;
mod key;
mod lookup;
mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ketch_transport::crypto::hostkey::PublicKey;

use crate::destination::Host;
use crate::platform::user_files;
use crate::{Failure, Kind};
use lookup::{Lookup, entry_name, look_up};

pub(crate) use key::fingerprint;
pub(crate) use pattern::pattern_matches;

/// Longest `known_hosts` file that is read, in bytes.
pub const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// Decides whether a key is a host's.
///
/// ```no_run
/// use ketch_client::hostkey::{HostKeyPolicy, HostKeys};
///
/// // The user's files, as OpenSSH has them; hosts that are not in them are refused.
/// let strict = HostKeys::known_hosts();
/// // A file of the program's own, in which hosts are noted when they are first met.
/// let own = HostKeys::files(["/var/lib/feed/known_hosts"]).policy(HostKeyPolicy::AcceptNew);
/// ```
#[derive(Clone, Debug)]
pub struct HostKeys {
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    /// The first of `user` is written to; `machine` is only read.
    Files {
        user: Vec<PathBuf>,
        machine: Vec<PathBuf>,
        policy: HostKeyPolicy,
    },
    /// Exactly these keys.
    Only(Vec<PublicKey>),
    AnyHost,
}

/// What to do about a host of which no line speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HostKeyPolicy {
    /// Refuse it.
    #[default]
    Strict,
    /// Accept it and write it down: from then on its key is known, and must not change.
    AcceptNew,
}

/// Why a key was accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Accepted {
    /// A line binds it to the host.
    Known(KnownAt),
    /// The host was unknown, and the key was written to this file.
    Added(PathBuf),
    /// It is one of the keys that the program named.
    Named,
    /// Nothing was checked: `danger_accept_any_host`.
    Unchecked,
}

/// A line of a `known_hosts` file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownAt {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The type of the key there, such as `ssh-ed25519`.
    pub algorithm: String,
    /// The key's fingerprint, `SHA256:…`.
    pub fingerprint: String,
}

impl fmt::Display for KnownAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl HostKeys {
    /// The files that OpenSSH reads: `known_hosts` and `known_hosts2` in the user's `~/.ssh`, then
    /// `ssh_known_hosts` and `ssh_known_hosts2` in the machine's `/etc/ssh`.
    ///
    /// Files that do not exist say nothing. Default policy: [`HostKeyPolicy::Strict`].
    #[must_use]
    pub fn known_hosts() -> Self {
        let both = |dir: Option<PathBuf>, names: [&str; 2]| {
            dir.map(|dir| names.map(|name| dir.join(name)).to_vec())
                .unwrap_or_default()
        };
        let user = user_files::home_dir().map(|home| home.join(".ssh"));
        Self {
            rule: Rule::Files {
                user: both(user, ["known_hosts", "known_hosts2"]),
                machine: both(
                    user_files::machine_ssh_dir(),
                    ["ssh_known_hosts", "ssh_known_hosts2"],
                ),
                policy: HostKeyPolicy::Strict,
            },
        }
    }

    /// These files and no others; [`HostKeyPolicy::AcceptNew`] writes to the first.
    ///
    /// Files that do not exist say nothing. Default policy: [`HostKeyPolicy::Strict`].
    #[must_use]
    pub fn files<P: Into<PathBuf>>(files: impl IntoIterator<Item = P>) -> Self {
        let user = files.into_iter().map(Into::into).collect();
        let policy = HostKeyPolicy::Strict;
        Self {
            rule: Rule::Files {
                user,
                machine: Vec::new(),
                policy,
            },
        }
    }

    /// These keys and no others, whatever the host is called.
    #[must_use]
    pub fn only(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self {
            rule: Rule::Only(keys.into_iter().collect()),
        }
    }

    /// Accepts whatever key is shown: anyone on the way can then read and change everything,
    /// passwords included. For tests against throw-away servers.
    #[must_use]
    pub fn danger_accept_any_host() -> Self {
        Self {
            rule: Rule::AnyHost,
        }
    }

    /// What to do about a host of which no line speaks. Default: [`HostKeyPolicy::Strict`].
    ///
    /// Without effect on rules that read no files.
    #[must_use]
    pub fn policy(mut self, chosen: HostKeyPolicy) -> Self {
        if let Rule::Files { policy, .. } = &mut self.rule {
            *policy = chosen;
        }
        self
    }

    /// Decides whether `key` belongs to `host` on `port`.
    ///
    /// Reads the files, and under [`HostKeyPolicy::AcceptNew`] writes one: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// [`HostKeyError`]: the host must not be talked to.
    pub fn check(&self, host: &Host, port: u16, key: &PublicKey) -> Result<Accepted, HostKeyError> {
        let shown = || ShownKey {
            name: entry_name(host.as_str(), port),
            algorithm: key.type_name().to_owned(),
            fingerprint: fingerprint(key.as_blob()),
        };
        let (user, machine, policy) = match &self.rule {
            Rule::AnyHost => return Ok(Accepted::Unchecked),
            Rule::Only(keys) if keys.contains(key) => return Ok(Accepted::Named),
            Rule::Only(_) => return Err(HostKeyError::NotNamed { shown: shown() }),
            Rule::Files {
                user,
                machine,
                policy,
            } => (user, machine, *policy),
        };
        let files = read_all(user.iter().chain(machine))?;
        let contents: Vec<_> = files
            .iter()
            .map(|(path, bytes)| (*path, &bytes[..]))
            .collect();
        match look_up(&contents, host.as_str(), port, key.as_blob()) {
            Lookup::Known(at) => Ok(Accepted::Known(at)),
            Lookup::Changed(known) => Err(HostKeyError::Changed {
                shown: shown(),
                known,
            }),
            Lookup::OtherTypes(known) => Err(HostKeyError::OtherTypes {
                shown: shown(),
                known,
            }),
            Lookup::Revoked(at) => Err(HostKeyError::Revoked {
                shown: shown(),
                at: Box::new(at),
            }),
            Lookup::Unknown if policy == HostKeyPolicy::Strict => {
                let files = user.iter().chain(machine).cloned().collect();
                Err(HostKeyError::Unknown {
                    shown: shown(),
                    files,
                })
            }
            Lookup::Unknown => {
                // A host that cannot be written down would be met for the first time every time.
                let not_recorded = |file: PathBuf, source| HostKeyError::NotRecorded {
                    shown: shown(),
                    file,
                    source,
                };
                let Some(file) = user.first() else {
                    let source = io::Error::other("the user has no home directory");
                    return Err(not_recorded(PathBuf::from("~/.ssh/known_hosts"), source));
                };
                append::append(file, &entry_name(host.as_str(), port), key.as_blob())
                    .map_err(|source| not_recorded(file.clone(), source))?;
                Ok(Accepted::Added(file.clone()))
            }
        }
    }

    /// The types of the keys by which `host` is known, in the order in which they stand: what a
    /// client should ask the server for first, so that it shows a key that can be checked.
    ///
    /// # Errors
    /// [`HostKeyError::Unreadable`].
    pub fn known_algorithms(&self, host: &Host, port: u16) -> Result<Vec<String>, HostKeyError> {
        let mut algorithms = Vec::new();
        let mut add = |algorithm: String| {
            if !algorithm.is_empty() && !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        };
        match &self.rule {
            Rule::AnyHost => {}
            Rule::Only(keys) => keys.iter().for_each(|k| add(k.type_name().to_owned())),
            Rule::Files { user, machine, .. } => {
                let files = read_all(user.iter().chain(machine))?;
                let contents: Vec<_> = files
                    .iter()
                    .map(|(path, bytes)| (*path, &bytes[..]))
                    .collect();
                let name = entry_name(host.as_str(), port);
                lookup::entries_about(&contents, &name)
                    .filter(|(_, entry)| entry.marker == entry::Marker::Host)
                    .for_each(|(at, _)| add(at.algorithm));
            }
        }
        Ok(algorithms)
    }
}

impl Default for HostKeys {
    fn default() -> Self {
        Self::known_hosts()
    }
}

/// Reads the files that exist.
fn read_all<'a>(
    paths: impl Iterator<Item = &'a PathBuf>,
) -> Result<Vec<(&'a Path, Vec<u8>)>, HostKeyError> {
    let mut files = Vec::new();
    for path in paths {
        match read(path) {
            Ok(bytes) => files.push((path.as_path(), bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It may hold the line that revokes the key, or the one that differs from it.
            Err(source) => {
                return Err(HostKeyError::Unreadable {
                    file: path.clone(),
                    source,
                });
            }
        }
    }
    Ok(files)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    user_files::open_for_reading(path)?
        .take(FILE_LEN_MAX + 1)
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= FILE_LEN_MAX) {
        Ok(bytes)
    } else {
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is longer than 16 MiB",
        ))
    }
}

/// The key that a server showed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShownKey {
    /// The host as it would stand in `known_hosts`: `host`, or `[host]:port`.
    pub name: String,
    /// The type of the key.
    pub algorithm: String,
    /// The key's fingerprint, `SHA256:…`.
    pub fingerprint: String,
}

impl fmt::Display for ShownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint)
    }
}

/// Why a host must not be talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// No line speaks of the host.
    #[error(
        "the host {} is not known: its key {shown} stands in none of {}; have the fingerprint \
         confirmed by who runs the server, then add the key there, or accept it once as new",
        shown.name, Paths(files)
    )]
    Unknown {
        /// What the server showed.
        shown: ShownKey,
        /// The files that were looked into, whether they exist or not.
        files: Vec<PathBuf>,
    },
    /// The host is known by another key of this type.
    #[error(
        "the key of host {} has changed: the server shows {shown}, but {} has {}; somebody may be \
         intercepting the connection: do not go on unless who runs the server confirms the new \
         key, then remove the old one with `{}`",
        shown.name, first(known).0, first(known).1, removal(shown, known)
    )]
    Changed {
        /// What the server showed.
        shown: ShownKey,
        /// The lines that say otherwise: at least one.
        known: Vec<KnownAt>,
    },
    /// The host is known, but only by keys of other types.
    #[error(
        "the host {} is known by another type of key: the server shows {shown}, but {} has {} \
         {}; have the new fingerprint confirmed by who runs the server, then add the key to that \
         file",
        shown.name, first(known).0, known.first().map_or("", |at| &at.algorithm), first(known).1
    )]
    OtherTypes {
        /// What the server showed.
        shown: ShownKey,
        /// The lines that say otherwise: at least one.
        known: Vec<KnownAt>,
    },
    /// The key was revoked.
    #[error(
        "the key of host {} is revoked: the server shows {shown}, which {at} marks as @revoked; \
         tell who runs the server, and do not connect until it shows another key",
        shown.name
    )]
    Revoked {
        /// What the server showed.
        shown: ShownKey,
        /// The line that revokes it.
        at: Box<KnownAt>,
    },
    /// The key is not among those that the program named.
    #[error("the host {} shows {shown}, which is none of the keys that it may have", shown.name)]
    NotNamed {
        /// What the server showed.
        shown: ShownKey,
    },
    /// A file could not be read, and might have held the line that decides.
    #[error("the host keys in {} could not be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The host is new and was to be accepted, but could not be written down.
    #[error(
        "the new host {} could not be added to {}: make the file writable, or add {shown} to it",
        shown.name, file.display()
    )]
    NotRecorded {
        /// What the server showed.
        shown: ShownKey,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Failure for HostKeyError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. } | Self::NotRecorded { source, .. } => {
                Kind::of_local(source)
            }
            _ => Kind::HostKey,
        }
    }
}

/// The place and the fingerprint of the first of the lines.
fn first(known: &[KnownAt]) -> (String, &str) {
    known
        .first()
        .map_or((String::new(), ""), |at| (at.to_string(), &at.fingerprint))
}

/// The command that removes the lines that say otherwise.
fn removal(shown: &ShownKey, known: &[KnownAt]) -> String {
    let file = known
        .first()
        .map(|at| at.file.display().to_string())
        .unwrap_or_default();
    format!("ssh-keygen -R '{}' -f '{file}'", shown.name)
}

struct Paths<'a>(&'a [PathBuf]);

impl fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            write!(
                f,
                "{}{}",
                if index == 0 { "" } else { ", " },
                path.display()
            )?;
        }
        Ok(())
    }
}
