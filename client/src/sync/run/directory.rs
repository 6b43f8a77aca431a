//! One directory of a sync: what both sides have of it, and that the destination has it.

use std::{
    ffi::OsString,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use ketch_protocol::{FileType, RemotePath};

use crate::{
    Links, Sftp, platform,
    sync::{
        SyncOptions,
        backup::Backup,
        compare::Entry,
        crowd::on_thread,
        leftover, line,
        listing::{self, Entries, Listing},
        removal,
        report::SyncFault,
    },
    transfer::local::{Endings, LocalAction, LocalFault, Tree},
};

/// Which side is the source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::sync) enum Direction {
    Down,
    Up,
}

/// What all steps of a sync share.
#[derive(Debug)]
pub(in crate::sync) struct Context {
    pub line: line::Line,
    pub direction: Direction,
    pub options: SyncOptions,
    /// The topmost directory on the server.
    pub remote: RemotePath,
    /// Seconds since 1970, when the sync began.
    pub now: u32,
    pub counted: Arc<Entries>,
    /// Directories on the server that all is in that goes there.
    pub endings: Arc<Endings>,
    /// Where things go that are replaced or removed.
    pub backup: Option<Backup>,
}

/// A directory that both sides have, or will have, or that one of them loses.
#[derive(Debug)]
pub(in crate::sync) struct Node {
    pub parent: Option<Arc<Self>>,
    pub name: Box<[u8]>,
    /// From the topmost directory on; empty for that.
    pub path: Vec<u8>,
    pub depth: u8,
    /// The local one; none where a dry run would have to make it.
    pub(super) tree: Option<Arc<Tree>>,
    /// A link at the source leads to it.
    pub is_linked: bool,
    /// Where it really is on the server, where it is known by itself.
    real: OnceLock<RemotePath>,
    /// Something in it stays: it cannot be removed.
    keeps: AtomicBool,
}

/// Which side has a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Presence {
    Both,
    /// Only the source: it is to be made.
    Source,
    /// Only the destination: all below it is to be removed.
    Destination,
}

/// Both listings of a directory.
#[derive(Default)]
pub(super) struct Scanned {
    /// A link led to it, and it is in itself: it is left as it is.
    pub leads_back: bool,
    pub source: Listing,
    pub destination: Listing,
    pub reaped: Vec<Box<[u8]>>,
}

impl Node {
    pub(in crate::sync) fn root(tree: Option<Arc<Tree>>) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            name: Box::default(),
            path: Vec::new(),
            depth: 0,
            tree,
            is_linked: false,
            real: OnceLock::new(),
            keeps: AtomicBool::new(false),
        })
    }

    /// A directory in it, that a link at the source leads to if `linked` says where the source is.
    pub(super) fn child(
        self: &Arc<Self>,
        name: &[u8],
        local: OsString,
        linked: Option<Direction>,
    ) -> Arc<Self> {
        let tree = self.tree.as_ref();
        Arc::new(Self {
            parent: Some(Arc::clone(self)),
            name: name.into(),
            path: self.path_of(name),
            depth: self.depth.saturating_add(1),
            tree: tree.map(|tree| match linked {
                Some(Direction::Up) => tree.linked_child(local),
                _ => tree.child(local),
            }),
            is_linked: linked.is_some(),
            real: OnceLock::new(),
            keeps: AtomicBool::new(false),
        })
    }

    /// The path of a name in it, from the topmost directory on.
    pub(in crate::sync) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() {
            name.to_vec()
        } else {
            [&self.path[..], b"/", name].concat()
        }
    }

    /// Where it really is on the server, whose topmost directory is `root`.
    fn real(&self, root: &RemotePath) -> RemotePath {
        // As deep as the tree, which has a limit.
        match (self.real.get(), &self.parent) {
            (Some(real), _) => real.clone(),
            (None, Some(parent)) => parent.real(root).join(&self.name),
            (None, None) => root.clone(),
        }
    }

    /// Takes it for the directory `real` of the server: false if it is in that one.
    fn stands_for(&self, real: RemotePath, root: &RemotePath) -> bool {
        let parents = std::iter::successors(self.parent.as_deref(), |node| node.parent.as_deref());
        if parents.into_iter().any(|node| node.real(root) == real) {
            return false;
        }
        self.real.get_or_init(|| real);
        true
    }

    /// The local directory.
    pub(in crate::sync) fn tree(&self) -> Result<&Arc<Tree>, SyncFault> {
        self.tree.as_ref().ok_or_else(|| {
            let fault = LocalFault {
                action: LocalAction::Open,
                path: std::path::PathBuf::from(String::from_utf8_lossy(&self.path).into_owned()),
                source: std::io::ErrorKind::NotFound.into(),
            };
            fault.into()
        })
    }

    /// Neither it nor what it is in can be removed.
    pub(in crate::sync) fn keep(&self) {
        let mut node = self;
        while !node.keeps.swap(true, Ordering::AcqRel)
            && let Some(parent) = &node.parent
        {
            node = parent;
        }
    }

    pub(in crate::sync) fn is_kept(&self) -> bool {
        self.keeps.load(Ordering::Acquire)
    }
}

impl Context {
    /// The path of a directory on the server.
    pub(in crate::sync) fn remote(&self, node: &Node) -> RemotePath {
        if node.path.is_empty() {
            self.remote.clone()
        } else {
            self.remote.join(&node.path)
        }
    }

