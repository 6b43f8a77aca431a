//! Downloads: works a plan of remote files off over one SFTP channel.
//!
//! Opens, reads, local creations and names of different files overlap; bytes in flight follow the
//! pace of the connection. What happens to one file is in `get/file.rs`, to one directory in
//! `get/directory.rs`; here is what they share: who is begun when, who may read, how all ends.

mod directory;
mod file;
mod joint;
mod link;
mod task;

use std::{collections::VecDeque, io::IoSlice, sync::Arc, time::Instant};

use ketch_protocol::{Close, FileType, RemotePath, Request};

use self::task::{FileTask, Known, Local, Task};
pub(crate) use self::task::{Found, start_all, start_found, start_to_path, start_to_sink};
use self::{
    directory::{DirScan, DirTask},
    file::{GetFile, Target},
    joint::Joint,
    link::{GetLink, LinkTask},
};
use super::{
    chunk::Chunk,
    control::Priority,
    crew::Direction,
    disk::{Disk, Done, HELD_MAX},
    error::{Place, TransferError},
    options::{GetOptions, Streams},
    pace::FAR,
    plan::{Orders, Plan, Rest, Taken, Work},
    ranges::Span,
    rate::Meter,
};
use crate::{
    error,
    requests::{
        calls::{Ended, Shared, Submission},
        job::{Answer, Cx, Job, Progress},
        slots::{Key, Slots},
        table::{Step, What},
    },
    sftp::Sftp,
};

/// Files under way at a time on a short path, and on a long one.
const FILES_MAX: usize = 128;
const FILES_MAX_FAR: usize = 512;
/// Directories being read at a time on a short path, and on a long one.
const DIRS_MAX: usize = 8;
const DIRS_MAX_FAR: usize = 64;
/// READs are asked for when so much of the budget is free, not for every answer one by one.
const REFILL_LOT: usize = 1024 * 1024;
/// Bytes asked for of one file, after which the shortest round trip is no chance any more.
const SURE_LEN: u64 = 16 * 1024 * 1024;
/// READs in a row for one file before the next has its turn.
const READS_IN_A_ROW: usize = 8;

/// What downloads are made of.
#[derive(Debug)]
pub(crate) struct Down;

impl Work for Down {
    type File = Task;
    type Dir = DirTask;
    type Joint = Joint;
    type Options = GetOptions;
    const DIRECTION: Direction = Direction::Down;

    fn streams(options: &GetOptions) -> Streams {
        options.streams
    }

    fn path_of_file(task: &Task) -> &RemotePath {
        match task {
            Task::File(file) => &file.path,
            Task::Link(link) => &link.path,
        }
    }

    fn path_of_dir(dir: &DirTask) -> &RemotePath {
        &dir.path
    }

    fn worker(
        plan: &Arc<Plan<Self>>,
        options: &GetOptions,
        shared: &Arc<Shared>,
        connection: Option<Sftp>,
    ) -> Box<dyn Job> {
        let (id, orders) = plan.join(shared);
        Box::new(Get {
            id,
            orders,
            plan: Arc::clone(plan),
            options: options.clone(),
            shared: Arc::clone(shared),
            _connection: connection,
            meter: options.limit.as_ref().map(Meter::new),
            limited_until: None,
            items: Slots::new(),
            files: 0,
            dirs: 0,
            turn: 0,
            chunk: None,
            closing: VecDeque::new(),
            at_disk: 0,
            has_told: false,
        })
    }
}

/// A worker of a download, on one channel.
pub(crate) struct Get {
    plan: Arc<Plan<Down>>,
    /// What the plan knows it as, and tells it.
    id: u32,
    orders: Orders,
    options: GetOptions,
    shared: Arc<Shared>,
    /// Lives as long as there is something to do on it.
    _connection: Option<Sftp>,
    meter: Option<Meter>,
    /// When the limit admits more.
    limited_until: Option<Instant>,
    items: Slots<Item>,
    /// Files and directories under way.
    files: usize,
    dirs: usize,
    /// The slot whose turn it is to read.
    turn: usize,
    /// What the server was seen to answer whole.
    chunk: Option<Chunk>,
    /// Handles that are no longer needed.
    closing: VecDeque<Closing>,
    /// Pieces of work on threads.
    at_disk: usize,
    /// The crew knows how long the path is.
    has_told: bool,
}

