//! What may start when: work on each handle and on paths in its turn, and what waits for work of
//! another lane.
//!
//! A lane (`lane`) keeps the order of its own work. What is here keeps the order between lanes: work
//! on a path and on a handle of that same path gives what it would give one after the other.

use std::sync::Arc;

use ketch_protocol::RequestId;

use super::arrived::Looked;
use super::job::{self, CopyPlan, FileWork, Job, PathWork, Place, ReadJob, Ticket, Work};
use super::lane::{Arrival, Mode, Waiting};
use super::{Entry, Opened, Session, Touch};
use crate::fs::{Call, FileCall};
use crate::handles::SlotId;
use crate::path::VPath;
use crate::refusal::Refusal;

impl Session {
    /// Says that work of a lane ended, and starts what that lets start.
    pub(super) fn finish(&mut self, place: Place, mode: Mode) {
        match place {
            Place::Paths(arrival) => {
                self.paths.finish(mode);
                self.touching.retain(|touch| touch.arrival != arrival);
            }
            Place::Handle(slot) => {
                if let Some(entry) = self.handles.get_mut(slot) {
                    entry.lane.finish(mode);
                }
            }
            Place::Apart => {}
        }
        self.pump(place);
    }

    /// Starts what may start at `place`, and everywhere else if work waits for another lane's.
    pub(super) fn pump(&mut self, place: Place) {
        match place {
            Place::Paths(_) => self.pump_paths(),
            Place::Handle(slot) => self.pump_handle(slot),
            Place::Apart => false,
        };
        // Each round but the last starts something, so the rounds come to an end. Where work still
        // waits for another lane's, it has set the flag again, for the next end of any work.
        while self.is_held {
            self.is_held = false;
            let mut progress = self.pump_paths();
            for slot in self.handles.slots() {
                progress |= self.pump_handle(slot);
            }
            if !progress {
                break;
            }
        }
    }

    /// Starts work on paths; says whether any was.
    fn pump_paths(&mut self) -> bool {
        let mut progress = false;
        while let Some(front) = self.paths.ready() {
            // Looking waits for what changes the file; altering it waits for readers, too.
            let must_wait = |entry: &Entry| {
                let (lane, work) = (&entry.lane, &front.work);
                let is_earlier = |arrival: Arrival| arrival < front.arrival;
                (lane.oldest_exclusive().is_some_and(is_earlier) && work.names(&entry.path))
                    || (job::altered(&work.call) == Some(&entry.path)
                        && lane.is_busy_before(front.arrival))
            };
            if self.handles.iter().any(must_wait) {
                self.is_held = true;
                break;
            }
            let Some(waiting) = self.paths.start() else {
                break;
            };
            progress = true;
            let (mut work, arrival, mode) = (waiting.work, waiting.arrival, waiting.mode);
            if let Err(why) = self.judge(&mut work) {
                self.turn_away(work, mode, why);
                continue;
            }
            self.opens_to_write(&work);
            let named = |entry: &&Entry| {
                !matches!(entry.opened, Opened::Opening) && work.names(&entry.path)
            };
            let touches = self.handles.iter().filter(named).map(|entry| {
                let alters = job::altered(&work.call) == Some(&entry.path);
                Touch {
                    arrival,
                    path: entry.path.clone(),
                    alters,
                }
            });
            self.touching.extend(touches);
            let look = self.look_first(&work);
            let PathWork {
                id,
                call,
                opens,
                draft,
                then,
                no_directory,
            } = work;
            let place = Place::Paths(arrival);
            let mut ticket = Ticket {
                opens,
                draft,
                then,
                ..Ticket::new(id, place, mode)
            };
            let call = match look {
                Some(question) => {
                    ticket.looked = Some(Box::new(Looked { call, no_directory }));
                    question
                }
                None => call,
            };
            self.jobs.push_back(Job::Path { ticket, call });
        }
        progress
    }

    /// Answers work on paths that is not to be done.
    fn turn_away(&mut self, work: PathWork, mode: Mode, why: Refusal) {
        if let Some(slot) = work.opens {
            self.handles.remove(slot);
        }
        self.answered(work.draft, Err(why));
        self.replies.refuse(work.id, why);
        self.outstanding = self.outstanding.saturating_sub(1);
        self.paths.finish(mode);
    }

    /// Whether work on a handle of `path` that came as `arrival` has to wait for work on the path
    /// itself that came before it.
    pub(super) fn is_touched(&self, path: &VPath, arrival: Arrival, mode: Mode) -> bool {
        let must_wait = |alters: bool| alters || mode == Mode::Exclusive;
        let by_running = |touch: &Touch| {
            touch.arrival < arrival && touch.path == *path && must_wait(touch.alters)
        };
        self.touching.iter().any(by_running)
            || self.paths.waiting().any(
                |Waiting {
                     arrival: came,
                     work,
                     ..
                 }| {
                    *came < arrival
                        && work.names(path)
                        && must_wait(job::altered(&work.call) == Some(path))
                },
            )
    }

