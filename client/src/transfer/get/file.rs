//! One file being downloaded: asked for, created here, read, named.

use std::sync::{Arc, Mutex, PoisonError};

use ketch_protocol::{
    Attrs, FileType, Lstat, Open, OpenFlags, RemotePath, Request, Stat, StatusCode, WireAttrs,
};

use super::{FileTask, Get, Item, Known, Local, is_left_out, may_ask};
use crate::{
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
        local::{Created, Tree},
        ranges::Ranges,
        sink::Sink,
    },
};

mod writing;

/// Permissions of a file of which the server says none, before the umask.
const MODE_DEFAULT: u32 = 0o666;
/// What a file of unknown size counts as, among the bytes that are to be asked for.
const SIZE_GUESS: u64 = 64 * 1024;
/// The least that a file counts as: opening and closing cost something too.
const SIZE_MIN: u64 = 4 * 1024;

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
    /// The ranges of the file: the plan's, not this channel's.
    ranges: Arc<Mutex<Ranges>>,
    download: Option<Download>,
    /// Bytes asked for so far.
    asked: u64,
    /// Bytes that are on their way to the disk.
    unwritten: usize,
}

/// How far a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Nothing was asked yet.
    New,
    /// The server was asked what it is, or to open it, or both.
    Asked { stat: bool, open: bool },
    /// It is what it should be, and can be opened.
    Known,
    /// The handle is here: the local file can be created.
    Opened,
    /// The local file is being created.
    Creating,
    /// Bytes flow.
    Reading,
    /// All is here; the file is being given its name.
    Naming { size: u64 },
}

/// Where the bytes go.
pub(super) enum Target {
    File(Arc<Created>, Arc<Tree>),
    Sink(Arc<dyn Sink>),
}

impl Target {
    /// Leaves no trace of a file that is not whole.
    pub(super) fn remove(self) {
        match self {
            Self::File(created, _) => drop(created),
            Self::Sink(sink) => sink.abort(),
        }
    }
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
            ranges: Arc::new(Mutex::new(ranges)),
            download: None,
            asked: 0,
            unwritten: 0,
        }
    }

    /// Bytes that are still to be asked for, about.
    pub(super) fn left_to_ask(&self) -> u64 {
        if matches!(self.state, State::Naming { .. }) {
            return 0;
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
                match answer {
                    Answer::Data(got) => download.on_data(ask, got),
                    Answer::Status(StatusCode::EOF, _) => download.on_eof(ask),
                    Answer::Status(status, message) => {
                        return Err(self.refused(Operation::Read, status, message));
                    }
                    _ => Ok(()),
                }
                .map_err(|fault| self.misread(fault))?;
                self.learn_size();
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
        if outgrown || download.end().is_some() {
            let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
            if outgrown {
                ranges.outgrown();
            }
            if let Some(end) = download.end() {
                ranges.end_met(end);
            }
        }
    }

    /// Sends the next READ, if one is wanted, and says whether it did.
    pub(super) fn next_read(&mut self, cx: &mut Cx<'_>, key: Key) -> Result<bool, TransferError> {
        if self.state != State::Reading {
            return Ok(false);
        }
        let (Some(handle), Some(_)) = (&self.handle, &self.download) else {
            return Ok(false);
        };
        if !may_ask(self.target.as_ref(), cx, cx.core.read_len() as usize) {
            return Ok(false);
        }
        loop {
            let Some(download) = &mut self.download else {
                return Ok(false);
            };
            match download.poll() {
                Ok(Step::Request(ask)) => {
                    if cx.read(key, handle, ask).is_err() {
                        download.on_unsent(ask);
                        return Ok(false);
                    }
                    self.asked = self.asked.saturating_add(u64::from(ask.span.len));
                    return Ok(true);
                }
                Ok(Step::Starved) => {
                    let Some(range) = self
                        .ranges
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .deal()
                    else {
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
                State::Asked { .. } | State::Creating | State::Naming { .. } => {}
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
            *file.ranges.lock().unwrap_or_else(PoisonError::into_inner) = Ranges::new(size);
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
