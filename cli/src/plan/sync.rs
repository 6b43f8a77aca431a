//! `ketch sync`, resolved: which side is the remote one, and by which rules.

use std::ffi::OsStr;
use std::path::PathBuf;

use ketch_client::{Comparison, Filter, RateLimit, RemotePath, Streams, SyncOptions};

use super::{Bytes, Connection, bar, connection, streams};
use crate::args::{FilterArgs, SyncArgs};
use crate::failed::Failed;
use crate::output::Bar;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) connection: Connection,
    pub(crate) local: PathBuf,
    pub(crate) remote: RemotePath,
    /// Whether the remote side is the source.
    pub(crate) is_down: bool,
    pub(crate) options: SyncOptions,
    pub(crate) dry_run: bool,
    pub(crate) delete: bool,
    pub(crate) verbose: bool,
    pub(crate) quiet: bool,
    pub(crate) json: bool,
    pub(crate) bytes: Bytes,
    pub(crate) streams: Streams,
    pub(crate) bar: Bar,
}

impl Sync {
    pub(crate) fn new(args: SyncArgs) -> Result<Self, Failed> {
        let (is_down, remote, local) = match (remote(&args.source), remote(&args.destination)) {
            (Some(remote), None) => (true, remote, &args.destination),
            (None, Some(remote)) => (false, remote, &args.source),
            (Some(_), Some(_)) => return Err(one_side("both are")),
            (None, None) => return Err(one_side("neither is")),
        };
        let local = PathBuf::from(local);
        let (connection, remote) = connection(remote, args.connect)?;
        let comparison = match (args.checksum, args.size_only) {
            (true, _) => Comparison::Content,
            (false, true) => Comparison::Size,
            (false, false) => Comparison::SizeAndTime,
        };
        let mut options = SyncOptions::new()
            .compare(comparison)
            .time_allowance(args.time_allowance.unwrap_or_default())
            .update(args.update)
            .delete(args.delete)
            .dry_run(args.dry_run)
            .limit(args.transfer.limit.map(RateLimit::new))
            .select(filter(&args.selection.filter)?)
            .links(args.selection.links.into());
        if let Some(max) = args.max_delete {
            options = options.delete_max(max);
        }
        if let Some(directory) = args.backup_dir {
            options = options.backup_dir(directory);
        }
        // Lines and a bar would overwrite each other.
        let lines = args.json || args.verbose || args.dry_run;
        let bar = match bar(&args.transfer) {
            _ if lines => Bar::None,
            Bar::Stays => Bar::Passes,
            other => other,
        };
        Ok(Self {
            connection,
            local,
            remote,
            is_down,
            options,
            dry_run: args.dry_run,
            delete: args.delete,
            verbose: args.verbose,
            quiet: args.transfer.quiet,
            json: args.json,
            bytes: Bytes::new(args.transfer.bytes),
            streams: streams(&args.transfer),
            bar,
        })
    }
}

fn one_side(which: &str) -> Failed {
    Failed::Usage(format!(
        "of source and destination one is remote, host:path, and {which} (a local name with a \
         colon is written ./like:this)"
    ))
}

/// The text of a remote side: a URL, or a colon before any slash, as scp has it.
fn remote(side: &OsStr) -> Option<&str> {
    let text = side.to_str()?;
    let end = text.find(['/', std::path::MAIN_SEPARATOR]);
    let first = text.get(..end.unwrap_or(text.len()))?;
    // `C:` is a drive where there are such.
    let is_drive = cfg!(windows) && first.len() == 2;
    (text.contains("://") || (first.contains(':') && !is_drive)).then_some(text)
}

/// The rules in the order typed.
pub(crate) fn filter(args: &FilterArgs) -> Result<Filter, Failed> {
    let filter = if args.ignore_case {
        Filter::ignoring_case()
    } else {
        Filter::new()
    };
    args.rules
        .iter()
        .try_fold(filter, |filter, (includes, pattern)| {
            let added = if *includes {
                filter.include(pattern)
            } else {
                filter.exclude(pattern)
            };
            added.map_err(|error| {
                Failed::Usage(format!("cannot use the pattern {pattern:?}: {error}"))
            })
        })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Command, Line};

    fn sync(words: &[&str]) -> Result<Sync, String> {
        let line = Line::try_parse_from([&["ketch", "sync"], words].concat());
        let Command::Sync(args) = line.map_err(|error| error.to_string())?.command else {
            panic!()
        };
        Sync::new(args).map_err(|failed| failed.to_string())
    }

    #[test]
    fn one_of_the_two_is_remote() {
        for (words, is_down) in [
            (["me@host:in", "out"], true),
            (["out", "me@host:in"], false),
            (["sftp://me@host/in", "./a:b"], true),
            (["/a/b:c", "host:"], false),
        ] {
            assert_eq!(sync(&words).unwrap().is_down, is_down, "{words:?}");
        }
        assert!(sync(&["a", "b"]).unwrap_err().contains("neither is"));
        assert!(sync(&["a:b", "c:d"]).unwrap_err().contains("both are"));
    }

    #[test]
    fn rules_keep_the_order_in_which_they_were_typed() {
        let words = [
            "--exclude",
            "a",
            "--include",
            "b",
            "--exclude",
            "*",
            "x",
            "host:",
        ];
        let line = Line::try_parse_from([&["ketch", "sync"], &words[..]].concat()).unwrap();
        let Command::Sync(args) = line.command else {
            panic!()
        };
        let rules: Vec<_> = args
            .selection
            .filter
            .rules
            .iter()
            .map(|(_, p)| p.as_str())
            .collect();
        assert_eq!(rules, ["a", "b", "*"]);
        let filter = filter(&args.selection.filter).unwrap();
        assert!(filter.admits(b"b", false) && !filter.admits(b"a", false));
        let wrong = ["--exclude", "[a", "x", "host:"];
        assert!(sync(&wrong).unwrap_err().contains("[a"));
        assert!(sync(&["--max-delete", "1", "x", "host:"]).is_err());
    }
}
