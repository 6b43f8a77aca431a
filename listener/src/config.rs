//! A listener's file: TOML in, sources and flows out, and every mistake in it at once.
//!
//! ```text
//!   text ── ketch-settings, along the schema of the tables ──> tables ── build ──> Setup ──> a daemon
//! ```
//!
//! The types of `tables` and `sinks` are what may stand in a file; the JSON schema and the page of all keys
//! are made of them. `build` says what the types cannot: that sources are there, that names are used
//! once, that secrets can be read, that no flow feeds itself. Nothing is connected here. Feature
//! `flows`.

mod build;
pub mod check;
mod connect;
mod into;
mod loops;
mod sinks;
mod tables;
#[cfg(test)]
mod tests;
mod words;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ketch_client::RemotePath;
#[cfg(unix)]
use ketch_settings::strict;
use ketch_settings::{Fault, Faults, Places, Schema};
use zeroize::Zeroizing;

use crate::detect::DetectConfig;
use crate::flow::item::FlowName;
use crate::flow::settings::FlowSettings;
use crate::local::local_path;
use crate::remote::Remote;
use crate::sink::Sink;
use tables::FileTable;

/// Longest file of a listener, in bytes.
pub const LISTENER_FILE_LEN_MAX: u64 = 8 * 1024 * 1024;

/// A listener's file that was read.
///
/// ```no_run
/// use ketch_listener::config::ListenerFile;
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let file = ListenerFile::read("/etc/ketch/listener.toml")?;
/// let setup = file.setup()?;
/// println!("{} flows", setup.flows.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ListenerFile {
    tables: FileTable,
    places: Places,
}

impl ListenerFile {
    /// Reads the file at `path`. Relative paths in it start from the directory that it is in.
    ///
    /// # Errors
    /// [`Faults`]: it cannot be read, others may write to it, or something in it is wrong.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Faults> {
        let path = path.as_ref();
        let text =
            text(path).map_err(|why| Faults::new(path, vec![Fault::of_file(why.to_string())]))?;
        Self::parse(&text, path)
    }

    /// Takes `text` for what stands in the file at `path`, which need not be there: nothing is read.
    ///
    /// # Errors
    /// [`Faults`]: all that is wrong with the text alone.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, Faults> {
        let (tables, places) = schema().read::<FileTable>(text, path.as_ref())?;
        Ok(Self { tables, places })
    }

    /// Reads the secrets and keys that the file names, and puts together what it says. Nothing is
    /// connected, and nothing is written. Keys with passphrases are unlocked, which takes a moment.
    ///
    /// # Errors
    /// [`Faults`]: all that is wrong, of all sources and flows.
    pub fn setup(&self) -> Result<Setup, Faults> {
        build::setup(self)
    }

    /// The HTTP interface of the file, and nothing else of it: no other secret is read.
    ///
    /// # Errors
    /// [`Faults`]: what is wrong with it.
    pub fn api(&self) -> Result<Option<Api>, Faults> {
        build::part(self, |build, tables| build.api_of(tables))
    }

    /// Where the ledger is, and nothing else of the file.
    ///
    /// # Errors
    /// [`Faults`]: what is wrong with it.
    pub fn ledger(&self) -> Result<Option<Ledger>, Faults> {
        build::part(self, |build, tables| build.ledger_of(tables))
    }

    /// The names of its flows.
    pub fn flows(&self) -> impl Iterator<Item = &FlowName> {
        self.tables.flow.iter().map(|flow| &flow.name.0)
    }

    /// How many sources and flows there are.
    #[must_use]
    pub const fn counts(&self) -> (usize, usize) {
        (self.tables.source.len(), self.tables.flow.len())
    }

    /// The JSON schema (draft 2020-12) of such a file, for editors and other programs.
    #[must_use]
    pub fn schema() -> String {
        format!("{:#}\n", schema().json())
    }
}

#[cfg(unix)]
fn text(path: &Path) -> Result<String, strict::Unread> {
    strict::text(path, LISTENER_FILE_LEN_MAX)
}

#[cfg(not(unix))]
fn text(path: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

/// What may stand in a listener's file.
fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| Schema::of::<FileTable>(words::WORDS))
}

/// All that a file says, ready to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Directory for the ledger, snapshots, and content on its way.
    pub state: PathBuf,
    /// Where the ledger is.
    pub ledger: Ledger,
    /// Whether there is an HTTP interface, and where.
    pub api: Option<Api>,
    /// Where files come from.
    pub sources: Vec<SourceSetup>,
    /// What is done with them.
    pub flows: Vec<FlowSetup>,
    /// How long items under way may take to end when the listener is stopped.
    pub drain: Duration,
}

impl Setup {
    /// The source of that name.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&SourceSetup> {
        self.sources.iter().find(|source| source.name == name)
    }
}

/// Where the ledger is.
#[derive(Clone)]
pub enum Ledger {
    /// A file of SQLite, for this process alone.
    Sqlite(PathBuf),
    /// A database that several processes share.
    Postgres {
        /// How to connect, with a password.
        connect: Zeroizing<String>,
    },
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres { .. } => f.write_str("Postgres(..)"),
        }
    }
}

/// The HTTP interface.
#[derive(Clone)]
pub struct Api {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What a client has to show; `None` on the loopback device alone.
    pub token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Where files come from.
#[derive(Clone, Debug)]
pub struct SourceSetup {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub origin: Origin,
    /// Changes with anything that the file says of it, its secrets and keys.
    pub revision: u64,
}

/// A directory that is watched, or that files are put into.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// On a server. All of one source share a connection, which is made when it is needed.
    Server {
        /// The directory.
        remote: Remote,
        /// The server, for people: `user@host:port`.
        address: String,
    },
    /// Here.
    Here(PathBuf),
}

impl Origin {
    /// A directory below this one, or from the top if `path` begins with a slash and this is on a
    /// server; this one itself, if `path` is empty.
    #[must_use]
    pub fn at(&self, path: &RemotePath) -> Self {
        match self {
            Self::Server { remote, address } => Self::Server {
                remote: match path.as_bytes() {
                    [b'/', ..] => remote.elsewhere(path.clone()),
                    _ => remote.below(path),
                },
                address: address.clone(),
            },
            Self::Here(root) => Self::Here(match local_path(path) {
                Some(path) => root.join(path),
                None => root.clone(),
            }),
        }
    }

    /// For people: where it is.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Server { remote, address } => format!("{address} {}", remote.root()),
            Self::Here(path) => path.display().to_string(),
        }
    }
}

/// A flow, ready to be started.
#[derive(Clone, Debug)]
pub struct FlowSetup {
    /// How it works.
    pub settings: FlowSettings,
    /// How its source is watched.
    pub detect: DetectConfig,
    /// The name of its source.
    pub source: String,
    /// The directory below the source's that it watches; empty for that itself.
    pub path: RemotePath,
    /// The directory that it watches, whole.
    pub origin: Origin,
    /// Whether the source is asked to tell of changes.
    pub push: bool,
    /// Where files and events go.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Changes with anything that the file says of the flow, its source and its sinks' secrets:
    /// a reload starts those anew of which it did.
    pub revision: u64,
}
