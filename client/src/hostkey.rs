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
//! `@revoked`, and `@cert-authority` for hosts that show certificates (PROTOCOL.certkeys). A
//! certificate that nobody vouches for is no more than the key in it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `entry`, `pattern`, `key` | a line, its names, its key |
//! | `lookup` | what files say about a host |
//! | `append` | writing a new host |
//! | `keep_up`, `update` | the keys that a host tells and proves |

mod append;
mod entry;
mod error;
mod keep_up;
mod key;
mod lookup;
mod pattern;
#[cfg(test)]
mod tests;
mod update;

pub use error::{HostKeyError, ShownKey};
pub use update::Updated;

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ketch_keys::{
    CertificateKind, PublicKey, REVOCATION_LIST_LEN_MAX, RevocationList, SignatureAlgorithm,
};

use crate::destination::Host;
use crate::platform::user_files;
use lookup::{Lookup, Names, look_up};

pub(crate) use keep_up::KeepUp;
#[cfg(test)]
use key::fingerprint;
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
    alias: Option<String>,
    revoked: Vec<PathBuf>,
    hash_names: bool,
    keep_up: bool,
    authority_algorithms: Option<Vec<SignatureAlgorithm>>,
    ask: Option<Question>,
}

/// Asks whether an unknown host is the one that was meant.
#[derive(Clone)]
struct Question(Arc<dyn Fn(&ShownKey) -> bool + Send + Sync>);

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question(..)")
    }
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
    /// Ask ([`HostKeys::ask`]), and accept it and write it down if the answer is yes. Where nobody
    /// can be asked it is refused.
    Ask,
}

