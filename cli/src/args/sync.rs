//! What stands behind `ketch sync`, and the rules of filters, whose order matters.

use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{ConnectArgs, SelectionArgs, TransferArgs, duration};

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Directory that is read: local, or `[user@]host:path` or `sftp://[user@]host[:port]/path`
    pub(crate) source: OsString,
    /// Directory that is made to hold the same; one of the two is remote
    pub(crate) destination: OsString,
    /// Remove what only DESTINATION has, and what has another type there (a directory where a file
    /// is to be), after everything else went well
    #[arg(long)]
    pub(crate) delete: bool,
    /// With --delete: if more entries than this would be removed, remove none
    #[arg(long, value_name = "COUNT", requires = "delete")]
    pub(crate) max_delete: Option<u64>,
    /// Move what would be replaced or removed to this directory, where each keeps its path; it is on
    /// the side of DESTINATION and on the same file system
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) backup_dir: Option<OsString>,
    /// Do nothing, and say what would be done
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Compare files by size and content, not by size and time: by the server's checksums where it
    /// has them, else all of both is read
    #[arg(long, conflicts_with = "size_only")]
    pub(crate) checksum: bool,
    /// Compare files by size alone
    #[arg(long)]
    pub(crate) size_only: bool,
    /// By how much times may differ and count as equal, such as 2s [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) time_allowance: Option<Duration>,
    /// Leave files alone that are newer in DESTINATION
    #[arg(short, long)]
    pub(crate) update: bool,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// Say what was done with each entry, those that are unchanged or left out included
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Say everything as JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `--include` and `--exclude`, in the order in which they were typed.
#[derive(Debug, Default)]
pub(crate) struct FilterArgs {
    /// Whether each includes, and its pattern.
    pub(crate) rules: Vec<(bool, String)>,
    pub(crate) ignore_case: bool,
}

const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";
const IGNORE_CASE: &str = "ignore_case";

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let of = |id: &str, includes: bool| {
            let indices = matches.indices_of(id).into_iter().flatten();
            let patterns = matches.get_many::<String>(id).into_iter().flatten();
            indices
                .zip(patterns)
                .map(|(index, pattern)| (index, (includes, pattern.clone())))
                .collect::<Vec<_>>()
        };
        let mut rules = of(INCLUDE, true);
        rules.extend(of(EXCLUDE, false));
        rules.sort_by_key(|(index, _)| *index);
        Ok(Self {
            rules: rules.into_iter().map(|(_, rule)| rule).collect(),
            ignore_case: matches.get_flag(IGNORE_CASE),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for FilterArgs {
    fn augment_args(command: Command) -> Command {
        let rule = |id: &'static str| {
            clap::Arg::new(id)
                .long(id)
                .value_name("PATTERN")
                .action(ArgAction::Append)
        };
        command
            .arg(rule(INCLUDE).help(
                "Take what matches; of all --include and --exclude the first that matches decides, \
                 and what none matches is taken",
            ))
            .arg(rule(EXCLUDE).help(
                "Leave out what matches: *, ?, [a-z] and ** as rsync has them, / at the start for \
                 the topmost directory, / at the end for directories only",
            ))
            .arg(
                clap::Arg::new(IGNORE_CASE)
                    .long("ignore-case")
                    .action(ArgAction::SetTrue)
                    .help("Letters in patterns stand for both their cases"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
