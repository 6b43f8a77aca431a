//! What hosts chose and bore last time, so that the next connection takes fewer round trips.
//!
//! A client that knows which key exchange a host will choose sends its first message unasked; one
//! that knows which of the user's keys worked offers that key first, and opens its channel before
//! the login is answered. Nothing in a [`HostRecord`] is secret, and nothing in it is trusted: who
//! the host is, is still proven and checked. A record that does not fit any more costs one
//! connection, after which it is forgotten and the connection made plainly: see
//! [`Connect::host_memory`](crate::Connect::host_memory).
//!
//! A library has no place of its own to keep such things, so there is no memory by default.
//! [`ProcessMemory`] lasts as long as the program; [`FileMemory`] is what the `ketch` command has.

mod file;
mod records;

pub use file::FileMemory;
pub use records::{HOSTS_MAX, KEYS_MAX};

use std::fmt;
use std::sync::{Mutex, PoisonError};

use ketch_keys::SignatureAlgorithm;
use ketch_transport::algorithm::Kex;
use ketch_transport::config::Remembered;

use crate::destination::{Host, User};
use records::Records;

/// Where records of hosts are kept.
///
/// Calls may block: they are made on threads for that. None of them can fail as far as a connection
/// is concerned: what cannot be read is not known, what cannot be written is known no better than
/// before.
pub trait HostMemory: Send + Sync + fmt::Debug {
    /// What is known of the server at that port.
    fn recall(&self, host: &Host, port: u16) -> Option<HostRecord>;

    /// A connection was made, and something about the server is new.
    fn remember(&self, host: &Host, port: u16, record: &HostRecord);

    /// What is known of the server is of no use.
    fn forget(&self, host: &Host, port: u16);
}

/// What is known of a host.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HostRecord {
    /// How it introduced itself (RFC 4253 §4.2).
    pub identification: String,
    /// The key exchange that was chosen.
    pub kex: Kex,
    /// The algorithm of its host key.
    pub host_key: SignatureAlgorithm,
    /// Whether it keeps strict key exchange (CVE-2023-48795).
    pub strict: bool,
    /// Whether it bore messages behind a login that was not answered yet; `None` if that was not
    /// tried.
    pub bears_early: Option<bool>,
    /// Who logged in with which key last, the latest first: at most [`KEYS_MAX`].
    pub keys: Vec<(User, String)>,
}

impl HostRecord {
    /// What is known after a connection, the rest as it was `before`.
    pub(crate) fn new(seen: Remembered, before: Option<&Self>) -> Self {
        let Remembered {
            identification,
            kex,
            host_key,
            strict,
        } = seen;
        // Another program may bear other things.
        let same = before.filter(|before| before.identification == identification);
        Self {
            bears_early: same.and_then(|before| before.bears_early),
            keys: before.map(|before| before.keys.clone()).unwrap_or_default(),
            identification,
            kex,
            host_key,
            strict,
        }
    }

    /// What the transport makes use of.
    pub(crate) fn remembered(&self) -> Remembered {
        Remembered {
            identification: self.identification.clone(),
            kex: self.kex,
            host_key: self.host_key,
            strict: self.strict,
        }
    }

    /// The fingerprint of the key with which `user` logged in last.
    #[must_use]
    pub fn key_of(&self, user: &User) -> Option<&str> {
        let of_user = |(name, _): &&(User, String)| name == user;
        self.keys.iter().find(of_user).map(|(_, key)| key.as_str())
    }

    /// Notes that `user` logged in with the key of that fingerprint; `None` forgets the user.
    pub(crate) fn set_key(&mut self, user: &User, key: Option<String>) {
        self.keys.retain(|(name, _)| name != user);
        if let Some(key) = key {
            self.keys.insert(0, (user.clone(), key));
        }
        self.keys.truncate(KEYS_MAX);
    }
}

/// A memory that lasts as long as the program, for those that connect again and again.
#[derive(Debug, Default)]
pub struct ProcessMemory {
    records: Mutex<Records>,
}

impl ProcessMemory {
    /// An empty memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Records) -> T) -> T {
        act(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HostMemory for ProcessMemory {
    fn recall(&self, host: &Host, port: u16) -> Option<HostRecord> {
        self.with(|records| records.get(host, port).cloned())
    }

    fn remember(&self, host: &Host, port: u16, record: &HostRecord) {
        self.with(|records| records.put(host, port, record.clone()));
    }

    fn forget(&self, host: &Host, port: u16) {
        self.with(|records| records.remove(host, port));
    }
}
