//! Other servers as the way (OpenSSH's `ProxyJump`): each hop is a connection of our own, and a
//! channel of the hop before is its stream (`direct-tcpip`, RFC 4254 §7.2).
//!
//! Each hop's host key is checked, and each hop sees only what the next one's encryption lets it
//! see. The sessions of the hops live as long as the stream through them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Endpoint, RouteStream};
use crate::connect::{Connect, ConnectError, HopsFault};
use crate::{ChannelStream, Session};

/// Most servers that are passed on the way to one.
pub(crate) const HOPS_MAX: usize = 8;

/// A channel through the last hop.
#[derive(Debug)]
pub(crate) struct JumpStream {
    channel: ChannelStream,
    /// Ends with the stream; it holds the session before it in the same way.
    _through: Session,
}

/// Goes through `hops` in turn, as far as a channel that leads to `target`.
///
/// Depth and routes were looked at when the connection was planned.
pub(super) async fn open(hops: &[Connect], target: &Endpoint) -> Result<RouteStream, ConnectError> {
    let mut stream: Option<RouteStream> = None;
    for (at, hop) in hops.iter().enumerate() {
        let next = match hops.get(at + 1) {
            Some(next) => next.endpoint()?,
            None => target.clone(),
        };
        let here = hop.endpoint()?;
        let failed = |source| ConnectError::Jump {
            host: target.host.clone(),
            hop: here.host.clone(),
            source: Box::new(source),
        };
        let session = match stream.take() {
            None => hop.clone().connect().await,
            Some(stream) => hop.clone().connect_over(stream).await,
        };
        let session = session.map_err(failed)?;
        let channel = session
            .direct_tcpip(next.host.as_str(), next.port)
            .await
            .map_err(|source| ConnectError::JumpRefused {
                hop: here.host.clone(),
                target: next,
                source,
            })?;
        stream = Some(RouteStream::Jump(JumpStream {
            channel,
            _through: session,
        }));
    }
    stream.ok_or(ConnectError::Hops(HopsFault::None))
}

impl AsyncRead for JumpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_read(cx, buf)
    }
}

impl AsyncWrite for JumpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.channel).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_shutdown(cx)
    }
}
