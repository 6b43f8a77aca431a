//! Reading what is on the server under a temporary name, and comparing it with the source: a part
//! that an earlier run left, before it is continued; a whole file, before it gets its name.
//!
//! A part has one of two names. Who finds it under one renames it to the other, which works for one
//! client only (draft-ietf-secsh-filexfer-02 §6.5: a rename of what is gone fails); version 3 has
//! no lock. What the server hashes itself (`check-file-name`,
//! draft-ietf-secsh-filexfer-extensions-00 §3) is not read.

use std::io::{IoSlice, IoSliceMut};

use ketch_protocol::{
    CheckFileName, CheckFileReply, Extension, ExtensionName, FileType, HashAlgorithm, Open,
    OpenFlags, Reader, RemotePath, Rename, Request, StatusCode, WireAttrs,
};

use super::{From, PutFile, State};
use crate::{
    platform,
    quirks::Quirk,
    requests::{
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step, What},
    },
    sftp::Operation,
    transfer::{
        chunk::Chunk,
        disk::Done,
        download::{self, Download},
        error::TransferError,
        local::{self, Hash, LocalAction, LocalFault},
        options::Resume,
        part::{self, is_same, tail_len},
        put::{Item, Put, Undo},
        ranges::Ranges,
        report::Remarkable,
    },
};

/// Names that a part may have.
const PART_NAMES: u8 = 2;

/// What is on the server, being compared.
pub(super) struct Probe {
    step: ProbeStep,
    purpose: Purpose,
    handle: Option<Box<[u8]>>,
    download: Option<Download>,
    ranges: Ranges,
    /// Bytes of a part that are believed if they are those of the source.
    believed: u64,
    differs: bool,
    /// Comparisons that threads make.
    comparing: usize,
    /// The server's hash.
    hash: Option<Hash>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    Part,
    Whole,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ProbeStep {
    /// Is there a part of this name?
    Look(u8),
    LookAsked(u8),
    /// It is to be had for ourselves.
    Take(u8),
    TakeAsked(u8),
    /// The server's checksum is to be asked for.
    Checksum,
    ChecksumAsked,
    /// The local one is being made.
    Hashing,
    /// It is to be opened for reading.
    Open,
    OpenAsked,
    Reading,
    /// It is to be opened for writing.
    Reopen,
    ReopenAsked,
}

impl Probe {
    fn new(step: ProbeStep, purpose: Purpose) -> Box<Self> {
        Box::new(Self {
            step,
            purpose,
            handle: None,
            download: None,
            ranges: Ranges::new(None),
            believed: 0,
            differs: false,
            comparing: 0,
            hash: None,
        })
    }

    /// Whether all that was to be compared was.
    fn is_done(&self) -> bool {
        let is_read = self.differs || self.ranges.left() == 0;
        let is_quiet = |download: &Download| {
            download.is_idle() && (self.differs || download.left_to_ask() == 0)
        };
        is_read && self.comparing == 0 && self.download.as_ref().is_none_or(is_quiet)
    }

    /// Looks for the part of the same name once more.
    pub(super) const fn look_again(&mut self) {
        if let ProbeStep::LookAsked(n) = self.step {
            self.step = ProbeStep::Look(n);
        }
    }

    /// The handle that it has open for reading.
    pub(super) fn into_handle(self) -> Option<Box<[u8]>> {
        self.handle
    }
}

impl PutFile {
    /// Whether a part of the file is looked for, and left if this fails: a plain file that is
    /// large enough for it, and a server that takes writes in the middle of what is there.
    pub(super) fn may_resume(&self, resume: Resume, cx: &Cx<'_>) -> bool {
        let quirks = cx.core.server.quirks;
        resume != Resume::No
            && self
                .opened
                .as_ref()
                .is_some_and(|opened| opened.size > tail_len())
            && !quirks.has(Quirk::InOrder)
            && !quirks.has(Quirk::NoExclusive)
            && !self.is_in_place
    }

    /// Whether what is on the server is of use for another run.
    pub(super) fn is_worth_keeping(&self) -> bool {
        let is_part = self.resumes && !self.is_spoilt && self.attempt < PART_NAMES;
        let sent = self.upload.as_ref().map_or(0, super::Upload::sent);
        is_part && (sent > tail_len() || self.probe.is_some())
    }

