//! How long each step of a connection may take.

use std::time::Duration;

/// Deadlines of a connection; each step has its own, and none waits for ever.
///
/// ```
/// use std::time::Duration;
/// use ketch_client::Timeouts;
///
/// let mut patient = Timeouts::default();
/// patient.stall = Duration::from_secs(300);
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Looking up the name, and connecting to each of its addresses. Default: 10 s.
    pub tcp: Duration,
    /// What a proxy may take, from the connection to it, until it has connected on our behalf.
    /// Default: 30 s.
    pub proxy: Duration,
    /// Identification and the first key exchange. Default: 30 s.
    pub handshake: Duration,
    /// Authentication, not counting the time in which a passphrase is asked for. Default: 60 s.
    pub authentication: Duration,
    /// Requests wait on a channel, and no byte of a reply comes, though the server is there. A
    /// first stall ends the operations, a second one the channel. Default: 60 s.
    pub stall: Duration,
    /// How long a connection is kept on which nothing is asked for: no request and no transfer is
    /// under way, no program runs, no other channel is open. `None` keeps it for ever. Default:
    /// `None`.
    pub idle: Option<Duration>,
    /// A graceful end. Default: 5 s.
    pub close: Duration,
    /// Silence after which the server is asked whether it is there; `None` never asks. Default:
    /// 30 s.
    pub keepalive: Option<Duration>,
    /// Intervals of silence after which the server counts as gone, two at the least: it is asked at
    /// the end of each but the last. Default: 3, which with 30 s makes 90 s.
    pub keepalives_max: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(10),
            proxy: Duration::from_secs(30),
            handshake: Duration::from_secs(30),
            authentication: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            idle: None,
            close: Duration::from_secs(5),
            keepalive: Some(Duration::from_secs(30)),
            keepalives_max: 3,
        }
    }
}

impl Timeouts {
    /// How long sent bytes may stay without acknowledgement before the system ends the
    /// connection: as long as SSH itself would wait.
    pub(crate) fn gone_after(&self) -> Duration {
        let keepalive = self.keepalive.unwrap_or(Duration::from_secs(30));
        keepalive.saturating_mul(self.keepalives_max.max(2))
    }
}
