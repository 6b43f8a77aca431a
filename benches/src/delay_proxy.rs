//! A TCP proxy that makes a link on loopback slow: a round trip time and a rate.
//!
//! Each connection is accepted at once, and made at once to the server behind: the proxy ends TCP,
//! so there is no handshake to wait for, no slow start, no loss, and nobody waits for a late
//! acknowledgement. What is left is the time of the programs' own round trips, at a rate that all
//! connections share. For TCP over such a link
//! there is [`crate::relay`].
//!
//! Each direction of a connection has a thread that reads and one that writes; between them is a
//! queue of what is under way, never more than the link holds and some slack.

#![expect(clippy::disallowed_methods, reason = "a link is a matter of the clock")]

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::BenchError;
use crate::link::{Fate, Link, LinkConfig};

/// What is read at once at most.
const PIECE_LEN: usize = 256 * 1024;
/// What may be under way beyond rate and delay: jitter of the threads.
const SLACK_BYTES: u64 = 4 * 1024 * 1024;
/// How far ahead of the clock the link is booked.
const SLACK: Duration = Duration::from_millis(2);
/// How many buffers a direction keeps for its next pieces.
const SPARE_MAX: usize = 64;

/// A running proxy; it takes no new connections when dropped.
#[derive(Debug)]
pub struct DelayProxy {
    addr: SocketAddr,
    ways: [Arc<Way>; 2],
    stopped: Arc<AtomicBool>,
}

/// One direction of the link, for all connections.
#[derive(Debug)]
struct Way {
    link: Mutex<Link>,
    /// Most bytes of one connection that are under way.
    held_max: u64,
    came_out_bytes: AtomicU64,
}

impl DelayProxy {
    /// A proxy before `server` on a free port of 127.0.0.1, whose link has that round trip time
    /// and carries so many bytes a second each way.
    ///
    /// # Errors
    /// [`BenchError::Io`] without a port.
    pub fn start(server: SocketAddr, rtt: Duration, bytes_per_s: u64) -> Result<Self, BenchError> {
        let config = LinkConfig {
            bytes_per_s,
            delay: rtt / 2,
            buffer_bytes: None,
            loss_per_million: 0,
            seed: 0,
        };
        let under_way = config.delay.as_nanos() * u128::from(bytes_per_s) / 1_000_000_000;
        let way = || {
            Arc::new(Way {
                link: Mutex::new(Link::new(config)),
                held_max: u64::try_from(under_way).unwrap_or(u64::MAX) + SLACK_BYTES,
                came_out_bytes: AtomicU64::new(0),
            })
        };
        let listening = BenchError::io("listening for the delay proxy");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(listening)?;
        let addr = listener
            .local_addr()
            .map_err(BenchError::io("the delay proxy's port"))?;
        let proxy = Self {
            addr,
            ways: [way(), way()],
            stopped: Arc::default(),
        };
        let (ways, stopped) = (proxy.ways.clone(), Arc::clone(&proxy.stopped));
        thread::spawn(move || accept(&listener, server, &ways, &stopped));
        Ok(proxy)
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Bytes that came out so far: at the server, and at the client.
    #[must_use]
    pub fn carried(&self) -> [u64; 2] {
        let [up, down] = &self.ways;
        [up, down].map(|way| way.came_out_bytes.load(Ordering::Relaxed))
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Whoever waits for a connection gets one, and sees that it is the last.
        let _ = TcpStream::connect(self.addr);
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, ways: &[Arc<Way>; 2], stopped: &AtomicBool) {
    while let Ok((client, _)) = listener.accept() {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        // A connection that cannot be made is one that ends at once: the client sees that.
        let _ = carry(&client, server, ways);
    }
}

/// Starts the four threads of a connection.
fn carry(client: &TcpStream, server: SocketAddr, ways: &[Arc<Way>; 2]) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
    }
    let [up, down] = ways;
    for (from, to, way) in [(client, &server, up), (&server, client, down)] {
        let queue = Arc::new(Queue::default());
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let (way, taking) = (Arc::clone(way), Arc::clone(&queue));
        let reading = Arc::clone(&way);
        thread::spawn(move || read(from, &reading, &taking));
        thread::spawn(move || write(to, &way, &queue));
    }
    Ok(())
}

/// What is under way in one direction of a connection.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    pieces: VecDeque<Piece>,
    bytes: u64,
    spare: Vec<Vec<u8>>,
    /// Nobody takes what comes out.
    broken: bool,
}

#[derive(Debug)]
struct Piece {
    due: Instant,
    buffer: Vec<u8>,
    /// Bytes of the buffer that count; none of them is the end of the stream.
    len: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a piece in when there is room for it; `false` if nobody takes it out.
    fn put(&self, piece: Piece, bytes_max: u64) -> bool {
        let mut held = self.lock();
        while held.bytes > bytes_max && !held.broken {
            held = self
                .changed
                .wait(held)
                .unwrap_or_else(PoisonError::into_inner);
        }
        held.bytes += piece.len as u64;
        held.pieces.push_back(piece);
        self.changed.notify_all();
        !held.broken
    }

