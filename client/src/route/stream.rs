//! One stream type for every route, so that the machinery above exists once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::CommandError;
use super::command::{Child, ChildStream};
use super::jump::JumpStream;

/// What a route gives: the stream to the server.
#[derive(Debug)]
pub(crate) enum RouteStream {
    /// Straight, or through a proxy.
    Tcp(TcpStream),
    /// A channel of another connection.
    Jump(JumpStream),
    /// The pipes of a program.
    #[cfg_attr(not(feature = "proxy-command"), expect(dead_code))]
    Command(ChildStream),
}

/// What can still say, when a stream has failed and is gone, why that was.
#[derive(Debug)]
pub(crate) enum Remains {
    Nothing,
    #[cfg_attr(not(feature = "proxy-command"), expect(dead_code))]
    Command(Child),
}

impl RouteStream {
    /// To be kept while the stream is in use.
    pub(crate) fn remains(&self) -> Remains {
        match self {
            #[cfg(feature = "proxy-command")]
            Self::Command(stream) => Remains::Command(stream.child()),
            _ => Remains::Nothing,
        }
    }
}

impl Remains {
    /// What the route knows of its end, once its stream is dropped.
    pub(crate) async fn settle(self) -> Option<CommandError> {
        match self {
            Self::Nothing => None,
            Self::Command(child) => Some(child.settle().await),
        }
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            RouteStream::Tcp($stream) => $call,
            RouteStream::Jump($stream) => $call,
            RouteStream::Command($stream) => $call,
        }
    };
}

impl AsyncRead for RouteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for RouteStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
