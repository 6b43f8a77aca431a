//! A server as a description: it is connected to when something is asked of it, and the connection
//! ends when that is done.
//!
//! [`OnDemand`] suits what runs now and then, where a [`Session`] would be held for nothing. Those
//! who are at work at the same time share one connection. With [`OnDemand::keep_for`] it outlives
//! them a while, which spares the next one the way.

use std::{
    fmt,
    future::Future,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;

use crate::{
    connect::{Connect, ConnectError},
    error::{Failure, Kind, Outcome},
    session::Session,
    sftp::{Sftp, SftpError},
};

/// A server that is connected to on demand.
///
/// Clones share the connection that there is.
///
/// ```no_run
/// use ketch_client::{Connect, GetOptions, OnDemand};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let server = OnDemand::new(Connect::to("sftp.example.com").user("ann"));
/// // Connects, downloads, and ends the connection.
/// let sftp = server.open().await?;
/// sftp.get("in/a.csv", "a.csv", GetOptions::new()).await?;
/// sftp.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OnDemand {
    shared: Arc<Shared>,
}

struct Shared {
    connect: Connect,
    keep_for: Option<Duration>,
    /// One connects at a time, and the others use what comes of it.
    connecting: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// Connections made so far.
    made: u64,
    /// Counts who came and went: a timer sees by it whether anybody has been there since.
    visits: u64,
}

struct Live {
    session: Session,
    sftp: Sftp,
    number: u64,
    users: usize,
}

/// Why there is no SFTP to be had from a description.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnDemandError {
    /// There is no connection.
    #[error(transparent)]
    Connect(ConnectError),
    /// There is one, and no SFTP on it.
    #[error(transparent)]
    Sftp(SftpError),
}

impl Failure for OnDemandError {
    fn kind(&self) -> Kind {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Sftp(error) => error.kind(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_transient(),
            Self::Sftp(error) => error.is_transient(),
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::NotDone
    }
}

impl OnDemand {
    /// Connects as `connect` says, whenever it has to. Nothing happens before the first
    /// [`OnDemand::open`].
    #[must_use]
    pub fn new(connect: Connect) -> Self {
        Self::with(connect, None)
    }

    /// As [`OnDemand::new`], and the connection is kept for `time` after the last who used it is
    /// done.
    #[must_use]
    pub fn keep_for(connect: Connect, time: Duration) -> Self {
        Self::with(connect, Some(time))
    }

    fn with(connect: Connect, keep_for: Option<Duration>) -> Self {
        Self {
            shared: Arc::new(Shared {
                connect: connect.for_sftp(),
                keep_for,
                connecting: tokio::sync::Mutex::default(),
                state: Mutex::default(),
            }),
        }
    }

    /// SFTP on the connection that lives, or on a new one. When all that was opened is closed or
    /// dropped, the connection ends.
    ///
    /// # Errors
    /// [`OnDemandError`].
    pub async fn open(&self) -> Result<Opened, OnDemandError> {
        if let Some(opened) = self.living() {
            return Ok(opened);
        }
        let _turn = self.shared.connecting.lock().await;
        if let Some(opened) = self.living() {
            return Ok(opened);
        }
        let connecting = self.shared.connect.clone().connect();
        let session = connecting.await.map_err(OnDemandError::Connect)?;
        let sftp = session.sftp().await.map_err(OnDemandError::Sftp)?;
        let mut state = self.shared.state();
        state.made += 1;
        state.visits += 1;
        let number = state.made;
        state.live = Some(Live {
            session: session.clone(),
            sftp: sftp.clone(),
            number,
            users: 1,
        });
        drop(state);
        Ok(self.opened(session, sftp, number))
    }

    /// Connects, gives SFTP to `work`, and ends the connection, unless it is kept or others use it.
    ///
    /// # Errors
    /// What `work` says, in whose type [`OnDemandError`] has to fit.
    pub async fn run<T, E, F>(&self, work: impl FnOnce(Sftp) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<OnDemandError>,
    {
        let opened = self.open().await?;
        let done = work(opened.sftp.clone()).await;
        opened.close().await;
        done
    }

    /// Sees whether the server can be reached and logged in to, and has SFTP.
    ///
    /// # Errors
    /// [`OnDemandError`].
    pub async fn check(&self) -> Result<(), OnDemandError> {
        let opened = self.open().await?;
        let answer = opened.canonicalize(".").await;
        opened.close().await;
        match answer {
            // That it refuses this is an answer, too.
            Ok(_) | Err(SftpError::Refused { .. }) => Ok(()),
            Err(error) => Err(OnDemandError::Sftp(error)),
        }
    }

    fn living(&self) -> Option<Opened> {
        let mut state = self.shared.state();
        let live = state
            .live
            .as_mut()
            .filter(|live| !live.session.is_closed())?;
        live.users += 1;
        let (session, sftp, number) = (live.session.clone(), live.sftp.clone(), live.number);
        state.visits += 1;
        drop(state);
        Some(self.opened(session, sftp, number))
    }

    fn opened(&self, session: Session, sftp: Sftp, number: u64) -> Opened {
        Opened {
            sftp,
            session,
            visit: Visit {
                shared: Arc::clone(&self.shared),
                number,
            },
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is done under the lock that could leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection `number` if nobody has used it since `visits`.
    fn end(&self, number: u64, visits: u64) -> bool {
        let mut state = self.state();
        let is_unused = |live: &mut Live| live.number == number && live.users == 0;
        if state.visits == visits
            && let Some(live) = state.live.take_if(is_unused)
        {
            drop(state);
            live.session.connection().disconnect();
            return true;
        }
        false
    }
}

/// SFTP on a connection that was made on demand; it is used as an [`Sftp`].
///
/// The connection ends when the last of these is dropped. Clones of the [`Sftp`] in it are of no use
/// afterwards.
pub struct Opened {
    sftp: Sftp,
    session: Session,
    visit: Visit,
}

impl Opened {
    /// The connection.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Gives it back, and waits until the connection has ended, if that is what follows.
    pub async fn close(self) {
        let Self {
            session,
            sftp,
            mut visit,
        } = self;
        drop(sftp);
        if visit.leave() {
            session.closed().await;
        }
    }
}

impl Deref for Opened {
    type Target = Sftp;

    fn deref(&self) -> &Sftp {
        &self.sftp
    }
}

/// Somebody uses a connection.
struct Visit {
    shared: Arc<Shared>,
    number: u64,
}

impl Visit {
    /// Says whether the connection ends now.
    fn leave(&mut self) -> bool {
        // Connections are counted from one.
        let number = std::mem::take(&mut self.number);
        let mut state = self.shared.state();
        let Some(live) = state.live.as_mut().filter(|live| live.number == number) else {
            return false; // it was lost and another was made, or this one has left
        };
        live.users -= 1;
        if live.users > 0 {
            return false;
        }
        state.visits += 1;
        let visits = state.visits;
        drop(state);
        let (Some(time), Ok(runtime)) = (self.shared.keep_for, Handle::try_current()) else {
            return self.shared.end(number, visits);
        };
        let shared = Arc::downgrade(&self.shared);
        runtime.spawn(async move {
            tokio::time::sleep(time).await;
            // With the last description the connection goes by itself.
            if let Some(shared) = shared.upgrade() {
                shared.end(number, visits);
            }
        });
        false
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemand")
            .field("connect", &self.shared.connect)
            .field("keep_for", &self.shared.keep_for)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
