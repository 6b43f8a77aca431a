//! Connections that others make: to a host that the server reaches, and to a port that the server
//! listens on (RFC 4254 §7).

use std::sync::Arc;

pub use ketch_transport::driver::ForwardError;
use ketch_transport::driver::{ChannelStream, OpenError, stream};
use ketch_transport::session::Tcpip;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::Session;
use crate::error::{Failure, Kind};
use crate::session::STREAM_WINDOW;

/// Connections that came to a forwarded port and that nobody has taken; more are refused.
const WAITING_MAX: usize = 16;

impl Session {
    /// Has the server connect to a port of a host, and gives the connection as a stream of bytes:
    /// over it, [`Connect::connect_over`](crate::Connect::connect_over) logs in to a server that
    /// only this one reaches.
    ///
    /// ```no_run
    /// # async fn example(bastion: ketch_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use ketch_client::{Connect, identity::Identity};
    ///
    /// let stream = bastion.direct_tcpip("inner.example.com", 22).await?;
    /// let inner = Connect::to("inner.example.com")
    ///     .identity(Identity::from_file("/home/ann/.ssh/id_ed25519")?)
    ///     .connect_over(stream)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OpenError`]: the server could not connect or does not want to, gave no answer within
    /// [`Timeouts::stall`](crate::Timeouts::stall), or the connection is gone.
    pub async fn direct_tcpip(&self, host: &str, port: u16) -> Result<ChannelStream, OpenError> {
        let (stream, application) = stream();
        let to = Tcpip::to(host, port);
        let opening = self
            .connection()
            .open_direct_tcpip(to, STREAM_WINDOW, application);
        match timeout(self.timeouts().stall, opening).await {
            Ok(opened) => opened.map(|_| stream),
            Err(_) => Err(OpenError::TimedOut),
        }
    }

    /// Has the server listen on a port of an address, and gives the connections that come in. Port 0
    /// lets the server choose; an empty address means all of them, `localhost` the loopback ones.
    /// OpenSSH's server listens on loopback addresses only, unless its `GatewayPorts` says otherwise.
    ///
    /// ```no_run
    /// # async fn example(session: ketch_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut forward = session.forward_tcpip("localhost", 0).await?;
    /// println!("port {} of {}", forward.port(), session.host());
    /// while let Some(mut incoming) = forward.accept().await {
    ///     tokio::spawn(async move {
    ///         let mut local = tokio::net::TcpStream::connect("127.0.0.1:8080").await?;
    ///         tokio::io::copy_bidirectional(&mut incoming.stream, &mut local).await
    ///     });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward_tcpip(&self, address: &str, port: u16) -> Result<Forward, ForwardError> {
        let (sender, incoming) = mpsc::channel(WAITING_MAX);
        let target = Box::new(move |at: Tcpip| {
            let place = sender.try_reserve().ok()?;
            let (stream, application) = stream();
            place.send(Incoming {
                stream,
                originator: (at.originator_host, at.originator_port),
            });
            Some(application)
        });
        let asking = self.connection().request_forward(address, port, target);
        let port = timeout(self.timeouts().stall, asking)
            .await
            .map_err(|_| ForwardError::TimedOut)??;
        Ok(Forward {
            incoming,
            guard: Arc::new(Guard {
                session: self.clone(),
                address: address.to_owned(),
                port,
            }),
        })
    }
}

/// A port that the server listens on for this side; with the last of what holds it the server is
/// told to stop.
#[derive(Debug)]
pub struct Forward {
    incoming: mpsc::Receiver<Incoming>,
    guard: Arc<Guard>,
}

/// A connection that came to a forwarded port.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The connection.
    pub stream: ChannelStream,
    /// Who made it, as the server says: address and port.
    pub originator: (String, u16),
}

/// Tells the server to stop.
#[derive(Debug)]
struct Guard {
    session: Session,
    address: String,
    port: u16,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let connection = self.session.connection();
        connection.forget_forward(self.address.as_str(), self.port);
    }
}

impl Forward {
    /// The port that the server listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.guard.port
    }

    /// The address that it was asked to listen on.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.guard.address
    }

    /// Waits for the next connection; `None` when the connection to the server is gone. Sixteen may
    /// wait to be accepted, further ones are refused.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Has the server listen no more, and waits until it says so. Connections that are there go on.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn cancel(self) -> Result<(), ForwardError> {
        let connection = self.guard.session.connection();
        let cancelling = connection.cancel_forward(self.address(), self.port());
        timeout(self.guard.session.timeouts().stall, cancelling)
            .await
            .map_err(|_| ForwardError::TimedOut)?
    }
}

impl Failure for ForwardError {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused => Kind::Permission,
            Self::TooMany => Kind::Local,
            Self::TimedOut => Kind::Timeout,
            Self::Closed(why) => why.kind(),
            _ => Kind::Peer,
        }
    }
}
