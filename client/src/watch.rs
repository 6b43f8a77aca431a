//! Changes on the server as a stream of events: `watch@ketch` (`docs/watch-extension.md`).
//!
//! ketch's server has it, others do not: `ketch-listener` compares listings where it is missing.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use ketch_protocol::{
    Extension, ExtensionName, Reader, RemotePath, Request, StatusCode, WatchKind, WatchKinds,
    WatchRead, WatchReply,
};

use crate::{
    requests::{
        calls::{Asked, Reply, Submission},
        table::Expect,
    },
    sftp::{Operation, Sftp, SftpError},
};

/// How long the server may let a request wait, if nothing else is said: well within the stall deadline.
const WAIT: Duration = Duration::from_secs(15);
/// What the answer to a request is counted as, in bytes.
const ANSWER_LEN: usize = 64 * 1024;

/// What is to be watched, and how.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    recursive: bool,
    kinds: WatchKinds,
    wait: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl WatchOptions {
    /// The directory itself, and everything that happens to what is in it.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            recursive: false,
            kinds: WatchKinds::ALL,
            wait: WAIT,
        }
    }

    /// Also what happens in the directories beneath.
    #[must_use]
    pub const fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }

    /// Only events of these kinds, and [`WatchEvent::Overflow`]. Default: all.
    #[must_use]
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = WatchKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// How long the server may leave a request unanswered when nothing happens. Default: 15 seconds.
    ///
    /// It has to be shorter than the stall deadline, after which a silent server is given up; the
    /// server may answer sooner.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// Something that happened on the server. Paths are those of the server, from its root.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A name is new: made, or moved here from where nothing is watched. What is found in a directory
    /// that was just made may be told twice.
    Created {
        /// Which.
        path: RemotePath,
        /// Whether it is known to be a directory.
        is_directory: bool,
    },
    /// The content of a file changed, and may go on changing.
    Modified {
        /// Which.
        path: RemotePath,
    },
    /// A file that was open for writing was closed.
    Written {
        /// Which.
        path: RemotePath,
    },
    /// Mode, owner or times changed.
    Attributes {
        /// Which.
        path: RemotePath,
        /// Whether it is known to be a directory.
        is_directory: bool,
    },
    /// A name is gone: removed, or moved to where nothing is watched.
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
    /// Events were lost here: whoever wants to know what there is lists again.
    Overflow,
}

impl WatchEvent {
    /// The event of the wire, if its kind is known.
    fn from_wire(event: &ketch_protocol::WatchEvent<'_>) -> Option<Self> {
        let path = RemotePath::from(event.path);
        let is_directory = event.is_directory;
        Some(match event.kind {
            WatchKind::CREATED => Self::Created { path, is_directory },
            WatchKind::MODIFIED => Self::Modified { path },
            WatchKind::WRITTEN => Self::Written { path },
            WatchKind::ATTRIBUTES => Self::Attributes { path, is_directory },
            WatchKind::REMOVED => Self::Removed { path, is_directory },
            WatchKind::RENAMED => Self::Renamed {
                from: path,
                to: RemotePath::from(event.to),
                is_directory,
            },
            WatchKind::OVERFLOW => Self::Overflow,
            _ => return None,
        })
    }
}

impl Sftp {
    /// Subscribes to what changes in a directory of the server.
    ///
    /// What happens after this has returned is told, however late it is looked at; beyond some
    /// thousand events the server drops them and says so ([`WatchEvent::Overflow`]). To miss nothing,
    /// subscribe first and list then.
    ///
    /// ```no_run
    /// use ketch_client::{WatchEvent, WatchOptions};
    ///
    /// # async fn example(sftp: ketch_client::Sftp) -> Result<(), ketch_client::SftpError> {
    /// let mut changes = sftp.watch("in", WatchOptions::new().recursive()).await?;
    /// while let Some(event) = changes.next().await {
    ///     match event? {
    ///         WatchEvent::Written { path } => println!("{path} is there"),
    ///         WatchEvent::Overflow => println!("some were lost: list again"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension, as all but ketch's do.
    pub async fn watch(
        &self,
        path: impl Into<RemotePath>,
        options: WatchOptions,
    ) -> Result<Watch, SftpError> {
        let path = path.into();
        self.need(ExtensionName::Watch).await?;
        let request = Extension::Watch(ketch_protocol::Watch {
            path: path.as_bytes(),
            flags: u32::from(options.recursive) * ketch_protocol::Watch::RECURSIVE,
            kinds: options.kinds,
        });
        let request = Request::Extended(request);
        let handle = self.handle(Operation::Watch, &path, &request).await?;
        Ok(Watch {
            sftp: self.clone(),
            path,
            handle,
            wait: u32::try_from(options.wait.as_millis()).unwrap_or(u32::MAX),
            call: None,
            ready: VecDeque::new(),
            is_over: false,
        })
    }
}

/// A subscription to a directory of the server: a stream of [`WatchEvent`]s.
///
/// It ends when the directory, or one above it, is removed or renamed. After an error it gives
/// nothing more. Dropped, it is closed.
pub struct Watch {
    sftp: Sftp,
    path: RemotePath,
    handle: Vec<u8>,
    /// In milliseconds.
    wait: u32,
    /// The request that the server leaves unanswered until something happens.
    call: Option<Asked>,
    ready: VecDeque<WatchEvent>,
    is_over: bool,
}

impl Watch {
    /// The directory that is watched, as it was named.
    #[must_use]
    pub const fn path(&self) -> &RemotePath {
        &self.path
    }

    /// The next event; `None` when what was watched is gone. It may be dropped and called again.
    ///
    /// # Errors
    /// See [`Sftp`]; `Refused` if the server watches more directories than it may.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, SftpError>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchEvent, SftpError>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            let call = self.call.get_or_insert_with(|| {
                let read = WatchRead {
                    handle: &self.handle,
                    wait: self.wait,
                };
                let mut packet = Vec::new();
                Request::Extended(Extension::WatchRead(read)).encode_packet(0, &mut packet);
                let shared = self.sftp.shared();
                shared.ask(packet, Expect::Extended, ANSWER_LEN, None)
            });
            let answer = ready!(Pin::new(call).poll(cx));
            self.call = None;
            let operation = Operation::Watch;
            let answer = answer
                .map_err(|unanswered| SftpError::unanswered(operation, &self.path, &unanswered));
            match answer {
                Ok(Reply::Extended(data)) => match WatchReply::decode(Reader::new(&data)) {
                    Ok(reply) => {
                        let events = reply.events.iter();
                        self.ready
                            .extend(events.filter_map(|event| WatchEvent::from_wire(&event)));
                    }
                    Err(_) => return self.fail(SftpError::malformed(operation, &self.path)),
                },
                Ok(Reply::Status(StatusCode::EOF, _)) => self.is_over = true,
                Ok(other) => return self.fail(SftpError::other(operation, &self.path, other)),
                Err(error) => return self.fail(error),
            }
        }
    }

    fn fail(&mut self, error: SftpError) -> Poll<Option<Result<WatchEvent, SftpError>>> {
        self.is_over = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, SftpError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let handle = std::mem::take(&mut self.handle);
        self.sftp.shared().submit(Submission::Close(handle));
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
