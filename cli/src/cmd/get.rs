//! `ketch get`: a remote file or directory comes here.

mod matching;

use std::sync::Arc;

use ketch_client::{Failure, FileType, GetOptions, Progress, RemotePath, Sftp, TransferError};

use crate::cmd::{login, transfer};
use crate::failed::Failed;
use crate::interrupt;
use crate::plan::Get;

/// Copies what the plan names.
pub(crate) async fn run(plan: Get) -> Result<(), Failed> {
    let session = interrupt::or(login::session(&plan.connection)).await??;
    let sftp = interrupt::or(session.sftp()).await??;
    let progress = Arc::new(Progress::new());
    let options = GetOptions::new()
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
    if interrupt::or(matching::is_pattern(&sftp, &plan.remote)).await? {
        matching::run(&sftp, &plan, options, &progress).await?;
        session.disconnect().await;
        return Ok(());
    }
    let what = plan.remote.to_string();
    let work = sftp.get(&plan.remote, &plan.local, options);
    let result = transfer::run(&sftp, work, &progress, &what, plan.bar).await?;
    let may_be_one = |error: &TransferError| !plan.recursive && !error.is_transient();
    if result.as_ref().is_err_and(may_be_one)
        && interrupt::or(is_directory(&sftp, &plan.remote)).await?
    {
        return Err(Failed::Usage(format!("{what} is a directory: use -r")));
    }
    transfer::tell(result)?;
    session.disconnect().await;
    Ok(())
}

/// Whether that was the mistake. Servers say it in many ways, some only when the file is read; and
/// looking before each transfer would cost those that are right a round trip.
async fn is_directory(sftp: &Sftp, remote: &RemotePath) -> bool {
    sftp.stat(remote)
        .await
        .is_ok_and(|attrs| attrs.file_type() == FileType::Directory)
}
