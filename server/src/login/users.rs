//! Who may log in, with what, and where to.
//!
//! Names are keys of a map and nothing else: no path and no command is made of them. Passwords are
//! kept as keyed digests; an attempt costs the same work and is answered by the same bytes whether
//! or not the user exists, and the wait after a failure covers what differs in spite of that.

mod user;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use crate::fs::staging::{StagedFiles, Staging};
use crate::fs::{FileSystem, LocalDirectory};
use crate::handles::HandleBudget;
use crate::login::credentials::{
    Authority, AuthorizedKey, Moment, Restrictions, Revoked, Shown, by_certificate, by_key,
};
use crate::login::interview::Interviewer;
use crate::login::password_change::{Kept, PasswordKeeper};
use crate::login::password_hash::{HashError, Hashing, PasswordHash};
use crate::login::stay::{Seat, Seats, Stay};
use crate::policy::Policy;
use crate::policy::bandwidth::Throttle;
use crate::policy::quota::Metered;
use crate::policy::standing::Standing;
use crate::root::Root;
use crate::shares::Shares;

pub use user::User;
use user::{Password, UserRoot};

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

/// What holds for all users of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Authorities whose certificates name users by their own names.
    pub(crate) authorities: Vec<PublicKey>,
    pub(crate) revoked: Revoked,
    /// Whether any key at all is said to do, so that asking tells nothing.
    pub(crate) uniform_queries: bool,
    pub(crate) interviewer: Interviewer,
    pub(crate) password_keeper: PasswordKeeper,
}

/// All users of a server.
pub(crate) struct Users {
    records: BTreeMap<String, Record>,
    trust: Trust,
    key: hmac::Key,
    budget: Arc<HandleBudget>,
    shares: Arc<Shares>,
    /// What the attempts of unknown users are compared with.
    nobody: Digest,
    /// The same where anybody's password is hashed: as costly as the costliest.
    decoy: Option<Arc<PasswordHash>>,
}

type Digest = [u8; 32];

#[derive(Debug)]
struct Record {
    account: Arc<Account>,
    /// Set before anybody comes in, and by a change.
    password: Mutex<Secret>,
    keys: Vec<AuthorizedKey>,
    authorities: Vec<Authority>,
    required: Vec<AuthMethod>,
    questions: bool,
    stay: Stay,
    seats: Seats,
    /// The user's root, if it is one of this machine.
    directory: Option<PathBuf>,
}

/// A user's password as it is now.
#[derive(Clone, Debug)]
struct Secret {
    known: Option<Known>,
    /// It has to be changed, and what is said of that.
    expired: Option<String>,
}

/// What is known of a password.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    Digest(Digest),
    Hash(Arc<PasswordHash>),
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
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) account: Arc<Account>,
    /// Only the subsystem `sftp` may be started.
    pub(crate) sftp_only: bool,
    /// To be kept as long as the connection.
    pub(crate) seat: Seat,
}

