//! Each request: is it allowed, and what has to be done?

use std::sync::Arc;

use ketch_protocol::limits::PACKET_LEN_MAX;
use ketch_protocol::{
    Attrs, CHECK_FILE, CheckFileHandle, CheckFileName, CopyData, Extension, OpenFlags, Reader,
    Refusal as Undecodable, Request, RequestId, ServerLimits, Symlink, UsersGroupsById,
};

use super::job::{CopyPlan, HashPlan, PathWork, Then, Work};
use super::lane::{Lane, Mode};
use super::records::Tally;
use super::{DATA_LEN_MAX, Entry, Opened, Session};
use crate::digest::DigestPlan;
use crate::fs::{Call, Change, Create, File, FileCall, Links, OpenHow, Target};
use crate::handles::SlotId;
use crate::path::VPath;
use crate::policy::standing::Named;
use crate::policy::{Effect, Renaming};
use crate::refusal::Refusal;

/// Permission bits of a file or directory that is made without any being named, before the
/// process's own mask.
const FILE_MODE: u32 = 0o666;
const DIRECTORY_MODE: u32 = 0o777;

impl Session {
    /// Takes a request: every kind but `WRITE`.
    pub(crate) fn on_request(&mut self, id: RequestId, request: &Request<'_>) {
        self.commands = self.commands.wrapping_add(1);
        let swapped;
        let request = match request {
            Request::Symlink(symlink) if self.names_link_first => {
                swapped = Request::Symlink(Symlink {
                    target: symlink.link,
                    link: symlink.target,
                    ..*symlink
                });
                &swapped
            }
            request => request,
        };
        self.outstanding = self.outstanding.saturating_add(1);
        if self.records.is_some() {
            self.draft(request);
        }
        match self.dispatch(id, request) {
            Ok(Taken::Pending) => {}
            Ok(Taken::Answered) => self.outstanding = self.outstanding.saturating_sub(1),
            Err(why) => {
                let draft = self.take_draft();
                self.answered(draft, Err(why));
                self.replies.refuse(id, why);
                self.outstanding = self.outstanding.saturating_sub(1);
            }
        }
    }

    /// A request came that cannot be decoded.
    pub(crate) fn on_undecodable(&mut self, id: RequestId, why: Undecodable) {
        let why = match why {
            Undecodable::UnknownType => Refusal::UNSUPPORTED,
            Undecodable::Malformed(_) => Refusal::BAD_MESSAGE,
        };
        self.replies.refuse(id, why);
    }

