//! `ketch mv`: a remote file or directory gets another name on its server.

use ketch_client::{Failure as _, FileType, Kind, RemotePath, SftpError};

use crate::args::MvArgs;
use crate::cmd::login;
use crate::failed::Failed;
use crate::plan::At;

/// Renames what the arguments name; into a directory if that is what the new name is.
pub(crate) async fn run(args: MvArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let mut to = RemotePath::from(args.to.as_os_str().as_encoded_bytes());
    let session = login::session(&connection).await?;
    let sftp = session.sftp().await?;
    match sftp.stat(&to).await {
        Ok(attrs) if attrs.file_type() == FileType::Directory => {
            if let Some(name) = remote.file_name() {
                to = to.join(name);
            }
        }
        Ok(_) => {}
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    if args.no_clobber {
        if sftp.lstat(&to).await.is_ok() {
            return Err(Failed::Exists(to.to_string()));
        }
        sftp.rename(&remote, &to).await?;
    } else {
        match sftp.posix_rename(&remote, &to).await {
            // Without the extension, what has the name stays.
            Err(SftpError::Unsupported { .. }) => sftp.rename(&remote, &to).await?,
            renamed => renamed?,
        }
    }
    session.disconnect().await;
    Ok(())
}
