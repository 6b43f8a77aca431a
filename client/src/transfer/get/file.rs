//! One file being downloaded: asked for, created here, read, named.

use std::sync::Arc;

use ketch_protocol::{
    Attrs, FileType, Fstat, Lstat, Open, OpenFlags, RemotePath, Request, Stat, StatusCode,
    WireAttrs,
};

use super::{
    FileTask, Get, Item, Known, Local, is_left_out,
    joint::{Joint, Left},
    may_ask,
};
use crate::{
    quirks::Quirk,
    requests::{
        calls::message_of,
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step as Asked, What},
    },
    sftp::Operation,
    transfer::{
        disk::Done,
        download::{Download, ReadFault, Step},
        error::{Place, TransferError},
        local::{Created, Hash, Tree},
        part::Front,
        ranges::{RANGE_LEN, Ranges, Span},
        report::Remarkable,
        sink::Sink,
    },
};

mod checking;
mod giving_back;
mod writing;

/// Permissions of a file of which the server says none, before the umask.
const MODE_DEFAULT: u32 = 0o666;
/// What a file of unknown size counts as, among the bytes that are to be asked for.
const SIZE_GUESS: u64 = 64 * 1024;
/// The least that a file counts as: opening and closing cost something too.
const SIZE_MIN: u64 = 4 * 1024;
/// A larger file is published, so that others may read ranges of it.
const JOINT_LEN_MIN: u64 = RANGE_LEN as u64;

/// One file being downloaded.
pub(super) struct GetFile {
    pub path: RemotePath,
    known: Known,
    local: Local,
    depth: u8,
    pub state: State,
    pub handle: Option<Box<[u8]>>,
    attrs: Option<Attrs>,
    pub target: Option<Target>,
    hold: Hold,
    download: Option<Download>,
    /// Bytes asked for so far.
    asked: u64,
    /// What is on its way to the disk.
    writing: Vec<Span>,
    /// Bytes of it that were counted as come.
    came: u64,
    /// The size that was counted into the total when it was looked at.
    counted: Option<u64>,
    /// Up to where it has come, of a file that is to be continued if this fails.
    front: Option<Front>,
    /// How often its content was seen to be what the server has.
    check: Check,
    /// Where it ended before the size that the server tells, when it was read first.
    short: Option<u64>,
    /// Something to know about it in the end.
    remark: Option<Remarkable>,
}

/// How far the last check of a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Check {
    /// Not begun, or not wanted.
    Due,
    /// The server's checksum is here.
    Hash(Hash),
    /// All is read a second time, and compared.
    Again,
    /// It is the same.
    Passed,
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
}

/// How far a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Nothing was asked yet.
    New,
    /// The server was asked what it is, or to open it, or both.
    Asked {
        stat: bool,
        open: bool,
    },
    /// It is what it should be, and can be opened.
    Known,
    /// The handle is here: the local file can be created.
    Opened,
    /// The local file is being created.
    Creating,
    /// Others have begun it: it is to be opened here as well.
    Joining,
    JoiningAsked,
    /// It is to be seen whether that is still the same file.
    Matching,
    MatchingAsked,
    /// The server does not open it again, or has another file now.
    Refused,
    /// All of it is here, and who was naming it is gone.
    Whole {
        size: u64,
    },
    /// Bytes flow.
    Reading,
    /// It ended early: is it still what it was?
    LookingAgain,
    LookingAgainAsked,
    /// All is here; the server is to be asked for its checksum.
    Checking {
        size: u64,
    },
    CheckingAsked {
        size: u64,
    },
    /// The local checksum is being made.
    Hashing {
        size: u64,
    },
    /// All is here; the file is being given its name.
    Naming {
        size: u64,
    },
}

/// Where the bytes go.
#[derive(Clone)]
pub(super) enum Target {
    File(Arc<Created>, Arc<Tree>),
    Sink(Arc<dyn Sink>),
}

impl GetFile {
    pub(super) fn new(task: FileTask) -> Self {
        let attrs = match task.known {
            Known::Attrs(attrs) => Some(attrs),
            Known::Nothing | Known::Listed => None,
        };
        let ranges = Ranges::new(attrs.and_then(|attrs| attrs.size));
        Self {
            path: task.path,
            known: task.known,
            local: task.local,
            depth: task.depth,
            state: State::New,
            handle: None,
            attrs,
            target: None,
            hold: Hold::Alone(ranges),
            download: None,
            asked: 0,
            writing: Vec::new(),
            came: 0,
            counted: None,
            front: None,
            check: Check::Due,
            short: None,
            remark: None,
        }
    }

