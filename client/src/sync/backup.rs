//! Where things go that a sync replaces or removes, if they are to be kept: a directory on the side
//! of the destination, in which each has the path that it had.
//!
//! What is removed is renamed to its place there. What is replaced gets a second name there first,
//! so that its own name is never free meanwhile; where there are no second names (hard links), it is
//! renamed, and renamed back if nothing took its place. Nothing is copied: the directory is on the
//! same file system, or the thing stays and the report says why. What an earlier run put there
//! under the same path is replaced.

use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use ketch_protocol::{FileType, RemotePath};

use super::{
    cannot_begin,
    crowd::on_thread,
    place::{instead, put_in_place},
    report::{SyncError, SyncFault},
    run::{Context, Direction, Node, make_remote},
};
use crate::{
    Failure, Kind, Place, Sftp, platform,
    transfer::{
        LocalAction,
        local::{LocalFault, Tree},
    },
};

/// Directories that are remembered as made there; with more, all are forgotten.
const MADE_MAX: usize = 10_000;

/// A place for what is replaced or removed.
#[derive(Debug)]
pub(super) struct Backup {
    /// None where a dry run would have to make it.
    side: Option<Side>,
    /// Its path in the synced directory, if it is in there; empty if it is that or above it.
    inside: Option<Box<[u8]>>,
    /// Paths of directories that are there for sure.
    made: Mutex<HashSet<Vec<u8>>>,
}

#[derive(Debug)]
enum Side {
    Here(Arc<Tree>),
    There(RemotePath),
}

/// How something was kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    /// It has a second name.
    Linked,
    /// Its own name is free.
    Moved,
}

impl Backup {
    /// Makes the directory, unless nothing is to be made, and sees where it is.
    pub(super) async fn new(
        sftp: &Sftp,
        direction: Direction,
        directory: &Path,
        (remote, local): (&RemotePath, &Path),
        dry_run: bool,
    ) -> Result<Self, SyncError> {
        let (side, inside) = match direction {
            Direction::Down => here(sftp, directory, local, dry_run).await?,
            Direction::Up => there(sftp, directory, remote, dry_run).await?,
        };
        if inside.as_ref().is_some_and(|inside| inside.is_empty()) {
            let place = match direction {
                Direction::Down => Place::Local(local.to_owned()),
                Direction::Up => Place::Remote(remote.clone()),
            };
            return Err(SyncError::BackupInPlace { place });
        }
        Ok(Self {
            side,
            inside,
            made: Mutex::default(),
        })
    }

    /// Its path in the synced directory: nothing there is compared.
    pub(super) fn inside(&self) -> Option<&[u8]> {
        self.inside.as_deref()
    }

