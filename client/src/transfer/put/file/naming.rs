//! The last steps of an upload: the temporary file gets its name.
//!
//! With `posix-rename@openssh.com` that is one step, and replaces the old file in it. Version 3
//! alone has a rename that fails if the name is taken (draft-ietf-secsh-filexfer-02 §6.5): then
//! the old file is removed first, and the report says so.

use ketch_protocol::{
    Extension, ExtensionName, FileType, PosixRename, Remove, Rename, Request, StatusCode,
};

use super::{PutFile, State};
use crate::{
    requests::{
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step},
    },
    sftp::Operation,
    transfer::{
        error::{Place, TransferError},
        options::Overwrite,
        put::{Item, Put},
        report::Remarkable,
    },
};

impl Put {
    /// Gives the file its name: in place of the old one if that is wanted and the server can.
    pub(super) fn rename(&mut self, key: Key, cx: &mut Cx<'_>) {
        let overwrite = self.options.overwrite;
        let posix = cx
            .core
            .server
            .extensions
            .contains(ExtensionName::PosixRename);
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let again = file.state == State::NamingAgain;
        if file.is_over() && !again {
            return self.let_go(key, cx);
        }
        let (from, to) = (file.temporary.as_bytes(), file.path.as_bytes());
        let request = if posix && overwrite == Overwrite::Replace {
            Request::Extended(Extension::PosixRename(PosixRename { from, to }))
        } else {
            Request::Rename(Rename { from, to })
        };
        let step = if again {
            Step::RenameAgain
        } else {
            Step::Rename
        };
        if cx.can_ask() && cx.ask(key, step, &request, Expect::Status).is_ok() {
            file.state = if again {
                State::RenamingAgain
            } else {
                State::Renaming
            };
        }
    }

    /// Removes the old file for a server that cannot replace it.
    pub(super) fn clear(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if file.is_over() {
            return self.let_go(key, cx);
        }
        let request = Request::Remove(Remove {
            path: file.path.as_bytes(),
        });
        if cx.can_ask()
            && cx
                .ask(key, Step::RemoveOld, &request, Expect::Status)
                .is_ok()
        {
            file.state = State::ClearingAsked;
        }
    }

    /// Asks whether the name is taken, after a rename that was to take a free one failed.
    pub(super) fn check(&mut self, key: Key, status: StatusCode, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if cx.can_ask() && cx.look(key, file.path.as_bytes()).is_ok() {
            file.state = State::CheckingAsked { status };
        }
    }

    /// Takes the answer to a rename, or to the removal before the second one.
    pub(super) fn on_named(
        &mut self,
        key: Key,
        step: Step,
        status: StatusCode,
        message: &[u8],
        cx: &mut Cx<'_>,
    ) {
        let overwrite = self.options.overwrite;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let posix = cx
            .core
            .server
            .extensions
            .contains(ExtensionName::PosixRename);
        match (step, status) {
            (Step::Rename, StatusCode::OK) => {
                if file.may_be_cleared {
                    // The name was free: what a lost connection was asked to remove is gone.
                    file.remarks.add(Remarkable::NotReplacedAtomically);
                }
                self.file_done(key);
            }
            (Step::RenameAgain, StatusCode::OK) => {
                file.remarks.add(Remarkable::NotReplacedAtomically);
                self.file_done(key);
            }
            // Version 3 has no status for a name that is taken; these are what servers say.
            (Step::Rename, StatusCode::FAILURE | StatusCode::FILE_ALREADY_EXISTS)
                if overwrite == Overwrite::Never =>
            {
                file.state = State::Checking { status };
            }
            // Something has the name, and whatever has it may be removed at any time.
            (Step::Rename, StatusCode::FAILURE | StatusCode::FILE_ALREADY_EXISTS)
                if file.may_be_cleared =>
            {
                self.leave_as(key, status, cx);
            }
            // Any other refusal would be given to the second rename, too: the old file stays.
            (Step::Rename, StatusCode::FAILURE | StatusCode::FILE_ALREADY_EXISTS)
                if overwrite == Overwrite::Replace && !posix =>
            {
                file.state = State::Clearing;
            }
            // What a lost connection asked for may be done late: after the look, before the rename.
            (Step::Rename, StatusCode::NO_SUCH_FILE) if file.was_found => {
                file.state = State::FindingName;
            }
            (Step::RemoveOld, StatusCode::OK) => file.state = State::NamingAgain,
            (Step::RenameAgain, status) => self.leave_as(key, status, cx),
            (_, status) => {
                let error = file.refused(Operation::Rename, status, message);
                self.fail_file(key, error, cx);
            }
        }
    }

    /// The old file is gone, or may go: what was sent is all there is, and stays under its
    /// temporary name.
    fn leave_as(&mut self, key: Key, status: StatusCode, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        file.created = false;
        let (path, temporary) = (file.path.clone(), file.temporary.clone());
        let error = TransferError::LeftAs {
            path,
            temporary,
            status,
        };
        self.fail_file(key, error, cx);
    }

    pub(super) fn file_done(&mut self, key: Key) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        if let Some(joint) = file.joint() {
            joint.hands.end();
            self.plan.remove_joint(joint);
        }
        self.plan
            .progress
            .correct_total(file.announced().unwrap_or(0), file.size);
        self.plan.progress.finish_file();
        self.plan.report(|report| {
            report.files += 1;
            report.bytes += file.size;
            report.remark_all(&Place::Remote(file.path.clone()), &file.remarks);
        });
    }
}

impl PutFile {
    /// Takes the answer to a look at the final name, before or after.
    pub(super) fn on_looked(
        &mut self,
        answer: Answer<'_>,
        overwrite: Overwrite,
    ) -> Result<(), TransferError> {
        let there = matches!(answer, Answer::Attrs(_));
        if let (State::Looking, Answer::Attrs(attrs), Overwrite::Replace) =
            (&self.state, answer, overwrite)
        {
            // A link's permissions say nothing of a file's.
            if attrs.file_type() == FileType::Regular {
                self.replaced_mode = attrs.permissions;
            }
            self.state = State::Creating;
            return Ok(());
        }
        match self.state {
            State::Looking | State::CheckingAsked { .. } if there => Err(TransferError::Exists {
                path: self.path.clone(),
            }),
            State::CheckingAsked { status } => Err(self.refused(Operation::Rename, status, b"")),
            State::Looking => {
                self.state = State::Creating;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
