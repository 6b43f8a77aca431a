//! `ketch rm`: a remote file goes, or a directory with everything in it.

use ketch_client::{FileType, Kind, RemotePath, Sftp};

use crate::args::RmArgs;
use crate::cmd::{login, transfer};
use crate::exit::sentence;
use crate::failed::Failed;
use crate::plan::At;

/// Removes what the arguments name.
pub(crate) async fn run(args: RmArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let session = login::session(&connection).await?;
    let sftp = session.sftp().await?;
    let removed = match args.recursive {
        true => all(&sftp, &remote, args.force).await,
        false => one(&sftp, &remote).await,
    };
    match removed {
        Err(error) if args.force && error.kind() == Kind::NotFound => {}
        removed => removed?,
    }
    session.disconnect().await;
    Ok(())
}

async fn one(sftp: &Sftp, remote: &RemotePath) -> Result<(), Failed> {
    let Err(error) = sftp.remove_file(remote).await else {
        return Ok(());
    };
    // Servers refuse to remove a directory in many ways.
    match sftp.lstat(remote).await {
        Ok(attrs) if attrs.file_type() == FileType::Directory => {
            Err(Failed::Usage(format!("{remote} is a directory: use -r")))
        }
        _ => Err(error.into()),
    }
}

async fn all(sftp: &Sftp, remote: &RemotePath, force: bool) -> Result<(), Failed> {
    if remote.file_name().is_none() {
        // The root, the directory where the session starts, or what is above it.
        return Err(Failed::Usage(format!("{remote} is not removed whole")));
    }
    if !force {
        sftp.lstat(remote).await?;
    }
    let Err(error) = sftp.remove_all(remote).await else {
        return Ok(());
    };
    for failed in &error.report.failed {
        transfer::note(&sentence(&failed.error));
    }
    Err(error.into())
}
