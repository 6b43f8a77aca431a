//! What the server asks of a file system, and the types of question and answer.
//!
//! A [`FileSystem`] opens [`File`]s and [`Directory`]s and answers [`Call`]s about paths. Everything
//! comes in **two tiers**:
//!
//! 1. `try_…` is called on the connection's task. It fills slots that are given to it (of the
//!    outgoing packets, say) and **must not wait**: if the answer is not at hand it returns an error
//!    of [`ErrorKind::WouldBlock`]. That is the default of each, so that a file system that can
//!    only wait needs none of them.
//! 2. The call of the same name without `try_` owns its buffers and returns a future, which runs
//!    on a task of its own. Reading a disk there goes through [`blocking`].
//!
//! Errors are [`io::Error`]s: `crate::refusal` makes statuses from their kinds and numbers, never
//! from their text.

mod buffers;
pub(crate) mod feed;
pub(crate) mod local;
mod memory;
pub(crate) mod staging;

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;

use ketch_protocol::StatVfs;

use crate::fs::feed::{Feed, Subscription, WatchRequest};
use crate::path::VPath;

pub(crate) use buffers::Owners;
pub use buffers::{BATCH_ENTRIES_MAX, Batch, Block, DirectoryEntry};
pub use local::LocalDirectory;
pub use memory::{MEMORY_FILE_LEN_MAX, MemoryFileSystem};

/// A tree of files that a user sees from `/`.
///
/// Paths are canonical ([`VPath`]); that no link leads out of the tree is the implementation's part.
/// Masks are applied and rights checked before a call comes here.
pub trait FileSystem: fmt::Debug + Send + Sync + 'static {
    /// Answers at once, or says [`ErrorKind::WouldBlock`] and has changed nothing.
    ///
    /// # Errors
    /// What the call would say, or `WouldBlock`.
    fn try_call(&self, call: &Call) -> io::Result<Answer> {
        let _ = call;
        Err(ErrorKind::WouldBlock.into())
    }

    /// Answers when it can.
    fn call(self: Arc<Self>, call: Call) -> Work<Answer>;

    /// Whether [`FileSystem::watch`] works: clients are told so.
    fn can_watch(&self) -> bool {
        false
    }

    /// Puts into `feed` what happens in a directory from before the answer on, until the answer is
    /// dropped. Nothing may be lost without an [`Overflow`](crate::FeedEvent::Overflow).
    ///
    /// # Errors
    /// What looking for the directory says; `QuotaExceeded` if no more can be watched; `Unsupported`
    /// if nothing can be, which is the default.
    fn watch(self: Arc<Self>, request: WatchRequest, feed: Feed) -> Work<Subscription> {
        let _ = (request, feed);
        Box::pin(std::future::ready(Err(ErrorKind::Unsupported.into())))
    }
}

/// An open file; it is closed when the last reference is dropped, which is after all work on it.
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Reads at `offset` (bytes from the start of the file) into `slots`, from the first on.
    ///
    /// Returns how many bytes were read; fewer than there is room for only at the end of the file,
    /// 0 if nothing is at `offset` or behind.
    ///
    /// # Errors
    /// What reading says, or [`ErrorKind::WouldBlock`].
    fn try_read_at(&self, offset: u64, slots: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let _ = (offset, slots);
        Err(ErrorKind::WouldBlock.into())
    }

    /// Writes `slices`, one after the other, at `offset` (at the end if the file was opened to
    /// append). Returns how many bytes were written, at least one; the rest is offered again.
    ///
    /// # Errors
    /// What writing says, or [`ErrorKind::WouldBlock`].
    fn try_write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let _ = (offset, slices);
        Err(ErrorKind::WouldBlock.into())
    }

    /// Answers at once, or says [`ErrorKind::WouldBlock`] and has changed nothing.
    ///
    /// # Errors
    /// What the call would say, or `WouldBlock`.
    fn try_call(&self, call: &FileCall) -> io::Result<Answer> {
        let _ = call;
        Err(ErrorKind::WouldBlock.into())
    }

    /// Fills `block` from `offset` on, with less than it holds only at the end of the file.
    fn read_at(self: Arc<Self>, offset: u64, block: Block) -> Work<Block>;

    /// Writes all of `bytes` at `offset` (at the end if the file was opened to append).
    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()>;

    /// Answers when it can.
    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer>;

    /// Whether it takes its name only with [`FileCall::Publish`], which is asked when it is closed.
    fn is_staged(&self) -> bool {
        false
    }

    /// What two handles of one file have in common, if that can be told.
    fn identity(&self) -> Option<(u64, u64)> {
        None
    }
}

/// An open directory, read from its start to its end once.
pub trait Directory: fmt::Debug + Send + 'static {
    /// Puts the next entries into `batch` until it is full; none at the end of the directory.
    /// `.` and `..` are left out.
    ///
    /// # Errors
    /// What reading says, or [`ErrorKind::WouldBlock`] if nothing was put into the batch.
    fn try_read(&mut self, batch: &mut Batch) -> io::Result<()> {
        let _ = batch;
        Err(ErrorKind::WouldBlock.into())
    }

    /// As [`Directory::try_read`], when it can; gives itself back.
    fn read(self: Box<Self>, batch: Batch) -> Work<(Box<dyn Directory>, Batch)>;
}

