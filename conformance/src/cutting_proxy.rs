//! A TCP proxy whose way breaks: connections are cut, or swallow everything.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::PeerError;

const PIECE_LEN: usize = 16 * 1024;
/// How soon whoever waits sees that the way is open again.
const LOOK: Duration = Duration::from_millis(5);

/// A running proxy before a server; it takes no new connections when dropped.
#[derive(Debug)]
pub struct CuttingProxy {
    addr: SocketAddr,
    way: Arc<Way>,
}

#[derive(Debug, Default)]
struct Way {
    stopped: AtomicBool,
    /// Nothing passes.
    silent: AtomicBool,
    carried: AtomicU64,
    /// Each connection: its client's stream and its server's.
    open: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl CuttingProxy {
    /// A proxy before `server` on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// [`PeerError::Io`] without a port.
    pub fn start(server: SocketAddr) -> Result<Self, PeerError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(PeerError::io("listening for the cutting proxy"))?;
        let addr = listener
            .local_addr()
            .map_err(PeerError::io("the cutting proxy's port"))?;
        let way = Arc::new(Way::default());
        let proxy = Self {
            addr,
            way: Arc::clone(&way),
        };
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if way.stopped.load(Ordering::SeqCst) {
                    return;
                }
                // One that cannot be made ends at once.
                if let Ok(server) = TcpStream::connect(server) {
                    carry_both(&client, &server, &way);
                }
            }
        });
        Ok(proxy)
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends all connections in mid-stream; answers how many there were.
    pub fn cut(&self) -> usize {
        let mut open = self.way.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.drain(..)
            .filter(|(client, server)| {
                // The client's end alone says whether it lived: once it is shut, whoever carries shuts
                // the server's as well.
                let alive = client.shutdown(Shutdown::Both).is_ok();
                let _ = server.shutdown(Shutdown::Both);
                alive
            })
            .count()
    }

    /// From now on nothing passes, and nobody is told; or it does again.
    pub fn silence(&self, silent: bool) {
        self.way.silent.store(silent, Ordering::SeqCst);
    }

    /// Bytes carried so far, both ways.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.way.carried.load(Ordering::SeqCst)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.way.stopped.store(true, Ordering::SeqCst);
        self.cut();
        // Whoever waits for a connection gets one, and sees that it is the last.
        let _ = TcpStream::connect(self.addr);
    }
}

fn carry_both(client: &TcpStream, server: &TcpStream, way: &Arc<Way>) {
    let (Ok(kept_client), Ok(kept_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    way.open
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((kept_client, kept_server));
    for (from, to) in [(client, server), (server, client)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        let _ = from.set_nodelay(true);
        let way = Arc::clone(way);
        thread::spawn(move || carry(from, to, &way));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, way: &Way) {
    let mut piece = vec![0; PIECE_LEN];
    loop {
        let count = from.read(&mut piece).unwrap_or(0);
        while way.silent.load(Ordering::SeqCst) && !way.stopped.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
        }
        // Counted before it goes on: whoever has received it finds it counted.
        way.carried.fetch_add(count as u64, Ordering::SeqCst);
        if count == 0 || to.write_all(&piece[..count]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_ends_and_the_next_connection_works() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        let proxy = CuttingProxy::start(addr).unwrap();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(proxy.addr()).unwrap();
            let mut answer = [0; 5];
            stream.write_all(b"hello").unwrap();
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
            assert_eq!(proxy.cut(), 1);
            assert_eq!(stream.read(&mut answer).unwrap_or(0), 0);
        }
        assert_eq!(proxy.carried(), 20);
    }
}