enum Item {
    File(Box<GetFile>),
    Link(Box<GetLink>),
    Dir(Box<DirScan>),
}

/// A handle that is no longer needed.
enum Closing {
    File(Box<[u8]>),
    Dir(Box<[u8]>),
}

impl Get {
    /// Begins files as long as the bytes they hold do not fill the budget.
    fn begin_files(&mut self, cx: &mut Cx<'_>) {
        let far = cx.core.down.min_rtt().is_some_and(|rtt| rtt >= FAR);
        let files_max = cx
            .core
            .open_max(if far { FILES_MAX_FAR } else { FILES_MAX });
        let files_max = cx.core.turn.share_of(files_max);
        let budget = cx.core.turn.share_of(cx.core.down.budget()) as u64;
        let left = self.files().map(|file| file.left_to_ask());
        // Sizes are the other side's: together they need not fit into a number.
        let mut backlog = left.fold(0, u64::saturating_add);
        while self.files + self.closing.len() < files_max && backlog < budget && cx.can_ask() {
            let is_mine = |joint: &Arc<Joint>| {
                let mut joints = self.files().filter_map(GetFile::joint);
                joints.any(|mine| Arc::ptr_eq(mine, joint))
            };
            let file = match self.plan.take(is_mine) {
                Some(Taken::File(Task::File(task))) => GetFile::new(task),
                Some(Taken::File(Task::Link(task))) => {
                    self.begin_link(task);
                    continue;
                }
                Some(Taken::Joint(joint)) if joint.hands.take() => GetFile::join(joint),
                // Somebody was quicker, or it is done: there may be others.
                Some(Taken::Joint(_)) => continue,
                None => return,
            };
            backlog = backlog.saturating_add(file.left_to_ask());
            if let Some(key) = self.items.insert(Item::File(Box::new(file))) {
                self.files += 1;
                self.begin_local(key, cx);
            }
        }
    }

    fn files(&self) -> impl Iterator<Item = &GetFile> {
        self.items.iter().filter_map(|item| match item {
            Item::File(file) => Some(&**file),
            Item::Link(_) | Item::Dir(_) => None,
        })
    }

    /// Closes the handles that are no longer needed; nobody waits for the answers.
    fn close_handles(&mut self, cx: &mut Cx<'_>) {
        while let Some(closing) = self.closing.pop_front() {
            let sent = cx.can_ask()
                && match &closing {
                    Closing::File(handle) => cx.close_file(handle).is_ok(),
                    Closing::Dir(handle) => cx.tell(&Request::Close(Close { handle })).is_ok(),
                };
            if !sent {
                return self.closing.push_front(closing);
            }
        }
    }

    /// Moves every file and directory on as far as it goes.
    fn advance(&mut self, cx: &mut Cx<'_>) {
        for index in 0..self.items.span() {
            let Some(key) = self.items.key_at(index) else {
                continue;
            };
            match self.items.get_mut(key) {
                Some(Item::File(_)) => self.advance_file(key, cx),
                Some(Item::Link(_)) => self.advance_link(key, cx),
                Some(Item::Dir(_)) => self.advance_dir(key, cx),
                None => {}
            }
        }
    }

