//! Files into a local directory: whole or not at all, under one name, once.
//!
//! ```text
//!   .ketch-<chance>.part ── copy, length, time, id ── fsync ── rename ── fsync of the directory
//! ```
//!
//! A crash before the rename leaves an unfinished file, which the next delivery into the same
//! directory removes; one after it is known by the hidden file that waited for the name and has gone
//! (see `held`), or by the file that has the name: by the id that it carries, or by its length and
//! SHA-256. Nothing below the directory is reached through a
//! link, so whoever may write there cannot send a delivery elsewhere.
//!
//! What is appended has no instant in which it is whole: see `append`.

mod appending;
mod held;
#[cfg(not(unix))]
#[path = "directory/portable.rs"]
mod sys;
#[cfg(unix)]
#[path = "directory/unix.rs"]
mod sys;
#[cfg(all(test, unix))]
mod tests;

use std::collections::HashSet;
use std::fs::{File, FileTimes};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use ketch_client::Kind;
use ring::digest;
use tokio::runtime::Handle;

use self::held::Fate;
use self::sys::Dir;
use super::event::{hex, shown};
use super::fence::Fence;
use super::name::{self, Exists, NUMBERS_MAX, Names, OURS, number_of, numbered, split};
use super::steps::Steps;
use super::template::{Template, uuid};
use super::{Answer, Content, Parcel, Sink, SinkError, Takes};
use crate::flow::item::Item;
use crate::store::Placement;

/// How the name of an unfinished file ends.
const PART: &[u8] = b".part";
/// Directories that are known to hold nothing that was left behind; beyond it they are looked at
/// once more.
const TIDY_MAX: usize = 4096;
/// Bytes that are read at a time to compare.
const CHUNK_LEN: usize = 256 * 1024;

/// How files are put into a directory.
#[derive(Clone, Debug)]
pub struct DirectorySettings {
    /// The sink's name.
    pub name: String,
    /// The directory, which exists: one that is missing is a share that is not mounted.
    pub path: PathBuf,
    /// How files are called below it. Default: as at the source.
    pub template: Template,
    /// What happens when a name is taken. Default: an error.
    pub exists: Exists,
    /// Whether the file may be another name of the fetched one, where both are on one file system:
    /// nothing is copied then. For flows of which no other sink reads the content, as whoever changes
    /// the file in place changes that as well. Default: no.
    pub share: bool,
    /// Whether files get the time of last change that they have at the source. Default: yes.
    pub times: bool,
}

impl DirectorySettings {
    /// The defaults: the source's tree, and no name may be taken.
    #[must_use]
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            template: Template::mirror(),
            exists: Exists::Error,
            share: false,
            times: true,
        }
    }
}

/// A sink that puts files into a local directory.
#[derive(Debug)]
pub struct DirectorySink {
    inner: Arc<Inner>,
}

/// What a thread for blocking work gets.
#[derive(Debug)]
struct Inner {
    settings: DirectorySettings,
    /// Directories without leftovers, by device and number.
    tidy: Mutex<HashSet<(u64, u64)>>,
    steps: Steps,
}

/// What has a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    Nothing,
    File { len: u64 },
    Other,
}

/// What a file that has the chosen name is to the item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    Ours,
    Another,
}

/// What is put where: the arguments of one delivery, owned.
#[derive(Debug)]
struct Job {
    item: Item,
    placement: Placement,
    content: Content,
    again: bool,
    fence: Fence,
    runtime: Handle,
}

impl DirectorySink {
    /// A sink; the directory is looked at when something comes.
    #[must_use]
    pub fn new(settings: DirectorySettings) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                tidy: Mutex::default(),
                steps: Steps::default(),
            }),
        }
    }

    /// Does `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(error) => Err(SinkError::Failed {
                what: "the delivery was broken off".to_owned(),
                kind: Kind::Cancelled,
                source: Box::new(error),
            }),
        }
    }
}

impl Sink for DirectorySink {
    fn name(&self) -> &str {
        &self.inner.settings.name
    }

    fn takes(&self) -> Takes {
        Takes::CONTENT
    }

