//! Files of a sync being copied: in batches, each a plan of the transfer engine; and those whose
//! content is looked at first.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    sync::Arc,
};

use ketch_protocol::{FileType, RemotePath};

use super::{
    Run,
    directory::{Context, Direction, Node},
};
use crate::{
    NameFault, Sftp, platform,
    sync::{
        backup::Kept,
        compare::Entry,
        content,
        crowd::{Crowd, on_thread},
        line,
        report::{SkipReason, SyncAction, SyncFault},
    },
    transfer::{
        Place, REPORTED_MAX, Report, TransferError, WhySkipped, get,
        local::{SourceFile, Tree},
        put,
    },
};

/// Files of a batch at a time that are kept before they are replaced.
const SECURED_MAX: usize = 64;

/// A file or link to copy.
pub(super) struct Copy {
    pub node: Arc<Node>,
    pub entry: Entry,
    pub action: SyncAction,
    /// The name that it gets at the destination for now, if that is not its own.
    pub staged: Option<Box<[u8]>>,
}

impl Copy {
    /// Its name at the destination.
    fn goes_to(&self) -> &[u8] {
        self.staged.as_deref().unwrap_or(&self.entry.name)
    }
}

/// What became of a file or link to copy.
pub(super) enum Became {
    /// It is there.
    There,
    /// It is a link that leads out of the directory, and was left out.
    LeadsOut,
    Failed(SyncFault),
}

impl Run {
    /// Takes what came of a batch.
    pub(super) fn on_copied(
        &mut self,
        batch: Vec<Copy>,
        result: Result<Report, TransferError>,
    ) -> Result<(), SyncFault> {
        for (copy, became) in self.sort_out(batch, result)? {
            self.tell(&copy, became)?;
        }
        Ok(())
    }

    /// Tells what became of one.
    pub(super) fn tell(&mut self, copy: &Copy, became: Became) -> Result<(), SyncFault> {
        let (node, name) = (&copy.node, &copy.entry.name);
        match became {
            Became::There => {
                let bytes = copy.entry.attrs.size.unwrap_or(0);
                self.step(node, name, copy.action, bytes);
            }
            Became::LeadsOut => {
                node.keep();
                self.step(node, name, SyncAction::Skip(SkipReason::LeadsOut), 0);
            }
            Became::Failed(error) => self.fail(node.path_of(name), error)?,
        }
        Ok(())
    }

