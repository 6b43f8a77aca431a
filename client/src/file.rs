//! An open file on the server.

mod stream;

use std::{collections::VecDeque, fmt, future::poll_fn};

use bytes::{Bytes, BytesMut};
use ketch_protocol::{
    Attrs, Fsetstat, Fstat, OpenFlags, Read, RemotePath, Request, StatVfs, StatusCode, Write,
    limits::{DATA_LEN_MAX, DATA_LEN_PORTABLE},
};

use self::stream::Stream;
use crate::{
    requests::{
        calls::{Call, Reply, Submission},
        table::Expect,
    },
    sftp::{Operation, Sftp, SftpError},
};

/// Requests of one call that are under way at a time.
const CALLS_AT_ONCE: usize = 8;

/// How a file is opened. Default: for nothing; say [`read`](Self::read), [`write`](Self::write),
/// or both.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    flags: OpenFlags,
    permissions: Option<u32>,
}

impl OpenOptions {
    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The file is there, and will be read.
    #[must_use]
    pub fn reading() -> Self {
        Self::new().read()
    }

    /// The file is created or cut to nothing, and will be written.
    #[must_use]
    pub fn writing() -> Self {
        Self::new().write().create().truncate()
    }

    /// The file will be read.
    #[must_use]
    pub fn read(self) -> Self {
        self.with(OpenFlags::READ)
    }

    /// The file will be written.
    #[must_use]
    pub fn write(self) -> Self {
        self.with(OpenFlags::WRITE)
    }

    /// Writes go to the end of the file, whatever offset they name.
    #[must_use]
    pub fn append(self) -> Self {
        self.with(OpenFlags::WRITE | OpenFlags::APPEND)
    }

    /// The file is created if it is not there.
    #[must_use]
    pub fn create(self) -> Self {
        self.with(OpenFlags::CREATE)
    }

    /// The file is created, and must not have been there.
    #[must_use]
    pub fn create_new(self) -> Self {
        self.with(OpenFlags::CREATE | OpenFlags::EXCLUSIVE)
    }

    /// A file that is there loses its content.
    #[must_use]
    pub fn truncate(self) -> Self {
        self.with(OpenFlags::TRUNCATE)
    }

    /// Permission bits of a file that is created. Default: what the server chooses.
    #[must_use]
    pub const fn permissions(mut self, mode: u32) -> Self {
        self.permissions = Some(mode & 0o7777);
        self
    }

    fn with(mut self, flags: OpenFlags) -> Self {
        self.flags |= flags;
        self
    }

    pub(crate) const fn flags(self) -> OpenFlags {
        self.flags
    }

    pub(crate) const fn attrs(self) -> Attrs {
        Attrs {
            permissions: self.permissions,
            ..Attrs::NONE
        }
    }
}

/// An open file on the server.
///
/// It can be used in two ways. [`read_at`](File::read_at) and [`write_at`](File::write_at) name their
/// offset, and several may be under way at the same time. And it is a stream with a position of its
/// own ([`AsyncRead`](tokio::io::AsyncRead), [`AsyncWrite`](tokio::io::AsyncWrite),
/// [`AsyncSeek`](tokio::io::AsyncSeek)), which reads ahead and writes behind, so that
/// `tokio::io::copy` keeps a long path full with a few mebibytes of memory. What was written to the
/// stream is with the server after `flush`; until then, the calls that name an offset, or ask for
/// attributes, may not see it.
///
/// ```no_run
/// use ketch_client::OpenOptions;
/// use tokio::io::AsyncWriteExt;
///
/// # async fn example(sftp: ketch_client::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// let mut from = sftp.open("in/a.csv", OpenOptions::reading()).await?;
/// let mut to = sftp.open("copy.csv", OpenOptions::writing()).await?;
/// tokio::io::copy(&mut from, &mut to).await?;
/// to.shutdown().await?; // writes what is left, closes, and tells what went wrong
/// # Ok(())
/// # }
/// ```
///
/// Dropped, it is closed without anybody waiting for the answer, and what was not flushed is lost;
/// after writing, wait for [`close`](File::close) or `shutdown`, which is where some servers report
/// what went wrong.
pub struct File {
    sftp: Sftp,
    path: RemotePath,
    handle: Vec<u8>,
    stream: Stream,
}

impl File {
    pub(crate) fn new(sftp: Sftp, path: RemotePath, handle: Vec<u8>) -> Self {
        Self {
            sftp,
            path,
            handle,
            stream: Stream::default(),
        }
    }

    /// The path that it was opened by.
    #[must_use]
    pub const fn path(&self) -> &RemotePath {
        &self.path
    }

    /// The handle in the server's words: opaque bytes.
    #[must_use]
    pub fn handle(&self) -> &[u8] {
        &self.handle
    }

