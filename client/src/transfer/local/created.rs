//! A local file that is being written: created under a temporary name, or found as a part that an
//! earlier run left, and given its own name when it is whole. A small one has no name until then,
//! where the file system can do that.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, IoSlice},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ketch_protocol::{Owner, Times};

use super::{ATTEMPTS_MAX, Hash, LocalAction, LocalFault, Tree, hash_file, leftovers};
use crate::{
    platform::{self, Dir, Held},
    transfer::{
        names::{self, Identity},
        options::{Durability, Overwrite, Resume, Sparse},
        part,
    },
};

/// A file that is being written under a temporary name, and goes with the last who holds this,
/// unless it was given its own.
#[derive(Debug)]
pub(crate) struct Created {
    dir: Arc<Dir>,
    /// Whether it has its name; held while it gets it.
    named: Mutex<bool>,
    /// The open file.
    pub file: Arc<File>,
    /// Empty for a file without a name.
    temporary: OsString,
    source: Identity,
    /// Bytes that were written to a file that nobody else can reach, as it has no name.
    written: Option<AtomicU64>,
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
    /// Temporary names that earlier runs left of the same file.
    left: Vec<OsString>,
}

/// Time after which nobody is held to continue a part of an earlier version any more.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// A larger file has a temporary name from its start: who looks sees it grow, and whom it belongs
/// to. A small one is written in one piece, and a name that is given once costs half.
const NAMELESS_LEN_MAX: u64 = 256 * 1024;

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
        let held = match dir.is_new() {
            true => Held::Nothing,
            false => dir.held(name).map_err(fault)?,
        };
        if let (Held::Nothing, Resume::No) = (held, resume)
            && let Some(nameless) = Self::nameless(tree, &dir, name, source, begin)
        {
            return Ok(nameless);
        }
        let mode = match held {
            Held::Nothing | Held::Plain(None) => mode,
            // What takes a file's place is read by the same people.
            Held::Plain(Some(mode)) => mode | 0o600,
            // A rename would take the place of a device or a pipe: `/dev/null` and its like stay.
            Held::Other => {
                let message = "something that is not a plain file has its name";
                return Err(fault(io::Error::new(io::ErrorKind::AlreadyExists, message)));
            }
        };
        let resumes = resume != Resume::No;
        let (mut attempt, mut cleared) = (0, None);
        loop {
            let number = if resumes {
                names::attempt_at_part(attempt)
            } else {
                names::attempt(attempt)
            };
            let temporary = temporary_name(&dir, name, source, number);
            let keeps = resumes && names::has_part_name(attempt);
            let found = match dir.create_new(&temporary, mode) {
                // Somebody who looks for a part or a leftover may have found it already.
                Ok(file) if !platform::lock_new(&file) => Err(io::ErrorKind::AlreadyExists.into()),
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
                        left: left_of(tree, &dir, &temporary),
                        dir,
                        named: Mutex::new(false),
                        file: Arc::new(file),
                        temporary,
                        source,
                        written: None,
                        name: name.to_owned(),
                        keeps: AtomicBool::new(keeps),
                        compared: AtomicU64::new(0),
                        differs: AtomicBool::new(false),
                        sparse: sparse == Sparse::Always,
                        refused: AtomicBool::new(false),
                    };
                    if keeps && !created.take_part(mode, source).map_err(fault)? {
                        created.remove_old_parts(tree, source);
                    }
                    return Ok(created);
                }
                // Left by somebody who was killed: it is in the way of the same file once more.
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && cleared.replace(attempt) != Some(attempt)
                        && !keeps
                        && leftovers::remove(&dir, &temporary) => {}
                // In use by somebody else, or not ours.
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

    /// Creates a small file that has no name until it is whole, where that can be done: nothing of
    /// it is ever left, it takes no lock, and one call in its directory in place of two.
    fn nameless(
        tree: &Tree,
        dir: &Arc<Dir>,
        name: &OsStr,
        source: Identity,
        begin: Begin,
    ) -> Option<Self> {
        if source.size.is_none_or(|size| size > NAMELESS_LEN_MAX) {
            return None;
        }
        let temporary = || temporary_name(dir, name, source, names::attempt(0));
        let has = tree.speed().has_nameless(|| {
            // It has to be seen once that such a file gets a name, before one is trusted to.
            let (name, file) = (
                temporary_name(dir, name, source, names::ATTEMPT_BESIDE),
                dir.create_nameless(0o600),
            );
            let named = file.and_then(|file| dir.name_file(&file, &name));
            named.and_then(|()| dir.remove(&name)).is_ok()
        });
        if !has {
            return None;
        }
        // Another file system may be mounted below.
        let file = dir.create_nameless(begin.mode).ok()?;
        let left = match tree.leftovers(dir).is_empty() {
            true => Vec::new(),
            false => left_of(tree, dir, &temporary()),
        };
        Some(Self {
            dir: Arc::clone(dir),
            named: Mutex::new(false),
            file: Arc::new(file),
            temporary: OsString::new(),
            source,
            written: Some(AtomicU64::new(0)),
            name: name.to_owned(),
            keeps: AtomicBool::new(false),
            compared: AtomicU64::new(0),
            differs: AtomicBool::new(false),
            sparse: begin.sparse == Sparse::Always,
            refused: AtomicBool::new(false),
            left,
        })
    }

    /// Cuts the part to what is believed of it; says whether there was one.
    fn take_part(&self, mode: u32, source: Identity) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        if metadata.len() == 0 {
            return Ok(false);
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
        Ok(true)
    }

    /// A part of a new version is begun: those of earlier versions, which nobody will continue, are
    /// removed. Theirs are the name of this file, an owner who is ours, no other name, nobody who
    /// has them locked, and a last change [`OLD`] ago, by the clock that stamps both.
    fn remove_old_parts(&self, tree: &Tree, source: Identity) {
        if source.size.is_none_or(|size| part::believed(size) == 0) {
            return; // what is so short never leaves a part
        }
        let modified = |file: &File| file.metadata().and_then(|metadata| metadata.modified());
        let Ok(now) = modified(&self.file) else {
            return;
        };
        let of = |name: &OsStr| {
            let name = platform::remote_name(name).unwrap_or_default();
            names::of_temporary(&name).map(<[u8]>::to_vec)
        };
        let ours = of(&self.temporary);
        for name in &*tree.leftovers(&self.dir) {
            if *name == self.temporary || of(name) != ours {
                continue;
            }
            let Ok(Some(old)) = self.dir.open_part(name) else {
                continue;
            };
            let age = modified(&old).map(|then| now.duration_since(then).unwrap_or_default());
            if age.is_ok_and(|age| age >= OLD) {
                let removed = self.dir.remove(name);
                tracing::info!(?name, ?removed, "the part of an earlier version");
            }
        }
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
        if let Some(written) = &self.written {
            written.store(0, Ordering::Relaxed);
        }
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
            let len: usize = run.iter().map(|piece| piece.len()).sum();
            platform::write_run(&self.file, run, offset)?;
            if let Some(written) = &self.written {
                written.fetch_add(len as u64, Ordering::Relaxed);
            }
            return Ok(());
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
        let got = platform::read_slots(&self.file, slots, offset, None, false)?;
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
        let written = self.written.as_ref();
        let len = match written.map(|written| written.load(Ordering::Relaxed)) {
            // Nobody else can have changed it.
            Some(written) if written == how.size => written,
            _ => {
                let metadata = self.file.metadata();
                metadata.map_err(fault(LocalAction::Write))?.len()
            }
        };
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
            _ if self.written.is_some() => self.give_name(how.overwrite),
            Overwrite::Replace => self.dir.rename(&self.temporary, &self.name),
            Overwrite::Never => self.dir.rename_new(&self.temporary, &self.name),
        }
        .map_err(fault(LocalAction::Rename))?;
        *named = true;
        // The file is whole: what earlier runs left of it is of no use.
        for name in &self.left {
            leftovers::remove(&self.dir, name);
        }
        if how.durability == Durability::FileAndDirectory {
            self.dir.sync().map_err(fault(LocalAction::Sync))?;
        }
        Ok(())
    }
}

