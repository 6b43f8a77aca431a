//! From tables to a server: reads the files that they name, and says what types cannot.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ketch_keys::{KeyType, PublicKey, RevocationList};
use ketch_settings::{Period, Places, below, strict};
use ketch_transport::config::{AuthMethod, CommonConfig, HostKey};
use ketch_transport::profile::{Preferences, Profile};

use super::tables::{
    AccessName, Algorithms, ArrivalsTable, BandwidthTable, DurabilityName, EndpointTable, Factor,
    HostKeyTable, HostKeyType, PenaltiesTable, QuotaTable, RightName, Stage, TimeoutsTable,
    UserTable,
};
use super::{FileFault, FileFaults, ServerFile, host_keys};
use crate::config::{BuildError, ServerBuilder, ServerLimits, Timeouts};
use crate::fs::staging::Durability;
use crate::login::credentials::Source;
use crate::login::penalties::Penalties;
use crate::login::users::User;
use crate::policy::arrivals::Arrivals;
use crate::policy::bandwidth::Bandwidth;
use crate::policy::quota::Quota;
use crate::policy::{BadPattern, Right, Rights, Rules};

/// A session in which no command came for so long is closed, if the file says nothing else.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Longest file of keys that is read, in bytes.
const KEYS_FILE_LEN_MAX: u64 = 1024 * 1024;
/// Longest list of revoked keys that is read, in bytes.
const REVOKED_FILE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// What becomes of host keys that are not there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HostKeys {
    /// They are made.
    Make,
    /// They would be made; until then one in memory stands for them.
    Check,
}

/// Puts the server of a file together.
pub(super) fn builder(file: &ServerFile, missing: HostKeys) -> Result<ServerBuilder, FileFaults> {
    let tables = &file.tables;
    let transport = transport(tables.algorithms);
    let mut build = Build {
        places: &file.places,
        faults: Vec::new(),
        offered: transport.preferences.clone(),
    };
    let mut builder = ServerBuilder::default()
        .timeouts(timeouts(&tables.timeouts))
        .limits(limits(file))
        .transport(transport);
    if let Some(banner) = &tables.banner {
        builder = builder.banner(banner);
    }
    builder = match penalties(&tables.penalties) {
        Some(penalties) => builder.penalties(penalties),
        None => builder.without_penalties(),
    };
    if tables.uniform_key_queries {
        builder = builder.uniform_key_queries();
    }
    for authority in &tables.user_authorities {
        builder = builder.user_authority(authority.0.clone());
    }
    if let Some(path) = &tables.revoked_keys_file
        && let Some(list) = build.revoked(path)
    {
        builder = builder.revoked_keys(list);
    }
    builder = build.host_keys(builder, &tables.host_key, missing);

    let mut users = BTreeMap::new();
    for (organisation_name, table) in &tables.organisation {
        let organisation = below(&below("organisation", organisation_name), "endpoint");
        for (endpoint_name, table) in &table.endpoint {
            let endpoint = below(&organisation, endpoint_name);
            build.arrivals(&endpoint, table.arrivals.as_ref());
            // Users of one directory share what has arrived there.
            let mut arrivals: BTreeMap<PathBuf, Arrivals> = BTreeMap::new();
            for (name, user) in &table.user {
                let key = below(&below(&endpoint, "user"), name);
                match users.entry(name.clone()) {
                    Entry::Occupied(other) => {
                        build.fault(&key, format!("this name is taken by {}", other.get()));
                        continue;
                    }
                    Entry::Vacant(free) => _ = free.insert(key.clone()),
                }
                let root = build.root(table, user);
                let user = build.user(&key, User::new(name, &root), table, user);
                let user = user.belongs_to(organisation_name, endpoint_name);
                let user = match (arrivals.entry(root), &table.arrivals) {
                    (_, None) => user,
                    (Entry::Occupied(shared), _) => user.arrivals(shared.get().clone()),
                    (Entry::Vacant(free), Some(table)) => match arrivals_of(table) {
                        Ok(arrivals) => user.arrivals(free.insert(arrivals).clone()),
                        Err(_) => user, // told above
                    },
                };
                builder = builder.user(user);
            }
        }
    }
    if users.is_empty() {
        build.fault("organisation", "there is no user in the whole file");
    }
    // What is wrong with a user's keys is told already.
    let told: Vec<_> = build.faults.iter().map(|fault| fault.key.clone()).collect();
    match builder.user_faults() {
        Ok(faults) => {
            for fault in faults {
                let (user, what) = of_user(&fault);
                let Some(key) = users.get(&user) else {
                    continue;
                };
                let is_of_user = |told: &String| {
                    let rest = told.strip_prefix(key.as_str());
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
                };
                if !told.iter().any(is_of_user) {
                    build.fault(key, what);
                }
            }
        }
        Err(error) => build.faults.push(FileFault::of_file(error.to_string())),
    }
    match build.faults.is_empty() {
        true => Ok(builder),
        false => Err(FileFaults::new(file.places.path(), build.faults)),
    }
}

