//! Symbolic links in local directories: what they lead to, whether that goes round in a circle, and
//! how they are made.

use std::{
    ffi::{OsStr, OsString},
    io,
};

use ketch_protocol::{FileType, RemotePath, Times};

use super::Tree;
use crate::{
    platform::{self, LocalLink},
    transfer::{
        local::{LocalAction, LocalFault},
        names::{self, Identity},
        options::Overwrite,
    },
};

impl Tree {
    /// What a link leads to.
    pub(super) fn follow(&self, name: &OsStr) -> Result<LocalLink, LocalFault> {
        let path = self.path.join(name);
        let found = match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => found,
            other => return Ok(LocalLink::Leads(other)),
        };
        for tree in self.with_above() {
            let is_same = tree.dir()?.is(&found, &path);
            if is_same.map_err(LocalFault::of(LocalAction::Open, &*path))? {
                return Ok(LocalLink::LeadsBack);
            }
        }
        Ok(LocalLink::Leads(Ok(found)))
    }

    /// Makes a link called `name` that leads to `target`, in place of a file or link of that name
    /// if it may be.
    pub(crate) fn make_link(
        &self,
        name: &OsStr,
        target: &OsStr,
        overwrite: Overwrite,
        times: Option<Times>,
    ) -> Result<(), LocalFault> {
        let path = self.path.join(name);
        let fault = |source| LocalFault::of(LocalAction::Create, &*path)(source);
        let dir = self.dir()?;
        match dir.kind(name).map_err(fault)? {
            None => {}
            Some(FileType::Regular | FileType::Symlink) if overwrite == Overwrite::Replace => {}
            Some(FileType::Regular | FileType::Symlink) => {
                return Err(fault(io::ErrorKind::AlreadyExists.into()));
            }
            Some(_) => {
                let message = "something that is neither a plain file nor a link has its name";
                return Err(fault(io::Error::new(io::ErrorKind::AlreadyExists, message)));
            }
        }
        let destination = path.as_os_str().as_encoded_bytes();
        let remote_name = platform::remote_name(name).unwrap_or_default();
        // It is made within two system calls: who is killed between them leaves a link that nobody
        // looks for, so the name is left to chance.
        let number = names::attempt(names::ATTEMPT_BY_CHANCE);
        let temporary = names::temporary(destination, &remote_name, Identity::default(), number);
        let temporary = platform::local_name(&temporary).unwrap_or_default();
        dir.make_link(target, &temporary).map_err(fault)?;
        if let Some(Times { atime, mtime }) = times
            && let Err(error) = dir.set_link_times(&temporary, atime, mtime)
        {
            tracing::debug!(path = %path.display(), %error, "times of a link are not set");
        }
        let named = match overwrite {
            Overwrite::Replace => dir.rename(&temporary, name),
            Overwrite::Never => dir.rename_new(&temporary, name),
        };
        named.map_err(|source| {
            if let Err(error) = dir.remove(&temporary) {
                tracing::warn!(path = %path.display(), %error, "a temporary link is left behind");
            }
            LocalFault::of(LocalAction::Rename, &*path)(source)
        })
    }

    /// Where a link leads.
    pub(crate) fn read_link(&self, name: &OsStr) -> Result<OsString, LocalFault> {
        let target = self.dir()?.read_link(name);
        target.map_err(LocalFault::of(LocalAction::Read, self.path.join(name)))
    }

    /// Takes it for the copy of the directory `real` on the server: false if one of the
    /// directories that it is in is that already.
    pub(crate) fn stands_for(&self, real: RemotePath) -> bool {
        let mut inner = self.with_above().skip(1);
        if inner.any(|tree| tree.original().as_ref() == Some(&real)) {
            return false;
        }
        self.original.get_or_init(|| real);
        true
    }

    /// Where the directory on the server really is that it is a copy of.
    fn original(&self) -> Option<RemotePath> {
        // As deep as the tree, which has a limit.
        match (self.original.get(), &self.parent) {
            (Some(original), _) => Some(original.clone()),
            (None, Some(parent)) => {
                let name = platform::remote_name(&self.name)?;
                Some(parent.original()?.join(name))
            }
            (None, None) => None,
        }
    }
}
