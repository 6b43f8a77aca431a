//! The door for fuzzing: the SFTP client of one channel as a machine, without SSH, task or clock.
//!
//! Only with the feature `fuzzing`, and no part of the API. The bytes of a server go in, those of
//! the client come out, time is a number, and what a disk has to do is done when a turn is made.
//! Beside it stands what decides about names and links that a server lists.

use std::{
    collections::VecDeque,
    fmt,
    io::IoSliceMut,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    requests::{
        Requests, Settings,
        calls::Shared,
        link::{Fill, Full, Link, Place, Places},
    },
    sftp::Sftp,
    transfer::{disk::Disk, links, names, part},
};

type Work = Box<dyn FnOnce() + Send>;

/// Bytes of requests that wait for the server's window at most.
const QUEUE_MAX: usize = 512 * 1024;
/// The server's window: all of it is open again in each turn.
const WINDOW: usize = 2 << 20;

/// The client's side of one SFTP channel.
pub struct Machine {
    requests: Requests,
    link: Wire,
    work: Arc<Mutex<VecDeque<Work>>>,
    stall: Duration,
}

impl Machine {
    /// A machine at the time `now`, and the handle of its session. With `early` it does not wait
    /// for the server's greeting.
    #[must_use]
    pub fn new(now: Instant, early: bool) -> (Self, Sftp) {
        let settings = Settings {
            early,
            ..Settings::default()
        };
        let shared = Shared::new();
        let work: Arc<Mutex<VecDeque<Work>>> = Arc::default();
        let queue = Arc::clone(&work);
        let disk = Disk::new(Arc::new(move |work| {
            queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back(work);
        }));
        let mut machine = Self {
            requests: Requests::new(Arc::clone(&shared), disk, settings),
            link: Wire {
                now,
                out: Vec::new(),
                queue: Vec::new(),
                window: WINDOW,
                closed: false,
            },
            work,
            stall: settings.stall,
        };
        machine.requests.on_open(&mut machine.link, Arc::new(|| ()));
        (machine, Sftp::new(shared, ()))
    }

    /// Bytes of the server arrive, all in one turn.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.requests.on_data(bytes, 0, &mut self.link);
        self.requests.end_of_turn(&Received(bytes), &mut self.link);
    }

    /// The server sends no more.
    pub fn end_of_stream(&mut self) {
        self.requests.on_eof(&mut self.link);
    }

    /// The stream is gone.
    pub fn cut(&mut self) {
        let why = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        self.requests.on_closed(Arc::new(why));
        self.run_threads();
    }

    /// Does what the disk has to do, and what can be done after it; gives the bytes that are sent.
    pub fn turn(&mut self) -> Vec<u8> {
        self.run_threads();
        self.link.now += Duration::from_micros(50);
        self.requests.drive(&mut self.link);
        self.link.flush();
        self.link.window = WINDOW;
        std::mem::take(&mut self.link.out)
    }

    /// So much time goes by.
    pub fn pass_time(&mut self, time: Duration) {
        self.link.now += time;
    }

    /// Time without a byte from the server that is borne.
    #[must_use]
    pub const fn stall(&self) -> Duration {
        self.stall
    }

    /// Whether the client has ended the stream.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.link.closed
    }

    fn run_threads(&self) {
        loop {
            let mut waiting = self.work.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(work) = waiting.pop_front() else {
                return;
            };
            drop(waiting);
            work();
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.requests.fmt(f)
    }
}

struct Received<'a>(&'a [u8]);

impl Places for Received<'_> {
    fn bytes(&self, place: Place) -> &[u8] {
        self.0
            .get(place.start..place.start.saturating_add(place.len))
            .unwrap_or_default()
    }
}

/// The stream below, with a window.
struct Wire {
    now: Instant,
    out: Vec<u8>,
    queue: Vec<u8>,
    window: usize,
    closed: bool,
}

impl Wire {
    fn flush(&mut self) {
        let len = self.queue.len().min(self.window);
        self.window -= len;
        self.out.extend(self.queue.drain(..len));
    }
}

impl Link for Wire {
    fn now(&self) -> Instant {
        self.now
    }

    fn queued(&mut self) -> usize {
        self.queue.len()
    }

    fn sendable_peak(&mut self) -> usize {
        WINDOW
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), Full> {
        if self.queue.len() + packet.len() > QUEUE_MAX {
            return Err(Full);
        }
        self.queue.extend_from_slice(packet);
        self.flush();
        Ok(())
    }

    fn send_filled(&mut self, packet: &mut dyn Fill) -> Option<usize> {
        let (header_len, data_len) = packet.len();
        if !self.queue.is_empty() || self.window < header_len + data_len {
            return None;
        }
        let mut data = vec![0; data_len];
        let filled = packet.fill(&mut [IoSliceMut::new(&mut data)]).min(data_len);
        if filled > 0 {
            self.out.extend_from_slice(packet.header(filled));
            self.out.extend(data.drain(..filled));
            self.window -= header_len + filled;
        }
        Some(filled)
    }

    fn give_credit(&mut self, _: usize) {}

    fn close(&mut self) {
        self.closed = true;
    }
}

/// Parts of transfers are believed but for their last `bytes`; zero for what is usual. It holds for
/// the whole process, so for one that does nothing but fuzz.
pub fn set_tail_of_parts(bytes: u64) {
    part::TAIL_LEN_FUZZED.store(bytes, std::sync::atomic::Ordering::Relaxed);
}

/// Whether a listed name may become a local one.
#[must_use]
pub fn is_safe_name(name: &[u8]) -> bool {
    names::check(name).is_ok()
}

/// A temporary name for a file that is called `name`.
#[must_use]
pub fn temporary_name(name: &[u8], attempt: u64) -> Vec<u8> {
    names::temporary(b"/in", name, names::Identity::default(), attempt)
}

/// Whether a listed link is made, so many directories below the topmost one.
#[must_use]
pub fn is_safe_link(target: &[u8], depth: usize) -> bool {
    links::stays_within(target, depth)
}
