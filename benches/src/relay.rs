//! Two networks with a link between them, for what TCP does on it: delay, a rate, a finite buffer,
//! and loss.
//!
//! Each network is a namespace with a TUN device; the packets that leave one come out of the other
//! when [`crate::link`] says so. Nothing is acknowledged or resent on the way: that is for the
//! kernels' TCP at both ends.

#![expect(clippy::disallowed_methods, reason = "a link is a matter of the clock")]

use std::collections::VecDeque;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tappers::{Interface, Tun};

use crate::BenchError;
use crate::link::{Fate, Link, LinkConfig};
use crate::median::median;
use crate::namespace::Namespace;

/// The addresses of the two sides, from the network for benchmarks (RFC 2544, appendix C.2.2).
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// See [`CLIENT`].
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Bytes of the largest packet.
pub const MTU: u16 = 1500;
/// Packets that are remembered at most.
const SAMPLES_MAX: usize = 4_000_000;

/// A direction of the link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// From the client's network to the server's.
    Up,
    /// From the server's network to the client's.
    Down,
}

/// Both networks and what lies between.
#[derive(Debug)]
pub struct Relay {
    client: Namespace,
    server: Namespace,
    up: Arc<Direction>,
    down: Arc<Direction>,
}

/// One packet that came to the link.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// What waited in front of the link with it, in bytes.
    pub backlog_bytes: u64,
    /// What has come out up to it, or will, in bytes.
    pub carried_bytes: u64,
}

#[derive(Debug)]
struct Direction {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    link: Link,
    samples: Vec<Sample>,
    under_way: VecDeque<(Instant, Vec<u8>)>,
}

impl Relay {
    /// Makes both networks, with a link that is without limit until [`Self::set`].
    ///
    /// # Errors
    /// [`BenchError`] without root, `ip` or `/dev/net/tun`: see [`Namespace::absent`].
    pub fn start() -> Result<Self, BenchError> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        let (at_client, at_server) = (device(&client, CLIENT)?, device(&server, SERVER)?);
        let direction = || {
            Arc::new(Direction {
                state: Mutex::new(State {
                    link: Link::new(LinkConfig {
                        bytes_per_s: u64::MAX / 2,
                        delay: Duration::ZERO,
                        buffer_bytes: None,
                        loss_per_million: 0,
                        seed: 0,
                    }),
                    samples: Vec::new(),
                    under_way: VecDeque::new(),
                }),
                changed: Condvar::new(),
            })
        };
        let relay = Self {
            client,
            server,
            up: direction(),
            down: direction(),
        };
        for (from, to, direction) in [
            (&at_client, &at_server, &relay.up),
            (&at_server, &at_client, &relay.down),
        ] {
            let (from, to) = (Arc::clone(from), Arc::clone(to));
            let (taking, giving) = (Arc::clone(direction), Arc::clone(direction));
            thread::spawn(move || take(&from, &taking));
            thread::spawn(move || give(&to, &giving));
        }
        Ok(relay)
    }

    /// Lets TCP connections in both networks buffer up to so many bytes at each end, in place of
    /// the system's own limits: a link that holds more than those is never full.
    ///
    /// # Errors
    /// [`BenchError::Io`].
    pub fn buffer(&self, bytes: u64) -> Result<(), BenchError> {
        self.write_setting("tcp_rmem", format!("4096 131072 {bytes}"))?;
        self.write_setting("tcp_wmem", format!("4096 16384 {bytes}"))
    }

    /// Lets TCP in both networks use the congestion control of that name.
    ///
    /// # Errors
    /// [`BenchError::Io`] if the kernel has none of that name.
    pub fn congestion_control(&self, name: &str) -> Result<(), BenchError> {
        self.write_setting("tcp_congestion_control", name.to_owned())
    }

    /// The congestion control that TCP uses in both networks.
    ///
    /// # Errors
    /// [`BenchError::Io`].
    pub fn congestion_controlled_by(&self) -> Result<String, BenchError> {
        let file = "/proc/sys/net/ipv4/tcp_congestion_control";
        let read = self.client.run(move || fs::read_to_string(file))?;
        let name = read.map_err(BenchError::io(format!("reading {file}")))?;
        Ok(name.trim_end().to_owned())
    }

    fn write_setting(&self, name: &str, value: String) -> Result<(), BenchError> {
        for namespace in [&self.client, &self.server] {
            // It stands for the network of the thread that opens it.
            let (file, value) = (format!("/proc/sys/net/ipv4/{name}"), value.clone());
            let doing = BenchError::io(format!("writing {value} to {file}"));
            namespace
                .run(move || fs::write(file, value))?
                .map_err(doing)?;
        }
        Ok(())
    }

    /// Where clients run.
    #[must_use]
    pub const fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the server runs.
    #[must_use]
    pub const fn server(&self) -> &Namespace {
        &self.server
    }

    /// From now on the link is like that, in both directions, and is idle. What is under way
    /// arrives.
    pub fn set(&self, config: LinkConfig) {
        for (direction, seed) in [(&self.up, 0), (&self.down, 1)] {
            let mut state = direction.lock();
            state.link = Link::new(LinkConfig {
                // Losses at the same time both ways would be a strange link.
                seed: config.seed.wrapping_add(seed),
                ..config
            });
            state.samples.clear();
        }
    }

    /// The packets that came to the link since it was set, and how many of them met a full buffer
    /// and how many were lost.
    #[must_use]
    pub fn seen(&self, way: Way) -> (Vec<Sample>, (u64, u64)) {
        let direction = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        let mut state = direction.lock();
        (std::mem::take(&mut state.samples), state.link.dropped())
    }
}

