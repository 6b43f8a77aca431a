//! Doing jobs: in place where the answer is at hand, else on a thread.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use super::cold::Completion;
use super::long;
use super::{Engine, Host, Outlet, deliver};
use crate::fs::feed::Feed;
use crate::fs::{Batch, Directory, File, FileCall};
use crate::refusal::Refusal;
use crate::session::{CopiedWrite, Job, REPLIES_LEN_MAX, Ticket};
use crate::shares::Kind;

impl<H: Host> Engine<H> {
    /// Does what is ready; says whether anything was done.
    pub(super) fn do_jobs(&mut self, out: &mut impl Outlet) -> bool {
        let mut progress = false;
        while self.session.replies.unsent().len() < REPLIES_LEN_MAX {
            if let Some(job) = self.next_parked() {
                self.hand_away(job);
            } else if let Some(job) = self.session.next_job() {
                self.do_job(job, out);
            } else {
                break;
            }
            progress = true;
        }
        progress
    }

    fn do_job(&mut self, job: Job, out: &mut impl Outlet) {
        if self.root.pace.is_slow() {
            return self.park(job);
        }
        match job {
            Job::Path { ticket, call } => match self.timed(|root| root.files.try_call(&call)) {
                Err(error) if would_block(&error) => self.park(Job::Path { ticket, call }),
                result => self.session.complete(ticket, result),
            },
            Job::File { ticket, file, call } if call != FileCall::Sync => {
                match self.timed(|_| file.try_call(&call)) {
                    Err(error) if would_block(&error) => {
                        self.park(Job::File { ticket, file, call });
                    }
                    result => self.session.complete(ticket, result),
                }
            }
            Job::Write {
                ticket,
                file,
                write,
            } => self.write_in_place(ticket, file, write, out),
            Job::List { goes_on: true, .. } => self.park(job),
            Job::List {
                ticket, directory, ..
            } => self.list_in_place(ticket, directory),
            Job::File { .. } | Job::Copy { .. } | Job::Hash { .. } | Job::Watch { .. } => {
                self.park(job);
            }
        }
    }

    /// Measures a call that is made in place.
    pub(super) fn timed<T>(&self, call: impl FnOnce(&crate::root::Root) -> T) -> T {
        let start = self.host.now();
        let result = call(&self.root);
        self.root
            .pace
            .on_call(self.host.now().saturating_duration_since(start));
        result
    }

    /// Bytes that had to wait for their turn, and whose turn it is.
    fn write_in_place(
        &mut self,
        ticket: Ticket,
        file: Arc<dyn File>,
        mut write: CopiedWrite,
        out: &mut impl Outlet,
    ) {
        let len = write.bytes.len();
        let mut written = 0_usize;
        let result = loop {
            let Some(rest) = write.bytes.get(written..).filter(|rest| !rest.is_empty()) else {
                break Ok(());
            };
            let offset = write.offset.saturating_add(written as u64);
            match self.timed(|_| file.try_write_at(offset, &[IoSlice::new(rest)])) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(more) => written = written.saturating_add(more),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        match result {
            Err(error) if would_block(&error) => {
                write.bytes.drain(..written.min(len));
                write.offset = write.offset.saturating_add(written as u64);
                out.give_credit(written);
                self.session.wrote_part(&ticket, written);
                self.park(Job::Write {
                    ticket,
                    file,
                    write,
                });
            }
            result => {
                let credit = self.session.write_done(ticket, &write, len, result);
                out.give_credit(credit);
            }
        }
    }

    fn list_in_place(&mut self, ticket: Ticket, mut directory: Box<dyn Directory>) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        match self.timed(|_| directory.try_read(&mut batch)) {
            Err(error) if would_block(&error) && batch.entries().is_empty() => {
                self.batch = batch;
                let goes_on = true;
                self.park(Job::List {
                    ticket,
                    directory,
                    goes_on,
                });
            }
            // Entries before an error are an answer; the error comes with the next request.
            Err(error) if batch.entries().is_empty() => {
                self.listed(ticket, Err(error));
            }
            _ => self.listed(ticket, Ok((directory, batch))),
        }
    }

    fn listed(&mut self, ticket: Ticket, result: io::Result<(Box<dyn Directory>, Batch)>) {
        let now = self.host.unix_time();
        if let Some(batch) = self.session.listed(ticket, result, now) {
            self.batch = batch;
        }
    }

    /// A job that has to go to a thread, now or when one of its session's comes back.
    fn park(&mut self, job: Job) {
        if self.threads.may_start(job.owner(), job.is_long(), 0) {
            self.hand_away(job);
        } else {
            self.parked.push_back(job);
        }
    }