/// A question about paths.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Call {
    /// Opens a regular file, and nothing else: [`Answer::File`].
    Open {
        /// Which.
        path: VPath,
        /// What for.
        how: OpenHow,
    },
    /// Opens a directory: [`Answer::Directory`].
    OpenDirectory {
        /// Which.
        path: VPath,
    },
    /// [`Answer::Metadata`].
    Metadata {
        /// Of what.
        path: VPath,
        /// If it is a link: of the link or of what it leads to.
        links: Links,
    },
    /// Changes what `change` names: [`Answer::Done`].
    Change {
        /// Of what.
        path: VPath,
        /// If it is a link: of the link or of what it leads to.
        links: Links,
        /// What.
        change: Change,
    },
    /// Removes what is no directory, a link itself: [`Answer::Done`].
    Remove {
        /// Which.
        path: VPath,
    },
    /// Removes an empty directory: [`Answer::Done`].
    RemoveDirectory {
        /// Which.
        path: VPath,
    },
    /// Makes a directory: [`Answer::Done`].
    CreateDirectory {
        /// Where.
        path: VPath,
        /// Permission bits, before the process's own mask.
        mode: u32,
    },
    /// Gives a file, link or directory another name: [`Answer::Done`].
    Rename {
        /// What it is called.
        from: VPath,
        /// What it is to be called.
        to: VPath,
        /// If something is called so.
        target: Target,
    },
    /// What is written in a link: [`Answer::Target`].
    ReadLink {
        /// Which link.
        path: VPath,
    },
    /// Makes a link: [`Answer::Done`]. That `target` stays in the tree was looked at.
    Symlink {
        /// What is written into it.
        target: Vec<u8>,
        /// Where it stands.
        link: VPath,
    },
    /// Gives a regular file one more name: [`Answer::Done`].
    HardLink {
        /// A name it has.
        from: VPath,
        /// The new one.
        to: VPath,
    },
    /// How much room the file system has: [`Answer::Space`].
    Space {
        /// Something on it.
        path: VPath,
    },
    /// Puts the names in a directory onto the disk: [`Answer::Done`]. Asked for users whose uploads
    /// wait for it, in whose tree `Unsupported` is taken for done.
    SyncDirectory {
        /// Which.
        path: VPath,
    },
    /// Removes a file that somebody claimed ([`FileCall::Claim`]) who has it open no more:
    /// [`Answer::Done`]. An error of kind `ResourceBusy` if they have.
    RemoveAbandoned {
        /// Which.
        path: VPath,
    },
    /// The path without links and `..` ([`Answer::Target`]); its last component need not exist.
    /// Only sessions of this machine's own users ask this and what follows.
    Canonical {
        /// Which.
        path: VPath,
    },
    /// A user's home directory: [`Answer::Target`].
    Home {
        /// Whose; the session's own if it is empty.
        user: Vec<u8>,
    },
    /// As [`Call::Canonical`], for a path from a user's home directory: [`Answer::Target`].
    Expand {
        /// Whose; the session's own if it is empty.
        user: Vec<u8>,
        /// From there on, without a slash in front.
        rest: Vec<u8>,
    },
    /// What users and groups are called: [`Answer::Names`].
    Names {
        /// Numbers of users.
        uids: Vec<u32>,
        /// Numbers of groups.
        gids: Vec<u32>,
    },
}

/// A question about an open file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FileCall {
    /// [`Answer::Metadata`].
    Metadata,
    /// Changes what it names: [`Answer::Done`].
    Change(Change),
    /// Puts everything written onto the disk: [`Answer::Done`]. Never asked on the first tier.
    Sync,
    /// How much room the file system has: [`Answer::Space`].
    Space,
    /// Says to other processes that the file is being written, until it is closed: [`Answer::Done`],
    /// also where that cannot be said.
    Claim,
    /// Gives a file its name that was written under another one ([`File::is_staged`]):
    /// [`Answer::Done`], with nothing to do for all others.
    Publish,
}

impl Call {
    /// The paths that it names.
    pub(crate) fn paths(&self) -> [Option<&VPath>; 2] {
        match self {
            Self::Open { path, .. }
            | Self::OpenDirectory { path }
            | Self::Metadata { path, .. }
            | Self::Change { path, .. }
            | Self::Remove { path }
            | Self::RemoveDirectory { path }
            | Self::CreateDirectory { path, .. }
            | Self::ReadLink { path }
            | Self::Symlink { link: path, .. }
            | Self::Space { path }
            | Self::SyncDirectory { path }
            | Self::RemoveAbandoned { path }
            | Self::Canonical { path } => [Some(path), None],
            Self::Rename { from, to, .. } | Self::HardLink { from, to } => [Some(from), Some(to)],
            Self::Home { .. } | Self::Expand { .. } | Self::Names { .. } => [None, None],
        }
    }
}