impl Direction {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The only way out of a namespace.
fn device(namespace: &Namespace, address: Ipv4Addr) -> Result<Arc<Tun>, BenchError> {
    let device = namespace
        .run(|| Tun::new_named(Interface::new("ketch0")?))?
        .map_err(BenchError::io("making a TUN device"))?;
    namespace.ip(&format!("address add {address}/24 dev ketch0"))?;
    // The link's buffer is the relay's: this one only holds what it was too slow to take.
    namespace.ip(&format!("link set ketch0 up mtu {MTU} txqueuelen 10000"))?;
    Ok(Arc::new(device))
}

fn take(from: &Tun, direction: &Direction) {
    let mut packet = vec![0; 1 << 16];
    // It ends with the device.
    while let Ok(len) = from.recv(&mut packet) {
        let now = Instant::now();
        let mut state = direction.lock();
        let fate = state.link.offer(now, len);
        if state.samples.len() < SAMPLES_MAX {
            let sample = Sample {
                at: now,
                backlog_bytes: state.link.backlog(now),
                carried_bytes: state.link.carried_bytes(),
            };
            state.samples.push(sample);
        }
        if let Fate::Arrives(due) = fate {
            let bytes = packet.get(..len).unwrap_or_default().to_vec();
            state.under_way.push_back((due, bytes));
            if state.under_way.len() == 1 {
                direction.changed.notify_one();
            }
        }
    }
}

fn give(to: &Tun, direction: &Direction) {
    let mut ready = Vec::new();
    loop {
        let mut state = direction.lock();
        let Some((due, _)) = state.under_way.front() else {
            let waited = direction.changed.wait(state);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            continue;
        };
        let (due, now) = (*due, Instant::now());
        if due > now {
            drop(state);
            thread::sleep(due - now);
            continue;
        }
        while let Some((_, packet)) = state.under_way.pop_front_if(|(due, _)| *due <= now) {
            ready.push(packet);
        }
        drop(state);
        for packet in ready.drain(..) {
            // A device that takes nothing more has lost it, as devices do.
            let _ = to.send(&packet);
        }
    }
}

/// What a transfer made of the link.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Quality {
    /// Bytes a second, with all headers, while a fifth to 95 hundredths of all was carried.
    pub bytes_per_s: f64,
    /// What stood before the link all the time, in bytes: of each round trip time the least, and
    /// of these the median.
    pub standing_queue_bytes: f64,
    /// The longest queue, in bytes.
    pub longest_queue_bytes: u64,
}

