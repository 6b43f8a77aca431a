//! A write or a close that failed without a reason: perhaps the server's disk is full.
//!
//! Version 3 has no status for it (draft-ietf-secsh-filexfer-02 §7), and most servers say `FAILURE`.
//! Those with `statvfs@openssh.com` are asked how much room there is, once for each such file. The
//! question leaves before the removal of what was sent, and nothing waits for its answer but the
//! report. Where several files failed, the first one's removal may have made room: when the disk was
//! full for one file of a transfer, it is held to have been so for the others.

use std::sync::atomic::Ordering;

use ketch_protocol::{
    Extension, ExtensionName, Reader, RemotePath, Request, StatVfs, StatusCode, Statvfs,
};

use super::{Item, Put};
use crate::{
    requests::{
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step},
    },
    transfer::error::{Place, TransferError},
};

/// A file that failed without a reason.
pub(super) struct Doubt {
    /// For the report.
    place: Place,
    path: RemotePath,
    error: TransferError,
    /// Bytes that were to be written.
    needed: u64,
}

impl Put {
    /// Ends a file of which a write or close was refused; asks for the reason, if the server gave
    /// none. `needed` is what was to be written, in bytes.
    pub(super) fn doubt(&mut self, key: Key, error: TransferError, needed: u64, cx: &mut Cx<'_>) {
        let extensions = cx.core.server.extensions;
        let is_vague = matches!(
            error,
            TransferError::Refused {
                status: StatusCode::FAILURE,
                ..
            }
        );
        let can_ask = cx.can_ask() && extensions.contains(ExtensionName::Statvfs);
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let is_known = file.joint().is_some_and(|joint| joint.hands.is_over());
        if !is_vague || !can_ask || is_known {
            return self.fail_file(key, error, cx);
        }
        let (place, path) = (file.place(), file.path.clone());
        let asked = file.temporary.clone();
        let item = Item::Doubt(Box::new(Doubt {
            place,
            path,
            error,
            needed,
        }));
        let Some(doubt) = self.items.insert(item) else {
            return; // there is room for as many as are asked for
        };
        let path = asked.as_bytes();
        let request = Request::Extended(Extension::Statvfs(Statvfs { path }));
        let sent = cx.ask(doubt, Step::Room, &request, Expect::Extended);
        if let Some(Item::File(file)) = self.items.remove(key) {
            self.files -= 1;
            self.discard(key, *file, cx);
        }
        if sent.is_err()
            && let Some(Item::Doubt(doubt)) = self.items.remove(doubt)
        {
            self.settle_doubt(*doubt, false);
        }
    }

    /// Takes what the server said of its room.
    pub(super) fn on_room(&mut self, key: Key, answer: Answer<'_>) {
        let Some(Item::Doubt(doubt)) = self.items.remove(key) else {
            return;
        };
        let is_full = match answer {
            Answer::Extended(data) => StatVfs::decode(Reader::new(data)).is_ok_and(|room| {
                let unit = room.fragment_size.max(1);
                room.blocks_available.saturating_mul(unit) < doubt.needed
            }),
            _ => false,
        };
        self.settle_doubt(*doubt, is_full);
    }

    /// Reports a file whose reason is known now, or will not be.
    pub(super) fn settle_doubt(&self, doubt: Doubt, is_full: bool) {
        let was_full = &self.plan.was_full;
        if is_full {
            was_full.store(true, Ordering::Relaxed);
        }
        let error = if was_full.load(Ordering::Relaxed) {
            let path = doubt.path;
            TransferError::NoSpace { path }
        } else {
            doubt.error
        };
        self.plan.fail(doubt.place, error);
    }
}
