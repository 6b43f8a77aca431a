//! The thread that writes the audit log, and the queue before it.
#![expect(
    clippy::disallowed_methods,
    reason = "its own lines say when they were made"
)]

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use tracing::warn;

use super::line::Line;

/// Lines that wait for the disk at the most; further ones are lost, and counted.
pub const AUDIT_QUEUE_MAX: usize = 8192;
/// Bytes after which a batch is written though more lines wait.
const BATCH_LEN: usize = 64 * 1024;

/// The queue's front, and its thread.
#[derive(Debug)]
pub(super) struct Writer {
    /// There until the end.
    queue: Option<SyncSender<Message>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    is_to_reopen: AtomicBool,
    lost: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Something is to be done without one.
    Wake,
}

impl Writer {
    /// `reopen` gives what is to be written to from then on.
    pub(super) fn new<W: Write + Send + 'static>(
        out: W,
        reopen: impl FnMut() -> io::Result<W> + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, lines) = sync_channel(AUDIT_QUEUE_MAX);
        let state = Arc::new(State::default());
        let end = Output {
            lines,
            state: Arc::clone(&state),
            out,
            reopen,
            batch: Vec::new(),
            lost_and_told: 0,
            is_torn: false,
            is_failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("ketch-audit".to_owned())
            .spawn(move || end.run())?;
        Ok(Self {
            queue: Some(queue),
            state,
            thread: Some(thread),
        })
    }

    /// Puts a line into the queue, or counts it as lost.
    pub(super) fn write(&self, line: Vec<u8>) {
        let queue = self.queue.as_ref();
        if queue.is_none_or(|queue| queue.try_send(Message::Line(line)).is_err()) {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn reopen(&self) {
        self.state.is_to_reopen.store(true, Ordering::Release);
        if let Some(queue) = &self.queue {
            let _ = queue.try_send(Message::Wake); // a full one wakes the thread by itself
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    /// Waits until what is in the queue is written.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Output<W, R> {
    lines: Receiver<Message>,
    state: Arc<State>,
    out: W,
    reopen: R,
    /// Whole lines that are to be written.
    batch: Vec<u8>,
    /// Lost lines that the log itself speaks of.
    lost_and_told: u64,
    /// The last line was written in part.
    is_torn: bool,
    /// The last write failed, which was said.
    is_failing: bool,
}

impl<W: Write, R: FnMut() -> io::Result<W>> Output<W, R> {
    fn run(mut self) {
        let mut line = Line::new(SystemTime::now(), "log-opened");
        line.number("process", std::process::id().into());
        line.text("version", env!("CARGO_PKG_VERSION").as_bytes());
        self.batch = line.end();
        self.write();
        while let Ok(message) = self.lines.recv() {
            self.take(message);
            // As much as there is goes in few writes, and nothing waits once that is written.
            while let Ok(message) = self.lines.try_recv() {
                self.take(message);
                if self.batch.len() >= BATCH_LEN {
                    self.write();
                }
            }
            self.write();
            self.tell_losses();
        }
    }

    fn take(&mut self, message: Message) {
        if self.state.is_to_reopen.swap(false, Ordering::Acquire) {
            self.write();
            match (self.reopen)() {
                Ok(out) => {
                    self.out = out;
                    self.is_torn = false;
                }
                Err(error) => warn!(%error, "the audit log cannot be opened anew"),
            }
        }
        if let Message::Line(line) = message {
            self.batch.extend_from_slice(&line);
        }
    }

    /// Says how many lines were lost since that was said last.
    fn tell_losses(&mut self) {
        let lost = self.state.lost.load(Ordering::Relaxed);
        let more = lost.saturating_sub(self.lost_and_told);
        if more == 0 || self.is_failing {
            return;
        }
        let mut line = Line::new(SystemTime::now(), "log-lost");
        line.number("lines", more);
        self.batch = line.end();
        if self.write() {
            self.lost_and_told = lost;
        } else {
            // It was none of those that were to be told.
            self.state.lost.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Writes the batch. What cannot be written is lost, and counted by lines.
    fn write(&mut self) -> bool {
        if self.batch.is_empty() {
            return !self.is_failing;
        }
        if self.is_torn {
            // Whoever reads line by line loses one.
            self.batch.insert(0, b'\n');
        }
        let mut rest = &self.batch[..];
        let result = loop {
            if rest.is_empty() {
                break self.out.flush();
            }
            match self.out.write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let written = self.batch.len().saturating_sub(rest.len());
        if written > 0 {
            self.is_torn = self.batch.get(written - 1) != Some(&b'\n');
        }
        if let Err(error) = &result {
            let lines = rest.iter().filter(|&&byte| byte == b'\n').count();
            self.state.lost.fetch_add(lines as u64, Ordering::Relaxed);
            if !self.is_failing {
                warn!(%error, "the audit log cannot be written");
            }
        }
        self.is_failing = result.is_err();
        self.batch.clear();
        !self.is_failing
    }
}