    fn place<'a>(
        &'a self,
        item: &'a Item,
        refused: Option<&'a Placement>,
    ) -> Answer<'a, Placement> {
        Box::pin(async move {
            let name = self.inner.settings.template.place(item, Names::HERE)?;
            let refused = refused.map(|placement| placement.name.clone());
            let item = item.clone();
            self.blocking(move |inner| inner.place(&item, &name, refused.as_deref()))
                .await
        })
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let job = Job {
                item: parcel.item.clone(),
                placement: parcel.placement.clone(),
                content: parcel.bytes()?.clone(),
                again: parcel.again,
                fence: parcel.fence.clone(),
                runtime: Handle::current(),
            };
            self.blocking(move |inner| inner.deliver(&job)).await
        })
    }

    fn waits<'a>(&'a self, placement: &'a Placement) -> Answer<'a, bool> {
        let placement = placement.clone();
        Box::pin(self.blocking(move |inner| inner.waits(&placement)))
    }

    fn forget<'a>(&'a self, placement: &'a Placement) -> Answer<'a, ()> {
        let placement = placement.clone();
        Box::pin(self.blocking(move |inner| inner.let_go(&placement)))
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(self.blocking(|inner| {
            let root = inner.root()?;
            root.is_writable().map_err(inner.failed("write into", b""))
        }))
    }
}

impl Inner {
    fn root(&self) -> Result<Dir, SinkError> {
        Dir::open(&self.settings.path).map_err(self.failed("open", b""))
    }

    /// Makes the error of what was attempted on `name`, which the system refused.
    fn failed(&self, attempt: &'static str, name: &[u8]) -> impl Fn(io::Error) -> SinkError {
        let path = self.settings.path.join(sys::path_of(name));
        move |error| SinkError::Failed {
            what: format!("cannot {attempt} {}", path.display()),
            kind: Kind::of_local(&error),
            source: Box::new(error),
        }
    }

    /// Chooses a name, and makes what waits for it.
    fn place(
        &self,
        item: &Item,
        name: &[u8],
        refused: Option<&[u8]>,
    ) -> Result<Placement, SinkError> {
        let mut placement = self.choose(name, refused)?;
        if self.settings.exists != Exists::Append {
            placement.note = self.held_for(item, &placement.name)?;
        }
        Ok(placement)
    }

    fn held_for(&self, item: &Item, name: &[u8]) -> Result<Vec<u8>, SinkError> {
        let (path, last) = split(name);
        let (dir, _) = self.make_directories(path)?;
        let failed = self.failed("write into", path);
        // Nothing waits for a name that stays another's.
        if self.settings.exists == Exists::Skip && dir.look(last).map_err(&failed)? != Held::Nothing
        {
            return Ok(Vec::new());
        }
        self.hold(&dir, item).map_err(failed)
    }

    fn choose(&self, name: &[u8], refused: Option<&[u8]>) -> Result<Placement, SinkError> {
        let (path, last) = split(name);
        let dir = match self.root()?.below(path) {
            Ok(dir) => Some(dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.failed("open", path)(error)),
        };
        let look = |last: &[u8]| match &dir {
            Some(dir) => dir.look(last).map_err(self.failed("look at", name)),
            None => Ok(Held::Nothing),
        };
        let exists = || SinkError::Exists { name: shown(name) };
        let mut placement = Placement {
            name: name.to_vec(),
            length: None,
            note: Vec::new(),
        };
        match self.settings.exists {
            Exists::Overwrite | Exists::Skip => {}
            Exists::Error => {
                if look(last)? != Held::Nothing {
                    return Err(exists());
                }
            }
            Exists::Append => {
                placement.length = Some(match look(last)? {
                    Held::Nothing => 0,
                    Held::File { len } => len,
                    Held::Other => return Err(exists()),
                });
            }
            Exists::Unique => {
                let after = refused.and_then(|refused| number_of(name, refused));
                for number in after.map_or(0, |number| number.saturating_add(1))..NUMBERS_MAX {
                    let chosen = numbered(name, number);
                    let (_, last) = split(&chosen);
                    name::check_component(last, Names::HERE).map_err(|fault| fault.of(&chosen))?;
                    if look(last)? == Held::Nothing {
                        placement.name = chosen;
                        return Ok(placement);
                    }
                }
                return Err(exists());
            }
        }
        Ok(placement)
    }

    fn deliver(&self, job: &Job) -> Result<(), SinkError> {
        let name = job.placement.name.as_slice();
        // It comes from the ledger, which may have been moved or edited.
        name::check(name, Names::HERE).map_err(|fault| fault.of(name))?;
        let (path, last) = split(name);
        let (dir, is_new) = self.make_directories(path)?;
        self.tidy(&dir);
        if self.settings.exists == Exists::Append {
            return self.append(&dir, last, job);
        }
        let mut is_gone = false;
        loop {
            let fate = self.fate(&dir, is_new, &job.placement);
            match fate.map_err(self.failed("look at", name))? {
                Fate::Waits(held) => {
                    if self.deliver_held(&dir, &held, job)? {
                        return Ok(());
                    }
                    // Who lost its claim has no part in what became of it.
                    job.fence.ask_blocking(&job.runtime)?;
                    is_gone = true;
                }
                Fate::Named if job.again => return dir.sync().map_err(self.failed("sync", path)),
                Fate::Named | Fate::Unknown => break,
            }
        }
        self.deliver_unheld(&dir, job, job.again || is_gone)
    }

