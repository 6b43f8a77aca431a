//! Work that lives with the requests: a transfer asks and is answered here, without a task of its
//! own and without a queue between.

use std::{io::IoSlice, time::Instant};

use ketch_protocol::{Attrs, Close, Lstat, Names, Request, RequestId, Stat, StatusCode};

use super::{
    calls::Ended,
    core::Core,
    link::{Fill, Full, Link},
    slots::Key,
    table::{Expect, Owner, Step, What},
};
use crate::{
    quirks::Quirk,
    transfer::{
        control::Priority,
        disk::{Disk, Done},
        download::Ask,
        ranges::Span,
    },
};

/// A transfer, as the requests see it. No method may block.
pub(crate) trait Job: Send {
    /// A request was answered. A READ is answered when its last byte has come: what came was noted
    /// and is written at the end of the turn.
    fn on_answer(&mut self, item: Key, what: What, answer: Answer<'_>, cx: &mut Cx<'_>);

    /// Adjacent bytes of a file, `len` in all, are there to be written at `offset`.
    fn on_run(
        &mut self,
        item: Key,
        offset: u64,
        run: &mut [IoSlice<'_>],
        len: usize,
        cx: &mut Cx<'_>,
    );

    /// Work for the disk was done on another thread.
    fn on_disk(&mut self, item: Key, done: Done, cx: &mut Cx<'_>);

    /// Asks for what is wanted next, and says whether there will be more.
    fn drive(&mut self, cx: &mut Cx<'_>) -> Progress;

    /// The server stalled with several requests under way, which may have been too much for it:
    /// what was begun is begun again, one request at a time. Nothing that was asked will be answered.
    fn on_demoted(&mut self, cx: &mut Cx<'_>);

    /// Whether others can go on with its work if the server stalls on this channel.
    fn may_leave(&self) -> bool {
        false
    }

    /// What was begun is given back ([`Job::on_demoted`]), and others go on with it: says its last
    /// word, and asks for the handles to be closed.
    fn leave(&mut self, cx: &mut Cx<'_>);

    /// The server stalled: gives up, leaving no trace where that is possible.
    fn on_stalled(&mut self, cx: &mut Cx<'_>);

    /// A request will not be answered; the end follows ([`Job::on_ended`]).
    fn on_lost(&mut self, item: Key, what: What);

    /// Bytes of a file that came will not be written; the end follows ([`Job::on_ended`]).
    fn on_unwritten(&mut self, item: Key, span: Span);

    /// Nothing can be asked any more: gives up, leaving no trace here. Without a disk it had not
    /// begun.
    fn on_ended(&mut self, ended: &Ended, disk: Option<&mut Disk>);

    /// Whether it is paused: nothing is sent for it.
    fn is_held(&self) -> bool {
        false
    }

    /// How much it counts beside others.
    fn priority(&self) -> Priority {
        Priority::default()
    }

    /// When it wants to be driven at the latest.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Whether a transfer goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// It waits for answers, for the disk or for room.
    Working,
    /// It has said its last word.
    Finished,
}

/// An answer, lent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    /// How a request ended; the text is the server's.
    Status(StatusCode, &'a [u8]),
    /// A handle.
    Handle(&'a [u8]),
    /// So many bytes of a file.
    Data(u32),
    /// Entries of a directory.
    Names(Names<'a>),
    /// Attributes.
    Attrs(Attrs),
    /// What an extension answers.
    Extended(&'a [u8]),
}

/// What a transfer has at hand when it is called.
pub(crate) struct Cx<'a> {
    pub link: &'a mut dyn Link,
    pub core: &'a mut Core,
    /// The transfer's own key.
    pub job: Key,
    /// It is paused: whatever it wants to send finds no room.
    is_held: bool,
}

impl<'a> Cx<'a> {
    /// For the transfer `job`, which has the key `key`.
    pub(crate) fn of(job: &dyn Job, key: Key, core: &'a mut Core, link: &'a mut dyn Link) -> Self {
        Self {
            link,
            core,
            job: key,
            is_held: job.is_held(),
        }
    }
}

impl Cx<'_> {
    /// Whether a small request would be taken now.
    pub(crate) fn can_ask(&mut self) -> bool {
        !self.is_held && self.core.can_ask(self.link)
    }

    /// Whether answers are awaited for the transfer.
    pub(crate) fn is_waiting(&self) -> bool {
        let is_mine = |owner: &Owner| matches!(owner, Owner::Job { job, .. } if *job == self.job);
        self.core.table.iter().any(|entry| is_mine(&entry.owner))
    }

    /// Whether a transfer may send anything now.
    fn has_turn(&self) -> bool {
        !self.is_held && self.core.has_turn()
    }

    /// Sends a request for one of the transfer's items.
    pub(crate) fn ask(
        &mut self,
        item: Key,
        step: Step,
        request: &Request<'_>,
        expect: Expect,
    ) -> Result<(), Full> {
        self.ask_for(item, What::Step(step), request, expect)
    }

    /// Sends a request for one of the transfer's items.
    pub(crate) fn ask_for(
        &mut self,
        item: Key,
        what: What,
        request: &Request<'_>,
        expect: Expect,
    ) -> Result<(), Full> {
        if !self.has_turn() {
            return Err(Full);
        }
        let owner = Owner::Job {
            job: self.job,
            item,
            what,
        };
        self.core.ask(self.link, request, owner, expect).map(drop)
    }

    /// Asks what `path` is; not what a link leads to, where the server can tell the difference.
    pub(crate) fn look(&mut self, item: Key, path: &[u8]) -> Result<(), Full> {
        let (step, request) = if self.core.server.quirks.has(Quirk::NoLstat) {
            (Step::LookThrough, Request::Stat(Stat { path }))
        } else {
            (Step::Look, Request::Lstat(Lstat { path }))
        };
        self.ask(item, step, &request, Expect::Attrs)
    }

    /// Whether an answer to [`Cx::look`] says that the server has no `LSTAT`: then it is to be
    /// asked once more.
    pub(crate) fn is_without_lstat(&mut self, what: What, answer: &Answer<'_>) -> bool {
        let is_it = matches!(
            (what, answer),
            (
                What::Step(Step::Look),
                Answer::Status(StatusCode::OP_UNSUPPORTED, _)
            )
        );
        if is_it {
            self.core.learn(Quirk::NoLstat);
        }
        is_it
    }

    /// Closes a file that a transfer had open; nobody waits for the answer.
    pub(crate) fn close_file(&mut self, handle: &[u8]) -> Result<(), Full> {
        self.tell(&Request::Close(Close { handle }))?;
        self.core.on_file_closed();
        Ok(())
    }

    /// Sends a request whose answer nobody waits for.
    pub(crate) fn tell(&mut self, request: &Request<'_>) -> Result<(), Full> {
        if !self.has_turn() {
            return Err(Full);
        }
        let owner = Owner::Nobody { remove: None };
        self.core
            .ask(self.link, request, owner, Expect::Status)
            .map(drop)
    }

    /// Sends a READ.
    pub(crate) fn read(&mut self, item: Key, handle: &[u8], ask: Ask) -> Result<(), Full> {
        if !self.has_turn() {
            return Err(Full);
        }
        let now = self.link.now();
        let len = ask.span.len;
        let request = Request::Read(ketch_protocol::Read {
            handle,
            offset: ask.span.offset,
            len,
        });
        let sent = self.core.down.on_sent(len as usize, now);
        let owner = Owner::Job {
            job: self.job,
            item,
            what: What::Read(ask, sent),
        };
        let result = self.core.ask(self.link, &request, owner, Expect::Data(len));
        if result.is_err() {
            self.core.down.on_answered(sent, now);
        } else {
            self.core.turn.on_sent(len as usize);
        }
        result.map(drop)
    }

    /// Sends a WRITE whose data `source` reads into the outgoing packet; says how much it was,
    /// or `None` if there is no room for it now.
    pub(crate) fn write(
        &mut self,
        item: Key,
        handle: &[u8],
        offset: u64,
        source: &mut dyn FnMut(&mut [std::io::IoSliceMut<'_>]) -> usize,
        data_len_max: usize,
    ) -> Option<usize> {
        if !self.has_turn() {
            return None;
        }
        let now = self.link.now();
        let sent = self.core.up.nothing(now);
        let owner = Owner::Job {
            job: self.job,
            item,
            what: What::Write {
                span: Span { offset, len: 0 },
                sent,
            },
        };
        let id = self.core.enter(now, owner, Expect::Status)?;
        let mut header = std::mem::take(&mut self.core.scratch);
        let mut packet = WritePacket {
            id,
            handle,
            offset,
            source,
            data_len_max,
            header: &mut header,
        };
        let filled = self.link.send_filled(&mut packet);
        self.core.scratch = header;
        match filled {
            Some(len) if len > 0 => {
                let sent = self.core.up.on_sent(len, now);
                self.core.turn.on_sent(len);
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                if let Some(entry) = self.core.table.get_mut(id) {
                    entry.owner = Owner::Job {
                        job: self.job,
                        item,
                        what: What::Write {
                            span: Span { offset, len },
                            sent,
                        },
                    };
                }
                self.core.on_sent(now);
            }
            _ => {
                self.core.table.remove(id);
            }
        }
        filled
    }

    /// A file that is being opened is no longer wanted: it will be closed, and `remove`d if it
    /// was created.
    pub(crate) fn orphan(&mut self, item: Key, remove: Option<&ketch_protocol::RemotePath>) {
        for entry in self.core.table.iter_mut() {
            if let Owner::Job {
                job,
                item: of,
                what: What::Step(Step::Open | Step::OpenDir | Step::MakeLink),
            } = entry.owner
                && (job, of) == (self.job, item)
            {
                entry.owner = Owner::Nobody {
                    remove: remove.cloned(),
                };
            }
        }
    }
}

/// A WRITE packet whose data is read straight into place.
struct WritePacket<'a> {
    id: RequestId,
    handle: &'a [u8],
    offset: u64,
    source: &'a mut dyn FnMut(&mut [std::io::IoSliceMut<'_>]) -> usize,
    data_len_max: usize,
    header: &'a mut Vec<u8>,
}

impl Fill for WritePacket<'_> {
    fn len(&self) -> (usize, usize) {
        (
            ketch_protocol::Write::header_len(self.handle.len()),
            self.data_len_max,
        )
    }

    fn fill(&mut self, slots: &mut [std::io::IoSliceMut<'_>]) -> usize {
        (self.source)(slots)
    }

    fn header(&mut self, data_len: usize) -> &[u8] {
        let data_len = u32::try_from(data_len).unwrap_or_default();
        self.header.clear();
        ketch_protocol::Write::encode_header(
            self.id,
            self.handle,
            self.offset,
            data_len,
            self.header,
        );
        self.header
    }
}
