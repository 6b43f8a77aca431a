//! A file system of which a ledger is kept: every call that makes something longer or makes a name
//! is charged before it is made, and what a call takes away is credited when it is done.
//!
//! Of calls on paths one is made at a time: what is learnt before a call still holds when it is
//! made. All handles of one file share what is known of its length. A file that is removed while it
//! is open keeps its bytes until it is closed, here as on the disk.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::{Amount, Ledger, Quota, walk};
use crate::fs::feed::{Feed, Subscription, WatchRequest};
use crate::fs::{
    Answer, Block, Call, Change, Create, File, FileCall, FileSystem, Links, Metadata, OpenHow,
    TYPE_BITS, TYPE_FILE, Target, Work,
};
use crate::path::VPath;

/// A user's file system with its ledger.
#[derive(Debug)]
pub(crate) struct Metered {
    files: Arc<dyn FileSystem>,
    book: Arc<Book>,
}

/// What the metered files of one user share.
#[derive(Debug)]
struct Book {
    ledger: Ledger,
    /// Held while a call on a path is made that changes what is counted.
    turn: tokio::sync::Mutex<()>,
    /// At most as many as handles are open.
    open: Mutex<Vec<Weak<OpenFile>>>,
}

/// A count under way, which may break off: the runtime ends, or the file system panics.
struct Counting(Arc<Book>);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.ledger.give_up_count();
    }
}

/// What is known of a file while somebody has it open.
#[derive(Debug)]
struct OpenFile {
    book: Arc<Book>,
    identity: Option<(u64, u64)>,
    path: Mutex<VPath>,
    length: Mutex<Length>,
    /// Its last name is gone.
    is_nameless: AtomicBool,
}

/// What was charged for a file, and who is changing it.
#[derive(Debug, Default)]
struct Length {
    /// Bytes that were charged: its length, or what that is about to be.
    bytes: u64,
    /// Changes under way, of all handles.
    under_way: usize,
    /// How many have begun: it tells whether others came since.
    begun: u64,
    /// Something was not done as it was charged while others were at it: the file may be shorter.
    is_unsure: bool,
}

/// A change of a file's length under way.
#[derive(Debug)]
struct Changing<'a> {
    known: &'a OpenFile,
    /// Bytes that were charged for it.
    more: u64,
    /// Its number.
    number: u64,
    /// It adds at the end, wherever that is.
    appends: bool,
    has_ended: bool,
}

/// How a change of a file's length ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Done,
    /// Nothing was done.
    PutOff,
    /// It was not done as it was charged, or nobody knows.
    Unsure,
}

/// Something to be settled when a call was made.
#[derive(Debug)]
enum Settlement {
    Nothing,
    /// So much was charged, and is given back if the call failed.
    Charged(Amount),
    /// This name is gone if the call was made.
    Gone(VPath, Metadata),
}

impl Metered {
    pub(crate) fn new(files: Arc<dyn FileSystem>, quota: Quota) -> Arc<Self> {
        let book = Book {
            ledger: Ledger::new(quota),
            turn: tokio::sync::Mutex::new(()),
            open: Mutex::default(),
        };
        Arc::new(Self {
            files,
            book: Arc::new(book),
        })
    }

    /// The same with the ledger of `before`, if that has the same quota: for one and the same tree.
    pub(crate) fn going_on_from(self: Arc<Self>, before: &Self) -> Arc<Self> {
        if self.book.ledger.quota != before.book.ledger.quota {
            return self;
        }
        let (files, book) = (Arc::clone(&self.files), Arc::clone(&before.book));
        Arc::new(Self { files, book })
    }

    /// Work that counts the tree, if that is due; `at_start`: a session begins. `clock` tells when
    /// it was done.
    pub(crate) fn count_if_due(
        &self,
        now: Instant,
        at_start: bool,
        clock: fn() -> Instant,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        if !self.book.ledger.begin_count(now, at_start) {
            return None;
        }
        let (files, counting) = (Arc::clone(&self.files), Counting(Arc::clone(&self.book)));
        Some(async move {
            let found = walk::count(files).await;
            if let Err(error) = &found {
                tracing::warn!(%error, "a tree could not be counted for its quota");
            }
            counting.0.ledger.end_count(found.ok(), clock());
        })
    }

