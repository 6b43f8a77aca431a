//! `ketch sync`: a directory is made to hold what another holds, here or on a server.

use std::sync::{Arc, Mutex, PoisonError};

use ketch_client::{
    GetOptions, Progress, PutOptions, RemotePath, SyncAction, SyncFailed, SyncFault, SyncNews,
    SyncReport, SyncStep,
};
use serde::Serialize;

use crate::cmd::{listen::path_hex, login, transfer};
use crate::exit::sentence;
use crate::failed::Failed;
use crate::interrupt;
use crate::output::Lines;
use crate::plan::Sync;

/// Brings both sides together.
pub(crate) async fn run(plan: Sync) -> Result<(), Failed> {
    let session = interrupt::or(login::session(&plan.connection)).await??;
    let sftp = interrupt::or(session.sftp()).await??;
    let progress = Arc::new(Progress::new());
    let told = Arc::new(Mutex::new(Told {
        lines: Lines::new(),
        // Where it said what it would do, nobody needs it said again.
        shows_steps: plan.json || plan.verbose || plan.dry_run,
        shows_all: plan.verbose,
        json: plan.json,
        delete: plan.delete,
        broken: None,
    }));
    let observer = Arc::clone(&told);
    let options = plan
        .options
        .get_options(
            GetOptions::new()
                .resume(plan.bytes.resume)
                .preserve(plan.bytes.preserve)
                .verify(plan.bytes.verify)
                .sparse(plan.bytes.sparse)
                .durability(plan.bytes.durability)
                .streams(plan.streams)
                .progress(Arc::clone(&progress)),
        )
        .put_options(
            PutOptions::new()
                .resume(plan.bytes.resume)
                .preserve(plan.bytes.preserve)
                .verify(plan.bytes.verify)
                .sparse(plan.bytes.sparse)
                .durability(plan.bytes.durability)
                .streams(plan.streams)
                .progress(Arc::clone(&progress)),
        )
        .observer(move |news| lock(&observer).tell(news));
    let (remote, local) = (&plan.remote, &plan.local);
    let work = async {
        if plan.is_down {
            sftp.sync_down(remote, local, options).await
        } else {
            sftp.sync_up(local, remote, options).await
        }
    };
    let what = remote.to_string();
    let result = transfer::run(&sftp, work, &progress, &what, plan.bar).await?;
    let report = match &result {
        Ok(report) => Some(report),
        Err(error) => error.report(),
    };
    lock(&told).finish(report, plan.quiet)?;
    result?;
    session.disconnect().await;
    Ok(())
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was said so far, and how.
struct Told {
    lines: Lines,
    shows_steps: bool,
    shows_all: bool,
    json: bool,
    /// What is in the way may be removed.
    delete: bool,
    /// Standard output could not be written.
    broken: Option<Failed>,
}

impl Told {
    fn tell(&mut self, news: SyncNews<'_>) {
        let line = match news {
            SyncNews::Step(step) if !self.shows_all && !step.action.changes() => return,
            SyncNews::Step(step) if self.json => step_json(step),
            SyncNews::Step(step) if self.shows_steps => format!("{} {}", step.action, step.path),
            SyncNews::Failed(failed) if self.json => failed_json(failed),
            // Failures are said in the end, on standard error.
            SyncNews::Step(_) | SyncNews::Failed(_) => return,
        };
        if self.broken.is_none() {
            self.broken = self.lines.line(&line).err();
        }
    }

    /// Says what all came to.
    fn finish(&mut self, report: Option<&SyncReport>, quiet: bool) -> Result<(), Failed> {
        match report {
            Some(report) if self.json => self.summary_json(report)?,
            Some(report) => {
                tell_of(report);
                self.hint(report);
                if !quiet {
                    self.lines.line(&summary(report))?;
                }
            }
            None => {}
        }
        self.lines.flush()?;
        self.broken.take().map_or(Ok(()), Err)
    }

    /// Names the option by which what failed would not have.
    fn hint(&self, report: &SyncReport) {
        let is_in_the_way =
            |failed: &SyncFailed| matches!(failed.error, SyncFault::Conflict { .. });
        if !self.delete && report.failed.iter().any(is_in_the_way) {
            transfer::note(
                "what has another type at the destination makes room for the source's with --delete",
            );
        }
    }

    fn summary_json(&mut self, report: &SyncReport) -> Result<(), Failed> {
        #[derive(Serialize)]
        struct Line {
            event: &'static str,
            dry_run: bool,
            copied: u64,
            replaced: u64,
            bytes: u64,
            directories_made: u64,
            removed: u64,
            backed_up: u64,
            leftovers_removed: u64,
            removals_left: u64,
            unchanged: u64,
            skipped: u64,
            extra: u64,
            failed: u64,
        }
        let line = Line {
            event: "summary",
            dry_run: report.dry_run,
            copied: report.copied,
            replaced: report.replaced,
            bytes: report.bytes,
            directories_made: report.directories_made,
            removed: report.removed,
            backed_up: report.backed_up,
            leftovers_removed: report.leftovers_removed,
            removals_left: report.removals_left,
            unchanged: report.unchanged,
            skipped: report.skipped,
            extra: report.extra,
            failed: report.failed_count,
        };
        self.lines
            .line(&serde_json::to_string(&line).unwrap_or_default())
    }
}

fn event(action: SyncAction) -> (&'static str, Option<String>) {
    match action {
        SyncAction::MakeDirectory => ("made_directory", None),
        SyncAction::Copy => ("copied", None),
        SyncAction::Replace(why) => ("replaced", Some(why.to_string())),
        SyncAction::Remove => ("removed", None),
        SyncAction::RemoveDirectory => ("removed_directory", None),
        SyncAction::RemoveLeftover => ("removed_leftover", None),
        SyncAction::Unchanged(why) => ("unchanged", Some(why.to_string())),
        SyncAction::Skip(why) => ("skipped", Some(why.to_string())),
        SyncAction::Extra => ("extra", None),
        _ => ("other", Some(action.to_string())),
    }
}

/// One entry as a JSON object; `path_hex` is there if the path is no UTF-8.
#[derive(Serialize)]
struct EntryLine<'a> {
    event: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

fn entry_json(
    event: &'static str,
    path: &RemotePath,
    why: Option<String>,
    bytes: Option<u64>,
) -> String {
    let line = EntryLine {
        event,
        path: &String::from_utf8_lossy(path.as_bytes()),
        path_hex: path_hex(path),
        why,
        bytes,
    };
    serde_json::to_string(&line).unwrap_or_default()
}

fn step_json(step: &SyncStep) -> String {
    let (event, why) = event(step.action);
    let copied = matches!(step.action, SyncAction::Copy | SyncAction::Replace(_));
    entry_json(event, &step.path, why, copied.then_some(step.bytes))
}

fn failed_json(failed: &SyncFailed) -> String {
    entry_json("failed", &failed.path, Some(sentence(&failed.error)), None)
}

fn tell_of(report: &SyncReport) {
    for remark in &report.remarks {
        transfer::note(&format!("{}: {}", remark.place, remark.what));
    }
    for failed in &report.failed {
        transfer::note(&format!("{}: {}", failed.path, sentence(&failed.error)));
    }
    transfer::unnamed(report.failed_count, report.failed.len(), "failed");
}

/// One line for people.
fn summary(report: &SyncReport) -> String {
    let mut parts = vec![
        format!("{} copied", report.copied),
        format!("{} replaced", report.replaced),
        format!("{} removed", report.removed),
        format!("{} unchanged", report.unchanged),
    ];
    for (count, what) in [
        (report.backed_up, "backed up"),
        (report.skipped, "left out"),
        (report.extra, "only at the destination"),
        (report.leftovers_removed, "leftovers removed"),
        (report.removals_left, "not removed"),
        (report.failed_count, "failed"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let prefix = if report.dry_run { "would be: " } else { "" };
    format!("{prefix}{}; {} bytes", parts.join(", "), report.bytes)
}