    async fn list_remote(
        &self,
        sftp: &Sftp,
        node: &Node,
        is_source: bool,
    ) -> Result<Listing, SyncFault> {
        let follow = is_source && self.options.links == Links::Follow;
        listing::remote(sftp, &self.remote(node), follow, &self.counted).await
    }

    async fn list_local(&self, node: &Node, is_source: bool) -> Result<Listing, SyncFault> {
        let follow = is_source && self.options.links == Links::Follow;
        listing::local(node.tree()?, &self.remote(node), follow, &self.counted).await
    }

    async fn list_source(&self, sftp: &Sftp, node: &Node) -> Result<Listing, SyncFault> {
        match self.direction {
            Direction::Down => self.list_remote(sftp, node, true).await,
            Direction::Up => self.list_local(node, true).await,
        }
    }

    async fn list_destination(&self, sftp: &Sftp, node: &Node) -> Result<Listing, SyncFault> {
        match self.direction {
            Direction::Down => self.list_local(node, false).await,
            Direction::Up => self.list_remote(sftp, node, false).await,
        }
    }

    /// Makes the directory at the destination.
    async fn make(&self, sftp: &Sftp, node: &Node) -> Result<(), SyncFault> {
        match self.direction {
            Direction::Down => {
                let tree = Arc::clone(node.tree()?);
                on_thread(move || tree.dir().map(drop)).await?;
            }
            Direction::Up => make_remote(sftp, &self.remote(node)).await?,
        }
        Ok(())
    }

    /// Lists what there is of a directory, makes it if it is to be, and clears it of what earlier
    /// runs left: before anything is copied there, so that no name of a new part is in doubt.
    ///
    /// All of it once more, if the connection is lost meanwhile and there is another one.
    pub(super) async fn scan(&self, node: &Node, presence: Presence) -> Result<Scanned, SyncFault> {
        let mut asked = 1;
        loop {
            let sftp = self.line.sftp().await;
            match self.scan_on(&sftp, node, presence).await {
                Err(_) if sftp.has_ended() && asked < line::ASKED_MAX => asked += 1,
                scanned => return scanned,
            }
        }
    }

    async fn scan_on(
        &self,
        sftp: &Sftp,
        node: &Node,
        presence: Presence,
    ) -> Result<Scanned, SyncFault> {
        let mut scanned = Scanned::default();
        if node.is_linked && self.direction == Direction::Down {
            let real = sftp.canonicalize(self.remote(node)).await?;
            scanned.leads_back = !node.stands_for(real, &self.remote);
            if scanned.leads_back {
                return Ok(scanned);
            }
        }
        if presence == Presence::Source && !self.options.dry_run {
            self.make(sftp, node).await?;
        }
        if presence != Presence::Destination {
            self.note_attrs(node).await?;
            scanned.source = self.list_source(sftp, node).await?;
        }
        if presence != Presence::Source {
            scanned.destination = self.list_destination(sftp, node).await?;
            self.reap(node, &mut scanned).await?;
        }
        Ok(scanned)
    }

    /// A local directory is looked at before it is read: its copy gets its attributes.
    async fn note_attrs(&self, node: &Node) -> Result<(), SyncFault> {
        let preserve = self.options.put.preserve;
        if self.direction == Direction::Up && preserve.any() && !self.options.dry_run {
            let (tree, path) = (Arc::clone(node.tree()?), self.remote(node));
            let endings = Arc::clone(&self.endings);
            on_thread(move || tree.ends_there(&endings, path, preserve)).await;
        }
        Ok(())
    }

    async fn reap(&self, node: &Node, scanned: &mut Scanned) -> Result<(), SyncFault> {
        let destination_of = |name: &[u8]| self.destination_of(node, name);
        let sources = &scanned.source.entries;
        let (leftovers, entries) = std::mem::take(&mut scanned.destination.entries)
            .into_iter()
            .partition(|entry| {
                matches!(entry.file_type, FileType::Regular | FileType::Symlink)
                    && leftover::is_ours(entry, sources, destination_of, self.now)
            });
        scanned.destination.entries = entries;
        for entry in leftovers as Vec<Entry> {
            if !self.options.dry_run {
                removal::file(self, node, &entry.name).await?;
            }
            scanned.reaped.push(entry.name);
        }
        Ok(())
    }

    /// The destination of a file, in the bytes that its temporary name is made from.
    pub(super) fn destination_of(&self, node: &Node, name: &[u8]) -> Vec<u8> {
        match (self.direction, &node.tree, platform::local_name(name)) {
            (Direction::Down, Some(tree), Some(name)) => {
                tree.path().join(name).into_os_string().into_encoded_bytes()
            }
            _ => self.remote(node).join(name).into_bytes(),
        }
    }
}

/// Makes a directory on the server, if it is not there.
pub(in crate::sync) async fn make_remote(sftp: &Sftp, path: &RemotePath) -> Result<(), SyncFault> {
    let Err(refused) = sftp.create_dir(path).await else {
        return Ok(());
    };
    // Version 3 has no status for a name that is taken: whether it is, tells a look.
    match sftp.lstat(path).await {
        Ok(attrs) if attrs.file_type() == FileType::Directory => Ok(()),
        _ => Err(refused.into()),
    }
}