    /// Whether something was refused since the tree was counted.
    pub(crate) fn has_refused(&self) -> bool {
        self.book.ledger.counts().has_refused
    }

    /// What has to be known before a call is made: of what, and whether of a link itself.
    fn question(call: &Call) -> Option<Call> {
        let (path, links) = match call {
            // One that has to be new is empty.
            Call::Open { path, how } if !matches!(how.create, Create::New { .. }) => {
                (path, Links::Follow)
            }
            Call::Change {
                path,
                links,
                change,
            } if change.size.is_some() => (path, *links),
            Call::Remove { path } | Call::HardLink { from: path, .. } => (path, Links::Stay),
            Call::Rename {
                from,
                to,
                target: Target::MayExist,
            } if from != to => (to, Links::Stay),
            _ => return None,
        };
        let path = path.clone();
        Some(Call::Metadata { path, links })
    }

    /// Charges what a call will cost.
    fn charge(&self, call: &Call, known: Option<Metadata>) -> io::Result<Settlement> {
        let more = match (call, known) {
            (Call::Open { how, .. }, None) if how.create != Create::Never => Amount::NAME,
            (Call::CreateDirectory { .. } | Call::Symlink { .. }, _) => Amount::NAME,
            (Call::HardLink { .. }, Some(known)) => Amount {
                bytes: known.size,
                files: 1,
            },
            (Call::Remove { path } | Call::Rename { to: path, .. }, Some(known)) => {
                return Ok(Settlement::Gone(path.clone(), known));
            }
            _ => return Ok(Settlement::Nothing),
        };
        self.book.ledger.charge(more)?;
        Ok(Settlement::Charged(more))
    }

    /// Settles what was charged, and takes in what a call changed.
    fn settle(&self, call: &Call, settlement: Settlement, is_done: bool) {
        match settlement {
            Settlement::Charged(more) if !is_done => self.book.ledger.credit(more),
            Settlement::Gone(path, known) if is_done => self.book.gone(&path, &known),
            _ => {}
        }
        match call {
            Call::RemoveDirectory { .. } if is_done => self.book.ledger.credit(Amount::NAME),
            Call::Rename { from, to, .. } if is_done => self.book.renamed(from, to),
            _ => {}
        }
    }

    /// What tells, after a rename, whether it did anything: two names of one file it leaves as they
    /// are (POSIX `rename`).
    fn afterthought(call: &Call, known: Option<&Metadata>) -> Option<Call> {
        match call {
            Call::Rename { from, .. } if known.is_some_and(|known| known.links > 1) => {
                Some(Call::Metadata {
                    path: from.clone(),
                    links: Links::Stay,
                })
            }
            _ => None,
        }
    }

    /// What is asked of the file system in the call's place: a length is changed through a handle,
    /// which knows what it was.
    fn instead(call: &Call) -> Call {
        match call {
            Call::Change { path, change, .. } if change.size.is_some() => {
                let path = path.clone();
                let how = OpenHow {
                    write: true,
                    read: false,
                    ..OpenHow::read()
                };
                Call::Open { path, how }
            }
            call => call.clone(),
        }
    }

    /// Whether a call changes nothing that is counted, and needs no turn.
    fn is_free(call: &Call) -> bool {
        match call {
            Call::Open { how, .. } => how.create == Create::Never && !how.write,
            Call::Change { change, .. } => change.size.is_none(),
            Call::Remove { .. }
            | Call::RemoveDirectory { .. }
            | Call::CreateDirectory { .. }
            | Call::Rename { .. }
            | Call::Symlink { .. }
            | Call::HardLink { .. } => false,
            _ => true,
        }
    }
}

