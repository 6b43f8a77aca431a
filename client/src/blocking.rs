//! The same without `async`: calls that return when they are done, for programs that have threads.
//!
//! A [`Session`] runs on a thread of its own, with a runtime that nobody else uses; all that is
//! opened on it waits there. Clones may be used from many threads at the same time, and share the
//! connection. Within an `async` function these calls would stop everything else on its thread, and
//! fail with [`BlockingError::InsideAsync`]: there is [`crate::Session`] for that.
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use ketch_client::{Connect, GetOptions, OpenOptions, blocking::Session};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let session = Session::connect(Connect::to("sftp.example.com").user("ann"))?;
//! let sftp = session.sftp()?;
//! for entry in sftp.read_dir("in")? {
//!     println!("{}", entry?.display_name());
//! }
//! sftp.get("in/a.csv", "a.csv", GetOptions::new())?;
//! let mut file = sftp.open("in/note.txt", OpenOptions::writing())?;
//! writeln!(file, "seen")?;
//! file.close()?;
//! println!("{:?}", session.exec("sha256sum in/note.txt")?.output(1 << 16)?);
//! session.disconnect()?;
//! # Ok(())
//! # }
//! ```
//!
//! A transfer is steered from another thread, with the [`Control`](crate::Control) and the
//! [`RateLimit`](crate::RateLimit) that are in its options:
//!
//! ```no_run
//! use ketch_client::{Control, GetOptions, RateLimit, blocking::Sftp};
//!
//! # fn example(sftp: &Sftp) -> Result<(), Box<dyn std::error::Error>> {
//! let (control, limit) = (Control::new(), RateLimit::new(10 << 20));
//! let options = GetOptions::new().recursive(true);
//! let options = options.control(control.clone()).limit(limit.clone());
//! std::thread::scope(|scope| {
//!     let get = scope.spawn(|| sftp.get("in", "copy", options));
//!     control.pause();
//!     limit.set(1 << 20);
//!     control.resume();
//!     get.join().expect("it does not panic")
//! })?;
//! # Ok(())
//! # }
//! ```

mod process;
mod stream;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use ketch_protocol::{Attrs, RemotePath, ServerLimits, StatVfs};
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
    runtime::{Builder, Handle},
    sync::oneshot,
};

pub use self::{
    process::Process,
    stream::{Forward, Incoming, Stream},
};
use crate::{
    Connect, ConnectError, GetOptions, OpenOptions, PingError, PutOptions, Removed, Report, Sink,
    Source, SyncError, SyncOptions, SyncReport, TransferError, UserNames, WalkEntry, WalkError,
    WalkOptions,
    dir::DirEntry,
    error::{Failure, Kind, Outcome},
    glob::GlobError,
    remove::RemoveError,
    sftp::SftpError,
};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockingError<E> {
    /// It was called within an `async` function, where nothing may block.
    #[error("a blocking call within an async function: use the async one there")]
    InsideAsync,
    /// The thread that runs the connection could not be started.
    #[error("no thread could be started for the connection")]
    NoThread(#[source] io::Error),
    /// What was asked for failed.
    #[error(transparent)]
    Failed(#[from] E),
}

impl<E: Failure + 'static> Failure for BlockingError<E> {
    fn kind(&self) -> Kind {
        match self {
            Self::InsideAsync | Self::NoThread(_) => Kind::Local,
            Self::Failed(error) => error.kind(),
        }
    }

    fn is_transient(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_transient())
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::InsideAsync | Self::NoThread(_) => Outcome::NotDone,
            Self::Failed(error) => error.outcome(),
        }
    }
}

type Done<T, E = SftpError> = Result<T, BlockingError<E>>;

/// A thread with a runtime, which ends with the last who holds it.
#[derive(Debug)]
struct Background {
    runtime: Handle,
    /// Dropped, it ends the thread.
    _end: oneshot::Sender<()>,
}

