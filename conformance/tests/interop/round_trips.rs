//! From SYN to the first SFTP reply: how many round trips.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_client::Connect;
use ketch_client::connect::DEFAULT_PORT;
use ketch_client::destination::Host;
use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::memory::{HostMemory, HostRecord, ProcessMemory};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_server::{MemoryFileSystem, Server, User, generate_host_key};
use tokio::net::TcpListener;

use crate::flights::{lock_step, long_path};

/// Runs of which the smallest count is taken, until one is good enough. Sides are given twice the time
/// of the one before in each: a busy machine takes longer, and counts no more.
const TRIES: u32 = 6;
/// After so long without a byte a side is taken to wait for the other, in the first run.
const QUIET: Duration = Duration::from_millis(60);
/// One way, on the long path.
const DELAY: Duration = Duration::from_millis(40);

/// After so many visits all that can be known of a host is known.
const VISITS: u32 = 2;

/// Most round trips to a server that was never met, and to one that is known. What Nagle's algorithm
/// adds with OpenSSH, one at most, is not seen in lock step.
const FIRST_CONTACT: u64 = 5;
const KNOWN: u64 = 4;

/// How to connect, but for the address.
type Way = dyn Fn(Connect) -> Connect + Sync;

/// A memory of one host, whatever its port: every proxy has another.
#[derive(Debug)]
struct OneHost(ProcessMemory);

impl HostMemory for OneHost {
    fn recall(&self, host: &Host, _port: u16) -> Option<HostRecord> {
        self.0.recall(host, DEFAULT_PORT)
    }

    fn remember(&self, host: &Host, _port: u16, record: &HostRecord) {
        self.0.remember(host, DEFAULT_PORT, record);
    }

    fn forget(&self, host: &Host, _port: u16) {
        self.0.forget(host, DEFAULT_PORT);
    }
}

/// The same way with a memory of the host, in which there are visits.
async fn remembering(
    way: impl Fn(Connect) -> Connect + Sync + 'static,
    server: SocketAddr,
) -> impl Fn(Connect) -> Connect + Sync {
    let memory: Arc<dyn HostMemory> = Arc::new(OneHost(ProcessMemory::new()));
    let with_memory = move |connect| way(connect).host_memory(Arc::clone(&memory));
    for _ in 0..VISITS {
        first_reply(server, &with_memory).await;
    }
    with_memory
}

async fn first_reply(addr: SocketAddr, way: &Way) {
    let connect = Connect::to("127.0.0.1").port(addr.port());
    let session = way(connect).connect().await.unwrap();
    let sftp = session.sftp().await.unwrap();
    // That there is a handle may be told before the server has said a word of SFTP.
    sftp.stat("/").await.unwrap();
}

/// Asserts that the count in lock step is `most` at most, and prints it and how many times the delay
/// of a long path there and back it took.
async fn measure(what: &str, server: SocketAddr, way: &Way, most: u64) {
    let mut least = u64::MAX;
    for doublings in 0..TRIES {
        let (addr, count) = lock_step(server, QUIET * (1 << doublings)).await;
        first_reply(addr, way).await;
        least = least.min(count.round_trips());
        if least <= most {
            break;
        }
    }
    let addr = long_path(server, DELAY).await;
    let began = Instant::now();
    first_reply(addr, way).await;
    // The proxy accepts at once: TCP's own round trip is not in the time.
    let there_and_back = (2 * DELAY).as_secs_f64();
    let measured = 1.0 + began.elapsed().as_secs_f64() / there_and_back;
    println!("round trips to {what}: {least} in lock step, {measured:.1} on a long path");
    assert!(least <= most, "{least} round trips to {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trips_to_openssh() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let user = server.user().to_owned();
    let key = server.identity().private().to_owned();
    let way = move |connect: Connect| {
        connect
            .user(&user)
            .host_keys(HostKeys::danger_accept_any_host())
            .identity(Identity::from_file(&key).unwrap())
    };
    let addr = server.addr();
    measure("OpenSSH, first contact", addr, &way, FIRST_CONTACT).await;
    let way = remembering(way, addr).await;
    measure("OpenSSH, known", addr, &way, KNOWN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trips_to_our_own_server() {
    let files = Arc::new(MemoryFileSystem::new());
    let server = Server::builder()
        .host_key(generate_host_key().unwrap())
        .user(User::with_file_system("ann", files).password("open sesame"))
        .build()
        .unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = server.clone();
    let served = tokio::spawn(async move { serving.serve(listener).await });
    let way = |connect: Connect| {
        connect
            .user("ann")
            .host_keys(HostKeys::danger_accept_any_host())
            .password("open sesame".to_owned())
    };
    measure("ketch, first contact", addr, &way, FIRST_CONTACT).await;
    let way = remembering(way, addr).await;
    measure("ketch, known", addr, &way, KNOWN).await;
    server.shutdown();
    served.await.unwrap().unwrap();
}
