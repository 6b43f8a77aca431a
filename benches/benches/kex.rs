//! What a key exchange costs each side, per method: from the identifications to the first packet
//! under the new keys, with an Ed25519 host key that is signed with and verified.
//!
//! Both machines run in one thread; the processor's time that each of them takes is counted apart,
//! and what else the machine does is not. A group exchange has no server here, but costs its client what the group of the same size does, and, once
//! for each new modulus, the test whether it is safe.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ketch_keys::PrivateKey;
use ketch_transport::algorithm::Kex;
use ketch_transport::config::{ClientConfig, HostKey, ServerConfig};
use ketch_transport::connection::Connection;
use ketch_transport::crypto::SystemRandom;
use ketch_transport::event::Event;
use ketch_transport::packet::Input;
use rustix::time::{ClockId, clock_gettime};

/// What this thread has had of the processor.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it grows from zero")
}

/// A machine, and the time it took.
struct Side {
    machine: Connection,
    took: Duration,
}

#[expect(
    clippy::disallowed_methods,
    reason = "deadlines, which nothing gets near to"
)]
fn now() -> Instant {
    Instant::now()
}

impl Side {
    /// Gives the machine what the other one sent; says whether a login could begin.
    fn hear(&mut self, bytes: &mut [u8]) -> bool {
        let (start, now) = (spent(), now());
        let mut ready = false;
        let mut input = Input::new(bytes);
        while let Some(event) = self.machine.next(&mut input, now).expect("a right peer") {
            match event {
                Event::HostKey(key) => {
                    black_box(key);
                    self.machine.accept_host_key().expect("it was asked");
                }
                _ => ready = true,
            }
        }
        self.machine.flush(now).expect("there is room");
        self.took += spent().saturating_sub(start);
        ready
    }

    fn say(&mut self) -> Vec<u8> {
        let bytes = self.machine.output().to_vec();
        self.machine.output_taken(bytes.len());
        bytes
    }
}

/// One exchange; what it took the client and the server.
fn exchange(kex: Kex, host_key: &Arc<HostKey>) -> (Duration, Duration) {
    let mut client = ClientConfig::new("ann");
    client.common.preferences.kex = vec![kex];
    let mut server = ServerConfig::new([Arc::clone(host_key)]);
    server.common.preferences.kex = vec![kex];
    let start = spent();
    let client = Connection::client(client, Box::new(SystemRandom::new()), now());
    let mut client = Side {
        machine: client.expect("there is randomness"),
        took: spent().saturating_sub(start),
    };
    let start = spent();
    let server = Connection::server(server, Box::new(SystemRandom::new()), now());
    let mut server = Side {
        machine: server.expect("there is randomness"),
        took: spent().saturating_sub(start),
    };
    loop {
        server.hear(&mut client.say());
        if client.hear(&mut server.say()) {
            return (client.took, server.took);
        }
    }
}

fn exchanges(c: &mut Criterion) {
    let host_key = Arc::new(HostKey::new(PrivateKey::from_ed25519_seed([7; 32].into())));
    let mut group = c.benchmark_group("kex");
    group.sample_size(10);
    for &kex in Kex::ALL {
        if kex.name().contains("group-exchange") {
            continue;
        }
        for side in ["client", "server"] {
            group.bench_function(BenchmarkId::new(side, kex), |b| {
                b.iter_custom(|times| {
                    let took = |_| match exchange(black_box(kex), &host_key) {
                        (client, _) if side == "client" => client,
                        (_, server) => server,
                    };
                    (0..times).map(took).sum()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, exchanges);
criterion_main!(benches);
