//! The SFTP session as a machine: a request in gives a job or a reply, a job's result in gives a
//! reply.
//!
//! No socket, no clock, no task and no file call in here: [`crate::engine`] feeds it decoded
//! requests, does its jobs (in place or on a thread) and sends its replies. What it decides is
//! who may do what (`requests`), in which order (`lane`), and what the answer is.
//!
//! Order: work on one handle gives the results that it would give one after the other; so does
//! work on paths among itself, and work on a path and on a handle of that same path. All else
//! may be done, and answered, in any order. A handle that is closed lives until the work before
//! its `CLOSE` is done, except that a checksum which is not ready is given up, and says so. One
//! that was asked for by name sees what is written to the file while it is computed.

mod arrived;
mod cancel;
pub(crate) mod habits;
mod job;
mod lane;
mod order;
mod records;
mod replies;
mod requests;
mod watching;
mod writes;

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::io;
use std::sync::Arc;

use ketch_protocol::{
    CHECK_FILE, ExtensionName, Init, PROTOCOL_VERSION, Pair, Pairs, RequestId, StatusCode, Version,
};

use crate::fs::{Answer, Batch, Call, Directory, File};
use crate::handles::{HandleBudget, Handles, SlotId};
use crate::path::VPath;
use crate::policy::Policy;
use crate::policy::arrivals::Writer;
use crate::refusal::Refusal;

use arrived::Looked;
pub(crate) use cancel::Cancel;
pub(crate) use job::{CopyPlan, HashPlan, Job, ReadJob, Ticket};
use job::{FileWork, PathWork, Place, Then};
use lane::{Arrival, Lane, Mode};
pub(crate) use records::{Moved, Record, is_told};
use records::{Records, Tally};
pub(crate) use replies::Replies;
#[cfg(test)]
pub(crate) use watching::WATCHES_MAX;
use watching::{Watched, Watching};
use writes::Incoming;
pub(crate) use writes::{CopiedWrite, Piece, WriteEnd};

/// Most requests of one session that were taken and not answered; what comes after them waits as
/// bytes, for which the client gets no new window.
pub(crate) const REQUESTS_MAX: usize = 256;
/// No new requests are taken while this many bytes of replies have not left.
pub(crate) const REPLIES_LEN_MAX: usize = 256 * 1024;
/// Longest `READ` that is answered in full, and longest `WRITE` that is asked for, in bytes
/// (`limits@openssh.com` tells it; OpenSSH's server has the same).
pub(crate) const DATA_LEN_MAX: u32 = ketch_protocol::limits::DATA_LEN_MAX;

/// One session: its handles, what waits, what is ready to be done, and the replies.
#[derive(Debug)]
pub(crate) struct Session {
    policy: Arc<Policy>,
    /// Whether `INIT` was answered.
    is_open: bool,
    handles: Handles<Entry>,
    paths: Lane<PathWork>,
    /// Running work on paths of which handles are open.
    touching: Vec<Touch>,
    /// Some work waits for work of another lane.
    is_held: bool,
    arrivals: Arrival,
    /// The `WRITE` that is being taken in.
    incoming: Option<Incoming>,
    /// Requests taken and not answered.
    outstanding: usize,
    jobs: VecDeque<Job>,
    reads: VecDeque<ReadJob>,
    /// A checksum was given up that may wait to be begun.
    has_cancelled: bool,
    /// This client's `SYMLINK` has the link before its target.
    pub(crate) names_link_first: bool,
    /// Reads of files that have enough of theirs on threads.
    held_reads: VecDeque<ReadJob>,
    watching: Watching,
    pub(crate) replies: Replies,
    /// Requests that came.
    commands: u64,
    /// For observers, if there are any.
    records: Option<Box<Records>>,
    moved: Moved,
}

/// What a handle stands for.
#[derive(Debug)]
struct Entry {
    opened: Opened,
    path: VPath,
    may_read: bool,
    may_write: bool,
    /// Its `CLOSE` was taken: it is there only for the work before that.
    is_closing: bool,
    /// Made for the first checksum that is asked for, and set by the `CLOSE`.
    cancelled: Option<Arc<Cancel>>,
    lane: Lane<FileWork>,
    tally: Tally,
    /// A subscription, or what will be one.
    is_watch: bool,
    /// What it was opened for made or emptied the file, or something else than a write changed it.
    changes: bool,
    /// A directory, of which some names may have to be left out.
    hides_names: bool,
    /// A file that is being written where files arrive.
    writing: Option<Writer>,
}

