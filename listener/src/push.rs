//! Changes that a source tells by itself, so that nobody has to wait for the next poll.
//!
//! [`Pushes`] is what a detector takes besides its clock. Behind it is `watch@ketch` on a server that
//! has it ([`over_sftp`], `docs/watch-extension.md`), or the kernel for a directory of this machine
//! ([`local`]). Either way a push says only where to look: what is there is found by looking, and
//! polling goes on as the safety net. So a push that is lost, doubled or made up does no harm.
//!
//! | event | what to do |
//! | --- | --- |
//! | `Changed`, `Closed`, `Removed`, `Renamed` | look at these paths; a directory that is new is listed with all below it |
//! | `Overflow` | some were lost: look at everything |
//! | `Lost` | none come for now: nothing but to poll |
//! | `Back` | they come (again), from here on: look at everything once |

mod local;
mod queue;
mod sftp;

use std::sync::Arc;

use ketch_client::RemotePath;
use tokio::task::AbortHandle;

pub use self::local::local;
use self::queue::Queue;
pub use self::queue::{BYTES_MAX, EVENTS_MAX};
pub use self::sftp::over_sftp;
pub(crate) use self::sftp::watching;
use crate::remote::RemoteError;

/// Something happened at the source. Paths are below its root; the empty path is the root itself.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PushEvent {
    /// A name is new, or what has it is another or has other content or times.
    Changed {
        /// Which.
        path: RemotePath,
        /// What is known of the change.
        kind: Touch,
        /// Whether it is known to be a directory.
        is_directory: bool,
    },
    /// A file that was open for writing was closed.
    Closed {
        /// Which.
        path: RemotePath,
    },
    /// A name is gone.
    Removed {
        /// Which.
        path: RemotePath,
        /// Whether it is known to have been a directory.
        is_directory: bool,
    },
    /// A name became another.
    Renamed {
        /// What it was called.
        from: RemotePath,
        /// What it is called.
        to: RemotePath,
        /// Whether it is known to be a directory.
        is_directory: bool,
    },
    /// Events were lost here: anything may have changed.
    Overflow,
    /// No events come from here on, until [`PushEvent::Back`].
    Lost,
    /// Events come from here on; what happened before is not told.
    Back,
}

/// What [`PushEvent::Changed`] knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Touch {
    /// The name is new.
    Created,
    /// Content was written, and more may follow.
    Written,
    /// Mode, owner or times are others.
    Attributes,
}

/// Why no pushes come.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The server does not have `watch@ketch`, as all but ketch's do not.
    #[error("the server tells no changes by itself: it is polled")]
    Unsupported,
    /// There is no connection, or the server refused: it is tried again.
    #[error("changes are not told now: the source is polled meanwhile")]
    Remote(#[from] RemoteError),
    /// The directory that was watched, or one above it, was removed or renamed: it is tried again.
    #[error("the watched directory is gone: changes are not told")]
    Gone,
    /// The kernel refused to watch a directory of this machine.
    #[error("the directory cannot be watched")]
    Local(#[source] Arc<notify::Error>),
}

/// A source's pushes: a bounded queue that somebody else fills. Dropped, it ends them.
#[derive(Debug)]
pub struct Pushes {
    queue: Arc<Queue>,
    _filler: Filler,
}

/// Who fills the queue; ends with it.
enum Filler {
    Task(AbortHandle),
    Kernel {
        _watcher: notify::RecommendedWatcher,
    },
}

impl std::fmt::Debug for Filler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Task(_) => "Task",
            Self::Kernel { .. } => "Kernel",
        })
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if let Self::Task(task) = self {
            task.abort();
        }
    }
}

impl Pushes {
    const fn new(queue: Arc<Queue>, filler: Filler) -> Self {
        Self {
            queue,
            _filler: filler,
        }
    }

    /// The next event; `None` once it is known that there will be none, as with a server that does
    /// not have them. Nothing is lost if the future is dropped.
    ///
    /// Of more than [`EVENTS_MAX`] events, or [`BYTES_MAX`] of names, that nobody took, all are
    /// dropped and told as one [`PushEvent::Overflow`].
    pub async fn next(&mut self) -> Option<PushEvent> {
        self.queue.next().await
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<PushEvent> {
        self.queue.take()
    }

    /// Whether pushes come now.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.queue.is_live()
    }

    /// Why they do not, if that is known.
    #[must_use]
    pub fn trouble(&self) -> Option<PushError> {
        self.queue.trouble()
    }
}