/// Whether a user who is logged in may stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Staying {
    /// Not any more.
    Over,
    /// Until that second, since 1970; `None` for as long as they like.
    Until(Option<u64>),
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
    /// The password is right and has to be changed; what is said of that.
    Expired(String),
    /// It may be changed: [`Users::change_password`].
    Change,
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
        let this = Self::nobody(trust, handles_max)?;
        this.with(users, idle_timeout, None)
    }

    /// Other users in the place of these: what is counted goes on being counted.
    pub(crate) fn renewed(
        &self,
        users: Vec<User>,
        trust: Trust,
        idle_timeout: Duration,
    ) -> Result<Self, BuildError> {
        let next = Self {
            records: BTreeMap::new(),
            trust,
            // With another key a name's wait would be another, and tell more with each reload.
            key: self.key.clone(),
            budget: Arc::clone(&self.budget),
            shares: Arc::clone(&self.shares),
            nobody: self.nobody,
            decoy: None,
        };
        next.with(users, idle_timeout, Some(self))
    }

    /// What is wrong with each of the users alone.
    #[cfg(feature = "file")]
    pub(crate) fn faults(users: &[User], trust: Trust) -> Result<Vec<BuildError>, BuildError> {
        let this = Self::nobody(trust, 1)?;
        let records = users
            .iter()
            .map(|user| this.record(user, Duration::ZERO, None));
        Ok(records.filter_map(Result::err).collect())
    }

    fn nobody(trust: Trust, handles_max: usize) -> Result<Self, BuildError> {
        let mut secret = Zeroizing::new([0_u8; 32]);
        let mut nobody = [0; 32];
        let random = SystemRandom::new();
        random
            .fill(&mut secret[..])
            .map_err(|_| BuildError::Random)?;
        random.fill(&mut nobody).map_err(|_| BuildError::Random)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret[..]);
        Ok(Self {
            records: BTreeMap::new(),
            trust,
            key,
            budget: Arc::new(HandleBudget::new(handles_max)),
            shares: Shares::new(),
            nobody,
            decoy: None,
        })
    }

    fn with(
        mut self,
        mut users: Vec<User>,
        idle_timeout: Duration,
        before: Option<&Self>,
    ) -> Result<Self, BuildError> {
        if let Some(before) = before {
            before.hand_on_arrivals(&mut users);
        }
        for user in users {
            let before = before.and_then(|before| before.records.get(&user.name));
            let record = self.record(&user, idle_timeout, before)?;
            if self.records.insert(user.name.clone(), record).is_some() {
                return Err(BuildError::DuplicateUser { user: user.name });
            }
        }
        if self.records.is_empty() {
            return Err(BuildError::NoUsers);
        }
        let hashes = self.records.values().filter_map(Record::hash);
        let costliest = hashes.max_by_key(|hash| hash.cost());
        if let Some(costliest) = costliest {
            let decoy = costliest.decoy().map_err(|HashError| BuildError::Random)?;
            self.decoy = Some(Arc::new(decoy));
        }
        Ok(self)
    }

    /// What has arrived in a local directory stays so for its users to come.
    fn hand_on_arrivals(&self, users: &mut [User]) {
        let known = self.records.values().filter_map(|record| {
            let arrivals = record.account.policy.arrivals.as_ref()?;
            record
                .directory
                .as_ref()
                .map(|directory| (directory, arrivals))
        });
        let known: BTreeMap<_, _> = known.collect();
        for user in users {
            if let (UserRoot::Local(directory), Some(arrivals)) =
                (&user.root, &mut user.terms.arrivals)
                && let Some(before) = known.get(directory)
            {
                arrivals.go_on_from(before);
            }
        }
    }

    /// `before`: the user of the same name until now, if there was one.
    fn record(
        &self,
        user: &User,
        idle_timeout: Duration,
        before: Option<&Record>,
    ) -> Result<Record, BuildError> {
        let name = user.name.clone();
        if name.is_empty() || name.len() > USER_NAME_LEN_MAX || name.chars().any(char::is_control) {
            return Err(BuildError::BadUserName { user: name });
        }
        // No way in at all, or one that is open to everybody, is a mistake and not a wish.
        let has_key = !user.keys.is_empty()
            || !user.authorities.is_empty()
            || !self.trust.authorities.is_empty();
        let cannot_change = user.expired.is_some() && !self.trust.password_keeper.is_there();
        if (user.questions && !self.trust.interviewer.is_there()) || cannot_change {
            return Err(BuildError::Unattainable { user: name });
        }
        if user.password.is_none() && !has_key && !user.questions {
            return Err(BuildError::NoCredential { user: name });
        }
        let no_principal = |authority: &Authority| authority.principals.is_empty();
        if user.authorities.iter().any(no_principal) || !can_be_met(user, has_key) {
            return Err(BuildError::Unattainable { user: name });
        }
        if let Some(Password::Plain(password)) = &user.password
            && !(1..=PASSWORD_LEN_MAX).contains(&password.len())
        {
            return Err(BuildError::BadPassword { user: name });
        }
        let files: Arc<dyn FileSystem> = match &user.root {
            UserRoot::Other(files) => Arc::clone(files),
            UserRoot::Local(path) => {
                let directory = LocalDirectory::open(path);
                let directory = directory.map_err(|source| BuildError::Root {
                    user: name.clone(),
                    path: path.clone(),
                    source,
                })?;
                Arc::new(match user.terms.depend_on_names() {
                    true => directory.without_links(),
                    false => directory,
                })
            }
        };
        let quota = user
            .terms
            .quota
            .map(|quota| Metered::new(Arc::clone(&files), quota));
        let directory = match &user.root {
            UserRoot::Local(directory) => Some(directory.clone()),
            UserRoot::Other(_) => None,
        };
        // Sessions that stay and those to come share what there is room for.
        let same_tree =
            before.filter(|before| directory.is_some() && before.directory == directory);
        let before_it = same_tree.and_then(|before| before.account.quota.as_ref());
        let quota = quota.map(|quota| match before_it {
            Some(before) => quota.going_on_from(before),
            None => quota,
        });
        let files = match &quota {
            Some(metered) => Arc::clone(metered) as Arc<dyn FileSystem>,
            None => files,
        };
        let staging = user
            .terms
            .atomic_uploads
            .map(|durability| Staging::new(Arc::clone(&files), durability));
        let files = match &staging {
            Some(staging) => Arc::new(StagedFiles(Arc::clone(staging))) as Arc<dyn FileSystem>,
            None => files,
        };
        let policy = Policy {
            user: name.clone(),
            access: user.access,
            rules: user.terms.rules.clone().map(Arc::new),
            exclusive_uploads: user.terms.exclusive_uploads || user.terms.arrivals.is_some(),
            arrivals: user.terms.arrivals.clone(),
            symbolic_links: user.symbolic_links,
            hard_links: user.hard_links,
            standing: Standing::Guest,
        };
        let account = Account {
            root: Arc::new(Root::new(files)),
            policy: Arc::new(policy),
            budget: Arc::clone(&self.budget),
            share: before.map_or_else(|| self.shares.user(), |before| before.account.share.clone()),
            idle_timeout: user.terms.idle_timeout.unwrap_or(idle_timeout),
            quota,
            throttle: user.terms.bandwidth.map(|of| {
                let kept = before.and_then(|before| before.account.throttle.clone());
                kept.filter(|throttle| throttle.of == of)
                    .unwrap_or_else(|| Arc::new(Throttle::new(of)))
            }),
            staging,
            belonging: user.terms.belonging.clone(),
        };
        Ok(Record {
            account: Arc::new(account),
            password: Mutex::new(Secret {
                known: user.password.as_ref().map(|password| match password {
                    Password::Plain(text) => Known::Digest(self.digest(&name, text)),
                    Password::Hash(hash) => Known::Hash(Arc::clone(hash)),
                }),
                expired: user.expired.clone(),
            }),
            keys: user.keys.clone(),
            authorities: user.authorities.clone(),
            required: user.required.clone(),
            questions: user.questions,
            stay: user.stay.clone(),
            directory,
            seats: before.map_or_else(Seats::default, |before| before.seats.clone()),
        })
    }

    /// What removes uploads that a killed server left.
    pub(crate) fn leftovers(
        &self,
    ) -> impl Iterator<Item = impl Future<Output = ()> + Send + 'static> {
        let accounts = self.records.values().map(|record| &record.account);
        accounts.filter_map(|account| account.staging.as_ref()?.reap_once())
    }

    /// Whether a user who is logged in may stay, at that second since 1970.
    pub(crate) fn staying(&self, user: &str, now: u64) -> Staying {
        match self.records.get(user).map(|record| &record.stay) {
            Some(stay) if stay.may_last(now) => Staying::Until(stay.expires),
            _ => Staying::Over,
        }
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
            .any(|record| record.secret().known.is_some())
        {
            methods.push(AuthMethod::Password);
        }
        if self.records.values().any(|record| record.questions) {
            methods.push(AuthMethod::KeyboardInteractive);
        }
        methods
    }

    /// What a password has to be compared with before an attempt is decided: the same work for
    /// everybody, whether they exist or not. `None` where no password is hashed.
    pub(crate) fn hash_to_try<'a>(
        &self,
        user: &str,
        method: &'a Method,
    ) -> Option<(Arc<PasswordHash>, &'a Zeroizing<String>)> {
        let (Method::Password(password) | Method::PasswordChange { old: password, .. }) = method
        else {
            return None;
        };
        let decoy = self.decoy.as_ref()?;
        let hash = self.records.get(user).and_then(Record::hash);
        Some((hash.unwrap_or_else(|| Arc::clone(decoy)), password))
    }

    /// Has the new password of a user kept whose old one was right and has expired. The reason if
    /// another is wanted.
    pub(crate) async fn change_password(
        &self,
        user: &str,
        new: &Zeroizing<String>,
        hashing: &Hashing,
    ) -> Result<(), String> {
        let Some(record) = self.records.get(user) else {
            return Err(String::new());
        };
        let hashing = record.hash().map(|_| hashing);
        let digest = |new: &str| Known::Digest(self.digest(user, new));
        let keeper = &self.trust.password_keeper;
        match keeper.keep(user, new.clone(), hashing, digest).await {
            Kept::As(known) => {
                *record.secret() = Secret {
                    known: Some(known),
                    expired: None,
                };
                Ok(())
            }
            Kept::Not(why) => Err(why),
        }
    }

    /// Who asks questions.
    pub(crate) const fn interviewer(&self) -> &Interviewer {
        &self.trust.interviewer
    }

    /// Decides an attempt that follows on `steps`. `found_right`: whether the password fitted
    /// [`Users::hash_to_try`], or the answers [`Users::interviewer`].
    pub(crate) fn check(
        &self,
        user: &str,
        method: &Method,
        steps: &mut Steps,
        moment: Moment,
        found_right: bool,
    ) -> Verdict {
        // The work is done before anything depends on whether there is such a user.
        let known = self.records.get(user);
        let record = known.filter(|record| record.admits(moment));
        let rejected = Verdict::Rejected(FLOOR.saturating_add(self.jitter(user)));
        let (kind, key, restrictions) = match method {
            Method::Password(password) => {
                let is_right = self.has_password(user, password, known, found_right);
                let expired = record.and_then(|record| record.secret().expired.clone());
                if let (true, Some(prompt)) = (is_right, expired) {
                    let is_next = |record: &Record| record.wants_next(AuthMethod::Password, steps);
                    return match record.is_some_and(is_next) {
                        true => Verdict::Expired(prompt),
                        false => rejected,
                    };
                }
                (
                    AuthMethod::Password,
                    None,
                    is_right.then(Restrictions::default),
                )
            }
            // Whoever changes has to be right, and it has to be time: the old one is looked at first.
            Method::PasswordChange { old, .. } => {
                let is_right = self.has_password(user, old, known, found_right);
                let may = record.filter(|record| {
                    let is_next = record.wants_next(AuthMethod::Password, steps);
                    is_right && is_next && record.secret().expired.is_some()
                });
                return may.map_or(rejected, |_| Verdict::Change);
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
            Method::KeyboardInteractive | Method::Answers(_) => {
                let is_right = found_right && record.is_some_and(|record| record.questions);
                (
                    AuthMethod::KeyboardInteractive,
                    None,
                    is_right.then(Restrictions::default),
                )
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

    fn has_password(
        &self,
        user: &str,
        password: &str,
        record: Option<&Record>,
        fits_hash: bool,
    ) -> bool {
        let given = self.digest(user, password);
        let known = record.and_then(|record| record.secret().known.clone());
        let digest = match &known {
            Some(Known::Digest(digest)) => digest,
            Some(Known::Hash(_)) | None => &self.nobody,
        };
        let is_equal = bool::from(given.ct_eq(digest));
        match known {
            Some(Known::Digest(_)) => is_equal,
            Some(Known::Hash(_)) => fits_hash,
            None => false,
        }
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
    fn secret(&self) -> MutexGuard<'_, Secret> {
        self.password.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self) -> Option<Arc<PasswordHash>> {
        match &self.secret().known {
            Some(Known::Hash(hash)) => Some(Arc::clone(hash)),
            _ => None,
        }
    }

    /// Whether the user may come at all, at that moment.
    fn admits(&self, moment: Moment) -> bool {
        self.stay.may_begin(moment) && self.seats.have_room(self.stay.connections_max)
    }

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
    let seat = record.seats.take(record.stay.connections_max)?;
    Some(Outcome {
        account,
        sftp_only,
        seat,
    })
}

/// Whether the user has what is required of them.
fn can_be_met(user: &User, has_key: bool) -> bool {
    let count = |method| user.required.iter().filter(|each| **each == method).count();
    let keys = count(AuthMethod::PublicKey);
    let passwords = count(AuthMethod::Password);
    let questions = count(AuthMethod::KeyboardInteractive);
    // Certificates may be as many as one likes.
    let different = user.keys.iter().enumerate().filter(|(n, entry)| {
        let before = user.keys.iter().take(*n);
        before.into_iter().all(|other| other.key() != entry.key())
    });
    let enough_keys = keys < 2 || !user.authorities.is_empty() || keys <= different.count();
    user.required.len() <= STEPS_MAX
        && keys + passwords + questions == user.required.len()
        && (questions == 0 || (questions == 1 && user.questions))
        && (keys == 0 || (has_key && enough_keys))
        && (passwords == 0 || (passwords == 1 && user.password.is_some()))
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.records.len()).finish()
    }
}

#[cfg(test)]
mod tests;
