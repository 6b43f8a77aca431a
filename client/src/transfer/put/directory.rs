//! One directory being uploaded: created there, listed here.
//!
//! What is below it is begun when the server has said that it is there: requests about different
//! paths may be carried out in any order.

use std::{path::PathBuf, sync::Arc};

use ketch_protocol::{FileType, Mkdir, RemotePath, Request, Stat, StatusCode, WireAttrs};

use super::{DIRS_MAX, FileTask, Item, LinkTask, Put, Task, file::From};
use crate::{
    platform::{self, LocalEntry, LocalLink},
    requests::{
        calls::message_of,
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step, What},
    },
    sftp::Operation,
    transfer::{
        disk::Done,
        error::{Place, TransferError},
        local::{LocalAction, SourceFile, Tree},
        names::NameFault,
        plan::DEPTH_MAX,
        report::Remarkable,
        report::WhySkipped,
    },
};

/// A directory to upload.
pub(crate) struct DirTask {
    from: Root,
    pub(super) path: RemotePath,
    depth: u8,
}

enum Root {
    /// The user named it; it may turn out to be a file.
    Named(PathBuf),
    Found(Arc<Tree>),
}

impl DirTask {
    /// The directory that the user named.
    pub(crate) const fn named(local: PathBuf, path: RemotePath) -> Self {
        Self {
            from: Root::Named(local),
            path,
            depth: 0,
        }
    }
}

/// A directory being uploaded.
pub(super) struct PutDir {
    from: Root,
    path: RemotePath,
    depth: u8,
    state: State,
}

impl PutDir {
    /// The connection is lost: nothing of it was begun that could not be begun again.
    pub(super) fn into_task(self) -> DirTask {
        DirTask {
            from: self.from,
            path: self.path,
            depth: self.depth,
        }
    }
}

/// What the server said when the directory was to be made.
#[derive(Clone)]
struct Refusal {
    status: StatusCode,
    message: Box<[u8]>,
}

enum State {
    /// The local directory is to be opened.
    New,
    Opening,
    /// The remote directory is to be created.
    Making,
    MakingAsked,
    /// It was refused: is there a directory of the name already?
    Looking {
        refusal: Refusal,
    },
    LookingAsked {
        refusal: Refusal,
    },
    /// The local directory is to be listed; the remote one was made for it, or was there.
    There {
        is_new: bool,
    },
    Listing {
        is_new: bool,
    },
}

impl Put {
    /// Begins directories as long as there is room for what they hold.
    pub(super) fn begin_dirs(&mut self, cx: &mut Cx<'_>) {
        while self.dirs < DIRS_MAX && cx.can_ask() {
            let Some(DirTask { from, path, depth }) = self.plan.take_dir() else {
                return;
            };
            let state = match from {
                Root::Named(_) => State::New,
                Root::Found(_) => State::Making,
            };
            let dir = PutDir {
                from,
                path,
                depth,
                state,
            };
            if self.insert(Item::Dir(Box::new(dir))) {
                self.dirs += 1;
            }
        }
    }