    /// Asks for bytes, file by file in turn, as long as the budget lasts.
    fn read(&mut self, cx: &mut Cx<'_>) {
        self.limited_until = None;
        let lot = REFILL_LOT.min(cx.core.down.budget() / 2);
        let is_little = cx.core.down.available() < lot && cx.core.down.in_flight() > 0;
        if is_little && cx.core.turn.is_first {
            cx.core.down.on_limited();
            return;
        }
        let span = self.items.span();
        let mut idle = 0; // slots in a row that wanted nothing
        while idle < span {
            let index = self.turn % span;
            let mut asked = 0;
            if let Some(key) = self.items.key_at(index) {
                while asked < READS_IN_A_ROW {
                    if cx.core.turn.is_over() || !self.is_admitted(cx) {
                        return;
                    }
                    if cx.core.down.available() == 0 {
                        cx.core.down.on_limited();
                        return;
                    }
                    if !cx.can_ask() {
                        return;
                    }
                    let before = cx.core.turn.sent();
                    if !self.read_once(key, cx) {
                        break;
                    }
                    if let Some(meter) = &self.meter {
                        meter.on_sent((cx.core.turn.sent() - before) as u64, cx.link.now());
                    }
                    asked += 1;
                }
            }
            // A file that has had its turn and wants more comes round again.
            idle = if asked == 0 { idle + 1 } else { 0 };
            self.turn = index + 1;
        }
    }

    /// Whether the limit lets anything be asked for now.
    fn is_admitted(&mut self, cx: &Cx<'_>) -> bool {
        let admitted = self.meter.as_ref().map(|meter| meter.admits(cx.link.now()));
        self.limited_until = admitted.and_then(Result::err);
        self.limited_until.is_none()
    }

    /// Sends one READ for a file, if it wants one.
    fn read_once(&mut self, key: Key, cx: &mut Cx<'_>) -> bool {
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return false;
        };
        match file.next_read(cx, key, &self.plan.progress) {
            Ok(asked) => {
                if !self.has_told && file.has_asked() >= SURE_LEN {
                    self.has_told = true;
                    if let Some(rtt) = cx.core.down.min_rtt() {
                        self.plan.on_round_trip(rtt, true);
                    }
                }
                asked
            }
            Err(error) => {
                self.fail_file(key, error, cx);
                false
            }
        }
    }

    /// Ends one file that cannot be had; the others go on, unless they would fail the same way.
    fn fail_file(&mut self, key: Key, error: TransferError, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        let path = file.path.clone();
        let is_known = file.joint().is_some_and(|joint| joint.hands.is_over());
        self.discard(key, *file, cx);
        if is_known {
            return; // another channel said it
        }
        if error.ends_everything() {
            self.stop(Some(error), cx);
        } else {
            self.plan.fail(Place::Remote(path), error);
        }
    }

    /// Ends everything that is under way.
    fn stop(&mut self, error: Option<TransferError>, cx: &mut Cx<'_>) {
        self.plan.stop(error);
        for index in 0..self.items.span() {
            let Some(key) = self.items.key_at(index) else {
                continue;
            };
            match self.items.remove(key) {
                Some(Item::File(file)) => self.discard(key, *file, cx),
                Some(Item::Dir(dir)) => match dir.into_handle() {
                    Some(handle) => self.closing.push_back(Closing::Dir(handle)),
                    None => cx.orphan(key, None),
                },
                Some(Item::Link(_)) | None => {}
            }
        }
        self.files = 0;
        self.dirs = 0;
    }

    /// What the server answered is an end for this item.
    fn fail_item(&mut self, key: Key, error: TransferError, cx: &mut Cx<'_>) {
        match self.items.get_mut(key) {
            Some(Item::File(_)) => self.fail_file(key, error, cx),
            Some(Item::Dir(_)) => self.fail_dir(key, error, cx),
            Some(Item::Link(_)) | None => {}
        }
    }
}

