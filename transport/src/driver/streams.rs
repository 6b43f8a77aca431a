//! The byte-stream application: a channel as `AsyncRead + AsyncWrite`, for whatever subsystem or
//! forwarding speaks something else than SFTP (RFC 4254 §5.2). That of a program, which says more,
//! is built on it (`process.rs`).
//!
//! Received bytes are copied once into a queue that the window bounds, and credit is given back as
//! the reader takes them: a reader that sleeps stops its own peer and nobody else.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::process::ProcessQueues;
use super::{Application, ChannelIo, CloseReason, DriverWaker, Lent};
use crate::event::Exit;

/// Most bytes that a writer may have waiting in front of the channel.
pub const STREAM_QUEUE_MAX: usize = 256 * 1024;

/// How long a channel that nobody holds any more may take to send what was written.
const LINGER: Duration = Duration::from_secs(30);

/// What the stream and its application share.
#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) received: VecDeque<u8>,
    received_end: bool,
    /// Bytes that the reader took and for which no credit was given yet.
    pub(super) consumed: usize,
    /// Nobody reads the stream: what comes is given back.
    pub(super) unread: bool,
    /// What a program says beside its output, where somebody wants it.
    pub(super) process: Option<Box<ProcessQueues>>,
    outgoing: VecDeque<u8>,
    pub(super) shutdown: bool,
    pub(super) dropped: bool,
    /// When what was written and not sent is given up.
    linger: Option<Instant>,
    pub(super) closed: Option<Arc<CloseReason>>,
    pub(super) reader: Option<Waker>,
    writer: Option<Waker>,
    driver: Option<DriverWaker>,
}

impl Queues {
    /// What a reader learns of a channel that is gone: a channel that was closed in good order is at
    /// its end, a connection that was lost is an error.
    fn lost(&self) -> io::Result<()> {
        match &self.closed {
            Some(why) if !matches!(**why, CloseReason::Channel) => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                (**why).clone(),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake();
        }
    }

    /// Wakes everybody who waits for something to come.
    fn wake_readers(&mut self) {
        wake(&mut self.reader);
        if let Some(process) = &mut self.process {
            process.wake();
        }
    }

    /// Whether the peer has said all it will; the error that kept it from that, if any.
    pub(super) fn poll_end(&self) -> Poll<io::Result<()>> {
        if self.received_end {
            return Poll::Ready(Ok(()));
        }
        if self.closed.is_some() {
            // A connection that was lost is no end of the data.
            return Poll::Ready(self.lost());
        }
        Poll::Pending
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            let end = self.poll_end();
            if end.is_pending() {
                self.reader = Some(cx.waker().clone());
            }
            return end;
        }
        self.consumed += move_front(&mut self.received, buffer);
        self.wake_driver();
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.closed.is_some() {
            return Poll::Ready(self.lost().and(Err(io::ErrorKind::BrokenPipe.into())));
        }
        if self.shutdown {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = bytes.len().min(STREAM_QUEUE_MAX - self.outgoing.len());
        if len == 0 && !bytes.is_empty() {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.outgoing.extend(&bytes[..len]);
        self.wake_driver();
        Poll::Ready(Ok(len))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.closed.is_some() {
            return Poll::Ready(self.lost().and(Err(io::ErrorKind::BrokenPipe.into())));
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Moves bytes from the front of a queue, and says how many.
pub(super) fn move_front(queue: &mut VecDeque<u8>, buffer: &mut ReadBuf<'_>) -> usize {
    let before = buffer.filled().len();
    let (first, second) = queue.as_slices();
    for part in [first, second] {
        buffer.put_slice(&part[..part.len().min(buffer.remaining())]);
    }
    let len = buffer.filled().len() - before;
    queue.drain(..len);
    len
}

pub(super) fn lock(queues: &Mutex<Queues>) -> MutexGuard<'_, Queues> {
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A channel as a stream of bytes. Dropping it closes the channel.
#[derive(Debug)]
pub struct ChannelStream {
    queues: Arc<Mutex<Queues>>,
}

/// A stream, and the application to run on its channel.
#[must_use]
pub fn stream() -> (ChannelStream, Box<dyn Application>) {
    let queues = Arc::new(Mutex::new(Queues::default()));
    (
        ChannelStream {
            queues: Arc::clone(&queues),
        },
        Box::new(StreamApplication { queues }),
    )
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        lock(&self.queues).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.queues).poll_write(cx, bytes)
    }

    /// Waits until the channel has taken what was written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.queues).poll_flush(cx)
    }

    /// Sends EOF behind what was written; reading goes on.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queues = lock(&self.queues);
        queues.shutdown = true;
        queues.wake_driver();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        let mut queues = lock(&self.queues);
        queues.dropped = true;
        queues.wake_driver();
    }
}

/// Runs on the channel of a stream, and on that of a program.
pub(super) struct StreamApplication {
    pub(super) queues: Arc<Mutex<Queues>>,
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Application for StreamApplication {
    fn on_open(&mut self, io: &mut ChannelIo<'_>) {
        lock(&self.queues).driver = Some(io.waker());
    }

    fn on_data(&mut self, data: Lent<'_>, io: &mut ChannelIo<'_>) {
        let mut queues = lock(&self.queues);
        if queues.dropped || queues.unread {
            return io.give_credit(data.bytes.len());
        }
        queues.received.extend(data.bytes);
        wake(&mut queues.reader);
    }

    fn on_extended_data(&mut self, _data_type: u32, data: &[u8], io: &mut ChannelIo<'_>) {
        let mut queues = lock(&self.queues);
        let dropped = match &mut queues.process {
            Some(process) => process.on_stderr(data),
            None => data.len(),
        };
        io.give_credit(dropped);
    }

    fn on_eof(&mut self, _io: &mut ChannelIo<'_>) {
        let mut queues = lock(&self.queues);
        queues.received_end = true;
        queues.wake_readers();
    }

    fn on_exit(&mut self, exit: Exit) {
        if let Some(process) = &mut lock(&self.queues).process {
            process.on_exit(exit);
        }
    }

    fn drive(&mut self, io: &mut ChannelIo<'_>) {
        let mut queues = lock(&self.queues);
        io.give_credit(std::mem::take(&mut queues.consumed));
        if let Some(process) = &mut queues.process {
            process.tell(io);
        }
        while !queues.outgoing.is_empty() {
            let len = queues.outgoing.len().min(io.sendable());
            let Some(mut room) = (if len == 0 { None } else { io.room(len) }) else {
                break;
            };
            let (first, second) = queues.outgoing.as_slices();
            let first = &first[..first.len().min(len)];
            room.write_at(0, first);
            room.write_at(first.len(), &second[..len - first.len()]);
            room.commit(len);
            queues.outgoing.drain(..len);
            wake(&mut queues.writer);
        }
        if queues.dropped && !queues.outgoing.is_empty() {
            // A peer that takes nothing does not keep the channel for ever.
            let now = io.now();
            if *queues.linger.get_or_insert(now + LINGER) <= now {
                queues.outgoing.clear();
            }
        }
        if queues.outgoing.is_empty() {
            queues.linger = None;
            if queues.dropped {
                io.close();
            } else if queues.shutdown {
                io.send_eof();
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        lock(&self.queues).linger
    }

    fn on_closed(&mut self, why: &Arc<CloseReason>) {
        let mut queues = lock(&self.queues);
        queues.closed = Some(Arc::clone(why));
        queues.wake_readers();
        wake(&mut queues.writer);
    }
}
