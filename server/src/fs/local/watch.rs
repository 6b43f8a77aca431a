//! Watching directories of this machine: inotify(7) behind a thread of its own.
//!
//! One thread and one inotify descriptor serve all servers of a process, for a user may have few of
//! the latter. They are there while something is watched. What the kernel's events mean is decided
//! in `watch/map.rs`.
//!
//! Every directory is opened beneath the user's root without following a link, and handed to the
//! kernel as that descriptor's entry in `/proc`: no path is read twice, so nobody who swaps a
//! directory for a link brings names from outside into the feed.

mod map;

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use self::map::{Added, Map, Number, Raw, Role, Step, What};
use super::LocalDirectory;
use crate::fs::feed::{Feed, FeedEvent, Subscription, WatchRequest};
use crate::path::VPath;

/// Most directories that a process watches.
const DIRECTORIES_MAX: usize = 65_536;
/// Events that are read at a time, in bytes.
const BUFFER_LEN: usize = 64 * 1024;
/// Most events that wait for the second half of a rename.
const BATCH_MAX: usize = 4096;
/// How long the second half of a rename is waited for.
const PAIR_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
/// How often a thread that nobody needs looks whether it is still known to somebody.
const IDLE_WAIT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// What is asked of the kernel for every directory.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// The one of this process, while something is watched.
static HUB: Mutex<Weak<Hub>> = Mutex::new(Weak::new());

/// What all subscriptions share.
#[derive(Debug)]
struct Hub {
    inotify: OwnedFd,
    /// Wakes the thread.
    bell: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    map: Map,
    roots: std::collections::BTreeMap<Number, Arc<LocalDirectory>>,
    /// Subscriptions that are over.
    dropped: Vec<Number>,
}

/// Ends its subscription.
struct Held {
    hub: Arc<Hub>,
    number: Number,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Letting thousands of directories go takes a while: the thread does it.
        self.hub.state().dropped.push(self.number);
        self.hub.ring();
    }
}

/// Watches a directory beneath the root of `files`. It may take long.
pub(super) fn watch(
    files: &Arc<LocalDirectory>,
    request: WatchRequest,
    feed: Feed,
) -> io::Result<Subscription> {
    let hub = hub()?;
    let number = {
        let mut state = hub.state();
        let number = state.map.subscribe(request.clone(), feed);
        state.roots.insert(number, Arc::clone(files));
        number
    };
    let held = Held { hub, number };
    let hub = &held.hub;
    // From the top down, so that nothing above can be swapped unseen.
    let (mut above, mut opened) = (VPath::root(), Vec::new());
    for component in request.path.components() {
        if !above.is_root() {
            let fd = files.listed(&above)?;
            hub.add(number, &fd, &above, Role::Above)?;
            opened.push((above.clone(), identity(&fd)?));
        }
        above = above.walk(component).map_err(io::Error::other)?;
    }
    let top = files.listed(&request.path)?;
    hub.add(number, &top, &request.path, Role::Top)?;
    opened.push((request.path.clone(), identity(&top)?));
    if request.recursive {
        hub.scan(number, files, &request.path, Tell::Nothing)?;
    }
    for (path, expected) in opened {
        if identity(&files.listed(&path)?)? != expected {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
    }
    Ok(Subscription::new(held))
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    #[allow(clippy::useless_conversion, reason = "32 bits on some architectures")]
    Ok((u64::from(stat.st_dev), u64::from(stat.st_ino)))
}

/// The hub of this process; its thread is started if there is none.
fn hub() -> io::Result<Arc<Hub>> {
    let mut current = HUB.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hub) = current.upgrade() {
        return Ok(hub);
    }
    let hub = Arc::new(Hub {
        inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
        bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        state: Mutex::default(),
    });
    *current = Arc::downgrade(&hub);
    let mine = Arc::clone(&hub);
    std::thread::Builder::new()
        .name("ketch-watch".into())
        .spawn(move || listen(mine))?;
    Ok(hub)
}

