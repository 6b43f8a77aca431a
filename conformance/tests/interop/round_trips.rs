//! From SYN to the first SFTP reply: how many round trips.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_client::Connect;
use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_server::{MemoryFileSystem, Server, User, generate_host_key};
use tokio::net::TcpListener;

use crate::flights::{lock_step, long_path};

/// Runs of which the smallest count is taken.
const TRIES: u32 = 3;
/// One way, on the long path.
const DELAY: Duration = Duration::from_millis(40);

/// Most round trips to a server that was never met. One less is the aim where the host is known.
const FIRST_CONTACT_OPENSSH: u64 = 6;
const FIRST_CONTACT_KETCH: u64 = 6;

/// How to connect, but for the address.
type Way = dyn Fn(Connect) -> Connect;

async fn first_reply(addr: SocketAddr, way: &Way) {
    let connect = Connect::to("127.0.0.1").port(addr.port());
    let session = way(connect).connect().await.unwrap();
    let _sftp = session.sftp().await.unwrap();
}

/// The count in lock step, and how many times the delay of a long path there and back it took.
async fn measure(what: &str, server: SocketAddr, way: &Way) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..TRIES {
        let (addr, count) = lock_step(server).await;
        first_reply(addr, way).await;
        least = least.min(count.round_trips());
    }
    let addr = long_path(server, DELAY).await;
    let began = Instant::now();
    first_reply(addr, way).await;
    // The proxy accepts at once: TCP's own round trip is not in the time.
    let there_and_back = (2 * DELAY).as_secs_f64();
    let measured = 1.0 + began.elapsed().as_secs_f64() / there_and_back;
    println!("round trips to {what}: {least} in lock step, {measured:.1} on a long path");
    least
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
    let count = measure("OpenSSH, first contact", server.addr(), &way).await;
    assert!(count <= FIRST_CONTACT_OPENSSH, "{count} round trips");
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
    let count = measure("ketch, first contact", addr, &way).await;
    assert!(count <= FIRST_CONTACT_KETCH, "{count} round trips");
    server.shutdown();
    served.await.unwrap().unwrap();
}
