//! A client and a server without a network between: bytes are cut at random, time is a number, and
//! threads run when the test says so.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    super::{
        Requests, Settings,
        calls::Shared,
        link::{Fill, Full, Link, Place, Places},
    },
    server::{Habits, Server},
};
use crate::{quirks::Quirk, sftp::Sftp, transfer::disk::Disk};

type Work = Box<dyn FnOnce() + Send>;

pub(crate) struct Sim {
    pub(crate) requests: Requests,
    pub(crate) link: SimLink,
    pub(crate) server: Server,
    pub(crate) sftp: Sftp,
    /// Work for threads that has not run yet, if threads are slow.
    pub(crate) slow_threads: bool,
    work: Arc<Mutex<VecDeque<Work>>>,
    /// How often the driving task was woken.
    pub(crate) wakes: Arc<AtomicUsize>,
    /// The longest piece that the client receives at once.
    pub(crate) cut_max: usize,
    /// Packets that the server answers in one turn.
    pub(crate) packets_max: usize,
    /// Nothing is driven without a reason that the task of a real connection has: a byte, room, a
    /// wake-up or a deadline.
    pub(crate) only_woken: bool,
    /// The wake-ups that were followed.
    woken: Option<usize>,
}

pub(crate) struct SimLink {
    now: Instant,
    pub(crate) out: Vec<u8>,
    queue: Vec<u8>,
    /// Bytes that the server's window admits.
    pub(crate) window: usize,
    pub(crate) window_max: usize,
    /// The server opens its window again when so much of it was used.
    pub(crate) adjusts_at: usize,
    pub(crate) credit: usize,
    pub(crate) closed: bool,
    /// Something was sent, so there will be more room than there was.
    was_full: bool,
}

struct Buffer(Vec<u8>);

impl Places for Buffer {
    fn bytes(&self, place: Place) -> &[u8] {
        &self.0[place.start..place.start + place.len]
    }
}

const QUEUE_MAX: usize = 512 * 1024;

impl SimLink {
    fn flush(&mut self) {
        let len = self.queue.len().min(self.window);
        self.window -= len;
        self.out.extend(self.queue.drain(..len));
    }
}

impl Link for SimLink {
    fn now(&self) -> Instant {
        self.now
    }

    fn queued(&mut self) -> usize {
        self.queue.len()
    }

    fn sendable_peak(&mut self) -> usize {
        self.window_max
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
        // Slots of uneven lengths, as channel packets have them.
        let (first, rest) = data.split_at_mut(data_len.min(1000));
        let mut slots = [
            std::io::IoSliceMut::new(first),
            std::io::IoSliceMut::new(rest),
        ];
        let filled = packet.fill(&mut slots);
        if filled > 0 {
            self.out.extend_from_slice(packet.header(filled));
            self.out.extend_from_slice(&data[..filled]);
            self.window -= header_len + filled;
        }
        Some(filled)
    }

    fn give_credit(&mut self, bytes: usize) {
        self.credit += bytes;
    }

    fn close(&mut self) {
        self.closed = true;
    }
}

impl Sim {
    pub(crate) fn new(habits: Habits, seed: u64) -> Self {
        Self::with_settings(habits, seed, Settings::default())
    }

    /// A server that is known to take writes in any order.
    pub(crate) fn with_settings(habits: Habits, seed: u64, mut settings: Settings) -> Self {
        settings.quirks.learn(Quirk::Stripes);
        Self::of(habits, seed, settings)
    }

    /// A server of which no more is known than `settings` say.
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    pub(crate) fn of(habits: Habits, seed: u64, settings: Settings) -> Self {
        let shared = Shared::new();
        let work: Arc<Mutex<VecDeque<Work>>> = Arc::default();
        let queue = Arc::clone(&work);
        let disk = Disk::new(Arc::new(move |work| queue.lock().unwrap().push_back(work)));
        let mut sim = Self {
            requests: Requests::new(Arc::clone(&shared), disk, settings),
            link: SimLink {
                now: Instant::now(),
                out: Vec::new(),
                queue: Vec::new(),
                window: 2 << 20,
                window_max: 2 << 20,
                adjusts_at: 1,
                credit: 0,
                closed: false,
                was_full: false,
            },
            server: Server::new(habits, seed),
            sftp: Sftp::new(shared, ()),
            slow_threads: false,
            work,
            wakes: Arc::default(),
            cut_max: 300_000,
            packets_max: 16,
            only_woken: false,
            woken: None,
        };
        let wakes = Arc::clone(&sim.wakes);
        let wake = Arc::new(move || {
            wakes.fetch_add(1, Ordering::Relaxed);
        });
        sim.requests.on_open(&mut sim.link, wake);
        sim
    }

    /// One turn of everybody. Says whether anything happened.
    pub(crate) fn turn(&mut self) -> bool {
        let mut moved = false;
        if !self.slow_threads {
            moved |= self.run_threads();
        }
        let bytes = self.server.send(self.packets_max);
        moved |= !bytes.is_empty();
        if !bytes.is_empty() {
            let cut_max = 1 + self.server.random(self.cut_max);
            for cut in bytes.chunks(cut_max) {
                self.deliver(cut);
            }
        }
        self.link.now += Duration::from_micros(50);
        let wakes = Some(self.wakes.load(Ordering::Relaxed));
        let is_due = (self.requests.deadline()).is_some_and(|deadline| deadline <= self.link.now);
        let has_room = std::mem::take(&mut self.link.was_full);
        if !self.only_woken || moved || is_due || has_room || self.woken != wakes {
            self.woken = wakes;
            self.requests.drive(&mut self.link);
        }
        self.link.flush();
        self.link.was_full = self.link.window < self.link.window_max;
        let out = std::mem::take(&mut self.link.out);
        moved |= !out.is_empty();
        self.server.receive(&out);
        // The server reads at once.
        let used = self.link.window_max.checked_sub(self.link.window);
        if used.is_none_or(|used| used >= self.link.adjusts_at) {
            self.link.window = self.link.window_max;
        }
        moved || self.server.has_answers()
    }

    /// Bytes arrive at the client, at some place in the buffer.
    pub(crate) fn deliver(&mut self, bytes: &[u8]) {
        let at = self.server.random(100);
        let mut buffer = vec![0xdd; at];
        // What is lent comes in several packets.
        buffer.extend_from_slice(bytes);
        let middle = at + self.server.random(bytes.len() + 1);
        for (from, to) in [(at, middle), (middle, buffer.len())] {
            self.requests
                .on_data(&buffer[from..to], from, &mut self.link);
        }
        self.requests.end_of_turn(&Buffer(buffer), &mut self.link);
    }

    pub(crate) fn run_threads(&mut self) -> bool {
        let mut ran = false;
        loop {
            let work = self.work.lock().unwrap().pop_front();
            let Some(work) = work else { return ran };
            work();
            ran = true;
        }
    }

    pub(crate) const fn now(&self) -> Instant {
        self.link.now
    }

    pub(crate) fn pass_time(&mut self, time: Duration) {
        self.link.now += time;
    }

    /// Turns until the future is ready.
    pub(crate) fn run<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut idle = 0;
        for _ in 0..200_000 {
            if let Some(output) = poll(future.as_mut()) {
                return output;
            }
            idle = if self.turn() { 0 } else { idle + 1 };
            assert!(idle < 10, "nothing happens any more: {:?}", self.requests);
        }
        panic!("no end in sight: {:?}", self.requests);
    }

    /// Turns until nothing happens any more.
    pub(crate) fn settle(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            idle = if self.turn() { 0 } else { idle + 1 };
        }
    }
}

/// Polls once.
pub(crate) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