impl Background {
    fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("ketch".to_owned())
            .spawn(move || {
                // Whoever waits drives nothing: this does, until nobody is left.
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
        Ok(Arc::new(Self {
            runtime: handle,
            _end: end,
        }))
    }

    /// Waits on the thread of the caller.
    fn wait<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Done<T, E> {
        if Handle::try_current().is_ok() {
            return Err(BlockingError::InsideAsync);
        }
        self.runtime.block_on(work).map_err(BlockingError::Failed)
    }

    fn wait_io<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match self.wait(work) {
            Ok(done) => Ok(done),
            Err(BlockingError::Failed(error) | BlockingError::NoThread(error)) => Err(error),
            Err(BlockingError::InsideAsync) => {
                Err(io::Error::other(BlockingError::<SftpError>::InsideAsync))
            }
        }
    }
}

/// A connection on which the user is logged in: [`crate::Session`] for threads.
///
/// Clones are handles on the same connection, which ends when it is told to, or with the last of
/// them and of what was opened on it.
#[derive(Clone, Debug)]
pub struct Session {
    // Dropped before the thread on which it runs.
    session: crate::Session,
    background: Arc<Background>,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`ConnectError`]; see [`BlockingError`].
    pub fn connect(connect: Connect) -> Done<Self, ConnectError> {
        let background = Background::start().map_err(BlockingError::NoThread)?;
        let session = background.wait(connect.connect())?;
        Ok(Self {
            session,
            background,
        })
    }

    /// Starts SFTP: [`crate::Session::sftp`].
    ///
    /// # Errors
    /// [`SftpError`]; see [`BlockingError`].
    pub fn sftp(&self) -> Done<Sftp> {
        Ok(Sftp {
            sftp: self.background.wait(self.session.sftp())?,
            background: Arc::clone(&self.background),
        })
    }

    /// Asks the server for a sign of life, and waits for it: [`crate::Session::ping`].
    ///
    /// # Errors
    /// [`PingError`]; see [`BlockingError`].
    pub fn ping(&self) -> Done<(), PingError> {
        self.background.wait(self.session.ping())
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Ends the connection and waits until it has ended.
    ///
    /// # Errors
    /// [`BlockingError::InsideAsync`] alone.
    pub fn disconnect(&self) -> Done<()> {
        self.background.wait(async {
            self.session.disconnect().await;
            Ok(())
        })
    }

    /// The same connection for `async` functions, which may run on any runtime.
    #[must_use]
    pub const fn inner(&self) -> &crate::Session {
        &self.session
    }
}

/// An SFTP session: [`crate::Sftp`] for threads.
#[derive(Clone)]
pub struct Sftp {
    sftp: crate::Sftp,
    background: Arc<Background>,
}

/// Calls that do the same as those of the same name on [`crate::Sftp`].
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $output:ty, $error:ty;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            #[doc = concat!("As [`crate::Sftp::", stringify!($name), "`]; see [`BlockingError`].")]
            pub fn $name(&self, $($arg: $type),*) -> Done<$output, $error> {
                self.background.wait(self.sftp.$name($($arg),*))
            }
        )*
    };
}

