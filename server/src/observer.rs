//! What a server tells the program around it: who came, who was let in, what they did, who left.
//!
//! A program gives [`Observer`]s to [`ServerBuilder::observer`](crate::ServerBuilder::observer); an
//! audit log, metrics and whatever acts on arrived files are such. Without one nothing of this is
//! computed. With one, `READ` and `WRITE` add to counters, and everything else is told when it is
//! over.
//!
//! [`Watch`] is how the rest of the crate tells: the observers, and who they are told about.

pub(crate) mod audit;
pub(crate) mod metrics;
#[cfg(feature = "monitor")]
pub(crate) mod monitor;

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use ketch_protocol::StatusCode;

use crate::policy::terms::Belonging;

/// Is told what happens on a server.
///
/// Calls are made on the connections' own tasks, several at a time: what takes long (a disk, a
/// network, a lock that others hold) holds up a connection and belongs behind a queue. A call that
/// panics is logged and changes nothing else.
///
/// ```
/// use std::sync::Arc;
/// use ketch_server::{Event, Observer, Server};
///
/// #[derive(Debug)]
/// struct Uploads;
///
/// impl Observer for Uploads {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::Transferred(file) = event
///             && file.written > 0
///             && file.is_closed
///         {
///             println!("{} wrote {} bytes", file.who, file.written);
///         }
///     }
/// }
///
/// let builder = Server::builder().observer(Arc::new(Uploads));
/// ```
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Something happened. Must not block.
    fn on_event(&self, event: &Event<'_>);
}

/// Something that happened. New kinds may come with any version.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection came and was let in: nobody is logged in yet. [`Event::Disconnected`] follows.
    Connected {
        /// Who.
        who: &'a Who,
    },
    /// A connection came and was closed at once. Nothing follows.
    Refused {
        /// Who.
        who: &'a Who,
        /// Why.
        why: NotAdmitted,
    },
    /// An attempt to log in was wrong.
    LoginRefused {
        /// Who; the user is not known yet.
        who: &'a Who,
        /// The name that was claimed: whatever the client said.
        user: &'a str,
        /// The method's name (RFC 4252 §5), such as `publickey`.
        method: &'a str,
    },
    /// Somebody is logged in.
    LoggedIn {
        /// Who, now with the user.
        who: &'a Who,
        /// The last method's name, such as `publickey`.
        method: &'a str,
    },
    /// A channel for SFTP is open. [`Event::SessionClosed`] follows.
    SessionOpened {
        /// Who.
        who: &'a Who,
    },
    /// A channel for SFTP is over.
    SessionClosed {
        /// Who.
        who: &'a Who,
        /// How long it was open.
        duration: Duration,
    },
    /// A request was answered that changes the tree, opens or lists.
    Operation(&'a Operation<'a>),
    /// Bytes of files went to or came from the client since this was told last. It comes every few
    /// mebibytes and before each [`Event::Transferred`]: the sum of all is what was moved.
    Moved {
        /// Who.
        who: &'a Who,
        /// Bytes that were read from files and sent.
        read: u64,
        /// Bytes that were received and written to files.
        written: u64,
    },
    /// An open file was closed, or lost with its session.
    Transferred(&'a Transferred<'a>),
    /// A file has arrived, by what counts as arrival for this user.
    Arrived(&'a Arrival<'a>),
    /// What a source did keeps it out from now on.
    Penalised {
        /// Who.
        who: &'a Who,
        /// What it was, such as `auth-fail`.
        offence: &'a str,
    },
    /// Code of the server or of a file system panicked on behalf of a client. Others go on.
    Panicked {
        /// Who.
        who: &'a Who,
    },
    /// A connection is over.
    Disconnected {
        /// Who.
        who: &'a Who,
        /// Why, for people. It may hold what the client said.
        why: &'a str,
        /// Since it came.
        duration: Duration,
    },
}

