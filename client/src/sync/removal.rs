//! What only the destination has, and is to be removed when everything else is done.
//!
//! It is remembered while directories are compared, and removed in the end: files first, then
//! directories from the deepest up. A directory in which something stays is left, too. What is
//! gone already is as it should be.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    crowd::{Crowd, on_thread},
    report::{SyncAction, SyncFault},
    run::{Context, Direction, Node},
};
use crate::{
    Failure, Kind, platform,
    transfer::{
        LocalAction, TransferError,
        control::Wanted,
        local::{LocalFault, Tree},
    },
};

/// Entries that are remembered; more are left for another run, and counted.
const DOOMED_MAX: u64 = if cfg!(test) { 500 } else { 200_000 };
/// Removals under way at a time.
const REMOVALS_MAX: usize = 64;

/// What is to be removed.
#[derive(Debug, Default)]
pub(super) struct Doomed {
    files: Vec<(Arc<Node>, Box<[u8]>)>,
    /// By depth.
    directories: BTreeMap<u8, Vec<Arc<Node>>>,
    held: u64,
    left: u64,
}

impl Doomed {
    /// Remembers a file or link.
    pub(super) fn file(&mut self, node: &Arc<Node>, name: &[u8]) {
        if self.has_room(node) {
            self.files.push((Arc::clone(node), name.into()));
        }
    }

    /// Counts a file or link whose place something else takes: whether there is room for it.
    pub(super) fn changed(&mut self, node: &Node) -> bool {
        self.has_room(node)
    }

    /// Remembers a directory: whether there is room for it.
    pub(super) fn directory(&mut self, node: &Arc<Node>) -> bool {
        let has_room = self.has_room(node);
        if has_room {
            let level = self.directories.entry(node.depth).or_default();
            level.push(Arc::clone(node));
        }
        has_room
    }

    fn has_room(&mut self, node: &Node) -> bool {
        if self.held < DOOMED_MAX {
            self.held += 1;
            return true;
        }
        self.left += 1;
        node.keep();
        false
    }

    /// Entries that were found, remembered or not.
    pub(super) const fn found(&self) -> u64 {
        self.held.saturating_add(self.left)
    }

    /// Entries that were found and not remembered.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }

    /// Removes all, and tells what became of each.
    pub(super) async fn remove(
        self,
        context: &Arc<Context>,
        mut told: impl FnMut(&Node, &[u8], SyncAction, Result<(), SyncFault>) -> Result<(), SyncFault>,
    ) -> Result<(), SyncFault> {
        let files = self.files.into_iter();
        work(context, files, SyncAction::Remove, &mut told).await?;
        for (_, level) in self.directories.into_iter().rev() {
            let level = level.into_iter().filter(|node| !node.is_kept());
            let named = level.filter_map(|node| {
                let parent = Arc::clone(node.parent.as_ref()?);
                Some((parent, node.name.clone()))
            });
            work(context, named, SyncAction::RemoveDirectory, &mut told).await?;
        }
        Ok(())
    }
}

async fn work(
    context: &Arc<Context>,
    mut names: impl Iterator<Item = (Arc<Node>, Box<[u8]>)>,
    action: SyncAction,
    told: &mut impl FnMut(&Node, &[u8], SyncAction, Result<(), SyncFault>) -> Result<(), SyncFault>,
) -> Result<(), SyncFault> {
    let mut crowd = Crowd::new();
    let control = context.options.control.clone();
    loop {
        let wanted = control.wanted();
        if wanted == Wanted::Cancel {
            return Err(TransferError::Cancelled.into());
        }
        while wanted == Wanted::Run
            && crowd.len() < REMOVALS_MAX
            && let Some((node, name)) = names.next()
        {
            let context = Arc::clone(context);
            crowd.add(async move {
                let done = if context.options.dry_run {
                    Ok(())
                } else if action == SyncAction::Remove {
                    match &context.backup {
                        Some(backup) => gone(backup.take(&context, &node, &name).await),
                        None => file(&context, &node, &name).await,
                    }
                } else {
                    let kept = match &context.backup {
                        Some(backup) => backup.directory(&context, &node, &name).await,
                        None => Ok(()),
                    };
                    match kept {
                        Ok(()) => directory(&context, &node, &name).await,
                        Err(error) => Err(error),
                    }
                };
                (node, name, done)
            });
        }
        match crowd.next_while(&control, wanted).await {
            Some((node, name, done)) => told(&node, &name, action, done)?,
            None if wanted == Wanted::Run && crowd.len() == 0 => return Ok(()),
            None => {}
        }
    }
}

/// Removes the file or link `name` in a directory of the destination.
pub(super) async fn file(context: &Context, node: &Node, name: &[u8]) -> Result<(), SyncFault> {
    match context.direction {
        Direction::Down => local(node, name, platform::Dir::remove).await,
        Direction::Up => {
            let path = context.remote(node).join(name);
            gone(
                context
                    .line
                    .sftp()
                    .await
                    .remove_file(path)
                    .await
                    .map_err(SyncFault::from),
            )
        }
    }
}

/// Removes the empty directory `name` in a directory of the destination.
async fn directory(context: &Context, node: &Node, name: &[u8]) -> Result<(), SyncFault> {
    match context.direction {
        Direction::Down => local(node, name, platform::Dir::remove_dir).await,
        Direction::Up => {
            let path = context.remote(node).join(name);
            let sftp = context.line.sftp().await;
            gone(sftp.remove_dir(path).await.map_err(SyncFault::from))
        }
    }
}

async fn local(
    node: &Node,
    name: &[u8],
    remove: fn(&platform::Dir, &std::ffi::OsStr) -> io::Result<()>,
) -> Result<(), SyncFault> {
    let tree: Arc<Tree> = Arc::clone(node.tree()?);
    let Some(name) = platform::local_name(name) else {
        return Ok(());
    };
    let removed = on_thread(move || {
        let path = tree.path().join(&name);
        let fault = |source| LocalFault {
            action: LocalAction::Remove,
            path,
            source,
        };
        remove(&*tree.dir()?, &name).map_err(fault)
    });
    gone(removed.await.map_err(SyncFault::from))
}

/// What is gone already need not be removed.
fn gone(removed: Result<(), SyncFault>) -> Result<(), SyncFault> {
    match removed {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        removed => removed,
    }
}
