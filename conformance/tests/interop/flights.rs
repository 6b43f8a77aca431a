//! Proxies that count round trips: one without a clock, one with long paths.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Most bytes that are taken from a side at a time.
const PIECE: usize = 64 * 1024;

/// How many round trips there were.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn round_trips(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Listens, and leads the first connection to `server` in lock step.
///
/// The proxy takes all that the client says until it waits, hands it to the server, takes all that
/// the server says until it waits, hands it to the client, and so on: as on a path so long that
/// computing takes no time. A client reacts only at whole round trips then and a server only at the
/// halves between, and its own greeting, which nobody asked for, arrives with its first reactions. So
/// the count is that of TCP's handshake and one for each time that the client got something.
///
/// A side is taken to wait after `quiet` without a byte. If it only computed, that makes the count
/// larger and never smaller: every schedule that the proxy brings about could be that of a path. The
/// smallest count of several runs is therefore a proof.
///
/// What a side holds back until its bytes are acknowledged (Nagle's algorithm) is not seen here,
/// because loopback acknowledges at once: see [`long_path`].
pub(crate) async fn lock_step(server: SocketAddr, quiet: Duration) -> (SocketAddr, Arc<Count>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(Count::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        counted.0.fetch_add(1, Ordering::SeqCst); // SYN and SYN-ACK
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let (mut client_in, mut client_out) = client.into_split();
        let (mut server_in, mut server_out) = server.into_split();
        loop {
            let Some(said) = collect(&mut client_in, quiet).await else {
                return;
            };
            if server_out.write_all(&said).await.is_err() {
                return;
            }
            let Some(said) = collect(&mut server_in, quiet).await else {
                return;
            };
            if said.is_empty() {
                continue;
            }
            counted.0.fetch_add(1, Ordering::SeqCst);
            if client_out.write_all(&said).await.is_err() {
                return;
            }
        }
    });
    (addr, count)
}

/// All that a side says until it says nothing for `quiet`; `None` when it has left.
async fn collect(from: &mut OwnedReadHalf, quiet: Duration) -> Option<Vec<u8>> {
    let mut said = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        match timeout(quiet, from.read(&mut piece)).await {
            Err(_) => return Some(said),
            Ok(Ok(len @ 1..)) => said.extend_from_slice(&piece[..len]),
            Ok(_) => return None,
        }
    }
}

/// Listens, and leads the first connection to `server` over a path on which every byte is under way
/// for `delay` in each direction.
pub(crate) async fn long_path(server: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        tokio::spawn(carry(client_in, server_out, delay));
        carry(server_in, client_out, delay).await;
    });
    addr
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    tokio::spawn(async move {
        while let Some((at, bytes)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut piece = vec![0; PIECE];
    while let Ok(len @ 1..) = from.read(&mut piece).await {
        let bytes = piece[..len].to_vec();
        if under_way
            .send((Instant::now() + delay, bytes))
            .await
            .is_err()
        {
            return;
        }
    }
}
