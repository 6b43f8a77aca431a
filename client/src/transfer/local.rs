//! Local files of transfers: created under a temporary name, given their own when whole.
//!
//! All functions here block, and leave nothing behind when they fail.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ketch_protocol::{Owner, Times};

use super::{
    disk::{Speed, Speeds},
    names::{self, Identity},
    options::{Durability, Overwrite, Resume, Sparse},
    part,
};
use crate::platform::{self, Dir, Held};

/// Names that are tried for a temporary file before giving up.
pub(crate) const ATTEMPTS_MAX: u8 = 4;

/// Something that could not be done to a local file or directory.
#[derive(Debug)]
pub struct LocalFault {
    /// What was tried.
    pub action: LocalAction,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What can be tried on a local file or directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LocalAction {
    /// To open it.
    Open,
    /// To create it.
    Create,
    /// To read it.
    Read,
    /// To write it.
    Write,
    /// To bring it to the disk.
    Sync,
    /// To set its times or permissions.
    SetAttrs,
    /// To give it its final name.
    Rename,
    /// To list it.
    List,
    /// To remove it.
    Remove,
}

impl fmt::Display for LocalAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SetAttrs => "set the attributes of",
            Self::Rename => "give the final name to",
            Self::List => "list",
            Self::Remove => "remove",
        })
    }
}

