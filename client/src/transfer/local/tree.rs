//! Local directories of transfers: a handle for each that is in use, and none for the others.

mod ending;
mod links;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use ketch_protocol::RemotePath;

use self::ending::Ending;
pub(crate) use self::ending::Endings;
use super::{LocalAction, LocalFault, leftovers::Leftovers};
use crate::{
    platform::{self, Dir, LocalEntry, LocalLink},
    transfer::{
        disk::{Speed, Speeds},
        options::Links,
    },
};

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
    leftovers: Arc<Leftovers>,
    /// A link stands for it, which is followed.
    is_linked: bool,
    /// Where the directory on the server really is that it is a copy of, where that was asked.
    original: OnceLock<RemotePath>,
    /// What is done when nobody holds it any more.
    ending: OnceLock<Ending>,
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
        let is_new = match std::fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            // `.` and `/` cannot be created, and are there.
            Err(_) if path.is_dir() => false,
            Err(error) => return Err(LocalFault::of(LocalAction::Create, path)(error)),
        };
        let dir = Dir::open(path).map_err(LocalFault::of(LocalAction::Open, path))?;
        let dir = if is_new { dir.new_one() } else { dir };
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
            leftovers: Arc::clone(&speeds.leftovers),
            is_linked: false,
            original: OnceLock::new(),
            ending: OnceLock::new(),
            speed,
        })
    }

    /// A directory in this one, not opened yet.
    pub(crate) fn child(self: &Arc<Self>, name: OsString) -> Arc<Self> {
        self.below(name, false)
    }

    /// The directory that a link in this one leads to, not opened yet.
    pub(crate) fn linked_child(self: &Arc<Self>, name: OsString) -> Arc<Self> {
        self.below(name, true)
    }

    fn below(self: &Arc<Self>, name: OsString, is_linked: bool) -> Arc<Self> {
        Arc::new(Self {
            is_linked,
            original: OnceLock::new(),
            ending: OnceLock::new(),
            path: self.path.join(&name),
            parent: Some(Arc::clone(self)),
            name,
            open: Mutex::default(),
            root: None,
            creates: self.creates,
            leftovers: Arc::clone(&self.leftovers),
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

    /// It, and all that are above it.
    fn with_above(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |tree| tree.parent.as_deref())
    }

    /// How many directories are above it, from the topmost one on.
    pub(crate) fn depth(&self) -> usize {
        self.with_above().skip(1).count()
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
        let dir = if self.is_linked {
            parent.child_followed(&self.name)
        } else if self.creates {
            parent.make_child(&self.name)
        } else {
            parent.child(&self.name)
        };
        let dir = dir.map_err(LocalFault::of(LocalAction::Create, &*self.path))?;
        let dir = Arc::new(dir);
        *open = Arc::downgrade(&dir);
        Ok(dir)
    }

    /// Temporary names in the directory, whoever left them. It is listed once for all of its files.
    pub(super) fn leftovers(&self, dir: &Dir) -> Arc<[OsString]> {
        self.leftovers.of(dir)
    }

    /// What is in the directory; of links, what is to be known to do as `links` says.
    pub(crate) fn list(&self, links: Links) -> Result<Vec<LocalEntry>, LocalFault> {
        let dir = self.dir()?;
        let entries = dir.list();
        let mut entries = entries.map_err(LocalFault::of(LocalAction::List, &*self.path))?;
        if links != Links::Skip {
            let is_link = |entry: &&mut LocalEntry| entry.metadata.is_symlink();
            for entry in entries.iter_mut().filter(is_link) {
                entry.link = Some(match links {
                    Links::Follow => self.follow(&entry.name)?,
                    _ => LocalLink::To(dir.read_link(&entry.name)),
                });
            }
        }
        Ok(entries)
    }
}
