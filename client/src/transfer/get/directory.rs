//! One remote directory being read: opened, listed with several requests in flight, closed.
//!
//! What a listing says is not believed (CVE-2019-6111 and relatives): every name is
//! checked before it becomes a local one, links are not followed, and there are limits on depth
//! and number.

use std::{
    ffi::OsString,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
};

use ketch_protocol::{
    Attrs, FileType, NameEntry, Names, Opendir, Readdir, Realpath, RemotePath, Request, StatusCode,
};

use super::{
    Closing, DIRS_MAX, DIRS_MAX_FAR, Down, FileTask, Get, Item, Known, LinkTask, Local, Task,
    is_left_out,
};
use crate::{
    platform,
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
        local::Tree,
        names::{self, NameFault},
        options::Links,
        pace::FAR,
        plan::{DEPTH_MAX, Plan},
        report::WhySkipped,
    },
};

/// READDIRs in flight for one directory: at first, and at most on a short and on a long path.
const READDIRS_MIN: usize = 2;
const READDIRS_MAX: usize = 8;
const READDIRS_MAX_FAR: usize = 64;
/// Answers without entries, which some servers give in place of `EOF`, that are borne.
const EMPTY_ANSWERS_MAX: u8 = 1;

/// A directory to read.
pub(crate) struct DirTask {
    pub(super) path: RemotePath,
    tree: Arc<Tree>,
    depth: u8,
    /// What it is said to be on the server.
    attrs: Attrs,
    /// It may be one that it is in: a link led to it, or it is the topmost.
    is_linked: bool,
    /// What an earlier listing brought, before it had to be given up.
    seen: Option<Box<Seen>>,
}

/// What a listing brought, for the next one if it has to begin anew.
///
/// Every listing may have to, as any channel may stall. So of a name that was taken 128 bits are
/// kept, however long it is: with the limit on entries
/// ([`ENTRIES_MAX`](crate::transfer::plan::ENTRIES_MAX)) all that a plan remembers is 160 MB, and
/// what growing lists have to spare. What was not taken is only counted.
#[derive(Default)]
struct Seen {
    /// No server knows it, and so none finds two names with the same bits.
    key: RandomState,
    names: Vec<u128>,
    /// The first so many of them are those of earlier listings, sorted.
    before: usize,
    /// Entries that were not taken, and of which the report tells.
    refused: u64,
    /// How many of them this listing is still to bring again.
    refused_again: u64,
}

impl Seen {
    /// Another listing begins.
    fn begin_again(&mut self) {
        self.names.sort_unstable();
        self.before = self.names.len();
        self.refused_again = self.refused;
    }

    /// Whether an entry that is to be taken is new; it is noted.
    fn is_new(&mut self, name: &[u8]) -> bool {
        let half = |part: u8| u128::from(self.key.hash_one((part, name)));
        let bits = half(0) << 64 | half(1);
        let before = self.names.get(..self.before).unwrap_or_default();
        if before.binary_search(&bits).is_ok() {
            return false;
        }
        self.names.push(bits);
        true
    }

    /// Whether an entry that is not taken is new; it is noted.
    fn is_newly_refused(&mut self) -> bool {
        if self.refused_again > 0 {
            self.refused_again -= 1;
            return false;
        }
        self.refused += 1;
        true
    }
}

/// A directory being read.
pub(super) struct DirScan {
    path: RemotePath,
    tree: Option<Arc<Tree>>,
    depth: u8,
    attrs: Attrs,
    /// It is to be seen whether it is one that it is in.
    is_linked: bool,
    state: Scan,
    /// What was listed, once it was opened, and counted.
    seen: Option<Box<Seen>>,
}

enum Scan {
    /// The local directory, which the user named, is being created.
    Rooting(PathBuf),
    /// Nothing was asked yet.
    New,
    /// REALPATH was sent.
    Locating,
    /// OPENDIR was sent.
    Opening,
    /// READDIRs are sent.
    Reading(Reading),
}

/// Why an entry is not taken.
enum Refused {
    Name(NameFault),
    Excluded,
    TooDeep,
    Kind(FileType),
}

struct Reading {
    handle: Box<[u8]>,
    in_flight: usize,
    /// READDIRs to have in flight.
    depth: usize,
    /// READDIRs sent so far.
    turns: u32,
    /// The first of them that was answered with the end.
    end: Option<u32>,
    empty: u8,
}

