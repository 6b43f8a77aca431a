//! The way from a path to a descriptor where the kernel has no `openat2`.
//!
//! Kernels before Linux 5.6 have not, and filters of system calls that are older than it refuse it,
//! as those of some container runtimes do. What `RESOLVE_BENEATH` means is done here one component
//! at a time: each is opened in the descriptor of the directory before it, and never through a link.
//! A link is read as text, and its components take its place; so there is no moment in which a name
//! that was swapped could lead away. `..`, which only links have, starts again from the root, along
//! the names of the directories that lead there: only one descriptor is held at a time, however long
//! the way.
//!
//! What differs from the kernel: a look-up is not one step. A name on the way that is renamed
//! meanwhile may be missed, as if it had been asked for at another time.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Most links that one look-up follows, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// Most directories that one look-up opens: a link that goes up and down costs the way from the root
/// each time.
const STEPS_MAX: usize = 8192;
/// Longest target of a link that is read, in bytes.
const TARGET_LEN_MAX: usize = 4096;

/// A directory on the way, good for looking up names in it.
const ON_THE_WAY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens `path` beneath `root`. A link is followed as long as it stays beneath, the last one too
/// unless `flags` have `NOFOLLOW`; none is if not `follows_links`.
///
/// # Errors
/// As openat2(2) with `RESOLVE_BENEATH`: `XDEV` for what leads out, `LOOP` for too many links.
pub(super) fn lookup(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    follows_links: bool,
) -> Result<OwnedFd, Errno> {
    let mut walk = Walk {
        root,
        here: None,
        names: Vec::new(),
        ahead: VecDeque::new(),
        wants_directory: false,
        steps: 0,
        links: 0,
    };
    walk.put_ahead(path)?;
    while let Some(name) = walk.ahead.pop_front() {
        let is_last = walk.ahead.is_empty();
        if name == b".." {
            walk.go_up()?;
        } else if is_last {
            let mut flags = flags | OFlags::CLOEXEC;
            // A link to `name/`: what it leads to is a directory, and is made by nobody.
            if walk.wants_directory {
                if flags.contains(OFlags::CREATE) {
                    return Err(Errno::ISDIR);
                }
                flags |= OFlags::DIRECTORY;
                flags.remove(OFlags::NOFOLLOW);
            }
            match walk.open_last(&name, flags, mode)? {
                Last::Opened(fd) => return Ok(fd),
                Last::Link(_) if !follows_links => return Err(Errno::LOOP),
                // Its components, or nothing if it leads to where it is.
                Last::Link(target) => walk.follow(&target)?,
            }
        } else {
            match walk.go_down(&name) {
                // Not a directory: perhaps a link to one.
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let target = walk.read_link(&name)?.ok_or(Errno::NOTDIR)?;
                    if !follows_links {
                        return Err(Errno::LOOP);
                    }
                    walk.follow(&target)?;
                }
                result => result?,
            }
        }
    }
    // It ends in `..`, or is the root: the directory that it came to.
    let mut flags = flags | OFlags::CLOEXEC;
    flags.remove(OFlags::NOFOLLOW);
    rustix::fs::openat(walk.here(), ".", flags, mode)
}

/// What the last component is.
enum Last {
    Opened(OwnedFd),
    /// A link that is not what was asked for, and leads there.
    Link(Vec<u8>),
}

