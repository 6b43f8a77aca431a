//! Processor time that an sshd spends on a connection.
//!
//! A process counts the children it has waited for, so the daemon's time holds that of every
//! session that ended in good order. One whose parent was faster to go is handed to the next
//! "subreaper" above it (prctl(2)): this process makes itself one, and counts it here.

use std::thread;
use std::time::Duration;

use ketch_conformance::openssh::OpenSshServer;
use ketch_conformance::process::Process;
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::BenchError;

/// How long sessions may take to end after their client has.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Counts the time of one server.
#[derive(Debug)]
pub struct ServerTime {
    orphans: Duration,
    /// Children that run for as long as this process does.
    beside: Vec<Process>,
}

impl ServerTime {
    /// Starts to count; before the server starts, so that no orphan is lost.
    ///
    /// # Errors
    /// [`BenchError::Io`] if the kernel does not hand over orphans.
    pub fn new() -> Result<Self, BenchError> {
        prctl::set_child_subreaper(true)
            .map_err(|error| BenchError::io("becoming a subreaper")(error.into()))?;
        Ok(Self {
            orphans: Duration::ZERO,
            beside: Vec::new(),
        })
    }

    /// A child that is none of the server's and goes on running.
    pub fn pass_over(&mut self, child: Process) {
        self.beside.push(child);
    }

    /// Waits until all sessions of `server` have ended and returns the time spent up to now, in
    /// seconds. No other child of this process may be running but those that are passed over.
    pub fn settled(&mut self, server: &OpenSshServer) -> f64 {
        let mut waited = Duration::ZERO;
        while !self.reap(server) && waited < SETTLE_LIMIT {
            thread::sleep(POLL_INTERVAL);
            waited += POLL_INTERVAL;
        }
        let daemon = server.process().cpu_time().unwrap_or_default();
        (daemon + self.orphans).as_secs_f64()
    }

    /// Whether nothing but the daemon is left.
    fn reap(&mut self, server: &OpenSshServer) -> bool {
        let mut nothing_left = server.process().children().is_empty();
        for orphan in Process::current().children() {
            if orphan == server.process() || self.beside.contains(&orphan) {
                continue;
            }
            if orphan.is_zombie() {
                self.orphans += orphan.cpu_time().unwrap_or_default();
                // It has ended: this does not wait.
                let _ = waitpid(Pid::from_raw(orphan.id()), None);
            } else {
                nothing_left = false;
            }
        }
        nothing_left
    }
}
