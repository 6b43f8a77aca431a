//! Temporary files that killed runs left in local directories, and that nobody has any more.
//!
//! Whoever writes one has it locked, and a lock ends with its process: so one that can be locked is
//! nobody's. Whoever makes one locks it and then sees whether it still has its name; whoever removes
//! one does so while having it locked. So none goes that is in use, without a look at clocks. Where
//! files cannot be locked, none is removed.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    platform::{self, Dir},
    transfer::names,
};

/// Directories whose temporary names are remembered; with more, all are forgotten.
const DIRECTORIES_MAX: usize = 1024;
/// Names of one directory that are looked at.
const NAMES_MAX: usize = 100_000;

/// The temporary names that were in directories when somebody first asked: each is listed once,
/// however many files go there.
#[derive(Debug, Default)]
pub(crate) struct Leftovers(Mutex<HashMap<PathBuf, Arc<[OsString]>>>);

impl Leftovers {
    /// Temporary names in a directory, whoever left them.
    pub(super) fn of(&self, dir: &Dir) -> Arc<[OsString]> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = known().get(dir.path()) {
            return Arc::clone(names);
        }
        let names = dir.names(NAMES_MAX).unwrap_or_default();
        let names: Arc<[OsString]> = names
            .into_iter()
            .filter(|name| is_temporary(name))
            .collect();
        let mut known = known();
        if known.len() >= DIRECTORIES_MAX {
            known.clear();
        }
        known.insert(dir.path().to_owned(), Arc::clone(&names));
        names
    }
}

fn is_temporary(name: &OsStr) -> bool {
    let name = platform::remote_name(name);
    name.is_some_and(|name| names::of_temporary(&name).is_some())
}

/// Whether both are temporary names of the same file.
pub(super) fn are_of_one(a: &OsStr, b: &OsStr) -> bool {
    let (Some(a), Some(b)) = (platform::remote_name(a), platform::remote_name(b)) else {
        return false;
    };
    let a = names::of_temporary(&a);
    a.is_some() && a == names::of_temporary(&b)
}

/// Removes the temporary file `name`, if it is this user's and nobody has it; whether it is gone.
pub(super) fn remove(dir: &Dir, name: &OsStr) -> bool {
    let Ok(Some(file)) = dir.open_part(name) else {
        return false;
    };
    // That it was opened says only that nobody else is known to have it.
    if !platform::can_lock(&file) {
        return false;
    }
    let removed = dir.remove(name);
    tracing::info!(?name, ?removed, "what a killed run left");
    removed.is_ok()
}
