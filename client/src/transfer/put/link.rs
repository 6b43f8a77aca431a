//! One local link being made on the server.
//!
//! Where the server can replace a name (`posix-rename@openssh.com`), the link is made under a
//! temporary name and takes the place of what was there in one step. Version 3 alone makes links
//! under free names only: there what has the name is removed first, and the report says so.

use std::{ffi::OsString, sync::Arc};

use ketch_protocol::{
    Extension, ExtensionName, PosixRename, RemotePath, Remove, Request, StatusCode, Symlink,
};

use super::{Item, Put, Task, Undo, Up};
use crate::{
    requests::{
        calls::message_of,
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step, What},
    },
    sftp::Operation,
    transfer::{
        error::{Place, TransferError},
        local::Tree,
        names::{self, Identity},
        options::Overwrite,
        plan::Plan,
        report::Remarkable,
    },
};

/// A link to make.
pub(crate) struct LinkTask {
    /// Where it is.
    pub(super) tree: Arc<Tree>,
    pub(super) name: OsString,
    /// Where it leads.
    pub(super) target: Vec<u8>,
    pub(super) path: RemotePath,
}

/// A link being made.
pub(super) struct PutLink {
    task: LinkTask,
    state: State,
    /// The name under which it is made first, as soon as that was asked for.
    temporary: Option<RemotePath>,
    /// What had its name was removed.
    has_cleared: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    New,
    /// SYMLINK was sent.
    MakingAsked,
    /// It is there under its temporary name.
    Made,
    RenamingAsked,
    /// What has its name is to be removed.
    Clearing,
    ClearingAsked,
}

impl PutLink {
    fn new(task: LinkTask) -> Self {
        Self {
            task,
            state: State::New,
            temporary: None,
            has_cleared: false,
        }
    }

    /// The connection is lost: it is begun anew, by whoever comes next.
    pub(super) fn give_back(self, plan: &Arc<Plan<Up>>) {
        if let Some(temporary) = self.temporary {
            plan.add_leftover(temporary);
        }
        plan.give_back_file(Task::Link(self.task));
    }

    /// What is on the server of it, and should not be.
    pub(super) fn into_leftover(self) -> Option<RemotePath> {
        self.temporary
    }

    fn temporary(&self) -> Option<RemotePath> {
        let (directory, name) = self.task.path.parent().zip(self.task.path.file_name())?;
        let number = names::attempt(names::ATTEMPT_BY_CHANCE);
        let destination = self.task.path.as_bytes();
        let name = names::temporary(destination, name, Identity::default(), number);
        Some(directory.join(name))
    }
}

impl Put {
    /// Begins a link.
    pub(super) fn begin_link(&mut self, task: LinkTask) {
        let link = Item::Link(Box::new(PutLink::new(task)));
        if self.items.insert(link).is_some() {
            self.files += 1;
        }
    }

    /// Asks for what a link needs next.
    pub(super) fn advance_link(&mut self, key: Key, cx: &mut Cx<'_>) {
        let extensions = cx.core.server.extensions;
        let replaces = self.options.overwrite == Overwrite::Replace
            && extensions.contains(ExtensionName::PosixRename);
        let order = cx.core.server.quirks.symlink_order();
        let Some(Item::Link(link)) = self.items.get_mut(key) else {
            return;
        };
        if !cx.can_ask() {
            return;
        }
        let path = link.task.path.as_bytes();
        match link.state {
            State::New => {
                if replaces && link.temporary.is_none() {
                    link.temporary = link.temporary();
                }
                let name = link.temporary.as_ref().map_or(path, RemotePath::as_bytes);
                let request = Request::Symlink(Symlink {
                    target: &link.task.target,
                    link: name,
                    order,
                });
                if cx
                    .ask(key, Step::MakeLink, &request, Expect::Status)
                    .is_ok()
                {
                    link.state = State::MakingAsked;
                }
            }
            State::Made => {
                let Some(temporary) = &link.temporary else {
                    return;
                };
                let from = temporary.as_bytes();
                let rename = PosixRename { from, to: path };
                let request = Request::Extended(Extension::PosixRename(rename));
                if cx.ask(key, Step::Rename, &request, Expect::Status).is_ok() {
                    link.state = State::RenamingAsked;
                }
            }
            State::Clearing => {
                let request = Request::Remove(Remove { path });
                if cx
                    .ask(key, Step::RemoveOld, &request, Expect::Status)
                    .is_ok()
                {
                    link.state = State::ClearingAsked;
                }
            }
            State::MakingAsked | State::RenamingAsked | State::ClearingAsked => {}
        }
    }

    /// Takes what the server answered about a link.
    pub(super) fn on_link_answer(
        &mut self,
        key: Key,
        what: What,
        answer: Answer<'_>,
        cx: &mut Cx<'_>,
    ) {
        let overwrite = self.options.overwrite;
        let Some(Item::Link(link)) = self.items.get_mut(key) else {
            return;
        };
        let (What::Step(step), Answer::Status(status, message)) = (what, answer) else {
            return;
        };
        match (step, status) {
            (Step::MakeLink, StatusCode::OK) if link.temporary.is_some() => {
                link.state = State::Made;
            }
            (Step::MakeLink | Step::Rename, StatusCode::OK) => self.link_done(key),
            (Step::RemoveOld, StatusCode::OK) => {
                link.has_cleared = true;
                link.state = State::New;
            }
            // Version 3 has no status for a name that is taken; these are what servers say.
            (Step::MakeLink, StatusCode::FAILURE | StatusCode::FILE_ALREADY_EXISTS)
                if link.temporary.is_none()
                    && !link.has_cleared
                    && overwrite == Overwrite::Replace =>
            {
                link.state = State::Clearing;
            }
            (Step::MakeLink, StatusCode::FILE_ALREADY_EXISTS) if link.temporary.is_none() => {
                let path = link.task.path.clone();
                self.fail_link(key, TransferError::Exists { path }, cx);
            }
            (step, status) => {
                if step == Step::MakeLink {
                    link.temporary = None; // it was not made
                }
                let operation = match step {
                    Step::Rename => Operation::Rename,
                    Step::RemoveOld => Operation::Remove,
                    _ => Operation::Link,
                };
                let error = TransferError::Refused {
                    operation,
                    path: link.task.path.clone(),
                    status,
                    message: message_of(message),
                };
                self.fail_link(key, error, cx);
            }
        }
    }

    fn link_done(&mut self, key: Key) {
        let Some(Item::Link(link)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        self.plan.progress.finish_file();
        self.plan.report(|report| {
            report.links += 1;
            if link.has_cleared {
                let place = Place::Remote(link.task.path);
                report.remark(place, Remarkable::NotReplacedAtomically);
            }
        });
    }

    fn fail_link(&mut self, key: Key, error: TransferError, cx: &mut Cx<'_>) {
        let Some(Item::Link(link)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        let place = Place::Local(link.task.tree.path().join(&link.task.name));
        if let Some(temporary) = link.into_leftover() {
            self.undoing.push_back(Undo::Remove(temporary));
        }
        if error.ends_everything() {
            self.stop(Some(error), cx);
        } else {
            self.plan.fail(place, error);
        }
    }
}