    /// A file that was begun by somebody else; a hand of it was taken.
    pub(super) fn join(joint: Arc<Joint>) -> Self {
        let state = match joint.whole() {
            Some(size) => State::Whole { size },
            None => State::Joining,
        };
        Self {
            path: joint.path.clone(),
            known: Known::Attrs(joint.attrs),
            local: joint.local(),
            depth: joint.depth,
            state,
            handle: None,
            attrs: Some(joint.attrs),
            target: Some(joint.target()),
            hold: Hold::Joint(joint),
            download: None,
            asked: 0,
            writing: Vec::new(),
            came: 0,
            counted: None,
            front: None,
            check: Check::Due,
            short: None,
            remark: None,
        }
    }

    /// The file as others know it, if they do.
    pub(super) const fn joint(&self) -> Option<&Arc<Joint>> {
        match &self.hold {
            Hold::Joint(joint) => Some(joint),
            Hold::Alone(_) => None,
        }
    }

    /// Bytes that were asked for.
    pub(super) const fn has_asked(&self) -> u64 {
        self.asked
    }

    /// Bytes that are still to be asked for, about.
    pub(super) fn left_to_ask(&self) -> u64 {
        if matches!(
            self.state,
            State::Naming { .. }
                | State::Whole { .. }
                | State::Checking { .. }
                | State::CheckingAsked { .. }
                | State::Hashing { .. }
        ) {
            return 0;
        }
        if let Hold::Joint(joint) = &self.hold {
            let dealt = self.download.as_ref().map_or(0, Download::left_to_ask);
            return dealt.saturating_add(joint.left());
        }
        let size = self.size().map_or(SIZE_GUESS, |size| size.max(SIZE_MIN));
        size.saturating_sub(self.asked)
    }

    fn size(&self) -> Option<u64> {
        self.attrs.and_then(|attrs| attrs.size)
    }

    fn refused(&self, operation: Operation, status: StatusCode, message: &[u8]) -> TransferError {
        TransferError::Refused {
            operation,
            path: self.path.clone(),
            status,
            message: message_of(message),
        }
    }

    fn misread(&self, source: ReadFault) -> TransferError {
        TransferError::Read {
            path: self.path.clone(),
            source,
        }
    }

    /// Takes what the server answered.
    pub(super) fn on_answer(
        &mut self,
        what: What,
        answer: Answer<'_>,
    ) -> Result<(), TransferError> {
        match (what, answer) {
            (What::Read(ask, _), answer) => {
                let Some(download) = &mut self.download else {
                    return Ok(());
                };
                let result = match answer {
                    Answer::Data(got) => download.on_data(ask, got),
                    Answer::Status(StatusCode::EOF, _) => download.on_eof(ask),
                    Answer::Status(status, message) => {
                        return Err(self.refused(Operation::Read, status, message));
                    }
                    _ => Ok(()),
                };
                match result {
                    Err(ReadFault::Truncated { got, .. }) if self.may_be_short(got) => {}
                    Err(fault) => return Err(self.misread(fault)),
                    Ok(()) => self.learn_size(),
                }
            }
            (What::Step(Asked::Stat), answer) => {
                let State::Asked { open, .. } = self.state else {
                    return Ok(());
                };
                self.state = State::Asked { stat: false, open };
                match answer {
                    Answer::Attrs(attrs) => self.attrs = Some(attrs),
                    // Some servers let a file be read and not looked at.
                    Answer::Status(..) if open || self.handle.is_some() => {}
                    Answer::Status(status, message) => {
                        return Err(self.refused(Operation::Stat, status, message));
                    }
                    _ => {}
                }
            }
            (What::Step(Asked::Open), Answer::Handle(handle))
                if self.state == State::JoiningAsked =>
            {
                self.handle = Some(handle.into());
                self.state = State::Matching;
            }
            (What::Step(Asked::Fstat), Answer::Attrs(attrs))
                if self.state == State::MatchingAsked
                    && self.attrs.is_some_and(|known| is_same(&known, &attrs)) =>
            {
                self.state = State::Opened;
            }
            (What::Step(Asked::Fstat), answer) if self.state == State::LookingAgainAsked => {
                self.on_looked_again(answer)?;
            }
            (What::Step(Asked::Checksum), answer) => self.on_checksum(answer),
            (What::Step(Asked::Open | Asked::Fstat), _)
                if matches!(self.state, State::JoiningAsked | State::MatchingAsked) =>
            {
                self.state = State::Refused;
            }
            (What::Step(Asked::Open), answer) => {
                let State::Asked { stat, .. } = self.state else {
                    return Ok(());
                };
                self.state = State::Asked { stat, open: false };
                match answer {
                    Answer::Handle(handle) => self.handle = Some(handle.into()),
                    Answer::Status(status, message) => {
                        return Err(self.refused(Operation::Open, status, message));
                    }
                    _ => {}
                }
            }
            (What::Step(_) | What::ReadDir { .. } | What::Write { .. }, _) => {}
        }
        Ok(())
    }