/// Work on a path is running while a handle of the same path is open.
#[derive(Debug)]
struct Touch {
    arrival: Arrival,
    path: VPath,
    /// Whether it may change what is read.
    alters: bool,
}

#[derive(Debug)]
enum Opened {
    /// The client does not know the handle yet.
    Opening,
    File(Arc<dyn File>),
    /// Away while it is being read; lost if that failed.
    Directory(Option<Box<dyn Directory>>),
    Watched(Box<Watched>),
}

/// The client did what ends a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Misuse {
    /// It speaks no version that we do.
    Version(u32),
    /// It greeted twice, or asked before it greeted.
    OutOfTurn,
}

impl Session {
    /// `key` makes the handles of this session its own.
    pub(crate) fn new(policy: Arc<Policy>, key: RandomState, budget: Arc<HandleBudget>) -> Self {
        Self {
            policy,
            is_open: false,
            handles: Handles::new(key, budget),
            paths: Lane::new(),
            touching: Vec::new(),
            is_held: false,
            arrivals: 0,
            incoming: None,
            outstanding: 0,
            jobs: VecDeque::new(),
            reads: VecDeque::new(),
            has_cancelled: false,
            names_link_first: false,
            held_reads: VecDeque::new(),
            watching: Watching::default(),
            replies: Replies::default(),
            commands: 0,
            records: None,
            moved: Moved::default(),
        }
    }

    /// Takes the greeting and answers it.
    ///
    /// # Errors
    /// [`Misuse`] for a version below ours, and for a second greeting: a session has one.
    pub(crate) fn on_init(&mut self, init: &Init<'_>) -> Result<(), Misuse> {
        if self.is_open {
            return Err(Misuse::OutOfTurn);
        }
        if init.version < PROTOCOL_VERSION {
            return Err(Misuse::Version(init.version));
        }
        self.is_open = true;
        let all: Vec<Pair<'_>> = ExtensionName::ALL
            .iter()
            .filter(|&&name| self.policy.standing.offers(name))
            .filter(|&&name| match name {
                ExtensionName::Hardlink => self.policy.hard_links,
                ExtensionName::Watch | ExtensionName::WatchRead => self.watching.is_possible,
                // One name announces both, below.
                ExtensionName::CheckFileHandle | ExtensionName::CheckFileName => false,
                _ => true,
            })
            .map(|name| name.pair())
            .chain([Pair {
                name: CHECK_FILE,
                data: b"",
            }])
            .collect();
        let extensions = Pairs::new(&all);
        self.replies.version(&Version {
            version: PROTOCOL_VERSION,
            extensions,
        });
        Ok(())
    }

    /// Whether no further request should be taken for now. One that has begun goes on.
    pub(crate) fn is_full(&self) -> bool {
        self.incoming.is_none()
            && (self.outstanding >= REQUESTS_MAX || self.replies.unsent().len() >= REPLIES_LEN_MAX)
    }

    /// Whether nothing is asked that is not answered.
    pub(crate) const fn is_idle(&self) -> bool {
        self.outstanding == 0
    }

    /// How many requests came: what keeps a session from being idle.
    pub(crate) const fn commands(&self) -> u64 {
        self.commands
    }

    /// The next job that may be done now, beside all that are being done.
    pub(crate) fn next_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    /// The read that is to be answered next, with its file. It stays until
    /// [`take_read`](Self::take_read).
    pub(crate) fn next_read(&self) -> Option<(ReadJob, &Arc<dyn File>)> {
        let read = *self.reads.front()?;
        match &self.handles.get(read.slot)?.opened {
            Opened::File(file) => Some((read, file)),
            _ => None, // reads are taken for files only
        }
    }

    /// Takes the read that [`next_read`](Self::next_read) showed; its end is told by
    /// [`read_done`](Self::read_done).
    pub(crate) fn take_read(&mut self) {
        self.reads.pop_front();
    }

