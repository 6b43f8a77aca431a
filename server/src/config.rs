//! What an embedding program may set of a server, with safe defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ketch_keys::{PublicKey, RevocationList};
use ketch_transport::config::{CommonConfig, HostKey, ServerConfig};
use ketch_transport::driver::Application;

use crate::accept::{Server, Setup};
use crate::handles::SERVER_HANDLES_MAX;
use crate::login::admission::{Admission, AdmissionLimits};
use crate::login::credentials::Revoked;
use crate::login::interview::{Answers, Interview, Interviewer};
use crate::login::password_change::PasswordKeeper;
use crate::login::password_hash::Hashing;
use crate::login::penalties::Penalties;
use crate::login::users::{Trust, User, Users};
use crate::observer::Observer;
use crate::subsystems::Subsystems;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// Identification and key exchange. Default: 30 s.
    pub handshake: Duration,
    /// Authentication. Default: 60 s.
    pub authentication: Duration,
    /// A session in which no command came for so long is closed, also one whose client does not take
    /// its replies: a reply that leaves counts as its command does. Default: 15 min.
    pub idle: Duration,
    /// A stopped server's connections have so long to end by themselves. Default: 5 s.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            authentication: Duration::from_secs(60),
            idle: Duration::from_secs(900),
            shutdown: Duration::from_secs(5),
        }
    }
}

/// Bounds on what all clients together may take.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Connections at a time. Default: 1000.
    pub connections_max: usize,
    /// Connections at a time on which nobody is logged in. Default: 500.
    pub half_open_max: usize,
    /// From so many of those on, new connections are refused at random: first
    /// [`half_open_percent`](Self::half_open_percent) of a hundred, then more, up to all of them at
    /// [`half_open_max`](Self::half_open_max). OpenSSH calls that `MaxStartups`. As many as the most
    /// switch it off. Default: 100.
    pub half_open_start: usize,
    /// How many of a hundred are refused when that begins. Default: 30.
    pub half_open_percent: u8,
    /// The same from one address (IPv6: one /64). Default: 20.
    pub half_open_per_source_max: usize,
    /// First key exchanges that are computed at a time: anybody may ask for one, and they cost the
    /// server more than the client. Others wait for their turn. Default: as many as there are
    /// processors.
    pub key_exchanges_max: usize,
    /// The same from one address (IPv6: one /64). Default: half of that, and one at the least.
    pub key_exchanges_per_source_max: usize,
    /// Hashes of passwords that are computed at a time. Default: 2.
    pub password_hashes_max: usize,
    /// Open files and directories of all sessions. Default: 4096.
    pub handles_max: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            connections_max: 1000,
            half_open_max: 500,
            half_open_start: 100,
            half_open_percent: 30,
            half_open_per_source_max: 20,
            key_exchanges_max: processors,
            key_exchanges_per_source_max: (processors / 2).max(1),
            password_hashes_max: 2,
            handles_max: SERVER_HANDLES_MAX,
        }
    }
}

/// Puts a [`Server`] together; see [`Server::builder`].
#[derive(Debug, Default)]
#[must_use]
pub struct ServerBuilder {
    host_keys: Vec<Arc<HostKey>>,
    /// Those that clients are told of, if they are.
    announced: Option<Vec<Arc<HostKey>>>,
    pub(crate) users: Vec<User>,
    timeouts: Timeouts,
    limits: ServerLimits,
    transport: CommonConfig,
    subsystems: Subsystems,
    trust: Trust,
    banner: Option<String>,
    /// As they were set; `Some(None)` for none.
    penalties: Option<Option<Penalties>>,
    observers: Vec<Arc<dyn Observer>>,
}

impl ServerBuilder {
    /// A key by which clients know this server, with or without a certificate: one of each type, in
    /// order of preference. There is no default.
    pub fn host_key(self, key: impl Into<HostKey>) -> Self {
        self.shared_host_key(Arc::new(key.into()))
    }

    /// As [`ServerBuilder::host_key`], for one that stands elsewhere too.
    pub fn shared_host_key(mut self, key: Arc<HostKey>) -> Self {
        self.host_keys.push(key);
        self
    }

    /// Tells clients, once they are logged in, that these are the server's keys, and proves it
    /// (`hostkeys-00@openssh.com`): so they know a new key before it is used, and forget one that is
    /// not among them. At most 16 count. Default: clients are told of none.
    ///
    /// To change a key, add the new one here while the old one is still the
    /// [`ServerBuilder::host_key`]; when clients have been there, swap the two.
    pub fn announce_host_keys(mut self, keys: impl IntoIterator<Item = Arc<HostKey>>) -> Self {
        self.announced = Some(keys.into_iter().collect());
        self
    }