impl<'a> Event<'a> {
    /// Who it is about.
    #[must_use]
    pub const fn who(&self) -> &'a Who {
        match self {
            Self::Connected { who }
            | Self::Refused { who, .. }
            | Self::LoginRefused { who, .. }
            | Self::LoggedIn { who, .. }
            | Self::SessionOpened { who }
            | Self::SessionClosed { who, .. }
            | Self::Moved { who, .. }
            | Self::Penalised { who, .. }
            | Self::Panicked { who }
            | Self::Disconnected { who, .. } => who,
            Self::Operation(operation) => operation.who,
            Self::Transferred(file) => file.who,
            Self::Arrived(file) => file.who,
        }
    }

    /// Its name in logs, such as `logged-in`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Refused { .. } => "refused",
            Self::LoginRefused { .. } => "login-refused",
            Self::LoggedIn { .. } => "logged-in",
            Self::SessionOpened { .. } => "session-opened",
            Self::SessionClosed { .. } => "session-closed",
            Self::Operation(_) => "operation",
            Self::Moved { .. } => "moved",
            Self::Transferred(_) => "transferred",
            Self::Arrived(_) => "arrived",
            Self::Penalised { .. } => "penalised",
            Self::Panicked { .. } => "panicked",
            Self::Disconnected { .. } => "disconnected",
        }
    }
}

/// A connection, and who is behind it as far as that is known.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Who {
    /// Number of the connection, counted from 1 since the server was built.
    pub connection: u64,
    /// Where it comes from, as it is shown: address and port, or what an embedding program said.
    pub peer: String,
    /// The address, if it comes from a network.
    pub address: Option<IpAddr>,
    /// Who is logged in, by the name the server knows.
    pub user: Option<String>,
    /// What [`User::belongs_to`](crate::User::belongs_to) says of that user.
    pub organisation: Option<String>,
    /// The same.
    pub endpoint: Option<String>,
}

impl fmt::Display for Who {
    /// `anna@192.0.2.1:50000 (17)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{} ({})", self.peer, self.connection)
    }
}

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NotAdmitted {
    /// Its source owes for what it did before ([`Penalties`](crate::Penalties)).
    Penalty,
    /// As many connections as are allowed are there.
    Connections,
    /// As many are there on which nobody is logged in.
    HalfOpen,
    /// Many are there on which nobody is logged in, and this one was unlucky
    /// ([`ServerLimits::half_open_start`](crate::ServerLimits::half_open_start)).
    EarlyDrop,
    /// As many of those are there from its source.
    HalfOpenOfSource,
    /// The system has no descriptor for it.
    Descriptors,
}

impl NotAdmitted {
    /// Its name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Penalty => "penalty",
            Self::Connections => "connections",
            Self::HalfOpen => "half-open",
            Self::EarlyDrop => "early-drop",
            Self::HalfOpenOfSource => "half-open-of-source",
            Self::Descriptors => "descriptors",
        }
    }
}

/// A request that changes the tree, opens or lists, and how it was answered.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Operation<'a> {
    /// Who.
    pub who: &'a Who,
    /// What was asked.
    pub kind: OperationKind,
    /// On what: canonical from the user's root, or as the client said it where that is no path. At
    /// most 4096 bytes of it, any bytes.
    pub path: &'a [u8],
    /// The new name of a rename, hard link or copy; what is written in a symbolic link.
    pub other: Option<&'a [u8]>,
    /// The answer.
    pub status: StatusCode,
    /// What was said beside a status other than OK.
    pub text: &'a str,
    /// Entries that were listed, or the length that a file was set to or that was asked to be
    /// copied.
    pub size: Option<u64>,
    /// From the request's arrival to its answer; of [`OperationKind::List`], how long the directory
    /// was open.
    pub duration: Duration,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum OperationKind {
    /// A file was to be opened to read.
    OpenRead,
    /// A file was to be opened to write, made or emptied.
    OpenWrite,
    /// A directory was to be opened.
    OpenDirectory,
    /// A directory that was open is closed: so many entries were listed.
    List,
    /// A file was to be removed.
    Remove,
    /// A directory was to be removed.
    RemoveDirectory,
    /// A directory was to be made.
    MakeDirectory,
    /// Something was to be renamed.
    Rename,
    /// A symbolic link was to be made.
    Symlink,
    /// A file was to get one more name.
    HardLink,
    /// Length, mode or times were to be set.
    Change,
    /// One open file was to be copied to another.
    Copy,
    /// What was written was to be put onto the disk.
    Sync,
}