    fn dispatch(&mut self, id: RequestId, request: &Request<'_>) -> Result<Taken, Refusal> {
        self.policy.standing.permit(request)?;
        match request {
            Request::Open(open) => {
                self.open(id, self.resolve(open.path)?, open.flags, &open.attrs.attrs)
            }
            Request::Opendir(opendir) => {
                let path = self.resolve(opendir.path)?;
                self.policy.allow(Effect::List, &path)?;
                let slot = self.reserve(path.clone(), true, false)?;
                self.push_path(id, Call::OpenDirectory { path }, Some(slot));
                Ok(Taken::Pending)
            }
            Request::Close(close) => {
                let slot = self.slot(close.handle)?;
                self.end_watch(slot);
                if let Some(entry) = self.handles.get_mut(slot) {
                    entry.is_closing = true;
                    if let Some(cancelled) = &entry.cancelled {
                        cancelled.set();
                        self.has_cancelled = true;
                    }
                }
                self.file(id, slot, Mode::Exclusive, Work::Close)
            }
            Request::Read(read) => {
                let slot = self.slot(read.handle)?;
                match self.handles.get(slot) {
                    Some(entry) if entry.may_read && matches!(entry.opened, Opened::File(_)) => {}
                    _ => return Err(Refusal::WRONG_HANDLE),
                }
                let len = read.len.min(DATA_LEN_MAX);
                // Nothing is where no file reaches: the end, not an error of the system call.
                if self
                    .policy
                    .check_range(read.offset, u64::from(len))
                    .is_err()
                {
                    return Err(Refusal::END_OF_FILE);
                }
                let work = Work::Read {
                    offset: read.offset,
                    len,
                };
                self.file(id, slot, Mode::Shared, work)
            }
            Request::Readdir(readdir) => {
                let slot = self.slot(readdir.handle)?;
                match self.handles.get(slot).map(|entry| &entry.opened) {
                    Some(Opened::Directory(_)) => self.file(id, slot, Mode::Exclusive, Work::List),
                    _ => Err(Refusal::WRONG_HANDLE),
                }
            }
            Request::Stat(stat) => self.look(id, stat.path, Links::Follow),
            Request::Lstat(lstat) => self.look(id, lstat.path, Links::Stay),
            Request::Fstat(fstat) => {
                let (slot, _) = self.open_file(fstat.handle, |_| true)?;
                self.file(id, slot, Mode::Shared, Work::Ask(FileCall::Metadata))
            }
            Request::Setstat(set) => self.change(id, set.path, Links::Follow, &set.attrs.attrs),
            Request::Fsetstat(set) => {
                self.policy.allow_changes()?;
                let change = self.permitted_change(&set.attrs.attrs)?;
                let needs_write = change.size.is_some();
                let (slot, _) =
                    self.open_file(set.handle, |entry| entry.may_write || !needs_write)?;
                // What it was opened for says what may be done to it.
                if let Some(entry) = self.handles.get(slot).filter(|entry| !entry.may_write) {
                    self.policy.change(&entry.path, &change)?;
                    // The file may have arrived since, by whatever name.
                    if self.policy.keeps_arrivals() {
                        return Err(Refusal::WRONG_HANDLE);
                    }
                }
                self.file(
                    id,
                    slot,
                    Mode::Exclusive,
                    Work::Ask(FileCall::Change(change)),
                )
            }
            Request::Remove(remove) => {
                let path = self.resolve(remove.path)?;
                self.policy.allow(Effect::Remove, &path)?;
                self.path(id, Call::Remove { path })
            }
            Request::Rmdir(rmdir) => {
                let path = self.resolve(rmdir.path)?;
                self.policy.allow(Effect::Remove, &path)?;
                self.path(id, Call::RemoveDirectory { path })
            }
            Request::Mkdir(mkdir) => {
                let path = self.resolve(mkdir.path)?;
                self.policy.allow(Effect::MakeDirectory, &path)?;
                let mode = mkdir.attrs.attrs.permissions.unwrap_or(DIRECTORY_MODE);
                let mode = mode & self.policy.standing.settable_mode();
                self.path(id, Call::CreateDirectory { path, mode })
            }
            Request::Rename(rename) => {
                self.rename(id, rename.from, rename.to, Target::MustNotExist)
            }
            Request::Realpath(realpath) => {
                let named = self.policy.standing.canonical(realpath.path)?;
                self.named(id, named)
            }
            Request::Readlink(readlink) => {
                let path = self.resolve(readlink.path)?;
                self.policy.allow(Effect::Ask, &path)?;
                self.path(id, Call::ReadLink { path })
            }
            Request::Symlink(symlink) => {
                // Target first, as OpenSSH's clients and servers have it, against the draft
                // (OpenSSH's PROTOCOL §4.1): the decoder reads it so. `habits` has the others.
                let link = self.resolve(symlink.link)?;
                self.policy.symbolic_link(&link)?;
                self.policy.standing.check_link(symlink.target)?;
                self.path(
                    id,
                    Call::Symlink {
                        target: symlink.target.to_vec(),
                        link,
                    },
                )
            }
            Request::Extended(extension) => self.extended(id, extension),
            // A decoder hands it on in pieces; whole ones come from nowhere.
            Request::Write(_) => Err(Refusal::BAD_MESSAGE),
        }
    }

