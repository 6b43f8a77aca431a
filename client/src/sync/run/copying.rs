//! Files of a sync being copied: in batches, each a plan of the transfer engine; and those whose
//! content is looked at first.

use std::{collections::HashMap, ffi::OsString, sync::Arc};

use ketch_protocol::{FileType, RemotePath};

use super::{
    Run,
    directory::{Context, Direction, Node},
};
use crate::{
    NameFault, platform,
    sync::{
        compare::Entry,
        content,
        report::{SyncAction, SyncFault},
    },
    transfer::{Place, REPORTED_MAX, Report, TransferError, get, local::SourceFile, put},
};

/// A file to copy.
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
        for skipped in report.skipped {
            // Something else has its name by now: it was not copied.
            let fault = SyncFault::Conflict {
                here: skipped.file_type,
                there: FileType::Regular,
            };
            let key = match skipped.place {
                Place::Remote(path) => path.into_bytes(),
                Place::Local(path) => path.into_os_string().into_encoded_bytes(),
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

/// Whether a file has the same content on both sides.
pub(super) async fn check(context: &Context, copy: &Copy) -> Result<bool, SyncFault> {
    let name = &copy.entry.name;
    let remote = context.remote(&copy.node).join(name);
    let tree = Arc::clone(copy.node.tree()?);
    let local = local_name(&remote, name)?;
    let size = copy.entry.attrs.size.unwrap_or(0);
    if copy.entry.followed && context.direction == Direction::Up {
        return Ok(false); // what a local link leads to is not opened beneath the directory
    }
    content::is_same(&context.sftp, &remote, tree, local, size).await
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
                tree: Arc::clone(tree),
                name,
            });
        }
    }
    let options = context.options.download();
    get::start_found(context.sftp.shared(), found, options).await
}

/// Copies a batch to the server.
pub(super) async fn upload(context: &Context, batch: &[Copy]) -> Result<Report, TransferError> {
    let mut found = Vec::with_capacity(batch.len());
    for Copy { node, entry, .. } in batch {
        let path = context.remote(node).join(&entry.name);
        let name = local_name(&path, &entry.name)?;
        if let Some(tree) = &node.tree {
            let source = if entry.followed {
                SourceFile::Named(tree.path().join(name))
            } else {
                SourceFile::Found(Arc::clone(tree), name)
            };
            found.push((source, path, entry.attrs.size.unwrap_or(0)));
        }
    }
    let options = context.options.upload();
    put::start_found(context.sftp.shared(), found, options).await
}
