//! What is left of an upload when its connection is lost, or nobody wants it any more.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{PutFile, State};
use crate::{
    requests::{job::Cx, slots::Key, table::What},
    transfer::{
        hands::{Hands, Hold, Left},
        plan::Plan,
        put::{Item, Put, Undo, Up, joint::Joint},
        upload::Upload,
    },
};

impl Put {
    /// Takes back what was done on the server for a file that will not be whole.
    pub(in crate::transfer::put) fn discard(
        &mut self,
        key: Key,
        mut file: PutFile,
        cx: &mut Cx<'_>,
    ) {
        let is_last = match &file.hold {
            Hold::Alone(_) => {
                let creates = file.state != State::Probing;
                cx.orphan(key, creates.then_some(&file.temporary));
                !file.is_worth_keeping()
            }
            Hold::Joint(joint) => {
                cx.orphan(key, None);
                let is_news = joint.hands.end();
                self.plan.remove_joint(joint);
                let is_last = if file.has_left {
                    joint.hands.on_closed();
                    false
                } else {
                    joint.hands.leave([], 0) == Left::Orphan
                };
                if is_news {
                    // Those who wait for each other let go of it.
                    self.plan.wake_workers();
                }
                is_last
            }
        };
        if file.is_in_place && file.created {
            // Before it is closed, or the server would take it on as it is.
            self.undoing.push_back(Undo::Remove(file.path));
            file.created = false;
        }
        if let Some(handle) = file.handle {
            self.undoing.push_back(Undo::Close(handle));
        }
        if let Some(handle) = file.probe.and_then(|probe| probe.into_handle()) {
            self.undoing.push_back(Undo::Close(handle));
        }
        if file.created && is_last {
            self.undoing.push_back(Undo::Remove(file.temporary));
        }
        if let Some(stale) = file.stale {
            self.undoing.push_back(Undo::Remove(stale));
        }
    }
}

impl Put {
    /// Begins a file anew, from its first byte: the server has a habit that was not known when it
    /// was begun.
    pub(super) fn begin_again(&mut self, key: Key) {
        let Some(Item::File(mut file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        if file.is_in_place {
            self.undoing.push_back(Undo::Remove(file.path.clone()));
        }
        self.undoing.extend(file.take_handles().map(Undo::Close));
        if let Some(joint) = file.joint() {
            // With such servers there is but one hand.
            joint.hands.end();
            self.plan.remove_joint(joint);
        }
        let came = file.upload.as_ref().map_or(0, Upload::acknowledged);
        let came = came.saturating_add(file.resumed_at);
        self.plan.progress.take_back(came);
        if file.is_counted() {
            let size = file.announced().unwrap_or(0);
            self.plan.progress.correct_total(size, 0);
        }
        let stale = (!file.is_in_place).then(|| file.temporary.clone());
        self.plan.give_back_file(file.into_task(stale));
    }
}

impl PutFile {
    /// The handles that it has open.
    pub(in crate::transfer::put) fn take_handles(&mut self) -> impl Iterator<Item = Box<[u8]>> {
        let probed = self.probe.take().and_then(|probe| probe.into_handle());
        self.handle.take().into_iter().chain(probed)
    }

    /// A request about it will not be answered.
    pub(in crate::transfer::put) fn on_lost(&mut self, what: What) {
        if let (What::Write { span, .. }, Some(upload)) = (what, &mut self.upload) {
            upload.on_lost();
            if let Hold::Joint(joint) = &self.hold {
                joint.hands.give_back(span);
            }
        }
    }

    /// The connection is lost: what was acknowledged stays, what was not goes back to the plan.
    pub(in crate::transfer::put) fn give_back(mut self, plan: &Plan<Up>) {
        let is_named = self.is_being_named();
        let may_be_cleared = self.may_be_cleared || self.state == State::ClearingAsked;
        match &self.hold {
            Hold::Joint(joint) if self.has_left => {
                joint.hands.on_closed();
                plan.wake_workers();
            }
            Hold::Joint(joint) => {
                if is_named {
                    joint.hands.set_whole(self.size);
                }
                if may_be_cleared {
                    joint.may_be_cleared.store(true, Ordering::Relaxed);
                }
                let rest = self.upload.as_mut().and_then(Upload::give_back);
                joint.hands.leave(rest, 0);
            }
            Hold::Alone(_) if is_named => {
                // It may have its name already: it is not begun again.
                plan.add_joint(&Arc::new(Joint {
                    from: self.from,
                    opened: self.opened,
                    path: self.path,
                    temporary: self.temporary,
                    hands: Hands::unnamed(self.size),
                    may_be_cleared: AtomicBool::new(may_be_cleared),
                }));
            }
            Hold::Alone(_) => {
                let came = self.upload.as_ref().map_or(0, Upload::acknowledged);
                plan.progress.take_back(came);
                if self.is_counted() {
                    let size = self.announced().unwrap_or(0);
                    plan.progress.correct_total(size, 0);
                }
                if self.state == State::Asked && !self.resumes {
                    // The server may come to it when it was already seen not to be there.
                    plan.add_doubtful(self.temporary.clone());
                }
                let stale = if self.is_worth_keeping() {
                    None // it will be found
                } else if self.created || self.state == State::Asked {
                    Some(self.temporary.clone())
                } else {
                    self.stale.clone()
                };
                plan.give_back_file(self.into_task(stale));
            }
        }
    }

    /// Whether all of it is on the server, and it may have its name.
    const fn is_being_named(&self) -> bool {
        matches!(
            self.state,
            State::Naming
                | State::Renaming
                | State::Clearing
                | State::ClearingAsked
                | State::NamingAgain
                | State::RenamingAgain
                | State::Checking { .. }
                | State::CheckingAsked { .. }
                | State::Finding
                | State::FindingAsked
                | State::FindingName
                | State::FindingNameAsked
        )
    }
}
