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

use ketch_keys::PublicKey;
use ketch_transport::auth::Method;
use ketch_transport::config::AuthMethod;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::channel::Account;
use crate::config::BuildError;
use crate::credentials::{
    Authority, AuthorizedKey, Moment, Restrictions, Revoked, Shown, by_certificate, by_key,
};
use crate::fs::{FileSystem, LocalDirectory};
use crate::handles::HandleBudget;
use crate::policy::{Access, Policy};
use crate::root::Root;

/// Longest name of a user, in bytes.
pub const USER_NAME_LEN_MAX: usize = 255;
/// Longest password, in bytes.
pub const PASSWORD_LEN_MAX: usize = 1024;
/// Most steps that a login may be made of.
pub const STEPS_MAX: usize = 4;
/// What is wrong is answered this long after it came, at least, by whatever method.
const FLOOR: Duration = Duration::from_millis(100);
/// A user's own addition to the floor is below this: always the same for one name, so that asking
/// often does not take it away.
const JITTER_MAX_MICROS: u64 = 50_000;

/// A user to be: a name, a root, and at least one way to log in.
#[derive(Clone)]
pub struct User {
    name: String,
    root: UserRoot,
    password: Option<Zeroizing<String>>,
    keys: Vec<AuthorizedKey>,
    authorities: Vec<Authority>,
    required: Vec<AuthMethod>,
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
        Self {
            name,
            root,
            password: None,
            keys: Vec::new(),
            authorities: Vec::new(),
            required: Vec::new(),
            access: Access::ReadWrite,
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

    /// Lets the user in with this key, under its conditions; may be called for several.
    #[must_use]
    pub fn authorized_key(mut self, key: impl Into<AuthorizedKey>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Lets the user in with certificates of this authority that name one of these principals; may
    /// be called for several. Authorities whose certificates name users by their own names are the
    /// server's: [`ServerBuilder::user_authority`](crate::ServerBuilder::user_authority).
    #[must_use]
    pub fn certificate_authority(
        mut self,
        key: PublicKey,
        principals: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let principals = principals.into_iter().map(Into::into).collect();
        self.authorities.push(Authority { key, principals });
        self
    }

    /// Wants these methods, all of them and in this order, at most [`STEPS_MAX`]; a method that
    /// stands there twice wants two different keys. Default: any one that the user has.
    ///
    /// A key should come before a password: then nobody who has no key learns whether a password is
    /// right.
    #[must_use]
    pub fn require(mut self, methods: impl IntoIterator<Item = AuthMethod>) -> Self {
        self.required = methods.into_iter().collect();
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
            .field("authorities", &self.authorities.len())
            .field("required", &self.required)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// What holds for all users of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Authorities whose certificates name users by their own names.
    pub(crate) authorities: Vec<PublicKey>,
    pub(crate) revoked: Revoked,
    /// Whether any key at all is said to do, so that asking tells nothing.
    pub(crate) uniform_queries: bool,
}

/// All users of a server.
pub(crate) struct Users {
    records: BTreeMap<String, Record>,
    trust: Trust,
    key: hmac::Key,
    /// What the attempts of unknown users are compared with.
    nobody: Digest,
}

type Digest = [u8; 32];

#[derive(Debug)]
struct Record {
    account: Arc<Account>,
    password: Option<Digest>,
    keys: Vec<AuthorizedKey>,
    authorities: Vec<Authority>,
    required: Vec<AuthMethod>,
}

/// The steps that somebody has taken on one connection. They are one user's: the transport sees to
/// it that nobody else goes on from there.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// The key of each, where it was one.
    taken: Vec<Option<PublicKey>>,
    restrictions: Restrictions,
}

/// What a login comes to: the only way to a session.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) account: Arc<Account>,
    /// Only the subsystem `sftp` may be started.
    pub(crate) sftp_only: bool,
}

/// What an attempt to log in comes to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The user is in.
    Accepted(Outcome),
    /// It was right, and this is wanted next.
    Partial(AuthMethod),
    /// The key would do; its owner has to prove that it is theirs.
    Acceptable,
    /// Not so; to be answered this long after it came, at least.
    Rejected(Duration),
}

