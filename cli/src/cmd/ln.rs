//! `ketch ln`: a second name for a remote file, or a link to it.

use ketch_client::RemotePath;

use crate::args::LnArgs;
use crate::cmd::login;
use crate::failed::Failed;
use crate::plan::At;

/// Creates the link.
pub(crate) async fn run(args: LnArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let target = RemotePath::from(args.target.as_os_str().as_encoded_bytes());
    let session = login::session(&connection).await?;
    let sftp = session.sftp().await?;
    if args.symbolic {
        sftp.symlink(&target, &remote).await?;
    } else {
        sftp.hard_link(&target, &remote).await?;
    }
    session.disconnect().await;
    Ok(())
}
