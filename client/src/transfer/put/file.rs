//! One file being uploaded: opened here, created there under a temporary name, written, closed,
//! renamed.
//!
//! Attributes, fsync, a look at the size and the close follow the last data without waiting; the
//! rename waits for the answers to all of them (draft-02 §3: requests about one file are carried
//! out in the order sent, but the rename names no handle).

use std::sync::Arc;

use ketch_protocol::{Attrs, RemotePath, StatusCode};

use super::{FileTask, Item, Put, joint::Joint};
use crate::{
    quirks::{Quirk, Quirks},
    requests::{
        calls::message_of,
        core::RefusedWrite,
        job::{Answer, Cx},
        slots::Key,
        table::{Step, What},
    },
    sftp::Operation,
    transfer::{
        disk::Done,
        error::{Place, TransferError},
        hands::Hold,
        local::{ATTEMPTS_MAX, Opened, SourceFile},
        names,
        part::Front,
        ranges::{Ranges, Span},
        report::{Remarkable, Remarks},
        sink::Source,
        upload::Upload,
    },
};

mod closing;
mod creating;
mod giving_back;
mod joining;
mod naming;
mod probing;
mod sending;

pub(super) use self::sending::Sending;
use self::{probing::Probe, sending::Block};

/// What a file of unknown size counts as, among the bytes that are to be sent.
const SIZE_GUESS: u64 = 64 * 1024;
/// The least that a file counts as: opening, closing and renaming cost something too.
const SIZE_MIN: u64 = 4 * 1024;

/// One file being uploaded.
pub(super) struct PutFile {
    pub from: From,
    pub path: RemotePath,
    pub temporary: RemotePath,
    attempt: u8,
    pub state: State,
    opened: Option<Opened>,
    /// Permissions of the file whose place it takes.
    replaced_mode: Option<u32>,
    /// The temporary file is on the server, and ours.
    pub created: bool,
    pub handle: Option<Box<[u8]>>,
    hold: Hold<Joint>,
    /// This channel has no share of it any more, and closes its handle.
    has_left: bool,
    /// A temporary file of an earlier connection, to be removed first.
    stale: Option<RemotePath>,
    /// Nothing has its name: its directory was made by this transfer.
    is_dir_new: bool,
    /// Bytes that it had when it was listed.
    listed: Option<u64>,
    /// A lost connection had been asked to rename it, and had not done so when it was looked at.
    was_found: bool,
    /// A lost connection had been asked to remove the old file, and may do so late.
    may_be_cleared: bool,
    upload: Option<Upload>,
    /// Data that a thread read.
    block: Option<Block>,
    /// Bytes that a thread is reading.
    reading: usize,
    /// Answers to wait for, those to writes not counted.
    waiting: u32,
    /// Something to know about it in the end.
    remarks: Remarks,
    size: u64,
    /// What was known of the server's habits when writing began.
    began_with: Quirks,
    /// Whether holes need not be sent: there is nothing on the server where they are.
    leaves_holes: bool,
    /// The first byte behind one that was left out, or was there already: what is written from here
    /// on is not behind what was written before.
    gap_at: Option<u64>,
    /// Bytes of holes that were left out and not counted.
    skipped: u64,
    /// Whether a part of it is looked for, and left if this fails.
    resumes: bool,
    /// It was looked for.
    has_looked: bool,
    /// What is on the server is of no use to anybody.
    is_spoilt: bool,
    /// Bytes that an earlier run had sent.
    resumed_at: u64,
    /// Up to where the server has acknowledged it without a gap, if it may be continued.
    front: Option<Front>,
    /// It was seen to be on the server what it is here.
    is_verified: bool,
    /// What is on the server, being compared.
    probe: Option<Box<Probe>>,
    /// It is written under its own name: what is closed on this server is no longer ours to rename.
    is_in_place: bool,
    /// It was refused while another file was open, and is opened once more.
    has_waited: bool,
}

/// Where the bytes come from.
#[derive(Clone)]
pub(crate) enum From {
    /// A local file.
    File(SourceFile),
    /// The embedder, and the size it named.
    Source(Arc<dyn Source>, Option<u64>),
}

