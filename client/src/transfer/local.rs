//! Local files of transfers: created under a temporary name, given their own when whole.
//!
//! All functions here block, and leave nothing behind when they fail.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use ketch_protocol::Times;

use super::{
    disk::{Speed, Speeds},
    names::{self, Identity},
    options::{Durability, Overwrite},
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
}

/// How a written file is finished.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    pub size: u64,
    pub overwrite: Overwrite,
    pub durability: Durability,
    pub times: Option<Times>,
}

impl Created {
    /// Creates a file that will be called `name`.
    pub(crate) fn new(
        tree: &Tree,
        name: &OsStr,
        source: Identity,
        mode: u32,
        overwrite: Overwrite,
    ) -> Result<Self, LocalFault> {
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
        let mut attempt = 0;
        loop {
            let temporary =
                names::temporary(destination, &remote_name, source, names::attempt(attempt));
            let temporary = platform::local_name(&temporary).unwrap_or_default();
            match dir.create_new(&temporary, mode) {
                Ok(file) => {
                    let file = Arc::new(file);
                    let (name, named) = (name.to_owned(), Mutex::new(false));
                    return Ok(Self {
                        dir,
                        named,
                        file,
                        temporary,
                        name,
                    });
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
        let len = self
            .file
            .metadata()
            .map_err(fault(LocalAction::Write))?
            .len();
        if len != how.size {
            let message = format!("it has {len} bytes in place of {}", how.size);
            return Err(fault(LocalAction::Write)(io::Error::other(message)));
        }
        if let Some(Times { atime, mtime }) = how.times {
            platform::set_times(&self.file, atime, mtime).map_err(fault(LocalAction::SetAttrs))?;
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
        if let Err(error) = self.dir.remove(&self.temporary) {
            tracing::warn!(path = %self.dir.path().join(&self.temporary).display(), %error,
                "a temporary file is left behind");
        }
    }
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
    /// How quick its file system is.
    pub speed: Arc<Speed>,
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
    pub(crate) fn open(&self, speeds: &Speeds) -> Result<Opened, LocalFault> {
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
        Ok(Opened {
            file: Arc::new(file),
            size: metadata.len(),
            times: Times {
                atime: time(metadata.accessed()),
                mtime: time(metadata.modified()),
            },
            mode: platform::mode_of(&metadata),
            path,
            speed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(tree: &Tree) -> Result<Created, LocalFault> {
        let source = Identity::default();
        Created::new(tree, OsStr::new("a"), source, 0o666, Overwrite::Replace)
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
