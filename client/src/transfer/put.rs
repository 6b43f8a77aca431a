//! Uploads: works a plan of local files off over one SFTP channel.
//!
//! Local opens, creations, writes, closes and renames of different files overlap; bytes without an
//! answer follow the pace of the connection, which keeps them few: what waits inside sshd costs it
//! more than it brings. What happens to one file is in `put/file.rs`, to one directory in
//! `put/directory.rs`; here is what they share: who is begun when, who may send, how all ends.

mod directory;
mod file;
mod joint;
mod link;
mod room;
mod task;

use std::{collections::VecDeque, io::IoSlice, sync::Arc, time::Instant};

use ketch_protocol::{Attrs, RemotePath, Remove, Request, Setstat, StatusCode};

use self::task::{FileTask, Task};
pub(crate) use self::task::{Found, start_all, start_found, start_from_path, start_from_source};
use self::{
    directory::{DirTask, PutDir},
    file::{PutFile, Sending},
    joint::Joint,
    link::{LinkTask, PutLink},
    room::Doubt,
};
use super::{
    control::Priority,
    crew::Direction,
    disk::{Disk, Done},
    error::{Place, TransferError},
    options::{PutOptions, Streams},
    pace::FAR,
    plan::{Orders, Plan, Rest, Taken, Work},
    ranges::Span,
    rate::Meter,
    report::Remarkable,
};
use crate::{
    error, platform,
    quirks::Quirk,
    requests::{
        calls::{Ended, Shared, Submission},
        job::{Answer, Cx, Job, Progress},
        slots::{Key, Marks, Slots},
        table::{Expect, Step, What},
    },
    sftp::Sftp,
};

/// Files under way at a time on a short path, and on a long one.
const FILES_MAX: usize = 128;
const FILES_MAX_FAR: usize = 1024;
/// So many of them are begun together, or an eighth of all: there is a look at all each time.
const LOT_MIN: usize = 8;
/// Round trips of a small file on a long path, in one of which its bytes are sent: a look at the
/// name, open, write and close, rename.
const STAGES_FAR: u64 = 4;
/// Bytes of small files in flight at most: with twice as many inside it, sshd needed twice the
/// processor time for each.
const SMALL_IN_FLIGHT_MAX: usize = 1024 * 1024;
/// Directories under way at a time.
const DIRS_MAX: usize = 8;
/// WRITEs in a row for one file before the next has its turn.
const WRITES_IN_A_ROW: usize = 8;

/// What uploads are made of.
#[derive(Debug)]
pub(crate) struct Up;

impl Work for Up {
    type File = Task;
    type Dir = DirTask;
    type Joint = Joint;
    type Options = PutOptions;
    const DIRECTION: Direction = Direction::Up;

    fn streams(options: &PutOptions) -> Streams {
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
        options: &PutOptions,
        shared: &Arc<Shared>,
        connection: Option<Sftp>,
    ) -> Box<dyn Job> {
        let (id, orders) = plan.join(shared);
        Box::new(Put {
            id,
            orders,
            plan: Arc::clone(plan),
            options: options.clone(),
            shared: Arc::clone(shared),
            _connection: connection,
            meter: options.limit.as_ref().map(Meter::new),
            limited_until: None,
            items: Slots::new(),
            moving: Marks::new(),
            sending: Marks::new(),
            files: 0,
            handles: 0,
            dirs: 0,
            turn: 0,
            undoing: VecDeque::new(),
            removing: 0,
            at_disk: 0,
        })
    }
}

/// A worker of an upload, on one channel.
pub(crate) struct Put {
    plan: Arc<Plan<Up>>,
    /// What the plan knows it as, and tells it.
    id: u32,
    orders: Orders,
    options: PutOptions,
    shared: Arc<Shared>,
    /// Lives as long as there is something to do on it.
    _connection: Option<Sftp>,
    meter: Option<Meter>,
    /// When the limit admits more.
    limited_until: Option<Instant>,
    items: Slots<Item>,
    /// Those that may go on: something happened to them, or they found no room. All others wait for
    /// an answer or a thread.
    moving: Marks,
    /// Files that may have data to send.
    sending: Marks,
    /// Files and directories under way.
    files: usize,
    /// Files that are open on the server, or asked to be: counted where there may be too many.
    handles: usize,
    dirs: usize,
    /// The slot whose turn it is to send.
    turn: usize,
    /// What is still to be taken back on the server.
    undoing: VecDeque<Undo>,
    /// Removals on the server that were asked for and not answered.
    removing: usize,
    /// Pieces of work on threads.
    at_disk: usize,
}

