//! One file being uploaded: opened here, created there under a temporary name, written, closed,
//! renamed.
//!
//! Attributes, fsync, a look at the size and the close follow the last data without waiting; the
//! rename waits for the answers to all of them (draft-02 §3: requests about one file are carried
//! out in the order sent, but the rename names no handle).

use std::sync::Arc;

use ketch_protocol::{
    Attrs, Close, Extension, ExtensionName, FileType, Fsetstat, Fstat, Fsync, Lstat, Open,
    OpenFlags, RemotePath, Request, Stat, StatusCode, WireAttrs,
};

use super::{
    FileTask, Item, Put,
    joint::{Joint, Left},
};
use crate::{
    quirks::Quirk,
    requests::{
        calls::message_of,
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step, What},
    },
    sftp::Operation,
    transfer::{
        disk::Done,
        error::TransferError,
        local::{ATTEMPTS_MAX, Opened, SourceFile},
        names::{self, Identity},
        options::{Durability, Verify},
        part::Front,
        ranges::{RANGE_LEN_UP, Ranges, Span},
        report::Remarkable,
        sink::Source,
        upload::{self, Upload},
    },
};

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
/// A larger file is published, so that others may send ranges of it.
const JOINT_LEN_MIN: u64 = 2 * RANGE_LEN_UP as u64;

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
    hold: Hold,
    /// This channel has no share of it any more, and closes its handle.
    has_left: bool,
    /// A temporary file of an earlier connection, to be removed first.
    stale: Option<RemotePath>,
    upload: Option<Upload>,
    /// Data that a thread read.
    block: Option<Block>,
    /// Bytes that a thread is reading.
    reading: usize,
    /// Answers to wait for, those to writes not counted.
    waiting: u32,
    /// Something to know about it in the end.
    remark: Option<Remarkable>,
    size: u64,
    /// Whether holes need not be sent: there is nothing on the server where they are.
    leaves_holes: bool,
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
}

/// Whose the ranges of a file are.
enum Hold {
    /// This channel's alone.
    Alone(Ranges),
    /// The plan's.
    Joint(Arc<Joint>),
}

impl Hold {
    fn deal(&mut self) -> Option<Span> {
        match self {
            Self::Alone(ranges) => ranges.deal(),
            Self::Joint(joint) => joint.deal(),
        }
    }

