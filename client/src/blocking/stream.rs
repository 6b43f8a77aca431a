//! Streams of bytes for threads: carried connections, and what programs read and write.

use std::{io, sync::Arc};

use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};

use super::{Background, Done, Session};
use crate::{
    ChannelStream, OpenError,
    forward::{self, ForwardError},
};

/// A stream of bytes over a connection, with `Read` and `Write` as far as it goes in both
/// directions.
#[derive(Debug)]
pub struct Stream<T> {
    stream: T,
    background: Arc<Background>,
}

impl<T> Stream<T> {
    pub(super) const fn new(stream: T, background: Arc<Background>) -> Self {
        Self { stream, background }
    }

    /// The same stream for `async` functions.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.stream
    }
}

impl<T: AsyncRead + AsyncWrite> Stream<T> {
    /// Its two directions, for two threads.
    #[must_use]
    pub fn split(self) -> (Stream<ReadHalf<T>>, Stream<WriteHalf<T>>) {
        let (read, write) = tokio::io::split(self.stream);
        let background = Arc::clone(&self.background);
        (
            Stream::new(read, background),
            Stream::new(write, self.background),
        )
    }
}

impl<T: AsyncWrite + Unpin> Stream<T> {
    /// Tells the other side that no more is written.
    ///
    /// # Errors
    /// What became of the connection, or that this is an `async` function.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.background.wait_io(self.stream.shutdown())
    }
}

impl<T: AsyncRead + Unpin> io::Read for Stream<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.background.wait_io(self.stream.read(buffer))
    }
}

impl<T: AsyncWrite + Unpin> io::Write for Stream<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.background.wait_io(self.stream.write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.background.wait_io(self.stream.flush())
    }
}

impl Session {
    /// Opens a channel and starts the subsystem `name` on it: [`crate::Session::open_subsystem`].
    ///
    /// # Errors
    /// [`OpenError`]; see [`BlockingError`](super::BlockingError).
    pub fn open_subsystem(&self, name: &str) -> Done<Stream<ChannelStream>, OpenError> {
        let stream = self.background.wait(self.session.open_subsystem(name))?;
        Ok(Stream::new(stream, Arc::clone(&self.background)))
    }

    /// Has the server connect to a port of a host: [`crate::Session::direct_tcpip`].
    ///
    /// # Errors
    /// [`OpenError`]; see [`BlockingError`](super::BlockingError).
    pub fn direct_tcpip(&self, host: &str, port: u16) -> Done<Stream<ChannelStream>, OpenError> {
        let opening = self.session.direct_tcpip(host, port);
        let stream = self.background.wait(opening)?;
        Ok(Stream::new(stream, Arc::clone(&self.background)))
    }

    /// Has the server listen on a port of an address: [`crate::Session::forward_tcpip`].
    ///
    /// # Errors
    /// [`ForwardError`]; see [`BlockingError`](super::BlockingError).
    pub fn forward_tcpip(&self, address: &str, port: u16) -> Done<Forward, ForwardError> {
        let asking = self.session.forward_tcpip(address, port);
        Ok(Forward {
            forward: self.background.wait(asking)?,
            background: Arc::clone(&self.background),
        })
    }
}

/// A port that the server listens on: [`crate::forward::Forward`] for threads.
///
/// As an iterator it waits for one connection after the other, until that to the server is gone.
#[derive(Debug)]
pub struct Forward {
    forward: forward::Forward,
    background: Arc<Background>,
}

/// A connection that came to a forwarded port.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The connection.
    pub stream: Stream<ChannelStream>,
    /// Who made it, as the server says: address and port.
    pub originator: (String, u16),
}

impl Forward {
    /// The port that the server listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.forward.port()
    }

    /// The address that it was asked to listen on.
    #[must_use]
    pub fn address(&self) -> &str {
        self.forward.address()
    }

    /// Has the server listen no more, and waits until it says so. Connections that are there go on.
    ///
    /// # Errors
    /// [`ForwardError`]; see [`BlockingError`](super::BlockingError).
    pub fn cancel(self) -> Done<(), ForwardError> {
        self.background.wait(self.forward.cancel())
    }
}

impl Iterator for Forward {
    type Item = Done<Incoming, ForwardError>;

    fn next(&mut self) -> Option<Self::Item> {
        let forward = &mut self.forward;
        let waited = self.background.wait(async { Ok(forward.accept().await) });
        let incoming = waited.transpose()?.map(|incoming| Incoming {
            stream: Stream::new(incoming.stream, Arc::clone(&self.background)),
            originator: incoming.originator,
        });
        Some(incoming)
    }
}
