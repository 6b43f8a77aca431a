//! A place for content in the directory that it is delivered into: a file there gets its name by
//! renames alone, and its bytes are written once.
//!
//! ```text
//!   <directory>/.ketch-spool/.ketch-<chance>/   locked as long as its process lives
//! ```
//!
//! Nobody else may enter it, and it is reached through its descriptor: whoever may write into the
//! directory cannot send content elsewhere by a link. A place that nobody has locked is a dead
//! process's: it is emptied, and taken over or removed. On file systems that other machines share locks
//! need not hold, so nothing lies there.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::SUFFIX;
use crate::store::sqlite::place::is_elsewhere;

/// The directory of all places in a directory.
const BASE: &str = ".ketch-spool";
/// How places are called.
const PREFIX: &[u8] = b".ketch-";
/// Places of a directory that are looked at; a flow has one.
const PLACES_MAX: usize = 1_000;
/// How often a place is made that somebody takes for a leftover.
const ATTEMPTS_MAX: usize = 100;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A directory, and the place in it once there is one.
#[derive(Debug)]
pub(super) struct Beside {
    directory: PathBuf,
    place: Mutex<Option<Arc<Place>>>,
}

/// A place that this process has.
#[derive(Debug)]
pub(super) struct Place {
    root: OwnedFd,
    base: OwnedFd,
    name: Vec<u8>,
    /// Locked as long as it is open.
    place: OwnedFd,
    /// The way to it that no rename changes.
    path: PathBuf,
}

impl Beside {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            place: Mutex::default(),
        }
    }

    /// The place, which is made if there is none; an error where it cannot be had. It may block.
    pub(super) fn place(&self) -> io::Result<Arc<Place>> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        // Another file system may have been mounted over it, or somebody removed it.
        let held = place.take().filter(|place| place.is_in(&self.directory));
        let held = match held {
            Some(held) => held,
            None => Arc::new(Place::open(&self.directory)?),
        };
        *place = Some(Arc::clone(&held));
        Ok(held)
    }
}

impl Place {
    fn open(directory: &Path) -> io::Result<Self> {
        if is_elsewhere(directory) {
            let why = "other machines may share its file system";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        for _ in 0..ATTEMPTS_MAX {
            match Self::attempt(directory) {
                // Who had it before removed it at this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Unless it is the directory itself.
                    rustix::fs::statat(CWD, directory, AtFlags::empty())?;
                }
                other => return other,
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn attempt(directory: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, directory, DIRECTORY, Mode::empty())?;
        make(&root, BASE.as_bytes())?;
        let base = open_ours(&root, BASE.as_bytes())?;
        let mut taken = None;
        for name in names(&base)?.into_iter().take(PLACES_MAX) {
            if !name.starts_with(PREFIX) {
                continue;
            }
            let Ok(place) = open_ours(&base, &name) else {
                continue;
            };
            if !lock(&base, &name, &place)? {
                continue; // it is in use
            }
            empty(&place)?;
            if taken.is_none() {
                taken = Some((name, place));
            } else {
                let _ = rustix::fs::unlinkat(&base, &*name, AtFlags::REMOVEDIR);
            }
        }
        let (name, place) = match taken {
            Some(taken) => taken,
            None => new(&base)?,
        };
        let path = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
        let found = rustix::fs::statat(CWD, &path, AtFlags::empty())?;
        if !is_one(&found, &rustix::fs::fstat(&place)?) {
            return Err(io::Error::other("there is no /proc"));
        }
        Ok(Self {
            root,
            base,
            name,
            place,
            path,
        })
    }

    /// Whether it is still what `directory` has under its name.
    fn is_in(&self, directory: &Path) -> bool {
        let path = directory
            .join(BASE)
            .join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&self.name));
        let found = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW);
        let here = rustix::fs::fstat(&self.place);
        matches!((found, here), (Ok(found), Ok(here)) if is_one(&found, &here))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    /// A place that is not empty is for the next start.
    fn drop(&mut self) {
        let is_named = rustix::fs::statat(&self.base, &*self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| {
                rustix::fs::fstat(&self.place).is_ok_and(|here| is_one(&found, &here))
            });
        if is_named && rustix::fs::unlinkat(&self.base, &*self.name, AtFlags::REMOVEDIR).is_ok() {
            // Unless there are others in it.
            let _ = rustix::fs::unlinkat(&self.root, BASE, AtFlags::REMOVEDIR);
        }
    }
}

fn is_one(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// Makes a directory for us alone, if nothing has its name.
fn make(parent: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory that is ours, on the file system of its parent, and that nobody else may enter.
fn open_ours(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let directory = rustix::fs::openat(
        parent,
        name,
        DIRECTORY.union(OFlags::NOFOLLOW),
        Mode::empty(),
    )?;
    let (above, found) = (rustix::fs::fstat(parent)?, rustix::fs::fstat(&directory)?);
    let is_ours = found.st_uid == rustix::process::geteuid().as_raw()
        && found.st_mode & 0o077 == 0
        && found.st_dev == above.st_dev;
    match is_ours {
        true => Ok(directory),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is another's",
        )),
    }
}