impl Sftp {
    calls! {
        /// Attributes of a file; a link is followed.
        stat(path: impl Into<RemotePath>) -> Attrs, SftpError;
        /// Attributes of a file, or of a link itself.
        lstat(path: impl Into<RemotePath>) -> Attrs, SftpError;
        /// Whether there is something at `path`.
        try_exists(path: impl Into<RemotePath>) -> bool, SftpError;
        /// Sets those attributes that are given; a link is followed.
        set_attrs(path: impl Into<RemotePath>, attrs: Attrs) -> (), SftpError;
        /// Sets those attributes that are given; of a link itself.
        set_link_attrs(path: impl Into<RemotePath>, attrs: Attrs) -> (), SftpError;
        /// Creates a directory.
        create_dir(path: impl Into<RemotePath>) -> (), SftpError;
        /// Creates a directory and those above it that are not there.
        create_dir_all(path: impl Into<RemotePath>) -> (), SftpError;
        /// Removes a file or a link.
        remove_file(path: impl Into<RemotePath>) -> (), SftpError;
        /// Removes an empty directory.
        remove_dir(path: impl Into<RemotePath>) -> (), SftpError;
        /// Removes whatever is at `path`, a directory with everything in it.
        remove_all(path: impl Into<RemotePath>) -> Removed, RemoveError;
        /// Renames; most servers refuse if the new name is taken.
        rename(from: impl Into<RemotePath>, to: impl Into<RemotePath>) -> (), SftpError;
        /// Renames, and replaces what has the new name.
        posix_rename(from: impl Into<RemotePath>, to: impl Into<RemotePath>) -> (), SftpError;
        /// Where a symbolic link points.
        read_link(path: impl Into<RemotePath>) -> RemotePath, SftpError;
        /// Creates a symbolic link `link` that points to `target`.
        symlink(target: impl Into<RemotePath>, link: impl Into<RemotePath>) -> (), SftpError;
        /// Gives a file a second name.
        hard_link(from: impl Into<RemotePath>, to: impl Into<RemotePath>) -> (), SftpError;
        /// Copies a file on the server.
        copy(from: impl Into<RemotePath>, to: impl Into<RemotePath>) -> u64, SftpError;
        /// The absolute path of what `path` names.
        canonicalize(path: impl Into<RemotePath>) -> RemotePath, SftpError;
        /// A path in which `~` stands for a home directory, as an absolute one.
        expand_path(path: impl Into<RemotePath>) -> RemotePath, SftpError;
        /// The home directory of a user.
        home_directory(user: &str) -> RemotePath, SftpError;
        /// What the server says that it takes at a time.
        limits() -> ServerLimits, SftpError;
        /// The names of users and groups.
        users_groups(uids: &[u32], gids: &[u32]) -> UserNames, SftpError;
        /// How large and how full the file system of `path` is.
        statvfs(path: impl Into<RemotePath>) -> StatVfs, SftpError;
        /// See [`Sftp::sha256`](crate::Sftp::sha256).
        sha256(path: impl Into<RemotePath>) -> [u8; 32], SftpError;
        /// Downloads a file, or a directory with [`GetOptions::recursive`].
        get(remote: impl Into<RemotePath>, local: impl AsRef<Path>, options: GetOptions)
            -> Report, TransferError;
        /// Uploads a file, or a directory with [`PutOptions::recursive`].
        put(local: impl AsRef<Path>, remote: impl Into<RemotePath>, options: PutOptions)
            -> Report, TransferError;
        /// Downloads many files in one transfer, each to a local path of its own.
        get_all(items: impl IntoIterator<Item = (RemotePath, PathBuf)>, options: GetOptions)
            -> Report, TransferError;
        /// Uploads many files in one transfer, each to a path of its own.
        put_all(items: impl IntoIterator<Item = (PathBuf, RemotePath)>, options: PutOptions)
            -> Report, TransferError;
        /// Downloads a file into `sink`.
        get_to(remote: impl Into<RemotePath>, sink: Arc<dyn Sink>, options: GetOptions)
            -> Report, TransferError;
        /// Uploads what `source` gives.
        put_from(source: Arc<dyn Source>, remote: impl Into<RemotePath>, options: PutOptions)
            -> Report, TransferError;
        /// Makes a local directory hold what one on the server holds.
        sync_down(remote: impl Into<RemotePath>, local: impl AsRef<Path>, options: SyncOptions)
            -> SyncReport, SyncError;
        /// Makes a directory on the server hold what a local one holds.
        sync_up(local: impl AsRef<Path>, remote: impl Into<RemotePath>, options: SyncOptions)
            -> SyncReport, SyncError;
    }

    /// Opens or creates a file.
    ///
    /// # Errors
    /// As [`crate::Sftp::open`]; see [`BlockingError`].
    pub fn open(&self, path: impl Into<RemotePath>, options: OpenOptions) -> Done<File> {
        Ok(File {
            file: self.background.wait(self.sftp.open(path, options))?,
            background: Arc::clone(&self.background),
        })
    }

    /// Lists a directory. What is wrong with it comes with the first entry.
    ///
    /// # Errors
    /// [`BlockingError::InsideAsync`] alone.
    pub fn read_dir(&self, path: impl Into<RemotePath>) -> Done<ReadDir> {
        self.background.wait(async {
            Ok(ReadDir {
                entries: self.sftp.read_dir(path),
                background: Arc::clone(&self.background),
            })
        })
    }

