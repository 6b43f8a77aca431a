//! SFTP on a session: the channel is opened, the subsystem started, the greeting sent.

use std::sync::Arc;
use std::time::Duration;

use ketch_protocol::RemotePath;
use ketch_transport::driver::Application;

use super::{Operation, Sftp, SftpError};
use crate::{
    quirks::Quirks,
    requests::{
        Settings,
        calls::{Ended, Shared},
        channel::SftpChannel,
    },
    session::Session,
};

/// Bytes that the server may send ahead: all that is ever asked for at a time (64 MiB for
/// downloads, 16 MiB for calls), and what is around it. So the window is never the limit.
const WINDOW: u32 = 96 * 1024 * 1024;

/// Servers that take requests behind `INIT`, before they have answered it: seen with OpenSSH 9.2,
/// and ours.
const EARLY_SERVERS: [&str; 2] = ["SSH-2.0-OpenSSH_", "SSH-2.0-ketch"];

/// Whether a server that introduces itself so takes what comes before it has answered.
pub(crate) fn takes_early(identification: &str) -> bool {
    EARLY_SERVERS
        .iter()
        .any(|known| identification.starts_with(known))
}

/// SFTP on a channel that is opened before anybody asks for it.
#[derive(Debug)]
pub(crate) struct EarlySftp {
    shared: Arc<Shared>,
}

impl EarlySftp {
    /// The window of its channel.
    pub(crate) const WINDOW: u32 = WINDOW;

    /// What is kept, and what runs on the channel, for servers that [take it](takes_early).
    ///
    /// `first` hands in the first requests: they leave along with its greeting.
    pub(crate) fn new(
        stall: Duration,
        identification: &str,
        first: impl FnOnce(&Arc<Shared>),
    ) -> (Self, Box<dyn Application>) {
        let settings = Settings {
            stall,
            early: true,
            quirks: Quirks::of(identification),
        };
        let shared = Shared::new();
        first(&shared);
        let runtime = tokio::runtime::Handle::current();
        let channel = SftpChannel::new(Arc::clone(&shared), settings, runtime);
        (Self { shared }, Box::new(channel))
    }

    /// Whether it is the one that `sftp` is a handle of.
    pub(crate) fn is_of(&self, sftp: &Sftp) -> bool {
        Arc::ptr_eq(&self.shared, sftp.shared())
    }

    /// Whether its channel has not ended meanwhile.
    pub(crate) fn is_alive(&self) -> bool {
        !self.shared.has_ended()
    }
}

impl Session {
    /// Starts SFTP on a channel of its own, or gives the one that was opened along with the login
    /// ([`Connect::for_sftp`](crate::Connect::for_sftp)) to who asks first.
    ///
    /// Sessions on one connection take turns; one is enough for any number of callers. With a
    /// server that is known to take requests early, OpenSSH's and ours, this does not wait for its
    /// greeting, nor, where it is the first channel of the connection, for the channel: what is wrong
    /// comes with the first request, whose answer is then the first thing that is waited for.
    ///
    /// # Errors
    /// [`SftpError::NotOpened`] if the server refused the channel or has no SFTP; others if the
    /// greeting went wrong.
    pub async fn sftp(&self) -> Result<Sftp, SftpError> {
        if let Some(early) = self.take_early() {
            return Ok(Sftp::new(early.shared, self.clone()));
        }
        self.open_sftp(Shared::new()).await
    }

    /// As [`Session::sftp`], beside `other` on the same connection: a server that has a process for
    /// each channel, as OpenSSH's has, works on both at the same time. What is known of the path is
    /// not learnt anew.
    ///
    /// # Errors
    /// As [`Session::sftp`]; a server may allow one channel only, or some.
    pub async fn sftp_beside(&self, other: &Sftp) -> Result<Sftp, SftpError> {
        let shared = Shared::new();
        if let Some(took) = other.shared().round_trip() {
            shared.on_round_trip(took);
        }
        self.open_sftp(shared).await
    }

    async fn open_sftp(&self, shared: Arc<Shared>) -> Result<Sftp, SftpError> {
        let early = takes_early(self.peer_identification());
        let settings = Settings {
            stall: self.timeouts().stall,
            early,
            quirks: Quirks::of(self.peer_identification()),
        };
        let runtime = tokio::runtime::Handle::current();
        let channel = SftpChannel::new(Arc::clone(&shared), settings, runtime);
        let application = Box::new(channel);
        let first = if early {
            self.connection().early()
        } else {
            None
        };
        if let Some(first) = first {
            // All of it leaves at once, the first requests too, and nothing is waited for.
            let opened = first.open_session("sftp", WINDOW, application);
            opened.map_err(SftpError::NotOpened)?;
            return Ok(Sftp::new(shared, self.clone()));
        }
        let opening = self.connection().open_session("sftp", WINDOW, application);
        // A server may answer keepalives and open nothing.
        let Ok(opened) = tokio::time::timeout(settings.stall, opening).await else {
            let (operation, path) = (Operation::Begin, RemotePath::from(""));
            return Err(SftpError::ended(operation, &path, &Ended::Stalled));
        };
        opened.map_err(SftpError::NotOpened)?;
        let sftp = Sftp::new(Arc::clone(&shared), self.clone());
        if !early {
            shared.server().await.map_err(|ended| {
                SftpError::ended(Operation::Begin, &RemotePath::from(""), &ended)
            })?;
        }
        Ok(sftp)
    }
}
