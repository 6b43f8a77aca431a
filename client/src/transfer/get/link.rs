//! One link of the server being made here: where it leads is asked for, then it is made.
//!
//! `transfer/links.rs` says which links are made.

use std::{ffi::OsString, sync::Arc};

use ketch_protocol::{Readlink, RemotePath, Request, StatusCode, Times};

use super::{Get, Item, Task};
use crate::{
    platform,
    requests::{
        calls::message_of,
        job::{Answer, Cx},
        slots::Key,
        table::{Expect, Step},
    },
    sftp::Operation,
    transfer::{
        disk::Done,
        error::{Place, TransferError},
        links,
        local::Tree,
        report::WhySkipped,
    },
};

/// A link to make.
pub(crate) struct LinkTask {
    pub(super) path: RemotePath,
    pub(super) tree: Arc<Tree>,
    pub(super) name: OsString,
    /// When it was last changed and read, where that was listed.
    pub(super) times: Option<Times>,
}

/// A link being made.
pub(super) struct GetLink {
    task: LinkTask,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    New,
    /// READLINK was sent.
    Asked,
    Making,
}

impl GetLink {
    /// The connection is lost: it is begun anew, by whoever comes next.
    pub(super) fn into_task(self) -> Task {
        Task::Link(self.task)
    }
}

impl Get {
    /// Begins a link.
    pub(super) fn begin_link(&mut self, task: LinkTask) {
        let state = State::New;
        let link = Item::Link(Box::new(GetLink { task, state }));
        if self.items.insert(link).is_some() {
            self.files += 1;
        }
    }

    /// Asks where a link leads.
    pub(super) fn advance_link(&mut self, key: Key, cx: &mut Cx<'_>) {
        let Some(Item::Link(link)) = self.items.get_mut(key) else {
            return;
        };
        let request = Request::Readlink(Readlink {
            path: link.task.path.as_bytes(),
        });
        if link.state == State::New
            && cx.can_ask()
            && cx.ask(key, Step::ReadLink, &request, Expect::Name).is_ok()
        {
            link.state = State::Asked;
        }
    }

    /// Takes what the server answered about a link.
    pub(super) fn on_link_answer(&mut self, key: Key, answer: Answer<'_>, cx: &mut Cx<'_>) {
        let overwrite = self.options.overwrite;
        let with_times = self.options.preserve.times;
        let Some(Item::Link(link)) = self.items.get_mut(key) else {
            return;
        };
        let refused = |status, message| TransferError::Refused {
            operation: Operation::ReadLink,
            path: link.task.path.clone(),
            status,
            message: message_of(message),
        };
        let target = match answer {
            Answer::Names(names) => match names.into_iter().next() {
                Some(entry) => entry.filename.to_vec(),
                None => {
                    let error = refused(StatusCode::BAD_MESSAGE, b"");
                    return self.fail_link(key, error, cx);
                }
            },
            Answer::Status(status, message) => {
                let error = refused(status, message);
                return self.fail_link(key, error, cx);
            }
            _ => return,
        };
        let tree = Arc::clone(&link.task.tree);
        let stays = links::stays_within(&target, tree.depth());
        let (true, Some(target)) = (stays, platform::local_name(&target)) else {
            let place = Place::Remote(link.task.path.clone());
            self.plan
                .report(|report| report.skip_link(place, WhySkipped::LeadsOut));
            return self.end_link(key);
        };
        link.state = State::Making;
        let (name, times) = (link.task.name.clone(), link.task.times);
        let times = times.filter(|_| with_times);
        let speed = Arc::clone(tree.speed());
        let make = move || Done::Named(tree.make_link(&name, &target, overwrite, times));
        match cx.core.disk.run(&speed, (cx.job, key), make) {
            Some(done) => self.on_link_done(key, done, cx),
            None => self.at_disk += 1,
        }
    }

    /// Takes what came of work on the disk for a link.
    pub(super) fn on_link_done(&mut self, key: Key, done: Done, cx: &mut Cx<'_>) {
        match done {
            Done::Named(Ok(())) => {
                self.plan.report(|report| report.links += 1);
                self.end_link(key);
            }
            Done::Named(Err(fault)) => self.fail_link(key, fault.into(), cx),
            Done::Panicked => self.fail_link(key, TransferError::Panicked, cx),
            _ => {}
        }
    }

    fn end_link(&mut self, key: Key) {
        if self.items.remove(key).is_some() {
            self.files -= 1;
            self.plan.progress.finish_file();
        }
    }

    fn fail_link(&mut self, key: Key, error: TransferError, cx: &mut Cx<'_>) {
        let Some(Item::Link(link)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        if error.ends_everything() {
            self.stop(Some(error), cx);
        } else {
            self.plan.fail(Place::Remote(link.task.path), error);
        }
    }
}