/// Where a look-up is.
struct Walk<'r> {
    root: BorrowedFd<'r>,
    /// The directory that it came to, if it is not the root.
    here: Option<OwnedFd>,
    /// The names of the directories from the root to there; none of them is a link.
    names: Vec<Vec<u8>>,
    /// Components that are still to be gone.
    ahead: VecDeque<Vec<u8>>,
    /// What is at the end has to be a directory.
    wants_directory: bool,
    steps: usize,
    links: usize,
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.here.as_ref().map_or(self.root, AsFd::as_fd)
    }

    /// Puts the components of `path` before those that are ahead.
    fn put_ahead(&mut self, path: &[u8]) -> Result<(), Errno> {
        if path.starts_with(b"/") {
            return Err(Errno::XDEV);
        }
        let mut components = path.rsplit(|&byte| byte == b'/').peekable();
        // `a/` and `a/.` are the directory `a`. Only what is at the very end has a say in that.
        let ends_as_directory = matches!(components.peek(), Some(&(b"" | b"."))) && path != b".";
        self.wants_directory |= self.ahead.is_empty() && ends_as_directory;
        for component in components {
            if !component.is_empty() && component != b"." {
                self.ahead.push_front(component.to_vec());
            }
        }
        Ok(())
    }

    fn follow(&mut self, target: &[u8]) -> Result<(), Errno> {
        self.links = self.links.saturating_add(1);
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        self.put_ahead(target)
    }

    /// Into the directory `name`.
    fn go_down(&mut self, name: &[u8]) -> Result<(), Errno> {
        let below = self.step(self.here(), name)?;
        self.count_step()?;
        self.names.push(name.to_vec());
        self.here = Some(below);
        Ok(())
    }

    /// To the directory that holds this one, from the root: nothing above the root can be come to,
    /// and a directory that was moved meanwhile does not take the look-up with it.
    fn go_up(&mut self) -> Result<(), Errno> {
        self.names.pop().ok_or(Errno::XDEV)?;
        let mut at: Option<OwnedFd> = None;
        for name in &self.names {
            let from = at.as_ref().map_or(self.root, AsFd::as_fd);
            let next = match self.step(from, name) {
                // A directory when it was passed: swapped, and asked for again.
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::AGAIN),
                result => result?,
            };
            at = Some(next);
            self.steps = self.steps.saturating_add(1);
        }
        self.here = at;
        self.count_step()
    }

    fn step(&self, from: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(from, name, ON_THE_WAY, Mode::empty())
    }

    const fn count_step(&mut self) -> Result<(), Errno> {
        self.steps = self.steps.saturating_add(1);
        if self.steps > STEPS_MAX {
            return Err(Errno::LOOP);
        }
        Ok(())
    }

    /// The target of the link `name`; `None` if it is no link.
    fn read_link(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        target(rustix::fs::readlinkat(self.here(), name, Vec::new()))
    }

    fn open_last(&self, name: &[u8], flags: OFlags, mode: Mode) -> Result<Last, Errno> {
        let is_itself = flags.contains(OFlags::NOFOLLOW);
        match rustix::fs::openat(self.here(), name, flags | OFlags::NOFOLLOW, mode) {
            // Such a descriptor can be one of a link.
            Ok(fd) if flags.contains(OFlags::PATH) && !is_itself => {
                let stat = rustix::fs::fstat(&fd)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Ok(Last::Opened(fd));
                }
                let of_it = target(rustix::fs::readlinkat(&fd, "", Vec::new()))?;
                of_it.map(Last::Link).ok_or(Errno::AGAIN)
            }
            Ok(fd) => Ok(Last::Opened(fd)),
            Err(error @ (Errno::LOOP | Errno::NOTDIR)) if !is_itself => {
                match self.read_link(name)? {
                    Some(target) => Ok(Last::Link(target)),
                    // It was one a moment ago.
                    None if error == Errno::LOOP => Err(Errno::AGAIN),
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// What readlinkat(2) says, where `INVAL` means that something is no link.
fn target(read: Result<std::ffi::CString, Errno>) -> Result<Option<Vec<u8>>, Errno> {
    match read {
        Ok(target) if target.as_bytes().len() > TARGET_LEN_MAX => Err(Errno::NAMETOOLONG),
        Ok(target) => Ok(Some(target.into_bytes())),
        Err(Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use rustix::fs::ResolveFlags;

    use super::*;

    /// A name on a way: few, so that most ways lead somewhere.
    fn component() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            4 => Just("a"), 4 => Just("b"), 4 => Just("l"), 4 => Just("m"),
            3 => Just(".."), 1 => Just("."), 1 => Just(""), 2 => Just("file"), 1 => Just("none"),
        ]
    }

    fn way(longest: usize) -> impl Strategy<Value = String> {
        proptest::collection::vec(component(), 1..=longest).prop_map(|parts| parts.join("/"))
    }

    /// A tree of two levels in which a file and two links stand in every directory.
    fn tree(at: &Path, targets: &[String]) {
        std::fs::create_dir_all(at.join("root/a/a")).unwrap();
        std::fs::create_dir_all(at.join("root/a/b")).unwrap();
        std::fs::create_dir_all(at.join("root/b/a")).unwrap();
        std::fs::write(at.join("file"), "outside").unwrap();
        let directories = ["", "a", "b", "a/a", "a/b", "b/a"];
        for (directory, two) in directories.iter().zip(targets.chunks(2)) {
            let directory = at.join("root").join(directory);
            std::fs::write(directory.join("file"), "x").unwrap();
            for (name, target) in ["l", "m"].iter().zip(two) {
                // An empty target is no link that the kernel makes.
                let target = if target.is_empty() { "." } else { target };
                std::os::unix::fs::symlink(target, directory.join(name)).unwrap();
            }
        }
    }

    fn identity(fd: &OwnedFd) -> (u64, u32) {
        let stat = rustix::fs::fstat(fd).unwrap();
        (stat.st_ino, stat.st_mode)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The kernel is the oracle: the same file, or the same error.
        #[test]
        fn a_way_leads_where_the_kernel_says(
            targets in proptest::collection::vec(way(4), 12),
            ways in proptest::collection::vec(way(6), 24),
        ) {
            let directory = tempfile::tempdir().unwrap();
            tree(directory.path(), &targets);
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let root = rustix::fs::open(directory.path().join("root"), flags, Mode::empty()).unwrap();
            let kinds = [
                OFlags::PATH,
                OFlags::PATH | OFlags::NOFOLLOW,
                OFlags::PATH | OFlags::DIRECTORY,
                OFlags::RDONLY,
                OFlags::RDONLY | OFlags::NOFOLLOW,
                OFlags::RDONLY | OFlags::DIRECTORY,
                OFlags::WRONLY | OFlags::NONBLOCK,
            ];
            for way in ways {
                for (flags, follows_links) in kinds.into_iter().flat_map(|it| [(it, true), (it, false)]) {
                    let flags = flags | OFlags::CLOEXEC;
                    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                    resolve.set(ResolveFlags::NO_SYMLINKS, !follows_links);
                    let mode = Mode::empty();
                    let way = if way.is_empty() { "." } else { &way };
                    // A rename elsewhere on the machine has it give up a way with `..`.
                    let theirs = loop {
                        match rustix::fs::openat2(&root, way, flags, mode, resolve) {
                            Err(Errno::AGAIN) => {}
                            result => break result,
                        }
                    };
                    let ours = lookup(root.as_fd(), way.as_bytes(), flags, mode, follows_links);
                    let theirs = theirs.map(|fd| identity(&fd));
                    let ours = ours.map(|fd| identity(&fd));
                    prop_assert_eq!(ours, theirs, "{} {:?} {}", way, flags, follows_links);
                }
            }
        }
    }

    #[test]
    fn ways_that_never_end_are_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(directory.path(), OFlags::PATH, Mode::empty()).unwrap();
        let deep = "d/".repeat(50);
        std::fs::create_dir_all(directory.path().join(&deep)).unwrap();
        // Up and down again at the depth of 49, 600 times in one link.
        let zigzag = "../d/".repeat(600);
        std::os::unix::fs::symlink(&zigzag, directory.path().join(&deep).join("z")).unwrap();
        let way = format!("{deep}z/z");
        let found = lookup(
            root.as_fd(),
            way.as_bytes(),
            OFlags::PATH,
            Mode::empty(),
            true,
        );
        assert_eq!(found.unwrap_err(), Errno::LOOP);
        std::os::unix::fs::symlink("loop/x", directory.path().join("loop")).unwrap();
        let found = lookup(root.as_fd(), b"loop", OFlags::PATH, Mode::empty(), true);
        assert_eq!(found.unwrap_err(), Errno::LOOP);
    }
}
