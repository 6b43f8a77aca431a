//! A program on a channel: what it reads, writes and says beside, and how it ends (RFC 4254 §6.5 to
//! §6.10).
//!
//! Output and stderr share the channel's window, so that one that nobody reads could stop the other.
//! For the output that is wanted: a program waits for its reader. Of a stderr that nobody has begun
//! to read, the first [`STDERR_UNREAD_MAX`] bytes are kept and the rest is dropped and counted; from
//! the first read on nothing is dropped, and the window waits for that reader, too.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::streams::{Queues, StreamApplication, lock, move_front, wake};
use super::{Application, ChannelIo, CloseReason};
use crate::event::Exit;
use crate::session::WindowSize;

/// Bytes that are kept of a stderr that nobody has begun to read: half of a channel's first window,
/// so that the other half is always there for the output.
pub const STDERR_UNREAD_MAX: usize = 1024 * 1024;
/// Most signals that wait to be sent.
const SIGNALS_MAX: usize = 16;

/// What a program has beside a byte stream.
#[derive(Debug, Default)]
pub(super) struct ProcessQueues {
    stderr: VecDeque<u8>,
    /// Somebody has begun to read it, or nobody ever will.
    stderr_reading: bool,
    stderr_gone: bool,
    stderr_dropped: u64,
    stderr_reader: Option<Waker>,
    exit: Option<Exit>,
    waiter: Option<Waker>,
    signals: VecDeque<String>,
    size: Option<WindowSize>,
    /// Handles that are still there.
    handles: usize,
}

impl ProcessQueues {
    /// Takes what came, and says how many bytes of it were dropped.
    pub(super) fn on_stderr(&mut self, data: &[u8]) -> usize {
        if self.stderr_gone {
            return data.len();
        }
        let room = if self.stderr_reading {
            data.len()
        } else {
            STDERR_UNREAD_MAX.saturating_sub(self.stderr.len())
        };
        let kept = room.min(data.len());
        let dropped = data.len() - kept;
        self.stderr.extend(&data[..kept]);
        self.stderr_dropped += u64::try_from(dropped).unwrap_or(u64::MAX);
        wake(&mut self.stderr_reader);
        dropped
    }

    pub(super) fn on_exit(&mut self, exit: Exit) {
        self.exit = Some(exit);
        wake(&mut self.waiter);
    }

    pub(super) fn wake(&mut self) {
        wake(&mut self.stderr_reader);
        wake(&mut self.waiter);
    }

    /// Tells the program what its owner wants it to know.
    pub(super) fn tell(&mut self, io: &mut ChannelIo<'_>) {
        if let Some(size) = self.size.take() {
            io.send_window_change(size);
        }
        for signal in self.signals.drain(..) {
            io.send_signal(&signal);
        }
    }
}

/// One of the handles on a program; with the last one the channel goes.
#[derive(Debug)]
struct Handle(Arc<Mutex<Queues>>);

impl Handle {
    fn new(queues: &Arc<Mutex<Queues>>) -> Self {
        if let Some(process) = &mut lock(queues).process {
            process.handles += 1;
        }
        Self(Arc::clone(queues))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut queues = lock(&self.0);
        if let Some(process) = &mut queues.process {
            process.handles -= 1;
            queues.dropped = process.handles == 0;
        }
        queues.wake_driver();
    }
}

/// A program that runs on a channel.
///
/// Each of its streams can be taken and used on its own. The channel is closed when this and all of
/// them are dropped, whether the program is done or not.
#[derive(Debug)]
pub struct Process {
    /// What it reads; dropping it, or shutting it down, is the end of its input.
    pub stdin: Option<Stdin>,
    /// What it writes. Until somebody reads it the program waits when the window is full; dropping
    /// it lets the program write into nothing.
    pub stdout: Option<Stdout>,
    /// What it says beside. If nobody begins to read it, the first [`STDERR_UNREAD_MAX`] bytes are
    /// kept and the program goes on.
    pub stderr: Option<Stderr>,
    handle: Handle,
}

/// A program's handle, and the application to run on its channel.
#[must_use]
pub fn process() -> (Process, Box<dyn Application>) {
    let mut queues = Queues::default();
    queues.process = Some(Box::default());
    let queues = Arc::new(Mutex::new(queues));
    let process = Process {
        stdin: Some(Stdin(Handle::new(&queues))),
        stdout: Some(Stdout(Handle::new(&queues))),
        stderr: Some(Stderr(Handle::new(&queues))),
        handle: Handle::new(&queues),
    };
    (process, Box::new(StreamApplication { queues }))
}