    /// Adds a user. There has to be one.
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// An authority whose certificates let users in by their names: each for the users that it has
    /// among its principals. May be called for several.
    ///
    /// Certificates are refused if they restrict what is not enforced here: any forced command but
    /// `internal-sftp`, and any critical option that is not known.
    pub fn user_authority(mut self, key: PublicKey) -> Self {
        self.trust.authorities.push(key);
        self
    }

    /// Keys, certificates and authorities that let nobody in any more. Default: none.
    pub fn revoked_keys(mut self, list: RevocationList) -> Self {
        self.trust.revoked = Revoked(Some(Box::new(list)));
        self
    }

    /// Answers the question whether a key would do with yes for every key and user, so that asking
    /// does not tell whose keys are whose. Clients with several keys then sign with the first.
    /// Default: the answer is right, as RFC 4252 §7 has it.
    pub const fn uniform_key_queries(mut self) -> Self {
        self.trust.uniform_queries = true;
        self
    }

    /// Asks users questions (keyboard-interactive, RFC 4256), those whom [`User::questions`] lets in so:
    /// `conduct` is told who, and the answers to each round so far, and says what comes next, up to
    /// [`ROUNDS_MAX`](crate::ROUNDS_MAX) times. It is called where blocking is allowed, and also for
    /// names that do not exist, who are to be asked the same.
    ///
    /// ```
    /// use ketch_server::{Interview, Prompt, Questions, Server};
    ///
    /// let builder = Server::builder().ask_questions(|_user, answers| match answers {
    ///     [] => {
    ///         let mut questions = Questions::default();
    ///         questions.prompts = vec![Prompt { text: "Code: ".to_owned(), echo: false }];
    ///         Interview::Ask(questions)
    ///     }
    ///     [code] if code[0].as_str() == "123456" => Interview::Accept,
    ///     _ => Interview::Reject,
    /// });
    /// ```
    pub fn ask_questions<F>(mut self, conduct: F) -> Self
    where
        F: Fn(&str, &Answers) -> Interview + Send + Sync + 'static,
    {
        self.trust.interviewer = Interviewer::new(conduct);
        self
    }

    /// Lets users change a password that [has expired](User::password_expired): `keep` is told whose it
    /// is and the new one, where blocking is allowed, once the old one was right. When it has kept
    /// it, the new one counts at once; what it says instead is shown, and another asked for.
    /// Default: none can be changed.
    pub fn change_passwords<F>(mut self, keep: F) -> Self
    where
        F: Fn(&str, &str) -> Result<(), String> + Send + Sync + 'static,
    {
        self.trust.password_keeper = PasswordKeeper::new(keep);
        self
    }

    /// A text that is shown to users before they log in. Default: none.
    pub fn banner(mut self, text: impl Into<String>) -> Self {
        self.banner = Some(text.into());
        self
    }

    /// How long things may take.
    pub const fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// What all clients together may take.
    pub const fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How long sources are kept out that behave badly. Default: [`Penalties::default`], as OpenSSH
    /// does it.
    pub fn penalties(mut self, penalties: Penalties) -> Self {
        self.penalties = Some(Some(penalties));
        self
    }

    /// Keeps nobody out for what they did before: where all clients come from one address, as behind
    /// a proxy, one of them could keep out all others.
    pub fn without_penalties(mut self) -> Self {
        self.penalties = Some(None);
        self
    }

    /// Tells `observer` what happens. May be called for several: each is told everything. Without one
    /// nothing is computed for it.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Algorithms, windows and re-keying of the transport. Its timers for handshake and
    /// authentication are set by [`ServerBuilder::timeouts`].
    pub fn transport(mut self, transport: CommonConfig) -> Self {
        self.transport = transport;
        self
    }

