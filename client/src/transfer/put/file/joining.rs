//! Taking part in an upload that others have begun, or that an earlier connection left.
//!
//! The temporary file is opened once more, without creating it: it is ours. If the server does not
//! open it, those who have it go on alone; where nobody has, the file is begun anew. A file that was
//! being named when its connection was lost has one name or the other: a look at both tells.

use std::sync::{Arc, atomic::Ordering};

use ketch_protocol::{
    Close, FileType, Open, OpenFlags, RemotePath, Remove, Request, StatusCode, WireAttrs,
};

use super::{PutFile, State};
use crate::{
    quirks::Quirk,
    requests::{
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step, What},
    },
    sftp::Operation,
    transfer::{
        hands::{Hold, Left},
        local::SourceFile,
        put::{FileTask, Item, Put, file::From, joint::Joint},
    },
};

impl PutFile {
    /// A file that was begun by somebody else; a hand of it was taken.
    pub(in crate::transfer::put) fn for_joint(joint: Arc<Joint>) -> Self {
        let task = FileTask::new(joint.from.clone(), joint.path.clone());
        let mut file = Self::new(task);
        file.opened.clone_from(&joint.opened);
        file.temporary = joint.temporary.clone();
        file.created = true;
        file.state = match joint.hands.whole() {
            Some(size) => {
                file.size = size;
                State::Finding
            }
            None => State::Joining,
        };
        file.may_be_cleared = joint.may_be_cleared.load(Ordering::Relaxed);
        // Others have written before.
        file.gap_at = Some(0);
        file.hold = Hold::Joint(joint);
        file
    }

    /// The file as others know it, if they do.
    pub(in crate::transfer::put) const fn joint(&self) -> Option<&Arc<Joint>> {
        self.hold.joint()
    }

    /// Whether others had a share of it and it failed, or has its name: nothing more is to be done.
    pub(super) fn is_over(&self) -> bool {
        self.joint().is_some_and(|joint| joint.hands.is_over())
    }

    /// Whether it is in a state of which this module takes the answers.
    pub(super) const fn is_joining(&self) -> bool {
        matches!(
            self.state,
            State::PurgingAsked
                | State::JoiningAsked
                | State::LeavingAsked
                | State::FindingAsked
                | State::FindingNameAsked
        )
    }

    /// As it is begun anew, with what is to be removed before.
    pub(super) fn into_task(self, stale: Option<RemotePath>) -> FileTask {
        FileTask {
            stale,
            listed: self.listed,
            ..FileTask::new(self.from, self.path)
        }
    }

    /// Whether its size was counted when it was opened, and not when it was listed.
    pub(super) const fn is_counted(&self) -> bool {
        matches!(self.from, From::File(SourceFile::Named(_))) && self.opened.is_some()
    }
}

impl Put {
    /// Removes what an earlier connection left.
    pub(super) fn purge(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(path) = &file.stale else {
            file.state = State::New;
            return;
        };
        let path = path.as_bytes();
        let request = Request::Remove(Remove { path });
        if cx.can_ask()
            && cx
                .ask(key, Step::RemoveOld, &request, Expect::Status)
                .is_ok()
        {
            file.state = State::PurgingAsked;
        }
    }

    /// Opens the temporary file that others have created.
    pub(super) fn join(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if cx.core.server.quirks.has(Quirk::InOrder) {
            // It takes nothing behind what another connection wrote.
            file.state = State::Refused;
            return;
        }
        let request = Request::Open(Open {
            path: file.temporary.as_bytes(),
            flags: OpenFlags::WRITE,
            attrs: WireAttrs::default(),
        });
        if cx.can_ask()
            && cx.core.may_open()
            && cx.ask(key, Step::Open, &request, Expect::Handle).is_ok()
        {
            file.state = State::JoiningAsked;
        }
    }

    /// Closes the handle of a share that is done.
    pub(super) fn close_share(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let Some(handle) = file.handle.as_deref() else {
            return;
        };
        let request = Request::Close(Close { handle });
        if cx.can_ask() && cx.ask(key, Step::Close, &request, Expect::Status).is_ok() {
            file.handle = None;
            cx.core.on_file_closed();
            file.state = State::LeavingAsked;
        }
    }

    /// Looks under which name a file is.
    pub(super) fn find(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let (path, next) = match file.state {
            State::Finding => (&file.temporary, State::FindingAsked),
            _ => (&file.path, State::FindingNameAsked),
        };
        if cx.can_ask() && cx.look(key, path.as_bytes()).is_ok() {
            file.state = next;
        }
    }

    /// Takes what the server answered to all that.
    pub(super) fn on_join_answer(
        &mut self,
        key: Key,
        what: What,
        answer: Answer<'_>,
        cx: &mut Cx<'_>,
    ) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        match (file.state, what, answer) {
            // It is gone, or will not go: another name is taken if that one is.
            (State::PurgingAsked, ..) => {
                file.stale = None;
                file.state = State::New;
            }
            (State::JoiningAsked, What::Step(Step::Open), Answer::Handle(handle)) => {
                file.handle = Some(handle.into());
                if let Err(error) = self.start_writing(key, cx) {
                    self.fail_file(key, error, cx);
                }
            }
            (State::LeavingAsked, _, Answer::Status(status, message)) => {
                let error = file.refused(Operation::Close, status, message);
                if status != StatusCode::OK {
                    return self.fail_file(key, error, cx);
                }
                if let Some(joint) = file.joint() {
                    joint.hands.on_closed();
                    self.plan.wake_workers();
                }
                self.items.remove(key);
                self.files -= 1;
            }
            (State::FindingAsked, _, Answer::Attrs(_)) => {
                file.was_found = true;
                file.state = State::Naming;
            }
            (State::FindingAsked, ..) => file.state = State::FindingName,
            (State::FindingNameAsked, _, Answer::Attrs(attrs))
                if attrs.file_type() == FileType::Regular
                    && attrs.size.is_none_or(|size| size == file.size) =>
            {
                self.file_done(key);
            }
            (State::JoiningAsked | State::FindingNameAsked, ..) => file.state = State::Refused,
            _ => {}
        }
    }

    /// Leaves a file to those who have it; where nobody has, it is begun anew.
    pub(super) fn leave_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        let Some(joint) = file.joint() else {
            return;
        };
        if joint.hands.is_over() {
            return self.discard(key, *file, cx);
        }
        joint.hands.stay_alone();
        if joint.hands.leave([], 0) == Left::Orphan && joint.hands.end() {
            self.plan.remove_joint(joint);
            let came = file
                .announced()
                .unwrap_or(0)
                .saturating_sub(joint.hands.left());
            self.plan.progress.take_back(came);
            if file.is_counted() {
                let size = file.announced().unwrap_or(0);
                self.plan.progress.correct_total(size, 0);
            }
            let stale = Some(file.temporary.clone());
            self.plan.give_back_file(file.into_task(stale));
        }
    }
}
