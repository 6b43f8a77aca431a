//! Who may log in, with what, and where to.
//!
//! Names are keys of a map and nothing else: no path and no command is made of them. Passwords are
//! kept as keyed digests; an attempt costs the same work and is answered by the same bytes whether
//! or not the user exists, and the wait after a failure covers what differs in spite of that.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ketch_keys::Presence;
use ketch_transport::auth::Method;
use ketch_transport::config::AuthMethod;
use ketch_transport::crypto::hostkey::PublicKey;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::channel::Account;
use crate::config::BuildError;
use crate::fs::{FileSystem, LocalDirectory};
use crate::handles::HandleBudget;
use crate::policy::{Access, Policy};
use crate::root::Root;

/// Longest name of a user, in bytes.
pub const USER_NAME_LEN_MAX: usize = 255;
/// Longest password, in bytes.
pub const PASSWORD_LEN_MAX: usize = 1024;
/// A wrong password is answered this long after it came, at least.
const PASSWORD_FLOOR: Duration = Duration::from_millis(100);
/// A wrong key is answered this long after it came, at least; clients try several.
const KEY_FLOOR: Duration = Duration::from_millis(5);
/// A user's own addition to the floor is below this: always the same for one name, so that asking
/// often does not take it away.
const JITTER_MAX_MICROS: u64 = 50_000;

/// A user to be: a name, a root, and at least one way to log in.
#[derive(Clone)]
pub struct User {
    name: String,
    root: UserRoot,
    password: Option<Zeroizing<String>>,
    keys: Vec<PublicKey>,
    access: Access,
    symbolic_links: bool,
    hard_links: bool,
}

#[derive(Clone, Debug)]
enum UserRoot {
    Local(PathBuf),
    Other(Arc<dyn FileSystem>),
}

impl User {
    /// A user who sees the directory `root` of this machine as `/`, and nothing else.
    #[must_use]
    pub fn new(name: impl Into<String>, root: impl AsRef<Path>) -> Self {
        Self::with_root(name.into(), UserRoot::Local(root.as_ref().to_owned()))
    }

    /// A user who sees `files` as `/`.
    #[must_use]
    pub fn with_file_system(name: impl Into<String>, files: Arc<dyn FileSystem>) -> Self {
        Self::with_root(name.into(), UserRoot::Other(files))
    }

    fn with_root(name: String, root: UserRoot) -> Self {
        let (password, keys, access) = (None, Vec::new(), Access::ReadWrite);
        Self {
            name,
            root,
            password,
            keys,
            access,
            symbolic_links: false,
            hard_links: false,
        }
    }

    /// Lets the user in with this password (1 to [`PASSWORD_LEN_MAX`] bytes).
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Zeroizing::new(password.into()));
        self
    }

    /// Lets the user in with this key; may be called for several.
    #[must_use]
    pub fn authorized_key(mut self, key: PublicKey) -> Self {
        self.keys.push(key);
        self
    }

    /// Lets the user look only. Default: read and write.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.access = Access::ReadOnly;
        self
    }

    /// Lets the user make symbolic links: relative ones that stay beneath the root. Default: no.
    /// Links that are there are followed as long as they stay beneath it.
    #[must_use]
    pub const fn allow_symbolic_links(mut self) -> Self {
        self.symbolic_links = true;
        self
    }

    /// Lets the user give files a second name (`hardlink@openssh.com`). Default: no.
    #[must_use]
    pub const fn allow_hard_links(mut self) -> Self {
        self.hard_links = true;
        self
    }
}

/// Shows no password.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("root", &self.root)
            .field("has_password", &self.password.is_some())
            .field("keys", &self.keys.len())
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// All users of a server.
pub(crate) struct Users {
    records: BTreeMap<String, Record>,
    key: hmac::Key,
    /// What the attempts of unknown users are compared with.
    nobody: Digest,
}

type Digest = [u8; 32];

#[derive(Debug)]
struct Record {
    account: Arc<Account>,
    password: Option<Digest>,
    keys: Vec<PublicKey>,
}

/// What an attempt to log in comes to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The user is in.
    Accepted(Arc<Account>),
    /// The key would do; its owner has to prove that it is theirs.
    Acceptable,
    /// Not so; to be answered this long after it came, at least.
    Rejected(Duration),
}