impl Process {
    /// Ends the program's input if it was not taken, and waits until the server says how the program
    /// ended.
    ///
    /// A program may wait for its output to be read before it ends: read or drop what it writes
    /// first, or use [`Process::output`]. Safe to drop and call again.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait(&mut self) -> Result<Exit, WaitError> {
        self.stdin = None;
        poll_fn(|cx| self.poll_wait(cx)).await
    }

    fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<Result<Exit, WaitError>> {
        let mut queues = lock(&self.handle.0);
        let closed = queues.closed.clone();
        let Some(process) = &mut queues.process else {
            return Poll::Ready(Err(WaitError::Untold));
        };
        if let Some(exit) = &process.exit {
            return Poll::Ready(Ok(exit.clone()));
        }
        match closed {
            Some(why) if matches!(*why, CloseReason::Channel) => {
                Poll::Ready(Err(WaitError::Untold))
            }
            Some(why) => Poll::Ready(Err(WaitError::Lost(why))),
            None => {
                process.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ends the program's input, and reads what it writes until it ends: the first `max` bytes of its
    /// output and as many of its stderr. What is beyond is dropped, and the program goes on.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn output(mut self, max: usize) -> Result<Output, WaitError> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        self.stdin = None;
        let (stdout, stderr) = both(collect(stdout, max), collect(stderr, max)).await;
        let exit = self.wait().await?;
        Ok(Output {
            exit,
            stdout,
            stderr,
        })
    }

    /// Sends the program a signal, named without `SIG` (RFC 4254 §6.9). Whether it gets it is not
    /// told; OpenSSH's server delivers it only to programs of the user that it runs for.
    pub fn signal(&self, name: &str) {
        let mut queues = lock(&self.handle.0);
        if let Some(process) = &mut queues.process
            && process.signals.len() < SIGNALS_MAX
        {
            process.signals.push_back(name.to_owned());
        }
        queues.wake_driver();
    }

    /// Tells the program that its terminal has another size (RFC 4254 §6.7).
    pub fn resize(&self, size: WindowSize) {
        let mut queues = lock(&self.handle.0);
        if let Some(process) = &mut queues.process {
            process.size = Some(size);
        }
        queues.wake_driver();
    }
}

/// Waits for both at once.
async fn both<T>(first: impl Future<Output = T>, second: impl Future<Output = T>) -> (T, T) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut other) = (None, None);
    poll_fn(move |cx| {
        if one.is_none()
            && let Poll::Ready(done) = first.as_mut().poll(cx)
        {
            one = Some(done);
        }
        if other.is_none()
            && let Poll::Ready(done) = second.as_mut().poll(cx)
        {
            other = Some(done);
        }
        match (one.take(), other.take()) {
            (Some(one), Some(other)) => Poll::Ready((one, other)),
            (left, right) => {
                (one, other) = (left, right);
                Poll::Pending
            }
        }
    })
    .await
}

/// Reads to the end, keeping the first bytes.
async fn collect<R: AsyncRead + Unpin>(stream: Option<R>, max: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut buffer = vec![0; 16 * 1024];
    // What went wrong is told by the wait that follows.
    while let Ok(len @ 1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await {
        let room = max.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..len.min(room)]);
    }
    kept
}

/// How a program ended, and what it said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it said beside.
    pub stderr: Vec<u8>,
}

/// Why it is not known how a program ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The server closed the channel and did not say it.
    #[error("the server did not say how the program ended")]
    Untold,
    /// The connection was lost.
    #[error("the connection was lost before the program ended")]
    Lost(#[source] Arc<CloseReason>),
}

/// A program's input.
#[derive(Debug)]
pub struct Stdin(Handle);

impl AsyncWrite for Stdin {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0.0).poll_write(cx, bytes)
    }

    /// Waits until the channel has taken what was written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0.0).poll_flush(cx)
    }

    /// Ends the input behind what was written.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queues = lock(&self.0.0);
        queues.shutdown = true;
        queues.wake_driver();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        lock(&self.0.0).shutdown = true; // the handle wakes the driver
    }
}

/// A program's output.
#[derive(Debug)]
pub struct Stdout(Handle);

impl AsyncRead for Stdout {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        lock(&self.0.0).poll_read(cx, buffer)
    }
}

impl Drop for Stdout {
    fn drop(&mut self) {
        let mut queues = lock(&self.0.0);
        queues.unread = true;
        queues.consumed += std::mem::take(&mut queues.received).len();
    }
}

/// What a program says beside its output.
#[derive(Debug)]
pub struct Stderr(Handle);

impl Stderr {
    /// Bytes that were dropped because nobody had begun to read.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let queues = lock(&self.0.0);
        queues
            .process
            .as_ref()
            .map_or(0, |process| process.stderr_dropped)
    }
}

impl AsyncRead for Stderr {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut queues = lock(&self.0.0);
        let end = queues.poll_end();
        let Some(process) = &mut queues.process else {
            return Poll::Ready(Ok(()));
        };
        process.stderr_reading = true;
        if process.stderr.is_empty() {
            if end.is_pending() {
                process.stderr_reader = Some(cx.waker().clone());
            }
            return end;
        }
        let len = move_front(&mut process.stderr, buffer);
        queues.consumed += len;
        queues.wake_driver();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        let mut queues = lock(&self.0.0);
        if let Some(process) = &mut queues.process {
            process.stderr_gone = true;
            let len = std::mem::take(&mut process.stderr).len();
            queues.consumed += len;
        }
    }
}