impl OperationKind {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 13] = [
        Self::OpenRead,
        Self::OpenWrite,
        Self::OpenDirectory,
        Self::List,
        Self::Remove,
        Self::RemoveDirectory,
        Self::MakeDirectory,
        Self::Rename,
        Self::Symlink,
        Self::HardLink,
        Self::Change,
        Self::Copy,
        Self::Sync,
    ];

    /// Its name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenRead => "open-read",
            Self::OpenWrite => "open-write",
            Self::OpenDirectory => "opendir",
            Self::List => "list",
            Self::Remove => "remove",
            Self::RemoveDirectory => "rmdir",
            Self::MakeDirectory => "mkdir",
            Self::Rename => "rename",
            Self::Symlink => "symlink",
            Self::HardLink => "hardlink",
            Self::Change => "change",
            Self::Copy => "copy",
            Self::Sync => "fsync",
        }
    }
}

/// A file that was open, and what went through its handle.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Transferred<'a> {
    /// Who.
    pub who: &'a Who,
    /// The name by which it was opened, canonical from the user's root: any bytes.
    pub path: &'a [u8],
    /// Bytes that were read and sent. More than the file has if the client asked twice.
    pub read: u64,
    /// Bytes that were received and written.
    pub written: u64,
    /// Whether a read or write failed.
    pub has_failed: bool,
    /// Whether the client closed it. If not, it went with its session, and what was being written
    /// may be cut short.
    pub is_closed: bool,
    /// From the request to open it to its end.
    pub duration: Duration,
}

/// A file that has arrived.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Arrival<'a> {
    /// Who brought it.
    pub who: &'a Who,
    /// Its name, canonical from the user's root: any bytes.
    pub path: &'a [u8],
    /// Bytes in it.
    pub size: u64,
    /// SHA-256 of them, if it is known.
    pub sha256: Option<[u8; 32]>,
    /// From the request to open it for writing to its arrival, if it was opened in this session.
    pub duration: Option<Duration>,
    /// When it arrived, in seconds since 1970. It is told later: it was hashed meanwhile.
    pub at: u64,
}

/// The observers, and who they are told about.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    observers: Arc<[Arc<dyn Observer>]>,
    /// What threads do for all of the server's sessions.
    pub(crate) jobs: Arc<AtomicUsize>,
    pub(crate) who: Who,
}

impl Watch {
    /// `None` without observers: then there is nothing to be told.
    pub(crate) fn new(
        observers: &Arc<[Arc<dyn Observer>]>,
        jobs: &Arc<AtomicUsize>,
        who: impl FnOnce() -> Who,
    ) -> Option<Arc<Self>> {
        (!observers.is_empty()).then(|| {
            Arc::new(Self {
                observers: Arc::clone(observers),
                jobs: Arc::clone(jobs),
                who: who(),
            })
        })
    }

    /// The same connection, on which `user` is logged in.
    pub(crate) fn logged_in(&self, user: &str, belonging: Option<&Belonging>) -> Arc<Self> {
        let who = Who {
            user: Some(user.to_owned()),
            organisation: belonging.map(|belonging| belonging.organisation.clone()),
            endpoint: belonging.map(|belonging| belonging.endpoint.clone()),
            ..self.who.clone()
        };
        Arc::new(Self {
            observers: Arc::clone(&self.observers),
            jobs: Arc::clone(&self.jobs),
            who,
        })
    }

    /// Tells all of them. One that panics has no say in what becomes of the connection, which may
    /// be ending by a panic itself.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        for observer in &*self.observers {
            let call = AssertUnwindSafe(|| observer.on_event(event));
            if catch_unwind(call).is_err() {
                tracing::error!(?observer, event = event.name(), "an observer panicked");
            }
        }
    }
}
