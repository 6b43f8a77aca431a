//! One file being downloaded: asked for, created here, read, named.

use std::sync::Arc;

use ketch_protocol::{Attrs, RemotePath, StatusCode};

use self::opening::is_same;
use super::{FileTask, Get, Item, Known, Local, joint::Joint, may_ask};
use crate::{
    progress::Progress,
    requests::{
        calls::message_of,
        job::{Answer, Cx},
        slots::Key,
        table::{Step as Asked, What},
    },
    sftp::Operation,
    transfer::{
        download::{Download, ReadFault, Step},
        error::TransferError,
        hands::Hold,
        local::{Created, Hash, Tree},
        part::Front,
        ranges::{Ranges, Span},
        report::Remarks,
        sink::Fed,
    },
};

mod checking;
mod giving_back;
mod opening;
mod writing;

/// What a file of unknown size counts as, among the bytes that are to be asked for.
const SIZE_GUESS: u64 = 64 * 1024;
/// The least that a file counts as: opening and closing cost something too.
const SIZE_MIN: u64 = 4 * 1024;

/// One file being downloaded.
pub(super) struct GetFile {
    pub path: RemotePath,
    pub known: Known,
    pub local: Local,
    depth: u8,
    pub state: State,
    pub handle: Option<Box<[u8]>>,
    pub attrs: Option<Attrs>,
    pub target: Option<Target>,
    hold: Hold<Joint>,
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
    remarks: Remarks,
    /// It was refused while another file was open, and is opened once more.
    has_waited: bool,
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
    Sink(Arc<Fed>),
}

impl GetFile {
    pub(super) fn new(task: FileTask) -> Self {
        let attrs = match task.known {
            Known::Attrs(attrs) => Some(attrs),
            Known::Nothing | Known::Listed | Known::Linked => None,
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
            remarks: Remarks::default(),
            has_waited: false,
        }
    }

    /// A file that was begun by somebody else; a hand of it was taken.
    pub(super) fn join(joint: Arc<Joint>) -> Self {
        let state = match joint.hands.whole() {
            Some(size) => State::Whole { size },
            None => State::Joining,
        };
        let mut file = Self::new(FileTask {
            path: joint.path.clone(),
            known: Known::Attrs(joint.attrs),
            local: joint.local(),
            depth: joint.depth,
        });
        file.state = state;
        file.target = Some(joint.target.clone());
        file.hold = Hold::Joint(joint);
        file
    }

    /// The file as others know it, if they do.
    pub(super) const fn joint(&self) -> Option<&Arc<Joint>> {
        self.hold.joint()
    }

    /// It turned out to be a link: what it leads to is meant.
    pub(super) fn look_behind(&mut self) {
        self.known = Known::Linked;
        self.attrs = None;
        self.state = State::New;
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
            return dealt.saturating_add(joint.hands.left());
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

    /// The server has no `LSTAT`: it is asked again, unless the file is being opened as it is.
    pub(super) fn on_no_lstat(&mut self) {
        if let State::Asked { open, .. } = self.state {
            self.state = if open {
                State::Asked { stat: false, open }
            } else {
                State::New
            };
        }
    }

    /// Whether a refusal to open it may be for another file that is open.
    pub(super) const fn may_wait_to_open(&self) -> bool {
        !self.has_waited && matches!(self.state, State::Asked { .. })
    }

    /// It will be opened when no other file is.
    pub(super) const fn wait_to_open(&mut self) {
        self.has_waited = true;
        if let State::Asked { stat, .. } = self.state {
            self.state = State::Asked { stat, open: false };
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
            (What::Step(Asked::Stat | Asked::Look | Asked::LookThrough), answer) => {
                let State::Asked { open, .. } = self.state else {
                    return Ok(());
                };
                self.state = State::Asked { stat: false, open };
                match answer {
                    Answer::Attrs(attrs) => self.attrs = Some(attrs),
                    // Some servers let a file be read and not looked at.
                    Answer::Status(..) if open || self.handle.is_some() => {}
                    // A link that leads nowhere, or round and round.
                    Answer::Status(StatusCode::NO_SUCH_FILE, _)
                        if matches!(self.known, Known::Linked) => {}
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
        self.hold.learn(outgrown, end);
    }

    /// Sends the next READ, if one is wanted, and says whether it did.
    pub(super) fn next_read(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        progress: &Progress,
    ) -> Result<bool, TransferError> {
        if self.state != State::Reading {
            return Ok(false);
        }
        let read_len = cx.core.read_len();
        if !may_ask(self.target.as_ref(), cx, read_len as usize) {
            return Ok(false);
        }
        if !self.is_part_good(progress)? {
            return Ok(false);
        }
        let (Some(handle), Some(download)) = (&self.handle, &mut self.download) else {
            return Ok(false);
        };
        download.allow(read_len);
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
                Ok(Step::Starved | Step::Done { .. }) => {
                    let Some(range) = self.hold.deal() else {
                        return Ok(false);
                    };
                    download.deal(range);
                }
                Ok(Step::Wait) => return Ok(false),
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
}