    /// Says of each of a batch what became of it, in the same order.
    ///
    /// # Errors
    /// What ended everything.
    pub(super) fn sort_out(
        &mut self,
        batch: Vec<Copy>,
        result: Result<Report, TransferError>,
    ) -> Result<Vec<(Copy, Became)>, SyncFault> {
        let report = match result {
            Ok(report) => report,
            Err(TransferError::Incomplete { report }) => *report,
            Err(error) => {
                // One file alone fails with its own error; anything else is the end.
                let error = SyncFault::from(error);
                let mut batch = batch.into_iter();
                return match (batch.next(), batch.next()) {
                    (Some(copy), None) if !error.ends_everything() => {
                        Ok(vec![(copy, Became::Failed(error))])
                    }
                    _ => Err(error),
                };
            }
        };
        let room = REPORTED_MAX.saturating_sub(self.report.remarks.len());
        self.report
            .remarks
            .extend(report.remarks.into_iter().take(room));
        let mut failed: HashMap<Vec<u8>, SyncFault> = HashMap::new();
        for fault in report.failed {
            let key = match fault.place {
                Place::Remote(path) => path.into_bytes(),
                Place::Local(path) => path.into_os_string().into_encoded_bytes(),
            };
            failed.insert(key, fault.error.into());
        }
        let context = Arc::clone(&self.context);
        let mut led_out: HashSet<Vec<u8>> = HashSet::new();
        for skipped in report.skipped {
            let key = match skipped.place {
                Place::Remote(path) => path.into_bytes(),
                Place::Local(path) => path.into_os_string().into_encoded_bytes(),
            };
            if skipped.why == WhySkipped::LeadsOut {
                led_out.insert(key);
                continue;
            }
            // Something else has its name by now: it was not copied.
            let fault = SyncFault::Conflict {
                here: skipped.file_type,
                there: FileType::Regular,
            };
            failed.insert(key, fault);
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for copy in batch {
            let node = &copy.node;
            let names = [&copy.entry.name[..], copy.goes_to()];
            let mut keys = names.into_iter().flat_map(|name| {
                let local = node.tree.as_ref().and_then(|tree| {
                    let local = tree.path().join(platform::local_name(name)?);
                    Some(local.into_os_string().into_encoded_bytes())
                });
                [Some(context.remote(node).join(name).into_bytes()), local]
            });
            let became = if failed.is_empty() && led_out.is_empty() {
                Became::There
            } else {
                let found = keys.by_ref().flatten().find_map(|key| {
                    if led_out.remove(&key) {
                        return Some(Became::LeadsOut);
                    }
                    failed.remove(&key).map(Became::Failed)
                });
                found.unwrap_or(Became::There)
            };
            drop(keys);
            outcomes.push((copy, became));
        }
        // Errors with other names are errors all the same.
        for (path, error) in failed {
            self.fail(path, error)?;
        }
        Ok(outcomes)
    }
}

/// What was put away by being renamed: where it was.
type Moved = Vec<(Arc<Node>, Box<[u8]>)>;

/// Keeps what a batch replaces, if it is to be kept; gives those that may be copied now, what was
/// put away by being renamed, and those that would have destroyed what could not be kept.
pub(super) async fn secure(
    context: &Arc<Context>,
    batch: Vec<Copy>,
) -> (Vec<Copy>, Moved, Vec<(Copy, SyncFault)>) {
    let (mut secured, mut moved, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    if context.backup.is_none() {
        return (batch, moved, failed);
    }
    let (mut crowd, mut batch) = (Crowd::new(), batch.into_iter());
    loop {
        while crowd.len() < SECURED_MAX
            && let Some(copy) = batch.next()
        {
            let context = Arc::clone(context);
            crowd.add(async move {
                let (name, file_type) = (&copy.entry.name, copy.entry.file_type);
                let kept = match (&context.backup, copy.action) {
                    (Some(backup), SyncAction::Replace(_)) => {
                        let kept = backup.keep(&context, &copy.node, name, file_type).await;
                        kept.map(Some)
                    }
                    _ => Ok(None),
                };
                (copy, kept)
            });
        }
        match crowd.next().await {
            Some((copy, Ok(kept))) => {
                if kept == Some(Kept::Moved) {
                    moved.push((Arc::clone(&copy.node), copy.entry.name.clone()));
                }
                secured.push(copy);
            }
            Some((copy, Err(error))) => failed.push((copy, error)),
            None => return (secured, moved, failed),
        }
    }
}

/// Whether a file has the same content on both sides, or a link the same target.
pub(super) async fn check(context: &Context, copy: &Copy) -> Result<bool, SyncFault> {
    let mut asked = 1;
    loop {
        let sftp = context.line.sftp().await;
        match check_on(&sftp, context, copy).await {
            Err(_) if sftp.has_ended() && asked < line::ASKED_MAX => asked += 1,
            same => return same,
        }
    }
}

async fn check_on(sftp: &Sftp, context: &Context, copy: &Copy) -> Result<bool, SyncFault> {
    let name = &copy.entry.name;
    let remote = context.remote(&copy.node).join(name);
    let tree = Arc::clone(copy.node.tree()?);
    let local = local_name(&remote, name)?;
    let size = copy.entry.attrs.size.unwrap_or(0);
    if copy.entry.file_type == FileType::Symlink {
        let (here, there) = (read_link(tree, local).await?, sftp.read_link(&remote));
        return Ok(there.await?.as_bytes() == here);
    }
    let source = if copy.entry.followed && context.direction == Direction::Up {
        SourceFile::Linked(tree, local)
    } else {
        SourceFile::Found(tree, local)
    };
    content::is_same(sftp, &remote, source, size).await
}

/// Where a local link leads, as it is written on the wire.
async fn read_link(tree: Arc<Tree>, name: OsString) -> Result<Vec<u8>, TransferError> {
    let path = tree.path().join(&name);
    let target = on_thread(move || tree.read_link(&name)).await?;
    platform::remote_name(&target).ok_or_else(|| TransferError::Name {
        path: RemotePath::from(path.as_os_str().as_encoded_bytes()),
        fault: NameFault::NotHere,
    })
}

fn local_name(path: &RemotePath, name: &[u8]) -> Result<OsString, TransferError> {
    platform::local_name(name).ok_or_else(|| TransferError::Name {
        path: path.clone(),
        fault: NameFault::NotHere,
    })
}

/// Copies a batch from the server.
pub(super) async fn download(context: &Context, batch: &[Copy]) -> Result<Report, TransferError> {
    let mut found = Vec::with_capacity(batch.len());
    for copy in batch {
        let Copy { node, entry, .. } = copy;
        let path = context.remote(node).join(&entry.name);
        let name = local_name(&path, copy.goes_to())?;
        if let Some(tree) = &node.tree {
            found.push(get::Found {
                path,
                attrs: entry.attrs,
                is_link: entry.file_type == FileType::Symlink,
                tree: Arc::clone(tree),
                name,
            });
        }
    }
    let options = context.options.download();
    let sftp = context.line.sftp().await;
    get::start_found(sftp.shared(), found, options)
        .with_session(sftp.session())
        .await
}

/// Copies a batch to the server.
pub(super) async fn upload(context: &Context, batch: &[Copy]) -> Result<Report, TransferError> {
    let mut found = Vec::with_capacity(batch.len());
    for copy in batch {
        let Copy { node, entry, .. } = copy;
        let path = context.remote(node).join(copy.goes_to());
        let name = local_name(&path, &entry.name)?;
        if let Some(tree) = &node.tree {
            let tree = Arc::clone(tree);
            let source = match (entry.file_type, entry.followed) {
                (FileType::Symlink, _) => {
                    let target = read_link(Arc::clone(&tree), name.clone()).await?;
                    found.push(put::Found::Link(tree, name, target, path));
                    continue;
                }
                (_, true) => SourceFile::Linked(tree, name),
                (_, false) => SourceFile::Found(tree, name),
            };
            let size = entry.attrs.size.unwrap_or(0);
            found.push(put::Found::File(source, path, size));
        }
    }
    let options = context.options.upload();
    let sftp = context.line.sftp().await;
    put::start_found(sftp.shared(), found, options)
        .with_session(sftp.session())
        .await
}
