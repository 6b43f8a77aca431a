//! A file system in memory: for tests, documentation, and servers that keep nothing.

mod file;
mod watchers;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Answer, Batch, Call, Create, Directory, DirectoryEntry, FileSystem, Links, Metadata, OpenHow,
    TYPE_DIRECTORY, TYPE_LINK, Target, Work,
};
use crate::fs::feed::{Feed, Subscription, WatchRequest};
use crate::path::VPath;

pub use file::MEMORY_FILE_LEN_MAX;
use file::{MemoryFile, OpenedMemory, space};
use watchers::Watchers;

/// Files, directories and links in memory. It never waits, and knows neither owners nor a clock.
///
/// ```
/// use ketch_server::{MemoryFileSystem, VPath};
///
/// let files = MemoryFileSystem::new();
/// let path = VPath::resolve(b"/in/report.csv")?;
/// files.put(&path, b"1;2\n".to_vec())?;
/// assert_eq!(files.get(&path)?, b"1;2\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MemoryFileSystem {
    /// The root is a key like every other.
    nodes: Mutex<BTreeMap<VPath, Node>>,
    watchers: Arc<Watchers>,
}

/// How many links one path may lead through (Linux has the same).
const LINKS_MAX: usize = 40;

#[derive(Clone, Debug)]
enum Node {
    Directory { mode: u32, times: (u32, u32) },
    Link { target: Vec<u8> },
    File(Arc<MemoryFile>),
}

impl Default for MemoryFileSystem {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryFileSystem {
    /// An empty root.
    #[must_use]
    pub fn new() -> Self {
        let root = Node::Directory {
            mode: 0o755,
            times: (0, 0),
        };
        Self {
            nodes: Mutex::new(BTreeMap::from([(VPath::root(), root)])),
            watchers: Arc::default(),
        }
    }

    /// Makes a file with the directories above it, or replaces its content.
    ///
    /// # Errors
    /// `IsADirectory` or `NotADirectory` if what is there stands in the way.
    pub fn put(&self, path: &VPath, bytes: Vec<u8>) -> io::Result<()> {
        let mut nodes = locked(&self.nodes);
        let (parent, _) = path.split().ok_or(ErrorKind::IsADirectory)?;
        let mut way = VPath::root();
        for component in parent.components() {
            way = way.walk(component).map_err(io::Error::other)?;
            match nodes.get(&way) {
                Some(Node::Directory { .. }) => {}
                Some(_) => return Err(ErrorKind::NotADirectory.into()),
                None => {
                    nodes.insert(
                        way.clone(),
                        Node::Directory {
                            mode: 0o755,
                            times: (0, 0),
                        },
                    );
                }
            }
        }
        let is_new = !nodes.contains_key(path);
        match nodes.get(path) {
            Some(Node::Directory { .. }) => return Err(ErrorKind::IsADirectory.into()),
            Some(Node::File(file)) => locked(&file.state).bytes = bytes,
            Some(Node::Link { .. }) | None => {
                nodes.insert(
                    path.clone(),
                    Node::File(Arc::new(MemoryFile::new(0o644, bytes))),
                );
            }
        }
        self.watchers.tell(watchers::put(path, is_new));
        Ok(())
    }