    fn extended(&mut self, id: RequestId, extension: &Extension<'_>) -> Result<Taken, Refusal> {
        match extension {
            Extension::PosixRename(rename) => {
                self.rename(id, rename.from, rename.to, Target::MayExist)
            }
            Extension::Statvfs(statvfs) => {
                let path = self.resolve(statvfs.path)?;
                self.policy.allow(Effect::Ask, &path)?;
                self.path(id, Call::Space { path })
            }
            Extension::Fstatvfs(fstatvfs) => {
                let (slot, _) = self.open_file(fstatvfs.handle, |_| true)?;
                self.file(id, slot, Mode::Shared, Work::Ask(FileCall::Space))
            }
            Extension::Hardlink(hardlink) => {
                let from = self.resolve(hardlink.from)?;
                let to = self.resolve(hardlink.to)?;
                self.policy.hard_link(&from, &to)?;
                self.path(id, Call::HardLink { from, to })
            }
            Extension::Fsync(fsync) => {
                let (slot, _) = self.open_file(fsync.handle, |_| true)?;
                self.file(id, slot, Mode::Exclusive, Work::Ask(FileCall::Sync))
            }
            Extension::Lsetstat(set) => self.change(id, set.path, Links::Stay, &set.attrs.attrs),
            Extension::Limits => {
                let limits = ServerLimits {
                    packet_len: PACKET_LEN_MAX as u64,
                    read_len: u64::from(DATA_LEN_MAX),
                    write_len: u64::from(DATA_LEN_MAX),
                    open_handles: self.handles.most() as u64,
                };
                self.replies.extended(id, |w| limits.encode(w));
                Ok(Taken::Answered)
            }
            Extension::ExpandPath(expand) => {
                let named = self.policy.standing.expand(expand.path)?;
                self.named(id, named)
            }
            Extension::CopyData(copy) => self.copy_data(id, copy),
            Extension::HomeDirectory(home) => {
                let named = self.policy.standing.home(home.user, &self.policy.user)?;
                self.named(id, named)
            }
            Extension::UsersGroupsById(UsersGroupsById { uids, gids })
                if self.policy.standing.tells_names() =>
            {
                let (uids, gids) = (uids.iter().collect(), gids.iter().collect());
                self.path(id, Call::Names { uids, gids })
            }
            Extension::UsersGroupsById(UsersGroupsById { uids, gids }) => {
                // Numbers only: whose they are on this machine is not told. Each gets its empty
                // name, so the reply is as long as the request was.
                self.replies.extended(id, |w| {
                    for count in [uids.len(), gids.len()] {
                        w.scope(|w| (0..count).for_each(|_| w.string(b"")));
                    }
                });
                Ok(Taken::Answered)
            }
            Extension::CheckFileHandle(check) => self.check_handle(id, check, false),
            Extension::CheckFileName(check) => {
                let path = self.resolve(check.path)?;
                let how = self.policy.open(&path, OpenHow::read())?;
                let CheckFileName {
                    algorithms,
                    offset,
                    len,
                    block_len,
                    ..
                } = *check;
                let digest = DigestPlan::new(algorithms, offset, len, block_len)?;
                self.policy.check_range(offset, len)?;
                let hash = HashPlan {
                    digest,
                    is_named: false,
                    cancelled: Arc::default(),
                    _held: Some(self.handles.hold().ok_or(Refusal::HANDLES)?),
                };
                self.push_path_work(PathWork {
                    id,
                    call: Call::Open { path, how },
                    opens: None,
                    then: Some(Then::Hash(Box::new(hash))),
                    draft: None,
                    no_directory: false,
                });
                Ok(Taken::Pending)
            }
            Extension::Watch(watch) => self.watch(id, watch),
            Extension::WatchRead(read) => self.watch_read(id, read),
            // What paramiko asks for a checksum by.
            Extension::Unknown {
                name: CHECK_FILE,
                data,
            } => {
                let check = CheckFileHandle::decode(Reader::new(data));
                self.check_handle(id, &check.map_err(|_| Refusal::BAD_MESSAGE)?, true)
            }
            Extension::Unknown { .. } => Err(Refusal::UNSUPPORTED),
        }
    }