    /// What was found out about the size.
    fn learn(&mut self, outgrown: bool, end: Option<u64>) {
        match self {
            Self::Joint(joint) => joint.learn(outgrown, end),
            Self::Alone(ranges) => {
                if outgrown {
                    ranges.outgrown();
                }
                if let Some(end) = end {
                    ranges.end_met(end);
                }
            }
        }
    }
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
            attempt: 0,
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
            upload: None,
            block: None,
            reading: 0,
            waiting: 0,
            remark: None,
            size: 0,
            leaves_holes: false,
            skipped: 0,
            resumes: false,
            has_looked: false,
            is_spoilt: false,
            resumed_at: 0,
            front: None,
            is_verified: false,
            probe: None,
        }
    }

    /// Bytes that are still to be sent, about.
    pub(super) fn left_to_send(&self) -> u64 {
        if let Hold::Joint(joint) = &self.hold {
            let dealt = self.upload.as_ref().map_or(0, Upload::left_to_send);
            return joint.left().saturating_add(u64::from(dealt));
        }
        match self.state {
            State::Purging | State::PurgingAsked | State::New | State::Opening => {
                SIZE_GUESS.min(self.announced().unwrap_or(SIZE_GUESS))
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

    /// Whether its last step may be done without anybody knowing.
    pub(super) const fn is_renaming(&self) -> bool {
        matches!(
            self.state,
            State::Renaming | State::RenamingAgain | State::ClearingAsked
        )
    }

    /// Bytes that the source says it has.
    fn announced(&self) -> Option<u64> {
        match (&self.from, &self.opened) {
            (From::Source(_, size), _) => *size,
            (From::File(_), opened) => opened.as_ref().map(|opened| opened.size),
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

    /// The next temporary name.
    fn name_temporary(&mut self) -> Result<(), TransferError> {
        let Some(temporary) = self.temporary_of(self.attempt) else {
            let file_type = FileType::Directory;
            return Err(TransferError::NotAFile {
                path: self.path.clone(),
                file_type,
            });
        };
        self.temporary = temporary;
        Ok(())
    }

    /// The temporary name of the try `attempt`; none if the path has no name.
    fn temporary_of(&self, attempt: u8) -> Option<RemotePath> {
        let (directory, name) = self.path.parent().zip(self.path.file_name())?;
        let source = Identity {
            size: self.announced(),
            modified: self
                .opened
                .as_ref()
                .map(|opened| u64::from(opened.times.mtime)),
        };
        let number = if self.resumes {
            names::attempt_at_part(attempt)
        } else {
            names::attempt(attempt)
        };
        let name = names::temporary(self.path.as_bytes(), name, source, number);
        // A name alone stays one: what `.` is need not be said.
        let alone = !self.path.as_bytes().contains(&b'/');
        Some(if alone {
            RemotePath::from(name)
        } else {
            directory.join(name)
        })
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

    fn open_source(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        file.state = State::Opening;
        let source = match &file.from {
            From::File(source) => source.clone(),
            From::Source(..) => {
                file.state = State::Opened;
                return;
            }
        };
        let shared = Arc::clone(&self.shared);
        let sparse = self.options.sparse;
        let open = move |source: &SourceFile| Done::Opened(source.open(&shared.speeds, sparse));
        let done = match &source {
            SourceFile::Found(tree, _) => {
                let (source, speed) = (source.clone(), Arc::clone(tree.speed()));
                cx.core
                    .disk
                    .run(&speed, (cx.job, key), move || open(&source))
            }
            SourceFile::Named(_) => {
                cx.core
                    .disk
                    .run_on_thread((cx.job, key), 0, move || open(&source));
                None
            }
        };
        match done {
            Some(done) => self.on_file_done(key, done, cx),
            None => self.at_disk += 1,
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

    /// Looks at what has the name before anything is sent: it may have to stay, and what takes its
    /// place gets its permissions, so that a file that was nobody else's to read stays so.
    fn look_first(&mut self, key: Key, cx: &mut Cx<'_>) {
        let (quirks, resume) = (cx.core.server.quirks, self.options.resume);
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if quirks.has(Quirk::NoExclusive) {
            file.attempt = names::ATTEMPT_BY_CHANCE;
        }
        file.resumes = file.may_resume(resume, cx);
        if let Err(error) = file.name_temporary() {
            return self.fail_file(key, error, cx);
        }
        let path = file.path.as_bytes();
        let request = if quirks.has(Quirk::NoLstat) {
            Request::Stat(Stat { path })
        } else {
            Request::Lstat(Lstat { path })
        };
        if cx.can_ask() && cx.ask(key, Step::Look, &request, Expect::Attrs).is_ok() {
            file.state = State::Looking;
        }
    }

    fn create(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let local = file.opened.as_ref().and_then(|opened| opened.mode);
        let mode = file.replaced_mode.or(local);
        // A name that chance made is nobody's, also where the server cannot see to that.
        let last = if cx.core.server.quirks.has(Quirk::NoExclusive) {
            OpenFlags::TRUNCATE
        } else {
            OpenFlags::EXCLUSIVE
        };
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | last;
        let request = Open {
            path: file.temporary.as_bytes(),
            flags,
            // Whoever uploads may write on, whatever the local file says.
            attrs: WireAttrs::from(Attrs {
                permissions: mode.map(|mode| mode & 0o777 | 0o600),
                ..Attrs::NONE
            }),
        };
        if cx.can_ask()
            && cx
                .ask(key, Step::Open, &Request::Open(request), Expect::Handle)
                .is_ok()
        {
            file.state = State::Asked;
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
        if file.is_joining() {
            return self.on_join_answer(key, what, answer, cx);
        }
        if file.state == State::Probing {
            return self.on_probe_answer(key, what, answer, cx);
        }
        let result = match (what, answer) {
            (What::Write { span, .. }, Answer::Status(status, message)) => {
                if status == StatusCode::OK {
                    self.plan.progress.add_bytes(u64::from(span.len));
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
                    Err(file.refused(Operation::Write, status, message))
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
            (What::Step(Step::Open), Answer::Status(status, message)) => {
                let taken = matches!(
                    status,
                    StatusCode::FAILURE | StatusCode::FILE_ALREADY_EXISTS
                );
                if taken && file.attempt + 1 < ATTEMPTS_MAX {
                    // Perhaps left by somebody who was killed: not ours, so another name.
                    file.attempt += 1;
                    file.state = State::Creating;
                    file.name_temporary()
                } else {
                    Err(file.refused(Operation::Create, status, message))
                }
            }
            (What::Step(Step::Look), answer) => file.on_looked(answer, overwrite),
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
                    file.remark.get_or_insert(Remarkable::AttributesNotSet);
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
                    Err(file.refused(operation, status, message))
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

    fn start_writing(&mut self, key: Key, cx: &mut Cx<'_>) -> Result<(), TransferError> {
        let durable = self.options.durability != Durability::None;
        if durable && !cx.core.server.extensions.contains(ExtensionName::Fsync) {
            let extension = ExtensionName::Fsync.as_str();
            return Err(TransferError::Unsupported {
                extension,
                purpose: "bring a file to its disk",
            });
        }
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return Ok(());
        };
        let handle_len = file.handle.as_ref().map_or(0, |handle| handle.len());
        let chunk = cx.core.write_len(handle_len, cx.link);
        let announced = file.announced();
        file.leaves_holes = !cx.core.server.quirks.has(Quirk::InOrder);
        file.upload = Some(Upload::new(announced, chunk));
        file.state = State::Writing;
        if matches!(file.hold, Hold::Joint(_)) {
            return Ok(());
        }
        if file.resumes {
            let from = file.resumed_at;
            // What an earlier run sent behind that is written over, holes and all.
            file.leaves_holes &= from == 0;
            file.hold = Hold::Alone(Ranges::resuming(announced, from, Vec::new()));
            file.front = Some(Front::new(from));
            self.plan.progress.add_bytes(from);
            return Ok(());
        }
        let ranges = Ranges::of(announced, RANGE_LEN_UP);
        if announced.is_none_or(|size| size <= JOINT_LEN_MIN) {
            file.hold = Hold::Alone(ranges);
            return Ok(());
        }
        let source = (file.from.clone(), file.opened.clone());
        let (path, temporary) = (file.path.clone(), file.temporary.clone());
        let stripes = cx.core.server.quirks.may_stripe_writes();
        let joint = Arc::new(Joint::new(source, path, temporary, ranges, stripes));
        file.hold = Hold::Joint(Arc::clone(&joint));
        if let Some(rtt) = cx.core.up.min_rtt() {
            self.plan.on_round_trip(rtt, true);
        }
        self.plan.add_joint(&joint);
        Ok(())
    }

    /// When all data is sent, what follows it goes out at once.
    fn see_whether_sent(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(upload) = &mut file.upload else {
            return;
        };
        let end = match &file.hold {
            Hold::Joint(joint) if joint.is_over() => {
                // Somebody else failed, and said so.
                if let Some(Item::File(file)) = self.items.remove(key) {
                    self.files -= 1;
                    self.discard(key, *file, cx);
                }
                return;
            }
            Hold::Joint(_) if !upload.is_sent() => return,
            Hold::Joint(joint) => match joint.leave_done(upload.is_quiet()) {
                None | Some(Left::Orphan) => return,
                Some(Left::Others) => {
                    file.has_left = true;
                    file.block = None;
                    file.state = State::Leaving;
                    return;
                }
                Some(Left::Last { end }) => {
                    upload.end_at(end);
                    end
                }
            },
            Hold::Alone(_) => match (upload.poll(), upload.end()) {
                (upload::Step::Sent | upload::Step::Done { .. }, Some(end)) => end,
                _ => return,
            },
        };
        file.size = end;
        file.block = None;
        file.state = State::SettingOwner;
    }

    /// Sends attributes, fsync, a look at the size, and the close, as far as they are wanted.
    fn send_what_follows(&mut self, key: Key, cx: &mut Cx<'_>) {
        let (preserve, durability) = (self.options.preserve, self.options.durability);
        let sets_attrs = !cx.core.server.quirks.has(Quirk::NoSetAttrs);
        let looks = !cx.core.server.quirks.has(Quirk::GoneAfterClose);
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(handle) = file.handle.as_deref() else {
            return;
        };
        let opened = file.opened.as_ref();
        let permissions = opened.and_then(|opened| opened.mode);
        let owner = Attrs {
            owner: opened
                .and_then(|opened| opened.owner)
                .filter(|_| preserve.owner),
            ..Attrs::NONE
        };
        let attrs = Attrs {
            times: opened.map(|opened| opened.times).filter(|_| preserve.times),
            // Whether the file may be written to: known to the server when all is written.
            permissions: permissions
                .filter(|_| preserve.permissions)
                .map(|mode| mode & 0o777),
            ..Attrs::NONE
        };
        let wanted = matches!(file.state, State::SettingOwner | State::SettingAttrs);
        if wanted && !sets_attrs && (owner != Attrs::NONE || attrs != Attrs::NONE) {
            file.remark.get_or_insert(Remarkable::AttributesNotSet);
        }
        let set = |attrs: Attrs| {
            (sets_attrs && attrs != Attrs::NONE).then(|| {
                let attrs = attrs.into();
                Request::Fsetstat(Fsetstat { handle, attrs })
            })
        };
        let (step, request, expect, next) = match file.state {
            // The owner first: to give a file away takes bits from its permissions.
            State::SettingOwner => (
                Step::SetAttrs,
                set(owner),
                Expect::Status,
                State::SettingAttrs,
            ),
            State::SettingAttrs => (Step::SetAttrs, set(attrs), Expect::Status, State::Syncing),
            State::Syncing => (
                Step::Fsync,
                (durability != Durability::None)
                    .then_some(Request::Extended(Extension::Fsync(Fsync { handle }))),
                Expect::Status,
                State::Measuring,
            ),
            State::Measuring => (
                Step::Fstat,
                looks.then_some(Request::Fstat(Fstat { handle })),
                Expect::Attrs,
                State::Closing,
            ),
            _ => (
                Step::Close,
                Some(Request::Close(Close { handle })),
                Expect::Status,
                State::Settling,
            ),
        };
        if let Some(request) = request {
            if !cx.can_ask() || cx.ask(key, step, &request, expect).is_err() {
                return;
            }
            file.waiting += 1;
        }
        file.state = next;
        if next == State::Settling {
            file.handle = None;
        }
    }

    fn see_whether_settled(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let written = file.upload.as_ref().map(Upload::poll);
        let is_closing = matches!(&file.hold, Hold::Joint(joint) if joint.is_closing());
        let is_written = matches!(written, Some(upload::Step::Done { .. }));
        if file.waiting == 0 && is_written && !is_closing {
            let wants = self.options.verify == Verify::Checksum && file.size > 0;
            if wants && !file.is_verified {
                return self.verify(key, cx);
            }
            file.state = State::Naming;
        }
    }
}
