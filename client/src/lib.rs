//! SFTP client: connections, who the hosts are, who we are, requests and transfers.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`destination`] | `[user@]host:path` and `sftp://…`: where the user wants to go |
//! | [`config`] | `~/.ssh/config`: what the user has set for which host |
//! | [`connect`] | [`Connect`]: handshake, host key, authentication |
//! | [`route`] | the way there: TCP, proxies, other servers, a program |
//! | [`hostkey`] | `known_hosts`: which keys belong to which host |
//! | [`identity`] | the user's private keys |
//! | [`agent`] | keys that an ssh-agent has |
//! | [`reconnect`] | a session that is made anew when it was lost |
//! | [`memory`] | what hosts chose last time, which spares round trips |
//! | [`session`] | [`Session`]: a connection on which the user is logged in |
//! | [`exec`] | programs on the server: commands, shells, terminals |
//! | [`forward`] | connections that the server makes, or that come to it |
//! | `sftp`, `file`, `dir` | [`Sftp`], [`File`], [`ReadDir`]: the requests as async functions |
//! | [`Filter`] | which entries of a tree are taken |
//! | `sync` | one directory is made to hold what another holds |
//! | `walk`, `glob`, `remove` | [`Walk`], [`Glob`]: what is below a directory; removing all of it |
//! | `watch` | [`Watch`]: what changes on a server of ours, as it happens |
//! | [`operations`] | what integrations do with a folder: get, create, upsert, query, list, delete |
//! | [`OnDemand`] | a server that is connected to when something is asked of it |
//! | [`blocking`] | the same for programs without `async` |
//! | `requests` | the application on the channel: requests under way, replies, credit |
//! | `transfer` | the engine: plans, ranges, pace, atomic files |
//! | `platform` | what differs between operating systems |
//! | [`error`] | what every error answers: kind, transience, outcome |
//!
//! A connection runs on a task of its own (`ketch_transport::driver`); handles on it can be cloned
//! and used from any task.
//!
//! ```no_run
//! use ketch_client::identity::Identity;
//! use ketch_client::{Connect, GetOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Hosts that are not in known_hosts are refused; see `hostkey` for other policies.
//! let session = Connect::to("sftp.example.com")
//!     .user("ann")
//!     .identity(Identity::from_file("/home/ann/.ssh/id_ed25519")?)
//!     .connect()
//!     .await?;
//! let sftp = session.sftp().await?;
//! let report = sftp.get("in/a.csv", "a.csv", GetOptions::new()).await?;
//! println!("{} bytes", report.bytes);
//! session.disconnect().await;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod agent;
pub mod blocking;
pub mod config;
pub mod connect;
pub mod destination;
mod dir;
pub mod error;
pub mod exec;
mod file;
mod filter;
pub mod forward;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod glob;
pub mod hostkey;
pub mod identity;
mod in_flight;
pub mod memory;
mod on_demand;
pub mod operations;
mod pattern;
mod platform;
mod progress;
mod quirks;
pub mod reconnect;
mod remove;
mod requests;
pub mod route;
pub mod session;
mod sftp;
mod sync;
mod transfer;
mod walk;
mod watch;

pub use connect::{Connect, ConnectError, Timeouts};
pub use destination::Destination;
pub use dir::{DirEntries, DirEntry, DirEntryRef, ReadDir};
pub use error::{Failure, Kind, Outcome};
pub use file::{File, OpenOptions};
pub use filter::{Filter, RULES_MAX};
pub use glob::{Glob, GlobError};
pub use ketch_keys::PublicKey;
pub use ketch_protocol::{
    Attrs, FileType, Owner, RemotePath, ServerLimits, StatVfs, StatusCode, Times, WatchKind,
};
pub use ketch_transport::algorithm::{CipherName, Compression, Kex, MacName, SignatureAlgorithm};
pub use ketch_transport::driver::{ChannelStream, CloseReason, OpenError, PingError};
pub use ketch_transport::info::{Algorithms, ConnectionInfo, Traffic};
pub use ketch_transport::profile::{Preferences, Profile};
pub use on_demand::{OnDemand, OnDemandError, Opened};
pub use pattern::{PATTERN_LEN_MAX, Pattern, PatternError};
pub use progress::Progress;
pub use reconnect::{Reconnect, ReconnectError, Reconnecting};
pub use remove::{NotRemoved, RemoveError, RemoveFault, Removed};
pub use requests::PeerMisbehaved;
pub use route::Route;
pub use session::Session;
pub use sftp::{Operation, Sftp, SftpError, UserNames};
pub use sync::{
    Comparison, Difference, Sameness, SkipReason, SyncAction, SyncError, SyncFailed, SyncFault,
    SyncNews, SyncOptions, SyncReport, SyncStep,
};
pub use transfer::{
    Control, Durability, Failed, GetOptions, HELD_MAX, Links, LocalAction, NameFault, Overwrite,
    Place, Preserve, Priority, PutOptions, REPORTED_MAX, RateLimit, ReadFault, Remark, Remarkable,
    Report, Resume, Sink, Skipped, Source, SourceShrank, Sparse, Streams, TransferError, Verify,
    WhySkipped,
};
pub use walk::{Walk, WalkEntry, WalkError, WalkOptions};
pub use watch::{Watch, WatchEvent, WatchOptions};
