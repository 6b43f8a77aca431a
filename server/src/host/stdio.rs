//! The driver of a session on two descriptors: one thread that reads, does, and writes.
//!
//! ```text
//!   read -> arena -> engine -> pwritev (the bodies of WRITE, from the arena)
//!                       |
//!                    buffer -> write      (DATA is read from its file into the buffer)
//! ```
//!
//! Replies of one turn leave together. Writing blocks while the client takes nothing: then nothing
//! is read either, and what is held is the arena and the buffer.
#![expect(clippy::disallowed_methods, reason = "drivers own time")]

use std::io::{self, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ketch_protocol::limits::DATA_LEN_MAX;
use ketch_protocol::{DATA_HEADER_LEN, Data, RequestId};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::SessionError;
use crate::engine::{Engine, HashStep, Hasher, Host, Mailbox, Outlet, Places};
use crate::handles::HandleBudget;
use crate::observer::Watch;
use crate::policy::Policy;
use crate::root::Root;
use crate::shares::Kind;

/// Bytes that are read at a time: eight `WRITE`s of usual length.
const ARENA_LEN: usize = 256 * 1024;
/// Replies leave when there are so many bytes of them, in the middle of a turn too: whoever carries
/// them has work while more are made.
const FLUSH_LEN: usize = 128 * 1024;
/// The buffer: what may stand in it when one more `DATA` reply of the longest kind comes.
const BUFFER_LEN: usize = FLUSH_LEN + DATA_HEADER_LEN + DATA_LEN_MAX as usize;

/// Serves one client until `input` ends.
pub(super) fn serve(
    root: Arc<Root>,
    policy: Arc<Policy>,
    budget: Arc<HandleBudget>,
    watch: Option<Arc<Watch>>,
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
) -> Result<(), SessionError> {
    let host = InPlace {
        start: Instant::now(),
    };
    // Whatever is put into it is taken out in the same turn: nobody has to be woken.
    let mailbox = Mailbox::new(|| {});
    let mut engine = Engine::new(host, root, policy, budget, mailbox);
    if let Some(watch) = watch {
        engine.observed(watch);
    }
    let mut out = Output::new(output);
    let mut arena = Arena(vec![0; ARENA_LEN].into_boxed_slice());
    loop {
        let got = read(input, &mut arena.0)?;
        let bytes = arena.0.get(..got).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        engine.on_data(bytes, 0, &mut out)?;
        engine.end_of_turn(&arena, &mut out);
        // What had to be handed away is done already, and only waits to be taken in.
        while engine.drive(&mut out)? || engine.is_working() {}
        out.flush();
        if let Some(why) = out.failed.take() {
            return Err(why.into());
        }
    }
}

/// What was read, until the end of the turn.
struct Arena(Box<[u8]>);

impl Places for Arena {
    fn bytes(&self, start: usize, len: usize) -> &[u8] {
        let end = start.saturating_add(len);
        self.0.get(start..end).unwrap_or_default()
    }
}

/// Replies on their way out.
struct Output<'fd> {
    fd: BorrowedFd<'fd>,
    buffer: Box<[u8]>,
    filled: usize,
    /// Nothing is written any more.
    failed: Option<io::Error>,
}

impl<'fd> Output<'fd> {
    fn new(fd: BorrowedFd<'fd>) -> Self {
        Self {
            fd,
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            filled: 0,
            failed: None,
        }
    }

    /// Writes everything. An error is kept for the end of the turn.
    fn flush(&mut self) {
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        if self.failed.is_none() {
            self.failed = write_all(self.fd, bytes).err();
        }
        self.filled = 0;
    }
}

impl Outlet for Output<'_> {
    fn space(&mut self) -> usize {
        if self.filled >= FLUSH_LEN {
            self.flush();
        }
        self.buffer.len().saturating_sub(self.filled)
    }

    fn send(&mut self, bytes: &[u8]) {
        let end = self.filled.saturating_add(bytes.len());
        if let Some(place) = self.buffer.get_mut(self.filled..end) {
            place.copy_from_slice(bytes);
            self.filled = end;
        }
    }

    fn data(
        &mut self,
        id: RequestId,
        len: u32,
        read: &mut dyn FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        if self.filled >= FLUSH_LEN {
            self.flush();
        }
        let place = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let (head, body) = place.split_first_chunk_mut::<DATA_HEADER_LEN>()?;
        let len = usize::try_from(len).unwrap_or_default().min(body.len());
        let body = body.get_mut(..len).unwrap_or_default();
        let result = read(&mut [IoSliceMut::new(body)]);
        if let Ok(got @ 1..) = result {
            *head = Data::header(id, u32::try_from(got).unwrap_or(u32::MAX));
            let more = DATA_HEADER_LEN.saturating_add(got);
            self.filled = self.filled.saturating_add(more);
        }
        Some(result)
    }

    fn give_credit(&mut self, _: usize) {} // the pipe is the window
}

/// Does at once whatever others would hand to a task, and has no need to know how long it took:
/// there is nobody else who waits.
struct InPlace {
    start: Instant,
}

impl Host for InPlace {
    fn spawn(&self, _: Kind, mut work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        // The file system here has done its work when it gives its future away. One that had not
        // is dropped, and its request answered with an error.
        let _: Poll<()> = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    fn hasher(&self) -> Hasher {
        Box::new(|step: HashStep| Box::pin(std::future::ready(Ok(step.perform()))))
    }

    fn now(&self) -> Instant {
        self.start
    }

    fn unix_time(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }
}

fn read(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, &mut *into) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::IN)?,
            result => return Ok(result?),
        }
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Waits on a descriptor that was set not to block by somebody who shares it.
fn wait(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<()> {
    match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
