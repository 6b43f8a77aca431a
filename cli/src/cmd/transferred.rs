//! What `get` and `put` say at the end of a transfer: nothing, if everything went as asked.

use ketch_client::{Report, TransferError};

use crate::exit::sentence;
use crate::failed::Failed;
use crate::output::escaped;

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
        note(&format!(
            "left out {}: it is a {}",
            skipped.place, skipped.file_type
        ));
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
fn unnamed(count: u64, named: usize, what: &str) {
    let rest = count.saturating_sub(named as u64);
    if rest > 0 {
        note(&format!("{rest} more {what}"));
    }
}

fn note(text: &str) {
    eprintln!("ketch: {}", escaped(text.as_bytes()));
}