/// What a [`Call`] or [`FileCall`] is answered with.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// It is done.
    Done,
    /// An open file.
    File(Arc<dyn File>),
    /// An open directory.
    Directory(Box<dyn Directory>),
    /// What is known of a file.
    Metadata(Metadata),
    /// The content of a link.
    Target(Vec<u8>),
    /// Room.
    Space(StatVfs),
    /// Names in the order of the numbers that were asked for; empty where there is none.
    Names {
        /// Of users.
        users: Vec<Vec<u8>>,
        /// Of groups.
        groups: Vec<Vec<u8>>,
    },
}

/// A future that an implementation hands out, with its result.
pub type Work<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Runs `work` on a thread that may wait: how a file system without async calls does its second tier.
///
/// # Errors
/// The future yields what `work` returns, and an error of kind `Other` if it panicked. It must be
/// polled inside a tokio runtime.
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Work<T> {
    Box::pin(async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(panicked) => Err(io::Error::other(panicked)),
        }
    })
}

/// Whether an error of [`blocking`] says that its work panicked.
pub(crate) fn has_panicked(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let joined = inner.and_then(|inner| inner.downcast_ref::<tokio::task::JoinError>());
    joined.is_some_and(tokio::task::JoinError::is_panic)
}

/// Whether a call is about a link or about what it leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third choice")]
pub enum Links {
    /// About what it leads to, as long as that lies in the tree.
    Follow,
    /// About the link.
    Stay,
}

/// What a rename does if its target exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third choice")]
pub enum Target {
    /// Fails with [`ErrorKind::AlreadyExists`], whatever races with it
    /// (draft-ietf-secsh-filexfer-02 §6.5).
    MustNotExist,
    /// Replaces it in one step (`posix-rename@openssh.com`).
    MayExist,
}

/// How a file is to be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OpenHow {
    /// To read.
    pub read: bool,
    /// To write.
    pub write: bool,
    /// Each write goes to the end, wherever its offset points.
    pub append: bool,
    /// What is in it is thrown away.
    pub truncate: bool,
    /// Nobody else may have it open so to write: [`ErrorKind::ResourceBusy`] if somebody has. It is
    /// not emptied before that is known.
    pub exclusive: bool,
    /// Whether it is made.
    pub create: Create,
}

impl OpenHow {
    /// To read what exists.
    #[must_use]
    pub const fn read() -> Self {
        Self {
            read: true,
            write: false,
            append: false,
            truncate: false,
            exclusive: false,
            create: Create::Never,
        }
    }

    /// To write from the start, made with `mode` if it is missing.
    #[must_use]
    pub const fn replace(mode: u32) -> Self {
        let create = Create::IfMissing { mode };
        Self {
            read: false,
            write: true,
            append: false,
            truncate: true,
            exclusive: false,
            create,
        }
    }
}

/// Whether opening a file makes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Create {
    /// It has to exist.
    Never,
    /// It is made if it is missing.
    IfMissing {
        /// Permission bits, before the process's own mask.
        mode: u32,
    },
    /// It must not exist, not even as a link that leads nowhere.
    New {
        /// Permission bits, before the process's own mask.
        mode: u32,
    },
}

/// What to change of a file; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// Length in bytes: cut off, or filled up with zeros.
    pub size: Option<u64>,
    /// Permission bits: at most `0o777`, and `0o7777` where users of this machine are served.
    pub mode: Option<u32>,
    /// User and group, by number: only where users of this machine are served.
    pub owner: Option<(u32, u32)>,
    /// Times of last access and modification, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

impl Change {
    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self {
            size,
            mode,
            owner,
            times,
        } = self;
        size.is_none() && mode.is_none() && owner.is_none() && times.is_none()
    }
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// Length in bytes.
    pub size: u64,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Type and permission bits, as `st_mode` has them.
    pub mode: u32,
    /// Last access, seconds since 1970.
    pub accessed: u32,
    /// Last modification, seconds since 1970.
    pub modified: u32,
    /// How many names it has.
    pub links: u64,
}

/// The bits of [`Metadata::mode`] that tell the type (POSIX `S_IFMT`).
pub const TYPE_BITS: u32 = 0o170_000;
/// A directory (POSIX `S_IFDIR`).
pub const TYPE_DIRECTORY: u32 = 0o040_000;
/// A regular file (POSIX `S_IFREG`).
pub const TYPE_FILE: u32 = 0o100_000;
/// A symbolic link (POSIX `S_IFLNK`).
pub const TYPE_LINK: u32 = 0o120_000;

impl Metadata {
    /// Something with these type and permission bits, and nothing else to tell.
    #[must_use]
    pub const fn new(mode: u32) -> Self {
        Self {
            size: 0,
            uid: 0,
            gid: 0,
            mode,
            accessed: 0,
            modified: 0,
            links: 1,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.mode & TYPE_BITS == TYPE_DIRECTORY
    }
}
