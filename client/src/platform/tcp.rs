//! What a TCP socket is told when it is connected.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Sends small packets at once, and has the system notice a peer that is gone.
///
/// SSH asks the peer itself whether it is there, but only the system can tell that what was sent
/// is never acknowledged: after `gone_after` it ends the connection, where it has that option.
///
/// # Errors
/// Those of the system, if it refuses `TCP_NODELAY`; what else it refuses is done without.
pub(crate) fn tune(
    stream: &TcpStream,
    idle: Option<Duration>,
    gone_after: Duration,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(idle) = idle {
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(idle);
        let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
    }
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(gone_after.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, millis);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = gone_after;
    Ok(())
}