    /// Lets the ranges know what the download found out about the size.
    fn learn_size(&mut self) {
        let Some(download) = &self.download else {
            return;
        };
        let outgrown = self.size().is_some_and(|size| download.has_outgrown(size));
        let end = download.end();
        if !outgrown && end.is_none() {
            return;
        }
        match &mut self.hold {
            Hold::Joint(joint) => joint.learn(outgrown, end),
            Hold::Alone(ranges) => {
                if outgrown {
                    ranges.outgrown();
                }
                if let Some(end) = end {
                    ranges.end_met(end);
                }
            }
        }
    }

    /// Sends the next READ, if one is wanted, and says whether it did.
    pub(super) fn next_read(&mut self, cx: &mut Cx<'_>, key: Key) -> Result<bool, TransferError> {
        if self.state != State::Reading {
            return Ok(false);
        }
        if !may_ask(self.target.as_ref(), cx, cx.core.read_len() as usize) {
            return Ok(false);
        }
        if !self.is_part_good()? {
            return Ok(false);
        }
        let (Some(handle), Some(_)) = (&self.handle, &self.download) else {
            return Ok(false);
        };
        loop {
            let Some(download) = &mut self.download else {
                return Ok(false);
            };
            match download.poll() {
                Ok(Step::Request(ask)) => {
                    let front = self.front.as_ref();
                    if front.is_some_and(|front| !front.admits(ask.span.end())) {
                        download.on_unsent(ask);
                        return Ok(false);
                    }
                    if cx.read(key, handle, ask).is_err() {
                        download.on_unsent(ask);
                        return Ok(false);
                    }
                    self.asked = self.asked.saturating_add(u64::from(ask.span.len));
                    return Ok(true);
                }
                Ok(Step::Starved) => {
                    let Some(range) = self.hold.deal() else {
                        return Ok(false);
                    };
                    download.deal(range);
                }
                Ok(Step::Wait | Step::Done { .. }) => return Ok(false),
                Err(fault) => return Err(self.misread(fault)),
            }
        }
    }
}

