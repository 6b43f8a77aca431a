//! What a session has to tell its server's observers: requests that were answered, and what went
//! through handles.
//!
//! The machine keeps records, and only if somebody wants them; the engine takes them out, with the
//! time, and tells them. A draft is made when a request comes, goes along with its work, and becomes
//! a record with the answer. `READ` and `WRITE` have none: they add to the tally of their handle.

use std::time::Instant;

use ketch_protocol::{Extension, OpenFlags, Request, StatusCode};

use super::{Opened, Session};
use crate::handles::SlotId;
use crate::observer::OperationKind;
use crate::path::{PATH_LEN_MAX, VPath};
use crate::refusal::Refusal;

/// Bytes that are moved before observers are told of them while a file is open.
const MOVED_STEP: u64 = 4 * 1024 * 1024;

/// What is to be told, if anybody wants to know.
#[derive(Debug)]
pub(super) struct Records {
    /// When the request came that is being taken.
    now: Instant,
    /// What is known of that request, until its work takes it along.
    draft: Option<Box<Draft>>,
    done: Vec<Record>,
}

/// A request that will be told when it is answered.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: OperationKind,
    pub(crate) path: Box<[u8]>,
    pub(crate) other: Option<Box<[u8]>>,
    pub(crate) size: Option<u64>,
    pub(crate) began: Instant,
}

/// Something to tell.
#[derive(Debug)]
pub(crate) enum Record {
    Operation {
        draft: Box<Draft>,
        status: StatusCode,
        text: &'static str,
    },
    Transferred {
        path: VPath,
        tally: Tally,
        is_closed: bool,
    },
    /// A file has arrived; since when it was open, if that is known.
    Arrived {
        path: VPath,
        began: Option<Instant>,
        /// A trigger names it.
        may_be_missing: bool,
    },
}

impl Records {
    pub(super) fn push(&mut self, record: Record) {
        self.done.push(record);
    }
}

/// What went through a handle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Bytes; of a directory, entries.
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) has_failed: bool,
    /// When it was asked to be opened, if anybody wants to know.
    pub(crate) began: Option<Instant>,
}

/// Bytes of all handles that nobody was told of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) read: u64,
    pub(crate) written: u64,
}

/// Whether a request is told: for it, the time of its arrival has to be known.
pub(crate) const fn is_told(request: &Request<'_>) -> bool {
    !matches!(
        request,
        Request::Read(_)
            | Request::Write(_)
            | Request::Readdir(_)
            | Request::Close(_)
            | Request::Stat(_)
            | Request::Lstat(_)
            | Request::Fstat(_)
            | Request::Realpath(_)
            | Request::Readlink(_)
    )
}

impl Session {
    /// Records are kept from now on.
    pub(crate) fn keep_records(&mut self, now: Instant) {
        self.records = Some(Box::new(Records {
            now,
            draft: None,
            done: Vec::new(),
        }));
    }

    /// A request comes at `now` that is told.
    pub(crate) fn at(&mut self, now: Instant) {
        if let Some(records) = &mut self.records {
            records.now = now;
        }
    }

    /// Whether there is something to tell.
    pub(crate) fn has_news(&self) -> bool {
        self.moved.read.saturating_add(self.moved.written) >= MOVED_STEP
            || self
                .records
                .as_ref()
                .is_some_and(|records| !records.done.is_empty())
    }

    /// Takes out what there is to tell.
    pub(crate) fn take_news(&mut self) -> (Moved, Vec<Record>) {
        let done = self.records.as_mut().map(|records| &mut records.done);
        (
            std::mem::take(&mut self.moved),
            done.map(std::mem::take).unwrap_or_default(),
        )
    }

    /// The session is over, and with it everything that is open.
    pub(crate) fn lose_handles(&mut self) {
        if self.records.is_none() {
            return;
        }
        let slots: Vec<SlotId> = self.handles.slots().collect();
        for slot in slots {
            self.let_go(slot, false);
        }
    }

    /// Empties a slot. What went through it is told; `is_closed`: its client closed it.
    pub(super) fn let_go(&mut self, slot: SlotId, is_closed: bool) {
        let Some(mut entry) = self.handles.remove(slot) else {
            return;
        };
        if is_closed && entry.may_write {
            self.on_closed(&mut entry);
        }
        let (Some(records), Some(began)) = (&mut self.records, entry.tally.began) else {
            return;
        };
        let (path, tally) = (entry.path, entry.tally);
        records.done.push(match entry.opened {
            Opened::Opening | Opened::Watched(_) => return,
            Opened::File(_) => Record::Transferred {
                path,
                tally,
                is_closed,
            },
            Opened::Directory(_) => Record::Operation {
                draft: Box::new(Draft {
                    kind: OperationKind::List,
                    path: path.as_bytes().into(),
                    other: None,
                    size: Some(tally.read),
                    began,
                }),
                status: if tally.has_failed {
                    StatusCode::FAILURE
                } else {
                    StatusCode::OK
                },
                text: "",
            },
        });
    }

