//! What a directory gets in the end: times, permissions and owner of its original.
//!
//! They come when all that is in it was copied: what is made in a directory changes its times, and
//! one that nobody may write to takes nothing more. Whoever copies something holds the [`Tree`] that
//! it is in, so the last one to let go of it is the end; those above it are held by it.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ketch_protocol::{Attrs, RemotePath};

use super::Tree;
use crate::{
    platform::{self, Dir},
    transfer::options::Preserve,
};

/// The ends of all directories of a transfer: those on a server whose content is there, and what
/// they get.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    waiting: Mutex<VecDeque<(RemotePath, Attrs)>>,
    /// The transfer was given up: directories that are let go of are not at their end.
    is_closed: AtomicBool,
}

impl Endings {
    /// The next one.
    pub(crate) fn take(&self) -> Option<(RemotePath, Attrs)> {
        self.lock().pop_front()
    }

    /// Adds one.
    pub(crate) fn add(&self, path: RemotePath, attrs: Attrs) {
        self.lock().push_back((path, attrs));
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The transfer is given up: no directory gets anything from now on, as not all is in it.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(RemotePath, Attrs)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is done when the last one lets go of a directory.
#[derive(Debug)]
pub(super) enum Ending {
    /// It is the copy, and gets these.
    Here(Arc<Endings>, Attrs),
    /// It is the original of that one.
    There(Arc<Endings>, RemotePath, Attrs),
}

/// Those of the attributes that are to be preserved, if there are any.
fn kept(attrs: Attrs, preserve: Preserve) -> Option<Attrs> {
    let kept = Attrs {
        size: None,
        times: attrs.times.filter(|_| preserve.times),
        permissions: attrs
            .permissions
            .filter(|_| preserve.permissions)
            .map(|mode| mode & 0o777),
        owner: attrs.owner.filter(|_| preserve.owner),
    };
    (kept != Attrs::NONE).then_some(kept)
}

impl Tree {
    /// It gets what is to be preserved of `attrs`, those of its original, in the end.
    pub(crate) fn ends_with(&self, endings: &Arc<Endings>, attrs: Attrs, preserve: Preserve) {
        if let Some(attrs) = kept(attrs, preserve) {
            let endings = Arc::clone(endings);
            self.ending.get_or_init(|| Ending::Here(endings, attrs));
        }
    }

    /// In the end `path`, its copy on the server, is to get what is to be preserved of it. It is
    /// looked at now: to read what is in it changes a time. False if its times are other ones than
    /// SFTP can say.
    pub(crate) fn ends_there(
        &self,
        endings: &Arc<Endings>,
        path: RemotePath,
        preserve: Preserve,
    ) -> bool {
        if !preserve.any() {
            return true;
        }
        let metadata = self.dir().map(|dir| dir.metadata());
        if let Ok(Ok(metadata)) = metadata
            && let Some(attrs) = kept(platform::attrs_of(&metadata), preserve)
        {
            let endings = Arc::clone(endings);
            self.ending
                .get_or_init(|| Ending::There(endings, path, attrs));
            return !preserve.times || platform::has_plain_times(&metadata);
        }
        true
    }

    /// Sets the attributes of the directory; it is not created if it is not there.
    fn set_attrs(&self, attrs: Attrs) -> io::Result<()> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.root.clone().or_else(|| open.upgrade());
        let dir = match (open, &self.parent) {
            (Some(dir), _) => dir,
            (None, Some(parent)) => {
                let parent = parent.dir().map_err(|fault| fault.source)?;
                Arc::new(parent.child(&self.name)?)
            }
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        set(&dir, attrs)
    }
}

fn set(dir: &Dir, attrs: Attrs) -> io::Result<()> {
    let file = dir.as_file()?;
    // The owner first: to give something away takes bits from its permissions.
    let owner = attrs.owner.map(|owner| platform::set_owner(&file, owner));
    let times = attrs
        .times
        .map(|times| platform::set_times(&file, times.atime, times.mtime));
    let mode = attrs
        .permissions
        .map(|mode| platform::set_mode(&file, mode));
    [owner, times, mode].into_iter().flatten().collect()
}

impl Drop for Tree {
    fn drop(&mut self) {
        let result = match self.ending.take() {
            Some(Ending::Here(endings, _) | Ending::There(endings, ..))
                if endings.is_closed.load(Ordering::Acquire) =>
            {
                Ok(())
            }
            Some(Ending::Here(_, attrs)) => self.set_attrs(attrs),
            Some(Ending::There(endings, path, attrs)) => {
                endings.add(path, attrs);
                Ok(())
            }
            None => Ok(()),
        };
        if let Err(error) = result {
            tracing::debug!(path = %self.path.display(), %error, "attributes are not set");
        }
    }
}
