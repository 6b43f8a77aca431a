//! A directory on the server, being listed.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use ketch_protocol::{
    Attrs, FileType, NameEntry, Opendir, Readdir, RemotePath, Request, StatusCode,
};

use crate::{
    requests::{
        calls::{Asked, Hold, OwnedNames, Reply, Submission, Unanswered},
        table::Expect,
    },
    sftp::{Operation, Sftp, SftpError},
};

/// READDIRs under way at first, and at most on a path without delay: there more only wait inside the
/// server.
const READDIRS_MIN: usize = 2;
const READDIRS_MAX_NEAR: usize = 4;
/// READDIRs under way at first on a path with delay: the answers to so many let all that are wanted
/// leave. What is asked too much of a short directory costs its server some ten microseconds, and
/// another directory its turn.
const READDIRS_MIN_FAR: usize = 4;
/// Up to so many under way, half of them are answered before there are more. A longer listing has them
/// replaced one by one, as it has to keep a long path full.
const READDIRS_HALVED: usize = 16;
/// READDIRs under way at most. OpenSSH's server answers some 3,000 a second with 100 entries each, so
/// this keeps it busy over 60 ms there and back.
const READDIRS_MAX: usize = 192;
/// Bytes of answers that may be under way or wait to be looked at, as the answers were so far.
const ANSWERS_LEN_MAX: usize = 8 * 1024 * 1024;
/// What the answer to a READDIR is counted as, in bytes: OpenSSH's 100 entries take some 12 KiB.
const ANSWER_LEN: usize = 32 * 1024;
/// Answers without entries, which some servers give in place of `EOF`, that are borne.
const EMPTY_ANSWERS_MAX: u8 = 1;

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// The name, and behind it the line for people.
    text: Box<[u8]>,
    name_len: usize,
    attrs: Attrs,
    file_type: FileType,
}

impl DirEntry {
    /// The name as the server sent it: it may hold anything, slashes and control characters
    /// included.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.text.get(..self.name_len).unwrap_or_default()
    }

    /// The name as text, with what a terminal or a log should not see escaped.
    #[must_use]
    pub fn display_name(&self) -> String {
        ketch_protocol::Escaped(self.name()).to_string()
    }

    /// A line for people, as `ls -l` prints it; nobody promises its form.
    #[must_use]
    pub fn longname(&self) -> &[u8] {
        self.text.get(self.name_len..).unwrap_or_default()
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

/// One entry of a directory, lent by the [`DirEntries`] it came with.
#[derive(Clone, Copy, Debug)]
pub struct DirEntryRef<'a> {
    entry: NameEntry<'a>,
}

impl<'a> DirEntryRef<'a> {
    /// The name as the server sent it: it may hold anything, slashes and control characters
    /// included.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        self.entry.filename
    }

    /// A line for people, as `ls -l` prints it; nobody promises its form.
    #[must_use]
    pub const fn longname(&self) -> &'a [u8] {
        self.entry.longname
    }

    /// What the server tells about the file; of a link, about the link itself.
    #[must_use]
    pub const fn attrs(&self) -> Attrs {
        self.entry.attrs.attrs
    }

    /// What kind of file it is.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        self.entry.file_type()
    }

    /// A copy that can be kept.
    #[must_use]
    pub fn to_entry(&self) -> DirEntry {
        let (name, longname) = (self.name(), self.longname());
        DirEntry {
            text: [name, longname].concat().into_boxed_slice(),
            name_len: name.len(),
            attrs: self.attrs(),
            file_type: self.file_type(),
        }
    }
}

/// The entries that came with one answer of the server, as they lie in it: nothing is allocated for
/// an entry.
#[derive(Clone, Debug)]
pub struct DirEntries {
    names: OwnedNames,
}

impl DirEntries {
    /// The entries, `.` and `..` left out.
    pub fn iter(&self) -> impl Iterator<Item = DirEntryRef<'_>> {
        self.names.iter().filter_map(listed)
    }
}

