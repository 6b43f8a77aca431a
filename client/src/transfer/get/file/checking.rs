//! Whether what is here is what the server has: parts of earlier runs before they are continued,
//! files that end early, whole files before they get their name.
//!
//! What is compared is read like all else, and compared where it would be written
//! (`local.rs`). A server's own checksum (draft-ietf-secsh-filexfer-extensions-00 §3) saves the
//! second reading of a whole file.

use ketch_protocol::{
    CheckFileHandle, CheckFileReply, Extension, ExtensionName, Fstat, HashAlgorithm, Reader,
    Request,
};

use super::{Check, GetFile, State, Target, opening::is_same};
use crate::{
    progress::Progress,
    requests::{
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step as Asked},
    },
    transfer::{
        disk::Done,
        download::{Download, ReadFault},
        error::TransferError,
        get::{Get, Item},
        hands::Hold,
        local::{Hash, LocalAction},
        options::Verify,
        part::Front,
        ranges::Ranges,
        report::Remarkable,
    },
};

impl GetFile {
    /// Whether more may be asked for. A part that turned out to be of another file is thrown away
    /// when nothing is under way any more, and all is read anew.
    pub(super) fn is_part_good(&mut self, progress: &Progress) -> Result<bool, TransferError> {
        let Some(Target::File(created, _)) = &self.target else {
            return Ok(true);
        };
        if self.check != Check::Due || !created.differs() {
            return Ok(true);
        }
        let Some(download) = &self.download else {
            return Ok(true);
        };
        if !download.is_idle() || !self.writing.is_empty() {
            return Ok(false);
        }
        self.read_anew(self.size(), progress)?;
        self.remarks.add(Remarkable::PartDiffered);
        Ok(true)
    }

    /// Forgets all that came: the file is read from its first byte on, as if it had `size` bytes.
    /// Nothing is under way.
    fn read_anew(&mut self, size: Option<u64>, progress: &Progress) -> Result<(), TransferError> {
        if let Some(Target::File(created, _)) = &self.target {
            let result = created.begin_anew();
            result.map_err(|error| created.fault(LocalAction::Write, error))?;
        }
        let chunk = self.download.as_ref().map(Download::chunk);
        self.download = chunk.map(|chunk| Download::new(size, chunk));
        self.hold = Hold::Alone(Ranges::new(size));
        self.front = self.front.as_ref().map(|_| Front::new(0));
        self.asked = 0;
        progress.take_back(std::mem::take(&mut self.came));
        Ok(())
    }

    /// A file ended at `got`, before the size that the server tells: files made on the fly (`/sys`)
    /// do so, others were cut. Says whether it is worth a second look.
    pub(super) fn may_be_short(&mut self, got: u64) -> bool {
        if self.state == State::LookingAgain {
            // Answers come in any order, and the first is not the one that says most.
            self.short = self.short.map(|short| short.min(got));
            return true;
        }
        let is_first = self.short.is_none() && self.check == Check::Due;
        if self.state != State::Reading || !is_first || matches!(self.hold, Hold::Joint(_)) {
            return false;
        }
        self.short = Some(got);
        self.state = State::LookingAgain;
        true
    }

    /// What the server says of a file that ended early: if it has not changed, it is read to
    /// wherever it ends, and has to end there again.
    pub(super) fn on_looked_again(&mut self, answer: Answer<'_>) -> Result<(), TransferError> {
        let known = self.attrs.unwrap_or_default();
        match answer {
            Answer::Attrs(attrs) if is_same(&known, &attrs) => {
                self.state = State::Reading;
                Ok(())
            }
            _ => Err(self.misread(self.truncated())),
        }
    }

    /// It ended early.
    pub(super) fn truncated(&self) -> ReadFault {
        ReadFault::Truncated {
            got: self.short.unwrap_or(0),
            expected: self.size().unwrap_or(u64::MAX),
        }
    }

    /// Where it ended early at first, if it did.
    pub(super) const fn short(&self) -> Option<u64> {
        self.short
    }

    /// The server's checksum, or its refusal.
    pub(super) fn on_checksum(&mut self, answer: Answer<'_>) {
        let State::CheckingAsked { size } = self.state else {
            return;
        };
        let hash = match answer {
            Answer::Extended(data) => CheckFileReply::decode(Reader::new(data))
                .ok()
                .and_then(|reply| reply.one(HashAlgorithm::Sha256))
                .and_then(|hash| Hash::try_from(hash).ok()),
            _ => None,
        };
        self.state = State::Checking { size };
        // Without one, all is read again.
        self.check = hash.map_or(Check::Again, Check::Hash);
    }
}

