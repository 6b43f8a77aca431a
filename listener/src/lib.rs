//! Detects changes in remote directories.
//!
//! A [`Watch`] lists one directory again and again over an SFTP connection and tells what was
//! created, modified and removed:
//!
//! ```no_run
//! # async fn example(sftp: ketch_client::Sftp) {
//! use std::time::Duration;
//!
//! use ketch_client::RemotePath;
//! use ketch_listener::Watch;
//!
//! let mut events = Watch::directory(sftp, RemotePath::from("/in"))
//!     .interval(Duration::from_secs(5))
//!     .start();
//! while let Some(event) = events.next().await {
//!     match event {
//!         Ok(event) => println!("{:?} {}", event.kind, event.path),
//!         Err(error) => eprintln!("{error}"), // the watch goes on unless it is_final()
//!     }
//! }
//! # }
//! ```
//!
//! The way of a change, one module for each step:
//!
//! | step | module |
//! | --- | --- |
//! | the clock says a listing is due; the directory is read | `driver` |
//! | names and attributes, bounded, sorted | [`listing`] |
//! | what is remembered of them | [`snapshot`] |
//! | what differs from the last time | [`diff`] |
//! | when to look, what counts as gone, what to do about errors | [`watcher`] |
//! | [`Event`]s go to whoever asked | [`Events`] |
//!
//! Everything but the driver is pure: no socket, no clock. Only the public interface of
//! `ketch-client` is used.
//!
//! What polling cannot see: a file that comes and goes between two listings, and one that is
//! rewritten with the same size within the second of its last change (SFTP v3 gives times in whole
//! seconds). Whether a file is complete is not judged here: an uploader that writes in place shows
//! up as created and then modified for as long as it writes.
#![forbid(unsafe_code)]

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "flows")]
pub mod config;
#[cfg(feature = "flows")]
pub mod daemon;
#[cfg(feature = "postgres")]
pub mod database;
#[cfg(feature = "flows")]
pub mod detect;
pub mod diff;
pub mod directories;
mod driver;
mod error;
mod event;
#[cfg(feature = "flows")]
pub mod flow;
pub mod listing;
pub mod local;
pub mod push;
pub mod remote;
mod remote_watcher;
#[cfg(feature = "flows")]
pub mod schedule;
#[cfg(feature = "flows")]
pub mod select;
#[cfg(all(unix, feature = "daemon"))]
pub mod service;
pub mod settle;
#[cfg(feature = "flows")]
pub mod sink;
pub mod snapshot;
#[cfg(feature = "flows")]
pub mod source;
#[cfg(feature = "flows")]
pub mod store;
#[cfg(feature = "flows")]
pub mod tree;
pub mod watcher;

pub use driver::{Events, Push, Watch};
pub use error::WatchError;
pub use event::{Event, EventKind};
pub use remote_watcher::RemoteWatcher;
pub use watcher::FirstListing;