    /// Whether a job was given up since this was last asked.
    pub(crate) const fn take_cancelled(&mut self) -> bool {
        std::mem::replace(&mut self.has_cancelled, false)
    }

    /// A job came back from a thread; reads of its file that were put aside come next.
    pub(crate) fn release_reads(&mut self, owner: Option<SlotId>) {
        if self.held_reads.is_empty() {
            return;
        }
        for read in std::mem::take(&mut self.held_reads) {
            let queue = match Some(read.slot) == owner {
                true => &mut self.reads,
                false => &mut self.held_reads,
            };
            queue.push_back(read);
        }
    }

    /// Puts the read that is next aside until a job of its file comes back from a thread: reads of
    /// other files come before it.
    pub(crate) fn hold_read(&mut self) {
        self.held_reads.extend(self.reads.pop_front());
    }

    /// A read was answered by `DATA` with so many bytes, or could not be.
    pub(crate) fn read_done(&mut self, read: ReadJob, result: Result<usize, Refusal>) {
        let entry = self.handles.get_mut(read.slot);
        match (result, entry) {
            (Ok(bytes), Some(entry)) => {
                let bytes = bytes as u64;
                entry.tally.read = entry.tally.read.saturating_add(bytes);
                self.moved.read = self.moved.read.saturating_add(bytes);
            }
            (Ok(_), None) => {}
            (Err(why), entry) => {
                self.replies.refuse(read.id, why);
                if let Some(entry) = entry {
                    entry.tally.has_failed |= why.code != StatusCode::EOF;
                }
            }
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        self.finish(Place::Handle(read.slot), Mode::Shared);
    }

    /// A call was answered.
    pub(crate) fn complete(&mut self, ticket: Ticket, result: io::Result<Answer>) {
        let Ticket {
            id,
            place,
            mode,
            opens,
            source,
            draft,
            then,
            looked,
            moves,
            closes,
        } = ticket;
        let mut answer = result.map_err(|error| Refusal::from(&error));
        if let (Some(looked), Ok(Answer::Metadata(metadata))) = (looked, &answer) {
            let Looked { call, no_directory } = *looked;
            let is_directory = metadata.is_directory();
            if !(is_directory && no_directory) {
                let moves = match &call {
                    // Directories do not arrive.
                    Call::Rename { from, to, .. } if !is_directory => {
                        Some(Box::new((from.clone(), to.clone())))
                    }
                    _ => None,
                };
                let ticket = Ticket {
                    opens,
                    source,
                    draft,
                    moves,
                    ..Ticket::new(id, place, mode)
                };
                return self.jobs.push_back(Job::Path { ticket, call });
            }
            answer = Err(Refusal::HAS_RULES_BENEATH);
        }
        match (&answer, place, moves) {
            (Ok(Answer::Done), _, Some(moves)) => self.on_renamed(&moves.0, &moves.1),
            // A change that its client asked for and did not get is missing in the file.
            (Err(_), Place::Handle(slot), _) if mode == Mode::Exclusive => {
                self.wrote(slot, 0, true);
            }
            _ => {}
        }
        if let (Some(slot), Some(draft)) = (opens, &draft)
            && let Some(entry) = self.handles.get_mut(slot)
        {
            entry.tally.began = Some(draft.began);
        }
        self.answered(draft, answer.as_ref().map(|_| ()).map_err(|why| *why));
        match (answer, opens, then) {
            (Ok(Answer::File(file)), None, Some(Then::Hash(plan))) => {
                // Hashing holds nothing up that waits for paths.
                let ticket = Ticket::new(id, Place::Apart, Mode::Shared);
                self.jobs.push_back(Job::Hash { ticket, file, plan });
                return self.finish(place, mode);
            }
            (Ok(Answer::Metadata(metadata)), Some(slot), Some(Then::Watch(plan))) => {
                if let Err(why) = Self::check_watched(&metadata) {
                    self.handles.remove(slot);
                    self.replies.refuse(id, why);
                } else {
                    let ticket = Ticket {
                        opens: Some(slot),
                        ..Ticket::new(id, Place::Apart, Mode::Shared)
                    };
                    self.jobs.push_back(Job::Watch { ticket, plan });
                    return self.finish(place, mode);
                }
            }
            (Ok(Answer::File(file)), Some(slot), _) => self.opened(id, slot, Opened::File(file)),
            (Ok(Answer::Directory(directory)), Some(slot), _) => {
                self.opened(id, slot, Opened::Directory(Some(directory)));
            }
            (answer, opens, _) => {
                if let Some(slot) = opens {
                    self.handles.remove(slot);
                }
                match answer {
                    Ok(Answer::Done) => self.replies.ok(id),
                    Ok(Answer::Metadata(metadata)) => self.replies.attrs(id, &metadata),
                    Ok(Answer::Target(target)) => self.replies.name(id, &target),
                    Ok(Answer::Space(space)) => self.replies.space(id, &space),
                    Ok(Answer::Names { users, groups }) => {
                        self.replies.owners(id, &users, &groups);
                    }
                    Ok(Answer::File(_) | Answer::Directory(_)) => {
                        self.replies.refuse(id, Refusal::CONFUSED);
                    }
                    Err(why) => self.replies.refuse(id, why),
                }
            }
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some(source) = source {
            self.finish(Place::Handle(source), Mode::Shared);
        }
        if closes && let Place::Handle(slot) = place {
            self.let_go(slot, true);
        }
        self.finish(place, mode);
    }

    /// Checksums were computed, or could not be.
    pub(crate) fn hashed(
        &mut self,
        ticket: Ticket,
        plan: &HashPlan,
        result: Result<Vec<u8>, Refusal>,
    ) {
        match result {
            Ok(hashes) => self.replies.hashes(ticket.id, plan, &hashes),
            Err(why) => self.replies.refuse(ticket.id, why),
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        self.finish(ticket.place, ticket.mode);
    }

    fn opened(&mut self, id: RequestId, slot: SlotId, opened: Opened) {
        if let Some(entry) = self.handles.get(slot).filter(|entry| entry.may_write) {
            self.opened_to_write(&entry.path);
        }
        if let Some(entry) = self.handles.get_mut(slot) {
            entry.opened = opened;
            let handle = self.handles.handle(slot);
            self.replies.handle(id, &handle);
        }
    }

    /// Part of a directory was read. `now` is in seconds since 1970.
    pub(crate) fn listed(
        &mut self,
        ticket: Ticket,
        result: io::Result<(Box<dyn Directory>, Batch)>,
        now: u64,
    ) -> Option<Batch> {
        let result = match result {
            Ok((directory, mut batch)) if !batch.entries().is_empty() => {
                self.leave_out_hidden(ticket.place, &mut batch);
                if batch.entries().is_empty() {
                    // No entries would be the end of the directory: on to the next ones.
                    self.jobs.push_back(Job::List {
                        ticket,
                        directory,
                        goes_on: true,
                    });
                    return Some(batch);
                }
                Ok((directory, batch))
            }
            result => result,
        };
        let Ticket {
            id, place, mode, ..
        } = ticket;
        let batch = match result {
            Ok((directory, batch)) => {
                self.replies.entries(id, &batch, now);
                if let Place::Handle(slot) = place
                    && let Some(entry) = self.handles.get_mut(slot)
                {
                    entry.opened = Opened::Directory(Some(directory));
                    let entries = batch.entries().len() as u64;
                    entry.tally.read = entry.tally.read.saturating_add(entries);
                }
                Some(batch)
            }
            Err(error) => {
                self.replies.refuse(id, Refusal::from(&error));
                if let Place::Handle(slot) = place {
                    self.wrote(slot, 0, true);
                }
                None
            }
        };
        self.outstanding = self.outstanding.saturating_sub(1);
        self.finish(place, mode);
        batch
    }

    /// Takes out of a listing what its reader may not know of.
    fn leave_out_hidden(&self, place: Place, batch: &mut Batch) {
        if let Place::Handle(slot) = place
            && let Some(entry) = self.handles.get(slot)
            && entry.hides_names
        {
            batch.retain(|listed| self.policy.shows(&entry.path, &listed.name));
        }
    }
}