struct Build<'a> {
    places: &'a Places,
    faults: Vec<FileFault>,
    /// The algorithms of the server.
    offered: Preferences,
}

impl Build<'_> {
    fn fault(&mut self, key: &str, what: impl Into<String>) {
        self.faults.push(self.places.fault(key, what));
    }

    fn root(&self, of: &EndpointTable, table: &UserTable) -> PathBuf {
        let mut root = self.places.resolve(&of.root);
        if let Some(beneath) = &table.root {
            root.push(beneath);
        }
        root
    }

    fn user(&mut self, key: &str, mut user: User, of: &EndpointTable, table: &UserTable) -> User {
        for line in &table.authorized_keys {
            user = user.authorized_key(line.0.clone());
        }
        if let Some(path) = &table.authorized_keys_file {
            let key = below(key, "authorized_keys_file");
            for public in self.public_keys(&key, path) {
                user = user.authorized_key(public);
            }
        }
        if let Some(hash) = &table.password_hash {
            user = user.password_hash(hash.0.clone());
        }
        for authority in &table.certificate_authorities {
            user = user.certificate_authority(authority.key.0.clone(), &authority.principals);
        }
        let required = table.require.iter().map(|factor| match factor {
            Factor::Publickey => AuthMethod::PublicKey,
            Factor::Password => AuthMethod::Password,
        });
        user = user.require(required);
        for sources in [&of.sources, &table.sources].into_iter().flatten() {
            let sources: Vec<Source> = sources.iter().map(|word| word.0).collect();
            user = user.sources(sources);
        }
        if let Some(expires) = table.expires {
            user = user.expires(expires.unix);
        }
        if let Some(connections) = table.connections {
            user = user.connections_max(connections);
        }
        if table.disabled || of.disabled {
            user = user.disabled();
        }
        user = self.rights(key, user, of, table);
        if let Some(QuotaTable { bytes, files }) = &table.quota {
            let bytes = bytes.map(|size| size.0);
            user = user.quota(Quota {
                bytes,
                files: *files,
            });
        }
        if let Some(BandwidthTable { upload, download }) = &table.bandwidth {
            let [upload, download] = [upload, download].map(|rate| rate.map(|size| size.0.max(1)));
            user = user.bandwidth(Bandwidth { upload, download });
        }
        if let Some(durability) = of.atomic_uploads {
            user = user.atomic_uploads(match durability {
                DurabilityName::None => Durability::None,
                DurabilityName::File => Durability::File,
                DurabilityName::Full => Durability::Full,
            });
        }
        if of.exclusive_uploads {
            user = user.exclusive_uploads();
        }
        user = user.idle_timeout(of.idle_timeout.map_or(IDLE_TIMEOUT, |period| period.0));
        if table.symbolic_links {
            user = user.allow_symbolic_links();
        }
        if table.hard_links {
            user = user.allow_hard_links();
        }
        user
    }

    /// What a user may do: the rules of the endpoint, and behind them the user's own.
    fn rights(&mut self, key: &str, user: User, of: &EndpointTable, table: &UserTable) -> User {
        let access = table.access.unwrap_or(of.access);
        let has_rules = !of.rules.is_empty() || !table.rules.is_empty();
        let base = match access {
            AccessName::ReadWrite if !has_rules => return user,
            AccessName::ReadOnly if !has_rules => return user.read_only(),
            AccessName::ReadWrite => Rights::ALL,
            AccessName::ReadOnly => Rights::read_only(),
            AccessName::UploadOnly => Rights::upload_only(),
        };
        let mut rules = Rules::new(base);
        for (n, rule) in of.rules.iter().chain(&table.rules).enumerate() {
            let rights = rule.allow.iter().fold(Rights::NONE, |rights, name| {
                rights.and(match name {
                    RightName::List => Right::List,
                    RightName::Read => Right::Read,
                    RightName::Write => Right::Write,
                    RightName::Overwrite => Right::Overwrite,
                    RightName::Delete => Right::Delete,
                    RightName::Rename => Right::Rename,
                    RightName::Mkdir => Right::Mkdir,
                    RightName::Attributes => Right::Attributes,
                })
            });
            // What the user may do at all bounds what the endpoint allows here and there.
            let rights = match table.access {
                Some(_) if n < of.rules.len() => rights.both(base),
                _ => rights,
            };
            rules = match rules.rule(&rule.path.0, rights) {
                Ok(rules) => rules,
                // Each was looked at alone: they are too many together.
                Err(error) => {
                    self.fault(&below(key, "rules"), format!("rule {}: {error}", n + 1));
                    return user;
                }
            };
        }
        user.rules(rules)
    }

    fn arrivals(&mut self, key: &str, table: Option<&ArrivalsTable>) {
        if let Some(Err(error)) = table.map(arrivals_of) {
            self.fault(&below(key, "arrivals"), error.to_string());
        }
    }

    /// The public keys of a file, one a line. A line that cannot be kept to is told, never left out.
    fn public_keys(&mut self, key: &str, path: &Path) -> Vec<PublicKey> {
        let path = self.places.resolve(path);
        let text = match strict::text(&path, KEYS_FILE_LEN_MAX) {
            Ok(text) => text,
            Err(why) => {
                self.fault(key, format!("{}: {why}", path.display()));
                return Vec::new();
            }
        };
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match PublicKey::from_line(line) {
                Ok(public) => keys.push(public),
                Err(error) => {
                    let what = format!("{}, line {number}: {error}", path.display());
                    self.fault(key, what);
                }
            }
        }
        if keys.is_empty() {
            self.fault(key, format!("{}: there is no key in it", path.display()));
        }
        keys
    }

    fn revoked(&mut self, path: &Path) -> Option<RevocationList> {
        let path = self.places.resolve(path);
        let read = strict::bytes(&path, REVOKED_FILE_LEN_MAX).map_err(|why| why.to_string());
        let list =
            read.and_then(|bytes| RevocationList::parse(&bytes).map_err(|why| why.to_string()));
        list.map_err(|why| self.fault("revoked_keys_file", format!("{}: {why}", path.display())))
            .ok()
    }

    fn host_keys(
        &mut self,
        mut builder: ServerBuilder,
        tables: &[HostKeyTable],
        missing: HostKeys,
    ) -> ServerBuilder {
        let (mut announced, mut types) = (Vec::new(), Vec::new());
        for (n, table) in tables.iter().enumerate() {
            let key = format!("host_key[{n}]");
            let Some(host_key) = self.host_key(&key, table, missing) else {
                continue;
            };
            let host_key = Arc::new(host_key);
            if table.stage != Stage::Next {
                let key_type = host_key.public_key().key_type();
                if types.contains(&key_type) {
                    let what = format!("there is another {key_type} key in use: this one never is");
                    let fault = self.places.fault(&key, what);
                    let hint = "one is current or retired, and the other next";
                    self.faults.push(fault.hint(hint));
                }
                let mut algorithms = host_key.public_key().algorithms().iter();
                if !algorithms.any(|each| self.offered.host_key.contains(each)) {
                    let what =
                        format!("a key of type {key_type} is never used by these `algorithms`");
                    let fault = self.places.fault(&key, what);
                    self.faults.push(fault.hint("`compat` has more"));
                }
                types.push(key_type);
                builder = builder.shared_host_key(Arc::clone(&host_key));
            }
            if table.stage != Stage::Retired {
                announced.push(host_key);
            }
        }
        if !tables.iter().any(|table| table.stage == Stage::Current) {
            self.fault("host_key", "none of the keys is current");
        }
        builder.announce_host_keys(announced)
    }

    fn host_key(&mut self, key: &str, table: &HostKeyTable, missing: HostKeys) -> Option<HostKey> {
        let key_type = match table.key_type {
            HostKeyType::Ed25519 => KeyType::Ed25519,
            HostKeyType::EcdsaP256 => KeyType::EcdsaP256,
            HostKeyType::EcdsaP384 => KeyType::EcdsaP384,
            HostKeyType::EcdsaP521 => KeyType::EcdsaP521,
        };
        let path = self.places.resolve(&table.file);
        let private = match missing {
            HostKeys::Make => host_keys::host_key_file(&path, key_type),
            HostKeys::Check => host_keys::read(&path).and_then(|found| match found {
                Some(found) => Ok(found),
                None => Ok(ketch_keys::PrivateKey::generate(key_type)?),
            }),
        };
        let host_key = match private {
            Ok(private) => HostKey::new(private),
            Err(why) => {
                let what = format!("{}: {}", path.display(), chain(&why));
                self.fault(&below(key, "file"), what);
                return None;
            }
        };
        let Some(certificate) = &table.certificate else {
            return Some(host_key);
        };
        let key = below(key, "certificate");
        let path = self.places.resolve(certificate);
        let line = strict::text(&path, KEYS_FILE_LEN_MAX).map_err(|why| why.to_string());
        let parsed =
            line.and_then(|line| PublicKey::from_line(&line).map_err(|why| why.to_string()));
        let whole = parsed.and_then(|certificate| {
            let wrong = |_| "this is no certificate of the key".to_owned();
            host_key.with_certificate(certificate).map_err(wrong)
        });
        whole
            .map_err(|why| self.fault(&key, format!("{}: {why}", path.display())))
            .ok()
    }
}

