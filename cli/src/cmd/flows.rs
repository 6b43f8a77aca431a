//! `ketch listen --config` and what belongs to it: the flows of a listener's file.
//!
//! | what | module |
//! | --- | --- |
//! | the service, the check of its file | here |
//! | questions to a listener that runs | `ask` |
//! | what its ledger says | `ledger` |

mod ask;
mod ledger;

use std::path::{Path, PathBuf};

use ketch_listener::config::ListenerFile;
use ketch_listener::service::{self, ServiceError};
use ketch_settings::Faults;
use tokio::task::spawn_blocking;

use crate::args::{ListenArgs, ListenCommand};
use crate::failed::Failed;
use crate::log;
use crate::output::{Lines, escaped};

/// Does what is about a listener's file.
pub(crate) async fn run(args: ListenArgs) -> Result<(), Failed> {
    let Some(command) = args.command else {
        let missing = || Failed::Usage("name a remote directory, or --config FILE".to_owned());
        let path = args.connect.config.ok_or_else(missing)?;
        log::start(args.log.verbose, args.log.log_format);
        return serve(&path).await;
    };
    match command {
        ListenCommand::Check { file, offline } => check(file.config, offline).await,
        ListenCommand::Schema => {
            let mut out = Lines::new();
            for line in ListenerFile::schema().lines() {
                out.line(line)?;
            }
            out.flush()
        }
        ListenCommand::Status { file, json } => ask::status(&file.config, json).await,
        ListenCommand::Pause { flows } => ask::each(&flows, "pause").await,
        ListenCommand::Resume { flows } => ask::each(&flows, "resume").await,
        ListenCommand::Apply { flows } => ask::each(&flows, "apply").await,
        ListenCommand::Dead { flows } => ask::dead(&flows).await,
        ListenCommand::Replay { flows, path } => ask::replay(&flows, path.as_deref()).await,
        ListenCommand::Inspect { flows } => ledger::inspect(&flows).await,
        ListenCommand::Compact { file } => ledger::compact(&file.config).await,
        ListenCommand::Export { flows, to } => ledger::export(&flows, to).await,
        ListenCommand::Import { file, from } => ledger::import(&file.config, from).await,
        ListenCommand::Repair { file, lost } => ledger::repair(&file.config, lost).await,
    }
}

/// Runs until a signal ends it. Standard output is for sinks: what is told goes to standard error.
async fn serve(path: &Path) -> Result<(), Failed> {
    let say = |line: &str| eprintln!("ketch: {}", escaped(line.as_bytes()));
    service::run(path, say).await.map_err(|error| match error {
        ServiceError::File(faults) => wrong(&faults),
        error => Failed::set_up("cannot listen", error),
    })
}

/// Says all that is wrong with a file; if nothing is, whether its sources and sinks can be reached.
async fn check(path: PathBuf, offline: bool) -> Result<(), Failed> {
    let read = spawn_blocking(move || {
        let file = ListenerFile::read(&path)?;
        let setup = file.setup()?;
        Ok((file.counts(), setup))
    });
    let read = read
        .await
        .map_err(|error| Failed::set_up("cannot check", error))?;
    let ((sources, flows), setup) = read.map_err(|faults: Faults| wrong(&faults))?;
    let mut out = Lines::new();
    out.line(&format!("right: sources {sources}, flows {flows}"))?;
    if offline {
        return out.flush();
    }
    out.flush()?;
    let mut faults = Vec::new();
    for checked in setup.check().await {
        match checked.fault {
            None => out.line(&format!("{}: Connection Valid", checked.what))?,
            Some(why) => faults.push(format!("{}: {}", checked.what, escaped(why.as_bytes()))),
        }
    }
    out.flush()?;
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Failed::Faults(faults)),
    }
}

fn read(path: &Path) -> Result<ListenerFile, Failed> {
    ListenerFile::read(path).map_err(|faults| wrong(&faults))
}

/// A line for each; they are safe to show.
fn wrong(faults: &Faults) -> Failed {
    Failed::Faults(faults.to_string().lines().map(str::to_owned).collect())
}

/// The flows that were named, all of which have to be in the file; all of them, if none was.
fn named(file: &ListenerFile, asked: &[String]) -> Result<Vec<String>, Failed> {
    let known: Vec<String> = file.flows().map(ToString::to_string).collect();
    if asked.is_empty() {
        return Ok(known);
    }
    for flow in asked {
        if !known.contains(flow) {
            let hint = ketch_settings::nearest(flow, known.iter().map(String::as_str));
            let hint = hint.map_or(String::new(), |hint| format!("; {hint}"));
            return Err(Failed::Usage(format!(
                "there is no flow {flow:?} in the file{hint}"
            )));
        }
    }
    Ok(asked.to_vec())
}

/// As a failure, an error of the listener.
fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Failed {
    Failed::set_up(what, error)
}
