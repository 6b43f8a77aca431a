//! The byte-stream application: a channel as `AsyncRead + AsyncWrite`, for whatever subsystem or
//! forwarding speaks something else than SFTP.
//!
//! Received bytes are copied once into a queue that the window bounds, and credit is given back as
//! the reader takes them: a reader that sleeps stops its own peer and nobody else.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Application, ChannelIo, CloseReason, DriverWaker, Lent};

/// Most bytes that a writer may have waiting in front of the channel.
pub const STREAM_QUEUE_MAX: usize = 256 * 1024;

/// What the stream and its application share.
#[derive(Debug, Default)]
struct Queues {
    received: VecDeque<u8>,
    received_end: bool,
    /// Bytes that the reader took and for which no credit was given yet.
    consumed: usize,
    outgoing: VecDeque<u8>,
    shutdown: bool,
    dropped: bool,
    closed: Option<Arc<CloseReason>>,
    reader: Option<Waker>,
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

    fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake();
        }
    }
}

fn lock(queues: &Mutex<Queues>) -> MutexGuard<'_, Queues> {
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
        let mut queues = lock(&self.queues);
        if queues.received.is_empty() {
            if queues.received_end {
                return Poll::Ready(Ok(()));
            }
            if queues.closed.is_some() {
                // A connection that was lost is no end of the data.
                return Poll::Ready(queues.lost());
            }
            queues.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let (first, second) = queues.received.as_slices();
        for part in [first, second] {
            buffer.put_slice(&part[..part.len().min(buffer.remaining())]);
        }
        let len = buffer.filled().len() - before;
        queues.received.drain(..len);
        queues.consumed += len;
        queues.wake_driver();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut queues = lock(&self.queues);
        if queues.closed.is_some() {
            return Poll::Ready(queues.lost().and(Err(io::ErrorKind::BrokenPipe.into())));
        }
        if queues.shutdown {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = bytes.len().min(STREAM_QUEUE_MAX - queues.outgoing.len());
        if len == 0 && !bytes.is_empty() {
            queues.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        queues.outgoing.extend(&bytes[..len]);
        queues.wake_driver();
        Poll::Ready(Ok(len))
    }

    /// Waits until the channel has taken what was written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queues = lock(&self.queues);
        if queues.outgoing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if queues.closed.is_some() {
            return Poll::Ready(queues.lost().and(Err(io::ErrorKind::BrokenPipe.into())));
        }
        queues.writer = Some(cx.waker().clone());
        Poll::Pending
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

struct StreamApplication {
    queues: Arc<Mutex<Queues>>,
}

fn wake(waker: &mut Option<Waker>) {
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
        if queues.dropped {
            return io.give_credit(data.bytes.len());
        }
        queues.received.extend(data.bytes);
        wake(&mut queues.reader);
    }

    fn on_eof(&mut self, _io: &mut ChannelIo<'_>) {
        let mut queues = lock(&self.queues);
        queues.received_end = true;
        wake(&mut queues.reader);
    }

    fn drive(&mut self, io: &mut ChannelIo<'_>) {
        let mut queues = lock(&self.queues);
        io.give_credit(std::mem::take(&mut queues.consumed));
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
        if queues.outgoing.is_empty() {
            if queues.dropped {
                io.close();
            } else if queues.shutdown {
                io.send_eof();
            }
        }
    }

    fn on_closed(&mut self, why: &Arc<CloseReason>) {
        let mut queues = lock(&self.queues);
        queues.closed = Some(Arc::clone(why));
        wake(&mut queues.reader);
        wake(&mut queues.writer);
    }
}