    /// Delivers where nothing waits. `again`: an earlier attempt may have come to its end.
    fn deliver_unheld(&self, dir: &Dir, job: &Job, again: bool) -> Result<(), SinkError> {
        let name = job.placement.name.as_slice();
        let (path, last) = split(name);
        if again {
            let found = self.find(dir, last, job);
            match found.map_err(self.failed("compare", name))? {
                Found::Nothing => {}
                // Its name may not have reached the disk yet.
                Found::Ours => return dir.sync().map_err(self.failed("sync", path)),
                Found::Another if self.settings.exists == Exists::Overwrite => {}
                Found::Another => return self.taken(name),
            }
        }
        // Nothing is copied for a name that is taken already.
        if !again && self.settings.exists != Exists::Overwrite {
            let held = dir.look(last).map_err(self.failed("look at", name))?;
            if held != Held::Nothing {
                return self.taken(name);
            }
        }
        let part = part_name();
        let made = self
            .make(dir, &part, job)
            .map_err(self.failed("write", name));
        let passed = made.and_then(|file| {
            job.fence.pass_blocking(&job.runtime)?;
            Ok(file)
        });
        let put = passed.and_then(|_file| match self.put(dir, &part, last, name) {
            // Whoever had this claim before may have been slow, not dead: then it is the same file.
            Err(SinkError::Taken { .. } | SinkError::Exists { .. })
                if matches!(self.find(dir, last, job), Ok(Found::Ours)) =>
            {
                Ok(())
            }
            put => put,
        });
        if put.is_err() && self.steps.pass().is_ok() {
            // After a rename that went well it is not there any more.
            let _ = dir.remove(&part);
        }
        put?;
        self.steps
            .pass()
            .and_then(|()| dir.sync())
            .map_err(self.failed("sync", path))
    }

    /// What follows from a name that is taken.
    fn taken(&self, name: &[u8]) -> Result<(), SinkError> {
        match self.settings.exists {
            Exists::Skip => Ok(()),
            Exists::Unique => Err(SinkError::Taken { name: shown(name) }),
            _ => Err(SinkError::Exists { name: shown(name) }),
        }
    }