enum Item {
    File(Box<PutFile>),
    Link(Box<PutLink>),
    Dir(Box<PutDir>),
    /// A directory that all is in, and that gets its attributes.
    Ending(Box<(RemotePath, Attrs)>),
    /// A file that failed, and of which the reason is being found out.
    Doubt(Box<Doubt>),
    /// A temporary file that is being removed.
    Removing(RemotePath),
}

/// Something that was done on the server and should not have been.
enum Undo {
    Close(Box<[u8]>),
    Remove(RemotePath),
}

impl Put {
    /// Begins files as long as the bytes they hold do not fill the budget.
    fn begin_files(&mut self, cx: &mut Cx<'_>) {
        let far = cx.core.up.min_rtt().is_some_and(|rtt| rtt >= FAR);
        // Each holds a local file open, and only some of them one of the server's.
        let files_max = match far {
            _ if cx.core.open_max(2) < 2 => 1,
            true => FILES_MAX_FAR.min(platform::open_files_max() / 2),
            false => FILES_MAX,
        };
        let files_max = cx.core.turn.share_of(files_max);
        let stages = if far { STAGES_FAR } else { 1 };
        let budget = cx.core.turn.share_of(cx.core.up.budget()) as u64;
        let budget = budget.saturating_mul(stages);
        if self.files + LOT_MIN.min(files_max / 8) >= files_max && self.files > 0 {
            return;
        }
        let left = self.files().map(|file| file.left_to_send());
        // Sizes are the other side's: together they need not fit into a number.
        let mut backlog = left.fold(0, u64::saturating_add);
        while self.files < files_max && backlog < budget && cx.can_ask() {
            let is_mine = |joint: &Arc<Joint>| {
                let mut joints = self.files().filter_map(PutFile::joint);
                joints.any(|mine| Arc::ptr_eq(mine, joint))
            };
            let file = match self.plan.take(is_mine) {
                Some(Taken::File(Task::File(task))) => PutFile::new(task),
                Some(Taken::File(Task::Link(task))) => {
                    self.begin_link(task);
                    continue;
                }
                Some(Taken::Joint(joint)) if joint.hands.take() => PutFile::for_joint(joint),
                // Somebody was quicker, or it is done: there may be others.
                Some(Taken::Joint(_)) => continue,
                None => return,
            };
            backlog = backlog.saturating_add(file.left_to_send());
            if self.insert(Item::File(Box::new(file))) {
                self.files += 1;
            }
        }
    }

    /// Adds something that goes on at once.
    fn insert(&mut self, item: Item) -> bool {
        let key = self.items.insert(item);
        key.is_some_and(|key| {
            self.moving.set(key);
            true
        })
    }

    fn files(&self) -> impl Iterator<Item = &PutFile> {
        self.items.iter().filter_map(|item| match item {
            Item::File(file) => Some(&**file),
            Item::Link(_) | Item::Dir(_) | Item::Ending(_) | Item::Doubt(_) | Item::Removing(_) => {
                None
            }
        })
    }

    /// Moves every file and directory on that may go on, as far as it goes.
    fn advance(&mut self, cx: &mut Cx<'_>) {
        // Fewer files than may be open need not be counted.
        self.handles = match self.files < cx.core.open_max(FILES_MAX_FAR) {
            true => 0,
            false => self.files().filter(|file| file.has_handle()).count(),
        };
        let mut index = 0;
        while let Some(at) = self.moving.next(index) {
            index = at + 1;
            self.moving.clear(at);
            let Some(key) = self.items.key_at(at) else {
                continue;
            };
            match self.items.get_mut(key) {
                Some(Item::File(_)) => self.advance_file(key, cx),
                Some(Item::Link(_)) => self.advance_link(key, cx),
                Some(Item::Dir(_)) => self.advance_dir(key, cx),
                Some(Item::Ending(_) | Item::Doubt(_) | Item::Removing(_)) | None => {}
            }
            let (is_waiting, is_writing) = match self.items.get_mut(key) {
                Some(Item::File(file)) => (file.is_waiting(), file.is_writing()),
                Some(Item::Link(_) | Item::Dir(_)) => (false, false),
                Some(Item::Ending(_) | Item::Doubt(_) | Item::Removing(_)) | None => (true, false),
            };
            if !is_waiting {
                self.moving.set(key);
            }
            if is_writing {
                self.sending.set(key);
            }
        }
    }