/// The length that a file has now is unknown to nobody but a link: it has none.
fn known(result: io::Result<Answer>) -> io::Result<Option<Metadata>> {
    match result {
        Ok(Answer::Metadata(metadata)) => Ok(Some(metadata)),
        Ok(_) => Err(ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
        // The call itself says what is wrong.
        Err(_) => Ok(None),
    }
}

/// Whether nothing has the name for sure: what is credited wrongly is paid by nobody, what is not
/// credited the next count tells.
fn is_missing(answer: &io::Result<Answer>) -> bool {
    let kind = answer.as_ref().err().map(io::Error::kind);
    kind == Some(ErrorKind::NotFound)
}

fn is_file(metadata: &Metadata) -> bool {
    metadata.mode & TYPE_BITS == TYPE_FILE
}

/// The length of a link itself cannot be changed.
fn refuse_link(call: &Call, known: Option<&Metadata>) -> io::Result<()> {
    match (call, known) {
        (Call::Change { links, .. }, Some(known)) if *links == Links::Stay && !is_file(known) => {
            Err(ErrorKind::Unsupported.into())
        }
        _ => Ok(()),
    }
}

impl FileSystem for Metered {
    fn try_call(&self, call: &Call) -> io::Result<Answer> {
        if Self::is_free(call) {
            return self.files.try_call(call);
        }
        let Ok(_turn) = self.book.turn.try_lock() else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let known = match Self::question(call) {
            Some(question) => known(self.files.try_call(&question))?,
            None => None,
        };
        refuse_link(call, known.as_ref())?;
        let settlement = self.charge(call, known)?;
        let afterthought = Self::afterthought(call, known.as_ref());
        let result = self.files.try_call(&Self::instead(call));
        let is_undone = result.is_ok()
            && afterthought.is_some_and(|look| !is_missing(&self.files.try_call(&look)));
        self.settle(call, settlement, result.is_ok() && !is_undone);
        let file = match result? {
            Answer::File(file) => file,
            answer => return Ok(answer),
        };
        let file = self.book.metered(file, call, known.as_ref());
        match call {
            Call::Change { change, .. } => file.try_call(&FileCall::Change(*change)),
            _ => Ok(Answer::File(file)),
        }
    }

    fn can_watch(&self) -> bool {
        self.files.can_watch()
    }

    fn watch(self: Arc<Self>, request: WatchRequest, feed: Feed) -> Work<Subscription> {
        Arc::clone(&self.files).watch(request, feed)
    }

    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        if Self::is_free(&call) {
            return Arc::clone(&self.files).call(call);
        }
        Box::pin(async move {
            let _turn = self.book.turn.lock().await;
            let known = match Self::question(&call) {
                Some(question) => known(Arc::clone(&self.files).call(question).await)?,
                None => None,
            };
            refuse_link(&call, known.as_ref())?;
            let settlement = self.charge(&call, known)?;
            let afterthought = Self::afterthought(&call, known.as_ref());
            let result = Arc::clone(&self.files).call(Self::instead(&call)).await;
            let is_undone = match afterthought.filter(|_| result.is_ok()) {
                Some(look) => !is_missing(&Arc::clone(&self.files).call(look).await),
                None => false,
            };
            self.settle(&call, settlement, result.is_ok() && !is_undone);
            let file = match result? {
                Answer::File(file) => file,
                answer => return Ok(answer),
            };
            let file = self.book.metered(file, &call, known.as_ref());
            match call {
                Call::Change { change, .. } => file.call(FileCall::Change(change)).await,
                _ => Ok(Answer::File(file)),
            }
        })
    }
}

impl Book {
    fn open(&self) -> MutexGuard<'_, Vec<Weak<OpenFile>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metered form of a file that was opened, of which that much was known before.
    fn metered(
        self: &Arc<Self>,
        file: Arc<dyn File>,
        call: &Call,
        known: Option<&Metadata>,
    ) -> Arc<MeteredFile> {
        let identity = file.identity();
        let len = known.map_or(0, |known| known.size);
        let (path, appends, is_emptied) = match call {
            Call::Open { path, how } => (path.clone(), how.append, how.truncate && how.write),
            Call::Change { path, .. } => (path.clone(), false, false),
            _ => (VPath::root(), false, false),
        };
        let mut open = self.open();
        open.retain(|file| file.strong_count() > 0);
        let mut shared = open.iter().filter_map(Weak::upgrade);
        let same = shared.find(|open| identity.is_some() && open.identity == identity);
        let known = same.unwrap_or_else(|| {
            let known = Arc::new(OpenFile {
                book: Arc::clone(self),
                identity,
                path: Mutex::new(path),
                length: Mutex::new(Length {
                    bytes: len,
                    ..Length::default()
                }),
                is_nameless: AtomicBool::new(false),
            });
            open.push(Arc::downgrade(&known));
            known
        });
        drop(open);
        if is_emptied {
            known.has_become(0);
        }
        Arc::new(MeteredFile {
            file,
            known,
            appends,
        })
    }

