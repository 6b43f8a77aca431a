//! Where every outgoing message passes: the gate of the key exchange, then the [`Sender`].
//!
//! From our `KEXINIT` to our `NEWKEYS` only messages of the key exchange may leave (RFC 4253 §7.1);
//! peers have begun to enforce it. Control messages that arise in between wait here, channel data
//! waits in its channel.

use std::collections::VecDeque;

use ketch_wire::Writer;
use zeroize::Zeroizing;

use crate::packet::{OutputFull, SendError, Sender};

/// Most control messages that wait for a key exchange to end.
const DEFERRED_MAX: usize = 1024;
/// Room for the longest message that holds secrets, so that it is not copied while it grows.
const SECRET_LEN_MAX: usize = 16 * 1024;

/// The sender, and what waits before it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) sender: Sender,
    gate: Gate,
    deferred: VecDeque<Deferred>,
    scratch: Vec<u8>,
}

/// A message that waits for a key exchange to end.
#[derive(Debug)]
enum Deferred {
    Plain(Vec<u8>),
    Secret(Zeroizing<Vec<u8>>),
}

/// Whether anything but the key exchange may leave.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Gate {
    #[default]
    Open,
    KexOnly,
}

impl Outbox {
    /// Whether anything but the key exchange may leave.
    pub(crate) fn is_open(&self) -> bool {
        self.gate == Gate::Open
    }

    /// Our `KEXINIT` leaves next.
    pub(crate) const fn shut(&mut self) {
        self.gate = Gate::KexOnly;
    }

    /// Our `NEWKEYS` has left: what waited follows.
    pub(crate) fn open(&mut self) -> Result<(), SendError> {
        self.gate = Gate::Open;
        while let Some(deferred) = self.deferred.pop_front() {
            match deferred {
                Deferred::Plain(payload) => self.sender.send(&payload)?,
                Deferred::Secret(payload) => self.sender.send_padded(&payload)?,
            }
        }
        Ok(())
    }

    /// Sends a message, or keeps it until the key exchange is done.
    pub(crate) fn message(
        &mut self,
        encode: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), SendError> {
        if self.is_open() {
            return self.now(encode);
        }
        if self.deferred.len() == DEFERRED_MAX {
            return Err(OutputFull.into());
        }
        let mut payload = Vec::new();
        encode(&mut Writer::new(&mut payload));
        self.deferred.push_back(Deferred::Plain(payload));
        Ok(())
    }

    /// Sends a message of authentication: its length does not show in its packet, and no copy of it
    /// stays here.
    pub(crate) fn secret(&mut self, encode: impl FnOnce(&mut Writer<'_>)) -> Result<(), SendError> {
        let mut payload = Zeroizing::new(Vec::with_capacity(SECRET_LEN_MAX));
        encode(&mut Writer::new(&mut payload));
        if self.is_open() {
            return self.sender.send_padded(&payload);
        }
        if self.deferred.len() == DEFERRED_MAX {
            return Err(OutputFull.into());
        }
        self.deferred.push_back(Deferred::Secret(payload));
        Ok(())
    }

    /// Sends a message that may leave at any time: of the key exchange, or `DISCONNECT`.
    pub(crate) fn now(&mut self, encode: impl FnOnce(&mut Writer<'_>)) -> Result<(), SendError> {
        self.scratch.clear();
        encode(&mut Writer::new(&mut self.scratch));
        self.sender.send(&self.scratch)
    }
}