    /// Whether it may have data to send; and whether all of it is one message or two.
    fn writes(&mut self, key: Key) -> Option<bool> {
        match self.items.get_mut(key) {
            Some(Item::File(file)) if file.is_writing() => Some(file.is_small()),
            _ => None,
        }
    }

    /// Sends data, file by file in turn, as long as budget and room last.
    fn write(&mut self, cx: &mut Cx<'_>) {
        self.limited_until = None;
        let mut idle = 0; // files in a row that had nothing to send
        let next = |marks: &Marks, turn| marks.next(turn).or_else(|| marks.next(0));
        while let Some(index) = next(&self.sending, self.turn) {
            let mut sent = 0;
            let key = self.items.key_at(index);
            if let Some((key, is_small)) = key.and_then(|key| Some((key, self.writes(key)?))) {
                while sent < WRITES_IN_A_ROW {
                    if cx.core.turn.is_over() || !self.is_admitted(cx) {
                        return;
                    }
                    if cx.core.up.available() == 0 {
                        cx.core.up.on_limited();
                        return;
                    }
                    if cx.core.up.in_flight() >= SMALL_IN_FLIGHT_MAX && is_small {
                        break;
                    }
                    let before = cx.core.turn.sent();
                    let sending = self.write_once(key, cx);
                    self.moving.set(key);
                    if let Some(meter) = &self.meter {
                        meter.on_sent((cx.core.turn.sent() - before) as u64, cx.link.now());
                    }
                    match sending {
                        Sending::Sent => sent += 1,
                        Sending::Nothing => break,
                        // The window or the output buffer is full: nobody else fits either.
                        Sending::NoRoom => return,
                    }
                }
            } else {
                self.sending.clear(index);
                continue;
            }
            self.turn = index + 1;
            idle = if sent == 0 { idle + 1 } else { 0 };
            if idle > 0 && idle >= self.sending.count() {
                return;
            }
        }
    }

    /// Whether the limit lets anything be sent now.
    fn is_admitted(&mut self, cx: &Cx<'_>) -> bool {
        let admitted = self.meter.as_ref().map(|meter| meter.admits(cx.link.now()));
        self.limited_until = admitted.and_then(Result::err);
        self.limited_until.is_none()
    }

    /// Ends one file that cannot be sent; the others go on, unless they would fail the same way.
    fn fail_file(&mut self, key: Key, error: TransferError, cx: &mut Cx<'_>) {
        let Some(Item::File(file)) = self.items.remove(key) else {
            return;
        };
        self.files -= 1;
        let place = file.place();
        let is_known = file.joint().is_some_and(|joint| joint.hands.is_over());
        self.discard(key, *file, cx);
        if is_known {
            return; // another channel said it
        }
        if error.ends_everything() {
            self.stop(Some(error), cx);
        } else {
            self.plan.fail(place, error);
        }
    }

    /// Sends what takes back what was done; false if there is no room for all of it.
    fn undo(&mut self, cx: &mut Cx<'_>) -> bool {
        while let Some(undo) = self.undoing.pop_front() {
            let sent = cx.can_ask()
                && match &undo {
                    Undo::Close(handle) => cx.close_file(handle).is_ok(),
                    Undo::Remove(path) => {
                        let item = Item::Removing(path.clone());
                        self.items.insert(item).is_some_and(|key| {
                            let request = Request::Remove(Remove {
                                path: path.as_bytes(),
                            });
                            let sent = cx
                                .ask(key, Step::RemoveOld, &request, Expect::Status)
                                .is_ok();
                            if sent {
                                self.removing += 1;
                            } else {
                                self.items.remove(key);
                            }
                            sent
                        })
                    }
                };
            if !sent {
                self.undoing.push_front(undo);
                return false;
            }
        }
        true
    }