    /// The content of a file.
    ///
    /// # Errors
    /// `NotFound`, or `IsADirectory`.
    pub fn get(&self, path: &VPath) -> io::Result<Vec<u8>> {
        let nodes = locked(&self.nodes);
        match nodes.get(&walk(&nodes, path, Links::Follow)?) {
            Some(Node::File(file)) => Ok(locked(&file.state).bytes.clone()),
            Some(_) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Every path there is, in order, the root not counted.
    #[must_use]
    pub fn paths(&self) -> Vec<VPath> {
        locked(&self.nodes)
            .keys()
            .filter(|path| !path.is_root())
            .cloned()
            .collect()
    }

    fn perform(&self, call: &Call) -> io::Result<Answer> {
        let mut nodes = locked(&self.nodes);
        let news = self.watchers.news(&nodes, call);
        let answer = self.perform_on(&mut nodes, call)?;
        self.watchers.tell(news);
        Ok(answer)
    }

    fn perform_on(&self, nodes: &mut Nodes, call: &Call) -> io::Result<Answer> {
        match call {
            Call::Open { path, how } => open(nodes, path, how, &self.watchers),
            Call::OpenDirectory { path } => {
                let path = walk(nodes, path, Links::Follow)?;
                match nodes.get(&path).ok_or(ErrorKind::NotFound)? {
                    Node::Directory { .. } => {
                        let entries: Vec<_> = children(nodes, &path)
                            .filter_map(|(child, node)| Some((child.split()?.1.to_vec(), node)))
                            .map(|(name, node)| DirectoryEntry::new(name, node.metadata()))
                            .collect();
                        Ok(Answer::Directory(Box::new(Listing {
                            entries: entries.into_iter(),
                        })))
                    }
                    _ => Err(ErrorKind::NotADirectory.into()),
                }
            }
            Call::Metadata { path, links } => {
                let path = walk(nodes, path, *links)?;
                Ok(Answer::Metadata(
                    nodes.get(&path).ok_or(ErrorKind::NotFound)?.metadata(),
                ))
            }
            Call::Change {
                path,
                links,
                change,
            } => {
                let path = walk(nodes, path, *links)?;
                match nodes.get_mut(&path).ok_or(ErrorKind::NotFound)? {
                    Node::File(file) => locked(&file.state).change(change)?,
                    Node::Directory { mode, times } => {
                        if change.size.is_some() {
                            return Err(ErrorKind::IsADirectory.into());
                        }
                        *mode = change.mode.unwrap_or(*mode);
                        *times = change.times.unwrap_or(*times);
                    }
                    Node::Link { .. } => return Err(ErrorKind::Unsupported.into()),
                }
                Ok(Answer::Done)
            }
            Call::Remove { path } => {
                let path = named(nodes, path)?;
                match nodes.get(&path).ok_or(ErrorKind::NotFound)? {
                    Node::Directory { .. } => return Err(ErrorKind::IsADirectory.into()),
                    Node::File(file) => locked(&file.state).links -= 1,
                    Node::Link { .. } => {}
                }
                nodes.remove(&path);
                Ok(Answer::Done)
            }
            Call::RemoveDirectory { path } => {
                let path = named(nodes, path)?;
                match nodes.get(&path).ok_or(ErrorKind::NotFound)? {
                    Node::Directory { .. } if children(nodes, &path).next().is_some() => {
                        Err(ErrorKind::DirectoryNotEmpty.into())
                    }
                    Node::Directory { .. } => {
                        nodes.remove(&path);
                        Ok(Answer::Done)
                    }
                    _ => Err(ErrorKind::NotADirectory.into()),
                }
            }
            Call::CreateDirectory { path, mode } => {
                if path.is_root() {
                    return Err(ErrorKind::AlreadyExists.into());
                }
                let path = named(nodes, path)?;
                vacant(nodes, &path)?;
                nodes.insert(
                    path,
                    Node::Directory {
                        mode: mode & 0o777,
                        times: (0, 0),
                    },
                );
                Ok(Answer::Done)
            }
            Call::Rename { from, to, target } => rename(nodes, from, to, *target),
            Call::ReadLink { path } => {
                let path = walk(nodes, path, Links::Stay)?;
                match nodes.get(&path).ok_or(ErrorKind::NotFound)? {
                    Node::Link { target } => Ok(Answer::Target(target.clone())),
                    _ => Err(ErrorKind::InvalidInput.into()),
                }
            }
            Call::Symlink { target, link } => {
                let link = named(nodes, link)?;
                vacant(nodes, &link)?;
                nodes.insert(
                    link,
                    Node::Link {
                        target: target.clone(),
                    },
                );
                Ok(Answer::Done)
            }
            Call::HardLink { from, to } => {
                let (from, to) = (named(nodes, from)?, named(nodes, to)?);
                vacant(nodes, &to)?;
                let node = match nodes.get(&from).ok_or(ErrorKind::NotFound)? {
                    Node::File(file) => {
                        locked(&file.state).links += 1;
                        Node::File(Arc::clone(file))
                    }
                    _ => return Err(ErrorKind::PermissionDenied.into()),
                };
                nodes.insert(to, node);
                Ok(Answer::Done)
            }
            Call::Canonical { .. }
            | Call::Home { .. }
            | Call::Expand { .. }
            | Call::SyncDirectory { .. }
            | Call::RemoveAbandoned { .. }
            | Call::Names { .. } => Err(ErrorKind::Unsupported.into()),
            Call::Space { path } => {
                let path = walk(nodes, path, Links::Follow)?;
                nodes.get(&path).ok_or(ErrorKind::NotFound)?;
                Ok(Answer::Space(space()))
            }
        }
    }
}

type Nodes = BTreeMap<VPath, Node>;

/// Nobody panics with a lock held; if somebody did, the data would still be whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where `path` leads: links on the way are followed, one at the end if `last` says so.
/// What the path ends in need not exist; the directories above it must.
fn walk(nodes: &Nodes, path: &VPath, last: Links) -> io::Result<VPath> {
    let mut rest: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
    rest.reverse();
    let mut at = VPath::root();
    let mut followed = 0;
    while let Some(component) = rest.pop() {
        if component.is_empty() || component == b"." {
            continue;
        }
        if component == b".." {
            // Only a link's target has one. Out of the root there is nothing, for anybody.
            at = at.split().ok_or(ErrorKind::PermissionDenied)?.0;
            continue;
        }
        let next = at.walk(&component).map_err(|_| ErrorKind::InvalidInput)?;
        match nodes.get(&next) {
            Some(Node::Link { target }) if !rest.is_empty() || last == Links::Follow => {
                followed += 1;
                if followed > LINKS_MAX {
                    return Err(ErrorKind::QuotaExceeded.into());
                }
                if target.starts_with(b"/") {
                    return Err(ErrorKind::PermissionDenied.into());
                }
                rest.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
            }
            Some(Node::File(_) | Node::Link { .. }) if !rest.is_empty() => {
                return Err(ErrorKind::NotADirectory.into());
            }
            None if !rest.is_empty() => return Err(ErrorKind::NotFound.into()),
            _ => at = next,
        }
    }
    Ok(at)
}

/// As [`walk`] without following the last component, which must be one: the root has no name.
fn named(nodes: &Nodes, path: &VPath) -> io::Result<VPath> {
    if path.is_root() {
        Err(ErrorKind::PermissionDenied.into())
    } else {
        walk(nodes, path, Links::Stay)
    }
}

fn vacant(nodes: &Nodes, path: &VPath) -> io::Result<()> {
    if nodes.contains_key(path) {
        Err(ErrorKind::AlreadyExists.into())
    } else {
        Ok(())
    }
}

/// Everything beneath `path`, in order.
fn beneath<'a>(nodes: &'a Nodes, path: &VPath) -> impl Iterator<Item = (&'a VPath, &'a Node)> {
    let depth = path.as_bytes().len();
    let path = path.clone();
    nodes
        .range((Bound::Excluded(path.clone()), Bound::Unbounded))
        .filter(move |(child, _)| {
            child.as_bytes().starts_with(path.as_bytes())
                && (path.is_root() || child.as_bytes().get(depth) == Some(&b'/'))
        })
}

fn children<'a>(nodes: &'a Nodes, path: &VPath) -> impl Iterator<Item = (&'a VPath, &'a Node)> {
    let depth = path.components().count();
    beneath(nodes, path).filter(move |(child, _)| child.components().count() == depth + 1)
}

fn open(
    nodes: &mut Nodes,
    path: &VPath,
    how: &OpenHow,
    watchers: &Arc<Watchers>,
) -> io::Result<Answer> {
    let links = if matches!(how.create, Create::New { .. }) {
        Links::Stay
    } else {
        Links::Follow
    };
    let place = walk(nodes, path, links)?;
    let file = match (nodes.get(&place), how.create) {
        // A link is still one for `New` only; anything else has followed it.
        (Some(_), Create::New { .. }) | (Some(Node::Link { .. }), _) => {
            return Err(ErrorKind::AlreadyExists.into());
        }
        (Some(Node::File(file)), _) => Arc::clone(file),
        (Some(Node::Directory { .. }), _) => return Err(ErrorKind::IsADirectory.into()),
        (None, Create::Never) => return Err(ErrorKind::NotFound.into()),
        // Nothing is made through a link.
        (None, _) if walk(nodes, path, Links::Stay)? != place => {
            return Err(ErrorKind::NotFound.into());
        }
        (None, Create::IfMissing { mode } | Create::New { mode }) => {
            let file = Arc::new(MemoryFile::new(mode & 0o777, Vec::new()));
            nodes.insert(place, Node::File(Arc::clone(&file)));
            file
        }
    };
    let takes = how.exclusive && how.write;
    let mut state = locked(&file.state);
    if takes && std::mem::replace(&mut state.is_taken, true) {
        return Err(ErrorKind::ResourceBusy.into());
    }
    if how.truncate && how.write {
        state.bytes.clear();
    }
    drop(state);
    Ok(Answer::File(Arc::new(OpenedMemory {
        file,
        appends: how.append,
        watched: (how.write || how.append).then(|| (path.clone(), Arc::clone(watchers))),
        takes,
    })))
}

fn rename(nodes: &mut Nodes, from: &VPath, to: &VPath, target: Target) -> io::Result<Answer> {
    let (from, to) = (named(nodes, from)?, named(nodes, to)?);
    let moved = nodes.get(&from).ok_or(ErrorKind::NotFound)?.clone();
    let into_itself = from != to && beneath_or_same(&from, &to);
    match nodes.get(&to) {
        _ if into_itself => return Err(ErrorKind::InvalidInput.into()),
        Some(_) if target == Target::MustNotExist => return Err(ErrorKind::AlreadyExists.into()),
        Some(_) if from == to => return Ok(Answer::Done),
        Some(Node::Directory { .. }) if !matches!(moved, Node::Directory { .. }) => {
            return Err(ErrorKind::IsADirectory.into());
        }
        Some(Node::Directory { .. }) if children(nodes, &to).next().is_some() => {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        Some(Node::File(_) | Node::Link { .. }) if matches!(moved, Node::Directory { .. }) => {
            return Err(ErrorKind::NotADirectory.into());
        }
        Some(_) | None => {}
    }
    if let Some(Node::File(file)) = nodes.get(&to) {
        locked(&file.state).links -= 1;
    }
    let below: Vec<VPath> = beneath(nodes, &from)
        .map(|(path, _)| path.clone())
        .collect();
    for old in below {
        let tail = old
            .as_bytes()
            .get(from.as_bytes().len() + 1..)
            .unwrap_or_default();
        let new = to.walk(tail).map_err(|_| ErrorKind::InvalidFilename)?;
        if let Some(node) = nodes.remove(&old) {
            nodes.insert(new, node);
        }
    }
    nodes.remove(&from);
    nodes.insert(to, moved);
    Ok(Answer::Done)
}

fn beneath_or_same(above: &VPath, path: &VPath) -> bool {
    path.components().count() >= above.components().count()
        && path
            .components()
            .zip(above.components())
            .all(|(a, b)| a == b)
}

impl Node {
    fn metadata(&self) -> Metadata {
        match self {
            Self::Directory { mode, times } => {
                let mut metadata = Metadata::new(TYPE_DIRECTORY | mode);
                (metadata.accessed, metadata.modified) = *times;
                metadata
            }
            Self::Link { target } => {
                let mut metadata = Metadata::new(TYPE_LINK | 0o777);
                metadata.size = target.len() as u64;
                metadata
            }
            Self::File(file) => locked(&file.state).metadata(),
        }
    }
}

/// The entries as they were when the directory was opened.
#[derive(Debug)]
struct Listing {
    entries: std::vec::IntoIter<DirectoryEntry>,
}

impl Directory for Listing {
    fn try_read(&mut self, batch: &mut Batch) -> io::Result<()> {
        while !batch.is_full() {
            let Some(entry) = self.entries.next() else {
                break;
            };
            batch.push(entry);
        }
        Ok(())
    }

    fn read(mut self: Box<Self>, mut batch: Batch) -> Work<(Box<dyn Directory>, Batch)> {
        Box::pin(async move {
            self.try_read(&mut batch)?;
            Ok((self as Box<dyn Directory>, batch))
        })
    }
}

impl FileSystem for MemoryFileSystem {
    fn try_call(&self, call: &Call) -> io::Result<Answer> {
        self.perform(call)
    }

    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        Box::pin(async move { self.perform(&call) })
    }

    fn can_watch(&self) -> bool {
        true
    }

    fn watch(self: Arc<Self>, request: WatchRequest, feed: Feed) -> Work<Subscription> {
        Box::pin(async move {
            let nodes = locked(&self.nodes);
            match nodes.get(&request.path).ok_or(ErrorKind::NotFound)? {
                Node::Directory { .. } => Ok(Watchers::add(&self.watchers, request, feed)),
                _ => Err(ErrorKind::NotADirectory.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Change;

    fn path(named: &str) -> VPath {
        VPath::resolve(named.as_bytes()).unwrap()
    }

    fn kind(result: io::Result<Answer>) -> Result<(), ErrorKind> {
        result.map(drop).map_err(|error| error.kind())
    }

    #[test]
    fn links_are_followed_within_the_tree_only() {
        let fs = MemoryFileSystem::new();
        fs.put(&path("/a/file"), b"x".to_vec()).unwrap();
        for (link, target) in [
            ("/in", "a/file"),
            ("/a/up", "../a"),
            ("/out", "../etc"),
            ("/abs", "/a"),
        ] {
            let call = Call::Symlink {
                target: target.into(),
                link: path(link),
            };
            fs.perform(&call).unwrap();
        }
        assert_eq!(fs.get(&path("/in")).unwrap(), b"x");
        assert_eq!(fs.get(&path("/a/up/up/file")).unwrap(), b"x");
        for out in ["/out/passwd", "/abs/file"] {
            assert_eq!(
                fs.get(&path(out)).unwrap_err().kind(),
                ErrorKind::PermissionDenied
            );
        }
    }

    #[test]
    fn a_directory_moves_with_all_that_is_in_it() {
        let fs = MemoryFileSystem::new();
        fs.put(&path("/a/b/file"), b"x".to_vec()).unwrap();
        fs.put(&path("/ab"), b"y".to_vec()).unwrap();
        let rename = |from, to| Call::Rename {
            from: path(from),
            to: path(to),
            target: Target::MustNotExist,
        };
        assert_eq!(
            kind(fs.perform(&rename("/a", "/a/b/c"))),
            Err(ErrorKind::InvalidInput)
        );
        assert_eq!(
            kind(fs.perform(&rename("/a", "/ab"))),
            Err(ErrorKind::AlreadyExists)
        );
        assert_eq!(kind(fs.perform(&rename("/a", "/z"))), Ok(()));
        assert_eq!(fs.get(&path("/z/b/file")).unwrap(), b"x");
        assert_eq!(fs.get(&path("/ab")).unwrap(), b"y");
    }

    #[test]
    fn a_file_cannot_be_stretched_over_all_memory() {
        let fs = MemoryFileSystem::new();
        let change = Change {
            size: Some(u64::MAX),
            ..Change::default()
        };
        fs.put(&path("/x"), Vec::new()).unwrap();
        let call = Call::Change {
            path: path("/x"),
            links: Links::Follow,
            change,
        };
        assert_eq!(kind(fs.perform(&call)), Err(ErrorKind::FileTooLarge));
    }
}
