//! What a session tells the machine of arrivals, and what it is told.

use std::time::Instant;

use super::job::PathWork;
use super::records::{Record, Tally};
use super::{Entry, Opened, Session};
use crate::fs::{Call, Links};
use crate::handles::SESSION_HANDLES_MAX;
use crate::path::VPath;
use crate::policy::arrivals::Appeared;
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
            && self.is_being_written(from)
        {
            return Err(Refusal::STILL_OPEN);
        }
        arrivals.judge(&mut work.call)
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

    fn is_being_written(&self, path: &VPath) -> bool {
        let writes = |entry: &Entry| {
            entry.may_write && !matches!(entry.opened, Opened::Opening) && entry.path == *path
        };
        self.handles.iter().any(writes)
    }

    /// A file was opened to write, as a new one if one of its name has arrived.
    pub(super) fn opened_to_write(&self, path: &VPath) {
        if let Some(arrivals) = &self.policy.arrivals {
            arrivals.is_new(path);
        }
    }

    /// A client closed a file that its handle may have written.
    pub(super) fn on_closed(&mut self, path: &VPath, changes: bool, tally: &Tally) {
        let Some(arrivals) = &self.policy.arrivals else {
            return;
        };
        // What a trigger came for while it was being written.
        let triggered = self.triggered.iter().position(|waits| waits == path);
        if let Some(place) = triggered.filter(|_| !self.is_being_written(path)) {
            self.triggered.swap_remove(place);
            if !tally.has_failed {
                self.arrived(path, tally.began, false);
            }
        } else if (changes || tally.written > 0) && !tally.has_failed {
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
            Appeared::TriggerOf(file) if self.is_being_written(file) => {
                if self.triggered.len() < SESSION_HANDLES_MAX && !self.triggered.contains(file) {
                    self.triggered.push(file.clone());
                }
            }
            Appeared::TriggerOf(file) => self.arrived(file, None, true),
        }
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