/// How far a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// What an earlier connection left is to be removed.
    Purging,
    PurgingAsked,
    /// Nothing was done yet.
    New,
    /// Others have begun it: its temporary file is to be opened here as well.
    Joining,
    JoiningAsked,
    /// The server does not open it again.
    Refused,
    /// Others go on with it: the handle is to be closed.
    Leaving,
    LeavingAsked,
    /// All is on the server, under this name or that: which?
    Finding,
    FindingAsked,
    FindingName,
    FindingNameAsked,
    /// The local file is being opened.
    Opening,
    /// The local file is open. The server is to be asked what has the name.
    Opened,
    /// The server was asked whether there is such a file.
    Looking,
    /// What is on the server under a temporary name is being compared.
    Probing,
    /// The temporary file is to be created.
    Creating,
    /// OPEN was sent.
    Asked,
    /// Data flows.
    Writing,
    /// All data is sent; these requests follow it.
    SettingOwner,
    SettingAttrs,
    Syncing,
    Measuring,
    Closing,
    /// All is sent; the answers are awaited.
    Settling,
    /// All is well on the server: the file is to be given its name.
    Naming,
    /// A rename was sent.
    Renaming,
    /// The server does not replace: the old file is to be removed.
    Clearing,
    ClearingAsked,
    /// The old file is gone: the rename is to be sent again.
    NamingAgain,
    RenamingAgain,
    /// The rename failed; does the name exist?
    Checking {
        status: StatusCode,
    },
    CheckingAsked {
        status: StatusCode,
    },
}

impl PutFile {
    pub(super) fn new(task: FileTask) -> Self {
        Self {
            from: task.from,
            temporary: RemotePath::from(""),
            path: task.path,
            // What a lost connection had asked for may still be done, to the name that it used.
            attempt: if task.stale.is_some() {
                names::ATTEMPT_BY_CHANCE
            } else {
                0
            },
            state: if task.stale.is_some() {
                State::Purging
            } else {
                State::New
            },
            opened: None,
            replaced_mode: None,
            created: false,
            handle: None,
            hold: Hold::Alone(Ranges::new(None)),
            has_left: false,
            stale: task.stale,
            is_dir_new: task.is_dir_new,
            listed: task.listed,
            was_found: false,
            may_be_cleared: false,
            upload: None,
            block: None,
            reading: 0,
            waiting: 0,
            remarks: Remarks::default(),
            size: 0,
            began_with: Quirks::default(),
            leaves_holes: false,
            gap_at: None,
            skipped: 0,
            resumes: false,
            has_looked: false,
            is_spoilt: false,
            resumed_at: 0,
            front: None,
            is_verified: false,
            probe: None,
            is_in_place: false,
            has_waited: false,
        }
    }

    /// Bytes that are still to be sent, about.
    pub(super) fn left_to_send(&self) -> u64 {
        if let Hold::Joint(joint) = &self.hold {
            let dealt = self.upload.as_ref().map_or(0, Upload::left_to_send);
            return joint.hands.left().saturating_add(u64::from(dealt));
        }
        match self.state {
            // As much as when it is open: who counts it as more begins few at a time, and has more
            // room as soon as they are open.
            State::Purging | State::PurgingAsked | State::New | State::Opening => {
                let size = self.announced().or(self.listed);
                size.map_or(SIZE_GUESS, |size| size.clamp(SIZE_MIN, SIZE_GUESS))
            }
            State::Opened
            | State::Looking
            | State::Probing
            | State::Creating
            | State::Asked
            | State::Writing => {
                let size = self
                    .announced()
                    .map_or(SIZE_GUESS, |size| size.max(SIZE_MIN));
                size.saturating_sub(self.upload.as_ref().map_or(0, Upload::sent))
            }
            _ => 0,
        }
    }

    /// Whether it is open on the server, or is to be.
    pub(super) const fn has_handle(&self) -> bool {
        self.handle.is_some() || matches!(self.state, State::Asked | State::JoiningAsked)
    }

    /// Whether all of it is one message or two.
    pub(super) fn is_small(&self) -> bool {
        self.announced().is_some_and(|size| size <= SIZE_GUESS)
    }

    /// Whether data flows.
    pub(super) fn is_writing(&self) -> bool {
        self.state == State::Writing
    }

    /// Whether it goes on only after an answer, work on a thread, or the data that it sends itself.
    /// Who is not sure says no, and is asked in every turn.
    pub(super) fn is_waiting(&self) -> bool {
        let is_alone = matches!(self.hold, Hold::Alone(_));
        match self.state {
            State::Opening
            | State::Looking
            | State::Asked
            | State::PurgingAsked
            | State::FindingAsked
            | State::FindingNameAsked
            | State::Renaming
            | State::ClearingAsked
            | State::RenamingAgain
            | State::CheckingAsked { .. } => true,
            // Of what several hands do, others decide, too.
            State::Writing => is_alone,
            State::Settling => is_alone && self.waiting > 0,
            _ => false,
        }
    }

