//! Serving this machine's own users, as sftp-server(8) does: a session on two descriptors, in a
//! process that somebody else (sshd) has confined and given to the user.
//!
//! ```text
//!   stdin -> stdio -> engine <-> session        the same as behind an SSH channel
//!   stdout <-'           |
//!                  HostDirectory                the kernel, with the rights of the process
//! ```
//!
//! Everything is done in place and in order, on one thread, without a runtime: the process has
//! nobody else to serve.
//!
//! | module | what it is |
//! | --- | --- |
//! | `stdio` | the driver: reads, writes, time |
//! | `directory`, `file`, `listing` | paths, open files and open directories, as the kernel has them |
//! | `canonical` | paths without links and `..` |
//! | `accounts` | names of users and groups, home directories |

mod accounts;
mod canonical;
mod directory;
mod file;
mod listing;
mod stdio;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use crate::engine::Broken;
use crate::handles::HandleBudget;
use crate::observer::{Observer, Watch, Who};
use crate::policy::standing::{Permits, RequestName, Standing};
use crate::policy::{Access, Policy};
use crate::root::Root;

pub use accounts::Account;
pub use directory::HostDirectory;

/// Most handles that a session on this machine has open, if the process may have as many.
pub const HOST_HANDLES_MAX: usize = 4096;
/// Descriptors that are left for other things than handles.
const DESCRIPTORS_SPARE: usize = 16;

/// An SFTP session for the user that this process runs as.
///
/// The client may do whatever the kernel lets this process do, everywhere. It is for a program that
/// is started by sshd as `Subsystem sftp`; whoever serves strangers wants
/// [`Server`](crate::Server).
///
/// ```no_run
/// use std::io::{stdin, stdout};
/// use ketch_server::{HostDirectory, HostSession};
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let files = HostDirectory::open(".".as_ref())?;
/// HostSession::new("anna", files).serve(stdin(), stdout())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HostSession {
    user: String,
    files: HostDirectory,
    access: Access,
    permits: Permits,
    observers: Vec<Arc<dyn Observer>>,
}

/// Why a session ended before its client was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The client does not keep to the protocol.
    #[error("the client broke the protocol: {0}")]
    Protocol(String),
    /// Reading from the client or writing to it failed.
    #[error("the connection to the client failed")]
    Io(#[from] io::Error),
}

impl From<Broken> for SessionError {
    fn from(broken: Broken) -> Self {
        Self::Protocol(broken.to_string())
    }
}

impl HostSession {
    /// A session of `user`, which is a name for logs; what it may do are the process's own rights.
    #[must_use]
    pub fn new(user: impl Into<String>, files: HostDirectory) -> Self {
        Self {
            user: user.into(),
            files,
            access: Access::ReadWrite,
            permits: Permits::default(),
            observers: Vec::new(),
        }
    }

    /// Refuses whatever would change something.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.access = Access::ReadOnly;
        let writing = RequestName::ALL.iter().filter(|name| name.writes());
        writing.for_each(|&name| self.permits.deny(name));
        self
    }

    /// Refuses these kinds of request.
    #[must_use]
    pub fn deny(mut self, names: &[RequestName]) -> Self {
        names.iter().for_each(|&name| self.permits.deny(name));
        self
    }

    /// Refuses all kinds of request but these.
    #[must_use]
    pub fn allow_only(mut self, names: &[RequestName]) -> Self {
        self.permits.allow_only(names);
        self
    }

    /// Is told of each operation and of each file, with times that mean nothing: there is no clock.
    /// Nothing of connections and logins, which others saw to.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Serves the client until it is done: until `input` ends. Both may block.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn serve(self, input: impl AsFd, output: impl AsFd) -> Result<(), SessionError> {
        let who = || Who {
            connection: 1,
            peer: String::new(),
            address: None,
            user: Some(self.user.clone()),
            organisation: None,
            endpoint: None,
        };
        let watch = Watch::new(&self.observers.into(), &Arc::default(), who);
        let policy = Policy {
            user: self.user,
            access: self.access,
            rules: None,
            exclusive_uploads: false,
            arrivals: None,
            symbolic_links: true,
            hard_links: true,
            standing: Standing::LocalUser(Arc::new(self.permits)),
        };
        let root = Root::new(Arc::new(self.files));
        let budget = HandleBudget::of_one_session(handles_max());
        stdio::serve(
            Arc::new(root),
            Arc::new(policy),
            Arc::new(budget),
            watch,
            input.as_fd(),
            output.as_fd(),
        )
    }
}

/// As many handles as the process may have descriptors, and some less.
fn handles_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit
        .map_or(HOST_HANDLES_MAX, |limit| {
            usize::try_from(limit).unwrap_or(HOST_HANDLES_MAX)
        })
        .saturating_sub(DESCRIPTORS_SPARE)
        .clamp(1, HOST_HANDLES_MAX)
}

/// Makes other processes of the same user, and files such as `/proc/self/mem`, unable to change
/// this process, as OpenSSH's server does: a user that may do nothing but SFTP could otherwise
/// write itself a program.
///
/// # Errors
/// What the kernel says (prctl(2), `PR_SET_DUMPABLE`).
pub fn protect_process() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// The home directory and name of the user that this process runs as.
///
/// # Errors
/// What looking it up says, and `NotFound` if the user has no entry.
pub fn own_account() -> io::Result<Account> {
    accounts::own()
}

/// Opens the directory that a session starts in, with the process's own as the second choice.
///
/// # Errors
/// What opening either says.
pub fn start_directory(wanted: Option<&Path>) -> io::Result<HostDirectory> {
    match wanted.map(HostDirectory::open) {
        Some(Ok(files)) => Ok(files),
        _ => HostDirectory::open(Path::new(".")),
    }
}
