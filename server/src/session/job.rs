//! What a session asks to be done, and what it keeps of it until it is.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use ketch_protocol::{RequestId, WatchKinds};

use super::arrived::Looked;
use super::cancel::Cancel;
use super::lane::{Arrival, Mode};
use super::records::Draft;
use super::writes::CopiedWrite;
use crate::digest::DigestPlan;
use crate::fs::feed::WatchRequest;
use crate::fs::{Call, Create, Directory, File, FileCall};
use crate::handles::{Held, SlotId};
use crate::path::VPath;

/// Something to do. Jobs that a session has handed out may be done side by side and in any order.
#[derive(Debug)]
pub(crate) enum Job {
    /// The result goes to `complete`.
    Path { ticket: Ticket, call: Call },
    /// The result goes to `complete`.
    File {
        ticket: Ticket,
        file: Arc<dyn File>,
        call: FileCall,
    },
    /// The result goes to `write_done`.
    Write {
        ticket: Ticket,
        file: Arc<dyn File>,
        write: CopiedWrite,
    },
    /// The result goes to `listed`.
    List {
        ticket: Ticket,
        directory: Box<dyn Directory>,
        /// All that was read for this answer had to be left out: it is not read on in place, as who
        /// hides a hundred thousand names would hold up the connection.
        goes_on: bool,
    },
    /// Never to be done in place. The result goes to `complete`.
    Copy { ticket: Ticket, plan: Box<CopyPlan> },
    /// Never to be done in place. The result goes to `watched`.
    Watch {
        ticket: Ticket,
        plan: Box<WatchPlan>,
    },
    /// Never to be done in place. The result goes to `hashed`.
    Hash {
        ticket: Ticket,
        file: Arc<dyn File>,
        plan: Box<HashPlan>,
    },
}

impl Job {
    /// Whether it takes as long as it takes: other jobs do not wait for it.
    pub(crate) const fn is_long(&self) -> bool {
        match self {
            Self::Copy { .. } | Self::Hash { .. } | Self::Watch { .. } => true,
            Self::File { call, .. } => matches!(call, FileCall::Sync | FileCall::Publish),
            _ => false,
        }
    }

    /// Whether nobody waits for its result any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Hash { plan, .. } if plan.is_cancelled())
    }

    /// What ends it before its time, if anything does.
    pub(crate) fn cancel(&self) -> Option<Arc<Cancel>> {
        match self {
            Self::Hash { plan, .. } => Some(plan.cancel()),
            _ => None,
        }
    }

    /// Whose work it is: that of a handle, or of paths.
    pub(crate) const fn owner(&self) -> Option<SlotId> {
        match self {
            Self::Path { ticket, .. }
            | Self::File { ticket, .. }
            | Self::Write { ticket, .. }
            | Self::List { ticket, .. }
            | Self::Copy { ticket, .. }
            | Self::Watch { ticket, .. }
            | Self::Hash { ticket, .. } => ticket.owner(),
        }
    }
}

/// What comes back with a job's result.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) id: RequestId,
    pub(super) place: Place,
    pub(super) mode: Mode,
    /// The slot that was taken for what is being opened.
    pub(super) opens: Option<SlotId>,
    /// The handle that is copied from.
    pub(super) source: Option<SlotId>,
    /// What observers will be told.
    pub(super) draft: Option<Box<Draft>>,
    /// What comes after it.
    pub(super) then: Option<Then>,
    /// What is to be done when the answer tells what is there.
    pub(super) looked: Option<Box<Looked>>,
    /// What is called otherwise when it is done.
    pub(super) moves: Option<Box<(VPath, VPath)>>,
    /// The handle goes with the answer.
    pub(super) closes: bool,
}

impl Ticket {
    /// For work that opens nothing, and that nothing follows.
    pub(super) const fn new(id: RequestId, place: Place, mode: Mode) -> Self {
        Self {
            id,
            place,
            mode,
            opens: None,
            source: None,
            draft: None,
            then: None,
            looked: None,
            moves: None,
            closes: false,
        }
    }

    pub(crate) const fn owner(&self) -> Option<SlotId> {
        match self.place {
            Place::Handle(slot) => Some(slot),
            Place::Paths(_) | Place::Apart => None,
        }
    }
}

/// Where work belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// As the work that came so.
    Paths(Arrival),
    Handle(SlotId),
    /// Nothing waits for it.
    Apart,
}

