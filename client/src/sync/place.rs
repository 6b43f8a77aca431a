//! Taking the place of a file or link on the server, where that has no request for it.
//!
//! Of version 3 a rename needs a free name. So what has the name is put aside first, under a
//! temporary name beside it, and removed when all went well; it gets its name back if not. If even
//! that fails, both are kept, and the error says where. Source: draft-ietf-secsh-filexfer-02 §6.5.

use std::future::Future;

use ketch_protocol::{FileType, RemotePath};

use super::report::SyncFault;
use crate::{
    Failure, Kind, Outcome, Sftp, SftpError,
    transfer::names::{self, Identity},
};

/// Renames on the server, in place of a file or link: at once where the server can.
pub(super) async fn put_in_place(
    sftp: &Sftp,
    from: &RemotePath,
    to: &RemotePath,
) -> Result<(), SyncFault> {
    match sftp.posix_rename(from, to).await {
        Err(error) if error.kind() == Kind::Unsupported => {}
        renamed => return Ok(renamed?),
    }
    let refused = match sftp.rename(from, to).await {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    // Version 3 has no status for a name that is taken: whether it is, tells a look.
    let is_taken = |attrs: ketch_protocol::Attrs| attrs.file_type() != FileType::Directory;
    if !sftp.lstat(to).await.is_ok_and(is_taken) {
        return Err(refused.into());
    }
    instead(sftp, from, to, sftp.rename(from, to)).await
}

/// Has `work` give `to` to what is called `from`, and puts aside meanwhile what is called `to`.
///
/// # Errors
/// [`SyncFault::Stranded`] if what is put aside did not get its name back, or nobody knows.
pub(super) async fn instead(
    sftp: &Sftp,
    from: &RemotePath,
    to: &RemotePath,
    work: impl Future<Output = Result<(), SftpError>> + Send,
) -> Result<(), SyncFault> {
    let name = to.file_name().unwrap_or_default();
    let number = names::attempt(names::ATTEMPT_BY_CHANCE);
    let aside = names::temporary(to.as_bytes(), name, Identity::default(), number);
    let aside = to
        .parent()
        .unwrap_or_else(|| RemotePath::from("."))
        .join(aside);
    let stranded = |source, aside| SyncFault::Stranded {
        new: from.clone(),
        old: aside,
        source: Box::new(source),
    };
    match sftp.rename(to, &aside).await {
        Err(error) if error.outcome() != Outcome::NotDone => return Err(stranded(error, aside)),
        renamed => renamed?,
    }
    if let Err(error) = work.await {
        return Err(match sftp.rename(&aside, to).await {
            Ok(()) => error.into(),
            Err(_) => stranded(error, aside),
        });
    }
    if let Err(error) = sftp.remove_file(&aside).await {
        tracing::warn!(%error, "what was replaced is left behind");
    }
    Ok(())
}