    /// Gives directories their attributes in which all is that goes there.
    fn end_dirs(&mut self, cx: &mut Cx<'_>) {
        let can_set = !cx.core.server.quirks.has(Quirk::NoSetAttrs);
        while cx.can_ask()
            && let Some((path, attrs)) = self.plan.endings.take()
        {
            if self.plan.is_over() {
                continue;
            }
            if !can_set {
                self.say_unset(path);
                continue;
            }
            let item = Item::Ending(Box::new((path.clone(), attrs)));
            let Some(key) = self.items.insert(item) else {
                return self.plan.endings.add(path, attrs);
            };
            let request = Request::Setstat(Setstat {
                path: path.as_bytes(),
                attrs: attrs.into(),
            });
            if cx
                .ask(key, Step::SetAttrs, &request, Expect::Status)
                .is_err()
            {
                self.items.remove(key);
                return self.plan.endings.add(path, attrs);
            }
        }
    }

    fn on_end_answer(&mut self, key: Key, answer: Answer<'_>) {
        if let Some(Item::Ending(ending)) = self.items.remove(key)
            && !matches!(answer, Answer::Status(StatusCode::OK, _))
        {
            self.say_unset(ending.0);
        }
    }

    fn say_unset(&self, path: RemotePath) {
        let (place, what) = (Place::Remote(path), Remarkable::AttributesNotSet);
        self.plan.report(|report| report.remark(place, what));
    }

    /// Ends everything that is under way.
    fn stop(&mut self, error: Option<TransferError>, cx: &mut Cx<'_>) {
        self.plan.stop(error);
        for index in 0..self.items.span() {
            let Some(key) = self.items.key_at(index) else {
                continue;
            };
            if matches!(self.items.get_mut(key), Some(Item::Removing(_))) {
                continue; // this is to be waited for
            }
            match self.items.remove(key) {
                Some(Item::File(file)) => self.discard(key, *file, cx),
                Some(Item::Link(link)) => {
                    if link.is_being_made() {
                        // A server may take the removal first: it follows the answer.
                        cx.orphan(key, link.into_leftover().as_ref());
                    } else {
                        self.undoing.extend(link.into_leftover().map(Undo::Remove));
                    }
                }
                _ => {}
            }
        }
        self.files = 0;
        self.dirs = 0;
    }
}

impl Job for Put {
    fn on_answer(&mut self, item: Key, what: What, answer: Answer<'_>, cx: &mut Cx<'_>) {
        self.moving.set(item);
        match self.items.get_mut(item) {
            Some(Item::File(_)) => self.on_file_answer(item, what, answer, cx),
            Some(Item::Link(_)) => self.on_link_answer(item, what, answer, cx),
            Some(Item::Dir(_)) => self.on_dir_answer(item, what, answer, cx),
            Some(Item::Ending(_)) => self.on_end_answer(item, answer),
            Some(Item::Doubt(_)) => self.on_room(item, answer),
            Some(Item::Removing(_)) => {
                self.items.remove(item);
                self.removing -= 1;
            }
            None => {}
        }
    }

