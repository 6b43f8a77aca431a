//! What all that lives on one SFTP channel has in common: the table of requests, what the server
//! said of itself, the pace, the disk.

use std::{sync::Arc, time::Instant};

use ketch_protocol::{
    Close, Remove, Request, RequestId, Write,
    limits::{DATA_LEN_PORTABLE, HANDLE_LEN_MAX},
};

use super::{
    calls::{ServerTraits, Shared},
    link::{Full, Link},
    stall::Stall,
    table::{Entry, Expect, Owner, Table},
    turns::Turn,
};
use crate::{
    quirks::Quirk,
    transfer::{
        disk::Disk,
        pace::{self, Pace},
    },
};

/// Bytes of requests that may wait for the server's window before no more are made.
const QUEUE_SOFT_MAX: usize = 64 * 1024;
/// Files that may be open before the server has said how many it allows: a new connection in the
/// middle of a transfer has more to open than that at once.
const OPEN_UNKNOWN: usize = 32;
/// Places in the table that transfers leave to calls and to cleaning up.
const TABLE_RESERVE: usize = 512;

/// Bytes of one READ where the server allows it: with its 13 bytes of header the answer fills two
/// channel packets of 32 KiB. sshd spends 15 % less on these than on reads of 255 KiB.
const READ_LEN: u32 = 2 * 32_768 - 13;
/// Bytes of one READ elsewhere: the answer fills one channel packet.
const READ_LEN_PORTABLE: u32 = 32_768 - 13;
/// Bytes of one WRITE packet, header included, where the server allows it, and elsewhere.
const WRITE_PACKET_LEN: usize = 2 * 32_768;
const WRITE_PACKET_LEN_PORTABLE: usize = 32_768;

/// What all that lives on one SFTP channel has in common.
pub(crate) struct Core {
    pub table: Table,
    pub server: ServerTraits,
    pub down: Pace,
    pub up: Pace,
    pub disk: Disk,
    pub shared: Arc<Shared>,
    pub stall: Stall,
    /// What the server allows is asked for, and not answered.
    pub limits_due: bool,
    pub scratch: Vec<u8>,
    /// What the transfer that is being driven may do.
    pub turn: Turn,
    /// When the server was last silent for too long: what was asked before may never be answered.
    stalled_at: Option<Instant>,
}

impl Core {
    pub(crate) fn new(shared: Arc<Shared>, disk: Disk, stall: Stall) -> Self {
        Self {
            table: Table::new(),
            server: ServerTraits::default(),
            down: Pace::new(pace::DOWN),
            up: Pace::new(pace::UP),
            disk,
            shared,
            stall,
            limits_due: true,
            scratch: Vec::new(),
            turn: Turn::default(),
            stalled_at: None,
        }
    }

    /// Whether a small request of a transfer would be taken now.
    pub(crate) fn can_ask(&self, link: &mut dyn Link) -> bool {
        self.has_turn() && self.table.room() > TABLE_RESERVE && link.queued() < QUEUE_SOFT_MAX
    }

    /// Whether a transfer may send anything: a server that bears one request at a time gets the
    /// next when it has answered the last.
    pub(crate) fn has_turn(&self) -> bool {
        !self.server.quirks.has(Quirk::OneRequest)
            || self
                .table
                .iter()
                .all(|entry| self.stalled_at.is_some_and(|then| entry.sent_at <= then))
    }

    /// The server was silent for too long. If it was asked several things at a time, that may have
    /// been the reason: from now on it is asked one, and what it owes is not waited for.
    pub(crate) fn on_stalled(&mut self, now: Instant) {
        self.stalled_at = Some(now);
        if self.table.len() > 1 {
            self.learn(Quirk::OneRequest);
        }
    }

    /// The server was seen to have a habit.
    pub(crate) fn learn(&mut self, quirk: Quirk) {
        if !self.server.quirks.has(quirk) {
            tracing::info!(?quirk, "the server has a habit");
            self.server.quirks.learn(quirk);
            self.shared.set_quirks(self.server.quirks);
        }
    }