impl Get {
    /// Looks at a file that ended early, when nothing is under way any more.
    pub(super) fn look_again(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let is_quiet = file.download.as_ref().is_none_or(Download::is_idle);
        let Some(handle) = file.handle.as_deref() else {
            return;
        };
        if !is_quiet || !file.writing.is_empty() || !cx.can_ask() {
            return;
        }
        let request = Request::Fstat(Fstat { handle });
        if cx.ask(key, Asked::Fstat, &request, Expect::Attrs).is_err() {
            return;
        }
        file.state = State::LookingAgainAsked;
        // Where the last bytes came short it ended, though more was asked for behind.
        let came = file.download.as_ref().map(Download::highest);
        file.short = file.short.min(came.or(file.short));
        // What was written beyond its end may be of an earlier version.
        if let Err(error) = file.read_anew(None, &self.plan.progress) {
            self.fail_file(key, error, cx);
        }
    }

    /// All of a file is here and written: it is checked if that is wanted, and named.
    pub(super) fn check_file(&mut self, key: Key, size: u64, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let wants = self.options.verify == Verify::Checksum && size > 0;
        let Some(Target::File(created, _)) = &file.target else {
            if wants && file.check == Check::Due {
                // What a sink has is compared as it comes again.
                file.check = Check::Again;
                file.state = State::Checking { size };
                return self.ask_for_checksum(key, size, cx);
            }
            return self.name_file(key, size, cx);
        };
        let error = TransferError::Differs {
            path: file.path.clone(),
        };
        if created.differs() {
            if file.check == Check::Due {
                return; // a part that is about to be thrown away
            }
            created.spoil();
            return self.fail_file(key, error, cx);
        }
        if !wants || file.check == Check::Again {
            return self.name_file(key, size, cx);
        }
        file.state = State::Checking { size };
        let extensions = cx.core.server.extensions;
        if !extensions.contains(ExtensionName::CheckFileHandle) || file.handle.is_none() {
            file.check = Check::Again;
        }
        self.ask_for_checksum(key, size, cx);
    }

    /// Asks for the server's checksum, or sees to the next step if it is here, or not to be had.
    pub(super) fn ask_for_checksum(&mut self, key: Key, size: u64, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let created = match &file.target {
            Some(Target::File(created, _)) => Some(created),
            Some(Target::Sink(_)) => None,
            None => return,
        };
        match (file.check, file.handle.as_deref()) {
            (Check::Due, Some(handle)) => {
                let request = Extension::CheckFileHandle(CheckFileHandle {
                    handle,
                    algorithms: HashAlgorithm::Sha256.as_str().as_bytes(),
                    offset: 0,
                    len: 0,
                    block_len: 0,
                });
                let request = Request::Extended(request);
                let sent = cx.can_ask()
                    && cx
                        .ask(key, Asked::Checksum, &request, Expect::Extended)
                        .is_ok();
                if sent {
                    file.state = State::CheckingAsked { size };
                }
            }
            (Check::Hash(_), _) => {
                let Some(created) = created.map(std::sync::Arc::clone) else {
                    return;
                };
                file.state = State::Hashing { size };
                self.at_disk += 1;
                let hash = move || Done::Hashed(created.hash());
                cx.core.disk.run_on_thread((cx.job, key), 0, hash);
            }
            (Check::Again, Some(_)) => {
                if let Some(created) = created
                    && let Err(error) = created.compare_all(size)
                {
                    let error = created.fault(LocalAction::Write, error).into();
                    return self.fail_file(key, error, cx);
                }
                if let Some(download) = &file.download {
                    file.download = Some(Download::new(Some(size), download.chunk()));
                }
                file.hold = Hold::Alone(Ranges::new(Some(size)));
                file.front = None;
                file.asked = 0;
                file.state = State::Reading;
            }
            _ => self.name_file(key, size, cx),
        }
    }

    /// The local checksum is here.
    pub(super) fn on_hashed(&mut self, key: Key, hash: Hash, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let State::Hashing { size } = file.state else {
            return;
        };
        if file.check == Check::Hash(hash) {
            file.check = Check::Passed;
            return self.name_file(key, size, cx);
        }
        let path = file.path.clone();
        if let Some(Target::File(created, _)) = &file.target {
            created.spoil();
        }
        self.fail_file(key, TransferError::Differs { path }, cx);
    }
}