    /// Starts work on a handle; says whether any was, or whether the handle is gone.
    fn pump_handle(&mut self, slot: SlotId) -> bool {
        let mut progress = false;
        while let Some(entry) = self.handles.get(slot)
            && let Some(front) = entry.lane.ready()
        {
            let must_wait = match &front.work.work {
                // Not all of it is here; its end pumps again.
                Work::Write(write) if write.is_open => break,
                Work::Copy(plan) => self.source_is_being_written(slot, plan, front.arrival),
                _ => false,
            };
            if must_wait || self.is_touched(&entry.path, front.arrival, front.mode) {
                self.is_held = true;
                break;
            }
            if !self.start(slot) {
                break;
            }
            progress = true;
        }
        progress
    }

    /// Starts the work in front of a handle's lane.
    fn start(&mut self, slot: SlotId) -> bool {
        let Some(entry) = self.handles.get_mut(slot) else {
            return false;
        };
        let Some(waiting) = entry.lane.start() else {
            return false;
        };
        let (FileWork { id, work, draft }, mode) = (waiting.work, waiting.mode);
        let mut ticket = Ticket {
            draft,
            ..Ticket::new(id, Place::Handle(slot), mode)
        };
        let policy = &self.policy;
        match (work, &mut entry.opened) {
            // Another of its name has arrived while it was being written: that one stays.
            (Work::Close, Opened::File(file)) if file.is_staged() && policy.keeps(&entry.path) => {
                entry.tally.has_failed = true;
                self.let_go(slot, true);
                self.replies.refuse(id, Refusal::ARRIVED);
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            // It gets its name first.
            (Work::Close, Opened::File(file)) if file.is_staged() => {
                ticket.closes = true;
                self.jobs.push_back(Job::File {
                    ticket,
                    file: Arc::clone(file),
                    call: FileCall::Publish,
                });
            }
            (Work::Close, _) => {
                self.let_go(slot, true);
                self.replies.ok(id);
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            (Work::Read { offset, len }, _) => {
                self.reads.push_back(ReadJob {
                    slot,
                    id,
                    offset,
                    len,
                });
            }
            (Work::Ask(call), Opened::File(file)) => {
                entry.changes |= matches!(call, FileCall::Change(change) if change.size.is_some());
                self.jobs.push_back(Job::File {
                    ticket,
                    file: Arc::clone(file),
                    call,
                });
            }
            (Work::Hash(plan), Opened::File(file)) => {
                self.jobs.push_back(Job::Hash {
                    ticket,
                    file: Arc::clone(file),
                    plan,
                });
            }
            (Work::Write(write), Opened::File(file)) => {
                self.jobs.push_back(Job::Write {
                    ticket,
                    file: Arc::clone(file),
                    write,
                });
            }
            (Work::Copy(plan), _) => {
                entry.changes = true;
                if let Some(source) = self.handles.get_mut(plan.source) {
                    source.lane.share();
                    ticket.source = Some(plan.source);
                }
                self.jobs.push_back(Job::Copy { ticket, plan });
            }
            (Work::List, Opened::Directory(directory)) if directory.is_some() => {
                if let Some(directory) = directory.take() {
                    self.jobs.push_back(Job::List {
                        ticket,
                        directory,
                        goes_on: false,
                    });
                }
            }
            // A directory that could not be read on. What else a handle is open for was looked at
            // when the request came.
            (_, _) => {
                entry.lane.finish(mode);
                self.answered(ticket.draft, Err(Refusal::WRONG_HANDLE));
                self.replies.refuse(id, Refusal::WRONG_HANDLE);
                self.outstanding = self.outstanding.saturating_sub(1);
            }
        }
        true
    }

    /// Whether the file that is copied from has writes before the copy that are not done.
    fn source_is_being_written(&self, target: SlotId, plan: &CopyPlan, arrival: Arrival) -> bool {
        plan.source != target
            && self.handles.get(plan.source).is_some_and(|entry| {
                entry
                    .lane
                    .oldest_exclusive()
                    .is_some_and(|written| written < arrival)
            })
    }

    pub(super) fn arrival(&mut self) -> Arrival {
        self.arrivals = self.arrivals.saturating_add(1);
        self.arrivals
    }

    /// Puts work on a path into its place.
    pub(super) fn push_path(&mut self, id: RequestId, call: Call, opens: Option<SlotId>) {
        let draft = self.take_draft();
        self.push_path_work(PathWork {
            id,
            call,
            opens,
            then: None,
            draft,
            no_directory: false,
        });
    }

    /// Puts a rename into its place that is not done if it is one of a directory.
    ///
    /// It looks first and renames then. Whoever swaps the two in between has to bring a directory to
    /// where a file was, which takes a rename of a directory: those whom this is for have none.
    pub(super) fn push_path_unless_directory(&mut self, id: RequestId, call: Call) {
        let draft = self.take_draft();
        self.push_path_work(PathWork {
            id,
            call,
            opens: None,
            then: None,
            draft,
            no_directory: true,
        });
    }

    pub(super) fn push_path_work(&mut self, work: PathWork) {
        let arrival = self.arrival();
        let mode = job::path_mode(&work.call);
        self.paths.push(arrival, mode, work);
        self.pump(Place::Paths(arrival));
    }

    /// Puts work on a handle into its place.
    pub(super) fn push_file(&mut self, id: RequestId, slot: SlotId, mode: Mode, work: Work) {
        let arrival = self.arrival();
        let draft = self.take_draft();
        if let Some(entry) = self.handles.get_mut(slot) {
            entry.lane.push(arrival, mode, FileWork { id, work, draft });
        }
        self.pump(Place::Handle(slot));
    }
}
