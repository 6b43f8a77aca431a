//! A connection on which the user is logged in: where channels are opened.
//!
//! [`Session`] is a handle on the task that runs the connection (`ketch_transport::driver`); it
//! can be cloned and used from many tasks at once. SFTP and byte streams of other subsystems are
//! applications beside each other on one connection.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ketch_transport::driver::{
    ChannelStream, CloseReason, ConnectionHandle, Login, OpenError, PingError, RefuseAll, stream,
};
use ketch_transport::info::{Algorithms, ConnectionInfo};
use ketch_transport::profile::Profile;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::Timeouts;
use crate::connect::{Origin, Tried};
use crate::destination::Host;
use crate::hostkey::KeepUp;
use crate::sftp::EarlySftp;

/// Window of a byte stream, in bytes; the transport lets it grow while it is kept full.
pub(crate) const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// A connection on which the user is logged in.
///
/// Clones are handles on the same connection. It ends when [`Session::disconnect`] is called, when
/// the server ends it, or when it fails; what is open on it then ends with it.
#[derive(Clone, Debug)]
pub struct Session {
    connection: ConnectionHandle,
    host: Host,
    logged_in_with: Option<Tried>,
    /// At the login; an exchange later on agrees on the same.
    agreed: Option<Algorithms>,
    timeouts: Arc<Timeouts>,
    ended: Arc<OnceLock<Instant>>,
    /// SFTP that was opened along with the login and that nobody has asked for yet.
    early: Arc<Mutex<Option<EarlySftp>>>,
    /// How it was made.
    origin: Option<Arc<Origin>>,
}

impl Session {
    /// Runs the connection on a task of its own.
    pub(crate) fn start<S>(
        login: Login<S>,
        host: Host,
        logged_in_with: Option<Tried>,
        timeouts: Timeouts,
        keep_up: Option<KeepUp>,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let agreed = login.info().algorithms;
        let weak = beyond(agreed.as_ref(), Profile::Compat);
        if weak.is_empty() {
            let old = beyond(agreed.as_ref(), Profile::Modern);
            if !old.is_empty() {
                tracing::info!(%host, algorithms = %old.join(", "), "algorithms beyond `modern` are in use");
            }
        } else {
            tracing::warn!(%host, algorithms = %weak.join(", "), "weak algorithms are in use");
        }
        let (connection, run) = match keep_up {
            Some(keep_up) => login.run(Box::new(keep_up)),
            None => login.run(Box::new(RefuseAll)),
        };
        let ended = Arc::new(OnceLock::new());
        let at = Arc::clone(&ended);
        spawn(async move {
            run.await;
            let _ = at.set(Instant::now());
        });
        Self {
            connection,
            host,
            logged_in_with,
            agreed,
            timeouts: Arc::new(timeouts),
            ended,
            early: Arc::default(),
            origin: None,
        }
    }

    /// Says how it was made, so that more like it can be.
    pub(crate) fn with_origin(mut self, origin: Arc<Origin>) -> Self {
        self.origin = Some(origin);
        self
    }

    /// How it was made, if more like it can be.
    pub(crate) const fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref()
    }

    /// What the server accepted: the last of it, if it wanted several.
    #[must_use]
    pub const fn logged_in_with(&self) -> Option<&Tried> {
        self.logged_in_with.as_ref()
    }

    /// Opens a channel, starts the subsystem `name` on it, and gives it as a stream of bytes.
    ///
    /// # Errors
    /// [`OpenError`]: the server refused, gave no answer within [`Timeouts::stall`], or the
    /// connection is gone.
    pub async fn open_subsystem(&self, name: &str) -> Result<ChannelStream, OpenError> {
        let (stream, application) = stream();
        let opening = self
            .connection
            .open_session(name, STREAM_WINDOW, application);
        match tokio::time::timeout(self.timeouts.stall, opening).await {
            Ok(opened) => opened.map(|_| stream),
            Err(_) => Err(OpenError::TimedOut),
        }
    }

    /// Asks the server for a sign of life, and waits for it: what it takes is the time to the server
    /// and back. OpenSSH's server answers from 9.5 on, and ours does.
    ///
    /// # Errors
    /// [`PingError`]: the server did not say that it answers pings, or the connection is gone.
    pub async fn ping(&self) -> Result<(), PingError> {
        self.connection.ping().await
    }

    /// Tells the server that this connection opens no more sessions: no SFTP, no programs. What is
    /// open goes on, and connections can still be carried. So nobody who takes this side over can
    /// run anything.
    pub fn no_more_sessions(&self) {
        self.connection.no_more_sessions();
    }

    /// Ends the connection and waits until it has ended: what was handed over leaves first, if it
    /// can within [`Timeouts::close`].
    pub async fn disconnect(&self) {
        self.connection.disconnect();
        self.connection.closed().await;
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> Arc<CloseReason> {
        self.connection.closed().await
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// The server that was connected to, as it was named.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// How the server introduced itself (RFC 4253 §4.2), such as `SSH-2.0-OpenSSH_9.2`.
    #[must_use]
    pub fn peer_identification(&self) -> &str {
        self.connection.peer_identification()
    }

    /// How the connection is protected, and what has gone over it.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        self.connection.info()
    }

    /// The names of the algorithms in use that `profile` does not offer: weaker or less liked ones.
    #[must_use]
    pub fn algorithms_beyond(&self, profile: Profile) -> Vec<&'static str> {
        beyond(self.agreed.as_ref(), profile)
    }

    /// The deadlines that the connection was made with.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// When the connection ended, if it has.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// Keeps what was opened before anybody asked for it.
    pub(crate) fn keep_early(&self, sftp: EarlySftp) {
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(sftp);
    }

    /// Gives what was opened before, once, if it lives.
    pub(crate) fn take_early(&self) -> Option<EarlySftp> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        early.take().filter(EarlySftp::is_alive)
    }

    /// The handle on which applications are put.
    pub(crate) const fn connection(&self) -> &ConnectionHandle {
        &self.connection
    }
}

fn beyond(used: Option<&Algorithms>, profile: Profile) -> Vec<&'static str> {
    let Some(used) = used else {
        return Vec::new();
    };
    let offered = profile.for_client();
    let mut names = Vec::new();
    let mut note = |is_offered: bool, name: &'static str| {
        if !is_offered && !names.contains(&name) {
            names.push(name);
        }
    };
    note(offered.kex.contains(&used.kex), used.kex.name());
    note(
        offered.host_key.contains(&used.host_key),
        used.host_key.name(),
    );
    for suite in [used.client_to_server, used.server_to_client] {
        note(offered.cipher.contains(&suite.cipher), suite.cipher.name());
        if let Some(mac) = suite.mac {
            note(offered.mac.contains(&mac), mac.name());
        }
    }
    names
}

#[expect(clippy::disallowed_methods, reason = "drivers own time and tasks")]
fn spawn(run: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(run);
}