    fn compare(&mut self, offset: u64, run: &[IoSlice<'_>], key: Key, cx: &mut Cx<'_>) -> bool {
        let Some(probe) = &mut self.probe else {
            return false;
        };
        if let (From::File(_), Some(opened)) = (&self.from, &self.opened)
            && opened.speed.is_quick()
        {
            let mut at = offset;
            for piece in run {
                let read = |bytes: &mut [u8], at| {
                    platform::read_slots(
                        &opened.file,
                        &mut [IoSliceMut::new(bytes)],
                        at,
                        None,
                        false,
                    )
                };
                // What cannot be read any more is not the same.
                probe.differs |= !is_same(piece, at, read).unwrap_or(false);
                at = at.saturating_add(piece.len() as u64);
            }
            return false;
        }
        let mut bytes = Vec::new();
        run.iter().for_each(|piece| bytes.extend_from_slice(piece));
        probe.comparing += 1;
        let (from, opened) = (self.from.clone(), self.opened.clone());
        cx.core
            .disk
            .run_on_thread((cx.job, key), bytes.len(), move || {
                let is_same = match (&from, &opened) {
                    (From::Source(source, _), _) => {
                        is_same(&bytes, offset, |slot, at| source.read_at(at, slot))
                    }
                    (From::File(_), Some(opened)) => is_same(&bytes, offset, |slot, at| {
                        platform::read_slots(
                            &opened.file,
                            &mut [IoSliceMut::new(slot)],
                            at,
                            None,
                            false,
                        )
                    }),
                    (From::File(_), None) => Ok(false),
                };
                Done::Compared(is_same.unwrap_or(false))
            });
        true
    }
}

impl Put {
    /// Looks for a part that an earlier run left.
    pub(super) fn look_for_part(&mut self, key: Key, cx: &mut Cx<'_>) {
        if let Some(Item::File(file)) = self.items.get_mut(key) {
            file.probe = Some(Probe::new(ProbeStep::Look(0), Purpose::Part));
            file.state = State::Probing;
        }
        self.probe(key, cx);
    }

    /// Compares the whole file with its source, before it gets its name.
    pub(super) fn verify(&mut self, key: Key, cx: &mut Cx<'_>) {
        let extensions = cx.core.server.extensions;
        if let Some(Item::File(file)) = self.items.get_mut(key) {
            let is_file = matches!(file.from, From::File(_));
            let hashes = is_file && extensions.contains(ExtensionName::CheckFileName);
            let step = if hashes {
                ProbeStep::Checksum
            } else {
                ProbeStep::Open
            };
            file.is_verified = true;
            file.probe = Some(Probe::new(step, Purpose::Whole));
            file.state = State::Probing;
        }
        self.probe(key, cx);
    }

    /// Does what is next.
    pub(super) fn probe(&mut self, key: Key, cx: &mut Cx<'_>) {
        loop {
            let Some(Item::File(file)) = self.items.get_mut(key) else {
                return;
            };
            let Some(probe) = &file.probe else { return };
            let before = probe.step;
            match before {
                ProbeStep::Look(PART_NAMES) => {
                    // There is none.
                    file.probe = None;
                    file.has_looked = true;
                    file.attempt = 0;
                    file.state = State::Creating;
                    if let Err(error) = file.name_temporary() {
                        self.fail_file(key, error, cx);
                    }
                    return;
                }
                ProbeStep::Reading => {
                    self.read_probe(key, cx);
                    self.see_whether_compared(key, cx);
                }
                ProbeStep::Hashing => {}
                _ => self.ask_probe(key, cx),
            }
            match self.items.get_mut(key) {
                Some(Item::File(file))
                    if file
                        .probe
                        .as_ref()
                        .is_some_and(|probe| probe.step != before) => {}
                _ => return,
            }
        }
    }

