//! The clockwork of a connection: deadlines, keepalives, and when keys are due to be exchanged.
//!
//! Time is passed in; nothing here waits.

use std::time::{Duration, Instant};

use crate::config::{RekeyPolicy, Timers};
use crate::error::{ConnectionError, Deadline, PeerMisbehaved};

/// Key exchanges that a peer may start in a row without a mebibyte of anything else in between.
const PEER_REKEYS_MAX: u32 = 200;
/// What counts as something in between, in bytes.
const PEER_REKEYS_BYTES: u64 = 1 << 20;
/// Key exchanges that a peer may start without waiting, once it was quiet for long.
const PEER_REKEYS_BURST: u32 = 20;
/// How often it may start one after that, each answered that much later.
const PEER_REKEY_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes since the last exchange that pay for the next, so that it is not put off.
const PEER_REKEY_BYTES: u32 = 64 * 1024;

/// Deadlines and counters of one connection.
#[derive(Debug)]
pub(crate) struct Keeper {
    timers: Timers,
    rekey: RekeyPolicy,
    /// When the exchange going on has to be done.
    kex_deadline: Option<Instant>,
    kex_is_first: bool,
    auth_deadline: Option<Instant>,
    keys_since: Instant,
    last_packet: Instant,
    /// When the peer was asked last whether it is there, and how often since it was heard of.
    asked_at: Instant,
    keepalives: u32,
    /// Since when output waits of which the stream takes nothing.
    output_since: Option<Instant>,
    peer_rekeys: u32,
    bytes_since_rekeys: u64,
    bytes_since_rekey: u32,
    /// Up to when the peer has used up its exchanges: each adds an interval to it.
    rekeys_paid_until: Instant,
}

impl Keeper {
    pub(crate) fn new(timers: Timers, rekey: RekeyPolicy, now: Instant) -> Self {
        Self {
            kex_deadline: Some(now + timers.handshake),
            kex_is_first: true,
            auth_deadline: None,
            keys_since: now,
            last_packet: now,
            asked_at: now,
            keepalives: 0,
            output_since: None,
            peer_rekeys: 0,
            bytes_since_rekeys: 0,
            bytes_since_rekey: 0,
            rekeys_paid_until: now,
            timers,
            rekey,
        }
    }

    pub(crate) fn on_packet(&mut self, now: Instant, len: usize) {
        self.last_packet = now;
        self.keepalives = 0;
        self.carry(len);
    }