impl Created {
    /// Gives a file that has no name its own: in place of what got it meanwhile, if that is wanted.
    fn give_name(&self, overwrite: Overwrite) -> io::Result<()> {
        match self.dir.name_file(&self.file, &self.name) {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && overwrite == Overwrite::Replace => {}
            result => return result,
        }
        let mut attempt = 0;
        let temporary = loop {
            let number = names::attempt(attempt);
            let temporary = temporary_name(&self.dir, &self.name, self.source, number);
            match self.dir.name_file(&self.file, &temporary) {
                Ok(()) => break temporary,
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && attempt + 1 < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let renamed = self.dir.rename(&temporary, &self.name);
        if renamed.is_err() {
            // Nobody will ask for it; the error that is told is the first.
            let _ = self.dir.remove(&temporary);
        }
        renamed
    }
}

/// The temporary name of `name` for this try.
fn temporary_name(dir: &Dir, name: &OsStr, source: Identity, number: u64) -> OsString {
    let path = dir.path().join(name);
    let destination = path.as_os_str().as_encoded_bytes();
    let remote_name = platform::remote_name(name).unwrap_or_default();
    let temporary = names::temporary(destination, &remote_name, source, number);
    platform::local_name(&temporary).unwrap_or_default()
}

/// Temporary names that earlier runs left of the file that has `temporary` now.
fn left_of(tree: &Tree, dir: &Dir, temporary: &OsStr) -> Vec<OsString> {
    let left = tree.leftovers(dir);
    let left = left
        .iter()
        .filter(|name| *name != temporary && leftovers::are_of_one(name, temporary));
    left.cloned().collect()
}

impl Drop for Created {
    fn drop(&mut self) {
        if self.written.is_some() || *self.named.get_mut().unwrap_or_else(PoisonError::into_inner) {
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

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    // Most data is told by its first bytes.
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| ZEROS.starts_with(chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::disk::Speeds;

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

    fn small(tree: &Tree, overwrite: Overwrite) -> Result<Created, LocalFault> {
        let source = Identity {
            size: Some(3),
            modified: Some(7),
        };
        let begin = Begin {
            mode: 0o640,
            overwrite,
            ..Begin::default()
        };
        Created::new(tree, OsStr::new("a"), source, begin)
    }

    fn finish_as(size: u64, overwrite: Overwrite) -> Finish {
        Finish {
            size,
            overwrite,
            durability: Durability::None,
            times: None,
            mode: None,
            owner: None,
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_small_file_has_no_name_before_it_is_whole_where_that_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let names = std::fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let speeds = Speeds::default();
        let tree = Tree::open_root(dir.path(), &speeds).unwrap();
        let begun = small(&tree, Overwrite::Replace).unwrap();
        if begun.written.is_none() {
            assert!(!tree.speed().has_nameless(|| true), "it was tried");
            return; // not on this file system, or for this user
        }
        assert!(names().is_empty(), "{:?}", names());
        begun.write(&mut [IoSlice::new(b"abc")], 0).unwrap();
        drop(begun);
        assert!(names().is_empty(), "{:?}", names());

        let begun = small(&tree, Overwrite::Replace).unwrap();
        begun.write(&mut [IoSlice::new(b"ab")], 0).unwrap();
        let short = begun.finish(&finish_as(3, Overwrite::Replace));
        assert!(short.is_err() && names().is_empty(), "it is not whole");
        begun.write(&mut [IoSlice::new(b"c")], 2).unwrap();
        // Somebody else is first: replaced, or left, as is wanted.
        std::fs::write(dir.path().join("a"), "theirs").unwrap();
        let never = finish_as(3, Overwrite::Never);
        let fault = begun.finish(&never).unwrap_err();
        assert_eq!(fault.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"theirs");
        begun.finish(&finish_as(3, Overwrite::Replace)).unwrap();
        begun.finish(&finish_as(3, Overwrite::Replace)).unwrap();
        assert_eq!((names().len(), names()[0].to_str()), (1, Some("a")));
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"abc");
        drop(begun);

        // What takes a file's place is read by the same people, from its start.
        let begun = small(&tree, Overwrite::Replace).unwrap();
        assert!(begun.written.is_none() && names().len() == 2);
        drop(begun);
        assert!(small(&tree, Overwrite::Never).is_err());
        // A directory in its place stays.
        std::fs::remove_file(dir.path().join("a")).unwrap();
        let begun = small(&tree, Overwrite::Replace).unwrap();
        begun.write(&mut [IoSlice::new(b"abc")], 0).unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        assert!(begun.finish(&finish_as(3, Overwrite::Replace)).is_err());
        drop(begun);
        assert_eq!(names(), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_without_a_name_gets_a_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open_root(dir.path(), &Speeds::default()).unwrap();
        assert!(!tree.speed().has_nameless(|| false));
        let begun = small(&tree, Overwrite::Replace).unwrap();
        assert!(begun.written.is_none());
        assert!(dir.path().join(&begun.temporary).exists());
        begun.write(&mut [IoSlice::new(b"abc")], 0).unwrap();
        begun.finish(&finish_as(3, Overwrite::Replace)).unwrap();
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"abc");
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

    #[test]
    fn parts_of_earlier_versions_go_when_they_are_old_and_nobody_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let digits = "0123456789abcdef";
        let old = [
            format!(".a.ketch-{digits}"),
            ".a.ketch-fedcba9876543210".to_owned(),
        ];
        let stay = [
            format!(".b.ketch-{digits}"),
            format!(".a.ketch-{digits}0"),
            ".a.ketch-0123456789ABCDEF".to_owned(),
            "a".to_owned(),
        ];
        let young = ".a.ketch-00000000000000ff".to_owned();
        let locked = ".a.ketch-00000000000000fe".to_owned();
        let ago = |file: &File, time: Duration| {
            let now = file.metadata().unwrap().modified().unwrap();
            file.set_modified(now - time).unwrap();
        };
        for name in old.iter().chain(&stay).chain([&young, &locked]) {
            let file = File::create(path(name)).unwrap();
            ago(&file, OLD + Duration::from_secs(60));
        }
        let file = File::options().write(true).open(path(&young)).unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() + OLD / 2)
            .unwrap();
        let in_use = File::options().write(true).open(path(&locked)).unwrap();
        assert!(platform::lock(&in_use));
        let tree = Tree::open_root(dir.path(), &Speeds::default()).unwrap();
        // Who does not continue does not look.
        drop(create(&tree).unwrap());
        assert!(path(&old[0]).exists());
        let created = create_for(&tree, Resume::Verified).unwrap();
        for name in &old {
            assert!(!path(name).exists(), "{name}");
        }
        for name in stay.iter().chain([&young, &locked]) {
            assert!(path(name).exists(), "{name}");
        }
        drop(created);
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
    fn what_others_are_writing_is_in_nobodys_way_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open_root(dir.path(), &Speeds::default()).unwrap();
        for left in 0..3 * usize::from(ATTEMPTS_MAX) {
            std::mem::forget(create(&tree).unwrap());
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), left + 1);
        }
    }

    #[test]
    fn what_killed_runs_left_of_a_file_goes_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let tree = || Tree::open_root(dir.path(), &Speeds::default()).unwrap();
        let in_use = create(&tree()).unwrap();
        // The same version, under the name that is tried first; and another version.
        let killed = create(&tree()).unwrap();
        let same = path(killed.temporary.to_str().unwrap());
        let copy = path("copy");
        std::fs::rename(&same, &copy).unwrap();
        drop(killed);
        std::fs::rename(&copy, &same).unwrap();
        let other = path(".a.ketch-0123456789abcdef");
        let foreign = path(".b.ketch-0123456789abcdef");
        for path in [&other, &foreign] {
            std::fs::write(path, "left").unwrap();
        }
        let created = create(&tree()).unwrap();
        assert_eq!(
            path(created.temporary.to_str().unwrap()),
            same,
            "it was free again"
        );
        assert!(other.exists(), "the file is not whole yet");
        created.file.set_len(3).unwrap();
        let finish = Finish {
            size: 3,
            overwrite: Overwrite::Replace,
            durability: Durability::None,
            times: None,
            mode: None,
            owner: None,
        };
        created.finish(&finish).unwrap();
        assert!(!other.exists() && foreign.exists() && path("a").exists());
        assert!(path(in_use.temporary.to_str().unwrap()).exists());
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