/// What a scan tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tell {
    Nothing,
    /// What is found in directories that were not watched.
    News,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Has the kernel watch a directory, and knows it before its first event is looked at.
    fn add(&self, number: Number, fd: &OwnedFd, path: &VPath, role: Role) -> io::Result<Added> {
        let mut state = self.state();
        if state.map.directories() >= DIRECTORIES_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let entry = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let descriptor = inotify::add_watch(&self.inotify, entry, EVENTS)?;
        let added = state.map.add(number, descriptor, path.clone(), role);
        if added == Added::Refused {
            if state.map.is_unused(descriptor) {
                let _ = inotify::remove_watch(&self.inotify, descriptor);
            }
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(added)
    }

    /// Watches a directory of a subscription and all beneath it.
    fn scan(
        &self,
        number: Number,
        files: &LocalDirectory,
        path: &VPath,
        tell: Tell,
    ) -> io::Result<()> {
        let mut waiting = vec![path.clone()];
        while let Some(path) = waiting.pop() {
            let fd = match files.listed(&path) {
                Ok(fd) => fd,
                // It went, became something else, or cannot be listed: there is nothing to tell.
                Err(error) if is_nothing(&error) => continue,
                Err(error) => return Err(error),
            };
            let is_new = self.add(number, &fd, &path, Role::Below)? == Added::New;
            let mut entries = Dir::new(fd)?;
            while let Some(entry) = entries.read() {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let Ok(child) = path.walk(name.to_bytes()) else {
                    continue; // no path can have such a name
                };
                let kind = match entry.file_type() {
                    FileType::Unknown => match kind_of(&entries, name) {
                        Some(kind) => kind,
                        None => continue,
                    },
                    kind => kind,
                };
                let is_directory = kind == FileType::Directory;
                if is_new && tell == Tell::News {
                    let path = child.clone();
                    self.tell(number, FeedEvent::Created { path, is_directory });
                }
                if is_directory {
                    waiting.push(child);
                }
            }
        }
        Ok(())
    }

    fn tell(&self, number: Number, event: FeedEvent) {
        if let Some(feed) = self.state().map.feed(number) {
            feed.push(event);
        }
    }

    /// As [`Hub::scan`], for the thread: what goes wrong ends the subscription, and says so.
    fn look(&self, number: Number, path: Option<VPath>, tell: Tell) {
        let found = {
            let state = self.state();
            let request = state.map.request(number);
            request
                .map(|request| path.unwrap_or_else(|| request.path.clone()))
                .zip(state.roots.get(&number).cloned())
                .zip(state.map.feed(number).cloned())
        };
        let Some(((path, root), feed)) = found else {
            return; // it is over
        };
        let is_recursive = self
            .state()
            .map
            .request(number)
            .is_some_and(|of| of.recursive);
        if is_recursive && let Err(error) = self.scan(number, &root, &path, tell) {
            tracing::warn!(%error, %path, "a subscription cannot go on");
            feed.fail();
        }
        if tell == Tell::Nothing {
            feed.push(FeedEvent::Overflow);
        }
    }

    fn perform(&self, step: Step) {
        match step {
            Step::Scan { number, path } => self.look(number, Some(path), Tell::News),
            Step::Rescan { number } => self.look(number, None, Tell::Nothing),
            Step::Unwatch(descriptor) => {
                // A subscription may have taken it up meanwhile.
                let state = self.state();
                if state.map.is_unused(descriptor) {
                    let _ = inotify::remove_watch(&self.inotify, descriptor);
                }
            }
        }
    }

    /// Forgets the subscriptions that are over.
    fn let_go(&self) {
        let steps: Vec<_> = {
            let mut state = self.state();
            let dropped = std::mem::take(&mut state.dropped);
            let mut steps = Vec::new();
            for number in dropped {
                state.roots.remove(&number);
                steps.extend(state.map.unsubscribe(number));
            }
            steps
        };
        for step in steps {
            self.perform(step);
        }
    }
}