impl LocalFault {
    fn of(action: LocalAction, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// A directory at or below the one that a transfer is about.
///
/// It is opened when it is needed and closed when nobody uses it, so that a tree of a million
/// directories takes no more descriptors than there are files under way.
#[derive(Debug)]
pub(crate) struct Tree {
    parent: Option<Arc<Self>>,
    name: OsString,
    path: PathBuf,
    open: Mutex<Weak<Dir>>,
    /// The topmost directory stays open.
    root: Option<Arc<Dir>>,
    creates: bool,
    speed: Arc<Speed>,
}

impl Tree {
    /// Opens the directory that the user named.
    pub(crate) fn open_root(path: &Path, speeds: &Speeds) -> Result<Arc<Self>, LocalFault> {
        let dir = Dir::open(path).map_err(LocalFault::of(LocalAction::Open, path))?;
        Ok(Self::root(dir, false, speeds))
    }

    /// Opens the directory that the user named, or creates it; what is opened below will be
    /// created too.
    pub(crate) fn make_root(path: &Path, speeds: &Speeds) -> Result<Arc<Self>, LocalFault> {
        match std::fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // `.` and `/` cannot be created, and are there.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(LocalFault::of(LocalAction::Create, path)(error)),
        }
        let dir = Dir::open(path).map_err(LocalFault::of(LocalAction::Open, path))?;
        Ok(Self::root(dir, true, speeds))
    }

    fn root(dir: Dir, creates: bool, speeds: &Speeds) -> Arc<Self> {
        let speed = speeds.of(dir.file_system());
        Arc::new(Self {
            parent: None,
            name: OsString::new(),
            path: dir.path().to_owned(),
            open: Mutex::default(),
            root: Some(Arc::new(dir)),
            creates,
            speed,
        })
    }

    /// A directory in this one, not opened yet.
    pub(crate) fn child(self: &Arc<Self>, name: OsString) -> Arc<Self> {
        Arc::new(Self {
            path: self.path.join(&name),
            parent: Some(Arc::clone(self)),
            name,
            open: Mutex::default(),
            root: None,
            creates: self.creates,
            speed: Arc::clone(&self.speed),
        })
    }

    /// Where it is, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where `name` in it is, counted from the topmost directory, as it is written on the wire.
    pub(crate) fn relative(&self, name: &OsStr) -> Vec<u8> {
        let mut parts = vec![platform::remote_name(name).unwrap_or_default()];
        let mut tree = self;
        while let Some(parent) = &tree.parent {
            parts.push(platform::remote_name(&tree.name).unwrap_or_default());
            tree = parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// How quick the file system is.
    pub(crate) const fn speed(&self) -> &Arc<Speed> {
        &self.speed
    }

    /// Opens the directory, and those above it that are not open.
    pub(crate) fn dir(&self) -> Result<Arc<Dir>, LocalFault> {
        if let Some(root) = &self.root {
            return Ok(Arc::clone(root));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = open.upgrade() {
            return Ok(dir);
        }
        let Some(parent) = &self.parent else {
            return Err(LocalFault::of(LocalAction::Open, &*self.path)(
                io::ErrorKind::NotFound.into(),
            ));
        };
        // As deep as the tree, which has a limit.
        let parent = parent.dir()?;
        let dir = if self.creates {
            parent.make_child(&self.name)
        } else {
            parent.child(&self.name)
        };
        let dir = dir.map_err(LocalFault::of(LocalAction::Create, &*self.path))?;
        let dir = Arc::new(dir);
        *open = Arc::downgrade(&dir);
        Ok(dir)
    }

    /// What is in the directory.
    pub(crate) fn list(&self) -> Result<Vec<platform::LocalEntry>, LocalFault> {
        self.dir()?
            .list()
            .map_err(LocalFault::of(LocalAction::List, &*self.path))
    }
}

/// A file that is being written under a temporary name, and goes with the last who holds this,
/// unless it was given its own.
#[derive(Debug)]
pub(crate) struct Created {
    dir: Arc<Dir>,
    /// Whether it has its name; held while it gets it.
    named: Mutex<bool>,
    /// The open file.
    pub file: Arc<File>,
    temporary: OsString,
    name: OsString,
    /// Whether what is there stays when the transfer fails.
    keeps: AtomicBool,
    /// Bytes before this offset are compared with what is there, in place of being written.
    compared: AtomicU64,
    /// Something that was compared was not the same.
    differs: AtomicBool,
    /// Zeros are not written: they are holes already.
    sparse: bool,
    /// Attributes could not be set.
    refused: AtomicBool,
}

/// How a file is begun.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begin {
    pub mode: u32,
    pub overwrite: Overwrite,
    pub resume: Resume,
    pub sparse: Sparse,
}

/// How a written file is finished.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    pub size: u64,
    pub overwrite: Overwrite,
    pub durability: Durability,
    pub times: Option<Times>,
    pub mode: Option<u32>,
    pub owner: Option<Owner>,
}

impl Created {
    /// Creates a file that will be called `name`, or finds the part of it that was left.
    pub(crate) fn new(
        tree: &Tree,
        name: &OsStr,
        source: Identity,
        begin: Begin,
    ) -> Result<Self, LocalFault> {
        let Begin {
            mode,
            overwrite,
            resume,
            sparse,
        } = begin;
        let dir = tree.dir()?;
        let path = dir.path().join(name);
        let fault = |source| LocalFault::of(LocalAction::Create, &*path)(source);
        if overwrite == Overwrite::Never && dir.exists(name).map_err(fault)? {
            return Err(fault(io::ErrorKind::AlreadyExists.into()));
        }
        let mode = match dir.held(name).map_err(fault)? {
            Held::Nothing | Held::Plain(None) => mode,
            // What takes a file's place is read by the same people.
            Held::Plain(Some(mode)) => mode | 0o600,
            // A rename would take the place of a device or a pipe: `/dev/null` and its like stay.
            Held::Other => {
                let message = "something that is not a plain file has its name";
                return Err(fault(io::Error::new(io::ErrorKind::AlreadyExists, message)));
            }
        };
        let destination = path.as_os_str().as_encoded_bytes();
        let remote_name = platform::remote_name(name).unwrap_or_default();
        let resumes = resume != Resume::No;
        let mut attempt = 0;
        loop {
            let number = if resumes {
                names::attempt_at_part(attempt)
            } else {
                names::attempt(attempt)
            };
            let temporary = names::temporary(destination, &remote_name, source, number);
            let temporary = platform::local_name(&temporary).unwrap_or_default();
            let keeps = resumes && names::has_part_name(attempt);
            let found = match dir.create_new(&temporary, mode) {
                // Somebody who looks for a part may have found it already.
                Ok(file) if keeps && !platform::lock(&file) => {
                    Err(io::ErrorKind::AlreadyExists.into())
                }
                Err(error) if keeps && error.kind() == io::ErrorKind::AlreadyExists => {
                    match dir.open_part(&temporary) {
                        Ok(Some(file)) => Ok(file),
                        _ => Err(error),
                    }
                }
                other => other,
            };
            match found {
                Ok(file) => {
                    let created = Self {
                        dir,
                        named: Mutex::new(false),
                        file: Arc::new(file),
                        temporary,
                        name: name.to_owned(),
                        keeps: AtomicBool::new(keeps),
                        compared: AtomicU64::new(0),
                        differs: AtomicBool::new(false),
                        sparse: sparse == Sparse::Always,
                        refused: AtomicBool::new(false),
                    };
                    if keeps {
                        created.take_part(mode, source).map_err(fault)?;
                    }
                    return Ok(created);
                }
                // Left by somebody who was killed, or in use by somebody else: not ours.
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && attempt + 1 < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(fault(error)),
            }
        }
    }

    /// Cuts the part to what is believed of it.
    fn take_part(&self, mode: u32, source: Identity) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        if metadata.len() == 0 {
            return Ok(());
        }
        let fits = source.size.is_some_and(|size| metadata.len() <= size);
        let believed = if fits {
            part::believed(metadata.len())
        } else {
            0
        };
        if let Some(had) = platform::mode_of(&metadata) {
            platform::set_mode(&self.file, had & mode | 0o600)?;
        }
        self.file.set_len(believed)?;
        self.compared.store(believed, Ordering::Release);
        Ok(())
    }

    /// Bytes at the start that are there already, if the source turns out to have the same.
    pub(crate) fn believed(&self) -> u64 {
        self.compared.load(Ordering::Acquire)
    }

    /// Whether what was there turned out not to be of the same file.
    pub(crate) fn differs(&self) -> bool {
        self.differs.load(Ordering::Acquire)
    }

    /// Nothing of what is there is believed any more.
    pub(crate) fn begin_anew(&self) -> io::Result<()> {
        self.compared.store(0, Ordering::Release);
        self.differs.store(false, Ordering::Release);
        self.file.set_len(0)
    }

    /// From now on all that comes is compared with what was written.
    pub(crate) fn compare_all(&self, size: u64) -> io::Result<()> {
        if self.sparse {
            self.file.set_len(size)?;
        }
        self.compared.store(u64::MAX, Ordering::Release);
        Ok(())
    }

    /// What is there is of no use for another try.
    pub(crate) fn spoil(&self) {
        self.keeps.store(false, Ordering::Release);
    }

    /// Whether attributes could not be set as asked.
    pub(crate) fn was_refused_attrs(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// Takes adjacent bytes that came: they belong at `offset`.
    pub(crate) fn write(&self, run: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let compared = self.believed();
        if !self.sparse && offset >= compared {
            return platform::write_run(&self.file, run, offset);
        }
        let mut at = offset;
        for piece in run {
            // What is compared was asked for apart: no piece is half of this, half of that.
            if at < compared {
                if !self.has(piece, at)? {
                    self.differs.store(true, Ordering::Release);
                }
            } else if !self.sparse || !is_zero(piece) {
                platform::write_run(&self.file, &mut [IoSlice::new(piece)], at)?;
            }
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Whether these bytes are there already.
    fn has(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let mut there = vec![0; bytes.len()];
        let slots = &mut [io::IoSliceMut::new(&mut there)];
        let got = platform::read_slots(&self.file, slots, offset, false)?;
        Ok(got == bytes.len() && there == bytes)
    }

    /// The SHA-256 of all of it.
    pub(crate) fn hash(&self) -> Result<Hash, LocalFault> {
        let hash = hash_file(&self.file);
        hash.map_err(|source| self.fault(LocalAction::Read, source))
    }

    /// What the file will be called.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Where the file will be.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    /// Something went wrong with the file.
    pub(crate) fn fault(&self, action: LocalAction, source: io::Error) -> LocalFault {
        LocalFault {
            action,
            path: self.path(),
            source,
        }
    }

    /// Gives the file its times and its name, and brings it to the disk if that is wanted.
    ///
    /// Once is enough: who asks again finds it done.
    pub(crate) fn finish(&self, how: &Finish) -> Result<(), LocalFault> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if *named {
            return Ok(());
        }
        let fault = |action| move |source| self.fault(action, source);
        if self.sparse {
            let set = self.file.set_len(how.size);
            set.map_err(fault(LocalAction::Write))?;
        }
        let len = self
            .file
            .metadata()
            .map_err(fault(LocalAction::Write))?
            .len();
        if len != how.size {
            let message = format!("it has {len} bytes in place of {}", how.size);
            return Err(fault(LocalAction::Write)(io::Error::other(message)));
        }
        // The owner first: to give a file away takes bits from its permissions.
        let owner = how
            .owner
            .map(|owner| platform::set_owner(&self.file, owner));
        let mode = how.mode.map(|mode| platform::set_mode(&self.file, mode));
        let times = how
            .times
            .map(|Times { atime, mtime }| platform::set_times(&self.file, atime, mtime));
        for error in [owner, mode, times]
            .into_iter()
            .flatten()
            .filter_map(Result::err)
        {
            tracing::debug!(path = %self.path().display(), %error, "attributes are not set");
            self.refused.store(true, Ordering::Release);
        }
        if how.durability != Durability::None {
            self.file.sync_all().map_err(fault(LocalAction::Sync))?;
        }
        match how.overwrite {
            Overwrite::Replace => self.dir.rename(&self.temporary, &self.name),
            Overwrite::Never => self.dir.rename_new(&self.temporary, &self.name),
        }
        .map_err(fault(LocalAction::Rename))?;
        *named = true;
        if how.durability == Durability::FileAndDirectory {
            self.dir.sync().map_err(fault(LocalAction::Sync))?;
        }
        Ok(())
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if *self.named.get_mut().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        let is_worth_it = |file: &File| {
            let len = file.metadata().map(|metadata| metadata.len());
            len.is_ok_and(|len| part::believed(len) > 0)
        };
        if *self.keeps.get_mut() && is_worth_it(&self.file) {
            return;
        }
        if let Err(error) = self.dir.remove(&self.temporary) {
            tracing::warn!(path = %self.dir.path().join(&self.temporary).display(), %error,
                "a temporary file is left behind");
        }
    }
}

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// Bytes of a file that are read at a time to be hashed.
const HASHED_LEN: usize = 256 * 1024;

/// The SHA-256 of a file.
pub(crate) fn hash_file(file: &File) -> io::Result<Hash> {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; HASHED_LEN];
    let mut offset = 0;
    loop {
        let slots = &mut [io::IoSliceMut::new(&mut buffer)];
        let got = platform::read_slots(file, slots, offset, false)?;
        hash.update(buffer.get(..got).unwrap_or_default());
        offset += got as u64;
        if got < HASHED_LEN {
            return Ok(finish_hash(hash));
        }
    }
}

/// The value of a SHA-256.
pub(crate) fn finish_hash(hash: ring::digest::Context) -> Hash {
    let mut value = Hash::default();
    for (to, from) in value.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    value
}

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    // Most data is told by its first bytes.
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| ZEROS.starts_with(chunk))
}

