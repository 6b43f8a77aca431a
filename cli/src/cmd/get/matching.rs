//! `ketch get` with a pattern: everything that matches goes into one directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ketch_client::{FileType, GetOptions, Glob, Progress, RemotePath, Sftp};

use crate::cmd::transfer;
use crate::failed::Failed;
use crate::interrupt;
use crate::plan::{Get, local_name};

/// Whether the remote path is a pattern: it is written like one, and no file has that very name.
pub(super) async fn is_pattern(sftp: &Sftp, remote: &RemotePath) -> bool {
    Glob::has_wildcards(remote) && sftp.lstat(remote).await.is_err()
}

/// Copies what matches.
pub(super) async fn run(
    sftp: &Sftp,
    plan: &Get,
    options: GetOptions,
    progress: &Arc<Progress>,
) -> Result<(), Failed> {
    let what = plan.remote.to_string();
    let Some(into) = &plan.into else {
        return Err(Failed::Usage(format!(
            "what matches {what} needs a directory to go to"
        )));
    };
    let mut files: BTreeMap<PathBuf, RemotePath> = BTreeMap::new();
    let mut directories = Vec::new();
    let mut found = sftp.glob(&plan.remote)?;
    while let Some(entry) = interrupt::or(found.next()).await? {
        let entry = entry?;
        let is_directory = entry.file_type() == FileType::Directory;
        let Some(name) = entry.path().file_name() else {
            continue;
        };
        let local = into.join(local_name(name)?);
        if is_directory {
            directories.push((entry.into_path(), local));
        } else if let Some(other) = files.insert(local, entry.into_path()) {
            let name = other.file_name().unwrap_or_default();
            let name = RemotePath::from(name);
            return Err(Failed::Usage(format!(
                "several files that match are named {name}"
            )));
        }
    }
    if files.is_empty() && directories.is_empty() {
        return Err(Failed::Missing(what));
    }
    if let Some((directory, _)) = directories.first().filter(|_| !plan.recursive) {
        return Err(Failed::Usage(format!("{directory} is a directory: use -r")));
    }
    if !into.is_dir() {
        let created = std::fs::create_dir(into);
        created.map_err(|error| crate::plan::cannot("create", into, error))?;
    }
    let items = files.into_iter().map(|(local, remote)| (remote, local));
    let work = sftp.get_all(items, options.clone());
    transfer::tell(transfer::run(sftp, work, progress, &what, plan.bar).await?)?;
    for (remote, local) in directories {
        let work = sftp.get(&remote, &local, options.clone());
        transfer::tell(transfer::run(sftp, work, progress, &what, plan.bar).await?)?;
    }
    Ok(())
}