    /// Does what a directory needs next.
    pub(super) fn advance_dir(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::Dir(dir)) = self.items.get_mut(key) else {
            return;
        };
        match (&dir.state, &dir.from) {
            (State::New, Root::Named(path)) => {
                let (path, shared) = (path.clone(), Arc::clone(&self.shared));
                self.at_disk += 1;
                cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                    Done::Rooted(Tree::open_root(&path, &shared.speeds))
                });
                dir.state = State::Opening;
            }
            (State::Making, _) => {
                let attrs = WireAttrs::default();
                let request = Request::Mkdir(Mkdir {
                    path: dir.path.as_bytes(),
                    attrs,
                });
                if cx.can_ask() && cx.ask(key, Step::MakeDir, &request, Expect::Status).is_ok() {
                    dir.state = State::MakingAsked;
                }
            }
            (State::Looking { refusal }, _) => {
                let refusal = refusal.clone();
                let request = Request::Stat(Stat {
                    path: dir.path.as_bytes(),
                });
                if cx.can_ask() && cx.ask(key, Step::Stat, &request, Expect::Attrs).is_ok() {
                    dir.state = State::LookingAsked { refusal };
                }
            }
            (&State::There { is_new }, Root::Found(tree)) => {
                let (tree, links) = (Arc::clone(tree), self.options.links);
                let (endings, path) = (Arc::clone(&self.plan.endings), dir.path.clone());
                let preserve = self.options.preserve;
                let plan = Arc::clone(&self.plan);
                self.at_disk += 1;
                cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                    if !tree.ends_there(&endings, path.clone(), preserve) {
                        let (place, what) = (Place::Remote(path), Remarkable::TimesOutOfRange);
                        plan.report(|report| report.remark(place, what));
                    }
                    Done::Listed(tree.list(links))
                });
                dir.state = State::Listing { is_new };
            }
            _ => {}
        }
    }

    /// Takes what the server answered about a directory.
    pub(super) fn on_dir_answer(
        &mut self,
        key: Key,
        what: What,
        answer: Answer<'_>,
        cx: &mut Cx<'_>,
    ) {
        let Some(Item::Dir(dir)) = self.items.get_mut(key) else {
            return;
        };
        let refused = |path: &RemotePath, status, message| TransferError::Refused {
            operation: Operation::CreateDir,
            path: path.clone(),
            status,
            message: message_of(message),
        };
        match (what, answer, &dir.state) {
            (What::Step(Step::MakeDir), Answer::Status(StatusCode::OK, _), _) => {
                dir.state = State::There { is_new: true };
            }
            // Version 3 has no status for a name that is taken; some servers check permissions
            // first.
            (What::Step(Step::MakeDir), Answer::Status(status, message), _) => {
                let message = message.into();
                let refusal = Refusal { status, message };
                dir.state = State::Looking { refusal };
            }
            (What::Step(Step::Stat), Answer::Attrs(attrs), State::LookingAsked { refusal }) => {
                if matches!(attrs.file_type(), FileType::Directory | FileType::Unknown) {
                    dir.state = State::There { is_new: false };
                } else {
                    let why = b"something else has its name";
                    let error = refused(&dir.path, refusal.status, why);
                    self.fail_dir(key, error, cx);
                }
            }
            (
                What::Step(Step::Stat),
                Answer::Status(status, message),
                State::LookingAsked { refusal },
            ) => {
                // That it is not there is no news; that it must not be looked at may be the reason.
                let is_reason = refusal.status == StatusCode::FAILURE
                    && status == StatusCode::PERMISSION_DENIED;
                let error = if is_reason {
                    refused(&dir.path, status, message)
                } else {
                    refused(&dir.path, refusal.status, &refusal.message)
                };
                self.fail_dir(key, error, cx);
            }
            _ => {}
        }
    }

    fn fail_dir(&mut self, key: Key, error: TransferError, cx: &mut Cx<'_>) {
        let Some(Item::Dir(dir)) = self.items.remove(key) else {
            return;
        };
        self.dirs -= 1;
        let place = match &dir.from {
            Root::Named(path) => Place::Local(path.clone()),
            Root::Found(tree) => Place::Local(tree.path().to_owned()),
        };
        if error.ends_everything() {
            self.stop(Some(error), cx);
        } else {
            self.plan.fail(place, error);
        }
    }

    /// Takes what came of work on the disk for a directory.
    pub(super) fn on_dir_done(&mut self, key: Key, done: Done, cx: &mut Cx<'_>) {
        let Some(Item::Dir(dir)) = self.items.get_mut(key) else {
            return;
        };
        match done {
            Done::Rooted(Ok(tree)) => {
                dir.from = Root::Found(tree);
                dir.state = State::Making;
            }
            Done::Rooted(Err(fault))
                if fault.source.kind() == std::io::ErrorKind::NotADirectory =>
            {
                // A plain file after all.
                let Some(Item::Dir(dir)) = self.items.remove(key) else {
                    return;
                };
                self.dirs -= 1;
                if let Root::Named(local) = dir.from {
                    let from = From::File(SourceFile::Named(local));
                    self.plan.add_file(FileTask::new(from, dir.path), 0);
                }
            }
            Done::Listed(Ok(entries)) => {
                let Some(Item::Dir(dir)) = self.items.remove(key) else {
                    return;
                };
                self.dirs -= 1;
                self.plan.report(|report| report.directories += 1);
                let is_new = matches!(dir.state, State::Listing { is_new: true });
                if let Root::Found(tree) = &dir.from {
                    let at = (&dir.path, is_new);
                    for entry in entries {
                        if let Err(limit) = self.plan.count_entry() {
                            let path = dir.path.clone();
                            return self.stop(Some(TransferError::TooMuch { path, limit }), cx);
                        }
                        self.on_entry(tree, at, dir.depth + 1, entry);
                    }
                }
            }
            Done::Rooted(Err(fault)) | Done::Listed(Err(fault)) => {
                self.fail_dir(key, fault.into(), cx);
            }
            Done::Panicked => self.fail_dir(key, TransferError::Panicked, cx),
            _ => {}
        }
    }

    /// Takes an entry of a directory that goes to `above`, which may have been made for it.
    fn on_entry(
        &mut self,
        tree: &Arc<Tree>,
        (above, is_new): (&RemotePath, bool),
        depth: u8,
        entry: LocalEntry,
    ) {
        let place = Place::Local(tree.path().join(&entry.name));
        let Some(name) = platform::remote_name(&entry.name) else {
            let fault = NameFault::NotHere;
            return self.plan.fail(
                place,
                TransferError::Name {
                    path: above.clone(),
                    fault,
                },
            );
        };
        let LocalEntry {
            name: local,
            metadata,
            link,
        } = entry;
        let (metadata, is_linked) = match &link {
            Some(LocalLink::Leads(Ok(found))) => (found, true),
            _ => (&metadata, false),
        };
        let is_directory = metadata.is_dir();
        if let Some(filter) = &self.options.filter
            && !filter.admits(&tree.relative(&local), is_directory)
        {
            return self.plan.report(|report| report.excluded += 1);
        }
        let path = above.join(name);
        let why = match &link {
            Some(LocalLink::Leads(Err(error))) if platform::leads_nowhere(error) => {
                Some(WhySkipped::LeadsNowhere)
            }
            Some(LocalLink::LeadsBack) => Some(WhySkipped::LeadsBack),
            _ => None,
        };
        if let Some(why) = why {
            return self.plan.report(|report| report.skip_link(place, why));
        }
        match link {
            Some(LocalLink::Leads(Err(source)) | LocalLink::To(Err(source))) => {
                let error = TransferError::Local {
                    action: LocalAction::Open,
                    path: tree.path().join(&local),
                    source,
                };
                return self.plan.fail(place, error);
            }
            Some(LocalLink::To(Ok(target))) => {
                let Some(target) = platform::remote_name(&target) else {
                    let fault = NameFault::NotHere;
                    return self.plan.fail(place, TransferError::Name { path, fault });
                };
                let task = LinkTask {
                    tree: Arc::clone(tree),
                    name: local,
                    target,
                    path,
                };
                return self.plan.add_file(Task::Link(task), 0);
            }
            _ => {}
        }
        match platform::file_type(metadata) {
            FileType::Directory if depth > DEPTH_MAX => {
                let limit = "64 directories below each other";
                self.plan
                    .fail(place, TransferError::TooMuch { path, limit });
            }
            FileType::Directory => {
                let from = Root::Found(match is_linked {
                    true => tree.linked_child(local),
                    false => tree.child(local),
                });
                self.plan.add_dir(DirTask { from, path, depth });
            }
            FileType::Regular => {
                let from = From::File(match is_linked {
                    true => SourceFile::Linked(Arc::clone(tree), local),
                    false => SourceFile::Found(Arc::clone(tree), local),
                });
                let task = FileTask {
                    is_dir_new: is_new,
                    listed: Some(metadata.len()),
                    ..FileTask::new(from, path)
                };
                self.plan.add_file(task, metadata.len());
            }
            file_type => self.plan.report(|report| report.skip(place, file_type)),
        }
    }
}