impl DirScan {
    pub(super) fn into_handle(self) -> Option<Box<[u8]>> {
        match self.state {
            Scan::Reading(reading) => Some(reading.handle),
            Scan::Rooting(_) | Scan::New | Scan::Locating | Scan::Opening => None,
        }
    }

    /// Its handle, if it is open, of which nothing more is wanted.
    pub(super) fn take_handle(&mut self) -> Option<Box<[u8]>> {
        match &mut self.state {
            Scan::Reading(reading) => Some(std::mem::take(&mut reading.handle)),
            Scan::Rooting(_) | Scan::New | Scan::Opening | Scan::Locating => None,
        }
    }

    fn new(task: DirTask) -> Self {
        let mut seen = task.seen;
        if let Some(seen) = &mut seen {
            seen.begin_again();
        }
        Self {
            path: task.path,
            tree: Some(task.tree),
            depth: task.depth,
            attrs: task.attrs,
            is_linked: task.is_linked,
            state: Scan::New,
            seen,
        }
    }

    /// The connection is lost: what was listed stays, and the rest is listed by whoever comes.
    pub(super) fn give_back(self, plan: &Plan<Down>) {
        match (self.state, self.tree) {
            (Scan::Rooting(local), _) => plan.give_back_file(FileTask {
                path: self.path,
                known: Known::Nothing,
                local: Local::Named(local),
                depth: self.depth,
            }),
            (_, Some(tree)) => plan.add_dir(DirTask {
                path: self.path,
                tree,
                depth: self.depth,
                attrs: self.attrs,
                is_linked: self.is_linked,
                seen: self.seen,
            }),
            (_, None) => {}
        }
    }
}

impl Get {
    /// The directory that the user named turned out to be one: it gets its local counterpart.
    pub(super) fn found_dir(
        &mut self,
        path: RemotePath,
        local: Local,
        (depth, is_linked, attrs): (u8, bool, Attrs),
        cx: &mut Cx<'_>,
    ) {
        if depth > DEPTH_MAX {
            return self.too_deep(path);
        }
        let (tree, named) = match local {
            Local::In(tree, name) => (Some(tree.child(name)), None),
            Local::Named(named) => (None, Some(named)),
            Local::Sink(_) => {
                let file_type = FileType::Directory;
                let error = TransferError::NotAFile {
                    path: path.clone(),
                    file_type,
                };
                return self.plan.fail(Place::Remote(path), error);
            }
        };
        let state = match &named {
            None => Scan::New,
            Some(named) => Scan::Rooting(named.clone()),
        };
        let scan = DirScan {
            path,
            tree,
            depth,
            attrs,
            is_linked: is_linked || (named.is_some() && self.options.links == Links::Follow),
            state,
            seen: None,
        };
        let Some(key) = self.items.insert(Item::Dir(Box::new(scan))) else {
            return;
        };
        self.dirs += 1;
        if let Some(named) = named {
            let shared = Arc::clone(&self.shared);
            self.at_disk += 1;
            cx.core.disk.run_on_thread((cx.job, key), 0, move || {
                Done::Rooted(Tree::make_root(&named, &shared.speeds))
            });
        }
    }

    /// Begins directories as long as there is room for what they hold.
    pub(super) fn begin_dirs(&mut self, cx: &mut Cx<'_>) {
        let far = cx.core.down.min_rtt().is_some_and(|rtt| rtt >= FAR);
        let dirs_max = cx.core.open_max(if far { DIRS_MAX_FAR } else { DIRS_MAX });
        while self.dirs < dirs_max && cx.can_ask() {
            let Some(task) = self.plan.take_dir() else {
                return;
            };
            let scan = DirScan::new(task);
            if self.items.insert(Item::Dir(Box::new(scan))).is_some() {
                self.dirs += 1;
            }
        }
    }

