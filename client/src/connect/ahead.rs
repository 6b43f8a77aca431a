//! What is asked of SFTP before the connection is made: the first requests leave along with the
//! greeting of a channel that is opened early (`early`), and their answers come a round trip sooner.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use super::{Connect, ConnectError};
use crate::{requests::calls::Shared, sftp::Sftp};

/// Who asks first, on whichever channel it will be.
#[derive(Clone)]
pub(super) struct Ahead(Arc<Ask>);

type Ask = dyn Fn(&Arc<Shared>) + Send + Sync;

impl Ahead {
    /// Hands the first requests in, for the channel that `shared` leads to.
    pub(super) fn ask(&self, shared: &Arc<Shared>) {
        (self.0)(shared);
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").finish_non_exhaustive()
    }
}

type Answers<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What was asked last, and the handle that it was asked with.
type Asked<T> = Arc<Mutex<Option<(Sftp, Answers<T>)>>>;

fn lock<T>(asked: &Asked<T>) -> MutexGuard<'_, Option<(Sftp, Answers<T>)>> {
    // What is in it is whole at all times.
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connect {
    /// Connects, starts SFTP, and asks `first` as early as the server is known to bear it: with a host
    /// that [`host_memory`](Connect::host_memory) remembers, its requests leave along with the login,
    /// which spares a round trip. Nothing leaves before the host key was accepted.
    ///
    /// `first` may run a second time, should a connection that was made with what is remembered
    /// fail; what only asks is fit for it. It must not use [`Sftp::get`] and other transfers.
    ///
    /// ```no_run
    /// # use ketch_client::{Connect, identity::Identity};
    /// # async fn example(connect: Connect) -> Result<(), Box<dyn std::error::Error>> {
    /// let (sftp, attrs) = connect
    ///     .sftp_with(|sftp| async move { sftp.stat("/in/orders.csv").await })
    ///     .await?;
    /// println!("{:?} bytes", attrs?.size);
    /// # let _ = sftp;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`]: [`ConnectError::Sftp`] if the server has no SFTP for the user. What goes
    /// wrong with the requests is in what `first` gives.
    pub async fn sftp_with<A, F, T>(self, first: A) -> Result<(Sftp, T), ConnectError>
    where
        A: Fn(Sftp) -> F + Send + Sync + 'static,
        F: Future<Output = T> + Send + 'static,
        T: 'static,
    {
        let first = Arc::new(first);
        let asked: Asked<T> = Arc::default();
        let ahead = {
            let (first, asked) = (Arc::clone(&first), Arc::clone(&asked));
            Ahead(Arc::new(move |shared| {
                let sftp = Sftp::ahead(Arc::clone(shared));
                let mut answers: Answers<T> = Box::pin(first(sftp.clone()));
                // Its requests are queued now; whoever waits for the answers polls it again.
                let mut cx = Context::from_waker(Waker::noop());
                let early = answers.as_mut().poll(&mut cx);
                if early.is_pending() {
                    *lock(&asked) = Some((sftp, answers));
                }
            }))
        };
        let session = self.make(Some(ahead)).await?;
        let asked = lock(&asked).take();
        if let Some(early) = session.take_early() {
            if let Some((sftp, answers)) = asked.filter(|(sftp, _)| early.is_of(sftp)) {
                sftp.made_on(session);
                return Ok((sftp, answers.await));
            }
            session.keep_early(early);
        }
        let host = session.host().clone();
        let opened = session.sftp().await;
        let sftp = opened.map_err(|source| ConnectError::Sftp { host, source })?;
        let answers = first(sftp.clone()).await;
        Ok((sftp, answers))
    }
}