    /// Sends the request of this step.
    fn ask_probe(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(probe) = &file.probe else { return };
        if !cx.can_ask() {
            return;
        }
        let attrs = WireAttrs::default();
        let path = file.temporary.as_bytes();
        let other: RemotePath;
        let (step, request, expect, next) = match probe.step {
            ProbeStep::Look(n) => {
                other = file.part_name(n);
                if cx.look(key, other.as_bytes()).is_ok()
                    && let Some(probe) = &mut file.probe
                {
                    probe.step = ProbeStep::LookAsked(n);
                }
                return;
            }
            ProbeStep::Take(n) => {
                other = file.part_name(n);
                let taken = file.part_name(1 - n);
                let request = Rename {
                    from: other.as_bytes(),
                    to: taken.as_bytes(),
                };
                let request = Request::Rename(request);
                if cx.ask(key, Step::Rename, &request, Expect::Status).is_ok()
                    && let Some(probe) = &mut file.probe
                {
                    probe.step = ProbeStep::TakeAsked(n);
                }
                return;
            }
            ProbeStep::Checksum => {
                let request = Extension::CheckFileName(CheckFileName {
                    path,
                    algorithms: HashAlgorithm::Sha256.as_str().as_bytes(),
                    offset: 0,
                    len: 0,
                    block_len: 0,
                });
                let request = Request::Extended(request);
                (
                    Step::Checksum,
                    request,
                    Expect::Extended,
                    ProbeStep::ChecksumAsked,
                )
            }
            ProbeStep::Open | ProbeStep::Reopen if !cx.core.may_open() => return,
            ProbeStep::Open | ProbeStep::Reopen => {
                let (flags, next) = match (probe.step, probe.differs) {
                    (ProbeStep::Open, _) => (OpenFlags::READ, ProbeStep::OpenAsked),
                    (_, false) => (OpenFlags::WRITE, ProbeStep::ReopenAsked),
                    (_, true) => (
                        OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE,
                        ProbeStep::ReopenAsked,
                    ),
                };
                let request = Request::Open(Open { path, flags, attrs });
                (Step::Open, request, Expect::Handle, next)
            }
            _ => return,
        };
        if cx.ask(key, step, &request, expect).is_ok()
            && let Some(probe) = &mut file.probe
        {
            probe.step = next;
        }
    }

    /// Takes what the server answered.
    pub(super) fn on_probe_answer(
        &mut self,
        key: Key,
        what: What,
        answer: Answer<'_>,
        cx: &mut Cx<'_>,
    ) {
        let resume = self.options.resume;
        let read_len = cx.core.read_len();
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let announced = file.announced().unwrap_or(0);
        let size = file.size;
        let Some(probe) = &mut file.probe else { return };
        match (probe.step, what, answer) {
            (ProbeStep::LookAsked(n), _, answer) => {
                probe.step = match answer {
                    // A link or a pipe is nobody's part.
                    Answer::Attrs(attrs) if attrs.file_type() == FileType::Regular => {
                        let len = attrs.size.unwrap_or(0);
                        let fits = len <= announced;
                        probe.believed = if fits { part::believed(len) } else { 0 };
                        ProbeStep::Take(n)
                    }
                    _ => ProbeStep::Look(n + 1),
                };
            }
            (ProbeStep::TakeAsked(n), _, Answer::Status(StatusCode::OK, _)) => {
                let believed = probe.believed;
                probe.differs = believed == 0;
                probe.step = if probe.differs {
                    ProbeStep::Reopen
                } else {
                    ProbeStep::Open
                };
                let checks = part::checks(resume, believed);
                probe.ranges = Ranges::resuming(Some(believed), believed, checks);
                probe.ranges.end_met(believed);
                probe.download = Some(Download::new(Some(believed), Chunk::new(read_len)));
                file.has_looked = true;
                file.created = true;
                file.attempt = 1 - n;
                file.temporary = file.part_name(1 - n);
            }
            // Somebody else was quicker.
            (ProbeStep::TakeAsked(n), ..) => probe.step = ProbeStep::Look(n + 1),
            (ProbeStep::ChecksumAsked, _, Answer::Extended(data)) => {
                let hash = CheckFileReply::decode(Reader::new(data))
                    .ok()
                    .and_then(|reply| reply.one(HashAlgorithm::Sha256))
                    .and_then(|hash| Hash::try_from(hash).ok());
                probe.hash = hash;
                let (Some(_), Some(opened)) = (hash, file.opened.clone()) else {
                    probe.step = ProbeStep::Open;
                    return;
                };
                probe.step = ProbeStep::Hashing;
                self.at_disk += 1;
                cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                    let fault = |source| LocalFault {
                        action: LocalAction::Read,
                        path: opened.path.clone(),
                        source,
                    };
                    Done::Hashed(local::hash_file(&opened.file).map_err(fault))
                });
            }
            (ProbeStep::ChecksumAsked, ..) => probe.step = ProbeStep::Open,
            (ProbeStep::OpenAsked, _, Answer::Handle(handle)) => {
                probe.handle = Some(handle.into());
                if probe.purpose == Purpose::Whole {
                    let checks = part::checks(Resume::Full, size);
                    probe.ranges = Ranges::resuming(Some(size), size, checks);
                    probe.ranges.end_met(size);
                    probe.download = Some(Download::new(Some(size), Chunk::new(read_len)));
                }
                probe.step = ProbeStep::Reading;
            }
            (ProbeStep::OpenAsked, _, Answer::Status(status, message)) => {
                if probe.purpose == Purpose::Part {
                    // What cannot be read cannot be continued.
                    probe.differs = true;
                    probe.step = ProbeStep::Reopen;
                    return;
                }
                let error = file.refused(Operation::Open, status, message);
                self.fail_file(key, error, cx);
            }
            (ProbeStep::Reading, What::Read(ask, _), answer) => {
                let Some(download) = &mut probe.download else {
                    return;
                };
                let result = match answer {
                    Answer::Data(got) => download.on_data(ask, got).is_ok(),
                    Answer::Status(StatusCode::EOF, _) => download.on_eof(ask).is_ok(),
                    _ => {
                        let _ = download.on_eof(ask);
                        false
                    }
                };
                probe.differs |= !result;
            }
            (ProbeStep::ReopenAsked, _, Answer::Handle(handle)) => {
                let from = if probe.differs { 0 } else { probe.believed };
                if probe.differs && probe.believed > 0 {
                    file.remarks.add(Remarkable::PartDiffered);
                }
                file.probe = None;
                file.resumed_at = from;
                file.handle = Some(handle.into());
                if let Err(error) = self.start_writing(key, cx) {
                    self.fail_file(key, error, cx);
                }
            }
            (ProbeStep::ReopenAsked, _, Answer::Status(status, message)) => {
                let error = file.refused(Operation::Create, status, message);
                self.fail_file(key, error, cx);
            }
            _ => {}
        }
    }

