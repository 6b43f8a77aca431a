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
        compare::Entry,
        content,
        crowd::on_thread,
        line,
        report::{SkipReason, SyncAction, SyncFault},
    },
    transfer::{
        Place, REPORTED_MAX, Report, TransferError, WhySkipped, get,
        local::{SourceFile, Tree},
        put,
    },
};

/// A file or link to copy.
pub(super) struct Copy {
    pub node: Arc<Node>,
    pub entry: Entry,
    pub action: SyncAction,
}

impl Run {
    /// Takes what came of a batch.
    pub(super) fn on_copied(
        &mut self,
        batch: Vec<Copy>,
        result: Result<Report, TransferError>,
    ) -> Result<(), SyncFault> {
        let report = match result {
            Ok(report) => report,
            Err(TransferError::Incomplete { report }) => *report,
            Err(error) => {
                // One file alone fails with its own error; anything else is the end.
                let error = SyncFault::from(error);
                return match batch.as_slice() {
                    [copy] if !error.ends_everything() => {
                        self.fail(copy.node.path_of(&copy.entry.name), error)
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
        for Copy {
            node,
            entry,
            action,
        } in batch
        {
            let name = &entry.name;
            if !led_out.is_empty() && led_out.remove(context.remote(&node).join(name).as_bytes()) {
                node.keep();
                self.step(&node, name, SyncAction::Skip(SkipReason::LeadsOut), 0);
                continue;
            }
            let error = if failed.is_empty() {
                None
            } else {
                let remote = context.remote(&node).join(name).into_bytes();
                failed.remove(&remote).or_else(|| {
                    let tree = node.tree.as_ref()?;
                    let local = tree.path().join(platform::local_name(name)?);
                    failed.remove(local.as_os_str().as_encoded_bytes())
                })
            };
            match error {
                Some(error) => self.fail(node.path_of(name), error)?,
                None => self.step(&node, name, action, entry.attrs.size.unwrap_or(0)),
            }
        }
        // Errors with other names are errors all the same.
        for (path, error) in failed {
            self.fail(path, error)?;
        }
        Ok(())
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
    for Copy { node, entry, .. } in batch {
        let path = context.remote(node).join(&entry.name);
        let name = local_name(&path, &entry.name)?;
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
    for Copy { node, entry, .. } in batch {
        let path = context.remote(node).join(&entry.name);
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