    /// Sends a request.
    pub(crate) fn ask(
        &mut self,
        link: &mut dyn Link,
        request: &Request<'_>,
        owner: Owner,
        expect: Expect,
    ) -> Result<RequestId, Full> {
        let now = link.now();
        let is_wanted = !matches!(owner, Owner::Nobody { .. });
        let id = self.enter(now, owner, expect).ok_or(Full)?;
        self.scratch.clear();
        request.encode_packet(id, &mut self.scratch);
        if let Err(full) = link.send(&self.scratch) {
            self.table.remove(id);
            return Err(full);
        }
        if is_wanted {
            self.on_sent(now);
        } else {
            self.stall.on_unwanted(now);
        }
        Ok(id)
    }

    /// Makes a place in the table for a request that is about to be sent.
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        owner: Owner,
        expect: Expect,
    ) -> Option<RequestId> {
        self.table.insert(Entry {
            owner,
            expect,
            sent_at: now,
        })
    }

    /// A request was sent.
    pub(crate) const fn on_sent(&mut self, now: Instant) {
        self.stall.on_sent(now);
    }

    /// Closes a handle that came too late for anybody to take it, and removes the file.
    pub(crate) fn close_orphan(
        &mut self,
        link: &mut dyn Link,
        handle: &[u8],
        remove: Option<&[u8]>,
    ) {
        // Where even this is not taken the channel is in its last throes.
        let nobody = || Owner::Nobody { remove: None };
        let _ = self.ask(
            link,
            &Request::Close(Close { handle }),
            nobody(),
            Expect::Status,
        );
        if let Some(path) = remove {
            let _ = self.ask(
                link,
                &Request::Remove(Remove { path }),
                nobody(),
                Expect::Status,
            );
        }
    }

    /// Bytes of one READ.
    pub(crate) fn read_len(&self) -> u32 {
        let len = match self.server.limits {
            Some(limits) if limits.read_len >= u64::from(READ_LEN) => READ_LEN,
            Some(limits) if limits.read_len > 0 => u32::try_from(limits.read_len)
                .unwrap_or(u32::MAX)
                .min(READ_LEN_PORTABLE),
            _ => READ_LEN_PORTABLE,
        };
        len.min(self.server.quirks.read_len_max())
    }

    /// Bytes of data of one WRITE with a handle of `handle_len` bytes.
    pub(crate) fn write_len(&self, handle_len: usize, link: &mut dyn Link) -> u32 {
        let header_len = Write::header_len(handle_len.min(HANDLE_LEN_MAX));
        let (packet_len, data_len) = match self.server.limits {
            Some(limits)
                if limits.write_len >= WRITE_PACKET_LEN as u64
                    && (limits.packet_len == 0 || limits.packet_len >= WRITE_PACKET_LEN as u64) =>
            {
                (WRITE_PACKET_LEN, u32::MAX)
            }
            Some(limits) if limits.write_len > 0 => (
                WRITE_PACKET_LEN_PORTABLE,
                u32::try_from(limits.write_len).unwrap_or(u32::MAX),
            ),
            _ => (WRITE_PACKET_LEN_PORTABLE, DATA_LEN_PORTABLE),
        };
        // A packet longer than the largest window that the server offers would wait for ever.
        let packet_len = match link.sendable_peak() {
            0 => packet_len,
            peak => packet_len.min(peak),
        };
        let data = packet_len.saturating_sub(header_len).max(1);
        let data_len = data_len.min(self.server.quirks.write_len_max());
        u32::try_from(data).unwrap_or(u32::MAX).min(data_len)
    }

    /// Files that may be open on the server at a time, for one transfer.
    pub(crate) fn open_max(&self, wanted: usize) -> usize {
        let quirks = self.server.quirks;
        if quirks.has(Quirk::OneRequest) {
            return 1;
        }
        match self.server.limits {
            Some(limits) if limits.open_handles > 0 => {
                let handles = usize::try_from(limits.open_handles / 2).unwrap_or(usize::MAX);
                wanted.min(handles.max(1))
            }
            _ if self.limits_due => wanted.min(OPEN_UNKNOWN),
            _ => wanted,
        }
    }
}
