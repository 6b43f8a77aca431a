//! What other tasks submitted: begun when there is room, answered, and told when all is over.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Data, Inner, State,
    calls::{
        Ended, OwnedNames, QueuedCall, Reply, Submission, Unanswered, WaitingCall, message_of,
    },
    job::{Answer, Cx, Job},
    link::Link,
    misbehaved::PeerMisbehaved,
    slots::Key,
    table::{Entry, Owner, What},
};
use crate::transfer::ranges::Span;

impl Inner {
    /// Sends the calls of other tasks, and takes their transfers on.
    pub(super) fn begin_submissions(&mut self, link: &mut dyn Link) {
        while let Some(submission) = self.inbox.pop_front() {
            match submission {
                Submission::Call(call) => {
                    if let Err(call) = self.send_call(call, link) {
                        self.inbox.push_front(Submission::Call(call));
                        return;
                    }
                }
                Submission::Close(handle) => {
                    if !self.core.can_ask(link) {
                        self.inbox.push_front(Submission::Close(handle));
                        return;
                    }
                    self.core.close_orphan(link, &handle, None);
                }
                Submission::Job(job) => {
                    if self.jobs.room() == 0 {
                        self.inbox.push_front(Submission::Job(job));
                        return;
                    }
                    self.jobs.insert(job);
                }
                Submission::Look => {}
                Submission::Habit(quirk) => self.core.learn(quirk),
                Submission::Goodbye => self.leaving = true,
            }
        }
    }

    /// Sends a call, or gives it back if it does not fit now.
    pub(super) fn send_call(
        &mut self,
        mut call: QueuedCall,
        link: &mut dyn Link,
    ) -> Result<(), QueuedCall> {
        if call.waiting.slot.is_gone() && !call.closes() {
            return Ok(());
        }
        if self.core.table.room() == 0 {
            return Err(call);
        }
        let now = link.now();
        let owner = Owner::Call(call.waiting);
        let Some(id) = self.core.enter(now, owner, call.expect) else {
            return Ok(());
        };
        if let Some(field) = call.packet.get_mut(5..9) {
            field.copy_from_slice(&id.to_be_bytes());
        }
        if link.send(&call.packet).is_ok() {
            self.core.on_sent(now);
            return Ok(());
        }
        match self.core.table.remove(id) {
            Some(Entry {
                owner: Owner::Call(waiting),
                ..
            }) => Err(QueuedCall { waiting, ..call }),
            _ => Ok(()),
        }
    }

    pub(super) fn answer_call(
        &mut self,
        waiting: WaitingCall,
        answer: Answer<'_>,
        link: &mut dyn Link,
    ) {
        let reply = match answer {
            Answer::Status(status, message) => Reply::Status(status, message_of(message)),
            Answer::Handle(handle) => Reply::Handle(handle.to_vec()),
            Answer::Data(_) => Reply::Data(Bytes::from(waiting.data)),
            Answer::Names(names) => {
                let len = names.as_wire().map_or(0, <[u8]>::len);
                let held = match &waiting.hold {
                    Some(hold) => hold.take(len).then(|| names.into()),
                    None => OwnedNames::of_one(names),
                };
                let Some(names) = held else {
                    let fault = PeerMisbehaved::TooManyNames { len };
                    waiting.slot.answer(Err(Unanswered {
                        ended: Ended::Misbehaved(Arc::new(fault)),
                        sent: true,
                    }));
                    return;
                };
                Reply::Names(names)
            }
            Answer::Attrs(attrs) => Reply::Attrs(attrs),
            Answer::Extended(data) => Reply::Extended(data.to_vec()),
        };
        if let Some(Reply::Handle(handle)) = waiting.slot.answer(Ok(reply)) {
            self.core.close_orphan(link, &handle, None);
        }
    }

