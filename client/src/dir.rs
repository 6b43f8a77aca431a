//! A directory on the server, being listed.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use ketch_protocol::{Attrs, FileType, Opendir, Readdir, RemotePath, Request, StatusCode};

use crate::{
    requests::{
        calls::{Call, OwnedName, Reply, Submission, Unanswered},
        table::Expect,
    },
    sftp::{Operation, Sftp, SftpError},
};

/// READDIRs under way: at first, and at most.
const READDIRS_MIN: usize = 2;
const READDIRS_MAX: usize = 16;
/// What the answer to a READDIR is counted as, in bytes: OpenSSH's 100 entries take some 12 KiB.
const ANSWER_LEN: usize = 32 * 1024;
/// Answers without entries, which some servers give in place of `EOF`, that are borne.
const EMPTY_ANSWERS_MAX: u8 = 1;

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    name: Vec<u8>,
    longname: Vec<u8>,
    attrs: Attrs,
    file_type: FileType,
}

impl DirEntry {
    /// The name as the server sent it: it may hold anything, slashes and control characters
    /// included.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The name as text, with what a terminal or a log should not see escaped.
    #[must_use]
    pub fn display_name(&self) -> String {
        ketch_protocol::Escaped(&self.name).to_string()
    }

    /// A line for people, as `ls -l` prints it; nobody promises its form.
    #[must_use]
    pub fn longname(&self) -> &[u8] {
        &self.longname
    }

    /// What the server tells about the file; of a link, about the link itself.
    #[must_use]
    pub const fn attrs(&self) -> Attrs {
        self.attrs
    }

    /// What kind of file it is.
    #[must_use]
    pub const fn file_type(&self) -> FileType {
        self.file_type
    }
}

impl From<OwnedName> for DirEntry {
    fn from(
        OwnedName {
            filename,
            longname,
            attrs,
            file_type,
        }: OwnedName,
    ) -> Self {
        Self {
            name: filename,
            longname,
            attrs,
            file_type,
        }
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answer = Result<Reply, Unanswered>;

/// The entries of a directory, as they come; `.` and `..` are left out.
///
/// The directory is opened when the first entry is asked for. After an error, or the end, the
/// stream gives nothing more. Dropped, it is closed.
pub struct ReadDir {
    sftp: Sftp,
    path: RemotePath,
    state: State,
    ready: VecDeque<DirEntry>,
}

enum State {
    Opening(BoxFuture<Result<Vec<u8>, SftpError>>),
    Reading(Reading),
    Over,
}

struct Reading {
    handle: Vec<u8>,
    /// A request that waits for its turn among the calls.
    sending: Option<BoxFuture<Queued>>,
    pending: VecDeque<Call>,
    /// Requests to have under way.
    depth: usize,
    empty: u8,
}

/// A call that has had its turn; its answer is still to come.
struct Queued(Call);

impl ReadDir {
    pub(crate) fn new(sftp: Sftp, path: RemotePath) -> Self {
        let open = open(sftp.clone(), path.clone());
        Self {
            sftp,
            path,
            state: State::Opening(Box::pin(open)),
            ready: VecDeque::new(),
        }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn next(&mut self) -> Option<Result<DirEntry, SftpError>> {
        poll_fn(|cx| self.poll_entry(cx)).await
    }

    fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<DirEntry, SftpError>>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(entry)));
            }
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Opening(open) => match open.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(handle)) => {
                        let pending = VecDeque::new();
                        self.state = State::Reading(Reading {
                            handle,
                            sending: None,
                            pending,
                            depth: READDIRS_MIN,
                            empty: 0,
                        });
                    }
                    Poll::Ready(Err(error)) => {
                        self.state = State::Over;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Reading(reading) => {
                    reading.send_ahead(&self.sftp, cx);
                    let Some(call) = reading.pending.front_mut() else {
                        return Poll::Pending;
                    };
                    let answer = match Pin::new(call).poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(answer) => answer,
                    };
                    reading.pending.pop_front();
                    if let Err(error) = self.on_answer(answer) {
                        self.end();
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }

    fn on_answer(&mut self, answer: Answer) -> Result<(), SftpError> {
        let operation = Operation::ReadDir;
        let State::Reading(reading) = &mut self.state else {
            return Ok(());
        };
        match answer {
            Ok(Reply::Names(names)) => {
                reading.depth = (reading.depth * 2).min(READDIRS_MAX);
                if names.is_empty() {
                    reading.empty += 1;
                    if reading.empty > EMPTY_ANSWERS_MAX {
                        self.end();
                    }
                }
                let names = names
                    .into_iter()
                    .filter(|name| !matches!(&name.filename[..], b"." | b".."));
                self.ready.extend(names.map(DirEntry::from));
                Ok(())
            }
            // What was asked beyond the end is answered the same, to nobody.
            Ok(Reply::Status(StatusCode::EOF, _)) => {
                self.end();
                Ok(())
            }
            Ok(other) => Err(SftpError::other(operation, &self.path, other)),
            Err(unanswered) => Err(SftpError::unanswered(operation, &self.path, &unanswered)),
        }
    }

    fn end(&mut self) {
        if let State::Reading(reading) = std::mem::replace(&mut self.state, State::Over) {
            self.sftp.shared().submit(Submission::Close(reading.handle));
        }
    }
}

impl Reading {
    /// Sends requests until enough are under way.
    fn send_ahead(&mut self, sftp: &Sftp, cx: &mut Context<'_>) {
        while self.pending.len() < self.depth {
            let sending = self.sending.get_or_insert_with(|| {
                let mut packet = Vec::new();
                Request::Readdir(Readdir {
                    handle: &self.handle,
                })
                .encode_packet(0, &mut packet);
                let shared = std::sync::Arc::clone(sftp.shared());
                Box::pin(async move { Queued(shared.call(packet, Expect::Name, ANSWER_LEN).await) })
            });
            match sending.as_mut().poll(cx) {
                Poll::Pending => return,
                Poll::Ready(Queued(call)) => {
                    self.sending = None;
                    self.pending.push_back(call);
                }
            }
        }
    }
}

async fn open(sftp: Sftp, path: RemotePath) -> Result<Vec<u8>, SftpError> {
    let request = Request::Opendir(Opendir {
        path: path.as_bytes(),
    });
    sftp.handle(Operation::ReadDir, &path, &request).await
}

impl Stream for ReadDir {
    type Item = Result<DirEntry, SftpError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_entry(cx)
    }
}

impl Drop for ReadDir {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadDir")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