fn listed(entry: NameEntry<'_>) -> Option<DirEntryRef<'_>> {
    (!matches!(entry.filename, b"." | b"..")).then_some(DirEntryRef { entry })
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answer = Result<Reply, Unanswered>;

/// The entries of a directory, as they come; `.` and `..` are left out.
///
/// The directory is opened when the first entry is asked for. Requests are under way ahead of the
/// reader, more of them the longer the path is, so that a long listing takes few round trips; what
/// waits to be looked at is bounded. After an error, or the end, the stream gives nothing more.
/// Dropped, it is closed.
///
/// [`next`](Self::next), and the stream, give entry after entry. For listings of very many entries,
/// [`next_entries`](Self::next_entries) gives them as they come and costs a tenth.
pub struct ReadDir {
    sftp: Sftp,
    path: RemotePath,
    state: State,
    /// What is left of the answer that is being looked at.
    ready: OwnedNames,
}

enum State {
    Opening(BoxFuture<Result<Vec<u8>, SftpError>>),
    Reading(Reading),
    Over,
}

struct Reading {
    handle: Vec<u8>,
    /// Bytes that came and were not looked at.
    hold: Arc<Hold>,
    pending: VecDeque<Asked>,
    /// Requests to have under way.
    depth: usize,
    /// How many were under way when some were sent last.
    sent: usize,
    /// Bytes of the longest answer so far.
    longest: usize,
    empty: u8,
}

impl ReadDir {
    pub(crate) fn new(sftp: Sftp, path: RemotePath) -> Self {
        let open = open(sftp.clone(), path.clone());
        Self {
            sftp,
            path,
            state: State::Opening(Box::pin(open)),
            ready: OwnedNames::default(),
        }
    }

    /// The directory that is listed, as it was named.
    #[must_use]
    pub const fn path(&self) -> &RemotePath {
        &self.path
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn next(&mut self) -> Option<Result<DirEntry, SftpError>> {
        poll_fn(|cx| self.poll_entry(cx)).await
    }

    /// The entries of the next answer, all at once; `None` at the end.
    ///
    /// ```no_run
    /// # async fn example(sftp: ketch_client::Sftp) -> Result<(), ketch_client::SftpError> {
    /// let mut directory = sftp.read_dir("in");
    /// let mut bytes = 0;
    /// while let Some(entries) = directory.next_entries().await {
    ///     bytes += entries?.iter().filter_map(|entry| entry.attrs().size).sum::<u64>();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn next_entries(&mut self) -> Option<Result<DirEntries, SftpError>> {
        poll_fn(|cx| self.poll_entries(cx)).await
    }

    fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<DirEntry, SftpError>>> {
        loop {
            let owned = |entry: NameEntry<'_>| listed(entry).map(|entry| entry.to_entry());
            while let Some(entry) = self.ready.with_first(owned) {
                if let Some(entry) = entry {
                    return Poll::Ready(Some(Ok(entry)));
                }
            }
            match ready!(self.poll_names(cx)) {
                Some(Ok(names)) => self.ready = names,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    pub(crate) fn poll_entries(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<DirEntries, SftpError>>> {
        if !self.ready.is_empty() {
            let names = std::mem::take(&mut self.ready);
            return Poll::Ready(Some(Ok(DirEntries { names })));
        }
        let names = ready!(self.poll_names(cx));
        Poll::Ready(names.map(|names| names.map(|names| DirEntries { names })))
    }

    fn poll_names(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<OwnedNames, SftpError>>> {
        loop {
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Opening(open) => match ready!(open.as_mut().poll(cx)) {
                    Ok(handle) => {
                        let depth = if self.sftp.shared().is_near() {
                            READDIRS_MIN
                        } else {
                            READDIRS_MIN_FAR
                        };
                        self.state = State::Reading(Reading {
                            handle,
                            hold: Arc::default(),
                            pending: VecDeque::new(),
                            depth,
                            sent: 0,
                            longest: 0,
                            empty: 0,
                        });
                    }
                    Err(error) => {
                        self.state = State::Over;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Reading(reading) => {
                    reading.send_ahead(&self.sftp, cx);
                    let Some(call) = reading.pending.front_mut() else {
                        return Poll::Pending;
                    };
                    let answer = ready!(Pin::new(call).poll(cx));
                    reading.pending.pop_front();
                    match self.on_answer(answer) {
                        Ok(names) if names.is_empty() => {}
                        Ok(names) => return Poll::Ready(Some(Ok(names))),
                        Err(error) => {
                            self.end();
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
            }
        }
    }

    /// The names of an answer; none at the end.
    fn on_answer(&mut self, answer: Answer) -> Result<OwnedNames, SftpError> {
        let operation = Operation::ReadDir;
        let State::Reading(reading) = &mut self.state else {
            return Ok(OwnedNames::default());
        };
        match answer {
            Ok(Reply::Names(names)) => {
                reading.hold.release(names.len_in_bytes());
                if names.is_empty() {
                    reading.empty += 1;
                    if reading.empty > EMPTY_ANSWERS_MAX {
                        self.end();
                    }
                } else {
                    let len = names.len_in_bytes();
                    // Most directories end with the first answer or the second.
                    if reading.longest > 0 {
                        reading.depth = reading.depth.saturating_mul(2).min(READDIRS_MAX);
                    }
                    reading.longest = reading.longest.max(len);
                }
                Ok(names)
            }
            // What was asked beyond the end is answered the same, to nobody.
            Ok(Reply::Status(StatusCode::EOF, _)) => {
                self.end();
                Ok(OwnedNames::default())
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
        if sftp.shared().is_near() {
            self.depth = self.depth.min(READDIRS_MAX_NEAR);
        }
        // At most one waits for its turn, the last one.
        if let Some(last) = self.pending.back_mut()
            && last.poll_turn(cx).is_pending()
        {
            return;
        }
        // Not one for each answer: fewer writes and wake-ups, and none for a directory that is over.
        if self.sent <= READDIRS_HALVED && self.pending.len() > self.sent / 2 {
            return;
        }
        let fitting = ANSWERS_LEN_MAX / self.longest.max(1);
        let depth = self.depth.min(fitting.max(READDIRS_MIN));
        while self.pending.len() < depth {
            let handle = &self.handle;
            let mut packet = Vec::new();
            Request::Readdir(Readdir { handle }).encode_packet(0, &mut packet);
            let shared = sftp.shared();
            let mut asked = shared.ask(packet, Expect::Name, ANSWER_LEN, Some(&self.hold));
            let turn = asked.poll_turn(cx);
            self.pending.push_back(asked);
            self.sent = self.pending.len();
            if turn.is_pending() {
                return;
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