/// Locks a place; whether nobody else has it, and it is there under its name.
fn lock(base: &OwnedFd, name: &[u8], place: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::flock(place, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::statat(base, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(is_one(&found, &rustix::fs::fstat(place)?)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A new place.
fn new(base: &OwnedFd) -> io::Result<(Vec<u8>, OwnedFd)> {
    for _ in 0..ATTEMPTS_MAX {
        let chance = RandomState::new().hash_one(0);
        let name = [PREFIX, format!("{chance:016x}").as_bytes()].concat();
        if !make(base, &name)? {
            continue;
        }
        // Another that starts now may have found it before it was locked, and removed it.
        match open_ours(base, &name) {
            Ok(place) if lock(base, &name, &place)? => return Ok((name, place)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Removes what a dead process left.
fn empty(place: &OwnedFd) -> io::Result<()> {
    for name in names(place)? {
        // The client's temporary names hold the name that they are for.
        if name
            .windows(SUFFIX.len())
            .any(|part| part == SUFFIX.as_bytes())
        {
            rustix::fs::unlinkat(place, &*name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// A file in a place, as others reach it: for messages.
pub(super) fn shown(path: &Path) -> PathBuf {
    let real = path
        .parent()
        .and_then(|parent| std::fs::read_link(parent).ok());
    match (real, path.file_name()) {
        (Some(real), Some(name)) => real.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn places(directory: &Path) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(directory.join(BASE)) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }

    #[test]
    fn each_has_a_place_of_its_own_and_takes_over_what_nobody_has() {
        let dir = tempfile::tempdir().expect("a directory");
        let two = [0, 1].map(|_| Beside::new(dir.path().to_owned()));
        let held = two
            .each_ref()
            .map(|beside| beside.place().expect("a place"));
        for place in &held {
            std::fs::write(place.path().join("x.ketch-spool"), b"content").expect("written");
        }
        assert_eq!(places(dir.path()).len(), 2);
        let again = two[0].place().expect("a place");
        assert!(
            Arc::ptr_eq(&again, &held[0]),
            "the same as long as it is there"
        );
        // One process ends in the middle of something, the other goes on.
        drop(again);
        let [one, two] = two;
        let [first, second] = held;
        let left = shown(&first.path().join("x.ketch-spool"));
        drop((one, first));
        assert!(left.exists(), "what is left is for the next start");
        let next = Beside::new(dir.path().to_owned());
        let place = next.place().expect("a place");
        assert!(!left.exists());
        assert_eq!(
            shown(&place.path().join("x.ketch-spool")),
            left,
            "taken over"
        );
        assert!(second.path().join("x.ketch-spool").exists(), "another's");
        std::fs::remove_file(second.path().join("x.ketch-spool")).expect("removed");
        drop((next, place, two, second));
        assert!(
            !dir.path().join(BASE).exists(),
            "what is empty goes with its process"
        );
    }

    #[test]
    fn nothing_of_others_is_used_and_a_place_that_went_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let elsewhere = tempfile::tempdir().expect("a directory");
        let beside = Beside::new(dir.path().to_owned());
        symlink(elsewhere.path(), dir.path().join(BASE)).expect("a link");
        assert!(beside.place().is_err(), "a link is another's");
        std::fs::remove_file(dir.path().join(BASE)).expect("removed");
        std::fs::create_dir(dir.path().join(BASE)).expect("made");
        let open = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.path().join(BASE), open(0o755)).expect("set");
        assert!(beside.place().is_err(), "others may enter it");
        std::fs::set_permissions(dir.path().join(BASE), open(0o700)).expect("set");
        symlink(elsewhere.path(), dir.path().join(BASE).join(".ketch-0")).expect("a link");
        let place = beside.place().expect("a place");
        // Who may write into the directory moves it away, and puts a link in its stead.
        let real = shown(&place.path().join("x"))
            .parent()
            .expect("a place")
            .to_owned();
        std::fs::rename(&real, dir.path().join("away")).expect("renamed");
        symlink(elsewhere.path(), &real).expect("a link");
        std::fs::write(place.path().join("x"), b"content").expect("written");
        assert!(dir.path().join("away/x").exists());
        assert_eq!(
            std::fs::read_dir(elsewhere.path()).expect("listed").count(),
            0
        );
        let anew = beside.place().expect("a place");
        assert!(!Arc::ptr_eq(&place, &anew));
        drop(place);
        assert!(real.is_symlink() && dir.path().join("away/x").exists());
        std::fs::remove_dir_all(dir.path()).expect("removed");
        assert!(
            beside.place().is_err(),
            "without its directory there is none"
        );
    }

    /// Many start and end at the same time: nobody removes what another has.
    #[test]
    fn who_starts_and_ends_at_the_same_time_disturbs_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let beside = Beside::new(dir.path().to_owned());
                        let place = beside.place().expect("a place");
                        let file = place.path().join("x.ketch-spool");
                        let new = File::options().write(true).create_new(true).open(&file);
                        new.expect("it is alone");
                        assert!(place.is_in(dir.path()));
                        assert!(file.exists());
                        std::fs::remove_file(&file).expect("nobody removed it");
                    }
                });
            }
        });
        assert!(!dir.path().join(BASE).exists());
    }
}
