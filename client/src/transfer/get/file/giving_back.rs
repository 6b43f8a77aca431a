//! What is left of a download when its connection is lost, or nobody wants it any more.

use std::sync::Arc;

use super::{GetFile, State, Target};
use crate::{
    requests::{job::Cx, slots::Key, table::What},
    transfer::{
        disk::Done,
        download::Download,
        get::{Closing, FileTask, Get, Known, joint::Joint},
        hands::{Hands, Hold, Left},
        plan::Plan,
        ranges::Span,
    },
};

impl Get {
    /// Takes back what was done for a file that will not be whole.
    pub(in crate::transfer::get) fn discard(&mut self, key: Key, file: GetFile, cx: &mut Cx<'_>) {
        let is_last = match file.joint() {
            Some(joint) => {
                let is_news = joint.hands.end();
                self.plan.remove_joint(joint);
                let is_last = joint.hands.leave([], 0) == Left::Orphan;
                if is_news {
                    self.plan.wake_workers(); // the others let go of it
                }
                is_last
            }
            None => true,
        };
        if let (true, Some(Target::Sink(sink))) = (is_last, &file.target) {
            let sink = Arc::clone(sink);
            self.at_disk += 1;
            cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                sink.sink.abort();
                Done::Removed
            });
        }
        self.discard_left(key, file, cx);
    }

    /// Closes what this channel has of a file; the local file goes if nobody else has it.
    pub(super) fn discard_left(&mut self, key: Key, mut file: GetFile, cx: &mut Cx<'_>) {
        match file.handle.take() {
            Some(handle) => self.closing.push_back(Closing::File(handle)),
            None => cx.orphan(key, None),
        }
        if let Some(Target::File(_, tree)) = &file.target {
            let tree = Arc::clone(tree);
            let work = move || {
                drop(file);
                Done::Removed
            };
            if cx
                .core
                .disk
                .run(tree.speed(), (cx.job, key), work)
                .is_none()
            {
                self.at_disk += 1;
            }
        }
    }

    /// Has a file begun anew, by whoever comes next.
    pub(super) fn begin_anew(&self, file: &GetFile) {
        let local = match &file.hold {
            Hold::Joint(joint) => joint.local(),
            Hold::Alone(_) => file.local.clone(),
        };
        self.plan
            .progress
            .correct_total(file.size().unwrap_or(0), 0);
        self.plan.give_back_file(FileTask {
            path: file.path.clone(),
            known: if file.depth == 0 {
                Known::Nothing
            } else {
                Known::Listed
            },
            local,
            depth: file.depth,
        });
    }
}

impl GetFile {
    /// A request about it will not be answered.
    pub(in crate::transfer::get) fn on_lost(&mut self, what: What) {
        if let (What::Read(ask, _), Some(download)) = (what, &mut self.download) {
            download.on_unsent(ask);
        }
    }

    /// Bytes that came will not be written.
    pub(in crate::transfer::get) fn on_unwritten(&mut self, span: Span) {
        if let Some(download) = &mut self.download {
            download.on_lost(span);
        }
    }

    /// The connection is lost, and there is no other: leaves no trace here.
    pub(in crate::transfer::get) fn abandon(self) {
        let is_last = match self.joint() {
            Some(joint) => joint.hands.leave([], 0) == Left::Orphan,
            None => true,
        };
        if let (true, Some(Target::Sink(sink))) = (is_last, &self.target) {
            sink.sink.abort();
        }
    }

    /// The connection is lost: what has come stays, what has not goes back to the plan.
    pub(in crate::transfer::get) fn give_back(mut self, plan: &Plan<super::super::Down>) {
        let writing = std::mem::take(&mut self.writing);
        match (&self.hold, self.state) {
            (Hold::Joint(joint), State::Naming { size }) => {
                joint.hands.set_whole(size);
                joint.hands.leave([], 0);
            }
            (Hold::Joint(joint), _) => {
                let highest = self.download.as_ref().map_or(0, Download::highest);
                let rest = self.download.as_mut().map(Download::give_back);
                joint
                    .hands
                    .leave(rest.into_iter().flatten().chain(writing), highest);
            }
            (Hold::Alone(_), State::Naming { size }) => {
                // It may have its name already: it is not begun again.
                let (Some(target), Some(attrs)) = (self.target, self.attrs) else {
                    return;
                };
                plan.add_joint(&Arc::new(Joint {
                    path: self.path,
                    attrs,
                    depth: self.depth,
                    target,
                    hands: Hands::unnamed(size),
                }));
            }
            (Hold::Alone(_), _) => {
                plan.progress.take_back(self.came);
                if let Some(counted) = self.counted {
                    plan.progress.correct_total(counted, 0);
                }
                let known = match self.known {
                    Known::Attrs(_) if self.counted.is_some() && self.depth == 0 => Known::Nothing,
                    Known::Attrs(_) if self.counted.is_some() => Known::Listed,
                    known => known,
                };
                plan.give_back_file(FileTask {
                    path: self.path,
                    known,
                    local: self.local,
                    depth: self.depth,
                });
            }
        }
    }
}