impl Get {
    /// Moves a file on as far as it goes without reading.
    pub(super) fn advance_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        loop {
            let Some(Item::File(file)) = self.items.get_mut(key) else {
                return;
            };
            let before = file.state;
            match file.state {
                State::New => self.ask_file(key, cx),
                State::Asked {
                    stat: false,
                    open: false,
                } => self.look_at_file(key, cx),
                State::Known => self.open_file(key, cx),
                State::Opened => self.create_file(key, cx),
                State::Reading => self.finish_file(key, cx),
                State::Joining | State::Matching => self.join_file(key, cx),
                State::Refused => self.leave_file(key, cx),
                State::LookingAgain => self.look_again(key, cx),
                State::Checking { size } => self.ask_for_checksum(key, size, cx),
                State::Whole { size } => self.name_file(key, size, cx),
                State::Asked { .. }
                | State::Creating
                | State::JoiningAsked
                | State::MatchingAsked
                | State::LookingAgainAsked
                | State::CheckingAsked { .. }
                | State::Hashing { .. }
                | State::Naming { .. } => {}
            }
            match self.items.get_mut(key) {
                Some(Item::File(file)) if file.state != before => {}
                _ => return,
            }
        }
    }

    /// Asks what the file is, and has it opened in the same breath where that does no harm.
    fn ask_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let recursive = self.options.recursive;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if !cx.can_ask() {
            return;
        }
        let path = file.path.as_bytes();
        let request = match file.known {
            Known::Attrs(_) => {
                file.state = State::Known;
                return;
            }
            Known::Nothing => Request::Stat(Stat { path }),
            Known::Listed if cx.core.server.quirks.has(Quirk::NoLstat) => {
                Request::Stat(Stat { path })
            }
            Known::Listed => Request::Lstat(Lstat { path }),
        };
        if cx.ask(key, Asked::Stat, &request, Expect::Attrs).is_err() {
            return;
        }
        let open = !recursive
            && cx
                .ask(key, Asked::Open, &open_request(path), Expect::Handle)
                .is_ok();
        file.state = State::Asked { stat: true, open };
    }

    /// Decides what to do with what the server said the file is.
    fn look_at_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let file_type = file
            .attrs
            .map_or(FileType::Unknown, |attrs| attrs.file_type());
        if file_type == FileType::Directory && self.options.recursive {
            self.turn_into_dir(key, cx);
            return;
        }
        if is_left_out(file_type) && matches!(file.known, Known::Listed) {
            let place = Place::Remote(file.path.clone());
            self.plan.report(|report| report.skip(place, file_type));
            self.items.remove(key);
            self.files -= 1;
            return;
        }
        if file_type == FileType::Directory || is_left_out(file_type) {
            let error = TransferError::NotAFile {
                path: file.path.clone(),
                file_type,
            };
            self.fail_file(key, error, cx);
            return;
        }
        let size = file.size();
        if !matches!(file.known, Known::Attrs(_)) {
            file.hold = Hold::Alone(Ranges::new(size));
            file.counted = Some(size.unwrap_or(0));
            self.plan.progress.correct_total(0, size.unwrap_or(0));
        }
        file.state = if file.handle.is_some() {
            State::Opened
        } else {
            State::Known
        };
        if self.options.recursive && matches!(file.local, Local::Named(_)) {
            // A plain file after all: its directory is still to be opened.
            let Local::Named(path) = &file.local else {
                return;
            };
            let (path, shared) = (path.clone(), Arc::clone(&self.shared));
            self.at_disk += 1;
            cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                let parent = path.parent().unwrap_or(&path);
                Done::Rooted(Tree::open_root(parent, &shared.speeds))
            });
        }
    }

    fn open_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if cx.can_ask()
            && cx
                .ask(
                    key,
                    Asked::Open,
                    &open_request(file.path.as_bytes()),
                    Expect::Handle,
                )
                .is_ok()
        {
            file.known = Known::Attrs(file.attrs.unwrap_or_default());
            file.state = State::Asked {
                stat: false,
                open: true,
            };
        }
    }

    /// Opens a file that others have begun, and looks whether it is the one that they read.
    fn join_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if !cx.can_ask() {
            return;
        }
        match &file.handle {
            None => {
                let request = open_request(file.path.as_bytes());
                if cx.ask(key, Asked::Open, &request, Expect::Handle).is_ok() {
                    file.state = State::JoiningAsked;
                }
            }
            Some(handle) => {
                let request = Request::Fstat(Fstat { handle });
                if cx.ask(key, Asked::Fstat, &request, Expect::Attrs).is_ok() {
                    file.state = State::MatchingAsked;
                }
            }
        }
    }

    /// Leaves a file to those who have it; where nobody has, it is begun anew.
    fn leave_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        if let Some(joint) = file.joint() {
            if joint.is_over() {
                return self.discard(key, *file, cx);
            }
            joint.stay_alone();
            // What it leaves is for nobody: the file is begun anew, or others have it.
            if joint.leave([], 0) == Left::Orphan && joint.end() {
                self.plan.remove_joint(joint);
                self.plan.progress.take_back(joint.came());
                self.begin_anew(&file);
            }
        }
        self.discard_left(key, *file, cx);
    }

    /// What was thought a file is a directory.
    fn turn_into_dir(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        self.plan.progress.forget_file();
        self.found_dir(file.path, file.local, file.depth, cx);
    }
}

fn open_request(path: &[u8]) -> Request<'_> {
    Request::Open(Open {
        path,
        flags: OpenFlags::READ,
        attrs: WireAttrs::default(),
    })
}

/// Whether that is the same version of a file, as far as the server tells.
fn is_same(known: &Attrs, now: &Attrs) -> bool {
    let mtime = |attrs: &Attrs| attrs.times.map(|times| times.mtime);
    known.size == now.size && mtime(known) == mtime(now)
}

/// Whether a file is such that others may read parts of it: large, and to be recognized.
fn is_for_several(attrs: &Attrs) -> bool {
    attrs.size.is_some_and(|size| size > JOINT_LEN_MIN) && attrs.times.is_some()
}