impl Users {
    pub(crate) fn new(
        users: Vec<User>,
        handles_max: usize,
        idle_timeout: Duration,
    ) -> Result<Self, BuildError> {
        let mut secret = Zeroizing::new([0_u8; 32]);
        let mut nobody = [0; 32];
        let random = SystemRandom::new();
        random
            .fill(&mut secret[..])
            .map_err(|_| BuildError::Random)?;
        random.fill(&mut nobody).map_err(|_| BuildError::Random)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret[..]);
        let mut this = Self {
            records: BTreeMap::new(),
            key,
            nobody,
        };
        let budget = Arc::new(HandleBudget::new(handles_max));
        for user in users {
            let record = this.record(&user, &budget, idle_timeout)?;
            if this.records.insert(user.name.clone(), record).is_some() {
                return Err(BuildError::DuplicateUser { user: user.name });
            }
        }
        if this.records.is_empty() {
            return Err(BuildError::NoUsers);
        }
        Ok(this)
    }

    fn record(
        &self,
        user: &User,
        budget: &Arc<HandleBudget>,
        idle_timeout: Duration,
    ) -> Result<Record, BuildError> {
        let name = user.name.clone();
        if name.is_empty() || name.len() > USER_NAME_LEN_MAX || name.chars().any(char::is_control) {
            return Err(BuildError::BadUserName { user: name });
        }
        // No way in at all, or one that is open to everybody, is a mistake and not a wish.
        if user.password.is_none() && user.keys.is_empty() {
            return Err(BuildError::NoCredential { user: name });
        }
        if let Some(password) = &user.password
            && !(1..=PASSWORD_LEN_MAX).contains(&password.len())
        {
            return Err(BuildError::BadPassword { user: name });
        }
        let files: Arc<dyn FileSystem> =
            match &user.root {
                UserRoot::Other(files) => Arc::clone(files),
                UserRoot::Local(path) => Arc::new(LocalDirectory::open(path).map_err(
                    |source| BuildError::Root {
                        user: name.clone(),
                        path: path.clone(),
                        source,
                    },
                )?),
            };
        let policy = Policy {
            user: name.clone(),
            access: user.access,
            symbolic_links: user.symbolic_links,
            hard_links: user.hard_links,
        };
        let account = Account {
            root: Arc::new(Root::new(files)),
            policy: Arc::new(policy),
            budget: Arc::clone(budget),
            idle_timeout,
        };
        Ok(Record {
            account: Arc::new(account),
            password: user
                .password
                .as_ref()
                .map(|password| self.digest(&name, password)),
            keys: user.keys.clone(),
        })
    }

    /// The methods that anybody can use: the same for whoever asks.
    pub(crate) fn methods(&self) -> Vec<AuthMethod> {
        let mut methods = Vec::new();
        if self.records.values().any(|record| !record.keys.is_empty()) {
            methods.push(AuthMethod::PublicKey);
        }
        if self
            .records
            .values()
            .any(|record| record.password.is_some())
        {
            methods.push(AuthMethod::Password);
        }
        methods
    }

    /// Decides an attempt.
    pub(crate) fn check(&self, user: &str, method: &Method) -> Verdict {
        let record = self.records.get(user);
        match method {
            Method::Password(password) => {
                // The digest is made before anything depends on the record.
                let given = self.digest(user, password);
                let known = record.and_then(|record| record.password);
                let is_equal = given.ct_eq(known.as_ref().unwrap_or(&self.nobody));
                match record {
                    Some(record) if known.is_some() && bool::from(is_equal) => {
                        Verdict::Accepted(Arc::clone(&record.account))
                    }
                    _ => Verdict::Rejected(PASSWORD_FLOOR.saturating_add(self.jitter(user))),
                }
            }
            Method::PublicKey { key, .. } | Method::PublicKeyQuery { key, .. } => {
                let is_proved = match method {
                    // A security key that nobody touched proves nothing.
                    Method::PublicKey { presence, .. } => {
                        presence.is_none_or(Presence::user_present)
                    }
                    _ => false,
                };
                match record.filter(|record| record.keys.contains(key)) {
                    Some(record) if is_proved => Verdict::Accepted(Arc::clone(&record.account)),
                    Some(_) => Verdict::Acceptable,
                    None => Verdict::Rejected(KEY_FLOOR.saturating_add(self.jitter(user) / 10)),
                }
            }
            // The same for everybody: there is nothing to hide.
            _ => Verdict::Rejected(Duration::ZERO),
        }
    }

    fn digest(&self, user: &str, password: &str) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(user.len() as u64).to_be_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn jitter(&self, user: &str) -> Duration {
        let tag = hmac::sign(&self.key, user.as_bytes());
        let number = tag
            .as_ref()
            .first_chunk()
            .map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Duration::from_micros(number % JITTER_MAX_MICROS)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.records.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::MemoryFileSystem;

    fn user(name: &str) -> User {
        User::with_file_system(name, Arc::new(MemoryFileSystem::new()))
    }

    fn users(users: Vec<User>) -> Result<Users, BuildError> {
        Users::new(users, 10, Duration::from_secs(1))
    }

    fn password(password: &str) -> Method {
        Method::Password(Zeroizing::new(password.to_owned()))
    }

    #[test]
    fn a_user_is_let_in_by_the_right_password_alone() {
        let users = users(vec![
            user("anna").password("right"),
            user("bob").password("other"),
        ])
        .unwrap();
        let verdict = users.check("anna", &password("right"));
        assert!(matches!(&verdict, Verdict::Accepted(account) if account.policy.user == "anna"));
        for (name, given) in [
            ("anna", "wrong"),
            ("anna", ""),
            ("anna", "other"),
            ("bob", "right"),
            ("eve", "right"),
        ] {
            let verdict = users.check(name, &password(given));
            assert!(
                matches!(verdict, Verdict::Rejected(after) if after >= PASSWORD_FLOOR),
                "{name} {given}"
            );
        }
        assert!(matches!(
            users.check("anna", &Method::None),
            Verdict::Rejected(_)
        ));
    }

    #[test]
    fn a_query_is_not_a_proof() {
        let (key, other) = (PublicKey::ed25519([1; 32]), PublicKey::ed25519([2; 32]));
        let users = users(vec![user("anna").authorized_key(key.clone())]).unwrap();
        let algorithm = key.algorithms()[0];
        let query = |key| Method::PublicKeyQuery { key, algorithm };
        let signed = |key| Method::PublicKey {
            key,
            algorithm,
            presence: None,
        };
        let verdict = users.check("anna", &query(key.clone()));
        assert!(matches!(verdict, Verdict::Acceptable));
        assert!(matches!(
            users.check("anna", &signed(key)),
            Verdict::Accepted(_)
        ));
        for method in [query(other.clone()), signed(other)] {
            assert!(matches!(users.check("anna", &method), Verdict::Rejected(_)));
        }
    }

    #[test]
    fn a_user_without_a_password_has_none_that_fits() {
        let key = PublicKey::ed25519([1; 32]);
        let users = users(vec![user("anna").authorized_key(key)]).unwrap();
        for given in ["", "x"] {
            assert!(matches!(
                users.check("anna", &password(given)),
                Verdict::Rejected(_)
            ));
        }
        assert_eq!(users.methods(), [AuthMethod::PublicKey]);
    }

    #[test]
    fn degenerate_users_are_refused_at_the_start() {
        let long = "n".repeat(USER_NAME_LEN_MAX + 1);
        for bad in [
            vec![],
            vec![user("anna")],
            vec![user("anna").password("")],
            vec![user("anna").password("p".repeat(PASSWORD_LEN_MAX + 1))],
            vec![user("").password("x")],
            vec![user("a\nb").password("x")],
            vec![user(&long).password("x")],
            vec![user("anna").password("x"), user("anna").password("y")],
            vec![User::new("anna", "/no/such/directory").password("x")],
        ] {
            let shown = format!("{bad:?}");
            assert!(users(bad).is_err(), "{shown}");
        }
    }

    #[test]
    fn a_user_is_shown_without_the_password() {
        assert!(!format!("{:?}", user("anna").password("hunter2")).contains("hunter2"));
    }

    #[test]
    fn jitter_is_a_users_own_and_stays_the_same() {
        let users = users(vec![user("anna").password("x")]).unwrap();
        let all: Vec<_> = (0..50).map(|n| users.jitter(&format!("user{n}"))).collect();
        assert!(
            all.iter()
                .all(|jitter| jitter.as_micros() < u128::from(JITTER_MAX_MICROS))
        );
        assert!(all.iter().any(|jitter| *jitter != all[0]));
        assert_eq!(users.jitter("anna"), users.jitter("anna"));
    }
}