/// Why a key was accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Accepted {
    /// A line binds it to the host.
    Known(KnownAt),
    /// An authority that this line names vouches for it.
    Certified(KnownAt),
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
        Self::of(Rule::Files {
            user: both(user, ["known_hosts", "known_hosts2"]),
            machine: both(
                user_files::machine_ssh_dir(),
                ["ssh_known_hosts", "ssh_known_hosts2"],
            ),
            policy: HostKeyPolicy::Strict,
        })
    }

    /// These files and no others; [`HostKeyPolicy::AcceptNew`] writes to the first.
    ///
    /// Files that do not exist say nothing. Default policy: [`HostKeyPolicy::Strict`].
    #[must_use]
    pub fn files<P: Into<PathBuf>>(files: impl IntoIterator<Item = P>) -> Self {
        Self::of(Rule::Files {
            user: files.into_iter().map(Into::into).collect(),
            machine: Vec::new(),
            policy: HostKeyPolicy::Strict,
        })
    }

    /// The machine's files, which are read and never written to, in place of those that there
    /// were. Without effect on rules that read no files.
    #[must_use]
    pub fn machine_files<P: Into<PathBuf>>(mut self, files: impl IntoIterator<Item = P>) -> Self {
        if let Rule::Files { machine, .. } = &mut self.rule {
            *machine = files.into_iter().map(Into::into).collect();
        }
        self
    }

    /// The user's files, of which the first is written to, in place of those that there were.
    /// Without effect on rules that read no files.
    #[must_use]
    pub fn user_files<P: Into<PathBuf>>(mut self, files: impl IntoIterator<Item = P>) -> Self {
        if let Rule::Files { user, .. } = &mut self.rule {
            *user = files.into_iter().map(Into::into).collect();
        }
        self
    }

    /// These keys and no others, whatever the host is called.
    #[must_use]
    pub fn only(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self::of(Rule::Only(keys.into_iter().collect()))
    }

    /// Accepts whatever key is shown: anyone on the way can then read and change everything,
    /// passwords included. For tests against throw-away servers.
    #[must_use]
    pub fn danger_accept_any_host() -> Self {
        Self::of(Rule::AnyHost)
    }

    fn of(rule: Rule) -> Self {
        Self {
            rule,
            alias: None,
            revoked: Vec::new(),
            hash_names: false,
            keep_up: false,
            authority_algorithms: None,
            ask: None,
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

    /// Asks nobody: what would be asked about is refused.
    pub(crate) fn without_questions(mut self) -> Self {
        self.ask = None;
        self
    }

    /// Whom to ask about an unknown host under [`HostKeyPolicy::Ask`]: on a thread where blocking
    /// is allowed. Default: nobody.
    #[must_use]
    pub fn ask(mut self, ask: impl Fn(&ShownKey) -> bool + Send + Sync + 'static) -> Self {
        self.ask = Some(Question(Arc::new(ask)));
        self
    }

    /// The name under which the host's keys are kept, whatever it is called and whichever port it
    /// is on; certificates have to be for it, too. Default: the host's name.
    #[must_use]
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.alias = Some(alias.into());
        self
    }

    /// A list of revoked keys, as `ssh-keygen -k` makes it, or lines of public keys; it has to be
    /// there. Several may be given. It counts under every rule but `danger_accept_any_host`.
    #[must_use]
    pub fn revoked(mut self, list: impl Into<PathBuf>) -> Self {
        self.revoked.push(list.into());
        self
    }

    /// Whether names that are written down are hashed; where others in the file are, they always
    /// are. Default: no.
    #[must_use]
    pub fn hash_names(mut self, hash: bool) -> Self {
        self.hash_names = hash;
        self
    }

    /// Whether the further keys that a known host tells and proves are written down, and those that
    /// it no longer has removed ([`HostKeys::update`]). Default: no.
    #[must_use]
    pub fn keep_up(mut self, keep_up: bool) -> Self {
        self.keep_up = keep_up;
        self
    }

    /// What is to be done with the keys that the server tells, if anything is. Reads a file.
    pub(crate) fn keeping_up(
        &self,
        host: &Host,
        port: u16,
        shown: &PublicKey,
        accepted: &Accepted,
    ) -> Option<KeepUp> {
        let (Rule::Files { user, .. }, Accepted::Known(_) | Accepted::Added(_)) =
            (&self.rule, accepted)
        else {
            return None;
        };
        let file = user.first().filter(|_| self.keep_up)?;
        let bytes = read(file).ok()?;
        let names = Names::of(host.as_str(), port, self.alias.as_deref());
        let entries = lookup::entries(&bytes).map(|(_, entry)| entry);
        let known = entries
            .filter(|entry| entry.marker == entry::Marker::Host && entry.is_about(&names.entry))
            .map(|entry| entry.key);
        let (keys, host) = (self.clone(), host.clone());
        Some(KeepUp::new(
            keys,
            host,
            port,
            shown.plain(),
            known.collect(),
        ))
    }

    /// What authorities may sign certificates with. Default: everything but SHA-1, which never
    /// counts.
    #[must_use]
    pub fn authority_algorithms(mut self, algorithms: Vec<SignatureAlgorithm>) -> Self {
        self.authority_algorithms = Some(algorithms);
        self
    }

    /// Decides whether `key` belongs to `host` on `port`.
    ///
    /// Reads the files, and under [`HostKeyPolicy::AcceptNew`] writes one: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// [`HostKeyError`]: the host must not be talked to.
    #[expect(
        clippy::disallowed_methods,
        reason = "whether a certificate is valid is asked once a connection, where files are read"
    )]
    pub fn check(&self, host: &Host, port: u16, key: &PublicKey) -> Result<Accepted, HostKeyError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock before 1970 makes every certificate one that is not valid yet.
        let now = now.map_or(0, |since| since.as_secs());
        self.check_at(host, port, key, now)
    }

    fn check_at(
        &self,
        host: &Host,
        port: u16,
        key: &PublicKey,
        now_unix: u64,
    ) -> Result<Accepted, HostKeyError> {
        let names = Names::of(host.as_str(), port, self.alias.as_deref());
        let shown = || ShownKey {
            name: names.entry.clone(),
            algorithm: key.type_name().to_owned(),
            fingerprint: key.fingerprint(),
        };
        if matches!(self.rule, Rule::AnyHost) {
            return Ok(Accepted::Unchecked);
        }
        if let Some(file) = self.revoking_list(key)? {
            return Err(HostKeyError::Listed {
                shown: shown(),
                file,
            });
        }
        let plain = key.plain();
        let (user, machine, policy) = match &self.rule {
            Rule::AnyHost => return Ok(Accepted::Unchecked),
            Rule::Only(keys) if keys.contains(&plain) => return Ok(Accepted::Named),
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
        let certified = match self.check_certificate(&contents, &names, key, now_unix, &shown) {
            Some(Ok(at)) => return Ok(Accepted::Certified(at)),
            Some(Err(error @ HostKeyError::Revoked { .. })) => return Err(error),
            Some(Err(error)) => Some(error),
            None => None,
        };
        // What nobody vouches for is the key in it.
        let found = look_up(&contents, &names, plain.as_blob());
        match (found, certified) {
            (Lookup::Known(at), _) => Ok(Accepted::Known(at)),
            (Lookup::Revoked(at), _) => Err(HostKeyError::Revoked {
                shown: shown(),
                at: Box::new(at),
            }),
            // A certificate that does not hold says more than a key that is not known.
            (_, Some(error)) => Err(error),
            (Lookup::Changed(known), None) => Err(HostKeyError::Changed {
                shown: shown(),
                known,
            }),
            (Lookup::OtherTypes(known), None) => Err(HostKeyError::OtherTypes {
                shown: shown(),
                known,
            }),
            (Lookup::Unknown, None) => {
                let accepted = match (policy, &self.ask) {
                    (HostKeyPolicy::AcceptNew, _) => true,
                    (HostKeyPolicy::Ask, Some(Question(ask))) if ask(&shown()) => true,
                    (HostKeyPolicy::Ask, Some(_)) => {
                        return Err(HostKeyError::NotConfirmed { shown: shown() });
                    }
                    (HostKeyPolicy::Strict, _) | (HostKeyPolicy::Ask, None) => false,
                };
                if !accepted {
                    let files = user.iter().chain(machine).cloned().collect();
                    return Err(HostKeyError::Unknown {
                        shown: shown(),
                        files,
                    });
                }
                self.record(user.first(), &names, &plain, &shown)
            }
        }
    }

    /// A host that cannot be written down would be met for the first time every time.
    fn record(
        &self,
        file: Option<&PathBuf>,
        names: &Names,
        key: &PublicKey,
        shown: &dyn Fn() -> ShownKey,
    ) -> Result<Accepted, HostKeyError> {
        let not_recorded = |file: PathBuf, source| HostKeyError::NotRecorded {
            shown: shown(),
            file,
            source,
        };
        let Some(file) = file else {
            let source = io::Error::other("there is no file to write to");
            return Err(not_recorded(PathBuf::from("~/.ssh/known_hosts"), source));
        };
        append::append(file, &names.entry, self.hash_names, key.as_blob())
            .map_err(|source| not_recorded(file.clone(), source))?;
        Ok(Accepted::Added(file.clone()))
    }

    /// Whether a certificate holds: `None` for a plain key, and for one whose authority is nobody's
    /// here.
    fn check_certificate(
        &self,
        files: &[lookup::Content<'_>],
        names: &Names,
        key: &PublicKey,
        now_unix: u64,
        shown: &dyn Fn() -> ShownKey,
    ) -> Option<Result<KnownAt, HostKeyError>> {
        let certificate = key.certificate()?;
        let authority = certificate.authority();
        if let Some(at) = lookup::revocation(files, names, authority.as_blob()) {
            return Some(Err(HostKeyError::Revoked {
                shown: shown(),
                at: Box::new(at),
            }));
        }
        if let Some(at) = lookup::revocation(files, names, key.plain().as_blob()) {
            return Some(Err(HostKeyError::Revoked {
                shown: shown(),
                at: Box::new(at),
            }));
        }
        let at = lookup::authority(files, names, authority)?;
        let signed_with = certificate.signature_algorithm();
        if let (Some(allowed), Some(used)) = (&self.authority_algorithms, signed_with)
            && !allowed.contains(&used)
        {
            return Some(Err(HostKeyError::AuthorityAlgorithm {
                shown: shown(),
                algorithm: used.name().to_owned(),
            }));
        }
        // Hosts' certificates have no critical options (PROTOCOL.certkeys): any is one too many.
        let held = certificate.check(CertificateKind::Host, &names.principal, now_unix, &[]);
        Some(match held {
            Ok(()) => Ok(at),
            Err(source) => Err(HostKeyError::Certificate {
                shown: shown(),
                at: Box::new(at),
                source,
            }),
        })
    }

    /// The list in which the key stands, if there is one.
    fn revoking_list(&self, key: &PublicKey) -> Result<Option<PathBuf>, HostKeyError> {
        for file in &self.revoked {
            let unreadable = |source| HostKeyError::Unreadable {
                file: file.clone(),
                source,
            };
            let bytes = read_within(file, REVOCATION_LIST_LEN_MAX as u64).map_err(unreadable)?;
            let list = RevocationList::parse(&bytes).map_err(|source| HostKeyError::List {
                file: file.clone(),
                source,
            })?;
            if list.is_revoked(key) {
                return Ok(Some(file.clone()));
            }
        }
        Ok(None)
    }

    /// Whether files say who the hosts are.
    pub(crate) const fn reads_files(&self) -> bool {
        matches!(self.rule, Rule::Files { .. })
    }

    /// Sorts algorithms so that the server shows a key that can be checked: certificates first
    /// where an authority is known for the host, and those of known keys before all others. What
    /// is equal stays in order.
    ///
    /// # Errors
    /// [`HostKeyError::Unreadable`].
    pub fn order(
        &self,
        host: &Host,
        port: u16,
        algorithms: &[SignatureAlgorithm],
    ) -> Result<Vec<SignatureAlgorithm>, HostKeyError> {
        let (types, has_authority) = self.known(host, port)?;
        let is_known = |algorithm: &SignatureAlgorithm| {
            (has_authority && algorithm.is_certificate())
                || types.contains(&algorithm.key_type().name())
        };
        let (mut known, others): (Vec<_>, Vec<_>) = algorithms.iter().copied().partition(is_known);
        known.extend(others);
        Ok(known)
    }

    /// The types of the keys by which `host` is known, in the order in which they stand.
    ///
    /// # Errors
    /// [`HostKeyError::Unreadable`].
    pub fn known_types(&self, host: &Host, port: u16) -> Result<Vec<&'static str>, HostKeyError> {
        self.known(host, port).map(|(types, _)| types)
    }

    fn known(&self, host: &Host, port: u16) -> Result<(Vec<&'static str>, bool), HostKeyError> {
        match &self.rule {
            Rule::AnyHost => Ok((Vec::new(), false)),
            Rule::Only(keys) => {
                let mut types: Vec<_> = keys.iter().map(|key| key.key_type().name()).collect();
                types.dedup();
                Ok((types, false))
            }
            Rule::Files { user, machine, .. } => {
                let files = read_all(user.iter().chain(machine))?;
                let contents: Vec<_> = files
                    .iter()
                    .map(|(path, bytes)| (*path, &bytes[..]))
                    .collect();
                let names = Names::of(host.as_str(), port, self.alias.as_deref());
                Ok(lookup::known(&contents, &names))
            }
        }
    }

    /// Writes down all keys that a host has and forgets those that it no longer has, in the user's
    /// first file. `keys` are all that the host announced and proved, `shown` is the one that it
    /// proved first, in the key exchange, and that was accepted.
    ///
    /// Nothing happens where OpenSSH does nothing, either: if `shown` does not stand in that file
    /// under the host's name, if an authority speaks for the host, or if a line about it has
    /// patterns or several names. Revoked keys are not learnt. Reads and writes files: call it
    /// where blocking is allowed.
    ///
    /// # Errors
    /// [`HostKeyError`]; the file is as it was then.
    pub fn update(
        &self,
        host: &Host,
        port: u16,
        shown: &PublicKey,
        keys: &[PublicKey],
    ) -> Result<Updated, HostKeyError> {
        let Rule::Files { user, machine, .. } = &self.rule else {
            return Ok(Updated::default());
        };
        let Some(file) = user.first() else {
            return Ok(Updated::default());
        };
        let names = Names::of(host.as_str(), port, self.alias.as_deref());
        let files = read_all(user.iter().chain(machine))?;
        let contents: Vec<_> = files
            .iter()
            .map(|(path, bytes)| (*path, &bytes[..]))
            .collect();
        let mut blobs: Vec<&[u8]> = Vec::new();
        for key in keys.iter().filter(|key| key.certificate().is_none()) {
            let is_revoked = lookup::revocation(&contents, &names, key.as_blob()).is_some()
                || self.revoking_list(key)?.is_some();
            if !is_revoked && !blobs.contains(&key.as_blob()) {
                blobs.push(key.as_blob());
            }
        }
        let shown = shown.plain();
        update::update(file, &names.entry, self.hash_names, shown.as_blob(), &blobs)
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
    read_within(path, FILE_LEN_MAX)
}

fn read_within(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    user_files::open_for_reading(path)?
        .take(len_max + 1)
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= len_max) {
        Ok(bytes)
    } else {
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is longer than 16 MiB",
        ))
    }
}
