//! Processor time of this process and of the server that it works with, while both run on.
//!
//! Where other work takes turns on the machine, this says more than the clock on the wall. What a
//! session of the server spent is lost here when it ends (`server_time.rs` keeps it), so no session
//! may end between two looks.

#![expect(clippy::disallowed_methods, reason = "measuring is reading the clock")]

use std::fmt;
use std::time::{Duration, Instant};

use ketch_conformance::openssh::OpenSshServer;
use ketch_conformance::process::Process;
use nix::sys::resource::{UsageWho, getrusage};

use crate::measure::seconds;
use crate::median::median;

/// When something began, and what had been spent until then.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    server: Duration,
    own: Duration,
    at: Instant,
}

/// What something took, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// On the clock on the wall.
    pub wall_s: f64,
    /// Processor time of this process, user and system.
    pub own_s: f64,
    /// That of the server's processes that live.
    pub server_s: f64,
}

impl Begun {
    /// It begins now.
    #[must_use]
    pub fn now(server: &OpenSshServer) -> Self {
        // Looking at all processes takes time, too: of this the least is counted.
        Self {
            server: of(server),
            own: own(),
            at: Instant::now(),
        }
    }

    /// It is over.
    #[must_use]
    pub fn took(&self, server: &OpenSshServer) -> Took {
        let wall = self.at.elapsed();
        let own = own().saturating_sub(self.own);
        Took {
            wall_s: wall.as_secs_f64(),
            own_s: own.as_secs_f64(),
            server_s: of(server).saturating_sub(self.server).as_secs_f64(),
        }
    }
}

impl Took {
    /// The median of each figure.
    #[must_use]
    pub fn median(all: &[Self]) -> Self {
        Self {
            wall_s: median(all.iter().map(|took| took.wall_s)),
            own_s: median(all.iter().map(|took| took.own_s)),
            server_s: median(all.iter().map(|took| took.server_s)),
        }
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wall_s,
            own_s,
            server_s,
        } = self;
        write!(
            f,
            "{wall_s:.3} s (processor {own_s:.3} s, server {server_s:.2} s)"
        )
    }
}

fn own() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}

fn of(server: &OpenSshServer) -> Duration {
    let server = server.process();
    let all = server.descendants().into_iter().chain([server]);
    let time = |process: Process| process.cpu_time().unwrap_or_default();
    all.map(time).sum()
}
