//! `ketch stat`, `ketch df` and `ketch chmod`: what a server tells of a path and of the file system
//! that it is on, and the permissions.

use jiff::tz::TimeZone;
use ketch_client::{Attrs, FileType, Sftp};

use crate::args::{ChmodArgs, PathArgs, StatArgs};
use crate::cmd::login;
use crate::failed::Failed;
use crate::output::Lines;
use crate::plan::At;

/// Tells what the server knows of a file, a line for each thing.
pub(crate) async fn run(args: StatArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let (path, dereference) = (remote.clone(), args.dereference);
    let first = move |sftp: Sftp| {
        let path = path.clone();
        async move {
            match dereference {
                true => sftp.stat(&path).await,
                false => sftp.lstat(&path).await,
            }
        }
    };
    let (session, sftp, attrs) = login::sftp_with(&connection, first).await?;
    let attrs = attrs?;
    let mut lines = Lines::new();
    lines.line(&format!("path: {remote}"))?;
    lines.line(&format!("type: {}", attrs.file_type()))?;
    if attrs.file_type() == FileType::Symlink {
        lines.line(&format!("target: {}", sftp.read_link(&remote).await?))?;
    }
    for line in told(&attrs) {
        lines.line(&line)?;
    }
    lines.flush()?;
    session.disconnect().await;
    Ok(())
}

fn told(attrs: &Attrs) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(size) = attrs.size {
        lines.push(format!("size: {size}"));
    }
    if let Some(mode) = attrs.mode() {
        lines.push(format!("permissions: {:04o}", mode & 0o7777));
    }
    if let Some(owner) = attrs.owner {
        lines.push(format!("owner: {} {}", owner.uid, owner.gid));
    }
    if let Some(times) = attrs.times {
        for (what, seconds) in [("modified", times.mtime), ("accessed", times.atime)] {
            if let Ok(time) = jiff::Timestamp::from_second(seconds.into()) {
                let local = time.to_zoned(TimeZone::system());
                lines.push(format!(
                    "{what}: {}",
                    local.strftime("%Y-%m-%d %H:%M:%S%:z")
                ));
            }
        }
    }
    lines
}

/// Tells how large and how full the file system is, in KiB as `df -k` does.
pub(crate) async fn file_system(args: PathArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let session = login::session(&connection).await?;
    let found = session.sftp().await?.statvfs(&remote).await?;
    let unit = found.fragment_size.max(1);
    let kib = |blocks: u64| u128::from(blocks) * u128::from(unit) / 1024;
    let used = found.blocks.saturating_sub(found.blocks_free);
    // As df: of what the user could have.
    let usable = u128::from(used) + u128::from(found.blocks_available);
    let percent = (u128::from(used) * 100).div_ceil(usable.max(1));
    let mut lines = Lines::new();
    lines.line(&format!(
        "{:>14} {:>14} {:>14} {:>4} {:>12}",
        "KiB", "used", "available", "use", "free files"
    ))?;
    lines.line(&format!(
        "{:>14} {:>14} {:>14} {percent:>3}% {:>12}",
        kib(found.blocks),
        kib(used),
        kib(found.blocks_available),
        found.files_available,
    ))?;
    lines.flush()?;
    session.disconnect().await;
    Ok(())
}

/// Sets the permissions of a file; a link is followed.
pub(crate) async fn permissions(args: ChmodArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let session = login::session(&connection).await?;
    let mode = Attrs::with_permissions(args.mode);
    session.sftp().await?.set_attrs(&remote, mode).await?;
    session.disconnect().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_told() {
        assert!(told(&Attrs::NONE).is_empty());
        let attrs = Attrs {
            size: Some(3),
            ..Attrs::with_permissions(0o100_640)
        };
        assert_eq!(told(&attrs), ["size: 3", "permissions: 0640"]);
    }
}
