//! SFTP that is opened along with the login, before anybody asks for it.
//!
//! With a server that is known to bear it, the channel's open, the request for SFTP and its greeting
//! leave behind the signature, and a round trip after it everything is there. With OpenSSH's server
//! and ours, where the host is not known, all of that leaves together as soon as the user is in.
//! Both name the channel before the server has: a server that numbers its channels in another way
//! ends the connection, which is then made once more without (`known`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ketch_keys::PublicKey;
use ketch_transport::driver::{Application, CloseReason, EarlyChannel, Login, OpenError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::session::Session;
use crate::sftp::{EarlySftp, takes_early};

use super::ahead::Ahead;

/// How our own server introduces itself.
const OUR_SERVER: &str = "SSH-2.0-ketch";

/// What is opened early on a connection, and whether it was tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Early {
    wish: Wish,
    tried: Arc<AtomicBool>,
    /// What is asked first on it.
    ahead: Option<Ahead>,
}

#[derive(Clone, Debug, Default)]
enum Wish {
    /// Nothing.
    #[default]
    Never,
    /// SFTP, when the user is in.
    AfterLogin,
    /// SFTP, behind a login with the key of that fingerprint, if the server introduces itself so.
    BehindLogin { key: String, server: String },
}

impl Early {
    /// When the user is in.
    pub(super) fn after_login(ahead: Option<Ahead>) -> Self {
        Self {
            wish: Wish::AfterLogin,
            tried: Arc::default(),
            ahead,
        }
    }

    /// Behind a login with the key of that fingerprint, if the server introduces itself so.
    pub(super) fn behind_login(self, key: &str, server: &str) -> Self {
        Self {
            wish: Wish::BehindLogin {
                key: key.to_owned(),
                server: server.to_owned(),
            },
            ..self
        }
    }

    /// Whether anything is opened at all.
    pub(super) const fn is_wanted(&self) -> bool {
        !matches!(self.wish, Wish::Never)
    }

    /// Whether anything was sent early: clones share the answer.
    pub(super) fn was_tried(&self) -> bool {
        self.tried.load(Ordering::Relaxed)
    }

    /// To be asked when a login with `key` is out and nothing else.
    pub(super) fn behind<S>(
        &self,
        login: &mut Login<S>,
        key: &PublicKey,
        stall: Duration,
    ) -> Result<Option<Opening>, CloseReason>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let here = login.peer_identification().unwrap_or_default();
        match &self.wish {
            Wish::BehindLogin { key: known, server }
                if *known == key.fingerprint() && server == here && takes_early(here) => {}
            _ => return Ok(None),
        }
        self.tried.store(true, Ordering::Relaxed);
        let (sftp, application) = self.begin(stall, here);
        let channel = login.open_early("sftp", EarlySftp::WINDOW, application)?;
        Ok(channel.map(|channel| Opening {
            sftp,
            channel,
            is_certain: false,
        }))
    }

    fn begin(&self, stall: Duration, server: &str) -> (EarlySftp, Box<dyn Application>) {
        EarlySftp::new(stall, server, |shared| {
            if let Some(ahead) = &self.ahead {
                ahead.ask(shared);
            }
        })
    }

    /// To be asked when the user is in and nothing was opened.
    pub(super) fn after(&self, session: &Session) -> Option<Opening> {
        if !self.is_wanted() || !takes_early(session.peer_identification()) {
            return None;
        }
        let early = session.connection().early()?;
        self.tried.store(true, Ordering::Relaxed);
        let (sftp, application) =
            self.begin(session.timeouts().stall, session.peer_identification());
        let channel = early
            .open_session("sftp", EarlySftp::WINDOW, application)
            .ok()?;
        let is_certain = session.peer_identification().starts_with(OUR_SERVER);
        Some(Opening {
            sftp,
            channel,
            is_certain,
        })
    }
}

/// SFTP on a channel that the server has not confirmed.
#[derive(Debug)]
pub(super) struct Opening {
    sftp: EarlySftp,
    channel: EarlyChannel,
    /// The user is in, and the server's channels are numbered as ours are.
    is_certain: bool,
}

impl Opening {
    /// Waits until the server has confirmed it, and keeps it in the session for who asks first. Our
    /// own server is not waited for, as it bears this: the first request leaves at once.
    ///
    /// # Errors
    /// The connection did not bear it. A server that has no SFTP, or wants nothing opened, says so
    /// again to who asks.
    pub(super) async fn settle(self, session: &Session) -> Result<(), Arc<CloseReason>> {
        let Self {
            sftp,
            channel,
            is_certain,
        } = self;
        if is_certain {
            session.keep_early(sftp);
            return Ok(());
        }
        match timeout(session.timeouts().stall, channel.opened()).await {
            Ok(Ok(_)) => session.keep_early(sftp),
            Ok(Err(OpenError::Closed(why))) => return Err(why),
            Ok(Err(error)) => tracing::debug!(%error, "nothing was opened early"),
            Err(_) => tracing::debug!("the channel that was opened early was not confirmed"),
        }
        Ok(())
    }
}