    /// Gives the whole file its name.
    fn put(&self, dir: &Dir, part: &[u8], last: &[u8], name: &[u8]) -> Result<(), SinkError> {
        let renamed = self.steps.pass().and_then(|()| {
            if self.settings.exists == Exists::Overwrite {
                dir.rename(part, last)
            } else {
                dir.rename_new(part, last)
            }
        });
        match renamed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let _ = dir.remove(part);
                self.taken(name)
            }
            other => other.map_err(self.failed("name", name)),
        }
    }

    /// The directory `path` below the root; what of it is missing is made, and durable. Whether
    /// anything was.
    fn make_directories(&self, path: &[u8]) -> Result<(Dir, bool), SinkError> {
        let failed = self.failed("make", path);
        let root = self.root()?;
        match root.below(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(|dir| (dir, false)).map_err(failed),
        }
        let (mut dir, mut is_new) = (root, false);
        for component in path.split(|&byte| byte == b'/') {
            self.steps.pass().map_err(&failed)?;
            if dir.make(component).map_err(&failed)? {
                dir.sync().map_err(&failed)?;
                is_new = true;
            }
            dir = dir.child(component).map_err(&failed)?;
        }
        Ok((dir, is_new))
    }

    /// Makes the unfinished file, whole and durable, under the name `part`. It is marked as in use as
    /// long as what this gives is open.
    fn make(&self, dir: &Dir, part: &[u8], job: &Job) -> io::Result<File> {
        let Job { item, content, .. } = job;
        let file = match self.share(dir, part, content)? {
            Some(file) => file,
            None => {
                let mut file = self.create_part(dir, part)?;
                let mut from = File::open(&content.path)?;
                self.steps.pass()?;
                if !sys::clone_content(&from, &file) {
                    // The kernel copies, where it can.
                    io::copy(&mut from, &mut file)?;
                }
                file
            }
        };
        if file.metadata()?.len() != content.len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the fetched file does not have the length that it had",
            ));
        }
        if let Some(mtime) = item.facts.mtime.filter(|_| self.settings.times) {
            let mtime = UNIX_EPOCH + Duration::from_secs(mtime.into());
            file.set_times(FileTimes::new().set_modified(mtime))?;
        }
        sys::set_id(&file, &uuid(item));
        self.steps.pass()?;
        file.sync_all()?;
        Ok(file)
    }

    /// Makes an empty file that is marked as in use.
    fn create_part(&self, dir: &Dir, part: &[u8]) -> io::Result<File> {
        loop {
            self.steps.pass()?;
            let file = dir.create_new(part)?;
            sys::lock_shared(&file);
            // Who tidies up may have found it before it was marked, and has removed it then.
            if dir.look(part)? != Held::Nothing {
                return Ok(file);
            }
        }
    }

    /// Makes another name for the fetched file, if that is wanted and can be.
    fn share(&self, dir: &Dir, part: &[u8], content: &Content) -> io::Result<Option<File>> {
        if !self.settings.share {
            return Ok(None);
        }
        self.steps.pass()?;
        if dir.link(&content.path, part).is_err() {
            return Ok(None); // another file system, or one without second names
        }
        let file = dir.open_file(part)?;
        sys::lock_shared(&file);
        sys::open_up(&file)?;
        Ok(Some(file))
    }

    /// What has the chosen name.
    fn find(&self, dir: &Dir, last: &[u8], job: &Job) -> io::Result<Found> {
        match dir.look(last)? {
            Held::Nothing => return Ok(Found::Nothing),
            Held::Other => return Ok(Found::Another),
            Held::File { .. } => {}
        }
        let file = match dir.open_file(last) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        // Two items may have the same bytes; a file has the id of one.
        let is_ours = match sys::id(&file) {
            Some(id) => id == uuid(&job.item).as_bytes(),
            None => is_copy(file, &job.content, 0)?,
        };
        Ok(if is_ours { Found::Ours } else { Found::Another })
    }

    /// Removes what earlier processes left unfinished in a directory, once for each.
    fn tidy(&self, dir: &Dir) {
        let Ok(identity) = dir.identity() else {
            return;
        };
        {
            let mut tidy = self.tidy.lock().unwrap_or_else(PoisonError::into_inner);
            if tidy.len() >= TIDY_MAX {
                tidy.clear();
            }
            if !tidy.insert(identity) {
                return;
            }
        }
        for name in dir.names_with(OURS).unwrap_or_default() {
            let Ok(file) = dir.open_file(&name) else {
                continue;
            };
            let is_left = (is_part_name(&name) || held::is_forgotten(&name, &file))
                && sys::is_abandoned(&file);
            if is_left && self.steps.pass().is_ok() {
                let removed = dir.remove(&name);
                tracing::info!(name = shown(&name), ?removed, "an unfinished file was left");
            }
            // Whoever made it just now waits for this to mark it, and sees that it has gone.
            drop(file);
        }
    }
}

/// A name for an unfinished file that nobody has.
fn part_name() -> Vec<u8> {
    let chance = RandomState::new().hash_one(0);
    [OURS, format!("{chance:016x}").as_bytes(), PART].concat()
}

/// Whether `name` is one that [`part_name`] makes.
fn is_part_name(name: &[u8]) -> bool {
    let digits = name
        .strip_prefix(OURS)
        .and_then(|rest| rest.strip_suffix(PART));
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Whether the bytes of `file` from `offset` on begin with the content; at 0, whether they are the
/// content.
fn is_copy(file: File, content: &Content, offset: u64) -> io::Result<bool> {
    use std::io::{Seek as _, SeekFrom};
    let len = file.metadata()?.len();
    let end = offset.checked_add(content.len);
    if end.is_none_or(|end| len < end || (offset == 0 && len != end)) {
        return Ok(false);
    }
    let mut file = file;
    file.seek(SeekFrom::Start(offset))?;
    Ok(sha256(file.take(content.len))? == content.sha256)
}

/// SHA-256 of all that can be read.
fn sha256(mut from: impl io::Read) -> io::Result<[u8; 32]> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(chunk.get(..read).unwrap_or_default());
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(hash.finish().as_ref());
    Ok(sum)
}

/// The name of the notes about appends to `last`.
fn notes_name(last: &[u8]) -> Vec<u8> {
    let sum = digest::digest(&digest::SHA256, last);
    let start = sum.as_ref().get(..8).unwrap_or_default();
    format!("{}{}", super::append::PREFIX, hex(start)).into_bytes()
}

/// Where a delivered file is, for programs on this machine.
#[must_use]
pub fn local_path(root: &Path, placement: &Placement) -> PathBuf {
    root.join(sys::path_of(&placement.name))
}
