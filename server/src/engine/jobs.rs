//! Doing jobs: in place where the answer is at hand, else on a thread.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use super::cold::{Completion, Mailbox};
use super::{Engine, Host, JOBS_MAX, Outlet, deliver};
use crate::fs::{Answer, Batch, Block, Directory, File, FileCall};
use crate::session::{CopiedWrite, CopyPlan, Job, REPLIES_LEN_MAX, Ticket};

/// What `copy-data` copies at a time, in bytes.
const COPY_LEN: usize = 256 * 1024;

impl<H: Host> Engine<H> {
    /// Does what is ready; says whether anything was done.
    pub(super) fn do_jobs(&mut self, out: &mut impl Outlet) -> bool {
        let mut progress = false;
        while self.session.replies.unsent().len() < REPLIES_LEN_MAX {
            if self.running < JOBS_MAX
                && let Some(job) = self.parked.pop_front()
            {
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
            Job::List { ticket, directory } => self.list_in_place(ticket, directory),
            Job::File { .. } | Job::Copy { .. } => self.park(job),
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
                self.park(Job::List { ticket, directory });
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
        if self.running < JOBS_MAX {
            self.hand_away(job)
        } else {
            self.parked.push_back(job)
        }
    }

    fn hand_away(&mut self, job: Job) {
        self.running = self.running.saturating_add(1);
        let mailbox = Arc::clone(&self.mailbox);
        let since = Some(self.host.now());
        let work = match job {
            Job::Path { ticket, call } => {
                let work = Arc::clone(&self.root.files).call(call);
                let done = |result| Completion::Answered { ticket, result };
                deliver(work, mailbox, since, done)
            }
            Job::File { ticket, file, call } => {
                let since = since.filter(|_| call != FileCall::Sync);
                let done = |result| Completion::Answered { ticket, result };
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
            Job::List { ticket, directory } => {
                let mut batch = std::mem::take(&mut self.batch);
                batch.clear();
                let done = |result| Completion::Listed { ticket, result };
                deliver(directory.read(batch), mailbox, since, done)
            }
            Job::Copy { ticket, plan } => {
                let work = Box::pin(copy(plan, Arc::clone(&mailbox)));
                let done = |result| Completion::Answered { ticket, result };
                deliver(work, mailbox, None, done)
            }
        };
        self.host.spawn(work);
    }

    /// Takes in what came back from threads.
    pub(super) fn collect(&mut self, out: &mut impl Outlet) {
        let mut completions = self.mailbox.take(Vec::new());
        let now = self.host.now();
        for (since, completion) in completions.drain(..) {
            self.running = self.running.saturating_sub(1);
            if let Some(since) = since {
                self.root
                    .pace
                    .on_thread(now.saturating_duration_since(since));
            }
            match completion {
                Completion::Answered { ticket, result } => self.session.complete(ticket, result),
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
                Completion::Read { read, result } => self.cold.push_back((read, result)),
            }
        }
    }
}

/// Whether a call of the first tier says that it belongs to the second.
pub(super) fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

/// Copies between files, a block at a time, until all is copied or nobody waits for it any more.
async fn copy(plan: Box<CopyPlan>, mailbox: Arc<Mailbox>) -> io::Result<Answer> {
    let CopyPlan {
        from,
        from_offset,
        len,
        to,
        to_offset,
        ..
    } = *plan;
    let mut block = Block::default();
    let mut copied = 0_u64;
    loop {
        let left = len.map_or(u64::MAX, |len| len.saturating_sub(copied));
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_LEN);
        if want == 0 {
            return Ok(Answer::Done);
        }
        block = Block::renew(block, 0, want);
        block = Arc::clone(&from)
            .read_at(from_offset.saturating_add(copied), block)
            .await?;
        let got = block.filled().to_vec();
        if got.is_empty() {
            return Ok(Answer::Done); // the end of the file
        }
        let end = to_offset
            .checked_add(copied)
            .and_then(|at| at.checked_add(got.len() as u64));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let at = to_offset.saturating_add(copied);
        copied = copied.saturating_add(got.len() as u64);
        Arc::clone(&to).write_at(at, got).await?;
        if mailbox.is_abandoned() {
            return Err(ErrorKind::Interrupted.into());
        }
    }
}