impl Users {
    pub(crate) fn new(
        users: Vec<User>,
        trust: Trust,
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
            trust,
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
        let has_key = !user.keys.is_empty()
            || !user.authorities.is_empty()
            || !self.trust.authorities.is_empty();
        if user.password.is_none() && !has_key {
            return Err(BuildError::NoCredential { user: name });
        }
        let no_principal = |authority: &Authority| authority.principals.is_empty();
        if user.authorities.iter().any(no_principal) || !can_be_met(user, has_key) {
            return Err(BuildError::Unattainable { user: name });
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
            authorities: user.authorities.clone(),
            required: user.required.clone(),
        })
    }

    /// The methods that anybody can use: the same for whoever asks.
    pub(crate) fn methods(&self) -> Vec<AuthMethod> {
        let mut methods = Vec::new();
        let has_key = |record: &Record| !record.keys.is_empty() || !record.authorities.is_empty();
        if !self.trust.authorities.is_empty() || self.records.values().any(has_key) {
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

    /// Decides an attempt that follows on `steps`.
    pub(crate) fn check(
        &self,
        user: &str,
        method: &Method,
        steps: &mut Steps,
        moment: Moment,
    ) -> Verdict {
        // The work is done before anything depends on whether there is such a user.
        let record = self.records.get(user);
        let rejected = Verdict::Rejected(FLOOR.saturating_add(self.jitter(user)));
        let (kind, key, restrictions) = match method {
            Method::Password(password) => {
                let is_right = self.has_password(user, password, record);
                (
                    AuthMethod::Password,
                    None,
                    is_right.then(Restrictions::default),
                )
            }
            // Passwords are not changed here: the old one is looked at, and neither is taken.
            Method::PasswordChange { old, .. } => {
                let _ = self.has_password(user, old, record);
                return rejected;
            }
            Method::PublicKeyQuery { key, .. } => {
                let would_do = record.is_some_and(|record| {
                    record.wants_next(AuthMethod::PublicKey, steps)
                        && self
                            .by_any_key(user, record, key, Shown::Asked, moment)
                            .is_some()
                });
                return if would_do || self.trust.uniform_queries {
                    Verdict::Acceptable
                } else {
                    rejected
                };
            }
            Method::PublicKey { key, presence, .. } => {
                let shown = Shown::Signed(*presence);
                let restrictions =
                    record.and_then(|record| self.by_any_key(user, record, key, shown, moment));
                (AuthMethod::PublicKey, Some(key.plain()), restrictions)
            }
            // Which methods there are is the same for everybody: there is nothing to hide.
            Method::None => return Verdict::Rejected(Duration::ZERO),
            _ => return rejected,
        };
        let (Some(record), Some(restrictions)) = (record, restrictions) else {
            return rejected;
        };
        // Two steps by key are two keys.
        let is_used = key.is_some() && steps.taken.contains(&key);
        if is_used || !record.wants_next(kind, steps) {
            return rejected;
        }
        steps.taken.push(key);
        steps.restrictions = steps.restrictions.and(restrictions);
        match record.required.get(steps.taken.len()) {
            Some(next) => Verdict::Partial(*next),
            None => match outcome(record, steps.restrictions, moment) {
                Some(outcome) => Verdict::Accepted(outcome),
                None => rejected,
            },
        }
    }

    fn has_password(&self, user: &str, password: &str, record: Option<&Record>) -> bool {
        let given = self.digest(user, password);
        let known = record.and_then(|record| record.password);
        let is_equal = given.ct_eq(known.as_ref().unwrap_or(&self.nobody));
        known.is_some() & bool::from(is_equal)
    }

    /// Under which restrictions a key or certificate lets a user in.
    fn by_any_key(
        &self,
        user: &str,
        record: &Record,
        key: &PublicKey,
        shown: Shown,
        moment: Moment,
    ) -> Option<Restrictions> {
        if self.trust.revoked.has(key) {
            return None;
        }
        let Some(certificate) = key.certificate() else {
            return by_key(&record.keys, key, shown, moment);
        };
        let of_server = self.trust.authorities.iter().map(|key| (key, user));
        let of_user = record.authorities.iter().flat_map(|authority| {
            let principals = authority.principals.iter();
            principals.map(|principal| (&authority.key, principal.as_str()))
        });
        by_certificate(of_server.chain(of_user), certificate, shown, moment)
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

impl Record {
    /// Whether that method may come after those steps.
    fn wants_next(&self, method: AuthMethod, steps: &Steps) -> bool {
        match self.required.get(steps.taken.len()) {
            Some(required) => *required == method,
            None => self.required.is_empty(),
        }
    }
}

/// The one place where a login becomes a session, with everything that restricts it.
fn outcome(record: &Record, restrictions: Restrictions, moment: Moment) -> Option<Outcome> {
    let Restrictions {
        read_only,
        sftp_only,
        expires,
    } = restrictions;
    if expires.is_some_and(|at| moment.now >= at) {
        return None;
    }
    let account = match read_only {
        false => Arc::clone(&record.account),
        true => Arc::new(record.account.read_only()),
    };
    Some(Outcome { account, sftp_only })
}

/// Whether the user has what is required of them.
fn can_be_met(user: &User, has_key: bool) -> bool {
    let count = |method| user.required.iter().filter(|each| **each == method).count();
    let keys = count(AuthMethod::PublicKey);
    let passwords = count(AuthMethod::Password);
    // Certificates may be as many as one likes.
    let different = user.keys.iter().enumerate().filter(|(n, entry)| {
        let before = user.keys.iter().take(*n);
        before.into_iter().all(|other| other.key() != entry.key())
    });
    let enough_keys = keys < 2 || !user.authorities.is_empty() || keys <= different.count();
    user.required.len() <= STEPS_MAX
        && keys + passwords == user.required.len()
        && (keys == 0 || (has_key && enough_keys))
        && (passwords == 0 || (passwords == 1 && user.password.is_some()))
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
        Users::new(users, Trust::default(), 10, Duration::from_secs(1))
    }

    const MOMENT: Moment = Moment {
        source: None,
        now: 1_800_000_000,
    };

    /// The first step of a login.
    fn check(users: &Users, user: &str, method: &Method) -> Verdict {
        users.check(user, method, &mut Steps::default(), MOMENT)
    }

    fn query(key: PublicKey) -> Method {
        let algorithm = key.algorithms()[0];
        Method::PublicKeyQuery { key, algorithm }
    }

    fn signed(key: PublicKey) -> Method {
        Method::PublicKey {
            algorithm: key.algorithms()[0],
            key,
            presence: None,
        }
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
        let verdict = check(&users, "anna", &password("right"));
        assert!(
            matches!(&verdict, Verdict::Accepted(outcome) if outcome.account.policy.user == "anna")
        );
        for (name, given) in [
            ("anna", "wrong"),
            ("anna", ""),
            ("anna", "other"),
            ("bob", "right"),
            ("eve", "right"),
        ] {
            let verdict = check(&users, name, &password(given));
            assert!(
                matches!(verdict, Verdict::Rejected(after) if after >= FLOOR),
                "{name} {given}"
            );
        }
        assert!(matches!(
            check(&users, "anna", &Method::None),
            Verdict::Rejected(_)
        ));
    }

    #[test]
    fn a_query_is_not_a_proof() {
        let (key, other) = (PublicKey::ed25519([1; 32]), PublicKey::ed25519([2; 32]));
        let users = users(vec![user("anna").authorized_key(key.clone())]).unwrap();
        let verdict = check(&users, "anna", &query(key.clone()));
        assert!(matches!(verdict, Verdict::Acceptable));
        assert!(matches!(
            check(&users, "anna", &signed(key)),
            Verdict::Accepted(_)
        ));
        for method in [query(other.clone()), signed(other)] {
            assert!(matches!(
                check(&users, "anna", &method),
                Verdict::Rejected(_)
            ));
        }
    }

    #[test]
    fn a_user_without_a_password_has_none_that_fits() {
        let key = PublicKey::ed25519([1; 32]);
        let users = users(vec![user("anna").authorized_key(key)]).unwrap();
        for given in ["", "x"] {
            assert!(matches!(
                check(&users, "anna", &password(given)),
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

    fn key(seed: u8) -> PublicKey {
        PublicKey::ed25519([seed; 32])
    }

    fn from(address: &str, now: u64) -> Moment {
        let source = Some(address.parse().unwrap());
        Moment { source, now }
    }

    #[test]
    fn what_a_key_is_bound_to_is_enforced() {
        let bound = AuthorizedKey::new(key(1))
            .from_addresses(["192.0.2.0/24".parse().unwrap()])
            .expires_at(2_000)
            .read_only();
        let users = users(vec![user("anna").authorized_key(bound)]).unwrap();
        let verdict = |moment| users.check("anna", &signed(key(1)), &mut Steps::default(), moment);
        let Verdict::Accepted(outcome) = verdict(from("192.0.2.9", 1_999)) else {
            panic!("it is the right place and time")
        };
        assert_eq!(outcome.account.policy.access, Access::ReadOnly);
        for moment in [
            from("192.0.3.9", 1_999),
            from("192.0.2.9", 2_000),
            MOMENT,
            Moment {
                source: None,
                now: 1_000,
            },
        ] {
            assert!(
                matches!(verdict(moment), Verdict::Rejected(_)),
                "{moment:?}"
            );
            let asked = users.check("anna", &query(key(1)), &mut Steps::default(), moment);
            assert!(matches!(asked, Verdict::Rejected(_)), "{moment:?}");
        }
    }

    #[test]
    fn all_that_is_required_is_wanted_in_its_order() {
        use AuthMethod::{Password, PublicKey};
        let users = users(vec![
            user("anna")
                .password("right")
                .authorized_key(key(1))
                .authorized_key(AuthorizedKey::new(key(2)).read_only())
                .require([PublicKey, PublicKey, Password]),
        ])
        .unwrap();
        let mut steps = Steps::default();
        let mut step = |method: &Method| users.check("anna", method, &mut steps, MOMENT);
        assert!(matches!(step(&password("right")), Verdict::Rejected(_)));
        assert!(matches!(step(&signed(key(1))), Verdict::Partial(PublicKey)));
        // The same key is no second one.
        assert!(matches!(step(&signed(key(1))), Verdict::Rejected(_)));
        assert!(matches!(step(&signed(key(3))), Verdict::Rejected(_)));
        assert!(matches!(step(&signed(key(2))), Verdict::Partial(Password)));
        assert!(matches!(step(&password("wrong")), Verdict::Rejected(_)));
        let Verdict::Accepted(outcome) = step(&password("right")) else {
            panic!("that was all")
        };
        // What one of the steps restricts holds for the session.
        assert_eq!(outcome.account.policy.access, Access::ReadOnly);
    }

    #[test]
    fn what_cannot_be_met_is_refused_at_the_start() {
        use AuthMethod::{KeyboardInteractive, Password, PublicKey};
        for bad in [
            user("anna").password("x").require([PublicKey]),
            user("anna").authorized_key(key(1)).require([Password]),
            user("anna").authorized_key(key(1)).require([PublicKey; 2]),
            user("anna").password("x").require([Password; 2]),
            user("anna").password("x").require([KeyboardInteractive]),
            user("anna").certificate_authority(key(1), [""; 0]),
        ] {
            assert!(users(vec![bad]).is_err());
        }
    }

    #[test]
    fn who_asks_about_keys_may_be_told_nothing() {
        let trust = Trust {
            uniform_queries: true,
            ..Trust::default()
        };
        let anna = user("anna").authorized_key(key(1));
        let users = Users::new(vec![anna], trust, 10, Duration::from_secs(1)).unwrap();
        for (name, seed, does) in [("anna", 1, true), ("anna", 2, false), ("eve", 1, false)] {
            let asked = check(&users, name, &query(key(seed)));
            assert!(matches!(asked, Verdict::Acceptable));
            let signed = check(&users, name, &signed(key(seed)));
            assert_eq!(matches!(signed, Verdict::Accepted(_)), does);
        }
    }

    #[test]
    fn unknown_users_are_answered_as_those_with_wrong_credentials() {
        let users = users(vec![user("anna").password("right").authorized_key(key(1))]).unwrap();
        for method in [password("wrong"), signed(key(2)), query(key(2))] {
            for name in ["anna", "eve", "../anna", "anna\0", "$(id)", "%u", ""] {
                let verdict = check(&users, name, &method);
                let Verdict::Rejected(after) = verdict else {
                    panic!("{name:?} {method:?}")
                };
                assert_eq!(after, FLOOR + users.jitter(name));
            }
        }
    }
}
