//! What a session tells the machine of arrivals, and what it is told.

use std::time::Instant;

use super::job::PathWork;
use super::records::Record;
use super::{Entry, Session};
use crate::fs::{Call, Links};
use crate::path::VPath;
use crate::policy::arrivals::{Appeared, Writer};
use crate::refusal::Refusal;

/// What is to be done when it is known whether a name stands for a directory.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The rename.
    pub(super) call: Call,
    /// It is not to be done with one.
    pub(super) no_directory: bool,
}

impl Session {
    /// Decides work on paths whose turn it is, when all that came before is done.
    pub(super) fn judge(&self, work: &mut PathWork) -> Result<(), Refusal> {
        let Some(arrivals) = &self.policy.arrivals else {
            return Ok(());
        };
        if let Call::Rename { from, .. } = &work.call
            && arrivals.is_being_written(from)
        {
            return Err(Refusal::STILL_OPEN);
        }
        arrivals.judge(&mut work.call)
    }

    /// A file is about to be opened: whoever shares the directory knows from now on that it is being
    /// written.
    pub(super) fn opens_to_write(&mut self, work: &PathWork) {
        if let Some(arrivals) = &self.policy.arrivals
            && let Call::Open { path, how } = &work.call
            && how.write
            && let Some(entry) = work.opens.and_then(|slot| self.handles.get_mut(slot))
        {
            entry.writing = Some(arrivals.writes(path));
        }
    }

    /// The question that comes before a rename, if one does.
    pub(super) fn look_first(&self, work: &PathWork) -> Option<Call> {
        match &work.call {
            Call::Rename { from, .. } if work.no_directory || self.policy.arrivals.is_some() => {
                Some(Call::Metadata {
                    path: from.clone(),
                    links: Links::Stay,
                })
            }
            _ => None,
        }
    }

    /// A file was opened to write, as a new one if one of its name has arrived.
    pub(super) fn opened_to_write(&self, path: &VPath) {
        if let Some(arrivals) = &self.policy.arrivals {
            arrivals.is_new(path);
        }
    }

    /// A client closed a file that its handle may have written.
    pub(super) fn on_closed(&mut self, entry: &mut Entry) {
        let Some(arrivals) = &self.policy.arrivals else {
            return;
        };
        let (path, tally) = (&entry.path, &entry.tally);
        // What a trigger came for while it was being written.
        let is_triggered = entry.writing.take().is_some_and(Writer::end);
        if tally.has_failed {
            return;
        }
        if is_triggered {
            self.arrived(path, tally.began, false);
        } else if entry.changes || tally.written > 0 {
            let appeared = arrivals.appears(path);
            self.on_appeared(path, &appeared, tally.began);
        }
    }

    /// A file has another name.
    pub(super) fn on_renamed(&mut self, from: &VPath, to: &VPath) {
        if let Some(arrivals) = &self.policy.arrivals {
            arrivals.is_new(to);
            let appeared = arrivals.appears_from(from, to);
            self.on_appeared(to, &appeared, None);
        }
    }

    fn on_appeared(&mut self, path: &VPath, appeared: &Appeared, began: Option<Instant>) {
        match appeared {
            Appeared::Unfinished => {}
            Appeared::File => self.arrived(path, began, false),
            // By whomever: the last to close it tells.
            Appeared::TriggerOf(file) if self.waits_for_its_end(file) => {}
            Appeared::TriggerOf(file) => self.arrived(file, None, true),
        }
    }

    fn waits_for_its_end(&self, file: &VPath) -> bool {
        let arrivals = self.policy.arrivals.as_ref();
        arrivals.is_some_and(|arrivals| arrivals.triggers_at_its_end(file))
    }

    fn arrived(&mut self, path: &VPath, began: Option<Instant>, may_be_missing: bool) {
        if let Some(arrivals) = &self.policy.arrivals {
            arrivals.arrived(path);
        }
        if let Some(records) = &mut self.records {
            records.push(Record::Arrived {
                path: path.clone(),
                began,
                may_be_missing,
            });
        }
    }
}
