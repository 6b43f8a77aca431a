//! A write or a close that failed without a reason: perhaps the server's disk is full.
//!
//! Version 3 has no status for it (draft-ietf-secsh-filexfer-02 §7), and most servers say `FAILURE`.
//! Those with `statvfs@openssh.com` are asked how much room there is, once for each such file, while
//! what was sent of it is still there.

use ketch_protocol::{Extension, ExtensionName, Reader, Request, StatVfs, StatusCode, Statvfs};

use super::State;
use crate::{
    requests::{
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step, What},
    },
    transfer::{
        error::TransferError,
        put::{Item, Put},
    },
};

impl Put {
    /// Ends a file whose write or close was refused; asks for the reason first, if the server gave
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
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if !is_vague || !extensions.contains(ExtensionName::Statvfs) {
            return self.fail_file(key, error, cx);
        }
        file.doubt = Some(Box::new((error, needed)));
        file.state = State::Doubting;
        self.ask_for_room(key, cx);
    }

    pub(super) fn ask_for_room(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let path = file.temporary.as_bytes();
        let request = Request::Extended(Extension::Statvfs(Statvfs { path }));
        if cx.can_ask() && cx.ask(key, Step::Room, &request, Expect::Extended).is_ok() {
            file.state = State::DoubtingAsked;
        }
    }

    /// Takes an answer about a file that failed: how much room there is, or what was sent before.
    pub(super) fn on_doubt_answer(
        &mut self,
        key: Key,
        what: What,
        answer: Answer<'_>,
        cx: &mut Cx<'_>,
    ) {
        if !matches!(what, What::Step(Step::Room)) {
            return;
        }
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(doubt) = file.doubt.take() else {
            return;
        };
        let (error, needed) = *doubt;
        let is_full = match answer {
            Answer::Extended(data) => StatVfs::decode(Reader::new(data)).is_ok_and(|room| {
                let unit = room.fragment_size.max(1);
                room.blocks_available.saturating_mul(unit) < needed
            }),
            _ => false,
        };
        let path = file.path.clone();
        let error = if is_full {
            TransferError::NoSpace { path }
        } else {
            error
        };
        self.fail_file(key, error, cx);
    }
}
