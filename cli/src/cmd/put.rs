//! `ketch put`: a local file or directory goes to a server.

use std::sync::Arc;

use ketch_client::{
    Attrs, Failure, FileType, Kind, Progress, PutOptions, RemotePath, Sftp, SftpError,
};

use crate::cmd::{login, transfer};
use crate::failed::Failed;
use crate::interrupt;
use crate::plan::Put;

/// Copies what the plan names.
pub(crate) async fn run(plan: Put) -> Result<(), Failed> {
    let remote = plan.remote.clone();
    let look = move |sftp: Sftp| {
        let remote = remote.clone();
        async move { sftp.stat(&remote).await }
    };
    let connecting = login::sftp_with(&plan.connection, look);
    let (session, sftp, found) = interrupt::or(connecting).await??;
    let remote = target(found, &plan)?;
    let progress = Arc::new(Progress::new());
    let options = PutOptions::new()
        .recursive(plan.recursive)
        .select(plan.filter.clone())
        .links(plan.links)
        .resume(plan.bytes.resume)
        .preserve(plan.bytes.preserve)
        .verify(plan.bytes.verify)
        .sparse(plan.bytes.sparse)
        .durability(plan.bytes.durability)
        .streams(plan.streams)
        .limit(plan.limit.clone())
        .progress(Arc::clone(&progress));
    let what = plan.local.display().to_string();
    let work = sftp.put(&plan.local, &remote, options);
    transfer::tell(transfer::run(&sftp, work, &progress, &what, plan.bar).await?)?;
    session.disconnect().await;
    Ok(())
}

/// Where it goes: into `remote` if that is a directory, else to that very name.
fn target(found: Result<Attrs, SftpError>, plan: &Put) -> Result<RemotePath, Failed> {
    let remote = &plan.remote;
    let is_written_as_one = remote.as_bytes().ends_with(b"/");
    let is_directory = match found {
        Ok(attrs) if attrs.file_type() == FileType::Regular && is_written_as_one => {
            return Err(Failed::Usage(format!("{remote} is not a directory")));
        }
        Ok(attrs) => match attrs.file_type() {
            FileType::Directory => true,
            FileType::Regular | FileType::Unknown => false,
            // An upload ends in a rename, which would take the place of a device or a pipe.
            other => {
                let what = format!("{remote} is a {other}, which is not to be replaced");
                return Err(Failed::Usage(what));
            }
        },
        Err(error) if error.kind() == Kind::NotFound => is_written_as_one,
        Err(error) => return Err(error.into()),
    };
    match &plan.name {
        Some(name) if is_directory => Ok(remote.join(name)),
        _ => Ok(remote.clone()),
    }
}
