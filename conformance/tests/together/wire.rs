//! The stream under a connection, with a count of what passes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Any stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What is between client and server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    /// Memory of this process.
    Duplex,
    /// TCP on loopback.
    Socket,
}

/// Bytes that a duplex stream takes before its writer has to wait.
const DUPLEX_LEN: usize = 256 * 1024;

impl Over {
    /// Both ends of a new stream.
    pub(crate) async fn pair(self) -> (Box<dyn Stream>, Box<dyn Stream>) {
        match self {
            Self::Duplex => {
                let (ours, theirs) = tokio::io::duplex(DUPLEX_LEN);
                (Box::new(ours), Box::new(theirs))
            }
            Self::Socket => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let ours = TcpStream::connect(listener.local_addr().unwrap());
                let (ours, theirs) = tokio::join!(ours, listener.accept());
                let (ours, theirs) = (ours.unwrap(), theirs.unwrap().0);
                ours.set_nodelay(true).unwrap();
                theirs.set_nodelay(true).unwrap();
                (Box::new(ours), Box::new(theirs))
            }
        }
    }
}

/// What has passed, as the client sees it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    read_bytes: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Counts {
    /// Bytes that the client has taken from the stream.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::SeqCst)
    }

    /// How often the client took bytes from the stream, and put some into it.
    pub(crate) fn events(&self) -> (u64, u64) {
        (
            self.reads.load(Ordering::SeqCst),
            self.writes.load(Ordering::SeqCst),
        )
    }
}

/// The client's end of the stream, counted.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    counts: Arc<Counts>,
}

impl<S> Wire<S> {
    pub(crate) fn new(stream: S) -> (Self, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        let wire = Self {
            stream,
            counts: Arc::clone(&counts),
        };
        (wire, counts)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let came = (buffer.filled().len() - before) as u64;
        self.counts.read_bytes.fetch_add(came, Ordering::SeqCst);
        self.counts.reads.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.counts.writes.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