    /// Moves what has the name `name` in `node` of the destination.
    pub(super) async fn take(
        &self,
        context: &Context,
        node: &Node,
        name: &[u8],
    ) -> Result<(), SyncFault> {
        match &self.side {
            Some(Side::Here(tree)) => self.here(tree, node, name, move_to).await,
            Some(Side::There(root)) => {
                let (from, to) = self.there(context, root, node, name).await?;
                let sftp = context.line.sftp().await;
                put_in_place(&sftp, &from, &to).await?;
                if sftp.lstat(&from).await.is_ok() {
                    // Two names of one file, which a rename leaves alone (POSIX rename).
                    sftp.remove_file(&to).await?;
                    sftp.rename(&from, &to).await?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Keeps what has the name `name` in `node` of the destination, and is about to be replaced.
    pub(super) async fn keep(
        &self,
        context: &Context,
        node: &Node,
        name: &[u8],
        file_type: FileType,
    ) -> Result<Kept, SyncFault> {
        // What a second name of a link is, a system may choose (POSIX link): the link, or the file.
        if file_type == FileType::Regular && self.link(context, node, name).await? {
            return Ok(Kept::Linked);
        }
        self.take(context, node, name).await?;
        Ok(Kept::Moved)
    }

    /// Gives it a second name there; false if that is not possible.
    async fn link(&self, context: &Context, node: &Node, name: &[u8]) -> Result<bool, SyncFault> {
        match &self.side {
            Some(Side::Here(tree)) => {
                let linked = self.here(tree, node, name, platform::Dir::link_to).await;
                Ok(linked.is_ok())
            }
            Some(Side::There(root)) => {
                let (from, to) = self.there(context, root, node, name).await?;
                let sftp = context.line.sftp().await;
                match sftp.hard_link(&from, &to).await {
                    Ok(()) => return Ok(true),
                    Err(error) if error.kind() == Kind::Unsupported => return Ok(false),
                    Err(_) => {}
                }
                // Version 3 has no status for a name that is taken.
                if sftp.lstat(&to).await.is_err() {
                    return Ok(false);
                }
                match instead(&sftp, &from, &to, sftp.hard_link(&from, &to)).await {
                    Err(error @ SyncFault::Stranded { .. }) => Err(error),
                    linked => Ok(linked.is_ok()),
                }
            }
            None => Ok(true),
        }
    }

    /// Gives what was moved its name again, if nothing has it.
    pub(super) async fn give_back(&self, context: &Context, node: &Node, name: &[u8]) {
        match &self.side {
            Some(Side::Here(tree)) => {
                let back = |there: &platform::Dir, name: &_, here: &platform::Dir, to: &_| {
                    if here.exists(to)? {
                        return Ok(());
                    }
                    there.rename_to(name, here, to)
                };
                let back = move |here: &platform::Dir, name: &_, there: &platform::Dir, to: &_| {
                    back(there, to, here, name)
                };
                let _ = self.here(tree, node, name, back).await;
            }
            Some(Side::There(root)) => {
                if let Ok((from, to)) = self.there(context, root, node, name).await {
                    // Of version 3 a rename to a name that is taken fails, or should.
                    let sftp = context.line.sftp().await;
                    let free = sftp
                        .lstat(&from)
                        .await
                        .is_err_and(|error| error.kind() == Kind::NotFound);
                    if free {
                        let _ = sftp.rename(to, from).await;
                    }
                }
            }
            None => {}
        }
    }

    /// Makes the directory `name` of `node` there, which may hold nothing.
    pub(super) async fn directory(
        &self,
        context: &Context,
        node: &Node,
        name: &[u8],
    ) -> Result<(), SyncFault> {
        let path = node.path_of(name);
        match &self.side {
            Some(Side::Here(tree)) => {
                let tree = below(tree, &path);
                on_thread(move || tree.dir().map(drop)).await?;
            }
            Some(Side::There(root)) => self.make_there(context, root, &path).await?,
            None => {}
        }
        Ok(())
    }

    /// Does something with a name of `node` and the same name there.
    async fn here<F>(
        &self,
        tree: &Arc<Tree>,
        node: &Node,
        name: &[u8],
        work: F,
    ) -> Result<(), SyncFault>
    where
        F: Fn(&platform::Dir, &std::ffi::OsStr, &platform::Dir, &std::ffi::OsStr) -> io::Result<()>
            + Send
            + 'static,
    {
        let Some(name) = platform::local_name(name) else {
            return Ok(());
        };
        let (from, to) = (Arc::clone(node.tree()?), below(tree, &node.path));
        let done: Result<(), LocalFault> = on_thread(move || {
            let path = from.path().join(&name);
            let (from, to) = (from.dir()?, to.dir()?);
            work(&from, &name, &to, &name).map_err(|source| LocalFault {
                action: LocalAction::Rename,
                path,
                source,
            })
        })
        .await;
        Ok(done?)
    }

    /// Both paths of a name, the directory for the second one made.
    async fn there(
        &self,
        context: &Context,
        root: &RemotePath,
        node: &Node,
        name: &[u8],
    ) -> Result<(RemotePath, RemotePath), SyncFault> {
        self.make_there(context, root, &node.path).await?;
        let to = root.join(node.path_of(name));
        Ok((context.remote(node).join(name), to))
    }

    async fn make_there(
        &self,
        context: &Context,
        root: &RemotePath,
        path: &[u8],
    ) -> Result<(), SyncFault> {
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if path.is_empty() || made().contains(path) {
            return Ok(());
        }
        let sftp = context.line.sftp().await;
        // One by one, and none of them through a link that was kept there.
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for end in ends.map(|(end, _)| end).chain([path.len()]) {
            let above = path.get(..end).unwrap_or_default();
            if !above.is_empty() && !made().contains(above) {
                make_remote(&sftp, &root.join(above)).await?;
            }
        }
        let mut made = made();
        if made.len() >= MADE_MAX {
            made.clear();
        }
        made.insert(path.to_vec());
        Ok(())
    }
}

/// Moves a name to another directory, in place of what has it there.
fn move_to(
    from: &platform::Dir,
    name: &std::ffi::OsStr,
    to: &platform::Dir,
    there: &std::ffi::OsStr,
) -> io::Result<()> {
    from.rename_to(name, to, there)?;
    if from.exists(name)? {
        // Two names of one file, which a rename leaves alone (POSIX rename).
        to.remove(there)?;
        from.rename_to(name, to, there)?;
    }
    Ok(())
}

/// The directory at `path` below `tree`, not opened yet.
fn below(tree: &Arc<Tree>, path: &[u8]) -> Arc<Tree> {
    let names = path.split(|&byte| byte == b'/');
    names
        .filter_map(platform::local_name)
        .filter(|name| !name.is_empty())
        .fold(Arc::clone(tree), |tree, name| tree.child(name))
}

async fn here(
    sftp: &Sftp,
    directory: &Path,
    local: &Path,
    dry_run: bool,
) -> Result<(Option<Side>, Option<Box<[u8]>>), SyncError> {
    let (shared, directory) = (Arc::clone(sftp.shared()), directory.to_owned());
    let local = local.to_owned();
    on_thread(move || {
        let cannot = |source| {
            let (action, path) = (LocalAction::Create, directory.clone());
            let fault = LocalFault {
                action,
                path,
                source,
            };
            cannot_begin(Place::Local(directory.clone()), fault)
        };
        if !dry_run {
            std::fs::create_dir_all(&directory).map_err(cannot)?;
        } else if !directory.is_dir() {
            return Ok((None, None));
        }
        let path = std::fs::canonicalize(&directory).map_err(cannot)?;
        let inside = match path.strip_prefix(&local) {
            Ok(path) => {
                let names = path.iter().filter_map(platform::remote_name);
                Some(names.collect::<Vec<_>>().join(&b'/').into())
            }
            // Above it: what is kept would land in it.
            Err(_) => local.starts_with(&path).then(Box::default),
        };
        if dry_run {
            return Ok((None, inside));
        }
        let tree = Tree::make_root(&path, &shared.speeds);
        let tree = tree.map_err(|error| cannot_begin(Place::Local(path), error))?;
        Ok((Some(Side::Here(tree)), inside))
    })
    .await
}

async fn there(
    sftp: &Sftp,
    directory: &Path,
    remote: &RemotePath,
    dry_run: bool,
) -> Result<(Option<Side>, Option<Box<[u8]>>), SyncError> {
    let path = RemotePath::from(directory.as_os_str().as_encoded_bytes());
    let cannot = |error| cannot_begin(Place::Remote(path.clone()), error);
    if !dry_run {
        sftp.create_dir_all(&path).await.map_err(cannot)?;
    }
    let real = match sftp.canonicalize(&path).await {
        Ok(real) => real,
        // It is not there: nothing of it is in the synced directory.
        Err(_) if dry_run => return Ok((None, None)),
        Err(error) => return Err(cannot(error)),
    };
    let inside = match real.as_bytes().strip_prefix(remote.as_bytes()) {
        Some([]) => Some(Box::default()),
        Some([b'/', rest @ ..]) => Some(rest.into()),
        Some(rest) if remote.as_bytes() == b"/" => Some(rest.into()),
        // Above it: what is kept would land in it.
        _ => match remote.as_bytes().strip_prefix(real.as_bytes()) {
            Some([b'/', ..]) => Some(Box::default()),
            Some(_) if real.as_bytes() == b"/" => Some(Box::default()),
            _ => None,
        },
    };
    Ok(((!dry_run).then_some(Side::There(real)), inside))
}
