//! `ketch listen`: a remote directory, or the flows of a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum, ValueHint};

use super::{ConnectArgs, LogFormat, REMOTE_HELP, duration};

/// A remote directory, or the flows of a file.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    after_help = "Without REMOTE, --config names a listener's file (TOML), of which all flows \
    run until SIGTERM; SIGHUP has it read again. docs/listen.md tells what may stand in it."
)]
pub(crate) struct ListenArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ListenCommand>,
    #[arg(help = REMOTE_HELP, required_unless_present = "config")]
    pub(crate) remote: Option<String>,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

impl ListenArgs {
    /// Whether it is about a listener's file.
    pub(crate) const fn is_of_file(&self) -> bool {
        self.command.is_some() || self.remote.is_none()
    }
}

/// How a remote directory is watched. A listener's file says this of its flows itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "Watching REMOTE")]
pub(crate) struct WatchArgs {
    /// Time from one listing of a directory to the next
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    #[arg(requires = "remote")]
    pub(crate) interval: Duration,
    /// What is there at the start: news, or known already
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value_t,
        requires = "remote"
    )]
    pub(crate) first: FirstWhat,
    /// The same as --first news
    #[arg(long, requires = "remote", conflicts_with = "first")]
    pub(crate) existing: bool,
    /// Watch the directories below, too; links are not followed
    #[arg(short, long, requires = "remote")]
    pub(crate) recursive: bool,
    /// How many levels, with -r: 1 is REMOTE itself [default: 65]
    #[arg(long, value_name = "LEVELS", requires = "recursive")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=65))]
    pub(crate) depth: Option<u16>,
    /// Tell only of names that match one of these: *, ?, [a-z] and **, and / at the start for REMOTE
    /// itself; with -r directories are told of and watched whatever their names are
    #[arg(long, value_name = "PATTERN", requires = "remote")]
    pub(crate) include: Vec<String>,
    /// Tell of no names that match one of these, and watch no such directories; / at the end is for
    /// directories alone
    #[arg(long, value_name = "PATTERN", requires = "remote")]
    pub(crate) exclude: Vec<String>,
    /// Tell also when a file is complete: its size and time stayed the same for this long
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "remote")]
    pub(crate) settle: Option<Duration>,
    /// Have the server tell changes by itself where it can (`ketch serve`), renames as such; listings
    /// go on
    #[arg(long, requires = "remote")]
    pub(crate) push: bool,
    /// One JSON object a line, which is the default
    #[arg(long, requires = "remote", conflicts_with = "plain")]
    pub(crate) json: bool,
    /// A word and a path a line, for people
    #[arg(long, requires = "remote")]
    pub(crate) plain: bool,
}

/// What is there at the start of a watch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum FirstWhat {
    /// Known already: only changes are told
    #[default]
    Baseline,
    /// Told as created
    News,
}

/// What is said on standard error.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LogArgs {
    /// Log more to the standard error: -v what happens, -vv each step, -vvv all
    #[arg(short, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Form of that log
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
}

/// What belongs to a listener besides listening. All but `check`, `schema` and what works on the
/// ledger ask the listener that runs, through the `[api]` of its file.
#[derive(Debug, Subcommand)]
pub(crate) enum ListenCommand {
    /// Say all that is wrong with a listener's file, then connect to all its sources and sinks
    Check {
        #[command(flatten)]
        file: FileArg,
        /// Connect to nothing
        #[arg(long)]
        offline: bool,
    },
    /// Print the JSON schema of a listener's file
    Schema,
    /// Tell how the flows of a running listener stand
    Status {
        #[command(flatten)]
        file: FileArg,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Begin nothing new in flows, also after a restart
    Pause {
        #[command(flatten)]
        flows: FlowsArg,
    },
    /// Go on with flows
    Resume {
        #[command(flatten)]
        flows: FlowsArg,
    },
    /// Look at the sources of flows now, and wait until what was found is delivered
    Apply {
        #[command(flatten)]
        flows: FlowsArg,
    },
    /// List files that were given up
    Dead {
        #[command(flatten)]
        flows: FlowsArg,
    },
    /// Try files again that were given up: one, or all
    Replay {
        #[command(flatten)]
        flows: FlowsArg,
        /// The one, as `dead` lists it
        #[arg(long)]
        path: Option<String>,
    },
    /// List what the ledger knows of files; the listener may not run where it has one for itself
    Inspect {
        #[command(flatten)]
        flows: FlowsArg,
    },
    /// Give space back that the ledger does not need; the listener may not run where it has one for
    /// itself
    Compact {
        #[command(flatten)]
        file: FileArg,
    },
    /// Write what the ledger knows of flows to a file, as text; the listener may not run where it has a
    /// ledger for itself
    Export {
        #[command(flatten)]
        flows: FlowsArg,
        /// The file, which must not be there yet
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        to: PathBuf,
    },
    /// Take what `export` wrote into a ledger that does not know these flows yet; the listener may not
    /// run
    Import {
        #[command(flatten)]
        file: FileArg,
        /// The file
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        from: PathBuf,
    },
    /// Take what is whole of a damaged ledger into a new one, and keep the old one aside; the listener
    /// may not run
    Repair {
        #[command(flatten)]
        file: FileArg,
        /// What becomes of files that are not known any more
        #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
        lost: LostRows,
    },
}

/// What becomes of files whose rows are lost.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LostRows {
    /// What is there is delivered, once more if it was before
    #[default]
    Again,
    /// What is there at the next start is taken for delivered, also what is new by then
    Baseline,
}

/// A listener's file.
#[derive(Debug, Args)]
pub(crate) struct FileArg {
    /// The listener's file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: PathBuf,
}

/// Flows of a listener's file.
#[derive(Debug, Args)]
pub(crate) struct FlowsArg {
    #[command(flatten)]
    pub(crate) file: FileArg,
    /// Names of flows [default: all]
    #[arg(value_name = "FLOW")]
    pub(crate) flows: Vec<String>,
}