    /// Asks for what a directory needs next.
    pub(super) fn advance_dir(&mut self, key: Key, cx: &mut Cx<'_>) {
        let far = cx.core.down.min_rtt().is_some_and(|rtt| rtt >= FAR);
        let readdirs_max = if far { READDIRS_MAX_FAR } else { READDIRS_MAX };
        let full = self.plan.is_full();
        let Some(Item::Dir(scan)) = self.items.get_mut(key) else {
            return;
        };
        match &mut scan.state {
            Scan::Rooting(_) | Scan::Locating | Scan::Opening => {}
            Scan::New if scan.is_linked => {
                let request = Request::Realpath(Realpath {
                    path: scan.path.as_bytes(),
                });
                if cx.can_ask() && cx.ask(key, Step::Locate, &request, Expect::Name).is_ok() {
                    scan.state = Scan::Locating;
                }
            }
            Scan::New => {
                let request = Request::Opendir(Opendir {
                    path: scan.path.as_bytes(),
                });
                if cx.can_ask() && cx.ask(key, Step::OpenDir, &request, Expect::Handle).is_ok() {
                    scan.state = Scan::Opening;
                }
            }
            Scan::Reading(reading) => {
                let wanted = if reading.end.is_some() || full {
                    0
                } else {
                    reading.depth
                };
                while reading.in_flight < wanted.min(readdirs_max) && cx.can_ask() {
                    let request = Request::Readdir(Readdir {
                        handle: &reading.handle,
                    });
                    let what = What::ReadDir {
                        turn: reading.turns,
                    };
                    if cx.ask_for(key, what, &request, Expect::Name).is_err() {
                        return;
                    }
                    reading.turns = reading.turns.wrapping_add(1);
                    reading.in_flight += 1;
                }
            }
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
        let Some(Item::Dir(scan)) = self.items.get_mut(key) else {
            return;
        };
        let refused = |path: &RemotePath, status, message| TransferError::Refused {
            operation: Operation::ReadDir,
            path: path.clone(),
            status,
            message: message_of(message),
        };
        match (what, answer) {
            (What::Step(Step::Locate), Answer::Names(names)) => {
                let real = names
                    .into_iter()
                    .next()
                    .map(|entry| RemotePath::from(entry.filename));
                self.on_located(key, real);
            }
            (What::Step(Step::OpenDir), Answer::Handle(handle)) => {
                scan.state = Scan::Reading(Reading {
                    handle: handle.into(),
                    in_flight: 0,
                    depth: READDIRS_MIN,
                    turns: 0,
                    end: None,
                    empty: 0,
                });
                let Some(tree) = scan.tree.clone() else {
                    return;
                };
                tree.ends_with(&self.plan.endings, scan.attrs, self.options.preserve);
                if scan.seen.is_none() {
                    scan.seen = Some(Box::default());
                    self.plan.report(|report| report.directories += 1);
                }
                let at = Arc::clone(&tree);
                let make = move || Done::DirMade(at.dir().map(drop));
                match cx.core.disk.run(tree.speed(), (cx.job, key), make) {
                    Some(done) => self.on_dir_done(key, done, cx),
                    None => self.at_disk += 1,
                }
            }
            (What::ReadDir { turn }, answer) => {
                let Scan::Reading(reading) = &mut scan.state else {
                    return;
                };
                reading.in_flight = reading.in_flight.saturating_sub(1);
                let beyond = reading.end.is_some_and(|end| end < turn);
                match answer {
                    // What was asked beyond the end may be answered with anything: some servers
                    // begin again.
                    _ if beyond => {}
                    Answer::Names(names) => {
                        reading.depth = reading.depth.saturating_mul(2).min(READDIRS_MAX_FAR);
                        if names.is_empty() {
                            reading.empty += 1;
                            if reading.empty > EMPTY_ANSWERS_MAX {
                                reading.end = Some(turn);
                            }
                        }
                        self.on_names(key, names, cx);
                    }
                    // Answers come in any order: what was asked before may still bring entries.
                    Answer::Status(StatusCode::EOF, _) => reading.end = Some(turn),
                    Answer::Status(status, message) => {
                        let error = refused(&scan.path, status, message);
                        return self.fail_dir(key, error, cx);
                    }
                    _ => {}
                }
                if let Some(Item::Dir(scan)) = self.items.get_mut(key)
                    && let Scan::Reading(Reading {
                        in_flight: 0,
                        end: Some(_),
                        ..
                    }) = scan.state
                {
                    self.dir_done(key);
                }
            }
            (_, Answer::Status(status, message)) => {
                let error = refused(&scan.path, status, message);
                self.fail_dir(key, error, cx);
            }
            _ => {}
        }
    }

    /// Takes where a directory really is: it is read if that is not within itself.
    fn on_located(&mut self, key: Key, real: Option<RemotePath>) {
        let Some(Item::Dir(scan)) = self.items.get_mut(key) else {
            return;
        };
        let (Some(tree), Some(real)) = (&scan.tree, real) else {
            return self.dir_done(key);
        };
        if tree.stands_for(real) {
            scan.is_linked = false;
            scan.state = Scan::New;
            return;
        }
        let place = Place::Remote(scan.path.clone());
        self.plan
            .report(|report| report.skip_link(place, WhySkipped::LeadsBack));
        self.dir_done(key);
    }

    /// Whether something of which a listing did not say what it is is taken, now that this is
    /// known; if not, it is gone.
    pub(super) fn admits_found(&mut self, key: Key, file_type: FileType) -> bool {
        let links = self.options.links;
        let Some(Item::File(file)) = self.items.get_mut(key) else {
            return false;
        };
        let place = Place::Remote(file.path.clone());
        let is_linked = matches!(file.known, Known::Linked);
        if is_linked && file.attrs.is_none() {
            self.plan
                .report(|report| report.skip_link(place, WhySkipped::LeadsNowhere));
            return self.forget_found(key);
        }
        let Local::In(tree, name) = &file.local else {
            return true;
        };
        if let Some(filter) = &self.options.filter
            && !filter.admits(&tree.relative(name), file_type == FileType::Directory)
        {
            self.plan.report(|report| report.excluded += 1);
            return self.forget_found(key);
        }
        match (file_type, links) {
            (FileType::Symlink, Links::Follow) if !is_linked => {
                file.look_behind();
                false
            }
            (FileType::Symlink, Links::Copy) => {
                let task = LinkTask {
                    path: file.path.clone(),
                    tree: Arc::clone(tree),
                    name: name.clone(),
                    times: file.attrs.and_then(|attrs| attrs.times),
                };
                self.plan.add_file(Task::Link(task), 0);
                self.forget_found(key)
            }
            _ => true,
        }
    }

    /// Something that was listed is not taken after all.
    fn forget_found(&mut self, key: Key) -> bool {
        if self.items.remove(key).is_some() {
            self.files -= 1;
            self.plan.progress.forget_file();
        }
        false
    }

    /// Sorts what a listing holds.
    fn on_names(&mut self, key: Key, names: Names<'_>, cx: &mut Cx<'_>) {
        let Some(Item::Dir(scan)) = self.items.get_mut(key) else {
            return;
        };
        let (path, depth) = (scan.path.clone(), scan.depth + 1);
        let Some(tree) = scan.tree.clone() else {
            return;
        };
        for entry in names {
            if matches!(entry.filename, b"." | b"..") {
                continue; // every listing has them
            }
            let sorted = self.sort(&tree, depth, &entry);
            // What an earlier listing brought is known.
            if let Some(Item::Dir(scan)) = self.items.get_mut(key)
                && let Some(seen) = &mut scan.seen
                && !match &sorted {
                    Ok(_) => seen.is_new(entry.filename),
                    Err(_) => seen.is_newly_refused(),
                }
            {
                continue;
            }
            if let Err(limit) = self.plan.count_entry() {
                let error = TransferError::TooMuch { path, limit };
                return self.stop(Some(error), cx);
            }
            match sorted {
                Ok(name) => self.on_name(&path, &tree, (depth, name), &entry),
                Err(why) => self.refuse(&path, &entry, why),
            }
        }
    }

    /// The local name of an entry, if it is taken.
    fn sort(
        &self,
        tree: &Arc<Tree>,
        depth: u8,
        entry: &NameEntry<'_>,
    ) -> Result<OsString, Refused> {
        names::check(entry.filename).map_err(Refused::Name)?;
        let name = platform::local_name(entry.filename).ok_or(Refused::Name(NameFault::NotHere))?;
        let (file_type, links) = (entry.file_type(), self.options.links);
        if let Some(filter) = &self.options.filter {
            let admits = match file_type {
                // What it is will be known when it was looked at.
                FileType::Unknown => true,
                FileType::Symlink if links == Links::Follow => true,
                _ => filter.admits(&tree.relative(&name), file_type == FileType::Directory),
            };
            if !admits {
                return Err(Refused::Excluded);
            }
        }
        match file_type {
            FileType::Directory if depth > DEPTH_MAX => Err(Refused::TooDeep),
            FileType::Directory => Ok(name),
            FileType::Symlink if links != Links::Skip => Ok(name),
            file_type if is_left_out(file_type) => Err(Refused::Kind(file_type)),
            _ => Ok(name),
        }
    }

    /// The report tells of an entry that is not taken.
    fn refuse(&mut self, path: &RemotePath, entry: &NameEntry<'_>, why: Refused) {
        // A name may be as long as a packet, and the report keeps many.
        let path = path.join(names::clipped(entry.filename));
        match why {
            Refused::Name(fault) => {
                let error = TransferError::Name {
                    path: path.clone(),
                    fault,
                };
                self.plan.fail(Place::Remote(path), error);
            }
            Refused::Excluded => self.plan.report(|report| report.excluded += 1),
            Refused::TooDeep => self.too_deep(path),
            Refused::Kind(file_type) => self
                .plan
                .report(|report| report.skip(Place::Remote(path), file_type)),
        }
    }

    /// Has an entry that is taken wait for its turn.
    fn on_name(
        &mut self,
        path: &RemotePath,
        tree: &Arc<Tree>,
        (depth, name): (u8, OsString),
        entry: &NameEntry<'_>,
    ) {
        let path = path.join(entry.filename);
        let (attrs, links) = (entry.attrs.attrs, self.options.links);
        match entry.file_type() {
            FileType::Directory => {
                self.plan.add_dir(DirTask {
                    path,
                    tree: tree.child(name),
                    depth,
                    attrs,
                    is_linked: false,
                    seen: None,
                });
            }
            FileType::Symlink if links == Links::Copy => {
                let task = LinkTask {
                    path,
                    tree: Arc::clone(tree),
                    name,
                    times: attrs.times,
                };
                self.plan.add_file(Task::Link(task), 0);
            }
            FileType::Symlink if links == Links::Follow => {
                let task = FileTask {
                    path,
                    known: Known::Linked,
                    local: Local::In(Arc::clone(tree), name),
                    depth,
                };
                self.plan.add_file(task, 0);
            }
            file_type => {
                let known = if file_type == FileType::Regular {
                    Known::Attrs(attrs)
                } else {
                    Known::Listed
                };
                let local = Local::In(Arc::clone(tree), name);
                self.plan.add_file(
                    FileTask {
                        path,
                        known,
                        local,
                        depth,
                    },
                    attrs.size.unwrap_or(0),
                );
            }
        }
    }

    fn too_deep(&mut self, path: RemotePath) {
        let limit = "64 directories below each other";
        let error = TransferError::TooMuch {
            path: path.clone(),
            limit,
        };
        self.plan.fail(Place::Remote(path), error);
    }

    fn dir_done(&mut self, key: Key) {
        let Some(Item::Dir(scan)) = self.items.remove(key) else {
            return;
        };
        self.dirs -= 1;
        self.closing.extend(scan.into_handle().map(Closing::Dir));
    }

    /// Ends a directory that cannot be read; the others go on, unless they would fail as well.
    pub(super) fn fail_dir(&mut self, key: Key, error: TransferError, cx: &mut Cx<'_>) {
        let Some(Item::Dir(scan)) = self.items.remove(key) else {
            return;
        };
        self.dirs -= 1;
        let place = Place::Remote(scan.path.clone());
        match scan.into_handle() {
            Some(handle) => self.closing.push_back(Closing::Dir(handle)),
            None => cx.orphan(key, None),
        }
        if error.ends_everything() {
            self.stop(Some(error), cx);
        } else {
            self.plan.fail(place, error);
        }
    }

    /// Takes what came of work on the disk for a directory.
    pub(super) fn on_dir_done(&mut self, key: Key, done: Done, cx: &mut Cx<'_>) {
        let Some(Item::Dir(scan)) = self.items.get_mut(key) else {
            return;
        };
        match done {
            Done::Rooted(Ok(tree)) => {
                scan.tree = Some(tree);
                scan.state = Scan::New;
            }
            Done::Rooted(Err(fault)) | Done::DirMade(Err(fault)) => {
                self.fail_dir(key, fault.into(), cx);
            }
            _ => {}
        }
    }
}
