//! What `get`, `put` and `sync` share: a transfer that is shown while it runs, can be given up, and says at
//! its end what was not done as asked.

use std::time::Duration;

use ketch_client::{Progress, Report, Sftp, TransferError};

use crate::exit::sentence;
use crate::failed::Failed;
use crate::interrupt;
use crate::output::{Bar, escaped, with_progress};

/// Longest time for taking back what an interrupted upload began on the server.
const TAKE_BACK_TIMEOUT: Duration = Duration::from_secs(3);

/// Round trips in which the client closes and removes what was begun.
const TAKE_BACK_TRIPS: usize = 4;

/// Waits for `work`, a transfer over `sftp`, and shows `progress` meanwhile.
///
/// Ctrl-C gives the transfer up, and leaves the client a moment to remove the temporary files.
pub(crate) async fn run<T, E>(
    sftp: &Sftp,
    work: impl Future<Output = Result<T, E>>,
    progress: &Progress,
    what: &str,
    bar: Bar,
) -> Result<Result<T, E>, Failed> {
    let result = interrupt::or(with_progress(work, progress, what, bar)).await;
    if result.is_err() {
        let _ = tokio::time::timeout(TAKE_BACK_TIMEOUT, take_back(sftp)).await;
    }
    result
}

/// The client takes back by itself, for as long as the session is there. That a question is
/// answered shows that the requests before it had their time.
async fn take_back(sftp: &Sftp) {
    for _ in 0..TAKE_BACK_TRIPS {
        if sftp.stat(".").await.is_err() {
            return;
        }
    }
}

/// Names, on standard error, whatever was left out, is not quite as asked, or failed.
pub(crate) fn tell(result: Result<Report, TransferError>) -> Result<(), Failed> {
    match result {
        Ok(report) => {
            tell_of(&report);
            Ok(())
        }
        Err(error) => {
            if let TransferError::Incomplete { report } = &error {
                tell_of(report);
            }
            Err(error.into())
        }
    }
}

fn tell_of(report: &Report) {
    for skipped in &report.skipped {
        note(&format!("left out {}: {skipped}", skipped.place));
    }
    unnamed(report.skipped_count, report.skipped.len(), "left out");
    for remark in &report.remarks {
        note(&format!("{}: {}", remark.place, remark.what));
    }
    for failed in &report.failed {
        let (place, why) = (failed.place.to_string(), sentence(&failed.error));
        // Most errors name the file themselves.
        let is_named = why.contains(&escaped(place.as_bytes()));
        note(&if is_named {
            why
        } else {
            format!("{place}: {why}")
        });
    }
    unnamed(report.failed_count, report.failed.len(), "failed");
}

/// Reports name a bounded number of files and count the rest.
pub(crate) fn unnamed(count: u64, named: usize, what: &str) {
    let rest = count.saturating_sub(named as u64);
    if rest > 0 {
        note(&format!("{rest} more {what}"));
    }
}

/// Says something on standard error that is not the end of the command.
pub(crate) fn note(text: &str) {
    eprintln!("ketch: {}", escaped(text.as_bytes()));
}
