//! One connection, as admission and observers see it: that it came, who logged in or did not, what it
//! did that counts against its source, and how it ended.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ketch_transport::driver::CloseReason;
use ketch_transport::error::ConnectionError;
use tracing::error;

use super::{Server, now};
use crate::channel::Account;
use crate::login::penalties::Offence;
use crate::observer::{Event, NotAdmitted, Watch};

/// Work for a client panicked: what made us do that can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Alarm {
    server: Server,
    pub(super) address: Option<IpAddr>,
    pub(super) watch: Option<Arc<Watch>>,
}

impl Alarm {
    pub(crate) fn raise(&self) {
        error!("work for a client panicked");
        if let Some(watch) = &self.watch {
            watch.tell(&Event::Panicked { who: &watch.who });
        }
        self.note(Offence::Crash);
    }

    pub(super) fn note(&self, offence: Offence) {
        let admission = &self.server.inner.admission;
        let is_kept_out = admission.note(self.address, offence, now());
        if let (true, Some(watch)) = (is_kept_out, &self.watch) {
            let (who, offence) = (&watch.who, offence.name());
            watch.tell(&Event::Penalised { who, offence });
        }
    }
}

/// One connection, as admission and observers see it: they learn of its end whatever that is.
pub(super) struct Visit {
    pub(super) alarm: Alarm,
    came: Instant,
    why: Option<String>,
}

impl Visit {
    pub(super) fn begin(
        server: &Server,
        address: Option<IpAddr>,
        watch: Option<Arc<Watch>>,
    ) -> Self {
        if let Some(watch) = &watch {
            watch.tell(&Event::Connected { who: &watch.who });
        }
        Self {
            alarm: Alarm {
                server: server.clone(),
                address,
                watch,
            },
            came: now(),
            why: None,
        }
    }

    pub(super) fn login_refused(&self, user: &str, method: &str) {
        if let Some(watch) = &self.alarm.watch {
            let who = &watch.who;
            watch.tell(&Event::LoginRefused { who, user, method });
        }
    }

    pub(super) fn logged_in(&mut self, account: &Account, method: &str) {
        tracing::Span::current().record("user", account.policy.user.as_str());
        if let Some(watch) = &mut self.alarm.watch {
            *watch = watch.logged_in(&account.policy.user, account.belonging.as_deref());
            let who = &watch.who;
            watch.tell(&Event::LoggedIn { who, method });
        }
    }

    pub(super) fn over(&mut self, why: &CloseReason) {
        if self.alarm.watch.is_some() {
            self.why = Some(why.to_string());
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let has_panicked = std::thread::panicking();
        if has_panicked {
            self.alarm.raise();
        }
        if let Some(watch) = &self.alarm.watch {
            let why = self.why.as_deref();
            watch.tell(&Event::Disconnected {
                who: &watch.who,
                why: why.unwrap_or(if has_panicked { "panic" } else { "given up" }),
                duration: now().saturating_duration_since(self.came),
            });
        }
    }
}

/// Somebody was not let in.
pub(super) fn refused(watch: Option<&Watch>, why: NotAdmitted) {
    if let Some(watch) = watch {
        let who = &watch.who;
        watch.tell(&Event::Refused { who, why });
    }
}

/// What a connection did on which nobody was let in.
pub(super) const fn offence(why: &CloseReason, failures: u32) -> Offence {
    match why {
        CloseReason::Connection(ConnectionError::TimedOut(_)) => Offence::GraceExceeded,
        _ if failures > 0 => Offence::AuthFail,
        _ => Offence::NoAuth,
    }
}