fn arrivals_of(table: &ArrivalsTable) -> Result<Arrivals, BadPattern> {
    let mut arrivals = match &table.trigger_suffix {
        None => Arrivals::on_close(),
        Some(suffix) => Arrivals::on_trigger(suffix)?,
    };
    for pattern in &table.temporary_names {
        arrivals = arrivals.temporary_name(&pattern.0)?;
    }
    Ok(match table.allow_changes {
        true => arrivals.allow_changes(),
        false => arrivals,
    })
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Whose fault it is, and what is wrong, to stand behind the user's key.
fn of_user(fault: &BuildError) -> (String, String) {
    let (user, what) = match fault {
        BuildError::BadUserName { user } => (user, "this is no name for a user".to_owned()),
        BuildError::NoCredential { user } => (
            user,
            "there is no way to log in: no key, no authority, no password_hash".to_owned(),
        ),
        BuildError::Unattainable { user } => {
            let what = "what is required is more than the user has to log in with";
            (user, what.to_owned())
        }
        BuildError::Root { user, path, source } => {
            let path: &PathBuf = path;
            let what = format!("the root {} cannot be opened: {source}", path.display());
            (user, what)
        }
        BuildError::BadPassword { user } | BuildError::DuplicateUser { user } => {
            (user, fault.to_string())
        }
        BuildError::NoHostKey | BuildError::NoUsers | BuildError::Random => {
            return (String::new(), fault.to_string());
        }
    };
    (user.clone(), what)
}

fn timeouts(table: &TimeoutsTable) -> Timeouts {
    let TimeoutsTable {
        handshake,
        authentication,
        shutdown,
    } = table;
    let mut timeouts = Timeouts::default();
    let set = |to: &mut Duration, word: &Option<Period>| {
        if let Some(word) = word {
            *to = word.0;
        }
    };
    set(&mut timeouts.handshake, handshake);
    set(&mut timeouts.authentication, authentication);
    set(&mut timeouts.shutdown, shutdown);
    timeouts
}

fn limits(file: &ServerFile) -> ServerLimits {
    let table = &file.tables.limits;
    let mut limits = ServerLimits::default();
    let set = |to: &mut usize, number: Option<usize>| *to = number.unwrap_or(*to);
    set(&mut limits.connections_max, table.connections);
    set(&mut limits.half_open_max, table.half_open);
    set(
        &mut limits.half_open_per_source_max,
        table.half_open_per_source,
    );
    set(&mut limits.password_hashes_max, table.password_hashes);
    set(&mut limits.handles_max, table.handles);
    limits
}

fn penalties(table: &PenaltiesTable) -> Option<Penalties> {
    if table.enabled == Some(false) {
        return None;
    }
    Some(Penalties {
        exempt: table.exempt.iter().map(|word| word.0).collect(),
        ..Penalties::default()
    })
}

fn transport(algorithms: Algorithms) -> CommonConfig {
    let profile = match algorithms {
        Algorithms::Modern => Profile::Modern,
        Algorithms::Compat => Profile::Compat,
        Algorithms::PqOnly => Profile::PqOnly,
    };
    let mut config = CommonConfig::default();
    if let Some(preferences) = profile.for_server() {
        config.preferences = preferences;
    }
    config
}
