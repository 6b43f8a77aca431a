//! Buffers between the server and a file system: a block of a file, a batch of a directory.

use std::fmt;

use super::Metadata;

/// A buffer that is lent to [`File::read_at`](super::File::read_at) and comes back filled.
///
/// In front of what the file system sees there is room for the head of the reply, so that block
/// and head leave as one piece.
#[derive(Default)]
pub struct Block {
    bytes: Vec<u8>,
    head: usize,
    filled: usize,
}

impl Block {
    /// Room for `len` bytes behind a head of `head` bytes; the memory of `old` is used again.
    pub(crate) fn renew(old: Self, head: usize, len: usize) -> Self {
        let mut bytes = old.bytes;
        bytes.resize(head.saturating_add(len), 0);
        Self {
            bytes,
            head,
            filled: 0,
        }
    }

    /// Room for `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self::renew(Self::default(), 0, len)
    }

    /// Where the bytes of the file go.
    pub fn space(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.head..).unwrap_or_default()
    }

    /// Says that the first `len` bytes of the space hold what was read.
    pub fn set_filled(&mut self, len: usize) {
        self.filled = len.min(self.bytes.len().saturating_sub(self.head));
    }

    /// What was read.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        let end = self.head.saturating_add(self.filled);
        self.bytes.get(self.head..end).unwrap_or_default()
    }

    /// Head and what was read, after `head` was copied over the room for it.
    pub(crate) fn with_head(&mut self, head: &[u8]) -> &[u8] {
        if let Some(room) = self.bytes.get_mut(..self.head)
            && room.len() == head.len()
        {
            room.copy_from_slice(head);
        }
        let end = self.head.saturating_add(self.filled);
        self.bytes.get(..end).unwrap_or_default()
    }
}

/// Tells the sizes, not the content.
impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("len", &self.bytes.len().saturating_sub(self.head))
            .field("filled", &self.filled)
            .finish()
    }
}

/// The entries of one reply to `READDIR`, as many as fit.
#[derive(Debug, Default)]
pub struct Batch {
    entries: Vec<DirectoryEntry>,
    /// Bytes of all names.
    name_bytes: usize,
    owners: Owners,
}

/// What users and groups are called; numbers stand for those that have no name here.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    users: Vec<(u32, String)>,
    groups: Vec<(u32, String)>,
}

/// Most names of either kind that are kept: few directories have more owners.
const OWNERS_MAX: usize = 64;

impl Owners {
    /// The name of a user, if it is known.
    pub(crate) fn user(&self, uid: u32) -> Option<&str> {
        find(&self.users, uid)
    }

    /// The name of a group, if it is known.
    pub(crate) fn group(&self, gid: u32) -> Option<&str> {
        find(&self.groups, gid)
    }
}

#[cfg_attr(not(feature = "host"), expect(dead_code, reason = "used by `host`"))]
impl Owners {
    /// Asks for the name of a user that is not known yet.
    pub(crate) fn know_user(&mut self, uid: u32, ask: impl FnOnce(u32) -> Option<String>) {
        know(&mut self.users, uid, ask);
    }

    /// Asks for the name of a group that is not known yet.
    pub(crate) fn know_group(&mut self, gid: u32, ask: impl FnOnce(u32) -> Option<String>) {
        know(&mut self.groups, gid, ask);
    }
}

fn find(names: &[(u32, String)], number: u32) -> Option<&str> {
    let found = names.iter().find(|(known, _)| *known == number);
    found.map(|(_, name)| name.as_str())
}

fn know(names: &mut Vec<(u32, String)>, number: u32, ask: impl FnOnce(u32) -> Option<String>) {
    if find(names, number).is_some() || names.len() >= OWNERS_MAX {
        return;
    }
    names.push((number, ask(number).unwrap_or_else(|| number.to_string())));
}

/// Most entries of one batch. With names of usual length and their long form it makes a reply of
/// some 16 KiB, within what every client takes; OpenSSH's server has 100.
pub const BATCH_ENTRIES_MAX: usize = 128;
/// Names of one batch stop here, in bytes: with the long form a reply stays below 64 KiB.
const BATCH_NAME_BYTES_MAX: usize = 16 * 1024;

impl Batch {
    /// Whether no further entry should be put in.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_ENTRIES_MAX || self.name_bytes >= BATCH_NAME_BYTES_MAX
    }

    /// Puts an entry in.
    pub fn push(&mut self, entry: DirectoryEntry) {
        self.name_bytes = self.name_bytes.saturating_add(entry.name.len());
        self.entries.push(entry);
    }

    /// What was put in.
    #[must_use]
    pub fn entries(&self) -> &[DirectoryEntry] {
        &self.entries
    }

    /// Keeps the entries of which `keep` says so.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&DirectoryEntry) -> bool) {
        self.entries.retain(keep);
    }

    /// Names for the owners of its entries.
    #[cfg_attr(not(feature = "host"), expect(dead_code, reason = "used by `host`"))]
    pub(crate) const fn owners(&mut self) -> &mut Owners {
        &mut self.owners
    }

    /// Names for the owners of its entries.
    pub(crate) const fn known_owners(&self) -> &Owners {
        &self.owners
    }

    /// Empties it; the memory stays, and what owners are called.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.name_bytes = 0;
    }
}

/// A name in a directory and what it stands for (a link for itself).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DirectoryEntry {
    /// One component: no slash in it.
    pub name: Vec<u8>,
    /// What is known of it.
    pub metadata: Metadata,
}

impl DirectoryEntry {
    /// An entry.
    #[must_use]
    pub const fn new(name: Vec<u8>, metadata: Metadata) -> Self {
        Self { name, metadata }
    }
}
