//! A tree on a server, as a source: one connection that is made when it is needed and comes back
//! when it was lost.
//!
//! Detection and delivery share it. [`Remote::sftp`] is asked for by each operation and waits while
//! a connection is made; a failed attempt is told to whoever asked, and the next one waits first, as
//! [`Reconnect`] says.

pub(crate) mod channels;
#[cfg(feature = "flows")]
mod source;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ketch_client::{
    Connect, Failure, Kind, Reconnect, ReconnectError, Reconnecting, RemotePath, Sftp, SftpError,
};
use tokio::sync::Mutex;

use self::channels::Channels;
pub use self::channels::{CHANNELS, CHANNELS_MAX};

/// A directory on a server, and everything below it.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    root: RemotePath,
    line: Arc<Line>,
    /// Beside the one that is used for everything.
    channels: Channels,
    channels_max: usize,
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
        Self::on(line, root)
    }

    /// The directory `root` over SFTP that is open already. When it is lost, everything fails.
    #[must_use]
    pub fn over(sftp: Sftp, root: RemotePath) -> Self {
        Self::on(Line::Given(sftp), root)
    }

    fn on(line: Line, root: RemotePath) -> Self {
        Self {
            shared: Arc::new(Shared {
                root,
                line: Arc::new(line),
                channels: Channels::default(),
                channels_max: CHANNELS,
            }),
        }
    }

    /// Scans list over so many SFTP channels of the connection, 1 to [`CHANNELS_MAX`]: a server with
    /// a process for each channel lists several directories at the same time. They are opened when
    /// a tree is large enough, and a server that gives fewer is content with those. Default:
    /// [`CHANNELS`].
    #[must_use]
    pub fn channels(self, channels: usize) -> Self {
        let Shared {
            root,
            line,
            channels: open,
            ..
        } = &*self.shared;
        Self {
            shared: Arc::new(Shared {
                root: root.clone(),
                line: Arc::clone(line),
                channels: open.clone(),
                channels_max: channels.clamp(1, CHANNELS_MAX),
            }),
        }
    }

    /// How many channels a scan may list over.
    #[cfg(feature = "flows")]
    pub(crate) fn channels_max(&self) -> usize {
        self.shared.channels_max
    }

    /// The channels beside the first that are open already.
    #[cfg(feature = "flows")]
    pub(crate) fn open_beside(&self) -> Vec<Sftp> {
        let max = self.channels_max().saturating_sub(1);
        self.shared.channels.open(max)
    }

    /// One more channel for a scan that has `first`, the `number`th beside it; `None` if there is
    /// none to be had.
    #[cfg(feature = "flows")]
    pub(crate) async fn beside(&self, first: &Sftp, number: usize) -> Option<Sftp> {
        self.shared.channels.beside(first, number).await
    }

    /// The directory `path` below this one, on the same connection.
    #[must_use]
    pub fn below(&self, path: &RemotePath) -> Self {
        self.elsewhere(self.path(path))
    }

    /// The directory `root` of the same server, on the same connection.
    #[must_use]
    pub fn elsewhere(&self, root: RemotePath) -> Self {
        Self {
            shared: Arc::new(Shared {
                root,
                line: Arc::clone(&self.shared.line),
                channels: self.shared.channels.clone(),
                channels_max: self.shared.channels_max,
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
                // Its process may have ended on a connection that lives.
                let lives = |sftp: &Sftp| sftp.session().is_some_and(|s| !s.is_closed());
                if let Some(sftp) = open.as_ref()
                    && lives(sftp)
                    && !sftp.has_ended()
                {
                    return Ok(sftp.clone());
                }
                if open.take().is_some_and(|sftp| !lives(&sftp)) {
                    self.shared.channels.forget().await;
                }
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
            self.shared.channels.forget().await;
            sessions.disconnect().await;
        }
    }
}
