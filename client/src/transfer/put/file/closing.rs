//! The end of the data of an upload: attributes, fsync, a look at the size and the close follow the
//! last byte without waiting (draft-02 §3: requests about one file are carried out in the order
//! sent); the name comes when all of them are answered.

use ketch_protocol::{Attrs, Close, Extension, Fsetstat, Fstat, Fsync, Request};

use super::State;
use crate::{
    quirks::Quirk,
    requests::{
        job::Cx,
        slots::Key,
        table::{Expect, Step},
    },
    transfer::{
        hands::{Hold, Written},
        options::{Durability, Verify},
        put::{Item, Put},
        report::Remarkable,
        upload::{self, Upload},
    },
};

impl Put {
    /// When all data is sent, what follows it goes out at once.
    pub(super) fn see_whether_sent(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(upload) = &mut file.upload else {
            return;
        };
        let end = match &file.hold {
            Hold::Joint(joint) if joint.hands.is_over() => return self.let_go(key, cx),
            Hold::Joint(_) if !upload.is_sent() => return,
            Hold::Joint(joint) => match joint.hands.leave_written(upload.is_quiet()) {
                None => return,
                Some(Written::Others) => {
                    file.has_left = true;
                    file.block = None;
                    file.state = State::Leaving;
                    return;
                }
                Some(Written::Last { end }) => {
                    upload.end_at(end);
                    end
                }
            },
            Hold::Alone(_) => match (upload.poll(), upload.end()) {
                // What is closed here is taken on, whatever is still refused of it.
                (upload::Step::Sent, _) if file.is_in_place => return,
                (upload::Step::Sent | upload::Step::Done { .. }, Some(end)) => end,
                _ => return,
            },
        };
        file.size = end;
        file.block = None;
        file.state = State::SettingOwner;
    }

    /// Another channel could not write its share of a file, and said so: nothing becomes of it here
    /// either.
    pub(super) fn let_go(&mut self, key: Key, cx: &mut Cx<'_>) {
        if let Some(Item::File(file)) = self.items.remove(key) {
            self.files -= 1;
            self.discard(key, *file, cx);
        }
    }

    /// Sends attributes, fsync, a look at the size, and the close, as far as they are wanted.
    pub(super) fn send_what_follows(&mut self, key: Key, cx: &mut Cx<'_>) {
        let (preserve, durability) = (self.options.preserve, self.options.durability);
        let sets_attrs = !cx.core.server.quirks.has(Quirk::NoSetAttrs);
        let quirks = cx.core.server.quirks;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        // A fifth of what a small file asks of the server, where its WRITEs have said it already.
        let is_told = file.is_small() && quirks.has(Quirk::SureWrites);
        let looks = !is_told && !quirks.has(Quirk::GoneAfterClose);
        let Some(handle) = file.handle.as_deref() else {
            return;
        };
        let opened = file.opened.as_ref();
        let permissions = opened.and_then(|opened| opened.mode);
        let owner = Attrs {
            owner: opened
                .and_then(|opened| opened.owner)
                .filter(|_| preserve.owner),
            ..Attrs::NONE
        };
        let attrs = Attrs {
            times: opened.map(|opened| opened.times).filter(|_| preserve.times),
            // Whether the file may be written to: known to the server when all is written.
            permissions: permissions
                .filter(|_| preserve.permissions)
                .map(|mode| mode & 0o777),
            ..Attrs::NONE
        };
        let wanted = matches!(file.state, State::SettingOwner | State::SettingAttrs);
        if wanted && !sets_attrs && (owner != Attrs::NONE || attrs != Attrs::NONE) {
            file.remarks.add(Remarkable::AttributesNotSet);
        }
        if wanted && preserve.times && opened.is_some_and(|opened| !opened.has_plain_times) {
            file.remarks.add(Remarkable::TimesOutOfRange);
        }
        let set = |attrs: Attrs| {
            (sets_attrs && attrs != Attrs::NONE).then(|| {
                let attrs = attrs.into();
                Request::Fsetstat(Fsetstat { handle, attrs })
            })
        };
        let (step, request, expect, next) = match file.state {
            // The owner first: to give a file away takes bits from its permissions.
            State::SettingOwner => (
                Step::SetAttrs,
                set(owner),
                Expect::Status,
                State::SettingAttrs,
            ),
            State::SettingAttrs => (Step::SetAttrs, set(attrs), Expect::Status, State::Syncing),
            State::Syncing => (
                Step::Fsync,
                (durability != Durability::None)
                    .then_some(Request::Extended(Extension::Fsync(Fsync { handle }))),
                Expect::Status,
                State::Measuring,
            ),
            State::Measuring => (
                Step::Fstat,
                looks.then_some(Request::Fstat(Fstat { handle })),
                Expect::Attrs,
                State::Closing,
            ),
            _ => (
                Step::Close,
                Some(Request::Close(Close { handle })),
                Expect::Status,
                State::Settling,
            ),
        };
        if let Some(request) = request {
            if !cx.can_ask() || cx.ask(key, step, &request, expect).is_err() {
                return;
            }
            file.waiting += 1;
        }
        file.state = next;
        if next == State::Settling {
            file.handle = None;
            cx.core.on_file_closed();
        }
    }

    /// Goes on when all is answered, and all who wrote the file have closed it.
    pub(super) fn see_whether_settled(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if file.is_over() {
            return self.let_go(key, cx);
        }
        let written = file.upload.as_ref().map(Upload::poll);
        let is_closing = matches!(&file.hold, Hold::Joint(joint) if joint.hands.is_closing());
        let is_written = matches!(written, Some(upload::Step::Done { .. }));
        if file.waiting == 0 && is_written && !is_closing {
            let wants = self.options.verify == Verify::Checksum && file.size > 0;
            if wants && !file.is_verified {
                return self.verify(key, cx);
            }
            if file.is_in_place {
                file.remarks.add(Remarkable::WrittenInPlace);
                return self.file_done(key);
            }
            file.state = State::Naming;
        }
    }
}