/// A `READ` whose turn it is. It is small and is copied about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadJob {
    pub(crate) slot: SlotId,
    pub(crate) id: RequestId,
    pub(crate) offset: u64,
    /// At most `DATA_LEN_MAX`.
    pub(crate) len: u32,
}

/// What `copy-data` asks for.
#[derive(Debug)]
pub(crate) struct CopyPlan {
    pub(super) source: SlotId,
    pub(crate) from: Arc<dyn File>,
    pub(crate) from_offset: u64,
    /// Bytes to copy; `None` for all up to the end.
    pub(crate) len: Option<u64>,
    pub(crate) to: Arc<dyn File>,
    pub(crate) to_offset: u64,
}

/// What comes after work on a path, beside all that waits for paths.
#[derive(Debug)]
pub(super) enum Then {
    /// The file that was opened is hashed.
    Hash(Box<HashPlan>),
    /// The directory that was looked at is watched.
    Watch(Box<WatchPlan>),
}

/// What `watch@ketch` asks for.
#[derive(Debug)]
pub(crate) struct WatchPlan {
    pub(crate) request: WatchRequest,
    pub(crate) kinds: WatchKinds,
    /// Directories that the session watches.
    pub(crate) directories: Arc<AtomicUsize>,
}

/// What `check-file-handle` and `check-file-name` ask for.
#[derive(Debug)]
pub(crate) struct HashPlan {
    pub(crate) digest: DigestPlan,
    /// The reply begins with the name of the extension, as who asked expects it.
    pub(super) is_named: bool,
    /// Set when the handle is closed.
    pub(super) cancelled: Arc<Cancel>,
    /// Its file was opened for it alone.
    pub(super) _held: Option<Held>,
}

impl HashPlan {
    /// What ends it.
    pub(crate) fn cancel(&self) -> Arc<Cancel> {
        Arc::clone(&self.cancelled)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.is_set()
    }
}

/// Work on a path, on its way.
#[derive(Debug)]
pub(super) struct PathWork {
    pub(super) id: RequestId,
    pub(super) call: Call,
    pub(super) opens: Option<SlotId>,
    pub(super) draft: Option<Box<Draft>>,
    pub(super) then: Option<Then>,
    /// It is not to be done with a directory.
    pub(super) no_directory: bool,
}

impl PathWork {
    /// Whether it is about `path`.
    pub(super) fn names(&self, path: &VPath) -> bool {
        match &self.call {
            Call::Open { path: named, .. }
            | Call::OpenDirectory { path: named }
            | Call::Metadata { path: named, .. }
            | Call::Change { path: named, .. }
            | Call::Remove { path: named }
            | Call::RemoveDirectory { path: named }
            | Call::CreateDirectory { path: named, .. }
            | Call::ReadLink { path: named }
            | Call::Symlink { link: named, .. }
            | Call::Space { path: named }
            | Call::SyncDirectory { path: named }
            | Call::RemoveAbandoned { path: named }
            | Call::Canonical { path: named } => named == path,
            Call::Home { .. } | Call::Expand { .. } | Call::Names { .. } => false,
            Call::Rename { from, to, .. } | Call::HardLink { from, to } => {
                from == path || to == path
            }
        }
    }
}

/// The path of the file whose content or attributes a call changes, as a handle would see it.
pub(super) const fn altered(call: &Call) -> Option<&VPath> {
    match call {
        Call::Change { path, .. } => Some(path),
        Call::Open { path, how } if how.truncate => Some(path),
        _ => None,
    }
}

/// Whether a call only looks.
pub(super) const fn path_mode(call: &Call) -> Mode {
    match call {
        Call::Metadata { .. }
        | Call::OpenDirectory { .. }
        | Call::ReadLink { .. }
        | Call::Space { .. }
        | Call::Canonical { .. }
        | Call::Home { .. }
        | Call::Expand { .. }
        | Call::Names { .. } => Mode::Shared,
        Call::Open { how, .. } if !how.truncate && matches!(how.create, Create::Never) => {
            Mode::Shared
        }
        _ => Mode::Exclusive,
    }
}

/// Work on a handle, on its way.
#[derive(Debug)]
pub(super) struct FileWork {
    pub(super) id: RequestId,
    pub(super) work: Work,
    pub(super) draft: Option<Box<Draft>>,
}

#[derive(Debug)]
pub(super) enum Work {
    Read { offset: u64, len: u32 },
    Ask(FileCall),
    Write(CopiedWrite),
    List,
    Copy(Box<CopyPlan>),
    Hash(Box<HashPlan>),
    Close,
}