    /// Whether its last step may be done without anybody knowing.
    pub(super) const fn is_renaming(&self) -> bool {
        matches!(
            self.state,
            State::Renaming | State::RenamingAgain | State::ClearingAsked
        )
    }

    /// Whether what is written there is not behind what was written before.
    fn is_out_of_order(&self, span: Span) -> bool {
        self.gap_at.is_some_and(|gap| span.offset >= gap)
    }

    /// Bytes that the source says it has.
    fn announced(&self) -> Option<u64> {
        match (&self.from, &self.opened) {
            (From::Source(_, size), _) => *size,
            (From::File(_), opened) => opened.as_ref().map(|opened| opened.size),
        }
    }

    /// A look at a name was refused for the way in which it was asked: it is asked once more.
    fn look_again(&mut self) {
        match self.state {
            State::Looking => self.state = State::Opened,
            State::CheckingAsked { status } => self.state = State::Checking { status },
            State::FindingAsked => self.state = State::Finding,
            State::FindingNameAsked => self.state = State::FindingName,
            State::Probing => self.probe.iter_mut().for_each(|probe| probe.look_again()),
            _ => {}
        }
    }

    /// What a report calls it.
    pub(super) fn place(&self) -> Place {
        match &self.from {
            From::File(source) => Place::Local(source.path()),
            From::Source(..) => Place::Remote(self.path.clone()),
        }
    }

    fn refused(&self, operation: Operation, status: StatusCode, message: &[u8]) -> TransferError {
        TransferError::Refused {
            operation,
            path: self.path.clone(),
            status,
            message: message_of(message),
        }
    }
}

