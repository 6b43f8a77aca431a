//! A file as a stream: `AsyncRead`, `AsyncWrite` and `AsyncSeek`, with requests under way before
//! they are waited for.
//!
//! Reading asks ahead of the reader, more with every answer that was used, up to
//! [`READ_AHEAD_MAX`]; a jump elsewhere begins anew. Writing gathers small pieces into one request
//! and does not wait for its answer until [`WRITE_BEHIND_MAX`] bytes are under way. What goes wrong
//! with a write is said by a later write, or by `flush` and `shutdown` at the latest.
//!
//! Each request is an [`Asked`] of its own from when it is made, kept beside what it is for: one
//! that still waits for its turn among the calls when the stream goes on elsewhere goes with that.
//!
//! A read waits for the writes before it, and a write that does not continue the one before waits
//! for that: servers may work on the requests of one file at the same time, so order is made here.

use std::{
    collections::VecDeque,
    io::{self, SeekFrom},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use ketch_protocol::{Close, Fstat, Read, Request, StatusCode, Write};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

use super::File;
use crate::{
    requests::{
        calls::{Asked, Reply},
        table::Expect,
    },
    sftp::{Operation, SftpError},
};

/// Bytes that are asked for ahead of the reader, at most; as many may wait to be read.
const READ_AHEAD_MAX: usize = 8 * 1024 * 1024;
/// The same on a path without delay, where more only waits inside the server.
const READ_AHEAD_MAX_NEAR: usize = 1024 * 1024;
/// Bytes that were written and not yet answered for, at most.
const WRITE_BEHIND_MAX: usize = 8 * 1024 * 1024;
/// The same on a path without delay.
const WRITE_BEHIND_MAX_NEAR: usize = 512 * 1024;
/// Bytes of one READ or WRITE where the server allows it: with its header it fills two packets of
/// a channel, which costs sshd the least.
const PIECE_LEN: usize = 2 * 32_768 - 512;
/// The least that is asked for at once: who reads a little mostly goes on.
const FIRST_READ_LEN: usize = 32 * 1024 - 512;

/// Where the stream is, and what is under way for it.
#[derive(Default)]
pub(super) struct Stream {
    position: u64,
    ahead: Ahead,
    behind: Behind,
    seek: Option<Seek>,
    closing: Option<Asked>,
}

/// What is read ahead.
#[derive(Default)]
struct Ahead {
    /// Bytes that have come; the first of them stands at the position.
    ready: Bytes,
    /// What is asked for behind them, in order.
    pieces: VecDeque<Piece>,
    /// Bytes in `pieces`.
    asked: usize,
    /// Bytes to have asked for.
    window: usize,
}

struct Piece {
    offset: u64,
    len: usize,
    asked: Asked,
}

/// What is written behind.
#[derive(Default)]
struct Behind {
    /// Bytes that no request was made for yet.
    gathered: Vec<u8>,
    /// Where they belong.
    offset: u64,
    /// Writes under way, with their lengths; at most the last one waits for its turn.
    pending: VecDeque<(usize, Asked)>,
    in_flight: usize,
    /// What went wrong; the file is not what was written from then on.
    failed: Option<SftpError>,
}

/// A seek that is under way.
enum Seek {
    /// From the end: its place is asked for.
    End { delta: i64, asked: Option<Asked> },
}

impl Stream {
    /// The file is used: nobody waits for a seek or a close that was begun before. They must not be
    /// done later, in the middle of something else.
    fn go_on(&mut self) {
        (self.seek, self.closing) = (None, None);
    }
}

impl Behind {
    fn is_idle(&self) -> bool {
        self.gathered.is_empty() && self.pending.is_empty()
    }

    fn check(&self) -> Result<(), SftpError> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

impl Ahead {
    fn forget(&mut self) {
        *self = Self::default();
    }

    /// Waits until all pieces had their turn: the last one may wait for it, and the rest of a short
    /// answer.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turns = self.pieces.iter_mut();
        let turns = turns.map(|piece| piece.asked.poll_turn(cx));
        if turns.filter(Poll::is_pending).count() > 0 {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Goes on elsewhere: keeps what is of use there.
    fn move_to(&mut self, from: u64, to: u64) {
        let skip = to.checked_sub(from).and_then(|n| usize::try_from(n).ok());
        match skip {
            Some(skip) if skip < self.ready.len() || to == from => self.ready.advance(skip),
            _ => self.forget(),
        }
    }
}

impl File {
    /// Bytes of one request of the stream.
    fn stream_piece_len(&self) -> usize {
        self.piece_len().min(PIECE_LEN)
    }

    fn is_near(&self) -> bool {
        self.sftp.shared().is_near()
    }

    fn closed(&self) -> io::Result<()> {
        if self.handle.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the file was closed by a shutdown",
            ));
        }
        Ok(())
    }

    fn ask_piece(&self, offset: u64, len: usize) -> Piece {
        let wanted = u32::try_from(len).unwrap_or(u32::MAX);
        let mut packet = Vec::new();
        let request = Read {
            handle: &self.handle,
            offset,
            len: wanted,
        };
        Request::Read(request).encode_packet(0, &mut packet);
        let shared = self.sftp.shared();
        let asked = shared.ask(packet, Expect::Data(wanted), len, None);
        Piece { offset, len, asked }
    }

    /// Asks for what the window admits; `wanted` is what the reader has room for.
    fn poll_ask_ahead(&mut self, wanted: usize, cx: &mut Context<'_>) {
        let piece_len = self.stream_piece_len();
        let ahead = &mut self.stream.ahead;
        if ahead.window == 0 {
            ahead.window = wanted.clamp(FIRST_READ_LEN, READ_AHEAD_MAX_NEAR);
        }
        loop {
            let ahead = &mut self.stream.ahead;
            if ahead.poll_turns(cx).is_pending() || ahead.asked >= ahead.window {
                return;
            }
            let position = self.stream.position;
            let end = ahead
                .pieces
                .back()
                .map_or(position.saturating_add(ahead.ready.len() as u64), |piece| {
                    piece.offset.saturating_add(piece.len as u64)
                });
            let len = piece_len.min(ahead.window - ahead.asked);
            // Nothing can be there.
            if end.checked_add(len as u64).is_none() && !ahead.pieces.is_empty() {
                return;
            }
            let piece = self.ask_piece(end, len);
            self.stream.ahead.asked += len;
            self.stream.ahead.pieces.push_back(piece);
        }
    }

    fn poll_read_stream(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.closed()?;
        self.stream.go_on();
        if !self.stream.behind.is_idle() {
            ready!(self.poll_written(cx))?;
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            self.poll_ask_ahead(buf.remaining(), cx);
            let stream = &mut self.stream;
            let ahead = &mut stream.ahead;
            if ahead.ready.has_remaining() {
                let len = ahead.ready.len().min(buf.remaining());
                buf.put_slice(ahead.ready.get(..len).unwrap_or_default());
                ahead.ready.advance(len);
                stream.position = stream.position.saturating_add(len as u64);
                return Poll::Ready(Ok(()));
            }
            let Some(piece) = ahead.pieces.front_mut() else {
                return Poll::Ready(Ok(())); // nothing can be there
            };
            let answer = ready!(Pin::new(&mut piece.asked).poll(cx));
            let (asked, offset) = (piece.len, piece.offset);
            ahead.pieces.pop_front();
            ahead.asked = ahead.asked.saturating_sub(asked);
            let data = match self.take_data(answer, asked) {
                Ok(data) => data,
                Err(error) => {
                    self.stream.ahead.forget();
                    return Poll::Ready(Err(error.into()));
                }
            };
            if data.is_empty() {
                // What was asked behind the end is answered to nobody; a file that has grown is
                // read on by the next call.
                self.stream.ahead.forget();
                return Poll::Ready(Ok(()));
            }
            if let Some(missing) = asked.checked_sub(data.len()).filter(|&n| n > 0) {
                // A short answer: its rest comes before what stands behind it.
                let offset = offset.saturating_add(data.len() as u64);
                let rest = self.ask_piece(offset, missing);
                self.stream.ahead.asked += missing;
                self.stream.ahead.pieces.push_front(rest);
            }
            let max = if self.is_near() {
                READ_AHEAD_MAX_NEAR
            } else {
                READ_AHEAD_MAX
            };
            let ahead = &mut self.stream.ahead;
            ahead.window = ahead.window.saturating_mul(2).min(max);
            ahead.ready = data;
        }
    }

    /// Makes a request of what was gathered, once there is room for it: from then on it is
    /// [`Behind::pending`], and what is written next is gathered anew.
    fn poll_send_gathered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SftpError>> {
        ready!(self.poll_last_turn(cx));
        let max = if self.is_near() {
            WRITE_BEHIND_MAX_NEAR
        } else {
            WRITE_BEHIND_MAX
        };
        while self.stream.behind.in_flight >= max {
            ready!(self.poll_oldest_write(cx))?;
        }
        let behind = &mut self.stream.behind;
        let len = behind.gathered.len();
        let handle = &self.handle;
        let mut packet = Vec::with_capacity(Write::header_len(handle.len()).saturating_add(len));
        let request = Write {
            handle,
            offset: behind.offset,
            data: &behind.gathered,
        };
        Request::Write(request).encode_packet(0, &mut packet);
        behind.gathered.clear();
        behind.offset = behind.offset.saturating_add(len as u64);
        behind.in_flight += len;
        let packet_len = packet.len();
        let shared = self.sftp.shared();
        let asked = shared.ask(packet, Expect::Status, packet_len, None);
        behind.pending.push_back((len, asked));
        // It leaves at once if it can; if not, the next call sees to it.
        let _ = self.poll_last_turn(cx);
        Poll::Ready(Ok(()))
    }

    /// Waits until the last write had its turn among the calls.
    fn poll_last_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.stream.behind.pending.back_mut() {
            Some((_, asked)) => asked.poll_turn(cx),
            None => Poll::Ready(()),
        }
    }

    /// Waits for the answer to the oldest write.
    fn poll_oldest_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SftpError>> {
        let behind = &mut self.stream.behind;
        let Some((len, asked)) = behind.pending.front_mut() else {
            behind.in_flight = 0;
            return Poll::Ready(Ok(()));
        };
        let answer = ready!(Pin::new(asked).poll(cx));
        behind.in_flight = behind.in_flight.saturating_sub(*len);
        behind.pending.pop_front();
        if let Err(error) = self.take_written(answer) {
            self.stream.behind.failed.get_or_insert(error);
        }
        Poll::Ready(self.stream.behind.check())
    }

    /// Waits until all that was written is answered for.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SftpError>> {
        self.stream.behind.check()?;
        if !self.stream.behind.gathered.is_empty() {
            ready!(self.poll_send_gathered(cx))?;
        }
        ready!(self.poll_last_turn(cx));
        while !self.stream.behind.pending.is_empty() {
            ready!(self.poll_oldest_write(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_stream(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.closed()?;
        self.stream.behind.check()?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let piece_len = self.stream_piece_len();
        let stream = &mut self.stream;
        stream.go_on();
        // What was read ahead is not what stands there afterwards.
        stream.ahead.forget();
        let behind = &stream.behind;
        let end = behind.offset.saturating_add(behind.gathered.len() as u64);
        if end != stream.position && !behind.is_idle() {
            ready!(self.poll_written(cx))?;
        }
        if self.stream.behind.gathered.len() >= piece_len {
            ready!(self.poll_send_gathered(cx))?;
        }
        let Stream {
            behind, position, ..
        } = &mut self.stream;
        if behind.gathered.is_empty() {
            behind.offset = *position;
        }
        let len = data.len().min(piece_len - behind.gathered.len());
        behind
            .gathered
            .extend_from_slice(data.get(..len).unwrap_or_default());
        *position = position.saturating_add(len as u64);
        if behind.gathered.len() == piece_len {
            // If there is no room for it yet, the next call makes a request of it.
            let _ = self.poll_send_gathered(cx)?;
        }
        Poll::Ready(Ok(len))
    }

    /// Writes all, closes the handle, and waits for the server to say how that went.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SftpError>> {
        if !self.handle.is_empty() {
            self.stream.ahead.forget();
            ready!(self.poll_written(cx))?;
            let closing = self.stream.closing.get_or_insert_with(|| {
                let mut packet = Vec::new();
                let handle = &self.handle;
                Request::Close(Close { handle }).encode_packet(0, &mut packet);
                let len = packet.len();
                self.sftp.shared().ask(packet, Expect::Status, len, None)
            });
            ready!(closing.poll_turn(cx));
            // It is queued, and will be sent: nobody may use or close the handle once more, when it
            // may be another file's.
            self.handle.clear();
        }
        let Some(closing) = &mut self.stream.closing else {
            return Poll::Ready(Ok(()));
        };
        let answer = ready!(Pin::new(closing).poll(cx));
        self.stream.closing = None;
        Poll::Ready(self.take_closed(answer))
    }

    fn poll_seek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if self.stream.seek.is_none() {
            return Poll::Ready(Ok(self.stream.position));
        }
        if !self.stream.behind.is_idle() {
            ready!(self.poll_written(cx))?;
        }
        // What is read ahead may be of use there, too.
        let _ = self.stream.ahead.poll_turns(cx);
        let Some(Seek::End { delta, asked }) = &mut self.stream.seek else {
            return Poll::Ready(Ok(self.stream.position));
        };
        let asked = asked.get_or_insert_with(|| {
            let mut packet = Vec::new();
            let handle = &self.handle;
            Request::Fstat(Fstat { handle }).encode_packet(0, &mut packet);
            self.sftp.shared().ask(packet, Expect::Attrs, 0, None)
        });
        let answer = ready!(Pin::new(asked).poll(cx));
        let delta = *delta;
        self.stream.seek = None;
        let size = match answer {
            Ok(Reply::Attrs(attrs)) => attrs.size,
            Ok(other) => return Poll::Ready(Err(self.failed(Operation::Stat, other).into())),
            Err(unanswered) => {
                let error = SftpError::unanswered(Operation::Stat, &self.path, &unanswered);
                return Poll::Ready(Err(error.into()));
            }
        };
        let Some(size) = size else {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the server does not tell where the file ends",
            )));
        };
        let to = size.checked_add_signed(delta).ok_or_else(before_the_start);
        Poll::Ready(to.inspect(|&to| self.jump(to)))
    }

    fn jump(&mut self, to: u64) {
        let stream = &mut self.stream;
        stream.ahead.move_to(stream.position, to);
        stream.position = to;
    }

    fn failed(&self, operation: Operation, reply: Reply) -> SftpError {
        SftpError::other(operation, &self.path, reply)
    }

    pub(super) fn take_written(
        &self,
        answer: Result<Reply, crate::requests::calls::Unanswered>,
    ) -> Result<(), SftpError> {
        self.take_done(Operation::Write, answer)
    }

    pub(super) fn take_closed(
        &self,
        answer: Result<Reply, crate::requests::calls::Unanswered>,
    ) -> Result<(), SftpError> {
        self.take_done(Operation::Close, answer)
    }

    fn take_done(
        &self,
        operation: Operation,
        answer: Result<Reply, crate::requests::calls::Unanswered>,
    ) -> Result<(), SftpError> {
        match answer {
            Ok(Reply::Status(StatusCode::OK, _)) => Ok(()),
            Ok(other) => Err(self.failed(operation, other)),
            Err(unanswered) => Err(SftpError::unanswered(operation, &self.path, &unanswered)),
        }
    }
}

fn before_the_start() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a place before the start of the file",
    )
}

impl AsyncRead for File {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_read_stream(cx, buf)
    }
}

impl AsyncWrite for File {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_stream(cx, data)
    }

    /// Waits until the server has answered for all that was written; it need not be on its disk:
    /// see [`File::sync_all`].
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_written(cx).map_err(io::Error::from)
    }

    /// Flushes and closes the file.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_close(cx).map_err(io::Error::from)
    }
}

impl AsyncSeek for File {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let file = self.get_mut();
        file.closed()?;
        file.stream.go_on();
        match to {
            SeekFrom::Start(to) => file.jump(to),
            SeekFrom::Current(delta) => {
                let to = file.stream.position.checked_add_signed(delta);
                file.jump(to.ok_or_else(before_the_start)?);
            }
            SeekFrom::End(delta) => file.stream.seek = Some(Seek::End { delta, asked: None }),
        }
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        self.get_mut().poll_seek(cx)
    }
}