    /// Bytes were written, or could not be.
    pub(crate) fn wrote(&mut self, slot: SlotId, bytes: usize, has_failed: bool) {
        if let Some(entry) = self.handles.get_mut(slot) {
            let bytes = bytes as u64;
            entry.tally.written = entry.tally.written.saturating_add(bytes);
            entry.tally.has_failed |= has_failed;
            self.moved.written = self.moved.written.saturating_add(bytes);
        }
    }

    /// Notes what `request` is, if that is to be told.
    pub(super) fn draft(&mut self, request: &Request<'_>) {
        let Some(now) = self.records.as_ref().map(|records| records.now) else {
            return;
        };
        let draft = self.describe(request).map(|(kind, path, other, size)| {
            Box::new(Draft {
                kind,
                path,
                other,
                size,
                began: now,
            })
        });
        if let Some(records) = &mut self.records {
            records.draft = draft;
        }
    }

    /// The draft of the request that is being taken, for its work to take along.
    pub(super) fn take_draft(&mut self) -> Option<Box<Draft>> {
        self.records.as_mut()?.draft.take()
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, draft: Option<Box<Draft>>, result: Result<(), Refusal>) {
        if let (Some(draft), Some(records)) = (draft, &mut self.records) {
            let (status, text) = match result {
                Ok(()) => (StatusCode::OK, ""),
                Err(why) => (why.code, why.text),
            };
            records.done.push(Record::Operation {
                draft,
                status,
                text,
            });
        }
    }

    fn describe(&self, request: &Request<'_>) -> Option<Described> {
        use OperationKind as Kind;
        let shown = |path: &[u8]| -> Box<[u8]> {
            match self.policy.standing.resolve(path) {
                Ok(path) => path.as_bytes().into(),
                Err(_) => cut(path).into(),
            }
        };
        let one = |kind, path| Some((kind, shown(path), None, None));
        let two = |kind, path, other| Some((kind, shown(path), Some(shown(other)), None));
        let handle = |kind, handle, other, size| {
            let path = self.path_of(handle).unwrap_or_default();
            Some((kind, path, other, size))
        };
        match request {
            Request::Open(open) => {
                let writes = [
                    OpenFlags::WRITE,
                    OpenFlags::APPEND,
                    OpenFlags::CREATE,
                    OpenFlags::TRUNCATE,
                ];
                if writes.iter().any(|&flag| open.flags.contains(flag)) {
                    one(Kind::OpenWrite, open.path)
                } else {
                    one(Kind::OpenRead, open.path)
                }
            }
            Request::Opendir(open) => one(Kind::OpenDirectory, open.path),
            Request::Remove(remove) => one(Kind::Remove, remove.path),
            Request::Rmdir(rmdir) => one(Kind::RemoveDirectory, rmdir.path),
            Request::Mkdir(mkdir) => one(Kind::MakeDirectory, mkdir.path),
            Request::Rename(rename) => two(Kind::Rename, rename.from, rename.to),
            Request::Symlink(link) => Some((
                Kind::Symlink,
                shown(link.link),
                Some(cut(link.target).into()),
                None,
            )),
            Request::Setstat(set) => {
                Some((Kind::Change, shown(set.path), None, set.attrs.attrs.size))
            }
            Request::Fsetstat(set) => handle(Kind::Change, set.handle, None, set.attrs.attrs.size),
            Request::Extended(extension) => match extension {
                Extension::PosixRename(rename) => two(Kind::Rename, rename.from, rename.to),
                Extension::Hardlink(link) => two(Kind::HardLink, link.from, link.to),
                Extension::Lsetstat(set) => {
                    Some((Kind::Change, shown(set.path), None, set.attrs.attrs.size))
                }
                Extension::Fsync(sync) => handle(Kind::Sync, sync.handle, None, None),
                Extension::CopyData(copy) => {
                    let len = Some(copy.len).filter(|&len| len > 0);
                    handle(Kind::Copy, copy.from, self.path_of(copy.to), len)
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn path_of(&self, handle: &[u8]) -> Option<Box<[u8]>> {
        let entry = self.handles.get(self.handles.find(handle)?)?;
        Some(entry.path.as_bytes().into())
    }
}

/// Kind, path, the other path, size.
type Described = (OperationKind, Box<[u8]>, Option<Box<[u8]>>, Option<u64>);

/// As much of it as is told.
fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..PATH_LEN_MAX).unwrap_or(bytes)
}
