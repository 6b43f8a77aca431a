//! The first steps of a download: the server is asked what the file is, and to open it; or it is
//! opened once more, where others have begun it.

use std::sync::Arc;

use ketch_protocol::{Attrs, FileType, Fstat, Open, OpenFlags, Request, Stat, WireAttrs};

use super::State;
use crate::{
    requests::{
        job::Cx,
        slots::Key,
        table::{Expect, Step as Asked},
    },
    transfer::{
        disk::Done,
        error::{Place, TransferError},
        get::{Get, Item, Known, Local, is_left_out},
        hands::{Hold, Left},
        local::Tree,
        ranges::Ranges,
    },
};

impl Get {
    /// Asks what the file is, and has it opened in the same breath where that does no harm.
    pub(super) fn ask_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let recursive = self.options.recursive;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if !cx.can_ask() {
            return;
        }
        let path = file.path.as_bytes();
        let asked = match file.known {
            Known::Attrs(_) => {
                file.state = State::Known;
                return;
            }
            Known::Nothing | Known::Linked => {
                let request = Request::Stat(Stat { path });
                cx.ask(key, Asked::Stat, &request, Expect::Attrs)
            }
            Known::Listed => cx.look(key, path),
        };
        if asked.is_err() {
            return;
        }
        let open = !recursive
            && cx.core.may_open()
            && cx
                .ask(key, Asked::Open, &open_request(path), Expect::Handle)
                .is_ok();
        file.state = State::Asked { stat: true, open };
    }

    /// Decides what to do with what the server said the file is.
    pub(super) fn look_at_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        let file_type = file
            .attrs
            .map_or(FileType::Unknown, |attrs| attrs.file_type());
        if matches!(file.known, Known::Listed | Known::Linked) && !self.admits_found(key, file_type)
        {
            return;
        }
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if file_type == FileType::Directory && self.options.recursive {
            self.turn_into_dir(key, cx);
            return;
        }
        if is_left_out(file_type) && matches!(file.known, Known::Listed | Known::Linked) {
            let place = Place::Remote(file.path.clone());
            self.plan.report(|report| report.skip(place, file_type));
            self.items.remove(key);
            self.files -= 1;
            self.plan.progress.forget_file();
            return;
        }
        if file_type == FileType::Directory || is_left_out(file_type) {
            let error = TransferError::NotAFile {
                path: file.path.clone(),
                file_type,
            };
            self.fail_file(key, error, cx);
            return;
        }
        let size = file.size();
        if !matches!(file.known, Known::Attrs(_)) {
            file.hold = Hold::Alone(Ranges::new(size));
            file.counted = Some(size.unwrap_or(0));
            self.plan.progress.correct_total(0, size.unwrap_or(0));
        }
        file.state = if file.handle.is_some() {
            State::Opened
        } else {
            State::Known
        };
        if self.options.recursive && matches!(file.local, Local::Named(_)) {
            // A plain file after all: its directory is still to be opened.
            let Local::Named(path) = &file.local else {
                return;
            };
            let (path, shared) = (path.clone(), Arc::clone(&self.shared));
            self.at_disk += 1;
            cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                let parent = path.parent().unwrap_or(&path);
                Done::Rooted(Tree::open_root(parent, &shared.speeds))
            });
        }
    }

    pub(super) fn open_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if cx.can_ask()
            && cx.core.may_open()
            && cx
                .ask(
                    key,
                    Asked::Open,
                    &open_request(file.path.as_bytes()),
                    Expect::Handle,
                )
                .is_ok()
        {
            file.known = Known::Attrs(file.attrs.unwrap_or_default());
            file.state = State::Asked {
                stat: false,
                open: true,
            };
        }
    }

    /// Opens a file that others have begun, and looks whether it is the one that they read.
    pub(super) fn join_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return;
        };
        if !cx.can_ask() || (file.handle.is_none() && !cx.core.may_open()) {
            return;
        }
        match &file.handle {
            None => {
                let request = open_request(file.path.as_bytes());
                if cx.ask(key, Asked::Open, &request, Expect::Handle).is_ok() {
                    file.state = State::JoiningAsked;
                }
            }
            Some(handle) => {
                let request = Request::Fstat(Fstat { handle });
                if cx.ask(key, Asked::Fstat, &request, Expect::Attrs).is_ok() {
                    file.state = State::MatchingAsked;
                }
            }
        }
    }

    /// Leaves a file to those who have it; where nobody has, it is begun anew.
    pub(super) fn leave_file(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        if let Some(joint) = file.joint() {
            if joint.hands.is_over() {
                return self.discard(key, *file, cx);
            }
            joint.hands.stay_alone();
            // What it leaves is for nobody: the file is begun anew, or others have it.
            if joint.hands.leave([], 0) == Left::Orphan && joint.hands.end() {
                self.plan.remove_joint(joint);
                self.plan.progress.take_back(joint.came());
                self.begin_anew(&file);
            }
        }
        self.discard_left(key, *file, cx);
    }

    /// What was thought a file is a directory.
    pub(super) fn turn_into_dir(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        self.plan.progress.forget_file();
        let is_linked = matches!(file.known, Known::Linked);
        let attrs = file.attrs.unwrap_or_default();
        self.found_dir(file.path, file.local, (file.depth, is_linked, attrs), cx);
    }
}

fn open_request(path: &[u8]) -> Request<'_> {
    Request::Open(Open {
        path,
        flags: OpenFlags::READ,
        attrs: WireAttrs::default(),
    })
}

/// Whether that is the same version of a file, as far as the server tells.
pub(super) fn is_same(known: &Attrs, now: &Attrs) -> bool {
    let mtime = |attrs: &Attrs| attrs.times.map(|times| times.mtime);
    known.size == now.size && mtime(known) == mtime(now)
}