    /// Offers one more subsystem beside `sftp`, to every user. `start` makes the application for each
    /// channel on which it is asked for, and is told who asks; it must not block. A second one of
    /// the same name replaces the first, and `sftp` is always the server's own.
    ///
    /// [`stream`](crate::stream) gives an application that is a stream of bytes on this side:
    ///
    /// ```
    /// use ketch_server::{Server, stream};
    ///
    /// let builder = Server::builder().subsystem("echo", |_user| {
    ///     let (channel, application) = stream();
    ///     tokio::spawn(async move {
    ///         let (mut from, mut to) = tokio::io::split(channel);
    ///         tokio::io::copy(&mut from, &mut to).await
    ///     });
    ///     application
    /// });
    /// ```
    pub fn subsystem<F>(mut self, name: impl Into<String>, start: F) -> Self
    where
        F: Fn(&str) -> Box<dyn Application> + Send + Sync + 'static,
    {
        self.subsystems.add(name.into(), Arc::new(start));
        self
    }

    /// Opens the users' roots and checks that everything is there.
    ///
    /// # Errors
    /// [`BuildError`] for what is missing or makes no sense: a server that would let nobody in, or
    /// anybody, does not start.
    pub fn build(self) -> Result<Server, BuildError> {
        let (limits, observers) = (self.limits, self.observers.clone());
        let penalties = self.penalties.clone();
        let penalties = penalties.unwrap_or_else(|| Some(Penalties::default()));
        let setup = self.setup(None)?;
        let admission = AdmissionLimits {
            connections: limits.connections_max,
            half_open: limits.half_open_max,
            half_open_start: limits.half_open_start,
            half_open_percent: limits.half_open_percent,
            half_open_per_source: limits.half_open_per_source_max,
            key_exchanges: limits.key_exchanges_max,
            key_exchanges_per_source: limits.key_exchanges_per_source_max,
        };
        Ok(Server::new(
            setup,
            Admission::new(admission, penalties),
            Hashing::new(limits.password_hashes_max),
            observers.into(),
        ))
    }

    /// What is wrong with each of the users alone.
    #[cfg(feature = "file")]
    pub(crate) fn user_faults(&self) -> Result<Vec<BuildError>, BuildError> {
        Users::faults(&self.users, self.trust.clone())
    }

    /// What a reload puts in the place of `before`.
    pub(crate) fn renew(self, before: &Setup) -> Result<Setup, BuildError> {
        self.setup(Some(before))
    }

    fn setup(self, before: Option<&Setup>) -> Result<Setup, BuildError> {
        let Self {
            host_keys,
            announced,
            users,
            timeouts,
            limits,
            mut transport,
            subsystems,
            trust,
            banner,
            penalties: _,
            observers: _,
        } = self;
        let mut config = match before {
            Some(before) if host_keys.is_empty() => before.config.clone(),
            _ => ServerConfig::new(host_keys.clone()),
        };
        if config.host_keys.is_empty() {
            return Err(BuildError::NoHostKey);
        }
        if !host_keys.is_empty() {
            config.announced_host_keys = announced.map(Into::into);
        }
        let users = match before {
            Some(before) => before.users.renewed(users, trust, timeouts.idle)?,
            None => Users::new(users, trust, limits.handles_max, timeouts.idle)?,
        };
        transport.timers.handshake = timeouts.handshake;
        transport.timers.authentication = timeouts.authentication;
        // Whoever is logged in and does nothing takes a place all the same.
        transport.timers.idle = transport.timers.idle.or(Some(timeouts.idle));
        config.methods = users.methods();
        config.banner = banner;
        config.ask_before_keys = true;
        config.common = transport;
        Ok(Setup {
            config,
            users,
            subsystems,
            shutdown_time: timeouts.shutdown,
        })
    }
}

/// Why a server cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No host key was given.
    #[error("the server has no host key")]
    NoHostKey,
    /// No user was given.
    #[error("the server has no users")]
    NoUsers,
    /// Two users have one name.
    #[error("the user {user:?} is there twice")]
    DuplicateUser {
        /// The name.
        user: String,
    },
    /// A name is empty, too long, or holds control characters.
    #[error("{user:?} is no name for a user")]
    BadUserName {
        /// The name.
        user: String,
    },
    /// A user has neither a password nor a key.
    #[error("the user {user:?} has no way to log in")]
    NoCredential {
        /// The name.
        user: String,
    },
    /// What is required of a user is more than the user has, or an authority has no principals.
    #[error("what {user:?} has to log in with is not enough for what is required")]
    Unattainable {
        /// The name.
        user: String,
    },
    /// A password is empty or too long.
    #[error("the password of {user:?} is empty or too long")]
    BadPassword {
        /// The name.
        user: String,
    },
    /// A root cannot be opened.
    #[error("the root {} of {user:?} cannot be opened", path.display())]
    Root {
        /// The name.
        user: String,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}