    /// Checksums of an open file, which who opened it may read.
    fn check_handle(
        &mut self,
        id: RequestId,
        check: &CheckFileHandle<'_>,
        is_named: bool,
    ) -> Result<Taken, Refusal> {
        let CheckFileHandle {
            handle,
            algorithms,
            offset,
            len,
            block_len,
        } = *check;
        let (slot, _) = self.open_file(handle, |entry| entry.may_read)?;
        let digest = DigestPlan::new(algorithms, offset, len, block_len)?;
        self.policy.check_range(offset, len)?;
        let Some(entry) = self.handles.get_mut(slot) else {
            return Err(Refusal::BAD_HANDLE);
        };
        let plan = HashPlan {
            digest,
            is_named,
            cancelled: Arc::clone(entry.cancelled.get_or_insert_default()),
            _held: None,
        };
        self.file(id, slot, Mode::Shared, Work::Hash(Box::new(plan)))
    }

    fn open(
        &mut self,
        id: RequestId,
        path: VPath,
        flags: OpenFlags,
        attrs: &Attrs,
    ) -> Result<Taken, Refusal> {
        let mode = attrs.permissions.unwrap_or(FILE_MODE);
        let mode = mode & self.policy.standing.settable_mode();
        let write = flags.contains(OpenFlags::WRITE);
        let how = OpenHow {
            // OpenSSH's server takes a file that is opened for nothing as opened to read.
            read: flags.contains(OpenFlags::READ) || !write,
            write,
            append: flags.contains(OpenFlags::APPEND),
            exclusive: write && self.policy.exclusive_uploads,
            truncate: flags.contains(OpenFlags::TRUNCATE),
            create: match flags.contains(OpenFlags::CREATE) {
                false => Create::Never,
                true if flags.contains(OpenFlags::EXCLUSIVE) => Create::New { mode },
                true => Create::IfMissing { mode },
            },
        };
        let how = self.policy.open(&path, how)?;
        if how.truncate && !how.write {
            return Err(Refusal::TRUNCATES_UNWRITTEN);
        }
        let slot = self.reserve(path.clone(), how.read, how.write)?;
        if let Some(entry) = self.handles.get_mut(slot) {
            // Of one that is made only if it is missing it is not known whether it was.
            let is_new = matches!(how.create, Create::New { .. });
            entry.changes = how.write && (how.truncate || is_new);
        }
        self.push_path(id, Call::Open { path, how }, Some(slot));
        Ok(Taken::Pending)
    }

    fn look(&mut self, id: RequestId, path: &[u8], links: Links) -> Result<Taken, Refusal> {
        let path = self.resolve(path)?;
        self.policy.allow(Effect::Ask, &path)?;
        self.path(id, Call::Metadata { path, links })
    }

    fn change(
        &mut self,
        id: RequestId,
        path: &[u8],
        links: Links,
        attrs: &Attrs,
    ) -> Result<Taken, Refusal> {
        let path = self.resolve(path)?;
        let change = self.permitted_change(attrs)?;
        self.policy.change(&path, &change)?;
        self.path(
            id,
            Call::Change {
                path,
                links,
                change,
            },
        )
    }

    /// What may be changed of what a client asks for. Nothing is changed if a part is refused.
    fn permitted_change(&self, attrs: &Attrs) -> Result<Change, Refusal> {
        let Attrs {
            size,
            owner,
            permissions,
            times,
        } = *attrs;
        if owner.is_some() && !self.policy.standing.may_give_away() {
            return Err(Refusal::OWNER);
        }
        if let Some(size) = size {
            self.policy.check_range(0, size)?;
        }
        Ok(Change {
            size,
            mode: permissions.map(|mode| mode & self.policy.standing.settable_mode()),
            owner: owner.map(|owner| (owner.uid, owner.gid)),
            times: times.map(|times| (times.atime, times.mtime)),
        })
    }

    fn rename(
        &mut self,
        id: RequestId,
        from: &[u8],
        to: &[u8],
        target: Target,
    ) -> Result<Taken, Refusal> {
        let (from, to) = (self.resolve(from)?, self.resolve(to)?);
        let Renaming {
            target,
            no_directory,
        } = self.policy.rename(&from, &to, target)?;
        let call = Call::Rename { from, to, target };
        if no_directory {
            self.push_path_unless_directory(id, call);
            return Ok(Taken::Pending);
        }
        self.path(id, call)
    }

