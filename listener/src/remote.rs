//! A tree on a server, as a source: one connection that is made when it is needed and comes back
//! when it was lost.
//!
//! Detection and delivery share it. [`Remote::sftp`] is asked for by each operation and waits while
//! a connection is made; a failed attempt is told to whoever asked, and the next one waits first, as
//! [`Reconnect`] says.

#[cfg(feature = "flows")]
mod source;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ketch_client::{
    Connect, Failure, Kind, Reconnect, ReconnectError, Reconnecting, RemotePath, Sftp, SftpError,
};
use tokio::sync::Mutex;

/// A directory on a server, and everything below it.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    root: RemotePath,
    line: Arc<Line>,
}

enum Line {
    /// Given by an embedder, who connects anew if it was lost.
    Given(Sftp),
    Made {
        sessions: Reconnecting,
        /// The channel that is used as long as its session lives.
        open: Mutex<Option<Sftp>>,
    },
}

/// Why there is no SFTP to be had from a [`Remote`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ReconnectError),
    /// There is one, and no SFTP on it.
    #[error(transparent)]
    Sftp(#[from] SftpError),
}

impl Failure for RemoteError {
    fn kind(&self) -> Kind {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Sftp(error) => error.kind(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_transient(),
            Self::Sftp(error) => error.is_transient(),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("root", &self.shared.root)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// The directory `root` on the server that `connect` leads to. Nothing is connected before it is
    /// needed.
    #[must_use]
    pub fn new(connect: Connect, root: RemotePath) -> Self {
        let mut policy = Reconnect::default();
        // Each failure is told, and what asks again waits: the pause is kept between calls.
        policy.attempts = Some(1);
        policy.spread = Duration::from_secs(2);
        Self::with(connect, root, policy)
    }

    /// As [`Remote::new`], coming back as `policy` says.
    #[must_use]
    pub fn with(connect: Connect, root: RemotePath, policy: Reconnect) -> Self {
        let line = Line::Made {
            sessions: Reconnecting::new(connect.for_sftp(), policy),
            open: Mutex::default(),
        };
        Self {
            shared: Arc::new(Shared {
                root,
                line: Arc::new(line),
            }),
        }
    }

    /// The directory `root` over SFTP that is open already. When it is lost, everything fails.
    #[must_use]
    pub fn over(sftp: Sftp, root: RemotePath) -> Self {
        Self {
            shared: Arc::new(Shared {
                root,
                line: Arc::new(Line::Given(sftp)),
            }),
        }
    }

    /// The directory `path` below this one, on the same connection.
    #[must_use]
    pub fn below(&self, path: &RemotePath) -> Self {
        Self {
            shared: Arc::new(Shared {
                root: self.path(path),
                line: Arc::clone(&self.shared.line),
            }),
        }
    }

    /// The directory `root` of the same server, on the same connection.
    #[must_use]
    pub fn elsewhere(&self, root: RemotePath) -> Self {
        Self {
            shared: Arc::new(Shared {
                root,
                line: Arc::clone(&self.shared.line),
            }),
        }
    }

    /// The directory on the server.
    #[must_use]
    pub fn root(&self) -> &RemotePath {
        &self.shared.root
    }

    /// The path on the server of what is `path` below the root; of the root itself if it is empty.
    #[must_use]
    pub fn path(&self, path: &RemotePath) -> RemotePath {
        if path.as_bytes().is_empty() {
            self.shared.root.clone()
        } else {
            self.shared.root.join(path)
        }
    }

    /// SFTP on the connection that lives, or on a new one, for which this waits.
    ///
    /// # Errors
    /// [`RemoteError`], of one attempt.
    pub async fn sftp(&self) -> Result<Sftp, RemoteError> {
        match &*self.shared.line {
            Line::Given(sftp) => Ok(sftp.clone()),
            Line::Made { sessions, open } => {
                let mut open = open.lock().await;
                let lives = |sftp: &&Sftp| sftp.session().is_some_and(|s| !s.is_closed());
                if let Some(sftp) = open.as_ref().filter(lives) {
                    return Ok(sftp.clone());
                }
                *open = None;
                let sftp = sessions.session().await?.sftp().await?;
                *open = Some(sftp.clone());
                Ok(sftp)
            }
        }
    }

    /// Ends the connection, if there is one and it was made here.
    pub async fn disconnect(&self) {
        if let Line::Made { sessions, open } = &*self.shared.line {
            *open.lock().await = None;
            sessions.disconnect().await;
        }
    }
}