    fn take(&self) -> Piece {
        let mut held = self.lock();
        loop {
            if let Some(piece) = held.pieces.pop_front() {
                return piece;
            }
            held = self
                .changed
                .wait(held)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The bytes of a piece have come out; its buffer may serve again.
    fn done(&self, piece: Piece) {
        let mut held = self.lock();
        held.bytes -= piece.len as u64;
        if piece.buffer.len() == PIECE_LEN && held.spare.len() < SPARE_MAX {
            held.spare.push(piece.buffer);
        }
        self.changed.notify_all();
    }

    fn buffer(&self) -> Vec<u8> {
        let spare = self.lock().spare.pop();
        spare.unwrap_or_else(|| vec![0; PIECE_LEN])
    }
}

fn read(mut from: TcpStream, way: &Way, queue: &Queue) {
    let mut buffer = queue.buffer();
    loop {
        // A reset ends the other side as an end does.
        let len = from.read(&mut buffer).unwrap_or(0);
        // It lasts until the kernel thinks otherwise, so it is said each time.
        let _ = rustix::net::sockopt::set_tcp_quickack(&from, true);
        let now = Instant::now();
        let (fate, wait) = {
            let mut link = way.link.lock().unwrap_or_else(PoisonError::into_inner);
            let fate = link.offer(now, len);
            (fate, link.wait(now))
        };
        let Fate::Arrives(due) = fate else {
            continue;
        };
        // Small pieces are copied: a thousand of them may be under way.
        let whole = len > PIECE_LEN / 2;
        let piece = match whole {
            true => std::mem::replace(&mut buffer, queue.buffer()),
            false => buffer.get(..len).unwrap_or_default().to_vec(),
        };
        let piece = Piece {
            due,
            buffer: piece,
            len,
        };
        if !queue.put(piece, way.held_max) || len == 0 {
            let _ = from.shutdown(Shutdown::Read);
            return;
        }
        // Whoever sends more than the link carries waits, as behind a full buffer.
        if wait > SLACK {
            thread::sleep(wait - SLACK);
        }
    }
}

fn write(mut to: TcpStream, way: &Way, queue: &Queue) {
    loop {
        let piece = queue.take();
        let wait = piece.due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        let bytes = piece.buffer.get(..piece.len).unwrap_or_default();
        if bytes.is_empty() || to.write_all(bytes).is_err() {
            queue.lock().broken = true;
            queue.changed.notify_all();
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        way.came_out_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        queue.done(piece);
    }
}

/// Bytes a second that a proxy with that link carries from one thread to another, with nobody
/// else on it: what it must not be the limit for.
///
/// # Errors
/// [`BenchError::Io`].
pub fn own_speed(rtt: Duration, bytes_per_s: u64, total: u64) -> Result<f64, BenchError> {
    let doing = || BenchError::io("sending through the delay proxy");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(doing())?;
    let addr = listener.local_addr().map_err(doing())?;
    let proxy = DelayProxy::start(addr, rtt, bytes_per_s)?;
    let sending = thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let block = vec![1; PIECE_LEN];
        let mut left = total;
        while left > 0 {
            let len = left.min(PIECE_LEN as u64);
            stream.write_all(&block[..usize::try_from(len).unwrap_or(PIECE_LEN)])?;
            left -= len;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(proxy.addr()).map_err(doing())?;
    let mut buffer = vec![0; PIECE_LEN];
    let mut began = None;
    let mut got = 0_u64;
    loop {
        let len = stream.read(&mut buffer).map_err(doing())?;
        if len == 0 {
            break;
        }
        // From the first byte on: the delay is no matter of speed.
        began.get_or_insert_with(Instant::now);
        got += len as u64;
    }
    let took = began.map_or(Duration::ZERO, |began| began.elapsed());
    sending
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the sender panicked")))
        .map_err(doing())?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let got = got as f64;
    Ok(got / took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        addr
    }

    #[test]
    fn what_goes_in_comes_out_later_and_unchanged() {
        let rtt = Duration::from_millis(40);
        let proxy = DelayProxy::start(echo(), rtt, 1_000_000_000).unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32)
            .map(|n| n.to_le_bytes()[(n % 3) as usize])
            .collect();
        let began = Instant::now();
        let mut stream = TcpStream::connect(proxy.addr()).unwrap();
        let mut other = stream.try_clone().unwrap();
        let sending = sent.clone();
        let writer = thread::spawn(move || {
            other.write_all(&sending).unwrap();
            other.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
        // Never sooner than the link allows; how much later is the machine's affair.
        assert!(began.elapsed() >= rtt);
        assert_eq!(proxy.carried(), [1_000_000, 1_000_000]);
    }

    #[test]
    fn a_client_that_goes_away_ends_the_connection_of_the_server() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let proxy = DelayProxy::start(server, Duration::from_millis(2), 1 << 30).unwrap();
        drop(TcpStream::connect(proxy.addr()).unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}
