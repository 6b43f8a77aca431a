//! A stream and the machine on it: reading into the arena, writing from the output buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroize as _;

use super::arena::{ARENA_LEN, Arena, OUTPUT_BUFFERS, READ_LEN};
use crate::connection::Connection;
use crate::packet::Input;

/// Stream, arena and machine of one connection.
pub(super) struct Link<S> {
    pub(super) stream: S,
    pub(super) connection: Connection,
    arena: Option<Arena>,
    /// Bytes of the arena that were read and not taken: always at its front between turns.
    filled: usize,
    /// Under which everything is logged that this connection does.
    pub(super) span: tracing::Span,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(super) fn new(stream: S, connection: Connection) -> Self {
        let span = tracing::info_span!("connection", role = connection.role_name());
        Self {
            span,
            stream,
            connection,
            arena: None,
            filled: 0,
        }
    }

    /// Reads once, behind what is there. `Ready(Ok(0))` is the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let arena = self.arena.get_or_insert_with(Arena::take);
        let end = self.filled.saturating_add(READ_LEN).min(ARENA_LEN);
        if end == self.filled {
            // No room while nothing is taken: an empty buffer would read as the end of the stream.
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(&mut arena.bytes[self.filled..end]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let len = buffer.filled().len();
        self.filled += len;
        Poll::Ready(Ok(len))
    }

    /// The machine, and what was read and not taken.
    pub(super) fn input(&mut self) -> (&mut Connection, Input<'_>) {
        let input = match &mut self.arena {
            Some(arena) => {
                if self.connection.inflates() {
                    arena.make_space();
                }
                Input::with_space(&mut arena.bytes, self.filled)
            }
            None => Input::new(&mut []),
        };
        (&mut self.connection, input)
    }

    /// The machine, and the arena for places that were noted in it.
    pub(super) const fn parts(&mut self) -> (&mut Connection, Option<&Arena>) {
        (&mut self.connection, self.arena.as_ref())
    }

    /// The first `taken` bytes of the input are done with; the unfinished packet behind them moves
    /// to the front.
    pub(super) fn taken(&mut self, taken: usize) {
        if taken > 0
            && let Some(arena) = &mut self.arena
        {
            arena.bytes.copy_within(taken..self.filled, 0);
        }
        self.filled -= taken;
    }

    /// As [`Link::taken`], and what was there is overwritten: arenas outlive their connections, and
    /// in a login passwords come as they are.
    pub(super) fn taken_and_wiped(&mut self, taken: usize) {
        let end = self.filled;
        self.taken(taken);
        if let Some(arena) = &mut self.arena
            && let Some(done) = arena.bytes.get_mut(self.filled..end)
        {
            done.zeroize();
        }
    }

    /// Writes once. `Ready(Ok(0))` if there is nothing to write.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let output = self.connection.output();
        if output.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let len = ready!(Pin::new(&mut self.stream).poll_write(cx, output))?;
        if len == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.connection.output_taken(len);
        Poll::Ready(Ok(len))
    }

    /// Before a turn: takes a pooled buffer to write in.
    pub(super) fn borrow_buffers(&mut self) {
        if self.connection.outbox.sender.lacks_buffer()
            && let Some(buffer) = OUTPUT_BUFFERS.take()
        {
            self.connection.outbox.sender.give_buffer(buffer);
        }
    }

    /// Before a wait: gives empty buffers back.
    pub(super) fn return_buffers(&mut self) {
        if self.filled == 0
            && let Some(arena) = self.arena.take()
        {
            arena.give_back();
        }
        if let Some(buffer) = self.connection.outbox.sender.take_buffer() {
            OUTPUT_BUFFERS.put(buffer);
        }
    }
}

impl<S> Drop for Link<S> {
    fn drop(&mut self) {
        if let Some(arena) = self.arena.take() {
            arena.give_back();
        }
    }
}