impl Quality {
    /// Of the packets of a transfer over a path with that round trip time; `None` if there are too
    /// few to tell.
    #[must_use]
    pub fn of(samples: &[Sample], rtt: Duration) -> Option<Self> {
        let total = samples.last()?.carried_bytes;
        let steady: Vec<&Sample> = samples
            .iter()
            .filter(|each| (total / 5..=total / 20 * 19).contains(&each.carried_bytes))
            .collect();
        let (first, last) = (steady.first()?, steady.last()?);
        let took = last.at.duration_since(first.at);
        if took < rtt {
            return None;
        }
        let mut least: Vec<u64> = Vec::new();
        let mut window = first.at;
        for sample in &steady {
            while sample.at >= window {
                window += rtt.max(Duration::from_millis(1));
                least.push(u64::MAX);
            }
            if let Some(least) = least.last_mut() {
                *least = (*least).min(sample.backlog_bytes);
            }
        }
        // A round trip time without a packet had no queue.
        let least = least.into_iter().map(|bytes| match bytes {
            u64::MAX => 0.0,
            bytes => as_f64(bytes),
        });
        Some(Self {
            bytes_per_s: as_f64(last.carried_bytes - first.carried_bytes) / took.as_secs_f64(),
            standing_queue_bytes: median(least),
            longest_queue_bytes: samples.iter().map(|each| each.backlog_bytes).max()?,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_queue_that_drains_every_round_trip_does_not_stand() {
        let began = Instant::now();
        let rtt = Duration::from_millis(10);
        // A thousand bytes each millisecond; the queue goes from 0 to 9000 and back every 10 ms.
        let sample = |n: u32| Sample {
            at: began + Duration::from_millis(n.into()),
            backlog_bytes: u64::from(n % 10) * 1000,
            carried_bytes: u64::from(n) * 1000,
        };
        let samples: Vec<_> = (0..1000).map(sample).collect();
        let quality = Quality::of(&samples, rtt).unwrap();
        assert!((quality.bytes_per_s - 1e6).abs() < 1.0, "{quality:?}");
        assert!(quality.standing_queue_bytes < 1.0, "{quality:?}");
        assert_eq!(quality.longest_queue_bytes, 9000);

        let standing: Vec<_> = samples
            .iter()
            .map(|each| Sample {
                backlog_bytes: each.backlog_bytes + 5000,
                ..*each
            })
            .collect();
        let quality = Quality::of(&standing, rtt).unwrap();
        assert!((quality.standing_queue_bytes - 5000.0).abs() < 1.0);
    }

    #[test]
    fn tcp_goes_through_and_takes_its_round_trip() {
        if let Some(why) = Namespace::absent() {
            eprintln!("not tested: {why}");
            return;
        }
        let relay = Relay::start().unwrap();
        let rtt = Duration::from_millis(20);
        relay.set(LinkConfig {
            bytes_per_s: 12_500_000,
            delay: rtt / 2,
            buffer_bytes: Some(100_000),
            loss_per_million: 0,
            seed: 1,
        });
        let listener = relay.server().run(|| TcpListener::bind((SERVER, 0)));
        let listener = listener.unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        let sending = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[7; 300_000]).unwrap();
        });
        let began = Instant::now();
        let stream = relay.client().run(move || TcpStream::connect(addr));
        let mut got = Vec::new();
        stream.unwrap().unwrap().read_to_end(&mut got).unwrap();
        sending.join().unwrap();
        assert_eq!(got.len(), 300_000);
        // A handshake and at least one round of data: never sooner.
        assert!(began.elapsed() >= rtt + rtt / 2);
        let (samples, _) = relay.seen(Way::Down);
        assert!(samples.len() >= 300_000 / usize::from(MTU));
    }
}
