//! Real peers on loopback, and a judge of SFTP servers.
//!
//! This crate stands beside the product, not in it: tests and benches of every other crate use it
//! to meet the programs that ketch has to get on with. It needs Linux with OpenSSH installed
//! (`scripts/setup-peers` sees to that); a peer that is missing is an error, never a skipped test.
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`openssh`] | a real `sshd` with its own configuration and keys; the real `sftp` client |
//! | [`content`] | files of random bytes, and their SHA-256 |
//! | [`deliveries`] | a writer with a journal, and a judge of what a listener made of its files |
//! | [`cutting_proxy`] | a way to a server that breaks |
//! | [`random`] | choices that a seed decides |
//! | [`tiny_disk`] | a file system of a megabyte, for the day the disk is full |
//! | [`judge`] | SFTP version 3, clause by clause, against any server on any byte stream |
//! | [`process`] | a process and all it started: processor time, stopping, ending |
//!
//! ```no_run
//! use ketch_conformance::openssh::{OpenSshClient, OpenSshConfig, OpenSshServer};
//!
//! let server = OpenSshServer::start(OpenSshConfig {
//!     rekey_limit: Some("16M".into()),
//!     ..OpenSshConfig::default()
//! })?;
//! let client = OpenSshClient::to(&server).option("Ciphers=aes128-gcm@openssh.com");
//! client.batch("pwd\n")?.check()?;
//! # Ok::<(), ketch_conformance::PeerError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod content;
pub mod cutting_proxy;
pub mod deliveries;
mod error;
pub mod judge;
pub mod openssh;
pub mod process;
mod program;
pub mod random;
pub mod tiny_disk;

pub use error::PeerError;
