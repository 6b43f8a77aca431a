//! From a name to a TCP connection.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{ConnectError, Timeouts};
use crate::destination::Host;
use crate::platform::tcp;

/// Most addresses of a name that are tried: each may take its whole time.
const ADDRESSES_MAX: usize = 8;

/// Connects to the first of the host's addresses that answers, in the order in which the resolver
/// gives them.
pub(super) async fn dial(
    host: &Host,
    port: u16,
    timeouts: &Timeouts,
) -> Result<TcpStream, ConnectError> {
    let addresses = look_up(host, port, timeouts).await?;
    let mut last = None;
    for address in &addresses {
        match dial_address(*address, timeouts).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                tracing::debug!(%address, %error, "no connection to this address");
                last = Some((*address, error));
            }
        }
    }
    let (address, source) = last.ok_or_else(|| no_address(host))?;
    let tried = addresses.len();
    Err(ConnectError::Unreachable {
        host: host.clone(),
        address,
        tried,
        source,
    })
}

async fn look_up(
    host: &Host,
    port: u16,
    timeouts: &Timeouts,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let lookup = lookup_host((host.as_str(), port));
    match timeout(timeouts.tcp, lookup).await {
        Ok(Ok(found)) => {
            let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
            if addresses.is_empty() {
                Err(no_address(host))
            } else {
                Ok(addresses)
            }
        }
        Ok(Err(source)) => Err(ConnectError::Lookup {
            host: host.clone(),
            source,
        }),
        Err(_) => {
            let source = io::ErrorKind::TimedOut.into();
            Err(ConnectError::Lookup {
                host: host.clone(),
                source,
            })
        }
    }
}

fn no_address(host: &Host) -> ConnectError {
    let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    ConnectError::Lookup {
        host: host.clone(),
        source,
    }
}

async fn dial_address(address: SocketAddr, timeouts: &Timeouts) -> io::Result<TcpStream> {
    let stream = timeout(timeouts.tcp, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    tcp::tune(&stream, timeouts.keepalive, timeouts.gone_after())?;
    Ok(stream)
}