    fn open_at(&self, path: &VPath) -> Option<Arc<OpenFile>> {
        let open = self.open();
        let mut open = open.iter().filter_map(Weak::upgrade);
        let is_there = |file: &Arc<OpenFile>| !file.is_nameless.load(Ordering::Relaxed);
        open.find(|file| is_there(file) && *locked(&file.path) == *path)
    }

    /// A name is gone, by removal or because another one took its place.
    fn gone(&self, path: &VPath, known: &Metadata) {
        let open = self.open_at(path).filter(|_| known.links <= 1);
        let bytes = match open {
            Some(open) => {
                open.is_nameless.store(true, Ordering::Relaxed);
                0 // when it is closed
            }
            None if is_file(known) => known.size,
            None => 0,
        };
        self.ledger.credit(Amount { bytes, files: 1 });
    }

    /// Open files are known by their new names from now on.
    fn renamed(&self, from: &VPath, to: &VPath) {
        for file in self.open().iter().filter_map(Weak::upgrade) {
            let mut path = locked(&file.path);
            let rest = path.as_bytes().strip_prefix(from.as_bytes());
            let new = match rest {
                Some(b"") => Some(to.clone()),
                Some(rest @ [b'/', ..]) => rest.get(1..).and_then(|rest| to.walk(rest).ok()),
                _ => None,
            };
            if let Some(new) = new.filter(|_| !file.is_nameless.load(Ordering::Relaxed)) {
                *path = new;
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for OpenFile {
    /// What had no name any more is gone now.
    fn drop(&mut self) {
        if self.is_nameless.load(Ordering::Relaxed) {
            let bytes = locked(&self.length).bytes;
            self.book.ledger.credit(Amount::bytes(bytes));
        }
    }
}

impl OpenFile {
    /// The file is about to reach up to `end`, which is charged.
    fn reach(&self, end: u64) -> io::Result<Changing<'_>> {
        let mut length = locked(&self.length);
        let more = end.saturating_sub(length.bytes);
        self.begin(&mut length, more, false)
    }

    /// So many bytes are about to be added at the end, which is charged.
    fn append(&self, more: u64) -> io::Result<Changing<'_>> {
        self.begin(&mut locked(&self.length), more, true)
    }

    fn begin(&self, length: &mut Length, more: u64, appends: bool) -> io::Result<Changing<'_>> {
        if more > 0 {
            self.book.ledger.charge(Amount::bytes(more))?;
            length.bytes = length.bytes.saturating_add(more);
        }
        length.under_way = length.under_way.saturating_add(1);
        length.begun = length.begun.wrapping_add(1);
        Ok(Changing {
            known: self,
            more,
            number: length.begun,
            appends,
            has_ended: false,
        })
    }

    /// The file is so long, as was just done or seen. While others change it, that says nothing.
    fn has_become(&self, size: u64) {
        let mut length = locked(&self.length);
        if length.under_way > 0 {
            length.is_unsure = true;
        } else {
            self.lower(&mut length, size);
        }
    }

    fn lower(&self, length: &mut Length, size: u64) {
        length.is_unsure = false;
        if let Some(less) = length.bytes.checked_sub(size) {
            self.book.ledger.credit(Amount::bytes(less));
            length.bytes = size;
        }
    }

    /// Takes in what a look at the file has told, if nothing was begun since.
    fn learn(&self, look: u64, answer: io::Result<Answer>) {
        let mut length = locked(&self.length);
        if let Ok(Answer::Metadata(metadata)) = answer
            && length.begun == look
        {
            self.lower(&mut length, metadata.size);
        }
    }
}

impl Changing<'_> {
    /// It is over. Where the length is in doubt and nobody else changes it, gives what a look at the
    /// file is good for, by [`OpenFile::learn`].
    fn end(mut self, end: End) -> Option<u64> {
        self.has_ended = true;
        self.settle(end)
    }