    /// Everything below a directory. What is wrong with it comes with the first entry.
    ///
    /// # Errors
    /// [`BlockingError::InsideAsync`] alone.
    pub fn walk(&self, root: impl Into<RemotePath>, options: WalkOptions) -> Done<Walk, WalkError> {
        self.background.wait(async {
            Ok(Walk {
                walk: self.sftp.walk(root, options),
                background: Arc::clone(&self.background),
            })
        })
    }

    /// The files whose paths match a pattern.
    ///
    /// # Errors
    /// As [`crate::Sftp::glob`]; see [`BlockingError`].
    pub fn glob(&self, pattern: impl AsRef<[u8]>) -> Done<Walk, GlobError> {
        self.background.wait(async {
            Ok(Walk {
                walk: self.sftp.glob(pattern)?,
                background: Arc::clone(&self.background),
            })
        })
    }
}

impl std::fmt::Debug for Sftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sftp").finish_non_exhaustive()
    }
}

/// The entries of a directory, as they come.
#[derive(Debug)]
pub struct ReadDir {
    entries: crate::ReadDir,
    background: Arc<Background>,
}

impl Iterator for ReadDir {
    type Item = Done<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let entries = &mut self.entries;
        self.background
            .wait(async { entries.next().await.transpose() })
            .transpose()
    }
}

/// The entries that a walk or a pattern meets, as they come.
#[derive(Debug)]
pub struct Walk {
    walk: crate::Walk,
    background: Arc<Background>,
}

impl Iterator for Walk {
    type Item = Done<WalkEntry, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let walk = &mut self.walk;
        self.background
            .wait(async { walk.next().await.transpose() })
            .transpose()
    }
}

/// An open file on the server: [`crate::File`] for threads, with `Read`, `Write` and `Seek`.
///
/// It reads ahead and writes behind: what went wrong with a write is said by a later one, by `flush`,
/// or by [`File::close`].
#[derive(Debug)]
pub struct File {
    file: crate::File,
    background: Arc<Background>,
}

impl File {
    /// Reads `len` bytes from `offset` on; fewer if the file ends before.
    ///
    /// # Errors
    /// As [`crate::File::read_at`]; see [`BlockingError`].
    pub fn read_at(&self, offset: u64, len: usize) -> Done<Bytes> {
        self.background.wait(self.file.read_at(offset, len))
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// As [`crate::File::write_at`]; see [`BlockingError`].
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Done<()> {
        self.background.wait(self.file.write_at(offset, data))
    }

    /// Attributes of the file.
    ///
    /// # Errors
    /// As [`crate::File::attrs`]; see [`BlockingError`].
    pub fn attrs(&self) -> Done<Attrs> {
        self.background.wait(self.file.attrs())
    }

    /// Sets those attributes that are given.
    ///
    /// # Errors
    /// As [`crate::File::set_attrs`]; see [`BlockingError`].
    pub fn set_attrs(&self, attrs: Attrs) -> Done<()> {
        self.background.wait(self.file.set_attrs(attrs))
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As [`crate::File::set_len`]; see [`BlockingError`].
    pub fn set_len(&self, len: u64) -> Done<()> {
        self.background.wait(self.file.set_len(len))
    }

    /// Brings what was written to the server's disk; flush first.
    ///
    /// # Errors
    /// As [`crate::File::sync_all`]; see [`BlockingError`].
    pub fn sync_all(&self) -> Done<()> {
        self.background.wait(self.file.sync_all())
    }

    /// Writes what is left, closes the file, and waits for the server to say how that went.
    ///
    /// # Errors
    /// As [`crate::File::close`]; see [`BlockingError`].
    pub fn close(self) -> Done<()> {
        self.background.wait(self.file.close())
    }
}

impl io::Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.background.wait_io(self.file.read(buffer))
    }
}

impl io::Write for File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.background.wait_io(self.file.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.background.wait_io(self.file.flush())
    }
}

impl io::Seek for File {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.background.wait_io(self.file.seek(to))
    }
}