    /// The server is silent: what waits is given up, and the channel kept for a second try.
    pub(super) fn on_stalled(&mut self, link: &mut dyn Link) {
        let is_demoted = self.core.on_stalled();
        let keys = (0..self.jobs.span()).filter_map(|index| self.jobs.key_at(index));
        let begins_anew = |job: &dyn Job| is_demoted || job.may_leave();
        let jobs = keys.zip(self.jobs.iter().map(|job| begins_anew(&**job)));
        let anew: Vec<Key> = jobs.filter_map(|(key, yes)| yes.then_some(key)).collect();
        for entry in self.core.table.iter_mut() {
            match &entry.owner {
                Owner::Call(waiting) => {
                    waiting.slot.answer(Err(Unanswered {
                        ended: Ended::Stalled,
                        sent: true,
                    }));
                }
                Owner::Job { job, item, what } if anew.contains(job) => {
                    match *what {
                        What::Read(_, sent) => self.core.down.on_forgotten(sent),
                        What::Write { sent, .. } => self.core.up.on_forgotten(sent),
                        What::ReadDir { .. } | What::Step(_) => {}
                    }
                    let key = *job;
                    if let Some(job) = self.jobs.get_mut(key) {
                        job.on_lost(
                            *item,
                            Data::rest_of(self.data.as_ref(), (key, *item), *what),
                        );
                    }
                }
                Owner::Job { .. } | Owner::Limits | Owner::Nobody { .. } => continue,
            }
            entry.owner = Owner::Nobody { remove: None };
        }
        for submission in std::mem::take(&mut self.inbox) {
            match submission {
                Submission::Call(call) => {
                    let unanswered = Unanswered {
                        ended: Ended::Stalled,
                        sent: false,
                    };
                    call.waiting.slot.answer(Err(unanswered));
                    if call.closes() {
                        self.inbox.push_back(Submission::Call(call));
                    }
                }
                Submission::Job(mut job) => job.on_ended(&Ended::Stalled, None),
                other => self.inbox.push_back(other),
            }
        }
        for index in 0..self.jobs.span() {
            let Some(key) = self.jobs.key_at(index) else {
                continue;
            };
            let Some(job) = self.jobs.get_mut(key) else {
                continue;
            };
            let mut cx = Cx::of(&**job, key, &mut self.core, link);
            if anew.contains(&key) {
                job.on_demoted(&mut cx);
                if !is_demoted {
                    job.leave(&mut cx);
                    self.jobs.remove(key);
                }
            } else {
                job.on_stalled(&mut cx);
            }
        }
    }

    pub(super) fn misbehaved(&mut self, fault: PeerMisbehaved, link: &mut dyn Link) {
        self.end(&Ended::Misbehaved(Arc::new(fault)));
        link.close();
    }

    /// Nothing will be answered any more: everybody who waits is told.
    pub(super) fn end(&mut self, ended: &Ended) {
        self.state = State::Over;
        self.core.stall.on_idle();
        let data = self.data.take();
        self.core.shared.end(ended);
        for note in std::mem::take(&mut self.notes) {
            if let Some(job) = self.jobs.get_mut(note.job) {
                let len = u32::try_from(note.place.len).unwrap_or(u32::MAX);
                let offset = note.offset;
                job.on_unwritten(note.item, Span { offset, len });
            }
        }
        for entry in self.core.table.drain() {
            match entry.owner {
                Owner::Call(waiting) => {
                    waiting.slot.answer(Err(Unanswered {
                        ended: ended.clone(),
                        sent: true,
                    }));
                }
                Owner::Job {
                    job: key,
                    item,
                    what,
                } => {
                    if let Some(job) = self.jobs.get_mut(key) {
                        job.on_lost(item, Data::rest_of(data.as_ref(), (key, item), what));
                    }
                }
                Owner::Limits | Owner::Nobody { .. } => {}
            }
        }
        for submission in std::mem::take(&mut self.inbox) {
            submission.refuse(ended);
        }
        for mut job in self.jobs.drain() {
            job.on_ended(ended, Some(&mut self.core.disk));
        }
        // A file that is still being created on a thread goes as soon as it is there.
        self.core.disk.close();
    }
}
