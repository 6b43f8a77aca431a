//! `ketch find`: the paths of what is below a remote directory.

use ketch_client::{FileType, Pattern, WalkOptions};

use crate::args::{FindArgs, KindArg};
use crate::cmd::{login, transfer};
use crate::exit::sentence;
use crate::failed::Failed;
use crate::output::Lines;
use crate::plan::At;

/// Prints each path as it is found. What could not be gone through is said, and makes the command
/// fail in the end.
pub(crate) async fn run(args: FindArgs) -> Result<(), Failed> {
    let At { connection, remote } = At::new(&args.remote, args.connect)?;
    let name = args.name.map(Pattern::new).transpose()?;
    let mut options = WalkOptions::new().follow_links(args.follow);
    if let Some(levels) = args.max_depth {
        options = options.depth_max(levels);
    }
    let session = login::session(&connection).await?;
    let sftp = session.sftp().await?;
    let mut lines = Lines::new();
    let mut last = None;
    let mut walk = sftp.walk(&remote, options);
    while let Some(entry) = walk.next().await {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                if let Some(error) = last.replace(error) {
                    transfer::note(&sentence(&error));
                }
                continue;
            }
        };
        let kind = match entry.file_type() {
            FileType::Regular => Some(KindArg::File),
            FileType::Directory => Some(KindArg::Directory),
            FileType::Symlink => Some(KindArg::Link),
            _ => None,
        };
        let is_named = |pattern: &Pattern| {
            let name = entry.path().file_name();
            name.is_some_and(|name| pattern.matches(name))
        };
        let is_kind = args.kind.is_none() || args.kind == kind;
        if is_kind && name.as_ref().is_none_or(is_named) {
            lines.line(&entry.path().to_string())?;
        }
    }
    lines.flush()?;
    match last {
        Some(error) => Err(error.into()),
        None => {
            session.disconnect().await;
            Ok(())
        }
    }
}
