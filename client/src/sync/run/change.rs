//! Names that have another type at the destination: a file where a directory is to be, a directory
//! where a file is to be, a link against either.
//!
//! They are changed when everything else was compared and copied, before anything else is removed,
//! and only where that is asked for. What takes a place is brought first, under a temporary name
//! beside it (`transfer/names.rs`): if that fails, the old thing stays. A file or link then takes the
//! place of a link or file with one rename; that of a directory when the directory was removed with
//! all that is in it. For a directory, the file or link in its place is put aside, and put back if
//! the directory cannot be made.

use std::sync::Arc;

use ketch_protocol::FileType;

use super::{
    BATCH_MAX, Run,
    copying::{Became, Copy, download, upload},
    directory::{Context, Direction, Node, Presence},
};
use crate::{
    Failure, Kind, platform,
    sync::{
        crowd::on_thread,
        place::put_in_place,
        removal,
        report::{SyncAction, SyncFault},
    },
    transfer::{
        LocalAction, TransferError,
        control::Wanted,
        local::LocalFault,
        names::{self, Identity},
    },
};

/// A name that is to have another type.
pub(super) struct Change {
    pub copy: Copy,
    pub was: Was,
}

/// What the destination has.
pub(super) enum Was {
    /// A file or a link.
    Entry(FileType),
    /// A directory, which is to be removed with all that is in it.
    Directory(Arc<Node>),
}

impl Change {
    fn becomes_directory(&self) -> bool {
        self.copy.entry.file_type == FileType::Directory
    }
}

impl Run {
    /// Changes what has another type, as far as that can be done before directories are removed.
    pub(in crate::sync) async fn change_types(&mut self) -> Result<(), SyncFault> {
        let result = self.change_all().await;
        let begun = std::mem::take(&mut self.begun);
        if let Err(error) = &result {
            self.staged.clear();
            // Of a server that is not reached any more, the next run removes them.
            if self.context.direction == Direction::Down || error.kind() == Kind::Cancelled {
                for (node, staged) in begun {
                    discard(&self.context, &node, &staged).await;
                }
            }
        }
        result
    }

    async fn change_all(&mut self) -> Result<(), SyncFault> {
        let mut changes = std::mem::take(&mut self.changes);
        if self.report.failed_count > 0 {
            return Ok(());
        }
        let mut stay = Vec::new();
        changes.retain(|change| match &change.was {
            Was::Directory(old) if old.is_kept() => {
                let copy = &change.copy;
                let path = copy.node.path_of(&copy.entry.name);
                stay.push((path, copy.entry.file_type));
                false
            }
            _ => true,
        });
        // Something in these stays, and so do they: then nothing is removed at all.
        for (path, here) in stay {
            let there = FileType::Directory;
            self.fail(path, SyncFault::Conflict { here, there })?;
        }
        if self.report.failed_count > 0 {
            return Ok(());
        }
        let (directories, others) = changes
            .into_iter()
            .partition::<Vec<_>, _>(Change::becomes_directory);
        let staged = self.stage(others).await?;
        for change in staged {
            self.go_ahead().await?;
            match change.was {
                Was::Entry(old) => self.settle(change.copy, Some(old)).await?,
                Was::Directory(_) => self.staged.push(change.copy),
            }
        }
        for change in directories {
            self.go_ahead().await?;
            self.make_place(change.copy).await?;
        }
        self.work().await
    }

    /// Waits until it is not paused.
    ///
    /// # Errors
    /// It was cancelled.
    async fn go_ahead(&self) -> Result<(), SyncFault> {
        let control = &self.context.options.control;
        loop {
            match control.wanted() {
                Wanted::Run => return Ok(()),
                Wanted::Pause => control.changed(Wanted::Pause).await,
                Wanted::Cancel => return Err(TransferError::Cancelled.into()),
            }
        }
    }

    /// Brings files and links under temporary names; gives those that are there.
    async fn stage(&mut self, changes: Vec<Change>) -> Result<Vec<Change>, SyncFault> {
        if self.context.options.dry_run {
            return Ok(changes);
        }
        let mut staged = Vec::with_capacity(changes.len());
        let mut changes = changes.into_iter();
        loop {
            let (mut batch, mut were) = (Vec::new(), Vec::new());
            for Change { mut copy, was } in changes.by_ref().take(BATCH_MAX) {
                let staged = self.context.staged(&copy);
                self.begun.push((Arc::clone(&copy.node), staged.clone()));
                copy.staged = Some(staged);
                batch.push(copy);
                were.push(was);
            }
            if batch.is_empty() {
                return Ok(staged);
            }
            let result = match self.context.direction {
                Direction::Down => download(&self.context, &batch).await,
                Direction::Up => upload(&self.context, &batch).await,
            };
            let outcomes = self.sort_out(batch, result)?;
            for ((copy, became), was) in outcomes.into_iter().zip(were) {
                match became {
                    Became::There => staged.push(Change { copy, was }),
                    other => self.tell(&copy, other)?,
                }
            }
        }
    }