    fn on_run(
        &mut self,
        item: Key,
        offset: u64,
        run: &mut [IoSlice<'_>],
        _len: usize,
        cx: &mut Cx<'_>,
    ) {
        // An upload asks for data only to compare it.
        self.moving.set(item);
        self.on_probe_run(item, offset, run, cx);
    }

    fn on_disk(&mut self, item: Key, done: Done, cx: &mut Cx<'_>) {
        self.at_disk = self.at_disk.saturating_sub(1);
        self.moving.set(item);
        match self.items.get_mut(item) {
            Some(Item::File(_)) => self.on_file_done(item, done, cx),
            Some(Item::Dir(_)) => self.on_dir_done(item, done, cx),
            Some(Item::Link(_) | Item::Ending(_) | Item::Doubt(_) | Item::Removing(_)) | None => {}
        }
    }

    fn drive(&mut self, cx: &mut Cx<'_>) -> Progress {
        if self.plan.is_over() {
            self.stop(None, cx);
        } else if self.orders.are_to_leave() {
            return self.dismissed(cx);
        }
        while let Some(path) = self.plan.take_leftover() {
            self.undoing.push_back(Undo::Remove(path));
        }
        self.undo(cx);
        self.begin_dirs(cx);
        self.plan.on_many_files(cx.core.up.min_rtt());
        self.begin_files(cx);
        self.advance(cx);
        self.write(cx);
        // Behind the last data of a file, its attributes and its close leave at once.
        self.advance(cx);
        self.end_dirs(cx);
        // What failed on the way left something to take back.
        let undone = self.undo(cx);
        let idle = self.items.is_empty() && self.at_disk == 0 && self.removing == 0;
        let idle = idle && undone && self.plan.endings.is_empty();
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
        for undo in std::mem::take(&mut self.undoing) {
            match undo {
                Undo::Close(handle) => {
                    // What is not taken is closed with the channel.
                    let _ = cx.close_file(&handle);
                }
                Undo::Remove(path) => self.plan.add_leftover(path),
            }
        }
        let error = TransferError::ended(&Ended::Stalled, error::Outcome::NotDone);
        self.plan.leave(self.id, error);
    }

    fn on_demoted(&mut self, _: &mut Cx<'_>) {
        let items: Vec<_> = self.items.drain().collect();
        for item in items {
            match item {
                Item::File(mut file) => {
                    self.undoing.extend(file.take_handles().map(Undo::Close));
                    file.give_back(&self.plan);
                }
                Item::Link(link) => link.give_back(&self.plan),
                Item::Dir(dir) => self.plan.add_dir(dir.into_task()),
                Item::Ending(ending) => self.plan.endings.add(ending.0, ending.1),
                Item::Doubt(doubt) => self.settle_doubt(*doubt, false),
                Item::Removing(path) => self.undoing.push_back(Undo::Remove(path)),
            }
        }
        self.files = 0;
        self.dirs = 0;
        self.removing = 0;
    }

    fn on_stalled(&mut self, cx: &mut Cx<'_>) {
        let outcome = self.outcome();
        self.stop(Some(TransferError::ended(&Ended::Stalled, outcome)), cx);
        // The caller does not wait for the server to remove what was begun: it is silent.
        self.plan.finish();
    }

    fn on_lost(&mut self, item: Key, what: What) {
        if let Some(Item::File(file)) = self.items.get_mut(item) {
            file.on_lost(what);
        }
    }

    fn on_unwritten(&mut self, _: Key, _: Span) {
        // What is compared is compared anew.
    }

    fn on_ended(&mut self, ended: &Ended, _disk: Option<&mut Disk>) {
        let error = TransferError::ended(ended, self.outcome());
        if self.plan.may_go_on(self.id, ended) {
            let items: Vec<_> = self.items.drain().collect();
            for item in items {
                match item {
                    Item::File(file) => file.give_back(&self.plan),
                    Item::Link(link) => link.give_back(&self.plan),
                    Item::Dir(dir) => self.plan.add_dir(dir.into_task()),
                    Item::Ending(ending) => self.plan.endings.add(ending.0, ending.1),
                    Item::Doubt(doubt) => self.settle_doubt(*doubt, false),
                    Item::Removing(path) => self.plan.add_leftover(path),
                }
            }
            for undo in self.undoing.drain(..) {
                if let Undo::Remove(path) = undo {
                    self.plan.add_leftover(path);
                }
            }
            return self.plan.leave(self.id, error);
        }
        // What is on the server stays there: nobody can reach it any more.
        self.plan
            .stop(Some(TransferError::ended(ended, self.outcome())));
        self.items.drain().for_each(drop);
        self.plan.leave(self.id, error);
    }
}

impl Put {
    /// Gives back what it has, when nothing more comes of what was sent.
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
        if !self.undo(cx) {
            return Progress::Working;
        }
        if self.plan.dismiss(self.id) {
            return Progress::Finished;
        }
        self.shared.submit(Submission::Look);
        Progress::Working
    }

    /// What became of the upload if nothing more is answered: a rename may have been done.
    fn outcome(&self) -> error::Outcome {
        if self.files().any(PutFile::is_renaming) {
            error::Outcome::Unknown
        } else {
            error::Outcome::NotDone
        }
    }
}
