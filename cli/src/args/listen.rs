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
    /// Time from one listing of the directory to the next
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Tell of what is there at the start, too
    #[arg(long)]
    pub(crate) existing: bool,
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
