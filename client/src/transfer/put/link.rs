//! One local link being made on the server.
//!
//! Where it may take the place of something, the link is made under a temporary name first: a
//! server that makes no links, or has no room for one, says so before anything was removed. With
//! `posix-rename@openssh.com` it then replaces what was there in one step. Version 3 alone has a
//! rename that fails if the name is taken (draft-ietf-secsh-filexfer-02 §6.5): then what has the
//! name is removed, and the report says so.

use std::{ffi::OsString, sync::Arc};

use ketch_protocol::{
    Extension, ExtensionName, PosixRename, RemotePath, Remove, Rename, Request, StatusCode, Symlink,
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
    /// The name under which it is made first, from when that was asked for.
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
    /// The server does not replace: what has its name is to be removed.
    Clearing,
    ClearingAsked,
    /// The name is free: the rename is to be sent again.
    NamingAgain,
    RenamingAgain,
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
        match self.temporary {
            // The server may come to it when it was already seen not to be there.
            Some(temporary) if self.state == State::MakingAsked => plan.add_doubtful(temporary),
            Some(temporary) => plan.add_leftover(temporary),
            None => {}
        }
        plan.give_back_file(Task::Link(self.task));
    }

    /// Whether SYMLINK is not answered yet.
    pub(super) fn is_being_made(&self) -> bool {
        self.state == State::MakingAsked
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
        if self.insert(link) {
            self.files += 1;
        }
    }

    /// Asks for what a link needs next.
    pub(super) fn advance_link(&mut self, key: Key, cx: &mut Cx<'_>) {
        let extensions = cx.core.server.extensions;
        let posix = extensions.contains(ExtensionName::PosixRename);
        let replaces = self.options.overwrite == Overwrite::Replace;
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
                // What must not be replaced is safe: SYMLINK takes free names only.
                let temporary = if replaces { link.temporary() } else { None };
                let name = temporary.as_ref().map_or(path, RemotePath::as_bytes);
                let request = Request::Symlink(Symlink {
                    target: &link.task.target,
                    link: name,
                    order,
                });
                if cx
                    .ask(key, Step::MakeLink, &request, Expect::Status)
                    .is_ok()
                {
                    link.temporary = temporary;
                    link.state = State::MakingAsked;
                }
            }
            State::Made | State::NamingAgain => {
                let Some(temporary) = &link.temporary else {
                    return;
                };
                let from = temporary.as_bytes();
                let to = path;
                let request = if posix {
                    Request::Extended(Extension::PosixRename(PosixRename { from, to }))
                } else {
                    Request::Rename(Rename { from, to })
                };
                let (step, next) = if link.state == State::Made {
                    (Step::Rename, State::RenamingAsked)
                } else {
                    (Step::RenameAgain, State::RenamingAgain)
                };
                if cx.ask(key, step, &request, Expect::Status).is_ok() {
                    link.state = next;
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
            State::MakingAsked
            | State::RenamingAsked
            | State::ClearingAsked
            | State::RenamingAgain => {}
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
        let extensions = cx.core.server.extensions;
        let posix = extensions.contains(ExtensionName::PosixRename);
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
            (Step::MakeLink | Step::Rename | Step::RenameAgain, StatusCode::OK) => {
                self.link_done(key);
            }
            // Version 3 has no status for a name that is taken; these are what servers say. Any
            // other refusal would be given to the second rename, too: what is there stays.
            (Step::Rename, StatusCode::FAILURE | StatusCode::FILE_ALREADY_EXISTS) if !posix => {
                link.state = State::Clearing;
            }
            (Step::RemoveOld, StatusCode::OK) => {
                link.has_cleared = true;
                link.state = State::NamingAgain;
            }
            // Nothing had the name: why it cannot be had, only the rename can say.
            (Step::RemoveOld, StatusCode::NO_SUCH_FILE) => link.state = State::NamingAgain,
            (Step::MakeLink, StatusCode::FILE_ALREADY_EXISTS) if link.temporary.is_none() => {
                let path = link.task.path.clone();
                self.fail_link(key, TransferError::Exists { path }, cx);
            }
            (step, status) => {
                if step == Step::MakeLink {
                    link.temporary = None; // it was not made
                }
                let operation = match step {
                    Step::Rename | Step::RenameAgain => Operation::Rename,
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
        self.plan.report(|report| report.links += 1);
        self.say_cleared(&link);
    }

    /// Tells of what was removed to make room for a link, whether or not that has got its name.
    fn say_cleared(&self, link: &PutLink) {
        if link.has_cleared {
            let place = Place::Remote(link.task.path.clone());
            self.plan
                .report(|report| report.remark(place, Remarkable::NotReplacedAtomically));
        }
    }

    fn fail_link(&mut self, key: Key, error: TransferError, cx: &mut Cx<'_>) {
        let Some(Item::Link(link)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        self.say_cleared(&link);
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
