//! What is known of a whole tree: for each directory its names, and when it last changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use ketch_client::{FileType, RemotePath};

use super::block::{Block, Entry};
use super::times::Trust;

/// What is known of a tree: every name that the ledger has been told of.
///
/// Some 20 to 30 bytes for a file, and a path and some 150 bytes for a directory. Written to disk by
/// [`crate::detect::Detector::save`], read by [`Snapshot::load`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    pub(super) directories: BTreeMap<RemotePath, Node>,
    pub(super) trust: Trust,
}

/// One directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Node {
    pub block: Block,
    /// Its time of last change when it was listed, if that was long enough after the time itself
    /// that nothing can have changed without another time, and nothing was left to be told.
    pub mtime: Option<u32>,
    /// Whether it was listed completely once.
    pub listed: bool,
}

/// Changes of one directory: sorted by name, each once.
pub(super) type Edits = Vec<(Vec<u8>, Option<Entry>)>;

impl Snapshot {
    /// How many names are known, directories among them.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.directories.values().map(|node| node.block.len()).sum()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directories.values().all(|node| node.block.is_empty())
    }

    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let node = |(path, node): (&RemotePath, &Node)| {
            // Half again, as the nodes of a B-tree are not full.
            let fixed = (size_of::<RemotePath>() + size_of::<Node>()) * 3 / 2;
            fixed + path.as_bytes().len() + 16 + node.block.size()
        };
        self.directories.iter().map(node).sum()
    }

    pub(super) fn node(&self, directory: &RemotePath) -> Option<&Node> {
        self.directories.get(directory)
    }

    pub(super) fn node_mut(&mut self, directory: &RemotePath) -> &mut Node {
        if !self.directories.contains_key(directory) {
            self.directories.insert(directory.clone(), Node::default());
        }
        self.directories.entry(directory.clone()).or_default()
    }

    pub(super) fn get(&self, path: &RemotePath) -> Option<Entry> {
        let (directory, name) = split(path);
        self.directories.get(&directory)?.block.get(name)
    }

    pub(super) fn edit(&mut self, directory: &RemotePath, edits: &Edits) {
        if !edits.is_empty() {
            self.node_mut(directory).block.edit(edits);
        }
    }

    pub(super) fn set(&mut self, path: &RemotePath, entry: Option<Entry>) {
        let (directory, name) = split(path);
        self.edit(&directory, &vec![(name.to_vec(), entry)]);
    }

    /// The directories known to be in `directory`.
    pub(super) fn inner(&self, directory: &RemotePath) -> Vec<RemotePath> {
        let mut found = Vec::new();
        if let Some(node) = self.directories.get(directory) {
            let mut cursor = node.block.cursor();
            while let Some((name, entry)) = cursor.next() {
                if entry.facts.kind == FileType::Directory {
                    found.push(directory.join(name));
                }
            }
        }
        found
    }

    /// Directories with so many others in them that one listing is cheaper than the times of all.
    pub(super) fn telling(&self, is_unreadable: impl Fn(&RemotePath) -> bool) -> HashSet<Vec<u8>> {
        let mut inner: HashMap<&[u8], u64> = HashMap::new();
        for parent in self.directories.keys().filter_map(parent_of) {
            *inner.entry(parent).or_default() += 1;
        }
        let mut telling = HashSet::new();
        for (directory, directories) in inner {
            let path = RemotePath::from(directory);
            let listing = |node: &Node| LISTING_COST.saturating_add(node.block.len());
            let is_cheaper = self.node(&path).is_some_and(|node| {
                node.listed && directories.saturating_mul(LOOK_COST) > listing(node)
            });
            if is_cheaper && !is_unreadable(&path) {
                telling.insert(directory.to_vec());
            }
        }
        telling
    }

    /// `directory` and all directories below it.
    pub(super) fn below(
        &self,
        directory: &RemotePath,
    ) -> impl Iterator<Item = (&RemotePath, &Node)> {
        let own = self.directories.get_key_value(directory);
        // `a/`, behind which `a/b` and `a/b/c` stand together, and nothing else.
        let first = directory.join(b"");
        let last = after(&first);
        let last = match &last {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let skip = directory.clone();
        own.into_iter().chain(
            self.directories
                .range::<RemotePath, _>((Bound::Included(&first), last))
                .filter(move |(path, _)| **path != skip),
        )
    }

    /// Forgets `directory` and everything below it; its name stays in the directory above.
    pub(super) fn forget_nodes(&mut self, directory: &RemotePath) -> Vec<RemotePath> {
        let gone: Vec<_> = self
            .below(directory)
            .map(|(path, _)| path.clone())
            .collect();
        for path in &gone {
            self.directories.remove(path);
        }
        gone
    }

    /// At most `max` names below `directory` that the ledger has, directories left out.
    pub(super) fn told_below(&self, directory: &RemotePath, max: usize) -> Vec<RemotePath> {
        let mut found = Vec::new();
        for (path, node) in self.below(directory) {
            let mut cursor = node.block.cursor();
            while let Some((name, entry)) = cursor.next() {
                if found.len() >= max {
                    return found;
                }
                if entry.facts.kind != FileType::Directory {
                    found.push(path.join(name));
                }
            }
        }
        found
    }
}

/// What asking for the attributes of one path costs a server, in entries of a listing: OpenSSH's
/// takes some 60 µs for it, and 6 µs for an entry.
const LOOK_COST: u64 = 10;

/// What a listing costs without its entries. Trees of tests are small, and are to have both ways.
const LISTING_COST: u64 = if cfg!(test) { 11 } else { 40 };

/// The first path behind all that begin with `prefix`.
fn after(prefix: &RemotePath) -> Option<RemotePath> {
    let mut bytes = prefix.as_bytes().to_vec();
    let last = bytes.pop()?;
    bytes.push(last.checked_add(1)?);
    Some(RemotePath::new(bytes))
}

/// The directory that a path is in; none of the root.
pub(super) fn parent_of(path: &RemotePath) -> Option<&[u8]> {
    let bytes = path.as_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    (!bytes.is_empty()).then(|| bytes.get(..end).unwrap_or_default())
}

/// The directory that a path is in, the root as the empty path, and its name there.
pub(super) fn split(path: &RemotePath) -> (RemotePath, &[u8]) {
    let bytes = path.as_bytes();
    match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (
            RemotePath::from(bytes.get(..at).unwrap_or_default()),
            bytes.get(at + 1..).unwrap_or_default(),
        ),
        None => (RemotePath::from(""), bytes),
    }
}

/// How far below the root a path is: 0 for the root, 1 for its entries.
pub(super) fn depth(path: &RemotePath) -> u32 {
    match path.as_bytes() {
        [] => 0,
        bytes => {
            let slashes = bytes.iter().filter(|byte| **byte == b'/').count();
            u32::try_from(slashes).map_or(u32::MAX, |slashes| slashes.saturating_add(1))
        }
    }
}
