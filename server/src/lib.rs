//! An SFTP server to embed: users, roots, and nothing else. No shell, no exec, no forwarding.
//!
//! ```no_run
//! use ketch_server::{Server, User, generate_host_key, read_public_key};
//! use tokio::net::TcpListener;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let anna = User::new("anna", "/srv/anna").authorized_key(read_public_key("ssh-ed25519 AAAA…")?);
//! let bob = User::new("bob", "/srv/bob").password("correct horse").read_only();
//! let server =
//!     Server::builder().host_key(generate_host_key()?).user(anna).user(bob).build()?;
//! server.serve(TcpListener::bind("0.0.0.0:2222").await?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is where
//!
//! ```text
//!   socket -> accept -> login -> transport's driver -> channel -> engine <-> session -> policy
//!                                                                   |
//!                                                                  fs (local, memory, yours)
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | `config`, `keys`, `subsystems`; `file` (feature `file`) | what an embedding program says, or a file |
//! | `accept` | sockets, connections, the server's end |
//! | `login` | who is let in, by what proof, and who may stay: machines |
//! | `channel` | the application on an SSH channel: clock, tasks, room in outgoing packets |
//! | `engine` | runs a session: decoder, jobs in place or on threads, noted writes, reads |
//! | `session` | the machine: request in, job out; completion in, reply out |
//! | `policy` | what may be done: rights by path, quota, arrivals, whose machine it is |
//! | `path`, `handles`, `refusal`, `longname`, `digest` | what the machine is made of |
//! | `shares` | whose turn it is on threads: users share them alike |
//! | [`FileSystem`] and `fs` | what the server asks of files: this machine's, memory, or yours; staged uploads and the change feed |
//! | [`Observer`] and `observer` | what the embedding program is told; [`AuditLog`], [`Metrics`], and their HTTP endpoint (feature `monitor`) |
//! | `host` (feature `host`) | a session for this machine's own users, on stdin and stdout |
//!
//! # A file system of your own
//!
//! Implement [`FileSystem`], [`File`] and [`Directory`], and give it to
//! [`User::with_file_system`]. Only the calls that return futures are needed; the `try_` calls are
//! for what can answer without waiting. `server/examples/object_store` serves an object store so.
//!
//! The crate is empty on systems that are not Unix.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)
)]
#![cfg(unix)]

mod accept;
mod channel;
mod config;
mod digest;
mod engine;
#[cfg(feature = "file")]
mod file;
mod fs;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handles;
#[cfg(all(feature = "host", target_os = "linux"))]
mod host;
mod keys;
mod login;
mod longname;
mod observer;
mod path;
mod policy;
mod refusal;
mod root;
mod session;
mod shares;
mod subsystems;

pub use accept::{ServeError, Server};
pub use config::{BuildError, ServerBuilder, ServerLimits, Timeouts};
#[cfg(feature = "file")]
pub use file::{
    FileFault, FileFaults, HostKeyFileError, SERVER_FILE_LEN_MAX, ServerFile, host_key_file,
};
pub use fs::feed::{FEED_EVENTS_MAX, Feed, FeedEvent, Subscription, WatchRequest};
pub use fs::staging::Durability;
pub use fs::{
    Answer, BATCH_ENTRIES_MAX, Batch, Block, Call, Change, Create, Directory, DirectoryEntry, File,
    FileCall, FileSystem, Links, LocalDirectory, MEMORY_FILE_LEN_MAX, MemoryFileSystem, Metadata,
    OpenHow, TYPE_BITS, TYPE_DIRECTORY, TYPE_FILE, TYPE_LINK, Target, Work, blocking,
};
pub use handles::{SERVER_HANDLES_MAX, SESSION_HANDLES_MAX};
#[cfg(all(feature = "host", target_os = "linux"))]
pub use host::{
    Account, HOST_HANDLES_MAX, HostDirectory, HostSession, SessionError, own_account,
    protect_process, start_directory,
};
pub use ketch_keys::{
    GenerateError, KeyFileError, KeyType, LineError, PrivateKey, PublicKey, RevocationError,
    RevocationList,
};
pub use ketch_protocol::{StatVfs, StatusCode};
/// Files that say who may do what, and secrets: read only if nobody else could have written them.
#[cfg(feature = "file")]
pub use ketch_settings::strict;
pub use ketch_transport::auth::{Prompt, Questions};
pub use ketch_transport::config::HostKey;
pub use ketch_transport::config::{AuthMethod, CommonConfig};
pub use ketch_transport::driver::{Application, ChannelStream, stream};
pub use keys::{generate_host_key, read_host_key, read_public_key};
pub use login::credentials::{AuthorizedKey, BadSource, Source};
pub use login::interview::{Answers, Interview, ROUNDS_MAX};
pub use login::password_hash::{BadPasswordHash, HashError, PasswordHash};
pub use login::penalties::Penalties;
pub use login::users::{PASSWORD_LEN_MAX, STEPS_MAX, USER_NAME_LEN_MAX, User};
pub use observer::audit::{AUDIT_FIELD_LEN_MAX, AUDIT_QUEUE_MAX, AuditLog};
pub use observer::metrics::Metrics;
#[cfg(feature = "monitor")]
pub use observer::monitor::Monitor;
pub use observer::{
    Arrival, Event, NotAdmitted, Observer, Operation, OperationKind, Transferred, Who,
};
pub use path::{BadPath, COMPONENT_LEN_MAX, PATH_LEN_MAX, VPath};
pub use policy::arrivals::{ARRIVALS_KEPT, Arrivals};
pub use policy::bandwidth::Bandwidth;
pub use policy::quota::Quota;
pub use policy::standing::RequestName;
pub use policy::{
    Access, BadPattern, BadRule, PATTERN_LEN_MAX, RULES_MAX, Right, Rights, Rules,
    TEMPORARY_NAMES_MAX,
};