    fn settle(&self, end: End) -> Option<u64> {
        let mut length = locked(&self.known.length);
        length.under_way = length.under_way.saturating_sub(1);
        match end {
            End::Done => {}
            // Nobody came since, who might count on what was charged.
            End::PutOff if self.appends || length.begun == self.number => {
                length.bytes = length.bytes.saturating_sub(self.more);
                self.known.book.ledger.credit(Amount::bytes(self.more));
            }
            End::PutOff => length.is_unsure |= self.more > 0,
            End::Unsure => length.is_unsure = true,
        }
        (length.is_unsure && length.under_way == 0).then_some(length.begun)
    }
}

impl Drop for Changing<'_> {
    /// Its work was given up.
    fn drop(&mut self) {
        if !self.has_ended {
            self.settle(End::Unsure);
        }
    }
}

/// An open file of which a ledger is kept.
#[derive(Debug)]
struct MeteredFile {
    file: Arc<dyn File>,
    known: Arc<OpenFile>,
    appends: bool,
}

impl MeteredFile {
    fn charge_write(&self, offset: u64, len: usize) -> io::Result<Changing<'_>> {
        let len = len as u64;
        match self.appends {
            true => self.known.append(len),
            false => self.known.reach(offset.saturating_add(len)),
        }
    }

    /// Looks at the file where its length is in doubt.
    fn try_look(&self, look: Option<u64>) {
        if let Some(look) = look {
            let answer = self.file.try_call(&FileCall::Metadata);
            self.known.learn(look, answer);
        }
    }

    async fn look(&self, look: Option<u64>) {
        if let Some(look) = look {
            let answer = Arc::clone(&self.file).call(FileCall::Metadata).await;
            self.known.learn(look, answer);
        }
    }
}

impl File for MeteredFile {
    fn try_read_at(&self, offset: u64, slots: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.file.try_read_at(offset, slots)
    }

    fn try_write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        let charged = self.charge_write(offset, len)?;
        let result = self.file.try_write_at(offset, slices);
        let end = match &result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => End::PutOff,
            Ok(_) if !self.appends => End::Done,
            // Of bytes that are appended the rest is offered, and charged, once more.
            Ok(_) | Err(_) => End::Unsure,
        };
        self.try_look(charged.end(end));
        result
    }

    fn try_call(&self, call: &FileCall) -> io::Result<Answer> {
        let FileCall::Change(Change {
            size: Some(size), ..
        }) = call
        else {
            return self.file.try_call(call);
        };
        let charged = self.known.reach(*size)?;
        let result = self.file.try_call(call);
        let end = match &result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => End::PutOff,
            Err(_) => End::Unsure,
            Ok(_) => End::Done,
        };
        self.try_look(charged.end(end));
        if result.is_ok() {
            self.known.has_become(*size);
        }
        result
    }

    fn read_at(self: Arc<Self>, offset: u64, block: Block) -> Work<Block> {
        Arc::clone(&self.file).read_at(offset, block)
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        Box::pin(async move {
            let charged = self.charge_write(offset, bytes.len())?;
            let result = Arc::clone(&self.file).write_at(offset, bytes).await;
            let end = match result.is_err() {
                true => End::Unsure,
                false => End::Done,
            };
            self.look(charged.end(end)).await;
            result
        })
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        let FileCall::Change(Change {
            size: Some(size), ..
        }) = call
        else {
            return Arc::clone(&self.file).call(call);
        };
        Box::pin(async move {
            let charged = self.known.reach(size)?;
            let result = Arc::clone(&self.file).call(call).await;
            let end = match result.is_err() {
                true => End::Unsure,
                false => End::Done,
            };
            self.look(charged.end(end)).await;
            if result.is_ok() {
                self.known.has_become(size);
            }
            result
        })
    }

    fn identity(&self) -> Option<(u64, u64)> {
        self.file.identity()
    }
}

#[cfg(test)]
mod tests;
