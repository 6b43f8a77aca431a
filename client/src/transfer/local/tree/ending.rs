//! What a directory gets in the end: times, permissions and owner of its original.
//!
//! They come when all that is in it was copied: what is made in a directory changes its times, and
//! one that nobody may write to takes nothing more. Whoever copies something holds the [`Tree`] that
//! it is in, so the last one to let go of it is the end; those above it are held by it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use ketch_protocol::{Attrs, RemotePath};

use super::Tree;
use crate::{
    platform::{self, Dir},
    transfer::options::Preserve,
};

/// Directories on a server whose content is there, and what they get.
#[derive(Debug, Default)]
pub(crate) struct Endings(Mutex<VecDeque<(RemotePath, Attrs)>>);

impl Endings {
    /// The next one.
    pub(crate) fn take(&self) -> Option<(RemotePath, Attrs)> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    }

    /// Adds one.
    pub(crate) fn add(&self, path: RemotePath, attrs: Attrs) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back((path, attrs));
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.is_empty()
    }
}

/// What is done when the last one lets go of a directory.
#[derive(Debug)]
pub(super) enum Ending {
    /// It is the copy, and gets these.
    Here(Attrs),
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
    pub(crate) fn ends_with(&self, attrs: Attrs, preserve: Preserve) {
        if let Some(attrs) = kept(attrs, preserve) {
            self.ending.get_or_init(|| Ending::Here(attrs));
        }
    }

    /// In the end `path`, its copy on the server, is to get what is to be preserved of it. It is
    /// looked at now: to read what is in it changes a time.
    pub(crate) fn ends_there(&self, endings: &Arc<Endings>, path: RemotePath, preserve: Preserve) {
        if !preserve.any() {
            return;
        }
        let metadata = self.dir().map(|dir| dir.metadata());
        if let Ok(Ok(metadata)) = metadata
            && let Some(attrs) = kept(platform::attrs_of(&metadata), preserve)
        {
            let endings = Arc::clone(endings);
            self.ending
                .get_or_init(|| Ending::There(endings, path, attrs));
        }
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
            Some(Ending::Here(attrs)) => self.set_attrs(attrs),
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
