//! `ketch mkdir` and `ketch rmdir`: one directory comes or goes.

use ketch_client::{Failure as _, Kind};

use crate::args::{MkdirArgs, PathArgs};
use crate::cmd::login;
use crate::failed::Failed;
use crate::plan::At;

/// Creates a directory.
pub(crate) async fn create(args: MkdirArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let session = login::session(&connection).await?;
    let sftp = session.sftp().await?;
    if args.parents {
        sftp.create_dir_all(&remote).await?;
    } else if let Err(error) = sftp.create_dir(&remote).await {
        // Version 3 has no word for a name that is taken.
        if error.kind() == Kind::Peer && sftp.lstat(&remote).await.is_ok() {
            return Err(Failed::Exists(remote.to_string()));
        }
        return Err(error.into());
    }
    session.disconnect().await;
    Ok(())
}

/// Removes an empty directory.
pub(crate) async fn remove(args: PathArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let session = login::session(&connection).await?;
    session.sftp().await?.remove_dir(&remote).await?;
    session.disconnect().await;
    Ok(())
}