fn is_nothing(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    is_link
        || matches!(
            error.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ResourceBusy
        )
}

fn kind_of(directory: &Dir, name: &std::ffi::CStr) -> Option<FileType> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statat(directory.fd().ok()?, name, flags).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// The thread: reads what the kernel says until nothing is watched any more.
fn listen(hub: Arc<Hub>) {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER_LEN];
    let mut batch = VecDeque::new();
    loop {
        // A first half of a rename that is alone is waited with for a moment.
        let is_idle = hub.state().map.is_idle();
        let timeout = match batch.is_empty() {
            false => Some(&PAIR_WAIT),
            // The last subscription rings before it lets go of the hub.
            true => is_idle.then_some(&IDLE_WAIT),
        };
        let mut fds = [
            PollFd::new(&hub.inotify, PollFlags::IN),
            PollFd::new(&hub.bell, PollFlags::IN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return give_up(&hub, error),
        }
        let _ = rustix::io::read(&hub.bell, &mut [0; 8]);
        hub.let_go();
        let had = batch.len();
        match read(&hub, &mut buffer, &mut batch) {
            Ok(()) => {}
            Err(error) => return give_up(&hub, error),
        }
        let is_settled = batch.len() == had || batch.len() >= BATCH_MAX;
        loop {
            let steps = hub.state().map.next(&mut batch, is_settled);
            let Some(steps) = steps else { break };
            steps.into_iter().for_each(|step| hub.perform(step));
        }
        // Whoever asks for a hub next finds this one, or none.
        let mut current = HUB.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = Arc::strong_count(&hub) == 1;
        if is_last && hub.state().map.is_idle() {
            *current = Weak::new();
            return;
        }
    }
}

/// No event can be read any more, which no kernel says: everybody is told that nothing more comes.
fn give_up(hub: &Hub, error: Errno) {
    tracing::error!(%error, "changes cannot be watched any more");
    *HUB.lock().unwrap_or_else(PoisonError::into_inner) = Weak::new();
    hub.state().map.fail_all();
}

/// Reads what is there, up to a bound.
fn read(hub: &Hub, buffer: &mut [MaybeUninit<u8>], batch: &mut VecDeque<Raw>) -> Result<(), Errno> {
    let mut reader = inotify::Reader::new(hub.inotify.as_fd(), buffer);
    while batch.len() < BATCH_MAX || !reader.is_buffer_empty() {
        let event = match reader.next() {
            Ok(event) => event,
            Err(Errno::AGAIN | Errno::INTR) => break,
            Err(error) => return Err(error),
        };
        let flags = event.events();
        let table = [
            (ReadFlags::QUEUE_OVERFLOW, What::Overflow),
            (ReadFlags::IGNORED, What::Ignored),
            (ReadFlags::DELETE_SELF, What::SelfGone),
            (ReadFlags::MOVE_SELF, What::SelfMoved),
            (ReadFlags::CREATE, What::Created),
            (ReadFlags::MODIFY, What::Modified),
            (ReadFlags::CLOSE_WRITE, What::Written),
            (ReadFlags::ATTRIB, What::Attributes),
            (ReadFlags::DELETE, What::Deleted),
            (ReadFlags::MOVED_FROM, What::MovedFrom),
            (ReadFlags::MOVED_TO, What::MovedTo),
        ];
        let Some((_, what)) = table.into_iter().find(|(flag, _)| flags.contains(*flag)) else {
            continue;
        };
        batch.push_back(Raw {
            descriptor: event.wd(),
            what,
            cookie: event.cookie(),
            is_directory: flags.contains(ReadFlags::ISDIR),
            name: event
                .file_name()
                .map_or_else(Vec::new, |name| name.to_bytes().to_vec()),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
