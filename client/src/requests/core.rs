//! What all that lives on one SFTP channel has in common: the table of requests, what the server
//! said of itself, the pace, the disk.

use std::{sync::Arc, time::Instant};

use ketch_protocol::{
    Close, Remove, Request, RequestId, StatusCode, Write,
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
    quirks::{self, Quirk, Quirks},
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
    /// Remote files that transfers have open.
    files: u32,
    /// What the server was seen to bear.
    bears: Bears,
}

/// What a server was seen to bear: what it refuses later has another reason.
#[derive(Clone, Copy, Debug, Default)]
struct Bears {
    /// Several files were open at a time.
    several: bool,
    /// A WRITE was taken.
    writes: bool,
    /// A WRITE of more than [`quirks::SHORT_WRITE_LEN`] was taken.
    long_writes: bool,
    /// A WRITE was taken that was not behind the last one of its file.
    disorder: bool,
}

/// A WRITE that a transfer was refused.
pub(crate) struct RefusedWrite<'a> {
    /// Bytes of data.
    pub len: u32,
    /// Whether it was not behind the last one of its file.
    pub is_out_of_order: bool,
    /// What was known of the server when the file was begun.
    pub began_with: Quirks,
    pub status: StatusCode,
    pub message: &'a [u8],
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
            files: 0,
            bears: Bears::default(),
        }
    }

    /// Whether a small request of a transfer would be taken now.
    pub(crate) fn can_ask(&self, link: &mut dyn Link) -> bool {
        self.has_turn() && self.table.room() > TABLE_RESERVE && link.queued() < QUEUE_SOFT_MAX
    }

    /// Whether a transfer may send anything: a server that bears one request at a time gets the
    /// next when it has answered the last.
    pub(crate) fn has_turn(&self) -> bool {
        !self.server.quirks.has(Quirk::OneRequest) || self.table.iter().all(|entry| entry.is_owed)
    }

    /// The server was silent for too long. If it was asked several things at a time, that may have
    /// been the reason: from now on it is asked one, and what it owes is not waited for. Says
    /// whether that is news. A server that is known well bears them, and has another reason.
    pub(crate) fn on_stalled(&mut self) -> bool {
        self.table.iter_mut().for_each(|entry| entry.is_owed = true);
        let quirks = self.server.quirks;
        let is_unknown = !quirks.has(Quirk::OneRequest) && !quirks.has(Quirk::Stripes);
        let is_news = is_unknown && self.table.len() > 1;
        if is_news {
            self.learn(Quirk::OneRequest);
        }
        is_news
    }

    /// A request was answered that was sent before the server was silent for too long: it was slow
    /// and did not hang, so several requests at a time are not the reason.
    pub(crate) fn on_late_answer(&mut self) {
        self.forget(Quirk::OneRequest);
    }

    /// A transfer has a remote file open.
    pub(crate) fn on_file_opened(&mut self) {
        self.files = self.files.saturating_add(1);
        if self.files > 1 && !self.bears.several {
            self.bears.several = true;
            self.forget(Quirk::OneFile);
        }
    }

    /// A transfer closes a remote file.
    pub(crate) const fn on_file_closed(&mut self) {
        self.files = self.files.saturating_sub(1);
    }

    /// Whether a transfer may open one more remote file now.
    pub(crate) fn may_open(&self) -> bool {
        !self.server.quirks.has(Quirk::OneFile) || (self.files == 0 && self.table.is_empty())
    }

    /// A transfer was refused a file with `status`. Says whether that may be for another file that
    /// is open: then it is worth a second try when none is.
    pub(crate) fn is_crowded(&mut self, status: StatusCode, message: &[u8]) -> bool {
        let may_be = matches!(status, StatusCode::FAILURE | StatusCode::PERMISSION_DENIED);
        if self.files == 0 {
            // It is the file that is refused, with nothing else open.
            self.forget(Quirk::OneFile);
            return false;
        }
        let bears_it = self.bears.several || self.server.quirks.has(Quirk::Stripes);
        if !may_be || (bears_it && !quirks::speaks_of_a_crowd(message)) {
            return false;
        }
        self.learn(Quirk::OneFile);
        true
    }

    /// The server was seen to have a habit.
    pub(crate) fn learn(&mut self, quirk: Quirk) {
        if !self.server.quirks.has(quirk) {
            tracing::info!(?quirk, "the server has a habit");
            self.server.quirks.learn(quirk);
            self.shared.set_quirks(self.server.quirks);
        }
    }

    /// A WRITE of `len` bytes was taken, which was not behind the last one or was.
    pub(crate) const fn on_written(&mut self, len: u32, is_out_of_order: bool) {
        self.bears.writes = true;
        self.bears.long_writes |= len > quirks::SHORT_WRITE_LEN;
        self.bears.disorder |= is_out_of_order;
    }

    /// Says whether a refused WRITE may be for a habit of the server that was not known when the
    /// file was begun: then it is known from now on, and the file is worth beginning anew.
    pub(crate) fn may_teach(&mut self, refused: &RefusedWrite<'_>) -> bool {
        let is_odd = matches!(
            refused.status,
            StatusCode::FAILURE | StatusCode::BAD_MESSAGE | StatusCode::OP_UNSUPPORTED
        );
        let is_long = refused.len > quirks::SHORT_WRITE_LEN;
        if !is_long && !self.bears.writes {
            // Short ones are refused too.
            self.forget(Quirk::ShortWrites);
        }
        let speaks_of_order = quirks::speaks_of_order(refused.message);
        let is_known_well = self.server.quirks.has(Quirk::Stripes);
        let quirk = if speaks_of_order && refused.began_with.has(Quirk::InOrder) {
            // It puts what comes at once out of order by itself.
            Quirk::OneRequest
        } else if speaks_of_order {
            Quirk::InOrder
        } else if is_known_well {
            return false;
        } else if is_long && !self.bears.long_writes {
            Quirk::ShortWrites
        } else if refused.is_out_of_order && !self.bears.disorder {
            Quirk::InOrder
        } else {
            return false;
        };
        if !is_odd || refused.began_with.has(quirk) {
            return false;
        }
        self.learn(quirk);
        true
    }

    /// The server turned out not to have a habit.
    fn forget(&mut self, quirk: Quirk) {
        if self.server.quirks.has(quirk) {
            tracing::info!(?quirk, "the server does not have that habit");
            self.server.quirks.forget(quirk);
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
            is_owed: false,
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
            self.remove_orphan(link, path);
        }
    }

    /// Removes what nobody waits for any more.
    pub(crate) fn remove_orphan(&mut self, link: &mut dyn Link, path: &[u8]) {
        let nobody = Owner::Nobody { remove: None };
        let request = Request::Remove(Remove { path });
        let _ = self.ask(link, &request, nobody, Expect::Status);
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
        // Servers open their window again when a third or a half of it was used (dropbear: a third):
        // what is half of it or longer may wait for ever though nothing is under way.
        let packet_len = match link.sendable_peak() / 2 {
            0 => packet_len,
            half => packet_len.min(half - 1),
        };
        let data = packet_len.saturating_sub(header_len).max(1);
        let data_len = data_len.min(self.server.quirks.write_len_max());
        u32::try_from(data).unwrap_or(u32::MAX).min(data_len)
    }

    /// Files that may be open on the server at a time, for one transfer.
    pub(crate) fn open_max(&self, wanted: usize) -> usize {
        let quirks = self.server.quirks;
        if quirks.has(Quirk::OneRequest) || quirks.has(Quirk::OneFile) {
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