impl Job for Get {
    fn on_answer(&mut self, item: Key, what: What, answer: Answer<'_>, cx: &mut Cx<'_>) {
        if let (Some(meter), What::Read(ask, _)) = (&self.meter, what) {
            let got = match answer {
                Answer::Data(got) => got,
                _ => 0,
            };
            meter.give_back(u64::from(ask.span.len.saturating_sub(got)));
        }
        let result = match self.items.get_mut(item) {
            Some(Item::File(file)) if cx.is_without_lstat(what, &answer) => {
                file.on_no_lstat();
                Ok(())
            }
            Some(Item::File(file)) => match (what, answer) {
                (What::Step(Step::Open), Answer::Status(status, message))
                    if file.may_wait_to_open() && cx.core.is_crowded(status, message) =>
                {
                    file.wait_to_open();
                    Ok(())
                }
                (what, answer) => file.on_answer(what, answer),
            },
            Some(Item::Dir(_)) => {
                self.on_dir_answer(item, what, answer, cx);
                Ok(())
            }
            Some(Item::Link(_)) => {
                self.on_link_answer(item, answer, cx);
                Ok(())
            }
            None => {
                // Too late for anybody: a handle is closed all the same.
                match (what, answer) {
                    (What::Step(Step::Open), Answer::Handle(handle)) => {
                        self.closing.push_back(Closing::File(handle.into()));
                    }
                    (What::Step(Step::OpenDir), Answer::Handle(handle)) => {
                        self.closing.push_back(Closing::Dir(handle.into()));
                    }
                    _ => {}
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            self.fail_item(item, error, cx);
        }
    }

    fn on_run(
        &mut self,
        item: Key,
        offset: u64,
        run: &mut [IoSlice<'_>],
        len: usize,
        cx: &mut Cx<'_>,
    ) {
        let Some(Item::File(file)) = self.items.get_mut(item) else {
            return;
        };
        match file.write(offset, run, len, item, cx) {
            Ok(None) => self.at_disk += 1,
            Ok(Some(new)) => self.plan.progress.add_bytes(new),
            Err(error) => self.fail_file(item, error, cx),
        }
    }

    fn on_disk(&mut self, item: Key, done: Done, cx: &mut Cx<'_>) {
        self.at_disk = self.at_disk.saturating_sub(1);
        self.on_done(item, done, cx);
    }

    fn drive(&mut self, cx: &mut Cx<'_>) -> Progress {
        if self.plan.is_over() {
            self.stop(None, cx);
        } else if self.orders.are_to_leave() {
            return self.dismissed(cx);
        }
        self.close_handles(cx);
        self.begin_dirs(cx);
        self.plan.on_many_files(cx.core.down.min_rtt());
        self.begin_files(cx);
        self.advance(cx);
        self.read(cx);
        // What was finished on the way left handles to close, and made room.
        self.close_handles(cx);
        if self.files < FILES_MAX && self.plan.has_new() {
            self.begin_files(cx);
            self.advance(cx);
        }
        let idle = self.items.is_empty() && self.at_disk == 0 && self.closing.is_empty();
        match idle.then(|| self.plan.rest(self.id)) {
            Some(Rest::Over) => return Progress::Finished,
            Some(Rest::More) if cx.can_ask() => self.shared.submit(Submission::Look),
            Some(Rest::More | Rest::Wait) | None => {}
        }
        Progress::Working
    }

    fn is_held(&self) -> bool {
        let is_going = self.orders.are_to_leave() && !self.items.is_empty();
        self.plan.is_held() || (self.orders.are_to_hold() || is_going) && !self.plan.is_over()
    }

    fn priority(&self) -> Priority {
        self.plan.control().priority()
    }

    fn deadline(&self) -> Option<Instant> {
        self.limited_until
    }

    fn may_leave(&self) -> bool {
        self.plan.may_go_on(self.id, &Ended::Stalled)
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        // What is not taken is closed with the channel.
        self.close_handles(cx);
        let error = TransferError::ended(&Ended::Stalled, error::Outcome::NotDone);
        self.plan.leave(self.id, error);
    }

    fn on_demoted(&mut self, _: &mut Cx<'_>) {
        for item in self.items.drain() {
            match item {
                Item::File(mut file) => {
                    let handle = file.handle.take();
                    self.closing.extend(handle.map(Closing::File));
                    file.give_back(&self.plan);
                }
                Item::Link(link) => self.plan.give_back_file(link.into_task()),
                Item::Dir(mut dir) => {
                    self.closing.extend(dir.take_handle().map(Closing::Dir));
                    dir.give_back(&self.plan);
                }
            }
        }
        self.files = 0;
        self.dirs = 0;
    }

    fn on_stalled(&mut self, cx: &mut Cx<'_>) {
        let error = TransferError::ended(&Ended::Stalled, error::Outcome::NotDone);
        self.stop(Some(error), cx);
    }

    fn on_lost(&mut self, item: Key, what: What) {
        if let Some(Item::File(file)) = self.items.get_mut(item) {
            file.on_lost(what);
        }
    }

    fn on_unwritten(&mut self, item: Key, span: Span) {
        if let Some(Item::File(file)) = self.items.get_mut(item) {
            file.on_unwritten(span);
        }
    }

    fn on_ended(&mut self, ended: &Ended, disk: Option<&mut Disk>) {
        let error = TransferError::ended(ended, error::Outcome::NotDone);
        if self.plan.may_go_on(self.id, ended) {
            for item in self.items.drain() {
                match item {
                    Item::File(file) => file.give_back(&self.plan),
                    Item::Link(link) => self.plan.give_back_file(link.into_task()),
                    Item::Dir(dir) => dir.give_back(&self.plan),
                }
            }
            return self.last_word(error, disk);
        }
        self.plan
            .stop(Some(TransferError::ended(ended, error::Outcome::NotDone)));
        let mut quick = true;
        let mut files = Vec::new();
        for item in self.items.drain() {
            if let Item::File(file) = item {
                let target = file.target.as_ref();
                quick &= target.is_none_or(
                    |target| matches!(target, Target::File(_, tree) if tree.speed().is_quick()),
                );
                files.push(file);
            }
        }
        let work = move || {
            files.into_iter().for_each(|file| file.abandon());
            Done::Removed
        };
        match disk {
            Some(disk) if !quick => {
                self.at_disk += 1;
                disk.run_on_thread((0, 0), 0, work);
                self.last_word(error, Some(disk));
            }
            disk => {
                drop(work());
                self.last_word(error, disk);
            }
        }
    }
}

impl Get {
    /// Gives back what it has, when nothing more comes of what was asked for.
    fn dismissed(&mut self, cx: &mut Cx<'_>) -> Progress {
        if cx.is_waiting() || self.at_disk > 0 {
            return Progress::Working;
        }
        if !self.items.is_empty() {
            self.on_demoted(cx);
            // From now on it may send again, and closes what it had open.
            self.shared.submit(Submission::Look);
            return Progress::Working;
        }
        self.close_handles(cx);
        if !self.closing.is_empty() {
            return Progress::Working;
        }
        if self.plan.dismiss(self.id) {
            return Progress::Finished;
        }
        self.shared.submit(Submission::Look);
        Progress::Working
    }

    /// Leaves the plan with `error`, when files that threads were creating are gone.
    fn last_word(&self, error: TransferError, disk: Option<&mut Disk>) {
        let (plan, id) = (Arc::clone(&self.plan), self.id);
        match disk {
            Some(disk) if self.at_disk > 0 => disk.at_close(move || plan.leave(id, error)),
            _ => plan.leave(id, error),
        }
    }
}

/// Whether data for `target` may be asked for: what a slow disk holds has a bound.
fn may_ask(target: Option<&Target>, cx: &Cx<'_>, len: usize) -> bool {
    let quick = matches!(target, Some(Target::File(_, tree)) if tree.speed().is_quick());
    let coming = cx.core.disk.held().saturating_add(cx.core.down.in_flight());
    quick || coming.saturating_add(len) <= HELD_MAX
}

/// What is not a plain file and not followed.
fn is_left_out(file_type: FileType) -> bool {
    !matches!(
        file_type,
        FileType::Regular | FileType::Directory | FileType::Unknown
    )
}