    /// Gives what is there under a temporary name its own, in place of `old` if that is still there.
    async fn settle(&mut self, copy: Copy, old: Option<FileType>) -> Result<(), SyncFault> {
        let context = Arc::clone(&self.context);
        let (node, name) = (&copy.node, &copy.entry.name);
        let result = match &copy.staged {
            Some(staged) => {
                let kept = match (&context.backup, old) {
                    (Some(backup), Some(old)) => {
                        backup.keep(&context, node, name, old).await.map(Some)
                    }
                    _ => Ok(None),
                };
                match kept {
                    Ok(kept) => {
                        let placed = rename(&context, node, staged, name).await;
                        if let (Err(_), Some(_), Some(backup)) = (&placed, kept, &context.backup) {
                            backup.give_back(&context, node, name).await;
                        }
                        placed
                    }
                    Err(error) => Err(error),
                }
            }
            None => Ok(()), // a dry run
        };
        match result {
            Ok(()) => {
                let bytes = copy.entry.attrs.size.unwrap_or(0);
                self.step(node, name, copy.action, bytes);
                Ok(())
            }
            Err(error) => {
                if let Some(staged) = &copy.staged {
                    if matches!(error, SyncFault::Stranded { .. }) {
                        // What had the name is not there any more: this is what there is.
                        self.begun
                            .retain(|(at, name)| !Arc::ptr_eq(at, node) || name != staged);
                    } else {
                        discard(&context, node, staged).await;
                    }
                }
                self.fail(node.path_of(name), error)
            }
        }
    }

    /// Gives what waited for the removal of directories its name, also if that was cancelled: what
    /// was there before is perhaps removed already.
    pub(in crate::sync) async fn name_staged(&mut self) -> Result<(), SyncFault> {
        let staged = std::mem::take(&mut self.staged);
        for copy in staged {
            if !self.removes {
                if let Some(staged) = &copy.staged {
                    discard(&self.context, &copy.node, staged).await;
                }
                continue;
            }
            drop(self.go_ahead().await);
            self.settle(copy, None).await?;
        }
        Ok(())
    }

    /// Makes a directory where a file or a link is, and has it filled.
    async fn make_place(&mut self, copy: Copy) -> Result<(), SyncFault> {
        let context = Arc::clone(&self.context);
        let (node, entry) = (&copy.node, &copy.entry);
        let name = &entry.name;
        let Some(local) = platform::local_name(name) else {
            return Ok(());
        };
        if !context.options.dry_run
            && let Err(error) = replace_by_directory(&context, &copy).await
        {
            return self.fail(node.path_of(name), error);
        }
        self.step(node, name, SyncAction::Remove, 0);
        self.enter(node, entry, local, Presence::Source)
    }
}

impl Context {
    /// The temporary name of what is to take the place of something else: the same in each run.
    pub(super) fn staged(&self, copy: &Copy) -> Box<[u8]> {
        let (name, entry) = (&copy.entry.name, &copy.entry);
        let source = Identity {
            size: entry.attrs.size,
            modified: entry.modified().map(u64::from),
        };
        let destination = self.destination_of(&copy.node, name);
        names::temporary(&destination, name, source, names::ATTEMPT_BESIDE).into()
    }
}

/// Puts what has the name aside, or into the backup, and makes a directory in its place.
async fn replace_by_directory(context: &Context, copy: &Copy) -> Result<(), SyncFault> {
    let (node, name) = (&copy.node, &copy.entry.name);
    let aside = context.staged(copy);
    match &context.backup {
        Some(backup) => backup.take(context, node, name).await?,
        None => rename(context, node, name, &aside).await?,
    }
    if let Err(error) = make(context, node, name).await {
        match &context.backup {
            Some(backup) => backup.give_back(context, node, name).await,
            None => drop(rename(context, node, &aside, name).await),
        }
        return Err(error);
    }
    if context.backup.is_none() {
        removal::file(context, node, &aside).await?;
    }
    Ok(())
}

async fn make(context: &Context, node: &Node, name: &[u8]) -> Result<(), SyncFault> {
    match context.direction {
        Direction::Down => {
            let Some(name) = platform::local_name(name) else {
                return Ok(());
            };
            let tree = Arc::clone(node.tree()?).child(name);
            on_thread(move || tree.dir().map(drop)).await?;
        }
        Direction::Up => {
            let path = context.remote(node).join(name);
            context.line.sftp().await.create_dir(path).await?;
        }
    }
    Ok(())
}

/// Removes what was brought for a place that it did not get.
async fn discard(context: &Context, node: &Node, staged: &[u8]) {
    if let Err(error) = removal::file(context, node, staged).await {
        tracing::warn!(%error, "a temporary file is left behind");
    }
}

/// Renames within a directory of the destination, in place of a file or link.
async fn rename(context: &Context, node: &Node, from: &[u8], to: &[u8]) -> Result<(), SyncFault> {
    match context.direction {
        Direction::Down => {
            let tree = Arc::clone(node.tree()?);
            let names = platform::local_name(from).zip(platform::local_name(to));
            let Some((from, to)) = names else {
                return Ok(());
            };
            let renamed = on_thread(move || {
                let path = tree.path().join(&to);
                tree.dir()?.rename(&from, &to).map_err(|source| LocalFault {
                    action: LocalAction::Rename,
                    path,
                    source,
                })
            });
            Ok(renamed.await?)
        }
        Direction::Up => {
            let directory = context.remote(node);
            let sftp = context.line.sftp().await;
            put_in_place(&sftp, &directory.join(from), &directory.join(to)).await
        }
    }
}