/// A local file that is being read.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub size: u64,
    pub times: Times,
    /// Permission bits, where the platform has them.
    pub mode: Option<u32>,
    /// User and group, where the platform has numbers for them.
    pub owner: Option<Owner>,
    /// Where its data is, if it has holes and these matter.
    pub data_runs: Option<Arc<[(u64, u64)]>>,
    /// How quick its file system is.
    pub speed: Arc<Speed>,
}

impl Opened {
    /// The end of the hole that `offset` lies in, if it is in one. The last byte of the file is in
    /// none: it is sent, and so the copy has the size.
    pub(crate) fn hole_at(&self, offset: u64) -> Option<u64> {
        let runs = self.data_runs.as_ref()?;
        let next = runs.partition_point(|&(_, end)| end <= offset);
        let end = runs.get(next).map_or(self.size, |&(start, _)| start);
        let end = end.min(self.size.saturating_sub(1));
        (end > offset).then_some(end)
    }
}

/// The file to be opened for an upload.
#[derive(Clone, Debug)]
pub(crate) enum SourceFile {
    /// The user named it.
    Named(PathBuf),
    /// It was found in a directory.
    Found(Arc<Tree>, OsString),
}

impl SourceFile {
    /// Where it is, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Named(path) => path.clone(),
            Self::Found(tree, name) => tree.path().join(name),
        }
    }

    /// Opens it, if it is a plain file.
    pub(crate) fn open(&self, speeds: &Speeds, sparse: Sparse) -> Result<Opened, LocalFault> {
        let path = self.path();
        let fault = |action| LocalFault::of(action, &*path);
        let file = match self {
            Self::Named(path) => platform::open_source(path),
            Self::Found(tree, name) => tree.dir()?.open_file(name),
        }
        .map_err(fault(LocalAction::Open))?;
        let metadata = file.metadata().map_err(fault(LocalAction::Open))?;
        if !metadata.is_file() {
            let kind = if metadata.is_dir() {
                io::ErrorKind::IsADirectory.into()
            } else {
                io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")
            };
            return Err(fault(LocalAction::Open)(kind));
        }
        let speed = match self {
            Self::Named(path) => {
                let parent = path.parent().unwrap_or(Path::new("."));
                speeds.of(Dir::open(parent).map_or(0, |dir| dir.file_system()))
            }
            Self::Found(tree, _) => Arc::clone(tree.speed()),
        };
        let time = |time: io::Result<_>| time.map_or(0, platform::seconds);
        let data_runs = (sparse != Sparse::Never)
            .then(|| platform::data_runs(&file, &metadata))
            .flatten();
        Ok(Opened {
            file: Arc::new(file),
            size: metadata.len(),
            times: Times {
                atime: time(metadata.accessed()),
                mtime: time(metadata.modified()),
            },
            mode: platform::mode_of(&metadata),
            owner: platform::owner_of(&metadata),
            data_runs: data_runs.map(Into::into),
            path,
            speed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(tree: &Tree) -> Result<Created, LocalFault> {
        create_for(tree, Resume::No)
    }

    fn create_for(tree: &Tree, resume: Resume) -> Result<Created, LocalFault> {
        let source = Identity {
            size: Some(20 << 20),
            modified: Some(7),
        };
        let begin = Begin {
            mode: 0o666,
            resume,
            ..Begin::default()
        };
        Created::new(tree, OsStr::new("a"), source, begin)
    }

    #[test]
    fn a_part_is_found_by_one_at_a_time_and_its_end_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open_root(dir.path(), &Speeds::default()).unwrap();
        let count = || std::fs::read_dir(dir.path()).unwrap().count();
        let first = create_for(&tree, Resume::Verified).unwrap();
        assert_eq!(first.believed(), 0);
        first.file.set_len(part::TAIL_LEN + 1000).unwrap();
        // In use: the next begins one of its own, which is not worth keeping.
        let second = create_for(&tree, Resume::Verified).unwrap();
        assert_eq!((second.believed(), count()), (0, 2));
        // Who does not continue does not come near it.
        drop(create(&tree).unwrap());
        drop((first, second));
        assert_eq!(count(), 1);
        drop(create(&tree).unwrap());
        let again = create_for(&tree, Resume::Full).unwrap();
        assert_eq!((again.believed(), count()), (1000, 1));
        assert_eq!(again.file.metadata().unwrap().len(), 1000);
        again.spoil();
        drop(again);
        assert_eq!(count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_part_that_somebody_planted_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open_root(dir.path(), &Speeds::default()).unwrap();
        let created = create_for(&tree, Resume::Verified).unwrap();
        let name = dir.path().join(&created.temporary);
        drop(created);
        let victim = dir.path().join("victim");
        std::fs::write(&victim, vec![1; 9 << 20]).unwrap();
        for kind in ["link", "second name", "pipe"] {
            match kind {
                "link" => std::os::unix::fs::symlink("victim", &name).unwrap(),
                "second name" => std::fs::hard_link(&victim, &name).unwrap(),
                _ => drop(std::os::unix::net::UnixListener::bind(&name).unwrap()),
            }
            let created = create_for(&tree, Resume::Verified).unwrap();
            assert_eq!(created.believed(), 0, "{kind}");
            created.file.set_len(3).unwrap();
            drop(created);
            assert_eq!(std::fs::metadata(&victim).unwrap().len(), 9 << 20, "{kind}");
            std::fs::remove_file(&name).unwrap();
        }
    }

    #[test]
    fn zeros_are_told_from_data() {
        assert!(is_zero(&[]) && is_zero(&[0; 10_000]));
        for at in [0, 4095, 4096, 9999] {
            let mut bytes = [0; 10_000];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
    }

    #[test]
    fn what_killed_runs_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open_root(dir.path(), &Speeds::default()).unwrap();
        for left in 0..3 * usize::from(ATTEMPTS_MAX) {
            std::mem::forget(create(&tree).unwrap());
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), left + 1);
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_plain_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open_root(dir.path(), &Speeds::default()).unwrap();
        let name = dir.path().join("a");
        for taken in ["socket", "directory", "link to a device"] {
            match taken {
                "socket" => drop(std::os::unix::net::UnixListener::bind(&name).unwrap()),
                "directory" => std::fs::create_dir(&name).unwrap(),
                _ => std::os::unix::fs::symlink("/dev/null", &name).unwrap(),
            }
            let fault = create(&tree).unwrap_err();
            assert_eq!(fault.source.kind(), io::ErrorKind::AlreadyExists, "{taken}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{taken}");
            drop(std::fs::remove_file(&name));
            drop(std::fs::remove_dir(&name));
        }
        std::fs::write(&name, "old").unwrap();
        create(&tree).unwrap();
        std::fs::remove_file(&name).unwrap();
        std::os::unix::fs::symlink("nowhere", &name).unwrap();
        create(&tree).unwrap();
    }
}