    /// Asks for bytes as long as the budget lasts.
    fn read_probe(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(probe) = &mut file.probe else { return };
        let (Some(handle), Some(download)) = (&probe.handle, &mut probe.download) else {
            return;
        };
        while !probe.differs && cx.can_ask() && cx.core.down.available() > 0 {
            match download.poll() {
                Ok(download::Step::Request(ask)) => {
                    if cx.read(key, handle, ask).is_err() {
                        download.on_unsent(ask);
                        return;
                    }
                }
                Ok(download::Step::Starved) => match probe.ranges.deal() {
                    Some(range) => download.deal(range),
                    None => return,
                },
                Ok(download::Step::Wait | download::Step::Done { .. }) => return,
                Err(_) => probe.differs = true,
            }
        }
    }

    /// When all was compared, what comes of it.
    fn see_whether_compared(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(probe) = &mut file.probe else { return };
        if !probe.is_done() {
            return;
        }
        if let Some(handle) = probe.handle.take() {
            self.undoing.push_back(Undo::Close(handle));
        }
        match (probe.purpose, probe.differs) {
            (Purpose::Part, _) => probe.step = ProbeStep::Reopen,
            (Purpose::Whole, false) => {
                file.probe = None;
                file.state = State::Naming;
            }
            (Purpose::Whole, true) => self.fail_as_different(key, cx),
        }
    }

    fn fail_as_different(&mut self, key: Key, cx: &mut Cx<'_>) {
        if let Some(Item::File(file)) = self.items.get_mut(key) {
            file.is_spoilt = true;
            let path = file.path.clone();
            self.fail_file(key, TransferError::Differs { path }, cx);
        }
    }

    /// Bytes of the server's came.
    pub(in crate::transfer::put) fn on_probe_run(
        &mut self,
        key: Key,
        offset: u64,
        run: &[IoSlice<'_>],
        cx: &mut Cx<'_>,
    ) {
        if let Some(Item::File(file)) = self.items.get_mut(key)
            && file.compare(offset, run, key, cx)
        {
            self.at_disk += 1;
        }
    }

    /// A thread has compared something.
    pub(super) fn on_compared(&mut self, key: Key, is_same: bool) {
        if let Some(Item::File(file)) = self.items.get_mut(key)
            && let Some(probe) = &mut file.probe
        {
            probe.comparing = probe.comparing.saturating_sub(1);
            probe.differs |= !is_same;
        }
    }

    /// The local checksum is here.
    pub(super) fn on_hashed(&mut self, key: Key, hash: Hash, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(Probe {
            step: ProbeStep::Hashing,
            hash: Some(theirs),
            ..
        }) = file.probe.as_deref()
        else {
            return;
        };
        if *theirs != hash {
            return self.fail_as_different(key, cx);
        }
        file.probe = None;
        file.state = State::Naming;
    }
}

impl PutFile {
    /// The temporary name of this number that a part may have.
    fn part_name(&self, n: u8) -> RemotePath {
        self.temporary_of(n)
            .unwrap_or_else(|| self.temporary.clone())
    }
}