    /// The first parked job that may go to a thread. One that nobody waits for is answered.
    fn next_parked(&mut self) -> Option<Job> {
        if self.session.take_cancelled() {
            self.threads.look_again();
        }
        if self.parked.is_empty() || !self.threads.has_changed() {
            return None;
        }
        let may_start =
            |job: &Job| job.is_cancelled() || self.threads.may_start(job.owner(), job.is_long(), 0);
        let Some(first) = self.parked.iter().position(may_start) else {
            self.threads.seen();
            return None;
        };
        self.parked.remove(first)
    }

    fn hand_away(&mut self, job: Job) {
        let job = match job {
            Job::Hash { ticket, plan, .. } if plan.is_cancelled() => {
                let why = Refusal::CLOSED_MEANWHILE;
                return self.session.hashed(ticket, &plan, Err(why));
            }
            job => job,
        };
        let (owner, is_long) = (job.owner(), job.is_long());
        let cancel = job.cancel();
        let kind = if is_long { Kind::Long } else { Kind::Short };
        self.threads.start(owner, is_long);
        let mailbox = Arc::clone(&self.mailbox);
        let since = Some(self.host.now());
        let work = match job {
            Job::Path { ticket, call } => {
                let work = Arc::clone(&self.root.files).call(call);
                let done = |result| Completion::Answered { ticket, result };
                deliver(work, mailbox, since, done)
            }
            Job::File { ticket, file, call } => {
                let since = since.filter(|_| !is_long);
                let done = move |result| match is_long {
                    true => Completion::Long { ticket, result },
                    false => Completion::Answered { ticket, result },
                };
                deliver(file.call(call), mailbox, since, done)
            }
            Job::Write {
                ticket,
                file,
                mut write,
            } => {
                let bytes = std::mem::take(&mut write.bytes);
                let len = bytes.len();
                let work = file.write_at(write.offset, bytes);
                let done = move |result| Completion::Written {
                    ticket,
                    write,
                    len,
                    result,
                };
                deliver(work, mailbox, since, done)
            }
            Job::List {
                ticket, directory, ..
            } => {
                let mut batch = std::mem::take(&mut self.batch);
                batch.clear();
                let done = |result| Completion::Listed { ticket, result };
                deliver(directory.read(batch), mailbox, since, done)
            }
            Job::Copy { ticket, plan } => {
                let work = Box::pin(long::copy(plan, Arc::clone(&mailbox)));
                let done = |result| Completion::Long { ticket, result };
                deliver(work, mailbox, None, done)
            }
            Job::Watch { ticket, plan } => {
                let waker = Arc::clone(&self.mailbox);
                let feed = Feed::new(plan.kinds, plan.directories, move || waker.wake());
                let work = Arc::clone(&self.root.files).watch(plan.request, feed.clone());
                let done = |result| Completion::Watched {
                    ticket,
                    feed,
                    result,
                };
                deliver(work, mailbox, None, done)
            }
            Job::Hash { ticket, file, plan } => {
                let hasher = self.host.hasher();
                let plan = Arc::new(*plan);
                let work = long::hash(file, Arc::clone(&plan), Arc::clone(&mailbox), hasher);
                let done = |result: io::Result<_>| {
                    let result = result.unwrap_or_else(|error| Err(Refusal::from(&error)));
                    Completion::Hashed {
                        ticket,
                        plan,
                        result,
                    }
                };
                deliver(Box::pin(work), mailbox, None, done)
            }
        };
        match cancel {
            Some(cancel) => self.host.spawn_until(cancel, kind, work),
            None => self.host.spawn(kind, work),
        }
    }

    /// Takes in what came back from threads.
    pub(super) fn collect(&mut self, out: &mut impl Outlet) {
        let mut completions = self.mailbox.take(Vec::new());
        let now = self.host.now();
        for (since, completion) in completions.drain(..) {
            let (owner, is_long) = completion.of();
            self.threads.end(owner, is_long);
            self.session.release_reads(owner);
            if let Some(since) = since {
                self.root
                    .pace
                    .on_thread(now.saturating_duration_since(since));
            }
            match completion {
                Completion::Answered { ticket, result } | Completion::Long { ticket, result } => {
                    self.session.complete(ticket, result)
                }
                Completion::Written {
                    ticket,
                    write,
                    len,
                    result,
                } => {
                    let credit = self.session.write_done(ticket, &write, len, result);
                    out.give_credit(credit);
                }
                Completion::Listed { ticket, result } => self.listed(ticket, result),
                Completion::Read { read, result } => {
                    self.cold.push_back((read, result));
                }
                Completion::Watched {
                    ticket,
                    feed,
                    result,
                } => self.session.watched(ticket, feed, result),
                Completion::Hashed {
                    ticket,
                    plan,
                    result,
                } => self.session.hashed(ticket, &plan, result),
            }
        }
    }
}

/// Whether a call of the first tier says that it belongs to the second.
pub(super) fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}
