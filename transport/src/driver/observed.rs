//! What others may read of a connection while its task runs: counters that it stores once a turn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::connection::Connection;
use crate::info::{ConnectionInfo, Traffic};

/// The last that the task told of its connection.
#[derive(Debug, Default)]
pub(super) struct Observed {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    packets_in: AtomicU64,
    packets_out: AtomicU64,
    rekeys: AtomicU64,
    /// All but the counters, as of the last exchange of keys.
    info: Mutex<ConnectionInfo>,
}

impl Observed {
    pub(super) fn of(connection: &Connection) -> Self {
        let observed = Self {
            info: Mutex::new(connection.info()),
            ..Self::default()
        };
        observed.store(connection.traffic());
        observed
    }

    /// Called by the task at the end of a turn.
    pub(super) fn update(&self, connection: &Connection) {
        let traffic = connection.traffic();
        if traffic.rekeys != self.rekeys.load(Ordering::Relaxed) {
            *self.info.lock().unwrap_or_else(PoisonError::into_inner) = connection.info();
        }
        self.store(traffic);
    }

    fn store(&self, traffic: Traffic) {
        // Nobody draws conclusions from one counter about another: no order is needed.
        self.bytes_in.store(traffic.bytes_in, Ordering::Relaxed);
        self.bytes_out.store(traffic.bytes_out, Ordering::Relaxed);
        self.packets_in.store(traffic.packets_in, Ordering::Relaxed);
        self.packets_out
            .store(traffic.packets_out, Ordering::Relaxed);
        self.rekeys.store(traffic.rekeys, Ordering::Relaxed);
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        let mut info = self
            .info
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        info.traffic = Traffic {
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            packets_in: self.packets_in.load(Ordering::Relaxed),
            packets_out: self.packets_out.load(Ordering::Relaxed),
            rekeys: self.rekeys.load(Ordering::Relaxed),
        };
        info
    }
}