    fn copy_data(&mut self, id: RequestId, copy: &CopyData<'_>) -> Result<Taken, Refusal> {
        self.policy.allow_changes()?;
        let (source, from) = self.open_file(copy.from, |entry| entry.may_read)?;
        let (target, to) = self.open_file(copy.to, |entry| entry.may_write)?;
        self.policy.check_range(copy.from_offset, copy.len)?;
        self.policy.check_range(copy.to_offset, copy.len)?;
        // A file copied into itself could grow for ever.
        let is_same = from
            .identity()
            .is_some_and(|identity| Some(identity) == to.identity());
        if source == target || is_same {
            return Err(Refusal::SAME_FILE);
        }
        let plan = CopyPlan {
            source,
            from,
            from_offset: copy.from_offset,
            len: (copy.len != 0).then_some(copy.len),
            to,
            to_offset: copy.to_offset,
        };
        self.file(id, target, Mode::Exclusive, Work::Copy(Box::new(plan)))
    }

    /// The path that a request names.
    pub(super) fn resolve(&self, named: &[u8]) -> Result<VPath, Refusal> {
        self.policy.standing.resolve(named)
    }

    fn named(&mut self, id: RequestId, named: Named) -> Result<Taken, Refusal> {
        match named {
            Named::Is(path) => {
                self.replies.name(id, path.as_bytes());
                Ok(Taken::Answered)
            }
            Named::Ask(call) => self.path(id, call),
        }
    }

    fn path(&mut self, id: RequestId, call: Call) -> Result<Taken, Refusal> {
        self.push_path(id, call, None);
        Ok(Taken::Pending)
    }

    fn file(
        &mut self,
        id: RequestId,
        slot: SlotId,
        mode: Mode,
        work: Work,
    ) -> Result<Taken, Refusal> {
        self.push_file(id, slot, mode, work);
        Ok(Taken::Pending)
    }

    /// The slot of a handle that is open and whose `CLOSE` has not come.
    pub(super) fn slot(&self, handle: &[u8]) -> Result<SlotId, Refusal> {
        let slot = self.handles.find(handle).ok_or(Refusal::BAD_HANDLE)?;
        match self.handles.get(slot) {
            Some(Entry {
                is_closing: false,
                opened,
                ..
            }) if !matches!(opened, Opened::Opening) => Ok(slot),
            _ => Err(Refusal::BAD_HANDLE),
        }
    }

    /// The slot and file of a handle that is open for what `may` says.
    fn open_file(
        &self,
        handle: &[u8],
        may: impl FnOnce(&Entry) -> bool,
    ) -> Result<(SlotId, Arc<dyn File>), Refusal> {
        let slot = self.slot(handle)?;
        match self.handles.get(slot) {
            Some(entry) if may(entry) => match &entry.opened {
                Opened::File(file) => Ok((slot, Arc::clone(file))),
                _ => Err(Refusal::WRONG_HANDLE),
            },
            _ => Err(Refusal::WRONG_HANDLE),
        }
    }

    /// Takes a slot for what is to be opened.
    pub(super) fn reserve(
        &mut self,
        path: VPath,
        may_read: bool,
        may_write: bool,
    ) -> Result<SlotId, Refusal> {
        let (opened, is_closing, lane) = (Opened::Opening, false, Lane::new());
        let hides_names = self.policy.hides_names_in(&path);
        let entry = Entry {
            opened,
            path,
            may_read,
            may_write,
            is_closing,
            cancelled: None,
            lane,
            tally: Tally::default(),
            is_watch: false,
            changes: false,
            hides_names,
            writing: None,
        };
        self.handles.insert(entry).ok_or(Refusal::HANDLES)
    }
}

/// How far a request has come.
pub(super) enum Taken {
    /// Its reply was written.
    Answered,
    /// Its reply comes with a job's result.
    Pending,
}