    fn carry(&mut self, len: usize) {
        self.bytes_since_rekeys = self
            .bytes_since_rekeys
            .saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        self.bytes_since_rekey = self
            .bytes_since_rekey
            .saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// The stream took bytes of ours: an upload is work between exchanges as much as a download.
    pub(crate) fn on_output(&mut self, len: usize) {
        self.output_since = None;
        self.carry(len);
    }

    /// The peer starts an exchange. Returns when it is answered: later than now if it starts more of
    /// them than anybody needs, because each costs us more than it costs the peer.
    pub(crate) fn on_peer_rekey(&mut self, now: Instant) -> Result<Instant, PeerMisbehaved> {
        if self.bytes_since_rekeys > PEER_REKEYS_BYTES {
            self.bytes_since_rekeys = 0;
            self.peer_rekeys = 0;
        }
        self.peer_rekeys += 1;
        if self.peer_rekeys > PEER_REKEYS_MAX {
            return Err(PeerMisbehaved::RekeyStorm);
        }
        // New keys after some data are what they are for, however fast the link is.
        let carried = std::mem::take(&mut self.bytes_since_rekey).min(PEER_REKEY_BYTES);
        let unpaid = PEER_REKEY_INTERVAL
            - PEER_REKEY_INTERVAL.mul_f64(f64::from(carried) / f64::from(PEER_REKEY_BYTES));
        self.rekeys_paid_until = self.rekeys_paid_until.max(now) + unpaid;
        let credit = PEER_REKEY_INTERVAL * PEER_REKEYS_BURST;
        Ok(self
            .rekeys_paid_until
            .checked_sub(credit)
            .map_or(now, |at| at.max(now)))
    }

    /// Output waits for the stream, or none does.
    pub(crate) fn on_flush(&mut self, now: Instant, output_waits: bool) {
        if output_waits {
            self.output_since.get_or_insert(now);
        } else {
            self.output_since = None;
        }
    }

    /// When a peer that takes no output is given up.
    fn output_deadline(&self) -> Option<Instant> {
        Some(self.output_since? + self.timers.output)
    }

    /// An exchange is going on.
    pub(crate) fn on_kex_active(&mut self, now: Instant) {
        self.kex_deadline.get_or_insert(now + self.timers.handshake);
    }

    /// Keys of both directions are new.
    pub(crate) fn on_kex_done(&mut self, now: Instant, first: bool) {
        self.kex_deadline = None;
        self.kex_is_first = false;
        self.keys_since = now;
        if first {
            self.auth_deadline = Some(now + self.timers.authentication);
        }
    }

    /// An answer from outside came: authentication gets its whole time again.
    pub(crate) fn on_answer(&mut self, now: Instant) {
        if self.auth_deadline.is_some() {
            self.auth_deadline = Some(now + self.timers.authentication);
        }
        if self.kex_is_first {
            self.kex_deadline = Some(now + self.timers.handshake);
        }
    }

    pub(crate) fn on_authenticated(&mut self, now: Instant) {
        self.auth_deadline = None;
        self.last_packet = now;
    }

    /// Whether keys should be exchanged, given what each direction used and what its cipher bears.
    pub(crate) fn rekey_is_due(&self, used: [((u64, u64), u64); 2], now: Instant) -> bool {
        self.kex_deadline.is_none()
            && (now.saturating_duration_since(self.keys_since) >= self.rekey.interval
                || used.iter().any(|&((packets, bytes), cipher_bytes)| {
                    packets >= self.rekey.packets
                        || bytes
                            >= self
                                .rekey
                                .bytes
                                .map_or(cipher_bytes, |max| max.min(cipher_bytes))
                }))
    }

    /// When the next deadline is. While an answer from outside is awaited the clock of the login
    /// stands still.
    pub(crate) fn deadline(&self, authenticated: bool, waiting: bool) -> Option<Instant> {
        let login = if waiting {
            None
        } else {
            self.kex_deadline.or(self.auth_deadline)
        };
        let keepalive = self.keepalive_at().filter(|_| authenticated);
        let rekey = authenticated.then(|| self.keys_since + self.rekey.interval);
        let rekey = rekey.filter(|_| self.kex_deadline.is_none());
        let output = self.output_deadline().filter(|_| authenticated);
        [login, keepalive, rekey, output]
            .into_iter()
            .flatten()
            .min()
    }

    fn keepalive_at(&self) -> Option<Instant> {
        let interval = self.timers.keepalive?;
        // Each question has its time for an answer, also where this process stood still meanwhile.
        Some(self.last_packet.max(self.asked_at) + interval)
    }

    /// Says whether a keepalive is due.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        authenticated: bool,
        waiting: bool,
    ) -> Result<bool, ConnectionError> {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if !waiting && passed(self.kex_deadline) {
            let first = self.kex_is_first;
            let which = if first {
                Deadline::Handshake
            } else {
                Deadline::Rekey
            };
            return Err(ConnectionError::TimedOut(which));
        }
        if !waiting && passed(self.auth_deadline) {
            return Err(ConnectionError::TimedOut(Deadline::Authentication));
        }
        if authenticated && passed(self.output_deadline()) {
            return Err(ConnectionError::TimedOut(Deadline::Output));
        }
        if !authenticated || !passed(self.keepalive_at()) {
            return Ok(false);
        }
        let intervals = self.keepalives + 1;
        if intervals >= self.timers.keepalives_max.max(2) {
            return Err(ConnectionError::TimedOut(Deadline::Keepalive));
        }
        self.keepalives = intervals;
        self.asked_at = now;
        Ok(true)
    }
}
