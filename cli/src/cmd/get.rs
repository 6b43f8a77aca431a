//! `ketch get`: a remote file or directory comes here.

use std::sync::Arc;

use ketch_client::{FileType, GetOptions, Progress, RemotePath, Sftp};

use crate::cmd::{login, transferred};
use crate::failed::Failed;
use crate::output;
use crate::plan::Get;

/// Copies what the plan names.
pub(crate) async fn run(plan: Get) -> Result<(), Failed> {
    let session = login::session(&plan.connection).await?;
    let sftp = session.sftp().await?;
    let progress = Arc::new(Progress::new());
    let options = GetOptions::new()
        .recursive(plan.recursive)
        .progress(Arc::clone(&progress));
    let what = plan.remote.to_string();
    let work = sftp.get(&plan.remote, &plan.local, options);
    let result = output::with_progress(work, &progress, &what, plan.quiet).await;
    if result.is_err() && !plan.recursive && is_directory(&sftp, &plan.remote).await {
        return Err(Failed::Usage(format!("{what} is a directory: use -r")));
    }
    transferred::tell(result)?;
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
