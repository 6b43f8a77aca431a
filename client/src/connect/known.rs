//! Connecting with what is known of the host, and once more without where that did not fit.
//!
//! There is never a third connection, and never a second one after the server has refused the user:
//! servers count attempts. What is known may make a connection fail that would have been made
//! plainly, so whatever it could explain leads to the plain one.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ketch_transport::driver::CloseReason;
use ketch_transport::error::{ConnectionError, PeerMisbehaved};
use tokio::task::spawn_blocking;

use super::early::Early;
use super::{ConnectError, LoggedIn, Plan, Stage, Tried};
use crate::destination::Host;
use crate::memory::{HostMemory, HostRecord};
use crate::route::Route;
use crate::session::Session;

/// Goes the way and logs in, at most twice.
pub(super) async fn connect(
    mut plan: Plan,
    route: &Route,
    memory: Option<Arc<dyn HostMemory>>,
) -> Result<Session, ConnectError> {
    let memory = memory.map(|memory| Known {
        memory,
        host: plan.host.clone(),
        port: plan.port,
    });
    let mut known = match &memory {
        Some(memory) => memory.ask(|m, host, port| m.recall(host, port)).await?,
        None => None,
    };
    plan.guess = known.as_ref().map(HostRecord::remembered);
    let user = plan.user.clone();
    if let Some(key) = known.as_ref().and_then(|known| known.key_of(&user)) {
        plan.credentials.first.get_or_insert_with(|| key.to_owned());
    }
    if let Some(known) = &known {
        plan.know_early(known);
    }
    let early = plan.early.clone();
    let mut bears_early = None;
    let done = match plan.clone().go(route).await {
        Ok(done) => done,
        Err(error) => {
            let Some(second) = plan.second(&error) else {
                return Err(error);
            };
            tracing::info!(host = %second.host, %error, "connecting once more, in another way");
            if let (Some(memory), Some(_)) = (&memory, known.take()) {
                memory.ask(|m, host, port| m.forget(host, port)).await?;
            }
            if early.was_tried() {
                bears_early = Some(false);
            }
            second.go(route).await?
        }
    };
    let (session, seen) = done;
    if let (Some(memory), Some(seen)) = (memory, seen) {
        let mut record = HostRecord::new(seen, known.as_ref());
        record.set_key(&user, session.logged_in_with().and_then(Tried::fingerprint));
        if bears_early.is_some() {
            record.bears_early = bears_early;
        } else if early.was_tried() {
            record.bears_early = Some(true);
        }
        if known.as_ref() != Some(&record) {
            memory
                .ask(move |m, host, port| m.remember(host, port, &record))
                .await?;
        }
    }
    Ok(session)
}

impl Plan {
    async fn go(self, route: &Route) -> Result<LoggedIn, ConnectError> {
        let target = self.endpoint();
        let stream = route
            .open(&target, &self.user, &self.dialling, &self.timeouts)
            .await?;
        self.log_in_by(stream).await
    }

    /// What is opened early, where that is wanted at all.
    fn know_early(&mut self, known: &HostRecord) {
        if !self.early.is_wanted() {
            return;
        }
        match (known.bears_early, known.key_of(&self.user)) {
            (Some(false), _) => self.early = Early::default(),
            (_, Some(key)) => {
                let early = std::mem::take(&mut self.early);
                self.early = early.behind_login(key, &known.identification);
            }
            (_, None) => {}
        }
    }

    /// How to go on after such a failure; `None` if it would be no different.
    fn second(mut self, error: &ConnectError) -> Option<Self> {
        let (stage, why) = match error {
            ConnectError::Ended { stage, source, .. } => (*stage, &**source),
            // The program on the way ended because the server hung up.
            ConnectError::Command { .. } => (Stage::Handshake, &CloseReason::Eof),
            _ => return None,
        };
        // Keys are in use: the guess was right, and only what was opened early may be wrong.
        if std::mem::take(&mut self.early).was_tried() {
            self.guess = None;
            return a_guess_explains(why).then_some(self);
        }
        if stage != Stage::Handshake {
            return None;
        }
        if is_not_strict(why) && !self.config().common.preferences.require_strict {
            self.guess = None;
            self.only_safe = true;
            let is_left = !self.config().common.preferences.cipher.is_empty();
            return is_left.then_some(self);
        }
        self.guess.take().filter(|_| a_guess_explains(why))?;
        Some(self)
    }
}

/// Whether the server chose what is not safe with it.
const fn is_not_strict(why: &CloseReason) -> bool {
    matches!(
        why,
        CloseReason::Connection(ConnectionError::Misbehaved(PeerMisbehaved::NotStrict))
    )
}

/// Whether a server that stumbles over a guessed packet may end a connection so.
///
/// It may do anything: send nonsense, say that we did, hang up, or wait for a packet that it takes
/// for missing. It does not agree on nothing, and what is wrong on this side it has no part in.
const fn a_guess_explains(why: &CloseReason) -> bool {
    !matches!(
        why,
        CloseReason::Requested
            | CloseReason::Connection(
                ConnectionError::NoCommonAlgorithm(_)
                    | ConnectionError::HostKeyRefused
                    | ConnectionError::RandomFailed(_)
            )
    )
}

/// A memory, and whom to ask it about.
struct Known {
    memory: Arc<dyn HostMemory>,
    host: Host,
    port: u16,
}

impl Known {
    /// Files are read and written: not on a thread that others wait for.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn HostMemory, &Host, u16) -> T + Send + 'static,
    ) -> Result<T, ConnectError> {
        let (memory, host, port) = (Arc::clone(&self.memory), self.host.clone(), self.port);
        let host_again = host.clone();
        spawn_blocking(move || ask(&*memory, &host, port))
            .await
            .map_err(|_| ConnectError::Runtime { host: host_again })
    }
}