impl Put {
    /// Moves a file on as far as it goes without sending data.
    pub(super) fn advance_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        loop {
            let Some(Item::File(file)) = self.items.get_mut(key) else {
                return;
            };
            let before = file.state;
            match file.state {
                State::Purging => self.purge(key, cx),
                State::New => self.open_source(key, cx),
                State::Joining => self.join(key, cx),
                State::Refused => self.leave_file(key, cx),
                State::Leaving => self.close_share(key, cx),
                State::Finding | State::FindingName => self.find(key, cx),
                State::Opened => self.look_first(key, cx),
                State::Creating if file.resumes && !file.has_looked => {
                    self.look_for_part(key, cx);
                }
                State::Creating => self.create(key, cx),
                State::Probing => self.probe(key, cx),
                State::Writing => self.see_whether_sent(key, cx),
                State::SettingOwner
                | State::SettingAttrs
                | State::Syncing
                | State::Measuring
                | State::Closing => self.send_what_follows(key, cx),
                State::Settling => self.see_whether_settled(key, cx),
                State::Naming | State::NamingAgain => self.rename(key, cx),
                State::Clearing => self.clear(key, cx),
                State::Checking { status } => self.check(key, status, cx),
                State::Opening
                | State::Looking
                | State::Asked
                | State::PurgingAsked
                | State::JoiningAsked
                | State::LeavingAsked
                | State::FindingAsked
                | State::FindingNameAsked
                | State::Renaming
                | State::ClearingAsked
                | State::RenamingAgain
                | State::CheckingAsked { .. } => {}
            }
            match self.items.get_mut(key) {
                Some(Item::File(file)) if file.state != before => {}
                _ => return,
            }
        }
    }

    /// Takes what came of work on the disk.
    pub(super) fn on_file_done(&mut self, key: Key, done: Done, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let result = match done {
            Done::Opened(Ok(opened)) => {
                // What was found by listing was counted then.
                if matches!(file.from, From::File(SourceFile::Named(_))) {
                    self.plan.progress.correct_total(0, opened.size);
                }
                file.opened = Some(opened);
                file.state = State::Opened;
                Ok(())
            }
            Done::Read {
                offset,
                result: Ok(bytes),
            } => {
                file.block = Some(Block {
                    offset,
                    at_end: bytes.len() < file.reading,
                    bytes,
                });
                file.reading = 0;
                Ok(())
            }
            Done::Compared(is_same) => {
                self.on_compared(key, is_same);
                Ok(())
            }
            Done::Hashed(Ok(hash)) => {
                self.on_hashed(key, hash, cx);
                Ok(())
            }
            Done::Opened(Err(fault))
            | Done::Hashed(Err(fault))
            | Done::Read {
                result: Err(fault), ..
            } => Err(TransferError::from(fault)),
            Done::Panicked => Err(TransferError::Panicked),
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.fail_file(key, error, cx);
        }
    }

    /// Takes what the server answered about a file.
    pub(super) fn on_file_answer(
        &mut self,
        key: Key,
        what: What,
        answer: Answer<'_>,
        cx: &mut Cx<'_>,
    ) {
        let overwrite = self.options.overwrite;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if cx.is_without_lstat(what, &answer) {
            return file.look_again();
        }
        if file.is_joining() {
            return self.on_join_answer(key, what, answer, cx);
        }
        if file.state == State::Probing {
            return self.on_probe_answer(key, what, answer, cx);
        }
        let result = match (what, answer) {
            (What::Write { span, .. }, Answer::Status(status, message)) => {
                if status == StatusCode::OK {
                    cx.core.on_written(span.len, file.is_out_of_order(span));
                    self.plan.progress.add_bytes(u64::from(span.len));
                } else if cx.core.may_teach(&RefusedWrite {
                    len: span.len,
                    is_out_of_order: file.is_out_of_order(span),
                    began_with: file.began_with,
                    status,
                    message,
                }) {
                    return self.begin_again(key);
                }
                if let Some(upload) = &mut file.upload {
                    upload.on_status(span.len, status);
                }
                if let (Some(front), StatusCode::OK) = (&mut file.front, status) {
                    front.add(span);
                }
                if status == StatusCode::OK {
                    Ok(())
                } else {
                    let error = file.refused(Operation::Write, status, message);
                    return self.doubt(key, error, u64::from(span.len), cx);
                }
            }
            (What::Step(Step::Open), Answer::Handle(handle)) => {
                file.handle = Some(handle.into());
                file.created = true;
                self.start_writing(key, cx)
            }
            (What::Step(Step::Open), Answer::Status(StatusCode::OP_UNSUPPORTED, _))
                if !cx.core.server.quirks.has(Quirk::NoExclusive) =>
            {
                cx.core.learn(Quirk::NoExclusive);
                file.attempt = names::ATTEMPT_BY_CHANCE;
                file.state = State::Creating;
                file.name_temporary()
            }
            (What::Step(Step::Open), Answer::Status(status, message))
                if !file.has_waited && cx.core.is_crowded(status, message) =>
            {
                file.has_waited = true;
                file.state = State::Creating;
                Ok(())
            }
            (What::Step(Step::Open), Answer::Status(status, message)) => {
                let taken = matches!(
                    status,
                    StatusCode::FAILURE | StatusCode::FILE_ALREADY_EXISTS
                );
                if taken && !file.is_in_place && file.attempt + 1 < ATTEMPTS_MAX {
                    // Perhaps left by somebody who was killed: not ours, so another name.
                    file.attempt += 1;
                    file.state = State::Creating;
                    file.name_temporary()
                } else {
                    Err(file.refused(Operation::Create, status, message))
                }
            }
            (What::Step(Step::Look | Step::LookThrough), answer) => {
                file.on_looked(answer, overwrite)
            }
            (What::Step(Step::Fstat), answer) => {
                file.waiting = file.waiting.saturating_sub(1);
                match answer {
                    Answer::Attrs(Attrs {
                        size: Some(found), ..
                    }) if found != file.size => {
                        file.is_spoilt = true;
                        let (path, sent) = (file.path.clone(), file.size);
                        Err(TransferError::WrongSize { path, sent, found })
                    }
                    // Servers that do not tell sizes have to be believed.
                    _ => Ok(()),
                }
            }
            (What::Step(Step::SetAttrs), Answer::Status(status, _)) => {
                file.waiting = file.waiting.saturating_sub(1);
                if status != StatusCode::OK {
                    file.remarks.add(Remarkable::AttributesNotSet);
                }
                Ok(())
            }
            (What::Step(step @ (Step::Fsync | Step::Close)), Answer::Status(status, message)) => {
                file.waiting = file.waiting.saturating_sub(1);
                let operation = if step == Step::Fsync {
                    Operation::Sync
                } else {
                    Operation::Close
                };
                if status == StatusCode::OK {
                    Ok(())
                } else {
                    let error = file.refused(operation, status, message);
                    return self.doubt(key, error, 1, cx);
                }
            }
            (What::Step(step), Answer::Status(status, message)) => {
                return self.on_named(key, step, status, message, cx);
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.fail_file(key, error, cx);
        }
    }
}