    /// Reads `len` bytes from `offset` on; fewer if the file ends before, none at its end.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, SftpError> {
        let first = self.read_some(offset, len).await?;
        if first.len() == len || first.is_empty() {
            return Ok(first); // one request did: nothing is copied
        }
        let mut all = BytesMut::from(&first[..]);
        let mut pending = VecDeque::new();
        let piece_len = first.len().max(self.piece_len());
        let mut next = first.len();
        while all.len() < len {
            while pending.len() < CALLS_AT_ONCE && next < len {
                let want = piece_len.min(len - next);
                pending.push_back((
                    want,
                    self.send_read(offset.saturating_add(next as u64), want)
                        .await,
                ));
                next += want;
            }
            let Some((want, call)) = pending.pop_front() else {
                break;
            };
            let mut got = self.take_data(call.await, want)?;
            all.extend_from_slice(&got);
            let mut missing = want - got.len();
            while missing > 0 {
                // A short answer: the rest of this piece comes before the pieces behind it.
                got = self
                    .read_some(offset.saturating_add(all.len() as u64), missing)
                    .await?;
                if got.is_empty() {
                    return Ok(all.freeze()); // what was asked beyond the end is given up
                }
                all.extend_from_slice(&got);
                missing -= got.len();
            }
        }
        Ok(all.freeze())
    }

    /// Reads with one request.
    async fn read_some(&self, offset: u64, len: usize) -> Result<Bytes, SftpError> {
        let len = len.min(self.piece_len());
        if len == 0 {
            return Ok(Bytes::new());
        }
        let call = self.send_read(offset, len).await;
        self.take_data(call.await, len)
    }

    async fn send_read(&self, offset: u64, len: usize) -> Call {
        let wanted = u32::try_from(len).unwrap_or(DATA_LEN_PORTABLE);
        let mut packet = Vec::new();
        let request = Read {
            handle: &self.handle,
            offset,
            len: wanted,
        };
        Request::Read(request).encode_packet(0, &mut packet);
        self.sftp
            .shared()
            .call(packet, Expect::Data(wanted), len)
            .await
    }

    fn take_data(
        &self,
        answer: Result<Reply, crate::requests::calls::Unanswered>,
        asked: usize,
    ) -> Result<Bytes, SftpError> {
        match answer {
            Ok(Reply::Data(data)) if data.len() <= asked => Ok(data),
            Ok(Reply::Status(StatusCode::EOF, _)) => Ok(Bytes::new()),
            Ok(other) => Err(SftpError::other(Operation::Read, &self.path, other)),
            Err(unanswered) => Err(SftpError::unanswered(
                Operation::Read,
                &self.path,
                &unanswered,
            )),
        }
    }

    /// Bytes of one READ or WRITE.
    fn piece_len(&self) -> usize {
        let limits = self.sftp.shared().server_now().limits;
        let len = limits.map_or(u64::from(DATA_LEN_PORTABLE), |limits| {
            match limits.read_len.min(limits.write_len) {
                0 => u64::from(DATA_LEN_PORTABLE),
                len => len.min(u64::from(DATA_LEN_MAX)),
            }
        });
        usize::try_from(len).unwrap_or(DATA_LEN_PORTABLE as usize)
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// See [`Sftp`]. Some of it may have been written.
    pub async fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), SftpError> {
        let mut pending = VecDeque::new();
        let mut at = offset;
        for piece in data.chunks(self.piece_len()) {
            if pending.len() == CALLS_AT_ONCE
                && let Some(call) = pending.pop_front()
            {
                self.written(call).await?;
            }
            let mut packet = Vec::new();
            let request = Write {
                handle: &self.handle,
                offset: at,
                data: piece,
            };
            Request::Write(request).encode_packet(0, &mut packet);
            let len = packet.len();
            pending.push_back(self.sftp.shared().call(packet, Expect::Status, len).await);
            at = at.saturating_add(piece.len() as u64);
        }
        while let Some(call) = pending.pop_front() {
            self.written(call).await?;
        }
        Ok(())
    }

    async fn written(&self, call: Call) -> Result<(), SftpError> {
        self.take_written(call.await)
    }

    /// Attributes of the file.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn attrs(&self) -> Result<Attrs, SftpError> {
        let request = Request::Fstat(Fstat {
            handle: &self.handle,
        });
        self.sftp.attrs(Operation::Stat, &self.path, &request).await
    }

    /// Sets those attributes that are given; a size cuts or extends the file.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn set_attrs(&self, attrs: Attrs) -> Result<(), SftpError> {
        let request = Request::Fsetstat(Fsetstat {
            handle: &self.handle,
            attrs: attrs.into(),
        });
        self.sftp
            .done(Operation::SetAttrs, &self.path, &request)
            .await
    }

    /// How large and how full the file's file system is (`fstatvfs@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn statvfs(&self) -> Result<StatVfs, SftpError> {
        self.sftp.statvfs_of(self).await
    }

    /// Brings what was written to the server's disk (`fsync@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn sync_all(&self) -> Result<(), SftpError> {
        self.sftp.sync_file(self).await
    }

    /// Cuts or extends the file to `len` bytes; what is new reads as zeros.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn set_len(&self, len: u64) -> Result<(), SftpError> {
        self.set_attrs(Attrs {
            size: Some(len),
            ..Attrs::NONE
        })
        .await
    }

    /// Writes what is left of the stream, closes the file, and waits for the server to say how that
    /// went. It is closed, too, if the future is dropped.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn close(mut self) -> Result<(), SftpError> {
        poll_fn(|cx| self.poll_close(cx)).await
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let handle = std::mem::take(&mut self.handle);
        if !handle.is_empty() {
            self.sftp.shared().submit(Submission::Close(handle));
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
